//! The store as a simulated node uses it: faults, views that are behind, calls that come in between, and planted bugs.
//!
//! Several nodes share one store (`core`). Each of them reads from a copy of its own (`view`), which is as old as the last notice,
//! and changes the store itself, as nodes that share a database do.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authz_base::record::approval::ApprovalStatus;
use authz_base::record::task::TaskStatus;
use authz_base::record::{Breakglasses, Record, RecordKey, RecordKind, Revocations};
use authz_state::store::{
    Bounds, Commit, MemoryStore, Page, Query, Store, StoreError, StoreHealth, Survives,
    Transaction, Work,
};
use authz_state::{AuditError, Ticket};

use crate::bundle::{STALENESS_MS, TOLERANCE_MS};
use crate::clock::{NodeClock, WorldTime};
use crate::faults::FaultKind;
use crate::planted::Bug;

/// Secret of every store.
pub const SECRET: [u8; 32] = [7; 32];
/// A deadline that never passes.
pub fn never() -> Instant {
    Instant::now() + Duration::from_secs(3_600 * 24 * 365 * 10)
}

/// Kinds of which a node has a copy.
const COPIED: [RecordKind; 4] =
    [RecordKind::Task, RecordKind::Words, RecordKind::Revocation, RecordKind::Breakglass];

/// Failure of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// Nothing changes.
    Unavailable,
    /// Nothing changes.
    Slow,
    /// Nothing changes.
    Full,
    /// Everything changes, and the connection breaks before the answer.
    Unknown,
    /// Everything changes, and the ticket says that it did not become durable.
    LostTicket,
}

impl StoreFailure {
    const fn kind(self) -> FaultKind {
        match self {
            Self::Unavailable => FaultKind::StoreUnavailable,
            Self::Slow => FaultKind::StoreSlow,
            Self::Full => FaultKind::StoreFull,
            Self::Unknown | Self::LostTicket => FaultKind::CommitUnknown,
        }
    }
}

/// Moment within a transaction at which another call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    BeforeWork,
    AfterCommit,
}

/// Another call, or the end of the process, in the middle of a transaction.
pub struct NestedCall {
    pub moment: Moment,
    /// Noted once it runs.
    pub kind: FaultKind,
    pub run: Box<dyn FnOnce() + Send>,
}

/// State that all stores of a run share.
#[derive(Default)]
pub struct RunShared {
    pub nested: Mutex<Option<NestedCall>>,
    pub faults: Mutex<BTreeSet<FaultKind>>,
    /// Number of the last commit, and of the last one that a loss of power leaves.
    pub commits: AtomicU64,
    pub synced: AtomicU64,
    /// Node that wrote each task last.
    writers: Mutex<std::collections::BTreeMap<RecordKey, usize>>,
}

impl fmt::Debug for RunShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunShared")
    }
}

impl RunShared {
    pub fn note(&self, kind: FaultKind) {
        self.faults.lock().unwrap().insert(kind);
    }

    /// Makes the nested call if this is its moment.
    fn pause(&self, moment: Moment) {
        let mut nested = self.nested.lock().unwrap();
        if nested.as_ref().is_none_or(|call| call.moment != moment) {
            return;
        }
        let call = nested.take();
        drop(nested);
        if let Some(call) = call {
            self.note(call.kind);
            (call.run)();
        }
    }
}

/// Copy of the shared records that one node reads.
#[derive(Debug)]
struct View {
    records: MemoryStore,
    refreshed_ms: AtomicU64,
    /// Number of the commit up to which it has all.
    commit: AtomicU64,
}

/// Store of one node.
#[derive(Debug)]
pub struct SimulatedStore {
    core: Arc<dyn Store>,
    view: Option<View>,
    shared: Arc<RunShared>,
    world: Arc<WorldTime>,
    clock: Arc<NodeClock>,
    node: usize,
    failures: Mutex<Vec<StoreFailure>>,
    changes: AtomicU64,
    /// The process of the node is gone.
    is_dead: AtomicBool,
    bug: Option<Bug>,
}

