//! Stored history of a session.
//!
//! Its parts are stored by name, so that nodes on two revisions of a bundle share it. A node keeps parts that it does not
//! know.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::history::carry::keep;
use crate::record::history::settle::{Awaited, Carrier, OpenPermit};
use crate::record::history::{
    ANY, Apart, Holder, KnownValues, MAX_INSTANCES, MAX_LABELS, MAX_RULES, ObjectWrite, PARTY_MS,
    Remembering, RunChange, Shared,
};
use crate::record::{Party, RecordKind, is_false};
use crate::table::Table;
use crate::time::Time;

/// History of a session; or of an agent, a subject or a pair over all sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionHistory {
    /// Time of its last change; it never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Time>,
    /// Number of permitted calls, if the bundle counts them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub calls: u64,
    /// The labels that it carries, and which decision brought each. They only grow.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Shared<BTreeMap<String, LabelOrigin>>,
    /// Collections and systems that labelled data came from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sources: Shared<BTreeSet<String>>,
    /// Sources of gathered labels, by the label that is derived from them: as many as the derivation needs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gathered: BTreeMap<String, BTreeSet<String>>,
    /// Progress of rules over the order of events, by the name of the rule and the hash of its text.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub rules: Table<String, RuleProgress>,
    /// Use of budgets, by the name of the budget and the hash of its text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, BudgetUse>,
    /// Denials since the last permit, by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub denials: BTreeMap<String, BTreeSet<String>>,
    /// Of an agent or a pair: objects that it wrote and that keep its labels, by collection and the day since 1970 on which
    /// they are forgotten.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<String, BTreeMap<i64, u32>>,
    /// Reports brought values, which a record of its own keeps: see [`KnownValuesRecord`](super::KnownValuesRecord).
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_values: bool,
    /// Values that an earlier version kept here. They count as long as the session has no record of values.
    #[serde(default, skip_serializing_if = "known_nothing")]
    pub values: Shared<KnownValues>,
    /// Permits whose outcome is not reported yet, by decision id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pending: BTreeMap<String, OpenPermit>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// Origin of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelOrigin {
    /// Id of the decision that brought it first.
    pub decision_id: String,
    /// Operation of that decision.
    pub operation: String,
    /// Time of that decision.
    pub at: Time,
    /// Contexts of sessions that the label counts in, as a front end names them; empty: everywhere.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub contexts: BTreeSet<String>,
}

impl LabelOrigin {
    /// Origin of a label that counts everywhere.
    #[must_use]
    pub fn new(decision_id: &str, operation: &str, at: Time) -> Self {
        let (decision_id, operation) = (decision_id.to_owned(), operation.to_owned());
        Self { decision_id, operation, at, contexts: BTreeSet::new() }
    }

    /// The origin as the carrier of the label.
    #[must_use]
    pub fn carrier(&self) -> Carrier<'_> {
        Carrier { decision_id: &self.decision_id, operation: &self.operation, at: self.at }
    }
}

/// Progress of one rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleProgress {
    /// Progress by task and key.
    #[serde(default)]
    pub instances: BTreeMap<String, Progress>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl RuleProgress {
    /// Progress for one task and key.
    pub fn of(&self, instance: &str) -> Option<&Progress> {
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

/// Progress of a rule for one task and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Number of completed steps.
    pub step: u32,
    /// Time of the last of them.
    pub at: Time,
}

/// Use of a budget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// Use by task.
    #[serde(default)]
    pub instances: BTreeMap<String, Spent>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// Spent amount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Sum of a budget without a window.
    #[serde(default)]
    pub total: i64,
    /// Times and amounts of a budget with a window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<(Time, i64)>,
    /// Digests of different values, with the time of each last use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Time>,
}

