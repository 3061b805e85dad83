//! A recorded decision, judged again from its record by another bundle.
//!
//! Facts that a record has are taken as they are. A fact that it lacks, or that the other bundle may find in another way, counts as
//! unknown: the call is judged once with the best and once with the worst that the unknown facts can be. Only if both have the
//! same outcome is the call decided.
//!
//! The history of the session counts as it was. Its labels, its steps of sequences and its counters are those of the record, also
//! where the other bundle would have let an earlier call through or held it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::definitions::{Definitions, SameParts};
use super::exceptions::{CoveringExceptions, ExceptionEffects, covering_of, is_missed};
use super::located::{BoundRefusal, Hold, TaskBounds};
use super::verdict::{StatedRules, Tally};
use super::{
    AGELESS, RequestRefusal, TierFacts, UNPROVED_SUBJECT, known, requirements, resolve, rules,
    satisfied,
};
use crate::arguments::Arguments;
use crate::coerce::coerced;
use crate::decision::{
    CallerProof, Claim, Decision, Facts, Outcome, PolicyEffect, Principal, ProofMethod, ReasonCode,
    Subject, Time, Verdict,
};
use crate::destinations::ClassifiedDestination;
use crate::digest::sha256;
use crate::evaluate::replay::{
    Finding, PartialDestination, PartialFacts, PartialInput, PartialProof, PartialSession,
    PartialTask, PartialText, RecordedJudge,
};
use crate::evaluate::{Known, Rule, StoreFacts, Unready, Words};
use crate::hex::hex;
use crate::history::Carried;
use crate::model::{BREAKGLASS, ClaimTest, Model, Operation, OriginSets, Tier};
use crate::plan::{Plan, Prepared};
use crate::schema::{Key, Keys, NO_DESTINATION, OWN_SYSTEM};
use crate::soften::{CallPlace, RefusedCall};
use crate::task::SubjectProof;

/// A text that a record has in clear or as a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedText {
    /// The text itself.
    Clear(String),
    /// SHA-256 of the text, in lower-case hex.
    Digest(String),
}

impl RecordedText {
    fn partial(text: Option<&Self>) -> PartialText<'_> {
        match text {
            Some(Self::Clear(text)) => PartialText::Clear(text),
            Some(Self::Digest(digest)) => PartialText::Digest(digest),
            None => PartialText::Missing,
        }
    }
}

/// A principal of a record.
#[derive(Clone, Debug)]
pub struct RecordedPrincipal {
    /// The principal. Texts of its claims are digests.
    pub principal: Principal,
    /// Roles in the bundle that judged. `None`: the record does not list all.
    pub roles: Option<Vec<String>>,
}

/// Arguments of a record.
#[derive(Clone, Debug, Default)]
pub struct RecordedArguments {
    /// A JSON object, in which texts may be digests. `None`: the record has none.
    pub json: Option<Vec<u8>>,
    /// Members that are digests or left out: names from the outermost on, and the digest if there is one.
    pub masked: Vec<(Vec<String>, Option<String>)>,
}

/// Task of a record.
#[derive(Clone, Debug, Default)]
pub struct RecordedTask {
    /// `root`, `child`, `implicit` or `none`.
    pub kind: String,
    /// Template.
    pub template: String,
    /// Purpose.
    pub purpose: Option<RecordedText>,
    /// Number of tasks above it.
    pub depth: Option<i64>,
    /// Age in seconds.
    pub age: Option<i64>,
    /// SPIFFE id of the agent that has it.
    pub assignee: String,
}

/// A destination of a record.
#[derive(Clone, Debug, Default)]
pub struct RecordedDestination {
    /// Class.
    pub class: String,
    /// The call has a destination.
    pub is_present: bool,
    /// The user or a recipient list vouches for all destinations.
    pub is_trusted: Option<bool>,
    /// Host.
    pub host: Option<RecordedText>,
}

/// Session of a record.
#[derive(Clone, Debug, Default)]
pub struct RecordedSession {
    /// Labels that it carries.
    pub labels: Vec<String>,
    /// Collections and systems that labelled data came from.
    pub sources: i64,
    /// Permitted calls.
    pub calls: i64,
    /// Labels that the agent remembers from other tasks.
    pub remembered: Vec<String>,
    /// Labels that the resource keeps from its writers.
    pub written: Vec<String>,
    /// Denials in the task's run.
    pub denials: u32,
}

/// Proof of the caller in a record.
#[derive(Clone, Debug, Default)]
pub struct RecordedProof {
    /// Method.
    pub method: String,
    /// Bound to a key.
    pub is_bound: bool,
    /// Age in seconds.
    pub age: i64,
    /// `acr` of the subject's token.
    pub acr: String,
}

/// Results of the checks beside policies, as the record has them.
#[derive(Clone, Debug, Default)]
pub struct RecordedChecks {
    /// Kinds of step-up that were met.
    pub satisfied: Vec<String>,
    /// Age of the caller's credential in seconds.
    pub age: Option<i64>,
    /// Confidence that the call is meant.
    pub confidence: u8,
    /// Reason for which the task's bounds refused the call.
    pub refused: Option<ReasonCode>,
    /// Step-up kinds by which the task's scope holds the call.
    pub held: Vec<String>,
    /// Obligation that the enforcer cannot carry out.
    pub unsupported: Option<String>,
}

