//! Which headers decide what a request is.

use super::{OVERRIDES, RouteTable};

/// Headers that say what a body is.
const OF_BODY: [&str; 5] =
    ["content-encoding", "content-length", "content-type", "host", "transfer-encoding"];

impl RouteTable {
    /// Whether a header, by its name in lower case, can change the operation or its arguments.
    ///
    /// Who cannot show such a header's value to [`RouteTable::resolve`] must refuse the request: left out, it would be judged
    /// as absent, while the upstream reads it.
    #[must_use]
    pub fn reads_header(&self, name: &str) -> bool {
        OVERRIDES.contains(&name)
            || OF_BODY.contains(&name)
            || self.routes.iter().any(|route| {
                route.headers.iter().any(|(wanted, _)| wanted == name)
                    || route.header_arguments.iter().any(|(header, ..)| header == name)
            })
    }
}
