//! Judges recorded decisions again, by another bundle.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decide::{
    Definitions, RecordedArguments, RecordedCall, RecordedCallFacts, RecordedChecks,
    RecordedDestination, RecordedPrincipal, RecordedProof, RecordedSession, RecordedTask,
    RecordedText, ReplayResult, ReplayedDecision, replay as judge_again,
};
use authz_kernel::decision::{Claim, Decision, Outcome, Principal, ReasonCode, Subject, Time};
use authz_kernel::hex::hex;
use authz_kernel::model::{Origin, OriginSets, Tier, ValueRole};
use authz_kernel::plan::Plan;
use authz_token::SpiffeId;
use serde_json::{Map, Value, json};

use crate::case_file::OutcomeWord;

/// Start of a digest in a record.
const DIGEST: &str = "sha256:";
/// Start of the digest of an erased text: nobody can compare a text with it.
const SALTED: &str = "salted:";
/// Pointer of the arguments in a record.
const ARGUMENTS: &str = "/input/arguments";
/// Reasons that only policies and the checks beside them give.
const BY_POLICIES: [ReasonCode; 11] = [
    ReasonCode::Permitted,
    ReasonCode::PolicyError,
    ReasonCode::Forbidden,
    ReasonCode::ChainNotPermitted,
    ReasonCode::NotPermitted,
    ReasonCode::TierRequirement,
    ReasonCode::ExceptionExpired,
    ReasonCode::ConfirmRequired,
    ReasonCode::ApprovalRequired,
    ReasonCode::ReauthRequired,
    ReasonCode::ProofRequired,
];
/// Reasons that follow from an approval, not from the bundle.
const OF_APPROVALS: [ReasonCode; 4] = [
    ReasonCode::ApprovalMismatch,
    ReasonCode::ApprovalExpired,
    ReasonCode::ApprovalRejected,
    ReasonCode::ApproverBusy,
];

/// Judges a record of a decision again.
///
/// Args:
/// * `against`: bundle whose answer the answer of `plan` is compared with. `None`: the recorded answer.
/// * `record`: line of an audit log; `now_ms`: its time, of the facts if they have one.
///
/// Returns: JSON of `{status, reason, message, missing, before, after, best, worst, is_exact, is_same_bundle, reproduced}`. `status`
/// is `replayed`, `open` or `not_replayed`.
///
/// # Errors
/// The line is not a record of a decision.
pub fn replay(
    plan: &Arc<Plan>,
    against: Option<&Arc<Plan>>,
    record: &[u8],
    now_ms: i64,
) -> Result<Vec<u8>, String> {
    let record: Value = serde_json::from_slice(record).map_err(|error| error.to_string())?;
    let record = AuditRecordReader(&record);
    let recorded = record.answer().ok_or("the record has no outcome and reason code")?;
    let answer = match record.judged_call(Time(now_ms)) {
        Err((reason, message)) => not_replayed(reason, &message, &recorded),
        Ok(call) => replayed(plan, against, &record, call, recorded),
    };
    Ok(answer.to_string().into_bytes())
}

fn not_replayed(reason: &str, message: &str, before: &Value) -> Value {
    json!({"status": "not_replayed", "reason": reason, "message": message, "before": before})
}

