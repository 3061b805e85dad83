//! Laws that hold of every trace: a replay gives the same, labels only grow, and the worst of all checks wins. Each is held
//! against something slow and obvious.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use authz_kernel::decision::{Outcome, ReasonCode, Time};
use authz_kernel::history::{Event, HistoryView, Holder, Remembering, Reported, SessionHistory};
use authz_kernel::plan::Plan;
use proptest::prelude::*;

use crate::common::{NOTHING, NOW};
use crate::history::{compiled, decided_at, decided_in};
use crate::places::{self, MANY};

const FACTS: &str = r#"
agents: {bots: ["spiffe://a.example/ns/desk/sa/*"]}
labels:
  pii: {kind: confidentiality}
  vip: {kind: confidentiality}
  sealed: {kind: confidentiality, tier: standard}
  untrusted: {kind: trust}
  dossier: {kind: confidentiality, derive: {from: vip, resources: 3}}
destinations: {external: {match: "*", clearance: []}}
denials: {raise_after: 3}
catalog:
  crm:
    kind: http
    reports: sdk
    operations:
      get: {input: {type: object, properties: {id: {type: string}, n: {type: integer}}, required: [id, n]}}
      list: {input: {type: object, properties: {id: {type: string}, n: {type: integer}}, required: [id, n]}}
      note: {}
      pay: {input: {type: object, properties: {id: {type: string}, n: {type: integer}}, required: [id, n]}}
classify:
  - {match: crm.get, effects: [read], tier: low, yields: {minimum: [pii], maximum: [pii, vip]}, resource: {collection: customers, id: /id}}
  - {match: crm.list, effects: [read], tier: low, yields: {minimum: [], maximum: [untrusted, vip]}, resource: {collection: customers, id: /id}}
  - {match: crm.note, effects: [read], tier: low, yields: {minimum: [], maximum: [untrusted, vip]}}
  - {match: crm.pay, effects: [write], tier: low, abortable: true}
resources: {customers: {patterns: [{match: "sealed/*", labels: [sealed]}]}}
sequences:
  again: {never: crm.pay, after: crm.list, within: 2s, key: /id}
  denied: {never: crm.get, after: "denied(crm.pay)", scope: agent}
  first: {require: crm.get, before: crm.pay, counts: permitted, scope: subject}
budgets:
  money: {sum: /n, of: crm.pay, most: 9, scope: task}
  names: {distinct: /id, of: [crm.get, crm.list], most: 4, within: 3s}
templates:
  desk: {purpose: work, deadline: 24h, starters: [bots], scope: [{system: crm}]}
"#;
const MAY: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("order") forbid(principal, action, resource)
when { context.sequences.contains(Sequence::"again") || (!context.sequences.isEmpty() && context.tier > 1) };
@id("names") forbid(principal, action == Action::"crm.pay", resource)
when { context.sequences.contains(Sequence::"first") && context.session.labels.contains(Label::"dossier") };
@id("got") @stepup("approve") forbid(principal, action == Action::"crm.get", resource)
when { context.sequences.contains(Sequence::"denied") && context.session.labels.contains(Label::"vip") }
unless { context.satisfied.contains(Kind::"approve") };
"#;
const CALLS: [&str; 3] = ["crm.get", "crm.list", "crm.pay"];
const IDS: [&str; 5] = ["a", "b", "c", "d", "sealed/e"];

fn plan() -> Plan {
    compiled("{name: a, tasks: optional}", FACTS, MAY).unwrap_or_else(|error| panic!("{error}"))
}

/// Something that is asked for.
#[derive(Clone, Debug)]
struct Ask {
    call: usize,
    id: usize,
    amount: i64,
    place: usize,
    after_ms: i64,
}

fn ask() -> impl Strategy<Value = Ask> {
    (0..CALLS.len(), 0..IDS.len(), 0..5_i64, 0..MANY, 0..1_500_i64)
        .prop_map(|(call, id, amount, place, after_ms)| Ask { call, id, amount, place, after_ms })
}

