//! The slow, obvious store: all records under one lock, and each search reads all of them. No record outlives it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use authz_base::record::task::TaskStatus;
use authz_base::record::{Breakglasses, Record, RecordKey, RecordKind, Revocations};

use super::bounds::{Bounds, MAX_PAGE};
use super::locks::KeyLocks;
use super::{
    Commit, Page, Query, Store, StoreError, StoreHealth, Survives, Transaction, Work, codec,
};
use crate::time::{SystemTimeSource, TimeSource};

/// Most audit lines that are kept for [`MemoryStore::take_lines`]; the oldest go first.
const MAX_LINES: usize = 65_536;

/// Store in memory: for tests, and for the library in a process of its own. It starts no thread.
#[derive(Debug)]
pub struct MemoryStore {
    /// One transaction at a time.
    gate: Arc<KeyLocks>,
    state: Mutex<MemoryState>,
    secret: [u8; 32],
    bounds: Bounds,
    time: Arc<dyn TimeSource>,
}

#[derive(Debug, Default)]
struct MemoryState {
    records: BTreeMap<RecordKey, Record>,
    revocations: Arc<Revocations>,
    breakglasses: Arc<Breakglasses>,
    lines: Vec<Vec<u8>>,
    commits: u64,
    failures: u64,
    closed: bool,
}

impl MemoryStore {
    /// An empty store with the default bounds, on the operating system's clock; `secret` is that of [`Store::secret`].
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self::with_bounds(secret, Bounds::default())
    }

    /// An empty store, on the operating system's clock.
    #[must_use]
    pub fn with_bounds(secret: [u8; 32], bounds: Bounds) -> Self {
        Self::with_time_source(secret, bounds, Arc::new(SystemTimeSource))
    }

    /// An empty store that compares deadlines with the clock of the caller.
    #[must_use]
    pub fn with_time_source(secret: [u8; 32], bounds: Bounds, time: Arc<dyn TimeSource>) -> Self {
        Self { gate: KeyLocks::new(), state: Mutex::default(), secret, bounds, time }
    }

    /// A second store with the records that this one has now. A later change of one is not in the other. Audit lines are not copied.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.lock();
        let copy = MemoryState {
            records: state.records.clone(),
            revocations: Arc::clone(&state.revocations),
            breakglasses: Arc::clone(&state.breakglasses),
            lines: Vec::new(),
            commits: state.commits,
            failures: state.failures,
            closed: state.closed,
        };
        Self {
            gate: KeyLocks::new(),
            state: Mutex::new(copy),
            secret: self.secret,
            bounds: self.bounds.clone(),
            time: Arc::clone(&self.time),
        }
    }

    /// Takes the audit lines that were committed since the last call, or the last 65,536 of them.
    #[must_use]
    pub fn take_lines(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.lock().lines)
    }

    fn lock(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().ignore_poison()
    }

    fn commit(
        &self,
        changes: BTreeMap<RecordKey, Option<Record>>,
        mut lines: Vec<Vec<u8>>,
    ) -> Result<Commit, StoreError> {
        let mut state = self.lock();
        state.open()?;
        self.bounds.check_changes(changes.keys(), &lines)?;
        for record in changes.values().flatten() {
            self.bounds.check_record(codec::encode(record)?.len())?;
        }
        for kind in changes.keys().map(|key| key.kind).collect::<BTreeSet<_>>() {
            let of_kind = |key: &&RecordKey| key.kind == kind;
            let put = changes.iter().filter(|(_, record)| record.is_some()).map(|(key, _)| key);
            let new: Vec<&RecordKey> =
                put.filter(of_kind).filter(|key| !state.records.contains_key(key)).collect();
            let gone = changes.iter().filter(|(_, record)| record.is_none()).map(|(key, _)| key);
            let gone = gone.filter(of_kind).filter(|key| state.records.contains_key(key)).count();
            if !new.is_empty() {
                let kept = state.records.keys().filter(of_kind).count().saturating_sub(gone);
                self.bounds.check_count(kind, kept.saturating_add(new.len()))?;
            }
        }
        let changes_kind = |kind| changes.keys().any(|key| key.kind == kind);
        let revokes = changes_kind(RecordKind::Revocation) || changes_kind(RecordKind::Cutoff);
        let changes_breakglass = changes_kind(RecordKind::Breakglass);
        for (key, record) in changes {
            match record {
                Some(record) => state.records.insert(key, record),
                None => state.records.remove(&key),
            };
        }
        if revokes {
            let mut revocations = Revocations::default();
            for record in state.records.values() {
                match record {
                    Record::Revocation(one) => revocations.insert(Arc::clone(one)),
                    Record::Cutoff(one) => revocations.insert_cutoff(Arc::clone(one)),
                    _ => {}
                }
            }
            state.revocations = Arc::new(revocations);
        }
        if changes_breakglass {
            let mut breakglasses = Breakglasses::default();
            for record in state.records.values() {
                if let Record::Breakglass(one) = record {
                    breakglasses.insert(Arc::clone(one));
                }
            }
            state.breakglasses = Arc::new(breakglasses);
        }
        state.lines.append(&mut lines);
        let over = state.lines.len().saturating_sub(MAX_LINES);
        state.lines.drain(..over);
        state.commits = state.commits.saturating_add(1);
        Ok(Commit::Done)
    }
}

