//! Ids that a bundle may give.

/// Bytes of an id.
const LONGEST: usize = 256;

/// Defect in the id of a role, label, collection, class, or bundle.
pub(crate) fn refuse(id: &str) -> Option<&'static str> {
    let fine = id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    bounded(id, fine, "letters, digits, `.`, `_` and `-`, a letter or digit first")
}

/// Defect in the id of a system: the first dot of an operation's id ends it.
pub(crate) fn refuse_system(id: &str) -> Option<&'static str> {
    if id == "authz" {
        return Some("`authz` is this server itself");
    }
    let fine = id.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
    bounded(id, fine, "lower-case letters, digits, `_` and `-`, a letter or digit first")
}

/// Defect in the id of an operation, `<system>.<name>`.
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
