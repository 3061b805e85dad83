//! What restricts an agent in a session with one subject restricts it where it leaves the subject out, too: labels that
//! strangers brought, steps of rules that forbid, and denials. What enables, and what is counted, stays where it was.

use std::collections::BTreeSet;

use super::record::{HistoryChanges, LabelOrigin, Progress, RuleProgress, SessionHistory};
use super::{ANY, Holder, MAX_INSTANCES, MAX_LABELS, MAX_MARKS, MAX_RULES, MAX_RUNS, RunChange};
use crate::record::Declarations;
use crate::time::Time;

/// Time for which a label that was carried over is kept, in milliseconds: as long as the session that brought it can last.
const LABELS_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// A history that is carried over from one session to another. Names of instances of rules begin with the session's id.
#[derive(Clone, Copy, Debug)]
pub struct Carry<'a> {
    /// The session of the agent and a subject.
    pub from: &'a str,
    /// The session of the agent alone.
    pub to: &'a str,
    /// Id of the decision.
    pub decision_id: &'a str,
    /// Its operation.
    pub operation: &'a str,
    /// Denials are carried, too.
    pub counts_denials: bool,
}

/// Returns whether a label marks data of strangers. A label that the bundle does not have may do so.
fn is_trust(bundle: &dyn Declarations, label: &str) -> bool {
    bundle.is_trust_label(label).unwrap_or(true)
}

impl HistoryChanges {
    /// Returns whether a part of it is carried over.
    ///
    /// With `counts_denials`, denials are carried, too.
    #[must_use]
    pub fn restricts(&self, bundle: &dyn Declarations, counts_denials: bool) -> bool {
        (counts_denials && self.own_run().is_some())
            || self.own_restricting().next().is_some()
            || self.joining().any(|label| is_trust(bundle, label))
    }

    /// The change of a run, unless another agent gave the task.
    fn own_run(&self) -> Option<&RunChange> {
        self.run.as_ref().filter(|run| !run.is_of_giver())
    }

    fn own_restricting(&self) -> impl Iterator<Item = &super::Advance> {
        let own = self.advances.iter().filter(|advance| advance.holder == Holder::Session);
        own.filter(|advance| advance.restricts)
    }
}

impl SessionHistory {
    /// Takes over what an answer in another session of the agent changes there and restricts here.
    ///
    /// Returns whether all of it is kept. The caller must restrict the agent otherwise if it is not.
    #[must_use]
    pub fn carry_over(
        &mut self,
        bundle: &dyn Declarations,
        changes: &HistoryChanges,
        carry: Carry<'_>,
        now: Time,
    ) -> bool {
        let now = self.now(now);
        self.latest = Some(now);
        let mut fits = true;
        for label in changes.joining().filter(|label| is_trust(bundle, label)) {
            if self.labels.contains_key(label) {
                continue;
            }
            if self.labels.len() >= MAX_LABELS {
                fits = false;
                continue;
            }
            let (decision_id, operation) = (carry.decision_id, carry.operation);
            self.labels.insert(label.clone(), LabelOrigin::new(decision_id, operation, now));
        }
        for advance in changes.own_restricting() {
            if !self.rules.contains_key(&*advance.rule) && self.rules.len() >= MAX_RULES {
                fits = false;
                continue;
            }
            let rule = self.rules.entry(advance.rule.to_string()).or_default();
            if let Some(oldest) = advance.forgets_before {
                rule.instances.retain(|_, progress| progress.at >= oldest);
            }
            let instance = renamed(&advance.instance, carry.from, carry.to);
            keep(rule, instance, advance.progress);
        }
        if let Some(RunChange::Grows { mark: Some(mark), .. }) = changes.own_run()
            && carry.counts_denials
        {
            let total: usize = self.denials.values().map(BTreeSet::len).sum();
            let is_full = total >= MAX_RUNS || self.denials.len() >= MAX_RUNS;
            let marks = self.denials.entry(carry.to.to_owned()).or_default();
            if marks.len() < MAX_MARKS && !is_full {
                marks.insert(mark.clone());
            }
        }
        fits
    }

    /// Takes over what was carried over to the session of the agent alone, in a task of the agent without a subject.
    ///
    /// `carried` is the result of [`Self::carried_over`]; `from` and `to` are the ids of that session and of the task.
    pub fn take_over(&mut self, carried: &Self, from: &str, to: &str) {
        for (label, origin) in carried.labels.iter() {
            if !self.labels.contains_key(label) {
                self.labels.insert(label.clone(), origin.clone());
            }
        }
        for (name, progress) in carried.rules.iter() {
            let rule = self.rules.entry(name.clone()).or_default();
            for (instance, progress) in &progress.instances {
                keep(rule, renamed(instance, from, to), *progress);
            }
        }
        if let Some(marks) = carried.denials.get(from).filter(|marks| !marks.is_empty()) {
            self.denials.entry(to.to_owned()).or_default().extend(marks.iter().cloned());
        }
        self.latest = self.latest.max(carried.latest);
    }

    /// Forgets what restricts an agent without a task, as an administrator asks.
    ///
    /// Args:
    /// * `is_alone`: the session is of the agent alone, to which labels are carried over that strangers brought: those are
    ///   forgotten.
    /// * `denials`: denials and steps of restricting rules are forgotten.
    pub fn forget_restrictions(
        &mut self,
        bundle: &dyn Declarations,
        restricting: &dyn Fn(&str) -> bool,
        (is_alone, denials): (bool, bool),
    ) {
        if is_alone {
            self.labels.retain(|label, _| !is_trust(bundle, label));
        }
        if denials {
            self.denials.clear();
            self.rules.retain(|name, _| !restricting(name));
        }
    }

    /// What a new session of the agent alone begins with, of one that was kept because something was carried over to it.
    #[must_use]
    pub fn carried_over(
        &self,
        bundle: &dyn Declarations,
        restricting: &dyn Fn(&str) -> bool,
        now: Time,
    ) -> Self {
        let mut history = Self::new();
        let is_kept = |(label, origin): &(&String, &LabelOrigin)| {
            is_trust(bundle, label) && origin.at.0.saturating_add(LABELS_MS) > now.0
        };
        let labels = self.labels.iter().filter(is_kept);
        history.labels.extend(labels.map(|(label, origin)| (label.clone(), origin.clone())));
        let rules = self.rules.iter().filter(|(name, _)| restricting(name));
        history.rules = rules.map(|(name, rule)| (name.clone(), rule.clone())).collect();
        history.denials.clone_from(&self.denials);
        history.latest = self.latest;
        history
    }
}

/// The instance of a rule in the other session: the session's id at its begin is replaced.
fn renamed(instance: &str, from: &str, to: &str) -> String {
    match instance.strip_prefix(from) {
        Some(key) => format!("{to}{key}"),
        None => instance.to_owned(),
    }
}

/// Keeps how far a rule has come; where as much is kept as may be, for every key.
pub(super) fn keep(rule: &mut RuleProgress, instance: String, progress: Progress) {
    let is_further = |known: Option<&Progress>| {
        known.is_none_or(|known| (progress.step, progress.at) > (known.step, known.at))
    };
    let is_full = rule.instances.len() >= MAX_INSTANCES && !rule.instances.contains_key(&instance);
    let instance = if is_full { ANY.to_owned() } else { instance };
    if is_further(rule.instances.get(&instance)) {
        rule.instances.insert(instance, progress);
    }
}
