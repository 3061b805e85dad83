//! The shared store: what nodes see of each other, and what a database may do to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use authz_base::record::task::{Speaker, SpokenWords, Task, TaskStatus, TaskWords, WordPrint};
use authz_base::record::{Cutoff, Record, RecordKind, RevocationTarget};
use authz_base::time::Time;
use authz_state::AuditError;
use authz_state::store::{AuditSink, PostgresSettings, PostgresStore, Query, Store, StoreError};

use base64::Engine as _;

use crate::contract::{Made, content, run, small};
use crate::embedded::{child_folder, commit_for_ever, kill_again_and_again};
use crate::server::{Server, open, settings, try_open};
use crate::support::{
    Lines, NOW, after, all, breakglass, is_in_force, key, page, put, reservation, revocation,
    session, session_key, soon, task, task_key, transact,
};

#[test]
fn contract() {
    let Some(server) = Server::start("contract") else { return };
    run(&|| {
        let mut settings = settings(&server.dsn(&server.schema()), "one");
        settings.bounds = small();
        let lines = Lines::default();
        let store = try_open(settings, &lines).unwrap();
        Made::new(Arc::new(store), lines)
    });
}

/// A node that hears of others only when it asks in a transaction.
fn deaf(dsn: &str, node: &str) -> PostgresSettings {
    let mut settings = settings(dsn, node);
    settings.listens = false;
    rarely_asking(settings)
}

/// A node that hears of others by notices, and otherwise only when it asks in a transaction.
fn listening(dsn: &str, node: &str) -> PostgresSettings {
    rarely_asking(settings(dsn, node))
}

fn rarely_asking(mut settings: PostgresSettings) -> PostgresSettings {
    settings.poll_interval = Duration::from_secs(600);
    settings.revocation_staleness = Duration::from_secs(1200);
    settings
}

fn peek(store: &PostgresStore, id: &str) -> Task {
    match store.peek(&task_key(id), soon()).unwrap() {
        Some(Record::Task(task)) => (*task).clone(),
        other => panic!("{other:?}"),
    }
}

fn put_task(store: &PostgresStore, task: Task) {
    put(store, &[Record::Task(Arc::new(task))]).unwrap();
}