/// Parts of a [`SimulatedStore`].
pub struct StoreParts {
    pub core: Arc<dyn Store>,
    pub has_view: bool,
    pub shared: Arc<RunShared>,
    pub world: Arc<WorldTime>,
    pub clock: Arc<NodeClock>,
    pub node: usize,
    pub bug: Option<Bug>,
}

impl SimulatedStore {
    pub fn new(parts: StoreParts) -> Self {
        let StoreParts { core, has_view, shared, world, clock, node, bug } = parts;
        let view = has_view.then(|| View {
            records: MemoryStore::new(SECRET),
            refreshed_ms: AtomicU64::new(0),
            commit: AtomicU64::new(u64::MAX),
        });
        let store = Self {
            core,
            view,
            shared,
            world,
            clock,
            node,
            failures: Mutex::default(),
            changes: AtomicU64::new(0),
            is_dead: AtomicBool::new(false),
            bug,
        };
        store.refresh();
        store
    }

    /// Lets the next transaction fail.
    pub fn fail_next(&self, failure: StoreFailure) {
        self.failures.lock().unwrap().push(failure);
    }

    /// Ends the process of the node: nothing is written any more.
    pub fn kill(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
    }

    pub const fn has_view(&self) -> bool {
        self.view.is_some()
    }

    /// Brings the copy up to date: a notice of changes arrives.
    pub fn refresh(&self) {
        let Some(view) = &self.view else { return };
        self.hear(view);
        view.refreshed_ms.store(self.world.passed_ms(), Ordering::SeqCst);
    }

    /// Takes what other nodes changed, as each transaction does too.
    fn hear(&self, view: &View) {
        let commit = self.shared.commits.load(Ordering::SeqCst);
        if view.commit.swap(commit, Ordering::SeqCst) == commit {
            return;
        }
        let kinds = COPIED.into_iter().filter(|kind| {
            // BUG: notices of revocations are not delivered.
            self.bug != Some(Bug::RevocationNotDelivered) || *kind != RecordKind::Revocation
        });
        self.copy(view, kinds);
    }

    /// Copies all records of some kinds to the view.
    fn copy(&self, view: &View, kinds: impl Iterator<Item = RecordKind>) {
        for kind in kinds {
            let all = all_of(&*self.core, kind);
            let old = all_of(&view.records, kind);
            if all == old {
                continue;
            }
            write(&view.records, &mut |transaction| {
                for record in &old {
                    transaction.delete(record.key());
                }
                for record in &all {
                    transaction.put(record.clone());
                }
            });
        }
    }

    /// Runs a transaction of the store that it is right to run.
    fn run(
        &self,
        locks: &[RecordKey],
        survives: Survives,
        until: Instant,
        work: &mut Work<'_>,
    ) -> Result<(Commit, BTreeSet<RecordKey>), StoreError> {
        let mut changed = BTreeSet::new();
        let is_on_copy = matches!(self.bug, Some(Bug::NoLock | Bug::NoFence));
        if let (true, Some(view)) = (is_on_copy, &self.view) {
            return self.run_on_copy(view, locks, survives, until, work);
        }
        let commit = self.core.transact(locks, survives, until, &mut |transaction| {
            let mut recorder = Recorder::new(self, transaction);
            let is_committed = work(&mut recorder)?;
            // Work that gives up changes nothing.
            if is_committed {
                changed = recorder.into_changed();
            }
            Ok(is_committed)
        })?;
        Ok((commit, changed))
    }

