//! Tests of a bundle: who asks for what, and what must come of it.
//!
//! The same files run here, against the kernel alone, and over every surface of a server.

mod credentials;
mod reports;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_bundle::source::{At, Many, Mark, duration, pretty, read_yaml};
use credentials::{Credentials, IssueSaid, Issued, PresentSaid};
use reports::{Permits, ReportSaid};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use tasks::{Act, DelegateSaid, EndSaid, ExtendSaid, Found, Placed, StartSaid, Tasks};

use crate::decide::{decide, standing};
use crate::decision::{
    Claim, Decision, Facts, Given, Outcome, Principal, Proof, ProofMethod, Request, Subject, Time,
};
use crate::diagnostic::{Diagnostic, clip, unknown};
use crate::directories::{Directories, Entries, Known};
use crate::history::HistoryView;
use crate::mcp::ServerTask;
use crate::mode::may_soften;
use crate::model::Location;
use crate::plan::Plan;
use crate::reason::ReasonCode;
use crate::routes::{Body, HttpRequest, RouteError};
use crate::task::{Refused, ShownToken};

/// Failures that a report lists; the rest are counted.
const MOST_FAILURES: usize = 200;
/// Tests in one file, and steps in one test.
const MOST_TESTS: usize = 10_000;

/// A file of cases.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Authz case file")]
pub struct CaseFile {
    /// The bundle to load, for runs over a server; a bundle's own tests run under that bundle.
    bundle: Option<String>,
    /// Principals, by the names that the tests give them.
    #[serde(default)]
    fixtures: Fixtures,
    /// The tests.
    tests: Vec<At<Test>>,
}

/// Principals by name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fixtures {
    /// Subjects, by name; the name is the default of `sub`.
    #[serde(default)]
    subjects: BTreeMap<String, SubjectFixture>,
    /// SPIFFE ids, by name.
    #[serde(default)]
    agents: BTreeMap<String, String>,
}

/// A verified subject.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SubjectFixture {
    /// Alias of the issuer.
    issuer: String,
    /// What the issuer's tokens speak of; default `user`.
    #[serde(default)]
    kind: SubjectWord,
    /// `sub` of the token; default: the name of the fixture.
    sub: Option<String>,
    /// Kept claims.
    #[serde(default)]
    claims: BTreeMap<String, ClaimEntry>,
    /// `acr` of the token.
    #[serde(default)]
    acr: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SubjectWord {
    /// A person.
    #[default]
    User,
    /// A service.
    Service,
}

/// A claim: true or false, a whole number, a text, or a list of texts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum ClaimEntry {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Long(i64),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A single case, or a trace of steps.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Test {
    /// Name of a test with `steps`.
    trace: Option<At<String>>,
    /// Name of a test with one call.
    case: Option<At<String>>,
    /// Who acts.
    r#as: Option<At<Chain>>,
    /// Name of the enforcer that asks; default: none, the caller asks about itself.
    #[serde(default)]
    enforcer: String,
    /// Who is in directories, by name: a list of entries, or `stale`. Default: as the bundle's files say, and fresh. A
    /// server's directories are what they are: there such a test does not run.
    #[serde(default)]
    directories: BTreeMap<String, DirectorySaid>,
    /// The task that a trace begins with; its steps are on it, each by the agent that has their task.
    task: Option<At<StartSaid>>,
    /// The steps of a trace, in order.
    steps: Option<Vec<At<Step>>>,
    /// For runs over a server: credentials instead of good ones. Such a call is not judged here.
    evidence: Option<serde_json::Value>,
    /// For runs over a server: which listener is asked; `main` by default. Another is not asked here.
    listener: Option<String>,
    /// The operation.
    call: Option<At<String>>,
    /// Its arguments.
    input: Option<serde_json::Value>,
    /// Its arguments as raw text, for what YAML cannot say.
    input_text: Option<String>,
    /// Its arguments as raw bytes in base64; for runs over a server only.
    input_base64: Option<String>,
    /// Further fields of the request.
    #[serde(default)]
    request: RequestFields,
    /// The HTTP request as a proxy sends it; judged here where there is no `call`.
    http: Option<Http>,
    /// What must come of it.
    expect: Option<Expect>,
}

/// Who is in a directory.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum DirectorySaid {
    /// These are.
    Entries(Vec<String>),
    /// Nobody knows.
    Stale(StaleWord),
}

/// A directory is too old.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum StaleWord {
    /// It is.
    Stale,
}

/// Further fields of a request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RequestFields {
    /// The resource, where the operation's rule names none.
    resource: Option<String>,
    /// The destinations, where the operation's rule names no argument.
    #[serde(default)]
    destinations: Many<String>,
    /// Obligations that the enforcer can carry out.
    #[serde(default)]
    supported_obligations: Many<String>,
    /// For runs over a server.
    task: Option<String>,
    /// Labels that the enforcer says the call carries.
    #[serde(default)]
    labels: Many<String>,
    /// Context of the session that a front end names.
    #[serde(default)]
    session_context: String,
    /// For runs over a server.
    confidence_jws: Option<String>,
    /// For runs over a server.
    idempotency_key: Option<String>,
    /// For runs over a server.
    approval_id: Option<String>,
    /// For runs over a server.
    mode: Option<String>,
}

/// An HTTP request as a proxy sends it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Http {
    /// The method; default `GET`.
    method: Option<String>,
    /// The host; default `crm.example`.
    host: Option<String>,
    /// The target with its query, not decoded; default `/`.
    path: Option<String>,
    /// Headers, each a name in lower case and a value.
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// The body; default: none.
    body: Option<String>,
    /// Whether the body was cut off.
    #[serde(default)]
    partial: Option<bool>,
    /// For runs over a server.
    credentials: Option<bool>,
    /// For runs over a server.
    principal: Option<String>,
    /// What the proxy is configured to say: `authz.supported_obligations`, separated by commas.
    #[serde(default)]
    extensions: BTreeMap<String, String>,
}

