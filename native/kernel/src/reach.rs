//! What a request could have become that stopped before it was judged: the tiers that its operation could have, and the
//! systems that its host serves.

use std::collections::BTreeMap;

use serde::Serialize;
use smallvec::SmallVec;

use crate::decision::{Principal, ReasonCode, Time};
use crate::mode::{Asked, Target, TierSet};
use crate::model::{Model, Operation, Tier};
use crate::plan::Plan;
use crate::routes::is_host;
use crate::schema::OWN_SYSTEM;

/// Tiers by operation and system, and systems by host.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Tiers that some operation of the system could have.
    systems: BTreeMap<String, TierSet>,
    /// Systems with a route or an origin of the host, without its port.
    hosts: BTreeMap<String, Vec<String>>,
    /// Systems with a route for every host.
    everywhere: Vec<String>,
}

/// Systems that a request of some host may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<'a> {
    /// Their ids, sorted.
    pub systems: Vec<&'a str>,
    /// It may also be for a system that the bundle does not have.
    pub has_others: bool,
}

/// How far a call was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// It was judged whole: its system and its effective tier are known.
    Judged {
        /// The system.
        system: &'a str,
        /// The effective tier.
        tier: Tier,
    },
    /// It stopped early; this is its operation, by id.
    Operation(&'a str),
    /// It stopped before its operation was found: it may be for any of these systems, by id; an empty id stands for one that
    /// the bundle does not have.
    Systems(&'a [String]),
}

/// A call that is not permitted.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// The principals that are known.
    pub chain: &'a [Principal],
    /// The chain is that of a task.
    pub has_task: bool,
    /// How far it was found out.
    pub place: Place<'a>,
    /// Why it is not permitted.
    pub reason: ReasonCode,
    /// The request was read whole, in the only way it can be read.
    pub understood: bool,
}

/// Requests that are enforced under a `mode` that observes, since they stop before it is known what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EarlyStops<'a> {
    /// Entries for agents that enforce: a request whose agents are not all known may be theirs.
    pub agents: Vec<&'a str>,
    /// Systems that are observed, but for some of the requests that stop early.
    pub systems: Vec<EarlyStop<'a>>,
}

/// Requests of an observed system that are enforced where they stop early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EarlyStop<'a> {
    /// The system.
    pub system: &'a str,
    /// Those without a route or an operation are.
    pub unplaced: bool,
    /// Operations of which they are, sorted: bad arguments, no task, no credential.
    pub operations: Vec<&'a str>,
    /// The tiers that the requests could have had and that are enforced, from the lowest.
    pub tiers: Vec<&'static str>,
}

impl Reach {
    pub(crate) fn of(model: &Model) -> Self {
        let mut reach = Self::default();
        for system in model.systems.keys() {
            reach.systems.insert(system.clone(), TierSet::UNKNOWN);
        }
        for operation in &model.operations {
            let known = reach.systems.entry(operation.system.clone()).or_insert(TierSet::UNKNOWN);
            *known = known.union(tiers_of(model, operation));
        }
        let origins = model.systems.iter().filter_map(|(id, system)| {
            let host = system.origin.split_once("://").map(|(_, host)| host)?;
            Some((Some(host), id.as_str()))
        });
        for (host, system) in model.routes.served().chain(origins) {
            let systems = match host.map(bare) {
                None => &mut reach.everywhere,
                Some(Some(host)) => reach.hosts.entry(host).or_default(),
                // No request can have it.
                Some(None) => continue,
            };
            if let Err(place) = systems.binary_search_by(|known| known.as_str().cmp(system)) {
                systems.insert(place, system.to_owned());
            }
        }
        reach
    }
}

/// The tiers that calls of an operation may have: its own, and those that a destination, a label or denials raise it to.
pub(crate) fn tiers_of(model: &Model, operation: &Operation) -> TierSet {
    let own = TierSet::of(operation.tier);
    if operation.system == OWN_SYSTEM {
        return own;
    }
    // Any session may carry any label.
    let classes = model.raises.classes.values().filter(|_| operation.destination.is_some());
    let raises = classes.chain(model.raises.labels.values());
    let all = raises.fold(own, |all, tier| all.raised_to(*tier));
    if model.denials.is_some() { all.raised_by_one() } else { all }
}

