//! The thread that reads what memory does not hold.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use authz_base::poison::IgnorePoison as _;
use authz_base::record::RecordKey;

use super::disk;
use crate::store::StoreError;

/// Most records that are waited for at once.
const MAX_WAITING: usize = 4096;

type Found = Result<Option<Vec<u8>>, String>;

/// What is wanted, and who gets it; none: the end.
type Wanted = Option<(RecordKey, SyncSender<Found>)>;

/// Owns the thread.
#[derive(Debug)]
pub(super) struct Reader {
    wanted: SyncSender<Wanted>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Reader {
    /// Starts the thread.
    pub(super) fn start(path: PathBuf) -> std::io::Result<Self> {
        let (wanted, waiting) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name("authz-state-read".to_owned())
            .spawn(move || run(&path, &waiting))?;
        Ok(Self { wanted, thread: Mutex::new(Some(thread)) })
    }

    /// Reads the text of a record that is known to be there.
    ///
    /// # Errors
    /// It is not, the disk fails, or the deadline passes.
    pub(super) fn text(&self, key: &RecordKey, deadline: Instant) -> Result<Vec<u8>, StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StoreError::Slow);
        }
        let fail = |why: &str| StoreError::Unavailable(why.to_owned());
        let (found, wait) = sync_channel(1);
        self.wanted
            .try_send(Some((key.clone(), found)))
            .map_err(|_| fail("too much is read from its disk, or it is closed"))?;
        match wait.recv_timeout(left) {
            Ok(Ok(Some(text))) => Ok(text),
            Ok(Ok(None)) => Err(fail("a record is not on its disk any more")),
            Ok(Err(why)) => Err(StoreError::Unavailable(why)),
            Err(RecvTimeoutError::Timeout) => Err(StoreError::Slow),
            Err(RecvTimeoutError::Disconnected) => Err(fail("it is closed")),
        }
    }

    /// Ends the thread, after what waits. Idempotent.
    pub(super) fn close(&self) {
        let thread = self.thread.lock().ignore_poison().take();
        if let Some(thread) = thread {
            // The thread takes from the queue until this comes.
            drop(self.wanted.send(None));
            drop(thread.join());
        }
    }
}

fn run(path: &std::path::Path, waiting: &Receiver<Wanted>) {
    let mut open = None;
    while let Ok(Some((key, to))) = waiting.recv() {
        let found = match open.take().map_or_else(|| disk::Reader::open(path), Ok) {
            Ok(reader) => {
                let found = reader.body(&key);
                // One that failed is opened again.
                open = found.is_ok().then_some(reader);
                found
            }
            Err(why) => Err(why),
        };
        // Whoever does not wait any more does not hear it.
        drop(to.try_send(found));
    }
}
