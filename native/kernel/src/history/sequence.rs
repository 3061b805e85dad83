//! Rules over the order of events. Each event moves what it is a step of, by constant work, and what it would complete is
//! told before.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::decision::Time;
use crate::digest::{sha256, short};
use crate::hex::hex_start;
use crate::history::{
    ANY, Advance, Enabling, HistoryView, Holder, Holders, MAX_INSTANCES, MAX_RULES, OF_TASK,
    PARTY_MS, Progress, RuleProgress, SessionHistory, UNSTARTED_MS, is_passed_on,
};
use crate::json::Value as Json;
use crate::model::{CorrelationKey, EventPattern, Model, Operation, RuleScope, Sequence};

/// A rule, ready to be asked.
#[derive(Clone, Debug)]
pub(crate) struct CompiledSequence {
    pub(crate) name: String,
    /// Name under which its progress is stored. A changed rule with the same name has another one, and begins anew.
    stored: Arc<str>,
    /// How many steps come before.
    steps: u32,
    /// The last event needs what comes before; otherwise it must not come after it.
    requires: bool,
    /// What it needs counts once it is done.
    counts_done: bool,
    within_ms: Option<i64>,
    key: Option<CorrelationKey>,
    scope: RuleScope,
}

/// What one operation is to one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SequenceStep {
    rule: u32,
    /// The steps that it is where it is let through, one bit each.
    passed: u32,
    /// And where it is denied.
    denied: u32,
    /// It is the event that the rule is about.
    last: bool,
    /// The rule restricts a session, so that the pair of agent and subject keeps that it is complete.
    is_passed_on: bool,
}

impl SequenceStep {
    pub(crate) const fn is_last(self) -> bool {
        self.last
    }

    /// Whether what the pair of agent and subject keeps of the rule can complete it.
    pub(crate) const fn is_inherited(self) -> bool {
        self.last && self.is_passed_on
    }

    pub(crate) const fn is_step(self) -> bool {
        self.passed != 0
    }

    pub(crate) const fn is_denied_step(self) -> bool {
        self.denied != 0
    }
}

/// What tells an event's instances apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventSubject<'a> {
    /// Id of the task.
    pub(crate) task: &'a str,
    /// Whether somebody started the task: its end is the end of what rules and budgets without a window count.
    pub(crate) is_started: bool,
    /// Whether what earlier tasks of the agent for the subject left counts in the task.
    pub(crate) inherits: bool,
    pub(crate) arguments: &'a Json,
    /// `None`: it acts on the system itself.
    pub(crate) collection: Option<&'a str>,
    /// Empty: the collection as a whole.
    pub(crate) id: &'a str,
    /// Other keys that records of the resource may have, which were written under older rules of spelling.
    pub(crate) older_ids: &'a [String],
    /// JSON pointer to the argument that holds the id.
    pub(crate) id_pointer: Option<&'a str>,
}

/// What a call changes where it is let through, and which rules see it once it is done.
pub(crate) type Passage = (Vec<Advance>, Vec<Enabling>);

/// All rules of a bundle, and which of them name an operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequences {
    rules: Vec<CompiledSequence>,
}

impl Sequences {
    /// Compiles the rules; gives beside them what each operation is to them, by its id.
    pub(crate) fn of(model: &Model) -> (Self, BTreeMap<String, Vec<SequenceStep>>) {
        let mut rules = Vec::with_capacity(model.sequences.len());
        let mut by_operation: BTreeMap<String, Vec<SequenceStep>> = BTreeMap::new();
        for (name, sequence) in &model.sequences {
            let rule = u32::try_from(rules.len()).unwrap_or(u32::MAX);
            rules.push(CompiledSequence::of(name, sequence));
            for operation in &model.operations {
                let named = SequenceStep::of(rule, sequence, model, operation);
                if named.is_last() || named.is_step() || named.is_denied_step() {
                    by_operation.entry(operation.id.clone()).or_default().push(named);
                }
            }
        }
        (Self { rules }, by_operation)
    }

    /// Under which name each rule's progress is stored, by the rule's own.
    pub(crate) fn stored(&self) -> BTreeMap<&str, &str> {
        self.rules.iter().map(|rule| (rule.name.as_str(), &*rule.stored)).collect()
    }

    /// Names under which the progress of the rules is stored that an event can complete.
    pub(crate) fn kept_as(&self, named: &[SequenceStep]) -> impl Iterator<Item = &str> {
        let last = named.iter().filter(|named| named.last);
        last.filter_map(|named| self.rule(*named)).map(|rule| &*rule.stored)
    }

