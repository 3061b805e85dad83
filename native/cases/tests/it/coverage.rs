//! Parts of a bundle that its tests reach.

use std::collections::BTreeMap;

use authz_cases::{Coverage, PartReach, TestScope, run_within};
use authz_kernel::testable::PartKind;

use crate::traces::{NOW, compiled};

const FACTS: &str = include_str!("../../../kernel/tests/facts/report.yaml");
const POLICIES: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("may-mail") permit(principal in Role::"bots", action == Action::"mail.send", resource);
@id("stop") forbid(principal, action == Action::"crm.delete", resource);
@id("ask") @stepup("approve") forbid(principal, action == Action::"mail.send", resource)
unless { context.satisfied.contains(Kind::"approve") };
@id("large") forbid(principal, action == Action::"crm.move", resource) when { context.input has n && context.input.n > 10 };
@id("starts") forbid(principal, action == Action::"task:desk", resource) when { context.chain.depth > 5 };
@id("order") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"look-first") };
@id("looked") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"looked") };
@id("give-none") @reason("nobody is given a task") forbid(principal, action in Action::"authz.task.give", resource);
"#;

fn coverage(steps: &str) -> Coverage {
    coverage_of(POLICIES, steps)
}

fn coverage_of(policies: &str, steps: &str) -> Coverage {
    let facts = FACTS.replace("deadline: 30m", "deadline: 30m, max_depth: 1");
    let plan = compiled("{name: a}", &facts, policies);
    let text = format!(
        "fixtures: {{agents: {{bot: 'spiffe://a.example/ns/desk/sa/bot', other: 'spiffe://a.example/ns/desk/sa/other'}}}}\n\
         tests:\n  - trace: first\n    task: {{template: desk, agent: bot}}\n    steps:\n{steps}"
    );
    let files = BTreeMap::from([("t.yaml".to_owned(), text.into_bytes())]);
    let scope = TestScope { covers: true, ..TestScope::default() };
    let report = run_within(&plan, &files, NOW, scope);
    assert_eq!(report.failed, []);
    report.coverage.unwrap()
}

fn reach(coverage: &Coverage, kind: PartKind) -> Vec<(&str, PartReach)> {
    let parts = coverage.parts.iter().filter(|part| part.kind == kind);
    parts.map(|part| (part.name.as_str(), part.reach)).collect()
}

#[test]
fn a_policy_is_reached_where_it_determines_an_outcome() {
    let covered = coverage(
        r"
      - {call: crm.list, expect: PERMIT}
      - {call: crm.delete, expect: {outcome: DENY, policies: [order, stop]}}
      - {call: mail.send, input: {to: [a@x.example]}, expect: STEP_UP}
      - {call: crm.pay, input: {n: 101}, expect: {outcome: DENY, code: BUDGET_EXCEEDED}}
",
    );
    assert_eq!(
        reach(&covered, PartKind::Policy),
        [
            ("ask", PartReach::Reached),
            ("give-none", PartReach::None),
            ("large", PartReach::None),
            ("looked", PartReach::Judged),
            ("may", PartReach::Reached),
            ("may-mail", PartReach::Fired),
            ("order", PartReach::Reached),
            ("starts", PartReach::Judged),
            ("stop", PartReach::Reached),
        ]
    );
    let may = covered.parts.iter().find(|part| part.name == "may").unwrap();
    assert_eq!((may.effect, may.tests.as_slice()), ("permit", &["first".to_owned()][..]));
    assert_eq!((may.file.as_str(), may.line), ("policies/a.cedar", 2));
    assert_eq!(covered.decisions, 5, "four calls, and the start of the task");
}

#[test]
fn every_other_kind_of_part_is_reached_by_name() {
    let covered = coverage(
        r"
      - {call: crm.list, expect: PERMIT}
      - {call: crm.move, input: {n: 1}, expect: {outcome: DENY, policies: [looked]}}
      - {call: crm.pay, input: {n: 101}, expect: {outcome: DENY, code: BUDGET_EXCEEDED}}
      - {call: mail.send, input: {to: [a@x.example]}, expect: STEP_UP}
",
    );
    let reached = |kind| {
        let parts = reach(&covered, kind).into_iter();
        let reached = parts.filter(|(_, reach)| *reach == PartReach::Reached);
        reached.map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(reached(PartKind::Operation), ["crm.list", "crm.move", "crm.pay", "mail.send"]);
    assert_eq!(reached(PartKind::Sequence), ["looked"]);
    assert_eq!(reach(&covered, PartKind::Sequence).len(), 2);
    assert_eq!(reached(PartKind::Budget), ["money"]);
    assert_eq!(reached(PartKind::Template), ["desk"]);
    assert_eq!(reached(PartKind::Tier), ["low"]);
    assert_eq!(reached(PartKind::StepUpKind), ["approve"]);
    assert_eq!(reached(PartKind::Destination), ["external"]);
}

#[test]
fn a_run_without_coverage_keeps_no_decision() {
    let plan = compiled("{name: a}", FACTS, POLICIES);
    let report = run_within(&plan, &BTreeMap::<String, Vec<u8>>::new(), NOW, TestScope::default());
    assert_eq!(report.coverage, None);
}

#[test]
fn a_run_can_stop_at_the_first_failure() {
    let plan = compiled("{name: a}", FACTS, POLICIES);
    let case = |name: &str| {
        format!("  - {{case: {name}, as: {{agent: bot}}, call: crm.list, expect: STEP_UP}}\n")
    };
    let text = format!(
        "fixtures: {{agents: {{bot: 'spiffe://a.example/ns/desk/sa/bot'}}}}\ntests:\n{}{}",
        case("one"),
        case("two"),
    );
    let files = BTreeMap::from([("t.yaml".to_owned(), text.into_bytes())]);
    let failed = |stops_at_failure| {
        let scope = TestScope { stops_at_failure, ..TestScope::default() };
        run_within(&plan, &files, NOW, scope).failed.len()
    };
    assert_eq!((failed(true), failed(false)), (1, 2));
}

#[test]
fn policies_about_tasks_are_reached_by_steps_on_tasks() {
    let covered = coverage(
        r"
      - {delegate: {name: below, to: other}, expect: FORBIDDEN}
",
    );
    let give = covered.parts.iter().find(|part| part.name == "give-none").unwrap();
    assert_eq!(
        (give.reach, give.tests.as_slice()),
        (PartReach::Reached, &["first".to_owned()][..])
    );
    let may = covered.parts.iter().find(|part| part.name == "may").unwrap();
    assert_eq!(may.reach, PartReach::Reached, "it permits the start of the task");
    assert_eq!(covered.decisions, 2, "the start and the delegation");
}

#[test]
fn a_test_that_only_starts_a_task_reaches_the_policies_about_the_start() {
    let policies = r#"
@id("may-start") permit(principal in Role::"bots", action == Action::"task:desk", resource);
@id("not-deep") forbid(principal, action == Action::"task:desk", resource) when { context.chain.depth > 5 };
@id("may-list") permit(principal in Role::"bots", action == Action::"crm.list", resource);
@id("order") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"look-first") };
@id("looked") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"looked") };
"#;
    let covered = coverage_of(policies, "      - {end: {status: completed}, expect: OK}\n");
    assert_eq!(
        reach(&covered, PartKind::Policy),
        [
            ("looked", PartReach::Judged),
            ("may-list", PartReach::None),
            ("may-start", PartReach::Reached),
            ("not-deep", PartReach::Judged),
            ("order", PartReach::Judged),
        ]
    );
    assert!(reach(&covered, PartKind::Tier).iter().all(|(_, reach)| *reach == PartReach::None));
}
