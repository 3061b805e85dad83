//! The thread that writes, and what it shares with those who commit.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::{Duration, Instant};

use authz_kernel::task::{Record, RecordKey, RecordKind};

use super::EmbeddedSettings;
use super::disk::{Batch, Disk, Loaded, checkpoint_beside};
use crate::audit::AuditError;
use crate::store::index::{Held, Index};
use crate::store::outbox::{AuditSink, Exporter, Line, bytes_of};
use crate::store::{Commit, StoreError, StoreHealth, Survives};
use crate::ticket::{Settle, pair};

/// Most commits that are written at once.
const MAX_BATCH: usize = 1024;
/// Most bytes that are written at once, but for a single commit.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// After so many bytes the log of changes is moved to the file, beside the writer.
const CHECKPOINT_BYTES: usize = 8 * 1024 * 1024;
/// From this size on the log is begun anew once a pass beside the writer has left little in it. A log that is written over
/// costs less than one that grows.
const RESTART_BYTES: u64 = 32 * 1024 * 1024;
/// What a changed record costs in the log besides its bytes: a page.
const PAGE_BYTES: usize = 4096;
/// So long a line that was sent waits for changes to be deleted with, rather than in a transaction of its own.
const TIDY: Duration = Duration::from_millis(50);
/// From this size on the writer does it itself, and everybody waits.
const MAX_LOG_BYTES: u64 = 128 * 1024 * 1024;

/// The text of a record, and the number of the commit that wrote it.
pub(super) type Written = (u64, Arc<[u8]>);

/// A changed record.
pub(super) struct Change {
    pub(super) key: RecordKey,
    /// What it becomes, with its text.
    pub(super) record: Option<(Record, Arc<[u8]>)>,
    /// What it was, where memory may not have that.
    pub(super) before: Option<Written>,
}

struct Item {
    records: Vec<(RecordKey, Option<Arc<[u8]>>)>,
    lines: Vec<Line>,
    /// What the records were before.
    undo: Vec<(RecordKey, Option<Held>)>,
    survives: Survives,
    bytes: usize,
    /// Its number.
    commit: u64,
    settle: Settle,
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    bytes: usize,
    /// A batch has been taken and is being written.
    writing: bool,
    /// Why nothing is changed at present.
    failed: Option<String>,
    closing: bool,
    /// Counts the times that commits were undone: what a transaction read before may be wrong.
    epoch: u64,
    /// The number of the last commit.
    last_commit: u64,
    /// The last commit that the disk has, with all before it.
    durable: u64,
    next_line: i64,
    /// The highest line that is synced, until its row is deleted.
    synced: Option<i64>,
    outbox_lines: usize,
    outbox_bytes: usize,
    last_error: String,
    commits: u64,
    failures: u64,
    warning: Option<String>,
    crashed: bool,
}

/// What those who commit share with the writer.
pub(super) struct Shared {
    pub(super) settings: EmbeddedSettings,
    index: RwLock<Index>,
    queue: Mutex<Queue>,
    filled: Condvar,
    closed: AtomicBool,
}

