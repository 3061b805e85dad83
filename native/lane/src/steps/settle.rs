//! Settle: which stored records does the verdict change?

mod approval;
mod charge;
mod key;
mod preview;
mod reservation;

use authz_kernel::decision::Outcome;
use authz_kernel::model::Tier;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{RecordKey, RecordKind, TaskStatus};
use authz_state::store::{Survives, Transaction};

use crate::approvals::{AskedCall, Guard, asks_people, holds};
use crate::engine::Engine;
use crate::history;
use crate::judgement::Judgement;
use crate::keeper::Wait;
use crate::locate::is_due_for_touch;
use crate::locate::{self, Located};
use crate::refusal::{CallRefusal, Step};
use crate::steps::judge::{JudgedCall, PolicyQuery};
use crate::steps::locate::CallTask;
use crate::steps::record::{ChangeContext, KeptRecord};
use crate::steps::settle::charge::Charge;
use crate::steps::settle::key::{EnforcerKey, met};
use crate::steps::settle::reservation::notes_call;
use crate::steps::{Call, EndedCall, Staged};
use crate::usage::touch_tasks;
use crate::world::Loaded;

pub(crate) use crate::steps::settle::key::forget_answer;

pub(crate) use crate::steps::settle::reservation::detail_of;

/// Settles a judged call: writes what its verdict changes, in one transaction with its record.
///
/// If the transaction reads other records than the call was judged on, the call is judged again.
///
/// # Errors
/// The call as refused: the store failed, a share of it is full, or an idempotency key was used for another request.
pub fn settle<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    judged: JudgedCall<'a>,
) -> Staged<'a, EndedCall<'a>> {
    let JudgedCall { mut record, evidence, world, matched, task, is_unproved, wait } = judged;
    let request = matched.request(call.request);
    let judging = PolicyQuery::of(engine, call, &world, &request, is_unproved);
    let changing = ChangeContext { evidence: &evidence, recorded: call.recorded, wait };
    let named = call.request.task.or(matched.task_in_body());
    match settle_record(engine, call, judging, &changing, task, named, &mut record) {
        Ok(kept) => Ok(EndedCall { record: Box::new(record), evidence, kept }),
        Err(refused) => Err(EndedCall::refused(record, evidence, refused)),
    }
}

/// `record` is the value of this stage. Its verdict changes if the call is judged again.
fn settle_record(
    engine: &Engine,
    call: &Call<'_, '_>,
    judging: PolicyQuery<'_>,
    changing: &ChangeContext<'_>,
    task: CallTask,
    named: Option<&str>,
    record: &mut Judgement,
) -> Result<Option<KeptRecord>, CallRefusal> {
    let (plan, now, wait) = (&judging.world.plan, record.arrival.now(), changing.wait);
    // A call that its task credential does not cover changes nothing.
    let is_beyond = record.is_beyond_credential();
    let task = match is_beyond || call.is_dry() || task.begins() {
        true => task,
        false => engine.note_call(record, judging.world, task, wait)?,
    };
    if record.outcome() == Outcome::Permit && record.lacks_secret() {
        return Err(CallRefusal::new(
            ReasonCode::Unavailable,
            Step::Judge,
            "the secret that the system is reached with cannot be read",
        ));
    }
    if call.is_dry() {
        let asked = AskedCall::of(call.request);
        engine.preview_changes(record, asked, &judging, changing, &task)?;
        return Ok(None);
    }
    // A call that was judged, or let through unjudged, shows that the agent acts for its subject.
    let is_judged = record.evaluated().is_some_and(|decision| decision.is_judged);
    if !is_beyond && (is_judged || record.passage().is_some()) {
        engine.note_subject(&record.caller, now, plan, wait)?;
    }
    let key = engine.key_of(record, call.request.idempotency_key, &judging, named)?;
    engine.write_changes(
        record,
        AskedCall::of(call.request),
        &judging,
        changing,
        &task,
        key.as_ref(),
    )
}

impl Engine {
    /// Notes in the task of a call that its agent used it, and the subject token that a task credential was presented with.
    fn note_call(
        &self,
        record: &Judgement,
        world: &Loaded,
        task: CallTask,
        wait: Wait,
    ) -> Result<CallTask, CallRefusal> {
        let CallTask { located: Some(found), unnoted, .. } = task else { return Ok(task) };
        let now = record.arrival.now();
        if let Some(unnoted) = unnoted {
            drop(self.note_token(&record.caller, now, world, unnoted, false, wait)?);
        }
        let (used, commit) = self.note_use(found, now, wait)?;
        // Not awaited: a change of the call is durable no earlier, and a permit without a change writes nothing that must outlive a crash.
        drop(commit);
        Ok(CallTask { located: Some(used), unnoted: None, ..task })
    }

