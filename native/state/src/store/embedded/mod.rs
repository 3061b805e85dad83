//! The store of one process: memory is the authority, a journal and a SQLite file keep what is committed.
//!
//! Of sessions, agents and subjects memory holds those that changed last; of the others it knows where they are.
//!
//! A commit changes memory at once and is durable once it is appended to the journal: by the committing thread, or by the
//! writer's thread, many at a time. About once a second, the writer moves the journal's changes to the SQLite file.
//! Where the journal cannot be written, all that waits is undone in memory, and nothing is changed until it and the file
//! can be written again.

mod batch;
mod disk;
mod files;
mod journal;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use authz_base::record::{Breakglasses, Record, RecordKey, RecordKind, Revocations};
use thiserror::Error;

use self::disk::{Disk, DiskError};
use self::files::SystemFiles;
pub use self::files::{JournalFile, JournalFiles};
use self::journal::Journal;
use self::reader::{ReaderThread, RecordReader};
pub use self::writer::WriterStep;
use self::writer::{
    OpenedFiles, Pen, QueuedChange, Writer, WriterDrive, WriterShared, WrittenText,
};
use super::bounds::Bounds;
use super::index::HeldRecord;
use super::locks::KeyLocks;
use super::outbox::AuditSink;
use super::{
    Commit, Page, Query, Store, StoreError, StoreHealth, StoreOpenError, Survives, Transaction,
    Work, codec, query,
};
use crate::place;
use crate::sync::{self, JoinHandle, Mutex, now};

/// Settings of an [`EmbeddedStore`].
#[derive(Clone, Debug)]
pub struct EmbeddedSettings {
    /// The folder; made (mode 0700) where it does not exist. No two processes share it.
    pub folder: PathBuf,
    /// Bounds of the records.
    pub bounds: Bounds,
    /// Most commits that wait for the disk.
    pub max_queued: usize,
    /// Most bytes that wait for the disk.
    pub max_queued_bytes: usize,
    /// Most pages of 4 KiB of the file. `None`: as many as the disk takes. The journal takes as much, or its own maximum.
    pub max_pages: Option<u32>,
    /// Interval at which a failed disk is tried again.
    pub retry_interval: Duration,
    /// Time for which a commit is in the journal alone, about.
    pub checkpoint_interval: Duration,
    /// Number of sessions, agents and subjects each that are kept in memory; others are read from the disk.
    pub resident: usize,
}

impl EmbeddedSettings {
    /// Defaults: 16,384 commits and 64 MiB wait at most, retried every 200 ms; a checkpoint a second; 100,000 of each are
    /// kept in memory.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            bounds: Bounds::default(),
            max_queued: 16_384,
            max_queued_bytes: 64 * 1024 * 1024,
            max_pages: None,
            retry_interval: Duration::from_millis(200),
            checkpoint_interval: Duration::from_secs(1),
            resident: 100_000,
        }
    }
}

/// Keeps records in memory and in a folder of its own.
pub struct EmbeddedStore {
    shared: Arc<WriterShared>,
    pen: Arc<Mutex<Pen>>,
    reader: RecordReader,
    locks: Arc<KeyLocks>,
    secret: [u8; 32],
    /// The store has no threads.
    is_stepped: bool,
    background: Mutex<Background>,
}

/// Owner of the writer.
enum Background {
    Thread(JoinHandle<()>),
    /// The store has no thread.
    Stepped(Box<Writer>),
    Ended,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("folder", &self.shared.settings.folder)
            .finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Locks the folder for this process, reads what it holds, and starts the writer's thread. Audit lines that an earlier
    /// process committed but did not get to the audit file are sent again; they may then stand there twice.
    ///
    /// `sink` takes the audit lines; close the store before it.
    ///
    /// # Errors
    /// Another process has the folder, it cannot be written, the file is none of ours, cannot be read, or was written by a
    /// newer version.
    pub fn open(settings: EmbeddedSettings, sink: AuditSink) -> Result<Self, StoreOpenError> {
        Self::open_on(settings, sink, &SystemFiles, WriterDrive::Thread)
    }

