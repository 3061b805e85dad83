//! Rules over the order of events.

use std::time::Duration;

use authz_base::json::pointer_tokens;
use authz_base::record::history::Holder;

use super::build::{ModelBuilder, duration};
use super::classify::effect;
use super::types::{CountsWord, EffectWord, ScopeWord, SequenceEntry};
use super::yaml::{At, Entries, Many};
use crate::diagnostic::{clip, unknown, unknown_word};
use crate::ids;
use crate::json_schema::{deref, required};
use crate::model::{
    CorrelationKey, EventOf, EventPattern, Operation, OperationGlob, Reports, RuleScope, Sequence,
    Spelling,
};

/// Sequences of a bundle.
const MOST_SEQUENCES: usize = 1_000;
/// Steps of one.
const MOST_STEPS: usize = 16;
/// Events of one step.
const MOST_EVENTS: usize = 64;
/// Longest time for which an earlier event counts.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Takes over `sequences`, once the operations are known.
pub(super) fn apply(build: &mut ModelBuilder<'_>, file: &str, said: &Entries<At<SequenceEntry>>) {
    for (name, entry) in &said.0 {
        let Some(at) = build.declare(file, "sequence", name, ids::refuse) else { continue };
        if build.model.sequences.len() >= MOST_SEQUENCES {
            let what = format!("more than {MOST_SEQUENCES} sequences");
            return build.found.error(&at, what, "Remove some.");
        }
        let before = build.found.iter().count();
        let mut reader = HistoryReader { build: &mut *build, file };
        let Some(parts) = reader.parts(entry) else { continue };
        let said = &entry.value;
        let within = reader.within(said.within.as_ref(), parts.steps.len());
        let scope = said.scope.map_or(RuleScope::Session, ScopeWord::scope);
        let Parts { steps, last, requires, counts_done } = parts;
        if counts_done && scope.holder() != Holder::Session {
            let what = "that an event of all sessions is done is not in this version";
            let fix = "Say `counts: permitted`, or `scope: session`.";
            build.found.error(&at, what, fix);
        }
        let mut reader = HistoryReader { build: &mut *build, file };
        let mut sequence =
            Sequence { steps, last, requires, counts_done, within, key: None, scope, at };
        sequence.key = said.key.as_ref().and_then(|key| reader.key(key, &sequence));
        if build.found.iter().count() == before {
            build.model.sequences.insert(name.value.clone(), sequence);
        }
    }
}

/// The earlier events, and the events of the rule.
struct Parts {
    steps: Vec<Vec<EventPattern>>,
    last: Vec<EventPattern>,
    requires: bool,
    counts_done: bool,
}

pub(super) struct HistoryReader<'a, 'b> {
    pub(super) build: &'a mut ModelBuilder<'b>,
    pub(super) file: &'a str,
}

