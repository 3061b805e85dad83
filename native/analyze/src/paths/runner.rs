//! Runs traces through the engine of `authz test`, and writes them as tests of a bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use authz_cases::StepClock;
use authz_kernel::decision::{Claim, Decision, Outcome, Principal, Time};
use authz_kernel::model::{Distinct, Model, Operation, ParamType, Reports};
use authz_kernel::plan::Plan;
use authz_kernel::task::Param;
use authz_lane::offline::{OfflineEngine, OfflineWorld, StatedAnswer, StatedCaller, StatedSubject};
use authz_lane::proto::authz::v1 as wire;
use authz_token::SubjectKind;
use prost_types::value::Kind;
use serde_json::{Map, Value, json};

use super::guard::Conditions;
use super::inputs::{self, ListedRecipients, Wanted};
use super::prompts;
use super::taint::{Flow, Labels, Mark, Store, Taints};
use super::ways::{Beginning, Party, Way, params};

/// A call that a trace may make: a way, an operation, and the class of its destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Position of the way.
    pub way: usize,
    /// Position of the operation in [`Taints::flows`].
    pub flow: usize,
    /// Class of its destinations. `None`: it has no destination, or any will do.
    pub class: Option<String>,
    /// Number of calls, each with another resource; at least 1.
    pub repeats: u32,
}

/// Result of one call of a trace.
#[derive(Clone, Debug)]
pub struct CallResult {
    /// The call.
    pub event: Event,
    /// Arguments.
    pub input: Value,
    /// Step-up kinds that people are taken to have met.
    pub satisfied: Vec<String>,
    /// The decision.
    pub decision: Decision,
    /// Labels that Authz had for the session before the call.
    pub labels_before: BTreeSet<String>,
    /// Labels after it.
    pub labels_after: BTreeSet<String>,
    /// Labels of the data that the call could send, whether Authz had them or not.
    pub data: Labels,
    /// Labels of the data that was read before the call, in its session or in other tasks of its agents.
    pub read_before: BTreeSet<String>,
    /// Its result is reported.
    pub is_reported: bool,
}

/// A start or a delegation of a trace.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Position of the way.
    pub way: usize,
    /// Position of the call before which it stands.
    pub before: usize,
}

/// Circumstances of the calls of a trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Values that the prompt of each root task names, as the prompt has them; empty: the tasks have no prompt.
    pub prompt: Vec<String>,
    /// Time between the last call and the call before it, in seconds.
    pub wait_seconds: u32,
}

/// A trace that ran.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Starts and delegations.
    pub begun: Vec<Begun>,
    /// Calls.
    pub calls: Vec<CallResult>,
    /// Circumstances of the calls.
    pub circumstances: Circumstances,
    /// Places that data has come to before the last call, one text each.
    pub state: BTreeSet<String>,
}

impl Trace {
    /// Whether a call is one more call of the event of the call before it.
    #[must_use]
    pub fn is_repeated(&self, at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|at| self.calls.get(at));
        let pair = before.zip(self.calls.get(at));
        pair.is_some_and(|(before, call)| call.event.repeats > 1 && before.event == call.event)
    }

    /// The events that the calls are of.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let calls = self.calls.iter().enumerate().filter(|(at, _)| !self.is_repeated(*at));
        calls.map(|(_, call)| call.event.clone()).collect()
    }
}

/// A trace that ended before its last call.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// Calls that were permitted.
    pub calls: usize,
    /// Reason code of the first refusal, or an error.
    pub reason: String,
    /// Places that data has come to before the last call.
    pub state: BTreeSet<String>,
}

/// Runs traces of one bundle.
#[derive(Debug)]
pub struct Runner<'a> {
    plan: Arc<Plan>,
    taints: &'a Taints<'a>,
    listed: ListedRecipients,
    obligations: Vec<String>,
    acr: String,
    /// A sequence counts calls that are reported as done.
    has_reports: bool,
    variants: BTreeMap<(usize, Option<String>), Vec<Value>>,
    now: Time,
    /// Calls that were asked.
    pub asked: usize,
}

/// Data that a run really read, by the same rules as [`Taints`].
#[derive(Default)]
struct Data {
    sessions: BTreeMap<usize, BTreeSet<String>>,
    memories: BTreeMap<(usize, Option<usize>), BTreeSet<String>>,
    stores: BTreeMap<Store, BTreeSet<String>>,
    /// Places that a session gathered data of, by session and derived label.
    gathered: BTreeMap<(usize, String), BTreeSet<String>>,
}

