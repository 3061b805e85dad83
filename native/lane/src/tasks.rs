//! `authz.v1.Tasks`: starting, delegating, extending, reading and ending tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decide::decide;
use authz_kernel::decision::{Facts, Outcome, Principal, Request, Time};
use authz_kernel::hex::hex;
use authz_kernel::history::Holder;
use authz_kernel::reason::ReasonCode;
use authz_kernel::schema::GIVE;
use authz_kernel::task::{
    self, AgentName, Child, Idempotency, Names, Part, Record, RecordKey, RecordKind, Root, Subject,
    SubjectProof, Task, TaskKind, TaskStatus, read_names,
};
use authz_state::store::{Page, Query, Survives, Transaction};
use authz_token::{AgentProof, Evidence};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::ask::{self, Refused, Step};
use crate::ending::after;
use crate::engine::{Engine, own};
use crate::giving;
use crate::history;
use crate::judgement::{CallerIdentity, Judgement};
use crate::limits;
use crate::locate::{self, Located, is_due_for_touch};
use crate::presented::Sent;
use crate::proto::authz::v1 as wire;
use crate::revoke;
use crate::settings::Surface;
use crate::shown;
use crate::speaker::{self, PromptNote};
use crate::steps::judge::kernel_facts;
use crate::steps::record::{ChangeContext, ChangeError, GrantedChange, KeptRecord};
use crate::taskwire;
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

/// The operations of ours that policy judges.
const START_FOR: &str = "authz.task.start_for";
const READ: &str = "authz.task.read";
pub(crate) const END: &str = "authz.task.end";
/// How long the answer to a key is kept.
const KEY_MS: u64 = 60 * 60 * 1_000;
/// Tasks on a page where the request does not say, and at most.
const PAGE: usize = 100;
const MOST_PAGE: usize = 1_000;
/// Tasks that one call looks at.
const MOST_SEEN: usize = 10_000;
/// Bytes of the `sub` of an asserted subject.
const MAX_SUB: usize = 255;

/// A call of the service, once its caller is known.
pub(crate) struct Caller<'a> {
    pub(crate) world: Arc<Loaded>,
    pub(crate) call: ChangeContext<'a>,
    /// It came by the administration listener without evidence: the owner of the socket.
    pub(crate) is_owner: bool,
}

/// What came of a call: the answer, and the record where it went with a change.
pub(crate) type Done = (Vec<u8>, Option<KeptRecord>);

impl Engine {
    /// Answers a method of the service.
    pub(crate) fn tasks(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        match surface {
            Surface::TaskStart => self.method(
                surface,
                request,
                transport,
                |message: &wire::StartRequest| message.evidence.as_slice(),
                |message, judgement, caller| self.start(message, judgement, caller),
            ),
            Surface::TaskDelegate => self.method(
                surface,
                request,
                transport,
                |message: &wire::DelegateRequest| message.evidence.as_slice(),
                |message, judgement, caller| self.delegate(message, judgement, caller),
            ),
            Surface::TaskExtend => self.method(
                surface,
                request,
                transport,
                |message: &wire::ExtendRequest| message.evidence.as_slice(),
                |message, judgement, caller| self.extend(message, judgement, caller),
            ),
            Surface::TaskGet => self.method(
                surface,
                request,
                transport,
                |message: &wire::GetRequest| message.evidence.as_slice(),
                |message, judgement, caller| self.get(message, judgement, caller),
            ),
            Surface::TaskList => self.method(
                surface,
                request,
                transport,
                |message: &wire::TasksListRequest| message.evidence.as_slice(),
                |message, judgement, caller| self.list_tasks(message, judgement, caller),
            ),
            _ => self.method(
                surface,
                request,
                transport,
                |message: &wire::EndRequest| message.evidence.as_slice(),
                |message, judgement, caller| self.end(message, judgement, caller),
            ),
        }
    }

    /// Reads a request, identifies its caller, runs it, and records what came of it.
    pub(crate) fn method<M: Message + Default>(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
        evidence: impl Fn(&M) -> &[wire::Evidence],
        run: impl FnOnce(&M, &mut Judgement, &Caller<'_>) -> Result<Done, Refused>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || {
            self.check_size(request)?;
            M::decode(request).map_err(|_| Refused::input("the bytes are no such request"))
        };
        let (record, answer) = self.api_call(
            surface,
            transport,
            decode,
            |message: &M, transport, record, presented, line| {
                let (world, is_owner) =
                    self.caller(record, evidence(message), presented, transport)?;
                let call = ChangeContext {
                    evidence: presented,
                    recorded: line,
                    wait: self.wait_of(transport),
                };
                run(message, record, &Caller { world, call, is_owner })
            },
        );
        record.granted()?;
        answer.ok_or_else(|| self.failed_inside())
    }

