//! Locate: in which task is the call made, and what did that task's session do before?

use std::sync::Arc;

use authz_kernel::decision::{Principal, Request, Time};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{self, Task, TaskKind, TaskStatus};

use crate::credential_use::{self, PresentedCredential};
use crate::engine::Engine;
use crate::history::{self, SessionUse};
use crate::judgement::{CallerIdentity, TaskContext};
use crate::keeper::Wait;
use crate::locate::{self, Located};
use crate::refusal::{CallRefusal, Step};
use crate::revoke;
use crate::shown;
use crate::speaker;
use crate::steps::admit::AdmittedCall;
use crate::steps::identify::IdentifiedCall;
use crate::steps::resolve::ResolvedCall;
use crate::steps::{Call, EndedCall, Staged};

/// State of the session of an agent that works without tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implied {
    /// The session begins with this call.
    New,
    /// The store has the session.
    Kept,
}

/// The task of a call as its records say it.
#[derive(Debug, Default)]
pub(crate) struct CallTask {
    /// The task and all above it; none where the call is made in no task.
    pub(crate) located: Option<Located>,
    /// The task is the session of an agent that works without tasks.
    pub(crate) implied: Option<Implied>,
    /// The task credential that is presented.
    pub(crate) presented: Option<PresentedCredential>,
    /// The task before the subject token of this call was noted in it, where the call presents a task credential.
    pub(crate) unnoted: Option<Located>,
}

impl CallTask {
    /// The session of the call begins with the decision.
    pub(crate) fn begins(&self) -> bool {
        self.implied == Some(Implied::New)
    }
}

/// A call whose task is known, with the history of the task's session.
#[derive(Debug)]
pub struct LocatedCall<'a> {
    pub(crate) resolved: ResolvedCall<'a>,
    pub(crate) context: TaskContext,
    /// Chain of the caller as the task has it. `None`: the caller's own.
    pub(crate) chain: Option<Vec<Principal>>,
    pub(crate) task: CallTask,
}

impl<'a> ResolvedCall<'a> {
    /// Ends the call with a refusal.
    fn refuse(
        self,
        context: TaskContext,
        chain: Option<Vec<Principal>>,
        refused: CallRefusal,
    ) -> EndedCall<'a> {
        let (record, evidence) = self.identified.into_record(self.operation, context, chain);
        EndedCall::refused(record, evidence, refused)
    }
}

/// Locates the task of a call, and recalls the history that its operation has to do with.
///
/// # Errors
/// The call is refused: the task does not exist, has ended, is revoked or belongs to another agent, or the store failed. A call
/// whose request leads to no operation ends here too.
pub fn locate<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    resolved: ResolvedCall<'a>,
) -> Staged<'a, LocatedCall<'a>> {
    let mut context = TaskContext::default();
    let mut chain = None;
    match locate_task(engine, call, &resolved, &mut context, &mut chain) {
        Ok(task) => Ok(LocatedCall { resolved, context, chain, task }),
        Err(refused) => Err(resolved.refuse(context, chain, refused)),
    }
}

/// `context` and `chain` are values of this stage: the record of a refused call shows what they held by then.
fn locate_task(
    engine: &Engine,
    call: &Call<'_, '_>,
    resolved: &ResolvedCall<'_>,
    context: &mut TaskContext,
    chain: &mut Option<Vec<Principal>>,
) -> Result<CallTask, CallRefusal> {
    let IdentifiedCall { admitted: AdmittedCall { arrival, world }, caller, .. } =
        &resolved.identified;
    let (ask, plan, now, wait) = (call.request, &world.plan, arrival.now(), resolved.wait);
    let named = named_task(call, resolved)?;
    let presented = engine.presented(caller, now, named, wait)?;
    let (located, implied) = find_task(engine, call, resolved, named, presented.as_ref(), context)?;
    let begins = implied == Some(Implied::New);
    let unnoted = presented.as_ref().and_then(|_| located.clone());
    // A call that is refused before it is judged begins no task and changes none.
    let is_refused = resolved.matched.missed().is_some() || !resolved.is_known();
    let located = match located {
        Some(found) if !found.is_taskless() => {
            // A call that its task credential does not cover changes nothing, and that is not known yet.
            let is_dry = call.is_dry() || begins || is_refused || presented.is_some();
            let noted = engine.note_token(caller, now, world, found, is_dry, wait)?;
            Some(Engine::bounded_now(noted, plan)?)
        }
        located => located,
    };
    let begins_nothing = is_refused && begins;
    let is_real = |located: &&Located| !located.is_taskless() && !begins_nothing;
    if let Some(located) = located.as_ref().filter(is_real) {
        context.task = Some(Arc::clone(&located.task));
        context.is_in_named_task = located.task.kind != TaskKind::Implicit;
        if !located.view().has_chain(&caller.chain) {
            *chain = Some(shown::chain_in(caller, now, located));
        }
    }
    if let Some(refused) = resolved.matched.missed() {
        return Err(refused.clone());
    }
    let (located, implied) = if is_refused { (None, None) } else { (located, implied) };
    if let Some(located) = &located {
        let name = speaker::context(&arrival.asker, &caller.facts, ask.session_context);
        let request = resolved.matched.request(ask);
        let session = SessionUse { begins, context: name };
        context.recalled =
            history::recall(&engine.keeper, plan, &request, located, session, now, wait)?;
    }
    if ask.wants_credential {
        may_want_credential(presented.is_some(), resolved, context)?;
    }
    Ok(CallTask { located, implied, presented, unnoted })
}

