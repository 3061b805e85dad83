//! This node's copy of the records that all nodes share, and the follower that keeps it current.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use authz_base::record::{
    Breakglasses, Cutoff, Record, RecordKey, RecordKind, Revocation, Revocations,
};
use tokio::sync::Notify;

use super::PostgresSettings;
use super::clock::DatabaseClock;
use super::dsn::Address;
use super::pool::Pool;
use super::sql::{Connection, News, Trouble};
use crate::store::outbox::{Exporter, OutboxLine, SentLine, sent_bytes};
use crate::store::ready::Ready;
use crate::store::{StoreError, StoreHealth};
use crate::time::{is_reached, now};

/// Time for a server to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time before a lost connection is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Interval of the checks of the schema and of the clocks.
const CHECK: Duration = Duration::from_secs(2);
/// Least time between two readings of the feed, so that many notices cost few readings.
const GAP: Duration = Duration::from_millis(10);
/// Interval at which lines that no node wrote to an audit file are claimed.
const CLAIM: Duration = Duration::from_secs(5);
/// Interval at which old announcements are removed.
const TRIM: Duration = Duration::from_secs(30);
/// Interval at which records are counted.
const COUNT: Duration = Duration::from_secs(300);
/// Interval at which synced lines are removed.
const FORGET: Duration = Duration::from_millis(200);
/// Changed approvals that are kept for a reader.
const MAX_APPROVALS: usize = 1_024;
/// Invalidations are told apart by so many groups of ids.
const STRIPES: usize = 256;

/// Place in the feed from which a transaction reads the news: the follower's connection, its server, and its last snapshot.
#[derive(Clone, Debug)]
pub(super) struct FeedCursor {
    pub(super) session: u64,
    pub(super) server: i64,
    pub(super) snapshot: Arc<str>,
}

#[derive(Debug)]
struct NodeState {
    cursor: Option<FeedCursor>,
    sessions: u64,
    /// Time from which on the known state was current.
    fresh: Option<Instant>,
    /// The database's clock, as it was last read.
    clock: Option<DatabaseClock>,
    known: BTreeMap<Arc<str>, Arc<Revocation>>,
    revoked: Arc<Revocations>,
    breakglasses: Arc<Breakglasses>,
    ready: Ready,
    /// Words of tasks; they are larger than tasks, so there are fewer.
    ready_words: Ready,
    /// Ids of approvals that changed since they were taken. `None`: some were lost.
    approvals: Option<BTreeSet<Box<str>>>,
    /// Counts, for each group of ids, how often what was known of one of them became wrong.
    stripes: Vec<u64>,
    counts: HashMap<RecordKind, i64>,
    counted: bool,
    last_error: String,
    /// Whether a notice has come on the follower's connection. `None`: there was too little time for one.
    hears: Option<bool>,
    commits: u64,
    failures: u64,
    closed: bool,
    outbox: Outbox,
}

#[derive(Debug, Default)]
struct Outbox {
    /// Numbers of lines that this node takes to its audit file, until their rows are removed.
    ours: HashSet<i64>,
    /// Numbers of those of them that are synced.
    synced: Vec<i64>,
    lines: usize,
    bytes: usize,
}

/// State of this node, shared by its callers and by the follower of other nodes' changes.
pub(super) struct Node {
    state: Mutex<NodeState>,
    followed: Condvar,
    /// Makes the follower connect anew.
    pub(super) lost: Notify,
    pub(super) settings: PostgresSettings,
}

/// This node did not get to follow the others in time; holds the last error.
#[derive(Debug, thiserror::Error)]
#[error("cannot be followed: {0}")]
pub(super) struct NotFollowedError(String);

