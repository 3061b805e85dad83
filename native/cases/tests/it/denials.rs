//! Runs of denials end a task.

use crate::traces::{compiled, trace};

const FACTS: &str = include_str!("../../../kernel/tests/facts/denials.yaml");
const POLICIES: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("not-yours") forbid(principal, action == Action::"crm.get", resource)
when { context.input has id && context.input.id != "own" && context.input.id != "ask" };
@id("ask") @stepup("confirm") forbid(principal, action == Action::"crm.get", resource)
when { context.input has id && context.input.id == "ask" } unless { context.satisfied.contains(Kind::"confirm") };
"#;

#[test]
fn the_last_of_too_many_ends_the_task() {
    let plan = compiled("{name: a, taskless_tier: low}", FACTS, POLICIES);
    let steps = "      - {call: crm.get, input: {id: own}, expect: PERMIT}
      - {call: crm.get, input: {id: a}, expect: DENY}
      - {call: crm.get, input: {id: b}, expect: DENY}
      - {call: crm.get, input: {id: b}, expect: {outcome: DENY, tier: TIER_STANDARD}}
      - {call: crm.get, input: {id: c}, expect: {outcome: DENY, code: FORBIDDEN}}
      - {call: crm.get, input: {id: own}, expect: {outcome: DENY, code: REVOKED}}\n";
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
}
