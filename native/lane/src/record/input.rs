//! `input` of a record: who asked for what.

use std::borrow::Cow;

use authz_kernel::rfc3339;
use authz_token::Evidence;
use serde::Serialize;

use super::arguments::MaskedArguments;
use super::chain::{ChainMember, PeerMember};
use super::checks::ChecksMember;
use super::digest::Hash;
use super::facts::{FactsMember, ReplayableMember};
use super::masking::Masking;
use super::session::{SessionNote, TaskNote};
use super::{MAX_FORM, MAX_RESOURCE};
use crate::judgement::{
    BreakglassNote, CredentialNote, ErasureNote, ForgetNote, GuardStatement, Judgement, PromptNote,
    ReportNote, RevocationNote, SecurityEventNote,
};
use crate::limits;
use crate::request_form::RequestForm;

#[derive(Serialize)]
pub(super) struct Input<'a> {
    enforcer: &'a str,
    enforcer_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<PeerMember<'a>>,
    mode: &'a str,
    chain: ChainMember<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskNote<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'a CredentialNote>,
    /// Statement of a guard about the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<GuardMember<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<RevokedMember<'a>>,
    /// Labels or denials that an administrator deletes.
    #[serde(skip_serializing_if = "Option::is_none")]
    forgotten: Option<ForgottenMember<'a>>,
    /// Texts of the log that an administrator erases.
    #[serde(skip_serializing_if = "Option::is_none")]
    erasure: Option<ErasureMember<'a>>,
    /// Request for break-glass that the call opens, confirms or ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    breakglass: Option<BreakglassMember<'a>>,
    /// Security event of an identity provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    security_event: Option<SecurityEventMember<'a>>,
    /// Report about a permit.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a ReportNote>,
    /// Speaker of the prompt of a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<PromptNote>,
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<usize>,
    /// The request, if it resolves to no operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<AskedMember<'a>>,
    arguments: Option<MaskedArguments<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments_digest: Option<Hash>,
    /// Facts that the policies could read.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<FactsMember<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayable: Option<ReplayableMember<'a>>,
    /// Results of the checks beside policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<ChecksMember<'a>>,
    resource: Cow<'a, str>,
    destination_class: &'a str,
    /// Labels that the enforcer says the call carries.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    labels: &'a [String],
    /// Labels that the destination is not cleared for.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    uncleared_labels: &'a [String],
    /// Rules over the order of events that the call would complete.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    sequences: &'a [String],
    /// Budgets that the call would exceed.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    budgets: &'a [String],
    /// History of the session, if it was recalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionNote<'a>>,
}

impl<'a> Input<'a> {
    /// `resource` is the resource as the record may show it.
    pub(super) fn of(
        judgement: &'a Judgement,
        notes: &'a Masking<'a>,
        evidence: &'a [Evidence<'a>],
        resource: Cow<'a, str>,
    ) -> Self {
        let decision = judgement.evaluated();
        Self {
            enforcer: judgement.arrival.asker.name(),
            enforcer_by: judgement.arrival.asker.known.as_str(),
            peer: judgement.arrival.asker.peer.as_ref().map(PeerMember),
            mode: if judgement.arrival.probe { "PROBE" } else { "ENFORCE" },
            chain: ChainMember { judgement, notes },
            task: judgement.context.task.as_deref().map(TaskNote::of),
            credential: judgement.caller.credential.as_ref(),
            guard: judgement
                .caller
                .guard
                .as_ref()
                .map(|guard| GuardMember::of(guard, notes, evidence)),
            revoked: judgement
                .notes
                .revoked
                .as_ref()
                .map(|note| RevokedMember::of(note, notes, evidence)),
            forgotten: judgement
                .notes
                .forgotten
                .as_ref()
                .map(|note| ForgottenMember::of(note, notes, evidence)),
            erasure: judgement
                .notes
                .erasure
                .as_ref()
                .map(|note| ErasureMember::of(note, notes, evidence)),
            breakglass: judgement
                .notes
                .breakglass
                .as_ref()
                .map(|note| BreakglassMember::of(note, notes, evidence)),
            security_event: judgement
                .notes
                .security_event
                .as_ref()
                .map(|note| SecurityEventMember::of(note, notes, evidence)),
            report: judgement.notes.reported.as_ref(),
            prompt: judgement.notes.prompt,
            operation: &judgement.resolved.operation,
            route: judgement.resolved.route,
            asked: judgement
                .resolved
                .asked
                .as_ref()
                .map(|asked| AskedMember::of(asked, notes, evidence)),
            arguments: MaskedArguments::of(judgement, notes, evidence),
            arguments_digest: decision
                .and_then(|decision| decision.arguments_digest)
                .map(|digest| Hash::from(&digest)),
            facts: FactsMember::of(judgement, notes, evidence),
            replayable: ReplayableMember::of(judgement, notes),
            checks: ChecksMember::of(judgement),
            resource,
            destination_class: decision.map_or("", |decision| decision.destination_class.as_str()),
            labels: &judgement.caller.declared_labels,
            uncleared_labels: decision.map_or(&[], |decision| decision.uncleared_labels.as_slice()),
            sequences: decision.map_or(&[], |decision| decision.sequences.as_slice()),
            budgets: decision.map_or(&[], |decision| decision.budgets.as_slice()),
            session: SessionNote::of(judgement),
        }
    }
}

