//! Search for a trace that reaches a target: breadth first, so that the first trace has the fewest calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use authz_kernel::model::{CallPattern, Distinct, EventPattern, Model, Tier};

use super::guard::Conditions;
use super::runner::{Circumstances, Event, Runner, Trace};
use super::taint::{Flow, Goal, Mark, Taints};
use super::ways::Way;

/// Calls before the last one.
const MOST_PREFIX: usize = 4;
/// Calls that may stand before the last one, of which sequences are made.
const MOST_EVENTS: usize = 20;
/// Waits before the last call that are tried.
const MOST_WAITS: usize = 3;
/// Traces that are run for one target without prompts and waiting, and those that are run for it with them.
const MOST_RUNS: usize = 1_500;

/// A call that must be reached.
#[derive(Clone, Debug)]
pub struct Target {
    /// The call.
    pub event: Event,
    /// Labels that the data of the call must have.
    pub data: BTreeSet<String>,
    /// Of these: the label that Authz must not have.
    pub lost: Option<String>,
    /// Least effective tier.
    pub tier: Option<Tier>,
    /// The calls that the target is of: its step-up kinds make a call fine.
    pub pattern: CallPattern,
}

/// Bounds of all searches of an analysis.
#[derive(Clone, Copy, Debug)]
pub struct SearchBudget {
    runs: usize,
    until: Instant,
}

impl SearchBudget {
    /// Bounds by runs and time.
    #[must_use]
    pub fn new(runs: usize, time: Duration) -> Self {
        let now = Instant::now();
        Self { runs, until: now.checked_add(time).unwrap_or(now) }
    }

    fn take(&mut self) -> bool {
        if self.runs == 0 || Instant::now() >= self.until {
            return false;
        }
        self.runs = self.runs.saturating_sub(1);
        true
    }
}

/// Labels that calls before a target's gather.
#[derive(Clone, Debug)]
struct WantedLabels {
    /// The labels, derived ones among them.
    labels: BTreeSet<String>,
    /// Labels that calls bring: in place of a derived label, the one that it is derived from.
    brought: BTreeSet<String>,
    /// Number of resources that must have a label, for the labels that are counted by resources.
    resources: BTreeMap<String, u32>,
}

/// How the traces of a search differ beside their calls.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// The prompt of each root task names values of the calls.
    has_prompts: bool,
    /// Time before the last call, in seconds.
    wait_seconds: u32,
}

/// Result of a search.
#[derive(Clone, Debug)]
pub enum Searched {
    /// The engine permits each call of this trace.
    Found(Box<Trace>),
    /// No trace within the bounds, and why.
    NotFound(String),
}

/// Searches traces of one bundle.
#[derive(Debug)]
pub struct Searcher<'r, 'a> {
    /// Conditions of the bundle.
    pub conditions: &'r Conditions<'a>,
    /// The fixpoint.
    pub taints: &'a Taints<'a>,
    /// The model.
    pub model: &'a Model,
    /// Runs traces.
    pub runner: Runner<'a>,
    /// Bounds.
    pub budget: SearchBudget,
}

impl Searcher<'_, '_> {
    /// Searches a trace that reaches a target: first without prompts and waiting, then with prompts that name values of the
    /// calls, then with a wait before the last call.
    pub fn search(&mut self, target: &Target) -> Searched {
        let wanted = self.wanted(target);
        let events = self.events(target, &wanted);
        let asks = self.asks_for_origins(target, &events);
        let mut reason = None;
        let (mut first, mut further) = (MOST_RUNS, MOST_RUNS);
        for wait_seconds in [0].into_iter().chain(self.waits(target)) {
            for has_prompts in [false, true] {
                if has_prompts && !asks {
                    continue;
                }
                let course = Course { has_prompts, wait_seconds };
                let is_first = !has_prompts && wait_seconds == 0;
                let left = if is_first { &mut first } else { &mut further };
                match self.traverse(target, (&events, &wanted), (course, left)) {
                    Searched::Found(trace) if has_prompts => {
                        return Searched::Found(Box::new(self.plainest(*trace, target)));
                    }
                    Searched::Found(trace) => return Searched::Found(trace),
                    Searched::NotFound(text) => reason = reason.or(Some(text)),
                }
            }
        }
        Searched::NotFound(reason.unwrap_or_default())
    }

