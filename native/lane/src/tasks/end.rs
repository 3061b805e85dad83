//! `authz.v1.Tasks/End`, and the end of task trees by administrators.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::history::Holder;
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    AgentName, Party, Record, RecordKey, RecordKind, Task, TaskStatus, alone_without_task,
    alones_of, is_implicit_id,
};
use authz_state::store::{Page, Query, Survives, Transaction};

use crate::api_call::{ApiCaller, ApiOutcome, GrantedChange, WithRecord as _};
use crate::ending::{self, Ended, after};
use crate::engine::Engine;
use crate::giving;
use crate::history;
use crate::judgement::ApiRecord;
use crate::keeper::ChangeError;
use crate::keeper::Wait;
use crate::locate;
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request::check_id;
use crate::tasks::{END, may_end};

/// Tasks that are read at once.
const PAGE: usize = 256;

impl Engine {
    /// Ends a task and all tasks below it.
    pub(crate) fn end_task(
        &self,
        message: &wire::EndRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::EndResponse> {
        check_id("task", &message.task)?;
        let status = match wire::TaskStatus::try_from(message.status) {
            Ok(wire::TaskStatus::Completed) => TaskStatus::Completed,
            Ok(wire::TaskStatus::Aborted) => TaskStatus::Aborted,
            Ok(wire::TaskStatus::Revoked) => TaskStatus::Revoked,
            _ => {
                return Err(
                    CallRefusal::input("`status` is not COMPLETED, ABORTED or REVOKED").into()
                );
            }
        };
        let located = self.find_visible_task(&message.task, caller)?;
        let (task, record) = (&located.task, ApiRecord::of_task(&located.task));
        if !caller.is_owner && !may_end(&located, caller.facts(), status) {
            self.check_own_operation(caller, END).with_record(&record)?;
        }
        let is_declined =
            status == TaskStatus::Aborted && task.unused && caller.is_agent(task.assignee());
        let grant = if task.is_barred(caller.now()) && status != TaskStatus::Revoked {
            self.begin_anew(task, caller, &record)?
        } else if is_declined {
            self.decline(task, caller, &record)?
        } else {
            self.end_tree(&task.session, Some(&message.task), status, caller, &record)?
        };
        Ok(grant.map(|ended| wire::EndResponse { ended }))
    }

    /// Lets a pair that works without tasks begin a new session, where the earlier one was taken away. Only the owner may, and
    /// the subject alone where denials ended the session.
    fn begin_anew(
        &self,
        task: &Task,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<u32> {
        let now = caller.now();
        let retention = self.keeper.settings().retention_ms;
        let mut locks = vec![RecordKey::new(RecordKind::Session, &task.session)];
        locks.extend(Holder::Pair.key(&task.chain()));
        let survives = Survives::PowerLoss;
        self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            let current = locate::find_in(transaction, &task.id)?.task;
            let session = history::session(transaction, &task.session)?;
            let mut session = session.ok_or_else(history::lost)?;
            if !caller.is_owner && session.ended_at.is_none() {
                let message =
                    "the session was revoked; only its administrator lets the pair begin anew";
                return Err(CallRefusal::new(ReasonCode::Revoked, Step::Locate, message).into());
            }
            // Nothing is left of the denials: the pair is not refused because of them.
            history::begin(transaction, &current, false, now, retention)?;
            let held = Arc::make_mut(&mut session);
            (held.ended_at, held.expires_at) = (None, after(now, retention));
            transaction.put(Record::Session(session));
            let status = TaskStatus::Completed;
            let ended = Task { status, ended_at: Some(now), ..Task::clone(&current) };
            transaction.put(Record::Task(Arc::new(ended)));
            Ok(GrantedChange::new(1, "the pair begins anew"))
        })
    }