impl Data {
    fn state(&self) -> BTreeSet<String> {
        let sessions = self.sessions.iter().flat_map(|(at, labels)| {
            labels.iter().map(move |label| format!("session {at} {label}"))
        });
        let memories = self.memories.iter().flat_map(|(key, labels)| {
            labels.iter().map(move |label| format!("memory {key:?} {label}"))
        });
        let stores = self.stores.iter().flat_map(|(store, labels)| {
            labels.iter().map(move |label| format!("store {store:?} {label}"))
        });
        let gathered = self.gathered.iter().flat_map(|((at, label), places)| {
            places.iter().map(move |place| format!("gathered {at} {place} {label}"))
        });
        sessions.chain(memories).chain(stores).chain(gathered).collect()
    }

    /// Notes the place of a call, and returns the labels that the session has from then on: a derived label counts the places of
    /// the label that it is derived from.
    ///
    /// Args: `brought`: labels of the data that the call brings itself; `source`: its collection or system; `resource`: its
    /// resource.
    fn gather(
        &mut self,
        session: usize,
        model: &Model,
        brought: &BTreeSet<String>,
        (source, resource): (&str, &str),
    ) -> BTreeSet<String> {
        let mut derived = BTreeSet::new();
        for (label, rule) in model.derives.iter().filter(|(_, rule)| brought.contains(&rule.from)) {
            let place = match rule.distinct {
                Distinct::Sources => source,
                Distinct::Resources => resource,
            };
            let places = self.gathered.entry((session, label.clone())).or_default();
            places.insert(place.to_owned());
            if u32::try_from(places.len()).is_ok_and(|count| count >= rule.least) {
                derived.insert(label.clone());
            }
        }
        derived
    }
}

/// One engine, with the tasks and labels of the trace so far.
struct Session<'r, 'a> {
    runner: &'r mut Runner<'a>,
    engine: OfflineEngine,
    clock: Arc<StepClock>,
    tasks: BTreeMap<usize, String>,
    labels: BTreeMap<usize, BTreeSet<String>>,
    data: Data,
    trace: Trace,
}

impl<'a> Runner<'a> {
    /// Prepares to run traces.
    #[must_use]
    pub fn new(
        plan: &Arc<Plan>,
        conditions: &Conditions<'_>,
        taints: &'a Taints<'a>,
        listed: ListedRecipients,
        now: Time,
    ) -> Self {
        let guards = conditions.policies().iter();
        let own = guards.clone().flat_map(|guard| guard.obligations.iter().cloned());
        let of_exceptions = plan.model().exceptions.values();
        let of_exceptions = of_exceptions.flat_map(|one| one.obligations.iter().cloned());
        let obligations: BTreeSet<String> = own.chain(of_exceptions).collect();
        let reauth = guards.filter_map(|guard| guard.stepup?.strip_prefix("reauth:"));
        let acr = reauth.min().unwrap_or_default().to_owned();
        let mut sequences = plan.model().sequences.values();
        let has_reports = sequences.any(|rule| rule.requires && rule.counts_done);
        Self {
            plan: Arc::clone(plan),
            taints,
            listed,
            obligations: obligations.into_iter().collect(),
            acr,
            has_reports,
            variants: BTreeMap::new(),
            now,
            asked: 0,
        }
    }

    /// Notes arguments that a solver suggests for an operation.
    pub fn suggest(&mut self, conditions: &Conditions<'_>, event: &Event, inputs: &[Value]) {
        let made = self.variants_of(conditions, event, inputs);
        self.variants.insert((event.flow, event.class.clone()), made);
    }

    fn variants_of(
        &self,
        conditions: &Conditions<'_>,
        event: &Event,
        suggested: &[Value],
    ) -> Vec<Value> {
        let Some(operation) = self.operation(event) else { return Vec::new() };
        let literals = conditions.literals(&operation.id);
        let wanted = Wanted { operation, class: event.class.as_deref() };
        inputs::variants(self.plan.model(), &self.listed, wanted, &literals, suggested)
    }

    /// Runs calls in order. Each must be permitted, with the first of its arguments that the engine permits.
    ///
    /// Args: `unmet`: step-up kinds that nobody meets for the last call.
    ///
    /// # Errors
    /// A task does not begin, or a call is not permitted.
    pub fn run(
        &mut self,
        conditions: &Conditions<'_>,
        events: &[Event],
        circumstances: &Circumstances,
        unmet: &dyn Fn(&str) -> bool,
    ) -> Result<Trace, Stopped> {
        let mut session = self.session(conditions, events)?;
        session.trace.circumstances = circumstances.clone();
        for (at, event) in events.iter().enumerate() {
            let is_last = at + 1 == events.len();
            let begun = session.begin(event.way);
            if is_last {
                session.wait(circumstances.wait_seconds);
                session.trace.state = session.data.state();
            }
            let called = begun.and_then(|()| session.call(event, is_last.then_some(unmet)));
            called.map_err(|reason| Stopped {
                calls: at,
                reason,
                state: session.trace.state.clone(),
            })?;
        }
        Ok(session.trace)
    }

