//! Rules about policies and operations: found, and not found.

use authz_analyze::proofs::{
    ALWAYS_MATCHES, MAY_ERROR, NEVER_MATCHES, NOBODY, REDUNDANT, VOIDED, analyze,
};
use authz_analyze::report::{Finality, Finding, Report, Severity};
use authz_analyze::solver::OnceSolver;

use crate::bundles::{SOLVER, plan};

fn report(policies: &str) -> Report {
    analyze(&plan(policies), &OnceSolver::new(&*SOLVER, None))
}

/// The finding of a rule about a policy or operation.
fn finding<'r>(report: &'r Report, rule: &str, subject: &str) -> Option<&'r Finding> {
    let id = authz_analyze::report::finding_id(rule, subject);
    report.findings.iter().find(|one| one.id == id)
}

fn holds(report: &Report, rule: &str, subject: &str) -> bool {
    report.proved.iter().any(|one| one.rule == rule && one.subject == subject)
}

/// A finding of the rule about the first subject, and none about the others.
fn check(policies: &str, rule: &str, subject: &str, others: &[&str]) -> Finding {
    let report = report(policies);
    for other in others {
        assert!(holds(&report, rule, other), "{other}: {:?}", finding(&report, rule, other));
    }
    let found = finding(&report, rule, subject).unwrap_or_else(|| panic!("{:?}", report.findings));
    assert!(!holds(&report, rule, subject));
    assert_eq!(Severity::Warning, found.severity);
    found.clone()
}

#[test]
fn a_policy_that_never_matches() {
    let policies = r#"
@id("band") permit(principal, action == Action::"billing.pay", resource)
when { context.input.amount > 100 && context.input.amount < 50 };
@id("small") permit(principal, action == Action::"billing.pay", resource)
when { context.input.amount < 50 };
"#;
    let found = check(policies, NEVER_MATCHES, "band", &["small"]);
    assert_eq!(Finality::Proved, found.verdict);
    assert_eq!(vec!["band"], found.policies);
    assert_eq!(2, found.location.unwrap().line);
    assert!(found.assumptions.iter().any(|text| text.contains("cvc5")), "{:?}", found.assumptions);
}

/// Each of the types of principals alone would be enough for a match.
#[test]
fn a_policy_that_matches_people_alone_matches() {
    let policies = r#"
@id("staff") permit(principal in Role::"staff", action == Action::"crm.get", resource);
"#;
    assert!(holds(&report(policies), NEVER_MATCHES, "staff"));
}

#[test]
fn conditions_that_exclude_nothing() {
    let policies = r#"
@id("any") permit(principal in Role::"bots", action == Action::"billing.pay", resource)
when { context.input.amount < 50 || context.input.amount > 40 };
@id("some") permit(principal in Role::"bots", action == Action::"billing.pay", resource)
when { context.input.amount < 50 };
@id("bare") permit(principal in Role::"bots", action == Action::"crm.get", resource);
"#;
    let found = check(policies, ALWAYS_MATCHES, "any", &["some"]);
    assert_eq!(Finality::Proved, found.verdict);
    // A policy without conditions says what it means.
    assert!(finding(&report(policies), ALWAYS_MATCHES, "bare").is_none());
}

#[test]
fn a_policy_that_can_fail() {
    let policies = r#"
@id("pay") permit(principal, action == Action::"billing.pay", resource);
@id("sum") forbid(principal, action == Action::"billing.pay", resource)
when { context.input.amount + context.input.fee > 100 };
@id("bound") forbid(principal, action == Action::"billing.pay", resource)
when { context.input.amount > 0 && context.input.amount < 1000 && context.input.amount + 1 > 100 };
"#;
    let found = check(policies, MAY_ERROR, "sum", &["pay", "bound"]);
    assert_eq!(Finality::PathFound, found.verdict);
    assert!(found.message.ends_with("integer overflow"), "{}", found.message);
    let step = found.path.first().unwrap();
    assert_eq!("billing.pay", step.operation);
    assert!(step.input.get("amount").is_some(), "{step:?}");
    assert_eq!((false, ""), (step.agent.starts_with("Agent::"), step.subject.as_str()));
}

#[test]
fn a_policy_that_another_covers() {
    let policies = r#"
@id("narrow") permit(principal in Role::"bots", action == Action::"crm.get", resource)
when { context.confidence > 50 };
@id("wide") permit(principal in Role::"bots", action in Action::"system:crm", resource);
@id("other") permit(principal in Role::"staff", action == Action::"crm.get", resource);
"#;
    let found = check(policies, REDUNDANT, "narrow", &["wide", "other"]);
    assert_eq!(vec!["narrow", "wide"], found.policies);
}

/// Of two that cover each other, the later one is reported.
#[test]
fn a_policy_written_twice() {
    let policies = r#"
@id("one") permit(principal, action == Action::"crm.get", resource) when { context.tier < 2 };
@id("two") permit(principal, action == Action::"crm.get", resource) when { !(context.tier >= 2) };
"#;
    check(policies, REDUNDANT, "two", &["one"]);
}

