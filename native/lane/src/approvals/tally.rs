//! Tallies: the number of open approvals and of recent approvals, for each queue, task and agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::model::ApprovalRules;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::approval::{Approval, ApprovalQueue, CONFIRM};
use authz_kernel::task::{Record, RecordKey, RecordKind, TaskSubject};
use authz_state::store::{Page, Query, StoreError, Transaction};

use super::{StepUpCall, tally_name};
use crate::keeper::{ChangeError, Keeper, Wait};
use crate::refusal::{CallRefusal, Step};

/// Prefixes of the ids of tallies.
const QUEUE: &str = "queue/";
const TASK: &str = "task/";
const AGENT: &str = "agent/";
/// Tallies that are counted at once, and in how many steps.
const PAGE: usize = 1_000;
const MAX_PAGES: usize = 20;

/// Returns the ids of the tallies of an approval: its queues, its task and its agent. Each person has a separate queue `confirm`.
///
/// `task` is `None` for a call without a task. Such calls have no tally of a task, because it would never end.
pub(crate) fn tally_ids(
    queues: &[String],
    subject: Option<&TaskSubject>,
    task: Option<&str>,
    agent: &str,
) -> Vec<String> {
    let of_queues = queues.iter().map(|queue| match (queue.as_str(), subject) {
        (CONFIRM, Some(subject)) => confirm_tally(&subject.issuer, &subject.sub),
        _ => format!("{QUEUE}{queue}"),
    });
    let of_task = task.map(|task| format!("{TASK}{}", tally_name(task)));
    let of_agent = format!("{AGENT}{}", tally_name(agent));
    of_queues.chain(of_task).chain([of_agent]).collect()
}

/// Returns the id of the tally of a person's `confirm` queue.
pub(crate) fn confirm_tally(issuer: &str, sub: &str) -> String {
    format!("{QUEUE}{CONFIRM}/{}", tally_name(&format!("{issuer}\n{sub}")))
}

impl StepUpCall {
    /// Adds a new approval to its tallies.
    ///
    /// # Errors
    /// A queue, the task or the agent has its maximum number of approvals (APPROVER_BUSY).
    pub(crate) fn open(
        &self,
        transaction: &mut dyn Transaction,
        rules: &ApprovalRules,
        approval: &Approval,
        now: Time,
    ) -> Result<(), ChangeError> {
        let mut tallies = Vec::with_capacity(self.tallies.len());
        for key in &self.tallies {
            let mut tally = read(transaction, key)?;
            tally.forget_ended(now);
            check(&tally, rules)?;
            tally.add(&approval.approval_id(), approval.expires_at, now);
            tallies.push(tally);
        }
        for tally in tallies {
            transaction.put(Record::ApprovalQueue(Arc::new(tally)));
        }
        Ok(())
    }
}

/// Refuses a further approval if a tally is full.
fn check(tally: &ApprovalQueue, rules: &ApprovalRules) -> Result<(), CallRefusal> {
    let open = tally.open.len() as u64;
    let (what, most) = if tally.id.starts_with(TASK) {
        ("the task", rules.open_per_task)
    } else if tally.id.starts_with(AGENT) {
        ("the agent", rules.open_per_agent)
    } else {
        let queue = tally.id.strip_prefix(QUEUE).unwrap_or_default();
        let queue = if queue.starts_with("confirm/") { CONFIRM } else { queue };
        let rule = rules.queue(queue);
        if tally.made_lately() >= u64::from(rule.max_hourly) {
            return Err(busy(format!(
                "the queue `{queue}` took {} approvals within the last hour, which is its maximum",
                rule.max_hourly
            )));
        }
        ("the queue", rule.max_open)
    };
    if open >= u64::from(most) {
        return Err(busy(format!("{what} has {open} open approvals, which is its maximum")));
    }
    Ok(())
}

fn busy(message: String) -> CallRefusal {
    let refused = CallRefusal::new(ReasonCode::ApproverBusy, Step::Judge, message);
    CallRefusal { understood: true, ..refused }
}

/// Removes an approval from its tallies. The caller has the locks of their records.
pub(crate) fn close(
    transaction: &mut dyn Transaction,
    approval: &Approval,
    tallies: &[RecordKey],
    now: Time,
) -> Result<(), StoreError> {
    let id = approval.approval_id();
    for key in tallies {
        let mut tally = read(transaction, key)?;
        tally.forget_ended(now);
        if tally.open.remove(&id).is_some() {
            transaction.put(Record::ApprovalQueue(Arc::new(tally)));
        }
    }
    Ok(())
}

/// Returns the number of open approvals by queue, as known to this node. The `confirm` queues of all people count as one.
pub(crate) fn open_by_queue(
    keeper: &Keeper,
    wait: Wait,
    now: Time,
) -> Result<BTreeMap<String, u64>, CallRefusal> {
    let query = Query::Prefix(RecordKind::ApprovalQueue, QUEUE.to_owned());
    let (mut counts, mut after) = (BTreeMap::new(), String::new());
    for _ in 0..MAX_PAGES {
        let records = keeper.find(&query, &Page { after, most: PAGE }, wait)?;
        let Some(last) = records.last() else { break };
        after = last.key().id.to_string();
        for record in records {
            let Record::ApprovalQueue(tally) = record else { continue };
            let queue = tally.id.strip_prefix(QUEUE).unwrap_or_default();
            let queue = if queue.starts_with("confirm/") { CONFIRM } else { queue };
            let open = tally.open.values().filter(|until| **until > now).count() as u64;
            let count: &mut u64 = counts.entry(queue.to_owned()).or_default();
            *count = count.saturating_add(open);
        }
    }
    Ok(counts)
}

/// Returns the tally of a key, or an empty tally.
fn read(transaction: &mut dyn Transaction, key: &RecordKey) -> Result<ApprovalQueue, StoreError> {
    debug_assert_eq!(RecordKind::ApprovalQueue, key.kind);
    Ok(match transaction.get(key)? {
        Some(Record::ApprovalQueue(tally)) => ApprovalQueue::clone(&tally),
        _ => ApprovalQueue { id: key.id.to_string(), ..ApprovalQueue::default() },
    })
}
