//! Fuzz bodies: one function a parser, run by the fuzzer on random bytes and by the tests on stable
//! over the committed corpus. Each returns whether the bytes were accepted.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::binding::Presentation;
use crate::cache::{PeerCache, TokenCache};
use crate::claims::{self, TimeLimits, Times};
use crate::credential;
use crate::dpop::{Nonces, verify_proof};
use crate::evidence::{Evidence, Role, Scheme};
use crate::facts::{CredentialFacts, SubjectKind, UnixTime};
use crate::peer::{MAX_CHAIN_LENGTH, verify_certificate, verify_peer};
use crate::refusal::Refusal;
use crate::spec::{DomainSpec, IssuerSpec, OwnSpec, SubjectProfile, TrustSpec};
use crate::trust::TrustStore;
use crate::verify::verify;
use authz_base::spiffe::SpiffeId;
use authz_base::uri;

/// Verifies `data` as each role's token against a store whose private keys nobody has; accepted
/// would be a forgery.
pub fn token(data: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(data) else {
        return false;
    };
    let Ok(trust) = TrustStore::compile(&spec(KEYS.to_owned())) else {
        return false;
    };
    let cache = TokenCache::new(1);
    [Role::Agent, Role::Subject].into_iter().any(|role| {
        let evidence = Evidence { role, scheme: Scheme::Bearer, token, proof: None };
        verify(&[evidence], &Presentation::default(), &trust, &cache, UnixTime(NOW)).is_ok()
    })
}

/// Verifies `data` as a DPoP proof; accepted means with a sound signature by the key that it brings. What is accepted
/// is made for its own request, and for as long as it says.
pub fn proof(data: &[u8]) -> bool {
    let Ok(proof) = std::str::from_utf8(data) else {
        return false;
    };
    let nonces = Nonces {
        valid: &["nonce"],
        needed_before: UnixTime(NOW - 30),
        needed_after: UnixTime(NOW + 30),
        window: 60,
    };
    let at = |now| verify_proof(proof, &nonces, UnixTime(now));
    at(NOW).is_ok_and(|facts| {
        facts.is_for(&facts.htm, &facts.htu)
            && at(facts.expires_at).is_ok()
            && at(facts.expires_at.saturating_add(1)).is_err()
    })
}

/// Reads `data` as the claims of a task credential, as if we had signed them; accepted means in our form.
pub fn credential(data: &[u8]) -> bool {
    let limits = TimeLimits { leeway: 5, max_lifetime: None };
    let read = || -> Result<CredentialFacts, Refusal> {
        let claims = claims::read(data)?;
        let times = Times::read(&claims, &limits)?;
        credential::read(&claims, &times, [0; 32], String::new())
    };
    read().is_ok_and(|facts| {
        facts.actors.first().unwrap_or(&facts.subject) == &facts.agent
            && !facts.decisions.is_empty()
    })
}

/// Reads `data` as a URI of a request; what is accepted has a normal form that is its own.
pub fn uri(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    uri::normal(text).is_some_and(|normal| uri::normal(&normal).as_ref() == Some(&normal))
}

/// Compiles `data` as a bundle and as a key set; accepted means with a usable key.
pub fn jwks(data: &[u8]) -> bool {
    let Ok(keys) = std::str::from_utf8(data) else {
        return false;
    };
    TrustStore::compile(&spec(keys.to_owned())).is_ok_and(|trust| {
        trust.domains().iter().any(|domain| domain.keys > 0)
            || trust.issuers().iter().any(|issuer| issuer.keys > 0)
    })
}

/// Parses `data` as a SPIFFE ID; what is accepted holds to its own parts.
pub fn spiffe_id(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    SpiffeId::parse(text)
        .is_ok_and(|id| format!("spiffe://{}{}", id.trust_domain(), id.path()) == text)
}

