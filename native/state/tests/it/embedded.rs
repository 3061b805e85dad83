//! The embedded store: what survives, and what a disk may do to it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authz_base::record::{Record, RecordKind, RevocationTarget};
use authz_state::store::{
    AuditSink, EmbeddedSettings, EmbeddedStore, Query, Store, StoreError, audit_sink,
};
use authz_state::{AuditError, AuditSettings, AuditWriter};
use rusqlite::Connection;

use crate::contract::{Made, content, run, small};
use crate::support::{
    Lines, NOW, all, breakglass, folder, idempotency, is_in_force, key, page, put, reservation,
    revocation, session, session_key, soon, task, task_key, transact,
};

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn open(folder: &Path, lines: &Lines) -> EmbeddedStore {
    opened(&EmbeddedSettings::new(folder.to_owned()), lines)
}

/// Opens a store. A child that another test is about to start has the lock for a moment, too.
pub fn opened(settings: &EmbeddedSettings, lines: &Lines) -> EmbeddedStore {
    let until = soon();
    loop {
        match EmbeddedStore::open(settings.clone(), lines.sink()) {
            Err(error) if error.to_string().contains("uses it") && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
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
    contract_with(100_000);
}

/// What memory does not hold is as good as what it holds.
#[test]
fn contract_with_hardly_anything_in_memory() {
    contract_with(0);
    contract_with(2);
}

fn contract_with(resident: usize) {
    run(&|| {
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let mut settings = EmbeddedSettings::new(folder(&format!("contract-{number}")));
        settings.bounds = small();
        settings.resident = resident;
        settings.checkpoint_interval = Duration::ZERO;
        let lines = Lines::default();
        let store = EmbeddedStore::open(settings, lines.sink()).unwrap();
        Made::new(Arc::new(store), lines)
    });
}

/// Only what changed last is in memory, from the start and later; the rest is read from the disk, unless that fails.
#[test]
fn left_to_the_disk() {
    let folder = folder("left");
    let mut settings = EmbeddedSettings::new(folder.clone());
    settings.resident = 3;
    let opened = |settings: &EmbeddedSettings| opened(settings, &Lines::default());
    let one = |number: usize| session(&format!("s{number}"));
    let store = opened(&settings);
    for number in 0..9 {
        put(&store, &[one(number)]).unwrap();
    }
    // What was put is ready for a while, in a store that is opened nothing is.
    store.close();
    let store = opened(&settings);
    let waits = |store: &EmbeddedStore| -> Vec<usize> {
        (0..9).filter(|number| store.may_wait(&one(*number).key())).collect()
    };
    assert_eq!((0..6).collect::<Vec<usize>>(), waits(&store));
    assert_eq!(Some(one(1)), store.peek(&one(1).key(), soon()).unwrap());
    assert_eq!(vec![0, 2, 3, 4, 5], waits(&store), "what was read is ready");
    assert_eq!(9, all(&store, &Query::Kind(RecordKind::Session)).len());
    assert_eq!(9, store.find(&Query::DueBefore(i64::MAX), &page("", 99), soon()).unwrap().len());
    store.close();
    let store = opened(&settings);
    let late = Instant::now().checked_sub(Duration::from_millis(1)).unwrap();
    assert_eq!(Err(StoreError::Slow), store.peek(&one(2).key(), late));
    assert_eq!(Some(one(8)), store.peek(&one(8).key(), late).unwrap());
    let gone = database(&folder).execute("DELETE FROM records WHERE id = 's3'", []).unwrap();
    assert_eq!(1, gone);
    let lost = store.peek(&one(3).key(), soon());
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    let changed = put(&store, &[one(3)]);
    assert!(matches!(changed, Err(StoreError::Unavailable(_))), "{changed:?}");
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
        breakglass("b1", false),
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
    assert!(store.health().warnings.is_empty());
    assert_eq!((before, secret), (content(&store), store.secret()));
    assert_eq!(5, content(&store).len());
    assert!(is_in_force(&store));
    let known = store.revocations();
    assert!(known.find(RevocationTarget::Agent, "spiffe://corp.example/bot").is_some());
}

/// What is kept is nobody else's to read, whatever the folder allows.
#[test]
fn private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder("private");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = open(&folder, &Lines::default());
    put(&store, &[session("s")]).unwrap();
    for file in std::fs::read_dir(&folder).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(0o600, mode & 0o777, "{}", file.path().display());
    }
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
    let (audit, sink) = audit(&folder);
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

/// The audit file of a folder, as a sink.
fn audit(folder: &Path) -> (Arc<AuditWriter>, AuditSink) {
    let audit = AuditWriter::open(AuditSettings::new(folder.join("audit.jsonl"))).unwrap();
    let audit = Arc::new(audit);
    let sink = audit_sink(&audit);
    (audit, sink)
}

const CHILD: &str = "AUTHZ_TEST_STATE_CHILD";

/// Where this process is to play the child of a test.
pub fn child_folder() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// This test program again, as the child of a test.
fn child(program: &Path, test: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

const THREADS: u32 = 4;

/// Commits until it is killed; what is durable is noted in `journal`, a line each.
pub fn commit_for_ever(folder: &Path, open: impl FnOnce(AuditSink) -> Box<dyn Store>) {
    let (_audit, sink) = audit(folder);
    let store = open(sink);
    let store = store.as_ref();
    let journal = std::fs::OpenOptions::new().append(true).open(folder.join("journal")).unwrap();
    let journal = Mutex::new(journal);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || {
                let name = format!("t{thread}");
                let mut one = match store.peek(&task_key(&name), soon()).unwrap() {
                    Some(Record::Task(task)) => (*task).clone(),
                    _ => task(&name, &name, "bot"),
                };
                loop {
                    one.uses[0] += 1;
                    let serial = one.uses[0];
                    transact(store, &[session_key(&name)], soon(), |transaction| {
                        transaction.put(Record::Task(Arc::new(one.clone())));
                        transaction.put(reservation(&format!("{name}-{serial}"), &name, NOW));
                        if serial > 20 {
                            let old = format!("{name}-{}", serial - 20);
                            transaction.delete(key(RecordKind::Reservation, &old));
                        }
                        let line = format!("{{\"id\":\"{name}-{serial}\"}}");
                        transaction.audit(line.into_bytes());
                        Ok(true)
                    })
                    .unwrap();
                    let line = format!("{thread} {serial}\n");
                    journal.lock().unwrap().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `kill -9` at random moments: all that was answered is there, with its audit lines; nothing is half there.
#[test]
fn killed() {
    killed_with("killed", EmbeddedSettings::new(PathBuf::new()).checkpoint_interval);
}

/// The same while the journal is moved to the file again and again.
#[test]
fn killed_in_a_checkpoint() {
    killed_with("killed_in_a_checkpoint", Duration::ZERO);
}

fn killed_with(test: &str, checkpoint_interval: Duration) {
    let open = |folder: &Path, sink| -> Box<dyn Store> {
        let mut settings = EmbeddedSettings::new(folder.join("state"));
        settings.checkpoint_interval = checkpoint_interval;
        Box::new(EmbeddedStore::open(settings, sink).unwrap())
    };
    if let Some(folder) = child_folder() {
        return commit_for_ever(&folder, |sink| open(&folder, sink));
    }
    let folder = folder(test);
    kill_again_and_again(&format!("embedded::{test}"), &folder, 12, &|command| command, &|sink| {
        let store = open(&folder, sink);
        let warnings = store.health().warnings.concat();
        assert!(warnings.contains("did not close"), "{warnings}");
        store
    });
}

/// Kills the child of a test `rounds` times, and looks each time at what it left.
pub fn kill_again_and_again(
    test: &str,
    folder: &Path,
    rounds: u64,
    with: &dyn Fn(&mut Command) -> &mut Command,
    open: &dyn Fn(AuditSink) -> Box<dyn Store>,
) {
    std::fs::write(folder.join("journal"), "").unwrap();
    let mut last = [0_u64; THREADS as usize];
    for round in 0..rounds {
        let program = std::env::current_exe().unwrap();
        let mut command = child(&program, test, folder);
        let mut running = KillOnDrop(with(&mut command).spawn().unwrap());
        let before = std::fs::read_to_string(folder.join("journal")).unwrap().len();
        let until = Instant::now() + Duration::from_secs(20);
        while std::fs::read_to_string(folder.join("journal")).unwrap().len() == before {
            assert!(Instant::now() < until, "the child commits nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 7919 % 60_000));
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        for line in std::fs::read_to_string(folder.join("journal")).unwrap().lines() {
            let (thread, serial) = line.split_once(' ').unwrap();
            // A commit of an earlier round, whose answer was not written any more, counts all the same.
            let last = &mut last[thread.parse::<usize>().unwrap()];
            *last = serial.parse::<u64>().unwrap().max(*last);
        }
        let lines = Lines::default();
        let store = open(lines.sink());
        let store = store.as_ref();
        for (thread, answered) in last.iter_mut().enumerate() {
            let name = format!("t{thread}");
            let kept = match store.peek(&task_key(&name), soon()).unwrap() {
                Some(Record::Task(task)) => task.uses[0],
                _ => 0,
            };
            assert!(kept == *answered || kept == *answered + 1, "{kept} of {answered}");
            *answered = kept;
            for serial in kept.saturating_sub(25).max(1)..=kept + 1 {
                let id = format!("{name}-{serial}");
                let found = store.peek(&key(RecordKind::Reservation, &id), soon()).unwrap();
                assert_eq!(serial > kept.saturating_sub(20) && serial <= kept, found.is_some());
            }
        }
        store.close();
        let written = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap();
        let mut known: std::collections::HashSet<String> =
            written.lines().map(str::to_owned).collect();
        // What the audit file did not get came out of the outbox.
        known.extend(lines.take());
        for (thread, answered) in last.iter().enumerate() {
            for serial in 1..=*answered {
                let line = format!("{{\"id\":\"t{thread}-{serial}\"}}");
                assert!(known.contains(&line), "{line} is lost");
            }
        }
        // The next round starts with them in the file, as a server would have it.
        let mut file =
            std::fs::OpenOptions::new().append(true).open(folder.join("audit.jsonl")).unwrap();
        if !written.is_empty() && !written.ends_with('\n') {
            writeln!(file).unwrap();
        }
        let mut missing: Vec<&String> = known.iter().collect();
        missing.retain(|line| !written.lines().any(|one| one == line.as_str()));
        for line in missing {
            writeln!(file, "{line}").unwrap();
        }
    }
    assert!(last.iter().sum::<u64>() > rounds, "{last:?}");
}

/// Puts tasks until the disk refuses, and checks that exactly those that were answered are there, then and later.
fn fill_up(store: &EmbeddedStore) -> u32 {
    let mut answered = 0;
    loop {
        let one = Record::Task(Arc::new(task(&format!("t{answered:05}"), "s", "bot")));
        match put(store, &[one]) {
            Ok(()) => answered += 1,
            Err(StoreError::Unavailable(why)) if why.to_string().contains("too slowly") => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(StoreError::Unavailable(why)) => {
                assert!(!why.to_string().is_empty());
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
        assert!(answered < 100_000);
    }
    let expected: Vec<String> = (0..answered).map(|number| format!("t{number:05}")).collect();
    assert_eq!(expected, all(store, &Query::Tasks));
    assert!(store.health().failures > 0 && !store.health().last_error.is_empty());
    answered
}

/// A full file refuses with its reason, keeps what it answered, and works again once there is room.
#[test]
fn full_file() {
    let folder = folder("full");
    let mut settings = EmbeddedSettings::new(folder.clone());
    settings.max_pages = Some(100);
    settings.retry_interval = Duration::from_millis(10);
    let store = EmbeddedStore::open(settings, Lines::default().sink()).unwrap();
    let answered = fill_up(&store);
    assert!(answered > 50, "{answered}");
    assert!(store.health().last_error.contains("full"), "{}", store.health().last_error);
    // What ends makes room: the sweep gets through by itself.
    let until = soon();
    let forget = || {
        transact(&store, &[], soon(), |transaction| {
            // The journal had room for many that the file has none for.
            for number in 0..answered / 10 * 9 {
                transaction.delete(task_key(&format!("t{number:05}")));
            }
            Ok(true)
        })
    };
    let new = || put(&store, &[Record::Task(Arc::new(task("new", "s", "bot")))]);
    for done in [&forget as &dyn Fn() -> Result<(), StoreError>, &new] {
        while let Err(why) = done() {
            assert!(Instant::now() < until, "{why:?} {answered} {:?}", store.health());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(store.health().warnings.is_empty() && store.health().writable);
    let expected = content(&store);
    store.close();
    assert_eq!(expected, content(&open(&folder, &Lines::default())));
}

/// The real thing: a process whose files may not grow past a limit. Later, without it, all that was answered is there.
#[test]
fn file_size_limit() {
    if let Some(folder) = child_folder() {
        let settings = EmbeddedSettings::new(folder.join("state"));
        let store = EmbeddedStore::open(settings, Lines::default().sink()).unwrap();
        let answered = fill_up(&store);
        assert!(answered > 5, "{answered}");
        std::fs::write(folder.join("answered"), answered.to_string()).unwrap();
        return;
    }
    let folder = folder("limit");
    let program = std::env::current_exe().unwrap();
    let status = Command::new("sh")
        // Blocks of 512 bytes or 1 KiB, as the shell has it; an ignored SIGXFSZ makes the write fail instead.
        .args(["-c", "trap '' XFSZ; ulimit -f 256; exec \"$0\" --exact embedded::file_size_limit"])
        .arg(&program)
        .env(CHILD, &folder)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let answered: u32 = std::fs::read_to_string(folder.join("answered")).unwrap().parse().unwrap();
    let store = open(&folder.join("state"), &Lines::default());
    let expected: Vec<String> = (0..answered).map(|number| format!("t{number:05}")).collect();
    assert_eq!(expected, all(&store, &Query::Tasks));
    put(&store, &[session("s")]).unwrap();
}

/// Every commit that waited fails with the disk, in memory too, and nobody who read it gets through.
#[test]
fn undone_together() {
    undone_with(100_000);
}

/// Also where what is undone was not in memory.
#[test]
fn undone_together_on_the_disk_alone() {
    undone_with(0);
}

fn undone_with(resident: usize) {
    let folder = folder(&format!("undone-{resident}"));
    let mut settings = EmbeddedSettings::new(folder.clone());
    settings.max_pages = Some(100);
    settings.retry_interval = Duration::from_millis(10);
    settings.checkpoint_interval = Duration::ZERO;
    settings.resident = resident;
    let store = EmbeddedStore::open(settings, Lines::default().sink()).unwrap();
    let counted = Record::Task(Arc::new(task("counted", "counted", "bot")));
    put(&store, &[counted, session("counted")]).unwrap();
    let answered = AtomicU32::new(0);
    let until = soon();
    let goes_on = || {
        let is_enough = answered.load(Ordering::SeqCst) >= 300 && store.health().failures >= 20;
        !is_enough && Instant::now() < until
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // More than the journal takes, so that it fails, with all that waits beside it.
            let large = |number: usize| {
                let mut large = task(&format!("large{number}"), "s", "bot");
                large.purpose = "x".repeat(100_000);
                Record::Task(Arc::new(large))
            };
            let all: Vec<Record> = (0..10).map(large).collect();
            while goes_on() {
                let refused = put(&store, &all);
                assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while goes_on() {
                    let done = transact(&store, &[session_key("counted")], soon(), |transaction| {
                        let Some(Record::Task(task)) = transaction.get(&task_key("counted"))?
                        else {
                            panic!("it is gone");
                        };
                        let mut task = (*task).clone();
                        task.uses[0] += 1;
                        transaction.put(Record::Task(Arc::new(task)));
                        let Some(Record::Session(session)) =
                            transaction.get(&session_key("counted"))?
                        else {
                            panic!("it is gone");
                        };
                        let mut session = (*session).clone();
                        session.history.calls += 1;
                        transaction.put(Record::Session(Arc::new(session)));
                        Ok(true)
                    });
                    match done {
                        Ok(()) => {
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
        }
    });
    assert!(store.health().failures > 0);
    let answered = u64::from(answered.load(Ordering::SeqCst));
    let counted = |store: &EmbeddedStore| {
        let of = |key| store.peek(&key, soon()).unwrap();
        match (of(task_key("counted")), of(session_key("counted"))) {
            (Some(Record::Task(task)), Some(Record::Session(session))) => {
                (task.uses[0], session.history.calls)
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(answered > 0);
    assert_eq!((answered, answered), counted(&store));
    store.close();
    assert_eq!((answered, answered), counted(&open(&folder, &Lines::default())));
}

/// A folder that cannot be written is refused at the start, with its name.
#[test]
fn read_only_folder() {
    if let Some(folder) = child_folder() {
        let why = refusal(&folder);
        assert!(why.contains(&folder.display().to_string()), "{why}");
        assert!(why.contains("denied") || why.contains("readonly"), "{why}");
        return;
    }
    let folder = folder("read-only");
    open(&folder.join("state"), &Lines::default()).close();
    // Root writes where it likes: the child is somebody else, and has the program where that one reads it.
    let program = folder.join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mode = |path: &Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&folder, 0o755);
    mode(&program, 0o755);
    for (of_folder, of_lock) in [(0o555, 0o644), (0o555, 0o666)] {
        mode(&folder.join("state"), of_folder);
        mode(&folder.join("state/lock"), of_lock);
        mode(&folder.join("state/state.db"), 0o444);
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        let status = command
            .args(["--exact", "embedded::read_only_folder"])
            .env(CHILD, folder.join("state"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }
}
