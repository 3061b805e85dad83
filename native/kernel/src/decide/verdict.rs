//! From the results of all policies to the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use super::exceptions::ExceptionEffects;
use super::located::TaskBounds;
use super::{TierFacts, Unmet, rules};
use crate::decision::{
    DecidingRule, Decision, Judged, Outcome, PolicyEffect, ReasonCode, StepUp, StepUpGround,
    Verdict,
};
use crate::evaluate::Known;
use crate::hex::hex;
use crate::model::Operation;
use crate::obligation::{Obligation, is_supported};
use crate::plan::Plan;
use crate::policy::Placed;

/// Policies that fired and policies that failed, over all principals.
#[derive(Clone)]
pub(super) struct Tally<'a> {
    chain: &'a [Arc<Known>],
    /// Whether a permit fired, by principal.
    permitted: SmallVec<[bool; 8]>,
    permits: Vec<&'a Placed>,
    /// Fired forbids that nothing lifts.
    forbids: Vec<&'a Placed>,
    /// Fired forbids that a step-up lifts.
    stepups: Vec<&'a Placed>,
    /// Forbids that failed.
    failed: Vec<(&'a Placed, String)>,
}

impl<'a> Tally<'a> {
    pub(super) fn new(chain: &'a [Arc<Known>]) -> Self {
        Self {
            chain,
            permitted: std::iter::repeat_n(false, chain.len()).collect(),
            permits: Vec::new(),
            forbids: Vec::new(),
            stepups: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Counts one result, for one principal or for all.
    pub(super) fn count(&mut self, placed: &'a Placed, whom: Option<usize>, verdict: Verdict) {
        match (placed.policy.effect, verdict) {
            (PolicyEffect::Permit, Verdict::Fired) => {
                self.permits.push(placed);
                match whom {
                    None => self.permitted.iter_mut().for_each(|permitted| *permitted = true),
                    Some(index) => {
                        if let Some(permitted) = self.permitted.get_mut(index) {
                            *permitted = true;
                        }
                    }
                }
            }
            (PolicyEffect::Forbid, Verdict::Fired) => {
                if placed.policy.stepup.is_some() {
                    self.stepups.push(placed);
                } else {
                    self.forbids.push(placed);
                }
            }
            (PolicyEffect::Forbid, Verdict::Failed(how)) => self.failed.push((placed, how)),
            // A permit that failed has not fired.
            (PolicyEffect::Permit, Verdict::Failed(_)) | (_, Verdict::NotFired) => {}
        }
    }

    /// Whether every principal has a permit that fired.
    pub(super) fn is_permitted(&self) -> bool {
        self.permitted.iter().all(|permitted| *permitted)
    }

    /// Whether some principal that a permit fired for has no other one.
    ///
    /// Args: `whom`: position of the principal. `None`: the permit fired for all.
    pub(super) fn lacks(&self, whom: Option<usize>) -> bool {
        match whom {
            None => !self.is_permitted(),
            Some(index) => self.permitted.get(index).is_some_and(|permitted| !permitted),
        }
    }

    /// Whether a permit fired.
    pub(super) fn has_fired(&self, permit: &str) -> bool {
        self.permits.iter().any(|placed| placed.policy.id == permit)
    }

    /// Writes the answer.
    pub(super) fn settle(
        self,
        stated: StatedRules<'_>,
        unmet: &Unmet,
        bounds: &TaskBounds<'_>,
        exceptions: &ExceptionEffects<'_>,
        supported: &[&str],
        decision: &mut Decision,
    ) {
        let caller = self.chain.len().saturating_sub(1);
        let mut denials: SmallVec<[ReasonCode; 4]> = SmallVec::new();
        if !self.failed.is_empty() {
            denials.push(ReasonCode::PolicyError);
        }
        if !self.forbids.is_empty() {
            denials.push(ReasonCode::Forbidden);
        }
        denials.extend(bounds.refused.as_ref().map(|refused| refused.reason));
        for (index, permitted) in self.permitted.iter().enumerate() {
            if !permitted {
                let caller = index == caller;
                denials.push(if caller {
                    ReasonCode::NotPermitted
                } else {
                    ReasonCode::ChainNotPermitted
                });
            }
        }
        if !unmet.hopeless.is_empty() {
            denials.push(ReasonCode::TierRequirement);
        }
        if let Some(reason) = denials.into_iter().min() {
            let determining: Vec<&Placed> = match reason {
                ReasonCode::PolicyError => self.failed.iter().map(|(placed, _)| *placed).collect(),
                ReasonCode::Forbidden => self.forbids.clone(),
                _ => Vec::new(),
            };
            if matches!(reason, ReasonCode::NotPermitted | ReasonCode::ChainNotPermitted) {
                decision.without_permit = self.without_permit().map(Known::name).collect();
            }
            match &bounds.refused {
                Some(refused) if refused.reason == reason => {
                    decision.message.clone_from(&refused.message);
                    decision.rules.clone_from(&refused.rules);
                }
                _ => {
                    decision.message = self.why(reason, unmet, stated);
                    decision.rules = stated.of_denial(reason);
                }
            }
            let lacks_permit =
                matches!(reason, ReasonCode::NotPermitted | ReasonCode::ChainNotPermitted);
            let unpermitted = self.unpermitted().map(|(position, _)| position);
            if let Some(expired) = exceptions
                .expired_rules(stated.plan, unpermitted)
                .filter(|_| lacks_permit && unmet.hopeless.is_empty() && bounds.refused.is_none())
            {
                let names = expired.iter().map(DecidingRule::subject).collect::<Vec<_>>();
                decision.message.push_str(&format!(
                    "; one would have, but for the expired exception {}",
                    names.join(", ")
                ));
                decision.rules = expired;
                let reason = ReasonCode::ExceptionExpired;
                return answer(stated, Outcome::Deny, reason, &determining, decision);
            }
            return answer(stated, Outcome::Deny, reason, &determining, decision);
        }
        let obligations: BTreeSet<&str> = self
            .permits
            .iter()
            .flat_map(|placed| &placed.policy.obligations)
            .map(String::as_str)
            .chain(exceptions.obligations())
            .collect();
        let (own, obligations): (BTreeSet<&str>, BTreeSet<&str>) =
            obligations.into_iter().partition(|text| is_of_server(text));
        if let Some(missing) =
            obligations.iter().find(|obligation| !is_supported(obligation, supported))
        {
            decision.message = format!("the enforcer cannot carry out the obligation `{missing}`");
            if let Some(recorded) = &mut decision.facts {
                recorded.checks.unsupported = (*missing).to_owned();
            }
            let bound = |placed: &&&Placed| placed.policy.obligations.iter().any(|o| o == missing);
            let determining: Vec<&Placed> = self.permits.iter().filter(bound).copied().collect();
            decision.rules = exceptions.rules_with(stated.plan, missing);
            let reason = ReasonCode::EnforcerRefused;
            return answer(stated, Outcome::Deny, reason, &determining, decision);
        }
        let lifted = self.stepups.iter().filter_map(|placed| placed.policy.stepup.as_deref());
        let held = || bounds.held.iter().filter(|held| !held.kinds.is_empty());
        let beyond = held().flat_map(|held| held.kinds.iter().copied());
        let kinds: BTreeSet<&str> =
            lifted.chain(unmet.kinds.iter().copied()).chain(beyond).collect();
        if let Some(reason) = kinds.iter().map(|kind| reason_of(kind)).min() {
            decision.message = format!("step-up needed: {}", join(kinds.iter().copied()));
            if !unmet.kinds.is_empty() {
                let required = join(unmet.kinds.iter().copied());
                let text = format!("; {} requires {required}", stated.requirement());
                decision.message.push_str(&text);
            }
            for held in held() {
                decision.message.push_str("; ");
                decision.message.push_str(&held.message);
            }
            decision.kinds = kinds.into_iter().map(str::to_owned).collect();
            if !unmet.kinds.is_empty() {
                decision.rules = stated.of_tier();
            }
            decision.rules.extend(held().map(|held| held.rule.clone()));
            decision.step_up = Some(Box::new(StepUp {
                grounds: self.grounds(stated, unmet, bounds),
                ..StepUp::default()
            }));
            return answer(stated, Outcome::StepUp, reason, &self.stepups, decision);
        }
        decision.own_obligations = own.into_iter().map(str::to_owned).collect();
        decision.obligations = obligations.into_iter().map(str::to_owned).collect();
        "a permit fired for every principal, and no forbid".clone_into(&mut decision.message);
        answer(stated, Outcome::Permit, ReasonCode::Permitted, &self.permits, decision);
    }

    /// Rules that need the step-up, sorted by identity.
    fn grounds(
        &self,
        stated: StatedRules<'_>,
        unmet: &Unmet,
        bounds: &TaskBounds<'_>,
    ) -> Vec<StepUpGround> {
        let policies = self.stepups.iter().map(|placed| {
            let Placed { policy, at, .. } = *placed;
            StepUpGround {
                identity: format!("policy:{}:{}", policy.id, hex(&policy.text_digest)),
                kind: policy.stepup.clone().unwrap_or_default(),
                name: policy.id.clone(),
                reason: policy.reason.clone(),
                at: at.clone(),
                covers: policy.covers.clone(),
            }
        });
        let tier = rules::tier_requirement(stated.plan, stated.tier.tier);
        let requirements = unmet.kinds.iter().map(|kind| StepUpGround {
            identity: format!("tier:{}:{kind}", tier.name),
            kind: (*kind).to_owned(),
            name: tier.name.clone(),
            reason: format!("calls of tier {} need it", tier.name),
            at: tier.at.clone(),
            covers: None,
        });
        let held = bounds.held.iter().flat_map(|held| {
            held.kinds.iter().map(|kind| StepUpGround {
                identity: format!("scope:{}:{}:{kind}", held.task, held.rule.name),
                kind: (*kind).to_owned(),
                name: held.rule.name.clone(),
                reason: held.message.clone(),
                at: held.rule.at.clone(),
                covers: None,
            })
        });
        let mut grounds: Vec<StepUpGround> = policies.chain(requirements).chain(held).collect();
        grounds.sort_by(|a, b| a.identity.cmp(&b.identity));
        grounds.dedup_by(|a, b| a.identity == b.identity);
        grounds
    }

    /// Principals without a permit that fired.
    fn without_permit(&self) -> impl Iterator<Item = &Known> {
        self.unpermitted().map(|(_, known)| known)
    }

    /// Principals without a permit that fired, with their positions in the chain.
    fn unpermitted(&self) -> impl Iterator<Item = (usize, &Known)> {
        let all = self.chain.iter().zip(&self.permitted).enumerate();
        all.filter(|(_, (_, permitted))| !**permitted)
            .map(|(position, (known, _))| (position, known.as_ref()))
    }

    fn why(&self, reason: ReasonCode, unmet: &Unmet, stated: StatedRules<'_>) -> String {
        match reason {
            ReasonCode::PolicyError => {
                self.failed.first().map_or_else(String::new, |(placed, how)| {
                    let how: String = how
                        .chars()
                        .map(|c| if c.is_control() { ' ' } else { c })
                        .take(300)
                        .collect();
                    format!(
                        "forbid `{}` ({}:{}) failed: {how}",
                        placed.policy.id, placed.at.file, placed.at.line
                    )
                })
            }
            ReasonCode::Forbidden => self.forbids.first().map_or_else(String::new, |placed| {
                format!(
                    "forbid `{}` ({}:{}) fired",
                    placed.policy.id, placed.at.file, placed.at.line
                )
            }),
            ReasonCode::TierRequirement => {
                let missing = join(unmet.hopeless.iter().copied());
                format!("{} requires {missing}", stated.requirement())
            }
            _ => {
                let names: Vec<String> = self.without_permit().map(Known::uid).collect();
                format!("no permit fired for {}", names.join(", "))
            }
        }
    }
}

/// Rules beside policies that may determine the outcome.
#[derive(Clone, Copy)]
pub(super) struct StatedRules<'a> {
    pub(super) plan: &'a Plan,
    pub(super) operation: &'a Operation,
    pub(super) tier: TierFacts<'a>,
}

impl StatedRules<'_> {
    /// The requirements of the tier, and the sources of the call's tier.
    fn of_tier(self) -> Vec<DecidingRule> {
        vec![
            rules::tier_requirement(self.plan, self.tier.tier),
            rules::tier_origin(self.plan, self.operation, self.tier),
        ]
    }

