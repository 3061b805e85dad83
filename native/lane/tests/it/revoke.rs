//! The kill switch.

use std::sync::Arc;

use authz_kernel::task::{RecordKey, RecordKind};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{ApiError, Engine, Surface, Transport};
use authz_state::store::{MemoryStore, Store, Survives, Transaction};
use prost::Message;
use serde_json::json;

use crate::credentials::soon;
use crate::support::*;
use crate::tasks::{
    REQUIRED, TWO, agent, alices, call, call_by, delegate, delegating, searching, start, starting,
    subject, world_of,
};

fn revoke_by(
    served: &Served,
    listener: &str,
    target: Option<Target>,
) -> Result<wire::AdminRevokeResponse, ApiError> {
    let request =
        wire::AdminRevokeRequest { target, reason: "stolen".to_owned(), ..Default::default() };
    let transport = Transport::by(listener);
    let answer = served.engine.call(Surface::Revoke, &request.encode_to_vec(), &transport)?;
    Ok(wire::AdminRevokeResponse::decode(answer.as_slice()).unwrap())
}

fn revoke(served: &Served, target: Target) {
    revoke_by(served, "admin", Some(target)).unwrap();
}

/// Each kind of target is refused at once, and only what it names.
#[test]
fn every_target() {
    let jti = || {
        let mut request = search();
        request.evidence[0].token = svid_of(&json!({"jti": "t-1"}));
        request
    };
    type Made<'a> = Box<dyn Fn() -> wire::CheckRequest + 'a>;
    let same = || -> Made<'_> { Box::new(search) };
    let cases: Vec<(Target, Made<'_>)> = vec![
        (Target::Agent(BOT.to_owned()), same()),
        (Target::Issuer("a.example".to_owned()), same()),
        (Target::Issuer("corp".to_owned()), same()),
        (Target::Key("d1".to_owned()), same()),
        (Target::Key("c1".to_owned()), same()),
        (Target::Jti("t-1".to_owned()), Box::new(jti)),
        (Target::Operation("crm.search".to_owned()), same()),
        (Target::System("crm".to_owned()), same()),
        (Target::Subject("corp/alice".to_owned()), same()),
    ];
    for (target, request) in cases {
        let served = served();
        assert_eq!("PERMITTED", code(&served.check(&request())), "{target:?}");
        for other in [
            Target::Agent("spiffe://a.example/ns/support/sa/other".to_owned()),
            Target::Issuer("other".to_owned()),
            Target::Key("other".to_owned()),
            Target::Jti("other".to_owned()),
            Target::Operation("crm.delete".to_owned()),
            Target::System("wiki".to_owned()),
            Target::Subject("corp/alice2".to_owned()),
            Target::Subject("corp/Alice".to_owned()),
        ] {
            revoke(&served, other);
        }
        assert_eq!("PERMITTED", code(&served.check(&request())), "{target:?}");
        revoke(&served, target.clone());
        let decision = served.check(&request());
        assert_eq!("REVOKED", code(&decision), "{target:?}");
        assert!(decision.message.contains("stolen"), "{}", decision.message);
        assert_eq!(9, served.engine.status().revocations);
        assert_eq!(9.0, metric(&served, "authz_revocations", &[]));
    }
}

/// `mode: observe` lets nothing through that is revoked.
#[test]
fn observing_never_softens_it() {
    let served = observing("mode: {default: observe, owner: sec, until: 2999-01-01}");
    let mut stranger = search();
    stranger.evidence[0].token = svid_with("spiffe://a.example/other", "authz", now() + 60);
    assert!(!served.check(&stranger).enforced, "it observes");
    revoke(&served, Target::System("crm".to_owned()));
    for request in [search(), stranger] {
        let decision = served.check(&request);
        assert_eq!(("REVOKED", true), (code(&decision), decision.enforced));
    }
    revoke(&served, Target::Agent("spiffe://a.example/other".to_owned()));
    let mut elsewhere = asking("wiki.read");
    elsewhere.evidence[0].token = svid_with("spiffe://a.example/other", "authz", now() + 60);
    assert_eq!("REVOKED", code(&served.check(&elsewhere)));
}