impl Shared {
    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        }
        Ok(())
    }

    /// Whether changes are taken; if so, at which epoch.
    pub(super) fn check_writable(&self) -> Result<u64, StoreError> {
        self.lock().check_writable()
    }

    pub(super) fn count_failure(&self) {
        let mut queue = self.lock();
        queue.failures = queue.failures.saturating_add(1);
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.closed.store(true, Ordering::Release);
        self.filled.notify_all();
    }

    /// Changes memory, and queues the changes for the disk.
    pub(super) fn commit(
        &self,
        epoch: u64,
        changes: Vec<Change>,
        lines: Vec<Vec<u8>>,
        survives: Survives,
    ) -> Result<Commit, StoreError> {
        let bounds = &self.settings.bounds;
        let line_bytes = lines.iter().map(Vec::len).fold(0, usize::saturating_add);
        let texts = changes.iter().filter_map(|change| change.record.as_ref());
        let bytes = texts.map(|(_, text)| text.len()).fold(line_bytes, usize::saturating_add);
        let mut queue = self.lock();
        if queue.check_writable()? != epoch {
            return Err(StoreError::Unavailable("its disk failed meanwhile".to_owned()));
        }
        let nothing = changes.is_empty() && lines.is_empty();
        if nothing && queue.items.is_empty() && !queue.writing {
            return Ok(Commit::Done);
        }
        if queue.items.len() >= self.settings.max_queued
            || queue.bytes.saturating_add(bytes) > self.settings.max_queued_bytes
        {
            return Err(StoreError::Unavailable("too much waits for its disk".to_owned()));
        }
        let outbox_lines = queue.outbox_lines.saturating_add(lines.len());
        let outbox_bytes = queue.outbox_bytes.saturating_add(line_bytes);
        if !lines.is_empty() {
            bounds.check_outbox(outbox_lines, outbox_bytes)?;
        }
        let mut index = self.index_mut();
        for kind in RecordKind::ALL {
            let (mut new, mut gone) = (0_usize, 0_usize);
            for change in changes.iter().filter(|change| change.key.kind == kind) {
                match (index.has(&change.key), change.record.is_some()) {
                    (false, true) => new = new.saturating_add(1),
                    (true, false) => gone = gone.saturating_add(1),
                    _ => {}
                }
            }
            if new > 0 {
                let count = index.count(kind).saturating_add(new).saturating_sub(gone);
                bounds.check_count(kind, count)?;
            }
        }
        // INVARIANT (undo): what is left to the disk can be brought back.
        let is_known = |change: &Change| match index.text(&change.key) {
            Some((commit, None)) => change.before.as_ref().is_some_and(|(of, _)| *of == commit),
            _ => true,
        };
        if !changes.iter().all(is_known) {
            return Err(StoreError::Unavailable(
                "what it changes was changed meanwhile".to_owned(),
            ));
        }
        let commit = queue.last_commit.saturating_add(1);
        queue.last_commit = commit;
        let mut undo = Vec::with_capacity(changes.len());
        let mut records = Vec::with_capacity(changes.len());
        for Change { key, record, before: written } in changes {
            let text = record.as_ref().map(|(_, text)| Arc::clone(text));
            let before = match (index.set(&key, record, commit), written) {
                (Some(Held::Cold(key, _)), Some((_, text))) => Some(Held::Text(key, text)),
                (before, _) => before,
            };
            undo.push((key.clone(), before));
            records.push((key, text));
        }
        index.forget(queue.durable);
        drop(index);
        let lines = lines
            .into_iter()
            .map(|bytes| {
                let number = queue.next_line;
                queue.next_line = queue.next_line.saturating_add(1);
                Line { number, bytes }
            })
            .collect();
        queue.outbox_lines = outbox_lines;
        queue.outbox_bytes = outbox_bytes;
        queue.bytes = queue.bytes.saturating_add(bytes);
        let (settle, ticket) = pair();
        queue.items.push(Item { records, lines, undo, survives, bytes, commit, settle });
        let wake = !queue.writing;
        drop(queue);
        if wake {
            self.filled.notify_one();
        }
        Ok(Commit::Pending(ticket))
    }

    pub(super) fn health(&self) -> StoreHealth {
        let queue = self.lock();
        let open = self.check_open().is_ok();
        StoreHealth {
            reachable: open,
            writable: queue.check_writable().is_ok(),
            last_error: queue.last_error.clone(),
            commits: queue.commits,
            failures: queue.failures,
            queued: queue.items.len() as u64,
            warnings: queue.warnings(),
            ..StoreHealth::default()
        }
    }
}

impl Queue {
    fn check_writable(&self) -> Result<u64, StoreError> {
        match &self.failed {
            _ if self.closing => Err(StoreError::Unavailable("it is closed".to_owned())),
            Some(why) => Err(StoreError::Unavailable(why.clone())),
            None => Ok(self.epoch),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let crashed = "the last process did not close its state: audit records of its last second, of decisions that \
                       change nothing, may be missing";
        let crashed = self.crashed.then(|| crashed.to_owned());
        crashed.into_iter().chain(self.warning.clone()).collect()
    }

    /// Takes as much as is written at once.
    fn take(&mut self) -> Vec<Item> {
        let mut bytes = 0_usize;
        let fits = self.items.iter().take(MAX_BATCH).take_while(|item| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(item.bytes.max(1));
            is_first || bytes <= MAX_BATCH_BYTES
        });
        let count = fits.count();
        let items: Vec<Item> = self.items.drain(..count).collect();
        let taken = items.iter().map(|item| item.bytes).fold(0, usize::saturating_add);
        self.bytes = self.bytes.saturating_sub(taken);
        items
    }
}

