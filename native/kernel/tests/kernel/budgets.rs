//! Counted limits against a slow interpreter, which counts everything that happened each time.

use std::collections::BTreeSet;

use authz_kernel::decision::{Outcome, Time};
use authz_kernel::history::{HistoryView, MAX_EVENTS, SessionHistory};
use authz_kernel::plan::Plan;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::common::NOW;
use crate::history::{compiled, decided_in};
use crate::places::{self, MANY, SCOPES, is_same};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Count,
    Sum,
    Distinct,
}

#[derive(Clone, Debug)]
struct Budget {
    form: Form,
    of: BTreeSet<usize>,
    most: i64,
    within_s: Option<i64>,
    scope: &'static str,
}

#[derive(Clone, Debug)]
struct Event {
    operation: usize,
    amount: i64,
    to: Vec<u8>,
    place: usize,
    after_ms: i64,
}

struct Past {
    event: Event,
    at: i64,
}

impl Budget {
    /// Whether the event would exceed it, by counting all of the past.
    fn is_exceeded(&self, event: &Event, now: i64, past: &[Past]) -> bool {
        if !self.of.contains(&event.operation) {
            return false;
        }
        let counted = past
            .iter()
            .filter(|one| self.of.contains(&one.event.operation))
            .filter(|one| is_same(self.scope, one.event.place, event.place))
            .filter(|one| self.within_s.is_none_or(|within| now - one.at <= within * 1_000))
            .map(|one| &one.event)
            .chain([event]);
        let all = match self.form {
            Form::Count => i64::try_from(counted.count()).unwrap(),
            Form::Sum => counted.map(|event| event.amount).sum(),
            Form::Distinct => {
                let values: BTreeSet<u8> = counted.flat_map(|event| event.to.clone()).collect();
                i64::try_from(values.len()).unwrap()
            }
        };
        all > self.most
    }

    fn yaml(&self, name: &str) -> String {
        let of: Vec<String> = self.of.iter().map(|operation| format!("s.o{operation}")).collect();
        let of = of.join(", ");
        let form = match self.form {
            Form::Count => format!("count: [{of}]"),
            Form::Sum => format!("sum: /amount, of: [{of}]"),
            Form::Distinct => format!("distinct: /to, of: [{of}]"),
        };
        let within =
            self.within_s.map_or_else(String::new, |within| format!(", within: {within}s"));
        let scope = self.scope;
        format!("  {name}: {{{form}, most: {}{within}, scope: {scope}}}\n", self.most)
    }
}

