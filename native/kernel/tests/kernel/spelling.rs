//! Records that an older version wrote under another spelling, and what a bundle may say of spellings.

use std::sync::Arc;

use authz_kernel::decision::{Decision, Time};
use authz_kernel::digest::sha256;
use authz_kernel::hex::hex;
use authz_kernel::history::{
    HistoryChanges, HistoryView, KEPT_MS, Object, ObjectView, SessionHistory,
};
use authz_kernel::plan::Plan;
use authz_kernel::source;

use crate::common::{NOW, request};
use crate::history::{compiled, decided_in};

const FACTS: &str = r#"
agents: {bots: ["spiffe://a.example/ns/desk/sa/*"]}
labels: {untrusted: {kind: trust}}
resources: {notes: {}, files: {spelling: fold}}
catalog:
  notes:
    kind: http
    operations:
      read: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      write: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      delete: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
  files:
    kind: http
    operations:
      read: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      write: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      delete: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
  hr:
    kind: http
    operations:
      look: {input: {type: object, properties: {id: {type: integer}}, required: [id]}}
      drop: {input: {type: object, properties: {id: {type: integer}}, required: [id]}}
      show: {input: {type: object, properties: {id: {type: integer}}, required: [id]}}
      grant: {input: {type: object, properties: {id: {type: integer}}, required: [id]}}
classify:
  - {match: notes.read, effects: [read], tier: low, resource: {collection: notes, id: /id}}
  - {match: notes.write, effects: [write], tier: low, resource: {collection: notes, id: /id}}
  - {match: notes.delete, effects: [delete], tier: low, resource: {collection: notes, id: /id}}
  - {match: files.read, effects: [read], tier: low, resource: {collection: files, id: /id}}
  - {match: files.write, effects: [write], tier: low, resource: {collection: files, id: /id}}
  - {match: files.delete, effects: [delete], tier: low, resource: {collection: files, id: /id}}
  - {match: hr.look, effects: [read], tier: low}
  - {match: hr.drop, effects: [delete], tier: low}
  - {match: hr.show, effects: [read], tier: low}
  - {match: hr.grant, effects: [grant], tier: low}
sequences:
  no-drop: {never: hr.drop, after: hr.look, key: /id}
  no-note: {never: notes.delete, after: notes.read, key: resource}
  no-file: {never: files.delete, after: files.read, key: /id}
  look-first: {require: hr.show, before: hr.grant, key: /id, counts: permitted}
budgets:
  grants: {distinct: /id, of: hr.grant, most: 1}
templates:
  desk: {purpose: work, deadline: 24h, starters: [bots], scope: [{system: notes}, {system: files}, {system: hr}]}
"#;
const POLICIES: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("no-delete") forbid(principal, action == Action::"notes.delete", resource)
when { resource.labels.contains(Label::"untrusted") };
@id("no-drop") forbid(principal, action == Action::"hr.drop", resource)
when { context.sequences.contains(Sequence::"no-drop") };
@id("no-note") forbid(principal, action == Action::"notes.delete", resource)
when { context.sequences.contains(Sequence::"no-note") };
@id("no-file") forbid(principal, action == Action::"files.delete", resource)
when { context.sequences.contains(Sequence::"no-file") };
@id("look-first") forbid(principal, action == Action::"hr.grant", resource)
when { context.sequences.contains(Sequence::"look-first") };
"#;

fn plan() -> Plan {
    compiled("name: t", FACTS, POLICIES).unwrap()
}

/// As it stands in stored keys.
fn short(text: &str) -> String {
    hex(&sha256(text.as_bytes())).chars().take(32).collect()
}

fn asked(plan: &Plan, call: &str, id: &str, history: &SessionHistory) -> Decision {
    decided_in(plan, call, &format!("{{\"id\":{id}}}"), Some(HistoryView::new(history)))
}

/// What a session keeps of a call.
fn after(plan: &Plan, call: &str, id: &str) -> (SessionHistory, HistoryChanges) {
    let mut session = SessionHistory::new();
    let decision = asked(plan, call, id, &session);
    assert_eq!("PERMITTED", decision.reason.as_str(), "{}", decision.message);
    session.apply(&decision.passage, "d1", call, NOW);
    (session, decision.passage.clone())
}