/// Waits until something is so, and returns how long it took.
fn until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let from = Instant::now();
    while !is_so() {
        assert!(from.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    from.elapsed()
}

fn works(store: &PostgresStore) -> bool {
    transact(store, &[session_key("s")], after(2000), |transaction| {
        transaction.put(session("s"));
        Ok(true)
    })
    .is_ok()
}

/// An ended task and a revocation of one node are met by the next transaction of the other.
#[test]
fn next_transaction() {
    let Some(server) = Server::start("next") else { return };
    let dsn = server.dsn(&server.schema());
    let one = open(&dsn, "one", &Lines::default());
    let other = try_open(deaf(&dsn, "other"), &Lines::default()).unwrap();
    assert_eq!(one.secret(), other.secret());
    for round in 0..20 {
        let id = format!("t{round}");
        put_task(&one, task(&id, "s", "bot"));
        assert_eq!(TaskStatus::Active, peek(&other, &id).status);
        let mut ended = task(&id, "s", "bot");
        ended.status = TaskStatus::Revoked;
        transact(&one, &[session_key("s")], soon(), |transaction| {
            transaction.put(Record::Task(Arc::new(ended.clone())));
            transaction.put(revocation(RevocationTarget::Agent, &id));
            Ok(true)
        })
        .unwrap();
        assert!(other.revocations().find(RevocationTarget::Agent, &id).is_none());
        transact(&other, &[session_key("elsewhere")], soon(), |transaction| {
            assert!(other.revocations().find(RevocationTarget::Agent, &id).is_some());
            let Some(Record::Task(task)) = transaction.get(&task_key(&id))? else { panic!("lost") };
            assert_eq!(ended, *task);
            Ok(false)
        })
        .unwrap();
        // Whoever heard of it does not answer from what it kept.
        assert_eq!(ended, peek(&other, &id));
    }
}

/// A node that never asks hears by notice of all that takes authority away, and of its end, and warns of nothing.
#[test]
fn by_notice() {
    let Some(server) = Server::start("notice") else { return };
    let dsn = server.dsn(&server.schema());
    let one = open(&dsn, "one", &Lines::default());
    let other = try_open(listening(&dsn, "other"), &Lines::default()).unwrap();
    let revoked = |id: &str| other.revocations().find(RevocationTarget::Jti, id).is_some();
    for round in 0..5 {
        let id = format!("t{round}");
        put_task(&one, task(&id, "s", "bot"));
        assert_eq!(TaskStatus::Active, peek(&other, &id).status);
        let mut ended = task(&id, "s", "bot");
        ended.status = TaskStatus::Completed;
        put_task(&one, ended);
        until("the end of the task", || peek(&other, &id).status == TaskStatus::Completed);
        put(&one, &[revocation(RevocationTarget::Jti, &id)]).unwrap();
        until("the revocation", || revoked(&id));
        transact(&one, &[session_key("s")], soon(), |transaction| {
            transaction.delete(revocation(RevocationTarget::Jti, &id).key());
            Ok(true)
        })
        .unwrap();
        until("the lifting", || !revoked(&id));
    }
    let cutoff = |at: i64| {
        let (issuer, value, reason) = ("corp".to_owned(), "alice".to_owned(), String::new());
        let (by, rest) = (String::new(), std::collections::BTreeMap::new());
        let (at, ends_at) = (Time(at), Time(i64::MAX));
        Record::Cutoff(Arc::new(Cutoff {
            issuer,
            claim: None,
            value,
            at,
            reason,
            by,
            ends_at,
            rest,
        }))
    };
    let known = |store: &PostgresStore| store.revocations().cutoff("corp/alice").map(|one| one.at);
    for at in [1, 2] {
        put(&one, &[cutoff(at)]).unwrap();
        until("the cut-off", || known(&other) == Some(Time(at)));
    }
    let third = open(&dsn, "third", &Lines::default());
    assert_eq!(Some(Time(2)), known(&third));
    put(&one, &[revocation(RevocationTarget::Jti, "t")]).unwrap();
    transact(&one, &[session_key("s")], soon(), |transaction| {
        transaction.delete(revocation(RevocationTarget::Jti, "t").key());
        Ok(true)
    })
    .unwrap();
    until("the lifting", || !revoked("t"));
    assert_eq!(Some(Time(2)), known(&other), "it went with a revocation");
    transact(&one, &[session_key("s")], soon(), |transaction| {
        transaction.delete(cutoff(2).key());
        Ok(true)
    })
    .unwrap();
    until("the end of the cut-off", || known(&other).is_none());
    put(&one, &[breakglass("b", false)]).unwrap();
    until("break-glass", || is_in_force(&other));
    put(&one, &[breakglass("b", true)]).unwrap();
    until("the end of break-glass", || !is_in_force(&other));
    assert_eq!(Vec::<String>::new(), other.health().warnings);
}

/// Stores in two schemas of a database do not wake each other's nodes, and a restart of the database loses no later notice.
#[test]
fn notices_after_a_restart() {
    let Some(mut server) = Server::start("notice-restart") else { return };
    let dsn = server.dsn(&server.schema());
    let one = open(&dsn, "one", &Lines::default());
    let other = try_open(listening(&dsn, "other"), &Lines::default()).unwrap();
    let elsewhere = open(&server.dsn(&server.schema()), "one", &Lines::default());
    put(&elsewhere, &[revocation(RevocationTarget::Jti, "elsewhere")]).unwrap();
    server.down("INT");
    server.up();
    until("work", || works(&one) && works(&other));
    put(&one, &[revocation(RevocationTarget::Jti, "here")]).unwrap();
    until("the revocation", || other.revocations().find(RevocationTarget::Jti, "here").is_some());
    assert_eq!(1, other.revocations().len());
}

/// A node that would be stale before it asks again does not start.
#[test]
fn interval_beyond_the_staleness() {
    let Some(server) = Server::start("interval") else { return };
    let mut settings = settings(&server.dsn(&server.schema()), "one");
    settings.poll_interval = settings.revocation_staleness;
    let error = try_open(settings, &Lines::default()).unwrap_err();
    assert!(error.to_string().contains("revocation_staleness"), "{error}");
}

/// What nobody asks for in a transaction is heard within the staleness all the same, also without notices.
#[test]
fn within_the_staleness() {
    let Some(server) = Server::start("staleness") else { return };
    let dsn = server.dsn(&server.schema());
    let one = open(&dsn, "one", &Lines::default());
    let mut asking = settings(&dsn, "other");
    asking.listens = false;
    let other = try_open(asking, &Lines::default()).unwrap();
    for round in 0..5 {
        let id = format!("t{round}");
        put_task(&one, task(&id, "s", "bot"));
        assert_eq!(TaskStatus::Active, peek(&other, &id).status);
        assert_eq!(TaskStatus::Active, peek(&other, &id).status);
        let mut changed = task(&id, "s", "bot");
        changed.names.user.insert("ffeeddccbbaa99887766554433221100".to_owned());
        put_task(&one, changed);
        let took = until("the extension", || peek(&other, &id).names.user.len() == 2);
        assert!(took < Duration::from_secs(1), "{took:?}");
        let mut ended = task(&id, "s", "bot");
        ended.status = TaskStatus::Completed;
        put_task(&one, ended);
        put(&one, &[revocation(RevocationTarget::Jti, &id)]).unwrap();
        let took = until("the end", || {
            peek(&other, &id).status == TaskStatus::Completed
                && other.revocations().find(RevocationTarget::Jti, &id).is_some()
        });
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
    // One that comes later knows all.
    let third = open(&dsn, "third", &Lines::default());
    assert_eq!(5, third.revocations().len());
    assert_eq!(content(&one), content(&third));
}

/// A node hears of break-glass of another node, and of its end; a node that comes later knows it.
#[test]
fn breakglass_of_another_node() {
    let Some(server) = Server::start("breakglass") else { return };
    let dsn = server.dsn(&server.schema());
    let one = open(&dsn, "one", &Lines::default());
    let other = open(&dsn, "other", &Lines::default());
    put(&one, &[breakglass("b", false)]).unwrap();
    assert!(is_in_force(&one));
    let took = until("the beginning", || is_in_force(&other));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let third = open(&dsn, "third", &Lines::default());
    assert!(is_in_force(&third));
    put(&other, &[breakglass("b", true)]).unwrap();
    assert!(!is_in_force(&other));
    until("the end", || !is_in_force(&one) && !is_in_force(&third));
}

/// A node keeps the words of a task that it read, and hears of the words that another node adds.
#[test]
fn further_words() {
    let Some(server) = Server::start("words") else { return };
    let schema = server.schema();
    let dsn = server.dsn(&schema);
    let one = open(&dsn, "one", &Lines::default());
    let other = open(&dsn, "other", &Lines::default());
    let words = key(RecordKind::Words, "t");
    let record = |count: u64| {
        let mut spoken = SpokenWords::default();
        let prints: Vec<WordPrint> = (1..=count).map(|n| WordPrint::new(n << 30, n)).collect();
        spoken.add(Speaker::Subject, &prints);
        let task = Task { deadline: Time(i64::MAX), ..task("t", "s", "bot") };
        Record::Words(Arc::new(TaskWords::new(&task, spoken)))
    };
    let count = |store: &PostgresStore| match store.peek(&words, soon()).unwrap() {
        Some(Record::Words(words)) => words.words.len(),
        other => panic!("{other:?}"),
    };
    put(&one, &[record(2)]).unwrap();
    assert_eq!(2, count(&other));
    // The row changes behind the back of all nodes: only what a node keeps answers as before.
    server.sql(&format!("DELETE FROM {schema}.authz_records WHERE kind = 14"));
    assert_eq!(2, count(&other), "each call reads the words from the database");
    put(&one, &[record(2)]).unwrap();
    transact(&one, &[session_key("s")], soon(), |transaction| {
        assert_eq!(Some(record(2)), transaction.get(&words)?);
        transaction.put(record(5));
        Ok(true)
    })
    .unwrap();
    let took = until("the further words", || count(&other) == 5);
    assert!(took < Duration::from_secs(1), "{took:?}");
    transact(&other, &[session_key("s")], soon(), |transaction| {
        assert_eq!(Some(record(5)), transaction.get(&words)?);
        Ok(false)
    })
    .unwrap();
}

/// Another transaction may take its place in the feed first and commit last: nothing is missed.
#[test]
fn feed_out_of_order() {
    let Some(server) = Server::start("order") else { return };
    let schema = server.schema();
    let store = open(&server.dsn(&schema), "one", &Lines::default());
    let body = r#"{"target":"agent","value":"late","reason":"","by":"","at":1}"#;
    let _slow = server.session(&format!(
        "SET search_path = {schema}; BEGIN; INSERT INTO authz_feed (kind, id) VALUES (6, 'agent:late'); \
         INSERT INTO authz_records (kind, id, live, body) VALUES (6, 'agent:late', false, '{body}'); \
         SELECT pg_sleep(1); COMMIT"
    ));
    std::thread::sleep(Duration::from_millis(300));
    for number in 0..5 {
        put(&store, &[revocation(RevocationTarget::Jti, &number.to_string())]).unwrap();
    }
    assert!(store.revocations().find(RevocationTarget::Agent, "late").is_none());
    until("the late one", || store.revocations().find(RevocationTarget::Agent, "late").is_some());
    assert_eq!(6, store.revocations().len());
}

/// Two nodes count the uses of one task: none is lost.
#[test]
fn counted_by_two() {
    let Some(server) = Server::start("counted") else { return };
    let dsn = server.dsn(&server.schema());
    let nodes = [open(&dsn, "one", &Lines::default()), open(&dsn, "other", &Lines::default())];
    put_task(&nodes[0], task("t", "s", "bot"));
    std::thread::scope(|scope| {
        for node in &nodes {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        transact(node, &[session_key("s")], soon(), |transaction| {
                            let Some(Record::Task(task)) = transaction.get(&task_key("t"))? else {
                                panic!("it is lost");
                            };
                            let mut task = (*task).clone();
                            task.uses[0] += 1;
                            transaction.put(Record::Task(Arc::new(task)));
                            Ok(true)
                        })
                        .unwrap();
                    }
                });
            }
        }
    });
    let uses = |transaction: &mut dyn authz_state::store::Transaction| {
        let Some(Record::Task(task)) = transaction.get(&task_key("t"))? else { panic!("lost") };
        assert_eq!(150, task.uses[0]);
        Ok(false)
    };
    transact(&nodes[0], &[], soon(), uses).unwrap();
}

