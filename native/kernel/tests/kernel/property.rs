//! Ours against Cedar's own `Authorizer` over the whole set, principal by principal.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::str::FromStr as _;

use authz_kernel::decide::{Prospects, decide_traced};
use authz_kernel::decision::{
    CallerProof, Facts, Outcome, PolicyEffect, Principal, ProofMethod, ReasonCode, Request, Verdict,
};
use authz_kernel::history::HistoryView;
use authz_kernel::mcp::ServerTask;
use authz_kernel::task::{TaskView, WordRecords, taskless};
use cedar_policy::{
    Authorizer, Context, Decision, Effect, Entities, EntityUid, Policy, PolicyId, PolicySet, Schema,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;

use crate::common::{NOTHING, NOW, alice, bot, compile, model};

/// Policy sets, and requests for each: 10,000 cases.
const SETS: u32 = 250;
const REQUESTS: usize = 40;

const PRINCIPALS: &[&str] = &[
    "principal",
    "principal",
    "principal",
    "principal in Role::\"staff\"",
    "principal in Role::\"support-agent\"",
    "principal is Agent",
    "principal is User",
    "principal is User in Role::\"staff\"",
    "principal == Agent::\"spiffe://a.example/ns/support/sa/bot\"",
    "principal == User::\"corp/bob\"",
];
const ACTIONS: &[&str] = &[
    "action",
    "action",
    "action",
    "action == Action::\"crm.refund\"",
    "action in Action::\"system:crm\"",
    "action in Action::\"effect:read\"",
    "action in [Action::\"effect:export\", Action::\"crm.get\", Action::\"system:mail\"]",
    "action in [Action::\"effect:read\", Action::\"system:crm\"]",
    "action == Action::\"mail.send\"",
];
/// With an action part that leaves each possible.
const RESOURCES: &[(&str, &str)] = &[
    ("resource in Collection::\"customers\"", "action in Action::\"system:crm\""),
    ("resource == Resource::\"customers/gold/1\"", "action == Action::\"crm.get\""),
    ("resource is Resource in System::\"crm\"", "action"),
    ("resource == System::\"mail\"", "action in Action::\"system:mail\""),
    ("resource in System::\"crm\"", "action"),
];
/// Conditions with the action that they want; empty: any.
const CONDITIONS: &[(&str, &str)] = &[
    ("context.tier < 1", ""),
    ("context.tier >= 2", ""),
    ("context.chain.depth == 2", ""),
    ("context.chain.agents.contains(Agent::\"spiffe://a.example/ns/support/sa/bot\")", ""),
    ("context.chain.subject", ""),
    ("principal in Role::\"staff\"", ""),
    ("principal is Agent && principal.trust_domain == \"a.example\"", ""),
    ("principal is User && principal.sub like \"a*\"", ""),
    ("resource is Resource && resource.labels.contains(Label::\"vip\")", ""),
    ("resource is Resource && resource.id like \"gold/*\"", ""),
    ("resource in Collection::\"customers\"", ""),
    ("action in Action::\"effect:export\"", ""),
    ("action in [Action::\"crm.get\", Action::\"effect:write\"]", ""),
    ("context.destination.class == DestinationClass::\"external\"", ""),
    ("context.destination.present && context.destination.host like \"*.example\"", ""),
    ("context.origins.recipient.isEmpty()", ""),
    ("context.origins.target.isEmpty() && context.literals.unknown < 2", ""),
    ("context.proof.bound || context.proof.age > 100", ""),
    ("context.proof.acr == \"strong\"", ""),
    ("context.satisfied.contains(Kind::\"bound_token\")", ""),
    ("context.time > datetime(\"2026-01-01\")", ""),
    ("context.time.toTime() < duration(\"1h\")", ""),
    ("context.enforcer == \"envoy\"", ""),
    ("context.subject_proof == SubjectProof::\"self\"", ""),
    ("context.input.amount > 500", "crm.refund"),
    ("context.input has price && context.input.price.greaterThan(decimal(\"9.5\"))", "crm.refund"),
    ("context.input has note && context.input.note like \"*x*\"", "crm.refund"),
    ("context.input has \"odd name\" && context.input[\"odd name\"]", "crm.refund"),
    ("context.input has extra && context.input.extra == {}", "crm.refund"),
    ("context.input has to && context.input.to.contains(\"a@corp.example\")", "mail.send"),
    ("context.input has query && context.input.query == \"all\"", ""),
    // These fail, always or for some requests.
    ("context.chain.depth + 9223372036854775807 > 0", ""),
    ("context.tier + 9223372036854775807 > 0", ""),
    ("context.proof.age * 1000000000000000000 > 5", ""),
    ("context.input.amount * 9223372036854775807 > 0", "crm.refund"),
    ("context.chain.depth * 9223372036854775807 + 2 > 0", ""),
    ("context.proof.age - 9223372036854775807 - 9223372036854775807 > 0", ""),
    ("(context.tier == 0 || context.chain.depth * 9223372036854775807 > 1)", ""),
];

fn policy() -> impl Strategy<Value = (bool, usize, usize, usize, Vec<(usize, bool)>, bool)> {
    let conditions = prop::collection::vec((0..CONDITIONS.len(), any::<bool>()), 0..3);
    // Two in three are permits; one in three has a resource part.
    (
        prop::bool::weighted(0.6),
        0..PRINCIPALS.len(),
        0..ACTIONS.len(),
        0..RESOURCES.len().saturating_mul(3),
        conditions,
        prop::bool::weighted(0.3),
    )
}

fn text(id: usize, parts: &(bool, usize, usize, usize, Vec<(usize, bool)>, bool)) -> String {
    let (permit, principal, action, resource, conditions, stepup) = parts;
    let (mut action, mut resource_text) = (ACTIONS[*action], "resource");
    if let Some((text, with)) = RESOURCES.get(*resource) {
        (resource_text, action) = (text, with);
    }
    let mut body: Vec<String> = Vec::new();
    for (index, negated) in conditions {
        let (condition, wants) = CONDITIONS[*index];
        if !wants.is_empty() {
            action = if wants == "crm.refund" {
                "action == Action::\"crm.refund\""
            } else {
                "action == Action::\"mail.send\""
            };
            resource_text = "resource";
        }
        body.push(if *negated { format!("!({condition})") } else { condition.to_owned() });
    }
    // An argument that the final action lacks would rightly be refused.
    for (index, _) in conditions {
        let wants = CONDITIONS[*index].1;
        if !wants.is_empty() && !action.contains(wants) {
            body.clear();
        }
    }
    if body.iter().any(|b| b.contains("input has query")) && action.contains("==")
        || body.iter().any(|b| b.contains("input has query")) && action.contains("mail")
    {
        body.clear();
    }
    let when =
        if body.is_empty() { String::new() } else { format!(" when {{ {} }}", body.join(" && ")) };
    let stepup = *stepup && !*permit;
    let (note, unless) = if stepup {
        (
            "@stepup(\"bound_token\") ",
            " unless { context.satisfied.contains(Kind::\"bound_token\") }",
        )
    } else {
        ("", "")
    };
    format!(
        "@id(\"p{id}\") {note}{}({}, {action}, {resource_text}){when}{unless};\n",
        if *permit { "permit" } else { "forbid" },
        PRINCIPALS[*principal]
    )
}

#[derive(Clone, Debug)]
struct Ask {
    operation: usize,
    variant: usize,
    chain: usize,
    bound: bool,
    age: Option<i64>,
    strong: bool,
}

fn asks() -> impl Strategy<Value = Ask> {
    (
        0..6_usize,
        0..5_usize,
        0..5_usize,
        any::<bool>(),
        prop_oneof![Just(None), Just(Some(0)), Just(Some(5)), Just(Some(1000))],
        any::<bool>(),
    )
        .prop_map(|(operation, variant, chain, bound, age, strong)| Ask {
            operation,
            variant,
            chain,
            bound,
            age,
            strong,
        })
}

/// Operation, arguments as sent, arguments as policies see them, resource id.
type Shape = (&'static str, serde_json::Value, serde_json::Value, &'static str);

/// Classes and hosts of a request's destinations; one of class `none` where it has none.
fn places(ask: &Ask) -> &'static [(&'static str, &'static str)] {
    const INTERNAL: (&str, &str) = ("internal", "corp.example");
    match (ask.operation, ask.variant) {
        (4, 0) => &[INTERNAL],
        (4, 1) => &[INTERNAL, ("external", "x.example")],
        (4, 2) => &[("external", "")],
        (4, 3) => &[("external", "y.test")],
        (4, 4) => &[("external", "y.test"), ("external", "x.example"), INTERNAL],
        _ => &[("none", "")],
    }
}

