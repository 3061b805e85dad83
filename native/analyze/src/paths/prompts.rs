//! Prompts in which a person names values of calls, in forms that the reader of prompts knows.

use std::borrow::Cow;

use authz_kernel::model::{DestinationKind, ObjectRule, Operation, ValueRole, ValueSpace};
use serde_json::Value;

/// Values that one prompt names. A task keeps more names, and fewer than all values of a long trace.
const MOST_VALUES: usize = 128;
/// Currency of an amount of a call that names none.
pub const CURRENCY: &str = "EUR";

/// Values of a call whose origin a policy can ask for, as a prompt has them.
#[must_use]
pub fn values(operation: &Operation, input: &Value) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(rule) = &operation.destination {
        let pointers = rule.from.iter();
        let written = pointers.flat_map(|pointer| scalars(input, pointer));
        all.extend(written.filter_map(|text| of_destination(rule.kind, &text)));
    }
    for rule in &operation.origins.objects {
        let written = rule.from.iter().flat_map(|pointer| scalars(input, pointer));
        all.extend(written.filter_map(|text| of_object(rule, &text, input)));
    }
    all
}

/// The values that one prompt names: each once, in their order.
pub fn bounded(values: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for value in values {
        if all.len() < MOST_VALUES && !all.contains(&value) {
            all.push(value);
        }
    }
    all
}

/// A prompt that names values, each in a paragraph of its own, so that no word beside it changes its meaning. Empty without
/// values.
#[must_use]
pub fn text(values: &[String]) -> String {
    values.join("\n\n")
}

fn of_object(rule: &ObjectRule, text: &str, input: &Value) -> Option<String> {
    match rule.space {
        ValueSpace::Destination(kind) => of_destination(kind, text),
        ValueSpace::Role(ValueRole::Amount) => {
            let currency = rule.currency.as_ref().and_then(|pointer| input.pointer(pointer));
            let currency = currency.and_then(Value::as_str).unwrap_or(CURRENCY);
            Some(format!("{currency} {}", scaled(text, rule.scale)?))
        }
        ValueSpace::Collection { .. } | ValueSpace::Role(_) => explicit(text),
    }
}

fn of_destination(kind: DestinationKind, text: &str) -> Option<String> {
    match kind {
        DestinationKind::Email | DestinationKind::UrlHost | DestinationKind::Iban => {
            is_plain(text).then(|| text.to_owned())
        }
        DestinationKind::Account | DestinationKind::Path => explicit(text),
    }
}

/// A word between backticks, which make it a name. Several words are a name without them.
fn explicit(text: &str) -> Option<String> {
    let is_word = !text.contains(char::is_whitespace);
    is_plain(text).then(|| if is_word { format!("`{text}`") } else { text.to_owned() })
}

/// Whether a prompt can have a text as it is.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() || c == '`')
}

/// A number in units of its currency.
///
/// Args: `scale`: a power of ten, by which the call's number is divided.
fn scaled(text: &str, scale: u32) -> Option<String> {
    let number = text.parse::<u64>().ok()?;
    let scale = u64::from(scale);
    let (whole, rest) = (number.checked_div(scale)?, number.checked_rem(scale)?);
    let width = usize::try_from(scale.checked_ilog10()?).ok()?;
    Some(if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:0>width$}") })
}

/// The texts and numbers at a place of the arguments: those of a list one by one.
fn scalars<'v>(input: &'v Value, pointer: &str) -> Vec<Cow<'v, str>> {
    let scalar = |value: &'v Value| match value {
        Value::String(text) => Some(Cow::Borrowed(text.as_str())),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    };
    match input.pointer(pointer) {
        Some(Value::Array(items)) => items.iter().filter_map(scalar).collect(),
        Some(value) => scalar(value).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_in_units_of_their_currency() {
        for (text, scale, expected) in [
            ("870", 1, Some("870")),
            ("87050", 100, Some("870.50")),
            ("5", 100, Some("0.05")),
            ("800", 100, Some("8")),
            ("-8", 1, None),
            ("8.5", 1, None),
        ] {
            assert_eq!(scaled(text, scale).as_deref(), expected, "{text} / {scale}");
        }
    }

    #[test]
    fn a_text_that_a_prompt_cannot_have_is_left_out() {
        assert_eq!(explicit("a b").as_deref(), Some("a b"));
        assert_eq!(explicit("crm/7").as_deref(), Some("`crm/7`"));
        assert!(explicit("a`b").is_none() && explicit("a\nb").is_none() && explicit("").is_none());
    }

    #[test]
    fn values_are_named_once_and_within_bounds() {
        let many = (0..500).map(|n| format!("v{}", n / 2));
        let all = bounded(many);
        assert_eq!(all.len(), MOST_VALUES);
        assert_eq!(all.get(1).map(String::as_str), Some("v1"));
    }
}
