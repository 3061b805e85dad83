//! Hostile input: never a panic, never accepted, never repeated in a message.

use std::fs;
use std::path::Path;

use authz_token::{Role, fuzz};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use crate::support::*;

/// The committed corpus of one fuzz target.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() >= 5, "a corpus worth the name");
    files
}

/// No token of the corpus, changed in any one byte or cut at any place, verifies.
#[test]
fn no_token_of_the_corpus_verifies() {
    for (name, bytes) in corpus("token") {
        assert!(!fuzz::token(&bytes), "{name}");
        for position in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            *changed.get_mut(position).unwrap() ^= 4;
            assert!(!fuzz::token(&changed), "{name}, byte {position}");
            changed.truncate(position);
            assert!(!fuzz::token(&changed), "{name}, cut at {position}");
        }
    }
}

/// Key sets of the corpus are accepted where their file name says so.
#[test]
fn key_sets_of_the_corpus_are_judged() {
    for (name, bytes) in corpus("jwks") {
        assert_eq!(name.starts_with("good-"), fuzz::jwks(&bytes), "{name}");
        for position in (0..bytes.len()).step_by(11) {
            let cut: Vec<u8> = bytes.iter().copied().take(position).collect();
            assert!(!fuzz::jwks(&cut), "{name}, cut at {position}");
        }
    }
}

/// Chains of the corpus are accepted where their file name says so; one that is not stays refused
/// with any one byte changed, and none is a panic however it is cut.
#[test]
fn certificates_of_the_corpus_are_judged() {
    for (name, bytes) in corpus("certificate") {
        let good = name.starts_with("good-");
        assert_eq!(good, fuzz::certificate(&bytes), "{name}");
        for position in (0..bytes.len()).step_by(5) {
            let mut changed = bytes.clone();
            *changed.get_mut(position).unwrap() ^= 0x24;
            assert!(good || !fuzz::certificate(&changed), "{name}, byte {position}");
            let _ = fuzz::certificate(&changed);
            changed.truncate(position);
            let whole = name == "good-chain-with-root";
            assert!(whole || !fuzz::certificate(&changed), "{name}, cut at {position}");
        }
    }
}

/// SPIFFE IDs of the corpus are accepted where their file name says so.
#[test]
fn spiffe_ids_of_the_corpus_are_judged() {
    for (name, bytes) in corpus("spiffe_id") {
        assert_eq!(name.starts_with("good-"), fuzz::spiffe_id(&bytes), "{name}");
    }
}

/// Proofs of the corpus are accepted where their file name says so; changed in any one byte or cut at
/// any place, none is.
#[test]
fn proofs_of_the_corpus_are_judged() {
    for (name, bytes) in corpus("proof") {
        assert_eq!(name.starts_with("good-"), fuzz::proof(&bytes), "{name}");
        for position in (0..bytes.len()).step_by(3) {
            let mut changed = bytes.clone();
            *changed.get_mut(position).unwrap() ^= 4;
            assert!(!fuzz::proof(&changed), "{name}, byte {position}");
            changed.truncate(position);
            assert!(!fuzz::proof(&changed), "{name}, cut at {position}");
        }
    }
}

/// Claims of task credentials of the corpus are accepted where their file name says so.
#[test]
fn credentials_of_the_corpus_are_judged() {
    for (name, bytes) in corpus("credential") {
        assert_eq!(name.starts_with("good-"), fuzz::credential(&bytes), "{name}");
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            *changed.get_mut(position).unwrap() ^= 4;
            let _ = fuzz::credential(&changed);
            changed.truncate(position);
            assert!(!fuzz::credential(&changed), "{name}, cut at {position}");
        }
    }
}

/// URIs of the corpus are accepted where their file name says so.
#[test]
fn uris_of_the_corpus_are_judged() {
    for (name, bytes) in corpus("uri") {
        assert_eq!(name.starts_with("good-"), fuzz::uri(&bytes), "{name}");
    }
}

