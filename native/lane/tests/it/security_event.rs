//! Security events of identity providers: what a subject began before an event ends, and newer tokens count.

use authz_kernel::task::{Record, RecordKind, TaskStatus};
use authz_lane::{Surface, Transport};
use serde_json::{Value, json};

use crate::credentials::Issuing;
use crate::support::*;
use crate::tasks::{REQUIRED, agent, searching, start, starting, subject, world_of};

/// A bundle whose agents need no task.
const FREE: &str = "{name: desk, tasks: optional}";

/// An event of Alice, so many seconds ago.
fn event(seconds_ago: i64) -> Value {
    json!({
        "transmitter": "corp-idp", "jti": "e-1", "event": "session-revoked", "action": "end",
        "reason": "signed out", "subject": {"issuer": "corp", "claim": null, "value": "alice"},
        "at_ms": (now() - seconds_ago) * 1_000, "keep_ms": 3_600_000,
    })
}

fn take_by(served: &Served, listener: &str, event: &Value) -> Result<Value, &'static str> {
    let bytes = event.to_string();
    let transport = Transport::by(listener);
    let answer = served.engine.call(Surface::SecurityEvent, bytes.as_bytes(), &transport);
    answer
        .map(|answer| serde_json::from_slice(&answer).unwrap())
        .map_err(|error| error.reason_code.as_str())
}

fn ended(served: &Served, event: &Value) -> u64 {
    take_by(served, "http", event).unwrap()["tasks_ended"].as_u64().unwrap()
}

/// A token of a user, issued so many seconds ago.
fn issued(sub: &str, seconds_ago: i64) -> String {
    user_at(sub, json!(["employees"]), now() - seconds_ago, "")
}

fn reason(served: &Served, token: String) -> &'static str {
    let mut request = search();
    request.evidence[1].token = token;
    code(&served.check(&request))
}

/// Tokens from before the event are refused, also without a time; newer ones and those of others count.
#[test]
fn earlier_tokens_are_refused() {
    let served = Issuing::with(FREE, &json!({})).served;
    assert_eq!("PERMITTED", reason(&served, issued("alice", 100)));
    assert_eq!(0, ended(&served, &event(50)));
    let timeless = subject_token(&json!({
        "iss": "https://idp.example", "sub": "alice", "aud": "authz", "exp": now() + 300,
        "groups": ["employees"],
    }));
    let decision = {
        let mut request = search();
        request.evidence[1].token = issued("alice", 100);
        served.check(&request)
    };
    assert!(decision.message.contains("signed out"), "{}", decision.message);
    assert_eq!("REVOKED", code(&decision));
    assert_eq!("REVOKED", reason(&served, issued("alice", 50)));
    assert_eq!("REVOKED", reason(&served, timeless));
    assert_eq!("PERMITTED", reason(&served, issued("alice", 40)));
    assert_eq!("PERMITTED", reason(&served, issued("bob", 100)));
    // An older event that comes later, or the same one again, gives nothing back.
    assert_eq!(0, ended(&served, &event(80)));
    assert_eq!(0, ended(&served, &event(50)));
    assert_eq!("REVOKED", reason(&served, issued("alice", 60)));
    assert_eq!("PERMITTED", reason(&served, issued("alice", 40)));
    // It is no revocation of an administrator.
    assert_eq!(0, served.engine.status().revocations);
}

/// An event of a later time than now refuses only the tokens that there are.
#[test]
fn no_event_is_of_tomorrow() {
    let issuing = Issuing::with(FREE, &json!({}));
    assert_eq!(0, ended(&issuing.served, &event(-86_400)));
    let kept = issuing.of_kind(RecordKind::Cutoff);
    let Record::Cutoff(cutoff) = &kept[0] else { panic!("{kept:?}") };
    assert!(cutoff.at.0 <= (now() + 1) * 1_000, "{cutoff:?}");
}

/// Tasks that began with an earlier token end; a task of a newer token stays, also when the event comes again.
#[test]
fn earlier_tasks_end() {
    let issuing = Issuing::new();
    let served = &issuing.served;
    let starting_with = |token: String| {
        let mut evidence = subject("alice");
        evidence.token = token;
        start(served, &starting(vec![evidence, agent(BOT)]))
    };
    let before = starting_with(issued("alice", 100)).unwrap();
    assert_eq!("PERMITTED", code(&served.check(&searching(&before.id, BOT))));
    assert_eq!(1, ended(served, &event(50)));
    assert_eq!("REVOKED", code(&served.check(&searching(&before.id, BOT))));
    assert!(
        matches!(&issuing.of_kind(RecordKind::Task)[..], [Record::Task(task)] if task.status == TaskStatus::Revoked)
    );
    assert_eq!(Err("REVOKED"), starting_with(issued("alice", 100)).map(drop));
    let after = starting_with(issued("alice", 10)).unwrap();
    assert_eq!(0, ended(served, &event(50)));
    assert_eq!("PERMITTED", code(&served.check(&searching(&after.id, BOT))));
}

