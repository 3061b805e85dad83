//! A loss of power takes what the journal did not sync. What the SQLite file has, stays.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use authz_base::record::{Record, RecordKind};
use authz_state::store::{
    EmbeddedSettings, EmbeddedStore, JournalFile, JournalFiles, Store, Survives, WriterStep,
};

use crate::support::{Lines, NOW, folder, idempotency, key, session, soon};

/// Bytes of the first sector, which has the header of a journal.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct FileState {
    content: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug, Default)]
struct FilesState {
    files: BTreeMap<PathBuf, FileState>,
    /// A write at the begin of a file fails.
    fails_headers: bool,
}

/// Files in memory.
#[derive(Clone, Debug, Default)]
struct PowerFiles(Arc<Mutex<FilesState>>);

impl PowerFiles {
    fn lock(&self) -> MutexGuard<'_, FilesState> {
        self.0.lock().unwrap()
    }

    /// Takes all that was not synced.
    fn lose_power(&self) {
        for file in self.lock().files.values_mut() {
            file.content.clone_from(&file.synced);
        }
    }

    /// Takes of each file the first sector, unless it was synced, and keeps the others.
    fn lose_first_sectors(&self) {
        for file in self.lock().files.values_mut() {
            let length = file.content.len().min(SECTOR);
            file.synced.resize(length.max(file.synced.len()), 0);
            file.content[..length].copy_from_slice(&file.synced[..length]);
        }
    }
}

impl JournalFiles for PowerFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.lock();
        Ok(state.files.get(path).ok_or(io::ErrorKind::NotFound)?.content.clone())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn JournalFile>> {
        self.lock().files.entry(path.to_owned()).or_default();
        Ok(Box::new(PowerFile { files: self.clone(), path: path.to_owned() }))
    }
}

#[derive(Debug)]
struct PowerFile {
    files: PowerFiles,
    path: PathBuf,
}

impl PowerFile {
    fn change<T>(&self, change: impl FnOnce(&mut FileState) -> T) -> T {
        change(self.files.lock().files.get_mut(&self.path).unwrap())
    }
}

impl JournalFile for PowerFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset == 0 && self.files.lock().fails_headers {
            return Err(io::Error::other("told to"));
        }
        let offset = usize::try_from(offset).unwrap();
        let end = offset + bytes.len();
        self.change(|file| {
            file.content.resize(end.max(file.content.len()), 0);
            file.content[offset..end].copy_from_slice(bytes);
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|file| file.synced.clone_from(&file.content));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(|file| file.content.resize(usize::try_from(bytes).unwrap(), 0));
        Ok(())
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(self.change(|file| file.content.len() as u64))
    }
}

fn open(folder: &Path, files: &PowerFiles) -> EmbeddedStore {
    let settings = EmbeddedSettings::new(folder.to_owned());
    EmbeddedStore::open_stepped(settings, Lines::default().sink(), files).unwrap()
}

fn put(store: &EmbeddedStore, survives: Survives, record: &Record) {
    let commit = store.transact(&[], survives, soon(), &mut |transaction| {
        transaction.put(record.clone());
        Ok(true)
    });
    drop(commit.unwrap());
}

fn read(store: &EmbeddedStore, kind: RecordKind, id: &str) -> Option<Record> {
    store.peek(&key(kind, id), soon()).unwrap()
}

/// A store without threads writes at once, also for a loss of power.
#[test]
fn a_stepped_store_keeps_what_it_committed() {
    let (folder, files) = (folder("stepped"), PowerFiles::default());
    let store = open(&folder, &files);
    put(&store, Survives::PowerLoss, &session("s1"));
    put(&store, Survives::Crash, &session("s2"));
    store.abandon();
    assert!(store.peek(&session("s1").key(), soon()).is_err(), "it is closed");
    let store = open(&folder, &files);
    assert_eq!(Some(session("s2")), read(&store, RecordKind::Session, "s2"));
    put(&store, Survives::Crash, &session("s3"));
    store.abandon();
    files.lose_power();
    let store = open(&folder, &files);
    let kept = ["s1", "s2", "s3"].map(|id| read(&store, RecordKind::Session, id).is_some());
    assert_eq!([true, true, false], kept);
    store.close();
    let store = open(&folder, &files);
    assert!(read(&store, RecordKind::Session, "s1").is_some());
}

/// The header of a new file is synced before its frames: a store whose journal begins with zeros could not be opened.
#[test]
fn a_new_file_has_its_header_first() {
    let (folder, files) = (folder("first-header"), PowerFiles::default());
    for id in ["s1", "s2", "s3"] {
        let store = open(&folder, &files);
        // Its frame is longer than the first sector.
        let long = idempotency(&"i".repeat(800), NOW);
        put(&store, Survives::Crash, &long);
        put(&store, Survives::Crash, &session(id));
        assert!(store.step(WriterStep::Checkpoint));
        put(&store, Survives::Crash, &long);
        store.abandon();
        files.lose_first_sectors();
    }
    let store = open(&folder, &files);
    assert!(read(&store, RecordKind::Session, "s3").is_some(), "a checkpoint moved it");
}

/// A checkpoint that cannot begin a new generation moves frames of the one that goes on. They stay in the journal, too: otherwise
/// the frames before them would be replayed over the newer records.
#[test]
fn a_replay_never_goes_back() {
    let (folder, files) = (folder("back"), PowerFiles::default());
    let store = open(&folder, &files);
    let changed = |tasks: u32| match session("s1") {
        Record::Session(mut session) => {
            Arc::make_mut(&mut session).tasks = tasks;
            Record::Session(session)
        }
        other => other,
    };
    put(&store, Survives::Crash, &changed(1));
    put(&store, Survives::PowerLoss, &session("s2"));
    put(&store, Survives::Crash, &changed(2));
    files.lock().fails_headers = true;
    assert!(store.step(WriterStep::Checkpoint));
    files.lock().fails_headers = false;
    store.abandon();
    files.lose_power();
    let store = open(&folder, &files);
    assert_eq!(Some(changed(2)), read(&store, RecordKind::Session, "s1"));
}