    /// Whether the progress of all rules of these names is stored.
    pub(crate) fn has_all<'a>(&self, mut stored: impl Iterator<Item = &'a str>) -> bool {
        stored.all(|name| self.rules.iter().any(|rule| &*rule.stored == name))
    }

    /// Whether the rule that is stored under a name forbids something.
    pub(crate) fn restricts(&self, stored: &str) -> bool {
        self.rules.iter().any(|rule| !rule.requires && &*rule.stored == stored)
    }

    /// JSON pointers to the arguments that those rules tell events apart by.
    pub(crate) fn keys(&self, named: &[SequenceStep]) -> impl Iterator<Item = &str> {
        let rules = named.iter().filter_map(|named| self.rule(*named));
        rules.filter_map(|rule| match &rule.key {
            Some(CorrelationKey::Argument(pointer)) => Some(pointer.as_str()),
            Some(CorrelationKey::Resource) | None => None,
        })
    }

    /// Whose records the progress of those rules is kept in.
    pub(crate) fn holders(&self, named: &[SequenceStep]) -> Holders {
        named.iter().filter_map(|named| self.rule(*named)).map(|rule| rule.scope.holder()).collect()
    }

    /// The rules that the event would complete.
    pub(crate) fn completed<'a>(
        &'a self,
        named: &[SequenceStep],
        subject: EventSubject<'_>,
        history: HistoryView<'_>,
        now: Time,
    ) -> SmallVec<[&'a str; 8]> {
        let rules = named.iter().filter(|named| named.last).filter_map(|named| self.rule(*named));
        rules
            .filter(|rule| rule.is_completed(subject, history, now))
            .map(|rule| rule.name.as_str())
            .collect()
    }

    /// What the event changes where it is let through, and which rules see it once it is done.
    ///
    /// # Errors
    /// The name of a rule of which its holder keeps as much as it may.
    pub(crate) fn passage(
        &self,
        named: &[SequenceStep],
        subject: EventSubject<'_>,
        history: HistoryView<'_>,
        now: Time,
    ) -> Result<Passage, (&str, Holder)> {
        let most = named.iter().filter(|named| named.is_step()).count();
        let (mut advances, mut enables) = (Vec::with_capacity(most), Vec::new());
        for (rule, steps) in self.moved(named, |named| named.passed) {
            let full = || (rule.name.as_str(), rule.scope.holder());
            let kept = rule.kept(history).ok_or_else(full)?;
            let known = kept.rules.get(&*rule.stored);
            let window_ms = rule.window_ms(subject);
            let older = rule.older_instances(subject);
            let instance = (rule.instance(subject), older.as_slice(), window_ms);
            let Some(advance) = rule.advance(instance, steps, known, now) else {
                continue;
            };
            if !has_room(&advance, known, kept) {
                return Err(full());
            }
            if rule.counts_done {
                let Advance { rule, instance, .. } = advance;
                let rule = rule.to_string();
                enables.push(Enabling { rule, instance, within_ms: window_ms });
            } else {
                advances.push(advance);
            }
        }
        Ok((advances, enables))
    }

    /// What the event changes where it is denied. A rule of which its holder keeps as much as it may takes it as an event of
    /// every key: it is denied already, so it cannot be refused to be remembered.
    pub(crate) fn denial(
        &self,
        named: &[SequenceStep],
        subject: EventSubject<'_>,
        history: HistoryView<'_>,
        now: Time,
    ) -> Vec<Advance> {
        let moved = self.moved(named, |named| named.denied);
        moved
            .filter_map(|(rule, steps)| {
                let kept = rule.kept(history)?;
                let known = kept.rules.get(&*rule.stored);
                let window_ms = rule.window_ms(subject);
                let older = rule.older_instances(subject);
                let instance = (rule.instance(subject), older.as_slice(), window_ms);
                let advance = rule.advance(instance, steps, known, now)?;
                if has_room(&advance, known, kept) {
                    return Some(advance);
                }
                rule.advance((Cow::Borrowed(ANY), &[], window_ms), steps, known, now)
            })
            .collect()
    }

    fn rule(&self, named: SequenceStep) -> Option<&CompiledSequence> {
        self.rules.get(named.rule as usize)
    }

    fn moved(
        &self,
        named: &[SequenceStep],
        steps: impl Fn(&SequenceStep) -> u32,
    ) -> impl Iterator<Item = (&CompiledSequence, u32)> {
        let steps = named.iter().map(move |named| (*named, steps(named)));
        let moved = steps.filter(|(_, steps)| *steps != 0);
        moved.filter_map(|(named, steps)| Some((self.rule(named)?, steps)))
    }
}

impl SequenceStep {
    fn of(rule: u32, sequence: &Sequence, model: &Model, operation: &Operation) -> Self {
        let built_in = model.is_built_in(operation);
        let is = |events: &[EventPattern], denied: bool| {
            events
                .iter()
                .any(|event| event.is_denied == denied && event.matches(operation, built_in))
        };
        let bits = |denied: bool| {
            let steps = sequence.steps.iter().enumerate();
            steps.fold(0, |bits, (index, events)| {
                if is(events, denied) {
                    bits | 1_u32.checked_shl(bit(index)).unwrap_or(0)
                } else {
                    bits
                }
            })
        };
        Self {
            rule,
            passed: bits(false),
            denied: bits(true),
            last: is(&sequence.last, false),
            is_passed_on: !sequence.requires && sequence.scope.holder() == Holder::Session,
        }
    }
}

