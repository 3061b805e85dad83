//! Rules over the order of events against a slow interpreter, which looks at everything that happened each time.

use std::collections::BTreeSet;

use authz_kernel::decision::{Decision, Outcome, Time};
use authz_kernel::history::{HistoryView, MAX_INSTANCES, Renewal, SessionHistory};
use authz_kernel::plan::Plan;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::common::NOW;
use crate::history::compiled;
use crate::places::{self, MANY, SCOPES, is_same};

/// Operations; the second half has another effect.
const OPERATIONS: usize = 5;

#[derive(Clone, Debug)]
struct Rule {
    steps: Vec<BTreeSet<usize>>,
    denied: bool,
    last: BTreeSet<usize>,
    requires: bool,
    within_s: Option<i64>,
    keyed: bool,
    scope: &'static str,
}

#[derive(Clone, Debug)]
struct Event {
    operation: usize,
    key: u8,
    place: usize,
    after_ms: i64,
    denied: bool,
}

/// What happened, as the slow interpreter keeps it.
struct Past {
    event: Event,
    at: i64,
}

impl Rule {
    /// Whether an event completes the rule: by looking at all of the past.
    fn completes(&self, event: &Event, now: i64, past: &[Past]) -> bool {
        if !self.last.contains(&event.operation) {
            return false;
        }
        let of_instance: Vec<&Past> = past
            .iter()
            .filter(|one| !self.keyed || one.event.key == event.key)
            .filter(|one| is_same(self.scope, one.event.place, event.place))
            .filter(|one| self.within_s.is_none_or(|within| now - one.at <= within * 1_000))
            .collect();
        self.has_steps(&of_instance, &self.steps) != self.requires
    }

    /// Whether some of the past are the steps, one after the other.
    fn has_steps(&self, past: &[&Past], steps: &[BTreeSet<usize>]) -> bool {
        let Some((first, rest)) = steps.split_first() else { return true };
        past.iter().enumerate().any(|(index, one)| {
            first.contains(&one.event.operation)
                && one.event.denied == self.denied
                && self.has_steps(&past[index + 1..], rest)
        })
    }

