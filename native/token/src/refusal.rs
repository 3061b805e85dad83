//! Why a credential was refused.

use std::fmt;

use serde::Serialize;

use crate::facts::Role;

/// The closed set of reasons for which evidence is refused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RefusalReason {
    /// No evidence was presented at all.
    NoCredential,
    /// Malformed, forged, of the wrong kind, or presented twice.
    BadCredential,
    /// Genuine, but its time is over, or still to come: two clocks may differ.
    ExpiredCredential,
    /// Genuine, but meant for another service.
    WrongAudience,
    /// Its trust domain, issuer or key is not one that is trusted.
    UntrustedIssuer,
    /// Genuine, but bound to a key whose possession was not proved.
    UnboundCredential,
    /// A proof of possession was presented, or its scheme demands one, and it was not accepted.
    BadProof,
    /// A proof of possession is sound but for its nonce, which must be one of ours (RFC 9449 §8).
    UseNonce,
}

impl RefusalReason {
    /// The reason code's name, as in the protocol.
    ///
    /// Returns: for example `BAD_CREDENTIAL`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoCredential => "NO_CREDENTIAL",
            Self::BadCredential => "BAD_CREDENTIAL",
            Self::ExpiredCredential => "EXPIRED_CREDENTIAL",
            Self::WrongAudience => "WRONG_AUDIENCE",
            Self::UntrustedIssuer => "UNTRUSTED_ISSUER",
            Self::UnboundCredential => "UNBOUND_CREDENTIAL",
            Self::BadProof | Self::UseNonce => "BAD_PROOF",
        }
    }
}

/// Whose keys a credential is verified by, as configured.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum KeyOwner {
    /// A trust domain.
    Domain(String),
    /// An issuer, by its alias.
    Issuer(String),
    /// Ourselves, as the issuer of task credentials.
    Own,
}

/// A refusal of the evidence: the caller is unauthenticated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Why, from the closed set.
    pub reason: RefusalReason,
    /// Whose credential it was; none where the evidence as a whole was refused.
    pub role: Option<Role>,
    /// What exactly, for the log: our own words and configured names, never a byte of a token that
    /// configuration does not hold.
    pub detail: String,
    /// Whose key the token names, where its owner has none of that name: it may have a new one by now.
    /// Whoever made the token chose it, so nothing but a look at the owner's keys may come of it.
    pub unknown_key: Option<KeyOwner>,
}

impl Refusal {
    /// Makes a refusal of the evidence as a whole.
    #[must_use]
    pub fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self { reason, role: None, detail: detail.into(), unknown_key: None }
    }

    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(RefusalReason::BadCredential, detail)
    }

    pub(crate) fn untrusted(detail: impl Into<String>) -> Self {
        Self::new(RefusalReason::UntrustedIssuer, detail)
    }

    pub(crate) fn unknown_key(owner: KeyOwner) -> Self {
        Self {
            unknown_key: Some(owner),
            ..Self::untrusted("the token's `kid` names no trusted key of its issuer")
        }
    }

    pub(crate) fn others_credential() -> Self {
        Self::bad("the task credential is another agent's than the one that presents it")
            .of(Role::Agent)
    }

    pub(crate) fn of(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.code())?;
        if let Some(role) = self.role {
            write!(f, " ({role})")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl std::error::Error for Refusal {}
