//! Records in memory, with what queries need to find them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use authz_kernel::task::{Record, RecordKey, RecordKind, Revocations, TaskStatus};

use super::query::most;
use super::{Page, Query};

type Ids = BTreeMap<Arc<str>, Record>;
type Pairs = BTreeSet<(Arc<str>, Arc<str>)>;

/// All records of a store.
#[derive(Debug, Default)]
pub(crate) struct Index {
    sessions: Ids,
    tasks: Ids,
    reservations: Ids,
    idempotencies: Ids,
    revocations: Ids,
    /// Session and task.
    by_session: Pairs,
    /// Assignee and task.
    by_assignee: Pairs,
    /// Assignee and task that is ACTIVE as written.
    live: Pairs,
    due: BTreeSet<(i64, RecordKind, Arc<str>)>,
    revoked: Arc<Revocations>,
}

impl Index {
    pub(crate) fn get(&self, key: &RecordKey) -> Option<&Record> {
        self.of(key.kind)?.get(key.id.as_str())
    }

    /// Sets or removes a record. Returns what was there.
    pub(crate) fn set(&mut self, key: &RecordKey, record: Option<Record>) -> Option<Record> {
        let ids = self.of_mut(key.kind)?;
        if let (Some(kept), Some(record)) = (ids.get_mut(key.id.as_str()), &record)
            && stands_alike(kept, record)
        {
            return Some(std::mem::replace(kept, record.clone()));
        }
        let (id, old) = ids.remove_entry(key.id.as_str()).unzip();
        let id = id.unwrap_or_else(|| Arc::from(key.id.as_str()));
        if let Some(old) = &old {
            self.forget(&id, old);
        }
        if let Some(record) = record {
            self.note(&id, &record);
            if let Some(ids) = self.of_mut(key.kind) {
                ids.insert(id, record);
            }
        } else if key.kind == RecordKind::Revocation && old.is_some() {
            let mut left = Revocations::default();
            for record in self.revocations.values() {
                if let Record::Revocation(one) = record {
                    left.insert(Arc::clone(one));
                }
            }
            self.revoked = Arc::new(left);
        }
        old
    }

    pub(crate) fn count(&self, kind: RecordKind) -> usize {
        self.of(kind).map_or(0, BTreeMap::len)
    }

    pub(crate) fn revoked(&self) -> Arc<Revocations> {
        Arc::clone(&self.revoked)
    }

    /// All records, by kind and id.
    pub(crate) fn all(&self) -> impl Iterator<Item = (RecordKind, &str, &Record)> {
        let kinds = [
            RecordKind::Session,
            RecordKind::Task,
            RecordKind::Reservation,
            RecordKind::Idempotency,
            RecordKind::Revocation,
        ];
        kinds
            .into_iter()
            .filter_map(|kind| Some((kind, self.of(kind)?)))
            .flat_map(|(kind, ids)| ids.iter().map(move |(id, record)| (kind, id.as_ref(), record)))
    }

    /// What a query finds among the records but those of `hidden`.
    pub(crate) fn find<T>(
        &self,
        query: &Query,
        page: &Page,
        hidden: &BTreeMap<RecordKey, T>,
    ) -> Vec<Record> {
        let task = |id: &str| self.tasks.get(id);
        let shown = |kind: RecordKind, id: &str| {
            hidden.is_empty() || !hidden.contains_key(&RecordKey::new(kind, id))
        };
        let most = most(page);
        let pairs = |pairs: &Pairs, first: &str| -> Vec<Record> {
            let from = (Arc::from(first), Arc::from(page.after.as_str()));
            pairs
                .range((Bound::Excluded(from), Bound::Unbounded))
                .take_while(|(one, _)| one.as_ref() == first)
                .filter(|(_, id)| shown(RecordKind::Task, id))
                .filter_map(|(_, id)| task(id))
                .take(most)
                .cloned()
                .collect()
        };
        match query {
            Query::Session(session) => pairs(&self.by_session, session),
            Query::LiveOf(agent) => pairs(&self.live, agent),
            Query::TasksOf(agent) => pairs(&self.by_assignee, agent),
            Query::Tasks => {
                let after = (Bound::Excluded(page.after.as_str()), Bound::Unbounded);
                let all = self.tasks.range::<str, _>(after);
                let all = all.filter(|(id, _)| shown(RecordKind::Task, id));
                all.take(most).map(|(_, record)| record.clone()).collect()
            }
            Query::DueBefore(before) => self
                .due
                .iter()
                .take_while(|(due, _, _)| due < before)
                .filter(|(_, kind, id)| shown(*kind, id))
                .filter_map(|(_, kind, id)| self.of(*kind)?.get(id.as_ref()))
                .take(most)
                .cloned()
                .collect(),
        }
    }

