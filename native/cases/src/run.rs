//! Runs case files: each test on an engine of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_bundle::source::{At, Mark};
use authz_kernel::decision::{Outcome, Time};
use authz_kernel::diagnostic::{Diagnostic, unknown};
use authz_kernel::model::Reports;
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::recipient_lists::{
    Columns, RecipientListEntries, RecipientListState, RecipientLists,
};
use authz_kernel::task::AgentName;
use authz_lane::offline::{
    OfflineEngine, OfflineWorld, StatedAnswer, StatedCaller, StatedCredential, StatedSubject,
};
use authz_lane::proto::authz::v1 as wire;

use crate::callers::milliseconds;
use crate::case_file::{
    AnswerForm, AnswerProof, CaseFile, DelegateForm, EndForm, ExtendForm, IssueForm, OK,
    RecipientListForm, ReportForm, SpeakerWord, StaleWord, StartForm, Test,
};
use crate::check::parse;
use crate::clock::StepClock;
use crate::coverage::CoverageNotes;
use crate::expect::{ActError, StepResult};
use crate::messages;
use crate::report::{Failure, Report, TestScope};
use crate::steps::{Act, OWN_TASK, TestStep};

/// Name of the key of a credential that is not bound to one.
const NO_KEY: &str = "none";

/// Runs case files against a plan.
///
/// Args: `files`: case files by path; of a whole bundle folder those under `tests/` are taken. Its settings may stand in another
/// file than `bundle.yaml`, so a folder is known by its tests and policies, too.
#[must_use]
pub fn test<B: AsRef<[u8]>>(
    plan: &Arc<Plan>,
    files: &BTreeMap<String, B>,
    now_ms: i64,
    scope: TestScope,
) -> Report {
    let has_kind =
        |path: &str, kind: &str| path.rsplit_once('.').is_some_and(|(_, end)| end == kind);
    let is_test = |path: &str| path.starts_with("tests/") && has_kind(path, "yaml");
    let is_bundle = files
        .keys()
        .any(|path| path == "bundle.yaml" || has_kind(path, "cedar") || path.starts_with("tests/"));
    let tests: BTreeMap<String, &[u8]> = files
        .iter()
        .filter(|(path, _)| !is_bundle || is_test(path))
        .map(|(path, bytes)| (path.clone(), bytes.as_ref()))
        .collect();
    run_within(plan, &tests, Time(now_ms), scope)
}

/// Runs case files, by path, against a compiled bundle, as if it were `now`.
#[must_use]
pub fn run<B: AsRef<[u8]>>(plan: &Arc<Plan>, files: &BTreeMap<String, B>, now: Time) -> Report {
    run_within(plan, files, now, TestScope::default())
}

/// As [`run`](fn@run), within a scope.
#[must_use]
pub fn run_within<B: AsRef<[u8]>>(
    plan: &Arc<Plan>,
    files: &BTreeMap<String, B>,
    now: Time,
    scope: TestScope,
) -> Report {
    let mut report = Report::default();
    let mut coverage = scope.covers.then(CoverageNotes::default);
    for (file, bytes) in files {
        match parse(file, bytes.as_ref(), &plan.model().vars) {
            Ok(cases) => {
                for test in &cases.tests {
                    if scope.stops_at_failure && !report.is_ok() {
                        break;
                    }
                    let test = (file.as_str(), test);
                    run_test(&cases, test, plan, now, (&mut report, coverage.as_mut()));
                }
            }
            Err(error) => report.fail(Failure {
                file: file.clone(),
                line: error.line,
                test: String::new(),
                step: 0,
                expected: String::new(),
                actual: String::new(),
                message: error.to_string(),
            }),
        }
    }
    report.coverage = coverage.map(|notes| notes.of(plan));
    report
}

