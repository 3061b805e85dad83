//! What every store does. Each test is given a store that is empty.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use authz_base::record::task::{Task, TaskStatus};
use authz_base::record::{Record, RecordKind, RevocationTarget};
use authz_base::time::Time;
use authz_state::store::{
    Bounds, Commit, MAX_ID_BYTES, MemoryStore, Query, Store, StoreError, Survives,
};

use crate::support::{
    Lines, NOW, after, all, breakglass, credential, idempotency, ids, is_in_force, key, lease,
    object, page, party, proof, put, reservation, revocation, session, session_key, signing_key,
    soon, task, task_key, transact,
};

/// An empty store, and where its audit lines come out.
pub struct Made {
    pub store: Arc<dyn Store>,
    pub lines: Box<dyn Fn(usize) -> Vec<String>>,
}

impl Made {
    pub fn new(store: Arc<dyn Store>, lines: Lines) -> Self {
        Self { store, lines: Box::new(move |count| lines.wait(count)) }
    }
}

/// Bounds that a test can reach.
pub fn small() -> Bounds {
    Bounds { record_bytes: 8192, transaction_records: 64, line_bytes: 1000, ..Bounds::default() }
        .with(RecordKind::Task, 40)
        .with(RecordKind::Revocation, 4)
        .with(RecordKind::SigningKey, 2)
        .with(RecordKind::Subject, 12)
        .with(RecordKind::Object, 11)
}

type Test = fn(&Made);

/// Runs every test of the contract, each over a store of its own.
pub fn run(make: &dyn Fn() -> Made) {
    let tests: [(&str, Test); 20] = [
        ("records_come_back", records_come_back),
        ("given_up", given_up),
        ("own_changes", own_changes),
        ("breakglass", breakglass_is_known),
        ("queries", queries),
        ("due", due),
        ("random", random),
        ("revoked", revoked),
        ("counted", counted),
        ("mixed", mixed),
        ("crossed_locks", crossed_locks),
        ("lock_wait_is_bounded", lock_wait_is_bounded),
        ("lines", lines),
        ("secret", secret),
        ("full", full),
        ("hostile_ids", hostile_ids),
        ("late", late),
        ("health", health),
        ("asked_meanwhile", asked_meanwhile),
        ("closed", closed),
    ];
    for (name, test) in tests {
        eprintln!("contract: {name}");
        let made = make();
        test(&made);
        made.store.close();
    }
}

fn get(store: &dyn Store, kind: RecordKind, id: &str) -> Option<Record> {
    let peeked = store.peek(&key(kind, id), soon()).unwrap();
    transact(store, &[], soon(), |transaction| {
        assert_eq!(peeked, transaction.get(&key(kind, id))?);
        Ok(false)
    })
    .unwrap();
    peeked
}

fn task_of(record: Option<Record>) -> Task {
    match record {
        Some(Record::Task(task)) => (*task).clone(),
        other => panic!("{other:?}"),
    }
}

fn records_come_back(made: &Made) {
    let store = made.store.as_ref();
    let mut strange = task("t1", "s1", "bot");
    strange.rest.insert("of_2031".to_owned(), serde_json::json!({"b": [1, null, "x"], "a": 1.5}));
    let records = [
        session("s1"),
        Record::Task(Arc::new(strange)),
        reservation("d1", "s1", NOW + 5),
        idempotency("corp/1234", NOW + 5),
        revocation(RevocationTarget::Agent, "spiffe://corp.example/ü/x:y"),
        credential("c1", NOW + 5),
        proof("0ZcOCORZ/ab12", NOW + 5),
        signing_key("k1", None),
        lease("s1/l1"),
        // An agent and a subject of one id are two.
        Record::Agent(party("spiffe://corp.example/bot", NOW + 5)),
        Record::Subject(party("spiffe://corp.example/bot", NOW + 6)),
        object("notes/ab12", NOW + 7),
        Record::Pair(party("spiffe://corp.example/bot", NOW + 8)),
    ];
    put(store, &records).unwrap();
    for record in &records {
        let key = record.key();
        assert_eq!(Some(record.clone()), get(store, key.kind, &key.id));
    }
    assert_eq!(None, get(store, RecordKind::Task, "t2"));
    assert_eq!(None, get(store, RecordKind::Session, "t1"));
    assert_eq!(None, get(store, RecordKind::Agent, "t1"));
    transact(store, &[], soon(), |transaction| {
        for record in &records {
            transaction.delete(record.key());
        }
        transaction.delete(task_key("never"));
        Ok(true)
    })
    .unwrap();
    for record in &records {
        let key = record.key();
        assert_eq!(None, get(store, key.kind, &key.id));
    }
}

