//! Judge: what do the policies say?

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use authz_kernel::ValueKey;
use authz_kernel::decide::{decide, decide_traced};
use authz_kernel::decision::{
    CallerProof, Decision, Facts, Outcome, Principal, ProofMethod, Request, Time,
};
use authz_kernel::plan::Plan;
use authz_kernel::reason::{PublicCode, ReasonCode};
use authz_kernel::recipient_lists::RecipientLists;
use authz_kernel::shadow::{ShadowCall, ShadowGap, ShadowPlan};
use authz_kernel::task::{Breakglasses, Revocations, TaskView, WordRecords};
use authz_token::{ConfidenceFacts, Evidence};

use crate::credential_use::PresentedCredential;
use crate::engine::{Engine, PROBE, own};
use crate::judgement::{Arrival, Judgement, PolicyAnswer, method_of, name_of};
use crate::keeper::Wait;
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};
use crate::revoke;
use crate::shadow_answer::ShadowAnswer;
use crate::steps::locate::{CallTask, LocatedCall};
use crate::steps::resolve::{Match, ResolvedCall};
use crate::steps::{Call, EndedCall, Staged};
use crate::world::Loaded;

/// A call that the policies have judged.
///
/// INVARIANT (verdict): only [`judge()`] makes one, so no stage after it acts without a verdict.
pub struct JudgedCall<'a> {
    pub(super) record: Judgement,
    pub(super) evidence: Vec<Evidence<'a>>,
    pub(super) world: Arc<Loaded>,
    pub(super) matched: Match,
    pub(super) task: CallTask,
    pub(super) is_unproved: bool,
    pub(super) wait: Wait,
}

impl std::fmt::Debug for JudgedCall<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JudgedCall").field("reason", &self.record.reason()).finish_non_exhaustive()
    }
}

/// Judges a call by the policies.
///
/// # Errors
/// The call as refused: its caller may not probe, the deadline passed, or one case of a split operation is revoked.
pub fn judge<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    located: LocatedCall<'a>,
) -> Staged<'a, JudgedCall<'a>> {
    let LocatedCall { resolved, context, chain, task } = located;
    let ResolvedCall { identified, operation, matched, revoked, wait } = resolved;
    let (world, unproved) = (Arc::clone(&identified.admitted.world), identified.unproved.clone());
    let (mut record, evidence) = identified.into_record(operation, context, chain);
    let request = matched.request(call.request);
    let is_unproved = unproved.is_some();
    let judging = PolicyQuery::of(engine, call, &world, &request, is_unproved);
    let located = task.located.as_ref();
    if let Err(refused) = check_unjudged(engine, call, &judging, located, &record) {
        return Err(EndedCall::refused(record, evidence, refused));
    }
    let answer = judging.ask(engine, &record, located, task.presented.as_ref());
    record.judge_by(answer);
    match check_judged(engine, call, &revoked, unproved, &record) {
        Ok(()) => {
            record.soften();
            judging.compare_shadow(engine, &mut record, located, task.presented.as_ref());
            Ok(JudgedCall { record, evidence, world, matched, task, is_unproved, wait })
        }
        Err(refused) => Err(EndedCall::refused(record, evidence, refused)),
    }
}

/// Refuses a call before the policies judge it: its caller may not probe.
fn check_unjudged(
    engine: &Engine,
    call: &Call<'_, '_>,
    judging: &PolicyQuery<'_>,
    located: Option<&Located>,
    record: &Judgement,
) -> Result<(), CallRefusal> {
    if call.request.probe && !call.explain {
        let known = if judging.is_unproved { &[] } else { record.caller.chain.as_slice() };
        let (arrival, proved) = (&record.arrival, &record.caller.facts);
        let facts = kernel_facts(arrival, proved, known, located.map(Located::view), None);
        engine.may_probe(judging.world, &facts, record.arrival.now())?;
    }
    Ok(())
}

/// Refuses a call that the policies have judged: its operation is revoked, or its deadline has passed. `unproved` is the
/// refusal of a caller without evidence, which replaces a refusal of the policies for the same reason.
fn check_judged(
    engine: &Engine,
    call: &Call<'_, '_>,
    revoked: &Revocations,
    unproved: Option<CallRefusal>,
    record: &Judgement,
) -> Result<(), CallRefusal> {
    // A single case of a split operation may be revoked.
    revoke::of_operation(revoked, &record.resolved.operation)?;
    engine.in_time(call.transport, Step::Judge)?;
    match unproved {
        Some(first) if record.reason() == first.reason => {
            Err(CallRefusal { understood: record.understood(), ..first })
        }
        _ => Ok(()),
    }
}

