//! Judges one request on stated facts, for tools only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_kernel::decision::{
    Claim, Decision, Judged, ObservedPolicy, PolicyEffect, Principal, Subject, Time, Verdict,
};
use authz_kernel::hex::hex;
use authz_kernel::model::Tier;
use authz_kernel::plan::Plan;
use authz_kernel::task::{
    self, AgentName, Names, Param, Part, PromptNames, ScopeEntry, Speaker, SubjectProof, Task,
    TaskKind, TaskSubject, read_names,
};
use authz_lane::offline::{
    OfflineDecision, OfflineEngine, OfflineWorld, SECRET, StatedCaller, StatedSubject,
};
use authz_lane::proto::authz::v1 as wire;
use authz_token::{SpiffeId, SubjectKind};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::case_file::OutcomeWord;
use crate::clock::StepClock;

/// Id of the task of the request, and of its session.
const TASK: &str = "stated";

/// A request, and its caller.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvalRequest {
    r#as: EvalCaller,
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
    task: Option<EvalTask>,
}

/// A task for this request alone. The caller has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvalTask {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvalCaller {
    agent: Option<String>,
    subject: Option<EvalSubject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvalSubject {
    issuer: String,
    sub: String,
    #[serde(default)]
    kind: SubjectKind,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
    #[serde(default)]
    acr: String,
}