/// Owns the file and the lock on the folder.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// None while the disk fails.
    disk: Option<Disk>,
    path: PathBuf,
    exporter: Exporter,
    /// The last audit line that is committed.
    last_line: i64,
    /// Bytes written since the last checkpoint began, about.
    unmoved: usize,
    checkpointer: Option<std::thread::JoinHandle<Result<u64, String>>>,
    /// Released at the very end.
    _lock: File,
}

impl Writer {
    /// Sets up what is shared, and sends the audit lines that were left behind.
    pub(super) fn new(
        settings: EmbeddedSettings,
        path: PathBuf,
        disk: Disk,
        loaded: Loaded,
        lock: File,
        sink: AuditSink,
    ) -> io::Result<(Arc<Shared>, Self)> {
        let Loaded { index, lines, crashed, .. } = loaded;
        let last_line = lines.last().map_or(0, |line| line.number);
        let queue = Queue {
            next_line: last_line.saturating_add(1),
            outbox_lines: lines.len(),
            outbox_bytes: bytes_of(&lines),
            crashed,
            ..Queue::default()
        };
        let shared = Arc::new(Shared {
            settings,
            index: RwLock::new(index),
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            closed: AtomicBool::new(false),
        });
        let of_exporter = Arc::clone(&shared);
        let exporter = Exporter::start(
            sink,
            Box::new(move |lines| {
                let mut queue = of_exporter.lock();
                queue.synced = lines.last().map(|line| line.number).or(queue.synced);
                queue.outbox_lines = queue.outbox_lines.saturating_sub(lines.len());
                queue.outbox_bytes = queue.outbox_bytes.saturating_sub(bytes_of(lines));
            }),
        )?;
        exporter.push(lines);
        let writer = Self {
            shared: Arc::clone(&shared),
            disk: Some(disk),
            path,
            exporter,
            last_line,
            unmoved: 0,
            checkpointer: None,
            _lock: lock,
        };
        Ok((shared, writer))
    }

    pub(super) fn run(mut self) {
        loop {
            let (items, synced, closing) = self.next();
            if self.disk.is_none() {
                self.recover();
            }
            let idle = items.is_empty();
            if !idle || synced.is_some() {
                self.write(items, synced);
            }
            self.checkpoint();
            if closing && idle {
                break;
            }
        }
        self.exporter.close();
        let synced = self.shared.lock().synced.take();
        if synced.is_some() {
            self.write(Vec::new(), synced);
        }
        if let Some(running) = self.checkpointer.take() {
            drop(running.join());
        }
        if let Some(disk) = &self.disk {
            drop(disk.mark_closed());
        }
    }

