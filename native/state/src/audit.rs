//! Appends audit lines to a file on a thread of its own, syncing many lines at once.

mod chain;
mod head;
mod log;
mod memory;
mod merkle;
mod segments;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use serde::Serialize;
use thiserror::Error;

use crate::medium::{FileMedium, Medium};
use crate::sync::spawn_system;
use crate::ticket::{AuditError, Settle, Ticket, pair};
use crate::time::now;

pub use self::head::{Head, HeadSigner, SignedHead};
pub use self::log::{AuditLog, Submitted, WhenFull};
pub use self::memory::MemoryAudit;
pub use self::segments::ChainSettings;
use self::segments::Segments;

/// Time for which lines without a waiting caller gather before they are written.
const LINGER: Duration = Duration::from_millis(5);
/// From here on they no longer gather.
const LINGER_BYTES: u64 = 256 * 1024;
/// Most bytes of memory that are kept between writes, and room for so many lines.
const MAX_SPARE: usize = 1024 * 1024;
const MAX_SPARE_LINES: usize = 4_096;
/// So often lines are written again, where the file was taken away right after they were written.
const MAX_REWRITES: u32 = 4;
/// Refusals may take at most one part in so many of the queue, by lines and by bytes.
const REFUSAL_SHARE: u64 = 2;
/// Most lines that wait for room in a full queue. Their bytes have the bound of the queue's bytes.
const MAX_WAITING: usize = 4_096;

/// Settings of an [`AuditWriter`].
#[derive(Clone, Debug)]
pub struct AuditSettings {
    /// The file; made (mode 0600) where it does not exist.
    pub path: PathBuf,
    /// Most lines that wait for the disk.
    pub max_lines: usize,
    /// Most bytes that wait for the disk.
    pub max_bytes: usize,
    /// Lines that nobody waits for are synced at least this often.
    pub sync_interval: Duration,
    /// Interval at which a failed disk is tried again.
    pub retry_interval: Duration,
    /// Chain of the lines, which are JSON objects then. Default: lines are written as they are submitted.
    pub chain: Option<ChainSettings>,
}

impl AuditSettings {
    /// Defaults: 65,536 lines, 64 MiB, synced every second, retried every 200 ms.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_lines: 65_536,
            max_bytes: 64 * 1024 * 1024,
            sync_interval: Duration::from_secs(1),
            retry_interval: Duration::from_millis(200),
            chain: None,
        }
    }
}

/// Condition of a line under which its decision may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A place in the queue of a disk that works.
    Queued,
    /// To be synced; the ticket says when.
    Synced,
    /// Nothing: the answer is a refusal anyway. Queued where there is room in the half of the queue that refusals may
    /// take, also while the disk fails. Who needs no credential to be refused must not be able to crowd permits out.
    BestEffort,
}

/// The audit file cannot be opened.
#[derive(Debug, Error)]
#[error("audit file `{}`: {source}", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// Status of the writer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditHealth {
    /// False while the disk refuses.
    pub writable: bool,
    /// The last error, kept after recovery; empty where there was none.
    pub last_error: String,
    /// Lines that wait.
    pub queued_lines: u64,
    /// Bytes that wait.
    pub queued_bytes: u64,
    /// Lines written since the start.
    pub written_lines: u64,
    /// Bytes written since the start.
    pub written_bytes: u64,
    /// Syncs since the start.
    pub syncs: u64,
    /// Failed writes, syncs and openings since the start.
    pub failures: u64,
    /// Lines refused because the queue was full or the disk failed.
    pub refused_lines: u64,
    /// Lines of refusals that were dropped because the share of refusals was full; not among `refused_lines`.
    pub dropped_refusals: u64,
    /// Lines of answered decisions that were dropped because the queue was full.
    pub dropped_lines: u64,
    /// Lines that found the queue full and waited for room.
    pub waited_lines: u64,
    /// Bytes of a torn last line that were cut off at the start.
    pub torn_bytes: u64,
    /// Where those bytes are kept; empty where there were none.
    pub torn_file: String,
    /// Number of the segment that is being written; 0 without a chain.
    pub segment: u64,
    /// Lines of that segment.
    pub segment_lines: u64,
    /// The newest head, a [`SignedHead`] as JSON; empty before the first.
    pub head: String,
    /// Damage of the chain that the start found; empty if there is none.
    pub chain_damage: String,
}

impl AuditHealth {
    fn note_chain(&mut self, segments: &Segments) {
        self.segment = segments.segment();
        self.segment_lines = segments.count();
        self.head.clone_from(&segments.newest);
    }
}

struct QueuedLine {
    /// Bytes, its line feed included.
    size: usize,
    settle: Option<Settle>,
    /// True if it counts to the share of refusals.
    best_effort: bool,
}

/// Lines in the order in which they are written, their bytes one after another. The submitting thread copies its line into
/// this buffer, so that it frees the memory that it allocated itself.
#[derive(Default)]
struct LineBatch {
    // INVARIANT (whole): as long as `lines` together.
    bytes: Vec<u8>,
    lines: Vec<QueuedLine>,
}

impl LineBatch {
    fn push(&mut self, parts: &[&[u8]], line: QueuedLine) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.lines.push(line);
    }

    /// Adds all of another, which is empty then.
    fn append(&mut self, other: &mut Self) {
        if self.lines.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.bytes.append(&mut other.bytes);
            self.lines.append(&mut other.lines);
        }
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns whether somebody waits for one of the lines.
    fn is_awaited(&self) -> bool {
        self.lines.iter().any(|line| line.settle.is_some())
    }

    /// The lines, each with its line feed.
    fn each(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lines.iter().map(move |line| {
            let (bytes, after) = rest.split_at_checked(line.size).unwrap_or((rest, &[]));
            rest = after;
            bytes
        })
    }

    /// Tells everybody who waits.
    fn settle(&mut self, outcome: Result<(), AuditError>) {
        for settle in self.lines.iter_mut().filter_map(|line| line.settle.take()) {
            settle.settle(outcome);
        }
    }

    /// The lines that nobody waits for, and the others.
    fn split(self) -> (Self, Vec<QueuedLine>) {
        if !self.is_awaited() {
            return (self, Vec::new());
        }
        let (mut kept, mut awaited) = (Self::default(), Vec::new());
        let mut rest = self.bytes.as_slice();
        for line in self.lines {
            let (bytes, after) = rest.split_at_checked(line.size).unwrap_or((rest, &[]));
            rest = after;
            match line.settle {
                None => kept.push(&[bytes], line),
                Some(_) => awaited.push(line),
            }
        }
        (kept, awaited)
    }
}