/// What gives up or fails changes nothing, and runs once.
fn given_up(made: &Made) {
    let store = made.store.as_ref();
    put(store, &[session("s")]).unwrap();
    let mut runs = 0;
    for outcome in [Ok(false), Err(StoreError::Full("test".to_owned()))] {
        let said = transact(store, &[session_key("s")], soon(), |transaction| {
            runs += 1;
            transaction.put(Record::Task(Arc::new(task("t", "s", "bot"))));
            transaction.put(revocation(RevocationTarget::Task, "t"));
            transaction.delete(session_key("s"));
            transaction.audit(b"{\"no\":1}".to_vec());
            outcome.clone()
        });
        assert_eq!(outcome.map(|_| ()), said);
    }
    assert_eq!(2, runs);
    assert_eq!(None, get(store, RecordKind::Task, "t"));
    assert!(get(store, RecordKind::Session, "s").is_some());
    assert!(store.revocations().is_empty());
    transact(store, &[], soon(), |transaction| {
        transaction.audit(b"{\"yes\":1}".to_vec());
        Ok(true)
    })
    .unwrap();
    assert_eq!(vec!["{\"yes\":1}"], (made.lines)(1));
}

/// A transaction reads what it wrote.
fn own_changes(made: &Made) {
    let store = made.store.as_ref();
    let tasks: Vec<Record> =
        ["a", "c", "e"].map(|id| Record::Task(Arc::new(task(id, "s", "bot")))).to_vec();
    put(store, &tasks).unwrap();
    transact(store, &[session_key("s")], soon(), |transaction| {
        let mut ended = task("c", "s", "bot");
        ended.status = TaskStatus::Completed;
        transaction.put(Record::Task(Arc::new(task("b", "s", "bot"))));
        transaction.put(Record::Task(Arc::new(ended)));
        transaction.delete(task_key("e"));
        transaction.put(Record::Task(Arc::new(task("d", "other", "bot"))));
        assert_eq!(None, transaction.get(&task_key("e"))?);
        assert_eq!(TaskStatus::Completed, task_of(transaction.get(&task_key("c"))?).status);
        let agent = "spiffe://corp.example/bot".to_owned();
        let mut find = |query: &Query, after: &str, most| {
            transaction.find(query, &page(after, most)).map(|found| ids(&found).concat())
        };
        assert_eq!("abc", find(&Query::Session("s".to_owned()), "", 9)?);
        assert_eq!("bc", find(&Query::Session("s".to_owned()), "a", 2)?);
        assert_eq!("a", find(&Query::Session("s".to_owned()), "", 1)?);
        assert_eq!("abd", find(&Query::LiveOf(agent.clone()), "", 9)?);
        assert_eq!("abcd", find(&Query::TasksOf(agent), "", 9)?);
        assert_eq!("cd", find(&Query::Tasks, "b", 9)?);
        assert_eq!("abd", find(&Query::DueBefore(i64::MAX), "", 9)?);
        transaction.put(proof("k/2", NOW));
        transaction.put(proof("k/1", NOW));
        transaction.put(proof("l/1", NOW));
        let mut find =
            |query: &Query| transaction.find(query, &page("", 9)).map(|found| ids(&found).concat());
        assert_eq!("k/1k/2l/1", find(&Query::Kind(RecordKind::Proof))?);
        assert_eq!("k/1k/2", find(&Query::Prefix(RecordKind::Proof, "k/".to_owned()))?);
        Ok(false)
    })
    .unwrap();
    assert_eq!("ace", all(store, &Query::Tasks).concat());
}