fn arguments(id: usize, amount: i64) -> String {
    format!("{{\"id\": \"{}\", \"n\": {amount}}}", IDS[id])
}

/// All that is decided in a trace, and what is known at its end.
fn played(plan: &Plan, trace: &[Ask]) -> (Vec<String>, String) {
    let mut past = places::Past::new(plan);
    let mut now = NOW;
    let decisions = trace.iter().map(|one| {
        now = Time(now.0 + one.after_ms);
        let (call, arguments) = (CALLS[one.call], arguments(one.id, one.amount));
        format!("{:?}", past.ask(one.place, call, &arguments, now))
    });
    (decisions.collect(), past.known())
}

/// What became of one permit: what it is of, and what was told.
struct Permit {
    sure: BTreeSet<&'static str>,
    most: BTreeSet<&'static str>,
    id: usize,
    told: Option<(Event, BTreeSet<&'static str>)>,
}

impl Permit {
    fn of(call: usize, id: usize) -> Self {
        let (least, most): (&[_], &[_]) = match CALLS[call] {
            "crm.get" => (&["pii"], &["pii", "vip"]),
            "crm.list" => (&[], &["untrusted", "vip"]),
            _ => (&[], &[]),
        };
        let reads = CALLS[call] != "crm.pay" && IDS[id].starts_with("sealed/");
        let own = reads.then_some("sealed");
        let sure: BTreeSet<_> = least.iter().copied().chain(own).collect();
        Self { most: most.iter().copied().chain(own).collect(), sure, id, told: None }
    }

    /// What it brought for good.
    fn settled(&self) -> BTreeSet<&'static str> {
        match &self.told {
            None => self.sure.clone(),
            Some((Event::Unreported, told)) => self.most.union(told).copied().collect(),
            Some((_, told)) => self.sure.union(told).copied().collect(),
        }
    }

    /// What it may have brought.
    fn carried(&self) -> BTreeSet<&'static str> {
        if self.told.is_none() { self.most.clone() } else { self.settled() }
    }
}

/// The labels of all permits, and those that follow from them.
fn labels(
    all: &[Permit],
    of: impl Fn(&Permit) -> BTreeSet<&'static str>,
) -> BTreeSet<&'static str> {
    let mut labels: BTreeSet<_> = all.iter().flat_map(&of).collect();
    let vips = all.iter().filter(|one| of(one).contains("vip")).map(|one| one.id);
    if vips.collect::<BTreeSet<usize>>().len() >= 3 {
        labels.insert("dossier");
    }
    labels
}

/// A step in one session: a call, or what came of an earlier one.
#[derive(Clone, Debug)]
enum Step {
    Call { call: usize, id: usize },
    Told { of: usize, event: Event, labels: u8 },
}

const EVENTS: [Event; 4] = [Event::Done, Event::Failed, Event::Aborted, Event::Unreported];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2_usize, 0..IDS.len()).prop_map(|(call, id)| Step::Call { call, id }),
        (0..16_usize, proptest::sample::select(EVENTS.as_slice()), any::<u8>())
            .prop_map(|(of, event, labels)| Step::Told { of, event, labels }),
    ]
}

