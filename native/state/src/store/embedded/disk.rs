//! The SQLite file of an embedded store. All of its SQL stands here.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use authz_kernel::task::RecordKey;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use crate::store::index::Index;
use crate::store::outbox::Line;
use crate::store::{StoreError, codec};

/// Marks the file as ours: `AuZS`.
const APPLICATION_ID: i32 = 0x4175_5a53;
/// Each brings the schema one version further; none is ever changed.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/1.sql")];
/// Another connection of this process may hold a lock for so long.
const BUSY: Duration = Duration::from_secs(1);
/// The log of changes is cut back to this size once it is empty.
const KEPT_LOG_BYTES: i64 = 48 * 1024 * 1024;
/// The log of changes is a frame for each page that changed.
const FRAME_BYTES: u64 = 4096;

/// Why the file did not do what it was asked.
pub(super) type DiskError = String;

/// What one write changes.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Bodies, or none for records that go.
    pub(super) records: HashMap<RecordKey, Option<Arc<[u8]>>>,
    /// Audit lines to put in the outbox.
    pub(super) lines: Vec<Line>,
    /// The highest line that left the outbox.
    pub(super) synced: Option<i64>,
    /// The strongest of what is asked.
    pub(super) power_loss: bool,
}

/// What the file holds.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) index: Index,
    pub(super) lines: Vec<Line>,
    pub(super) secret: [u8; 32],
    /// The last process that had it did not close it.
    pub(super) crashed: bool,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Disk {
    connection: Connection,
    path: PathBuf,
    /// Whether each commit is synced.
    synced: bool,
}

