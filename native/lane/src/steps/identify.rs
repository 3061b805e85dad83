//! Identify: which agent and which subject does the evidence prove?

use std::sync::Arc;

use authz_kernel::decision::Principal;
use authz_kernel::reason::ReasonCode;
use authz_token::{
    AgentFacts, AgentProof, Evidence, KeyBinding, Nonces, Presentation, Refusal, Role, SubjectKind,
    UnixTime, VerifiedFacts, verify, verify_confidence, verify_relayed,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::engine::{Engine, seconds};
use crate::judgement::{
    Arrival, Asker, CallerIdentity, CredentialNote, GuardStatement, Judgement, ResolvedOperation,
    TaskContext, principal_of,
};
use crate::refusal::{CallRefusal, Step};
use crate::refused_agent::may_hold_agent;
use crate::request::{self, AgentClaim, Authorization, CallRequest, Relayed};
use crate::revoke;
use crate::shown::subject_of;
use crate::speaker;
use crate::steps::admit::AdmittedCall;
use crate::steps::{Call, EndedCall, Staged};
use crate::transport::Transport;
use crate::world::{Enforcer, Loaded};

/// A call whose caller is verified.
pub struct IdentifiedCall<'a> {
    pub(crate) admitted: AdmittedCall,
    pub(crate) caller: CallerIdentity,
    pub(crate) evidence: Vec<Evidence<'a>>,
    /// Refusal of a caller without evidence, in a bundle where some `mode` observes. The call goes on: `mode` lets it through
    /// only if nothing else refuses it.
    pub(crate) unproved: Option<CallRefusal>,
}

impl std::fmt::Debug for IdentifiedCall<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentifiedCall").field("chain", &self.caller.chain).finish_non_exhaustive()
    }
}

impl<'a> IdentifiedCall<'a> {
    /// The record of the call, and its evidence. `chain` is the chain of the caller as its task has it; `None`: the caller's own.
    pub(crate) fn into_record(
        self,
        resolved: ResolvedOperation,
        context: TaskContext,
        chain: Option<Vec<Principal>>,
    ) -> (Judgement, Vec<Evidence<'a>>) {
        let Self { admitted, mut caller, evidence, .. } = self;
        caller.chain = chain.unwrap_or(caller.chain);
        (Judgement::unjudged(admitted.arrival, caller, resolved, context), evidence)
    }

    /// Ends the call with a refusal, before its operation is resolved.
    pub(crate) fn refuse(self, refused: CallRefusal) -> EndedCall<'a> {
        let (resolved, context) = (ResolvedOperation::default(), TaskContext::default());
        let (record, evidence) = self.into_record(resolved, context, None);
        EndedCall::refused(record, evidence, refused)
    }
}

/// Identifies the agent and the subject of a call by its evidence, and the labels that its enforcer says it carries.
///
/// # Errors
/// The call as refused: the evidence proves nothing, is revoked, or stands where it may not.
pub fn identify<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    admitted: AdmittedCall,
) -> Staged<'a, IdentifiedCall<'a>> {
    let mut evidence = call.request.evidence.clone();
    let mut caller = CallerIdentity::default();
    let identified = identify_caller(engine, call, &admitted, &mut evidence, &mut caller);
    if identified.is_err() && caller.verify_time.is_none() {
        let claim =
            AgentClaim { evidence: call.request.evidence.clone(), relayed: call.request.relayed };
        caller.refused_agent = engine.agent_of_refused(&admitted.arrival, &claim, call.transport);
    }
    let known = |unproved| IdentifiedCall { admitted, caller, evidence, unproved };
    match identified {
        Ok(unproved) => Ok(known(unproved)),
        Err(refused) => Err(known(None).refuse(refused)),
    }
}

