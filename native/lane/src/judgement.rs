//! Everything known about one decision, once it is made.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use authz_kernel::arguments::Declared;
use authz_kernel::decision::{Decision, Outcome, Principal, ProofMethod, Time};
use authz_kernel::hex::hex;
use authz_kernel::mcp::Envelope;
use authz_kernel::model::{Reports, Tier};
use authz_kernel::reach::{Place, Refused as Softenable};
use authz_kernel::reason::{PublicCode, ReasonCode};
use authz_kernel::task::{RevocationTarget, Task};
use authz_state::Ticket;
use authz_token::{AgentProof, Facts, PeerFacts};

use serde::Serialize;

use crate::ask::{Refused, Step};
use crate::asked::Asked as Form;
use crate::engine::ApiError;
use crate::forget::ForgetNote;
use crate::history::Recalled;
use crate::injected::Injected;
use crate::metrics::SystemId;
use crate::report::ReportNote;
use crate::settings::{ReportWay, Surface};
use crate::speaker::PromptNote;
use crate::world::{Enforcer, Loaded};

/// How a message begins that asks for a proof with a nonce (RFC 9449 §8).
const USE_NONCE: &str = "use_dpop_nonce";
/// Stands for a name that the caller made up.
const UNKNOWN_MEMBER: &str = "<unknown member>";

/// Who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker {
    /// The enforcer that it is; none: it asks about itself.
    pub(crate) enforcer: Option<Arc<Enforcer>>,
    pub(crate) known: Known,
    /// Its verified certificate, where it showed one.
    pub(crate) peer: Option<PeerFacts>,
}

impl Asker {
    /// The enforcer's name in policies and records; empty where it is none.
    pub(crate) fn name(&self) -> &str {
        self.enforcer.as_ref().map_or("", |enforcer| enforcer.name.as_str())
    }
}

/// One call of the kill switch, for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevocationNote {
    pub(crate) target: RevocationTarget,
    pub(crate) value: String,
    /// Why, in the caller's words; empty where the caller gave no reason.
    pub(crate) reason: String,
    /// Who, as the owner of the administration socket states it; empty where the caller gave no name.
    pub(crate) by: String,
    /// The call lifts a revocation.
    pub(crate) undo: bool,
}

/// How an enforcer is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is none.
    #[default]
    No,
    /// By the listener that it asks by.
    Listener,
    /// By its TLS certificate.
    Certificate,
    /// Not at all: anybody is one there.
    InsecureDev,
}

impl Known {
    /// All, in order.
    pub(crate) const ALL: [Self; 4] =
        [Self::No, Self::Listener, Self::Certificate, Self::InsecureDev];

    /// The word used in records and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::No => "none",
            Self::Listener => "listener",
            Self::Certificate => "certificate",
            Self::InsecureDev => "insecure_dev",
        }
    }
}

/// The task credential that a decision is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CredentialNote {
    /// Its id, or that of the lease.
    pub(crate) jti: String,
    /// The permit that it was issued of; empty where there are several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) decision_id: String,
    /// The member of `cnf` that it is bound by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) binding: Option<&'static str>,
}

