//! Contexts within a session: labels that strangers brought count where they were brought.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::decision::Time;
use authz_kernel::history::{
    Awaited, Event, HistoryChanges, MAX_CONTEXTS, Reported, SessionContext, SessionHistory,
};
use authz_kernel::plan::Plan;

use crate::history::compiled;

fn plan() -> Plan {
    let facts = "
labels: {untrusted: {kind: trust}, pii: {kind: confidentiality}}
catalog: {s: {kind: http, operations: {get: {}}}}
classify: [{match: s.get, effects: [read], tier: low}]
";
    compiled(
        "{name: a, tasks: optional}",
        facts,
        "@id(\"may\") permit(principal, action, resource);",
    )
    .unwrap_or_else(|error| panic!("{error}"))
}

fn context(name: &str) -> SessionContext {
    SessionContext::new("session", name)
}

fn set(labels: &[&str]) -> BTreeSet<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

/// A call that brings labels, and more if it is reported so.
fn call(labels: &[&str], awaited: &[&str]) -> HistoryChanges {
    HistoryChanges {
        labels: set(labels),
        awaited: Awaited { labels: set(awaited), ..Awaited::NONE },
        is_reported: !awaited.is_empty(),
        ..HistoryChanges::NONE
    }
}

/// The labels that count in a context; an empty name: without one.
fn seen(history: &SessionHistory, name: &str) -> BTreeSet<String> {
    let seen =
        Some(name).filter(|name| !name.is_empty()).and_then(|name| history.seen_in(&context(name)));
    seen.as_ref().unwrap_or(history).carried().map(|(label, _)| label.to_owned()).collect()
}

struct Session {
    plan: Plan,
    history: SessionHistory,
    calls: i64,
}

impl Session {
    fn new() -> Self {
        Self { plan: plan(), history: SessionHistory::new(), calls: 0 }
    }

    /// Lets a call through; an empty name: without a context. Returns the decision's id.
    fn call(&mut self, changes: &HistoryChanges, name: &str) -> String {
        self.calls += 1;
        let id = format!("d{}", self.calls);
        let within = changes.within(self.plan.bundle(), &context(name));
        let changes = if name.is_empty() { changes } else { &within };
        self.history.apply(changes, &id, "s.get", Time(1_000 + self.calls));
        id
    }

    fn report(&mut self, id: &str, labels: Option<&[&str]>) {
        let labels = labels.map(set);
        let report = Reported {
            event: Event::Done,
            operation: "s.get",
            labels: labels.as_ref(),
            actuals: &BTreeMap::new(),
            is_abortable: false,
        };
        self.history.settle(id, &report, Time(2_000 + self.calls));
    }
}

#[test]
fn labels_of_strangers_count_in_the_contexts_that_brought_them() {
    let mut session = Session::new();
    session.call(&call(&["untrusted", "pii"], &[]), "one");
    assert_eq!(set(&["pii", "untrusted"]), seen(&session.history, "one"));
    assert_eq!(set(&["pii"]), seen(&session.history, "two"));
    assert_eq!(set(&["pii", "untrusted"]), seen(&session.history, ""));
    session.call(&call(&["untrusted"], &[]), "two");
    assert_eq!(set(&["pii", "untrusted"]), seen(&session.history, "two"));
    assert_eq!(set(&["pii"]), seen(&session.history, "three"));
    session.call(&call(&["untrusted"], &[]), "");
    assert_eq!(set(&["pii", "untrusted"]), seen(&session.history, "three"));
    // It counts everywhere from now on, whatever a context brings.
    session.call(&call(&["untrusted"], &[]), "one");
    assert_eq!(set(&["pii", "untrusted"]), seen(&session.history, "four"));
}

/// A label that the bundle does not have may say anything, so it counts everywhere.
#[test]
fn an_unknown_label_counts_everywhere() {
    let mut session = Session::new();
    session.call(&call(&["of_2031"], &[]), "one");
    assert_eq!(set(&["of_2031"]), seen(&session.history, "two"));
}

#[test]
fn open_permits_keep_their_context() {
    let mut session = Session::new();
    let id = session.call(&call(&[], &["untrusted", "pii"]), "one");
    assert_eq!(set(&["pii", "untrusted"]), seen(&session.history, "one"));
    assert_eq!(set(&["pii"]), seen(&session.history, "two"));
    session.report(&id, Some(&["untrusted"]));
    assert_eq!(set(&["untrusted"]), seen(&session.history, "one"));
    assert_eq!(set(&[]), seen(&session.history, "two"));
    let id = session.call(&call(&[], &["untrusted"]), "two");
    session.report(&id, None);
    assert_eq!(set(&["untrusted"]), seen(&session.history, "two"));
    assert_eq!(set(&[]), seen(&session.history, "three"));
}

/// What two contexts bring together counts everywhere, and so does a label of more contexts than are kept.
#[test]
fn what_cannot_be_kept_apart_counts_everywhere() {
    let mut session = Session::new();
    let first = session.call(&call(&[], &["untrusted"]), "one");
    let second = session.call(&call(&[], &["untrusted"]), "two");
    assert_eq!(set(&[]), seen(&session.history, "three"));
    session.history.hand_over(&first, &second);
    assert_eq!(set(&["untrusted"]), seen(&session.history, "three"));

    let mut session = Session::new();
    for number in 0..MAX_CONTEXTS {
        session.call(&call(&["untrusted"], &[]), &format!("c{number}"));
    }
    assert_eq!(set(&[]), seen(&session.history, "new"));
    session.call(&call(&["untrusted"], &[]), "more");
    assert_eq!(set(&["untrusted"]), seen(&session.history, "new"));
}

/// Contexts of another session hide nothing here.
#[test]
fn a_context_belongs_to_its_session() {
    let mut session = Session::new();
    session.call(&call(&["untrusted"], &[]), "one");
    let other = SessionContext::new("another session", "two");
    assert_eq!(None, session.history.seen_in(&other));
}

/// The stored record keeps them.
#[test]
fn contexts_are_stored() {
    let mut session = Session::new();
    session.call(&call(&["untrusted"], &[]), "one");
    session.call(&call(&[], &["pii", "untrusted"]), "two");
    let text = serde_json::to_string(&session.history).unwrap();
    let again: SessionHistory = serde_json::from_str(&text).unwrap();
    assert_eq!(session.history, again);
    assert_eq!(set(&["pii"]), seen(&again, "three"));
}
