//! The record of a call: the values of its stages and its verdict.

pub(crate) mod arrival;
mod parts;
mod verdict;

use std::borrow::Cow;
use std::time::Duration;

use authz_kernel::arguments::DeclaredMembers;
use authz_kernel::decision::{
    DecidingRule, Decision, ObservedPolicy, Outcome, Principal, ProofMethod,
};
use authz_kernel::hex::hex;
use authz_kernel::model::Reports;
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::routes::is_standard;
use authz_kernel::shadow::ShadowGap;
use authz_kernel::soften::{CallPlace, RefusedCall};
use authz_token::{AgentFacts, AgentProof};

use crate::refusal::{CallRefusal, Step};
use crate::secret_header::SecretHeader;
use crate::settings::{ReportWay, Surface};
use crate::shadow_answer::{ShadowAnswer, ShadowDifference};
use crate::transport::ApiError;
use crate::world::Loaded;

pub(crate) use crate::enforcer_proof::EnforcerProof;
pub(crate) use crate::judgement::arrival::{Arrival, Asker};
pub(crate) use crate::judgement::parts::{
    AnswerNote, ApiNotes, ApiRecord, ApprovalNote, AssertionNote, BreakglassNote, CallerIdentity,
    Challenge, CredentialNote, EndorsedNote, ErasureNote, ForgetNote, GuardStatement, PromptNote,
    ReportNote, ResolvedOperation, RevocationNote, SecurityEventNote, Settlement, TaskContext,
    ValuesNote,
};
use crate::judgement::verdict::CallVerdict;
#[cfg(test)]
pub(crate) use crate::judgement::verdict::decision_of;
pub(crate) use crate::judgement::verdict::outcome_name;

/// Start of a message that asks for a proof with a nonce (RFC 9449 §8).
const USE_NONCE: &str = "use_dpop_nonce";

/// Answer of the policies to a call.
#[derive(Debug)]
pub(crate) struct PolicyAnswer {
    pub(crate) decision: Box<Decision>,
    /// Id of the decision whose permit the presented task credential redeems; empty if it redeems none.
    pub(crate) redeemed: String,
    /// Duration of the evaluation.
    pub(crate) took: Duration,
}

/// Verdict of a call that no policy judges.
#[derive(Debug)]
pub(crate) enum ApiVerdict {
    /// The call is granted, without a [`Permit`] of an operation. The text is the message of the record.
    Granted(String),
    Denied(ApiDenial),
}

/// Denial of a call that no policy judges.
#[derive(Clone, Debug)]
pub(crate) enum ApiDenial {
    Refused(CallRefusal),
    /// The call about a credential lacks a proof of possession.
    ProofRequired(&'static str),
}

/// Record of one call: the values of its stages, and its verdict. Answer, audit record, metrics and trace are rendered from it.
///
/// It begins as a refusal, and permits an operation only by the kernel's decision ([`Judgement::decided`]).
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) arrival: Arrival,
    pub(crate) caller: CallerIdentity,
    pub(crate) resolved: ResolvedOperation,
    pub(crate) context: TaskContext,
    pub(crate) settlement: Settlement,
    pub(crate) notes: ApiNotes,
    verdict: CallVerdict,
    is_softened: bool,
    /// Answer of the shadow bundle. `None`: it was not asked.
    pub(crate) shadow: Option<ShadowAnswer>,
}

impl Judgement {
    /// The record of a call of which only its arrival is known.
    pub(crate) fn of(arrival: Arrival) -> Self {
        let (caller, resolved) = (CallerIdentity::default(), ResolvedOperation::default());
        Self::unjudged(arrival, caller, resolved, TaskContext::default())
    }

