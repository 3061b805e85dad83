//! Input and output of a decision.

use std::fmt;
use std::sync::Arc;

use authz_base::record::Breakglasses;
use authz_base::record::history::{
    Event, HistoryChanges, HistoryView, RuleEffect, ValueFingerprint, ValueTerms, effects,
};
use authz_base::record::task::{SubjectProof, TaskView, WordRecords};
use authz_bundle::recipient_lists::RecipientLists;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use smol_str::SmolStr;

use crate::arguments::Arguments;
use crate::json;
use crate::mcp::ServerTask;
use crate::model::{Location, Origin, OriginSets, Tier, ValueRole};
use crate::value_key::ValueKey;
pub use authz_base::principal::{Claim, Narrowing, Principal, Subject};
pub use authz_base::time::Time;

pub use crate::reason::{NextAction, PublicCode, ReasonCode, Retry};

/// Facts that evidence proves: the caller, its chain, its task and its history.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Name of the enforcer that asks; empty where the caller asks about itself.
    pub enforcer: &'a str,
    /// Subject first, the caller last; never empty.
    pub chain: &'a [Principal],
    /// Proof of the caller.
    pub proof: CallerProof<'a>,
    /// Confidence, 0–100. Default: 0.
    pub confidence: u8,
    /// The task that the caller acts in. `chain` is then the chain of the task.
    pub task: Option<TaskView<'a>>,
    /// Proof of the subject of a call without a task. Default: as the chain says.
    pub subject_proof: Option<SubjectProof>,
    /// History of the task's session. `None`: it was not recalled, and each request that depends on it is refused.
    pub history: Option<HistoryView<'a>>,
    /// Words of the prompts of the task. Default: they were not recalled, and name nothing.
    pub words: WordRecords<'a>,
    /// Key of the literals of tasks. Default: no prompt makes a destination trusted.
    pub literal_key: Option<&'a [u8; 32]>,
    /// Key of the values that sessions know. Default: no report makes a value known.
    pub value_key: Option<&'a ValueKey>,
    /// Fingerprints of values that people endorsed for this call: they are `named`. Default: none.
    pub endorsed: &'a [ValueFingerprint],
    /// State of the bundle's recipient lists. Default: every recipient list is stale.
    pub recipient_lists: Option<&'a RecipientLists>,
    /// Grants of the presented task credential, each for one use. Default: no task credential is presented.
    pub granted: Option<&'a [Grant<'a>]>,
    /// Requests for break-glass, in force or not. Default: none is in force.
    pub breakglass: Option<&'a Breakglasses>,
}

/// One grant of a task credential, as it was decided when the credential was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Operation id.
    pub operation: &'a str,
    /// `<collection>/<id>`, or the collection as a whole; none where the operation acts on the system itself.
    pub resource: Option<&'a str>,
    /// SHA-256 of the canonical arguments, in lower-case hex.
    pub arguments_digest: Option<&'a str>,
    /// Destinations, as [`Decision::destinations`] had them.
    pub destinations: &'a [String],
    /// It was used.
    pub is_redeemed: bool,
    /// What the permit was charged that it was issued of: [`Decision::charges`]. Those uses are its own.
    pub charged: &'a [(String, u32)],
}

/// How the caller proved itself.
#[derive(Clone, Copy, Debug)]
pub struct CallerProof<'a> {
    /// The method.
    pub method: ProofMethod,
    /// Bound to a key that the caller proved to hold.
    pub bound: bool,
    /// Seconds since the credential was issued; none where it does not say.
    pub age: Option<i64>,
    /// `acr` of the subject's token; empty where absent.
    pub acr: &'a str,
    /// Step-up kinds that people have met for this call. Default: none; a served call never has any.
    pub satisfied: &'a [String],
}

/// How a caller proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofMethod {
    /// A JWT-SVID.
    JwtSvid,
    /// The X.509-SVID of its own TLS connection.
    X509Svid,
    /// The word of an enforcer that verified it.
    Relayed,
    /// A subject token alone.
    Jwt,
    /// A task credential of ours.
    TaskCredential,
}