/// Statement of a guard.
#[derive(Serialize)]
#[serde(untagged)]
enum GuardMember<'a> {
    Verified {
        name: &'a str,
        confidence: u8,
        task: Cow<'a, str>,
        operation: Cow<'a, str>,
        arguments_digest: Hash,
    },
    Refused {
        refused: &'a str,
    },
}

impl<'a> GuardMember<'a> {
    fn of(statement: &'a GuardStatement, notes: &Masking<'_>, evidence: &[Evidence<'_>]) -> Self {
        let shown = |text: &'a str, pointer| notes.shown(text, pointer, limits::ID, evidence);
        match statement {
            GuardStatement::Refused(refused) => Self::Refused { refused },
            GuardStatement::Verified(facts) => Self::Verified {
                name: &facts.guard,
                confidence: facts.confidence,
                task: shown(&facts.task, "/input/guard/task"),
                operation: shown(&facts.operation, "/input/guard/operation"),
                arguments_digest: Hash::from(&facts.arguments_digest),
            },
        }
    }
}

/// A revocation, or the lifting of one.
#[derive(Serialize)]
pub(super) struct RevokedMember<'a> {
    target: &'a str,
    value: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: Cow<'a, str>,
    /// Person who revokes, as the owner of the administration socket states it.
    #[serde(skip_serializing_if = "str::is_empty")]
    by: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    undo: bool,
}

impl<'a> RevokedMember<'a> {
    fn of(note: &'a RevocationNote, notes: &Masking<'_>, evidence: &[Evidence<'_>]) -> Self {
        Self {
            target: note.target.as_str(),
            value: notes.shown(&note.value, "/input/revoked/value", MAX_RESOURCE, evidence),
            reason: notes.shown(&note.reason, "/input/revoked/reason", limits::REASON, evidence),
            by: notes.shown(&note.by, "/input/revoked/by", limits::REVOKED_BY, evidence),
            undo: note.undo,
        }
    }
}

/// A request for break-glass.
#[derive(Serialize)]
pub(super) struct BreakglassMember<'a> {
    action: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    system: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    agent: Cow<'a, str>,
    duration_seconds: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    ticket: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    opened_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    confirmed_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ended_by: &'a str,
    /// Time from which it is no longer in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
}

impl<'a> BreakglassMember<'a> {
    fn of(note: &'a BreakglassNote, notes: &Masking<'_>, evidence: &[Evidence<'_>]) -> Self {
        let shown = |text: &'a str, pointer, most| notes.shown(text, pointer, most, evidence);
        Self {
            action: note.action,
            id: shown(&note.id, "/input/breakglass/id", limits::ID),
            system: shown(&note.system, "/input/breakglass/system", limits::ID),
            agent: shown(&note.agent, "/input/breakglass/agent", limits::ID),
            duration_seconds: note.duration_seconds,
            reason: shown(&note.reason, "/input/breakglass/reason", limits::REASON),
            ticket: shown(&note.ticket, "/input/breakglass/ticket", limits::REVOKED_BY),
            opened_by: &note.opened_by,
            confirmed_by: &note.confirmed_by,
            ended_by: &note.ended_by,
            ends_at: note.ends_at.map(|at| rfc3339::millis(at.0)),
        }
    }
}

/// A security event of an identity provider.
#[derive(Serialize)]
pub(super) struct SecurityEventMember<'a> {
    transmitter: Cow<'a, str>,
    jti: Cow<'a, str>,
    event: Cow<'a, str>,
    action: &'static str,
    reason: Cow<'a, str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    subject: Cow<'a, str>,
    /// Time of the event.
    at: String,
}

