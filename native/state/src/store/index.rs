//! Records in memory, with what queries need to find them.
//!
//! A task takes several times the room of its JSON text, so all but those used of late are kept as text.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use authz_kernel::task::{Record, RecordKey, RecordKind, Revocations, TaskStatus};

use super::query::most;
use super::ready::Ready;
use super::{Page, Query, StoreError, codec};

/// Tasks that are kept ready besides their text, in each of two generations.
const READY: usize = 1024;

type Ids = BTreeMap<Arc<str>, Record>;
type Pairs = BTreeSet<(Arc<str>, Arc<str>)>;

/// A record as it is held.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// Ready.
    Ready(Record),
    /// As text, under its key.
    Text(RecordKey, Arc<[u8]>),
}

impl Held {
    /// The record.
    pub(crate) fn read(self) -> Result<Record, StoreError> {
        match self {
            Self::Ready(record) => Ok(record),
            Self::Text(key, text) => codec::decode(&key, &text).map_err(StoreError::Unavailable),
        }
    }
}

/// A task, and where queries find it.
#[derive(Debug)]
struct TaskText {
    text: Arc<[u8]>,
    session: Arc<str>,
    assignee: Arc<str>,
    due: Option<i64>,
    is_live: bool,
}

/// All records of a store.
#[derive(Debug)]
pub(crate) struct Index {
    sessions: Ids,
    tasks: BTreeMap<Arc<str>, TaskText>,
    reservations: Ids,
    idempotencies: Ids,
    revocations: Ids,
    credentials: Ids,
    proofs: Ids,
    signing_keys: Ids,
    leases: Ids,
    agents: Ids,
    subjects: Ids,
    /// Session and task.
    by_session: Pairs,
    /// Assignee and task.
    by_assignee: Pairs,
    /// Assignee and task that is ACTIVE as written.
    live: Pairs,
    due: BTreeSet<(i64, RecordKind, Arc<str>)>,
    revoked: Arc<Revocations>,
    /// INVARIANT (ready): what is here equals its text.
    ready: Mutex<Ready>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            sessions: Ids::default(),
            tasks: BTreeMap::default(),
            reservations: Ids::default(),
            idempotencies: Ids::default(),
            revocations: Ids::default(),
            credentials: Ids::default(),
            proofs: Ids::default(),
            signing_keys: Ids::default(),
            leases: Ids::default(),
            agents: Ids::default(),
            subjects: Ids::default(),
            by_session: Pairs::default(),
            by_assignee: Pairs::default(),
            live: Pairs::default(),
            due: BTreeSet::default(),
            revoked: Arc::default(),
            ready: Mutex::new(Ready::new(READY)),
        }
    }
}

impl Index {
    /// Reads a record.
    pub(crate) fn get(&self, key: &RecordKey) -> Result<Option<Record>, StoreError> {
        if key.kind != RecordKind::Task {
            return Ok(self.of(key.kind).and_then(|ids| ids.get(key.id.as_str())).cloned());
        }
        if let Some(record) = self.ready().get(&key.id) {
            return Ok(Some(record));
        }
        let Some((id, task)) = self.tasks.get_key_value(key.id.as_str()) else { return Ok(None) };
        let record = Held::Text(key.clone(), Arc::clone(&task.text)).read()?;
        self.ready().put(Arc::clone(id), record.clone());
        Ok(Some(record))
    }

    pub(crate) fn has(&self, key: &RecordKey) -> bool {
        match key.kind {
            RecordKind::Task => self.tasks.contains_key(key.id.as_str()),
            kind => self.of(kind).is_some_and(|ids| ids.contains_key(key.id.as_str())),
        }
    }

    /// Sets a record, given with its text, or removes it. Returns what was there.
    pub(crate) fn set(
        &mut self,
        key: &RecordKey,
        record: Option<(Record, Arc<[u8]>)>,
    ) -> Option<Held> {
        match (key.kind, record) {
            (RecordKind::Task, None) => self.remove_task(key),
            (RecordKind::Task, Some((record, text))) => {
                let before = self.load_task(key, &record, text);
                if let Some((id, _)) = self.tasks.get_key_value(key.id.as_str()) {
                    self.ready().put(Arc::clone(id), record);
                }
                before
            }
            (_, record) => self.set_other(key, record.map(|(record, _)| record)).map(Held::Ready),
        }
    }

    /// Sets a record that may not be used soon.
    pub(crate) fn load(&mut self, key: &RecordKey, record: Record, text: &[u8]) {
        if key.kind == RecordKind::Task {
            self.load_task(key, &record, Arc::from(text));
        } else {
            self.set_other(key, Some(record));
        }
    }

