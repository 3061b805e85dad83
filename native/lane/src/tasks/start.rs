//! `authz.v1.Tasks/Start`: the root of a new task tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Principal, Time};
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    self, AgentName, Names, Param, PromptNames, Record, RecordKey, RecordKind, Root, ScopeEntry,
    SpokenWords, SubjectProof, Task, TaskKind, TaskSubject,
};
use authz_state::store::{Survives, Transaction};
use prost::Message;

use crate::api_call::{ApiCaller, ApiGrant, ApiOutcome, GrantedChange, WithRecord as _};
use crate::engine::Engine;
use crate::giving;
use crate::history;
use crate::judgement::ApiRecord;
use crate::keeper::ChangeError;
use crate::locate::Located;
use crate::origin_records;
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request::check_id;
use crate::revoke;
use crate::shown;
use crate::speaker;
use crate::tasks::kernel_refused;
use crate::tasks::key::{KeyParties, TaskKey};
use crate::taskwire;
use crate::world::Loaded;

/// Bytes of the `sub` of an asserted subject.
const MAX_SUB: usize = 255;

/// The message of a start, read and bounded.
struct StartOrder<'m> {
    template: &'m str,
    params: BTreeMap<String, Param>,
    scope: Vec<ScopeEntry>,
    deadline: Option<Time>,
    assignee: AgentName,
}

impl<'m> StartOrder<'m> {
    fn read(message: &'m wire::StartRequest, caller: &ApiCaller<'_>) -> Result<Self, CallRefusal> {
        if caller.is_owner {
            return Err(CallRefusal::new(
                ReasonCode::NoCredential,
                Step::Identify,
                "a task is started by a subject or an agent that proves itself",
            ));
        }
        check_id("template", &message.template)?;
        check_id("idempotency_key", &message.idempotency_key)?;
        let params = taskwire::params(message.params.as_ref())?;
        let scope = taskwire::scope(&message.scope)?;
        let deadline = taskwire::time("deadline", message.deadline.as_ref())?;
        let assignee = match (caller.agent(), message.assignee.as_str()) {
            (Some(agent), "") => AgentName {
                spiffe_id: agent.spiffe_id.clone(),
                trust_domain: agent.trust_domain.clone(),
            },
            (None, "") => {
                return Err(CallRefusal::input("`assignee` is empty; a subject names one"));
            }
            (_, assignee) => taskwire::agent("assignee", assignee)?,
        };
        Ok(Self { template: &message.template, params, scope, deadline, assignee })
    }
}

/// The party that starts a task.
struct Starter {
    /// Subject of the task. Default: the agent acts for itself.
    subject: Option<TaskSubject>,
    proof: SubjectProof,
    /// Name of the caller: the agent, or the subject that calls itself.
    name: String,
    /// Agent or subject that the task notes as its starter.
    starter: String,
    /// Chain that policies judge the start by.
    chain: Vec<Principal>,
}

/// A root that is ready to be written.
struct NewRoot<'s> {
    task: Arc<Task>,
    /// Words of the prompt.
    words: SpokenWords,
    /// Chain that gives the task.
    giver: &'s [Principal],
    /// The task is given by an agent, so the giver's labels go with it.
    is_given_by_agent: bool,
    /// The user speaks.
    is_by_user: bool,
    key: Option<TaskKey>,
}