    /// Admits and identifies the caller. The owner of the administration socket needs no evidence.
    pub(crate) fn caller<'a>(
        &self,
        judgement: &mut Judgement,
        evidence: &'a [wire::Evidence],
        presented: &mut Vec<Evidence<'a>>,
        transport: &Transport<'a>,
    ) -> Result<(Arc<Loaded>, bool), Refused> {
        let known = self.try_caller(judgement, evidence, presented, transport);
        if known.is_err() && judgement.caller.verify_time.is_none() {
            let claim = ask::agent_claim(evidence, &self.settings);
            let agent = self.agent_of_refused(&judgement.arrival, &claim, transport);
            judgement.caller.refused_agent = agent;
        }
        known
    }

    fn try_caller<'a>(
        &self,
        judgement: &mut Judgement,
        evidence: &'a [wire::Evidence],
        presented: &mut Vec<Evidence<'a>>,
        transport: &Transport<'a>,
    ) -> Result<(Arc<Loaded>, bool), Refused> {
        let world = self.admit(&judgement.arrival, transport)?;
        *presented = ask::evidence(evidence, &self.settings)?;
        let is_admin = world.way(transport.listener).is_some_and(|way| way.admin);
        if is_admin && presented.is_empty() && transport.authorization.is_none() {
            return Ok((world, true));
        }
        if presented.is_empty()
            && matches!(
                judgement.arrival.surface,
                Surface::CredentialIssue | Surface::CredentialIntrospect | Surface::Report
            )
            && !judgement.arrival.asks_itself
        {
            // An enforcer that speaks for itself alone.
            revoke::of_asker(&*self.keeper.revocations()?, &judgement.arrival.asker)?;
            return Ok((world, false));
        }
        let mut agent = None;
        if judgement.arrival.asks_itself {
            let peer = judgement.arrival.asker.peer.as_ref();
            agent = peer.map(|peer| peer.agent(AgentProof::X509Svid));
            self.add_own_authorization(presented, transport, &world, agent.is_some())?;
        }
        match judgement.arrival.surface {
            // Its proofs are taken with what is issued.
            Surface::CredentialIssue => {
                self.identify_presented(judgement, &world, presented, agent)?;
            }
            // Proofs are of a call of the service itself.
            Surface::TaskStart
            | Surface::TaskDelegate
            | Surface::TaskExtend
            | Surface::TaskGet
            | Surface::TaskList
            | Surface::TaskEnd => {
                self.identify_presented(judgement, &world, presented, agent)?;
                Self::refuse_credential(judgement)?;
                self.take_own_proofs(judgement, &world, transport)?;
            }
            _ => self.identify(judgement, &world, presented, agent)?,
        }
        Ok((world, false))
    }

    /// Takes the proofs of a call of ours: each is of POST to its method below our own URL.
    fn take_own_proofs(
        &self,
        judgement: &mut Judgement,
        world: &Loaded,
        transport: &Transport<'_>,
    ) -> Result<(), Refused> {
        if judgement.caller.facts.proofs.is_empty() {
            return Ok(());
        }
        let sent = match &world.credentials {
            Some(settings) => {
                Ok(Sent::to_us(format!("{}/{}", settings.issuer, judgement.arrival.surface.path())))
            }
            None => Err("a proof is of our own URL, and none is configured"),
        };
        let wait = self.wait_of(transport);
        judgement.resolved.proved = self.take_proofs(
            &judgement.caller.facts.proofs,
            judgement.arrival.now(),
            world,
            &sent,
            false,
            wait,
        )?;
        Ok(())
    }

    /// Policy, for our own operations; the decision stands as the judgement.
    pub(crate) fn permitted(
        &self,
        judgement: &mut Judgement,
        world: &Loaded,
        chain: &[Principal],
        proof: Option<SubjectProof>,
        operation: &str,
        arguments: &[u8],
    ) -> Result<(), Refused> {
        let request = Request { arguments: arguments.into(), ..own(operation) };
        self.permits(judgement, world, chain, proof, &request)
    }

    fn permits(
        &self,
        judgement: &Judgement,
        world: &Loaded,
        chain: &[Principal],
        proof: Option<SubjectProof>,
        request: &Request<'_>,
    ) -> Result<(), Refused> {
        let operation = request.operation;
        let revoked = self.keeper.revocations()?;
        revoke::of_operation(&revoked, operation)?;
        let facts = Facts { subject_proof: proof, ..kernel_facts(judgement, chain, None, None) };
        let decision = decide(&world.plan, &facts, request, judgement.arrival.now());
        if decision.outcome == Outcome::Permit && decision.reason == ReasonCode::Permitted {
            return Ok(());
        }
        // A step-up of a start cannot be lifted in this version.
        let reason = match decision.reason {
            ReasonCode::Permitted => ReasonCode::Unavailable,
            reason => reason,
        };
        let message = format!("`{operation}`: {}", decision.message);
        Err(Refused::new(reason, Step::Judge, message))
    }

    fn start(
        &self,
        message: &wire::StartRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        let world = &caller.world;
        let now = judgement.arrival.now();
        if caller.is_owner {
            return Err(Refused::new(
                ReasonCode::NoCredential,
                Step::Identify,
                "a task is started by a subject or an agent that proves itself",
            ));
        }
        bounded("template", &message.template)?;
        bounded("idempotency_key", &message.idempotency_key)?;
        let params = taskwire::params(message.params.as_ref())?;
        let scope = taskwire::scope(&message.scope)?;
        let deadline = taskwire::time("deadline", message.deadline.as_ref())?;
        let agent = judgement.caller.facts.agent.clone();
        let assignee = match (&agent, message.assignee.as_str()) {
            (Some(agent), "") => AgentName {
                spiffe_id: agent.spiffe_id.clone(),
                trust_domain: agent.trust_domain.clone(),
            },
            (None, "") => return Err(Refused::input("`assignee` is empty; a subject names one")),
            (_, named) => taskwire::agent("assignee", named)?,
        };
        let acr =
            judgement.caller.facts.subject.as_ref().and_then(|subject| subject.acr.as_deref());
        let verified = judgement
            .caller
            .chain
            .first()
            .and_then(|first| Subject::of(first, acr.unwrap_or_default()));
        let (subject, proof) = match (verified, message.asserted_subject.as_str()) {
            (Some(subject), "") => (Some(subject), SubjectProof::Verified),
            (None, "") => (None, SubjectProof::Itself),
            (Some(_), _) => {
                let what = "the subject is proved, so `asserted_subject` says it again";
                return Err(Refused::input(what));
            }
            (None, named) => {
                let subject = asserted(named, world)?;
                let revoked = self.keeper.revocations()?;
                revoke::of_subject_name(&revoked, &subject.issuer, &subject.sub)?;
                judgement.caller.chain.insert(0, subject.principal());
                (Some(subject), SubjectProof::Asserted)
            }
        };
        let caller_name = match (&agent, &subject) {
            (Some(agent), _) => agent.spiffe_id.clone(),
            (None, Some(subject)) => format!("{}:{}", subject.issuer, subject.sub),
            (None, None) => String::new(),
        };
        let operation = format!("task:{}", message.template);
        if world.plan.template(&message.template).is_some() {
            judgement.resolved.operation.clone_from(&operation);
        }
        let mut chain = judgement.caller.chain.clone();
        // INVARIANT (an agent gains nothing by leaving its own credential out): a token that an agent may hold starts no more
        // than the agent that gets the task could start for itself.
        let is_bearer_alone =
            speaker::is_bearer_alone(&judgement.arrival.asker, &judgement.caller.facts, world);
        let starter =
            if is_bearer_alone { assignee.spiffe_id.clone() } else { caller_name.clone() };
        if is_bearer_alone {
            // INVARIANT (labels follow): who asks may be any agent that holds the token, so nobody knows what it has read.
            if !params.is_empty() || !scope.is_empty() {
                return Err(Refused::new(
                    ReasonCode::NoCredential,
                    Step::Identify,
                    "a start that shows the subject's token alone, which agents hold too, gives no `params` and no `scope`: show \
                     the agent's credential, a token that no agent gets, or ask as a front end",
                ));
            }
            chain.push(assignee.principal());
            Self::check_assignee(&world.plan, &assignee.spiffe_id)?;
        }
        let wait = caller.call.wait;
        self.check_subject(&judgement.caller, judgement.arrival.now(), &world.plan, false, wait)?;
        self.may_start(judgement, world, &message.template, &params, &chain, proof)?;
        let said = speaker::parts(&message.prompt, &message.prompt_parts)?;
        let names = self.names(&said, &params, judgement, world);
        let is_by_user =
            speaker::speaker(&judgement.arrival.asker, &judgement.caller.facts, world).is_user();
        let id = self.clock.new_id();
        let session = self.clock.new_id();
        let root = Root {
            template: &message.template,
            params: &params,
            scope: &scope,
            kind: TaskKind::Root,
            assignee,
            subject,
            subject_proof: proof,
            starter,
            deadline,
            tier_cap: None,
            names,
            now,
            id,
            session,
        };
        let mut task = task::start(&world.plan, root).map_err(kernel_refused)?;
        shown::begin(&judgement.caller, judgement.arrival.now(), &mut task);
        task.by_user = is_by_user;
        self.may_give(judgement, world, &task, &chain)?;
        let begins = Located { task: Arc::new(task), ancestors: Vec::new() };
        self.check_left_out(judgement.arrival.now(), &world.plan, &begins, wait)?;
        self.note_subject(&judgement.caller, judgement.arrival.now(), &world.plan, wait)?;
        let mut task = begins.task;
        let parties = Parties {
            caller: &caller_name,
            proof: speaker::proof_of(&judgement.arrival.asker, &judgement.caller.facts, world),
            subject: task.subject.as_ref(),
            assignee: task.assignee(),
        };
        let key = Key::of("start", &parties, &message.idempotency_key, &{
            wire::StartRequest { evidence: Vec::new(), ..message.clone() }.encode_to_vec()
        });
        let mut locks = vec![
            RecordKey::new(RecordKind::Session, &task.session),
            RecordKey::new(RecordKind::Agent, task.assignee()),
        ];
        locks.extend(history::counted_in(&task.counted_chain()));
        locks.extend(key.as_ref().map(Key::record));
        revoke::of_tasks(&*self.keeper.revocations()?, [&task].into_iter())?;
        let is_given_by_agent = agent.is_some() && task.is_given();
        locks.extend(giving::agent_key(&task).filter(|_| is_given_by_agent));
        let mut made = None;
        let survives = Survives::Crash;
        let kept = self.change_granted(
            judgement,
            &caller.call,
            &locks,
            survives,
            &mut |transaction, _| {
                if let Some(key) = &key
                    && let Some(known) = key.known(transaction, now)?
                {
                    made = Some(known.task.clone());
                    return Ok(GrantedChange::of_task(
                        known.task,
                        "the task was started before, by the same key",
                    ));
                }
                if is_given_by_agent {
                    let read = |key: &RecordKey| transaction.get(key);
                    let told = giving::remembered_by(
                        world.plan.model(),
                        &chain,
                        std::iter::empty(),
                        now,
                        read,
                    )?;
                    task = Arc::new(Task { told: told.into(), ..Task::clone(&task) });
                }
                self.room(transaction, &task, now)?;
                if is_given_by_agent && !task.told.is_empty() {
                    giving::share(transaction, world.plan.model(), &task, now)?;
                }
                let by_agent = (!is_by_user, now);
                let retention = self.keeper.settings().retention_ms;
                let mut session = history::begin(transaction, &task, by_agent, retention)?;
                if is_given_by_agent {
                    let read = |key: &RecordKey| transaction.get(key);
                    history::inherit_from_giver(&mut session, &chain, &task, now, read)?;
                }
                transaction.put(Record::Session(Arc::new(session)));
                transaction.put(Record::Task(Arc::clone(&task)));
                if let Some(key) = &key {
                    key.keep(transaction, &task, now);
                }
                made = Some(Arc::clone(&task));
                Ok(GrantedChange::of_task(Arc::clone(&task), "the task is started"))
            },
        )?;
        if made.as_ref().is_some_and(|made| made.id == task.id) {
            self.metrics.task_started(TaskKind::Root);
        }
        let task = made.map(|task| taskwire::task(&task, now));
        Ok((wire::StartResponse { task }.encode_to_vec(), kept))
    }

    /// The names of a prompt and of parameters, by whose word they are; notes for the record whose that is.
    pub(crate) fn names(
        &self,
        said: &[Part<'_>],
        params: &BTreeMap<String, task::Param>,
        judgement: &mut Judgement,
        world: &Loaded,
    ) -> Names {
        let by = speaker::speaker(&judgement.arrival.asker, &judgement.caller.facts, world);
        let names = read_names(said, params, by, &self.keeper.store().secret());
        judgement.notes.prompt = Some(PromptNote {
            said_by: by.as_str(),
            named: names.user.len().saturating_add(names.harness.len()),
            claimed: names.claimed.len(),
        });
        names
    }

    /// Whether policy and the template let a chain start a root.
    pub(crate) fn may_start(
        &self,
        judgement: &mut Judgement,
        world: &Loaded,
        name: &str,
        params: &BTreeMap<String, task::Param>,
        chain: &[Principal],
        proof: SubjectProof,
    ) -> Result<(), Refused> {
        // What is no template is refused as that, below.
        let Some(template) = world.plan.template(name) else { return Ok(()) };
        if let Some(agent @ Principal::Agent { .. }) = chain.last()
            && !template.is_started_by(&world.plan.model().roles_of(agent))
        {
            return Err(Refused::new(
                ReasonCode::NotPermitted,
                Step::Judge,
                "the agent holds no role of the template's `starters`",
            ));
        }
        if proof == SubjectProof::Asserted {
            // Of the agent alone: nothing proves the subject.
            let agent = chain.last().map_or(&[][..], std::slice::from_ref);
            self.permitted(judgement, world, agent, None, START_FOR, b"")?;
        }
        let arguments = serde_json::to_vec(params).unwrap_or_default();
        let operation = format!("task:{name}");
        self.permitted(judgement, world, chain, Some(proof), &operation, &arguments)
    }

    /// Whether policy lets a chain give a task to the agent that gets it. An agent that keeps the task itself gives it to
    /// nobody.
    fn may_give(
        &self,
        judgement: &Judgement,
        world: &Loaded,
        task: &Task,
        giver: &[Principal],
    ) -> Result<(), Refused> {
        let is_kept = matches!(
            giver.last(),
            Some(Principal::Agent { spiffe_id, .. }) if spiffe_id == task.assignee()
        );
        if is_kept {
            return Ok(());
        }
        let arguments = serde_json::to_vec(&task.params).unwrap_or_default();
        let operation = format!("{GIVE}{}", task.template);
        let request = Request {
            arguments: arguments.as_slice().into(),
            resource: Some(task.assignee()),
            ..own(&operation)
        };
        self.permits(judgement, world, giver, Some(task.subject_proof), &request)
    }

    /// Counts a new task, if there may be one more: in the records of its agent and its pair, or in its giver's as long as the
    /// agent did not use the task. These records are locked.
    pub(crate) fn room(
        &self,
        transaction: &mut dyn Transaction,
        task: &Task,
        now: Time,
    ) -> Result<(), ChangeError> {
        let giver = task.counts_for_starter().then_some(task.starter.as_str());
        self.room_live(transaction, (task.assignee(), giver), now)?;
        let settings = self.keeper.settings();
        let (most, kept) = (settings.max_tasks, self.keeper.store().health().tasks);
        // As long as a third is not used, nobody has more than its share.
        let free = (kept.saturating_mul(3) >= most).then(|| most.saturating_sub(kept));
        let until = after(task.deadline, settings.retention_ms);
        if history::count_task(transaction, &task.counted_chain(), (now, until), free)? {
            return Ok(());
        }
        Err(ChangeError::Refused(Refused::new(
            ReasonCode::Overloaded,
            Step::Record,
            "the agent has as many tasks for this subject as its share of the store allows; ended ones count until they \
             are forgotten",
        )))
    }

    /// Whether an agent may have one more live task.
    ///
    /// Args: `giver`: who gives it the task, which counts against the giver until the agent uses it; none: it counts against
    /// the agent.
    pub(crate) fn room_live(
        &self,
        transaction: &mut dyn Transaction,
        (agent, giver): (&str, Option<&str>),
        now: Time,
    ) -> Result<(), ChangeError> {
        let most = self.keeper.settings().max_tasks_per_agent;
        // As long as there are fewer altogether, nobody has more.
        if self.keeper.store().health().tasks < most {
            return Ok(());
        }
        let query = Query::LiveOf(agent.to_owned());
        let mut live = 0_u64;
        let mut after = String::new();
        loop {
            let found = transaction.find(&query, &Page { after, most: MOST_PAGE })?;
            let Some(Record::Task(last)) = found.last() else { return Ok(()) };
            after = last.id.clone();
            let counts = |record: &&Record| {
                let Record::Task(task) = record else { return false };
                let is_of_share = match giver {
                    Some(giver) => task.counts_for_starter() && task.starter == giver,
                    None => !task.counts_for_starter(),
                };
                is_of_share && task.status_at(now) == TaskStatus::Active
            };
            live = live.saturating_add(found.iter().filter(counts).count() as u64);
            if live >= most {
                let what = match giver {
                    Some(_) => format!(
                        "the agent has {live} tasks of this giver that count against the giver, at most {most} are allowed"
                    ),
                    None => format!("the agent has {live} live tasks, at most {most} are allowed"),
                };
                return Err(Refused::new(ReasonCode::Overloaded, Step::Record, what).into());
            }
        }
    }

    /// Refuses one more record of what a caller does without a task where it has as many as it may: one for each subject
    /// that it acts for.
    pub(crate) fn room_taskless(
        &self,
        transaction: &mut dyn Transaction,
        taskless: &Task,
    ) -> Result<(), ChangeError> {
        let chain = taskless.chain();
        let Some(caller) = chain.last() else { return Ok(()) };
        let most = self.keeper.settings().max_tasks_per_agent;
        // As long as there are fewer altogether, nobody has more.
        if self.keeper.store().health().sessions < most {
            return Ok(());
        }
        let query = Query::Prefix(RecordKind::Session, task::taskless_of(caller));
        let mut count = 0_u64;
        let mut after = String::new();
        loop {
            let found = transaction.find(&query, &Page { after, most: MOST_PAGE })?;
            let Some(last) = found.last() else { return Ok(()) };
            after = last.key().id.to_string();
            count = count.saturating_add(found.len() as u64);
            if count >= most {
                let what =
                    format!("the caller acts for {count} subjects without a task, and for no more");
                return Err(Refused::new(ReasonCode::Overloaded, Step::Record, what).into());
            }
        }
    }

    /// Counts one more task in the tree of `parent`, if there may be one.
    pub(crate) fn grow(
        &self,
        transaction: &mut dyn Transaction,
        parent: &Located,
        child: &Task,
        now: Time,
    ) -> Result<(), ChangeError> {
        self.room(transaction, child, now)?;
        let most = self.keeper.settings().max_tasks_per_session;
        let session = RecordKey::new(RecordKind::Session, &parent.task.session);
        let Some(Record::Session(mut session)) = transaction.get(&session)? else {
            return Err(ChangeError::Refused(Refused::new(
                ReasonCode::TaskEnded,
                Step::Locate,
                "the task tree is no longer kept",
            )));
        };
        if session.tasks >= most {
            return Err(ChangeError::Refused(Refused::new(
                ReasonCode::Overloaded,
                Step::Record,
                format!("the task tree has {most} tasks, and no more are allowed"),
            )));
        }
        let tasks = session.tasks.saturating_add(1);
        Arc::make_mut(&mut session).tasks = tasks;
        transaction.put(Record::Session(session));
        Ok(())
    }

    fn delegate(
        &self,
        message: &wire::DelegateRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        let now = judgement.arrival.now();
        bounded("parent", &message.parent)?;
        bounded("template", &message.template)?;
        bounded("idempotency_key", &message.idempotency_key)?;
        let params = taskwire::params(message.params.as_ref())?;
        let scope = taskwire::scope(&message.scope)?;
        let deadline = taskwire::time("deadline", message.deadline.as_ref())?;
        let assignee = taskwire::agent("assignee", &message.assignee)?;
        let parent = self.found(judgement, &message.parent, caller)?;
        self.usable(&parent, &judgement.caller, now)?;
        self.check_left_out(
            judgement.arrival.now(),
            &caller.world.plan,
            &parent,
            caller.call.wait,
        )?;
        let id = self.clock.new_id();
        let starter = parent.task.assignee().to_owned();
        let template = Some(message.template.as_str()).filter(|name| !name.is_empty());
        let child = || Child {
            template,
            params: &params,
            scope: &scope,
            assignee: assignee.clone(),
            starter: starter.clone(),
            deadline,
            now,
            id: id.clone(),
        };
        let plan = &caller.world.plan;
        let given = task::delegate(plan, &parent.task, child()).map_err(kernel_refused)?;
        revoke::of_agent_name(&*self.keeper.revocations()?, &assignee)?;
        let giver = shown::chain_in(&judgement.caller, judgement.arrival.now(), &parent);
        self.may_give(judgement, &caller.world, &given, &giver)?;
        let parties = Parties {
            caller: &starter,
            proof: speaker::proof_of(
                &judgement.arrival.asker,
                &judgement.caller.facts,
                &caller.world,
            ),
            subject: parent.task.subject.as_ref(),
            assignee: &assignee.spiffe_id,
        };
        let key = Key::of("delegate", &parties, &message.idempotency_key, &{
            wire::DelegateRequest { evidence: Vec::new(), ..message.clone() }.encode_to_vec()
        });
        let mut locks = vec![
            RecordKey::new(RecordKind::Session, &parent.task.session),
            RecordKey::new(RecordKind::Agent, &assignee.spiffe_id),
        ];
        locks.extend(history::counted_in(&given.counted_chain()));
        locks.extend(history::pairs_of_child(&parent.task, &given));
        locks.extend(giving::agent_key(&given));
        locks.extend(key.as_ref().map(Key::record));
        let mut made = None;
        let survives = Survives::Crash;
        let kept = self.change_granted(
            judgement,
            &caller.call,
            &locks,
            survives,
            &mut |transaction, judgement| {
                if let Some(key) = &key
                    && let Some(known) = key.known(transaction, now)?
                {
                    made = Some(known.task.clone());
                    return Ok(GrantedChange::of_task(
                        known.task,
                        "the task was delegated before, by the same key",
                    ));
                }
                let mut parent = locate::find_in(transaction, &message.parent)?;
                self.usable(&parent, &judgement.caller, now)?;
                parent.task = self.claim(transaction, &parent.task, now)?;
                let child = task::delegate(plan, &parent.task, child()).map_err(kernel_refused)?;
                self.grow(transaction, &parent, &child, now)?;
                history::begin_child(transaction, &parent, &child, now)?;
                let told = match child.is_given() {
                    true => {
                        let read = |key: &RecordKey| transaction.get(key);
                        giving::remembered_by(plan.model(), &giver, parent.path(), now, read)?
                    }
                    false => BTreeMap::new(),
                };
                let child = Arc::new(Task { told: told.into(), ..child });
                self.touch_all(transaction, &parent, now);
                if child.is_given() {
                    giving::share(transaction, plan.model(), &child, now)?;
                }
                transaction.put(Record::Task(Arc::clone(&child)));
                if let Some(key) = &key {
                    key.keep(transaction, &child, now);
                }
                made = Some(Arc::clone(&child));
                Ok(GrantedChange::of_task(child, "the task is delegated"))
            },
        )?;
        if made.as_ref().is_some_and(|made| made.id == id) {
            self.metrics.task_started(TaskKind::Child);
        }
        let task = made.map(|task| taskwire::task(&task, now));
        Ok((wire::DelegateResponse { task }.encode_to_vec(), kept))
    }

    fn extend(
        &self,
        message: &wire::ExtendRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        let now = judgement.arrival.now();
        bounded("task", &message.task)?;
        let found = self.found(judgement, &message.task, caller)?;
        if found.task.kind == TaskKind::Implicit {
            return Err(locate::unknown());
        }
        let revoked = self.keeper.revocations()?;
        locate::live(&found, &revoked, now)?;
        let facts = &judgement.caller.facts;
        let is_by_subject = match (&found.task.subject, &facts.subject) {
            (Some(subject), Some(proved)) => locate::is_subject(subject, proved),
            // Where an agent acts for itself, the words are its own from the start.
            (None, None) => {
                facts.agent.as_ref().is_some_and(|one| one.spiffe_id == found.task.starter)
            }
            _ => false,
        };
        let assignee = found.task.assignee();
        if !is_by_subject || facts.agent.as_ref().is_some_and(|one| one.spiffe_id != assignee) {
            return Err(Refused::new(
                ReasonCode::NotPermitted,
                Step::Judge,
                "only the subject of a task extends it",
            ));
        }
        self.check_left_out(judgement.arrival.now(), &caller.world.plan, &found, caller.call.wait)?;
        let said = speaker::parts(&message.prompt, &message.prompt_parts)?;
        let names = self.names(&said, &BTreeMap::new(), judgement, &caller.world);
        let locks = [RecordKey::new(RecordKind::Session, &found.task.session)];
        let mut made = None;
        let survives = Survives::Crash;
        let kept = self.change_granted(
            judgement,
            &caller.call,
            &locks,
            survives,
            &mut |transaction, _| {
                let found = locate::find_in(transaction, &message.task)?;
                let revoked = self.keeper.revocations()?;
                locate::live(&found, &revoked, now)?;
                let mut task = Task::clone(&found.task);
                task::extend(&mut task, names.clone());
                let task = Arc::new(task);
                transaction.put(Record::Task(Arc::clone(&task)));
                made = Some(Arc::clone(&task));
                Ok(GrantedChange::of_task(task, "the task is extended"))
            },
        )?;
        let task = made.map(|task| taskwire::task(&task, now));
        Ok((wire::ExtendResponse { task }.encode_to_vec(), kept))
    }

    fn get(
        &self,
        message: &wire::GetRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        bounded("task", &message.task)?;
        let found = self.found(judgement, &message.task, caller)?;
        if !caller.is_owner && !concerns(&found, judgement) {
            let chain = judgement.caller.chain.clone();
            self.permitted(judgement, &caller.world, &chain, None, READ, b"")?;
        }
        judgement.grant("the task may be read");
        // The parameters may hold what the giver read: an agent that reads them has used the task.
        let facts = judgement.caller.facts.agent.as_ref();
        let is_own = facts.is_some_and(|agent| agent.spiffe_id == found.task.assignee());
        let is_live = found.task.status_at(judgement.arrival.now()) == TaskStatus::Active;
        let found = match is_own && is_live {
            true => self.note_use(found, judgement.arrival.now(), caller.call.wait)?,
            false => found,
        };
        let is_kept_back = is_own && found.task.unused;
        let task = Some(shown_to(&found.task, is_kept_back, judgement.arrival.now()));
        Ok((wire::GetResponse { task }.encode_to_vec(), None))
    }

    fn list_tasks(
        &self,
        message: &wire::TasksListRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        bounded("assignee", &message.assignee)?;
        bounded("session", &message.session)?;
        bounded("page_token", &message.page_token)?;
        let wanted = match wire::TaskStatus::try_from(message.status) {
            Ok(wire::TaskStatus::Unspecified) => None,
            Ok(status) => Some(status),
            Err(_) => return Err(Refused::input("`status` has an unknown value")),
        };
        let size = match usize::try_from(message.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(MOST_PAGE),
            Err(_) => return Err(Refused::input("`page_size` is below 0")),
        };
        let own = judgement.caller.facts.agent.as_ref().map(|agent| agent.spiffe_id.clone());
        let own_id = own.clone();
        let assignee = Some(message.assignee.clone()).filter(|named| !named.is_empty());
        let sees_all = caller.is_owner || {
            let is_own = message.session.is_empty()
                && own.is_some()
                && (assignee.is_none() || assignee == own);
            let chain = judgement.caller.chain.clone();
            // Whoever lists its own tasks needs no policy; of a session it sees those that concern it.
            !is_own
                && match self.permitted(judgement, &caller.world, &chain, None, READ, b"") {
                    Ok(()) => true,
                    Err(_) if !message.session.is_empty() => false,
                    Err(refused) => return Err(refused),
                }
        };
        let assignee = if sees_all || !message.session.is_empty() { assignee } else { own };
        let query = match (&assignee, message.session.as_str()) {
            (_, session) if !session.is_empty() => Query::Session(session.to_owned()),
            (Some(assignee), _) => Query::TasksOf(assignee.clone()),
            (None, _) => Query::Tasks,
        };
        let now = judgement.arrival.now();
        let shows = |task: &Arc<Task>| {
            let alone = Located { task: Arc::clone(task), ancestors: Vec::new() };
            let is_shown = task.kind != TaskKind::Implicit
                || caller.is_owner
                || is_alone_its_subject(&alone, judgement);
            is_shown
                && assignee.as_ref().is_none_or(|assignee| task.assignee() == assignee)
                && wanted.is_none_or(|wanted| taskwire::status(task.status_at(now)) == wanted)
                && (sees_all || concerns(&alone, judgement))
        };
        let mut shown = Vec::new();
        let mut after = message.page_token.clone();
        let mut seen = 0_usize;
        let mut more = true;
        while more && shown.len() < size && seen < MOST_SEEN {
            let page = Page { after: after.clone(), most: size.saturating_add(1) };
            let found = self.keeper.find(&query, &page, caller.call.wait)?;
            more = found.len() > size;
            for record in found.into_iter().take(size) {
                let Record::Task(task) = record else { continue };
                if shown.len() >= size {
                    more = true;
                    break;
                }
                after = task.id.clone();
                seen = seen.saturating_add(1);
                if shows(&task) {
                    let is_kept_back = task.unused && own_id.as_deref() == Some(task.assignee());
                    shown.push(shown_to(&task, is_kept_back, now));
                }
            }
        }
        judgement.grant(format!("{} tasks", shown.len()));
        let next_page_token = if more { after } else { String::new() };
        Ok((wire::TasksListResponse { tasks: shown, next_page_token }.encode_to_vec(), None))
    }

    fn end(
        &self,
        message: &wire::EndRequest,
        judgement: &mut Judgement,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        bounded("task", &message.task)?;
        let status = match wire::TaskStatus::try_from(message.status) {
            Ok(wire::TaskStatus::Completed) => TaskStatus::Completed,
            Ok(wire::TaskStatus::Aborted) => TaskStatus::Aborted,
            Ok(wire::TaskStatus::Revoked) => TaskStatus::Revoked,
            _ => return Err(Refused::input("`status` is not COMPLETED, ABORTED or REVOKED")),
        };
        let found = self.found(judgement, &message.task, caller)?;
        if !caller.is_owner && !may_end(&found, judgement, status) {
            let chain = judgement.caller.chain.clone();
            self.permitted(judgement, &caller.world, &chain, None, END, b"")?;
        }
        if found.task.is_barred(judgement.arrival.now()) && status != TaskStatus::Revoked {
            return self.begin_anew(judgement, &found.task, caller);
        }
        let session = found.task.session.clone();
        let mut ended = 0;
        let facts = judgement.caller.facts.agent.as_ref();
        let is_own = facts.is_some_and(|agent| agent.spiffe_id == found.task.assignee());
        if is_own && status == TaskStatus::Aborted && found.task.unused {
            let kept = self.decline(judgement, &caller.call, &found.task, &mut ended)?;
            return Ok((wire::EndResponse { ended }.encode_to_vec(), kept));
        }
        let top = Some(message.task.as_str());
        let kept = self.end_tree(judgement, &caller.call, &session, top, status, &mut ended)?;
        Ok((wire::EndResponse { ended }.encode_to_vec(), kept))
    }

    /// Lets a pair that works without tasks begin a new session, where the one before was taken away: the owner, and where
    /// denials ended it, the subject alone.
    fn begin_anew(
        &self,
        judgement: &mut Judgement,
        task: &Task,
        caller: &Caller<'_>,
    ) -> Result<Done, Refused> {
        let now = judgement.arrival.now();
        let retention = self.keeper.settings().retention_ms;
        let mut locks = vec![RecordKey::new(RecordKind::Session, &task.session)];
        locks.extend(Holder::Pair.key(&task.chain()));
        let survives = Survives::PowerLoss;
        let kept = self.change_granted(
            judgement,
            &caller.call,
            &locks,
            survives,
            &mut |transaction, _| {
                let current = locate::find_in(transaction, &task.id)?.task;
                let session = history::session(transaction, &task.session)?;
                let mut session = session.ok_or_else(history::lost)?;
                if !caller.is_owner && session.ended_at.is_none() {
                    let what =
                        "the session was revoked; only its administrator lets the pair begin anew";
                    return Err(Refused::new(ReasonCode::Revoked, Step::Locate, what).into());
                }
                // Nothing is left of the denials: the pair is not refused because of them.
                history::begin(transaction, &current, (false, now), retention)?;
                let held = Arc::make_mut(&mut session);
                (held.ended_at, held.expires_at) = (None, after(now, retention));
                transaction.put(Record::Session(session));
                let status = TaskStatus::Completed;
                let ended = Task { status, ended_at: Some(now), ..Task::clone(&current) };
                transaction.put(Record::Task(Arc::new(ended)));
                Ok(GrantedChange::new("the pair begins anew"))
            },
        )?;
        Ok((wire::EndResponse { ended: 1 }.encode_to_vec(), kept))
    }

    /// The task that a call is about.
    fn found(
        &self,
        judgement: &mut Judgement,
        id: &str,
        caller: &Caller<'_>,
    ) -> Result<Located, Refused> {
        let found = locate::find(&self.keeper, id, caller.call.wait)?;
        // What an agent does without tasks is none of its tasks: the owner and the subject alone see it.
        let is_task = found.task.kind != TaskKind::Implicit;
        if !is_task && !caller.is_owner && !is_alone_its_subject(&found, judgement) {
            return Err(locate::unknown());
        }
        judgement.context.task = Some(Arc::clone(&found.task));
        Ok(found)
    }

    /// Refuses a task in which the caller may do nothing now.
    pub(crate) fn usable(
        &self,
        located: &Located,
        caller: &CallerIdentity,
        now: Time,
    ) -> Result<(), Refused> {
        let revoked = self.keeper.revocations()?;
        locate::usable(located, &revoked, &caller.facts, now)
    }

    /// Notes that something is done in a task, which so is not idle, nor is any above it. Returns whether it changed
    /// anything: a time-out counts at a grain of a tenth.
    pub(crate) fn touch_all(
        &self,
        transaction: &mut dyn Transaction,
        located: &Located,
        now: Time,
    ) -> bool {
        let mut touched = false;
        for task in located.path().filter(|task| is_due_for_touch(task, now)) {
            let task = Task { last_used: now, ..Task::clone(task) };
            transaction.put(Record::Task(Arc::new(task)));
            touched = true;
        }
        touched
    }
}

