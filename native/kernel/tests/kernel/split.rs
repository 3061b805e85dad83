//! One operation per value of an argument decides as if each were a tool of its own.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use authz_kernel::decision::{Outcome, ReasonCode};
use authz_kernel::plan::Plan;
use authz_kernel::source;
use proptest::prelude::*;

use crate::common::ask;

const FACTS: &str = "
agents: {support-agent: ['spiffe://a.example/ns/support/sa/*']}
subjects: {staff: {issuer: corp, claim: groups, contains: employees}}
resources: {issues: {}}
destinations: {internal: {match: '*@corp.example', clearance: []}, external: {match: '*', clearance: []}}
";
const INPUT: &str = "{type: object, required: [id], properties: {method: {type: string}, id: {type: string}, to: {type: string}}}";
const CASES: [(&str, &str); 4] = [
    ("create", "effects: [write], resource: {collection: issues, id: /id}"),
    ("delete", "effects: [delete], resource: {collection: issues, id: /id}"),
    ("mail", "effects: [export], destination: {from: /to, type: email}"),
    ("read me", "effects: [read], tier: low"),
];

fn plan(yaml: &str, policies: &str) -> Plan {
    let files = BTreeMap::from([
        ("bundle.yaml".to_owned(), b"{name: test, tasks: optional}".to_vec()),
        ("facts.yaml".to_owned(), format!("{FACTS}{yaml}").into_bytes()),
        ("policies/a.cedar".to_owned(), policies.as_bytes().to_vec()),
    ]);
    let model = source::load(&files, &BTreeMap::new()).unwrap_or_else(|e| panic!("{e}"));
    Plan::compile(model, None).unwrap_or_else(|e| panic!("{e}"))
}

/// One tool that is split.
fn split(policies: &str, more: &str) -> Plan {
    let cases: Vec<String> =
        CASES.iter().map(|(value, said)| format!("'{value}': {{{said}}}")).collect();
    let yaml = format!(
        "catalog: {{tracker: {{kind: http, operations: {{issue: {{input: {INPUT}}}}}}}}}\n\
         classify: [{{match: tracker.issue, split: {{on: /method, cases: {{{}}}{more}}}}}]",
        cases.join(", ")
    );
    plan(&yaml, policies)
}

/// The same as tools of their own.
fn apart(policies: &str) -> Plan {
    let id = |value: &str| value.replace(' ', "_");
    let operations: Vec<String> =
        CASES.iter().map(|(value, _)| format!("issue.{}: {{input: {INPUT}}}", id(value))).collect();
    let rules: Vec<String> = CASES
        .iter()
        .map(|(value, said)| format!("{{match: tracker.issue.{}, {said}}}", id(value)))
        .collect();
    let yaml = format!(
        "catalog: {{tracker: {{kind: http, operations: {{{}}}}}}}\nclassify: [{}]",
        operations.join(", "),
        rules.join(", ")
    );
    plan(&yaml, policies)
}

const POLICIES: &str = r#"
@id("reads") permit(principal, action in Action::"effect:read", resource);
@id("writes") permit(principal, action == Action::"tracker.issue.create", resource in Collection::"issues");
@id("mails") permit(principal, action in [Action::"tracker.issue.mail", Action::"tracker.issue.delete"], resource);
@id("outside") @stepup("approve") @reason("leaves") forbid(principal, action in Action::"effect:export", resource)
when { context.destination.class == DestinationClass::"external" } unless { context.satisfied.contains(Kind::"approve") };
@id("odd") forbid(principal, action in Action::"effect:delete", resource) when { context.input has to };
"#;

static BOTH: LazyLock<(Plan, Plan)> = LazyLock::new(|| (apart(POLICIES), split(POLICIES, "")));

