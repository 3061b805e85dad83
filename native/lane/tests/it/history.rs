//! What a session did before: exact under many callers at once, and there after a restart.

use std::sync::Arc;

use authz_kernel::task::{RecordKey, RecordKind};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Engine, World};
use authz_state::store::{MemoryStore, Store, Survives, Transaction};
use serde_json::{Value, json};

use crate::credentials::soon;
use crate::support::*;
use crate::tasks::{REQUIRED, alices, deleting, permitted_at_once, searching, world_of};

const RULES: &str = "
sequences:
  once: {never: crm.delete, after: crm.delete}
  refused: {never: crm.search, after: 'denied(crm.delete)'}
";
const POLICIES: &str = r#"
@id("once") forbid(principal, action == Action::"crm.delete", resource)
when { context.sequences.contains(Sequence::"once") };
@id("refused") forbid(principal, action == Action::"crm.search", resource)
when { context.sequences.contains(Sequence::"refused") };
"#;
const TEMPLATES: &str = r"
templates:
  desk:
    purpose: work at the desk
    params: {ticket: String}
    deadline: 30m
    tier_cap: high
    starters: [bot]
    scope: [{operation: crm.search}, {operation: crm.delete}]
";

fn remembering(extra: &Value) -> Served {
    let served = unloaded(extra);
    let more = [
        ("bundle.yaml", REQUIRED),
        ("templates.yaml", TEMPLATES),
        ("history.yaml", RULES),
        ("policies/history.cedar", POLICIES),
        (
            "policies/tasks.cedar",
            r#"@id("staff-starts") permit(principal in Role::"staff", action == Action::"task:desk", resource);
               @id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);"#,
        ),
    ];
    served.engine.load(World { plan: plan(&more), ..world_of(REQUIRED) }).unwrap();
    served
}

/// Of many callers at once just one sees that nothing came before.
#[test]
fn rules_are_exact() {
    let path = folder().join("state");
    for state in [json!({}), json!({"state": {"engine": "embedded", "path": path}})] {
        let served = remembering(&state);
        for _ in 0..5 {
            let task = alices(&served);
            assert_eq!(1, permitted_at_once(&served, &deleting(&task.id, BOT, "7"), 8, 3));
        }
    }
}

/// What a session did outlives the process, and a denial that a rule asks for is part of it.
#[test]
fn a_restart_forgets_nothing() {
    let state = json!({"state": {"engine": "embedded", "path": folder().join("state")}});
    let served = remembering(&state);
    let task = alices(&served);
    assert_eq!("PERMITTED", code(&served.check(&searching(&task.id, BOT))));
    assert_eq!("PERMITTED", code(&served.check(&deleting(&task.id, BOT, "7"))));
    assert_eq!("PERMITTED", code(&served.check(&searching(&task.id, BOT))));
    served.engine.close();
    drop(served);
    let served = remembering(&state);
    assert_eq!("FORBIDDEN", code(&served.check(&deleting(&task.id, BOT, "7"))));
    assert_eq!("FORBIDDEN", code(&served.check(&searching(&task.id, BOT))));
    served.engine.close();
    drop(served);
    let served = remembering(&state);
    assert_eq!("FORBIDDEN", code(&served.check(&searching(&task.id, BOT))));
    let records = served.records();
    let last = records.last().unwrap();
    assert_eq!(json!(["refused"]), last["input"]["sequences"], "{last}");
    assert!(last["input"]["session"].is_object(), "{last}");
}

/// The record of what changes a session says what it changes.
#[test]
fn records_say_what_changes() {
    let served = remembering(&json!({}));
    let task = alices(&served);
    served.check(&deleting(&task.id, BOT, "7"));
    served.check(&deleting(&task.id, BOT, "7"));
    let records = served.records();
    let changes: Vec<&Value> = records
        .iter()
        .map(|record| &record["result"]["changes"])
        .filter(|one| !one.is_null())
        .collect();
    assert_eq!(vec![&json!({"sequences": ["once"]}), &json!({"sequences": ["refused"]})], changes);
}

