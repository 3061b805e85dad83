//! Record: the audit line of a call, and the wait until it is durable. What cannot be recorded is not permitted.

use std::time::{Duration, Instant};

use authz_kernel::decision::Outcome;
use authz_kernel::model::Tier;
use authz_kernel::reason::ReasonCode;
use authz_kernel::shadow::ShadowGap;
use authz_kernel::task::RecordKey;
use authz_state::store::{Commit, Survives, Transaction};
use authz_state::{AuditError, Durability, Submitted, Ticket, WhenFull};
use authz_token::Evidence;
use prost::Message;

use crate::answer;
use crate::engine::{Engine, seconds};
use crate::envoy::{self, Removed};
use crate::error::EngineError;
use crate::history;
use crate::judgement::{Judgement, method_of};
use crate::keeper::{ChangeError, Wait};
use crate::limits;
use crate::proto::authz::v1 as wire;
use crate::record::{
    self, CallOrigin, DroppedNote, LoadedNote, NodeNote, RefusedLoad, RefusedNote,
};
use crate::refusal::{CallRefusal, Step};
use crate::settings::{AuditOnFull, Lane, Surface};
use crate::shadow_answer::ShadowAnswer;
use crate::steps::EndedCall;
use crate::sums::{self, Row, Sum};
use crate::trace::{self, TraceIds};
use crate::transport::Transport;
use crate::world::Loaded;

/// A call that waits until its record is durable.
pub(crate) struct UnansweredCall {
    judgement: Box<Judgement>,
    line: RecordOrigin,
    reply: Reply,
    ticket: Option<Ticket>,
    /// Write that makes the proofs of the call unusable for another call. It is awaited before `ticket`.
    proved: Option<Ticket>,
    waits: AwaitedWrite,
    received: Instant,
    /// End of the longest wait for these writes.
    until: Instant,
    deadline: Option<Instant>,
}

/// Write that an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AwaitedWrite {
    /// The audit record.
    Record,
    /// The audit record, for which the queue had no room.
    Room,
    /// The changes of the call, in one transaction with the audit record.
    Store,
}

/// Audit record that was written in one transaction with the changes of its call.
#[derive(Debug)]
pub(crate) struct KeptRecord {
    ticket: Option<Ticket>,
    waits: AwaitedWrite,
}

impl KeptRecord {
    /// A record whose transaction another record waits for.
    pub(crate) const fn elsewhere() -> Self {
        Self { ticket: None, waits: AwaitedWrite::Store }
    }
}

/// Work of a transaction: reads and writes, and sets the verdict of the record.
pub(crate) type RecordedChange<'a> =
    dyn FnMut(&mut dyn Transaction, &mut Judgement) -> Result<(), ChangeError> + 'a;

/// Work of a transaction that returns the audit line of its call.
pub(crate) type LineChange<'a> =
    dyn FnMut(&mut dyn Transaction) -> Result<Vec<u8>, ChangeError> + 'a;

/// Origin of a call in its audit record.
#[derive(Clone, Debug)]
pub(crate) struct RecordOrigin {
    pub(crate) peer: String,
    pub(crate) trace: Option<TraceIds>,
    pub(crate) lane: Lane,
}

impl RecordOrigin {
    pub(crate) fn origin<'a>(&'a self, engine: &'a Engine) -> CallOrigin<'a> {
        let settings = &engine.settings;
        CallOrigin {
            peer: &self.peer,
            trace: self.trace.as_ref().map(TraceIds::of_record),
            node_id: &settings.node_id,
            version: &settings.version,
            salts: settings.audit_chain.is_some().then_some(&*engine.clock),
        }
    }
}

/// Call that a transaction belongs to.
pub(crate) struct ChangeContext<'a> {
    pub(crate) evidence: &'a [Evidence<'a>],
    pub(crate) recorded: &'a RecordOrigin,
    pub(crate) wait: Wait,
}

pub(crate) enum Reply {
    Own,
    Envoy { removed: Removed },
}

impl UnansweredCall {
    /// Notes which write failed.
    pub(crate) const fn failed_at(
        &mut self,
        waits: AwaitedWrite,
        recorded: Result<(), AuditError>,
    ) {
        if recorded.is_err() {
            self.waits = waits;
        }
    }

