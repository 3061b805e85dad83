//! Approvals: a call that stepped up is made once, after a person approved exactly that call.

mod endorse;

use std::sync::Arc;
use std::time::Duration;

use authz_kernel::plan::Plan;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{ApiError, Engine, EngineParts, Surface, World};
use authz_state::MemoryAudit;
use authz_state::TimeSource as _;
use authz_state::store::{Bounds, MemoryStore};
use prost::Message;
use serde_json::{Value, json};

use crate::replay::ScriptedClock;
use crate::support::*;
use crate::tasks::{REQUIRED, TWO, agent, world_of};

const CATALOG: &str = "
resources: {accounts: {}}
labels: {secret: {kind: confidentiality}}
catalog:
  bank:
    kind: http
    origin: https://bank.example
    operations:
      pay:
        input:
          type: object
          properties: {to: {type: string}, amount: {type: integer}, note: {}}
          required: [to, amount]
      mail: {input: {type: object, properties: {text: {type: string}}}}
      wipe: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      read: {}
      send: {input: {type: object, properties: {to: {type: string}, text: {type: string}, also: {type: array, items: {type: string}}}, required: [to]}}
      reply: {input: {type: object, properties: {to: {type: string}, text: {type: string}, also: {type: array, items: {type: string}}}, required: [to]}}
      forward: {input: {type: object, properties: {to: {type: string}, text: {type: string}, also: {type: array, items: {type: string}}}, required: [to]}}
      wire: {input: {type: object, properties: {to: {type: string}, text: {type: string}, also: {type: array, items: {type: string}}}, required: [to]}}
      note: {input: {type: object, properties: {text: {type: string}}}}
classify:
  - match: bank.pay
    effects: [write]
    tier: standard
    objects: [{from: /to, role: recipient, collection: accounts}, {from: /amount, role: amount}]
  - {match: bank.mail, effects: [write], tier: standard}
  - {match: bank.wipe, effects: [delete], tier: high, resource: {collection: accounts, id: /id}}
  - {match: bank.read, effects: [read], tier: low, yields: [secret]}
  - {match: bank.wire, effects: [write], tier: high, objects: [{from: [/to, /also], role: recipient, collection: accounts}]}
  - {match: bank.send, effects: [write], tier: standard, objects: [{from: [/to, /also], role: recipient, collection: accounts}]}
  - {match: bank.reply, effects: [write], tier: standard, objects: [{from: [/to, /also], role: recipient, collection: accounts}]}
  - {match: bank.forward, effects: [write], tier: standard, objects: [{from: [/to, /also], role: recipient, collection: accounts}]}
  - {match: bank.note, effects: [write], tier: standard}
subjects:
  manager: {issuer: corp, claim: groups, contains: managers}
  finance: {issuer: corp, claim: groups, contains: finance}
";
const TEMPLATES: &str = "
templates:
  desk:
    purpose: pay the bills
    params: {ticket: String}
    deadline: 24h
    max_depth: 1
    tier_cap: critical
    starters: [bot]
    scope: [{system: bank}]
";
/// Policies besides those that a test adds.
const POLICIES: &str = r#"
@id("all") permit(principal, action in [Action::"system:bank"], resource);
@id("staff-starts") permit(principal in Role::"staff", action == Action::"task:desk", resource);
@id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);
@id("bots-get") permit(principal, action in Action::"authz.task.give", resource in Role::"bot");
@id("managers") permit(principal in Role::"manager", action == Action::"authz.approve", resource)
when { ["approve", "two_person"].contains(context.input.queue) };
@id("financiers") permit(principal in Role::"finance", action == Action::"authz.approve", resource)
when { context.input.system == "bank" && context.input.queue == "approve:finance" };
@id("wipe") @stepup("approve") @reason("deleting is approved")
forbid(principal, action == Action::"bank.wipe", resource) unless { context.satisfied.contains(Kind::"approve") };
@id("mail") @stepup("confirm") forbid(principal, action == Action::"bank.mail", resource)
unless { context.satisfied.contains(Kind::"confirm") };
"#;
/// A payment needs another person.
const PAY: &str = r#"@id("pay") @stepup("approve") @reason("payments are approved")
forbid(principal, action == Action::"bank.pay", resource) unless { context.satisfied.contains(Kind::"approve") };"#;

/// The bank's bundle with these policies.
pub fn bank_plan(policies: &str) -> Arc<Plan> {
    Arc::clone(&world_by(policies, &[]).plan)
}

fn world_by(policies: &str, more: &[(&str, &str)]) -> World {
    let mut files = vec![
        ("bundle.yaml", REQUIRED),
        ("bank.yaml", CATALOG),
        ("templates.yaml", TEMPLATES),
        ("policies/bank.cedar", POLICIES),
        ("policies/more.cedar", policies),
    ];
    files.extend(more);
    World { plan: plan(&files), ..world_of(REQUIRED) }
}

/// A bank with a clock that stands still.
pub struct Bank {
    served: Served,
    clock: Arc<ScriptedClock>,
    audit: Arc<MemoryAudit>,
    task: String,
}

impl Bank {
    fn with(policies: &str) -> Self {
        let clock = Arc::new(ScriptedClock::start());
        let audit = Arc::new(MemoryAudit::new(64 * 1024 * 1024));
        let store =
            MemoryStore::with_time_source([7; 32], Bounds::default(), Arc::clone(&clock) as _);
        let parts = EngineParts {
            store: Arc::new(store),
            audit: Arc::clone(&audit) as _,
            clock: Arc::clone(&clock) as _,
        };
        let extra = json!({"approvals": {"url": "https://authz.corp.example/"}});
        let engine = Engine::with_parts(settings("unused".as_ref(), &extra), parts).unwrap();
        let served = Served { engine: Arc::new(engine), audit: "unused".into() };
        served.engine.load(world_by(policies, &[])).unwrap();
        let mut bank = Self { served, clock, audit, task: String::new() };
        bank.task = bank.start();
        bank
    }

    fn load(&self, policies: &str) {
        self.served.engine.load(world_by(policies, &[])).unwrap();
    }

    /// Alice's task of the bot.
    fn start(&self) -> String {
        start_at(&self.served)
    }

    fn check(&self, request: &wire::CheckRequest) -> wire::Decision {
        self.served.check(request)
    }

