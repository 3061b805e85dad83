//! Records in memory, and the indexes by which queries find them.
//!
//! A task or a history takes several times the memory of its JSON text. So only recently used ones are kept as values, and
//! the others as text. Of histories, memory holds those that changed last, and the disk holds the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use authz_base::poison::IgnorePoison as _;
use authz_base::record::task::TaskStatus;
use authz_base::record::{Breakglasses, Record, RecordKey, RecordKind, Revocations};

use super::query::most;
use super::ready::Ready;
use super::{Page, Query, StoreError, codec};

/// Records of a kind that are kept ready besides their text, in each of two generations.
const READY: usize = 1024;
/// Of so many records of words or of values, memory holds one where it would hold all of other kinds: they are so much larger.
const LARGE: usize = 10;
/// Most records of a kind that are left to the disk at once.
const FORGOTTEN: usize = 64;

type Pairs = BTreeSet<(Arc<str>, Arc<str>)>;
type ById<V> = BTreeMap<Arc<str>, V>;

/// Sets an entry, or removes it. Returns its id as the map holds it and the value before; `None` where nothing was there
/// and nothing is set.
fn set_entry<V>(map: &mut ById<V>, id: &Arc<str>, new: Option<V>) -> Option<(Arc<str>, Option<V>)> {
    let Some(new) = new else {
        return map.remove_entry(id).map(|(id, before)| (id, Some(before)));
    };
    let held = map.get_key_value(id).map_or(id, |(held, _)| held);
    let held = Arc::clone(held);
    let before = map.insert(Arc::clone(&held), new);
    Some((held, before))
}

/// A record as it is held.
#[derive(Clone, Debug)]
pub(crate) enum HeldRecord {
    /// Ready.
    Ready(Record),
    /// As text, under its key.
    Text(RecordKey, Arc<[u8]>),
    /// On the disk alone, as the commit of that number left it.
    Cold(RecordKey, u64),
}

impl HeldRecord {
    /// The record.
    ///
    /// `cold` reads a record that is on the disk alone.
    pub(crate) fn read(
        self,
        cold: impl FnOnce(RecordKey, u64) -> Result<Record, StoreError>,
    ) -> Result<Record, StoreError> {
        match self {
            Self::Ready(record) => Ok(record),
            Self::Text(key, text) => decode(&key, &text),
            Self::Cold(key, commit) => cold(key, commit),
        }
    }
}

/// Form in which a record is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexRow {
    pub(crate) is_kept: bool,
    /// The commit that wrote it, where it is on the disk alone.
    pub(crate) cold: Option<u64>,
}