    /// End of the longest wait for its writes.
    pub(crate) const fn until(&self) -> Instant {
        self.until
    }

    /// Takes the next write that the answer must wait for.
    pub(crate) fn take_ticket(&mut self) -> Option<(Ticket, AwaitedWrite)> {
        let proved = self.proved.take().map(|ticket| (ticket, AwaitedWrite::Store));
        proved.or_else(|| self.ticket.take().map(|ticket| (ticket, self.waits)))
    }
}

impl Engine {
    /// The origin of a call.
    pub(crate) fn recorded(&self, transport: &Transport<'_>) -> RecordOrigin {
        let peer = transport.peer.filter(|peer| peer.len() <= limits::PEER).unwrap_or_default();
        RecordOrigin {
            peer: peer.to_owned(),
            trace: trace::ids(
                self.tracing.as_ref(),
                &*self.clock,
                transport.trace_parent,
                transport.trace_state,
            ),
            lane: transport.lane,
        }
    }

    /// Queues the record of a call, unless it went with the changes. A call that cannot be recorded is not permitted.
    pub(crate) fn record(
        &self,
        ended: EndedCall<'_>,
        transport: &Transport<'_>,
        reply: Reply,
        line: RecordOrigin,
    ) -> UnansweredCall {
        let EndedCall { record: mut judgement, evidence, kept } = ended;
        let (ticket, waits) = match kept {
            Some(KeptRecord { ticket, waits }) => (ticket, waits),
            None => self.submit(&mut judgement, &evidence, &line),
        };
        // A refused call gives nothing for its proofs. A later change in the same store is durable only after them.
        let proved = judgement.resolved.proved.take().filter(|_| {
            judgement.passage().is_some() && (ticket.is_none() || waits != AwaitedWrite::Store)
        });
        let deadline = transport.deadline();
        UnansweredCall {
            judgement,
            line,
            reply,
            ticket,
            proved,
            waits,
            received: transport.received,
            until: self.wait_until(deadline),
            deadline,
        }
    }

