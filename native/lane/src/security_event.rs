//! Security events of identity providers, which the HTTP server has verified (RFC 8935, OpenID CAEP).
//!
//! An event ends what a subject has begun: tokens of the subject that were issued by then are refused, and its live tasks end. An
//! event may come twice, and late: a cut-off only ever moves forward, and tasks that began after it stay.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::{Cutoff, Record, RecordKey, RecordKind, TaskStatus};
use authz_state::store::{Page, Query, Survives};
use serde::{Deserialize, Serialize};

use crate::api_call::{
    ApiCaller, ApiGrant, ApiMessage, ApiOutcome, CallerEvidence, GrantedChange, WithRecord as _,
};
use crate::ending;
use crate::engine::Engine;
use crate::judgement::{ApiNotes, ApiRecord, SecurityEventNote};
use crate::limits;
use crate::refusal::CallRefusal;
use crate::request::check_length;
use crate::settings::Surface;
use crate::transport::{ApiError, Transport};

/// Tasks that are read at once.
const SCAN: usize = 1_000;

/// Security event, as the HTTP server has verified it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecurityEvent {
    /// Name of the transmitter in the configuration.
    transmitter: String,
    /// Id of the event's token.
    jti: String,
    /// Type of the event.
    event: String,
    /// Reaction of Authz.
    action: EventAction,
    /// Why it does so; also the reason in messages of refusals.
    reason: String,
    /// Subject of the event. `None`: none of an issuer of the configuration.
    subject: Option<SignalSubject>,
    /// Time of the event, in milliseconds since 1970.
    at_ms: i64,
    /// Time after the event for which tokens that were issued before it may still be valid, in milliseconds.
    keep_ms: i64,
}

/// Subject of an event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalSubject {
    /// Alias of its issuer.
    issuer: String,
    /// Claim of its tokens that holds `value`. `None`: `sub`.
    claim: Option<String>,
    /// `sub` of its tokens, or the value of the claim.
    value: String,
}

/// Reaction of Authz to an event.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum EventAction {
    /// Refuses the subject's tokens up to the event, and ends its tasks.
    End,
    /// Records the event.
    Record,
    /// Records that the event concerns nobody here, or is of an unknown type.
    Ignore,
}

impl EventAction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Record => "record",
            Self::Ignore => "ignore",
        }
    }
}

/// Answer to an event.
#[derive(Debug, Serialize)]
struct EventAnswer {
    tasks_ended: u32,
}

impl ApiMessage for SecurityEvent {
    const OPERATION: &'static str = "authz.security_event";

    fn evidence(&self) -> CallerEvidence<'_> {
        CallerEvidence::Transmitter
    }
}

impl Engine {
    /// Takes a security event. The request and the answer are JSON.
    ///
    /// # Errors
    /// The listener is not the one of HTTP endpoints, the event is not valid, or the store fails. The transmitter sends the event
    /// again then.
    pub(crate) fn security_event(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || {
            self.check_size(request)?;
            serde_json::from_slice::<SecurityEvent>(request)
                .map_err(|_| CallRefusal::input("the bytes are no security event"))
        };
        let run =
            |event: &SecurityEvent, caller: &ApiCaller<'_>| self.take_security_event(event, caller);
        let answer = self.api_call(Surface::SecurityEvent, transport, decode, run)?;
        serde_json::to_vec(&answer).map_err(|_| self.failed_inside())
    }