    /// Values of the calls of some events that a prompt can name, as the prompt has them: those of each set of arguments that is
    /// tried. The values of the last call stand first, as they must not be left out.
    pub fn nameable(&mut self, conditions: &Conditions<'_>, events: &[Event]) -> Vec<String> {
        let mut values = Vec::new();
        for event in events.iter().rev() {
            self.prepare(conditions, event);
            let operation = self.operation(event);
            let inputs = self.variants.get(&(event.flow, event.class.clone()));
            for input in inputs.into_iter().flatten() {
                values.extend(operation.into_iter().flat_map(|one| prompts::values(one, input)));
            }
        }
        prompts::bounded(values)
    }

    /// Values of the calls of a trace that a prompt can name, as the prompt has them.
    #[must_use]
    pub fn nameable_of(&self, trace: &Trace) -> Vec<String> {
        let of_call = |call: &CallResult| {
            let operation = self.operation(&call.event);
            operation.map(|one| prompts::values(one, &call.input)).unwrap_or_default()
        };
        prompts::bounded(trace.calls.iter().flat_map(of_call))
    }

    fn operation(&self, event: &Event) -> Option<&'a Operation> {
        self.taints.flows.get(event.flow).and_then(|flow| self.taints.operation(flow))
    }

    /// Makes the arguments that are tried for an event, where they are not there yet.
    fn prepare(&mut self, conditions: &Conditions<'_>, event: &Event) {
        if !self.variants.contains_key(&(event.flow, event.class.clone())) {
            self.suggest(conditions, event, &[]);
        }
    }

    /// A new engine.
    fn session(
        &mut self,
        conditions: &Conditions<'_>,
        events: &[Event],
    ) -> Result<Session<'_, 'a>, Stopped> {
        for event in events {
            self.prepare(conditions, event);
        }
        let clock = Arc::new(StepClock::new(self.now));
        let world = OfflineWorld {
            plan: Arc::clone(&self.plan),
            recipient_lists: self.plan.fresh_recipient_lists(),
            issuers: BTreeSet::new(),
        };
        let of_engine = Arc::clone(&clock);
        let stopped = |reason| Stopped { calls: 0, reason, state: BTreeSet::new() };
        let engine =
            OfflineEngine::new(world, of_engine).map_err(|error| stopped(error.to_string()))?;
        for system in self.taints.breakglass {
            let put = engine.put_breakglass_in_force(system);
            put.map_err(|error| stopped(error.to_string()))?;
        }
        Ok(Session {
            runner: self,
            engine,
            clock,
            tasks: BTreeMap::new(),
            labels: BTreeMap::new(),
            data: Data::default(),
            trace: Trace::default(),
        })
    }

    /// `acr` of the tokens of subjects; empty without a policy that asks for one.
    #[must_use]
    pub fn acr(&self) -> &str {
        &self.acr
    }

    /// Whether the subject of a way can answer the step-up of a call, itself or under another issuer with the same `sub`.
    ///
    /// Returns: the kinds of the step-up, and the name under which the subject answers. `None`: the engine refuses the answers.
    ///
    /// # Errors
    /// The engine holds no such call, so that nobody could answer.
    pub fn answered_by(
        &mut self,
        conditions: &Conditions<'_>,
        event: &Event,
        subject: usize,
    ) -> Result<Option<(String, String)>, String> {
        let Some(asker) = self.subject(subject) else { return Ok(None) };
        let all = self.taints.parties.subjects.iter();
        let approvers: Vec<&Party> = all.filter(|party| party.sub() == asker.sub()).collect();
        for approver in approvers {
            let session = self.session(conditions, std::slice::from_ref(event));
            let mut session = session.map_err(|stopped| stopped.reason)?;
            session.begin(event.way)?;
            let (approval, kinds) = session
                .held(conditions, event)
                .ok_or("the engine holds none of the tried calls")?;
            let Some(person) = stated(approver, "") else { continue };
            let person = StatedSubject { is_alone: true, ..person };
            let answer = StatedAnswer {
                approves: true,
                endorses: false,
                queue: "",
                reason: "",
                has_passkey: true,
            };
            // The subject itself answers `confirm`, as that kind is for.
            let is_own = kinds.iter().all(|kind| kind == "confirm");
            if !is_own && session.engine.answer_approval(&approval, &person, answer).is_ok() {
                return Ok(Some((kinds.join(", "), approver.name())));
            }
        }
        Ok(None)
    }

    fn way(&self, at: usize) -> Option<&'a Way> {
        self.taints.ways.all.get(at)
    }

    fn agent(&self, at: usize) -> Option<&'a Party> {
        self.taints.parties.agents.get(at)
    }

    fn subject(&self, at: usize) -> Option<&'a Party> {
        self.taints.parties.subjects.get(at)
    }

    fn stated_subject(&self, way: &Way) -> Option<StatedSubject> {
        let party = way.subject.and_then(|at| self.subject(at))?;
        stated(party, &self.acr)
    }

    /// The caller of a way's calls.
    fn caller(&self, way: &Way) -> StatedCaller {
        // The task names its subject.
        let subject = if way.is_started() { None } else { self.stated_subject(way) };
        StatedCaller {
            agent: self.agent(way.agent()).and_then(Party::agent_name),
            subject,
            is_bound: true,
            confidence: 100,
            ..StatedCaller::default()
        }
    }
}

