//! Rules of a bundle for its own analysis: assertions that must hold, and findings that are accepted for a time.

use std::collections::BTreeSet;

use authz_base::tier::Tier;
use authz_base::time::Time;

use super::{Effect, OperationGlob};
use crate::location::Location;

/// Rules of findings of the analysis, beside `assertion:<id>`.
pub const ANALYSIS_RULES: [&str; 16] = [
    "policy-never-matches",
    "policy-always-matches",
    "policy-may-error",
    "policy-redundant",
    "policy-voided",
    "operation-nobody",
    "confused-deputy",
    "toxic-combination",
    "unused-authority",
    "exception-on-path",
    "self-approval",
    "credential-too-wide",
    "label-lost",
    "contradicting-sequences",
    "unanswerable-step-up",
    "assertion",
];

/// Assertions and suppressions of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnalysisRules {
    /// Calls that must never be possible.
    pub assertions: Vec<Assertion>,
    /// Findings that the bundle's owners accept until a date.
    pub suppressions: Vec<Suppression>,
}

/// An assertion: calls that must never be possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    /// Name of the assertion, unique in the bundle.
    pub id: String,
    /// The calls.
    pub never: CallPattern,
    /// Place in the bundle.
    pub at: Location,
}

/// A pattern of calls. All conditions must hold; a condition that is `None` restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallPattern {
    /// Role of the calling agent.
    pub agent: Option<String>,
    /// Role of the subject on whose behalf the agent calls.
    pub subject: Option<String>,
    /// Operations.
    pub operation: Option<OperationGlob>,
    /// Effect of the operation.
    pub effect: Option<Effect>,
    /// Least effective tier of the call.
    pub tier: Option<Tier>,
    /// Label of data that the session read, or that the agent may remember or finds in the resource of the call.
    pub label: Option<String>,
    /// Destination of the call.
    pub destination: Option<DestinationPattern>,
    /// Label of data that was read before the call, in its session or in another task of the agent.
    pub after: Option<String>,
    /// Step-up kinds with which the call is fine. Empty: it is fine with none.
    pub without: BTreeSet<String>,
}

/// Destinations of a pattern of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationPattern {
    /// Any destination.
    Any,
    /// Destinations of this class.
    Class(String),
}

/// Step-up kind of `without` that stands for every kind that people answer.
pub const PERSON: &str = "person";

/// Findings that the bundle's owners accept until a date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// The findings.
    pub of: SuppressedFindings,
    /// Team or person who answers for the suppression.
    pub owner: String,
    /// Reason for which the findings are accepted.
    pub reason: String,
    /// Time from which the suppression no longer counts.
    pub until: Time,
    /// Place in the bundle.
    pub at: Location,
}

/// Findings of a suppression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuppressedFindings {
    /// One finding, by its id.
    Finding(String),
    /// The findings of a rule.
    Rule {
        /// Name of the rule.
        rule: String,
        /// Subject of the findings, for example a policy id. Default: every subject.
        subject: Option<String>,
    },
}

impl CallPattern {
    /// Whether an answer with these step-up kinds makes a call fine.
    ///
    /// `approve` stands for an approval by any other person: also `approve:ROLE` and `two_person`. `person` stands for every kind
    /// that people answer.
    #[must_use]
    pub fn is_lifted_by(&self, kind: &str) -> bool {
        let is_approval = kind == "approve" || kind == "two_person" || kind.starts_with("approve:");
        self.without.contains(kind)
            || (self.without.contains("approve") && is_approval)
            || (self.without.contains(PERSON) && (is_approval || kind == "confirm"))
    }
}