fn budget() -> impl Strategy<Value = Budget> {
    let form = prop_oneof![Just(Form::Count), Just(Form::Sum), Just(Form::Distinct)];
    let of = proptest::collection::btree_set(0..3_usize, 1..3);
    let scope = proptest::sample::select(SCOPES.as_slice());
    (form, of, 0..8_i64, proptest::option::of(1..4_i64), scope).prop_map(
        |(form, of, most, within_s, scope)| {
            // An event spends 1 of a count, up to 3 of a sum and up to 2 values.
            // One of an agent, or a subject, has a window.
            let within_s = within_s.or_else(|| ["agent", "subject"].contains(&scope).then_some(9));
            Budget { form, of, most, within_s, scope }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let to = proptest::collection::vec(0..4_u8, 0..3);
    (0..3_usize, 0..4_i64, to, 0..MANY, 0..1_500_i64).prop_map(
        |(operation, amount, to, place, after_ms)| Event { operation, amount, to, place, after_ms },
    )
}

const OPERATION: &str = "{input: {type: object, properties: {amount: {type: integer}, to: {type: array, items: {type: integer}}}, required: [amount]}}";

fn bundle(budgets: &str, policies: &str) -> Result<Plan, String> {
    let facts = format!(
        "agents: {{bots: ['spiffe://a.example/ns/desk/sa/*']}}\n\
         catalog: {{s: {{kind: http, operations: {{o0: {OPERATION}, o1: {OPERATION}, o2: {OPERATION}}}}}}}\n\
         classify: [{{match: 's.*', effects: [read], tier: low}}]\n\
         budgets:\n{budgets}\
         templates: {{desk: {{purpose: work, deadline: 24h, starters: [bots], scope: [{{system: s}}]}}}}\n"
    );
    let may = "@id(\"may\") permit(principal, action, resource);";
    compiled("{name: a, tasks: optional}", &facts, &format!("{may}\n{policies}"))
}

#[test]
fn budgets_agree_with_an_interpreter_that_counts_everything() {
    // 100 sets of 4 budgets, 100 traces of each: 10,000 traces.
    let sets = std::env::var("AUTHZ_BUDGET_SETS").ok().and_then(|text| text.parse().ok());
    let config =
        Config { cases: sets.unwrap_or(100), failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    let scenario = (
        proptest::collection::vec(budget(), 4),
        proptest::collection::vec(proptest::collection::vec(event(), 1..16), 100),
    );
    let run = |(budgets, traces): (Vec<Budget>, Vec<Vec<Event>>)| {
        let text: String =
            budgets.iter().enumerate().map(|(n, one)| one.yaml(&format!("b{n}"))).collect();
        let plan = bundle(&text, "").unwrap_or_else(|error| panic!("{error}"));
        for trace in &traces {
            let (mut ours, mut now, mut past) = (places::Past::new(&plan), NOW, Vec::new());
            for event in trace {
                now = Time(now.0 + event.after_ms);
                let operation = format!("s.o{}", event.operation);
                let arguments = format!("{{\"amount\": {}, \"to\": {:?}}}", event.amount, event.to);
                let decision = ours.ask(event.place, &operation, &arguments, now);
                let exceeded: Vec<String> = budgets
                    .iter()
                    .enumerate()
                    .filter(|(_, one)| one.is_exceeded(event, now.0, &past))
                    .map(|(n, _)| format!("b{n}"))
                    .collect();
                prop_assert_eq!(&exceeded, &decision.budgets, "{:?}", trace);
                let code = if exceeded.is_empty() { "PERMITTED" } else { "BUDGET_EXCEEDED" };
                prop_assert_eq!(code, decision.reason.as_str());
                // What is refused spends nothing.
                if exceeded.is_empty() {
                    past.push(Past { event: event.clone(), at: now.0 });
                }
            }
        }
        Ok(())
    };
    TestRunner::new_with_rng(config, rng).run(&scenario, run).unwrap();
}

#[test]
fn a_window_that_is_full_lets_nothing_through() {
    let plan = bundle("  b: {sum: /amount, of: s.o0, most: 1000000, within: 1h}\n", "").unwrap();
    let mut session = SessionHistory::new();
    let ask = |session: &SessionHistory, amount: usize| {
        let arguments = format!("{{\"amount\": {amount}}}");
        decided_in(&plan, "s.o0", &arguments, Some(HistoryView::new(session)))
    };
    for _ in 0..MAX_EVENTS {
        let decision = ask(&session, 1);
        assert_eq!("PERMITTED", decision.reason.as_str());
        session.apply(&decision.passage, "d", "s.o0", NOW);
    }
    assert_eq!("WINDOW_FULL", ask(&session, 1).reason.as_str());
}

#[test]
fn what_would_give_back_or_overflow_is_refused() {
    let plan = bundle("  b: {sum: /amount, of: s.o0, most: 9007199254740992}\n", "").unwrap();
    let ask = |session: &SessionHistory, amount: i64| {
        let arguments = format!("{{\"amount\": {amount}}}");
        decided_in(&plan, "s.o0", &arguments, Some(HistoryView::new(session)))
    };
    let mut session = SessionHistory::new();
    assert_eq!("BUDGET_EXCEEDED", ask(&session, -1).reason.as_str());
    session.apply(&ask(&session, 9_007_199_254_740_991).passage.clone(), "d", "s.o0", NOW);
    assert_eq!("PERMITTED", ask(&session, 1).reason.as_str());
    assert_eq!("BUDGET_EXCEEDED", ask(&session, 2).reason.as_str());
    for spent in session.budgets.values_mut().flat_map(|uses| uses.instances.values_mut()) {
        spent.total = i64::MAX;
    }
    assert_eq!("BUDGET_EXCEEDED", ask(&session, 1).reason.as_str());
}

#[test]
fn a_higher_limit_keeps_what_was_spent() {
    let one = bundle("  b: {count: s.o0, most: 1}\n", "").unwrap();
    let two = bundle("  b: {count: s.o0, most: 2}\n", "").unwrap();
    let other = bundle("  b: {count: [s.o0, s.o1], most: 1}\n", "").unwrap();
    let mut session = SessionHistory::new();
    let ask = |plan: &Plan, session: &SessionHistory| {
        decided_in(plan, "s.o0", "{\"amount\": 1}", Some(HistoryView::new(session)))
    };
    for code in ["PERMITTED", "BUDGET_EXCEEDED"] {
        let decision = ask(&one, &session);
        assert_eq!(code, decision.reason.as_str());
        session.apply(decision.changes(false), "d", "s.o0", NOW);
    }
    let decision = ask(&two, &session);
    assert_eq!("PERMITTED", decision.reason.as_str());
    session.apply(decision.changes(false), "d", "s.o0", NOW);
    assert_eq!("BUDGET_EXCEEDED", ask(&two, &session).reason.as_str());
    assert_eq!("PERMITTED", ask(&other, &session).reason.as_str());
    let warned = Plan::compile(other.bundle().clone(), Some(&one)).unwrap();
    assert!(warned.warnings().iter().any(|one| one.to_string().contains("counts something else")));
}

#[test]
fn each_fault_of_a_budget_has_its_message() {
    for (budget, message) in [
        ("{most: 1}", "a budget is one of `count`, `sum` and `of`, `distinct` and `of`"),
        ("{count: s.o0, of: s.o0, most: 1}", "a budget is one of"),
        ("{sum: /amount, most: 1}", "a budget is one of"),
        ("{count: s.o0}", "`most` is missing"),
        ("{count: s.o0, most: -1}", "`most` is -1, and may be 0 to"),
        ("{count: s.o0, most: 257, within: 1h}", "may be 0 to 256 here"),
        ("{distinct: /to, of: s.o0, most: 257}", "may be 0 to 256 here"),
        ("{count: s.o0, most: 1, within: 2d}", "no duration of at most 24h"),
        ("{count: s.none, most: 1}", "unknown operation `s.none`"),
        ("{count: 'denied(s.o0)', most: 1}", "cannot stand here"),
        ("{sum: /none, of: s.o0, most: 1}", "names no argument of `s.o0`"),
        ("{sum: /to, of: s.o0, most: 1}", "is not declared as integer"),
    ] {
        let error = bundle(&format!("  b: {budget}\n"), "").unwrap_err();
        assert!(error.contains(message), "{budget}: {error}");
    }
}

#[test]
fn what_has_no_end_needs_a_window() {
    for scope in ["agent", "subject"] {
        let error = bundle(&format!("  b: {{count: s.o0, most: 1, scope: {scope}}}\n"), "");
        let what = format!("a budget of scope `{scope}` needs `within`");
        let error = error.unwrap_err();
        assert!(error.contains(&what), "{error}");
        bundle(&format!("  b: {{count: s.o0, most: 1, within: 24h, scope: {scope}}}\n"), "")
            .unwrap();
    }
}

#[test]
fn policy_must_read_a_budget_of_which_it_says_what_follows() {
    let stepup = "@id(\"b\") @stepup(\"approve\") forbid(principal, action == Action::\"s.o0\", resource)
when { context.budgets.contains(Budget::\"b\") } unless { context.satisfied.contains(Kind::\"approve\") };";
    let plan = bundle("  b: {count: s.o0, most: 1, then: policy}\n", stepup).unwrap();
    let error = bundle("  b: {count: s.o0, most: 1, then: policy}\n", "").unwrap_err();
    assert!(error.contains("no policy reads the budget `b`"), "{error}");
    assert_eq!(
        Outcome::Permit,
        decided_in(
            &plan,
            "s.o1",
            "{\"amount\": 1}",
            Some(HistoryView::new(&SessionHistory::new()))
        )
        .outcome
    );
}
