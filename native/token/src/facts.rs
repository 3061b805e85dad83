//! What goes into verification, and what comes out of it.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::dpop::ProofFacts;
use crate::refusal::Refusal;
use crate::subject;

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted (RFC 7519 §2, NumericDate).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixTime(pub i64);

/// Whom a credential speaks for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// The workload that acts.
    Agent,
    /// The user or service on whose behalf it acts.
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

/// How a token was presented.
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
    /// Whom it is said to speak for.
    pub role: Role,
    /// The scheme under which it came.
    pub scheme: Scheme,
    /// The token in JWS compact serialization.
    pub token: &'a str,
    /// A proof of possession, where one came along.
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

/// How an agent was proved.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AgentProof {
    /// By a JWT-SVID that was presented.
    JwtSvid,
    /// By the X.509-SVID of the TLS connection that it asks by.
    X509Svid,
    /// By the word of an enforcer that relays whom it verified on a connection of its own.
    Relayed,
    /// By a task credential of ours.
    TaskCredential,
}

/// A verified agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentFacts {
    /// Its SPIFFE ID, for example `spiffe://a.example/ns/support/sa/bot`.
    pub spiffe_id: String,
    /// The trust domain of that ID, for example `a.example`.
    pub trust_domain: String,
    /// How it was proved.
    pub proof: AgentProof,
    /// Id of the key that verified the token; none without a token.
    pub kid: Option<String>,
    /// `iat` of the token, or when the certificate begins to be valid, in seconds since 1970; none
    /// where neither says.
    pub issued_at: Option<i64>,
    /// `exp` of the token, or the last second in which the certificate's path is valid, in seconds
    /// since 1970; none where only a name was relayed.
    pub expires_at: Option<i64>,
    /// SHA-256 of the whole token; none without a token.
    pub token_digest: Option<[u8; 32]>,
    /// SHA-256 of the certificate in DER; none without a certificate.
    pub certificate_digest: Option<[u8; 32]>,
    /// `jti`, if the token has one; for the audit, uniqueness is not tracked.
    pub jti: Option<String>,
    /// Whether whoever presented it proved to hold a key that it is bound to.
    pub bound: bool,
    /// `aud` of the token; empty without a token.
    pub audiences: Vec<String>,
}

impl AgentFacts {
    /// An agent of whom nothing but its name is known, and how that was proved.
    ///
    /// Args: `spiffe_id`: its SPIFFE ID; `trust_domain`: that of the ID; `proof`: how it was proved.
    #[must_use]
    pub fn named(spiffe_id: String, trust_domain: String, proof: AgentProof) -> Self {
        Self {
            spiffe_id,
            trust_domain,
            proof,
            kid: None,
            issued_at: None,
            expires_at: None,
            token_digest: None,
            certificate_digest: None,
            jti: None,
            bound: false,
            audiences: Vec::new(),
        }
    }
}

/// What kind of principal a subject is.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A person.
    #[default]
    User,
    /// A service account.
    Service,
}

/// The value of a claim kept for policy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ClaimValue {
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Long(i64),
    /// A text.
    String(String),
    /// An array of texts, as a set.
    Set(BTreeSet<String>),
}

/// A verified subject.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubjectFacts {
    /// The configured alias of its issuer, for example `corp`.
    pub issuer: String,
    /// Person or service, as configured for that issuer.
    pub kind: SubjectKind,
    /// `sub`: non-empty, at most 255 bytes, no control characters.
    pub sub: String,
    /// `typ` of the token's header in lower case, without a leading `application/`; empty where absent.
    pub token_type: String,
    /// The client that the token was issued to: `azp` (OpenID Connect Core §2), else `client_id` (RFC 9068 §2.2); empty
    /// where the token names none.
    pub client: String,
    /// Id of the issuer's key that verified the token, if the key has one.
    pub kid: Option<String>,
    /// The configured claims that the token holds, by name.
    pub claims: BTreeMap<String, ClaimValue>,
    /// `iat`, in seconds since 1970, if the token has one.
    pub issued_at: Option<i64>,
    /// `exp`, in seconds since 1970.
    pub expires_at: i64,
    /// `acr`: how the subject was authenticated (OpenID Connect Core §2).
    pub acr: Option<String>,
    /// `auth_time`: when the subject was authenticated, in seconds since 1970.
    pub auth_time: Option<i64>,
    /// `may_act`: who may act for this subject (RFC 8693 §4.4), as its text members by name; the
    /// agent beside this subject, if there is one, is it.
    pub may_act: Option<BTreeMap<String, String>>,
    /// SHA-256 of the whole token.
    pub token_digest: [u8; 32],
    /// `jti`, if the token has one; for the audit, uniqueness is not tracked.
    pub jti: Option<String>,
    /// Whether whoever presented it proved to hold a key that it is bound to.
    pub bound: bool,
    /// `aud` of the token.
    pub audiences: Vec<String>,
    /// Its token is for an `alone_audience`, and so is never shown beside an agent.
    pub is_for_alone: bool,
    /// No agent holds what proves it: its token is for an `alone_audience`, or bound to a key of the subject's own.
    pub is_alone: bool,
    /// What is made of the claims.
    pub made: Made,
}

