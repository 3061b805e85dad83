//! What an agent brings along from its other sessions, and from tasks that it did not start.

use std::collections::BTreeMap;

use authz_kernel::decision::{Decision, Request, Time};
use authz_kernel::history::{HistoryView, Holder, MAX_LABELS, Origin, PARTY_MS, SessionHistory};
use authz_kernel::model::Tier;
use authz_kernel::plan::Plan;

use crate::common::{NOW, request};
use crate::history::{compiled, decided_by, decided_in};

const FACTS: &str = "
agents: {bots: AGENTS}
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
@id(\"out\") forbid(principal, action, resource) when { !context.excess.isEmpty() };
@id(\"who\") forbid(principal, action, resource) when { context.session.labels.contains(Label::\"untrusted\") };";
const EVE: &str = "{\"to\": \"eve@evil.example\"}";
const ANN: &str = "{\"to\": \"ann@corp.example\"}";

fn plan(agents: &str) -> Plan {
    let facts = FACTS.replace("AGENTS", agents);
    compiled("{name: a, implicit_tasks: {template: desk, tier_cap: standard}}", &facts, POLICIES)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn everybody() -> Plan {
    plan("['spiffe://a.example/ns/desk/sa/*']")
}

fn origins(labels: &[&str], at: Time) -> BTreeMap<String, Origin> {
    let origin = || Origin { decision_id: "d".to_owned(), operation: "s.get".to_owned(), at };
    labels.iter().map(|label| ((*label).to_owned(), origin())).collect()
}

/// Asks with labels of other sessions, and of the agent itself.
fn ask(plan: &Plan, call: &str, input: &str, others: &[&str], own: (&[&str], Time)) -> Decision {
    let nothing = SessionHistory::new();
    let mut agent = SessionHistory::new();
    agent.labels = origins(own.0, own.1).into();
    let others = origins(others, NOW);
    let view =
        HistoryView { agent: Some(&agent), others: Some(&others), ..HistoryView::new(&nothing) };
    decided_in(plan, call, input, Some(view))
}

#[test]
fn labels_of_other_sessions_count_where_data_goes_out() {
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
    assert_eq!(vec!["pii".to_owned()], ask(&plan, "s.send", EVE, &["pii"], none).excess);
}

#[test]
fn labels_of_an_agent_count_for_a_day() {
    let plan = everybody();
    let at = |ms: i64| Time(NOW.0 - ms);
    let code = |ms: i64| ask(&plan, "s.send", EVE, &[], (&["pii"], at(ms))).reason.as_str();
    assert_eq!("FORBIDDEN", code(0));
    assert_eq!("FORBIDDEN", code(PARTY_MS));
    assert_eq!("PERMITTED", code(PARTY_MS + 1));
}

#[test]
fn what_was_not_looked_up_is_not_taken_for_nothing() {
    let nothing = SessionHistory::new();
    let view = HistoryView { others: None, ..HistoryView::new(&nothing) };
    let with_agent = HistoryView { agent: Some(&nothing), ..view };
    let isolated = plan("{match: 'spiffe://a.example/ns/desk/sa/*', isolated: per_task}");
    let code = |plan: &Plan, call: &str, view| decided_in(plan, call, ANN, Some(view)).reason;
    let of = |plan: &Plan, view| code(plan, "s.send", view).as_str();
    let plan = everybody();
    assert_eq!("STATE_UNAVAILABLE", of(&plan, view));
    assert_eq!("STATE_UNAVAILABLE", of(&plan, with_agent));
    assert_eq!("STATE_UNAVAILABLE", of(&isolated, view), "the agent's own record");
    assert_eq!("PERMITTED", of(&isolated, with_agent));
    let whole = HistoryView { others: Some(&BTreeMap::new()), ..with_agent };
    assert_eq!("PERMITTED", of(&plan, whole));
}

#[test]
fn one_role_that_is_isolated_suffices_and_others_are_not() {
    let plan = plan("{match: 'spiffe://a.example/ns/*/sa/bot', isolated: per_task}");
    assert!(plan.model().is_isolated("spiffe://a.example/ns/desk/sa/bot"));
    assert!(!plan.model().is_isolated("spiffe://a.example/ns/desk/sa/other"));
    assert!(!plan.joins("s.send", "spiffe://a.example/ns/desk/sa/bot"));
    assert!(plan.joins("s.send", "spiffe://a.example/ns/desk/sa/other"));
    assert!(!plan.joins("s.note", "spiffe://a.example/ns/desk/sa/other"));
}

/// Only what is brought in a task that the agent did not start is kept, and what it has is kept anew once an hour.
#[test]
fn an_agent_keeps_labels_of_implicit_tasks() {
    let mut agent = SessionHistory::new();
    let plan = everybody();
    let kept = |agent: &SessionHistory, kind| {
        let nothing = SessionHistory::new();
        let view = HistoryView { agent: Some(agent), ..HistoryView::new(&nothing) };
        let decision = crate::history::decided_as(&plan, "s.get", "{}", view, kind);
        assert_eq!("PERMITTED", decision.reason.as_str());
        decision.passage
    };
    use authz_kernel::task::TaskKind::{Implicit, Root};
    assert!(kept(&agent, Root).kept.is_empty());
    let changes = kept(&agent, Implicit);
    assert_eq!(1, changes.kept.len());
    agent.apply_as(Holder::Agent, &changes, "d1", "s.get", NOW);
    assert_eq!(["pii"].as_slice(), agent.labels.keys().collect::<Vec<_>>());
    assert!(kept(&agent, Implicit).kept.is_empty());
    if let Some(origin) = agent.labels.get_mut("pii") {
        origin.at = Time(NOW.0 - 3_600_000);
    }
    agent.labels.extend(origins(&["old"], Time(NOW.0 - PARTY_MS - 1)));
    let changes = kept(&agent, Implicit);
    agent.apply_as(Holder::Agent, &changes, "d2", "s.get", NOW);
    assert_eq!(
        origins(&["pii"], NOW).keys().collect::<Vec<_>>(),
        agent.labels.keys().collect::<Vec<_>>()
    );
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
    assert_eq!(("FORBIDDEN", &["pii".to_owned()][..]), (sent.reason.as_str(), &*sent.excess));
    assert_eq!("PERMITTED", told("s.send", ANN, &["pii"], Some(view), Root).reason.as_str());
    let blamed = told("s.note", "{}", &["untrusted"], Some(view), Root);
    assert_eq!("FORBIDDEN", blamed.reason.as_str());
    let noted = told("s.note", "{}", &["secret", "pii"], Some(view), Root);
    assert_eq!(("PERMITTED", Some(Tier::High)), (noted.reason.as_str(), noted.tier));
    let joined = |decision: &Decision| decision.passage.labels.iter().cloned().collect::<Vec<_>>();
    assert_eq!(["pii", "secret"].as_slice(), joined(&noted));
    assert!(noted.passage.kept.is_empty());
    // What is written comes from nowhere, and what is read from where it is.
    assert_eq!(None, noted.passage.source);
    let read = told("s.get", "{}", &["secret"], Some(view), Root);
    assert_eq!((Some("s"), 2), (read.passage.source.as_deref(), read.passage.labels.len()));
    let kept = told("s.note", "{}", &["pii"], Some(view), Implicit).passage.kept;
    assert_eq!(["pii"].as_slice(), kept.iter().collect::<Vec<_>>());
    let code = |labels: &[&str], view| told("s.note", "{}", labels, view, Implicit).reason.as_str();
    assert_eq!("BAD_INPUT", code(&["pii", "nobodys"], Some(view)));
    assert_eq!("STATE_UNAVAILABLE", code(&["pii"], None));
    assert_eq!("STATE_UNAVAILABLE", code(&["pii"], Some(HistoryView::new(&session))));
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
    assert_eq!("PERMITTED", code(Time(NOW.0 - PARTY_MS - 1)));
}
