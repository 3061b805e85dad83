//! `authz.v1.Tasks/Get` and `authz.v1.Tasks/List`.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::{Record, Task, TaskKind, TaskStatus};
use authz_state::store::{Page, Query};

use crate::api_call::{ApiCaller, ApiGrant, ApiOutcome, WithRecord as _};
use crate::engine::Engine;
use crate::judgement::ApiRecord;
use crate::locate::Located;
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::request::check_id;
use crate::tasks::{READ, concerns, is_alone_its_subject};
use crate::taskwire;

/// Default number of tasks on a page, and the largest number.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// Tasks that one call reads.
const MAX_SCANNED: usize = 10_000;

/// The message of a list, read and bounded.
struct TaskFilter<'m> {
    /// SPIFFE id of the assignee. Default: tasks of all agents.
    assignee: Option<&'m str>,
    /// Session of the tasks. Default: tasks of all sessions.
    session: Option<&'m str>,
    status: Option<wire::TaskStatus>,
    page_size: usize,
    /// The page begins after the task of this id.
    page_token: &'m str,
}

impl<'m> TaskFilter<'m> {
    fn read(message: &'m wire::TasksListRequest) -> Result<Self, CallRefusal> {
        check_id("assignee", &message.assignee)?;
        check_id("session", &message.session)?;
        check_id("page_token", &message.page_token)?;
        let status = match wire::TaskStatus::try_from(message.status) {
            Ok(wire::TaskStatus::Unspecified) => None,
            Ok(status) => Some(status),
            Err(_) => return Err(CallRefusal::input("`status` has an unknown value")),
        };
        let page_size = match usize::try_from(message.page_size) {
            Ok(0) => PAGE,
            Ok(size) => size.min(MAX_PAGE),
            Err(_) => return Err(CallRefusal::input("`page_size` is below 0")),
        };
        Ok(Self {
            assignee: Some(message.assignee.as_str()).filter(|id| !id.is_empty()),
            session: Some(message.session.as_str()).filter(|id| !id.is_empty()),
            status,
            page_size,
            page_token: &message.page_token,
        })
    }
}

/// The tasks that a caller may see among those of its filter.
struct VisibleTasks<'c> {
    caller: &'c ApiCaller<'c>,
    assignee: Option<&'c str>,
    status: Option<wire::TaskStatus>,
    /// The caller sees all tasks, and not only those that concern it.
    sees_all: bool,
}

impl VisibleTasks<'_> {
    fn contain(&self, task: &Arc<Task>) -> bool {
        let (caller, now) = (self.caller, self.caller.now());
        let alone = Located { task: Arc::clone(task), ancestors: Vec::new() };
        let is_listed = task.kind != TaskKind::Implicit
            || caller.is_owner
            || is_alone_its_subject(&alone, caller.facts());
        is_listed
            && self.assignee.is_none_or(|assignee| task.assignee() == assignee)
            && self.status.is_none_or(|status| taskwire::status(task.status_at(now)) == status)
            && (self.sees_all || concerns(&alone, caller.facts()))
    }
}

