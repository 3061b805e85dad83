//! Runs of denials: what counts, what ends them, and how much is kept.

use authz_kernel::decision::{Outcome, ReasonCode, Time};
use authz_kernel::history::{
    BegunBy, HistoryChanges, HistoryView, MAX_MARKS, RunChange, RunName, SessionHistory,
};
use authz_kernel::model::Tier;
use authz_kernel::plan::Plan;

use crate::common::NOW;
use crate::history::{compiled, decided_in};

const FACTS: &str = include_str!("../facts/denials.yaml");
const POLICIES: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("not-yours") forbid(principal, action == Action::"crm.get", resource)
when { context.input has id && context.input.id != "own" && context.input.id != "ask" };
@id("ask") @stepup("confirm") forbid(principal, action == Action::"crm.get", resource)
when { context.input has id && context.input.id == "ask" } unless { context.satisfied.contains(Kind::"confirm") };
"#;

fn plan(denials: &str) -> Plan {
    let facts = FACTS.replace("denials: {raise_after: 2, end_after: 3}", denials);
    compiled("{name: a, taskless_tier: low}", &facts, POLICIES).unwrap()
}

/// Asks for something of somebody else's, and takes over what the answer changes.
fn refused(plan: &Plan, session: &mut SessionHistory, id: &str) -> HistoryChanges {
    let arguments = format!(r#"{{"id": "{id}"}}"#);
    let decision = decided_in(plan, "crm.get", &arguments, Some(HistoryView::new(session)));
    assert_eq!(Outcome::Deny, decision.outcome, "{id}");
    let changes = decision.changes(false).clone();
    session.apply(&changes, "d", "crm.get", NOW);
    changes
}

fn tier(plan: &Plan, session: &SessionHistory) -> Option<Tier> {
    decided_in(plan, "crm.status", "", Some(HistoryView::new(session))).tier
}

#[test]
fn different_calls_count_and_a_repeat_does_not() {
    let plan = plan("denials: {raise_after: 2}");
    let mut session = SessionHistory::new();
    assert!(!refused(&plan, &mut session, "1").is_empty());
    assert!(refused(&plan, &mut session, "1").is_empty(), "a repeat writes nothing");
    assert_eq!(Some(Tier::Low), tier(&plan, &session));
    refused(&plan, &mut session, "2");
    assert_eq!(Some(Tier::Standard), tier(&plan, &session));
}

#[test]
fn a_step_up_and_what_is_refused_before_it_is_judged_count_for_nothing() {
    let plan = plan("denials: {raise_after: 1}");
    let session = SessionHistory::new();
    for (arguments, outcome, reason) in [
        (r#"{"id": "ask"}"#, Outcome::StepUp, ReasonCode::ConfirmRequired),
        (r#"{"id": 1}"#, Outcome::Deny, ReasonCode::BadInput),
    ] {
        let decision = decided_in(&plan, "crm.get", arguments, Some(HistoryView::new(&session)));
        assert_eq!((outcome, reason), (decision.outcome, decision.reason));
        assert!(decision.changes(false).is_empty(), "{arguments}");
    }
}

#[test]
fn what_is_let_through_ends_the_run_also_where_it_is_only_observed() {
    let plan = plan("denials: {raise_after: 1}");
    let mut session = SessionHistory::new();
    let status = |session: &SessionHistory| {
        decided_in(&plan, "crm.status", "", Some(HistoryView::new(session))).changes(false).clone()
    };
    assert!(status(&session).is_empty(), "nothing to end, nothing to write");
    refused(&plan, &mut session, "1");
    let denied = decided_in(&plan, "crm.get", r#"{"id": "2"}"#, Some(HistoryView::new(&session)));
    assert!(matches!(denied.changes(true).run, Some(RunChange::Ends { .. })));
    let ends = status(&session);
    let marks = session.denials["t"].clone();
    assert_eq!(1, marks.len());
    assert_eq!(Some(RunChange::Ends { run: own("t"), marks }), ends.run);
    session.apply(&ends, "d", "crm.status", NOW);
    assert_eq!(Some(Tier::Low), tier(&plan, &session));
    assert!(session.denials.is_empty());
}

#[test]
fn the_limit_of_a_later_bundle_counts_at_once() {
    let mut session = SessionHistory::new();
    let lax = plan("denials: {}");
    for id in ["1", "2", "3", "4"] {
        assert!(!refused(&lax, &mut session, id).ends_task());
    }
    assert_eq!(Some(Tier::Low), tier(&lax, &session), "five are many, where nothing is said");
    refused(&lax, &mut session, "5");
    assert_eq!(Some(Tier::Standard), tier(&lax, &session));
    // Under a stricter bundle that comes later, the next one ends it, even a repeat.
    let strict = plan("denials: {end_after: 3}");
    assert!(refused(&strict, &mut session, "5").ends_task());
}

#[test]
fn only_so_many_are_kept_and_then_nothing_is_written() {
    let plan = plan("denials: {raise_after: 64}");
    let mut session = SessionHistory::new();
    for id in 0..MAX_MARKS {
        assert!(!refused(&plan, &mut session, &id.to_string()).is_empty());
    }
    assert!(refused(&plan, &mut session, "one more").is_empty());
    assert_eq!(Some(Tier::Standard), tier(&plan, &session));
    assert_eq!(MAX_MARKS + 1, session.entries());
}

/// The run of a root that its agent began itself.
fn own(task: &str) -> RunName {
    RunName { task: task.to_owned(), begun_by: BegunBy::Agent, is_root: true }
}

/// What a denial in a run changes.
fn growing(run: RunName, mark: &str) -> HistoryChanges {
    let run = RunChange::Grows { run, mark: Some(mark.to_owned()), ends_task: false };
    HistoryChanges { run: Some(run), ..HistoryChanges::NONE }
}

#[test]
fn no_other_task_fills_the_run_of_a_task() {
    let plan = plan("denials: {raise_after: 2, end_after: 3}");
    let mut session = SessionHistory::new();
    // An earlier version kept the denials of children there.
    for task in 0..1_024 {
        session.apply(&growing(own(&format!("other {task}")), "m"), "d", "crm.get", Time(1));
    }
    assert_eq!(Some(Tier::Low), tier(&plan, &session));
    assert!(!refused(&plan, &mut session, "1").ends_task());
    assert!(!refused(&plan, &mut session, "2").ends_task());
    assert_eq!(Some(Tier::Standard), tier(&plan, &session));
    assert!(refused(&plan, &mut session, "3").bars_agent());
}

#[test]
fn the_session_keeps_no_denials_of_a_child_that_was_given() {
    let mut session = SessionHistory::new();
    let begun_by = BegunBy::Giver("given/a".to_owned());
    let gift = RunName { begun_by, is_root: false, ..own("gift") };
    for mark in 0..2_000 {
        session.apply(&growing(gift.clone(), &mark.to_string()), "d", "crm.get", Time(1));
    }
    assert_eq!(0, session.entries());
}

#[test]
fn the_pair_counts_what_every_giver_gets_denied_apart() {
    let given = |giver: usize| RunName {
        begun_by: BegunBy::Giver(format!("given/{giver}")),
        is_root: false,
        ..own("gift")
    };
    let mut pair = SessionHistory::new();
    for giver in 0..100 {
        for mark in 0..100 {
            let mark = format!("{giver} {mark}");
            pair.keep_for_next(&growing(given(giver), &mark), true, Time(1));
        }
    }
    // Sixteen givers, and one run of all others.
    assert_eq!(17, pair.denials.len());
    assert!(pair.denials.values().all(|marks| marks.len() == MAX_MARKS));
    assert!(!pair.denials.contains_key("next"), "no giver adds to the agent's own run");
    pair.keep_for_next(&growing(own("t"), "1"), true, Time(2));
    assert_eq!(1, pair.denials["next"].len());
    // A permit in a giver's task ends that giver's run, and the part of the agent's own that it began with.
    let marks = pair.denials["given/3"].iter().chain(&pair.denials["next"]).cloned().collect();
    let ends = RunChange::Ends { run: given(3), marks };
    let ends = HistoryChanges { run: Some(ends), ..HistoryChanges::NONE };
    pair.keep_for_next(&ends, true, Time(3));
    assert_eq!(16, pair.denials.len());
    assert!(!pair.denials.contains_key("given/3") && !pair.denials.contains_key("next"));
}

#[test]
fn a_bundle_that_counts_none_remembers_none() {
    let plan = plan("");
    let mut session = SessionHistory::new();
    assert!(refused(&plan, &mut session, "1").is_empty());
    assert!(plan.is_stateless("crm.status", None) && !plan.recalls("crm.status"));
    let counting = self::plan("denials: {}");
    assert!(counting.is_stateless("crm.status", None), "without a task nothing is counted");
    assert!(counting.recalls("crm.status") && counting.reads_history("crm.status"));
    assert!(counting.leaves_nothing("crm.status", None));
}

#[test]
fn a_task_whose_session_is_not_at_hand_is_refused() {
    let decision = decided_in(&plan("denials: {}"), "crm.status", "", None);
    assert_eq!(ReasonCode::StateUnavailable, decision.reason);
}