/// Verifies `data`, certificates in DER one after the other, as a peer's chain, and reads it as a
/// forwarded certificate and as an authority; accepted means as a chain, whose authority's key
/// nobody has any more.
pub fn certificate(data: &[u8]) -> bool {
    let keys = KEYS.replacen("[", &format!("[{AUTHORITY},"), 1);
    let Ok(trust) = TrustStore::compile(&spec(keys)) else {
        return false;
    };
    let cache = PeerCache::new(1);
    let now = UnixTime(NOW);
    let mut chain = Vec::new();
    let mut rest = data;
    while !rest.is_empty() && chain.len() <= MAX_CHAIN_LENGTH {
        let (first, others) = rest.split_at_checked(element(rest)).unwrap_or((rest, &[]));
        chain.push(first);
        rest = others;
    }
    let encoded = STANDARD.encode(data);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n");
    // Any result is right; a panic is not.
    let _ = verify_certificate(&pem, &trust, &cache, now);
    let _ = std::str::from_utf8(data).map(|text| verify_certificate(text, &trust, &cache, now));
    let entry = format!(r#"{{"keys":[{{"kty":"EC","use":"x509-svid","x5c":["{encoded}"]}}]}}"#);
    let _ = TrustStore::compile(&spec(entry));
    verify_peer(&chain, &trust, &cache, now).is_ok()
}

/// The length of a DER SEQUENCE whose content takes two octets to count; all of any other data.
fn element(data: &[u8]) -> usize {
    match data {
        [0x30, 0x82, high, low, ..] => {
            usize::from(u16::from_be_bytes([*high, *low])).saturating_add(4)
        }
        _ => data.len(),
    }
}

/// A specification with one domain and one issuer, both of the given keys.
fn spec(keys: String) -> TrustSpec {
    let domain = DomainSpec { bundle: keys.clone(), from: "fuzz".to_owned(), min_sequence: None };
    let issuer = IssuerSpec {
        issuer: "https://idp.example".to_owned(),
        audience: vec!["authz".to_owned()],
        alone_audience: Vec::new(),
        alone_bound: false,
        algorithms: ["ES256", "EdDSA", "RS256", "PS256"].map(str::to_owned).to_vec(),
        jwks: keys,
        from: "fuzz".to_owned(),
        subject: SubjectKind::User,
        profile: SubjectProfile::Jwt,
        typ: None,
        claims: vec!["groups".to_owned()],
    };
    TrustSpec {
        audiences: vec!["authz".to_owned()],
        domains: BTreeMap::from([("a.example".to_owned(), domain)]),
        issuers: BTreeMap::from([("corp".to_owned(), issuer)]),
        own: Some(OwnSpec {
            issuer: "https://authz.example".to_owned(),
            keys: OWN_KEYS.to_owned(),
        }),
        ..TrustSpec::default()
    }
}

const NOW: i64 = 1_800_000_000;

/// Public keys of the examples of RFC 7515 A.3 (for JWT-SVIDs) and RFC 8037 A.2 (for subjects).
const KEYS: &str = r#"{"keys":[
 {"kty":"EC","crv":"P-256","kid":"a","use":"jwt-svid",
  "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
  "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
 {"kty":"OKP","crv":"Ed25519","kid":"b",
  "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// The key of RFC 8037 A.2 by its thumbprint, as of A.3.
const OWN_KEYS: &str = r#"{"keys":[
 {"kty":"OKP","crv":"Ed25519","kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
  "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// The authority of the committed corpus.
const AUTHORITY: &str = concat!(
    r#"{"kty":"EC","crv":"P-256","use":"x509-svid","#,
    r#""x":"j3RcZZgvlFVYmfw4gxWlrLWqPecpiiX1oMOjtudQMMo","#,
    r#""y":"vDGWEZlpoxNEE34qElO8Te8hvAZ5oqO6fcppOiuH6k4","x5c":[""#,
    "MIIBjTCCATOgAwIBAgIUSnsD/BKrpM4Frc1lc5mLWc4qFe4wCgYIKoZIzj0EAwIwFDESMBAGA1UECgwJYS5l",
    "eGFtcGxlMCAXDTIwMDEwMTAwMDAwMFoYDzIwOTkwMTAxMDAwMDAwWjAUMRIwEAYDVQQKDAlhLmV4YW1wbGUw",
    "WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASPdFxlmC+UVViZ/DiDFaWstao95ymKJfWgw6O251AwyrwxlhGZ",
    "aaMTRBN+KhJTvE3vIbwGeaKjun3KaTorh+pOo2EwXzAdBgNVHREEFjAUhhJzcGlmZmU6Ly9hLmV4YW1wbGUw",
    "DgYDVR0PAQH/BAQDAgEGMB0GA1UdDgQWBBTza6jivzRzj+HNcut7VwbLtP5SCzAPBgNVHRMBAf8EBTADAQH/",
    "MAoGCCqGSM49BAMCA0gAMEUCIQC5ClDZ7c3FgS2ZowBo3cX76mCIweReMeZd3kCEShTbXwIgcUbSKF0bnUk1",
    "6NDFVliIzYzADM8+kR85SgBEkKAF2dY=",
    r#""]}"#,
);
