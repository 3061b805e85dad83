//! Budgets of which policy says what follows.

use std::sync::Arc;

use authz_kernel::plan::Plan;

use crate::traces::{compiled, trace};

const OPERATION: &str = "{input: {type: object, properties: {amount: {type: integer}, to: {type: array, items: {type: integer}}}, required: [amount]}}";

fn bundle(budgets: &str, policies: &str) -> Arc<Plan> {
    let facts = format!(
        "agents: {{bots: ['spiffe://a.example/ns/desk/sa/*']}}\n\
         catalog: {{s: {{kind: http, operations: {{o0: {OPERATION}, o1: {OPERATION}, o2: {OPERATION}}}}}}}\n\
         classify: [{{match: 's.*', effects: [read], tier: low}}]\n\
         budgets:\n{budgets}\
         templates: {{desk: {{purpose: work, deadline: 24h, starters: [bots], scope: [{{system: s}}]}}}}\n"
    );
    let may = "@id(\"may\") permit(principal, action, resource);";
    compiled("{name: a, tasks: optional}", &facts, &format!("{may}\n{policies}"))
}

#[test]
fn policy_may_say_what_follows() {
    let stepup = "@id(\"b\") @stepup(\"approve\") forbid(principal, action == Action::\"s.o0\", resource)
when { context.budgets.contains(Budget::\"b\") } unless { context.satisfied.contains(Kind::\"approve\") };";
    let plan = bundle("  b: {count: s.o0, most: 1, then: policy}\n", stepup);
    let steps = "      - {call: s.o0, input: {amount: 1}, expect: PERMIT}\n      - {call: s.o0, input: {amount: 1}, expect: {outcome: STEP_UP, kinds: [approve]}}\n";
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
}

#[test]
fn policy_lets_no_amount_below_nothing_through() {
    let always = "@id(\"b\") @stepup(\"confirm\") forbid(principal, action == Action::\"s.o0\", resource)
when { context.budgets.contains(Budget::\"b\") && context.input.amount > 100 } unless { context.satisfied.contains(Kind::\"confirm\") };";
    let plan = bundle("  b: {sum: /amount, of: s.o0, most: 10, then: policy}\n", always);
    let steps = "      - {call: s.o0, input: {amount: 11}, expect: PERMIT}\n      - {call: s.o0, input: {amount: -1}, expect: {outcome: DENY, code: BUDGET_EXCEEDED}}\n";
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
}
