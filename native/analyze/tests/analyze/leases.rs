//! Leased secrets that permit more than their operation.

use std::collections::BTreeMap;

use authz_analyze::input::Lease;
use authz_analyze::paths::PathResults;
use authz_analyze::report::{Finality, Finding, Severity};
use serde_json::{Value, json};

use crate::paths::{analyze_leases, bundle, of_rule};

const RULE: &str = "credential-too-wide";

const FACTS: &str = "
agents: {bot: ['spiffe://dev.example/bot'], clerk: ['spiffe://dev.example/clerk']}
labels: {pii: {kind: confidentiality}}
resources: {orders: {}, customers: {labels: [pii]}}
catalog:
  dwh:
    kind: http
    operations:
      read_orders: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      read_customers: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      add_order: {input: {type: object, properties: {}}}
classify:
  - {match: dwh.read_orders, effects: [read], tier: low, resource: {collection: orders, id: /id}}
  - {match: dwh.read_customers, effects: [read], tier: low, resource: {collection: orders, id: /id}}
  - {match: dwh.add_order, effects: [write], tier: low}
";
const ALL: &str = "@id(\"all\") permit(principal, action in Action::\"system:dwh\", resource);\n";

fn right(privilege: &str, effects: &[&str], name: &str) -> Value {
    json!({"privilege": privilege, "effects": effects, "kind": "table", "name": name})
}

fn select(name: &str) -> Value {
    right("SELECT", &["read", "export"], name)
}

fn insert(name: &str) -> Value {
    right("INSERT", &["write"], name)
}

fn lease(operation: &str, rights: &[Value]) -> Lease {
    let place = format!("credentials.brokers.w.systems.dwh.operations.{operation}");
    serde_json::from_value(
        json!({"operation": operation, "broker": "w", "place": place, "rights": rights}),
    )
    .unwrap()
}

fn analyze(facts: &str, policies: &str, leases: Vec<Lease>) -> PathResults {
    let files: BTreeMap<String, Vec<u8>> = bundle(facts, policies);
    analyze_leases(&files, leases).1
}

fn subjects(results: &PathResults) -> Vec<&str> {
    let proofs = results.proved.iter().filter(|proof| proof.rule == RULE);
    proofs.map(|proof| proof.subject.as_str()).collect()
}

fn only(results: &PathResults) -> &Finding {
    let [finding] = of_rule(results, RULE)[..] else { panic!("{results:#?}") };
    finding
}

#[test]
fn a_lease_that_fits_its_operation_is_proved() {
    let leases = vec![
        lease("dwh.read_orders", &[select("sales.orders")]),
        lease("dwh.add_order", &[insert("sales.orders")]),
    ];
    let results = analyze(FACTS, ALL, leases);
    assert!(of_rule(&results, RULE).is_empty(), "{results:#?}");
    assert_eq!(subjects(&results), ["dwh.read_orders", "dwh.add_order"]);
}

#[test]
fn a_right_without_an_effect_of_the_operation_is_found() {
    let rights = [
        select("sales.orders"),
        insert("sales.orders"),
        right("DELETE", &["delete"], "sales.lines"),
    ];
    let results = analyze(FACTS, ALL, vec![lease("dwh.read_orders", &rights)]);
    let found = of_rule(&results, RULE);
    let [delete, write] = found[..] else { panic!("{results:#?}") };
    assert!(write.message.contains("INSERT on `sales.orders`"), "{}", write.message);
    assert!(delete.message.contains("DELETE on `sales.lines`"), "{}", delete.message);
    assert!(delete.message.contains("operations.dwh.read_orders"), "{}", delete.message);
    for finding in found {
        assert_eq!((finding.verdict, finding.severity), (Finality::PathFound, Severity::Warning));
        let [permitted, done] = finding.path.as_slice() else { panic!("{finding:#?}") };
        assert_eq!((permitted.operation.as_str(), permitted.is_pivot), ("dwh.read_orders", true));
        assert!(done.note.contains("without a question to Authz"), "{done:#?}");
    }
    assert!(subjects(&results).is_empty());
    // A right without an effect is no excess: the use of a schema alone gives nothing.
    let usage = json!({"privilege": "USAGE", "effects": [], "kind": "schema", "name": "sales"});
    let results = analyze(FACTS, ALL, vec![lease("dwh.read_orders", &[usage])]);
    assert!(of_rule(&results, RULE).is_empty(), "{results:#?}");
}