impl Node {
    pub(super) fn new(settings: PostgresSettings) -> Self {
        let most = settings.cached_tasks.div_ceil(2).max(1);
        let state = NodeState {
            cursor: None,
            sessions: 0,
            fresh: None,
            clock: None,
            known: BTreeMap::new(),
            revoked: Arc::default(),
            breakglasses: Arc::default(),
            ready: Ready::new(most),
            ready_words: Ready::new(most.div_ceil(8)),
            approvals: Some(BTreeSet::new()),
            stripes: vec![0; STRIPES],
            counts: HashMap::new(),
            counted: false,
            last_error: String::new(),
            hears: None,
            commits: 0,
            failures: 0,
            closed: false,
            outbox: Outbox::default(),
        };
        Self { state: Mutex::new(state), followed: Condvar::new(), lost: Notify::new(), settings }
    }

    fn lock(&self) -> MutexGuard<'_, NodeState> {
        self.state.lock().ignore_poison()
    }

    /// Blocks until this node follows the others.
    pub(super) fn wait_until_followed(&self, deadline: Instant) -> Result<(), NotFollowedError> {
        let mut state = self.lock();
        while state.cursor.is_none() {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                return Err(NotFollowedError(state.last_error.clone()));
            }
            state = match self.followed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        Ok(())
    }

    /// Refuses where what is known may be too old.
    pub(super) fn check_fresh(&self) -> Result<(), StoreError> {
        let state = self.lock();
        if state.closed {
            return Err(StoreError::unavailable("it is closed"));
        }
        let age = state.age();
        if age > self.settings.revocation_staleness {
            return Err(StoreError::unavailable(format!(
                "what this node knows is {} ms old: {}",
                age.as_millis(),
                state.last_error
            )));
        }
        state.check_clock(self.settings.clock_tolerance)
    }

    /// Refuses where this node's clock is wrong, or the database's.
    pub(super) fn check_clock(&self) -> Result<(), StoreError> {
        self.lock().check_clock(self.settings.clock_tolerance)
    }

    pub(super) fn cursor(&self) -> Result<FeedCursor, StoreError> {
        let state = self.lock();
        state.cursor.clone().ok_or_else(|| {
            StoreError::unavailable(format!("this node is not connected: {}", state.last_error))
        })
    }

    pub(super) fn staleness(&self) -> Duration {
        self.lock().age()
    }

    pub(super) fn revoked(&self) -> Arc<Revocations> {
        Arc::clone(&self.lock().revoked)
    }

    pub(super) fn breakglasses(&self) -> Arc<Breakglasses> {
        Arc::clone(&self.lock().breakglasses)
    }

    /// A task, or its words, as they are known here. One whose time seems up is asked for again: another node may have used it.
    pub(super) fn ready(&self, key: &RecordKey) -> Option<Record> {
        let record = self.lock().ready_of(key.kind)?.get(&key.id)?;
        let is_over = record.due().is_some_and(is_reached);
        (!is_over).then_some(record)
    }

    /// Number of invalidations in the group of this id: read before the record, given with it.
    pub(super) fn stripe(&self, id: &str) -> u64 {
        self.lock().stripes.get(stripe(id)).copied().unwrap_or(0)
    }

    /// Keeps a task, or its words, that were read, unless something was heard of it since.
    pub(super) fn keep(&self, record: &Record, since: u64) {
        let key = record.key();
        let mut state = self.lock();
        if state.stripes.get(stripe(&key.id)) == Some(&since)
            && let Some(ready) = state.ready_of(key.kind)
        {
            ready.put(key.id, record.clone());
        }
    }

    /// Takes the ids of approvals that changed since the last call. `None`: some were lost.
    pub(super) fn take_changed_approvals(&self) -> Option<BTreeSet<Box<str>>> {
        self.lock().approvals.replace(BTreeSet::new())
    }

    /// Takes what others announced. A transaction's news may be older than the follower's, so they only add.
    pub(super) fn hear(&self, news: &News) {
        let mut state = self.lock();
        for (key, record) in &news.changed {
            state.hear(key, record.as_ref(), false);
        }
    }

    /// Takes what this node committed itself.
    pub(super) fn committed<'a>(
        &self,
        changes: impl Iterator<Item = (&'a RecordKey, Option<&'a Record>, bool)>,
        lines: &[OutboxLine],
    ) {
        let mut state = self.lock();
        state.commits = state.commits.saturating_add(1);
        for (key, record, is_new) in changes {
            let count = state.counts.entry(key.kind).or_default();
            *count = match record {
                Some(_) if is_new => count.saturating_add(1),
                Some(_) => *count,
                None => count.saturating_sub(1),
            };
            state.hear(key, record, true);
            if let (Some(ready), Some(record)) = (state.ready_of(key.kind), record) {
                ready.put(Arc::clone(&key.id), record.clone());
            }
        }
        state.outbox.take(lines);
    }

    /// Counts commits that went with another.
    pub(super) fn count_commits(&self, count: usize) {
        let mut state = self.lock();
        state.commits = state.commits.saturating_add(count as u64);
    }

    /// Approximate number of records of a kind. `None` before the first count.
    pub(super) fn count(&self, kind: RecordKind) -> Option<usize> {
        let state = self.lock();
        let count = state.counts.get(&kind).copied().unwrap_or(0);
        state.counted.then(|| usize::try_from(count).unwrap_or(0))
    }

    /// Refuses lines that would have to wait too long for the audit file.
    pub(super) fn check_outbox<'a>(
        &self,
        lines: impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), StoreError> {
        let (count, bytes) = lines.fold((0_usize, 0_usize), |(count, bytes), line| {
            (count.saturating_add(1), bytes.saturating_add(line.len()))
        });
        if count == 0 {
            return Ok(());
        }
        let state = self.lock();
        self.settings.bounds.check_outbox(
            state.outbox.lines.saturating_add(count),
            state.outbox.bytes.saturating_add(bytes),
        )
    }

    /// Lines have reached the audit file.
    pub(super) fn synced(&self, lines: &[SentLine]) {
        let mut state = self.lock();
        let outbox = &mut state.outbox;
        outbox.lines = outbox.lines.saturating_sub(lines.len());
        outbox.bytes = outbox.bytes.saturating_sub(sent_bytes(lines));
        outbox.synced.extend(lines.iter().map(|line| line.number));
    }

    /// Lines whose rows may go.
    pub(super) fn take_synced(&self) -> Vec<i64> {
        std::mem::take(&mut self.lock().outbox.synced)
    }

    /// Rows are gone, or not.
    pub(super) fn forgot(&self, numbers: Vec<i64>, gone: bool) {
        let mut state = self.lock();
        if gone {
            for number in numbers {
                state.outbox.ours.remove(&number);
            }
        } else {
            state.outbox.synced.extend(numbers);
        }
    }

    pub(super) fn fail(&self, error: &StoreError) {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        if let StoreError::Unavailable(fault) | StoreError::Unknown(fault) = error {
            state.last_error = fault.to_string();
        }
    }

    /// Takes lines to be sent, and leaves those that it has not had yet.
    fn adopt(&self, lines: &mut Vec<OutboxLine>) {
        let mut state = self.lock();
        lines.retain(|line| !state.outbox.ours.contains(&line.number));
        state.outbox.take(lines);
    }

    fn counted(&self, counts: Vec<(i16, i64)>) {
        let mut state = self.lock();
        let known = counts.into_iter();
        state.counts = known
            .filter_map(|(number, count)| Some((RecordKind::from_number(number)?, count)))
            .collect();
        state.counted = true;
    }

    fn note(&self, why: String) {
        self.lock().last_error = why;
    }

    pub(super) fn close(&self) -> bool {
        std::mem::replace(&mut self.lock().closed, true)
    }

    pub(super) fn health(&self) -> StoreHealth {
        let state = self.lock();
        let age = state.age();
        let follows = !state.closed && age <= self.settings.revocation_staleness;
        let count = |kind| {
            let count = state.counts.get(&kind).copied().unwrap_or(0);
            u64::try_from(count).unwrap_or(0)
        };
        StoreHealth {
            engine: "postgresql",
            reachable: follows,
            writable: follows && state.cursor.is_some(),
            last_error: state.last_error.clone(),
            staleness_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            clock_ahead_ms: state.clock.map(|clock| clock.ahead_ms()),
            tasks: count(RecordKind::Task),
            sessions: count(RecordKind::Session),
            reservations: count(RecordKind::Reservation),
            commits: state.commits,
            failures: state.failures,
            queued: 0,
            warnings: if state.hears == Some(false) {
                vec![self.deaf_warning()]
            } else {
                Vec::new()
            },
        }
    }

    fn deaf_warning(&self) -> String {
        format!(
            "no notice of the database reaches this node, so it reads the changes of other nodes only every {} ms; a pooler in \
             between must keep sessions",
            self.settings.poll_interval.as_millis()
        )
    }

    fn note_notices(&self, hears: Option<bool>) {
        self.lock().hears = hears;
    }

    /// Starts anew with all revocations and requests for break-glass: what this node knew may be of another server.
    fn begin(&self, server: i64, news: News, clock: DatabaseClock, at: Instant) {
        let mut state = self.lock();
        state.clock = Some(clock);
        state.known.clear();
        let mut revoked = Revocations::default();
        let mut breakglasses = Breakglasses::default();
        for (key, record) in news.changed {
            match record {
                Some(Record::Revocation(one)) => {
                    revoked.insert(Arc::clone(&one));
                    state.known.insert(key.id, one);
                }
                Some(Record::Breakglass(one)) => breakglasses.insert(one),
                Some(Record::Cutoff(one)) => revoked.insert_cutoff(one),
                _ => {}
            }
        }
        state.revoked = Arc::new(revoked);
        state.breakglasses = Arc::new(breakglasses);
        state.ready.clear();
        state.ready_words.clear();
        state.approvals = None;
        for stripe in &mut state.stripes {
            *stripe = stripe.wrapping_add(1);
        }
        state.sessions = state.sessions.wrapping_add(1);
        let session = state.sessions;
        state.cursor = Some(FeedCursor { session, server, snapshot: Arc::from(news.snapshot) });
        state.fresh = Some(at);
        drop(state);
        self.followed.notify_all();
    }

    /// Takes the follower's news.
    fn follow(&self, news: &News, at: Instant) {
        let mut state = self.lock();
        for (key, record) in &news.changed {
            state.hear(key, record.as_ref(), true);
        }
        if let Some(cursor) = &mut state.cursor {
            cursor.snapshot = Arc::from(news.snapshot.as_str());
        }
        state.fresh = Some(at);
    }

    fn set_clock(&self, clock: DatabaseClock) {
        self.lock().clock = Some(clock);
    }

    fn unfollow(&self, why: String) {
        let mut state = self.lock();
        state.cursor = None;
        state.last_error = why;
    }
}

