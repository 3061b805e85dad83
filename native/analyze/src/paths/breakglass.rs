//! The rules again, with break-glass in force.
//!
//! A policy can accept the exception `breakglass`, which two people put in force at one system. First a fixpoint with break-glass at
//! every system: a rule that it does not reach holds for every number of requests. For the rules that it reaches, traces are
//! searched with break-glass at one system after the other, and then at all of them.

use std::collections::BTreeSet;

use authz_kernel::guards::PolicyGuard;
use authz_kernel::model::{BREAKGLASS, BREAKGLASS_TIER};
use authz_kernel::plan::Plan;
use authz_kernel::schema::OWN_SYSTEM;

use super::findings::{self, PathRule, RuleResult};
use super::guard::Conditions;
use super::runner::{self, CallResult, Trace};
use super::search::{SearchBudget, Target};
use super::taint::Taints;
use super::{
    ASSUMPTIONS, Analysis, EXCEPTION, Finality, Finding, GuardOracle, NotClosed, PathResults,
    PathsInput, Place, Proof, RuleAnswers, SELF_APPROVAL, SelfApproval, Severity, Step,
};
use super::{lifting_kind, subject, text};

/// Systems at which break-glass is searched. A store has at most 16 live requests.
const MOST_SYSTEMS: usize = 16;
/// Caller of the step in which break-glass is put in force.
const PEOPLE: &str = "two people";
/// Assumption of the proofs about break-glass.
const PEOPLE_ASSUMPTION: &str =
    "The two people who put break-glass in force are the subject of no call.";

/// Systems at which break-glass can make a difference: a policy of an operation depends on it.
#[must_use]
pub fn systems(plan: &Plan, conditions: &Conditions<'_>) -> BTreeSet<String> {
    let all = plan.operations().iter().filter(|operation| {
        operation.system != OWN_SYSTEM
            && operation.tier <= BREAKGLASS_TIER
            && conditions.depend_on_breakglass(&operation.id)
    });
    all.map(|operation| operation.system.clone()).collect()
}

/// Whether the answer to a call depends on break-glass.
#[must_use]
pub fn decides(call: &CallResult) -> bool {
    call.decision.breakglass.is_some()
}

/// Systems of the calls of a trace that depend on break-glass.
fn used(trace: &Trace, taints: &Taints<'_>) -> BTreeSet<String> {
    let calls = trace.calls.iter().filter(|call| decides(call));
    let flows = calls.filter_map(|call| taints.flows.get(call.event.flow));
    flows.filter_map(|flow| Some(taints.operation(flow)?.system.clone())).collect()
}

/// The first steps of a trace: people put break-glass in force.
pub(super) fn steps(trace: &Trace, taints: &Taints<'_>) -> Vec<Step> {
    let step = |(at, system): (usize, String)| Step {
        step: at + 1,
        agent: PEOPLE.to_owned(),
        operation: "authz.breakglass".to_owned(),
        outcome: "permit".to_owned(),
        note: format!(
            "one person opens break-glass at `{system}`, and another person confirms it; neither is the subject of a call"
        ),
        resource: system,
        ..Step::default()
    };
    used(trace, taints).into_iter().enumerate().map(step).collect()
}

/// Names of systems for messages.
fn listed(systems: &BTreeSet<String>) -> String {
    let names: Vec<String> = systems.iter().map(|system| format!("`{system}`")).collect();
    names.join(", ")
}

/// Stable name of a finding's subject.
fn subject_of(systems: &BTreeSet<String>, rule: &str) -> String {
    let names: Vec<&str> = systems.iter().map(String::as_str).collect();
    [&[BREAKGLASS][..], &names, &[rule]].concat().join(" ")
}

/// Name of a rule that tells it from others, also of the same kind.
fn name_of(rule: &PathRule) -> String {
    match subject(rule, "").as_str() {
        "bundle" => rule.name.clone(),
        other => format!("{} {other}", rule.name),
    }
}

/// A rule, and its operations that the fixpoint with break-glass reaches and that have no path without it.
struct Candidate<'r> {
    rule: &'r PathRule,
    /// Answers without break-glass.
    without: &'r NotClosed,
    operations: Vec<String>,
    /// Break-glass at one system has a finding.
    has_finding: bool,
}

/// Result of a rule with break-glass at some systems.
enum WithBreakglass {
    Path(Box<Finding>),
    Open(String, String),
    Closed,
}