    /// BUG: runs the work without a lock. It reads a copy, and its changes are written later, whatever happened meanwhile.
    fn run_on_copy(
        &self,
        view: &View,
        locks: &[RecordKey],
        survives: Survives,
        until: Instant,
        work: &mut Work<'_>,
    ) -> Result<(Commit, BTreeSet<RecordKey>), StoreError> {
        let copy = MemoryStore::new(SECRET);
        let stale = if self.bug == Some(Bug::NoLock) { &COPIED[..] } else { &[] };
        for kind in RecordKind::ALL {
            let from: &dyn Store = if stale.contains(&kind) { &view.records } else { &*self.core };
            let records = all_of(from, kind);
            write(&copy, &mut |transaction| {
                records.iter().for_each(|record| transaction.put(record.clone()));
            });
        }
        let mut changes = Vec::new();
        let mut lines = Vec::new();
        let mut is_committed = false;
        copy.transact(locks, survives, until, &mut |transaction| {
            let mut recorder = Recorder::new(self, transaction);
            is_committed = work(&mut recorder)?;
            changes = std::mem::take(&mut recorder.changes);
            lines = std::mem::take(&mut recorder.lines);
            Ok(false)
        })?;
        if !is_committed {
            return Ok((Commit::Done, BTreeSet::new()));
        }
        if self.bug == Some(Bug::NoFence) {
            self.shared.pause(Moment::BeforeWork);
        }
        let commit = self.core.transact(locks, survives, until, &mut |transaction| {
            for (key, record) in &changes {
                match record {
                    Some(record) => transaction.put(record.clone()),
                    None => transaction.delete(key.clone()),
                }
            }
            for line in &lines {
                transaction.audit(line.clone());
            }
            Ok(true)
        })?;
        Ok((commit, changes.into_iter().map(|(key, _)| key).collect()))
    }

    /// Notes own changes in the copy at once.
    fn note_own(&self, changed: &BTreeSet<RecordKey>) {
        let Some(view) = self.view.as_ref() else { return };
        let now: Vec<(RecordKey, Option<Record>)> = changed
            .iter()
            .filter(|key| COPIED.contains(&key.kind))
            .map(|key| (key.clone(), self.core.peek(key, never()).unwrap()))
            .collect();
        if now.is_empty() {
            return;
        }
        write(&view.records, &mut |transaction| {
            for (key, record) in &now {
                match record {
                    Some(record) => transaction.put(record.clone()),
                    None => transaction.delete(key.clone()),
                }
            }
        });
    }

    /// Refuses reads by a view that is too old.
    fn check_fresh(&self) -> Result<(), StoreError> {
        if self.staleness() > Duration::from_millis(STALENESS_MS) {
            return Err(StoreError::unavailable("the view is too old"));
        }
        Ok(())
    }

    /// Number of transactions that changed records.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Store that reads go to.
    fn reads(&self) -> &dyn Store {
        match &self.view {
            Some(view) => &view.records,
            None => &*self.core,
        }
    }
}

impl Store for SimulatedStore {
    fn is_remote(&self) -> bool {
        self.view.is_some()
    }

    fn may_wait(&self, key: &RecordKey) -> bool {
        self.core.may_wait(key)
    }

    fn peek(&self, key: &RecordKey, until: Instant) -> Result<Option<Record>, StoreError> {
        let Some(view) = &self.view else { return self.core.peek(key, until) };
        self.check_fresh()?;
        if !COPIED.contains(&key.kind) {
            return self.core.peek(key, until);
        }
        if let Some(record) = view.records.peek(key, until)? {
            return Ok(Some(record));
        }
        let record = self.core.peek(key, until)?;
        if record.is_some() {
            self.note_own(&BTreeSet::from([key.clone()]));
        }
        Ok(record)
    }

    fn find(&self, query: &Query, page: &Page, until: Instant) -> Result<Vec<Record>, StoreError> {
        self.check_fresh()?;
        self.core.find(query, page, until)
    }

