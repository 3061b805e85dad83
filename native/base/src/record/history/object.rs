//! Objects that agents write keep the labels that the agents carried, so that a reader carries them, too.
//!
//! Each object that was written so has a record, and so has its collection, which keeps the labels of writes that name no
//! object. A label is lost by its time alone. Each writer has a share of the objects of a collection, and a write beyond it
//! is refused: a busy writer costs nobody else labels or room.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Holder, LabelOrigin, MAX_LABELS};
use crate::digest::{sha256, short};
use crate::hex::hex;
use crate::principal::Principal;
use crate::reason::ReasonCode;
use crate::record::{RecordKey, RecordKind, StoredValue};
use crate::time::Time;

/// Objects of one collection that keep labels. A single writer may have a third of them.
pub const MAX_OBJECTS: u32 = 30_000;
/// Most objects of all collections of a bundle whose labels are kept apart. Each collection has its share, so that writers of
/// one collection take no room of another.
pub const MAX_OBJECTS_IN_ALL: u32 = 200_000;
/// Default time for which a written object keeps its labels, in milliseconds: 30 days.
pub const KEPT_MS: i64 = 30 * DAY_MS;

/// Longest that a bundle may ask for, in milliseconds.
pub const MAX_KEPT_MS: i64 = 366 * DAY_MS;
/// A day, in milliseconds.
pub const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Rule by which objects of a collection keep labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// For how long, in milliseconds.
    pub ms: i64,
    /// Number of objects whose labels are kept apart.
    pub objects: u32,
}

impl Keeping {
    /// `collections` is the number of collections of the bundle that keep labels.
    pub fn shared(ms: i64, collections: usize) -> Self {
        let collections = u32::try_from(collections).unwrap_or(u32::MAX).max(1);
        Self { ms, objects: MAX_OBJECTS.min(MAX_OBJECTS_IN_ALL / collections) }
    }
}

/// An object that agents wrote, or a collection of such objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its id: [`ObjectKeys`].
    pub id: String,
    /// Labels of the object; of a collection those of all objects in it together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, ObjectLabel>,
    /// Of a collection: labels that any object in it may carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub any: BTreeMap<String, ObjectLabel>,
    /// Of a collection: number of its objects that are kept, by the day since 1970 on which they are forgotten.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<i64, u32>,
    /// Of an object: its last writer, whose share it counts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<ObjectWriter>,
    /// When it may be forgotten.
    pub expires_at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for Object {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

/// Writer of an object, as digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectWriter {
    /// Digest of the agent's id.
    #[serde(default)]
    pub agent: String,
    /// Digest of the id of agent and subject together.
    #[serde(default)]
    pub pair: String,
}

impl ObjectWriter {
    /// The writer that acts in a chain.
    pub fn of(chain: &[Principal]) -> Self {
        let digest =
            |holder: Holder| holder.key(chain).map_or_else(String::new, |key| short(&key.id));
        Self { agent: digest(Holder::Agent), pair: digest(Holder::Pair) }
    }

    fn of_holder(&self, holder: Holder) -> Option<&str> {
        match holder {
            Holder::Agent => Some(&self.agent),
            Holder::Pair => Some(&self.pair),
            Holder::Session | Holder::Subject => None,
        }
    }
}

/// Number of objects that a writer has in one collection, and that its agent has over all subjects.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Objects of the agent over all subjects.
    pub agent: u32,
    /// Objects of the agent for one subject.
    pub pair: u32,
}

impl Shares {
    /// Returns whether the writer may have one more object: an agent has at most as many as are left free to others, and so
    /// has each of its pairs within what is left to the agent. Some room is always left for a writer that has none.
    fn has_room(self, most: u32, kept: u32) -> bool {
        let free = most.saturating_sub(kept);
        let of_agent = free.saturating_sub(self.agent);
        self.pair < of_agent
    }
}

/// Objects that count, by the day on which they are forgotten.
pub fn count(counts: &BTreeMap<i64, u32>, now: Time) -> u32 {
    counts.range(day(now)..).map(|(_, count)| *count).fold(0, u32::saturating_add)
}

/// Label of a written object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLabel {
    /// Decision of the first write with it.
    #[serde(flatten)]
    pub origin: LabelOrigin,
    /// End of the time for which it counts.
    pub until: Time,
}