impl ProofMethod {
    /// All methods, also those of later versions: the names policies may use.
    pub const NAMES: [&'static str; 6] =
        ["jwt-svid", "jwt", "x509-svid", "relayed", "task-credential", "none"];

    /// The word used in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JwtSvid => "jwt-svid",
            Self::X509Svid => "x509-svid",
            Self::Relayed => "relayed",
            Self::Jwt => "jwt",
            Self::TaskCredential => "task-credential",
        }
    }
}

/// One authorization request: operation, arguments, resource and destinations.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Operation id.
    pub operation: &'a str,
    /// Arguments.
    pub arguments: Given<'a>,
    /// Resource id. Only for an operation whose rule reads the id from no argument.
    pub resource: Option<&'a str>,
    /// Destinations. Only for an operation whose rule reads the destinations from no argument.
    pub destinations: &'a [&'a str],
    /// Labels that the enforcer reports about the call. They only add restrictions.
    pub labels: &'a [&'a str],
    /// Obligations that the enforcer can carry out.
    pub supported_obligations: &'a [&'a str],
    /// Relation to the MCP server's own tasks.
    pub server_task: ServerTask,
}

impl<'a> Request<'a> {
    /// A request without resource, destinations, labels and obligations.
    #[must_use]
    pub const fn new(operation: &'a str, arguments: Given<'a>) -> Self {
        Self {
            operation,
            arguments,
            resource: None,
            destinations: &[],
            labels: &[],
            supported_obligations: &[],
            server_task: ServerTask::None,
        }
    }
}

/// Arguments as they came.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    /// One JSON object; empty means `{}`.
    Json(&'a [u8]),
    /// An object that was read before, within the limits of a reader.
    Read(&'a Arc<json::Value>),
}

impl<'a> From<&'a [u8]> for Given<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Json(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Given<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Json(bytes)
    }
}

/// Outcome of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// May be performed.
    Permit,
    /// Not yet.
    StepUp,
    /// May not.
    Deny,
}

/// Name of a principal of the chain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PrincipalName {
    /// `Agent`, `User` or `Service`.
    pub kind: String,
    /// SPIFFE id, or `<issuer alias>/<sub>`.
    pub id: String,
}

/// A decision without its id.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The answer.
    pub outcome: Outcome,
    /// Why.
    pub reason: ReasonCode,
    /// Step-up kinds, sorted, where the outcome is STEP_UP.
    pub kinds: Vec<String>,
    /// Policies that determined the outcome, by `@id`, sorted.
    pub policies: Vec<String>,
    /// Where each of those stands, in their order.
    pub places: Vec<Location>,
    /// SHA-256 of the text of each of those, in their order.
    pub policy_digests: Vec<[u8; 32]>,
    /// Rules beside those policies that determined the outcome, for example the cap of a task. Empty on PERMIT.
    pub rules: Vec<DecidingRule>,
    /// `@control` values of those, sorted.
    pub controls: Vec<String>,
    /// `@obligation` values of all fired permits that the enforcer carries out, sorted; only on PERMIT.
    pub obligations: Vec<String>,
    /// Obligations of all fired permits that Authz carries out itself, sorted; only on PERMIT.
    pub own_obligations: Vec<String>,
    /// The judged operation; for a split operation, the case that the arguments name. Empty if not resolved.
    pub operation: String,
    /// Effective tier; none where the operation was not resolved.
    pub tier: Option<Tier>,
    /// The Cedar resource, `Resource::"customers/42"`; empty where not resolved.
    pub resource: String,
    /// Class of the worst destination; empty where the operation has none.
    pub destination_class: String,
    /// Every destination in the canonical form of its type, sorted, each once.
    pub destinations: Vec<String>,
    /// SHA-256 of the canonical arguments (RFC 8785); none where they could not be read.
    pub arguments_digest: Option<[u8; 32]>,
    /// The arguments themselves; none where they could not be read.
    pub arguments: Option<Arc<Arguments>>,
    /// Principals without a permit that fired, in the order of the chain. Empty unless the request is denied for lack of one.
    pub without_permit: Vec<PrincipalName>,
    /// What happened, for the enforcer's detail, Explain and the log: one line, no argument values.
    pub message: String,
    /// `@reason` of the first determining policy, where the bundle lets the system show it.
    pub shown_reason: Option<String>,
    /// Which entries a PERMIT counts on, `(task id, index)`: the task's own and those of the tasks above it. Entries that
    /// are not counted are left out, and all where a task credential is redeemed: its permit was counted.
    pub charges: Vec<(String, u32)>,
    /// Which of [`Facts::granted`] covers the request: a PERMIT uses it up, and counts on no entry anew.
    pub redeems: Option<usize>,
    /// Confidentiality labels that some destination is not cleared for, sorted.
    pub uncleared_labels: Vec<String>,
    /// Rules over the order of events that the call would complete, sorted.
    pub sequences: Vec<String>,
    /// Budgets that the call would exceed, sorted.
    pub budgets: Vec<String>,
    /// Standing exceptions without which a policy would have had another result, sorted.
    pub exceptions: Vec<String>,
    /// Break-glass on which the result of a policy depends. `None`: no policy's result depends on break-glass.
    pub breakglass: Option<Box<BreakglassUse>>,
    /// What letting the call through changes in the history of its session.
    pub passage: HistoryChanges,
    /// What its denial changes.
    pub denial: HistoryChanges,
    /// Origins of the values of the call. `None`: no policy of the operation reads them.
    pub origins: Option<OriginSets>,
    /// Facts that the policies of the operation could read. `None`: no policy was judged.
    pub facts: Option<Box<RecordedFacts>>,
    /// What a report of the call may say about values. `None`: nothing.
    pub values: Option<ValueTerms>,
    /// The call is permitted as a task of the MCP server's own, which the task must note: [`Task::note_call`].
    ///
    /// [`Task::note_call`]: authz_base::record::Task::note_call
    pub server_call: bool,
    /// Grounds of a step-up, and what a person is shown of the call. `None`: the outcome is not STEP_UP.
    pub step_up: Option<Box<StepUp>>,
    /// Policies with `@mode("observe")` that were judged, in the order of the bundle. Empty unless the call was judged.
    pub observed: Vec<ObservedPolicy>,
    /// Every policy judged, per principal: filled only when asked for.
    pub trace: Vec<Judged>,
    /// The request was read whole, in the only way it can be read.
    pub understood: bool,
    /// Every check of step 5 ran: the operation, the chain and the tier are those of the call, and nothing else can become
    /// of it.
    pub is_judged: bool,
}

