//! What the session of a task did before: recalled for a decision, and added to by its answer.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{HistoryChanges, HistoryView, SessionHistory};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Record, RecordKey, RecordKind, Session, Task};
use authz_state::store::{StoreError, Transaction};

use crate::ask::{Refused, Step};
use crate::ending::after;
use crate::engine::Stop;
use crate::judgement::Judgement;
use crate::keeper::{Keeper, Wait};
use crate::locate::Located;

/// What a decision knows of the session that it is made in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recalled(Option<Arc<Session>>);

impl Recalled {
    /// Of a session that begins with the decision.
    pub(crate) fn new(task: &Task, now: Time, retention_ms: u64) -> Self {
        Self(Some(Arc::new(begun(task, now, retention_ms))))
    }

    /// As the kernel reads it; none where it was not recalled.
    pub(crate) fn view(&self) -> Option<HistoryView<'_>> {
        self.history().map(|session| HistoryView { session })
    }

    /// What the session did; none where it was not recalled.
    pub(crate) fn history(&self) -> Option<&SessionHistory> {
        self.0.as_deref().map(|session| &session.history)
    }
}

/// The session of a root task that begins now.
pub(crate) fn begun(task: &Task, now: Time, retention_ms: u64) -> Session {
    Session {
        id: task.session.clone(),
        root: task.id.clone(),
        tasks: 1,
        started_at: now,
        expires_at: after(task.deadline, retention_ms),
        history: SessionHistory::new(),
        rest: Default::default(),
    }
}

/// Recalls what a session did, as this node knows it, where the operation has to do with that.
pub(crate) fn recall(
    keeper: &Keeper,
    plan: &Plan,
    operation: &str,
    located: &Located,
    wait: Wait,
) -> Result<Recalled, Refused> {
    if !plan.recalls(operation) {
        return Ok(Recalled::default());
    }
    match keeper.peek(&key(&located.task.session), wait)? {
        Some(Record::Session(session)) => Ok(Recalled(Some(session))),
        _ => Err(lost()),
    }
}

/// Recalls what a session did, as it is now, where the operation has to do with that.
pub(crate) fn current(
    transaction: &mut dyn Transaction,
    plan: &Plan,
    operation: &str,
    located: &Located,
) -> Result<Recalled, Stop> {
    if !plan.recalls(operation) {
        return Ok(Recalled::default());
    }
    let session = session(transaction, &located.task.session)?.ok_or_else(lost)?;
    Ok(Recalled(Some(session)))
}

/// Recalls what a session did, as it is now; true where that is not what the decision was made on.
pub(crate) fn recall_in(
    transaction: &mut dyn Transaction,
    judgement: &mut Judgement,
    located: &Located,
) -> Result<bool, Stop> {
    let Some(before) = judgement.recalled.history() else { return Ok(false) };
    let session = match session(transaction, &located.task.session)? {
        Some(session) => session,
        // It begins with this decision.
        None if before.is_empty() => return Ok(false),
        None => return Err(lost().into()),
    };
    let has_changed = session.history != *before;
    judgement.recalled = Recalled(Some(session));
    Ok(has_changed)
}

/// Adds what an answer changes to the session.
pub(crate) fn remember(
    transaction: &mut dyn Transaction,
    judgement: &Judgement,
    located: &Located,
) -> Result<(), Stop> {
    let Some(changes) = changes(judgement) else { return Ok(()) };
    let session = session(transaction, &located.task.session)?.ok_or_else(lost)?;
    let mut session = Session::clone(&session);
    let now = Time(judgement.now_ms);
    session.history.apply(changes, &judgement.id, &judgement.operation, now);
    transaction.put(Record::Session(Arc::new(session)));
    Ok(())
}

/// What the answer changes in the session; none where that is nothing.
pub(crate) fn changes(judgement: &Judgement) -> Option<&HistoryChanges> {
    let decision = judgement.standing()?;
    let changes = decision.changes(judgement.softened().is_some());
    (!changes.is_empty()).then_some(changes)
}

fn session(
    transaction: &mut dyn Transaction,
    id: &str,
) -> Result<Option<Arc<Session>>, StoreError> {
    match transaction.get(&key(id))? {
        Some(Record::Session(session)) => Ok(Some(session)),
        _ => Ok(None),
    }
}

fn key(session: &str) -> RecordKey {
    RecordKey::new(RecordKind::Session, session)
}

fn lost() -> Refused {
    Refused::new(
        ReasonCode::StateUnavailable,
        Step::Locate,
        "what the task's session did before is not kept any more",
    )
}
