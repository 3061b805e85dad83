//! The store of tasks, as decisions use it: every wait ends, and every failure is a refusal with its own reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_kernel::ValueKey;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{Breakglasses, Record, RecordKey, RecordKind, Revocations, Task};
use authz_kernel::values::value_key;
use authz_state::store::{
    Bounds, Commit, EmbeddedSettings, EmbeddedStore, MemoryStore, Page, PostgresSettings,
    PostgresStore, Query, Store, StoreError, Survives, Work, audit_sink,
};
use authz_state::{AuditError, AuditWriter};
use tokio::sync::Semaphore;

use crate::error::EngineError;
use crate::refusal::{CallRefusal, Step};
use crate::settings::{Lane, StateEngine, StateSettings};

/// Calls of the fast lane that may wait for a remote store at once. A further call is OVERLOADED.
const WAITING: usize = 64;

/// Owns the store.
#[derive(Debug)]
pub(crate) struct Keeper {
    store: Arc<dyn Store>,
    settings: StateSettings,
    waiting: Semaphore,
    /// Key of the values that sessions know.
    value_key: ValueKey,
}

impl Keeper {
    /// Most open permits that the store holds.
    pub(crate) fn most_reservations(&self) -> u64 {
        bounds(self.settings()).of(RecordKind::Reservation) as u64
    }

    /// Opens the store that the settings name. Committed audit lines go to `audit`.
    pub(crate) fn open(
        settings: StateSettings,
        audit: &Arc<AuditWriter>,
    ) -> Result<Self, EngineError> {
        let bounds = bounds(&settings);
        let store: Arc<dyn Store> = match (settings.engine, &settings.path, &settings.dsn) {
            (StateEngine::Postgresql, _, Some(dsn)) => {
                let mut shared = PostgresSettings::new(dsn.0.clone(), settings.node.clone());
                shared.bounds = bounds;
                shared.connections = settings.connections;
                shared.poll_interval = Duration::from_millis(settings.poll_interval_ms);
                shared.revocation_staleness =
                    Duration::from_millis(settings.revocation_staleness_ms);
                shared.clock_tolerance = Duration::from_millis(settings.clock_tolerance_ms);
                let opened = PostgresStore::open(shared, audit_sink(audit));
                Arc::new(opened.map_err(EngineError::Store)?)
            }
            (StateEngine::Embedded, Some(path), _) => {
                let mut embedded = EmbeddedSettings::new(path.clone());
                embedded.bounds = bounds;
                let opened = EmbeddedStore::open(embedded, audit_sink(audit));
                Arc::new(opened.map_err(EngineError::Store)?)
            }
            _ => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(EngineError::Randomness)?;
                Arc::new(MemoryStore::with_bounds(secret, bounds))
            }
        };
        Ok(Self::with(settings, store))
    }

    /// Keeper of an open store.
    pub(crate) fn with(settings: StateSettings, store: Arc<dyn Store>) -> Self {
        let value_key = value_key(&store.secret());
        Self { store, settings, waiting: Semaphore::new(WAITING), value_key }
    }

    pub(crate) const fn settings(&self) -> &StateSettings {
        &self.settings
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Key of the values that sessions know.
    pub(crate) const fn value_key(&self) -> &ValueKey {
        &self.value_key
    }

    /// True if the records outlive the process. Such a store writes the audit lines of its transactions itself.
    pub(crate) fn is_lasting(&self) -> bool {
        self.settings.engine != StateEngine::Memory
    }

    /// Refuses while this node's clock is not that of the store: every time that is compared would be wrong.
    pub(crate) fn check_clock(&self) -> Result<(), CallRefusal> {
        self.store.check_clock().map_err(|error| refused(&error))
    }

    /// Time for which a used proof is kept after it is no longer valid, in milliseconds: the greatest difference between the clocks
    /// of two nodes, one of which removes the proof while it is still valid for the other.
    pub(crate) fn proof_slack_ms(&self) -> i64 {
        if !self.store.is_remote() {
            return 0;
        }
        i64::try_from(self.settings.clock_tolerance_ms.saturating_mul(2)).unwrap_or(i64::MAX)
    }

    /// Until when a call may wait.
    pub(crate) fn until(&self, now: Instant, deadline: Option<Instant>) -> Instant {
        let most = Duration::from_millis(self.settings.max_wait_ms);
        let latest = now.checked_add(most).unwrap_or(now);
        deadline.map_or(latest, |deadline| deadline.min(latest))
    }

    /// Revocations, unless this node's view of them is too old, or its clock is wrong.
    pub(crate) fn revocations(&self) -> Result<Arc<Revocations>, CallRefusal> {
        self.check_fresh()?;
        Ok(self.store.revocations())
    }

    /// Requests for break-glass. `None`: there is none, or this node's view of them is too old, or its clock is wrong, so that none
    /// is in force.
    pub(crate) fn breakglasses(&self) -> Option<Arc<Breakglasses>> {
        self.check_fresh().ok()?;
        let all = self.store.breakglasses();
        (!all.is_empty()).then_some(all)
    }

    /// Refuses where this node's view of revocations and break-glass is too old, or its clock is wrong.
    fn check_fresh(&self) -> Result<(), CallRefusal> {
        self.check_clock()?;
        let staleness = self.store.staleness();
        if staleness > Duration::from_millis(self.settings.revocation_staleness_ms) {
            return Err(CallRefusal::new(
                ReasonCode::StateUnavailable,
                Step::Identify,
                format!(
                    "what is revoked was last known {} ms ago, longer than `revocation_staleness`",
                    staleness.as_millis()
                ),
            ));
        }
        Ok(())
    }

    /// Reads a task as this node knows it.
    pub(crate) fn task(&self, id: &str, at: Wait) -> Result<Option<Arc<Task>>, CallRefusal> {
        match self.peek(&RecordKey::new(RecordKind::Task, id), at)? {
            Some(Record::Task(task)) => Ok(Some(task)),
            _ => Ok(None),
        }
    }

    /// Reads a record as this node knows it.
    pub(crate) fn peek(&self, key: &RecordKey, at: Wait) -> Result<Option<Record>, CallRefusal> {
        let may_wait = || self.store.may_wait(key);
        self.waited(at, may_wait, || self.store.peek(key, at.until))?
            .map_err(|error| refused(&error))
    }

    /// Finds records.
    pub(crate) fn find(
        &self,
        query: &Query,
        page: &Page,
        at: Wait,
    ) -> Result<Vec<Record>, CallRefusal> {
        self.waited(at, || self.store.is_remote(), || self.store.find(query, page, at.until))?
            .map_err(|error| refused(&error))
    }

    /// Runs a transaction.
    pub(crate) fn transact(
        &self,
        locks: &[RecordKey],
        survives: Survives,
        at: Wait,
        work: &mut Work<'_>,
    ) -> Result<Commit, CallRefusal> {
        let may_wait =
            || self.store.is_remote() || locks.iter().any(|key| self.store.may_wait(key));
        self.waited(at, may_wait, || self.store.transact(locks, survives, at.until, work))?
            .map_err(|error| refused(&error))
    }

    /// Waits until a commit is durable.
    pub(crate) fn kept(&self, commit: Commit, at: Wait) -> Result<(), CallRefusal> {
        match commit {
            Commit::Done => Ok(()),
            Commit::Pending(ticket) => ticket.wait(at.until).map_err(|error| {
                refused(&match error {
                    AuditError::Late => StoreError::Slow,
                    _ => StoreError::unavailable("it could not keep the change"),
                })
            }),
        }
    }

    /// Runs what may wait: on the fast lane, whose threads others wait for, not on one of those.
    fn waited<R>(
        &self,
        at: Wait,
        may_wait: impl FnOnce() -> bool,
        run: impl FnOnce() -> R,
    ) -> Result<R, CallRefusal> {
        if at.lane == Lane::Python || !may_wait() {
            return Ok(run());
        }
        let Ok(_permit) = self.waiting.try_acquire() else {
            return Err(CallRefusal::new(
                ReasonCode::Overloaded,
                Step::Locate,
                "too many calls wait for the store",
            ));
        };
        Ok(tokio::task::block_in_place(run))
    }
}

