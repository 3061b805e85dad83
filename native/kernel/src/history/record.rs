//! What is stored of a session's history.
//!
//! By name, so that nodes on two revisions of a bundle share it; what a node does not know it keeps as it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decision::Time;
use crate::history::settle::{Awaited, Pending};
use crate::history::{Holder, PARTY_MS, RunChange, Shared, Written};
use crate::table::Table;

/// What a session did before; or an agent, or a subject, over all its sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionHistory {
    /// The latest time at which something changed it; it never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Time>,
    /// Calls that were let through, where the bundle counts them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub calls: u64,
    /// The labels that it carries, and which decision brought each. They only grow.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Shared<BTreeMap<String, Origin>>,
    /// Collections and systems that labelled data came from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sources: Shared<BTreeSet<String>>,
    /// Where labels were gathered from, by the label that is derived from that: as many as it takes, and no more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gathered: BTreeMap<String, BTreeSet<String>>,
    /// How far rules over the order of events have come, by the rule's name and the hash of what it says.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub rules: Table<String, RuleProgress>,
    /// What of counted limits is used, by the budget's name and the hash of what it counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, BudgetUse>,
    /// What was denied since something was last let through, by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denials: BTreeMap<String, BTreeSet<String>>,
    /// Permits of which it is open what came, by decision id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pending: BTreeMap<String, Pending>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// Where a label comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The decision that brought it first.
    pub decision_id: String,
    /// Its operation.
    pub operation: String,
    /// When.
    pub at: Time,
}

impl Origin {
    /// Whether an agent still carries it, which has no end.
    fn is_fresh(&self, now: Time) -> bool {
        self.at.0.saturating_add(PARTY_MS) >= now.0
    }
}

/// How far one rule has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleProgress {
    /// By task and key.
    #[serde(default)]
    pub instances: BTreeMap<String, Progress>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl RuleProgress {
    /// How far it has come for one task and key.
    pub(super) fn of(&self, instance: &str) -> Option<&Progress> {
        if instance.is_empty() {
            // It comes first. A search compares texts of no length, which have no address that can be read: to find that
            // out takes some processors as long as all the rest.
            let (first, progress) = self.instances.first_key_value()?;
            return first.is_empty().then_some(progress);
        }
        self.instances.get(instance)
    }

    fn set(&mut self, instance: &str, progress: Progress) {
        // As in `of`.
        if instance.is_empty()
            && let Some(mut first) = self.instances.first_entry()
            && first.key().is_empty()
        {
            first.insert(progress);
            return;
        }
        self.instances.insert(instance.to_owned(), progress);
    }
}

/// How far a rule has come for one task and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps that were seen.
    pub step: u32,
    /// When the last of them was.
    pub at: Time,
}

/// What of a budget is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// By task.
    #[serde(default)]
    pub instances: BTreeMap<String, Spent>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// What was spent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// In all, of a budget without a window.
    #[serde(default)]
    pub total: i64,
    /// When how much, of a budget with a window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<(Time, i64)>,
    /// Digests of different values, and when each was last there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Time>,
}

/// What an event spends of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// As the budget's use is stored.
    pub budget: String,
    /// Whose record keeps it.
    #[serde(skip)]
    pub holder: Holder,
    /// The task; empty: the holder as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// How much.
    #[serde(default)]
    pub amount: i64,
    /// Digests of values.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub values: BTreeSet<String>,
    /// Whether it counts within a window.
    #[serde(default, rename = "windowed")]
    pub is_windowed: bool,
    /// It sums up an amount, which may turn out to be less.
    #[serde(default, rename = "sums")]
    pub is_sum: bool,
    /// What was before this counts no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgets_before: Option<Time>,
}

impl Spending {
    /// The budget's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(&self.budget)
    }
}

/// The name under which something is stored, without the hash of what it says.
fn name_of(stored: &str) -> &str {
    stored.split_once('#').map_or(stored, |(name, _)| name)
}

impl Spent {
    fn add(&mut self, spending: &Spending, now: Time) {
        if let Some(oldest) = spending.forgets_before {
            self.events.retain(|(at, _)| *at >= oldest);
            self.values.retain(|_, at| *at >= oldest);
        }
        for value in &spending.values {
            let at = self.values.entry(value.clone()).or_insert(now);
            *at = now.max(*at);
        }
        if spending.amount == 0 {
            return;
        }
        if spending.is_windowed {
            self.events.push((now, spending.amount));
        } else {
            self.total = self.total.saturating_add(spending.amount);
        }
    }
}

/// A step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// As the rule's progress is stored.
    pub rule: Arc<str>,
    /// Whose record keeps it.
    pub holder: Holder,
    /// Task and key.
    pub instance: String,
    /// How far it is now.
    pub progress: Progress,
    /// The record keeps nothing of the instance yet.
    pub is_new: bool,
    /// What was last moved before this counts no more.
    pub forgets_before: Option<Time>,
}

