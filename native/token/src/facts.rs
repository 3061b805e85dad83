//! Facts that verified credentials prove.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::evidence::Role;
use crate::refusal::{Refusal, RefusalReason};
use authz_base::uri;

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted (RFC 7519 §2, NumericDate).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UnixTime(pub i64);

/// Proof of an agent's identity.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AgentProof {
    /// A JWT-SVID that was presented.
    JwtSvid,
    /// The X.509-SVID of the TLS connection of the call.
    X509Svid,
    /// The statement of an enforcer that verified the agent on a connection of its own.
    Relayed,
    /// A task credential of ours.
    TaskCredential,
}

/// Verified agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentFacts {
    /// Its SPIFFE ID, for example `spiffe://a.example/ns/support/sa/bot`.
    pub spiffe_id: String,
    /// The trust domain of that ID, for example `a.example`.
    pub trust_domain: String,
    /// Proof of its identity.
    pub proof: AgentProof,
    /// Id of the key that verified the token. `None` without a token.
    pub kid: Option<String>,
    /// `iat` of the token, or the begin of the certificate's validity, in seconds since 1970. `None` if the
    /// credential states neither.
    pub issued_at: Option<i64>,
    /// `exp` of the token, or the last second in which the certificate's path is valid, in seconds
    /// since 1970. `None` if only a name was relayed.
    pub expires_at: Option<i64>,
    /// SHA-256 of the whole token. `None` without a token.
    pub token_digest: Option<[u8; 32]>,
    /// SHA-256 of the certificate in DER. `None` without a certificate.
    pub certificate_digest: Option<[u8; 32]>,
    /// `jti`, if the token has one; for the audit, uniqueness is not tracked.
    pub jti: Option<String>,
    /// The caller proved a key to which the credential is bound.
    pub bound: bool,
    /// `aud` of the token; empty without a token.
    pub audiences: Vec<String>,
}

impl AgentFacts {
    /// An agent of which only the name and its proof are known.
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

/// Verified TLS peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerFacts {
    /// Its SPIFFE ID, for example `spiffe://a.example/ns/tools/sa/crm`.
    pub spiffe_id: String,
    /// The trust domain of that ID, for example `a.example`.
    pub trust_domain: String,
    /// When its own certificate begins to be valid, in seconds since 1970.
    pub issued_at: i64,
    /// When the last certificate of its path begins to be valid, in seconds since 1970.
    pub not_before: i64,
    /// The last second in which the whole path is valid, in seconds since 1970.
    pub expires_at: i64,
    /// SHA-256 of its certificate in DER: the value of `cnf.x5t#S256` (RFC 8705 §3.1).
    pub certificate_digest: [u8; 32],
}

impl PeerFacts {
    /// The peer as the agent that acts.
    #[must_use]
    pub fn agent(&self, proof: AgentProof) -> AgentFacts {
        AgentFacts {
            spiffe_id: self.spiffe_id.clone(),
            trust_domain: self.trust_domain.clone(),
            proof,
            kid: None,
            issued_at: Some(self.issued_at),
            expires_at: Some(self.expires_at),
            token_digest: None,
            certificate_digest: Some(self.certificate_digest),
            jti: None,
            bound: true,
            audiences: Vec::new(),
        }
    }
}

/// Kind of a subject.
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

/// Verified subject.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SubjectFacts {
    /// The configured alias of its issuer, for example `corp`.
    pub issuer: String,
    /// Person or service, as the configuration of the issuer says.
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
    /// `acr`: class of the subject's authentication (OpenID Connect Core §2).
    pub acr: Option<String>,
    /// `auth_time`: time of the subject's authentication, in seconds since 1970.
    pub auth_time: Option<i64>,
    /// `may_act`: the actor that may act for this subject (RFC 8693 §4.4), as its text members by name. An
    /// agent beside this subject is that actor.
    pub may_act: Option<BTreeMap<String, String>>,
    /// SHA-256 of the whole token.
    pub token_digest: [u8; 32],
    /// `jti`, if the token has one; for the audit, uniqueness is not tracked.
    pub jti: Option<String>,
    /// The caller proved a key to which the credential is bound.
    pub bound: bool,
    /// `aud` of the token.
    pub audiences: Vec<String>,
    /// The token is for an `alone_audience`, and so is never presented beside an agent.
    pub is_for_alone: bool,
    /// No agent can prove the subject: the token is for an `alone_audience`, or bound to a key of the subject's own.
    pub is_alone: bool,
    /// Value that a reader of the facts derives from the claims.
    pub derived: DerivedValue,
}