fn queries(made: &Made) {
    let store = made.store.as_ref();
    let mut tasks = Vec::new();
    for number in 0..20 {
        let agent = if number % 3 == 0 { "bot" } else { "clerk" };
        let mut one = task(&format!("t{number:02}"), &format!("s{}", number % 2), agent);
        if number % 5 == 0 {
            one.status = TaskStatus::Revoked;
        }
        tasks.push(Record::Task(Arc::new(one)));
    }
    put(store, &tasks).unwrap();
    let chosen = |of: &dyn Fn(usize) -> bool| -> Vec<String> {
        (0..20).filter(|number| of(*number)).map(|number| format!("t{number:02}")).collect()
    };
    let bot = "spiffe://corp.example/bot".to_owned();
    assert_eq!(chosen(&|_| true), all(store, &Query::Tasks));
    assert_eq!(chosen(&|n| n % 2 == 1), all(store, &Query::Session("s1".to_owned())));
    assert_eq!(chosen(&|n| n % 3 == 0), all(store, &Query::TasksOf(bot.clone())));
    assert_eq!(chosen(&|n| n % 3 == 0 && n % 5 != 0), all(store, &Query::LiveOf(bot)));
    assert!(all(store, &Query::Session("s".to_owned())).is_empty());
    assert!(all(store, &Query::TasksOf("spiffe://corp.example/bo".to_owned())).is_empty());
    assert!(store.find(&Query::Tasks, &page("", 0), soon()).unwrap().is_empty());
    assert_eq!(chosen(&|_| true), all(store, &Query::Kind(RecordKind::Task)));
    let prefix = |kind, first: &str| all(store, &Query::Prefix(kind, first.to_owned()));
    assert_eq!(chosen(&|n| n >= 10), prefix(RecordKind::Task, "t1"));
    let one = ["a", "a/", "a/1", "a/1/2", "a/2", "a0", "a/\u{10ffff}", "b", "a/\u{d7ff}x"];
    let proofs: Vec<Record> = one.iter().map(|id| proof(id, NOW)).collect();
    put(store, &proofs).unwrap();
    put(store, &[credential("a/9", NOW), signing_key("k", None), lease("a/1")]).unwrap();
    let below = ["a/", "a/1", "a/1/2", "a/2", "a/\u{d7ff}x", "a/\u{10ffff}"];
    assert_eq!(below.as_slice(), prefix(RecordKind::Proof, "a/"));
    assert_eq!(["a/\u{d7ff}x"].as_slice(), prefix(RecordKind::Proof, "a/\u{d7ff}"));
    assert_eq!(["a/\u{10ffff}"].as_slice(), prefix(RecordKind::Proof, "a/\u{10ffff}"));
    assert_eq!(9, prefix(RecordKind::Proof, "").len());
    assert!(prefix(RecordKind::Proof, "\u{10ffff}").is_empty());
    assert!(prefix(RecordKind::Proof, "c").is_empty() && prefix(RecordKind::Agent, "").is_empty());
    assert!(prefix(RecordKind::Proof, "a\0").is_empty());
    assert_eq!(["a/9"].as_slice(), all(store, &Query::Kind(RecordKind::Credential)));
    assert_eq!(["k"].as_slice(), all(store, &Query::Kind(RecordKind::SigningKey)));
    assert_eq!(["a/1"].as_slice(), prefix(RecordKind::Lease, "a/"));
    let from = |after: &str| {
        let query = Query::Prefix(RecordKind::Proof, "a/".to_owned());
        ids(&store.find(&query, &page(after, 2), soon()).unwrap())
    };
    assert_eq!(["a/", "a/1"].as_slice(), from("a"));
    assert_eq!(["a/2", "a/\u{d7ff}x"].as_slice(), from("a/1/2"));
    assert!(from("b").is_empty());
    assert_eq!(20, store.find(&Query::Tasks, &page("", usize::MAX), soon()).unwrap().len());
}

