//! Obligations: what must be done with a permit. The set is closed.

use std::fmt;

use authz_base::json::pointer_tokens;

/// Obligations of one policy or exception.
pub const MAX_OBLIGATIONS: usize = 16;
/// Most calls that `max_uses` may allow.
pub const MOST_USES: u32 = 1_000_000;
/// What an enforcer lists that can redact the value of any JSON pointer.
pub const ANY_POINTER: &str = "redact:/";
/// Bytes of an obligation.
const LONGEST: usize = 128;

/// The forms of obligations, for messages.
pub const FORMS: &str = "`redact:NAME`, `redact:/POINTER`, `mask_arguments:/POINTER`, `log_full`, `max_uses:NUMBER` or \
                         `custom:NAME`";

/// An obligation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obligation<'a> {
    /// The enforcer removes values of this name, or below this JSON pointer, from the result.
    Redact(&'a str),
    /// Authz shows nothing of the argument at this JSON pointer in records.
    MaskArguments(&'a str),
    /// Authz records the texts of the arguments, not their digests.
    LogFull,
    /// The permit counts for at most so many calls of a task.
    MaxUses(u32),
    /// The enforcer does what the name stands for.
    Custom(&'a str),
}

/// Reason why a text is not an obligation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObligationError {
    /// The name before the colon is unknown.
    Name,
    /// The value after the colon is missing, or has another form.
    Value,
}

impl fmt::Display for ObligationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "there is no obligation of the name",
            Self::Value => "its value is missing, or has another form",
        })
    }
}

impl std::error::Error for ObligationError {}

impl<'a> Obligation<'a> {
    /// Reads an obligation.
    ///
    /// # Errors
    /// The text has no form of [`FORMS`].
    pub fn parse(text: &'a str) -> Result<Self, ObligationError> {
        let (name, value) =
            text.split_once(':').map_or((text, None), |(name, value)| (name, Some(value)));
        let is_short = text.len() <= LONGEST;
        let read = match (name, value) {
            ("redact", Some(value)) if value.starts_with('/') => {
                is_plain_pointer(value).then_some(Self::Redact(value))
            }
            ("redact", Some(value)) => is_name(value).then_some(Self::Redact(value)),
            ("mask_arguments", Some(value)) => {
                is_plain_pointer(value).then_some(Self::MaskArguments(value))
            }
            ("log_full", None) => Some(Self::LogFull),
            ("max_uses", Some(value)) => uses(value).map(Self::MaxUses),
            ("custom", Some(value)) => is_name(value).then_some(Self::Custom(value)),
            ("redact" | "mask_arguments" | "log_full" | "max_uses" | "custom", _) => None,
            _ => return Err(ObligationError::Name),
        };
        read.filter(|_| is_short).ok_or(ObligationError::Value)
    }

    /// True if Authz carries it out, so that no enforcer has to.
    #[must_use]
    pub const fn is_of_server(&self) -> bool {
        matches!(self, Self::MaskArguments(_) | Self::LogFull | Self::MaxUses(_))
    }

    /// Correction of a text that is not an obligation.
    #[must_use]
    pub fn fix_of(text: &str) -> String {
        match text.contains(':') || !is_name(text) {
            true => format!("Write {FORMS}."),
            false => format!("Write {FORMS}; here for example `custom:{text}`."),
        }
    }
}

/// Whether an enforcer that lists `supported` can carry out an obligation.
#[must_use]
pub fn is_supported(obligation: &str, supported: &[&str]) -> bool {
    supported.contains(&obligation)
        || (obligation.starts_with(ANY_POINTER) && supported.contains(&ANY_POINTER))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// A JSON pointer to a member. `*` stands for every item or member. Characters that a list of obligations cannot hold are left
/// out.
fn is_plain_pointer(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() && !",\"\\`".contains(c);
    text.len() > 1 && pointer_tokens(text).is_some() && text.chars().all(is_plain)
}

fn uses(text: &str) -> Option<u32> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_plain && !text.starts_with('0'));
    number.filter(|number| *number <= MOST_USES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_closed() {
        use ObligationError::{Name, Value};
        for (text, read) in [
            ("redact:pii", Ok(Obligation::Redact("pii"))),
            ("redact:/items/*/iban", Ok(Obligation::Redact("/items/*/iban"))),
            ("mask_arguments:/salary", Ok(Obligation::MaskArguments("/salary"))),
            ("log_full", Ok(Obligation::LogFull)),
            ("max_uses:3", Ok(Obligation::MaxUses(3))),
            ("max_uses:1000000", Ok(Obligation::MaxUses(MOST_USES))),
            ("custom:notify.owner", Ok(Obligation::Custom("notify.owner"))),
            ("notify", Err(Name)),
            ("", Err(Name)),
            ("Redact:pii", Err(Name)),
            ("redact", Err(Value)),
            ("redact:", Err(Value)),
            ("redact:a b", Err(Value)),
            ("redact:/", Err(Value)),
            ("redact:/a~2", Err(Value)),
            ("mask_arguments:salary", Err(Value)),
            ("log_full:x", Err(Value)),
            ("max_uses:0", Err(Value)),
            ("max_uses:03", Err(Value)),
            ("max_uses:-1", Err(Value)),
            ("max_uses:1000001", Err(Value)),
            ("max_uses:99999999999", Err(Value)),
            ("custom:", Err(Value)),
            ("custom:/x", Err(Value)),
        ] {
            assert_eq!(read, Obligation::parse(text), "{text}");
        }
        let long = format!("custom:{}", "x".repeat(LONGEST));
        assert_eq!(Err(Value), Obligation::parse(&long));
    }

    #[test]
    fn an_enforcer_may_support_every_pointer() {
        for (obligation, supported, expected) in [
            ("redact:pii", &["redact:pii"][..], true),
            ("redact:pii", &["redact:/"], false),
            ("redact:pii", &["redact:"], false),
            ("redact:/a", &["redact:/"], true),
            ("redact:/a", &["redact:/a"], true),
            ("redact:/a/b", &["redact:/a"], false),
            ("custom:a", &["redact:/", "custom:b"], false),
        ] {
            assert_eq!(expected, is_supported(obligation, supported), "{obligation}");
        }
    }
}
