//! Policies with `@mode("observe")`: judged beside the others, without a part in the answer.

use super::verdict::Tally;
use crate::decision::{ObservedPolicy, Outcome, PolicyEffect, Verdict};
use crate::policy::Placed;
use crate::schema::{Key, Keys};

/// Results of the observed policies of one call.
#[derive(Default)]
pub(super) struct ObservedResults<'a>(Vec<ObservedResult<'a>>);

/// Results of one observed policy.
struct ObservedResult<'a> {
    placed: &'a Placed,
    /// The facts that it reads were recalled.
    is_judged: bool,
    /// It failed for some principal.
    has_failed: bool,
    /// Positions of the principals that it fired for; `None` for all of them.
    fired: Vec<Option<usize>>,
    /// Some principal that the permit fired for has no other permit.
    is_missed: bool,
}

impl<'a> ObservedResults<'a> {
    /// Adds a policy that is judged next.
    pub(super) fn begin(&mut self, placed: &'a Placed, is_judged: bool) {
        self.0.push(ObservedResult {
            placed,
            is_judged,
            has_failed: false,
            fired: Vec::new(),
            is_missed: false,
        });
    }

    /// Counts one result of the policy that was added last, for one principal or for all.
    pub(super) fn count(&mut self, whom: Option<usize>, verdict: &Verdict) {
        let Some(last) = self.0.last_mut() else { return };
        match verdict {
            Verdict::Fired => last.fired.push(whom),
            Verdict::Failed(_) => last.has_failed = true,
            Verdict::NotFired => {}
        }
    }

    /// The tally as it would be with the observed permits that fired. `None`: they make no difference.
    pub(super) fn permitted(&mut self, tally: &Tally<'a>) -> Option<Tally<'a>> {
        let mut with_permits: Option<Tally<'a>> = None;
        let permits =
            self.0.iter_mut().filter(|one| one.placed.policy.effect == PolicyEffect::Permit);
        for permit in permits {
            for whom in permit.fired.iter().filter(|whom| tally.lacks(**whom)) {
                permit.is_missed = true;
                let all = with_permits.get_or_insert_with(|| tally.clone());
                all.count(permit.placed, *whom, Verdict::Fired);
            }
        }
        with_permits
    }

    /// The policies, each with the outcome that the call would have had, were it enforced.
    ///
    /// Args:
    /// * `actual`: outcome of the call.
    /// * `with_permits`: outcome with the observed permits, if they make a difference.
    pub(super) fn outcomes(
        self,
        actual: Outcome,
        with_permits: Option<Outcome>,
    ) -> Vec<ObservedPolicy> {
        let of = |one: ObservedResult<'_>| {
            let outcome = match one.placed.policy.effect {
                PolicyEffect::Forbid => one.forbidden(actual),
                PolicyEffect::Permit => with_permits.filter(|_| one.is_missed).unwrap_or(actual),
            };
            ObservedPolicy {
                policy: one.placed.policy.id.clone(),
                at: one.placed.at.clone(),
                outcome: one.is_judged.then_some(outcome),
            }
        };
        self.0.into_iter().map(of).collect()
    }
}

impl ObservedResult<'_> {
    /// Outcome of the call, were this forbid enforced.
    fn forbidden(&self, actual: Outcome) -> Outcome {
        let is_held = self.placed.policy.stepup.is_some() && !self.has_failed;
        match (self.has_failed || !self.fired.is_empty(), is_held, actual) {
            (false, ..) | (true, true, Outcome::StepUp | Outcome::Deny) => actual,
            (true, true, Outcome::Permit) => Outcome::StepUp,
            (true, false, _) => Outcome::Deny,
        }
    }
}

/// Whether a policy reads the history of the session. Without the history it cannot be judged.
pub(super) fn reads_history(keys: Keys) -> bool {
    [
        Key::Session,
        Key::UnclearedLabels,
        Key::Remembered,
        Key::Sequences,
        Key::Budgets,
        Key::Origins,
        Key::Literals,
    ]
    .into_iter()
    .any(|key| keys.contains(key))
}
