//! Task credentials and proofs that another implementation minted: `pyjwt.json`, by PyJWT.

use std::fs;
use std::path::Path;

use authz_token::{
    Evidence, OwnSpec, Presentation, RefusalReason, Role, Scheme, TokenCache, UnixTime, verify,
};
use serde::Deserialize;
use serde_json::Value;

use crate::proof::EASY;
use crate::support::{compile, spec};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    now: i64,
    issuer: String,
    agent: String,
    /// SHA-256 of the client's certificate, in hex.
    certificate: String,
    method: String,
    uri: String,
    keys: Value,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    token: String,
    proof: Option<String>,
    binding: Option<String>,
    jkt: Option<String>,
}

/// Each verifies under its own scheme, and under no other.
#[test]
fn what_pyjwt_mints_verifies() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/pyjwt.json");
    let all: Vectors = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let mut spec = spec();
    spec.own = Some(OwnSpec { issuer: all.issuer.clone(), keys: all.keys.to_string() });
    let trust = compile(&spec);
    assert_eq!(2, trust.own().unwrap().kids.len(), "{:?}", trust.warnings());
    let digits: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(all.certificate.get(2 * at..2 * at + 2).unwrap(), 16).unwrap())
        .collect();
    let certificate = Some(<[u8; 32]>::try_from(digits).unwrap());
    assert_eq!(16, all.vectors.len());
    for vector in &all.vectors {
        let check = |scheme, proof, certificate| {
            let evidence = Evidence { role: Role::Agent, scheme, token: &vector.token, proof };
            let presentation = Presentation { certificate, nonce: EASY };
            verify(&[evidence], &presentation, &trust, &TokenCache::new(0), UnixTime(all.now))
                .map_err(|refusal| refusal.reason)
        };
        let proof = vector.proof.as_deref();
        let scheme = if proof.is_some() { Scheme::Dpop } else { Scheme::Bearer };
        let facts = check(scheme, proof, certificate).unwrap();
        let credential = facts.credential.unwrap();
        assert_eq!(all.agent, credential.agent, "{}", vector.name);
        let binding = credential.binding.map(|binding| binding.method().to_owned());
        assert_eq!(vector.binding, binding, "{}", vector.name);
        if let Some(proved) = facts.proofs.first() {
            assert!(proved.is_for(&all.method, &all.uri), "{}", vector.name);
            assert_eq!(vector.jkt.as_ref(), Some(&proved.jkt), "{}", vector.name);
        }
        let bearer = check(Scheme::Bearer, None, None);
        let expected = vector.binding.as_ref().map(|_| RefusalReason::UnboundCredential);
        assert_eq!(expected, bearer.err(), "{}", vector.name);
    }
}
