//! What tools ask of a bundle without a server: run its tests, judge on stated facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::casefile::{self, Report};
use authz_kernel::decide::decide_traced;
use authz_kernel::decision::{
    Claim, Facts, Outcome, PolicyEffect, Principal, Proof, ProofMethod, Request, Subject, Time,
    Verdict,
};
use authz_kernel::directories::Directories;
use authz_kernel::hex::hex;
use authz_kernel::history::{HistoryChanges, HistoryView, SessionHistory};
use authz_kernel::mcp::ServerTask;
use authz_kernel::model::Tier;
use authz_kernel::plan::Plan;
use authz_kernel::reach::{Place, Refused};
use authz_kernel::task::{
    self, AgentName, Param, Part, ScopeEntry, Speaker, SubjectProof, Task, TaskKind, TaskView,
    read_names,
};
use authz_token::SpiffeId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::judgement::name_of;
use crate::judgement::outcome_name;

/// Runs case files against a plan.
///
/// Args: `files`: case files by path; of a whole bundle folder those under `tests/` are taken.
#[must_use]
pub fn test<B: AsRef<[u8]>>(plan: &Plan, files: &BTreeMap<String, B>, now_ms: i64) -> Report {
    let is_bundle = files.contains_key("bundle.yaml");
    let is_test = |path: &str| {
        path.starts_with("tests/") && path.rsplit_once('.').is_some_and(|(_, kind)| kind == "yaml")
    };
    let tests: BTreeMap<String, Vec<u8>> = files
        .iter()
        .filter(|(path, _)| !is_bundle || is_test(path))
        .map(|(path, bytes)| (path.clone(), bytes.as_ref().to_vec()))
        .collect();
    casefile::run(plan, &tests, Time(now_ms))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stated {
    r#as: Who,
    call: String,
    #[serde(default = "empty")]
    input: Value,
    resource: Option<String>,
    #[serde(default)]
    destinations: Vec<String>,
    #[serde(default)]
    supported_obligations: Vec<String>,
    #[serde(default)]
    enforcer: String,
    task: Option<StatedTask>,
}

/// A task that is only for this request: who acts has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatedTask {
    template: String,
    #[serde(default)]
    params: BTreeMap<String, Param>,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    scope: Vec<ScopeEntry>,
    /// Labels that its session carries.
    #[serde(default)]
    labels: BTreeSet<String>,
}

/// Literals of what is stated are nobody's secret.
const LITERAL_KEY: [u8; 32] = [0; 32];

impl StatedTask {
    /// Puts the labels that it carries into the history of its session.
    fn carry(&self, now: Time, history: &mut SessionHistory) {
        let changes = HistoryChanges { labels: self.labels.clone(), ..HistoryChanges::NONE };
        history.apply(&changes, "stated", "", now);
    }

    /// The task of whoever acts, started now.
    fn start(
        &self,
        plan: &Plan,
        who: &Who,
        chain: &[Principal],
        now: Time,
    ) -> Result<Task, String> {
        let agent = who.agent.as_deref().ok_or("a task is an agent's: say `as.agent`")?;
        let acr = who.subject.as_ref().map_or("", |subject| subject.acr.as_str());
        let subject = chain.first().and_then(|first| task::TaskSubject::of(first, acr));
        let proof = subject.as_ref().map_or(SubjectProof::Itself, |_| SubjectProof::Verified);
        let root = task::Root {
            template: &self.template,
            params: &self.params,
            scope: &self.scope,
            kind: TaskKind::Root,
            assignee: AgentName::parse(agent).map_err(|error| error.to_string())?,
            subject,
            subject_proof: proof,
            starter: String::new(),
            deadline: None,
            tier_cap: None,
            names: read_names(
                &[Part::of_user(&self.prompt)],
                &self.params,
                Speaker::Subject,
                &LITERAL_KEY,
            ),
            now,
            id: "stated".to_owned(),
            session: "stated".to_owned(),
        };
        task::start(plan, root).map_err(|refused| refused.to_string())
    }
}

