//! A held call of which people are taken to have met the step-up.

use std::collections::BTreeMap;

use authz_cases::run;

use crate::traces::{NOW, compiled, trace};

const FACTS: &str = "
agents: {bots: ['spiffe://a.example/ns/desk/sa/*']}
labels: {seen: {kind: trust}}
tiers: {critical: {bound: false, approval: approve}}
catalog:
  crm:
    kind: http
    operations:
      read: {input: {type: object, properties: {}}}
      pay: {input: {type: object, properties: {amount: {type: integer}}}}
      wipe: {input: {type: object, properties: {}}}
classify:
  - {match: crm.read, effects: [read], tier: low, yields: [seen]}
  - {match: crm.pay, effects: [write], tier: low}
  - {match: crm.wipe, effects: [delete], tier: critical}
templates:
  desk: {purpose: work, deadline: 30m, starters: [bots], tier_cap: critical, scope: [{system: crm}]}
";
const POLICIES: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("never") forbid(principal, action == Action::"crm.pay", resource)
when { context.input has amount && context.input.amount > 1000 };
@id("ask") @stepup("confirm") forbid(principal, action in [Action::"crm.read", Action::"crm.wipe"], resource)
unless { context.satisfied.contains(Kind::"confirm") };
@id("seen") @stepup("approve") forbid(principal, action == Action::"crm.pay", resource)
when { context.session.labels.contains(Label::"seen") }
unless { context.satisfied.contains(Kind::"approve") };
"#;

#[test]
fn a_call_runs_where_every_kind_was_met_and_counts_as_a_permit() {
    let plan = compiled("{name: a, taskless_tier: critical}", FACTS, POLICIES);
    let steps = "      - {call: crm.pay, input: {amount: 1}, expect: PERMIT}
      - {call: crm.read, input: {}, expect: {outcome: STEP_UP, kinds: [confirm]}}
      - {call: crm.read, input: {}, as: {agent: bot, satisfied: [approve]}, expect: {outcome: STEP_UP, kinds: [confirm]}}
      - {call: crm.pay, input: {amount: 2}, expect: PERMIT}
      - {call: crm.read, input: {}, as: {agent: bot, satisfied: [confirm]}, expect: PERMIT}
      - {call: crm.pay, input: {amount: 3}, expect: {outcome: STEP_UP, kinds: [approve]}}
      - {call: crm.pay, input: {amount: 4}, as: {agent: bot, satisfied: [approve]}, expect: PERMIT}
      - {call: crm.pay, input: {amount: 5}, expect: {outcome: STEP_UP, kinds: [approve]}}
      - {call: crm.wipe, input: {}, expect: {outcome: STEP_UP, kinds: [approve, confirm]}}
      - {call: crm.wipe, input: {}, as: {agent: bot, satisfied: [confirm]}, expect: {outcome: STEP_UP, kinds: [approve]}}
      - {call: crm.wipe, input: {}, as: {agent: bot, satisfied: [confirm, approve]}, expect: PERMIT}\n";
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
}

#[test]
fn what_is_denied_stays_denied() {
    let plan = compiled("{name: a, taskless_tier: critical}", FACTS, POLICIES);
    let all = "[confirm, approve, two_person, 'approve:bots']";
    let steps = format!(
        "      - {{call: crm.pay, input: {{amount: 1001}}, as: {{agent: bot, satisfied: {all}}}, expect: {{outcome: DENY, code: FORBIDDEN}}}}\n"
    );
    assert_eq!(Vec::<String>::new(), trace(&plan, &steps));
}

#[test]
fn people_do_not_prove_a_credential() {
    let plan = compiled("{name: a, taskless_tier: critical}", FACTS, POLICIES);
    for kind in ["bound_token", "reauth:gold", "approve:", "yes"] {
        let text = format!(
            "fixtures: {{agents: {{bot: 'spiffe://a.example/ns/desk/sa/bot'}}}}\n\
             tests:\n  - case: c\n    as: {{agent: bot, satisfied: [confirm, '{kind}']}}\n    call: crm.read\n    expect: DENY\n"
        );
        let files = BTreeMap::from([("t.yaml".to_owned(), text.into_bytes())]);
        let report = run(&plan, &files, NOW);
        let told: Vec<&str> = report.failed.iter().map(|one| one.message.as_str()).collect();
        let expected = format!("people do not meet a step-up of the kind `{kind}`");
        assert!(matches!(told.as_slice(), [only] if only.contains(&expected)), "{told:?}");
    }
}
