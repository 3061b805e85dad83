//! Requirements of tiers.

use std::time::Duration;

/// Requirements of a tier beyond policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierRequirements {
    /// The caller's credential must be bound to a key that the caller proved.
    pub bound: bool,
    /// The caller's credential must be at most this old.
    pub max_age: Option<Duration>,
    /// Least confidence, 0–100.
    pub confidence: u8,
    /// People who must agree.
    pub approval: TierApproval,
    /// A verified subject must stand in the chain.
    pub subject: bool,
    /// The audit record is on disk before the answer leaves. Calls of tier high and above have that in any case.
    pub durable_audit: bool,
}

/// People who must agree before an operation of a tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TierApproval {
    /// No one.
    #[default]
    None,
    /// The subject.
    Confirm,
    /// Another person.
    Approve,
    /// Two other persons.
    TwoPerson,
}
