//! A shadow bundle judges the same calls, and no answer depends on it.

use std::collections::BTreeMap;

use authz_lane::World;
use authz_lane::proto::authz::v1 as wire;
use serde_json::{Value, json};

use crate::support::*;

/// An engine with the bundle of the tests, and with a shadow bundle that has more files.
fn shadowed(more: &[(&str, &str)]) -> Served {
    let served = unloaded(&json!({}));
    served.engine.load(World { shadow: Some(plan(more)), ..world() }).unwrap();
    served
}

/// Results of comparisons that are not zero.
pub(crate) fn results(served: &Served) -> BTreeMap<&'static str, u64> {
    let mut results = served.engine.status().shadow.unwrap().decisions;
    results.retain(|_, count| *count > 0);
    results
}

/// Causes of calls that were not compared.
pub(crate) fn causes(served: &Served) -> Vec<(String, f64)> {
    let families = served.engine.metrics();
    let family = families.iter().find(|family| family.name == "authz_shadow_not_compared").unwrap();
    let samples = family.samples.iter().filter(|sample| sample.value > 0.0);
    samples.map(|sample| (sample.labels[0].1.clone(), sample.value)).collect()
}

const NO_SEARCH: &str =
    "@id(\"no-search\") forbid(principal, action == Action::\"crm.search\", resource);";

#[test]
fn a_decision_that_would_differ_is_counted_and_recorded_and_answered_as_before() {
    let plain = served();
    let expected = plain.check(&search());
    let served = shadowed(&[("policies/shadow.cedar", NO_SEARCH)]);
    let mut decision = served.check(&search());
    decision.decision_id.clone_from(&expected.decision_id);
    decision.decided_at = expected.decided_at;
    assert_eq!(expected, decision);
    assert_eq!(code(&served.check(&asking("crm.card"))), code(&plain.check(&asking("crm.card"))));
    assert_eq!(BTreeMap::from([("equal", 1), ("newly_denied", 1)]), results(&served));
    let records = served.records();
    let shadow = &records[0]["result"]["shadow"];
    assert_eq!((&json!("DENY"), &json!("FORBIDDEN")), (&shadow["outcome"], &shadow["reason_code"]));
    assert_eq!("no-search", shadow["rules"][0]["name"]);
    assert_eq!(64, shadow["digest"].as_str().unwrap().len());
    assert_eq!(Value::Null, records[1]["result"]["shadow"]);
}