/// Size of the lines that wait.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    lines: u64,
    bytes: u64,
}

impl Load {
    fn of<'a>(lines: impl Iterator<Item = &'a QueuedLine>) -> Self {
        lines.fold(Self::default(), |load, line| load.plus(line.size as u64))
    }

    const fn plus(self, bytes: u64) -> Self {
        Self { lines: self.lines.saturating_add(1), bytes: self.bytes.saturating_add(bytes) }
    }

    const fn less(self, other: Self) -> Self {
        Self {
            lines: self.lines.saturating_sub(other.lines),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    const fn fits(self, lines: u64, bytes: u64) -> bool {
        self.lines <= lines && self.bytes <= bytes
    }
}

/// A line that waits for room in the queue. It is not among the lines that wait for the disk.
struct WaitingLine {
    bytes: Vec<u8>,
    durability: Durability,
    settle: Settle,
}

impl WaitingLine {
    /// Size in the queue, with a line feed.
    const fn size(&self) -> usize {
        self.bytes.len().saturating_add(1)
    }
}

#[derive(Default)]
struct AuditQueue {
    batch: LineBatch,
    /// Lines that found no room, the oldest first.
    waiting: VecDeque<WaitingLine>,
    closing: bool,
    /// Size of the refusals among all lines that wait.
    refusals: Load,
    health: AuditHealth,
}

impl AuditQueue {
    /// Counts lines that wait.
    fn load<'a>(&mut self, lines: impl Iterator<Item = &'a QueuedLine>) {
        for line in lines {
            let size = line.size as u64;
            self.health.queued_lines = self.health.queued_lines.saturating_add(1);
            self.health.queued_bytes = self.health.queued_bytes.saturating_add(size);
            if line.best_effort {
                self.refusals = self.refusals.plus(size);
            }
        }
    }

    /// Size of the lines that wait for the disk, with one more line.
    fn load_with(&self, size: usize) -> Load {
        let load = Load { lines: self.health.queued_lines, bytes: self.health.queued_bytes };
        load.plus(size as u64)
    }

    /// Adds a line to those that are written next.
    fn push(&mut self, bytes: &[u8], settle: Option<Settle>, best_effort: bool) {
        let line = QueuedLine { size: bytes.len().saturating_add(1), settle, best_effort };
        self.load(std::iter::once(&line));
        self.batch.push(&[bytes, b"\n"], line);
    }

    /// Makes a line wait for room. Returns none if too many lines wait already.
    fn wait_for_room(
        &mut self,
        bytes: &[u8],
        durability: Durability,
        settings: &AuditSettings,
    ) -> Option<Ticket> {
        let has_place = |waiting: &VecDeque<WaitingLine>| {
            let taken: usize = waiting.iter().map(WaitingLine::size).sum();
            waiting.len() < MAX_WAITING && taken.saturating_add(bytes.len()) < settings.max_bytes
        };
        if !has_place(&self.waiting) {
            self.waiting.retain(|line| !line.settle.is_abandoned());
            if !has_place(&self.waiting) {
                return None;
            }
        }
        let (settle, ticket) = pair();
        self.waiting.push_back(WaitingLine { bytes: bytes.to_vec(), durability, settle });
        self.health.waited_lines = self.health.waited_lines.saturating_add(1);
        Some(ticket)
    }

    /// Moves lines that wait for room into the queue, the oldest first, as far as there is room.
    fn admit(&mut self, settings: &AuditSettings) {
        let (max_lines, max_bytes) = (settings.max_lines as u64, settings.max_bytes as u64);
        while let Some(line) = self.waiting.pop_front() {
            // INVARIANT (no permit): the caller of an abandoned line was denied, so the line must not tell of a permit.
            if line.settle.is_abandoned() {
                continue;
            }
            if !self.load_with(line.size()).fits(max_lines, max_bytes) {
                self.waiting.push_front(line);
                return;
            }
            let WaitingLine { bytes, durability, settle } = line;
            if durability == Durability::Synced {
                self.push(&bytes, Some(settle), false);
            } else if settle.settle_awaited(Ok(())) {
                self.push(&bytes, None, false);
            }
        }
    }

    /// Takes lines that no longer wait out of the counts.
    fn unload<'a>(&mut self, lines: impl Iterator<Item = &'a QueuedLine> + Clone) {
        let all = Load::of(lines.clone());
        self.refusals = self.refusals.less(Load::of(lines.filter(|line| line.best_effort)));
        self.health.queued_lines = self.health.queued_lines.saturating_sub(all.lines);
        self.health.queued_bytes = self.health.queued_bytes.saturating_sub(all.bytes);
    }
}

struct AuditShared {
    queue: Mutex<AuditQueue>,
    filled: Condvar,
    settings: AuditSettings,
}

impl AuditShared {
    fn lock(&self) -> MutexGuard<'_, AuditQueue> {
        self.queue.lock().ignore_poison()
    }
}

/// Appends lines to the audit file. Shared by reference between threads.
pub struct AuditWriter {
    shared: Arc<AuditShared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for AuditWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditWriter")
            .field("path", &self.shared.settings.path)
            .finish_non_exhaustive()
    }
}

