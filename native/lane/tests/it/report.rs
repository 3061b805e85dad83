//! What came of a permit: who tells it, once, and what it changes, also without anybody's word.

use std::time::Duration;

use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Surface, Transport, World};
use prost::Message;
use serde_json::{Value, json};

use crate::support::*;
use crate::tasks::{REQUIRED, TWO, agent, alices, start as start_task, starting, world_of};

const CATALOG: &str = "
labels: {pii: {kind: confidentiality}, vip: {kind: confidentiality}}
catalog:
  shop:
    kind: http
    reports: sdk
    operations:
      find: {}
      pay: {input: {type: object, properties: {n: {type: integer}}, required: [n]}}
      move: {input: {type: object, properties: {n: {type: integer}}, required: [n]}}
      delete: {}
  quiet: {kind: http, operations: {find: {}}}
classify:
  - {match: '*.find', effects: [read], tier: low, yields: {minimum: [pii], maximum: [pii, vip]}}
  - {match: shop.pay, effects: [write], tier: low, abortable: true}
  - {match: shop.move, effects: [write], tier: low}
  - {match: shop.delete, effects: [delete], tier: high}
sequences:
  look-first: {require: shop.find, before: shop.delete}
budgets:
  money: {sum: /n, of: [shop.pay, shop.move], most: 100}
";
const POLICIES: &str = r#"
@id("shopping") permit(principal, action in [Action::"system:shop", Action::"system:quiet"], resource);
@id("look") forbid(principal, action == Action::"shop.delete", resource)
when { context.sequences.contains(Sequence::"look-first") };
@id("vip") forbid(principal, action == Action::"shop.move", resource)
when { context.session.labels.contains(Label::"vip") };
@id("staff-starts") permit(principal in Role::"staff", action == Action::"task:desk", resource);
@id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);
"#;
pub(crate) const TEMPLATES: &str = "
templates:
  desk:
    purpose: work at the desk
    params: {ticket: String}
    deadline: 30m
    tier_cap: high
    starters: [bot]
    scope: [{system: shop}, {system: quiet}, {operation: shop.pay, uses: 3}]
";

fn shop(extra: &Value) -> Served {
    shop_with(extra, TEMPLATES)
}

fn shop_with(extra: &Value, templates: &str) -> Served {
    shop_that(extra, templates, "sdk")
}

/// The shop, of which `reports` tells what came.
pub(crate) fn shop_that(extra: &Value, templates: &str, reports: &str) -> Served {
    let served = unloaded(extra);
    stock(&served, templates, reports);
    served
}

/// Makes an engine the shop's.
pub(crate) fn stock(served: &Served, templates: &str, reports: &str) {
    stock_as(served, REQUIRED, templates, reports);
}

/// As [`stock`], with another `bundle.yaml`.
pub(crate) fn stock_as(served: &Served, bundle: &str, templates: &str, reports: &str) {
    served.engine.load(shop_world(bundle, templates, reports)).unwrap();
}

/// The shop's bundle and listeners.
pub(crate) fn shop_world(bundle: &str, templates: &str, reports: &str) -> World {
    let catalog = CATALOG.replace("reports: sdk", &format!("reports: {reports}"));
    let more = [
        ("bundle.yaml", bundle),
        ("catalog.yaml", &catalog),
        ("templates.yaml", templates),
        ("policies/shop.cedar", POLICIES),
    ];
    let listeners = json!([
        {"name": "dev", "insecure_dev": true},
        {"name": "own"},
        {"name": "admin", "admin": true},
        {"name": "sdk", "enforcer": {"name": "sdk", "asks": ["system:*"], "reports": "sdk"}},
        {"name": "other", "enforcer": {"name": "other", "asks": ["system:*"], "reports": "sdk"}},
        {"name": "mute", "enforcer": {"name": "mute", "asks": ["system:*"]}},
        {"name": "gate", "enforcer": {"name": "gate", "asks": ["system:*"], "reports": "access_log"}},
        {"name": "gate2", "enforcer": {"name": "gate2", "asks": ["system:*"], "reports": "access_log"}},
    ]);
    let listeners = listeners_of(&listeners);
    World { plan: plan(&more), listeners, ..world_of(REQUIRED) }
}

