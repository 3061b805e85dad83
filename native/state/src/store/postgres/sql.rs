//! A connection and its statements: all SQL of the store.

use std::error::Error as _;
use std::future::poll_fn;
use std::sync::Arc;

use authz_base::hex::hex;
use authz_base::record::{Record, RecordKey, RecordKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Error, NoTls, Row, Statement};

use super::dsn::Address;
use crate::store::error::text_with_causes;
use crate::store::outbox::OutboxLine;
use crate::store::{MAX_ID_BYTES, Query, StoreError, StoreFault, codec};

/// Each brings the schema one version further; none is ever changed.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];
/// Advisory lock of a migration: `authzmig`.
const MIGRATION_LOCK: i64 = 0x6175_7468_7a6d_6967;
/// A transaction of ours that lies idle is ended by the server: its node stands still.
const IDLE: &str = "10s";
/// Tasks of locked sessions that are read ahead.
const AHEAD: i64 = 64;
/// Most rows that are removed or claimed at once.
pub(super) const MAX_ROWS: i64 = 5000;

/// An error of the server or the connection, as an error of the store.
pub(super) fn store_error(error: Error) -> StoreError {
    let reason = match error.as_db_error() {
        Some(db)
            if [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE].contains(db.code()) =>
        {
            return StoreError::Slow;
        }
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => text_with_causes(&error),
    };
    StoreError::Unavailable(StoreFault::caused_by(reason, error))
}

/// An error of a commit. Where the server did not answer, the connection broke, and the outcome is unknown.
fn commit_error(error: Error) -> StoreError {
    if error.as_db_error().is_some() {
        return store_error(error);
    }
    StoreError::Unknown(StoreFault::caused_by(text_with_causes(&error), error))
}

/// Returns whether the server takes no changes any more: another server does.
pub(super) fn is_read_only(error: &StoreError) -> bool {
    let StoreError::Unavailable(fault) = error else { return false };
    let cause = fault.source().and_then(|cause| cause.downcast_ref::<Error>());
    cause.is_some_and(|cause| cause.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION))
}

/// A connection to the server that takes changes.
pub(super) struct Connection {
    client: Client,
    /// Tells one server from another, and from itself before a restart.
    pub(super) server: i64,
    /// Wakes its waiter after each notice that came on this connection; several notices may wake it once.
    pub(super) noticed: Arc<Notify>,
    /// Channel of the notices of this store. Other schemas of the database have other channels.
    channel: String,
    read: Statement,
    ahead: Statement,
    lock: Statement,
    feed: Statement,
    upsert: Statement,
    delete: Statement,
    announce: Statement,
    notify: Statement,
    audit: Statement,
    by_session: Statement,
    live_of: Statement,
    tasks_of: Statement,
    by_kind: Statement,
    due: Statement,
}

/// Announcements of other nodes, or the whole feed.
#[derive(Debug)]
pub(super) struct News {
    /// Snapshot of the database at the reading.
    pub(super) snapshot: String,
    /// Keys, each with its record where it is a revocation that stands, a cut-off, or a request for break-glass.
    pub(super) changed: Vec<(RecordKey, Option<Record>)>,
}

/// Changes of a transaction.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) puts: Vec<Put>,
    pub(super) deletes: Vec<RecordKey>,
    pub(super) announced: Vec<RecordKey>,
    /// Other nodes read the announcements at once.
    pub(super) notifies: bool,
    pub(super) lines: Vec<Vec<u8>>,
}

/// A record as a row.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) key: RecordKey,
    pub(super) session: Option<String>,
    pub(super) assignee: Option<String>,
    pub(super) live: bool,
    pub(super) due: Option<i64>,
    pub(super) body: String,
}

impl Connection {
    /// Connects to the first server that takes changes.
    pub(super) async fn open(address: &Address) -> Result<Self, StoreError> {
        let noticed = Arc::new(Notify::new());
        let client = connect(address, Arc::clone(&noticed)).await.map_err(store_error)?;
        Self::set_up(client, noticed).await
    }

