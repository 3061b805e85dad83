//! What is done without a task, in a bundle where nothing needs one: remembered of whoever does it.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::{Record, RecordKind, Session, taskless_of};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{Engine, Surface};
use authz_state::store::{MemoryStore, Page, Query, Store, Survives, Transaction};
use serde_json::{Value, json};

use crate::credentials::soon;
use crate::report::{TEMPLATES, ask, of, permit, report, stock_as};
use crate::support::*;
use crate::tasks::{REQUIRED, agent, alices, call, call_by, permitted_at_once, subject};

const OPTIONAL: &str = "{name: desk, tasks: optional}";

fn load(served: &Served, bundle: &str) {
    stock_as(served, bundle, TEMPLATES, "sdk");
}

/// An engine with a bundle where nothing needs a task, and its store.
fn shop(extra: &Value) -> (Served, Arc<dyn Store>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    (on(&store, extra), store)
}

/// One more node on a store.
fn on(store: &Arc<dyn Store>, extra: &Value) -> Served {
    let audit = folder().join("audit.jsonl");
    let engine = Engine::with_store(settings(&audit, extra), Arc::clone(store)).unwrap();
    let served = Served { engine: Arc::new(engine), audit };
    load(&served, OPTIONAL);
    served
}

fn embedded(state: &std::path::Path) -> Served {
    let served = unloaded(&json!({"state": {"engine": "embedded", "path": state}}));
    load(&served, OPTIONAL);
    served
}

fn of_kind(store: &Arc<dyn Store>, kind: RecordKind) -> Vec<Record> {
    store.find(&Query::Kind(kind), &Page { after: String::new(), most: 100 }, soon()).unwrap()
}

fn sessions(store: &Arc<dyn Store>) -> Vec<Arc<Session>> {
    let all = of_kind(store, RecordKind::Session).into_iter();
    all.filter_map(|one| if let Record::Session(one) = one { Some(one) } else { None }).collect()
}

/// Lets what is remembered end at another time.
fn ends(store: &Arc<dyn Store>, known: &Session, at: i64) {
    let record = Record::Session(Arc::new(Session { expires_at: Time(at), ..known.clone() }));
    let mut put = |transaction: &mut dyn Transaction| {
        transaction.put(record.clone());
        Ok(true)
    };
    store.transact(&[record.key()], Survives::Crash, soon(), &mut put).unwrap();
}

/// A payment by the bot, on behalf of somebody.
fn paying(n: i64, whom: &[wire::Evidence]) -> wire::CheckRequest {
    let by = [agent(BOT)].into_iter().chain(whom.iter().cloned());
    wire::CheckRequest {
        evidence: by.collect(),
        arguments_json: json!({"n": n}).to_string().into_bytes(),
        ..asking("shop.pay")
    }
}

fn pay(served: &Served, n: i64, whom: &[wire::Evidence]) -> &'static str {
    code(&served.check(&paying(n, whom)))
}

fn does(served: &Served, operation: &str) -> &'static str {
    code(&ask(served, "", "sdk", operation, &json!({})))
}

/// What has to do with nothing that was done before leaves nothing behind; the rest has a record for each chain, which is no
/// task.
#[test]
fn each_chain_is_remembered_apart() {
    let (served, store) = shop(&json!({}));
    let commits = store.health().commits;
    assert_eq!("PERMITTED", code(&served.check(&search())));
    assert_eq!(commits, store.health().commits);
    let whose = [vec![subject("alice")], vec![subject("bob")], vec![]];
    for (count, whom) in whose.iter().enumerate() {
        assert_eq!("PERMITTED", pay(&served, 60, whom));
        assert_eq!("BUDGET_EXCEEDED", pay(&served, 60, whom));
        assert_eq!(count + 1, sessions(&store).len());
    }
    let herself = vec![evidence(wire::EvidenceRole::Subject, alone_alice())];
    let alone = wire::CheckRequest { evidence: herself, ..paying(60, &[]) };
    assert_eq!("PERMITTED", code(&served.check(&alone)));
    assert_eq!("BUDGET_EXCEEDED", code(&served.check(&alone)));
    assert_eq!((4, 0), (sessions(&store).len(), of_kind(&store, RecordKind::Task).len()));
    let id = &sessions(&store)[0].id;
    let by = || vec![agent(BOT), subject("alice")];
    let named = wire::CheckRequest { task: id.clone(), ..paying(1, &[subject("alice")]) };
    assert_eq!("UNKNOWN_TASK", code(&served.check(&named)));
    let get = wire::GetRequest { evidence: by(), task: id.clone() };
    assert_eq!(Err("UNKNOWN_TASK"), call::<wire::GetResponse>(&served, Surface::TaskGet, &get));
    let list = wire::TasksListRequest { evidence: by(), ..wire::TasksListRequest::default() };
    let listed: wire::TasksListResponse = call(&served, Surface::TaskList, &list).unwrap();
    assert!(listed.tasks.is_empty());
    let records = served.records();
    let paid = records.iter().find(|one| one["input"]["operation"] == "shop.pay").unwrap();
    assert_eq!(Value::Null, paid["input"]["task"]);
    let noted = records.iter().filter_map(|one| one["input"]["session"]["id"].as_str());
    let mut noted: Vec<&str> = noted.collect();
    noted.sort_unstable();
    noted.dedup();
    assert_eq!(4, noted.len());
    assert!(noted.contains(&id.as_str()));
}

