//! What a prompt would name, without a task: for people who write prompts and bundles.

use std::fmt;

use authz_bundle::canonical::canonical;
use authz_bundle::model::DestinationKind;
use authz_bundle::prompt::{Item, Nouns, amount_name, names_of, sequence};

use super::names::{Part, PromptNames, read_names};
use super::words::PromptWords;
use super::{MAX_WORDS, Speaker, literal};

/// Key of a prompt that no store keeps.
const KEY: [u8; 32] = [0; 32];

/// The words of a prompt that are kept, in order; a comma as `,`, and none for a gap.
#[must_use]
pub fn kept_words(prompt: &str) -> Vec<Option<&str>> {
    sequence(&[prompt], &[], MAX_WORDS).into_iter().map(shown).collect()
}

const fn shown(item: Item<'_>) -> Option<&str> {
    match item {
        Item::Word { text, .. } => Some(text),
        Item::Comma => Some(","),
        Item::Gap => None,
    }
}

/// A value of which nobody can say whether a prompt names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// The defect.
    pub what: &'static str,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for ValueError {}

/// A value of a call, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SampleValue<'a> {
    /// A destination of a kind.
    Destination { kind: DestinationKind, raw: &'a str, canonical: String },
    /// An amount, in one currency or in any, and its name in prompts.
    Amount { currency: Option<&'a str>, number: &'a str, name: String },
    /// An id of a collection.
    Id { collection: &'a str, id: &'a str },
}

impl<'a> SampleValue<'a> {
    /// Reads `email:…`, `url:…`, `iban:…`, `account:…`, `path:…`, `amount:EUR 870`, or `<collection>/<id>`.
    ///
    /// # Errors
    /// The value has no known kind, or not the form of its kind.
    pub(crate) fn parse(value: &'a str) -> Result<Self, ValueError> {
        let refuse = |what| Err(ValueError { what });
        if let Some((kind, raw)) =
            value.split_once(':').and_then(|(kind, raw)| Some((kind_of(kind)?, raw)))
        {
            let form = canonical(kind, raw).map_err(|error| ValueError { what: error.what })?;
            return Ok(Self::Destination { kind, raw, canonical: form.text });
        }
        if let Some(amount) = value.strip_prefix("amount:") {
            let (currency, number) = match amount.split_once(' ') {
                Some((currency, number)) => (Some(currency), number),
                None => (None, amount),
            };
            let Some(name) = amount_name(number, 1, currency) else {
                return refuse(
                    "no amount: write `amount:EUR 870.50`, or `amount:870.50` for any currency",
                );
            };
            return Ok(Self::Amount { currency, number, name });
        }
        match value.split_once('/') {
            Some((collection, id)) if !collection.is_empty() && !id.is_empty() => {
                Ok(Self::Id { collection, id })
            }
            _ => refuse(
                "neither `<kind>:<value>`, such as `email:bob@acme.example`, nor `<collection>/<id>`, such as `orders/4711`",
            ),
        }
    }
}

/// Names and words of a prompt of a user.
#[derive(Debug)]
pub struct SamplePrompt(PromptNames);

impl SamplePrompt {
    /// Reads a prompt as a task does.
    #[must_use]
    pub fn read(prompt: &str) -> Self {
        let parts = [Part::of_user(prompt)];
        Self(read_names(&parts, &std::collections::BTreeMap::new(), Speaker::Subject, &KEY))
    }

    /// Whether the prompt names a value.
    ///
    /// Args: `value`: in one of the forms of [`SampleValue::parse`].
    ///
    /// # Errors
    /// The value has no known kind, or not the form of its kind.
    pub fn is_named(&self, value: &str) -> Result<bool, ValueError> {
        Ok(match SampleValue::parse(value)? {
            SampleValue::Destination { kind, raw, canonical } => {
                self.has(&names_of(kind, raw, &canonical))
            }
            SampleValue::Amount { name, .. } => self.has(&[name]),
            SampleValue::Id { collection, id } => {
                let words = PromptWords::of([&self.0.words; 2], &KEY);
                let nouns = Nouns::of(&[collection]);
                words.is_some_and(|words| words.speaker(id, &nouns, false).is_some())
            }
        })
    }

    fn has(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.0.names.user.contains(&literal(name, &KEY)))
    }
}

/// The kind of a destination.
fn kind_of(word: &str) -> Option<DestinationKind> {
    Some(match word {
        "email" => DestinationKind::Email,
        "url" => DestinationKind::UrlHost,
        "iban" => DestinationKind::Iban,
        "account" => DestinationKind::Account,
        "path" => DestinationKind::Path,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_named_as_in_a_task() {
        let prompt = SamplePrompt::read(
            "Pay €870 for order 4711 to GB82 WEST 1234 5698 7654 32, tell bob@acme.example, see acme.example/a and /tmp/x. \
             Never tell eve@evil.example.",
        );
        for (value, expected) in [
            ("email:bob@ACME.example", true),
            ("email:eve@evil.example", false),
            ("url:https://acme.example/a/b", true),
            ("url:https://acme.example/b", false),
            ("iban:GB82WEST12345698765432", true),
            ("path:/tmp/x/y", true),
            ("account:ops", false),
            ("amount:EUR 870.00", true),
            ("amount:870", true),
            ("amount:USD 870", false),
            ("orders/4711", true),
            ("invoices/4711", false),
        ] {
            assert_eq!(Ok(expected), prompt.is_named(value), "{value}");
        }
        for value in ["", "bob", "email:bob", "amount:x", "/4711", "orders/", "iban:GB82"] {
            assert!(prompt.is_named(value).is_err(), "{value}");
        }
    }

    #[test]
    fn kept_words_have_gaps() {
        let words = kept_words("Ask Ann, Bob. Never ask Eve. Go");
        assert_eq!(vec![Some("Ask"), Some("Ann"), Some(","), Some("Bob"), None, Some("Go")], words);
    }
}