/// One record of a decision that was judged.
#[derive(Clone, Debug)]
pub struct RecordedCall {
    /// Operation id; of an operation that is split, the case.
    pub operation: String,
    /// Subject first, the caller last.
    pub chain: Vec<RecordedPrincipal>,
    /// Time of the decision.
    pub now: Time,
    /// Arguments.
    pub arguments: RecordedArguments,
    /// Resource, in the form of a Cedar entity.
    pub resource: String,
    /// Class of the worst destination; empty without a destination.
    pub destination_class: String,
    /// Labels that the enforcer reported.
    pub labels: Vec<String>,
    /// Name of the enforcer.
    pub enforcer: String,
    /// Task.
    pub task: Option<RecordedTask>,
    /// Proof of the subject: `verified`, `asserted` or `self`.
    pub subject_proof: String,
    /// Effective tier.
    pub tier: Tier,
    /// Policies that determined the outcome.
    pub policies: Vec<String>,
    /// The same bundle judges again.
    pub is_of_bundle: bool,
    /// Obligations of the permit.
    pub obligations: Vec<String>,
    /// The outcome.
    pub outcome: Outcome,
    /// Sequences that the call would complete.
    pub sequences: Vec<String>,
    /// Budgets that the call would exceed.
    pub budgets: Vec<String>,
    /// Session. `None`: the decision did not depend on it.
    pub session: Option<RecordedSession>,
    /// Results of the checks beside policies. `None`: an older version wrote the record.
    pub checks: Option<RecordedChecks>,
    /// Facts that policies could read.
    pub facts: RecordedCallFacts,
}

/// Facts that the policies of the operation could read. `None`: no policy read the fact.
#[derive(Clone, Debug, Default)]
pub struct RecordedCallFacts {
    /// `context.destination`.
    pub destination: Option<RecordedDestination>,
    /// Destinations beside the worst one.
    pub other_destinations: Vec<RecordedDestination>,
    /// `context.origins`.
    pub origins: Option<OriginSets>,
    /// `context.literals.unknown`.
    pub unknown_literals: Option<i64>,
    /// `context.proof`.
    pub proof: Option<RecordedProof>,
    /// `context.session.labels`.
    pub session_labels: Option<Vec<String>>,
    /// `context.remembered`.
    pub remembered: Option<Vec<String>>,
    /// `context.sequences`; true if a policy read it.
    pub has_sequences: bool,
    /// `context.budgets`; true if a policy read it.
    pub has_budgets: bool,
    /// `context.exception`.
    pub exceptions: Option<Vec<String>>,
}

/// A decision that was made again.
#[derive(Clone, Debug)]
pub struct ReplayedDecision {
    /// The decision.
    pub decision: Box<Decision>,
    /// `mode` lets the call through although it is not permitted.
    pub is_softened: bool,
}

impl ReplayedDecision {
    /// The answer that the caller gets.
    #[must_use]
    pub fn answer(&self) -> Outcome {
        if self.is_softened { Outcome::Permit } else { self.decision.outcome }
    }
}

/// Result of a replay.
#[derive(Clone, Debug)]
pub enum ReplayResult {
    /// The record decides the outcome. `is_exact`: also its reason and its policies.
    Decided {
        /// The decision.
        decision: ReplayedDecision,
        /// The record decides the reason and the policies, too.
        is_exact: bool,
    },
    /// The outcome depends on something that the record lacks.
    Open {
        /// The best that can be.
        best: ReplayedDecision,
        /// The worst that can be.
        worst: ReplayedDecision,
        /// Names of the missing facts, sorted.
        missing: Vec<String>,
    },
    /// Nothing can be said.
    Impossible {
        /// Kind of the reason.
        kind: ImpossibleKind,
        /// For people.
        message: String,
    },
}

/// Reason for which a record cannot be judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImpossibleKind {
    /// The bundle lacks the operation.
    Operation,
    /// The bundle finds the resource in another way.
    Resource,
    /// The roles of a principal do not follow from the record.
    Roles,
    /// The facts have no form that policies can read.
    Facts,
}

impl ImpossibleKind {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation_missing",
            Self::Resource => "resource_changed",
            Self::Roles => "roles_unknown",
            Self::Facts => "facts_unreadable",
        }
    }
}

/// Why a replay stops.
struct Stop(ImpossibleKind, String);

impl From<Unready> for Stop {
    fn from(unready: Unready) -> Self {
        Self(ImpossibleKind::Facts, unready.0)
    }
}

/// Judges a recorded call.
///
/// Args: `definitions`: knowledge about the bundle in which the facts were found.
#[must_use]
pub fn replay(plan: &Plan, call: &RecordedCall, definitions: Definitions<'_>) -> ReplayResult {
    match replayed(plan, call, definitions) {
        Ok(replayed) => replayed,
        Err(Stop(kind, message)) => ReplayResult::Impossible { kind, message },
    }
}

fn replayed(
    plan: &Plan,
    call: &RecordedCall,
    definitions: Definitions<'_>,
) -> Result<ReplayResult, Stop> {
    let (operation, prepared) = plan.prepared(&call.operation).ok_or_else(|| {
        Stop(ImpossibleKind::Operation, format!("the bundle has no operation `{}`", call.operation))
    })?;
    let same = SameParts::of(plan, definitions, operation);
    let chain = chain_of(plan, call, definitions, same)?;
    let principals: Vec<Principal> = call.chain.iter().map(|one| one.principal.clone()).collect();
    let resource = ResourceOfCall::of(plan, operation, call)?;
    let mut replay = Replay {
        plan,
        call,
        operation,
        prepared,
        same,
        chain,
        principals,
        resource,
        missing: BTreeSet::new(),
    };
    replay.run()
}

/// Resource of a recorded call.
struct ResourceOfCall<'a> {
    known: Known,
    collection: Option<&'a str>,
    id: String,
    labels: Vec<String>,
}

