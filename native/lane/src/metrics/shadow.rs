//! Decisions by the answer that the shadow bundle would have given.

use std::sync::atomic::{AtomicU64, Ordering};

use authz_kernel::decision::Outcome;
use authz_kernel::shadow::ShadowGap;

use super::family::{Family, counter};
use crate::shadow_answer::ShadowAnswer;

/// Results of comparisons, in the order of their counters.
const RESULTS: [&str; 5] =
    ["equal", "newly_permitted", "newly_held", "newly_denied", "not_compared"];

/// Counts of comparisons.
#[derive(Debug, Default)]
pub(super) struct ShadowCounts {
    results: [AtomicU64; RESULTS.len()],
    gaps: [AtomicU64; ShadowGap::ALL.len()],
}

impl ShadowCounts {
    pub(super) fn add(&self, answer: &ShadowAnswer) {
        let result = match answer {
            ShadowAnswer::Equal => 0,
            ShadowAnswer::Differs(answer) => match answer.outcome {
                Outcome::Permit => 1,
                Outcome::StepUp => 2,
                Outcome::Deny => 3,
            },
            ShadowAnswer::NotCompared(gap) => {
                if let Some(count) = self.gaps.get(*gap as usize) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                4
            }
        };
        if let Some(count) = self.results.get(result) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts by result, in the order of the names.
    pub(super) fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RESULTS
            .into_iter()
            .zip(&self.results)
            .map(|(result, count)| (result, count.load(Ordering::Relaxed)))
    }

    pub(super) fn families(&self) -> [Family; 2] {
        let results = self
            .results()
            .map(|(result, count)| (vec![("result", result.to_owned())], count))
            .collect::<Vec<_>>();
        let gaps = ShadowGap::ALL.into_iter().zip(&self.gaps).map(|(gap, count)| {
            (vec![("cause", gap.as_str().to_owned())], count.load(Ordering::Relaxed))
        });
        [
            counter(
                "authz_shadow_decisions",
                "Decisions while a shadow bundle is loaded, by what that bundle would have answered.",
                results,
            ),
            counter(
                "authz_shadow_not_compared",
                "Decisions that could not be compared with those of the shadow bundle, by cause.",
                gaps.collect::<Vec<_>>(),
            ),
        ]
    }
}
