//! Records that outlive a request, and how they change: one decision is one transaction.

mod bounds;
mod codec;
mod embedded;
mod index;
pub(crate) mod locks;
mod memory;
mod outbox;
mod postgres;
mod query;
mod ready;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_base::record::{Record, RecordKey, RecordKind, Revocations};
use serde::Serialize;

pub use self::bounds::{Bounds, MAX_ID_BYTES, MAX_PAGE};
pub use self::embedded::{EmbeddedSettings, EmbeddedStore};
pub use self::memory::MemoryStore;
pub use self::outbox::{AuditSink, audit_sink};
pub use self::postgres::{PostgresSettings, PostgresStore};
use crate::ticket::Ticket;

/// What a committed change must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survives {
    /// A crash of the process.
    Crash,
    /// A loss of power.
    PowerLoss,
}

/// A store could not be opened.
#[derive(Debug)]
pub struct StoreOpenError {
    what: String,
    why: String,
}

impl StoreOpenError {
    pub(crate) fn new(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

impl fmt::Display for StoreOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for StoreOpenError {}

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It cannot be reached, is closed, or its disk refuses. Nothing was changed.
    Unavailable(String),
    /// It was not done by the deadline. It may yet have been: whoever repeats it must bear that.
    Slow,
    /// A bound is reached: too many records.
    Full(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "the store is out of reach: {why}"),
            Self::Slow => f.write_str("the store did not answer in time"),
            Self::Full(what) => write!(f, "the store is full: {what}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// By what records are found besides their key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Query {
    /// Tasks of a session.
    Session(String),
    /// Tasks of an assignee, by SPIFFE id, that were ACTIVE when they were last written.
    LiveOf(String),
    /// Tasks of an assignee, by SPIFFE id.
    TasksOf(String),
    /// All tasks.
    Tasks,
    /// All records of a kind.
    Kind(RecordKind),
    /// Records of a kind whose ids begin so.
    Prefix(RecordKind, String),
    /// Records whose time is up (a task's deadline or idle time-out, a reservation's `due`, an `expires_at`) before this, in
    /// milliseconds since 1970; ended tasks are none of them. The earliest first.
    DueBefore(i64),
}

/// A part of what a query finds, in the order of the ids (of the times, for [`Query::DueBefore`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Only ids after this one; empty: from the first. Not for [`Query::DueBefore`].
    pub after: String,
    /// At most so many, and never more than [`MAX_PAGE`]: whoever wants all goes on until a page is empty.
    pub most: usize,
}

/// How a store stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreHealth {
    /// `memory`, `embedded` or `postgresql`.
    pub engine: &'static str,
    /// It answers.
    pub reachable: bool,
    /// It takes changes.
    pub writable: bool,
    /// The last error, kept after recovery; empty where there was none.
    pub last_error: String,
    /// How long ago what this node knows was true, in milliseconds.
    pub staleness_ms: u64,
    /// By how many milliseconds this node's clock is ahead of the store's, negative where it is behind; none where the store
    /// has no clock of its own, or it is not known yet.
    pub clock_ahead_ms: Option<i64>,
    /// Tasks that it holds.
    pub tasks: u64,
    /// Sessions that it holds, among them those of no task.
    pub sessions: u64,
    /// Permits that it holds of which it is open what came.
    pub reservations: u64,
    /// Transactions committed since the start.
    pub commits: u64,
    /// Transactions that failed since the start.
    pub failures: u64,
    /// Changes that wait to be written.
    pub queued: u64,
    /// What deserves attention, such as records lost in a crash.
    pub warnings: Vec<String>,
}

/// A running transaction. What it reads is current and stays so until it ends, for whatever the locked keys guard: a
/// session's key guards its tasks and their reservations, an agent's key which tasks the agent has.
pub trait Transaction {
    /// Reads a record, with the changes of this transaction.
    ///
    /// # Errors
    /// The store failed, or the deadline passed.
    fn get(&mut self, key: &RecordKey) -> Result<Option<Record>, StoreError>;

    /// Finds records, with the changes of this transaction.
    ///
    /// # Errors
    /// The store failed, or the deadline passed.
    fn find(&mut self, query: &Query, page: &Page) -> Result<Vec<Record>, StoreError>;

    /// Writes a record at the end of the transaction.
    fn put(&mut self, record: Record);

    /// Removes a record at the end of the transaction.
    fn delete(&mut self, key: RecordKey);

    /// Adds an audit line (one JSON object without the line's end) that is written with the changes or not at all.
    fn audit(&mut self, line: Vec<u8>);
}

/// How a transaction ends that its work did not give up.
#[derive(Debug)]
pub enum Commit {
    /// It is durable.
    Done,
    /// It is ordered before every later one, and durable once the ticket says so; before that nothing may be answered.
    Pending(Ticket),
}

/// What is done within a transaction: true commits, false gives up and changes nothing.
///
/// Who answers from what it read, such as an answer that is repeated, commits even where it changes nothing: what it read
/// may not be durable yet.
pub type Work<'a> = dyn FnMut(&mut dyn Transaction) -> Result<bool, StoreError> + 'a;

/// Keeps records. Calls block the thread, at most until their deadline.
pub trait Store: Send + Sync + fmt::Debug {
    /// Whether a call may wait for a network or another machine: then it must not run on a thread that others wait for.
    fn is_remote(&self) -> bool;

    /// Whether reading a record may wait, for a disk or a network: then it must not be read on a thread that others wait for.
    fn may_wait(&self, key: &RecordKey) -> bool;

    /// Reads a record as this node knows it; it may be [`Store::staleness`] old.
    ///
    /// # Errors
    /// It is not known here, and the store failed or the deadline passed.
    fn peek(&self, key: &RecordKey, deadline: Instant) -> Result<Option<Record>, StoreError>;

    /// Finds records; what another node has just changed may be missing.
    ///
    /// # Errors
    /// The store failed, or the deadline passed.
    fn find(
        &self,
        query: &Query,
        page: &Page,
        deadline: Instant,
    ) -> Result<Vec<Record>, StoreError>;

    /// Runs `work` in one transaction that holds the locks of `locks`, taken in their order whatever order they are given
    /// in. `work` runs at most once. Before it runs, all that any node revoked and committed is in
    /// [`Store::revocations`].
    ///
    /// # Errors
    /// Nothing was changed, but for [`StoreError::Slow`], after which it is not known.
    fn transact(
        &self,
        locks: &[RecordKey],
        survives: Survives,
        deadline: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError>;

    /// What is revoked, as this node knows it; on this node at once, of other nodes after [`Store::staleness`] at most.
    fn revocations(&self) -> Arc<Revocations>;

    /// Refuses where this node's clock differs from the store's by more than is tolerated: then what this node takes for
    /// ended may not be, and the other way round. The clock of a store that no other node shares is this node's own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], which says by how much it differs.
    fn check_clock(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// How old what this node knows may be; zero where no other node shares the store.
    fn staleness(&self) -> Duration;

    /// A secret that all nodes of this store share, made at random when the store was made: for keyed hashes.
    fn secret(&self) -> [u8; 32];

    /// How it stands.
    fn health(&self) -> StoreHealth;

    /// Writes what waits, and refuses from then on. Idempotent.
    fn close(&self);
}