fn shape(ask: &Ask) -> Shape {
    // Only mail has a fifth variant.
    let ask = &Ask {
        variant: if ask.operation == 4 { ask.variant } else { ask.variant % 4 },
        ..ask.clone()
    };
    let id = ["1", "gold/1", "gold/2", "x/y"][ask.variant % 4];
    let amount = [1, 400, 501, 9_000_000][ask.variant % 4];
    match ask.operation {
        0 => ("crm.get", json!({"id": id}), json!({"id": id}), id),
        1 => {
            let query = ["all", "some", "", "x"][ask.variant];
            ("crm.search", json!({"query": query}), json!({"query": query}), "")
        }
        2 => {
            let (sent, seen) = [
                (json!({}), json!({})),
                (json!({"price": 9.75, "note": "x"}), json!({"price": "9.7500", "note": "x"})),
                (json!({"odd name": true, "extra": {"__entity": {"type": "Role", "id": "staff"}}}), json!({"odd name": true, "extra": {}})),
                (json!({"price": 3, "odd name": false, "note": null}), json!({"price": "3.0", "odd name": false})),
            ][ask.variant].clone();
            let merge = |mut value: serde_json::Value| {
                value["id"] = json!(id);
                value["amount"] = json!(amount);
                value
            };
            ("crm.refund", merge(sent), merge(seen), id)
        }
        3 => ("crm.delete", json!({"id": id}), json!({"id": id}), id),
        4 => {
            let to = [
                json!(["a@corp.example"]),
                json!(["a@corp.example", "b@x.example"]),
                json!([]),
                json!(["c@y.test"]),
                json!(["c@y.test", "b@x.example", "d@y.test", "a@corp.example"]),
            ][ask.variant]
                .clone();
            ("mail.send", json!({"to": to}), json!({"to": to}), "")
        }
        _ => ("mail.status", json!({}), json!({}), ""),
    }
}