proptest! {
    #[test]
    fn a_case_decides_as_a_tool_of_its_own(
        which in 0..CASES.len(),
        id in "[a-z/]{0,4}",
        to in prop_oneof![Just(None), Just(Some("a@corp.example")), Just(Some("x@evil.example"))],
        broken in proptest::bool::weighted(0.1),
    ) {
        let value = CASES[which].0;
        let mut arguments = serde_json::json!({"method": value, "id": id});
        if let Some(to) = to {
            arguments["to"] = to.into();
        }
        if broken {
            arguments["id"] = 1.into();
        }
        let arguments = arguments.to_string();
        let own = format!("tracker.issue.{}", value.replace(' ', "_"));
        let (apart, one) = &*BOTH;
        let expected = ask(apart, &own, &arguments);
        let by_value = ask(one, "tracker.issue", &arguments);
        let by_name = ask(one, &own, &arguments);
        if !broken {
            prop_assert_eq!(&own, &by_value.operation);
        }
        for got in [by_value, by_name] {
            prop_assert_eq!(expected.outcome, got.outcome);
            prop_assert_eq!(expected.reason, got.reason);
            prop_assert_eq!(&expected.kinds, &got.kinds);
            prop_assert_eq!(&expected.policies, &got.policies);
            prop_assert_eq!(&expected.resource, &got.resource);
            prop_assert_eq!(&expected.destination_class, &got.destination_class);
            prop_assert_eq!(expected.arguments_digest, got.arguments_digest);
            prop_assert!(broken || expected.tier == got.tier);
        }
    }
}

const ALL: &str = "@id(\"all\") permit(principal, action, resource);";

#[test]
fn a_value_without_a_case_is_no_operation() {
    let plan = split(ALL, "");
    let reason = |operation: &str, arguments: &str| ask(&plan, operation, arguments).reason;
    assert_eq!(ReasonCode::Permitted, reason("tracker.issue", r#"{"method":"create","id":"a"}"#));
    for unknown in ["purge", "Create", "create ", "", "read_me"] {
        let arguments = serde_json::json!({"method": unknown, "id": "a"}).to_string();
        assert_eq!(ReasonCode::UnknownOperation, reason("tracker.issue", &arguments), "{unknown}");
    }
    for absent in [r#"{"id":"a"}"#, r#"{"id":"a","method":null}"#] {
        assert_eq!(ReasonCode::BadInput, reason("tracker.issue", absent));
    }
    assert_eq!(ReasonCode::BadInput, reason("tracker.issue", r#"{"id":"a","method":1}"#));
    assert_eq!(ReasonCode::UnknownOperation, reason("tracker.issue.purge", r#"{"id":"a"}"#));
}

#[test]
fn an_absent_argument_is_the_case_that_the_rule_says() {
    let plan = split(ALL, ", when_absent: 'read me'");
    let decision = ask(&plan, "tracker.issue", r#"{"id":"a"}"#);
    assert_eq!(
        ("tracker.issue.read_me", Outcome::Permit),
        (&*decision.operation, decision.outcome)
    );
    assert_eq!(Outcome::Permit, ask(&plan, "tracker.issue.read_me", r#"{"id":"a"}"#).outcome);
    assert_eq!(ReasonCode::BadInput, ask(&plan, "tracker.issue.create", r#"{"id":"a"}"#).reason);
}

/// Naming one case while the arguments say another must not be judged as the one that was named.
#[test]
fn the_arguments_say_the_case_and_not_the_caller() {
    let permits_reads =
        "@id(\"r\") permit(principal, action in Action::\"effect:read\", resource);";
    let plan = split(permits_reads, "");
    let hidden = r#"{"method":"delete","id":"a"}"#;
    let decision = ask(&plan, "tracker.issue.read_me", hidden);
    assert_eq!((Outcome::Deny, ReasonCode::BadInput), (decision.outcome, decision.reason));
    // As tools of their own, whose names alone say what they do, it would be permitted.
    assert_eq!(
        Outcome::Permit,
        ask(&apart(permits_reads), "tracker.issue.read_me", hidden).outcome
    );
}

#[test]
fn policies_name_the_cases_and_not_what_is_split() {
    let model = |policy: &str| {
        std::panic::catch_unwind(|| split(policy, ""))
            .map(|_| ())
            .map_err(|e| e.downcast_ref::<String>().cloned().unwrap_or_default())
    };
    let error =
        model("@id(\"a\") permit(principal, action == Action::\"tracker.issue\", resource);");
    assert!(error.unwrap_err().contains("tracker.issue"));
}
