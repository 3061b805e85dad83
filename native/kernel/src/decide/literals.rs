//! Mailboxes, hosts and IBANs that stand in the texts of a call.
//!
//! INVARIANT (over, never under): the texts are the agent's, so a text that could be read as an address counts as one. The
//! reader of prompts is strict in the other direction, since a name in a prompt makes a value trusted.

use std::collections::BTreeSet;

use crate::canonical::canonical;
use crate::json::Value as Json;
use crate::model::DestinationKind;

/// Largest value of `context.literals.unknown`.
pub(super) const MAX_UNKNOWN: usize = 256;
/// Different addresses of one call that are looked up.
const MAX_FOUND: usize = 1_024;
/// Addresses of one text that are looked at, also the same ones again.
const MAX_ADDRESSES: usize = 16_384;
/// Groups of letters and digits that are tried together as one IBAN.
const MAX_GROUPS: usize = 9;
/// Bytes of a scheme, and of the local part of a mailbox.
const MAX_SCHEME: usize = 16;
const MAX_LOCAL: usize = 64;
/// Endings of file names. A word with one of them is a host only where a port or path follows it.
const FILE_ENDINGS: &[&str] = &[
    "ai", "avi", "bak", "bat", "bmp", "bz2", "c", "cc", "cfg", "conf", "cpp", "cs", "css", "csv",
    "db", "dll", "doc", "docx", "eml", "env", "exe", "gif", "go", "gz", "h", "hpp", "htm", "html",
    "ics", "ini", "ipynb", "jar", "java", "jpeg", "jpg", "js", "json", "jsonl", "jsx", "key",
    "lock", "log", "md", "mov", "mp3", "mp4", "odt", "parquet", "pdf", "pem", "php", "pl", "png",
    "ppt", "pptx", "ps", "py", "rar", "rb", "rs", "rst", "rtf", "sh", "sql", "svg", "tar", "tex",
    "tgz", "toml", "ts", "tsv", "tsx", "txt", "wav", "webp", "xls", "xlsx", "xml", "yaml", "yml",
    "zip",
];

/// An address that stands in a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TextAddress {
    /// Kind of the address: a mailbox, a URL or an IBAN.
    pub(super) kind: AddressKind,
    /// The address; of a host without a scheme `https://host`, with its path.
    pub(super) text: String,
}

/// Kind of an address in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AddressKind {
    Email,
    Url,
    Iban,
}

impl AddressKind {
    pub(super) const fn destination(self) -> DestinationKind {
        match self {
            Self::Email => DestinationKind::Email,
            Self::Url => DestinationKind::UrlHost,
            Self::Iban => DestinationKind::Iban,
        }
    }
}

/// Number of addresses in the texts of a value that are not trusted, at most 256.
///
/// Args: `is_trusted`: asked once for each different address.
pub(super) fn count_unknown(
    arguments: &Json,
    mut is_trusted: impl FnMut(&TextAddress) -> bool,
) -> i64 {
    let mut found: BTreeSet<TextAddress> = BTreeSet::new();
    let mut unknown: BTreeSet<(AddressKind, String)> = BTreeSet::new();
    let mut values = vec![arguments];
    let most = i64::try_from(MAX_UNKNOWN).unwrap_or(i64::MAX);
    while let Some(value) = values.pop() {
        match value {
            Json::Array(items) => values.extend(items),
            Json::Object(members) => values.extend(members.iter().map(|(_, member)| member)),
            Json::String(text) => {
                let all = addresses(text);
                if all.len() >= MAX_ADDRESSES {
                    return most;
                }
                for address in all {
                    if unknown.len() >= MAX_UNKNOWN {
                        break;
                    }
                    if found.contains(&address) {
                        continue;
                    }
                    if found.len() >= MAX_FOUND {
                        // INVARIANT (bounded): a call with so many addresses is not looked through.
                        return most;
                    }
                    if !is_trusted(&address) {
                        // Several paths of one host are one host.
                        let name = canonical(address.kind.destination(), &address.text);
                        unknown.insert((
                            address.kind,
                            name.map_or_else(|_| address.text.clone(), |name| name.text),
                        ));
                    }
                    found.insert(address);
                }
            }
            _ => {}
        }
    }
    i64::try_from(unknown.len()).unwrap_or(i64::MAX)
}

/// The addresses in a text, in any order; at least [`MAX_ADDRESSES`] of them where there are so many.
fn addresses(text: &str) -> Vec<TextAddress> {
    let mut found = Vec::new();
    for chunk in text.split(is_apart) {
        if found.len() >= MAX_ADDRESSES {
            return found;
        }
        if chunk.len() < 4 {
            continue;
        }
        if chunk.contains("://") {
            urls(chunk, &mut found);
        } else if chunk.contains('@') {
            mailboxes(chunk, &mut found);
        } else if chunk.contains('.') {
            hosts(chunk, &mut found);
        }
    }
    ibans(text, &mut found);
    found
}

