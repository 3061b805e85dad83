//! Identify: which agent and which subject does the evidence prove?

use std::time::Duration;

use authz_kernel::decision::Principal;
use authz_token::Facts;

use crate::judgement::CredentialNote;

/// Verified identity of the caller, and what the enforcer says about the call.
#[derive(Debug, Default)]
pub(crate) struct CallerIdentity {
    pub(crate) facts: Facts,
    /// Subject first, the caller last; empty until verified.
    pub(crate) chain: Vec<Principal>,
    /// Labels that the enforcer says the call carries.
    pub(crate) declared_labels: Vec<String>,
    /// Task credential that the call presents, issues or revokes.
    pub(crate) credential: Option<CredentialNote>,
    /// Duration of the verification.
    pub(crate) verify_time: Option<Duration>,
}
