//! What a destination is: its canonical form, and the class that its pattern gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use authz_base::host::domain_name;
use authz_base::pattern::Glob;
use authz_base::spelling;
use authz_base::table::Table;
use smallvec::SmallVec;

use crate::directories::{Query, Says};
use crate::model::{DestinationClass, DestinationKind, Model};

/// Where data would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<'a> {
    /// The class; empty only where the bundle declares none.
    pub class: &'a str,
    /// The canonical form.
    pub canonical: String,
    /// Domain of an email address, host of a URL; else empty.
    pub host: String,
}

/// A destination that is not written as its kind demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IllTyped {
    /// What is wrong; never holds the destination.
    pub what: &'static str,
}

impl fmt::Display for IllTyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for IllTyped {}

impl Model {
    /// The class of a destination, and its canonical form.
    ///
    /// The most specific pattern wins: one without a star, else the one that fixes the most characters. What no
    /// pattern matches is of the least trusted class. Letters of mailboxes and hosts are compared without case. A
    /// pattern matches only kinds that it can be meant for: with `@` mailboxes, with `/` paths, else the others.
    ///
    /// # Errors
    /// The text is not written as its kind demands.
    pub fn classify_destination(
        &self,
        kind: DestinationKind,
        raw: &str,
    ) -> Result<Placed<'_>, IllTyped> {
        let (canonical, host) = canonical(kind, raw)?;
        let class = self.index.destinations.class(kind, &canonical).map(|(class, _)| class);
        let class = class.or_else(|| self.least_trusted()).unwrap_or_default();
        Ok(Placed { class, canonical, host })
    }

    /// The classes that a destination is of, or may be of where a directory is stale: at least one, unless the bundle
    /// declares none. An exact pattern goes before directories, and these before other patterns.
    pub fn classes_of(
        &self,
        kind: DestinationKind,
        canonical: &str,
        query: Option<&Query<'_>>,
    ) -> SmallVec<[&str; 1]> {
        let by_pattern = self.index.destinations.class(kind, canonical);
        let (Some(query), None | Some((_, false))) = (query, by_pattern) else {
            let class = by_pattern.map(|(class, _)| class).or_else(|| self.least_trusted());
            return SmallVec::from_iter(class);
        };
        let mut found = SmallVec::new();
        let mut is_known = false;
        for (name, class) in self.destinations.iter().filter(|(_, one)| !one.directories.is_empty())
        {
            let says = || class.directories.iter().map(|directory| query.ask(directory));
            is_known |= says().any(|says| says == Says::Holds);
            if says().any(|says| says != Says::Lacks) {
                found.push(name.as_str());
            }
        }
        if !is_known {
            let otherwise = by_pattern.map(|(class, _)| class).or_else(|| self.least_trusted());
            found.extend(otherwise.filter(|class| !found.contains(class)));
        }
        found
    }

    /// The class with the smallest clearance; of several the one that matches anything, else the first by name.
    #[must_use]
    pub fn least_trusted(&self) -> Option<&str> {
        let matches_all = |class: &DestinationClass| class.patterns.iter().any(|p| p == "*");
        self.destinations
            .iter()
            .min_by_key(|(name, class)| (class.clearance.len(), !matches_all(class), *name))
            .map(|(name, _)| name.as_str())
    }
}

/// Destination patterns, arranged for look-up.
#[derive(Clone, Debug, Default)]
pub struct Destinations {
    /// For kinds whose letters are compared without case: patterns in lower case.
    folded: Patterns,
    /// For the others: patterns as they stand.
    literal: Patterns,
}

#[derive(Clone, Debug, Default)]
struct Patterns {
    exact: Table<String, String>,
    /// Patterns of a star and a text: by that text, and the lengths that occur.
    suffix: Table<String, String>,
    lengths: BTreeSet<usize>,
    /// The others, the most specific first.
    others: Vec<(Glob, String, String)>,
}

impl Destinations {
    /// Arranges the patterns of a bundle's classes.
    #[must_use]
    pub fn compile(classes: &BTreeMap<String, DestinationClass>) -> Self {
        Self {
            folded: Patterns::compile(classes, str::to_ascii_lowercase),
            literal: Patterns::compile(classes, str::to_owned),
        }
    }