/// Labels of the report of a result. An access log names none.
fn reported_labels(operation: &Operation, reporter: Reports) -> BTreeSet<String> {
    match reporter {
        Reports::Sdk => operation.yields.1.clone(),
        Reports::Never | Reports::AccessLog => BTreeSet::new(),
    }
}

/// Whether the subject writes its prompt when the task is started: an agent starts it, and the words of an agent are no words of
/// its subject.
#[must_use]
pub const fn is_prompted_later(way: &Way) -> bool {
    matches!(way.beginning, Beginning::ByAgent(_)) && way.subject.is_some()
}

/// A party as a subject whose token is shown.
#[must_use]
pub fn stated(party: &Party, acr: &str) -> Option<StatedSubject> {
    let (subject, kind) = match &party.principal {
        Principal::User(subject) => (subject, SubjectKind::User),
        Principal::Service(subject) => (subject, SubjectKind::Service),
        Principal::Agent { .. } => return None,
    };
    Some(StatedSubject {
        issuer: subject.issuer.clone(),
        sub: subject.sub.clone(),
        kind,
        claims: subject.claims.clone(),
        acr: acr.to_owned(),
        is_alone: false,
    })
}

impl Session<'_, '_> {
    /// Begins the task of a way, and those above it.
    // Recursion is bounded by the depth of tasks.
    fn begin(&mut self, at: usize) -> Result<(), String> {
        let Some(way) = self.runner.way(at).filter(|way| way.is_started()) else { return Ok(()) };
        if self.tasks.contains_key(&at) {
            return Ok(());
        }
        let text = |text: &str| text.to_owned();
        let assignee = self.runner.agent(way.agent()).and_then(Party::agent_name);
        let assignee = assignee.ok_or_else(|| text("the way has no agent"))?;
        let given = self.params(&way.template);
        let refused = |error: authz_lane::ApiError| error.to_string();
        let task = match way.beginning {
            Beginning::Delegated(parent) => {
                self.begin(parent)?;
                let above = self.runner.way(parent).ok_or_else(|| text("a way is missing"))?;
                let is_same = above.template == way.template;
                let request = wire::DelegateRequest {
                    parent: self.tasks.get(&parent).cloned().unwrap_or_default(),
                    assignee: assignee.spiffe_id,
                    template: if is_same { String::new() } else { way.template.clone() },
                    params: Some(if is_same { prost_types::Struct::default() } else { given }),
                    ..Default::default()
                };
                let caller = self.runner.caller(above);
                self.engine.delegate_task(&request, &caller).map_err(refused)?.task
            }
            Beginning::BySubject | Beginning::ByAgent(_) => {
                let starter = match way.beginning {
                    Beginning::ByAgent(agent) => {
                        self.runner.agent(agent).and_then(Party::agent_name)
                    }
                    _ => None,
                };
                let is_alone = starter.is_none();
                let subject = self.runner.stated_subject(way);
                let prompt = prompts::text(&self.trace.circumstances.prompt);
                let is_later = is_prompted_later(way);
                let caller = StatedCaller {
                    agent: starter,
                    subject: subject.clone().map(|subject| StatedSubject { is_alone, ..subject }),
                    ..StatedCaller::default()
                };
                let request = wire::StartRequest {
                    template: way.template.clone(),
                    params: Some(given),
                    prompt: if is_later { String::new() } else { prompt.clone() },
                    assignee: assignee.spiffe_id,
                    ..Default::default()
                };
                let task = self.engine.start_task(&request, &caller).map_err(refused)?.task;
                if is_later && !prompt.is_empty() {
                    let subject = subject.map(|one| StatedSubject { is_alone: true, ..one });
                    let caller = StatedCaller { subject, ..StatedCaller::default() };
                    let task = task.as_ref().map(|task| task.id.clone()).unwrap_or_default();
                    let request = wire::ExtendRequest { task, prompt, ..Default::default() };
                    self.engine.extend_task(&request, &caller).map_err(refused)?;
                }
                task
            }
            Beginning::Implicit | Beginning::Taskless | Beginning::NoTask => return Ok(()),
        };
        let task = task.ok_or_else(|| text("the engine names no task"))?;
        self.tasks.insert(at, task.id);
        self.trace.begun.push(Begun { way: at, before: self.trace.calls.len() });
        Ok(())
    }