/// `evidence` and `caller` are values of this stage: the record of a refused call shows what they held by then. The result is the
/// refusal of a caller without evidence, in a bundle in which some `mode` observes.
fn identify_caller<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    admitted: &AdmittedCall,
    evidence: &mut Vec<Evidence<'a>>,
    caller: &mut CallerIdentity,
) -> Result<Option<CallRefusal>, CallRefusal> {
    let AdmittedCall { arrival, world } = admitted;
    let ask = call.request;
    let agent = known_agent(engine, call, admitted, evidence)?;
    evidence.extend(engine.authorization_of(ask, world)?);
    if arrival.asks_itself && ask.sent.is_some() {
        return Err(CallRefusal::input("only an enforcer gives `http_method` and `http_uri`"));
    }
    check_statements(call, admitted, caller)?;
    let (verified, known) = engine.verify_caller(arrival, world, evidence, agent);
    let declared_labels = std::mem::take(&mut caller.declared_labels);
    *caller = CallerIdentity { declared_labels, ..verified };
    caller.guard = guard_statement(ask, admitted)?;
    let unproved = check_proved(call, admitted, &caller.facts, known)?;
    engine.in_time(call.transport, Step::Resolve)?;
    Ok(unproved)
}

/// Verifies the statement of a guard. A statement that is not believed refuses no call: the call has no confidence then.
///
/// # Errors
/// The configuration has no guards (BAD_INPUT).
fn guard_statement(
    ask: &CallRequest<'_>,
    AdmittedCall { arrival, world }: &AdmittedCall,
) -> Result<Option<GuardStatement>, CallRefusal> {
    if ask.confidence_jws.is_empty() {
        return Ok(None);
    }
    if !world.trust.has_guards() {
        let what = "`confidence_jws` is given, and the configuration has no `guards`";
        return Err(CallRefusal::input(what));
    }
    let now = seconds(arrival.now_ms);
    Ok(Some(match verify_confidence(ask.confidence_jws, &world.trust, now) {
        Ok(facts) => GuardStatement::Verified(facts),
        Err(refusal) => GuardStatement::Refused(refusal.detail),
    }))
}

/// Checks what an enforcer says of a call besides its evidence: its labels, which `caller` gets, and the context of its session.
///
/// # Errors
/// The caller may not say it (ENFORCER_REFUSED).
pub(crate) fn check_statements(
    call: &Call<'_, '_>,
    AdmittedCall { arrival, world }: &AdmittedCall,
    caller: &mut CallerIdentity,
) -> Result<(), CallRefusal> {
    let ask = call.request;
    caller.declared_labels = declared_labels(&arrival.asker, &ask.labels, world, call.explain)?;
    speaker::may_name_context(&arrival.asker, ask.session_context, call.explain)
}

/// Checks that the proved facts are enough for the call.
///
/// `verified` is the result of their verification. Returns the refusal of a caller without evidence, in a bundle in which some
/// `mode` observes.
///
/// # Errors
/// No agent is proved where one is needed, or nothing but a token that an agent may hold proves the subject (NO_CREDENTIAL).
pub(crate) fn check_proved(
    call: &Call<'_, '_>,
    AdmittedCall { arrival, world }: &AdmittedCall,
    facts: &VerifiedFacts,
    verified: Result<(), CallRefusal>,
) -> Result<Option<CallRefusal>, CallRefusal> {
    let ask = call.request;
    let known = match (verified, ask.agentless) {
        (Ok(()), None) => speaker::refuse_bearer_alone(&arrival.asker, facts, world),
        (Ok(()), Some(message)) if facts.agent.is_none() => {
            Err(CallRefusal::new(ReasonCode::NoCredential, Step::Identify, message))
        }
        (Err(refused), Some(message)) if refused.reason == ReasonCode::NoCredential => {
            Err(CallRefusal { message: message.to_owned(), ..refused })
        }
        (known, _) => known,
    };
    match known {
        Ok(()) if ask.has_credential && facts.credential.is_none() => {
            Err(CallRefusal::credential("`authz-credential` holds no task credential"))
        }
        Ok(()) => Ok(None),
        Err(refused)
            if refused.reason == ReasonCode::NoCredential
                && world.plan.model().modes.any_observes(arrival.now()) =>
        {
            Ok(Some(refused))
        }
        Err(refused) => Err(refused),
    }
}

