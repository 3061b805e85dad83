//! Takes audit lines of committed transactions to the audit file, on a thread of its own, and says which have got there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use authz_base::poison::IgnorePoison as _;

use crate::audit::{AuditWriter, Durability};
use crate::sync::{Condvar, JoinHandle, Mutex, MutexGuard, now, spawn};
use crate::ticket::AuditError;
use crate::ticket::Ticket;

/// Where audit lines go: [`crate::AuditWriter::submit`]. Given a line without its end, and whether it is to be synced; a
/// line that is gets a ticket, which settles once the line is on the disk.
pub type AuditSink = Arc<dyn Fn(&[u8], bool) -> Result<Option<Ticket>, AuditError> + Send + Sync>;

/// The sink that an audit file is.
#[must_use]
pub fn audit_sink(audit: &Arc<AuditWriter>) -> AuditSink {
    let audit = Arc::clone(audit);
    Arc::new(move |line, synced| {
        audit.submit(line, if synced { Durability::Synced } else { Durability::Queued })
    })
}

/// Most lines that are sent before their syncs are waited for.
const MAX_SENT: usize = 1024;
/// Lines gather for so long between two syncs.
const PACE: Duration = Duration::from_millis(20);
/// So long after a failure the lines are sent again.
const RETRY: Duration = Duration::from_millis(200);
/// A sync that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of memory that an empty batch keeps for later lines.
const KEPT_ROOM: usize = 4 * 1024 * 1024;

/// A line that stands in the outbox.
#[derive(Clone, Debug)]
pub(crate) struct OutboxLine {
    pub(crate) number: i64,
    pub(crate) bytes: Vec<u8>,
}

/// A line that is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentLine {
    pub(crate) number: i64,
    /// Size in bytes.
    pub(crate) size: usize,
}

/// Told of lines that are synced, in the order in which they came.
pub(crate) type Synced = Box<dyn Fn(&[SentLine]) + Send>;

/// Lines, their bytes one after another. The committing thread copies its line into this buffer and frees its own memory,
/// which costs less than freeing it on another thread.
#[derive(Debug, Default)]
struct OutboxBatch {
    lines: Vec<SentLine>,
    bytes: Vec<u8>,
    /// Number of sent lines and of their bytes.
    done: (usize, usize),
}

#[derive(Debug, Default)]
struct OutboxQueue {
    batch: OutboxBatch,
    closing: bool,
}

impl OutboxQueue {
    /// Gives the lines that wait to a batch of which all are sent.
    fn refill(&mut self, batch: &mut OutboxBatch) {
        if batch.is_done() {
            batch.clear();
            std::mem::swap(batch, &mut self.batch);
        }
    }
}

#[derive(Default)]
struct OutboxShared {
    queue: Mutex<OutboxQueue>,
    filled: Condvar,
}

impl OutboxShared {
    fn lock(&self) -> MutexGuard<'_, OutboxQueue> {
        self.queue.lock().ignore_poison()
    }
}

/// Owns the thread, or sends on the thread of its caller.
pub(crate) struct Exporter {
    shared: Arc<OutboxShared>,
    thread: Option<JoinHandle<()>>,
    stepped: Option<SteppedSender>,
}