impl<'a> ResourceOfCall<'a> {
    fn of(plan: &'a Plan, operation: &'a Operation, call: &RecordedCall) -> Result<Self, Stop> {
        let stop = |what: &str| Stop(ImpossibleKind::Resource, what.to_owned());
        let (kind, name) = Words::read_uid(&call.resource)
            .ok_or_else(|| stop("the record has only a digest of the resource"))?;
        let plain = |known| Self { known, collection: None, id: String::new(), labels: Vec::new() };
        match (kind.as_str(), &operation.resource) {
            ("System", None) if name == operation.system => Ok(plain(plan.words.system(&name))),
            ("Template", None) => Ok(plain(plan.words.template(&name))),
            ("Agent", None) => {
                let agent = crate::task::AgentName::parse(&name)
                    .map_err(|_| stop("the resource is not an agent"))?;
                Ok(plain(Known::clone(&plan.principal(&agent.principal()))))
            }
            ("Resource", Some(rule)) => {
                let rest = name.strip_prefix(&rule.collection);
                let id = rest.and_then(|rest| match rest {
                    "" => Some(""),
                    rest => rest.strip_prefix('/'),
                });
                let id = id.ok_or_else(|| {
                    stop("the operation acts on another collection than in the record")
                })?;
                let mut labels = plan.labels(&rule.collection, id).into_owned();
                let written = call.session.iter().flat_map(|session| &session.written);
                for label in written {
                    if !labels.contains(label) {
                        labels.push(label.clone());
                    }
                }
                let names = labels.iter().map(String::as_str);
                let known = plan.words.resource(&operation.system, &rule.collection, id, names);
                let (collection, id) = (Some(rule.collection.as_str()), id.to_owned());
                Ok(Self { known, collection, id, labels })
            }
            _ => Err(stop("the operation finds its resource in another way than in the record")),
        }
    }
}

/// The chain of a recorded call, with its roles in the bundle.
fn chain_of(
    plan: &Plan,
    call: &RecordedCall,
    definitions: Definitions<'_>,
    same: SameParts,
) -> Result<Vec<Arc<Known>>, Stop> {
    let mut chain = Vec::with_capacity(call.chain.len());
    for one in &call.chain {
        let unknown = || {
            let what = "the roles of the subject follow from claims that the record does not have";
            Stop(ImpossibleKind::Roles, what.to_owned())
        };
        let stated = |roles: &[String]| {
            let declared = &plan.model().roles;
            let held: Vec<&str> = roles
                .iter()
                .map(String::as_str)
                .filter(|role| declared.contains_key(*role))
                .collect();
            Arc::new(plan.words.principal(&one.principal, &held))
        };
        if same.all {
            let roles = one.roles.as_deref().ok_or_else(|| {
                Stop(ImpossibleKind::Roles, "the record does not list all roles".to_owned())
            })?;
            chain.push(stated(roles));
            continue;
        }
        let (Principal::User(subject) | Principal::Service(subject)) = &one.principal else {
            chain.push(plan.principal(&one.principal));
            continue;
        };
        let is_recorded = |known: &Known| {
            one.roles
                .as_ref()
                .is_some_and(|roles| known.roles().eq(roles.iter().map(String::as_str)))
        };
        let with_texts = |of: &Plan, subject: &Arc<Subject>| {
            let mut subject = Subject::clone(subject);
            name_claims(of.model(), &mut subject.claims);
            let subject = Arc::new(subject);
            let principal = match &one.principal {
                Principal::Service(_) => Principal::Service(subject),
                Principal::User(_) | Principal::Agent { .. } => Principal::User(subject),
            };
            let roles = of.roles().roles_of(&principal);
            of.words.principal(&one.principal, &roles)
        };
        let now = with_texts(plan, subject);
        let is_explained = match definitions {
            Definitions::Same => true,
            Definitions::Of(before) => is_recorded(&with_texts(before, subject)),
            Definitions::Unknown => is_recorded(&now),
        };
        if is_explained {
            chain.push(Arc::new(now));
        } else if same.subjects {
            chain.push(stated(one.roles.as_deref().ok_or_else(unknown)?));
        } else {
            return Err(unknown());
        }
    }
    Ok(chain)
}

/// Replaces digests in the claims of a recorded subject by the texts that roles of the bundle test.
pub fn name_claims(model: &Model, claims: &mut BTreeMap<String, Claim>) {
    let mut texts: BTreeMap<String, &str> = BTreeMap::new();
    for test in model.roles.values().flat_map(|members| &members.subjects) {
        if let ClaimTest::Equals(_, text) | ClaimTest::Contains(_, text) = &test.test {
            texts.insert(format!("sha256:{}", hex(&sha256(text.as_bytes()))), text);
        }
    }
    let name = |text: &mut String| {
        if let Some(named) = texts.get(text) {
            *text = (*named).to_owned();
        }
    };
    for claim in claims.values_mut() {
        match claim {
            Claim::Text(text) => name(text),
            Claim::Texts(all) => all.iter_mut().for_each(name),
            Claim::Bool(_) | Claim::Long(_) => {}
        }
    }
}

/// One record that is judged again.
struct Replay<'a> {
    plan: &'a Plan,
    call: &'a RecordedCall,
    operation: &'a Operation,
    prepared: &'a Prepared,
    same: SameParts,
    chain: Vec<Arc<Known>>,
    principals: Vec<Principal>,
    resource: ResourceOfCall<'a>,
    /// Names of the facts that a policy or a check needs and that the record lacks.
    missing: BTreeSet<String>,
}

/// Lowest and highest tier that a call can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TierRange {
    lowest: Tier,
    highest: Tier,
}

/// Labels of a call.
struct LabelsOfCall<'a> {
    /// Labels that it carries, without those of the resource. `None`: some are not known.
    carried: Option<Vec<&'a str>>,
    /// Those that are known.
    certain: Vec<&'a str>,
    /// Labels that the agent remembers.
    remembered: Option<Vec<&'a str>>,
}

