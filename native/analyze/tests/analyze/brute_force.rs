//! A brute force over small bundles: every sequence of calls, written to be slow and obvious. It knows nothing of the analysis.
//!
//! It asks the engine of `authz test` about each call, and follows the data itself by its own rules: what an operation yields, what
//! a written note holds, what an agent remembers.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

pub(crate) struct Brute<'a> {
    bundle: &'a RandomBundle,
    plan: Arc<Plan>,
    plant: Plant,
    pub(crate) violations: Violations,
    pub(crate) asked: usize,
}

impl<'a> Brute<'a> {
    pub(crate) fn explore(bundle: &'a RandomBundle, plan: &Arc<Plan>, plant: Plant) -> Self {
        let mut brute =
            Self { bundle, plan: Arc::clone(plan), plant, violations: Violations::new(), asked: 0 };
        let mut seen: BTreeSet<Knowledge> = BTreeSet::new();
        let mut frontier: Vec<(Vec<Call>, Knowledge)> = vec![(Vec::new(), Knowledge::default())];
        for _ in 0..MOST_CALLS {
            let mut next = Vec::new();
            for (prefix, knowledge) in frontier {
                if !seen.insert(knowledge.clone()) || seen.len() > MOST_STATES {
                    continue;
                }
                for call in brute.calls() {
                    let mut calls = prefix.clone();
                    calls.push(call);
                    if let Some(after) = brute.step(&calls, &knowledge) {
                        next.push((calls, after));
                    }
                }
            }
            frontier = next;
        }
        brute
    }

