//! The identity of a caller, as a test or a tool states it.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Claim, Time};
use authz_kernel::task::AgentName;
use authz_token::{
    AgentFacts, AgentProof, ClaimValue, CredentialFacts, DerivedValue, KeyBinding, PeerFacts,
    SubjectFacts, SubjectKind, VerifiedFacts,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::judgement::{Asker, CallerIdentity, CredentialNote, EnforcerProof};
use crate::steps::identify::chain_of;
use crate::world::Enforcer;

/// How long a stated subject token lasts from the time of its call, in seconds: longer than any task.
const TOKEN_SECONDS: i64 = 10 * 365 * 24 * 3_600;

/// A caller whose identity is stated, and the enforcer that asks. Only an [`OfflineEngine`](crate::offline::OfflineEngine) takes
/// one.
#[derive(Clone, Debug, Default)]
pub struct StatedCaller {
    /// The agent that acts. Default: none, the subject acts itself.
    pub agent: Option<AgentName>,
    /// The subject on whose behalf it acts. Default: none.
    pub subject: Option<StatedSubject>,
    /// The task credential that the agent presents. It proves the agent, so `agent` does not count beside it. Default: none.
    pub credential: Option<StatedCredential>,
    /// Age of the caller's own credential, in seconds.
    pub age: i64,
    /// The caller proves to hold the key that its credential is bound to.
    pub is_bound: bool,
    /// Name of the enforcer that asks; may be empty.
    pub enforcer: String,
    /// The enforcer is a front end, which relays what users write.
    pub is_front_end: bool,
    /// Confidence that a guard states for the call, 0 to 100.
    pub confidence: u8,
    /// Step-up kinds that people have met for the call: `confirm`, `approve`, `two_person`, `approve:ROLE`.
    pub satisfied: Vec<String>,
}

/// A stated subject.
#[derive(Clone, Debug)]
pub struct StatedSubject {
    /// Alias of its issuer.
    pub issuer: String,
    /// `sub` of its token.
    pub sub: String,
    /// Person or service.
    pub kind: SubjectKind,
    /// Claims of its token that are kept for policy.
    pub claims: BTreeMap<String, Claim>,
    /// `acr` of its token; empty: the token has none.
    pub acr: String,
    /// No agent holds what proves the subject.
    pub is_alone: bool,
}

/// A task credential that an [`OfflineEngine`](crate::offline::OfflineEngine) issued.
#[derive(Clone, Debug)]
pub struct StatedCredential {
    claims: CredentialClaims,
    binding: Option<KeyBinding>,
}

/// Claims of a task credential, as the engine gives them to its signer.
#[derive(Clone, Debug, Deserialize)]
struct CredentialClaims {
    jti: String,
    iss: String,
    sub: String,
    client_id: String,
    aud: String,
    iat: i64,
    exp: i64,
    task: String,
}

/// The answer to an `Issue`, as far as it is read here.
#[derive(Deserialize)]
struct IssueAnswer {
    claims: String,
}

impl StatedCredential {
    /// Reads the answer of [`Engine::issue`](crate::Engine); none where it holds no token.
    pub(super) fn of_answer(answer: &[u8], key: Option<&str>) -> Option<Self> {
        let answer: IssueAnswer = serde_json::from_slice(answer).ok()?;
        let claims = serde_json::from_str(&answer.claims).ok()?;
        Some(Self { claims, binding: key.map(|key| KeyBinding::X5t(digest_of(key))) })
    }

    /// Id of the task that the credential is of.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.claims.task
    }

    /// The agent that the credential proves.
    ///
    /// Args: `age`: age of the credential, in seconds, where the caller states one.
    fn agent(&self, age: i64, now: i64) -> AgentFacts {
        let Self { claims, binding } = self;
        let trust_domain = AgentName::parse(&claims.client_id).map(|name| name.trust_domain);
        let proof = AgentProof::TaskCredential;
        let issued_at = if age == 0 { claims.iat } else { now.saturating_sub(age) };
        AgentFacts {
            issued_at: Some(issued_at),
            expires_at: Some(claims.exp),
            jti: Some(claims.jti.clone()),
            bound: binding.is_some(),
            audiences: vec![claims.aud.clone()],
            ..AgentFacts::named(claims.client_id.clone(), trust_domain.unwrap_or_default(), proof)
        }
    }

    fn facts(&self) -> CredentialFacts {
        let CredentialClaims { jti, iss, sub, client_id, aud, iat, exp, task } =
            self.claims.clone();
        CredentialFacts {
            jti,
            issuer: iss,
            task,
            audience: aud,
            agent: client_id,
            subject: sub,
            actors: Vec::new(),
            decisions: Vec::new(),
            binding: self.binding,
            issued_at: iat,
            expires_at: exp,
            token_digest: [0; 32],
            kid: String::new(),
        }
    }
}

