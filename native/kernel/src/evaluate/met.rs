//! Principals that were met, as policies of one plan know them: to make one takes longer than to find it again.

use std::sync::Arc;

use quick_cache::sync::Cache;
use smallvec::SmallVec;

use super::{Known, Words};
use crate::decision::{Claim, Principal, Subject};
use crate::model::Model;

/// Most principals that are kept ready.
const MOST: usize = 4_096;
/// Most bytes of what a principal is found by; one that needs more is made each time.
const MAX_KEY_BYTES: usize = 1_024;

type Key = SmallVec<[u8; 256]>;

/// What is kept depends on the principal, its claims and the plan alone, so it serves as long as the plan does.
#[derive(Debug)]
pub(crate) struct Met(Cache<Box<[u8]>, Arc<Known>>);

impl Default for Met {
    fn default() -> Self {
        Self(Cache::new(MOST))
    }
}

impl Met {
    /// A principal with the roles that it holds in this model.
    ///
    /// Args: `words`, `model`: of the one plan that this belongs to.
    pub(crate) fn principal(
        &self,
        words: &Words,
        model: &Model,
        principal: &Principal,
    ) -> Arc<Known> {
        let make = || Arc::new(words.principal(principal, &model.roles_of(principal)));
        let key = key(principal);
        if key.len() > MAX_KEY_BYTES {
            return make();
        }
        if let Some(met) = self.0.get(key.as_slice()) {
            return met;
        }
        let made = make();
        self.0.insert(key.as_slice().into(), Arc::clone(&made));
        made
    }
}

/// All that a principal is, as bytes.
///
/// INVARIANT (unambiguous): what has no fixed length stands after its length, so that no two principals have one key.
fn key(principal: &Principal) -> Key {
    let mut key = Key::new();
    match principal {
        Principal::Agent { spiffe_id, trust_domain } => {
            key.push(0);
            put(spiffe_id, &mut key);
            put(trust_domain, &mut key);
        }
        Principal::User(subject) => {
            key.push(1);
            put_subject(subject, &mut key);
        }
        Principal::Service(subject) => {
            key.push(2);
            put_subject(subject, &mut key);
        }
    }
    key
}

fn put_subject(subject: &Subject, key: &mut Key) {
    put(&subject.issuer, key);
    put(&subject.sub, key);
    for (name, claim) in &subject.claims {
        put(name, key);
        match claim {
            Claim::Bool(value) => key.extend_from_slice(&[0, u8::from(*value)]),
            Claim::Long(value) => {
                key.push(1);
                key.extend_from_slice(&value.to_le_bytes());
            }
            Claim::Text(text) => {
                key.push(2);
                put(text, key);
            }
            Claim::Texts(texts) => {
                key.push(3);
                key.extend_from_slice(&(texts.len() as u64).to_le_bytes());
                texts.iter().for_each(|text| put(text, key));
            }
        }
    }
}

fn put(text: &str, key: &mut Key) {
    key.extend_from_slice(&(text.len() as u64).to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::Plan;

    fn claim() -> impl Strategy<Value = Claim> {
        prop_oneof![
            any::<bool>().prop_map(Claim::Bool),
            (-2_i64..3).prop_map(Claim::Long),
            "[ab]{0,2}".prop_map(Claim::Text),
            prop::collection::vec("[ab]{0,2}", 0..3).prop_map(Claim::Texts),
        ]
    }

    fn principal() -> impl Strategy<Value = Principal> {
        let claims = prop::collection::btree_map("[ab]{0,2}", claim(), 0..3);
        let subject = ("[ab]{0,2}", "[ab]{0,2}", claims, any::<bool>()).prop_map(
            |(issuer, sub, claims, is_service)| {
                let subject = Arc::new(Subject { issuer, sub, claims });
                if is_service { Principal::Service(subject) } else { Principal::User(subject) }
            },
        );
        prop_oneof![
            subject,
            ("[ab]{0,2}", "[ab]{0,2}")
                .prop_map(|(spiffe_id, trust_domain)| Principal::Agent { spiffe_id, trust_domain }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(4_096), failure_persistence: None, ..ProptestConfig::default() })]

        /// One key, one principal.
        #[test]
        fn keys_tell_principals_apart(one in principal(), other in principal()) {
            prop_assert_eq!(one == other, key(&one) == key(&other));
        }
    }

    fn user(sub: &str, claims: &[(&str, Claim)]) -> Principal {
        let claims = claims.iter().map(|(name, claim)| ((*name).to_owned(), claim.clone()));
        let (issuer, sub) = ("corp".to_owned(), sub.to_owned());
        Principal::User(Arc::new(Subject { issuer, sub, claims: claims.collect() }))
    }

    fn plan(facts: &str) -> Plan {
        let files = [("bundle.yaml", "name: met\n"), ("facts.yaml", facts)];
        let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        let model = crate::source::load(&files.into(), &BTreeMap::new());
        Plan::compile(model.map_err(|wrong| format!("{wrong:?}")).unwrap(), None).unwrap()
    }

    /// What is found is what would be made, also of who differs in a claim only; however many are met, few are kept.
    #[test]
    fn found_is_made() {
        let plan = plan(
            "subjects:\n  staff: { issuer: corp, claim: groups, contains: staff }\n  all: { issuer: corp }\n",
        );
        let (words, model) = (&plan.words, plan.model());
        let met = Met::default();
        let staff = Claim::Texts(vec!["staff".to_owned()]);
        let text = Claim::Text("staff".to_owned());
        for _ in 0..2 {
            for who in [
                user("alice", &[("groups", staff.clone())]),
                user("alice", &[("groups", text.clone())]),
                user("alice", &[("group", staff.clone())]),
                user("alice", &[]),
                user("bob", &[("groups", staff.clone())]),
                // Too long to be kept.
                user(&"x".repeat(2_000), &[("groups", staff.clone())]),
            ] {
                let made = words.principal(&who, &model.roles_of(&who));
                let found = met.principal(words, model, &who);
                assert_eq!(format!("{made:?}"), format!("{found:?}"));
                assert_eq!(model.roles_of(&who).to_vec(), found.roles().collect::<Vec<_>>());
            }
        }
        assert_eq!(5, met.0.len());
        for number in 0..3 * MOST {
            let _made = met.principal(words, model, &user(&number.to_string(), &[]));
        }
        assert!(met.0.len() <= MOST, "{}", met.0.len());
    }
}