/// Whether a task is the caller's business: it has it, started it, is above it, or it is on its behalf.
fn concerns(found: &Located, judgement: &Judgement) -> bool {
    let facts = &judgement.caller.facts;
    let task = &found.task;
    let by_agent = facts.agent.as_ref().is_some_and(|agent| {
        task.starter == agent.spiffe_id
            || task.agents.iter().any(|one| one.spiffe_id == agent.spiffe_id)
    });
    by_agent || is_alone_its_subject(found, judgement)
}

/// The assignee says that it is done or gives up; whoever stands above it, or on whose behalf it is, may end it any way.
pub(crate) fn may_end(found: &Located, judgement: &Judgement, status: TaskStatus) -> bool {
    let task = &found.task;
    let by_agent = judgement.caller.facts.agent.as_ref().is_some_and(|agent| {
        let id = &agent.spiffe_id;
        let is_own = task.assignee() == id && status != TaskStatus::Revoked;
        is_own
            || task.starter == *id
            || found.ancestors.iter().any(|above| above.assignee() == id || above.starter == *id)
    });
    by_agent || is_alone_its_subject(found, judgement)
}

/// The caller is the subject itself, and not an agent that holds its token.
fn is_alone_its_subject(found: &Located, judgement: &Judgement) -> bool {
    let facts = &judgement.caller.facts;
    let pair = found.task.subject.as_ref().zip(speaker::alone(facts));
    pair.is_some_and(|(subject, proved)| locate::is_subject(subject, proved))
}

