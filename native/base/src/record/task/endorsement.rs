//! Values that people endorsed in a task: for some operations and for a while they count as `named`.

use serde::{Deserialize, Serialize};

use super::Task;
use crate::record::history::ValueFingerprint;
use crate::tier::Tier;
use crate::time::Time;

/// Most endorsed values of a task.
pub const MAX_ENDORSED: usize = 32;

/// Endorsement that an approved call brought: what the person was shown, and how often it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// Approval whose answer gave it.
    pub approval_id: String,
    /// People who gave it.
    pub by: Vec<String>,
    /// All of them used a passkey.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_passkey: bool,
    /// Ids of the operations for which the values count as `named`.
    pub operations: Vec<String>,
    /// Identities of the rules that it lifts: those that the approval showed.
    pub rules: Vec<String>,
    /// Highest effective tier.
    pub tier: Tier,
    /// Labels that a call may carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// End.
    pub until: Time,
    /// The values.
    pub values: Vec<EndorsedValue>,
}

/// One endorsed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndorsedValue {
    /// Keyed fingerprint of the value.
    pub fingerprint: ValueFingerprint,
    /// Calls that it still covers.
    pub uses_left: u32,
}

/// A call, as far as endorsements are limited by it.
#[derive(Clone, Copy, Debug)]
pub struct EndorsedCall<'a> {
    /// Operation id.
    pub operation: &'a str,
    /// Effective tier.
    pub tier: Tier,
    /// Labels that the call carries.
    pub labels: &'a [String],
    /// Identities of the rules that hold it.
    pub rules: &'a [&'a str],
    /// The call needs answers by passkey.
    pub needs_passkey: bool,
    /// Time of the call.
    pub now: Time,
}

impl Endorsement {
    /// Returns whether a call is within the limits that the person was shown.
    #[must_use]
    pub fn is_for(&self, call: &EndorsedCall<'_>) -> bool {
        call.now < self.until
            && call.tier <= self.tier
            && (self.by_passkey || !call.needs_passkey)
            && self.operations.iter().any(|operation| operation == call.operation)
            && call.labels.iter().all(|label| self.labels.contains(label))
            && call.rules.iter().all(|rule| self.rules.iter().any(|known| known == rule))
    }
}

impl Task {
    /// The endorsement that covers a value for a call.
    #[must_use]
    pub fn endorsement(
        &self,
        value: ValueFingerprint,
        call: &EndorsedCall<'_>,
    ) -> Option<&Endorsement> {
        let has_use = |one: &EndorsedValue| one.fingerprint == value && one.uses_left > 0;
        self.endorsements.iter().find(|one| one.is_for(call) && one.values.iter().any(has_use))
    }

    /// Takes one use of a value of an endorsement. Returns false if none is left.
    #[must_use]
    pub fn use_endorsed(&mut self, approval_id: &str, value: ValueFingerprint) -> bool {
        let of_approval = self.endorsements.iter_mut().filter(|one| one.approval_id == approval_id);
        let mut values = of_approval.flat_map(|one| &mut one.values);
        let Some(one) = values.find(|one| one.fingerprint == value && one.uses_left > 0) else {
            return false;
        };
        one.uses_left = one.uses_left.saturating_sub(1);
        true
    }

    /// Adds an endorsement, and forgets values that no longer count. Returns false if the task has too many endorsed values.
    #[must_use]
    pub fn endorse(&mut self, endorsement: Endorsement, now: Time) -> bool {
        for one in &mut self.endorsements {
            one.values.retain(|value| value.uses_left > 0);
        }
        self.endorsements.retain(|one| one.until > now && !one.values.is_empty());
        let kept: usize = self.endorsements.iter().map(|one| one.values.len()).sum();
        let has_room = kept.saturating_add(endorsement.values.len()) <= MAX_ENDORSED;
        if has_room {
            self.endorsements.push(endorsement);
        }
        has_room
    }

    /// Forgets the endorsements of some values. Returns whether there were any.
    #[must_use]
    pub fn forget_endorsed(&mut self, values: &[ValueFingerprint]) -> bool {
        let mut has_changed = false;
        for one in &mut self.endorsements {
            let before = one.values.len();
            one.values.retain(|value| !values.contains(&value.fingerprint));
            has_changed |= one.values.len() != before;
        }
        self.endorsements.retain(|one| !one.values.is_empty());
        has_changed
    }
}