impl<'a> SecurityEventMember<'a> {
    fn of(note: &'a SecurityEventNote, notes: &Masking<'_>, evidence: &[Evidence<'_>]) -> Self {
        let shown = |text: &'a str, pointer, most| notes.shown(text, pointer, most, evidence);
        Self {
            transmitter: shown(
                &note.transmitter,
                "/input/security_event/transmitter",
                limits::REVOKED_BY,
            ),
            jti: shown(&note.jti, "/input/security_event/jti", limits::ID),
            event: shown(&note.event, "/input/security_event/event", limits::ID),
            action: note.action,
            reason: shown(&note.reason, "/input/security_event/reason", limits::REASON),
            subject: shown(&note.subject, "/input/security_event/subject", MAX_RESOURCE),
            at: rfc3339::millis(note.at.0),
        }
    }
}

/// Labels or denials that an administrator deletes.
#[derive(Serialize)]
pub(super) struct ForgottenMember<'a> {
    target: &'a str,
    value: Cow<'a, str>,
    denials: bool,
    reason: Cow<'a, str>,
}

impl<'a> ForgottenMember<'a> {
    fn of(note: &'a ForgetNote, notes: &Masking<'_>, evidence: &[Evidence<'_>]) -> Self {
        Self {
            target: note.target,
            value: notes.shown(&note.value, "/input/forgotten/value", MAX_RESOURCE, evidence),
            denials: note.denials,
            reason: notes.shown(&note.reason, "/input/forgotten/reason", MAX_RESOURCE, evidence),
        }
    }
}

/// Texts of the log that an administrator erases.
#[derive(Serialize)]
pub(super) struct ErasureMember<'a> {
    selection: Cow<'a, str>,
    texts: u64,
    records: u64,
    by: Cow<'a, str>,
    reason: Cow<'a, str>,
}

impl<'a> ErasureMember<'a> {
    fn of(note: &'a ErasureNote, notes: &Masking<'_>, evidence: &[Evidence<'_>]) -> Self {
        let shown = |text: &'a str, pointer, most| notes.shown(text, pointer, most, evidence);
        Self {
            selection: shown(&note.selection, "/input/erasure/selection", limits::SELECTION),
            texts: note.texts,
            records: note.records,
            by: shown(&note.by, "/input/erasure/by", limits::REVOKED_BY),
            reason: shown(&note.reason, "/input/erasure/reason", limits::REASON),
        }
    }
}

/// A request that resolves to no operation.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum AskedMember<'a> {
    Operation {
        operation: Cow<'a, str>,
    },
    Http {
        method: &'a str,
        host: Cow<'a, str>,
        path: Cow<'a, str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        query: Vec<Cow<'a, str>>,
        #[serde(skip_serializing_if = "is_false")]
        body: bool,
    },
}

impl<'a> AskedMember<'a> {
    pub(super) fn of(
        asked: &'a RequestForm,
        notes: &Masking<'_>,
        evidence: &[Evidence<'_>],
    ) -> Self {
        let shown = |text: &'a str, member: &str| {
            notes.shown(text, &format!("/input/asked/{member}"), MAX_FORM, evidence)
        };
        match asked {
            RequestForm::Operation(id) => Self::Operation { operation: shown(id, "operation") },
            RequestForm::Http { method, host, path, query, body } => Self::Http {
                method,
                host: shown(host, "host"),
                path: shown(path, "path"),
                query: query.iter().map(|name| shown(name, "query")).collect(),
                body: *body,
            },
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(value: &bool) -> bool {
    !*value
}