impl HistoryReader<'_, '_> {
    fn parts(&mut self, entry: &At<SequenceEntry>) -> Option<Parts> {
        let said = &entry.value;
        let at = entry.at.within(self.file);
        let forms = [
            said.require.is_some(),
            said.never.is_some(),
            said.order.is_some(),
            said.switch.is_some(),
        ];
        let pairs = (said.require.is_some(), said.never.is_some(), said.order.is_some())
            == (said.before.is_some(), said.after.is_some(), said.forbid.is_some());
        if forms.into_iter().filter(|said| *said).count() != 1 || !pairs {
            let what = "a sequence is one of `require` and `before`, `never` and `after`, `order` and `forbid`, `switch`";
            let fix = "Write for instance `{never: mail.send, after: crm.get}`.";
            self.build.found.error(&at, what, fix);
            return None;
        }
        if let Some(counts) = &said.counts
            && said.require.is_none()
        {
            let what = "`counts` goes with `require`: what must not come before counts as soon as it is permitted";
            self.build.found.error(&counts.at.within(self.file), what, "Remove it.");
        }
        if let (Some(first), Some(last)) = (&said.require, &said.before) {
            let counts = said.counts.as_ref().map(|counts| counts.value);
            let counts_done = counts != Some(CountsWord::Permitted);
            let events = self.events(first, false);
            if counts_done {
                self.reported(&events, &at);
            }
            let last = self.events(last, false);
            return Some(Parts { steps: vec![events], last, requires: true, counts_done });
        }
        if let (Some(last), Some(first)) = (&said.never, &said.after) {
            let steps = vec![self.events(first, true)];
            let last = self.events(last, false);
            return Some(Parts { steps, last, requires: false, counts_done: false });
        }
        if let (Some(order), Some(last)) = (&said.order, &said.forbid) {
            if order.value.is_empty() || order.value.len() > MOST_STEPS {
                let what = format!("`order` has 1 to {MOST_STEPS} steps");
                self.build.found.error(&order.at.within(self.file), what, "Add or remove some.");
                return None;
            }
            let steps = order.value.iter().map(|step| self.events(step, true)).collect();
            let last = self.events(last, false);
            return Some(Parts { steps, last, requires: false, counts_done: false });
        }
        let switch = said.switch.as_ref()?;
        let [from, to] = switch.effect.value.as_slice() else {
            let what =
                "`switch` has two effects: the one before, and the one that must not follow it";
            let fix = "Write `switch: {effect: [read, delete]}`.";
            self.build.found.error(&switch.effect.at.within(self.file), what, fix);
            return None;
        };
        let mut of = |word: &At<EffectWord>| {
            let effect = effect(word.value);
            let event = EventPattern { of: EventOf::Effect(effect), is_denied: false };
            self.known(&event, &format!("effect:{}", effect.as_str()), word.at.within(self.file));
            vec![event]
        };
        let (steps, last) = (vec![of(from)], of(to));
        Some(Parts { steps, last, requires: false, counts_done: false })
    }

    /// Refuses events that nobody ever tells are done.
    fn reported(&mut self, events: &[EventPattern], at: &crate::model::Location) {
        let model = &self.build.model;
        let mut named = model.operations.iter().filter(|one| {
            let built_in = model.is_built_in(one);
            events.iter().any(|event| event.matches(one, built_in))
        });
        let Some(first) = named.next() else { return };
        let is_told = |one: &Operation| model.reports(&one.id) != Reports::Never;
        if is_told(first) || named.any(is_told) {
            return;
        }
        let what = format!(
            "nobody reports that `{}` is done, so what it is required for would never be permitted",
            first.id
        );
        let fix = format!(
            "Say `counts: permitted`: it counts as soon as it is permitted. Or say who reports: `catalog: {{{}: \
             {{reports: sdk, …}}}}`, or `access_log`.",
            first.system
        );
        self.build.found.error(at, what, fix);
    }

    /// Args: `denied`: an event may be a denial.
    pub(super) fn events(&mut self, said: &Many<At<String>>, denied: bool) -> Vec<EventPattern> {
        if said.0.is_empty() || said.0.len() > MOST_EVENTS {
            let at = said.0.first().map(|first| first.at).unwrap_or_default().within(self.file);
            let what = format!("a step has 1 to {MOST_EVENTS} events");
            self.build.found.error(&at, what, "Add or remove some.");
        }
        said.0.iter().take(MOST_EVENTS).filter_map(|text| self.event(text, denied)).collect()
    }

    fn event(&mut self, said: &At<String>, denied: bool) -> Option<EventPattern> {
        let at = said.at.within(self.file);
        let inner = said.value.strip_prefix("denied(").and_then(|rest| rest.strip_suffix(')'));
        if inner.is_some() && !denied {
            let what = format!(
                "`{}` cannot stand here: the rule is about what is asked for",
                clip(&said.value)
            );
            self.build.found.error(&at, what, "Name the operation alone.");
            return None;
        }
        let text = inner.unwrap_or(&said.value);
        let of = match text.split_once(':') {
            Some(("effect", word)) => {
                let names = crate::model::Effect::ALL.map(crate::model::Effect::as_str);
                let known = crate::model::Effect::ALL.into_iter().find(|one| one.as_str() == word);
                let Some(effect) = known else {
                    let (what, fix) = unknown_word("effect", word, names);
                    self.build.found.error(&at, what, fix);
                    return None;
                };
                EventOf::Effect(effect)
            }
            Some(("system", system)) => EventOf::System(system.to_owned()),
            _ => EventOf::Operations(OperationGlob(
                authz_base::pattern::Glob::new(text),
                text.to_owned(),
            )),
        };
        let event = EventPattern { of, is_denied: inner.is_some() };
        self.known(&event, text, at).then_some(event)
    }

