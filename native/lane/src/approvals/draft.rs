//! The record of a new approval: the facts about the call that a person is shown.

use authz_kernel::decision::{Decision, Principal, StepUp, Time};
use authz_kernel::hex::hex;
use authz_kernel::json::{self, Value};
use authz_kernel::model::{IgnoredPart, Model, Tier};
use authz_kernel::plan::Plan;
use authz_kernel::routes::Body;
use authz_kernel::task::approval::{
    Approval, ApprovalDestination, ApprovalEndorsement, ApprovalGround, ApprovalObject,
    ApprovalStatus, ApprovalValue, ApprovedCall, IgnoredValue, RememberedAnswer,
};
use authz_kernel::task::{MAX_ENDORSED, Task};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{AskedCall, StepUpCall};
use crate::judgement::Judgement;
use crate::locate::Located;
use crate::world::Loaded;

/// Longest life of an approval, in milliseconds.
const LONGEST_MS: i64 = 24 * 3_600 * 1_000;
/// Largest size of arguments that a person can be shown, in bytes.
const MAX_ARGUMENTS: usize = 64 * 1024;
/// Largest size of all other texts of a call that an approval keeps, in bytes.
const MAX_TEXTS: usize = 64 * 1024;

/// Source of a new approval: the call, its ids and the earlier records.
pub(crate) struct NewApproval<'a> {
    pub(crate) call: &'a StepUpCall,
    pub(crate) judgement: &'a Judgement,
    pub(crate) located: &'a Located,
    pub(crate) world: &'a Loaded,
    /// `<collection>/<id>`. `None` if the call does not act on a collection.
    pub(crate) resource: Option<String>,
    /// The previous approval of the same call.
    pub(crate) before: Option<&'a Approval>,
    /// The last approved call of the same pair and operation.
    pub(crate) last: Option<&'a RememberedAnswer>,
    /// Values of the approved calls of the task.
    pub(crate) earlier_values: Vec<String>,
}

impl NewApproval<'_> {
    /// Returns the record, or `None` if the call did not step up.
    pub(crate) fn record(self, now: Time) -> Option<Approval> {
        let Self { call, judgement, located, world, resource, before, last, earlier_values } = self;
        let decision = judgement.decision()?;
        let step_up = decision.step_up.as_deref()?;
        let task = &located.task;
        let plan = &world.plan;
        let deadline = located.path().map(|task| task.deadline).min().unwrap_or(task.deadline);
        let longest = Time(now.0.saturating_add(LONGEST_MS));
        let tier = effective_tier(decision);
        let operation = plan.operation(&decision.operation);
        let mut approval = Approval {
            id: call.approval.id.to_string(),
            generation: before.map_or(1, |before| before.generation.saturating_add(1)),
            status: ApprovalStatus::Open,
            task: task.id.clone(),
            session: task.session.clone(),
            in_task: task.kind.is_started(),
            template: task.template.clone(),
            purpose: task.purpose.clone(),
            subject: task.subject.clone(),
            agents: task.agents.clone(),
            pair: call.pair.clone(),
            operation: decision.operation.clone(),
            effects: operation.map_or_else(Vec::new, |operation| {
                operation.effects.iter().map(|effect| effect.as_str().to_owned()).collect()
            }),
            tier,
            resource: resource.unwrap_or_default(),
            destinations: destinations_of(step_up),
            objects: objects_of(step_up),
            unnamed: unnamed_of(step_up),
            endorses: endorses_of(step_up, task, &decision.operation),
            labels: step_up.labels.clone(),
            grounds: grounds_of(step_up),
            kinds: decision.kinds.clone(),
            queues: call.queues.clone(),
            needs_passkey: needs_passkey(judgement, plan),
            arguments: String::new(),
            ignored: call.ignored.clone(),
            cannot_be_shown: String::new(),
            digest: hex(&call.digest),
            decision_id: judgement.arrival.id.clone(),
            created_at: now,
            shown_at: None,
            expires_at: deadline.min(longest),
            good_until: None,
            answers: Vec::new(),
            last_approved: last.map(|last| ApprovedCall {
                arguments: last.arguments.clone(),
                at: last.at,
                by: last.by.clone(),
            }),
            earlier_values,
            rejects: call.rejected.id.to_string(),
            memory_ms: plan.roles().memory_of(task.assignee()).ms,
            rest: Default::default(),
        };
        match shown_arguments(decision) {
            Ok(arguments) => approval.arguments = arguments,
            Err(why) => approval.cannot_be_shown = why,
        }
        if step_up.is_cut {
            approval.cannot_be_shown = "it has too many values to show".to_owned();
        }
        let size = text_size(&approval);
        if size > MAX_TEXTS {
            approval.cannot_be_shown = format!(
                "destinations, values and ignored parts have {size} bytes, more than {MAX_TEXTS}"
            );
            approval.destinations.clear();
            approval.objects.clear();
            approval.unnamed.clear();
            approval.endorses = None;
            approval.ignored.clear();
        }
        Some(approval)
    }
}

