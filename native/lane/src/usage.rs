//! Use of a task: whether its caller may use it now, and when it was last used.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::{Record, Task};
use authz_state::store::Transaction;

use crate::engine::Engine;
use crate::judgement::CallerIdentity;
use crate::locate::{self, Located, is_due_for_touch};
use crate::refusal::CallRefusal;

impl Engine {
    /// Refuses a task in which the caller may do nothing now.
    pub(crate) fn check_usable(
        &self,
        located: &Located,
        caller: &CallerIdentity,
        now: Time,
    ) -> Result<(), CallRefusal> {
        let revoked = self.keeper.revocations()?;
        locate::usable(located, &revoked, &caller.facts, now)
    }
}

/// Notes that a task and the tasks above it are in use, so that they do not time out. The note has a grain of a tenth of the
/// time-out.
///
/// Returns whether it changed a record.
pub(crate) fn touch_tasks(transaction: &mut dyn Transaction, located: &Located, now: Time) -> bool {
    let mut is_changed = false;
    for task in located.path().filter(|task| is_due_for_touch(task, now)) {
        let task = Task { last_used: now, ..Task::clone(task) };
        transaction.put(Record::Task(Arc::new(task)));
        is_changed = true;
    }
    is_changed
}