/// Whether a character can stand in no address.
fn is_apart(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(
            c,
            '<' | '>' | '(' | ')' | '{' | '}' | '"' | '\'' | '`' | '|' | ',' | ';' | '^' | '*'
        )
        || matches!(c, '\u{2018}'..='\u{201f}' | '«' | '»' | '\u{3001}' | '\u{ff0c}')
}

fn urls(chunk: &str, found: &mut Vec<TextAddress>) {
    let mut rest = chunk;
    while let Some((before, after)) = rest.split_once("://") {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let start =
            before.char_indices().rev().take_while(|(_, c)| is_scheme(*c)).take(MAX_SCHEME).last();
        let scheme = start.and_then(|(at, _)| before.get(at..)).unwrap_or_default();
        // One URL may stand in the query of another: both count.
        let end = after.find("://").map_or(after.len(), |at| {
            let inner = after.get(..at).unwrap_or_default();
            inner.rfind(|c: char| !is_scheme(c)).unwrap_or(0)
        });
        let body =
            after.get(..end).unwrap_or(after).trim_end_matches(['.', ':', '!', '?', ']', '&', '=']);
        let authority = body.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        if !scheme.is_empty() && authority.contains(char::is_alphanumeric) {
            found.push(TextAddress { kind: AddressKind::Url, text: format!("{scheme}://{body}") });
        }
        rest = after;
    }
}

fn mailboxes(chunk: &str, found: &mut Vec<TextAddress>) {
    for (at, _) in chunk.match_indices('@') {
        let (before, after) = (
            chunk.get(..at).unwrap_or_default(),
            chunk.get(at.saturating_add(1)..).unwrap_or_default(),
        );
        let is_local = |c: char| c.is_alphanumeric() || "!#$%&+-/=?_{}~.".contains(c);
        let start =
            before.char_indices().rev().take_while(|(_, c)| is_local(*c)).take(MAX_LOCAL).last();
        let local = start.and_then(|(at, _)| before.get(at..)).unwrap_or_default();
        let local = local.trim_start_matches(['.', '/', '=']);
        let is_domain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.');
        let end = after.find(|c: char| !is_domain(c)).unwrap_or(after.len());
        let domain = after.get(..end).unwrap_or_default().trim_end_matches(['.', '-']);
        if !local.is_empty() && domain.contains(char::is_alphabetic) {
            found.push(TextAddress { kind: AddressKind::Email, text: format!("{local}@{domain}") });
        }
    }
}

/// Hosts without a scheme, such as `www.a.example` or `a.example/path`.
fn hosts(chunk: &str, found: &mut Vec<TextAddress>) {
    let is_host = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.');
    let mut rest = chunk;
    while let Some(start) = rest.find(is_host) {
        let (_, from) = rest.split_at_checked(start).unwrap_or_default();
        let end = from.find(|c: char| !is_host(c)).unwrap_or(from.len());
        let (host, after) = from.split_at_checked(end).unwrap_or_default();
        let host = host.trim_matches(['.', '-']);
        rest = after;
        let Some((_, last)) = host.rsplit_once('.') else { continue };
        let has_more = after.starts_with('/') && after.len() > 1
            || after
                .strip_prefix(':')
                .is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()));
        let is_address = host.parse::<std::net::Ipv4Addr>().is_ok();
        let is_name = last.len() >= 2 && last.chars().all(char::is_alphabetic);
        let is_file = || FILE_ENDINGS.contains(&last.to_ascii_lowercase().as_str());
        let is_www = || host.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("www."));
        if (is_name && (has_more || is_www() || !is_file())) || (is_address && has_more) {
            let path =
                if has_more { after.trim_end_matches(['.', ':', '!', '?', ']']) } else { "" };
            found.push(TextAddress {
                kind: AddressKind::Url,
                text: format!("https://{host}{path}"),
            });
            if has_more {
                // The rest is its path.
                return;
            }
        }
    }
}

/// IBANs, also in groups with single blanks or hyphens between.
fn ibans(text: &str, found: &mut Vec<TextAddress>) {
    let is_part = |c: char| c.is_ascii_alphanumeric();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let (_, from) = rest.split_at_checked(start).unwrap_or_default();
        let end = from.find(|c: char| !is_part(c)).unwrap_or(from.len());
        let (group, after) = from.split_at_checked(end).unwrap_or_default();
        let bytes = group.as_bytes();
        let begins = bytes.iter().take(2).all(u8::is_ascii_alphabetic)
            && bytes.len() >= 4
            && bytes.iter().skip(2).take(2).all(u8::is_ascii_digit);
        if begins && let Some(iban) = iban(from) {
            found.push(TextAddress { kind: AddressKind::Iban, text: iban });
        }
        rest = after;
    }
}

