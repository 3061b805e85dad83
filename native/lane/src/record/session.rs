//! The task and the session of a call, and the changes of the session by the answer.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::history::{Advance, HistoryChanges, RunChange, SessionHistory, Spending};
use authz_kernel::task::Task;
use serde::{Serialize, Serializer};

use crate::judgement::Judgement;

/// History of the session of a call.
#[derive(Serialize)]
pub(super) struct SessionNote<'a> {
    /// Id of a session without a task. The id of any other session stands in `task`.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// The labels that it carries, and the decision that brought each.
    labels: CarriedLabels<'a>,
    sources: usize,
    calls: u64,
    /// Labels that its agent remembers of other tasks, where they count, and the decision that brought each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    remembered: BTreeMap<&'a str, &'a str>,
    /// Labels that what it acts on keeps of those that wrote it, and the decision by which each was written.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    written: BTreeMap<&'a str, &'a str>,
    /// Denials in the task's run since something was last let through.
    #[serde(skip_serializing_if = "is_zero")]
    denials: usize,
}

impl<'a> SessionNote<'a> {
    pub(super) fn of(judgement: &'a Judgement) -> Option<Self> {
        let history = judgement.context.recalled.seen()?;
        let remembered = judgement.context.recalled.remembered(judgement.arrival.now());
        let (session, taskless) = judgement.context.recalled.of_session()?;
        Some(Self {
            id: taskless.then_some(session),
            labels: CarriedLabels(history),
            sources: history.count_sources(),
            calls: history.calls,
            remembered: remembered.map(|(label, from)| (label, from.decision_id)).collect(),
            written: judgement
                .context
                .recalled
                .written(judgement.arrival.now())
                .map(|(label, from)| (label, from.decision_id.as_str()))
                .collect(),
            denials: judgement.context.recalled.denials(),
        })
    }
}

/// Labels that a session carries, in order, each with the earliest decision that brought it.
struct CarriedLabels<'a>(&'a SessionHistory);

impl Serialize for CarriedLabels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(history) = self;
        let carried = history.carried().map(|(label, from)| (label, from.decision_id));
        if history.pending.is_empty() {
            // Without pending permits the labels are in order.
            return serializer.collect_map(carried);
        }
        let mut labels = BTreeMap::new();
        for (label, decision_id) in carried {
            labels.entry(label).or_insert(decision_id);
        }
        serializer.collect_map(labels)
    }
}

/// Changes of the history by the answer.
#[derive(Serialize)]
pub(super) struct ChangesNote<'a> {
    /// Labels that join.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    labels: BTreeSet<&'a String>,
    /// Labels that what is written keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<&'a BTreeSet<String>>,
    /// Rules over the order of events that the answer is a step of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sequences: Vec<&'a str>,
    /// Budgets that it spends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<&'a str>,
    /// Change of the task's run of denials: `grows`, `ends`, or `ends_task`.
    #[serde(skip_serializing_if = "Option::is_none")]
    denials: Option<&'static str>,
}

impl<'a> ChangesNote<'a> {
    pub(super) fn of(changes: &'a HistoryChanges) -> Self {
        Self {
            labels: changes.joining().collect(),
            written: changes.written.as_ref().map(|written| &written.labels),
            sequences: changes.advances.iter().map(Advance::name).collect(),
            budgets: changes.spends.iter().map(Spending::name).collect(),
            denials: changes.run.as_ref().map(|run| match run {
                RunChange::Grows { ends_task: true, .. } => "ends_task",
                RunChange::Grows { .. } => "grows",
                RunChange::Ends { .. } => "ends",
            }),
        }
    }
}

/// The task that was asked in, or about.
#[derive(Serialize)]
pub(super) struct TaskNote<'a> {
    id: &'a str,
    session: &'a str,
    template: &'a str,
    kind: &'a str,
    depth: u32,
    subject_proof: &'a str,
    assignee: &'a str,
    /// The agent declined the task before the first call in it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    declined: bool,
}

impl<'a> TaskNote<'a> {
    pub(super) fn of(task: &'a Task) -> Self {
        Self {
            id: &task.id,
            session: &task.session,
            template: &task.template,
            kind: task.kind.as_str(),
            depth: task.depth(),
            subject_proof: task.subject_proof.as_str(),
            assignee: task.assignee(),
            declined: task.declined,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}