    fn code(&self, request: &wire::CheckRequest) -> &'static str {
        code(&self.check(request))
    }

    fn pay(&self, amount: i64) -> wire::CheckRequest {
        calling(&self.task, "bank.pay", &json!({"to": "DE1", "amount": amount}))
    }

    /// Id of the approval that a call makes or finds.
    fn asked(&self, request: &wire::CheckRequest) -> String {
        let decision = self.check(request);
        assert_eq!("APPROVAL_REQUIRED", code(&decision));
        decision.challenge.unwrap().approval_id
    }

    /// Every record of the audit with a member `result.approval`.
    fn notes(&self) -> Vec<Value> {
        let text = String::from_utf8(self.audit.take()).unwrap();
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records
            .map(|record| record["result"]["approval"].clone())
            .filter(|note| !note.is_null())
            .collect()
    }

    fn show(&self, person: &Value, id: &str) -> Result<wire::Approval, &'static str> {
        show(&self.served, person, id)
    }

    fn answer(
        &self,
        person: &Value,
        id: &str,
        approves: bool,
    ) -> Result<wire::Approval, &'static str> {
        answer(&self.served, person, id, approves)
    }

    fn approve(&self, person: &Value, id: &str) -> Result<wire::Approval, &'static str> {
        self.answer(person, id, true)
    }
}

fn starting_for_alice() -> wire::StartRequest {
    crate::tasks::starting(vec![agent(BOT), evidence(wire::EvidenceRole::Subject, alice())])
}

fn start_at(served: &Served) -> String {
    crate::tasks::start(served, &starting_for_alice()).unwrap().id
}

fn calling(task: &str, operation: &str, arguments: &Value) -> wire::CheckRequest {
    wire::CheckRequest {
        evidence: vec![agent(BOT)],
        task: task.to_owned(),
        operation: operation.to_owned(),
        arguments_json: arguments.to_string().into_bytes(),
        ..wire::CheckRequest::default()
    }
}

/// A person of the issuer `corp`, whose login is as new as can be.
pub fn person(sub: &str, groups: &[&str]) -> Value {
    json!({
        "issuer": "corp", "sub": sub, "claims": {"groups": groups}, "method": "login",
        "authenticated_at_ms": 1_i64 << 50, "acr": "", "uid": null, "passkey": null,
    })
}

fn manager(sub: &str) -> Value {
    person(sub, &["managers"])
}

pub fn by_passkey(person: &Value) -> Value {
    let mut person = person.clone();
    person["method"] = json!("passkey");
    person["passkey"] = json!({
        "credential_id": "Y3JlZA", "signature": "c2ln", "authenticator_data": "YQ", "client_data_json": "e30",
    });
    person
}

fn show(served: &Served, person: &Value, id: &str) -> Result<wire::Approval, &'static str> {
    let request = wire::ApprovalsGetRequest { approval_id: id.to_owned(), ..Default::default() };
    let shown =
        served.engine.approval_show(person.to_string().as_bytes(), &request.encode_to_vec());
    let shown = shown.map_err(|error| error.reason_code.as_str())?;
    Ok(wire::ApprovalsGetResponse::decode(shown.as_slice()).unwrap().approval.unwrap())
}

fn resolve(
    served: &Served,
    person: &Value,
    request: &wire::ResolveRequest,
) -> Result<wire::Approval, ApiError> {
    let answered =
        served.engine.approval_resolve(person.to_string().as_bytes(), &request.encode_to_vec())?;
    Ok(wire::ResolveResponse::decode(answered.as_slice()).unwrap().approval.unwrap())
}

/// Shows an approval to the administrator, and answers it for a person.
fn answering(served: &Served, id: &str, approves: bool) -> wire::ResolveRequest {
    let digest = show(served, &Value::Null, id).map(|shown| shown.digest).unwrap_or(vec![0; 32]);
    let status =
        if approves { wire::ApprovalStatus::Approved } else { wire::ApprovalStatus::Rejected };
    wire::ResolveRequest {
        approval_id: id.to_owned(),
        status: status as i32,
        digest,
        card_digest: vec![1; 32],
        ..wire::ResolveRequest::default()
    }
}

pub fn answer(
    served: &Served,
    person: &Value,
    id: &str,
    approves: bool,
) -> Result<wire::Approval, &'static str> {
    let request = answering(served, id, approves);
    resolve(served, person, &request).map_err(|error| error.reason_code.as_str())
}

fn listed(served: &Served, person: &Value, queue: &str) -> Vec<String> {
    let request = wire::ApprovalsListRequest { queue: queue.to_owned(), ..Default::default() };
    let list =
        served.engine.approvals_list(person.to_string().as_bytes(), &request.encode_to_vec());
    let list = wire::ApprovalsListResponse::decode(list.unwrap().as_slice()).unwrap();
    list.approvals.into_iter().map(|one| one.id).collect()
}