    /// Lets time pass. Agents forget what they read in other tasks when their memory ends.
    fn wait(&mut self, seconds: u32) {
        let waited = i64::from(seconds).saturating_mul(1_000);
        if waited == 0 {
            return;
        }
        self.clock.advance(waited);
        let parties = self.runner.taints.parties;
        let forgets =
            |agent: usize| parties.agents.get(agent).is_none_or(|one| one.memory.ms <= waited);
        self.data.memories.retain(|(agent, _), _| !forgets(*agent));
    }

    fn params(&self, template: &str) -> prost_types::Struct {
        let template = self.runner.plan.template(template);
        let fields = template.map(params).unwrap_or_default().into_iter().map(|(name, value)| {
            let kind = match value {
                Param::Text(text) => Kind::StringValue(text),
                Param::Long(_) => Kind::NumberValue(1.0),
                Param::Bool(flag) => Kind::BoolValue(flag),
            };
            (name, prost_types::Value { kind: Some(kind) })
        });
        prost_types::Struct { fields: fields.collect() }
    }

    fn request(&self, event: &Event, operation: &str, input: &Value) -> wire::CheckRequest {
        wire::CheckRequest {
            task: self.tasks.get(&event.way).cloned().unwrap_or_default(),
            operation: operation.to_owned(),
            arguments_json: input.to_string().into_bytes(),
            supported_obligations: self.runner.obligations.clone(),
            ..Default::default()
        }
    }

    /// A call that is held for a step-up that people answer: its approval, and the kinds.
    fn held(
        &mut self,
        conditions: &Conditions<'_>,
        event: &Event,
    ) -> Option<(String, Vec<String>)> {
        let taints = self.runner.taints;
        let way = self.runner.way(event.way)?;
        let flow = taints.flows.get(event.flow)?;
        let operation = taints.operation(flow)?;
        let variants = self.runner.variants.get(&(event.flow, event.class.clone())).cloned();
        for input in variants.unwrap_or_default() {
            let request = self.request(event, &operation.id, &input);
            let caller = self.runner.caller(way);
            self.runner.asked += 1;
            let explained = self.engine.explain(&request, &caller);
            if explained.outcome != Outcome::StepUp {
                // A decision tells the labels of the session, which the other arguments do not change.
                let is_judged = explained.decision.is_some();
                if is_judged && !taints.could_hold(conditions, way, flow, &explained.labels_before)
                {
                    return None;
                }
                continue;
            }
            let answer = self.engine.check(&request, &caller);
            let kinds = answer.decision.map(|decision| decision.kinds).unwrap_or_default();
            return answer.approval_id.map(|approval| (approval, kinds));
        }
        None
    }

    /// Makes the calls of an event.
    fn call(&mut self, event: &Event, unmet: Option<&dyn Fn(&str) -> bool>) -> Result<(), String> {
        let variants = self.runner.variants.get(&(event.flow, event.class.clone()));
        self.call_with(event, variants.cloned().unwrap_or_default(), unmet)?;
        let operation = self.runner.operation(event);
        let pointer = operation.and_then(|one| one.resource.as_ref()?.id.as_ref());
        let first = self.trace.calls.last().map(|call| call.input.clone()).unwrap_or_default();
        for number in 1..event.repeats {
            let next = pointer.and_then(|id| inputs::with_other_id(&first, id, number));
            self.call_with(event, next.into_iter().collect(), unmet)?;
        }
        Ok(())
    }

    /// Makes a call with the first of some arguments that the engine permits.
    fn call_with(
        &mut self,
        event: &Event,
        variants: Vec<Value>,
        unmet: Option<&dyn Fn(&str) -> bool>,
    ) -> Result<(), String> {
        let missing = || "UNKNOWN_OPERATION".to_owned();
        let taints = self.runner.taints;
        let way = self.runner.way(event.way).ok_or_else(missing)?;
        let flow = taints.flows.get(event.flow).ok_or_else(missing)?;
        let operation = taints.operation(flow).ok_or_else(missing)?;
        let mut first = String::new();
        for input in variants {
            let request = self.request(event, &operation.id, &input);
            let caller = self.runner.caller(way);
            self.runner.asked += 1;
            let mut answer = self.engine.explain(&request, &caller);
            let mut satisfied = Vec::new();
            if answer.outcome == Outcome::StepUp {
                // People approve every call, except by the step-up kinds that the goal rules out.
                let kinds = answer.decision.iter().flat_map(|decision| decision.kinds.clone());
                satisfied = kinds.collect();
                if unmet.is_some_and(|unmet| satisfied.iter().any(|kind| unmet(kind))) {
                    satisfied.clear();
                } else {
                    let caller = StatedCaller { satisfied: satisfied.clone(), ..caller.clone() };
                    answer = self.engine.explain(&request, &caller);
                }
            }
            let has_class = |decision: &Decision| {
                event.class.as_ref().is_none_or(|class| *class == decision.destination_class)
            };
            let is_of_class = answer.decision.as_ref().is_some_and(has_class);
            if first.is_empty() {
                let is_other = answer.is_let_through() && !is_of_class;
                let other = if is_other { ", with a destination of another class" } else { "" };
                first = format!("{}{other}", answer.reason.as_str());
            }
            if !(answer.is_let_through() && is_of_class) {
                continue;
            }
            let caller = StatedCaller { satisfied: satisfied.clone(), ..caller };
            let answer = self.engine.check(&request, &caller);
            if let Some(decision) = answer.decision.clone().filter(|_| answer.is_let_through()) {
                self.note(event, (way, flow), input, satisfied, decision);
                // Nothing of a trace depends on the result of its last call.
                let is_reported = unmet.is_none() && self.report(operation, &answer.id);
                if let Some(call) = self.trace.calls.last_mut() {
                    call.is_reported = is_reported;
                }
                return Ok(());
            }
        }
        Err(if first.is_empty() { "BAD_INPUT".to_owned() } else { first })
    }

