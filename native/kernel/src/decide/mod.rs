//! One decision: a pure function of the plan, the verified facts, the request and the time.
//!
//! Resolving stops at the first failure; judging runs every check, and the worst answer wins: deny over step-up over
//! permit. Of several denials the first in [`ReasonCode`]'s order is reported. Every error denies.

mod aliases;
mod candidates;
mod could;
mod definitions;
mod exceptions;
mod granted;
mod literals;
mod located;
mod observed;
mod origin;
mod outlook;
mod recorded;
mod replay;
mod resolve;
mod rules;
mod split;
mod step_up;
mod values;
mod verdict;

use std::sync::Arc;

use authz_base::principal::MAX_CHAIN;

use crate::decision::{
    Decision, Facts, Given, Outcome, Principal, ProofMethod, ReasonCode, Request, Time, Verdict,
};
use crate::destinations::ClassifiedDestination;
use crate::evaluate::{CallerFacts, ContextFacts, Judge, Known, StoreFacts, Unready};
use crate::history::{Carried, HistoryChanges, Holder, MAX_ENTRIES, Run, SessionHistory, Spends};
use crate::json;
use crate::mcp::{ServerTask, Traffic};
use crate::mode::may_soften;
use crate::model::{Operation, Tier};
use crate::plan::{Plan, Prepared};
use crate::schema::{Key, Keys, OWN_SYSTEM};
use crate::task::SubjectProof;

pub use candidates::{CandidateError, CandidateOrigin, CandidateValue, origin_of_candidate};
pub use could::Prospects;
pub(crate) use could::Weighed;
pub use definitions::Definitions;
use exceptions::{CoveringExceptions, ExceptionEffects, Judges};
use granted::GrantCover;
use located::BoundRefusal;
use observed::ObservedResults;
use origin::ValueFacts;
pub use outlook::{Outlook, OutlookCondition};
use recorded::OtherDestination;
pub use replay::{
    ImpossibleKind, RecordedArguments, RecordedCall, RecordedCallFacts, RecordedChecks,
    RecordedDestination, RecordedPrincipal, RecordedProof, RecordedSession, RecordedTask,
    RecordedText, ReplayResult, ReplayedDecision, name_claims, replay,
};
use resolve::Resolved;
use split::Chosen;
pub use values::TaskVouchers;
use verdict::{StatedRules, Tally};

/// The effective tier of a call, and the facts that may have raised it.
#[derive(Clone, Copy, Debug)]
struct TierFacts<'a> {
    tier: Tier,
    destinations: &'a [ClassifiedDestination<'a>],
    carried: Carried<'a>,
}

/// Age of a credential that does not say when it was issued: as old as can be, without overflow in policies.
const AGELESS: i64 = 1 << 53;

/// Requirement of high tiers.
const UNPROVED_SUBJECT: &str = "a subject that is proved, not asserted";

/// Decides a request.
///
/// Args:
/// * `facts`: what evidence proved; `now`: the time, never read from a clock.
///
/// Returns a decision in every case: each failure denies with a reason of its own. A decision is large, so callers do not move
/// it.
#[must_use]
pub fn decide(plan: &Plan, facts: &Facts<'_>, request: &Request<'_>, now: Time) -> Box<Decision> {
    run(plan, facts, request, now, false)
}

/// Decides a request, and says of every policy what came of it for each principal.
#[must_use]
pub fn decide_traced(
    plan: &Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
    now: Time,
) -> Box<Decision> {
    run(plan, facts, request, now, true)
}

fn run(
    plan: &Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
    now: Time,
    traced: bool,
) -> Box<Decision> {
    // Within a session time never goes back, also if nodes with different clocks decide.
    let now = facts.history.map_or(now, |view| view.now(now));
    let mut decision = unmade();
    if let Err(RequestRefusal { reason, message, understood }) =
        steps(plan, facts, request, now, traced, &mut decision)
    {
        decision.outcome = Outcome::Deny;
        decision.reason = reason;
        decision.message = message;
        let read = decision.arguments_digest.is_some();
        decision.understood = understood && (read || is_readable(request));
        decision.is_judged = false;
        decision.rules = vec![rules::of_refusal(plan, facts, request, reason)];
    }
    decision.server_call =
        request.server_task == ServerTask::Begins && decision.outcome == Outcome::Permit;
    decision
}

