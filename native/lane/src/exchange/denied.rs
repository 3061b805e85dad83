//! Denials of an exchange that comes to nothing. They count as those of a check do, else an agent could find out here what
//! it may do, and never be noticed.

use std::sync::Arc;

use authz_kernel::history::HistoryChanges;
use authz_kernel::task::{self, Record, RecordKey, RecordKind};
use authz_state::store::{Survives, Transaction};

use super::{Exchange, Place};
use crate::ask::Refused;
use crate::ending::Ended;
use crate::engine::Engine;
use crate::history;
use crate::judgement::Judgement;
use crate::locate::{self, Located};
use crate::steps::record::{ChangeContext, ChangeError};

/// Whether a detail was judged and denied, where that is remembered.
fn is_denied(detail: &Judgement) -> bool {
    detail.permit().is_none() && history::changes(detail).is_some()
}

impl Engine {
    /// Counts the details that were denied. Those of a task that there is count in it; those of a new one below another in
    /// the one above; those of a new root in what the agent's next task for the subject begins with.
    ///
    /// Args: `judged`: the details as the exchange judged them, as many as it came to.
    pub(super) fn count_denials(
        &self,
        exchange: &Exchange<'_>,
        judgement: &Judgement,
        judged: &[Judgement],
        call: &ChangeContext<'_>,
    ) -> Result<(), Refused> {
        if !judged.iter().any(is_denied) {
            return Ok(());
        }
        let plan = &exchange.world.plan;
        let mut locks = Self::exchange_locks(exchange, judgement);
        if let Some(task) = &judgement.context.task {
            locks.extend(task::alone_pair(plan, task));
        }
        let mut ended = Ended::default();
        let mut work = |transaction: &mut dyn Transaction| {
            match self.count_in(transaction, exchange, judgement, judged) {
                Ok(count) => {
                    ended = count;
                    Ok(true)
                }
                Err(ChangeError::Store(error)) => Err(error),
                // In a task that is over meanwhile nothing is denied any more.
                Err(ChangeError::Refused(_) | ChangeError::Unchanged) => Ok(false),
            }
        };
        let commit = self.keeper.transact(&locks, Survives::PowerLoss, call.wait, &mut work)?;
        self.keeper.kept(commit, call.wait)?;
        self.metrics.tasks_ended(task::TaskStatus::Revoked, u64::from(ended.ended));
        self.metrics.tasks_ended(task::TaskStatus::Expired, u64::from(ended.expired));
        Ok(())
    }

    fn count_in(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        judgement: &Judgement,
        judged: &[Judgement],
    ) -> Result<Ended, ChangeError> {
        let (now, plan) = (judgement.arrival.now(), &exchange.world.plan);
        let located = self.counted_where(transaction, exchange, judgement)?;
        let is_new = matches!(exchange.place, Place::New(_));
        let mut ended = Ended::default();
        let asked = exchange.asked.details.iter().zip(judged);
        for (asked, before) in asked.filter(|(_, before)| is_denied(before)) {
            let (mut detail, permitted) =
                self.judge_detail(transaction, exchange, judgement, asked, &located)?;
            // Beside another detail alone it was too much.
            if permitted.is_some() {
                continue;
            }
            // INVARIANT (one decision): what is remembered names the decision that the record tells of.
            detail.arrival.id.clone_from(&before.arrival.id);
            history::remember(transaction, plan, &detail, &located, true, None)?;
            let changes = history::changes(&detail);
            let bars = changes.is_some_and(HistoryChanges::bars_agent);
            let alones = task::alones_of(plan, &located.task);
            history::carry(transaction, plan, &detail, &located, (&alones, bars))?;
            if let Some(top) = changes.and_then(HistoryChanges::ended_task) {
                if !is_new {
                    ended = self.end_denied(transaction, &located.task, top, now)?;
                }
                break;
            }
        }
        if is_new {
            // INVARIANT (all or nothing): the task does not begin.
            transaction.delete(RecordKey::new(RecordKind::Session, &located.task.session));
        }
        Ok(ended)
    }

    /// The task that denials of an exchange count in.
    fn counted_where(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        judgement: &Judgement,
    ) -> Result<Located, ChangeError> {
        let now = judgement.arrival.now();
        match &exchange.place {
            Place::Known(id) | Place::Below { parent: id, .. } => {
                let mut located = locate::find_in(transaction, id)?;
                self.usable(&located, &judgement.caller, now)?;
                located.task = self.claim(transaction, &located.task, now)?;
                Ok(located)
            }
            Place::New(task) => {
                let retention = self.keeper.settings().retention_ms;
                let session = history::begin(transaction, task, (true, now), retention)?;
                transaction.put(Record::Session(Arc::new(session)));
                Ok(Located { task: Arc::clone(task), ancestors: Vec::new() })
            }
        }
    }
}
