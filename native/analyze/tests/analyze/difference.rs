//! Comparisons of two bundles.

use authz_analyze::difference::{ChangedOperation, Difference, compare};
use authz_analyze::report::Finality;
use authz_analyze::solver::{NoSolver, OnceSolver};

use crate::bundles::{FACTS, SOLVER, plan, plan_of};

fn difference(old: &str, new: &str) -> Difference {
    compare(&plan(old), &plan(new), &OnceSolver::new(&*SOLVER, None))
}

fn found(difference: &Difference) -> Vec<&ChangedOperation> {
    difference.operations.iter().filter(|one| one.verdict == Finality::PathFound).collect()
}

const PAY: &str = r#"
@id("pay") permit(principal in Role::"bots", action == Action::"billing.pay", resource)
when { context.input.amount < 100 };
@id("labels") forbid(principal, action, resource)
when { context.session.labels.contains(Label::"untrusted") };
"#;

#[test]
fn an_unchanged_bundle_permits_nothing_new() {
    let moved = format!("// A comment.\n\n{}", PAY.replace("@id(\"pay\")", "@id(\"payments\")"));
    let difference = difference(PAY, &moved);
    assert_eq!(Finality::Proved, difference.verdict);
    assert_eq!((0, 0), (difference.counts.changed, difference.counts.questions));
    assert_eq!(vec!["payments"], difference.policies.added);
    assert_eq!(vec!["pay"], difference.policies.removed);
}

/// Another text with the same meaning, and a stricter one, are proved for all requests.
#[test]
fn a_stricter_bundle_permits_nothing_new() {
    for stricter in ["100 > context.input.amount", "context.input.amount < 50"] {
        let difference = difference(PAY, &PAY.replace("context.input.amount < 100", stricter));
        assert_eq!(Finality::Proved, difference.verdict, "{:?}", difference.operations);
        assert_eq!(1, difference.counts.changed);
        assert!(difference.counts.questions > 0);
        assert!(!difference.assumptions.is_empty());
    }
}

#[test]
fn a_weaker_permit_is_shown_by_a_request() {
    let difference = difference(PAY, &PAY.replace("< 100", "< 101"));
    assert_eq!(Finality::PathFound, difference.verdict);
    let found = found(&difference);
    let request = found.first().unwrap();
    assert_eq!("billing.pay", request.operation);
    assert_eq!(vec!["pay"], request.permits);
    assert!(request.denied_by.is_empty());
    assert_eq!(Some(100), request.request.pointer("/context/input/amount").unwrap().as_i64());
    let any = request.request["any"].as_array().unwrap();
    assert!(any.iter().any(|key| key == "tier") && !any.iter().any(|key| key == "input"));
    // The role is one of agents.
    assert!(found.iter().all(|one| one.principal_type == "Agent"));
}

#[test]
fn a_weaker_forbid_is_shown_with_the_one_that_denied() {
    let weaker = PAY.replace("Label::\"untrusted\")", "Label::\"untrusted\") && context.tier < 2");
    let difference = difference(PAY, &weaker);
    let found = found(&difference);
    assert_eq!(vec!["labels"], found.first().unwrap().denied_by);
    assert_eq!(vec!["labels"], difference.policies.changed);
}

/// A forbid that failed to evaluate denied: without it more is permitted.
#[test]
fn a_forbid_that_no_longer_fails_is_newly_permitted() {
    let sum = "@id(\"sum\") forbid(principal, action == Action::\"billing.pay\", resource)\nwhen { context.input.fee + 1 < 0 };";
    let safe = sum.replace("context.input.fee + 1 < 0", "context.input.fee < -1");
    let old = format!("{PAY}{sum}");
    let new = format!("{PAY}{safe}");
    let difference = difference(&old, &new);
    let found = found(&difference);
    let request = found.first().unwrap();
    assert_eq!(vec!["sum"], request.denied_by);
    assert_eq!(Some(i64::MAX), request.request.pointer("/context/input/fee").unwrap().as_i64());
}