impl PathsInput {
    /// Looks at each rule with break-glass in force.
    ///
    /// Args: `answers`: the rules without break-glass.
    pub(super) fn with_breakglass(
        &self,
        systems: &BTreeSet<String>,
        answers: &RuleAnswers,
        oracle: &dyn GuardOracle,
        results: &mut PathResults,
    ) {
        let mut candidates = self.with_analysis(oracle, systems, |analysis| {
            let mut unused = PathResults::default();
            Self::unused(analysis, &mut unused);
            for finding in unused.findings {
                results.findings.push(Finding { assumptions: assumptions(), ..finding });
            }
            candidates(answers, analysis)
        });
        for (rule, without) in &answers.rules {
            let is_open = candidates.iter().any(|one| std::ptr::eq(one.rule, rule));
            if !is_open && without.is_empty() {
                results.proved.push(proof(&name_of(rule)));
            }
        }
        let mut is_closed = answers.approvals.is_empty();
        let mut budget = SearchBudget::new(super::MOST_RUNS, super::SEARCH_TIME);
        for system in systems.iter().take(MOST_SYSTEMS) {
            let at: BTreeSet<String> = BTreeSet::from([system.clone()]);
            self.with_analysis(oracle, &at, |analysis| {
                analysis.searcher.budget = budget;
                for candidate in &mut candidates {
                    let found = self.judged(candidate, analysis);
                    candidate.has_finding |= report(found, candidate.rule, &at, results);
                }
                is_closed &= self.approvals_at(&at, &answers.approvals, analysis, results);
                budget = analysis.searcher.budget;
            });
        }
        candidates.retain(|candidate| !candidate.has_finding);
        let is_beyond = systems.len() > MOST_SYSTEMS;
        if is_closed && !is_beyond {
            results.proved.push(proof(SELF_APPROVAL));
        }
        if is_beyond {
            if is_closed {
                let of = (Severity::Warning, Finality::NotDecided);
                let message = "it is not decided whether, with break-glass in force, the subject of a call can answer its step-up";
                let subject = subject_of(systems, SELF_APPROVAL);
                let reason = beyond();
                let finding = Finding::new(EXCEPTION, &subject, of, message);
                results.not_decided += 1;
                results.findings.push(Finding { reason, ..finding });
            }
            for candidate in &candidates {
                let reason = beyond();
                let id = candidate.operations.first().cloned().unwrap_or_default();
                report(WithBreakglass::Open(id, reason), candidate.rule, systems, results);
            }
        } else if !candidates.is_empty() && systems.len() > 1 {
            self.with_analysis(oracle, systems, |analysis| {
                analysis.searcher.budget = budget;
                for candidate in &candidates {
                    let found = self.judged(candidate, analysis);
                    report(found, candidate.rule, systems, results);
                }
            });
        }
    }

    /// Searches a trace of a rule that depends on break-glass.
    fn judged(&self, candidate: &Candidate<'_>, analysis: &mut Analysis<'_, '_>) -> WithBreakglass {
        let mut open = WithBreakglass::Closed;
        let ids = findings::ids(analysis);
        for id in &candidate.operations {
            let Some(index) = ids.get(id) else { continue };
            match analysis.judge(candidate.rule, *index) {
                RuleResult::Closed => {}
                RuleResult::Path(found) => {
                    let (target, trace) = *found;
                    let systems = used(&trace, analysis.taints);
                    // The search without break-glass missed this trace, and says that it is not decided.
                    if systems.is_empty() {
                        continue;
                    }
                    let finding =
                        self.finding(candidate.rule, (id, &systems), (&target, &trace), analysis);
                    return WithBreakglass::Path(Box::new(finding));
                }
                RuleResult::Open(reason) => {
                    if !candidate.without.contains_key(id) && matches!(open, WithBreakglass::Closed)
                    {
                        open = WithBreakglass::Open(id.clone(), reason);
                    }
                }
            }
        }
        open
    }

    fn finding(
        &self,
        rule: &PathRule,
        (id, systems): (&str, &BTreeSet<String>),
        (target, trace): (&Target, &Trace),
        analysis: &Analysis<'_, '_>,
    ) -> Finding {
        let message = format!(
            "with break-glass in force at {}, `{id}` can be called so that {} ({})",
            listed(systems),
            text(rule),
            rule.name
        );
        let conditions = analysis.searcher.conditions;
        let accepts = |policy: &String| {
            let guard = conditions.policies().iter().find(|one| one.id == policy);
            guard.is_some_and(is_accepting)
        };
        let decided = trace.calls.iter().filter(|call| decides(call));
        let places =
            decided.flat_map(|call| call.decision.policies.iter().zip(&call.decision.places));
        let mut accepting = places.filter(|(policy, _)| accepts(policy)).map(|(_, place)| place);
        let location = accepting.next_back().and_then(Place::of);
        let named = PathRule { name: EXCEPTION.to_owned(), ..rule.clone() };
        let finding = self.path(&named, id, (target, trace), analysis);
        let last = trace.calls.last();
        let is_by_permit = last.is_some_and(|call| call.decision.policies.iter().any(accepts));
        // Without break-glass the last call is denied where a permit accepts it, and held where a forbid with a step-up does.
        let expected =
            if is_by_permit || lifting_kind(rule).is_none() { "DENY" } else { "STEP_UP" };
        let case = match finding.case.is_empty() {
            true => String::new(),
            false => {
                let acr = analysis.searcher.runner.acr();
                let name = format!("{EXCEPTION}: {message}");
                runner::case(analysis.taints, &self.plan, &name, trace, expected, acr)
            }
        };
        Finding {
            id: crate::report::finding_id(EXCEPTION, &subject_of(systems, &name_of(rule))),
            severity: Severity::Warning,
            location: location.or(finding.location.clone()),
            message,
            cut: None,
            case,
            ..finding
        }
    }