/// A decision with all that its answer, its record and its counters need. Made as a refusal; only
/// [`Judgement::decided`] makes it anything else.
#[derive(Debug)]
pub(crate) struct Judgement {
    /// UUIDv7.
    pub(crate) id: String,
    /// When, in milliseconds since 1970.
    pub(crate) now_ms: i64,
    pub(crate) surface: Surface,
    pub(crate) world: Option<Arc<Loaded>>,
    pub(crate) listener: String,
    /// Who asks.
    pub(crate) asker: Asker,
    /// Why whoever asks is nobody: its certificate proves nothing.
    pub(crate) stranger: Option<Refused>,
    /// The caller asks about itself: it sees what an agent may see.
    pub(crate) asks_itself: bool,
    pub(crate) facts: Facts,
    /// Subject first, the caller last; empty until verified.
    pub(crate) chain: Vec<Principal>,
    /// Operation id; empty unless it stands in the catalog.
    pub(crate) operation: String,
    pub(crate) system: SystemId,
    /// The system that is asked for an operation which it does not have; empty otherwise.
    pub(crate) unknown_in: String,
    /// Systems that the request may be for, where neither operation nor system was found; an empty id stands for one that the
    /// bundle does not have.
    pub(crate) may_be_for: Vec<String>,
    /// The request may be for an operation or a system that is revoked, so `mode` does not let it through.
    pub(crate) may_be_revoked: bool,
    /// The proxy cut the body off.
    pub(crate) is_cut_off: bool,
    /// What was asked for, where no operation was found.
    pub(crate) asked: Option<Form>,
    pub(crate) tier: Option<Tier>,
    pub(crate) route: Option<usize>,
    /// The message that came to an MCP endpoint.
    pub(crate) mcp: Option<Envelope>,
    pub(crate) probe: bool,
    /// The task that it was asked in, or about.
    pub(crate) task: Option<Arc<Task>>,
    /// The chain is that of `task`, which the request names. Who is in an implicit task may have left its own out.
    pub(crate) is_in_named_task: bool,
    /// What it knows of the task's session.
    pub(crate) recalled: Recalled,
    /// The encoded answer to the same request under the same key, which this one repeats.
    pub(crate) repeats: Option<Vec<u8>>,
    /// The task credential that it is about.
    pub(crate) credential: Option<CredentialNote>,
    /// What a permit must wait for besides its record: that its proof cannot be brought again.
    pub(crate) proved: Option<Ticket>,
    /// Whose word the prompt of the call is.
    pub(crate) prompt: Option<PromptNote>,
    /// What was revoked.
    pub(crate) revoked: Option<RevocationNote>,
    /// What an administrator has forgotten.
    pub(crate) forgotten: Option<ForgetNote>,
    /// Labels that the enforcer says the call carries.
    pub(crate) told: Vec<String>,
    /// What is told of a permit.
    pub(crate) reported: Option<ReportNote>,
    /// What it lets through is open until somebody tells what came of it.
    pub(crate) is_open: bool,
    pub(crate) decision: Option<Box<Decision>>,
    pub(crate) verify_time: Option<Duration>,
    pub(crate) decide_time: Option<Duration>,
    outcome: Outcome,
    reason: ReasonCode,
    step: Step,
    message: String,
    understood: bool,
    use_nonce: bool,
    softened: bool,
}

impl Judgement {
    /// A decision that nothing is known of yet: DENY UNAVAILABLE.
    pub(crate) fn new(
        id: String,
        now_ms: i64,
        surface: Surface,
        world: Option<Arc<Loaded>>,
    ) -> Self {
        Self {
            id,
            now_ms,
            surface,
            world,
            listener: String::new(),
            asker: Asker::default(),
            stranger: None,
            asks_itself: true,
            facts: Facts::default(),
            chain: Vec::new(),
            operation: String::new(),
            system: SystemId::default(),
            unknown_in: String::new(),
            may_be_for: Vec::new(),
            may_be_revoked: false,
            is_cut_off: false,
            asked: None,
            tier: None,
            route: None,
            mcp: None,
            probe: false,
            task: None,
            is_in_named_task: false,
            recalled: Recalled::default(),
            repeats: None,
            credential: None,
            proved: None,
            prompt: None,
            revoked: None,
            forgotten: None,
            told: Vec::new(),
            reported: None,
            is_open: false,
            decision: None,
            verify_time: None,
            decide_time: None,
            outcome: Outcome::Deny,
            reason: ReasonCode::Unavailable,
            step: Step::Identify,
            message: "no decision was made".to_owned(),
            understood: false,
            use_nonce: false,
            softened: false,
        }
    }

    /// Ends the decision with a refusal, whatever it was before.
    pub(crate) fn refuse(&mut self, refused: Refused) {
        self.outcome = Outcome::Deny;
        // INVARIANT (no refusal permits): a code of another class would be answered as what it is called.
        self.reason = match refused.reason.row().public_code {
            PublicCode::Permit | PublicCode::StepUp => ReasonCode::Unavailable,
            _ => refused.reason,
        };
        self.step = refused.step;
        self.message = self.without_inventions(&refused.message);
        self.understood = refused.understood;
        self.use_nonce = refused.use_nonce;
        self.softened = false;
    }

    /// Ends the decision with the kernel's answer.
    pub(crate) fn decided(&mut self, decision: Box<Decision>) {
        let class = decision.reason.row().public_code;
        // INVARIANT (one answer): outcome and reason code say the same, else neither counts.
        let (outcome, reason) = match (decision.outcome, class) {
            (Outcome::Permit, PublicCode::Permit) | (Outcome::StepUp, PublicCode::StepUp) => {
                (decision.outcome, decision.reason)
            }
            (Outcome::Deny, PublicCode::Permit | PublicCode::StepUp)
            | (Outcome::Permit | Outcome::StepUp, _) => (Outcome::Deny, ReasonCode::Unavailable),
            (Outcome::Deny, _) => (Outcome::Deny, decision.reason),
        };
        self.outcome = outcome;
        self.reason = reason;
        self.step = match reason {
            ReasonCode::UnknownOperation
            | ReasonCode::UnreviewedOperation
            | ReasonCode::CatalogDrift
            | ReasonCode::BadInput
            | ReasonCode::NeedsProvider => Step::Resolve,
            _ => Step::Judge,
        };
        self.message = self.without_inventions(&decision.message);
        if !decision.operation.is_empty() {
            self.operation.clone_from(&decision.operation);
        }
        self.understood = decision.understood;
        self.softened = false;
        if decision.tier.is_some() {
            self.tier = decision.tier;
        }
        self.decision = Some(decision);
    }