    /// Ends a task that its agent declines: nothing of it counts for the agent.
    fn decline(&self, task: &Task, caller: &ApiCaller<'_>, record: &ApiRecord) -> ApiOutcome<u32> {
        let mut locks = vec![RecordKey::new(RecordKind::Session, &task.session)];
        let agent = giving::agent_key(task);
        locks.extend(agent.clone());
        let survives = Survives::PowerLoss;
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            let (ended, declined) = self.decline_in(transaction, task, agent.as_ref(), caller)?;
            Ok(match declined {
                Some(task) => GrantedChange::new(ended, "the task is declined")
                    .with_record(ApiRecord::of_task(&task)),
                None => GrantedChange::new(ended, format!("{} tasks ended", ended.ended)),
            })
        })?;
        self.count_ended(TaskStatus::Aborted, grant.answer);
        Ok(grant.map(|ended| ended.ended))
    }

    /// Ends a declined task in a transaction. Returns the task if it could still be declined.
    fn decline_in(
        &self,
        transaction: &mut dyn Transaction,
        task: &Task,
        agent: Option<&RecordKey>,
        caller: &ApiCaller<'_>,
    ) -> Result<(Ended, Option<Arc<Task>>), ChangeError> {
        let (now, retention) = (caller.now(), self.keeper.settings().retention_ms);
        let current = locate::find_in(transaction, &task.id)?.task;
        // Also where the giver has ended the task: nothing but declining takes its labels away.
        let is_declined = current.unused && !current.declined;
        let (top, status) = (Some(task.id.as_str()), TaskStatus::Aborted);
        let ended = ending::end(transaction, &task.session, top, status, now, retention)?;
        if !is_declined {
            return Ok((ended, None));
        }
        if let Some(key) = agent {
            let known = history::known_party(transaction.get(key)?, key, now);
            if known.shared.contains_key(&task.id) {
                let mut party = Party::clone(&known);
                party.shared.remove(&task.id);
                transaction.put(Record::Agent(Arc::new(party)));
            }
        }
        let ended_task = locate::find_in(transaction, &task.id)?.task;
        let declined = Arc::new(Task { declined: true, ..Task::clone(&ended_task) });
        transaction.put(Record::Task(Arc::clone(&declined)));
        Ok((ended, Some(declined)))
    }

    /// Ends the live tasks of a session, or of the part of it from the task `top` down. Returns how many ended.
    pub(crate) fn end_tree(
        &self,
        session: &str,
        top: Option<&str>,
        status: TaskStatus,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<u32> {
        let (plan, now) = (caller.plan(), caller.now());
        let retention = self.keeper.settings().retention_ms;
        let mut locks = vec![RecordKey::new(RecordKind::Session, session)];
        // A session that is taken away from a pair is also taken away from the agent that leaves the subject out.
        let is_session = top.is_none() || is_implicit_id(session);
        let alones = match is_session && status == TaskStatus::Revoked {
            true => self.alones_in(plan, session, caller.wait).with_record(record)?,
            false => BTreeMap::new(),
        };
        locks.extend(alones.keys().map(|id| RecordKey::new(RecordKind::Session, id)));
        let survives = Survives::PowerLoss;
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            let ended = ending::end(transaction, session, top, status, now, retention)?;
            for (alone, task) in &alones {
                history::bar_alone(transaction, plan, task, alone, false, now)?;
            }
            Ok(GrantedChange::new(ended, format!("{} tasks ended", ended.ended)))
        })?;
        self.count_ended(status, grant.answer);
        Ok(grant.map(|ended| ended.ended))
    }

    /// Counts tasks that ended.
    pub(crate) fn count_ended(&self, status: TaskStatus, ended: Ended) {
        self.metrics.tasks_ended(status, u64::from(ended.ended));
        self.metrics.tasks_ended(TaskStatus::Expired, u64::from(ended.expired));
    }

    /// The sessions of agents alone that are taken away with a session, each with a task of its agent.
    fn alones_in(
        &self,
        plan: &Plan,
        session: &str,
        wait: Wait,
    ) -> Result<BTreeMap<String, Arc<Task>>, CallRefusal> {
        let mut all = BTreeMap::new();
        let mut add = |task: Arc<Task>| {
            let alones = alones_of(plan, &task).into_iter();
            all.extend(alones.map(|alone| (alone.id, Arc::clone(&task))));
        };
        if is_implicit_id(session) {
            self.keeper.task(session, wait)?.into_iter().for_each(add);
            return Ok(all);
        }
        let key = RecordKey::new(RecordKind::Session, session);
        if let Some(Record::Session(known)) = self.keeper.peek(&key, wait)?
            && known.is_taskless()
        {
            let agent = known.agent.as_deref().and_then(|agent| AgentName::parse(agent).ok());
            all.extend(agent.and_then(|agent| alone_without_task(plan, agent)));
            return Ok(all);
        }
        let query = Query::Session(session.to_owned());
        let mut after = String::new();
        loop {
            let records = self.keeper.find(&query, &Page { after, most: PAGE }, wait)?;
            // A tree is bounded when its tasks are started.
            let Some(last) = records.last() else { return Ok(all) };
            after = last.key().id.to_string();
            records.into_iter().for_each(|record| {
                if let Record::Task(task) = record {
                    add(task);
                }
            });
        }
    }
}
