//! Recorded calls that are judged again.

use authz_kernel::decide::{
    Definitions, RecordedArguments, RecordedCall, RecordedCallFacts, RecordedChecks,
    RecordedPrincipal, ReplayResult, replay,
};
use authz_kernel::decision::{Outcome, ReasonCode};
use authz_kernel::model::Tier;

use crate::common::{NOW, bot};
use crate::history::compiled;

const FACTS: &str = "
agents: {bot: {match: [spiffe://a.example/ns/desk/sa/bot]}}
catalog: {s: {kind: http, operations: {get: {input: {type: object, properties: {n: {type: integer}}, required: [n]}}}}}
classify:
  - {match: s.get, effects: [read], tier: low}
";

/// A call without its arguments.
fn replayed(policies: &str) -> ReplayResult {
    let plan = compiled("{name: a, tasks: optional}", FACTS, policies);
    let plan = plan.unwrap_or_else(|text| panic!("{text}"));
    let caller = RecordedPrincipal { principal: bot(), roles: Some(vec!["bot".to_owned()]) };
    let call = RecordedCall {
        operation: "s.get".to_owned(),
        chain: vec![caller],
        now: NOW,
        arguments: RecordedArguments::default(),
        resource: "System::\"s\"".to_owned(),
        destination_class: String::new(),
        labels: Vec::new(),
        enforcer: "gateway".to_owned(),
        task: None,
        subject_proof: "self".to_owned(),
        tier: Tier::Low,
        policies: Vec::new(),
        is_of_bundle: true,
        obligations: Vec::new(),
        outcome: Outcome::Deny,
        sequences: Vec::new(),
        budgets: Vec::new(),
        session: None,
        checks: Some(RecordedChecks::default()),
        facts: RecordedCallFacts::default(),
    };
    replay(&plan, &call, Definitions::Same)
}

fn held(condition: &str) -> String {
    format!(
        "@id(\"all\") permit(principal, action, resource);
        @id(\"ask\") @stepup(\"approve\") forbid(principal, action == Action::\"s.get\", resource)
        when {{ {condition} }} unless {{ context.satisfied.contains(Kind::\"approve\") }};"
    )
}

/// A step-up lifts a forbid that fires. No step-up lifts one that fails, so that the outcome depends on the arguments.
#[test]
fn a_step_up_that_may_fail_is_not_decided() {
    let result = replayed(&held("context.input.n * 2 > 3 || context.enforcer == \"gateway\""));
    let ReplayResult::Open { best, worst, missing } = result else { panic!("{result:?}") };
    assert_eq!(Outcome::StepUp, best.decision.outcome);
    assert_eq!(ReasonCode::PolicyError, worst.decision.reason);
    assert_eq!(vec!["context.input"], missing);
    // A second step-up that fires hides no failure of the first one.
    let second = "@id(\"second\") @stepup(\"approve\") forbid(principal, action == Action::\"s.get\", resource)
        unless { context.satisfied.contains(Kind::\"approve\") };";
    let result = replayed(&format!("{}{second}", held("context.input.n * 2 > 3")));
    assert!(matches!(result, ReplayResult::Open { .. }), "{result:?}");
}

#[test]
fn a_step_up_that_cannot_fail_is_decided() {
    let result = replayed(&held("context.input.n > 3 || context.enforcer == \"gateway\""));
    let ReplayResult::Decided { decision, is_exact } = result else { panic!("{result:?}") };
    assert_eq!((Outcome::StepUp, true), (decision.decision.outcome, is_exact));
}

/// A forbid without a step-up denies, whether it fires or fails.
#[test]
fn a_forbid_that_may_fail_denies() {
    let policies = held("context.input.n * 2 > 3 || context.enforcer == \"gateway\"")
        .replace(" @stepup(\"approve\")", "");
    let result = replayed(&policies);
    let ReplayResult::Decided { decision, .. } = result else { panic!("{result:?}") };
    assert_eq!(ReasonCode::Forbidden, decision.decision.reason);
}
