//! Fuzz bodies: one function a parser, run by the fuzzer on random bytes and by the tests on stable
//! over the committed corpus. Each returns whether the bytes were accepted.

use std::collections::BTreeMap;

use crate::facts::{Evidence, Role, Scheme, UnixTime};
use crate::spec::{DomainSpec, IssuerSpec, SubjectProfile, TrustSpec};
use crate::spiffe::SpiffeId;
use crate::trust::TrustStore;
use crate::{TokenCache, verify};

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
        verify(&[evidence], &trust, &cache, UnixTime(NOW)).is_ok()
    })
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

/// A specification with one domain and one issuer, both of the given keys.
fn spec(keys: String) -> TrustSpec {
    let domain = DomainSpec { bundle: keys.clone(), from: "fuzz".to_owned() };
    let issuer = IssuerSpec {
        issuer: "https://idp.example".to_owned(),
        audience: vec!["authz".to_owned()],
        algorithms: ["ES256", "EdDSA", "RS256", "PS256"].map(str::to_owned).to_vec(),
        jwks: keys,
        from: "fuzz".to_owned(),
        subject: crate::SubjectKind::User,
        profile: SubjectProfile::Jwt,
        typ: None,
        claims: vec!["groups".to_owned()],
    };
    TrustSpec {
        audiences: vec!["authz".to_owned()],
        domains: BTreeMap::from([("a.example".to_owned(), domain)]),
        issuers: BTreeMap::from([("corp".to_owned(), issuer)]),
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
