//! Everything known about one decision, once it is made.

use std::sync::Arc;
use std::time::Duration;

use authz_kernel::decision::{Decision, Outcome, Principal};
use authz_kernel::model::Tier;
use authz_kernel::reason::{PublicCode, ReasonCode};
use authz_token::Facts;

use crate::ask::{Refused, Step};
use crate::metrics::SystemId;
use crate::settings::Surface;
use crate::world::Loaded;

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
    pub(crate) enforcer: String,
    /// The caller asks about itself: it sees what an agent may see.
    pub(crate) asks_itself: bool,
    pub(crate) facts: Facts,
    /// Subject first, the caller last; empty until verified.
    pub(crate) chain: Vec<Principal>,
    /// Operation id; empty unless it stands in the catalog.
    pub(crate) operation: String,
    pub(crate) system: SystemId,
    pub(crate) tier: Option<Tier>,
    pub(crate) arguments: Vec<u8>,
    pub(crate) route: Option<usize>,
    pub(crate) probe: bool,
    pub(crate) decision: Option<Decision>,
    pub(crate) verify_time: Option<Duration>,
    pub(crate) decide_time: Option<Duration>,
    outcome: Outcome,
    reason: ReasonCode,
    step: Step,
    message: String,
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
            enforcer: String::new(),
            asks_itself: true,
            facts: Facts::default(),
            chain: Vec::new(),
            operation: String::new(),
            system: SystemId::default(),
            tier: None,
            arguments: Vec::new(),
            route: None,
            probe: false,
            decision: None,
            verify_time: None,
            decide_time: None,
            outcome: Outcome::Deny,
            reason: ReasonCode::Unavailable,
            step: Step::Identify,
            message: "no decision was made".to_owned(),
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
        self.message = refused.message;
    }

    /// Ends the decision with the kernel's answer.
    pub(crate) fn decided(&mut self, decision: Decision) {
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
        self.message.clone_from(&decision.message);
        if decision.tier.is_some() {
            self.tier = decision.tier;
        }
        self.decision = Some(decision);
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
            .as_ref()
            .filter(|decision| decision.reason == self.reason && decision.outcome == self.outcome)
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
    pub(crate) const fn judgement(self) -> &'a Judgement {
        self.judgement
    }

    pub(crate) const fn decision(self) -> &'a Decision {
        self.decision
    }
}

/// How a principal is written in headers, metadata and records: the SPIFFE id, or `<issuer alias>/<sub>`.
///
/// A `sub` is any text; everything but visible ASCII without `%`, `,`, `;` and `>` is percent-encoded, so that the name can
/// neither end a header nor look like two.
pub(crate) fn name_of(principal: &Principal) -> String {
    match principal {
        Principal::Agent { spiffe_id, .. } => spiffe_id.clone(),
        Principal::User(subject) | Principal::Service(subject) => {
            format!("{}/{}", encoded(&subject.issuer), encoded(&subject.sub))
        }
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'%' | b',' | b';' | b'>') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    out
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