/// The records that keep what an operation acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectKeys {
    /// That of the collection.
    pub collection: RecordKey,
    /// Id of the object. `None`: the collection as a whole.
    pub object: Option<RecordKey>,
    /// Those that the object may have under older spellings of its id. They are read until they expire, and never written.
    pub older: Vec<RecordKey>,
}

impl ObjectKeys {
    /// The records of a resource.
    ///
    /// `id` has its canonical spelling; empty: the collection as a whole.
    #[must_use]
    pub fn of(collection: &str, id: &str) -> Self {
        let object = (!id.is_empty()).then(|| object_key(collection, id));
        let collection = RecordKey::new(RecordKind::Object, collection);
        Self { collection, object, older: Vec::new() }
    }

    /// With the keys of older spellings of the id.
    pub fn with_older(self, collection: &str, ids: &[String]) -> Self {
        Self { older: ids.iter().map(|id| object_key(collection, id)).collect(), ..self }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &RecordKey> {
        [&self.collection].into_iter().chain(&self.object).chain(&self.older)
    }
}

/// Ids may be long, or a secret: their digest stands in the key.
fn object_key(collection: &str, id: &str) -> RecordKey {
    let digest = hex(&sha256(id.as_bytes()));
    RecordKey::new(RecordKind::Object, format!("{collection}/{digest}"))
}

/// Stored labels of the object of an operation.
#[derive(Clone, Copy, Debug)]
pub struct ObjectView<'a> {
    /// The object. `None`: the collection as a whole.
    pub object: Option<&'a Object>,
    /// Records of the object under older spellings of its id.
    pub older: &'a [Arc<Object>],
    /// Its collection.
    pub collection: &'a Object,
}

/// Nothing is known.
static NOTHING: Object = Object::new(String::new());

impl ObjectView<'static> {
    /// The view of an object that no agent has written.
    pub const NOTHING: Self = Self { object: None, older: &[], collection: &NOTHING };
}

impl<'a> ObjectView<'a> {
    /// The labels that it carries because of who wrote it, and the decision by which each was written.
    pub fn labels(self, now: Time) -> impl Iterator<Item = (&'a str, &'a LabelOrigin)> {
        let own = &self.object.unwrap_or(self.collection).labels;
        let older = self.older.iter().flat_map(|object| &object.labels);
        let all = self.collection.any.iter().chain(own).chain(older);
        let fresh = all.filter(move |(_, mark)| mark.until > now);
        fresh.map(|(label, mark)| (label.as_str(), &mark.origin))
    }

    /// The change that a write with these labels makes.
    ///
    /// # Errors
    /// More labels than one record keeps, or more objects than the writer's share.
    pub fn written(
        self,
        keys: ObjectKeys,
        labels: BTreeSet<String>,
        (keeping, shares): (Keeping, Shares),
        writer: ObjectWriter,
        now: Time,
    ) -> Result<Option<ObjectWrite>, (ReasonCode, String)> {
        if labels.is_empty() {
            return Ok(None);
        }
        let known = self.object.filter(|object| object.expires_at > now);
        let is_any = keys.object.is_none();
        let is_own = |known: &Object| known.writer.as_ref().is_some_and(|one| *one == writer);
        let kept = count(&self.collection.counts, now);
        if !is_any && !known.is_some_and(is_own) && !shares.has_room(keeping.objects, kept) {
            let what = format!(
                "the writer's labels are kept of as many objects of `{}` as its share allows",
                self.collection.id
            );
            return Err((ReasonCode::WindowFull, what));
        }
        let of_collection = if is_any { &self.collection.any } else { &self.collection.labels };
        let own = self.object.filter(|_| !is_any).map(|object| &object.labels);
        for kept in own.into_iter().chain([of_collection]) {
            let others =
                kept.iter().filter(|(label, mark)| mark.until > now && !labels.contains(*label));
            if others.count().saturating_add(labels.len()) > MAX_LABELS {
                let what = format!("an object keeps {MAX_LABELS} labels, and no more");
                return Err((ReasonCode::WindowFull, what));
            }
        }
        let until = Time(now.0.saturating_add(keeping.ms));
        let before =
            known.map(|object| (object.writer.clone().unwrap_or_default(), object.expires_at));
        Ok(Some(ObjectWrite { keys, labels, until, is_any, writer, before }))
    }
}