/// The earliest first; what has ended is not due.
fn due(made: &Made) {
    let store = made.store.as_ref();
    let mut idle = task("idle", "s", "bot");
    idle.idle_timeout_ms = Some(10);
    let mut ended = idle.clone();
    ended.id = "ended".to_owned();
    ended.status = TaskStatus::Aborted;
    let records = [
        Record::Task(Arc::new(task("late", "s", "bot"))),
        Record::Task(Arc::new(idle)),
        Record::Task(Arc::new(ended)),
        reservation("r2", "s", NOW + 20),
        reservation("r1", "s", NOW + 10),
        idempotency("i", NOW + 5),
        revocation(RevocationTarget::Jti, "j"),
        session("s"),
        // A credential is kept a minute beyond its end.
        credential("c", NOW - 59_970),
        proof("p", NOW + 40),
        signing_key("k", Some(NOW + 50)),
        signing_key("signs", None),
        lease("l"),
        Record::Subject(party("subject", NOW + 60)),
        Record::Agent(party("agent", NOW + 60)),
        object("notes", NOW + 70),
    ];
    put(store, &records).unwrap();
    let find = |before: i64, most: usize| {
        ids(&store.find(&Query::DueBefore(before), &page("", most), soon()).unwrap())
    };
    assert_eq!(["i", "idle", "r1", "r2"].as_slice(), find(NOW + 21, 9));
    assert_eq!(["i", "idle"].as_slice(), find(NOW + 21, 2));
    assert_eq!(["i"].as_slice(), find(NOW + 10, 9));
    assert_eq!(["c", "p", "k"].as_slice(), &find(NOW + 51, 9)[4..]);
    assert_eq!(["agent", "subject"].as_slice(), &find(NOW + 61, 9)[7..]);
    assert_eq!(["notes"].as_slice(), &find(NOW + 71, 99)[9..]);
    assert_eq!(12, find(i64::MAX, 99).len());
    assert!(find(i64::MIN, 9).is_empty());
}