proptest! {
    // `make random` asks for more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(512)))]

    /// Random bytes are no token, no key set, no SPIFFE ID and no certificate.
    #[test]
    fn random_bytes_are_nothing(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(!fuzz::token(&bytes));
        prop_assert!(!fuzz::jwks(&bytes));
        prop_assert!(!fuzz::spiffe_id(&bytes));
        prop_assert!(!fuzz::certificate(&bytes));
        prop_assert!(!fuzz::proof(&bytes));
        prop_assert!(!fuzz::credential(&bytes));
        prop_assert!(!fuzz::uri(&bytes));
    }

    /// Random headers, keys, claims and signatures in the right form are no proof.
    #[test]
    fn random_parts_are_no_proof(
        alg in "(ES256|EdDSA|none|HS256|RS256)",
        kty in "(EC|OKP|RSA|oct)",
        crv in "(P-256|Ed25519|P-521)",
        key in prop::collection::vec(any::<u8>(), 0..67),
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let text = URL_SAFE_NO_PAD.encode(&key);
        let jwk = json!({"kty": kty, "crv": crv, "x": text, "y": text, "n": text, "e": "AQAB"});
        let header = json!({"alg": alg, "typ": "dpop+jwt", "jwk": jwk}).to_string();
        let claims = authz_token::mint::proof("GET", "https://crm.example", NOW, "x", None);
        let token = [header.as_bytes(), claims.to_string().as_bytes(), &signature]
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .join(".");
        prop_assert!(!fuzz::proof(token.as_bytes()));
    }

    /// Random URIs are read without a panic, and what is accepted has one normal form.
    #[test]
    fn random_uris_are_judged(text in "https?://[a-zA-Z.%:@/?#_\\[\\]0-9-]{0,32}") {
        if fuzz::uri(text.as_bytes()) {
            let authority = text.split(['/', '?', '#']).nth(2).unwrap_or_default();
            prop_assert!(!authority.contains(['@', '%']), "{text}");
        }
    }

    /// Random headers, claims and signatures in the right form do not verify.
    #[test]
    fn random_parts_do_not_verify(
        alg in "(ES256|EdDSA|none|HS256|RS256)",
        kid in "(a|b|c)",
        sub in "(spiffe://a.example/x|alice|)",
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let header = json!({"alg": alg, "kid": kid}).to_string();
        let claims = json!({"iss": "https://idp.example", "sub": sub, "aud": "authz",
                            "exp": 1_900_000_000}).to_string();
        let token = [header.as_bytes(), claims.as_bytes(), &signature]
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .join(".");
        prop_assert!(!fuzz::token(token.as_bytes()));
    }

    /// Random paths are SPIFFE IDs only where each segment is sound.
    #[test]
    fn random_ids_are_judged(text in "spiffe://[a-zA-Z.%:@/?#_-]{0,24}") {
        if fuzz::spiffe_id(text.as_bytes()) {
            prop_assert!(!text.contains(['%', '@', '?', '#']), "{text}");
            // Dots are of a trust domain's alphabet, so `..` is a name there, and none in a path.
            let path = text.splitn(4, '/').nth(3).unwrap_or_default();
            prop_assert!(!text.ends_with('/'), "{text}");
            prop_assert!(path.split('/').all(|segment| segment != ".." && segment != "."), "{text}");
        }
    }
}

/// No refusal repeats what a token says: neither its encoded parts nor what they decode to.
#[test]
fn refusals_hold_nothing_of_the_token() {
    let marked = "s3cr3t-marker";
    let mut tokens = Vec::new();
    for (key, rogue, claims) in
        [(&*AGENT_KEY, &*ROGUE_AGENT_KEY, svid()), (&*IDP_KEY, &*ROGUE_IDP_KEY, user())]
    {
        for name in [
            "sub",
            "iss",
            "aud",
            "exp",
            "nbf",
            "iat",
            "jti",
            "cnf",
            "acr",
            "groups",
            "auth_time",
            "may_act",
            "act",
            "email",
        ] {
            for value in [
                json!(marked),
                json!([marked, 1]),
                json!({marked: marked}),
                json!(format!("spiffe://{marked}/{marked}")),
                json!(marked.repeat(200)),
            ] {
                let claims = but(claims.clone(), name, value).to_string();
                tokens.push(key.sign(&claims));
                tokens.push(rogue.sign(&claims));
            }
        }
        for name in ["alg", "kid", "typ", "crit", "jku", "jwk", "x5c", "enc", "cty", "zip"] {
            let header = json!({"alg": "ES256", "kid": key.kid()});
            let header = but(header, name, json!(marked)).to_string();
            tokens.push(key.sign_with(&header, &claims.to_string()));
        }
        tokens.push(key.sign(&format!("{{\"{marked}\":1,\"{marked}\":2}}")));
        tokens.push(key.sign(&format!("{{{marked}")));
        tokens.push(format!("{marked}.{marked}"));
        tokens.push(marked.repeat(1000));
    }
    let mut refusals = 0;
    for token in &tokens {
        for role in [Role::Agent, Role::Subject] {
            let evidence = [evidence(role, token)];
            assert!(!format!("{evidence:?}").contains(token.as_str()));
            let Err(refusal) = check_at(&spec(), &evidence, NOW) else {
                continue;
            };
            refusals += 1;
            let shown = format!("{refusal} {refusal:?}");
            assert!(!shown.contains(marked), "{shown}");
            for part in token.split('.').filter(|part| part.len() > 7) {
                assert!(!shown.contains(part), "{shown}");
            }
        }
    }
    assert!(refusals > 300, "{refusals}");
}
