//! The words of a prompt and the values of a session stand in records of their own: read where policies ask who chose a value,
//! written when somebody names or reports one, and forgotten with their task and session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use authz_base::record::history::KnownValuesRecord;
use authz_base::record::task::TaskWords;
use authz_kernel::decision::Time;
use authz_kernel::task::{Record, RecordKey, RecordKind, Task};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Engine, Surface};
use authz_state::store::{
    EmbeddedSettings, EmbeddedStore, MemoryStore, Page, Query, Store, Survives, Transaction,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::credentials::soon;
use crate::report::ask;
use crate::support::*;
use crate::tasks::{agent, call, call_by, end, start, starting};
use crate::values::{listed, tell, value, world_by};

/// A node over a store of the test's.
struct Node {
    served: Served,
    store: Arc<dyn Store>,
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new([7; 32]))
}

fn node(store: Arc<dyn Store>) -> Node {
    let audit = folder().join("audit.jsonl");
    let settings = settings(&audit, &json!({"state": {"retention_ms": 1}}));
    let engine = Engine::with_store(settings, Arc::clone(&store)).unwrap();
    let gives = r#"@id("gives") permit(principal, action == Action::"give:desk", resource);"#;
    engine.load(world_by(&format!("{}{gives}", crate::values::POLICIES))).unwrap();
    Node { served: Served { engine: Arc::new(engine), audit }, store }
}

impl Node {
    /// Alice's task of the bot, with a prompt of hers.
    fn start(&self, prompt: &str) -> String {
        let alone = evidence(wire::EvidenceRole::Subject, alone_alice());
        let request = wire::StartRequest {
            prompt: prompt.to_owned(),
            assignee: BOT.to_owned(),
            ..starting(vec![alone])
        };
        start(&self.served, &request).unwrap().id
    }

    fn extend(&self, task: &str, prompt: &str) {
        let request = wire::ExtendRequest {
            evidence: vec![evidence(wire::EvidenceRole::Subject, alone_alice())],
            task: task.to_owned(),
            prompt: prompt.to_owned(),
            prompt_parts: Vec::new(),
        };
        call::<wire::ExtendResponse>(&self.served, Surface::TaskExtend, &request).unwrap();
    }