/// Question to the policies: a request, and the facts besides its caller and its task.
pub(crate) struct PolicyQuery<'a> {
    pub(crate) world: &'a Loaded,
    pub(crate) request: &'a Request<'a>,
    /// The caller has no evidence, so the chain is empty.
    pub(crate) is_unproved: bool,
    /// The call asks for a task credential, so its permit is kept.
    pub(crate) wants_credential: bool,
    /// The decision lists how each policy was judged.
    pub(crate) traces: bool,
    /// Key of the fingerprints of task literals.
    pub(crate) secret: [u8; 32],
    /// Key of the values that sessions know.
    pub(crate) value_key: &'a ValueKey,
}

impl<'r> PolicyQuery<'r> {
    /// The question of a call.
    pub(super) fn of(
        engine: &'r Engine,
        call: &Call<'_, '_>,
        world: &'r Loaded,
        request: &'r Request<'r>,
        is_unproved: bool,
    ) -> Self {
        Self {
            world,
            request,
            is_unproved,
            wants_credential: call.request.wants_credential,
            traces: call.traces,
            secret: engine.keeper.store().secret(),
            value_key: engine.keeper.value_key(),
        }
    }

    /// Asks the policies about the call of a record.
    ///
    /// `presented` is the task credential that the call presents.
    pub(crate) fn ask(
        &self,
        engine: &Engine,
        record: &Judgement,
        located: Option<&Located>,
        presented: Option<&PresentedCredential>,
    ) -> PolicyAnswer {
        let started = engine.clock.monotonic();
        let (plan, now) = (&self.world.plan, record.arrival.now());
        let decided = |facts: &Facts<'_>| match self.traces {
            true => decide_traced(plan, facts, self.request, now),
            false => decide(plan, facts, self.request, now),
        };
        let bundle = (plan.as_ref(), &self.world.recipient_lists);
        let decision =
            self.with_facts(engine, record, located, presented, bundle, |facts, stated| {
                let mut decision = decided(facts);
                // Only the kernel knows which operation and arguments the request has. A statement about others gives no confidence.
                if stated.is_some_and(|stated| !self.is_about(stated, &decision)) {
                    facts.confidence = 0;
                    decision = decided(facts);
                }
                decision
            });
        let redeemed = decision.redeems.zip(presented);
        let redeemed = redeemed.and_then(|(detail, credential)| credential.decision_id(detail));
        let redeemed = redeemed.unwrap_or_default().to_owned();
        PolicyAnswer { decision, redeemed, took: engine.took(started) }
    }

    /// Asks the shadow bundle about the call of a record that the policies have judged, and notes the comparison in the record.
    ///
    /// INVARIANT (no part in answers): this reads the verdict of the record, and changes nothing but the note.
    pub(crate) fn compare_shadow(
        &self,
        engine: &Engine,
        record: &mut Judgement,
        located: Option<&Located>,
        presented: Option<&PresentedCredential>,
    ) {
        let Some(shadow) = self.world.shadow.as_ref().filter(|_| !self.traces) else { return };
        let compare = || self.shadow_answer(engine, shadow, record, located, presented);
        let answer = catch_unwind(AssertUnwindSafe(compare));
        record.shadow = Some(answer.unwrap_or(ShadowAnswer::NotCompared(ShadowGap::Failed)));
    }

    fn shadow_answer(
        &self,
        engine: &Engine,
        shadow: &ShadowPlan,
        record: &Judgement,
        located: Option<&Located>,
        presented: Option<&PresentedCredential>,
    ) -> ShadowAnswer {
        let (plan, now) = (shadow.plan(), record.arrival.now());
        let Some(served) = record.decision() else {
            return ShadowAnswer::NotCompared(ShadowGap::NotJudged);
        };
        let call = ShadowCall {
            operation: self.request.operation,
            is_routed: record.resolved.route.is_some(),
        };
        let bundle = (plan.as_ref(), shadow.recipient_lists());
        let decision =
            self.with_facts(engine, record, located, presented, bundle, |facts, stated| {
                if stated.is_some_and(|stated| !self.is_about(stated, served)) {
                    facts.confidence = 0;
                }
                match shadow.gap(&self.world.plan, facts, call) {
                    Some(gap) => Err(gap),
                    None => Ok(decide(plan, facts, self.request, now)),
                }
            });
        match decision {
            Err(gap) => ShadowAnswer::NotCompared(gap),
            Ok(decision) => record.compare_shadow(served, plan, &decision),
        }
    }

    /// Calls a function with the facts of the call of a record, for a bundle and its recipient lists, and with the statement of
    /// a guard about the task of the call.
    fn with_facts<R>(
        &self,
        engine: &Engine,
        record: &Judgement,
        located: Option<&Located>,
        presented: Option<&PresentedCredential>,
        (plan, recipient_lists): (&Plan, &RecipientLists),
        decide: impl FnOnce(&mut Facts<'_>, Option<&ConfidenceFacts>) -> R,
    ) -> R {
        let known = if self.is_unproved { &[] } else { record.caller.chain.as_slice() };
        let granted = presented.map(PresentedCredential::grants);
        let breakglass = engine.breakglasses_for(plan, self.request.operation);
        let mut facts = Facts {
            granted: granted.as_deref(),
            history: record.context.recalled.view(),
            words: record.context.recalled.words(),
            recipient_lists: Some(recipient_lists),
            value_key: Some(self.value_key),
            breakglass: breakglass.as_deref(),
            endorsed: &record.settlement.endorsed,
            ..kernel_facts(
                &record.arrival,
                &record.caller.facts,
                known,
                located.map(Located::view),
                Some(&self.secret),
            )
        };
        facts.proof.satisfied = &record.caller.satisfied;
        let task = facts.task.filter(|view| view.task.kind.is_started());
        let task = task.map_or("", |view| view.task.id.as_str());
        let stated = record.caller.guard.as_ref().and_then(|guard| guard.about_task(task));
        facts.confidence = stated.map_or(record.caller.confidence, |stated| stated.confidence);
        decide(&mut facts, stated)
    }
}