/// A subject that an event names by its email address is the one whose token has that claim, in whatever case.
#[test]
fn a_subject_is_named_by_a_claim() {
    let served = Issuing::with(FREE, &json!({})).served;
    let mailed = |email: &str| {
        subject_token(&json!({
            "iss": "https://idp.example", "sub": "alice", "aud": "authz", "exp": now() + 300,
            "iat": now() - 100, "groups": ["employees"], "email": email,
        }))
    };
    let mut named = event(50);
    named["subject"] = json!({"issuer": "corp", "claim": "email", "value": "Alice@Corp.example"});
    assert_eq!(0, ended(&served, &named));
    assert_eq!("REVOKED", reason(&served, mailed("alice@corp.example")));
    assert_eq!("PERMITTED", reason(&served, mailed("bob@corp.example")));
    assert_eq!("PERMITTED", reason(&served, issued("alice", 100)));
}

/// An event that is recorded or ignored changes nothing; each event has a record.
#[test]
fn others_are_recorded() {
    let served = Issuing::with(FREE, &json!({})).served;
    for action in ["record", "ignore"] {
        let mut other = event(50);
        other["action"] = json!(action);
        assert_eq!(0, ended(&served, &other));
    }
    assert_eq!("PERMITTED", reason(&served, issued("alice", 100)));
    ended(&served, &event(50));
    served.engine.close();
    let records = served.records();
    let events: Vec<&Value> = records
        .iter()
        .map(|one| &one["input"]["security_event"])
        .filter(|one| one.is_object())
        .collect();
    let actions: Vec<&Value> = events.iter().map(|one| &one["action"]).collect();
    assert_eq!(vec!["record", "ignore", "end"], actions);
    assert_eq!(
        (&json!("corp-idp"), &json!("e-1"), &json!("session-revoked"), &json!("corp/alice")),
        (&events[2]["transmitter"], &events[2]["jti"], &events[2]["event"], &events[2]["subject"])
    );
    assert_eq!(json!("signed out"), events[2]["reason"]);
}

/// The session of an agent without tasks goes on with a newer token.
#[test]
fn a_session_without_tasks_goes_on() {
    let served = unloaded(&json!({}));
    let listeners = listeners_of(&json!([
        {"name": "dev", "insecure_dev": true}, {"name": "http", "http": true},
    ]));
    let plan = plan(&crate::history::IMPLICIT);
    let world = world_of(REQUIRED);
    served.engine.load(authz_lane::World { plan, listeners, ..world }).unwrap();
    assert_eq!("PERMITTED", reason(&served, issued("alice", 100)));
    assert_eq!(0, ended(&served, &event(50)));
    assert_eq!("REVOKED", reason(&served, issued("alice", 100)));
    assert_eq!("PERMITTED", reason(&served, issued("alice", 10)));
}

/// A cut-off goes once no earlier token can be valid any more.
#[test]
fn it_is_removed_in_time() {
    let issuing = Issuing::with(FREE, &json!({}));
    let mut brief = event(50);
    brief["keep_ms"] = json!(0);
    ended(&issuing.served, &brief);
    assert_eq!(1, issuing.of_kind(RecordKind::Cutoff).len());
    drop(issuing.served.engine.sweep());
    assert_eq!(0, issuing.of_kind(RecordKind::Cutoff).len());
    assert_eq!("PERMITTED", reason(&issuing.served, issued("alice", 100)));
}

/// Only the HTTP listener takes events, and none that is not valid.
#[test]
fn what_is_refused() {
    let served = Issuing::new().served;
    for listener in ["dev", "own", "admin", "crm"] {
        assert_eq!(Err("ENFORCER_REFUSED"), take_by(&served, listener, &event(50)), "{listener}");
    }
    assert_eq!(Err("NO_CREDENTIAL"), take_by(&served, "mutual", &event(50)));
    let changed = |member: &str, value: Value| {
        let mut changed = event(50);
        changed[member] = value;
        take_by(&served, "http", &changed)
    };
    let named = |issuer: &str, claim: Value, value: &str| {
        changed("subject", json!({"issuer": issuer, "claim": claim, "value": value}))
    };
    for refused in [
        changed("subject", Value::Null),
        changed("action", json!("forgive")),
        changed("at_ms", json!(-1)),
        changed("keep_ms", json!(-1)),
        changed("more", json!(1)),
        changed("transmitter", json!("x".repeat(300))),
        named("other", Value::Null, "alice"),
        named("corp", Value::Null, ""),
        named("corp", json!(""), "a"),
        named("corp", Value::Null, "a\u{0}"),
        named("corp", Value::Null, &"x".repeat(1_000)),
    ] {
        assert_eq!(Err("BAD_INPUT"), refused);
    }
    assert_eq!("PERMITTED", {
        let served = Issuing::with(FREE, &json!({})).served;
        reason(&served, issued("alice", 100))
    });
}
