//! The thread that writes, what it shares with those who commit, and the pen, which one of them holds at a time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use authz_base::record::{Record, RecordKey, RecordKind};

use super::EmbeddedSettings;
use super::batch::{Changed, JournalFrame, RecordBatch};
use super::disk::{Disk, DiskError, LoadedState};
use super::journal::{FrameLog, Journal};
use crate::store::index::{HeldRecord, IndexRow, RecordIndex};
use crate::store::outbox::{AuditSink, Exporter, OutboxLine, Synced, bytes_of, sent_bytes};
use crate::store::{Commit, StoreError, StoreHealth, Survives};
use crate::sync::{
    AtomicBool, Condvar, JoinHandle, Mutex, MutexGuard, Ordering, RwLock, RwLockReadGuard,
    RwLockWriteGuard, now, spawn,
};
use crate::ticket::AuditError;
use crate::ticket::{Settle, pair};

/// Most commits that are written at once.
const MAX_BATCH: usize = 1024;
/// Most commits that one who commits writes.
const MAX_OWN: usize = 16;
/// Most times that one who commits writes, where others came meanwhile.
const MAX_TURNS: usize = 4;
/// Most bytes that are written at once, but for a single commit.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// After so many bytes the journal is moved to the file.
const CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;
/// While the file takes nothing, nothing new is taken once the journal has so many bytes; what ends is taken for as many
/// more.
const MOST_IN_JOURNAL: u64 = 64 * 1024 * 1024;
const PAGE_BYTES: u64 = 4096;
/// Why nothing new is taken where the file does not fail.
const SLOW: &str = "its file takes changes too slowly";
/// Interval at which the writer looks for work that does not wake it: lines that were sent, checkpoints.
const LOOK: Duration = Duration::from_millis(50);
/// It looks no more often than this.
const SHORT: Duration = Duration::from_millis(1);

/// Size of the journal in bytes from which no change is taken.
pub(super) fn most_in_journal(max_pages: Option<u32>) -> u64 {
    let most = max_pages.map_or(u64::MAX, |pages| u64::from(pages).saturating_mul(PAGE_BYTES));
    most.min(MOST_IN_JOURNAL)
}

/// The text of a record, and the number of the commit that wrote it.
pub(super) type WrittenText = (u64, Arc<[u8]>);

/// A changed record.
pub(super) struct QueuedChange {
    pub(super) key: RecordKey,
    /// The new record, with its text.
    pub(super) record: Option<(Record, Arc<[u8]>)>,
    /// The text before, if memory may lack it.
    pub(super) before: Option<WrittenText>,
}

struct QueuedItem {
    records: Vec<Changed>,
    lines: Vec<OutboxLine>,
    /// The records before.
    undo: Vec<(RecordKey, Option<HeldRecord>)>,
    survives: Survives,
    bytes: usize,
    /// Its number.
    commit: u64,
    settle: Settle,
}

#[derive(Default)]
struct WriterQueue {
    items: Vec<QueuedItem>,
    bytes: usize,
    /// A batch has been taken and is being written.
    writing: bool,
    /// The journal has something that the file may not have.
    unmoved: bool,
    /// Why nothing is changed at present.
    failed: Option<String>,
    closing: bool,
    /// Counts the times that commits were undone: what a transaction read before may be wrong.
    epoch: u64,
    /// The number of the last commit.
    last_commit: u64,
    /// The last commit that the file has, with all before it.
    durable: u64,
    /// The file takes nothing, and the journal has as much as it may.
    full: Option<String>,
    next_line: i64,
    /// The highest line that is synced, until the writer knows.
    synced: Option<i64>,
    outbox_lines: usize,
    outbox_bytes: usize,
    last_error: String,
    commits: u64,
    failures: u64,
    warning: Option<String>,
    crashed: bool,
}

/// State that committing threads share with the writer.
pub(super) struct WriterShared {
    pub(super) settings: EmbeddedSettings,
    index: RwLock<RecordIndex>,
    queue: Mutex<WriterQueue>,
    filled: Condvar,
    closed: AtomicBool,
}

impl WriterShared {
    pub(super) fn index(&self) -> RwLockReadGuard<'_, RecordIndex> {
        self.index.read().ignore_poison()
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, RecordIndex> {
        self.index.write().ignore_poison()
    }