    /// Waits for something to write, for the next try of a failed disk, or for the end.
    fn next(&self) -> (Vec<Item>, Option<i64>, bool) {
        let mut queue = self.shared.lock();
        queue.writing = false;
        let retry = self.shared.settings.retry_interval;
        let began = Instant::now();
        loop {
            let failed = queue.failed.is_some();
            let pause = if failed { retry } else { TIDY };
            let left = pause.saturating_sub(began.elapsed());
            let is_late = left.is_zero() && (failed || queue.synced.is_some());
            if queue.closing || is_late || (!failed && !queue.items.is_empty()) {
                break;
            }
            // Who sends lines wakes nobody: what is sent is looked for from time to time.
            let is_looked_for = failed || queue.outbox_lines > 0 || queue.synced.is_some();
            queue = if is_looked_for {
                let left = if left.is_zero() { pause } else { left };
                match self.shared.filled.wait_timeout(queue, left) {
                    Ok((queue, _)) => queue,
                    Err(poisoned) => poisoned.into_inner().0,
                }
            } else {
                self.shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner)
            };
        }
        let items = queue.take();
        queue.writing = !items.is_empty();
        let synced = if queue.failed.is_none() { queue.synced.take() } else { None };
        (items, synced, queue.closing)
    }

    /// Writes commits and settles them.
    fn write(&mut self, mut items: Vec<Item>, synced: Option<i64>) {
        let mut batch = Batch { synced, ..Batch::default() };
        for item in &mut items {
            batch.power_loss |= item.survives == Survives::PowerLoss;
            // A record that changed several times is written once, as it is at the end.
            batch.records.extend(std::mem::take(&mut item.records));
            batch.lines.append(&mut item.lines);
        }
        let is_empty = batch.records.is_empty() && batch.lines.is_empty() && synced.is_none();
        let outcome = match &mut self.disk {
            Some(_) if is_empty => Ok(()),
            Some(disk) => disk.write(&batch),
            None => Err("its disk fails".to_owned()),
        };
        if let Err(why) = outcome {
            if let Some(synced) = synced {
                self.shared.lock().synced.get_or_insert(synced);
            }
            let lines = (batch.lines.len(), bytes_of(&batch.lines));
            self.fail(items, lines, why);
            return;
        }
        if let Some(last) = batch.lines.last() {
            self.last_line = last.number;
        }
        let bodies = batch.records.values().flatten().map(|text| text.len());
        let bytes = bodies.fold(bytes_of(&batch.lines), usize::saturating_add);
        let pages = batch.records.len().saturating_mul(PAGE_BYTES);
        self.unmoved = self.unmoved.saturating_add(bytes).saturating_add(pages);
        let mut queue = self.shared.lock();
        queue.commits = queue.commits.saturating_add(items.len() as u64);
        queue.durable = items.last().map_or(queue.durable, |item| item.commit);
        drop(queue);
        for item in items {
            item.settle.settle(Ok(()));
        }
        self.exporter.push(batch.lines);
    }

    /// Undoes in memory whatever is not on the disk, and refuses changes from now on.
    fn fail(&mut self, mut items: Vec<Item>, (lines, bytes): (usize, usize), why: String) {
        // Opened again, it holds what the disk says and no longer what SQLite remembers of it.
        self.disk = None;
        let mut queue = self.shared.lock();
        queue.last_error.clone_from(&why);
        queue.failed = Some(why);
        queue.epoch = queue.epoch.wrapping_add(1);
        let mut gone = (lines, bytes);
        for item in &queue.items {
            gone.0 = gone.0.saturating_add(item.lines.len());
            gone.1 = gone.1.saturating_add(bytes_of(&item.lines));
        }
        items.append(&mut queue.items);
        queue.bytes = 0;
        queue.outbox_lines = queue.outbox_lines.saturating_sub(gone.0);
        queue.outbox_bytes = queue.outbox_bytes.saturating_sub(gone.1);
        queue.next_line = self.last_line.saturating_add(1);
        queue.failures = queue.failures.saturating_add(items.len() as u64);
        let mut index = self.shared.index_mut();
        for item in items.iter_mut().rev() {
            for (key, before) in std::mem::take(&mut item.undo).into_iter().rev() {
                index.restore(&key, before);
            }
        }
        drop(index);
        drop(queue);
        for item in items {
            item.settle.settle(Err(AuditError::Failed));
        }
    }

    /// Tries the disk again.
    fn recover(&mut self) {
        if let Some(running) = self.checkpointer.take() {
            drop(running.join());
        }
        let index = self.shared.index();
        let max_pages = self.shared.settings.max_pages;
        let mended = Disk::mend(&self.path, max_pages, &index, self.last_line);
        drop(index);
        let mut queue = self.shared.lock();
        match mended {
            Ok(disk) => {
                self.disk = Some(disk);
                queue.failed = None;
            }
            Err(why) => {
                queue.last_error.clone_from(&why);
                queue.failed = Some(why);
                queue.failures = queue.failures.saturating_add(1);
            }
        }
    }

    /// Keeps the log of changes short, on another thread where there is time.
    fn checkpoint(&mut self) {
        let Some(disk) = &self.disk else { return };
        if self.checkpointer.as_ref().is_some_and(|running| !running.is_finished()) {
            return;
        }
        let ended = self.checkpointer.take().and_then(|running| running.join().ok());
        let ended = ended.map(|moved| match moved {
            Ok(bytes) if bytes > RESTART_BYTES => disk.checkpoint_rest(),
            moved => moved.map(drop),
        });
        let outcome = if self.unmoved > CHECKPOINT_BYTES && disk.log_bytes() > MAX_LOG_BYTES {
            self.unmoved = 0;
            Some(disk.checkpoint())
        } else {
            if self.unmoved > CHECKPOINT_BYTES {
                self.unmoved = 0;
                let path = self.path.clone();
                self.checkpointer = std::thread::Builder::new()
                    .name("authz-checkpoint".to_owned())
                    .spawn(move || checkpoint_beside(&path))
                    .ok();
            }
            ended
        };
        if let Some(outcome) = outcome {
            let mut queue = self.shared.lock();
            queue.warning = outcome.err().map(|why| format!("the log of changes grows: {why}"));
        }
    }
}