/// A decision before its first step: a denial.
fn unmade() -> Box<Decision> {
    Box::new(Decision {
        outcome: Outcome::Deny,
        reason: ReasonCode::Unavailable,
        kinds: Vec::new(),
        policies: Vec::new(),
        places: Vec::new(),
        policy_digests: Vec::new(),
        rules: Vec::new(),
        controls: Vec::new(),
        obligations: Vec::new(),
        own_obligations: Vec::new(),
        operation: String::new(),
        tier: None,
        resource: String::new(),
        destination_class: String::new(),
        destinations: Vec::new(),
        arguments_digest: None,
        arguments: None,
        without_permit: Vec::new(),
        message: String::new(),
        shown_reason: None,
        charges: Vec::new(),
        redeems: None,
        uncleared_labels: Vec::new(),
        sequences: Vec::new(),
        budgets: Vec::new(),
        exceptions: Vec::new(),
        breakglass: None,
        passage: HistoryChanges::default(),
        denial: HistoryChanges::default(),
        origins: None,
        facts: None,
        values: None,
        server_call: false,
        step_up: None,
        observed: Vec::new(),
        trace: Vec::new(),
        understood: true,
        is_judged: true,
    })
}

/// Refuses a task in which nothing may be done now, or not by the caller: what stands before anything that `mode` could
/// soften.
///
/// # Errors
/// The reason code, and the message.
pub fn standing(facts: &Facts<'_>, now: Time) -> Result<(), (ReasonCode, String)> {
    located::standing(facts, "", now).map_err(|refusal| (refusal.reason, refusal.message))
}

/// Why a step before judging stopped.
#[derive(Debug)]
pub(crate) struct RequestRefusal {
    reason: ReasonCode,
    message: String,
    understood: bool,
}

impl RequestRefusal {
    pub(crate) fn new(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), understood: true }
    }

    /// The request was not read whole, or could be read in another way.
    fn unread(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self { understood: false, ..Self::new(reason, message) }
    }
}

impl From<Unready> for RequestRefusal {
    fn from(unready: Unready) -> Self {
        Self::new(
            ReasonCode::Unavailable,
            format!("the facts have no form that policies can read: {}", unready.0),
        )
    }
}

fn steps(
    plan: &Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
    now: Time,
    traced: bool,
    decision: &mut Decision,
) -> Result<(), RequestRefusal> {
    if facts.chain.is_empty() {
        return Err(nobody(plan, facts, request, now, decision));
    }
    if facts.chain.len() > MAX_CHAIN {
        return Err(RequestRefusal::new(
            ReasonCode::TooDeep,
            format!(
                "the chain has {} principals, at most {MAX_CHAIN} are allowed",
                facts.chain.len()
            ),
        ));
    }
    located::standing(facts, request.operation, now)?;
    let (operation, prepared, resolved) = named(plan, facts, request, now, decision)?;
    declared(plan, request)?;
    located::locate(plan, facts, operation, resolved.traffic)?;
    located::labels(plan, facts, request)?;
    located::server_task(facts, request, operation)?;
    let grant = granted::covering(facts, operation, &resolved, decision)?;
    judge(plan, facts, request, now, traced, operation, prepared, &resolved, grant, decision)
}

/// The requested operation, and its resource.
fn named<'a>(
    plan: &'a Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
    now: Time,
    decision: &mut Decision,
) -> Result<(&'a Operation, &'a Prepared, Resolved<'a>), RequestRefusal> {
    let Chosen { operation, prepared, arguments } = split::choose(plan, request)?;
    operation.id.clone_into(&mut decision.operation);
    decision.tier = Some(operation.tier);
    known(operation)?;
    let arguments = match arguments {
        Some(arguments) => arguments,
        None => split::read(plan, (operation, prepared), request)?,
    };
    let resolved =
        resolve::resolve(plan, operation, prepared, arguments, facts, request, now, decision)?;
    Ok((operation, prepared, resolved))
}

