//! Refusal of a call, before the policies judge it or instead of their decision.

use authz_kernel::reason::ReasonCode;
use authz_token::{Refusal, RefusalReason};

/// Step of a call that refuses it, as audit records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Identify,
    Resolve,
    Locate,
    Judge,
    Record,
}

impl Step {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Resolve => "resolve",
            Self::Locate => "locate",
            Self::Judge => "judge",
            Self::Record => "record",
        }
    }
}

/// Refusal of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallRefusal {
    pub(crate) reason: ReasonCode,
    pub(crate) step: Step,
    /// Message for the enforcer. It never holds bytes of the request.
    pub(crate) message: String,
    /// The request was read whole, in the only way it can be read. Otherwise no `mode` lets it through.
    pub(crate) understood: bool,
    /// The proof of possession lacks a nonce of Authz (RFC 9449 §8).
    pub(crate) use_nonce: bool,
}

impl CallRefusal {
    pub(crate) fn new(reason: ReasonCode, step: Step, message: impl Into<String>) -> Self {
        Self { reason, step, message: message.into(), understood: false, use_nonce: false }
    }

    /// The refusal of a token or of a proof of possession.
    pub(crate) fn of_token(refusal: &Refusal) -> Self {
        let reason = refusal_reason(refusal.reason);
        let use_nonce = refusal.reason == RefusalReason::UseNonce;
        Self { use_nonce, ..Self::new(reason, Step::Identify, refusal.to_string()) }
    }

    pub(crate) fn credential(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::BadCredential, Step::Identify, message)
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::BadInput, Step::Resolve, message)
    }

    pub(crate) fn ambiguous(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::AmbiguousRequest, Step::Resolve, message)
    }
}

const fn refusal_reason(reason: RefusalReason) -> ReasonCode {
    match reason {
        RefusalReason::NoCredential => ReasonCode::NoCredential,
        RefusalReason::BadCredential => ReasonCode::BadCredential,
        RefusalReason::ExpiredCredential => ReasonCode::ExpiredCredential,
        RefusalReason::WrongAudience => ReasonCode::WrongAudience,
        RefusalReason::UntrustedIssuer => ReasonCode::UntrustedIssuer,
        RefusalReason::UnboundCredential => ReasonCode::UnboundCredential,
        RefusalReason::BadProof | RefusalReason::UseNonce => ReasonCode::BadProof,
    }
}