fn carried(session: &SessionHistory) -> BTreeSet<&str> {
    session.carried().map(|(label, _)| label).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is hashed or kept by the process is another in the second plan: it must not show.
    #[test]
    fn a_replay_gives_the_same(trace in proptest::collection::vec(ask(), 1..24)) {
        static PLANS: LazyLock<[Plan; 2]> = LazyLock::new(|| [plan(), plan()]);
        let [one, other] = &*PLANS;
        prop_assert_eq!(played(one, &trace), played(other, &trace));
    }

    #[test]
    fn labels_only_grow_and_are_what_a_slow_interpreter_says(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        static PLAN: LazyLock<Plan> = LazyLock::new(|| {
            // Of labels alone: nothing else stands in the way.
            let facts = FACTS.replace("most: 4, within: 3s", "most: 256");
            compiled("{name: a}", &facts, MAY).unwrap_or_else(|error| panic!("{error}"))
        });
        let mut session = SessionHistory::new();
        let mut all: Vec<Permit> = Vec::new();
        for step in steps {
            let before: BTreeSet<String> = session.labels.keys().cloned().collect();
            match step {
                Step::Call { call, id } => {
                    let view = HistoryView {
                        agent: Some(&NOTHING),
                        subject: Some(&NOTHING),
                        ..HistoryView::new(&session)
                    };
                    let decision = decided_in(&PLAN, CALLS[call], &arguments(id, 0), Some(view));
                    prop_assert_eq!(Outcome::Permit, decision.outcome, "{}", decision.message);
                    let name = format!("d{}", all.len());
                    session.apply(decision.changes(false), &name, CALLS[call], NOW);
                    all.push(Permit::of(call, id));
                }
                Step::Told { of, event, labels } => {
                    let Some(permit) = all.get_mut(of).filter(|one| one.told.is_none()) else { continue };
                    let bits = permit.most.iter().enumerate();
                    let told: BTreeSet<&str> =
                        bits.filter(|(bit, _)| labels >> bit & 1 == 1).map(|(_, one)| *one).collect();
                    // Nobody tells of what nobody tells.
                    let told = if event == Event::Unreported { BTreeSet::new() } else { told };
                    let labels = told.iter().map(|one| (*one).to_owned()).collect();
                    let report = Reported {
                        event,
                        operation: "crm.get",
                        labels: Some(&labels),
                        actuals: &BTreeMap::new(),
                        is_abortable: false,
                    };
                    session.settle(&format!("d{of}"), &report, NOW);
                    permit.told = Some((event, told));
                }
            }
            let now: BTreeSet<&str> = session.labels.keys().map(String::as_str).collect();
            prop_assert!(before.iter().all(|label| now.contains(label.as_str())));
            let carried = carried(&session);
            prop_assert!(labels(&all, Permit::settled).is_subset(&now), "{:?}", now);
            prop_assert!(now.is_subset(&carried));
            let wanted = labels(&all, Permit::carried);
            prop_assert!(wanted.is_subset(&carried), "{:?}", carried);
            // What follows from others may stay where one of them turns out not to be there, and is never made up.
            let most = labels(&all, |one| one.most.clone());
            let more: Vec<_> = carried.difference(&wanted).collect();
            prop_assert!(more.is_empty() || more == [&"dossier"] && most.contains("dossier"));
        }
    }
}

/// A read, or what came of an earlier one, at a later time.
#[derive(Clone, Debug)]
enum Moment {
    Read { call: usize, later_ms: i64 },
    Told { of: usize, event: Event, labels: u8 },
}

