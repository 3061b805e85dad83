//! Each algorithm, and each confusion of two.

use authz_token::RefusalReason::{BadCredential, UntrustedIssuer};
use authz_token::mint::{Key, bundle, jwks};
use authz_token::{KeyOwner, Refusal};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::*;

const ALL: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

/// A token signed with each algorithm is accepted where its issuer lists it, and refused where it
/// lists only the others.
#[test]
fn each_algorithm_verifies_where_it_is_listed() {
    for alg in ALL {
        let key = Key::generate(alg, "k");
        let token = key.sign(&user().to_string());
        let listed = |algorithms: Vec<String>| {
            spec_with_issuer(|issuer| {
                issuer.algorithms = algorithms;
                issuer.jwks = jwks(&[&key, &IDP_KEY]);
            })
        };
        let only = listed(vec![alg.to_owned()]);
        assert!(check_subject(&only, &token).is_ok(), "{alg}");
        let (input, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{input}.{}", token_signature(&key.sign("{}")));
        assert_eq!(BadCredential, check_subject(&only, &forged).unwrap_err().reason, "{alg}");
        let others = ALL.into_iter().filter(|other| *other != alg).map(str::to_owned).collect();
        let refusal = check_subject(&listed(others), &token).unwrap_err();
        assert_eq!(BadCredential, refusal.reason, "{alg}");
    }
}

fn token_signature(token: &str) -> &str {
    token.rsplit_once('.').unwrap().1
}

/// A JWT-SVID may be signed with the nine algorithms of its specification, not with EdDSA.
#[test]
fn a_svid_uses_one_of_nine_algorithms() {
    for alg in ALL {
        let key = Key::generate(alg, "k");
        let token = key.sign(&svid().to_string());
        let result = check_agent(&spec_with_bundle(&bundle(&[&key, &AGENT_KEY])), &token);
        if alg == "EdDSA" {
            assert_eq!(BadCredential, result.unwrap_err().reason);
        } else {
            assert_eq!(Some("k"), result.unwrap().kid.as_deref(), "{alg}");
        }
    }
}

/// The header's `alg` must be that of the key's type, curve and own `alg`, whoever lists it.
#[test]
fn alg_must_fit_the_key() {
    let listed = |keys: serde_json::Value| {
        spec_with_issuer(|issuer| {
            issuer.algorithms = ALL.map(str::to_owned).to_vec();
            issuer.jwks = json!({"keys": [keys]}).to_string();
        })
    };
    for (key, others) in [
        (&*IDP_KEY, ["ES384", "ES512", "RS256", "EdDSA"]),
        (&*RSA_KEY, ["ES256", "ES384", "ES512", "EdDSA"]),
    ] {
        for alg in others {
            let header = json!({"alg": alg, "kid": key.kid()}).to_string();
            let token = key.sign_with(&header, &user().to_string());
            let refusal = check_subject(&listed(key.jwk(None)), &token).unwrap_err();
            assert_eq!(BadCredential, refusal.reason, "{alg}");
        }
    }
    // One RSA key, bound by its `alg` to one padding and digest.
    let mut jwk = RSA_KEY.jwk(None);
    jwk.as_object_mut().unwrap().insert("alg".to_owned(), json!("PS256"));
    let token = RSA_KEY.sign(&user().to_string());
    assert_eq!(BadCredential, check_subject(&listed(jwk), &token).unwrap_err().reason);
    assert!(check_subject(&listed(RSA_KEY.jwk(None)), &token).is_ok());
}

/// A signature made with one digest or padding is not valid under the header of another.
#[test]
fn padding_and_digest_are_those_of_alg() {
    let trust = spec_with_issuer(|issuer| {
        issuer.algorithms = ALL.map(str::to_owned).to_vec();
        issuer.jwks = jwks(&[&RSA_KEY]);
    });
    for alg in ["RS384", "RS512", "PS256", "PS384", "PS512"] {
        let header = json!({"alg": alg, "kid": "rsa-key"}).to_string();
        let token = RSA_KEY.sign_with(&header, &user().to_string());
        assert_eq!(BadCredential, check_subject(&trust, &token).unwrap_err().reason, "{alg}");
    }
}

/// An ECDSA signature is two integers of the curve's size joined, not DER and no other length.
#[test]
fn an_ecdsa_signature_has_a_fixed_form() {
    let token = AGENT_KEY.sign(&svid().to_string());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = bytes.split_at(32);
    let integer = |number: &[u8]| {
        let mut der = vec![2, u8::try_from(number.len() + 1).unwrap(), 0];
        der.extend(number);
        der
    };
    let body = [integer(r), integer(s)].concat();
    let der = [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat();
    let padded = [&[0; 1], r, &[0; 1], s].concat();
    for bad in [der, padded, [r, s, &[0]].concat(), r.to_vec(), Vec::new(), vec![0; 64]] {
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(bad));
        assert_eq!(BadCredential, check_agent(&spec(), &token).unwrap_err().reason);
    }
}

/// A `kid` that no trusted key has is an untrusted issuer; a trusted `kid` on another key's
/// signature is a forgery.
#[test]
fn an_unknown_kid_is_untrusted_and_a_wrong_one_forged() {
    let claims = svid().to_string();
    let unknown = Key::es256("other").sign(&claims);
    assert_eq!(UntrustedIssuer, check_agent(&spec(), &unknown).unwrap_err().reason);
    let forged = ROGUE_AGENT_KEY.sign(&claims);
    assert_eq!(BadCredential, check_agent(&spec(), &forged).unwrap_err().reason);
    let claims = user().to_string();
    let unknown = Key::es256("other").sign(&claims);
    assert_eq!(UntrustedIssuer, check_subject(&spec(), &unknown).unwrap_err().reason);
    let forged = ROGUE_IDP_KEY.sign(&claims);
    assert_eq!(BadCredential, check_subject(&spec(), &forged).unwrap_err().reason);
}

/// An unknown `kid` says whose keys to look at again; nothing else that is refused does.
#[test]
fn an_unknown_kid_says_whose_it_would_be() {
    let (agent, subject) = (svid().to_string(), user().to_string());
    let owner = |refusal: Refusal| refusal.unknown_key;
    let stranger = Key::es256("other");
    assert_eq!(
        Some(KeyOwner::Domain("a.example".to_owned())),
        owner(check_agent(&spec(), &stranger.sign(&agent)).unwrap_err())
    );
    assert_eq!(
        Some(KeyOwner::Issuer("corp".to_owned())),
        owner(check_subject(&spec(), &stranger.sign(&subject)).unwrap_err())
    );
    let nowhere = but(svid(), "sub", json!("spiffe://x.example/a")).to_string();
    let header = r#"{"alg":"ES256"}"#;
    for token in [
        ROGUE_AGENT_KEY.sign(&agent),
        stranger.sign(&nowhere),
        stranger.sign_with(header, &agent),
        RSA_KEY.sign_with(header, &agent),
        "x".to_owned(),
    ] {
        assert_eq!(None, owner(check_agent(&spec(), &token).unwrap_err()), "{token}");
    }
}

/// Without `kid` each fitting key is tried, of which there may be four.
#[test]
fn without_kid_a_few_keys_are_tried() {
    let keys: Vec<Key> = (0..5).map(|i| Key::es256(&format!("k{i}"))).collect();
    let header = r#"{"alg":"ES256"}"#;
    let first = |count: usize| bundle(&keys.iter().take(count).collect::<Vec<_>>());
    let token = keys.get(3).unwrap().sign_with(header, &svid().to_string());
    let found = check_agent(&spec_with_bundle(&first(4)), &token).unwrap();
    assert_eq!(Some("k3"), found.kid.as_deref());
    for (count, expected) in [(3, BadCredential), (5, BadCredential)] {
        let refusal = check_agent(&spec_with_bundle(&first(count)), &token).unwrap_err();
        assert_eq!(expected, refusal.reason, "{count} keys");
    }
    let refusal = check_agent(&spec_with_bundle(&bundle(&[&RSA_KEY])), &token).unwrap_err();
    assert_eq!(UntrustedIssuer, refusal.reason);
}
