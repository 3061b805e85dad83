//! Stores of records: one decision is one transaction.

mod bounds;
mod codec;
mod embedded;
mod error;
mod index;
pub(crate) mod locks;
mod memory;
mod outbox;
mod postgres;
mod query;
mod ready;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_base::record::{Breakglasses, Record, RecordKey, RecordKind, Revocations};
use serde::Serialize;

pub use self::bounds::{Bounds, MAX_ID_BYTES, MAX_PAGE};
pub use self::embedded::{EmbeddedSettings, EmbeddedStore, JournalFile, JournalFiles, WriterStep};
pub use self::error::{StoreError, StoreFault, StoreOpenError};
pub use self::memory::MemoryStore;
pub use self::outbox::{AuditSink, audit_sink};
pub use self::postgres::{DatabaseAddress, DatabaseTls, DsnError, PostgresSettings, PostgresStore};
use crate::ticket::Ticket;

/// Failure that a committed change must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survives {
    /// A crash of the process.
    Crash,
    /// A loss of power.
    PowerLoss,
}

/// Condition by which records are found.
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
    /// Records of a kind whose ids have this prefix.
    Prefix(RecordKind, String),
    /// Records that expire before this time, in milliseconds since 1970 (a task's deadline or idle time-out, a reservation's
    /// `due`, an `expires_at`), without ended tasks. The earliest first.
    DueBefore(i64),
}

/// Part of the result of a query, in the order of the ids (of the times, for [`Query::DueBefore`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Only ids after this one; empty: from the first. Not for [`Query::DueBefore`].
    pub after: String,
    /// Most records of the page, never more than [`MAX_PAGE`]. A caller that wants all reads pages until one is empty.
    pub most: usize,
}

/// Status of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreHealth {
    /// `memory`, `embedded` or `postgresql`.
    pub engine: &'static str,
    /// It answers.
    pub reachable: bool,
    /// It takes changes.
    pub writable: bool,
    /// The last error, kept after recovery; empty without one.
    pub last_error: String,
    /// Age of this node's copy of the records, in milliseconds.
    pub staleness_ms: u64,
    /// Milliseconds by which this node's clock is ahead of the store's, negative if it is behind. `None` if the store has no
    /// clock of its own, or its time is not known yet.
    pub clock_ahead_ms: Option<i64>,
    /// Tasks that it holds.
    pub tasks: u64,
    /// Sessions that it holds, with those of calls without a task.
    pub sessions: u64,
    /// Permits that it holds whose outcome is not reported yet.
    pub reservations: u64,
    /// Transactions committed since the start.
    pub commits: u64,
    /// Transactions that failed since the start.
    pub failures: u64,
    /// Changes that wait to be written.
    pub queued: u64,
    /// Facts that deserve attention, such as records lost in a crash.
    pub warnings: Vec<String>,
}

/// Running transaction. Records that the locked keys guard stay as they are read until it ends: a session's key guards its
/// tasks and their reservations, an agent's key guards the set of its tasks.
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

/// End of a transaction that its work did not give up.
#[derive(Debug)]
pub enum Commit {
    /// It is durable.
    Done,
    /// It is ordered before every later change, and durable once the ticket is done; the caller answers only then.
    Pending(Ticket),
}

/// Work within a transaction: true commits, false gives up and changes nothing.
///
/// Work whose answer depends on a read record, such as a repeated answer, commits even if it changes nothing: the record may
/// not be durable yet.
pub type Work<'a> = dyn FnMut(&mut dyn Transaction) -> Result<bool, StoreError> + 'a;

/// Store of records. Calls block the thread, at most until their deadline.
pub trait Store: Send + Sync + fmt::Debug {
    /// Returns whether a call may wait for a network or another machine: then it must not run on a thread that others wait
    /// for.
    fn is_remote(&self) -> bool;

    /// Returns whether reading a record may wait for a disk or a network: then it must not be read on a thread that others
    /// wait for.
    fn may_wait(&self, key: &RecordKey) -> bool;

    /// Reads a record as this node knows it; it may be [`Store::staleness`] old.
    ///
    /// # Errors
    /// The record is not in memory, and the store failed or the deadline passed.
    fn peek(&self, key: &RecordKey, deadline: Instant) -> Result<Option<Record>, StoreError>;

    /// Finds records; a change that another node has just made may be missing.
    ///
    /// # Errors
    /// The store failed, or the deadline passed.
    fn find(
        &self,
        query: &Query,
        page: &Page,
        deadline: Instant,
    ) -> Result<Vec<Record>, StoreError>;

    /// Runs `work` in one transaction that holds `locks`. The locks are taken in the order of their keys, so that no two
    /// transactions wait for each other. `work` runs at most once. Before it runs, [`Store::revocations`] has all revocations
    /// that any node committed.
    ///
    /// # Errors
    /// No record changed, except after [`StoreError::Slow`] and [`StoreError::Unknown`], after which that is not known.
    fn transact(
        &self,
        locks: &[RecordKey],
        survives: Survives,
        deadline: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError>;

    /// Revocations that this node knows: its own at once, those of other nodes after at most [`Store::staleness`].
    fn revocations(&self) -> Arc<Revocations>;

    /// Requests for break-glass that this node knows, as [`Store::revocations`] has the revocations.
    fn breakglasses(&self) -> Arc<Breakglasses>;

    /// Takes the ids of approvals that any node changed since the last call, of a store that other nodes share. `None`: some
    /// are no longer known.
    fn take_changed_approvals(&self) -> Option<BTreeSet<Box<str>>> {
        Some(BTreeSet::new())
    }

    /// Checks that this node's clock is that of the store, within a tolerance. Otherwise this node could treat a live
    /// record as ended, or an ended record as live. A store that no other node shares has this node's clock.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], with the difference.
    fn check_clock(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Greatest age of this node's copy of the records; zero if no other node shares the store.
    fn staleness(&self) -> Duration;

    /// Random secret for keyed hashes that all nodes of this store share, as old as the store.
    fn secret(&self) -> [u8; 32];

    /// Status of the store.
    fn health(&self) -> StoreHealth;

    /// Writes the changes that wait, and refuses all later calls. Idempotent.
    fn close(&self);
}
