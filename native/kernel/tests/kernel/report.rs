//! What an answer changes and what comes of a permit: the table, cell by cell, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use authz_kernel::decision::{Outcome, Time};
use authz_kernel::history::{
    Event, HistoryView, LabelEffect, MAX_PENDING, Reported, RuleEffect, SessionHistory,
    SpendEffect, effects,
};
use authz_kernel::plan::Plan;
use proptest::prelude::*;

use crate::common::NOW;
use crate::history::{compiled, decided_in};

const FACTS: &str = include_str!("../facts/report.yaml");
const MAY: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("flow") @stepup("approve") forbid(principal, action, resource)
when { !context.uncleared_labels.isEmpty() } unless { context.satisfied.contains(Kind::"approve") };
@id("order") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"look-first") };
@id("after") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"looked") };
@id("trust") forbid(principal, action == Action::"crm.delete", resource)
when { context.session.labels.contains(Label::"untrusted") };
"#;

fn plan() -> Plan {
    compiled("{name: a}", FACTS, MAY).unwrap_or_else(|error| panic!("{error}"))
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Asks, and takes over what the permit changes.
fn permitted(plan: &Plan, session: &mut SessionHistory, id: &str, call: &str, arguments: &str) {
    let decision = decided_in(plan, call, arguments, Some(HistoryView::new(session)));
    assert_eq!(Outcome::Permit, decision.outcome, "{}", decision.message);
    session.apply(decision.changes(false), id, call, NOW);
}

fn outcome(plan: &Plan, session: &SessionHistory, call: &str, arguments: &str) -> Outcome {
    decided_in(plan, call, arguments, Some(HistoryView::new(session))).outcome
}

fn carried(session: &SessionHistory) -> Vec<&str> {
    let labels: BTreeSet<&str> = session.carried().map(|(label, _)| label).collect();
    labels.into_iter().collect()
}

fn report(
    session: &mut SessionHistory,
    id: &str,
    event: Event,
    labels: &[&str],
    actuals: &[(&str, i64)],
    is_abortable: bool,
) -> Result<(), String> {
    let labels = set(labels);
    let actuals: BTreeMap<String, i64> =
        actuals.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect();
    let reported =
        Reported { event, operation: "", labels: Some(&labels), actuals: &actuals, is_abortable };
    session.check_report(id, &reported).map_err(|error| error.to_string())?;
    session.settle(id, &reported, NOW);
    Ok(())
}

macro_rules! cells {
    ($($name:ident: $event:ident, $column:ident => $wanted:expr;)*) => {
        $(#[test]
        fn $name() {
            assert_eq!($wanted, effects(Event::$event).$column);
        })*
    };
}

cells! {
    refused_leaves_labels: Refused, labels => LabelEffect::None;
    refused_is_seen_by_no_restricting_rule: Refused, restricting => RuleEffect::None;
    refused_is_seen_by_no_enabling_rule: Refused, enabling => RuleEffect::None;
    refused_spends_nothing: Refused, spends => SpendEffect::None;
    denied_leaves_labels: Denied, labels => LabelEffect::None;
    denied_is_seen_by_rules_that_name_it: Denied, restricting => RuleEffect::SeeDenial;
    denied_is_seen_by_no_enabling_rule: Denied, enabling => RuleEffect::None;
    denied_spends_nothing: Denied, spends => SpendEffect::None;
    stepped_up_leaves_labels: SteppedUp, labels => LabelEffect::None;
    stepped_up_is_seen_by_no_restricting_rule: SteppedUp, restricting => RuleEffect::None;
    stepped_up_is_seen_by_no_enabling_rule: SteppedUp, enabling => RuleEffect::None;
    stepped_up_spends_nothing: SteppedUp, spends => SpendEffect::None;
    permitted_brings_all_that_it_may: Permitted, labels => LabelEffect::JoinMaximum;
    permitted_is_seen_by_restricting_rules: Permitted, restricting => RuleEffect::See;
    permitted_is_seen_where_that_counts: Permitted, enabling => RuleEffect::SeeIfPermittedCounts;
    permitted_reserves: Permitted, spends => SpendEffect::Reserve;
    done_keeps_what_is_reported: Done, labels => LabelEffect::KeepReported;
    done_tells_restricting_rules_nothing_new: Done, restricting => RuleEffect::None;
    done_is_seen_by_enabling_rules: Done, enabling => RuleEffect::See;
    done_commits: Done, spends => SpendEffect::Commit;
    failed_keeps_the_minimum: Failed, labels => LabelEffect::KeepMinimum;
    failed_takes_nothing_from_restricting_rules: Failed, restricting => RuleEffect::None;
    failed_is_seen_by_no_enabling_rule: Failed, enabling => RuleEffect::None;
    failed_releases_what_can_be_aborted: Failed, spends => SpendEffect::ReleaseIfAbortable;
    aborted_keeps_the_minimum: Aborted, labels => LabelEffect::KeepMinimum;
    aborted_takes_nothing_from_restricting_rules: Aborted, restricting => RuleEffect::None;
    aborted_is_seen_by_no_enabling_rule: Aborted, enabling => RuleEffect::None;
    aborted_releases: Aborted, spends => SpendEffect::Release;
    unreported_keeps_the_maximum: Unreported, labels => LabelEffect::KeepMaximum;
    unreported_takes_nothing_from_restricting_rules: Unreported, restricting => RuleEffect::None;
    unreported_is_seen_by_no_enabling_rule: Unreported, enabling => RuleEffect::None;
    unreported_commits: Unreported, spends => SpendEffect::Commit;
}

/// The labels of a call, before and after what came of it.
#[test]
fn labels_are_all_that_they_may_be_until_it_is_reported_what_they_are() {
    let plan = plan();
    for (event, told, wanted) in [
        (Event::Done, vec![], vec!["pii"]),
        (Event::Done, vec!["vip"], vec!["pii", "vip"]),
        (Event::Failed, vec![], vec!["pii"]),
        (Event::Failed, vec!["vip"], vec!["pii", "vip"]),
        (Event::Aborted, vec![], vec!["pii"]),
        (Event::Unreported, vec![], vec!["pii", "vip"]),
    ] {
        let mut session = SessionHistory::new();
        permitted(&plan, &mut session, "d1", "crm.get", r#"{"id": "1"}"#);
        assert_eq!(vec!["pii", "vip"], carried(&session));
        let brought = session.carried().find(|(label, _)| *label == "vip").map(|(_, from)| from);
        assert_eq!(
            Some(("d1", "crm.get", NOW)),
            brought.map(|b| (b.decision_id, b.operation, b.at))
        );
        report(&mut session, "d1", event, &told, &[], false).unwrap();
        assert_eq!(wanted, carried(&session), "{event:?} {told:?}");
        assert!(session.pending.is_empty());
    }
}

/// One permit's report takes nothing from what another may bring.
#[test]
fn another_open_permit_keeps_its_labels() {
    let plan = plan();
    let mut session = SessionHistory::new();
    permitted(&plan, &mut session, "d1", "crm.list", "{}");
    permitted(&plan, &mut session, "d2", "crm.list", "{}");
    report(&mut session, "d1", Event::Done, &[], &[], false).unwrap();
    assert!(session.carries("untrusted"));
    assert_eq!(1, session.count_sources());
    report(&mut session, "d2", Event::Done, &[], &[], false).unwrap();
    assert!(!session.carries("untrusted"));
    assert_eq!(0, session.count_sources(), "no labelled data came from there");
}

/// Nobody reports: what may come has come.
#[test]
fn without_a_reporter_all_that_may_come_stays() {
    let plan = plan();
    let mut session = SessionHistory::new();
    permitted(&plan, &mut session, "d1", "mail.get", "{}");
    assert!(session.pending.is_empty() && session.labels.contains_key("untrusted"));
}

#[test]
fn a_rule_sees_what_it_requires_once_that_is_done() {
    let plan = plan();
    for (event, wanted) in [
        (Event::Done, Outcome::Permit),
        (Event::Failed, Outcome::Deny),
        (Event::Aborted, Outcome::Deny),
        (Event::Unreported, Outcome::Deny),
    ] {
        let mut session = SessionHistory::new();
        permitted(&plan, &mut session, "d1", "crm.list", "{}");
        assert_eq!(Outcome::Deny, outcome(&plan, &session, "crm.delete", "{}"));
        report(&mut session, "d1", event, &[], &[], false).unwrap();
        // What must not come after it saw it at once, and goes on seeing it.
        assert_eq!(Outcome::Deny, outcome(&plan, &session, "crm.move", r#"{"n": 1}"#));
        if event == Event::Unreported {
            assert!(session.carries("untrusted"));
            session.labels.clear();
        }
        assert_eq!(wanted, outcome(&plan, &session, "crm.delete", "{}"), "{event:?}");
    }
}

#[test]
fn budgets_are_given_back_where_nothing_happened() {
    let plan = plan();
    for (event, actuals, is_abortable, left) in [
        (Event::Done, vec![], false, 40),
        (Event::Done, vec![("money", 10)], false, 90),
        (Event::Done, vec![("money", 0)], false, 100),
        (Event::Failed, vec![], false, 40),
        (Event::Failed, vec![], true, 100),
        (Event::Aborted, vec![], false, 100),
        (Event::Unreported, vec![], true, 40),
    ] {
        let mut session = SessionHistory::new();
        let ask = |session: &SessionHistory, amount: i64| {
            outcome(&plan, session, "crm.move", &format!("{{\"n\": {amount}}}"))
        };
        permitted(&plan, &mut session, "d1", "crm.pay", r#"{"n": 60}"#);
        assert_eq!((Outcome::Permit, Outcome::Deny), (ask(&session, 40), ask(&session, 41)));
        report(&mut session, "d1", event, &[], &actuals, is_abortable).unwrap();
        let found = (ask(&session, left), ask(&session, left + 1));
        assert_eq!((Outcome::Permit, Outcome::Deny), found, "{event:?} {is_abortable}");
    }
}

#[test]
fn no_more_is_spent_than_was_reserved() {
    let plan = plan();
    let mut session = SessionHistory::new();
    permitted(&plan, &mut session, "d1", "crm.pay", r#"{"n": 60}"#);
    for (name, amount) in [("money", 61), ("money", -1), ("other", 1)] {
        let refused = report(&mut session, "d1", Event::Done, &[], &[(name, amount)], false);
        assert!(refused.is_err(), "{name} {amount}");
    }
    assert_eq!(1, session.pending.len(), "it is still open");
}

/// A label that is derived from what may have come is there as long as that is open.
#[test]
fn a_derived_label_is_open_as_long_as_what_it_is_derived_from() {
    let plan = plan();
    let two = || {
        let mut session = SessionHistory::new();
        permitted(&plan, &mut session, "d1", "crm.get", r#"{"id": "1"}"#);
        assert!(!session.carries("dossier"));
        permitted(&plan, &mut session, "d2", "crm.get", r#"{"id": "2"}"#);
        assert!(session.carries("dossier"));
        session
    };
    let told = |first: (&str, &[&str]), second: (&str, &[&str])| {
        let mut session = two();
        report(&mut session, first.0, Event::Done, first.1, &[], false).unwrap();
        let between = session.carries("dossier");
        report(&mut session, second.0, Event::Done, second.1, &[], false).unwrap();
        (between, session.labels.contains_key("dossier"), session.carries("dossier"))
    };
    let vip: &[&str] = &["vip"];
    assert_eq!((true, true, true), told(("d1", vip), ("d2", vip)));
    assert_eq!((true, true, true), told(("d2", vip), ("d1", vip)));
    assert_eq!((true, false, false), told(("d2", vip), ("d1", &[])));
    assert!(!told(("d1", &[]), ("d2", vip)).2);
    assert!(!told(("d1", &[]), ("d2", &[])).2);
}

/// More open permits than a session keeps: the oldest counts as done, at its most.
#[test]
fn the_oldest_of_too_many_open_permits_counts_as_done() {
    let plan = plan();
    let mut session = SessionHistory::new();
    for index in 0..=MAX_PENDING {
        permitted(&plan, &mut session, &format!("d{index:04}"), "crm.list", "{}");
    }
    assert_eq!(MAX_PENDING, session.pending.len());
    assert!(session.labels.contains_key("untrusted") && !session.pending.contains_key("d0000"));
}

/// What a credential permits is reported once, by whoever it is performed by.
#[test]
fn one_thing_that_was_permitted_twice_is_reported_once() {
    let plan = plan();
    let mut session = SessionHistory::new();
    permitted(&plan, &mut session, "d1", "crm.pay", r#"{"n": 60}"#);
    session.hand_over("d1", "d2");
    report(&mut session, "d1", Event::Failed, &[], &[], true).unwrap();
    assert_eq!(Outcome::Deny, outcome(&plan, &session, "crm.move", r#"{"n": 41}"#));
    report(&mut session, "d2", Event::Failed, &[], &[], true).unwrap();
    assert_eq!(Outcome::Permit, outcome(&plan, &session, "crm.move", r#"{"n": 100}"#));
}

#[test]
fn what_is_open_is_stored_by_name_and_what_is_not_known_is_kept() {
    let plan = plan();
    let mut session = SessionHistory::new();
    permitted(&plan, &mut session, "d1", "crm.pay", r#"{"n": 60}"#);
    let mut written = serde_json::to_value(&session).unwrap();
    written["pending"]["d1"]["later"] = serde_json::json!({"n": 1});
    let read: SessionHistory = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(written, serde_json::to_value(&read).unwrap());
    assert_eq!("d1", read.pending.keys().next().unwrap());
}

#[test]
fn what_nobody_reports_cannot_be_required_to_be_done() {
    let facts = FACTS.replace("require: crm.list", "require: mail.get");
    let error = compiled("{name: a}", &facts, MAY).unwrap_err();
    assert!(error.contains("nobody reports that `mail.get` is done"), "{error}");
    assert!(error.contains("{mail: {reports: sdk"), "{error}");
}

/// A step of a random trace: a call, or what came of an earlier one.
#[derive(Clone, Debug)]
enum Step {
    Call { list: bool, amount: i64 },
    Report { of: usize, event: Event, actual: Option<i64> },
}

fn step() -> impl Strategy<Value = Step> {
    let event = prop_oneof![
        Just(Event::Done),
        Just(Event::Failed),
        Just(Event::Aborted),
        Just(Event::Unreported)
    ];
    prop_oneof![
        (any::<bool>(), 0..40_i64).prop_map(|(list, amount)| Step::Call { list, amount }),
        (0..12_usize, event, proptest::option::of(0..40_i64))
            .prop_map(|(of, event, actual)| Step::Report { of, event, actual }),
    ]
}

/// What is told of a permit, and of how much it was; none: a read.
type Known = (Option<i64>, Option<(Event, Option<i64>)>);

/// The slow interpreter: what is carried and spent, from all that was permitted and told.
fn wanted(all: &[Known]) -> (bool, i64) {
    let untrusted = all.iter().any(|(amount, told)| {
        amount.is_none() && matches!(told, None | Some((Event::Unreported, _)))
    });
    let spent = all.iter().filter_map(|(amount, told)| {
        let amount = (*amount)?;
        Some(match told {
            None | Some((Event::Unreported, _)) => amount,
            Some((Event::Done, actual)) => actual.unwrap_or(amount),
            // A payment can be aborted.
            Some(_) => 0,
        })
    });
    (untrusted, spent.sum())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn labels_and_budgets_are_what_a_slow_interpreter_says(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        static PLAN: LazyLock<Plan> = LazyLock::new(plan);
        let plan = &*PLAN;
        let mut session = SessionHistory::new();
        let mut all: Vec<Known> = Vec::new();
        for step in steps {
            match step {
                Step::Call { list, amount } => {
                    let (call, arguments) = if list {
                        ("crm.list", "{}".to_owned())
                    } else {
                        ("crm.pay", format!("{{\"n\": {amount}}}"))
                    };
                    let view = Some(HistoryView::new(&session));
                    let decision = decided_in(plan, call, &arguments, view);
                    let fits = list || wanted(&all).1 + amount <= 100;
                    prop_assert_eq!(fits, decision.outcome == Outcome::Permit);
                    if fits {
                        let id = format!("d{}", all.len());
                        session.apply(decision.changes(false), &id, call, NOW);
                        all.push(((!list).then_some(amount), None));
                    }
                }
                Step::Report { of, event, actual } => {
                    let Some((amount, told)) = all.get_mut(of).filter(|(_, told)| told.is_none()) else {
                        continue;
                    };
                    let actual = actual.zip(*amount).map(|(actual, most)| actual.min(most));
                    let actual = actual.filter(|_| event == Event::Done);
                    let actuals: Vec<(&str, i64)> = actual.iter().map(|n| ("money", *n)).collect();
                    report(&mut session, &format!("d{of}"), event, &[], &actuals, true).unwrap();
                    *told = Some((event, actual));
                }
            }
            let (untrusted, spent) = wanted(&all);
            prop_assert_eq!(untrusted, session.carries("untrusted"));
            let left = 100 - spent;
            let ask = |n: i64| outcome(plan, &session, "crm.pay", &format!("{{\"n\": {n}}}"));
            prop_assert_eq!((Outcome::Permit, Outcome::Deny), (ask(left), ask(left + 1)));
        }
    }
}

#[test]
fn a_window_forgets_what_is_reserved_too() {
    let facts = FACTS.replace("most: 100}", "most: 100, within: 1m}");
    let plan = compiled("{name: a}", &facts, MAY).unwrap_or_else(|error| panic!("{error}"));
    let mut session = SessionHistory::new();
    permitted(&plan, &mut session, "d1", "crm.pay", r#"{"n": 100}"#);
    assert_eq!(Outcome::Deny, outcome(&plan, &session, "crm.pay", r#"{"n": 1}"#));
    for pending in session.pending.values_mut() {
        pending.at = Time(NOW.0 - 61_000);
    }
    assert_eq!(Outcome::Permit, outcome(&plan, &session, "crm.pay", r#"{"n": 100}"#));
}