    /// Refuses an event that could never happen.
    fn known(&mut self, event: &EventPattern, text: &str, at: crate::model::Location) -> bool {
        let model = &self.build.model;
        if model.operations.iter().any(|one| event.matches(one, model.is_built_in(one))) {
            return true;
        }
        let mut names: Vec<(&str, Option<&crate::model::Location>)> =
            model.operations.iter().map(|one| (one.id.as_str(), Some(&one.at))).collect();
        names.truncate(10_000);
        let (what, fix) = unknown("operation", text, names);
        let what = format!("{what}: no operation is such an event");
        self.build.found.error(&at, what, fix);
        false
    }

    fn within(&mut self, said: Option<&At<String>>, steps: usize) -> Option<Duration> {
        let said = said?;
        let at = said.at.within(self.file);
        if steps != 1 {
            let what = "`within` goes with `require`, `never` and `switch`";
            self.build.found.error(&at, what, "Remove it.");
            return None;
        }
        let span = duration(&said.value).filter(|span| *span <= LONGEST);
        if span.is_none() {
            let what = format!("`{}` is no duration of at most 24h", clip(&said.value));
            self.build.found.error(&at, what, "Write 30s, 15m or 24h.");
        }
        span
    }

    /// What the events have in common; every operation that the rule names must have it.
    fn key(&mut self, said: &At<String>, sequence: &Sequence) -> Option<CorrelationKey> {
        let at = said.at.within(self.file);
        let model = &self.build.model;
        let events = || sequence.steps.iter().flatten().chain(&sequence.last);
        let named: Vec<Operation> = model
            .operations
            .iter()
            .filter(|one| events().any(|event| event.matches(one, model.is_built_in(one))))
            .cloned()
            .collect();
        if said.value == "resource" {
            let Some(other) = named.iter().find(|one| one.resource.is_none()) else {
                return Some(CorrelationKey::Resource);
            };
            let what = format!("`{}` acts on no resource, so the rule cannot go by it", other.id);
            let fix = "Give it a `resource` in `classify`, or name fewer operations.";
            self.build.found.error(&at, what, fix);
            return None;
        }
        for operation in &named {
            let before = self.build.found.iter().count();
            self.build.pointer(
                self.file,
                operation,
                said,
                &["string", "integer", "boolean"],
                false,
            );
            if self.build.found.iter().count() > before {
                return None;
            }
            if !is_required(operation, &said.value) {
                let what = format!(
                    "`{}` of `{}` may be absent, so the rule cannot go by it",
                    clip(&said.value),
                    operation.id
                );
                let fix = "Go by an argument that is `required`, or by `resource`.";
                self.build.found.error(&at, what, fix);
                return None;
            }
        }
        // Where the argument is the id of a resource, its collection says how it is compared.
        let spelling = |operation: &&Operation| {
            let rule = operation.resource.as_ref();
            let rule = rule.filter(|rule| rule.id.as_deref() == Some(said.value.as_str()));
            rule.map(|rule| rule.spelling).unwrap_or_default()
        };
        let folded = named.iter().find(|one| spelling(one) == Spelling::Fold);
        let exact = named.iter().find(|one| spelling(one) == Spelling::Exact);
        if let (Some(folded), Some(exact)) = (folded, exact) {
            let what = format!(
                "`{}` is compared without case for `{}` and byte by byte for `{}`",
                clip(&said.value),
                folded.id,
                exact.id
            );
            let fix = "Give both collections the same `spelling`, or make it the id of a resource of both operations.";
            self.build.found.error(&at, what, fix);
            return None;
        }
        Some(CorrelationKey::Argument(said.value.clone()))
    }
}

/// Whether the argument of a pointer is always there.
pub(super) fn is_required(operation: &Operation, pointer: &str) -> bool {
    let mut schema = Some(operation.input.as_ref());
    for token in pointer_tokens(pointer).unwrap_or_default() {
        let Some(object) = schema.and_then(|schema| deref(&operation.input, schema)) else {
            return false;
        };
        if !required(object).any(|name| name == token) {
            return false;
        }
        schema = object.get("properties").and_then(|all| all.get(&token));
    }
    true
}