/// Many callers at once spend together what there is, and no more.
#[test]
fn budgets_are_exact() {
    for served in [shop(&json!({})).0, embedded(&folder().join("state"))] {
        assert_eq!(10, permitted_at_once(&served, &paying(10, &[subject("alice")]), 8, 3));
    }
}

/// What was done is known after a restart, to another node, and after the bundle asked for tasks for a while; and whoever
/// asked reports what came of it.
#[test]
fn it_outlives_restarts_and_reloads() {
    let state = folder().join("state");
    let served = embedded(&state);
    let found = permit(&served, "", "shop.find", &json!({}));
    assert_eq!("FORBIDDEN", does(&served, "shop.delete"));
    served.engine.close();
    drop(served);
    let served = embedded(&state);
    assert_eq!("FORBIDDEN", does(&served, "shop.delete"));
    assert_eq!("FORBIDDEN", code(&ask(&served, "", "sdk", "shop.move", &json!({"n": 1}))));
    load(&served, REQUIRED);
    assert_eq!("NO_TASK", does(&served, "shop.delete"));
    assert_eq!(Ok(()), report(&served, "sdk", &of(&found, wire::ReportResult::Ok)));
    load(&served, OPTIONAL);
    assert_eq!("PERMITTED", does(&served, "shop.delete"));
    assert_eq!("PERMITTED", code(&ask(&served, "", "sdk", "shop.move", &json!({"n": 1}))));

    let (one, store) = shop(&json!({}));
    let other = on(&store, &json!({}));
    let found = permit(&one, "", "shop.find", &json!({}));
    assert_eq!("FORBIDDEN", does(&other, "shop.delete"));
    assert_eq!(Ok(()), report(&other, "sdk", &of(&found, wire::ReportResult::Ok)));
    assert_eq!("PERMITTED", does(&one, "shop.delete"));
}

/// A repeat under an enforcer's key is charged once, and a failed payment not at all.
#[test]
fn keys_and_reports() {
    let (served, _) = shop(&json!({}));
    let keyed = || {
        let key = "once".to_owned();
        let request =
            wire::CheckRequest { idempotency_key: key, ..paying(60, &[subject("alice")]) };
        served.check_by("sdk", &request)
    };
    let first = keyed();
    assert_eq!(first.decision_id, keyed().decision_id);
    assert_eq!("BUDGET_EXCEEDED", pay(&served, 41, &[subject("alice")]));
    let failed = of(&first.decision_id, wire::ReportResult::Failed);
    assert_eq!(Ok(()), report(&served, "sdk", &failed));
    assert_eq!(Err("NOT_PERMITTED"), report(&served, "sdk", &failed));
    assert_eq!("PERMITTED", pay(&served, 100, &[subject("alice")]));
}

/// Taken away, it stays so for a while, for that chain alone; once its time is up it begins anew.
#[test]
fn it_can_be_taken_away() {
    let (served, store) = shop(&json!({}));
    assert_eq!("PERMITTED", pay(&served, 100, &[subject("alice")]));
    let known = sessions(&store).remove(0);
    let target = Some(Target::Session(known.id.clone()));
    let request =
        wire::AdminRevokeRequest { target, reason: "odd".to_owned(), ..Default::default() };
    let revoked: wire::AdminRevokeResponse =
        call_by(&served, "admin", Surface::Revoke, &request).unwrap();
    assert_eq!(0, revoked.tasks_ended);
    assert_eq!("REVOKED", pay(&served, 1, &[subject("alice")]));
    assert_eq!("REVOKED", does(&served, "shop.find"));
    assert_eq!("PERMITTED", code(&served.check(&search())));
    assert_eq!("PERMITTED", pay(&served, 1, &[subject("bob")]));
    let task = alices(&served).id;
    assert_eq!("PERMITTED", code(&ask(&served, &task, "sdk", "shop.pay", &json!({"n": 1}))));
    let ended = sessions(&store).into_iter().find(|one| one.id == known.id).unwrap();
    assert!(ended.expires_at.0 > now() * 1000 + 23 * 3_600_000);
    ends(&store, &ended, 1);
    assert_eq!("PERMITTED", pay(&served, 100, &[subject("alice")]));
    assert_eq!("BUDGET_EXCEEDED", pay(&served, 1, &[subject("alice")]));
    assert!(served.engine.sweep().error.is_empty());
    assert!(sessions(&store).iter().any(|one| one.id == known.id));
}