/// The agent that is known without evidence of the request: by its own TLS certificate, or on the word of a trusted proxy.
///
/// A caller that asks about itself may add the `authorization` of the call itself to `evidence`.
fn known_agent<'a>(
    engine: &Engine,
    call: &Call<'_, 'a>,
    AdmittedCall { arrival, world }: &AdmittedCall,
    evidence: &mut Vec<Evidence<'a>>,
) -> Result<Option<AgentFacts>, CallRefusal> {
    let mut agent = None;
    if arrival.asks_itself && !call.explain {
        agent = arrival.asker.peer.as_ref().map(|peer| peer.agent(AgentProof::X509Svid));
        engine.add_own_authorization(evidence, call.transport, world, agent.is_some())?;
    }
    if let Some(relayed) = call.request.relayed {
        let verified = engine.verify_relayed(arrival, world, relayed);
        agent = Some(verified.map_err(|refusal| CallRefusal::of_token(&refusal))?);
    }
    Ok(agent)
}

impl Engine {
    /// Verifies an agent's certificate that a trusted proxy relays.
    ///
    /// # Errors
    /// The refusal of the certificate.
    pub(crate) fn verify_relayed(
        &self,
        arrival: &Arrival,
        world: &Loaded,
        Relayed { principal, certificate }: Relayed<'_>,
    ) -> Result<AgentFacts, Refusal> {
        let now = seconds(arrival.now_ms);
        verify_relayed(principal, certificate, &world.trust, &self.certificates, now)
    }