impl NodeState {
    /// The records of a kind that are kept ready. `None`: those of the kind are read from the database each time.
    const fn ready_of(&mut self, kind: RecordKind) -> Option<&mut Ready> {
        match kind {
            RecordKind::Task => Some(&mut self.ready),
            RecordKind::Words => Some(&mut self.ready_words),
            _ => None,
        }
    }

    fn age(&self) -> Duration {
        self.fresh.map_or(Duration::MAX, |at| at.elapsed())
    }

    fn check_clock(&self, tolerance: Duration) -> Result<(), StoreError> {
        match self.clock.and_then(|clock| clock.problem(tolerance)) {
            Some(problem) => Err(StoreError::unavailable(problem)),
            None => Ok(()),
        }
    }

    fn hear(&mut self, key: &RecordKey, record: Option<&Record>, removes: bool) {
        match (key.kind, record) {
            (RecordKind::Task | RecordKind::Words, _) => {
                if let Some(ready) = self.ready_of(key.kind) {
                    ready.forget(&key.id);
                }
                if let Some(stripe) = self.stripes.get_mut(stripe(&key.id)) {
                    *stripe = stripe.wrapping_add(1);
                }
            }
            (RecordKind::Approval, _) => self.note_approval(&key.id),
            (RecordKind::Revocation, Some(Record::Revocation(one))) => self.revoke(&key.id, one),
            (RecordKind::Revocation, _) if removes && self.known.remove(&key.id).is_some() => {
                let mut left = Revocations::clone(&self.revoked);
                left.clear_revocations();
                for one in self.known.values() {
                    left.insert(Arc::clone(one));
                }
                self.revoked = Arc::new(left);
            }
            (RecordKind::Cutoff, Some(Record::Cutoff(one))) => self.cut_off(one),
            (RecordKind::Cutoff, _) if removes => {
                Arc::make_mut(&mut self.revoked).remove_cutoff(&key.id);
            }
            (RecordKind::Breakglass, Some(Record::Breakglass(one))) => {
                Arc::make_mut(&mut self.breakglasses).insert(Arc::clone(one));
            }
            (RecordKind::Breakglass, _) if removes => {
                Arc::make_mut(&mut self.breakglasses).remove(&key.id);
            }
            _ => {}
        }
    }
}

