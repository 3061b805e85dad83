//! Denials of an exchange that gives nothing. They count as those of a check do: otherwise an agent could probe its permissions
//! here, and never be noticed.

use std::sync::Arc;

use authz_kernel::history::HistoryChanges;
use authz_kernel::task::{self, Record, RecordKey, RecordKind, TaskStatus};
use authz_state::store::{Survives, Transaction};

use super::placement::Placement;
use super::{Exchange, exchange_locks};
use crate::ending::Ended;
use crate::engine::Engine;
use crate::history;
use crate::judgement::Judgement;
use crate::keeper::ChangeError;
use crate::locate::{self, Located};
use crate::origin_records;
use crate::refusal::CallRefusal;

/// Whether a detail was judged and denied, and the history remembers the denial.
fn is_denied(detail: &Judgement) -> bool {
    detail.permit().is_none() && history::changes(detail).is_some()
}

impl Engine {
    /// Counts the details that were denied: in the existing task, in the parent of a new child, or in the records that the next
    /// task of the agent for the subject begins with.
    ///
    /// `details` are the records of the details that the exchange judged.
    pub(super) fn count_denials(
        &self,
        exchange: &Exchange<'_>,
        details: &[Judgement],
    ) -> Result<(), CallRefusal> {
        if !details.iter().any(is_denied) {
            return Ok(());
        }
        let wait = exchange.caller.wait;
        let mut locks = exchange_locks(exchange);
        locks.extend(task::alone_pair(exchange.caller.plan(), exchange.placement.task()));
        let mut ended = Ended::default();
        let mut work = |transaction: &mut dyn Transaction| {
            match self.count_in(transaction, exchange, details) {
                Ok(count) => {
                    ended = count;
                    Ok(true)
                }
                Err(ChangeError::Store(error)) => Err(error),
                // Nothing is denied any more in a task that has ended meanwhile.
                Err(ChangeError::Refused(_) | ChangeError::Unchanged) => Ok(false),
            }
        };
        let commit = self.keeper.transact(&locks, Survives::PowerLoss, wait, &mut work)?;
        self.keeper.kept(commit, wait)?;
        self.count_ended(TaskStatus::Revoked, ended);
        Ok(())
    }

    fn count_in(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        details: &[Judgement],
    ) -> Result<Ended, ChangeError> {
        let (plan, now) = (exchange.caller.plan(), exchange.caller.now());
        let located = self.locate_denied(transaction, exchange)?;
        let is_new = matches!(exchange.placement, Placement::Root { .. });
        let mut ended = Ended::default();
        let pairs = exchange.request.details.iter().zip(details);
        for (requested, before) in pairs.filter(|(_, before)| is_denied(before)) {
            // INVARIANT (one decision): the history names the decision whose record tells of the denial.
            let id = before.arrival.id.clone();
            let (detail, permitted) =
                self.judge_detail(transaction, exchange, requested, &located, id)?;
            // The detail was denied only because of another one.
            if permitted.is_some() {
                continue;
            }
            history::remember(transaction, plan, &detail, &located, true, None)?;
            let changes = history::changes(&detail);
            let bars = changes.is_some_and(HistoryChanges::bars_agent);
            let alones = task::alones_of(plan, &located.task);
            history::carry(transaction, plan, &detail, &located, &alones, bars)?;
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
            origin_records::forget_words(transaction, &located.task)?;
        }
        Ok(ended)
    }

    /// The task that denials of an exchange count in.
    fn locate_denied(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
    ) -> Result<Located, ChangeError> {
        let (caller, now) = (exchange.caller, exchange.caller.now());
        match &exchange.placement {
            Placement::Existing(task) | Placement::Child { parent: task, .. } => {
                let mut located = locate::find_in(transaction, &task.id)?;
                self.check_usable(&located, &caller.identity, now)?;
                located.task = self.claim(transaction, &located.task, now)?;
                Ok(located)
            }
            Placement::Root { task, words } => {
                let retention = self.keeper.settings().retention_ms;
                let session = history::begin(transaction, task, true, now, retention)?;
                transaction.put(Record::Session(Arc::new(session)));
                origin_records::begin_words(transaction, task, words);
                Ok(Located { task: Arc::clone(task), ancestors: Vec::new() })
            }
        }
    }
}