/// Expense of an event in a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// Name under which the use of the budget is stored.
    pub budget: String,
    /// Holder whose record keeps it.
    #[serde(skip)]
    pub holder: Holder,
    /// Id of the task; empty: the holder as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Amount.
    #[serde(default)]
    pub amount: i64,
    /// Digests of values.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub values: BTreeSet<String>,
    /// True if it counts within a window.
    #[serde(default, rename = "windowed")]
    pub is_windowed: bool,
    /// Time in milliseconds within which entries of the window count together. `None`: each entry counts by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grain_ms: Option<i64>,
    /// It sums up an amount, which may turn out to be less.
    #[serde(default, rename = "sums")]
    pub is_sum: bool,
    /// Expenses before this time count no more.
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

/// A stored name without the hash of the text.
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
        if !spending.is_windowed {
            self.total = self.total.saturating_add(spending.amount);
            return;
        }
        // It counts until the last of those that it counts with is forgotten.
        let at = spending.grain_ms.filter(|grain| *grain > 0).map_or(now, |grain| {
            Time(now.0.div_euclid(grain).saturating_add(1).saturating_mul(grain))
        });
        let same = self.events.iter_mut().rev().find(|(known, _)| *known == at);
        match same.filter(|_| spending.grain_ms.is_some()) {
            Some((_, amount)) => *amount = amount.saturating_add(spending.amount),
            None => self.events.push((at, spending.amount)),
        }
    }
}

/// A step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// As the rule's progress is stored.
    pub rule: Arc<str>,
    /// Holder whose record keeps it.
    pub holder: Holder,
    /// Task and key.
    pub instance: String,
    /// New progress.
    pub progress: Progress,
    /// The record keeps nothing of the instance yet.
    pub is_new: bool,
    /// Progress before this time counts no more.
    pub forgets_before: Option<Time>,
    /// The step completes a restricting rule: the instance under which the pair of agent and subject keeps it for the
    /// agent's next task.
    pub passed_on: Option<String>,
    /// The rule forbids something, so that a step of it restricts; otherwise a step of it enables.
    pub restricts: bool,
}

impl Advance {
    /// The rule's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        name_of(&self.rule)
    }
}

impl Party {
    /// Forgets labels, as an administrator asks.
    ///
    /// With `denials`, it also forgets denials and completed rules that the agent's next task would inherit, and lets the
    /// agent begin anew after denials ended its task.
    ///
    /// Returns whether the record changed.
    pub fn forget(&mut self, kind: RecordKind, denials: bool) -> bool {
        let before = self.clone();
        self.history.forget_labels();
        self.shared.clear();
        if denials && kind == RecordKind::Pair {
            self.history.forget_denials();
            self.history.rules.clear();
            self.lift_bar();
        }
        *self != before
    }
}

/// How an instance begins, in the record of a pair, that stands for the task it is inherited by.
pub const OF_TASK: char = '@';

/// Returns whether the next task still inherits a completed rule.
pub fn is_passed_on(progress: &Progress, now: Time) -> bool {
    progress.at.0.saturating_add(PARTY_MS) >= now.0
}

/// Labels of a call that outlive its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Holder whose record keeps them: the agent or the pair.
    pub holder: Holder,
    /// Labels that the call brings.
    pub labels: BTreeSet<String>,
    /// Labels that its results may carry.
    pub awaited: BTreeSet<String>,
    /// Labels of the record that were brought before this are forgotten.
    pub oldest: Time,
}

