//! Rules that bind an answer to the call that a person saw. Tests disable one rule at a time and must detect that.

/// A rule that binds an answer to its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The digest names the arguments of the call.
    Digest,
    /// The use of an approval is written with the changes of the permit.
    Consumption,
    /// The call is judged again at its use.
    SecondJudgement,
    /// A rule counts by its id and the hash of its text.
    RuleIdentity,
    /// A queue of a role accepts only answers of people with this role.
    Role,
    /// Answers and approvals end.
    Expiry,
    /// The subject of a call cannot approve it.
    ChainExclusion,
    /// A rejection is remembered.
    Rejections,
}

impl Guard {
    /// All rules.
    pub const ALL: [Self; 8] = [
        Self::Digest,
        Self::Consumption,
        Self::SecondJudgement,
        Self::RuleIdentity,
        Self::Role,
        Self::Expiry,
        Self::ChainExclusion,
        Self::Rejections,
    ];
}

/// Whether a rule is in force: always, but where a test took it away in its own thread.
#[cfg(not(feature = "test-support"))]
pub(crate) const fn holds(_guard: Guard) -> bool {
    true
}

#[cfg(feature = "test-support")]
thread_local! {
    static REMOVED: std::cell::Cell<Option<Guard>> = const { std::cell::Cell::new(None) };
}

/// Whether a rule is in force: always, but where a test took it away in its own thread.
#[cfg(feature = "test-support")]
pub(crate) fn holds(guard: Guard) -> bool {
    REMOVED.get() != Some(guard)
}

/// Disables a rule on this thread. `None` puts all rules in force again.
#[cfg(feature = "test-support")]
pub fn remove_guard(guard: Option<Guard>) {
    REMOVED.set(guard);
}