/// Whether people answer a call with a passkey only: its tier is high, or an agent of its chain could use the browser or the shell of
/// the person who answers.
pub(crate) fn needs_passkey(judgement: &Judgement, plan: &Plan) -> bool {
    let has_controls = |principal: &Principal| match principal {
        Principal::Agent { spiffe_id, .. } => plan.roles().has_controls(spiffe_id),
        Principal::User(_) | Principal::Service(_) => false,
    };
    judgement.decision().is_none_or(|decision| effective_tier(decision) >= Tier::High)
        || judgement.caller.chain.iter().any(has_controls)
}

fn effective_tier(decision: &Decision) -> Tier {
    decision.tier.unwrap_or(Tier::Critical)
}

fn text_size(approval: &Approval) -> usize {
    let destinations =
        approval.destinations.iter().map(|one| one.value.len().saturating_add(one.host.len()));
    let objects =
        approval.objects.iter().map(|one| one.value.len().saturating_add(one.pointer.len()));
    let ignored =
        approval.ignored.iter().map(|one| one.value.len().saturating_add(one.place.len()));
    let unnamed = approval.unnamed.iter().map(|one| one.value.len());
    let entries = approval.destinations.len().saturating_add(approval.objects.len());
    let texts =
        destinations.chain(objects).chain(ignored).chain(unnamed).fold(0, usize::saturating_add);
    texts.saturating_add(entries.saturating_mul(64))
}

fn destinations_of(step_up: &StepUp) -> Vec<ApprovalDestination> {
    let shown = step_up.destinations.iter().map(|one| ApprovalDestination {
        value: one.value.clone(),
        class: one.class.clone(),
        host: one.host.clone(),
        recipient_list: one.recipient_list.clone(),
        origin: one.origin.as_str().to_owned(),
    });
    shown.collect()
}

fn objects_of(step_up: &StepUp) -> Vec<ApprovalObject> {
    let shown = step_up.objects.iter().map(|one| ApprovalObject {
        role: one.role.as_str().to_owned(),
        pointer: one.pointer.clone(),
        collection: one.collection.clone(),
        value: one.value.clone(),
        currency: one.currency.clone(),
        origin: one.origin.as_str().to_owned(),
    });
    shown.collect()
}

fn unnamed_of(step_up: &StepUp) -> Vec<ApprovalValue> {
    let unnamed = step_up.unnamed.iter().map(|one| ApprovalValue {
        role: one.role.as_str().to_owned(),
        collection: one.collection.clone(),
        value: one.value.clone(),
        fingerprint: one.fingerprint,
    });
    unnamed.collect()
}

/// The endorsement that all rules which hold the call allow together. `None`: a rule allows none, or no value can be endorsed.
fn endorses_of(step_up: &StepUp, task: &Task, operation: &str) -> Option<ApprovalEndorsement> {
    let has_values = !step_up.unnamed.is_empty() && step_up.unnamed.len() <= MAX_ENDORSED;
    // A call without a task has nothing that ends with it.
    if !task.kind.is_started() || !has_values || step_up.is_cut {
        return None;
    }
    let mut all = step_up.grounds.iter().map(|ground| ground.covers.clone());
    let first = all.next()??;
    let covers = all.try_fold(first, |covers, other| covers.intersection(&other?))?;
    let system = |id: &str| id.split_once('.').map(|(system, _)| system.to_owned());
    let is_of_system = covers.operations.iter().all(|id| system(id) == system(operation));
    is_of_system.then_some(ApprovalEndorsement {
        operations: covers.operations,
        uses: covers.uses,
        within_ms: covers.within_ms,
        until: None,
    })
}

