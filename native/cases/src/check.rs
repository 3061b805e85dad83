//! Reads a case file, and checks it before it runs.

use std::collections::{BTreeMap, BTreeSet};

use authz_bundle::source::{At, Mark, read_yaml};
use authz_kernel::diagnostic::{Diagnostic, clip, unknown, unknown_word};
use authz_kernel::reason::ReasonCode;

use crate::callers::milliseconds;
use crate::case_file::{CaseFile, CaseStep, Expect, OK, Test};
use crate::matrix::expand;
use crate::steps::{Act, OWN_TASK, TestStep, is_no_task};

/// Tests in one file.
const MOST_TESTS: usize = 10_000;
/// Steps of one trace.
const MOST_STEPS: usize = 50_000;
/// Bytes of the name of a task.
const LONGEST_NAME: usize = 256;

/// Reads a case file, `${vars}` filled in, and each matrix replaced by the tests of its cells.
///
/// # Errors
/// The first error, with its place.
pub fn parse(
    file: &str,
    bytes: &[u8],
    vars: &BTreeMap<String, String>,
) -> Result<CaseFile, Diagnostic> {
    let mut cases: CaseFile = read_yaml(file, bytes, vars)?;
    cases.tests = expand(file, std::mem::take(&mut cases.tests))?;
    if cases.tests.len() > MOST_TESTS {
        let at = Mark::default().within(file);
        let problem = format!("more than {MOST_TESTS} tests");
        return Err(Diagnostic::error(&at, problem, "Split the file."));
    }
    for test in &cases.tests {
        check_form(file, test)?;
        cases.check_names(file, test)?;
    }
    Ok(cases)
}

/// Checks that a test is either one call or a trace of steps, each of which does one thing.
fn check_form(file: &str, test: &At<Test>) -> Result<(), Diagnostic> {
    let fail = |mark: Mark, problem: &str, fix: &str| {
        Err(Diagnostic::error(&mark.within(file), problem, fix))
    };
    let form = &test.value;
    let is_call = form.call.is_some() || form.http.is_some();
    if form.trace.is_some() == form.case.is_some() {
        return fail(test.at, "a test has a name: either `trace` or `case`", "Add one.");
    }
    match &form.steps {
        Some(steps) if steps.is_empty() || steps.len() > MOST_STEPS => {
            let fix = "Add a step, or split the test.";
            fail(test.at, "`steps` is empty, or has more than 50,000 steps", fix)
        }
        Some(_) if is_call || form.input.is_some() || form.expect.is_some() => {
            let problem = "a test has either `steps`, or `call`, `input` and `expect` of its own";
            fail(test.at, problem, "Move the call into `steps`.")
        }
        Some(steps) => match steps.iter().find(|step| step.value.acts() != 1) {
            Some(step) => {
                let problem = "a step needs `call` or `http`, or one of `start`, `delegate`, `end`, `approve`, `reject` and `report`";
                fail(step.at, problem, "Say what is done.")
            }
            None => Ok(()),
        },
        None if !is_call || form.expect.is_none() => {
            let problem = "a test needs `call` and `expect`, or `steps`";
            fail(test.at, problem, "Say what is called, and what must come of it.")
        }
        None => Ok(()),
    }
}

impl CaseStep {
    /// Number of things that the step does.
    fn acts(&self) -> usize {
        [
            self.call.is_some() || self.http.is_some(),
            self.start.is_some(),
            self.delegate.is_some(),
            self.extend.is_some(),
            self.end.is_some(),
            self.report.is_some(),
            self.approve.is_some(),
            self.reject.is_some(),
            self.introspect.is_some(),
            self.revoke.is_some(),
        ]
        .into_iter()
        .filter(|is_done| *is_done)
        .count()
    }
}

impl CaseFile {
    /// Checks that each name in a test stands for a principal, a task or a credential that there is by then.
    fn check_names(&self, file: &str, test: &At<Test>) -> Result<(), Diagnostic> {
        let form = &test.value;
        let mut tasks = BTreeSet::new();
        let mut credentials: BTreeSet<&str> = BTreeSet::new();
        if let Some(task) = &form.task {
            if form.steps.is_none() {
                let problem = "`task` goes with `steps`";
                return Err(Diagnostic::error(&task.at.within(file), problem, "Make it a trace."));
            }
            if let Some(name) = &task.value.name {
                let problem = "the task of a trace has no name of its own";
                let fix = format!("It is called `{OWN_TASK}`.");
                return Err(Diagnostic::error(&name.at.within(file), problem, fix.as_str()));
            }
            self.start_parties(file, &task.value, form.caller(), task.at)?;
            tasks.insert(OWN_TASK);
        }
        for step in form.steps_at(test.at) {
            if let Some(task) = step.task {
                check_task(file, task, &tasks)?;
            }
            milliseconds(file, step.after)?;
            step.check_expectation(file)?;
            if let Some(form) = step.present {
                let name = &form.credential;
                if !credentials.contains(name.value.as_str()) {
                    let declared = credentials.iter().map(|name| (*name, None));
                    let (problem, fix) = unknown("task credential", &name.value, declared);
                    return Err(Diagnostic::error(&name.at.within(file), problem, fix));
                }
            }
            if let Some(form) = step.issue {
                credentials.insert(&form.name.value);
            }
            if let Some(act) = step.act {
                self.check_act(file, act, form, step.at)?;
                if let Some(name) = act.name() {
                    check_new_name(file, name, &tasks)?;
                    if matches!(step.expect, Expect::Code(code) if code == OK) {
                        tasks.insert(&name.value);
                    }
                }
            }
            if !step.is_for_servers() {
                self.caller(file, &step)?;
            }
        }
        Ok(())
    }

