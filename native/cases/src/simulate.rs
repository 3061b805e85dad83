//! Takes a recorded session through a bundle, step by step, on an engine with an empty store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decide::name_claims;
use authz_kernel::decision::{DecidingRule, Time};
use authz_kernel::model::{Reports, Tier};
use authz_kernel::plan::Plan;
use authz_kernel::task::{AgentName, Param};
use authz_lane::offline::{OfflineDecision, OfflineEngine, OfflineWorld, StatedCaller};
use authz_lane::proto::authz::v1 as wire;
use prost_types::value::Kind;
use prost_types::{Struct, Value as WireValue};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::case_file::OutcomeWord;
use crate::clock::StepClock;
use crate::eval::{EvalCaller, empty};

/// Most steps of a session.
const MAX_STEPS: usize = 100_000;

/// A session.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionForm {
    /// Aliases of issuers whose subjects an agent may assert.
    #[serde(default)]
    issuers: BTreeSet<String>,
    steps: Vec<SessionStep>,
}

/// One step of a session. Exactly one of `start`, `delegate`, `call`, `report` and `end` is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionStep {
    /// Time in milliseconds since 1970. Default: that of the step before. Time never goes back.
    at_ms: Option<i64>,
    start: Option<SessionStart>,
    delegate: Option<SessionDelegation>,
    call: Option<SessionCall>,
    report: Option<SessionReport>,
    /// Name of the task that ends.
    end: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionStart {
    /// Name of the task in later steps.
    name: String,
    r#as: EvalCaller,
    template: String,
    #[serde(default)]
    params: BTreeMap<String, Param>,
    #[serde(default)]
    prompt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionDelegation {
    name: String,
    parent: String,
    to: String,
    #[serde(default)]
    template: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionCall {
    /// Name of the call in later reports.
    name: String,
    /// Name of its task. Default: no task.
    task: Option<String>,
    /// Caller of a call without a task. The agent of the task makes other calls.
    r#as: Option<EvalCaller>,
    operation: String,
    #[serde(default = "empty")]
    input: Value,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    destinations: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    supported_obligations: Vec<String>,
    #[serde(default)]
    enforcer: String,
    /// Step-up kinds that people had met.
    #[serde(default)]
    satisfied: Vec<String>,
    #[serde(default)]
    is_bound: bool,
    #[serde(default)]
    age: i64,
    #[serde(default)]
    confidence: u8,
}

/// Report of the outcome of a permitted call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionReport {
    /// Name of the call.
    of: String,
    /// `ok`, `failed` or `aborted`.
    #[serde(default)]
    result: SessionResult,
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SessionResult {
    #[default]
    Ok,
    Failed,
    Aborted,
}

/// Takes a session through a bundle.
///
/// Args: `session`: JSON of `{issuers, steps}`.
///
/// Returns: JSON of `{steps}`, one for each step, in order.
///
/// # Errors
/// The session is not of that form, or has more than 100,000 steps.
pub fn simulate(plan: &Arc<Plan>, session: &[u8]) -> Result<Vec<u8>, String> {
    let session: SessionForm =
        serde_json::from_slice(session).map_err(|error| error.to_string())?;
    if session.steps.len() > MAX_STEPS {
        return Err(format!("the session has more than {MAX_STEPS} steps"));
    }
    let first = session.steps.iter().find_map(|step| step.at_ms).unwrap_or_default();
    let clock = Arc::new(StepClock::new(Time(first)));
    let world = OfflineWorld {
        plan: Arc::clone(plan),
        recipient_lists: plan.fresh_recipient_lists(),
        issuers: session.issuers,
    };
    let of_engine = Arc::clone(&clock);
    let engine = OfflineEngine::new(world, of_engine).map_err(|error| error.to_string())?;
    let mut simulation = Simulation {
        plan,
        engine,
        tasks: BTreeMap::new(),
        calls: BTreeMap::new(),
        taskless: BTreeMap::new(),
    };
    let mut steps = Vec::with_capacity(session.steps.len());
    for step in &session.steps {
        let later = step.at_ms.unwrap_or_default().saturating_sub(clock.now().0);
        clock.advance(later.max(0));
        steps.push(simulation.step(step)?);
    }
    Ok(json!({ "steps": steps }).to_string().into_bytes())
}

/// A task of the session.
#[derive(Clone)]
struct RunningTask {
    id: String,
    session: String,
    assignee: AgentName,
}

/// A call of the session.
struct SimulatedCall {
    id: String,
    operation: String,
    enforcer: String,
    is_let_through: bool,
}

struct Simulation<'a> {
    plan: &'a Arc<Plan>,
    engine: OfflineEngine,
    tasks: BTreeMap<String, RunningTask>,
    calls: BTreeMap<String, SimulatedCall>,
    /// Sessions of callers without tasks, by the names of their principals.
    taskless: BTreeMap<Vec<String>, String>,
}

impl Simulation<'_> {
    fn step(&mut self, step: &SessionStep) -> Result<Value, String> {
        match step {
            SessionStep {
                start: Some(start),
                delegate: None,
                call: None,
                report: None,
                end: None,
                ..
            } => self.start(start),
            SessionStep {
                start: None,
                delegate: Some(form),
                call: None,
                report: None,
                end: None,
                ..
            } => Ok(self.delegate(form)),
            SessionStep {
                start: None,
                delegate: None,
                call: Some(call),
                report: None,
                end: None,
                ..
            } => self.call(call),
            SessionStep {
                start: None,
                delegate: None,
                call: None,
                report: Some(form),
                end: None,
                ..
            } => Ok(self.report(form)),
            SessionStep {
                start: None,
                delegate: None,
                call: None,
                report: None,
                end: Some(name),
                ..
            } => Ok(self.end(name)),
            _ => Err("a step has exactly one of start, delegate, call, report and end".to_owned()),
        }
    }

    fn start(&mut self, form: &SessionStart) -> Result<Value, String> {
        let caller = with_named_claims(self.plan, form.r#as.stated("")?);
        let agent = caller.agent.clone().ok_or("the start of a task names its agent")?;
        let request = wire::StartRequest {
            template: form.template.clone(),
            params: Some(params(&form.params)),
            prompt: form.prompt.clone(),
            assignee: agent.spiffe_id,
            ..Default::default()
        };
        let started = self.engine.start_task(&request, &caller);
        Ok(match started {
            Ok(answer) => self.kept(&form.name, answer.task),
            Err(error) => refused(error.reason_code.as_str(), &error.message),
        })
    }

    fn kept(&mut self, name: &str, task: Option<wire::Task>) -> Value {
        let Some(task) = task else { return refused("UNAVAILABLE", "no task was started") };
        let Ok(assignee) = AgentName::parse(&task.assignee) else {
            return refused("UNAVAILABLE", "the task names no agent");
        };
        let labels = self.labels(&task.session);
        let task = RunningTask { id: task.id, session: task.session, assignee };
        self.tasks.insert(name.to_owned(), task);
        json!({"ok": true, "labels_after": labels})
    }

    fn delegate(&mut self, form: &SessionDelegation) -> Value {
        let Some(parent) = self.tasks.get(&form.parent).cloned() else {
            return refused("UNKNOWN_TASK", "the task above was not started");
        };
        let request = wire::DelegateRequest {
            parent: parent.id,
            assignee: form.to.clone(),
            template: form.template.clone(),
            ..Default::default()
        };
        let caller = StatedCaller { agent: Some(parent.assignee), ..StatedCaller::default() };
        match self.engine.delegate_task(&request, &caller) {
            Ok(answer) => self.kept(&form.name, answer.task),
            Err(error) => refused(error.reason_code.as_str(), &error.message),
        }
    }

    fn call(&mut self, form: &SessionCall) -> Result<Value, String> {
        let task = form.task.as_ref().map(|name| self.tasks.get(name).cloned());
        let task = match task {
            Some(None) => return Ok(refused("UNKNOWN_TASK", "the task was not started")),
            Some(Some(task)) => Some(task),
            None => None,
        };
        let caller = match (&task, &form.r#as) {
            (Some(task), _) => StatedCaller {
                agent: Some(task.assignee.clone()),
                enforcer: form.enforcer.clone(),
                ..StatedCaller::default()
            },
            (None, Some(caller)) => with_named_claims(self.plan, caller.stated(&form.enforcer)?),
            (None, None) => return Err("a call names its task or its caller".to_owned()),
        };
        let caller = StatedCaller {
            satisfied: form.satisfied.clone(),
            is_bound: form.is_bound,
            age: form.age,
            confidence: form.confidence,
            ..caller
        };
        let request = wire::CheckRequest {
            task: task.as_ref().map(|task| task.id.clone()).unwrap_or_default(),
            operation: form.operation.clone(),
            arguments_json: form.input.to_string().into_bytes(),
            resource: form.resource.clone(),
            destinations: form.destinations.clone(),
            labels: form.labels.clone(),
            supported_obligations: form.supported_obligations.clone(),
            ..Default::default()
        };
        let session = task.as_ref().map(|task| task.session.clone());
        let before = session.as_deref().map(|session| self.labels(session));
        let decision = self.engine.check(&request, &caller);
        let session = session.or_else(|| decision.session_id.clone());
        let before = before.or_else(|| {
            let known = self.taskless.get(&decision.chain)?;
            Some(decision.labels_before.clone()).filter(|_| Some(known) == session.as_ref())
        });
        if let Some(session) = &session {
            self.taskless.entry(decision.chain.clone()).or_insert_with(|| session.clone());
        }
        let after = session.as_deref().map(|session| self.labels(session)).unwrap_or_default();
        let before = before.unwrap_or_else(|| decision.labels_before.clone());
        self.calls.insert(
            form.name.clone(),
            SimulatedCall {
                id: decision.id.clone(),
                operation: decision
                    .decision
                    .as_ref()
                    .map(|decision| decision.operation.clone())
                    .unwrap_or_default(),
                enforcer: form.enforcer.clone(),
                is_let_through: decision.is_let_through(),
            },
        );
        Ok(rendered(&decision, &before, &after))
    }

    fn report(&self, form: &SessionReport) -> Value {
        let Some(call) = self.calls.get(&form.of) else {
            return refused("BAD_INPUT", "the call of the report was not made");
        };
        if !call.is_let_through {
            return refused("BAD_INPUT", "the call of the report was not let through here");
        }
        let result = match form.result {
            SessionResult::Ok => wire::ReportResult::Ok,
            SessionResult::Failed => wire::ReportResult::Failed,
            SessionResult::Aborted => wire::ReportResult::Aborted,
        };
        let request = wire::ReportRequest {
            decision_id: call.id.clone(),
            result: result.into(),
            labels: form.labels.clone(),
            ..Default::default()
        };
        let caller = StatedCaller { enforcer: call.enforcer.clone(), ..StatedCaller::default() };
        let done = match self.plan.model().reports(&call.operation) {
            Reports::AccessLog => self.engine.report_logged(&request, &caller),
            Reports::Sdk => self.engine.report(&request, &caller).map(drop),
            // A permitted call counts as done.
            Reports::Never => return json!({"ok": true, "ignored": true}),
        };
        match done {
            Ok(()) => json!({"ok": true}),
            Err(error) => refused(error.reason_code.as_str(), &error.message),
        }
    }

    fn end(&self, name: &str) -> Value {
        let Some(task) = self.tasks.get(name) else {
            return refused("UNKNOWN_TASK", "the task was not started");
        };
        let request = wire::EndRequest {
            task: task.id.clone(),
            status: wire::TaskStatus::Completed.into(),
            ..Default::default()
        };
        let caller = StatedCaller { agent: Some(task.assignee.clone()), ..StatedCaller::default() };
        match self.engine.end_task(&request, &caller) {
            Ok(_) => json!({"ok": true}),
            Err(error) => refused(error.reason_code.as_str(), &error.message),
        }
    }

    fn labels(&self, session: &str) -> Vec<String> {
        self.engine.labels_of(session)
    }
}

/// A caller whose claims have the texts that roles of the bundle test in the place of their digests, as an audit log has them.
fn with_named_claims(plan: &Plan, mut caller: StatedCaller) -> StatedCaller {
    if let Some(subject) = &mut caller.subject {
        name_claims(plan.model(), &mut subject.claims);
    }
    caller
}

fn refused(reason: &str, message: &str) -> Value {
    json!({"ok": false, "reason_code": reason, "message": message})
}

fn rendered(answer: &OfflineDecision, before: &[String], after: &[String]) -> Value {
    let decision = answer.decision.as_ref();
    let rule = |rule: &DecidingRule| json!({"kind": rule.kind.as_str(), "name": rule.name, "file": rule.at.file, "line": rule.at.line});
    json!({
        "ok": true,
        "outcome": OutcomeWord::from(answer.outcome).as_str(),
        "reason_code": answer.reason.as_str(),
        "enforced": answer.is_enforced,
        "message": answer.message,
        "rules": answer.rules.iter().map(rule).collect::<Vec<_>>(),
        "policies": decision.map(|decision| decision.policies.clone()).unwrap_or_default(),
        "step_up_kinds": decision.map(|decision| decision.kinds.clone()).unwrap_or_default(),
        "obligations": decision.map(|decision| decision.obligations.clone()).unwrap_or_default(),
        "tier": decision.and_then(|decision| decision.tier).map_or("", Tier::as_str),
        "resource": decision.map(|decision| decision.resource.clone()).unwrap_or_default(),
        "destination_class": decision.map(|decision| decision.destination_class.clone()).unwrap_or_default(),
        "sequences": decision.map(|decision| decision.sequences.clone()).unwrap_or_default(),
        "budgets": decision.map(|decision| decision.budgets.clone()).unwrap_or_default(),
        "labels_before": before,
        "labels_after": after,
    })
}

fn params(params: &BTreeMap<String, Param>) -> Struct {
    let fields = params.iter().map(|(name, param)| {
        let kind = match param {
            Param::Bool(flag) => Kind::BoolValue(*flag),
            #[expect(
                clippy::cast_precision_loss,
                reason = "JSON numbers of the protocol are doubles"
            )]
            Param::Long(number) => Kind::NumberValue(*number as f64),
            Param::Text(text) => Kind::StringValue(text.clone()),
        };
        (name.clone(), WireValue { kind: Some(kind) })
    });
    Struct { fields: fields.collect() }
}