/// Who acts: the agent for the subject, or one of them alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Chain {
    /// A name of `fixtures.agents`, or a SPIFFE id.
    agent: Option<At<String>>,
    /// A name of `fixtures.subjects`.
    subject: Option<At<String>>,
    /// How old the caller's credential is: `30s`, `15m`; default: just issued.
    age: Option<At<String>>,
    /// The caller proves to hold the key that its credential is bound to.
    #[serde(default)]
    bound: bool,
}

/// One step of a trace: a call, or something done to tasks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Who acts; default: the agent that has the step's task, or without a task that of the test.
    r#as: Option<At<Chain>>,
    /// The task that the step is on, by its name; `none`: no task. Default: the one that the trace begins with.
    task: Option<At<String>>,
    /// How much later the step is: `10m`. A server's clock cannot be moved: there the trace ends.
    after: Option<At<String>>,
    /// Starts a task.
    start: Option<StartSaid>,
    /// Delegates a task, below the step's.
    delegate: Option<DelegateSaid>,
    /// Adds a further turn of the user to the step's task.
    extend: Option<ExtendSaid>,
    /// Ends the step's task.
    end: Option<EndSaid>,
    /// Tells what came of an earlier call, whose system somebody reports for.
    report: Option<ReportSaid>,
    /// A task credential is asked for with the call, and issued of its permit.
    issue: Option<IssueSaid>,
    /// The task credential that the call presents, in place of what else proves who acts.
    present: Option<PresentSaid>,
    /// For runs over a server: the task credential, by its name, that is introspected; `OK` is expected where it is
    /// active, `REVOKED` where it is not.
    introspect: Option<String>,
    /// For runs over a server: what is revoked, such as `{agent: orch}`. Here the trace ends.
    revoke: Option<BTreeMap<String, String>>,
    /// For runs over a server: credentials instead of good ones. Such a call is not judged here.
    evidence: Option<serde_json::Value>,
    /// For runs over a server: which listener is asked; `main` by default. Another is not asked here.
    listener: Option<String>,
    /// The operation.
    call: Option<At<String>>,
    /// Its arguments.
    input: Option<serde_json::Value>,
    /// Its arguments as raw text, for what YAML cannot say.
    input_text: Option<String>,
    /// Its arguments as raw bytes in base64; for runs over a server only.
    input_base64: Option<String>,
    /// Further fields of the request.
    #[serde(default)]
    request: RequestFields,
    /// The HTTP request as a proxy sends it; judged here where there is no `call`.
    http: Option<Http>,
    /// What must come of it.
    expect: Expect,
}

/// What must come of a call: the outcome, or more. What is not said is not compared.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
enum Expect {
    /// The outcome of a call.
    Outcome(OutcomeWord),
    /// Of a step that starts, delegates or ends a task, or reports: `OK`, or the reason code.
    Code(String),
    /// The outcome and more.
    Object(Box<ExpectObject>),
}

/// What is expected of a step on tasks that is not refused.
const OK: &str = "OK";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum OutcomeWord {
    /// May be performed.
    Permit,
    /// Not yet.
    StepUp,
    /// May not.
    Deny,
}

/// What must come of a call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectObject {
    /// The outcome; needed for a call.
    outcome: Option<OutcomeWord>,
    /// The reason code, `FORBIDDEN`.
    code: Option<String>,
    /// All step-up kinds, in any order.
    kinds: Option<BTreeSet<String>>,
    /// One of the policies that determined the outcome, by `@id`.
    policy: Option<String>,
    /// All policies that determined the outcome, in any order.
    policies: Option<BTreeSet<String>>,
    /// All obligations, in any order.
    obligations: Option<BTreeSet<String>>,
    /// All controls, in any order.
    controls: Option<BTreeSet<String>>,
    /// What the agent sees, `DENIED`.
    public_code: Option<String>,
    /// What the agent can do, `NONE`.
    next_action: Option<String>,
    /// The effective tier.
    tier: Option<String>,
    /// The Cedar resource, `Resource::"customers/42"`.
    resource: Option<String>,
    /// The class of the worst destination.
    destination_class: Option<String>,
    /// The reason that the agent is shown.
    shown_reason: Option<String>,
    /// Of a step that starts or delegates: in what more is asked than is given, `ids`.
    beyond: Option<String>,
    /// For runs over a server: headers towards the upstream.
    #[expect(dead_code, reason = "compared over a server only")]
    upstream: Option<serde_json::Value>,
    /// For runs over a server: how an MCP client is answered.
    #[expect(dead_code, reason = "compared over a server only")]
    answer: Option<AnswerWord>,
}

