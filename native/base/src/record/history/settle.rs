//! Effects of answers, and outcomes of permitted operations.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::record::history::record::{LabelOrigin, Progress, SessionHistory, Spending};
use crate::record::history::{Apart, MAX_INSTANCES, MAX_RULES, Remembering};
use crate::time::Time;

/// Most permits of one session without a report; beyond it, the oldest counts as done.
pub const MAX_PENDING: usize = 256;

/// Outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Refused before policy was asked, or UNAVAILABLE.
    Refused,
    /// Denied.
    Denied,
    /// Not yet: a step-up.
    SteppedUp,
    /// Permitted.
    Permitted,
    /// It was performed.
    Done,
    /// It failed.
    Failed,
    /// It was never tried.
    Aborted,
    /// Nobody told in time, or nobody tells at all.
    Unreported,
}

/// Effect on labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelEffect {
    /// Nothing.
    None,
    /// All that the operation may yield join, for now.
    JoinMaximum,
    /// Those that were reported stay, and those that the operation yields at least.
    KeepReported,
    /// Those that the operation yields at least stay.
    KeepMinimum,
    /// All stay.
    KeepMaximum,
}

/// Effect on rules over the order of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleEffect {
    /// Nothing new.
    None,
    /// The denial, where they name `denied(…)` of the operation.
    SeeDenial,
    /// The operation.
    See,
    /// The operation, where they say `counts: permitted`.
    SeeIfPermittedCounts,
}

/// Effect on budgets and uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpendEffect {
    /// Nothing.
    None,
    /// They are reserved.
    Reserve,
    /// They are spent: what was reserved, or less where less was reported.
    Commit,
    /// They are given back.
    Release,
    /// They are given back where nothing happens when the operation fails, and spent otherwise.
    ReleaseIfAbortable,
}

/// Effects of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effects {
    /// Labels.
    pub labels: LabelEffect,
    /// Rules that something must not come after: what they saw they go on seeing.
    pub restricting: RuleEffect,
    /// Rules that something must come before.
    pub enabling: RuleEffect,
    /// Budgets and uses.
    pub spends: SpendEffect,
}

/// The table of the changes of an answer, and of their results.
#[must_use]
pub const fn effects(event: Event) -> Effects {
    use RuleEffect::{See, SeeDenial, SeeIfPermittedCounts};
    let (labels, restricting, enabling, spends) = match event {
        Event::Refused | Event::SteppedUp => {
            (LabelEffect::None, RuleEffect::None, RuleEffect::None, SpendEffect::None)
        }
        Event::Denied => (LabelEffect::None, SeeDenial, RuleEffect::None, SpendEffect::None),
        Event::Permitted => {
            (LabelEffect::JoinMaximum, See, SeeIfPermittedCounts, SpendEffect::Reserve)
        }
        Event::Done => (LabelEffect::KeepReported, RuleEffect::None, See, SpendEffect::Commit),
        Event::Failed => (
            LabelEffect::KeepMinimum,
            RuleEffect::None,
            RuleEffect::None,
            SpendEffect::ReleaseIfAbortable,
        ),
        Event::Aborted => {
            (LabelEffect::KeepMinimum, RuleEffect::None, RuleEffect::None, SpendEffect::Release)
        }
        Event::Unreported => {
            (LabelEffect::KeepMaximum, RuleEffect::None, RuleEffect::None, SpendEffect::Commit)
        }
    };
    Effects { labels, restricting, enabling, spends }
}

impl SpendEffect {
    /// Returns whether the reserved amounts are given back.
    ///
    /// `is_abortable` is true if a failed operation has no effect.
    #[must_use]
    pub const fn releases(self, is_abortable: bool) -> bool {
        match self {
            Self::Release => true,
            Self::ReleaseIfAbortable => is_abortable,
            Self::None | Self::Reserve | Self::Commit => false,
        }
    }
}

/// Part of a permit that its report settles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Awaited {
    /// Labels that the results may carry, beyond those that they do carry.
    pub labels: BTreeSet<String>,
    /// The collection or system that those come from, where it is new.
    pub source: Option<String>,
    /// Where such labels are gathered from, by the label that is derived from that.
    pub gathered: BTreeMap<String, Gathering>,
    /// Rules that see the operation once it is done.
    pub enables: Vec<Enabling>,
}

impl Awaited {
    /// Nothing.
    pub const NONE: Self = Self {
        labels: BTreeSet::new(),
        source: None,
        gathered: BTreeMap::new(),
        enables: Vec::new(),
    };

    /// Returns whether nothing is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
            && self.source.is_none()
            && self.gathered.is_empty()
            && self.enables.is_empty()
    }
}

/// Something that a derived label may be gathered from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gathering {
    /// The label that must be there.
    pub of: String,
    /// The source, or the digest of the resource.
    pub from: String,
    /// Number of sources that the derived label needs.
    pub least: u32,
}

