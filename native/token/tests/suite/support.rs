//! A small world: one trust domain, one issuer, a key each.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use authz_token::mint::{Key, bundle, jwks};
use authz_token::{
    AgentFacts, DomainSpec, Evidence, IssuerSpec, Presentation, Refusal, RefusalReason, Role,
    Scheme, SubjectFacts, SubjectKind, SubjectProfile, TokenCache, TrustSpec, TrustStore, UnixTime,
    VerifiedFacts, verify,
};
use serde_json::{Value, json};

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const AGENT_ID: &str = "spiffe://a.example/ns/support/sa/bot";
pub(crate) const ISS: &str = "https://idp.example/";

/// The trust domain's key.
pub(crate) static AGENT_KEY: LazyLock<Key> = LazyLock::new(|| Key::es256("agent-key"));
/// The issuer's key.
pub(crate) static IDP_KEY: LazyLock<Key> = LazyLock::new(|| Key::es256("idp-key"));
/// A key that nobody trusts, under the ids of keys that are trusted.
pub(crate) static ROGUE_AGENT_KEY: LazyLock<Key> = LazyLock::new(|| Key::es256("agent-key"));
pub(crate) static ROGUE_IDP_KEY: LazyLock<Key> = LazyLock::new(|| Key::es256("idp-key"));
pub(crate) static RSA_KEY: LazyLock<Key> = LazyLock::new(|| Key::rs256("rsa-key"));

pub(crate) fn domain(keys: &str) -> DomainSpec {
    DomainSpec { bundle: keys.to_owned(), from: "bundle.json".to_owned(), min_sequence: None }
}

pub(crate) fn issuer(keys: &str) -> IssuerSpec {
    IssuerSpec {
        issuer: ISS.to_owned(),
        audience: vec!["authz".to_owned()],
        alone_audience: Vec::new(),
        alone_bound: false,
        algorithms: vec!["ES256".to_owned()],
        jwks: keys.to_owned(),
        from: "jwks.json".to_owned(),
        subject: SubjectKind::User,
        profile: SubjectProfile::Jwt,
        typ: None,
        claims: vec!["groups".to_owned(), "email".to_owned(), "admin".to_owned(), "age".to_owned()],
    }
}

pub(crate) fn spec() -> TrustSpec {
    TrustSpec {
        audiences: vec!["authz".to_owned(), "spiffe://a.example/authz".to_owned()],
        domains: BTreeMap::from([("a.example".to_owned(), domain(&bundle(&[&AGENT_KEY])))]),
        issuers: BTreeMap::from([("corp".to_owned(), issuer(&jwks(&[&IDP_KEY])))]),
        ..TrustSpec::default()
    }
}

/// A specification whose trust domain has these keys.
pub(crate) fn spec_with_bundle(keys: &str) -> TrustSpec {
    let mut spec = spec();
    spec.domains.insert("a.example".to_owned(), domain(keys));
    spec
}

/// A specification whose issuer is changed.
pub(crate) fn spec_with_issuer(change: impl FnOnce(&mut IssuerSpec)) -> TrustSpec {
    let mut spec = spec();
    change(spec.issuers.get_mut("corp").unwrap());
    spec
}

pub(crate) fn compile(spec: &TrustSpec) -> TrustStore {
    TrustStore::compile(spec).expect("a sound specification")
}

/// Claims of a sound JWT-SVID.
pub(crate) fn svid() -> Value {
    json!({"sub": AGENT_ID, "aud": ["authz"], "exp": NOW + 300, "iat": NOW - 10})
}

/// Claims of a sound subject token.
pub(crate) fn user() -> Value {
    json!({"iss": ISS, "sub": "alice", "aud": "authz", "exp": NOW + 300, "iat": NOW - 10,
           "groups": ["staff", "employees"]})
}

/// The claims with one member set, or removed where the value is null.
pub(crate) fn but(mut claims: Value, name: &str, value: Value) -> Value {
    let members = claims.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    claims
}

pub(crate) fn evidence(role: Role, token: &str) -> Evidence<'_> {
    Evidence { role, scheme: Scheme::Bearer, token, proof: None }
}

pub(crate) fn check_at(
    spec: &TrustSpec,
    evidence: &[Evidence<'_>],
    now: i64,
) -> Result<VerifiedFacts, Refusal> {
    verify(evidence, &Presentation::default(), &compile(spec), &TokenCache::new(0), UnixTime(now))
}

pub(crate) fn check_agent(spec: &TrustSpec, token: &str) -> Result<AgentFacts, Refusal> {
    check_at(spec, &[evidence(Role::Agent, token)], NOW)
        .map(|facts| facts.agent.unwrap().as_ref().clone())
}

pub(crate) fn check_subject(spec: &TrustSpec, token: &str) -> Result<SubjectFacts, Refusal> {
    check_at(spec, &[evidence(Role::Subject, token)], NOW)
        .map(|facts| facts.subject.unwrap().as_ref().clone())
}

/// The reason for which an agent's token with these claims, well signed, is refused.
pub(crate) fn agent_reason(claims: &Value) -> Option<RefusalReason> {
    check_agent(&spec(), &AGENT_KEY.sign(&claims.to_string())).err().map(|refusal| refusal.reason)
}

/// The reason for which a subject's token with these claims, well signed, is refused.
pub(crate) fn subject_reason(claims: &Value) -> Option<RefusalReason> {
    check_subject(&spec(), &IDP_KEY.sign(&claims.to_string())).err().map(|refusal| refusal.reason)
}

/// The reason for which an agent's token with this header, well signed, is refused.
pub(crate) fn agent_header_reason(header: &Value) -> Option<RefusalReason> {
    let token = AGENT_KEY.sign_with(&header.to_string(), &svid().to_string());
    check_agent(&spec(), &token).err().map(|refusal| refusal.reason)
}

/// The reason for which a subject's token with this header, well signed, is refused.
pub(crate) fn subject_header_reason(header: &Value) -> Option<RefusalReason> {
    let token = IDP_KEY.sign_with(&header.to_string(), &user().to_string());
    check_subject(&spec(), &token).err().map(|refusal| refusal.reason)
}