/// How an MCP client is answered.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AnswerWord {
    /// With the result of a tool.
    Result,
    /// With a JSON-RPC error.
    Error,
    /// As any HTTP client.
    Http,
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Expect;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("PERMIT, STEP_UP, DENY, or a mapping with `outcome`")
            }
            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Expect, E> {
                if v == OK || ReasonCode::from_name(v).is_some() {
                    return Ok(Expect::Code(v.to_owned()));
                }
                let word = serde::de::value::StrDeserializer::<E>::new(v);
                OutcomeWord::deserialize(word).map(Expect::Outcome)
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Expect, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                ExpectObject::deserialize(map).map(|o| Expect::Object(Box::new(o)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Steps that came out as expected.
    pub passed: usize,
    /// Calls that only a server can judge.
    pub skipped: usize,
    /// Steps that did not come out as expected, and files that could not be read; at most 200.
    pub failed: Vec<Failure>,
    /// Failures beyond those listed.
    pub omitted: usize,
}

impl Report {
    /// Whether nothing failed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failed.is_empty() && self.omitted == 0
    }

    fn fail(&mut self, failure: Failure) {
        if self.failed.len() < MOST_FAILURES {
            self.failed.push(failure);
        } else {
            self.omitted += 1;
        }
    }
}

/// A step that did not come out as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    pub file: String,
    /// The line of the step, from 1; 0 where unknown.
    pub line: u32,
    /// Name of the test.
    pub test: String,
    /// Which step, from 1; 0 where the file could not be read.
    pub step: usize,
    /// What was expected, `outcome: DENY, code: FORBIDDEN`.
    pub expected: String,
    /// What came instead, in the same fields.
    pub actual: String,
    /// What happened, from the decision; or what is wrong with the file.
    pub message: String,
}

/// JSON Schema (draft 2020-12) of case files.
#[must_use]
pub fn case_schema() -> String {
    pretty(&schemars::schema_for!(CaseFile))
}

/// Reads a case file, `${vars}` filled in.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(
    file: &str,
    bytes: &[u8],
    vars: &BTreeMap<String, String>,
) -> Result<CaseFile, Diagnostic> {
    let cases: CaseFile = read_yaml(file, bytes, vars)?;
    if cases.tests.len() > MOST_TESTS {
        let at = Mark::default().within(file);
        return Err(Diagnostic::error(
            &at,
            format!("more than {MOST_TESTS} tests"),
            "Split the file.",
        ));
    }
    for test in &cases.tests {
        cases.check(file, test)?;
    }
    Ok(cases)
}