/// A bundle that gives every agent a task.
const IMPLICIT: [(&str, &str); 2] = [
    (
        "bundle.yaml",
        "{name: desk, tasks: required, implicit_tasks: {template: work, tier_cap: high}}",
    ),
    (
        "templates.yaml",
        "templates: {work: {purpose: work, deadline: 1h, tier_cap: high, scope: [{operation: crm.search}, {operation: crm.delete}]}}",
    ),
];

/// An agent that comes without a task is remembered from its first call on, also where that is denied.
#[test]
fn implicit_tasks_remember() {
    let served = unloaded(&json!({}));
    let more =
        [IMPLICIT[0], IMPLICIT[1], ("history.yaml", RULES), ("policies/history.cedar", POLICIES)];
    served.engine.load(World { plan: plan(&more), ..world_of(REQUIRED) }).unwrap();
    let ask = |operation: &str, arguments: Value| {
        code(&served.check(&wire::CheckRequest {
            operation: operation.to_owned(),
            arguments_json: arguments.to_string().into_bytes(),
            ..search()
        }))
    };
    let codes = [
        ask("crm.search", json!({"query": "a"})),
        ask("crm.delete", json!({"id": "1"})),
        ask("crm.delete", json!({"id": "1"})),
        ask("crm.search", json!({"query": "a"})),
    ];
    assert_eq!(["PERMITTED", "PERMITTED", "FORBIDDEN", "FORBIDDEN"], codes);
}

/// A flood of denials is no flood of changes: each call counts once, and only so many are kept; a restart forgets none.
#[test]
fn denials_are_bounded_and_outlive_a_restart() {
    let state = json!({"state": {"engine": "embedded", "path": folder().join("state")}});
    let more = [
        ("templates.yaml", TEMPLATES),
        ("history.yaml", "denials: {raise_after: 3, end_after: 5}\n"),
        (
            "policies/history.cedar",
            r#"@id("no") forbid(principal, action == Action::"crm.delete", resource);
               @id("staff-starts") permit(principal in Role::"staff", action == Action::"task:desk", resource);
               @id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);"#,
        ),
    ];
    let counting = || {
        let served = unloaded(&state);
        served.engine.load(World { plan: plan(&more), ..world_of(REQUIRED) }).unwrap();
        served
    };
    let changed = |served: &Served| {
        let all = served.records();
        all.iter().filter(|one| !one["result"]["changes"]["denials"].is_null()).count()
    };
    let served = counting();
    let task = alices(&served);
    let mut tries = vec![deleting(&task.id, BOT, "1"), deleting(&task.id, BOT, "2")];
    for _ in 0..20 {
        for one in &tries {
            assert_eq!("FORBIDDEN", code(&served.check(one)));
        }
    }
    served.engine.close();
    assert_eq!(2, changed(&served));
    let served = counting();
    tries.extend(["3", "4"].map(|id| deleting(&task.id, BOT, id)));
    for one in &tries {
        assert_eq!("FORBIDDEN", code(&served.check(one)));
    }
    // Four at once that are the fifth: one of them ends the task, and nothing is permitted afterwards.
    assert_eq!(0, permitted_at_once(&served, &deleting(&task.id, BOT, "5"), 4, 1));
    assert_eq!("REVOKED", code(&served.check(&searching(&task.id, BOT))));
    served.engine.close();
    let records = served.records();
    let served = counting();
    assert_eq!("REVOKED", code(&served.check(&searching(&task.id, BOT))));
    let end = records.iter().find(|one| one["result"]["changes"]["denials"] == "ends_task");
    assert_eq!(4, end.unwrap()["input"]["session"]["denials"]);
}

