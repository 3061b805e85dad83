//! Principals of a task, as they are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::principal::{Claim, Narrowing, Principal, Subject};
use crate::spiffe::{SpiffePatternError, check_pattern, segments};

/// Agent of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentName {
    /// `spiffe://<trust domain>/<path>`.
    pub spiffe_id: String,
    /// Its trust domain.
    pub trust_domain: String,
}

/// Defect of a text that is not the SPIFFE id of one workload.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum AgentNameError {
    /// The text is not a SPIFFE id.
    #[error(transparent)]
    Form(#[from] SpiffePatternError),
    /// The text is a pattern.
    #[error("it is a pattern, not the id of one agent")]
    Pattern,
}

impl AgentName {
    /// The agent of a SPIFFE id.
    ///
    /// # Errors
    /// The text is not the SPIFFE id of one workload.
    pub fn parse(spiffe_id: &str) -> Result<Self, AgentNameError> {
        check_pattern(spiffe_id)?;
        if spiffe_id.contains('*') {
            return Err(AgentNameError::Pattern);
        }
        let domain = segments(spiffe_id).next().unwrap_or_default();
        Ok(Self { spiffe_id: spiffe_id.to_owned(), trust_domain: domain.to_owned() })
    }

    /// The agent as policies know it.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal::Agent {
            spiffe_id: self.spiffe_id.clone(),
            trust_domain: self.trust_domain.clone(),
        }
    }
}

/// Subject of a task, as it was verified at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSubject {
    /// A service, not a person.
    #[serde(default)]
    pub is_service: bool,
    /// Alias of the issuer.
    pub issuer: String,
    /// `sub` of the token.
    pub sub: String,
    /// Kept claims.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, Claim>,
    /// `acr` of the token; empty where absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub acr: String,
}

impl TaskSubject {
    /// The subject of a principal. `None` for an agent.
    #[must_use]
    pub fn of(principal: &Principal, acr: &str) -> Option<Self> {
        let (is_service, subject) = match principal {
            Principal::User(subject) => (false, subject),
            Principal::Service(subject) => (true, subject),
            Principal::Agent { .. } => return None,
        };
        let (issuer, sub) = (subject.issuer.clone(), subject.sub.clone());
        Some(Self { is_service, issuer, sub, claims: subject.claims.clone(), acr: acr.to_owned() })
    }

    /// Name of the subject in a revocation: `<issuer alias>/<sub>`.
    #[must_use]
    pub fn revocation_name(issuer: &str, sub: &str) -> String {
        format!("{issuer}/{sub}")
    }

    /// Returns whether a principal is the subject.
    pub fn is(&self, principal: &Principal) -> bool {
        let (is_service, subject) = match principal {
            Principal::User(subject) => (false, subject),
            Principal::Service(subject) => (true, subject),
            Principal::Agent { .. } => return false,
        };
        is_service == self.is_service && subject.issuer == self.issuer && subject.sub == self.sub
    }

    /// Returns whether a principal is the subject with the same claims.
    pub(super) fn is_exactly(&self, principal: &Principal) -> bool {
        let (Principal::User(subject) | Principal::Service(subject)) = principal else {
            return false;
        };
        self.is(principal) && self.claims == subject.claims && subject.narrowed.is_empty()
    }

    /// The subject as policies know it.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.principal_with(Vec::new())
    }

    /// The subject as policies know it, without the roles that further tokens take away.
    pub(super) fn principal_with(&self, narrowed: Vec<Narrowing>) -> Principal {
        let subject = Arc::new(Subject {
            issuer: self.issuer.clone(),
            sub: self.sub.clone(),
            claims: self.claims.clone(),
            narrowed,
        });
        if self.is_service { Principal::Service(subject) } else { Principal::User(subject) }
    }
}