/// Renames the instances of all rules, as if an older version had written them.
fn renamed(mut session: SessionHistory, new: &str, old: &str) -> SessionHistory {
    let mut count = 0;
    for progress in session.rules.values_mut() {
        let known = std::mem::take(&mut progress.instances);
        for (instance, progress_of) in known {
            count += usize::from(instance.ends_with(&short(new)));
            progress.instances.insert(instance.replace(&short(new), &short(old)), progress_of);
        }
    }
    assert!(count > 0, "no instance of {new}");
    session
}

#[test]
fn an_object_is_read_under_its_older_spellings_too() {
    let plan = plan();
    let keys = |call: &str, id: &str| {
        plan.objects_of(&request(call, &format!("{{\"id\":{id:?}}}"))).unwrap()
    };
    let key = |call: &str, id: &str| keys(call, id).object.unwrap();
    assert!(keys("notes.read", "Plan").older.is_empty());
    assert_ne!(key("notes.read", "plan"), key("notes.read", "Plan"));
    assert_ne!(key("notes.read", "plan"), key("notes.read", "/plan"));
    assert_eq!(vec![key("notes.read", "plan")], keys("notes.read", "/plan").older);
    assert_eq!(key("files.read", "plan"), key("files.read", "PLAN"));
    assert!(keys("files.read", "plan").older.is_empty());
    let older = keys("files.read", "/PLAN").older;
    assert_eq!(2, older.len(), "as it is written, and without the slash");
    assert_eq!(4, keys("files.read", "/PLAN").all().count());
    assert_eq!(key("files.read", "plan"), plan.object_keys("files", "Plan").object.unwrap());
}