impl AuditWriter {
    /// Opens the file, locks it for this process, cuts a torn last line off to `<path>.torn-<n>`, and starts the
    /// thread.
    ///
    /// # Errors
    /// [`OpenError`] if the path is not a regular file, cannot be written, or has another writer.
    pub fn open(settings: AuditSettings) -> Result<Self, OpenError> {
        let fail = |source| OpenError { path: settings.path.clone(), source };
        let (mut medium, torn) = FileMedium::open(&settings.path).map_err(fail)?;
        let mut health = AuditHealth { writable: true, ..AuditHealth::default() };
        if let Some(torn) = torn {
            health.torn_bytes = torn.bytes;
            health.torn_file = torn.kept_in.display().to_string();
        }
        let chain = settings.chain.clone();
        let segments = chain.map(|chain| Segments::open(chain, &settings.path)).transpose();
        let mut segments = segments.map_err(fail)?;
        if let Some(segments) = &mut segments
            && !segments.damage.is_empty()
        {
            // The damaged lines stay where a verifier looks for them, and the next start does not report them again.
            medium.move_to(&segments.ended_path()).map_err(fail)?;
            segments.follow(0).map_err(fail)?;
        }
        Self::start(settings.clone(), Box::new(medium), segments, health).map_err(fail)
    }

    fn start(
        settings: AuditSettings,
        medium: Box<dyn Medium>,
        segments: Option<Segments>,
        mut health: AuditHealth,
    ) -> io::Result<Self> {
        if let Some(segments) = &segments {
            health.note_chain(segments);
            health.chain_damage.clone_from(&segments.damage);
        }
        let shared = Arc::new(AuditShared {
            queue: Mutex::new(AuditQueue { health, ..AuditQueue::default() }),
            filled: Condvar::new(),
            settings,
        });
        let of_thread = Arc::clone(&shared);
        let thread = spawn_system("authz-audit", move || {
            let (spare, kept) = (LineBatch::default(), LineBatch::default());
            let sealed = Vec::new();
            Loop { shared: of_thread, medium, segments, sealed, spare, kept }.run()
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a line (without its line feed). Never blocks on the disk.
    ///
    /// Returns a ticket for [`Durability::Synced`]; the line counts only once the ticket settles.
    ///
    /// # Errors
    /// [`AuditError::Full`] where the queue, or the share of refusals in it, has no room; [`AuditError::Failed`] where the
    /// disk refuses (but for
    /// [`Durability::BestEffort`]) or the writer is closed.
    pub fn submit(
        &self,
        line: &[u8],
        durability: Durability,
    ) -> Result<Option<Ticket>, AuditError> {
        match self.submit_or(line, durability, WhenFull::Refuse)? {
            Submitted::Queued(ticket) => Ok(ticket),
            Submitted::Waiting(_) | Submitted::Dropped => Err(AuditError::Full),
        }
    }

    /// As [`AuditWriter::submit`], with another treatment of a line that finds the queue full. It has no effect on a line of
    /// [`Durability::BestEffort`].
    ///
    /// # Errors
    /// See [`AuditWriter::submit`]. A line that is longer than the queue, or finds too many lines that wait for room, is refused as
    /// [`AuditError::Full`] instead of waiting.
    pub fn submit_or(
        &self,
        line: &[u8],
        durability: Durability,
        when_full: WhenFull,
    ) -> Result<Submitted, AuditError> {
        let size = line.len().saturating_add(1);
        let settings = &self.shared.settings;
        let (max_lines, max_bytes) = (settings.max_lines as u64, settings.max_bytes as u64);
        let best_effort = durability == Durability::BestEffort;
        let mut queue = self.shared.lock();
        let refusals = queue.refusals.plus(size as u64);
        if !queue.closing
            && best_effort
            && !refusals.fits(max_lines / REFUSAL_SHARE, max_bytes / REFUSAL_SHARE)
        {
            queue.health.dropped_refusals = queue.health.dropped_refusals.saturating_add(1);
            return Err(AuditError::Full);
        }
        let is_chainable = line.starts_with(b"{") && line.ends_with(b"}");
        // A line that may wait does not pass those that wait already.
        let is_behind = when_full == WhenFull::Wait && !queue.waiting.is_empty();
        let has_room = queue.load_with(size).fits(max_lines, max_bytes) && !is_behind;
        let can_write = queue.health.writable || best_effort;
        let refusal = if queue.closing || (settings.chain.is_some() && !is_chainable) {
            Some(AuditError::Failed)
        } else if !has_room {
            Some(AuditError::Full)
        } else if !can_write {
            Some(AuditError::Failed)
        } else {
            None
        };
        // A caller could make each of its records longer than the queue, and so leave no record.
        let may_fit = Load::default().plus(size as u64).fits(max_lines, max_bytes);
        // While the disk fails, nobody knows when there will be room.
        if refusal == Some(AuditError::Full) && may_fit && can_write && !best_effort {
            if when_full == WhenFull::Drop && durability == Durability::Queued {
                queue.health.dropped_lines = queue.health.dropped_lines.saturating_add(1);
                return Ok(Submitted::Dropped);
            }
            if when_full == WhenFull::Wait
                && let Some(ticket) = queue.wait_for_room(line, durability, settings)
            {
                return Ok(Submitted::Waiting(ticket));
            }
        }
        if let Some(error) = refusal {
            queue.health.refused_lines = queue.health.refused_lines.saturating_add(1);
            return Err(error);
        }
        let (settle, ticket) = if durability == Durability::Synced {
            let (settle, ticket) = pair();
            (Some(settle), Some(ticket))
        } else {
            (None, None)
        };
        // The thread sleeps only on an empty queue, and wakes by itself for lines that nobody waits for.
        let wake = settle.is_some() || queue.batch.is_empty();
        queue.push(line, settle, best_effort);
        drop(queue);
        if wake {
            self.shared.filled.notify_one();
        }
        Ok(Submitted::Queued(ticket))
    }

    /// Returns whether the disk takes lines, as far as is known.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let queue = self.shared.lock();
        queue.health.writable && !queue.closing
    }

    /// Queues a line and, where `durable`, blocks until it is synced or `deadline` passes.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn append(&self, line: &[u8], durable: bool, deadline: Instant) -> Result<(), AuditError> {
        let durability = if durable { Durability::Synced } else { Durability::Queued };
        match self.submit(line, durability)? {
            Some(ticket) => ticket.wait(deadline),
            None => Ok(()),
        }
    }

    /// Status of the writer.
    #[must_use]
    pub fn health(&self) -> AuditHealth {
        self.shared.lock().health.clone()
    }

    /// Writes and syncs what waits, and ends the thread. Later lines are refused. Idempotent.
    pub fn close(&self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        // The callers of these lines are denied.
        queue.waiting.clear();
        drop(queue);
        self.shared.filled.notify_one();
        let thread = self.thread.lock().ignore_poison().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            self.shared.lock().health.writable = false;
        }
    }
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.close();
    }
}