impl Disk {
    /// Opens or makes the file, and brings its schema to this version.
    pub(super) fn open(path: &Path, max_pages: Option<u32>) -> Result<Self, DiskError> {
        let connection = connect(path)?;
        let words = |error: rusqlite::Error| words(&error);
        let read = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0));
        let (application, version): (i32, usize) =
            (read("application_id").map_err(words)?, read_version(&connection)?);
        let is_empty: bool = connection
            .query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0))
            .map_err(words)?;
        if !(application == APPLICATION_ID || is_empty && application == 0 && version == 0) {
            return Err("the file was not made by authz".to_owned());
        }
        if version > MIGRATIONS.len() {
            return Err(format!(
                "its schema is version {version}, this authz knows {}; it was written by a newer one",
                MIGRATIONS.len()
            ));
        }
        if let Some(max_pages) = max_pages {
            connection.pragma_update(None, "max_page_count", max_pages).map_err(words)?;
        }
        let mode: String = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
            .map_err(words)?;
        if mode != "wal" {
            return Err(format!("its file system allows journal mode {mode} only, WAL is needed"));
        }
        connection
            .execute_batch(&format!(
                "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; \
                 PRAGMA journal_size_limit={KEPT_LOG_BYTES}; PRAGMA cache_size=-4096"
            ))
            .map_err(words)?;
        let disk = Self { connection, path: path.to_owned(), synced: true };
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
                .map_err(|error| format!("migration to version {version}: {error}"))?;
        }
        Ok(())
    }

    /// Reads all that the file holds. Makes the secret where there is none.
    ///
    /// Args: `resident`: of [`EmbeddedSettings`](super::EmbeddedSettings).
    pub(super) fn load(&self, resident: usize) -> Result<Loaded, DiskError> {
        let words = |error: rusqlite::Error| words(&error);
        let secret = self.secret()?;
        let mut index = Index::new(resident);
        self.each(|key, body| {
            let record = codec::decode(&key, body)?;
            index.load(&key, record, body);
            index.forget(0);
            Ok(())
        })?;
        let mut statement = self
            .connection
            .prepare("SELECT number, line FROM outbox ORDER BY number")
            .map_err(words)?;
        let lines = statement
            .query_map([], |row| Ok(Line { number: row.get(0)?, bytes: row.get(1)? }))
            .and_then(Iterator::collect)
            .map_err(words)?;
        let crashed = self.mark_open()?;
        Ok(Loaded { index, lines, secret, crashed })
    }

    /// Notes that the file is in use. Returns whether that stood there already.
    fn mark_open(&self) -> Result<bool, DiskError> {
        let added =
            self.connection.execute("INSERT OR IGNORE INTO meta VALUES ('open', x'01')", []);
        added.map(|added| added == 0).map_err(|error| words(&error))
    }

    /// Notes that nothing is left to be done, and moves the log of changes to the file.
    pub(super) fn mark_closed(&self) -> Result<(), DiskError> {
        let removed = self.connection.execute("DELETE FROM meta WHERE key = 'open'", []);
        removed.map_err(|error| words(&error))?;
        self.checkpoint()
    }

    fn secret(&self) -> Result<[u8; 32], DiskError> {
        let words = |error: rusqlite::Error| words(&error);
        let kept: Option<Vec<u8>> = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = 'secret'", [], |row| row.get(0))
            .optional()
            .map_err(words)?;
        if let Some(kept) = kept {
            return kept.try_into().map_err(|_| "its secret has another length".to_owned());
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| error.to_string())?;
        self.connection
            .execute("INSERT INTO meta VALUES ('secret', ?1)", params![secret])
            .map_err(words)?;
        Ok(secret)
    }

    /// Calls `visit` with every record, by kind and id.
    fn each(
        &self,
        mut visit: impl FnMut(RecordKey, &[u8]) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let words = |error: rusqlite::Error| words(&error);
        let mut statement = self
            .connection
            .prepare("SELECT kind, id, body FROM records ORDER BY kind, id")
            .map_err(words)?;
        let mut rows = statement.query([]).map_err(words)?;
        while let Some(row) = rows.next().map_err(words)? {
            let number: i16 = row.get(0).map_err(words)?;
            let id: String = row.get(1).map_err(words)?;
            let body = row.get_ref(2).map_err(words)?;
            let body = body.as_blob().map_err(|error| error.to_string())?;
            let kind = codec::kind(number)
                .ok_or_else(|| format!("record `{id}` is of kind {number}, which is unknown"))?;
            visit(RecordKey::new(kind, id), body)?;
        }
        Ok(())
    }

    /// Writes a batch, or nothing of it. After an error it may yet stand in the file: see [`Disk::mend`].
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), DiskError> {
        self.try_write(batch).map_err(|error| words(&error))
    }

    fn try_write(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        if batch.power_loss != self.synced {
            let level = if batch.power_loss { "FULL" } else { "NORMAL" };
            self.connection.pragma_update(None, "synchronous", level)?;
            self.synced = batch.power_loss;
        }
        let transaction = self.connection.transaction()?;
        for (key, body) in &batch.records {
            write_record(&transaction, key, body.as_deref())?;
        }
        {
            let mut insert = transaction.prepare_cached("INSERT INTO outbox VALUES (?1, ?2)")?;
            for line in &batch.lines {
                insert.execute(params![line.number, line.bytes])?;
            }
        }
        if let Some(synced) = batch.synced {
            transaction
                .prepare_cached("DELETE FROM outbox WHERE number <= ?1")?
                .execute(params![synced])?;
        }
        transaction.commit()
    }

    /// Makes the file hold what memory holds, after a failure that left it unknown what was written: opens it again,
    /// writes what differs, and syncs. `last` is the last audit line that was committed.
    pub(super) fn mend(
        path: &Path,
        max_pages: Option<u32>,
        index: &Index,
        last: i64,
    ) -> Result<Self, DiskError> {
        let mut disk = Self::open(path, max_pages)?;
        let mut wrong: BTreeMap<RecordKey, Option<Vec<u8>>> = BTreeMap::new();
        // What memory does not hold was written before, and is left as it is.
        let resident = index.all().filter_map(|(kind, id, body)| Some((kind, id, body?)));
        let mut missing = resident.peekable();
        let owned = |body: Result<Cow<'_, [u8]>, StoreError>| {
            body.map(Cow::into_owned).map_err(|error| error.to_string())
        };
        disk.each(|key, stored| {
            let here = (key.kind, key.id.as_str());
            while let Some((kind, id, body)) = missing.next_if(|(kind, id, _)| (*kind, *id) < here)
            {
                wrong.insert(RecordKey::new(kind, id), Some(owned(body)?));
            }
            match missing.next_if(|(kind, id, _)| (*kind, *id) == here) {
                Some((_, _, body)) => {
                    let known = body.map_err(|error| error.to_string())?;
                    if known.as_ref() != stored {
                        wrong.insert(key, Some(known.into_owned()));
                    }
                }
                None if matches!(index.text(&key), Some((_, None))) => {}
                None => {
                    wrong.insert(key, None);
                }
            }
            Ok(())
        })?;
        for (kind, id, body) in missing {
            wrong.insert(RecordKey::new(kind, id), Some(owned(body)?));
        }
        disk.try_mend(&wrong, last).map_err(|error| words(&error))?;
        Ok(disk)
    }

    fn try_mend(
        &mut self,
        wrong: &BTreeMap<RecordKey, Option<Vec<u8>>>,
        last: i64,
    ) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for (key, body) in wrong {
            write_record(&transaction, key, body.as_deref())?;
        }
        transaction.execute("DELETE FROM outbox WHERE number > ?1", params![last])?;
        // Written in any case: a disk that takes this works again.
        transaction.execute(
            "INSERT INTO meta VALUES ('mended', randomblob(16)) \
             ON CONFLICT (key) DO UPDATE SET value = randomblob(16)",
            [],
        )?;
        transaction.commit()
    }

    /// Moves what the log holds to the file, and cuts the log. Waits for nobody but the disk.
    pub(super) fn checkpoint(&self) -> Result<(), DiskError> {
        checkpoint(&self.connection, "TRUNCATE").map(drop)
    }

    /// Moves what a pass beside the writer left in the log to the file. The next change then begins the log anew, in room that
    /// it has already.
    pub(super) fn checkpoint_rest(&self) -> Result<(), DiskError> {
        checkpoint(&self.connection, "PASSIVE").map(drop)
    }

    /// How large the log of changes is, in bytes.
    pub(super) fn log_bytes(&self) -> u64 {
        let mut path = self.path.as_os_str().to_owned();
        path.push("-wal");
        std::fs::metadata(path).map_or(0, |metadata| metadata.len())
    }
}