fn run_test(
    cases: &CaseFile,
    (file, At { value: test, at }): (&str, &At<Test>),
    plan: &Arc<Plan>,
    now: Time,
    (report, mut coverage): (&mut Report, Option<&mut CoverageNotes>),
) {
    let failure =
        |at: Mark, step: usize, expected: &[String], actual: &[String], message| Failure {
            file: file.to_owned(),
            line: at.line,
            test: test.name().to_owned(),
            step,
            expected: expected.join(", "),
            actual: actual.join(", "),
            message,
        };
    let keeps = coverage.is_some();
    let mut note = |engine: &OfflineEngine| {
        if let Some(notes) = &mut coverage {
            notes.note(test.name(), &engine.take_decisions());
        }
    };
    let mut run = match TestRun::new(cases, file, test, plan, (now, keeps)) {
        Ok(run) => run,
        Err(message) => return report.fail(failure(*at, 0, &[], &[], message)),
    };
    let started = test.task.as_ref().map(|task| run.start(&task.value, Some(OWN_TASK), task.at));
    note(&run.engine);
    if let Some(task) = &test.task
        && let Some(Err(error)) = started
    {
        let (expected, actual) = (OK.to_owned(), error.reason.as_str().to_owned());
        return report.fail(failure(task.at, 0, &[expected], &[actual], error.message));
    }
    let mut is_over = false;
    for (index, step) in test.steps_at(*at).enumerate() {
        let number = index + 1;
        is_over |= step.revokes;
        run.clock.advance(milliseconds(file, step.after).ok().flatten().unwrap_or_default());
        match if is_over { StepResult::Skipped } else { run.step(number, &step) } {
            StepResult::Passed => report.passed += 1,
            StepResult::Skipped => report.skipped += 1,
            StepResult::Differs { expected, actual, message } => {
                report.fail(failure(step.at, number, &expected, &actual, message));
            }
        }
        note(&run.engine);
    }
}

/// A task of a test.
#[derive(Clone)]
struct StartedTask {
    id: String,
    assignee: AgentName,
    subject: Option<StatedSubject>,
}

impl StartedTask {
    /// The agent that has the task, without a token of its subject.
    fn caller(&self) -> StatedCaller {
        StatedCaller { agent: Some(self.assignee.clone()), ..StatedCaller::default() }
    }
}

/// A call of a test, as reports name it.
#[derive(Clone, Default)]
struct DecidedCall {
    id: String,
    operation: String,
    /// Approval that the call waits for.
    approval: Option<String>,
}

/// One test while it runs. Tasks and credentials are kept by the names that the test gives them.
struct TestRun<'a> {
    cases: &'a CaseFile,
    file: &'a str,
    test: &'a Test,
    plan: &'a Plan,
    engine: OfflineEngine,
    clock: Arc<StepClock>,
    tasks: BTreeMap<String, StartedTask>,
    credentials: BTreeMap<String, StatedCredential>,
    /// Calls by the numbers of their steps.
    calls: BTreeMap<usize, DecidedCall>,
}

impl<'a> TestRun<'a> {
    /// # Errors
    /// A recipient list of the test is not in the bundle, or an alias of an issuer is not valid.
    fn new(
        cases: &'a CaseFile,
        file: &'a str,
        test: &'a Test,
        plan: &'a Arc<Plan>,
        (now, keeps_decisions): (Time, bool),
    ) -> Result<Self, String> {
        let clock = Arc::new(StepClock::new(now));
        let world = OfflineWorld {
            plan: Arc::clone(plan),
            recipient_lists: recipient_lists(test, plan)?,
            issuers: asserted_issuers(cases, file, test),
        };
        let of_engine = Arc::clone(&clock);
        let engine = OfflineEngine::new(world, of_engine).map_err(|error| error.to_string())?;
        let engine = if keeps_decisions { engine.keeping_decisions() } else { engine };
        for system in &test.breakglass.0 {
            let put = engine.put_breakglass_in_force(system);
            put.map_err(|error| format!("break-glass at `{system}`: {}", error.message))?;
        }
        Ok(Self {
            cases,
            file,
            test,
            plan,
            engine,
            clock,
            tasks: BTreeMap::new(),
            credentials: BTreeMap::new(),
            calls: BTreeMap::new(),
        })
    }

