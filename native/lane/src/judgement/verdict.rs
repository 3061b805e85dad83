//! The verdict of a call.

use std::borrow::Cow;
use std::time::Duration;

use authz_kernel::arguments::DeclaredMembers;
use authz_kernel::decision::{Decision, Outcome};
use authz_kernel::reason::{PublicCode, ReasonCode};

use crate::refusal::{CallRefusal, Step};

/// Placeholder for a member name that the schema lacks.
const UNKNOWN_MEMBER: &str = "<unknown member>";

/// Outcome of a call: the kernel's decision, a refusal that came before it, or a failure that overruled it.
#[derive(Debug)]
pub(crate) struct CallVerdict {
    outcome: Outcome,
    reason: ReasonCode,
    step: Step,
    message: Cow<'static, str>,
    understood: bool,
    use_nonce: bool,
    decision: Option<Box<Decision>>,
    /// A later failure replaced `decision`, which is kept for the record only.
    is_overruled: bool,
    /// Duration of all evaluations of the call.
    pub(super) decide_time: Option<Duration>,
}

impl Default for CallVerdict {
    /// The verdict of a call that nothing judged: DENY UNAVAILABLE.
    fn default() -> Self {
        Self {
            outcome: Outcome::Deny,
            reason: ReasonCode::Unavailable,
            step: Step::Identify,
            message: Cow::Borrowed("no decision was made"),
            understood: false,
            use_nonce: false,
            decision: None,
            is_overruled: false,
            decide_time: None,
        }
    }
}

impl CallVerdict {
    /// The verdict once the kernel decided.
    ///
    /// `declared` gives the argument schema of the operation. Names that the schema lacks are left out of the message.
    pub(crate) fn decided<'d>(
        self,
        decision: Box<Decision>,
        declared: impl FnOnce() -> Option<&'d DeclaredMembers>,
    ) -> Self {
        let class = decision.reason.row().public_code;
        // INVARIANT (one answer): outcome and reason code are of one class; otherwise the verdict is DENY UNAVAILABLE.
        let (outcome, reason) = match (decision.outcome, class) {
            (Outcome::Permit, PublicCode::Permit) | (Outcome::StepUp, PublicCode::StepUp) => {
                (decision.outcome, decision.reason)
            }
            (Outcome::Deny, PublicCode::Permit | PublicCode::StepUp)
            | (Outcome::Permit | Outcome::StepUp, _) => (Outcome::Deny, ReasonCode::Unavailable),
            (Outcome::Deny, _) => (Outcome::Deny, decision.reason),
        };
        let step = match reason {
            ReasonCode::UnknownOperation
            | ReasonCode::UnreviewedOperation
            | ReasonCode::CatalogDrift
            | ReasonCode::BadInput
            | ReasonCode::NeedsProvider => Step::Resolve,
            _ => Step::Judge,
        };
        Self {
            outcome,
            reason,
            step,
            message: Cow::Owned(shown_message(reason, decision.message.clone(), declared)),
            understood: decision.understood,
            use_nonce: false,
            is_overruled: (decision.outcome, decision.reason) != (outcome, reason),
            decision: Some(decision),
            decide_time: self.decide_time,
        }
    }

    /// The verdict once a refusal ends the call. The refusal replaces any earlier verdict.
    ///
    /// `declared` is as of [`CallVerdict::decided`].
    pub(crate) fn refused<'d>(
        self,
        refused: CallRefusal,
        declared: impl FnOnce() -> Option<&'d DeclaredMembers>,
    ) -> Self {
        // INVARIANT (no refusal permits): a refusal never has a reason code of a permit or a step-up.
        let reason = match refused.reason.row().public_code {
            PublicCode::Permit | PublicCode::StepUp => ReasonCode::Unavailable,
            _ => refused.reason,
        };
        let message = shown_message(reason, refused.message, declared);
        Self {
            step: refused.step,
            message: Cow::Owned(message),
            understood: refused.understood,
            use_nonce: refused.use_nonce,
            ..self.replaced(Outcome::Deny, reason)
        }
    }

    /// A permit of a call about tasks or credentials that needs no policy. It does not permit an operation.
    pub(crate) fn granted(self, message: impl Into<String>) -> Self {
        Self {
            step: Step::Judge,
            message: Cow::Owned(message.into()),
            understood: true,
            ..self.replaced(Outcome::Permit, ReasonCode::Permitted)
        }
    }

    /// The verdict about a credential that a proof of possession would lift.
    pub(crate) fn wants_proof(self, message: impl Into<String>) -> Self {
        Self {
            step: Step::Judge,
            message: Cow::Owned(message.into()),
            understood: false,
            ..self.replaced(Outcome::StepUp, ReasonCode::ProofRequired)
        }
    }

    /// Replaces outcome and reason. The kernel's decision stays in force if it has the same.
    fn replaced(self, outcome: Outcome, reason: ReasonCode) -> Self {
        let says_same =
            |decision: &Decision| (decision.outcome, decision.reason) == (outcome, reason);
        let is_overruled = !self.decision.as_deref().is_some_and(says_same);
        Self { outcome, reason, is_overruled, ..self }
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

    /// The request was read whole, in the only way it can be read.
    pub(crate) const fn understood(&self) -> bool {
        self.understood
    }

    /// The call was refused because a proof of possession lacks a nonce of Authz.
    pub(crate) fn use_nonce(&self) -> bool {
        self.use_nonce && self.outcome == Outcome::Deny
    }

    /// The kernel's decision, if it is in force.
    pub(crate) fn decision(&self) -> Option<&Decision> {
        self.evaluated().filter(|_| !self.is_overruled)
    }

    /// The kernel's decision, also where a later failure overruled it.
    pub(crate) fn evaluated(&self) -> Option<&Decision> {
        self.decision.as_deref()
    }
}

