//! `authz.v1.Tasks/Extend`: further words of the user in a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{self, PromptNames, Record, RecordKey, RecordKind, Task, TaskKind};
use authz_state::store::Survives;

use crate::api_call::{ApiCaller, ApiOutcome, GrantedChange, WithRecord as _};
use crate::engine::Engine;
use crate::judgement::ApiRecord;
use crate::locate::{self, Located};
use crate::origin_records;
use crate::proto::authz::v1 as wire;
use crate::refusal::{CallRefusal, Step};
use crate::request::check_id;
use crate::speaker;
use crate::taskwire;

impl Engine {
    /// Adds the names of a prompt to a task.
    pub(crate) fn extend_task(
        &self,
        message: &wire::ExtendRequest,
        caller: &ApiCaller<'_>,
    ) -> ApiOutcome<wire::ExtendResponse> {
        check_id("task", &message.task)?;
        let located = self.find_visible_task(&message.task, caller)?;
        let record = ApiRecord::of_task(&located.task);
        self.check_extension(&located, caller).with_record(&record)?;
        let prompt = speaker::parts(&message.prompt, &message.prompt_parts).with_record(&record)?;
        let (said, prompt) = self.read_prompt(caller, &prompt, &BTreeMap::new());
        self.write_extension(&located.task, &said, caller, &record.or(&prompt))
    }

    /// Refuses a task that is not live, and a caller that does not speak for the task's subject.
    fn check_extension(
        &self,
        located: &Located,
        caller: &ApiCaller<'_>,
    ) -> Result<(), CallRefusal> {
        let task = &located.task;
        if task.kind == TaskKind::Implicit {
            return Err(locate::unknown());
        }
        locate::live(located, &*self.keeper.revocations()?, caller.now())?;
        let is_by_subject = match (&task.subject, &caller.facts().subject) {
            (Some(subject), Some(proved)) => locate::is_subject(subject, proved),
            // The words of an agent that acts for itself are its own from the start.
            (None, None) => caller.is_agent(&task.starter),
            _ => false,
        };
        let is_by_other_agent = caller.agent().is_some() && !caller.is_agent(task.assignee());
        if !is_by_subject || is_by_other_agent {
            return Err(CallRefusal::new(
                ReasonCode::NotPermitted,
                Step::Judge,
                "only the subject of a task extends it",
            ));
        }
        self.check_left_out(caller.now(), caller.plan(), located, caller.wait)
    }

    fn write_extension(
        &self,
        task: &Task,
        said: &PromptNames,
        caller: &ApiCaller<'_>,
        record: &ApiRecord,
    ) -> ApiOutcome<wire::ExtendResponse> {
        let now = caller.now();
        let locks = [RecordKey::new(RecordKind::Session, &task.session)];
        let survives = Survives::Crash;
        let grant = self.change_granted(caller, record, &locks, survives, &mut |transaction| {
            let current = locate::find_in(transaction, &task.id)?;
            locate::live(&current, &*self.keeper.revocations()?, now)?;
            let mut extended = Task::clone(&current.task);
            origin_records::extend_words(transaction, &mut extended, &said.words)?;
            task::extend(&mut extended, said.names.clone());
            let extended = Arc::new(extended);
            transaction.put(Record::Task(Arc::clone(&extended)));
            Ok(GrantedChange::of_task(extended, "the task is extended"))
        })?;
        Ok(grant.map(|task| wire::ExtendResponse { task: Some(taskwire::task(&task, now)) }))
    }
}