    fn transact(
        &self,
        locks: &[RecordKey],
        survives: Survives,
        until: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError> {
        if self.bug != Some(Bug::NoFence) || self.view.is_none() {
            self.shared.pause(Moment::BeforeWork);
        }
        if self.is_dead.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("the process is dead"));
        }
        let failure = self.failures.lock().unwrap().pop();
        if let Some(failure) = failure {
            self.shared.note(failure.kind());
        }
        match failure {
            Some(StoreFailure::Unavailable) => return Err(StoreError::unavailable("simulated")),
            Some(StoreFailure::Slow) => return Err(StoreError::Slow),
            Some(StoreFailure::Full) => return Err(StoreError::Full("simulated".to_owned())),
            Some(StoreFailure::Unknown | StoreFailure::LostTicket) | None => {}
        }
        // Before the work runs, the node knows all revocations.
        if let Some(view) = self.view.as_ref().filter(|_| self.bug != Some(Bug::NoLock)) {
            self.hear(view);
        }
        let (commit, changed) = self.run(locks, survives, until, work)?;
        // A store without threads has written by now.
        let commit = match commit {
            Commit::Done => Commit::Done,
            Commit::Pending(ticket) => match ticket.wait(never()) {
                Ok(()) => Commit::Done,
                Err(error) => return Ok(Commit::Pending(Ticket::settled(Err(error)))),
            },
        };
        self.note_own(&changed);
        let number = self.shared.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if !changed.is_empty() {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        if survives == Survives::PowerLoss && !changed.is_empty() {
            self.shared.synced.store(number, Ordering::SeqCst);
        }
        self.shared.pause(Moment::AfterCommit);
        match failure {
            Some(StoreFailure::Unknown) => Err(StoreError::Unknown("simulated".into())),
            Some(StoreFailure::LostTicket) => {
                Ok(Commit::Pending(Ticket::settled(Err(AuditError::Failed))))
            }
            _ => Ok(commit),
        }
    }

    fn revocations(&self) -> Arc<Revocations> {
        self.reads().revocations()
    }

    fn breakglasses(&self) -> Arc<Breakglasses> {
        self.reads().breakglasses()
    }

    fn check_clock(&self) -> Result<(), StoreError> {
        let offset = self.clock.offset_ms();
        if self.view.is_some() && offset.abs() > TOLERANCE_MS {
            return Err(StoreError::unavailable(format!("the clock is {offset} ms ahead")));
        }
        Ok(())
    }

    fn staleness(&self) -> Duration {
        // BUG: a view that nothing refreshes counts as fresh.
        let Some(view) = self.view.as_ref().filter(|_| self.bug != Some(Bug::StaleViewTrusted))
        else {
            return Duration::ZERO;
        };
        let refreshed = view.refreshed_ms.load(Ordering::SeqCst);
        Duration::from_millis(self.world.passed_ms().saturating_sub(refreshed))
    }

    fn secret(&self) -> [u8; 32] {
        self.core.secret()
    }

    fn health(&self) -> StoreHealth {
        self.core.health()
    }

    fn close(&self) {
        // The nodes of a run share the store: the run closes it.
    }
}

/// A transaction that notes its changes, and plants bugs of single records.
struct Recorder<'a> {
    store: &'a SimulatedStore,
    inner: &'a mut dyn Transaction,
    changes: Vec<(RecordKey, Option<Record>)>,
    lines: Vec<Vec<u8>>,
}

impl<'a> Recorder<'a> {
    fn new(store: &'a SimulatedStore, inner: &'a mut dyn Transaction) -> Self {
        Self { store, inner, changes: Vec::new(), lines: Vec::new() }
    }

    fn into_changed(self) -> BTreeSet<RecordKey> {
        self.changes.into_iter().map(|(key, _)| key).collect()
    }

    fn stored(&mut self, key: &RecordKey) -> Option<Record> {
        self.inner.get(key).ok().flatten()
    }

    /// The record that is written in place of one that should be. `None`: nothing is written.
    fn planted(&mut self, record: Record) -> Option<Record> {
        match (self.store.bug?, &record) {
            (Bug::RecordLost, Record::Session(_)) if self.changes.len() % 3 == 1 => None,
            (Bug::ApprovalUsedTwice, Record::Approval(approval))
                if approval.status == ApprovalStatus::Consumed =>
            {
                None
            }
            (Bug::UseCountedOnce, Record::Task(task)) => {
                let key = record.key();
                let before = self.stored(&key);
                let mut writers = self.store.shared.writers.lock().unwrap();
                let last = writers.insert(key, self.store.node);
                match before {
                    Some(Record::Task(before))
                        if last.is_some_and(|one| one != self.store.node) =>
                    {
                        let mut task = authz_base::record::task::Task::clone(task);
                        task.uses.clone_from(&before.uses);
                        Some(Record::Task(Arc::new(task)))
                    }
                    _ => Some(record),
                }
            }
            _ => Some(record),
        }
    }
}