    fn note(&mut self, id: &Arc<str>, record: &Record) {
        if let Some(due) = record.due() {
            self.due.insert((due, record.key().kind, Arc::clone(id)));
        }
        match record {
            Record::Task(task) => {
                let session = self.sessions.get_key_value(task.session.as_str());
                let session = session.map_or_else(
                    || Arc::from(task.session.as_str()),
                    |(session, _)| Arc::clone(session),
                );
                self.by_session.insert((session, Arc::clone(id)));
                let first = (Arc::from(task.assignee()), Arc::from(""));
                let known = self.by_assignee.range(first.clone()..).next();
                let assignee = match known {
                    Some((known, _)) if known.as_ref() == task.assignee() => Arc::clone(known),
                    _ => first.0,
                };
                self.by_assignee.insert((Arc::clone(&assignee), Arc::clone(id)));
                if task.status == TaskStatus::Active {
                    self.live.insert((assignee, Arc::clone(id)));
                }
            }
            Record::Revocation(one) => Arc::make_mut(&mut self.revoked).insert(Arc::clone(one)),
            Record::Session(_) | Record::Reservation(_) | Record::Idempotency(_) => {}
        }
    }

    fn forget(&mut self, id: &Arc<str>, record: &Record) {
        if let Some(due) = record.due() {
            self.due.remove(&(due, record.key().kind, Arc::clone(id)));
        }
        if let Record::Task(task) = record {
            self.by_session.remove(&(Arc::from(task.session.as_str()), Arc::clone(id)));
            let pair = (Arc::from(task.assignee()), Arc::clone(id));
            self.by_assignee.remove(&pair);
            self.live.remove(&pair);
        }
    }

    const fn of(&self, kind: RecordKind) -> Option<&Ids> {
        Some(match kind {
            RecordKind::Session => &self.sessions,
            RecordKind::Task => &self.tasks,
            RecordKind::Reservation => &self.reservations,
            RecordKind::Idempotency => &self.idempotencies,
            RecordKind::Revocation => &self.revocations,
            RecordKind::Agent => return None,
        })
    }

    const fn of_mut(&mut self, kind: RecordKind) -> Option<&mut Ids> {
        Some(match kind {
            RecordKind::Session => &mut self.sessions,
            RecordKind::Task => &mut self.tasks,
            RecordKind::Reservation => &mut self.reservations,
            RecordKind::Idempotency => &mut self.idempotencies,
            RecordKind::Revocation => &mut self.revocations,
            RecordKind::Agent => return None,
        })
    }
}

/// Whether every query finds both in the same place.
fn stands_alike(one: &Record, other: &Record) -> bool {
    match (one, other) {
        (Record::Task(one), Record::Task(other)) => {
            one.due() == other.due()
                && one.status == other.status
                && one.session == other.session
                && one.assignee() == other.assignee()
        }
        (Record::Session(_), Record::Session(_))
        | (Record::Reservation(_), Record::Reservation(_))
        | (Record::Idempotency(_), Record::Idempotency(_)) => one.due() == other.due(),
        _ => false,
    }
}
