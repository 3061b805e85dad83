//! Standing exceptions: which of them cover a call, and which of them made a difference.
//!
//! A policy that reads `context.exception` is judged a second time where an exception covers the call: without its exceptions.
//! If the results differ, the call depends on them. Where an exception has expired, it is judged with it instead, so that a
//! denial can say that the exception was missing.
//!
//! Break-glass is the exception that no bundle declares. It covers a call that no exception of the bundle covers.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::resolve::Resolved;
use super::rules;
use crate::decision::{BreakglassUse, DecidingRule, Facts, PolicyEffect, Principal, Time, Verdict};
use crate::evaluate::{Judge, Known, Rule, Unready};
use crate::model::{BREAKGLASS, BREAKGLASS_TIER, Operation, Spelling, StandingException, Tier};
use crate::plan::Plan;
use crate::policy::Placed;
use crate::task::{Breakglass, BreakglassConfirmation, selects};

/// Names of exceptions that cover a call, sorted.
pub(super) type ExceptionNames<'a> = SmallVec<[&'a str; 2]>;

/// Obligation of each permit that depends on break-glass.
const BREAKGLASS_OBLIGATION: &str = "log_full";

/// Exceptions of a call, by whether they still apply.
#[derive(Debug, Default)]
pub(super) struct CoveringExceptions<'a> {
    /// Break-glass, if it is in force for the call and no exception of the bundle covers it.
    breakglass: Option<(&'a Breakglass, &'a BreakglassConfirmation)>,
    /// Those that apply.
    pub(super) active: ExceptionNames<'a>,
    /// Those that apply, and those that would apply had they not expired. Empty if none has expired.
    pub(super) with_expired: ExceptionNames<'a>,
}

/// Finds the exceptions that cover a call.
///
/// Args:
/// * `caller`: the last principal of the chain. An exception is for the acting caller, never for a principal above it.
/// * `tier`: effective tier of the call.
pub(super) fn covering<'a>(
    plan: &'a Plan,
    facts: &Facts<'a>,
    caller: &Known,
    operation: &Operation,
    resolved: &Resolved<'_>,
    (tier, now): (Tier, Time),
) -> CoveringExceptions<'a> {
    let Some(principal) = facts.chain.last() else { return CoveringExceptions::default() };
    let on = (resolved.collection, resolved.id.key.as_str(), &*resolved.labels);
    let mut found = covering_of(plan, principal, caller, operation, on, (tier, now));
    if found.active.is_empty() {
        found.breakglass = breakglass(facts, operation, tier, now);
        if found.breakglass.is_some() {
            found.active.push(BREAKGLASS);
            if !found.with_expired.is_empty() {
                found.with_expired.push(BREAKGLASS);
                found.with_expired.sort_unstable();
            }
        }
    }
    found
}

/// Finds the exceptions of the bundle that cover a call.
///
/// Args: `on`: collection, id and labels of its resource.
pub(super) fn covering_of<'a>(
    plan: &'a Plan,
    principal: &Principal,
    caller: &Known,
    operation: &Operation,
    (collection, id, labels): (Option<&str>, &str, &[String]),
    (tier, now): (Tier, Time),
) -> CoveringExceptions<'a> {
    let mut found = CoveringExceptions::default();
    let spelling = operation.resource.as_ref().map_or(Spelling::Exact, |rule| rule.spelling);
    let mut has_expired = false;
    for (name, exception) in &plan.model().exceptions {
        let is_covered = tier <= exception.tier_cap
            && exception.operations.iter().any(|glob| glob.0.matches(&operation.id))
            && exception.holder.is_held_by(principal, caller.roles());
        let resources = exception.resources.of(spelling);
        if !is_covered || selects(resources, collection, id, labels).is_err() {
            continue;
        }
        found.with_expired.push(name);
        if now < exception.expires {
            found.active.push(name);
        } else {
            has_expired = true;
        }
    }
    if !has_expired {
        found.with_expired.clear();
    }
    found
}

/// Break-glass in force for a call.
fn breakglass<'a>(
    facts: &Facts<'a>,
    operation: &Operation,
    tier: Tier,
    now: Time,
) -> Option<(&'a Breakglass, &'a BreakglassConfirmation)> {
    let is_covered = operation.tier.max(tier) <= BREAKGLASS_TIER;
    let records = facts.breakglass.filter(|_| is_covered)?;
    records.find_in_force(&operation.system, facts.chain, now)
}

/// Whether an exception could cover a call of an operation by a caller, before its arguments are known.
///
/// `caller` is the last principal of the chain. `None`: the caller is not known, and may hold any exception.
pub(super) fn could_cover(
    plan: &Plan,
    facts: &Facts<'_>,
    operation: &Operation,
    caller: Option<(&Principal, &Known)>,
    now: Time,
) -> bool {
    let is_breakglass = breakglass(facts, operation, operation.tier, now).is_some();
    is_breakglass
        || plan.model().exceptions.values().any(|exception| {
            now < exception.expires
                && operation.tier <= exception.tier_cap
                && exception.operations.iter().any(|glob| glob.0.matches(&operation.id))
                && caller.is_none_or(|(principal, known)| {
                    exception.holder.is_held_by(principal, known.roles())
                })
        })
}

