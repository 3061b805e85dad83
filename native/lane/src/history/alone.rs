//! Sessions of an agent alone: what restricts the agent in a session with a subject is carried over to them and back.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{Carry, HistoryChanges, RunChange, SessionHistory};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Alone, BARRED_MS, Record, RecordKey, RecordKind, Session, Task, TaskKind, barred_alone,
    carrier_of,
};
use authz_state::store::{StoreError, Transaction};

use super::records::{key, session};
use super::remember::changes;
use crate::ending::after;
use crate::judgement::Judgement;
use crate::keeper::ChangeError;
use crate::keeper::{Keeper, Wait};
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};

/// Carries what restricts an agent in a session with a subject over to the sessions of agents alone, whose records are locked.
///
/// `alones` are those sessions. `ends` is true if the session with the subject ends by the answer.
pub(crate) fn carry(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    judgement: &Judgement,
    located: &Located,
    alones: &[Alone],
    ends: bool,
) -> Result<(), ChangeError> {
    let Some(changes) = changes(judgement).filter(|_| !alones.is_empty()) else { return Ok(()) };
    let now = judgement.arrival.now();
    for Alone { id, counts_denials } in alones {
        if !changes.restricts(plan.bundle(), *counts_denials) {
            continue;
        }
        let mut held = carrier(transaction, &located.task, id, now)?;
        let carry = Carry {
            from: &located.task.id,
            to: id,
            decision_id: &judgement.arrival.id,
            operation: &judgement.resolved.operation,
            counts_denials: *counts_denials,
        };
        let fits = held.history.carry_over(plan.bundle(), changes, carry, now);
        transaction.put(Record::Session(Arc::new(held)));
        let by_denials = ends && *counts_denials;
        if by_denials || !fits {
            bar_alone(transaction, plan, &located.task, id, by_denials, now)?;
        }
    }
    Ok(())
}

/// Ends the run of denials that was carried over, if a call was let through in a task of the agent alone. The record of the
/// agent's session is locked.
pub(crate) fn end_carried_run(
    transaction: &mut dyn Transaction,
    judgement: &Judgement,
    alone: &str,
) -> Result<(), StoreError> {
    let ends = |changes: &HistoryChanges| matches!(changes.run, Some(RunChange::Ends { .. }));
    if changes(judgement).is_some_and(ends)
        && let Some(mut held) = session(transaction, alone)?
        && held.history.denials.contains_key(alone)
    {
        Arc::make_mut(&mut held).history.denials.remove(alone);
        transaction.put(Record::Session(held));
    }
    Ok(())
}

/// The session of a task as its calls see it: if the agent left the subject out, what was carried over to the agent alone counts,
/// too. `read` gives records.
pub(super) fn with_carried_over<E: From<CallRefusal>>(
    plan: &Plan,
    located: &Located,
    session: Arc<Session>,
    now: Time,
    read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
) -> Result<Arc<Session>, E> {
    let Some(alone) = carrier_of(plan, located.view()) else { return Ok(session) };
    let known = match read(&key(&alone))? {
        Some(Record::Session(known)) if known.lasts(now) => known,
        _ => return Ok(session),
    };
    if known.ended_at.is_some() {
        return Err(alone_taken_away().into());
    }
    let ids = (alone.as_str(), located.task.id.as_str());
    let history = plan.with_carried(&session.history, &known.history, ids, now);
    if history == session.history {
        return Ok(session);
    }
    Ok(Arc::new(Session { history, ..Session::clone(&session) }))
}

/// As [`with_carried_over`]. The session keeps what it takes over.
pub(super) fn take_carried_over(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    located: &Located,
    session: Arc<Session>,
    now: Time,
) -> Result<Arc<Session>, ChangeError> {
    let read = |key: &RecordKey| transaction.get(key).map_err(ChangeError::from);
    let joined = with_carried_over(plan, located, Arc::clone(&session), now, read)?;
    if !Arc::ptr_eq(&joined, &session) {
        transaction.put(Record::Session(Arc::clone(&joined)));
    }
    Ok(joined)
}

/// Refuses an agent that left the subject out, if its session alone was ended. `alone` is the id of that session.
pub(crate) fn refuse_alone_taken_away(
    keeper: &Keeper,
    alone: &str,
    now: Time,
    wait: Wait,
) -> Result<(), CallRefusal> {
    match keeper.peek(&key(alone), wait)? {
        Some(Record::Session(known)) if known.lasts(now) && known.ended_at.is_some() => {
            Err(alone_taken_away())
        }
        _ => Ok(()),
    }
}

fn alone_taken_away() -> CallRefusal {
    let what = "what the agent may do without a subject was taken away";
    CallRefusal::new(ReasonCode::Revoked, Step::Locate, what)
}

/// Session of an agent alone, which takes over changes now.
fn carrier(
    transaction: &mut dyn Transaction,
    task: &Task,
    alone: &str,
    now: Time,
) -> Result<Session, StoreError> {
    let known = session(transaction, alone)?.filter(|known| known.lasts(now));
    let mut held = known.map_or_else(
        || Session {
            id: alone.to_owned(),
            root: alone.to_owned(),
            tasks: u32::from(task.kind == TaskKind::Implicit),
            started_at: now,
            expires_at: now,
            ended_at: None,
            denied: false,
            agent: None,
            history: SessionHistory::new(),
            rest: Default::default(),
        },
        |known| Session::clone(&known),
    );
    held.expires_at = held.expires_at.max(after(now, BARRED_MS));
    Ok(held)
}

/// Ends the session of an agent alone, because one of its sessions with a subject was ended. Its record is locked.
///
/// `by_denials` is true if denials ended the session with the subject. An administrator who forgets the denials gives the session
/// back.
pub(crate) fn bar_alone(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    task: &Task,
    alone: &str,
    by_denials: bool,
    now: Time,
) -> Result<(), StoreError> {
    let mut held = carrier(transaction, task, alone, now)?;
    if task.kind == TaskKind::Implicit {
        let key = RecordKey::new(RecordKind::Task, alone);
        let known = match transaction.get(&key)? {
            Some(Record::Task(known)) => Some(known),
            _ => None,
        };
        if let Some(barred) = barred_alone(plan, known.as_deref(), task, now) {
            transaction.put(Record::Task(Arc::new(barred)));
        }
    } else if by_denials {
        held.end_by_denials(now);
    } else {
        held.end(now);
    }
    transaction.put(Record::Session(Arc::new(held)));
    Ok(())
}
