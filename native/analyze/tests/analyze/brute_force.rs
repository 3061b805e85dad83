//! A brute force over small bundles: every sequence of calls, written to be slow and obvious. It knows nothing of the analysis.
//!
//! It asks the engine of `authz test` about each call, and follows the data itself by its own rules: what an operation yields, what
//! a written note holds, what an agent remembers.
//!
//! Sequences are walked as a tree, and each state is an engine of its own: a fork of the state before it, on which one call was
//! made. A refused call leads to no state: none of the bundles has a rule that counts refused calls. Of several sequences after
//! which sessions, agents and notes hold the same data, the first one is walked on. This leaves sequences out, so the brute force
//! may miss a violation, and never invents one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_cases::StepClock;
use authz_kernel::decision::{Claim, Outcome, Time};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::AgentName;
use authz_lane::offline::{
    OfflineDecision, OfflineEngine, OfflineWorld, StatedCaller, StatedSubject,
};
use authz_lane::proto::authz::v1 as wire;
use authz_token::SubjectKind;
use serde_json::{Value, json};

use crate::random_bundle::{RandomBundle, Tasks};

/// Calls of one sequence.
const MOST_CALLS: usize = 3;
/// States of one bundle that are looked at.
const MOST_STATES: usize = 12;

/// A defect of the engine that the brute force pretends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Plant {
    /// None.
    Sound,
    /// One permit for one principal of the chain is enough.
    NoMeet,
    /// A forbid that fails to evaluate has not fired.
    ErrorsSkipped,
    /// Of several destinations the best one counts.
    BestDestination,
}

impl Plant {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::Sound, Self::NoMeet, Self::ErrorsSkipped, Self::BestDestination];
}

/// Who calls, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Actor {
    /// Agents of the chain, the acting one last: `a` or `b`.
    agents: Vec<char>,
    /// Subject: `alice`, `bob` or none.
    subject: Option<&'static str>,
    /// Who starts the task: an agent, or none: the subject.
    starter: Option<char>,
}

#[derive(Clone, Debug)]
struct Call {
    actor: Actor,
    operation: &'static str,
    input: Value,
}

/// A call that a rule is about, which was permitted: `(assertion, operation)`.
pub(crate) type Violations = BTreeSet<(String, String)>;

/// Data by session, agent and note.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Knowledge {
    /// By the actor that begins the tree.
    sessions: BTreeMap<Actor, BTreeSet<String>>,
    memories: BTreeMap<(char, Option<&'static str>), BTreeSet<String>>,
    notes: BTreeSet<String>,
    /// Sources of the data with the label `pii`, by the actor that begins the tree.
    sources: BTreeMap<Actor, BTreeSet<&'static str>>,
}

/// Calls that break an assertion, for each plant.
pub(crate) type ViolationsByPlant = BTreeMap<Plant, Violations>;

pub(crate) struct Brute<'a> {
    bundle: &'a RandomBundle,
    pub(crate) violations: ViolationsByPlant,
    pub(crate) asked: usize,
}

/// A state that a sequence of permitted calls leads to.
struct State {
    /// No call is made on it: each one has a fork of its own.
    engine: OfflineEngine,
    /// Tasks by their actor.
    tasks: BTreeMap<Actor, String>,
    knowledge: Knowledge,
}

/// Answers of the engine about one call.
#[derive(Clone, Debug)]
struct Answers {
    /// Where people met no step-up kind.
    unasked: (Outcome, ReasonCode),
    /// Step-up kinds that it asks for.
    kinds: Vec<String>,
    /// Where people met these kinds.
    satisfied: Option<(Outcome, ReasonCode)>,
}

impl Answers {
    /// Step-up kinds with which the real engine permits the call. None: it does not.
    fn permitted(&self) -> Option<Vec<String>> {
        let is_permit = |answer: &(Outcome, ReasonCode)| answer.0 == Outcome::Permit;
        if is_permit(&self.unasked) {
            return Some(Vec::new());
        }
        self.satisfied.as_ref().is_some_and(is_permit).then(|| self.kinds.clone())
    }