    /// The tier and the entry of the bundle that states its requirements, for messages.
    fn requirement(self) -> String {
        let rule = rules::tier_requirement(self.plan, self.tier.tier);
        match rule.at.file.as_str() {
            "" => format!("tier {}", rule.name),
            file => format!("tier {} ({file}:{})", rule.name, rule.at.line),
        }
    }

    fn of_denial(self, reason: ReasonCode) -> Vec<DecidingRule> {
        match reason {
            ReasonCode::TierRequirement => self.of_tier(),
            ReasonCode::NotPermitted | ReasonCode::ChainNotPermitted => {
                vec![rules::default_deny(self.plan, self.operation)]
            }
            _ => Vec::new(),
        }
    }
}

fn answer(
    StatedRules { plan, operation, .. }: StatedRules<'_>,
    outcome: Outcome,
    reason: ReasonCode,
    determining: &[&Placed],
    decision: &mut Decision,
) {
    decision.outcome = outcome;
    decision.reason = reason;
    let sorted = |all: BTreeSet<&str>| all.into_iter().map(str::to_owned).collect();
    let by_id: BTreeMap<&str, &Placed> =
        determining.iter().map(|placed| (placed.policy.id.as_str(), *placed)).collect();
    decision.policies = by_id.keys().map(|id| (*id).to_owned()).collect();
    decision.places = by_id.values().map(|placed| placed.at.clone()).collect();
    decision.policy_digests = by_id.values().map(|placed| placed.policy.text_digest).collect();
    decision.controls = sorted(
        determining.iter().flat_map(|placed| &placed.policy.controls).map(String::as_str).collect(),
    );
    if plan.model().show_reason.contains(&operation.system) {
        let first = determining.iter().min_by_key(|placed| &placed.policy.id);
        let reason = first.map(|placed| placed.policy.reason.clone());
        decision.shown_reason = reason.filter(|reason| !reason.is_empty());
    }
}

