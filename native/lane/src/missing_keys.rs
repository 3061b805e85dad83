//! Issuers and trust domains whose keys should be read again, because a token named a key that they do not have.

use std::collections::BTreeSet;
use std::sync::Mutex;

use authz_token::KeyOwner;

/// Bounded set of key owners. Calls fill it, and the service that fetches keys empties it. Owners beyond the bound are forgotten.
#[derive(Debug, Default)]
pub(crate) struct MissingKeys(Mutex<BTreeSet<KeyOwner>>);

impl MissingKeys {
    pub(crate) fn add(&self, owner: &KeyOwner) {
        // A poisoned set is lost: keys are still fetched at their usual times.
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

/// Bound of the set. A configuration has fewer owners.
const MAX_OWNERS: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    /// The set holds each owner once, and no more than its bound.
    #[test]
    fn it_is_a_bounded_set_that_is_taken_whole() {
        let missing = MissingKeys::default();
        for _ in 0..3 {
            missing.add(&KeyOwner::Issuer("corp".to_owned()));
            missing.add(&KeyOwner::Domain("corp".to_owned()));
        }
        assert_eq!(2, missing.take().len());
        assert!(missing.take().is_empty());
        for number in 0..MAX_OWNERS + 1 {
            missing.add(&KeyOwner::Issuer(number.to_string()));
        }
        assert_eq!(MAX_OWNERS, missing.take().len());
    }
}
