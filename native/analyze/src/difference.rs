//! Whether a changed bundle permits more than the one before.
//!
//! The proof is about policies: for each operation whose slice changed, and each type of principal, the solver looks for a
//! request that the new policies permit and the old ones do not. Facts of the bundle that decide about other parts of a request,
//! such as the members of a role or the tier of an operation, are compared by themselves. A changed fact is named, and the whole
//! is not proved then.

mod facts;

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::decision::{PolicyEffect, Verdict};
use authz_kernel::guards::{OperationGuard, PolicyGuard};
use authz_kernel::plan::Plan;
use serde::Serialize;
use serde_json::Value;

pub use facts::ChangedFact;

use crate::guards::{
    Conjunction, Counterexample, GuardAnswer, GuardQuestion, Guards, PRINCIPAL_TYPES, Part,
};
use crate::proofs::assumptions;
use crate::report::{BundleName, Finality, SolverName, VERSION};
use crate::solver::{OnceSolver, Relation, Solver as _};

/// Result of the proof for one operation and one type of principal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangedOperation {
    /// Id of the operation.
    pub operation: String,
    /// `Agent`, `User` or `Service`.
    pub principal_type: String,
    /// `proved`: nothing is newly permitted. `path_found`: `request` is.
    pub verdict: Finality,
    /// The bundle before has no such operation.
    pub is_new: bool,
    /// Cause of `not_decided`; otherwise empty.
    pub reason: String,
    /// Permits of the new bundle that fire for the request.
    pub permits: Vec<String>,
    /// Forbids of the old bundle that denied the request; empty where no permit fired.
    pub denied_by: Vec<String>,
    /// The request in Cedar's JSON forms; null without one.
    pub request: Value,
}

/// Policies that differ, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChangedPolicies {
    /// Policies of the new bundle alone.
    pub added: Vec<String>,
    /// Policies of the old bundle alone.
    pub removed: Vec<String>,
    /// Policies of both with another meaning.
    pub changed: Vec<String>,
}

/// Sizes of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Operations of the new bundle and of Authz itself.
    pub operations: usize,
    /// Of them: operations whose policies or arguments changed, and new ones.
    pub changed: usize,
    /// Different questions to the solver.
    pub questions: usize,
    /// Questions that an answer of an earlier run covers.
    pub questions_cached: usize,
    /// Questions without an answer.
    pub not_decided: usize,
}

/// Document of `authz-analyze diff`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Version of the form.
    pub version: u32,
    /// The bundle before the change.
    pub old: BundleName,
    /// The bundle after the change.
    pub new: BundleName,
    /// The solver; null without one.
    pub solver: Option<SolverName>,
    /// `proved`: nothing is newly permitted. `path_found`: an operation has a request that is. `not_decided`: an operation is not
    /// decided, or a fact changed that the proof does not cover.
    pub verdict: Finality,
    /// Facts that the proof takes for true.
    pub assumptions: Vec<String>,
    /// Sizes.
    pub counts: Counts,
    /// Policies that differ.
    pub policies: ChangedPolicies,
    /// Operations whose policies or arguments changed.
    pub operations: Vec<ChangedOperation>,
    /// Changed facts that the proof does not cover.
    pub facts: Vec<ChangedFact>,
}

/// Compares two bundles.
#[must_use]
pub fn compare(old: &Plan, new: &Plan, solver: &OnceSolver<'_>) -> Difference {
    let names = old.schema_names().union(new.schema_names());
    let sides = Sides {
        old: Guards::with_names(old, solver, &names),
        new: Guards::with_names(new, solver, &names),
    };
    let operations = sides.operations();
    let facts = facts::changed(old, new, &sides.policies_by_id());
    let counts = solver.counts();
    let changed: BTreeSet<&str> = operations.iter().map(|one| one.operation.as_str()).collect();
    Difference {
        version: VERSION,
        old: BundleName::of(old),
        new: BundleName::of(new),
        verdict: verdict(&operations, &facts),
        assumptions: assumptions(solver.name().as_ref()),
        solver: solver.name().map(|(name, version)| SolverName { name, version }),
        counts: Counts {
            operations: sides.new.operations().len(),
            changed: changed.len(),
            questions: counts.asked,
            questions_cached: counts.kept,
            not_decided: counts.unknown,
        },
        policies: sides.policies(),
        operations,
        facts,
    }
}