impl SubjectFacts {
    /// Checks the agent that acts for the subject against the `may_act` of the subject's token (RFC 8693 §4.4).
    ///
    /// The cache keeps a token without the agent beside it, so each pair is checked anew. A member other than
    /// `sub` limits the actor by something that an SVID does not have, such as an issuer or a client id; to
    /// leave it out would lift the limit.
    ///
    /// A token for an `alone_audience` is [`RefusalReason::WrongAudience`] beside an agent: it no longer proves
    /// that the subject is alone, and the agent would have it from then on.
    pub(crate) fn check_actor(&self, agent: &AgentFacts) -> Result<(), Refusal> {
        if self.is_for_alone {
            return Err(Refusal::new(
                RefusalReason::WrongAudience,
                "the subject's token is for an `alone_audience`, and an agent is beside it",
            ));
        }
        let Some(actor) = &self.may_act else { return Ok(()) };
        if actor.keys().any(|member| member != "sub") {
            return Err(Refusal::bad(
                "the token's `may_act` has a member other than `sub`, which no agent can meet",
            ));
        }
        if actor.get("sub") != Some(&agent.spiffe_id) {
            return Err(Refusal::bad(
                "the token's `may_act` does not name the agent that acts for its subject",
            ));
        }
        Ok(())
    }
}

/// Value that a reader derives from facts, kept beside them so that it is derived once for a token that comes often.
///
/// It adds nothing to the facts, so any two are equal.
#[derive(Clone, Default)]
pub struct DerivedValue(OnceLock<Arc<dyn Any + Send + Sync>>);

impl DerivedValue {
    /// Returns the value that was derived before, or derives it. A value of a second type is derived each time.
    pub fn get_or_derive<T: Any + Send + Sync>(&self, derive: impl Fn() -> T) -> Arc<T> {
        let value = Arc::clone(self.0.get_or_init(|| Arc::new(derive())));
        value.downcast().unwrap_or_else(|_| Arc::new(derive()))
    }
}

impl fmt::Debug for DerivedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DerivedValue").finish_non_exhaustive()
    }
}

impl PartialEq for DerivedValue {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for DerivedValue {}

/// Key to which a token is bound: its only confirmation method (RFC 7800 §3.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyBinding {
    /// `jkt`: the key of DPoP proofs, by its SHA-256 thumbprint (RFC 9449 §6.1, RFC 7638).
    Jkt([u8; 32]),
    /// `x5t#S256`: the client's certificate, by SHA-256 of its DER (RFC 8705 §3.1).
    X5t([u8; 32]),
}

impl KeyBinding {
    /// Name of its member of `cnf`.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Jkt(_) => "jkt",
            Self::X5t(_) => "x5t#S256",
        }
    }

    /// Value of its member of `cnf`: 43 characters of base64url.
    #[must_use]
    pub fn text(self) -> String {
        let (Self::Jkt(digest) | Self::X5t(digest)) = self;
        URL_SAFE_NO_PAD.encode(digest)
    }
}

/// Verified task credential of ours. The caller checks in its record that it is still active.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialFacts {
    /// `jti`: id of its record.
    pub jti: String,
    /// `iss`: us.
    pub issuer: String,
    /// `task`: id of its task.
    pub task: String,
    /// `aud`: its only audience.
    pub audience: String,
    /// `client_id`: the SPIFFE ID of the agent that acts.
    pub agent: String,
    /// `sub`: the subject, `<issuer alias>/<sub>`; without a subject, the first agent's SPIFFE ID.
    pub subject: String,
    /// `act`: the agents that act for `subject`, the one that acts now first (RFC 8693 §4.1).
    pub actors: Vec<String>,
    /// `decision_id` of each of its `authorization_details`, in their order.
    pub decisions: Vec<String>,
    /// `cnf`; the caller proved its key.
    pub binding: Option<KeyBinding>,
    /// `iat`, in seconds since 1970.
    pub issued_at: i64,
    /// `exp`, in seconds since 1970.
    pub expires_at: i64,
    /// SHA-256 of the whole token.
    pub token_digest: [u8; 32],
    /// Id of our key that verified it.
    pub kid: String,
}