fn empty() -> Value {
    Value::Object(Map::new())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    agent: Option<String>,
    subject: Option<StatedSubject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatedSubject {
    issuer: String,
    sub: String,
    #[serde(default)]
    kind: StatedKind,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
    #[serde(default)]
    acr: String,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StatedKind {
    #[default]
    User,
    Service,
}

/// Judges one request whose principals are stated, not proved; for tools only, never for a caller.
///
/// Args: `request`: JSON of `{as: {agent, subject: {issuer, sub, kind, claims, acr}}, call, input, resource, destinations,
/// supported_obligations, enforcer, task: {template, params, prompt, scope, labels}}`.
///
/// Returns: the decision with every policy judged, as JSON.
///
/// # Errors
/// The request is not of that form.
pub fn eval(plan: &Plan, request: &[u8], now_ms: i64) -> Result<Vec<u8>, String> {
    let stated: Stated = serde_json::from_slice(request).map_err(|error| error.to_string())?;
    let chain = stated.r#as.chain()?;
    let acr = stated.r#as.subject.as_ref().map_or("", |subject| subject.acr.as_str());
    let is_agent = stated.r#as.agent.is_some();
    let now = Time(now_ms);
    let start = |said: &StatedTask| said.start(plan, &stated.r#as, &chain, now);
    let task = match &stated.task {
        Some(said) => Some(start(said)?),
        None => {
            let implicit = task::implicit(plan, &chain, acr, now).ok().flatten();
            let is_remembered = plan.recalls_taskless(&stated.call, false);
            implicit.or_else(|| is_remembered.then(|| task::taskless(&chain, acr)).flatten())
        }
    };
    // Neither the agent nor the subject did anything before.
    let (mut history, nothing) = (SessionHistory::new(), SessionHistory::new());
    if let Some(said) = &stated.task {
        said.carry(now, &mut history);
    }
    let directories = Directories::of(plan.model());
    let facts = Facts {
        enforcer: &stated.enforcer,
        chain: &chain,
        proof: Proof {
            method: if is_agent { ProofMethod::JwtSvid } else { ProofMethod::Jwt },
            bound: false,
            age: Some(0),
            acr,
        },
        confidence: 0,
        task: task.as_ref().map(|task| TaskView { task, ancestors: &[] }),
        subject_proof: None,
        history: task.as_ref().map(|_| HistoryView {
            agent: Some(&nothing),
            subject: Some(&nothing),
            ..HistoryView::new(&history)
        }),
        literal_key: Some(&LITERAL_KEY),
        directories: Some(&directories),
        granted: None,
    };
    let arguments = stated.input.to_string();
    let destinations: Vec<&str> = stated.destinations.iter().map(String::as_str).collect();
    let obligations: Vec<&str> = stated.supported_obligations.iter().map(String::as_str).collect();
    let request = Request {
        operation: &stated.call,
        arguments: arguments.as_bytes().into(),
        resource: stated.resource.as_deref(),
        destinations: &destinations,
        supported_obligations: &obligations,
        labels: &[],
        server_task: ServerTask::None,
    };
    let decision = decide_traced(plan, &facts, &request, now);
    let trace: Vec<Value> = decision
        .trace
        .iter()
        .map(|judged| {
            let (result, error) = match &judged.result {
                Verdict::Fired => ("fired", ""),
                Verdict::NotFired => ("not fired", ""),
                Verdict::Failed(how) => ("failed", how.as_str()),
            };
            json!({
                "policy_id": judged.policy,
                "effect": match judged.effect {
                    PolicyEffect::Permit => "permit",
                    PolicyEffect::Forbid => "forbid",
                },
                "result": result,
                "error": error,
                "principal": judged.principal,
                "file": judged.at.file,
                "line": judged.at.line,
                "reason": judged.reason,
            })
        })
        .collect();
    let row = decision.reason.row();
    let system = stated.call.split_once('.').map_or("", |(system, _)| system);
    let systems = [if plan.systems().contains_key(system) { system } else { "" }.to_owned()];
    let place = match (decision.tier.filter(|_| decision.is_judged), plan.operation(&stated.call)) {
        (Some(tier), _) => Place::Judged { system, tier },
        (None, Some(_)) if !decision.operation.is_empty() => Place::Operation(&decision.operation),
        (None, Some(operation)) => Place::Operation(&operation.id),
        (None, None) => Place::Systems(&systems),
    };
    let (reason, understood) = (decision.reason, decision.understood);
    let has_task = stated.task.is_some();
    let refused = Refused { chain: &chain, has_task, place, reason, understood };
    let softened = decision.outcome != Outcome::Permit && plan.softens(&refused, Time(now_ms));
    let answer = json!({
        "enforced": !softened,
        "outcome": outcome_name(decision.outcome),
        "reason_code": decision.reason.as_str(),
        "public_code": row.public_code.as_str(),
        "next_action": row.next_action.as_str(),
        "retry": row.retry.as_str(),
        "message": decision.message,
        "step_up_kinds": decision.kinds,
        "policy_ids": decision.policies,
        "controls": decision.controls,
        "obligations": decision.obligations,
        "operation": decision.operation,
        "tier": decision.tier.map_or("", Tier::as_str),
        "resource": decision.resource,
        "destination_class": decision.destination_class,
        "excess": decision.excess,
        "sequences": decision.sequences,
        "budgets": decision.budgets,
        "arguments_digest": decision.arguments_digest.map(|digest| hex(&digest)),
        "chain": chain.iter().map(name_of).collect::<Vec<_>>(),
        "shown_reason": decision.shown_reason,
        "trace": trace,
    });
    Ok(answer.to_string().into_bytes())
}

impl Who {
    fn chain(&self) -> Result<Vec<Principal>, String> {
        let mut chain = Vec::new();
        if let Some(stated) = &self.subject {
            let mut claims = BTreeMap::new();
            for (name, value) in &stated.claims {
                claims.insert(name.clone(), claim(name, value)?);
            }
            let (issuer, sub) = (stated.issuer.clone(), stated.sub.clone());
            let subject = Arc::new(Subject { issuer, sub, claims, narrowed: Vec::new() });
            chain.push(match stated.kind {
                StatedKind::User => Principal::User(subject),
                StatedKind::Service => Principal::Service(subject),
            });
        }
        if let Some(agent) = &self.agent {
            let id = SpiffeId::parse(agent)
                .map_err(|error| format!("`as.agent` is no SPIFFE id: {error}"))?;
            chain.push(Principal::Agent {
                spiffe_id: id.as_str().to_owned(),
                trust_domain: id.trust_domain().to_owned(),
            });
        }
        if chain.is_empty() {
            return Err("`as` names nobody; give `agent`, `subject` or both".to_owned());
        }
        Ok(chain)
    }
}

fn claim(name: &str, value: &Value) -> Result<Claim, String> {
    let refused = || format!("claim `{name}` is no true or false, integer, text, or list of texts");
    match value {
        Value::Bool(value) => Ok(Claim::Bool(*value)),
        Value::Number(number) => number.as_i64().map(Claim::Long).ok_or_else(refused),
        Value::String(text) => Ok(Claim::Text(text.clone())),
        Value::Array(items) => {
            let text = |item: &Value| item.as_str().map(str::to_owned).ok_or_else(refused);
            items.iter().map(text).collect::<Result<_, _>>().map(Claim::Texts)
        }
        Value::Null | Value::Object(_) => Err(refused()),
    }
}