impl Engine {
    /// Reads a task.
    pub(crate) fn get_task(
        &self,
        message: &wire::GetRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::GetResponse> {
        check_id("task", &message.task)?;
        let located = self.find_visible_task(&message.task, caller)?;
        let record = ApiRecord::of_task(&located.task);
        let task = self.read_task(located, caller).with_record(&record)?;
        let answer = wire::GetResponse { task: Some(task) };
        Ok(ApiGrant::unchanged(answer, "the task may be read").with_record(&record))
    }

    fn read_task(
        &self,
        located: Located,
        caller: &ApiCaller<'_>,
    ) -> Result<wire::Task, CallRefusal> {
        let now = caller.now();
        if !caller.is_owner && !concerns(&located, caller.facts()) {
            self.check_own_operation(caller, READ)?;
        }
        // The parameters may hold data that the giver read: an agent that reads them has used the task.
        let is_own = caller.is_agent(located.task.assignee());
        let is_live = located.task.status_at(now) == TaskStatus::Active;
        let located = match is_own && is_live {
            true => {
                let (used, commit) = self.note_use(located, now, caller.wait)?;
                self.keeper.kept(commit, caller.wait)?;
                used
            }
            false => located,
        };
        let is_kept_back = is_own && located.task.unused;
        Ok(shown_task(&located.task, is_kept_back, now))
    }

    /// Lists tasks.
    pub(crate) fn list_tasks(
        &self,
        message: &wire::TasksListRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::TasksListResponse> {
        let filter = TaskFilter::read(message)?;
        let sees_all = caller.is_owner || self.sees_all(&filter, caller)?;
        let own = caller.agent().map(|agent| agent.spiffe_id.as_str());
        let assignee = if sees_all || filter.session.is_some() { filter.assignee } else { own };
        let query = match (assignee, filter.session) {
            (_, Some(session)) => Query::Session(session.to_owned()),
            (Some(assignee), None) => Query::TasksOf(assignee.to_owned()),
            (None, None) => Query::Tasks,
        };
        let visible = VisibleTasks { caller, assignee, status: filter.status, sees_all };
        let answer = self.page_of_tasks(&query, &filter, &visible)?;
        let message = format!("{} tasks", answer.tasks.len());
        Ok(ApiGrant::unchanged(answer, message))
    }

    /// Whether policy lets a caller see tasks that do not concern it.
    ///
    /// # Errors
    /// The caller asks for tasks of others, and policy does not permit that.
    fn sees_all(
        &self,
        filter: &TaskFilter<'_>,
        caller: &ApiCaller<'_>,
    ) -> Result<bool, CallRefusal> {
        let own = caller.agent().map(|agent| agent.spiffe_id.as_str());
        let is_own = filter.session.is_none()
            && own.is_some()
            && (filter.assignee.is_none() || filter.assignee == own);
        // A caller that lists its own tasks needs no policy. Of a session it sees the tasks that concern it.
        if is_own {
            return Ok(false);
        }
        match self.check_own_operation(caller, READ) {
            Ok(()) => Ok(true),
            Err(_) if filter.session.is_some() => Ok(false),
            Err(refused) => Err(refused),
        }
    }

    /// One page of the tasks that a caller may see.
    fn page_of_tasks(
        &self,
        query: &Query,
        filter: &TaskFilter<'_>,
        visible: &VisibleTasks<'_>,
    ) -> Result<wire::TasksListResponse, CallRefusal> {
        let (caller, size, now) = (visible.caller, filter.page_size, visible.caller.now());
        let mut tasks = Vec::new();
        let mut after = filter.page_token.to_owned();
        let mut scanned = 0_usize;
        let mut has_more = true;
        while has_more && tasks.len() < size && scanned < MAX_SCANNED {
            let page = Page { after: after.clone(), most: size.saturating_add(1) };
            let records = self.keeper.find(query, &page, caller.wait)?;
            has_more = records.len() > size;
            for record in records.into_iter().take(size) {
                let Record::Task(task) = record else { continue };
                if tasks.len() >= size {
                    has_more = true;
                    break;
                }
                after = task.id.clone();
                scanned = scanned.saturating_add(1);
                if visible.contain(&task) {
                    let is_kept_back = task.unused && caller.is_agent(task.assignee());
                    tasks.push(shown_task(&task, is_kept_back, now));
                }
            }
        }
        let next_page_token = if has_more { after } else { String::new() };
        Ok(wire::TasksListResponse { tasks, next_page_token })
    }
}

/// A task as its caller sees it.
///
/// `is_kept_back` says that the caller's agent did not use the task yet, and may still decline it. Then its parameters are not
/// shown.
fn shown_task(task: &Task, is_kept_back: bool, now: Time) -> wire::Task {
    let mut shown = taskwire::task(task, now);
    if is_kept_back {
        shown.params = None;
    }
    shown
}