/// The task that a call names, in its body or beside it.
///
/// # Errors
/// The call names two tasks (TASK_CONFLICT).
pub(crate) fn named_task<'r>(
    call: &Call<'r, '_>,
    resolved: &'r ResolvedCall<'_>,
) -> Result<Option<&'r str>, CallRefusal> {
    let (beside, in_body) = (call.request.task, resolved.matched.task_in_body());
    if beside.zip(in_body).is_some_and(|(task, other)| task != other) {
        return Err(CallRefusal::new(
            ReasonCode::TaskConflict,
            Step::Locate,
            "the task is named more than once, differently",
        ));
    }
    Ok(beside.or(in_body))
}

/// Finds the task of a call: the one that is named or presented, the session of an agent that works without tasks, or what the
/// caller does without a task.
///
/// `context` gets the task that was found, also if the task is refused.
fn find_task(
    engine: &Engine,
    call: &Call<'_, '_>,
    resolved: &ResolvedCall<'_>,
    named: Option<&str>,
    presented: Option<&PresentedCredential>,
    context: &mut TaskContext,
) -> Result<(Option<Located>, Option<Implied>), CallRefusal> {
    let IdentifiedCall { admitted: AdmittedCall { arrival, world }, caller, unproved, .. } =
        &resolved.identified;
    let (plan, now, wait) = (&world.plan, arrival.now(), resolved.wait);
    if resolved.is_whole() {
        let in_task = named.is_some() || presented.is_some();
        engine.check_subject(caller, now, plan, in_task, wait)?;
    }
    if let Some(task) = presented.map(PresentedCredential::task).or(named) {
        let found = match presented {
            Some(_) => find_presented(engine, task, plan, wait)?,
            None => locate::find_task(&engine.keeper, task, wait)?,
        };
        context.task = Some(Arc::clone(&found.task));
        locate::usable(&found, &resolved.revoked, &caller.facts, now)?;
        if resolved.is_whole() {
            engine.check_left_out(now, plan, &found, wait)?;
        }
        return Ok((Some(found), None));
    }
    if unproved.is_some() {
        return Ok((None, None));
    }
    if let Some((found, implied)) = engine.implied(caller, now, plan, wait)? {
        if implied == Implied::Kept {
            context.task = Some(Arc::clone(&found.task));
            engine.check_usable(&found, caller, now)?;
        }
        return Ok((Some(found), Some(implied)));
    }
    if resolved.is_whole() {
        let request = resolved.matched.request(call.request);
        return Ok((engine.taskless(caller, now, plan, &request)?, None));
    }
    engine.refuse_taken_away(caller, now, plan, wait)?;
    Ok((None, None))
}

/// The task of a presented task credential. Without its task, the credential is void.
fn find_presented(
    engine: &Engine,
    task: &str,
    plan: &Plan,
    wait: Wait,
) -> Result<Located, CallRefusal> {
    let found = locate::find(&engine.keeper, task, wait);
    found.and_then(|found| Engine::bounded_now(found, plan)).map_err(|refused| {
        match refused.reason {
            ReasonCode::UnknownTask => CallRefusal { reason: ReasonCode::Revoked, ..refused },
            _ => refused,
        }
    })
}

/// Refuses to issue a task credential where none can be issued.
fn may_want_credential(
    is_presented: bool,
    resolved: &ResolvedCall<'_>,
    context: &TaskContext,
) -> Result<(), CallRefusal> {
    let refused = |reason, message| Err(CallRefusal::new(reason, Step::Locate, message));
    if is_presented {
        let message = "a call that presents a task credential gets none";
        return refused(ReasonCode::BadInput, message);
    }
    if resolved.identified.admitted.world.credentials.is_none() {
        return refused(ReasonCode::BadInput, "no credentials are issued here");
    }
    if resolved.is_known() && context.task.is_none() {
        return refused(ReasonCode::NoTask, "a credential is issued for a task");
    }
    Ok(())
}

