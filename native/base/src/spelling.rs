//! The one spelling of ids, URIs, paths and prefixes: the only place that decides whether two texts may name one thing.
//!
//! A text that a system could read as another text is refused, not repaired: a repaired text would be judged, and the text as
//! it was written would be sent upstream. Rules, patterns and stored labels then compare texts byte by byte. Only a
//! collection that says `spelling: fold` has ids with several spellings, which share one case-folded key ([`fold`]).

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::host::is_host;

/// Bytes of an id.
pub const MAX_ID: usize = 1_024;
/// Most bytes of a URI that is not an id.
const MAX_URI: usize = 4_096;

/// Why a text is not in the one spelling, and how to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misspelling {
    /// One clause; never holds the text.
    pub what: &'static str,
    /// Instruction for the correct spelling; one sentence.
    pub fix: &'static str,
}

const fn misspelling(what: &'static str, fix: &'static str) -> Misspelling {
    Misspelling { what, fix }
}

const LENGTH: Misspelling =
    misspelling("it is empty, or longer than 1,024 bytes", "Write 1 to 1,024 bytes.");
const EMPTY: Misspelling = misspelling(
    "it has an empty segment, or ends in a slash",
    "Write one `/` between segments, and none at the end.",
);
const DOTS: Misspelling =
    misspelling("it has a dot segment", "Write the path without `.` and `..`.");
const BACKSLASH: Misspelling = misspelling("it holds a backslash", "Write `/` between segments.");
const INVISIBLE: Misspelling = misspelling(
    "it holds a control, format or other invisible character",
    "Remove the characters that nobody sees.",
);
const ENCODED: Misspelling =
    misspelling("it holds a percent-encoded character", "Write the character itself.");
const NOT_NFC: Misspelling =
    misspelling("it is not in Unicode normalization form C", "Write it in form NFC.");
const ENDS: Misspelling = misspelling(
    "a segment begins or ends in a blank, or ends in a dot",
    "Remove blanks at the ends of segments, and dots at their end.",
);
const NO_SCHEME: Misspelling =
    misspelling("it is not a URI: it has no scheme", "Write `<scheme>:<path>`.");
const SCHEME: Misspelling =
    misspelling("its scheme has capital letters", "Write the scheme in lower case.");
const SLASHES: Misspelling = misspelling(
    "it has the scheme of a web address or file, and no `//`",
    "Write `https://<host>/<path>` or `file:///<path>`.",
);
const CHARACTER: Misspelling = misspelling(
    "it holds a character that a URI has only percent-encoded",
    "Percent-encode it (RFC 3986 section 2).",
);
const ESCAPE: Misspelling = misspelling(
    "it percent-encodes a character that needs no encoding, or with small letters",
    "Write letters, digits, `-._~`, and in a path `!$&'()*+,=:@` as they are, and encodings like `%C3%BC`.",
);
const SEPARATOR: Misspelling = misspelling(
    "it percent-encodes a separator, dot, percent or control character",
    "Write it without the encoded character.",
);
const MALFORMED: Misspelling =
    misspelling("it holds a malformed percent-encoding", "Write `%` and two digits of UTF-8.");
const USER: Misspelling =
    misspelling("it names a user, or an empty one", "Remove everything up to `@`.");
const HOST: Misspelling = misspelling(
    "its host is missing or malformed, has capital letters, or ends in a dot",
    "Write the host in lower case, without a dot at the end.",
);
const PORT: Misspelling = misspelling(
    "its port is malformed, or the one that its scheme has anyway",
    "Remove the port, or write its digits.",
);
const NO_PATH: Misspelling = misspelling("it has no path", "Write `/` after the host.");
const QUOTE: Misspelling = misspelling(
    "its query holds a `'`, which some clients send as `%27`",
    "Percent-encode it: write `%27`.",
);
const DANGLING: Misspelling = misspelling("it ends in `?`", "Remove the last character.");
const FRAGMENT: Misspelling =
    misspelling("it has a fragment, which no client sends", "Remove everything from `#`.");