/// Until when a call waits, and on which lane it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) until: Instant,
    pub(crate) lane: Lane,
}

/// Bounds of the store.
fn bounds(settings: &StateSettings) -> Bounds {
    let tasks = usize::try_from(settings.max_tasks).unwrap_or(usize::MAX);
    // Every task may be a tree of its own, and each may have made a few operations that nobody reports.
    let twice = tasks.saturating_mul(2);
    Bounds::default()
        .with(RecordKind::Session, tasks)
        .with(RecordKind::Task, tasks)
        .with(RecordKind::Words, tasks)
        .with(RecordKind::Values, tasks)
        .with(RecordKind::Reservation, twice)
        .with(RecordKind::Idempotency, twice)
}

/// The refusal that a failure of the store is.
pub(crate) fn refused(error: &StoreError) -> CallRefusal {
    let reason = match error {
        StoreError::Unavailable(_) => ReasonCode::StateUnavailable,
        StoreError::Slow | StoreError::Unknown(_) => ReasonCode::StoreSlow,
        StoreError::Full(_) => ReasonCode::Overloaded,
    };
    CallRefusal::new(reason, Step::Locate, error.to_string())
}

/// Reason why a transaction writes nothing.
#[derive(Debug)]
pub(crate) enum ChangeError {
    /// The change is refused.
    Refused(CallRefusal),
    /// The store failed.
    Store(StoreError),
    /// There is nothing to change.
    Unchanged,
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CallRefusal> for ChangeError {
    fn from(refused: CallRefusal) -> Self {
        Self::Refused(refused)
    }
}

/// Refuses while the clock of this node is set before 1970: it reads as 1970, when nothing that has an end is over.
pub(crate) fn check_set(now_ms: i64) -> Result<(), CallRefusal> {
    if now_ms > 0 {
        return Ok(());
    }
    Err(CallRefusal::new(
        ReasonCode::StateUnavailable,
        Step::Identify,
        "the clock of this node is set before 1970: set it",
    ))
}