impl<'a> Replay<'a> {
    fn run(&mut self) -> Result<ReplayResult, Stop> {
        if let Some(refusal) = self.refusal()? {
            return Ok(self.refused(&refusal));
        }
        let labels = self.labels();
        let destinations = self.destinations();
        let tiers = self.tiers(&labels, destinations.as_deref());
        let arguments = match self.arguments() {
            Ok(arguments) => arguments,
            Err(refusal) => return Ok(self.refused(&refusal)),
        };
        let findings =
            self.judged(&labels, destinations.as_deref(), tiers, arguments.as_deref())?;
        let stage = Stage {
            findings: &findings,
            tiers,
            proof: self.proof(),
            labels: &labels,
            destinations: destinations.as_deref(),
        };
        let chain = self.chain.clone();
        let best = self.settled(findings.tally(self.plan, &chain, true), &stage, true);
        let worst = self.settled(findings.tally(self.plan, &chain, false), &stage, false);
        Ok(if best.answer() == worst.answer() && best.decision.outcome == worst.decision.outcome {
            let (one, two) = (&best.decision, &worst.decision);
            let is_exact = one.reason == two.reason
                && one.kinds == two.kinds
                && one.policies == two.policies
                && one.tier == two.tier
                && one.obligations == two.obligations;
            ReplayResult::Decided { decision: worst, is_exact }
        } else {
            let missing = std::mem::take(&mut self.missing).into_iter().collect();
            ReplayResult::Open { best, worst, missing }
        })
    }

    /// Refusals before judging that follow from the record.
    ///
    /// # Errors
    /// The record does not say whether the call is refused.
    fn refusal(&self) -> Result<Option<RequestRefusal>, Stop> {
        if self.call.is_of_bundle {
            return Ok(None);
        }
        if let Err(refusal) = known(self.operation) {
            return Ok(Some(refusal));
        }
        if self.operation.system == OWN_SYSTEM {
            return Ok(None);
        }
        match self.call.task.as_ref().filter(|task| task.kind != "none") {
            None => self.refusal_without_task(),
            Some(task) => Ok(self.refusal_in_task(task)),
        }
    }

    fn refusal_without_task(&self) -> Result<Option<RequestRefusal>, Stop> {
        let (plan, id) = (self.plan, &self.operation.id);
        let rule = &plan.model().tasks;
        // A policy that reads the history makes an operation depend on it.
        let is_within = |tier: Tier| self.operation.tier <= tier && plan.is_stateless(id, None);
        if rule.optional || rule.taskless_tier.is_some_and(is_within) {
            return Ok(None);
        }
        if plan.is_protocol(self.operation) {
            let what = "the record does not say whether the message only connects to the server";
            return Err(Stop(ImpossibleKind::Facts, what.to_owned()));
        }
        Ok(Some(RequestRefusal::new(ReasonCode::NoTask, format!("`{id}` needs a task"))))
    }

    fn refusal_in_task(&self, task: &RecordedTask) -> Option<RequestRefusal> {
        let plan = self.plan;
        if task.kind != "implicit" && plan.roles().is_implicit(&task.assignee) {
            let what = "the bundle lets the agent work without tasks, and so gives it none";
            return Some(RequestRefusal::new(ReasonCode::OutOfScope, what));
        }
        if plan.template(&task.template).is_none() {
            let what = "the bundle no longer has the template of the task";
            return Some(RequestRefusal::new(ReasonCode::OutOfScope, what));
        }
        None
    }

    fn refused(&self, refusal: &RequestRefusal) -> ReplayResult {
        let mut decision = self.blank();
        decision.reason = refusal.reason;
        decision.message.clone_from(&refusal.message);
        decision.tier = Some(self.operation.tier);
        decision.rules = vec![rules::check("replay")];
        let place = CallPlace::Operation(&self.operation.id);
        let is_softened = self.softens(place, refusal.reason);
        ReplayResult::Decided {
            decision: ReplayedDecision { decision, is_softened },
            is_exact: true,
        }
    }

    fn blank(&self) -> Box<Decision> {
        let mut decision = super::unmade();
        decision.operation.clone_from(&self.operation.id);
        decision.resource.clone_from(&self.call.resource);
        decision.destination_class.clone_from(&self.call.destination_class);
        decision
    }

    fn softens(&self, place: CallPlace<'_>, reason: ReasonCode) -> bool {
        let has_task = self.call.task.as_ref().is_some_and(|task| task.kind != "none");
        let refused =
            RefusedCall { chain: &self.principals, has_task, place, reason, understood: true };
        self.plan.softens(&refused, self.call.now)
    }

