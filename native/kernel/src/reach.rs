//! Tiers of operations, and systems of hosts: the calls that a request may be which stops before it is judged.

use std::collections::BTreeMap;

use crate::mode::TierSet;
use crate::model::{Model, Operation};
use crate::routes::{RouteTable, is_host};
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

/// Systems that a request to a host may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSystems<'a> {
    /// Their ids, sorted.
    pub systems: Vec<&'a str>,
    /// The request may also be for a system that the bundle lacks.
    pub has_others: bool,
}

impl Reach {
    /// Compiles the tiers and hosts of a bundle.
    pub(crate) fn of(model: &Model, routes: &RouteTable) -> Self {
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
        for (host, system) in routes.hosts().chain(origins) {
            let systems = match host.map(bare) {
                None => &mut reach.everywhere,
                Some(Some(host)) => reach.hosts.entry(host).or_default(),
                // No request can have such a host.
                Some(None) => continue,
            };
            if let Err(place) = systems.binary_search_by(|known| known.as_str().cmp(system)) {
                systems.insert(place, system.to_owned());
            }
        }
        reach
    }

    /// The tiers that calls of a system may have, also of an operation that the catalog lacks.
    pub(crate) fn tiers_in(&self, system: &str) -> TierSet {
        self.systems.get(system).copied().unwrap_or(TierSet::UNKNOWN)
    }

    /// The systems that a request to a host may be for. All systems of `model` if it is not certain which host the request
    /// is for.
    pub(crate) fn systems_at<'a>(&'a self, model: &'a Model, host: &str) -> HostSystems<'a> {
        let Some(host) = bare(host) else {
            let systems = model.systems.keys().map(String::as_str).collect();
            return HostSystems { systems, has_others: true };
        };
        let own = self.hosts.get(&host);
        let mut systems: Vec<&str> =
            own.into_iter().flatten().chain(&self.everywhere).map(String::as_str).collect();
        systems.sort_unstable();
        systems.dedup();
        HostSystems { systems, has_others: own.is_none() }
    }
}

/// The tiers that calls of an operation may have: its own, and those to which a destination, a label or denials raise it.
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

/// A host in the form that every server reads: lower case, without port and last dot. `None`: servers may read it differently.
fn bare(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => host.get(..address.len().saturating_add(2))?,
        None => host.split(':').next()?,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (is_host(&host) || is_host(name)).then(|| name.to_owned())
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