impl StatedSubject {
    /// Args: `issued_at`: `iat` of its token; `now`: time of the call; both in seconds since 1970.
    fn facts(&self, issued_at: i64, now: i64) -> SubjectFacts {
        let claims = self.claims.iter().map(|(name, claim)| {
            let value = match claim {
                Claim::Bool(value) => ClaimValue::Bool(*value),
                Claim::Long(value) => ClaimValue::Long(*value),
                Claim::Text(text) => ClaimValue::String(text.clone()),
                Claim::Texts(texts) => ClaimValue::Set(texts.iter().cloned().collect()),
            };
            (name.clone(), value)
        });
        SubjectFacts {
            issuer: self.issuer.clone(),
            kind: self.kind,
            sub: self.sub.clone(),
            token_type: String::new(),
            client: String::new(),
            kid: None,
            claims: claims.collect(),
            issued_at: Some(issued_at),
            expires_at: now.saturating_add(TOKEN_SECONDS),
            acr: Some(self.acr.clone()).filter(|acr| !acr.is_empty()),
            auth_time: None,
            may_act: None,
            token_digest: [0; 32],
            jti: None,
            bound: false,
            audiences: Vec::new(),
            is_for_alone: self.is_alone,
            is_alone: self.is_alone,
            derived: DerivedValue::default(),
        }
    }
}

impl StatedCaller {
    /// The identity that the caller states, as if evidence had proved it.
    pub(super) fn identity(&self, now: Time) -> CallerIdentity {
        let now = now.0.div_euclid(1_000);
        let facts = self.facts(now);
        let credential = facts.credential.as_ref().map(|credential| CredentialNote {
            jti: credential.jti.clone(),
            decision_id: String::new(),
            binding: credential.binding.map(KeyBinding::method),
        });
        CallerIdentity {
            chain: chain_of(&facts),
            facts,
            credential,
            confidence: self.confidence,
            satisfied: self.satisfied.clone(),
            ..CallerIdentity::default()
        }
    }

    fn facts(&self, now: i64) -> VerifiedFacts {
        let issued_at = now.saturating_sub(self.age);
        let agent = match (&self.credential, &self.agent) {
            (Some(credential), _) => Some(credential.agent(self.age, now)),
            (None, Some(name)) => {
                let AgentName { spiffe_id, trust_domain } = name.clone();
                let named = AgentFacts::named(spiffe_id, trust_domain, AgentProof::JwtSvid);
                Some(AgentFacts { issued_at: Some(issued_at), bound: self.is_bound, ..named })
            }
            (None, None) => None,
        };
        // Beside an agent the age is that of the agent's credential.
        let subject_issued_at = if agent.is_some() { now } else { issued_at };
        let subject = self.subject.as_ref().map(|subject| subject.facts(subject_issued_at, now));
        VerifiedFacts {
            agent: agent.map(Arc::new),
            subject: subject.map(Arc::new),
            credential: self.credential.as_ref().map(|credential| Arc::new(credential.facts())),
            proofs: Vec::new(),
        }
    }

    /// The enforcer that asks.
    pub(super) fn asker(&self) -> Asker {
        let enforcer = Enforcer::stated(self.enforcer.clone(), self.is_front_end);
        Asker { enforcer: Some(Arc::new(enforcer)), known: EnforcerProof::Listener, peer: None }
    }

    /// The agent itself, which asks by a TLS connection of its own.
    ///
    /// Args: `key`: name of the key of its certificate.
    pub(super) fn itself(&self, key: Option<&str>) -> Asker {
        let peer = key.zip(self.agent.as_ref()).map(|(key, agent)| PeerFacts {
            spiffe_id: agent.spiffe_id.clone(),
            trust_domain: agent.trust_domain.clone(),
            issued_at: 0,
            not_before: 0,
            expires_at: i64::MAX,
            certificate_digest: digest_of(key),
        });
        Asker { enforcer: None, known: EnforcerProof::No, peer }
    }
}

/// The digest that stands for the certificate of a named key.
fn digest_of(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}
