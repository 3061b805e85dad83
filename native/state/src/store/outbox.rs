//! Takes audit lines of committed transactions to the audit file, on a thread of its own, and says which have got there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::audit::{AuditError, AuditWriter, Durability};
use crate::ticket::Ticket;

/// Where audit lines go: [`crate::AuditWriter::submit`]. Given a line without its end, and whether it is to be synced; a
/// line that is gets a ticket, which settles once the line is on the disk.
pub type AuditSink = Arc<dyn Fn(Vec<u8>, bool) -> Result<Option<Ticket>, AuditError> + Send + Sync>;

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

/// A line that stands in the outbox.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) number: i64,
    pub(crate) bytes: Bytes,
}

/// Told of lines that are synced, in the order in which they came.
pub(crate) type Synced = Box<dyn Fn(&[Line]) + Send>;

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Line>,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owns the thread.
pub(crate) struct Exporter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl Exporter {
    /// Starts the thread.
    pub(crate) fn start(sink: AuditSink, synced: Synced) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("authz-outbox".to_owned())
            .spawn(move || run(&of_thread, &sink, &synced))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Sends lines after those that wait. Their store bounds how many there are.
    pub(crate) fn push(&self, lines: impl IntoIterator<Item = Line>) {
        let mut queue = self.shared.lock();
        let was_empty = queue.lines.is_empty();
        queue.lines.extend(lines);
        let wake = was_empty && !queue.lines.is_empty();
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

fn run(shared: &Shared, sink: &AuditSink, synced: &Synced) {
    let mut pause = Duration::ZERO;
    loop {
        let Some((lines, closing)) = next(shared, pause) else { return };
        let (sent, left) = send(lines, sink);
        let failed = !left.is_empty();
        if !sent.is_empty() {
            synced(&sent);
        }
        if failed {
            let mut queue = shared.lock();
            for line in left.into_iter().rev() {
                queue.lines.push_front(line);
            }
            drop(queue);
            if closing {
                return;
            }
        }
        pause = if failed { RETRY } else { PACE };
    }
}

/// Waits for the pause and for lines; none at the end.
fn next(shared: &Shared, pause: Duration) -> Option<(Vec<Line>, bool)> {
    let from = Instant::now().checked_add(pause)?;
    let mut queue = shared.lock();
    while !queue.closing {
        let left = from.saturating_duration_since(Instant::now());
        queue = if !left.is_zero() {
            match shared.filled.wait_timeout(queue, left) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            }
        } else if queue.lines.is_empty() {
            shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner)
        } else {
            break;
        };
    }
    if queue.lines.is_empty() {
        return None;
    }
    let most = queue.lines.len().min(MAX_SENT);
    Some((queue.lines.drain(..most).collect(), queue.closing))
}

/// Sends lines in their order. Returns those that are synced, and from the first that is not all others.
fn send(mut lines: Vec<Line>, sink: &AuditSink) -> (Vec<Line>, Vec<Line>) {
    let mut tickets = Vec::with_capacity(lines.len());
    for line in &lines {
        match sink(line.bytes.to_vec(), true) {
            Ok(ticket) => tickets.push(ticket),
            Err(_) => break,
        }
    }
    let deadline = Instant::now().checked_add(PATIENCE).unwrap_or_else(Instant::now);
    let is_synced = |ticket: Option<Ticket>| ticket.is_none_or(|one| one.wait(deadline).is_ok());
    let count = tickets.into_iter().map_while(|ticket| is_synced(ticket).then_some(())).count();
    let left = lines.split_off(count);
    (lines, left)
}

/// How many bytes lines have.
pub(crate) fn bytes_of(lines: &[Line]) -> usize {
    lines.iter().map(|line| line.bytes.len()).fold(0, usize::saturating_add)
}
