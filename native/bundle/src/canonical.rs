//! Canonical forms of destinations.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use authz_base::host::domain_name;
use authz_base::spelling;
use smallvec::SmallVec;

use crate::model::DestinationKind;

/// A destination in the canonical form of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalDestination {
    /// The canonical form.
    pub text: String,
    /// Domain of an email address or host of a URL; empty for other kinds.
    pub host: String,
}

impl CanonicalDestination {
    const fn without_host(text: String) -> Self {
        Self { text, host: String::new() }
    }
}

/// A destination that is not written in the form of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestinationError {
    /// The defect; never holds the destination.
    pub what: &'static str,
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for DestinationError {}

/// Brings a destination into the canonical form of its kind.
///
/// # Errors
/// The text is not written in the form of its kind.
pub fn canonical(
    kind: DestinationKind,
    raw: &str,
) -> Result<CanonicalDestination, DestinationError> {
    match kind {
        DestinationKind::Email => email(raw),
        DestinationKind::UrlHost => {
            url_host(raw).map(|host| CanonicalDestination { text: host.clone(), host })
        }
        DestinationKind::Iban => iban(raw).map(CanonicalDestination::without_host),
        DestinationKind::Account => account(raw).map(CanonicalDestination::without_host),
        DestinationKind::Path => path(raw).map(CanonicalDestination::without_host),
    }
}

fn ill<T>(what: &'static str) -> Result<T, DestinationError> {
    Err(DestinationError { what })
}

/// A mailbox of RFC 5321 §4.1.2 without quotes, comments, lists or address literals: forms that mail software reads
/// differently.
fn email(raw: &str) -> Result<CanonicalDestination, DestinationError> {
    let Some((local, domain)) = raw.split_once('@') else {
        return ill("no email address: it has no `@`");
    };
    let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    let dot_atom = !local.is_empty()
        && local.len() <= 64
        && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(atext));
    if !dot_atom {
        return ill("no plain email address: its local part is quoted or malformed");
    }
    // RFC 2047 decoders read other addresses from an encoded word, and mail relays from `%` and `!`.
    if local.contains("=?") || local.contains(['%', '!']) {
        return ill("no plain email address: its local part is encoded, or names another host");
    }
    match domain_name(domain) {
        Some(domain) if raw.len() <= 254 => {
            Ok(CanonicalDestination { text: format!("{local}@{domain}"), host: domain })
        }
        _ => ill("no plain email address: its domain is malformed"),
    }
}

/// The host of an absolute http or https URL (RFC 3986 §3.2.2), without forms that URL readers disagree about.
fn url_host(raw: &str) -> Result<String, DestinationError> {
    if raw.len() > 4096 || !raw.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return ill(
            "no plain URL: spaces, control or non-ASCII characters, backslashes, or too long",
        );
    }
    let Some((scheme, rest)) = raw.split_once("://") else {
        return ill("no absolute URL");
    };
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return ill("neither an http nor an https URL");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return ill("the URL names a user");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, "")) => (v6, None),
            Some((v6, after)) => (v6, after.strip_prefix(':').or(Some(""))),
            None => return ill("the URL's host is malformed"),
        },
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let numeric = |port: &str| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    if port.is_some_and(|port| !numeric(port) || !port.parse::<u16>().is_ok_and(|p| p > 0)) {
        return ill("the URL's port is malformed");
    }
    if authority.starts_with('[') {
        return match host.parse::<Ipv6Addr>() {
            // Written as IPv6, reached as IPv4: two names of one host.
            Ok(v6) if v6.to_ipv4_mapped().is_none() => Ok(format!("[{v6}]")),
            _ => ill("the URL's host is malformed"),
        };
    }
    match host.parse::<Ipv4Addr>() {
        Ok(v4) => Ok(v4.to_string()),
        Err(_) => domain_name(host).ok_or(DestinationError { what: "the URL's host is malformed" }),
    }
}

/// Scheme, host and port of a URL in canonical form, and the segments of its path, without query and fragment.
///
/// `None` if the URL is not plain, or if servers read its path in different ways: dot segments, empty segments, and encoded
/// dots, slashes, backslashes or percent signs.
pub fn url_parts(raw: &str) -> Option<(String, SmallVec<[&str; 8]>)> {
    let host = url_host(raw).ok()?;
    let (scheme, rest) = raw.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end)?;
    let after_host = authority.rsplit(']').next().unwrap_or_default();
    let port: Option<u16> = after_host.split_once(':').and_then(|(_, port)| port.parse().ok());
    let default = if scheme == "https" { 443 } else { 80 };
    let origin = match port.filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments = SmallVec::new();
    if path.is_empty() {
        return Some((origin, segments));
    }
    for segment in path.split('/') {
        let lower = segment.to_ascii_lowercase();
        let is_odd = matches!(segment, "" | "." | "..")
            || ["%2e", "%2f", "%5c", "%25", "%00"].iter().any(|code| lower.contains(code));
        if is_odd {
            return None;
        }
        segments.push(segment);
    }
    Some((origin, segments))
}