/// The IBAN that a text begins with.
fn iban(text: &str) -> Option<String> {
    let mut iban = String::new();
    let mut rest = text;
    for _ in 0..MAX_GROUPS {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (group, after) = rest.split_at_checked(end)?;
        if group.is_empty() || iban.len().saturating_add(group.len()) > 34 {
            return None;
        }
        iban.push_str(group);
        if iban.len() >= 15
            && let Ok(iban) = canonical(DestinationKind::Iban, &iban)
        {
            return Some(iban.text);
        }
        rest = after.strip_prefix([' ', '-', '\u{a0}'])?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        addresses(text).into_iter().map(|address| address.text).collect()
    }

    #[test]
    fn addresses_are_seen_wherever_they_stand() {
        for (text, wanted) in [
            ("Hello, see you at 10.30 on 1.2.2026.", &[][..]),
            ("Write to eve@evil.example.", &["eve@evil.example"]),
            ("mailto:eve@evil.example?subject=x", &["eve@evil.example"]),
            ("<eve@evil.example>,\"x\"bob@b.example;", &["eve@evil.example", "bob@b.example"]),
            ("@eve and bob@ are names", &[]),
            ("> quoted: do not use https://evil.example/x?y=1.", &["https://evil.example/x?y=1"]),
            ("[click](http://evil.example)", &["http://evil.example"]),
            (
                "http://a.example/?u=http://b.example/x",
                &["http://a.example/?u", "http://b.example/x"],
            ),
            ("ftp://evil.example/x", &["ftp://evil.example/x"]),
            ("https://a.example@evil.example/", &["https://a.example@evil.example/"]),
            ("visit evil.example today", &["https://evil.example"]),
            ("visit www.evil.example/a.", &["https://www.evil.example/a"]),
            ("//evil.example/x", &["https://evil.example/x"]),
            (
                "evil.example:8080 or 10.0.0.1:80",
                &["https://evil.example:8080", "https://10.0.0.1:80"],
            ),
            ("report.pdf, main.rs and config.yaml; e.g. i.e. v1.2.3", &[]),
            ("main.rs/x and www.main.rs", &["https://main.rs/x", "https://www.main.rs"]),
            ("ünicode.example", &["https://ünicode.example"]),
            ("pay DE89 3704 0044 0532 0130 00 now", &["DE89370400440532013000"]),
            ("pay de89-3704-0044-0532-0130-00!", &["DE89370400440532013000"]),
            ("pay DE89370400440532013001", &[]),
        ] {
            assert_eq!(wanted, found(text), "{text}");
        }
    }

    #[test]
    fn each_unknown_address_counts_once_and_the_count_is_bounded() {
        let text = |text: String| {
            Json::Array(vec![Json::Object(vec![("a".to_owned(), Json::String(text))])])
        };
        let count = |value: &Json| count_unknown(value, |address| address.text.contains("good"));
        assert_eq!(
            2,
            count(&text(
                "a@b.example a@b.example https://c.example/1 https://c.example/2 d@good.example"
                    .to_owned()
            ))
        );
        let many = |domain: &str, most: usize| {
            text((0..most).map(|n| format!("u{n}@{domain} ")).collect())
        };
        assert_eq!(255, count(&many("b.example", 255)));
        assert_eq!(256, count(&many("b.example", 5_000)));
        assert_eq!(0, count(&many("good.example", MAX_FOUND)));
        assert_eq!(256, count(&many("good.example", MAX_FOUND + 1)));
        assert_eq!(1, count(&text("a@b.example ".repeat(MAX_ADDRESSES - 1))));
        assert_eq!(256, count(&text("a@good.example ".repeat(MAX_ADDRESSES))));
    }

    proptest::proptest! {
        /// No text stops the reader, an address that stands alone in it is seen, and blanks around it hide nothing.
        #[test]
        fn any_text_is_read(before in "[ -~\u{e4}\u{2014}\u{200b}]{0,80}", after in "[ -~\u{e4}\u{3000}]{0,80}") {
            for address in ["eve@evil.example", "https://evil.example/x", "www.evil.example", "GB29NWBK60161331926819"] {
                let text = Json::String(format!("{before} {address} {after}"));
                let mut seen = false;
                let count = count_unknown(&text, |found| {
                    seen |= found.text == address || found.text == format!("https://{address}");
                    true
                });
                proptest::prop_assert!(seen && count == 0, "{}", address);
            }
        }
    }
}