/// Random transactions, held against the slow, obvious store.
fn random(made: &Made) {
    let store = made.store.as_ref();
    let oracle = MemoryStore::new([0; 32]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..150 {
        let mut changes: Vec<(Record, bool)> = Vec::new();
        for _ in 0..=next(6) {
            let id = format!("r{}", next(12));
            let record = match next(7) {
                6 => Record::Subject(party(&id, NOW + i64::try_from(next(50)).unwrap())),
                0 => session(&id),
                4 => proof(&id, NOW + i64::try_from(next(50)).unwrap()),
                5 => credential(&id, NOW - 60_000 + i64::try_from(next(50)).unwrap()),
                1 => reservation(&id, "s", NOW + i64::try_from(next(50)).unwrap()),
                _ => {
                    let session = format!("s{}", next(3));
                    let agent = format!("a{}", next(3));
                    let mut one = task(&id, &session, &agent);
                    one.uses[0] = next(100);
                    one.deadline = Time(NOW + i64::try_from(next(50)).unwrap());
                    if next(3) == 0 {
                        one.status = TaskStatus::Completed;
                    }
                    Record::Task(Arc::new(one))
                }
            };
            changes.push((record, next(4) == 0));
        }
        let commits = next(5) != 0;
        let most = usize::try_from(next(8)).unwrap();
        let query = match next(7) {
            0 => Query::Session(format!("s{}", next(3))),
            1 => Query::LiveOf(format!("spiffe://corp.example/a{}", next(3))),
            2 => Query::TasksOf(format!("spiffe://corp.example/a{}", next(3))),
            3 => Query::Tasks,
            4 => Query::Kind(RecordKind::Proof),
            5 => Query::Prefix(RecordKind::Credential, format!("r{}", next(3))),
            _ => Query::DueBefore(NOW + i64::try_from(next(60)).unwrap()),
        };
        let after = format!("r{}", next(12));
        let apply = |store: &dyn Store| {
            let mut inside = Vec::new();
            transact(store, &[session_key("s")], soon(), |transaction| {
                for (record, goes) in &changes {
                    if *goes {
                        transaction.delete(record.key());
                    } else {
                        transaction.put(record.clone());
                    }
                    inside.push(transaction.find(&query, &page(&after, most))?);
                }
                Ok(commits)
            })
            .unwrap();
            inside.push(store.find(&query, &page(&after, most), soon()).unwrap());
            inside.push(store.find(&query, &page("", 99), soon()).unwrap());
            for number in 0..12 {
                for kind in RecordKind::ALL {
                    let peeked = store.peek(&key(kind, &format!("r{number}")), soon()).unwrap();
                    inside.push(peeked.into_iter().collect());
                }
            }
            inside
        };
        assert_eq!(apply(&oracle), apply(store), "round {round}");
    }
}

/// On this node at once.
fn revoked(made: &Made) {
    let store = made.store.as_ref();
    assert!(store.revocations().is_empty());
    let one = revocation(RevocationTarget::Agent, "spiffe://corp.example/bot");
    let other = revocation(RevocationTarget::Task, "spiffe://corp.example/bot");
    put(store, &[one.clone(), other.clone()]).unwrap();
    let known = store.revocations();
    for target in [RevocationTarget::Agent, RevocationTarget::Task] {
        assert!(known.find(target, "spiffe://corp.example/bot").is_some());
    }
    assert!(known.find(RevocationTarget::Session, "spiffe://corp.example/bot").is_none());
    transact(store, &[], soon(), |transaction| {
        transaction.delete(one.key());
        Ok(true)
    })
    .unwrap();
    let known = store.revocations();
    assert!(known.find(RevocationTarget::Agent, "spiffe://corp.example/bot").is_none());
    assert!(known.find(RevocationTarget::Task, "spiffe://corp.example/bot").is_some());
}

/// On this node at once.
fn breakglass_is_known(made: &Made) {
    let store = made.store.as_ref();
    assert!(store.breakglasses().is_empty());
    put(store, &[breakglass("a", false), breakglass("b", true)]).unwrap();
    assert_eq!(2, store.breakglasses().iter().count());
    assert!(is_in_force(store));
    put(store, &[breakglass("a", true)]).unwrap();
    assert!(!is_in_force(store));
    transact(store, &[], soon(), |transaction| {
        transaction.delete(breakglass("a", true).key());
        Ok(true)
    })
    .unwrap();
    assert_eq!(1, store.breakglasses().iter().count());
}

/// No use is lost, whoever counts at the same time.
fn counted(made: &Made) {
    const THREADS: u64 = 6;
    const EACH: u64 = 25;
    let store = made.store.as_ref();
    put(store, &[Record::Task(Arc::new(task("t", "s", "bot")))]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in 0..EACH {
                    transact(store, &[session_key("s")], soon(), |transaction| {
                        let mut one = task_of(transaction.get(&task_key("t"))?);
                        one.uses[1] += 1;
                        transaction.put(Record::Task(Arc::new(one)));
                        let id = format!("{thread}-{number}");
                        transaction.put(reservation(&id, "s", NOW));
                        Ok(true)
                    })
                    .unwrap();
                }
            });
        }
    });
    let counted = task_of(get(store, RecordKind::Task, "t")).uses[1];
    assert_eq!(THREADS * EACH, counted);
    let due = store.find(&Query::DueBefore(NOW + 1), &page("", 1000), soon()).unwrap();
    assert_eq!(THREADS * EACH, due.len() as u64);
}