struct Loop {
    shared: Arc<AuditShared>,
    medium: Box<dyn Medium>,
    segments: Option<Segments>,
    /// Lines with their places in the chain, as they are being written.
    sealed: Vec<u8>,
    /// What the next lines gather in while these are written; kept, since fresh memory of that size costs a fault for
    /// each page.
    spare: LineBatch,
    /// Lines that the disk refused and that nobody waits for; they still count as queued.
    kept: LineBatch,
}

impl Loop {
    fn run(mut self) {
        let mut unsynced = false;
        let mut last_sync = now();
        let mut failed = false;
        loop {
            let (mut batch, closing) = self.next_batch(failed, unsynced);
            let mut lines = std::mem::take(&mut self.kept);
            lines.append(&mut batch);
            if self.spare.bytes.capacity() < batch.bytes.capacity() {
                self.spare = batch;
            }
            if lines.is_empty() && !failed && !unsynced && !closing {
                // The last lines before a pause get their head in the pause.
                self.renew_head(false);
            }
            let sync_due = last_sync.elapsed() >= self.shared.settings.sync_interval;
            // Checked before every write, because a line in a deleted file is lost.
            if (sync_due || !lines.is_empty()) && !failed && !self.medium.is_current() {
                // A rotation moved the file away: what was written there is synced before it is let go.
                failed = self.note(|medium| medium.sync().and_then(|()| medium.recover())).is_err();
            }
            if failed {
                failed = self.note(|medium| medium.recover()).is_err();
                if !failed && lines.is_empty() {
                    // Nothing is left that could prove it: the next line will.
                    self.shared.lock().health.writable = true;
                }
            }
            if !failed && !lines.is_empty() {
                failed = self.write(&lines).is_err();
                unsynced |= !failed;
            }
            if failed {
                self.refuse(lines, closing);
                if closing {
                    return;
                }
                continue;
            }
            if unsynced && (lines.is_awaited() || sync_due || closing) {
                failed = self.note(|medium| medium.sync()).is_err();
                last_sync = now();
                if failed {
                    // What became of the pages is unknown: nobody may rely on them, and writing the lines again could
                    // double them. They were written once; only those waited for must be refused.
                    lines.settle(Err(AuditError::Failed));
                    if closing {
                        return;
                    }
                    continue;
                }
                // Nobody is answered before the record stands in the file that is at the path after the sync.
                if self.rewrite(&lines, true).is_err() {
                    failed = true;
                    self.put_back(lines, closing);
                    if closing {
                        return;
                    }
                    continue;
                }
                unsynced = false;
                self.renew_head(false);
                let mut queue = self.shared.lock();
                queue.health.writable = true;
                queue.health.syncs = queue.health.syncs.saturating_add(1);
            } else if self.rewrite(&lines, false).is_err() {
                failed = true;
                self.put_back(lines, closing);
                continue;
            }
            lines.settle(Ok(()));
            self.reuse(lines);
            if closing {
                self.renew_head(true);
                return;
            }
        }
    }