    /// Approvals of calls that break-glass at a system opens. Returns whether none can be answered by its asker.
    fn approvals_at(
        &self,
        at: &BTreeSet<String>,
        without: &NotClosed,
        analysis: &mut Analysis<'_, '_>,
        results: &mut PathResults,
    ) -> bool {
        let mut is_closed = true;
        for (id, index) in findings::ids(analysis) {
            let operation = self.plan.model().operation(&id);
            let is_at = operation.is_some_and(|operation| at.contains(&operation.system));
            let depends = analysis.searcher.conditions.depend_on_breakglass(&id);
            if !is_at || !depends || without.contains_key(&id) {
                continue;
            }
            let name = format!("{SELF_APPROVAL} {id}");
            let subject = subject_of(at, &name);
            let finding = match analysis.approves_itself(&id, index) {
                SelfApproval::Closed => continue,
                SelfApproval::Path { message, path } => {
                    let of = (Severity::Warning, Finality::PathFound);
                    let message = format!("with break-glass in force at {}, {message}", listed(at));
                    Finding { path, ..Finding::new(EXCEPTION, &subject, of, message) }
                }
                SelfApproval::Open(reason) => {
                    results.not_decided += 1;
                    let of = (Severity::Warning, Finality::NotDecided);
                    let message = format!(
                        "it is not decided whether, with break-glass in force at {}, the subject of a call of `{id}` can answer its step-up",
                        listed(at)
                    );
                    Finding { reason, ..Finding::new(EXCEPTION, &subject, of, message) }
                }
            };
            is_closed = false;
            results.findings.push(finding);
        }
        is_closed
    }
}

/// Reason of a bundle with more systems than are searched.
fn beyond() -> String {
    format!("policies of more than {MOST_SYSTEMS} systems depend on break-glass")
}

/// Whether a policy accepts break-glass by its name.
fn is_accepting(guard: &PolicyGuard<'_>) -> bool {
    guard.names.iter().any(|(_, name)| *name == BREAKGLASS)
}

/// Rules whose operations the fixpoint with break-glass reaches.
fn candidates<'r>(answers: &'r RuleAnswers, analysis: &mut Analysis<'_, '_>) -> Vec<Candidate<'r>> {
    analysis.is_searching = false;
    let ids = findings::ids(analysis);
    let mut all = Vec::new();
    for (rule, without) in &answers.rules {
        let mut operations = Vec::new();
        for (id, index) in &ids {
            // A call that is possible without break-glass has its own finding.
            let has_path = without.get(id) == Some(&Finality::PathFound);
            if !has_path && !matches!(analysis.judge(rule, *index), RuleResult::Closed) {
                operations.push(id.clone());
            }
        }
        if !operations.is_empty() {
            all.push(Candidate { rule, without, operations, has_finding: false });
        }
    }
    all
}

/// Adds a finding to the results. Returns whether there is one.
fn report(
    found: WithBreakglass,
    rule: &PathRule,
    at: &BTreeSet<String>,
    results: &mut PathResults,
) -> bool {
    let finding = match found {
        WithBreakglass::Closed => return false,
        WithBreakglass::Path(finding) => *finding,
        WithBreakglass::Open(id, reason) => {
            results.not_decided += 1;
            let of = (Severity::Warning, Finality::NotDecided);
            let message = format!(
                "it is not decided whether, with break-glass in force at {}, `{id}` can be called so that {} ({})",
                listed(at),
                text(rule),
                rule.name
            );
            let subject = subject_of(at, &name_of(rule));
            Finding {
                reason,
                location: Place::of(&rule.at),
                ..Finding::new(EXCEPTION, &subject, of, message)
            }
        }
    };
    results.findings.push(finding);
    true
}

fn proof(rule: &str) -> Proof {
    Proof {
        rule: EXCEPTION.to_owned(),
        subject: format!("{BREAKGLASS} {rule}"),
        assumptions: assumptions(),
    }
}

/// Facts that the proofs about break-glass take for true.
fn assumptions() -> Vec<String> {
    ASSUMPTIONS.into_iter().chain([PEOPLE_ASSUMPTION]).map(str::to_owned).collect()
}