/// Those who wait for one session share transactions of the database.
#[test]
fn shared_transactions() {
    let Some(server) = Server::start("shared") else { return };
    let schema = server.schema();
    let store = open(&server.dsn(&schema), "one", &Lines::default());
    put_task(&store, task("t", "s", "bot"));
    // Each commit waits a while, as for a slow disk.
    server.sql(&format!(
        "CREATE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON {schema}.authz_records \
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.slow()"
    ));
    let count = |deadline: Instant| {
        transact(&store, &[session_key("s")], deadline, |transaction| {
            let Some(Record::Task(task)) = transaction.get(&task_key("t"))? else {
                panic!("it is lost");
            };
            let mut task = (*task).clone();
            task.uses[0] += 1;
            transaction.put(Record::Task(Arc::new(task)));
            Ok(true)
        })
    };
    let from = Instant::now();
    // Some have hardly any time, and spoil nothing for the others.
    let (done, tried) = std::thread::scope(|scope| {
        let hurried = scope.spawn(|| (0..40).filter(|_| count(after(30)).is_ok()).count());
        for _ in 0..10 {
            scope.spawn(|| (0..20).for_each(|_| count(soon()).unwrap()));
        }
        (hurried.join().unwrap(), 40)
    });
    let took = from.elapsed();
    let uses = usize::try_from(peek(&store, "t").uses[0]).unwrap();
    assert!(uses >= 200 + done && uses <= 200 + tried, "{uses} {done}");
    // One by one they would take 4 seconds at least.
    assert!(took < Duration::from_secs(3), "{took:?}");
    eprintln!("{done} of {tried} in a hurry were in time; {took:?}");
}

