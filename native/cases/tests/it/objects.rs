//! Objects keep the labels that their writer carried, and a reader carries them too.

use std::sync::Arc;

use authz_kernel::plan::Plan;

use crate::traces::{compiled, trace};

const FACTS: &str = include_str!("../../../kernel/tests/facts/objects.yaml");
const POLICIES: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("no-run") forbid(principal, action == Action::"host.run", resource)
when { context.session.labels.contains(Label::"untrusted") };
@id("no-delete") forbid(principal, action == Action::"notes.delete", resource)
when { resource.labels.contains(Label::"untrusted") };
"#;

fn plan() -> Arc<Plan> {
    compiled("name: t", FACTS, POLICIES)
}

/// Runs two tasks of two sessions: the one writes, the other reads.
fn carried_over(steps: &str) -> Vec<String> {
    let other = "      - {start: {name: other, template: desk, agent: sub}, expect: OK}\n";
    trace(&plan(), &format!("{other}{steps}"))
}

#[test]
fn what_was_written_by_whoever_carried_a_label_brings_it() {
    let steps = r#"
      - {call: web.get, expect: PERMIT}
      - {call: notes.write, input: {id: a}, expect: PERMIT}
      - {end: {}, expect: OK}
      - {task: other, call: notes.delete, input: {id: a}, expect: {outcome: DENY, policy: no-delete}}
      - {task: other, call: notes.read, input: {id: b}, expect: PERMIT}
      - {task: other, call: host.run, expect: PERMIT}
      - {task: other, call: notes.read, input: {id: a}, expect: PERMIT}
      - {task: other, call: host.run, expect: {outcome: DENY, policy: no-run}}
"#;
    assert_eq!(Vec::<String>::new(), carried_over(steps));
}

#[test]
fn what_was_written_without_labels_brings_none() {
    let steps = r#"
      - {call: notes.write, input: {id: a}, expect: PERMIT}
      - {call: web.get, expect: PERMIT}
      - {task: other, call: notes.read, input: {id: a}, expect: PERMIT}
      - {task: other, call: notes.search, expect: PERMIT}
      - {task: other, call: notes.delete, input: {id: a}, expect: PERMIT}
      - {task: other, call: host.run, expect: PERMIT}
"#;
    assert_eq!(Vec::<String>::new(), carried_over(steps));
}

#[test]
fn a_collection_that_is_read_as_a_whole_brings_what_any_object_in_it_keeps() {
    let steps = r#"
      - {call: web.get, expect: PERMIT}
      - {call: notes.write, input: {id: a}, expect: PERMIT}
      - {task: other, call: notes.search, expect: PERMIT}
      - {task: other, call: host.run, expect: {outcome: DENY, policy: no-run}}
"#;
    assert_eq!(Vec::<String>::new(), carried_over(steps));
}

/// Which object it was nobody knows, so it may be any.
#[test]
fn what_was_written_without_an_id_counts_for_all_objects_of_the_collection() {
    let steps = r#"
      - {call: web.get, expect: PERMIT}
      - {call: notes.add, expect: PERMIT}
      - {task: other, call: notes.delete, input: {id: z}, expect: {outcome: DENY, policy: no-delete}}
      - {task: other, call: notes.read, input: {id: z}, expect: PERMIT}
      - {task: other, call: host.run, expect: {outcome: DENY, policy: no-run}}
"#;
    assert_eq!(Vec::<String>::new(), carried_over(steps));
}

/// It may have been written all the same; nor does the page lose what it may have brought.
#[test]
fn a_write_that_failed_was_one() {
    let facts = FACTS
        .replace("web: {kind: http,", "web: {kind: http, reports: sdk,")
        .replace("yields: [untrusted]}", "yields: {maximum: [untrusted]}}")
        .replace("  notes:\n    kind: http\n", "  notes:\n    kind: http\n    reports: sdk\n");
    let plan = compiled("name: t", &facts, POLICIES);
    for result in ["failed", "aborted"] {
        let steps = format!(
            r#"
      - {{start: {{name: other, template: desk, agent: sub}}, expect: OK}}
      - {{call: web.get, expect: PERMIT}}
      - {{call: notes.write, input: {{id: a}}, expect: PERMIT}}
      - {{report: {{of: 3, result: {result}}}, expect: OK}}
      - {{report: {{of: 2, result: {result}}}, expect: OK}}
      - {{task: other, call: notes.delete, input: {{id: a}}, expect: {{outcome: DENY, policy: no-delete}}}}
"#
        );
        assert_eq!(Vec::<String>::new(), trace(&plan, &steps));
    }
}

/// What the call itself brings is in what it writes: a page that is saved as a file.
#[test]
fn what_a_write_may_yield_is_in_what_it_writes() {
    let steps = r#"
      - {call: notes.fetch, input: {id: a}, expect: PERMIT}
      - {task: other, call: notes.delete, input: {id: a}, expect: {outcome: DENY, policy: no-delete}}
"#;
    assert_eq!(Vec::<String>::new(), carried_over(steps));
}

#[test]
fn the_case_of_a_split_operation_says_whether_it_writes() {
    let steps = r#"
      - {call: web.get, expect: PERMIT}
      - {call: notes.move, input: {id: a, how: copy}, expect: PERMIT}
      - {task: other, call: notes.delete, input: {id: a}, expect: PERMIT}
      - {call: notes.move, input: {id: a, how: rename}, expect: PERMIT}
      - {task: other, call: notes.delete, input: {id: a}, expect: {outcome: DENY, policy: no-delete}}
      - {task: other, call: notes.move, input: {id: a, how: copy}, expect: PERMIT}
      - {task: other, call: host.run, expect: {outcome: DENY, policy: no-run}}
"#;
    assert_eq!(Vec::<String>::new(), carried_over(steps));
}

#[test]
fn labels_of_what_was_written_go_with_their_time() {
    let steps = r#"
      - {call: web.get, expect: PERMIT}
      - {call: drafts.write, input: {id: a}, expect: PERMIT}
      - {after: 30m, call: drafts.write, input: {id: a}, expect: PERMIT}
      - {after: 59m, task: other, call: drafts.read, input: {id: b}, expect: PERMIT}
      - {task: other, call: host.run, expect: PERMIT}
      - {after: 1m, task: other, call: drafts.read, input: {id: a}, expect: PERMIT}
      - {task: other, call: host.run, expect: PERMIT}
"#;
    assert_eq!(Vec::<String>::new(), carried_over(steps));
    let steps = steps.replace("after: 1m, ", "");
    assert_eq!(1, carried_over(&steps).len(), "a minute before it still counts");
}

/// A leading slash is part of an id; but an older version stored `/a` as `a`.
#[test]
fn an_object_has_one_spelling() {
    let steps = r#"
      - {call: web.get, expect: PERMIT}
      - {call: notes.write, input: {id: /a}, expect: PERMIT}
      - {call: notes.write, input: {id: b}, expect: PERMIT}
      - {task: other, call: notes.delete, input: {id: a}, expect: PERMIT}
      - {task: other, call: notes.delete, input: {id: /a}, expect: {outcome: DENY, policy: no-delete}}
      - {task: other, call: notes.delete, input: {id: /b}, expect: {outcome: DENY, policy: no-delete}}
      - {task: other, call: notes.delete, input: {id: "a "}, expect: {outcome: DENY, code: BAD_INPUT}}
      - {task: other, call: notes.delete, input: {id: "%61"}, expect: {outcome: DENY, code: BAD_INPUT}}
"#;
    assert_eq!(Vec::<String>::new(), carried_over(steps));
}