pub(super) fn reason_of(kind: &str) -> ReasonCode {
    match kind {
        "confirm" => ReasonCode::ConfirmRequired,
        "approve" | "two_person" => ReasonCode::ApprovalRequired,
        _ if kind.starts_with("approve:") => ReasonCode::ApprovalRequired,
        _ if kind.starts_with("reauth:") => ReasonCode::ReauthRequired,
        _ => ReasonCode::ProofRequired,
    }
}

fn is_of_server(obligation: &str) -> bool {
    Obligation::parse(obligation).is_ok_and(|obligation| obligation.is_of_server())
}

fn join<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// The worse of two results of one policy for two destinations: a forbid that fires for one counts, a permit that
/// does not fire for one counts for none, and a failure is never hidden.
pub(super) fn worse(effect: PolicyEffect, one: Verdict, other: Verdict) -> Verdict {
    let rank = |verdict: &Verdict| match (effect, verdict) {
        (_, Verdict::Failed(_)) => 2,
        (PolicyEffect::Forbid, Verdict::Fired) | (PolicyEffect::Permit, Verdict::NotFired) => 1,
        (PolicyEffect::Forbid, Verdict::NotFired) | (PolicyEffect::Permit, Verdict::Fired) => 0,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// Notes one result for each principal that it holds for.
pub(super) fn trace(
    placed: &Placed,
    chain: &[Arc<Known>],
    whom: Option<usize>,
    (verdict, is_observed): (&Verdict, bool),
    trace: &mut Vec<Judged>,
) {
    for (index, known) in chain.iter().enumerate() {
        if whom.is_none_or(|whom| whom == index) {
            trace.push(Judged {
                policy: placed.policy.id.clone(),
                at: placed.at.clone(),
                principal: known.uid(),
                effect: placed.policy.effect,
                result: verdict.clone(),
                reason: placed.policy.reason.clone(),
                is_observed,
            });
        }
    }
}