/// `kill -9` of a server at random moments: all that it answered is there, with its audit lines.
#[test]
fn killed() {
    const DSN: &str = "AUTHZ_TEST_STATE_DSN";
    if let Some(folder) = child_folder() {
        let dsn = std::env::var(DSN).unwrap();
        return commit_for_ever(&folder, |sink| {
            Box::new(PostgresStore::open(settings(&dsn, "one"), sink).unwrap())
        });
    }
    let Some(server) = Server::start("killed") else { return };
    let schema = server.schema();
    let dsn = server.dsn(&schema);
    let folder = crate::support::folder("pg-killed-journal");
    kill_again_and_again(
        "postgres::killed",
        &folder,
        8,
        &|command| command.env(DSN, &dsn),
        &|sink| {
            let connections =
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'authz'";
            until("the end of the killed one", || server.sql(connections) == "0");
            let store = PostgresStore::open(settings(&dsn, "one"), sink).unwrap();
            let left = format!("SELECT count(*) FROM {schema}.authz_outbox");
            until("its lines", || server.sql(&left) == "0");
            Box::new(store)
        },
    );
}

/// Members that this version does not know outlive its own writes, and records of unknown kinds stay where they are.
#[test]
fn newer_records() {
    let Some(server) = Server::start("members") else { return };
    let schema = server.schema();
    let store = open(&server.dsn(&schema), "one", &Lines::default());
    put_task(&store, task("t", "s", "bot"));
    put(&store, &[session("s"), reservation("d", "s", NOW)]).unwrap();
    let newer = r#""of_2031":{"a":[1,null]}"#;
    server
        .sql(&format!("UPDATE {schema}.authz_records SET body = '{{{newer},' || substr(body, 2)"));
    server.sql(&format!(
        "INSERT INTO {schema}.authz_records (kind, id, live, body) VALUES (99, 'x', false, '{{}}')"
    ));
    transact(&store, &[session_key("s")], soon(), |transaction| {
        for key in [task_key("t"), session_key("s"), key(RecordKind::Reservation, "d")] {
            let record = match transaction.get(&key)?.unwrap() {
                Record::Task(task) => {
                    let mut task = (*task).clone();
                    task.uses[0] += 1;
                    Record::Task(Arc::new(task))
                }
                Record::Session(session) => {
                    let mut session = (*session).clone();
                    session.tasks += 1;
                    Record::Session(Arc::new(session))
                }
                Record::Reservation(one) => {
                    let mut one = (*one).clone();
                    one.due = Time(NOW + 1);
                    Record::Reservation(Arc::new(one))
                }
                other => panic!("{other:?}"),
            };
            transaction.put(record);
        }
        Ok(true)
    })
    .unwrap();
    let kept = server
        .sql(&format!("SELECT count(*) FROM {schema}.authz_records WHERE body LIKE '%{newer}%'"));
    assert_eq!("3", kept);
    assert_eq!(
        "1",
        server.sql(&format!("SELECT count(*) FROM {schema}.authz_records WHERE kind = 99"))
    );
}

