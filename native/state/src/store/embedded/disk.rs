//! The SQLite file of an embedded store, with all of its SQL.

use std::io;
use std::path::Path;
use std::time::Duration;

use authz_base::record::RecordKey;
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use thiserror::Error;

use super::batch::RecordBatch;
use super::journal::JournalError;
use crate::store::codec::{self, RecordError};
use crate::store::index::RecordIndex;
use crate::store::outbox::OutboxLine;

/// Marks the file as ours: `AuZS`.
const APPLICATION_ID: i32 = 0x4175_5a53;
/// Each brings the schema one version further; none is ever changed.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];
/// Another connection of this process may hold a lock for so long.
const BUSY: Duration = Duration::from_secs(1);
/// SQLite's own log is cut back to this size once it is empty.
const KEPT_LOG_BYTES: i64 = 16 * 1024 * 1024;

/// Failure of the file.
#[derive(Debug, Error)]
pub(super) enum DiskError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the file was not made by authz")]
    Foreign,
    #[error(
        "its schema is version {version}, this authz knows {}; it was written by a newer one",
        MIGRATIONS.len()
    )]
    NewerSchema { version: usize },
    #[error("its schema is version {0}")]
    Schema(i64),
    #[error("its file system allows journal mode {0} only, WAL is needed")]
    JournalMode(String),
    #[error("migration to version {version}: {source}")]
    Migration { version: usize, source: rusqlite::Error },
    #[error("its secret has another length")]
    SecretLength,
    #[error("{0}")]
    Random(#[source] getrandom::Error),
    #[error("{0}")]
    Body(#[source] FromSqlError),
    #[error("the thread of the checkpoint ended early")]
    CheckpointThread,
}

/// Content of the file.
#[derive(Debug)]
pub(super) struct LoadedState {
    pub(super) index: RecordIndex,
    pub(super) lines: Vec<OutboxLine>,
    pub(super) secret: [u8; 32],
    /// The last process did not close it.
    pub(super) crashed: bool,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Disk {
    connection: Connection,
}

impl Disk {
    /// Opens or makes the file, and brings its schema to this version.
    pub(super) fn open(path: &Path, max_pages: Option<u32>) -> Result<Self, DiskError> {
        let connection = connect(path)?;
        let read = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0));
        let (application, version): (i32, usize) =
            (read("application_id")?, read_version(&connection)?);
        let is_empty: bool =
            connection.query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0))?;
        if !(application == APPLICATION_ID || is_empty && application == 0 && version == 0) {
            return Err(DiskError::Foreign);
        }
        if version > MIGRATIONS.len() {
            return Err(DiskError::NewerSchema { version });
        }
        if let Some(max_pages) = max_pages {
            connection.pragma_update(None, "max_page_count", max_pages)?;
        }
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(DiskError::JournalMode(mode));
        }
        connection
            .execute_batch(&format!(
                "PRAGMA synchronous=FULL; PRAGMA journal_size_limit={KEPT_LOG_BYTES}; PRAGMA cache_size=-4096"
            ))?;
        let disk = Self { connection };
        disk.migrate(version)?;
        Ok(disk)
    }

    fn migrate(&self, from: usize) -> Result<(), DiskError> {
        for (number, migration) in MIGRATIONS.iter().enumerate().skip(from) {
            let version = number.saturating_add(1);
            self.connection
                .execute_batch(&format!(
                    "BEGIN IMMEDIATE; {migration}; PRAGMA application_id={APPLICATION_ID}; \
                     PRAGMA user_version={version}; COMMIT"
                ))
                .map_err(|source| DiskError::Migration { version, source })?;
        }
        Ok(())
    }

    /// Reads the whole file, and makes the secret if there is none. `resident` is that of
    /// [`EmbeddedSettings`](super::EmbeddedSettings).
    pub(super) fn load(&self, resident: usize) -> Result<LoadedState, DiskError> {
        let secret = self.secret()?;
        let mut index = RecordIndex::new(resident);
        self.each(|key, body| {
            let record = codec::decode(&key, body)?;
            index.load(&key, record, body);
            index.forget(0);
            Ok(())
        })?;
        let mut statement =
            self.connection.prepare("SELECT number, line FROM outbox ORDER BY number")?;
        let lines = statement
            .query_map([], |row| Ok(OutboxLine { number: row.get(0)?, bytes: row.get(1)? }))
            .and_then(Iterator::collect)?;
        let crashed = self.mark_open()?;
        Ok(LoadedState { index, lines, secret, crashed })
    }

    /// Notes that the file is in use. Returns whether that stood there already.
    fn mark_open(&self) -> Result<bool, DiskError> {
        let added =
            self.connection.execute("INSERT OR IGNORE INTO meta VALUES ('open', x'01')", []);
        Ok(added? == 0)
    }

    /// Notes that nothing is left to be done, and moves SQLite's own log to the file.
    pub(super) fn mark_closed(&self) -> Result<(), DiskError> {
        self.connection.execute("DELETE FROM meta WHERE key = 'open'", [])?;
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    fn secret(&self) -> Result<[u8; 32], DiskError> {
        let kept: Option<Vec<u8>> = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = 'secret'", [], |row| row.get(0))
            .optional()?;
        if let Some(kept) = kept {
            return kept.try_into().map_err(|_| DiskError::SecretLength);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(DiskError::Random)?;
        self.connection.execute("INSERT INTO meta VALUES ('secret', ?1)", params![secret])?;
        Ok(secret)
    }

    /// Calls `visit` with every record, by kind and id.
    fn each(
        &self,
        mut visit: impl FnMut(RecordKey, &[u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let mut statement =
            self.connection.prepare("SELECT kind, id, body FROM records ORDER BY kind, id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let number: i16 = row.get(0)?;
            let id: String = row.get(1)?;
            let body = row.get_ref(2)?;
            let body = body.as_blob().map_err(DiskError::Body)?;
            visit(codec::stored_key(number, id)?, body)?;
        }
        Ok(())
    }

    /// The generation of the journal up to which this file has all, with it.
    pub(super) fn checkpoint(&self) -> Result<u64, DiskError> {
        let kept: Option<[u8; 8]> = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = 'checkpoint'", [], |row| row.get(0))
            .optional()?;
        Ok(kept.map_or(0, u64::from_be_bytes))
    }

    /// Writes what the journal holds up to a generation, or nothing of it. Doing so once more changes nothing, so that an
    /// error may leave it open which of the two it was.
    pub(super) fn write(&mut self, batch: &RecordBatch, generation: u64) -> Result<(), DiskError> {
        Ok(self.try_write(batch, generation)?)
    }

    fn try_write(&mut self, batch: &RecordBatch, generation: u64) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        // In the order of the file, so that each of its pages is touched once.
        let mut records: Vec<_> = batch.records.iter().collect();
        records.sort_unstable_by_key(|(key, _)| (key.kind.number(), &*key.id));
        for (key, body) in records {
            write_record(&transaction, key, body.as_deref())?;
        }
        {
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO outbox VALUES (?1, ?2)")?;
            for line in &batch.lines {
                insert.execute(params![line.number, line.bytes.as_slice()])?;
            }
        }
        if let Some(synced) = batch.synced {
            transaction
                .prepare_cached("DELETE FROM outbox WHERE number <= ?1")?
                .execute(params![synced])?;
        }
        transaction
            .prepare_cached(
                "INSERT INTO meta VALUES ('checkpoint', ?1) \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )?
            .execute(params![generation.to_be_bytes()])?;
        transaction.commit()
    }
}

/// Reads beside a writer what was committed.
#[derive(Debug)]
pub(super) struct DiskReader {
    connection: Connection,
}

impl DiskReader {
    pub(super) fn open(path: &Path) -> Result<Self, DiskError> {
        Ok(Self { connection: connect(path)? })
    }

    /// The body of a record; none where it is not there.
    pub(super) fn body(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, DiskError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT body FROM records WHERE kind = ?1 AND id = ?2")?;
        let wanted = params![key.kind.number(), key.id];
        Ok(statement.query_row(wanted, |row| row.get(0)).optional()?)
    }
}

fn connect(path: &Path) -> Result<Connection, DiskError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.execute_batch(
        "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY",
    )?;
    Ok(connection)
}

fn read_version(connection: &Connection) -> Result<usize, DiskError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    usize::try_from(version).map_err(|_| DiskError::Schema(version))
}

fn write_record(
    connection: &Connection,
    key: &RecordKey,
    body: Option<&[u8]>,
) -> rusqlite::Result<()> {
    let number = key.kind.number();
    match body {
        Some(body) => connection
            .prepare_cached(
                "INSERT INTO records VALUES (?1, ?2, ?3) \
                 ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
            )?
            .execute(params![number, key.id, body])?,
        None => connection
            .prepare_cached("DELETE FROM records WHERE kind = ?1 AND id = ?2")?
            .execute(params![number, key.id])?,
    };
    Ok(())
}
