//! Identify: who calls, by the evidence of an API call?

use std::sync::Arc;

use authz_kernel::reason::ReasonCode;
use authz_state::store::Commit;
use authz_token::{AgentProof, Evidence, Role, Scheme, VerifiedFacts};

use crate::api_call::caller::{
    ApiCaller, CallerEvidence, ExchangeTokens, HttpClient, RefusedCaller,
};
use crate::api_call::{ApiMessage, check_admin};
use crate::engine::Engine;
use crate::judgement::{Arrival, Asker, CallerIdentity, EnforcerProof};
use crate::proofs::{NoProvedRequest, ProvedRequest};
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request;
use crate::revoke;
use crate::settings::Surface;
use crate::steps::identify::chain_of;
use crate::steps::record::RecordOrigin;
use crate::transport::Transport;
use crate::world::Loaded;

/// A caller as far as its evidence proves it, also where it is refused.
struct ProvedCaller<'m> {
    arrival: Arrival,
    identity: CallerIdentity,
    evidence: Vec<Evidence<'m>>,
    is_owner: bool,
    result: Result<(), CallRefusal>,
}

impl<'m> ProvedCaller<'m> {
    /// A caller without evidence.
    fn without_evidence(arrival: Arrival) -> Self {
        let (identity, evidence) = (CallerIdentity::default(), Vec::new());
        Self { arrival, identity, evidence, is_owner: false, result: Ok(()) }
    }

    fn refused(self, refused: CallRefusal) -> Self {
        Self { result: Err(refused), ..self }
    }
}

impl Engine {
    /// Reads the message of an API call. A refusal of the call itself comes before that of its message.
    pub(crate) fn read_message<M: ApiMessage>(
        &self,
        arrival: &Arrival,
        transport: &Transport<'_>,
        decode: impl FnOnce() -> Result<M, CallRefusal>,
    ) -> Result<M, CallRefusal> {
        decode()
            .map_err(|refused| self.admit_message::<M>(arrival, transport).err().unwrap_or(refused))
    }

    /// Admits a call with a message of this kind.
    fn admit_message<M: ApiMessage>(
        &self,
        arrival: &Arrival,
        transport: &Transport<'_>,
    ) -> Result<Arc<Loaded>, CallRefusal> {
        let world = self.admit(arrival, transport)?;
        M::check_listener(world.way(transport.listener))?;
        Ok(world)
    }

