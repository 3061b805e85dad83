//! What an agent remembers of tasks that ended.

use std::collections::BTreeMap;

use authz_kernel::decision::{Decision, Request, Time};
use authz_kernel::history::{
    HistoryView, Holder, LabelOrigin, MAX_LABELS, PARTY_MS, Remembering, SessionHistory,
};
use authz_kernel::model::{AgentMemory, Isolation, MEMORY_MS, Tier};
use authz_kernel::plan::Plan;

use crate::common::{NOW, request};
use crate::history::{compiled, decided_by, decided_in};

const FACTS: &str = "
agents: {bots: AGENTS, loners: ['spiffe://a.example/ns/loner/sa/*']}
labels: {pii: {kind: confidentiality}, secret: {kind: confidentiality, tier: high}, untrusted: {kind: trust}}
destinations: {internal: {match: '*@corp.example', clearance: [pii, secret]}, external: {match: '*', clearance: []}}
catalog: {s: {kind: http, operations: {get: {}, note: {}, send: {input: {type: object, properties: {to: {type: string}}, required: [to]}}}}}
classify:
  - {match: s.get, effects: [read], tier: low, yields: [pii]}
  - {match: s.note, effects: [write], tier: low}
  - {match: s.send, effects: [export], tier: low, destination: {from: [/to], type: email}}