impl Advance {
    /// The rule's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(&self.rule)
    }
}

/// What an answer changes in the history of its session, and in that of its agent and its subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryChanges {
    /// Labels that join.
    pub labels: BTreeSet<String>,
    /// The collection or system that labelled data comes from, where it is new.
    pub source: Option<String>,
    /// Where labels are gathered from, by the label that is derived from that.
    pub gathered: BTreeMap<String, String>,
    /// Whether the call counts.
    pub counts: bool,
    /// Steps of rules.
    pub advances: Vec<Advance>,
    /// What is spent of budgets.
    pub spends: Vec<Spending>,
    /// Labels that the agent keeps, whatever its next task.
    pub kept: BTreeSet<String>,
    /// In the run of denials of the task.
    pub run: Option<RunChange>,
    /// Labels that what is written keeps, whoever reads it.
    pub written: Option<Written>,
    /// What is open until it is known what came of the call.
    pub awaited: Awaited,
    /// Somebody tells what came of it: until then what is spent is reserved.
    pub is_reported: bool,
}

impl HistoryChanges {
    /// Nothing.
    pub const NONE: Self = Self {
        labels: BTreeSet::new(),
        source: None,
        gathered: BTreeMap::new(),
        counts: false,
        advances: Vec::new(),
        spends: Vec::new(),
        kept: BTreeSet::new(),
        run: None,
        written: None,
        awaited: Awaited::NONE,
        is_reported: false,
    };

    /// Whether the task ends, as it was denied too much.
    #[must_use]
    pub const fn ends_task(&self) -> bool {
        matches!(self.run, Some(RunChange::Grows { ends_task: true, .. }))
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
            && self.source.is_none()
            && self.gathered.is_empty()
            && !self.counts
            && self.advances.is_empty()
            && self.spends.is_empty()
            && self.kept.is_empty()
            && self.run.is_none()
            && self.written.is_none()
            && self.awaited.is_empty()
    }

    /// Labels that join, also those of which it is open whether they stay.
    pub fn joining(&self) -> impl Iterator<Item = &String> {
        self.labels.iter().chain(&self.awaited.labels)
    }

    /// Whether something is open until it is known what came of the call.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let is_own = |spending: &Spending| spending.holder == Holder::Session;
        self.is_reported && (!self.awaited.is_empty() || self.spends.iter().any(is_own))
    }

    /// Whether something changes in one holder's record.
    #[must_use]
    pub fn concern(&self, holder: Holder) -> bool {
        let own = match holder {
            Holder::Session => {
                self.counts
                    || self.run.is_some()
                    || self.source.is_some()
                    || !self.labels.is_empty()
                    || !self.gathered.is_empty()
                    || !self.awaited.is_empty()
            }
            Holder::Agent => !self.kept.is_empty(),
            Holder::Subject => false,
        };
        own || self.advances.iter().any(|advance| advance.holder == holder)
            || self.spends.iter().any(|spending| spending.holder == holder)
    }

    /// Whether one holder's record may keep more than before.
    pub(crate) fn adds(&self, holder: Holder) -> bool {
        let own = match holder {
            Holder::Session => {
                self.source.is_some()
                    || !self.labels.is_empty()
                    || !self.gathered.is_empty()
                    || !self.awaited.is_empty()
                    || matches!(self.run, Some(RunChange::Grows { .. }))
            }
            Holder::Agent => !self.kept.is_empty(),
            Holder::Subject => false,
        };
        own || self.advances.iter().any(|advance| advance.is_new && advance.holder == holder)
            || self.spends.iter().any(|spending| spending.holder == holder)
    }
}