/// Runs case files, by path, against a compiled bundle, as if it were `now`.
#[must_use]
pub fn run(plan: &Plan, files: &BTreeMap<String, Vec<u8>>, now: Time) -> Report {
    let mut report = Report::default();
    for (file, bytes) in files {
        match parse(file, bytes, &plan.model().vars) {
            Ok(cases) => cases.run(file, plan, now, &mut report),
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
    report
}

impl CaseFile {
    /// The bundle that the file asks for, where it does.
    #[must_use]
    pub fn bundle(&self) -> Option<&str> {
        self.bundle.as_deref()
    }

    fn check(&self, file: &str, test: &At<Test>) -> Result<(), Diagnostic> {
        let at = |mark: Mark| mark.within(file);
        let fail =
            |mark: Mark, what: &str, mend: &str| Err(Diagnostic::error(&at(mark), what, mend));
        let said = &test.value;
        let inline = said.call.is_some() || said.http.is_some();
        match (&said.trace, &said.case) {
            (Some(_), None) | (None, Some(_)) => {}
            _ => return fail(test.at, "a test has a name: either `trace` or `case`", "Add one."),
        }
        match &said.steps {
            Some(steps) if steps.is_empty() || steps.len() > MOST_TESTS => {
                return fail(
                    test.at,
                    "`steps` is empty or too long",
                    "Add a step, or split the test.",
                );
            }
            Some(_) if inline || said.input.is_some() || said.expect.is_some() => {
                let what = "a test has either `steps`, or `call`, `input` and `expect` of its own";
                return fail(test.at, what, "Move the call into `steps`.");
            }
            Some(steps) => {
                let acts = |s: &Step| {
                    usize::from(s.call.is_some() || s.http.is_some())
                        + usize::from(s.start.is_some())
                        + usize::from(s.delegate.is_some())
                        + usize::from(s.extend.is_some())
                        + usize::from(s.end.is_some())
                        + usize::from(s.report.is_some())
                        + usize::from(s.introspect.is_some())
                        + usize::from(s.revoke.is_some())
                };
                if let Some(step) = steps.iter().find(|step| acts(&step.value) != 1) {
                    let what = "a step needs `call` or `http`, or one of `start`, `delegate`, `end` and `report`";
                    return fail(step.at, what, "Say what is done.");
                }
            }
            None if !inline || said.expect.is_none() => {
                let what = "a test needs `call` and `expect`, or `steps`";
                return fail(test.at, what, "Say what is called, and what must come of it.");
            }
            None => {}
        }
        let mut known = BTreeSet::new();
        let mut issued: BTreeSet<&str> = BTreeSet::new();
        if let Some(task) = &said.task {
            if said.steps.is_none() {
                return fail(task.at, "`task` goes with `steps`", "Make it a trace.");
            }
            if let Some(name) = task.value.name() {
                let mend = format!("It is called `{}`.", tasks::OWN);
                return fail(name.at, "the task of a trace has no name of its own", &mend);
            }
            self.check_act(file, &Act::Start(&task.value), said.who(), task.at)?;
            known.insert(tasks::OWN);
        }
        for call in said.calls(test.at) {
            if let Some(task) = call.task {
                tasks::refuse_task(file, task, &known)?;
            }
            if let Some(after) = call.after {
                tasks::later(file, Some(after))?;
            }
            call.check(file)?;
            if let Some(said) = call.present {
                let name = &said.credential;
                if !issued.contains(name.value.as_str()) {
                    let declared = issued.iter().map(|name| (*name, None));
                    let (what, mend) = unknown("task credential", &name.value, declared);
                    return Err(Diagnostic::error(&name.at.within(file), what, mend));
                }
            }
            if let Some(said) = call.issue {
                issued.insert(&said.name.value);
            }
            if let Some(act) = call.act {
                self.check_act(file, &act, said.who(), call.at)?;
                if let Some(name) = act.name() {
                    tasks::refuse_name(file, name, &known)?;
                    if matches!(call.expect, Expect::Code(code) if code == OK) {
                        known.insert(&name.value);
                    }
                }
            }
            if !call.is_for_servers() {
                self.chain(file, &call)?;
            }
        }
        Ok(())
    }

    /// The chain of a call, how old the caller's credential is, and the `acr` of the subject's; nobody where nobody is
    /// named.
    fn chain(&self, file: &str, call: &Call<'_>) -> Result<Option<Caller<'_>>, Diagnostic> {
        let Some(who) = call.who.map(|who| &who.value) else { return Ok(None) };
        let mut chain = Vec::new();
        let mut acr = "";
        if let Some(name) = &who.subject {
            let Some(fixture) = self.fixtures.subjects.get(&name.value) else {
                return Err(unknown_name(file, "subject", name, self.fixtures.subjects.keys()));
            };
            acr = &fixture.acr;
            chain.push(fixture.principal(&name.value));
        }
        if let Some(name) = &who.agent {
            let id = match self.fixtures.agents.get(&name.value) {
                Some(id) => id,
                None if name.value.starts_with("spiffe://") => &name.value,
                None => return Err(unknown_name(file, "agent", name, self.fixtures.agents.keys())),
            };
            let domain = id.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
            let Some(domain) = domain.filter(|domain| !domain.is_empty()) else {
                let what = format!("`{}` is no SPIFFE id", clip(id));
                let mend = "Write `spiffe://trust.domain/path`.";
                return Err(Diagnostic::error(&name.at.within(file), what, mend));
            };
            chain.push(Principal::Agent { spiffe_id: id.clone(), trust_domain: domain.to_owned() });
        }
        let age = match &who.age {
            None => 0,
            Some(text) => match duration(&text.value) {
                Some(age) => i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
                None => {
                    let what = format!("`{}` is no duration", clip(&text.value));
                    return Err(Diagnostic::error(
                        &text.at.within(file),
                        what,
                        "Write 30s or 15m.",
                    ));
                }
            },
        };
        Ok((!chain.is_empty()).then_some(Caller { chain, age, acr, bound: who.bound }))
    }

    fn run(&self, file: &str, plan: &Plan, now: Time, report: &mut Report) {
        for test in &self.tests {
            let mut tasks = Tasks::default();
            let mut credentials = Credentials::default();
            let mut permits = Permits::default();
            let mut is_over = false;
            let failure =
                |at: Mark, step, expected: Vec<String>, actual: Vec<String>, message| Failure {
                    file: file.to_owned(),
                    line: at.line,
                    test: test.value.name().to_owned(),
                    step,
                    expected: expected.join(", "),
                    actual: actual.join(", "),
                    message,
                };
            if let Some(task) = &test.value.task {
                let who = test.value.who();
                if let Err(refused) = tasks.begin(self, plan, &task.value, who, now) {
                    let (expected, actual) =
                        (vec![OK.to_owned()], vec![refused.reason.as_str().to_owned()]);
                    report.fail(failure(task.at, 0, expected, actual, refused.message));
                    continue;
                }
            }
            let directories = match test.value.directories(plan) {
                Ok(directories) => directories,
                Err(what) => {
                    report.fail(failure(test.at, 0, Vec::new(), Vec::new(), what));
                    continue;
                }
            };
            let mut now = now;
            for (index, call) in test.value.calls(test.at).enumerate() {
                now = Time(now.0.saturating_add(tasks::later(file, call.after).unwrap_or(0)));
                is_over |= call.revokes;
                if is_over {
                    report.skipped += 1;
                    continue;
                }
                let state = (&mut tasks, &mut credentials, &mut permits, &directories);
                match self.step(file, plan, &test.value, (index + 1, &call), state, now) {
                    Came::Passed => report.passed += 1,
                    Came::Skipped => report.skipped += 1,
                    Came::Otherwise { expected, actual, message } => {
                        report.fail(failure(call.at, index + 1, expected, actual, message));
                    }
                }
            }
        }
    }

    fn step(
        &self,
        file: &str,
        plan: &Plan,
        test: &Test,
        (step, call): (usize, &Call<'_>),
        (tasks, credentials, permits, directories): (
            &mut Tasks,
            &mut Credentials,
            &mut Permits,
            &Directories,
        ),
        now: Time,
    ) -> Came {
        if call.is_for_servers() {
            return Came::Skipped;
        }
        let caller = match self.chain(file, call) {
            Ok(caller) => caller,
            // `parse` has checked this already; a failure here is reported all the same.
            Err(error) => {
                let (expected, actual) = (Vec::new(), Vec::new());
                return Came::Otherwise { expected, actual, message: error.to_string() };
            }
        };
        let on = call.on(test);
        if let Some(Act::Report(said)) = call.act {
            return call.expect.compare_act(permits.report(plan, said, tasks, now));
        }
        if let Some(act) = &call.act {
            let came = tasks.act(self, plan, (act, on, test.who()), caller, now);
            return call.expect.compare_act(came);
        }
        // In a task the subject is that of the task.
        let refused = match &caller {
            Some(caller) if on.is_none() => tasks.subject_refused(plan, &caller.chain),
            _ => None,
        };
        let implied = match &caller {
            Some(caller) if on.is_none() => tasks.implied(plan, caller, now),
            _ => None,
        };
        let placed = on.or(implied.as_deref()).and_then(|name| tasks.get(plan, name, now));
        let placed = match &caller {
            Some(caller) if placed.is_none() && on.is_none() => tasks.taskless(plan, caller, now),
            _ => placed,
        };
        let mut noted = match (&placed, &caller) {
            (Some(placed), Some(caller)) => tasks.noted(plan, placed, caller, now),
            _ => None,
        };
        let placed = match (placed, &noted) {
            (Some(placed), Some(root)) => Some(placed.with_root(root.clone())),
            (placed, _) => placed,
        };
        // What a task credential does not cover changes nothing: its token is noted once it is known to.
        if let Some(root) = noted.take_if(|_| call.present.is_none()) {
            tasks.keep(root);
        }
        let placed = placed
            .map(|placed| tasks.unless_barred(plan, placed.within(&call.request.session_context)));
        let refused = refused.or_else(|| {
            let placed = placed.as_ref().filter(|_| on.is_some())?;
            tasks.left_out_refused(plan, placed, now)
        });
        let caller = match (&placed, caller) {
            (Some(placed), caller) => placed.caller(caller),
            (None, Some(caller)) => caller,
            // Without a caller there is nothing to judge: what refuses it stands before the kernel.
            (None, None) => return Came::Skipped,
        };
        // A proxy's request is an agent's: without one it is refused before the kernel is asked.
        if call.is_a_proxys() && !matches!(caller.chain.last(), Some(Principal::Agent { .. })) {
            return Came::Skipped;
        }
        let presented = call.present.and_then(|said| credentials.get(said));
        // That it is of another task than the step is found before the kernel is asked.
        let is_others = presented.is_some_and(|issued| Some(issued.task.as_str()) != on);
        if is_others || (call.present.is_some() && presented.is_none()) {
            return Came::Skipped;
        }
        let known = (test.enforcer.as_str(), directories);
        let presented_of = presented.map(|issued| issued.step);
        let decision = call.judge(plan, &caller, placed.as_ref(), presented, known, now);
        // A request that nothing understands is refused as that first.
        if let (Some(refused), Ok(_)) = (refused, &decision) {
            let (expected, actual) = call.expect.compare(&Seen::from(&refused));
            return match expected == actual {
                true => Came::Passed,
                false => Came::Otherwise { expected, actual, message: refused.message },
            };
        }
        if decision.as_ref().is_ok_and(|(decision, _)| decision.is_judged) {
            tasks.note_subject(&caller.chain);
        }
        let (expected, actual) = match &decision {
            Ok((decision, _)) => call.expect.compare(&Seen::from(decision)),
            Err(refused) => call.expect.compare(&Seen::from(refused)),
        };
        if let (Ok((decision, resource)), Some(placed)) = (&decision, &placed) {
            let id = reports::id_of(step);
            if let Some(root) = noted.filter(|_| decision.redeems.is_some()) {
                tasks.keep(root);
            }
            tasks.settle(plan, placed, decision, &id, now);
            permits.keep(plan, step, (placed, decision), now);
            if let Some(said) = call.issue.filter(|_| !placed.is_taskless()) {
                let of = (step, on.unwrap_or_default());
                credentials.issue(said, of, resource.clone(), decision);
            }
            if let Some(said) = call.present {
                if let Some(from) = presented_of.filter(|_| decision.redeems.is_some()) {
                    permits.hand_over(from, step);
                    let is_reported = decision.passage.is_reported;
                    tasks.hand_over(placed, &reports::id_of(from), &id, is_reported);
                }
                credentials.redeem(said, decision);
            }
        }
        if expected == actual {
            return Came::Passed;
        }
        let message = decision.map_or_else(|refused| refused.message, |(d, _)| d.message);
        Came::Otherwise { expected, actual, message }
    }
}

/// What came of one step.
enum Came {
    Passed,
    Skipped,
    Otherwise { expected: Vec<String>, actual: Vec<String>, message: String },
}

/// Who acts in a call.
struct Caller<'a> {
    chain: Vec<Principal>,
    age: i64,
    acr: &'a str,
    bound: bool,
}

impl Caller<'_> {
    /// The subject's token that comes with the call. Tokens of a test have no client, and are as new as the step.
    fn shown(&self, now: Time) -> Option<ShownToken<'_>> {
        let subject = self.chain.iter().find_map(|one| match one {
            Principal::User(subject) | Principal::Service(subject) => Some(subject),
            Principal::Agent { .. } => None,
        });
        let claims = &subject?.claims;
        let issued_at = Some(now.0.div_euclid(1_000));
        Some(ShownToken { token_type: "", client: "", issued_at, expires_at: None, claims })
    }
}

/// What a test may compare.
struct Seen<'a> {
    outcome: OutcomeWord,
    reason: ReasonCode,
    kinds: &'a [String],
    policies: &'a [String],
    obligations: &'a [String],
    controls: &'a [String],
    tier: &'a str,
    resource: &'a str,
    destination_class: &'a str,
    shown_reason: &'a str,
}