/// Another annotation is another effect.
#[test]
fn a_policy_with_other_obligations_is_not_covered() {
    let policies = r#"
@id("narrow") @obligation("max_uses:3")
permit(principal, action == Action::"crm.get", resource) when { context.confidence > 50 };
@id("wide") permit(principal, action == Action::"crm.get", resource);
"#;
    assert!(holds(&report(policies), REDUNDANT, "narrow"));
}

/// A forbid that fails to evaluate denies, so it is covered only by one that denies then, too.
#[test]
fn a_forbid_that_fails_is_not_covered_by_one_that_does_not() {
    let policies = r#"
@id("pay") permit(principal, action == Action::"billing.pay", resource);
@id("sum") forbid(principal, action == Action::"billing.pay", resource)
when { context.input.amount + context.input.fee > 1000 };
@id("large") forbid(principal, action == Action::"billing.pay", resource)
when { context.input.amount > 400 || context.input.fee > 400 };
"#;
    // Amounts above 1000 need one above 400; the sum of two large negative ones overflows.
    assert!(holds(&report(policies), REDUNDANT, "sum"));
    let bounded = policies.replace(
        "context.input.amount + context.input.fee > 1000",
        "context.input.amount > 0 && context.input.fee > 0 && context.input.amount < 9999 && context.input.fee < 9999 && context.input.amount + context.input.fee > 1000",
    );
    let report = report(&bounded);
    assert!(finding(&report, REDUNDANT, "sum").is_some(), "{:?}", report.findings);
}

#[test]
fn a_permit_that_forbids_void() {
    let policies = r#"
@id("large") permit(principal, action == Action::"billing.pay", resource)
when { context.input.amount > 100 };
@id("small") permit(principal, action == Action::"billing.pay", resource)
when { context.input.amount < 10 };
@id("limit") forbid(principal, action == Action::"billing.pay", resource)
when { context.input.amount > 50 };
"#;
    let found = check(policies, VOIDED, "large", &["small"]);
    assert_eq!(vec!["large", "limit"], found.policies);
}

/// A person can lift the forbid, so it voids nothing.
#[test]
fn a_step_up_voids_nothing() {
    let policies = r#"
@id("mail") permit(principal, action == Action::"mail.send", resource);
@id("ask") @stepup("approve") forbid(principal, action == Action::"mail.send", resource)
unless { context.satisfied.contains(Kind::"approve") };
"#;
    let report = report(policies);
    assert!(holds(&report, VOIDED, "mail"), "{:?}", report.findings);
    assert!(holds(&report, NOBODY, "mail.send"));
}

#[test]
fn an_operation_for_nobody() {
    let policies = r#"
@id("get") permit(principal in Role::"bots", action == Action::"crm.get", resource);
@id("pay") permit(principal, action == Action::"billing.pay", resource);
@id("stop") forbid(principal, action == Action::"billing.pay", resource);
"#;
    let found = check(policies, NOBODY, "billing.pay", &["crm.get"]);
    assert!(
        found.message.ends_with("where a permit fires, a forbid does too"),
        "{}",
        found.message
    );
    let found = check(policies, NOBODY, "mail.send", &[]);
    assert!(found.message.ends_with("no permit covers it"), "{}", found.message);
}

#[test]
fn the_report_is_the_same_each_time() {
    let policies = r#"
@id("pay") permit(principal, action == Action::"billing.pay", resource);
@id("sum") forbid(principal, action, resource) when { context.tier > 2 };
"#;
    let text = || serde_json::to_string(&report(policies)).unwrap();
    assert_eq!(text(), text());
}

/// The id of a finding survives lines that move.
#[test]
fn the_id_of_a_finding_is_stable() {
    let policy = r#"@id("dead") permit(principal, action == Action::"billing.pay", resource)
when { context.input.amount > 100 && context.input.amount < 50 };"#;
    let ids = |policies: &str| {
        let report = report(policies);
        let of_rule = report.findings.into_iter().filter(|one| one.rule == NEVER_MATCHES);
        of_rule.map(|one| one.id).collect::<Vec<_>>()
    };
    let first = ids(policy);
    assert_eq!(1, first.len());
    assert_eq!(first, ids(&format!("\n\n// A comment.\n{policy}")));
}

/// An observed policy decides about no request, so that the proofs leave it out.
#[test]
fn an_observed_policy_is_not_decided() {
    let policies = r#"
@id("get") permit(principal, action == Action::"crm.get", resource);
@id("new") @mode("observe; owner=sec; until=2026-12-20") forbid(principal, action == Action::"crm.get", resource)
when { context.tier > 1 };
"#;
    let report = report(policies);
    let found = finding(&report, NEVER_MATCHES, "new").unwrap();
    assert_eq!((Finality::NotDecided, Severity::Warning), (found.verdict, found.severity));
    let proved = report.proved.iter().filter(|one| one.subject == "new");
    assert_eq!(0, proved.count());
    assert!(holds(&report, NEVER_MATCHES, "get"));
}
