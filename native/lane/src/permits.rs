//! Permits that are kept until their outcome is known: the end of those whose outcome nobody reports.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{Event, Reported};
use authz_kernel::task::{Record, RecordKey, RecordKind, Reservation, Session, Task};
use authz_state::store::{StoreError, Transaction};

use crate::history;
use crate::steps::settle::forget_answer;

/// Gives back the uses that a permit counted and forgets the permit, since nothing can come of it any more.
pub(crate) fn release(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
    now: Time,
) -> Result<(), StoreError> {
    give_back(transaction, permit)?;
    forget_answer(transaction, permit)?;
    settle_unreported(transaction, permit, Event::Aborted, now)?;
    transaction.delete(RecordKey::new(RecordKind::Reservation, &permit.decision_id));
    Ok(())
}

/// Gives back the uses that a permit counted.
pub(crate) fn give_back(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
) -> Result<(), StoreError> {
    let mut tasks: Vec<&str> = permit.charged.iter().map(|(task, _)| task.as_str()).collect();
    tasks.sort_unstable();
    tasks.dedup();
    for id in tasks {
        if let Some(Record::Task(task)) = transaction.get(&RecordKey::new(RecordKind::Task, id))? {
            let mut task = Task::clone(&task);
            task.release(&permit.charged);
            transaction.put(Record::Task(Arc::new(task)));
        }
    }
    Ok(())
}

/// Settles a permit in the history of its session without a report.
///
/// `event` is [`Event::Unreported`], or [`Event::Aborted`] if nothing can come of the permit any more.
pub(crate) fn settle_unreported(
    transaction: &mut dyn Transaction,
    permit: &Reservation,
    event: Event,
    now: Time,
) -> Result<(), StoreError> {
    let Some(session) = history::session(transaction, &permit.session)? else { return Ok(()) };
    if !session.history.pending.contains_key(&permit.decision_id) {
        return Ok(());
    }
    let mut session = Session::clone(&session);
    session.history.settle(&permit.decision_id, &Reported::plain(event), now);
    transaction.put(Record::Session(Arc::new(session)));
    Ok(())
}