    fn labels(&mut self) -> LabelsOfCall<'a> {
        let call = self.call;
        let memory = &self.prepared.memory;
        let session = call.session.as_ref();
        let of_session: Option<Vec<&str>> = match session {
            Some(session) => Some(session.labels.iter().map(String::as_str).collect()),
            None if memory.reads && !self.same.all => None,
            None => Some(Vec::new()),
        };
        let noted = session.map(|session| &session.remembered).filter(|noted| !noted.is_empty());
        let remembered = call.facts.remembered.as_ref().or(noted);
        let remembered: Option<Vec<&str>> = match remembered {
            Some(labels) => Some(labels.iter().map(String::as_str).collect()),
            None if memory.remembers && !self.same.all => None,
            None => Some(Vec::new()),
        };
        let joined: Option<&[&str]> = if memory.joins { remembered.as_deref() } else { Some(&[]) };
        let mut certain: BTreeSet<&str> = call.labels.iter().map(String::as_str).collect();
        certain.extend(of_session.iter().flatten());
        certain.extend(joined.iter().copied().flatten());
        certain.extend(call.facts.session_labels.iter().flatten().map(String::as_str));
        let certain: Vec<&str> = certain.into_iter().collect();
        // The session labels that a policy read include those that joined.
        let is_whole =
            (of_session.is_some() && joined.is_some()) || call.facts.session_labels.is_some();
        LabelsOfCall { carried: is_whole.then(|| certain.clone()), certain, remembered }
    }

    /// The destinations of the call, the worst first. `None`: the bundle may put them into other classes.
    fn destinations(&self) -> Option<Vec<RecordedDestination>> {
        let facts = &self.call.facts;
        if self.operation.destination.is_none() {
            return self.call.destination_class.is_empty().then(Vec::new);
        }
        if !self.same.destinations {
            return None;
        }
        if let Some(worst) = &facts.destination {
            if !worst.is_present {
                return Some(Vec::new());
            }
            let others = facts.other_destinations.iter().cloned();
            return Some([worst.clone()].into_iter().chain(others).collect());
        }
        match self.call.destination_class.as_str() {
            "" => Some(Vec::new()),
            // Other destinations may stand beside the worst one.
            _ => None,
        }
    }

    fn tiers(
        &mut self,
        labels: &LabelsOfCall<'_>,
        destinations: Option<&[RecordedDestination]>,
    ) -> TierRange {
        let (model, operation) = (self.plan.model(), self.operation);
        if self.same.tiers {
            return TierRange { lowest: self.call.tier, highest: self.call.tier };
        }
        if operation.system == OWN_SYSTEM {
            return TierRange { lowest: operation.tier, highest: operation.tier };
        }
        let classified = classified(destinations.unwrap_or_default());
        let carried = Carried::of(None, &self.resource.labels, &labels.certain);
        let lowest = carried.tier(model, operation, &classified);
        let mut highest = lowest;
        if destinations.is_none() && operation.destination.is_some() {
            highest = model.raises.classes.values().copied().fold(highest, Tier::max);
        }
        if labels.carried.is_none() {
            highest = model.raises.labels.values().copied().fold(highest, Tier::max);
        }
        let raise_after = model.denials.map(|rule| rule.raise_after);
        let (lowest, highest) = match (raise_after, &self.call.session) {
            (None, _) => (lowest, highest),
            (Some(most), Some(session)) if session.denials >= most => {
                (lowest.next(), highest.next())
            }
            (Some(_), Some(_)) => (lowest, highest),
            // Without a task there is no run of denials.
            (Some(_), None) if self.call.task.is_none() => (lowest, highest),
            (Some(_), None) => (lowest, highest.next()),
        };
        if lowest != highest {
            self.missing.insert("tier".to_owned());
        }
        TierRange { lowest, highest }
    }

    /// The arguments as the bundle reads them. `None`: the record does not have enough of them.
    ///
    /// # Errors
    /// The bundle does not take these arguments.
    fn arguments(&mut self) -> Result<Option<Arc<Arguments>>, RequestRefusal> {
        let recorded = &self.call.arguments;
        let Some(json) = &recorded.json else { return Ok(None) };
        let schema = &self.prepared.arguments;
        let read = schema.parse(json).and_then(|sent| {
            let coerced = coerced(&sent, &self.operation.origins.coerces);
            schema.take_coerced(&sent, &coerced)
        });
        match read {
            Ok(arguments) => Ok(Some(Arc::new(arguments))),
            // Digests need not have the declared form of the texts that they stand for.
            Err(_) if self.same.operation || !recorded.masked.is_empty() => {
                if !self.same.operation {
                    self.missing.insert("input (digests)".to_owned());
                }
                Ok(None)
            }
            Err(error) => Err(resolve::bad(error.to_string())),
        }
    }

    fn proof(&self) -> Option<RecordedProof> {
        let (recorded, checks) = (&self.call.facts.proof, &self.call.checks);
        match (recorded, checks) {
            (Some(proof), _) => Some(proof.clone()),
            (None, Some(checks)) => Some(RecordedProof {
                method: String::new(),
                is_bound: checks.satisfied.iter().any(|kind| kind == "bound_token"),
                age: checks.age.unwrap_or(AGELESS),
                acr: String::new(),
            }),
            (None, None) => None,
        }
    }

    /// Kinds that people or the subject's login met, without those that follow from the proof and the tier.
    fn met(&self) -> Vec<String> {
        const OF_PROOF: [&str; 3] = ["bound_token", "fresh_credential", "confidence"];
        let all = self.call.checks.iter().flat_map(|checks| &checks.satisfied);
        all.filter(|kind| !OF_PROOF.contains(&kind.as_str())).cloned().collect()
    }

    /// The proof and the confidence as a decision reads them.
    fn facts<'f>(&'f self, proof: Option<&'f RecordedProof>, met: &'f [String]) -> Facts<'f> {
        let proof = CallerProof {
            method: ProofMethod::Relayed,
            bound: proof.is_some_and(|proof| proof.is_bound),
            age: proof.map(|proof| proof.age).filter(|age| *age < AGELESS),
            acr: "",
            satisfied: met,
        };
        Facts {
            enforcer: &self.call.enforcer,
            chain: &self.principals,
            proof,
            confidence: self.call.checks.as_ref().map_or(0, |checks| checks.confidence),
            task: None,
            subject_proof: None,
            history: None,
            words: crate::task::WordRecords::default(),
            literal_key: None,
            value_key: None,
            endorsed: &[],
            recipient_lists: None,
            granted: None,
            breakglass: None,
        }
    }

    /// Results of all policies.
    fn judged(
        &mut self,
        labels: &LabelsOfCall<'_>,
        destinations: Option<&[RecordedDestination]>,
        tiers: TierRange,
        arguments: Option<&Arguments>,
    ) -> Result<Findings<'a>, Stop> {
        let (plan, call) = (self.plan, self.call);
        let keys = self.prepared.slice.keys;
        let asks = self.prepared.slice.store;
        let (chain, resource) = (self.chain.clone(), self.resource.known.clone());
        let store = StoreFacts::new(asks, &self.prepared.base, &chain, &resource);
        let tier = (tiers.lowest == tiers.highest).then_some(tiers.lowest);
        let (covering, are_exceptions_known) = self.exceptions(keys, tier);
        let met = self.met();
        let proof = self.proof();
        let satisfied = match (tier, &call.checks) {
            (Some(tier), Some(_)) => Some(satisfied(plan, &self.facts(proof.as_ref(), &met), tier)),
            _ => None,
        };
        let uncleared = |class: &str| -> Option<Vec<&str>> {
            let carried = labels.carried.as_ref()?;
            let carried = Carried::of(None, &self.resource.labels, carried);
            Some(carried.uncleared_labels(plan.model(), class))
        };
        let nowhere = [RecordedDestination {
            class: NO_DESTINATION.to_owned(),
            is_trusted: Some(false),
            host: Some(RecordedText::Clear(String::new())),
            ..RecordedDestination::default()
        }];
        let placed: Option<&[RecordedDestination]> = match destinations {
            Some([]) => Some(&nowhere),
            other => other,
        };
        let uncleared_labels: Vec<Option<Vec<&str>>> = match placed {
            Some(all) if all.iter().any(|one| one.is_present) => {
                all.iter().map(|one| uncleared(&one.class)).collect()
            }
            // Without a destination nothing is uncleared.
            Some(_) => vec![Some(Vec::new())],
            None => vec![None],
        };
        let session =
            call.session.as_ref().zip(labels.carried.as_deref()).map(|(session, labels)| {
                PartialSession { labels, sources: session.sources, calls: session.calls }
            });
        let task = call.task.as_ref().map(|task| {
            (task.kind != "none").then(|| PartialTask {
                kind: &task.kind,
                template: &task.template,
                purpose: RecordedText::partial(task.purpose.as_ref()),
                depth: task.depth,
                age: task.age,
            })
        });
        let sequences = self.names(
            &call.sequences,
            call.facts.has_sequences,
            self.same.sequences,
            |model, name| model.sequences.contains_key(name),
        );
        let budgets =
            self.names(&call.budgets, call.facts.has_budgets, self.same.budgets, |model, name| {
                model.budgets.contains_key(name)
            });
        let proof = call.facts.proof.as_ref().map(|proof| PartialProof {
            method: &proof.method,
            is_bound: proof.is_bound,
            age: proof.age,
            acr: &proof.acr,
        });
        let with = |exceptions: Option<&'_ [&'_ str]>| -> Vec<RecordedJudge<'_>> {
            let all = placed.map_or(1, <[_]>::len);
            (0..all)
                .map(|at| {
                    let one = placed.and_then(|placed| placed.get(at));
                    let facts = PartialFacts {
                        chain: &chain,
                        has_subject: self.has_subject(),
                        input: arguments.map(|arguments| PartialInput {
                            values: arguments.values(),
                            masked: &call.arguments.masked,
                        }),
                        tier: tier.map(|tier| i64::from(tier as u8)),
                        task: task.or(Some(None)),
                        subject_proof: Some(&call.subject_proof),
                        enforcer: &call.enforcer,
                        confidence: call.checks.as_ref().map(|checks| i64::from(checks.confidence)),
                        destination: one.map(|one| PartialDestination {
                            class: &one.class,
                            is_present: one.is_present,
                            is_trusted: self.trusted(one, tier),
                            host: RecordedText::partial(one.host.as_ref()),
                        }),
                        origins: call.facts.origins.filter(|_| self.same.origins),
                        unknown_literals: call.facts.unknown_literals.filter(|_| self.same.origins),
                        proof,
                        satisfied: satisfied.as_deref(),
                        time: call.now.0,
                        session,
                        uncleared_labels: uncleared_labels.get(at).and_then(Option::as_deref),
                        sequences: sequences.as_deref(),
                        budgets: budgets.as_deref(),
                        remembered: labels.remembered.as_deref(),
                        exceptions,
                    };
                    RecordedJudge::new(
                        &plan.words,
                        &store,
                        plan.words.recorded_context(keys, &facts),
                    )
                })
                .collect()
        };
        let active = are_exceptions_known.then_some(covering.active.as_slice());
        let judges = with(active);
        let without = (!covering.active.is_empty()).then(|| with(Some(&[])));
        let expired = (!covering.with_expired.is_empty())
            .then(|| with(Some(covering.with_expired.as_slice())));
        let mut findings = Findings::default();
        let mut missing = BTreeSet::new();
        let modes = &plan.model().modes;
        for (index, rule) in self.prepared.slice.policies() {
            let observing = rule.is_observed.then(|| plan.policies.get(index)).flatten();
            // It changes no answer.
            if observing.is_some_and(|placed| placed.is_observed(modes, call.now)) {
                continue;
            }
            let times = if rule.per_principal { chain.len() } else { 1 };
            for position in 0..times {
                let finding = combined(&judges, rule, position)?;
                if matches!(finding, Finding::Open { .. }) {
                    missing
                        .extend(judges.iter().flat_map(|judge| judge.unknown().names(rule.keys)));
                }
                let reads = rule.keys.contains(Key::Exception);
                let other = |judges: &Option<Vec<RecordedJudge<'_>>>| match judges {
                    Some(judges) if reads => combined(judges, rule, position).map(Some),
                    _ => Ok(None),
                };
                let is_used = other(&without)?.is_some_and(|without| without != finding);
                let is_missing = match (&finding, other(&expired)?) {
                    (Finding::Known(verdict), Some(Finding::Known(with))) => {
                        is_missed(rule.effect, verdict, &with)
                    }
                    _ => false,
                };
                let whom = if rule.per_principal { Some(position) } else { None };
                let positions = whom.map_or(0..chain.len(), |one| one..one.saturating_add(1));
                if let Some(placed) = plan.policies.get(index) {
                    if is_used {
                        findings.effects.note_used(plan, placed, &covering);
                    }
                    if is_missing {
                        findings.effects.note_missed(plan, placed, &covering, positions);
                    }
                    if finding != Finding::Known(Verdict::NotFired) {
                        findings.all.push((index, whom, finding));
                    }
                }
            }
        }
        self.missing.extend(missing);
        Ok(findings)
    }

    /// `context.destination.trusted`: it depends on the tier.
    fn trusted(&self, one: &RecordedDestination, tier: Option<Tier>) -> Option<bool> {
        let is_same = tier == Some(self.call.tier) || !one.is_present;
        one.is_trusted.filter(|_| is_same)
    }

    fn has_subject(&self) -> bool {
        self.principals.iter().any(|one| !matches!(one, Principal::Agent { .. }))
    }

    /// Names of rules over the history. `None`: the bundle may have found others.
    fn names<'n>(
        &self,
        recorded: &'n [String],
        was_read: bool,
        is_same: bool,
        is_declared: impl Fn(&Model, &str) -> bool,
    ) -> Option<Vec<&'n str>> {
        if !is_same || (!was_read && recorded.is_empty() && !self.same.all) {
            return None;
        }
        let model = self.plan.model();
        Some(recorded.iter().map(String::as_str).filter(|name| is_declared(model, name)).collect())
    }

    /// Exceptions that cover the call, and whether they are all.
    fn exceptions(&self, keys: Keys, tier: Option<Tier>) -> (CoveringExceptions<'a>, bool) {
        let none = || CoveringExceptions::default();
        if !keys.contains(Key::Exception) {
            return (none(), true);
        }
        let (Some(tier), Some(caller), Some(principal)) =
            (tier, self.chain.last(), self.principals.last())
        else {
            return (none(), false);
        };
        let on =
            (self.resource.collection, self.resource.id.as_str(), self.resource.labels.as_slice());
        let mut covering =
            covering_of(self.plan, principal, caller, self.operation, on, (tier, self.call.now));
        if covering.active.is_empty() {
            let recorded = self.call.facts.exceptions.as_ref();
            match recorded {
                Some(names) if names.iter().any(|name| name == BREAKGLASS) => {
                    covering.active.push(BREAKGLASS);
                }
                Some(_) => {}
                None => {
                    let all = self.prepared.slice.policies();
                    let mut placed = all.filter_map(|(index, _)| self.plan.policies.get(index));
                    let accepts = placed
                        .any(|placed| placed.policy.exceptions().any(|name| name == BREAKGLASS));
                    return (covering, !accepts);
                }
            }
        }
        (covering, true)
    }

    /// The answer of one of the two judgements.
    fn settled(
        &mut self,
        tally: Tally<'_>,
        stage: &Stage<'_, 'a>,
        is_best: bool,
    ) -> ReplayedDecision {
        let (plan, call, operation) = (self.plan, self.call, self.operation);
        let tier = if is_best { stage.tiers.lowest } else { stage.tiers.highest };
        let met = self.met();
        let mut unmet = requirements(plan, &self.facts(stage.proof.as_ref(), &met), tier);
        if tier >= Tier::High && call.subject_proof == SubjectProof::Asserted.as_str() {
            unmet.hopeless.push(UNPROVED_SUBJECT);
        }
        if call.checks.is_none() && !unmet.is_met_by_step_up() {
            self.missing.insert("proof of the caller".to_owned());
            if is_best {
                unmet.clear_kinds();
            }
        }
        let counted = self.has_other_uses(stage.findings);
        let bounds = self.bounds(tier, is_best, counted);
        let all: Vec<&str> = self.obligations(stage.findings).collect();
        let supported: Vec<&str> = match is_best {
            true => {
                let unsupported =
                    call.checks.as_ref().and_then(|checks| checks.unsupported.as_deref());
                all.into_iter().filter(|one| Some(*one) != unsupported).collect()
            }
            false => call.obligations.iter().map(String::as_str).collect(),
        };
        let classified = classified(stage.destinations.unwrap_or_default());
        let carried = Carried::of(None, &self.resource.labels, &stage.labels.certain);
        let tier_facts = TierFacts { tier, destinations: &classified, carried };
        let stated = StatedRules { plan, operation, tier: tier_facts };
        let mut decision = self.blank();
        decision.tier = Some(tier);
        decision.exceptions = stage.findings.effects.names();
        tally.settle(stated, &unmet, &bounds, &stage.findings.effects, &supported, &mut decision);
        if decision.reason == ReasonCode::EnforcerRefused {
            self.missing.insert("obligations that the enforcer can carry out".to_owned());
        }
        let place = CallPlace::Judged { system: &operation.system, tier };
        let is_softened =
            decision.outcome != Outcome::Permit && self.softens(place, decision.reason);
        ReplayedDecision { decision, is_softened }
    }

    /// Obligations of the permits that may fire.
    fn obligations<'f>(&'f self, findings: &'f Findings<'a>) -> impl Iterator<Item = &'f str> {
        let placed = findings.all.iter().filter_map(|(index, ..)| self.plan.policies.get(*index));
        let of_permits = placed.flat_map(|placed| &placed.policy.obligations).map(String::as_str);
        of_permits.chain(findings.effects.obligations())
    }

    /// Bounds of the task, and budgets, as the record has them.
    ///
    /// Args: `counts_uses`: a permit counts its uses, and the record does not have their number.
    fn bounds(&mut self, tier: Tier, is_best: bool, counts_uses: bool) -> TaskBounds<'a> {
        let call = self.call;
        let is_in_task = call.task.as_ref().is_some_and(|task| task.kind != "none");
        let Some(checks) = &call.checks else { return self.older_bounds(is_best, is_in_task) };
        let mut refused = checks.refused;
        let is_budget =
            matches!(refused, Some(ReasonCode::BudgetExceeded | ReasonCode::WindowFull));
        if !self.same.budgets && (is_budget || self.has_denying_budget()) {
            self.missing.insert("budgets".to_owned());
            refused = match is_best {
                true => refused.filter(|_| !is_budget),
                false => refused.or(Some(ReasonCode::BudgetExceeded)),
            };
        }
        let is_other_tier = tier != call.tier;
        if is_in_task && (is_other_tier || !self.same.resources) {
            self.missing.insert("bounds of the task".to_owned());
            refused = match is_best {
                true if tier <= call.tier => {
                    refused.filter(|reason| *reason != ReasonCode::OutOfScope)
                }
                true => refused,
                false if tier < call.tier && self.same.resources => refused,
                false => refused.or(Some(ReasonCode::OutOfScope)),
            };
        }
        if counts_uses {
            self.missing.insert("uses of a permit".to_owned());
            refused = match is_best {
                true => refused.filter(|reason| *reason != ReasonCode::UsesExhausted),
                false => refused.or(Some(ReasonCode::UsesExhausted)),
            };
        }
        self.bounds_of(refused, &checks.held)
    }

    /// Whether a permit that may fire counts its uses, and did not determine the recorded outcome.
    fn has_other_uses(&self, findings: &Findings<'a>) -> bool {
        let placed = findings.all.iter().filter_map(|(index, ..)| self.plan.policies.get(*index));
        !self.call.is_of_bundle
            && placed.filter(|placed| placed.policy.max_uses().is_some()).any(|placed| {
                self.call.outcome != Outcome::Permit
                    || !self.call.policies.contains(&placed.policy.id)
            })
    }

    /// Bounds of the task where an older version wrote the record.
    fn older_bounds(&mut self, is_best: bool, is_in_task: bool) -> TaskBounds<'a> {
        let call = self.call;
        let is_open = call.outcome != Outcome::Permit && (is_in_task || self.has_denying_budget());
        if is_open {
            self.missing.insert("bounds of the task".to_owned());
        }
        self.bounds_of((is_open && !is_best).then_some(ReasonCode::OutOfScope), &[])
    }

    fn bounds_of(&self, refused: Option<ReasonCode>, held: &'a [String]) -> TaskBounds<'a> {
        let mut bounds = TaskBounds::default();
        let template = self.call.task.as_ref().map_or("", |task| task.template.as_str());
        if let Some(reason) = refused {
            let what = "as in the record".to_owned();
            bounds.refuse(BoundRefusal::new(reason, what, rules::check("scope")));
        }
        if !held.is_empty() {
            bounds.held.push(Hold {
                kinds: held.iter().map(String::as_str).collect(),
                task: template,
                message: "held by the scope of the task, as in the record".to_owned(),
                rule: rules::check("scope"),
            });
        }
        bounds
    }

    fn has_denying_budget(&self) -> bool {
        let model = self.plan.model();
        let built_in = model.is_built_in(self.operation);
        let matches = |budget: &crate::model::Budget| {
            budget.denies && budget.of.iter().any(|event| event.matches(self.operation, built_in))
        };
        model.budgets.values().any(matches)
    }
}