const QUERY: Misspelling =
    misspelling("a prefix has no query and no fragment", "Remove everything from `?` or `#`.");
const BORDER: Misspelling = misspelling(
    "a prefix covers whole segments, and this one ends within a segment",
    "End it with `/`, list the values in `one_of`, or write a policy with `like`.",
);

/// Holds that a text is an id in its one spelling. A text with `<scheme>://` is a URI; every other one is plain: segments
/// between `/`, where a leading `/` is part of the id. Allocates nothing for ASCII.
pub fn check_id(id: &str) -> Result<(), Misspelling> {
    if id.is_empty() || id.len() > MAX_ID {
        return Err(LENGTH);
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if id.bytes().all(is_plain) {
        return Ok(());
    }
    if has_scheme(id) { check_uri(id) } else { check_plain(id) }
}

/// Holds that a text is a URI in its one spelling (RFC 3986 §6.2.2 and §6.2.3): each of its parts has no other form that
/// readers take for the same.
pub fn check_uri(text: &str) -> Result<(), Misspelling> {
    if text.is_empty() || text.len() > MAX_URI {
        return Err(LENGTH);
    }
    let uri = Uri::parse(text)?;
    if uri.path.is_empty() && default_port(uri.scheme).is_some() {
        return Err(NO_PATH);
    }
    if uri.path.len() > 1 && uri.path.ends_with('/') {
        return Err(EMPTY);
    }
    if text.contains('#') {
        return Err(FRAGMENT);
    }
    if text.ends_with('?') { Err(DANGLING) } else { Ok(()) }
}

/// Holds that a text is a path of plain segments in its one spelling.
pub fn check_plain(text: &str) -> Result<(), Misspelling> {
    if lacks_slashes(text) {
        return Err(SLASHES);
    }
    for segment in text.strip_prefix('/').unwrap_or(text).split('/') {
        check_segment(segment)?;
    }
    check_letters(text)
}

fn check_segment(segment: &str) -> Result<(), Misspelling> {
    // Some servers cut `;` and what follows off before they look for dot segments.
    match segment.split(';').next().unwrap_or_default() {
        "" => return Err(EMPTY),
        "." | ".." => return Err(DOTS),
        _ => {}
    }
    for (place, byte) in segment.bytes().enumerate() {
        match byte {
            b'\\' => return Err(BACKSLASH),
            0..=0x1f | 0x7f => return Err(INVISIBLE),
            b'%' if is_escape(segment, place) => return Err(ENCODED),
            _ => {}
        }
    }
    check_ends(segment)
}

/// Windows ignores blanks and dots at the end of a name, and many programs cut blanks off at both ends.
fn check_ends(segment: &str) -> Result<(), Misspelling> {
    let has_odd_end = segment.ends_with('.')
        || segment.starts_with(char::is_whitespace)
        || segment.ends_with(char::is_whitespace);
    if has_odd_end { Err(ENDS) } else { Ok(()) }
}

/// Holds that nothing of a text is invisible or could be composed in another way.
pub fn check_letters(text: &str) -> Result<(), Misspelling> {
    if text.is_ascii() {
        return if text.bytes().any(|b| b.is_ascii_control()) { Err(INVISIBLE) } else { Ok(()) };
    }
    if text.contains(is_invisible) {
        return Err(INVISIBLE);
    }
    if is_nfc(text) { Ok(()) } else { Err(NOT_NFC) }
}

/// Holds that a decoded segment of a path is in its one spelling.
pub fn check_decoded(segment: &str) -> Result<(), Misspelling> {
    check_ends(segment)?;
    check_letters(segment)
}

/// Characters of the categories Cc, Cf, Zl and Zp, and those that Unicode lets programs ignore
/// (`Default_Ignorable_Code_Point`).
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
                | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Returns whether a `%` and two hexadecimal digits stand at a place.
fn is_escape(text: &str, place: usize) -> bool {
    let digits = text.as_bytes().get(place.saturating_add(1)..place.saturating_add(3));
    digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// The percent-encoding of a byte in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Readers decode it at different times, and then split the path in different ways.
    Separator,
    /// It needs no encoding (RFC 3986 §2.3), so that the encoded form is a second spelling.
    Needless,
    /// The only way to write it.
    Needed,
}

/// Classifies the percent-encoding of a byte in a path.
#[must_use]
pub const fn escape(byte: u8) -> Escape {
    match byte {
        0..=0x1f | 0x7f | b'/' | b'\\' | b'.' | b';' | b'%' | b'?' | b'#' => Escape::Separator,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Escape::Needless,
        _ => Escape::Needed,
    }
}

/// Holds that each percent-encoding of a part of a URI has no other spelling.
fn check_escapes(text: &str, is_path: bool) -> Result<(), Misspelling> {
    let mut pieces = text.split('%');
    let mut decoded = match (pieces.next(), text.contains('%')) {
        (Some(first), true) => first.as_bytes().to_vec(),
        _ => return Ok(()),
    };
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or(MALFORMED)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(MALFORMED);
        }
        if digits.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(ESCAPE);
        }
        let byte = u8::from_str_radix(digits, 16).map_err(|_| MALFORMED)?;
        match escape(byte) {
            // A path has these as they are (RFC 3986 section 3.3), and most readers decode them.
            Escape::Needed if is_path && b"!$&'()*+,=:@".contains(&byte) => return Err(ESCAPE),
            Escape::Separator if is_path || byte.is_ascii_control() => return Err(SEPARATOR),
            Escape::Needless => return Err(ESCAPE),
            Escape::Separator if byte == b'.' => return Err(ESCAPE),
            Escape::Separator | Escape::Needed => decoded.push(byte),
        }
        decoded.extend_from_slice(rest.as_bytes());
    }
    let decoded = String::from_utf8(decoded).map_err(|_| MALFORMED)?;
    if is_path { check_decoded(&decoded) } else { check_letters(&decoded) }
}