pub(crate) fn ask(
    served: &Served,
    task: &str,
    listener: &str,
    call: &str,
    arguments: &Value,
) -> wire::Decision {
    served.check_by(
        listener,
        &wire::CheckRequest {
            operation: call.to_owned(),
            arguments_json: arguments.to_string().into_bytes(),
            task: task.to_owned(),
            ..asking(call)
        },
    )
}

pub(crate) fn permit(served: &Served, task: &str, call: &str, arguments: &Value) -> String {
    let decision = ask(served, task, "sdk", call, arguments);
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    decision.decision_id
}

pub(crate) fn of(decision_id: &str, result: wire::ReportResult) -> wire::ReportRequest {
    wire::ReportRequest {
        decision_id: decision_id.to_owned(),
        result: result as i32,
        ..wire::ReportRequest::default()
    }
}

pub(crate) fn report(
    served: &Served,
    listener: &str,
    request: &wire::ReportRequest,
) -> Result<(), &'static str> {
    report_by(served, &Transport::by(listener), request)
}

fn report_by(
    served: &Served,
    transport: &Transport<'_>,
    request: &wire::ReportRequest,
) -> Result<(), &'static str> {
    let answer = served.engine.call(Surface::Report, &request.encode_to_vec(), transport);
    answer.map(drop).map_err(|error| error.reason_code.as_str())
}

const OK: wire::ReportResult = wire::ReportResult::Ok;
const FAILED: wire::ReportResult = wire::ReportResult::Failed;

#[test]
fn a_permit_is_reported_once_by_who_asked() {
    let served = shop(&json!({}));
    let task = alices(&served).id;
    let id = permit(&served, &task, "shop.find", &json!({}));
    let told = of(&id, OK);
    assert_eq!(Err("ENFORCER_REFUSED"), report(&served, "other", &told));
    assert_eq!(Err("ENFORCER_REFUSED"), report(&served, "mute", &told));
    assert_eq!(Err("ENFORCER_REFUSED"), report(&served, "admin", &told));
    assert_eq!(Err("NO_CREDENTIAL"), report(&served, "own", &told));
    assert_eq!(Err("NOT_PERMITTED"), report(&served, "sdk", &of("nobody", OK)));
    for bad in [
        wire::ReportRequest { result: 0, ..told.clone() },
        wire::ReportRequest { result: 9, ..told.clone() },
        wire::ReportRequest { rows: 1, ..told.clone() },
        wire::ReportRequest { labels: vec!["other".to_owned()], ..told.clone() },
        wire::ReportRequest { labels: vec!["pii".to_owned(); 65], ..told.clone() },
        wire::ReportRequest { labels: vec!["x".repeat(2_000)], ..told.clone() },
        wire::ReportRequest { decision_id: "x".repeat(2_000), ..told.clone() },
        wire::ReportRequest { actuals: [("money".to_owned(), 1)].into(), ..told.clone() },
    ] {
        assert_eq!(Err("BAD_INPUT"), report(&served, "sdk", &bad), "{bad:?}");
    }
    assert_eq!("FORBIDDEN", code(&ask(&served, &task, "sdk", "shop.delete", &json!({}))));
    assert_eq!("FORBIDDEN", code(&ask(&served, &task, "sdk", "shop.move", &json!({"n": 1}))));
    assert_eq!(Ok(()), report(&served, "sdk", &told));
    assert_eq!(Err("NOT_PERMITTED"), report(&served, "sdk", &told));
    assert_eq!("PERMITTED", code(&ask(&served, &task, "sdk", "shop.move", &json!({"n": 1}))));
    assert_eq!("PERMITTED", code(&ask(&served, &task, "sdk", "shop.delete", &json!({}))));
    let records = served.records();
    let told: Vec<&Value> =
        records.iter().filter(|record| record["path"] == "authz.v1.Authorizer/Report").collect();
    let last = told.iter().find(|record| record["result"]["outcome"] == "PERMIT").unwrap();
    assert_eq!(json!({"decision_id": id, "result": "OK"}), last["input"]["report"]);
    assert_eq!("shop.find", last["input"]["operation"]);
}