/// What is forgotten is swept away; what lasts is not.
#[test]
fn what_its_time_is_up_of_is_forgotten() {
    let (served, store) = shop(&json!({}));
    assert_eq!("PERMITTED", pay(&served, 1, &[subject("alice")]));
    assert_eq!(0, served.engine.sweep().forgotten);
    let hour = 3_600_000;
    // What is let through moves its end, and what is refused does not.
    ends(&store, &sessions(&store)[0], now() * 1000 + hour);
    assert_eq!("BUDGET_EXCEEDED", pay(&served, 100, &[subject("alice")]));
    assert!(sessions(&store)[0].expires_at.0 < now() * 1000 + 2 * hour);
    assert_eq!("PERMITTED", pay(&served, 1, &[subject("alice")]));
    assert!(sessions(&store)[0].expires_at.0 > now() * 1000 + 23 * hour);
    ends(&store, &sessions(&store)[0], 1);
    assert_eq!(1, served.engine.sweep().forgotten);
    assert!(sessions(&store).is_empty());
    assert_eq!("PERMITTED", pay(&served, 100, &[subject("alice")]));
}

/// One caller has only so many, and fills nobody else's share.
#[test]
fn they_are_bounded() {
    let (served, store) = shop(&json!({"state": {"max_tasks_per_agent": 2}}));
    for who in ["alice", "bob"] {
        assert_eq!("PERMITTED", pay(&served, 1, &[subject(who)]));
    }
    assert_eq!("OVERLOADED", pay(&served, 1, &[subject("carl")]));
    assert_eq!("PERMITTED", pay(&served, 1, &[subject("alice")]));
    let other = "spiffe://a.example/ns/support/sa/other";
    let request = wire::CheckRequest { evidence: vec![agent(other)], ..paying(1, &[]) };
    assert_eq!("PERMITTED", code(&served.check(&request)));
    let bots = authz_kernel::task::AgentName::parse(BOT).unwrap().principal();
    let first = taskless_of(&bots);
    assert_eq!(2, sessions(&store).iter().filter(|one| one.id.starts_with(&first)).count());
}

/// What `mode` lets through is remembered as far as there is room, and says what it would have been.
#[test]
fn what_is_only_observed_is_remembered_too() {
    let (served, store) = shop(&json!({}));
    let mode = "mode: {default: observe, owner: sec, until: 2999-01-01}\n";
    stock_as(&served, OPTIONAL, &format!("{TEMPLATES}{mode}"), "sdk");
    let observed = |operation: &str, arguments: &Value| {
        let decision = ask(&served, "", "sdk", operation, arguments);
        assert_eq!(wire::Outcome::Permit as i32, decision.outcome);
        decision.observed.map_or("", |observed| {
            let code = wire::ReasonCode::try_from(observed.reason_code).unwrap();
            code.as_str_name().strip_prefix("REASON_CODE_").unwrap()
        })
    };
    assert_eq!("FORBIDDEN", observed("shop.delete", &json!({})));
    assert_eq!("", observed("shop.move", &json!({"n": 60})));
    assert_eq!("BUDGET_EXCEEDED", observed("shop.move", &json!({"n": 60})));
    assert_eq!("", observed("shop.find", &json!({})));
    assert_eq!("FORBIDDEN", observed("shop.move", &json!({"n": 1})));
    assert_eq!(1, sessions(&store).len());
}

/// What could be permitted without a task is listed.
#[test]
fn it_is_listed() {
    let (served, _) = shop(&json!({}));
    let list = wire::ListRequest { evidence: chain(), ..wire::ListRequest::default() };
    let listed: wire::ListResponse = call(&served, Surface::List, &list).unwrap();
    for operation in ["shop.find", "shop.pay", "crm.search"] {
        assert!(listed.operations.contains(&operation.to_owned()), "{:?}", listed.operations);
    }
}