/// Changes of an answer in the histories of its session, its agent and its subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryChanges {
    /// Labels that join.
    pub labels: BTreeSet<String>,
    /// The collection or system that labelled data comes from, where it is new.
    pub source: Option<String>,
    /// Where labels are gathered from, by the label that is derived from that.
    pub gathered: BTreeMap<String, String>,
    /// True if the call counts.
    pub counts: bool,
    /// Steps of rules.
    pub advances: Vec<Advance>,
    /// Expenses in budgets.
    pub spends: Vec<Spending>,
    /// Labels that are remembered when the task has ended.
    pub remembered: Option<Remembered>,
    /// In the run of denials of the task.
    pub run: Option<RunChange>,
    /// Labels that the written object keeps for all readers.
    pub written: Option<ObjectWrite>,
    /// The permit whose outcome will be reported.
    pub awaited: Awaited,
    /// The result is reported; until then the spent amounts are reserved.
    pub is_reported: bool,
    /// Labels that count only in the context of the call. `None`: the call names no context.
    pub apart: Option<Apart>,
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
        remembered: None,
        run: None,
        written: None,
        awaited: Awaited::NONE,
        is_reported: false,
        apart: None,
    };

    /// Returns whether a task ends, as it was denied too much.
    #[must_use]
    pub fn ends_task(&self) -> bool {
        self.ended_task().is_some()
    }

    /// The task that ends, as it was denied too much.
    #[must_use]
    pub fn ended_task(&self) -> Option<&str> {
        self.run.as_ref().and_then(RunChange::ended_task)
    }

    /// Returns whether the agent is barred from tasks of its own for the subject, because one ends that no other agent gave
    /// it.
    #[must_use]
    pub fn bars_agent(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.ended_task().is_some() && !run.is_of_giver())
    }

    /// Returns whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
            && self.source.is_none()
            && self.gathered.is_empty()
            && !self.counts
            && self.advances.is_empty()
            && self.spends.is_empty()
            && self.remembered.is_none()
            && self.run.is_none()
            && self.written.is_none()
            && self.awaited.is_empty()
    }

    /// Labels that join, also those of which it is open whether they stay.
    pub fn joining(&self) -> impl Iterator<Item = &String> {
        self.labels.iter().chain(&self.awaited.labels)
    }

    /// Returns whether something is open until it is known what came of the call.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let is_own = |spending: &Spending| spending.holder == Holder::Session;
        self.is_reported && (!self.awaited.is_empty() || self.spends.iter().any(is_own))
    }

    fn remembers_in(&self, holder: Holder) -> bool {
        self.remembered.as_ref().is_some_and(|remembered| remembered.holder == holder)
            || self.written.as_ref().is_some_and(|written| written.counts_for(holder))
    }

    /// Changes that an agent above the task remembers of the call, whose results it receives.
    ///
    /// `remembering` names the record that remembers the labels of that agent's task.
    #[must_use]
    pub fn above(&self, remembering: Remembering, now: Time) -> Option<Self> {
        let holder = remembering.holder?;
        let own = self.remembered.as_ref();
        let of = |pick: fn(&Remembered) -> &BTreeSet<String>| own.into_iter().flat_map(pick);
        let labels: BTreeSet<String> =
            self.labels.iter().chain(of(|one| &one.labels)).cloned().collect();
        let awaited = self.awaited.labels.iter().chain(of(|one| &one.awaited));
        let awaited: BTreeSet<String> =
            awaited.filter(|label| !labels.contains(*label)).cloned().collect();
        if labels.is_empty() && awaited.is_empty() {
            return None;
        }
        let oldest = remembering.oldest(now);
        Some(Self {
            remembered: Some(Remembered { holder, labels, awaited, oldest }),
            awaited: self.awaited.clone(),
            is_reported: self.is_reported,
            ..Self::NONE
        })
    }

    /// Returns whether something changes that the agent's next task for the subject inherits.
    #[must_use]
    pub fn pass_on(&self) -> bool {
        self.run.is_some() || self.passes_rules_on()
    }

    /// Returns whether a restricting rule is complete.
    #[must_use]
    pub fn passes_rules_on(&self) -> bool {
        self.advances.iter().any(|advance| advance.passed_on.is_some())
    }

    /// Returns whether something changes in one holder's record.
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
            Holder::Agent | Holder::Subject | Holder::Pair => self.remembers_in(holder),
        };
        own || self.advances.iter().any(|advance| advance.holder == holder)
            || self.spends.iter().any(|spending| spending.holder == holder)
    }

    /// Returns whether one holder's record may keep more than before.
    pub fn adds(&self, holder: Holder) -> bool {
        let own = match holder {
            Holder::Session => {
                self.source.is_some()
                    || !self.labels.is_empty()
                    || !self.gathered.is_empty()
                    || !self.awaited.is_empty()
                    || matches!(&self.run, Some(RunChange::Grows { run, .. }) if run.is_root)
            }
            Holder::Agent | Holder::Subject | Holder::Pair => self.remembers_in(holder),
        };
        own || self.advances.iter().any(|advance| advance.is_new && advance.holder == holder)
            || self.spends.iter().any(|spending| spending.holder == holder)
    }
}