/// Over Envoy's protocol the answer is a denial that no proxy takes for a permit.
#[test]
fn a_proxy_is_told() {
    let served = served();
    let request = http("GET", "/customers?q=a", &[]);
    assert_eq!(0, served.proxy(&request).status.unwrap().code);
    revoke(&served, Target::Agent(BOT.to_owned()));
    assert_eq!(16, served.proxy(&request).status.unwrap().code);
}

/// Only the administration listener revokes, and only what has the form of the target; each try leaves a record.
#[test]
fn refusals() {
    let served = served();
    let of = |listener: &str, target| revoke_by(&served, listener, target).unwrap_err();
    let agent = || Some(Target::Agent(BOT.to_owned()));
    for listener in ["dev", "own", "crm", "unknown"] {
        assert_eq!("ENFORCER_REFUSED", of(listener, agent()).reason_code.as_str(), "{listener}");
    }
    for target in [
        None,
        Some(Target::Agent("bot".to_owned())),
        Some(Target::Agent("spiffe://a.example".to_owned())),
        Some(Target::Operation("crm".to_owned())),
        Some(Target::System("crm.search".to_owned())),
        Some(Target::Jti(String::new())),
        Some(Target::Key("k".repeat(2_049))),
        Some(Target::Subject("alice".to_owned())),
        Some(Target::Subject("corp/".to_owned())),
        Some(Target::Subject("/alice".to_owned())),
        Some(Target::Subject("corp/al\nice".to_owned())),
        Some(Target::Subject("corpp/alice".to_owned())),
        Some(Target::Subject("https://idp.example/alice".to_owned())),
    ] {
        assert_eq!("BAD_INPUT", of("admin", target.clone()).reason_code.as_str(), "{target:?}");
    }
    for target in [Target::Task("t-1".to_owned()), Target::Session("s-1".to_owned())] {
        assert_eq!("UNKNOWN_TASK", of("admin", Some(target)).reason_code.as_str());
    }
    revoke(&served, Target::Agent(BOT.to_owned()));
    let records = served.records();
    assert_eq!(20, records.len());
    let last = records.last().unwrap();
    assert_eq!("PERMITTED", last["result"]["reason_code"]);
    let noted = json!({"target": "agent", "value": BOT, "reason": "stolen"});
    assert_eq!(noted, last["input"]["revoked"]);
    assert_eq!("authz.v1.Admin/Revoke", last["path"]);
}

fn change(
    served: &Served,
    target: &Target,
    undo: bool,
) -> Result<wire::AdminRevokeResponse, ApiError> {
    let request = wire::AdminRevokeRequest {
        target: Some(target.clone()),
        reason: "a drill".to_owned(),
        by: "carol".to_owned(),
        undo,
    };
    call_by(served, "admin", Surface::Revoke, &request)
}

/// The sum of a family's samples that have those labels.
fn metric(served: &Served, name: &str, labels: &[(&str, &str)]) -> f64 {
    let families = served.engine.metrics();
    let family = families.iter().find(|family| family.name == name).unwrap();
    let has = |sample: &[(&str, String)], label: &(&str, &str)| {
        sample.iter().any(|(name, value)| (*name, value.as_str()) == *label)
    };
    let wanted =
        family.samples.iter().filter(|one| labels.iter().all(|label| has(&one.labels, label)));
    wanted.map(|one| one.value).sum()
}

