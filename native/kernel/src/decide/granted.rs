//! The task credential of a request: whether it was issued for this request.

use crate::decision::{Decision, Facts, Grant, ReasonCode};
use crate::hex::write_hex;
use crate::model::Operation;
use crate::schema::OWN_SYSTEM;

use super::RequestRefusal;
use super::resolve::Resolved;

/// The grant that covers a request, and its place among all; none where no credential is presented.
pub(super) type GrantCover<'a> = Option<(usize, &'a Grant<'a>)>;

/// Finds the grant of the presented credential that covers exactly this request, and is not used up.
///
/// INVARIANT (before policy): a request that is beyond its credential is not judged. A tool server holds credentials that
/// were used, and the agent did not make the requests with them: these must neither count as a denial of the agent's, nor
/// advance a rule, nor end a task.
///
/// Args: `decision`: holds what the request acts on already.
pub(super) fn covering<'a>(
    facts: &Facts<'a>,
    operation: &Operation,
    resolved: &Resolved<'_>,
    decision: &Decision,
) -> Result<GrantCover<'a>, RequestRefusal> {
    // Credentials are issued for other systems, never for this server's own operations.
    let Some(granted) = facts.granted.filter(|_| operation.system != OWN_SYSTEM) else {
        return Ok(None);
    };
    let mut text = [0; 64];
    let digest = decision.arguments_digest.map(|digest| {
        write_hex(&digest, &mut text);
        text
    });
    let digest = digest.as_ref().map(<[u8; 64]>::as_slice);
    // INVARIANT (never wider): every member that was decided is compared, and none may be missing on one side.
    let is_it = |grant: &Grant<'_>| {
        grant.operation == operation.id
            && resolved.is_named(grant.resource)
            && grant.arguments_digest.map(str::as_bytes) == digest
            && grant.destinations == decision.destinations
    };
    let mut same = granted.iter().enumerate().filter(|(_, grant)| is_it(grant)).peekable();
    if same.peek().is_none() {
        return Err(RequestRefusal::new(
            ReasonCode::OutOfScope,
            "the task credential was issued for another operation, resource, destination or arguments",
        ));
    }
    match same.find(|(_, grant)| !grant.is_redeemed) {
        Some(grant) => Ok(Some(grant)),
        None => Err(RequestRefusal::new(
            ReasonCode::UsesExhausted,
            "the task credential was used for this before",
        )),
    }
}
