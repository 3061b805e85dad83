//! Runs of denials: what an agent is refused that tries one thing after another.
//!
//! A run is of different calls: a repeat counts once. What is let through ends it.
//!
//! An agent has one run for each subject, in the record of the pair: of all tasks that it began itself, and of all that it
//! does without one. Denials in tasks that another agent gave it are in a run of their own for each giver, so that no giver
//! ends or raises another's tasks, or the agent's own. A task that the subject alone or a front end began has a run of its
//! own. A child that an agent gives to itself is in its parent's run.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use super::{HistoryView, MAX_GIVERS, MAX_MARKS, SessionHistory};
use crate::digest::short;
use crate::hex::hex_start;
use crate::record::task::{TaskOrigin, TaskView};
use crate::tier::Tier;

/// Under what the record of a pair keeps denials in tasks that the agent did not get from another agent.
const NEXT: &str = "next";
/// Prefix of the name under which the record of a pair keeps denials in tasks of one giver.
const GIVEN: &str = "given/";
/// Givers beyond those that the record of a pair tells apart share a run.
const OTHERS: &str = "given";

/// Consequence of repeated denials of different calls in a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denials {
    /// Number of denials after which the tier of the next request is raised by one.
    pub raise_after: u32,
    /// After so many it ends.
    pub end_after: Option<u32>,
}

/// Principal that began the task of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BegunBy {
    /// Its agent.
    Agent,
    /// The subject alone, or a front end.
    User,
    /// Another agent: under what the record of the pair keeps denials in that agent's tasks.
    Giver(String),
}

/// Name of the run of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// Id of the topmost task of the run in this tree: it ends where there are too many denials.
    pub task: String,
    /// Principal that began it.
    pub begun_by: BegunBy,
    /// It is a root, so that the session keeps the denials, too.
    pub is_root: bool,
}

/// Change of an answer in the run of its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunChange {
    /// Another call was denied.
    Grows {
        /// The run.
        run: RunName,
        /// Digest of the denied call. `None`: it is known, or no more are kept.
        mark: Option<String>,
        /// So many are too many: the task ends.
        ends_task: bool,
    },
    /// Something was let through.
    Ends {
        /// The run.
        run: RunName,
        /// Denied calls of the run.
        marks: BTreeSet<String>,
    },
}

impl RunChange {
    const fn run(&self) -> &RunName {
        match self {
            Self::Grows { run, .. } | Self::Ends { run, .. } => run,
        }
    }

    /// Returns whether another agent gave the task to its agent: what happens in it restricts no task that the agent begins
    /// itself.
    #[must_use]
    pub const fn is_of_giver(&self) -> bool {
        matches!(self.run().begun_by, BegunBy::Giver(_))
    }

    /// The task that ends by it, as it was denied too much.
    #[must_use]
    pub fn ended_task(&self) -> Option<&str> {
        match self {
            Self::Grows { run, ends_task: true, .. } => Some(&run.task),
            Self::Grows { .. } | Self::Ends { .. } => None,
        }
    }
}

/// The run of a task, under a bundle that counts.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    rule: Denials,
    task: TaskView<'a>,
    marks: Marks<'a>,
}

impl<'a> Run<'a> {
    /// The run of a task; none where nothing is known of a task.
    #[must_use]
    pub fn new(
        rule: Denials,
        history: Option<HistoryView<'a>>,
        task: Option<TaskView<'a>>,
    ) -> Option<Self> {
        let (history, task) = (history?, task?);
        Some(Self { rule, task, marks: Marks::of(history, task) })
    }

    fn name(self) -> RunName {
        let entry = self.task.entry();
        let begun_by = match entry.origin() {
            TaskOrigin::Agent => BegunBy::Agent,
            TaskOrigin::User => BegunBy::User,
            TaskOrigin::Giver(giver) => BegunBy::Giver(given(giver)),
        };
        RunName { task: entry.id.clone(), begun_by, is_root: entry.ancestors.is_empty() }
    }

    fn is_beyond(self, most: u32, more: usize) -> bool {
        let count = self.marks.count().saturating_add(more);
        u32::try_from(count).is_ok_and(|count| count >= most)
    }

    /// The tier that counts after so many denials.
    pub fn tier(self, tier: Tier) -> Tier {
        if self.is_beyond(self.rule.raise_after, 0) { tier.next() } else { tier }
    }

