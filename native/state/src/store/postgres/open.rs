//! A transaction that is open in the database. Those who wait for the same keys may share it, one after the other: each
//! reads what those before changed, and all is committed at once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use authz_base::record::{Record, RecordKey, RecordKind};

use super::node::Node;
use super::pool::Lease;
use super::sql::{Connection, Failed, Put, Writes};
use crate::store::StoreError;
use crate::store::outbox::{Exporter, Line};
use crate::ticket::Settle;

/// Most who share a transaction.
const MAX_MEMBERS: usize = 64;
/// Most records that a shared transaction changes.
const MAX_CHANGES: usize = 1000;
/// A transaction that has been open for so long is not shared any further.
const MAX_AGE: Duration = Duration::from_millis(20);

/// Dropped, it is rolled back, and its members are told that nothing was changed.
pub(super) struct Open {
    pub(super) lease: Lease,
    pub(super) connection: Arc<Connection>,
    /// The follower's connection when it began.
    pub(super) session: u64,
    /// What the database holds, as far as it was read.
    pub(super) known: HashMap<RecordKey, Option<Record>>,
    /// What the members changed, not yet written.
    pub(super) changes: BTreeMap<RecordKey, Option<Record>>,
    /// Of that, what is put, as rows.
    pub(super) puts: BTreeMap<RecordKey, Put>,
    pub(super) lines: Vec<Vec<u8>>,
    /// Those who changed something.
    pub(super) members: Vec<Settle>,
    began: Instant,
    /// The latest of those who took part.
    pub(super) deadline: Instant,
    /// The database refused something, and so all of it.
    pub(super) is_broken: bool,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl Open {
    pub(super) fn new(
        lease: Lease,
        connection: Arc<Connection>,
        session: u64,
        known: HashMap<RecordKey, Option<Record>>,
        deadline: Instant,
    ) -> Self {
        Self {
            lease,
            connection,
            session,
            known,
            changes: BTreeMap::new(),
            puts: BTreeMap::new(),
            lines: Vec::new(),
            members: Vec::new(),
            began: Instant::now(),
            deadline,
            is_broken: false,
        }
    }

    /// Whether one more may take part.
    pub(super) fn may_grow(&self) -> bool {
        !self.is_broken
            && self.members.len() < MAX_MEMBERS
            && self.changes.len() < MAX_CHANGES
            && self.began.elapsed() < MAX_AGE
    }

    /// Writes and commits.
    pub(super) async fn commit(
        self,
        node: &Node,
        exporter: &Mutex<Exporter>,
    ) -> Result<(), StoreError> {
        let Self { lease, connection, known, changes, puts, lines, .. } = self;
        let mut writes = Writes { lines, ..Writes::default() };
        for (key, record) in &changes {
            if announces(known.get(key), key, record.as_ref()) {
                writes.announced.push(key.clone());
            }
            if record.is_none() {
                writes.deletes.push(key.clone());
            }
        }
        writes.puts = puts.into_values().collect();
        let numbers = match connection.commit(&writes, &node.settings.node).await {
            Ok(numbers) => numbers,
            Err(Failed::Undone(error)) => return Err(error),
            Err(Failed::Unknown(why)) => {
                node.fail(&StoreError::Unavailable(why));
                return Err(StoreError::Slow);
            }
        };
        drop(connection);
        lease.give_back();
        let lines = numbers.into_iter().zip(writes.lines);
        let line = |(number, bytes): (i64, Vec<u8>)| Line { number, bytes };
        let lines: Vec<Line> = lines.map(line).collect();
        let is_new = |key: &RecordKey| matches!(known.get(key), None | Some(None));
        let changes = changes.iter().map(|(key, record)| (key, record.as_ref(), is_new(key)));
        node.committed(changes, &lines);
        exporter.lock().ignore_poison().push(lines);
        Ok(())
    }
}

/// Whether other nodes must hear of a change at once: of revocations, and of tasks in all but how far they are used.
fn announces(before: Option<&Option<Record>>, key: &RecordKey, record: Option<&Record>) -> bool {
    match (key.kind, before, record) {
        (RecordKind::Revocation, _, _) => true,
        (RecordKind::Task, Some(None), _) => false,
        (RecordKind::Task, Some(Some(Record::Task(before))), Some(Record::Task(task))) => {
            let mut same = (**before).clone();
            same.uses.clone_from(&task.uses);
            same.last_used = task.last_used;
            same != **task
        }
        (RecordKind::Task, _, _) => true,
        _ => false,
    }
}