/// Refuses an operation that nobody has looked at as it is now.
fn known(operation: &Operation) -> Result<(), RequestRefusal> {
    if !operation.reviewed {
        return Err(RequestRefusal::new(
            ReasonCode::UnreviewedOperation,
            format!("`{}` has no `classify` rule, or nobody accepted its tool", operation.id),
        ));
    }
    if operation.drifted {
        return Err(RequestRefusal::new(
            ReasonCode::CatalogDrift,
            format!("the tool of `{}` is not the one that was reviewed", operation.id),
        ));
    }
    Ok(())
}

/// Refuses labels that the bundle does not have.
fn declared(plan: &Plan, request: &Request<'_>) -> Result<(), RequestRefusal> {
    let known = &plan.model().labels;
    if request.labels.iter().all(|label| known.contains_key(*label)) {
        return Ok(());
    }
    Err(RequestRefusal::unread(
        ReasonCode::BadInput,
        "`labels` has one that the bundle does not have",
    ))
}

/// A request of nobody. It is read all the same: where it would only be noted, it must still be fit to be let through.
fn nobody(
    plan: &Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
    now: Time,
    decision: &mut Decision,
) -> RequestRefusal {
    let is_fit = |refusal: &RequestRefusal| refusal.understood && may_soften(refusal.reason);
    let understood = named(plan, facts, request, now, decision).err().as_ref().is_none_or(is_fit);
    let refusal = RequestRefusal::new(ReasonCode::NoCredential, "nobody acts: the chain is empty");
    RequestRefusal { understood, ..refusal }
}

/// Whether the arguments have one reading, for any operation.
fn is_readable(request: &Request<'_>) -> bool {
    match request.arguments {
        Given::Read(_) => true,
        Given::Json(bytes) => {
            bytes.is_empty() || json::parse(bytes, json::Limits::default()).is_ok()
        }
    }
}

/// Facts that policies read of the caller, its task and the time: those that are known before a request is made.
fn caller_facts<'a>(facts: &Facts<'a>, chain: &'a [Arc<Known>], now: Time) -> CallerFacts<'a> {
    let subject = has_subject(facts);
    CallerFacts {
        depth: i64::try_from(chain.len()).unwrap_or(i64::MAX),
        chain,
        subject,
        task: facts.task.and_then(|view| located::facts_of(view, now)),
        subject_proof: located::subject_proof(facts, subject),
        enforcer: facts.enforcer,
        method: method(facts),
        bound: facts.proof.bound,
        age: facts.proof.age.map_or(AGELESS, |age| age.clamp(0, AGELESS)),
        acr: facts.proof.acr,
        time: now.0,
    }
}