    /// Ends the decision about a task or a revocation as granted, for whoever may have it without a policy that says so.
    /// It lets no operation through: there is no [`Permit`] in it.
    pub(crate) fn grant(&mut self, message: impl Into<String>) {
        self.outcome = Outcome::Permit;
        self.reason = ReasonCode::Permitted;
        self.step = Step::Judge;
        self.message = message.into();
        self.understood = true;
        self.softened = false;
    }

    /// Ends the decision about a credential as one that a proof would lift. It lets nothing through.
    pub(crate) fn wants_proof(&mut self, message: impl Into<String>) {
        self.outcome = Outcome::StepUp;
        self.reason = ReasonCode::ProofRequired;
        self.step = Step::Judge;
        self.message = message.into();
        self.understood = false;
        self.softened = false;
    }

    /// Whether a call that answers no decision was granted.
    pub(crate) fn granted(&self) -> Result<(), ApiError> {
        let message = match self.outcome {
            Outcome::Permit => return Ok(()),
            Outcome::Deny if self.use_nonce() => format!("{USE_NONCE}: {}", self.message()),
            Outcome::StepUp | Outcome::Deny => self.message().to_owned(),
        };
        Err(ApiError { step: self.step.as_str(), ..ApiError::of(self.reason, message) })
    }

    /// The message of a refused input, with names of members only where the schema has them: any other was written by the
    /// caller, and may be a secret.
    fn without_inventions(&self, message: &str) -> String {
        if self.reason != ReasonCode::BadInput {
            return message.to_owned();
        }
        let declared = self.world.as_ref().and_then(|world| world.plan.declared(&self.operation));
        declared_only(message, declared)
    }

    pub(crate) const fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(crate) const fn reason(&self) -> ReasonCode {
        self.reason
    }

    pub(crate) const fn step(&self) -> Step {
        self.step
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The kernel's decision, unless a later failure replaced it.
    pub(crate) fn standing(&self) -> Option<&Decision> {
        self.decision
            .as_deref()
            .filter(|decision| decision.reason == self.reason && decision.outcome == self.outcome)
    }

    /// Lets the call through where `mode` only observes it; the outcome stays what it is. A later refusal ends that.
    pub(crate) fn soften(&mut self) {
        let Some(world) = &self.world else { return };
        if self.outcome == Outcome::Permit {
            return;
        }
        // INVARIANT (what is presented must hold): a task credential that does not cover the call lets nothing through.
        if self.is_beyond_credential() {
            return;
        }
        let place = self.place();
        let is_judged = matches!(place, Place::Judged { .. });
        // INVARIANT (a cut-off body is never let through): it may say anything.
        if self.is_cut_off || (!is_judged && self.may_be_revoked) {
            return;
        }
        let refused = Softenable {
            chain: &self.chain,
            has_task: self.is_in_named_task,
            place,
            reason: self.reason,
            understood: self.understood,
        };
        self.softened = world.plan.softens(&refused, Time(self.now_ms));
    }

    /// How far the request was found out.
    fn place(&self) -> Place<'_> {
        let judged = self.standing().filter(|decision| decision.is_judged);
        if let Some(tier) = judged.and(self.tier) {
            return Place::Judged { system: self.system_id(), tier };
        }
        if !self.operation.is_empty() {
            return Place::Operation(&self.operation);
        }
        match self.unknown_in.is_empty() {
            true => Place::Systems(&self.may_be_for),
            false => Place::Systems(std::slice::from_ref(&self.unknown_in)),
        }
    }

    /// A task credential is presented, and covers the call not, or no more.
    pub(crate) fn is_beyond_credential(&self) -> bool {
        self.facts.credential.is_some() && !self.redeems()
    }