impl Transaction for Recorder<'_> {
    fn get(&mut self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        self.inner.get(key)
    }

    fn find(&mut self, query: &Query, page: &Page) -> Result<Vec<Record>, StoreError> {
        self.inner.find(query, page)
    }

    fn put(&mut self, record: Record) {
        let record = match self.store.bug {
            Some(_) => match self.planted(record) {
                Some(record) => record,
                None => return,
            },
            None => record,
        };
        self.changes.push((record.key(), Some(record.clone())));
        self.inner.put(record);
    }

    fn delete(&mut self, key: RecordKey) {
        // BUG: a reported permit stays, so that it can be reported again.
        if self.store.bug == Some(Bug::PermitReleasedTwice) && key.kind == RecordKind::Reservation {
            return;
        }
        self.changes.push((key.clone(), None));
        self.inner.delete(key);
    }

    fn audit(&mut self, line: Vec<u8>) {
        // BUG: every fourth line is lost.
        let number = self.store.shared.commits.load(Ordering::SeqCst);
        if self.store.bug == Some(Bug::AuditLineLost) && number.is_multiple_of(4) {
            return;
        }
        self.lines.push(line.clone());
        self.inner.audit(line);
    }
}

/// All records of a kind.
pub fn all_of(store: &dyn Store, kind: RecordKind) -> Vec<Record> {
    let page = Page { after: String::new(), most: 10_000 };
    store.find(&Query::Kind(kind), &page, never()).unwrap()
}

/// Writes to a store, which must take it.
pub fn write(store: &dyn Store, change: &mut dyn FnMut(&mut dyn Transaction)) {
    let commit = store.transact(&[], Survives::PowerLoss, never(), &mut |transaction| {
        change(transaction);
        Ok(true)
    });
    if let Commit::Pending(ticket) = commit.unwrap() {
        ticket.wait(never()).unwrap();
    }
}

/// The store that nodes share.
pub fn shared_store(clock: &Arc<NodeClock>) -> MemoryStore {
    MemoryStore::with_time_source(SECRET, Bounds::default(), Arc::clone(clock) as _)
}

/// BUG: what a store that is opened again has lost.
pub fn lose_at_restart(store: &dyn Store, bug: Bug) {
    let mut changes: Vec<Record> = Vec::new();
    let mut removed: Vec<RecordKey> = Vec::new();
    match bug {
        Bug::LabelLostAtRestart => {
            for record in all_of(store, RecordKind::Session) {
                let Record::Session(mut session) = record else { continue };
                let lost = Arc::make_mut(&mut session);
                lost.history.labels = Default::default();
                lost.history.pending.clear();
                changes.push(Record::Session(session));
            }
        }
        Bug::EndLostAtRestart => {
            for record in all_of(store, RecordKind::Task) {
                let Record::Task(mut task) = record else { continue };
                let lost = Arc::make_mut(&mut task);
                (lost.status, lost.ended_at) = (TaskStatus::Active, None);
                changes.push(Record::Task(task));
            }
        }
        Bug::AnswerLostAtRestart => {
            for record in all_of(store, RecordKind::Approval) {
                let Record::Approval(mut approval) = record else { continue };
                Arc::make_mut(&mut approval).status = ApprovalStatus::Open;
                changes.push(Record::Approval(approval));
            }
        }
        Bug::RevocationLostAtRestart => {
            removed.extend(all_of(store, RecordKind::Revocation).iter().map(Record::key));
        }
        _ => return,
    }
    write(store, &mut |transaction| {
        changes.iter().for_each(|record| transaction.put(record.clone()));
        removed.iter().for_each(|key| transaction.delete(key.clone()));
    });
}
