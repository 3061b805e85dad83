//! The target of a request line, split without normalisation.

use std::borrow::Cow;

use authz_base::spelling::{self, Escape};
use smallvec::SmallVec;

use crate::http::{RequestError, ambiguous, unread};

/// Bytes of a target.
const LONGEST: usize = 16_384;
/// Segments of a path.
pub(super) const MOST_SEGMENTS: usize = 64;
/// Members of a query.
const MOST_PAIRS: usize = 256;

/// Path and query of a request target.
pub(super) struct PathTarget<'a> {
    pub(super) segments: SmallVec<[Segment<'a>; 8]>,
    pub(super) query: Option<&'a str>,
}

/// Name and value of a member of a query. A member without `=` has no value.
type QueryMember<'a> = (Cow<'a, str>, Option<Cow<'a, str>>);

/// One segment of a path, as it was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) raw: &'a str,
}

impl<'a> Segment<'a> {
    /// The segment, decoded once.
    pub(super) fn decode(self) -> Result<Cow<'a, str>, RequestError> {
        decode(self.raw, false)
    }
}

/// Splits a target into path and query.
///
/// # Errors
/// `AmbiguousRequest` for every form that readers are known to disagree about: an absolute form, a fragment,
/// an empty or dot segment, `\`, `;`, control and non-ASCII characters, a `%` that encodes a separator, a dot, a
/// percent sign or a character that needs no encoding, and a malformed one.
pub(super) fn split(target: &str) -> Result<PathTarget<'_>, RequestError> {
    if target.len() > LONGEST {
        return unread("the target is too long");
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let Some(rest) = path.strip_prefix('/') else {
        return ambiguous("the path does not start with `/`");
    };
    if !path.bytes().all(is_of_path) {
        return ambiguous("the path holds a character that readers treat differently");
    }
    let mut segments = SmallVec::new();
    let mut left = Some(rest);
    while let Some(rest) = left {
        let (raw, after) = cut(rest, '/');
        left = after;
        // A last empty segment is a trailing slash; the path `/` alone is one too.
        if raw.is_empty() && left.is_some() {
            return ambiguous("the path holds an empty segment");
        }
        if raw == "." || raw == ".." {
            return ambiguous("the path holds a dot segment");
        }
        if segments.len() >= MOST_SEGMENTS {
            return unread("the path has too many segments");
        }
        if raw.ends_with('.') {
            return ambiguous("a segment of the path ends in a dot");
        }
        encodings(raw)?;
        segments.push(Segment { raw });
    }
    Ok(PathTarget { segments, query })
}

/// The members of a query in order, decoded once; `+` is a space (WHATWG URL, form encoding).
pub(super) fn query(query: Option<&str>) -> Result<SmallVec<[QueryMember<'_>; 8]>, RequestError> {
    let mut out = SmallVec::new();
    let Some(query) = query.filter(|q| !q.is_empty()) else { return Ok(out) };
    // Some readers split at `;` as well, or end at `#`.
    if !query.bytes().all(is_of_query) {
        return ambiguous("the query holds a character that readers treat differently");
    }
    let mut left = Some(query);
    while let Some(rest) = left {
        let (pair, after) = cut(rest, '&');
        left = after;
        if out.len() >= MOST_PAIRS {
            return unread("the query has too many members");
        }
        let (name, value) = cut(pair, '=');
        let value = value.map(|value| decode(value, true)).transpose()?;
        out.push((decode(name, true)?, value));
    }
    Ok(out)
}

/// The text before a character, and the text after it if the character is there.
fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

/// RFC 3986 §3.3 `pchar` but for `;`, with `/`.
const fn is_of_path(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')'
            | b'*' | b'+' | b',' | b'=' | b':' | b'@' | b'/' | b'%'
    )
}

/// Visible ASCII except `;#\"<>` and the grave accent.
const fn is_of_query(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b':' | b'=' | b'?'..=b'[' | b']'..=b'_' | b'a'..=b'~')
}

/// Refuses the encodings in a path that readers decode at different times, or not at all.
fn encodings(raw: &str) -> Result<(), RequestError> {
    if !raw.contains('%') {
        return Ok(());
    }
    for part in raw.split('%').skip(1) {
        match part.get(..2).and_then(hex).map(spelling::escape) {
            None => return ambiguous("the path holds a malformed `%` encoding"),
            Some(Escape::Separator) => {
                return ambiguous(
                    "the path encodes a separator, dot, percent or control character",
                );
            }
            Some(Escape::Needless) => {
                return ambiguous("the path encodes a character that needs no encoding");
            }
            Some(Escape::Needed) => {}
        }
    }
    match spelling::check_decoded(&decode(raw, false)?) {
        Ok(()) => Ok(()),
        Err(why) => ambiguous(format!("a segment of the path: {}", why.what)),
    }
}

fn decode(raw: &str, form: bool) -> Result<Cow<'_, str>, RequestError> {
    // The caller has checked the undecoded text: it holds no control character.
    if !raw.bytes().any(|b| b == b'%' || (form && b == b'+')) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut parts = raw.split('%');
    let plus = |b: u8| if form && b == b'+' { b' ' } else { b };
    bytes.extend(parts.next().unwrap_or_default().bytes().map(plus));
    for part in parts {
        let Some((byte, rest)) =
            part.split_at_checked(2).and_then(|(digits, rest)| Some((hex(digits)?, rest)))
        else {
            return ambiguous("a malformed `%` encoding");
        };
        bytes.push(byte);
        bytes.extend(rest.bytes().map(plus));
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.chars().any(char::is_control) => ambiguous("an encoded control character"),
        Ok(text) => Ok(Cow::Owned(text)),
        Err(_) => ambiguous("an encoding of no UTF-8"),
    }
}

fn hex(digits: &str) -> Option<u8> {
    if digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// Whether a text is `host` or `host:port`, in lower case.
pub fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => {
                ("v6", port.strip_prefix(':').or((!port.is_empty()).then_some("x")))
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let label = |l: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        !l.is_empty() && l.len() <= 63 && l.bytes().all(plain)
    };
    let digits = |p: &str| p.bytes().all(|b| b.is_ascii_digit());
    let port = port.is_none_or(|p| digits(p) && p.parse::<u16>().is_ok_and(|p| p > 0));
    port && name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_readers_agree_about() {
        for byte in 0..=u8::MAX {
            let of_path = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/%".contains(&byte);
            assert_eq!(of_path, is_of_path(byte), "{byte}");
            let of_query = byte.is_ascii_graphic() && !b";#\\\"<>`".contains(&byte);
            assert_eq!(of_query, is_of_query(byte), "{byte}");
        }
    }
}
