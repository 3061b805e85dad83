//! Records that say who chose a value: the words of a task's prompts, and the values that its session knows from reports.
//!
//! A start and each further prompt write the words, and a report that brings values writes the values. Calls read them only where
//! the bundle reads origins.
//!
//! INVARIANT (a missing record names nothing): both records only add to what a call may do, so a call without them is judged as
//! if nobody had named its values.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::history::{KnownValues, KnownValuesRecord, SessionHistory};
use authz_kernel::task::{
    Record, RecordKey, RecordKind, Session, SpokenWords, Task, TaskView, TaskWords, WordRecords,
};
use authz_state::store::{StoreError, Transaction};

/// The records of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OriginRecords {
    task: Option<Arc<TaskWords>>,
    root: Option<Arc<TaskWords>>,
    values: Option<Arc<KnownValuesRecord>>,
}

impl OriginRecords {
    /// The words of a task and of its root. `read` gives records.
    pub(crate) fn of_task<E>(
        view: TaskView<'_>,
        mut read: impl FnMut(&RecordKey) -> Result<Option<Record>, E>,
    ) -> Result<Self, E> {
        let mut words = |task: &Task| match task.names.has_words {
            true => read(&words_key(task)).map(as_words),
            false => Ok(None),
        };
        let task = words(view.task)?;
        let root = match view.ancestors.first() {
            Some(root) => words(root)?,
            None => task.clone(),
        };
        Ok(Self { task, root, values: None })
    }

    /// Adds the values of a session. `read` gives records.
    pub(crate) fn recall_values<E>(
        &mut self,
        session: &Session,
        read: impl FnOnce(&RecordKey) -> Result<Option<Record>, E>,
    ) -> Result<(), E> {
        self.values = match session.history.has_values {
            true => read(&values_key(session)).map(as_values)?,
            false => None,
        };
        Ok(())
    }

    pub(crate) fn words(&self) -> WordRecords<'_> {
        WordRecords { task: self.task.as_deref(), root: self.root.as_deref() }
    }

    /// The values that a session knows.
    pub(crate) fn values<'a>(&'a self, session: &'a SessionHistory) -> &'a KnownValues {
        self.values.as_deref().map_or(&session.values, |record| &record.values)
    }
}

fn words_key(task: &Task) -> RecordKey {
    RecordKey::new(RecordKind::Words, &task.id)
}

fn values_key(session: &Session) -> RecordKey {
    RecordKey::new(RecordKind::Values, &session.id)
}

fn as_words(record: Option<Record>) -> Option<Arc<TaskWords>> {
    match record {
        Some(Record::Words(words)) => Some(words),
        _ => None,
    }
}

fn as_values(record: Option<Record>) -> Option<Arc<KnownValuesRecord>> {
    match record {
        Some(Record::Values(values)) => Some(values),
        _ => None,
    }
}

/// Writes the words of a new task.
pub(crate) fn begin_words(transaction: &mut dyn Transaction, task: &Task, words: &SpokenWords) {
    if task.names.has_words {
        let record = TaskWords::new(task, words.clone());
        transaction.put(Record::Words(Arc::new(record)));
    }
}

/// Adds the words of a further prompt to those of a task. Words that an earlier version kept in the task move to their record.
pub(crate) fn extend_words(
    transaction: &mut dyn Transaction,
    task: &mut Task,
    words: &SpokenWords,
) -> Result<(), StoreError> {
    if words.is_empty() {
        return Ok(());
    }
    let earlier = std::mem::take(&mut task.names.words);
    let known = as_words(transaction.get(&words_key(task))?);
    let mut record = known.unwrap_or_else(|| Arc::new(TaskWords::new(task, earlier)));
    Arc::make_mut(&mut record).words.extend(words);
    task.names.has_words = true;
    transaction.put(Record::Words(record));
    Ok(())
}

/// Removes the words of a task that is forgotten.
pub(crate) fn forget_words(
    transaction: &mut dyn Transaction,
    task: &Task,
) -> Result<(), StoreError> {
    let key = words_key(task);
    if task.names.has_words && transaction.get(&key)?.is_some() {
        transaction.delete(key);
    }
    Ok(())
}

/// Lets a report add to the values that a session knows. The session changes only where it knows its first value.
pub(crate) fn change_values<R>(
    transaction: &mut dyn Transaction,
    session: &mut Session,
    now: Time,
    change: impl FnOnce(&mut KnownValues) -> R,
) -> Result<R, StoreError> {
    let key = values_key(session);
    // A session that begins anew under its old id knows nothing of the one before.
    let known = match session.history.has_values {
        true => as_values(transaction.get(&key)?),
        false => None,
    };
    let (mut values, rest) = match &known {
        Some(known) => (known.values.clone(), known.rest.clone()),
        None => (KnownValues::clone(&session.history.values), Default::default()),
    };
    let result = change(&mut values);
    if known.as_ref().is_none_or(|known| known.values != values) && !values.is_empty() {
        session.history.values = Default::default();
        session.history.has_values = true;
        let record = KnownValuesRecord { rest, ..KnownValuesRecord::new(&session.id, values, now) };
        transaction.put(Record::Values(Arc::new(record)));
    }
    Ok(result)
}

/// Removes the values of a session that is forgotten.
pub(crate) fn forget_values(
    transaction: &mut dyn Transaction,
    session: &Session,
) -> Result<(), StoreError> {
    let key = values_key(session);
    if session.history.has_values && transaction.get(&key)?.is_some() {
        transaction.delete(key);
    }
    Ok(())
}
