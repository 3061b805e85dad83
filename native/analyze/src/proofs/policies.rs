//! Rules about one policy, and about two.

use std::collections::BTreeSet;

use authz_kernel::decision::{PolicyEffect, Verdict};
use authz_kernel::guards::PolicyGuard;

use super::witnesses::{Witness, Witnesses};
use super::{ALWAYS_MATCHES, MAY_ERROR, NEVER_MATCHES, REDUNDANT, Results, VOIDED, step};
use crate::guards::{
    Conjunction, Counterexample, GuardAnswer, GuardQuestion, Guards, PRINCIPAL_TYPES, Part,
};
use crate::report::{Finality, Finding, Place, Severity};
use crate::solver::Relation;

/// Questions of one rule that are asked at once. The first satisfiable answer ends the rule.
const BATCH: usize = 24;

/// Outcome of a rule over all environments of a policy.
enum Outcome {
    /// No environment has such a request.
    Proved,
    /// This request.
    Found(Box<Counterexample>),
    /// Not decided in some environment, and found in none.
    NotDecided(String),
}

/// Proves the rules of each policy.
pub(super) fn prove(guards: &Guards<'_>, witnesses: &mut Witnesses, results: &mut Results) {
    let covered = operations_of(guards);
    let all: Vec<Subject<'_>> = guards
        .policies()
        .iter()
        .zip(&covered)
        .enumerate()
        .map(|(at, (policy, operations))| Subject { at, policy, operations })
        .collect();
    let mut matching: BTreeSet<usize> = BTreeSet::new();
    for subject in &all {
        // No operation has the policy among those that decide. Without an operation every rule would count as proved.
        if subject.policy.observed_until_ms.is_some() {
            let reason = "the policy is only observed, so that it decides about no request";
            let finding =
                subject.not_decided(NEVER_MATCHES, "matches a request", reason.to_owned());
            results.findings.push(finding);
            continue;
        }
        let is_matched = never_matches(guards, subject, witnesses, results);
        may_error(guards, subject, results);
        if is_matched {
            matching.insert(subject.at);
            always_matches(guards, subject, results);
        }
        if is_matched && subject.policy.effect == PolicyEffect::Permit {
            voided(guards, subject, witnesses, results);
        }
    }
    for subject in all.iter().filter(|one| matching.contains(&one.at)) {
        redundant(guards, subject, &all, witnesses, results);
    }
}

/// A policy, with the operations that it can match.
struct Subject<'a> {
    at: usize,
    policy: &'a PolicyGuard<'a>,
    operations: &'a [&'a str],
}

/// Ids of the operations that each policy can match, sorted, by position of the policy.
fn operations_of<'a>(guards: &'a Guards<'_>) -> Vec<Vec<&'a str>> {
    let mut all = vec![Vec::new(); guards.policies().len()];
    for (id, operation) in guards.operations() {
        for at in &operation.policies {
            if let Some(list) = all.get_mut(*at) {
                list.push(*id);
            }
        }
    }
    all
}

impl Subject<'_> {
    fn finding(&self, rule: &str, of: (Severity, Finality), message: String) -> Finding {
        Finding {
            policies: vec![self.policy.id.to_owned()],
            location: Place::of(self.policy.at),
            ..Finding::new(rule, self.policy.id, of, message)
        }
    }

    fn not_decided(&self, rule: &str, what: &str, reason: String) -> Finding {
        let message = format!("it is not decided whether the policy `{}` {what}", self.policy.id);
        Finding {
            reason,
            ..self.finding(rule, (Severity::of_open(rule), Finality::NotDecided), message)
        }
    }

    /// Asks a question in every environment, until an answer is satisfiable.
    fn ask(
        &self,
        guards: &Guards<'_>,
        relation: Relation,
        lists: impl Fn(&str) -> (Vec<Conjunction>, Vec<Conjunction>),
    ) -> Outcome {
        let mut unknown = None;
        let environments: Vec<(&str, &str)> = self
            .operations
            .iter()
            .flat_map(|operation| PRINCIPAL_TYPES.map(|kind| (*operation, kind)))
            .collect();
        for batch in environments.chunks(BATCH) {
            let questions: Vec<GuardQuestion<'_>> = batch
                .iter()
                .map(|&(operation, principal_type)| {
                    let (first, second) = lists(operation);
                    GuardQuestion { operation, principal_type, relation, first, second }
                })
                .collect();
            for answer in guards.ask_each(&questions) {
                match answer {
                    GuardAnswer::Satisfiable(example) => return Outcome::Found(example),
                    GuardAnswer::Unknown(reason) => unknown = Some(reason),
                    GuardAnswer::Unsatisfiable => {}
                }
            }
        }
        unknown.map_or(Outcome::Proved, Outcome::NotDecided)
    }
}

