//! The embedded store: what survives, and what a disk may do to it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use authz_kernel::task::{Record, RevocationTarget};
use authz_state::store::{AuditSink, EmbeddedSettings, EmbeddedStore, Store, StoreError};
use authz_state::{AuditError, AuditSettings, AuditWriter, Durability};
use rusqlite::Connection;

use crate::contract::{Made, content, run, small};
use crate::support::{
    Lines, NOW, folder, idempotency, put, reservation, revocation, session, session_key, soon,
    task, task_key, transact,
};

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn open(folder: &Path, lines: &Lines) -> EmbeddedStore {
    EmbeddedStore::open(EmbeddedSettings::new(folder.to_owned()), lines.sink()).unwrap()
}

fn refusal(folder: &Path) -> String {
    let settings = EmbeddedSettings::new(folder.to_owned());
    EmbeddedStore::open(settings, Lines::default().sink()).unwrap_err().to_string()
}

fn database(folder: &Path) -> Connection {
    Connection::open(folder.join("state.db")).unwrap()
}

#[test]
fn contract() {
    run(&|| {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let mut settings = EmbeddedSettings::new(folder(&format!("contract-{number}")));
        settings.bounds = small();
        let lines = Lines::default();
        let store = EmbeddedStore::open(settings, lines.sink()).unwrap();
        Made::new(Arc::new(store), lines)
    });
}

#[test]
fn opened_again() {
    let folder = folder("again");
    let lines = Lines::default();
    let store = open(&folder, &lines);
    let secret = store.secret();
    let mut strange = task("t1", "s1", "bot");
    strange.rest.insert("later".to_owned(), serde_json::json!({"z": 1, "a": [2.5, null]}));
    let records = [
        session("s1"),
        Record::Task(Arc::new(strange)),
        Record::Task(Arc::new(task("t2", "s1", "bot"))),
        reservation("d1", "s1", NOW + 5),
        idempotency("corp/1234", NOW + 5),
        revocation(RevocationTarget::Agent, "spiffe://corp.example/bot"),
    ];
    put(&store, &records).unwrap();
    transact(&store, &[], soon(), |transaction| {
        transaction.delete(task_key("t2"));
        Ok(true)
    })
    .unwrap();
    let before = content(&store);
    store.close();
    let store = open(&folder, &lines);
    assert_eq!((before, secret), (content(&store), store.secret()));
    assert_eq!(4, content(&store).len());
    let known = store.revocations();
    assert!(known.find(RevocationTarget::Agent, "spiffe://corp.example/bot").is_some());
}

/// One process owns the folder, and whoever comes second is told who.
#[test]
fn second_process() {
    let folder = folder("second");
    let store = open(&folder, &Lines::default());
    let why = refusal(&folder);
    assert!(why.contains(&format!("process {} uses it", std::process::id())), "{why}");
    drop(store);
    open(&folder, &Lines::default());
}

#[test]
fn newer_schema() {
    let folder = folder("newer");
    open(&folder, &Lines::default()).close();
    database(&folder).pragma_update(None, "user_version", 77).unwrap();
    let why = refusal(&folder);
    assert!(why.contains("version 77") && why.contains("newer"), "{why}");
}

/// A database of somebody else is not touched.
#[test]
fn foreign_file() {
    let folder = folder("foreign");
    database(&folder).execute_batch("CREATE TABLE theirs (a)").unwrap();
    let why = refusal(&folder);
    assert!(why.contains("not made by authz"), "{why}");
    let count: i64 = database(&folder)
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .unwrap();
    assert_eq!(1, count);
}

#[test]
fn corrupt_file() {
    let folder = folder("corrupt");
    std::fs::write(folder.join("state.db"), "no database at all, but some text".repeat(200))
        .unwrap();
    let why = refusal(&folder);
    assert!(why.contains("not a database"), "{why}");

    let folder = self::folder("torn");
    let store = open(&folder, &Lines::default());
    let tasks: Vec<Record> = (0..200)
        .map(|number| Record::Task(Arc::new(task(&format!("t{number}"), "s", "bot"))))
        .collect();
    put(&store, &tasks).unwrap();
    store.close();
    let path = folder.join("state.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let why = refusal(&folder);
    assert!(
        why.contains("state.db") && (why.contains("malformed") || why.contains("cannot be read")),
        "{why}"
    );
}

/// A record that this version cannot read is not passed over: it may take authority away.
#[test]
fn unreadable_record() {
    for (statement, words) in [
        ("UPDATE records SET body = CAST('{\"id\": \"t\"}' AS BLOB)", "cannot be read"),
        ("UPDATE records SET id = 'other'", "another record"),
        ("UPDATE records SET kind = 99", "unknown"),
    ] {
        let folder = folder("unreadable");
        let store = open(&folder, &Lines::default());
        put(&store, &[Record::Task(Arc::new(task("t", "s", "bot")))]).unwrap();
        store.close();
        database(&folder).execute_batch(statement).unwrap();
        let why = refusal(&folder);
        assert!(why.contains(words), "{why}");
    }
}

/// A sink like a failing audit file: lines stay in the outbox, and go again after a restart.
#[test]
fn outbox_survives() {
    let folder = folder("outbox");
    let broken: AuditSink = Arc::new(|_, _| Err(AuditError::Failed));
    let mut settings = EmbeddedSettings::new(folder.clone());
    settings.bounds.outbox_lines = 3;
    let store = EmbeddedStore::open(settings, broken).unwrap();
    let line = |store: &EmbeddedStore, number: u32| {
        transact(store, &[], soon(), |transaction| {
            transaction.put(session(&format!("s{number}")));
            transaction.audit(format!("{{\"line\":{number}}}").into_bytes());
            Ok(true)
        })
    };
    for number in 0..3 {
        line(&store, number).unwrap();
    }
    // Nothing is decided that could not be recorded.
    let full = line(&store, 3);
    assert!(matches!(&full, Err(StoreError::Full(why)) if why.contains("audit")), "{full:?}");
    assert_eq!(None, store.peek(&session_key("s3"), soon()).unwrap());
    store.close();
    let lines = Lines::default();
    let store = open(&folder, &lines);
    assert_eq!(vec!["{\"line\":0}", "{\"line\":1}", "{\"line\":2}"], lines.wait(3));
    line(&store, 4).unwrap();
    assert_eq!(vec!["{\"line\":4}"], lines.wait(1));
    store.close();
    drop(store);
    let left: i64 =
        database(&folder).query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
    assert_eq!(0, left);
}

/// Lines reach a real audit file, in order and once.
#[test]
fn audit_file() {
    let folder = folder("audit");
    let audit =
        Arc::new(AuditWriter::open(AuditSettings::new(folder.join("audit.jsonl"))).unwrap());
    let of_sink = Arc::clone(&audit);
    let sink: AuditSink = Arc::new(move |line, synced| {
        of_sink.submit(line, if synced { Durability::Synced } else { Durability::Queued })
    });
    let store = EmbeddedStore::open(EmbeddedSettings::new(folder.join("state")), sink).unwrap();
    for number in 0..200 {
        transact(&store, &[], soon(), |transaction| {
            transaction.audit(format!("{{\"line\":{number}}}").into_bytes());
            Ok(true)
        })
        .unwrap();
    }
    store.close();
    audit.close();
    let text = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    let expected: Vec<String> = (0..200).map(|number| format!("{{\"line\":{number}}}")).collect();
    assert_eq!(expected, text.lines().collect::<Vec<_>>());
}