/// The message of a verdict. Of a refused input, names of members are shown only where the schema has them: any other was
/// written by the caller, and may be a secret.
fn shown_message<'d>(
    reason: ReasonCode,
    message: String,
    declared: impl FnOnce() -> Option<&'d DeclaredMembers>,
) -> String {
    match reason {
        ReasonCode::BadInput => declared_only(&message, declared()),
        _ => message,
    }
}

/// Replaces the undeclared names in the pointer of a message.
///
/// The kernel writes "argument `<pointer>`: <what>" of arguments, and "<what> at `<pointer>`" of a text that is not JSON.
fn declared_only(message: &str, declared: Option<&DeclaredMembers>) -> String {
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
        let item =
            declared.and_then(DeclaredMembers::items).filter(|_| token.parse::<u32>().is_ok());
        declared = member.or(item);
        shown.push('/');
        shown.push_str(if declared.is_some() || token == "*" { token } else { UNKNOWN_MEMBER });
    }
    format!("{before}{open}{shown}{close}{after}")
}

/// Name of an outcome in audit records, traces and answers.
pub(crate) const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Permit => "PERMIT",
        Outcome::StepUp => "STEP_UP",
        Outcome::Deny => "DENY",
    }
}

/// A decision of the kernel that came to `outcome` and `reason`, and to nothing else.
#[cfg(test)]
pub(crate) fn decision_of(outcome: Outcome, reason: ReasonCode) -> Decision {
    Decision {
        outcome,
        reason,
        kinds: Vec::new(),
        policies: Vec::new(),
        places: Vec::new(),
        policy_digests: Vec::new(),
        rules: Vec::new(),
        without_permit: Vec::new(),
        controls: Vec::new(),
        obligations: Vec::new(),
        own_obligations: Vec::new(),
        operation: "crm.search".to_owned(),
        tier: None,
        resource: String::new(),
        destination_class: String::new(),
        destinations: Vec::new(),
        arguments_digest: None,
        arguments: None,
        message: "the kernel's message".to_owned(),
        shown_reason: None,
        charges: Vec::new(),
        uncleared_labels: Vec::new(),
        sequences: Vec::new(),
        budgets: Vec::new(),
        exceptions: Vec::new(),
        breakglass: None,
        passage: authz_kernel::history::HistoryChanges::NONE,
        denial: authz_kernel::history::HistoryChanges::NONE,
        redeems: None,
        observed: Vec::new(),
        origins: None,
        facts: None,
        values: None,
        server_call: false,
        step_up: None,
        trace: Vec::new(),
        understood: true,
        is_judged: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(outcome: Outcome, reason: ReasonCode) -> CallVerdict {
        CallVerdict::default().decided(Box::new(decision_of(outcome, reason)), || None)
    }

    fn refused(verdict: CallVerdict, reason: ReasonCode) -> CallVerdict {
        verdict.refused(CallRefusal::new(reason, Step::Record, "refused"), || None)
    }

    #[test]
    fn a_call_that_nothing_judged_is_denied() {
        let verdict = CallVerdict::default();
        assert_eq!((Outcome::Deny, ReasonCode::Unavailable), (verdict.outcome(), verdict.reason()));
        assert!(verdict.evaluated().is_none() && !verdict.understood());
    }

    /// A failure after the kernel's permit denies: the permit is no longer in force, and the record keeps what was evaluated.
    #[test]
    fn a_refusal_overrules_the_decision() {
        let verdict = decided(Outcome::Permit, ReasonCode::Permitted);
        assert!(verdict.decision().is_some());
        let verdict = refused(verdict, ReasonCode::StoreSlow);
        assert_eq!((Outcome::Deny, ReasonCode::StoreSlow), (verdict.outcome(), verdict.reason()));
        assert!(verdict.decision().is_none() && verdict.evaluated().is_some());
    }

    /// A refusal with the outcome and the reason of the decision only rewords it.
    #[test]
    fn a_refusal_of_the_same_reason_leaves_the_decision_in_force() {
        let verdict =
            refused(decided(Outcome::Deny, ReasonCode::NoCredential), ReasonCode::NoCredential);
        assert!(verdict.decision().is_some());
        assert_eq!(("refused", Step::Record), (verdict.message(), verdict.step()));
    }

    #[test]
    fn no_refusal_permits() {
        for reason in [ReasonCode::Permitted, ReasonCode::ApprovalRequired] {
            let verdict = refused(decided(Outcome::Permit, ReasonCode::Permitted), reason);
            assert_eq!(
                (Outcome::Deny, ReasonCode::Unavailable),
                (verdict.outcome(), verdict.reason())
            );
            assert!(verdict.decision().is_none());
        }
    }

    /// A decision whose outcome and reason code are of different classes denies.
    #[test]
    fn a_contradictory_decision_denies() {
        let pairs = [
            (Outcome::Permit, ReasonCode::NotPermitted),
            (Outcome::StepUp, ReasonCode::Permitted),
            (Outcome::Deny, ReasonCode::Permitted),
        ];
        for (outcome, reason) in pairs {
            let verdict = decided(outcome, reason);
            assert_eq!(
                (Outcome::Deny, ReasonCode::Unavailable),
                (verdict.outcome(), verdict.reason())
            );
            assert!(verdict.decision().is_none() && verdict.evaluated().is_some());
        }
    }
}