impl<'a> From<&'a Decision> for Seen<'a> {
    fn from(decision: &'a Decision) -> Self {
        Self {
            outcome: match decision.outcome {
                Outcome::Permit => OutcomeWord::Permit,
                Outcome::StepUp => OutcomeWord::StepUp,
                Outcome::Deny => OutcomeWord::Deny,
            },
            reason: decision.reason,
            kinds: &decision.kinds,
            policies: &decision.policies,
            obligations: &decision.obligations,
            controls: &decision.controls,
            tier: decision.tier.map_or("", |tier| tier.as_str()),
            resource: &decision.resource,
            destination_class: &decision.destination_class,
            shown_reason: decision.shown_reason.as_deref().unwrap_or_default(),
        }
    }
}

/// A request that no route understands is a denial like any other.
impl From<&RouteError> for Seen<'_> {
    fn from(refused: &RouteError) -> Self {
        Self {
            outcome: OutcomeWord::Deny,
            reason: refused.reason,
            kinds: &[],
            policies: &[],
            obligations: &[],
            controls: &[],
            tier: "",
            resource: "",
            destination_class: "",
            shown_reason: "",
        }
    }
}

/// Neither is one that is refused before policy is asked.
impl From<&Refused> for Seen<'_> {
    fn from(refused: &Refused) -> Self {
        Self {
            outcome: OutcomeWord::Deny,
            reason: refused.reason,
            kinds: &[],
            policies: &[],
            obligations: &[],
            controls: &[],
            tier: "",
            resource: "",
            destination_class: "",
            shown_reason: "",
        }
    }
}