    /// The answer to a change of an event.
    fn changes(&self, task: &str, event: &str) -> &'static str {
        code(&ask(&self.served, task, "sdk", "shop.change", &json!({"id": event})))
    }

    fn all(&self, kind: RecordKind) -> Vec<Record> {
        let page = Page { after: String::new(), most: 100 };
        self.store.find(&Query::Kind(kind), &page, soon()).unwrap()
    }

    fn words(&self) -> Vec<Arc<TaskWords>> {
        let words = |record| match record {
            Record::Words(words) => words,
            other => panic!("{other:?}"),
        };
        self.all(RecordKind::Words).into_iter().map(words).collect()
    }

    fn values(&self) -> Vec<Arc<KnownValuesRecord>> {
        let values = |record| match record {
            Record::Values(values) => values,
            other => panic!("{other:?}"),
        };
        self.all(RecordKind::Values).into_iter().map(values).collect()
    }

    fn record(&self, kind: RecordKind, id: &str) -> Option<Record> {
        self.store.peek(&RecordKey::new(kind, id), soon()).unwrap()
    }

    fn task(&self, id: &str) -> Arc<Task> {
        match self.record(RecordKind::Task, id) {
            Some(Record::Task(task)) => task,
            other => panic!("{other:?}"),
        }
    }

    fn change(&self, change: &dyn Fn(&mut dyn Transaction)) {
        let mut work = |transaction: &mut dyn Transaction| {
            change(transaction);
            Ok(true)
        };
        let locks = [RecordKey::new(RecordKind::Session, "any")];
        self.store.transact(&locks, Survives::Crash, soon(), &mut work).unwrap();
    }

    fn json(&self, record: &Record) -> Value {
        let mut text = Vec::new();
        record.write_json(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn sweep(&self) {
        let swept = self.served.engine.sweep();
        assert_eq!("", swept.error);
    }
}

#[test]
fn words_are_written_with_a_prompt_and_by_nothing_else() {
    let node = node(memory());
    let task = node.start("Change Team 77, please");
    let stored = node.json(&Record::Task(node.task(&task)));
    assert_eq!(Some(&json!(true)), stored["names"].get("has_words"), "{stored}");
    assert_eq!(None, stored["names"].get("user_words"), "{stored}");
    let [first] = node.words().try_into().unwrap();
    assert_eq!((&*task, node.task(&task).deadline), (&*first.task, first.until));
    assert_eq!("PERMITTED", node.changes(&task, "Team 77"));
    assert_eq!("FORBIDDEN", node.changes(&task, "Team 78"));
    let [kept] = node.words().try_into().unwrap();
    assert!(Arc::ptr_eq(&first, &kept), "a call writes the words anew");
    node.extend(&task, "And Team 78");
    let [more] = node.words().try_into().unwrap();
    assert!(more.words.len() > first.words.len());
    assert_eq!("PERMITTED", node.changes(&task, "Team 77"));
    assert_eq!("PERMITTED", node.changes(&task, "Team 78"));
    // A task without words has no record of them, and another task's words say nothing in it.
    let silent = node.start("");
    assert_eq!("FORBIDDEN", node.changes(&silent, "Team 77"));
    let of_params = node.words().iter().filter(|words| words.task == silent).count();
    assert_eq!(1, of_params, "the parameters are words, too");
}

/// Words that are not found name nothing: the call is judged without them.
#[test]
fn a_missing_record_of_words_names_nothing() {
    let node = node(memory());
    let task = node.start("Change Team 77");
    assert_eq!("PERMITTED", node.changes(&task, "Team 77"));
    node.change(&|transaction| transaction.delete(RecordKey::new(RecordKind::Words, &task)));
    assert_eq!("FORBIDDEN", node.changes(&task, "Team 77"));
    // A further prompt begins the record anew.
    node.extend(&task, "I mean Team 79");
    assert_eq!("PERMITTED", node.changes(&task, "Team 79"));
    assert_eq!("FORBIDDEN", node.changes(&task, "Team 77"));
}

#[test]
fn words_of_an_earlier_version_count_and_move_with_the_next_prompt() {
    let node = node(memory());
    let task = node.start("Change Team 77");
    let [own] = node.words().try_into().unwrap();
    let mut earlier = Task::clone(&node.task(&task));
    earlier.names.words = own.words.clone();
    earlier.names.has_words = false;
    let text = serde_json::to_vec(&earlier).unwrap();
    node.change(&|transaction| {
        transaction.delete(RecordKey::new(RecordKind::Words, &task));
        transaction.put(Record::from_json(RecordKind::Task, &text).unwrap());
    });
    assert_eq!("PERMITTED", node.changes(&task, "Team 77"));
    assert!(node.words().is_empty(), "a call moves no words");
    node.extend(&task, "And Team 78");
    assert!(node.task(&task).names.words.is_empty() && node.task(&task).names.has_words);
    assert_eq!(1, node.words().len());
    assert_eq!("PERMITTED", node.changes(&task, "Team 77"));
    assert_eq!("PERMITTED", node.changes(&task, "Team 78"));
}

#[test]
fn values_are_written_with_a_report_that_brings_some_and_by_nothing_else() {
    let node = node(memory());
    let task = node.start("");
    tell(&node.served, &task, "shop.list", Vec::new());
    assert!(node.values().is_empty(), "a report without values writes none");
    tell(&node.served, &task, "shop.list", listed(&["e1".to_owned()]));
    let [first] = node.values().try_into().unwrap();
    let session = node.record(RecordKind::Session, &first.session).unwrap();
    let stored = node.json(&session);
    assert_eq!(Some(&json!(true)), stored["history"].get("has_values"), "{stored}");
    assert_eq!(None, stored["history"].get("values"), "{stored}");
    assert_eq!("PERMITTED", node.changes(&task, "e1"));
    assert_eq!("FORBIDDEN", node.changes(&task, "e2"));
    tell(&node.served, &task, "shop.list", listed(&["a//b".to_owned()]));
    let [kept] = node.values().try_into().unwrap();
    assert!(Arc::ptr_eq(&first, &kept), "nothing that is known has changed");
    tell(&node.served, &task, "shop.list", listed(&["e2".to_owned()]));
    assert_eq!("PERMITTED", node.changes(&task, "e1"));
    assert_eq!("PERMITTED", node.changes(&task, "e2"));
    node.change(&|transaction| {
        transaction.delete(RecordKey::new(RecordKind::Values, &first.session));
    });
    assert_eq!("FORBIDDEN", node.changes(&task, "e1"), "a missing record makes nothing known");
}

#[test]
fn values_of_an_earlier_version_count_and_move_with_the_next_report() {
    let node = node(memory());
    let task = node.start("");
    tell(&node.served, &task, "shop.list", listed(&["e1".to_owned()]));
    let [own] = node.values().try_into().unwrap();
    let key = RecordKey::new(RecordKind::Session, &own.session);
    node.change(&|transaction| {
        let Some(Record::Session(mut session)) = transaction.get(&key).unwrap() else { panic!() };
        let earlier = Arc::make_mut(&mut session);
        earlier.history.values = own.values.clone().into();
        earlier.history.has_values = false;
        transaction.put(Record::Session(session));
        transaction.delete(RecordKey::new(RecordKind::Values, &own.session));
    });
    assert_eq!("PERMITTED", node.changes(&task, "e1"));
    assert!(node.values().is_empty());
    tell(&node.served, &task, "shop.list", listed(&["e2".to_owned()]));
    let Some(Record::Session(session)) = node.record(RecordKind::Session, &own.session) else {
        panic!("the session is gone");
    };
    assert!(session.history.values.is_empty() && session.history.has_values);
    assert_eq!("PERMITTED", node.changes(&task, "e1"));
    assert_eq!("PERMITTED", node.changes(&task, "e2"));
}

#[test]
fn both_are_forgotten_with_the_task_and_the_session() {
    let embedded = EmbeddedSettings::new(folder().join("state"));
    let embedded = EmbeddedStore::open(embedded, Arc::new(|_, _| Ok(None))).unwrap();
    for store in [memory(), Arc::new(embedded)] {
        let node = node(store);
        let task = node.start("Change Team 77");
        tell(&node.served, &task, "shop.list", listed(&["e1".to_owned()]));
        assert_eq!((1, 1), (node.words().len(), node.values().len()));
        node.sweep();
        assert_eq!((1, 1), (node.words().len(), node.values().len()), "the task lives");
        end(&node.served, &task, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        node.sweep();
        assert!(node.all(RecordKind::Task).is_empty() && node.all(RecordKind::Session).is_empty());
        assert_eq!((0, 0), (node.words().len(), node.values().len()));
        // Words go at the latest end of their task, and values when none counts any more, also if the session stays.
        let task = node.start("Change Team 77");
        tell(&node.served, &task, "shop.list", listed(&["e1".to_owned()]));
        let ([words], [values]) =
            (node.words().try_into().unwrap(), node.values().try_into().unwrap());
        node.change(&|transaction| {
            let words = TaskWords { until: Time(1), ..TaskWords::clone(&words) };
            transaction.put(Record::Words(Arc::new(words)));
            let values = KnownValuesRecord { until: Time(1), ..KnownValuesRecord::clone(&values) };
            transaction.put(Record::Values(Arc::new(values)));
        });
        node.sweep();
        assert_eq!((0, 0), (node.words().len(), node.values().len()));
        assert_eq!("FORBIDDEN", node.changes(&task, "Team 77"));
        assert_eq!("FORBIDDEN", node.changes(&task, "e1"));
        node.served.engine.close();
    }
}

fn names_of(
    node: &Node,
    listener: &str,
    task: &str,
    values: &[&str],
) -> Result<wire::TaskNamesResponse, &'static str> {
    let request = wire::TaskNamesRequest {
        task: task.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        ..wire::TaskNamesRequest::default()
    };
    call_by(&node.served, listener, Surface::TaskNames, &request)
        .map_err(|error| error.reason_code.as_str())
}

/// An administrator is told where values come from; the audit log gets none of them.
#[test]
fn an_administrator_asks_what_a_live_task_names() {
    let node = node(memory());
    let task = node.start("Change Team 77, and pay 12");
    tell(&node.served, &task, "shop.list", listed(&["e1".to_owned()]));
    tell(&node.served, &task, "shop.make", vec![value("/id", 0, "made-1")]);
    let values = ["events/Team 77", "events/e1", "events/made-1", "events/strange", "amount:12"];
    let told = names_of(&node, "admin", &task, &values).unwrap();
    let origins: Vec<(&str, &str)> =
        told.values.iter().map(|one| (&*one.value, &*one.origin)).collect();
    let wanted = ["named", "introduced", "made", "unknown", "unknown"];
    assert_eq!(values.into_iter().zip(wanted).collect::<Vec<_>>(), origins);
    let of = |at: usize| &told.values[at];
    assert!(of(0).why.contains("words in order") && of(0).missing.is_empty(), "{:?}", of(0));
    assert_eq!(("shop", "shop"), (&*of(1).system, &*of(2).system));
    assert!(of(1).why.contains("a declared field of a result"), "{:?}", of(1));
    assert!(of(2).why.contains("made it"), "{:?}", of(2));
    assert!(of(3).why.is_empty() && of(3).missing.contains("no prompt"), "{:?}", of(3));
    assert!(of(4).missing.contains("needs its currency"), "{:?}", of(4));
    let user = &told.spoken[0];
    let [words] = node.words().try_into().unwrap();
    assert_eq!(("user", words.words.len() as u32), (&*user.by, user.words));
    assert_eq!((2, 256, 1_500), (told.known_values, told.most_values, told.most_words));
    assert!(!told.words_full && !told.words_missing, "{told:?}");
    assert_eq!(vec!["ticket".to_owned()], told.parameters);
    node.change(&|transaction| transaction.delete(RecordKey::new(RecordKind::Words, &task)));
    let told = names_of(&node, "admin", &task, &["events/Team 77"]).unwrap();
    assert!(told.words_missing);
    assert_eq!("unknown", told.values[0].origin);
    let records = node.served.records();
    let asked = |record: &&Value| record["path"] == "authz.v1.Admin/TaskNames";
    let record = records.iter().find(asked).unwrap();
    assert_eq!(task, record["input"]["task"]["id"].as_str().unwrap(), "{record}");
    let is_told = records.iter().any(|record| record.to_string().contains("events/strange"));
    assert!(!is_told, "a candidate value stands in the audit log");
}

#[test]
fn only_the_administration_socket_asks_what_a_task_names() {
    let node = node(memory());
    let task = node.start("Change Team 77");
    for listener in ["dev", "own", "sdk"] {
        assert!(names_of(&node, listener, &task, &["events/Team 77"]).is_err(), "{listener}");
    }
    assert_eq!(Err("UNKNOWN_TASK"), names_of(&node, "admin", "nobody", &[]));
    let many = ["events/x"; 33];
    for values in [&["x"][..], &["orders/1"], &["email:x"], &many] {
        assert_eq!(Err("BAD_INPUT"), names_of(&node, "admin", &task, values), "{values:?}");
    }
    assert_eq!(Err("BAD_INPUT"), names_of(&node, "admin", "", &[]));
}

/// One step of a walk.
#[derive(Clone, Debug)]
enum Step {
    Start(u8),
    Extend(usize, u8),
    Report(usize, u8),
    LoseWords(usize),
    Check(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let (task, event) = (0_usize..3, 0_u8..4);
    prop_oneof![
        1 => event.clone().prop_map(Step::Start),
        2 => (task.clone(), event.clone()).prop_map(|(task, event)| Step::Extend(task, event)),
        2 => (task.clone(), event.clone()).prop_map(|(task, event)| Step::Report(task, event)),
        1 => task.clone().prop_map(Step::LoseWords),
        6 => (task, event).prop_map(|(task, event)| Step::Check(task, event)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A call may change what its task's prompts named since the last loss of their words, and what its session's reports
    /// brought; and nothing that another task named.
    #[test]
    fn a_walk_permits_what_was_named_or_reported(steps in prop::collection::vec(step(), 1..40)) {
        let node = node(memory());
        let mut named: BTreeMap<String, BTreeSet<u8>> = BTreeMap::new();
        let mut reported: BTreeMap<String, BTreeSet<u8>> = BTreeMap::new();
        let mut tasks = vec![node.start("Look around")];
        for step in steps {
            let task_at = |at: usize| tasks[at % tasks.len()].clone();
            match step {
                Step::Start(event) => {
                    let task = node.start(&format!("Change Team {event}"));
                    named.entry(task.clone()).or_default().insert(event);
                    tasks.push(task);
                }
                Step::Extend(at, event) => {
                    node.extend(&task_at(at), &format!("And Team {event}"));
                    named.entry(task_at(at)).or_default().insert(event);
                }
                Step::Report(at, event) => {
                    tell(&node.served, &task_at(at), "shop.list", listed(&[format!("Team {event}")]));
                    reported.entry(task_at(at)).or_default().insert(event);
                }
                Step::LoseWords(at) => {
                    let key = RecordKey::new(RecordKind::Words, task_at(at));
                    node.change(&|transaction| transaction.delete(key.clone()));
                    named.remove(&task_at(at));
                }
                Step::Check(at, event) => {
                    let task = task_at(at);
                    let has = |all: &BTreeMap<String, BTreeSet<u8>>| {
                        all.get(&task).is_some_and(|events| events.contains(&event))
                    };
                    let expected =
                        if has(&named) || has(&reported) { "PERMITTED" } else { "FORBIDDEN" };
                    prop_assert_eq!(expected, node.changes(&task, &format!("Team {event}")));
                }
            }
        }
    }
}
