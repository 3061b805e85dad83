//! The caller of an API call: who it is, and by which evidence.

use std::sync::Arc;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::plan::Plan;
use authz_kernel::task::AgentName;
use authz_token::{AgentFacts, AgentProof, Evidence, VerifiedFacts};
use serde::Deserialize;

use crate::judgement::{
    ApiDenial, ApiRecord, ApiVerdict, Arrival, Asker, CallerIdentity, Judgement,
};
use crate::keeper::Wait;
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::steps::record::{ChangeContext, RecordOrigin};
use crate::transport::Transport;
use crate::world::Loaded;

/// Evidence by which an API call shows its caller.
pub(crate) enum CallerEvidence<'m> {
    /// Credentials in the message. The call's own certificate and `authorization` metadata count too.
    Message(&'m [wire::Evidence]),
    /// A client that the HTTP server authenticated.
    Client(&'m HttpClient),
    /// A client that the HTTP server authenticated, with the tokens that it exchanges.
    Exchange(ExchangeTokens<'m>),
    /// A transmitter of security events, which the HTTP server authenticated.
    Transmitter,
    /// The administration socket, whose owner alone reaches it.
    Socket,
}

/// Client of an HTTP endpoint, as the server authenticated it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpClient {
    spiffe_id: String,
    how: ClientProof,
}

/// Credential by which the server authenticated a client.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ClientProof {
    X509Svid,
    JwtSvid,
}

impl HttpClient {
    /// The agent that the client is.
    pub(super) fn agent(&self) -> Result<AgentFacts, CallRefusal> {
        let name = AgentName::parse(&self.spiffe_id)
            .map_err(|why| CallRefusal::input(format!("`client`: {why}")))?;
        let proof = match self.how {
            ClientProof::X509Svid => AgentProof::X509Svid,
            ClientProof::JwtSvid => AgentProof::JwtSvid,
        };
        Ok(AgentFacts::named(name.spiffe_id, name.trust_domain, proof))
    }
}

/// Client and tokens of a token exchange.
#[derive(Clone, Copy)]
pub(crate) struct ExchangeTokens<'m> {
    pub(crate) client: &'m HttpClient,
    pub(crate) subject: Option<&'m str>,
    pub(crate) actor: Option<&'m str>,
}

/// The admitted and identified caller of an API call, and how the call came.
#[derive(Clone)]
pub(crate) struct ApiCaller<'m> {
    pub(crate) arrival: Arrival,
    /// Snapshot of bundle, keys and listeners that the call is judged by.
    pub(crate) world: Arc<Loaded>,
    pub(crate) identity: CallerIdentity,
    pub(crate) evidence: Vec<Evidence<'m>>,
    /// The call came by the administration listener without evidence: its caller owns the socket.
    pub(crate) is_owner: bool,
    pub(crate) transport: &'m Transport<'m>,
    /// Origin of the call in its audit record.
    pub(crate) line: RecordOrigin,
    /// How long the call may wait for the store.
    pub(crate) wait: Wait,
    /// Operation of Authz that each record of the call names; empty if its function names the operation.
    pub(crate) operation: &'static str,
}

// Written by hand so that no log can hold a token.
impl std::fmt::Debug for ApiCaller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiCaller").field("chain", &self.identity.chain).finish_non_exhaustive()
    }
}

impl<'m> ApiCaller<'m> {
    /// Time of the decision.
    pub(crate) const fn now(&self) -> Time {
        self.arrival.now()
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.world.plan
    }

    /// Facts that the evidence proves.
    pub(crate) const fn facts(&self) -> &VerifiedFacts {
        &self.identity.facts
    }

    /// The agent that calls.
    pub(crate) fn agent(&self) -> Option<&AgentFacts> {
        self.facts().agent.as_deref()
    }

    /// Whether the caller is the agent of this SPIFFE id.
    pub(crate) fn is_agent(&self, spiffe_id: &str) -> bool {
        self.agent().is_some_and(|agent| agent.spiffe_id == spiffe_id)
    }

    /// Subject first, the caller last.
    pub(crate) fn chain(&self) -> &[Principal] {
        &self.identity.chain
    }

    pub(crate) const fn asker(&self) -> &Asker {
        &self.arrival.asker
    }

    /// The call of a transaction.
    pub(crate) fn context(&self) -> ChangeContext<'_> {
        ChangeContext { evidence: &self.evidence, recorded: &self.line, wait: self.wait }
    }

    /// The same caller, acting for a subject that it names without proof.
    pub(crate) fn acting_for(&self, subject: Principal) -> Self {
        let mut caller = self.clone();
        caller.identity.chain.insert(0, subject);
        caller
    }

    /// The same caller, its agent having proved a key.
    pub(crate) fn with_bound_agent(&self) -> Self {
        let mut caller = self.clone();
        if let Some(agent) = caller.identity.facts.agent.as_mut() {
            Arc::make_mut(agent).bound = true;
        }
        caller
    }

    /// The record of the call with a verdict.
    pub(crate) fn judgement(&self, record: ApiRecord, verdict: ApiVerdict) -> Judgement {
        let record = record.or(&own_operation(self.operation));
        Judgement::of_api_call(self.arrival.clone(), self.identity.clone(), record, verdict)
    }

    /// As [`ApiCaller::judgement`], with the evidence and the origin of the call.
    pub(crate) fn into_judgement(
        self,
        record: ApiRecord,
        verdict: ApiVerdict,
    ) -> (Judgement, Vec<Evidence<'m>>, RecordOrigin) {
        let Self { arrival, identity, evidence, line, operation, .. } = self;
        let record = record.or(&own_operation(operation));
        (Judgement::of_api_call(arrival, identity, record, verdict), evidence, line)
    }
}

/// The record of a call about an operation of Authz itself.
fn own_operation(operation: &str) -> ApiRecord {
    ApiRecord { operation: operation.to_owned(), ..ApiRecord::default() }
}

/// The caller of an API call that was refused before its function ran.
pub(crate) struct RefusedCaller<'m> {
    pub(super) arrival: Arrival,
    /// Identity as far as the evidence proves it.
    pub(super) identity: CallerIdentity,
    pub(super) evidence: Vec<Evidence<'m>>,
    pub(super) line: RecordOrigin,
    pub(super) operation: &'static str,
    pub(super) refused: CallRefusal,
}

impl<'m> RefusedCaller<'m> {
    /// A call of which only its arrival is known.
    pub(crate) fn of(
        arrival: Arrival,
        line: RecordOrigin,
        operation: &'static str,
        refused: CallRefusal,
    ) -> Self {
        let (identity, evidence) = (CallerIdentity::default(), Vec::new());
        Self { arrival, identity, evidence, line, operation, refused }
    }

    /// The record of the call, with the evidence and the origin of the call.
    pub(crate) fn into_judgement(self) -> (Judgement, Vec<Evidence<'m>>, RecordOrigin) {
        let Self { arrival, identity, evidence, line, operation, refused } = self;
        let verdict = ApiVerdict::Denied(ApiDenial::Refused(refused));
        let record = own_operation(operation);
        (Judgement::of_api_call(arrival, identity, record, verdict), evidence, line)
    }
}
