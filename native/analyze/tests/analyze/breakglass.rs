//! Calls that break-glass opens.

use std::collections::BTreeMap;

use authz_analyze::paths::{PathResults, WITHOUT_BREAKGLASS};
use authz_analyze::report::{Finality, Finding, Severity};
use authz_kernel::decision::Time;

use crate::brute_force::NOW_MS;
use crate::paths::{FACTS, analyze, bundle, is_proved, of_rule, run_case};

const NO_GRANT: &str = "analysis: {assertions: [{id: grant, never: {agent: bot, effect: grant}}]}";
const EMERGENCY: &str = "@id(\"emergency\") permit(principal, action in Action::\"system:crm\", resource) when { context.exception.contains(Exception::\"breakglass\") };\n";
const MAIL: &str =
    "@id(\"mail\") permit(principal, action in Action::\"system:mail\", resource);\n";

fn facts(more: &str) -> String {
    format!("{FACTS}\n{more}\n")
}

/// Subjects of the proofs of `exception-on-path`.
fn proofs(results: &PathResults) -> Vec<&str> {
    let proofs = results.proved.iter().filter(|proof| proof.rule == "exception-on-path");
    proofs.map(|proof| proof.subject.as_str()).collect()
}

fn of_assertion(results: &PathResults) -> Vec<&Finding> {
    let found = of_rule(results, "exception-on-path").into_iter();
    found.filter(|finding| finding.message.contains("assertion:")).collect()
}

fn operations(finding: &Finding) -> Vec<&str> {
    finding.path.iter().map(|step| step.operation.as_str()).collect()
}

#[test]
fn a_call_that_only_break_glass_permits_is_found() {
    let facts = facts(NO_GRANT);
    let (plan, results) = analyze(&bundle(&facts, &format!("{MAIL}{EMERGENCY}")));
    let proof = results.proved.iter().find(|proof| proof.rule == "assertion:grant").unwrap();
    assert!(proof.assumptions.iter().any(|text| text == WITHOUT_BREAKGLASS), "{proof:#?}");
    let [finding] = of_assertion(&results)[..] else { panic!("{results:#?}") };
    assert_eq!((finding.verdict, finding.severity), (Finality::PathFound, Severity::Warning));
    assert_eq!(operations(finding), ["authz.breakglass", "crm.grant"]);
    let [opened, call] = finding.path.as_slice() else { panic!("{finding:#?}") };
    assert_eq!((opened.resource.as_str(), opened.is_pivot), ("crm", false));
    assert_eq!((call.note.as_str(), call.is_pivot), ("by break-glass", true));
    assert_eq!(finding.policies, ["emergency"]);
    assert_eq!(finding.location.as_ref().map(|place| place.file.as_str()), Some("policy.cedar"));
    // The exported case states break-glass, and fails at its call while the policy accepts it.
    let report = run_case(&plan, finding);
    assert_eq!(report.failed.len(), 1, "{}\n{report:#?}", finding.case);
    let (plan, _) = analyze(&bundle(&facts, MAIL));
    assert!(run_case(&plan, finding).is_ok(), "{}", finding.case);
    // People use the permit.
    assert!(of_rule(&results, "unused-authority").is_empty(), "{results:#?}");
}

#[test]
fn break_glass_that_opens_no_asserted_call_is_proved() {
    let critical =
        facts(NO_GRANT).replace("effects: [grant], tier: high", "effects: [grant], tier: critical");
    let (_, results) = analyze(&bundle(&critical, &format!("{MAIL}{EMERGENCY}")));
    assert!(proofs(&results).contains(&"breakglass assertion:grant"), "{results:#?}");
    assert!(of_assertion(&results).is_empty(), "{results:#?}");
    let forbid = "@id(\"no\") forbid(principal in Role::\"bot\", action == Action::\"crm.grant\", resource);";
    let (_, results) = analyze(&bundle(&facts(NO_GRANT), &format!("{MAIL}{EMERGENCY}{forbid}")));
    assert!(proofs(&results).contains(&"breakglass assertion:grant"), "{results:#?}");
    assert!(of_assertion(&results).is_empty(), "{results:#?}");
}

#[test]
fn a_bundle_without_exceptions_needs_no_assumption_about_break_glass() {
    let (_, results) = analyze(&bundle(&facts(NO_GRANT), MAIL));
    assert!(is_proved(&results, "assertion:grant"), "{results:#?}");
    assert!(proofs(&results).is_empty(), "{results:#?}");
    let all = results.proved.iter().flat_map(|proof| &proof.assumptions);
    assert!(!all.clone().any(|text| text.contains("reak-glass")), "{results:#?}");
}

/// Break-glass does not cover a call that an exception of the bundle covers.
#[test]
fn an_exception_of_the_bundle_stands_before_break_glass() {
    let legacy = "exceptions: {legacy: {who: bot, operations: ['crm.*'], tier_cap: high, owner: a, reason: b, ticket: c, expires: 2026-12-31}}";
    let facts = facts(&format!("{NO_GRANT}\n{legacy}"));
    let (_, results) = analyze(&bundle(&facts, &format!("{MAIL}{EMERGENCY}")));
    let [finding] = of_assertion(&results)[..] else { panic!("{results:#?}") };
    assert_eq!(finding.verdict, Finality::NotDecided);
    assert!(!finding.reason.is_empty() && finding.path.is_empty(), "{finding:#?}");
}

