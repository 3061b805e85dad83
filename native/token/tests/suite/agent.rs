//! The JWT-SVID profile.

use authz_token::RefusalReason::*;
use authz_token::mint::{Key, bundle};
use authz_token::{Role, Scheme};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::*;

/// A sound JWT-SVID gives the agent's facts.
#[test]
fn a_sound_svid_gives_facts() {
    let token = AGENT_KEY.sign(&but(svid(), "jti", json!("j-1")).to_string());
    let agent = check_agent(&spec(), &token).unwrap();
    assert_eq!(AGENT_ID, agent.spiffe_id);
    assert_eq!("a.example", agent.trust_domain);
    assert_eq!(Some("agent-key"), agent.kid.as_deref());
    assert_eq!(Some(NOW - 10), agent.issued_at);
    assert_eq!(Some(NOW + 300), agent.expires_at);
    assert_eq!(Some("j-1".to_owned()), agent.jti);
    assert_eq!(Some(Sha256::digest(&token).into()), agent.token_digest);
}

/// A JWT-SVID has no header parameter but `alg`, `kid` and `typ`.
#[test]
fn other_header_parameters_are_refused() {
    for name in ["x5t", "x5t#S256", "nonce", "iss", "sub", "aud", "", "ALG"] {
        let header = but(json!({"alg": "ES256", "kid": "agent-key"}), name, json!("x"));
        assert_eq!(Some(BadCredential), agent_header_reason(&header), "{name}");
    }
}

/// `typ` is absent, `JWT` or `JOSE`, in that spelling.
#[test]
fn typ_is_jwt_or_jose() {
    for typ in ["JWT", "JOSE"] {
        let header = json!({"alg": "ES256", "kid": "agent-key", "typ": typ});
        assert_eq!(None, agent_header_reason(&header));
    }
    assert_eq!(None, agent_header_reason(&json!({"alg": "ES256", "kid": "agent-key"})));
    for typ in ["", "jwt", "at+jwt", "application/jwt", "wit+jwt", "dpop+jwt", "JWT "] {
        let header = json!({"alg": "ES256", "kid": "agent-key", "typ": typ});
        assert_eq!(Some(BadCredential), agent_header_reason(&header), "{typ}");
    }
}

/// `sub` is the SPIFFE ID of a workload.
#[test]
fn sub_is_the_spiffe_id_of_a_workload() {
    for sub in [
        json!(null),
        json!(7),
        json!([AGENT_ID]),
        json!(""),
        json!("alice"),
        json!("spiffe://a.example"),
        json!("spiffe://a.example/"),
        json!("SPIFFE://a.example/bot"),
        json!("spiffe://A.example/bot"),
        json!("spiffe://a.example/bot/"),
        json!("spiffe://a.example/../bot"),
        json!("spiffe://a.example:8080/bot"),
        json!("spiffe://u@a.example/bot"),
        json!("spiffe://a.example/bot?x"),
        json!("spiffe://a.example/bot#x"),
        json!("spiffe://a.example/b%6ft"),
        json!("https://a.example/bot"),
        json!(format!("spiffe://a.example/{}", "x".repeat(2048))),
    ] {
        let claims = but(svid(), "sub", sub);
        assert_eq!(Some(BadCredential), agent_reason(&claims), "{claims}");
    }
}

/// `aud` is required and holds one of our values, exactly.
#[test]
fn aud_is_required_and_holds_ours() {
    for aud in [
        json!("authz"),
        json!(["authz"]),
        json!(["other", "authz"]),
        json!("spiffe://a.example/authz"),
    ] {
        assert_eq!(None, agent_reason(&but(svid(), "aud", aud)));
    }
    for aud in [
        json!(null),
        json!("other"),
        json!(""),
        json!([""]),
        json!([]),
        json!(["other"]),
        json!("Authz"),
        json!("authz "),
        json!("authz,other"),
    ] {
        let claims = but(svid(), "aud", aud);
        assert_eq!(Some(WrongAudience), agent_reason(&claims), "{claims}");
    }
    for aud in [json!(7), json!({"authz": true}), json!(["authz", 7]), json!([["authz"]])] {
        let claims = but(svid(), "aud", aud);
        assert_eq!(Some(BadCredential), agent_reason(&claims), "{claims}");
    }
}

/// `exp` is required, a date, and not passed by more than the leeway.
#[test]
fn exp_is_required_and_to_come() {
    for (exp, expected) in [
        (json!(NOW + 1), None),
        (json!(NOW - 4), None),
        (json!((NOW as f64) + 0.5), None),
        (json!(NOW - 5), Some(ExpiredCredential)),
        (json!(NOW - 60), Some(ExpiredCredential)),
        (json!(0), Some(ExpiredCredential)),
        (json!(null), Some(BadCredential)),
        (json!(-1), Some(BadCredential)),
        (json!("2000000000"), Some(BadCredential)),
        (json!(true), Some(BadCredential)),
        (json!(1e300), Some(BadCredential)),
        (json!(i64::MAX), Some(BadCredential)),
        (json!(u64::MAX), Some(BadCredential)),
        (json!(NOW * 1000), Some(BadCredential)),
    ] {
        let claims = but(but(svid(), "iat", json!(null)), "exp", exp);
        assert_eq!(expected, agent_reason(&claims), "{claims}");
    }
}