impl NodeState {
    fn note_approval(&mut self, id: &str) {
        let Some(approvals) = &mut self.approvals else { return };
        approvals.insert(Box::from(id));
        if approvals.len() > MAX_APPROVALS {
            self.approvals = None;
        }
    }

    fn revoke(&mut self, id: &str, one: &Arc<Revocation>) {
        if self.known.get(id) != Some(one) {
            self.known.insert(Arc::from(id), Arc::clone(one));
            Arc::make_mut(&mut self.revoked).insert(Arc::clone(one));
        }
    }
}

impl NodeState {
    /// A transaction's news may be older than the follower's, so a cut-off only moves forward.
    fn cut_off(&mut self, one: &Arc<Cutoff>) {
        if self.revoked.cutoff(&one.id()).is_none_or(|known| known.at <= one.at) {
            Arc::make_mut(&mut self.revoked).insert_cutoff(Arc::clone(one));
        }
    }
}

impl Outbox {
    /// Takes lines, but for those that it has.
    fn take(&mut self, lines: &[OutboxLine]) {
        for line in lines {
            if self.ours.insert(line.number) {
                self.lines = self.lines.saturating_add(1);
                self.bytes = self.bytes.saturating_add(line.bytes.len());
            }
        }
    }
}

fn stripe(id: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or(0)
}

