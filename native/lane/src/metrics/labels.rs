//! Values of labels: closed sets of events.

/// What becomes of a task credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialEvent {
    /// It was issued.
    Issued,
    /// It was presented, and its operation permitted again.
    Redeemed,
    /// It was revoked by itself.
    Revoked,
    /// It is no longer kept, a while after its end.
    Expired,
}

impl CredentialEvent {
    /// All, in order.
    pub(super) const ALL: [Self; 4] = [Self::Issued, Self::Redeemed, Self::Revoked, Self::Expired];

    /// The word used in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Redeemed => "redeemed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// What comes of an entry of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogEntry {
    /// It told what came of a permit.
    Settled,
    /// No permit of its decision is open: it was none, keeps nothing, was told before, or counts as done.
    NothingOpen,
    /// It names no decision.
    NoDecision,
    /// The request is not over.
    NotFinal,
    /// The catalog names another reporter for the system, or none.
    OtherReporter,
    /// Whoever tells may not: another enforcer asked.
    Refused,
    /// It, or its message, cannot be read or is too large.
    Malformed,
    /// What came could not be kept.
    Failed,
}

impl LogEntry {
    /// All, in order.
    pub(super) const ALL: [Self; 8] = [
        Self::Settled,
        Self::NothingOpen,
        Self::NoDecision,
        Self::NotFinal,
        Self::OtherReporter,
        Self::Refused,
        Self::Malformed,
        Self::Failed,
    ];

    /// The word used in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::NothingOpen => "nothing_open",
            Self::NoDecision => "no_decision",
            Self::NotFinal => "not_final",
            Self::OtherReporter => "other_reporter",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Failed => "failed",
        }
    }
}

/// How a call of the kill switch changes what is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevocationChange {
    /// A target was revoked.
    Revoked,
    /// A revocation was lifted.
    Undone,
}

impl RevocationChange {
    /// All, in order.
    pub(super) const ALL: [Self; 2] = [Self::Revoked, Self::Undone];

    /// The word used in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Undone => "undone",
        }
    }
}
