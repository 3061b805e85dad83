//! Agents, subjects and their pairs, over all sessions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::short;
use crate::record::StoredValue;
use crate::record::history::SessionHistory;
use crate::record::is_false;
use crate::record::task::Task;
use crate::time::Time;

/// History of an agent, a subject, or a pair of both, over all sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Party {
    /// Id of the record: [`Holder::key`].
    ///
    /// [`Holder::key`]: crate::record::history::Holder::key
    pub id: String,
    /// History, as far as rules read it.
    #[serde(default, skip_serializing_if = "SessionHistory::is_empty")]
    pub history: SessionHistory,
    /// Of a pair: end of the agent's last task for the subject that denials ended. The agent starts no other task until the
    /// subject alone, a front end or an administrator does so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_at: Option<Time>,
    /// Of a pair: tasks that the agent began itself before this time stay refused, also once it may start others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_before: Option<Time>,
    /// Of an agent or a pair: number of its tasks, live and ended, by the hour since 1970 in which they are forgotten.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<i64, u32>,
    /// Of an agent: sessions in which others gave it a task and may pass on data that was read there, by the id of the task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared: BTreeMap<String, SharedSession>,
    /// Of an agent: last noted time at which it acted for a subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted_at: Option<Time>,
    /// Time at which the record may be forgotten: no part of it counts any more.
    pub expires_at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for Party {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

impl Party {
    /// Number of tasks that are not forgotten yet. A task that ended early counts as if it had ended at its deadline.
    #[must_use]
    pub fn count_tasks(&self, now: Time) -> u64 {
        let hours = self.tasks.range(now.0.div_euclid(HOUR_MS)..);
        hours.map(|(_, count)| u64::from(*count)).fold(0, u64::saturating_add)
    }

    /// Counts one more task, which is forgotten at `until`.
    pub fn add_task(&mut self, until: Time, now: Time) {
        self.tasks = self.tasks.split_off(&now.0.div_euclid(HOUR_MS));
        let count = self.tasks.entry(until.0.div_euclid(HOUR_MS)).or_default();
        *count = count.saturating_add(1);
        self.expires_at = until.max(self.expires_at);
    }
}

/// An hour in milliseconds.
const HOUR_MS: i64 = 3_600 * 1_000;

/// Session in which another principal gave an agent a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedSession {
    /// Giver of the task: a digest of its SPIFFE id, so that a long id takes no more room. Earlier versions stored the id.
    pub giver: String,
    /// Id of the session.
    pub session: String,
    /// Digest of the id of the pair of the agent and the task's subject. Earlier versions stored the id.
    pub pair: String,
    /// Latest end of the task. Data that is read in the session later is not passed on by the task.
    pub deadline: Time,
    /// The task carries labels that its giver remembered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub told: bool,
}

impl SharedSession {
    /// The session of a task; `pair` is the id of the record of the task's agent and subject.
    #[must_use]
    pub fn of(task: &Task, pair: &str) -> Self {
        Self {
            giver: short(&task.starter),
            session: task.session.clone(),
            pair: short(pair),
            deadline: task.deadline,
            told: !task.told.is_empty(),
        }
    }

    /// Returns whether this agent or subject gave the task.
    #[must_use]
    pub fn is_by(&self, giver: &str) -> bool {
        self.giver == giver || self.giver == short(giver)
    }

    /// Returns whether this pair is the task's.
    #[must_use]
    pub fn is_of_pair(&self, pair: &str) -> bool {
        self.pair == pair || self.pair == short(pair)
    }
}
