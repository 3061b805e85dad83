//! Which names a bundle may give.

/// Bytes of an id.
const LONGEST: usize = 256;

/// What is wrong with the id of a role, label, collection, class, or bundle.
pub(crate) fn refuse(id: &str) -> Option<&'static str> {
    let fine = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    bounded(id, fine, "letters, digits, `.`, `_` and `-`, a letter or digit first")
}

/// What is wrong with the id of a system: the first dot of an operation's id ends it.
pub(crate) fn refuse_system(id: &str) -> Option<&'static str> {
    if id == "authz" {
        return Some("`authz` is this server itself");
    }
    let fine = id.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
    bounded(id, fine, "lower-case letters, digits, `_` and `-`, a letter or digit first")
}

/// What is wrong with the id of an operation, `<system>.<name>`.
pub(crate) fn refuse_operation(id: &str) -> Option<&'static str> {
    let name = id.split_once('.').map_or("", |(_, name)| name);
    let fine = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    bounded(id, fine, "letters, digits, `.`, `_`, `-` and `/`, a letter, digit or `_` first")
}

fn bounded(id: &str, fine: bool, rule: &'static str) -> Option<&'static str> {
    if id.len() > LONGEST {
        return Some("at most 256 bytes");
    }
    (!fine).then_some(rule)
}

/// What is wrong with a SPIFFE id or pattern (SPIFFE-ID §2; `*` is one whole path segment).
pub(crate) fn refuse_spiffe(id: &str) -> Option<&'static str> {
    let Some((domain, path)) = id.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'))
    else {
        return Some("it is not spiffe://<trust domain>/<path>");
    };
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(lower) {
        return Some("its trust domain is not of lower-case letters, digits, `.`, `_` and `-`");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let segment =
        |s: &str| s == "*" || (!s.is_empty() && s != "." && s != ".." && s.bytes().all(plain));
    if !path.split('/').all(segment) {
        return Some("a path segment is letters, digits, `.`, `_` and `-`, or a whole `*`");
    }
    let many = path.split('/').count() >= crate::members::MOST_SEGMENTS;
    (many || id.len() > 2048).then_some("it has too many segments or bytes")
}