/// Facts that the policies of an operation could read, by the keys of `context`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedFacts {
    /// Name and value of each key, but `input`. `other_destinations` has the destinations beside the worst one.
    pub values: Vec<(&'static str, RecordedFact)>,
    /// True if a policy reads the arguments.
    pub reads_arguments: bool,
    /// Results of the checks beside policies.
    pub checks: RecordedCheckResults,
}

/// Results of the checks beside policies, so that another bundle can judge the call from its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCheckResults {
    /// Step-up kinds that are met.
    pub satisfied: Vec<String>,
    /// Age of the caller's credential in seconds. `None`: the credential does not say when it was issued.
    pub age: Option<i64>,
    /// Confidence that the call is meant, 0 to 100.
    pub confidence: u8,
    /// Proof of the subject.
    pub subject_proof: SubjectProof,
    /// Reason for which the bounds of the task, or a budget, refuse the call.
    pub refused: Option<ReasonCode>,
    /// Step-up kinds by which the scope of the task holds the call.
    pub held: Vec<String>,
    /// Obligation that the enforcer cannot carry out. Empty: each can be.
    pub unsupported: String,
}

impl Default for RecordedCheckResults {
    fn default() -> Self {
        Self {
            satisfied: Vec::new(),
            age: None,
            confidence: 0,
            subject_proof: SubjectProof::Itself,
            refused: None,
            held: Vec::new(),
            unsupported: String::new(),
        }
    }
}