fn grounds_of(step_up: &StepUp) -> Vec<ApprovalGround> {
    let shown = step_up.grounds.iter().map(|one| ApprovalGround {
        identity: one.identity.clone(),
        kind: one.kind.clone(),
        name: one.name.clone(),
        reason: one.reason.clone(),
        place: match one.at.file.as_str() {
            "" => String::new(),
            file => format!("{file}:{}", one.at.line),
        },
    });
    shown.collect()
}

/// Returns the arguments in the form that a person is shown.
///
/// # Errors
/// The reason why the arguments cannot be shown.
fn shown_arguments(decision: &Decision) -> Result<String, String> {
    let Some(arguments) = &decision.arguments else {
        return Err("its arguments cannot be read".to_owned());
    };
    let mut text = String::new();
    write_sorted(arguments.json(), &mut text);
    match text.len() {
        length if length > MAX_ARGUMENTS => {
            Err(format!("its arguments have {length} bytes, more than {MAX_ARGUMENTS}"))
        }
        _ => Ok(text),
    }
}

/// Appends JSON with sorted members (RFC 8785 §3.2.3). Numbers keep their written form, because a person approves their digits.
fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<&(String, Value)> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                json::write_string(name, out);
                out.push(':');
                write_sorted(member, out);
            }
            out.push('}');
        }
        scalar => scalar.write(out),
    }
}

/// Returns the parts of an HTTP request that its route ignores, in the order of the route. For an MCP endpoint, only the query.
pub(crate) fn ignored_parts(
    judgement: &Judgement,
    request: &AskedCall<'_>,
    model: &Model,
) -> Vec<IgnoredValue> {
    let Some((path, body)) = request.http else { return Vec::new() };
    let route = judgement.resolved.route.and_then(|route| model.routes.get(route));
    let Some(route) = route else { return Vec::new() };
    let (place, query) = path.split_once('?').unwrap_or((path, ""));
    let parsed = match body {
        Body::Whole(bytes) => json::parse(bytes, json::Limits::default()).ok(),
        Body::Absent | Body::Partial => None,
    };
    let mut ignored = Vec::new();
    let mut add = |place: String, value: String| ignored.push(IgnoredValue { place, value });
    let mut has_query = false;
    for part in &route.ignore {
        match &part.value {
            IgnoredPart::Path(name) => add(format!("path:{name}"), place.to_owned()),
            // The whole query, because a server may accept several spellings of a member.
            IgnoredPart::Query(_) => has_query = true,
            IgnoredPart::Json(pointer) => {
                if let Some(value) = parsed.as_ref().and_then(|body| body.pointer(pointer)) {
                    let mut text = String::new();
                    write_sorted(value, &mut text);
                    add(format!("json:{pointer}"), text);
                }
            }
            IgnoredPart::Body => {
                if let Body::Whole(bytes) = body {
                    match std::str::from_utf8(bytes) {
                        Ok(text) => add("body".to_owned(), text.to_owned()),
                        Err(_) => add("body:base64".to_owned(), STANDARD.encode(bytes)),
                    }
                }
            }
        }
    }
    if has_query && !query.is_empty() {
        for member in query.split('&') {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            add(format!("query:{name}"), value.to_owned());
        }
    }
    ignored
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn digits_are_shown_as_they_were_written() {
        let text = r#"{"b": 0.10000000000000000001, "a": [1, {"d": null, "c": "\u00e9"}]}"#;
        let value = json::parse(text.as_bytes(), json::Limits::default()).unwrap();
        let mut shown = String::new();
        write_sorted(&value, &mut shown);
        assert_eq!(r#"{"a":[1,{"c":"é","d":null}],"b":0.10000000000000000001}"#, shown);
    }
}