#[test]
fn each_difference_has_its_result() {
    let holds = "@id(\"ask\") @stepup(\"approve\") forbid(principal, action == Action::\"crm.search\", resource)
        unless { context.satisfied.contains(Kind::\"approve\") };
        @id(\"looser\") permit(principal, action == Action::\"crm.raw\", resource);
        @id(\"ask-mail\") @stepup(\"approve\") forbid(principal, action == Action::\"crm.mail\", resource)
        unless { context.satisfied.contains(Kind::\"approve\") };";
    let served = shadowed(&[("policies/shadow.cedar", holds)]);
    assert_eq!("PERMITTED", code(&served.check(&search())));
    assert_eq!(BTreeMap::from([("newly_held", 1)]), results(&served));
    // Held by both, but for another kind as well.
    assert_eq!("CONFIRM_REQUIRED", code(&served.check(&asking("crm.mail"))));
    assert_eq!(BTreeMap::from([("newly_held", 2)]), results(&served));
    let wiki = "@id(\"reads\") permit(principal, action == Action::\"wiki.read\", resource);";
    let open: Vec<(&str, &str)> = vec![("policies/all.cedar", wiki)];
    let served = shadowed(&open);
    assert_eq!("FORBIDDEN", code(&served.check(&asking("wiki.read"))));
    assert_eq!("PERMITTED", code(&served.check(&search())));
    assert_eq!(BTreeMap::from([("newly_denied", 1), ("newly_permitted", 1)]), results(&served));
}

/// A forbid that fails to evaluate denies, also in a shadow bundle, and only there.
#[test]
fn a_shadow_policy_that_fails_changes_no_answer() {
    let failing = "@id(\"overflow\") forbid(principal, action == Action::\"crm.search\", resource)
        when { context.tier + 1 + 9223372036854775807 > 0 };";
    let served = shadowed(&[("policies/shadow.cedar", failing)]);
    assert_eq!("PERMITTED", code(&served.check(&search())));
    assert_eq!(BTreeMap::from([("newly_denied", 1)]), results(&served));
    assert_eq!("POLICY_ERROR", served.records()[0]["result"]["shadow"]["reason_code"]);
}

/// What `mode` of each bundle lets through counts as permitted.
#[test]
fn the_mode_of_each_bundle_counts() {
    let until = authz_kernel::rfc3339::seconds((now() + 86_400) * 1_000);
    let mode = format!("mode: {{default: observe, owner: me, until: '{until}'}}");
    let served = shadowed(&[("mode.yaml", &mode)]);
    assert_eq!("FORBIDDEN", code(&served.check(&asking("wiki.read"))));
    assert_eq!(BTreeMap::from([("newly_permitted", 1)]), results(&served));
}

#[test]
fn a_call_that_cannot_be_compared_is_never_equal() {
    let facts = FACTS
        .replace("  - {match: wiki.read, effects: [read], tier: low}\n", "")
        .replace(
            "  wiki:\n    kind: http\n    origin: https://wiki.example\n    operations:\n      read: {input: {type: object, properties: {}}}\n",
            "",
        )
        .replace("  - {method: GET, path: /pages, operation: wiki.read}\n", "");
    let policies = "@id(\"all\") permit(principal, action in [Action::\"system:crm\"], resource);
        @id(\"flow\") forbid(principal, action == Action::\"crm.delete\", resource)
        when { context.session.labels.contains(Label::\"pii\") };";
    let labels = "labels: {pii: {kind: confidentiality}}\n";
    let served = shadowed(&[
        ("bundle.yaml", "name: desk\ntasks: optional\n"),
        ("facts.yaml", &facts),
        ("labels.yaml", labels),
        ("policies/all.cedar", policies),
    ]);
    for operation in ["wiki.read", "crm.delete"] {
        let arguments_json =
            if operation == "crm.delete" { br#"{"id":"1"}"#.to_vec() } else { Vec::new() };
        let _decision = served.check(&wire::CheckRequest { arguments_json, ..asking(operation) });
    }
    let _response = served.proxy(&http("GET", "/cards", &[]));
    let refused = wire::CheckRequest {
        evidence: vec![evidence(wire::EvidenceRole::Agent, forged())],
        ..search()
    };
    assert_eq!("BAD_CREDENTIAL", code(&served.check(&refused)));
    assert_eq!(BTreeMap::from([("not_compared", 4)]), results(&served));
    let causes: Vec<String> = causes(&served).into_iter().map(|(cause, _)| cause).collect();
    assert!(causes.contains(&"system".to_owned()), "{causes:?}");
    assert!(causes.contains(&"labels".to_owned()), "{causes:?}");
    assert!(causes.contains(&"not_judged".to_owned()), "{causes:?}");
    assert!(served.records().iter().all(|record| record["result"]["shadow"] == Value::Null));
}

/// The history that a shadow policy reads is not kept where nothing of the serving bundle reads it.
#[test]
fn a_history_that_is_not_kept_is_not_made_up() {
    let counts = "@id(\"busy\") forbid(principal, action == Action::\"crm.card\", resource)
        when { context.session.calls > 3 };";
    let served = shadowed(&[("policies/shadow.cedar", counts)]);
    let _decision = served.check(&asking("crm.card"));
    assert_eq!(BTreeMap::from([("not_compared", 1)]), results(&served));
    assert_eq!(vec![("labels".to_owned(), 1.0)], causes(&served));
}

#[test]
fn without_a_shadow_bundle_nothing_is_counted() {
    let served = served();
    let _decision = served.check(&search());
    assert!(served.engine.status().shadow.is_none() && causes(&served).is_empty());
}