/// Verified proof of possession. The caller checks that it was not used before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProofFacts {
    /// The SHA-256 thumbprint of its key (RFC 7638) in base64url.
    pub jkt: String,
    /// SHA-256 of its `jti`.
    pub jti_digest: [u8; 32],
    /// `htm`: the method of the HTTP request that it is for.
    pub htm: String,
    /// `htu`: the URI of that request, in normal form and without query and fragment.
    pub htu: String,
    /// `iat`, in seconds since 1970.
    pub iat: i64,
    /// The last second in which it is accepted, in seconds since 1970. Until then the caller must recognise a
    /// second use.
    pub expires_at: i64,
    /// Principal with whose credential the proof was presented; without a credential, the agent.
    pub role: Role,
}

impl ProofFacts {
    /// Returns whether the proof was made for a request (RFC 9449 §4.3).
    ///
    /// Methods are compared with regard to case, URIs in normal form (RFC 3986 §6.2.2, §6.2.3) and without
    /// query and fragment. False if `uri` is not an absolute `http` or `https` URI.
    #[must_use]
    pub fn is_for(&self, method: &str, uri: &str) -> bool {
        self.htm == method && uri::normal(uri).is_some_and(|uri| uri == self.htu)
    }
}

/// The verified caller: an agent, a subject, or an agent that acts for a subject.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VerifiedFacts {
    /// The agent, if its credential was presented.
    pub agent: Option<Arc<AgentFacts>>,
    /// The subject, if its credential was presented.
    pub subject: Option<Arc<SubjectFacts>>,
    /// The task credential of the agent, if it was presented.
    pub credential: Option<Arc<CredentialFacts>>,
    /// The proofs of possession that were presented, in the order of the evidence.
    pub proofs: Vec<ProofFacts>,
}

impl VerifiedFacts {
    /// The facts with an agent that was proved otherwise than by a token, in place of their own.
    ///
    /// # Errors
    /// [`RefusalReason::BadCredential`] if the subject's token has a `may_act` (RFC 8693 §4.4) that does not
    /// name this agent, or the task credential is another agent's.
    pub fn with_agent(self, agent: Arc<AgentFacts>) -> Result<Self, Refusal> {
        if self.credential.as_ref().is_some_and(|credential| credential.agent != agent.spiffe_id) {
            return Err(Refusal::others_credential());
        }
        if let Some(subject) = &self.subject {
            subject.check_actor(&agent).map_err(|refusal| refusal.of(Role::Subject))?;
        }
        Ok(Self { agent: Some(agent), ..self })
    }
}

/// What a guard states about one call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfidenceFacts {
    /// Name of the guard in the configuration.
    pub guard: String,
    /// Task of the call; empty for a call without one.
    pub task: String,
    /// Operation of the call.
    pub operation: String,
    /// SHA-256 of the canonical arguments (RFC 8785).
    pub arguments_digest: [u8; 32],
    /// Confidence that the call is meant, 0 to 100.
    pub confidence: u8,
    /// Time of the statement, in seconds since 1970.
    pub issued_at: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_derived_once() {
        let derived = DerivedValue::default();
        let earlier_copy = derived.clone();
        let first = derived.get_or_derive(|| 1_u8);
        assert!(Arc::ptr_eq(&first, &derived.get_or_derive(|| 2)));
        assert!(Arc::ptr_eq(&first, &derived.clone().get_or_derive(|| 2)), "a copy keeps it");
        assert_eq!("three", *derived.get_or_derive(|| "three"), "another type, each time");
        assert_eq!(2, *earlier_copy.get_or_derive(|| 2_u8), "an earlier copy does not have it");
        assert_eq!(derived, earlier_copy);
    }
}