#[expect(clippy::too_many_arguments, reason = "one call, and each is another thing")]
fn judge(
    plan: &Plan,
    facts: &Facts<'_>,
    request: &Request<'_>,
    now: Time,
    traced: bool,
    operation: &Operation,
    prepared: &Prepared,
    resolved: &Resolved<'_>,
    grant: GrantCover<'_>,
    decision: &mut Decision,
) -> Result<(), RequestRefusal> {
    let words = &plan.words;
    let chain: smallvec::SmallVec<[Arc<Known>; 4]> =
        facts.chain.iter().map(|principal| plan.principal(principal)).collect();
    located::recalled(facts, request, prepared)?;
    let memory = facts.history.filter(|_| prepared.memory.remembers).into_iter();
    let memory = memory.flat_map(|view| view.remembered(now)).map(|(label, _)| label);
    let mut remembered: Vec<&str> = memory.collect();
    remembered.sort_unstable();
    remembered.dedup();
    // Where no data goes out, remembered labels are only told to policies.
    let joined = if prepared.memory.joins { remembered.as_slice() } else { &[] };
    let along: Vec<&str> = joined.iter().chain(request.labels).copied().collect();
    let carried = Carried::of(facts.history, &resolved.labels, &along);
    let tier = carried.tier(plan.model(), operation, &resolved.destinations);
    let rule = plan.model().denials.filter(|_| operation.system != OWN_SYSTEM);
    let run = rule.and_then(|rule| Run::new(rule, facts.history, facts.task));
    let tier = run.map_or(tier, |run| run.tier(tier));
    decision.tier = Some(tier);
    let satisfied = satisfied(plan, facts, tier);
    let keys = prepared.slice.keys;
    let uncleared_labels = |class: &str| carried.uncleared_labels(plan.model(), class);
    let subject = has_subject(facts);
    let (worst, others) = match resolved.destinations.split_first() {
        Some((worst, others)) => (Some(worst), others),
        None => (None, [].as_slice()),
    };
    let completed = match (facts.history, facts.task) {
        (Some(view), Some(task)) => {
            let subject = resolved.subject(task);
            plan.sequences.completed(&prepared.memory.named, subject, view, now)
        }
        _ => smallvec::SmallVec::new(),
    };
    let spends = match (facts.history, facts.task) {
        (Some(view), Some(task)) => {
            let named = &prepared.memory.budgets;
            plan.budgets.spend(named, resolved.subject(task), view, now)
        }
        _ => Spends::default(),
    };
    let of_worst = worst.map_or_else(Vec::new, |placed| uncleared_labels(placed.class));
    let of_others: Vec<Vec<&str>> =
        others.iter().map(|placed| uncleared_labels(placed.class)).collect();
    let covering = match (keys.contains(Key::Exception), chain.last()) {
        (true, Some(caller)) => {
            exceptions::covering(plan, facts, caller, operation, resolved, (tier, now))
        }
        _ => CoveringExceptions::default(),
    };
    let values = ValueFacts::of((plan, facts, request), operation, resolved, keys, (now, tier));
    decision.origins = keys.contains(Key::Origins).then_some(values.origins);
    // Every fact is listed, so that a new one does not compile until it has a value here.
    let seen = ContextFacts {
        caller: caller_facts(facts, &chain, now),
        input: resolved.arguments.values(),
        tier: i64::from(tier as u8),
        confidence: i64::from(facts.confidence.min(100)),
        class: resolve::class(worst),
        host: worst.map_or("", |placed| placed.host.as_str()),
        destination: worst.is_some(),
        trusted: resolved.trusted.is_some_and(|most| tier <= most),
        origins: values.origins,
        unknown_literals: values.unknown_literals,
        satisfied: &satisfied,
        session: facts.history.map(|view| view.session),
        along: &along,
        uncleared_labels: &of_worst,
        remembered: &remembered,
        sequences: &completed,
        budgets: &spends.exceeded,
        exceptions: &covering.active,
    };
    let elsewhere = others.iter().zip(&of_others).map(|(placed, labels)| OtherDestination {
        class: resolve::class(Some(placed)),
        host: placed.host.as_str(),
        uncleared_labels: labels,
    });
    decision.facts = Some(Box::new(recorded::recorded(keys, &seen, elsewhere)));
    let asks = prepared.slice.store;
    let store = StoreFacts::new(asks, &prepared.base, &chain, &resolved.resource);
    // What reads the destination is judged for each; the rest once.
    let by_destination =
        |keys: Keys| keys.contains(Key::Destination) || keys.contains(Key::UnclearedLabels);
    let judges_with = |exceptions| {
        let seen = ContextFacts { exceptions, ..seen };
        let judge = |seen| Judge::new(words, keys, &store, seen);
        let others = others.iter().zip(&of_others).filter(|_| by_destination(keys));
        let elsewhere = others.map(|(placed, uncleared_labels)| {
            let (class, host) = (resolve::class(Some(placed)), placed.host.as_str());
            judge(ContextFacts { class, host, uncleared_labels, ..seen })
        });
        Judges::new(judge(seen), elsewhere.collect())
    };
    let judges = judges_with(covering.active.as_slice());
    let without_exceptions = (!covering.active.is_empty()).then(|| judges_with(&[]));
    let with_expired =
        (!covering.with_expired.is_empty()).then(|| judges_with(covering.with_expired.as_slice()));
    let mut effects = ExceptionEffects::default();
    let mut all_uncleared_labels: Vec<&str> =
        of_worst.iter().chain(of_others.iter().flatten()).copied().collect();
    all_uncleared_labels.sort_unstable();
    all_uncleared_labels.dedup();
    decision.uncleared_labels = all_uncleared_labels.into_iter().map(str::to_owned).collect();
    let mut tally = Tally::new(&chain);
    let mut observed = ObservedResults::default();
    // A call without a task is judged without a history; only observed policies of its operation may read one.
    let lacks_history = facts.history.is_none() && prepared.memory.is_recalled();
    for (index, rule) in prepared.slice.policies() {
        let times = if rule.per_principal { chain.len() } else { 1 };
        let observing = rule.is_observed.then(|| plan.policies.get(index)).flatten();
        let modes = &plan.model().modes;
        if let Some(placed) = observing.filter(|placed| placed.is_observed(modes, now)) {
            let needs_history = prepared.memory.objects || observed::reads_history(rule.keys);
            let is_judged = !(lacks_history && needs_history);
            observed.begin(placed, is_judged);
            for position in (0..times).filter(|_| is_judged) {
                let verdict = judges.judge(rule, position, by_destination(rule.keys))?;
                let whom = rule.per_principal.then_some(position);
                if traced {
                    let result = (&verdict, true);
                    verdict::trace(placed, &chain, whom, result, &mut decision.trace);
                }
                observed.count(whom, &verdict);
            }
            continue;
        }
        // A forbid whose observation has ended makes no call need a task either, and without the history it might not fire.
        if rule.is_observed && lacks_history && observed::reads_history(rule.keys) {
            return Err(RequestRefusal::new(
                ReasonCode::StateUnavailable,
                "what the session did before is not at hand",
            ));
        }
        for position in 0..times {
            let reads_destination = by_destination(rule.keys);
            let verdict = judges.judge(rule, position, reads_destination)?;
            let other = |judges: &Option<Judges<'_>>| match judges {
                Some(judges) if rule.keys.contains(Key::Exception) => {
                    judges.judge(rule, position, reads_destination).map(Some)
                }
                _ => Ok(None),
            };
            let is_used = other(&without_exceptions)?.is_some_and(|without| without != verdict);
            let is_missed = other(&with_expired)?
                .is_some_and(|with| exceptions::is_missed(rule.effect, &verdict, &with));
            // Most do not fire; looking those up would read memory that a large bundle has not in the cache.
            if verdict == Verdict::NotFired && !traced && !is_used && !is_missed {
                continue;
            }
            let Some(placed) = plan.policies.get(index) else {
                return Err(RequestRefusal::new(
                    ReasonCode::Unavailable,
                    "a slice names a policy that is not there",
                ));
            };
            let whom = if rule.per_principal { Some(position) } else { None };
            if is_used {
                effects.note_used(plan, placed, &covering);
            }
            if is_missed {
                let positions = whom.map_or(0..chain.len(), |one| one..one.saturating_add(1));
                effects.note_missed(plan, placed, &covering, positions);
            }
            if verdict == Verdict::NotFired && !traced {
                continue;
            }
            if traced {
                verdict::trace(placed, &chain, whom, (&verdict, false), &mut decision.trace);
            }
            tally.count(placed, whom, verdict);
        }
    }
    let mut requirements = requirements(plan, facts, tier);
    if tier >= Tier::High && located::subject_proof(facts, subject) == SubjectProof::Asserted {
        requirements.hopeless.push(UNPROVED_SUBJECT);
    }
    decision.redeems = grant.map(|(index, _)| index);
    decision.values = values::terms(plan, facts, operation, resolved, (tier, now));
    let tier_facts = TierFacts { tier, destinations: &resolved.destinations, carried };
    let mut bounds =
        located::bounds(plan, facts, operation, tier_facts, resolved, &satisfied, grant);
    decision.sequences = completed.iter().map(|name| (*name).to_owned()).collect();
    decision.budgets = spends.exceeded.iter().map(|name| (*name).to_owned()).collect();
    let memory = &prepared.memory;
    if let (Some(view), Some(task)) = (facts.history, facts.task) {
        let acts = (resolved.collection, resolved.id.key.as_str());
        let labels = (&*resolved.labels, request.labels);
        let (sequences, subject) = (&plan.sequences, resolved.subject(task));
        let silent = silenced(operation, resolved.traffic);
        let brings = silent.as_ref().unwrap_or(operation);
        let passage = memory.passage(brings, acts, labels, plan.model(), view, now);
        let advances = sequences.passage(&memory.named, subject, view, now);
        // What a credential was issued for was counted by the permit that it was issued of.
        let is_redeemed = decision.redeems.is_some();
        if let Some(refused) = spends.refused.filter(|_| !is_redeemed) {
            let rule = rules::budget(plan, refused.budget);
            bounds.refuse(BoundRefusal::new(refused.reason, refused.message, rule));
        }
        let used = plan.budgets.use_permits(
            &memory.budgets,
            |permit| tally.has_fired(permit),
            resolved.subject(task),
            view,
            now,
        );
        if let Some(refused) = used.refused.filter(|_| !is_redeemed) {
            let rule = rules::uses_of_permit(plan, refused.budget);
            bounds.refuse(BoundRefusal::new(refused.reason, refused.message, rule));
        }
        let spends = match is_redeemed {
            true => Vec::new(),
            false => spends.spends.into_iter().chain(used.spends).collect(),
        };
        match (passage, advances) {
            (Ok(passage), Ok((advances, enables))) => {
                let run = run.and_then(Run::passed);
                let mut passage = HistoryChanges { advances, spends, run, ..passage };
                // Where nobody tells that it is done, nobody sees it.
                if passage.is_reported {
                    passage.awaited.enables = enables;
                }
                let seen = (view, now);
                let chain = facts.chain;
                let all = (carried, remembered.as_slice());
                let written = memory.write(&mut passage, operation, acts, all, seen, chain);
                if let Err((reason, what)) = written {
                    bounds.refuse(BoundRefusal::new(reason, what, rules::check("history")));
                }
                let holders = [Holder::Session, Holder::Agent, Holder::Subject, Holder::Pair];
                let is_full = |holder: &Holder| {
                    let has_too_much = |kept: &SessionHistory| kept.entries() >= MAX_ENTRIES;
                    passage.concern(*holder)
                        && view
                            .of(*holder)
                            .is_none_or(|kept| passage.adds(*holder) && has_too_much(kept))
                };
                if let Some(holder) = holders.into_iter().find(is_full) {
                    let what = format!("the {} keeps as much as it may", holder.as_str());
                    let rule = rules::check("history");
                    bounds.refuse(BoundRefusal::new(ReasonCode::WindowFull, what, rule));
                }
                decision.passage = passage;
            }
            (Err((reason, what)), _) => {
                bounds.refuse(BoundRefusal::new(reason, what, rules::check("history")));
            }
            (Ok(_), Err((rule, holder))) => {
                let whose = holder.as_str();
                let what = format!("the {whose} keeps as much of the sequence `{rule}` as it may");
                let rule = rules::sequence(plan, rule);
                bounds.refuse(BoundRefusal::new(ReasonCode::WindowFull, what, rule));
            }
        }
        let advances = sequences.denial(&memory.named, subject, view, now);
        let run = run.and_then(|run| run.denied(&operation.id, decision.arguments_digest));
        decision.denial = HistoryChanges { advances, run, ..HistoryChanges::NONE };
    }
    if let Some(recorded) = &mut decision.facts {
        let proof = located::subject_proof(facts, subject);
        recorded.checks = recorded::checks(facts, proof, &satisfied, &bounds);
    }
    let stated = StatedRules { plan, operation, tier: tier_facts };
    decision.exceptions = effects.names();
    decision.breakglass = effects.breakglass().map(Box::new);
    let supported = request.supported_obligations;
    let settle = |tally: Tally<'_>, decision: &mut Decision| {
        tally.settle(stated, &requirements, &bounds, &effects, supported, decision);
    };
    let with_permits = observed.permitted(&tally).map(|tally| {
        let mut other = decision.clone();
        settle(tally, &mut other);
        other.outcome
    });
    settle(tally, decision);
    decision.observed = observed.outcomes(decision.outcome, with_permits);
    if let Some(step_up) = &mut decision.step_up {
        step_up::describe(plan, facts, request, operation, resolved, (tier_facts, now), step_up);
    }
    if decision.outcome == Outcome::Permit && decision.redeems.is_none() {
        decision.charges = bounds.charges();
    }
    Ok(())
}