/// A URI whose parts are each in their one spelling.
struct Uri<'a> {
    scheme: &'a str,
    /// Empty where there is none.
    authority: &'a str,
    path: &'a str,
    /// It goes on with `?` or `#`.
    has_tail: bool,
}

impl<'a> Uri<'a> {
    fn parse(text: &'a str) -> Result<Self, Misspelling> {
        let (scheme, rest) = text.split_once(':').ok_or(NO_SCHEME)?;
        if !is_scheme(scheme) {
            return Err(NO_SCHEME);
        }
        if scheme.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(SCHEME);
        }
        for byte in rest.bytes() {
            match byte {
                b'\\' => return Err(BACKSLASH),
                0..=0x1f | 0x7f => return Err(INVISIBLE),
                b' ' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80.. => {
                    return Err(CHARACTER);
                }
                _ => {}
            }
        }
        let (authority, rest) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                rest.split_at_checked(end).ok_or(HOST)?
            }
            None if scheme == "file" || lacks_slashes(text) => return Err(SLASHES),
            None => ("", rest),
        };
        check_authority(scheme, authority)?;
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (path, tail) = rest.split_at_checked(end).ok_or(CHARACTER)?;
        check_path(path)?;
        check_escapes(tail, false)?;
        // In queries of these schemes WHATWG URL writes `%27` for `'` ("special-query percent-encode set"), RFC 3986 leaves it.
        if is_special(scheme) && tail.contains('\'') {
            return Err(QUOTE);
        }
        if tail.bytes().filter(|b| *b == b'#').count() > 1 {
            return Err(CHARACTER);
        }
        Ok(Self { scheme, authority, path, has_tail: !tail.is_empty() })
    }
}

/// Returns whether a text begins with a scheme and `//`: then it is a URI, and no plain text.
pub fn has_scheme(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme))
}