fn replayed(
    plan: &Arc<Plan>,
    against: Option<&Arc<Plan>>,
    record: &AuditRecordReader<'_>,
    call: RecordedCall,
    recorded: Value,
) -> Value {
    let others: Vec<&Plan> = against.into_iter().map(AsRef::as_ref).collect();
    let judged = |of: &Plan| {
        let call = RecordedCall { is_of_bundle: record.is_of(of), ..call.clone() };
        let mut all = others.clone();
        all.push(plan);
        judge_again(of, &call, record.definitions(of, &all))
    };
    let (before, reproduced) = match against {
        None => (recorded, Value::Null),
        Some(against) => {
            let again = judged(against);
            let reproduced = match &again {
                ReplayResult::Decided { decision, is_exact } if record.is_of(against) => {
                    Value::Bool(!is_exact || agrees(&recorded, &rendered(decision)))
                }
                ReplayResult::Decided { .. }
                | ReplayResult::Open { .. }
                | ReplayResult::Impossible { .. } => Value::Null,
            };
            match again {
                ReplayResult::Decided { decision, .. } => (rendered(&decision), reproduced),
                // The bundle that judged gave the recorded answer.
                ReplayResult::Open { .. } | ReplayResult::Impossible { .. }
                    if record.is_of(against) =>
                {
                    (recorded, Value::Null)
                }
                ReplayResult::Open { missing, .. } => {
                    let message =
                        format!("the answer of the old bundle depends on {}", missing.join(", "));
                    return not_replayed("facts_missing_in_old", &message, &recorded);
                }
                ReplayResult::Impossible { kind, message } => {
                    return not_replayed(
                        kind.as_str(),
                        &format!("in the old bundle: {message}"),
                        &recorded,
                    );
                }
            }
        }
    };
    let is_same_bundle = record.is_of(plan);
    match judged(plan) {
        ReplayResult::Decided { decision, is_exact } => json!({
            "status": "replayed",
            "before": before,
            "after": rendered(&decision),
            "is_exact": is_exact,
            "is_same_bundle": is_same_bundle,
            "reproduced": reproduced,
        }),
        ReplayResult::Open { best, worst, missing } => json!({
            "status": "open",
            "reason": "facts_missing",
            "message": format!("the answer depends on {}", missing.join(", ")),
            "missing": missing,
            "before": before,
            "best": rendered(&best),
            "worst": rendered(&worst),
            "is_same_bundle": is_same_bundle,
        }),
        ReplayResult::Impossible { kind, message } => {
            not_replayed(kind.as_str(), &message, &before)
        }
    }
}

/// Whether two answers are equal in all that a caller or an auditor sees.
fn agrees(one: &Value, two: &Value) -> bool {
    ["outcome", "reason_code", "enforced", "tier", "step_up_kinds", "policies"]
        .iter()
        .all(|name| one.get(*name) == two.get(*name))
}

fn rendered(replayed: &ReplayedDecision) -> Value {
    let decision: &Decision = &replayed.decision;
    json!({
        "outcome": OutcomeWord::from(decision.outcome).as_str(),
        "reason_code": decision.reason.as_str(),
        "enforced": !replayed.is_softened,
        "tier": decision.tier.map_or("", Tier::as_str),
        "step_up_kinds": decision.kinds,
        "policies": decision.policies,
        "policies_sha256": decision.policy_digests.iter().map(|digest| hex(digest)).collect::<Vec<_>>(),
        "obligations": decision.obligations,
        "message": decision.message,
    })
}

/// Members of a record. A missing member, or one of another type, reads as absent.
struct AuditRecordReader<'a>(&'a Value);