async fn timely<T>(
    patience: Duration,
    future: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(patience, future).await {
        Ok(outcome) => outcome.map_err(Trouble::into_store_error),
        Err(_) => Err(StoreError::Slow),
    }
}

/// Follows what others announce, for ever, on a connection of its own.
pub(super) async fn follow(node: Arc<Node>, address: Address, pool: Arc<Pool>) {
    loop {
        let opened = tokio::time::timeout(PATIENCE, Connection::open(&address)).await;
        let why = match opened {
            Ok(Ok(connection)) => follow_on(&node, &connection).await.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => StoreError::Slow.to_string(),
        };
        node.unfollow(why);
        pool.renew();
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_on(node: &Node, connection: &Connection) -> StoreError {
    let patience = node.settings.revocation_staleness.clamp(Duration::from_secs(1), PATIENCE);
    node.note_notices(None);
    // INVARIANT (no gap): the node listens before it reads everything, so a later commit either is read or is noticed.
    if node.settings.listens
        && let Err(error) = timely(PATIENCE, connection.listen()).await
    {
        return error;
    }
    let at = now();
    let all = match timely(PATIENCE, connection.all_news()).await {
        Ok(all) => all,
        Err(error) => return error,
    };
    let mut snapshot = all.snapshot.clone();
    // INVARIANT (clock): it is known before this node follows, and so before it changes anything.
    match read_clock(connection, patience).await {
        Ok(clock) => node.begin(connection.server, all, clock, at),
        Err(error) => return error,
    }
    let (mut checked, mut read, mut hears) = (now(), at, None);
    loop {
        let left = |since: Instant, every: Duration| every.saturating_sub(since.elapsed());
        let is_noticed = tokio::select! {
            () = connection.noticed.notified() => true,
            () = tokio::time::sleep(left(read, node.settings.poll_interval)) => false,
            () = tokio::time::sleep(left(checked, CHECK)) => false,
            () = node.lost.notified() => {
                return StoreError::unavailable("another server takes changes now");
            }
        };
        if is_noticed {
            if hears != Some(true) {
                hears = Some(true);
                node.note_notices(hears);
            }
            tokio::time::sleep(left(read, GAP)).await;
        }
        if is_noticed || left(read, node.settings.poll_interval).is_zero() {
            read = now();
            match timely(patience, connection.news(&snapshot)).await {
                Ok(news) => {
                    node.follow(&news, read);
                    snapshot = news.snapshot;
                }
                Err(error) => return error,
            }
        }
        if left(checked, CHECK).is_zero() {
            match read_clock(connection, patience).await {
                Ok(clock) => node.set_clock(clock),
                Err(error) => return error,
            }
            checked = now();
            if node.settings.listens && hears.is_none() {
                hears = Some(false);
                node.note_notices(hears);
            }
        }
    }
}

/// Reads the database's clock, and looks whether no newer version has changed the tables.
async fn read_clock(
    connection: &Connection,
    patience: Duration,
) -> Result<DatabaseClock, StoreError> {
    let asked = now();
    let said_ms = timely(patience, connection.check_schema()).await?;
    Ok(DatabaseClock::read(said_ms, asked))
}

/// Tidies up what nodes leave behind, for ever, on a connection of its own.
pub(super) async fn tidy(node: Arc<Node>, address: Address, exporter: Arc<Mutex<Exporter>>) {
    let mut is_first = true;
    loop {
        if let Ok(Ok(connection)) = tokio::time::timeout(PATIENCE, Connection::open(&address)).await
            && let Err(error) = tidy_on(&node, &connection, &exporter, &mut is_first).await
        {
            node.note(error.to_string());
        }
        tokio::time::sleep(RETRY.saturating_mul(5)).await;
    }
}

async fn tidy_on(
    node: &Node,
    connection: &Connection,
    exporter: &Mutex<Exporter>,
    is_first: &mut bool,
) -> Result<(), StoreError> {
    let (mut claimed, mut counted, mut trimmed) = (None, None, None);
    let is_due =
        |last: Option<Instant>, every| last.is_none_or(|last: Instant| last.elapsed() >= every);
    loop {
        forget_lines(node, connection).await?;
        if is_due(claimed, CLAIM) {
            let claim = connection.claim_lines(&node.settings.node, *is_first);
            let mut lines = timely(PATIENCE, claim).await?;
            *is_first = false;
            node.adopt(&mut lines);
            exporter.lock().ignore_poison().push(lines);
            claimed = Some(now());
        }
        if is_due(counted, COUNT) {
            let counts = timely(PATIENCE.saturating_mul(2), connection.counts()).await?;
            node.counted(counts);
            counted = Some(now());
        }
        if is_due(trimmed, TRIM) {
            timely(PATIENCE, async { Ok(connection.trim_feed().await?) }).await?;
            trimmed = Some(now());
        }
        tokio::time::sleep(FORGET).await;
    }
}

/// Removes the rows of lines that are synced.
pub(super) async fn forget_lines(node: &Node, connection: &Connection) -> Result<(), StoreError> {
    let numbers = node.take_synced();
    if numbers.is_empty() {
        return Ok(());
    }
    let forget = async { Ok(connection.forget_lines(numbers.clone()).await?) };
    let outcome = timely(PATIENCE, forget).await;
    node.forgot(numbers, outcome.is_ok());
    outcome
}