fn decode(key: &RecordKey, text: &[u8]) -> Result<Record, StoreError> {
    codec::decode(key, text).map_err(StoreError::from)
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

/// The text of a record that only its time is looked for by.
#[derive(Debug)]
struct Text {
    /// `None`: it is on the disk alone.
    text: Option<Arc<[u8]>>,
    due: Option<i64>,
    /// The number of the commit that wrote it; 0: it was there before.
    commit: u64,
    /// The commit that it is resident under: one that wrote it, or something before it.
    listed: u64,
}

/// Records of one kind, as text.
#[derive(Debug)]
struct Texts {
    kept: ById<Text>,
    /// Those whose text is in memory, by the commit that wrote it when it was last looked at.
    resident: BTreeSet<(u64, Arc<str>)>,
    /// So many of them.
    most: usize,
    /// INVARIANT (ready): what is here equals its text.
    ready: Mutex<Ready>,
}

impl Texts {
    fn new(most: usize) -> Self {
        Self {
            kept: ById::default(),
            resident: BTreeSet::default(),
            most,
            ready: Mutex::new(Ready::new(READY)),
        }
    }

    fn get(&self, key: &RecordKey) -> Result<Option<HeldRecord>, StoreError> {
        if let Some(record) = self.ready().get(&key.id) {
            return Ok(Some(HeldRecord::Ready(record)));
        }
        let Some((id, kept)) = self.kept.get_key_value(&key.id) else { return Ok(None) };
        let Some(text) = &kept.text else {
            return Ok(Some(HeldRecord::Cold(key.clone(), kept.commit)));
        };
        let record = decode(key, text)?;
        self.ready().put(Arc::clone(id), record.clone());
        Ok(Some(HeldRecord::Ready(record)))
    }

    fn put(&self, id: &str, record: &Record) {
        if let Some((id, _)) = self.kept.get_key_value(id) {
            self.ready().put(Arc::clone(id), record.clone());
        }
    }

    /// Sets a text, or removes it. Returns its id and what was there; none where there is neither.
    fn set(
        &mut self,
        id: &Arc<str>,
        new: Option<Text>,
        record: Option<Record>,
    ) -> Option<(Arc<str>, Option<Text>)> {
        let ready = self.ready.get_mut().ignore_poison();
        let listed = |one: &Text| one.text.as_ref().map(|_| one.listed);
        let commit = new.as_ref().map(|new| new.commit);
        let kept = self.kept.get(id).and_then(listed);
        let new = new.map(|new| Text { listed: kept.unwrap_or(new.listed), ..new });
        let (id, before) = set_entry(&mut self.kept, id, new)?;
        match (before.as_ref().and_then(listed), commit) {
            (None, Some(commit)) => drop(self.resident.insert((commit, Arc::clone(&id)))),
            (Some(listed), None) => drop(self.resident.remove(&(listed, Arc::clone(&id)))),
            // Put right once one has to go.
            _ => {}
        }
        match record {
            Some(record) => ready.put(Arc::clone(&id), record),
            None => ready.forget(&id),
        }
        Some((id, before))
    }

    /// Leaves to the disk what changed longest ago, where it is there by now; a few at a time, since everybody waits.
    fn forget(&mut self, durable: u64) {
        for _ in 0..FORGOTTEN {
            let is_there = self.resident.first().is_some_and(|(commit, _)| *commit <= durable);
            if self.resident.len() <= self.most || !is_there {
                return;
            }
            if let Some((listed, id)) = self.resident.pop_first()
                && let Some(one) = self.kept.get_mut(&id)
            {
                if one.commit == listed {
                    one.text = None;
                } else {
                    // It changed since.
                    one.listed = one.commit;
                    self.resident.insert((one.commit, id));
                }
            }
        }
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().ignore_poison()
    }
}

impl Text {
    fn held(&self, kind: RecordKind, id: &Arc<str>) -> HeldRecord {
        let key = RecordKey { kind, id: Arc::clone(id) };
        match &self.text {
            Some(text) => HeldRecord::Text(key, Arc::clone(text)),
            None => HeldRecord::Cold(key, self.commit),
        }
    }
}

/// All records of a store.
#[derive(Debug)]
pub(crate) struct RecordIndex {
    sessions: Texts,
    tasks: ById<TaskText>,
    agents: Texts,
    subjects: Texts,
    pairs: Texts,
    words: Texts,
    values: Texts,
    /// Records of every other kind, in the order of [`RecordKind::ALL`].
    others: [ById<Record>; RecordKind::ALL.len()],
    /// Session and task.
    by_session: Pairs,
    /// Assignee and task.
    by_assignee: Pairs,
    /// Assignee and task that is ACTIVE as written.
    live: Pairs,
    due: BTreeSet<(i64, RecordKind, Arc<str>)>,
    revoked: Arc<Revocations>,
    breakglasses: Arc<Breakglasses>,
    /// INVARIANT (ready): what is here equals its text.
    ready: Mutex<Ready>,
}

impl RecordIndex {
    /// Empty.
    ///
    /// `most` is the number of sessions, agents, subjects and pairs each whose text is kept in memory. Records of words and of
    /// values are larger, and memory holds fewer of them.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            sessions: Texts::new(most),
            tasks: ById::default(),
            agents: Texts::new(most),
            subjects: Texts::new(most),
            pairs: Texts::new(most),
            words: Texts::new(most.div_ceil(LARGE)),
            values: Texts::new(most.div_ceil(LARGE)),
            others: RecordKind::ALL.map(|_| ById::default()),
            by_session: Pairs::default(),
            by_assignee: Pairs::default(),
            live: Pairs::default(),
            due: BTreeSet::default(),
            revoked: Arc::default(),
            breakglasses: Arc::default(),
            ready: Mutex::new(Ready::new(READY)),
        }
    }

    /// Finds a record.
    pub(crate) fn get(&self, key: &RecordKey) -> Result<Option<HeldRecord>, StoreError> {
        if let Some(texts) = self.texts(key.kind) {
            return texts.get(key);
        }
        if key.kind != RecordKind::Task {
            let record = self.of(key.kind).and_then(|ids| ids.get(&key.id));
            return Ok(record.cloned().map(HeldRecord::Ready));
        }
        if let Some(record) = self.ready().get(&key.id) {
            return Ok(Some(HeldRecord::Ready(record)));
        }
        let Some((id, task)) = self.tasks.get_key_value(&key.id) else { return Ok(None) };
        let record = decode(key, &task.text)?;
        self.ready().put(Arc::clone(id), record.clone());
        Ok(Some(HeldRecord::Ready(record)))
    }

    /// The commit that wrote a record which may be left to the disk, and its text where memory has it.
    pub(crate) fn text(&self, key: &RecordKey) -> Option<(u64, Option<Arc<[u8]>>)> {
        let one = self.texts(key.kind)?.kept.get(&key.id)?;
        Some((one.commit, one.text.clone()))
    }

    /// Form in which a record is kept. `None` if the record does not exist.
    pub(crate) fn known(&self, key: &RecordKey) -> IndexRow {
        let Some(texts) = self.texts(key.kind) else {
            return IndexRow { is_kept: self.has(key), cold: None };
        };
        let one = texts.kept.get(&key.id);
        let cold = one.filter(|one| one.text.is_none()).map(|one| one.commit);
        IndexRow { is_kept: one.is_some(), cold }
    }

    /// Returns whether a record can be read without the disk.
    pub(crate) fn is_at_hand(&self, key: &RecordKey) -> bool {
        let Some(texts) = self.texts(key.kind) else { return true };
        let is_cold = texts.kept.get(&key.id).is_some_and(|one| one.text.is_none());
        !is_cold || texts.ready().get(&key.id).is_some()
    }

    /// Keeps a record that was read from the disk at hand, unless it was written again since.
    pub(crate) fn keep(&self, key: &RecordKey, commit: u64, record: &Record) {
        if let Some(texts) = self.texts(key.kind)
            && texts.kept.get(&key.id).is_some_and(|one| one.commit == commit)
        {
            texts.put(&key.id, record);
        }
    }

    /// Leaves to the disk what need not be in memory.
    ///
    /// `durable` is the last commit that is on the disk.
    pub(crate) fn forget(&mut self, durable: u64) {
        let Self { sessions, agents, subjects, pairs, words, values, .. } = self;
        for texts in [sessions, agents, subjects, pairs, words, values] {
            texts.forget(durable);
        }
    }

    pub(crate) fn has(&self, key: &RecordKey) -> bool {
        let id = &*key.id;
        match (key.kind, self.texts(key.kind)) {
            (_, Some(texts)) => texts.kept.contains_key(id),
            (RecordKind::Task, _) => self.tasks.contains_key(id),
            (kind, _) => self.of(kind).is_some_and(|ids| ids.contains_key(id)),
        }
    }

    /// Sets a record, given with its text, or removes it. Returns what was there.
    ///
    /// `commit` is the number of the commit.
    pub(crate) fn set(
        &mut self,
        key: &RecordKey,
        record: Option<(Record, Arc<[u8]>)>,
        commit: u64,
    ) -> Option<HeldRecord> {
        match (key.kind, record) {
            (RecordKind::Task, None) => self.remove_task(key),
            (RecordKind::Task, Some((record, text))) => {
                let before = self.load_task(key, &record, text);
                if let Some((id, _)) = self.tasks.get_key_value(&key.id) {
                    self.ready().put(Arc::clone(id), record);
                }
                before
            }
            (kind, Some((record, text))) if self.texts(kind).is_some() => {
                let text = Text { text: Some(text), due: record.due(), commit, listed: commit };
                self.set_text(key, Some(text), Some(record))
            }
            (kind, None) if self.texts(kind).is_some() => self.set_text(key, None, None),
            (_, record) => {
                self.set_other(key, record.map(|(record, _)| record)).map(HeldRecord::Ready)
            }
        }
    }

    /// Sets a record that may not be used soon.
    pub(crate) fn load(&mut self, key: &RecordKey, record: Record, text: &[u8]) {
        if key.kind == RecordKind::Task {
            self.load_task(key, &record, Arc::from(text));
        } else if self.texts(key.kind).is_some() {
            let text =
                Text { text: Some(Arc::from(text)), due: record.due(), commit: 0, listed: 0 };
            self.set_text(key, Some(text), None);
        } else {
            self.set_other(key, Some(record));
        }
    }

    /// Brings back what [`Index::set`] returned; what was cold is given as text.
    pub(crate) fn restore(&mut self, key: &RecordKey, before: Option<HeldRecord>) {
        match before {
            // INVARIANT (undo): no commit undoes to a cold record; the caller gives its text.
            None | Some(HeldRecord::Cold(..)) => {
                self.set(key, None, 0);
            }
            Some(HeldRecord::Ready(record)) => {
                self.set_other(key, Some(record));
            }
            Some(HeldRecord::Text(key, text)) => {
                // It was read before it was written, so it can be read.
                if let Ok(record) = codec::decode(&key, &text) {
                    self.load(&key, record, &text);
                }
            }
        }
    }

    /// Sets a text, or removes it. Returns what was there.
    ///
    /// `record` is the decoded text, if it is to be kept ready.
    fn set_text(
        &mut self,
        key: &RecordKey,
        new: Option<Text>,
        record: Option<Record>,
    ) -> Option<HeldRecord> {
        let texts = self.texts_mut(key.kind)?;
        let due = new.as_ref().and_then(|one| one.due);
        let (id, before) = texts.set(&key.id, new, record)?;
        let was_due = before.as_ref().and_then(|one| one.due);
        self.set_due(key.kind, id, was_due, due);
        before.map(|before| before.held(key.kind, &key.id))
    }

    fn set_due(&mut self, kind: RecordKind, id: Arc<str>, was: Option<i64>, due: Option<i64>) {
        if was == due {
            return;
        }
        if let Some(was) = was {
            self.due.remove(&(was, kind, Arc::clone(&id)));
        }
        if let Some(due) = due {
            self.due.insert((due, kind, id));
        }
    }

    fn load_task(
        &mut self,
        key: &RecordKey,
        record: &Record,
        text: Arc<[u8]>,
    ) -> Option<HeldRecord> {
        let Record::Task(task) = record else { return None };
        self.ready().forget(&key.id);
        let (due, is_live) = (task.due(), task.status == TaskStatus::Active);
        if let Some(kept) = self.tasks.get_mut(&key.id)
            && kept.due == due
            && kept.is_live == is_live
            && kept.session.as_ref() == task.session
            && kept.assignee.as_ref() == task.assignee()
        {
            let before = std::mem::replace(&mut kept.text, text);
            return Some(HeldRecord::Text(key.clone(), before));
        }
        let before = self.remove_task(key);
        let id: Arc<str> = Arc::clone(&key.id);
        let session = self.sessions.kept.get_key_value(task.session.as_str());
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

    fn remove_task(&mut self, key: &RecordKey) -> Option<HeldRecord> {
        self.ready().forget(&key.id);
        let (id, task) = self.tasks.remove_entry(&key.id)?;
        if let Some(due) = task.due {
            self.due.remove(&(due, RecordKind::Task, Arc::clone(&id)));
        }
        self.by_session.remove(&(task.session, Arc::clone(&id)));
        let pair = (task.assignee, id);
        self.by_assignee.remove(&pair);
        self.live.remove(&pair);
        Some(HeldRecord::Text(key.clone(), task.text))
    }

    fn set_other(&mut self, key: &RecordKey, record: Option<Record>) -> Option<Record> {
        let due = record.as_ref().and_then(Record::due);
        let (id, before) = set_entry(self.of_mut(key.kind)?, &key.id, record.clone())?;
        let was_due = before.as_ref().and_then(Record::due);
        self.set_due(key.kind, id, was_due, due);
        match record {
            Some(Record::Revocation(one)) => Arc::make_mut(&mut self.revoked).insert(one),
            None if key.kind == RecordKind::Revocation && before.is_some() => {
                let mut left = Revocations::clone(&self.revoked);
                left.clear_revocations();
                for record in self.of(RecordKind::Revocation).into_iter().flat_map(BTreeMap::values)
                {
                    if let Record::Revocation(one) = record {
                        left.insert(Arc::clone(one));
                    }
                }
                self.revoked = Arc::new(left);
            }
            Some(Record::Cutoff(one)) => Arc::make_mut(&mut self.revoked).insert_cutoff(one),
            None if key.kind == RecordKind::Cutoff => {
                Arc::make_mut(&mut self.revoked).remove_cutoff(&key.id);
            }
            Some(Record::Breakglass(one)) => Arc::make_mut(&mut self.breakglasses).insert(one),
            None if key.kind == RecordKind::Breakglass => {
                Arc::make_mut(&mut self.breakglasses).remove(&key.id);
            }
            _ => {}
        }
        before
    }

    pub(crate) fn count(&self, kind: RecordKind) -> usize {
        match (kind, self.texts(kind)) {
            (_, Some(texts)) => texts.kept.len(),
            (RecordKind::Task, _) => self.tasks.len(),
            (kind, _) => self.of(kind).map_or(0, BTreeMap::len),
        }
    }

    pub(crate) fn revoked(&self) -> Arc<Revocations> {
        Arc::clone(&self.revoked)
    }

    pub(crate) fn breakglasses(&self) -> Arc<Breakglasses> {
        Arc::clone(&self.breakglasses)
    }

    /// Result of a query among the records without those of `hidden`.
    pub(crate) fn find<T>(
        &self,
        query: &Query,
        page: &Page,
        hidden: &BTreeMap<RecordKey, T>,
    ) -> Vec<HeldRecord> {
        let shown = |kind: RecordKind, id: &str| {
            hidden.is_empty() || !hidden.contains_key(&RecordKey::new(kind, id))
        };
        let task = |id: &str| {
            let task = self.tasks.get(id).filter(|_| shown(RecordKind::Task, id))?;
            Some(HeldRecord::Text(RecordKey::new(RecordKind::Task, id), Arc::clone(&task.text)))
        };
        let most = most(page);
        let pairs = |pairs: &Pairs, first: &str| -> Vec<HeldRecord> {
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
                    _ => match self.texts(*kind) {
                        Some(texts) => Some(texts.kept.get(id)?.held(*kind, id)),
                        None => Some(HeldRecord::Ready(self.of(*kind)?.get(id)?.clone())),
                    },
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
    ) -> Vec<HeldRecord> {
        let after = page.after.as_str();
        let from = if after < first { Bound::Included(first) } else { Bound::Excluded(after) };
        let range = (from, Bound::Unbounded);
        let fits = |id: &str| id.starts_with(first);
        if kind == RecordKind::Task {
            let tasks = self.tasks.range::<str, _>(range).take_while(|(id, _)| fits(id));
            let shown = tasks.filter(|(id, _)| shown(kind, id));
            let held = shown.map(|(id, task)| {
                HeldRecord::Text(RecordKey::new(kind, id.as_ref()), Arc::clone(&task.text))
            });
            return held.take(most(page)).collect();
        }
        if let Some(texts) = self.texts(kind) {
            let texts = texts.kept.range::<str, _>(range).take_while(|(id, _)| fits(id));
            let shown = texts.filter(|(id, _)| shown(kind, id));
            return shown.map(|(id, one)| one.held(kind, id)).take(most(page)).collect();
        }
        let Some(ids) = self.of(kind) else { return Vec::new() };
        let records = ids.range::<str, _>(range).take_while(|(id, _)| fits(id));
        let shown = records.filter(|(id, _)| shown(kind, id));
        shown.map(|(_, record)| HeldRecord::Ready(record.clone())).take(most(page)).collect()
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().ignore_poison()
    }

    /// The kinds that are kept as text and found by nothing but their time; tasks are found by more.
    const fn texts(&self, kind: RecordKind) -> Option<&Texts> {
        match kind {
            RecordKind::Session => Some(&self.sessions),
            RecordKind::Agent => Some(&self.agents),
            RecordKind::Subject => Some(&self.subjects),
            RecordKind::Pair => Some(&self.pairs),
            RecordKind::Words => Some(&self.words),
            RecordKind::Values => Some(&self.values),
            _ => None,
        }
    }

    const fn texts_mut(&mut self, kind: RecordKind) -> Option<&mut Texts> {
        match kind {
            RecordKind::Session => Some(&mut self.sessions),
            RecordKind::Agent => Some(&mut self.agents),
            RecordKind::Subject => Some(&mut self.subjects),
            RecordKind::Pair => Some(&mut self.pairs),
            RecordKind::Words => Some(&mut self.words),
            RecordKind::Values => Some(&mut self.values),
            _ => None,
        }
    }

    /// Records of a kind that is neither kept as text nor found by more than its time.
    fn of(&self, kind: RecordKind) -> Option<&ById<Record>> {
        if kind == RecordKind::Task || self.texts(kind).is_some() {
            return None;
        }
        self.others.get(kind as usize)
    }

    fn of_mut(&mut self, kind: RecordKind) -> Option<&mut ById<Record>> {
        if kind == RecordKind::Task || self.texts(kind).is_some() {
            return None;
        }
        self.others.get_mut(kind as usize)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use authz_base::record::Session;
    use authz_base::record::history::SessionHistory;
    use authz_base::time::Time;
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 3;

    fn session(id: usize) -> Record {
        Record::Session(Arc::new(Session {
            id: format!("s{id}"),
            root: "t".to_owned(),
            tasks: 1,
            started_at: Time(0),
            expires_at: Time(1),
            ended_at: None,
            denied: false,
            agent: None,
            history: SessionHistory::new(),
            rest: BTreeMap::new(),
        }))
    }

    proptest! {
        /// The records that changed last stay in memory, and no record leaves memory before the disk has it.
        #[test]
        fn what_changed_longest_ago_is_left_to_the_disk(
            steps in prop::collection::vec((0..8_usize, 0..6_u8), 1..120),
        ) {
            let mut index = RecordIndex::new(MOST);
            let mut changed: BTreeMap<usize, u64> = BTreeMap::new();
            let mut cold: BTreeSet<usize> = BTreeSet::new();
            let mut durable = 0;
            for (number, (id, what)) in steps.into_iter().enumerate() {
                let commit = number as u64 + 1;
                let record = session(id);
                let key = record.key();
                match what {
                    0 => durable = commit - 1,
                    1 => {
                        index.set(&key, None, commit);
                        changed.remove(&id);
                        cold.remove(&id);
                    }
                    _ => {
                        let text = Arc::from(codec::encode(&record).unwrap());
                        index.set(&key, Some((record, text)), commit);
                        changed.insert(id, commit);
                        cold.remove(&id);
                    }
                }
                index.forget(durable);
                while changed.len() - cold.len() > MOST {
                    let resident = changed.iter().filter(|(id, _)| !cold.contains(id));
                    let (id, commit) = resident.min_by_key(|(_, commit)| **commit).unwrap();
                    if *commit > durable {
                        break;
                    }
                    cold.insert(*id);
                }
                for id in 0..8 {
                    let known = index.known(&session(id).key());
                    prop_assert_eq!(known.is_kept, changed.contains_key(&id));
                    prop_assert_eq!(known.cold, changed.get(&id).copied().filter(|_| cold.contains(&id)));
                }
                prop_assert_eq!(index.sessions.resident.len(), changed.len() - cold.len());
            }
        }
    }
}
