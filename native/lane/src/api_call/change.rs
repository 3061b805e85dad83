//! Changes of API calls, each in one transaction with its audit line.

use std::sync::Arc;

use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{RecordKey, Task};
use authz_state::store::{Survives, Transaction};

use crate::api_call::caller::ApiCaller;
use crate::api_call::outcome::{ApiChangeError, ApiGrant, ApiOutcome, ApiRefusal, WithRecord as _};
use crate::engine::Engine;
use crate::judgement::{ApiRecord, ApiVerdict};
use crate::record;
use crate::refusal::{CallRefusal, Step};

/// Grant of a call, as its transaction made it.
#[derive(Debug)]
pub(crate) struct GrantedChange<T> {
    answer: T,
    /// Message of the audit record.
    message: String,
    /// Members of the audit record that the transaction found out.
    record: ApiRecord,
}

impl<T> GrantedChange<T> {
    pub(crate) fn new(answer: T, message: impl Into<String>) -> Self {
        Self { answer, message: message.into(), record: ApiRecord::default() }
    }

    pub(crate) fn with_record(self, record: ApiRecord) -> Self {
        Self { record, ..self }
    }
}

impl GrantedChange<Arc<Task>> {
    /// The change of a call whose answer is a task.
    pub(crate) fn of_task(task: Arc<Task>, message: impl Into<String>) -> Self {
        let record = ApiRecord::of_task(&task);
        Self::new(task, message).with_record(record)
    }
}

/// Work of a transaction that ends in a grant.
pub(crate) type GrantChange<'a, T> =
    dyn FnMut(&mut dyn Transaction) -> Result<GrantedChange<T>, ApiChangeError> + 'a;

impl Engine {
    /// Makes the change of an API call and writes its audit line, in one transaction.
    ///
    /// `record` holds the members of the audit line that are known before the transaction.
    ///
    /// # Errors
    /// The call as refused: the change is refused, or store or audit queue failed.
    pub(crate) fn change_granted<T>(
        &self,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
        locks: &[RecordKey],
        survives: Survives,
        change: &mut GrantChange<'_, T>,
    ) -> ApiOutcome<T> {
        let granted = self.change_if_any(caller, record, locks, survives, change)?;
        granted.ok_or_else(|| {
            let message = "no decision was made";
            let refused = CallRefusal::new(ReasonCode::Unavailable, Step::Identify, message);
            ApiRefusal::from(refused).with_record(record)
        })
    }

    /// As [`Engine::change_granted`]; none if there was nothing to change, and so no line was written.
    pub(crate) fn change_if_any<T>(
        &self,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
        locks: &[RecordKey],
        survives: Survives,
        change: &mut GrantChange<'_, T>,
    ) -> Result<Option<ApiGrant<T>>, ApiRefusal> {
        let origin = caller.line.origin(self);
        let mut granted = None;
        // Members that the transaction found out before it failed.
        let mut known = ApiRecord::default();
        let kept = self.change_with_line(caller.wait, locks, survives, &mut |transaction| {
            granted = None;
            let change = change(transaction).map_err(|ApiChangeError { error, record }| {
                known = *record;
                error
            })?;
            known = change.record.or(record);
            let verdict = ApiVerdict::Granted(change.message.clone());
            let judgement = caller.judgement(known.clone(), verdict);
            granted = Some((change.answer, change.message));
            Ok(record::line(&judgement, &caller.evidence, origin, None))
        });
        match (kept, granted) {
            (Ok(kept @ Some(_)), Some((answer, message))) => {
                Ok(Some(ApiGrant { answer, message, record: known, kept }))
            }
            (Ok(_), _) => Ok(None),
            (Err(refused), _) => {
                Err(ApiRefusal::from(refused).with_record(&known).with_record(record))
            }
        }
    }
}