    async fn set_up(client: Client, noticed: Arc<Notify>) -> Result<Self, StoreError> {
        let fail = store_error;
        client
            .batch_execute(&format!(
                "SET idle_in_transaction_session_timeout = '{IDLE}'; SET statement_timeout = '30s'; \
                 SET default_transaction_isolation = 'read committed'; SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') = 'off'"
            ))
            .await
            .map_err(fail)?;
        let row = client
            .query_one(
                "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
                 pg_is_in_recovery(), (SELECT value FROM authz_meta WHERE key = 'schema'), \
                 'authz_feed_' || 'authz_feed'::regclass::oid",
                &[],
            )
            .await
            .map_err(fail)?;
        let is_standby: bool = get(&row, 1)?;
        if is_standby {
            return Err(StoreError::unavailable("the server is a standby"));
        }
        let version: String = get(&row, 2)?;
        check_version(&version)?;
        let prepare = |sql: &'static str| client.prepare(sql);
        let (read, ahead, lock, feed, upsert, delete, announce, notify, audit) = tokio::try_join!(
            prepare("SELECT kind, id, body FROM authz_records WHERE kind = $1 AND id = $2"),
            prepare(
                "SELECT kind, id, body FROM authz_records WHERE kind IN (1, 2, 11, 12, 13) AND id = ANY($1) \
                 UNION ALL (SELECT kind, id, body FROM authz_records \
                 WHERE kind = 3 AND session = ANY($1) LIMIT $2)"
            ),
            prepare("SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key"),
            prepare(
                "SELECT pg_current_snapshot()::text, f.kind, f.id, r.body FROM (SELECT 1) AS one \
                 LEFT JOIN authz_feed f ON f.xact >= pg_snapshot_xmin($1::text::pg_snapshot) \
                 AND NOT pg_visible_in_snapshot(f.xact, $1::text::pg_snapshot) \
                 LEFT JOIN authz_records r ON f.kind IN (6, 21, 23) AND r.kind = f.kind AND r.id = f.id"
            ),
            prepare(
                "INSERT INTO authz_records (kind, id, session, assignee, live, due, body) \
                 SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[], $4::text[], \
                 $5::boolean[], $6::bigint[], $7::text[]) \
                 ON CONFLICT (kind, id) DO UPDATE SET session = excluded.session, \
                 assignee = excluded.assignee, live = excluded.live, due = excluded.due, \
                 body = excluded.body"
            ),
            prepare(
                "DELETE FROM authz_records WHERE (kind, id) IN \
                 (SELECT * FROM unnest($1::smallint[], $2::text[]))"
            ),
            prepare(
                "INSERT INTO authz_feed (kind, id) SELECT * FROM unnest($1::smallint[], $2::text[])"
            ),
            // The queue of notices belongs to all programs of the server. A full one would fail the commit.
            prepare("SELECT pg_notify($1, '') WHERE pg_notification_queue_usage() < 0.9"),
            prepare(
                "INSERT INTO authz_outbox (node, line) \
                 SELECT $1::text, line FROM unnest($2::bytea[]) WITH ORDINALITY AS of (line, place) \
                 ORDER BY place RETURNING number"
            ),
        )
        .map_err(fail)?;
        let (by_session, live_of, tasks_of, by_kind, due) = tokio::try_join!(
            prepare(
                "SELECT kind, id, body FROM authz_records \
                 WHERE kind = 3 AND session = $1 AND id > $2 ORDER BY id LIMIT $3"
            ),
            prepare(
                "SELECT kind, id, body FROM authz_records WHERE kind = 3 AND live \
                 AND hashtextextended(assignee, 0) = hashtextextended($1::text COLLATE \"C\", 0) \
                 AND assignee = $1 AND id > $2 ORDER BY id LIMIT $3"
            ),
            prepare(
                "SELECT kind, id, body FROM authz_records WHERE kind = 3 \
                 AND hashtextextended(assignee, 0) = hashtextextended($1::text COLLATE \"C\", 0) \
                 AND assignee = $1 AND id > $2 ORDER BY id LIMIT $3"
            ),
            prepare(
                "SELECT kind, id, body FROM authz_records WHERE kind = $1 AND id > $2 \
                 AND id >= $3 AND id < $4 ORDER BY id LIMIT $5"
            ),
            prepare(
                "SELECT kind, id, body FROM authz_records WHERE due < $1 \
                 ORDER BY due, kind, id LIMIT $2"
            ),
        )
        .map_err(fail)?;
        Ok(Self {
            server: get(&row, 0)?,
            channel: get(&row, 3)?,
            noticed,
            client,
            read,
            ahead,
            lock,
            feed,
            upsert,
            delete,
            announce,
            notify,
            audit,
            by_session,
            live_of,
            tasks_of,
            by_kind,
            due,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Begins a transaction that ends by itself after `ms`, takes locks in their order, and reads the news since
    /// `snapshot` and what `wanted` records are likely to be asked for.
    pub(super) async fn begin(
        &self,
        ms: u128,
        locks: Vec<i64>,
        snapshot: &str,
        wanted: Vec<String>,
    ) -> Result<(News, Vec<(RecordKey, Record)>), Trouble> {
        let begin =
            format!("BEGIN; SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}");
        let lock = async {
            if locks.is_empty() {
                Ok(Vec::new())
            } else {
                self.client.query(&self.lock, &[&locks]).await
            }
        };
        let ahead = async {
            if wanted.is_empty() {
                Ok(Vec::new())
            } else {
                self.client.query(&self.ahead, &[&wanted, &AHEAD]).await
            }
        };
        let parameters: [&(dyn ToSql + Sync); 1] = [&snapshot];
        // Sent in one go, in this order: what is read is as it stands once the locks are held.
        let (begun, locked, news, ahead) = tokio::join!(
            biased;
            self.client.batch_execute(&begin),
            lock,
            self.client.query(&self.feed, &parameters),
            ahead,
        );
        begun?;
        locked?;
        Ok((news_of(&news?)?, records_of(&ahead?)?))
    }

    /// Goes on in a transaction, which now ends by itself after `ms`, with the news since `snapshot`.
    pub(super) async fn join(&self, ms: u128, snapshot: &str) -> Result<News, Trouble> {
        let set = format!("SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}");
        let parameters: [&(dyn ToSql + Sync); 1] = [&snapshot];
        let (set, news) = tokio::join!(
            biased;
            self.client.batch_execute(&set),
            self.client.query(&self.feed, &parameters),
        );
        set?;
        news_of(&news?)
    }

    /// Asks the database for the notices of all nodes, and sends one: it comes back unless something in between keeps notices.
    pub(super) async fn listen(&self) -> Result<(), Trouble> {
        self.client.batch_execute(&format!("LISTEN {}", self.channel)).await?;
        self.client.query(&self.notify, &[&self.channel]).await?;
        Ok(())
    }

    /// Announcements since `snapshot`.
    pub(super) async fn news(&self, snapshot: &str) -> Result<News, Trouble> {
        news_of(&self.client.query(&self.feed, &[&snapshot]).await?)
    }

    /// Every revocation that stands, every cut-off, and every request for break-glass.
    pub(super) async fn all_news(&self) -> Result<News, Trouble> {
        self.client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let snapshot = self.client.query_one("SELECT pg_current_snapshot()::text", &[]).await?;
        let rows = self
            .client
            .query(
                "SELECT kind, id, body FROM authz_records WHERE kind IN (6, 21, 23) ORDER BY kind, id",
                &[],
            )
            .await?;
        self.client.batch_execute("COMMIT").await?;
        let changed =
            records_of(&rows)?.into_iter().map(|(key, record)| (key, Some(record))).collect();
        Ok(News { snapshot: get(&snapshot, 0)?, changed })
    }

    pub(super) async fn read(&self, key: &RecordKey) -> Result<Option<Record>, Trouble> {
        let (kind, id) = (key.kind.number(), &*key.id);
        let rows = self.client.query(&self.read, &[&kind, &id]).await?;
        Ok(records_of(&rows)?.pop().map(|(_, record)| record))
    }

    pub(super) async fn find(
        &self,
        query: &Query,
        after: &str,
        most: i64,
    ) -> Result<Vec<(RecordKey, Record)>, Trouble> {
        // No text of the database holds a NUL character; the first that comes after one comes after what is before it.
        let after = after.split('\0').next().unwrap_or_default();
        let (statement, text) = match query {
            Query::Session(text) => (&self.by_session, text),
            Query::LiveOf(text) => (&self.live_of, text),
            Query::TasksOf(text) => (&self.tasks_of, text),
            Query::Tasks => return self.find_by_id(RecordKind::Task, "", after, most).await,
            Query::Kind(kind) => return self.find_by_id(*kind, "", after, most).await,
            Query::Prefix(kind, first) => {
                return self.find_by_id(*kind, first, after, most).await;
            }
            Query::DueBefore(before) => {
                return records_of(&self.client.query(&self.due, &[before, &most]).await?);
            }
        };
        if text.contains('\0') {
            return Ok(Vec::new());
        }
        records_of(&self.client.query(statement, &[text, &after, &most]).await?)
    }

    async fn find_by_id(
        &self,
        kind: RecordKind,
        first: &str,
        after: &str,
        most: i64,
    ) -> Result<Vec<(RecordKey, Record)>, Trouble> {
        if first.contains('\0') {
            return Ok(Vec::new());
        }
        let (kind, beyond) = (kind.number(), beyond(first));
        let parameters: [&(dyn ToSql + Sync); 5] = [&kind, &after, &first, &beyond, &most];
        records_of(&self.client.query(&self.by_kind, &parameters).await?)
    }

    /// Number of records of a kind after all of `ids` are added and all of `gone` are removed.
    pub(super) async fn count_with(
        &self,
        kind: i16,
        ids: Vec<String>,
        gone: Vec<String>,
    ) -> Result<i64, Trouble> {
        let row = self
            .client
            .query_one(
                "SELECT (SELECT count(*) FROM authz_records WHERE kind = $1) \
                 + (SELECT count(*) FROM unnest($2::text[]) AS new (id) WHERE NOT EXISTS \
                 (SELECT FROM authz_records r WHERE r.kind = $1 AND r.id = new.id)) \
                 - (SELECT count(*) FROM authz_records WHERE kind = $1 AND id = ANY ($3))",
                &[&kind, &ids, &gone],
            )
            .await?;
        get(&row, 0).map_err(Trouble::Store)
    }

    /// Writes and commits, in one go. Returns the numbers of the audit lines.
    pub(super) async fn commit(&self, writes: &Writes, node: &str) -> Result<Vec<i64>, StoreError> {
        let puts = &writes.puts;
        let kinds: Vec<i16> = puts.iter().map(|put| put.key.kind.number()).collect();
        let ids: Vec<&str> = puts.iter().map(|put| &*put.key.id).collect();
        let sessions: Vec<Option<&str>> = puts.iter().map(|put| put.session.as_deref()).collect();
        let assignees: Vec<Option<&str>> = puts.iter().map(|put| put.assignee.as_deref()).collect();
        let live: Vec<bool> = puts.iter().map(|put| put.live).collect();
        let due: Vec<Option<i64>> = puts.iter().map(|put| put.due).collect();
        let bodies: Vec<&str> = puts.iter().map(|put| put.body.as_str()).collect();
        let upsert = async {
            if puts.is_empty() {
                return Ok(0);
            }
            let parameters: [&(dyn ToSql + Sync); 7] =
                [&kinds, &ids, &sessions, &assignees, &live, &due, &bodies];
            self.client.execute(&self.upsert, &parameters).await
        };
        let delete = self.with_keys(&self.delete, &writes.deletes);
        let announce = self.with_keys(&self.announce, &writes.announced);
        let notify = async {
            if !writes.notifies {
                return Ok(Vec::new());
            }
            self.client.query(&self.notify, &[&self.channel]).await
        };
        let audit = async {
            if writes.lines.is_empty() {
                return Ok(Vec::new());
            }
            self.client.query(&self.audit, &[&node, &writes.lines]).await
        };
        // Where one of them fails, the server takes COMMIT for ROLLBACK.
        let (put, deleted, announced, notified, lines, committed) = tokio::join!(
            biased;
            upsert,
            delete,
            announce,
            notify,
            audit,
            self.client.batch_execute("COMMIT"),
        );
        put.map_err(commit_error)?;
        deleted.map_err(commit_error)?;
        announced.map_err(commit_error)?;
        notified.map_err(commit_error)?;
        let lines = lines.map_err(commit_error)?;
        committed.map_err(commit_error)?;
        Ok(lines.iter().filter_map(|row| row.try_get(0).ok()).collect())
    }

    async fn with_keys(&self, statement: &Statement, keys: &[RecordKey]) -> Result<u64, Error> {
        if keys.is_empty() {
            return Ok(0);
        }
        let kinds: Vec<i16> = keys.iter().map(|key| key.kind.number()).collect();
        let ids: Vec<&str> = keys.iter().map(|key| &*key.id).collect();
        self.client.execute(statement, &[&kinds, &ids]).await
    }

    pub(super) async fn roll_back(&self) -> Result<(), Error> {
        self.client.batch_execute("ROLLBACK").await
    }

    /// Removes lines that are synced from the outbox.
    pub(super) async fn forget_lines(&self, numbers: Vec<i64>) -> Result<(), Error> {
        self.client
            .execute("DELETE FROM authz_outbox WHERE number = ANY($1)", &[&numbers])
            .await
            .map(|_| ())
    }

    /// Claims lines that nobody got to an audit file: old ones of any node, and with `own` all of this one's.
    pub(super) async fn claim_lines(
        &self,
        node: &str,
        own: bool,
    ) -> Result<Vec<OutboxLine>, Trouble> {
        let rows = self
            .client
            .query(
                "UPDATE authz_outbox SET node = $1, at = now() WHERE number IN (SELECT number \
                 FROM authz_outbox WHERE at < now() - interval '10 seconds' OR node = $1 AND $2 \
                 ORDER BY number LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING number, line",
                &[&node, &own, &MAX_ROWS],
            )
            .await?;
        let line = |row: &Row| Ok(OutboxLine { number: get(row, 0)?, bytes: get(row, 1)? });
        let mut lines: Vec<OutboxLine> =
            rows.iter().map(line).collect::<Result<_, StoreError>>()?;
        lines.sort_by_key(|line| line.number);
        Ok(lines)
    }

    /// Removes announcements that every node has read long since.
    pub(super) async fn trim_feed(&self) -> Result<(), Error> {
        self.client
            .execute(
                "DELETE FROM authz_feed WHERE ctid = ANY (ARRAY(SELECT ctid FROM authz_feed \
                 WHERE at < now() - interval '10 minutes' LIMIT $1 FOR UPDATE SKIP LOCKED))",
                &[&MAX_ROWS],
            )
            .await
            .map(|_| ())
    }

    /// Number of records, by the number of their kind.
    pub(super) async fn counts(&self) -> Result<Vec<(i16, i64)>, Trouble> {
        let rows = self
            .client
            .query("SELECT kind, count(*) FROM authz_records GROUP BY kind", &[])
            .await?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    /// Checks that this version knows the schema. Returns the time of the server, in milliseconds since 1970.
    pub(super) async fn check_schema(&self) -> Result<i64, Trouble> {
        let row = self
            .client
            .query_one(
                "SELECT value, (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
                 FROM authz_meta WHERE key = 'schema'",
                &[],
            )
            .await?;
        let version: String = get(&row, 0)?;
        check_version(&version)?;
        Ok(get(&row, 1)?)
    }
}

/// An error of the server, or of its answer.
#[derive(Debug)]
pub(super) enum Trouble {
    Database(Error),
    Store(StoreError),
}

impl Trouble {
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::Database(error) => store_error(error),
            Self::Store(error) => error,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Failure of a migration.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrationError {
    #[error("{}", message(.0))]
    Database(#[from] Error),
    #[error(transparent)]
    Version(#[from] StoreError),
    #[error("{0}")]
    Random(#[source] getrandom::Error),
    #[error("its secret is not 32 bytes in hex")]
    Secret,
}

/// The server's own message, or the text of a broken connection.
fn message(error: &Error) -> String {
    error.as_db_error().map_or_else(|| text_with_causes(error), |db| db.message().to_owned())
}

/// Makes the schema or brings it to this version. Returns the secret that all nodes share.
pub(super) async fn migrate(address: &Address) -> Result<[u8; 32], MigrationError> {
    let client = connect(address, Arc::default()).await?;
    let version = async |client: &Client| -> Result<Option<String>, Error> {
        let row = client.query_one("SELECT to_regclass('authz_meta') IS NOT NULL", &[]).await?;
        if !row.try_get::<_, bool>(0)? {
            return Ok(None);
        }
        let row =
            client.query_opt("SELECT value FROM authz_meta WHERE key = 'schema'", &[]).await?;
        row.map(|row| row.try_get(0)).transpose()
    };
    let known = MIGRATIONS.len().to_string();
    if version(&client).await?.as_deref() != Some(known.as_str()) {
        client
            .batch_execute(&format!(
                "BEGIN; SET LOCAL lock_timeout = '10s'; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"
            ))
            .await?;
        let from = match version(&client).await? {
            None => 0,
            Some(version) => check_version(&version)?,
        };
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(MigrationError::Random)?;
        let secret = hex(&secret);
        let mut steps = String::new();
        if from == 0 {
            steps.push_str("CREATE TABLE authz_meta (key text PRIMARY KEY, value text NOT NULL);");
            steps.push_str(&format!(
                "INSERT INTO authz_meta VALUES ('schema', '0'), ('secret', '{secret}');"
            ));
        }
        for migration in MIGRATIONS.iter().skip(from) {
            steps.push_str(migration);
            steps.push(';');
        }
        steps.push_str(&format!(
            "UPDATE authz_meta SET value = '{known}' WHERE key = 'schema'; COMMIT"
        ));
        client.batch_execute(&steps).await?;
    }
    let row = client.query_one("SELECT value FROM authz_meta WHERE key = 'secret'", &[]).await?;
    let text: String = row.try_get(0)?;
    let byte = |at: usize| u8::from_str_radix(text.get(at..at.checked_add(2)?)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(MigrationError::Secret)
}

/// The first text that comes after all ids that begin so.
fn beyond(first: &str) -> String {
    let mut text = first.to_owned();
    while let Some(last) = text.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            text.push(next);
            return text;
        }
    }
    // Longer than any id.
    char::MAX.to_string().repeat(MAX_ID_BYTES)
}

/// Connects. Notices that come on the connection wake the waiter of `noticed`.
async fn connect(address: &Address, noticed: Arc<Notify>) -> Result<Client, Error> {
    match &address.tls {
        None => {
            let (client, connection) = address.config.connect(NoTls).await?;
            tokio::spawn(drive(connection, noticed));
            Ok(client)
        }
        Some(tls) => {
            let (client, connection) = address.config.connect(tls.clone()).await?;
            tokio::spawn(drive(connection, noticed));
            Ok(client)
        }
    }
}

/// Moves the bytes of a connection until it ends.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, noticed: Arc<Notify>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if matches!(message, AsyncMessage::Notification(_)) {
            noticed.notify_one();
        }
    }
}

fn check_version(version: &str) -> Result<usize, StoreError> {
    match version.parse() {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(StoreError::unavailable(format!(
            "its schema is version {version}, this authz knows {}; it was written by a newer one",
            MIGRATIONS.len()
        ))),
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    at: usize,
) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| {
        StoreError::Unavailable(StoreFault::caused_by(text_with_causes(&error), error))
    })
}

fn records_of(rows: &[Row]) -> Result<Vec<(RecordKey, Record)>, Trouble> {
    let record = |row: &Row| {
        let number: i16 = get(row, 0)?;
        let id: String = get(row, 1)?;
        let body: &str = get(row, 2)?;
        let key = codec::stored_key(number, id).map_err(StoreError::from)?;
        let record = codec::decode(&key, body.as_bytes()).map_err(StoreError::from)?;
        Ok((key, record))
    };
    rows.iter().map(record).collect()
}

fn news_of(rows: &[Row]) -> Result<News, Trouble> {
    let mut news = News { snapshot: String::new(), changed: Vec::new() };
    for row in rows {
        news.snapshot = get(row, 0)?;
        let number: Option<i16> = get(row, 1)?;
        let (Some(number), Some(id)) = (number, get::<Option<String>>(row, 2)?) else { continue };
        // A newer version announces changes of kinds that this one does not know. They do not concern it.
        let Some(kind) = RecordKind::from_number(number) else { continue };
        let key = RecordKey::new(kind, id);
        let body: Option<&str> = get(row, 3)?;
        let record = body.map(|body| codec::decode(&key, body.as_bytes())).transpose();
        news.changed.push((key, record.map_err(StoreError::from)?));
    }
    if news.snapshot.is_empty() {
        return Err(Trouble::Store(StoreError::unavailable("its feed says nothing")));
    }
    Ok(news)
}