impl SessionHistory {
    /// Empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether nothing has happened yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.latest.is_none() && *self == Self::default()
    }

    /// Labels that were brought at that time or later, also those of which it is open whether they stay.
    pub fn labels_since(&self, oldest: Time) -> impl Iterator<Item = (&str, Carrier<'_>)> {
        let kept = self.labels.iter().map(|(label, origin)| (label.as_str(), origin.carrier()));
        let open = self.pending.iter().flat_map(|(id, one)| {
            let from = Carrier { decision_id: id, operation: &one.operation, at: one.at };
            one.labels.iter().map(move |label| (label.as_str(), from))
        });
        kept.chain(open).filter(move |(_, from)| from.at >= oldest)
    }

    /// The labels that it carries which were brought at that time or before, and what brought each.
    pub fn carried_until(&self, until: Time) -> impl Iterator<Item = (&str, Carrier<'_>)> {
        self.carried().filter(move |(_, from)| from.at <= until)
    }

    /// Takes over labels with the time at which each was brought. Returns whether there was room for all.
    pub fn inherit_labels<'a>(
        &mut self,
        labels: impl Iterator<Item = (&'a str, Carrier<'a>)>,
    ) -> bool {
        let mut has_all = true;
        for (label, from) in labels {
            let count = self.labels.len();
            match self.labels.get_mut(label) {
                Some(known) if known.at < from.at => *known = from.origin(),
                Some(_) => {}
                None if count >= MAX_LABELS => has_all = false,
                None => {
                    self.labels.insert(label.to_owned(), from.origin());
                }
            }
        }
        has_all
    }

    /// Number of its entries.
    #[must_use]
    pub fn entries(&self) -> usize {
        let gathered = self.gathered.values().map(BTreeSet::len);
        let progress = self.rules.values().map(|rule| rule.instances.len().saturating_add(1));
        let spent =
            self.budgets.values().flat_map(|one| one.instances.values()).map(|spent| {
                spent.events.len().saturating_add(spent.values.len()).saturating_add(1)
            });
        let objects = self.objects.values().map(|days| days.len().saturating_add(1));
        let denied = self.denials.values().map(|marks| marks.len().saturating_add(1));
        let own = self.labels.len().saturating_add(self.sources.len());
        let open = self.pending.values().map(OpenPermit::entries);
        let all = gathered.chain(progress).chain(spent).chain(denied).chain(objects).chain(open);
        all.fold(own, usize::saturating_add)
    }

    /// The time of a decision: never before what has happened already.
    #[must_use]
    pub fn now(&self, now: Time) -> Time {
        self.latest.map_or(now, |latest| latest.max(now))
    }

    /// Takes over what an answer changes in the record of a session.
    ///
    /// `decision_id`, `operation` and `now` are those of the decision.
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
    /// `decision_id` and `operation` are those of the decision, and `now` is its [`HistoryView::now`].
    ///
    /// [`HistoryView::now`]: crate::record::history::HistoryView::now
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
        // Records that outlive the session are charged at once, before the result is known.
        let is_reserved = holder == Holder::Session && changes.is_open();
        let own = changes.spends.iter().filter(|spending| spending.holder == holder);
        for spending in own.filter(|_| !is_reserved) {
            self.spend(spending, now);
        }
        let apart = changes.apart.as_ref();
        if let Some(remembered) = changes.remembered.as_ref().filter(|one| one.holder == holder) {
            let is_open = changes.is_open();
            self.remember(remembered, is_open, (decision_id, operation, now), apart);
        }
        if holder != Holder::Session {
            let written = changes.written.as_ref().filter(|written| written.counts_for(holder));
            if let Some(written) = written {
                written.count_in(&mut self.objects, holder, now);
            }
            return;
        }
        self.calls = self.calls.saturating_add(u64::from(changes.counts));
        let awaited = &changes.awaited;
        let is_open = changes.is_open();
        let at_once = awaited.labels.iter().filter(|_| !is_open);
        for label in changes.labels.iter().chain(at_once) {
            self.carry(label, Apart::contexts_of(apart, label), (decision_id, operation, now));
        }
        self.draw_from(changes.source.as_ref());
        for (label, from) in &changes.gathered {
            self.gathered.entry(label.clone()).or_default().insert(from.clone());
        }
        match &changes.run {
            Some(RunChange::Grows { run, mark: Some(mark), .. }) if run.is_root => {
                self.denials.entry(run.task.clone()).or_default().insert(mark.clone());
            }
            Some(RunChange::Ends { run, .. }) => {
                self.denials.remove(&run.task);
            }
            Some(RunChange::Grows { .. }) | None => {}
        }
        if is_open {
            self.commit_oldest();
            let own = changes.spends.iter().filter(|spending| spending.holder == holder);
            self.pending.insert(
                decision_id.to_owned(),
                OpenPermit {
                    operation: operation.to_owned(),
                    at: now,
                    labels: awaited.labels.clone(),
                    source: awaited.source.clone(),
                    gathered: awaited.gathered.clone(),
                    enables: awaited.enables.clone(),
                    spends: own.cloned().collect(),
                    apart: changes.apart.clone(),
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

    /// Takes over what the agent's next task for the subject inherits, into the record of the pair.
    ///
    /// `is_acting` is true for the pair of the agent that called, and false for that of an agent above it.
    pub fn keep_for_next(&mut self, changes: &HistoryChanges, is_acting: bool, now: Time) {
        let now = self.now(now);
        for advance in &changes.advances {
            let Some(instance) = &advance.passed_on else { continue };
            if !self.rules.contains_key(&*advance.rule) && self.rules.len() >= MAX_RULES {
                continue;
            }
            let rule = self.rules.entry(advance.rule.to_string()).or_default();
            rule.instances.retain(|_, progress| is_passed_on(progress, now));
            // A rule of which as much is kept as may be is complete for every key.
            let is_full = rule.instances.len() >= MAX_INSTANCES && rule.of(instance).is_none();
            rule.set(if is_full { ANY } else { instance }, advance.progress);
        }
        if let Some(change) = changes.run.as_ref().filter(|_| is_acting) {
            self.keep_run(change);
        }
        self.latest = Some(now);
    }

    /// Of a root task that neither the subject alone nor a front end starts: it begins with the restricting rules that were
    /// complete in earlier tasks of its agent for the subject.
    ///
    /// `pair` is the record of agent and subject, `task` the id of the new task.
    #[must_use]
    pub fn inherited(pair: &Self, task: &str, now: Time) -> Self {
        let mut history = Self::new();
        history.inherit_rules(pair, task, now);
        history
    }

    /// Takes over the restricting rules that are complete for the pair of an agent and a subject.
    ///
    /// `pair` is its record, `task` the id of the task for which rules of one task count.
    pub fn inherit_rules(&mut self, pair: &Self, task: &str, now: Time) {
        for (name, rule) in &pair.rules {
            let fresh = rule.instances.iter().filter(|(_, one)| is_passed_on(one, now));
            for (instance, progress) in fresh {
                if !self.rules.contains_key(name) && self.rules.len() >= MAX_RULES {
                    continue;
                }
                let instance = match instance.strip_prefix(OF_TASK) {
                    Some(key) => format!("{task}{key}"),
                    None => instance.clone(),
                };
                let rule = self.rules.entry(name.clone()).or_default();
                keep(rule, instance, *progress);
                self.latest = Some(pair.now(self.now(now)));
            }
        }
    }

    /// Forgets the denials of the agent's tasks for the subject, of the record of a pair.
    pub fn forget_denials(&mut self) {
        self.denials.clear();
    }

    /// Forgets the labels that outlive their tasks.
    fn forget_labels(&mut self) {
        self.labels = BTreeMap::new().into();
        for one in self.pending.values_mut() {
            one.labels.clear();
        }
        self.pending.retain(|_, one| one.entries() > 1);
    }

    /// Takes over labels that outlive their task, with the time of the read that brings them.
    ///
    /// `is_open` is true if the outcome of the call will be reported.
    fn remember(
        &mut self,
        remembered: &Remembered,
        is_open: bool,
        (decision_id, operation, now): (&str, &str, Time),
        apart: Option<&Apart>,
    ) {
        let oldest = remembered.oldest;
        self.labels.retain(|_, origin| origin.at >= oldest);
        self.pending.retain(|_, one| one.at >= oldest);
        let at_once = remembered.awaited.iter().filter(|_| !is_open);
        for label in remembered.labels.iter().chain(at_once) {
            self.bring(label, &Apart::contexts_of(apart, label), (decision_id, operation, now));
        }
        if is_open && !remembered.awaited.is_empty() {
            self.remember_oldest();
            self.pending.insert(
                decision_id.to_owned(),
                OpenPermit {
                    operation: operation.to_owned(),
                    at: now,
                    labels: remembered.awaited.clone(),
                    apart: apart.cloned(),
                    ..OpenPermit::default()
                },
            );
        }
    }

    /// Remembers a label with the time of the latest read that brought it.
    ///
    /// `contexts` are those that the label counts in; empty: everywhere.
    pub fn bring(
        &mut self,
        label: &str,
        contexts: &BTreeSet<String>,
        (decision_id, operation, at): (&str, &str, Time),
    ) {
        let Some(known) = self.labels.get(label) else {
            let origin = LabelOrigin {
                contexts: contexts.clone(),
                ..LabelOrigin::new(decision_id, operation, at)
            };
            self.labels.insert(label.to_owned(), origin);
            return;
        };
        if known.at >= at && known.covers(contexts) {
            return;
        }
        let mut origin = known.clone();
        origin.widen(contexts);
        if origin.at < at {
            origin = LabelOrigin {
                contexts: origin.contexts,
                ..LabelOrigin::new(decision_id, operation, at)
            };
        }
        self.labels.insert(label.to_owned(), origin);
    }

    /// Carries a label from now on.
    ///
    /// `contexts` are those that the label counts in; empty: everywhere.
    pub fn carry(
        &mut self,
        label: &str,
        contexts: BTreeSet<String>,
        (decision_id, operation, at): (&str, &str, Time),
    ) {
        match self.labels.get(label) {
            None => {
                let origin =
                    LabelOrigin { contexts, ..LabelOrigin::new(decision_id, operation, at) };
                self.labels.insert(label.to_owned(), origin);
            }
            Some(known) if known.covers(&contexts) => {}
            Some(_) => {
                if let Some(known) = self.labels.get_mut(label) {
                    known.widen(&contexts);
                }
            }
        }
    }

    /// Keeps where labelled data comes from.
    pub fn draw_from(&mut self, source: Option<&String>) {
        if let Some(source) = source.filter(|source| !self.sources.contains(*source)) {
            self.sources.insert(source.clone());
        }
    }

    /// Counts what is spent of a budget.
    pub fn spend(&mut self, spending: &Spending, at: Time) {
        let uses = self.budgets.entry(spending.budget.clone()).or_default();
        uses.instances.entry(spending.instance.clone()).or_default().add(spending, at);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn known_nothing(values: &KnownValues) -> bool {
    values.is_empty()
}