/// The call steps up, a manager approves it, and the retry is permitted once.
#[test]
fn an_approved_call_is_permitted_once() {
    let bank = Bank::with(PAY);
    let request = bank.pay(5);
    let decision = bank.check(&request);
    assert_eq!(
        (wire::Outcome::StepUp as i32, "APPROVAL_REQUIRED"),
        (decision.outcome, code(&decision))
    );
    let challenge = decision.challenge.unwrap();
    let id = challenge.approval_id;
    assert_eq!(format!("https://authz.corp.example/a/{id}"), challenge.url);
    let day =
        i64::try_from((bank.clock.since_1970() + Duration::from_secs(86_400)).as_secs()).unwrap();
    assert_eq!(day, challenge.expires_at.unwrap().seconds);
    assert_eq!(id, bank.asked(&request), "the open approval is repeated");
    assert_eq!(vec![id.clone()], listed(&bank.served, &manager("bob"), ""));
    let shown = bank.show(&manager("bob"), &id).unwrap();
    assert!(shown.answerable && !shown.needs_passkey && shown.last_approved.is_none());
    assert_eq!(
        ("bank.pay", "pay the bills", "corp/alice", br#"{"amount":5,"to":"DE1"}"#.as_slice()),
        (&*shown.operation, &*shown.purpose, &*shown.subject, &*shown.arguments_json)
    );
    assert_eq!(vec![BOT.to_owned()], shown.agents);
    let objects: Vec<(&str, &str, &str, &str)> = shown
        .objects
        .iter()
        .map(|one| (&*one.role, &*one.pointer, &*one.value_json, &*one.origin))
        .collect();
    assert_eq!(
        vec![("recipient", "/to", "\"DE1\"", "unknown"), ("amount", "/amount", "5", "unknown")],
        objects
    );
    let reason = &shown.reasons[0];
    assert_eq!(
        ("approve", "pay", "payments are approved", "policies/more.cedar:1"),
        (&*reason.kind, &*reason.policy_id, &*reason.reason, &*reason.place)
    );
    assert_eq!("APPROVAL_REQUIRED", bank.code(&request), "nobody answered");
    bank.clock.advance(Duration::from_millis(4_500));
    let approved = bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!(wire::ApprovalStatus::Approved as i32, approved.status);
    assert_eq!(vec!["corp/bob".to_owned()], approved.resolved_by);
    assert!(listed(&bank.served, &manager("bob"), "").is_empty());
    assert_eq!("PERMITTED", bank.code(&request));
    let next = bank.asked(&request);
    assert_ne!(id, next, "an approval permits one call");
    let last = bank.show(&manager("bob"), &next).unwrap().last_approved.unwrap();
    assert_eq!(vec!["corp/bob".to_owned()], last.approved_by);
    let notes = bank.notes();
    let events: Vec<&str> = notes.iter().map(|note| note["event"].as_str().unwrap()).collect();
    assert_eq!(vec!["made", "repeated", "repeated", "approved", "consumed", "made"], events);
    assert_eq!(
        (json!(4_500), json!(["corp/bob"])),
        (notes[3]["decided_in_ms"].clone(), notes[3]["by"].clone())
    );
    assert_eq!(json!("01".repeat(32)), notes[3]["card_digest"]);
}

/// The call may present its approval. One of another call, an unknown one and a used one deny.
#[test]
fn a_presented_approval_is_of_this_call() {
    let bank = Bank::with(PAY);
    let id = bank.asked(&bank.pay(5));
    let with = |request: wire::CheckRequest, id: &str| wire::CheckRequest {
        approval_id: id.to_owned(),
        ..request
    };
    assert_eq!("APPROVAL_MISMATCH", bank.code(&with(bank.pay(6), &id)));
    assert_eq!("APPROVAL_MISMATCH", bank.code(&with(bank.pay(5), "nonsense")));
    let (hex, _) = id.split_once('-').unwrap();
    assert_eq!("APPROVAL_MISMATCH", bank.code(&with(bank.pay(5), &format!("{hex}-2"))));
    let read = calling(&bank.task, "bank.note", &json!({}));
    assert_eq!("PERMITTED", bank.code(&read));
    assert_eq!("APPROVAL_MISMATCH", bank.code(&with(read, &id)), "a call that needs none");
    let probe = wire::CheckRequest { mode: wire::Mode::Probe as i32, ..with(bank.pay(6), &id) };
    assert_ne!("PERMITTED", bank.code(&probe));
    assert_eq!("APPROVAL_REQUIRED", bank.code(&with(bank.pay(5), &id)));
    bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&with(bank.pay(5), &id)));
    assert_eq!("APPROVAL_EXPIRED", bank.code(&with(bank.pay(5), &id)), "it was used");
    bank.asked(&bank.pay(5));
    assert_eq!("APPROVAL_EXPIRED", bank.code(&with(bank.pay(5), &id)), "a newer one replaces it");
}

/// Another argument, task, agent or subject is another call.
#[test]
fn an_answer_covers_one_call() {
    let bank = Bank::with(PAY);
    let id = bank.asked(&bank.pay(5));
    bank.approve(&manager("bob"), &id).unwrap();
    let other_task = bank.start();
    let elsewhere = wire::CheckRequest { task: other_task, ..bank.pay(5) };
    let with_null =
        calling(&bank.task, "bank.pay", &json!({"to": "DE1", "amount": 5, "note": null}));
    let labelled = wire::CheckRequest { labels: vec!["secret".to_owned()], ..bank.pay(5) };
    for other in [bank.pay(6), elsewhere, with_null, labelled] {
        assert_ne!(id, bank.asked(&other));
    }
    assert_eq!(
        "NOT_ASSIGNEE",
        bank.code(&wire::CheckRequest { evidence: vec![agent(TWO)], ..bank.pay(5) })
    );
    assert_eq!("PERMITTED", bank.code(&bank.pay(5)));
}

/// The call is judged again at its use: a rule that the person did not see asks anew, also the same rule under another id.
#[test]
fn a_reload_asks_anew() {
    let renamed = PAY.replace("@id(\"pay\")", "@id(\"pays\")");
    let reworded = PAY.replace("are approved", "need a yes");
    let more = format!("{PAY}\n{}", PAY.replace("@id(\"pay\")", "@id(\"second\")"));
    let finance = format!(
        "{PAY}\n{}",
        PAY.replace("\"pay\"", "\"second\"").replace("\"approve\"", "\"approve:finance\"")
    );
    for policies in [renamed, reworded, more, finance] {
        let bank = Bank::with(PAY);
        let id = bank.asked(&bank.pay(5));
        bank.approve(&manager("bob"), &id).unwrap();
        bank.load(&policies);
        let next = bank.asked(&bank.pay(5));
        assert_ne!(id, next, "{policies}");
        assert!(
            bank.notes()
                .iter()
                .any(|note| note["why"] == json!("another rule needs a step-up now"))
        );
        let open = Bank::with(PAY);
        let id = open.asked(&open.pay(5));
        open.load(&policies);
        assert_ne!(id, open.asked(&open.pay(5)), "an open one, too: {policies}");
    }
    // The same bundle, loaded again, and one that forbids less.
    for policies in [PAY, ""] {
        let bank = Bank::with(PAY);
        let id = bank.asked(&bank.pay(5));
        bank.approve(&manager("bob"), &id).unwrap();
        bank.load(policies);
        assert_eq!("PERMITTED", bank.code(&bank.pay(5)));
    }
    let bank = Bank::with(PAY);
    let id = bank.asked(&bank.pay(5));
    bank.approve(&manager("bob"), &id).unwrap();
    bank.load(r#"@id("never") forbid(principal, action == Action::"bank.pay", resource);"#);
    assert_eq!("FORBIDDEN", bank.code(&bank.pay(5)), "nothing lifts a forbid");
}

/// A label that joins the session after the answer, and for which another rule fires, asks anew.
#[test]
fn a_label_that_joined_meanwhile_asks_anew() {
    let secret = format!(
        "{PAY}\n{}",
        r#"@id("secret") @stepup("approve") forbid(principal, action == Action::"bank.pay", resource)
           when { context.session.labels.contains(Label::"secret") }
           unless { context.satisfied.contains(Kind::"approve") };"#
    );
    let bank = Bank::with(&secret);
    let id = bank.asked(&bank.pay(5));
    bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&calling(&bank.task, "bank.read", &json!({}))));
    let next = bank.asked(&bank.pay(5));
    assert_ne!(id, next);
    assert_eq!(vec!["secret".to_owned()], bank.show(&manager("bob"), &next).unwrap().labels);
    bank.approve(&manager("bob"), &next).unwrap();
    assert_eq!("PERMITTED", bank.code(&bank.pay(5)));
}