impl SessionHistory {
    /// Of a session in which nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing has happened yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.latest.is_none() && *self == Self::default()
    }

    /// The labels of an agent that are not too old to count.
    pub(crate) fn fresh_labels(&self, now: Time) -> impl Iterator<Item = (&String, &Origin)> {
        self.labels.iter().filter(move |(_, origin)| origin.is_fresh(now))
    }

    /// How much it keeps.
    #[must_use]
    pub fn entries(&self) -> usize {
        let gathered = self.gathered.values().map(BTreeSet::len);
        let progress = self.rules.values().map(|rule| rule.instances.len().saturating_add(1));
        let spent =
            self.budgets.values().flat_map(|one| one.instances.values()).map(|spent| {
                spent.events.len().saturating_add(spent.values.len()).saturating_add(1)
            });
        let denied = self.denials.values().map(|marks| marks.len().saturating_add(1));
        let own = self.labels.len().saturating_add(self.sources.len());
        let open = self.pending.values().map(Pending::entries);
        let all = gathered.chain(progress).chain(spent).chain(denied).chain(open);
        all.fold(own, usize::saturating_add)
    }

    /// The time of a decision: never before what has happened already.
    #[must_use]
    pub fn now(&self, now: Time) -> Time {
        self.latest.map_or(now, |latest| latest.max(now))
    }

    /// Takes over what an answer changes in the record of a session.
    ///
    /// Args:
    /// * `decision_id`, `operation`: of the decision; `now`: its time.
    pub fn apply(
        &mut self,
        changes: &HistoryChanges,
        decision_id: &str,
        operation: &str,
        now: Time,
    ) {
        self.apply_as(Holder::Session, changes, decision_id, operation, now);
    }

    /// Takes over what an answer changes in one holder's record.
    ///
    /// Args:
    /// * `decision_id`, `operation`: of the decision; `now`: its time, [`HistoryView::now`].
    ///
    /// [`HistoryView::now`]: crate::history::HistoryView::now
    pub fn apply_as(
        &mut self,
        holder: Holder,
        changes: &HistoryChanges,
        decision_id: &str,
        operation: &str,
        now: Time,
    ) {
        if !changes.concern(holder) {
            return;
        }
        let now = self.now(now);
        self.latest = Some(now);
        for advance in changes.advances.iter().filter(|advance| advance.holder == holder) {
            let rule = match self.rules.get_mut(&*advance.rule) {
                Some(rule) => rule,
                None => self.rules.entry(advance.rule.to_string()).or_default(),
            };
            if let Some(oldest) = advance.forgets_before {
                rule.instances.retain(|_, progress| progress.at >= oldest);
            }
            rule.set(&advance.instance, advance.progress);
        }
        // What outlives the session is spent at once, whatever comes of it.
        let is_reserved = holder == Holder::Session && changes.is_open();
        let own = changes.spends.iter().filter(|spending| spending.holder == holder);
        for spending in own.filter(|_| !is_reserved) {
            self.spend(spending, now);
        }
        let origin = || Origin {
            decision_id: decision_id.to_owned(),
            operation: operation.to_owned(),
            at: now,
        };
        if holder == Holder::Agent && !changes.kept.is_empty() {
            self.labels.retain(|_, origin| origin.is_fresh(now));
            let kept = changes.kept.iter();
            self.labels.extend(kept.map(|label| (label.clone(), origin())));
        }
        if holder != Holder::Session {
            return;
        }
        self.calls = self.calls.saturating_add(u64::from(changes.counts));
        let awaited = &changes.awaited;
        let is_open = changes.is_open();
        let at_once = awaited.labels.iter().filter(|_| !is_open);
        for label in changes.labels.iter().chain(at_once) {
            self.carry(label, origin);
        }
        self.draw_from(changes.source.as_ref());
        for (label, from) in &changes.gathered {
            self.gathered.entry(label.clone()).or_default().insert(from.clone());
        }
        match &changes.run {
            Some(RunChange::Grows { task, mark: Some(mark), .. }) => {
                self.denials.entry(task.clone()).or_default().insert(mark.clone());
            }
            Some(RunChange::Ends { task }) => {
                self.denials.remove(task);
            }
            Some(RunChange::Grows { mark: None, .. }) | None => {}
        }
        if is_open {
            self.commit_oldest();
            let own = changes.spends.iter().filter(|spending| spending.holder == holder);
            self.pending.insert(
                decision_id.to_owned(),
                Pending {
                    operation: operation.to_owned(),
                    at: now,
                    labels: awaited.labels.clone(),
                    source: awaited.source.clone(),
                    gathered: awaited.gathered.clone(),
                    enables: awaited.enables.clone(),
                    spends: own.cloned().collect(),
                    rest: BTreeMap::new(),
                },
            );
        } else {
            self.draw_from(awaited.source.as_ref());
            for (label, one) in &awaited.gathered {
                self.gathered.entry(label.clone()).or_default().insert(one.from.clone());
            }
        }
    }

    /// Carries a label from now on.
    ///
    /// Args: `origin`: where it comes from, if it is new.
    pub(super) fn carry(&mut self, label: &str, origin: impl FnOnce() -> Origin) {
        if !self.labels.contains_key(label) {
            self.labels.insert(label.to_owned(), origin());
        }
    }

    /// Keeps where labelled data comes from.
    pub(super) fn draw_from(&mut self, source: Option<&String>) {
        if let Some(source) = source.filter(|source| !self.sources.contains(*source)) {
            self.sources.insert(source.clone());
        }
    }

    /// Counts what is spent of a budget.
    pub(super) fn spend(&mut self, spending: &Spending, at: Time) {
        let uses = self.budgets.entry(spending.budget.clone()).or_default();
        uses.instances.entry(spending.instance.clone()).or_default().add(spending, at);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