/// A revoked subject is refused in its tasks too, where they are used without its token, on both protocols; they end, and
/// stay ended when the revocation is lifted.
#[test]
fn a_subject_and_its_tasks() {
    let served = unloaded(&json!({}));
    served.engine.load(world_of(REQUIRED)).unwrap();
    let root = alices(&served);
    let child = delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
    let bobs = start(&served, &starting(vec![agent(BOT), subject("bob")])).unwrap();
    let own = start(&served, &starting(vec![agent(BOT)])).unwrap();
    let in_task = |task: &wire::Task, by: &str| code(&served.check(&searching(&task.id, by)));
    let by_proxy = |task: &wire::Task| {
        let request = http("GET", "/customers?q=a", &[("authz-task", &task.id)]);
        served.proxy(&request).status.unwrap().code
    };
    assert_eq!(("PERMITTED", "PERMITTED"), (in_task(&root, BOT), in_task(&child, TWO)));
    assert_eq!(0, by_proxy(&root));
    let alice = Target::Subject("corp/alice".to_owned());
    let answer = change(&served, &alice, false).unwrap();
    assert_eq!((2, false), (answer.tasks_ended, answer.undone));
    assert_eq!(("REVOKED", "REVOKED"), (in_task(&root, BOT), in_task(&child, TWO)));
    assert_eq!(16, by_proxy(&root));
    assert_eq!(("PERMITTED", "PERMITTED"), (in_task(&bobs, BOT), in_task(&own, BOT)));
    let begin = || start(&served, &starting(vec![agent(BOT), subject("alice")]));
    assert_eq!(Err("REVOKED"), begin().map(drop));
    let named = wire::StartRequest {
        asserted_subject: "corp/alice".to_owned(),
        ..starting(vec![agent(BOT)])
    };
    assert_eq!(Err("REVOKED"), start(&served, &named).map(drop));
    let extending = wire::ExtendRequest {
        evidence: vec![agent(BOT), subject("alice")],
        task: root.id.clone(),
        prompt: "more".to_owned(),
        prompt_parts: Vec::new(),
    };
    let extended: Result<wire::ExtendResponse, _> = call(&served, Surface::TaskExtend, &extending);
    assert_eq!(Err("REVOKED"), extended.map(drop));
    let answer = change(&served, &alice, true).unwrap();
    assert_eq!((0, true), (answer.tasks_ended, answer.undone));
    assert_eq!(("REVOKED", "REVOKED"), (in_task(&root, BOT), in_task(&child, TWO)));
    assert_eq!("PERMITTED", in_task(&begin().unwrap(), BOT));
}

/// Each lasting revocation can be lifted, once, by a named person and with a reason; the others are final.
#[test]
fn undone() {
    let kinds = [
        Target::Agent(BOT.to_owned()),
        Target::Issuer("a.example".to_owned()),
        Target::Key("d1".to_owned()),
        Target::Operation("crm.search".to_owned()),
        Target::System("crm".to_owned()),
        Target::Subject("corp/alice".to_owned()),
    ];
    for target in kinds {
        let served = served();
        let outcome = || code(&served.check(&search()));
        let unknown = change(&served, &target, true).unwrap_err();
        assert_eq!("BAD_INPUT", unknown.reason_code.as_str());
        assert!(unknown.message.contains("is not revoked"), "{}", unknown.message);
        change(&served, &target, false).unwrap();
        assert_eq!("REVOKED", outcome(), "{target:?}");
        for blank in ["", "  "] {
            let request = |reason: &str, by: &str| wire::AdminRevokeRequest {
                target: Some(target.clone()),
                reason: reason.to_owned(),
                by: by.to_owned(),
                undo: true,
            };
            for request in [request(blank, "carol"), request("a drill", blank)] {
                let refused: Result<wire::AdminRevokeResponse, _> =
                    call_by(&served, "admin", Surface::Revoke, &request);
                assert_eq!("BAD_INPUT", refused.unwrap_err().reason_code.as_str());
            }
        }
        assert_eq!("REVOKED", outcome(), "{target:?}");
        change(&served, &target, true).unwrap();
        assert_eq!("PERMITTED", outcome(), "{target:?}");
        assert!(change(&served, &target, true).is_err());
        assert_eq!(0, served.engine.status().revocations);
        assert_eq!(1.0, metric(&served, "authz_revocation_changes", &[("change", "undone")]));
        change(&served, &target, false).unwrap();
        assert_eq!("REVOKED", outcome(), "{target:?}");
        let records = served.records();
        let noted: Vec<_> =
            records.iter().filter(|one| one["input"]["revoked"]["undo"] == true).collect();
        let done: Vec<_> =
            noted.iter().filter(|one| one["result"]["reason_code"] == "PERMITTED").collect();
        assert_eq!(1, done.len());
        let note = &done[0]["input"]["revoked"];
        assert_eq!((&json!("a drill"), &json!("carol")), (&note["reason"], &note["by"]));
    }
    let served = served();
    for target in [
        Target::Jti("t-1".to_owned()),
        Target::Task("t".to_owned()),
        Target::Session("s".to_owned()),
    ] {
        let refused = change(&served, &target, true).unwrap_err();
        assert_eq!("BAD_INPUT", refused.reason_code.as_str());
        assert!(refused.message.contains("stays ended"), "{}", refused.message);
    }
}

