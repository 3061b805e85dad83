//! Requests that the kernel judged, with its verdicts.

use std::collections::BTreeMap;

use authz_kernel::decision::Verdict;

use crate::guards::Counterexample;

/// Verdicts on the policies of one operation.
#[derive(Debug)]
pub(super) struct Witness {
    /// Operation that was requested.
    pub(super) operation: String,
    /// Verdicts by position of the policy.
    pub(super) verdicts: BTreeMap<usize, Verdict>,
}

/// Verdicts of all requests that were found. The requests themselves are not kept: there are thousands.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    all: Vec<Witness>,
    /// Positions of the requests for which a policy fires, by policy.
    fired: BTreeMap<usize, Vec<usize>>,
}

impl Witnesses {
    pub(super) fn add(&mut self, example: Counterexample) {
        let Counterexample { operation, verdicts, .. } = example;
        let index = self.all.len();
        for (policy, verdict) in &verdicts {
            if *verdict == Verdict::Fired {
                self.fired.entry(*policy).or_default().push(index);
            }
        }
        self.all.push(Witness { operation, verdicts });
    }

    /// Requests for which a policy fires.
    pub(super) fn firing(&self, policy: usize) -> impl Iterator<Item = &Witness> {
        let indexes = self.fired.get(&policy).into_iter().flatten();
        indexes.filter_map(|index| self.all.get(*index))
    }
}