/// A subject that a starter only names, without claims, and so without roles.
fn asserted(named: &str, world: &Loaded) -> Result<Subject, Refused> {
    let (issuer, sub) = named.split_once('/').unwrap_or_default();
    let is_sub = (1..=MAX_SUB).contains(&sub.len()) && !sub.contains(char::is_control);
    let is_known = world.trust.issuers().iter().any(|known| known.alias == issuer);
    if !is_sub || !is_known {
        return Err(Refused::input(
            "`asserted_subject` is not the alias of an issuer, `/`, and a `sub`",
        ));
    }
    Ok(Subject {
        is_service: false,
        issuer: issuer.to_owned(),
        sub: sub.to_owned(),
        claims: BTreeMap::new(),
        acr: String::new(),
    })
}

pub(crate) fn bounded(name: &str, text: &str) -> Result<(), Refused> {
    if text.len() > limits::ID {
        return Err(Refused::input(format!("`{name}` is longer than {} bytes", limits::ID)));
    }
    Ok(())
}

pub(crate) fn kernel_refused(refused: task::Refused) -> Refused {
    Refused::new(refused.reason, Step::Judge, refused.message)
}

/// Who a keyed request is about. Credentials are not part of its digest, so these are part of its key: a task that was
/// started for one subject is never the answer to a request for another, nor one that an agent started by a subject's
/// token the answer to the subject itself.
struct Parties<'a> {
    caller: &'a str,
    /// How the caller is proved: what it said counts by that.
    proof: [&'a str; 3],
    /// None where the first agent acts for itself.
    subject: Option<&'a Subject>,
    assignee: &'a str,
}