/// A fact that policies could read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedFact {
    /// An integer.
    Long(i64),
    /// A truth value.
    Bool(bool),
    /// A name of the bundle, or a text of the configuration or of a verified credential.
    Word(SmolStr),
    /// A text that the call brings.
    Text(SmolStr),
    /// Names of the bundle, sorted.
    Set(Vec<SmolStr>),
    /// Members by name.
    Record(Vec<(&'static str, Self)>),
    /// Items in order.
    List(Vec<Self>),
}

impl Decision {
    /// All rules that determined the outcome: policies first. A denial or a step-up has at least one.
    pub fn all_rules(&self) -> impl Iterator<Item = DecidingRule> + '_ {
        let policies = self.policies.iter().zip(&self.places);
        let policies = policies.map(|(id, at)| DecidingRule {
            kind: RuleKind::Policy,
            name: id.clone(),
            at: at.clone(),
        });
        policies.chain(self.rules.iter().cloned())
    }

    /// Observed policies that would have changed the outcome.
    pub fn flips(&self) -> impl Iterator<Item = &ObservedPolicy> {
        let is_flip = |one: &&ObservedPolicy| one.outcome.is_some_and(|own| own != self.outcome);
        self.observed.iter().filter(is_flip)
    }

    /// Changes of the answer in the history of its session. Only a request that is let through changes it.
    ///
    /// Args:
    /// * `is_let_through`: although it is not permitted, as where denials are only observed.
    #[must_use]
    pub fn changes(&self, is_let_through: bool) -> &HistoryChanges {
        let event = match self.outcome {
            _ if is_let_through => Event::Permitted,
            Outcome::Permit => Event::Permitted,
            Outcome::Deny => Event::Denied,
            Outcome::StepUp => Event::SteppedUp,
        };
        match effects(event).restricting {
            RuleEffect::See | RuleEffect::SeeIfPermittedCounts => &self.passage,
            RuleEffect::SeeDenial => &self.denial,
            RuleEffect::None => &NO_CHANGES,
        }
    }
}

/// Break-glass on which a decision depends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakglassUse {
    /// Id of the request.
    pub id: String,
    /// Ticket in which the emergency is handled.
    pub ticket: String,
    /// Name of the person who opened it.
    pub opened_by: String,
    /// Name of the person who confirmed it.
    pub confirmed_by: String,
}

/// Grounds of a step-up, and facts of its call for the person who decides about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// Rules that need the step-up, in the order of their identity.
    pub grounds: Vec<StepUpGround>,
    /// Destinations of the call, sorted by their canonical form.
    pub destinations: Vec<StepUpDestination>,
    /// Values that carry authority, in the order of the bundle's rules.
    pub objects: Vec<StepUpObject>,
    /// Recipients and targets that are not `named`, each once.
    pub unnamed: Vec<UnnamedValue>,
    /// Labels that the call carries, sorted.
    pub labels: Vec<String>,
    /// Facts of some values are missing, because the call has too many of them.
    pub is_cut: bool,
}

/// Limits of the endorsements that one policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covers {
    /// Ids of operations of one system, sorted.
    pub operations: Vec<String>,
    /// Calls for each value.
    pub uses: u32,
    /// Life of an endorsement, in milliseconds.
    pub within_ms: i64,
}

/// One rule that needs a step-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepUpGround {
    /// Identity: of a policy its id and the SHA-256 of its text; of a tier its name and the kind; of a scope its task, template
    /// and kind. A rule that changes gets another identity.
    pub identity: String,
    /// Kind that lifts it.
    pub kind: String,
    /// Name of the rule: the `@id` of a policy, or the rule's name.
    pub name: String,
    /// `@reason` of the policy, or one line.
    pub reason: String,
    /// Place in the bundle.
    pub at: Location,
    /// `@covers` of the policy. `None`: endorsed values do not lift the rule.
    pub covers: Option<Covers>,
}

/// A recipient or a target of a call that is not `named`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnnamedValue {
    /// Authority of the value.
    pub role: ValueRole,
    /// Collection or form of destination. Empty: it is of neither.
    pub collection: String,
    /// The whole value, in the one form of its collection or destination.
    pub value: String,
    /// Keyed fingerprint of role, namespace and value.
    pub fingerprint: ValueFingerprint,
}

/// A destination of a call that needs a step-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepUpDestination {
    /// Canonical form.
    pub value: String,
    /// Class in the bundle.
    pub class: String,
    /// Domain of an email address or host of a URL; empty for other kinds.
    pub host: String,
    /// The first recipient list, by name, that has it. Empty: no list has it.
    pub recipient_list: String,
    /// Origin.
    pub origin: Origin,
}

/// A value with authority of a call that needs a step-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepUpObject {
    /// Authority of the value.
    pub role: ValueRole,
    /// JSON pointer (RFC 6901) of its argument.
    pub pointer: String,
    /// Collection or form of destination. Empty: it is of neither.
    pub collection: String,
    /// The value as JSON.
    pub value: String,
    /// Currency of an amount. Empty: none is declared.
    pub currency: String,
    /// Origin.
    pub origin: Origin,
}