    fn step(&mut self, number: usize, step: &TestStep<'_>) -> StepResult {
        if step.is_for_servers() {
            return StepResult::Skipped;
        }
        let caller = match self.cases.caller(self.file, step) {
            Ok(caller) => caller,
            // `parse` checks it; an error is reported all the same.
            Err(error) => {
                let (expected, actual) = (Vec::new(), Vec::new());
                return StepResult::Differs { expected, actual, message: error.to_string() };
            }
        };
        match step.act {
            Some(act) => step.expect.compare_act(self.act(act, step, caller)),
            None => self.call(number, step, caller),
        }
    }

    /// The task that a step is in, as far as the test has started it.
    fn task_of(&self, step: &TestStep<'_>) -> Option<&StartedTask> {
        self.tasks.get(step.task_name(self.test)?)
    }

    /// A caller that an enforcer of the test asks about.
    fn asked_about(&self, caller: StatedCaller) -> StatedCaller {
        StatedCaller { enforcer: self.test.enforcer.clone(), ..caller }
    }

    fn call(
        &mut self,
        number: usize,
        step: &TestStep<'_>,
        caller: Option<StatedCaller>,
    ) -> StepResult {
        let task = self.task_of(step).cloned();
        // A server refuses a call without evidence in its stage *identify*, which does not run here.
        let Some(caller) = caller.or_else(|| task.as_ref().map(StartedTask::caller)) else {
            return StepResult::Skipped;
        };
        // A request without an agent is refused by its proxy's evidence.
        if step.proxied().is_some() && caller.agent.is_none() {
            return StepResult::Skipped;
        }
        let mut caller = self.asked_about(caller);
        if let Some(form) = step.present {
            let credential = self.credentials.get(&form.credential.value);
            let own_task = task.as_ref().map(|task| task.id.as_str());
            match credential.filter(|credential| Some(credential.task()) == own_task) {
                Some(credential) => caller.credential = Some(credential.clone()),
                None => return StepResult::Skipped,
            }
        }
        // A task that the test could not start is unknown to the engine, too.
        let named = task.as_ref().map(|task| task.id.as_str()).or(step.task_name(self.test));
        let named = named.unwrap_or_default();
        let decision = match (step.operation, step.http) {
            (None, Some(http)) => {
                self.engine.check_http(&messages::http_check(step, http, named), &caller)
            }
            (operation, _) => {
                let operation = operation.unwrap_or_default();
                self.engine.check(&messages::check(step, operation, named), &caller)
            }
        };
        let operation = decision.decision.as_ref().map(|decision| decision.operation.clone());
        let call = DecidedCall {
            id: decision.id.clone(),
            operation: operation.unwrap_or_default(),
            approval: decision.approval_id.clone(),
        };
        self.calls.insert(number, call);
        if let Some(form) = step.issue.filter(|_| decision.outcome == Outcome::Permit)
            && let Err(error) = self.issue(form, &decision.id, caller)
        {
            return StepResult::Differs {
                expected: vec![format!("issue: {}", form.name.value)],
                actual: vec![format!("code: {}", error.reason.as_str())],
                message: error.message,
            };
        }
        step.expect.compare_decision(&decision)
    }

    fn issue(
        &mut self,
        form: &IssueForm,
        decision_id: &str,
        caller: StatedCaller,
    ) -> Result<(), ActError> {
        let own_key = caller.agent.as_ref().map(|agent| agent.spiffe_id.clone());
        let key = form.key.clone().or(own_key).filter(|key| key != NO_KEY);
        let caller = StatedCaller { agent: caller.agent, ..StatedCaller::default() };
        let credential = self.engine.issue(decision_id, key.as_deref(), &caller)?;
        self.credentials.insert(form.name.value.clone(), credential);
        Ok(())
    }

