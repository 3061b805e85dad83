//! Warnings of `authz check` about step-ups that nobody can answer.

use authz_kernel::lint::LintFacts;

use crate::history::compiled;

const FACTS: &str = "
agents:
  bot: ['spiffe://a.example/ns/support/sa/bot']
subjects:
  staff: {issuer: corp, claim: groups, contains: employees}
  boss: {issuer: partner, claim: groups, contains: bosses}
catalog:
  bank: {kind: http, origin: 'https://bank.example', operations: {pay: {}, read: {}}}
classify:
  - {match: bank.pay, effects: [write], tier: standard}
  - {match: bank.read, effects: [read], tier: low}
";
const WORK: &str = r#"
@id("bots") permit(principal in Role::"bot", action in Action::"system:bank", resource);
@id("people") permit(principal in Role::"staff", action in Action::"system:bank", resource);
"#;

/// Warnings about answers, for policies besides those of the work.
fn warnings(facts: &str, policies: &str) -> Vec<String> {
    let plan = compiled(
        "{name: a, tasks: optional}",
        &format!("{FACTS}\n{facts}"),
        &format!("{WORK}\n{policies}"),
    )
    .unwrap();
    let found = plan.lint(&LintFacts::default());
    let texts = found.iter().map(ToString::to_string);
    texts
        .filter(|text| text.contains("nobody can answer") || text.contains("authz.approve"))
        .collect()
}

fn asks(kind: &str) -> String {
    format!(
        r#"@id("asks") @stepup("{kind}") forbid(principal, action == Action::"bank.pay", resource)
           unless {{ context.satisfied.contains(Kind::"{kind}") }};"#
    )
}

fn answers(who: &str, condition: &str) -> String {
    format!(
        r#"@id("answers") permit({who}, action == Action::"authz.approve", resource) when {{ {condition} }};"#
    )
}

#[test]
fn a_kind_without_a_permit_gets_a_warning() {
    for kind in ["approve", "two_person", "approve:boss"] {
        let found = warnings("", &asks(kind));
        assert_eq!(1, found.len(), "{kind}: {found:?}");
        let wanted = format!("nobody can answer the step-up `{kind}` of the forbid `asks`");
        assert!(found[0].contains(&wanted), "{found:?}");
        assert!(found[0].contains(r#"action == Action::"authz.approve""#), "{found:?}");
        let all = answers("principal", "true");
        assert_eq!(Vec::<String>::new(), warnings("", &format!("{}{all}", asks(kind))));
    }
    assert_eq!(Vec::<String>::new(), warnings("", ""), "nobody is asked");
    let second = asks("approve").replace("\"asks\"", "\"asks-again\"");
    let both = format!("{}{second}", asks("approve"));
    assert_eq!(2, warnings("", &both).len(), "each rule is told");
    let answered = format!("{both}{}", answers("principal", "true"));
    assert_eq!(Vec::<String>::new(), warnings("", &answered), "one permit answers both");
}

/// A permit counts for the queue, the system and the role that it names.
#[test]
fn a_permit_is_judged_with_the_arguments_of_the_answer() {
    let count = |kind: &str, who: &str, condition: &str| {
        warnings("", &format!("{}{}", asks(kind), answers(who, condition))).len()
    };
    let staff = r#"principal in Role::"staff""#;
    let boss = r#"principal in Role::"boss""#;
    assert_eq!(0, count("approve", staff, r#"context.input.queue == "approve""#));
    assert_eq!(1, count("two_person", staff, r#"context.input.queue == "approve""#));
    assert_eq!(0, count("approve", staff, r#"context.input.system == "bank""#));
    assert_eq!(1, count("approve", staff, r#"context.input.system == "crm""#));
    assert_eq!(1, count("approve", staff, r#"context.input.operation == "bank.read""#));
    assert_eq!(0, count("approve", staff, r#"context.input.tier == "high""#), "it may rise");
    assert_eq!(1, count("approve", staff, r#"context.input.tier == "low""#));
    assert_eq!(0, count("approve:boss", boss, "true"));
    assert_eq!(1, count("approve:boss", staff, "true"), "staff are in no queue of bosses");
    assert_eq!(
        1,
        count("approve", r#"principal in Role::"bot""#, "true"),
        "an agent answers nothing"
    );
    assert_eq!(
        0,
        count("approve", staff, r#"context.time < datetime("2000-01-01")"#),
        "at some time"
    );
    let forbids = r#"@id("never") forbid(principal, action == Action::"authz.approve", resource);"#;
    let found =
        warnings("", &format!("{}{}{forbids}", asks("approve"), answers("principal", "true")));
    assert_eq!(1, found.len(), "{found:?}");
}

/// The people of a queue of a role are those of the role, and its deputies.
#[test]
fn a_queue_of_a_role_needs_people() {
    let policies = format!("{}{}", asks("approve:bot"), answers("principal", "true"));
    let found = warnings("", &policies);
    assert!(found[0].contains("no person has the role `bot`"), "{found:?}");
    let deputies =
        format!("{}{}", asks("approve:boss"), answers(r#"principal in Role::"staff""#, "true"));
    let rules = "approvals: {queues: {approve:boss: {escalate_after: 1h, deputies: staff}}}";
    assert_eq!((1, 0), (warnings("", &deputies).len(), warnings(rules, &deputies).len()));
}

/// The user answers `confirm` by itself. Where an agent acts without one, `confirm_without_person` needs people.
#[test]
fn a_confirmation_needs_people_where_no_user_is() {
    let alone = warnings("", &asks("confirm"));
    assert_eq!(1, alone.len(), "{alone:?}");
    assert!(
        alone[0].contains("`confirm` of the forbid `asks` where an agent acts without a user: `confirm_without_person` is `approve`"),
        "{alone:?}"
    );
    let people = format!("{}{}", asks("confirm"), answers("principal", "true"));
    assert_eq!(0, warnings("", &people).len());
}

/// A tier that needs approval asks people as a policy does, if an operation is of that tier.
#[test]
fn a_tier_asks_people() {
    let tiers = "tiers: {standard: {approval: approve}}";
    let found = warnings(tiers, "");
    assert_eq!(1, found.len(), "{found:?}");
    assert!(found[0].contains("the step-up `approve` of the tier `standard`"), "{found:?}");
    assert_eq!(0, warnings("tiers: {critical: {approval: two_person}}", "").len(), "no operation");
    assert_eq!(0, warnings(tiers, &answers("principal", "true")).len());
}

/// A permit without an action lets its people approve, which its author may not intend.
#[test]
fn a_permit_without_an_action_gets_a_hint() {
    let wide = r#"@id("wide") permit(principal in Role::"staff", action, resource);"#;
    let found = warnings("", &format!("{}{wide}", asks("approve")));
    assert_eq!(1, found.len(), "{found:?}");
    assert!(
        found[0].contains("the permit `wide` names no action, so it permits `authz.approve`"),
        "{found:?}"
    );
    assert_eq!(0, warnings("", wide).len(), "nobody is asked");
    let of_agents = r#"@id("wide") permit(principal in Role::"bot", action, resource);"#;
    let named = answers(r#"principal in Role::"staff""#, "true");
    assert_eq!(0, warnings("", &format!("{}{of_agents}{named}", asks("approve"))).len());
}