fn bit(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl EventSubject<'_> {
    /// The window of a rule or a budget that has none: of a session that nobody ends, a day.
    pub(crate) fn window_ms(&self) -> Option<i64> {
        (!self.is_started).then_some(UNSTARTED_MS)
    }

    /// The id of the resource, where an argument holds it.
    pub(crate) fn id_at(&self, pointer: &str) -> Option<&str> {
        (self.id_pointer == Some(pointer)).then_some(self.id)
    }
}

impl CompiledSequence {
    fn of(name: &str, sequence: &Sequence) -> Self {
        let hash = hex_start(&sha256(sequence.canonical().as_bytes()), 8);
        Self {
            name: name.to_owned(),
            stored: format!("{name}#{hash}").into(),
            steps: bit(sequence.steps.len()),
            requires: sequence.requires,
            counts_done: sequence.counts_done,
            within_ms: sequence
                .within
                .map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
                .or_else(|| (sequence.scope.holder() != Holder::Session).then_some(PARTY_MS)),
            key: sequence.key.clone(),
            scope: sequence.scope,
        }
    }

    /// The record that its progress is kept in. INVARIANT (recalled): judging begins only where all that the operation
    /// names is at hand.
    fn kept<'a>(&self, history: HistoryView<'a>) -> Option<&'a SessionHistory> {
        history.of(self.scope.holder())
    }

    fn task<'a>(&self, subject: EventSubject<'a>) -> &'a str {
        match self.scope {
            RuleScope::Task => subject.task,
            RuleScope::Session | RuleScope::Agent | RuleScope::Subject => "",
        }
    }

    /// Which instance an event is of: by task where the rule is, and by key where it has one.
    ///
    /// INVARIANT (one key): a number and its digits are one key, and of an id all spellings are.
    fn instance<'a>(&self, subject: EventSubject<'a>) -> Cow<'a, str> {
        let task = self.task(subject);
        let value = match &self.key {
            None => return Cow::Borrowed(task),
            Some(CorrelationKey::Resource) => {
                format!("{}/{}", subject.collection.unwrap_or_default(), subject.id)
            }
            Some(CorrelationKey::Argument(pointer)) => {
                match (subject.id_at(pointer), subject.arguments.pointer(pointer)) {
                    (Some(id), _) => format!("s{id}"),
                    (None, Some(Json::String(text))) => format!("s{text}"),
                    (None, Some(Json::Integer(number))) => format!("s{number}"),
                    (None, Some(Json::Bool(value))) => format!("b{value}"),
                    // The catalog requires the argument of every operation that the rule names.
                    (None, Some(_) | None) => String::new(),
                }
            }
        };
        Cow::Owned(format!("{task}/{}", short(&value)))
    }

    /// Under which other instances the progress of a rule that restricts may be stored, by older rules of spelling.
    ///
    /// INVARIANT (fail closed): a rule that enables does not look at them, since another key may have been written so.
    fn older_instances(&self, subject: EventSubject<'_>) -> SmallVec<[String; 2]> {
        let mut values: SmallVec<[String; 2]> = SmallVec::new();
        match &self.key {
            _ if self.requires => {}
            None => {}
            Some(CorrelationKey::Resource) => {
                let collection = subject.collection.unwrap_or_default();
                values.extend(subject.older_ids.iter().map(|id| format!("{collection}/{id}")));
            }
            Some(CorrelationKey::Argument(pointer)) => match subject.arguments.pointer(pointer) {
                Some(Json::Integer(number)) => values.push(format!("i{number}")),
                Some(Json::String(text)) if subject.id_at(pointer).is_some_and(|id| id != text) => {
                    values.push(format!("s{text}"));
                }
                _ => {}
            },
        }
        let task = self.task(subject);
        values.iter().map(|value| format!("{task}/{}", short(value))).collect()
    }

    /// The instance under which the pair of agent and subject keeps a step that completes the rule. Only rules that restrict
    /// a session are passed on: a rule of an agent or a subject outlives the session by itself.
    fn passed_on(&self, instance: &str, step: u32) -> Option<String> {
        if self.requires || step < self.steps || self.scope.holder() != Holder::Session {
            return None;
        }
        if instance == ANY || self.scope != RuleScope::Task {
            return Some(instance.to_owned());
        }
        // The key's digest comes last, and has no `/`.
        let key = self.key.as_ref().and_then(|_| instance.rfind('/'));
        let key = key.and_then(|at| instance.get(at..)).unwrap_or_default();
        Some(format!("{OF_TASK}{key}"))
    }

    /// How long what lies before counts.
    fn window_ms(&self, subject: EventSubject<'_>) -> Option<i64> {
        self.within_ms.or_else(|| subject.window_ms())
    }

    fn is_completed(&self, subject: EventSubject<'_>, history: HistoryView<'_>, now: Time) -> bool {
        let Some(kept) = self.kept(history) else { return true };
        let known = kept.rules.get(&*self.stored);
        let oldest = before(self.window_ms(subject), now);
        let has_all = |progress: &Progress| {
            progress.step >= self.steps && oldest.is_none_or(|oldest| progress.at >= oldest)
        };
        let is_passed_on = history.pair.is_some_and(|pair| !pair.rules.is_empty());
        if known.is_none() && (self.requires || !is_passed_on) {
            return self.requires;
        }
        let instance = self.instance(subject);
        let has = |known: Option<&RuleProgress>, instance: &str| {
            known.and_then(|known| known.of(instance)).is_some_and(has_all)
        };
        if self.requires {
            return !has(known, &instance);
        }
        has(known, &instance)
            || has(known, ANY)
            || self.older_instances(subject).iter().any(|older| has(known, older))
            || self.is_inherited(&instance, subject, history, now)
    }

    /// Whether the rule was completed in another task of the agent for the subject. INVARIANT (recalled): where the rule
    /// decides anything, the pair's record is at hand.
    fn is_inherited(
        &self,
        instance: &str,
        subject: EventSubject<'_>,
        history: HistoryView<'_>,
        now: Time,
    ) -> bool {
        let pair = history.pair.filter(|_| subject.inherits);
        let Some(known) = pair.and_then(|pair| pair.rules.get(&*self.stored)) else { return false };
        let older = self.older_instances(subject);
        let own = [instance, ANY].into_iter().chain(older.iter().map(String::as_str));
        let mut instances = own.filter_map(|instance| self.passed_on(instance, self.steps));
        let oldest = before(self.window_ms(subject), now);
        let counts = |progress: &Progress| {
            is_passed_on(progress, now) && oldest.is_none_or(|oldest| progress.at >= oldest)
        };
        instances.any(|instance| known.of(&instance).is_some_and(counts))
    }

    /// One event is one step, the first that is still to come. Where there is a window, a step counts from the last time
    /// that it was seen, and one that is too old is still to come.
    ///
    /// Args:
    /// * `older`: instances under which its progress may be stored, too.
    /// * `window_ms`: of the rule, for the event's subject; `kept`: of the rule.
    fn advance(
        &self,
        (instance, older, window_ms): (Cow<'_, str>, &[String], Option<i64>),
        steps: u32,
        kept: Option<&RuleProgress>,
        now: Time,
    ) -> Option<Advance> {
        let known = kept.and_then(|kept| kept.of(&instance));
        let oldest = before(window_ms, now);
        let counts = |progress: &&Progress| oldest.is_none_or(|oldest| progress.at >= oldest);
        let steps_of = |known: Option<&Progress>| known.filter(counts).map_or(0, |one| one.step);
        let older = older.iter().map(|one| steps_of(kept.and_then(|kept| kept.of(one))));
        let step = older.fold(steps_of(known), u32::max);
        let is_next = |step: u32| 1_u32.checked_shl(step).is_some_and(|bit| steps & bit != 0);
        let step = if step < self.steps && is_next(step) {
            step.saturating_add(1)
        } else if window_ms.is_some() && step > 0 && is_next(step.saturating_sub(1)) {
            step
        } else {
            return None;
        };
        let progress = Progress { step, at: now };
        (known != Some(&progress)).then(|| Advance {
            rule: Arc::clone(&self.stored),
            holder: self.scope.holder(),
            passed_on: self.passed_on(&instance, step),
            instance: instance.into_owned(),
            progress,
            is_new: known.is_none(),
            forgets_before: oldest,
            restricts: !self.requires,
        })
    }
}

/// When what lies before was too long ago.
fn before(window_ms: Option<i64>, now: Time) -> Option<Time> {
    window_ms.map(|window| Time(now.0.saturating_sub(window)))
}

/// Whether a record has room for a step.
///
/// Args:
/// * `kept`: of the step's rule.
fn has_room(advance: &Advance, kept: Option<&RuleProgress>, record: &SessionHistory) -> bool {
    let Some(RuleProgress { instances, .. }) = kept else {
        return record.rules.len() < MAX_RULES;
    };
    if !advance.is_new || instances.len() < MAX_INSTANCES {
        return true;
    }
    let is_live =
        |progress: &&Progress| advance.forgets_before.is_none_or(|oldest| progress.at >= oldest);
    instances.values().filter(is_live).count() < MAX_INSTANCES
}