/// Many at one session, some of whom give up, fail or want too much: each has what it was told, and no other part in it.
fn mixed(made: &Made) {
    let store = made.store.as_ref();
    put(store, &[Record::Task(Arc::new(task("t", "s", "bot")))]).unwrap();
    let counted = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let counted = &counted;
            scope.spawn(move || {
                for round in 0..30 {
                    let kind = (thread * 7 + round) % 5;
                    let outcome = transact(store, &[session_key("s")], soon(), |transaction| {
                        let mut one = task_of(transaction.get(&task_key("t"))?);
                        one.uses[0] += 1;
                        if kind == 1 {
                            one.purpose = "x".repeat(9000);
                        }
                        transaction.put(Record::Task(Arc::new(one)));
                        let found =
                            transaction.find(&Query::Session("s".to_owned()), &page("", 9))?;
                        assert_eq!(["t"].as_slice(), ids(&found));
                        transaction.audit(format!("{{\"of\":\"{thread}-{round}\"}}").into_bytes());
                        match kind {
                            2 => Ok(false),
                            3 => Err(StoreError::unavailable("test")),
                            _ => Ok(true),
                        }
                    });
                    match (kind, &outcome) {
                        (0 | 4, Ok(())) => {
                            counted.fetch_add(1, Ordering::SeqCst);
                        }
                        (1, Err(StoreError::Full(_)))
                        | (2, Ok(()))
                        | (3, Err(StoreError::Unavailable(_))) => {}
                        _ => panic!("{kind}: {outcome:?}"),
                    }
                }
            });
        }
    });
    let counted = counted.load(Ordering::SeqCst);
    assert_eq!(u64::from(counted), task_of(get(store, RecordKind::Task, "t")).uses[0]);
    let mut lines = (made.lines)(counted as usize);
    lines.sort();
    lines.dedup();
    assert_eq!(counted as usize, lines.len());
}

/// Two keys in either order do not block each other for good.
fn crossed_locks(made: &Made) {
    let store = made.store.as_ref();
    let (one, other) = (session_key("s1"), key(RecordKind::Agent, "a"));
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let mut locks = vec![one.clone(), other.clone(), one.clone()];
            locks.rotate_left(turn % 2);
            scope.spawn(move || {
                for _ in 0..20 {
                    transact(store, &locks, soon(), |transaction| {
                        transaction.get(&locks[0])?;
                        Ok(true)
                    })
                    .unwrap();
                }
            });
        }
    });
}

/// Whoever waits for a lock waits until its deadline, and the next one gets the lock all the same.
fn lock_wait_is_bounded(made: &Made) {
    let store = made.store.as_ref();
    let locks = [session_key("s")];
    let is_held = AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            transact(store, &locks, soon(), |transaction| {
                transaction.get(&locks[0])?;
                is_held.store(1, Ordering::SeqCst);
                while is_held.load(Ordering::SeqCst) == 1 {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(true)
            })
            .unwrap();
        });
        while is_held.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        let from = Instant::now();
        let late = transact(store, &locks, after(80), |_| panic!("the lock is held"));
        assert_eq!(Err(StoreError::Slow), late);
        let took = from.elapsed();
        assert!(took >= Duration::from_millis(75) && took < Duration::from_secs(1), "{took:?}");
        is_held.store(2, Ordering::SeqCst);
        transact(store, &locks, soon(), |_| Ok(true)).unwrap();
    });
}

/// Lines of what is committed, in the order of the commits, each once.
fn lines(made: &Made) {
    let store = made.store.as_ref();
    for number in 0..30 {
        transact(store, &[session_key("s")], soon(), |transaction| {
            transaction.audit(format!("{{\"a\":{number}}}").into_bytes());
            transaction.audit(format!("{{\"b\":{number}}}").into_bytes());
            Ok(number % 3 != 0)
        })
        .unwrap();
    }
    let expected: Vec<String> = (0..30)
        .filter(|number| number % 3 != 0)
        .flat_map(|number| [format!("{{\"a\":{number}}}"), format!("{{\"b\":{number}}}")])
        .collect();
    assert_eq!(expected, (made.lines)(40));
    std::thread::sleep(Duration::from_millis(30));
    assert!((made.lines)(0).is_empty());
}

