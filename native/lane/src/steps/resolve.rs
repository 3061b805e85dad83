//! Resolve: which operation does the request ask for?

use authz_kernel::mcp::Envelope;
use authz_kernel::model::Tier;

use crate::asked::Asked;
use crate::metrics::SystemId;

/// The operation that a request asks for, or what is known of the request where it asks for none.
#[derive(Debug, Default)]
pub(crate) struct ResolvedOperation {
    /// Operation id; empty unless the catalog has it.
    pub(crate) operation: String,
    pub(crate) system: SystemId,
    pub(crate) tier: Option<Tier>,
    /// Index of the matched route.
    pub(crate) route: Option<usize>,
    /// The message that came to an MCP endpoint.
    pub(crate) mcp: Option<Envelope>,
    /// The system that is asked for an operation which it does not have; empty otherwise.
    pub(crate) unknown_in: String,
    /// Systems that the request may be for, where neither operation nor system was found; an empty id stands for a system
    /// that the bundle does not have.
    pub(crate) may_be_for: Vec<String>,
    /// The request may be for an operation or a system that is revoked, so `mode` does not let it through.
    pub(crate) may_be_revoked: bool,
    /// The proxy cut the body off.
    pub(crate) is_cut_off: bool,
    /// Form of the request, where no operation was found.
    pub(crate) asked: Option<Asked>,
}
