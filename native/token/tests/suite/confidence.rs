//! Confidence statements of guards (JWTs about one call).
#![expect(clippy::indexing_slicing, clippy::string_slice, reason = "tests")]

use std::sync::LazyLock;

use authz_token::mint::{Key, jwks};
use authz_token::{
    ConfidenceFacts, GuardSpec, RefusalReason, TrustSpec, TrustStore, UnixTime, verify_confidence,
};
use serde_json::{Value, json};

use RefusalReason::{BadCredential, ExpiredCredential, UntrustedIssuer, WrongAudience};

use crate::support::*;

static GUARD: LazyLock<Key> = LazyLock::new(|| Key::es256("g1"));
static EDWARDS: LazyLock<Key> = LazyLock::new(|| Key::ed25519("g2"));
static STRANGER: LazyLock<Key> = LazyLock::new(|| Key::es256("g1"));

const DIGEST: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn guarded() -> TrustSpec {
    let mut spec = spec();
    let keys = |key: &Key| GuardSpec { keys: jwks(&[key]), from: "a file".to_owned() };
    spec.guards.insert("scanner".to_owned(), keys(&GUARD));
    spec.guards.insert("reviewer".to_owned(), keys(&EDWARDS));
    spec
}

fn statement() -> Value {
    json!({
        "iss": "scanner", "aud": spec().audiences[0], "iat": NOW - 5, "task": "t-1", "operation": "crm.get",
        "arguments_digest": DIGEST, "confidence": 90,
    })
}

fn signed_with(key: &Key, header: Value, claims: &Value) -> String {
    let alg = if key.jwk(None)["kty"] == "OKP" { "EdDSA" } else { "ES256" };
    let mut all = json!({"alg": alg, "kid": key.kid(), "typ": "authz-confidence+jwt"});
    for (name, value) in header.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    key.sign_with(&all.to_string(), &claims.to_string())
}

fn signed(claims: &Value) -> String {
    signed_with(&GUARD, json!({}), claims)
}

fn verified(token: &str) -> Result<ConfidenceFacts, RefusalReason> {
    let trust = TrustStore::compile(&guarded()).unwrap();
    verify_confidence(token, &trust, UnixTime(NOW)).map_err(|refusal| {
        assert_eq!(None, refusal.unknown_key, "no key of a guard is fetched");
        refusal.reason
    })
}

#[test]
fn a_statement_is_about_one_call() {
    let facts = verified(&signed(&statement())).unwrap();
    assert_eq!(("scanner", "t-1", "crm.get"), (&*facts.guard, &*facts.task, &*facts.operation));
    assert_eq!((90, NOW - 5), (facts.confidence, facts.issued_at));
    assert_eq!([0x44, 0x13, 0x6f], facts.arguments_digest[..3]);
    // Without a task, and of a guard with another kind of key.
    let other = but(but(statement(), "iss", json!("reviewer")), "task", Value::Null);
    let facts = verified(&signed_with(&EDWARDS, json!({}), &other)).unwrap();
    assert_eq!(("reviewer", ""), (&*facts.guard, &*facts.task));
    for confidence in [0, 100] {
        let facts = verified(&signed(&but(statement(), "confidence", json!(confidence)))).unwrap();
        assert_eq!(confidence, facts.confidence);
    }
}

#[test]
fn only_the_guards_own_key_signs() {
    assert_eq!(Err(BadCredential), verified(&signed_with(&STRANGER, json!({}), &statement())));
    // The key of another guard.
    assert!(verified(&signed_with(&EDWARDS, json!({}), &statement())).is_err());
    assert!(verified(&signed_with(&EDWARDS, json!({"kid": null}), &statement())).is_err());
    let unknown = but(statement(), "iss", json!("nobody"));
    assert_eq!(Err(UntrustedIssuer), verified(&signed(&unknown)));
    // Keys of issuers and trust domains are no guard's.
    let mut claims = statement();
    claims["iss"] = json!(spec().issuers.values().next().unwrap().issuer);
    assert_eq!(Err(UntrustedIssuer), verified(&signed(&claims)));
    // Without guards no statement is believed.
    let trust = TrustStore::compile(&spec()).unwrap();
    let refused = verify_confidence(&signed(&statement()), &trust, UnixTime(NOW)).unwrap_err();
    assert_eq!(UntrustedIssuer, refused.reason);
}

#[test]
fn a_statement_counts_for_a_minute() {
    for (age, refused) in [
        (0, None),
        (60, None),
        (61, Some(ExpiredCredential)),
        (-5, None),
        (-6, Some(ExpiredCredential)),
    ] {
        let claims = but(statement(), "iat", json!(NOW - age));
        assert_eq!(refused, verified(&signed(&claims)).err(), "{age}");
    }
}

#[test]
fn the_form_is_strict() {
    for (name, value, reason) in [
        ("aud", json!("https://other.example"), WrongAudience),
        ("aud", Value::Null, WrongAudience),
        ("iat", Value::Null, BadCredential),
        ("iss", Value::Null, BadCredential),
        ("operation", Value::Null, BadCredential),
        ("operation", json!(""), BadCredential),
        ("task", json!(7), BadCredential),
        ("arguments_digest", Value::Null, BadCredential),
        ("arguments_digest", json!(DIGEST.to_uppercase()), BadCredential),
        ("arguments_digest", json!(&DIGEST[2..]), BadCredential),
        ("arguments_digest", json!(format!("{DIGEST}00")), BadCredential),
        ("arguments_digest", json!("g".repeat(64)), BadCredential),
        ("confidence", Value::Null, BadCredential),
        ("confidence", json!(101), BadCredential),
        ("confidence", json!(-1), BadCredential),
        ("confidence", json!(90.5), BadCredential),
        ("confidence", json!("90"), BadCredential),
    ] {
        assert_eq!(
            Err(reason),
            verified(&signed(&but(statement(), name, value.clone()))),
            "{name} {value}"
        );
    }
    for header in [
        json!({"typ": "JWT"}),
        json!({"typ": "at+jwt"}),
        json!({"typ": null}),
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"crit": ["x"]}),
    ] {
        assert_eq!(
            Err(BadCredential),
            verified(&signed_with(&GUARD, header.clone(), &statement())),
            "{header}"
        );
    }
    assert_eq!(Err(BadCredential), verified("a.b.c"));
    assert_eq!(Err(BadCredential), verified(""));
}

/// A subject token or a task credential is no statement of a guard, whoever signed it.
#[test]
fn a_guard_with_keys_of_none_believes_nothing() {
    let mut spec = guarded();
    spec.guards.get_mut("scanner").unwrap().keys = "{\"keys\": []}".to_owned();
    let trust = TrustStore::compile(&spec).unwrap();
    assert!(trust.warnings().iter().any(|warning| warning.to_string().contains("guards.scanner")));
    assert!(verify_confidence(&signed(&statement()), &trust, UnixTime(NOW)).is_err());
    spec.guards.get_mut("scanner").unwrap().keys = "no JSON".to_owned();
    let errors = TrustStore::compile(&spec).unwrap_err();
    assert!(errors[0].to_string().contains("guards.scanner"), "{}", errors[0]);
}