    /// Whether an engine with the planted defect permits the call after people met the kinds that they may.
    fn is_permitted_with(&self, plant: Plant, may_meet: fn(&str) -> bool) -> bool {
        let is_fine = |(outcome, reason): (Outcome, ReasonCode)| {
            outcome == Outcome::Permit
                || match plant {
                    Plant::NoMeet => reason == ReasonCode::ChainNotPermitted,
                    Plant::ErrorsSkipped => reason == ReasonCode::PolicyError,
                    Plant::Sound | Plant::BestDestination => false,
                }
        };
        is_fine(self.unasked)
            || (self.satisfied.is_some_and(is_fine) && self.kinds.iter().all(|kind| may_meet(kind)))
    }
}

impl<'a> Brute<'a> {
    /// Makes every call in every state, and goes on from each state whose knowledge no earlier one has.
    pub(crate) fn explore(bundle: &'a RandomBundle, plan: &Arc<Plan>) -> Self {
        let violations = Plant::ALL.map(|plant| (plant, Violations::new())).into();
        let mut brute = Self { bundle, violations, asked: 0 };
        let world = OfflineWorld {
            plan: Arc::clone(plan),
            recipient_lists: plan.fresh_recipient_lists(),
            issuers: BTreeSet::new(),
        };
        let engine = OfflineEngine::new(world, Arc::new(StepClock::new(Time(NOW_MS)))).unwrap();
        let mut seen = BTreeSet::from([Knowledge::default()]);
        let first = State { engine, tasks: BTreeMap::new(), knowledge: Knowledge::default() };
        let mut frontier = vec![first];
        for _ in 0..MOST_CALLS {
            let mut next = Vec::new();
            for state in frontier {
                for actor in brute.actors() {
                    brute.act(&state, &actor, &mut seen, &mut next);
                }
            }
            frontier = next;
        }
        brute
    }

    /// Asks about each call of an actor in a state, and makes those that lead on.
    fn act(
        &mut self,
        state: &State,
        actor: &Actor,
        seen: &mut BTreeSet<Knowledge>,
        next: &mut Vec<State>,
    ) {
        // The task of an actor starts when the actor makes its first call, and not before.
        let engine = state.engine.fork().unwrap();
        let mut tasks = state.tasks.clone();
        let Some(task) = self.task(&engine, &mut tasks, actor) else { return };
        let mut answers: Vec<(Call, Answers)> = Vec::new();
        let is_there = |call: &Call| self.bundle.operations.contains(&call.operation);
        for call in calls(actor).into_iter().filter(is_there) {
            // A question changes nothing, so that all of them are put to one engine.
            let answer = self.answers(&engine, &call, &task);
            answers.push((call, answer));
        }
        for (call, answer) in &answers {
            self.judge(call, answer, &answers, &state.knowledge);
            let Some(satisfied) = answer.permitted() else { continue };
            let knowledge = self.after(call, &state.knowledge);
            if seen.len() >= MOST_STATES || !seen.insert(knowledge.clone()) {
                continue;
            }
            let engine = engine.fork().unwrap();
            let caller = self.caller(actor, &satisfied);
            self.asked += 1;
            let made = engine.check(&Self::request(call, &task, &call.input), &caller);
            assert_eq!(made.outcome, Outcome::Permit, "{call:?}: explain and check differ");
            if self.bundle.reports {
                let labels: &[&str] = match call.operation {
                    "look" => &["pii"],
                    "surf" => &["untrusted"],
                    _ => &[],
                };
                let report = wire::ReportRequest {
                    decision_id: made.id,
                    result: wire::ReportResult::Ok.into(),
                    labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                    ..Default::default()
                };
                // Nothing waits for the results of some operations, and the engine refuses their reports.
                let _told = engine.report(&report, &StatedCaller::default());
            }
            next.push(State { engine, tasks: tasks.clone(), knowledge });
        }
    }