fn secret(made: &Made) {
    assert_ne!([0; 32], made.store.secret());
    assert_eq!(made.store.secret(), made.store.secret());
}

/// What is too much is refused as a whole, and changes nothing.
fn full(made: &Made) {
    let store = made.store.as_ref();
    let refused = |records: &[Record], words: &str| match put(store, records) {
        Err(StoreError::Full(why)) => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}"),
    };
    let tasks: Vec<Record> =
        (0..41).map(|n| Record::Task(Arc::new(task(&format!("t{n}"), "s", "bot")))).collect();
    refused(&tasks, "41 tasks, at most 40");
    assert!(all(store, &Query::Tasks).is_empty());
    put(store, &tasks[..40]).unwrap();
    refused(&tasks[40..], "41 tasks, at most 40");
    // What is there may still change, and something else may come for what goes.
    put(store, &tasks[..40]).unwrap();
    transact(store, &[], soon(), |transaction| {
        transaction.delete(task_key("t0"));
        transaction.put(tasks[40].clone());
        Ok(true)
    })
    .unwrap();
    // One kind does not crowd out another.
    put(store, &[revocation(RevocationTarget::Agent, "x")]).unwrap();
    let many: Vec<Record> =
        (0..5).map(|n| revocation(RevocationTarget::Jti, &n.to_string())).collect();
    refused(&many, "6 revocations, at most 4");
    assert_eq!(1, store.revocations().len());
    let many: Vec<Record> = (0..3).map(|n| signing_key(&n.to_string(), None)).collect();
    refused(&many, "3 signing keys, at most 2");
    put(store, &many[..2]).unwrap();
    let many: Vec<Record> = (0..13).map(|n| Record::Subject(party(&n.to_string(), NOW))).collect();
    refused(&many, "13 subjects, at most 12");
    let many: Vec<Record> = (0..12).map(|n| object(&n.to_string(), NOW)).collect();
    refused(&many, "12 objects, at most 11");
    let mut large = task("t1", "s", "bot");
    large.purpose = "x".repeat(9000);
    refused(&[Record::Task(Arc::new(large))], "bytes in one record, at most 8192");
    let many: Vec<Record> = (0..65).map(|n| reservation(&n.to_string(), "s", NOW)).collect();
    refused(&many, "65 records in one transaction, at most 64");
    let long = transact(store, &[], soon(), |transaction| {
        transaction.audit(vec![b'x'; 1001]);
        Ok(true)
    });
    assert!(matches!(long, Err(StoreError::Full(_))), "{long:?}");
    assert_eq!(40, all(store, &Query::Tasks).len());
}

/// An id that no record can have is not found, and no record gets it.
fn hostile_ids(made: &Made) {
    let store = made.store.as_ref();
    let long = "x".repeat(MAX_ID_BYTES + 1);
    let odd = "'; DROP TABLE records; -- \u{feff}\u{202e}\\ %_\"\n";
    for id in ["", "\0", "a\0b", &long] {
        assert_eq!(None, get(store, RecordKind::Task, id), "{id:?}");
        let put = put(store, &[Record::Task(Arc::new(task(id, "s", "bot")))]);
        assert!(matches!(put, Err(StoreError::Full(_))), "{id:?}: {put:?}");
        assert!(
            store.find(&Query::Session(id.to_owned()), &page("", 9), soon()).unwrap().is_empty()
        );
        assert!(
            store.find(&Query::LiveOf(id.to_owned()), &page(id, 9), soon()).unwrap().is_empty()
        );
        transact(store, &[session_key(id), key(RecordKind::Agent, id)], soon(), |transaction| {
            transaction.delete(task_key("x"));
            Ok(transaction.find(&Query::Tasks, &page(id, 9))?.is_empty())
        })
        .unwrap();
    }
    put(store, &[Record::Task(Arc::new(task(odd, odd, "bot")))]).unwrap();
    assert_eq!(odd, task_of(get(store, RecordKind::Task, odd)).session);
    assert_eq!(vec![odd], all(store, &Query::Session(odd.to_owned())));
}

