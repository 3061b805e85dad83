//! Reservations: permits that count until their outcome is reported.

use std::sync::Arc;

use authz_kernel::decision::{Decision, Time};
use authz_kernel::hex::hex;
use authz_kernel::history::{HistoryChanges, pair_digest};
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    Detail, NewReservation, Record, RecordKey, RecordKind, Reservation, Task,
};
use authz_state::store::Transaction;

use crate::credential_use::PresentedCredential;
use crate::ending::after;
use crate::engine::Engine;
use crate::history;
use crate::judgement::Judgement;
use crate::keeper::ChangeError;
use crate::locate::Located;
use crate::locate::is_due_for_touch;
use crate::refusal::{CallRefusal, Step};
use crate::shown;
use crate::steps::judge::PolicyQuery;

use crate::steps::settle::charge::Charge;

/// A permit as a detail of a task credential.
pub(crate) fn detail_of(
    judging: &PolicyQuery<'_>,
    decision_id: &str,
    decision: &Decision,
) -> Detail {
    Detail {
        decision_id: decision_id.to_owned(),
        operation: decision.operation.clone(),
        resource: judging.world.plan.resource_of(decision, judging.request),
        arguments_digest: decision.arguments_digest.map(|digest| hex(&digest)),
        destinations: decision.destinations.clone(),
    }
}

/// True if the call is permitted as a task of the MCP server itself, which the task of the call must note.
pub(super) fn notes_call(judgement: &Judgement) -> bool {
    judgement.permit().is_some_and(|permit| permit.decision().server_call)
}

impl Engine {
    /// Marks the permit of a task credential as redeemed. Returns true if an outcome will be reported.
    pub(super) fn redeem(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &Judgement,
        charge: Charge<'_>,
        current: &Located,
        presented: &PresentedCredential,
    ) -> bool {
        let Some(decision) = judgement.evaluated() else { return false };
        let detail = decision.redeems;
        let Some(permit) = detail.and_then(|detail| presented.reservation(detail)) else {
            return false;
        };
        let performed = self.reservation(judgement, charge, current, decision);
        let mut performed = Reservation {
            charged: permit.charged.clone(),
            permitted_at: permit.permitted_at,
            credential: permit.credential.clone(),
            wants_credential: permit.wants_credential,
            redeemed: true,
            remembered_in: performed
                .remembered_in
                .iter()
                .chain(&permit.remembered_in)
                .cloned()
                .collect(),
            rest: permit.rest.clone(),
            ..performed
        };
        let is_reported = judgement.is_reported();
        if is_reported {
            // The enforcer that performs the call reports this decision, not the one of the credential.
            transaction.delete(RecordKey::new(RecordKind::Reservation, &permit.decision_id));
        } else {
            performed.decision_id.clone_from(&permit.decision_id);
        }
        transaction.put(Record::Reservation(Arc::new(performed)));
        is_reported
    }

    /// Writes the tasks as they are after a permit, and its reservation unless a task credential already has one. Returns true if a
    /// reservation was written.
    pub(super) fn reserve(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &Judgement,
        charge: Charge<'_>,
        current: &Located,
        is_new: bool,
    ) -> Result<bool, ChangeError> {
        let (judging, now) = (charge.judging, judgement.arrival.now());
        let charges = judgement.permit().map_or(&[][..], |permit| &permit.decision().charges);
        for task in current.path() {
            let is_charged = charges.iter().any(|(id, _)| *id == task.id);
            let is_touched = is_due_for_touch(task, now);
            let is_noted = notes_call(judgement) && task.id == current.task.id;
            let relies_on = match task.id == current.task.id {
                true => judgement.settlement.relies_on.as_slice(),
                false => &[],
            };
            if !is_charged && !is_touched && !is_new && !is_noted && relies_on.is_empty() {
                continue;
            }
            let mut task = Task::clone(task);
            task.charge(charges);
            if is_noted {
                task.note_call(&judgement.resolved.operation);
            }
            for (approval_id, value) in relies_on {
                if !task.use_endorsed(approval_id, *value) {
                    return Err(ChangeError::Refused(CallRefusal::new(
                        ReasonCode::Unavailable,
                        Step::Record,
                        "what the call depends on changed meanwhile; ask again",
                    )));
                }
            }
            if is_touched {
                task.last_used = now;
            }
            transaction.put(Record::Task(Arc::new(task)));
        }
        let view = current.view();
        let leaves_nothing =
            judging.world.plan.leaves_nothing(&judgement.resolved.operation, Some(&view));
        let is_kept =
            charge.task.presented.is_none() && (judging.wants_credential || !leaves_nothing);
        // A call that `mode` lets through is reported as if it were permitted.
        let brings_values = judgement.decision().is_some_and(|decision| decision.values.is_some());
        let is_open =
            brings_values || history::changes(judgement).is_some_and(HistoryChanges::is_open);
        let softened = judgement.decision().filter(|_| judgement.softened().is_some() && is_open);
        let permitted = judgement.permit().map(|permit| permit.decision()).filter(|_| is_kept);
        let wants_credential = judging.wants_credential && permitted.is_some();
        let Some(decision) = permitted.or(softened) else { return Ok(false) };
        let reservation = Reservation {
            charged: charges.to_vec(),
            wants_credential,
            ..self.reservation(judgement, charge, current, decision)
        };
        self.room_open(&reservation, now)?;
        self.metrics.reserved();
        self.open_permits.add(&reservation);
        transaction.put(Record::Reservation(Arc::new(reservation)));
        Ok(true)
    }

    /// Refuses one more open permit of an agent or of its subject when its share of the store is full.
    pub(crate) fn room_open(
        &self,
        reservation: &Reservation,
        now: Time,
    ) -> Result<(), ChangeError> {
        let most = self.keeper.most_reservations();
        let kept = || self.keeper.store().health().reservations;
        let of = (reservation.agent.as_str(), reservation.pair.as_str());
        if self.open_permits.has_room(of, now, most, kept) {
            return Ok(());
        }
        Err(ChangeError::Refused(CallRefusal::new(
            ReasonCode::Overloaded,
            Step::Record,
            "the agent has as many permits for this subject whose outcome is not reported yet as its share of the store allows",
        )))
    }

    /// The reservation of a decision, without charges.
    fn reservation(
        &self,
        judgement: &Judgement,
        Charge { judging, key, .. }: Charge<'_>,
        current: &Located,
        decision: &Decision,
    ) -> Reservation {
        let now = judgement.arrival.now();
        let agent = judgement.caller.facts.agent.as_ref();
        Reservation {
            operation: judgement.resolved.operation.clone(),
            idempotency: key.map(|key| key.id.clone()),
            values: decision.values.clone(),
            lifted: judgement.settlement.lifted.clone(),
            ..Reservation::new(NewReservation {
                detail: detail_of(judging, &judgement.arrival.id, decision),
                task: &current.task,
                enforcer: judgement.arrival.asker.name().to_owned(),
                permitted_at: now,
                due: after(now, self.keeper.settings().report_within_ms),
                tier: decision.tier.unwrap_or_default(),
                agent: agent.map(|agent| agent.spiffe_id.clone()).unwrap_or_default(),
                pair: pair_digest(&judgement.caller.chain),
                remembered_in: history::memories_of(judgement, &judging.world.plan, current, now),
                subject_until: shown::ends(&judgement.caller),
            })
        }
    }
}
