//! The steps of a test, wherever the file writes them.

use authz_bundle::source::{At, Mark};

use crate::case_file::{
    AnswerForm, CallerForm, CaseStep, DelegateForm, EndForm, Expect, ExtendForm, HttpForm,
    IssueForm, PresentForm, ReportForm, RequestFields, StartForm, Test,
};

/// Name of the task that a trace begins with.
pub(crate) const OWN_TASK: &str = "task";
/// Name of a step's task where the step is in no task.
const NO_TASK: &str = "none";

/// Whether a name says that a step is in no task.
pub(crate) fn is_no_task(name: &str) -> bool {
    name == NO_TASK
}

/// A step that is not a call.
#[derive(Clone, Copy)]
pub(crate) enum Act<'a> {
    Start(&'a StartForm),
    Delegate(&'a DelegateForm),
    Extend(&'a ExtendForm),
    End(EndForm),
    Report(&'a ReportForm),
    Approve(&'a AnswerForm),
    Reject(&'a AnswerForm),
}

impl<'a> Act<'a> {
    /// Name of the task that the step makes.
    pub(crate) fn name(self) -> Option<&'a At<String>> {
        match self {
            Self::Start(form) => form.name.as_ref(),
            Self::Delegate(form) => form.name.as_ref(),
            Self::Extend(_)
            | Self::End(_)
            | Self::Report(_)
            | Self::Approve(_)
            | Self::Reject(_) => None,
        }
    }
}

/// One step of a trace, or the only one of a case.
pub(crate) struct TestStep<'a> {
    pub(crate) at: Mark,
    /// The caller that the file names. `None`: the agent of the step's task.
    pub(crate) caller: Option<&'a At<CallerForm>>,
    pub(crate) task: Option<&'a At<String>>,
    pub(crate) after: Option<&'a At<String>>,
    pub(crate) act: Option<Act<'a>>,
    pub(crate) issue: Option<&'a IssueForm>,
    pub(crate) present: Option<&'a PresentForm>,
    pub(crate) introspects: bool,
    pub(crate) revokes: bool,
    has_evidence: bool,
    listener: Option<&'a str>,
    pub(crate) operation: Option<&'a str>,
    pub(crate) input: Option<&'a serde_json::Value>,
    pub(crate) input_text: Option<&'a str>,
    has_bytes: bool,
    pub(crate) request: &'a RequestFields,
    pub(crate) http: Option<&'a HttpForm>,
    pub(crate) expect: &'a Expect,
}

impl<'a> TestStep<'a> {
    /// Whether only a server, which verifies evidence and has listeners, can answer the step.
    pub(crate) fn is_for_servers(&self) -> bool {
        let is_given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let request = self.request;
        self.has_evidence
            || self.introspects
            || self.present.is_some_and(PresentForm::is_for_servers)
            || self.has_bytes
            || self.listener.is_some_and(|listener| listener != "main")
            || is_given(&request.task)
            || is_given(&request.confidence_jws)
            || is_given(&request.idempotency_key)
            || is_given(&request.approval_id)
            || request.mode.as_ref().is_some_and(|mode| !mode.is_empty() && mode != "ENFORCE")
            || self.proxied().is_some_and(HttpForm::is_for_servers)
    }

    /// Whether the step is a call.
    pub(crate) fn is_call(&self) -> bool {
        self.act.is_none() && !self.introspects && !self.revokes
    }

    /// The HTTP request of a step that names no operation: a proxy asks about it.
    pub(crate) fn proxied(&self) -> Option<&'a HttpForm> {
        self.http.filter(|_| self.operation.is_none())
    }

    /// Name of the task that the step is in.
    pub(crate) fn task_name(&self, test: &Test) -> Option<&'a str> {
        let own = test.task.as_ref().map(|_| OWN_TASK);
        let named = self.task.map(|task| task.value.as_str());
        named.or(own).filter(|name| !is_no_task(name))
    }
}

impl Test {
    /// Whether a step is in a task.
    fn is_in_task(&self, step: &CaseStep) -> bool {
        match &step.task {
            Some(name) => !is_no_task(&name.value),
            None => self.task.is_some(),
        }
    }

    /// The steps of the test.
    ///
    /// Args: `at`: place of the test.
    pub(crate) fn steps_at(&self, at: Mark) -> impl Iterator<Item = TestStep<'_>> {
        let steps = self.steps.iter().flatten().map(|step| self.step_of_trace(step));
        let only = self.expect.as_ref().filter(|_| self.steps.is_none());
        steps.chain(only.map(|expect| self.only_step(at, expect)))
    }

    fn step_of_trace<'a>(&'a self, At { value: step, at }: &'a At<CaseStep>) -> TestStep<'a> {
        let own = self.r#as.as_ref().filter(|_| !self.is_in_task(step));
        TestStep {
            at: *at,
            caller: step.r#as.as_ref().or(own),
            task: step.task.as_ref(),
            after: step.after.as_ref(),
            act: step.act(),
            issue: step.issue.as_ref(),
            present: step.present.as_ref(),
            introspects: step.introspect.is_some(),
            revokes: step.revoke.is_some(),
            has_evidence: step.evidence.is_some(),
            listener: step.listener.as_deref(),
            operation: step.call.as_ref().map(|call| call.value.as_str()),
            input: step.input.as_ref(),
            input_text: step.input_text.as_deref(),
            has_bytes: step.input_base64.is_some(),
            request: &step.request,
            http: step.http.as_ref(),
            expect: &step.expect,
        }
    }

    fn only_step<'a>(&'a self, at: Mark, expect: &'a Expect) -> TestStep<'a> {
        TestStep {
            at,
            caller: self.r#as.as_ref(),
            task: None,
            after: None,
            act: None,
            issue: None,
            present: None,
            introspects: false,
            revokes: false,
            has_evidence: self.evidence.is_some(),
            listener: self.listener.as_deref(),
            operation: self.call.as_ref().map(|call| call.value.as_str()),
            input: self.input.as_ref(),
            input_text: self.input_text.as_deref(),
            has_bytes: self.input_base64.is_some(),
            request: &self.request,
            http: self.http.as_ref(),
            expect,
        }
    }
}

impl CaseStep {
    fn act(&self) -> Option<Act<'_>> {
        let start = self.start.as_ref().map(Act::Start);
        let delegate = self.delegate.as_ref().map(Act::Delegate);
        let report = self.report.as_ref().map(Act::Report);
        let extend = self.extend.as_ref().map(Act::Extend);
        let answer = self.approve.as_ref().map(Act::Approve);
        let answer = answer.or(self.reject.as_ref().map(Act::Reject));
        start.or(delegate).or(extend).or(self.end.map(Act::End)).or(report).or(answer)
    }
}
