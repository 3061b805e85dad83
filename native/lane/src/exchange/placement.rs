//! The task of a token exchange: an existing one, or a new one that the exchange begins.

use std::sync::Arc;

use authz_kernel::decision::Principal;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{
    self, AgentName, Child, Part, PromptNames, Record, Root, SpokenWords, SubjectProof, Task,
    TaskKind, TaskSubject,
};
use authz_state::store::Transaction;

use super::Exchange;
use super::request::ExchangeRequest;
use crate::api_call::{ApiCaller, ApiRefusal, WithRecord as _};
use crate::engine::Engine;
use crate::history;
use crate::judgement::ApiRecord;
use crate::keeper::ChangeError;
use crate::locate::{self, Located};
use crate::origin_records;
use crate::refusal::{CallRefusal, Step};
use crate::request::check_id;
use crate::tasks::{is_by_user, kernel_refused};

/// Most parameters of a new task.
const MAX_PARAMS: usize = 64;

/// The task that a credential is issued for.
pub(super) enum Placement {
    /// An existing task.
    Existing(Arc<Task>),
    /// A new root.
    Root { task: Arc<Task>, words: SpokenWords },
    /// A new task of this id below an existing one.
    Child { parent: Arc<Task>, id: String },
}

impl Placement {
    /// The task itself, or the one that the new task is below.
    pub(super) fn task(&self) -> &Arc<Task> {
        match self {
            Self::Existing(task) | Self::Root { task, .. } | Self::Child { parent: task, .. } => {
                task
            }
        }
    }

    /// Subject first, then every agent down to the one that the credential is for.
    pub(super) fn chain(&self, agent: &AgentName) -> Vec<Principal> {
        let chain = self.task().chain();
        match self {
            Self::Root { .. } => chain,
            Self::Existing(_) | Self::Child { .. } => {
                chain.into_iter().chain([agent.principal()]).collect()
            }
        }
    }

    /// Members of the audit record that name the task, unless it does not exist yet.
    pub(super) fn record(&self) -> ApiRecord {
        match self {
            Self::Existing(task) | Self::Child { parent: task, .. } => ApiRecord::of_task(task),
            Self::Root { .. } => ApiRecord::default(),
        }
    }
}

impl Engine {
    /// Finds the task of an exchange, or makes the new one once policy lets it be started. Returns it, and the members of the
    /// audit record that were found out.
    pub(super) fn place_exchange(
        &self,
        request: &ExchangeRequest,
        agent: &AgentName,
        caller: &ApiCaller<'_>,
    ) -> Result<(Placement, ApiRecord), ApiRefusal> {
        let texts =
            [("task", &request.task), ("template", &request.template), ("parent", &request.parent)];
        for (name, text) in texts {
            check_id(name, text.as_deref().unwrap_or_default())?;
        }
        if request.params.len() > MAX_PARAMS {
            let message = format!("there are more than {MAX_PARAMS} parameters");
            return Err(CallRefusal::input(message).into());
        }
        let placement = match (&request.task, &request.template, &request.parent) {
            (Some(task), None, None) if request.params.is_empty() && request.prompt.is_none() => {
                Placement::Existing(self.find_usable(task, caller)?)
            }
            (None, _, Some(parent)) if request.prompt.is_none() => {
                let parent = self.find_usable(parent, caller)?;
                Placement::Child { parent, id: self.clock.new_id() }
            }
            (None, Some(template), None) => {
                return self.place_root(request, template, agent, caller);
            }
            (None, None, None) => {
                return Err(CallRefusal::new(
                    ReasonCode::NoTask,
                    Step::Locate,
                    "a credential is issued for a task: name one, or the template of a new one",
                )
                .into());
            }
            _ => {
                let message = "`task` stands alone, and `prompt` goes with a new root";
                return Err(CallRefusal::input(message).into());
            }
        };
        let record = placement.record();
        Ok((placement, record))
    }

