//! Credentials as they were received.

use std::fmt;

/// Principal for which a credential speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// The workload that acts.
    Agent,
    /// The user or service on whose behalf the agent acts.
    Subject,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Subject => "subject",
        })
    }
}

/// Authentication scheme of a token.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    /// `Bearer` (RFC 6750).
    Bearer,
    /// `DPoP` (RFC 9449).
    Dpop,
    /// `WPT` (workload proof token).
    Wpt,
    /// Any other.
    Other,
}

/// One credential as it was received.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Principal for which the caller presents the token.
    pub role: Role,
    /// Scheme of the token.
    pub scheme: Scheme,
    /// The token in JWS compact serialization.
    pub token: &'a str,
    /// Proof of possession that came with the token.
    pub proof: Option<&'a str>,
}

// Written by hand so that no log can hold a token.
impl fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence")
            .field("role", &self.role)
            .field("scheme", &self.scheme)
            .field("token_bytes", &self.token.len())
            .field("proof", &self.proof.is_some())
            .finish()
    }
}