/// One call of a test, wherever it is written.
struct Call<'a> {
    at: Mark,
    who: Option<&'a At<Chain>>,
    task: Option<&'a At<String>>,
    after: Option<&'a At<String>>,
    act: Option<Act<'a>>,
    issue: Option<&'a IssueSaid>,
    present: Option<&'a PresentSaid>,
    introspects: bool,
    revokes: bool,
    evidence: bool,
    listener: Option<&'a str>,
    operation: Option<&'a str>,
    input: Option<&'a serde_json::Value>,
    input_text: Option<&'a str>,
    bytes: bool,
    request: &'a RequestFields,
    http: Option<&'a Http>,
    expect: &'a Expect,
}

impl Call<'_> {
    /// Whether something of the call is judged before the kernel is asked.
    fn is_for_servers(&self) -> bool {
        let said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let request = self.request;
        self.evidence
            || self.introspects
            || self.present.is_some_and(PresentSaid::is_for_servers)
            || self.bytes
            || self.listener.is_some_and(|listener| listener != "main")
            || said(&request.task)
            || said(&request.confidence_jws)
            || said(&request.idempotency_key)
            || said(&request.approval_id)
            || request.mode.as_ref().is_some_and(|mode| !mode.is_empty() && mode != "ENFORCE")
            || (self.operation.is_none() && self.http.is_some_and(Http::is_for_servers))
    }

    /// Whether it is said as an HTTP request only.
    fn is_a_proxys(&self) -> bool {
        self.operation.is_none() && self.http.is_some()
    }

    /// The name of the task that it is on.
    fn on<'a>(&'a self, test: &Test) -> Option<&'a str> {
        let own = test.task.as_ref().map(|_| tasks::OWN);
        let said = self.task.map(|task| task.value.as_str());
        said.or(own).filter(|name| !tasks::is_none(name))
    }

    /// Holds that what is expected can come of it.
    fn check(&self, file: &str) -> Result<(), Diagnostic> {
        let is_call = self.act.is_none() && !self.introspects && !self.revokes;
        if !is_call && (self.issue.is_some() || self.present.is_some()) {
            let what = "`issue` and `present` go with a call";
            return Err(Diagnostic::error(&self.at.within(file), what, "Remove it."));
        }
        let fits = match (self.expect, (!is_call).then_some(())) {
            (Expect::Outcome(_), None) | (Expect::Code(_), Some(_)) => true,
            (Expect::Outcome(_), Some(_)) | (Expect::Code(_), None) => false,
            (Expect::Object(said), None) => said.outcome.is_some() && said.beyond.is_none(),
            (Expect::Object(said), Some(_)) => said.outcome.is_none() && said.code.is_some(),
        };
        if fits {
            return Ok(());
        }
        let (what, mend) = match (!is_call).then_some(()) {
            None => ("a call has an outcome", "Write PERMIT, STEP_UP, DENY, or `{outcome: …}`."),
            Some(_) => (
                "a step on tasks is done or refused",
                "Write OK, a reason code, or `{code: OUT_OF_SCOPE, beyond: ids}`.",
            ),
        };
        Err(Diagnostic::error(&self.at.within(file), what, mend))
    }

    fn judge(
        &self,
        plan: &Plan,
        caller: &Caller<'_>,
        placed: Option<&Placed>,
        presented: Option<&Issued>,
        (enforcer, directories): (&str, &Directories),
        now: Time,
    ) -> Result<(Decision, Option<String>), RouteError> {
        let method = match caller.chain.last() {
            _ if presented.is_some() => ProofMethod::TaskCredential,
            Some(Principal::Agent { .. }) => ProofMethod::JwtSvid,
            _ => ProofMethod::Jwt,
        };
        let bound = presented.map_or(caller.bound, |issued| issued.is_bound);
        let proof = Proof { method, bound, age: Some(caller.age), acr: caller.acr };
        let grant = presented.map(Issued::grant);
        let facts = Facts {
            enforcer,
            chain: &caller.chain,
            proof,
            confidence: 0,
            task: placed.map(Placed::view),
            subject_proof: None,
            history: placed.map(Placed::history),
            literal_key: Some(tasks::key()),
            directories: Some(directories),
            granted: grant.as_ref().map(std::slice::from_ref),
        };
        let texts = |list: &'_ Many<String>| list.0.clone();
        let mut obligations = texts(&self.request.supported_obligations);
        let mut server_task = ServerTask::None;
        let (mut text, mut read) = (String::new(), None);
        let operation: SmolStr = match (self.operation, self.http) {
            (Some(operation), _) => {
                let given = self.input_text.map(str::to_owned);
                text = given.or_else(|| self.input.map(ToString::to_string)).unwrap_or_default();
                operation.into()
            }
            (None, http) => {
                let routed = http.map_or_else(
                    || Err(RouteError::new(ReasonCode::NoRoute, "no call")),
                    |http| plan.routes().resolve(&http.request(&http.headers())),
                );
                let task = match &routed {
                    Ok(routed) => &routed.task,
                    Err(error) => &error.task,
                };
                if task.is_some() {
                    let message = "the request names a task that only a server knows";
                    return Err(RouteError::unread(ReasonCode::UnknownTask, message));
                }
                let routed = routed.map_err(|error| match standing(&facts, now) {
                    // What a server looks at before anything that `mode` could soften.
                    Err((reason, message)) if error.understood && may_soften(error.reason) => {
                        RouteError::unread(reason, message)
                    }
                    _ => error,
                })?;
                let listed = http.and_then(|h| h.extensions.get("authz.supported_obligations"));
                let listed = listed.map_or("", String::as_str).split(',').map(str::trim);
                obligations.extend(listed.filter(|o| !o.is_empty()).map(str::to_owned));
                server_task = routed.mcp.map(|mcp| mcp.server_task).unwrap_or_default();
                read = Some(routed.arguments);
                routed.operation
            }
        };
        let destinations: Vec<&str> =
            self.request.destinations.0.iter().map(String::as_str).collect();
        let labels: Vec<&str> = self.request.labels.0.iter().map(String::as_str).collect();
        let obligations: Vec<&str> = obligations.iter().map(String::as_str).collect();
        let request = Request {
            operation: &operation,
            arguments: read.as_ref().map_or_else(|| text.as_bytes().into(), Given::Read),
            resource: self.request.resource.as_deref().filter(|resource| !resource.is_empty()),
            destinations: &destinations,
            labels: &labels,
            supported_obligations: &obligations,
            server_task,
        };
        let keys = plan.objects_of(&request);
        let found = placed.and_then(|placed| placed.found(keys.as_ref(), now));
        let object = found.as_ref().map(Found::view);
        let history = facts.history.map(|view| HistoryView { object, ..view });
        let facts = Facts { history, ..facts };
        let decision = decide(plan, &facts, &request, now);
        let resource = self.issue.and_then(|_| plan.resource_of(&decision, &request));
        Ok((*decision, resource))
    }
}

