//! The format of case files.
//!
//! Texts of types and fields are printed as part of the JSON Schema of case files. `rename` keeps the names that types have there.

mod acts;
mod expectation;
mod matrix;

use std::collections::BTreeMap;

use authz_bundle::source::{At, Many, pretty};
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use acts::{
    AnswerForm, AnswerProof, DelegateForm, EndForm, EndWord, ExtendForm, IssueForm, LimitForm,
    ParamForm, PresentForm, ReportForm, ResultWord, ScopeForm, SelectorForm, SpeakerWord,
    StartForm, ValuesForm,
};
pub(crate) use expectation::{Expect, ExpectObject, OK, OutcomeWord};
pub(crate) use matrix::{MatrixCall, MatrixCaller, MatrixCell, MatrixContext, MatrixForm};

/// A file of cases.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Authz case file")]
pub struct CaseFile {
    /// The bundle to load, for runs over a server; a bundle's own tests run under that bundle.
    pub(crate) bundle: Option<String>,
    /// Principals, by the names that the tests give them.
    #[serde(default)]
    pub(crate) fixtures: Fixtures,
    /// The tests.
    pub(crate) tests: Vec<At<Test>>,
}

/// Principals by name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fixtures {
    /// Subjects, by name; the name is the default of `sub`.
    #[serde(default)]
    pub(crate) subjects: BTreeMap<String, SubjectFixture>,
    /// SPIFFE ids, by name.
    #[serde(default)]
    pub(crate) agents: BTreeMap<String, String>,
}

/// A verified subject.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SubjectFixture {
    /// Alias of the issuer.
    pub(crate) issuer: String,
    /// What the issuer's tokens speak of; default `user`.
    #[serde(default)]
    pub(crate) kind: SubjectWord,
    /// `sub` of the token; default: the name of the fixture.
    pub(crate) sub: Option<String>,
    /// Kept claims.
    #[serde(default)]
    pub(crate) claims: BTreeMap<String, ClaimEntry>,
    /// `acr` of the token.
    #[serde(default)]
    pub(crate) acr: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SubjectWord {
    /// A person.
    #[default]
    User,
    /// A service.
    Service,
}

/// A claim: true or false, a whole number, a text, or a list of texts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ClaimEntry {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Long(i64),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
}

/// A single case, a trace of steps, or a matrix of cases.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Test {
    /// Name of a test with `steps`.
    pub(crate) trace: Option<At<String>>,
    /// Name of a test with one call, or of a matrix.
    pub(crate) case: Option<At<String>>,
    /// Calls of several principals in several contexts. Each cell of its table becomes a test of its own.
    pub(crate) matrix: Option<At<MatrixForm>>,
    /// Caller.
    pub(crate) r#as: Option<At<CallerForm>>,
    /// Name of the enforcer that asks; default: none, the caller asks about itself.
    #[serde(default)]
    pub(crate) enforcer: String,
    /// Who is in recipient lists, by name: a list of entries, or `stale`. Default: as the bundle's files say, and fresh. A
    /// server's recipient lists are what they are: there such a test does not run.
    #[serde(default)]
    pub(crate) recipient_lists: BTreeMap<String, RecipientListForm>,
    /// Systems at which break-glass is in force from the beginning of the test, for an hour. Two people put it in force who are
    /// the subject of no call. Default: none. A server's break-glass is that of its people: there such a test does not run.
    #[serde(default)]
    pub(crate) breakglass: Many<String>,
    /// The task that a trace begins with; its steps are on it, each by the agent that has their task.
    pub(crate) task: Option<At<StartForm>>,
    /// The steps of a trace, in order.
    pub(crate) steps: Option<Vec<At<CaseStep>>>,
    /// For runs over a server: credentials instead of good ones. Such a call is not judged here.
    pub(crate) evidence: Option<serde_json::Value>,
    /// For runs over a server: which listener is asked; `main` by default. Another is not asked here.
    pub(crate) listener: Option<String>,
    /// The operation.
    pub(crate) call: Option<At<String>>,
    /// Its arguments.
    pub(crate) input: Option<serde_json::Value>,
    /// Its arguments as raw text, for JSON that YAML cannot express.
    pub(crate) input_text: Option<String>,
    /// Its arguments as raw bytes in base64; for runs over a server only.
    pub(crate) input_base64: Option<String>,
    /// Further fields of the request.
    #[serde(default)]
    pub(crate) request: RequestFields,
    /// The HTTP request as a proxy sends it; judged here if `call` is missing.
    pub(crate) http: Option<HttpForm>,
    /// Expected answer.
    pub(crate) expect: Option<Expect>,
}