/// A report carries so many values; one more refuses it as a whole.
#[test]
fn reported_values_are_bounded() {
    use wire::reported_value::Value as Kind;
    let served = shop(&json!({}));
    let value = |pointer: &str, kind: Kind| wire::ReportedValue {
        pointer: pointer.to_owned(),
        item: 0,
        value: Some(kind),
    };
    let text = |length: usize| value("/id", Kind::Text("x".repeat(length)));
    let with =
        |id: &str, values: Vec<wire::ReportedValue>| wire::ReportRequest { values, ..of(id, OK) };
    let refused = |listener: &str, request: &wire::ReportRequest| {
        let request = wire::ReportRequest::encode_to_vec(request);
        let answer = served.engine.call(Surface::Report, &request, &Transport::by(listener));
        answer.map(drop).map_err(|error| error.message)
    };
    let task = alices(&served).id;
    let id = permit(&served, &task, "shop.find", &json!({}));
    let over = "the pointers and texts of `values` are longer than 65536 bytes";
    let empty = "an item of `values` has no value; leave out null, objects and arrays";
    for (message, values) in [
        ("`values` has more than 1024 items", vec![text(1); 1_025]),
        (over, vec![text(1_024); 64]),
        ("`values.text` is longer than 1024 bytes", vec![text(1_025)]),
        (
            "`values.number` is longer than 1024 bytes",
            vec![value("/n", Kind::Number("1".repeat(1_025)))],
        ),
        (
            "`values.pointer` is longer than 512 bytes",
            vec![value(&"/x".repeat(257), Kind::Flag(true))],
        ),
        (empty, vec![wire::ReportedValue { value: None, ..text(1) }]),
    ] {
        assert_eq!(Err(message.to_owned()), refused("sdk", &with(&id, values)));
    }
    let failed = wire::ReportRequest { values: vec![text(1)], ..of(&id, FAILED) };
    let message = "`values` may stand only beside a `result` of OK";
    assert_eq!(Err(message.to_owned()), refused("sdk", &failed));
    // 1,024 of the shortest, and the most bytes that fit.
    let most = vec![value("/n", Kind::Integer(i64::MIN)); 1_024];
    assert_eq!(Ok(()), refused("sdk", &with(&id, most)));
    let id = permit(&served, &task, "shop.find", &json!({}));
    assert_eq!(Ok(()), refused("sdk", &with(&id, vec![text(1_021); 64])));
}

/// Whoever is to tell what came of a permit is told so, with the id to tell it by, and with what may have come.
#[test]
fn a_permit_says_that_a_report_is_awaited() {
    let served = shop(&json!({}));
    let task = alices(&served).id;
    let (none, pay) = (json!({}), json!({"n": 1}));
    for listener in ["sdk", "other", "dev"] {
        let found = ask(&served, &task, listener, "shop.find", &none);
        assert_eq!(found.decision_id, found.reservation_id, "{}", found.message);
        assert_eq!(vec!["pii", "vip"], found.yields);
        let paid = ask(&served, &task, listener, "shop.pay", &pay);
        assert_eq!(paid.decision_id, paid.reservation_id, "{}", paid.message);
        assert!(paid.yields.is_empty());
    }
    let silent = |decision: wire::Decision| {
        assert_eq!(("", 0), (decision.reservation_id.as_str(), decision.yields.len()));
        code(&decision)
    };
    for (listener, call) in [("mute", "shop.find"), ("sdk", "quiet.find")] {
        assert_eq!("PERMITTED", silent(ask(&served, &task, listener, call, &none)));
    }
    assert_eq!("FORBIDDEN", silent(ask(&served, &task, "sdk", "shop.delete", &none)));
    let probe = wire::CheckRequest {
        task: task.clone(),
        mode: wire::Mode::Probe as i32,
        ..asking("shop.find")
    };
    silent(served.check_by("sdk", &probe));
    let keyed =
        wire::CheckRequest { task, idempotency_key: "once".to_owned(), ..asking("shop.find") };
    let first = served.check_by("sdk", &keyed);
    assert_eq!(first.decision_id, first.reservation_id);
    assert_eq!(first, served.check_by("sdk", &keyed));
}