    /// Change by a denial of a call.
    pub fn denied(self, operation: &str, digest: Option<[u8; 32]>) -> Option<RunChange> {
        let mark = mark(operation, digest);
        let has_room = self.marks.count() < MAX_MARKS;
        let mark = Some(mark).filter(|mark| has_room && !self.marks.contains(mark));
        let more = usize::from(mark.is_some());
        let ends_task = self.rule.end_after.is_some_and(|most| self.is_beyond(most, more));
        let is_change = mark.is_some() || ends_task;
        is_change.then(|| RunChange::Grows { run: self.name(), mark, ends_task })
    }

    /// Change by a permit of a call.
    pub fn passed(self) -> Option<RunChange> {
        if self.marks.count() == 0 {
            return None;
        }
        let marks = self.marks.all().cloned().collect();
        Some(RunChange::Ends { run: self.name(), marks })
    }
}

/// Denials of a run, in the records that keep it.
#[derive(Clone, Copy, Debug)]
struct Marks<'a> {
    session: Option<&'a BTreeSet<String>>,
    next: Option<&'a BTreeSet<String>>,
    given: Option<&'a BTreeSet<String>>,
}

impl<'a> Marks<'a> {
    fn of(history: HistoryView<'a>, task: TaskView<'a>) -> Self {
        let entry = task.entry();
        let origin = entry.origin();
        // The subject's task begins anew. INVARIANT (recalled): where denials count, the pair's record is at hand.
        let pair = history.pair.filter(|_| origin != TaskOrigin::User);
        let given = match origin {
            TaskOrigin::Giver(giver) => {
                pair.and_then(|pair| pair.denials.get(&pair.run_of(&given(giver))))
            }
            TaskOrigin::Agent | TaskOrigin::User => None,
        };
        Self {
            session: history.session.denials.get(&entry.id),
            next: pair.and_then(|pair| pair.denials.get(NEXT)),
            given,
        }
    }

    fn sets(self) -> impl Iterator<Item = &'a BTreeSet<String>> {
        [self.session, self.next, self.given].into_iter().flatten().filter(|one| !one.is_empty())
    }

    fn all(self) -> impl Iterator<Item = &'a String> {
        self.sets().flatten()
    }

    fn contains(self, mark: &str) -> bool {
        self.sets().any(|marks| marks.contains(mark))
    }

    fn count(self) -> usize {
        let mut sets = self.sets();
        match (sets.next(), sets.next()) {
            (None, _) => 0,
            (Some(only), None) => only.len(),
            (Some(_), Some(_)) => self.all().collect::<BTreeSet<_>>().len(),
        }
    }
}

impl HistoryView<'_> {
    /// Number of denials in the run of a task.
    #[must_use]
    pub fn count_denials(self, task: TaskView<'_>) -> usize {
        Marks::of(self, task).count()
    }
}

impl SessionHistory {
    /// Under what the record of a pair keeps the denials in tasks of a giver.
    fn run_of(&self, given: &str) -> String {
        let givers = || self.denials.keys().filter(|name| name.starts_with(GIVEN)).count();
        let is_apart = self.denials.contains_key(given) || givers() < MAX_GIVERS;
        if is_apart { given.to_owned() } else { OTHERS.to_owned() }
    }

    /// Takes over what an answer changes in a run, into the record of the pair.
    pub fn keep_run(&mut self, change: &RunChange) {
        let run = match &change.run().begun_by {
            BegunBy::Agent | BegunBy::User => NEXT.to_owned(),
            BegunBy::Giver(given) => self.run_of(given),
        };
        match change {
            RunChange::Grows { mark: Some(mark), .. } => {
                let marks = self.denials.entry(run).or_default();
                if marks.len() < MAX_MARKS {
                    marks.insert(mark.clone());
                }
            }
            RunChange::Grows { mark: None, .. } => {}
            RunChange::Ends { marks: ended, .. } => {
                for run in [NEXT, run.as_str()] {
                    if let Some(marks) = self.denials.get_mut(run) {
                        marks.retain(|mark| !ended.contains(mark));
                    }
                }
                self.denials.retain(|_, marks| !marks.is_empty());
            }
        }
    }
}

/// Under what the record of a pair keeps the denials in tasks of one giver.
fn given(giver: &str) -> String {
    format!("{GIVEN}{}", short(giver))
}

/// Digest of a denied call: arguments may be long, or a secret.
fn mark(operation: &str, digest: Option<[u8; 32]>) -> String {
    let mut hash = Sha256::new();
    hash.update((operation.len() as u64).to_be_bytes());
    hash.update(operation);
    hash.update(digest.unwrap_or_default());
    hex_start(&hash.finalize(), 16)
}
