//! A transaction that is open in the database. Callers that wait for the same keys may share it, one after the other: each
//! reads the changes of those before, and all changes are committed at once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use authz_base::record::task::TaskStatus;
use authz_base::record::{Record, RecordKey, RecordKind};

use super::node::Node;
use super::pool::PooledConnection;
use super::sql::{Connection, Put, Writes};
use crate::store::StoreError;
use crate::store::outbox::{Exporter, OutboxLine};
use crate::ticket::Settle;
use crate::time::now;

/// Most callers that share a transaction.
const MAX_MEMBERS: usize = 64;
/// Most records that a shared transaction changes.
const MAX_CHANGES: usize = 1000;
/// Age from which a transaction is not shared any further.
const MAX_AGE: Duration = Duration::from_millis(20);

/// An open transaction. Its drop rolls it back, and tells its members that no record changed.
pub(super) struct OpenTransaction {
    pub(super) lease: PooledConnection,
    pub(super) connection: Arc<Connection>,
    /// Number of the follower's connection at its begin.
    pub(super) session: u64,
    /// Records that were read from the database.
    pub(super) known: HashMap<RecordKey, Option<Record>>,
    /// Changes of the members, not yet written.
    pub(super) changes: BTreeMap<RecordKey, Option<Record>>,
    /// Rows of the changed records, without those that are deleted.
    pub(super) puts: BTreeMap<RecordKey, Put>,
    pub(super) lines: Vec<Vec<u8>>,
    /// Callers that changed records.
    pub(super) members: Vec<Settle>,
    began: Instant,
    /// Latest deadline of its callers.
    pub(super) deadline: Instant,
    /// The database refused a statement, and so the whole transaction.
    pub(super) is_broken: bool,
}

impl fmt::Debug for OpenTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTransaction")
            .field("members", &self.members.len())
            .finish_non_exhaustive()
    }
}

impl OpenTransaction {
    pub(super) fn new(
        lease: PooledConnection,
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
            began: now(),
            deadline,
            is_broken: false,
        }
    }

    /// Returns whether another caller may take part.
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
                writes.notifies |= notifies(record.as_ref(), key);
            }
            if record.is_none() {
                writes.deletes.push(key.clone());
            }
        }
        writes.puts = puts.into_values().collect();
        let numbers = match connection.commit(&writes, &node.settings.node).await {
            Ok(numbers) => numbers,
            Err(error) => {
                if matches!(error, StoreError::Unknown(_)) {
                    node.fail(&error);
                }
                return Err(error);
            }
        };
        drop(connection);
        lease.give_back();
        let lines = numbers.into_iter().zip(writes.lines);
        let line = |(number, bytes): (i64, Vec<u8>)| OutboxLine { number, bytes };
        let lines: Vec<OutboxLine> = lines.map(line).collect();
        let is_new = |key: &RecordKey| matches!(known.get(key), None | Some(None));
        let changes = changes.iter().map(|(key, record)| (key, record.as_ref(), is_new(key)));
        node.committed(changes, &lines);
        exporter.lock().ignore_poison().push(lines);
        Ok(())
    }
}

/// Returns whether other nodes must hear of a change: of revocations and break-glass, of tasks except their uses, of further words
/// of a task, which a node reads before it adds to them, and of approvals, for which agents and people wait at any node.
fn announces(before: Option<&Option<Record>>, key: &RecordKey, record: Option<&Record>) -> bool {
    match (key.kind, before, record) {
        (
            RecordKind::Revocation
            | RecordKind::Cutoff
            | RecordKind::Breakglass
            | RecordKind::Approval,
            _,
            _,
        ) => true,
        (RecordKind::Task, Some(None), _) => false,
        (RecordKind::Task, Some(Some(Record::Task(before))), Some(Record::Task(task))) => {
            let mut same = (**before).clone();
            same.uses.clone_from(&task.uses);
            same.last_used = task.last_used;
            same != **task
        }
        (RecordKind::Task, _, _) => true,
        (RecordKind::Words, Some(Some(_)), Some(_)) => true,
        _ => false,
    }
}

/// Returns whether the database notifies other nodes of an announced change when it is committed, so that they read it at once:
/// a revocation, a cut-off, a request for break-glass, an approval, each made, changed or removed, and a task that ended or is gone.
///
/// Commits with a notice wait for each other at the database. So there is none of changes that take no authority away (words,
/// names that were added to a task), and none of tasks that expired, which each node knows from the deadline.
fn notifies(record: Option<&Record>, key: &RecordKey) -> bool {
    match (key.kind, record) {
        (
            RecordKind::Revocation
            | RecordKind::Cutoff
            | RecordKind::Breakglass
            | RecordKind::Approval,
            _,
        )
        | (RecordKind::Task, None) => true,
        (RecordKind::Task, Some(Record::Task(task))) => {
            !matches!(task.status, TaskStatus::Active | TaskStatus::Expired)
        }
        _ => false,
    }
}
