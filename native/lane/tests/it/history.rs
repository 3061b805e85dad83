//! What a session did before: exact under many callers at once, and there after a restart.

use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Surface, World};
use prost::Message;
use serde_json::{Value, json};

use crate::report::{of, report};
use crate::support::*;
use crate::tasks::{
    REQUIRED, agent, alices, call_by, deleting, end, permitted_at_once, searching, start, starting,
    subject, world_of,
};

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
            r#"@id("staff-starts") permit(principal in Role::"staff", action in [Action::"task:desk", Action::"give:desk"], resource);
               @id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);"#,
        ),
    ];
    served.engine.load(World { plan: plan(&more), ..world_of(REQUIRED) }).unwrap();
    served
}

/// A task of the bot that inherits nothing of the ones before.
fn by_alice_alone(served: &Served) -> wire::Task {
    let own = evidence(wire::EvidenceRole::Subject, alone_alice());
    let request = starting(vec![own]);
    start(served, &wire::StartRequest { assignee: BOT.to_owned(), ..request }).unwrap()
}

/// Of many callers at once just one sees that nothing came before.
#[test]
fn rules_are_exact() {
    let path = folder().join("state");
    for state in [json!({}), json!({"state": {"engine": "embedded", "path": path}})] {
        let served = remembering(&state);
        for _ in 0..5 {
            let task = by_alice_alone(&served);
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
pub(crate) const IMPLICIT: [(&str, &str); 2] = [
    (
        "bundle.yaml",
        "{name: desk, tasks: required, implicit_tasks: {agents: [bot], template: work, tier_cap: high}}",
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

/// A bundle in which what was read must not leave.
const READS: &str = "labels: {pii: {kind: confidentiality}, vip: {kind: confidentiality}}
destinations: {outside: {match: '*', clearance: []}}
catalog:
  mail:
    kind: http
    operations:
      send: {input: {type: object, properties: {to: {type: string}}, required: [to]}}
  hr:
    kind: http
    reports: sdk
    operations: {get: {}, find: {}}
classify:
  - {match: mail.send, effects: [export], tier: low, destination: {from: [/to], type: email, when_absent: outside}}
  - {match: hr.get, effects: [read], tier: low, yields: [pii]}
  - {match: hr.find, effects: [read], tier: low, yields: {minimum: [], maximum: [vip]}}
";
const FLOW: &str = r#"@id("mail") permit(principal, action in [Action::"system:mail", Action::"system:hr"], resource);
@id("no-data-out") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };
@id("staff-starts") permit(principal in Role::"staff", action == Action::"task:desk", resource);
@id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);"#;

fn reading(extra: &Value) -> Served {
    let served = unloaded(extra);
    let scope = "{operation: mail.send}, {system: hr}";
    let templates = TEMPLATES.replace("{operation: crm.delete}", scope);
    let more = [
        ("bundle.yaml", REQUIRED),
        ("mail.yaml", READS),
        ("templates.yaml", &templates),
        ("policies/mail.cedar", FLOW),
    ];
    let listeners = json!([
        {"name": "dev", "insecure_dev": true},
        {"name": "admin", "admin": true},
        {"name": "sdk", "enforcer": {"name": "sdk", "asks": ["system:*"], "reports": "sdk"}},
    ]);
    let listeners = listeners_of(&listeners);
    served.engine.load(World { plan: plan(&more), listeners, ..world_of(REQUIRED) }).unwrap();
    served
}

fn sending(task: &str) -> wire::CheckRequest {
    wire::CheckRequest {
        arguments_json: br#"{"to": "x@y.example"}"#.to_vec(),
        task: task.to_owned(),
        ..asking("mail.send")
    }
}

fn getting(task: &str, operation: &str) -> wire::CheckRequest {
    wire::CheckRequest { task: task.to_owned(), ..asking(operation) }
}

/// What a task read counts in the agent's other tasks, whatever becomes of the task, and after a restart.
#[test]
fn labels_outlive_their_task() {
    let path = folder().join("state");
    for state in [json!({}), json!({"state": {"engine": "embedded", "path": path}})] {
        let served = reading(&state);
        for status in [wire::TaskStatus::Completed, wire::TaskStatus::Aborted] {
            let task = alices(&served);
            assert_eq!("PERMITTED", code(&served.check(&getting(&task.id, "hr.get"))));
            end(&served, &task.id, vec![agent(BOT)], status).unwrap();
        }
        let other = alices(&served);
        let decision = served.check(&sending(&other.id));
        assert_eq!("FORBIDDEN", code(&decision), "{}", decision.message);
        let records = served.records();
        let is_of_it = |one: &&Value| one["decision_id"] == decision.decision_id.as_str();
        let record = records.iter().find(is_of_it).unwrap();
        let remembered = &record["input"]["session"]["remembered"];
        assert!(remembered["pii"].is_string(), "{remembered}");
        if state["state"].is_object() {
            served.engine.close();
            drop(served);
            let served = reading(&state);
            assert_eq!("FORBIDDEN", code(&served.check(&sending(&other.id))));
            let another = alices(&served);
            assert_eq!("FORBIDDEN", code(&served.check(&sending(&another.id))));
        }
    }
}

fn report_ok(served: &Served, decision_id: &str, labels: &[&str]) {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let told = wire::ReportRequest { labels, ..of(decision_id, wire::ReportResult::Ok) };
    assert_eq!(Ok(()), report(served, "sdk", &told));
}

fn call_at<R: Message + Default>(
    served: &Served,
    listener: &str,
    request: &wire::ForgetRequest,
) -> Result<R, &'static str> {
    call_by(served, listener, Surface::Forget, request).map_err(|error| error.reason_code.as_str())
}

/// What the results may have carried counts until it is reported that they did not.
#[test]
fn a_report_lowers_what_is_remembered() {
    let served = reading(&json!({}));
    let other = alices(&served);
    let task = alices(&served);
    assert_eq!("PERMITTED", code(&served.check(&sending(&other.id))));
    let found = served.check_by("sdk", &getting(&task.id, "hr.find"));
    assert_eq!("PERMITTED", code(&found));
    assert_eq!("FORBIDDEN", code(&served.check(&sending(&other.id))));
    report_ok(&served, &found.decision_id, &[]);
    assert_eq!("PERMITTED", code(&served.check(&sending(&other.id))));
    let found = served.check_by("sdk", &getting(&task.id, "hr.find"));
    report_ok(&served, &found.decision_id, &["vip"]);
    end(&served, &task.id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    assert_eq!("FORBIDDEN", code(&served.check(&sending(&other.id))));
}

/// An administrator forgets the labels of an agent, a pair or an object, and nothing without a reason.
#[test]
fn an_administrator_forgets() {
    let served = reading(&json!({}));
    let task = alices(&served);
    assert_eq!("PERMITTED", code(&served.check(&getting(&task.id, "hr.get"))));
    end(&served, &task.id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    let other = alices(&served);
    assert_eq!("FORBIDDEN", code(&served.check(&sending(&other.id))));
    let forget = |listener: &str, reason: &str, target| {
        let request =
            wire::ForgetRequest { target: Some(target), reason: reason.to_owned(), denials: false };
        call_at::<wire::ForgetResponse>(&served, listener, &request).map(|answer| answer.records)
    };
    use wire::forget_request::Target;
    let bot = || Target::Agent(BOT.to_owned());
    assert_eq!(Err("BAD_INPUT"), forget("admin", "", bot()));
    assert_eq!(Err("BAD_INPUT"), forget("admin", "reviewed", Target::Agent("bot".to_owned())));
    assert_eq!(Err("ENFORCER_REFUSED"), forget("dev", "reviewed", bot()));
    assert_eq!("FORBIDDEN", code(&served.check(&sending(&other.id))));
    let pair = wire::Pair { agent: BOT.to_owned(), subject: "corp/alice".to_owned() };
    assert_eq!(Ok(0), forget("admin", "reviewed", Target::Pair(pair)));
    assert_eq!(Ok(1), forget("admin", "reviewed", bot()));
    assert_eq!("PERMITTED", code(&served.check(&sending(&other.id))));
    let records = served.records();
    let last = records.iter().rfind(|one| one["input"]["operation"] == "authz.forget").unwrap();
    let wanted = json!({"target": "agent", "value": BOT, "denials": false, "reason": "reviewed"});
    assert_eq!(wanted, last["input"]["forgotten"], "{last}");
}

/// What denials ended stays ended, in the tasks that the agent had begun before as well, also once the agent begins anew,
/// and after a restart.
#[test]
fn tasks_of_an_agent_that_denials_bar_stay_refused() {
    let state = json!({"state": {"engine": "embedded", "path": folder().join("state")}});
    let more = [
        ("templates.yaml", TEMPLATES),
        ("history.yaml", "denials: {raise_after: 3, end_after: 2}\n"),
        (
            "policies/history.cedar",
            r#"@id("no") forbid(principal, action == Action::"crm.delete", resource);
               @id("staff-starts") permit(principal in Role::"staff", action in [Action::"task:desk", Action::"give:desk"], resource);
               @id("bots-start") permit(principal in Role::"bot", action in [Action::"task:desk", Action::"give:desk"], resource);"#,
        ),
    ];
    let counting = || {
        let served = unloaded(&state);
        served.engine.load(World { plan: plan(&more), ..world_of(REQUIRED) }).unwrap();
        served
    };
    let served = counting();
    let begins = |served: &Served| start(served, &starting(vec![agent(BOT), subject("alice")]));
    let (spare, task) = (begins(&served).unwrap(), begins(&served).unwrap());
    assert_eq!("PERMITTED", code(&served.check(&searching(&spare.id, BOT))));
    std::thread::sleep(std::time::Duration::from_millis(5));
    for id in ["1", "2"] {
        assert_eq!("FORBIDDEN", code(&served.check(&deleting(&task.id, BOT, id))));
    }
    assert_eq!("REVOKED", code(&served.check(&searching(&spare.id, BOT))));
    served.engine.close();
    drop(served);
    let served = counting();
    assert_eq!("REVOKED", code(&served.check(&searching(&spare.id, BOT))));
    let pair = wire::Pair { agent: BOT.to_owned(), subject: "corp/alice".to_owned() };
    let request = wire::ForgetRequest {
        target: Some(wire::forget_request::Target::Pair(pair)),
        reason: "reviewed".to_owned(),
        denials: true,
    };
    let answer = call_at::<wire::ForgetResponse>(&served, "admin", &request);
    assert_eq!(1, answer.unwrap().records);
    assert_eq!("REVOKED", code(&served.check(&searching(&spare.id, BOT))));
    let anew = begins(&served).unwrap();
    assert_eq!("PERMITTED", code(&served.check(&searching(&anew.id, BOT))));
}

/// Of what denials ended only the subject alone, or an administrator, lets the agent begin anew.
#[test]
fn after_denials_the_agent_begins_nothing() {
    let state = json!({"state": {"engine": "embedded", "path": folder().join("state")}});
    let more = [
        ("templates.yaml", TEMPLATES),
        ("history.yaml", "denials: {raise_after: 3, end_after: 2}\n"),
        (
            "policies/history.cedar",
            r#"@id("no") forbid(principal, action == Action::"crm.delete", resource);
               @id("staff-starts") permit(principal in Role::"staff", action in [Action::"task:desk", Action::"give:desk"], resource);
               @id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);"#,
        ),
    ];
    let counting = || {
        let served = unloaded(&state);
        served.engine.load(World { plan: plan(&more), ..world_of(REQUIRED) }).unwrap();
        served
    };
    let served = counting();
    let task = alices(&served);
    for id in ["1", "2"] {
        assert_eq!("FORBIDDEN", code(&served.check(&deleting(&task.id, BOT, id))));
    }
    assert_eq!("REVOKED", code(&served.check(&searching(&task.id, BOT))));
    let begins = |served: &Served| start(served, &starting(vec![agent(BOT), subject("alice")]));
    assert_eq!(Err("REVOKED"), begins(&served).map(drop));
    // The agent leaves its own credential out, and shows what it holds of its subject.
    let bearer = starting(vec![subject("alice")]);
    let bearer = wire::StartRequest { assignee: BOT.to_owned(), ..bearer };
    assert_eq!(Err("NO_CREDENTIAL"), start(&served, &bearer).map(drop));
    served.engine.close();
    drop(served);
    let served = counting();
    assert_eq!(Err("REVOKED"), begins(&served).map(drop));
    let pair = wire::Pair { agent: BOT.to_owned(), subject: "corp/alice".to_owned() };
    let request = wire::ForgetRequest {
        target: Some(wire::forget_request::Target::Pair(pair)),
        reason: "reviewed".to_owned(),
        denials: true,
    };
    let answer = call_at::<wire::ForgetResponse>(&served, "admin", &request);
    assert_eq!(1, answer.unwrap().records);
    assert_eq!(Ok(()), begins(&served).map(drop));
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