/// The operation without its labels, where this call of it brings nothing.
fn silenced(operation: &Operation, traffic: Traffic) -> Option<Operation> {
    let is_silent = !traffic.brings && !operation.yields.1.is_empty();
    is_silent.then(|| Operation { yields: Default::default(), ..operation.clone() })
}

fn method(facts: &Facts<'_>) -> &'static str {
    ProofMethod::as_str(facts.proof.method)
}

fn has_subject(facts: &Facts<'_>) -> bool {
    facts.chain.iter().any(|principal| !matches!(principal, Principal::Agent { .. }))
}

/// Step-up kinds that a proof meets now, and those that people have met.
fn satisfied(plan: &Plan, facts: &Facts<'_>, tier: Tier) -> smallvec::SmallVec<[String; 2]> {
    let mut kinds = smallvec::SmallVec::new();
    let Some(required) = plan.model().tiers.get(tier as usize) else { return kinds };
    if facts.proof.bound {
        kinds.push("bound_token".to_owned());
    }
    // What nothing asks for proves nothing: a tier without a limit does not make a credential fresh.
    if required.max_age.is_some() && is_fresh(facts, required) {
        kinds.push("fresh_credential".to_owned());
    }
    if required.confidence > 0 && facts.confidence >= required.confidence {
        kinds.push("confidence".to_owned());
    }
    if !facts.proof.acr.is_empty() {
        kinds.push(format!("reauth:{}", facts.proof.acr));
    }
    kinds.extend(facts.proof.satisfied.iter().cloned());
    kinds
}

fn is_fresh(facts: &Facts<'_>, required: &crate::model::TierRequirements) -> bool {
    match (required.max_age, facts.proof.age) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(limit), Some(age)) => {
            u64::try_from(age.max(0)).is_ok_and(|age| age <= limit.as_secs())
        }
    }
}