/// A rule that sees an operation once it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enabling {
    /// As the rule's progress is stored.
    pub rule: String,
    /// Task and key.
    pub instance: String,
    /// Time for which it counts, in milliseconds. `None`: as long as the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_ms: Option<i64>,
}

/// Defect of a report about a permit.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ReportError {
    /// The permit has reserved nothing of the budget.
    #[error("nothing is reserved of a budget `{budget}`")]
    NotReserved {
        /// Name of the budget.
        budget: String,
    },
    /// The amount is negative, or more than the permit has reserved.
    #[error("of the budget `{budget}` no more than {reserved} is reserved")]
    AboveReserved {
        /// Name of the budget.
        budget: String,
        /// The reserved amount.
        reserved: i64,
    },
}

/// Permit whose outcome is not reported yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenPermit {
    /// The operation.
    #[serde(default)]
    pub operation: String,
    /// Time of the permit.
    #[serde(default)]
    pub at: Time,
    /// Labels that its results may carry.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// The collection or system that those come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where such labels are gathered from, by the label that is derived from that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gathered: BTreeMap<String, Gathering>,
    /// Rules that see the operation once it is done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enables: Vec<Enabling>,
    /// Amounts that it reserves of budgets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spends: Vec<Spending>,
    /// Labels that count only in the context of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<Apart>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl OpenPermit {
    /// Number of its entries.
    pub fn entries(&self) -> usize {
        let spent = self.spends.iter().map(|one| one.values.len().saturating_add(1));
        let own = self.labels.len().saturating_add(self.gathered.len());
        spent.fold(own.saturating_add(self.enables.len()), usize::saturating_add).saturating_add(1)
    }
}

/// Report about a permitted operation.
#[derive(Clone, Debug)]
pub struct Reported<'a> {
    /// Outcome.
    pub event: Event,
    /// The operation.
    pub operation: &'a str,
    /// Labels that its results carry. `None`: the reporter cannot see them, so all labels that the results may carry stay.
    pub labels: Option<&'a BTreeSet<String>>,
    /// Spent amounts of budgets that sum up, by name.
    pub actuals: &'a BTreeMap<String, i64>,
    /// Nothing happens when the operation fails.
    pub is_abortable: bool,
}

impl SessionHistory {
    /// Labels that are carried, and what brought each: those that stay, and those of which it is open. Of one that several
    /// open permits may bring, the earliest comes first.
    pub fn carried(&self) -> impl Iterator<Item = (&str, Carrier<'_>)> {
        let open = self.pending.iter().flat_map(|(id, one)| {
            one.labels.iter().filter(|label| !self.labels.contains_key(*label)).map(|label| {
                let operation = one.operation.as_str();
                (label.as_str(), Carrier { decision_id: id, operation, at: one.at })
            })
        });
        let kept = self.labels.iter().map(|(label, origin)| (label.as_str(), origin.carrier()));
        kept.chain(open)
    }

    /// Returns whether a label is carried.
    #[must_use]
    pub fn carries(&self, label: &str) -> bool {
        self.labels.contains_key(label)
            || self.pending.values().any(|one| one.labels.contains(label))
    }

    /// Number of labels that the session carries.
    #[must_use]
    pub fn count_labels(&self) -> usize {
        if self.pending.is_empty() {
            return self.labels.len();
        }
        self.carried().map(|(label, _)| label).collect::<BTreeSet<&str>>().len()
    }

    /// Number of collections and systems from which labelled data came, or may have come.
    #[must_use]
    pub fn count_sources(&self) -> usize {
        let open = self.pending.values().filter_map(|one| one.source.as_ref());
        let open: BTreeSet<&String> = open.filter(|one| !self.sources.contains(*one)).collect();
        self.sources.len().saturating_add(open.len())
    }

    /// Sources from which a derived label was gathered, or may have been.
    pub fn gathered_of<'a>(&'a self, label: &'a str) -> BTreeSet<&'a str> {
        let kept = self.gathered.get(label).into_iter().flatten().map(String::as_str);
        let open = self.pending.values().filter_map(|one| one.gathered.get(label));
        kept.chain(open.map(|one| one.from.as_str())).collect()
    }