    /// Reports the result of a call as done, as the reporter of its system. Its data has every label that it can have. Returns
    /// whether the engine takes the report.
    fn report(&self, operation: &Operation, decision_id: &str) -> bool {
        if !self.runner.has_reports {
            return false;
        }
        let reporter = self.runner.plan.model().reports(&operation.id);
        let request = wire::ReportRequest {
            decision_id: decision_id.to_owned(),
            result: wire::ReportResult::Ok.into(),
            labels: reported_labels(operation, reporter).into_iter().collect(),
            ..Default::default()
        };
        let caller = StatedCaller::default();
        match reporter {
            Reports::Never => false,
            Reports::Sdk => self.engine.report(&request, &caller).is_ok(),
            Reports::AccessLog => self.engine.report_logged(&request, &caller).is_ok(),
        }
    }

    /// Labels of every resource of an operation's collection.
    fn of_resource(&self, flow: &Flow) -> BTreeSet<String> {
        let collection = flow.store.collection.as_ref();
        let collection = collection.and_then(|name| self.runner.plan.model().collections.get(name));
        collection.map(|collection| collection.labels.clone()).unwrap_or_default()
    }

    fn note(
        &mut self,
        event: &Event,
        (way, flow): (&Way, &Flow),
        input: Value,
        satisfied: Vec<String>,
        decision: Decision,
    ) {
        let parties = self.runner.taints.parties;
        let labels = self.labels.entry(way.root).or_default();
        let labels_before = labels.clone();
        // Labels that a report may still take back count until then.
        let passage = &decision.passage;
        labels.extend(passage.labels.iter().chain(&passage.awaited.labels).cloned());
        let labels_after = labels.clone();
        let of_resource = self.of_resource(flow);
        // The data itself.
        let data = &mut self.data;
        let mut known = data.sessions.get(&way.root).cloned().unwrap_or_default();
        for agent in &way.agents {
            let memory = data.memories.get(&way.recalled_key(parties, *agent));
            known.extend(memory.into_iter().flatten().cloned());
        }
        // The data has the labels that the bundle says, also where no policy reads labels, so that Authz keeps none.
        let operation = self.runner.taints.operation(flow);
        let yields = operation.into_iter().flat_map(|one| one.yields.0.iter().chain(&one.yields.1));
        let mut brought: BTreeSet<String> = yields.cloned().collect();
        let patterned = decision.passage.labels.iter().filter(|label| flow.gives.contains(*label));
        brought.extend(patterned.cloned());
        if flow.reads {
            brought.extend(of_resource.iter().cloned());
        }
        let source = flow.store.collection.as_ref().unwrap_or(&flow.store.system);
        let places = (source.as_str(), decision.resource.as_str());
        let model = self.runner.plan.model();
        let derived = data.gather(way.root, model, &brought, places);
        brought.extend(derived);
        let mut stored = BTreeSet::new();
        if flow.reads {
            for (store, kept) in &data.stores {
                if store.reaches(&flow.store) {
                    stored.extend(kept.iter().cloned());
                }
            }
        }
        let own = decision.uncleared_labels.iter().chain(&of_resource);
        let own = own.chain(&flow.yields_sent).cloned();
        let sent: BTreeSet<String> = known.iter().cloned().chain(own).collect();
        let all: BTreeSet<String> = known.iter().cloned().chain(brought).chain(stored).collect();
        if flow.writes {
            data.stores.entry(flow.store.clone()).or_default().extend(all.iter().cloned());
        }
        data.sessions.entry(way.root).or_default().extend(all.iter().cloned());
        for agent in &way.agents {
            if let Some(key) = way.memory_key(parties, *agent) {
                data.memories.entry(key).or_default().extend(all.iter().cloned());
            }
        }
        let is_marked = |label: &String| {
            labels_before.contains(label) || decision.uncleared_labels.contains(label)
        };
        let sent: Labels = sent
            .into_iter()
            .map(|label| {
                let mark = if is_marked(&label) { Mark::Marked } else { Mark::Unmarked };
                (label, mark)
            })
            .collect();
        self.trace.calls.push(CallResult {
            event: event.clone(),
            input,
            satisfied,
            decision,
            labels_before,
            labels_after,
            data: sent,
            read_before: known,
            is_reported: false,
        });
    }
}

