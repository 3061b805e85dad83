//! Facts about the matched route that the answer to a request depends on.

use smol_str::SmolStr;

use super::RouteTable;
use crate::location::Location;
use crate::model::{ArgumentSource, RouteSpec};

/// Facts about a route that the answer to its requests depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteFacts {
    pub(super) system: SmolStr,
    pub(super) host: Option<SmolStr>,
    pub(super) forward_authorization: bool,
    /// Headers that are conditions or fill arguments.
    pub(super) headers: Vec<SmolStr>,
    /// It leads to an MCP endpoint.
    pub(super) is_mcp: bool,
    pub(super) at: Location,
}

impl RouteFacts {
    pub(super) fn of(spec: &RouteSpec) -> Self {
        let of_arguments = spec.arguments.iter().filter_map(|(_, source)| match &source.value {
            ArgumentSource::Header(name) => Some(name.as_str()),
            ArgumentSource::Path(_) | ArgumentSource::Query(_) | ArgumentSource::Json(_) => None,
        });
        let conditions = spec.headers.iter().map(|(name, _)| name.value.as_str());
        Self {
            system: spec.system().into(),
            host: spec.host.as_ref().map(|host| host.value.as_str().into()),
            forward_authorization: spec.forward_authorization,
            headers: conditions.chain(of_arguments).map(SmolStr::from).collect(),
            is_mcp: spec.is_mcp(),
            at: spec.at.clone(),
        }
    }
}

impl RouteTable {
    /// Whether the evidence in `authorization` goes on to the upstream.
    ///
    /// Args: `route`: index of the route in the order of files and lines.
    #[must_use]
    pub fn forwards_authorization(&self, route: usize) -> bool {
        self.facts.get(route).is_some_and(|entry| entry.forward_authorization)
    }

    /// Whether a request goes to its system: it has the `host` of its route, or that of the system's `origin`.
    ///
    /// A route without a port is for every port, and a caller may choose one where another server listens. So a port
    /// that neither the route nor the origin names must be one of the two that URLs leave out.
    ///
    /// Args: `route`: index of the matched route in the order of files and lines; `host`: of the request; `origin`: of the
    /// route's system, empty where it has none.
    #[must_use]
    pub fn is_at_system(&self, route: usize, host: &str, origin: &str) -> bool {
        if is_of_origin(host, origin) {
            return true;
        }
        let Some(pinned) = self.facts.get(route).and_then(|entry| entry.host.as_deref()) else {
            return false;
        };
        match port(pinned) {
            // The route matched, so the ports are the same.
            Some(_) => true,
            None => port(host).is_none_or(|port| [80, 443].contains(&port)),
        }
    }

    /// Place of the first route of a system that matches requests for every host. `None`: every route has a host.
    #[must_use]
    pub fn without_host(&self, system: &str) -> Option<&Location> {
        let mut entries = self.facts.iter();
        entries.find(|entry| entry.system == system && entry.host.is_none()).map(|entry| &entry.at)
    }
}

/// Whether a request's host is that of an origin, `scheme://host[:port]`.
fn is_of_origin(host: &str, origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default = if scheme == "https" { 443 } else { 80 };
    let name = |host: &'_ str| match port(host) {
        Some(_) => host.rsplit_once(':').map_or(host.len(), |(name, _)| name.len()),
        None => host.len(),
    };
    let (own, theirs) = (authority.get(..name(authority)), host.get(..name(host)));
    let is_same_name =
        own.zip(theirs).is_some_and(|(own, theirs)| own.eq_ignore_ascii_case(theirs));
    is_same_name && port(authority).unwrap_or(default) == port(host).unwrap_or(default)
}

/// The port of `host:port`. Colons of an address in brackets do not begin a port.
fn port(host: &str) -> Option<u16> {
    let (_, port) = host.rsplit_once(':')?;
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| port.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_one_host_and_one_port() {
        for (host, origin, expected) in [
            ("erp.example", "https://erp.example", true),
            ("ERP.example:443", "https://erp.example", true),
            ("erp.example:443", "https://erp.example:443", true),
            ("erp.example:80", "http://erp.example", true),
            ("[::1]:8443", "https://[::1]:8443", true),
            ("[::1]", "https://[::1]", true),
            ("erp.example:8443", "https://erp.example", false),
            ("erp.example:80", "https://erp.example", false),
            ("erp.example", "https://erp.example:8443", false),
            ("erp.example.", "https://erp.example", false),
            ("evil.example", "https://erp.example", false),
            ("erp.example:443:443", "https://erp.example", false),
            ("erp.example:x", "https://erp.example", false),
            ("", "https://erp.example", false),
            ("", "", false),
            ("erp.example", "", false),
        ] {
            assert_eq!(expected, is_of_origin(host, origin), "{host} {origin}");
        }
    }

    #[test]
    fn a_route_pins_its_host_and_the_usual_ports() {
        let entry =
            |host: Option<&str>| RouteFacts { host: host.map(Into::into), ..RouteFacts::default() };
        let facts = vec![entry(None), entry(Some("a.example")), entry(Some("a.example:8080"))];
        let table = RouteTable { facts, ..RouteTable::default() };
        for (route, host, expected) in [
            (0, "a.example", false),
            (1, "a.example", true),
            (1, "a.example:443", true),
            (1, "a.example:80", true),
            (1, "a.example:6666", false),
            (2, "a.example:8080", true),
            (3, "a.example", false),
        ] {
            assert_eq!(expected, table.is_at_system(route, host, ""), "{route} {host}");
        }
        assert!(table.is_at_system(0, "b.example", "https://b.example"));
        assert!(table.is_at_system(1, "a.example:6666", "https://a.example:6666"));
    }
}