impl Engine {
    /// The record of a presented task credential.
    ///
    /// `named` is the task that the request names. It must be the credential's task.
    fn presented(
        &self,
        caller: &CallerIdentity,
        now: Time,
        named: Option<&str>,
        wait: Wait,
    ) -> Result<Option<PresentedCredential>, CallRefusal> {
        let Some(facts) = &caller.facts.credential else { return Ok(None) };
        if named.is_some_and(|task| task != facts.task) {
            return Err(CallRefusal::new(
                ReasonCode::TaskConflict,
                Step::Locate,
                "the task credential is of another task than the one that is named",
            ));
        }
        credential_use::find(&self.keeper, facts, now, wait).map(Some)
    }

    /// Finds the session of an agent that works without tasks. The pair of agent and subject alone chooses it. None for other
    /// agents. The caller of this function checks that a kept session is usable.
    pub(crate) fn implied(
        &self,
        caller: &CallerIdentity,
        now: Time,
        plan: &Plan,
        wait: Wait,
    ) -> Result<Option<(Located, Implied)>, CallRefusal> {
        let Some(agent) = &caller.facts.agent else { return Ok(None) };
        if !plan.roles().is_implicit(&agent.spiffe_id) {
            return Ok(None);
        }
        let Some(id) = task::implicit_id(&caller.chain) else { return Ok(None) };
        if let Some(task) = self.keeper.task(&id, wait)?
            && (task.status_at(now) == TaskStatus::Active || task.is_barred(now))
        {
            let task = renewed(plan, &task)?;
            let located = task.map(|task| Located { task, ancestors: Vec::new() });
            return Ok(located.map(|located| (located, Implied::Kept)));
        }
        let acr = caller.facts.subject.as_ref().and_then(|subject| subject.acr.as_deref());
        let task = task::implicit(plan, &caller.chain, acr.unwrap_or_default(), now)
            .map_err(|refused| CallRefusal::new(refused.reason, Step::Locate, refused.message))?;
        let Some(mut task) = task else { return Ok(None) };
        shown::begin(caller, now, &mut task);
        history::may_begin(&self.keeper, &task, now, wait)?;
        let located = Located { task: Arc::new(task), ancestors: Vec::new() };
        let revoked = self.keeper.revocations()?;
        revoke::of_tasks(&revoked, located.path())?;
        Ok(Some((located, Implied::New)))
    }

    /// A session of an agent that works without tasks, with the bounds that the bundle has now. Other tasks are unchanged.
    pub(crate) fn bounded_now(found: Located, plan: &Plan) -> Result<Located, CallRefusal> {
        if found.task.kind != TaskKind::Implicit {
            return Ok(found);
        }
        let task = renewed(plan, &found.task)?.ok_or_else(locate::unknown)?;
        Ok(Located { task, ..found })
    }

    /// The history of a caller without a task, if the operation depends on it.
    pub(crate) fn taskless(
        &self,
        caller: &CallerIdentity,
        now: Time,
        plan: &Plan,
        request: &Request<'_>,
    ) -> Result<Option<Located>, CallRefusal> {
        if !plan.recalls_taskless(request.operation, !request.labels.is_empty()) {
            return Ok(None);
        }
        let Some(located) = Located::taskless(caller) else { return Ok(None) };
        self.check_usable(&located, caller, now)?;
        Ok(Some(located))
    }

    /// Refuses a request without operation and task if the caller's right to act without a task was revoked.
    pub(crate) fn refuse_taken_away(
        &self,
        caller: &CallerIdentity,
        now: Time,
        plan: &Plan,
        wait: Wait,
    ) -> Result<(), CallRefusal> {
        if !plan.model().tasks.optional {
            return Ok(());
        }
        let Some(located) = Located::taskless(caller) else { return Ok(()) };
        self.check_usable(&located, caller, now)?;
        history::refuse_taken_away(&self.keeper, &located.task, now, wait)
    }
}

/// A session of an agent that works without tasks, with the bounds that the bundle has now; none if the agent needs tasks now.
pub(crate) fn renewed(plan: &Plan, known: &Arc<Task>) -> Result<Option<Arc<Task>>, CallRefusal> {
    task::renewed(plan, known)
        .map_err(|refused| CallRefusal::new(refused.reason, Step::Locate, refused.message))
}