    fn act(
        &mut self,
        act: Act<'_>,
        step: &TestStep<'_>,
        caller: Option<StatedCaller>,
    ) -> Result<(), ActError> {
        match act {
            Act::Start(form) => {
                let name = form.name.as_ref().map(|name| name.value.as_str());
                self.start(form, name, step.at)
            }
            Act::Delegate(form) => self.delegate(form, step, caller),
            Act::Extend(form) => self.extend(form, step),
            Act::End(form) => self.end(form, step, caller),
            Act::Report(form) => self.report(form),
            Act::Approve(form) => self.answer(form, true),
            Act::Reject(form) => self.answer(form, false),
        }
    }

    /// Args: `name`: name of the task in later steps. `None`: no later step is in it.
    fn start(&mut self, form: &StartForm, name: Option<&str>, at: Mark) -> Result<(), ActError> {
        let caller = self.test.caller();
        let parties = self.cases.start_parties(self.file, form, caller, at).map_err(unread)?;
        let is_subject_alone = match form.said_by {
            Some(speaker) => speaker == SpeakerWord::Subject,
            None => parties.starter.is_none(),
        };
        let subject = parties.subject.clone().filter(|_| !form.asserted);
        let subject = subject.map(|subject| speaking(subject, is_subject_alone));
        // A token that no agent holds is never shown beside an agent.
        let is_left_out = is_subject_alone && subject.is_some();
        let caller = self.asked_about(StatedCaller {
            agent: parties.starter.clone().filter(|_| !is_left_out),
            subject,
            is_front_end: form.said_by == Some(SpeakerWord::FrontEnd),
            ..StatedCaller::default()
        });
        let request = messages::start(form, &parties, self.clock.now());
        let answer = self.engine.start_task(&request, &caller)?;
        self.keep(name, answer.task, parties.subject);
        Ok(())
    }

    fn delegate(
        &mut self,
        form: &DelegateForm,
        step: &TestStep<'_>,
        caller: Option<StatedCaller>,
    ) -> Result<(), ActError> {
        let parent = self.task_of(step).cloned().ok_or_else(no_task)?;
        let assignee = self.cases.agent(self.file, &form.to).map_err(unread)?;
        let lifetime_ms = milliseconds(self.file, form.deadline.as_ref()).map_err(unread)?;
        let caller = self.asked_about(caller.unwrap_or_else(|| parent.caller()));
        let times = (lifetime_ms, self.clock.now());
        let request = messages::delegate(form, &parent.id, &assignee.spiffe_id, times);
        let answer = self.engine.delegate_task(&request, &caller)?;
        let name = form.name.as_ref().map(|name| name.value.as_str());
        self.keep(name, answer.task, parent.subject);
        Ok(())
    }

    fn extend(&mut self, form: &ExtendForm, step: &TestStep<'_>) -> Result<(), ActError> {
        let task = self.task_of(step).cloned().ok_or_else(no_task)?;
        let is_subject_alone = form.said_by == Some(SpeakerWord::Subject);
        let caller = self.asked_about(StatedCaller {
            agent: Some(task.assignee).filter(|_| form.said_by.is_none()),
            subject: task.subject.map(|subject| speaking(subject, is_subject_alone)),
            is_front_end: form.said_by == Some(SpeakerWord::FrontEnd),
            ..StatedCaller::default()
        });
        let prompt = form.prompt.clone();
        let request = wire::ExtendRequest { task: task.id, prompt, ..Default::default() };
        self.engine.extend_task(&request, &caller)?;
        Ok(())
    }

    fn end(
        &mut self,
        form: EndForm,
        step: &TestStep<'_>,
        caller: Option<StatedCaller>,
    ) -> Result<(), ActError> {
        let task = self.task_of(step).cloned().ok_or_else(no_task)?;
        let caller = self.asked_about(caller.unwrap_or_else(|| task.caller()));
        self.engine.end_task(&messages::end(form, &task.id), &caller)?;
        Ok(())
    }

