//! Tasks that one agent gives to another: whose share they count against, and what the agent carries because of them.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::{Record, RecordKey, RecordKind};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Engine, Surface, World};
use authz_state::store::{MemoryStore, Store, Survives, Transaction};
use serde_json::{Value, json};

use crate::credentials::soon;
use crate::support::*;
use crate::tasks::{
    REQUIRED, TWO, agent, call_by, delegate, delegating, end, get, searching, start, starting,
    subject, world_of, world_with,
};

const MAIL: &str = r"
labels: {pii: {kind: confidentiality}}
destinations: {outside: {match: '*', clearance: []}}
catalog:
  mail:
    kind: http
    operations:
      send: {input: {type: object, properties: {to: {type: string}}, required: [to]}}
      read: {}
classify:
  - {match: mail.send, effects: [export], tier: low, destination: {from: [/to], type: email, when_absent: outside}}
  - {match: mail.read, effects: [read], tier: low, yields: [pii]}
templates:
  post: {purpose: post, deadline: 1h, max_depth: 1, starters: [bot], scope: [{system: mail}]}
  letter: {purpose: letter, params: {ticket: String}, deadline: 1h, max_depth: 1, starters: [bot], scope: [{system: mail}]}
";
const MAIL_POLICIES: &str = r#"
@id("mail") permit(principal, action in Action::"system:mail", resource);
@id("posts") permit(principal, action in [Action::"task:post", Action::"task:letter"], resource);
@id("no-data-out") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };
"#;

fn kept_in(store: &Arc<dyn Store>, world: World, extra: &Value) -> Served {
    let audit = folder().join("audit.jsonl");
    let engine = Engine::with_store(settings(&audit, extra), Arc::clone(store)).unwrap();
    engine.load(world).unwrap();
    Served { engine: Arc::new(engine), audit }
}

fn mailing(store: &Arc<dyn Store>) -> Served {
    let more = [("mail.yaml", MAIL), ("policies/mail.cedar", MAIL_POLICIES)];
    kept_in(store, world_with(REQUIRED, &more), &json!({}))
}

fn posting(by: Vec<wire::Evidence>) -> wire::StartRequest {
    wire::StartRequest { template: "post".to_owned(), params: None, ..starting(by) }
}

/// As [`posting`], with a parameter.
fn writing(by: Vec<wire::Evidence>) -> wire::StartRequest {
    wire::StartRequest { template: "letter".to_owned(), ..starting(by) }
}

/// A task as a list shows it to an agent.
fn listed(served: &Served, task: &wire::Task, by: &str) -> wire::Task {
    let list = wire::TasksListRequest {
        evidence: vec![agent(by)],
        session: task.session.clone(),
        ..wire::TasksListRequest::default()
    };
    let found: wire::TasksListResponse = call_by(served, "dev", Surface::TaskList, &list).unwrap();
    found.tasks.into_iter().find(|one| one.id == task.id).unwrap()
}

fn call(served: &Served, task: &wire::Task, by: &str, operation: &str) -> &'static str {
    let arguments = if operation == "mail.send" { json!({"to": "x@y.example"}) } else { json!({}) };
    code(&served.check(&wire::CheckRequest {
        operation: operation.to_owned(),
        arguments_json: arguments.to_string().into_bytes(),
        ..searching(&task.id, by)
    }))
}