/// Nothing is done for whom nobody waits any more.
fn late(made: &Made) {
    let store = made.store.as_ref();
    let outcome = transact(store, &[session_key("s")], after(40), |transaction| {
        transaction.put(session("s"));
        std::thread::sleep(Duration::from_millis(80));
        Ok(true)
    });
    assert_eq!(Err(StoreError::Slow), outcome);
    let outcome = transact(store, &[session_key("s")], after(40), |transaction| {
        std::thread::sleep(Duration::from_millis(80));
        transaction.get(&session_key("s"))?;
        Ok(true)
    });
    assert_eq!(Err(StoreError::Slow), outcome);
    assert_eq!(None, get(store, RecordKind::Session, "s"));
    put(store, &[session("s")]).unwrap();
}

fn health(made: &Made) {
    let store = made.store.as_ref();
    put(store, &[session("s"), Record::Task(Arc::new(task("t", "s", "bot")))]).unwrap();
    let health = store.health();
    assert!(health.reachable && health.writable, "{health:?}");
    assert_eq!((1, 0, ""), (health.commits, health.failures, health.last_error.as_str()));
    assert!(["memory", "embedded", "postgresql"].contains(&health.engine));
    assert!(store.staleness() < Duration::from_secs(1));
}

/// Whoever asks how the store stands, or what is revoked, holds up no change, nor a change it.
fn asked_meanwhile(made: &Made) {
    const ROUNDS: u32 = 3_000;
    let store = &made.store;
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, told) = std::sync::mpsc::channel();
    for _ in 0..3 {
        let (store, stop) = (Arc::clone(store), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                assert!(store.health().writable);
                store.revocations();
            }
        });
    }
    let (store, rounds) = (Arc::clone(store), if store.is_remote() { 100 } else { ROUNDS });
    std::thread::spawn(move || {
        for _ in 0..rounds {
            put(store.as_ref(), &[session("s")]).unwrap();
        }
        tell.send(()).unwrap();
    });
    // Not in a scope: threads that wait for each other would never be joined.
    let outcome = told.recv_timeout(Duration::from_secs(60));
    stop.store(true, Ordering::Relaxed);
    assert!(outcome.is_ok(), "changes and questions wait for each other");
}

/// Nothing is answered from a closed store.
fn closed(made: &Made) {
    let store = made.store.as_ref();
    put(store, &[session("s")]).unwrap();
    store.close();
    store.close();
    let is_closed = |error: StoreError| matches!(error, StoreError::Unavailable(_));
    assert!(is_closed(store.peek(&session_key("s"), soon()).unwrap_err()));
    assert!(is_closed(store.find(&Query::Tasks, &page("", 9), soon()).unwrap_err()));
    let mut work = |_: &mut dyn authz_state::store::Transaction| panic!("it is closed");
    let outcome: Result<Commit, StoreError> =
        store.transact(&[], Survives::PowerLoss, soon(), &mut work);
    assert!(is_closed(outcome.unwrap_err()));
    assert!(!store.health().writable);
}

/// The same state through another door: nothing but what is said to change has changed.
pub fn content(store: &dyn Store) -> BTreeMap<String, Record> {
    let tasks = all(store, &Query::Tasks);
    let tasks = tasks.iter().map(|id| store.peek(&task_key(id), soon()).unwrap().unwrap());
    let due = store.find(&Query::DueBefore(i64::MAX), &page("", 10_000), soon()).unwrap();
    due.into_iter().chain(tasks).map(|one| (format!("{:?}", one.key()), one)).collect()
}