    /// As [`EmbeddedStore::open`], without threads and with the journal in files of the caller: for simulations.
    ///
    /// A commit is written before its transaction returns. [`EmbeddedStore::step`] does the rest of the writer's work, and
    /// [`EmbeddedStore::abandon`] ends the store as a crash would.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_stepped(
        settings: EmbeddedSettings,
        sink: AuditSink,
        files: &dyn JournalFiles,
    ) -> Result<Self, StoreOpenError> {
        Self::open_on(settings, sink, files, WriterDrive::Stepped)
    }

    /// Does work of the writer, of a store without threads. Returns true if the SQLite file has all that was committed.
    pub fn step(&self, step: WriterStep) -> bool {
        match &mut *self.background.lock().ignore_poison() {
            Background::Stepped(writer) => writer.step(step),
            Background::Thread(_) | Background::Ended => false,
        }
    }

    /// Ends a store without threads and writes nothing more, as a crash of the process would.
    pub fn abandon(&self) {
        let mut background = self.background.lock().ignore_poison();
        if matches!(*background, Background::Stepped(_)) {
            self.shared.close();
            *background = Background::Ended;
        }
    }

    fn open_on(
        settings: EmbeddedSettings,
        sink: AuditSink,
        files: &dyn JournalFiles,
        drive: WriterDrive,
    ) -> Result<Self, StoreOpenError> {
        let what = format!("state folder `{}`", settings.folder.display());
        let lock = lock_folder(&settings.folder)
            .map_err(|error| StoreOpenError::new(what.as_str(), error))?;
        let path = settings.folder.join("state.db");
        let what = format!("state file `{}`", path.display());
        let source = OpenSource { path, lock, files, drive };
        Self::open_file(settings, source, sink)
            .map_err(|error| StoreOpenError::new(what.as_str(), error))
    }

    /// Opens the file in a folder that is locked.
    fn open_file(
        settings: EmbeddedSettings,
        source: OpenSource<'_>,
        sink: AuditSink,
    ) -> Result<Self, DiskError> {
        let OpenSource { path, lock, files, drive } = source;
        make_file(&path)?;
        let mut disk = Disk::open(&path, settings.max_pages)?;
        let replayed = Journal::replay(files, &settings.folder, disk.checkpoint()?)?;
        disk.write(&replayed.batch, replayed.generation)?;
        let journal = Journal::open(
            files,
            &settings.folder,
            replayed.generation.saturating_add(1),
            writer::most_in_journal(settings.max_pages).saturating_mul(2),
        )?;
        sync_names(&settings.folder)?;
        let loaded = disk.load(settings.resident)?;
        let secret = loaded.secret;
        let reader = match drive {
            WriterDrive::Thread => RecordReader::Thread(ReaderThread::start(path.clone())?),
            WriterDrive::Stepped => RecordReader::Caller(path.clone()),
        };
        let opened = OpenedFiles { disk, journal, loaded, lock };
        let (shared, writer) = Writer::new(settings, path, opened, sink, drive)?;
        let pen = writer.pen();
        let background = match drive {
            WriterDrive::Thread => {
                Background::Thread(sync::spawn("authz-state", move || writer.run())?)
            }
            WriterDrive::Stepped => Background::Stepped(Box::new(writer)),
        };
        let background = Mutex::new(background);
        let is_stepped = drive == WriterDrive::Stepped;
        Ok(Self { shared, pen, reader, locks: KeyLocks::new(), secret, is_stepped, background })
    }

    /// The record that is held, wherever that is.
    fn read(&self, held: HeldRecord, deadline: Instant) -> Result<Record, StoreError> {
        held.read(|key, commit| {
            let text = self.reader.text(&key, deadline)?;
            let record = codec::decode(&key, &text).map_err(StoreError::from)?;
            self.shared.index().keep(&key, commit, &record);
            Ok(record)
        })
    }

    /// The text that a change of a record would undo, where memory may leave that to the disk, and the commit that wrote it.
    fn text(&self, key: &RecordKey, deadline: Instant) -> Result<Option<WrittenText>, StoreError> {
        let known = self.shared.index().text(key);
        Ok(match known {
            None => None,
            Some((commit, Some(text))) => Some((commit, text)),
            Some((commit, None)) => Some((commit, Arc::from(self.reader.text(key, deadline)?))),
        })
    }
}

