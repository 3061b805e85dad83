//! The audit record: one JSON line with OPA's decision-log field names where they exist.
//!
//! A record holds what the policies could read: numbers and truth values in clear, texts as digests. It never holds a token.

mod arguments;
mod chain;
mod checks;
mod digest;
mod facts;
mod input;
mod masking;
mod node;
mod session;
mod sum;

use std::borrow::Cow;
use std::cell::RefCell;

use authz_kernel::decision::{BreakglassUse, DecidingRule, ObservedPolicy, Outcome, PrincipalName};
use authz_kernel::model::{Location, Origin as ValueOrigin, OriginSets, Tier, ValueRole};
use authz_kernel::rfc3339;
use authz_token::Evidence;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use self::digest::Hex;
use self::input::Input;
use self::masking::Masking;
use self::session::ChangesNote;
use crate::clock::Clock;
use crate::history;
use crate::judgement::{ApprovalNote, Judgement, outcome_name};
use crate::shadow_answer::ShadowAnswer;

pub(crate) use self::arguments::facts_of;
pub(crate) use self::node::{
    DroppedNote, ExpiredNote, LoadedNote, NodeNote, RefusedLoad, RefusedNote, node_line,
};
pub(crate) use self::sum::sum_line;

/// Length of most records, so that a line seldom grows while it is written.
const LINE_BYTES: usize = 2_560;
/// Longest resource that is written in clear.
const MAX_RESOURCE: usize = 600;
/// Longest part of an unresolved request that is written in clear.
const MAX_FORM: usize = 600;

/// Facts of a call that come from its transport and its node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallOrigin<'a> {
    pub(crate) peer: &'a str,
    /// W3C Trace Context §3.2.2: (trace id, parent id).
    pub(crate) trace: Option<(&'a str, &'a str)>,
    pub(crate) node_id: &'a str,
    pub(crate) version: &'a str,
    /// Source of salts for texts that can be erased. `None`: the log is not chained, and texts stand in their places.
    pub(crate) salts: Option<&'a dyn Clock>,
}

#[derive(Serialize)]
struct AuditRecord<'a> {
    decision_id: &'a str,
    timestamp: String,
    labels: RecordLabels<'a>,
    bundles: Bundles<'a>,
    path: &'a str,
    input: Input<'a>,
    result: ResultMember<'a>,
    requested_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<&'a str>,
    metrics: TimerMember,
    erased: [&'a str; 0],
    // INVARIANT (last): the members before it add to it while they are written.
    masked: &'a RefCell<Vec<String>>,
}

#[derive(Serialize)]
struct RecordLabels<'a> {
    id: &'a str,
    version: &'a str,
    listener: &'a str,
    surface: &'a str,
}

impl<'a> RecordLabels<'a> {
    fn of(judgement: &'a Judgement, origin: CallOrigin<'a>) -> Self {
        Self {
            id: origin.node_id,
            version: origin.version,
            listener: &judgement.arrival.listener,
            surface: judgement.arrival.surface.as_str(),
        }
    }
}

/// The loaded bundle, by its name. `None`: no bundle is loaded.
struct Bundles<'a>(Option<(&'a str, BundleRecord<'a>)>);

impl<'a> Bundles<'a> {
    fn of(judgement: &'a Judgement) -> Self {
        Self(judgement.arrival.world.as_ref().map(|world| {
            (
                world.name.as_str(),
                BundleRecord {
                    revision: &world.revision,
                    digest: &world.digest,
                    facts_digest: &world.facts_digest,
                },
            )
        }))
    }
}

impl Serialize for Bundles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(usize::from(self.0.is_some())))?;
        if let Some((name, bundle)) = &self.0 {
            map.serialize_entry(name, bundle)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct BundleRecord<'a> {
    revision: &'a str,
    digest: &'a str,
    /// Of the files that are not policies.
    facts_digest: &'a str,
}

