//! Values that records share until one of them changes.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Value that clones share until one of them changes it.
#[derive(Clone, Debug, Default)]
pub struct Shared<T>(Arc<T>);

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_change_of_one_does_not_change_the_other() {
        let one: Shared<BTreeSet<u32>> = BTreeSet::from([1]).into();
        let mut other = one.clone();
        assert!(Arc::ptr_eq(&one.0, &other.0) && one == other);
        other.insert(2);
        assert_eq!(
            (BTreeSet::from([1]), BTreeSet::from([1, 2])),
            ((*one).clone(), (*other).clone())
        );
        assert_ne!(one, other);
        other.remove(&2);
        assert_eq!(one, other);
    }

    #[test]
    fn it_is_written_as_what_it_holds() {
        let one: Shared<BTreeSet<u32>> = BTreeSet::from([1, 2]).into();
        let text = serde_json::to_string(&one).unwrap_or_default();
        assert_eq!("[1,2]", text);
        assert_eq!(Some(one), serde_json::from_str(&text).ok());
    }
}