    /// Waits for lines, for the time of the next sync or retry, or for the end.
    fn next_batch(&mut self, failed: bool, unsynced: bool) -> (LineBatch, bool) {
        let settings = &self.shared.settings;
        let has_work =
            failed || unsynced || self.segments.as_ref().is_some_and(Segments::lacks_head);
        let mut queue = self.shared.lock();
        if !failed {
            queue.admit(settings);
        }
        let pause = if failed { settings.retry_interval } else { settings.sync_interval };
        let until = now().checked_add(pause);
        // While the disk fails, new lines wait for the next retry, else a burst would become a busy loop.
        while (queue.batch.is_empty() || failed) && !queue.closing {
            let left = until.map_or(pause, |until| until.saturating_duration_since(now()));
            if left.is_zero() {
                break;
            }
            queue = if has_work {
                match self.shared.filled.wait_timeout(queue, left) {
                    Ok((queue, _)) => queue,
                    Err(poisoned) => poisoned.into_inner().0,
                }
            } else {
                self.shared.filled.wait(queue).ignore_poison()
            };
            if failed && queue.batch.is_awaited() {
                break;
            }
        }
        // Lines that nobody waits for may gather for a moment: one write for many.
        let linger = now().checked_add(LINGER);
        while !queue.closing
            && !queue.batch.is_awaited()
            && !queue.batch.is_empty()
            && queue.health.queued_bytes < LINGER_BYTES
        {
            let left = linger.map_or(LINGER, |at| at.saturating_duration_since(now()));
            if left.is_zero() {
                break;
            }
            queue = match self.shared.filled.wait_timeout(queue, left) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        (std::mem::replace(&mut queue.batch, std::mem::take(&mut self.spare)), queue.closing)
    }

    /// Keeps the memory of lines that are written.
    fn reuse(&mut self, mut lines: LineBatch) {
        lines.bytes.clear();
        lines.bytes.shrink_to(MAX_SPARE);
        lines.lines.clear();
        lines.lines.shrink_to(MAX_SPARE_LINES);
        self.spare = lines;
    }

    fn write(&mut self, batch: &LineBatch) -> io::Result<()> {
        let LineBatch { bytes, lines } = batch;
        self.append(batch)?;
        let mut queue = self.shared.lock();
        queue.unload(lines.iter());
        queue.admit(&self.shared.settings);
        let health = &mut queue.health;
        health.writable = true;
        if let Some(segments) = &self.segments {
            health.note_chain(segments);
        }
        health.written_lines = health.written_lines.saturating_add(lines.len() as u64);
        health.written_bytes = health.written_bytes.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Appends lines to the file, with their places in the chain if there is one.
    fn append(&mut self, batch: &LineBatch) -> io::Result<()> {
        let outcome = match &mut self.segments {
            None => self.medium.append(&batch.bytes),
            Some(segments) => {
                append_chained(self.medium.as_mut(), segments, &mut self.sealed, batch)
            }
        };
        self.sealed.clear();
        self.sealed.shrink_to(MAX_SPARE);
        self.note_outcome(outcome)
    }

    /// Renews the head of the chain where one is due. A head that cannot be written is told by the status; the lines
    /// themselves are durable.
    fn renew_head(&mut self, always: bool) {
        if let Some(segments) = &mut self.segments {
            let outcome = segments.renew_head(always);
            let newest = segments.newest.clone();
            drop(self.note_outcome(outcome));
            self.shared.lock().health.head = newest;
        }
    }

    /// Writes lines again where the file was removed, moved or cut short since they were written. They may then stand
    /// both in a moved file and in the new one, with one id.
    fn rewrite(&mut self, lines: &LineBatch, synced: bool) -> io::Result<()> {
        if lines.is_empty() || self.medium.holds_all() {
            return Ok(());
        }
        for _ in 0..MAX_REWRITES {
            self.note(|medium| medium.recover())?;
            self.append(lines)?;
            if synced {
                self.note(|medium| medium.sync())?;
            }
            if self.medium.holds_all() {
                return Ok(());
            }
        }
        self.note(|_| Err(io::Error::other("the file at the path changes again and again")))
    }

    /// Makes lines wait again that were written to a file that is gone, as far as nobody waits for them.
    fn put_back(&mut self, lines: LineBatch, closing: bool) {
        let mut queue = self.shared.lock();
        queue.load(lines.lines.iter());
        drop(queue);
        self.refuse(lines, closing);
    }

    /// Answers the lines that somebody waits for, and keeps the others for the next try.
    fn refuse(&mut self, lines: LineBatch, closing: bool) {
        let (kept, refused) =
            if closing { (LineBatch::default(), lines.lines) } else { lines.split() };
        self.kept = kept;
        let mut queue = self.shared.lock();
        queue.unload(refused.iter());
        let count = refused.len() as u64;
        queue.health.refused_lines = queue.health.refused_lines.saturating_add(count);
        drop(queue);
        for settle in refused.into_iter().filter_map(|line| line.settle) {
            settle.settle(Err(AuditError::Failed));
        }
    }

    /// Does something to the medium and remembers how that went.
    fn note(
        &mut self,
        action: impl FnOnce(&mut (dyn Medium + 'static)) -> io::Result<()>,
    ) -> io::Result<()> {
        let outcome = action(self.medium.as_mut());
        self.note_outcome(outcome)
    }

    fn note_outcome(&self, outcome: io::Result<()>) -> io::Result<()> {
        let mut queue = self.shared.lock();
        let health = &mut queue.health;
        if let Err(error) = &outcome {
            health.writable = false;
            health.last_error = error.to_string();
            health.failures = health.failures.saturating_add(1);
        }
        outcome
    }
}

fn append_chained(
    medium: &mut dyn Medium,
    segments: &mut Segments,
    sealed: &mut Vec<u8>,
    batch: &LineBatch,
) -> io::Result<()> {
    let mut length = medium.length()?;
    segments.follow(length)?;
    if segments.is_full() {
        medium.sync()?;
        segments.end_segment()?;
        medium.move_to(&segments.ended_path())?;
        length = medium.length()?;
        segments.follow(length)?;
        segments.drop_old()?;
    }
    segments.seal(batch.each(), sealed);
    medium.append(sealed)?;
    // INVARIANT (chain = file): nothing that can fail stands between the two.
    segments.commit(length.saturating_add(sealed.len() as u64));
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{Error, ErrorKind};
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    /// A disk in memory that fails on demand, and then has only the first half of the write.
    #[derive(Clone, Default)]
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        whole: Arc<AtomicU64>,
        full: Arc<AtomicBool>,
        sync_fails: Arc<AtomicBool>,
        slow: Arc<AtomicBool>,
        /// The file is taken away once, right after the next write.
        taken: Arc<AtomicBool>,
        /// A writer that is in `append` stays there until the lock is free.
        gate: Arc<Mutex<()>>,
    }

    impl Disk {
        fn text(&self) -> String {
            String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
        }
    }

    impl Medium for Disk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            drop(self.gate.lock().unwrap());
            let mut file = self.bytes.lock().unwrap();
            if self.full.load(Ordering::SeqCst) {
                file.extend(bytes.iter().take(bytes.len() / 2));
                return Err(Error::from(ErrorKind::StorageFull));
            }
            file.extend(bytes);
            self.whole.store(file.len() as u64, Ordering::SeqCst);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            if self.slow.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(300));
            }
            if self.sync_fails.load(Ordering::SeqCst) {
                return Err(Error::other("EIO"));
            }
            Ok(())
        }

        fn recover(&mut self) -> io::Result<()> {
            let whole = usize::try_from(self.whole.load(Ordering::SeqCst)).unwrap();
            self.bytes.lock().unwrap().truncate(whole);
            Ok(())
        }

        fn is_current(&self) -> bool {
            true
        }

        fn length(&self) -> io::Result<u64> {
            Ok(self.whole.load(Ordering::SeqCst))
        }

        fn move_to(&mut self, _path: &Path) -> io::Result<()> {
            Err(Error::other("memory has one file"))
        }

