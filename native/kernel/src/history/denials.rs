//! Runs of denials: what an agent is refused that tries one thing after another.
//!
//! A run is of one task, and of different calls: a repeat counts once. What is let through ends it.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::{HistoryView, MAX_MARKS, MAX_RUNS, SessionHistory};
use crate::hex::hex_start;
use crate::model::{Denials, Model, Tier};
use crate::schema::OWN_SYSTEM;
use crate::task::TaskView;

/// What an answer changes in the run of its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunChange {
    /// Another call was denied.
    Grows {
        /// The task.
        task: String,
        /// What was denied; none: it is known, or no more is kept.
        mark: Option<String>,
        /// So many are too many: the task ends.
        ends_task: bool,
    },
    /// Something was let through.
    Ends {
        /// The task.
        task: String,
        /// What was denied in the run.
        marks: BTreeSet<String>,
    },
}

/// The run of a task, under a bundle that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    rule: Denials,
    session: &'a SessionHistory,
    task: &'a str,
}

impl<'a> Run<'a> {
    /// None where the bundle counts none, or nothing is known of a task.
    pub(crate) fn of(
        model: &Model,
        system: &str,
        history: Option<HistoryView<'a>>,
        task: Option<TaskView<'a>>,
    ) -> Option<Self> {
        let rule = model.denials.filter(|_| system != OWN_SYSTEM)?;
        Some(Self { rule, session: history?.session, task: &task?.task.id })
    }

    /// Whether no more can be kept: then every task counts as one that was refused too often.
    fn is_full(self) -> bool {
        let all = &self.session.denials;
        let marks = all.values().map(BTreeSet::len).fold(0, usize::saturating_add);
        all.len() >= MAX_RUNS || marks >= MAX_RUNS
    }

    fn is_beyond(self, most: u32, more: usize) -> bool {
        let known = self.session.denials.get(self.task).map_or(0, BTreeSet::len);
        let is_many = u32::try_from(known.saturating_add(more)).is_ok_and(|count| count >= most);
        is_many || self.is_full()
    }

    /// The tier that counts after so many denials.
    pub(crate) fn tier(self, tier: Tier) -> Tier {
        if self.is_beyond(self.rule.raise_after, 0) { tier.next() } else { tier }
    }

    /// What denying a call changes.
    pub(crate) fn denied(self, operation: &str, digest: Option<[u8; 32]>) -> Option<RunChange> {
        let mark = mark(operation, digest);
        let known = self.session.denials.get(self.task);
        let is_known = known.is_some_and(|marks| marks.contains(&mark));
        let has_room = !self.is_full() && known.is_none_or(|marks| marks.len() < MAX_MARKS);
        let mark = Some(mark).filter(|_| !is_known && has_room);
        let more = usize::from(mark.is_some());
        let ends_task = self.rule.end_after.is_some_and(|most| self.is_beyond(most, more));
        let task = self.task.to_owned();
        (mark.is_some() || ends_task).then_some(RunChange::Grows { task, mark, ends_task })
    }

    /// What letting a call through changes.
    pub(crate) fn passed(self) -> Option<RunChange> {
        let marks = self.session.denials.get(self.task)?.clone();
        Some(RunChange::Ends { task: self.task.to_owned(), marks })
    }
}

/// What was denied: arguments may be long, or a secret.
fn mark(operation: &str, digest: Option<[u8; 32]>) -> String {
    let mut hash = Sha256::new();
    hash.update((operation.len() as u64).to_be_bytes());
    hash.update(operation);
    hash.update(digest.unwrap_or_default());
    hex_start(&hash.finalize(), 16)
}
