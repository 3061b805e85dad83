//! `@obligation("max_uses:N")`: a permit counts for so many calls of a task.

use authz_kernel::decision::{Outcome, ReasonCode, RuleKind};
use authz_kernel::history::{HistoryView, SessionHistory};
use authz_kernel::plan::Plan;

use crate::common::NOW;
use crate::history::{compiled, decided_in};

const FACTS: &str = "
agents: {bot: {match: [spiffe://a.example/ns/desk/sa/bot]}}
catalog: {s: {kind: http, operations: {get: {}, put: {}, other: {}}}}
classify:
  - {match: s.get, effects: [read], tier: low}
  - {match: s.put, effects: [write], tier: low}
  - {match: s.other, effects: [read], tier: low}
templates: {desk: {purpose: work, deadline: 24h, starters: [bot], scope: [{system: s}]}}
";

const TWICE: &str = "@id(\"twice\") @obligation(\"max_uses:2\")
    permit(principal, action in [Action::\"s.get\", Action::\"s.put\"], resource);
    @id(\"other\") permit(principal, action == Action::\"s.other\", resource);
    @id(\"start\") permit(principal, action == Action::\"task:desk\", resource);";

fn plan(policies: &str) -> Plan {
    compiled("{name: a, tasks: optional}", FACTS, policies).unwrap_or_else(|text| panic!("{text}"))
}

/// A session in which calls are made one after the other.
struct Session {
    plan: Plan,
    history: SessionHistory,
}

impl Session {
    fn new(policies: &str) -> Self {
        Self { plan: plan(policies), history: SessionHistory::new() }
    }

    fn call(&mut self, operation: &str) -> ReasonCode {
        let view = HistoryView::new(&self.history);
        let decision = decided_in(&self.plan, operation, "", Some(view));
        if decision.outcome == Outcome::Permit {
            self.history.apply(&decision.passage, "d", operation, NOW);
        }
        decision.reason
    }
}

#[test]
fn a_permit_counts_for_so_many_calls() {
    use ReasonCode::{Permitted, UsesExhausted};
    let mut session = Session::new(TWICE);
    // Calls of another policy use nothing.
    for (operation, reason) in [
        ("s.other", Permitted),
        ("s.get", Permitted),
        ("s.other", Permitted),
        ("s.put", Permitted),
        ("s.get", UsesExhausted),
        ("s.put", UsesExhausted),
        ("s.other", Permitted),
    ] {
        assert_eq!(reason, session.call(operation), "{operation}");
    }
}

#[test]
fn the_denial_names_the_policy() {
    let mut session = Session::new(TWICE);
    session.call("s.get");
    session.call("s.get");
    let decision = decided_in(&session.plan, "s.get", "", Some(HistoryView::new(&session.history)));
    assert_eq!("the permit `twice` counts for 2 calls of a task at most", decision.message);
    let [rule] = decision.rules.as_slice() else { panic!("{:?}", decision.rules) };
    assert_eq!(
        (RuleKind::Uses, "twice", "policies/a.cedar"),
        (rule.kind, rule.name.as_str(), rule.at.file.as_str())
    );
}

#[test]
fn only_calls_for_which_the_permit_fires_count() {
    let policies = "@id(\"often\") permit(principal, action, resource) when { context.session.calls < 3 };
        @id(\"late\") @obligation(\"max_uses:1\") permit(principal, action, resource) when { context.session.calls >= 3 };";
    let mut session = Session::new(policies);
    for _ in 0..4 {
        assert_eq!(ReasonCode::Permitted, session.call("s.get"));
    }
    assert_eq!(ReasonCode::UsesExhausted, session.call("s.get"));
}

/// A read whose uses are counted is not stateless: a node must recall its session.
#[test]
fn its_operations_have_a_history() {
    assert!(!plan(TWICE).is_stateless("s.get", None) && plan(TWICE).recalls("s.get"));
    assert!(plan(TWICE).is_stateless("s.other", None));
}