    fn actors(&self) -> Vec<Actor> {
        let subjects: &[Option<&'static str>] = match self.bundle.tasks {
            Tasks::Optional => &[Some("alice"), Some("bob"), None],
            Tasks::Required => &[Some("alice"), Some("bob")],
        };
        let mut actors = Vec::new();
        for agent in ['a', 'b'] {
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
                    if self.bundle.tasks == Tasks::Required {
                        let helper = if agent == 'a' { 'b' } else { 'a' };
                        let agents = vec![agent, helper];
                        actors.push(Actor { agents, subject, starter: *starter });
                    }
                }
            }
        }
        actors
    }

    fn calls(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        for actor in self.actors() {
            let mut add = |operation, input| {
                calls.push(Call { actor: actor.clone(), operation, input });
            };
            add("look", json!({}));
            add("surf", json!({}));
            add("put", json!({"id": "n"}));
            add("take", json!({"id": "n"}));
            add("send", json!({"to": ["x@in.example"]}));
            add("send", json!({"to": ["x@out.example"]}));
            add("send", json!({"to": ["x@in.example", "x@out.example"]}));
            add("pay", json!({"n": 0}));
            add("pay", json!({"n": 1}));
            add("pay", json!({"n": 101}));
        }
        calls
    }

    /// Runs calls from the beginning. Returns the knowledge after the last one where it is permitted.
    fn step(&mut self, calls: &[Call], before: &Knowledge) -> Option<Knowledge> {
        let world = OfflineWorld {
            plan: Arc::clone(&self.plan),
            recipient_lists: self.plan.fresh_recipient_lists(),
            issuers: BTreeSet::new(),
        };
        let clock = Arc::new(StepClock::new(Time(NOW_MS)));
        let engine = OfflineEngine::new(world, clock).ok()?;
        let mut tasks: BTreeMap<Actor, String> = BTreeMap::new();
        let (last, prefix) = calls.split_last()?;
        for call in prefix {
            // It was permitted when it was the last one.
            let task = self.task(&engine, &mut tasks, &call.actor)?;
            let satisfied = self.permitted(&engine, call, &task)?;
            self.check(&engine, call, &task, &satisfied);
        }
        let task = self.task(&engine, &mut tasks, &last.actor)?;
        self.judge(&engine, last, &task, before);
        let satisfied = self.permitted(&engine, last, &task)?;
        self.check(&engine, last, &task, &satisfied);
        Some(self.after(last, before))
    }

    /// Notes each assertion that a permitted call breaks.
    fn judge(&mut self, engine: &OfflineEngine, call: &Call, task: &str, before: &Knowledge) {
        // No assertion is about the other operations.
        if !["send", "pay"].contains(&call.operation) {
            return;
        }
        let data = self.known(&call.actor, before);
        let unasked = self.is_permitted_with(engine, call, task, |_| false);
        let approved = self.is_permitted_with(engine, call, task, |_| true);
        let confirmed = self.is_permitted_with(engine, call, task, |kind| kind == "confirm");
        let goes_out = call.operation == "send" && call.input.to_string().contains("out.example");
        let has = |label: &str| data.contains(label);
        let is_pay = call.operation == "pay";
        let is_by_a = call.actor.agents.last() == Some(&'a');
        let rules = [
            ("pii-out", goes_out && has("pii") && approved),
            ("pii-out-unseen", goes_out && has("pii") && (unasked || confirmed)),
            ("pay-after-strangers", is_pay && has("untrusted") && approved),
            ("a-pays", is_pay && is_by_a && approved),
            ("guest-pays", is_pay && call.actor.subject == Some("bob") && approved),
            ("both-out", goes_out && has("pii") && has("untrusted") && unasked),
        ];
        for (id, _) in rules.into_iter().filter(|(_, is_broken)| *is_broken) {
            self.violations.insert((id.to_owned(), format!("s.{}", call.operation)));
        }
    }

    /// Data that an actor knows: of its session, and what its agents remember.
    fn known(&self, actor: &Actor, knowledge: &Knowledge) -> BTreeSet<String> {
        let mut data = knowledge.sessions.get(&root(actor)).cloned().unwrap_or_default();
        for agent in &actor.agents {
            for key in [(*agent, None), (*agent, actor.subject)] {
                data.extend(knowledge.memories.get(&key).into_iter().flatten().cloned());
            }
        }
        data
    }

    fn after(&self, call: &Call, before: &Knowledge) -> Knowledge {
        let mut knowledge = before.clone();
        let mut data = self.known(&call.actor, before);
        match call.operation {
            "look" => {
                data.insert("pii".to_owned());
            }
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
            let isolated = if *agent == 'a' { self.bundle.isolated } else { "none" };
            let is_own = call.actor.agents.len() == 1 && call.actor.starter == Some(*agent);
            let key = match isolated {
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
                let request = wire::StartRequest {
                    template: "t".to_owned(),
                    assignee: agent_name(*agent).spiffe_id,
                    ..Default::default()
                };
                engine.start_task(&request, &caller).ok()?.task?.id
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

    fn check(&mut self, engine: &OfflineEngine, call: &Call, task: &str, satisfied: &[String]) {
        self.asked += 1;
        let caller = self.caller(&call.actor, satisfied);
        drop(engine.check(&Self::request(call, task, &call.input), &caller));
    }

    /// Step-up kinds with which the real engine permits a call. None: it does not.
    fn permitted(
        &mut self,
        engine: &OfflineEngine,
        call: &Call,
        task: &str,
    ) -> Option<Vec<String>> {
        let answer = self.explain(engine, call, task, &[]);
        if answer.outcome == Outcome::Permit {
            return Some(Vec::new());
        }
        let kinds = answer.decision.map(|decision| decision.kinds).unwrap_or_default();
        if answer.outcome != Outcome::StepUp {
            return None;
        }
        let answer = self.explain(engine, call, task, &kinds);
        (answer.outcome == Outcome::Permit).then_some(kinds)
    }

    /// Whether the engine, with the planted defect, permits a call after people met the kinds that they may.
    fn is_permitted_with(
        &mut self,
        engine: &OfflineEngine,
        call: &Call,
        task: &str,
        may_meet: fn(&str) -> bool,
    ) -> bool {
        if self.is_permitted_after(engine, call, task, may_meet) {
            return true;
        }
        let destinations =
            call.input.get("to").and_then(Value::as_array).cloned().unwrap_or_default();
        if self.plant != Plant::BestDestination || destinations.len() < 2 {
            return false;
        }
        destinations.into_iter().any(|one| {
            let alone = Call { input: json!({"to": [one]}), ..call.clone() };
            self.is_permitted_after(engine, &alone, task, may_meet)
        })
    }

    fn is_permitted_after(
        &mut self,
        engine: &OfflineEngine,
        call: &Call,
        task: &str,
        may_meet: fn(&str) -> bool,
    ) -> bool {
        let is_fine = |plant: Plant, answer: &OfflineDecision| {
            answer.outcome == Outcome::Permit
                || match plant {
                    Plant::NoMeet => answer.reason == ReasonCode::ChainNotPermitted,
                    Plant::ErrorsSkipped => answer.reason == ReasonCode::PolicyError,
                    Plant::Sound | Plant::BestDestination => false,
                }
        };
        let answer = self.explain(engine, call, task, &[]);
        if is_fine(self.plant, &answer) {
            return true;
        }
        let kinds = answer.decision.map(|decision| decision.kinds).unwrap_or_default();
        if answer.outcome != Outcome::StepUp || !kinds.iter().all(|kind| may_meet(kind)) {
            return false;
        }
        let answer = self.explain(engine, call, task, &kinds);
        is_fine(self.plant, &answer)
    }
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