impl Store for EmbeddedStore {
    fn is_remote(&self) -> bool {
        false
    }

    fn may_wait(&self, key: &RecordKey) -> bool {
        !self.shared.index().is_at_hand(key)
    }

    fn peek(&self, key: &RecordKey, deadline: Instant) -> Result<Option<Record>, StoreError> {
        self.shared.check_open()?;
        let held = self.shared.index().get(key)?;
        held.map(|held| self.read(held, deadline)).transpose()
    }

    fn find(
        &self,
        query: &Query,
        page: &Page,
        deadline: Instant,
    ) -> Result<Vec<Record>, StoreError> {
        self.shared.check_open()?;
        let found = self.shared.index().find(query, page, &BTreeMap::<RecordKey, ()>::new());
        found.into_iter().map(|held| self.read(held, deadline)).collect()
    }

    fn transact(
        &self,
        locks: &[RecordKey],
        survives: Survives,
        deadline: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError> {
        let outcome = self.try_transact(locks, survives, deadline, work);
        if outcome.is_err() {
            self.shared.count_failure();
        }
        outcome
    }

    fn revocations(&self) -> Arc<Revocations> {
        self.shared.index().revoked()
    }

    fn breakglasses(&self) -> Arc<Breakglasses> {
        self.shared.index().breakglasses()
    }

    fn staleness(&self) -> Duration {
        Duration::ZERO
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn health(&self) -> StoreHealth {
        // A guard held on into the other lock would wait for a commit, which takes the two the other way round.
        let count = |kind| self.shared.index().count(kind) as u64;
        let (tasks, sessions) = (count(RecordKind::Task), count(RecordKind::Session));
        let reservations = count(RecordKind::Reservation);
        StoreHealth { engine: "embedded", tasks, sessions, reservations, ..self.shared.health() }
    }

    fn close(&self) {
        self.shared.close();
        self.reader.close();
        let background =
            std::mem::replace(&mut *self.background.lock().ignore_poison(), Background::Ended);
        match background {
            Background::Thread(thread) => drop(thread.join()),
            Background::Stepped(writer) => writer.close(),
            Background::Ended => {}
        }
    }
}

impl EmbeddedStore {
    fn try_transact(
        &self,
        locks: &[RecordKey],
        survives: Survives,
        deadline: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError> {
        self.shared.check_writable()?;
        let guard = self.locks.acquire(locks, deadline)?;
        let epoch = self.shared.check_writable()?;
        let mut running = EmbeddedTransaction {
            store: self,
            deadline,
            changes: BTreeMap::new(),
            lines: Vec::new(),
        };
        if !work(&mut running)? {
            return Ok(Commit::Done);
        }
        if now() >= deadline {
            return Err(StoreError::Slow);
        }
        let EmbeddedTransaction { changes, lines, .. } = running;
        self.shared.settings.bounds.check_changes(changes.keys(), &lines)?;
        let mut encoded = Vec::with_capacity(changes.len());
        let mut bytes = Vec::with_capacity(codec::RECORD_BYTES);
        for (key, record) in changes {
            let record = match record {
                Some(record) => {
                    bytes.clear();
                    codec::write(&mut bytes, &record)?;
                    let text: Arc<[u8]> = Arc::from(bytes.as_slice());
                    self.shared.settings.bounds.check_record(text.len())?;
                    Some((record, text))
                }
                None => None,
            };
            let before = self.text(&key, deadline)?;
            encoded.push(QueuedChange { key, record, before });
        }
        let commit = self.shared.commit(epoch, encoded, lines, survives)?;
        drop(guard);
        // INVARIANT (lanes): a thread of the asynchronous runtime never waits for the disk.
        self.shared.written(&self.pen, sync::may_block());
        if self.is_stepped {
            self.step(WriterStep::Write);
        }
        Ok(commit)
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.close();
    }
}

struct EmbeddedTransaction<'a> {
    store: &'a EmbeddedStore,
    deadline: Instant,
    changes: BTreeMap<RecordKey, Option<Record>>,
    lines: Vec<Vec<u8>>,
}

impl EmbeddedTransaction<'_> {
    fn check_time(&self) -> Result<(), StoreError> {
        if now() >= self.deadline {
            return Err(StoreError::Slow);
        }
        Ok(())
    }
}

impl Transaction for EmbeddedTransaction<'_> {
    fn get(&mut self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        if let Some(changed) = self.changes.get(key) {
            return Ok(changed.clone());
        }
        let held = self.store.shared.index().get(key)?;
        match held {
            // What is in memory takes no time that a clock would tell.
            Some(HeldRecord::Ready(record)) => Ok(Some(record)),
            Some(held) => {
                self.check_time()?;
                self.store.read(held, self.deadline).map(Some)
            }
            None => Ok(None),
        }
    }

