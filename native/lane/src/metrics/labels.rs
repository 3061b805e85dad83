//! Values of labels: closed sets of events.

use serde::Serialize;

/// Event of a task credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialEvent {
    /// The credential was issued.
    Issued,
    /// The credential was presented, and its operation permitted again.
    Redeemed,
    /// The credential itself was revoked.
    Revoked,
    /// The record of the credential was removed, some time after its end.
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

/// Outcome of an entry of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogEntry {
    /// The entry settled a permit.
    Settled,
    /// No permit of the decision is open: it was a refusal, is not stored, was reported before, or counts as done.
    NothingOpen,
    /// The entry names no decision.
    NoDecision,
    /// The request is not over.
    NotFinal,
    /// The catalog names another reporter for the system, or none.
    OtherReporter,
    /// Another enforcer asked for the decision.
    Refused,
    /// The entry, or its message, cannot be read or is too large.
    Malformed,
    /// The outcome could not be stored.
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

/// Change of the revocations by an administrator.
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

/// Event of an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ApprovalEvent {
    /// A call made it.
    Made,
    /// A call found it, and it has no final answer or cannot be used yet.
    Repeated,
    /// A permitted call used it up.
    Consumed,
    /// A call was refused because of it.
    Refused,
    /// A person answered, and another queue still lacks an answer.
    Answered,
    /// The last queue approved it.
    Approved,
    /// A person rejected it.
    Rejected,
    /// It ended without the answers that it needs.
    Expired,
    /// It was approved, and no call used it in time.
    Unused,
    /// The people who approved it endorsed its values.
    Endorsed,
    /// A call was permitted because people endorsed its values.
    Relied,
}

impl ApprovalEvent {
    /// All events.
    pub(crate) const ALL: [Self; 11] = [
        Self::Made,
        Self::Repeated,
        Self::Consumed,
        Self::Refused,
        Self::Answered,
        Self::Approved,
        Self::Rejected,
        Self::Expired,
        Self::Unused,
        Self::Endorsed,
        Self::Relied,
    ];

    /// Label of the metric.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Repeated => "repeated",
            Self::Consumed => "consumed",
            Self::Refused => "refused",
            Self::Answered => "answered",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Unused => "unused",
            Self::Endorsed => "endorsed",
            Self::Relied => "relied",
        }
    }
}