impl PolicyQuery<'_> {
    /// Whether the statement of a guard is about the operation and the arguments of a decision.
    fn is_about(&self, stated: &ConfidenceFacts, decision: &Decision) -> bool {
        let names = [decision.operation.as_str(), self.request.operation];
        names.contains(&stated.operation.as_str())
            && decision.arguments_digest == Some(stated.arguments_digest)
    }
}

impl Engine {
    /// Requests for break-glass that may cover a call of an operation. They are read only where its policies read exceptions.
    pub(crate) fn breakglasses_for(
        &self,
        plan: &Plan,
        operation: &str,
    ) -> Option<Arc<Breakglasses>> {
        if plan.reads_exceptions(operation) { self.keeper.breakglasses() } else { None }
    }

    /// Refuses a probe of a chain that has no permit for `authz.probe`, or of a caller that probes too often.
    fn may_probe(&self, world: &Loaded, facts: &Facts<'_>, now: Time) -> Result<(), CallRefusal> {
        let caller = facts.chain.last().map(name_of).unwrap_or_default();
        if !self.probes.admit(&caller, self.clock.monotonic()) {
            return Err(CallRefusal::new(
                ReasonCode::Overloaded,
                Step::Judge,
                "the caller probes more often than it may",
            ));
        }
        let decision = decide(&world.plan, facts, &own(PROBE), now);
        if decision.outcome == Outcome::Permit && decision.reason == ReasonCode::Permitted {
            return Ok(());
        }
        let reason = match decision.reason.row().public_code {
            PublicCode::Permit | PublicCode::StepUp => ReasonCode::NotPermitted,
            _ => decision.reason,
        };
        Err(CallRefusal::new(reason, Step::Judge, format!("`authz.probe`: {}", decision.message)))
    }
}

/// The facts of a call as policies read them: those of its caller. History, recipient lists and grants are not recalled.
///
/// `proved` has the facts that the evidence proves, `task` is the task of the chain, and `key` the key of the fingerprints of
/// task literals.
pub(crate) fn kernel_facts<'a>(
    arrival: &'a Arrival,
    proved: &'a authz_token::VerifiedFacts,
    chain: &'a [Principal],
    task: Option<TaskView<'a>>,
    key: Option<&'a [u8; 32]>,
) -> Facts<'a> {
    let (agent, subject) = (proved.agent.as_ref(), proved.subject.as_ref());
    let issued_at = match agent {
        Some(agent) => agent.issued_at,
        None => subject.and_then(|subject| subject.issued_at),
    };
    let now = arrival.now_ms.div_euclid(1_000);
    let of_task = || task.and_then(|view| view.task.subject.as_ref());
    let acr = match subject {
        Some(subject) => subject.acr.as_deref(),
        None => of_task().map(|subject| subject.acr.as_str()),
    };
    let proof = CallerProof {
        method: agent.map_or(ProofMethod::Jwt, |agent| method_of(agent.proof)),
        // TLS proves that the peer holds the key of its certificate.
        bound: agent.is_some_and(|agent| agent.bound || agent.certificate_digest.is_some()),
        age: issued_at.map(|issued_at| now.saturating_sub(issued_at).max(0)),
        acr: acr.unwrap_or_default(),
        satisfied: &[],
    };
    // INVARIANT (no forgotten fact): every fact is listed, so that a new one does not compile until it has a value here.
    Facts {
        enforcer: arrival.asker.name(),
        chain,
        proof,
        confidence: 0,
        task,
        subject_proof: None,
        history: None,
        words: WordRecords::default(),
        literal_key: key,
        value_key: None,
        endorsed: &[],
        recipient_lists: None,
        granted: None,
        breakglass: None,
    }
}