/// Returns whether a text is one that readers complete to a URI with `//`: those of web addresses take `https:/a` and
/// `https:a` for `https://a` (WHATWG URL, "special scheme"), and `file:/a` is `file:///a` (RFC 8089 §2).
fn lacks_slashes(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let needs_slashes = match scheme.eq_ignore_ascii_case("file") {
        true => rest.starts_with('/'),
        false => is_special(scheme),
    };
    needs_slashes && !rest.starts_with("//")
}

/// Returns whether a scheme, in any case, is one of those whose URLs WHATWG URL reads by rules of their own ("special
/// scheme").
fn is_special(scheme: &str) -> bool {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    ["http", "https", "ws", "wss", "ftp", "file"].into_iter().any(is)
}

/// RFC 3986 §3.1, in any case.
fn is_scheme(text: &str) -> bool {
    let is_of = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(is_of)
}

/// The port of a scheme whose authority is a host of the web.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

fn check_authority(scheme: &str, authority: &str) -> Result<(), Misspelling> {
    let default = default_port(scheme);
    if authority.is_empty() {
        return if default.is_some() { Err(HOST) } else { Ok(()) };
    }
    // `file://localhost/a` is `file:///a` (RFC 8089 §2).
    if authority.contains('%') || (scheme == "file" && authority == "localhost") {
        return Err(HOST);
    }
    let host = match authority.rsplit_once('@') {
        Some(_) if default.is_some() => return Err(USER),
        Some((user, _)) if user.contains('@') => return Err(USER),
        // `db://@h` and `db://u:@h` are second spellings of `db://h` and `db://u@h` (WHATWG URL, "URL serializing").
        Some((user, _)) if user.is_empty() || user.starts_with(':') || user.ends_with(':') => {
            return Err(USER);
        }
        Some((_, host)) => host,
        None => authority,
    };
    if let Some(rest) = host.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(HOST)?;
        let parsed = address.parse::<Ipv6Addr>().map_err(|_| HOST)?;
        // Written as IPv6, reached as IPv4: two names of one host.
        if parsed.to_string() != address || parsed.to_ipv4_mapped().is_some() {
            return Err(HOST);
        }
        return match after.strip_prefix(':') {
            Some(port) => check_port(port, known_port(scheme)),
            None if after.is_empty() => Ok(()),
            None => Err(HOST),
        };
    }
    let (host, port) = match host.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    if host.is_empty() || host.ends_with('.') || host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(HOST);
    }
    // Readers take `0x7f.1` for an address there (WHATWG URL, "special scheme").
    let is_special = default.is_some() || matches!(scheme, "ftp" | "file");
    if is_special && host.parse::<Ipv4Addr>().is_err() && !is_host(host) {
        return Err(HOST);
    }
    port.map_or(Ok(()), |port| check_port(port, known_port(scheme)))
}

/// The port that a scheme has where none is named.
fn known_port(scheme: &str) -> Option<u16> {
    default_port(scheme).or(match scheme {
        "ftp" => Some(21),
        "ssh" | "sftp" => Some(22),
        "ldap" => Some(389),
        "ldaps" => Some(636),
        "mysql" => Some(3306),
        "postgres" | "postgresql" => Some(5432),
        "amqp" => Some(5672),
        "redis" => Some(6379),
        "mongodb" => Some(27017),
        _ => None,
    })
}

fn check_port(port: &str, default: Option<u16>) -> Result<(), Misspelling> {
    let number = port.parse::<u16>().map_err(|_| PORT)?;
    let is_one = number > 0 && Some(number) != default && number.to_string() == port;
    if is_one { Ok(()) } else { Err(PORT) }
}

/// Checks the path of a URI. The caller decides whether a slash at the end is allowed.
fn check_path(path: &str) -> Result<(), Misspelling> {
    let body = path.strip_prefix('/').unwrap_or(path);
    let body = body.strip_suffix('/').unwrap_or(body);
    if body.is_empty() {
        return if path.len() > 1 { Err(EMPTY) } else { Ok(()) };
    }
    for segment in body.split('/') {
        // Some servers cut `;` and what follows off before they look for dot segments.
        match segment.split(';').next().unwrap_or_default() {
            "" => return Err(EMPTY),
            "." | ".." => return Err(DOTS),
            _ => {}
        }
        check_ends(segment)?;
        check_escapes(segment, true)?;
    }
    Ok(())
}

