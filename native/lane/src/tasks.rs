//! `authz.v1.Tasks`: starting, delegating, extending, reading and ending tasks. Each method has a file of its own.

mod delegate;
mod end;
mod extend;
mod key;
mod names;
mod read;
mod start;

use std::collections::BTreeMap;

use authz_kernel::decision::{Facts, Outcome, Principal, Request};
use authz_kernel::reason::ReasonCode;
use authz_kernel::schema::GIVE;
use authz_kernel::task::{
    self, Param, Part, PromptNames, SubjectProof, Task, TaskKind, TaskStatus, read_names,
};
use authz_token::VerifiedFacts;

use crate::api_call::ApiCaller;
use crate::engine::{Engine, own};
use crate::judgement::{ApiNotes, ApiRecord, PromptNote};
use crate::locate::{self, Located};
use crate::refusal::{CallRefusal, Step};
use crate::revoke;
use crate::speaker;
use crate::steps::judge::kernel_facts;

pub(crate) use crate::tasks::start::is_by_user;

/// Operations of Authz that policies judge.
const START_FOR: &str = "authz.task.start_for";
const READ: &str = "authz.task.read";
pub(crate) const END: &str = "authz.task.end";

impl Engine {
    /// Refuses an operation of Authz that the policies do not permit to a chain.
    pub(crate) fn check_permitted(
        &self,
        caller: &ApiCaller<'_>,
        chain: &[Principal],
        proof: Option<SubjectProof>,
        request: &Request<'_>,
    ) -> Result<(), CallRefusal> {
        let operation = request.operation;
        let revoked = self.keeper.revocations()?;
        revoke::of_operation(&revoked, operation)?;
        let facts = kernel_facts(&caller.arrival, caller.facts(), chain, None, None);
        let facts = Facts { subject_proof: proof, ..facts };
        let decision = caller.world.decide_own(&facts, request, caller.now());
        if decision.outcome == Outcome::Permit && decision.reason == ReasonCode::Permitted {
            return Ok(());
        }
        // A step-up of a start cannot be lifted in this version.
        let reason = match decision.reason {
            ReasonCode::Permitted => ReasonCode::Unavailable,
            reason => reason,
        };
        let message = format!("`{operation}`: {}", decision.message);
        Err(CallRefusal::new(reason, Step::Judge, message))
    }

    /// Refuses an operation of Authz without arguments that the policies do not permit to the caller.
    pub(crate) fn check_own_operation(
        &self,
        caller: &ApiCaller<'_>,
        operation: &str,
    ) -> Result<(), CallRefusal> {
        self.check_permitted(caller, caller.chain(), None, &own(operation))
    }

    /// Reads the names of a prompt and of parameters. Returns them and the record of who said them.
    pub(crate) fn read_prompt(
        &self,
        caller: &ApiCaller<'_>,
        prompt: &[Part<'_>],
        params: &BTreeMap<String, Param>,
    ) -> (PromptNames, ApiRecord) {
        let speaker = speaker::speaker(caller.asker(), caller.facts(), &caller.world);
        let read = read_names(prompt, params, speaker, &self.keeper.store().secret());
        let names = &read.names;
        let note = PromptNote {
            said_by: speaker.as_str(),
            named: names.user.len().saturating_add(names.harness.len()),
            claimed: names.claimed.len(),
        };
        let notes = ApiNotes { prompt: Some(note), ..ApiNotes::default() };
        (read, ApiRecord { notes, ..ApiRecord::default() })
    }

    /// Refuses a new root that policy or the template does not let a chain start.
    pub(crate) fn check_start(
        &self,
        caller: &ApiCaller<'_>,
        template: &str,
        params: &BTreeMap<String, Param>,
        chain: &[Principal],
        proof: SubjectProof,
    ) -> Result<(), CallRefusal> {
        let plan = caller.plan();
        // `task::start` refuses an unknown template.
        let Some(known) = plan.template(template) else { return Ok(()) };
        if let Some(agent @ Principal::Agent { .. }) = chain.last()
            && !known.is_started_by(&plan.roles().roles_of(agent))
        {
            return Err(CallRefusal::new(
                ReasonCode::NotPermitted,
                Step::Judge,
                "the agent holds no role of the template's `starters`",
            ));
        }
        if proof == SubjectProof::Asserted {
            // The agent alone is judged: nothing proves the subject.
            let agent = chain.last().map_or(&[][..], std::slice::from_ref);
            self.check_permitted(caller, agent, None, &own(START_FOR))?;
        }
        let arguments = serde_json::to_vec(params).unwrap_or_default();
        let operation = format!("task:{template}");
        let request = Request { arguments: arguments.as_slice().into(), ..own(&operation) };
        self.check_permitted(caller, chain, Some(proof), &request)
    }

    /// Refuses a task that policy does not let a chain give to the task's agent. An agent that keeps the task itself gives it
    /// to nobody.
    fn check_giving(
        &self,
        caller: &ApiCaller<'_>,
        task: &Task,
        giver: &[Principal],
    ) -> Result<(), CallRefusal> {
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
        self.check_permitted(caller, giver, Some(task.subject_proof), &request)
    }

    /// Finds the task that a call is about.
    ///
    /// # Errors
    /// The task does not exist, or is the session of an agent that works without tasks, which only its subject and the owner
    /// see.
    fn find_visible_task(&self, id: &str, caller: &ApiCaller<'_>) -> Result<Located, CallRefusal> {
        let located = locate::find(&self.keeper, id, caller.wait)?;
        let is_hidden = located.task.kind == TaskKind::Implicit
            && !caller.is_owner
            && !is_alone_its_subject(&located, caller.facts());
        if is_hidden {
            return Err(locate::unknown());
        }
        Ok(located)
    }
}

/// Whether a caller is the starter, the subject or an agent of a task, or of one above it.
fn concerns(located: &Located, facts: &VerifiedFacts) -> bool {
    let task = &located.task;
    let by_agent = facts.agent.as_ref().is_some_and(|agent| {
        task.starter == agent.spiffe_id
            || task.agents.iter().any(|one| one.spiffe_id == agent.spiffe_id)
    });
    by_agent || is_alone_its_subject(located, facts)
}

/// Whether a caller may end a task without a policy. Its agent completes or aborts the task. Its subject and everybody above it
/// may also revoke it.
pub(crate) fn may_end(located: &Located, facts: &VerifiedFacts, status: TaskStatus) -> bool {
    let task = &located.task;
    let by_agent = facts.agent.as_ref().is_some_and(|agent| {
        let id = &agent.spiffe_id;
        let is_own = task.assignee() == id && status != TaskStatus::Revoked;
        is_own
            || task.starter == *id
            || located.ancestors.iter().any(|above| above.assignee() == id || above.starter == *id)
    });
    by_agent || is_alone_its_subject(located, facts)
}

/// Whether the caller is the task's subject itself, and not an agent that holds the subject's token.
fn is_alone_its_subject(located: &Located, facts: &VerifiedFacts) -> bool {
    let pair = located.task.subject.as_ref().zip(speaker::alone(facts));
    pair.is_some_and(|(subject, proved)| locate::is_subject(subject, proved))
}

pub(crate) fn kernel_refused(refused: task::Refused) -> CallRefusal {
    CallRefusal::new(refused.reason, Step::Judge, refused.message)
}