/// A rejection covers operation, destinations and values for the pair's memory, also in another task.
#[test]
fn a_rejection_is_remembered() {
    let bank = Bank::with(PAY);
    let id = bank.asked(&bank.pay(5));
    let request = wire::ResolveRequest {
        reject_reason: "wrong_amount".to_owned(),
        comment: "far too much".to_owned(),
        ..answering(&bank.served, &id, false)
    };
    let wrong = wire::ResolveRequest { reject_reason: "because".to_owned(), ..request.clone() };
    assert!(resolve(&bank.served, &manager("bob"), &wrong).is_err());
    let rejected = resolve(&bank.served, &manager("bob"), &request).unwrap();
    assert_eq!(
        ("wrong_amount", "The amount is wrong."),
        (&*rejected.reject_reason, &*rejected.reject_text)
    );
    assert_eq!("APPROVAL_REJECTED", bank.code(&bank.pay(5)));
    assert_eq!(
        "A person rejected it: The amount is wrong.",
        bank.check(&bank.pay(5)).shown_reason,
        "the agent reads the reason"
    );
    let elsewhere = wire::CheckRequest { task: bank.start(), ..bank.pay(5) };
    assert_eq!("APPROVAL_REJECTED", bank.code(&elsewhere));
    let noted =
        calling(&bank.task, "bank.pay", &json!({"to": "DE1", "amount": 5, "note": "please"}));
    assert_eq!("APPROVAL_REJECTED", bank.code(&noted), "the same values");
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.pay(6)), "another amount");
    assert!(
        !bank.check(&bank.pay(5)).message.contains("far too much"),
        "no agent sees the comment"
    );
    bank.clock.advance(Duration::from_secs(25 * 3_600));
    let (bot, alice) = (fresh_agent(&bank.clock), fresh_alice(&bank.clock));
    let request = crate::tasks::starting(vec![bot.clone(), alice]);
    let task = crate::tasks::start(&bank.served, &request).unwrap().id;
    let again = wire::CheckRequest { evidence: vec![bot], task, ..bank.pay(5) };
    assert_eq!("APPROVAL_REQUIRED", bank.code(&again), "the memory has ended");
}

/// Evidence of the bot whose token is of the scripted time.
fn fresh_agent(clock: &ScriptedClock) -> wire::Evidence {
    let now = i64::try_from(clock.since_1970().as_secs()).unwrap();
    evidence(wire::EvidenceRole::Agent, svid_with(BOT, "authz", now + 300))
}

fn fresh_alice(clock: &ScriptedClock) -> wire::Evidence {
    let now = i64::try_from(clock.since_1970().as_secs()).unwrap();
    let claims = json!({
        "iss": "https://idp.example", "sub": "alice", "aud": "authz", "exp": now + 300, "iat": now,
        "groups": ["employees"],
    });
    evidence(wire::EvidenceRole::Subject, subject_token(&claims))
}

/// An answer is good for ten minutes, and an approval ends after a day. An expired approval is not a rejected one.
#[test]
fn an_approval_expires() {
    let bank = Bank::with(PAY);
    let pay = |id: &str| wire::CheckRequest {
        approval_id: id.to_owned(),
        evidence: vec![fresh_agent(&bank.clock)],
        ..bank.pay(5)
    };
    let id = bank.asked(&pay(""));
    bank.approve(&manager("bob"), &id).unwrap();
    bank.clock.advance(Duration::from_secs(600));
    assert_eq!("APPROVAL_EXPIRED", bank.code(&pay(&id)));
    let next = bank.asked(&pay(""));
    assert_ne!(id, next);
    assert_eq!(Err("APPROVAL_EXPIRED"), bank.show(&manager("bob"), &id).map(drop));
    bank.clock.advance(Duration::from_secs(24 * 3_600));
    let expired = bank.show(&manager("bob"), &next).unwrap();
    assert_eq!((wire::ApprovalStatus::Expired as i32, false), (expired.status, expired.answerable));
    assert_eq!(Err("APPROVAL_EXPIRED"), bank.approve(&manager("bob"), &next).map(drop));
    assert!(listed(&bank.served, &Value::Null, "").is_empty());
    assert_eq!("TASK_ENDED", bank.code(&pay(&next)));
}

/// The clean-up of the store ends approvals whose time is up, counts each once, and tells callers that wait. None of them is a rejection.
#[test]
fn ended_approvals_are_counted_and_told() {
    let bank = Bank::with(PAY);
    let pay = |amount: i64, id: &str| wire::CheckRequest {
        approval_id: id.to_owned(),
        evidence: vec![fresh_agent(&bank.clock)],
        ..bank.pay(amount)
    };
    let (open, approved) = (bank.asked(&pay(1, "")), bank.asked(&pay(2, "")));
    bank.approve(&manager("bob"), &approved).unwrap();
    let sweep = || {
        let swept = bank.served.engine.sweep();
        assert_eq!("", swept.error);
    };
    let counted = |event: &str| {
        let families = bank.served.engine.metrics();
        let samples = families.iter().filter(|one| one.name == "authz_approvals");
        let wanted = samples.flat_map(|one| &one.samples).filter(|sample| {
            let has = |value: &str| sample.labels.iter().any(|(_, one)| one == value);
            has(event) && has("approve")
        });
        wanted.map(|sample| sample.value).sum::<f64>()
    };
    let told = |after| {
        let (newest, changes) = bank.served.engine.approval_changes(after, Duration::ZERO);
        let changes = changes.unwrap().into_iter();
        (newest, changes.map(|one| (one.approval_id, one.status)).collect::<Vec<_>>())
    };
    let (newest, _) = told(0);
    sweep();
    assert_eq!((newest, Vec::new()), told(newest), "nothing is due");

    bank.clock.advance(Duration::from_secs(601));
    sweep();
    sweep();
    let (newest, changes) = told(newest);
    assert_eq!(vec![(approved.clone(), "expired")], changes);
    assert_eq!((0.0, 1.0), (counted("expired"), counted("unused")));
    assert_eq!("APPROVAL_EXPIRED", bank.code(&pay(2, &approved)));

    bank.clock.advance(Duration::from_secs(24 * 3_600 - 602));
    sweep();
    assert_eq!((newest, Vec::new()), told(newest), "a second is left");
    bank.clock.advance(Duration::from_secs(2));
    sweep();
    assert_eq!(vec![(open.clone(), "expired")], told(newest).1);
    assert_eq!((1.0, 1.0), (counted("expired"), counted("unused")));
    let shown = bank.show(&Value::Null, &open).unwrap();
    assert_eq!(wire::ApprovalStatus::Expired as i32, shown.status);
    let fresh = vec![fresh_agent(&bank.clock), fresh_alice(&bank.clock)];
    let task = crate::tasks::start(&bank.served, &crate::tasks::starting(fresh)).unwrap().id;
    let again = wire::CheckRequest { task, ..pay(1, "") };
    assert_eq!("APPROVAL_REQUIRED", bank.code(&again), "nobody rejected it");
}