/// A host as every server reads it: lower case, without port and last dot; none where servers may read it differently.
fn bare(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => host.get(..address.len().saturating_add(2))?,
        None => host.split(':').next()?,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (is_host(&host) || is_host(name)).then(|| name.to_owned())
}

impl Plan {
    /// Whether a call that is not permitted is let through all the same, since everything that it could have become is
    /// observed.
    #[must_use]
    pub fn softens(&self, refused: &Refused<'_>, now: Time) -> bool {
        let Refused { chain, has_task, place, reason, understood } = *refused;
        let targets: SmallVec<[Target<'_>; 2]> = match place {
            Place::Judged { system, tier } => {
                SmallVec::from_iter([Target { system, tiers: TierSet::of(tier) }])
            }
            Place::Operation(id) => {
                let system = id.split_once('.').map_or("", |(system, _)| system);
                let tiers = self.tiers_of(id).unwrap_or_else(|| self.tiers_in(system));
                SmallVec::from_iter([Target { system, tiers }])
            }
            Place::Systems(systems) => systems
                .iter()
                .map(|system| Target { system, tiers: self.tiers_in(system) })
                .collect(),
        };
        let is_judged = matches!(place, Place::Judged { .. });
        let has_agent = chain.iter().any(|one| matches!(one, Principal::Agent { .. }));
        // Without its task, a call may be that of any agent above its caller.
        let has_all_agents = has_agent && (is_judged || has_task || !self.delegates());
        let asked = Asked { chain, has_all_agents, targets: &targets };
        self.model().modes.softens(&asked, reason, understood, now)
    }

    /// Whether an agent may hand on a part of its task to another.
    fn delegates(&self) -> bool {
        self.model().templates.values().any(|template| template.max_depth > 0)
    }

    /// The tiers that calls of an operation may have; none where the catalog does not have it. Of one that is split: those
    /// of its cases.
    #[must_use]
    pub fn tiers_of(&self, id: &str) -> Option<TierSet> {
        let one = |id: &str| self.prepared(id).map(|(_, own)| own.tiers);
        match self.model().splits.get(id) {
            Some(split) => split.cases.values().filter_map(|case| one(case)).reduce(TierSet::union),
            None => one(id),
        }
    }

    /// The tiers that calls of a system may have, whatever their operation; that of one that the catalog does not have
    /// among them.
    #[must_use]
    pub fn tiers_in(&self, system: &str) -> TierSet {
        self.reach.systems.get(system).copied().unwrap_or(TierSet::UNKNOWN)
    }

    /// The systems that a request to a host may be for. Where it is not certain which host that is: all.
    #[must_use]
    pub fn systems_at(&self, host: &str) -> Served<'_> {
        let reach = &self.reach;
        let Some(host) = bare(host) else {
            let systems = self.systems().keys().map(String::as_str).collect();
            return Served { systems, has_others: true };
        };
        let own = reach.hosts.get(&host);
        let mut systems: Vec<&str> =
            own.into_iter().flatten().chain(&reach.everywhere).map(String::as_str).collect();
        systems.sort_unstable();
        systems.dedup();
        Served { systems, has_others: own.is_none() }
    }

    /// What `mode` enforces of what stops early, although it observes the calls themselves. For people.
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
            let targets = [Target { system, tiers }];
            let asked = Asked { chain: &[], has_all_agents: true, targets: &targets };
            self.model().modes.observes(&asked, now)
        };
        let mut of_all = TierSet::UNKNOWN;
        let mut operations = Vec::new();
        for operation in self.operations().iter().filter(|one| one.system == system) {
            let tiers = self.tiers_of(&operation.id).unwrap_or(TierSet::UNKNOWN);
            of_all = of_all.union(tiers);
            // What is enforced in any case needs no mention.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_of_a_host() {
        for (host, expected) in [
            ("crm.example", Some("crm.example")),
            ("CRM.example:8443", Some("crm.example")),
            ("crm.example.", Some("crm.example")),
            ("crm.example.:80", Some("crm.example")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("crm.example:x", Some("crm.example")),
            ("", None),
            (":80", None),
            ("a@crm.example", None),
            ("crm.example..", None),
            ("crm.example,crm.example", None),
            ("crm..example", None),
            ("crm\u{ff0e}example", None),
            ("[::1", None),
            (" crm.example", None),
        ] {
            assert_eq!(expected, bare(host).as_deref(), "{host:?}");
        }
    }
}