/// A revoked agent's tasks stay ended when the revocation is lifted, also one that a crash left live.
#[test]
fn tasks_of_an_agent_stay_ended() {
    let audit = folder().join("audit.jsonl");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let engine = Engine::with_store(settings(&audit, &json!({})), Arc::clone(&store)).unwrap();
    let served = Served { engine: Arc::new(engine), audit };
    served.engine.load(world_of(REQUIRED)).unwrap();
    let root = alices(&served);
    let before = store.peek(&RecordKey::new(RecordKind::Task, &root.id), soon()).unwrap().unwrap();
    let bot = Target::Agent(BOT.to_owned());
    assert_eq!(1, change(&served, &bot, false).unwrap().tasks_ended);
    // As if the node had stopped between the revocation and the end of the task.
    let lock = [before.key()];
    let mut work = |transaction: &mut dyn Transaction| {
        transaction.put(before.clone());
        Ok(true)
    };
    drop(store.transact(&lock, Survives::Crash, soon(), &mut work).unwrap());
    assert_eq!("REVOKED", code(&served.check(&searching(&root.id, BOT))));
    assert_eq!(1, change(&served, &bot, true).unwrap().tasks_ended);
    assert_eq!("REVOKED", code(&served.check(&searching(&root.id, BOT))));
    assert_eq!("PERMITTED", code(&served.check(&searching(&alices(&served).id, BOT))));
}

/// The session of an agent without tasks does not end with a revocation, and so goes on once the revocation is lifted.
#[test]
fn a_session_without_tasks_goes_on() {
    let served = unloaded(&json!({}));
    let plan = plan(&crate::history::IMPLICIT);
    served.engine.load(authz_lane::World { plan, ..world_of(REQUIRED) }).unwrap();
    for target in [Target::Agent(BOT.to_owned()), Target::Subject("corp/alice".to_owned())] {
        assert_eq!("PERMITTED", code(&served.check(&search())), "{target:?}");
        assert_eq!(0, change(&served, &target, false).unwrap().tasks_ended);
        assert_eq!("REVOKED", code(&served.check(&search())));
        change(&served, &target, true).unwrap();
        assert_eq!("PERMITTED", code(&served.check(&search())), "{target:?}");
    }
}

/// Bytes that are no request are refused, and once nothing can be kept or recorded, nothing is answered as revoked.
#[test]
fn failures() {
    let served = served();
    let call = |bytes: &[u8]| {
        let transport = Transport::by("admin");
        served.engine.call(Surface::Revoke, bytes, &transport).unwrap_err().reason_code.as_str()
    };
    assert_eq!("BAD_INPUT", call(&[0xff; 40]));
    assert_eq!("BAD_INPUT", call(&vec![b'x'; 2 << 20]));
    served.engine.close();
    let request = wire::AdminRevokeRequest {
        target: Some(Target::Jti("t-1".to_owned())),
        ..Default::default()
    };
    assert_eq!("AUDIT_FULL", call(&request.encode_to_vec()));
}

/// Nobody gives a task to an agent that is revoked: it could do nothing in it.
#[test]
fn a_revoked_agent_gets_no_task() {
    let served = unloaded(&json!({}));
    served.engine.load(world_of(REQUIRED)).unwrap();
    let root = alices(&served);
    let given = || wire::StartRequest { assignee: TWO.to_owned(), ..starting(vec![agent(BOT)]) };
    start(&served, &given()).unwrap();
    delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
    revoke(&served, Target::Agent(TWO.to_owned()));
    assert_eq!(Err("REVOKED"), start(&served, &given()).map(drop));
    assert_eq!(Err("REVOKED"), delegate(&served, &delegating(&root, BOT, TWO)).map(drop));
    start(&served, &starting(vec![agent(BOT)])).unwrap();
}
