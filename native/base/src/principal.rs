//! Principals: the users, services and agents that a call is made by or for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Most principals in the chain of a call.
pub const MAX_CHAIN: usize = 8;

/// A verified principal of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A person.
    User(Arc<Subject>),
    /// A service on whose behalf an agent acts.
    Service(Arc<Subject>),
    /// A workload.
    Agent {
        /// `spiffe://<trust domain>/<path>`, already checked for form.
        spiffe_id: String,
        /// Its trust domain.
        trust_domain: String,
    },
}

/// A verified subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Alias of the issuer.
    pub issuer: String,
    /// `sub` of the token.
    pub sub: String,
    /// Kept claims.
    pub claims: BTreeMap<String, Claim>,
    /// Roles that these claims would give, and that further tokens take away.
    pub narrowed: Vec<Narrowing>,
}

/// Takes away the roles that one set of claims gives and another does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Narrowing {
    /// `None`: every role that `to` does not give is taken away.
    pub from: Option<BTreeMap<String, Claim>>,
    /// The claims of the token that counts.
    pub to: BTreeMap<String, Claim>,
}

/// A kept claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Claim {
    /// JSON true or false.
    Bool(bool),
    /// An integer.
    Long(i64),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}
