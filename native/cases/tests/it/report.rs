//! Reports of what came of calls.

use std::sync::Arc;

use authz_kernel::plan::Plan;

use crate::traces::{compiled, trace};

const FACTS: &str = include_str!("../../../kernel/tests/facts/report.yaml");
const MAY: &str = r#"
@id("may") permit(principal in Role::"bots", action, resource);
@id("flow") @stepup("approve") forbid(principal, action, resource)
when { !context.uncleared_labels.isEmpty() } unless { context.satisfied.contains(Kind::"approve") };
@id("order") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"look-first") };
@id("after") forbid(principal, action, resource) when { context.sequences.contains(Sequence::"looked") };
@id("trust") forbid(principal, action == Action::"crm.delete", resource)
when { context.session.labels.contains(Label::"untrusted") };
"#;

fn plan() -> Arc<Plan> {
    compiled("{name: a}", FACTS, MAY)
}

#[test]
fn a_trace_tells_what_came_of_its_calls() {
    let plan = plan();
    let steps = r#"
      - {call: crm.list, expect: PERMIT}
      - {call: crm.delete, expect: {outcome: DENY, policies: [order, trust]}}
      - {report: {of: 1}, expect: OK}
      - {report: {of: 1}, expect: NOT_PERMITTED}
      - {call: crm.delete, expect: PERMIT}
      - {call: crm.get, input: {id: "1"}, expect: PERMIT}
      - {report: {labels: [untrusted]}, expect: BAD_INPUT}
      - {report: {result: failed}, expect: OK}
      - {call: crm.pay, input: {n: 100}, expect: PERMIT}
      - {call: crm.pay, input: {n: 1}, expect: {outcome: DENY, code: BUDGET_EXCEEDED}}
      - {report: {of: 9, result: ok, actuals: {money: 200}}, expect: BAD_INPUT}
      - {report: {of: 9, result: failed}, expect: OK}
      - {call: crm.pay, input: {n: 100}, expect: PERMIT}
      - {call: mail.get, expect: PERMIT}
      - {report: {}, expect: ENFORCER_REFUSED}
      - {report: {of: 2}, expect: NOT_PERMITTED}
"#;
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
}

/// It sees whether something was done, and not what came of it: only where nothing was tried nothing came.
#[test]
fn an_access_log_names_no_labels() {
    let steps = |code: &str| {
        format!(
            r#"
      - {{call: crm.list, expect: PERMIT}}
      - {{report: {{result: ok}}, expect: OK}}
      - {{call: crm.delete, expect: {code}}}
"#
        )
    };
    let plan = plan();
    assert_eq!(Vec::<String>::new(), trace(&plan, &steps("PERMIT")));
    let facts = FACTS.replace("reports: sdk", "reports: access_log");
    let plan = compiled("{name: a}", &facts, MAY);
    assert_eq!(Vec::<String>::new(), trace(&plan, &steps("{outcome: DENY, policies: [trust]}")));
    let steps = r#"
      - {call: crm.list, expect: PERMIT}
      - {report: {labels: [untrusted]}, expect: BAD_INPUT}
      - {report: {result: failed}, expect: OK}
      - {call: crm.delete, expect: {outcome: DENY, policies: [order, trust]}}
      - {call: crm.pay, input: {n: 100}, expect: PERMIT}
      - {report: {actuals: {money: 1}}, expect: BAD_INPUT}
      - {report: {result: aborted}, expect: OK}
      - {call: crm.pay, input: {n: 100}, expect: PERMIT}
"#;
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
    let steps = r#"
      - {call: crm.list, expect: PERMIT}
      - {report: {result: aborted}, expect: OK}
      - {call: crm.delete, expect: {outcome: DENY, policies: [order]}}
"#;
    assert_eq!(Vec::<String>::new(), trace(&plan, steps));
}