impl Http {
    /// Whether it says who acts, or for which task: that is read before the kernel is asked.
    fn is_for_servers(&self) -> bool {
        let names = ["authorization", "dpop", "baggage"];
        self.credentials == Some(false)
            || self.principal.as_ref().is_some_and(|principal| !principal.is_empty())
            || self
                .headers
                .iter()
                .any(|(name, _)| names.contains(&name.as_str()) || name.starts_with("authz-"))
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    fn request<'a>(&'a self, headers: &'a [(&'a str, &'a str)]) -> HttpRequest<'a> {
        HttpRequest {
            method: self.method.as_deref().unwrap_or("GET"),
            host: self.host.as_deref().unwrap_or("crm.example"),
            path: self.path.as_deref().unwrap_or("/"),
            headers,
            body: match &self.body {
                _ if self.partial == Some(true) => Body::Partial,
                Some(body) => Body::Whole(body.as_bytes()),
                None => Body::Absent,
            },
        }
    }
}

impl Test {
    fn name(&self) -> &str {
        self.trace.as_ref().or(self.case.as_ref()).map_or("", |name| &name.value)
    }

    /// What is known of the bundle's directories in the test.
    fn directories(&self, plan: &Plan) -> Result<Directories, String> {
        let mut known = Directories::of(plan.model());
        for (name, said) in &self.directories {
            if !plan.model().directories.contains_key(name) {
                let declared = plan.model().directories.iter();
                let declared = declared.map(|(name, rule)| (name.as_str(), Some(&rule.at)));
                return Err(unknown("directory", name, declared).0);
            }
            known.set(
                name,
                match said {
                    DirectorySaid::Stale(StaleWord::Stale) => None,
                    DirectorySaid::Entries(entries) => {
                        let entries = Entries::read(entries.join("\n").as_bytes(), None);
                        let entries = Arc::new(entries.map_err(|defect| defect.to_string())?);
                        Some(Known { entries, fresh_until: None })
                    }
                },
            );
        }
        Ok(known)
    }

    fn who(&self) -> Option<&Chain> {
        self.r#as.as_ref().map(|who| &who.value)
    }

    /// Whether a step is on a task.
    fn is_on_task(&self, step: &At<Step>) -> bool {
        match &step.value.task {
            Some(name) => !tasks::is_none(&name.value),
            None => self.task.is_some(),
        }
    }

    fn calls(&self, at: Mark) -> impl Iterator<Item = Call<'_>> {
        let steps = self.steps.iter().flatten().map(|step| Call {
            at: step.at,
            // On a task the agent that has it acts, unless the step says another.
            who: step.value.r#as.as_ref().or(self.r#as.as_ref().filter(|_| !self.is_on_task(step))),
            task: step.value.task.as_ref(),
            after: step.value.after.as_ref(),
            act: step.value.act(),
            issue: step.value.issue.as_ref(),
            present: step.value.present.as_ref(),
            introspects: step.value.introspect.is_some(),
            revokes: step.value.revoke.is_some(),
            evidence: step.value.evidence.is_some(),
            listener: step.value.listener.as_deref(),
            operation: step.value.call.as_ref().map(|call| call.value.as_str()),
            input: step.value.input.as_ref(),
            input_text: step.value.input_text.as_deref(),
            bytes: step.value.input_base64.is_some(),
            request: &step.value.request,
            http: step.value.http.as_ref(),
            expect: &step.value.expect,
        });
        let own = self.expect.as_ref().filter(|_| self.steps.is_none()).map(|expect| Call {
            at,
            who: self.r#as.as_ref(),
            task: None,
            after: None,
            act: None,
            issue: None,
            present: None,
            introspects: false,
            revokes: false,
            evidence: self.evidence.is_some(),
            listener: self.listener.as_deref(),
            operation: self.call.as_ref().map(|call| call.value.as_str()),
            input: self.input.as_ref(),
            input_text: self.input_text.as_deref(),
            bytes: self.input_base64.is_some(),
            request: &self.request,
            http: self.http.as_ref(),
            expect,
        });
        steps.chain(own)
    }
}

