//! Requests that the kernel judged, with its verdicts.

use std::collections::BTreeMap;

use authz_kernel::decision::Verdict;

use crate::guards::Counterexample;

/// Requests with the verdicts of the policies of their operation.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    all: Vec<Counterexample>,
    /// Positions of the requests for which a policy fires, by policy.
    fired: BTreeMap<usize, Vec<usize>>,
}

impl Witnesses {
    pub(super) fn add(&mut self, example: Counterexample) {
        let index = self.all.len();
        for (policy, verdict) in &example.verdicts {
            if *verdict == Verdict::Fired {
                self.fired.entry(*policy).or_default().push(index);
            }
        }
        self.all.push(example);
    }

    /// Requests for which a policy fires.
    pub(super) fn firing(&self, policy: usize) -> impl Iterator<Item = &Counterexample> {
        let indexes = self.fired.get(&policy).into_iter().flatten();
        indexes.filter_map(|index| self.all.get(*index))
    }
}