    /// Admits and identifies the caller of an API call.
    ///
    /// # Errors
    /// The caller as refused.
    pub(super) fn identify_api_caller<'m, M: ApiMessage>(
        &self,
        arrival: Arrival,
        message: &'m M,
        transport: &'m Transport<'m>,
        line: RecordOrigin,
    ) -> Result<ApiCaller<'m>, Box<RefusedCaller<'m>>> {
        let operation = M::OPERATION;
        let world = match self.admit_message::<M>(&arrival, transport) {
            Ok(world) => world,
            Err(refused) => {
                return Err(Box::new(RefusedCaller::of(arrival, line, operation, refused)));
            }
        };
        let proved = match message.evidence() {
            CallerEvidence::Message(list) => self.prove_message(arrival, &world, list, transport),
            CallerEvidence::Client(client) => self.prove_client(arrival, &world, client, transport),
            CallerEvidence::Exchange(tokens) => {
                self.prove_exchange(arrival, &world, tokens, transport)
            }
            CallerEvidence::Transmitter => prove_transmitter(arrival, &world, transport),
            CallerEvidence::Socket => prove_owner(arrival, &world, transport),
        };
        let ProvedCaller { arrival, identity, evidence, is_owner, result } = proved;
        match result {
            Ok(()) => {
                let wait = self.wait_of(transport);
                Ok(ApiCaller {
                    arrival,
                    world,
                    identity,
                    evidence,
                    is_owner,
                    transport,
                    line,
                    wait,
                    operation,
                })
            }
            Err(refused) => {
                let caller =
                    RefusedCaller { arrival, identity, evidence, line, operation, refused };
                Err(Box::new(caller))
            }
        }
    }

    /// The caller of a call that an enforcer makes by itself, and that [`Engine::admit`] let pass.
    pub(crate) fn enforcer_caller<'m>(
        &self,
        arrival: Arrival,
        world: Arc<Loaded>,
        transport: &'m Transport<'m>,
    ) -> ApiCaller<'m> {
        ApiCaller {
            arrival,
            world,
            identity: CallerIdentity::default(),
            evidence: Vec::new(),
            is_owner: false,
            transport,
            line: self.recorded(transport),
            wait: self.wait_of(transport),
            operation: "",
        }
    }

    /// Identifies a caller by the credentials of its message.
    fn prove_message<'m>(
        &self,
        arrival: Arrival,
        world: &Loaded,
        list: &'m [wire::Evidence],
        transport: &'m Transport<'m>,
    ) -> ProvedCaller<'m> {
        let mut proved = self.prove_evidence(arrival, world, list, transport);
        if proved.result.is_err() && proved.identity.verify_time.is_none() {
            let claim = request::read_agent_claim(list, &self.settings);
            let agent = self.agent_of_refused(&proved.arrival, &claim, transport);
            proved.identity.refused_agent = agent;
        }
        proved
    }

    fn prove_evidence<'m>(
        &self,
        arrival: Arrival,
        world: &Loaded,
        list: &'m [wire::Evidence],
        transport: &'m Transport<'m>,
    ) -> ProvedCaller<'m> {
        let caller = ProvedCaller::without_evidence(arrival);
        let arrival = &caller.arrival;
        let mut evidence = match request::read_evidence(list, &self.settings) {
            Ok(evidence) => evidence,
            Err(refused) => return caller.refused(refused),
        };
        let is_admin = world.way(transport.listener).is_some_and(|way| way.admin);
        if is_admin && evidence.is_empty() && transport.authorization.is_none() {
            return ProvedCaller { is_owner: true, ..caller };
        }
        if evidence.is_empty() && speaks_for_itself(arrival) {
            let revoked = self.keeper.revocations();
            let result = revoked.and_then(|revoked| revoke::of_asker(&revoked, &arrival.asker));
            return ProvedCaller { result, ..caller };
        }
        let mut agent = None;
        if arrival.asks_itself {
            agent = arrival.asker.peer.as_ref().map(|peer| peer.agent(AgentProof::X509Svid));
            let is_known = agent.is_some();
            if let Err(refused) =
                self.add_own_authorization(&mut evidence, transport, world, is_known)
            {
                return ProvedCaller { evidence, ..caller }.refused(refused);
            }
        }
        let (identity, verified) = self.verify_caller(arrival, world, &evidence, agent);
        let facts = &identity.facts;
        let result =
            verified.and_then(|()| self.check_own_proofs(arrival, world, facts, transport));
        ProvedCaller { identity, evidence, result, ..caller }
    }

    /// Checks what came besides the identity of the caller: a task credential, and proofs of possession.
    fn check_own_proofs(
        &self,
        arrival: &Arrival,
        world: &Loaded,
        facts: &VerifiedFacts,
        transport: &Transport<'_>,
    ) -> Result<(), CallRefusal> {
        match arrival.surface {
            // The proofs are taken in the transaction that issues the credential.
            Surface::CredentialIssue => Ok(()),
            Surface::TaskStart
            | Surface::TaskDelegate
            | Surface::TaskExtend
            | Surface::TaskGet
            | Surface::TaskList
            | Surface::TaskEnd => {
                refuse_task_credential(facts)?;
                self.take_service_proofs(arrival, world, facts, transport)
            }
            _ => {
                refuse_task_credential(facts)?;
                refuse_proofs(facts)
            }
        }
    }

    /// Takes the proofs of a call to Authz: each is of POST to the call's method below the URL of Authz.
    fn take_service_proofs(
        &self,
        arrival: &Arrival,
        world: &Loaded,
        facts: &VerifiedFacts,
        transport: &Transport<'_>,
    ) -> Result<(), CallRefusal> {
        if facts.proofs.is_empty() {
            return Ok(());
        }
        let request = match &world.credentials {
            Some(settings) => Ok(ProvedRequest::to_authz(format!(
                "{}/{}",
                settings.issuer,
                arrival.surface.path()
            ))),
            None => Err(NoProvedRequest::NoUrl),
        };
        let wait = self.wait_of(transport);
        let taken = self.take_proofs(&facts.proofs, arrival.now(), world, &request, false, wait)?;
        // INVARIANT (once): the call is answered once its proofs are durably used. A call that only reads, or that finds its
        // change made already, writes nothing after them that could be waited for instead.
        self.keeper.kept(taken.map_or(Commit::Done, Commit::Pending), wait)
    }

    /// Identifies a client that the server has authenticated: an enforcer, or an agent that asks for itself.
    fn prove_client<'m>(
        &self,
        arrival: Arrival,
        world: &Loaded,
        client: &HttpClient,
        transport: &Transport<'_>,
    ) -> ProvedCaller<'m> {
        let message = "clients are taken from the server's word at the token endpoints alone";
        let agent = match check_http(world, transport, message).and_then(|()| client.agent()) {
            Ok(agent) => agent,
            Err(refused) => return ProvedCaller::without_evidence(arrival).refused(refused),
        };
        let enforcer = world.enforcer_of(&agent.spiffe_id).cloned();
        let known = if enforcer.is_some() { EnforcerProof::Certificate } else { EnforcerProof::No };
        let asks_itself = enforcer.is_none();
        let peer = arrival.asker.peer.filter(|peer| peer.spiffe_id == agent.spiffe_id);
        let asker = Asker { enforcer, known, peer };
        let caller = ProvedCaller::without_evidence(Arrival { asks_itself, asker, ..arrival });
        let facts = VerifiedFacts { agent: Some(Arc::new(agent)), ..VerifiedFacts::default() };
        let revoked = self.keeper.revocations();
        match revoked.and_then(|revoked| revoke::of_callers(&revoked, &facts)) {
            Ok(()) => {
                let chain = chain_of(&facts);
                let identity = CallerIdentity { facts, chain, ..CallerIdentity::default() };
                ProvedCaller { identity, ..caller }
            }
            Err(refused) => caller.refused(refused),
        }
    }

    /// Identifies the agent that exchanges tokens, and the subject and the agent of the tokens.
    fn prove_exchange<'m>(
        &self,
        arrival: Arrival,
        world: &Loaded,
        tokens: ExchangeTokens<'m>,
        transport: &Transport<'_>,
    ) -> ProvedCaller<'m> {
        let agent = match check_exchange(world, transport).and_then(|()| tokens.client.agent()) {
            Ok(agent) => agent,
            Err(refused) => return ProvedCaller::without_evidence(arrival).refused(refused),
        };
        // The client acts for itself here, also if it is an enforcer elsewhere.
        let peer = arrival.asker.peer.filter(|peer| peer.spiffe_id == agent.spiffe_id);
        let agent = match (&peer, agent.proof) {
            (Some(peer), AgentProof::X509Svid) => peer.agent(AgentProof::X509Svid),
            _ => agent,
        };
        let asker = Asker { peer, ..Asker::default() };
        let caller =
            ProvedCaller::without_evidence(Arrival { asker, asks_itself: true, ..arrival });
        let mut evidence = Vec::new();
        let subject = tokens.subject.map(|token| (token, world.role_of(token)));
        let actor = tokens.actor.map(|token| (token, Role::Agent));
        for (token, role) in subject.into_iter().chain(actor) {
            match request::read_credential(role, Scheme::Bearer, token, None, &self.settings) {
                Ok(shown) => evidence.push(shown),
                Err(refused) => return ProvedCaller { evidence, ..caller }.refused(refused),
            }
        }
        let (identity, verified) =
            self.verify_caller(&caller.arrival, world, &evidence, Some(agent));
        let result = verified.and_then(|()| match &identity.facts {
            VerifiedFacts { credential: Some(_), .. } => {
                Err(CallRefusal::credential("a task credential is not exchanged for another"))
            }
            VerifiedFacts { agent: None, .. } => Err(CallRefusal::credential("no agent is known")),
            VerifiedFacts { .. } => Ok(()),
        });
        ProvedCaller { identity, evidence, result, ..caller }
    }
}

