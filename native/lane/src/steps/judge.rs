//! Judge: what do the policies say?

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use authz_kernel::arguments::Declared;
use authz_kernel::decide::{decide, decide_traced};
use authz_kernel::decision::{
    Decision, Facts, Outcome, Principal, Proof, ProofMethod, Request, Time,
};
use authz_kernel::reason::{PublicCode, ReasonCode};
use authz_kernel::task::{Revocations, TaskView};
use authz_token::Evidence;

use crate::ask::{Refused, Step};
use crate::engine::{Engine, PROBE, own};
use crate::judgement::{Judgement, method_of, name_of};
use crate::keeper::Wait;
use crate::locate::Located;
use crate::presented::Presented;
use crate::revoke;
use crate::steps::locate::{CallTask, LocatedCall};
use crate::steps::resolve::{Match, ResolvedCall};
use crate::steps::settle::EnforcerKey;
use crate::steps::{Call, EndedCall, Staged};
use crate::world::Loaded;

/// Placeholder for a member name that the schema lacks.
const UNKNOWN_MEMBER: &str = "<unknown member>";

/// Outcome of a call: the kernel's decision, a refusal that came before it, or a failure that overruled it.
#[derive(Debug)]
pub(crate) struct CallVerdict {
    outcome: Outcome,
    reason: ReasonCode,
    step: Step,
    message: Cow<'static, str>,
    understood: bool,
    use_nonce: bool,
    decision: Option<Box<Decision>>,
    /// A later failure replaced `decision`, which is kept for the record only.
    is_overruled: bool,
    /// Duration of all evaluations of the call.
    pub(crate) decide_time: Option<Duration>,
}

impl Default for CallVerdict {
    /// The verdict of a call that nothing judged: DENY UNAVAILABLE.
    fn default() -> Self {
        Self {
            outcome: Outcome::Deny,
            reason: ReasonCode::Unavailable,
            step: Step::Identify,
            message: Cow::Borrowed("no decision was made"),
            understood: false,
            use_nonce: false,
            decision: None,
            is_overruled: false,
            decide_time: None,
        }
    }
}

impl CallVerdict {
    /// The verdict once the kernel decided.
    ///
    /// Args: `declared`: gives the argument schema of the operation. Names that it lacks are left out of the message.
    pub(crate) fn decided<'d>(
        self,
        decision: Box<Decision>,
        declared: impl FnOnce() -> Option<&'d Declared>,
    ) -> Self {
        let class = decision.reason.row().public_code;
        // INVARIANT (one answer): outcome and reason code are of one class; otherwise the verdict is DENY UNAVAILABLE.
        let (outcome, reason) = match (decision.outcome, class) {
            (Outcome::Permit, PublicCode::Permit) | (Outcome::StepUp, PublicCode::StepUp) => {
                (decision.outcome, decision.reason)
            }
            (Outcome::Deny, PublicCode::Permit | PublicCode::StepUp)
            | (Outcome::Permit | Outcome::StepUp, _) => (Outcome::Deny, ReasonCode::Unavailable),
            (Outcome::Deny, _) => (Outcome::Deny, decision.reason),
        };
        let step = match reason {
            ReasonCode::UnknownOperation
            | ReasonCode::UnreviewedOperation
            | ReasonCode::CatalogDrift
            | ReasonCode::BadInput
            | ReasonCode::NeedsProvider => Step::Resolve,
            _ => Step::Judge,
        };
        Self {
            outcome,
            reason,
            step,
            message: Cow::Owned(shown_message(reason, decision.message.clone(), declared)),
            understood: decision.understood,
            use_nonce: false,
            is_overruled: (decision.outcome, decision.reason) != (outcome, reason),
            decision: Some(decision),
            decide_time: self.decide_time,
        }
    }

    /// The verdict once a refusal ends the call, whatever the verdict was before.
    ///
    /// Args: `declared`: as of [`CallVerdict::decided`].
    pub(crate) fn refused<'d>(
        self,
        refused: Refused,
        declared: impl FnOnce() -> Option<&'d Declared>,
    ) -> Self {
        // INVARIANT (no refusal permits): a refusal never has a reason code of a permit or a step-up.
        let reason = match refused.reason.row().public_code {
            PublicCode::Permit | PublicCode::StepUp => ReasonCode::Unavailable,
            _ => refused.reason,
        };
        let message = shown_message(reason, refused.message, declared);
        Self {
            step: refused.step,
            message: Cow::Owned(message),
            understood: refused.understood,
            use_nonce: refused.use_nonce,
            ..self.replaced(Outcome::Deny, reason)
        }
    }

    /// A permit of a call about tasks or credentials that needs no policy. It is no permit of an operation.
    pub(crate) fn granted(self, message: impl Into<String>) -> Self {
        Self {
            step: Step::Judge,
            message: Cow::Owned(message.into()),
            understood: true,
            ..self.replaced(Outcome::Permit, ReasonCode::Permitted)
        }
    }

    /// The verdict about a credential that a proof of possession would lift.
    pub(crate) fn wants_proof(self, message: impl Into<String>) -> Self {
        Self {
            step: Step::Judge,
            message: Cow::Owned(message.into()),
            understood: false,
            ..self.replaced(Outcome::StepUp, ReasonCode::ProofRequired)
        }
    }

    /// Replaces outcome and reason. The kernel's decision stays in force if it has the same.
    fn replaced(self, outcome: Outcome, reason: ReasonCode) -> Self {
        let says_same =
            |decision: &Decision| (decision.outcome, decision.reason) == (outcome, reason);
        let is_overruled = !self.decision.as_deref().is_some_and(says_same);
        Self { outcome, reason, is_overruled, ..self }
    }

    pub(crate) const fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(crate) const fn reason(&self) -> ReasonCode {
        self.reason
    }

    pub(crate) const fn step(&self) -> Step {
        self.step
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The request was read whole, in the only way it can be read.
    pub(crate) const fn understood(&self) -> bool {
        self.understood
    }

    /// The call was refused because a proof of possession lacks a nonce of ours.
    pub(crate) fn use_nonce(&self) -> bool {
        self.use_nonce && self.outcome == Outcome::Deny
    }

    /// The kernel's decision, if it is in force.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.evaluated().filter(|_| !self.is_overruled)
    }

    /// The kernel's decision, also where a later failure overruled it.
    pub(crate) fn evaluated(&self) -> Option<&Decision> {
        self.decision.as_deref()
    }
}

