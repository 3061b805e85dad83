//! The thread that reads records that are not in memory.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use authz_base::poison::IgnorePoison as _;
use authz_base::record::RecordKey;

use super::disk::{DiskError, DiskReader};
use crate::store::{StoreError, StoreFault};
use crate::sync::spawn_system;
use crate::time::now;

/// Most records that calls wait for at once.
const MAX_WAITING: usize = 4096;

/// Text of a record. `None` if there is none.
type StoredText = Result<Option<Vec<u8>>, DiskError>;

/// Key of a record, with the receiver of its text. `None` ends the thread.
type ReadRequest = Option<(RecordKey, SyncSender<StoredText>)>;

/// Reader of records that are not in memory.
#[derive(Debug)]
pub(super) enum RecordReader {
    /// On a thread of its own.
    Thread(ReaderThread),
    /// On the thread of the caller, from the file at the path.
    Caller(PathBuf),
}

impl RecordReader {
    /// Reads the text of a record that is known to be there.
    ///
    /// # Errors
    /// The record is missing, the disk fails, or the deadline passes.
    pub(super) fn text(&self, key: &RecordKey, deadline: Instant) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Thread(thread) => thread.text(key, deadline),
            Self::Caller(path) => {
                let stored = DiskReader::open(path).and_then(|reader| reader.body(key));
                text_of(stored)
            }
        }
    }

    /// Ends the thread after the requests that wait. Idempotent.
    pub(super) fn close(&self) {
        if let Self::Thread(thread) = self {
            thread.close();
        }
    }
}

/// The text of a record that is known to be there.
fn text_of(stored: StoredText) -> Result<Vec<u8>, StoreError> {
    match stored {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(StoreError::unavailable("a record is not on its disk any more")),
        Err(error) => Err(StoreError::Unavailable(StoreFault::caused_by(error.to_string(), error))),
    }
}

/// Owner of the thread.
#[derive(Debug)]
pub(super) struct ReaderThread {
    wanted: SyncSender<ReadRequest>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ReaderThread {
    /// Starts the thread.
    pub(super) fn start(path: PathBuf) -> std::io::Result<Self> {
        let (wanted, waiting) = sync_channel(MAX_WAITING);
        let thread = spawn_system("authz-state-read", move || run(&path, &waiting))?;
        Ok(Self { wanted, thread: Mutex::new(Some(thread)) })
    }

    fn text(&self, key: &RecordKey, deadline: Instant) -> Result<Vec<u8>, StoreError> {
        let left = deadline.saturating_duration_since(now());
        if left.is_zero() {
            return Err(StoreError::Slow);
        }
        let (found, wait) = sync_channel(1);
        self.wanted.try_send(Some((key.clone(), found))).map_err(|_| {
            StoreError::unavailable("too much is read from its disk, or it is closed")
        })?;
        match wait.recv_timeout(left) {
            Ok(stored) => text_of(stored),
            Err(RecvTimeoutError::Timeout) => Err(StoreError::Slow),
            Err(RecvTimeoutError::Disconnected) => Err(StoreError::unavailable("it is closed")),
        }
    }

    fn close(&self) {
        let thread = self.thread.lock().ignore_poison().take();
        if let Some(thread) = thread {
            // The thread takes from the queue until this comes.
            drop(self.wanted.send(None));
            drop(thread.join());
        }
    }
}

fn run(path: &std::path::Path, waiting: &Receiver<ReadRequest>) {
    let mut open = None;
    while let Ok(Some((key, to))) = waiting.recv() {
        let found = match open.take().map_or_else(|| DiskReader::open(path), Ok) {
            Ok(reader) => {
                let found = reader.body(&key);
                // A file that failed is opened again.
                open = found.is_ok().then_some(reader);
                found
            }
            Err(error) => Err(error),
        };
        drop(to.try_send(found));
    }
}