    fn actors(&self) -> Vec<Actor> {
        let people = self.bundle.people.iter().copied().map(Some);
        let nobody = (self.bundle.tasks == Tasks::Optional).then_some(None);
        let subjects: Vec<Option<&'static str>> = people.chain(nobody).collect();
        let mut actors = Vec::new();
        for agent in self.bundle.agents.iter().copied() {
            for subject in subjects.iter().copied() {
                let starters: &[Option<char>] = match self.bundle.tasks {
                    Tasks::Optional => &[None],
                    Tasks::Required => &[None, Some('a')],
                };
                for starter in starters {
                    // Without a subject an agent starts the task.
                    if self.bundle.tasks == Tasks::Required
                        && subject.is_none()
                        && starter.is_none()
                    {
                        continue;
                    }
                    actors.push(Actor { agents: vec![agent], subject, starter: *starter });
                    let helper = self.bundle.agents.iter().find(|one| **one != agent);
                    if let Some(helper) = helper.filter(|_| self.bundle.tasks == Tasks::Required) {
                        let agents = vec![agent, *helper];
                        actors.push(Actor { agents, subject, starter: *starter });
                    }
                }
            }
        }
        actors
    }

    fn answers(&mut self, engine: &OfflineEngine, call: &Call, task: &str) -> Answers {
        let first = self.explain(engine, call, task, &[]);
        let unasked = (first.outcome, first.reason);
        let kinds = first.decision.map(|decision| decision.kinds).unwrap_or_default();
        let satisfied = (first.outcome == Outcome::StepUp).then(|| {
            let answer = self.explain(engine, call, task, &kinds);
            (answer.outcome, answer.reason)
        });
        Answers { unasked, kinds, satisfied }
    }

    /// Notes each assertion that a permitted call breaks.
    ///
    /// Args: `others`: answers about all calls of the actor in this state.
    fn judge(
        &mut self,
        call: &Call,
        answers: &Answers,
        others: &[(Call, Answers)],
        before: &Knowledge,
    ) {
        // No assertion is about the other operations.
        if !["send", "pay"].contains(&call.operation) {
            return;
        }
        let data = self.known(&call.actor, before);
        let goes_out = call.operation == "send" && call.input.to_string().contains("out.example");
        let has = |label: &str| data.contains(label);
        let is_pay = call.operation == "pay";
        let is_by_a = call.actor.agents.last() == Some(&'a');
        for plant in Plant::ALL {
            let alone = alone(call, others).filter(|_| plant == Plant::BestDestination);
            let considered: Vec<&Answers> = std::iter::once(answers).chain(alone).collect();
            let is_permitted = |may_meet: fn(&str) -> bool| {
                considered.iter().any(|one| one.is_permitted_with(plant, may_meet))
            };
            let unasked = is_permitted(|_| false);
            let approved = is_permitted(|_| true);
            let confirmed = is_permitted(|kind| kind == "confirm");
            let rules = [
                ("pii-out", goes_out && has("pii") && approved),
                ("pii-out-unseen", goes_out && has("pii") && (unasked || confirmed)),
                ("pay-after-strangers", is_pay && has("untrusted") && approved),
                ("a-pays", is_pay && is_by_a && approved),
                ("guest-pays", is_pay && call.actor.subject == Some("bob") && approved),
                ("bulk-out", goes_out && has("bulk") && approved),
                ("both-out", goes_out && has("pii") && has("untrusted") && unasked),
            ];
            let broken = rules.into_iter().filter(|(_, is_broken)| *is_broken);
            let broken = broken.map(|(id, _)| (id.to_owned(), format!("s.{}", call.operation)));
            self.violations.entry(plant).or_default().extend(broken);
        }
    }

