//! Refuses an agent after its task was ended because of denials.

use authz_kernel::decision::Time;
use authz_kernel::plan::Plan;
use authz_kernel::task::{Party, Task, TaskView, denied_pair};

use super::records::pair_of;
use crate::keeper::{Keeper, Wait};
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};

/// Time for which a pair is kept whose task was ended because of denials, in milliseconds: 30 days.
pub(super) const DENIED_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// Refuses an agent that may not begin a task for its subject, as this node knows it.
pub(crate) fn may_begin(
    keeper: &Keeper,
    task: &Task,
    now: Time,
    wait: Wait,
) -> Result<(), CallRefusal> {
    not_denied(pair_of(task, now, |key| keeper.peek(key, wait))?.as_deref())
}

/// Refuses a task that an agent would begin for a subject, if its last task was ended because of denials.
pub(super) fn not_denied(pair: Option<&Party>) -> Result<(), CallRefusal> {
    if pair.is_some_and(|pair| pair.denied_at.is_some()) { Err(denied()) } else { Ok(()) }
}

/// Refuses a call in a task that the agent began itself, if another task for the subject was ended because of denials.
pub(super) fn not_barred(pair: Option<&Party>, task: TaskView<'_>) -> Result<(), CallRefusal> {
    if pair.is_some_and(|pair| pair.bar().holds_in(task)) { Err(denied()) } else { Ok(()) }
}

/// Refuses calls of an agent that denials bar, in a task that it began itself, as this node knows it.
pub(crate) fn refuse_barred(
    keeper: &Keeper,
    plan: &Plan,
    located: &Located,
    now: Time,
    wait: Wait,
) -> Result<(), CallRefusal> {
    if plan.model().denials.is_none() {
        return Ok(());
    }
    let pair = pair_of(&located.task, now, |key| keeper.peek(key, wait))?;
    not_barred(pair.as_deref(), located.view())
}

pub(super) fn denied() -> CallRefusal {
    let refused = denied_pair();
    CallRefusal::new(refused.reason, Step::Locate, refused.message)
}