/// What whoever reads facts makes of them, kept beside them so that it is made once for a token that comes often. It says
/// nothing that the facts do not, and so does not tell one from another.
#[derive(Clone, Default)]
pub struct Made(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Made {
    /// What was made before, or else what `make` makes. One type is kept; another is made each time.
    pub fn once<T: Any + Send + Sync>(&self, make: impl Fn() -> T) -> Arc<T> {
        let kept = Arc::clone(self.0.get_or_init(|| Arc::new(make())));
        kept.downcast().unwrap_or_else(|_| Arc::new(make()))
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").finish_non_exhaustive()
    }
}

impl PartialEq for Made {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Made {}

/// The key that a token is bound to: its only confirmation method (RFC 7800 §3.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Binding {
    /// `jkt`: the key of DPoP proofs, by its SHA-256 thumbprint (RFC 9449 §6.1, RFC 7638).
    Jkt([u8; 32]),
    /// `x5t#S256`: the client's certificate, by SHA-256 of its DER (RFC 8705 §3.1).
    X5t([u8; 32]),
}

impl Binding {
    /// Returns: the name of its member of `cnf`.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Jkt(_) => "jkt",
            Self::X5t(_) => "x5t#S256",
        }
    }

    /// Returns: the value of its member of `cnf`: 43 characters of base64url.
    #[must_use]
    pub fn text(self) -> String {
        let (Self::Jkt(digest) | Self::X5t(digest)) = self;
        URL_SAFE_NO_PAD.encode(digest)
    }
}

/// A verified task credential of ours. That it is still active is for whoever keeps its record to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialFacts {
    /// `jti`: its record's id.
    pub jti: String,
    /// `iss`: us.
    pub issuer: String,
    /// `task`: the id of the task that it is of.
    pub task: String,
    /// `aud`: the one audience that it is for.
    pub audience: String,
    /// `client_id`: the SPIFFE ID of the agent that acts.
    pub agent: String,
    /// `sub`: on whose behalf, `<issuer alias>/<sub>`; the first agent's SPIFFE ID where there is nobody.
    pub subject: String,
    /// `act`: the agents that act for `subject`, the one that acts now first (RFC 8693 §4.1).
    pub actors: Vec<String>,
    /// `decision_id` of each of its `authorization_details`, in their order.
    pub decisions: Vec<String>,
    /// `cnf`; what it names was proved.
    pub binding: Option<Binding>,
    /// `iat`, in seconds since 1970.
    pub issued_at: i64,
    /// `exp`, in seconds since 1970.
    pub expires_at: i64,
    /// SHA-256 of the whole token.
    pub token_digest: [u8; 32],
    /// Id of our key that verified it.
    pub kid: String,
}

/// Who is calling, and for whom; at least one is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// The agent, if its credential was presented.
    pub agent: Option<Arc<AgentFacts>>,
    /// The subject, if its credential was presented.
    pub subject: Option<Arc<SubjectFacts>>,
    /// The task credential, if one was presented; it is the agent's.
    pub credential: Option<Arc<CredentialFacts>>,
    /// The proofs of possession that came along, in the order of the evidence.
    pub proofs: Vec<ProofFacts>,
}

impl Facts {
    /// Puts in an agent that was proved otherwise than by a token, in place of one that was.
    ///
    /// Args: `agent`: who acts.
    /// Returns: the facts with that agent.
    /// Errors: [`crate::RefusalReason::BadCredential`] where the subject's token has a `may_act` (RFC
    /// 8693 §4.4) that is not this agent, or the task credential is another agent's.
    pub fn with_agent(self, agent: Arc<AgentFacts>) -> Result<Self, Refusal> {
        if self.credential.as_ref().is_some_and(|credential| credential.agent != agent.spiffe_id) {
            return Err(Refusal::others_credential());
        }
        if let Some(subject) = &self.subject {
            subject::check_actor(subject, &agent).map_err(|refusal| refusal.of(Role::Subject))?;
        }
        Ok(Self { agent: Some(agent), ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_made_once() {
        let made = Made::default();
        let again = made.clone();
        let one = made.once(|| 1_u8);
        assert!(Arc::ptr_eq(&one, &made.once(|| 2)));
        assert!(Arc::ptr_eq(&one, &made.clone().once(|| 2)), "a copy of the facts keeps it");
        assert_eq!("three", *made.once(|| "three"), "another type is made each time");
        assert_eq!(2, *again.once(|| 2_u8), "what was made later is not in an earlier copy");
        assert_eq!(made, again);
    }
}