#[test]
fn a_path_that_needs_break_glass_at_two_systems_names_both() {
    let facts =
        facts("analysis: {assertions: [{id: pii-out, never: {label: pii, destination: outside}}]}");
    let mail =
        EMERGENCY.replace("emergency", "mail-emergency").replace("system:crm", "system:mail");
    let (plan, results) = analyze(&bundle(&facts, &format!("{EMERGENCY}{mail}")));
    let [finding] = of_assertion(&results)[..] else { panic!("{results:#?}") };
    assert!(finding.message.contains("`crm`, `mail`"), "{}", finding.message);
    assert_eq!(
        operations(finding),
        ["authz.breakglass", "authz.breakglass", "crm.get", "mail.send"]
    );
    assert_eq!(run_case(&plan, finding).failed.len(), 1, "{}", finding.case);
    // With a permit for mail, break-glass at one system is enough.
    let (_, results) = analyze(&bundle(&facts, &format!("{EMERGENCY}{MAIL}")));
    let [finding] = of_assertion(&results)[..] else { panic!("{results:#?}") };
    assert_eq!(operations(finding), ["authz.breakglass", "crm.get", "mail.send"]);
}

#[test]
fn the_asker_of_a_call_by_break_glass_approves_it() {
    let facts = FACTS.replace("subjects: {", "subjects: {boss: {issuer: partner},");
    let policies = "@id(\"emergency\") permit(principal, action in Action::\"system:mail\", resource) when { context.exception.contains(Exception::\"breakglass\") };
@id(\"held\") @stepup(\"approve:boss\") forbid(principal, action == Action::\"mail.send\", resource) unless { context.satisfied.contains(Kind::\"approve:boss\") };
@id(\"approver\") permit(principal in Role::\"boss\", action == Action::\"authz.approve\", resource);";
    let (_, results) = analyze(&bundle(&facts, policies));
    assert!(is_proved(&results, "self-approval"), "{results:#?}");
    let found = of_rule(&results, "exception-on-path");
    let found = found.iter().find(|one| one.message.contains("partner/example"));
    assert!(found.is_some_and(|one| one.message.contains("break-glass")), "{results:#?}");
    assert!(!proofs(&results).contains(&"breakglass self-approval"), "{results:#?}");
}

#[test]
fn a_test_states_break_glass_at_systems_of_the_bundle() {
    let (plan, _) = analyze(&bundle(FACTS, EMERGENCY));
    let run = |systems: &str, more: &str| {
        let case = format!(
            "tests: [{{case: read, breakglass: [{systems}], as: {{agent: bot, subject: ann, bound: true}}, call: crm.get, input: {{id: a}}, {more}}}]\nfixtures: {{agents: {{bot: 'spiffe://dev.example/bot'}}, subjects: {{ann: {{issuer: corp}}}}}}"
        );
        let files = BTreeMap::from([("case.yaml".to_owned(), case.into_bytes())]);
        authz_cases::run(&plan, &files, Time(NOW_MS))
    };
    let by = "expect: {outcome: PERMIT, exceptions: [breakglass]}";
    assert!(run("crm", by).is_ok(), "{:#?}", run("crm", by));
    let other = run("mail", "expect: DENY");
    assert!(other.is_ok(), "{other:#?}");
    let unknown = run("erp", "expect: DENY");
    let [failure] = unknown.failed.as_slice() else { panic!("{unknown:#?}") };
    assert!(failure.message.contains("no system `erp`"), "{failure:#?}");
}

/// A policy that looks for an exception of the bundle does not depend on break-glass; one that reads the set otherwise does.
#[test]
fn a_policy_depends_on_break_glass_by_its_name_or_the_whole_set() {
    let legacy = "exceptions: {legacy: {who: bot, operations: ['crm.*'], owner: a, reason: b, ticket: c, expires: 2026-12-31}}";
    let facts = facts(&format!("{NO_GRANT}\n{legacy}"));
    let assumes = |condition: &str| {
        let policy = format!(
            "{MAIL}@id(\"by\") permit(principal, action == Action::\"crm.get\", resource) when {{ {condition} }};"
        );
        let (_, results) = analyze(&bundle(&facts, &policy));
        results
            .proved
            .iter()
            .any(|proof| proof.assumptions.iter().any(|text| text == WITHOUT_BREAKGLASS))
    };
    assert!(!assumes("context.exception.contains(Exception::\"legacy\")"));
    assert!(assumes("context.exception.contains(Exception::\"breakglass\")"));
    assert!(assumes(
        "context.exception.contains(Exception::\"legacy\") || !context.exception.isEmpty()"
    ));
    assert!(assumes("context.exception.containsAny([Exception::\"legacy\"])"));
}