    fn lock(&self) -> MutexGuard<'_, WriterQueue> {
        self.queue.lock().ignore_poison()
    }

    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::unavailable("it is closed"));
        }
        Ok(())
    }

    /// Returns whether changes are taken; if so, at which epoch.
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
        changes: Vec<QueuedChange>,
        lines: Vec<Vec<u8>>,
        survives: Survives,
    ) -> Result<Commit, StoreError> {
        let bounds = &self.settings.bounds;
        let line_bytes = lines.iter().map(Vec::len).fold(0, usize::saturating_add);
        let texts = changes.iter().filter_map(|change| change.record.as_ref());
        let bytes = texts.map(|(_, text)| text.len()).fold(line_bytes, usize::saturating_add);
        let mut queue = self.lock();
        if queue.check_writable()? != epoch {
            return Err(StoreError::unavailable("its disk failed meanwhile"));
        }
        let nothing = changes.is_empty() && lines.is_empty();
        if nothing && queue.items.is_empty() && !queue.writing {
            return Ok(Commit::Done);
        }
        if queue.items.len() >= self.settings.max_queued
            || queue.bytes.saturating_add(bytes) > self.settings.max_queued_bytes
        {
            return Err(StoreError::unavailable("too much waits for its disk"));
        }
        let outbox_lines = queue.outbox_lines.saturating_add(lines.len());
        let outbox_bytes = queue.outbox_bytes.saturating_add(line_bytes);
        if !lines.is_empty() {
            bounds.check_outbox(outbox_lines, outbox_bytes)?;
        }
        let mut index = self.index_mut();
        let known: Vec<IndexRow> = changes.iter().map(|change| index.known(&change.key)).collect();
        let all = || changes.iter().zip(&known);
        let is_new =
            |(change, known): (&QueuedChange, &IndexRow)| change.record.is_some() && !known.is_kept;
        // What ends makes room.
        if let Some(why) = queue.full.as_ref().filter(|_| all().any(is_new)) {
            return Err(StoreError::unavailable(why.clone()));
        }
        for kind in RecordKind::ALL {
            let (mut new, mut gone) = (0_usize, 0_usize);
            for (change, known) in all().filter(|(change, _)| change.key.kind == kind) {
                match (known.is_kept, change.record.is_some()) {
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
        let is_known = |(change, known): (&QueuedChange, &IndexRow)| {
            let has_text = |commit| change.before.as_ref().is_some_and(|(of, _)| *of == commit);
            known.cold.is_none_or(has_text)
        };
        if !all().all(is_known) {
            return Err(StoreError::unavailable("what it changes was changed meanwhile"));
        }
        let commit = queue.last_commit.saturating_add(1);
        queue.last_commit = commit;
        let mut undo = Vec::with_capacity(changes.len());
        let mut records = Vec::with_capacity(changes.len());
        for QueuedChange { key, record, before: written } in changes {
            let text = record.as_ref().map(|(_, text)| Arc::clone(text));
            let before = match (index.set(&key, record, commit), written) {
                (Some(HeldRecord::Cold(key, _)), Some((_, text))) => {
                    Some(HeldRecord::Text(key, text))
                }
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
                OutboxLine { number, bytes }
            })
            .collect();
        queue.outbox_lines = outbox_lines;
        queue.outbox_bytes = outbox_bytes;
        queue.bytes = queue.bytes.saturating_add(bytes);
        let (settle, ticket) = pair();
        queue.items.push(QueuedItem { records, lines, undo, survives, bytes, commit, settle });
        Ok(Commit::Pending(ticket))
    }

    /// Has what was committed written: here and now where nobody else is about it, or by the writer's thread.
    ///
    /// `may_write` is true if this thread may wait for the disk.
    pub(super) fn written(&self, pen: &Mutex<Pen>, may_write: bool) {
        let mut queue = self.lock();
        if queue.writing || queue.items.is_empty() {
            return;
        }
        let pen = if may_write && queue.is_short() { pen.try_lock().ok() } else { None };
        let Some(mut pen) = pen else {
            drop(queue);
            self.filled.notify_one();
            return;
        };
        queue.writing = true;
        // To write for who came meanwhile takes less than to wake the writer.
        for _ in 0..MAX_TURNS {
            let items = queue.take();
            drop(queue);
            pen.write(self, items);
            queue = self.lock();
            if queue.items.is_empty() || !queue.is_short() {
                break;
            }
        }
        queue.writing = false;
        let is_first = !std::mem::replace(&mut queue.unmoved, true);
        let wake = is_first || queue.closing || queue.failed.is_some() || !queue.items.is_empty();
        drop(queue);
        if wake {
            self.filled.notify_one();
        }
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

impl WriterQueue {
    fn check_writable(&self) -> Result<u64, StoreError> {
        match &self.failed {
            _ if self.closing => Err(StoreError::unavailable("it is closed")),
            Some(why) => Err(StoreError::unavailable(why.clone())),
            None => Ok(self.epoch),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let crashed = "the last process did not close its state: audit records of its last second, of decisions that \
                       change nothing, may be missing";
        let crashed = self.crashed.then(|| crashed.to_owned());
        crashed.into_iter().chain(self.warning.clone()).collect()
    }

    /// Returns whether what waits is soon written: what has to survive a loss of power takes its time, in which others
    /// gather.
    fn is_short(&self) -> bool {
        self.items.len() <= MAX_OWN
            && self.items.iter().all(|item| item.survives == Survives::Crash)
    }

    /// Takes as much as is written at once.
    fn take(&mut self) -> Vec<QueuedItem> {
        let mut bytes = 0_usize;
        let fits = self.items.iter().take(MAX_BATCH).take_while(|item| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(item.bytes.max(1));
            is_first || bytes <= MAX_BATCH_BYTES
        });
        let count = fits.count();
        let items: Vec<QueuedItem> = self.items.drain(..count).collect();
        let taken = items.iter().map(|item| item.bytes).fold(0, usize::saturating_add);
        self.bytes = self.bytes.saturating_sub(taken);
        items
    }
}

/// The journal, with the state that an append needs.
pub(super) struct Pen {
    journal: Journal,
    /// Changes of the journal that the file may lack.
    pending: PendingLog,
    /// An empty log, whose memory is reused for the changes after `pending`.
    spare: FrameLog,
    /// From when on the next checkpoint is waited for.
    since: Instant,
    /// The last commit that the journal has.
    last_commit: u64,
    /// The last audit line that is committed.
    last_line: i64,
    /// The highest line that is synced.
    synced: Option<i64>,
    exporter: Exporter,
}

/// Changes that wait for the next checkpoint.
#[derive(Clone, Debug, Default)]
struct PendingLog {
    log: FrameLog,
    /// The last audit line in the log.
    last_line: Option<i64>,
    /// The highest line that left the outbox: it need not be moved.
    left: Option<i64>,
    /// The file has lines that left the outbox.
    is_stale: bool,
}

impl PendingLog {
    fn is_empty(&self) -> bool {
        self.log.is_empty() && !self.is_stale
    }

    /// Adds what came after it.
    fn absorb(&mut self, later: Self) {
        self.log.extend(later.log);
        self.last_line = later.last_line.or(self.last_line);
        self.left = later.left.or(self.left);
        self.is_stale |= later.is_stale;
    }

    fn batch(&self) -> Result<RecordBatch, DiskError> {
        let mut batch = self.log.batch()?;
        if let Some(left) = self.left {
            batch.drop_lines(left);
        }
        batch.synced = self.left.filter(|_| self.is_stale);
        Ok(batch)
    }
}

impl Pen {
    /// Appends commits to the journal and settles them.
    fn write(&mut self, shared: &WriterShared, mut items: Vec<QueuedItem>) {
        let mut frame = JournalFrame { synced: self.synced, ..JournalFrame::default() };
        frame.add(items.iter_mut().map(|item| std::mem::take(&mut item.records)));
        for item in &mut items {
            frame.power_loss |= item.survives == Survives::PowerLoss;
            frame.lines.append(&mut item.lines);
        }
        let is_nothing = frame.records.is_empty() && frame.lines.is_empty();
        let is_first = self.pending.is_empty();
        let is_refused = shared.lock().failed.clone();
        let outcome = match is_refused {
            Some(why) => Err(why),
            None if is_nothing => Ok(()),
            None => {
                let log = &mut self.pending.log;
                self.journal.append(&frame, log).map_err(|error| error.to_string())
            }
        };
        if let Err(why) = outcome {
            let lines = (frame.lines.len(), bytes_of(&frame.lines));
            shared.fail(items, lines, self.last_line, why);
            return;
        }
        self.last_line = frame.lines.last().map_or(self.last_line, |line| line.number);
        self.last_commit = items.last().map_or(self.last_commit, |item| item.commit);
        let is_full = self.journal.bytes() > most_in_journal(shared.settings.max_pages);
        let mut queue = shared.lock();
        queue.commits = queue.commits.saturating_add(items.len() as u64);
        if is_full && queue.full.is_none() {
            let why = if queue.warning.is_some() { queue.last_error.as_str() } else { SLOW };
            queue.full = Some(why.to_owned());
        }
        drop(queue);
        for item in items {
            item.settle.settle(Ok(()));
        }
        if is_nothing {
            return;
        }
        if let Some(line) = frame.lines.last() {
            self.pending.last_line = Some(line.number);
        }
        self.exporter.push(frame.lines);
        if is_first {
            self.since = now();
        }
    }

    /// The generation whose last frame the file has, once what is pending is in it.
    const fn done(&self) -> u64 {
        self.journal.generation().saturating_sub(1)
    }

    /// Goes on in the other file of the journal, where that is free. If it cannot be written, this one is gone on with.
    fn rotate(&mut self, shared: &WriterShared) {
        if self.journal.has_room()
            && !self.journal.is_empty()
            && let Err(error) = self.journal.rotate()
        {
            shared.lock().last_error = error.to_string();
        }
    }

    /// Takes what is to be moved to the file, with its last commit and generation.
    fn take(&mut self, shared: &WriterShared) -> std::io::Result<(Arc<PendingLog>, u64, u64)> {
        self.rotate(shared);
        // INVARIANT (not ahead): if the file has frames of a generation that goes on, a loss of power must not take one of
        // them from the journal: the frames before it would be replayed over it.
        if !self.journal.is_empty() {
            self.journal.sync()?;
        }
        let next = PendingLog { log: std::mem::take(&mut self.spare), ..PendingLog::default() };
        let moving = Arc::new(std::mem::replace(&mut self.pending, next));
        Ok((moving, self.last_commit, self.done()))
    }
}

impl WriterShared {
    /// Undoes in memory all changes that are not on the disk, and refuses changes from now on.
    ///
    /// `lines` is the number of lines of the items and of their bytes; `last_line` the last committed line.
    fn fail(&self, mut items: Vec<QueuedItem>, lines: (usize, usize), last_line: i64, why: String) {
        let mut queue = self.lock();
        queue.last_error.clone_from(&why);
        queue.failed = Some(why);
        queue.epoch = queue.epoch.wrapping_add(1);
        let mut gone = lines;
        for item in &queue.items {
            gone.0 = gone.0.saturating_add(item.lines.len());
            gone.1 = gone.1.saturating_add(bytes_of(&item.lines));
        }
        items.append(&mut queue.items);
        queue.bytes = 0;
        queue.outbox_lines = queue.outbox_lines.saturating_sub(gone.0);
        queue.outbox_bytes = queue.outbox_bytes.saturating_sub(gone.1);
        queue.next_line = last_line.saturating_add(1);
        queue.failures = queue.failures.saturating_add(items.len() as u64);
        let mut index = self.index_mut();
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
}

/// Way in which a writer gets to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriterDrive {
    /// On a thread of its own.
    Thread,
    /// On the thread that calls [`Writer::step`].
    Stepped,
}

/// Work of a writer that has no thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterStep {
    /// Writes the commits that wait. A disk that failed is not tried again.
    Write,
    /// Sends audit lines, tries a failed disk again, and writes the commits that wait.
    Send,
    /// As [`WriterStep::Send`], and moves the journal to the SQLite file.
    Checkpoint,
}

/// Open files of a store.
pub(super) struct OpenedFiles {
    pub(super) disk: Disk,
    pub(super) journal: Journal,
    pub(super) loaded: LoadedState,
    /// The lock on the folder.
    pub(super) lock: File,
}

/// Owns the file and the lock on the folder.
pub(super) struct Writer {
    shared: Arc<WriterShared>,
    pen: Arc<Mutex<Pen>>,
    path: PathBuf,
    /// None while a checkpoint has it, and where it failed.
    disk: Option<Disk>,
    checkpoint: Option<Checkpoint>,
    /// The last checkpoint failed.
    is_failing: bool,
    /// The last audit line that stands in the file's outbox.
    stored_line: Option<i64>,
    /// Released at the very end.
    _lock: File,
}

/// A thread that writes to the file.
struct Checkpoint {
    thread: JoinHandle<(Option<Disk>, Result<(), DiskError>)>,
    moving: Arc<PendingLog>,
    commit: u64,
}

impl Writer {
    /// Sets up what is shared, and sends the audit lines that were left behind.
    pub(super) fn new(
        settings: EmbeddedSettings,
        path: PathBuf,
        opened: OpenedFiles,
        sink: AuditSink,
        drive: WriterDrive,
    ) -> std::io::Result<(Arc<WriterShared>, Self)> {
        let OpenedFiles { disk, journal, loaded, lock } = opened;
        let LoadedState { index, lines, crashed, .. } = loaded;
        let stored_line = lines.last().map(|line| line.number);
        let last_line = stored_line.unwrap_or(0);
        let queue = WriterQueue {
            next_line: last_line.saturating_add(1),
            outbox_lines: lines.len(),
            outbox_bytes: bytes_of(&lines),
            crashed,
            ..WriterQueue::default()
        };
        let shared = Arc::new(WriterShared {
            settings,
            index: RwLock::new(index),
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            closed: AtomicBool::new(false),
        });
        let of_exporter = Arc::clone(&shared);
        let synced: Synced = Box::new(move |lines| {
            let mut queue = of_exporter.lock();
            queue.synced = lines.last().map(|line| line.number).or(queue.synced);
            queue.outbox_lines = queue.outbox_lines.saturating_sub(lines.len());
            queue.outbox_bytes = queue.outbox_bytes.saturating_sub(sent_bytes(lines));
        });
        let exporter = match drive {
            WriterDrive::Thread => Exporter::start(sink, synced)?,
            WriterDrive::Stepped => Exporter::stepped(sink, synced),
        };
        exporter.push(lines);
        let pen = Pen {
            journal,
            pending: PendingLog::default(),
            spare: FrameLog::default(),
            since: now(),
            last_commit: 0,
            last_line,
            synced: None,
            exporter,
        };
        let writer = Self {
            shared: Arc::clone(&shared),
            pen: Arc::new(Mutex::new(pen)),
            path,
            disk: Some(disk),
            checkpoint: None,
            is_failing: false,
            stored_line,
            _lock: lock,
        };
        Ok((shared, writer))
    }

    /// The pen that committing threads write with.
    pub(super) fn pen(&self) -> Arc<Mutex<Pen>> {
        Arc::clone(&self.pen)
    }

    pub(super) fn run(mut self) {
        let pen = self.pen();
        loop {
            let next = self.next();
            let mut pen = pen.lock().ignore_poison();
            let closing = next.closing;
            let is_idle = self.turn(&mut pen, next);
            self.end_checkpoint(&mut pen, false);
            self.begin_checkpoint(&mut pen);
            self.end_turn(&pen, is_idle);
            drop(pen);
            if closing && is_idle {
                break;
            }
        }
        self.end(&mut pen.lock().ignore_poison());
    }

    /// Does what the thread would do now, on the thread of the caller.
    ///
    /// Returns true if the SQLite file has all that was committed.
    pub(super) fn step(&mut self, step: WriterStep) -> bool {
        let pen = self.pen();
        let mut pen = pen.lock().ignore_poison();
        match step {
            WriterStep::Write if self.shared.lock().failed.is_some() => return false,
            WriterStep::Write => {}
            WriterStep::Send | WriterStep::Checkpoint => pen.exporter.step(),
        }
        let next = self.take_next(&mut self.shared.lock());
        let is_idle = self.turn(&mut pen, next);
        let has_failed = self.shared.lock().failed.is_some();
        let is_moved =
            step == WriterStep::Checkpoint && !has_failed && self.checkpoint_now(&mut pen).is_ok();
        self.end_turn(&pen, is_idle);
        is_moved
    }

    /// Writes what waits, and ends.
    pub(super) fn close(mut self) {
        self.step(WriterStep::Write);
        let pen = self.pen();
        self.end(&mut pen.lock().ignore_poison());
    }

    /// Notes synced lines, tries a failed disk again, and writes. Returns true if there was nothing to write.
    fn turn(&mut self, pen: &mut Pen, next: Next) -> bool {
        self.note_synced(pen, next.synced);
        if next.failed {
            self.recover(pen);
        }
        let idle = next.items.is_empty();
        if !idle {
            pen.write(&self.shared, next.items);
        }
        idle
    }

    /// Lets others write again.
    fn end_turn(&self, pen: &Pen, is_idle: bool) {
        let mut queue = self.shared.lock();
        // Who writes beside this thread sets it again, and waits for the pen.
        queue.unmoved = !pen.pending.is_empty();
        if !is_idle {
            queue.writing = false;
        }
    }

    /// Ends exporter, journal and file.
    fn end(&mut self, pen: &mut Pen) {
        pen.exporter.close();
        let synced = self.shared.lock().synced.take();
        self.note_synced(pen, synced);
        self.end_checkpoint(pen, true);
        let is_moved = self.checkpoint_now(pen).is_ok();
        if let Some(disk) = self.disk.as_ref().filter(|_| is_moved) {
            drop(disk.mark_closed());
        }
    }

    /// Waits for something to write, for the next try of a failed disk, for a checkpoint, or for the end.
    fn next(&self) -> Next {
        let settings = &self.shared.settings;
        let pace = settings.checkpoint_interval.clamp(SHORT, LOOK);
        let mut queue = self.shared.lock();
        let began = now();
        loop {
            let failed = queue.failed.is_some();
            // Who sends lines wakes nobody, nor does a checkpoint: they are looked for from time to time.
            let is_looked_for = failed
                || queue.unmoved
                || self.checkpoint.is_some()
                || queue.outbox_lines > 0
                || queue.synced.is_some();
            let pause = if failed { settings.retry_interval } else { pace };
            let left = pause.saturating_sub(now().saturating_duration_since(began));
            let is_due = is_looked_for && left.is_zero();
            let is_filled = !failed && !queue.items.is_empty();
            // One who commits may be writing.
            if !queue.writing && (queue.closing || is_due || is_filled) {
                break;
            }
            queue = if is_looked_for {
                match self.shared.filled.wait_timeout(queue, left.max(SHORT)) {
                    Ok((queue, _)) => queue,
                    Err(poisoned) => poisoned.into_inner().0,
                }
            } else {
                self.shared.filled.wait(queue).ignore_poison()
            };
        }
        self.take_next(&mut queue)
    }

    /// Takes the work that waits.
    fn take_next(&self, queue: &mut WriterQueue) -> Next {
        let items = queue.take();
        queue.writing = !items.is_empty();
        let (synced, failed) = (queue.synced.take(), queue.failed.is_some());
        Next { items, synced, failed, closing: queue.closing }
    }

    /// Notes that lines need not be kept any more; the next frame and the next checkpoint say so.
    fn note_synced(&self, pen: &mut Pen, synced: Option<i64>) {
        if synced.is_none() {
            return;
        }
        pen.synced = synced;
        pen.pending.left = synced;
        pen.pending.is_stale |= self.stored_line.is_some();
    }

    /// Tries the disk again, journal and file.
    fn recover(&mut self, pen: &mut Pen) {
        self.end_checkpoint(pen, true);
        let rewound = pen.journal.rewind().map_err(DiskError::from);
        let outcome = rewound.and_then(|()| self.checkpoint_now(pen));
        if outcome.is_ok() {
            // This generation may be as long as it can be.
            pen.rotate(&self.shared);
        }
        let mut queue = self.shared.lock();
        match outcome {
            Ok(()) => queue.failed = None,
            Err(error) => {
                queue.last_error = error.to_string();
                queue.failed = Some(error.to_string());
                queue.failures = queue.failures.saturating_add(1);
            }
        }
    }

    /// Begins to move to the file what the journal has, on a thread of its own, where it is time.
    fn begin_checkpoint(&mut self, pen: &mut Pen) {
        let settings = &self.shared.settings;
        let (path, max_pages) = (self.path.clone(), settings.max_pages);
        let pace =
            if self.is_failing { settings.retry_interval } else { settings.checkpoint_interval };
        let is_due = !pen.pending.is_empty() && now().saturating_duration_since(pen.since) >= pace;
        let most = CHECKPOINT_BYTES.min(most_in_journal(max_pages) / 4);
        let is_long = pen.journal.bytes() > most && pen.journal.has_room();
        if self.checkpoint.is_some() || self.shared.lock().failed.is_some() || !(is_long || is_due)
        {
            return;
        }
        let (moving, commit, generation) = match pen.take(&self.shared) {
            Ok(taken) => taken,
            Err(error) => return self.note_failure(pen, &error.to_string()),
        };
        let (disk, of_thread) = (self.disk.take(), Arc::clone(&moving));
        let spawned = spawn("authz-checkpoint", move || {
            moved(disk, &path, max_pages, &of_thread, generation)
        });
        match spawned {
            Ok(thread) => self.checkpoint = Some(Checkpoint { thread, moving, commit }),
            Err(error) => self.keep(pen, moving, &error.to_string()),
        }
    }

    /// Takes up what a checkpoint came to, once it has ended or, if so told, when it ends.
    fn end_checkpoint(&mut self, pen: &mut Pen, wait: bool) {
        let is_over = |running: &mut Checkpoint| wait || running.thread.is_finished();
        let Some(Checkpoint { thread, moving, commit }) = self.checkpoint.take_if(is_over) else {
            return;
        };
        let early = |_| (None, Err(DiskError::CheckpointThread));
        let (disk, outcome) = thread.join().unwrap_or_else(early);
        self.disk = disk;
        drop(self.settle(pen, moving, commit, outcome));
    }

    /// Moves to the file what the journal has, and waits for that.
    fn checkpoint_now(&mut self, pen: &mut Pen) -> Result<(), DiskError> {
        let taken = pen.take(&self.shared);
        if let Err(error) = &taken {
            self.note_failure(pen, &error.to_string());
        }
        let (moving, commit, generation) = taken?;
        let max_pages = self.shared.settings.max_pages;
        let (disk, outcome) = moved(self.disk.take(), &self.path, max_pages, &moving, generation);
        self.disk = disk;
        self.settle(pen, moving, commit, outcome)
    }

    /// Notes what a checkpoint came to.
    fn settle(
        &mut self,
        pen: &mut Pen,
        moved: Arc<PendingLog>,
        commit: u64,
        outcome: Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        if let Err(error) = &outcome {
            self.keep(pen, moved, &error.to_string());
            return outcome;
        }
        pen.since = now();
        pen.journal.free();
        self.is_failing = false;
        let last = moved.last_line.or(self.stored_line);
        self.stored_line = last.filter(|last| moved.left < Some(*last));
        // Lines that were synced while they were moved.
        if self.stored_line.is_some() && moved.left < pen.synced {
            (pen.pending.left, pen.pending.is_stale) = (pen.synced, true);
        }
        pen.spare = Arc::try_unwrap(moved).map(|moved| moved.log.emptied()).unwrap_or_default();
        let mut queue = self.shared.lock();
        queue.durable = commit;
        (queue.warning, queue.full) = (None, None);
        Ok(())
    }

    /// Keeps changes that the file lacks or may lack: the next checkpoint writes them again, with the changes since.
    fn keep(&mut self, pen: &mut Pen, kept: Arc<PendingLog>, why: &str) {
        let mut all = Arc::unwrap_or_clone(kept);
        all.absorb(std::mem::take(&mut pen.pending));
        pen.pending = all;
        self.note_failure(pen, why);
    }

    /// Notes that a checkpoint failed.
    fn note_failure(&mut self, pen: &mut Pen, why: &str) {
        self.is_failing = true;
        pen.since = now();
        let mut queue = self.shared.lock();
        queue.failures = queue.failures.saturating_add(1);
        queue.last_error = why.to_owned();
        queue.full = queue.full.as_ref().map(|_| why.to_owned());
        queue.warning = Some(format!("the journal grows, since its file cannot be written: {why}"));
    }
}

/// Next work of the writer's thread.
struct Next {
    items: Vec<QueuedItem>,
    /// The highest line that is synced, where that is new.
    synced: Option<i64>,
    failed: bool,
    closing: bool,
}

/// Writes what is pending to the file, which is opened where it failed before.
fn moved(
    disk: Option<Disk>,
    path: &Path,
    max_pages: Option<u32>,
    pending: &PendingLog,
    generation: u64,
) -> (Option<Disk>, Result<(), DiskError>) {
    let opened = disk.map_or_else(|| Disk::open(path, max_pages), Ok);
    match opened {
        Ok(mut disk) => {
            let outcome = pending.batch().and_then(|batch| disk.write(&batch, generation));
            // A failed file is opened anew.
            (outcome.is_ok().then_some(disk), outcome)
        }
        Err(why) => (None, Err(why)),
    }
}
