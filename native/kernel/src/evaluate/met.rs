//! Cache of the principals of one plan, in the form that policies read: making one takes longer than finding it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::{Known, Words};
use crate::decision::{Claim, Principal, Subject};
use crate::roles::RoleIndex;

/// Most bytes of principals that are kept ready.
const MOST_BYTES: u64 = 4 * 1024 * 1024;
/// What a principal counts for at least, so that not too many are kept either.
const LEAST_BYTES: u64 = 1_024;

/// A cached value depends on the principal, its claims and the plan alone, so it is valid as long as the plan.
#[derive(Debug)]
pub(crate) struct Met(Cache<Principal, Arc<Known>, Size>);

impl Default for Met {
    fn default() -> Self {
        let most = usize::try_from(MOST_BYTES / LEAST_BYTES).unwrap_or(1);
        Self(Cache::with_weighter(most, MOST_BYTES, Size))
    }
}

impl Met {
    /// A principal with the roles that it holds in the bundle.
    ///
    /// `words`, `roles`: of the plan that the cache belongs to.
    pub(crate) fn principal(
        &self,
        words: &Words,
        roles: &RoleIndex,
        principal: &Principal,
    ) -> Arc<Known> {
        if let Some(met) = self.0.get(principal) {
            return met;
        }
        let made = Arc::new(words.principal(principal, &roles.roles_of(principal)));
        self.0.insert(principal.clone(), Arc::clone(&made));
        made
    }
}

/// What a principal counts for: the bytes of its texts. One that counts for more than a part of the cache may hold is not kept.
#[derive(Clone, Debug)]
struct Size;

impl Weighter<Principal, Arc<Known>> for Size {
    fn weight(&self, principal: &Principal, _: &Arc<Known>) -> u64 {
        let bytes = match principal {
            Principal::Agent { spiffe_id, trust_domain } => {
                spiffe_id.len().saturating_add(trust_domain.len())
            }
            Principal::User(subject) | Principal::Service(subject) => size(subject),
        };
        (bytes as u64).max(LEAST_BYTES)
    }
}

fn size(subject: &Subject) -> usize {
    let narrowed = subject.narrowed.iter().flat_map(|one| one.from.iter().chain([&one.to]));
    let claims = narrowed.chain([&subject.claims]).map(size_of_claims);
    claims.fold(subject.issuer.len().saturating_add(subject.sub.len()), usize::saturating_add)
}

fn size_of_claims(claims: &BTreeMap<String, Claim>) -> usize {
    let claims = claims.iter().map(|(name, claim)| {
        let value = match claim {
            Claim::Bool(_) | Claim::Long(_) => size_of::<Claim>(),
            Claim::Text(text) => text.len(),
            Claim::Texts(texts) => texts.iter().map(|text| size_of_val(text) + text.len()).sum(),
        };
        name.len().saturating_add(value)
    });
    claims.fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::plan::Plan;

    fn user(sub: &str, claims: &[(&str, Claim)]) -> Principal {
        let claims = claims.iter().map(|(name, claim)| ((*name).to_owned(), claim.clone()));
        let (issuer, sub) = ("corp".to_owned(), sub.to_owned());
        Principal::User(Arc::new(Subject {
            issuer,
            sub,
            claims: claims.collect(),
            ..Subject::default()
        }))
    }

    fn plan(facts: &str) -> Plan {
        let files = [("bundle.yaml", "name: met\n"), ("facts.yaml", facts)];
        let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        let bundle = crate::source::load(&files.into(), &BTreeMap::new());
        Plan::compile(bundle.map_err(|wrong| format!("{wrong:?}")).unwrap(), None).unwrap()
    }

    /// A cached value equals a new one, also for principals that differ in one claim only; and the cache is bounded.
    #[test]
    fn found_is_made() {
        let plan = plan(
            "subjects:\n  staff: { issuer: corp, claim: groups, contains: staff }\n  all: { issuer: corp }\n",
        );
        let (words, roles) = (&plan.words, plan.roles());
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
                user(&"x".repeat(MOST_BYTES as usize), &[("groups", staff.clone())]),
            ] {
                let made = words.principal(&who, &roles.roles_of(&who));
                let found = met.principal(words, roles, &who);
                assert_eq!(format!("{made:?}"), format!("{found:?}"));
                assert_eq!(roles.roles_of(&who).to_vec(), found.roles().collect::<Vec<_>>());
            }
        }
        assert_eq!(5, met.0.len());
        let most = MOST_BYTES / LEAST_BYTES;
        for number in 0..3 * most {
            let _made = met.principal(words, roles, &user(&number.to_string(), &[]));
        }
        assert!((most / 2..=most).contains(&(met.0.len() as u64)), "{}", met.0.len());
        let met = Met::default();
        for number in 0..3 * most {
            let claims = [("groups", Claim::Texts(vec![number.to_string(); 100]))];
            let _made = met.principal(words, roles, &user("carol", &claims));
        }
        assert!(met.0.weight() <= MOST_BYTES && met.0.len() as u64 <= most / 2, "{}", met.0.len());
    }
}