#[test]
fn a_new_operation_that_is_permitted_is_newly_permitted() {
    let more = FACTS
        .replace(
            "      send: {",
            "      list: {input: {type: object, properties: {}}}\n      send: {",
        )
        .replace(
            "  - {match: mail.send,",
            "  - {match: mail.list, effects: [read]}\n  - {match: mail.send,",
        );
    let new = plan_of(
        &more,
        &format!(
            "{PAY}@id(\"list\") permit(principal in Role::\"bots\", action == Action::\"mail.list\", resource);"
        ),
    );
    let old = plan(PAY);
    let difference = compare(&old, &new, &OnceSolver::new(&*SOLVER, None));
    assert_eq!(Finality::PathFound, difference.verdict);
    let found = found(&difference);
    assert!(found.iter().all(|one| one.is_new && one.operation == "mail.list"), "{found:?}");
    // Without a permit, nobody can call it. The template has the whole system in its scope.
    let silent = compare(&old, &plan_of(&more, PAY), &OnceSolver::new(&*SOLVER, None));
    assert!(silent.operations.iter().all(|one| one.verdict == Finality::Proved));
    let facts: Vec<_> = silent.facts.iter().map(|one| (one.section, one.name.as_str())).collect();
    assert_eq!(vec![("templates", "desk")], facts);
}

/// A fact that decides beside the policies is named, and keeps the whole from being proved.
#[test]
fn a_changed_fact_is_named() {
    for (from, to, section, name) in [
        ("spiffe://a.example/bot/*", "spiffe://a.example/*/*", "roles", "bots"),
        ("tier: high", "tier: standard", "operations", "billing.pay"),
        ("clearance: []", "clearance: [pii]", "destinations", "external"),
        ("customers: {labels: [pii]}", "customers: {}", "collections", "customers"),
        ("deadline: 8h", "deadline: 9h", "templates", "desk"),
    ] {
        let new = plan_of(&FACTS.replace(from, to), PAY);
        let difference = compare(&plan(PAY), &new, &OnceSolver::new(&*SOLVER, None));
        assert_eq!(Finality::NotDecided, difference.verdict, "{section}");
        let facts: Vec<_> =
            difference.facts.iter().map(|fact| (fact.section, fact.name.as_str())).collect();
        assert_eq!(vec![(section, name)], facts);
    }
}

/// Places are no facts.
#[test]
fn moved_lines_change_no_fact() {
    let new = plan_of(&format!("# A comment.\n{FACTS}"), PAY);
    let difference = compare(&plan(PAY), &new, &OnceSolver::new(&*SOLVER, None));
    assert!(difference.facts.is_empty(), "{:?}", difference.facts);
    assert_eq!(Finality::Proved, difference.verdict);
}

#[test]
fn a_permit_without_its_obligation_is_named() {
    let bound = PAY.replace("@id(\"pay\")", "@id(\"pay\") @obligation(\"max_uses:3\")");
    let difference = difference(&bound, PAY);
    assert_eq!(Finality::NotDecided, difference.verdict);
    assert!(difference.facts.iter().any(|one| one.section == "policies" && one.name == "pay"));
}

/// Requests of a bundle with other arguments cannot be asked of both.
#[test]
fn changed_arguments_are_not_decided() {
    let new = FACTS.replace("fee: {type: integer}}", "fee: {type: integer}, note: {type: string}}");
    let difference = compare(&plan(PAY), &plan_of(&new, PAY), &OnceSolver::new(&*SOLVER, None));
    assert_eq!(Finality::NotDecided, difference.verdict);
    assert!(
        difference.operations.iter().any(|one| one.reason.starts_with("its arguments changed")),
        "{:?}",
        difference.operations
    );
}