tiers: {high: {bound: false}}
templates: {desk: {purpose: work, deadline: 24h, idle_timeout: 1h, tier_cap: high, scope: [{system: s}]}}
";
const POLICIES: &str = "@id(\"may\") permit(principal, action, resource);
@id(\"out\") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };
@id(\"who\") forbid(principal, action, resource) when { context.session.labels.contains(Label::\"untrusted\") };";
const EVE: &str = "{\"to\": \"eve@evil.example\"}";
const ANN: &str = "{\"to\": \"ann@corp.example\"}";

fn plan(agents: &str) -> Plan {
    let facts = FACTS.replace("AGENTS", agents);
    compiled(
        "{name: a, implicit_tasks: {agents: [loners], template: desk, tier_cap: standard}}",
        &facts,
        POLICIES,
    )
    .unwrap_or_else(|error| panic!("{error}"))
}

fn everybody() -> Plan {
    plan("['spiffe://a.example/ns/desk/sa/*']")
}

fn origins(labels: &[&str], at: Time) -> BTreeMap<String, LabelOrigin> {
    let origin = || LabelOrigin::new("d", "s.get", at);
    labels.iter().map(|label| ((*label).to_owned(), origin())).collect()
}

/// Asks with labels that the pair remembers, and labels that the agent remembers.
fn ask(plan: &Plan, call: &str, input: &str, others: &[&str], own: (&[&str], Time)) -> Decision {
    let nothing = SessionHistory::new();
    let mut agent = SessionHistory::new();
    agent.labels = origins(own.0, own.1).into();
    let mut pair = SessionHistory::new();
    pair.labels = origins(others, NOW).into();
    let view = HistoryView { agent: Some(&agent), pair: Some(&pair), ..HistoryView::new(&nothing) };
    decided_in(plan, call, input, Some(view))
}

#[test]
fn remembered_labels_count_where_data_goes_out() {
    let plan = everybody();
    let none: (&[&str], Time) = (&[], NOW);
    let code = |call: &str, input: &str, others: &[&str]| {
        ask(&plan, call, input, others, none).reason.as_str()
    };
    assert_eq!("PERMITTED", code("s.send", EVE, &[]));
    assert_eq!("FORBIDDEN", code("s.send", EVE, &["pii"]));
    assert_eq!("PERMITTED", code("s.send", ANN, &["pii"]));
    assert_eq!("FORBIDDEN", code("s.send", ANN, &["untrusted"]));
    assert_eq!("PERMITTED", code("s.note", "{}", &["pii", "untrusted"]));
    // A label that this bundle does not have may be any.
    assert_eq!("FORBIDDEN", code("s.send", ANN, &["of_2031"]));
    let tier = |call: &str| ask(&plan, call, ANN, &["secret"], none).tier;
    assert_eq!(Some(Tier::High), tier("s.send"));
    assert_eq!(Some(Tier::Low), ask(&plan, "s.note", "{}", &["secret"], none).tier);
    assert_eq!(vec!["pii".to_owned()], ask(&plan, "s.send", EVE, &["pii"], none).uncleared_labels);
}

#[test]
fn remembered_labels_count_for_the_memory_and_its_grain() {
    let plan = everybody();
    let at = |ms: i64| Time(NOW.0 - ms);
    let code = |ms: i64| ask(&plan, "s.send", EVE, &[], (&["pii"], at(ms))).reason.as_str();
    let most = MEMORY_MS + MEMORY_MS / 24;
    assert_eq!("FORBIDDEN", code(0));
    assert_eq!("FORBIDDEN", code(most));
    assert_eq!("PERMITTED", code(most + 1));
}

/// Policies read what is remembered also where no data goes out, and there it raises no tier.
#[test]
fn policies_read_what_is_remembered() {
    let known = "@id(\"known\") forbid(principal, action == Action::\"s.note\", resource)
when { context.remembered.contains(Label::\"secret\") };";
    let policies = format!("{POLICIES}\n{known}");
    let facts = FACTS.replace("AGENTS", "['spiffe://a.example/ns/desk/sa/*']");
    let plan = compiled("{name: a}", &facts, &policies).unwrap_or_else(|error| panic!("{error}"));
    let code = |call: &str, labels: &[&str]| {
        let decision =
            ask(&plan, call, if call == "s.send" { ANN } else { "{}" }, labels, (&[], NOW));
        (decision.reason.as_str(), decision.tier)
    };
    assert_eq!(("PERMITTED", Some(Tier::Low)), code("s.note", &["pii"]));
    assert_eq!(("FORBIDDEN", Some(Tier::Low)), code("s.note", &["secret"]));
    let nothing = SessionHistory::new();
    let view = HistoryView { pair: None, ..HistoryView::new(&nothing) };
    let decision = decided_in(&plan, "s.note", "{}", Some(view));
    assert_eq!("STATE_UNAVAILABLE", decision.reason.as_str());
}

#[test]
fn what_was_not_looked_up_is_not_taken_for_nothing() {
    let nothing = SessionHistory::new();
    let whole = HistoryView::new(&nothing);
    let plan = everybody();
    let code = |call: &str, view| decided_in(&plan, call, ANN, Some(view)).reason;
    let of = |view| code("s.send", view).as_str();
    assert_eq!("STATE_UNAVAILABLE", of(HistoryView { agent: None, ..whole }));
    assert_eq!("STATE_UNAVAILABLE", of(HistoryView { pair: None, ..whole }));
    assert_eq!("PERMITTED", of(whole));
    // A read needs the record that remembers its labels, and no other.
    let reads = |view| decided_in(&plan, "s.get", "{}", Some(view)).reason.as_str();
    assert_eq!("STATE_UNAVAILABLE", reads(HistoryView { agent: None, ..whole }));
    assert_eq!("PERMITTED", reads(HistoryView { pair: None, ..whole }));
    let by_pair = Remembering { holder: Some(Holder::Pair), ..Remembering::default() };
    let by_pair = HistoryView { remembering: by_pair, ..whole };
    assert_eq!("STATE_UNAVAILABLE", reads(HistoryView { pair: None, ..by_pair }));
    assert_eq!("PERMITTED", reads(HistoryView { agent: None, ..by_pair }));
    let nowhere = Remembering { holder: None, ..Remembering::default() };
    let nowhere = HistoryView { remembering: nowhere, agent: None, pair: None, ..whole };
    assert_eq!("PERMITTED", reads(nowhere));
}

#[test]
fn the_least_isolated_role_and_the_longest_memory_count() {
    let agents = "{match: 'spiffe://a.example/ns/*/sa/bot', isolated: per_task, memory: 2h}
  wide: {match: 'spiffe://a.example/ns/desk/sa/*', isolated: per_subject, memory: 1h}
  plain: ['spiffe://a.example/ns/shop/sa/*']";
    let facts = FACTS.replace(
        "{bots: AGENTS, loners: ['spiffe://a.example/ns/loner/sa/*']}",
        &format!("\n  bots: {agents}"),
    );
    let plan = compiled("{name: a}", &facts, POLICIES).unwrap_or_else(|error| panic!("{error}"));
    let memory = |agent: &str| plan.roles().memory_of(&format!("spiffe://a.example/ns/{agent}"));
    let hours = |isolated, hours: i64| AgentMemory { isolated, ms: hours * 3_600_000 };
    assert_eq!(hours(Isolation::PerTask, 2), memory("x/sa/bot"));
    assert_eq!(hours(Isolation::PerSubject, 2), memory("desk/sa/bot"));
    assert_eq!(hours(Isolation::PerSubject, 1), memory("desk/sa/other"));
    assert_eq!(hours(Isolation::None, 24), memory("shop/sa/bot"));
    assert_eq!(hours(Isolation::None, 24), memory("nobody/sa/other"));
}

#[test]
fn a_memory_is_from_a_minute_to_thirty_days() {
    let of = |text: &str| {
        let agents = format!("{{match: 'spiffe://a.example/ns/desk/sa/*', memory: {text}}}");
        compiled("{name: a}", &FACTS.replace("AGENTS", &agents), POLICIES).map(|_| ())
    };
    for text in ["1m", "24h", "30d"] {
        assert_eq!(Ok(()), of(text).map_err(|error| error.to_string()));
    }
    for text in ["59s", "31d", "soon", "0s"] {
        let error = of(text).unwrap_err().to_string();
        assert!(
            error.contains(&format!("`memory: {text}` is not a time from 1m to 30d")),
            "{error}"
        );
    }
}

/// What a call brings is written once, and again when the label is older than the grain.
#[test]
fn labels_are_remembered_when_the_task_has_ended() {
    use authz_kernel::task::TaskKind::{Implicit, Root};
    let mut agent = SessionHistory::new();
    let plan = everybody();
    let changes = |agent: &SessionHistory, kind| {
        let nothing = SessionHistory::new();
        let view = HistoryView { agent: Some(agent), ..HistoryView::new(&nothing) };
        let decision = crate::history::decided_as(&plan, "s.get", "{}", view, kind);
        assert_eq!("PERMITTED", decision.reason.as_str());
        decision.passage
    };
    for kind in [Root, Implicit] {
        assert!(changes(&agent, kind).remembered.is_some_and(|one| one.labels.len() == 1));
    }
    agent.apply_as(Holder::Agent, &changes(&agent, Root), "d1", "s.get", NOW);
    assert_eq!(["pii"].as_slice(), agent.labels.keys().collect::<Vec<_>>());
    assert_eq!(None, changes(&agent, Root).remembered);
    if let Some(origin) = agent.labels.get_mut("pii") {
        origin.at = Time(NOW.0 - 3_600_000);
    }
    agent.labels.extend(origins(&["old"], Time(NOW.0 - PARTY_MS - 3_600_001)));
    agent.apply_as(Holder::Agent, &changes(&agent, Root), "d2", "s.get", NOW);
    assert_eq!(["pii"].as_slice(), agent.labels.keys().collect::<Vec<_>>());
    assert_eq!(Some(NOW), agent.labels.get("pii").map(|origin| origin.at));
}

/// What an enforcer says of a call counts for it, and joins where it is let through.
#[test]
fn what_is_told_of_a_call_is_carried() {
    use authz_kernel::task::TaskKind::{Implicit, Root};
    let plan = everybody();
    let (session, agent) = (SessionHistory::new(), SessionHistory::new());
    let view = HistoryView { agent: Some(&agent), ..HistoryView::new(&session) };
    let told = |call: &str, input: &str, labels: &[&str], view, kind| {
        decided_by(&plan, &Request { labels, ..request(call, input) }, view, kind)
    };
    let sent = told("s.send", EVE, &["pii"], Some(view), Root);
    assert_eq!(
        ("FORBIDDEN", &["pii".to_owned()][..]),
        (sent.reason.as_str(), &*sent.uncleared_labels)
    );
    assert_eq!("PERMITTED", told("s.send", ANN, &["pii"], Some(view), Root).reason.as_str());
    let blamed = told("s.note", "{}", &["untrusted"], Some(view), Root);
    assert_eq!("FORBIDDEN", blamed.reason.as_str());
    let noted = told("s.note", "{}", &["secret", "pii"], Some(view), Root);
    assert_eq!(("PERMITTED", Some(Tier::High)), (noted.reason.as_str(), noted.tier));
    let joined = |decision: &Decision| decision.passage.labels.iter().cloned().collect::<Vec<_>>();
    assert_eq!(["pii", "secret"].as_slice(), joined(&noted));
    // What is written comes from nowhere, and what is read from where it is.
    assert_eq!(None, noted.passage.source);
    let read = told("s.get", "{}", &["secret"], Some(view), Root);
    assert_eq!((Some("s"), 2), (read.passage.source.as_deref(), read.passage.labels.len()));
    for kind in [Root, Implicit] {
        let kept = told("s.note", "{}", &["pii"], Some(view), kind).passage.remembered;
        let kept = kept.map(|kept| kept.labels).unwrap_or_default();
        assert_eq!(["pii"].as_slice(), kept.iter().collect::<Vec<_>>());
    }
    let code = |labels: &[&str], view| told("s.note", "{}", labels, view, Implicit).reason.as_str();
    assert_eq!("BAD_INPUT", code(&["pii", "nobodys"], Some(view)));
    assert_eq!("STATE_UNAVAILABLE", code(&["pii"], None));
    assert_eq!("STATE_UNAVAILABLE", code(&["pii"], Some(HistoryView { agent: None, ..view })));
}

#[test]
fn an_agent_that_keeps_as_many_labels_as_it_may_brings_none_more() {
    let plan = everybody();
    let names: Vec<String> = (0..MAX_LABELS).map(|n| format!("l{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let code = |at: Time| {
        let mut agent = SessionHistory::new();
        agent.labels = origins(&names, at).into();
        let nothing = SessionHistory::new();
        let view = HistoryView { agent: Some(&agent), ..HistoryView::new(&nothing) };
        let kind = authz_kernel::task::TaskKind::Implicit;
        crate::history::decided_as(&plan, "s.get", "{}", view, kind).reason.as_str()
    };
    assert_eq!("WINDOW_FULL", code(NOW));
    assert_eq!("PERMITTED", code(Time(NOW.0 - PARTY_MS - 3_600_001)));
}