    /// Verifies the identity of a caller.
    ///
    /// `agent` is the agent that is known without evidence. Evidence of another agent is then refused.
    ///
    /// Returns the identity that the tokens prove, also of a caller that is refused; and the refusal.
    pub(crate) fn verify_caller(
        &self,
        arrival: &Arrival,
        world: &Loaded,
        evidence: &[Evidence<'_>],
        agent: Option<AgentFacts>,
    ) -> (CallerIdentity, Result<(), CallRefusal>) {
        let revoked = match self.keeper.revocations().and_then(|revoked| {
            revoke::of_asker(&revoked, &arrival.asker)?;
            Ok(revoked)
        }) {
            Ok(revoked) => revoked,
            Err(refused) => return (CallerIdentity::default(), Err(refused)),
        };
        let agent = agent.map(Arc::new);
        let started = self.clock.monotonic();
        let verified = self.verify_evidence(arrival, world, evidence, agent.as_deref());
        let took = self.took(started);
        self.metrics.verified(took);
        let timed = CallerIdentity { verify_time: Some(took), ..CallerIdentity::default() };
        let facts = verified.map_err(|refusal| {
            if let Some(owner) = &refusal.unknown_key {
                self.want_key(owner);
            }
            let may_hold = agent.is_none() && may_hold_agent(evidence, refusal.role);
            let among = may_hold.then(|| self.agent_among(arrival, world, evidence)).flatten();
            (CallRefusal::of_token(&refusal), among)
        });
        let facts = facts
            .and_then(|facts| with_agent(facts, agent.clone()).map_err(|refused| (refused, None)));
        let facts = match facts {
            Ok(facts) => facts,
            Err((refused, among)) => {
                return (CallerIdentity { refused_agent: agent.or(among), ..timed }, Err(refused));
            }
        };
        let credential = facts.credential.as_ref().map(|credential| CredentialNote {
            jti: credential.jti.clone(),
            decision_id: String::new(),
            binding: credential.binding.map(KeyBinding::method),
        });
        let verified = revoke::of_callers(&revoked, &facts);
        (CallerIdentity { chain: chain_of(&facts), credential, facts, ..timed }, verified)
    }

    pub(crate) fn verify_evidence(
        &self,
        arrival: &Arrival,
        world: &Loaded,
        evidence: &[Evidence<'_>],
        agent: Option<&AgentFacts>,
    ) -> Result<VerifiedFacts, Refusal> {
        if evidence.is_empty() && agent.is_some() {
            return Ok(VerifiedFacts::default());
        }
        let certificate = match agent {
            Some(agent) => agent.certificate_digest,
            // An enforcer may show a token that is bound to its own key.
            None => arrival.asker.peer.as_ref().map(|peer| peer.certificate_digest),
        };
        self.verify(evidence, certificate, world, seconds(arrival.now_ms))
    }

    /// `certificate` is the SHA-256 of the certificate that the agent showed to Authz, or to a trusted proxy.
    fn verify(
        &self,
        evidence: &[Evidence<'_>],
        certificate: Option<[u8; 32]>,
        world: &Loaded,
        now: UnixTime,
    ) -> Result<VerifiedFacts, Refusal> {
        let (trust, cache) = (&world.trust, &self.tokens);
        if evidence.iter().all(|item| item.proof.is_none()) {
            let called = Presentation { certificate, ..Presentation::default() };
            return verify(evidence, &called, trust, cache, now);
        }
        self.with_nonces(world, now, |nonce| {
            verify(evidence, &Presentation { certificate, nonce }, trust, cache, now)
        })
    }

    /// Runs a verification with the nonces and times that proofs of possession must have.
    pub(crate) fn with_nonces<R>(
        &self,
        world: &Loaded,
        now: UnixTime,
        verified: impl FnOnce(Nonces<'_>) -> R,
    ) -> R {
        let settings = world.dpop();
        let taken = self.nonces(now);
        let needed_before = if settings.require_nonce { UnixTime(i64::MAX) } else { self.started };
        // A store in memory forgets used proofs at the next start, and `started` is later than every
        // proof that is dated by then. A proof dated ahead of the clock could be used once more.
        let needed_after = if self.keeper.is_lasting() { UnixTime(i64::MAX) } else { now };
        let window = i64::from(settings.window);
        verified(Nonces { valid: &taken.all(), needed_before, needed_after, window })
    }

    /// Adds the call's own `authorization` to the evidence of a caller that asks about itself. Two credentials of one kind that
    /// differ are refused.
    ///
    /// If `is_known`, the caller is proved by its certificate, so the credential may be its subject's.
    pub(crate) fn add_own_authorization<'a>(
        &self,
        evidence: &mut Vec<Evidence<'a>>,
        transport: &Transport<'a>,
        world: &Loaded,
        is_known: bool,
    ) -> Result<(), CallRefusal> {
        let Some(value) = transport.authorization else {
            return Ok(());
        };
        let (scheme, token) = request::split_authorization(value)?;
        let (role, is_ours) = (world.role_of(token), world.is_ours(token));
        let of_kind = evidence.iter().find(|item| {
            // A task credential may stand beside other evidence of its agent.
            (!is_known || item.role == role) && world.is_ours(item.token) == is_ours
        });
        match evidence.iter().find(|item| item.token == token).or(of_kind) {
            Some(item) if item.token == token => Ok(()),
            Some(_) => Err(CallRefusal::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "the credential of the call itself is not among its evidence, and the caller is not an enforcer",
            )),
            None => {
                evidence.push(request::read_credential(role, scheme, token, None, &self.settings)?);
                Ok(())
            }
        }
    }

    /// The evidence in the `authorization` header of a request whose agent is known without it: the agent's own credential
    /// again, or its subject's. None if the header is for the upstream.
    fn authorization_of<'a>(
        &self,
        ask: &CallRequest<'a>,
        world: &Loaded,
    ) -> Result<Option<Evidence<'a>>, CallRefusal> {
        let Some(Authorization { value, proof }) = ask.authorization else {
            return Ok(None);
        };
        if !request::may_be_verified(value) {
            return Ok(None);
        }
        let (scheme, token) = request::split_authorization(value)?;
        let evidence = request::read_credential(Role::Agent, scheme, token, proof, &self.settings)?;
        let role = match world.role_of(token) {
            Role::Agent => Role::Agent,
            Role::Subject if issuer_of(token).is_some_and(|iss| world.trust.has_issuer(&iss)) => {
                Role::Subject
            }
            Role::Subject => return Ok(None),
        };
        Ok(Some(Evidence { role, ..evidence }))
    }
}