#[derive(Serialize)]
struct ResultMember<'a> {
    outcome: &'a str,
    reason_code: &'a str,
    public_code: &'a str,
    next_action: &'a str,
    retry: &'a str,
    enforced: bool,
    step: &'a str,
    tier: &'a str,
    step_up_kinds: &'a [String],
    policies: &'a [String],
    /// `file:line` of each of those.
    policies_at: PolicyPlaces<'a>,
    /// SHA-256 of the text of each of those, in their order.
    #[serde(skip_serializing_if = "PolicyDigests::is_empty")]
    policies_sha256: PolicyDigests<'a>,
    /// Rules that determined a denial or a step-up, policies included.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<DecidingRule>,
    /// Principals without a permit. Empty unless the request was denied for lack of one.
    #[serde(skip_serializing_if = "<[PrincipalName]>::is_empty")]
    without_permit: &'a [PrincipalName],
    controls: &'a [String],
    obligations: &'a [String],
    /// Obligations that Authz carries out itself.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    own_obligations: &'a [String],
    /// Standing exceptions on which the result depends.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    exceptions: &'a [String],
    /// Break-glass on which the result depends: its id, its ticket, and the two people.
    #[serde(skip_serializing_if = "Option::is_none")]
    breakglass: Option<&'a BreakglassUse>,
    /// Policies with `@mode("observe")` that would have changed the outcome, with the outcome that each would have brought.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    observed: Vec<ObservedNote<'a>>,
    /// Answer of the shadow bundle, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<ShadowNote<'a>>,
    message: Cow<'a, str>,
    /// Origins of the values of the call by role, if a policy of the operation reads them.
    #[serde(skip_serializing_if = "Option::is_none")]
    origins: Option<OriginsMember>,
    /// Approval that the call made, repeated, used or was refused by, or that a person answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<&'a ApprovalNote>,
    /// Changes of the history, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<ChangesNote<'a>>,
    /// Outcome of an earlier record of the same id, which was not answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of: Option<&'a str>,
}

impl<'a> ResultMember<'a> {
    fn of(judgement: &'a Judgement, message: Cow<'a, str>, instead_of: Option<Outcome>) -> Self {
        let row = judgement.reason().row();
        let standing = judgement.decision();
        Self {
            outcome: outcome_name(judgement.outcome()),
            reason_code: judgement.reason().as_str(),
            public_code: row.public_code.as_str(),
            next_action: row.next_action.as_str(),
            retry: row.retry.as_str(),
            enforced: judgement.softened().is_none(),
            step: judgement.step().as_str(),
            tier: judgement.resolved.tier.map_or("", Tier::as_str),
            step_up_kinds: standing.map_or(&[], |decision| decision.kinds.as_slice()),
            policies: standing.map_or(&[], |decision| decision.policies.as_slice()),
            policies_at: PolicyPlaces(standing.map_or(&[], |decision| decision.places.as_slice())),
            policies_sha256: PolicyDigests(
                standing.map_or(&[], |decision| decision.policy_digests.as_slice()),
            ),
            rules: judgement.rules(),
            without_permit: standing.map_or(&[], |decision| decision.without_permit.as_slice()),
            controls: standing.map_or(&[], |decision| decision.controls.as_slice()),
            obligations: standing.map_or(&[], |decision| decision.obligations.as_slice()),
            own_obligations: standing.map_or(&[], |decision| decision.own_obligations.as_slice()),
            exceptions: judgement
                .evaluated()
                .map_or(&[], |decision| decision.exceptions.as_slice()),
            breakglass: judgement.evaluated().and_then(|decision| decision.breakglass.as_deref()),
            observed: judgement.observed_policies().map(ObservedNote::of).collect(),
            shadow: ShadowNote::of(judgement),
            message,
            origins: judgement.evaluated().and_then(|decision| decision.origins).map(OriginsMember),
            approval: judgement.settlement.approval.as_ref().or(judgement.notes.approval.as_ref()),
            changes: history::changes(judgement).map(ChangesNote::of),
            instead_of: instead_of.map(outcome_name),
        }
    }
}

/// A policy with `@mode("observe")` that would have changed the outcome.
#[derive(Serialize)]
struct ObservedNote<'a> {
    policy: &'a str,
    at: String,
    outcome: &'static str,
}

impl<'a> ObservedNote<'a> {
    fn of(policy: &'a ObservedPolicy) -> Self {
        Self {
            policy: &policy.policy,
            at: format!("{}:{}", policy.at.file, policy.at.line),
            outcome: policy.outcome.map_or("", outcome_name),
        }
    }
}

/// Answer of the shadow bundle that differs from the answer of the bundle that serves.
#[derive(Serialize)]
struct ShadowNote<'a> {
    digest: &'a str,
    outcome: &'static str,
    reason_code: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    step_up_kinds: &'a [String],
    rules: &'a [DecidingRule],
}

