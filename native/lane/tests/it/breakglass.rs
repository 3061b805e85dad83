//! Break-glass: two people put an exception in force that no bundle lists, for a while.

use std::sync::Arc;
use std::time::Duration;

use authz_lane::proto::authz::v1 as wire;
use authz_lane::{ApiError, Engine, EngineParts, World};
use authz_state::MemoryAudit;
use authz_state::store::{Bounds, MemoryStore, Store};
use prost::Message;
use serde_json::{Value, json};

use crate::replay::ScriptedClock;
use crate::support::*;

const FACTS: &str = "
catalog:
  erp:
    kind: http
    operations:
      post: {effects: [write], tier: standard}
      pay: {effects: [write], tier: high}
      shut: {effects: [write], tier: critical}
      sync: {effects: [write], tier: standard}
      look: {effects: [write], tier: standard}
  hr: {kind: http, operations: {post: {effects: [write], tier: standard}}}
exceptions:
  nightly: {who: bot, operations: [erp.sync], owner: ops, reason: no OAuth, ticket: OPS-1, expires: 2999-01-01}
";

const POLICIES: &str = "
@id(\"emergency\") permit(principal, action in [Action::\"system:erp\", Action::\"system:hr\"], resource)
when { context.exception.contains(Exception::\"breakglass\") };
@id(\"by-exception\") permit(principal, action == Action::\"erp.sync\", resource)
when { context.exception.contains(Exception::\"nightly\") };
@id(\"looks\") permit(principal, action == Action::\"erp.look\", resource);
";

/// Nodes of one store, with a clock that tests move.
struct Emergency {
    clock: Arc<ScriptedClock>,
    store: Arc<MemoryStore>,
}

impl Emergency {
    fn new() -> Self {
        let clock = Arc::new(ScriptedClock::start());
        let time = Arc::clone(&clock) as _;
        let store = Arc::new(MemoryStore::with_time_source([7; 32], Bounds::default(), time));
        Self { clock, store }
    }

    fn node(&self) -> Node {
        self.node_of(&[("erp.yaml", FACTS), ("policies/erp.cedar", POLICIES)])
    }

    fn node_of(&self, files: &[(&str, &str)]) -> Node {
        let audit = Arc::new(MemoryAudit::new(1 << 20));
        let parts = EngineParts {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            audit: Arc::clone(&audit) as _,
            clock: Arc::clone(&self.clock) as _,
        };
        let engine = Engine::with_parts(settings("unused".as_ref(), &json!({})), parts).unwrap();
        engine.load(World { plan: plan(files), ..world() }).unwrap();
        Node { served: Served { engine: Arc::new(engine), audit: "unused".into() }, audit }
    }

    fn pass(&self, minutes: u64) {
        self.clock.advance(Duration::from_secs(minutes * 60));
    }
}

struct Node {
    served: Served,
    audit: Arc<MemoryAudit>,
}

impl Node {
    fn open(&self, by: &Value) -> Result<wire::Breakglass, (&'static str, String)> {
        self.open_with(by, &asked())
    }

    fn open_with(
        &self,
        by: &Value,
        request: &wire::OpenBreakglassRequest,
    ) -> Result<wire::Breakglass, (&'static str, String)> {
        let person = by.to_string();
        let answer =
            self.served.engine.breakglass_open(person.as_bytes(), &request.encode_to_vec());
        let answer = answer.map_err(told)?;
        let answer = wire::OpenBreakglassResponse::decode(answer.as_slice()).unwrap();
        let operations = ["erp.look", "erp.pay", "erp.post", "erp.shut", "erp.sync"];
        assert_eq!(operations[..], answer.operations);
        Ok(answer.breakglass.unwrap())
    }

    fn confirm(&self, by: &Value, id: &str) -> Result<wire::Breakglass, (&'static str, String)> {
        let request = wire::ConfirmBreakglassRequest { id: id.to_owned() };
        let person = by.to_string();
        let answer =
            self.served.engine.breakglass_confirm(person.as_bytes(), &request.encode_to_vec());
        let answer = answer.map_err(told)?;
        let answer = wire::ConfirmBreakglassResponse::decode(answer.as_slice()).unwrap();
        Ok(answer.breakglass.unwrap())
    }

    fn end(&self, by: &Value, id: &str) -> Result<wire::Breakglass, (&'static str, String)> {
        let request = wire::EndBreakglassRequest { id: id.to_owned() };
        let person = by.to_string();
        let answer = self.served.engine.breakglass_end(person.as_bytes(), &request.encode_to_vec());
        let answer = answer.map_err(told)?;
        Ok(wire::EndBreakglassResponse::decode(answer.as_slice()).unwrap().breakglass.unwrap())
    }

    fn list(&self) -> Vec<wire::Breakglass> {
        let answer = self.served.engine.breakglass_list(&[]).unwrap();
        wire::ListBreakglassResponse::decode(answer.as_slice()).unwrap().breakglass
    }

    /// Opens a request and confirms it. Returns its id.
    fn put_in_force(&self, request: &wire::OpenBreakglassRequest) -> String {
        let id = self.open_with(&ann(), request).unwrap().id;
        self.confirm(&bob(), &id).unwrap();
        id
    }

    /// Reason code of a call of the bot without a subject.
    fn call(&self, operation: &str) -> &'static str {
        code(&self.served.check(&of_bot(operation)))
    }

    fn records(&self) -> Vec<Value> {
        let text = String::from_utf8(self.audit.take()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn samples(&self, name: &str) -> Vec<(String, f64)> {
        let families = self.served.engine.metrics();
        let family = families.iter().find(|family| family.name == name).unwrap();
        let samples = family.samples.iter();
        samples.map(|sample| (sample.labels[0].1.clone(), sample.value)).collect()
    }
}

fn told(error: ApiError) -> (&'static str, String) {
    (error.reason_code.as_str(), error.message)
}

fn of_bot(operation: &str) -> wire::CheckRequest {
    let token = svid_of(&json!({"exp": now() + 20_000}));
    let evidence = vec![evidence(wire::EvidenceRole::Agent, token)];
    wire::CheckRequest { evidence, operation: operation.to_owned(), ..Default::default() }
}

fn person(sub: &str) -> Value {
    json!({
        "issuer": "corp", "sub": sub, "method": "socket", "authenticated_at_ms": 1, "uid": 7,
    })
}

fn ann() -> Value {
    person("ann")
}

fn bob() -> Value {
    person("bob")
}

fn asked() -> wire::OpenBreakglassRequest {
    wire::OpenBreakglassRequest {
        system: "erp".to_owned(),
        duration_seconds: 30 * 60,
        reason: "the ledger is down".to_owned(),
        ticket: "INC-1".to_owned(),
        ..wire::OpenBreakglassRequest::default()
    }
}

/// Two people put it in force, for its system and its time. Each step and each use has a record.
#[test]
fn two_people_put_it_in_force_until_its_end() {
    let emergency = Emergency::new();
    let node = emergency.node();
    assert_eq!("NOT_PERMITTED", node.call("erp.post"));
    let opened = node.open(&ann()).unwrap();
    assert_eq!(wire::BreakglassStatus::Open as i32, opened.status);
    assert_eq!("NOT_PERMITTED", node.call("erp.post"), "nobody has confirmed it");
    assert!(node.samples("authz_breakglass_in_force").is_empty());
    emergency.pass(10);
    let confirmed = node.confirm(&bob(), &opened.id).unwrap();
    assert_eq!(wire::BreakglassStatus::InForce as i32, confirmed.status);
    assert_eq!(("corp/ann", "corp/bob"), (&*confirmed.opened_by, &*confirmed.confirmed_by));
    assert_eq!(vec![("erp".to_owned(), 1.0)], node.samples("authz_breakglass_in_force"));
    let [shown] = &node.served.engine.status().breakglass[..] else { panic!("one in force") };
    assert_eq!((&opened.id, "erp", ""), (&shown.id, &*shown.system, &*shown.agent));
    assert_eq!(("corp/ann", "corp/bob"), (&*shown.opened_by, &*shown.confirmed_by));
    assert_eq!("INC-1", shown.ticket);
    node.records();
    let decision = node.served.check(&of_bot("erp.post"));
    assert_eq!("PERMITTED", code(&decision));
    let records = node.records();
    let result = &records[0]["result"];
    assert_eq!(json!(["breakglass"]), result["exceptions"]);
    assert_eq!(json!(["log_full"]), result["own_obligations"]);
    let by = json!({
        "id": opened.id, "ticket": "INC-1", "opened_by": "corp/ann", "confirmed_by": "corp/bob",
    });
    assert_eq!(by, result["breakglass"]);
    assert_eq!("NOT_PERMITTED", node.call("hr.post"), "another system");
    let uses = node.samples("authz_exception_uses");
    assert!(uses.contains(&("breakglass".to_owned(), 1.0)), "{uses:?}");
    emergency.pass(29);
    assert_eq!("PERMITTED", node.call("erp.post"));
    emergency.pass(1);
    assert_eq!("NOT_PERMITTED", node.call("erp.post"), "its time is over");
    assert!(node.samples("authz_breakglass_in_force").is_empty());
    assert_eq!(wire::BreakglassStatus::Expired as i32, node.list()[0].status);
}

/// Each call about break-glass has a record, also a refused one.
#[test]
fn each_step_is_recorded() {
    let emergency = Emergency::new();
    let node = emergency.node();
    let id = node.open(&ann()).unwrap().id;
    node.confirm(&ann(), &id).unwrap_err();
    node.confirm(&bob(), &id).unwrap();
    node.end(&Value::Null, &id).unwrap();
    let records = node.records();
    let seen: Vec<_> = records
        .iter()
        .map(|record| (&record["input"]["breakglass"], &record["result"]["outcome"]))
        .map(|(note, outcome)| (note["action"].as_str().unwrap(), outcome.as_str().unwrap()))
        .collect();
    let expected =
        [("open", "PERMIT"), ("confirm", "DENY"), ("confirm", "PERMIT"), ("end", "PERMIT")];
    assert_eq!(expected[..], seen);
    let note = &records[3]["input"]["breakglass"];
    assert_eq!(json!("owner of the administration socket"), note["ended_by"]);
    for (member, value) in [
        ("id", id.as_str()),
        ("system", "erp"),
        ("ticket", "INC-1"),
        ("reason", "the ledger is down"),
        ("opened_by", "corp/ann"),
        ("confirmed_by", "corp/bob"),
    ] {
        assert_eq!(json!(value), note[member], "{member}");
    }
}

#[test]
fn one_person_does_not_suffice() {
    let emergency = Emergency::new();
    let node = emergency.node();
    let id = node.open(&ann()).unwrap().id;
    let (reason, message) = node.confirm(&ann(), &id).unwrap_err();
    assert_eq!("NOT_PERMITTED", reason, "{message}");
    // The same person under another user of the system.
    let mut again = ann();
    again["uid"] = json!(8);
    assert_eq!("NOT_PERMITTED", node.confirm(&again, &id).unwrap_err().0);
    assert_eq!("NOT_PERMITTED", node.confirm(&Value::Null, &id).unwrap_err().0);
    assert_eq!("NOT_PERMITTED", node.open(&Value::Null).unwrap_err().0);
    assert_eq!("NOT_PERMITTED", node.call("erp.post"));
}

/// It covers no critical call, no call of its own people, and no caller but the agent that it names.
#[test]
fn some_calls_are_never_covered() {
    let emergency = Emergency::new();
    let node = emergency.node();
    let id = node.put_in_force(&asked());
    assert_eq!("PERMITTED", node.call("erp.post"));
    let (shut, pay) = (node.call("erp.shut"), node.served.check(&asking("erp.pay")));
    assert_eq!("NOT_PERMITTED", shut, "tier critical");
    assert!(code(&pay) != "NOT_PERMITTED", "tier high: {}", code(&pay));
    for sub in ["ann", "bob"] {
        let subject = evidence(wire::EvidenceRole::Subject, user(sub, json!([])));
        let agent = evidence(wire::EvidenceRole::Agent, svid());
        let request = wire::CheckRequest { evidence: vec![agent, subject], ..asking("erp.post") };
        let refused = code(&node.served.check(&request));
        assert!(refused.ends_with("NOT_PERMITTED"), "{sub}: {refused}");
    }
    node.end(&ann(), &id).unwrap();
    let agent = "spiffe://a.example/ns/other/sa/bot".to_owned();
    let id = node.put_in_force(&wire::OpenBreakglassRequest { agent, ..asked() });
    assert_eq!("NOT_PERMITTED", node.call("erp.post"), "another agent");
    node.end(&ann(), &id).unwrap();
    node.put_in_force(&wire::OpenBreakglassRequest { agent: BOT.to_owned(), ..asked() });
    assert_eq!("PERMITTED", node.call("erp.post"));
}

#[test]
fn an_exception_of_the_bundle_wins() {
    let emergency = Emergency::new();
    let node = emergency.node();
    node.put_in_force(&asked());
    node.records();
    assert_eq!("PERMITTED", node.call("erp.sync"));
    let records = node.records();
    assert_eq!(json!(["nightly"]), records[0]["result"]["exceptions"]);
    assert_eq!(None, records[0]["result"].get("breakglass"));
}

#[test]
fn a_request_waits_a_quarter_of_an_hour() {
    let emergency = Emergency::new();
    let node = emergency.node();
    let id = node.open(&ann()).unwrap().id;
    emergency.pass(15);
    let (reason, message) = node.confirm(&bob(), &id).unwrap_err();
    assert_eq!("BAD_INPUT", reason);
    assert!(message.contains("15 minutes"), "{message}");
    assert_eq!("NOT_PERMITTED", node.call("erp.post"));
    assert_eq!("BAD_INPUT", node.end(&ann(), &id).unwrap_err().0);
}

#[test]
fn it_ends_early_on_every_node_of_a_store() {
    let emergency = Emergency::new();
    let (one, other) = (emergency.node(), emergency.node());
    let id = one.put_in_force(&asked());
    assert_eq!(["PERMITTED"; 2], [one.call("erp.post"), other.call("erp.post")]);
    let restarted = emergency.node();
    assert_eq!("PERMITTED", restarted.call("erp.post"));
    other.end(&bob(), &id).unwrap();
    for node in [one, other, restarted] {
        assert_eq!("NOT_PERMITTED", node.call("erp.post"));
        assert_eq!("BAD_INPUT", node.confirm(&bob(), &id).unwrap_err().0);
        assert_eq!("corp/bob", node.list()[0].ended_by);
    }
}

#[test]
fn a_request_is_checked() {
    let emergency = Emergency::new();
    let node = emergency.node();
    let text = |request: wire::OpenBreakglassRequest| {
        let (reason, message) = node.open_with(&ann(), &request).unwrap_err();
        assert_eq!("BAD_INPUT", reason);
        message
    };
    for (request, part) in [
        (wire::OpenBreakglassRequest { system: "crypt".to_owned(), ..asked() }, "no system"),
        (wire::OpenBreakglassRequest { agent: "bot".to_owned(), ..asked() }, "SPIFFE"),
        (wire::OpenBreakglassRequest { duration_seconds: 3_601, ..asked() }, "60 minutes"),
        (wire::OpenBreakglassRequest { duration_seconds: 0, ..asked() }, "60 minutes"),
        (wire::OpenBreakglassRequest { reason: " ".to_owned(), ..asked() }, "`reason`"),
        (wire::OpenBreakglassRequest { reason: "a\u{1b}[2J".to_owned(), ..asked() }, "control"),
        (wire::OpenBreakglassRequest { ticket: String::new(), ..asked() }, "`ticket`"),
        (wire::OpenBreakglassRequest { ticket: "t".repeat(257), ..asked() }, "`ticket`"),
    ] {
        let message = text(request);
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(node.list().is_empty());
}

/// 16 requests are live at once; of ended ones the last stay.
#[test]
fn requests_are_bounded() {
    let emergency = Emergency::new();
    let node = emergency.node();
    let ids: Vec<String> = (0..16).map(|_| node.open(&ann()).unwrap().id).collect();
    assert_eq!("OVERLOADED", node.open(&ann()).unwrap_err().0);
    node.end(&ann(), &ids[0]).unwrap();
    for _ in 0..150 {
        let id = node.open(&ann()).unwrap().id;
        node.end(&ann(), &id).unwrap();
    }
    let listed = node.list();
    assert_eq!(128, listed.len());
    let live = listed.iter().filter(|one| one.status == wire::BreakglassStatus::Open as i32);
    assert_eq!(15, live.count());
    emergency.pass(15 + 24 * 60 + 1);
    while node.served.engine.sweep().more {}
    assert!(node.list().is_empty(), "records go a day after the end");
}

/// A bundle whose policies do not read it permits nothing more, and the answer says so.
#[test]
fn a_bundle_that_does_not_read_it_permits_nothing_more() {
    let emergency = Emergency::new();
    let node = emergency.node_of(&[("erp.yaml", FACTS)]);
    let person = ann().to_string();
    let answer = node.served.engine.breakglass_open(person.as_bytes(), &asked().encode_to_vec());
    let answer = wire::OpenBreakglassResponse::decode(answer.unwrap().as_slice()).unwrap();
    assert!(answer.operations.is_empty());
    node.confirm(&bob(), &answer.breakglass.unwrap().id).unwrap();
    assert_eq!("NOT_PERMITTED", node.call("erp.post"));
}
