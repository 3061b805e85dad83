//! Random policies: the solver must not prove that a call is impossible where the kernel permits it for one of a few hundred requests.

use authz_analyze::guards::{GuardAnswer, Guards};
use authz_analyze::solver::OnceSolver;
use authz_kernel::decision::{PolicyEffect, Verdict};
use authz_kernel::plan::Plan;
use cedar_policy::{Context, Entities, Request};
use serde_json::{Value, json};

use crate::bundles::{SOLVER, plan};

/// Sets of policies. Each has one question to the analyzer, and 324 requests to the kernel.
const SETS: u64 = 40;
const NUMBERS: [i64; 9] = [i64::MIN, -2, -1, 0, 1, 2, 3, 4, i64::MAX];

/// Numbers of a seed (Knuth's MMIX generator): the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn atom(&mut self) -> String {
        let number = self.one_of(&[-1, 0, 1, 2, 3]);
        let argument = self.one_of(&["amount", "fee"]);
        match self.below(5) {
            0 => format!("context.input.{argument} < {number}"),
            1 => format!("context.input.{argument} == {number}"),
            // Overflows for some arguments.
            2 => format!("context.input.amount + context.input.fee > {number}"),
            3 => format!(
                "context.session.labels.contains(Label::\"{}\")",
                self.one_of(&["pii", "untrusted"])
            ),
            _ => "context.session.labels.isEmpty()".to_owned(),
        }
    }

    fn condition(&mut self) -> String {
        let (one, other) = (self.atom(), self.atom());
        let one = if self.below(3) == 0 { format!("!({one})") } else { one };
        match self.below(3) {
            0 => one,
            1 => format!("({one}) && ({other})"),
            _ => format!("({one}) || ({other})"),
        }
    }

    fn policies(&mut self) -> String {
        let mut text = String::new();
        for number in 0..2 + self.below(3) {
            let effect = if number == 0 || self.below(4) == 0 { "permit" } else { "forbid" };
            text += &format!(
                "@id(\"p{number}\") {effect}(principal, action == Action::\"billing.pay\", resource)\nwhen {{ {} }};\n",
                self.condition()
            );
        }
        text
    }
}

fn contexts() -> Vec<Value> {
    let label = |name: &str| json!({"__entity": {"type": "Label", "id": name}});
    let sets = [
        json!([]),
        json!([label("pii")]),
        json!([label("untrusted")]),
        json!([label("pii"), label("untrusted")]),
    ];
    let mut all = Vec::new();
    for amount in NUMBERS {
        for fee in NUMBERS {
            for labels in &sets {
                all.push(json!({
                    "input": {"amount": amount, "fee": fee},
                    "session": {"labels": labels, "sources": 0, "calls": 0},
                }));
            }
        }
    }
    all
}

/// Whether one of the requests is permitted, as the kernel judges each policy.
fn is_permitted(plan: &Plan, contexts: &[Value]) -> bool {
    let policies = plan.policy_guards();
    contexts.iter().any(|context| {
        let context = Context::from_json_value(context.clone(), None).unwrap();
        let uid = |text: &str| text.parse().unwrap();
        let request = Request::new(
            uid("Agent::\"bot\""),
            uid("Action::\"billing.pay\""),
            uid("System::\"billing\""),
            context,
            None,
        );
        let verdicts =
            plan.judge_stated("billing.pay", &request.unwrap(), &Entities::empty()).unwrap();
        let is = |at: &usize, effect| policies.get(*at).is_some_and(|one| one.effect == effect);
        let mut permits = verdicts.iter().filter(|(at, _)| is(at, PolicyEffect::Permit));
        let mut forbids = verdicts.iter().filter(|(at, _)| is(at, PolicyEffect::Forbid));
        permits.any(|(_, verdict)| *verdict == Verdict::Fired)
            && forbids.all(|(_, verdict)| *verdict == Verdict::NotFired)
    })
}

#[test]
fn a_call_that_the_kernel_permits_is_not_proved_impossible() {
    let contexts = contexts();
    let (mut permitted, mut proved) = (0, 0);
    for seed in 0..SETS {
        let text = Numbers(seed).policies();
        let plan = plan(&text);
        let once = OnceSolver::new(&*SOLVER, None);
        let answer = Guards::new(&plan, &once).can_be_permitted("billing.pay", "Agent", "");
        match (is_permitted(&plan, &contexts), answer) {
            // The kernel confirmed the request of each satisfiable answer.
            (is_shown, GuardAnswer::Satisfiable(_)) => permitted += usize::from(is_shown),
            (false, GuardAnswer::Unsatisfiable) => proved += 1,
            (is_shown, answer) => panic!("seed {seed}, {is_shown}: {answer:?}\n{text}"),
        }
    }
    // Both occur, so that the comparison says something.
    assert!(permitted > 5 && proved > 1, "{permitted} permitted, {proved} proved");
}