    /// Data that an actor knows: of its session, and what its agents remember.
    fn known(&self, actor: &Actor, knowledge: &Knowledge) -> BTreeSet<String> {
        let mut data = knowledge.sessions.get(&root(actor)).cloned().unwrap_or_default();
        for agent in &actor.agents {
            // A run without a subject is apart from the runs for subjects.
            let is_apart = self.isolated(*agent) == "per_subject";
            let key = (*agent, if is_apart { actor.subject } else { None });
            data.extend(knowledge.memories.get(&key).into_iter().flatten().cloned());
        }
        data
    }

    fn isolated(&self, agent: char) -> &'static str {
        if agent == 'a' { self.bundle.isolated } else { "none" }
    }

    fn after(&self, call: &Call, before: &Knowledge) -> Knowledge {
        let mut knowledge = before.clone();
        let mut data = self.known(&call.actor, before);
        let source = match call.operation {
            "look" => Some("s"),
            "take" => Some("notes").filter(|_| self.bundle.counts),
            _ => None,
        };
        if let Some(source) = source {
            data.insert("pii".to_owned());
            if self.bundle.counts {
                let sources = knowledge.sources.entry(root(&call.actor)).or_default();
                sources.insert(source);
                data.extend((sources.len() > 1).then(|| "bulk".to_owned()));
            }
        }
        match call.operation {
            "surf" => {
                data.insert("untrusted".to_owned());
            }
            "take" => data.extend(before.notes.iter().cloned()),
            "put" => knowledge.notes.extend(data.iter().cloned()),
            // `pay` writes into the system and names no collection, so `take` may find it.
            "pay" => knowledge.notes.extend(data.iter().cloned()),
            _ => {}
        }
        knowledge.sessions.entry(root(&call.actor)).or_default().extend(data.iter().cloned());
        for agent in &call.actor.agents {
            let is_own = call.actor.agents.len() == 1 && call.actor.starter == Some(*agent);
            let key = match self.isolated(*agent) {
                "per_subject" => Some((*agent, call.actor.subject)),
                "per_task" => is_own.then_some((*agent, None)),
                _ => Some((*agent, None)),
            };
            if let Some(key) = key {
                knowledge.memories.entry(key).or_default().extend(data.iter().cloned());
            }
        }
        knowledge
    }

    /// Id of the actor's task, which is started where it is not yet. None: it is refused.
    fn task(
        &self,
        engine: &OfflineEngine,
        tasks: &mut BTreeMap<Actor, String>,
        actor: &Actor,
    ) -> Option<String> {
        if self.bundle.tasks == Tasks::Optional {
            return Some(String::new());
        }
        if let Some(task) = tasks.get(actor) {
            return Some(task.clone());
        }
        let task = match actor.agents.as_slice() {
            [agent] => {
                let is_alone = actor.starter.is_none();
                let caller = StatedCaller {
                    agent: actor.starter.map(agent_name),
                    subject: actor.subject.map(|name| subject(name, is_alone)),
                    ..StatedCaller::default()
                };
                // A person names every recipient: where no policy asks who chose them, it changes nothing.
                let is_prompted = actor.subject.is_some() && self.bundle.asks_for_origins;
                let prompt = if is_prompted { PROMPT } else { "" };
                let request = wire::StartRequest {
                    template: "t".to_owned(),
                    assignee: agent_name(*agent).spiffe_id,
                    prompt: if is_alone { prompt.to_owned() } else { String::new() },
                    ..Default::default()
                };
                let task = engine.start_task(&request, &caller).ok()?.task?.id;
                if is_prompted && !is_alone {
                    let subject = actor.subject.map(|name| subject(name, true));
                    let caller = StatedCaller { subject, ..StatedCaller::default() };
                    let prompt = prompt.to_owned();
                    let turn =
                        wire::ExtendRequest { task: task.clone(), prompt, ..Default::default() };
                    engine.extend_task(&turn, &caller).unwrap();
                }
                task
            }
            [first, second] => {
                let parent = self.task(engine, tasks, &root(actor))?;
                let request = wire::DelegateRequest {
                    parent,
                    assignee: agent_name(*second).spiffe_id,
                    ..Default::default()
                };
                let caller =
                    StatedCaller { agent: Some(agent_name(*first)), ..StatedCaller::default() };
                engine.delegate_task(&request, &caller).ok()?.task?.id
            }
            _ => return None,
        };
        tasks.insert(actor.clone(), task.clone());
        Some(task)
    }

    fn caller(&self, actor: &Actor, satisfied: &[String]) -> StatedCaller {
        let named = actor.subject.filter(|_| self.bundle.tasks == Tasks::Optional);
        StatedCaller {
            agent: actor.agents.last().copied().map(agent_name),
            subject: named.map(|name| subject(name, false)),
            is_bound: true,
            confidence: 100,
            satisfied: satisfied.to_vec(),
            ..StatedCaller::default()
        }
    }

    fn request(call: &Call, task: &str, input: &Value) -> wire::CheckRequest {
        wire::CheckRequest {
            task: task.to_owned(),
            operation: format!("s.{}", call.operation),
            arguments_json: input.to_string().into_bytes(),
            ..Default::default()
        }
    }

    fn explain(
        &mut self,
        engine: &OfflineEngine,
        call: &Call,
        task: &str,
        satisfied: &[String],
    ) -> OfflineDecision {
        self.asked += 1;
        let caller = self.caller(&call.actor, satisfied);
        engine.explain(&Self::request(call, task, &call.input), &caller)
    }
}