/// Who may answer: policies, roles and the chain decide; the owner of the socket answers nothing.
#[test]
fn who_answers() {
    let bank = Bank::with(PAY);
    let id = bank.asked(&bank.pay(5));
    let denied = "NOT_PERMITTED";
    assert_eq!(Err(denied), bank.approve(&Value::Null, &id).map(drop));
    assert_eq!(
        Err(denied),
        bank.approve(&person("carol", &["employees"]), &id).map(drop),
        "no policy permits it"
    );
    assert_eq!(
        Err(denied),
        bank.approve(&person("dan", &["finance"]), &id).map(drop),
        "a permit for another queue"
    );
    assert_eq!(
        Err(denied),
        bank.approve(&manager("alice"), &id).map(drop),
        "the subject of the call"
    );
    // Nobody else sees the arguments of the call.
    for stranger in [manager("alice"), person("carol", &["employees"]), person("dan", &["finance"])]
    {
        assert!(listed(&bank.served, &stranger, "").is_empty());
        assert_eq!(Err("APPROVAL_MISMATCH"), bank.show(&stranger, &id).map(drop));
    }
    assert_eq!(vec![id.clone()], listed(&bank.served, &manager("bob"), ""));
    let mut early = manager("bob");
    early["authenticated_at_ms"] = json!(bank.clock.since_1970().as_millis() as i64 - 1_001);
    assert_eq!(
        Err(denied),
        bank.approve(&early, &id).map(drop),
        "the login is older than the call"
    );
    assert_eq!(Err("APPROVAL_MISMATCH"), bank.approve(&manager("bob"), "x").map(drop));
    bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!(
        Err("APPROVAL_EXPIRED"),
        bank.approve(&manager("eve"), &id).map(drop),
        "answered already"
    );
    assert_eq!("PERMITTED", bank.code(&bank.pay(5)));
}

/// Both digests are needed, and that of the call is compared.
#[test]
fn digests_are_needed() {
    let bank = Bank::with(PAY);
    let id = bank.asked(&bank.pay(5));
    let whole = answering(&bank.served, &id, true);
    let reason = |request: &wire::ResolveRequest| {
        resolve(&bank.served, &manager("bob"), request)
            .map(drop)
            .map_err(|error| error.reason_code.as_str())
    };
    let without = |digest: Vec<u8>| wire::ResolveRequest { digest, ..whole.clone() };
    assert_eq!(Err("BAD_INPUT"), reason(&without(Vec::new())));
    assert_eq!(Err("APPROVAL_MISMATCH"), reason(&without(vec![9; 32])));
    assert_eq!(
        Err("BAD_INPUT"),
        reason(&wire::ResolveRequest { card_digest: Vec::new(), ..whole.clone() })
    );
    assert_eq!(Err("BAD_INPUT"), reason(&wire::ResolveRequest { status: 0, ..whole.clone() }));
    assert_eq!(
        Err("BAD_INPUT"),
        reason(&wire::ResolveRequest { comment: "x".repeat(1_025), ..whole.clone() })
    );
    assert_eq!(Ok(()), reason(&whole));
}

/// The subject confirms, and nobody else does.
#[test]
fn the_subject_confirms() {
    let bank = Bank::with("");
    let mail = calling(&bank.task, "bank.mail", &json!({"text": "hello"}));
    let decision = bank.check(&mail);
    assert_eq!("CONFIRM_REQUIRED", code(&decision));
    let id = decision.challenge.unwrap().approval_id;
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&manager("bob"), &id).map(drop));
    assert!(listed(&bank.served, &manager("bob"), "").is_empty());
    let alice = person("alice", &["employees"]);
    assert_eq!(vec![id.clone()], listed(&bank.served, &alice, ""));
    bank.approve(&alice, &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&mail));
    let namesake = json!({"issuer": "other", "sub": "alice", "method": "login", "authenticated_at_ms": 1_i64 << 50});
    let id = bank.check(&mail).challenge.unwrap().approval_id;
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&namesake, &id).map(drop));
}

/// Where no person is in the chain, another person answers for it.
#[test]
fn nobody_of_the_chain_confirms() {
    let bank = Bank::with("");
    let task =
        crate::tasks::start(&bank.served, &crate::tasks::starting(vec![agent(BOT)])).unwrap().id;
    let mail = calling(&task, "bank.mail", &json!({"text": "hello"}));
    let decision = bank.check(&mail);
    assert_eq!("CONFIRM_REQUIRED", code(&decision));
    let id = decision.challenge.unwrap().approval_id;
    assert_eq!(vec!["approve".to_owned()], bank.show(&manager("bob"), &id).unwrap().waits_for);
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&person("alice", &[]), &id).map(drop));
    bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&mail));
}

/// A queue of a role needs the role.
#[test]
fn a_role_answers_its_queue() {
    let bank = Bank::with(&PAY.replace("\"approve\"", "\"approve:finance\""));
    let id = bank.asked(&bank.pay(5));
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&manager("bob"), &id).map(drop));
    assert_eq!(
        vec![id.clone()],
        listed(&bank.served, &person("dan", &["finance"]), "approve:finance")
    );
    assert!(listed(&bank.served, &person("dan", &["finance"]), "approve").is_empty());
    bank.approve(&person("dan", &["finance"]), &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&bank.pay(5)));
}