fn chain(index: usize) -> Vec<Principal> {
    let other = Principal::Agent {
        spiffe_id: "spiffe://b.example/x".to_owned(),
        trust_domain: "b.example".to_owned(),
    };
    match index {
        0 => vec![bot()],
        1 => vec![alice()],
        2 => vec![alice(), bot()],
        3 => vec![alice(), other],
        _ => vec![alice(), other, bot()],
    }
}

fn uid(principal: &Principal) -> (String, serde_json::Value, &'static str, &'static str) {
    match principal {
        Principal::Agent { spiffe_id, trust_domain } => {
            let role = if spiffe_id.contains("/ns/support/sa/") { "support-agent" } else { "" };
            (
                spiffe_id.clone(),
                json!({"spiffe_id": spiffe_id, "trust_domain": trust_domain}),
                "Agent",
                role,
            )
        }
        Principal::User(subject) | Principal::Service(subject) => {
            let id = format!("{}/{}", subject.issuer, subject.sub);
            (id, json!({"issuer": subject.issuer, "sub": subject.sub}), "User", "staff")
        }
    }
}

struct Oracle {
    schema: Schema,
    all: PolicySet,
    permits: PolicySet,
}

struct Judged {
    permits: BTreeSet<String>,
    /// Known only where one fired.
    forbids: BTreeSet<String>,
    failed: BTreeSet<String>,
    allow: bool,
}

