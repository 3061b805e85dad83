//! Token exchange (RFC 8693): a task, a judgement of each detail (RFC 9396), and one credential of all of them, in one
//! transaction or not at all. Denials of an exchange that comes to nothing count all the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::{Principal, Request, Time};
use authz_kernel::history::{ObjectKeys, Remembering, pair_digest};
use authz_kernel::mcp::ServerTask;
use authz_kernel::model::Tier;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    self, AgentName, Binding, Child, Credential, Detail, Param, Part, Record, RecordKey,
    RecordKind, RecordName, Reservation, Root, Subject, SubjectProof, Task, TaskKind, alones_of,
};
use authz_state::store::{Survives, Transaction};
use authz_token::{AgentFacts, AgentProof, Evidence, Role, Scheme};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ask::{self, Refused, Step};
use crate::credentials::answer_of;
use crate::engine::Engine;
use crate::history;
use crate::judgement::{Arrival, Asker, CredentialNote, Judgement};
use crate::keeper::Wait;
use crate::limits;
use crate::locate::{self, Located};
use crate::metrics::CredentialEvent;
use crate::presented::system_of;
use crate::revoke;
use crate::settings::{CredentialSettings, Surface};
use crate::shown;
use crate::speaker;
use crate::steps::judge::PolicyQuery;
use crate::steps::record::{ChangeContext, ChangeError, KeptRecord, RecordOrigin};
use crate::steps::settle::{detail_of, survives_of};
use crate::tasks::{bounded, kernel_refused};
use crate::tokens::Client;
use crate::transport::{ApiError, Transport};
use crate::world::Loaded;

mod denied;

/// Parameters of a task that is started.
const MOST_PARAMS: usize = 64;

/// Beyond it not every whole number is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    client: Client,
    #[serde(default)]
    subject_token: Option<String>,
    #[serde(default)]
    actor_token: Option<String>,
    /// A DPoP proof of the key that the credential is to be bound to.
    #[serde(default)]
    proof: Option<String>,
    /// The URI that the proof must be of.
    #[serde(default)]
    http_uri: String,
    #[serde(default)]
    audience: Option<String>,
    #[serde(default)]
    lifetime_seconds: Option<u32>,
    details: Vec<AskedDetail>,
    /// A task that there is.
    #[serde(default)]
    task: Option<String>,
    /// The template of a new one.
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    params: BTreeMap<String, Param>,
    #[serde(default)]
    prompt: Option<String>,
    /// The task that the new one is below; none: it is a root.
    #[serde(default)]
    parent: Option<String>,
}

/// One thing that the credential shall permit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedDetail {
    operation: String,
    #[serde(default)]
    resource: Option<String>,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default)]
    destinations: Vec<String>,
}

impl AskedDetail {
    fn check(&self, most_arguments: usize) -> Result<(), Refused> {
        bounded("operation", &self.operation)?;
        bounded("resource", self.resource.as_deref().unwrap_or_default())?;
        if self.destinations.len() > limits::LIST
            || self.destinations.iter().any(|one| one.len() > limits::DESTINATION)
        {
            return Err(Refused::input(
                "`destinations` has too many items, or one that is too long",
            ));
        }
        if self.arguments_json().len() > most_arguments {
            return Err(Refused::input(format!(
                "`arguments` is longer than {most_arguments} bytes"
            )));
        }
        // What is no whole number here was rounded when it was read, and is not what was asked for.
        if self.arguments.values().all(is_exact) {
            return Ok(());
        }
        Err(Refused::input("`arguments` has a whole number beyond 64 bits"))
    }

    fn arguments_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.arguments).unwrap_or_default()
    }

    /// As the kernel reads it.
    fn request<'a>(&'a self, arguments: &'a [u8], destinations: &'a [&'a str]) -> Request<'a> {
        Request {
            operation: &self.operation,
            arguments: arguments.into(),
            resource: self.resource.as_deref(),
            destinations,
            supported_obligations: &[],
            labels: &[],
            server_task: ServerTask::None,
        }
    }

    fn system(&self) -> &str {
        system_of(&self.operation).unwrap_or_default()
    }
}