/// What an agent carries in another live task counts where data goes out; where it is not kept, nothing goes out.
#[test]
fn a_lost_session_is_not_one_without_labels() {
    let audit = folder().join("audit.jsonl");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let engine = Engine::with_store(settings(&audit, &json!({})), Arc::clone(&store)).unwrap();
    let served = Served { engine: Arc::new(engine), audit };
    let more = [
        ("bundle.yaml", REQUIRED),
        (
            "mail.yaml",
            "labels: {pii: {kind: confidentiality}}
destinations: {outside: {match: '*', clearance: []}}
catalog:
  mail:
    kind: http
    operations:
      send: {input: {type: object, properties: {to: {type: string}}, required: [to]}}
classify:
  - {match: mail.send, effects: [export], tier: low, destination: {from: [/to], type: email, when_absent: outside}}
",
        ),
        ("templates.yaml", &TEMPLATES.replace("{operation: crm.delete}", "{operation: mail.send}")),
        (
            "policies/mail.cedar",
            r#"@id("mail") permit(principal, action in Action::"system:mail", resource);
               @id("no-data-out") forbid(principal, action, resource) when { !context.excess.isEmpty() };
               @id("staff-starts") permit(principal in Role::"staff", action == Action::"task:desk", resource);
               @id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);"#,
        ),
    ];
    served.engine.load(World { plan: plan(&more), ..world_of(REQUIRED) }).unwrap();
    let (one, other) = (alices(&served), alices(&served));
    let send = || {
        served.check(&wire::CheckRequest {
            arguments_json: br#"{"to": "x@y.example"}"#.to_vec(),
            task: one.id.clone(),
            ..asking("mail.send")
        })
    };
    let decision = send();
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    let key = RecordKey::new(RecordKind::Session, &other.session);
    let mut forget = |transaction: &mut dyn Transaction| {
        transaction.delete(key.clone());
        Ok(true)
    };
    store.transact(std::slice::from_ref(&key), Survives::Crash, soon(), &mut forget).unwrap();
    assert_eq!("STATE_UNAVAILABLE", code(&send()));
}

/// What an enforcer says of a call is carried, also by an agent that has no task of its own; the record says so.
#[test]
fn labels_that_are_told_are_carried() {
    let served = unloaded(&json!({}));
    let more = [
        IMPLICIT[0],
        IMPLICIT[1],
        ("labels.yaml", "labels: {pii: {kind: confidentiality}, vip: {kind: confidentiality}}"),
        (
            "policies/labels.cedar",
            r#"@id("vip") forbid(principal, action == Action::"crm.delete", resource)
               when { context.session.labels.contains(Label::"vip") };"#,
        ),
    ];
    served.engine.load(World { plan: plan(&more), ..world_of(REQUIRED) }).unwrap();
    let told = |labels: &[&str], request: wire::CheckRequest| {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        code(&served.check(&wire::CheckRequest { labels, ..request }))
    };
    let delete = || deleting("", BOT, "1");
    let search = || searching("", BOT);
    let keyed = || wire::CheckRequest { idempotency_key: "once".to_owned(), ..search() };
    assert_eq!("PERMITTED", told(&["pii", "pii"], search()));
    assert_eq!("PERMITTED", told(&[], delete()));
    assert_eq!("FORBIDDEN", told(&["vip"], delete()));
    assert_eq!("PERMITTED", told(&[], delete()));
    assert_eq!("BAD_INPUT", told(&["vip", "other"], search()));
    assert_eq!("BAD_INPUT", told(&["pii"; 65], search()));
    assert_eq!("PERMITTED", told(&["vip"], keyed()));
    assert_eq!("PERMITTED", told(&["vip"], keyed()));
    assert_eq!("IDEMPOTENCY_CONFLICT", told(&[], keyed()));
    assert_eq!("FORBIDDEN", told(&[], delete()));
    let records = served.records();
    assert_eq!(json!(["pii"]), records[0]["input"]["labels"]);
    assert_eq!(json!({"labels": ["pii"]}), records[0]["result"]["changes"]);
    let refused = records.iter().find(|one| one["result"]["reason_code"] == "BAD_INPUT").unwrap();
    assert_eq!(json!(["vip"]), refused["input"]["labels"]);
}