/// The facts of one call as policies see them, for each of its destinations.
pub(super) struct Judges<'a> {
    first: Judge<'a>,
    /// One for each further destination; only policies that read the destination are judged by them.
    elsewhere: Vec<Judge<'a>>,
}

impl<'a> Judges<'a> {
    pub(super) const fn new(first: Judge<'a>, elsewhere: Vec<Judge<'a>>) -> Self {
        Self { first, elsewhere }
    }

    /// The result of a rule for the principal at `position`: the worst of all destinations.
    ///
    /// # Errors
    /// The facts have no form that policies can read.
    pub(super) fn judge(
        &self,
        rule: &Rule,
        position: usize,
        reads_destination: bool,
    ) -> Result<Verdict, Unready> {
        let mut verdict = self.first.judge(rule, position)?;
        if reads_destination {
            for judge in &self.elsewhere {
                verdict = super::verdict::worse(rule.effect, verdict, judge.judge(rule, position)?);
            }
        }
        Ok(verdict)
    }
}

/// Exceptions that made a difference in one call.
#[derive(Debug, Default)]
pub(super) struct ExceptionEffects<'a> {
    /// Exceptions on which the result of a policy depends.
    used: BTreeMap<&'a str, &'a StandingException>,
    /// Break-glass, if the result of a policy depends on it.
    breakglass: Option<(&'a Breakglass, &'a BreakglassConfirmation)>,
    /// Expired exceptions with which a permit would have fired, and the principals for which it would have.
    missed: BTreeMap<&'a str, &'a StandingException>,
    permitted_with_missed: SmallVec<[usize; 4]>,
}

impl<'a> ExceptionEffects<'a> {
    /// Notes that the result of a policy depends on exceptions of the call.
    pub(super) fn note_used(
        &mut self,
        plan: &'a Plan,
        placed: &Placed,
        covering: &CoveringExceptions<'a>,
    ) {
        self.used.extend(named(plan, placed, &covering.active));
        self.breakglass = self.breakglass.or(covering.breakglass);
    }

    /// Notes that a permit would have fired for the principals at `positions`, had an exception not expired.
    pub(super) fn note_missed(
        &mut self,
        plan: &'a Plan,
        placed: &Placed,
        covering: &CoveringExceptions<'_>,
        positions: impl Iterator<Item = usize>,
    ) {
        let expired = |name: &&str| !covering.active.contains(name);
        let expired: ExceptionNames<'_> =
            covering.with_expired.iter().copied().filter(expired).collect();
        self.missed.extend(named(plan, placed, &expired));
        self.permitted_with_missed.extend(positions);
    }

    /// Names of the exceptions on which the answer depends, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let breakglass = self.breakglass.map(|_| BREAKGLASS);
        let mut names: Vec<&str> = self.used.keys().copied().chain(breakglass).collect();
        names.sort_unstable();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Break-glass on which the answer depends.
    pub(super) fn breakglass(&self) -> Option<BreakglassUse> {
        self.breakglass.map(|(record, confirmed)| BreakglassUse {
            id: record.id.clone(),
            ticket: record.ticket.clone(),
            opened_by: record.opened_by.name.clone(),
            confirmed_by: confirmed.by.name.clone(),
        })
    }

    /// Obligations of those exceptions.
    pub(super) fn obligations(&self) -> impl Iterator<Item = &str> {
        let of_bundle = self.used.values().flat_map(|exception| &exception.obligations);
        of_bundle.map(String::as_str).chain(self.breakglass.map(|_| BREAKGLASS_OBLIGATION))
    }

    /// The exceptions on which the answer depends and that have an obligation.
    pub(super) fn rules_with(&self, plan: &Plan, obligation: &str) -> Vec<DecidingRule> {
        let having = self.used.iter().filter(|(_, one)| one.obligations.contains(obligation));
        let breakglass = self.breakglass.filter(|_| obligation == BREAKGLASS_OBLIGATION);
        let names = having.map(|(name, _)| *name).chain(breakglass.map(|_| BREAKGLASS));
        names.map(|name| rules::exception(plan, name)).collect()
    }

    /// The expired exceptions, if each principal without a permit would have one with them.
    pub(super) fn expired_rules(
        &self,
        plan: &Plan,
        mut unpermitted: impl Iterator<Item = usize>,
    ) -> Option<Vec<DecidingRule>> {
        let is_missed = !self.missed.is_empty()
            && unpermitted.all(|position| self.permitted_with_missed.contains(&position));
        is_missed.then(|| self.missed.keys().map(|name| rules::exception(plan, name)).collect())
    }
}

/// The exceptions of `names` that a policy names.
fn named<'a>(
    plan: &'a Plan,
    placed: &Placed,
    names: &[&str],
) -> impl Iterator<Item = (&'a str, &'a StandingException)> {
    let accepted = placed.policy.exceptions().filter(|name| names.contains(name));
    accepted.filter_map(|name| {
        let (name, exception) = plan.model().exceptions.get_key_value(name)?;
        Some((name.as_str(), exception))
    })
}

/// Whether a policy did not fire, and would fire with the expired exceptions.
pub(super) fn is_missed(effect: PolicyEffect, verdict: &Verdict, with_expired: &Verdict) -> bool {
    effect == PolicyEffect::Permit && *verdict != Verdict::Fired && *with_expired == Verdict::Fired
}