    /// The record of a call that no policy judges, with its final verdict.
    pub(crate) fn of_api_call(
        arrival: Arrival,
        caller: CallerIdentity,
        record: ApiRecord,
        verdict: ApiVerdict,
    ) -> Self {
        let ApiRecord { operation, system, tier, task, chain, credential, notes } = record;
        let caller = CallerIdentity {
            chain: chain.unwrap_or(caller.chain),
            credential: credential.or(caller.credential),
            ..caller
        };
        let resolved = ResolvedOperation { operation, system, tier, ..Default::default() };
        let context = TaskContext { task, ..Default::default() };
        let mut judgement = Self { notes, ..Self::unjudged(arrival, caller, resolved, context) };
        match verdict {
            ApiVerdict::Granted(message) => {
                judgement.replace_verdict(|verdict, _| verdict.granted(message));
            }
            ApiVerdict::Denied(ApiDenial::ProofRequired(message)) => {
                judgement.replace_verdict(|verdict, _| verdict.wants_proof(message));
            }
            ApiVerdict::Denied(ApiDenial::Refused(refused)) => judgement.refuse(refused),
        }
        judgement
    }

    /// The record of a call that a task credential is issued for.
    pub(crate) fn with_credential(mut self, credential: CredentialNote) -> Self {
        self.caller.credential = Some(credential);
        self
    }

    /// The record, its call ended by the kernel's decision about an operation of Authz itself.
    pub(crate) fn with_decision(mut self, decision: Box<Decision>) -> Self {
        self.decided(decision);
        self
    }

    /// The record, its call ended by the answer of the policies.
    pub(crate) fn judged(mut self, answer: PolicyAnswer) -> Self {
        self.judge_by(answer);
        self
    }

    /// The record, its call ended by a refusal.
    pub(crate) fn refused(mut self, refused: CallRefusal) -> Self {
        self.refuse(refused);
        self
    }

    /// The record of a call that nothing judged yet: DENY UNAVAILABLE.
    pub(crate) fn unjudged(
        arrival: Arrival,
        caller: CallerIdentity,
        resolved: ResolvedOperation,
        context: TaskContext,
    ) -> Self {
        Self {
            arrival,
            caller,
            resolved,
            context,
            settlement: Settlement::default(),
            notes: ApiNotes::default(),
            verdict: CallVerdict::default(),
            is_softened: false,
            shadow: None,
        }
    }

    /// Ends the call with a refusal, which replaces any earlier verdict.
    pub(crate) fn refuse(&mut self, refused: CallRefusal) {
        self.replace_verdict(|verdict, declared| verdict.refused(refused, declared));
    }

    /// Ends the call with the answer of the policies.
    pub(crate) fn judge_by(&mut self, PolicyAnswer { decision, redeemed, took }: PolicyAnswer) {
        if let Some(credential) = &mut self.caller.credential {
            credential.decision_id = redeemed;
        }
        self.decided(decision);
        let before = self.verdict.decide_time.unwrap_or_default();
        self.verdict.decide_time = Some(before.saturating_add(took));
    }

    /// Ends the call with the kernel's decision.
    pub(crate) fn decided(&mut self, decision: Box<Decision>) {
        self.replace_verdict(|verdict, declared| verdict.decided(decision, declared));
        // One case of an operation that is split has an id and a tier of its own.
        if let Some(decision) = self.verdict.evaluated() {
            if !decision.operation.is_empty() {
                self.resolved.operation.clone_from(&decision.operation);
            }
            self.resolved.tier = decision.tier.or(self.resolved.tier);
        }
    }

    /// Ends the call with the answer that the same request got earlier under the same idempotency key.
    pub(crate) fn repeat(&mut self, decision_id: &str, answer: &[u8]) {
        decision_id.clone_into(&mut self.arrival.id);
        self.settlement.repeats = Some(answer.to_vec());
        self.replace_verdict(|verdict, _| {
            verdict.granted("the same request was answered so before, under the same key")
        });
    }

    /// `replace` makes the new verdict of the old one. Its second argument gives the operation's argument schema.
    fn replace_verdict<'s>(
        &'s mut self,
        replace: impl FnOnce(CallVerdict, &dyn Fn() -> Option<&'s DeclaredMembers>) -> CallVerdict,
    ) {
        let (arrival, resolved) = (&self.arrival, &self.resolved);
        let declared = || arrival.world.as_ref()?.plan.declared(&resolved.operation);
        self.verdict = replace(std::mem::take(&mut self.verdict), &declared);
        self.is_softened = false;
    }