    fn check_act(&self, file: &str, act: Act<'_>, test: &Test, at: Mark) -> Result<(), Diagnostic> {
        match act {
            Act::Start(form) => self.start_parties(file, form, test.caller(), at).map(drop),
            Act::Delegate(form) => {
                self.agent(file, &form.to)?;
                milliseconds(file, form.deadline.as_ref()).map(drop)
            }
            Act::Approve(form) | Act::Reject(form) => {
                self.subject(file, &form.r#as.subject).map(drop)
            }
            Act::Extend(_) | Act::End(_) | Act::Report(_) => Ok(()),
        }
    }
}

/// Checks the name of a new task, given the tasks that there are by then.
fn check_new_name(file: &str, name: &At<String>, tasks: &BTreeSet<&str>) -> Result<(), Diagnostic> {
    let at = name.at.within(file);
    let text = name.value.as_str();
    if text.is_empty() || is_no_task(text) || text.len() > LONGEST_NAME {
        let problem = format!("`{}` is no name of a task", clip(text));
        return Err(Diagnostic::error(&at, problem, "Use another name."));
    }
    if tasks.contains(text) {
        let problem = format!("the task `{}` stands already", clip(text));
        return Err(Diagnostic::error(&at, problem, "Use another name."));
    }
    Ok(())
}

/// Checks the name of a step's task, given the tasks that there are by then.
fn check_task(file: &str, name: &At<String>, tasks: &BTreeSet<&str>) -> Result<(), Diagnostic> {
    if tasks.contains(name.value.as_str()) || is_no_task(&name.value) {
        return Ok(());
    }
    let declared = tasks.iter().map(|name| (*name, None));
    let (problem, fix) = unknown("task", &name.value, declared);
    Err(Diagnostic::error(&name.at.within(file), problem, fix))
}

impl TestStep<'_> {
    /// Checks that the expectation is one of a step of this kind.
    fn check_expectation(&self, file: &str) -> Result<(), Diagnostic> {
        let at = self.at.within(file);
        let is_call = self.is_call();
        if !is_call && (self.issue.is_some() || self.present.is_some()) {
            let problem = "`issue` and `present` go with a call";
            return Err(Diagnostic::error(&at, problem, "Remove it."));
        }
        let fits = match self.expect {
            Expect::Outcome(_) => is_call,
            Expect::Code(_) => !is_call,
            Expect::Object(fields) if is_call => {
                fields.outcome.is_some() && fields.beyond.is_none()
            }
            Expect::Object(fields) => fields.outcome.is_none() && fields.code.is_some(),
        };
        let code = match self.expect {
            Expect::Object(fields) => fields.code.as_deref(),
            Expect::Code(code) if !is_call => Some(code.as_str()),
            Expect::Code(_) | Expect::Outcome(_) => None,
        };
        if let Some(code) = code.filter(|code| *code != OK && ReasonCode::from_name(code).is_none())
        {
            let codes = ReasonCode::ALL.map(|code| code.as_str());
            let (problem, fix) = unknown_word("reason code", code, codes);
            return Err(Diagnostic::error(&at, problem, fix));
        }
        if fits {
            return Ok(());
        }
        if let Expect::Code(code) = self.expect
            && is_call
        {
            let words = ["PERMIT", "STEP_UP", "DENY"];
            let (problem, fix) = unknown("outcome", code, words.map(|word| (word, None)));
            let fix = if fix.is_guess() { fix } else { "Write PERMIT, STEP_UP or DENY.".into() };
            return Err(Diagnostic::error(&at, problem, fix));
        }
        let (problem, fix) = match is_call {
            true => ("a call has an outcome", "Write PERMIT, STEP_UP, DENY, or `{outcome: …}`."),
            false => (
                "a step on tasks is done or refused",
                "Write OK, a reason code, or `{code: OUT_OF_SCOPE, beyond: ids}`.",
            ),
        };
        Err(Diagnostic::error(&at, problem, fix))
    }
}