/// A trace as a test of the bundle, which fails for as long as the trace is possible.
///
/// Args: `expected`: outcome of the last call once the path is cut.
#[must_use]
pub fn case(
    taints: &Taints<'_>,
    plan: &Plan,
    name: &str,
    trace: &Trace,
    expected: &str,
    acr: &str,
) -> String {
    let writer = CaseWriter { taints, plan, acr };
    writer.write(name, trace, expected)
}

struct CaseWriter<'a> {
    taints: &'a Taints<'a>,
    plan: &'a Plan,
    acr: &'a str,
}

impl CaseWriter<'_> {
    fn write(&self, name: &str, trace: &Trace, expected: &str) -> String {
        let mut agents: BTreeMap<String, Value> = BTreeMap::new();
        let mut subjects: BTreeMap<String, Value> = BTreeMap::new();
        let mut steps: Vec<Value> = Vec::new();
        let mut started = BTreeSet::new();
        for at in 0..=trace.calls.len() {
            for begun in trace.begun.iter().filter(|begun| begun.before == at) {
                if let Some(way) = self.taints.ways.all.get(begun.way) {
                    let of_task = (begun.way, way, trace.circumstances.prompt.as_slice());
                    steps.push(self.beginning(of_task, &mut agents, &mut subjects));
                    if is_prompted_later(way) && !trace.circumstances.prompt.is_empty() {
                        let turn = json!({"prompt": prompts::text(&trace.circumstances.prompt), "said_by": "subject"});
                        let task = format!("t{}", begun.way);
                        steps.push(json!({"task": task, "extend": turn, "expect": "OK"}));
                    }
                    started.insert(begun.way);
                }
            }
            let Some(call) = trace.calls.get(at) else { break };
            let Some(way) = self.taints.ways.all.get(call.event.way) else { break };
            let is_last = at + 1 == trace.calls.len();
            let expect = if is_last { expected } else { "PERMIT" };
            let mut step = self.call(call, way, expect, &mut agents, &mut subjects);
            let wait = trace.circumstances.wait_seconds;
            if let Some(members) = step.as_object_mut().filter(|_| is_last && wait > 0) {
                members.insert("after".to_owned(), json!(format!("{wait}s")));
            }
            steps.push(step);
            steps.extend(self.report(call));
        }
        let mut test = Map::new();
        test.insert("trace".to_owned(), json!(name));
        if !self.taints.breakglass.is_empty() {
            test.insert("breakglass".to_owned(), json!(self.taints.breakglass));
        }
        test.insert("steps".to_owned(), json!(steps));
        let document = json!({
            "fixtures": {"agents": agents, "subjects": subjects},
            "tests": [test],
        });
        yaml(&document)
    }

    fn agent(&self, at: usize, agents: &mut BTreeMap<String, Value>) -> String {
        let Some(party) = self.taints.parties.agents.get(at) else { return String::new() };
        let name = format!("agent-{at}");
        agents.insert(name.clone(), json!(party.name()));
        name
    }

    fn subject(&self, at: usize, subjects: &mut BTreeMap<String, Value>) -> String {
        let Some(party) = self.taints.parties.subjects.get(at) else { return String::new() };
        let name = format!("subject-{at}");
        let Some(stated) = stated(party, self.acr) else { return name };
        let mut fixture = Map::new();
        fixture.insert("issuer".to_owned(), json!(stated.issuer));
        fixture.insert("sub".to_owned(), json!(stated.sub));
        if stated.kind == SubjectKind::Service {
            fixture.insert("kind".to_owned(), json!("service"));
        }
        if !stated.acr.is_empty() {
            fixture.insert("acr".to_owned(), json!(stated.acr));
        }
        let claims: Map<String, Value> = stated
            .claims
            .iter()
            .map(|(name, claim)| {
                let value = match claim {
                    Claim::Bool(value) => json!(value),
                    Claim::Long(value) => json!(value),
                    Claim::Text(text) => json!(text),
                    Claim::Texts(texts) => json!(texts),
                };
                (name.clone(), value)
            })
            .collect();
        if !claims.is_empty() {
            fixture.insert("claims".to_owned(), Value::Object(claims));
        }
        subjects.insert(name.clone(), Value::Object(fixture));
        name
    }

    fn params(&self, template: &str) -> Value {
        let template = self.plan.template(template);
        let given = template.map(|template| &template.params).into_iter().flatten();
        let given = given.map(|(name, kind)| {
            let value = match kind {
                ParamType::String => json!(super::ways::EXAMPLE),
                ParamType::Long => json!(1),
                ParamType::Bool => json!(true),
            };
            (name.clone(), value)
        });
        Value::Object(given.collect())
    }

    fn beginning(
        &self,
        (at, way, prompt): (usize, &Way, &[String]),
        agents: &mut BTreeMap<String, Value>,
        subjects: &mut BTreeMap<String, Value>,
    ) -> Value {
        let agent = self.agent(way.agent(), agents);
        let name = format!("t{at}");
        let params = self.params(&way.template);
        let mut form = Map::new();
        form.insert("name".to_owned(), json!(name));
        if let Beginning::Delegated(parent) = way.beginning {
            form.insert("to".to_owned(), json!(agent));
            let above = self.taints.ways.all.get(parent);
            if above.is_some_and(|above| above.template != way.template) {
                form.insert("template".to_owned(), json!(way.template));
                form.insert("params".to_owned(), params);
            }
            // As in the trace, the agent shows that it holds the key of its credential.
            let giver = above.map(|above| self.agent(above.agent(), agents)).unwrap_or_default();
            let caller = json!({"agent": giver, "bound": true, "confidence": 100});
            return json!({"as": caller, "task": format!("t{parent}"), "delegate": form, "expect": "OK"});
        }
        form.insert("template".to_owned(), json!(way.template));
        form.insert("agent".to_owned(), json!(agent));
        if let Some(subject) = way.subject {
            form.insert("subject".to_owned(), json!(self.subject(subject, subjects)));
        }
        if let Beginning::ByAgent(starter) = way.beginning {
            form.insert("by".to_owned(), json!(self.agent(starter, agents)));
        }
        if params.as_object().is_some_and(|params| !params.is_empty()) {
            form.insert("params".to_owned(), params);
        }
        if !prompt.is_empty() && !is_prompted_later(way) {
            form.insert("prompt".to_owned(), json!(prompts::text(prompt)));
        }
        json!({"start": form, "expect": "OK"})
    }

    fn call(
        &self,
        call: &CallResult,
        way: &Way,
        expect: &str,
        agents: &mut BTreeMap<String, Value>,
        subjects: &mut BTreeMap<String, Value>,
    ) -> Value {
        let mut caller = Map::new();
        caller.insert("agent".to_owned(), json!(self.agent(way.agent(), agents)));
        if let Some(subject) = way.subject.filter(|_| !way.is_started()) {
            caller.insert("subject".to_owned(), json!(self.subject(subject, subjects)));
        }
        caller.insert("bound".to_owned(), json!(true));
        caller.insert("confidence".to_owned(), json!(100));
        if !call.satisfied.is_empty() {
            caller.insert("satisfied".to_owned(), json!(call.satisfied));
        }
        let flow = self.taints.flows.get(call.event.flow);
        let operation = flow.and_then(|flow| self.taints.operation(flow));
        let id = operation.map_or("", |operation| operation.id.as_str());
        let mut step = Map::new();
        step.insert("as".to_owned(), Value::Object(caller));
        if way.is_started() {
            step.insert("task".to_owned(), json!(format!("t{}", call.event.way)));
        }
        step.insert("call".to_owned(), json!(id));
        step.insert("input".to_owned(), call.input.clone());
        if !call.decision.obligations.is_empty() {
            let request = json!({"supported_obligations": call.decision.obligations});
            step.insert("request".to_owned(), request);
        }
        step.insert("expect".to_owned(), json!(expect));
        Value::Object(step)
    }
}

