//! Headers that decide the operation of a request or its arguments.

use super::{RouteTable, relayed};
use crate::mcp::{READ_HEADERS, is_parameter};

/// Headers that describe the body.
const OF_BODY: [&str; 5] =
    ["content-encoding", "content-length", "content-type", "host", "transfer-encoding"];

impl RouteTable {
    /// The names, in lower case and maybe repeated, for which [`RouteTable::reads_header`] is true.
    pub fn read_headers(&self) -> impl Iterator<Item = &str> {
        let of_routes = self.routes.iter().flat_map(|route| {
            let conditions = route.headers.iter().map(|(name, _)| name.as_str());
            let arguments = route.header_arguments.iter().map(|(name, ..)| name.as_str());
            let of_messages = route.mcp.iter().flat_map(|endpoint| {
                let of_tools = endpoint.tools.values().flat_map(|tool| &tool.headers);
                READ_HEADERS.into_iter().chain(of_tools.map(|header| header.name.as_str()))
            });
            conditions.chain(arguments).chain(of_messages)
        });
        let of_body = OF_BODY.iter().copied();
        relayed::names().chain(of_body).chain(of_routes)
    }

    /// Whether a header, by its name in lower case, can change the operation or its arguments.
    ///
    /// A caller that cannot show the value of such a header to [`RouteTable::resolve`] must refuse the request. Otherwise the
    /// header would be judged as absent, while the upstream reads it.
    #[must_use]
    pub fn reads_header(&self, name: &str) -> bool {
        relayed::treatment(name).is_some()
            || OF_BODY.contains(&name)
            || self.routes.iter().any(|route| {
                route.headers.iter().any(|(wanted, _)| wanted == name)
                    || route.header_arguments.iter().any(|(header, ..)| header == name)
                    || (route.mcp.is_some() && (READ_HEADERS.contains(&name) || is_parameter(name)))
            })
    }
}