    /// Whether a call that answers no decision was granted.
    pub(crate) fn granted(&self) -> Result<(), ApiError> {
        let message = match self.outcome() {
            Outcome::Permit => return Ok(()),
            Outcome::Deny if self.use_nonce() => format!("{USE_NONCE}: {}", self.message()),
            Outcome::StepUp | Outcome::Deny => self.message().to_owned(),
        };
        Err(ApiError { step: self.step().as_str(), ..ApiError::of(self.reason(), message) })
    }

    pub(crate) const fn outcome(&self) -> Outcome {
        self.verdict.outcome()
    }

    pub(crate) const fn reason(&self) -> ReasonCode {
        self.verdict.reason()
    }

    pub(crate) const fn step(&self) -> Step {
        self.verdict.step()
    }

    pub(crate) fn message(&self) -> &str {
        self.verdict.message()
    }

    pub(crate) const fn decide_time(&self) -> Option<Duration> {
        self.verdict.decide_time
    }

    /// The kernel's decision, if it is in force.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.verdict.decision()
    }

    /// The kernel's decision, also where a later failure overruled it.
    pub(crate) fn evaluated(&self) -> Option<&Decision> {
        self.verdict.evaluated()
    }

    /// Policies with `@mode("observe")` that would have changed the outcome.
    pub(crate) fn observed_policies(&self) -> impl Iterator<Item = &ObservedPolicy> {
        self.decision().into_iter().flat_map(Decision::flips)
    }

    /// Lets the call through if `mode` only observes it. The outcome stays as it is. A later refusal ends this.
    pub(crate) fn soften(&mut self) {
        let Some(world) = &self.arrival.world else { return };
        if self.outcome() == Outcome::Permit {
            return;
        }
        let is_softened = self.is_let_through(&world.plan, self.place(), self.reason());
        self.is_softened = is_softened;
    }

    /// Compares the decision of the shadow bundle with that of the bundle that serves, each after its `mode`.
    pub(crate) fn compare_shadow(
        &self,
        served: &Decision,
        plan: &Plan,
        shadow: &Decision,
    ) -> ShadowAnswer {
        match shadow.reason {
            ReasonCode::StateUnavailable => return ShadowAnswer::NotCompared(ShadowGap::History),
            ReasonCode::Unavailable => return ShadowAnswer::NotCompared(ShadowGap::Failed),
            _ => {}
        }
        let outcome = self.shadow_outcome(plan, shadow);
        let is_let_through = self.softened().is_some();
        let actual = if is_let_through { Outcome::Permit } else { served.outcome };
        let is_same_hold = outcome != Outcome::StepUp || shadow.kinds == served.kinds;
        if outcome == actual && is_same_hold {
            return ShadowAnswer::Equal;
        }
        ShadowAnswer::Differs(Box::new(ShadowDifference {
            digest: hex(&plan.digest()),
            outcome,
            reason: shadow.reason,
            kinds: shadow.kinds.clone(),
            rules: shadow.all_rules().collect(),
        }))
    }

    /// Outcome of a decision of another bundle, after its `mode`.
    fn shadow_outcome(&self, plan: &Plan, decision: &Decision) -> Outcome {
        let system = decision.operation.split_once('.').map_or("", |(system, _)| system);
        let place = match decision.tier.filter(|_| decision.is_judged) {
            Some(tier) => CallPlace::Judged { system, tier },
            None => CallPlace::Operation(&self.resolved.operation),
        };
        let is_permitted = decision.outcome == Outcome::Permit;
        match is_permitted || self.is_let_through(plan, place, decision.reason) {
            true => Outcome::Permit,
            false => decision.outcome,
        }
    }

    /// Whether `mode` of a bundle lets the call through, although it is not permitted.
    ///
    /// Args: `place`, `reason`: as that bundle judged the call.
    pub(crate) fn is_let_through(
        &self,
        plan: &Plan,
        place: CallPlace<'_>,
        reason: ReasonCode,
    ) -> bool {
        // INVARIANT (a credential must hold): a task credential that does not cover the call lets nothing through.
        if self.is_beyond_credential() {
            return false;
        }
        let is_judged = matches!(place, CallPlace::Judged { .. });
        // INVARIANT (a cut-off body is never let through): the missing part may say anything.
        if self.resolved.is_cut_off || (!is_judged && self.resolved.may_be_revoked) {
            return false;
        }
        let refused = RefusedCall {
            chain: &self.caller.chain,
            has_task: self.context.is_in_named_task,
            place,
            reason,
            understood: self.understood(),
        };
        plan.softens(&refused, self.arrival.now())
    }

    /// Rules that determined a denial or a step-up: those of the kernel's decision, or the step that refused. Behind them the entry
    /// of `mode` that lets the call through. Empty for a permit.
    pub(crate) fn rules(&self) -> Vec<DecidingRule> {
        if self.outcome() == Outcome::Permit {
            return Vec::new();
        }
        let decided = self.decision().into_iter().flat_map(Decision::all_rules);
        let mut rules: Vec<DecidingRule> = decided.collect();
        if rules.is_empty() {
            rules.push(DecidingRule::check(self.step().as_str()));
        }
        let world = self.arrival.world.as_ref().filter(|_| self.softened().is_some());
        let now = self.arrival.now();
        rules.extend(
            world.and_then(|world| world.plan.mode_rule(&self.caller.chain, self.place(), now)),
        );
        rules
    }

    /// The operation, or the systems, that the request was resolved to.
    fn place(&self) -> CallPlace<'_> {
        let judged = self.decision().filter(|decision| decision.is_judged);
        if let Some(tier) = judged.and(self.resolved.tier) {
            return CallPlace::Judged { system: self.system_id(), tier };
        }
        if !self.resolved.operation.is_empty() {
            return CallPlace::Operation(&self.resolved.operation);
        }
        match self.resolved.unknown_in.is_empty() {
            true => CallPlace::Systems(&self.resolved.may_be_for),
            false => CallPlace::Systems(std::slice::from_ref(&self.resolved.unknown_in)),
        }
    }

    /// Whether a task credential is presented that does not cover the call.
    pub(crate) fn is_beyond_credential(&self) -> bool {
        self.caller.facts.credential.is_some() && !self.redeems()
    }

    /// Whether the presented task credential covers the call.
    pub(crate) fn redeems(&self) -> bool {
        self.evaluated().is_some_and(|decision| decision.redeems.is_some())
    }

    /// Whether the outcome of the operation is reported.
    pub(crate) fn is_reported(&self) -> bool {
        self.arrival.world.as_ref().is_some_and(|world| {
            world.plan.model().reports(&self.resolved.operation) != Reports::Never
        })
    }

    /// The snapshot that the call was judged by, if the enforcer must report the outcome of the call.
    pub(crate) fn awaits_report(&self) -> Option<&Loaded> {
        let world = self.arrival.world.as_deref()?;
        let tells = self
            .arrival
            .asker
            .enforcer
            .as_ref()
            .is_some_and(|enforcer| enforcer.may_report(ReportWay::Sdk))
            && world.plan.model().reports(&self.resolved.operation) == Reports::Sdk;
        (tells && self.settlement.is_open && self.passage().is_some()).then_some(world)
    }

    /// Whether the call was refused because a proof of possession lacks a nonce of Authz.
    pub(crate) fn use_nonce(&self) -> bool {
        self.verdict.use_nonce()
    }

    /// System of the request; empty if not known.
    fn system_id(&self) -> &str {
        self.resolved
            .operation
            .split_once('.')
            .map_or(&self.resolved.unknown_in, |(system, _)| system)
    }

    /// Whether the route forwards the evidence in `authorization` to the upstream.
    pub(crate) fn forwards_authorization(&self) -> bool {
        let routes =
            self.arrival.world.as_ref().map(|world| world.plan.routes()).zip(self.resolved.route);
        routes.is_some_and(|(routes, route)| routes.forwards_authorization(route))
    }

    /// Whether a token with this audience is for the system of the request.
    pub(crate) fn is_for_system(&self, audience: &str) -> bool {
        let system = self.system_id();
        self.arrival.world.as_ref().is_some_and(|world| world.is_audience(system, audience))
    }

    /// The header credential of the system, if the proxy that asks adds it to the request.
    pub(crate) fn secret_header(&self) -> Option<&SecretHeader> {
        if self.arrival.surface != Surface::ExtAuthz {
            return None;
        }
        self.arrival.world.as_ref().and_then(|world| world.secret_header(self.system_id()))
    }

    /// Whether a header of a request, by its name in lower case, goes on to a system whose requests get a secret.
    pub(crate) fn declares_header(&self, name: &str) -> bool {
        if is_standard(name) {
            return true;
        }
        let Some(world) = &self.arrival.world else { return false };
        let of_route = |route| world.plan.routes().declares_header(route, name);
        let system = world.plan.systems().get(self.system_id());
        self.resolved.route.is_some_and(of_route)
            || system.is_some_and(|system| {
                system.headers.binary_search_by(|declared| declared.as_str().cmp(name)).is_ok()
            })
    }

    /// Whether the header credential of the system cannot be read.
    pub(crate) fn lacks_secret(&self) -> bool {
        self.secret_header().is_some_and(|secret_header| secret_header.value().is_none())
    }

    /// Whether the request was read whole, in the only way it can be read.
    pub(crate) const fn understood(&self) -> bool {
        self.verdict.understood()
    }

    /// Proof that `mode` lets the call through.
    pub(crate) fn softened(&self) -> Option<Softened<'_>> {
        (self.is_softened && self.outcome() != Outcome::Permit)
            .then_some(Softened { judgement: self })
    }

    /// Proof that the answer lets the call through.
    pub(crate) fn passage(&self) -> Option<CallPassage<'_>> {
        let permitted = self.permit().map(CallPassage::Permitted);
        permitted.or_else(|| self.softened().map(CallPassage::Softened))
    }

    /// Proof that the kernel's decision permits the call.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        let decision = self.decision()?;
        let permits = self.outcome() == Outcome::Permit
            && self.reason() == ReasonCode::Permitted
            && !self.caller.chain.is_empty();
        permits.then_some(Permit { judgement: self, decision })
    }
}