/// The message of a verdict. Of a refused input, names of members are shown only where the schema has them: any other was
/// written by the caller, and may be a secret.
fn shown_message<'d>(
    reason: ReasonCode,
    message: String,
    declared: impl FnOnce() -> Option<&'d Declared>,
) -> String {
    match reason {
        ReasonCode::BadInput => declared_only(&message, declared()),
        _ => message,
    }
}

/// Replaces the undeclared names in the pointer of a message.
///
/// The kernel writes "argument `<pointer>`: <what>" of arguments, and "<what> at `<pointer>`" of a text that is no JSON.
fn declared_only(message: &str, declared: Option<&Declared>) -> String {
    let of_argument = message.split_once("argument `").and_then(|(before, rest)| {
        // A name may hold the separator, `<what>` does not.
        let (pointer, what) = rest.rsplit_once("`: ")?;
        Some((before, "argument `", pointer, "`: ", what))
    });
    let of_text = || {
        let (before, rest) = message.split_once(" at `")?;
        Some((before, " at `", rest.strip_suffix('`')?, "`", ""))
    };
    let Some((before, open, pointer, close, after)) = of_argument.or_else(of_text) else {
        return message.to_owned();
    };
    let mut shown = String::new();
    let mut declared = declared;
    for token in pointer.split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        let member = declared.and_then(|declared| declared.member(&name));
        let item = declared.and_then(Declared::items).filter(|_| token.parse::<u32>().is_ok());
        declared = member.or(item);
        shown.push('/');
        shown.push_str(if declared.is_some() || token == "*" { token } else { UNKNOWN_MEMBER });
    }
    format!("{before}{open}{shown}{close}{after}")
}

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
    let request = matched.request(call.ask);
    let is_unproved = unproved.is_some();
    let judging = PolicyQuery::of(engine, call, &world, &request, is_unproved);
    match judge_record(engine, call, &judging, &task, &revoked, unproved, &mut record) {
        Ok(()) => {
            record.soften();
            Ok(JudgedCall { record, evidence, world, matched, task, is_unproved, wait })
        }
        Err(refused) => Err(EndedCall::refused(record, evidence, refused)),
    }
}

/// Args:
/// * `unproved`: refusal of a caller without evidence.
/// * `record`: value of this stage, which gets the verdict.
fn judge_record(
    engine: &Engine,
    call: &Call<'_, '_>,
    judging: &PolicyQuery<'_>,
    task: &CallTask,
    revoked: &Revocations,
    unproved: Option<Refused>,
    record: &mut Judgement,
) -> Result<(), Refused> {
    let located = task.located.as_ref();
    if call.ask.has_approval {
        return Err(Refused::new(
            ReasonCode::ApprovalMismatch,
            Step::Judge,
            "there are no approvals in this version",
        ));
    }
    if call.ask.probe && !call.explain {
        let known = if judging.is_unproved { &[] } else { record.caller.chain.as_slice() };
        let facts = kernel_facts(record, known, located.map(Located::view), None);
        engine.may_probe(judging.world, &facts, record.arrival.now())?;
    }
    let started = engine.clock.monotonic();
    judging.decide(record, located, task.presented.as_ref());
    record.add_decide_time(engine.took(started));
    // A single case of a split operation may be revoked.
    revoke::of_operation(revoked, &record.resolved.operation)?;
    engine.in_time(call.transport, Step::Judge)?;
    match unproved {
        Some(first) if record.reason() == first.reason => {
            Err(Refused { understood: record.understood(), ..first })
        }
        _ => Ok(()),
    }
}