/// A task that another node used is not taken for idle because of what this node kept.
#[test]
fn used_elsewhere() {
    let Some(server) = Server::start("idle") else { return };
    let dsn = server.dsn(&server.schema());
    let one = open(&dsn, "one", &Lines::default());
    let other = try_open(deaf(&dsn, "other"), &Lines::default()).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let now = i64::try_from(now).unwrap();
    let mut idle = task("t", "s", "bot");
    (idle.last_used, idle.idle_timeout_ms) = (Time(now), Some(300));
    idle.deadline = Time(now + 600_000);
    put_task(&one, idle.clone());
    assert_eq!(Time(now), peek(&other, "t").last_used);
    transact(&one, &[session_key("s")], soon(), |transaction| {
        transaction.get(&task_key("t"))?;
        let mut used = idle.clone();
        used.last_used = Time(now + 60_000);
        transaction.put(Record::Task(Arc::new(used)));
        Ok(true)
    })
    .unwrap();
    until("the use", || peek(&other, "t").last_used == Time(now + 60_000));
}

#[test]
fn newer_schema() {
    let Some(server) = Server::start("newer") else { return };
    let schema = server.schema();
    let dsn = server.dsn(&schema);
    let store = open(&dsn, "one", &Lines::default());
    assert!(works(&store));
    server.sql(&format!("UPDATE {schema}.authz_meta SET value = '999' WHERE key = 'schema'"));
    let error = try_open(settings(&dsn, "two"), &Lines::default()).unwrap_err().to_string();
    assert!(error.contains("version 999") && error.contains("newer"), "{error}");
    // Who runs already stops, too.
    until("the newer schema", || !works(&store));
    assert!(store.health().last_error.contains("newer"), "{:?}", store.health());
}

#[test]
fn cannot_start() {
    let error =
        |dsn: &str| try_open(settings(dsn, "one"), &Lines::default()).unwrap_err().to_string();
    let refused = error("host=127.0.0.1 port=1 user=postgres password=s3cret");
    assert!(refused.contains("refused") && !refused.contains("s3cret"), "{refused}");
    let refused = error("host=db.example user=postgres password=s3cret");
    assert!(refused.contains("sslrootcert") && !refused.contains("s3cret"), "{refused}");
    let Some(server) = Server::start("start") else { return };
    let refused = error(&server.dsn("s0").replace("user=postgres", "user=nobody"));
    assert!(refused.contains("nobody"), "{refused}");
}