/// Intermediate results of one replay.
struct Stage<'s, 'a> {
    findings: &'s Findings<'a>,
    tiers: TierRange,
    proof: Option<RecordedProof>,
    labels: &'s LabelsOfCall<'a>,
    destinations: Option<&'s [RecordedDestination]>,
}

/// Results of the policies of a slice: those that fired, failed or are open.
#[derive(Default)]
struct Findings<'a> {
    /// Position of the policy, position of the principal if the policy is judged for each, and result.
    all: Vec<(usize, Option<usize>, Finding)>,
    effects: ExceptionEffects<'a>,
}

impl Findings<'_> {
    /// The results as a decision counts them, with the best or the worst results of the open policies.
    fn tally<'t>(&self, plan: &'t Plan, chain: &'t [Arc<Known>], is_best: bool) -> Tally<'t> {
        let mut tally = Tally::new(chain);
        for (index, whom, finding) in &self.all {
            let Some(placed) = plan.policies.get(*index) else { continue };
            let verdict = match finding {
                Finding::Known(verdict) => verdict.clone(),
                Finding::Open { never_false, can_fail } => match (placed.policy.effect, is_best) {
                    (PolicyEffect::Permit, true) => Verdict::Fired,
                    (PolicyEffect::Permit, false) => Verdict::NotFired,
                    (PolicyEffect::Forbid, true) if *never_false => Verdict::Fired,
                    (PolicyEffect::Forbid, true) => Verdict::NotFired,
                    // No step-up lifts a forbid that fails.
                    (PolicyEffect::Forbid, false)
                        if *can_fail && placed.policy.stepup.is_some() =>
                    {
                        Verdict::Failed("it depends on missing facts".to_owned())
                    }
                    (PolicyEffect::Forbid, false) => Verdict::Fired,
                },
            };
            tally.count(placed, *whom, verdict);
        }
        tally
    }
}

