//! The details of a token exchange: each is judged, and charged before the next one is judged.

use std::sync::Arc;

use authz_kernel::model::Tier;
use authz_kernel::task::{Detail, RecordName, alones_of};
use authz_state::store::Transaction;

use super::Exchange;
use super::request::RequestedDetail;
use crate::engine::Engine;
use crate::history;
use crate::judgement::{Arrival, CallerIdentity, Judgement, ResolvedOperation, TaskContext};
use crate::keeper::ChangeError;
use crate::locate::Located;
use crate::refusal::{CallRefusal, Step};
use crate::revoke;
use crate::shown;
use crate::steps::judge::PolicyQuery;
use crate::steps::settle::detail_of;

/// A detail that is permitted.
pub(super) struct PermittedDetail {
    pub(super) detail: Detail,
    /// The task limits that it is charged to, and how much.
    pub(super) charges: Vec<(String, u32)>,
    pub(super) tier: Tier,
    /// The records that remember its labels after the end of the task.
    pub(super) remembered_in: Vec<RecordName>,
}

/// The details of an exchange as a transaction judged them.
pub(super) struct JudgedDetails {
    /// Record of each detail that was judged.
    pub(super) records: Vec<Judgement>,
    pub(super) permitted: Vec<PermittedDetail>,
    /// The task, with the charges of the details.
    pub(super) located: Located,
    /// Refusal of the whole exchange if one detail is not permitted, or failure of the store.
    pub(super) result: Result<(), ChangeError>,
}

impl Engine {
    /// Judges each detail. A detail that is not permitted refuses the whole exchange; the others are judged nevertheless.
    pub(super) fn judge_details(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        located: Located,
    ) -> JudgedDetails {
        let (records, permitted) = (Vec::new(), Vec::new());
        let mut judged = JudgedDetails { records, permitted, located, result: Ok(()) };
        let mut refused = None;
        for detail in &exchange.request.details {
            let located = &mut judged.located;
            let (record, permit) = match self.judge_next(transaction, exchange, detail, located) {
                Ok(judged) => judged,
                Err(error) => return JudgedDetails { result: Err(error), ..judged },
            };
            if permit.is_none() {
                refused.get_or_insert_with(|| {
                    CallRefusal::new(record.reason(), Step::Judge, record.message())
                });
            }
            judged.permitted.extend(permit);
            judged.records.push(record);
        }
        match refused {
            Some(refused) => JudgedDetails { result: Err(refused.into()), ..judged },
            None => {
                let records = judged.records.into_iter().map(|record| {
                    let note = exchange.credential_note(record.arrival.id.clone());
                    record.with_credential(note)
                });
                JudgedDetails { records: records.collect(), ..judged }
            }
        }
    }

    /// Judges one detail, and charges the task if it is permitted.
    fn judge_next(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        detail: &RequestedDetail,
        located: &mut Located,
    ) -> Result<(Judgement, Option<PermittedDetail>), ChangeError> {
        let plan = exchange.caller.plan();
        let id = self.clock.new_id();
        let (record, permit) = self.judge_detail(transaction, exchange, detail, located, id)?;
        if let Some(permit) = &permit {
            history::remember(transaction, plan, &record, located, true, None)?;
            let alones = alones_of(plan, &located.task);
            history::carry(transaction, plan, &record, located, &alones, false)?;
            charge(located, &permit.charges);
        }
        Ok((record, permit))
    }

    /// Judges one detail on the records that the transaction reads.
    ///
    /// `id` is the id of its decision.
    pub(super) fn judge_detail(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        detail: &RequestedDetail,
        located: &Located,
        id: String,
    ) -> Result<(Judgement, Option<PermittedDetail>), ChangeError> {
        let caller = exchange.caller;
        let (plan, now) = (caller.plan(), caller.now());
        let revoked = self.keeper.revocations()?;
        let arguments = detail.arguments_json();
        let destinations: Vec<&str> = detail.destinations.iter().map(String::as_str).collect();
        let request = detail.request(&arguments, &destinations);
        let query = PolicyQuery {
            world: &caller.world,
            request: &request,
            is_unproved: false,
            wants_credential: true,
            traces: false,
            secret: self.keeper.store().secret(),
            value_key: self.keeper.value_key(),
        };
        let recalled = history::current(transaction, plan, &request, located, now)?;
        let task = Some(Arc::clone(&located.task));
        let context = TaskContext { task, recalled, ..TaskContext::default() };
        let record = unjudged_detail(exchange, detail, located, context, id);
        let answer = query.ask(self, &record, Some(located), None);
        let record = record.judged(answer);
        let record = match revoke::of_operation(&revoked, &record.resolved.operation) {
            Ok(()) => record,
            Err(refused) => record.refused(refused),
        };
        let permitted = record.permit().map(|permit| {
            let decision = permit.decision();
            PermittedDetail {
                detail: detail_of(&query, &record.arrival.id, decision),
                charges: decision.charges.clone(),
                tier: decision.tier.unwrap_or_default(),
                remembered_in: history::memories_of(&record, plan, located, now),
            }
        });
        Ok((record, permitted))
    }
}

/// The record of a detail before it is judged.
fn unjudged_detail(
    exchange: &Exchange<'_>,
    detail: &RequestedDetail,
    located: &Located,
    context: TaskContext,
    id: String,
) -> Judgement {
    let caller = exchange.caller;
    let exchanged = &caller.arrival;
    let arrival = Arrival {
        listener: exchanged.listener.clone(),
        asker: exchanged.asker.clone(),
        ..Arrival::new(id, exchanged.now_ms, exchanged.surface, exchanged.world.clone())
    };
    let identity = CallerIdentity {
        facts: caller.facts().clone(),
        chain: shown::chain_in(&caller.identity, caller.now(), located),
        ..CallerIdentity::default()
    };
    let resolved = match caller.plan().operation(&detail.operation) {
        Some(operation) => ResolvedOperation {
            operation: operation.id.clone(),
            system: caller.world.system(&operation.id),
            tier: Some(operation.tier),
            ..ResolvedOperation::default()
        },
        None => ResolvedOperation::default(),
    };
    Judgement::unjudged(arrival, identity, resolved, context)
}

/// Counts the uses of a permit in its task and in all tasks above it.
fn charge(located: &mut Located, charges: &[(String, u32)]) {
    if charges.is_empty() {
        return;
    }
    for task in located.ancestors.iter_mut().chain([&mut located.task]) {
        Arc::make_mut(task).charge(charges);
    }
}