/// Who is in a recipient list.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "RecipientListSaid")]
pub(crate) enum RecipientListForm {
    /// These are.
    Entries(Vec<String>),
    /// Nobody knows.
    Stale(StaleWord),
}

/// A recipient list is too old.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StaleWord {
    /// It is.
    Stale,
}

/// Further fields of a request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestFields {
    /// The resource, where the operation's rule names none.
    pub(crate) resource: Option<String>,
    /// The destinations, where the operation's rule names no argument.
    #[serde(default)]
    pub(crate) destinations: Many<String>,
    /// Obligations that the enforcer can carry out.
    #[serde(default)]
    pub(crate) supported_obligations: Many<String>,
    /// For runs over a server.
    pub(crate) task: Option<String>,
    /// Labels that the enforcer says the call carries.
    #[serde(default)]
    pub(crate) labels: Many<String>,
    /// Context of the session that a front end names.
    #[serde(default)]
    pub(crate) session_context: String,
    /// For runs over a server.
    pub(crate) confidence_jws: Option<String>,
    /// For runs over a server.
    pub(crate) idempotency_key: Option<String>,
    /// For runs over a server.
    pub(crate) approval_id: Option<String>,
    /// For runs over a server.
    pub(crate) mode: Option<String>,
}

/// An HTTP request as a proxy sends it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Http")]
pub(crate) struct HttpForm {
    /// The method; default `GET`.
    pub(crate) method: Option<String>,
    /// The host; default `crm.example`.
    pub(crate) host: Option<String>,
    /// The target with its query, not decoded; default `/`.
    pub(crate) path: Option<String>,
    /// Headers, each a name in lower case and a value.
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    /// The body; default: none.
    pub(crate) body: Option<String>,
    /// Whether the body was cut off.
    #[serde(default)]
    pub(crate) partial: Option<bool>,
    /// For runs over a server.
    pub(crate) credentials: Option<bool>,
    /// For runs over a server.
    pub(crate) principal: Option<String>,
    /// What the proxy is configured to say: `authz.supported_obligations`, separated by commas.
    #[serde(default)]
    pub(crate) extensions: BTreeMap<String, String>,
}

/// Who acts: the agent for the subject, or one of them alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Chain")]
pub(crate) struct CallerForm {
    /// A name of `fixtures.agents`, or a SPIFFE id.
    pub(crate) agent: Option<At<String>>,
    /// A name of `fixtures.subjects`.
    pub(crate) subject: Option<At<String>>,
    /// How old the caller's credential is: `30s`, `15m`; default: just issued.
    pub(crate) age: Option<At<String>>,
    /// The caller proves to hold the key that its credential is bound to.
    #[serde(default)]
    pub(crate) bound: bool,
    /// Confidence that a guard is taken to have stated for the call, 0 to 100; default: 0. A server takes nobody's word for that:
    /// there such a call is not judged.
    #[serde(default)]
    pub(crate) confidence: u8,
    /// Step-up kinds that people are taken to have met for the call: `confirm`, `approve`, `two_person`, `approve:ROLE`. A
    /// server takes nobody's word for that: there such a call is not judged.
    #[serde(default)]
    pub(crate) satisfied: Many<At<String>>,
}

/// One step of a trace: a call, or something done to tasks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Step")]
pub(crate) struct CaseStep {
    /// Caller. Default: the agent that has the step's task; without a task, the caller of the test.
    pub(crate) r#as: Option<At<CallerForm>>,
    /// The task that the step is on, by its name; `none`: no task. Default: the one that the trace begins with.
    pub(crate) task: Option<At<String>>,
    /// Time since the step before: `10m`. Over a server, whose clock cannot be moved, the trace ends here.
    pub(crate) after: Option<At<String>>,
    /// Starts a task.
    pub(crate) start: Option<StartForm>,
    /// Delegates a task, below the step's.
    pub(crate) delegate: Option<DelegateForm>,
    /// Adds a further turn of the user to the step's task.
    pub(crate) extend: Option<ExtendForm>,
    /// Ends the step's task.
    pub(crate) end: Option<EndForm>,
    /// A person approves an earlier call that stepped up. Over a server the trace ends here.
    pub(crate) approve: Option<AnswerForm>,
    /// A person rejects an earlier call that stepped up. Over a server the trace ends here.
    pub(crate) reject: Option<AnswerForm>,
    /// Reports the result of an earlier call, whose system has a reporter.
    pub(crate) report: Option<ReportForm>,
    /// A task credential is asked for with the call, and issued of its permit.
    pub(crate) issue: Option<IssueForm>,
    /// The task credential that the call presents, in the place of the caller's other credentials.
    pub(crate) present: Option<PresentForm>,
    /// For runs over a server: the task credential, by its name, that is introspected; `OK` is expected where it is
    /// active, `REVOKED` where it is not.
    pub(crate) introspect: Option<String>,
    /// For runs over a server: principals or tasks to revoke, such as `{agent: orch}`. Offline the trace ends here.
    pub(crate) revoke: Option<BTreeMap<String, String>>,
    /// For runs over a server: credentials instead of good ones. Such a call is not judged here.
    pub(crate) evidence: Option<serde_json::Value>,
    /// For runs over a server: which listener is asked; `main` by default. Another is not asked here.
    pub(crate) listener: Option<String>,
    /// The operation.
    pub(crate) call: Option<At<String>>,
    /// Its arguments.
    pub(crate) input: Option<serde_json::Value>,
    /// Its arguments as raw text, for JSON that YAML cannot express.
    pub(crate) input_text: Option<String>,
    /// Its arguments as raw bytes in base64; for runs over a server only.
    pub(crate) input_base64: Option<String>,
    /// Further fields of the request.
    #[serde(default)]
    pub(crate) request: RequestFields,
    /// The HTTP request as a proxy sends it; judged here if `call` is missing.
    pub(crate) http: Option<HttpForm>,
    /// Expected answer.
    pub(crate) expect: Expect,
}