/// The labels that a trusted enforcer says the call carries.
///
/// # Errors
/// The caller may not say labels (ENFORCER_REFUSED).
fn declared_labels(
    asker: &Asker,
    labels: &[&str],
    world: &Loaded,
    explain: bool,
) -> Result<Vec<String>, CallRefusal> {
    let relays = |enforcer: &Arc<Enforcer>| enforcer.relays_labels;
    let is_believed = explain || asker.enforcer.as_ref().is_some_and(relays);
    if !labels.is_empty() && !is_believed {
        return Err(CallRefusal::new(
            ReasonCode::EnforcerRefused,
            Step::Identify,
            "the caller may not say which labels a call carries",
        ));
    }
    // A label that the bundle does not have may be any text. The kernel refuses it.
    let known = &world.plan.model().labels;
    let known = labels.iter().filter(|label| known.contains_key(**label));
    Ok(known.map(|label| (*label).to_owned()).collect())
}

/// The facts, with the agent that is known without evidence.
///
/// # Errors
/// The evidence is another agent's.
fn with_agent(
    facts: VerifiedFacts,
    agent: Option<Arc<AgentFacts>>,
) -> Result<VerifiedFacts, CallRefusal> {
    let Some(agent) = agent else { return Ok(facts) };
    if facts.agent.as_ref().is_some_and(|other| other.spiffe_id != agent.spiffe_id) {
        return Err(other_agent(agent.proof));
    }
    facts.with_agent(agent).map_err(|refusal| CallRefusal::of_token(&refusal))
}

/// Refusal of evidence that proves another agent than the known one.
fn other_agent(known_by: AgentProof) -> CallRefusal {
    match known_by {
        AgentProof::JwtSvid | AgentProof::X509Svid | AgentProof::TaskCredential => {
            CallRefusal::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "the evidence is another agent's than the one that asks, which is no enforcer",
            )
        }
        AgentProof::Relayed => CallRefusal::credential(
            "`authorization` is another agent's than the one that is relayed",
        ),
    }
}

impl Loaded {
    /// The role that a token is verified in. Its unverified claims only choose: each role refuses the tokens of the other.
    pub(crate) fn role_of(&self, token: &str) -> Role {
        let is_svid = claimed(token, "sub").is_some_and(|sub| sub.starts_with("spiffe://"));
        if is_svid || self.is_ours(token) { Role::Agent } else { Role::Subject }
    }

    /// True if a token claims, unverified, that Authz issued it.
    fn is_ours(&self, token: &str) -> bool {
        let own = self.credentials.as_ref().map(|settings| settings.issuer.as_str());
        own.is_some_and(|own| issuer_of(token).is_some_and(|issuer| issuer == own))
    }
}

/// The issuer that a token says, unverified.
fn issuer_of(token: &str) -> Option<String> {
    claimed(token, "iss")
}

/// A text among the unverified claims of a token.
fn claimed(token: &str, name: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    Some(claims.get(name)?.as_str()?.to_owned())
}

pub(crate) fn chain_of(facts: &VerifiedFacts) -> Vec<Principal> {
    let mut chain = Vec::with_capacity(2);
    if let Some(subject) = &facts.subject {
        let known = subject.derived.get_or_derive(|| subject_of(subject));
        chain.push(match subject.kind {
            SubjectKind::User => Principal::User(known),
            SubjectKind::Service => Principal::Service(known),
        });
    }
    if let Some(agent) = &facts.agent {
        chain.push(principal_of(agent));
    }
    chain
}