/// Question to the policies: a request, and what it is judged by besides its caller and its task.
pub(crate) struct PolicyQuery<'a> {
    pub(crate) world: &'a Loaded,
    pub(crate) request: &'a Request<'a>,
    /// The caller has no evidence, so the chain is empty.
    pub(crate) is_unproved: bool,
    /// The call asks for a task credential, so its permit is kept.
    pub(crate) wants_credential: bool,
    /// Idempotency key of the call.
    pub(crate) key: Option<EnforcerKey>,
    pub(crate) explain: bool,
    /// Key of the fingerprints of task literals.
    pub(crate) secret: [u8; 32],
}

impl<'r> PolicyQuery<'r> {
    /// The question of a call.
    pub(super) fn of(
        engine: &Engine,
        call: &Call<'_, '_>,
        world: &'r Loaded,
        request: &'r Request<'r>,
        is_unproved: bool,
    ) -> Self {
        Self {
            world,
            request,
            is_unproved,
            wants_credential: call.ask.wants_credential,
            key: None,
            explain: call.explain,
            secret: engine.keeper.store().secret(),
        }
    }

    /// Judges the call of a record, whose verdict it becomes.
    ///
    /// Args: `presented`: the task credential that the call presents.
    pub(crate) fn decide(
        &self,
        judgement: &mut Judgement,
        located: Option<&Located>,
        presented: Option<&Presented>,
    ) {
        let known = if self.is_unproved { &[] } else { judgement.caller.chain.as_slice() };
        let granted = presented.map(Presented::grants);
        let facts = Facts {
            granted: granted.as_deref(),
            history: judgement.context.recalled.view(),
            directories: Some(&self.world.directories),
            ..kernel_facts(judgement, known, located.map(Located::view), Some(&self.secret))
        };
        let (plan, now) = (&self.world.plan, judgement.arrival.now());
        let decision = match self.explain {
            true => decide_traced(plan, &facts, self.request, now),
            false => decide(plan, &facts, self.request, now),
        };
        let detail = decision.redeems.zip(presented);
        let of = detail.and_then(|(detail, one)| one.decision_id(detail));
        if let Some(note) = &mut judgement.caller.credential {
            of.unwrap_or_default().clone_into(&mut note.decision_id);
        }
        judgement.decided(decision);
    }
}

impl Engine {
    /// Refuses a probe of a chain that has no permit for `authz.probe`, or of a caller that probes too often.
    fn may_probe(&self, world: &Loaded, facts: &Facts<'_>, now: Time) -> Result<(), Refused> {
        let caller = facts.chain.last().map(name_of).unwrap_or_default();
        if !self.probes.admit(&caller, self.clock.monotonic()) {
            return Err(Refused::new(
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
        Err(Refused::new(reason, Step::Judge, format!("`authz.probe`: {}", decision.message)))
    }
}

/// The facts of a call as policies read them. Nothing raises confidence in this version.
///
/// Args: `task`: the task of the chain; `key`: key of the fingerprints of task literals.
pub(crate) fn kernel_facts<'a>(
    judgement: &'a Judgement,
    chain: &'a [Principal],
    task: Option<TaskView<'a>>,
    key: Option<&'a [u8; 32]>,
) -> Facts<'a> {
    let agent = judgement.caller.facts.agent.as_ref();
    let subject = judgement.caller.facts.subject.as_ref();
    let issued_at = match agent {
        Some(agent) => agent.issued_at,
        None => subject.and_then(|subject| subject.issued_at),
    };
    let now = judgement.arrival.now_ms.div_euclid(1_000);
    let of_task = || task.and_then(|view| view.task.subject.as_ref());
    let acr = match subject {
        Some(subject) => subject.acr.as_deref(),
        None => of_task().map(|subject| subject.acr.as_str()),
    };
    Facts {
        enforcer: judgement.arrival.asker.name(),
        chain,
        proof: Proof {
            method: agent.map_or(ProofMethod::Jwt, |agent| method_of(agent.proof)),
            // TLS proves that the peer holds the key of its certificate.
            bound: agent.is_some_and(|agent| agent.bound || agent.certificate_digest.is_some()),
            age: issued_at.map(|issued_at| now.saturating_sub(issued_at).max(0)),
            acr: acr.unwrap_or_default(),
        },
        confidence: 0,
        task,
        subject_proof: None,
        history: None,
        literal_key: key,
        directories: None,
        granted: None,
    }
}