    /// Brings back what [`Index::set`] returned.
    pub(crate) fn restore(&mut self, key: &RecordKey, before: Option<Held>) {
        match before {
            None => {
                self.set(key, None);
            }
            Some(Held::Ready(record)) => {
                self.set_other(key, Some(record));
            }
            Some(Held::Text(key, text)) => {
                // It was read before it was written, so it can be read.
                if let Ok(record) = codec::decode(&key, &text) {
                    self.load_task(&key, &record, text);
                }
            }
        }
    }

    fn load_task(&mut self, key: &RecordKey, record: &Record, text: Arc<[u8]>) -> Option<Held> {
        let Record::Task(task) = record else { return None };
        self.ready().forget(&key.id);
        let (due, is_live) = (task.due(), task.status == TaskStatus::Active);
        if let Some(kept) = self.tasks.get_mut(key.id.as_str())
            && kept.due == due
            && kept.is_live == is_live
            && kept.session.as_ref() == task.session
            && kept.assignee.as_ref() == task.assignee()
        {
            let before = std::mem::replace(&mut kept.text, text);
            return Some(Held::Text(key.clone(), before));
        }
        let before = self.remove_task(key);
        let id: Arc<str> = Arc::from(key.id.as_str());
        let session = self.sessions.get_key_value(task.session.as_str());
        let session = session
            .map_or_else(|| Arc::from(task.session.as_str()), |(session, _)| Arc::clone(session));
        let first = (Arc::from(task.assignee()), Arc::from(""));
        let assignee = match self.by_assignee.range(first.clone()..).next() {
            Some((known, _)) if known.as_ref() == task.assignee() => Arc::clone(known),
            _ => first.0,
        };
        if let Some(due) = due {
            self.due.insert((due, RecordKind::Task, Arc::clone(&id)));
        }
        self.by_session.insert((Arc::clone(&session), Arc::clone(&id)));
        self.by_assignee.insert((Arc::clone(&assignee), Arc::clone(&id)));
        if is_live {
            self.live.insert((Arc::clone(&assignee), Arc::clone(&id)));
        }
        self.tasks.insert(id, TaskText { text, session, assignee, due, is_live });
        before
    }

    fn remove_task(&mut self, key: &RecordKey) -> Option<Held> {
        self.ready().forget(&key.id);
        let (id, task) = self.tasks.remove_entry(key.id.as_str())?;
        if let Some(due) = task.due {
            self.due.remove(&(due, RecordKind::Task, Arc::clone(&id)));
        }
        self.by_session.remove(&(task.session, Arc::clone(&id)));
        let pair = (task.assignee, id);
        self.by_assignee.remove(&pair);
        self.live.remove(&pair);
        Some(Held::Text(key.clone(), task.text))
    }

    fn set_other(&mut self, key: &RecordKey, record: Option<Record>) -> Option<Record> {
        let ids = self.of_mut(key.kind)?;
        let (id, before) = ids.remove_entry(key.id.as_str()).unzip();
        let id: Arc<str> = id.unwrap_or_else(|| Arc::from(key.id.as_str()));
        let due = record.as_ref().and_then(Record::due);
        if let Some(record) = record.clone() {
            ids.insert(Arc::clone(&id), record);
        }
        if let Some(due) = before.as_ref().and_then(Record::due) {
            self.due.remove(&(due, key.kind, Arc::clone(&id)));
        }
        if let Some(due) = due {
            self.due.insert((due, key.kind, id));
        }
        match record {
            Some(Record::Revocation(one)) => Arc::make_mut(&mut self.revoked).insert(one),
            None if key.kind == RecordKind::Revocation && before.is_some() => {
                let mut left = Revocations::default();
                for record in self.revocations.values() {
                    if let Record::Revocation(one) = record {
                        left.insert(Arc::clone(one));
                    }
                }
                self.revoked = Arc::new(left);
            }
            _ => {}
        }
        before
    }

    pub(crate) fn count(&self, kind: RecordKind) -> usize {
        match kind {
            RecordKind::Task => self.tasks.len(),
            kind => self.of(kind).map_or(0, BTreeMap::len),
        }
    }

    pub(crate) fn revoked(&self) -> Arc<Revocations> {
        Arc::clone(&self.revoked)
    }

    /// The texts of all records, by kind and id.
    pub(crate) fn all(
        &self,
    ) -> impl Iterator<Item = (RecordKind, &str, Result<Cow<'_, [u8]>, StoreError>)> {
        let others = |kind| {
            self.of(kind)
                .into_iter()
                .flatten()
                .map(move |(id, record)| (kind, id.as_ref(), codec::encode(record).map(Cow::Owned)))
        };
        let tasks = self.tasks.iter().map(|(id, task)| {
            (RecordKind::Task, id.as_ref(), Ok(Cow::Borrowed(task.text.as_ref())))
        });
        tasks.chain(RecordKind::ALL.into_iter().flat_map(others))
    }

