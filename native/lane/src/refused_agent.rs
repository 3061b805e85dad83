//! The agent of a call that was refused before it was known who asks, for the audit.
//!
//! INVARIANT (no hiding among unverified callers): refusals of unverified callers are summed up. An agent that
//! puts something else beside its own good credential, such as a bad subject token or arguments that are too long, must not
//! have its requests summed up with theirs. So its credential is verified alone, and the record names it. Nothing else
//! depends on that: the request stays refused, and no decision is made for the agent.

use std::sync::Arc;

use authz_token::{AgentFacts, Evidence, Role};

use crate::engine::Engine;
use crate::judgement::Arrival;
use crate::request::{self, AgentClaim};
use crate::transport::Transport;
use crate::world::Loaded;

/// Credentials that are tried: an SVID and a task credential.
const MAX_TRIED: usize = 2;

impl Engine {
    /// Verifies the agent of a call that is refused before its evidence is verified; none where no credential is good, or where
    /// the caller may not ask at all.
    pub(crate) fn agent_of_refused(
        &self,
        arrival: &Arrival,
        claim: &AgentClaim<'_>,
        transport: &Transport<'_>,
    ) -> Option<Arc<AgentFacts>> {
        let world = self.admit(arrival, transport).ok()?;
        let relayed = claim.relayed.map(|relayed| self.verify_relayed(arrival, &world, relayed));
        if let Some(Ok(agent)) = relayed {
            return Some(Arc::new(agent));
        }
        let own = transport.authorization.filter(|_| arrival.asks_itself);
        let own = own.and_then(|value| {
            let (scheme, token) = request::split_authorization(value).ok()?;
            request::read_credential(world.role_of(token), scheme, token, None, &self.settings).ok()
        });
        let evidence: Vec<Evidence<'_>> = claim.evidence.iter().copied().chain(own).collect();
        self.agent_among(arrival, &world, &evidence)
    }

    /// Verifies each agent's credential alone; none where no credential is good.
    pub(crate) fn agent_among(
        &self,
        arrival: &Arrival,
        world: &Loaded,
        evidence: &[Evidence<'_>],
    ) -> Option<Arc<AgentFacts>> {
        let mut agents = evidence.iter().filter(|item| item.role == Role::Agent).take(MAX_TRIED);
        agents.find_map(|item| {
            let alone = std::slice::from_ref(item);
            self.verify_evidence(arrival, world, alone, None).ok()?.agent
        })
    }
}

/// True if refused evidence may hold a valid credential of an agent. `role` is the role of the refused credential; `None`: the
/// evidence as a whole was refused.
pub(crate) fn may_hold_agent(evidence: &[Evidence<'_>], role: Option<Role>) -> bool {
    let agents = evidence.iter().filter(|item| item.role == Role::Agent).count();
    // The only one, which was refused itself, need not be verified again.
    agents > 1 || (agents == 1 && role != Some(Role::Agent))
}