    /// The class, and whether it is that of an exact pattern.
    fn class(&self, kind: DestinationKind, canonical: &str) -> Option<(&str, bool)> {
        match kind {
            // Mail and host names are compared without case by those who deliver; paths and accounts are not.
            DestinationKind::Email | DestinationKind::UrlHost => {
                self.folded.class(kind, &canonical.to_ascii_lowercase())
            }
            DestinationKind::Iban | DestinationKind::Account | DestinationKind::Path => {
                self.literal.class(kind, canonical)
            }
        }
    }
}

impl Patterns {
    fn compile(
        classes: &BTreeMap<String, DestinationClass>,
        form: impl Fn(&str) -> String,
    ) -> Self {
        let mut out = Self::default();
        for (name, class) in classes {
            for pattern in &class.patterns {
                let pattern = form(pattern);
                let glob = Glob::new(&pattern);
                if glob.is_exact() {
                    out.exact.insert(pattern, name.clone());
                } else if let Some(suffix) = glob.suffix() {
                    out.lengths.insert(suffix.len());
                    out.suffix.insert(suffix.to_owned(), name.clone());
                } else {
                    out.others.push((glob, pattern, name.clone()));
                }
            }
        }
        out.others.sort_by_key(|(glob, ..)| std::cmp::Reverse(glob.fixed()));
        out
    }

    fn class(&self, kind: DestinationKind, text: &str) -> Option<(&str, bool)> {
        // A path may be written like a mailbox: the pattern of the one says nothing of the other.
        if let Some(class) = self.exact.get(text).filter(|_| speaks_of(text, kind)) {
            return Some((class, true));
        }
        let ending = self.lengths.iter().rev().find_map(|length| {
            let suffix = text.get(text.len().checked_sub(*length)?..)?;
            let class = self.suffix.get(suffix)?;
            speaks_of(suffix, kind).then_some((*length, class))
        });
        let other = self
            .others
            .iter()
            .find(|(glob, pattern, _)| speaks_of(pattern, kind) && glob.matches(text))
            .map(|(glob, _, class)| (glob.fixed(), class));
        match (ending, other) {
            (Some((a, _)), Some((b, class))) if b > a => Some((class, false)),
            (Some((_, class)), _) | (None, Some((_, class))) => Some((class, false)),
            (None, None) => None,
        }
    }
}

/// Whether a pattern can be meant for a kind: `*.corp.example` says nothing of mailboxes or paths, so a
/// path that ends like that host gains nothing by it.
pub fn speaks_of(pattern: &str, kind: DestinationKind) -> bool {
    let fixed = pattern.trim_matches('*');
    match kind {
        _ if fixed.is_empty() => true,
        DestinationKind::Email => fixed.contains('@'),
        DestinationKind::Path => fixed.contains('/') && !fixed.contains('@'),
        DestinationKind::UrlHost | DestinationKind::Iban | DestinationKind::Account => {
            !fixed.contains(['@', '/'])
        }
    }
}

/// The canonical form and the host of a destination.
pub fn canonical(kind: DestinationKind, raw: &str) -> Result<(String, String), IllTyped> {
    match kind {
        DestinationKind::Email => email(raw),
        DestinationKind::UrlHost => url_host(raw).map(|host| (host.clone(), host)),
        DestinationKind::Iban => iban(raw).map(|iban| (iban, String::new())),
        DestinationKind::Account => account(raw).map(|account| (account, String::new())),
        DestinationKind::Path => path(raw).map(|path| (path, String::new())),
    }
}

fn ill<T>(what: &'static str) -> Result<T, IllTyped> {
    Err(IllTyped { what })
}

/// A mailbox of RFC 5321 §4.1.2 without quotes, comments, lists or address literals: forms that mail software reads
/// differently.
fn email(raw: &str) -> Result<(String, String), IllTyped> {
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
        Some(domain) if raw.len() <= 254 => Ok((format!("{local}@{domain}"), domain)),
        _ => ill("no plain email address: its domain is malformed"),
    }
}

/// The host of an absolute http or https URL (RFC 3986 §3.2.2), without forms that URL readers disagree about.
fn url_host(raw: &str) -> Result<String, IllTyped> {
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
        Err(_) => domain_name(host).ok_or(IllTyped { what: "the URL's host is malformed" }),
    }
}