    fn yaml(&self, name: &str) -> String {
        let text = |operation: &usize, denied: bool| {
            if denied { format!("'denied(s.o{operation})'") } else { format!("s.o{operation}") }
        };
        let events = |set: &BTreeSet<usize>, denied: bool| {
            let all: Vec<String> = set.iter().map(|operation| text(operation, denied)).collect();
            format!("[{}]", all.join(", "))
        };
        let last = events(&self.last, false);
        let steps: Vec<String> = self.steps.iter().map(|step| events(step, self.denied)).collect();
        let form = match (self.requires, steps.as_slice()) {
            (true, [first, ..]) => format!("require: {first}, before: {last}, counts: permitted"),
            (false, [first]) => format!("never: {last}, after: {first}"),
            (_, steps) => format!("order: [{}], forbid: {last}", steps.join(", ")),
        };
        let within =
            self.within_s.map_or_else(String::new, |within| format!(", within: {within}s"));
        let key = if self.keyed { ", key: /k" } else { "" };
        format!("  {name}: {{{form}{within}{key}, scope: {}}}\n", self.scope)
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let some = || proptest::collection::btree_set(0..OPERATIONS, 1..3);
    let steps = proptest::collection::vec(some(), 1..4);
    let scope = proptest::sample::select(SCOPES.as_slice());
    (steps, some(), 0..3_u8, proptest::option::of(1..4_i64), any::<bool>(), scope).prop_map(
        |(mut steps, last, form, within_s, keyed, scope)| {
            let requires = form == 0;
            if requires {
                steps.truncate(1);
            }
            let within_s = within_s.filter(|_| steps.len() == 1);
            Rule { steps, denied: form == 1, last, requires, within_s, keyed, scope }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    (0..OPERATIONS, 0..3_u8, 0..MANY, 0..1_500_i64, proptest::bool::weighted(0.3)).prop_map(
        |(operation, key, place, after_ms, denied)| Event {
            operation,
            key,
            place,
            after_ms,
            denied,
        },
    )
}

fn plan(rules: &[Rule]) -> Plan {
    let operations: String = (0..OPERATIONS)
        .map(|n| format!("o{n}: {{input: {{type: object, properties: {{k: {{type: integer}}, deny: {{type: boolean}}}}, required: [k, deny]}}}}, "))
        .collect();
    let sequences: String =
        rules.iter().enumerate().map(|(n, rule)| rule.yaml(&format!("r{n}"))).collect();
    let facts = format!(
        "agents: {{bots: ['spiffe://a.example/ns/desk/sa/*']}}\n\
         catalog: {{s: {{kind: http, operations: {{{operations}}}}}}}\n\
         classify: [{{match: 's.*', effects: [read], tier: low}}]\n\
         sequences:\n{sequences}\
         templates: {{desk: {{purpose: work, deadline: 24h, scope: [{{system: s}}]}}}}\n"
    );
    let reads: Vec<String> = (0..rules.len())
        .map(|n| format!("context.sequences.contains(Sequence::\"r{n}\")"))
        .collect();
    let policies = format!(
        "@id(\"may\") permit(principal, action, resource);\n\
         @id(\"deny\") forbid(principal, action in Action::\"system:s\", resource) when {{ context.input.deny || (({}) && context.input.deny) }};",
        reads.join(" || ")
    );
    compiled("{name: a, tasks: optional}", &facts, &policies)
        .unwrap_or_else(|error| panic!("{error}\n{facts}"))
}

/// Runs a trace through the kernel; gives for each event the rules that it completed.
fn ours(plan: &Plan, trace: &[Event]) -> Vec<Vec<String>> {
    let mut past = places::Past::new(plan);
    let mut now = NOW;
    let mut all = Vec::new();
    for event in trace {
        now = Time(now.0 + event.after_ms);
        let operation = format!("s.o{}", event.operation);
        let arguments = format!("{{\"k\": {}, \"deny\": {}}}", event.key, event.denied);
        let decision = past.ask(event.place, &operation, &arguments, now);
        let wanted = if event.denied { Outcome::Deny } else { Outcome::Permit };
        assert_eq!(wanted, decision.outcome, "{}", decision.message);
        all.push(decision.sequences);
    }
    all
}

fn theirs(rules: &[Rule], trace: &[Event]) -> Vec<Vec<String>> {
    let mut past: Vec<Past> = Vec::new();
    let mut now = NOW.0;
    let mut all = Vec::new();
    for event in trace {
        now += event.after_ms;
        let completed =
            rules.iter().enumerate().filter(|(_, rule)| rule.completes(event, now, &past));
        all.push(completed.map(|(n, _)| format!("r{n}")).collect());
        past.push(Past { event: event.clone(), at: now });
    }
    all
}

#[test]
fn rules_agree_with_an_interpreter_that_looks_at_everything() {
    // 100 sets of 8 rules, 100 traces of each: 10,000 traces.
    let (sets, traces) =
        match std::env::var("AUTHZ_ORDER_SETS").ok().and_then(|text| text.parse().ok()) {
            Some(sets) => (sets, 100),
            None => (100, 100),
        };
    let config = Config { cases: sets, failure_persistence: None, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let scenario = (
        proptest::collection::vec(rule(), 8),
        proptest::collection::vec(proptest::collection::vec(event(), 1..16), traces),
    );
    runner
        .run(&scenario, |(rules, traces)| {
            let plan = plan(&rules);
            for trace in &traces {
                prop_assert_eq!(theirs(&rules, trace), ours(&plan, trace), "{:?}", trace);
            }
            Ok(())
        })
        .unwrap();
}

const FACTS: &str = "
agents: {bots: ['spiffe://a.example/ns/desk/sa/*']}
catalog: {s: {kind: http, operations: {a: {input: {type: object, properties: {k: {type: integer}, o: {type: string}}, required: [k]}}, b: {input: {type: object, properties: {k: {type: integer}, o: {type: string}}, required: [k]}}}}}
classify: [{match: 's.a', effects: [read], tier: low}, {match: 's.b', effects: [delete], tier: low}]
templates: {desk: {purpose: work, deadline: 24h, scope: [{system: s}]}}
";
const READS: &str = "@id(\"may\") permit(principal, action, resource);
@id(\"order\") forbid(principal, action, resource) when { context.sequences.contains(Sequence::\"x\") };";

fn of(rule: &str) -> Result<Plan, String> {
    compiled("{name: a, tasks: optional}", &format!("{FACTS}sequences:\n  x: {rule}\n"), READS)
}

/// A call whose events have that key.
fn keyed(plan: &Plan, session: &SessionHistory, call: &str, key: usize) -> Decision {
    let arguments = format!("{{\"k\": {key}}}");
    crate::history::decided_in(plan, call, &arguments, Some(HistoryView::new(session)))
}

#[test]
fn a_rule_that_is_full_lets_no_step_through() {
    let plan = of("{never: s.b, after: s.a, key: /k}").unwrap();
    let mut session = SessionHistory::new();
    let ask = |session: &SessionHistory, call: &str, key| keyed(&plan, session, call, key);
    for key in 0..MAX_INSTANCES {
        let decision = ask(&session, "s.a", key);
        assert_eq!("PERMITTED", decision.reason.as_str());
        session.apply(&decision.passage, "d", "s.a", NOW);
    }
    let full = ask(&session, "s.a", MAX_INSTANCES);
    assert_eq!("WINDOW_FULL", full.reason.as_str(), "{}", full.message);
    assert_eq!("PERMITTED", ask(&session, "s.a", 3).reason.as_str(), "it is known already");
    assert_eq!(["x".to_owned()].as_slice(), ask(&session, "s.b", 3).sequences);
    assert!(ask(&session, "s.b", MAX_INSTANCES).sequences.is_empty());
}

#[test]
fn a_denial_that_finds_no_room_counts_for_every_key() {
    let plan = of("{never: s.b, after: 'denied(s.a)', key: /k}").unwrap();
    let mut session = SessionHistory::new();
    let ask = |session: &SessionHistory, call: &str, key| keyed(&plan, session, call, key);
    for key in 0..MAX_INSTANCES {
        session.apply(&ask(&session, "s.a", key).denial, "d", "s.a", NOW);
    }
    assert!(ask(&session, "s.b", MAX_INSTANCES).sequences.is_empty());
    session.apply(&ask(&session, "s.a", MAX_INSTANCES + 1).denial, "d", "s.a", NOW);
    assert_eq!(["x".to_owned()].as_slice(), ask(&session, "s.b", MAX_INSTANCES).sequences);
}

#[test]
fn a_rule_that_was_changed_begins_anew_and_says_so() {
    let before = of("{never: s.b, after: s.a}").unwrap();
    let same = of("{never: [s.b], after: [s.a], scope: session}").unwrap();
    let other = of("{never: s.b, after: s.a, within: 1h}").unwrap();
    let mut session = SessionHistory::new();
    let ask = |plan: &Plan, session: &SessionHistory, call: &str| {
        crate::history::decided_in(plan, call, "{\"k\": 1}", Some(HistoryView::new(session)))
    };
    session.apply(&ask(&before, &session, "s.a").passage, "d", "s.a", NOW);
    assert_eq!(1, ask(&same, &session, "s.b").sequences.len());
    assert!(ask(&other, &session, "s.b").sequences.is_empty());
    let again = |plan: &Plan| {
        let plan = Plan::compile(plan.bundle().clone(), Some(&before)).unwrap();
        plan.warnings().iter().filter(|one| one.to_string().contains("begins anew")).count()
    };
    assert_eq!((0, 1), (again(&same), again(&other)));
}

#[test]
fn a_bundle_tells_what_becomes_of_the_progress_of_each_rule() {
    let with = |sequences: &str, budgets: &str| {
        let facts = format!("{FACTS}sequences:\n{sequences}budgets:\n{budgets}");
        let read = "@id(\"may\") permit(principal, action, resource);\n\
                    @id(\"order\") forbid(principal, action, resource) when { !context.sequences.isEmpty() };";
        compiled("{name: a}", &facts, read).unwrap()
    };
    let before = with(
        "  x: {never: s.b, after: s.a}\n  y: {never: s.a, after: s.b}\n",
        "  one: {count: s.a, most: 5}\n  two: {count: s.a, most: 5}\n  gone: {count: s.b, most: 5}\n",
    );
    let after = with(
        "  y: {never: [s.a], after: [s.b]}\n  x: {never: s.b, after: s.a, within: 1h}\n",
        "  two: {count: s.b, most: 5}\n  one: {count: s.a, most: 9}\n  come: {count: s.b, most: 5}\n",
    );
    let renewal = after.renewal(&before);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(2, renewal.carried, "another order, another way to write it, another `most`");
    assert_eq!(names(&["budgets.two", "sequences.x"]), renewal.changed);
    assert_eq!(names(&["budgets.come"]), renewal.added);
    assert_eq!(names(&["budgets.gone"]), renewal.removed);
    assert_eq!(Renewal { carried: 5, ..Renewal::default() }, after.renewal(&after));
}

#[test]
fn what_a_rule_names_is_not_stateless() {
    let plan = of("{never: s.b, after: s.a}").unwrap();
    assert!(!plan.is_stateless("s.a", None) && plan.recalls("s.a") && !plan.reads_history("s.a"));
    assert!(plan.reads_history("s.b"));
}

#[test]
fn each_fault_of_a_rule_has_its_message() {
    for (rule, message) in [
        (
            "{never: s.b}",
            "one of `require` and `before`, `never` and `after`, `order` and `forbid`, `switch`",
        ),
        ("{never: s.b, after: s.a, order: [s.a], forbid: s.b}", "one of `require` and `before`"),
        ("{never: s.b, before: s.a}", "one of `require` and `before`"),
        ("{require: s.a, before: s.b}", "nobody reports that `s.a` is done"),
        ("{never: s.b, after: s.a, counts: permitted}", "`counts` goes with `require`"),
        ("{never: s.c, after: s.a}", "unknown operation `s.c`"),
        ("{never: s.b, after: 'effect:reed'}", "unknown effect `reed`"),
        ("{never: s.b, after: 'effect:write'}", "no operation is such an event"),
        ("{never: 'denied(s.b)', after: s.a}", "`denied(s.b)` cannot stand here"),
        ("{require: 'denied(s.a)', before: s.b, counts: permitted}", "cannot stand here"),
        ("{order: [], forbid: s.b}", "`order` has 1 to 16 steps"),
        ("{order: [s.a, s.a], forbid: s.b, within: 1h}", "`within` goes with"),
        ("{never: s.b, after: s.a, within: 25h}", "no duration of at most 24h"),
        ("{never: s.b, after: s.a, key: /z}", "names no argument of `s.a`"),
        ("{never: s.b, after: s.a, key: /o}", "`/o` of `s.a` may be absent"),
        ("{never: s.b, after: s.a, key: resource}", "acts on no resource"),
        ("{switch: {effect: [read]}}", "`switch` has two effects"),
    ] {
        let error = of(rule).unwrap_err();
        assert!(error.contains(message), "{rule}: {error}");
    }
    let unread = compiled(
        "{name: a}",
        &format!("{FACTS}sequences:\n  x: {{never: s.b, after: s.a}}\n"),
        "@id(\"may\") permit(principal, action, resource);",
    );
    assert!(unread.unwrap_err().contains("no policy reads the sequence `x`"));
    let nowhere =
        READS.replace("forbid(principal, action,", "forbid(principal, action == Action::\"s.a\",");
    let facts = format!("{FACTS}sequences:\n  x: {{never: s.b, after: s.a}}\n");
    let error = compiled("{name: a}", &facts, &nowhere).unwrap_err();
    assert!(error.contains("can complete the sequence `x`"), "{error}");
}

/// Of an agent nothing is remembered for longer than a task may live, and a step that is too old is still to come.
#[test]
fn an_agent_has_no_end_but_what_it_did_counts_for_a_day() {
    const DAY_MS: i64 = 24 * 3_600 * 1_000;
    let plan = of("{order: [s.a, s.a], forbid: s.b, scope: agent}").unwrap();
    let completes = |times: &[i64], last: i64| {
        let mut past = places::Past::new(&plan);
        for at in times {
            assert_eq!(
                "PERMITTED",
                past.ask(0, "s.a", "{\"k\": 1}", Time(NOW.0 + at)).reason.as_str()
            );
        }
        // Another session of the same agent.
        !past.ask(2, "s.b", "{\"k\": 1}", Time(NOW.0 + last)).sequences.is_empty()
    };
    assert!(completes(&[0, 1_000], DAY_MS + 1_000));
    assert!(!completes(&[0, 1_000], DAY_MS + 1_001));
    assert!(completes(&[0, DAY_MS], DAY_MS + 1));
    assert!(!completes(&[0, DAY_MS + 1], DAY_MS + 2));
}

/// Where the record of a party is not at hand, nothing that depends on it is let through.
#[test]
fn what_was_not_recalled_is_not_taken_for_nothing() {
    for scope in ["agent", "subject"] {
        let plan = of(&format!("{{never: s.b, after: s.a, scope: {scope}}}")).unwrap();
        let session = SessionHistory::new();
        let ask = |history| crate::history::decided_in(&plan, "s.b", "{\"k\": 1}", Some(history));
        let view = HistoryView { agent: None, subject: None, ..HistoryView::new(&session) };
        let decision = ask(view);
        assert_eq!("STATE_UNAVAILABLE", decision.reason.as_str());
        assert!(decision.message.contains(scope), "{}", decision.message);
        let whole = HistoryView {
            agent: Some(&session),
            subject: Some(&session),
            ..HistoryView::new(&session)
        };
        assert_eq!("PERMITTED", ask(whole).reason.as_str());
    }
}
