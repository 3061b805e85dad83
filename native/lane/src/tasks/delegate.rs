//! `authz.v1.Tasks/Delegate`: a task below another one, for another agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::task::{
    self, AgentName, Child, Param, Record, RecordKey, RecordKind, ScopeEntry, Task, TaskKind,
};
use authz_state::store::{Survives, Transaction};
use prost::Message;

use crate::api_call::{ApiCaller, ApiGrant, ApiOutcome, GrantedChange, WithRecord as _};
use crate::engine::Engine;
use crate::giving;
use crate::history;
use crate::judgement::ApiRecord;
use crate::keeper::ChangeError;
use crate::locate::{self, Located};
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::request::check_id;
use crate::revoke;
use crate::shown;
use crate::tasks::kernel_refused;
use crate::tasks::key::{KeyParties, TaskKey};
use crate::taskwire;
use crate::usage::touch_tasks;

/// The message of a delegation, read and bounded.
struct DelegationOrder<'m> {
    parent: &'m str,
    template: Option<&'m str>,
    params: BTreeMap<String, Param>,
    scope: Vec<ScopeEntry>,
    deadline: Option<Time>,
    assignee: AgentName,
}

impl<'m> DelegationOrder<'m> {
    fn read(message: &'m wire::DelegateRequest) -> Result<Self, CallRefusal> {
        check_id("parent", &message.parent)?;
        check_id("template", &message.template)?;
        check_id("idempotency_key", &message.idempotency_key)?;
        Ok(Self {
            parent: &message.parent,
            params: taskwire::params(message.params.as_ref())?,
            scope: taskwire::scope(&message.scope)?,
            deadline: taskwire::time("deadline", message.deadline.as_ref())?,
            assignee: taskwire::agent("assignee", &message.assignee)?,
            template: Some(message.template.as_str()).filter(|name| !name.is_empty()),
        })
    }
}

/// A child that may be written.
struct NewChild<'m> {
    order: DelegationOrder<'m>,
    id: String,
    starter: String,
    /// Chain that gives the task.
    giver: Vec<Principal>,
    /// The task as it was made to be checked. The transaction makes it anew below the parent's current record.
    checked: Task,
    key: Option<TaskKey>,
}

impl NewChild<'_> {
    fn below(&self, parent: &Task, caller: &ApiCaller<'_>) -> Result<Task, CallRefusal> {
        child_below(&self.order, parent, (&self.id, &self.starter), caller)
    }
}

impl Engine {
    /// Delegates a part of a task to another agent.
    pub(crate) fn delegate_task(
        &self,
        message: &wire::DelegateRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::DelegateResponse> {
        let order = DelegationOrder::read(message)?;
        let parent = self.find_visible_task(order.parent, caller)?;
        let record = ApiRecord::of_task(&parent.task);
        let child = self.check_child(message, order, &parent, caller).with_record(&record)?;
        self.write_child(&child, &parent, caller, &record)
    }

    /// Makes the child, and checks that its agent may get it.
    fn check_child<'m>(
        &self,
        message: &wire::DelegateRequest,
        order: DelegationOrder<'m>,
        parent: &Located,
        caller: &ApiCaller<'_>,
    ) -> Result<NewChild<'m>, CallRefusal> {
        let (plan, now) = (caller.plan(), caller.now());
        self.check_usable(parent, &caller.identity, now)?;
        self.check_left_out(now, plan, parent, caller.wait)?;
        let id = self.clock.new_id();
        let starter = parent.task.assignee().to_owned();
        let checked = child_below(&order, &parent.task, (&id, &starter), caller)?;
        revoke::of_agent_name(&*self.keeper.revocations()?, &order.assignee)?;
        let giver = shown::chain_in(&caller.identity, now, parent);
        self.check_giving(caller, &checked, &giver)?;
        let parties = KeyParties {
            caller: &starter,
            subject: parent.task.subject.as_ref(),
            assignee: &order.assignee.spiffe_id,
        };
        let request = wire::DelegateRequest { evidence: Vec::new(), ..message.clone() };
        let request = request.encode_to_vec();
        let key = TaskKey::of("delegate", &message.idempotency_key, caller, &parties, &request);
        Ok(NewChild { order, id, starter, giver, checked, key })
    }

    /// Writes the child, or finds the child that the same key delegated.
    fn write_child(
        &self,
        child: &NewChild<'_>,
        parent: &Located,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<wire::DelegateResponse> {
        let now = caller.now();
        let mut locks = vec![
            RecordKey::new(RecordKind::Session, &parent.task.session),
            RecordKey::new(RecordKind::Agent, &child.order.assignee.spiffe_id),
        ];
        locks.extend(history::counted_in(&child.checked.counted_chain()));
        locks.extend(history::pairs_of_child(&parent.task, &child.checked));
        locks.extend(giving::agent_key(&child.checked));
        locks.extend(child.key.as_ref().map(TaskKey::record));
        let survives = Survives::Crash;
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            if let Some(key) = &child.key
                && let Some(known) = key.find_task(transaction, now)?
            {
                let message = "the task was delegated before, by the same key";
                return Ok(GrantedChange::of_task(known, message));
            }
            let task = self.begin_child(transaction, child, caller)?;
            Ok(GrantedChange::of_task(task, "the task is delegated"))
        })?;
        if grant.answer.id == child.id {
            self.metrics.task_started(TaskKind::Child);
        }
        let answer =
            |task: Arc<Task>| wire::DelegateResponse { task: Some(taskwire::task(&task, now)) };
        Ok(ApiGrant::map(grant, answer))
    }

    /// Writes the records of a child below the current record of its parent.
    fn begin_child(
        &self,
        transaction: &mut dyn Transaction,
        child: &NewChild<'_>,
        caller: &ApiCaller<'_>,
    ) -> Result<Arc<Task>, ChangeError> {
        let (roles, now) = (caller.plan().roles(), caller.now());
        let mut parent = locate::find_in(transaction, child.order.parent)?;
        self.check_usable(&parent, &caller.identity, now)?;
        parent.task = self.claim(transaction, &parent.task, now)?;
        let task = child.below(&parent.task, caller)?;
        self.admit_child(transaction, &parent, &task, now)?;
        history::begin_child(transaction, &parent, &task, now)?;
        let told = match task.is_given() {
            true => {
                let read = |key: &RecordKey| transaction.get(key);
                giving::remembered_by(roles, &child.giver, parent.path(), now, read)?
            }
            false => BTreeMap::new(),
        };
        let task = Arc::new(Task { told: told.into(), ..task });
        touch_tasks(transaction, &parent, now);
        if task.is_given() {
            giving::share(transaction, roles, &task, now)?;
        }
        transaction.put(Record::Task(Arc::clone(&task)));
        if let Some(key) = &child.key {
            key.keep(transaction, &task, now);
        }
        Ok(task)
    }
}

/// Makes a child of a task.
fn child_below(
    order: &DelegationOrder<'_>,
    parent: &Task,
    (id, starter): (&str, &str),
    caller: &ApiCaller<'_>,
) -> Result<Task, CallRefusal> {
    let child = Child {
        template: order.template,
        params: &order.params,
        scope: &order.scope,
        assignee: order.assignee.clone(),
        starter: starter.to_owned(),
        deadline: order.deadline,
        now: caller.now(),
        id: id.to_owned(),
    };
    task::delegate(caller.plan(), parent, child).map_err(kernel_refused)
}