type NotJudged = (&'static str, String);

impl<'a> AuditRecordReader<'a> {
    fn at(&self, pointer: &str) -> Option<&'a Value> {
        self.0.pointer(pointer)
    }

    fn text(&self, pointer: &str) -> &'a str {
        self.at(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    fn texts(&self, pointer: &str) -> Vec<String> {
        self.at(pointer).map(texts_of).unwrap_or_default()
    }

    fn bundle(&self, member: &str) -> &'a str {
        let bundles = self.at("/bundles").and_then(Value::as_object);
        let first = bundles.and_then(|bundles| bundles.values().next());
        first.and_then(|first| first.get(member)).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the bundle judged the call.
    fn is_of(&self, plan: &Plan) -> bool {
        self.bundle("digest") == hex(&plan.digest())
    }

    /// Knowledge about the bundle in which the facts were found, for a bundle that judges them again.
    fn definitions<'p>(&self, plan: &Plan, all: &[&'p Plan]) -> Definitions<'p> {
        let recorded = self.bundle("facts_digest");
        let is_of = |of: &Plan| self.is_of(of) || recorded == hex(&of.model().facts_digest);
        if is_of(plan) {
            return Definitions::Same;
        }
        match all.iter().find(|other| is_of(other)) {
            Some(other) => Definitions::Of(other),
            None => Definitions::Unknown,
        }
    }

    /// The recorded answer. `None`: the record is not of a decision.
    fn answer(&self) -> Option<Value> {
        let outcome = self.at("/result/outcome")?.as_str()?;
        Some(json!({
            "outcome": outcome,
            "reason_code": self.at("/result/reason_code")?.as_str()?,
            "enforced": self.at("/result/enforced") != Some(&Value::Bool(false)),
            "tier": self.text("/result/tier"),
            "step_up_kinds": self.texts("/result/step_up_kinds"),
            "policies": self.texts("/result/policies"),
            "policies_sha256": self.texts("/result/policies_sha256"),
            "obligations": self.texts("/result/obligations"),
            "message": self.text("/result/message"),
        }))
    }

    /// The call, if policies judged it and the record has their facts.
    fn judged_call(&self, now: Time) -> Result<RecordedCall, NotJudged> {
        let code = self.text("/result/reason_code");
        let is_judged = reason_of(code).is_some_and(|reason| BY_POLICIES.contains(&reason));
        let no_facts = || match self.text("/result/step") {
            "judge" if is_judged => ("no_facts", "the record has no facts".to_owned()),
            step => ("not_judged", format!("{code}: the call stopped before policies ({step})")),
        };
        let facts = self.at("/input/facts").and_then(Value::as_object).ok_or_else(no_facts)?;
        if self.text("/result/step") != "judge" {
            return Err(("stopped_later", format!("{code}: the call stopped after judging")));
        }
        let reason = reason_of(code).ok_or_else(|| {
            ("unknown_code", format!("a later version wrote the reason code {code}"))
        })?;
        if OF_APPROVALS.contains(&reason) {
            return Err(("of_approval", format!("{code}: the outcome follows from an approval")));
        }
        let outcome = match self.text("/result/outcome") {
            "PERMIT" => Outcome::Permit,
            "STEP_UP" => Outcome::StepUp,
            "DENY" => Outcome::Deny,
            other => {
                return Err(("unknown_code", format!("a later version wrote the outcome {other}")));
            }
        };
        let unreadable = |what: &str| ("facts_unreadable", format!("{what} cannot be read"));
        let tier = tier_of(self.text("/result/tier")).ok_or_else(|| unreadable("result.tier"))?;
        let chain = self.chain().ok_or_else(|| unreadable("input.chain"))?;
        let checks = self.checks().map_err(unreadable)?;
        let mut facts_read =
            read_facts(facts).map_err(|key| unreadable(&format!("input.facts.{key}")))?;
        // A policy that reads only the uncleared labels was judged for each destination, too.
        let class = self.text("/input/destination_class");
        if facts.contains_key("uncleared_labels") && !class.is_empty() {
            facts_read.destination.get_or_insert_with(|| RecordedDestination {
                class: class.to_owned(),
                is_present: true,
                ..RecordedDestination::default()
            });
        }
        let has_subject = chain.iter().any(|one| !matches!(one.principal, Principal::Agent { .. }));
        Ok(RecordedCall {
            operation: self.text("/input/operation").to_owned(),
            chain,
            now,
            arguments: self.arguments(),
            resource: self.text("/input/resource").to_owned(),
            destination_class: self.text("/input/destination_class").to_owned(),
            labels: self.texts("/input/labels"),
            enforcer: self.text("/input/enforcer").to_owned(),
            task: self.task(facts),
            subject_proof: self.subject_proof(facts, has_subject),
            tier,
            policies: self.texts("/result/policies"),
            is_of_bundle: false,
            obligations: self.texts("/result/obligations"),
            outcome,
            sequences: self.texts("/input/sequences"),
            budgets: self.texts("/input/budgets"),
            session: self.session(facts),
            checks,
            facts: facts_read,
        })
    }

    fn chain(&self) -> Option<Vec<RecordedPrincipal>> {
        let links = self.at("/input/chain")?.as_array()?;
        links.iter().map(principal_of).collect()
    }

    /// The arguments, with the members that are not in clear.
    fn arguments(&self) -> RecordedArguments {
        let Some(arguments) = self.at(ARGUMENTS).filter(|value| value.is_object()) else {
            return RecordedArguments::default();
        };
        let masked = self.texts("/masked");
        let pointers = masked.iter().filter_map(|pointer| pointer.strip_prefix(ARGUMENTS));
        let masked = pointers.map(|pointer| {
            let mut names = Vec::new();
            let mut value = Some(arguments);
            for token in pointer.split('/').skip(1) {
                // A set of Cedar has no positions: one masked item makes the set unknown.
                if value.is_some_and(Value::is_array) {
                    return (names, None);
                }
                let name = token.replace("~1", "/").replace("~0", "~");
                value = value.and_then(|value| value.get(&name));
                names.push(name);
            }
            let digest = value.and_then(Value::as_str).and_then(|text| text.strip_prefix(DIGEST));
            (names, digest.map(str::to_owned))
        });
        let mut masked: Vec<_> = masked.collect();
        add_erased(arguments, &mut Vec::new(), &mut masked);
        RecordedArguments { masked, json: Some(arguments.to_string().into_bytes()) }
    }

    fn task(&self, facts: &Map<String, Value>) -> Option<RecordedTask> {
        let kind = self.at("/input/task/kind")?.as_str()?;
        let read = facts.get("task");
        let number = |name: &str| read.and_then(|task| task.get(name)).and_then(Value::as_i64);
        Some(RecordedTask {
            kind: kind.to_owned(),
            template: self.text("/input/task/template").to_owned(),
            purpose: read.and_then(|task| task.get("purpose")).and_then(text_of),
            depth: number("depth").or_else(|| self.at("/input/task/depth")?.as_i64()),
            age: number("age"),
            assignee: self.text("/input/task/assignee").to_owned(),
        })
    }

    fn subject_proof(&self, facts: &Map<String, Value>, has_subject: bool) -> String {
        let read = facts.get("subject_proof").and_then(Value::as_str);
        let of_task = self.at("/input/task/subject_proof").and_then(Value::as_str);
        let checked = self.at("/input/checks/subject_proof").and_then(Value::as_str);
        let by_chain = if has_subject { "verified" } else { "self" };
        read.or(checked).or(of_task).unwrap_or(by_chain).to_owned()
    }

    fn session(&self, facts: &Map<String, Value>) -> Option<RecordedSession> {
        let session = self.at("/input/session")?.as_object()?;
        let names = |name: &str| -> Vec<String> {
            let labels = session.get(name).and_then(Value::as_object);
            labels.into_iter().flat_map(Map::keys).cloned().collect()
        };
        let read = facts.get("session");
        let number = |name: &str| {
            let of_facts = read.and_then(|session| session.get(name));
            of_facts.or_else(|| session.get(name)).and_then(Value::as_i64).unwrap_or(0)
        };
        Some(RecordedSession {
            labels: names("labels"),
            sources: number("sources"),
            calls: number("calls"),
            remembered: names("remembered"),
            written: names("written"),
            denials: u32::try_from(number("denials")).unwrap_or(u32::MAX),
        })
    }

    fn checks(&self) -> Result<Option<RecordedChecks>, &'static str> {
        let Some(checks) = self.at("/input/checks") else { return Ok(None) };
        let checks = checks.as_object().ok_or("input.checks")?;
        let refused = match checks.get("refused") {
            None => None,
            Some(code) => Some(code.as_str().and_then(reason_of).ok_or("input.checks.refused")?),
        };
        let confidence = checks.get("confidence").and_then(Value::as_u64).unwrap_or(0);
        let texts = |name: &str| checks.get(name).map(texts_of).unwrap_or_default();
        Ok(Some(RecordedChecks {
            satisfied: texts("satisfied"),
            age: checks.get("age").and_then(Value::as_i64),
            confidence: u8::try_from(confidence).unwrap_or(100),
            refused,
            held: texts("held"),
            unsupported: checks.get("unsupported").and_then(Value::as_str).map(str::to_owned),
        }))
    }
}