/// `nbf` and `iat`, where they stand, are dates, not to come, and before `exp`.
#[test]
fn nbf_and_iat_are_sound() {
    for name in ["nbf", "iat"] {
        for (time, expected) in [
            (json!(NOW + 5), None),
            (json!(NOW), None),
            (json!(NOW + 6), Some(ExpiredCredential)),
            (json!(NOW + 301), Some(BadCredential)),
            (json!("now"), Some(BadCredential)),
            (json!(-5), Some(BadCredential)),
        ] {
            let claims = but(svid(), name, time);
            assert_eq!(expected, agent_reason(&claims), "{claims}");
        }
    }
}

/// With `max_lifetime_seconds` a token that lives longer, or does not say how long, is refused.
#[test]
fn the_lifetime_is_bounded_where_configured() {
    let mut spec = spec();
    spec.max_lifetime_seconds = Some(310);
    let reason = |claims: serde_json::Value| {
        check_agent(&spec, &AGENT_KEY.sign(&claims.to_string())).err().map(|refusal| refusal.reason)
    };
    assert_eq!(None, reason(svid()));
    assert_eq!(Some(BadCredential), reason(but(svid(), "exp", json!(NOW + 301))));
    assert_eq!(Some(BadCredential), reason(but(svid(), "iat", json!(null))));
}

/// The key is one of the bundle of the ID's own trust domain: another trusted domain's key does not
/// sign for it, and an unknown domain is untrusted.
#[test]
fn the_key_is_of_the_ids_own_domain() {
    let other = Key::es256("b-key");
    let mut spec = spec();
    spec.domains.insert("b.example".to_owned(), domain(&bundle(&[&other])));
    let own = but(svid(), "sub", json!("spiffe://b.example/bot")).to_string();
    assert!(check_agent(&spec, &other.sign(&own)).is_ok());
    let foreign = other.sign(&svid().to_string());
    assert_eq!(UntrustedIssuer, check_agent(&spec, &foreign).unwrap_err().reason);
    let disguised = other.with("ES256", "agent-key").sign(&svid().to_string());
    assert_eq!(BadCredential, check_agent(&spec, &disguised).unwrap_err().reason);
    for sub in ["spiffe://c.example/bot", "spiffe://x.a.example/bot", "spiffe://a.example.evil/bot"]
    {
        let token = AGENT_KEY.sign(&but(svid(), "sub", json!(sub)).to_string());
        assert_eq!(UntrustedIssuer, check_agent(&spec, &token).unwrap_err().reason, "{sub}");
    }
}

/// A domain without a usable key is invalid as a whole, and says so.
#[test]
fn a_domain_without_usable_keys_is_invalid() {
    for keys in [
        r#"{"keys":[]}"#.to_owned(),
        json!({"keys": [AGENT_KEY.jwk(None)]}).to_string(),
        json!({"keys": [AGENT_KEY.jwk(Some("x509-svid"))]}).to_string(),
        json!({"keys": [AGENT_KEY.jwk(Some("JWT-SVID"))]}).to_string(),
    ] {
        let spec = spec_with_bundle(&keys);
        let refusal = check_agent(&spec, &AGENT_KEY.sign(&svid().to_string())).unwrap_err();
        assert_eq!(UntrustedIssuer, refusal.reason);
        assert!(refusal.detail.contains("`a.example` has no usable key"), "{}", refusal.detail);
        let trust = compile(&spec);
        assert!(trust.warnings().iter().any(|warning| warning.what.contains("no usable key")));
    }
}

/// A subject token of a configured issuer is no JWT-SVID, also where both share one key.
#[test]
fn a_subject_token_is_no_svid() {
    let spec = spec_with_bundle(&bundle(&[&IDP_KEY]));
    let token = IDP_KEY.sign(&user().to_string());
    assert!(check_subject(&spec, &token).is_ok());
    assert_eq!(BadCredential, check_agent(&spec, &token).unwrap_err().reason);
}

/// A token bound to a key is refused: possession cannot be proved.
#[test]
fn a_bound_svid_is_refused() {
    for cnf in [json!({"jkt": "x"}), json!({"x5t#S256": "x"}), json!({}), json!("x")] {
        assert_eq!(Some(UnboundCredential), agent_reason(&but(svid(), "cnf", cnf)));
    }
    let null = svid().to_string().replace("{\"sub\"", "{\"cnf\":null,\"sub\"");
    let refusal = check_agent(&spec(), &AGENT_KEY.sign(&null)).unwrap_err();
    assert_eq!(UnboundCredential, refusal.reason);
}

/// Evidence is one credential a role, under a known scheme, without proofs.
#[test]
fn evidence_is_one_bearer_token_a_role() {
    let agent = AGENT_KEY.sign(&svid().to_string());
    let subject = IDP_KEY.sign(&user().to_string());
    let sound = [evidence(Role::Agent, &agent), evidence(Role::Subject, &subject)];
    let facts = check_at(&spec(), &sound, NOW).unwrap();
    assert!(facts.agent.is_some() && facts.subject.is_some());

    let reason = |evidence: &[_]| check_at(&spec(), evidence, NOW).unwrap_err().reason;
    let [one, two] = sound;
    assert_eq!(NoCredential, reason(&[]));
    assert_eq!(BadCredential, reason(&[one, one]));
    assert_eq!(BadCredential, reason(&[two, one, two]));
    for (scheme, proof, expected) in [
        (Scheme::Bearer, Some("proof"), BadProof),
        (Scheme::Dpop, None, BadProof),
        (Scheme::Dpop, Some("proof"), BadProof),
        (Scheme::Wpt, Some("proof"), BadProof),
        (Scheme::Other, None, BadCredential),
    ] {
        let mut bad = one;
        bad.scheme = scheme;
        bad.proof = proof;
        assert_eq!(expected, reason(&[bad]));
        assert_eq!(expected, reason(&[two, bad]), "one sound credential does not save another");
    }
}