/// A report names so many labels and amounts; of one more it is refused, and settles nothing.
#[test]
fn what_a_report_tells_is_bounded() {
    let served = shop(&json!({}));
    let task = alices(&served).id;
    let id = permit(&served, &task, "shop.find", &json!({}));
    let labels =
        |count: usize| wire::ReportRequest { labels: vec!["pii".to_owned(); count], ..of(&id, OK) };
    let amounts = |count: usize| wire::ReportRequest {
        actuals: (0..count).map(|number| (format!("b{number}"), 1)).collect(),
        ..of(&id, OK)
    };
    let refused = |request| {
        let request = wire::ReportRequest::encode_to_vec(&request);
        let answer = served.engine.call(Surface::Report, &request, &Transport::by("sdk"));
        answer.map(drop).map_err(|error| error.message)
    };
    let over = "`labels` or `actuals` has more than 64 items";
    for request in [labels(65), amounts(65)] {
        assert_eq!(Err(over.to_owned()), refused(request));
    }
    let unknown = refused(amounts(64)).unwrap_err();
    assert_ne!(over, unknown, "so many are read");
    assert_eq!("FORBIDDEN", code(&ask(&served, &task, "sdk", "shop.delete", &json!({}))));
    assert_eq!(Ok(()), refused(labels(64)));
    assert_eq!("PERMITTED", code(&ask(&served, &task, "sdk", "shop.delete", &json!({}))));
}

#[test]
fn who_nobody_names_tells_nothing() {
    let served = shop(&json!({}));
    let task = alices(&served).id;
    let id = permit(&served, &task, "quiet.find", &json!({}));
    assert_eq!(Err("ENFORCER_REFUSED"), report(&served, "sdk", &of(&id, OK)));
}

/// What is reported is what is carried, reserved and spent.
#[test]
fn a_report_settles() {
    let path = folder().join("state");
    for state in [json!({}), json!({"state": {"engine": "embedded", "path": path}})] {
        let served = shop(&state);
        let task = alices(&served).id;
        let move_ = |n: i64| code(&ask(&served, &task, "sdk", "shop.move", &json!({"n": n})));
        let pay = |n: i64| ask(&served, &task, "sdk", "shop.pay", &json!({"n": n}));
        let paid = pay(100);
        assert_eq!("BUDGET_EXCEEDED", code(&pay(1)));
        // It can be aborted, so what failed gives back the budget and the use.
        assert_eq!(Ok(()), report(&served, "sdk", &of(&paid.decision_id, FAILED)));
        let paid = pay(60);
        let over = wire::ReportRequest {
            actuals: [("money".to_owned(), 61)].into(),
            ..of(&paid.decision_id, OK)
        };
        assert_eq!(Err("BAD_INPUT"), report(&served, "sdk", &over));
        let less = wire::ReportRequest { actuals: [("money".to_owned(), 10)].into(), ..over };
        assert_eq!(Ok(()), report(&served, "sdk", &less));
        assert_eq!("PERMITTED", code(&pay(90)));
        assert_eq!("BUDGET_EXCEEDED", move_(1));
    }
}

#[test]
fn uses_are_given_back_where_nothing_happened() {
    let templates = TEMPLATES.replace("{system: shop}, ", "");
    let served = shop_with(&json!({}), &templates);
    let task = alices(&served).id;
    let pay = || ask(&served, &task, "sdk", "shop.pay", &json!({"n": 1}));
    let all = [pay(), pay(), pay()];
    assert_eq!("USES_EXHAUSTED", code(&pay()));
    assert_eq!(Ok(()), report(&served, "sdk", &of(&all[0].decision_id, FAILED)));
    assert_eq!(Ok(()), report(&served, "sdk", &of(&all[1].decision_id, OK)));
    assert_eq!("PERMITTED", code(&pay()));
    assert_eq!("USES_EXHAUSTED", code(&pay()));
}