    /// Answers the approval of a call for a person.
    fn answer(&self, form: &AnswerForm, approves: bool) -> Result<(), ActError> {
        let person = self.cases.subject(self.file, &form.r#as.subject).map_err(unread)?;
        let approval = self.decided(form.of).approval.unwrap_or_default();
        let answer = StatedAnswer {
            approves,
            endorses: form.endorse,
            queue: &form.kind,
            reason: &form.reason,
            has_passkey: form.r#as.by == AnswerProof::Passkey,
        };
        self.engine.answer_approval(&approval, &person, answer)?;
        Ok(())
    }

    /// A call by the number of its step. Default: the last call.
    fn decided(&self, number: Option<usize>) -> DecidedCall {
        let call = match number {
            Some(number) => self.calls.get(&number),
            None => self.calls.last_key_value().map(|(_, call)| call),
        };
        call.cloned().unwrap_or_default()
    }

    /// Reports as the reporter that the catalog names for the system of the call.
    fn report(&self, form: &ReportForm) -> Result<(), ActError> {
        let call = self.decided(form.of);
        let request = messages::report(form, &call.id);
        let caller = self.asked_about(StatedCaller::default());
        if self.plan.model().reports(&call.operation) != Reports::AccessLog {
            self.engine.report(&request, &caller)?;
            return Ok(());
        }
        if !form.labels.is_empty() || !form.actuals.is_empty() || !form.values.is_empty() {
            let message = "an access log, which reports for the system, names no `labels`, `actuals` or `values`";
            let reason = ReasonCode::BadInput;
            return Err(ActError { reason, message: message.to_owned() });
        }
        Ok(self.engine.report_logged(&request, &caller)?)
    }

    /// Keeps a task by its name.
    fn keep(
        &mut self,
        name: Option<&str>,
        task: Option<wire::Task>,
        subject: Option<StatedSubject>,
    ) {
        let Some((name, task)) = name.zip(task) else { return };
        if let Ok(assignee) = AgentName::parse(&task.assignee) {
            self.tasks.insert(name.to_owned(), StartedTask { id: task.id, assignee, subject });
        }
    }
}

/// A subject as its token proves it.
///
/// Args: `is_alone`: no agent holds the token.
fn speaking(subject: StatedSubject, is_alone: bool) -> StatedSubject {
    StatedSubject { is_alone, ..subject }
}

/// The bundle's recipient lists, with the entries that a test states.
fn recipient_lists(test: &Test, plan: &Plan) -> Result<RecipientLists, String> {
    let mut recipient_lists = plan.fresh_recipient_lists();
    for (name, form) in &test.recipient_lists {
        if !plan.model().recipient_lists.contains_key(name) {
            let declared = plan.model().recipient_lists.iter();
            let declared = declared.map(|(name, rule)| (name.as_str(), Some(&rule.at)));
            return Err(unknown("recipient list", name, declared).0);
        }
        let known = match form {
            RecipientListForm::Stale(StaleWord::Stale) => None,
            RecipientListForm::Entries(entries) => {
                let entries =
                    RecipientListEntries::read(entries.join("\n").as_bytes(), Columns::default());
                let entries = Arc::new(entries.map_err(|defect| defect.to_string())?);
                Some(RecipientListState { entries, fresh_until: None })
            }
        };
        recipient_lists.set(name, known);
    }
    Ok(recipient_lists)
}

/// Aliases of the issuers whose subjects an agent asserts in a test.
fn asserted_issuers(cases: &CaseFile, file: &str, test: &Test) -> BTreeSet<String> {
    let own = test.task.iter().map(|task| &task.value);
    let of_steps = test.steps.iter().flatten().filter_map(|step| step.value.start.as_ref());
    let asserted = own.chain(of_steps).filter(|form| form.asserted);
    let parties = asserted
        .filter_map(|form| cases.start_parties(file, form, test.caller(), Mark::default()).ok());
    parties.filter_map(|parties| parties.subject).map(|subject| subject.issuer).collect()
}

/// `parse` checks a step before it runs; an error is reported all the same.
fn unread(error: Diagnostic) -> ActError {
    ActError { reason: ReasonCode::BadInput, message: error.to_string() }
}

fn no_task() -> ActError {
    ActError { reason: ReasonCode::UnknownTask, message: "the step is on no task".to_owned() }
}
