//! Answer that a shadow bundle would have given to a call.

use authz_kernel::decision::{DecidingRule, Outcome};
use authz_kernel::reason::ReasonCode;
use authz_kernel::shadow::ShadowGap;

/// Answer of the shadow bundle to a call, compared with the answer of the bundle that serves.
#[derive(Debug)]
pub(crate) enum ShadowAnswer {
    /// Both let the call through, hold it for the same kinds of step-up, or deny it.
    Equal,
    /// The shadow bundle would answer with another outcome, or hold the call for other kinds.
    Differs(Box<ShadowDifference>),
    /// The two cannot be compared.
    NotCompared(ShadowGap),
}

/// Answer of the shadow bundle that differs.
#[derive(Debug)]
pub(crate) struct ShadowDifference {
    /// SHA-256 of the files of the shadow bundle, in hex.
    pub(crate) digest: String,
    /// Outcome, after the `mode` of the shadow bundle.
    pub(crate) outcome: Outcome,
    /// Reason of the outcome before its `mode`.
    pub(crate) reason: ReasonCode,
    /// Kinds of step-up.
    pub(crate) kinds: Vec<String>,
    /// Rules that determined the outcome, policies included.
    pub(crate) rules: Vec<DecidingRule>,
}