    /// Times after which a window of a sequence or of a budget is over that can stop the call, in seconds; the shortest first.
    fn waits(&self, target: &Target) -> Vec<u32> {
        let flow = self.taints.flows.get(target.event.flow);
        let Some(operation) = flow.and_then(|flow| self.taints.operation(flow)) else {
            return Vec::new();
        };
        let is_built_in = self.model.is_built_in(operation);
        let names = |events: &[EventPattern]| {
            events.iter().any(|event| event.matches(operation, is_built_in))
        };
        let sequences = self.model.sequences.values();
        let sequences = sequences.filter(|rule| !rule.requires && names(&rule.last));
        let budgets = self.model.budgets.values().filter(|rule| names(&rule.of));
        let windows = sequences.filter_map(|rule| rule.within);
        let windows = windows.chain(budgets.filter_map(|rule| rule.within));
        let after = |window: Duration| u32::try_from(window.as_secs().saturating_add(1)).ok();
        let all: BTreeSet<u32> = windows.filter_map(after).collect();
        all.into_iter().take(MOST_WAITS).collect()
    }

    /// Runs calls: first without a prompt, then with one that names values of the calls. `None`: one is not permitted.
    pub fn run(&mut self, events: &[Event], unmet: &dyn Fn(&str) -> bool) -> Option<Trace> {
        let conditions = self.conditions;
        let plain = self.runner.run(conditions, events, &Circumstances::default(), unmet);
        let asks = |event: &Event| self.has_prompt(event) && self.asks(event);
        if plain.is_ok() || !events.iter().any(asks) {
            return plain.ok();
        }
        let prompt = self.runner.nameable(conditions, events);
        let named = Circumstances { prompt, ..Circumstances::default() };
        self.runner.run(conditions, events, &named, unmet).ok()
    }

    /// Whether a prompt can change an answer: the call, or one before it, is in a task, and a policy asks who chose its values.
    fn asks_for_origins(&self, target: &Target, events: &[Event]) -> bool {
        let mut all = events.iter().chain([&target.event]);
        all.any(|event| self.has_prompt(event) && self.asks(event))
    }

    fn has_prompt(&self, event: &Event) -> bool {
        self.taints.ways.all.get(event.way).is_some_and(Way::is_started)
    }

    fn asks(&self, event: &Event) -> bool {
        let operation =
            self.taints.flows.get(event.flow).and_then(|flow| self.taints.operation(flow));
        operation.is_some_and(|operation| self.conditions.ask_for_origins(&operation.id))
    }

    /// A trace with a prompt that names no more values than the trace needs.
    fn plainest(&mut self, trace: Trace, target: &Target) -> Trace {
        let events = trace.events();
        let used = self.runner.nameable_of(&trace);
        let with = |prompt: Vec<String>| Circumstances { prompt, ..trace.circumstances.clone() };
        let first = with(used.clone());
        let Some(mut best) = self.again(&events, &first, target) else { return trace };
        for value in used {
            let mut fewer = best.circumstances.prompt.clone();
            fewer.retain(|one| *one != value);
            best = self.again(&events, &with(fewer), target).unwrap_or(best);
        }
        best
    }

    /// The calls of a trace in other circumstances. `None`: they do not reach the target.
    fn again(
        &mut self,
        events: &[Event],
        circumstances: &Circumstances,
        target: &Target,
    ) -> Option<Trace> {
        let unmet = |kind: &str| target.pattern.is_lifted_by(kind);
        let trace = self.runner.run(self.conditions, events, circumstances, &unmet).ok()?;
        reaches(&trace, target).then_some(trace)
    }