/// Returns: whether the policy matches a request, or could.
fn never_matches(
    guards: &Guards<'_>,
    subject: &Subject<'_>,
    witnesses: &mut Witnesses,
    results: &mut Results,
) -> bool {
    let id = subject.policy.id;
    if witnesses.firing(subject.at).next().is_some() {
        results.holds(NEVER_MATCHES, id);
        return true;
    }
    let fires = |_: &str| (vec![vec![Part::Fires(subject.at)]], vec![Vec::new()]);
    match subject.ask(guards, Relation::Both, fires) {
        Outcome::Found(example) => {
            witnesses.add(*example);
            results.holds(NEVER_MATCHES, id);
            true
        }
        Outcome::Proved => {
            let message = format!("the policy `{id}` matches no request");
            let of = (Severity::Warning, Finality::Proved);
            results.proved(subject.finding(NEVER_MATCHES, of, message));
            false
        }
        Outcome::NotDecided(reason) => {
            results.findings.push(subject.not_decided(NEVER_MATCHES, "matches a request", reason));
            true
        }
    }
}

/// A forbid that fails to evaluate fires, and a permit that fails does not: both are seldom meant.
fn may_error(guards: &Guards<'_>, subject: &Subject<'_>, results: &mut Results) {
    let id = subject.policy.id;
    let evaluates = vec![vec![Part::Fires(subject.at)], vec![Part::Clear(subject.at)]];
    let lists = |_: &str| (vec![Vec::new()], evaluates.clone());
    match subject.ask(guards, Relation::OnlyFirst, lists) {
        Outcome::Proved => results.holds(MAY_ERROR, id),
        Outcome::Found(example) => {
            let how = match example.verdicts.get(&subject.at) {
                Some(Verdict::Failed(how)) => how.clone(),
                _ => String::new(),
            };
            let message = match subject.policy.effect {
                PolicyEffect::Forbid => {
                    format!(
                        "the forbid `{id}` can fail to evaluate, and then it denies the request: {how}"
                    )
                }
                PolicyEffect::Permit => {
                    format!(
                        "the permit `{id}` can fail to evaluate, and then it does not permit: {how}"
                    )
                }
            };
            let note = format!("`{id}` fails to evaluate: {how}");
            let path = vec![step(&example, vec![id.to_owned()], note)];
            let of = (Severity::Warning, Finality::PathFound);
            results.findings.push(Finding { path, ..subject.finding(MAY_ERROR, of, message) });
        }
        Outcome::NotDecided(reason) => {
            results.findings.push(subject.not_decided(MAY_ERROR, "can fail to evaluate", reason));
        }
    }
}

/// Conditions that exclude nothing were probably meant to exclude something.
fn always_matches(guards: &Guards<'_>, subject: &Subject<'_>, results: &mut Results) {
    if subject.policy.body.is_none() {
        return;
    }
    let id = subject.policy.id;
    let lists =
        |_: &str| (vec![vec![Part::InScope(subject.at)]], vec![vec![Part::Fires(subject.at)]]);
    match subject.ask(guards, Relation::OnlyFirst, lists) {
        Outcome::Found(_) => results.holds(ALWAYS_MATCHES, id),
        Outcome::Proved => {
            let message =
                format!("the conditions of the policy `{id}` hold for every request in its scope");
            let of = (Severity::Warning, Finality::Proved);
            results.proved(subject.finding(ALWAYS_MATCHES, of, message));
        }
        Outcome::NotDecided(reason) => results.findings.push(subject.not_decided(
            ALWAYS_MATCHES,
            "matches every request in its scope",
            reason,
        )),
    }
}

