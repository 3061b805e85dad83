//! The slow, obvious store: everything under one lock, found by looking at all of it. Nothing outlives it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use authz_kernel::task::{Record, RecordKey, RecordKind, Revocations, TaskStatus};

use super::{Commit, Page, Query, Store, StoreError, StoreHealth, Survives, Transaction, Work};

/// Keeps records in memory alone: for tests, and for the library in a process of its own.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    secret: [u8; 32],
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<RecordKey, Record>,
    revocations: Arc<Revocations>,
    lines: Vec<Vec<u8>>,
    commits: u64,
    failures: u64,
    closed: bool,
}

impl MemoryStore {
    /// An empty one.
    ///
    /// Args:
    /// * `secret`: what [`Store::secret`] gives.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { state: Mutex::default(), secret }
    }

    /// Takes the audit lines that were committed since the last call.
    #[must_use]
    pub fn take_lines(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.lock().lines)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn is_remote(&self) -> bool {
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
        _deadline: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError> {
        let mut state = self.lock();
        state.open()?;
        let mut running =
            Running { state: &mut state, changes: BTreeMap::new(), lines: Vec::new() };
        let commits = work(&mut running);
        let Running { changes, mut lines, .. } = running;
        match commits {
            Ok(true) => {}
            Ok(false) => return Ok(Commit::Done),
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                return Err(error);
            }
        }
        for (key, record) in changes {
            match record {
                Some(record) => {
                    if let Record::Revocation(one) = &record {
                        Arc::make_mut(&mut state.revocations).insert(Arc::clone(one));
                    }
                    state.records.insert(key, record);
                }
                None => {
                    state.records.remove(&key);
                }
            }
        }
        state.lines.append(&mut lines);
        state.commits = state.commits.saturating_add(1);
        Ok(Commit::Done)
    }

    fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.lock().revocations)
    }

    fn staleness(&self) -> Duration {
        Duration::ZERO
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn health(&self) -> StoreHealth {
        let state = self.lock();
        let tasks = state.records.keys().filter(|key| key.kind == RecordKind::Task).count();
        StoreHealth {
            engine: "memory",
            reachable: !state.closed,
            writable: !state.closed,
            tasks: tasks as u64,
            commits: state.commits,
            failures: state.failures,
            ..StoreHealth::default()
        }
    }

    fn close(&self) {
        self.lock().closed = true;
    }
}

impl State {
    fn open(&self) -> Result<(), StoreError> {
        if self.closed {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        }
        Ok(())
    }
}

struct Running<'a> {
    state: &'a mut State,
    changes: BTreeMap<RecordKey, Option<Record>>,
    lines: Vec<Vec<u8>>,
}

impl Transaction for Running<'_> {
    fn get(&mut self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        Ok(match self.changes.get(key) {
            Some(changed) => changed.clone(),
            None => self.state.records.get(key).cloned(),
        })
    }

    fn find(&mut self, query: &Query, page: &Page) -> Result<Vec<Record>, StoreError> {
        let kept = self.state.records.iter().filter(|(key, _)| !self.changes.contains_key(*key));
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
    if let Query::DueBefore(before) = query {
        let mut due: Vec<(i64, &Record)> = all
            .filter_map(|record| Some((record.due()?, record)))
            .filter(|(due, _)| due < before)
            .collect();
        due.sort_by(|(one, a), (other, b)| (one, a.key()).cmp(&(other, b.key())));
        return due.into_iter().take(page.most).map(|(_, record)| record.clone()).collect();
    }
    let fits = |record: &&Record| {
        let Record::Task(task) = record else { return false };
        let fits = match query {
            Query::Session(session) => task.session == *session,
            Query::LiveOf(agent) => task.status == TaskStatus::Active && task.assignee() == agent,
            Query::TasksOf(agent) => task.assignee() == agent,
            Query::Tasks => true,
            Query::DueBefore(_) => false,
        };
        fits && task.id > page.after
    };
    all.filter(fits).take(page.most).cloned().collect()
}
