//! Tallies: the number of open approvals and of recent approvals, for each queue, task and agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::model::ApprovalRules;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::approval::{Approval, ApprovalQueue, CONFIRM, OpenedApproval};
use authz_kernel::task::{Record, RecordKey, RecordKind, TaskSubject};
use authz_state::store::{Page, Query, StoreError, Transaction};

use super::{StepUpCall, tally_name};
use crate::keeper::{ChangeError, Keeper, Wait};
use crate::metrics::{HeldQueue, OpenApprovals};
use crate::refusal::{CallRefusal, Step};

/// Prefixes of the ids of tallies.
const QUEUE: &str = "queue/";
const TASK: &str = "task/";
const AGENT: &str = "agent/";
/// Tallies that are counted at once, and in how many steps.
const PAGE: usize = 1_000;
const MAX_PAGES: usize = 20;
/// Rules, and bytes of their names, in one label.
const MAX_RULES: usize = 4;
const MAX_LABEL: usize = 256;

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
        let id = approval.approval_id();
        // The tallies of the queues come first, in their order.
        let mut queues = self.queues.iter();
        for key in &self.tallies {
            let mut tally = read(transaction, key)?;
            tally.forget_ended(now);
            check(&tally, rules, now)?;
            tally.add(&id, approval.expires_at, now);
            if let Some(queue) = queues.next() {
                let rule = rule_label(approval, queue, rules);
                tally.opened.insert(id.clone(), OpenedApproval { at: approval.created_at, rule });
            }
            tallies.push(tally);
        }
        for tally in tallies {
            transaction.put(Record::ApprovalQueue(Arc::new(tally)));
        }
        Ok(())
    }
}

/// Refuses one more approval where a tally is full.
fn check(tally: &ApprovalQueue, rules: &ApprovalRules, now: Time) -> Result<(), CallRefusal> {
    let open = tally.open_at(now).count() as u64;
    let (what, most) = if tally.id.starts_with(TASK) {
        ("the task", rules.open_per_task)
    } else if tally.id.starts_with(AGENT) {
        ("the agent", rules.open_per_agent)
    } else {
        let queue = queue_name(&tally.id);
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
        if tally.remove(&id) {
            transaction.put(Record::ApprovalQueue(Arc::new(tally)));
        }
    }
    Ok(())
}

/// Remembers the values of an approved call, which is made now, for later cards of its task.
pub(crate) fn remember_values(
    transaction: &mut dyn Transaction,
    approval: &Approval,
    tallies: &[RecordKey],
) -> Result<(), StoreError> {
    let Some(key) = tallies.iter().find(|key| key.id.starts_with(TASK)) else { return Ok(()) };
    let mut tally = read(transaction, key)?;
    tally.remember(approval);
    transaction.put(Record::ApprovalQueue(Arc::new(tally)));
    Ok(())
}

/// Values of the approved calls of a task, the latest first. Empty for a call without a task.
pub(crate) fn earlier_values(
    transaction: &mut dyn Transaction,
    tallies: &[RecordKey],
) -> Result<Vec<String>, StoreError> {
    let key = tallies.iter().find(|key| key.id.starts_with(TASK));
    key.map_or(Ok(Vec::new()), |key| read(transaction, key).map(|tally| tally.values))
}

/// The queues that an approval counts in, each with the rules that hold the call for it.
pub(crate) fn held_queues(
    approval: &Approval,
    queues: &[String],
    rules: &ApprovalRules,
) -> Vec<HeldQueue> {
    let held = queues
        .iter()
        .map(|queue| HeldQueue { queue: queue.clone(), rule: rule_label(approval, queue, rules) });
    held.collect()
}

/// Names of the rules that hold an approval for a queue, as one label: a call that several rules hold counts once.
pub(crate) fn rule_label(approval: &Approval, queue: &str, rules: &ApprovalRules) -> String {
    let names = approval.rules_of(queue, &rules.confirm_without_person);
    let mut label = String::new();
    for (number, name) in names.into_iter().enumerate() {
        if number >= MAX_RULES || label.len().saturating_add(name.len()) > MAX_LABEL {
            label.push_str(", more");
            break;
        }
        if number > 0 {
            label.push_str(", ");
        }
        label.push_str(name);
    }
    label
}

/// Open approvals by queue and rule, as this node knows them. The `confirm` queues of all people count together.
pub(crate) fn open_approvals(
    keeper: &Keeper,
    wait: Wait,
    now: Time,
) -> Result<BTreeMap<HeldQueue, OpenApprovals>, CallRefusal> {
    let query = Query::Prefix(RecordKind::ApprovalQueue, QUEUE.to_owned());
    let (mut open, mut after) = (BTreeMap::<HeldQueue, OpenApprovals>::new(), String::new());
    for _ in 0..MAX_PAGES {
        let records = keeper.find(&query, &Page { after, most: PAGE }, wait)?;
        let Some(last) = records.last() else { break };
        after = last.key().id.to_string();
        for record in records {
            let Record::ApprovalQueue(tally) = record else { continue };
            for (id, _) in tally.open_at(now) {
                let opened = tally.opened.get(id);
                let rule = opened.map(|opened| opened.rule.clone()).unwrap_or_default();
                let held = HeldQueue { queue: queue_name(&tally.id).to_owned(), rule };
                open.entry(held).or_default().add(opened.map(|opened| opened.at));
            }
        }
    }
    Ok(open)
}

/// Tallies that an approval is in.
pub(crate) fn tallies_of(approval: &Approval) -> Vec<RecordKey> {
    let agent = approval.agents.last().map_or("", |agent| agent.spiffe_id.as_str());
    let task = approval.in_task.then_some(approval.task.as_str());
    let ids = tally_ids(&approval.queues, approval.subject.as_ref(), task, agent);
    ids.into_iter().map(|id| RecordKey::new(RecordKind::ApprovalQueue, id)).collect()
}

/// Name of the queue of a tally.
fn queue_name(id: &str) -> &str {
    let queue = id.strip_prefix(QUEUE).unwrap_or_default();
    if queue.starts_with("confirm/") { CONFIRM } else { queue }
}

/// Returns the tally of a key, or an empty tally.
fn read(transaction: &mut dyn Transaction, key: &RecordKey) -> Result<ApprovalQueue, StoreError> {
    debug_assert_eq!(RecordKind::ApprovalQueue, key.kind);
    Ok(match transaction.get(key)? {
        Some(Record::ApprovalQueue(tally)) => ApprovalQueue::clone(&tally),
        _ => ApprovalQueue { id: key.id.to_string(), ..ApprovalQueue::default() },
    })
}