fn verdict(operations: &[ChangedOperation], facts: &[ChangedFact]) -> Finality {
    let has = |verdict| operations.iter().any(|one| one.verdict == verdict);
    if has(Finality::PathFound) {
        Finality::PathFound
    } else if has(Finality::NotDecided) || !facts.is_empty() {
        Finality::NotDecided
    } else {
        Finality::Proved
    }
}

/// Policies and operations of both bundles.
struct Sides<'a> {
    old: Guards<'a>,
    new: Guards<'a>,
}

/// A policy of both bundles.
pub(crate) type PolicyPair<'s> = (Option<&'s PolicyGuard<'s>>, Option<&'s PolicyGuard<'s>>);

impl<'a> Sides<'a> {
    fn policies_by_id(&self) -> BTreeMap<&str, PolicyPair<'_>> {
        let mut all: BTreeMap<&str, PolicyPair<'_>> = BTreeMap::new();
        for policy in self.old.policies() {
            all.entry(policy.id).or_default().0 = Some(policy);
        }
        for policy in self.new.policies() {
            all.entry(policy.id).or_default().1 = Some(policy);
        }
        all
    }

    fn policies(&self) -> ChangedPolicies {
        let mut policies = ChangedPolicies::default();
        for (id, pair) in self.policies_by_id() {
            let list = match pair {
                (None, Some(_)) => &mut policies.added,
                (Some(_), None) => &mut policies.removed,
                (Some(old), Some(new)) if old.text != new.text => &mut policies.changed,
                _ => continue,
            };
            list.push(id.to_owned());
        }
        policies
    }

    fn operations(&self) -> Vec<ChangedOperation> {
        let changed: Vec<&str> =
            self.new.operations().keys().copied().filter(|id| self.is_changed(id)).collect();
        let environments: Vec<(&str, &str)> =
            changed.iter().flat_map(|id| PRINCIPAL_TYPES.map(|kind| (*id, kind))).collect();
        let questions: Vec<Vec<GuardQuestion<'_>>> =
            environments.iter().map(|(id, kind)| self.questions(id, kind)).collect();
        let flat: Vec<GuardQuestion<'_>> = questions.iter().flatten().cloned().collect();
        let mut answers = self.new.ask_all(&flat).into_iter();
        let removed = self.old.plan().schema_names();
        let removed = removed.beyond(&self.new.plan().schema_names()).into_iter();
        let removed: BTreeSet<(String, String)> =
            removed.map(|(kind, name)| (kind.to_owned(), name.to_owned())).collect();
        let judged = |((id, kind), own): (&(&str, &str), &Vec<GuardQuestion<'_>>)| {
            let own = answers.by_ref().take(own.len()).collect();
            self.judged(id, kind, joined(own), &removed)
        };
        environments.iter().zip(&questions).map(judged).collect()
    }

    /// Whether an operation is new, or its policies or arguments differ.
    fn is_changed(&self, id: &str) -> bool {
        let Some(new) = self.new.operations().get(id) else { return false };
        let Some(old) = self.old.operations().get(id) else { return true };
        old.resource_type != new.resource_type
            || old.inputs != new.inputs
            || old.groups != new.groups
            || conditions(&self.old, old) != conditions(&self.new, new)
    }

    /// Is there a request that the new policies permit, and the old ones do not?
    ///
    /// The old ones do not permit it where none of their permits fires, so that it is one of the new bundle alone that fires now,
    /// or where one of their forbids is not clear, so that it is one of the old bundle alone. Each is a question of its own,
    /// since one about all policies of both bundles takes the solver many times as long.
    fn questions<'q>(&self, id: &'q str, principal_type: &'q str) -> Vec<GuardQuestion<'q>> {
        let is_comparable = self.incomparable(id).is_none();
        let of = |effect| if is_comparable { self.old.slice(id, effect) } else { Vec::new() };
        let (permits, forbids) = (of(PolicyEffect::Permit), of(PolicyEffect::Forbid));
        let clear: Conjunction =
            self.new.slice(id, PolicyEffect::Forbid).into_iter().map(Part::Clear).collect();
        let permitted = |permit: usize| [vec![Part::Fires(permit)], clear.clone()].concat();
        let ask = |first: Vec<Conjunction>, second: Vec<Conjunction>| GuardQuestion {
            operation: id,
            principal_type,
            relation: Relation::OnlyFirst,
            first,
            second,
        };
        let new_permits = self.new.slice(id, PolicyEffect::Permit);
        let is_added = |at: &&usize| !permits.iter().any(|old| self.is_same(*old, **at));
        let added = new_permits.iter().filter(is_added).map(|at| permitted(*at));
        let fired_before: Vec<Conjunction> =
            permits.iter().map(|old| vec![self.before(id, *old, PolicyEffect::Permit)]).collect();
        let by_permits = ask(added.collect(), fired_before);
        let new_forbids = self.new.slice(id, PolicyEffect::Forbid);
        let is_gone = |old: &&usize| !new_forbids.iter().any(|at| self.is_same(**old, *at));
        let by_forbids = forbids.iter().filter(is_gone).map(|old| {
            let all = new_permits.iter().map(|at| permitted(*at)).collect();
            ask(all, vec![vec![self.before(id, *old, PolicyEffect::Forbid)]])
        });
        [by_permits].into_iter().chain(by_forbids).collect()
    }

    /// Whether a policy of the old bundle has the condition of one of the new bundle.
    fn is_same(&self, old: usize, new: usize) -> bool {
        let condition =
            |guards: &Guards<'_>, at: usize| guards.policies().get(at).map(PolicyGuard::condition);
        condition(&self.old, old) == condition(&self.new, new)
    }

    /// A permit of the old bundle that fires, or a forbid that is clear. It is the policy of the new bundle with the same condition,
    /// or a text, since positions are those of the new one.
    fn before(&self, id: &str, old: usize, effect: PolicyEffect) -> Part {
        let same = self.new.slice(id, effect).into_iter().find(|at| self.is_same(old, *at));
        let condition =
            || self.old.policies().get(old).map_or_else(String::new, PolicyGuard::condition);
        match (same, effect) {
            (Some(at), PolicyEffect::Permit) => Part::Fires(at),
            (Some(at), PolicyEffect::Forbid) => Part::Clear(at),
            (None, PolicyEffect::Permit) => Part::Text(condition()),
            (None, PolicyEffect::Forbid) => Part::Text(format!("!({})", condition())),
        }
    }

    /// Why the old policies of an operation cannot be asked about a request of the new bundle.
    fn incomparable(&self, id: &str) -> Option<&'static str> {
        let (old, new) = (self.old.operations().get(id)?, self.new.operations().get(id)?);
        if old.resource_type != new.resource_type {
            Some("the type of its resource changed")
        } else if old.inputs != new.inputs {
            Some("its arguments changed")
        } else {
            None
        }
    }

    fn judged(
        &self,
        id: &str,
        principal_type: &str,
        answer: GuardAnswer,
        removed: &BTreeSet<(String, String)>,
    ) -> ChangedOperation {
        let is_new = !self.old.operations().contains_key(id);
        let result = ChangedOperation {
            operation: id.to_owned(),
            principal_type: principal_type.to_owned(),
            verdict: Finality::Proved,
            is_new,
            reason: String::new(),
            permits: Vec::new(),
            denied_by: Vec::new(),
            request: Value::Null,
        };
        let open = |reason: String| ChangedOperation {
            verdict: Finality::NotDecided,
            reason,
            ..result.clone()
        };
        match answer {
            GuardAnswer::Unsatisfiable => result,
            GuardAnswer::Unknown(reason) => open(reason),
            GuardAnswer::Satisfiable(example) => {
                if let Some(name) = named(&example.document, removed) {
                    return open(format!(
                        "the request names {name}, which the new bundle no longer declares"
                    ));
                }
                if let Some(reason) = self.incomparable(id) {
                    return open(format!(
                        "{reason}, so that no request can be asked of both bundles"
                    ));
                }
                self.found(result, &example)
            }
        }
    }

    /// Judges the request by the old kernel. The new one judged it already.
    fn found(&self, result: ChangedOperation, example: &Counterexample) -> ChangedOperation {
        let permits = fired(&self.new, &example.verdicts, PolicyEffect::Permit);
        let request = example.document.clone();
        let found = ChangedOperation { verdict: Finality::PathFound, permits, request, ..result };
        if found.is_new {
            return found;
        }
        let judged =
            self.old.plan().judge_stated(&found.operation, &example.request, &example.entities);
        match judged {
            Ok(verdicts) if is_permitted(&self.old, &verdicts) => ChangedOperation {
                verdict: Finality::NotDecided,
                reason: "the old bundle permits the solver's request".to_owned(),
                ..found
            },
            Ok(verdicts) => {
                let has_permit = !fired(&self.old, &verdicts, PolicyEffect::Permit).is_empty();
                let denied_by = match has_permit {
                    true => fired(&self.old, &verdicts, PolicyEffect::Forbid),
                    false => Vec::new(),
                };
                ChangedOperation { denied_by, ..found }
            }
            Err(reason) => ChangedOperation { verdict: Finality::NotDecided, reason, ..found },
        }
    }
}