/// Identifies the owner of an administration socket.
///
/// INVARIANT (owner): the listener is checked here, where the ownership comes from, and not only by the kind of the message.
fn prove_owner<'m>(
    arrival: Arrival,
    world: &Loaded,
    transport: &Transport<'_>,
) -> ProvedCaller<'m> {
    let caller = ProvedCaller::without_evidence(arrival);
    let message = "only an administration listener proves the owner of its socket";
    match check_admin(world.way(transport.listener), message) {
        Ok(()) => ProvedCaller { is_owner: true, ..caller },
        Err(refused) => caller.refused(refused),
    }
}

/// Identifies a transmitter of security events. A transmitter is not a principal: its name is in the record of its event.
fn prove_transmitter<'m>(
    arrival: Arrival,
    world: &Loaded,
    transport: &Transport<'_>,
) -> ProvedCaller<'m> {
    let caller = ProvedCaller::without_evidence(arrival);
    let message = "security events are taken from the server's word at its HTTP endpoint alone";
    match check_http(world, transport, message) {
        Ok(()) => caller,
        Err(refused) => caller.refused(refused),
    }
}

/// Refuses a client that another listener than a token endpoint names. Nobody authenticated it there.
fn check_http(world: &Loaded, transport: &Transport<'_>, message: &str) -> Result<(), CallRefusal> {
    if world.way(transport.listener).is_some_and(|way| way.http) {
        return Ok(());
    }
    Err(CallRefusal::new(ReasonCode::EnforcerRefused, Step::Identify, message))
}

