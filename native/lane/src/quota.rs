//! Bounds of the tasks of an agent, of a pair and of a tree, which a new task must fit into.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{self, Record, RecordKey, RecordKind, Task, TaskStatus};
use authz_state::store::{Page, Query, Transaction};

use crate::ending::after;
use crate::engine::Engine;
use crate::history;
use crate::keeper::ChangeError;
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};

/// Records that are read at once.
const PAGE: usize = 1_000;

impl Engine {
    /// Counts a new task in the records of its agent and its pair, or in those of its giver as long as the agent did not use the
    /// task. The caller of this function has locked these records.
    ///
    /// # Errors
    /// The agent has as many tasks as it may.
    pub(crate) fn admit_task(
        &self,
        transaction: &mut dyn Transaction,
        task: &Task,
        now: Time,
    ) -> Result<(), ChangeError> {
        let giver = task.counts_for_starter().then_some(task.starter.as_str());
        self.check_live_tasks(transaction, (task.assignee(), giver), now)?;
        let settings = self.keeper.settings();
        let (most, kept) = (settings.max_tasks, self.keeper.store().health().tasks);
        // As long as a third is not used, nobody has more than its share.
        let free = (kept.saturating_mul(3) >= most).then(|| most.saturating_sub(kept));
        let until = after(task.deadline, settings.retention_ms);
        if history::count_task(transaction, &task.counted_chain(), now, until, free)? {
            return Ok(());
        }
        Err(overloaded(
            "the agent has as many tasks for this subject as its share of the store allows; ended ones count until they \
             are forgotten",
        ))
    }

    /// Refuses one more live task of an agent that has as many as it may.
    ///
    /// `giver` is the agent that gives the task. The task counts against the giver until the agent uses it. Default: it counts
    /// against the agent.
    pub(crate) fn check_live_tasks(
        &self,
        transaction: &mut dyn Transaction,
        (agent, giver): (&str, Option<&str>),
        now: Time,
    ) -> Result<(), ChangeError> {
        let most = self.keeper.settings().max_tasks_per_agent;
        // As long as there are fewer altogether, nobody has more.
        if self.keeper.store().health().tasks < most {
            return Ok(());
        }
        let counts = |record: &Record| {
            let Record::Task(task) = record else { return false };
            let is_of_share = match giver {
                Some(giver) => task.counts_for_starter() && task.starter == giver,
                None => !task.counts_for_starter(),
            };
            is_of_share && task.status_at(now) == TaskStatus::Active
        };
        let query = Query::LiveOf(agent.to_owned());
        let live = match count_records(transaction, &query, most, counts)? {
            live if live < most => return Ok(()),
            live => live,
        };
        Err(overloaded(match giver {
            Some(_) => format!(
                "the agent has {live} tasks of this giver that count against the giver, at most {most} are allowed"
            ),
            None => format!("the agent has {live} live tasks, at most {most} are allowed"),
        }))
    }

    /// Refuses one more session of a caller without a task that has as many as it may: one for each subject that it acts for.
    pub(crate) fn check_taskless_sessions(
        &self,
        transaction: &mut dyn Transaction,
        taskless: &Task,
    ) -> Result<(), ChangeError> {
        let chain = taskless.chain();
        let Some(caller) = chain.last() else { return Ok(()) };
        let most = self.keeper.settings().max_tasks_per_agent;
        // As long as there are fewer altogether, nobody has more.
        if self.keeper.store().health().sessions < most {
            return Ok(());
        }
        let query = Query::Prefix(RecordKind::Session, task::taskless_of(caller));
        let count = count_records(transaction, &query, most, |_| true)?;
        if count < most {
            return Ok(());
        }
        Err(overloaded(format!(
            "the caller acts for {count} subjects without a task, and for no more"
        )))
    }

    /// Counts one more task in the tree of `parent`.
    ///
    /// # Errors
    /// The tree or the agent has as many tasks as it may, or the tree is no longer kept.
    pub(crate) fn admit_child(
        &self,
        transaction: &mut dyn Transaction,
        parent: &Located,
        child: &Task,
        now: Time,
    ) -> Result<(), ChangeError> {
        self.admit_task(transaction, child, now)?;
        let most = self.keeper.settings().max_tasks_per_session;
        let session = RecordKey::new(RecordKind::Session, &parent.task.session);
        let Some(Record::Session(mut session)) = transaction.get(&session)? else {
            return Err(ChangeError::Refused(CallRefusal::new(
                ReasonCode::TaskEnded,
                Step::Locate,
                "the task tree is no longer kept",
            )));
        };
        if session.tasks >= most {
            let message = format!("the task tree has {most} tasks, and no more are allowed");
            return Err(overloaded(message));
        }
        let tasks = session.tasks.saturating_add(1);
        Arc::make_mut(&mut session).tasks = tasks;
        transaction.put(Record::Session(session));
        Ok(())
    }
}

/// Counts the records of a query, page by page, until there are `most`.
fn count_records(
    transaction: &mut dyn Transaction,
    query: &Query,
    most: u64,
    counts: impl Fn(&Record) -> bool,
) -> Result<u64, ChangeError> {
    let mut count = 0_u64;
    let mut after = String::new();
    while count < most {
        let records = transaction.find(query, &Page { after, most: PAGE })?;
        let Some(last) = records.last() else { break };
        after = last.key().id.to_string();
        count = count.saturating_add(records.iter().filter(|record| counts(record)).count() as u64);
    }
    Ok(count)
}

fn overloaded(message: impl Into<String>) -> ChangeError {
    ChangeError::Refused(CallRefusal::new(ReasonCode::Overloaded, Step::Record, message))
}
