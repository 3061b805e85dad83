//! The document of an analysis.

use authz_kernel::hex::{hex, hex_start};
use authz_kernel::model::{Location, SuppressedFindings, Suppression};
use authz_kernel::plan::Plan;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Version of the document's form.
pub const VERSION: u32 = 1;

/// Begin of the rule of an assertion; its id follows.
pub const ASSERTION: &str = "assertion:";

/// Weight of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For information.
    Note,
    /// Probably not meant.
    Warning,
    /// Contradicts an assertion, or opens a path.
    Error,
}

impl Severity {
    /// Severity of a question about a rule that is not decided.
    ///
    /// INVARIANT (fail closed): the owners of a bundle ask that an assertion holds, so an open one fails a run like a broken one.
    #[must_use]
    pub fn of_open(rule: &str) -> Self {
        if rule.starts_with(ASSERTION) { Self::Error } else { Self::Warning }
    }
}

/// Certainty of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finality {
    /// It holds for every request, under the assumptions.
    Proved,
    /// A trace shows it, which the kernel replayed.
    PathFound,
    /// Neither, for a stated reason.
    NotDecided,
}

/// One step of a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Step {
    /// Number, from 1.
    pub step: usize,
    /// SPIFFE id of the acting agent; empty where none acts.
    pub agent: String,
    /// Subject on whose behalf the agent acts; empty without one.
    pub subject: String,
    /// Template of the task; empty without a task.
    pub template: String,
    /// Operation.
    pub operation: String,
    /// Arguments.
    pub input: Value,
    /// Resource; empty without one.
    pub resource: String,
    /// Destination; empty without one.
    pub destination: String,
    /// Labels of the session before the step.
    pub labels_before: Vec<String>,
    /// Labels of the session after the step.
    pub labels_after: Vec<String>,
    /// `permit`, `step_up` or `deny`.
    pub outcome: String,
    /// Reason code of the decision; empty if the step is only a part of a decision.
    pub reason_code: String,
    /// Policies that determine the outcome.
    pub rules: Vec<String>,
    /// The step without which the path ends.
    pub is_pivot: bool,
    /// Remark for the reader.
    pub note: String,
    /// Stated request that the kernel judged, in Cedar's JSON forms; null where the step is a whole decision.
    pub request: Value,
}

/// A change that cuts a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `add_forbid`, `remove_permit`, `remove_exception`, `remove_delegation` or `add_label`.
    pub kind: &'static str,
    /// Description, or text to add.
    pub text: String,
    /// File of the bundle.
    pub file: String,
    /// Line of the file.
    pub line: u32,
}

/// The smallest set of changes that removes a finding's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// No smaller set exists.
    pub exact: bool,
    /// The changes.
    pub changes: Vec<Change>,
}

/// Place in a file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Path relative to the bundle folder.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl Place {
    /// A place; `None` where the line is not known.
    #[must_use]
    pub fn of(at: &Location) -> Option<Self> {
        let Location { file, line, column } = at;
        (*line > 0).then(|| Self { file: file.clone(), line: *line, column: *column })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// 16 hexadecimal digits, of rule and subject: they survive moved lines.
    pub id: String,
    /// Name of the rule, for example `policy-never-matches`.
    pub rule: String,
    /// Weight.
    pub severity: Severity,
    /// Certainty.
    pub verdict: Finality,
    /// One sentence.
    pub message: String,
    /// Cause of `not_decided`; otherwise empty.
    pub reason: String,
    /// Facts that the finding takes for true.
    pub assumptions: Vec<String>,
    /// Policies that it is about.
    pub policies: Vec<String>,
    /// Place in the bundle.
    pub location: Option<Place>,
    /// Trace that shows it.
    pub path: Vec<Step>,
    /// Changes that remove it.
    pub cut: Option<Cut>,
    /// Test of the bundle that fails while the finding stands, as YAML; may be empty.
    pub case: String,
}