pub(crate) fn empty() -> Value {
    Value::Object(Map::new())
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
pub fn eval(plan: &Arc<Plan>, request: &[u8], now_ms: i64) -> Result<Vec<u8>, String> {
    let request: EvalRequest =
        serde_json::from_slice(request).map_err(|error| error.to_string())?;
    let caller = request.r#as.stated(&request.enforcer)?;
    let now = Time(now_ms);
    let world = OfflineWorld {
        plan: Arc::clone(plan),
        recipient_lists: plan.fresh_recipient_lists(),
        issuers: BTreeSet::new(),
    };
    let clock = Arc::new(StepClock::new(now));
    let engine = OfflineEngine::new(world, clock).map_err(|error| error.to_string())?;
    if let Some(form) = &request.task {
        let PromptNames { names, words } = form.prompt_names();
        let task = form.start(plan, &caller, names, now)?;
        engine.put_task(task, &words, form.labels.clone()).map_err(|error| error.to_string())?;
    }
    let answer = engine.explain(&request.message(), &caller);
    Ok(rendered(&answer).to_string().into_bytes())
}

impl EvalRequest {
    fn message(&self) -> wire::CheckRequest {
        wire::CheckRequest {
            task: self.task.as_ref().map(|_| TASK.to_owned()).unwrap_or_default(),
            operation: self.call.clone(),
            arguments_json: self.input.to_string().into_bytes(),
            resource: self.resource.clone().unwrap_or_default(),
            destinations: self.destinations.clone(),
            supported_obligations: self.supported_obligations.clone(),
            ..Default::default()
        }
    }
}

impl EvalTask {
    /// What the prompt and the parameters name, as the subject's own word.
    fn prompt_names(&self) -> PromptNames {
        read_names(&[Part::of_user(&self.prompt)], &self.params, Speaker::Subject, &SECRET)
    }

    /// The task, started now by its subject.
    fn start(
        &self,
        plan: &Plan,
        caller: &StatedCaller,
        names: Names,
        now: Time,
    ) -> Result<Task, String> {
        let agent = caller.agent.as_ref().ok_or("a task is an agent's: say `as.agent`")?;
        let subject = caller.subject.as_ref().map(recorded_subject);
        let proof = subject.as_ref().map_or(SubjectProof::Itself, |_| SubjectProof::Verified);
        let root = task::Root {
            template: &self.template,
            params: &self.params,
            scope: &self.scope,
            kind: TaskKind::Root,
            assignee: AgentName::parse(&agent.spiffe_id).map_err(|error| error.to_string())?,
            subject,
            subject_proof: proof,
            starter: String::new(),
            deadline: None,
            tier_cap: None,
            names,
            now,
            id: TASK.to_owned(),
            session: TASK.to_owned(),
        };
        task::start(plan, root).map_err(|refused| refused.to_string())
    }
}

/// A subject as the record of its task names it.
fn recorded_subject(subject: &StatedSubject) -> TaskSubject {
    TaskSubject {
        is_service: subject.kind == SubjectKind::Service,
        issuer: subject.issuer.clone(),
        sub: subject.sub.clone(),
        claims: subject.claims.clone(),
        acr: subject.acr.clone(),
    }
}

impl EvalCaller {
    /// The caller as a stated identity.
    pub(crate) fn stated(&self, enforcer: &str) -> Result<StatedCaller, String> {
        let is_alone = self.agent.is_none();
        let subject = self.subject.as_ref().map(|subject| subject.stated(is_alone)).transpose()?;
        let agent = match &self.agent {
            Some(agent) => {
                let id = SpiffeId::parse(agent)
                    .map_err(|error| format!("`as.agent` is no SPIFFE id: {error}"))?;
                let (spiffe_id, trust_domain) =
                    (id.as_str().to_owned(), id.trust_domain().to_owned());
                Some(AgentName { spiffe_id, trust_domain })
            }
            None => None,
        };
        if agent.is_none() && subject.is_none() {
            return Err("`as` names nobody; give `agent`, `subject` or both".to_owned());
        }
        let enforcer = enforcer.to_owned();
        Ok(StatedCaller { agent, subject, enforcer, ..StatedCaller::default() })
    }
}

impl EvalSubject {
    /// The person or service, as a principal.
    pub(crate) fn principal(&self) -> Result<Principal, String> {
        let StatedSubject { issuer, sub, kind, claims, .. } = self.stated(false)?;
        let subject = Arc::new(Subject { issuer, sub, claims, ..Subject::default() });
        Ok(match kind {
            SubjectKind::User => Principal::User(subject),
            SubjectKind::Service => Principal::Service(subject),
        })
    }

    /// Args: `is_alone`: no agent acts for the subject, so no agent holds what proves it.
    fn stated(&self, is_alone: bool) -> Result<StatedSubject, String> {
        let mut claims = BTreeMap::new();
        for (name, value) in &self.claims {
            claims.insert(name.clone(), claim(name, value)?);
        }
        Ok(StatedSubject {
            issuer: self.issuer.clone(),
            sub: self.sub.clone(),
            kind: self.kind,
            claims,
            acr: self.acr.clone(),
            is_alone,
        })
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

/// The decision as JSON.
fn rendered(answer: &OfflineDecision) -> Value {
    let row = answer.reason.row();
    let decision = answer.decision.as_ref();
    let list = |get: fn(&Decision) -> &[String]| decision.map_or(&[][..], get);
    let text = |get: fn(&Decision) -> &str| decision.map_or("", get);
    let digest = decision.and_then(|decision| decision.arguments_digest);
    let trace = decision.map_or(&[][..], |decision| &decision.trace);
    json!({
        "enforced": answer.is_enforced,
        "outcome": OutcomeWord::from(answer.outcome).as_str(),
        "reason_code": answer.reason.as_str(),
        "public_code": row.public_code.as_str(),
        "next_action": row.next_action.as_str(),
        "retry": row.retry.as_str(),
        "message": answer.message,
        "step_up_kinds": list(|decision| &decision.kinds),
        "rules": answer.rules,
        "policy_ids": list(|decision| &decision.policies),
        "controls": list(|decision| &decision.controls),
        "obligations": list(|decision| &decision.obligations),
        "own_obligations": list(|decision| &decision.own_obligations),
        "exceptions": list(|decision| &decision.exceptions),
        "operation": text(|decision| &decision.operation),
        "tier": text(|decision| decision.tier.map_or("", Tier::as_str)),
        "resource": text(|decision| &decision.resource),
        "destination_class": text(|decision| &decision.destination_class),
        "uncleared_labels": list(|decision| &decision.uncleared_labels),
        "sequences": list(|decision| &decision.sequences),
        "budgets": list(|decision| &decision.budgets),
        "arguments_digest": digest.map(|digest| hex(&digest)),
        "chain": answer.chain,
        "shown_reason": decision.and_then(|decision| decision.shown_reason.as_ref()),
        "observed_policies": decision.map_or_else(Vec::new, rendered_flips),
        "trace": trace.iter().map(rendered_policy).collect::<Vec<_>>(),
    })
}

/// The observed policies that would have changed the outcome.
fn rendered_flips(decision: &Decision) -> Vec<Value> {
    let flip = |policy: &ObservedPolicy| {
        let outcome = policy.outcome.map_or("", |outcome| OutcomeWord::from(outcome).as_str());
        json!({ "policy_id": policy.policy, "outcome": outcome })
    };
    decision.flips().map(flip).collect()
}

fn rendered_policy(judged: &Judged) -> Value {
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
        "observed": judged.is_observed,
    })
}