    /// Finds an existing task that the caller may use.
    fn find_usable(&self, id: &str, caller: &ApiCaller<'_>) -> Result<Arc<Task>, ApiRefusal> {
        let located = locate::find_task(&self.keeper, id, caller.wait)?;
        let record = ApiRecord::of_task(&located.task);
        self.check_usable(&located, &caller.identity, caller.now()).with_record(&record)?;
        self.check_left_out(caller.now(), caller.plan(), &located, caller.wait)
            .with_record(&record)?;
        Ok(located.task)
    }

    fn place_root(
        &self,
        request: &ExchangeRequest,
        template: &str,
        agent: &AgentName,
        caller: &ApiCaller<'_>,
    ) -> Result<(Placement, ApiRecord), ApiRefusal> {
        let (plan, now) = (caller.plan(), caller.now());
        let acr = caller.facts().subject.as_ref().and_then(|subject| subject.acr.as_deref());
        let first = caller.chain().first();
        let subject = first.and_then(|first| TaskSubject::of(first, acr.unwrap_or_default()));
        let proof = match subject {
            Some(_) => SubjectProof::Verified,
            None => SubjectProof::Itself,
        };
        let known = plan.template(template);
        let operation = known.map(|_| format!("task:{template}")).unwrap_or_default();
        let record = ApiRecord { operation, ..ApiRecord::default() };
        self.check_subject(&caller.identity, now, plan, false, caller.wait).with_record(&record)?;
        self.check_start(caller, template, &request.params, caller.chain(), proof)
            .with_record(&record)?;
        let prompt = [Part::of_user(request.prompt.as_deref().unwrap_or_default())];
        let (said, prompt) = self.read_prompt(caller, &prompt, &request.params);
        let PromptNames { names, words } = said;
        let record = record.or(&prompt);
        let root = Root {
            template,
            params: &request.params,
            scope: &[],
            kind: TaskKind::Root,
            assignee: agent.clone(),
            subject,
            subject_proof: proof,
            starter: agent.spiffe_id.clone(),
            deadline: None,
            tier_cap: None,
            names,
            now,
            id: self.clock.new_id(),
            session: self.clock.new_id(),
        };
        let task = self.begin_task(root, caller.chain(), caller).with_record(&record)?;
        Ok((Placement::Root { task, words }, record))
    }

    /// The task of an exchange as a transaction reads or begins it, and its kind if it is new.
    pub(super) fn locate_exchange(
        &self,
        transaction: &mut dyn Transaction,
        exchange: &Exchange<'_>,
    ) -> Result<(Located, Option<TaskKind>), ChangeError> {
        let (caller, now) = (exchange.caller, exchange.caller.now());
        match &exchange.placement {
            Placement::Existing(task) => {
                let mut located = locate::find_in(transaction, &task.id)?;
                self.check_usable(&located, &caller.identity, now)?;
                located.task = self.claim(transaction, &located.task, now)?;
                Ok((located, None))
            }
            Placement::Root { task, words } => {
                self.admit_task(transaction, task, now)?;
                let retention = self.keeper.settings().retention_ms;
                let by_agent = !is_by_user(caller);
                let session = history::begin(transaction, task, by_agent, now, retention)?;
                transaction.put(Record::Session(Arc::new(session)));
                origin_records::begin_words(transaction, task, words);
                let located = Located { task: Arc::clone(task), ancestors: Vec::new() };
                Ok((located, Some(TaskKind::Root)))
            }
            Placement::Child { parent, id } => {
                let parent = locate::find_in(transaction, &parent.id)?;
                self.check_usable(&parent, &caller.identity, now)?;
                let request = exchange.request;
                let child = Child {
                    template: request.template.as_deref(),
                    params: &request.params,
                    scope: &[],
                    assignee: exchange.agent.clone(),
                    starter: exchange.agent.spiffe_id.clone(),
                    deadline: None,
                    now,
                    id: id.clone(),
                };
                let child =
                    task::delegate(caller.plan(), &parent.task, child).map_err(kernel_refused)?;
                self.admit_child(transaction, &parent, &child, now)?;
                history::begin_child(transaction, &parent, &child, now)?;
                let Located { task, mut ancestors } = parent;
                ancestors.push(task);
                let located = Located { task: Arc::new(child), ancestors };
                Ok((located, Some(TaskKind::Child)))
            }
        }
    }
}