/// Adds the members of arguments of which the text was erased.
// Recursion is bounded by the reader of the record.
fn add_erased(
    value: &Value,
    path: &mut Vec<String>,
    masked: &mut Vec<(Vec<String>, Option<String>)>,
) {
    match value {
        Value::String(text) if text.starts_with(SALTED) => masked.push((path.clone(), None)),
        // A set of Cedar has no positions: one erased item makes the set unknown.
        Value::Array(items) if items.iter().any(has_erased) => masked.push((path.clone(), None)),
        Value::Object(members) => {
            for (name, member) in members {
                path.push(name.clone());
                add_erased(member, path, masked);
                path.pop();
            }
        }
        _ => {}
    }
}

fn has_erased(value: &Value) -> bool {
    match value {
        Value::String(text) => text.starts_with(SALTED),
        Value::Array(items) => items.iter().any(has_erased),
        Value::Object(members) => members.values().any(has_erased),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn reason_of(code: &str) -> Option<ReasonCode> {
    ReasonCode::ALL.into_iter().find(|reason| reason.as_str() == code)
}

fn tier_of(word: &str) -> Option<Tier> {
    [Tier::Low, Tier::Standard, Tier::High, Tier::Critical]
        .into_iter()
        .find(|tier| tier.as_str() == word)
}

fn texts_of(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text_of(value: &Value) -> Option<RecordedText> {
    let text = value.as_str()?;
    Some(match text.strip_prefix(DIGEST) {
        Some(digest) => RecordedText::Digest(digest.to_owned()),
        None => RecordedText::Clear(text.to_owned()),
    })
}

fn principal_of(link: &Value) -> Option<RecordedPrincipal> {
    let id = link.get("id")?.as_str()?;
    let kind = link.get("kind")?.as_str()?;
    let principal = match kind {
        "Agent" => {
            let id = SpiffeId::parse(id).ok()?;
            let trust_domain = id.trust_domain().to_owned();
            Principal::Agent { spiffe_id: id.as_str().to_owned(), trust_domain }
        }
        "User" | "Service" => {
            let (issuer, sub) = id.split_once('/')?;
            let claims = link.get("claims").and_then(Value::as_object);
            let claims: BTreeMap<String, Claim> = claims
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), claim_of(value)?)))
                .collect();
            let subject = Arc::new(Subject {
                issuer: issuer.to_owned(),
                sub: sub.to_owned(),
                claims,
                ..Subject::default()
            });
            if kind == "User" { Principal::User(subject) } else { Principal::Service(subject) }
        }
        _ => return None,
    };
    // A list of 64 may be cut.
    let roles = link.get("roles").filter(|roles| roles.is_array()).map(texts_of);
    Some(RecordedPrincipal { principal, roles: roles.filter(|roles| roles.len() < 64) })
}