/// Metrics tell queues and rules apart, and the clean-up counts approvals that nobody answered in time, once.
#[test]
fn metrics_by_queue_and_rule() {
    let double = PAY
        .replace("\"pay\"", "\"amount\"")
        .replace("resource)", "resource) when { context.input.amount > 10 }");
    let finance = PAY.replace("\"pay\"", "\"payee\"").replace("\"approve\"", "\"approve:finance\"");
    let bank = Bank::with(&format!("{PAY}\n{double}\n{finance}"));
    let metric = |name: &str| -> Vec<String> {
        let families = bank.served.engine.metrics();
        let samples = families.iter().flat_map(|family| &family.samples);
        let text = |sample: &authz_lane::metrics::Sample| {
            let labels: Vec<&str> = sample.labels.iter().map(|(_, value)| value.as_str()).collect();
            format!("{} {}", labels.join("/"), sample.value)
        };
        samples.filter(|sample| sample.name == name).map(text).collect()
    };
    let first = bank.asked(&bank.pay(5));
    bank.clock.advance(Duration::from_secs(60));
    let fresh = |amount| wire::CheckRequest {
        evidence: vec![fresh_agent(&bank.clock)],
        ..bank.pay(amount)
    };
    bank.asked(&fresh(50));
    assert!(bank.served.engine.sweep().error.is_empty());
    assert_eq!(
        vec!["approve/amount, pay 1", "approve/pay 1", "approve:finance/payee 2"],
        metric("authz_approvals_open")
    );
    assert_eq!(
        vec!["approve/amount, pay 0", "approve/pay 60", "approve:finance/payee 60"],
        metric("authz_approvals_oldest_seconds")
    );
    bank.show(&manager("bob"), &first).unwrap();
    bank.clock.advance(Duration::from_secs(2));
    bank.approve(&manager("bob"), &first).unwrap();
    assert_eq!(vec!["approve/pay 1"], metric("authz_approvals_fast_answers_total"));
    assert_eq!(vec!["approve/pay 2"], metric("authz_approval_decision_seconds_sum"));
    assert!(bank.served.engine.sweep().error.is_empty());
    assert_eq!(
        vec!["approve/amount, pay 1", "approve/pay 0", "approve:finance/payee 2"],
        metric("authz_approvals_open"),
        "a queue that was answered waits no longer"
    );
    bank.clock.advance(Duration::from_secs(24 * 3_600));
    for _ in 0..2 {
        assert!(bank.served.engine.sweep().error.is_empty());
        let mut expired = metric("authz_approvals_total");
        expired.retain(|line| line.contains("/expired "));
        assert_eq!(
            vec!["approve/amount, pay/expired 1", "approve:finance/payee/expired 2"],
            expired
        );
    }
    assert!(metric("authz_approvals_oldest_seconds").is_empty());
}

/// A card names values of the task's approved calls, and of no other call or task.
#[test]
fn a_card_knows_the_approved_calls_of_its_task() {
    let bank = Bank::with(PAY);
    let to = |task: &str, to: &str, amount: i64| {
        calling(task, "bank.pay", &json!({"to": to, "amount": amount}))
    };
    let earlier = |request: &wire::CheckRequest| {
        let id = bank.asked(request);
        bank.show(&manager("bob"), &id).unwrap().earlier_values
    };
    assert!(earlier(&to(&bank.task, "DE9", 9)).is_empty(), "it is only asked for");
    for (account, amount) in [("DE1", 1), ("DE2", 2), ("DE1", 3)] {
        let request = to(&bank.task, account, amount);
        let id = bank.asked(&request);
        bank.approve(&manager("bob"), &id).unwrap();
        assert_eq!("PERMITTED", bank.code(&request));
    }
    assert_eq!(vec!["DE1", "DE2"], earlier(&to(&bank.task, "DE3", 4)));
    assert!(earlier(&to(&bank.start(), "DE3", 4)).is_empty());
}

/// Two people approve, and one of them does not do so twice.
#[test]
fn two_people_approve() {
    let bank = Bank::with(&PAY.replace("\"approve\"", "\"two_person\""));
    let id = bank.asked(&bank.pay(5));
    let once = bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!(
        (wire::ApprovalStatus::Pending as i32, vec!["two_person".to_owned()]),
        (once.status, once.waits_for)
    );
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.pay(5)));
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&manager("bob"), &id).map(drop));
    let twice = bank.approve(&manager("eve"), &id).unwrap();
    assert_eq!(wire::ApprovalStatus::Approved as i32, twice.status);
    assert_eq!("PERMITTED", bank.code(&bank.pay(5)));
}

/// A call of a high tier is answered with a passkey of the person only.
#[test]
fn a_high_tier_needs_a_passkey() {
    let bank = Bank::with(PAY);
    let wipe = calling(&bank.task, "bank.wipe", &json!({"id": "7"}));
    let id = bank.asked(&wipe);
    let shown = bank.show(&manager("bob"), &id).unwrap();
    assert_eq!((true, "accounts/7"), (shown.needs_passkey, &*shown.resource));
    let socket = {
        let mut person = manager("bob");
        person["method"] = json!("socket");
        person["uid"] = json!(1_000);
        person
    };
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&manager("bob"), &id).map(drop));
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&socket, &id).map(drop));
    let passkey = by_passkey(&manager("bob"));
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&passkey, &id).map(drop), "it is not registered");
    let record = |sub: &str| {
        json!({
            "issuer": "corp", "sub": sub, "credential_id": "Y3JlZA", "public_key": "a2V5", "created_at": 1,
        })
    };
    let engine = &bank.served.engine;
    engine.put_passkey(record("eve").to_string().as_bytes()).unwrap();
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&passkey, &id).map(drop), "another person's");
    engine.put_passkey(record("bob").to_string().as_bytes()).unwrap();
    engine.remove_passkey("corp", "eve", "Y3JlZA").unwrap();
    let kept: Value = serde_json::from_str(&engine.passkeys("corp", "bob").unwrap()).unwrap();
    assert_eq!(json!("Y3JlZA"), kept[0]["credential_id"]);
    assert_eq!("[]", engine.passkeys("corp", "eve").unwrap());
    bank.approve(&passkey, &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&wipe));
}

/// The bot steers a browser.
const STEERS: (&str, &str) = (
    "steers.yaml",
    "agents: {pilot: {match: ['spiffe://a.example/ns/support/sa/bot'], controls: [browser]}}",
);

/// An agent with `controls` in its chain could press the button of the page, so a person answers with a passkey at each tier.
#[test]
fn an_agent_that_controls_a_browser_needs_a_passkey() {
    let bank = Bank::with(PAY);
    let (before, approved) = (bank.asked(&bank.pay(1)), bank.asked(&bank.pay(2)));
    bank.approve(&manager("bob"), &approved).unwrap();
    bank.served.engine.load(world_by(PAY, &[STEERS])).unwrap();
    let mail = bank.check(&calling(&bank.task, "bank.mail", &json!({"text": "hi"})));
    let mail = mail.challenge.unwrap().approval_id;
    let alice = person("alice", &["employees"]);
    assert!(bank.show(&alice, &mail).unwrap().needs_passkey, "confirm, too");
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&alice, &mail).map(drop));

    let id = bank.asked(&bank.pay(1));
    assert_ne!(before, id, "people were asked for an answer without a passkey");
    assert_ne!(approved, bank.asked(&bank.pay(2)), "the answer was given without a passkey");
    assert_eq!(id, bank.asked(&bank.pay(1)));
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&manager("bob"), &id).map(drop));
    let record = json!({
        "issuer": "corp", "sub": "bob", "credential_id": "Y3JlZA", "public_key": "a2V5", "created_at": 1,
    });
    bank.served.engine.put_passkey(record.to_string().as_bytes()).unwrap();
    bank.approve(&by_passkey(&manager("bob")), &id).unwrap();
    assert_eq!("PERMITTED", bank.code(&bank.pay(1)));
    let whys: Vec<Value> = bank.notes().iter().map(|note| note["why"].clone()).collect();
    assert!(whys.contains(&json!("the call needs a passkey now")), "{whys:?}");
}