/// Whatever the database does, an answer comes by the deadline, and later all goes on by itself.
#[test]
fn outages() {
    let Some(mut server) = Server::start("outages") else { return };
    let schema = server.schema();
    let store = open(&server.dsn(&schema), "one", &Lines::default());
    put_task(&store, task("t", "s", "bot"));
    let denied = |what: &str| {
        for _ in 0..3 {
            let from = Instant::now();
            let outcome = transact(&store, &[session_key("s")], after(300), |transaction| {
                transaction.put(Record::Task(Arc::new(task("lost", "s", "bot"))));
                Ok(true)
            });
            let took = from.elapsed();
            assert!(outcome.is_err(), "{what}");
            assert!(took < Duration::from_millis(1000), "{what}: {took:?}");
        }
    };
    let recovers = |what: &str| {
        let took = until(what, || works(&store));
        assert_eq!("t", all(&store, &Query::Tasks).concat(), "{what}");
        eprintln!("after {what}: works again in {took:?}");
    };
    recovers("nothing");

    for signal in ["INT", "QUIT"] {
        server.down(signal);
        denied("stopped");
        // What was heard last is good for a while, and no longer.
        std::thread::sleep(Duration::from_millis(1100));
        let peeked = store.peek(&task_key("t"), after(300));
        assert!(matches!(peeked, Err(StoreError::Unavailable(_))), "{peeked:?}");
        assert!(store.staleness() > Duration::from_secs(1));
        let health = store.health();
        assert!(!health.writable && !health.reachable && !health.last_error.is_empty());
        denied("stopped for long");
        server.up();
        recovers("a restart");
    }

    let locked = server.session(&format!(
        "BEGIN; LOCK TABLE {schema}.authz_records IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(30)"
    ));
    until("the lock", || {
        server.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'") != "0"
    });
    denied("a locked table");
    drop(locked);
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()");
    recovers("a locked table");

    let backends = || {
        let pids = server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'authz'");
        pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let signal = |signal: &str, pids: &[String]| {
        drop(std::process::Command::new("kill").args(["-s", signal]).args(pids).status());
    };
    // With the process that accepts connections: otherwise the store goes on with new ones.
    let mut frozen = backends();
    frozen.push(server.pid());
    signal("STOP", &frozen);
    denied("a server that stands still");
    signal("CONT", &frozen);
    recovers("a server that stood still");

    // Cut off in the middle of a transaction: nothing of it is there.
    let ran = AtomicBool::new(false);
    let cut = transact(&store, &[session_key("s")], after(2000), |transaction| {
        assert!(!ran.swap(true, Ordering::SeqCst), "it ran twice");
        transaction.put(Record::Task(Arc::new(task("lost", "s", "bot"))));
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'authz'");
        Ok(true)
    });
    assert!(cut.is_err());
    recovers("connections that were cut");

    // A server that no longer takes changes is left, and taken back.
    let read_only = |value: &str| {
        server.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}"));
        server.sql("SELECT pg_reload_conf()");
        std::thread::sleep(Duration::from_millis(100));
    };
    read_only("on");
    denied("a server that is read-only");
    std::thread::sleep(Duration::from_millis(1200));
    assert!(!store.health().writable, "{:?}", store.health());
    read_only("off");
    recovers("a server that was read-only");

    // A connection that is cut while it lies idle is nobody's trouble.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        until("work", || works(&store));
        server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'authz' AND state = 'idle' AND query = 'COMMIT'",
        );
        std::thread::sleep(Duration::from_millis(30));
        assert!(works(&store), "{:?}", store.health());
    }
}

