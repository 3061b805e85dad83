//! Obligations: what an enforcer must do with a permit.

/// Obligations of one policy or exception.
pub const MAX_OBLIGATIONS: usize = 16;
/// Bytes of an obligation.
const LONGEST: usize = 128;

/// Whether a text has the form of an obligation: `name` or `name:value`.
#[must_use]
pub fn is_obligation(text: &str) -> bool {
    let (name, value) = text.split_once(':').unwrap_or((text, "x"));
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    !name.is_empty() && !value.is_empty() && text.len() <= LONGEST && plain(name) && plain(value)
}