/// The acting agent's word opens nothing; it adds labels, and lets what it does itself count as done.
#[test]
fn an_agent_only_adds() {
    let served = shop(&json!({}));
    let task = alices(&served).id;
    let token = format!("Bearer {}", svid());
    let by_itself = |request: &wire::ReportRequest| {
        let transport = Transport { authorization: Some(&token), ..Transport::by("own") };
        report_by(&served, &transport, request)
    };
    let id = permit(&served, &task, "shop.find", &json!({}));
    assert_eq!(Err("ENFORCER_REFUSED"), by_itself(&of(&id, FAILED)));
    // Its values refuse the report as a whole: its labels do not count either.
    let value = wire::reported_value::Value::Text("e1".to_owned());
    let value = wire::ReportedValue { pointer: "/id".to_owned(), item: 0, value: Some(value) };
    let labels = vec!["vip".to_owned()];
    let valued = wire::ReportRequest { values: vec![value], labels, ..of(&id, OK) };
    assert_eq!(Err("BAD_INPUT"), by_itself(&valued));
    assert_eq!(Ok(()), by_itself(&of(&id, OK)));
    assert_eq!("FORBIDDEN", code(&ask(&served, &task, "sdk", "shop.delete", &json!({}))));
    let vip = wire::ReportRequest { labels: vec!["vip".to_owned()], ..of(&id, OK) };
    assert_eq!(Ok(()), by_itself(&vip));
    // The enforcer that asked still tells, and what the agent added stays.
    assert_eq!(Ok(()), report(&served, "sdk", &of(&id, OK)));
    assert_eq!("FORBIDDEN", code(&ask(&served, &task, "sdk", "shop.move", &json!({"n": 1}))));
    // What it asked for itself is over by its word, as if nobody had told.
    let own = ask(&served, &task, "own", "shop.pay", &json!({"n": 40}));
    assert_eq!("PERMIT", outcome_of(&own));
    assert_eq!(Ok(()), by_itself(&of(&own.decision_id, OK)));
    assert_eq!(Err("NOT_PERMITTED"), by_itself(&of(&own.decision_id, OK)));
}

fn outcome_of(decision: &wire::Decision) -> &'static str {
    match wire::Outcome::try_from(decision.outcome) {
        Ok(wire::Outcome::Permit) => "PERMIT",
        _ => "other",
    }
}

/// Nobody tells in time: what may have come has come, and the report is refused.
#[test]
fn what_nobody_reports_counts_as_done() {
    let path = folder().join("state");
    let times = json!({"report_within_ms": 100});
    let mut kept = times.clone();
    kept["engine"] = json!("embedded");
    kept["path"] = json!(path);
    for state in [times, kept] {
        let served = shop(&json!({"state": state}));
        let task = alices(&served).id;
        let id = permit(&served, &task, "shop.find", &json!({}));
        let paid = permit(&served, &task, "shop.pay", &json!({"n": 100}));
        std::thread::sleep(Duration::from_millis(200));
        for sweeps in [false, true] {
            if sweeps {
                assert_eq!(2, served.engine.sweep().committed);
            }
            for id in [&id, &paid] {
                assert_eq!(Err("NOT_PERMITTED"), report(&served, "sdk", &of(id, FAILED)));
            }
            let codes = ["shop.delete", "shop.pay", "shop.move"]
                .map(|call| code(&ask(&served, &task, "sdk", call, &json!({"n": 1}))));
            assert_eq!("BUDGET_EXCEEDED", codes[1], "sweeps: {sweeps}");
            assert_eq!("FORBIDDEN", codes[2], "sweeps: {sweeps}");
            assert_ne!("PERMITTED", codes[0]);
        }
    }
}

/// What is open outlives the process.
#[test]
fn a_restart_forgets_no_reservation() {
    let state = json!({"state": {"engine": "embedded", "path": folder().join("state")}});
    let served = shop(&state);
    let task = alices(&served).id;
    let paid = permit(&served, &task, "shop.pay", &json!({"n": 100}));
    served.engine.close();
    drop(served);
    let served = shop(&state);
    assert_eq!("BUDGET_EXCEEDED", code(&ask(&served, &task, "sdk", "shop.pay", &json!({"n": 1}))));
    assert_eq!(Ok(()), report(&served, "sdk", &of(&paid, FAILED)));
    assert_eq!("PERMITTED", code(&ask(&served, &task, "sdk", "shop.pay", &json!({"n": 100}))));
}

