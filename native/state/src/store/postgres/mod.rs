//! The store that several processes share: PostgreSQL.
//!
//! One transaction of ours is one of the database, and locks its keys there. A node keeps what it reads often, and hears
//! from a feed what others changed: every transaction reads the feed once its locks are held, and the node itself reads it
//! when the database notifies it (`LISTEN`), and at an interval, so that a lost notice costs time and no correctness.

mod clock;
mod dsn;
mod node;
mod open;
mod pool;
mod run;
mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use authz_base::record::task::{Task, TaskStatus};
use authz_base::record::{Breakglasses, Record, RecordKey, RecordKind, Revocations};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::runtime::Runtime;

use self::dsn::Address;
pub use self::dsn::{DatabaseAddress, DatabaseTls, DsnError};
use self::node::{Node, NotFollowedError};
use self::open::OpenTransaction;
use self::pool::Pool;
use self::run::Runner;
use self::sql::{Connection, MigrationError, Put, Trouble};
use super::bounds::{Bounds, MAX_PAGE, is_id};
use super::locks::{KeyGuard, KeyLocks};
use super::outbox::{AuditSink, Exporter};
use super::{
    Commit, Page, Query, Store, StoreError, StoreFault, StoreHealth, StoreOpenError, Survives,
    Transaction, Work, codec, query,
};
use crate::ticket::AuditError;
use crate::ticket::pair;
use crate::time::now;

/// Time for the database to answer at the start.
const START: Duration = Duration::from_secs(10);
/// Time for the last lines at the end.
const END: Duration = Duration::from_secs(2);
/// A caller with less time left takes no part in a transaction in which others have changed records.
const HURRY: Duration = Duration::from_millis(100);
/// Threads that talk to the database.
const THREADS: usize = 2;

/// Settings of a [`PostgresStore`].
#[derive(Clone)]
pub struct PostgresSettings {
    /// Connection string: `postgresql://…` or `key=value …`, with several hosts for a database that fails over. A secret.
    pub dsn: String,
    /// Name of this node among those that share the database, as the owner of its audit lines. The same after a restart.
    pub node: String,
    /// Bounds of the records.
    pub bounds: Bounds,
    /// Most connections that answer requests; two more follow the other nodes and tidy up.
    pub connections: usize,
    /// Interval at which this node reads the changes of others if no notice makes it read them earlier. Each reading confirms
    /// that what the node knows is current, so the interval is less than `revocation_staleness`.
    pub poll_interval: Duration,
    /// Whether this node listens for the notices of others. False: it hears of changes only by asking.
    pub listens: bool,
    /// Greatest age of this node's copy of the records; beyond it, the node answers no call.
    pub revocation_staleness: Duration,
    /// Greatest difference of this node's clock from the database's; beyond it, the node answers no call.
    pub clock_tolerance: Duration,
    /// Tasks that are kept in memory.
    pub cached_tasks: usize,
}