/// The agent with `controls` may stand anywhere in the chain.
#[test]
fn controls_count_for_each_agent_of_the_chain() {
    let bank = Bank::with(PAY);
    let ask = || {
        let root = crate::tasks::start(&bank.served, &starting_for_alice()).unwrap();
        let given = crate::tasks::delegating(&root, BOT, TWO);
        let child = crate::tasks::delegate(&bank.served, &given).unwrap();
        let call = wire::CheckRequest { task: child.id, evidence: vec![agent(TWO)], ..bank.pay(1) };
        let id = bank.asked(&call);
        bank.show(&manager("bob"), &id).unwrap().needs_passkey
    };
    assert!(!ask());
    bank.served.engine.load(world_by(PAY, &[STEERS])).unwrap();
    assert!(ask(), "the agent that gave the task steers a browser");
}

/// A task has five open approvals, and the next call is told to wait. An answered one makes room.
#[test]
fn a_full_queue_is_busy() {
    let bank = Bank::with(PAY);
    let first = bank.asked(&bank.pay(0));
    (1..5).for_each(|amount| drop(bank.asked(&bank.pay(amount))));
    let busy = bank.check(&bank.pay(5));
    assert_eq!(("APPROVER_BUSY", None), (code(&busy), busy.challenge));
    assert_eq!(first, bank.asked(&bank.pay(0)), "an open one is repeated");
    assert_eq!(
        "APPROVAL_REQUIRED",
        bank.code(&wire::CheckRequest { task: bank.start(), ..bank.pay(5) })
    );
    bank.answer(&manager("bob"), &first, false).unwrap();
    assert_eq!("APPROVAL_REQUIRED", bank.code(&bank.pay(5)));
}

/// The bundle bounds queues, names deputies, and lists the reasons of rejections.
#[test]
fn rules_of_the_bundle() {
    let rules = "
approvals:
  confirm_without_person: approve:finance
  queues:
    approve:manager: {max_open: 2, escalate_after: 15m, deputies: finance}
    confirm: {max_hourly: 1}
  limits: {open_per_task: 3}
  reject_reasons: {no: 'It is not wanted.'}
";
    let policies = format!(
        "{}\n@id(\"deputies\") permit(principal in Role::\"finance\", action == Action::\"authz.approve\", resource);",
        PAY.replace("\"approve\"", "\"approve:manager\"")
    );
    let bank = Bank::with(PAY);
    bank.served.engine.load(world_by(&policies, &[("approvals.yaml", rules)])).unwrap();
    let (first, _) = (bank.asked(&bank.pay(1)), bank.asked(&bank.pay(2)));
    let elsewhere = wire::CheckRequest { task: bank.start(), ..bank.pay(3) };
    assert_eq!("APPROVER_BUSY", bank.code(&elsewhere), "the queue of all tasks");
    let dan = person("dan", &["finance"]);
    assert_eq!(Err("NOT_PERMITTED"), bank.approve(&dan, &first).map(drop));
    assert!(listed(&bank.served, &dan, "").is_empty());
    bank.clock.advance(Duration::from_secs(900));
    assert_eq!(2, listed(&bank.served, &dan, "").len());
    let request = wire::ResolveRequest {
        reject_reason: "no".to_owned(),
        ..answering(&bank.served, &first, false)
    };
    assert_eq!("It is not wanted.", resolve(&bank.served, &dan, &request).unwrap().reject_text);
    let mail = |text: &str| wire::CheckRequest {
        evidence: vec![fresh_agent(&bank.clock)],
        ..calling(&bank.task, "bank.mail", &json!({"text": text}))
    };
    let confirm = bank.check(&mail("a")).challenge.unwrap().approval_id;
    bank.approve(&person("alice", &[]), &confirm).unwrap();
    assert_eq!("APPROVER_BUSY", bank.code(&mail("b")), "one in an hour");
    let alone =
        crate::tasks::start(&bank.served, &crate::tasks::starting(vec![fresh_agent(&bank.clock)]));
    let task = alone.unwrap().id;
    let id = bank.check(&wire::CheckRequest { task, ..mail("b") }).challenge.unwrap().approval_id;
    let shown = bank.show(&dan, &id).unwrap();
    assert_eq!(vec!["approve:finance".to_owned()], shown.waits_for);
}

/// Calls without a task step up, too: the approval is of caller and call. Nothing counts them as one task.
#[test]
fn a_call_without_a_task() {
    let served = served();
    let optional = [("bundle.yaml", "{name: desk, tasks: optional}")];
    served.engine.load(world_by(PAY, &optional)).unwrap();
    let pay = |amount: i64| wire::CheckRequest {
        evidence: chain(),
        ..calling("", "bank.pay", &json!({"to": "DE1", "amount": amount}))
    };
    let asked = |amount| served.check(&pay(amount)).challenge.unwrap().approval_id;
    let id = asked(0);
    assert_eq!(id, asked(0));
    (1..8).for_each(|amount| assert_ne!(id, asked(amount)));
    assert_eq!("", show(&served, &Value::Null, &id).unwrap().task);
    answer(&served, &manager("bob"), &id, true).unwrap();
    assert_eq!("PERMITTED", code(&served.check(&pay(0))));
    assert_ne!(id, asked(0));
}

/// A revoked agent gets nothing for its approval, and a revoked person answers nothing.
#[test]
fn revocations_count() {
    let bank = Bank::with(PAY);
    let id = bank.asked(&bank.pay(5));
    let revoke = |target: Target| {
        let request = wire::AdminRevokeRequest { target: Some(target), ..Default::default() };
        let done: Result<wire::AdminRevokeResponse, _> =
            crate::tasks::call_by(&bank.served, "admin", Surface::Revoke, &request);
        done.unwrap();
    };
    revoke(Target::Subject("corp/eve".to_owned()));
    assert_eq!(Err("REVOKED"), bank.approve(&manager("eve"), &id).map(drop));
    bank.approve(&manager("bob"), &id).unwrap();
    revoke(Target::Agent(BOT.to_owned()));
    assert_eq!("REVOKED", bank.code(&bank.pay(5)));
}