/// Holds that a text is a prefix: a URI without query, or plain; it covers whole segments only.
pub fn check_prefix(prefix: &str) -> Result<(), Misspelling> {
    if prefix.is_empty() || prefix.len() > MAX_ID {
        return Err(LENGTH);
    }
    let ends_within = |text: &str| !text.ends_with(char::is_alphanumeric);
    if has_scheme(prefix) {
        let uri = Uri::parse(prefix)?;
        if uri.has_tail {
            return Err(QUERY);
        }
        if uri.authority.is_empty() && uri.path.is_empty() {
            return Err(HOST);
        }
        let is_open = !uri.path.is_empty() && !uri.path.ends_with('/') && ends_within(uri.path);
        return if is_open { Err(BORDER) } else { Ok(()) };
    }
    let Some(folder) = prefix.strip_suffix('/') else {
        return check_plain(prefix).and(if ends_within(prefix) { Err(BORDER) } else { Ok(()) });
    };
    // The folder of everything that begins with `/`.
    if folder.is_empty() { Ok(()) } else { check_plain(folder) }
}

/// Returns whether a text lies under a prefix, by scheme, host, port and whole segments. A text in another than its one
/// spelling lies under none.
pub fn covers(prefix: &str, text: &str) -> bool {
    let is_spelled = if has_scheme(text) {
        text.len() <= MAX_URI && Uri::parse(text).is_ok()
    } else {
        text.len() <= MAX_ID && check_plain(text.strip_suffix('/').unwrap_or(text)).is_ok()
    };
    is_spelled && covers_spelled(prefix, text)
}

/// Returns whether a text in its one spelling, or another prefix, lies under a prefix.
///
/// INVARIANT (typed): in its one spelling a URI's scheme, host and port end where its path, query or fragment begins, and its
/// segments end at `/`. So a text that goes on there has the very parts of the prefix, and one that goes on with anything
/// else has not.
pub fn covers_spelled(prefix: &str, text: &str) -> bool {
    let is_uri = has_scheme(prefix);
    if is_uri != has_scheme(text) {
        return false;
    }
    let (body, is_folder) = match prefix.strip_suffix('/') {
        Some(body) => (body, true),
        None => (prefix, false),
    };
    // A scheme alone is not a prefix.
    if is_uri && body.ends_with(":/") {
        return false;
    }
    let Some(rest) = text.strip_prefix(body) else { return false };
    match rest.bytes().next() {
        Some(b'/') => true,
        None => !is_folder,
        Some(b'?' | b'#') => is_uri && !is_folder,
        Some(_) => false,
    }
}

/// The key that all spellings of an id share where a system does not tell them apart by case: Unicode's full case folding,
/// in normalization form C.
pub fn fold(id: &str) -> Cow<'_, str> {
    if id.is_ascii() {
        return if id.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(id.to_ascii_lowercase())
        } else {
            Cow::Borrowed(id)
        };
    }
    let folded: String = id.chars().flat_map(fold_char).nfc().collect();
    if folded == id { Cow::Borrowed(id) } else { Cow::Owned(folded) }
}

/// Small letters of the capital letters, which is how `ß` becomes `ss`; the dotless `ı` is not a form of `i`.
fn fold_char(c: char) -> impl Iterator<Item = char> {
    let small = c.to_lowercase();
    let is_dotless = c == '\u{131}';
    small.flat_map(move |c| {
        let capital = (!is_dotless).then(|| c.to_uppercase().flat_map(char::to_lowercase));
        let kept = is_dotless.then_some(c);
        capital.into_iter().flatten().chain(kept)
    })
}

#[cfg(test)]
mod tests;