/// The database fails over to a standby: denied meanwhile, then all goes on, with all that was committed.
#[test]
fn failover() {
    let Some(mut primary) = Server::start("primary") else { return };
    let schema = primary.schema();
    let standby = primary.standby("standby");
    let dsn = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname=postgres target_session_attrs=read-write \
         options='-c search_path={schema}'",
        primary.port(),
        standby.port()
    );
    let nodes = [open(&dsn, "one", &Lines::default()), open(&dsn, "other", &Lines::default())];
    put_task(&nodes[0], task("t", "s", "bot"));
    put(&nodes[0], &[revocation(RevocationTarget::Agent, "before")]).unwrap();
    let end = primary.sql("SELECT pg_current_wal_insert_lsn()");
    until("the standby", || {
        standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'")) == "t"
    });
    primary.down("QUIT");
    let from = Instant::now();
    let outcome = transact(&nodes[0], &[session_key("s")], after(300), |_| Ok(true));
    assert!(outcome.is_err() && from.elapsed() < Duration::from_millis(1000), "{outcome:?}");
    // A standby takes no changes, and its state may be old: it is not asked.
    std::thread::sleep(Duration::from_millis(1200));
    assert!(nodes[1].peek(&task_key("t"), after(300)).is_err());
    standby.promote();
    for node in &nodes {
        let took = until("the promoted standby", || works(node));
        eprintln!("after a failover: works again in {took:?}");
        assert_eq!(TaskStatus::Active, peek(node, "t").status);
        assert!(node.revocations().find(RevocationTarget::Agent, "before").is_some());
    }
    put(&nodes[0], &[revocation(RevocationTarget::Agent, "after")]).unwrap();
    transact(&nodes[1], &[], soon(), |_| {
        assert!(nodes[1].revocations().find(RevocationTarget::Agent, "after").is_some());
        Ok(false)
    })
    .unwrap();
}

/// Lines that one process could not get to its audit file go out after its restart, or by another node.
#[test]
fn outbox_survives() {
    let Some(server) = Server::start("outbox") else { return };
    let schema = server.schema();
    let dsn = server.dsn(&schema);
    let left = |count: &str| {
        let rows = || server.sql(&format!("SELECT count(*) FROM {schema}.authz_outbox"));
        until("the outbox", || rows() == count);
    };
    let broken: AuditSink = Arc::new(|_, _| Err(AuditError::Failed));
    let mut bounded = settings(&dsn, "one");
    bounded.bounds.outbox_lines = 3;
    let line = |store: &PostgresStore, number: u32| {
        transact(store, &[], soon(), |transaction| {
            transaction.put(session(&format!("s{number}")));
            transaction.audit(format!("{{\"line\":{number}}}").into_bytes());
            Ok(true)
        })
    };
    let store = PostgresStore::open(bounded, broken).unwrap();
    for number in 0..3 {
        line(&store, number).unwrap();
    }
    let full = line(&store, 3);
    assert!(matches!(&full, Err(StoreError::Full(why)) if why.contains("audit")), "{full:?}");
    store.close();
    left("3");
    let lines = Lines::default();
    let store = open(&dsn, "one", &lines);
    assert_eq!(vec!["{\"line\":0}", "{\"line\":1}", "{\"line\":2}"], lines.wait(3));
    left("0");
    line(&store, 4).unwrap();
    assert_eq!(vec!["{\"line\":4}"], lines.wait(1));
    left("0");
    server.sql(&format!(
        "INSERT INTO {schema}.authz_outbox (node, at, line) VALUES ('gone', now() - interval '1 minute', '{{\"of\":\"gone\"}}')"
    ));
    assert_eq!(vec!["{\"of\":\"gone\"}"], lines.wait(1));
    left("0");
    assert!(store.find(&Query::Tasks, &page("", 9), soon()).unwrap().is_empty());
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// TLS is verified: by authority and by name.
#[test]
fn tls() {
    let Some(mut server) = Server::start("tls") else { return };
    let schema = server.schema();
    let make = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
    };
    let ((own, key), (foreign, _)) = (make(), make());
    server.enable_tls(&own, &key);
    let folder = crate::support::folder("tls");
    std::fs::write(folder.join("own.pem"), own).unwrap();
    std::fs::write(folder.join("foreign.pem"), foreign).unwrap();
    let open = |host: &str, roots: &str| {
        let roots = folder.join(roots);
        let dsn = server.dsn(&schema).replace("host=127.0.0.1", &format!("host={host}"));
        let dsn = format!("{dsn} sslmode=verify-full sslrootcert={}", roots.display());
        try_open(settings(&dsn, "one"), &Lines::default())
    };
    let store = open("localhost", "own.pem").unwrap();
    assert!(works(&store));
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'authz'";
    assert_eq!("t", server.sql(encrypted));
    for (host, roots) in [("localhost", "foreign.pem"), ("127.0.0.1", "own.pem")] {
        let error = open(host, roots).unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
    }
}