impl Oracle {
    fn new(schema: &str, text: &str) -> Self {
        let (mut all, mut permits) = (PolicySet::new(), PolicySet::new());
        for policy in PolicySet::from_str(text).unwrap().policies() {
            let id = PolicyId::new(policy.annotation("id").unwrap());
            let policy: Policy = policy.new_id(id);
            if policy.effect() == Effect::Permit {
                permits.add(policy.clone()).unwrap();
            }
            all.add(policy).unwrap();
        }
        Self { schema: Schema::from_str(schema).unwrap(), all, permits }
    }

    /// What came of each policy over all destinations: each is judged alone, what failed for one failed, a permit
    /// fired where it fired for all, and a forbid where it fired for one.
    fn judge(&self, ask: &Ask, chain: &[Principal], principal: &Principal, tier: i64) -> Judged {
        let each =
            places(ask).iter().map(|place| self.judge_one(ask, *place, chain, principal, tier));
        let mut all = each
            .reduce(|one, other| Judged {
                permits: &one.permits & &other.permits,
                forbids: &one.forbids | &other.forbids,
                failed: &one.failed | &other.failed,
                allow: false,
            })
            .unwrap();
        if places(ask).len() > 1 {
            all.permits = &all.permits - &all.failed;
            all.forbids = &all.forbids - &all.failed;
            all.allow = all.forbids.is_empty() && !all.permits.is_empty();
        }
        all
    }

    fn judge_one(
        &self,
        ask: &Ask,
        (class, host): (&str, &str),
        chain: &[Principal],
        principal: &Principal,
        tier: i64,
    ) -> Judged {
        let (operation, _, seen, id) = shape(ask);
        let action = EntityUid::from_str(&format!("Action::\"{operation}\"")).unwrap();
        let subject = chain.iter().any(|principal| matches!(principal, Principal::User(_)));
        let agents: Vec<_> = chain
            .iter()
            .filter(|p| matches!(p, Principal::Agent { .. }))
            .map(|p| json!({"type": "Agent", "id": uid(p).0}))
            .collect();
        let mut satisfied = Vec::new();
        if ask.bound {
            satisfied.push(json!({"type": "Kind", "id": "bound_token"}));
        }
        let of = |kind: &str, id: &str| json!({"type": kind, "id": id});
        let context = json!({
            "input": seen, "tier": tier,
            "task": {"kind": of("TaskKind", "none"), "template": of("Template", "none"), "purpose": "", "depth": 0, "age": 0},
            "subject_proof": of("SubjectProof", if subject { "verified" } else { "self" }),
            "chain": {"depth": chain.len(), "agents": agents, "subject": subject},
            "enforcer": "envoy", "confidence": 0,
            "destination": {"class": of("DestinationClass", class), "trusted": false, "host": host, "present": operation == "mail.send"},
            "origins": {"recipient": if operation == "mail.send" { vec![of("Origin", "unknown")] } else { vec![] }, "target": [], "amount": [], "command": [], "credential": []},
            "literals": {"unknown": seen.get("to").and_then(|to| to.as_array()).map_or(0, Vec::len)},
            "proof": {"method": of("ProofMethod", "jwt-svid"), "bound": ask.bound, "age": ask.age.unwrap_or(1 << 53), "acr": if ask.strong { "strong" } else { "" }},
            "satisfied": satisfied, "time": "2026-11-25T00:00:00Z",
            "session": {"labels": [], "sources": 0, "calls": 0}, "uncleared_labels": [], "remembered": [], "sequences": [], "budgets": [],
            "exception": [],
        });
        let context = Context::from_json_value(context, Some((&self.schema, &action))).unwrap();
        let mut entities = Vec::new();
        for one in chain {
            let (id, attrs, kind, role) = uid(one);
            let parents: Vec<_> = if role.is_empty() { vec![] } else { vec![of("Role", role)] };
            entities.push(json!({"uid": of(kind, &id), "attrs": attrs, "parents": parents}));
        }
        let resource = if operation.starts_with("crm.") {
            let whole = id.is_empty();
            let name = if whole { "customers".to_owned() } else { format!("customers/{id}") };
            let labels: Vec<_> =
                if whole || id.starts_with("gold/") { vec!["pii", "vip"] } else { vec!["pii"] };
            let labels: Vec<_> = labels.into_iter().map(|label| of("Label", label)).collect();
            entities
                .push(json!({"uid": of("Resource", &name), "attrs": {"labels": labels, "id": id},
                "parents": [of("Collection", "customers"), of("System", "crm")]}));
            format!("Resource::\"{name}\"")
        } else {
            "System::\"mail\"".to_owned()
        };
        let entities = Entities::from_json_value(json!(entities), Some(&self.schema)).unwrap();
        let (id, _, kind, _) = uid(principal);
        let request = cedar_policy::Request::new(
            EntityUid::from_str(&format!("{kind}::\"{id}\"")).unwrap(),
            action,
            EntityUid::from_str(&resource).unwrap(),
            context,
            Some(&self.schema),
        )
        .unwrap();
        let authorizer = Authorizer::new();
        let whole = authorizer.is_authorized(&request, &self.all, &entities);
        let permits = authorizer.is_authorized(&request, &self.permits, &entities);
        let ids = |response: &cedar_policy::Response| {
            response.diagnostics().reason().map(ToString::to_string).collect::<BTreeSet<_>>()
        };
        let failed = whole.diagnostics().errors().map(|error| match error {
            cedar_policy::AuthorizationError::PolicyEvaluationError(error) => {
                error.policy_id().to_string()
            }
        });
        Judged {
            permits: ids(&permits),
            forbids: if whole.decision() == Decision::Deny { ids(&whole) } else { BTreeSet::new() },
            failed: failed.collect(),
            allow: whole.decision() == Decision::Allow,
        }
    }
}

