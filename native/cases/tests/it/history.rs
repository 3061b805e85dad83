//! Facts of a session that its earlier calls made.

use crate::traces::{compiled, trace};

const FACTS: &str = include_str!("../../../kernel/tests/facts/history.yaml");
const MAY: &str = r#"@id("may") permit(principal in Role::"bots", action, resource);"#;

#[test]
fn calls_count_only_where_a_policy_reads_how_many() {
    let most =
        "@id(\"most\") forbid(principal, action, resource) when { context.session.calls >= 2 };";
    let plan = compiled("{name: a}", FACTS, &format!("{MAY}\n{most}"));
    let steps = "      - {call: crm.status, expect: PERMIT}\n      - {call: crm.get, expect: PERMIT}\n      - {call: crm.status, expect: {outcome: DENY, code: FORBIDDEN}}\n";
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
    let sources =
        "@id(\"one\") forbid(principal, action, resource) when { context.session.sources >= 1 };";
    let plan = compiled("{name: a}", FACTS, &format!("{MAY}\n{sources}"));
    let steps = "      - {call: crm.status, expect: PERMIT}\n      - {call: crm.get, expect: PERMIT}\n      - {call: crm.status, expect: {outcome: DENY, code: FORBIDDEN}}\n";
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
}

#[test]
fn harmless_parts_make_a_whole_that_is_none() {
    let facts = FACTS
        .replace("pii: {kind: confidentiality}", "pii: {kind: confidentiality}, bulk: {kind: confidentiality, derive: {from: pii, resources: 3}}, many: {kind: trust, derive: {from: pii, sources: 2}}")
        .replace("crm: {kind: http, operations: {get: {}, status: {}}}", "hr: {kind: http, operations: {get: {}}}\n  crm: {kind: http, operations: {get: {}, status: {}, one: {input: {type: object, properties: {id: {type: string}}, required: [id]}}}}")
        .replace("  - {match: crm.status,", "  - {match: hr.get, effects: [read], tier: low, yields: [pii]}\n  - {match: crm.one, effects: [read], tier: low, resource: {collection: people, id: /id}}\n  - {match: crm.status,")
        .replace("scope: [{system: crm}", "scope: [{system: hr}, {system: crm}")
        + "resources: {people: {labels: [pii]}}\n";
    let bulk = "@id(\"bulk\") forbid(principal, action == Action::\"crm.status\", resource) when { context.session.labels.contains(Label::\"bulk\") };
@id(\"many\") forbid(principal, action == Action::\"mail.send\", resource) when { context.session.labels.contains(Label::\"many\") };";
    let plan = compiled("{name: a}", &facts, &format!("{MAY}\n{bulk}"));
    let one =
        |id: &str| format!("      - {{call: crm.one, input: {{id: {id}}}, expect: PERMIT}}\n");
    let status = |expect: &str| format!("      - {{call: crm.status, expect: {expect}}}\n");
    let mail =
        |expect: &str| format!("      - {{call: mail.send, input: {{}}, expect: {expect}}}\n");
    let steps = [
        one("a"),
        one("b"),
        one("a"),
        status("PERMIT"),
        mail("PERMIT"),
        "      - {call: hr.get, expect: PERMIT}\n".to_owned(),
        status("{outcome: DENY, code: FORBIDDEN}"),
        mail("{outcome: DENY, code: FORBIDDEN}"),
        one("c"),
    ];
    assert_eq!(Vec::<String>::new(), trace(&plan, &steps.concat()));
}
