//! Admit: may this listener and this enforcer ask at all, and can the node decide anything now?

use std::sync::Arc;

use authz_kernel::reason::ReasonCode;
use authz_token::{UnixTime, verify_peer, verify_pem};

use crate::engine::{Engine, seconds};
use crate::judgement::{
    Arrival, Asker, CallerIdentity, EnforcerProof, Judgement, ResolvedOperation, TaskContext,
};
use crate::keeper::check_set;
use crate::refusal::{CallRefusal, Step};
use crate::request::AgentClaim;
use crate::settings::Surface;
use crate::steps::{Call, EndedCall, Staged};
use crate::transport::{PeerChain, Transport};
use crate::world::{Loaded, Way};

/// A call that may be judged.
#[derive(Debug)]
pub struct AdmittedCall {
    pub(crate) arrival: Arrival,
    /// Snapshot of bundle, keys and listeners that the call is judged by.
    pub(crate) world: Arc<Loaded>,
}

/// Admits a call: a bundle is loaded, there is time left, and the listener answers the caller on this surface.
///
/// # Errors
/// The call as refused (UNAVAILABLE, DEADLINE, ENFORCER_REFUSED, or the reason of a certificate that proves nothing).
pub fn admit<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    arrival: Arrival,
) -> Staged<'a, AdmittedCall> {
    match engine.admit(&arrival, call.transport) {
        Ok(world) => {
            Ok(AdmittedCall { arrival: Arrival { probe: call.request.probe, ..arrival }, world })
        }
        Err(refused) => {
            Err(EndedCall::refused(Judgement::of(arrival), call.request.evidence.clone(), refused))
        }
    }
}

/// Ends a call whose message cannot be read. A refusal by [`admit()`] comes first.
///
/// `claim` is the agent as far as the message can be read. The record names it.
pub(crate) fn refuse_unread<'a>(
    engine: &Engine,
    transport: &Transport<'_>,
    arrival: Arrival,
    claim: AgentClaim<'a>,
    refused: CallRefusal,
) -> EndedCall<'a> {
    let refused_agent = engine.agent_of_refused(&arrival, &claim, transport);
    let refused = engine.admit(&arrival, transport).err().unwrap_or(refused);
    let caller = CallerIdentity { refused_agent, ..CallerIdentity::default() };
    let (resolved, context) = (ResolvedOperation::default(), TaskContext::default());
    let record = Judgement::unjudged(arrival, caller, resolved, context).refused(refused);
    EndedCall { record: Box::new(record), evidence: claim.evidence, kept: None }
}

impl Engine {
    /// Makes the arrival of a call that comes now.
    pub(crate) fn arrival(
        &self,
        surface: Surface,
        world: Option<Arc<Loaded>>,
        transport: &Transport<'_>,
    ) -> Arrival {
        let mut arrival = Arrival::new(self.clock.new_id(), self.clock.now_ms(), surface, None);
        if let Some(world) = &world
            && let Some(way) = world.way(transport.listener)
        {
            // The name of a listener that is not configured is a text of the caller.
            transport.listener.clone_into(&mut arrival.listener);
            match self.asker(world, way, transport, seconds(arrival.now_ms)) {
                Ok(asker) => {
                    arrival.asks_itself = asker.enforcer.is_none();
                    arrival.asker = asker;
                }
                Err(refused) => arrival.stranger = Some(refused),
            }
        }
        arrival.world = world;
        arrival
    }

    /// The caller: the listener's enforcer, or the workload of the TLS certificate.
    fn asker(
        &self,
        world: &Loaded,
        way: &Way,
        transport: &Transport<'_>,
        now: UnixTime,
    ) -> Result<Asker, CallRefusal> {
        if let Some(enforcer) = &way.enforcer {
            if !enforcer.is_of(transport.peer_uid) {
                return Err(CallRefusal::new(
                    ReasonCode::EnforcerRefused,
                    Step::Identify,
                    "the process runs as none of the users of the listener's enforcer",
                ));
            }
            let known =
                if way.insecure_dev { EnforcerProof::InsecureDev } else { EnforcerProof::Listener };
            return Ok(Asker { enforcer: Some(Arc::clone(enforcer)), known, peer: None });
        }
        let trust = &world.trust;
        let verified = match transport.peer_chain {
            PeerChain::None if way.mutual => verify_peer(&[], trust, &self.certificates, now),
            PeerChain::None => return Ok(Asker::default()),
            PeerChain::Der(chain) => verify_peer(chain, trust, &self.certificates, now),
            PeerChain::Pem { leaf, intermediates } => {
                verify_pem(leaf, intermediates, trust, &self.certificates, now)
            }
        };
        // INVARIANT (no downgrade): a caller that shows a certificate is its workload or is refused, never anonymous.
        let peer = verified.map_err(|refusal| CallRefusal::of_token(&refusal))?;
        let enforcer = world.enforcer_of(&peer.spiffe_id).cloned();
        let known = if enforcer.is_some() { EnforcerProof::Certificate } else { EnforcerProof::No };
        Ok(Asker { enforcer, known, peer: Some(peer) })
    }

    /// The snapshot that a call is judged by.
    ///
    /// # Errors
    /// No bundle is loaded, the call is late, or the listener does not answer the caller on this surface.
    pub(crate) fn admit(
        &self,
        arrival: &Arrival,
        transport: &Transport<'_>,
    ) -> Result<Arc<Loaded>, CallRefusal> {
        let Some(world) = arrival.world.clone() else {
            return Err(CallRefusal::new(
                ReasonCode::Unavailable,
                Step::Identify,
                "no bundle is loaded",
            ));
        };
        self.in_time(transport, Step::Identify)?;
        // The clock is checked before any expiry, the caller's certificate included.
        check_set(arrival.now_ms)?;
        self.keeper.check_clock()?;
        if let Some(refused) = &arrival.stranger {
            return Err(refused.clone());
        }
        let way = world.way(transport.listener);
        let refuse = |message: &str| {
            Err(CallRefusal::new(ReasonCode::EnforcerRefused, Step::Identify, message))
        };
        let is_enforcer = arrival.asker.enforcer.is_some();
        match way {
            None => refuse("the call came by a listener that is not configured"),
            Some(way) if !way.answers(arrival.surface) => {
                refuse("the listener does not answer this")
            }
            Some(_) if arrival.surface == Surface::ExtAuthz && !is_enforcer => {
                refuse("the caller is not an enforcer, so no proxy is answered")
            }
            Some(_) => Ok(world),
        }
    }
}