/// The answer to several questions about the same requests: a request of one of them, or that none has any.
fn joined(answers: Vec<GuardAnswer>) -> GuardAnswer {
    let mut all = GuardAnswer::Unsatisfiable;
    for answer in answers {
        match answer {
            GuardAnswer::Satisfiable(_) => return answer,
            GuardAnswer::Unknown(_) => all = answer,
            GuardAnswer::Unsatisfiable => {}
        }
    }
    all
}

/// Conditions of the policies of an operation, with their effects, in a fixed order.
fn conditions(guards: &Guards<'_>, operation: &OperationGuard<'_>) -> Vec<(bool, String)> {
    let policies = operation.policies.iter().filter_map(|at| guards.policies().get(*at));
    let mut all: Vec<(bool, String)> = policies
        .map(|policy| (policy.effect == PolicyEffect::Permit, policy.condition()))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Ids of the policies of one effect that have it: those that fire, and forbids that fail.
fn fired(
    guards: &Guards<'_>,
    verdicts: &BTreeMap<usize, Verdict>,
    effect: PolicyEffect,
) -> Vec<String> {
    let has_effect = |verdict: &Verdict| match verdict {
        Verdict::Fired => true,
        Verdict::NotFired => false,
        Verdict::Failed(_) => effect == PolicyEffect::Forbid,
    };
    let firing = verdicts.iter().filter(|(_, verdict)| has_effect(verdict));
    let policies = firing.filter_map(|(at, _)| guards.policies().get(*at));
    policies.filter(|one| one.effect == effect).map(|one| one.id.to_owned()).collect()
}

fn is_permitted(guards: &Guards<'_>, verdicts: &BTreeMap<usize, Verdict>) -> bool {
    !fired(guards, verdicts, PolicyEffect::Permit).is_empty()
        && fired(guards, verdicts, PolicyEffect::Forbid).is_empty()
}

/// The first entity of a set that a request names.
fn named(document: &Value, entities: &BTreeSet<(String, String)>) -> Option<String> {
    let mut open = vec![document];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                let text = |name: &str| members.get(name).and_then(Value::as_str);
                if let (Some(kind), Some(id)) = (text("type"), text("id"))
                    && entities.contains(&(kind.to_owned(), id.to_owned()))
                {
                    return Some(format!("{kind}::\"{id}\""));
                }
                open.extend(members.values());
            }
            _ => {}
        }
    }
    None
}