impl PostgresSettings {
    /// Defaults: 8 connections, notices, asked every 200 ms too, at most a second old, clocks at most 5 seconds apart, 4,096 tasks in
    /// memory.
    #[must_use]
    pub fn new(dsn: String, node: String) -> Self {
        Self {
            dsn,
            node,
            bounds: Bounds::default(),
            connections: 8,
            poll_interval: Duration::from_millis(200),
            listens: true,
            revocation_staleness: Duration::from_secs(1),
            clock_tolerance: Duration::from_secs(5),
            cached_tasks: 4096,
        }
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Cause for which the database cannot be opened.
#[derive(Debug, Error)]
enum OpenDatabaseError {
    #[error("the connection string {0}")]
    Address(#[source] DsnError),
    #[error("needs a connection, and an interval that is less than `revocation_staleness`")]
    Settings,
    #[error("{0}")]
    Threads(#[source] io::Error),
    #[error(transparent)]
    Migration(#[from] MigrationError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    NotFollowed(#[from] NotFollowedError),
}

/// Keeps records in PostgreSQL 13 or newer.
pub struct PostgresStore {
    node: Arc<Node>,
    pool: Arc<Pool>,
    locks: Arc<KeyLocks<OpenTransaction>>,
    runner: Runner,
    runtime: Mutex<Option<Runtime>>,
    exporter: Arc<Mutex<Exporter>>,
    secret: [u8; 32],
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("node", &self.node.settings.node)
            .finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects, makes the tables or brings them to this version, and starts to follow the other nodes.
    ///
    /// `sink` takes the audit lines; close the store before it.
    ///
    /// # Errors
    /// The connection string is not understood, the database does not answer within 10 seconds, or its tables were made by
    /// a newer version.
    pub fn open(settings: PostgresSettings, sink: AuditSink) -> Result<Self, StoreOpenError> {
        Self::try_open(settings, sink).map_err(|error| StoreOpenError::new("state database", error))
    }

    fn try_open(settings: PostgresSettings, sink: AuditSink) -> Result<Self, OpenDatabaseError> {
        let address = Address::parse(&settings.dsn).map_err(OpenDatabaseError::Address)?;
        let interval = settings.poll_interval;
        if settings.connections == 0
            || interval.is_zero()
            || interval >= settings.revocation_staleness
        {
            return Err(OpenDatabaseError::Settings);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("authz-postgres")
            .enable_all()
            .build()
            .map_err(OpenDatabaseError::Threads)?;
        let runner = Runner(runtime.handle().clone());
        let deadline = after(START);
        let opened = Self::start(settings, sink, address, &runner, deadline);
        match opened {
            Ok((node, pool, exporter, secret)) => Ok(Self {
                node,
                pool,
                locks: KeyLocks::new(),
                runner,
                runtime: Mutex::new(Some(runtime)),
                exporter,
                secret,
            }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "taken apart at once")]
    fn start(
        settings: PostgresSettings,
        sink: AuditSink,
        address: Address,
        runner: &Runner,
        deadline: Instant,
    ) -> Result<(Arc<Node>, Arc<Pool>, Arc<Mutex<Exporter>>, [u8; 32]), OpenDatabaseError> {
        let to_migrate = address.clone();
        let secret = runner.wait(deadline, async move { sql::migrate(&to_migrate).await })??;
        let connections = settings.connections;
        let node = Arc::new(Node::new(settings));
        let pool = Arc::new(Pool::new(address.clone(), connections, runner.clone()));
        let of_exporter = Arc::clone(&node);
        let exporter = Exporter::start(sink, Box::new(move |lines| of_exporter.synced(lines)))
            .map_err(OpenDatabaseError::Threads)?;
        let exporter = Arc::new(Mutex::new(exporter));
        let follow = node::follow(Arc::clone(&node), address.clone(), Arc::clone(&pool));
        runner.clone().spawn(follow);
        runner.clone().spawn(node::tidy(Arc::clone(&node), address, Arc::clone(&exporter)));
        node.wait_until_followed(deadline)?;
        Ok((node, pool, exporter, secret))
    }

    /// Reads outside of a transaction; once again where the connection turns out to be closed.
    fn ask<T, F>(
        &self,
        deadline: Instant,
        ask: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send + 'static,
    {
        for _ in 0..=self.node.settings.connections {
            let lease = self.pool.acquire(deadline)?;
            let connection = lease.connection()?;
            match self.runner.wait(deadline, ask(Arc::clone(&connection)))? {
                Ok(answer) => {
                    lease.give_back();
                    return Ok(answer);
                }
                Err(_) if connection.is_closed() => {}
                Err(trouble) => return Err(trouble.into_store_error()),
            }
        }
        Err(StoreError::unavailable("its connections break"))
    }

    /// Begins a transaction with all its locks, and hears the news.
    fn begin(&self, locks: &[RecordKey], deadline: Instant) -> Result<OpenTransaction, StoreError> {
        let numbers = lock_numbers(locks);
        let is_read = |key: &&RecordKey| {
            let kinds = [
                RecordKind::Session,
                RecordKind::Agent,
                RecordKind::Subject,
                RecordKind::Object,
                RecordKind::Pair,
            ];
            kinds.contains(&key.kind) && is_id(&key.id)
        };
        let ahead: Vec<String> =
            locks.iter().filter(is_read).map(|key| key.id.to_string()).collect();
        for _ in 0..=self.node.settings.connections {
            let lease = self.pool.acquire(deadline)?;
            let connection = lease.connection()?;
            let cursor = self.node.cursor()?;
            if connection.server != cursor.server {
                self.node.lost.notify_one();
                self.pool.renew();
                return Err(StoreError::unavailable("it is failing over"));
            }
            let ms = millis_until(deadline);
            let (numbers, wanted) = (numbers.clone(), ahead.clone());
            let (of_task, snapshot) = (Arc::clone(&connection), Arc::clone(&cursor.snapshot));
            let begun = self.runner.wait(deadline, async move {
                of_task.begin(ms, numbers, &snapshot, wanted).await
            })?;
            match begun {
                Ok((news, ahead)) => {
                    self.check_session(cursor.session)?;
                    self.node.hear(&news);
                    let known = ahead.into_iter().map(|(key, record)| (key, Some(record)));
                    let session = cursor.session;
                    return Ok(OpenTransaction::new(
                        lease,
                        connection,
                        session,
                        known.collect(),
                        deadline,
                    ));
                }
                Err(_) if connection.is_closed() => {}
                Err(trouble) => {
                    lease.roll_back();
                    return Err(trouble.into_store_error());
                }
            }
        }
        Err(StoreError::unavailable("its connections break"))
    }

    /// Goes on in a transaction that another began, with the news since.
    fn join(
        &self,
        mut open: OpenTransaction,
        deadline: Instant,
    ) -> Result<OpenTransaction, StoreError> {
        let cursor = self.node.cursor()?;
        let (of_task, ms) = (Arc::clone(&open.connection), millis_until(deadline));
        let news = self
            .runner
            .wait(deadline, async move { of_task.join(ms, &cursor.snapshot).await })?
            .map_err(Trouble::into_store_error)?;
        self.check_session(open.session)?;
        self.node.hear(&news);
        open.deadline = open.deadline.max(deadline);
        Ok(open)
    }

    fn check_session(&self, session: u64) -> Result<(), StoreError> {
        if self.node.cursor()?.session != session {
            return Err(StoreError::unavailable("it was lost meanwhile"));
        }
        Ok(())
    }

    fn try_transact(
        &self,
        locks: &[RecordKey],
        deadline: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError> {
        self.node.check_fresh()?;
        // Within this node, a caller waits for a key without a connection, and may continue the transaction of another caller.
        let (guard, open) = loop {
            let (guard, unfinished) = self.locks.acquire(locks, deadline)?;
            let hurries = deadline.saturating_duration_since(now()) < HURRY;
            match unfinished {
                None => break (guard, self.begin(locks, deadline)?),
                // Whose time runs out in it would spoil it for those before.
                Some(open) if hurries && !open.members.is_empty() => {
                    self.commit_for_all(guard, open);
                }
                Some(open) => break (guard, self.join(open, deadline)?),
            }
        };
        let mut running = PostgresTransaction {
            store: self,
            open,
            deadline,
            changes: BTreeMap::new(),
            lines: Vec::new(),
        };
        let outcome = match work(&mut running) {
            Ok(true) if now() >= deadline => Err(StoreError::Slow),
            outcome => outcome,
        };
        let PostgresTransaction { mut open, changes, lines, .. } = running;
        let gave_up = matches!(outcome, Ok(false));
        let changed = match outcome {
            Ok(true) => self.take(&mut open, changes, lines),
            Ok(false) => Ok(false),
            Err(error) => Err(error),
        };
        match changed {
            Err(error) => {
                self.pass_on(guard, open);
                Err(error)
            }
            // All records that were read are committed, and so durable, except changes of earlier members of this transaction.
            Ok(false) if gave_up || open.members.is_empty() => {
                self.pass_on(guard, open);
                Ok(Commit::Done)
            }
            Ok(_) => {
                let (settle, ticket) = pair();
                open.members.push(settle);
                match self.hand_on(guard, open) {
                    None => {}
                    Some((guard, open)) if open.members.len() == 1 => {
                        return self.commit_alone(guard, open, deadline);
                    }
                    Some((guard, open)) => self.commit_for_all(guard, open),
                }
                Ok(Commit::Pending(ticket))
            }
        }
    }

    /// Takes what one has changed, within the bounds. Returns whether that is anything.
    fn take(
        &self,
        open: &mut OpenTransaction,
        changes: BTreeMap<RecordKey, Option<Record>>,
        mut lines: Vec<Vec<u8>>,
    ) -> Result<bool, StoreError> {
        if changes.is_empty() && lines.is_empty() {
            return Ok(false);
        }
        let bounds = &self.node.settings.bounds;
        bounds.check_changes(changes.keys(), &lines)?;
        self.node.check_outbox(open.lines.iter().chain(&lines))?;
        let mut puts = Vec::with_capacity(changes.len());
        for (key, record) in &changes {
            if let Some(record) = record {
                let put = put(key, record)?;
                bounds.check_record(put.body.len())?;
                puts.push(put);
            }
        }
        self.check_counts(open, &changes)?;
        for (key, record) in changes {
            open.puts.remove(&key);
            open.changes.insert(key, record);
        }
        open.puts.extend(puts.into_iter().map(|put| (put.key.clone(), put)));
        open.lines.append(&mut lines);
        Ok(true)
    }

    fn check_counts(
        &self,
        open: &mut OpenTransaction,
        changes: &BTreeMap<RecordKey, Option<Record>>,
    ) -> Result<(), StoreError> {
        let bounds = &self.node.settings.bounds;
        for kind in RecordKind::ALL {
            let of_kind = |gone: bool| {
                let before = open.changes.iter().filter(|(key, _)| !changes.contains_key(*key));
                let all = before.chain(changes).filter(move |(_, record)| record.is_none() == gone);
                all.map(|(key, _)| key).filter(move |key| key.kind == kind)
            };
            let is_known = |key: &&RecordKey| matches!(open.known.get(*key), Some(Some(_)));
            let new: Vec<String> =
                of_kind(false).filter(|key| !is_known(key)).map(|key| key.id.to_string()).collect();
            if new.is_empty() {
                continue;
            }
            // Nodes count now and then. Only where that comes near the bound is it counted here.
            let near = bounds.of(kind) / 10 * 9;
            let count = self.node.count(kind).map(|count| count.saturating_add(new.len()));
            if count.is_some_and(|count| count <= near) {
                continue;
            }
            let gone: Vec<String> = of_kind(true).map(|key| key.id.to_string()).collect();
            let (connection, number) = (Arc::clone(&open.connection), kind.number());
            let counted = async move { connection.count_with(number, new, gone).await };
            let counted = self.runner.wait(open.deadline, counted);
            let counted = counted.and_then(|count| count.map_err(Trouble::into_store_error));
            open.is_broken |= counted.is_err();
            bounds.check_count(kind, usize::try_from(counted?).unwrap_or(usize::MAX))?;
        }
        Ok(())
    }

    /// Lets the next one who waits for the same keys go on in the same transaction. Gives both back where there is none.
    fn hand_on(
        &self,
        guard: KeyGuard<OpenTransaction>,
        open: OpenTransaction,
    ) -> Option<(KeyGuard<OpenTransaction>, OpenTransaction)> {
        if open.may_grow() { guard.hand_on(open).err() } else { Some((guard, open)) }
    }

    /// Ends one's part in a transaction without having changed anything.
    fn pass_on(&self, guard: KeyGuard<OpenTransaction>, open: OpenTransaction) {
        if open.is_broken {
            // The drop tells the members that changed records before, and closes the connection.
            return;
        }
        if let Some((guard, open)) = self.hand_on(guard, open) {
            if open.members.is_empty() {
                open.lease.roll_back();
            } else {
                self.commit_for_all(guard, open);
            }
        }
    }

    /// Commits what a single one has changed, and waits for it.
    fn commit_alone(
        &self,
        guard: KeyGuard<OpenTransaction>,
        mut open: OpenTransaction,
        deadline: Instant,
    ) -> Result<Commit, StoreError> {
        open.members.clear();
        let (node, exporter) = (Arc::clone(&self.node), Arc::clone(&self.exporter));
        // Without an answer nobody knows: the connection is closed.
        self.runner.wait(deadline, async move {
            let outcome = open.commit(&node, &exporter).await;
            drop(guard);
            outcome
        })??;
        Ok(Commit::Done)
    }

    /// Commits what several have changed. Each waits for it by itself.
    fn commit_for_all(&self, guard: KeyGuard<OpenTransaction>, mut open: OpenTransaction) {
        let (node, exporter) = (Arc::clone(&self.node), Arc::clone(&self.exporter));
        self.runner.clone().spawn(async move {
            let members = std::mem::take(&mut open.members);
            node.count_commits(members.len().saturating_sub(1));
            let deadline = tokio::time::Instant::from_std(open.deadline);
            let commit = tokio::time::timeout_at(deadline, open.commit(&node, &exporter));
            let outcome = match commit.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(StoreError::Slow | StoreError::Unknown(_))) | Err(_) => {
                    Err(AuditError::Late)
                }
                Ok(Err(error)) => {
                    node.fail(&error);
                    Err(AuditError::Failed)
                }
            };
            drop(guard);
            for settle in members {
                settle.settle(outcome);
            }
        });
    }
}

impl Store for PostgresStore {
    fn is_remote(&self) -> bool {
        true
    }

    fn may_wait(&self, _key: &RecordKey) -> bool {
        true
    }

    fn peek(&self, key: &RecordKey, deadline: Instant) -> Result<Option<Record>, StoreError> {
        self.node.check_fresh()?;
        if !is_id(&key.id) {
            return Ok(None);
        }
        if let Some(record) = self.node.ready(key) {
            return Ok(Some(record));
        }
        let since = self.node.stripe(&key.id);
        let record = self.ask(deadline, |connection| {
            let key = key.clone();
            async move { connection.read(&key).await }
        })?;
        if let Some(record) = &record {
            self.node.keep(record, since);
        }
        Ok(record)
    }

    fn find(
        &self,
        query: &Query,
        page: &Page,
        deadline: Instant,
    ) -> Result<Vec<Record>, StoreError> {
        self.node.check_fresh()?;
        let most = rows(query::most(page));
        let found = self.ask(deadline, |connection| {
            let (query, after) = (query.clone(), page.after.clone());
            async move { connection.find(&query, &after, most).await }
        })?;
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    fn transact(
        &self,
        locks: &[RecordKey],
        // A commit of the database survives both a crash and a loss of power.
        _survives: Survives,
        deadline: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError> {
        let outcome = self.try_transact(locks, deadline, work);
        if let Err(error) = &outcome {
            self.node.fail(error);
            if sql::is_read_only(error) {
                self.node.lost.notify_one();
                self.pool.renew();
            }
        }
        outcome
    }

    fn revocations(&self) -> Arc<Revocations> {
        self.node.revoked()
    }

    fn breakglasses(&self) -> Arc<Breakglasses> {
        self.node.breakglasses()
    }

    fn take_changed_approvals(&self) -> Option<BTreeSet<Box<str>>> {
        self.node.take_changed_approvals()
    }

    fn check_clock(&self) -> Result<(), StoreError> {
        self.node.check_clock()
    }

    fn staleness(&self) -> Duration {
        self.node.staleness()
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    fn health(&self) -> StoreHealth {
        self.node.health()
    }

    fn close(&self) {
        if self.node.close() {
            return;
        }
        self.exporter.lock().ignore_poison().close();
        let deadline = after(END);
        if let Ok(lease) = self.pool.acquire(deadline)
            && let Ok(connection) = lease.connection()
        {
            let node = Arc::clone(&self.node);
            let forget = async move { node::forget_lines(&node, &connection).await };
            drop(self.runner.wait(deadline, forget));
        }
        self.pool.renew();
        let runtime = self.runtime.lock().ignore_poison().take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.close();
    }
}

struct PostgresTransaction<'a> {
    store: &'a PostgresStore,
    open: OpenTransaction,
    deadline: Instant,
    changes: BTreeMap<RecordKey, Option<Record>>,
    lines: Vec<Vec<u8>>,
}

impl PostgresTransaction<'_> {
    /// Asks the database. What fails there, fails for all who share the transaction.
    fn wait<T: Send + 'static>(
        &mut self,
        asked: impl Future<Output = Result<T, Trouble>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = self.store.runner.wait(self.deadline, asked);
        let answer = answer.and_then(|answer| answer.map_err(Trouble::into_store_error));
        self.open.is_broken |= answer.is_err();
        answer
    }
}

impl Transaction for PostgresTransaction<'_> {
    fn get(&mut self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        if now() >= self.deadline {
            return Err(StoreError::Slow);
        }
        if let Some(changed) = self.changes.get(key) {
            return Ok(changed.clone());
        }
        if let Some(known) = self.open.changes.get(key).or_else(|| self.open.known.get(key)) {
            return Ok(known.clone());
        }
        if !is_id(&key.id) {
            return Ok(None);
        }
        let (connection, asked) = (Arc::clone(&self.open.connection), key.clone());
        let record = self.wait(async move { connection.read(&asked).await })?;
        self.open.known.insert(key.clone(), record.clone());
        Ok(record)
    }

    fn find(&mut self, query: &Query, page: &Page) -> Result<Vec<Record>, StoreError> {
        if now() >= self.deadline {
            return Err(StoreError::Slow);
        }
        let mut changes = self.open.changes.clone();
        changes.extend(self.changes.clone());
        // The changes of this transaction hide at most as many rows.
        let most = rows(query::most(page).saturating_add(changes.len()));
        let connection = Arc::clone(&self.open.connection);
        let (of_task, after) = (query.clone(), page.after.clone());
        let found = self.wait(async move { connection.find(&of_task, &after, most).await })?;
        let mut stored = Vec::with_capacity(found.len());
        for (key, record) in found {
            if !changes.contains_key(&key) {
                stored.push(record.clone());
            }
            self.open.known.entry(key).or_insert(Some(record));
        }
        Ok(query::merged(stored, &changes, query, page))
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

fn after(wait: Duration) -> Instant {
    now().checked_add(wait).unwrap_or_else(now)
}

fn millis_until(deadline: Instant) -> u128 {
    deadline.saturating_duration_since(now()).as_millis().max(1)
}

fn rows(most: usize) -> i64 {
    i64::try_from(most.min(MAX_PAGE.saturating_mul(2))).unwrap_or(i64::MAX)
}

/// The locks of the database that stand for keys, in the order in which they are taken.
fn lock_numbers(keys: &[RecordKey]) -> Vec<i64> {
    let number = |key: &RecordKey| {
        let kind = key.kind.number().to_be_bytes();
        let digest = Sha256::new().chain_update(kind).chain_update(&*key.id).finalize();
        digest.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
    };
    let mut numbers: Vec<i64> = keys.iter().map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn put(key: &RecordKey, record: &Record) -> Result<Put, StoreError> {
    let body = String::from_utf8(codec::encode(record)?)
        .map_err(|error| StoreFault::caused_by(error.to_string(), error))
        .map_err(StoreError::Unavailable)?;
    let task: Option<&Task> = match record {
        Record::Task(task) => Some(task),
        _ => None,
    };
    let text = |text: &str| (!text.contains('\0')).then(|| text.to_owned());
    Ok(Put {
        key: key.clone(),
        session: task.and_then(|task| text(&task.session)),
        assignee: task.and_then(|task| text(task.assignee())),
        live: task.is_some_and(|task| task.status == TaskStatus::Active),
        due: record.due(),
        body,
    })
}