/// ISO 13616: upper case without spaces, its check digits tried (mod 97).
fn iban(raw: &str) -> Result<String, DestinationError> {
    if raw.len() > 48 {
        return ill("no IBAN: too long");
    }
    let iban: String = raw.chars().filter(|c| *c != ' ').map(|c| c.to_ascii_uppercase()).collect();
    let letters = |range: std::ops::Range<usize>| {
        iban.get(range).is_some_and(|s| s.bytes().all(|b| b.is_ascii_uppercase()))
    };
    let digits = iban.get(2..4).is_some_and(|s| s.bytes().all(|b| b.is_ascii_digit()));
    let alphanumeric = iban.bytes().all(|b| b.is_ascii_alphanumeric());
    if !(15..=34).contains(&iban.len()) || !letters(0..2) || !digits || !alphanumeric {
        return ill("no IBAN: country, check digits, then 11 to 30 letters or digits");
    }
    let (head, tail) = iban.split_at_checked(4).unwrap_or_default();
    let rest =
        tail.chars().chain(head.chars()).filter_map(|c| c.to_digit(36)).fold(0, |rest, digit| {
            if digit < 10 { (rest * 10 + digit) % 97 } else { (rest * 100 + digit) % 97 }
        });
    if rest == 1 { Ok(iban) } else { ill("no IBAN: its check digits are wrong") }
}

fn account(raw: &str) -> Result<String, DestinationError> {
    if raw.is_empty() || raw.len() > 256 || !raw.bytes().all(|b| b.is_ascii_graphic()) {
        return ill("no account name: 1 to 256 printable ASCII characters without spaces");
    }
    Ok(raw.to_owned())
}

fn path(raw: &str) -> Result<String, DestinationError> {
    if raw.len() > 4096 || raw.contains('%') || spelling::check_plain(raw).is_err() {
        return ill(
            "no plain path: empty or dot segments, blanks or dots at the ends of segments, backslashes, `%`, invisible \
             characters, or not in Unicode form NFC",
        );
    }
    Ok(raw.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_kind_has_one_canonical_form() {
        for (kind, raw, wanted) in [
            (DestinationKind::Email, "Bob+x@Acme.EXAMPLE", "Bob+x@acme.example"),
            (DestinationKind::UrlHost, "HTTPS://WWW.Acme.example:8443/A?b#c", "www.acme.example"),
            (DestinationKind::UrlHost, "http://127.0.0.1:80", "127.0.0.1"),
            (DestinationKind::UrlHost, "http://[::0:1]/", "[::1]"),
            (DestinationKind::Iban, "gb82 west 1234 5698 7654 32", "GB82WEST12345698765432"),
            (DestinationKind::Account, "acct:42", "acct:42"),
            (DestinationKind::Path, "/exports/a.csv", "/exports/a.csv"),
        ] {
            assert_eq!(wanted, canonical(kind, raw).unwrap().text, "{raw}");
        }
    }

    #[test]
    fn forms_that_readers_disagree_about_are_ill_typed() {
        let email = [
            "",
            "bob",
            "bob@",
            "@acme.example",
            "\"a b\"@acme.example",
            "a@b@acme.example",
            "a b@acme.example",
            "Bob <bob@acme.example>",
            "a@x.example,b@y.example",
            ".a@acme.example",
            "a..b@acme.example",
            "a@[127.0.0.1]",
            "a@acme.example.",
            "a@-acme.example",
            "a@acme..example",
            "a@acme.example\n",
            "a(comment)@acme.example",
            "b\u{f6}b@acme.example",
            "a@\u{430}cme.example",
            "a@1.2.3.4",
        ];
        let url = [
            "",
            "acme.example",
            "//acme.example",
            "ftp://acme.example",
            "javascript://x",
            "https:/acme.example",
            "https://corp.example@evil.example",
            "https://corp.example\\@evil.example",
            "https://",
            "https://acme.example.",
            "https://0x7f000001",
            "https://2130706433",
            "https://127.1",
            "https://a%2eb",
            "https://acme.example:",
            "https://acme.example:0",
            "https://acme.example:99999",
            "https://acme.example:+80",
            "https://[::1",
            "https://[::ffff:127.0.0.1]",
            "https://[::1]x",
            "https://a b",
            " https://acme.example",
            "https://ac\u{ad}me.example",
            "https://_x.example",
        ];
        let iban = [
            "",
            "GB82",
            "GB83WEST12345698765432",
            "GB82-WEST-1234-5698-7654-32",
            "1282WEST12345698765432",
        ];
        let path = ["", "/", "a//b", "a/../b", "./a", "a/", "a\\b", "a%2fb", "a\0b"];
        for (kind, raws) in [
            (DestinationKind::Email, &email[..]),
            (DestinationKind::UrlHost, &url[..]),
            (DestinationKind::Iban, &iban[..]),
            (DestinationKind::Path, &path[..]),
            (DestinationKind::Account, &["", "a b", "a\n"][..]),
        ] {
            for raw in raws {
                assert!(canonical(kind, raw).is_err(), "{kind:?} {raw:?}");
            }
        }
    }
}