/// A request that needs a name of the old bundle alone cannot be made.
#[test]
fn names_that_are_gone_are_no_request() {
    let old = PAY.replace(
        "context.input.amount < 100",
        "context.input.amount < 100 && !context.session.labels.contains(Label::\"pii\")",
    );
    let facts = FACTS
        .replace("  pii: {kind: confidentiality, description: personal data}\n", "")
        .replace("{labels: [pii]}", "{}")
        .replace("clearance: [pii]", "clearance: []")
        .replace(" yields: [pii],", "");
    let difference = compare(&plan(&old), &plan_of(&facts, PAY), &OnceSolver::new(&*SOLVER, None));
    assert!(found(&difference).is_empty(), "{:?}", difference.operations);
    assert!(difference.operations.iter().any(|one| one.reason.contains("no longer declares")));
    assert!(difference.facts.iter().any(|one| one.section == "labels" && one.change == "removed"));
}

#[test]
fn without_a_solver_nothing_is_proved() {
    let solver = NoSolver::new("no solver is used");
    let once = OnceSolver::new(&solver, None);
    let difference = compare(&plan(PAY), &plan(&PAY.replace("< 100", "< 50")), &once);
    assert_eq!(Finality::NotDecided, difference.verdict);
    assert!(difference.assumptions.is_empty());
    assert!(difference.operations.iter().any(|one| one.reason == "no solver is used"));
}

/// The old forbids of an operation are asked about one by one, and the new permits together.
#[test]
fn a_forbid_that_is_gone_is_newly_permitted() {
    let without = PAY.split("@id(\"labels\")").next().unwrap();
    let difference = difference(PAY, without);
    assert_eq!(Finality::PathFound, difference.verdict);
    assert_eq!(vec!["labels"], found(&difference).first().unwrap().denied_by);
    assert_eq!(vec!["labels"], difference.policies.removed);
}

/// A permit that another one covers may go, and a forbid may be replaced by one that covers it.
#[test]
fn policies_that_others_cover_may_go() {
    let (_, forbid) = PAY.split_once("@id(\"labels\")").unwrap();
    let wide = "@id(\"all\") permit(principal in Role::\"bots\", action == Action::\"billing.pay\", resource);";
    let (old, new) = (format!("{PAY}{wide}"), format!("{wide}@id(\"labels\"){forbid}"));
    let replaced = PAY.replace(
        "context.session.labels.contains(Label::\"untrusted\")",
        "!context.session.labels.isEmpty()",
    );
    for (old, new) in [(old.as_str(), new.as_str()), (PAY, &replaced)] {
        let difference = difference(old, new);
        assert_eq!(Finality::Proved, difference.verdict, "{:?}", difference.operations);
        assert!(difference.counts.changed > 0);
    }
}

/// After the end of its observation a forbid denies, so that a bundle without it, or with a later end, may permit more.
#[test]
fn an_observed_forbid_that_changes_is_named() {
    let of = |until: &str, condition: &str| {
        format!(
            "{PAY}@id(\"late\") @mode(\"observe; owner=sec; until={until}\") forbid(principal, action == Action::\"billing.pay\", resource)\nwhen {{ {condition} }};"
        )
    };
    let (amount, fee) = ("context.input.amount > 9", "context.input.fee > 9");
    let old = of("2026-11-01", amount);
    let enforced = old.replace("@mode(\"observe; owner=sec; until=2026-11-01\")", "");
    for (new, verdict) in [
        (PAY, Finality::NotDecided),
        (&of("2026-12-20", amount), Finality::NotDecided),
        (&of("2026-11-01", fee), Finality::NotDecided),
        (&enforced.replace(amount, fee), Finality::NotDecided),
        (&old, Finality::Proved),
        (&enforced, Finality::Proved),
    ] {
        let difference = difference(&old, new);
        assert_eq!(verdict, difference.verdict, "{new}\n{:?}", difference.operations);
        assert_eq!(verdict == Finality::NotDecided, !difference.facts.is_empty(), "{new}");
    }
}