    /// What a query finds among the records but those of `hidden`.
    pub(crate) fn find<T>(
        &self,
        query: &Query,
        page: &Page,
        hidden: &BTreeMap<RecordKey, T>,
    ) -> Vec<Held> {
        let shown = |kind: RecordKind, id: &str| {
            hidden.is_empty() || !hidden.contains_key(&RecordKey::new(kind, id))
        };
        let task = |id: &str| {
            let task = self.tasks.get(id).filter(|_| shown(RecordKind::Task, id))?;
            Some(Held::Text(RecordKey::new(RecordKind::Task, id), Arc::clone(&task.text)))
        };
        let most = most(page);
        let pairs = |pairs: &Pairs, first: &str| -> Vec<Held> {
            let from = (Arc::from(first), Arc::from(page.after.as_str()));
            pairs
                .range((Bound::Excluded(from), Bound::Unbounded))
                .take_while(|(one, _)| one.as_ref() == first)
                .filter_map(|(_, id)| task(id))
                .take(most)
                .collect()
        };
        match query {
            Query::Session(session) => pairs(&self.by_session, session),
            Query::LiveOf(agent) => pairs(&self.live, agent),
            Query::TasksOf(agent) => pairs(&self.by_assignee, agent),
            Query::Tasks => self.find_by_id(RecordKind::Task, "", page, &shown),
            Query::Kind(kind) => self.find_by_id(*kind, "", page, &shown),
            Query::Prefix(kind, first) => self.find_by_id(*kind, first, page, &shown),
            Query::DueBefore(before) => self
                .due
                .iter()
                .take_while(|(due, _, _)| due < before)
                .filter_map(|(_, kind, id)| match kind {
                    RecordKind::Task => task(id),
                    _ if !shown(*kind, id) => None,
                    _ => Some(Held::Ready(self.of(*kind)?.get(id.as_ref())?.clone())),
                })
                .take(most)
                .collect(),
        }
    }

    /// Records of a kind whose ids begin with `first`, but for those not `shown`.
    fn find_by_id(
        &self,
        kind: RecordKind,
        first: &str,
        page: &Page,
        shown: &dyn Fn(RecordKind, &str) -> bool,
    ) -> Vec<Held> {
        let after = page.after.as_str();
        let from = if after < first { Bound::Included(first) } else { Bound::Excluded(after) };
        let range = (from, Bound::Unbounded);
        let fits = |id: &str| id.starts_with(first);
        if kind == RecordKind::Task {
            let tasks = self.tasks.range::<str, _>(range).take_while(|(id, _)| fits(id));
            let shown = tasks.filter(|(id, _)| shown(kind, id));
            let held = shown.map(|(id, task)| {
                Held::Text(RecordKey::new(kind, id.as_ref()), Arc::clone(&task.text))
            });
            return held.take(most(page)).collect();
        }
        let Some(ids) = self.of(kind) else { return Vec::new() };
        let records = ids.range::<str, _>(range).take_while(|(id, _)| fits(id));
        let shown = records.filter(|(id, _)| shown(kind, id));
        shown.map(|(_, record)| Held::Ready(record.clone())).take(most(page)).collect()
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn of(&self, kind: RecordKind) -> Option<&Ids> {
        Some(match kind {
            RecordKind::Session => &self.sessions,
            RecordKind::Reservation => &self.reservations,
            RecordKind::Idempotency => &self.idempotencies,
            RecordKind::Revocation => &self.revocations,
            RecordKind::Credential => &self.credentials,
            RecordKind::Proof => &self.proofs,
            RecordKind::SigningKey => &self.signing_keys,
            RecordKind::Lease => &self.leases,
            RecordKind::Agent => &self.agents,
            RecordKind::Subject => &self.subjects,
            RecordKind::Task => return None,
        })
    }

    const fn of_mut(&mut self, kind: RecordKind) -> Option<&mut Ids> {
        Some(match kind {
            RecordKind::Session => &mut self.sessions,
            RecordKind::Reservation => &mut self.reservations,
            RecordKind::Idempotency => &mut self.idempotencies,
            RecordKind::Revocation => &mut self.revocations,
            RecordKind::Credential => &mut self.credentials,
            RecordKind::Proof => &mut self.proofs,
            RecordKind::SigningKey => &mut self.signing_keys,
            RecordKind::Lease => &mut self.leases,
            RecordKind::Agent => &mut self.agents,
            RecordKind::Subject => &mut self.subjects,
            RecordKind::Task => return None,
        })
    }
}