#[test]
fn bytes_that_are_no_report_are_refused() {
    let served = shop(&json!({}));
    let found = served.engine.call(Surface::Report, &[0xff], &Transport::by("sdk"));
    assert!(found.is_err());
    let request = of("x", OK).encode_to_vec();
    assert!(served.engine.call(Surface::Report, &request, &Transport::by("sdk")).is_err());
}

/// Once a permit is reported as failed or aborted, its key is judged anew: charged, labelled and reported like any other
/// call. As long as it is open, and once it is done, the key gets the same permit.
#[test]
fn a_key_is_judged_anew_once_its_permit_came_to_nothing() {
    let path = folder().join("state");
    let scope = "{operation: shop.find}, {operation: shop.move}, ";
    let templates = TEMPLATES.replace("{system: shop}, ", scope).replace("uses: 3", "uses: 1");
    for state in [json!({}), json!({"state": {"engine": "embedded", "path": path}})] {
        let served = shop_with(&state, &templates);
        let task = alices(&served).id;
        let ask = |call: &str, arguments: &Value, key: &str| {
            let request = wire::CheckRequest {
                arguments_json: arguments.to_string().into_bytes(),
                task: task.clone(),
                idempotency_key: key.to_owned(),
                ..asking(call)
            };
            served.check_by("sdk", &request)
        };
        let pay = |key: &str| ask("shop.pay", &json!({"n": 1}), key);
        let tell = |decision: &wire::Decision, result| {
            assert_eq!(Ok(()), report(&served, "sdk", &of(&decision.decision_id, result)));
        };
        for result in [wire::ReportResult::Aborted, FAILED] {
            let first = pay("k-1");
            assert_eq!(("PERMITTED", &first), (code(&first), &pay("k-1")));
            tell(&first, result);
            let again = pay("k-1");
            assert_eq!("PERMITTED", code(&again));
            assert_ne!(first.decision_id, again.decision_id);
            assert_eq!("USES_EXHAUSTED", code(&pay("k-2")), "it is charged");
            tell(&again, result);
        }
        // Its use was spent otherwise meanwhile.
        tell(&pay("k-1"), wire::ReportResult::Aborted);
        let done = pay("k-3");
        assert_eq!("USES_EXHAUSTED", code(&pay("k-1")));
        tell(&done, OK);
        assert_eq!(done, pay("k-3"));
        // What failed for good kept no label; what is done instead brings its own.
        let failed = ask("shop.find", &json!({}), "k-4");
        tell(&failed, FAILED);
        assert_eq!("PERMITTED", code(&ask("shop.move", &json!({"n": 1}), "")));
        let found = ask("shop.find", &json!({}), "k-4");
        assert_ne!(failed.decision_id, found.decision_id);
        let labels = vec!["pii".to_owned(), "vip".to_owned()];
        let told = wire::ReportRequest { labels, ..of(&found.decision_id, OK) };
        assert_eq!(Ok(()), report(&served, "sdk", &told));
        assert_eq!("FORBIDDEN", code(&ask("shop.move", &json!({"n": 1}), "")));
    }
}

/// One agent does not fill the store with permits that nobody reports: another one has room, and so has its own next call
/// once something is reported.
#[test]
fn open_permits_have_shares() {
    let served = shop(&json!({"state": {"max_tasks": 30}}));
    let task = alices(&served).id;
    let mut open = Vec::new();
    let full = loop {
        let decision = ask(&served, &task, "sdk", "shop.find", &json!({}));
        match code(&decision) {
            "PERMITTED" => open.push(decision.decision_id),
            other => break other,
        }
        assert!(open.len() < 60, "the store holds 60");
    };
    assert_eq!(("OVERLOADED", 20), (full, open.len()));
    let others = start_task(&served, &starting(vec![agent(TWO)])).unwrap();
    let request =
        wire::CheckRequest { evidence: vec![agent(TWO)], task: others.id, ..asking("shop.find") };
    assert_eq!("PERMITTED", code(&served.check_by("sdk", &request)));
    let first = open.swap_remove(0);
    report(&served, "sdk", &of(&first, wire::ReportResult::Ok)).unwrap();
    permit(&served, &task, "shop.find", &json!({}));
}
