//! What is kept of one kind of records, by their ids and in the order of these.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem::replace;
use std::ops::Bound;
use std::sync::Arc;

/// Bytes of an id that are compared where they stand: of a `UUIDv7` its time.
const HEAD_BYTES: usize = 16;

/// By id.
///
/// Most ids differ in their first bytes. Those stand in the tree itself: a search that followed a pointer to each id that
/// it compares would wait for memory at each.
#[derive(Debug)]
pub(crate) struct Ids<V>(BTreeMap<Id, V>);

impl<V> Default for Ids<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Ids<V> {
    pub(crate) fn get(&self, id: &str) -> Option<&V> {
        self.0.get(&Sought::of(id) as &dyn Named)
    }

    /// Returns: what is there, with its id.
    pub(crate) fn entry(&self, id: &str) -> Option<(&Arc<str>, &V)> {
        let (id, value) = self.0.get_key_value(&Sought::of(id) as &dyn Named)?;
        Some((&id.text, value))
    }

    /// Returns: what is there, with its id.
    pub(crate) fn entry_mut(&mut self, id: &str) -> Option<(&Arc<str>, &mut V)> {
        let sought = Bound::Included(&Sought::of(id) as &dyn Named);
        let (id, value) = self.0.range_mut::<dyn Named, _>((sought, sought)).next()?;
        Some((&id.text, value))
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.contains_key(&Sought::of(id) as &dyn Named)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values()
    }

    /// Returns: what was there.
    pub(crate) fn insert(&mut self, id: Arc<str>, value: V) -> Option<V> {
        self.0.insert(Id { head: head(&id), text: id }, value)
    }

    /// Returns: what was there, with its id.
    pub(crate) fn remove(&mut self, id: &str) -> Option<(Arc<str>, V)> {
        let (id, value) = self.0.remove_entry(&Sought::of(id) as &dyn Named)?;
        Some((id.text, value))
    }

    /// Sets what is there, or removes it. Returns its id and what was there; none where there is neither.
    pub(crate) fn set(&mut self, id: &Arc<str>, new: Option<V>) -> Option<(Arc<str>, Option<V>)> {
        self.set_by(id, |_| new)
    }

    /// As [`Ids::set`], by what is there.
    pub(crate) fn set_by(
        &mut self,
        id: &Arc<str>,
        new: impl FnOnce(Option<&V>) -> Option<V>,
    ) -> Option<(Arc<str>, Option<V>)> {
        let known = self.entry_mut(id);
        let new = new(known.as_ref().map(|(_, kept)| &**kept));
        match (known, new) {
            (Some((id, kept)), Some(new)) => Some((Arc::clone(id), Some(replace(kept, new)))),
            (Some(_), None) => self.remove(id).map(|(id, before)| (id, Some(before))),
            (None, Some(new)) => {
                self.insert(Arc::clone(id), new);
                Some((Arc::clone(id), None))
            }
            (None, None) => None,
        }
    }

    /// All from an id on, in their order.
    pub(crate) fn from(&self, first: Bound<&str>) -> impl Iterator<Item = (&Arc<str>, &V)> {
        let first = first.map(Sought::of);
        let first = first.as_ref().map(|sought| sought as &dyn Named);
        self.0.range::<dyn Named, _>((first, Bound::Unbounded)).map(|(id, value)| (&id.text, value))
    }
}

#[derive(Debug)]
struct Id {
    head: u128,
    text: Arc<str>,
}

/// An id that is looked for.
struct Sought<'a> {
    head: u128,
    text: &'a str,
}

impl<'a> Sought<'a> {
    fn of(text: &'a str) -> Self {
        Self { head: head(text), text }
    }
}

/// The first bytes as a number that is in the order of the texts, or equal.
fn head(text: &str) -> u128 {
    let mut bytes = [0; HEAD_BYTES];
    bytes.iter_mut().zip(text.as_bytes()).for_each(|(to, byte)| *to = *byte);
    u128::from_be_bytes(bytes)
}

trait Named {
    fn head(&self) -> u128;
    fn text(&self) -> &str;
}

impl Named for Id {
    fn head(&self) -> u128 {
        self.head
    }

    fn text(&self) -> &str {
        &self.text
    }
}

impl Named for Sought<'_> {
    fn head(&self) -> u128 {
        self.head
    }

    fn text(&self) -> &str {
        self.text
    }
}

impl Ord for dyn Named + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.text().cmp(other.text()))
    }
}

impl PartialOrd for dyn Named + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Named + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for dyn Named + '_ {}

// INVARIANT (order): an id is compared as what is looked for is.
impl Ord for Id {
    fn cmp(&self, other: &Self) -> Ordering {
        (self as &dyn Named).cmp(other as &dyn Named)
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Id {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Id {}

impl<'a> Borrow<dyn Named + 'a> for Id {
    fn borrow(&self) -> &(dyn Named + 'a) {
        self
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same as a map of texts, also of ids that are short, share their first bytes, or hold NUL.
        #[test]
        fn it_is_a_map_of_texts(
            steps in prop::collection::vec(("(0123456789abcde)?[f\u{0}\u{e9}]{0,3}", any::<bool>()), 1..80),
            first in "(0123456789abcde)?[f\u{0}\u{e9}]{0,3}",
        ) {
            let (mut ids, mut texts) = (Ids::default(), BTreeMap::new());
            for (number, (id, is_put)) in steps.iter().enumerate() {
                let before = ids.set(&Arc::from(id.as_str()), is_put.then_some(number));
                let expected =
                    if *is_put { texts.insert(id.clone(), number) } else { texts.remove(id) };
                prop_assert_eq!(before.as_ref().map(|(id, _)| id.as_ref()), (*is_put || expected.is_some()).then_some(id.as_str()));
                prop_assert_eq!(before.and_then(|(_, before)| before), expected);
                if let Some((known, value)) = ids.entry_mut(id) {
                    prop_assert_eq!(known.as_ref(), id);
                    prop_assert_eq!(*value, number);
                }
                let entry = ids.entry(id).map(|(id, value)| (id.as_ref(), value));
                prop_assert_eq!(entry, texts.get_key_value(id).map(|(id, value)| (id.as_str(), value)));
                prop_assert_eq!(ids.get(id), texts.get(id));
                prop_assert_eq!(ids.has(id), texts.contains_key(id));
                prop_assert_eq!(ids.len(), texts.len());
            }
            for bound in [Bound::Included(first.as_str()), Bound::Excluded(first.as_str())] {
                let found: Vec<&str> = ids.from(bound).map(|(id, _)| id.as_ref()).collect();
                let expected: Vec<&str> =
                    texts.range::<str, _>((bound, Bound::Unbounded)).map(|(id, _)| id.as_str()).collect();
                prop_assert_eq!(found, expected);
            }
            prop_assert!(ids.values().eq(texts.values()));
        }
    }

    #[test]
    fn an_id_that_is_the_start_of_another_comes_first() {
        let mut ids = Ids::default();
        for id in ["0123456789abcdef0", "0123456789abcdef", "0123456789abcde", "0"] {
            ids.insert(Arc::from(id), ());
        }
        let found: Vec<&str> = ids.from(Bound::Unbounded).map(|(id, _)| id.as_ref()).collect();
        assert_eq!(["0", "0123456789abcde", "0123456789abcdef", "0123456789abcdef0"], *found);
        assert_eq!("0", ids.remove("0").unwrap().0.as_ref());
    }
}