    /// Writes what the verdict changes, in one transaction with its record.
    ///
    /// `judgement` is the record. Its verdict changes if the call is judged again. The result is `None` if nothing changed: the record
    /// is then still to be written.
    fn write_changes(
        &self,
        judgement: &mut Judgement,
        asked: AskedCall<'_>,
        judging: &PolicyQuery<'_>,
        call: &ChangeContext<'_>,
        task: &CallTask,
        key: Option<&EnforcerKey>,
    ) -> Result<Option<KeptRecord>, CallRefusal> {
        let CallTask { located, presented, .. } = task;
        let taskless = located_without_task(judgement, &asked, located.as_ref());
        let located = located.as_ref().or(taskless.as_ref());
        if let Some(located) = located {
            let charge = Charge { judging, call, asked, task, key, located };
            self.check_presented_approval(judgement, charge)?;
        }
        let is_new = task.begins();
        if let Some(key) = key
            && let Some(kept) = self.repeated(judgement, call, key)?
        {
            return Ok(Some(kept));
        }
        let plan = &judging.world.plan;
        // Changes by another node may not have arrived here yet: a call that depends on them is judged on the store's records.
        let is_to_be_read = located.is_some()
            && taskless.is_none()
            && self.keeper.store().is_remote()
            && plan.reads_history(&judgement.resolved.operation);
        // A denial may change the history too.
        let is_remembered = located.is_some() && history::changes(judgement).is_some();
        let is_asked = asks_people(judgement) || is_unjudged(judgement);
        if judgement.passage().is_none() && !is_to_be_read && !is_remembered && !is_asked {
            return Ok(None);
        }
        let leaves = |located: &Located| {
            (judgement.permit().is_some() || judgement.redeems())
                && (judging.wants_credential
                    || presented.is_some()
                    || notes_call(judgement)
                    || !plan.leaves_nothing(&judgement.resolved.operation, Some(&located.view())))
        };
        let is_in_session = located.filter(|_| taskless.is_none());
        let is_stateful =
            is_to_be_read || is_in_session.is_some_and(leaves) || is_remembered || is_asked;
        if !is_stateful && !is_new && key.is_none() {
            if let Some(located) = is_in_session {
                self.touch(judgement, call, located);
            }
            return Ok(None);
        }
        let charged = located.filter(|_| taskless.is_none() || is_asked);
        let kept = match charged {
            Some(located) => {
                self.charge(judgement, Charge { judging, call, asked, task, key, located })
            }
            None => self.keep_key(judgement, call, key),
        };
        let kept = match (kept, key) {
            (Err(refused), Some(key)) if refused == met() => {
                return self.repeated(judgement, call, key);
            }
            (kept, _) => kept?,
        };
        if kept.is_none() {
            // The call was judged again, and `mode` may let it through.
            judgement.soften();
        }
        Ok(kept)
    }

    /// Judges a call that changes nothing by the answers of people that it would use.
    fn preview_changes(
        &self,
        judgement: &mut Judgement,
        asked: AskedCall<'_>,
        judging: &PolicyQuery<'_>,
        call: &ChangeContext<'_>,
        task: &CallTask,
    ) -> Result<(), CallRefusal> {
        let taskless = located_without_task(judgement, &asked, task.located.as_ref());
        match task.located.as_ref().or(taskless.as_ref()) {
            Some(located) => {
                let charge = Charge { judging, call, asked, task, key: None, located };
                self.preview_approval(judgement, charge)
            }
            None => Ok(()),
        }
    }

    /// Notes that a task is not idle, at most once in a tenth of its idle time-out. If that fails, the task ends sooner.
    fn touch(&self, judgement: &Judgement, call: &ChangeContext<'_>, located: &Located) {
        let now = judgement.arrival.now();
        if !located.path().any(|task| is_due_for_touch(task, now)) {
            return;
        }
        let locks = [RecordKey::new(RecordKind::Session, &located.task.session)];
        let mut work = |transaction: &mut dyn Transaction| {
            let Ok(current) = locate::find_in(transaction, &located.task.id) else {
                return Ok(false);
            };
            let lives = current.path().all(|task| task.status_at(now) == TaskStatus::Active);
            Ok(lives && touch_tasks(transaction, &current, now))
        };
        drop(self.keeper.transact(&locks, Survives::Crash, call.wait, &mut work));
    }
}

/// The place of a call without a task that concerns people: they may be asked about it, too.
fn located_without_task(
    judgement: &Judgement,
    asked: &AskedCall<'_>,
    located: Option<&Located>,
) -> Option<Located> {
    let is_about_people = asks_people(judgement) || !asked.approval_id.is_empty();
    match located {
        None if is_about_people => Located::taskless(&judgement.caller),
        _ => None,
    }
}

/// Whether a test wants a denied call to look for its approval.
fn is_unjudged(judgement: &Judgement) -> bool {
    !holds(Guard::SecondJudgement) && judgement.outcome() == Outcome::Deny
}

/// Failure that the changes of a call survive: a loss of power for a high tier and for the end of a task.
fn survives(judgement: &Judgement) -> Survives {
    if history::ends_task(judgement) {
        return Survives::PowerLoss;
    }
    judgement.resolved.tier.map_or(Survives::Crash, survives_of)
}

/// Failure that a change of a tier survives.
pub(crate) fn survives_of(tier: Tier) -> Survives {
    if tier >= Tier::High { Survives::PowerLoss } else { Survives::Crash }
}