    /// What was issued as the task credential that is presented covers the call.
    pub(crate) fn redeems(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.redeems.is_some())
    }

    /// Somebody tells what comes of the operation.
    pub(crate) fn is_reported(&self) -> bool {
        self.world
            .as_ref()
            .is_some_and(|world| world.plan.model().reports(&self.operation) != Reports::Never)
    }

    /// What it was judged by, where whoever asked is to tell what comes of what it lets through.
    pub(crate) fn awaits_report(&self) -> Option<&Loaded> {
        let world = self.world.as_deref()?;
        let tells = self
            .asker
            .enforcer
            .as_ref()
            .is_some_and(|enforcer| enforcer.may_report(ReportWay::Sdk))
            && world.plan.model().reports(&self.operation) == Reports::Sdk;
        (tells && self.is_open && self.passage().is_some()).then_some(world)
    }

    /// It is refused because a proof lacks a nonce of ours.
    pub(crate) fn use_nonce(&self) -> bool {
        self.use_nonce && self.outcome == Outcome::Deny
    }

    /// The system that is asked for something; empty where that is not known.
    fn system_id(&self) -> &str {
        self.operation.split_once('.').map_or(&self.unknown_in, |(system, _)| system)
    }

    /// The upstream gets the evidence in `authorization`, as the route says.
    pub(crate) fn forwards_authorization(&self) -> bool {
        let routes = self.world.as_ref().map(|world| world.plan.routes()).zip(self.route);
        routes.is_some_and(|(routes, route)| routes.forwards_authorization(route))
    }

    /// Whether a token with this audience is for the system that is asked.
    pub(crate) fn is_for_system(&self, audience: &str) -> bool {
        let system = self.system_id();
        self.world.as_ref().is_some_and(|world| world.is_audience(system, audience))
    }

    /// The secret that its system is reached with, where whoever asks forwards the request.
    pub(crate) fn injected(&self) -> Option<&Injected> {
        if self.surface != Surface::ExtAuthz {
            return None;
        }
        self.world.as_ref().and_then(|world| world.injected(self.system_id()))
    }

    /// That secret cannot be read.
    pub(crate) fn lacks_secret(&self) -> bool {
        self.injected().is_some_and(|injected| injected.value().is_none())
    }

    /// The request was read whole, in the only way it can be read.
    pub(crate) const fn understood(&self) -> bool {
        self.understood
    }

    /// The proof that the call is let through although it is not permitted, if it is.
    pub(crate) fn softened(&self) -> Option<Softened<'_>> {
        (self.softened && self.outcome != Outcome::Permit).then_some(Softened { judgement: self })
    }

    /// The proof that the answer lets the call through, if it does.
    pub(crate) fn passage(&self) -> Option<Passage<'_>> {
        let permitted = self.permit().map(Passage::Permitted);
        permitted.or_else(|| self.softened().map(Passage::Softened))
    }

    /// The permit, if this is one.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        let decision = self.standing()?;
        let permits = self.outcome == Outcome::Permit
            && self.reason == ReasonCode::Permitted
            && !self.chain.is_empty();
        permits.then_some(Permit { judgement: self, decision })
    }
}

/// Proof that a decision permits: without one no answer that permits can be built.
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

/// Proof that `mode` lets a call through that is not permitted: without one, or a [`Permit`], no answer can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softened<'a> {
    judgement: &'a Judgement,
}

/// Proof that a call is let through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Passage<'a> {
    Permitted(Permit<'a>),
    Softened(Softened<'a>),
}

impl<'a> Passage<'a> {
    pub(crate) const fn judgement(self) -> &'a Judgement {
        match self {
            Self::Permitted(permit) => permit.judgement,
            Self::Softened(softened) => softened.judgement,
        }
    }
}

/// How an agent was proved, as policies and records say it.
pub(crate) const fn method_of(proof: AgentProof) -> ProofMethod {
    match proof {
        AgentProof::JwtSvid => ProofMethod::JwtSvid,
        AgentProof::X509Svid => ProofMethod::X509Svid,
        AgentProof::Relayed => ProofMethod::Relayed,
        AgentProof::TaskCredential => ProofMethod::TaskCredential,
    }
}

/// How a principal is written in headers, metadata and records: the SPIFFE id, or `<issuer alias>/<sub>`.
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

/// Replaces the undeclared names in the pointer of a message.
///
/// The kernel writes "argument `<pointer>`: <what>" of arguments, and "<what> at `<pointer>`" of a text that is no JSON.
fn declared_only(message: &str, declared: Option<&Declared>) -> String {
    let of_argument = message.split_once("argument `").and_then(|(before, rest)| {
        // A name may hold the separator, `<what>` does not.
        let (pointer, what) = rest.rsplit_once("`: ")?;
        Some((before, "argument `", pointer, "`: ", what))
    });
    let of_text = || {
        let (before, rest) = message.split_once(" at `")?;
        Some((before, " at `", rest.strip_suffix('`')?, "`", ""))
    };
    let Some((before, open, pointer, close, after)) = of_argument.or_else(of_text) else {
        return message.to_owned();
    };
    let mut shown = String::new();
    let mut declared = declared;
    for token in pointer.split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        let member = declared.and_then(|declared| declared.member(&name));
        let item = declared.and_then(Declared::items).filter(|_| token.parse::<u32>().is_ok());
        declared = member.or(item);
        shown.push('/');
        shown.push_str(if declared.is_some() || token == "*" { token } else { UNKNOWN_MEMBER });
    }
    format!("{before}{open}{shown}{close}{after}")
}
