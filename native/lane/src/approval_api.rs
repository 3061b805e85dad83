//! Requests about approvals: people list, read and answer them through the host of the engine, and agents read their own.
//!
//! The host has verified a [`Person`] by a login at its page, by a passkey, or by the user of an administration socket. The engine
//! works out the roles of the person from the bundle and decides whether the person may answer. No request on a listener of
//! decisions can answer an approval, because agents can hold tokens.

mod approver;
mod passkeys;
mod person;
mod read;
mod resolve;
mod wire_form;

pub(crate) use person::Person;
pub use resolve::StatedAnswer;

use std::sync::Arc;
use std::time::Duration;

use authz_kernel::reason::ReasonCode;
use authz_kernel::task::approval::Approval;
use authz_kernel::task::{Record, RecordKey, RecordKind};

use crate::approvals::{ApprovalChange, tallies_of};
use crate::engine::Engine;
use crate::keeper::Wait;
use crate::refusal::{CallRefusal, Step};
use crate::transport::ApiError;

/// Operation that policies judge when a person answers the call of another person.
const APPROVE_OPERATION: &str = "authz.approve";
/// Longest wait for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Interval in which a waiting caller looks for changes of other nodes.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Engine {
    /// Returns the number of the newest change of an approval, and the changes after number `after`. Waits at most `wait` for one,
    /// and never longer than a minute.
    ///
    /// The changes are `None` if some are no longer stored, so that the caller must read all approvals again.
    #[must_use]
    pub fn approval_changes(
        &self,
        after: u64,
        wait: Duration,
    ) -> (u64, Option<Vec<ApprovalChange>>) {
        let mut left = wait.min(LONGEST_WAIT);
        if !self.keeper.store().is_remote() {
            return self.approval_changes.after(after, left);
        }
        loop {
            self.hear_approvals();
            let slice = left.min(LOOK_INTERVAL);
            let (newest, changes) = self.approval_changes.after(after, slice);
            left = left.saturating_sub(slice);
            if left.is_zero() || changes.as_ref().is_none_or(|changes| !changes.is_empty()) {
                return (newest, changes);
            }
        }
    }

    /// Adds the changes of approvals that other nodes wrote to the store.
    fn hear_approvals(&self) {
        let Some(ids) = self.keeper.store().take_changed_approvals() else {
            return self.approval_changes.lose();
        };
        for id in ids {
            let key = RecordKey::new(RecordKind::Approval, id);
            match self.keeper.peek(&key, self.host_wait()) {
                Ok(Some(Record::Approval(approval))) => {
                    self.approval_changes.add(ApprovalChange::of(&approval));
                }
                Ok(_) => {}
                Err(_) => return self.approval_changes.lose(),
            }
        }
    }

    /// Returns the approval of an id.
    ///
    /// # Errors
    /// The approval does not exist (APPROVAL_MISMATCH), or a newer approval of the same call replaces it (APPROVAL_EXPIRED).
    fn find_approval(&self, id: &str, wait: Wait) -> Result<Arc<Approval>, CallRefusal> {
        let (key, generation) = Approval::parse_id(id).ok_or_else(unknown)?;
        let known = match self.keeper.peek(&key, wait)? {
            Some(Record::Approval(known)) => known,
            _ => return Err(unknown()),
        };
        check_generation(&known, generation)?;
        Ok(known)
    }
}

/// Refuses an approval whose generation is not that of the record.
fn check_generation(known: &Approval, generation: u64) -> Result<(), CallRefusal> {
    if generation > known.generation {
        return Err(unknown());
    }
    if generation < known.generation {
        return Err(CallRefusal::new(
            ReasonCode::ApprovalExpired,
            Step::Locate,
            "a newer approval of the same call replaces this one",
        ));
    }
    Ok(())
}

/// The refusal for an approval that does not exist or that the caller may not see.
fn unknown() -> CallRefusal {
    CallRefusal::new(ReasonCode::ApprovalMismatch, Step::Locate, "there is no such approval")
}

/// Tallies of the queues that an open approval no longer waits for.
fn answered_tallies(approval: &Approval) -> Vec<RecordKey> {
    let waits = approval.waits_for();
    let mut tallies = tallies_of(approval);
    tallies.truncate(approval.queues.len());
    let of_queues = tallies.into_iter().zip(&approval.queues);
    of_queues.filter(|(_, queue)| !waits.contains(&queue.as_str())).map(|(key, _)| key).collect()
}

/// The error of a refusal.
pub(crate) fn error_of(refused: CallRefusal) -> ApiError {
    ApiError { step: refused.step.as_str(), ..ApiError::of(refused.reason, refused.message) }
}