/// JSON Schema (draft 2020-12) of case files.
#[must_use]
pub fn case_schema() -> String {
    pretty(&schemars::schema_for!(CaseFile))
}

impl CaseFile {
    /// The bundle that the file asks for, where it does.
    #[must_use]
    pub fn bundle(&self) -> Option<&str> {
        self.bundle.as_deref()
    }
}

impl RequestFields {
    /// Whether no field is given.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            resource,
            destinations,
            supported_obligations,
            task,
            labels,
            session_context,
            confidence_jws,
            idempotency_key,
            approval_id,
            mode,
        } = self;
        let texts = [resource, task, confidence_jws, idempotency_key, approval_id, mode];
        texts.into_iter().all(Option::is_none)
            && [destinations, supported_obligations, labels]
                .into_iter()
                .all(|list| list.0.is_empty())
            && session_context.is_empty()
    }

    /// The fields, replaced by those that others give.
    pub(crate) fn replaced_by(self, others: Self) -> Self {
        let list =
            |own: Many<String>, other: Many<String>| if other.0.is_empty() { own } else { other };
        Self {
            resource: others.resource.or(self.resource),
            destinations: list(self.destinations, others.destinations),
            supported_obligations: list(self.supported_obligations, others.supported_obligations),
            task: others.task.or(self.task),
            labels: list(self.labels, others.labels),
            session_context: match others.session_context.is_empty() {
                true => self.session_context,
                false => others.session_context,
            },
            confidence_jws: others.confidence_jws.or(self.confidence_jws),
            idempotency_key: others.idempotency_key.or(self.idempotency_key),
            approval_id: others.approval_id.or(self.approval_id),
            mode: others.mode.or(self.mode),
        }
    }
}

impl CaseStep {
    /// A step that does nothing yet.
    pub(crate) fn of(expect: Expect) -> Self {
        Self {
            r#as: None,
            task: None,
            after: None,
            start: None,
            delegate: None,
            extend: None,
            end: None,
            approve: None,
            reject: None,
            report: None,
            issue: None,
            present: None,
            introspect: None,
            revoke: None,
            evidence: None,
            listener: None,
            call: None,
            input: None,
            input_text: None,
            input_base64: None,
            request: RequestFields::default(),
            http: None,
            expect,
        }
    }
}

impl PresentForm {
    /// Whether only a server, which verifies proofs, can answer the step.
    pub(crate) fn is_for_servers(&self) -> bool {
        self.key.is_some()
            || self.method.is_some()
            || self.uri.is_some()
            || self.bearer == Some(true)
            || self.replay == Some(true)
    }
}

impl HttpForm {
    /// Whether the request brings evidence or names a task, which only a server reads.
    pub(crate) fn is_for_servers(&self) -> bool {
        let names = ["authorization", "dpop", "baggage"];
        self.credentials == Some(false)
            || self.principal.as_ref().is_some_and(|principal| !principal.is_empty())
            || self
                .headers
                .iter()
                .any(|(name, _)| names.contains(&name.as_str()) || name.starts_with("authz-"))
    }
}

impl Test {
    pub(crate) fn name(&self) -> &str {
        self.trace.as_ref().or(self.case.as_ref()).map_or("", |name| &name.value)
    }

    /// The caller of the test's steps that name no other.
    pub(crate) fn caller(&self) -> Option<&CallerForm> {
        self.r#as.as_ref().map(|form| &form.value)
    }
}