/// Refuses an exchange at another listener than the token endpoint, or where no credentials are issued.
fn check_exchange(world: &Loaded, transport: &Transport<'_>) -> Result<(), CallRefusal> {
    check_http(world, transport, "tokens are exchanged at the token endpoint")?;
    match &world.credentials {
        Some(_) => Ok(()),
        None => Err(CallRefusal::input("no credentials are issued here")),
    }
}

/// Whether a call without evidence is one of an enforcer that speaks for itself alone.
const fn speaks_for_itself(arrival: &Arrival) -> bool {
    !arrival.asks_itself
        && matches!(
            arrival.surface,
            Surface::CredentialIssue | Surface::CredentialIntrospect | Surface::Report
        )
}

/// Refuses a task credential in a request to Authz itself.
pub(crate) fn refuse_task_credential(facts: &VerifiedFacts) -> Result<(), CallRefusal> {
    if facts.credential.is_none() {
        return Ok(());
    }
    Err(CallRefusal::new(
        ReasonCode::WrongAudience,
        Step::Identify,
        "a task credential is for its system, and shown to nobody else",
    ))
}

/// Refuses proofs of possession in a call that has no HTTP request.
pub(crate) fn refuse_proofs(facts: &VerifiedFacts) -> Result<(), CallRefusal> {
    if facts.proofs.is_empty() {
        return Ok(());
    }
    Err(CallRefusal::new(
        ReasonCode::BadProof,
        Step::Identify,
        "a proof is of an HTTP request, and this call tells of none",
    ))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::{BTreeMap, BTreeSet};

    use authz_kernel::plan::Plan;
    use authz_kernel::recipient_lists::RecipientLists;
    use authz_kernel::source;

    use super::*;
    use crate::SystemClock;
    use crate::offline::{OfflineEngine, OfflineWorld};

    /// An engine with one listener: neither an administration listener nor a token endpoint.
    fn offline() -> OfflineEngine {
        let files = BTreeMap::from([("bundle.yaml".to_owned(), b"{name: desk}".to_vec())]);
        let model = source::load(&files, &BTreeMap::new()).unwrap();
        let world = OfflineWorld {
            plan: Arc::new(Plan::compile(model, None).unwrap()),
            recipient_lists: RecipientLists::default(),
            issuers: BTreeSet::new(),
        };
        OfflineEngine::new(world, Arc::new(SystemClock)).unwrap()
    }

    fn reason_at(
        listener: &str,
        prove: impl FnOnce(&Engine, Arrival, &Loaded, &Transport<'_>) -> (bool, Result<(), CallRefusal>),
    ) -> (bool, Result<(), ReasonCode>) {
        let offline = offline();
        let engine = offline.engine();
        let (transport, world) = (Transport::by(listener), engine.world().unwrap());
        let arrival = engine.arrival(Surface::Revoke, Some(Arc::clone(&world)), &transport);
        let (is_owner, result) = prove(engine, arrival, &world, &transport);
        (is_owner, result.map_err(|refused| refused.reason))
    }

    /// A message of the owner proves its caller at administration listeners alone, and the name of a client counts at token
    /// endpoints alone.
    #[test]
    fn each_identity_is_of_its_listener() {
        for listener in ["offline", "unknown"] {
            let owner = reason_at(listener, |_, arrival, world, transport| {
                let caller = prove_owner(arrival, world, transport);
                (caller.is_owner, caller.result)
            });
            assert_eq!((false, Err(ReasonCode::EnforcerRefused)), owner);
            let client = r#"{"spiffe_id": "spiffe://a.example/bot", "how": "x509_svid"}"#;
            let client: HttpClient = serde_json::from_str(client).unwrap();
            let named = reason_at(listener, |engine, arrival, world, transport| {
                let caller = engine.prove_client(arrival, world, &client, transport);
                assert!(caller.identity.facts.agent.is_none());
                (caller.is_owner, caller.result)
            });
            assert_eq!((false, Err(ReasonCode::EnforcerRefused)), named);
        }
    }
}
