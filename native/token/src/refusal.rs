//! Refusals of credentials.

use std::fmt;

use serde::Serialize;

use crate::evidence::Role;

/// Reason for which evidence is refused.
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
    /// Its trust domain, issuer or key is not trusted.
    UntrustedIssuer,
    /// Genuine, but bound to a key whose possession was not proved.
    UnboundCredential,
    /// A proof of possession was presented, or its scheme demands one, and it was not accepted.
    BadProof,
    /// The nonce of an otherwise valid proof of possession is not one of ours (RFC 9449 §8).
    UseNonce,
}

impl RefusalReason {
    /// Name of the reason code in the protocol, for example `BAD_CREDENTIAL`.
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

/// Configured owner of the keys that verify a credential.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name")]
pub enum KeyOwner {
    /// A trust domain.
    Domain(String),
    /// An issuer, by its alias.
    Issuer(String),
    /// The issuer of task credentials: Authz itself.
    Own,
}

/// A refusal of the evidence: the caller is unauthenticated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Reason of the refusal.
    pub reason: RefusalReason,
    /// Role of the refused credential. `None` if the evidence as a whole was refused.
    pub role: Option<Role>,
    /// Defect of the evidence, for the log: our own words and configured names, never a byte of a token that
    /// configuration does not hold.
    pub detail: String,
    /// Owner whose keys lack the key that the token names: the owner may have published it meanwhile. The maker
    /// of the token chose the name, so it may cause a fetch of the owner's keys and nothing else.
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