/// In which task.
enum Place {
    /// One that there is.
    Known(String),
    /// A new root.
    New(Arc<Task>),
    /// A new one below another.
    Below { parent: String, id: String },
}

/// What was permitted of a detail.
struct Permitted {
    detail: Detail,
    /// What it was charged to.
    charges: Vec<(String, u32)>,
    tier: Tier,
    /// The records that remember its labels when the task has ended.
    remembered_in: Vec<RecordName>,
}

/// What an exchange comes to.
struct Exchange<'a> {
    world: &'a Arc<Loaded>,
    settings: &'a CredentialSettings,
    asked: &'a Asked,
    agent: AgentName,
    place: Place,
    audience: String,
    binding: Option<Binding>,
    jti: String,
}

impl Exchange<'_> {
    /// Subject first, then every agent down to the one that the credential is for.
    fn chain(&self, judgement: &Judgement) -> Vec<Principal> {
        match (&self.place, &judgement.context.task) {
            (Place::New(task), _) => task.chain(),
            (_, Some(task)) => task.chain().into_iter().chain([self.agent.principal()]).collect(),
            (_, None) => vec![self.agent.principal()],
        }
    }
}

impl Engine {
    /// Exchanges tokens for a credential. The request and the answer are JSON.
    pub(crate) fn exchange(
        &self,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let decode = || {
            self.check_size(request)?;
            serde_json::from_slice::<Asked>(request)
                .map_err(|_| Refused::input("the bytes are no such request"))
        };
        let (record, answer) = self.api_call(
            Surface::CredentialExchange,
            transport,
            decode,
            |asked, transport, record, evidence, line| {
                let mut details = Vec::new();
                let done = self.exchanged(asked, record, evidence, &mut details, transport, line);
                if let Err(refused) = &done {
                    record.refuse(refused.clone());
                }
                let is_kept = matches!(&done, Ok((_, Some(_))));
                self.conclude_details(details, (is_kept, record.reason()), evidence, transport);
                done
            },
        );
        record.granted()?;
        answer.ok_or_else(|| self.failed_inside())
    }

