//! Values that enforcers report: asked for by a permit, kept as fingerprints alone, and there after a restart.

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::reported_value::Value as Kind;
use authz_lane::{Surface, Transport, World};
use prost::Message;
use serde_json::{Value, json};

use crate::report::{ask, of, report};
use crate::support::*;
use crate::tasks::{REQUIRED, alices, world_of};

const CATALOG: &str = "
resources: {events: {}}
catalog:
  shop:
    kind: http
    reports: sdk
    operations:
      list: {}
      make: {}
      change: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      ping: {}
  quiet:
    kind: http
    operations: {list: {}}
classify:
  - match: '*.list'
    effects: [read]
    introduces: {from: '/items/*/id', collection: events, by: owner}
  - {match: shop.make, effects: [write], creates: {id: /id, collection: events}}
  - {match: shop.change, effects: [write], objects: {from: /id, role: target, collection: events}}
  - {match: shop.ping, effects: [read]}
";
pub const POLICIES: &str = r#"
@id("all") permit(principal, action in [Action::"system:shop", Action::"system:quiet"], resource);
@id("strange") forbid(principal, action == Action::"shop.change", resource)
unless { [Origin::"named", Origin::"known", Origin::"made", Origin::"introduced"].containsAll(context.origins.target) };
@id("staff-starts") permit(principal in Role::"staff", action == Action::"task:desk", resource);
@id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);
"#;
const TEMPLATES: &str = "
templates:
  desk:
    purpose: work at the desk
    params: {ticket: String}
    deadline: 30m
    tier_cap: high
    starters: [bot]
    scope: [{system: shop}, {system: quiet}]
";
const OK: wire::ReportResult = wire::ReportResult::Ok;

/// A bundle in which `policies` stand, and its listeners.
pub fn world_by(policies: &str) -> World {
    let more = [
        ("bundle.yaml", REQUIRED),
        ("catalog.yaml", CATALOG),
        ("templates.yaml", TEMPLATES),
        ("policies/shop.cedar", policies),
    ];
    let listeners = json!([
        {"name": "dev", "insecure_dev": true},
        {"name": "own"},
        {"name": "admin", "admin": true},
        {"name": "sdk", "enforcer": {"name": "sdk", "asks": ["system:*"], "reports": "sdk"}},
        {"name": "mute", "enforcer": {"name": "mute", "asks": ["system:*"]}},
    ]);
    let listeners = listeners_of(&listeners);
    World { plan: plan(&more), listeners, ..world_of(REQUIRED) }
}

/// An engine with a bundle in which `policies` stand.
fn served_by(extra: &Value, policies: &str) -> Served {
    let served = unloaded(extra);
    served.engine.load(world_by(policies)).unwrap();
    served
}

pub fn value(pointer: &str, item: u32, text: &str) -> wire::ReportedValue {
    let value = Some(Kind::Text(text.to_owned()));
    wire::ReportedValue { pointer: pointer.to_owned(), item, value }
}

pub fn listed(ids: &[String]) -> Vec<wire::ReportedValue> {
    (0..).zip(ids).map(|(item, id)| value("/items/*/id", item, id)).collect()
}

/// Reports the values of a new permit.
pub fn tell(served: &Served, task: &str, call: &str, values: Vec<wire::ReportedValue>) {
    let permit = ask(served, task, "sdk", call, &json!({}));
    assert_eq!("PERMITTED", code(&permit), "{}", permit.message);
    let request = wire::ReportRequest { values, ..of(&permit.decision_id, OK) };
    assert_eq!(Ok(()), report(served, "sdk", &request));
}

fn changes(served: &Served, task: &str, id: &str) -> &'static str {
    code(&ask(served, task, "sdk", "shop.change", &json!({"id": id})))
}

#[test]
fn a_permit_asks_for_the_values_that_count() {
    let served = served_by(&json!({}), POLICIES);
    let task = alices(&served).id;
    let asked = |listener: &str, call: &str| {
        let decision = ask(&served, &task, listener, call, &json!({}));
        assert_eq!("PERMITTED", code(&decision), "{call}: {}", decision.message);
        decision.report_values
    };
    assert_eq!(vec!["/items/*/id"], asked("sdk", "shop.list"));
    assert_eq!(vec!["/id"], asked("sdk", "shop.make"));
    let none: Vec<String> = Vec::new();
    assert_eq!(none, asked("sdk", "shop.ping"));
    // Nobody reports for the system, or the enforcer does not.
    assert_eq!(none, asked("sdk", "quiet.list"));
    assert_eq!(none, asked("mute", "shop.list"));
    // No policy asks who chose a value: nothing is kept until it is reported.
    let silent = POLICIES.split("@id(\"strange\")").next().unwrap();
    let rest = POLICIES.split_once("@id(\"staff-starts\")").unwrap().1;
    let served = served_by(&json!({}), &format!("{silent}@id(\"staff-starts\"){rest}"));
    let task = alices(&served).id;
    let decision = ask(&served, &task, "sdk", "shop.list", &json!({}));
    assert_eq!((&none, ""), (&decision.report_values, decision.reservation_id.as_str()));
}

