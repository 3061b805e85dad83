//! Questions about one operation.

use authz_analyze::guards::{Counterexample, GuardAnswer, Guards};
use authz_analyze::solver::{Answer, OnceSolver, Question, Solver};
use authz_kernel::decision::Verdict;
use serde_json::json;

use crate::bundles::{SOLVER, plan};

fn ask(policies: &str, operation: &str, principal: &str, constraint: &str) -> GuardAnswer {
    let plan = plan(policies);
    let once = OnceSolver::new(&*SOLVER, None);
    Guards::new(&plan, &once).can_be_permitted(operation, principal, constraint)
}

fn found(answer: GuardAnswer) -> Counterexample {
    match answer {
        GuardAnswer::Satisfiable(example) => *example,
        other => panic!("{other:?}"),
    }
}

fn is_proved(answer: &GuardAnswer) -> bool {
    matches!(answer, GuardAnswer::Unsatisfiable)
}

const MAIL: &str = r#"
@id("mail") permit(principal in Role::"bots", action == Action::"mail.send", resource);
@id("ask") @stepup("approve")
forbid(principal, action in Action::"effect:export", resource)
when { context.session.labels.contains(Label::"pii") }
unless { context.satisfied.contains(Kind::"approve") };
"#;

#[test]
fn a_permit_without_a_forbid_permits() {
    let example = found(ask(MAIL, "mail.send", "Agent", ""));
    assert_eq!(Some(&Verdict::Fired), example.verdicts.get(&0));
    assert_eq!(Some(&Verdict::NotFired), example.verdicts.get(&1));
    assert_eq!("mail.send", example.operation);
}

#[test]
fn a_role_of_agents_is_held_by_no_person() {
    assert!(is_proved(&ask(MAIL, "mail.send", "User", "")));
}

#[test]
fn an_operation_without_a_permit_is_permitted_to_nobody() {
    assert!(is_proved(&ask(MAIL, "crm.get", "Agent", "")));
}

/// A step-up lifts a forbid where its kind is satisfied, and only there.
#[test]
fn a_step_up_lifts_its_forbid() {
    let pii = r#"context.session.labels.contains(Label::"pii")"#;
    let example = found(ask(MAIL, "mail.send", "Agent", pii));
    assert!(
        example.document.pointer("/context/satisfied").unwrap().to_string().contains("approve")
    );
    let without = format!(r#"{pii} && !context.satisfied.contains(Kind::"approve")"#);
    assert!(is_proved(&ask(MAIL, "mail.send", "Agent", &without)));
}

/// Cedar skips a forbid that fails to evaluate; a decision does not.
#[test]
fn a_forbid_that_fails_fires() {
    let policies = r#"
@id("pay") permit(principal, action == Action::"billing.pay", resource);
@id("sum") forbid(principal, action == Action::"billing.pay", resource)
when { context.input.amount + context.input.fee > 100 };
"#;
    let most = "context.input.amount == 9223372036854775807 && context.input.fee == 1";
    assert!(is_proved(&ask(policies, "billing.pay", "Agent", most)));
    let little = "context.input.amount == 10 && context.input.fee == 1";
    found(ask(policies, "billing.pay", "Agent", little));
}

/// A permit that fails to evaluate permits nothing, and does not keep another one from doing so.
#[test]
fn a_permit_that_fails_does_not_fire() {
    let failing = r#"
@id("sum") permit(principal, action == Action::"billing.pay", resource)
when { context.input.amount + context.input.fee > 100 };
"#;
    let most = "context.input.amount == 9223372036854775807 && context.input.fee == 1";
    assert!(is_proved(&ask(failing, "billing.pay", "Agent", most)));
    let other = format!(
        "{failing}@id(\"any\") permit(principal, action == Action::\"billing.pay\", resource);"
    );
    let example = found(ask(&other, "billing.pay", "Agent", most));
    assert!(matches!(example.verdicts.get(&0), Some(Verdict::Failed(_))));
}

#[test]
fn numbers_keep_their_ranges() {
    assert!(is_proved(&ask(MAIL, "mail.send", "Agent", "context.tier > 3")));
    assert!(is_proved(&ask(MAIL, "mail.send", "Agent", "context.confidence > 100")));
    found(ask(MAIL, "mail.send", "Agent", "context.tier == 3"));
}

/// The solver, with a tier in each request that no call has.
#[derive(Debug)]
struct ImpossibleTier;

impl Solver for ImpossibleTier {
    fn name(&self) -> Option<(String, String)> {
        SOLVER.name()
    }

    fn ask(&self, question: &Question) -> Answer {
        match SOLVER.ask(question) {
            Answer::Satisfiable(mut model) => {
                *model.context.get_mut("tier").unwrap() = json!(-1);
                Answer::Satisfiable(model)
            }
            other => other,
        }
    }
}

/// A question has no facts about keys that no condition reads, so that the solver may choose any value for them.
#[test]
fn a_key_that_no_condition_reads_has_a_possible_value() {
    let plan = plan(MAIL);
    let example =
        found(Guards::new(&plan, &ImpossibleTier).can_be_permitted("mail.send", "Agent", ""));
    assert_eq!(Some(&json!(0)), example.document.pointer("/context/tier"));
    let any: Vec<&str> =
        example.document["any"].as_array().unwrap().iter().filter_map(|key| key.as_str()).collect();
    assert!(any.contains(&"tier"), "{any:?}");
    assert!(!any.contains(&"session") && !any.contains(&"satisfied"), "{any:?}");
}

#[test]
fn an_operation_acts_on_its_own_collection() {
    let policies = r#"
@id("get") permit(principal, action == Action::"crm.get", resource in Collection::"customers");
"#;
    assert!(is_proved(&ask(policies, "crm.get", "Agent", r#"resource in Collection::"orders""#)));
    found(ask(policies, "crm.get", "Agent", r#"resource in System::"crm""#));
}

#[test]
fn a_constraint_that_is_no_expression_is_not_decided() {
    let answer = ask(MAIL, "mail.send", "Agent", "context.session.labels.contains(");
    assert!(matches!(answer, GuardAnswer::Unknown(_)), "{answer:?}");
}

#[test]
fn an_unknown_operation_is_not_decided() {
    let answer = ask(MAIL, "mail.read", "Agent", "");
    // No policy covers it, so that nothing permits it.
    assert!(is_proved(&answer), "{answer:?}");
}

/// A condition may name groups and operations that the question is not about.
#[test]
fn a_condition_on_the_action_is_about_the_operation() {
    let policies = r#"
@id("any") permit(principal, action, resource)
when { action in Action::"effect:read" || action == Action::"mail.send" };
"#;
    found(ask(policies, "crm.get", "Agent", ""));
    found(ask(policies, "mail.send", "Agent", ""));
    assert!(is_proved(&ask(policies, "billing.pay", "Agent", "")));
    assert!(is_proved(&ask(policies, "crm.get", "Agent", r#"action == Action::"billing.pay""#)));
}
