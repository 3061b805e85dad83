//! Tokens that are bound to a key, of every profile (RFC 7800, RFC 9449 §6 and §7, RFC 8705 §3).

use std::sync::LazyLock;

use authz_token::mint::{Key, proof};
use authz_token::{
    Evidence, KeyBinding, Nonces, Presentation, Refusal, RefusalReason, Role, Scheme, TokenCache,
    TrustStore, UnixTime, VerifiedFacts, verify,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use RefusalReason::{BadProof, ExpiredCredential, UnboundCredential, UseNonce};

use crate::credential::{OWN_KEY, own_spec, task};
use crate::proof::EASY;
use crate::support::*;

const METHOD: &str = "GET";
const URI: &str = "https://crm.example/v1/customers/42";
const CERTIFICATE: [u8; 32] = [7; 32];

/// Whoever calls holds this key.
static HOLDER: LazyLock<Key> = LazyLock::new(|| Key::es256("unused"));
static THIEF: LazyLock<Key> = LazyLock::new(|| Key::es256("unused"));
static TRUST: LazyLock<TrustStore> = LazyLock::new(|| compile(&own_spec()));

fn jkt() -> Value {
    json!({"jkt": HOLDER.thumbprint()})
}

fn x5t() -> Value {
    json!({"x5t#S256": URL_SAFE_NO_PAD.encode(CERTIFICATE)})
}

/// Every profile's sound token with that `cnf`: an SVID, a task credential and a subject token.
fn tokens(cnf: &Value) -> [(Role, String); 3] {
    let with = |claims: Value| but(claims, "cnf", cnf.clone()).to_string();
    [
        (Role::Agent, AGENT_KEY.sign(&with(svid()))),
        (Role::Agent, OWN_KEY.sign_credential(&with(task()))),
        (Role::Subject, IDP_KEY.sign(&with(user()))),
    ]
}

fn proof_for(key: &Key, token: &str) -> String {
    key.sign_proof(&proof(METHOD, URI, NOW, "a-jti", Some(token)).to_string())
}

fn present(
    role: Role,
    scheme: Scheme,
    token: &str,
    proof: Option<&str>,
    certificate: Option<[u8; 32]>,
) -> Result<VerifiedFacts, Refusal> {
    let presentation = Presentation { certificate, nonce: EASY };
    let evidence = [Evidence { role, scheme, token, proof }];
    verify(&evidence, &presentation, &TRUST, &TokenCache::new(0), UnixTime(NOW))
}

fn reason(result: &Result<VerifiedFacts, Refusal>) -> Option<RefusalReason> {
    result.as_ref().err().map(|refusal| refusal.reason)
}

fn is_bound(facts: &VerifiedFacts) -> bool {
    let agent = facts.agent.as_ref().map(|agent| agent.bound);
    let subject = facts.subject.as_ref().map(|subject| subject.bound);
    agent.xor(subject).expect("one credential")
}

/// RFC 9449 §7.1: a token bound by `jkt` is good under `DPoP` with a proof by that key, and the proof
/// is passed on.
#[test]
fn a_jkt_token_is_good_with_its_proof() {
    for (role, token) in tokens(&jkt()) {
        let proof = proof_for(&HOLDER, &token);
        let facts = present(role, Scheme::Dpop, &token, Some(&proof), None).unwrap();
        assert!(is_bound(&facts));
        let proved = facts.proofs.first().unwrap();
        assert_eq!(1, facts.proofs.len());
        assert_eq!((HOLDER.thumbprint(), role), (proved.jkt.clone(), proved.role));
        assert!(proved.is_for(METHOD, URI));
        if let Some(credential) = facts.credential {
            let binding = credential.binding.unwrap();
            assert_eq!(("jkt", HOLDER.thumbprint()), (binding.method(), binding.text()));
        }
        // A certificate beside it changes nothing.
        assert!(present(role, Scheme::Dpop, &token, Some(&proof), Some(CERTIFICATE)).is_ok());
    }
}

/// RFC 9449 §7.1: it is no bearer token, also over mutual TLS.
#[test]
fn a_jkt_token_is_no_bearer_token() {
    for (role, token) in tokens(&jkt()) {
        for certificate in [None, Some(CERTIFICATE)] {
            let result = present(role, Scheme::Bearer, &token, None, certificate);
            assert_eq!(Some(UnboundCredential), reason(&result));
        }
    }
}

/// RFC 9449 §4.3 step 12 and §6: the proof is by the key that the token is bound to, and by no other.
#[test]
fn the_proof_is_by_the_tokens_key() {
    for (role, token) in tokens(&jkt()) {
        let stolen = proof_for(&THIEF, &token);
        let result = present(role, Scheme::Dpop, &token, Some(&stolen), None);
        assert_eq!(Some(BadProof), reason(&result));
        let brought = but(HOLDER.proof_header(), "jwk", HOLDER.jwk(None)).to_string();
        let forged =
            THIEF.sign_with(&brought, &proof(METHOD, URI, NOW, "x", Some(&token)).to_string());
        let result = present(role, Scheme::Dpop, &token, Some(&forged), None);
        assert_eq!(Some(BadProof), reason(&result));
    }
}

/// RFC 9449 §4.3 step 12: `ath` is there, and is that of this very token.
#[test]
fn the_proof_is_of_this_token() {
    for (role, token) in tokens(&jkt()) {
        let sound = proof(METHOD, URI, NOW, "x", Some(&token));
        let others = proof(METHOD, URI, NOW, "x", Some("another")).get("ath").unwrap().clone();
        let padded = format!("{}=", sound.get("ath").unwrap().as_str().unwrap());
        for ath in [json!(null), others, json!(""), json!(padded), json!([])] {
            let proof = HOLDER.sign_proof(&but(sound.clone(), "ath", ath.clone()).to_string());
            let result = present(role, Scheme::Dpop, &token, Some(&proof), None);
            assert_eq!(Some(BadProof), reason(&result), "{ath}");
        }
    }
}

/// RFC 9449 §7.1: the scheme `DPoP` is for tokens that are bound by `jkt`, and needs its proof.
#[test]
fn the_scheme_is_that_of_the_token() {
    for cnf in [json!(null), x5t()] {
        for (role, token) in tokens(&cnf) {
            let proof = proof_for(&HOLDER, &token);
            let dpop = |proof| present(role, Scheme::Dpop, &token, proof, Some(CERTIFICATE));
            assert_eq!(Some(BadProof), reason(&dpop(Some(&proof))));
            assert_eq!(Some(BadProof), reason(&dpop(None)));
            let bearer = present(role, Scheme::Bearer, &token, Some(&proof), Some(CERTIFICATE));
            assert_eq!(Some(BadProof), reason(&bearer));
            let unbound = present(role, Scheme::Bearer, &token, None, Some(CERTIFICATE)).unwrap();
            assert_eq!(!cnf.is_null(), is_bound(&unbound));
            assert!(unbound.proofs.is_empty());
        }
    }
    for (role, token) in tokens(&jkt()) {
        assert_eq!(Some(BadProof), reason(&present(role, Scheme::Dpop, &token, None, None)));
        let proof = proof_for(&HOLDER, &token);
        let bearer = present(role, Scheme::Bearer, &token, Some(&proof), None);
        assert_eq!(Some(BadProof), reason(&bearer));
        let wpt = present(role, Scheme::Wpt, &token, Some(&proof), None);
        assert_eq!(Some(BadProof), reason(&wpt));
    }
}

/// RFC 8705 §3: a token bound to a certificate is good from the client that showed it.
#[test]
fn a_certificate_token_is_the_clients() {
    for (role, token) in tokens(&x5t()) {
        let with = |certificate| present(role, Scheme::Bearer, &token, None, certificate);
        let facts = with(Some(CERTIFICATE)).unwrap();
        assert!(is_bound(&facts));
        if let Some(credential) = facts.credential {
            assert_eq!(Some(KeyBinding::X5t(CERTIFICATE)), credential.binding);
            assert_eq!("x5t#S256", credential.binding.unwrap().method());
        }
        assert_eq!(Some(UnboundCredential), reason(&with(Some([8; 32]))));
        assert_eq!(Some(UnboundCredential), reason(&with(None)));
    }
}

/// RFC 7800 §3.1: `cnf` names one key by one method; what is not understood is not met.
#[test]
fn any_other_cnf_is_refused() {
    let digest = URL_SAFE_NO_PAD.encode(CERTIFICATE);
    for cnf in [
        json!({}),
        json!([]),
        json!(true),
        json!(digest),
        json!({"jkt": digest, "x5t#S256": digest}),
        json!({"x5t#S256": digest, "kid": "k"}),
        json!({"jwk": HOLDER.jwk(None)}),
        json!({"jku": "https://evil.example/keys", "kid": "k"}),
        json!({"kid": "k"}),
        json!({"x5t": digest}),
        json!({"x5t#s256": digest}),
        json!({"JKT": digest}),
        json!({"jkt": null}),
        json!({"jkt": [digest]}),
        json!({"jkt": ""}),
        json!({"jkt": format!("{digest}=")}),
        json!({"jkt": digest.chars().skip(1).collect::<String>()}),
        json!({"x5t#S256": format!("{digest}AA")}),
        // The last character holds bits that belong to no byte.
        json!({"x5t#S256": format!("{}d", digest.strip_suffix('c').unwrap())}),
    ] {
        for (role, token) in tokens(&cnf) {
            let bearer = present(role, Scheme::Bearer, &token, None, Some(CERTIFICATE));
            assert_eq!(Some(UnboundCredential), reason(&bearer), "{cnf}");
            let proof = proof_for(&HOLDER, &token);
            let dpop = present(role, Scheme::Dpop, &token, Some(&proof), Some(CERTIFICATE));
            assert!(dpop.is_err(), "{cnf}");
        }
    }
    let null = svid().to_string().replacen('{', r#"{"cnf":null,"#, 1);
    let result = present(Role::Agent, Scheme::Bearer, &AGENT_KEY.sign(&null), None, None);
    assert_eq!(Some(UnboundCredential), reason(&result));
}

/// A token that is remembered is held to its key with each presentation anew.
#[test]
fn the_cache_proves_no_key() {
    for (cnf, scheme) in [(jkt(), Scheme::Dpop), (x5t(), Scheme::Bearer)] {
        for (role, token) in tokens(&cnf) {
            let cache = TokenCache::new(64);
            let sound = proof_for(&HOLDER, &token);
            let stolen = proof_for(&THIEF, &token);
            let check = |scheme, proof, certificate, now| {
                let presentation = Presentation { certificate, nonce: EASY };
                let evidence = [Evidence { role, scheme, token: &token, proof }];
                let with = verify(&evidence, &presentation, &TRUST, &cache, UnixTime(now));
                let none = TokenCache::new(0);
                let without = verify(&evidence, &presentation, &TRUST, &none, UnixTime(now));
                assert_eq!(with, without);
                reason(&with)
            };
            let (proof, bad) = match scheme {
                Scheme::Dpop => (Some(&*sound), Some(&*stolen)),
                _ => (None, None),
            };
            assert_eq!(None, check(scheme, proof, Some(CERTIFICATE), NOW));
            let misses = cache.misses();
            assert!(check(scheme, bad, None, NOW).is_some());
            assert!(check(Scheme::Bearer, None, None, NOW).is_some());
            assert!(check(Scheme::Dpop, Some(&*stolen), None, NOW).is_some());
            assert_eq!(None, check(scheme, proof, Some(CERTIFICATE), NOW));
            assert_eq!((misses, 4), (cache.misses(), cache.hits()));
            let over = check(scheme, proof, Some(CERTIFICATE), NOW + 400);
            assert_eq!(Some(ExpiredCredential), over);
        }
    }
}

/// A token that does not verify gets its own refusal, whatever came with it: a proof says nothing of a
/// forgery.
#[test]
fn the_token_comes_before_its_proof() {
    let claims = but(svid(), "cnf", jkt()).to_string();
    let forged = ROGUE_AGENT_KEY.sign(&claims);
    for key in [&*HOLDER, &*THIEF] {
        let proof = proof_for(key, &forged);
        let result = present(Role::Agent, Scheme::Dpop, &forged, Some(&proof), None);
        assert_eq!(Some(RefusalReason::BadCredential), reason(&result));
    }
}

/// A proof with no nonce, where one is needed, is told so; the refusal says whose it was.
#[test]
fn a_nonce_is_asked_for() {
    let [_, (role, token), _] = tokens(&jkt());
    let check = |nonce: Option<&str>| {
        let claims = proof(METHOD, URI, NOW, "x", Some(&token));
        let proof = HOLDER.sign_proof(&but(claims, "nonce", json!(nonce)).to_string());
        let evidence =
            [Evidence { role, scheme: Scheme::Dpop, token: &token, proof: Some(&proof) }];
        let nonce = Nonces { valid: &["n1"], ..Nonces::default() };
        let presentation = Presentation { certificate: None, nonce };
        verify(&evidence, &presentation, &TRUST, &TokenCache::new(0), UnixTime(NOW))
    };
    let refusal = check(None).unwrap_err();
    assert_eq!((UseNonce, Some(role)), (refusal.reason, refusal.role));
    assert_eq!(UseNonce, check(Some("n0")).unwrap_err().reason);
    assert!(check(Some("n1")).is_ok());
}

/// Each credential has a proof of its own: one made for the other is not accepted.
#[test]
fn each_credential_has_its_own_proof() {
    let [_, (_, credential), (_, subject)] = tokens(&jkt());
    let proofs = [proof_for(&HOLDER, &credential), proof_for(&HOLDER, &subject)];
    let check = |first: &str, second: &str| {
        let of =
            |role, token, proof| Evidence { role, scheme: Scheme::Dpop, token, proof: Some(proof) };
        let evidence = [of(Role::Agent, &*credential, first), of(Role::Subject, &*subject, second)];
        let presentation = Presentation { certificate: None, nonce: EASY };
        verify(&evidence, &presentation, &TRUST, &TokenCache::new(0), UnixTime(NOW))
    };
    let [first, second] = &proofs;
    let facts = check(first, second).unwrap();
    let roles: Vec<Role> = facts.proofs.iter().map(|proof| proof.role).collect();
    assert_eq!(vec![Role::Agent, Role::Subject], roles);
    assert_eq!(Some(BadProof), reason(&check(second, first)));
    assert_eq!(Some(BadProof), reason(&check(first, first)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Of all ways to present a token, exactly those that prove its key are accepted.
    #[test]
    fn exactly_the_proved_are_accepted(
        kind in any::<prop::sample::Index>(),
        cnf in prop::sample::select(vec![
            json!(null),
            jkt(),
            x5t(),
            json!({"jkt": THIEF.thumbprint(), "kid": "k"}),
        ]),
        scheme in prop::sample::select(vec![Scheme::Bearer, Scheme::Dpop]),
        by in prop::sample::select(vec![None, Some(&*HOLDER), Some(&*THIEF)]),
        certificate in prop::sample::select(vec![None, Some(CERTIFICATE), Some([9; 32])]),
    ) {
        let (role, token) = kind.get(&tokens(&cnf)).clone();
        let proof = by.map(|key| proof_for(key, &token));
        let accepted = present(role, scheme, &token, proof.as_deref(), certificate).is_ok();
        let by_holder = by.is_some_and(|key| key.thumbprint() == HOLDER.thumbprint());
        let expected = match scheme {
            Scheme::Dpop => cnf == jkt() && by_holder,
            _ if cnf == x5t() => by.is_none() && certificate == Some(CERTIFICATE),
            _ => by.is_none() && cnf.is_null(),
        };
        prop_assert_eq!(expected, accepted);
    }
}
