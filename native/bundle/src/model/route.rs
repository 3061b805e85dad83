//! HTTP routes: the operation of a request, and the sources of its arguments.

use std::borrow::Cow;

use crate::built_in::OWN;
use crate::location::{Declared, Location};

/// An HTTP route of a bundle.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// `host` or `host:port`. Default: any host.
    pub host: Option<Declared<String>>,
    /// Literal and `{name}` segments.
    pub path: Declared<String>,
    /// Headers that a request has exactly once, with exactly this value.
    pub headers: Vec<(Declared<String>, String)>,
    /// Destination of the route: an operation or an MCP endpoint.
    pub target: RouteTarget,
    /// Argument names and their sources.
    pub arguments: Vec<(String, Declared<ArgumentSource>)>,
    /// Parts of a request that are not arguments.
    pub ignore: Vec<Declared<IgnoredPart>>,
    /// Types of the body that the route reads. Default (empty): `application/json`.
    pub content_types: Vec<Declared<String>>,
    /// The upstream gets the evidence in `authorization`, and its proof.
    pub forward_authorization: bool,
    /// Place of the route in the bundle.
    pub at: Location,
}

impl RouteSpec {
    /// The system that the route leads to.
    #[must_use]
    pub fn system(&self) -> &str {
        match &self.target {
            RouteTarget::Operation { id, .. } => {
                id.split_once('.').map_or("", |(system, _)| system)
            }
            RouteTarget::McpEndpoint { system } => system,
        }
    }

    /// The method. Routes to an MCP endpoint are shown as `POST`.
    #[must_use]
    pub fn method(&self) -> &str {
        match &self.target {
            RouteTarget::Operation { method, .. } => &method.value,
            RouteTarget::McpEndpoint { .. } => "POST",
        }
    }

    /// Id of the operation. At an MCP endpoint, the operation of the protocol's own messages.
    #[must_use]
    pub fn operation_id(&self) -> Cow<'_, str> {
        match &self.target {
            RouteTarget::Operation { id, .. } => id.into(),
            RouteTarget::McpEndpoint { system } => format!("{system}.{OWN}").into(),
        }
    }

    /// Whether the route leads to an MCP endpoint.
    #[must_use]
    pub const fn is_mcp(&self) -> bool {
        matches!(self.target, RouteTarget::McpEndpoint { .. })
    }
}

/// Destination of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// An operation, for one method.
    Operation {
        /// The method, upper case.
        method: Declared<String>,
        /// Id of an operation of the catalog.
        id: String,
    },
    /// The MCP endpoint of a system, for every method of such an endpoint. The message names the operation.
    McpEndpoint {
        /// Id of an MCP system.
        system: String,
    },
}

/// Source of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentSource {
    /// A `{name}` segment of the path.
    Path(String),
    /// A member of the query.
    Query(String),
    /// A header, in lower case.
    Header(String),
    /// A JSON pointer into the body.
    Json(String),
}

/// A part of a request that is not an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IgnoredPart {
    /// A `{name}` segment of the path.
    Path(String),
    /// A member of the query.
    Query(String),
    /// A JSON pointer into the body, with everything below it.
    Json(String),
    /// The whole body, of any kind.
    Body,
}