    /// Reserved expenses of a budget, with their times.
    pub fn reserved<'a>(
        &'a self,
        budget: &'a str,
        instance: &'a str,
    ) -> impl Iterator<Item = (Time, &'a Spending)> {
        self.pending.values().flat_map(move |one| {
            let of = move |spent: &&Spending| spent.budget == budget && spent.instance == instance;
            one.spends.iter().filter(of).map(|spent| (one.at, spent))
        })
    }

    /// Checks that a report can be the outcome of a permit.
    ///
    /// # Errors
    /// The report spends more of a budget than the permit has reserved.
    pub fn check_report(
        &self,
        decision_id: &str,
        report: &Reported<'_>,
    ) -> Result<(), ReportError> {
        let pending = self.pending.get(decision_id);
        for (name, actual) in report.actuals {
            let reserved = pending
                .into_iter()
                .flat_map(|one| &one.spends)
                .filter(|spent| spent.name() == name && spent.is_sum)
                .map(|spent| spent.amount)
                .min();
            match reserved {
                None => return Err(ReportError::NotReserved { budget: name.to_owned() }),
                Some(reserved) if !(0..=reserved).contains(actual) => {
                    return Err(ReportError::AboveReserved { budget: name.to_owned(), reserved });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Takes over the result of a permit. A permit that is not open changes only the reported labels.
    pub fn settle(&mut self, decision_id: &str, report: &Reported<'_>, now: Time) {
        let pending = self.pending.remove(decision_id);
        let effects = effects(report.event);
        let now = self.now(now);
        let pending = pending.unwrap_or_else(|| OpenPermit {
            operation: report.operation.to_owned(),
            at: now,
            ..OpenPermit::default()
        });
        let OpenPermit { operation, at, labels, source, gathered, enables, spends, apart, .. } =
            pending;
        // A reported label counts, also where the call failed.
        let mut kept: BTreeSet<&String> = report.labels.into_iter().flatten().collect();
        let all_came = report.labels.is_none() || effects.labels == LabelEffect::KeepMaximum;
        if all_came {
            kept.extend(&labels);
        }
        let contexts_of = |label: &str| Apart::contexts_of(apart.as_ref(), label);
        let by = (decision_id, operation.as_str(), at);
        // A label that the session had already is not awaited, but its new source counts.
        let brings = all_came || !kept.is_empty();
        for (label, one) in gathered {
            let contexts = contexts_of(&label);
            let is_there = self.labels.get(&label).is_some_and(|origin| origin.covers(&contexts));
            if (all_came || kept.contains(&one.of)) && !is_there {
                let all = self.gathered.entry(label.clone()).or_default();
                all.insert(one.from);
                if u32::try_from(all.len()).is_ok_and(|count| count >= one.least) {
                    self.carry(&label, contexts, by);
                }
            }
        }
        for label in kept {
            self.carry(label, contexts_of(label), by);
        }
        self.draw_from(source.as_ref().filter(|_| brings));
        self.derive_again();
        if effects.enabling == RuleEffect::See {
            for enabling in &enables {
                self.enable(enabling, now);
            }
        }
        if !effects.spends.releases(report.is_abortable) {
            for mut spending in spends {
                if let Some(actual) = report.actuals.get(spending.name())
                    && spending.is_sum
                    && effects.labels == LabelEffect::KeepReported
                {
                    spending.amount = spending.amount.min((*actual).max(0));
                }
                self.spend(&spending, at);
            }
        }
        self.latest = Some(now);
    }

    /// Takes the result of a permit over into a record that outlives the session. A report lowers the labels that the results
    /// may carry to those that they carry. Without a report, all stay.
    ///
    /// `session` is the history of the session after the report, `permitted_at` the time of the permit, and `remembering`
    /// has the time for which labels count. Returns whether the record changed.
    pub fn settle_remembered(
        &mut self,
        decision_id: &str,
        report: &Reported<'_>,
        session: &Self,
        (permitted_at, remembering): (Time, Remembering),
    ) -> bool {
        // Without a report all that the results may carry counts until its time is up.
        let pending = match report.event {
            Event::Unreported => None,
            _ => self.pending.remove(decision_id),
        };
        let was_open = pending.is_some();
        let at = pending.as_ref().map_or(permitted_at, |one| one.at);
        let all_came =
            report.labels.is_none() || effects(report.event).labels == LabelEffect::KeepMaximum;
        let is_derived = |label: &str| {
            session.labels.get(label).is_some_and(|one| one.decision_id == decision_id)
        };
        let (awaited, apart) = pending.map(|one| (one.labels, one.apart)).unwrap_or_default();
        let contexts_of = |label: &str| Apart::contexts_of(apart.as_ref(), label);
        let came = awaited.into_iter().filter(|label| all_came || is_derived(label));
        let told = report.labels.into_iter().flatten().cloned();
        let brought: BTreeSet<String> = told.chain(came).collect();
        let young_since = Time(at.0.saturating_sub(remembering.grain_ms()));
        let is_new = |label: &&String| {
            let known = self.labels.get(*label);
            known.is_none_or(|one| one.at < young_since || !one.covers(&contexts_of(label)))
        };
        let new: Vec<String> = brought.iter().filter(is_new).cloned().collect();
        for label in &new {
            self.bring(label, &contexts_of(label), (decision_id, report.operation, at));
        }
        was_open || !new.is_empty()
    }

    /// Makes room for one more open permit in a record that outlives the session.
    pub fn remember_oldest(&mut self) {
        while self.pending.len() >= MAX_PENDING {
            let oldest = self.pending.iter().min_by_key(|(id, one)| (one.at, (*id).clone()));
            let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
            let Some(one) = self.pending.remove(&id) else { return };
            for label in &one.labels {
                let contexts = Apart::contexts_of(one.apart.as_ref(), label);
                self.bring(label, &contexts, (&id, &one.operation, one.at));
            }
        }
    }

    /// Adds labels to the carried ones. They stay, also if the permitted call fails.
    pub fn raise(
        &mut self,
        decision_id: &str,
        operation: &str,
        labels: &BTreeSet<String>,
        now: Time,
    ) {
        let at = self.now(now);
        for label in labels {
            self.carry(label, BTreeSet::new(), (decision_id, operation, at));
            self.latest = Some(at);
        }
    }

    /// Moves what is open of a permit to another: of one thing that was permitted twice, one comes.
    pub fn hand_over(&mut self, from: &str, to: &str) {
        let Some(before) = self.pending.remove(from) else { return };
        let Some(after) = self.pending.get_mut(to) else {
            self.pending.insert(to.to_owned(), before);
            return;
        };
        after.labels.extend(before.labels);
        // What two contexts bring together counts everywhere.
        if after.apart != before.apart {
            after.apart = None;
        }
        after.source = after.source.take().or(before.source);
        for (label, one) in before.gathered {
            after.gathered.entry(label).or_insert(one);
        }
        for enabling in before.enables {
            if !after.enables.contains(&enabling) {
                after.enables.push(enabling);
            }
        }
        after.spends.extend(before.spends);
        after.at = before.at;
    }

    /// Makes room for one more open permit.
    pub fn commit_oldest(&mut self) {
        while self.pending.len() >= MAX_PENDING {
            let oldest = self.pending.iter().min_by_key(|(id, one)| (one.at, (*id).clone()));
            let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
            let now = self.latest.unwrap_or_default();
            self.settle(&id, &Reported::UNREPORTED, now);
        }
    }

    /// A derived label stays open as long as those permits are open that it could be gathered from.
    fn derive_again(&mut self) {
        if self.pending.values().all(|one| one.gathered.is_empty()) {
            return;
        }
        let mut derived: BTreeMap<String, u32> = BTreeMap::new();
        for (label, one) in self.pending.values().flat_map(|one| &one.gathered) {
            if !self.labels.contains_key(label) {
                derived.insert(label.clone(), one.least);
            }
        }
        derived.retain(|label, least| {
            u32::try_from(self.gathered_of(label).len()).is_ok_and(|count| count >= *least)
        });
        for one in self.pending.values_mut() {
            for label in one.gathered.keys().filter(|label| derived.contains_key(*label)) {
                one.labels.insert(label.clone());
            }
        }
    }

    /// Lets a rule see an operation that is done, unless the session keeps as much of it as it may.
    fn enable(&mut self, enabling: &Enabling, now: Time) {
        if !self.rules.contains_key(&enabling.rule) && self.rules.len() >= MAX_RULES {
            return;
        }
        let instances = &mut self.rules.entry(enabling.rule.clone()).or_default().instances;
        if let Some(within) = enabling.within_ms {
            let oldest = Time(now.0.saturating_sub(within));
            instances.retain(|_, progress| progress.at >= oldest);
        }
        if instances.contains_key(&enabling.instance) || instances.len() < MAX_INSTANCES {
            instances.insert(enabling.instance.clone(), Progress { step: 1, at: now });
        }
    }
}

/// Decision that brought a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carrier<'a> {
    /// The decision.
    pub decision_id: &'a str,
    /// Its operation.
    pub operation: &'a str,
    /// When.
    pub at: Time,
}

impl Carrier<'_> {
    /// As it is kept of a label that stays.
    #[must_use]
    pub fn origin(&self) -> LabelOrigin {
        LabelOrigin::new(self.decision_id, self.operation, self.at)
    }
}

/// No labels, and no amounts.
static NO_LABELS: BTreeSet<String> = BTreeSet::new();
static NO_AMOUNTS: BTreeMap<String, i64> = BTreeMap::new();

impl Reported<'static> {
    /// Nobody told.
    pub const UNREPORTED: Self = Self::plain(Event::Unreported);

    /// An event of which nothing more is told.
    #[must_use]
    pub const fn plain(event: Event) -> Self {
        Self {
            event,
            operation: "",
            labels: Some(&NO_LABELS),
            actuals: &NO_AMOUNTS,
            is_abortable: false,
        }
    }
}