/// Requirements of the tier that are not met.
#[derive(Debug, Default)]
pub(crate) struct Unmet {
    /// Those that a step-up can supply.
    kinds: Vec<&'static str>,
    /// Those that none can.
    pub(crate) hopeless: Vec<&'static str>,
}

impl Unmet {
    /// Whether no step-up is needed.
    const fn is_met_by_step_up(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Takes the requirements for met that a step-up can supply.
    fn clear_kinds(&mut self) {
        self.kinds.clear();
    }
}

fn requirements(plan: &Plan, facts: &Facts<'_>, tier: Tier) -> Unmet {
    use crate::model::TierApproval;
    let mut unmet = Unmet::default();
    let Some(required) = plan.model().tiers.get(tier as usize) else {
        unmet.hopeless.push("the tier is not described");
        return unmet;
    };
    if required.bound && !facts.proof.bound {
        unmet.kinds.push("bound_token");
    }
    if !is_fresh(facts, required) {
        unmet.kinds.push("fresh_credential");
    }
    if facts.confidence < required.confidence {
        unmet.kinds.push("confidence");
    }
    match required.approval {
        TierApproval::None => {}
        TierApproval::Confirm => unmet.kinds.push("confirm"),
        TierApproval::Approve => unmet.kinds.push("approve"),
        TierApproval::TwoPerson => unmet.kinds.push("two_person"),
    }
    if required.subject && !has_subject(facts) {
        unmet.hopeless.push("a verified subject in the chain");
    }
    unmet.kinds.retain(|kind| !facts.proof.satisfied.iter().any(|met| met == kind));
    unmet
}