#[test]
fn a_lease_that_covers_a_better_guarded_operation_is_found() {
    let leases = || {
        vec![
            lease("dwh.read_orders", &[select("sales.orders"), select("sales.customers")]),
            lease("dwh.read_customers", &[select("sales.customers")]),
        ]
    };
    // Both are guarded alike.
    assert!(of_rule(&analyze(FACTS, ALL, leases()), RULE).is_empty());
    let of_customers =
        "dwh.read_customers, effects: [read], tier: low, resource: {collection: orders";
    let tier = FACTS.replace(
        of_customers,
        "dwh.read_customers, effects: [read], tier: high, resource: {collection: orders",
    );
    let label = FACTS.replace(
        of_customers,
        "dwh.read_customers, effects: [read], tier: low, resource: {collection: customers",
    );
    let stepup = format!(
        "{ALL}@id(\"held\") @stepup(\"approve\") forbid(principal, action == Action::\"dwh.read_customers\", resource) unless {{ context.satisfied.contains(Kind::\"approve\") }};"
    );
    let clerk = "@id(\"orders\") permit(principal, action == Action::\"dwh.read_orders\", resource);
@id(\"customers\") permit(principal in Role::\"clerk\", action == Action::\"dwh.read_customers\", resource);";
    for (facts, policies, difference) in [
        (tier.as_str(), ALL, "its tier is `high` instead of `low`"),
        (label.as_str(), ALL, "the label `pii`"),
        (FACTS, stepup.as_str(), "the step-up `approve` can hold it"),
        (FACTS, clerk, "is never permitted it"),
    ] {
        let results = analyze(facts, policies, leases());
        let finding = only(&results);
        assert_eq!(finding.verdict, Finality::PathFound, "{finding:#?}");
        assert!(finding.message.contains(difference), "{}", finding.message);
        assert!(finding.message.contains("SELECT on `sales.customers`"), "{}", finding.message);
        let operations: Vec<&str> =
            finding.path.iter().map(|step| step.operation.as_str()).collect();
        assert_eq!(operations, ["dwh.read_orders", "dwh.read_customers"]);
    }
}

#[test]
fn a_lease_covers_another_one_only_with_all_its_rights() {
    let facts = FACTS.replace(
        "dwh.read_customers, effects: [read], tier: low",
        "dwh.read_customers, effects: [read], tier: high",
    );
    let columns = |name: &str, columns: &[&str]| json!({"privilege": "SELECT", "effects": ["read"], "kind": "table", "name": name, "columns": columns});
    let of_database = |name: &str| json!({"privilege": "SELECT", "effects": ["read"], "kind": "table", "name": name, "database": "other"});
    let verdict = |held: Value, needed: &[Value]| {
        let leases = vec![lease("dwh.read_orders", &[held]), lease("dwh.read_customers", needed)];
        let results = analyze(&facts, ALL, leases);
        of_rule(&results, RULE).first().map(|finding| finding.verdict)
    };
    let found = Some(Finality::PathFound);
    let open = Some(Finality::NotDecided);
    assert_eq!(verdict(select("sales.*"), &[select("sales.customers")]), found);
    assert_eq!(verdict(select("sales.*"), &[select("sales.*")]), found);
    assert_eq!(verdict(select("sales.orders"), &[select("sales.*")]), open);
    assert_eq!(verdict(select("hr.*"), &[select("sales.customers")]), None);
    assert_eq!(
        verdict(select("sales.customers"), &[select("sales.customers"), select("sales.x")]),
        None
    );
    assert_eq!(
        verdict(select("sales.customers"), &[right("INSERT", &["read"], "sales.customers")]),
        None
    );
    assert_eq!(verdict(select("s.c"), &[columns("s.c", &["id"])]), found);
    assert_eq!(verdict(columns("s.c", &["id", "name"]), &[columns("s.c", &["id"])]), found);
    assert_eq!(verdict(columns("s.c", &["name"]), &[columns("s.c", &["id"])]), None);
    assert_eq!(verdict(columns("s.c", &["name"]), &[select("s.c")]), open);
    assert_eq!(verdict(of_database("s.c"), &[select("s.c")]), open);
    assert_eq!(verdict(of_database("s.c"), &[of_database("s.c")]), found);
}

#[test]
fn an_operation_that_the_bundle_lacks_is_found() {
    let results = analyze(FACTS, ALL, vec![lease("dwh.gone", &[select("sales.orders")])]);
    let finding = only(&results);
    assert!(finding.message.contains("`dwh.gone`"), "{}", finding.message);
    assert!(finding.path.is_empty());
}

/// The rule `operation-nobody` is about an operation that nobody can call.
#[test]
fn a_lease_that_nobody_gets_is_no_finding() {
    let rights = [insert("sales.orders")];
    let policies =
        "@id(\"other\") permit(principal, action == Action::\"dwh.add_order\", resource);";
    let results = analyze(FACTS, policies, vec![lease("dwh.read_orders", &rights)]);
    assert!(of_rule(&results, RULE).is_empty(), "{results:#?}");
    // A call that the engine does not permit is not decided.
    let policies = format!(
        "{policies}@id(\"odd\") permit(principal, action == Action::\"dwh.read_orders\", resource) when {{ context.session.calls > 1000 }};"
    );
    let results = analyze(FACTS, &policies, vec![lease("dwh.read_orders", &rights)]);
    let finding = only(&results);
    assert_eq!(finding.verdict, Finality::NotDecided);
    assert!(!finding.reason.is_empty(), "{finding:#?}");
}
