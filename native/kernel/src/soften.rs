//! Softening: refused calls that `mode` only observes.

use serde::Serialize;
use smallvec::SmallVec;

use crate::decision::{DecidingRule, Principal, ReasonCode, RuleKind, Time};
use crate::mode::{ModeQuery, ModeScope, ModeTarget, TierSet};
use crate::model::Tier;
use crate::plan::Plan;
use crate::reach::HostSystems;

/// Knowledge about a call when it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPlace<'a> {
    /// The call was judged: its system and its effective tier are known.
    Judged {
        /// The system.
        system: &'a str,
        /// The effective tier.
        tier: Tier,
    },
    /// The call stopped early; its operation, by id, is known.
    Operation(&'a str),
    /// The call stopped before its operation was found. It may be for any of these systems, by id; an empty id stands for a
    /// system that the bundle lacks.
    Systems(&'a [String]),
}

/// A call that is not permitted.
#[derive(Clone, Copy, Debug)]
pub struct RefusedCall<'a> {
    /// The principals that are known.
    pub chain: &'a [Principal],
    /// The chain is that of a task.
    pub has_task: bool,
    /// Knowledge about the call.
    pub place: CallPlace<'a>,
    /// Reason of the refusal.
    pub reason: ReasonCode,
    /// The request was read completely and has one meaning.
    pub understood: bool,
}

/// Requests that a `mode` with rules that observe still enforces, because they stop before they are known well enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EarlyStops<'a> {
    /// Agents whose rules enforce. A request whose agents are not all known may be theirs.
    pub agents: Vec<&'a str>,
    /// Observed systems, of which some requests that stop early are enforced.
    pub systems: Vec<EarlyStop<'a>>,
}

/// Requests of an observed system that are enforced if they stop early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EarlyStop<'a> {
    /// The system.
    pub system: &'a str,
    /// Requests without a route or an operation are enforced.
    pub unplaced: bool,
    /// Operations, sorted, whose requests with bad arguments, without task or without credential are enforced.
    pub operations: Vec<&'a str>,
    /// Enforced tiers that the requests could have, from the lowest.
    pub tiers: Vec<&'static str>,
}

impl Plan {
    /// Whether a refused call is let through, because `mode` observes each call that it could have been.
    #[must_use]
    pub fn softens(&self, refused: &RefusedCall<'_>, now: Time) -> bool {
        let RefusedCall { chain, has_task, place, reason, understood } = *refused;
        let targets: SmallVec<[ModeTarget<'_>; 2]> = match place {
            CallPlace::Judged { system, tier } => {
                SmallVec::from_iter([ModeTarget { system, tiers: TierSet::of(tier) }])
            }
            CallPlace::Operation(id) => {
                let system = id.split_once('.').map_or("", |(system, _)| system);
                let tiers = self.tiers_of(id).unwrap_or_else(|| self.tiers_in(system));
                SmallVec::from_iter([ModeTarget { system, tiers }])
            }
            CallPlace::Systems(systems) => systems
                .iter()
                .map(|system| ModeTarget { system, tiers: self.tiers_in(system) })
                .collect(),
        };
        let is_judged = matches!(place, CallPlace::Judged { .. });
        let has_agent = chain.iter().any(|one| matches!(one, Principal::Agent { .. }));
        // A call whose task is unknown may belong to any agent above its caller.
        let has_all_agents = has_agent && (is_judged || has_task || !self.delegates());
        let query = ModeQuery { chain, has_all_agents, targets: &targets };
        self.model().modes.softens(&query, reason, understood, now)
    }

    /// The entry of `mode` that lets a refused call through: the most specific one about the call.
    #[must_use]
    pub fn mode_rule(
        &self,
        chain: &[Principal],
        place: CallPlace<'_>,
        now: Time,
    ) -> Option<DecidingRule> {
        let modes = &self.model().modes;
        let (system, tier) = match place {
            CallPlace::Judged { system, tier } => (system, Some(tier)),
            CallPlace::Operation(id) => (id.split_once('.').map_or("", |(system, _)| system), None),
            CallPlace::Systems(systems) => (systems.first().map_or("", String::as_str), None),
        };
        let (scope, rule) = modes.rule_for(system, tier, chain, now)?;
        let name = match scope {
            ModeScope::Default => "default".to_owned(),
            scope => format!("{} {}", scope.kind(), scope.name()),
        };
        Some(DecidingRule { kind: RuleKind::Mode, name, at: rule.at.clone() })
    }

    /// Whether an agent may hand on a part of its task to another.
    fn delegates(&self) -> bool {
        self.model().templates.values().any(|template| template.max_depth > 0)
    }

    /// The tiers that calls of an operation may have. A split operation has the tiers of its cases. `None`: the catalog lacks
    /// the operation.
    #[must_use]
    pub fn tiers_of(&self, id: &str) -> Option<TierSet> {
        let one = |id: &str| self.prepared(id).map(|(_, own)| own.tiers);
        match self.model().splits.get(id) {
            Some(split) => split.cases.values().filter_map(|case| one(case)).reduce(TierSet::union),
            None => one(id),
        }
    }

    /// The tiers that calls of a system may have, also of an operation that the catalog lacks.
    #[must_use]
    pub fn tiers_in(&self, system: &str) -> TierSet {
        self.reach.tiers_in(system)
    }

    /// The systems that a request to a host may be for. All systems if it is not certain which host the request is for.
    #[must_use]
    pub fn systems_at(&self, host: &str) -> HostSystems<'_> {
        self.reach.systems_at(self.model(), host)
    }

    /// Requests that `mode` enforces if they stop early, although it observes the calls themselves. For people.
    #[must_use]
    pub fn early_stops(&self, now: Time) -> EarlyStops<'_> {
        let modes = &self.model().modes;
        if !modes.any_observes(now) {
            return EarlyStops::default();
        }
        let enforced = modes.agents.iter().filter(|(_, entry)| !entry.observes(now));
        let agents = enforced.map(|(agent, _)| agent.as_str()).collect();
        let systems = self.systems().keys().filter_map(|system| self.early_stop(system, now));
        EarlyStops { agents, systems: systems.collect() }
    }

    fn early_stop<'a>(&'a self, system: &'a str, now: Time) -> Option<EarlyStop<'a>> {
        let observes = |tiers| {
            let targets = [ModeTarget { system, tiers }];
            let query = ModeQuery { chain: &[], has_all_agents: true, targets: &targets };
            self.model().modes.observes(&query, now)
        };
        let mut of_all = TierSet::UNKNOWN;
        let mut operations = Vec::new();
        for operation in self.operations().iter().filter(|one| one.system == system) {
            let tiers = self.tiers_of(&operation.id).unwrap_or(TierSet::UNKNOWN);
            of_all = of_all.union(tiers);
            // Operations that are enforced in any case need no mention.
            if observes(TierSet::of(operation.tier)) && !observes(tiers) {
                operations.push(operation.id.as_str());
            }
        }
        let unplaced = observes(TierSet::UNKNOWN) && !observes(of_all);
        if !unplaced && operations.is_empty() {
            return None;
        }
        let tiers = of_all.iter().flatten().filter(|tier| !observes(TierSet::of(*tier)));
        let tiers = tiers.map(Tier::as_str).collect();
        Some(EarlyStop { system, unplaced, operations, tiers })
    }
}