    /// Queues the record of a call that has no transaction. Returns the write that the answer must wait for.
    fn submit(
        &self,
        judgement: &mut Judgement,
        evidence: &[Evidence<'_>],
        recorded: &RecordOrigin,
    ) -> (Option<Ticket>, AwaitedWrite) {
        let origin = recorded.origin(self);
        let durability = if judgement.resolved.tier.is_some_and(|tier| is_durable(judgement, tier))
        {
            Durability::Synced
        } else if judgement.outcome() == Outcome::Deny && judgement.passage().is_none() {
            Durability::BestEffort
        } else {
            Durability::Queued
        };
        if durability == Durability::BestEffort && self.is_summed(judgement, origin) {
            return (None, AwaitedWrite::Record);
        }
        self.record_dropped(self.dropped_records.due(judgement.arrival.now_ms));
        let line = record::line(judgement, evidence, origin, None);
        match self.audit.submit_or(&line, durability, self.when_full(judgement)) {
            Ok(Submitted::Queued(ticket)) => (ticket, AwaitedWrite::Record),
            Ok(Submitted::Waiting(ticket)) => (Some(ticket), AwaitedWrite::Room),
            Ok(Submitted::Dropped) => {
                self.dropped_records.add(judgement.arrival.now_ms);
                (None, AwaitedWrite::Record)
            }
            Err(error) => {
                judgement.refuse(unrecorded(error, AwaitedWrite::Record));
                // A second refusal would find no room either.
                if durability != Durability::BestEffort {
                    self.record_refusal(judgement, evidence, origin, None);
                }
                (None, AwaitedWrite::Record)
            }
        }
    }

    /// Treatment of a record without a transaction that finds the queue full.
    fn when_full(&self, judgement: &Judgement) -> WhenFull {
        match self.settings.audit_on_full {
            AuditOnFull::Deny => WhenFull::Refuse,
            AuditOnFull::Block => WhenFull::Wait,
            AuditOnFull::Drop if may_drop(judgement) => WhenFull::Drop,
            AuditOnFull::Drop => WhenFull::Refuse,
        }
    }

    /// Records how many records were dropped.
    pub(crate) fn record_dropped(&self, dropped: Option<Sum>) {
        let Some(sum) = dropped else { return };
        let (id, now_ms) = (self.clock.new_id(), self.clock.now_ms());
        let note = NodeNote::Dropped(DroppedNote::of(sum));
        let line = record::node_line(&id, now_ms, note, &self.settings);
        if self.audit.submit(&line, Durability::Queued).is_err() {
            self.dropped_records.keep(sum);
        }
    }

    /// Makes a change and its record in one transaction.
    ///
    /// `change` reads and writes, and sets the verdict that the record shows. The result is `None` if nothing changed, and so nothing
    /// was recorded.
    pub(crate) fn change(
        &self,
        judgement: &mut Judgement,
        call: &ChangeContext<'_>,
        locks: &[RecordKey],
        survives: Survives,
        change: &mut RecordedChange<'_>,
    ) -> Result<Option<KeptRecord>, CallRefusal> {
        let origin = call.recorded.origin(self);
        self.change_with_line(call.wait, locks, survives, &mut |transaction| {
            change(transaction, judgement)?;
            Ok(record::line(judgement, call.evidence, origin, None))
        })
    }

    /// Makes a change and writes its audit line in one transaction.
    ///
    /// Returns none if nothing changed, and so no line was written.
    pub(crate) fn change_with_line(
        &self,
        wait: Wait,
        locks: &[RecordKey],
        survives: Survives,
        change: &mut LineChange<'_>,
    ) -> Result<Option<KeptRecord>, CallRefusal> {
        let mut stopped = None;
        let mut kept = None;
        let started = self.clock.monotonic();
        let mut work = |transaction: &mut dyn Transaction| {
            self.metrics.locked(self.took(started));
            let line = match change(transaction) {
                Ok(line) => line,
                Err(ChangeError::Store(error)) => return Err(error),
                Err(ChangeError::Refused(refused)) => {
                    stopped = Some(refused);
                    return Ok(false);
                }
                Err(ChangeError::Unchanged) => return Ok(false),
            };
            match self.write_line(transaction, line, survives) {
                Ok(written) => {
                    kept = Some(written);
                    Ok(true)
                }
                Err(error) => {
                    stopped = Some(unrecorded(error, AwaitedWrite::Record));
                    Ok(false)
                }
            }
        };
        let commit = self.keeper.transact(locks, survives, wait, &mut work)?;
        if let Some(refused) = stopped {
            return Err(refused);
        }
        if let (Commit::Pending(ticket), Some(kept)) = (commit, &mut kept) {
            kept.ticket = Some(ticket);
        }
        Ok(kept)
    }

    /// Writes an audit line in the transaction of a change.
    fn write_line(
        &self,
        transaction: &mut dyn Transaction,
        line: Vec<u8>,
        survives: Survives,
    ) -> Result<KeptRecord, AuditError> {
        if self.keeper.is_lasting() {
            // The outbox takes any number of lines, but a call whose record cannot be read later is not permitted.
            if !self.audit.is_writable() {
                return Err(AuditError::Failed);
            }
            transaction.audit(line);
            return Ok(KeptRecord { ticket: None, waits: AwaitedWrite::Store });
        }
        let durability = match survives {
            Survives::Crash => Durability::Queued,
            Survives::PowerLoss => Durability::Synced,
        };
        let ticket = self.audit.submit(&line, durability)?;
        Ok(KeptRecord { ticket, waits: AwaitedWrite::Record })
    }

    /// Writes the record of one more decision in the transaction of a change.
    pub(crate) fn record_with(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &Judgement,
        call: &ChangeContext<'_>,
        survives: Survives,
    ) -> Result<(), ChangeError> {
        let origin = call.recorded.origin(self);
        let line = record::line(judgement, call.evidence, origin, None);
        // Lines are synced in their order: the wait for the last line covers this one.
        match self.write_line(transaction, line, survives) {
            Ok(_) => Ok(()),
            Err(error) => Err(ChangeError::Refused(unrecorded(error, AwaitedWrite::Record))),
        }
    }

    /// Ends a call that answers no decision of an operation: records it, waits for the record, and counts the call.
    pub(crate) fn conclude(
        &self,
        record: Box<Judgement>,
        evidence: &[Evidence<'_>],
        transport: &Transport<'_>,
        line: RecordOrigin,
        kept: Option<KeptRecord>,
    ) -> Box<Judgement> {
        let ended = EndedCall { record, evidence: evidence.to_vec(), kept };
        self.conclude_ended(ended, transport, line)
    }

    /// Ends a call: records it, waits for the record, and counts the call.
    pub(crate) fn conclude_ended(
        &self,
        ended: EndedCall<'_>,
        transport: &Transport<'_>,
        line: RecordOrigin,
    ) -> Box<Judgement> {
        let mut pending = self.record(ended, transport, Reply::Own, line);
        let recorded = self.wait(&mut pending);
        self.end_call(pending, recorded)
    }

    /// Ends a call after the wait for its record, and counts it.
    pub(crate) fn end_call(
        &self,
        pending: UnansweredCall,
        recorded: Result<(), AuditError>,
    ) -> Box<Judgement> {
        let UnansweredCall { judgement, line, waits, received, deadline, .. } = pending;
        let judgement = self.confirm(judgement, &line, waits, deadline, recorded);
        self.count(&judgement, received, line.lane, line.trace.as_ref());
        judgement
    }

    /// Writes the record of a refusal if the share of refusals in the audit queue has room; otherwise the writer counts it.
    pub(crate) fn record_refusal(
        &self,
        judgement: &Judgement,
        evidence: &[Evidence<'_>],
        origin: CallOrigin<'_>,
        instead_of: Option<Outcome>,
    ) {
        // A record that replaces an earlier one of the same decision is always written.
        if instead_of.is_some() || !self.is_summed(judgement, origin) {
            drop(self.queue(judgement, evidence, origin, instead_of, Durability::BestEffort));
        }
    }

    /// Counts a refusal of an unverified caller. Returns true if the refusal is summed up with others of the minute, and gets no
    /// record of its own.
    fn is_summed(&self, judgement: &Judgement, origin: CallOrigin<'_>) -> bool {
        let Some(row) = sums::row_of(judgement, origin.peer) else { return false };
        let is_summed = self.sums.take(row, judgement.arrival.now_ms);
        self.write_sums(self.sums.due(judgement.arrival.now_ms));
        is_summed
    }

    /// Records a bundle, or trust, that replaces another.
    pub(crate) fn record_load(&self, before: Option<&Loaded>, loaded: &Loaded) {
        let is_same = before.is_some_and(|before| {
            before.digest == loaded.digest && before.trust.revision() == loaded.trust.revision()
        });
        if is_same {
            return;
        }
        let note = LoadedNote {
            bundle: &loaded.name,
            revision: &loaded.revision,
            digest: &loaded.digest,
            trust: loaded.trust.revision(),
        };
        // A log that cannot be written permits nothing, so no call is decided by a bundle without a record.
        self.record_note(NodeNote::Loaded(note));
    }

    /// Records a load that was refused, if the log is chained. Returns whether the log accepted the record.
    ///
    /// `load` is JSON: `digest` of the refused bundle, `errors` with `at`, `code` and `message` each, and `unrecorded`, the number of
    /// refused loads since the last record of one. Five errors are recorded, with 300 characters of each text.
    ///
    /// # Errors
    /// The bytes are not such a document.
    pub fn record_refused_load(&self, load: &[u8]) -> Result<bool, EngineError> {
        let load: RefusedLoad =
            serde_json::from_slice(load).map_err(EngineError::json("refused load"))?;
        let world = self.world();
        let in_use = world.as_ref().map(|world| world.digest.as_str());
        Ok(self.record_note(NodeNote::Refused(RefusedNote::of(&load, in_use))))
    }

    /// Writes a record that is not a decision, if the log is chained. Returns whether the log accepted it.
    pub(crate) fn record_note(&self, note: NodeNote<'_>) -> bool {
        if self.settings.audit_chain.is_none() {
            return false;
        }
        let (id, now_ms) = (self.clock.new_id(), self.clock.now_ms());
        let line = record::node_line(&id, now_ms, note, &self.settings);
        self.audit.submit(&line, Durability::Queued).is_ok()
    }

    /// Writes the sums of refusals of all minutes that are over, and the number of dropped records.
    pub(crate) fn write_due_sums(&self) {
        let now_ms = self.clock.now_ms();
        self.write_sums(self.sums.due(now_ms));
        self.record_dropped(self.dropped_records.due(now_ms));
    }

    pub(crate) fn write_sums(&self, sums: Vec<(Row, Sum)>) {
        for (row, sum) in sums {
            let line = record::sum_line(
                &self.clock.new_id(),
                self.clock.now_ms(),
                &row,
                sum,
                &self.settings,
            );
            match self.audit.submit(&line, Durability::BestEffort) {
                Ok(_) => self.metrics.summed(sum.count),
                Err(_) => self.sums.keep(row, sum),
            }
        }
    }

    /// Queues the record of a decision.
    fn queue(
        &self,
        judgement: &Judgement,
        evidence: &[Evidence<'_>],
        origin: CallOrigin<'_>,
        instead_of: Option<Outcome>,
        durability: Durability,
    ) -> Result<Option<Ticket>, AuditError> {
        let line = record::line(judgement, evidence, origin, instead_of);
        self.audit.submit(&line, durability)
    }

    /// End of the longest wait for a durable record.
    fn wait_until(&self, deadline: Option<Instant>) -> Instant {
        let most = Duration::from_millis(self.settings.audit_max_wait_ms);
        let now = self.clock.monotonic();
        let latest = now.checked_add(most).unwrap_or(now);
        deadline.map_or(latest, |deadline| deadline.min(latest))
    }

    pub(crate) fn wait(&self, pending: &mut UnansweredCall) -> Result<(), AuditError> {
        let mut recorded = Ok(());
        while recorded.is_ok()
            && let Some((ticket, waits)) = pending.take_ticket()
        {
            recorded = ticket.wait(pending.until);
            pending.failed_at(waits, recorded);
        }
        recorded
    }

    /// Encodes the answer, after the wait for the record.
    pub(crate) fn finish(
        &self,
        mut pending: UnansweredCall,
        recorded: Result<(), AuditError>,
    ) -> Vec<u8> {
        let reply = std::mem::replace(&mut pending.reply, Reply::Own);
        let judgement = self.end_call(pending, recorded);
        match reply {
            Reply::Own => {
                let decision = Some(answer::own(&judgement));
                let dpop_nonce = self.wanted_nonce(&judgement).unwrap_or_default();
                wire::CheckResponse { decision, dpop_nonce }.encode_to_vec()
            }
            Reply::Envoy { removed } => {
                let error_response = self.settings.envoy_error_response;
                let nonce = self.wanted_nonce(&judgement);
                envoy::answer(&judgement, &removed, error_response, nonce)
            }
        }
    }

    /// Turns a decision whose record is not durable into a denial, with a second record that says so.
    pub(crate) fn confirm(
        &self,
        mut judgement: Box<Judgement>,
        recorded: &RecordOrigin,
        waits: AwaitedWrite,
        deadline: Option<Instant>,
        outcome: Result<(), AuditError>,
    ) -> Box<Judgement> {
        let is_late = deadline.is_some_and(|deadline| self.clock.monotonic() >= deadline);
        let outcome = match outcome {
            // The caller no longer waits: the records must not show a permit that it never got.
            Ok(())
                if is_late
                    && (judgement.outcome() != Outcome::Deny || judgement.passage().is_some()) =>
            {
                Err(AuditError::Late)
            }
            outcome => outcome,
        };
        if let Err(error) = outcome {
            let before = judgement.outcome();
            let waits = if is_late { AwaitedWrite::Record } else { waits };
            judgement.refuse(unrecorded(error, waits));
            let origin = recorded.origin(self);
            self.record_refusal(&judgement, &[], origin, Some(before));
        }
        judgement
    }

    pub(crate) fn count(
        &self,
        judgement: &Judgement,
        received: Instant,
        lane: Lane,
        trace: Option<&TraceIds>,
    ) {
        self.metrics.decided(
            judgement.outcome(),
            judgement.reason(),
            judgement.resolved.system,
            judgement.resolved.tier,
            judgement.arrival.surface,
            judgement.softened().is_none(),
        );
        if let Some(decision) = judgement.decision()
            && judgement.passage().is_some()
        {
            self.metrics.exceptions.used(&decision.exceptions, judgement.arrival.now_ms);
        }
        if let Some(decision) = judgement.decision() {
            self.metrics.observed(decision);
        }
        self.count_shadow(judgement);
        if judgement.outcome() == Outcome::StepUp
            && let Some(decision) = judgement.decision()
        {
            decision.kinds.iter().for_each(|kind| self.metrics.stepped_up(kind));
        }
        if let Some(changes) = history::changes(judgement) {
            changes.joining().for_each(|label| self.metrics.label_joined(label));
        }
        let took = self.took(received);
        self.metrics.took(lane, judgement.arrival.surface, took);
        let agent = judgement.caller.facts.agent.as_ref().map(|agent| method_of(agent.proof));
        self.metrics.identified(judgement.arrival.asker.known, agent);
        if let Some((tracing, ids)) = self.tracing.as_ref().zip(trace) {
            tracing.end(ids, judgement, self.clock.since_1970(), took);
        }
    }

    /// Counts the answer of the shadow bundle to a call about an operation. A call that no policy judged counts as not compared.
    fn count_shadow(&self, judgement: &Judgement) {
        let world = judgement.arrival.world.as_ref();
        let is_shadowed = world.is_some_and(|world| world.shadow.is_some());
        let is_decision = matches!(
            judgement.arrival.surface,
            Surface::Check | Surface::BatchCheck | Surface::ExtAuthz
        );
        if is_shadowed && is_decision {
            let not_judged = ShadowAnswer::NotCompared(ShadowGap::NotJudged);
            self.metrics.shadowed(judgement.shadow.as_ref().unwrap_or(&not_judged));
        }
    }

    /// The nonce for the next proof of possession, if this one lacked a nonce.
    fn wanted_nonce(&self, judgement: &Judgement) -> Option<String> {
        let wanted = judgement.use_nonce();
        wanted.then(|| self.nonces(seconds(judgement.arrival.now_ms)).into_current())
    }
}

/// Whether the record of a call of a tier is on disk before the answer leaves.
fn is_durable(judgement: &Judgement, tier: Tier) -> bool {
    let world = judgement.arrival.world.as_ref();
    let required = world.and_then(|world| world.plan.model().tiers.get(tier as usize));
    tier >= Tier::High || required.is_some_and(|required| required.durable_audit)
}

/// Whether a decision may be answered although its record is dropped: a decision about an operation, which changes nothing. Changes
/// have their record in their own transaction. Each use of break-glass has a record.
fn may_drop(judgement: &Judgement) -> bool {
    matches!(judgement.arrival.surface, Surface::Check | Surface::BatchCheck | Surface::ExtAuthz)
        && judgement.evaluated().is_none_or(|decision| decision.breakglass.is_none())
}

fn unrecorded(error: AuditError, waits: AwaitedWrite) -> CallRefusal {
    let (reason, message) = match (waits, error) {
        (AwaitedWrite::Record | AwaitedWrite::Room, AuditError::Full | AuditError::Failed) => {
            (ReasonCode::AuditFull, error.to_string())
        }
        (AwaitedWrite::Room, AuditError::Late) => {
            (ReasonCode::AuditFull, "the audit queue had no room in time".to_owned())
        }
        (AwaitedWrite::Record, AuditError::Late) => (ReasonCode::Deadline, error.to_string()),
        (AwaitedWrite::Store, AuditError::Full | AuditError::Failed) => {
            (ReasonCode::StateUnavailable, "the store could not keep the change".to_owned())
        }
        (AwaitedWrite::Store, AuditError::Late) => {
            (ReasonCode::StoreSlow, "the change was not kept in time".to_owned())
        }
    };
    CallRefusal::new(reason, Step::Record, message)
}
