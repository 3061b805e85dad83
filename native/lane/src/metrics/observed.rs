//! Decisions in which policies with `@mode("observe")` were judged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::{ObservedPolicy, Outcome};
use authz_kernel::plan::Plan;

use super::family::{Family, counter};

/// Policies that have counters of their own; further ones are counted together.
const MAX_POLICIES: usize = 1_000;
/// Stands for the policies beyond those.
const OTHER: &str = "other";

/// Difference that one observed policy would have made.
#[derive(Clone, Copy)]
enum ObservedChange {
    Unchanged,
    WouldPermit,
    WouldHold,
    WouldDeny,
    NotJudged,
}

impl ObservedChange {
    const ALL: [Self; 5] =
        [Self::Unchanged, Self::WouldPermit, Self::WouldHold, Self::WouldDeny, Self::NotJudged];

    /// Args: `actual`: outcome of the decision.
    fn of(policy: &ObservedPolicy, actual: Outcome) -> Self {
        match policy.outcome {
            None => Self::NotJudged,
            Some(outcome) if outcome == actual => Self::Unchanged,
            Some(Outcome::Permit) => Self::WouldPermit,
            Some(Outcome::StepUp) => Self::WouldHold,
            Some(Outcome::Deny) => Self::WouldDeny,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::WouldPermit => "would_permit",
            Self::WouldHold => "would_hold",
            Self::WouldDeny => "would_deny",
            Self::NotJudged => "not_judged",
        }
    }
}

/// Counts by policy and change.
#[derive(Debug, Default)]
pub(super) struct ObservedCounts(RwLock<BTreeMap<String, [AtomicU64; ObservedChange::ALL.len()]>>);

impl ObservedCounts {
    /// Takes over the observed policies of a bundle that is served from now on. Counts of other policies end.
    pub(super) fn serve(&self, plan: &Plan) {
        let served: BTreeSet<&str> = plan.observed_policies().take(MAX_POLICIES).collect();
        let mut counts = self.0.write().ignore_poison();
        counts.retain(|id, _| served.contains(id.as_str()));
        for id in served.into_iter().filter(|id| !counts.contains_key(*id)).collect::<Vec<_>>() {
            counts.insert(id.to_owned(), Default::default());
        }
    }

    /// Counts the observed policies of a decision.
    pub(super) fn add(&self, policies: &[ObservedPolicy], actual: Outcome) {
        for policy in policies {
            let change = ObservedChange::of(policy, actual) as usize;
            let add = |counts: &[AtomicU64; ObservedChange::ALL.len()]| {
                if let Some(count) = counts.get(change) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            };
            if let Some(counts) = self.0.read().ignore_poison().get(&policy.policy) {
                add(counts);
                continue;
            }
            // A call that was decided by a bundle before, or a policy beyond the bound.
            add(self.0.write().ignore_poison().entry(OTHER.to_owned()).or_default());
        }
    }

    pub(super) fn family(&self) -> Family {
        let counts = self.0.read().ignore_poison();
        let samples = counts.iter().flat_map(|(policy, counts)| {
            ObservedChange::ALL.into_iter().zip(counts).map(|(change, count)| {
                let result = change.as_str().to_owned();
                let labels = vec![("policy", policy.clone()), ("result", result)];
                (labels, count.load(Ordering::Relaxed))
            })
        });
        let samples: Vec<_> = samples.collect();
        counter(
            "authz_policy_observed",
            "Decisions in which a policy with @mode(\"observe\") was judged, by the difference that it would have made.",
            samples,
        )
    }
}