/// A rule of the bundle, or a check of Authz, that determined an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidingRule {
    /// Kind of the rule.
    pub kind: RuleKind,
    /// Name of the rule within its kind, for example the `@id` of a policy or the name of a template.
    pub name: String,
    /// Place in the bundle; without a file where the rule is a default or a check of Authz.
    pub at: Location,
}

impl DecidingRule {
    /// The rule's name and place, without its kind.
    #[must_use]
    pub fn subject(&self) -> String {
        match self.at.file.as_str() {
            "" => format!("`{}`", self.name),
            file => format!("`{}` ({file}:{})", self.name, self.at.line),
        }
    }

    /// A check of Authz that refused a call, by its name.
    #[must_use]
    pub fn check(name: &str) -> Self {
        Self { kind: RuleKind::Check, name: name.to_owned(), at: Location::default() }
    }
}

impl fmt::Display for DecidingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind.as_str(), self.name)?;
        match (self.at.file.as_str(), self.at.line) {
            ("", _) => Ok(()),
            (file, 0) => write!(f, " ({file})"),
            (file, line) => write!(f, " ({file}:{line})"),
        }
    }
}

impl Serialize for DecidingRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("kind", self.kind.as_str())?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("file", &self.at.file)?;
        map.serialize_entry("line", &self.at.line)?;
        map.end()
    }
}

/// Kinds of rules that determine an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    /// A Cedar policy; its name is its `@id`.
    Policy,
    /// No permit fired, which denies; the name is the operation's id.
    DefaultDeny,
    /// A requirement of a tier; the name is the tier.
    TierRequirement,
    /// What gave the call its tier: an operation, a destination class, a label, or `denials`.
    Tier,
    /// The highest tier of a task; the name is the template's, or `implicit_tasks`.
    TierCap,
    /// The scope of a task; the name is the template's.
    Scope,
    /// Uses of an entry of a scope; the name is the template's.
    Uses,
    /// A budget.
    Budget,
    /// A rule over the order of events.
    Sequence,
    /// A standing exception that has expired, or whose obligation the enforcer cannot carry out.
    Exception,
    /// `tasks` or `implicit_tasks` of `bundle.yaml`.
    Tasks,
    /// The catalog: an operation that it lacks, or a tool that nobody reviewed as it is.
    Catalog,
    /// The argument schema of an operation.
    Input,
    /// An entry of `mode` that lets a refused call through.
    Mode,
    /// A check of Authz itself, for example of a credential.
    Check,
}

impl RuleKind {
    /// The word in audit records and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::DefaultDeny => "default_deny",
            Self::TierRequirement => "tier_requirement",
            Self::Tier => "tier",
            Self::TierCap => "tier_cap",
            Self::Scope => "scope",
            Self::Uses => "uses",
            Self::Budget => "budget",
            Self::Sequence => "sequence",
            Self::Exception => "exception",
            Self::Tasks => "tasks",
            Self::Catalog => "catalog",
            Self::Input => "input",
            Self::Mode => "mode",
            Self::Check => "check",
        }
    }
}

/// What most refusals change.
static NO_CHANGES: HistoryChanges = HistoryChanges::NONE;

/// A policy with `@mode("observe")` that was judged, and the outcome that it would have brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPolicy {
    /// `@id`.
    pub policy: String,
    /// Place in the bundle.
    pub at: Location,
    /// Outcome of the call, were the policy enforced. Permits that are observed are taken together, because each principal of a
    /// chain may need another one. `None`: the facts that the policy reads were not recalled, so it was not judged.
    pub outcome: Option<Outcome>,
}

/// One policy judged for one principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// `@id`.
    pub policy: String,
    /// Where it stands.
    pub at: Location,
    /// Cedar uid of the principal.
    pub principal: String,
    /// Permit or forbid.
    pub effect: PolicyEffect,
    /// Result of the evaluation.
    pub result: Verdict,
    /// `@reason`.
    pub reason: String,
    /// The policy is only observed: it has no part in the answer.
    pub is_observed: bool,
}

/// A policy's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyEffect {
    /// permit
    Permit,
    /// forbid
    Forbid,
}

/// Result of evaluating one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its conditions hold.
    Fired,
    /// They do not.
    NotFired,
    /// It failed; the text says how.
    Failed(String),
}
