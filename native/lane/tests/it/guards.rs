//! Confidence of guards: a signed statement about one call lifts what a tier requires.

use std::sync::{Arc, LazyLock};

use authz_lane::World;
use authz_lane::proto::authz::v1 as wire;
use authz_token::mint::{Key, jwks};
use authz_token::{TrustSpec, TrustStore};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::*;

static GUARD: LazyLock<Key> = LazyLock::new(|| Key::es256("g1"));
static STRANGER: LazyLock<Key> = LazyLock::new(|| Key::es256("g1"));

const FACTS: &str = "
catalog:
  bank:
    kind: http
    operations: {pay: {effects: [write], tier: standard, input: {type: object, properties: {amount: {type: integer}}}}}
tiers: {standard: {confidence: 80}}
";
const POLICY: &str = "@id(\"pay\") permit(principal, action == Action::\"bank.pay\", resource);";

fn serving() -> Served {
    let served = unloaded(&json!({}));
    let mut spec = trust_spec();
    spec["guards"] = json!({"scanner": {"keys": jwks(&[&GUARD]), "from": "test"}});
    let spec = TrustSpec::from_json(spec.to_string().as_bytes()).unwrap();
    let trust = Arc::new(TrustStore::compile(&spec).unwrap());
    let plan = plan(&[("bank.yaml", FACTS), ("policies/bank.cedar", POLICY)]);
    served.engine.load(World { plan, trust, ..world() }).unwrap();
    served
}

fn digest(arguments: &str) -> String {
    Sha256::digest(arguments).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn claims() -> Value {
    json!({
        "iss": "scanner", "aud": "authz", "iat": now(), "operation": "bank.pay",
        "arguments_digest": digest(r#"{"amount":5}"#), "confidence": 90,
    })
}

fn signed(key: &Key, claims: &Value) -> String {
    let header = json!({"alg": "ES256", "kid": key.kid(), "typ": "authz-confidence+jwt"});
    key.sign_with(&header.to_string(), &claims.to_string())
}

fn pay(statement: String) -> wire::CheckRequest {
    wire::CheckRequest {
        // Another form of the same arguments: the digest is of the canonical one.
        arguments_json: br#"{ "amount": 5 }"#.to_vec(),
        confidence_jws: statement,
        ..asking("bank.pay")
    }
}

#[test]
fn a_guard_vouches_for_one_call() {
    let served = serving();
    let held = served.check(&pay(String::new()));
    assert_eq!("PROOF_REQUIRED", code(&held));
    assert_eq!(vec!["confidence"], held.step_up_kinds);
    assert_eq!("PERMITTED", code(&served.check(&pay(signed(&GUARD, &claims())))));
    let with = |name: &str, value: Value| {
        let mut all = claims();
        all[name] = value;
        all
    };
    for (what, statement) in [
        ("another key", signed(&STRANGER, &claims())),
        ("other arguments", signed(&GUARD, &with("arguments_digest", json!(digest("{}"))))),
        ("another operation", signed(&GUARD, &with("operation", json!("crm.search")))),
        ("another task", signed(&GUARD, &with("task", json!("0198-another-task")))),
        ("an old statement", signed(&GUARD, &with("iat", json!(now() - 70)))),
        ("another service", signed(&GUARD, &with("aud", json!("https://other.example")))),
        ("too little", signed(&GUARD, &with("confidence", json!(79)))),
        ("a subject token", alice()),
        ("no token", "a.b.c".to_owned()),
    ] {
        let decision = served.check(&pay(statement));
        assert_eq!("PROOF_REQUIRED", code(&decision), "{what}");
    }
    let records = served.records();
    let guard = &records[1]["input"]["guard"];
    assert_eq!((json!("scanner"), json!(90)), (guard["name"].clone(), guard["confidence"].clone()));
    assert_eq!(records[1]["input"]["arguments_digest"], guard["arguments_digest"]);
    assert!(records[2]["input"]["guard"]["refused"].as_str().unwrap().contains("signature"));
    assert_eq!(None, records[0]["input"].get("guard"));
}

#[test]
fn a_node_without_guards_says_so() {
    let decision =
        served().check(&wire::CheckRequest { confidence_jws: "a.b.c".to_owned(), ..search() });
    assert_eq!("BAD_INPUT", code(&decision));
    let long = wire::CheckRequest { confidence_jws: "a".repeat(8_193), ..search() };
    assert_eq!("BAD_INPUT", code(&serving().check(&long)));
}

/// A tier may want its records on disk before the answer, which high tiers always have.
#[test]
fn a_tier_wants_durable_records() {
    let permit = "@id(\"pay\") permit(principal, action == Action::\"bank.pay\", resource);";
    for (durable, synced) in [(true, 1), (false, 0)] {
        let facts = FACTS.replace("{confidence: 80}", &format!("{{durable_audit: {durable}}}"));
        let served = unloaded(&json!({}));
        let plan = plan(&[("bank.yaml", &facts), ("policies/bank.cedar", permit)]);
        served.engine.load(World { plan, ..world() }).unwrap();
        let before = served.engine.status().audit.syncs;
        assert_eq!("PERMITTED", code(&served.check(&pay(String::new()))));
        let after = served.engine.status().audit.syncs;
        assert_eq!(synced, (after - before).min(1), "{durable}");
    }
}