impl Step {
    fn act(&self) -> Option<Act<'_>> {
        let start = self.start.as_ref().map(Act::Start);
        let delegate = self.delegate.as_ref().map(Act::Delegate);
        let report = self.report.as_ref().map(Act::Report);
        let extend = self.extend.as_ref().map(Act::Extend);
        start.or(delegate).or(extend).or(self.end.map(Act::End)).or(report)
    }
}

impl SubjectFixture {
    fn principal(&self, name: &str) -> Principal {
        let claim = |entry: &ClaimEntry| match entry {
            ClaimEntry::Bool(v) => Claim::Bool(*v),
            ClaimEntry::Long(v) => Claim::Long(*v),
            ClaimEntry::Text(v) => Claim::Text(v.clone()),
            ClaimEntry::Texts(v) => Claim::Texts(v.clone()),
        };
        let subject = Arc::new(Subject {
            issuer: self.issuer.clone(),
            sub: self.sub.clone().unwrap_or_else(|| name.to_owned()),
            claims: self.claims.iter().map(|(n, c)| (n.clone(), claim(c))).collect(),
            narrowed: Vec::new(),
        });
        match self.kind {
            SubjectWord::User => Principal::User(subject),
            SubjectWord::Service => Principal::Service(subject),
        }
    }
}

impl OutcomeWord {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "PERMIT",
            Self::StepUp => "STEP_UP",
            Self::Deny => "DENY",
        }
    }
}

impl Expect {
    /// Compares what came of a step on tasks.
    fn compare_act(&self, came: Result<(), Refused>) -> Came {
        let (code, beyond) = match self {
            Self::Code(code) => (code.as_str(), None),
            Self::Object(said) => {
                (said.code.as_deref().unwrap_or_default(), said.beyond.as_deref())
            }
            Self::Outcome(word) => (word.as_str(), None),
        };
        let (got, message) = match came {
            Ok(()) => (OK, String::new()),
            Err(refused) => (refused.reason.as_str(), refused.message),
        };
        let side = message.split(": ").next().unwrap_or_default();
        if got == code && beyond.is_none_or(|beyond| beyond == side) {
            return Came::Passed;
        }
        let field = |code: &str, beyond: Option<&str>| {
            let beyond = beyond.map(|beyond| format!("beyond: {beyond}"));
            [format!("code: {code}")].into_iter().chain(beyond).collect()
        };
        let expected = field(code, beyond);
        let actual = field(got, beyond.map(|_| side));
        Came::Otherwise { expected, actual, message }
    }

    /// The expected fields, and the same fields of the decision.
    fn compare(&self, decision: &Seen<'_>) -> (Vec<String>, Vec<String>) {
        let got = decision.outcome;
        let field = |name: &str, value: &str| format!("{name}: {value}");
        let said = match self {
            Self::Outcome(word) => {
                let mut actual = vec![field("outcome", got.as_str())];
                if *word != got {
                    actual.push(field("code", decision.reason.as_str()));
                    actual.push(set("policies", decision.policies));
                }
                return (vec![field("outcome", word.as_str())], actual);
            }
            // `parse` has refused it for a call.
            Self::Code(code) => {
                return (vec![field("code", code)], vec![field("outcome", got.as_str())]);
            }
            Self::Object(said) => said,
        };
        let wanted = said.outcome.map_or("", OutcomeWord::as_str);
        let mut expected = vec![field("outcome", wanted)];
        let mut actual = vec![field("outcome", got.as_str())];
        let row = decision.reason.row();
        // Over a server a tier is spelt as in the protocol.
        let tier =
            said.tier.as_deref().map(|t| t.strip_prefix("TIER_").unwrap_or(t).to_lowercase());
        for (name, wanted, got) in [
            ("code", &said.code, decision.reason.as_str()),
            ("public_code", &said.public_code, row.public_code.as_str()),
            ("next_action", &said.next_action, row.next_action.as_str()),
            ("tier", &tier, decision.tier),
            ("resource", &said.resource, decision.resource),
            ("destination_class", &said.destination_class, decision.destination_class),
            ("shown_reason", &said.shown_reason, decision.shown_reason),
        ] {
            if let Some(wanted) = wanted {
                expected.push(field(name, wanted));
                actual.push(field(name, got));
            }
        }
        if let Some(policy) = &said.policy {
            expected.push(field("policy", policy));
            actual.push(if decision.policies.contains(policy) {
                field("policy", policy)
            } else {
                set("policies", decision.policies)
            });
        }
        for (name, wanted, got) in [
            ("kinds", &said.kinds, decision.kinds),
            ("policies", &said.policies, decision.policies),
            ("obligations", &said.obligations, decision.obligations),
            ("controls", &said.controls, decision.controls),
        ] {
            if let Some(wanted) = wanted {
                expected.push(set(name, wanted));
                actual.push(set(name, got));
            }
        }
        (expected, actual)
    }
}

fn set<'a>(name: &str, values: impl IntoIterator<Item = &'a String>) -> String {
    let sorted: BTreeSet<&str> = values.into_iter().map(String::as_str).collect();
    format!("{name}: [{}]", sorted.into_iter().collect::<Vec<_>>().join(", "))
}

fn unknown_name<'a>(
    file: &str,
    kind: &str,
    name: &At<String>,
    declared: impl Iterator<Item = &'a String>,
) -> Diagnostic {
    let declared: Vec<(&str, Option<&Location>)> = declared.map(|n| (n.as_str(), None)).collect();
    let (what, mend) = unknown(kind, &name.value, declared);
    let mend = format!("{mend} Tests name their principals under `fixtures`.");
    Diagnostic::error(&name.at.within(file), what, mend.trim_start())
}
