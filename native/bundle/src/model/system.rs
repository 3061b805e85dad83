//! Systems: MCP servers and APIs, and their tools.

use crate::location::Location;

/// An MCP server or API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Kind of its interface.
    pub kind: SystemKind,
    /// `https://host[:port]`, without path; empty if the bundle names no origin.
    pub origin: String,
    /// Headers, sorted, that requests may bring beside a static secret and beside the headers that every request may bring.
    pub headers: Vec<String>,
    /// Who reports the results of its operations.
    pub reports: Reports,
    /// Place in the bundle.
    pub at: Location,
}

/// The kind of a system's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemKind {
    /// A plain HTTP API, or an API whose calls come over gRPC only.
    Http,
    /// An MCP server.
    Mcp,
}

/// Who reports the results of the permitted operations of a system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reports {
    /// No one: a permitted call counts as done, and its results carry every label that they may carry.
    #[default]
    Never,
    /// The enforcer that asked, by `Report`.
    Sdk,
    /// The proxy that asked, by its access log, which names no labels.
    AccessLog,
}

/// SHA-256 of a tool of an MCP server.
pub type ToolDigest = [u8; 32];

/// A header that repeats an argument of a tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParameterHeader {
    /// Its name in lower case: `mcp-param-…`.
    pub name: String,
    /// Names of members from the arguments to the value.
    pub path: Vec<String>,
}

/// A tool of an MCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The id of its operation.
    pub operation: String,
    /// Digest of the tool as the catalog describes it now.
    pub digest: ToolDigest,
    /// Digest of the tool as a person accepted it. Default: not accepted.
    pub accepted: Option<ToolDigest>,
    /// The headers that repeat its arguments.
    pub headers: Vec<ParameterHeader>,
}

/// Form of a refusal at an MCP endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenyAs {
    /// As the result of the tool, with `isError`.
    #[default]
    ToolResult,
    /// As a JSON-RPC error.
    JsonrpcError,
    /// By the HTTP status.
    Http,
}
