//! The executable: requests, documents and exit codes.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::bundles::{FACTS, NOW_MS, command, input};

const POLICY: &str =
    r#"@id("get") permit(principal in Role::"bots", action == Action::"crm.get", resource);"#;

fn run(subcommand: &str, request: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_authz-analyze"))
        .arg(subcommand)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn bundle(policies: &str) -> Value {
    json!({"files": input(FACTS, policies).files, "vars": {}})
}

fn options() -> Value {
    json!({"now_ms": NOW_MS, "solver": command(), "question_limit_ms": 60_000})
}

fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn analyze_writes_a_report() {
    let request = json!({"bundle": bundle(POLICY), "options": options()});
    let report = document(&run("analyze", &request.to_string()));
    assert_eq!(json!(1), report["version"]);
    assert_eq!(json!("desk"), report["bundle"]["name"]);
    assert_eq!(json!("cvc5"), report["solver"]["name"]);
    assert_eq!(json!(1), report["counts"]["policies"]);
    assert_eq!(json!(0), report["counts"]["not_decided"]);
    let proved = report["proved"].as_array().unwrap();
    let is_proved = |one: &Value| one["rule"] == "operation-nobody" && one["subject"] == "crm.get";
    assert!(proved.iter().any(is_proved));
}

#[test]
fn diff_writes_a_document() {
    let request = json!({"old": bundle(POLICY), "new": bundle(POLICY), "options": options()});
    let difference = document(&run("diff", &request.to_string()));
    assert_eq!(json!("proved"), difference["verdict"]);
}

#[test]
fn a_solver_that_does_not_start_is_told() {
    let options = json!({"now_ms": NOW_MS, "solver": ["/nonexistent/solver"]});
    let request = json!({"bundle": bundle(POLICY), "options": options});
    let report = document(&run("analyze", &request.to_string()));
    assert_eq!(Value::Null, report["solver"]);
    let findings = report["findings"].as_array().unwrap();
    assert!(
        findings.iter().any(|one| one["reason"].as_str().unwrap().contains("/nonexistent/solver"))
    );
}

#[test]
fn a_bundle_that_does_not_compile_has_its_own_code() {
    let request = json!({"bundle": bundle("permit(principal, action"), "options": options()});
    let output = run("analyze", &request.to_string());
    assert_eq!(Some(3), output.status.code());
    let text = String::from_utf8(output.stderr).unwrap();
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(json!("policy.cedar"), first["file"]);
}

#[test]
fn a_request_that_cannot_be_read_is_refused() {
    for request in
        ["", "{}", "{\"bundle\": {\"files\": {\"a\": \"*\"}}, \"options\": {\"now_ms\": 1}}"]
    {
        let output = run("analyze", request);
        assert_eq!(Some(1), output.status.code(), "{request}");
        assert!(!output.stderr.is_empty());
    }
}