/// Sender without a thread.
struct SteppedSender {
    sink: AuditSink,
    synced: Synced,
    batch: OutboxBatch,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl Exporter {
    /// Starts the thread.
    pub(crate) fn start(sink: AuditSink, synced: Synced) -> std::io::Result<Self> {
        let shared = Arc::new(OutboxShared::default());
        let of_thread = Arc::clone(&shared);
        let thread = spawn("authz-outbox", move || run(&of_thread, &sink, &synced))?;
        Ok(Self { shared, thread: Some(thread), stepped: None })
    }

    /// An exporter without a thread: [`Exporter::step`] sends.
    pub(crate) fn stepped(sink: AuditSink, synced: Synced) -> Self {
        let stepped = Some(SteppedSender { sink, synced, batch: OutboxBatch::default() });
        Self { shared: Arc::default(), thread: None, stepped }
    }

    /// Sends lines that wait on this thread. It does nothing if the exporter has a thread of its own.
    pub(crate) fn step(&mut self) {
        let Some(SteppedSender { sink, synced, batch }) = &mut self.stepped else { return };
        self.shared.lock().refill(batch);
        let (sent, _) = batch.send(sink);
        if !sent.is_empty() {
            synced(sent);
        }
    }

    /// Sends lines after those that wait. Their store bounds how many there are.
    pub(crate) fn push(&self, lines: impl IntoIterator<Item = OutboxLine>) {
        let mut queue = self.shared.lock();
        let was_empty = queue.batch.is_done();
        lines.into_iter().for_each(|line| queue.batch.push(&line));
        let wake = was_empty && !queue.batch.is_done();
        drop(queue);
        // Who waits for more to gather is not to be woken by each.
        if wake {
            self.shared.filled.notify_one();
        }
    }

    /// Sends what waits once, and ends the thread. What is not synced stays in the outbox. Idempotent.
    pub(crate) fn close(&mut self) {
        self.shared.lock().closing = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(shared: &OutboxShared, sink: &AuditSink, synced: &Synced) {
    let (mut pause, mut batch) = (Duration::ZERO, OutboxBatch::default());
    while let Some(closing) = next(shared, pause, &mut batch) {
        let (sent, failed) = batch.send(sink);
        if !sent.is_empty() {
            synced(sent);
        }
        if failed && closing {
            return;
        }
        pause = if failed { RETRY } else { PACE };
    }
}

/// Waits for the pause, and for lines where all were sent. Whether it is the last time; none at the end.
fn next(shared: &OutboxShared, pause: Duration, batch: &mut OutboxBatch) -> Option<bool> {
    let from = now().checked_add(pause)?;
    let mut queue = shared.lock();
    while !queue.closing {
        let left = from.saturating_duration_since(now());
        queue = if !left.is_zero() {
            match shared.filled.wait_timeout(queue, left) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            }
        } else if batch.is_done() && queue.batch.is_done() {
            shared.filled.wait(queue).ignore_poison()
        } else {
            break;
        };
    }
    queue.refill(batch);
    (!batch.is_done()).then_some(queue.closing)
}

impl OutboxBatch {
    fn push(&mut self, line: &OutboxLine) {
        self.lines.push(SentLine { number: line.number, size: line.bytes.len() });
        self.bytes.extend_from_slice(&line.bytes);
    }

    const fn is_done(&self) -> bool {
        self.done.0 == self.lines.len()
    }

    /// Removes all lines. The batch keeps its memory, up to a bound.
    fn clear(&mut self) {
        self.lines.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_ROOM);
        self.lines.shrink_to(KEPT_ROOM / size_of::<SentLine>());
        self.done = (0, 0);
    }

    /// Sends the next lines, in their order. Returns those that are synced, and whether one is not: from that one on all
    /// are to be sent again.
    fn send(&mut self, sink: &AuditSink) -> (&[SentLine], bool) {
        let (from, at) = self.done;
        let next = self.lines.get(from..).unwrap_or_default();
        let next = next.get(..MAX_SENT).unwrap_or(next);
        let mut tickets = Vec::with_capacity(next.len());
        let mut rest = self.bytes.get(at..).unwrap_or_default();
        for line in next {
            let Some((bytes, after)) = rest.split_at_checked(line.size) else { break };
            match sink(bytes, true) {
                Ok(ticket) => tickets.push(ticket),
                Err(_) => break,
            }
            rest = after;
        }
        let deadline = now().checked_add(PATIENCE).unwrap_or_else(now);
        let is_synced =
            |ticket: Option<Ticket>| ticket.is_none_or(|one| one.wait(deadline).is_ok());
        let count = tickets.into_iter().map_while(|ticket| is_synced(ticket).then_some(())).count();
        let synced = next.get(..count).unwrap_or_default();
        self.done = (from.saturating_add(count), at.saturating_add(sent_bytes(synced)));
        (synced, count < next.len())
    }
}

/// Size of lines in bytes.
pub(crate) fn bytes_of(lines: &[OutboxLine]) -> usize {
    lines.iter().map(|line| line.bytes.len()).fold(0, usize::saturating_add)
}

/// Size of sent lines in bytes.
pub(crate) fn sent_bytes(lines: &[SentLine]) -> usize {
    lines.iter().map(|line| line.size).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Instant;

    use super::*;

    /// Lines of any length reach the sink in their order, and each is reported as synced once. Lines that the sink refuses
    /// are sent again, before later ones.
    #[test]
    fn in_order_and_once() {
        let got = Arc::new(Mutex::new(Vec::new()));
        let said = Arc::new(Mutex::new(Vec::new()));
        let (of_sink, of_synced) = (Arc::clone(&got), Arc::clone(&said));
        let tries = Mutex::new(0_usize);
        let sink: AuditSink = Arc::new(move |line: &[u8], is_synced| {
            assert!(is_synced);
            let mut tries = tries.lock().unwrap();
            *tries += 1;
            if (*tries).is_multiple_of(700) {
                return Err(AuditError::Full);
            }
            of_sink.lock().unwrap().push(line.to_vec());
            Ok(None)
        });
        let synced = move |lines: &[SentLine]| {
            of_synced.lock().unwrap().extend(lines.iter().map(|line| (line.number, line.size)));
        };
        let mut exporter = Exporter::start(sink, Box::new(synced)).unwrap();
        let line = |number: i64| OutboxLine {
            number,
            bytes: vec![b'a'; (number % 5).unsigned_abs() as usize],
        };
        let lines: Vec<OutboxLine> = (0..3_000).map(line).collect();
        let expected: Vec<_> = lines.iter().map(|line| (line.number, line.bytes.len())).collect();
        assert_eq!(bytes_of(&lines), expected.iter().map(|(_, size)| *size).sum::<usize>());
        let (first, later) = lines.split_at(2_000);
        exporter.push(first.iter().cloned());
        let until = Instant::now() + Duration::from_secs(60);
        while said.lock().unwrap().len() < first.len() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        exporter.push(later.iter().cloned());
        while said.lock().unwrap().len() < lines.len() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        exporter.close();
        assert_eq!(expected, *said.lock().unwrap());
        let sizes: Vec<usize> = got.lock().unwrap().iter().map(Vec::len).collect();
        assert_eq!(expected.iter().map(|(_, size)| *size).collect::<Vec<_>>(), sizes);
    }

    /// A batch frees the memory of large contents.
    #[test]
    fn room() {
        let mut batch = OutboxBatch::default();
        for (size, is_kept) in [(KEPT_ROOM, true), (3 * KEPT_ROOM, false)] {
            batch.push(&OutboxLine { number: 1, bytes: vec![0; size] });
            assert!(!batch.is_done() && batch.bytes.capacity() >= size);
            batch.clear();
            assert!(batch.is_done() && batch.bytes.is_empty());
            assert_eq!(is_kept, batch.bytes.capacity() >= size);
        }
    }
}