/// Scheme, host and port of a URL in one form, and the segments of its path; query and fragment are left out. None where the
/// URL is not plain, or servers read its path in different ways: dot segments, empty ones, and encoded dots, slashes,
/// backslashes or percent signs.
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
fn iban(raw: &str) -> Result<String, IllTyped> {
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

fn account(raw: &str) -> Result<String, IllTyped> {
    if raw.is_empty() || raw.len() > 256 || !raw.bytes().all(|b| b.is_ascii_graphic()) {
        return ill("no account name: 1 to 256 printable ASCII characters without spaces");
    }
    Ok(raw.to_owned())
}

fn path(raw: &str) -> Result<String, IllTyped> {
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
    use crate::model::Location;

    fn model(classes: &[(&str, &[&str], &[&str])]) -> Model {
        let mut model = Model::default();
        for (name, patterns, clearance) in classes {
            let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            let class = DestinationClass {
                patterns: texts(patterns),
                directories: BTreeSet::new(),
                clearance: texts(clearance).into_iter().collect(),
                at: Location::default(),
            };
            model.destinations.insert((*name).to_owned(), class);
        }
        model.build_index();
        model
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let model = model(&[
            ("internal", &["*@corp.example", "*.corp.example"], &["pii"]),
            ("lab", &["*@lab.corp.example", "lab-*.corp.example"], &["pii"]),
            ("boss", &["boss@corp.example"], &["pii", "secret"]),
            ("external", &["*"], &[]),
        ]);
        let class = |kind, raw| model.classify_destination(kind, raw).unwrap().class.to_owned();
        assert_eq!("internal", class(DestinationKind::Email, "a@corp.example"));
        assert_eq!("internal", class(DestinationKind::Email, "A@CORP.example"));
        assert_eq!("boss", class(DestinationKind::Email, "boss@corp.example"));
        assert_eq!("lab", class(DestinationKind::Email, "a@lab.corp.example"));
        assert_eq!("external", class(DestinationKind::Email, "a@corp.example.evil.example"));
        assert_eq!("internal", class(DestinationKind::UrlHost, "https://x.corp.example/y?z"));
        assert_eq!("lab", class(DestinationKind::UrlHost, "https://lab-1.corp.example"));
        assert_eq!("external", class(DestinationKind::UrlHost, "https://corp.example"));
    }

    #[test]
    fn a_pattern_for_hosts_says_nothing_of_mailboxes_or_paths() {
        let model =
            model(&[("internal", &["*.corp.example"], &["pii"]), ("external", &["*"], &[])]);
        for (kind, raw) in [
            (DestinationKind::Email, "a@evil.corp.example"),
            (DestinationKind::Path, "/tmp/x.corp.example"),
        ] {
            assert_eq!("external", model.classify_destination(kind, raw).unwrap().class);
        }
    }

    #[test]
    fn a_pattern_without_star_is_held_to_its_kind_too() {
        let model = model(&[
            ("boss", &["Boss@corp.example"], &["pii"]),
            ("exports", &["/exports/*", "/exports"], &["pii"]),
            ("ledger", &["Acct-7"], &["pii"]),
            ("host", &["x.corp.example"], &["pii"]),
            ("slash", &["a/b@corp.example"], &["pii"]),
            ("external", &["*"], &[]),
        ]);
        for (kind, raw, class) in [
            (DestinationKind::Email, "bOSS@Corp.example", "boss"),
            (DestinationKind::Path, "boss@corp.example", "external"),
            (DestinationKind::Path, "Boss@corp.example", "external"),
            (DestinationKind::Account, "Boss@corp.example", "external"),
            (DestinationKind::Path, "/exports/a", "exports"),
            (DestinationKind::Path, "/exports", "exports"),
            (DestinationKind::Path, "/EXPORTS/a", "external"),
            (DestinationKind::Account, "/exports", "external"),
            (DestinationKind::Account, "Acct-7", "ledger"),
            (DestinationKind::Account, "acct-7", "external"),
            (DestinationKind::Path, "Acct-7", "external"),
            (DestinationKind::UrlHost, "https://X.corp.example", "host"),
            (DestinationKind::Email, "a/b@corp.example", "slash"),
            (DestinationKind::Path, "a/b@corp.example", "external"),
        ] {
            let found = model.classify_destination(kind, raw).unwrap();
            assert_eq!(class, found.class, "{kind:?} {raw}");
        }
    }

    #[test]
    fn what_no_pattern_matches_is_of_the_least_trusted_class() {
        let model = model(&[("a", &["a@x.example"], &["pii"]), ("z", &["z@x.example"], &[])]);
        let placed = model.classify_destination(DestinationKind::Email, "q@x.example").unwrap();
        assert_eq!("z", placed.class);
        assert_eq!("x.example", placed.host);
    }

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
            assert_eq!((wanted, true), (&*canonical(kind, raw).unwrap().0, true), "{raw}");
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