/// The key of a caller that does a thing at most once a key.
struct Key {
    id: String,
    digest: String,
}

/// What a key was used for.
struct Known {
    task: Arc<Task>,
}

impl Key {
    /// None where the caller gave none.
    fn of(method: &str, parties: &Parties<'_>, key: &str, asked: &[u8]) -> Option<Self> {
        if key.is_empty() {
            return None;
        }
        let kind = match parties.subject {
            None => "itself",
            Some(subject) if subject.is_service => "service",
            Some(_) => "user",
        };
        let (issuer, sub) =
            parties.subject.map_or(("", ""), |subject| (&*subject.issuer, &*subject.sub));
        let mut hash = Sha256::new();
        let [proved, speaker, front_end] = parties.proof;
        let of = [parties.caller, proved, speaker, front_end];
        for part in of.into_iter().chain([kind, issuer, sub, parties.assignee, key]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let id = format!("{method}/{}", hex(&hash.finalize()));
        Some(Self { id, digest: hex(&Sha256::digest(asked)) })
    }

    fn record(&self) -> RecordKey {
        RecordKey::new(RecordKind::Idempotency, &self.id)
    }

    /// The task that the same request started before.
    fn known(
        &self,
        transaction: &mut dyn Transaction,
        now: Time,
    ) -> Result<Option<Known>, ChangeError> {
        let Some(Record::Idempotency(known)) = transaction.get(&self.record())? else {
            return Ok(None);
        };
        if known.expires_at <= now {
            return Ok(None);
        }
        if known.digest != self.digest {
            return Err(ChangeError::Refused(Refused::new(
                ReasonCode::IdempotencyConflict,
                Step::Record,
                "the key was used for another request",
            )));
        }
        let id = String::from_utf8_lossy(&known.answer).into_owned();
        let found = locate::find_in(transaction, &id)?;
        Ok(Some(Known { task: found.task }))
    }

    fn keep(&self, transaction: &mut dyn Transaction, task: &Task, now: Time) {
        transaction.put(Record::Idempotency(Arc::new(Idempotency {
            id: self.id.clone(),
            digest: self.digest.clone(),
            answer: task.id.clone().into_bytes(),
            expires_at: after(now, KEY_MS),
        })));
    }
}

/// A task as its caller sees it.
///
/// Args: `is_kept_back`: the agent did not use the task, and may decline it still: its parameters are not shown.
fn shown_to(task: &Task, is_kept_back: bool, now: Time) -> wire::Task {
    let mut shown = taskwire::task(task, now);
    if is_kept_back {
        shown.params = None;
    }
    shown
}