    /// Tries traces, the shortest first.
    ///
    /// Args: `events`: calls that may stand before the target's; `wanted`: labels that they gather; `left`: traces that may be
    /// tried.
    fn traverse(
        &mut self,
        target: &Target,
        (events, wanted): (&[Event], &WantedLabels),
        (course, left): (Course, &mut usize),
    ) -> Searched {
        let mut frontier: Vec<Vec<Event>> = vec![Vec::new()];
        let mut reason = String::new();
        let mut seen: BTreeSet<(BTreeSet<String>, BTreeSet<usize>)> = BTreeSet::new();
        let required = self.required(target);
        for _ in 0..=MOST_PREFIX {
            let mut next = Vec::new();
            for prefix in frontier {
                if *left == 0 || !self.budget.take() {
                    return Searched::NotFound("the bound of the search was reached".to_owned());
                }
                *left = left.saturating_sub(1);
                let mut calls = prefix.clone();
                calls.push(target.event.clone());
                let prompt = match course.has_prompts {
                    true => self.runner.nameable(self.conditions, &calls),
                    false => Vec::new(),
                };
                let wait_seconds = course.wait_seconds;
                let circumstances = Circumstances { prompt, wait_seconds };
                let unmet = |kind: &str| target.pattern.is_lifted_by(kind);
                let run = self.runner.run(self.conditions, &calls, &circumstances, &unmet);
                let state = match run {
                    Ok(trace) if reaches(&trace, target) => {
                        return Searched::Found(Box::new(trace));
                    }
                    Ok(trace) => trace.state,
                    // A call of the prefix is not permitted: no longer trace begins with it.
                    Err(stopped) if stopped.calls < prefix.len() => continue,
                    Err(stopped) => {
                        if reason.is_empty() {
                            reason = stopped.reason;
                        }
                        stopped.state
                    }
                };
                let of_target = |place: &String| {
                    wanted.labels.iter().any(|label| place.ends_with(&format!(" {label}")))
                };
                let state: BTreeSet<String> = state.into_iter().filter(of_target).collect();
                // A trace that brings the data nowhere else than an earlier one does needs no longer trace.
                let done: BTreeSet<usize> = prefix
                    .iter()
                    .map(|event| event.flow)
                    .filter(|flow| required.contains(flow))
                    .collect();
                if prefix.len() < MOST_PREFIX && seen.insert((state, done)) {
                    let fresh = events.iter().filter(|event| !prefix.contains(event));
                    next.extend(fresh.map(|event| {
                        let mut longer = prefix.clone();
                        longer.push(event.clone());
                        longer
                    }));
                }
            }
            frontier = next;
        }
        let text = match reason.is_empty() {
            true => "no trace within the bound brings the data to the call".to_owned(),
            false => format!("no tried call reaches it: {reason}"),
        };
        Searched::NotFound(text)
    }

    /// Labels that calls before a target's gather: those of its data, those without which no policy permits it, and those from
    /// which one of these is derived.
    fn wanted(&self, target: &Target) -> WantedLabels {
        let mut labels = target.data.clone();
        let place = self.taints.ways.all.get(target.event.way);
        if let Some((way, flow)) = place.zip(self.taints.flows.get(target.event.flow)) {
            labels.extend(self.taints.needed(way, flow, target.event.class.as_deref()));
        }
        let mut wanted =
            WantedLabels { brought: labels.clone(), labels, resources: BTreeMap::new() };
        for (label, rule) in &self.model.derives {
            if !wanted.brought.remove(label) {
                continue;
            }
            wanted.brought.insert(rule.from.clone());
            if rule.distinct == Distinct::Resources {
                let least = wanted.resources.entry(rule.from.clone()).or_default();
                *least = rule.least.max(*least);
            }
        }
        wanted
    }

    /// Calls that can bring the data of a target, or that its sequences ask for; the nearest first.
    fn events(&self, target: &Target, labels: &WantedLabels) -> Vec<Event> {
        let Some(way) = self.taints.ways.all.get(target.event.way) else { return Vec::new() };
        let needs_store = target.lost.is_some()
            || labels.brought.iter().any(|label| self.is_from_store(way, label));
        let wanted = self.required(target);
        let mut ranked: BTreeMap<(usize, bool, usize, usize), Event> = BTreeMap::new();
        for (at, other) in self.taints.ways.all.iter().enumerate() {
            let near = nearness(target.event.way, way, at, other);
            if near > 2 && !needs_store {
                continue;
            }
            for flow in self.taints.open(at) {
                let Some(index) =
                    self.taints.flows.iter().position(|one| one.operation == flow.operation)
                else {
                    continue;
                };
                let gives = flow.gives.iter().any(|label| labels.brought.contains(label));
                let is_required = near <= 1 && wanted.contains(&index);
                let moves = needs_store && (flow.writes || flow.reads) && self.moves(flow);
                if !(gives || is_required || moves) {
                    continue;
                }
                if !self.taints.could(other, flow, &Goal::default()) {
                    continue;
                }
                // Calls that bring the data stand before calls that move it, and a text of `after` before the other data, as
                // it can ask for the other calls.
                let kind = if gives || is_required { 0 } else { 1 };
                let after = target.pattern.after.as_ref();
                let is_other = after.is_some_and(|label| !self.contributes(flow, label));
                let repeats = self.repeats(flow, labels);
                ranked.insert(
                    (near.saturating_add(kind), is_other, at, index),
                    Event { way: at, flow: index, class: None, repeats },
                );
            }
        }
        // One call of each operation by the nearest ways.
        let mut count: BTreeMap<usize, usize> = BTreeMap::new();
        let few = |event: &Event| {
            let count = count.entry(event.flow).or_default();
            *count = count.saturating_add(1);
            *count <= 4
        };
        ranked.into_values().filter(few).take(MOST_EVENTS).collect()
    }