fn moment() -> impl Strategy<Value = Moment> {
    prop_oneof![
        (0..2_usize, 0..8_i64 * 3_600_000)
            .prop_map(|(call, later_ms)| Moment::Read { call, later_ms }),
        (0..16_usize, proptest::sample::select(EVENTS.as_slice()), any::<u8>())
            .prop_map(|(of, event, labels)| Moment::Told { of, event, labels }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Each read is in a session of its own that ends at once. A label is remembered for the memory after the last read that
    /// brought it, or may have, and no longer than a grain beyond.
    #[test]
    fn what_is_remembered_is_what_a_slow_interpreter_says(
        moments in proptest::collection::vec(moment(), 1..40)
    ) {
        static PLAN: LazyLock<Plan> = LazyLock::new(|| {
            let facts = FACTS.replace("most: 4, within: 3s", "most: 256");
            compiled("{name: a}", &facts, MAY).unwrap_or_else(|error| panic!("{error}"))
        });
        let day = 24 * 3_600_000;
        let mut agent = SessionHistory::new();
        let mut all: Vec<(Time, Permit, SessionHistory)> = Vec::new();
        let mut now = NOW;
        for moment in moments {
            match moment {
                Moment::Read { call, later_ms } => {
                    now = Time(now.0 + later_ms);
                    let mut session = SessionHistory::new();
                    let view = HistoryView {
                        agent: Some(&agent),
                        subject: Some(&NOTHING),
                        ..HistoryView::new(&session)
                    };
                    let decision = decided_at(&PLAN, CALLS[call], &arguments(0, 0), view, now);
                    prop_assert_eq!(Outcome::Permit, decision.outcome, "{}", decision.message);
                    let (name, changes) = (format!("d{}", all.len()), decision.changes(false));
                    agent.apply_as(Holder::Agent, changes, &name, CALLS[call], now);
                    session.apply(changes, &name, CALLS[call], now);
                    all.push((now, Permit::of(call, 0), session));
                }
                Moment::Told { of, event, labels } => {
                    let Some((at, permit, session)) =
                        all.get_mut(of).filter(|(_, one, _)| one.told.is_none()) else { continue };
                    let bits = permit.most.iter().enumerate();
                    let told: BTreeSet<&str> =
                        bits.filter(|(bit, _)| labels >> bit & 1 == 1).map(|(_, one)| *one).collect();
                    let told = if event == Event::Unreported { BTreeSet::new() } else { told };
                    let labels = told.iter().map(|one| (*one).to_owned()).collect();
                    let report = Reported {
                        event,
                        operation: "crm.get",
                        labels: Some(&labels),
                        actuals: &BTreeMap::new(),
                        is_abortable: false,
                    };
                    session.settle(&format!("d{of}"), &report, now);
                    let at = (*at, Remembering::default());
                    agent.settle_remembered(&format!("d{of}"), &report, session, at);
                    permit.told = Some((event, told));
                }
            }
            let view = HistoryView { agent: Some(&agent), ..HistoryView::new(&NOTHING) };
            let known: BTreeSet<&str> = view.remembered(now).map(|(label, _)| label).collect();
            let since = |ms: i64, of: fn(&Permit) -> BTreeSet<&'static str>| {
                let young = all.iter().filter(|(at, ..)| now.0 - at.0 <= ms);
                young.flat_map(|(_, permit, _)| of(permit)).collect::<BTreeSet<_>>()
            };
            let least = since(day, Permit::carried);
            prop_assert!(least.is_subset(&known), "{:?} {:?}", least, known);
            // A label that is told is there since its call; what may have come counts as if it had, once it was written.
            let most = since(day + day / 24, |one| one.most.clone());
            prop_assert!(known.is_subset(&most), "{:?} {:?}", known, most);
        }
    }
}

/// What a session carries already is awaited no more, but where it came from again is not forgotten.
#[test]
fn a_label_that_is_there_already_still_came_from_somewhere() {
    let plan = plan();
    let vip = BTreeSet::from(["vip".to_owned()]);
    let done = Reported { labels: Some(&vip), ..Reported::plain(Event::Done) };
    let unseen = Reported { labels: None, ..Reported::plain(Event::Done) };
    for second in [&done, &unseen, &Reported::UNREPORTED] {
        let mut session = SessionHistory::new();
        let mut permitted = |id: &str, call: &str, arguments: &str, told: &Reported<'_>| {
            let view = HistoryView {
                agent: Some(&NOTHING),
                subject: Some(&NOTHING),
                ..HistoryView::new(&session)
            };
            let decision = decided_in(&plan, call, arguments, Some(view));
            assert_eq!(Outcome::Permit, decision.outcome, "{}", decision.message);
            session.apply(decision.changes(false), id, call, NOW);
            session.settle(id, told, NOW);
        };
        permitted("d0", "crm.get", &arguments(0, 0), &done);
        permitted("d1", "crm.get", &arguments(1, 0), second);
        permitted("d2", "crm.get", &arguments(2, 0), second);
        permitted("d3", "crm.note", "{}", second);
        assert!(session.carries("dossier"), "three resources with the label: {second:?}");
        assert!(session.sources.contains("crm"), "{second:?}: {:?}", session.sources);
    }
}

