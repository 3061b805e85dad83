//! The journal of the embedded store: what a crash, a loss of power and a wrong copy may leave of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_base::record::Record;
use authz_state::AuditError;
use authz_state::store::{AuditSink, EmbeddedSettings, EmbeddedStore, Query, Store};

use crate::support::{Lines, all, folder, put, soon, task, transact};

/// A store that makes no checkpoint by itself.
fn open(folder: &Path) -> EmbeddedStore {
    let mut settings = EmbeddedSettings::new(folder.to_owned());
    settings.checkpoint_interval = Duration::from_secs(3600);
    crate::embedded::opened(&settings, &Lines::default())
}

fn refusal(folder: &Path) -> String {
    let settings = EmbeddedSettings::new(folder.to_owned());
    EmbeddedStore::open(settings, Lines::default().sink()).unwrap_err().to_string()
}

fn name(number: usize) -> String {
    format!("t{number:05}")
}

fn put_tasks(store: &EmbeddedStore, numbers: std::ops::Range<usize>) {
    let until = soon();
    for number in numbers {
        let one = Record::Task(Arc::new(task(&name(number), "s", "bot")));
        while let Err(why) = put(store, std::slice::from_ref(&one)) {
            // A slow disk is waited for.
            let is_slow = format!("{why:?}").contains("too slowly") && Instant::now() < until;
            assert!(is_slow, "{number}: {why:?} {:?}", store.health());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn tasks(store: &EmbeddedStore) -> usize {
    let found = all(store, &Query::Tasks);
    let expected: Vec<String> = (0..found.len()).map(name).collect();
    assert_eq!(expected, found, "what is there is all that came first");
    found.len()
}

/// What a killed process leaves behind: the files as they are now.
fn left(folder: &Path, name: &str) -> PathBuf {
    let to = self::folder(name);
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "lock" {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    to
}

/// The journals of a folder that hold commits, the older one first.
fn journals(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u8>, PathBuf)> = ["journal-0", "journal-1"]
        .map(|name| folder.join(name))
        .into_iter()
        .filter_map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            let mut generation = bytes.get(8..16)?.to_vec();
            generation.reverse();
            Some((generation, path))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// The last frame may be torn anywhere: it is not there then, and all before it is.
#[test]
fn torn_anywhere() {
    let folder = folder("journal-torn");
    let store = open(&folder);
    put_tasks(&store, 0..3);
    let current = journals(&folder).pop().unwrap();
    let three = std::fs::metadata(&current).unwrap().len();
    put_tasks(&store, 3..4);
    let four = std::fs::metadata(&current).unwrap().len();
    assert!(four > three);
    for length in (three..=four).step_by(37).chain([four - 1, four]) {
        let copy = left(&folder, "journal-torn-copy");
        let torn =
            std::fs::OpenOptions::new().write(true).open(copy.join(current.file_name().unwrap()));
        torn.unwrap().set_len(length).unwrap();
        let again = open(&copy);
        assert_eq!(if length == four { 4 } else { 3 }, tasks(&again), "{length}");
        put_tasks(&again, tasks(&again)..6);
        assert_eq!(6, tasks(&again));
        again.close();
        assert_eq!(6, tasks(&open(&copy)));
    }
    assert_eq!(4, tasks(&store));
}

/// What is damaged ends the journal, and nothing of it is half there.
#[test]
fn damaged_frame() {
    let folder = folder("journal-damaged");
    let store = open(&folder);
    put_tasks(&store, 0..2);
    let current = journals(&folder).pop().unwrap();
    let two = usize::try_from(std::fs::metadata(&current).unwrap().len()).unwrap();
    put_tasks(&store, 2..5);
    for at in [two, two + 4, two + 30, two + 400] {
        let copy = left(&folder, "journal-damaged-copy");
        let damaged = copy.join(current.file_name().unwrap());
        let mut bytes = std::fs::read(&damaged).unwrap();
        bytes[at] ^= 0x20;
        std::fs::write(&damaged, bytes).unwrap();
        assert_eq!(2, tasks(&open(&copy)), "{at}");
    }
    let copy = left(&folder, "journal-damaged-copy");
    let damaged = copy.join(current.file_name().unwrap());
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let why = refusal(&copy);
    assert!(why.contains("journal-") && why.contains("damaged"), "{why}");
}

/// A state file from a backup is not continued by a journal that was written later.
#[test]
fn state_file_of_another_copy() {
    let folder = folder("journal-copy");
    let store = open(&folder);
    put_tasks(&store, 0..2);
    store.close();
    let backup = std::fs::read(folder.join("state.db")).unwrap();
    for number in 2..5 {
        let store = open(&folder);
        put_tasks(&store, number..number + 1);
        store.close();
    }
    let store = open(&folder);
    put_tasks(&store, 5..6);
    let copy = left(&folder, "journal-copied");
    for file in ["state.db-wal", "state.db-shm"] {
        drop(std::fs::remove_file(copy.join(file)));
    }
    std::fs::write(copy.join("state.db"), backup).unwrap();
    let why = refusal(&copy);
    assert!(why.contains("do not belong together") && why.contains("remove the journal"), "{why}");
    for journal in journals(&copy) {
        std::fs::remove_file(journal).unwrap();
    }
    assert_eq!(2, tasks(&open(&copy)));
}

/// While the file takes nothing there are two journals: what a loss of power took of the first, it took with the second.
#[test]
fn nothing_without_what_came_before() {
    let folder = folder("journal-prefix");
    let mut settings = EmbeddedSettings::new(folder.clone());
    settings.max_pages = Some(60);
    settings.checkpoint_interval = Duration::from_millis(1);
    settings.retry_interval = Duration::from_secs(3600);
    let store = EmbeddedStore::open(settings, Lines::default().sink()).unwrap();
    let until = soon();
    let mut count = 0;
    while store.health().warnings.is_empty() {
        assert!(Instant::now() < until, "the file takes all");
        put_tasks(&store, count..count + 1);
        count += 1;
        // A checkpoint for each, about.
        std::thread::sleep(Duration::from_millis(5));
    }
    put_tasks(&store, count..count + 3);
    count += 3;
    let copy = left(&folder, "journal-prefix-whole");
    assert_eq!(count, tasks(&open(&copy)));
    let copy = left(&folder, "journal-prefix-torn");
    let older = journals(&copy).remove(0);
    let bytes = std::fs::read(&older).unwrap();
    // The header and some of the first frame.
    std::fs::write(&older, &bytes[..100]).unwrap();
    let kept = tasks(&open(&copy));
    assert!(kept < count - 3, "{kept} of {count}");
    assert_eq!(kept, tasks(&open(&copy)), "what came after it does not come back");
}

/// Audit lines that stand in the journal alone are sent again, and in their order.
#[test]
fn lines_of_the_journal() {
    let folder = folder("journal-lines");
    let broken: AuditSink = Arc::new(|_, _| Err(AuditError::Failed));
    let mut settings = EmbeddedSettings::new(folder.clone());
    settings.checkpoint_interval = Duration::from_secs(3600);
    let store = EmbeddedStore::open(settings, broken).unwrap();
    for number in 0..3 {
        transact(&store, &[], soon(), |transaction| {
            transaction.audit(format!("{number}").into_bytes());
            Ok(true)
        })
        .unwrap();
    }
    let lines = Lines::default();
    let copy = left(&folder, "journal-lines-copy");
    let again = EmbeddedStore::open(EmbeddedSettings::new(copy), lines.sink()).unwrap();
    assert_eq!(vec!["0", "1", "2"], lines.wait(3));
    again.close();
}
