//! Judgements on stated facts.

use authz_cases::eval;
use serde_json::{Value, json};

use crate::traces::{NOW, compiled};

const FACTS: &str = r#"
agents:
  bots: {match: ["spiffe://a.example/ns/desk/sa/*"], subject: required}
catalog: {crm: {kind: http, operations: {get: {}}}}
classify: [{match: crm.get, effects: [read], tier: low}]
"#;
const MAY: &str = r#"@id("may") permit(principal, action, resource);"#;

fn answer(request: &Value) -> Value {
    let plan = compiled("{name: a, tasks: optional}", FACTS, MAY);
    let answer = eval(&plan, request.to_string().as_bytes(), NOW.0).unwrap();
    serde_json::from_slice(&answer).unwrap()
}

/// As on a server, which refuses such a call before policy is asked.
#[test]
fn an_agent_without_the_subject_that_its_role_requires_is_refused() {
    let agent = "spiffe://a.example/ns/desk/sa/bot";
    let alone = answer(&json!({"as": {"agent": agent}, "call": "crm.get"}));
    assert_eq!(("DENY", "NO_CREDENTIAL"), codes(&alone));
    assert_eq!(json!([]), alone["trace"]);
    let subject = json!({"issuer": "corp", "sub": "alice"});
    let both = answer(&json!({"as": {"agent": agent, "subject": subject}, "call": "crm.get"}));
    assert_eq!(("PERMIT", "PERMITTED"), codes(&both));
    assert_eq!(json!(["corp/alice", agent]), both["chain"]);
}

fn codes(answer: &Value) -> (&str, &str) {
    (answer["outcome"].as_str().unwrap(), answer["reason_code"].as_str().unwrap())
}