const CAUSES: [(&str, Option<ReasonCode>, &str); 5] = [
    (
        "failing",
        Some(ReasonCode::PolicyError),
        r#"@id("failing") forbid(principal, action == Action::"s.o", resource) when { context.input.failing && context.tier + 9223372036854775807 > 0 };"#,
    ),
    (
        "forbidden",
        Some(ReasonCode::Forbidden),
        r#"@id("forbidden") forbid(principal, action == Action::"s.o", resource) when { context.input.forbidden };"#,
    ),
    ("outside", Some(ReasonCode::OutOfScope), ""),
    ("spent", Some(ReasonCode::BudgetExceeded), ""),
    (
        "asked",
        None,
        r#"@id("asked") @stepup("approve") forbid(principal, action == Action::"s.o", resource)
when { context.input.asked } unless { context.satisfied.contains(Kind::"approve") };"#,
    ),
];

/// Every set of causes, with somebody who is permitted and without.
#[test]
fn deny_wins_over_step_up_and_step_up_over_permit() {
    let members: String =
        CAUSES.iter().map(|(name, ..)| format!("{name}: {{type: boolean}}, ")).collect();
    let names = CAUSES.map(|(name, ..)| name).join(", ");
    let facts = format!(
        "agents: {{bots: ['spiffe://a.example/ns/desk/sa/*']}}\n\
         catalog: {{s: {{kind: http, operations: {{o: {{input: {{type: object, properties: {{{members}may: {{type: boolean}}, n: {{type: integer}}, where: {{type: string}}}}, required: [{names}, may, n, where]}}}}}}}}}}\n\
         classify: [{{match: 's.*', effects: [write], tier: standard}}]\n\
         budgets: {{b: {{sum: /n, of: s.o, most: 1}}}}\n\
         templates: {{desk: {{purpose: work, deadline: 1h, scope: [{{operation: s.o, arguments: {{/where: {{one_of: [here]}}}}}}]}}}}\n"
    );
    let policies = CAUSES.map(|(.., policy)| policy).join("\n");
    let may = r#"@id("may") permit(principal, action == Action::"s.o", resource) when { context.input.may };"#;
    let plan = compiled("{name: a}", &facts, &format!("{may}\n{policies}"))
        .unwrap_or_else(|error| panic!("{error}\n{facts}"));
    let session = SessionHistory::new();
    for bits in 0..1_u32 << CAUSES.len() {
        for may in [true, false] {
            let is_there = |index: usize| bits >> index & 1 == 1;
            let flags: String = CAUSES
                .iter()
                .enumerate()
                .map(|(index, (name, ..))| format!("\"{name}\": {}, ", is_there(index)))
                .collect();
            let (place, n) =
                (if is_there(2) { "there" } else { "here" }, 1 + u8::from(is_there(3)));
            let arguments =
                format!("{{{flags}\"may\": {may}, \"where\": \"{place}\", \"n\": {n}}}");
            let there = CAUSES.iter().enumerate().filter(|(index, _)| is_there(*index));
            let mut denials: BTreeSet<ReasonCode> =
                there.filter_map(|(_, (_, reason, _))| *reason).collect();
            if !may {
                denials.insert(ReasonCode::NotPermitted);
            }
            let wanted = match denials.first() {
                Some(first) => (Outcome::Deny, *first),
                None if is_there(4) => (Outcome::StepUp, ReasonCode::ApprovalRequired),
                None => (Outcome::Permit, ReasonCode::Permitted),
            };
            let decision = decided_in(&plan, "s.o", &arguments, Some(HistoryView::new(&session)));
            assert_eq!(wanted, (decision.outcome, decision.reason), "{arguments}");
            let is_permit = decision.outcome == Outcome::Permit;
            assert_eq!(is_permit, !decision.changes(false).is_empty(), "{arguments}");
        }
    }
}