#[test]
fn labels_under_an_older_spelling_count_until_they_expire() {
    let plan = plan();
    let mut collection = Object::new("notes".to_owned());
    let mut old = Object::new("notes/old".to_owned());
    let session = {
        let labels = ["untrusted".to_owned()].into();
        let mut session = SessionHistory::new();
        let changes = HistoryChanges { labels, ..HistoryChanges::NONE };
        session.apply(&changes, "d0", "web.get", NOW);
        session
    };
    let written = asked(&plan, "notes.write", "\"a\"", &session).passage.written.clone().unwrap();
    written.apply(Some(&mut old), &mut collection, ("d1", "notes.write", NOW));
    let nothing = Object::new("notes/new".to_owned());
    let none = SessionHistory::new();
    let reason = |older: &[Arc<Object>], now: Time| {
        let object = ObjectView { object: Some(&nothing), older, collection: &nothing };
        let view = HistoryView { object: Some(object), ..HistoryView::new(&none) };
        let decision =
            crate::history::decided_at(&plan, "notes.delete", r#"{"id":"/a"}"#, view, now);
        decision.reason.as_str()
    };
    assert_eq!("PERMITTED", reason(&[], NOW));
    let older = [Arc::new(old)];
    assert_eq!("FORBIDDEN", reason(&older, NOW));
    assert_eq!("FORBIDDEN", reason(&older, Time(NOW.0 + KEPT_MS - 1)));
    assert_eq!("PERMITTED", reason(&older, Time(NOW.0 + KEPT_MS)));
}

#[test]
fn a_rule_that_forbids_knows_progress_under_an_older_spelling() {
    let plan = plan();
    for (first, then, id, (new, old)) in [
        ("hr.look", "hr.drop", "7", ("s7", "i7")),
        ("notes.read", "notes.delete", "\"/a\"", ("notes//a", "notes/a")),
        ("files.read", "files.delete", "\"Plan\"", ("splan", "sPlan")),
    ] {
        let (session, _) = after(&plan, first, id);
        assert_eq!("FORBIDDEN", asked(&plan, then, id, &session).reason.as_str(), "{then}");
        let session = renamed(session, new, old);
        assert_eq!("FORBIDDEN", asked(&plan, then, id, &session).reason.as_str(), "{then} {old}");
    }
    let (session, _) = after(&plan, "hr.look", "7");
    let session = renamed(session, "s7", "i7");
    assert_eq!("PERMITTED", asked(&plan, "hr.drop", "8", &session).reason.as_str());
    // The next step is written under the new spelling, and goes on where the old one was.
    let decision = asked(&plan, "hr.look", "7", &session);
    assert!(decision.passage.advances.is_empty(), "the rule is as far as it can be");
}

#[test]
fn a_rule_that_enables_looks_at_the_new_spelling_only() {
    let plan = plan();
    let (session, _) = after(&plan, "hr.show", "7");
    assert_eq!("PERMITTED", asked(&plan, "hr.grant", "7", &session).reason.as_str());
    let session = renamed(session, "s7", "i7");
    assert_eq!("FORBIDDEN", asked(&plan, "hr.grant", "7", &session).reason.as_str());
}

#[test]
fn a_value_that_a_budget_counted_under_an_older_spelling_counts_once() {
    let plan = plan();
    let (mut session, _) = after(&plan, "hr.show", "7");
    let granted = asked(&plan, "hr.grant", "7", &session);
    session.apply(&granted.passage, "d2", "hr.grant", NOW);
    let mut count = 0;
    for spent in session.budgets.values_mut().flat_map(|uses| uses.instances.values_mut()) {
        let at = spent.values.remove(&short("s7"));
        count += usize::from(at.is_some());
        spent.values.extend(at.map(|at| (short("i7"), at)));
    }
    assert_eq!(1, count);
    assert_eq!("PERMITTED", asked(&plan, "hr.grant", "7", &session).reason.as_str());
}

/// What a bundle says wrongly of spellings is refused with what to write.
#[test]
fn spellings_that_a_bundle_may_not_say() {
    let base = FACTS;
    for (from, to, expected) in [
        (
            "files: {spelling: fold}",
            "files: {spelling: loose}",
            "unknown value `loose`; known: exact, fold",
        ),
        (
            "notes: {}",
            "notes: {patterns: [{match: 'a%2Fb/*', labels: [untrusted]}]}",
            "bad pattern `a%2Fb/*`: it holds a percent-encoded character. Write the character itself.",
        ),
        (
            "notes: {}",
            "notes: {patterns: [{match: 'a/*/', labels: [untrusted]}]}",
            "bad pattern `a/*/`: it has an empty segment, or ends in a slash",
        ),
        (
            "key: resource}",
            "key: resource}\n  mixed: {never: notes.delete, after: files.read, key: /id}",
            "`/id` is compared without case for `files.read` and byte by byte for `notes.delete`",
        ),
        (
            "{system: notes}",
            "{operation: notes.read, arguments: {/id: {prefix: 'INV-'}}}",
            "bad value `INV-`: a prefix covers whole segments, and this one ends within a segment. End it with `/`, list",
        ),
        (
            "{system: notes}",
            "{operation: notes.read, arguments: {/id: {prefix: 'HTTPS://corp.example'}}}",
            "bad value `HTTPS://corp.example`: its scheme has capital letters. Write the scheme in lower case.",
        ),
        (
            "{system: notes}",
            "{operation: notes.read, resources: {path_prefix: 'a/../b'}}",
            "bad value `a/../b`: it has a dot segment",
        ),
    ] {
        assert!(base.contains(from), "{from}");
        let facts = base.replace(from, to);
        let files =
            [("bundle.yaml", "name: t"), ("facts.yaml", &facts), ("policies/a.cedar", POLICIES)]
                .into_iter()
                .map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
                .collect();
        let errors = source::load(&files, &Default::default()).unwrap_err().to_string();
        assert!(errors.contains(expected), "{to}: {errors}");
    }
    let policies = format!(
        "{POLICIES}\n@id(\"x\") forbid(principal, action, resource == Resource::\"files/Plan\");"
    );
    let errors = compiled("name: t", FACTS, &policies).unwrap_err();
    assert!(
        errors.contains(
            "ids in `files` are compared without case. Write `Resource::\"files/plan\"`."
        ),
        "{errors}"
    );
}