/// The result of a rule over all destinations: the worst.
fn combined(
    judges: &[RecordedJudge<'_>],
    rule: &Rule,
    position: usize,
) -> Result<Finding, Unready> {
    let mut worst: Option<Verdict> = None;
    let mut open: Option<(bool, bool)> = None;
    for judge in judges {
        match judge.judge(rule, position)? {
            Finding::Known(verdict) => {
                worst = Some(match worst {
                    Some(before) => super::verdict::worse(rule.effect, before, verdict),
                    None => verdict,
                });
            }
            Finding::Open { never_false, can_fail } => {
                let (before, failing) = open.unwrap_or_default();
                open = Some((before || never_false, failing || can_fail));
            }
        }
    }
    Ok(match (worst, rule.effect, open) {
        (Some(verdict), _, None) => Finding::Known(verdict),
        // One destination is enough.
        (Some(verdict @ Verdict::NotFired), PolicyEffect::Permit, _)
        | (Some(verdict @ Verdict::Failed(_)), _, _)
        | (Some(verdict @ Verdict::Fired), PolicyEffect::Forbid, Some((_, false))) => {
            Finding::Known(verdict)
        }
        (Some(Verdict::Fired), PolicyEffect::Forbid, Some((_, can_fail))) => {
            Finding::Open { never_false: true, can_fail }
        }
        (_, _, Some((never_false, can_fail))) => Finding::Open { never_false, can_fail },
        (None, _, None) => Finding::Open { never_false: false, can_fail: true },
    })
}

/// Destinations as the tier and the rules see them.
fn classified(destinations: &[RecordedDestination]) -> SmallVec<[ClassifiedDestination<'_>; 2]> {
    let present = destinations.iter().filter(|one| one.is_present);
    present
        .map(|one| ClassifiedDestination {
            class: &one.class,
            canonical: String::new(),
            host: String::new(),
        })
        .collect()
}
