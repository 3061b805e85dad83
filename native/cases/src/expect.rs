//! Compares the answer to a step with the expected fields. Fields that are not expected are not compared.

use std::collections::BTreeSet;

use authz_kernel::decision::Decision;
use authz_kernel::model::Tier;
use authz_kernel::reason::ReasonCode;
use authz_lane::ApiError;
use authz_lane::offline::OfflineDecision;

use crate::case_file::{Expect, ExpectObject, OK, OutcomeWord};

/// Result of a step.
pub(crate) enum StepResult {
    Passed,
    /// Only a server can answer the step.
    Skipped,
    /// A field of the answer has another value than the expected one.
    Differs {
        expected: Vec<String>,
        actual: Vec<String>,
        message: String,
    },
}

impl StepResult {
    fn of(expected: Vec<String>, actual: Vec<String>, message: String) -> Self {
        match expected == actual {
            true => Self::Passed,
            false => Self::Differs { expected, actual, message },
        }
    }
}

/// Refusal of a step that is not a call.
#[derive(Debug)]
pub(crate) struct ActError {
    pub(crate) reason: ReasonCode,
    pub(crate) message: String,
}

impl From<ApiError> for ActError {
    fn from(error: ApiError) -> Self {
        Self { reason: error.reason_code, message: error.message }
    }
}

impl Expect {
    /// Compares the result of a step that is not a call.
    pub(crate) fn compare_act(&self, result: Result<(), ActError>) -> StepResult {
        let (code, beyond) = match self {
            Self::Code(code) => (code.as_str(), None),
            Self::Object(fields) => {
                (fields.code.as_deref().unwrap_or_default(), fields.beyond.as_deref())
            }
            Self::Outcome(word) => (word.as_str(), None),
        };
        let (actual_code, message) = match result {
            Ok(()) => (OK, String::new()),
            Err(error) => (error.reason.as_str(), error.message),
        };
        // A refused scope names the side on which it is too wide before the first colon.
        let side = beyond.map(|_| message.split(": ").next().unwrap_or_default());
        let fields = |code: &str, beyond: Option<&str>| {
            let beyond = beyond.map(|beyond| field("beyond", beyond));
            [field("code", code)].into_iter().chain(beyond).collect()
        };
        let (expected, actual) = (fields(code, beyond), fields(actual_code, side));
        StepResult::of(expected, actual, message)
    }

    /// Compares the decision of a call.
    pub(crate) fn compare_decision(&self, answer: &OfflineDecision) -> StepResult {
        let outcome = OutcomeWord::from(answer.outcome);
        let (expected, actual) = match self {
            Self::Outcome(word) => {
                let mut actual = vec![field("outcome", outcome.as_str())];
                if *word != outcome {
                    let policies = answer.decision.iter().flat_map(|decision| &decision.policies);
                    actual.push(field("code", answer.reason.as_str()));
                    actual.push(set("policies", policies));
                }
                (vec![field("outcome", word.as_str())], actual)
            }
            // `check` refuses it for a call.
            Self::Code(code) => {
                (vec![field("code", code)], vec![field("outcome", outcome.as_str())])
            }
            Self::Object(fields) => fields.compare(answer),
        };
        StepResult::of(expected, actual, explained(answer))
    }
}

/// The message of an answer, with the rules that made it unless the message names their places.
fn explained(answer: &OfflineDecision) -> String {
    let rules = answer.rules.iter().filter(|rule| {
        let place = format!("{}:{}", rule.at.file, rule.at.line);
        !rule.at.file.is_empty() && !answer.message.contains(&place)
    });
    let rules: Vec<String> = rules.map(ToString::to_string).collect();
    match rules.is_empty() {
        true => answer.message.clone(),
        false => format!("{}; by {}", answer.message, rules.join(", ")),
    }
}

impl ExpectObject {
    /// The expected fields, and the same fields of the answer.
    fn compare(&self, answer: &OfflineDecision) -> (Vec<String>, Vec<String>) {
        let decision = answer.decision.as_ref();
        let mut expected = vec![field("outcome", self.outcome.map_or("", OutcomeWord::as_str))];
        let mut actual = vec![field("outcome", OutcomeWord::from(answer.outcome).as_str())];
        for (name, wanted, text) in self.texts(answer) {
            if let Some(wanted) = wanted {
                expected.push(field(name, &wanted));
                actual.push(field(name, text));
            }
        }
        if let Some(policy) = &self.policy {
            let policies = decision.map_or(&[][..], |decision| &decision.policies);
            expected.push(field("policy", policy));
            actual.push(match policies.contains(policy) {
                true => field("policy", policy),
                false => set("policies", policies),
            });
        }
        let list = |get: fn(&Decision) -> &[String]| decision.map_or(&[][..], get);
        for (name, wanted, values) in [
            ("kinds", &self.kinds, list(|decision| &decision.kinds)),
            ("policies", &self.policies, list(|decision| &decision.policies)),
            ("obligations", &self.obligations, list(|decision| &decision.obligations)),
            ("exceptions", &self.exceptions, list(|decision| &decision.exceptions)),
            ("controls", &self.controls, list(|decision| &decision.controls)),
        ] {
            if let Some(wanted) = wanted {
                expected.push(set(name, wanted));
                actual.push(set(name, values));
            }
        }
        if let Some(wanted) = &self.observed {
            let flips = decision.into_iter().flat_map(Decision::flips);
            let flips = flips.filter_map(|one| Some((&one.policy, one.outcome?.into())));
            expected.push(outcomes("observed", wanted.iter().map(|(id, word)| (id, *word))));
            actual.push(outcomes("observed", flips));
        }
        (expected, actual)
    }

    /// Fields of one text: name, expected text, text of the answer.
    fn texts<'a>(
        &self,
        answer: &'a OfflineDecision,
    ) -> [(&'static str, Option<String>, &'a str); 7] {
        let row = answer.reason.row();
        let decision = answer.decision.as_ref();
        let text = |get: fn(&Decision) -> &str| decision.map_or("", get);
        // Over a server a tier is spelt as in the protocol.
        let tier = self.tier.as_deref();
        let tier = tier.map(|tier| tier.strip_prefix("TIER_").unwrap_or(tier).to_lowercase());
        [
            ("code", self.code.clone(), answer.reason.as_str()),
            ("public_code", self.public_code.clone(), row.public_code.as_str()),
            ("next_action", self.next_action.clone(), row.next_action.as_str()),
            ("tier", tier, text(|decision| decision.tier.map_or("", Tier::as_str))),
            ("resource", self.resource.clone(), text(|decision| &decision.resource)),
            (
                "destination_class",
                self.destination_class.clone(),
                text(|decision| &decision.destination_class),
            ),
            (
                "shown_reason",
                self.shown_reason.clone(),
                text(|decision| decision.shown_reason.as_deref().unwrap_or_default()),
            ),
        ]
    }
}

fn field(name: &str, value: &str) -> String {
    format!("{name}: {value}")
}

fn outcomes<'a>(name: &str, outcomes: impl Iterator<Item = (&'a String, OutcomeWord)>) -> String {
    let sorted: BTreeSet<String> =
        outcomes.map(|(id, word)| format!("{id}: {}", word.as_str())).collect();
    format!("{name}: {{{}}}", sorted.into_iter().collect::<Vec<_>>().join(", "))
}

fn set<'a>(name: &str, values: impl IntoIterator<Item = &'a String>) -> String {
    let sorted: BTreeSet<&str> = values.into_iter().map(String::as_str).collect();
    format!("{name}: [{}]", sorted.into_iter().collect::<Vec<_>>().join(", "))
}