/// Probes, observed calls and explanations ask nobody.
#[test]
fn a_probe_asks_nobody() {
    let bank = Bank::with(PAY);
    let probe = wire::CheckRequest { mode: wire::Mode::Probe as i32, ..bank.pay(5) };
    let decision = bank.check(&probe);
    assert_eq!(("APPROVAL_REQUIRED", None), (code(&decision), decision.challenge));
    bank.served
        .engine
        .load(world_by(
            PAY,
            &[("mode.yaml", "mode: {default: observe, owner: sec, until: 2999-01-01}")],
        ))
        .unwrap();
    let observed = bank.check(&bank.pay(5));
    assert!(observed.observed.is_some() && observed.challenge.is_none());
    assert!(listed(&bank.served, &Value::Null, "").is_empty());
}

/// A probe says what a check would say of the answers of people, and leaves them as they are.
#[test]
fn a_probe_knows_the_answers() {
    let bank = Bank::with(PAY);
    let probed = |amount: i64| {
        bank.code(&wire::CheckRequest { mode: wire::Mode::Probe as i32, ..bank.pay(amount) })
    };
    let id = bank.asked(&bank.pay(1));
    assert_eq!("APPROVAL_REQUIRED", probed(1));
    bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!(("PERMITTED", "PERMITTED"), (probed(1), probed(1)), "a probe uses up no answer");
    assert_eq!("PERMITTED", bank.code(&bank.pay(1)));
    assert_eq!("APPROVAL_REQUIRED", probed(1), "the answer was used");

    let id = bank.asked(&bank.pay(2));
    bank.answer(&manager("bob"), &id, false).unwrap();
    assert_eq!(("APPROVAL_REJECTED", "APPROVAL_REJECTED"), (probed(2), bank.code(&bank.pay(2))));

    (10..15).for_each(|amount| drop(bank.asked(&bank.pay(amount))));
    assert_eq!(("APPROVER_BUSY", "APPROVER_BUSY"), (probed(15), bank.code(&bank.pay(15))));
    assert_eq!("APPROVAL_REQUIRED", probed(10), "an open one is repeated");
    let presented =
        wire::CheckRequest { mode: wire::Mode::Probe as i32, approval_id: id, ..bank.pay(10) };
    assert_eq!("APPROVAL_MISMATCH", bank.code(&presented));
    let notes = bank.notes();
    let probes = notes.iter().filter(|note| note["event"] == json!("made")).count();
    assert_eq!(7, probes, "only checks make approvals: {notes:?}");
}

/// The agent of the call sees the status of its own approval, and no more.
#[test]
fn the_agent_sees_the_status() {
    let bank = Bank::with(PAY);
    let id = bank.asked(&bank.pay(5));
    let get = |by: &str| {
        let request =
            wire::ApprovalsGetRequest { evidence: vec![agent(by)], approval_id: id.clone() };
        let answer: Result<wire::ApprovalsGetResponse, _> =
            crate::tasks::call(&bank.served, Surface::ApprovalGet, &request);
        answer.map(|answer| answer.approval.unwrap())
    };
    let seen = get(BOT).unwrap();
    assert_eq!(
        (wire::ApprovalStatus::Pending as i32, vec!["approve".to_owned()]),
        (seen.status, seen.kinds.clone())
    );
    assert!(seen.arguments_json.is_empty() && seen.digest.is_empty() && seen.reasons.is_empty());
    assert_eq!(Err("APPROVAL_MISMATCH"), get(TWO).map(drop));
    bank.approve(&manager("bob"), &id).unwrap();
    assert_eq!(wire::ApprovalStatus::Approved as i32, get(BOT).unwrap().status);
}

/// Those who wait hear each change.
#[test]
fn changes_are_told() {
    let bank = Bank::with(PAY);
    let changes = |after| bank.served.engine.approval_changes(after, Duration::ZERO);
    let (newest, _) = changes(0);
    let id = bank.asked(&bank.pay(5));
    bank.check(&bank.pay(5));
    bank.approve(&manager("bob"), &id).unwrap();
    bank.check(&bank.pay(5));
    let (after, told) = changes(newest);
    let told: Vec<(String, &str)> =
        told.unwrap().into_iter().map(|one| (one.approval_id, one.status)).collect();
    assert_eq!(["open", "approved", "consumed"].map(|status| (id.clone(), status)).to_vec(), told);
    assert_eq!((after, Some(Vec::new())), changes(after));
}

/// Approvals outlive the process: they are durable before the caller hears of them.
#[test]
fn a_restart_keeps_approvals() {
    let folder = folder();
    let state = json!({"state": {"engine": "embedded", "path": folder.join("state")}});
    let serve = || {
        let served = unloaded(&state);
        served.engine.load(world_by(PAY, &[])).unwrap();
        served
    };
    let first = serve();
    let task = start_at(&first);
    let pay = calling(&task, "bank.pay", &json!({"to": "DE1", "amount": 5}));
    let id = first.check(&pay).challenge.unwrap().approval_id;
    first.engine.close();
    drop(first);
    let second = serve();
    assert_eq!(id, second.check(&pay).challenge.unwrap().approval_id);
    answer(&second, &manager("bob"), &id, true).unwrap();
    second.engine.close();
    drop(second);
    let third = serve();
    assert_eq!("PERMITTED", code(&third.check(&pay)));
    third.engine.close();
    drop(third);
    let fourth = serve();
    assert_ne!(id, fourth.check(&pay).challenge.unwrap().approval_id);
}

/// Arguments that are too long to show can only be rejected.
#[test]
fn what_cannot_be_shown_is_not_approved() {
    let bank = Bank::with(PAY);
    let long = "x".repeat(70_000);
    let pay = calling(&bank.task, "bank.pay", &json!({"to": "DE1", "amount": 5, "note": long}));
    let id = bank.asked(&pay);
    let shown = bank.show(&manager("bob"), &id).unwrap();
    assert!(shown.cannot_be_shown.contains("65536") && shown.arguments_json.is_empty());
    assert_eq!(Err("BAD_INPUT"), bank.approve(&manager("bob"), &id).map(drop));
    bank.answer(&manager("bob"), &id, false).unwrap();
    assert_eq!("APPROVAL_REJECTED", bank.code(&pay));
}