#[test]
fn ours_equals_the_authorizer_over_the_whole_set_but_for_the_rule_of_errors() {
    let (cases, permitted, forbidden, failing) =
        (Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u32));
    let unlisted = Cell::new(0_u32);
    let count = |cell: &Cell<u32>| cell.set(cell.get() + 1);
    let config = Config {
        cases: SETS,
        max_global_rejects: 4096,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let strategy = (prop::collection::vec(policy(), 1..9), prop::collection::vec(asks(), REQUESTS));
    let result = runner.run(&strategy, |(policies, asks)| {
        // Half of the sets have a broad permit, as bundles do.
        let mut text: String =
            policies.iter().enumerate().map(|(id, parts)| self::text(id, parts)).collect();
        if policies.len() % 2 == 0 {
            text.push_str("@id(\"all\") permit(principal, action, resource);\n");
        }
        let mut model = model(&text);
        for tier in &mut model.tiers {
            *tier = authz_kernel::model::TierRequirements::default();
        }
        let tiers: HashMap<String, i64> =
            model.operations.iter().map(|o| (o.id.clone(), o.tier as i64)).collect();
        let Ok(plan) = compile(model, None) else {
            // Some combinations can never match, and are rightly refused.
            return Err(TestCaseError::reject("refused"));
        };
        let oracle = Oracle::new(&plan.cedar_schema(), &text);
        for ask in &asks {
            let chain = chain(ask.chain);
            let (operation, sent, ..) = shape(ask);
            let sent = sent.to_string();
            let own = taskless(&chain, "").unwrap();
            let facts = Facts {
                enforcer: "envoy",
                chain: &chain,
                proof: CallerProof {
                    method: ProofMethod::JwtSvid,
                    bound: ask.bound,
                    age: ask.age,
                    acr: if ask.strong { "strong" } else { "" },
                    satisfied: &[],
                },
                confidence: 0,
                task: Some(TaskView { task: &own, ancestors: &[] }),
                subject_proof: None,
                history: Some(HistoryView { agent: Some(&NOTHING), ..HistoryView::new(&NOTHING) }),
                words: WordRecords::default(),
                literal_key: None,
                value_key: None,
                endorsed: &[],
                recipient_lists: None,
                granted: None,
                breakglass: None,
            };
            let request = Request {
                operation,
                arguments: sent.as_bytes().into(),
                resource: None,
                destinations: &[],
                supported_obligations: &[],
                labels: &[],
                server_task: ServerTask::None,
            };
            let ours = decide_traced(&plan, &facts, &request, NOW);
            let mut denials: BTreeSet<ReasonCode> = BTreeSet::new();
            let mut stepup = false;
            let mut forbids = false;
            let mut fails = false;
            for (index, principal) in chain.iter().enumerate() {
                let theirs = oracle.judge(ask, &chain, principal, tiers[operation]);
                let (id, _, kind, _) = uid(principal);
                let name = format!("{kind}::\"{id}\"");
                let mine = |effect: PolicyEffect,
                            wanted: fn(&Verdict) -> bool|
                 -> BTreeSet<String> {
                    ours.trace
                        .iter()
                        .filter(|j| j.principal == name && j.effect == effect && wanted(&j.result))
                        .map(|j| j.policy.clone())
                        .collect()
                };
                let fired = |v: &Verdict| *v == Verdict::Fired;
                let failed = |v: &Verdict| matches!(v, Verdict::Failed(_));
                let mut my_failed = mine(PolicyEffect::Permit, failed);
                my_failed.extend(mine(PolicyEffect::Forbid, failed));
                prop_assert_eq!(&theirs.failed, &my_failed);
                prop_assert_eq!(&theirs.permits, &mine(PolicyEffect::Permit, fired));
                prop_assert_eq!(&theirs.forbids, &mine(PolicyEffect::Forbid, fired));
                prop_assert_eq!(
                    theirs.allow,
                    theirs.forbids.is_empty() && !theirs.permits.is_empty()
                );
                if theirs.permits.is_empty() {
                    let caller = index + 1 == chain.len();
                    denials.insert(if caller {
                        ReasonCode::NotPermitted
                    } else {
                        ReasonCode::ChainNotPermitted
                    });
                }
                for forbid in &theirs.forbids {
                    let policy = oracle.all.policy(&PolicyId::new(forbid)).unwrap();
                    if policy.annotation("stepup").is_some() {
                        stepup = true;
                    } else {
                        denials.insert(ReasonCode::Forbidden);
                    }
                }
                for failed in &theirs.failed {
                    fails = true;
                    if oracle.all.policy(&PolicyId::new(failed)).unwrap().effect() == Effect::Forbid
                    {
                        denials.insert(ReasonCode::PolicyError);
                    }
                }
                forbids |= !theirs.forbids.is_empty();
            }
            let expected = match denials.first() {
                Some(reason) => (Outcome::Deny, *reason),
                None if stepup => (Outcome::StepUp, ReasonCode::ProofRequired),
                None => (Outcome::Permit, ReasonCode::Permitted),
            };
            prop_assert_eq!(expected, (ours.outcome, ours.reason));
            // What a decision lets through, now or after a step-up, was listed before.
            let could = Prospects::new(&plan, &facts, NOW).could(operation);
            prop_assert!(could || ours.outcome == Outcome::Deny, "{} is not listed", operation);
            if !could {
                count(&unlisted);
            }
            count(&cases);
            if ours.outcome == Outcome::Permit {
                count(&permitted);
            }
            if forbids {
                count(&forbidden);
            }
            if fails {
                count(&failing);
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let share = |cell: &Cell<u32>| cell.get() * 100 / cases.get();
    assert!(cases.get() >= 10_000);
    assert!(share(&permitted) >= 20, "{}% permit", share(&permitted));
    assert!(share(&forbidden) >= 20, "{}% hit a forbid", share(&forbidden));
    assert!(share(&failing) >= 10, "{}% fail", share(&failing));
    assert!(share(&unlisted) >= 20, "{}% are not listed", share(&unlisted));
}
