//! Obligations that Authz carries out itself: what a record shows, and how often a permit counts.

use authz_lane::World;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::service::auth::v3::check_response::HttpResponse;
use serde_json::{Value, json};

use crate::support::*;

const FACTS: &str = "
catalog:
  hr:
    kind: http
    origin: https://hr.example
    operations:
      raise:
        effects: [write]
        tier: standard
        input:
          type: object
          properties:
            salary: {type: integer}
            note: {type: string}
            bank: {type: object, properties: {codes: {type: array, items: {type: integer}}, country: {type: string, enum: [de, fr]}}}
      twice: {effects: [read], tier: low}
      export: {effects: [read], tier: low}
routes:
  - {method: POST, path: /twice, operation: hr.twice}
  - {method: POST, path: /export, operation: hr.export}
";

const POLICIES: &str = "
@id(\"raise\") @obligation(\"mask_arguments:/salary,mask_arguments:/bank/codes/*,log_full\")
permit(principal, action == Action::\"hr.raise\", resource);
@id(\"twice\") @obligation(\"max_uses:2,log_full\") permit(principal, action == Action::\"hr.twice\", resource);
@id(\"export\") @obligation(\"redact:/salary,log_full\") permit(principal, action == Action::\"hr.export\", resource);
";

fn serving() -> Served {
    let served = unloaded(&json!({}));
    let plan = plan(&[("hr.yaml", FACTS), ("policies/hr.cedar", POLICIES)]);
    served.engine.load(World { plan, ..world() }).unwrap();
    served
}

fn raise(arguments: &Value) -> wire::CheckRequest {
    wire::CheckRequest { arguments_json: arguments.to_string().into_bytes(), ..asking("hr.raise") }
}

#[test]
fn a_record_shows_what_the_permit_says() {
    let served = serving();
    let token = svid();
    let bank = json!({"codes": [1, 2], "country": "de"});
    for arguments in [
        json!({"salary": 70_000, "note": "for good work", "bank": bank}),
        // A credential stays out of the record, whatever a permit says.
        json!({"note": token}),
        json!({"note": "x".repeat(20_000)}),
    ] {
        let decision = served.check(&raise(&arguments));
        assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
        assert!(decision.obligations.is_empty(), "no enforcer does these");
    }
    let records = served.records();
    assert_eq!(
        json!({"salary": null, "note": "for good work", "bank": {"codes": [null, null], "country": "de"}}),
        records[0]["input"]["arguments"]
    );
    let mut masked: Vec<&str> = records[0]["masked"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .filter(|pointer| pointer.starts_with("/input/arguments"))
        .collect();
    masked.sort_unstable();
    let pointers =
        ["bank/codes/0", "bank/codes/1", "salary"].map(|name| format!("/input/arguments/{name}"));
    assert_eq!(pointers.as_slice(), masked.as_slice());
    assert_eq!(
        json!(["log_full", "mask_arguments:/bank/codes/*", "mask_arguments:/salary"]),
        records[0]["result"]["own_obligations"]
    );
    for record in &records[1..3] {
        let note = record["input"]["arguments"]["note"].as_str().unwrap();
        assert!(note.starts_with("sha256:"), "{note}");
    }
}

/// Whatever comes of the call, and whoever makes it.
#[test]
fn a_masked_argument_stands_in_no_record() {
    let served = serving();
    let arguments = json!({"salary": 70_001, "note": "secret"});
    let mut nobody = raise(&arguments);
    nobody.evidence.clear();
    assert_eq!("NO_CREDENTIAL", code(&served.check(&nobody)));
    let mut unbounded = raise(&arguments);
    unbounded.labels = vec!["nothing".to_owned()];
    served.check(&unbounded);
    let records = served.records();
    assert_eq!(2, records.len());
    for record in records {
        let text = record.to_string();
        assert!(!text.contains("70001") && !text.contains("secret"), "{text}");
    }
}

#[test]
fn a_permit_counts_twice() {
    let served = serving();
    for expected in ["PERMITTED", "PERMITTED", "USES_EXHAUSTED", "USES_EXHAUSTED"] {
        assert_eq!(expected, code(&served.check(&asking("hr.twice"))));
    }
    let records = served.records();
    let rule = &records[2]["result"]["rules"][0];
    assert_eq!((json!("uses"), json!("twice")), (rule["kind"].clone(), rule["name"].clone()));
}

/// Envoy needs no extension for what Authz does, and redacts nothing.
#[test]
fn through_envoy() {
    let served = serving();
    let permitted = served.proxy(&http("POST", "/twice", &[]));
    assert!(matches!(permitted.http_response, Some(HttpResponse::OkResponse(_))), "{permitted:?}");
    let refused = served.proxy(&http("POST", "/export", &[]));
    let text = format!("{refused:?}");
    assert!(matches!(refused.http_response, Some(HttpResponse::DeniedResponse(_))), "{text}");
    assert!(text.contains("ENFORCER_REFUSED"), "{text}");
}
