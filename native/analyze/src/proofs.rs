//! Findings about each policy and each operation, by proof.
//!
//! A rule asks about each *environment*: one operation that the policy can match, and one type of principal. Environments whose
//! conditions read the same parts of a request are one question. Requests that earlier questions brought up answer many later
//! ones without the solver: a policy that fired for one of them matches somewhere.

mod policies;
mod witnesses;

use authz_kernel::decision::PolicyEffect;
use authz_kernel::plan::Plan;
use authz_kernel::schema::OWN_SYSTEM;

use crate::guards::{Counterexample, GuardAnswer, Guards, PRINCIPAL_TYPES};
use crate::report::{
    BundleName, Counts, Finality, Finding, Place, Proof, Report, Severity, SolverName, Step,
    SuppressionEntry, VERSION,
};
use crate::solver::{OnceSolver, Solver as _};
use witnesses::Witnesses;

/// A policy matches no request.
pub const NEVER_MATCHES: &str = "policy-never-matches";
/// The conditions of a policy hold for every request in its scope.
pub const ALWAYS_MATCHES: &str = "policy-always-matches";
/// A policy can fail to evaluate.
pub const MAY_ERROR: &str = "policy-may-error";
/// Another policy covers each request of a policy with the same effect.
pub const REDUNDANT: &str = "policy-redundant";
/// Forbids cover each request of a permit.
pub const VOIDED: &str = "policy-voided";
/// No request for an operation can be permitted.
pub const NOBODY: &str = "operation-nobody";

/// Facts that every proof takes for true.
#[must_use]
pub fn assumptions(solver: Option<&(String, String)>) -> Vec<String> {
    let Some((name, version)) = solver else { return Vec::new() };
    vec![
        format!("cedar-policy-symcc 0.8.1 and {name} {version} answer correctly."),
        "`mode` enforces: its entries can let a denied call through.".to_owned(),
    ]
}

/// Analyzes a bundle.
#[must_use]
pub fn analyze(plan: &Plan, solver: &OnceSolver<'_>) -> Report {
    let guards = Guards::new(plan, solver);
    let mut results = prove(&guards);
    let name = solver.name();
    let counts = solver.counts();
    let mut report = Report {
        version: VERSION,
        bundle: BundleName::of(plan),
        solver: name.map(|(name, version)| SolverName { name, version }),
        counts: Counts {
            policies: guards.policies().len(),
            operations: guards.operations().len(),
            principals: 0,
            assertions: 0,
            questions: counts.asked,
            questions_cached: counts.kept,
            not_decided: counts.unknown,
        },
        findings: std::mem::take(&mut results.findings),
        proved: std::mem::take(&mut results.proved),
        suppressions: SuppressionEntry::all(plan),
    };
    report.sort();
    report
}

/// Findings, and rules that hold.
#[derive(Debug, Default)]
pub struct Results {
    /// Findings.
    pub findings: Vec<Finding>,
    /// Rules that hold.
    pub proved: Vec<Proof>,
    /// Facts that each proof takes for true.
    assumptions: Vec<String>,
}

impl Results {
    fn holds(&mut self, rule: &str, subject: &str) {
        self.proved.push(Proof {
            rule: rule.to_owned(),
            subject: subject.to_owned(),
            assumptions: self.assumptions.clone(),
        });
    }

    fn proved(&mut self, finding: Finding) {
        self.findings.push(Finding { assumptions: self.assumptions.clone(), ..finding });
    }
}

/// Proves the rules of each policy and each operation.
#[must_use]
pub fn prove(guards: &Guards<'_>) -> Results {
    let mut results =
        Results { assumptions: assumptions(guards.solver_name().as_ref()), ..Results::default() };
    let mut witnesses = Witnesses::default();
    operations(guards, &mut witnesses, &mut results);
    policies::prove(guards, &mut witnesses, &mut results);
    results
}

/// Operations that nobody can be permitted.
fn operations(guards: &Guards<'_>, witnesses: &mut Witnesses, results: &mut Results) {
    // Authz's own operations are for administrators: most bundles permit few of them.
    let own = |id: &&str| {
        guards.operations().get(id).is_some_and(|one| one.operation.system == OWN_SYSTEM)
    };
    let ids: Vec<&str> = guards.operations().keys().copied().filter(|id| !own(id)).collect();
    let questions: Vec<_> = ids
        .iter()
        .flat_map(|id| PRINCIPAL_TYPES.map(|kind| guards.permission(id, kind, "")))
        .collect();
    let mut answers = guards.ask_all(&questions).into_iter();
    for id in ids {
        let mut unknown = None;
        let mut is_permitted = false;
        for answer in answers.by_ref().take(PRINCIPAL_TYPES.len()) {
            match answer {
                GuardAnswer::Satisfiable(example) => {
                    is_permitted = true;
                    witnesses.add(*example);
                }
                GuardAnswer::Unknown(reason) => unknown = Some(reason),
                GuardAnswer::Unsatisfiable => {}
            }
        }
        let location = guards.operations().get(id).and_then(|one| Place::of(&one.operation.at));
        match unknown {
            _ if is_permitted => results.holds(NOBODY, id),
            None => {
                let message = match guards.slice(id, PolicyEffect::Permit).is_empty() {
                    true => format!("nobody can be permitted `{id}`: no permit covers it"),
                    false => {
                        format!(
                            "nobody can be permitted `{id}`: where a permit fires, a forbid does too"
                        )
                    }
                };
                let of = (Severity::Warning, Finality::Proved);
                results.proved(Finding { location, ..Finding::new(NOBODY, id, of, message) });
            }
            Some(reason) => {
                let message = format!("it is not decided whether anybody can be permitted `{id}`");
                let of = (Severity::of_open(NOBODY), Finality::NotDecided);
                results.findings.push(Finding {
                    reason,
                    location,
                    ..Finding::new(NOBODY, id, of, message)
                });
            }
        }
    }
}

/// A counterexample as the one step of a trace.
#[must_use]
pub fn step(example: &Counterexample, rules: Vec<String>, note: String) -> Step {
    let text = |name: &str| {
        let value = example.document.get(name).and_then(serde_json::Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let input = example.document.pointer("/context/input").cloned().unwrap_or_default();
    let principal = example.request.principal();
    let id = principal.map(|uid| uid.id().unescaped().to_owned()).unwrap_or_default();
    let is_agent = principal.is_some_and(|uid| uid.type_name().basename() == "Agent");
    let (agent, subject) = if is_agent { (id, String::new()) } else { (String::new(), id) };
    Step {
        step: 1,
        agent,
        subject,
        operation: example.operation.clone(),
        input,
        resource: text("resource"),
        rules,
        is_pivot: true,
        note,
        request: example.document.clone(),
        ..Step::default()
    }
}