/// Neither the store nor the audit log holds a value, and a restart keeps what is known.
#[test]
fn values_outlive_a_restart_as_fingerprints_alone() {
    let path = folder().join("state");
    let state = json!({"state": {"engine": "embedded", "path": path}});
    let served = served_by(&state, POLICIES);
    let task = alices(&served).id;
    let secret = "event-of-the-secret-kind";
    tell(&served, &task, "shop.list", listed(&[secret.to_owned(), "a//b".to_owned()]));
    tell(&served, &task, "shop.make", vec![value("/id", 0, "event-made-secretly")]);
    assert_eq!("PERMITTED", changes(&served, &task, secret));
    let records = served.records();
    let told: Vec<&Value> = records
        .iter()
        .filter(|record| record["path"] == "authz.v1.Authorizer/Report")
        .map(|record| &record["input"]["report"]["values"])
        .collect();
    let changed = records.iter().find(|record| record["input"]["operation"] == "shop.change");
    let origins = json!({"target": ["introduced"]});
    assert_eq!(Some(&origins), changed.map(|record| &record["result"]["origins"]));
    let first = json!({"kept": 1, "unlifted": 0, "invalid": 1, "full": 0});
    let second = json!({"kept": 1, "unlifted": 0, "invalid": 0, "full": 0});
    assert_eq!(vec![&first, &second], told);
    served.engine.close();
    let audit = std::fs::read(&served.audit).unwrap();
    drop(served);
    let mut kept = vec![audit];
    for file in std::fs::read_dir(&path).unwrap() {
        kept.push(std::fs::read(file.unwrap().path()).unwrap());
    }
    let is_in =
        |bytes: &Vec<u8>, text: &str| bytes.windows(text.len()).any(|at| at == text.as_bytes());
    assert!(
        kept.iter().any(|bytes| is_in(bytes, &task)),
        "the store is not where it is looked for"
    );
    assert!(!kept.iter().skip(1).any(|bytes| is_in(bytes, secret)), "a value stands in the store");
    assert!(!kept.iter().any(|bytes| is_in(bytes, "event-made-secretly")), "a value is kept");
    let again = served_by(&state, POLICIES);
    assert_eq!("PERMITTED", changes(&again, &task, secret));
    assert_eq!("PERMITTED", changes(&again, &task, "event-made-secretly"));
    assert_eq!("FORBIDDEN", changes(&again, &task, "another"));
}

#[test]
fn a_full_session_knows_no_further_value_and_forgets_none() {
    let served = served_by(&json!({}), POLICIES);
    let (task, other) = (alices(&served).id, alices(&served).id);
    let ids: Vec<String> = (0..300).map(|number| format!("e{number}")).collect();
    tell(&served, &task, "shop.list", listed(&ids));
    tell(&served, &task, "shop.make", vec![value("/id", 0, "late")]);
    for (id, answer) in
        [("e0", "PERMITTED"), ("e255", "PERMITTED"), ("e256", "FORBIDDEN"), ("e299", "FORBIDDEN")]
    {
        assert_eq!(answer, changes(&served, &task, id), "{id}");
    }
    assert_eq!("FORBIDDEN", changes(&served, &task, "late"));
    // Another task has room of its own.
    assert_eq!("FORBIDDEN", changes(&served, &other, "e0"));
    tell(&served, &other, "shop.make", vec![value("/id", 0, "late")]);
    assert_eq!("PERMITTED", changes(&served, &other, "late"));
    let records = served.records();
    let told = records.iter().map(|record| &record["input"]["report"]["values"]["full"]);
    assert_eq!(45, told.filter_map(Value::as_u64).sum::<u64>());
}

/// The agent chooses what it reports: its values refuse the report, and the enforcer's still counts.
#[test]
fn the_acting_agent_reports_no_values() {
    let served = served_by(&json!({}), POLICIES);
    let task = alices(&served).id;
    let permit = ask(&served, &task, "sdk", "shop.list", &json!({}));
    let token = format!("Bearer {}", svid());
    let own = Transport { authorization: Some(&token), ..Transport::by("own") };
    let with = |id: &str| {
        let values = listed(&[id.to_owned()]);
        wire::ReportRequest { values, ..of(&permit.decision_id, OK) }.encode_to_vec()
    };
    let refused = served.engine.call(Surface::Report, &with("evil"), &own).unwrap_err();
    let message = "only an enforcer may report `values`; leave them out, and report the rest";
    assert_eq!(("BAD_INPUT", message), (refused.reason_code.as_str(), refused.message.as_str()));
    assert_eq!("FORBIDDEN", changes(&served, &task, "evil"));
    let taken = served.engine.call(Surface::Report, &with("good"), &Transport::by("sdk"));
    assert!(taken.is_ok());
    assert_eq!("PERMITTED", changes(&served, &task, "good"));
    assert_eq!("FORBIDDEN", changes(&served, &task, "evil"));
}

/// A task that is over takes no values: the report is refused as one of labels is.
#[test]
fn a_report_of_an_unknown_permit_is_refused() {
    let served = served_by(&json!({}), POLICIES);
    let request = wire::ReportRequest { values: listed(&["e1".to_owned()]), ..of("nobody", OK) };
    assert_eq!(Err("NOT_PERMITTED"), report(&served, "sdk", &request));
}