/// A prompt that names every recipient of [`calls`].
const PROMPT: &str = "Write to x@in.example and x@out.example.";

/// The calls of an actor.
fn calls(actor: &Actor) -> Vec<Call> {
    let inputs = [
        ("look", json!({})),
        ("surf", json!({})),
        ("put", json!({"id": "n"})),
        ("take", json!({"id": "n"})),
        ("send", json!({"to": ["x@in.example"]})),
        ("send", json!({"to": ["x@out.example"]})),
        ("send", json!({"to": ["x@in.example", "x@out.example"]})),
        ("pay", json!({"n": 0})),
        ("pay", json!({"n": 1})),
        ("pay", json!({"n": 101})),
    ];
    let call = |(operation, input)| Call { actor: actor.clone(), operation, input };
    inputs.map(call).into()
}

/// Answers about the calls that send to one destination of a call each. A call with one destination has none.
fn alone<'a>(call: &'a Call, all: &'a [(Call, Answers)]) -> impl Iterator<Item = &'a Answers> {
    let destinations = call.input.get("to").and_then(Value::as_array);
    let destinations = destinations.filter(|all| all.len() > 1).into_iter().flatten();
    let find = |one: &Value| {
        let input = json!({"to": [one]});
        all.iter().find(|(other, _)| other.operation == call.operation && other.input == input)
    };
    destinations.filter_map(find).map(|(_, answers)| answers)
}

/// The actor whose task is the root of the tree.
fn root(actor: &Actor) -> Actor {
    Actor { agents: actor.agents.first().copied().into_iter().collect(), ..actor.clone() }
}

fn agent_name(agent: char) -> AgentName {
    AgentName {
        spiffe_id: format!("spiffe://dev.example/{agent}"),
        trust_domain: "dev.example".to_owned(),
    }
}

fn subject(name: &str, is_alone: bool) -> StatedSubject {
    let group = if name == "alice" { "staff" } else { "guest" };
    StatedSubject {
        issuer: "corp".to_owned(),
        sub: name.to_owned(),
        kind: SubjectKind::User,
        claims: BTreeMap::from([("groups".to_owned(), Claim::Texts(vec![group.to_owned()]))]),
        acr: String::new(),
        is_alone,
    }
}

/// Time of all runs: 2026-11-30T00:00:00Z.
pub(crate) const NOW_MS: i64 = 1_796_083_200_000;