fn claim_of(value: &Value) -> Option<Claim> {
    Some(match value {
        Value::Bool(value) => Claim::Bool(*value),
        Value::Number(number) => Claim::Long(number.as_i64()?),
        Value::String(text) => Claim::Text(text.clone()),
        Value::Array(_) => Claim::Texts(texts_of(value)),
        Value::Null | Value::Object(_) => return None,
    })
}

fn destination_of(value: &Value) -> Option<RecordedDestination> {
    Some(RecordedDestination {
        class: value.get("class")?.as_str()?.to_owned(),
        is_present: value.get("present")?.as_bool()?,
        is_trusted: Some(value.get("trusted")?.as_bool()?),
        host: match value.get("host")?.as_str()?.starts_with(SALTED) {
            true => None,
            false => text_of(value.get("host")?),
        },
    })
}

fn origins_of(value: &Value) -> Option<OriginSets> {
    let mut sets = OriginSets::EMPTY;
    for role in ValueRole::ALL {
        for word in value.get(role.as_str())?.as_array()? {
            sets.insert(role, Origin::parse(word.as_str()?)?);
        }
    }
    Some(sets)
}

/// The facts that policies could read.
///
/// # Errors
/// The key of a fact that has not its form: somebody changed the record, or a later version wrote it.
fn read_facts(facts: &Map<String, Value>) -> Result<RecordedCallFacts, &'static str> {
    fn read<T>(
        facts: &Map<String, Value>,
        key: &'static str,
        of: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, &'static str> {
        facts.get(key).map(|value| of(value).ok_or(key)).transpose()
    }
    let names = |value: &Value| {
        let items = value.as_array()?;
        items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    };
    let others = |value: &Value| {
        let items = value.as_array()?.iter();
        items.map(|item| destination_of(item.get("destination")?)).collect::<Option<Vec<_>>>()
    };
    Ok(RecordedCallFacts {
        destination: read(facts, "destination", destination_of)?,
        other_destinations: read(facts, "other_destinations", others)?.unwrap_or_default(),
        origins: read(facts, "origins", origins_of)?,
        unknown_literals: read(facts, "literals", |value| value.get("unknown")?.as_i64())?,
        proof: read(facts, "proof", |value| {
            Some(RecordedProof {
                method: value.get("method")?.as_str()?.to_owned(),
                is_bound: value.get("bound")?.as_bool()?,
                age: value.get("age")?.as_i64()?,
                acr: value.get("acr")?.as_str()?.to_owned(),
            })
        })?,
        session_labels: read(facts, "session", |value| names(value.get("labels")?))?,
        remembered: read(facts, "remembered", names)?,
        has_sequences: read(facts, "sequences", names)?.is_some(),
        has_budgets: read(facts, "budgets", names)?.is_some(),
        exceptions: read(facts, "exception", names)?,
    })
}