/// Tasks that an agent did not use count against their giver, so nobody fills the agent's share.
#[test]
fn unused_tasks_count_against_the_giver() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let most = json!({"state": {"max_tasks_per_agent": 3}});
    let served = kept_in(&store, world_of(REQUIRED), &most);
    let root = start(&served, &starting(vec![agent(BOT)])).unwrap();
    let give = || delegate(&served, &delegating(&root, BOT, TWO));
    let given: Vec<wire::Task> = (0..3).map(|_| give().unwrap()).collect();
    assert_eq!(Err("OVERLOADED"), give().map(drop), "the giver's share");
    // The agent has its own share, and so does another giver.
    let own = || start(&served, &starting(vec![agent(TWO)]));
    let (first, _second) = (own().unwrap(), own().unwrap());
    let herself = vec![evidence(wire::EvidenceRole::Subject, alone_alice())];
    let alices = wire::StartRequest { assignee: TWO.to_owned(), ..starting(herself) };
    let of_alice = start(&served, &alices).unwrap();
    // What is used counts against the agent.
    assert_eq!("PERMITTED", code(&served.check(&searching(&given[0].id, TWO))));
    assert_eq!(Err("OVERLOADED"), own().map(drop));
    let by_bearer = wire::StartRequest { evidence: vec![subject("alice")], ..alices.clone() };
    assert_eq!(Err("NO_CREDENTIAL"), start(&served, &by_bearer).map(drop), "it gives no data");
    // What the subject alone starts counts for her, whatever the agent's share holds, and is bounded too.
    assert_eq!("PERMITTED", code(&served.check(&searching(&of_alice.id, TWO))));
    start(&served, &alices).unwrap();
    start(&served, &alices).unwrap();
    assert_eq!(Err("OVERLOADED"), start(&served, &alices).map(drop), "the subject's share");
    assert_eq!(
        "PERMITTED",
        code(&served.check(&searching(&given[0].id, TWO))),
        "it is used already"
    );
    give().unwrap();
    end(&served, &first.id, vec![agent(TWO)], wire::TaskStatus::Completed).unwrap();
    assert_eq!("PERMITTED", code(&served.check(&searching(&of_alice.id, TWO))));
}

/// An agent declines a task by aborting it unused; the record says so, and only the labels of that task are gone.
#[test]
fn declined() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let served = mailing(&store);
    let own = start(&served, &posting(vec![agent(TWO)])).unwrap();
    let root = start(&served, &posting(vec![agent(BOT)])).unwrap();
    assert_eq!("PERMITTED", call(&served, &root, BOT, "mail.read"));
    assert_eq!("PERMITTED", call(&served, &own, TWO, "mail.send"));
    let child = delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
    // Another node of the same store, or this one after a restart.
    for served in [&served, &mailing(&store)] {
        assert_eq!("FORBIDDEN", call(served, &own, TWO, "mail.send"));
    }
    let abort = |task: &wire::Task, by: &str| {
        end(&served, &task.id, vec![agent(by)], wire::TaskStatus::Aborted).unwrap()
    };
    assert_eq!(1, abort(&child, TWO));
    assert_eq!("PERMITTED", call(&served, &own, TWO, "mail.send"));
    // Whoever gave it ends it, and declines nothing.
    let child = delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
    assert_eq!(1, abort(&child, BOT));
    assert_eq!("FORBIDDEN", call(&served, &own, TWO, "mail.send"));
    let records = served.records();
    let ended = records.iter().filter(|one| one["labels"]["surface"] == "task_end");
    let declined: Vec<bool> = ended.map(|one| one["input"]["task"]["declined"] == true).collect();
    assert_eq!(vec![true, false], declined);
}

