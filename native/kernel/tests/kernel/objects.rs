//! What agents write keeps the labels that they carried: whoever reads it carries them, too.

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::decision::{Decision, Request, Time};
use authz_kernel::history::{
    HistoryChanges, HistoryView, Holder, KEPT_MS, MAX_LABELS, MAX_OBJECTS, MAX_OBJECTS_IN_ALL,
    Object, ObjectView, SessionHistory,
};
use authz_kernel::plan::Plan;
use authz_kernel::task::{Record, RecordKind};

use crate::common::{NOW, request};
use crate::history::{compiled, decided_in};

const FACTS: &str = include_str!("../facts/objects.yaml");
const RESOURCE: &str = r#"
@id("no-delete") forbid(principal, action == Action::"notes.delete", resource)
when { resource.labels.contains(Label::"untrusted") };
"#;
const POLICIES: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("no-run") forbid(principal, action == Action::"host.run", resource)
when { context.session.labels.contains(Label::"untrusted") };
@id("no-delete") forbid(principal, action == Action::"notes.delete", resource)
when { resource.labels.contains(Label::"untrusted") };
"#;

fn plan() -> Plan {
    compiled("name: t", FACTS, POLICIES).unwrap()
}

#[test]
fn only_what_nobody_writes_with_labels_is_stateless() {
    let plan = plan();
    assert!(!plan.is_stateless("notes.read", None) && plan.reads_history("notes.read"));
    assert!(!plan.is_stateless("notes.search", None));
    assert!(plan.is_stateless("books.read", None), "no operation writes into it");
    assert_eq!(None, plan.objects_of(&request("books.read", r#"{"id":"a"}"#)));
}

#[test]
fn each_object_has_a_record_and_so_has_its_collection() {
    let plan = plan();
    let keys = |operation: &str, arguments: &str| plan.objects_of(&request(operation, arguments));
    let long = "x/".repeat(400) + "x";
    let object = keys("notes.read", &format!(r#"{{"id":"{long}"}}"#)).unwrap();
    assert_eq!("notes", &*object.collection.id);
    let key = object.object.clone().unwrap();
    assert_eq!((RecordKind::Object, 6 + 64), (key.kind, key.id.len()));
    assert_eq!(2, object.all().count());
    assert_eq!(None, keys("notes.search", "{}").unwrap().object);
    assert_eq!(None, keys("notes.read", "{}"), "it cannot be resolved, so it is refused");
    let named = Request { resource: Some("a"), ..request("notes.search", "{}") };
    assert_eq!(
        keys("notes.read", r#"{"id":"a"}"#),
        plan.objects_of(&named),
        "by whatever operation"
    );
}

fn session(labels: &[&str]) -> SessionHistory {
    let labels: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    let mut session = SessionHistory::new();
    session.apply(&HistoryChanges { labels, ..HistoryChanges::NONE }, "d0", "web.get", NOW);
    session
}

fn asked(
    plan: &Plan,
    call: &str,
    session: &SessionHistory,
    (object, collection): (Option<&Object>, &Object),
) -> Decision {
    let object = Some(ObjectView { object, older: &[], collection });
    let view = HistoryView { object, ..HistoryView::new(session) };
    decided_in(plan, call, r#"{"id":"a"}"#, Some(view))
}

/// Writes another object of a collection.
fn written(
    session: &SessionHistory,
    id: &str,
    collection: &mut Object,
    now: Time,
) -> (Object, bool) {
    let mut object = Object::new(id.to_owned());
    let view = ObjectView { object: Some(&object), older: &[], collection };
    let view = HistoryView { object: Some(view), ..HistoryView::new(session) };
    let decision = crate::history::decided_at(&plan(), "notes.write", r#"{"id":"a"}"#, view, now);
    assert_eq!("PERMITTED", decision.reason.as_str(), "{}", decision.message);
    let written = decision.passage.written.unwrap();
    written.apply(Some(&mut object), collection, ("d1", "notes.write", now));
    (object, written.is_any)
}

#[test]
fn what_was_not_recalled_is_not_taken_for_nothing() {
    let nothing = SessionHistory::new();
    let view = HistoryView { object: None, ..HistoryView::new(&nothing) };
    for call in ["notes.read", "notes.write", "notes.delete"] {
        let decision = decided_in(&plan(), call, r#"{"id":"a"}"#, Some(view));
        assert_eq!("STATE_UNAVAILABLE", decision.reason.as_str());
    }
}

#[test]
fn a_label_is_kept_with_the_decision_that_wrote_it_first() {
    let mut collection = Object::new("notes".to_owned());
    let (mut object, _) = written(&session(&["untrusted"]), "notes/1", &mut collection, NOW);
    let mark = object.labels["untrusted"].clone();
    assert_eq!(("d1", "notes.write", NOW), {
        let origin = &mark.origin;
        (origin.decision_id.as_str(), origin.operation.as_str(), origin.at)
    });
    assert_eq!(Time(NOW.0 + KEPT_MS), mark.until);
    assert_eq!((mark.until, mark.until), (object.expires_at, collection.expires_at));
    let later = Time(NOW.0 + 1_000);
    let decision = asked(&plan(), "notes.write", &session(&["pii"]), (Some(&object), &collection));
    let change = decision.passage.written.unwrap();
    change.apply(Some(&mut object), &mut collection, ("d2", "notes.write", later));
    assert_eq!(mark, object.labels["untrusted"], "what was there stays as it was");
    assert_eq!("d2", object.labels["pii"].origin.decision_id);
    assert_eq!(object.labels, collection.labels);
    assert_eq!(1, collection.counts.values().sum::<u32>(), "it is one object");
}

/// What is written by whoever carries nothing changes no record.
#[test]
fn a_write_without_labels_keeps_nothing() {
    let nothing = Object::new("notes".to_owned());
    let decision = asked(&plan(), "notes.write", &session(&[]), (Some(&nothing), &nothing));
    assert_eq!(None, decision.passage.written);
}

/// The pattern of a resource says what it has; that need not be kept again, and never for other objects.
#[test]
fn the_labels_of_a_pattern_are_not_kept_as_those_of_the_writer() {
    let nothing = Object::new("notes".to_owned());
    let by = session(&["untrusted"]);
    let object = Some(ObjectView { object: None, older: &[], collection: &nothing });
    let view = HistoryView { object, ..HistoryView::new(&by) };
    let decision = decided_in(&plan(), "notes.add", "{}", Some(view));
    let written = decision.passage.written.unwrap();
    assert_eq!(BTreeSet::from(["untrusted".to_owned()]), written.labels);
}

/// A full share is the writer's own denial: nobody else's objects get labels, and nobody else is refused.
#[test]
fn beyond_its_share_a_writer_is_refused() {
    let days = |count: u32| {
        let day = (NOW.0 + KEPT_MS).div_euclid(24 * 3_600 * 1_000);
        BTreeMap::from([("notes".to_owned(), BTreeMap::from([(day, count)]))])
    };
    let by = session(&["untrusted"]);
    let code = |kept: u32, agents: u32, pairs: u32, known: Option<&Object>| {
        let mut collection = Object::new("notes".to_owned());
        collection.counts = days(kept).remove("notes").unwrap();
        let (mut agent, mut pair) = (SessionHistory::new(), SessionHistory::new());
        (agent.objects, pair.objects) = (days(agents), days(pairs));
        let unknown = Object::new("notes/1".to_owned());
        let object = Some(known.unwrap_or(&unknown));
        let object = ObjectView { object, older: &[], collection: &collection };
        let view = HistoryView {
            object: Some(object),
            agent: Some(&agent),
            pair: Some(&pair),
            ..HistoryView::new(&by)
        };
        decided_in(&plan(), "notes.write", r#"{"id":"a"}"#, Some(view)).reason.as_str()
    };
    let third = MAX_OBJECTS / 3;
    assert_eq!("PERMITTED", code(third - 1, third - 1, third - 1, None));
    assert_eq!("WINDOW_FULL", code(third, third, third, None), "alone it has a third");
    assert_eq!("PERMITTED", code(third, 0, 0, None), "another writer has room");
    assert_eq!(
        "PERMITTED",
        code(third, third, 0, None),
        "and so has the agent for another subject"
    );
    assert_eq!("WINDOW_FULL", code(MAX_OBJECTS / 2, MAX_OBJECTS / 2, 0, None));
    assert_eq!("PERMITTED", code(MAX_OBJECTS - 1, 0, 0, None));
    assert_eq!("WINDOW_FULL", code(MAX_OBJECTS, 0, 0, None));
    // What it wrote itself it may write again.
    let mut collection = Object::new("notes".to_owned());
    let (known, _) = written(&by, "notes/1", &mut collection, NOW);
    assert_eq!("PERMITTED", code(MAX_OBJECTS, third, third, Some(&known)));
    // The labels of those who may not write are never those of everybody.
    assert!(collection.any.is_empty());
}

/// An object counts once for its writer, on the day on which it is forgotten.
#[test]
fn objects_count_for_their_writer() {
    let by = session(&["untrusted"]);
    let mut collection = Object::new("notes".to_owned());
    let mut object = Object::new("notes/1".to_owned());
    let mut pair = SessionHistory::new();
    let day = 24 * 3_600 * 1_000;
    for (step, at) in [NOW, Time(NOW.0 + day), Time(NOW.0 + 2 * day)].into_iter().enumerate() {
        let view = ObjectView { object: Some(&object), older: &[], collection: &collection };
        let view = HistoryView { object: Some(view), pair: Some(&pair), ..HistoryView::new(&by) };
        let decision =
            crate::history::decided_at(&plan(), "notes.write", r#"{"id":"a"}"#, view, at);
        let changes = decision.passage.clone();
        pair.apply_as(Holder::Pair, &changes, "d", "notes.write", at);
        let written = changes.written.unwrap();
        written.apply(Some(&mut object), &mut collection, ("d", "notes.write", at));
        let counts = &pair.objects["notes"];
        assert_eq!(vec![1], counts.values().copied().collect::<Vec<_>>(), "step {step}");
        assert_eq!(*counts, collection.counts);
    }
}

#[test]
fn a_collection_counts_its_objects_by_day() {
    let mut collection = Object::new("notes".to_owned());
    let day = (NOW.0 + KEPT_MS).div_euclid(24 * 3_600 * 1_000);
    collection.counts.insert(day, MAX_OBJECTS - 1);
    let by = session(&["untrusted"]);
    let (known, is_any) = written(&by, "notes/1", &mut collection, NOW);
    assert!(!is_any && collection.any.is_empty());
    assert_eq!(MAX_OBJECTS, collection.counts[&day]);
    let end = NOW.0 + KEPT_MS;
    // One that has a record keeps what is written into it there.
    let decision = asked(&plan(), "notes.write", &by, (Some(&known), &collection));
    assert!(!decision.passage.written.unwrap().is_any);
    // With its day, what was counted goes.
    collection.counts.insert(day, 1);
    let (_, is_any) = written(&by, "notes/4", &mut collection, Time(end + 24 * 3_600 * 1_000));
    assert!(!is_any);
    assert_eq!(None, collection.counts.get(&day));
}

#[test]
fn a_record_keeps_so_many_labels_and_what_it_could_not_keep_is_not_written() {
    let mut collection = Object::new("notes".to_owned());
    let by = session(&["untrusted"]);
    let (mut object, _) = written(&by, "notes/1", &mut collection, NOW);
    let mark = object.labels["untrusted"].clone();
    for label in 1..MAX_LABELS {
        object.labels.insert(format!("l{label}"), mark.clone());
    }
    let code = |labels: &[&str], object: &Object| {
        asked(&plan(), "notes.write", &session(labels), (Some(object), &collection)).reason.as_str()
    };
    assert_eq!("PERMITTED", code(&["untrusted"], &object));
    assert_eq!("WINDOW_FULL", code(&["pii"], &object));
    // Those whose time is up count no more.
    for label in 1..MAX_LABELS {
        let old = object.labels.get_mut(&format!("l{label}")).unwrap();
        old.until = NOW;
    }
    assert_eq!("PERMITTED", code(&["pii"], &object));
}

#[test]
fn what_a_node_does_not_know_of_an_object_is_kept() {
    let text = r#"{"id":"notes","labels":{"of_2031":{"decision_id":"d","operation":"o","at":1,"until":2}},"expires_at":2,"more":[1]}"#;
    let object: Object = serde_json::from_str(text).unwrap();
    let written: serde_json::Value = serde_json::to_value(&object).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(text).unwrap(), written);
    let record = Record::Object(object.into());
    assert_eq!((Some(2), RecordKind::Object), (record.due(), record.key().kind));
}

#[test]
fn a_label_that_the_bundle_does_not_have_counts_as_confidential() {
    let mut object = Object::new("notes/1".to_owned());
    let mut collection = Object::new("notes".to_owned());
    let (known, _) = written(&session(&["of_2031"]), "notes/1", &mut collection, NOW);
    object.labels = known.labels;
    let decision = asked(&plan(), "notes.read", &session(&[]), (Some(&object), &collection));
    assert_eq!(BTreeSet::from(["of_2031".to_owned()]), decision.passage.labels);
}

#[test]
fn how_long_it_is_kept_is_a_duration() {
    let bad = FACTS.replace("keeps_written: 1h", "keeps_written: soon");
    let error = compiled("name: t", &bad, POLICIES).unwrap_err();
    assert!(error.contains("`soon` is no duration"), "{error}");
    let none = FACTS.replace("keeps_written: 1h", "keeps_written: none");
    let plan = compiled("name: t", &none, POLICIES).unwrap();
    assert!(plan.is_stateless("drafts.read", None), "what is written there keeps nothing");
    assert!(!plan.is_stateless("notes.read", None));
}

#[test]
fn how_long_it_is_kept_is_bounded() {
    let error = |said: &str| {
        let bad = FACTS.replace("keeps_written: 1h", &format!("keeps_written: {said}"));
        compiled("name: t", &bad, POLICIES).map(drop)
    };
    assert_eq!(Ok(()), error("366d"));
    let said = "facts.yaml:6:27: `keeps_written` is longer than 366 days. Write 12h, 90d, or none.";
    assert_eq!(Err(said.to_owned()), error("367d"));
}

#[test]
fn keeping_that_changes_nothing_is_warned_of() {
    let warned = |from: &str, to: &str, policies: &str| -> Vec<String> {
        assert!(FACTS.contains(from));
        let plan = compiled("name: t", &FACTS.replace(from, to), policies).unwrap();
        let all = plan.warnings().iter().map(ToString::to_string);
        all.filter(|text| !text.contains("nothing reads the label")).collect()
    };
    assert_eq!(Vec::<String>::new(), warned("", "", POLICIES));
    let unwritten = "facts.yaml:7:26: warning: `keeps_written` of the collection `books` changes nothing: no operation with \
                     the effect `write` acts on it. Classify one that does, with its `resource`, or remove it.";
    for said in ["30d", "none"] {
        let books = format!("books: {{keeps_written: {said}}}");
        assert_eq!(vec![unwritten], warned("books: {}", &books, POLICIES));
    }
    let plain = r#"@id("may") permit(principal in Role::"bots", action, resource);"#;
    let said = "facts.yaml:6:27: warning: `keeps_written` of the collection `drafts` changes nothing: nothing depends on \
                which labels are carried. Let a policy read them, for instance `context.session.labels`, or remove it.";
    assert_eq!(vec![said], warned("", "", plain));
    assert!(warned("keeps_written: 1h", "keeps_written: none", plain).is_empty());
    // What nobody reads is read all the same where a policy asks for the labels of what is acted on.
    let carried = POLICIES.replace(RESOURCE.trim(), "");
    assert_ne!(POLICIES, carried);
    let (read, unread) =
        ("match: drafts.read, effects: [read]", "match: drafts.read, effects: [delete]");
    let said = "facts.yaml:6:27: warning: `keeps_written` of the collection `drafts` changes nothing: no operation reads what \
                is written there. Classify the one that does, with its `resource`, or say `keeps_written: none`.";
    assert_eq!(vec![said], warned(read, unread, &carried));
    assert!(warned(read, unread, POLICIES).is_empty());
    assert!(warned(read, "match: drafts.read, effects: [execute]", &carried).is_empty());
    assert!(warned("", "", &carried).is_empty());
    // Nobody asked for what is kept by default.
    let default = FACTS.replace("drafts: {keeps_written: 1h}", "drafts: {}").replace(read, unread);
    let plan = compiled("name: t", &default, &carried).unwrap();
    assert!(plan.warnings().iter().all(|one| !one.what.contains("keeps_written")));
}

/// Collections share what a store holds: the more keep labels, the fewer objects of each are told apart.
#[test]
fn no_collection_takes_the_room_of_another() {
    let apart = |collections: u32| {
        let more: String = (1..collections).map(|number| {
            format!("  - {{match: drafts.w{number}, effects: [write], tier: low, resource: {{collection: c{number}}}}}\n")
        }).collect();
        let names: String = (1..collections).map(|number| format!("  c{number}: {{}}\n")).collect();
        let writes: String =
            (1..collections).map(|number| format!("      w{number}: {{}}\n")).collect();
        let facts = FACTS
            .replace(
                "  drafts: {keeps_written: 1h}\n",
                &format!("  drafts: {{keeps_written: none}}\n{names}"),
            )
            .replace(
                "  drafts:\n    kind: http\n    operations:\n",
                &format!("  drafts:\n    kind: http\n    operations:\n{writes}"),
            )
            .replace("templates:\n", &format!("{more}templates:\n"));
        let plan = compiled("name: t", &facts, POLICIES).unwrap();
        let is_full = |kept: u32| {
            let mut collection = Object::new("notes".to_owned());
            let day = (NOW.0 + KEPT_MS).div_euclid(24 * 3_600 * 1_000);
            collection.counts.insert(day, kept);
            let unknown = Object::new("notes/1".to_owned());
            let by = session(&["untrusted"]);
            let decision = asked(&plan, "notes.write", &by, (Some(&unknown), &collection));
            decision.reason.as_str() == "WINDOW_FULL"
        };
        let share = MAX_OBJECTS.min(MAX_OBJECTS_IN_ALL / collections);
        assert_eq!([false, true], [share - 1, share].map(is_full));
        share
    };
    assert_eq!([MAX_OBJECTS, 10_000, 5_000], [1, 20, 40].map(apart));
}

/// What is written without a task keeps the labels of whoever writes it, and whoever reads it carries them.
#[test]
fn where_tasks_are_optional_what_is_written_keeps_labels_too() {
    let recalls = |policies: &str, call: &str| {
        let plan = compiled("name: t\ntasks: optional", FACTS, policies).unwrap();
        plan.recalls_taskless(call, false)
    };
    assert!(recalls(POLICIES, "notes.read") && recalls(POLICIES, "notes.write"));
    assert!(!recalls(POLICIES, "books.read"));
    let plain = r#"@id("may") permit(principal in Role::"bots", action, resource);"#;
    assert!(recalls(&format!("{plain} {RESOURCE}"), "notes.read"));
    // Where nothing depends on what is carried, nothing is followed.
    assert!(!recalls(plain, "notes.read"));
    // Nothing is written, so labels of resources alone make nothing depend on what was done before.
    let read = FACTS.replace("effects: [write]", "effects: [read]");
    let plan = compiled("name: t\ntasks: optional", &read, &format!("{plain} {RESOURCE}")).unwrap();
    assert!(!plan.recalls_taskless("notes.read", true));
}

#[test]
fn where_nothing_depends_on_labels_none_are_kept() {
    let keys = |facts: &str, policies: &str| {
        let plan = compiled("name: t", facts, policies).unwrap();
        plan.objects_of(&request("notes.read", r#"{"id":"a"}"#)).is_some()
    };
    let plain = r#"@id("may") permit(principal in Role::"bots", action, resource);"#;
    assert!(!keys(FACTS, plain));
    let ceiling = "{system: notes, resources: {label_ceiling: [pii]}}";
    assert!(keys(&FACTS.replace("{system: notes}", ceiling), plain));
    assert!(keys(FACTS, &format!("{plain} {RESOURCE}")));
}