    fn find(&mut self, query: &Query, page: &Page) -> Result<Vec<Record>, StoreError> {
        self.check_time()?;
        let found = self.store.shared.index().find(query, page, &self.changes);
        let read = |held| self.store.read(held, self.deadline);
        let stored = found.into_iter().map(read).collect::<Result<Vec<Record>, _>>()?;
        if self.changes.is_empty() {
            return Ok(stored);
        }
        Ok(query::merged(stored, &self.changes, query, page))
    }

    fn put(&mut self, record: Record) {
        self.changes.insert(record.key(), Some(record));
    }

    fn delete(&mut self, key: RecordKey) {
        self.changes.insert(key, None);
    }

    fn audit(&mut self, line: Vec<u8>) {
        self.lines.push(line);
    }
}

/// Files from which a store is opened.
struct OpenSource<'a> {
    path: PathBuf,
    lock: File,
    files: &'a dyn JournalFiles,
    drive: WriterDrive,
}

/// Makes the file where there is none, so that nobody else can read it; SQLite gives the files beside it the same mode.
fn make_file(path: &Path) -> io::Result<()> {
    // What opens it next follows links, so it is opened here once without.
    place::open(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600), path)
        .map(drop)
}

/// Makes the names of folder and files survive a loss of power.
fn sync_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    // It may be nobody's to read, where the folder was made by somebody else.
    match folder.parent().map(File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        _ => Ok(()),
    }
}

/// Cause for which the folder cannot be locked.
#[derive(Debug, Error)]
enum LockFolderError {
    #[error("{0}")]
    Folder(#[from] io::Error),
    #[error("`{}`: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{owner} uses it; one process owns an embedded store, PostgreSQL serves several")]
    InUse { owner: String },
}

/// Makes the folder and locks it for this process. The lock is held as long as the file is open.
fn lock_folder(folder: &Path) -> Result<File, LockFolderError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = place::open(&mut options, &path)
        .map_err(|source| LockFolderError::File { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut who = String::new();
            drop(file.take(200).read_to_string(&mut who));
            let who = who.trim().to_owned();
            let who = if who.is_empty() { "another process".to_owned() } else { who };
            return Err(LockFolderError::InUse { owner: who });
        }
        Err(TryLockError::Error(source)) => return Err(LockFolderError::File { path, source }),
    }
    let mut note = || {
        file.set_len(0)?;
        file.write_all(format!("process {}\n", std::process::id()).as_bytes())
    };
    note().map_err(|source| LockFolderError::File { path, source })?;
    Ok(file)
}