/// Parameters may hold what the giver read: an agent that reads them has used the task, and declines it no more. Until then a
/// list does not show them to the agent, nor does a task that its giver has ended.
#[test]
fn who_reads_a_task_has_used_it() {
    let delegated: fn(&Served, &wire::Task) -> wire::Task =
        |served, root| delegate(served, &delegating(root, BOT, TWO)).unwrap();
    let started: fn(&Served, &wire::Task) -> wire::Task = |served, _| {
        let request = wire::StartRequest { assignee: TWO.to_owned(), ..writing(vec![agent(BOT)]) };
        start(served, &request).unwrap()
    };
    for give in [delegated, started] {
        let gives = || {
            let served = mailing(&(Arc::new(MemoryStore::new([7; 32])) as Arc<dyn Store>));
            let own = start(&served, &posting(vec![agent(TWO)])).unwrap();
            let root = start(&served, &writing(vec![agent(BOT)])).unwrap();
            assert_eq!("PERMITTED", call(&served, &root, BOT, "mail.read"));
            let given = give(&served, &root);
            assert_eq!("FORBIDDEN", call(&served, &own, TWO, "mail.send"));
            (served, own, given)
        };
        let abort = |served: &Served, task: &wire::Task, by: &str| {
            end(served, &task.id, vec![agent(by)], wire::TaskStatus::Aborted).unwrap()
        };
        let is_declined = |served: &Served| {
            let records = served.records();
            let last = records.iter().rfind(|one| one["labels"]["surface"] == "task_end").unwrap();
            last["input"]["task"]["declined"] == true
        };

        // Neither a list nor the giver that looks at the task uses it.
        let (served, own, given) = gives();
        assert_eq!(None, listed(&served, &given, TWO).params);
        assert_eq!(given.params, listed(&served, &given, BOT).params);
        assert_eq!(given.params, get(&served, &given.id, vec![agent(BOT)]).unwrap().params);
        assert_eq!(None, listed(&served, &given, TWO).params);
        assert_eq!(1, abort(&served, &given, TWO));
        assert_eq!("PERMITTED", call(&served, &own, TWO, "mail.send"));
        assert!(is_declined(&served));

        let (served, own, given) = gives();
        assert!(given.params.is_some());
        assert_eq!(given.params, get(&served, &given.id, vec![agent(TWO)]).unwrap().params);
        assert_eq!(given.params, listed(&served, &given, TWO).params);
        assert_eq!(1, abort(&served, &given, TWO));
        assert_eq!("FORBIDDEN", call(&served, &own, TWO, "mail.send"));
        assert!(!is_declined(&served));

        // A task that is over is not used any more.
        let (served, own, given) = gives();
        assert_eq!(1, abort(&served, &given, BOT));
        assert_eq!(None, get(&served, &given.id, vec![agent(TWO)]).unwrap().params);
        assert_eq!("FORBIDDEN", call(&served, &own, TWO, "mail.send"));
        assert_eq!(0, abort(&served, &given, TWO));
        assert_eq!("PERMITTED", call(&served, &own, TWO, "mail.send"));
        assert!(is_declined(&served));
    }
}

/// What is given is bounded for each giver, and the labels outlive the giver's session.
#[test]
fn labels_are_handed_over() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let served = mailing(&store);
    let own = start(&served, &posting(vec![agent(TWO)])).unwrap();
    let root = start(&served, &posting(vec![agent(BOT)])).unwrap();
    delegate(&served, &delegating(&root, BOT, TWO)).unwrap();
    assert_eq!("PERMITTED", call(&served, &root, BOT, "mail.read"));
    end(&served, &root.id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    // The time of the ended tree is up.
    let key = RecordKey::new(RecordKind::Session, &root.session);
    let mut due = |transaction: &mut dyn Transaction| {
        let Some(Record::Session(mut session)) = transaction.get(&key)? else { panic!() };
        Arc::make_mut(&mut session).expires_at = Time(1);
        transaction.put(Record::Session(session));
        Ok(true)
    };
    store.transact(std::slice::from_ref(&key), Survives::Crash, soon(), &mut due).unwrap();
    assert_eq!("", served.engine.sweep().error);
    assert!(store.peek(&key, soon()).unwrap().is_none());
    let agent_of = |id: &str| {
        let key = RecordKey::new(RecordKind::Agent, id);
        let Some(Record::Agent(party)) = store.peek(&key, soon()).unwrap() else { panic!("{id}") };
        party
    };
    assert!(agent_of(TWO).shared.is_empty());
    assert!(agent_of(TWO).history.labels.contains_key("pii"));
    assert_eq!("FORBIDDEN", call(&served, &own, TWO, "mail.send"));
}

/// One giver cannot fill the record of an agent.
#[test]
fn one_giver_gives_so_many() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
    let served = mailing(&store);
    let own = start(&served, &posting(vec![agent(TWO)])).unwrap();
    let root = start(&served, &posting(vec![agent(BOT)])).unwrap();
    let give = || delegate(&served, &delegating(&root, BOT, TWO)).map(drop);
    let given = (0..300).take_while(|_| give().is_ok()).count();
    assert_eq!(256, given);
    assert_eq!(Err("OVERLOADED"), give());
    assert_eq!("PERMITTED", call(&served, &own, TWO, "mail.send"), "the agent is not stopped");
    // A giver with a long id takes no more room in the agent's record.
    let key = RecordKey::new(RecordKind::Agent, TWO);
    let Some(Record::Agent(party)) = store.peek(&key, soon()).unwrap() else { panic!() };
    assert!(
        party.shared.values().all(|shared| shared.giver.len() == 32 && shared.pair.len() == 32)
    );
}