impl Finding {
    /// A finding without trace and cut.
    ///
    /// Args: `subject`: stable name of the subject, such as the id of a policy.
    #[must_use]
    pub fn new(
        rule: &str,
        subject: &str,
        (severity, verdict): (Severity, Finality),
        message: impl Into<String>,
    ) -> Self {
        Self {
            id: finding_id(rule, subject),
            rule: rule.to_owned(),
            severity,
            verdict,
            message: message.into(),
            reason: String::new(),
            assumptions: Vec::new(),
            policies: Vec::new(),
            location: None,
            path: Vec::new(),
            cut: None,
            case: String::new(),
        }
    }
}

/// Id of a finding: 16 hexadecimal digits of the SHA-256 of rule and subject.
#[must_use]
pub fn finding_id(rule: &str, subject: &str) -> String {
    hex_start(&Sha256::digest(format!("{rule}\n{subject}")), 8)
}

/// A rule that holds of a subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Name of the rule.
    pub rule: String,
    /// Policy, operation or assertion that it is about.
    pub subject: String,
    /// Facts that the proof takes for true.
    pub assumptions: Vec<String>,
}

/// Name and digest of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BundleName {
    /// `name` of `bundle.yaml`.
    pub name: String,
    /// SHA-256 over the files, in hexadecimal digits.
    pub digest: String,
}

impl BundleName {
    /// Name and digest of a plan's bundle.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self { name: plan.name().to_owned(), digest: hex(&plan.digest()) }
    }
}

/// The solver that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SolverName {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// Sizes of an analysis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Policies of the bundle.
    pub policies: usize,
    /// Operations of the bundle and of Authz itself.
    pub operations: usize,
    /// Principals that were looked at one by one.
    pub principals: usize,
    /// Assertions of the bundle.
    pub assertions: usize,
    /// Different questions to the solver.
    pub questions: usize,
    /// Questions that an answer of an earlier run covers.
    pub questions_cached: usize,
    /// Questions without an answer.
    pub not_decided: usize,
}

/// Document of `authz-analyze analyze`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of the form.
    pub version: u32,
    /// The bundle.
    pub bundle: BundleName,
    /// The solver; null without one.
    pub solver: Option<SolverName>,
    /// Sizes.
    pub counts: Counts,
    /// Findings: errors first, then by rule and place.
    pub findings: Vec<Finding>,
    /// Rules that hold.
    pub proved: Vec<Proof>,
    /// Findings that the bundle's owners accept until a date.
    pub suppressions: Vec<SuppressionEntry>,
}

/// A suppression of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SuppressionEntry {
    /// Id of the finding. `None`: the suppression is of a rule.
    pub finding: Option<String>,
    /// Rule of the findings.
    pub rule: Option<String>,
    /// Subject of the findings. `None`: every subject.
    pub subject: Option<String>,
    /// Team or person who answers for it.
    pub owner: String,
    /// Reason for which the findings are accepted.
    pub reason: String,
    /// End, in milliseconds since 1970.
    pub until: i64,
    /// Place in the bundle.
    pub location: Option<Place>,
}

impl SuppressionEntry {
    /// The suppressions of a plan's bundle.
    #[must_use]
    pub fn all(plan: &Plan) -> Vec<Self> {
        let entry = |one: &Suppression| {
            let (finding, rule, subject) = match &one.of {
                SuppressedFindings::Finding(id) => (Some(id.clone()), None, None),
                SuppressedFindings::Rule { rule, subject } => {
                    (None, Some(rule.clone()), subject.clone())
                }
            };
            Self {
                finding,
                rule,
                subject,
                owner: one.owner.clone(),
                reason: one.reason.clone(),
                until: one.until.0,
                location: Place::of(&one.at),
            }
        };
        plan.model().analysis.suppressions.iter().map(entry).collect()
    }
}

impl Report {
    /// Puts findings and proofs into a fixed order.
    pub fn sort(&mut self) {
        let place = |finding: &Finding| {
            finding.location.as_ref().map(|place| (place.file.clone(), place.line, place.column))
        };
        self.findings.sort_by(|one, other| {
            other
                .severity
                .cmp(&one.severity)
                .then_with(|| one.rule.cmp(&other.rule))
                .then_with(|| place(one).cmp(&place(other)))
                .then_with(|| one.message.cmp(&other.message))
        });
        self.proved
            .sort_by(|one, other| (&one.rule, &one.subject).cmp(&(&other.rule, &other.subject)));
    }
}