impl<'a> ShadowNote<'a> {
    fn of(judgement: &'a Judgement) -> Option<Self> {
        let Some(ShadowAnswer::Differs(answer)) = &judgement.shadow else { return None };
        Some(Self {
            digest: &answer.digest,
            outcome: outcome_name(answer.outcome),
            reason_code: answer.reason.as_str(),
            step_up_kinds: &answer.kinds,
            rules: &answer.rules,
        })
    }
}

/// Origins by the roles that the call has.
struct OriginsMember(OriginSets);

impl Serialize for OriginsMember {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let words = |role| self.0.of(role).origins().map(ValueOrigin::as_str).collect::<Vec<_>>();
        let roles = ValueRole::ALL.map(|role| (role.as_str(), words(role)));
        serializer.collect_map(roles.into_iter().filter(|(_, origins)| !origins.is_empty()))
    }
}

#[derive(Serialize)]
struct TimerMember {
    #[serde(skip_serializing_if = "Option::is_none")]
    timer_verify_ns: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timer_decide_ns: Option<u128>,
}

impl TimerMember {
    fn of(judgement: &Judgement) -> Self {
        Self {
            timer_verify_ns: judgement.caller.verify_time.map(|time| time.as_nanos()),
            timer_decide_ns: judgement.decide_time().map(|time| time.as_nanos()),
        }
    }
}

/// Record of a decision, without a line feed.
///
/// `evidence` has the tokens that must not appear in any field of the record. `instead_of` is the outcome of a record of the
/// same decision that this record replaces.
pub(crate) fn line(
    judgement: &Judgement,
    evidence: &[Evidence<'_>],
    origin: CallOrigin<'_>,
    instead_of: Option<Outcome>,
) -> Vec<u8> {
    let notes = Masking::new(origin.salts);
    let resource = judgement.evaluated().map_or("", |decision| decision.resource.as_str());
    let resource = notes.shown(resource, "/input/resource", MAX_RESOURCE, evidence);
    // The kernel's messages hold no values, but they may name an argument that the caller made up.
    let message = notes.shown(judgement.message(), "/result/message", usize::MAX, evidence);
    let record = AuditRecord {
        decision_id: &judgement.arrival.id,
        timestamp: rfc3339::millis(judgement.arrival.now_ms),
        labels: RecordLabels::of(judgement, origin),
        bundles: Bundles::of(judgement),
        path: judgement.arrival.surface.path(),
        input: Input::of(judgement, &notes, evidence, resource),
        result: ResultMember::of(judgement, message, instead_of),
        requested_by: origin.peer,
        trace_id: origin.trace.map(|(trace, _)| trace),
        span_id: origin.trace.map(|(_, span)| span),
        metrics: TimerMember::of(judgement),
        erased: [],
        masked: &notes.masked,
    };
    let mut line = Vec::with_capacity(LINE_BYTES);
    // Texts and numbers always serialize. If they did not, the id would still show that a decision was made.
    if serde_json::to_writer(&mut line, &record).is_err() {
        line = format!("{{\"decision_id\":\"{}\"}}", judgement.arrival.id).into_bytes();
    }
    with_texts(line, &notes)
}

/// Puts the texts that can be erased before the other members of a record. The chain of the log does not cover them.
fn with_texts(line: Vec<u8>, notes: &Masking<'_>) -> Vec<u8> {
    let texts = notes.texts.borrow();
    if texts.is_empty() {
        return line;
    }
    let mut whole = br#"{"texts":"#.to_vec();
    match serde_json::to_writer(&mut whole, &*texts) {
        Ok(()) => {
            whole.push(b',');
            whole.extend_from_slice(line.strip_prefix(b"{").unwrap_or(&line));
            whole
        }
        Err(_) => line,
    }
}

/// SHA-256 of the text of each policy, in hex.
struct PolicyDigests<'a>(&'a [[u8; 32]]);

impl PolicyDigests<'_> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for PolicyDigests<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Hex::from))
    }
}

/// Position of each policy, as `file:line`.
struct PolicyPlaces<'a>(&'a [Location]);

