//! Task credentials that a trace asks for.

use std::collections::BTreeMap;

use authz_cases::run;

use crate::traces::{NOW, compiled};

const FACTS: &str = r#"
agents: {bots: ["spiffe://a.example/ns/desk/sa/*"]}
catalog: {crm: {kind: http, operations: {get: {}, delete: {}}}}
classify:
  - {match: crm.get, effects: [read], tier: low}
  - {match: crm.delete, effects: [delete], tier: high}
tiers: {high: {bound: false}}
templates: {desk: {purpose: work, tier_cap: high, deadline: 30m, starters: [bots], scope: [{operation: crm.get}, {operation: crm.delete}]}}
"#;
const MAY: &str = r#"@id("may") permit(principal in Role::"bots", action, resource);"#;

/// Runs the steps of a trace; returns expected and actual fields of the steps that came out otherwise, and the steps that
/// were skipped.
fn ran(steps: &str) -> (Vec<(usize, String, String)>, usize) {
    let text = format!(
        "fixtures: {{agents: {{bot: 'spiffe://a.example/ns/desk/sa/bot'}}}}\n\
         tests:\n  - trace: t\n    task: {{template: desk, agent: bot}}\n    steps:\n{steps}"
    );
    let files = BTreeMap::from([("t.yaml".to_owned(), text)]);
    let report = run(&compiled("{name: a}", FACTS, MAY), &files, NOW);
    let failed = report.failed.into_iter().map(|one| (one.step, one.expected, one.actual));
    (failed.collect(), report.skipped)
}

/// As on a server. Without the failure, the steps that present the credential would be skipped, and nobody would notice.
#[test]
fn a_credential_that_is_refused_fails_the_step_that_asks_for_it() {
    let steps = "      - {call: crm.get, issue: {name: read, key: none}, expect: PERMIT}
      - {call: crm.get, present: {credential: read}, expect: PERMIT}
      - {call: crm.delete, issue: {name: gone, key: none}, expect: PERMIT}
      - {call: crm.delete, present: {credential: gone}, expect: PERMIT}\n";
    let refused = (3, "issue: gone".to_owned(), "code: PROOF_REQUIRED".to_owned());
    assert_eq!((vec![refused], 1), ran(steps));
}

#[test]
fn a_credential_ends_by_the_clock_of_its_trace() {
    let steps = "      - {call: crm.get, issue: {name: read}, expect: PERMIT}
      - {call: crm.get, issue: {name: late}, expect: PERMIT}
      - {call: crm.get, present: {credential: read}, expect: PERMIT}
      - {call: crm.get, present: {credential: read}, expect: {outcome: DENY, code: USES_EXHAUSTED}}
      - {after: 16m, call: crm.get, present: {credential: late}, expect: {outcome: DENY, code: EXPIRED_CREDENTIAL}}\n";
    assert_eq!((Vec::new(), 0), ran(steps));
}