    /// Whether a call brings a label, or the label from which it is derived.
    fn contributes(&self, flow: &Flow, label: &String) -> bool {
        let from = self.model.derives.get(label).map_or(label, |rule| &rule.from);
        flow.gives.contains(label) || flow.gives.contains(from)
    }

    /// Calls of an operation that gather enough resources for a derived label. An operation that names no resource counts once.
    fn repeats(&self, flow: &Flow, labels: &WantedLabels) -> u32 {
        let resource = self.taints.operation(flow).and_then(|one| one.resource.as_ref());
        if resource.is_none_or(|rule| rule.id.is_none()) {
            return 1;
        }
        let counted = flow.gives.iter().filter_map(|label| labels.resources.get(label));
        counted.copied().fold(1, u32::max)
    }

    /// Whether a label can come to a way only through a store.
    fn is_from_store(&self, way: &Way, label: &str) -> bool {
        let near = |(at, other): (usize, &Way)| {
            nearness(way.root, way, at, other) <= 2
                && self.taints.open(at).any(|flow| flow.gives.contains(label))
        };
        !self.taints.ways.all.iter().enumerate().any(near)
    }

    /// Whether data that the operation writes can be read elsewhere, or the other way round.
    fn moves(&self, flow: &Flow) -> bool {
        self.taints.flows.iter().any(|other| {
            (flow.writes && other.reads && flow.store.reaches(&other.store))
                || (flow.reads && other.writes && other.store.reaches(&flow.store))
        })
    }

    /// Operations that sequences require before the call, and those that they require before these.
    fn required(&self, target: &Target) -> BTreeSet<usize> {
        let mut all = BTreeSet::new();
        let mut open = vec![target.event.flow];
        while let Some(flow) = open.pop() {
            open.extend(self.required_by(flow).into_iter().filter(|flow| all.insert(*flow)));
        }
        all
    }

    fn required_by(&self, flow: usize) -> Vec<usize> {
        let flow = self.taints.flows.get(flow);
        let Some(operation) = flow.and_then(|flow| self.taints.operation(flow)) else {
            return Vec::new();
        };
        let is_built_in = self.model.is_built_in(operation);
        let rules = self.model.sequences.values().filter(|rule| {
            rule.requires && rule.last.iter().any(|event| event.matches(operation, is_built_in))
        });
        let steps: Vec<_> = rules.flat_map(|rule| rule.steps.iter().flatten()).collect();
        let matches = |flow: &Flow| {
            let Some(one) = self.taints.operation(flow) else { return false };
            let is_built_in = self.model.is_built_in(one);
            steps.iter().any(|event| event.matches(one, is_built_in))
        };
        let all = self.taints.flows.iter().enumerate();
        all.filter(|(_, flow)| matches(flow)).map(|(at, _)| at).collect()
    }
}

/// How near another way is: 0 the same, 1 in the same tree, 2 of the same agent, 3 none of these.
fn nearness(at: usize, way: &Way, other_at: usize, other: &Way) -> usize {
    if at == other_at {
        return 0;
    }
    if way.root == other.root {
        return 1;
    }
    if other.agents.iter().any(|agent| way.agents.contains(agent)) { 2 } else { 3 }
}

/// Whether the last call of a trace is the target's.
fn reaches(trace: &Trace, target: &Target) -> bool {
    let Some(last) = trace.calls.last() else { return false };
    let has = |label: &String, mark| last.data.contains(&(label.clone(), mark));
    let is_there = |label: &String| has(label, Mark::Marked) || has(label, Mark::Unmarked);
    let is_lost = target.lost.as_ref().is_none_or(|label| {
        has(label, Mark::Unmarked) && !last.decision.uncleared_labels.contains(label)
    });
    let has_tier = target.tier.is_none_or(|least| last.decision.tier >= Some(least));
    // The call's own resource can have the label, too, and is not read before it.
    let is_after =
        target.pattern.after.as_ref().is_none_or(|label| last.read_before.contains(label));
    target.data.iter().all(is_there) && is_after && is_lost && has_tier
}