/// Write of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectWrite {
    /// Keys of the written object.
    pub keys: ObjectKeys,
    /// Labels that its writer carries.
    pub labels: BTreeSet<String>,
    /// End of the time for which the object keeps them.
    pub until: Time,
    /// The write names no object: any object of the collection may be the one.
    pub is_any: bool,
    /// The writer.
    pub writer: ObjectWriter,
    /// The writer before, and the time at which its write was to be forgotten.
    pub before: Option<(ObjectWriter, Time)>,
}

impl ObjectWrite {
    /// Returns whether it counts for the share of a holder's record.
    pub fn counts_for(&self, holder: Holder) -> bool {
        !self.is_any && self.writer.of_holder(holder).is_some()
    }

    /// Counts the object in the record of the agent or of the pair that writes it.
    ///
    /// `objects` counts them by collection and day.
    pub fn count_in(
        &self,
        objects: &mut BTreeMap<String, BTreeMap<i64, u32>>,
        holder: Holder,
        now: Time,
    ) {
        let collection = &*self.keys.collection.id;
        objects.retain(|_, counts| {
            *counts = counts.split_off(&day(now));
            !counts.is_empty()
        });
        let counts = objects.entry(collection.to_owned()).or_default();
        let own = self.writer.of_holder(holder);
        let before = self.before.as_ref().filter(|(writer, _)| writer.of_holder(holder) == own);
        if let Some((_, until)) = before
            && let Some(count) = counts.get_mut(&day(*until))
        {
            *count = count.saturating_sub(1);
        }
        counts.retain(|_, count| *count > 0);
        let count = counts.entry(day(self.until)).or_default();
        *count = count.saturating_add(1);
    }

    /// Takes over the labels.
    ///
    /// `object` is the record of [`ObjectKeys::object`], if there is one, and `collection` that of its collection;
    /// `decision_id`, `operation` and `now` are those of the decision.
    pub fn apply(
        &self,
        object: Option<&mut Object>,
        collection: &mut Object,
        (decision_id, operation, now): (&str, &str, Time),
    ) {
        let origin = LabelOrigin::new(decision_id, operation, now);
        collection.forget(now);
        match object.filter(|_| !self.is_any) {
            None => mark(&mut collection.any, self, &origin),
            Some(object) => {
                object.forget(now);
                collection.recount(object.expires_at, self.until.max(object.expires_at), now);
                mark(&mut object.labels, self, &origin);
                object.writer = Some(self.writer.clone());
                object.expires_at = self.until.max(object.expires_at);
                mark(&mut collection.labels, self, &origin);
            }
        }
        collection.expires_at = self.until.max(collection.expires_at);
    }
}

fn mark(labels: &mut BTreeMap<String, ObjectLabel>, written: &ObjectWrite, origin: &LabelOrigin) {
    for label in &written.labels {
        let new = || ObjectLabel { origin: origin.clone(), until: written.until };
        let mark = labels.entry(label.clone()).or_insert_with(new);
        mark.until = written.until.max(mark.until);
    }
}

impl Object {
    /// One of which nothing is known.
    #[must_use]
    pub const fn new(id: String) -> Self {
        Self {
            id,
            labels: BTreeMap::new(),
            any: BTreeMap::new(),
            counts: BTreeMap::new(),
            writer: None,
            expires_at: Time(0),
            rest: BTreeMap::new(),
        }
    }

    /// Drops what counts no more.
    fn forget(&mut self, now: Time) {
        self.labels.retain(|_, mark| mark.until > now);
        self.any.retain(|_, mark| mark.until > now);
        self.counts = self.counts.split_off(&day(now));
    }

    /// Counts an object that is forgotten later than it was, or that was not known.
    fn recount(&mut self, before: Time, after: Time, now: Time) {
        if before > now
            && let Some(count) = self.counts.get_mut(&day(before))
        {
            *count = count.saturating_sub(1);
        }
        self.counts.retain(|_, count| *count > 0);
        let count = self.counts.entry(day(after)).or_default();
        *count = count.saturating_add(1);
    }
}

const fn day(at: Time) -> i64 {
    at.0.div_euclid(DAY_MS)
}
