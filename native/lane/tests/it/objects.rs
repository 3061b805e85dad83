//! What agents write keeps their labels, in whatever session it is read, in both engines and after a restart.

use std::sync::Arc;

use authz_kernel::history::MAX_OBJECTS_IN_ALL;
use authz_kernel::task::RecordKind;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Engine, Transport, World};
use authz_state::store::{Bounds, EmbeddedSettings, EmbeddedStore, MemoryStore, Store};
use prost::Message;
use serde_json::{Value, json};

use crate::support::*;
use crate::tasks::{REQUIRED, agent, alices, end, subject, world_with};

const FACTS: &str = "
labels: {untrusted: {kind: trust}}
resources: {notes: {}}
catalog:
  web: {kind: http, operations: {page: {}}}
  host: {kind: http, operations: {shell: {}}}
  notes:
    kind: http
    operations:
      read: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      write: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      add: {}
      search: {}
classify:
  - {match: web.page, effects: [read], tier: low, yields: [untrusted]}
  - {match: host.shell, effects: [execute], tier: low}
  - {match: notes.read, effects: [read], tier: low, resource: {collection: notes, id: /id}}
  - {match: notes.write, effects: [write], tier: low, resource: {collection: notes, id: /id}}
  - {match: notes.add, effects: [write], tier: low, resource: {collection: notes}}
  - {match: notes.search, effects: [read], tier: low, resource: {collection: notes}}
";
const TEMPLATES: &str = "
templates:
  desk:
    purpose: work at the desk
    params: {ticket: String}
    deadline: 30m
    starters: [bot]
    scope: [{system: web}, {system: host}, {system: notes}]
  brief: {purpose: wait, deadline: 1h, starters: [bot], scope: [{operation: web.page}]}
";
const POLICIES: &str = r#"
@id("works") permit(principal, action in [Action::"system:web", Action::"system:host", Action::"system:notes"], resource);
@id("no-shell") forbid(principal, action == Action::"host.shell", resource)
when { context.session.labels.contains(Label::"untrusted") };
"#;

fn world() -> World {
    world_with(
        REQUIRED,
        &[("notes.yaml", FACTS), ("templates.yaml", TEMPLATES), ("policies/notes.cedar", POLICIES)],
    )
}

fn noting(extra: &Value) -> Served {
    let served = unloaded(extra);
    served.engine.load(world()).unwrap();
    served
}

/// The memory alone, and a file.
fn engines() -> [Value; 2] {
    [json!({}), json!({"state": {"engine": "embedded", "path": folder().join("state")}})]
}

fn calling(task: &str, call: &str, id: &str) -> wire::CheckRequest {
    let arguments = if id.is_empty() { json!({}) } else { json!({"id": id}) };
    wire::CheckRequest {
        arguments_json: arguments.to_string().into_bytes(),
        task: task.to_owned(),
        evidence: vec![agent(BOT)],
        ..asking(call)
    }
}

/// Asks, and gives reason and decision id.
fn ask(served: &Served, task: &str, call: &str, id: &str) -> (&'static str, String) {
    let decision = served.check(&calling(task, call, id));
    (code(&decision), decision.decision_id)
}