impl Store for MemoryStore {
    fn is_remote(&self) -> bool {
        false
    }

    fn may_wait(&self, _key: &RecordKey) -> bool {
        false
    }

    fn peek(&self, key: &RecordKey, _deadline: Instant) -> Result<Option<Record>, StoreError> {
        let state = self.lock();
        state.open()?;
        Ok(state.records.get(key).cloned())
    }

    fn find(
        &self,
        query: &Query,
        page: &Page,
        _deadline: Instant,
    ) -> Result<Vec<Record>, StoreError> {
        let state = self.lock();
        state.open()?;
        Ok(found(state.records.values(), query, page))
    }

    fn transact(
        &self,
        _locks: &[RecordKey],
        _survives: Survives,
        deadline: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError> {
        self.lock().open()?;
        let _turn = self.gate.acquire(&[RecordKey::new(RecordKind::Session, "")], deadline)?;
        let mut running = MemoryTransaction {
            store: self,
            deadline,
            changes: BTreeMap::new(),
            lines: Vec::new(),
        };
        let outcome = match work(&mut running) {
            Ok(false) => return Ok(Commit::Done),
            Ok(true) if self.time.monotonic() >= deadline => Err(StoreError::Slow),
            Ok(true) => self.commit(running.changes, running.lines),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            let mut state = self.lock();
            state.failures = state.failures.saturating_add(1);
        }
        outcome
    }

    fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.lock().revocations)
    }

    fn breakglasses(&self) -> Arc<Breakglasses> {
        Arc::clone(&self.lock().breakglasses)
    }

    fn staleness(&self) -> Duration {
        Duration::ZERO
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn health(&self) -> StoreHealth {
        let state = self.lock();
        let count = |kind| state.records.keys().filter(|key| key.kind == kind).count() as u64;
        StoreHealth {
            engine: "memory",
            reachable: !state.closed,
            writable: !state.closed,
            tasks: count(RecordKind::Task),
            sessions: count(RecordKind::Session),
            reservations: count(RecordKind::Reservation),
            commits: state.commits,
            failures: state.failures,
            ..StoreHealth::default()
        }
    }

    fn close(&self) {
        self.lock().closed = true;
    }
}

impl MemoryState {
    fn open(&self) -> Result<(), StoreError> {
        if self.closed {
            return Err(StoreError::unavailable("it is closed"));
        }
        Ok(())
    }
}

struct MemoryTransaction<'a> {
    store: &'a MemoryStore,
    deadline: Instant,
    changes: BTreeMap<RecordKey, Option<Record>>,
    lines: Vec<Vec<u8>>,
}

impl MemoryTransaction<'_> {
    fn state(&self) -> Result<MutexGuard<'_, MemoryState>, StoreError> {
        if self.store.time.monotonic() >= self.deadline {
            return Err(StoreError::Slow);
        }
        Ok(self.store.lock())
    }
}

impl Transaction for MemoryTransaction<'_> {
    fn get(&mut self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        let state = self.state()?;
        Ok(match self.changes.get(key) {
            Some(changed) => changed.clone(),
            None => state.records.get(key).cloned(),
        })
    }

    fn find(&mut self, query: &Query, page: &Page) -> Result<Vec<Record>, StoreError> {
        let state = self.state()?;
        let kept = state.records.iter().filter(|(key, _)| !self.changes.contains_key(*key));
        let now: BTreeMap<&RecordKey, &Record> = kept
            .chain(self.changes.iter().filter_map(|(key, record)| Some((key, record.as_ref()?))))
            .collect();
        Ok(found(now.into_values(), query, page))
    }

    fn put(&mut self, record: Record) {
        self.changes.insert(record.key(), Some(record));
    }

    fn delete(&mut self, key: RecordKey) {
        self.changes.insert(key, None);
    }

    fn audit(&mut self, line: Vec<u8>) {
        self.lines.push(line);
    }
}

/// Looks at every record; `all` is in the order of the keys.
fn found<'a>(all: impl Iterator<Item = &'a Record>, query: &Query, page: &Page) -> Vec<Record> {
    let most = page.most.min(MAX_PAGE);
    if let Query::DueBefore(before) = query {
        let mut due: Vec<(i64, &Record)> = all
            .filter_map(|record| Some((record.due()?, record)))
            .filter(|(due, _)| due < before)
            .collect();
        due.sort_by(|(one, a), (other, b)| (one, a.key()).cmp(&(other, b.key())));
        return due.into_iter().take(most).map(|(_, record)| record.clone()).collect();
    }
    if let Query::Kind(kind) | Query::Prefix(kind, _) = query {
        let first = if let Query::Prefix(_, first) = query { first } else { "" };
        let fits = |record: &&Record| {
            let key = record.key();
            key.kind == *kind && key.id.starts_with(first) && *key.id > *page.after
        };
        return all.filter(fits).take(most).cloned().collect();
    }
    let fits = |record: &&Record| {
        let Record::Task(task) = record else { return false };
        let fits = match query {
            Query::Session(session) => task.session == *session,
            Query::LiveOf(agent) => task.status == TaskStatus::Active && task.assignee() == agent,
            Query::TasksOf(agent) => task.assignee() == agent,
            Query::Tasks => true,
            Query::Kind(_) | Query::Prefix(..) | Query::DueBefore(_) => false,
        };
        fits && task.id > page.after
    };
    all.filter(fits).take(most).cloned().collect()
}
