//! Whose keys should be looked at again, because a token names one that they have not.

use std::collections::BTreeSet;
use std::sync::Mutex;

use authz_token::KeyOwner;

/// A bounded set, filled by calls and emptied by whoever fetches keys; more than it holds is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Wanted(Mutex<BTreeSet<KeyOwner>>);

impl Wanted {
    pub(crate) fn add(&self, owner: &KeyOwner) {
        // A poisoned set is lost: keys are fetched in their time all the same.
        let Ok(mut owners) = self.0.lock() else {
            return;
        };
        if owners.len() < MAX_OWNERS && !owners.contains(owner) {
            owners.insert(owner.clone());
        }
    }

    pub(crate) fn take(&self) -> BTreeSet<KeyOwner> {
        self.0.lock().map(|mut owners| std::mem::take(&mut *owners)).unwrap_or_default()
    }
}

/// Owners are those of the configuration, of which there are fewer.
const MAX_OWNERS: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each owner once, and no more than there is room for.
    #[test]
    fn it_is_a_bounded_set_that_is_taken_whole() {
        let wanted = Wanted::default();
        for _ in 0..3 {
            wanted.add(&KeyOwner::Issuer("corp".to_owned()));
            wanted.add(&KeyOwner::Domain("corp".to_owned()));
        }
        assert_eq!(2, wanted.take().len());
        assert!(wanted.take().is_empty());
        for number in 0..MAX_OWNERS + 1 {
            wanted.add(&KeyOwner::Issuer(number.to_string()));
        }
        assert_eq!(MAX_OWNERS, wanted.take().len());
    }
}
