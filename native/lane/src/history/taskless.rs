//! Sessions of callers without a task.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Record, Session, Task};
use authz_state::store::Transaction;

use super::records::{key, session};
use crate::keeper::ChangeError;
use crate::keeper::{Keeper, Wait};
use crate::refusal::{CallRefusal, Step};

/// Session of a caller without a task. If it is not kept, or its time is up, a new session.
pub(super) fn taskless(
    known: Option<Arc<Session>>,
    task: &Task,
    now: Time,
) -> Result<Arc<Session>, CallRefusal> {
    match known.filter(|known| known.lasts(now)) {
        Some(known) if known.ended_at.is_some() => {
            let what = "what the caller may do without a task was taken away";
            Err(CallRefusal::new(ReasonCode::Revoked, Step::Locate, what))
        }
        Some(known) => Ok(known),
        None => Ok(Arc::new(Session::taskless(task, now))),
    }
}

/// Refuses a caller without a task, if its session was ended.
pub(crate) fn refuse_taken_away(
    keeper: &Keeper,
    task: &Task,
    now: Time,
    wait: Wait,
) -> Result<(), CallRefusal> {
    let session = match keeper.peek(&key(&task.session), wait)? {
        Some(Record::Session(session)) => Some(session),
        _ => None,
    };
    taskless(session, task, now).map(drop)
}

/// Stores the session of a caller without a task from now on, and prolongs it if the call is let through. `room` refuses a further
/// record if the store is full.
pub(crate) fn hold(
    transaction: &mut dyn Transaction,
    task: &Task,
    is_passed: bool,
    now: Time,
    room: impl FnOnce(&mut dyn Transaction) -> Result<(), ChangeError>,
) -> Result<(), ChangeError> {
    let known = session(transaction, &task.session)?.filter(|known| known.lasts(now));
    let is_new = known.is_none();
    let mut held = known.unwrap_or_else(|| Arc::new(Session::taskless(task, now)));
    if is_new {
        room(transaction)?;
    }
    let is_prolonged = is_passed && Arc::make_mut(&mut held).prolong(now);
    if is_new || is_prolonged {
        transaction.put(Record::Session(held));
    }
    Ok(())
}