impl Engine {
    /// Starts a task.
    pub(crate) fn start_task(
        &self,
        message: &wire::StartRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::StartResponse> {
        let order = StartOrder::read(message, caller)?;
        let (subject, proof) = self.subject_of_start(message, caller)?;
        let asserted = subject.as_ref().filter(|_| proof == SubjectProof::Asserted);
        let acting = asserted.map(|subject| caller.acting_for(subject.principal()));
        let caller = acting.as_ref().unwrap_or(caller);
        let record = record_of_start(order.template, caller);
        let starter = self.check_starter(&order, subject, proof, caller).with_record(&record)?;
        let prompt = speaker::parts(&message.prompt, &message.prompt_parts).with_record(&record)?;
        let (said, prompt) = self.read_prompt(caller, &prompt, &order.params);
        let record = record.or(&prompt);
        let PromptNames { names, words } = said;
        let task = self.make_root(&order, &starter, names, caller).with_record(&record)?;
        let root = NewRoot { words, ..new_root(message, &starter, task, caller) };
        self.write_root(&root, caller, &record)
    }

    /// The subject of a new task: proved by the evidence, or named by the caller.
    fn subject_of_start(
        &self,
        message: &wire::StartRequest,
        caller: &ApiCaller<'_>,
    ) -> Result<(Option<TaskSubject>, SubjectProof), CallRefusal> {
        let acr = caller.facts().subject.as_ref().and_then(|subject| subject.acr.as_deref());
        let first = caller.chain().first();
        let proved = first.and_then(|first| TaskSubject::of(first, acr.unwrap_or_default()));
        match (proved, message.asserted_subject.as_str()) {
            (Some(subject), "") => Ok((Some(subject), SubjectProof::Verified)),
            (None, "") => Ok((None, SubjectProof::Itself)),
            (Some(_), _) => {
                let message = "the subject is proved, so `asserted_subject` says it again";
                Err(CallRefusal::input(message))
            }
            (None, name) => {
                let subject = asserted_subject(name, &caller.world)?;
                let revoked = self.keeper.revocations()?;
                revoke::of_subject_name(&revoked, &subject.issuer, &subject.sub)?;
                Ok((Some(subject), SubjectProof::Asserted))
            }
        }
    }

    /// Checks that the caller may start the task, and returns the party that starts it.
    fn check_starter(
        &self,
        order: &StartOrder<'_>,
        subject: Option<TaskSubject>,
        proof: SubjectProof,
        caller: &ApiCaller<'_>,
    ) -> Result<Starter, CallRefusal> {
        let plan = caller.plan();
        let name = match (caller.agent(), &subject) {
            (Some(agent), _) => agent.spiffe_id.clone(),
            (None, Some(subject)) => format!("{}:{}", subject.issuer, subject.sub),
            (None, None) => String::new(),
        };
        let mut chain = caller.chain().to_vec();
        let mut starter = name.clone();
        // INVARIANT (an agent gains nothing by leaving its own credential out): a token that an agent may hold starts no more
        // than the agent that gets the task could start for itself.
        if speaker::is_bearer_alone(caller.asker(), caller.facts(), &caller.world) {
            // INVARIANT (labels follow): the caller may be any agent that holds the token, so nobody knows what it has read.
            if !order.params.is_empty() || !order.scope.is_empty() {
                return Err(CallRefusal::new(
                    ReasonCode::NoCredential,
                    Step::Identify,
                    "a start that shows the subject's token alone, which agents hold too, gives no `params` and no `scope`: show \
                     the agent's credential, a token that no agent gets, or ask as a front end",
                ));
            }
            starter.clone_from(&order.assignee.spiffe_id);
            chain.push(order.assignee.principal());
            Self::check_assignee(plan, &order.assignee.spiffe_id)?;
        }
        self.check_subject(&caller.identity, caller.now(), plan, false, caller.wait)?;
        self.check_start(caller, order.template, &order.params, &chain, proof)?;
        Ok(Starter { subject, proof, name, starter, chain })
    }

    /// Makes the root, and checks that its agent may get it.
    fn make_root(
        &self,
        order: &StartOrder<'_>,
        starter: &Starter,
        names: Names,
        caller: &ApiCaller<'_>,
    ) -> Result<Arc<Task>, CallRefusal> {
        let root = Root {
            template: order.template,
            params: &order.params,
            scope: &order.scope,
            kind: TaskKind::Root,
            assignee: order.assignee.clone(),
            subject: starter.subject.clone(),
            subject_proof: starter.proof,
            starter: starter.starter.clone(),
            deadline: order.deadline,
            tier_cap: None,
            names,
            now: caller.now(),
            id: self.clock.new_id(),
            session: self.clock.new_id(),
        };
        self.begin_task(root, &starter.chain, caller)
    }

    /// Makes the task of a new root, and checks that its agent may get it of `giver`, a chain. Nothing is written yet.
    pub(crate) fn begin_task(
        &self,
        root: Root<'_>,
        giver: &[Principal],
        caller: &ApiCaller<'_>,
    ) -> Result<Arc<Task>, CallRefusal> {
        let (plan, now, wait) = (caller.plan(), caller.now(), caller.wait);
        let mut task = task::start(plan, root).map_err(kernel_refused)?;
        shown::begin(&caller.identity, now, &mut task);
        task.by_user = is_by_user(caller);
        self.check_giving(caller, &task, giver)?;
        let located = Located { task: Arc::new(task), ancestors: Vec::new() };
        self.check_left_out(now, plan, &located, wait)?;
        self.note_subject(&caller.identity, now, plan, wait)?;
        Ok(located.task)
    }

    /// Writes the root, or finds the root that the same key started.
    fn write_root(
        &self,
        root: &NewRoot<'_>,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<wire::StartResponse> {
        let (task, now) = (&root.task, caller.now());
        let mut locks = vec![
            RecordKey::new(RecordKind::Session, &task.session),
            RecordKey::new(RecordKind::Agent, task.assignee()),
        ];
        locks.extend(history::counted_in(&task.counted_chain()));
        locks.extend(root.key.as_ref().map(TaskKey::record));
        self.refuse_revoked_task(task).with_record(record)?;
        locks.extend(giving::agent_key(task).filter(|_| root.is_given_by_agent));
        let survives = Survives::Crash;
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            if let Some(key) = &root.key
                && let Some(known) = key.find_task(transaction, now)?
            {
                let message = "the task was started before, by the same key";
                return Ok(GrantedChange::of_task(known, message));
            }
            let task = self.begin_root(transaction, root, caller)?;
            Ok(GrantedChange::of_task(task, "the task is started"))
        })?;
        if grant.answer.id == task.id {
            self.metrics.task_started(TaskKind::Root);
        }
        let answer =
            |task: Arc<Task>| wire::StartResponse { task: Some(taskwire::task(&task, now)) };
        Ok(ApiGrant::map(grant, answer))
    }

    fn refuse_revoked_task(&self, task: &Arc<Task>) -> Result<(), CallRefusal> {
        let revoked = self.keeper.revocations()?;
        revoke::of_tasks(&revoked, std::iter::once(task))
    }

    /// Writes the records of a new root. Returns the task as it was written.
    fn begin_root(
        &self,
        transaction: &mut dyn Transaction,
        root: &NewRoot<'_>,
        caller: &ApiCaller<'_>,
    ) -> Result<Arc<Task>, ChangeError> {
        let (roles, now) = (caller.plan().roles(), caller.now());
        let mut task = Arc::clone(&root.task);
        if root.is_given_by_agent {
            let read = |key: &RecordKey| transaction.get(key);
            let told = giving::remembered_by(roles, root.giver, std::iter::empty(), now, read)?;
            Arc::make_mut(&mut task).told = told.into();
        }
        self.admit_task(transaction, &task, now)?;
        if root.is_given_by_agent && !task.told.is_empty() {
            giving::share(transaction, roles, &task, now)?;
        }
        let by_agent = !root.is_by_user;
        let retention = self.keeper.settings().retention_ms;
        let mut session = history::begin(transaction, &task, by_agent, now, retention)?;
        if root.is_given_by_agent {
            let read = |key: &RecordKey| transaction.get(key);
            history::inherit_from_giver(&mut session, root.giver, &task, now, read)?;
        }
        transaction.put(Record::Session(Arc::new(session)));
        transaction.put(Record::Task(Arc::clone(&task)));
        origin_records::begin_words(transaction, &task, &root.words);
        if let Some(key) = &root.key {
            key.keep(transaction, &task, now);
        }
        Ok(task)
    }
}