/// Proof that a decision permits. No answer that permits can be built without one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit<'a> {
    judgement: &'a Judgement,
    decision: &'a Decision,
}

impl<'a> Permit<'a> {
    pub(crate) const fn decision(self) -> &'a Decision {
        self.decision
    }
}

/// Proof that `mode` lets a call through that is not permitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softened<'a> {
    judgement: &'a Judgement,
}

/// Proof that a call is let through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallPassage<'a> {
    Permitted(Permit<'a>),
    Softened(Softened<'a>),
}

impl<'a> CallPassage<'a> {
    pub(crate) const fn judgement(self) -> &'a Judgement {
        match self {
            Self::Permitted(permit) => permit.judgement,
            Self::Softened(softened) => softened.judgement,
        }
    }
}

/// Method that proved an agent, as policies and records say it.
pub(crate) const fn method_of(proof: AgentProof) -> ProofMethod {
    match proof {
        AgentProof::JwtSvid => ProofMethod::JwtSvid,
        AgentProof::X509Svid => ProofMethod::X509Svid,
        AgentProof::Relayed => ProofMethod::Relayed,
        AgentProof::TaskCredential => ProofMethod::TaskCredential,
    }
}

/// An agent as a chain names it.
pub(crate) fn principal_of(agent: &AgentFacts) -> Principal {
    Principal::Agent {
        spiffe_id: agent.spiffe_id.clone(),
        trust_domain: agent.trust_domain.clone(),
    }
}

/// Name of a principal in headers, metadata and records: the SPIFFE id, or `<issuer alias>/<sub>`.
///
/// A `sub` is any text; everything but visible ASCII without `%`, `,`, `;` and `>` is percent-encoded, so that the name can
/// neither end a header nor look like two.
pub(crate) fn name_of(principal: &Principal) -> Cow<'_, str> {
    match principal {
        Principal::Agent { spiffe_id, .. } => Cow::Borrowed(spiffe_id),
        Principal::User(subject) | Principal::Service(subject) => {
            let (issuer, sub) = (&subject.issuer, &subject.sub);
            let mut name =
                String::with_capacity(issuer.len().saturating_add(sub.len()).saturating_add(1));
            encode(issuer, &mut name);
            name.push('/');
            encode(sub, &mut name);
            Cow::Owned(name)
        }
    }
}

fn encode(text: &str, out: &mut String) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b',' | b';' | b'>');
    if text.bytes().all(is_plain) {
        out.push_str(text);
        return;
    }
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
}