        fn holds_all(&self) -> bool {
            !self.taken.swap(false, Ordering::SeqCst)
        }
    }

    fn on_disk(disk: &Disk, change: impl FnOnce(&mut AuditSettings)) -> AuditWriter {
        let mut settings = AuditSettings::new(PathBuf::from("memory"));
        settings.retry_interval = Duration::from_millis(10);
        settings.sync_interval = Duration::from_millis(20);
        change(&mut settings);
        let health = AuditHealth { writable: true, ..AuditHealth::default() };
        AuditWriter::start(settings, Box::new(disk.clone()), None, health).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("authz-audit-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Lines of many threads all stand in the file once they are acknowledged, whole and once.
    #[test]
    fn acknowledged_lines_survive() {
        let path = folder("lines").join("audit.jsonl");
        let writer = AuditWriter::open(AuditSettings::new(path.clone())).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (writer, path) = (&writer, &path);
                scope.spawn(move || {
                    for number in 0..50 {
                        let line = format!("{{\"n\":\"{thread}-{number}\"}}");
                        writer.append(line.as_bytes(), true, soon()).unwrap();
                        // Acknowledged: it can be read back before anything else happens.
                        assert!(std::fs::read_to_string(path).unwrap().lines().any(|l| l == line));
                    }
                });
            }
        });
        let health = writer.health();
        assert_eq!((200, 0, 0), (health.written_lines, health.queued_lines, health.queued_bytes));
        assert!(health.syncs < 200, "syncs are shared: {}", health.syncs);
        writer.close();
        assert_eq!(200, std::fs::read_to_string(&path).unwrap().lines().count());
    }

    /// Lines that nobody waits for are written by `close` at the latest.
    #[test]
    fn close_flushes() {
        let path = folder("close").join("audit.jsonl");
        let writer = AuditWriter::open(AuditSettings::new(path.clone())).unwrap();
        for _ in 0..100 {
            assert!(writer.submit(b"{}", Durability::Queued).unwrap().is_none());
        }
        writer.close();
        writer.close();
        assert_eq!(100, std::fs::read_to_string(&path).unwrap().lines().count());
        assert_eq!(Err(AuditError::Failed), writer.append(b"{}", false, soon()));
    }

    /// A full disk refuses durable and queued lines alike, keeps what it had accepted, and recovers by itself.
    #[test]
    fn full_disk_refuses_then_recovers() {
        let disk = Disk::default();
        let writer = on_disk(&disk, |_| {});
        writer.append(b"first", true, soon()).unwrap();
        disk.full.store(true, Ordering::SeqCst);
        writer.append(b"accepted", false, soon()).unwrap();
        assert_eq!(Err(AuditError::Failed), writer.append(b"lost", true, soon()));
        let health = writer.health();
        assert!(!health.writable && !health.last_error.is_empty(), "{health:?}");
        assert_eq!(Err(AuditError::Failed), writer.append(b"refused", false, soon()));
        assert!(writer.submit(b"denial", Durability::BestEffort).is_ok());
        disk.full.store(false, Ordering::SeqCst);
        while !writer.health().writable {
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.append(b"last", true, soon()).unwrap();
        writer.close();
        let text = String::from_utf8(disk.bytes.lock().unwrap().clone()).unwrap();
        assert_eq!("first\naccepted\ndenial\nlast\n", text);
        assert_eq!(0, writer.health().queued_bytes);
    }

    /// Naive way: a line that was written counts as durable. A failed sync says otherwise.
    #[test]
    fn failed_sync_is_no_acknowledgement() {
        let disk = Disk::default();
        let writer = on_disk(&disk, |_| {});
        disk.sync_fails.store(true, Ordering::SeqCst);
        assert_eq!(Err(AuditError::Failed), writer.append(b"line", true, soon()));
        assert!(
            disk.bytes.lock().unwrap().starts_with(b"line"),
            "the naive way would acknowledge it"
        );
        disk.sync_fails.store(false, Ordering::SeqCst);
        while writer.append(b"next", true, soon()).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The queue is bounded by lines and by bytes, and a full one answers at once.
    #[test]
    fn queue_is_bounded() {
        let disk = Disk::default();
        disk.slow.store(true, Ordering::SeqCst);
        let writer = on_disk(&disk, |settings| {
            settings.max_lines = 4;
            settings.max_bytes = 100;
        });
        let ticket = writer.submit(b"slow", Durability::Synced).unwrap().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(Err(AuditError::Full), writer.append(&[b'x'; 200], false, soon()));
        let mut accepted = 0;
        for _ in 0..10 {
            match writer.submit(b"line", Durability::Queued) {
                Ok(_) => accepted += 1,
                Err(error) => assert_eq!(AuditError::Full, error),
            }
        }
        assert_eq!(4, accepted);
        assert_eq!(Ok(()), ticket.wait(soon()));
        assert_eq!(7, writer.health().refused_lines);
    }

    /// A queue of one line, whose writer is held with the line `first`.
    fn full_queue(disk: &Disk) -> AuditWriter {
        let writer = on_disk(disk, |settings| settings.max_lines = 1);
        assert!(writer.submit(b"first", Durability::Queued).unwrap().is_none());
        writer
    }

    /// Lines that may wait get room in their order, and settle once they have it; `Synced` lines settle once they are synced. A
    /// line of a caller that gave up is never written, and a line that may not wait is refused meanwhile.
    #[test]
    fn full_queue_makes_lines_wait() {
        let disk = Disk::default();
        let held = disk.gate.lock().unwrap();
        let writer = full_queue(&disk);
        let wait = |line: &[u8], durability| {
            let submitted = writer.submit_or(line, durability, WhenFull::Wait).unwrap();
            let ticket =
                if let Submitted::Waiting(ticket) = submitted { Some(ticket) } else { None };
            ticket.unwrap()
        };
        let second = wait(b"second", Durability::Queued);
        let synced = wait(b"synced", Durability::Synced);
        let abandoned = wait(b"abandoned", Durability::Queued);
        assert_eq!(Err(AuditError::Late), abandoned.wait(now()));
        let last = wait(b"last", Durability::Queued);
        assert!(matches!(
            writer.submit_or(b"refusal", Durability::BestEffort, WhenFull::Wait),
            Err(AuditError::Full)
        ));
        assert_eq!(Err(AuditError::Full), writer.append(b"refused", false, soon()));
        drop(held);
        for ticket in [second, synced, last] {
            assert_eq!(Ok(()), ticket.wait(soon()));
        }
        writer.close();
        assert_eq!("first\nsecond\nsynced\nlast\n", disk.text());
        let health = writer.health();
        assert_eq!((4, 0, 0), (health.waited_lines, health.dropped_lines, health.queued_lines));
    }

    /// Lines that wait are bounded by number and by bytes, apart from those of callers that gave up. The end of the writer
    /// refuses them.
    #[test]
    fn lines_that_wait_are_bounded() {
        let disk = Disk::default();
        let held = disk.gate.lock().unwrap();
        let writer = full_queue(&disk);
        let wait = |line: &[u8]| writer.submit_or(line, Durability::Queued, WhenFull::Wait);
        let mut tickets = Vec::new();
        while let Ok(Submitted::Waiting(ticket)) = wait(b"x") {
            tickets.push(ticket);
        }
        assert_eq!(MAX_WAITING, tickets.len());
        assert!(matches!(wait(b"x"), Err(AuditError::Full)));
        drop(tickets.pop());
        assert!(matches!(wait(b"x"), Ok(Submitted::Waiting(_))));
        std::thread::scope(|scope| {
            scope.spawn(|| writer.close());
            for ticket in tickets {
                assert_eq!(Err(AuditError::Failed), ticket.wait(soon()));
            }
            drop(held);
        });
        assert_eq!("first\n", disk.text());

        let disk = Disk::default();
        let held = disk.gate.lock().unwrap();
        let writer = on_disk(&disk, |settings| settings.max_bytes = 100);
        writer.submit(&[b'f'; 60], Durability::Queued).unwrap();
        let wait = |size| writer.submit_or(&vec![b'w'; size], Durability::Queued, WhenFull::Wait);
        assert!(matches!(wait(200), Err(AuditError::Full)), "longer than the queue");
        let first = wait(60);
        assert!(matches!(first, Ok(Submitted::Waiting(_))), "{first:?}");
        assert!(matches!(wait(60), Err(AuditError::Full)));
        drop(held);
    }

    /// Only lines of `Queued` are dropped, and each is counted. A line that is longer than the queue is refused, and so is every
    /// line while the disk fails.
    #[test]
    fn full_queue_drops_lines() {
        let disk = Disk::default();
        let held = disk.gate.lock().unwrap();
        let writer = on_disk(&disk, |settings| {
            settings.max_lines = 1;
            settings.max_bytes = 100;
        });
        let offer = |line: &[u8], durability| writer.submit_or(line, durability, WhenFull::Drop);
        assert!(matches!(offer(b"first", Durability::Queued), Ok(Submitted::Queued(None))));
        for _ in 0..3 {
            assert!(matches!(offer(b"line", Durability::Queued), Ok(Submitted::Dropped)));
        }
        assert!(matches!(offer(b"line", Durability::Synced), Err(AuditError::Full)));
        assert!(matches!(offer(b"line", Durability::BestEffort), Err(AuditError::Full)));
        assert!(matches!(offer(&[b'x'; 200], Durability::Queued), Err(AuditError::Full)));
        let health = writer.health();
        assert_eq!((3, 0, 2), (health.dropped_lines, health.waited_lines, health.refused_lines));
        disk.full.store(true, Ordering::SeqCst);
        drop(held);
        while writer.is_writable() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The refused line still waits for the disk, so the queue is full, too.
        assert!(offer(b"line", Durability::Queued).is_err());
        disk.full.store(false, Ordering::SeqCst);
        while !writer.is_writable() {
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.close();
        assert_eq!("first\n", disk.text());
        assert_eq!(3, writer.health().dropped_lines);
    }

    /// Naive way: one queue for all. Callers that need no credential to be refused would fill it, and who may do what
    /// it asks for would be refused. By lines, by bytes, and while the disk fails.
    #[test]
    fn refusals_leave_room_for_permits() {
        for (line, max_lines, max_bytes) in [(1, 20, 1_000_000), (99, 1_000_000, 2_000)] {
            let disk = Disk::default();
            disk.slow.store(true, Ordering::SeqCst);
            let writer = on_disk(&disk, |settings| {
                settings.max_lines = max_lines;
                settings.max_bytes = max_bytes;
            });
            let busy = writer.submit(b"slow", Durability::Synced).unwrap().unwrap();
            std::thread::sleep(Duration::from_millis(50));
            let results: Vec<_> = (0..100)
                .map(|_| writer.submit(&vec![b'r'; line], Durability::BestEffort).map(drop))
                .collect();
            assert_eq!(10, results.iter().filter(|result| result.is_ok()).count());
            assert!(results.iter().rev().take(90).all(|r| *r == Err(AuditError::Full)));
            for _ in 0..9 {
                writer.submit(&vec![b'p'; line], Durability::Queued).unwrap();
            }
            let permit = writer.submit(&vec![b'P'; line], Durability::Synced).unwrap().unwrap();
            let health = writer.health();
            assert_eq!((90, 0), (health.dropped_refusals, health.refused_lines));
            assert_eq!((Ok(()), Ok(())), (busy.wait(soon()), permit.wait(soon())));
            // The share is given back once it is written, and after a failure that kept lines.
            assert!(writer.submit(b"again", Durability::BestEffort).is_ok());
            disk.full.store(true, Ordering::SeqCst);
            assert_eq!(Err(AuditError::Failed), writer.append(b"lost", true, soon()));
            while writer.submit(&vec![b'r'; line], Durability::BestEffort).is_ok() {}
            disk.full.store(false, Ordering::SeqCst);
            while writer.append(b"permit", false, soon()).is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
            writer.close();
            let health = writer.health();
            assert_eq!((0, 0), (health.queued_lines, health.queued_bytes));
            assert_eq!((0, 0), {
                let queue = writer.shared.lock();
                (queue.refusals.lines, queue.refusals.bytes)
            });
        }
    }

    /// Naive way: look for the file once in a while, from the last sync on. Steady records put that off for ever, and
    /// each of them was acknowledged in a file that nobody has.
    #[test]
    fn removed_file_is_noticed_by_the_next_record() {
        for durable in [true, false] {
            let path = folder("removed").join("audit.jsonl");
            let mut settings = AuditSettings::new(path.clone());
            settings.sync_interval = Duration::from_millis(200);
            let writer = AuditWriter::open(settings).unwrap();
            let mut next = 0;
            let mut append = |durable| {
                next += 1;
                writer.append(format!("line {next}").as_bytes(), durable, soon()).unwrap();
                next
            };
            for _ in 0..3 {
                append(true);
            }
            std::fs::remove_file(&path).unwrap();
            let mut last = 0;
            for _ in 0..12 {
                std::thread::sleep(Duration::from_millis(50));
                last = append(durable);
                if durable {
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert!(text.ends_with(&format!("line {last}\n")), "{text}");
                }
            }
            writer.close();
            let expected: String = (4..=last).map(|n| format!("line {n}\n")).collect();
            assert_eq!(expected, std::fs::read_to_string(&path).unwrap());
            assert!(writer.health().writable);
        }
    }

    /// The same while somebody removes, renames or empties the file over and over.
    #[test]
    fn acknowledged_lines_outlive_rotation() {
        let folder = folder("churn");
        let path = folder.join("audit.jsonl");
        let writer = AuditWriter::open(AuditSettings::new(path.clone())).unwrap();
        for number in 0..120 {
            match number % 4 {
                0 => std::fs::remove_file(&path).unwrap(),
                1 => std::fs::rename(&path, folder.join("audit.1")).unwrap(),
                2 => drop(std::fs::File::create(&path).unwrap()),
                _ => {}
            }
            writer.append(format!("n{number}").as_bytes(), true, soon()).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.ends_with(&format!("n{number}\n")), "{text}");
        }
        // A folder that is gone leaves no place for a record: nothing is acknowledged until it is back.
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(Err(AuditError::Failed), writer.append(b"lost", true, soon()));
        assert!(!writer.health().writable);
        std::fs::create_dir_all(&folder).unwrap();
        while writer.append(b"back", true, soon()).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!("back\n", std::fs::read_to_string(&path).unwrap());
    }

    /// A file that is taken away between the write and the answer: the line is written again.
    #[test]
    fn taken_after_the_write() {
        for durable in [true, false] {
            let disk = Disk::default();
            let writer = on_disk(&disk, |_| {});
            disk.taken.store(true, Ordering::SeqCst);
            writer.append(b"line", durable, soon()).unwrap();
            writer.close();
            assert_eq!(b"line\nline\n".as_slice(), disk.bytes.lock().unwrap().as_slice());
            assert_eq!((1, 0), (writer.health().written_lines, writer.health().queued_lines));
        }
    }

    /// A wait ends with the deadline, though the disk is slow.
    #[test]
    fn late_is_late() {
        let disk = Disk::default();
        disk.slow.store(true, Ordering::SeqCst);
        let writer = on_disk(&disk, |_| {});
        let start = Instant::now();
        let deadline = start + Duration::from_millis(30);
        assert_eq!(Err(AuditError::Late), writer.append(b"line", true, deadline));
        assert!(start.elapsed() < Duration::from_millis(250));
    }

    /// A torn last line is kept apart, so that the next record does not grow onto it.
    #[test]
    fn torn_line_is_cut_off() {
        let path = folder("torn").join("audit.jsonl");
        std::fs::write(&path, "{\"a\":1}\n{\"b\":").unwrap();
        let writer = AuditWriter::open(AuditSettings::new(path.clone())).unwrap();
        let health = writer.health();
        assert_eq!(5, health.torn_bytes);
        assert_eq!("{\"b\":", std::fs::read_to_string(&health.torn_file).unwrap());
        writer.append(b"{\"c\":2}", true, soon()).unwrap();
        assert_eq!("{\"a\":1}\n{\"c\":2}\n", std::fs::read_to_string(&path).unwrap());
    }

    /// Two writers of one file would cut each other's lines.
    #[test]
    fn second_writer_is_refused() {
        let path = folder("second").join("audit.jsonl");
        let writer = AuditWriter::open(AuditSettings::new(path.clone())).unwrap();
        let error = AuditWriter::open(AuditSettings::new(path.clone())).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        drop(writer);
        AuditWriter::open(AuditSettings::new(path)).unwrap();
    }

    /// Nothing that is written to a device survives, so durable would be a lie.
    #[test]
    fn device_is_refused() {
        for path in ["/dev/full", "/dev/null"] {
            let error = AuditWriter::open(AuditSettings::new(PathBuf::from(path))).unwrap_err();
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
    }

    /// A moved file is followed within the sync interval.
    #[test]
    fn rotation_is_followed() {
        let folder = folder("rotation");
        let (path, moved) = (folder.join("audit.jsonl"), folder.join("audit.1"));
        let mut settings = AuditSettings::new(path.clone());
        settings.sync_interval = Duration::from_millis(10);
        let writer = AuditWriter::open(settings).unwrap();
        writer.append(b"old", true, soon()).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(20));
            writer.append(b"new", true, soon()).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("new\n"));
        let both =
            std::fs::read_to_string(&moved).unwrap() + &std::fs::read_to_string(&path).unwrap();
        assert_eq!("old\nnew\nnew\nnew\n", both);
    }

    /// The real thing: a process whose files may not grow past a limit. What it acknowledged is whole in the file.
    #[test]
    fn file_size_limit() {
        const CHILD: &str = "AUTHZ_TEST_AUDIT_CHILD";
        if let Some(path) = std::env::var_os(CHILD) {
            let writer = AuditWriter::open(AuditSettings::new(PathBuf::from(path))).unwrap();
            let mut acknowledged = 0;
            let mut refused = 0;
            for number in 0..40 {
                let line = format!("{number:0100}").into_bytes();
                match writer.append(&line, true, soon()) {
                    Ok(()) => acknowledged += 1,
                    Err(error) => {
                        assert_eq!(AuditError::Failed, error);
                        refused += 1;
                    }
                }
            }
            assert!(!writer.health().writable);
            assert!(acknowledged > 0 && refused > 0);
            std::fs::write(
                std::env::var_os("AUTHZ_TEST_AUDIT_COUNT").unwrap(),
                acknowledged.to_string(),
            )
            .unwrap();
            return;
        }
        let folder = folder("limit");
        let (path, count) = (folder.join("audit.jsonl"), folder.join("count"));
        let status = Command::new("sh")
            // Blocks of 512 bytes or 1 KiB, as the shell has it; an ignored SIGXFSZ makes the write fail instead.
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 2; exec \"$0\" --exact audit::tests::file_size_limit",
            ])
            .arg(std::env::current_exe().unwrap())
            .env(CHILD, &path)
            .env("AUTHZ_TEST_AUDIT_COUNT", &count)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let acknowledged: usize = std::fs::read_to_string(&count).unwrap().parse().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let whole: Vec<&str> =
            text.split_inclusive('\n').filter(|line| line.len() == 101).collect();
        assert_eq!(acknowledged, whole.len());
        // Nothing half-written stays before a later record.
        AuditWriter::open(AuditSettings::new(path.clone())).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with('\n'));
    }
}