/// Reads beside a writer what was committed.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, DiskError> {
        Ok(Self { connection: connect(path)? })
    }

    /// The body of a record; none where it is not there.
    pub(super) fn body(&self, key: &RecordKey) -> Result<Option<Vec<u8>>, DiskError> {
        self.connection
            .prepare_cached("SELECT body FROM records WHERE kind = ?1 AND id = ?2")
            .and_then(|mut statement| {
                let found = params![codec::number(key.kind), key.id];
                statement.query_row(found, |row| row.get(0)).optional()
            })
            .map_err(|error| words(&error))
    }
}

/// Moves what the log of changes holds to the file, beside a writer. Returns how many bytes the log has, about.
pub(super) fn checkpoint_beside(path: &Path) -> Result<u64, DiskError> {
    let connection = connect(path)?;
    checkpoint(&connection, "PASSIVE")
}

/// Returns how many bytes the log has, about.
fn checkpoint(connection: &Connection, mode: &str) -> Result<u64, DiskError> {
    let frames: i64 = connection
        .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get("log"))
        .map_err(|error| words(&error))?;
    Ok(u64::try_from(frames).unwrap_or(0).saturating_mul(FRAME_BYTES))
}

fn connect(path: &Path) -> Result<Connection, DiskError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| words(&error))?;
    let set_up = || {
        connection.busy_timeout(BUSY)?;
        connection.execute_batch(
            "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY",
        )
    };
    set_up().map_err(|error| words(&error))?;
    Ok(connection)
}

fn read_version(connection: &Connection) -> Result<usize, DiskError> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| words(&error))?;
    usize::try_from(version).map_err(|_| format!("its schema is version {version}"))
}

fn write_record(
    connection: &Connection,
    key: &RecordKey,
    body: Option<&[u8]>,
) -> rusqlite::Result<()> {
    let number = codec::number(key.kind);
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

fn words(error: &rusqlite::Error) -> DiskError {
    error.to_string()
}
