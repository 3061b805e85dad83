//! Changes of approvals on this node, for waiting callers.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use authz_base::poison::IgnorePoison as _;
use authz_kernel::task::approval::{Approval, ApprovalStatus};

/// Maximum number of changes that are kept for slow readers.
const MAX_CHANGES: usize = 1_024;

/// One change of an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalChange {
    /// Id of the approval.
    pub approval_id: String,
    /// Id of its task. Empty if the call was made without a task.
    pub task: String,
    /// Its status after the change.
    pub status: &'static str,
    /// Queues that still lack an answer.
    pub queues: Vec<String>,
}

impl ApprovalChange {
    pub(crate) fn of(approval: &Approval) -> Self {
        Self {
            approval_id: approval.approval_id(),
            task: if approval.in_task { approval.task.clone() } else { String::new() },
            status: approval.status.as_str(),
            queues: match approval.status {
                ApprovalStatus::Open => {
                    approval.waits_for().into_iter().map(str::to_owned).collect()
                }
                _ => Vec::new(),
            },
        }
    }
}

/// The newest changes, numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct ApprovalChanges {
    ring: Mutex<Ring>,
    has_more: Condvar,
}

#[derive(Debug, Default)]
struct Ring {
    /// Number of the newest change.
    newest: u64,
    changes: VecDeque<ApprovalChange>,
}

impl ApprovalChanges {
    /// Adds a change and wakes all waiting callers.
    pub(crate) fn add(&self, change: ApprovalChange) {
        let mut ring = self.ring.lock().ignore_poison();
        ring.newest = ring.newest.saturating_add(1);
        ring.changes.push_back(change);
        if ring.changes.len() > MAX_CHANGES {
            ring.changes.pop_front();
        }
        drop(ring);
        self.has_more.notify_all();
    }

    /// Drops the stored changes, because other changes were lost.
    pub(crate) fn lose(&self) {
        let mut ring = self.ring.lock().ignore_poison();
        ring.newest = ring.newest.saturating_add(1);
        ring.changes.clear();
        drop(ring);
        self.has_more.notify_all();
    }

    /// Returns the changes after a number, and the number of the newest change. Waits at most `most` for a change.
    ///
    /// The changes are `None` if some are no longer stored, so that the reader must read all approvals again.
    pub(crate) fn after(&self, after: u64, most: Duration) -> (u64, Option<Vec<ApprovalChange>>) {
        let ring = self.ring.lock().ignore_poison();
        let (ring, _) = self
            .has_more
            .wait_timeout_while(ring, most, |ring| ring.newest == after)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let first = ring.newest.saturating_sub(ring.changes.len() as u64);
        // A number from another run of the process is higher than the newest, or so low that its changes were dropped.
        if after < first || after > ring.newest {
            return (ring.newest, None);
        }
        let skipped = usize::try_from(after.saturating_sub(first)).unwrap_or(usize::MAX);
        (ring.newest, Some(ring.changes.iter().skip(skipped).cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: usize) -> ApprovalChange {
        ApprovalChange {
            approval_id: number.to_string(),
            task: String::new(),
            status: "open",
            queues: Vec::new(),
        }
    }

    #[test]
    fn a_reader_that_is_too_slow_is_told() {
        let changes = ApprovalChanges::default();
        let read = |after| changes.after(after, Duration::ZERO);
        assert_eq!((0, Some(Vec::new())), read(0));
        (0..MAX_CHANGES).for_each(|number| changes.add(change(number)));
        assert_eq!(MAX_CHANGES as u64, read(0).0);
        assert_eq!(Some(MAX_CHANGES), read(0).1.map(|list| list.len()));
        assert_eq!(
            (MAX_CHANGES as u64, Some(vec![change(MAX_CHANGES - 1)])),
            read(MAX_CHANGES as u64 - 1)
        );
        changes.add(change(MAX_CHANGES));
        assert_eq!(None, read(0).1);
        assert_eq!(None, read(MAX_CHANGES as u64 + 2).1, "a number of an earlier process");
    }
}