/// Whether forbids cover each request of a permit.
fn voided(
    guards: &Guards<'_>,
    subject: &Subject<'_>,
    witnesses: &mut Witnesses,
    results: &mut Results,
) {
    let id = subject.policy.id;
    let forbids = |operation: &str| guards.slice(operation, PolicyEffect::Forbid);
    let is_clear = |example: &Witness| {
        let mut forbids = forbids(&example.operation).into_iter();
        forbids.all(|forbid| example.verdicts.get(&forbid) == Some(&Verdict::NotFired))
    };
    if witnesses.firing(subject.at).any(is_clear) {
        results.holds(VOIDED, id);
        return;
    }
    let lists = |operation: &str| {
        let clear = forbids(operation).into_iter().map(Part::Clear).collect();
        (vec![vec![Part::Fires(subject.at)]], vec![clear])
    };
    match subject.ask(guards, Relation::Both, lists) {
        Outcome::Found(example) => {
            witnesses.add(*example);
            results.holds(VOIDED, id);
        }
        Outcome::NotDecided(reason) => {
            results.findings.push(subject.not_decided(VOIDED, "is voided by forbids", reason));
        }
        Outcome::Proved => {
            // Those that denied a request which the permit matches.
            let fires = |example: &Witness, forbid: &usize| {
                example.verdicts.get(forbid) != Some(&Verdict::NotFired)
            };
            let voiding: BTreeSet<usize> = witnesses
                .firing(subject.at)
                .flat_map(|example| {
                    forbids(&example.operation).into_iter().filter(move |at| fires(example, at))
                })
                .collect();
            let names: Vec<String> = voiding
                .iter()
                .filter_map(|at| guards.policies().get(*at))
                .map(|one| one.id.to_owned())
                .collect();
            let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let message = format!(
                "the permit `{id}` permits nothing: forbids deny each request that it matches, among them {}",
                quoted.join(", ")
            );
            let mut finding =
                subject.finding(VOIDED, (Severity::Warning, Finality::Proved), message);
            finding.policies.extend(names);
            results.proved(finding);
        }
    }
}

/// Whether the removal of a policy would change no outcome, since another one covers its requests.
fn redundant(
    guards: &Guards<'_>,
    subject: &Subject<'_>,
    all: &[Subject<'_>],
    witnesses: &mut Witnesses,
    results: &mut Results,
) {
    let mut unknown = None;
    for other in all.iter().filter(|other| is_candidate(subject, other)) {
        if is_told_apart(subject, other, witnesses) {
            continue;
        }
        match ask_implied(guards, subject, other) {
            Outcome::Found(example) => witnesses.add(*example),
            Outcome::NotDecided(reason) => unknown = Some((other.policy.id, reason)),
            Outcome::Proved => {
                // Of two that cover each other, the later one is redundant.
                let is_first = subject.at < other.at
                    && matches!(ask_implied(guards, other, subject), Outcome::Proved)
                    && is_candidate(other, subject);
                if is_first {
                    continue;
                }
                let (id, covering) = (subject.policy.id, other.policy.id);
                let message = format!(
                    "the policy `{id}` changes no outcome: `{covering}` covers each of its requests"
                );
                let mut finding =
                    subject.finding(REDUNDANT, (Severity::Warning, Finality::Proved), message);
                finding.policies.push(covering.to_owned());
                results.proved(finding);
                return;
            }
        }
    }
    match unknown {
        None => results.holds(REDUNDANT, subject.policy.id),
        Some((other, reason)) => {
            let what = format!("is covered by `{other}`");
            results.findings.push(subject.not_decided(REDUNDANT, &what, reason));
        }
    }
}

/// Whether another policy has the same effect on a decision, for all operations of this one.
fn is_candidate(subject: &Subject<'_>, other: &Subject<'_>) -> bool {
    let (one, two) = (subject.policy, other.policy);
    // Lists of operations are sorted.
    let covers = |operation: &&str| other.operations.binary_search(operation).is_ok();
    subject.at != other.at
        && one.effect == two.effect
        && one.stepup == two.stepup
        && one.covers == two.covers
        && obligations(one) == obligations(two)
        && subject.operations.iter().all(covers)
}

fn obligations<'p>(policy: &'p PolicyGuard<'_>) -> BTreeSet<&'p String> {
    policy.obligations.iter().collect()
}

/// Whether a request is known for which only the first of two policies fires.
fn is_told_apart(subject: &Subject<'_>, other: &Subject<'_>, witnesses: &Witnesses) -> bool {
    let is_not = |example: &Witness| example.verdicts.get(&other.at) == Some(&Verdict::NotFired);
    witnesses.firing(subject.at).any(is_not)
}

/// Asks for a request on which the first policy has its effect and the second does not.
fn ask_implied(guards: &Guards<'_>, subject: &Subject<'_>, other: &Subject<'_>) -> Outcome {
    match subject.policy.effect {
        PolicyEffect::Permit => {
            let lists =
                |_: &str| (vec![vec![Part::Fires(subject.at)]], vec![vec![Part::Fires(other.at)]]);
            subject.ask(guards, Relation::OnlyFirst, lists)
        }
        // A forbid that fails has its effect, so the question is about the requests that it lets pass.
        PolicyEffect::Forbid => {
            let lists =
                |_: &str| (vec![vec![Part::Clear(other.at)]], vec![vec![Part::Clear(subject.at)]]);
            subject.ask(guards, Relation::OnlyFirst, lists)
        }
    }
}