/// The record of a start: its template as the operation, where the bundle has the template, and the chain of the caller.
fn record_of_start(template: &str, caller: &ApiCaller<'_>) -> ApiRecord {
    let known = caller.plan().template(template);
    let operation = known.map(|_| format!("task:{template}")).unwrap_or_default();
    ApiRecord { operation, chain: Some(caller.chain().to_vec()), ..ApiRecord::default() }
}

/// A root of which nothing was written yet.
fn new_root<'s>(
    message: &wire::StartRequest,
    starter: &'s Starter,
    task: Arc<Task>,
    caller: &ApiCaller<'_>,
) -> NewRoot<'s> {
    let parties = KeyParties {
        caller: &starter.name,
        subject: task.subject.as_ref(),
        assignee: task.assignee(),
    };
    let request = wire::StartRequest { evidence: Vec::new(), ..message.clone() }.encode_to_vec();
    let key = TaskKey::of("start", &message.idempotency_key, caller, &parties, &request);
    NewRoot {
        giver: &starter.chain,
        is_given_by_agent: caller.agent().is_some() && task.is_given(),
        is_by_user: is_by_user(caller),
        key,
        task,
        words: SpokenWords::default(),
    }
}

/// Whether the prompt and the parameters of a call are the user's word.
pub(crate) fn is_by_user(caller: &ApiCaller<'_>) -> bool {
    speaker::speaker(caller.asker(), caller.facts(), &caller.world).is_user()
}

/// A subject that a starter only names, without claims, and so without roles.
fn asserted_subject(name: &str, world: &Loaded) -> Result<TaskSubject, CallRefusal> {
    let (issuer, sub) = name.split_once('/').unwrap_or_default();
    let is_sub = (1..=MAX_SUB).contains(&sub.len()) && !sub.contains(char::is_control);
    let is_known = world.trust.issuers().iter().any(|known| known.alias == issuer);
    if !is_sub || !is_known {
        return Err(CallRefusal::input(
            "`asserted_subject` is not the alias of an issuer, `/`, and a `sub`",
        ));
    }
    Ok(TaskSubject {
        is_service: false,
        issuer: issuer.to_owned(),
        sub: sub.to_owned(),
        claims: BTreeMap::new(),
        acr: String::new(),
    })
}