impl CaseWriter<'_> {
    /// The report of the call before it. `None`: its result is not reported.
    fn report(&self, call: &CallResult) -> Option<Value> {
        let flow = self.taints.flows.get(call.event.flow).filter(|_| call.is_reported)?;
        let operation = self.taints.operation(flow)?;
        let labels = reported_labels(operation, self.plan.model().reports(&operation.id));
        let report = match labels.is_empty() {
            true => json!({"result": "ok"}),
            false => json!({"result": "ok", "labels": labels}),
        };
        Some(json!({"report": report, "expect": "OK"}))
    }
}

/// A document as YAML: each member of the outer levels on a line of its own, the inner ones in flow form, which is JSON.
fn yaml(document: &Value) -> String {
    let mut text = String::new();
    if let Some(fixtures) = document.get("fixtures").and_then(Value::as_object) {
        text.push_str("fixtures:\n");
        for (kind, all) in fixtures {
            let _ = writeln!(text, "  {kind}: {all}");
        }
    }
    text.push_str("tests:\n");
    for test in document.get("tests").and_then(Value::as_array).into_iter().flatten() {
        let name = test.get("trace").cloned().unwrap_or_default();
        let _ = writeln!(text, "  - trace: {name}");
        if let Some(systems) = test.get("breakglass") {
            let _ = writeln!(text, "    breakglass: {systems}");
        }
        text.push_str("    steps:\n");
        for step in test.get("steps").and_then(Value::as_array).into_iter().flatten() {
            let _ = writeln!(text, "      - {step}");
        }
    }
    text
}