    /// Writes the records of the details of an exchange.
    ///
    /// Args: `is_kept`: the exchange was written, and the records of its details with it; `reason`: of the exchange.
    fn conclude_details(
        &self,
        details: Vec<Judgement>,
        (is_kept, reason): (bool, ReasonCode),
        evidence: &[Evidence<'_>],
        transport: &Transport<'_>,
    ) {
        for mut detail in details {
            if !is_kept && detail.permit().is_some() {
                // INVARIANT (all or nothing): no record says that something was permitted which was not given.
                let message = "another part of the exchange was refused";
                detail.refuse(Refused::new(reason, Step::Judge, message));
            }
            let line = self.recorded(transport);
            let with_change = is_kept.then(KeptRecord::elsewhere);
            self.conclude(Box::new(detail), evidence, transport, line, with_change);
        }
    }

    fn exchanged<'a>(
        &self,
        asked: &'a Asked,
        judgement: &mut Judgement,
        evidence: &mut Vec<Evidence<'a>>,
        judged: &mut Vec<Judgement>,
        transport: &Transport<'_>,
        line: &RecordOrigin,
    ) -> Result<(Vec<u8>, Option<KeptRecord>), Refused> {
        let world = self.admit(&judgement.arrival, transport)?;
        if !world.way(transport.listener).is_some_and(|way| way.http) {
            return Err(Refused::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "tokens are exchanged at the token endpoint",
            ));
        }
        let Some(settings) = &world.credentials else {
            return Err(Refused::input("no credentials are issued here"));
        };
        let agent = self.exchanging(asked, judgement, evidence, &world)?;
        let audience = self.audience_of(asked, &world, settings)?;
        let wait = self.wait_of(transport);
        let proof = asked.proof.as_deref().unwrap_or_default();
        let binding = self.binding(judgement, &world, proof, asked.http_uri.clone(), wait)?;
        if let Some(agent) = judgement.caller.facts.agent.as_mut().filter(|_| binding.is_some()) {
            Arc::make_mut(agent).bound = true;
        }
        let tier = asked.details.iter().filter_map(|one| world.plan.operation(&one.operation));
        let tier = tier.map(|operation| operation.tier).max().unwrap_or_default();
        judgement.resolved.tier = Some(tier);
        let needs_key = |tier: Tier| {
            let required = world.plan.model().tiers.get(tier as usize);
            tier >= Tier::High || required.is_some_and(|required| required.bound)
        };
        if binding.is_none() && needs_key(tier) {
            judgement.wants_proof("a credential of this tier is bound to a key: prove one");
            return Ok((Vec::new(), None));
        }
        let place = self.place(asked, judgement, &world, &agent, wait)?;
        let exchange = Exchange {
            world: &world,
            settings,
            asked,
            agent,
            place,
            audience,
            binding,
            jti: self.clock.new_id(),
        };
        let call = ChangeContext { evidence: evidence.as_slice(), recorded: line, wait };
        let survives = survives_of(tier);
        let settled = self.settle_exchange(&exchange, judgement, judged, &call, survives);
        if settled.is_err() {
            self.count_denials(&exchange, judgement, judged, &call)?;
        }
        settled
    }

    /// 1: who exchanges, and for whom.
    fn exchanging<'a>(
        &self,
        asked: &'a Asked,
        judgement: &mut Judgement,
        evidence: &mut Vec<Evidence<'a>>,
        world: &Arc<Loaded>,
    ) -> Result<AgentName, Refused> {
        let mut agent = asked.client.facts()?;
        // It acts for itself here, whatever else it may ask.
        let peer =
            judgement.arrival.asker.peer.take().filter(|peer| peer.spiffe_id == agent.spiffe_id);
        if let (Some(peer), AgentProof::X509Svid) = (&peer, agent.proof) {
            agent = peer.agent(AgentProof::X509Svid);
        }
        judgement.arrival.asker = Asker { peer, ..Asker::default() };
        judgement.arrival.asks_itself = true;
        let tokens = [(&asked.subject_token, None), (&asked.actor_token, Some(Role::Agent))];
        for (token, role) in tokens {
            let Some(token) = token else { continue };
            let role = role.unwrap_or_else(|| world.role_of(token));
            evidence.push(ask::credential(role, Scheme::Bearer, token, None, &self.settings)?);
        }
        self.identify_presented(judgement, world, evidence, Some(agent))?;
        if judgement.caller.facts.credential.is_some() {
            return Err(Refused::credential("a task credential is not exchanged for another"));
        }
        let Some(agent) = &judgement.caller.facts.agent else {
            return Err(Refused::credential("no agent is known"));
        };
        let AgentFacts { spiffe_id, trust_domain, .. } = agent.as_ref();
        Ok(AgentName { spiffe_id: spiffe_id.clone(), trust_domain: trust_domain.clone() })
    }

    /// The one audience of all that is asked for.
    fn audience_of(
        &self,
        asked: &Asked,
        world: &Loaded,
        settings: &CredentialSettings,
    ) -> Result<String, Refused> {
        if asked.details.is_empty() || asked.details.len() > limits::LIST {
            let most = limits::LIST;
            return Err(Refused::input(format!("`details` are none, or more than {most}")));
        }
        let mut audience = asked.audience.as_deref();
        for detail in &asked.details {
            detail.check(self.settings.max_arguments_bytes)?;
            let system = detail.system();
            if !world.plan.systems().contains_key(system) {
                let message = "there is no such operation";
                return Err(Refused::new(ReasonCode::UnknownOperation, Step::Resolve, message));
            }
            let is_secret =
                settings.leases.contains_key(system) || settings.injections.contains_key(system);
            if is_secret {
                let message = "the system knows no tokens, so none is issued for it";
                return Err(Refused::new(ReasonCode::WrongAudience, Step::Resolve, message));
            }
            let own = settings.audience(system);
            if audience.is_some_and(|audience| audience != own) {
                let message = "a credential is for one audience, and that is another's";
                return Err(Refused::new(ReasonCode::WrongAudience, Step::Resolve, message));
            }
            audience = Some(own);
        }
        Ok(audience.unwrap_or_default().to_owned())
    }

    /// 3: the task that there is, or the new one, once policy lets it be started.
    fn place(
        &self,
        asked: &Asked,
        judgement: &mut Judgement,
        world: &Loaded,
        agent: &AgentName,
        wait: Wait,
    ) -> Result<Place, Refused> {
        let texts =
            [("task", &asked.task), ("template", &asked.template), ("parent", &asked.parent)];
        for (name, text) in texts {
            bounded(name, text.as_deref().unwrap_or_default())?;
        }
        if asked.params.len() > MOST_PARAMS {
            return Err(Refused::input(format!("there are more than {MOST_PARAMS} parameters")));
        }
        let now = judgement.arrival.now();
        match (&asked.task, &asked.template, &asked.parent) {
            (Some(task), None, None) if asked.params.is_empty() && asked.prompt.is_none() => {
                let found = locate::find_task(&self.keeper, task, wait)?;
                judgement.context.task = Some(Arc::clone(&found.task));
                self.usable(&found, &judgement.caller, now)?;
                self.check_left_out(judgement.arrival.now(), &world.plan, &found, wait)?;
                Ok(Place::Known(task.clone()))
            }
            (None, _, Some(parent)) if asked.prompt.is_none() => {
                let found = locate::find_task(&self.keeper, parent, wait)?;
                judgement.context.task = Some(Arc::clone(&found.task));
                self.usable(&found, &judgement.caller, now)?;
                self.check_left_out(judgement.arrival.now(), &world.plan, &found, wait)?;
                Ok(Place::Below { parent: parent.clone(), id: self.clock.new_id() })
            }
            (None, Some(template), None) => {
                self.root(asked, template, judgement, world, (agent, wait)).map(Place::New)
            }
            (None, None, None) => Err(Refused::new(
                ReasonCode::NoTask,
                Step::Locate,
                "a credential is issued for a task: name one, or the template of a new one",
            )),
            _ => Err(Refused::input("`task` stands alone, and `prompt` goes with a new root")),
        }
    }

    fn root(
        &self,
        asked: &Asked,
        template: &str,
        judgement: &mut Judgement,
        world: &Loaded,
        (agent, wait): (&AgentName, Wait),
    ) -> Result<Arc<Task>, Refused> {
        let acr =
            judgement.caller.facts.subject.as_ref().and_then(|subject| subject.acr.as_deref());
        let first = judgement.caller.chain.first();
        let subject = first.and_then(|first| Subject::of(first, acr.unwrap_or_default()));
        let proof = match subject {
            Some(_) => SubjectProof::Verified,
            None => SubjectProof::Itself,
        };
        if world.plan.template(template).is_some() {
            judgement.resolved.operation = format!("task:{template}");
        }
        let chain = judgement.caller.chain.clone();
        self.check_subject(&judgement.caller, judgement.arrival.now(), &world.plan, false, wait)?;
        self.may_start(judgement, world, template, &asked.params, &chain, proof)?;
        let said = [Part::of_user(asked.prompt.as_deref().unwrap_or_default())];
        let names = self.names(&said, &asked.params, judgement, world);
        let root = Root {
            template,
            params: &asked.params,
            scope: &[],
            kind: TaskKind::Root,
            assignee: agent.clone(),
            subject,
            subject_proof: proof,
            starter: agent.spiffe_id.clone(),
            deadline: None,
            tier_cap: None,
            names,
            now: judgement.arrival.now(),
            id: self.clock.new_id(),
            session: self.clock.new_id(),
        };
        let mut task = task::start(&world.plan, root).map_err(kernel_refused)?;
        shown::begin(&judgement.caller, judgement.arrival.now(), &mut task);
        task.by_user =
            speaker::speaker(&judgement.arrival.asker, &judgement.caller.facts, world).is_user();
        let located = Located { task: Arc::new(task), ancestors: Vec::new() };
        self.check_left_out(judgement.arrival.now(), &world.plan, &located, wait)?;
        self.note_subject(&judgement.caller, judgement.arrival.now(), &world.plan, wait)?;
        Ok(located.task)
    }

    /// 5 and 6: judges each detail, and writes all that comes of it.
    fn settle_exchange(
        &self,
        exchange: &Exchange<'_>,
        judgement: &mut Judgement,
        judged: &mut Vec<Judgement>,
        call: &ChangeContext<'_>,
        survives: Survives,
    ) -> Result<(Vec<u8>, Option<KeptRecord>), Refused> {
        let locks = Self::exchange_locks(exchange, judgement);
        let mut answer = Vec::new();
        let mut started = None;
        let kept =
            self.change(judgement, call, &locks, survives, &mut |transaction, judgement| {
                let (located, kind) = self.located_in(transaction, exchange, judgement)?;
                judgement.context.task = Some(Arc::clone(&located.task));
                judgement.caller.chain =
                    shown::chain_in(&judgement.caller, judgement.arrival.now(), &located);
                let (located, details) =
                    self.judge_details(transaction, exchange, judgement, judged, located)?;
                let end = self.write_exchange(
                    transaction,
                    exchange,
                    judgement,
                    &located,
                    &details,
                    &mut answer,
                )?;
                for detail in judged.iter() {
                    self.record_with(transaction, detail, call, survives)?;
                }
                started = kind;
                judgement.grant(format!("a task credential is issued until {}", end.0));
                Ok(())
            })?;
        if kept.is_some() {
            if let Some(kind) = started {
                self.metrics.task_started(kind);
            }
            self.metrics.credential(CredentialEvent::Issued);
        }
        Ok((answer, kept))
    }

    /// The records that an exchange is settled under.
    fn exchange_locks(exchange: &Exchange<'_>, judgement: &Judgement) -> Vec<RecordKey> {
        let mut locks = vec![RecordKey::new(RecordKind::Agent, &exchange.agent.spiffe_id)];
        let session = match &exchange.place {
            Place::New(task) => task.session.clone(),
            Place::Known(_) | Place::Below { .. } => {
                judgement.context.task.as_ref().map(|task| task.session.clone()).unwrap_or_default()
            }
        };
        locks.push(RecordKey::new(RecordKind::Session, &session));
        // What agents above the task remember changes, too.
        let chain = exchange.chain(judgement);
        let parts = (1..=chain.len()).filter_map(|length| chain.get(..length));
        locks.extend(parts.flat_map(history::counted_in));
        let task = match &exchange.place {
            Place::New(task) => Some(task),
            Place::Known(_) | Place::Below { .. } => judgement.context.task.as_ref(),
        };
        let alones = task.map(|task| alones_of(&exchange.world.plan, task)).unwrap_or_default();
        locks.extend(alones.iter().map(|alone| RecordKey::new(RecordKind::Session, &alone.id)));
        for detail in &exchange.asked.details {
            let chain = || exchange.chain(judgement);
            let of = (detail.operation.as_str(), false);
            let parties = history::parties(&exchange.world.plan, of, Remembering::default(), chain);
            locks.extend(parties.into_iter().map(|(_, record)| record));
            let arguments = detail.arguments_json();
            let objects = exchange.world.plan.objects_of(&detail.request(&arguments, &[]));
            locks.extend(objects.iter().flat_map(ObjectKeys::all).cloned());
        }
        locks
    }

    /// The task as it is now, or as it begins, and how it came to be where it is new.
    fn located_in(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        judgement: &Judgement,
    ) -> Result<(Located, Option<TaskKind>), ChangeError> {
        let now = judgement.arrival.now();
        match &exchange.place {
            Place::Known(id) => {
                let mut located = locate::find_in(transaction, id)?;
                self.usable(&located, &judgement.caller, now)?;
                located.task = self.claim(transaction, &located.task, now)?;
                Ok((located, None))
            }
            Place::New(task) => {
                self.room(transaction, task, now)?;
                let retention = self.keeper.settings().retention_ms;
                let is_by_user = speaker::speaker(
                    &judgement.arrival.asker,
                    &judgement.caller.facts,
                    exchange.world,
                )
                .is_user();
                let by_agent = (!is_by_user, now);
                let session = history::begin(transaction, task, by_agent, retention)?;
                transaction.put(Record::Session(Arc::new(session)));
                let located = Located { task: Arc::clone(task), ancestors: Vec::new() };
                Ok((located, Some(TaskKind::Root)))
            }
            Place::Below { parent, id } => {
                let parent = locate::find_in(transaction, parent)?;
                self.usable(&parent, &judgement.caller, now)?;
                let asked = exchange.asked;
                let child = Child {
                    template: asked.template.as_deref(),
                    params: &asked.params,
                    scope: &[],
                    assignee: exchange.agent.clone(),
                    starter: exchange.agent.spiffe_id.clone(),
                    deadline: None,
                    now,
                    id: id.clone(),
                };
                let plan = &exchange.world.plan;
                let child = task::delegate(plan, &parent.task, child).map_err(kernel_refused)?;
                self.grow(transaction, &parent, &child, now)?;
                history::begin_child(transaction, &parent, &child, now)?;
                let Located { task, mut ancestors } = parent;
                ancestors.push(task);
                let located = Located { task: Arc::new(child), ancestors };
                Ok((located, Some(TaskKind::Child)))
            }
        }
    }

    /// Judges each detail, and charges what it takes before the next is judged. One that is not permitted refuses all.
    fn judge_details(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        judgement: &Judgement,
        judged: &mut Vec<Judgement>,
        mut located: Located,
    ) -> Result<(Located, Vec<Permitted>), ChangeError> {
        judged.clear();
        let plan = &exchange.world.plan;
        let mut permitted = Vec::with_capacity(exchange.asked.details.len());
        let mut failed = None;
        for asked in &exchange.asked.details {
            let (mut detail, permit) =
                self.judge_detail(transaction, exchange, judgement, asked, &located)?;
            match permit {
                Some(permit) => {
                    history::remember(transaction, plan, &detail, &located, true, None)?;
                    let alones = alones_of(plan, &located.task);
                    history::carry(transaction, plan, &detail, &located, (&alones, false))?;
                    charge(&mut located, &permit.charges);
                    permitted.push(permit);
                    let binding = exchange.binding.as_ref().map(Binding::member);
                    detail.caller.credential = Some(CredentialNote {
                        jti: exchange.jti.clone(),
                        decision_id: detail.arrival.id.clone(),
                        binding,
                    });
                }
                None => {
                    failed.get_or_insert_with(|| (detail.reason(), detail.message().to_owned()));
                }
            }
            judged.push(detail);
        }
        match failed {
            None => Ok((located, permitted)),
            Some((reason, message)) => {
                for detail in judged.iter_mut() {
                    detail.caller.credential = None;
                }
                Err(ChangeError::Refused(Refused::new(reason, Step::Judge, message)))
            }
        }
    }

    /// Judges one detail on what the transaction says.
    ///
    /// Returns: what is permitted; none where it is not.
    fn judge_detail(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        judgement: &Judgement,
        asked: &AskedDetail,
        located: &Located,
    ) -> Result<(Judgement, Option<Permitted>), ChangeError> {
        let now = judgement.arrival.now();
        let revoked = self.keeper.revocations()?;
        let mut detail = Judgement::of(Arrival {
            listener: judgement.arrival.listener.clone(),
            asker: judgement.arrival.asker.clone(),
            ..Arrival::new(
                self.clock.new_id(),
                judgement.arrival.now_ms,
                judgement.arrival.surface,
                judgement.arrival.world.clone(),
            )
        });
        detail.caller.facts = judgement.caller.facts.clone();
        detail.caller.chain = shown::chain_in(&judgement.caller, judgement.arrival.now(), located);
        detail.context.task = Some(Arc::clone(&located.task));
        if let Some(operation) = exchange.world.plan.operation(&asked.operation) {
            detail.resolved.operation.clone_from(&operation.id);
            detail.resolved.system = exchange.world.system(&operation.id);
            detail.resolved.tier = Some(operation.tier);
        }
        let arguments = asked.arguments_json();
        let destinations: Vec<&str> = asked.destinations.iter().map(String::as_str).collect();
        let request = asked.request(&arguments, &destinations);
        let judging = PolicyQuery {
            world: exchange.world,
            request: &request,
            is_unproved: false,
            wants_credential: true,
            explain: false,
            secret: self.keeper.store().secret(),
        };
        let plan = &exchange.world.plan;
        detail.context.recalled = history::current(transaction, plan, &request, located, now)?;
        let started = self.clock.monotonic();
        judging.decide(&mut detail, Some(located), None);
        detail.add_decide_time(self.took(started));
        if let Err(refused) = revoke::of_operation(&revoked, &detail.resolved.operation) {
            detail.refuse(refused);
        }
        let permitted = detail.permit().map(|permit| {
            let decision = permit.decision();
            Permitted {
                detail: detail_of(&judging, &detail.arrival.id, decision),
                charges: decision.charges.clone(),
                tier: decision.tier.unwrap_or_default(),
                remembered_in: history::changes(&detail)
                    .map(|changes| detail.context.recalled.memories_of(plan, located, changes, now))
                    .unwrap_or_default(),
            }
        });
        Ok((detail, permitted))
    }

    /// Writes task, permits and credential. Returns when that ends.
    fn write_exchange(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
        judgement: &mut Judgement,
        located: &Located,
        details: &[Permitted],
        answer: &mut Vec<u8>,
    ) -> Result<Time, ChangeError> {
        let now = judgement.arrival.now();
        let lifetime = &exchange.settings.lifetime;
        let longest = details.iter().map(|one| lifetime.of(one.tier)).min();
        let wish = exchange.asked.lifetime_seconds.unwrap_or_default();
        let end = self.ends(judgement, (located, None), longest.unwrap_or_default(), wish)?;
        for task in located.path() {
            let last_used = now;
            let task = Task { last_used, ..Task::clone(task) };
            transaction.put(Record::Task(Arc::new(task)));
        }
        let task = &located.task;
        let credential = Arc::new(Credential {
            jti: exchange.jti.clone(),
            task: task.id.clone(),
            session: task.session.clone(),
            agent: exchange.agent.spiffe_id.clone(),
            audience: exchange.audience.clone(),
            details: details.iter().map(|one| one.detail.clone()).collect(),
            binding: exchange.binding.clone(),
            issued_at: now,
            expires_at: end,
            revoked_at: None,
            rest: BTreeMap::new(),
        });
        for Permitted { detail, charges, tier, remembered_in } in details {
            let reservation = Reservation {
                decision_id: detail.decision_id.clone(),
                task: task.id.clone(),
                session: task.session.clone(),
                operation: detail.operation.clone(),
                charged: charges.clone(),
                enforcer: String::new(),
                permitted_at: now,
                due: credential.due(),
                resource: detail.resource.clone(),
                arguments_digest: detail.arguments_digest.clone(),
                destinations: detail.destinations.clone(),
                tier: *tier,
                agent: exchange.agent.spiffe_id.clone(),
                pair: pair_digest(&task.chain()),
                credential: Some(credential.jti.clone()),
                wants_credential: true,
                redeemed: false,
                remembered_in: remembered_in.clone(),
                subject_until: shown::ends(&judgement.caller),
                idempotency: None,
                rest: BTreeMap::new(),
            };
            self.room_open(&reservation, now)?;
            self.metrics.reserved();
            self.open_permits.add(&reservation);
            transaction.put(Record::Reservation(Arc::new(reservation)));
        }
        let made = answer_of(&credential, task, exchange.settings)?;
        self.check_length(&made)?;
        *answer = self.with_nonce(made, exchange.world, judgement);
        judgement.caller.credential = Some(CredentialNote {
            jti: credential.jti.clone(),
            decision_id: String::new(),
            binding: credential.binding.as_ref().map(Binding::member),
        });
        transaction.put(Record::Credential(credential));
        Ok(end)
    }
}

/// Whether no number of a value was rounded when it was read.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number
            .as_f64()
            .is_some_and(|float| !number.is_f64() || float.fract() != 0.0 || float.abs() < EXACT),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Counts what a permit takes, in the task and in all above it.
fn charge(located: &mut Located, charges: &[(String, u32)]) {
    if charges.is_empty() {
        return;
    }
    for task in located.ancestors.iter_mut().chain([&mut located.task]) {
        Arc::make_mut(task).charge(charges);
    }
}