impl Serialize for PolicyPlaces<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|at| format!("{}:{}", at.file, at.line)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use authz_kernel::arguments::ArgumentSchema;
    use authz_kernel::decision::{Decision, Principal, Subject};
    use authz_kernel::json::Value;
    use authz_kernel::reason::ReasonCode;
    use authz_token::{
        AgentFacts, AgentProof, ClaimValue, DerivedValue, SubjectFacts, SubjectKind,
        VerifiedFacts as Proved,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::judgement::{Arrival, CredentialNote, decision_of};
    use crate::settings::Surface;

    /// A decision in which every text is one of `texts`.
    fn judgement(texts: &[String], number: i64) -> Judgement {
        let text = |at: usize| texts.get(at % texts.len()).cloned().unwrap_or_default();
        let mut judgement = Judgement::of(Arrival::new(text(0), number, Surface::Check, None));
        judgement.arrival.listener = text(1);
        judgement.caller.facts = Proved {
            agent: Some(Arc::new(AgentFacts {
                spiffe_id: text(2),
                trust_domain: text(3),
                proof: AgentProof::JwtSvid,
                kid: Some(text(4)),
                issued_at: Some(number),
                expires_at: None,
                token_digest: Some([7; 32]),
                certificate_digest: Some([0xaf; 32]),
                jti: None,
                bound: false,
                audiences: Vec::new(),
            })),
            subject: Some(Arc::new(SubjectFacts {
                issuer: text(5),
                kind: SubjectKind::User,
                sub: text(6),
                token_type: text(0),
                client: text(1),
                kid: None,
                claims: BTreeMap::from([
                    (text(7), ClaimValue::Set(texts.iter().cloned().collect())),
                    (text(8), ClaimValue::String(text(0))),
                    ("long".to_owned(), ClaimValue::Long(number)),
                    ("bool".to_owned(), ClaimValue::Bool(false)),
                ]),
                issued_at: None,
                expires_at: number,
                acr: None,
                auth_time: None,
                may_act: None,
                token_digest: [0x10; 32],
                jti: None,
                bound: false,
                audiences: Vec::new(),
                is_for_alone: false,
                is_alone: false,
                derived: DerivedValue::default(),
            })),
            ..Proved::default()
        };
        let claims = BTreeMap::new();
        judgement.caller.chain = vec![
            Principal::User(Arc::new(Subject {
                issuer: text(5),
                sub: text(6),
                claims,
                narrowed: Vec::new(),
            })),
            Principal::Agent { spiffe_id: text(2), trust_domain: text(3) },
        ];
        judgement.caller.verify_time = Some(Duration::from_nanos(number.unsigned_abs()));
        judgement.caller.credential =
            Some(CredentialNote { jti: text(7), decision_id: text(8), binding: Some("jkt") });
        let schema = serde_json::json!({ "type": "object" });
        let given = serde_json::json!({
            text(1): text(2),
            text(3): [number, 1.5, null, { text(4): text(5) }],
        });
        let schema = ArgumentSchema::compile(&schema);
        let arguments =
            schema.ok().and_then(|schema| schema.read(&serde_json::to_vec(&given).unwrap()).ok());
        judgement.decided(Box::new(Decision {
            policies: texts.to_vec(),
            places: vec![Location { file: text(3), line: 10_203, column: 4 }],
            without_permit: vec![PrincipalName { kind: text(3), id: text(3) }],
            controls: texts.to_vec(),
            obligations: texts.to_vec(),
            operation: text(4),
            tier: Some(Tier::High),
            resource: text(5),
            destination_class: text(6),
            arguments_digest: arguments.as_ref().map(|arguments| arguments.digest()),
            arguments: arguments.map(Arc::new),
            message: text(7),
            ..decision_of(Outcome::Permit, ReasonCode::Permitted)
        }));
        judgement
    }

    /// Checks that a record is one strict JSON object on one line, with the id of its decision.
    fn is_one_object(judgement: &Judgement, origin: CallOrigin<'_>) {
        let written = line(judgement, &[], origin, Some(Outcome::StepUp));
        assert!(!written.contains(&b'\n'));
        let object = authz_kernel::json::parse(&written, authz_kernel::json::Limits::default());
        let id = Value::String(judgement.arrival.id.clone());
        assert_eq!(Some(&id), object.unwrap().get("decision_id"));
    }

    proptest! {
        /// For all texts of a decision, no member stands twice, and nothing ends the line.
        #[test]
        fn a_line_is_one_object(
            texts in prop::collection::vec("(?s:.{0,40})|[a-z./:-]{0,90}", 1..10),
            number in any::<i64>(),
        ) {
            let text = |at: usize| texts.get(at % texts.len()).map_or("", String::as_str);
            let origin = CallOrigin {
                peer: text(0),
                trace: Some((text(1), text(2))),
                node_id: text(3),
                version: text(4),
                salts: None,
            };
            is_one_object(&judgement(&texts, number), origin);
            let arrival = Arrival::new(String::new(), number, Surface::ExtAuthz, None);
            is_one_object(&Judgement::of(arrival), CallOrigin::default());
        }
    }
}