    fn take_security_event(
        &self,
        event: &SecurityEvent,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<EventAnswer> {
        check_event(event, caller)?;
        let name = event.subject.as_ref().map(|subject| {
            Cutoff::id_of(&subject.issuer, subject.claim.as_deref(), &subject.value)
        });
        // No event is of a later time than now: it would refuse tokens that are not issued yet.
        let at = Time(event.at_ms.min(caller.now().0));
        let note = SecurityEventNote {
            transmitter: event.transmitter.clone(),
            jti: event.jti.clone(),
            event: event.event.clone(),
            action: event.action.as_str(),
            reason: event.reason.clone(),
            subject: name.unwrap_or_default(),
            at,
        };
        let notes = ApiNotes { security_event: Some(note), ..ApiNotes::default() };
        let record = ApiRecord { notes, ..ApiRecord::default() };
        match (event.action, &event.subject) {
            (EventAction::End, Some(subject)) => {
                let cutoff = Cutoff {
                    issuer: subject.issuer.clone(),
                    claim: subject.claim.clone(),
                    value: subject.value.clone(),
                    at,
                    reason: event.reason.clone(),
                    by: event.transmitter.clone(),
                    ends_at: ending::after(at, u64::try_from(event.keep_ms).unwrap_or(0)),
                    rest: std::collections::BTreeMap::new(),
                };
                self.cut_off(&cutoff, caller, &record).with_record(&record)
            }
            (EventAction::End, None) => {
                Err(CallRefusal::input("an event that ends tasks names their subject").into())
            }
            (action, _) => {
                let message = format!("the event is taken: {}", action.as_str());
                let grant = ApiGrant::unchanged(EventAnswer { tasks_ended: 0 }, message);
                Ok(ApiGrant { record, ..grant })
            }
        }
    }

    /// Writes the cut-off of a subject, and ends the tasks that it covers.
    fn cut_off(
        &self,
        cutoff: &Cutoff,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<EventAnswer> {
        let key = RecordKey::new(RecordKind::Cutoff, cutoff.id());
        let (locks, survives) = ([key.clone()], Survives::PowerLoss);
        let mut written = cutoff.clone();
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            written = match transaction.get(&key)? {
                // INVARIANT (forward only): an older event that comes later, or again, gives no token back.
                Some(Record::Cutoff(known)) => later_of(&known, cutoff),
                _ => cutoff.clone(),
            };
            transaction.put(Record::Cutoff(Arc::new(written.clone())));
            let message = "the subject's earlier tokens are refused, and its tasks end";
            Ok(GrantedChange::new((), message))
        })?;
        let tasks_ended = self.end_cut_off(&written, caller)?;
        Ok(grant.map(|()| EventAnswer { tasks_ended }))
    }

    /// Ends the live tasks that a cut-off covers: nothing is permitted in them already.
    fn end_cut_off(&self, cutoff: &Cutoff, caller: &ApiCaller<'_>) -> Result<u32, CallRefusal> {
        // Each step has a wait of its own, within the call's deadline: there may be many tasks.
        let wait = || self.wait_of(caller.transport);
        let mut ended = 0_u32;
        let mut after = String::new();
        loop {
            let records = self.keeper.find(&Query::Tasks, &Page { after, most: SCAN }, wait())?;
            let Some(last) = records.last() else { return Ok(ended) };
            after = last.key().id.to_string();
            for record in records {
                // The tasks below a root have its subject, and end with it.
                if let Record::Task(task) = record
                    && task.ancestors.is_empty()
                    && task.status == TaskStatus::Active
                    && task.subject.as_ref().is_some_and(|subject| cutoff.is_of(subject))
                    && cutoff.covers_task(&task)
                {
                    ended = ended.saturating_add(self.end_revoked(&task, wait(), caller.now())?);
                }
            }
        }
    }
}

/// The cut-off of two that refuses more tokens, for as long as either is kept.
fn later_of(known: &Cutoff, new: &Cutoff) -> Cutoff {
    let ends_at = known.ends_at.max(new.ends_at);
    let later = if known.at >= new.at { known } else { new };
    Cutoff { ends_at, rest: known.rest.clone(), ..later.clone() }
}

/// Checks the members of an event.
fn check_event(event: &SecurityEvent, caller: &ApiCaller<'_>) -> Result<(), CallRefusal> {
    for (name, text, most) in [
        ("transmitter", &event.transmitter, limits::REVOKED_BY),
        ("jti", &event.jti, limits::ID),
        ("event", &event.event, limits::ID),
        ("reason", &event.reason, limits::REASON),
    ] {
        check_length(name, text, most)?;
    }
    if event.keep_ms < 0 || event.at_ms < 0 {
        return Err(CallRefusal::input("`at_ms` or `keep_ms` is negative"));
    }
    let Some(subject) = &event.subject else { return Ok(()) };
    let is_known = caller.world.trust.issuers().iter().any(|known| known.alias == subject.issuer);
    if !is_known {
        return Err(CallRefusal::input("no issuer is configured under the alias of the subject"));
    }
    let claim = subject.claim.as_deref();
    let id = Cutoff::id_of(&subject.issuer, claim, &subject.value);
    let is_fit = !subject.value.is_empty() && claim.is_none_or(|claim| !claim.is_empty());
    if !is_fit || id.contains(char::is_control) || id.len() > limits::CUTOFF {
        let message = "the subject is empty or too long, or has control characters";
        return Err(CallRefusal::input(message));
    }
    Ok(())
}