/// A task reads a page, writes an object, and ends; gives the id of the decision that wrote.
fn written(served: &Served, call: &str, id: &str) -> String {
    let task = alices(served).id;
    assert_eq!("PERMITTED", ask(served, &task, "web.page", "").0);
    let (reason, decision) = ask(served, &task, call, id);
    assert_eq!("PERMITTED", reason);
    end(served, &task, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    decision
}

/// Whether a new task may run commands after a call.
fn runs_after(served: &Served, call: &str, id: &str) -> bool {
    let task = alices(served).id;
    assert_eq!("PERMITTED", ask(served, &task, "host.shell", "").0);
    assert_eq!("PERMITTED", ask(served, &task, call, id).0);
    ask(served, &task, "host.shell", "").0 == "PERMITTED"
}

#[test]
fn a_note_brings_what_its_writer_carried() {
    for state in engines() {
        let served = noting(&state);
        assert!(runs_after(&served, "notes.read", "page"), "nobody has written it yet");
        written(&served, "notes.write", "page");
        assert!(!runs_after(&served, "notes.read", "page"));
        assert!(!runs_after(&served, "notes.search", ""), "as a whole it holds that note");
        assert!(runs_after(&served, "notes.read", "own"), "its harmless twin");
    }
}

/// The agent may write in one task what it read in another that has ended: a note keeps what its writer remembers, too.
#[test]
fn a_note_brings_what_its_writer_remembered() {
    for state in engines() {
        let served = noting(&state);
        let task = alices(&served).id;
        assert_eq!("PERMITTED", ask(&served, &task, "web.page", "").0);
        end(&served, &task, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
        let next = alices(&served).id;
        assert_eq!("PERMITTED", ask(&served, &next, "notes.write", "page").0);
        assert!(!runs_after(&served, "notes.read", "page"));
        assert!(runs_after(&served, "notes.read", "own"), "its harmless twin");
    }
}

#[test]
fn a_note_without_an_id_may_be_any() {
    for state in engines() {
        let served = noting(&state);
        written(&served, "notes.add", "");
        assert!(!runs_after(&served, "notes.read", "own"));
    }
}

/// A store that has no room for another record denies what would have to be kept, and nothing that is kept goes. What has its
/// record is written as before.
#[test]
fn a_full_store_denies_what_it_could_not_keep() {
    let bounds = Bounds::default().with(RecordKind::Object, 2);
    let mut embedded = EmbeddedSettings::new(folder().join("state"));
    embedded.bounds = bounds.clone();
    let stores: [Arc<dyn Store>; 2] = [
        Arc::new(MemoryStore::with_bounds([7; 32], bounds)),
        Arc::new(EmbeddedStore::open(embedded, Arc::new(|_, _| Ok(None))).unwrap()),
    ];
    for store in stores {
        let audit = folder().join("audit.jsonl");
        let engine = Engine::with_store(settings(&audit, &json!({})), store).unwrap();
        let served = Served { engine: Arc::new(engine), audit };
        served.engine.load(world()).unwrap();
        let task = alices(&served).id;
        assert_eq!("PERMITTED", ask(&served, &task, "notes.write", "clean").0, "it keeps nothing");
        // The one note, and its collection.
        written(&served, "notes.write", "page");
        assert_eq!("PERMITTED", ask(&served, &task, "web.page", "").0);
        for _ in 0..2 {
            let denied = served.check(&calling(&task, "notes.write", "more"));
            assert_eq!("OVERLOADED", code(&denied), "{}", denied.message);
            assert_eq!(wire::Outcome::Deny as i32, denied.outcome);
        }
        assert_eq!("PERMITTED", ask(&served, &task, "notes.write", "page").0);
        assert_eq!("PERMITTED", ask(&served, &task, "notes.add", "").0, "the collection has room");
        assert!(!runs_after(&served, "notes.read", "page"));
    }
}

/// A store has room for what a bundle's collections keep apart, with as many collections as a bundle may have.
#[test]
fn no_bundle_fills_a_store_with_objects() {
    const MOST_COLLECTIONS: usize = 20_000;
    let kept = usize::try_from(MAX_OBJECTS_IN_ALL).unwrap();
    assert!(Bounds::default().of(RecordKind::Object) >= kept + MOST_COLLECTIONS);
}

/// How many objects one agent may leave is a budget of it, which counts in all its sessions.
#[test]
fn how_many_one_agent_may_leave_is_a_budget() {
    let budget =
        "budgets: {notes: {distinct: /id, of: [notes.write], most: 2, scope: agent, within: 24h}}";
    let served = unloaded(&json!({}));
    let more = [
        ("notes.yaml", FACTS),
        ("templates.yaml", TEMPLATES),
        ("policies/notes.cedar", POLICIES),
        ("budgets.yaml", budget),
    ];
    served.engine.load(world_with(REQUIRED, &more)).unwrap();
    for id in ["one", "two", "one"] {
        written(&served, "notes.write", id);
    }
    let task = alices(&served).id;
    assert_eq!("BUDGET_EXCEEDED", ask(&served, &task, "notes.write", "three").0);
    assert_eq!("PERMITTED", ask(&served, &task, "notes.write", "two").0);
}

#[test]
fn a_restart_forgets_no_note() {
    let [_, state] = engines();
    let served = noting(&state);
    written(&served, "notes.write", "page");
    served.engine.close();
    drop(served);
    let served = noting(&state);
    assert!(!runs_after(&served, "notes.read", "page"));
    assert!(runs_after(&served, "notes.read", "own"));
}

/// Record and Explain name the decision by which a label was written, before it is the session's own.
#[test]
fn the_decision_that_wrote_a_label_is_named() {
    let served = noting(&json!({}));
    let by = written(&served, "notes.write", "page");
    let task = alices(&served).id;
    let explained = |call: &str, id: &str| {
        let request = calling(&task, call, id);
        let subject = Some(wire::explain_request::Subject::Check(request));
        let request = wire::ExplainRequest { subject, overrides: None }.encode_to_vec();
        let authorization = format!("Bearer {}", alice());
        let transport = Transport { authorization: Some(&authorization), ..Transport::by("admin") };
        let answer = served.engine.explain(&request, &transport).unwrap();
        let answer = wire::ExplainResponse::decode(answer.as_slice()).unwrap();
        let detail = answer.decision.unwrap().detail.unwrap();
        detail.label_origins.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(vec![("untrusted".to_owned(), by.clone())], explained("notes.read", "page"));
    assert!(explained("notes.read", "own").is_empty());
    let (_, read) = ask(&served, &task, "notes.read", "page");
    assert_eq!(vec![("untrusted".to_owned(), read.clone())], explained("notes.read", "page"));
    let records = served.records();
    let of = |id: &str| {
        records.iter().find(|record| record["decision_id"] == *id).unwrap_or_else(|| panic!("{id}"))
    };
    assert_eq!(json!(["untrusted"]), of(&by)["result"]["changes"]["written"]);
    assert_eq!(json!({"untrusted": by}), of(&read)["input"]["session"]["written"]);
    assert_eq!(json!(["untrusted"]), of(&read)["result"]["changes"]["labels"]);
    assert_eq!(Value::Null, of(&read)["result"]["changes"]["written"]);
}

/// Whoever asks without a change is told of the same labels, and nothing is kept of it.
#[test]
fn a_probe_writes_nothing() {
    let served = noting(&json!({}));
    let task = alices(&served).id;
    assert_eq!("PERMITTED", ask(&served, &task, "web.page", "").0);
    let mut request = calling(&task, "notes.write", "page");
    request.evidence = vec![agent(BOT), subject("alice")];
    request.mode = wire::Mode::Probe as i32;
    assert_eq!("PERMITTED", code(&served.check(&request)));
    assert!(runs_after(&served, "notes.read", "page"));
}

/// Readers that come while somebody writes: whoever was permitted after the write was answered carries the label.
#[test]
fn whoever_reads_after_a_write_carries_it() {
    for state in engines() {
        let served = noting(&state);
        for round in 0..10 {
            let id = format!("note-{round}");
            let readers: Vec<String> = (0..3).map(|_| alices(&served).id).collect();
            std::thread::scope(|scope| {
                for task in &readers {
                    let (served, id) = (&served, &id);
                    scope.spawn(move || ask(served, task, "notes.read", id));
                }
                written(&served, "notes.write", &id);
                for task in &readers {
                    assert_eq!("PERMITTED", ask(&served, task, "notes.read", &id).0);
                    assert_eq!("FORBIDDEN", ask(&served, task, "host.shell", "").0);
                }
            });
        }
    }
}

/// The older version wrote `/page` under the key of `page`, and knew no case-folded keys.
#[test]
fn what_was_written_under_an_older_spelling_is_read() {
    for state in engines() {
        let served = noting(&state);
        written(&served, "notes.write", "page");
        written(&served, "notes.write", "Report");
        assert!(!runs_after(&served, "notes.read", "/page"), "as the older version wrote it");
        assert!(runs_after(&served, "notes.read", "Page"), "another note");
        written(&served, "notes.write", "/new");
        assert!(!runs_after(&served, "notes.read", "/new"));
        assert!(runs_after(&served, "notes.read", "new"), "a leading slash is part of the id");
        let folding = FACTS.replace("notes: {}", "notes: {spelling: fold}");
        let files = [
            ("notes.yaml", folding.as_str()),
            ("templates.yaml", TEMPLATES),
            ("policies/notes.cedar", POLICIES),
        ];
        served.engine.load(world_with(REQUIRED, &files)).unwrap();
        assert!(!runs_after(&served, "notes.read", "Report"), "as it was written");
        assert!(!runs_after(&served, "notes.read", "PAGE"), "its key is that of `page`");
        written(&served, "notes.write", "Third");
        assert!(!runs_after(&served, "notes.read", "tHIRD"));
        assert!(runs_after(&served, "notes.read", "own"), "its harmless twin");
    }
}
