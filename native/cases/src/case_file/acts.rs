//! Steps of a trace that are not calls, in the format of case files.

use std::collections::{BTreeMap, BTreeSet};

use authz_bundle::source::At;
use schemars::JsonSchema;
use serde::Deserialize;

/// A task that is started.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "StartSaid")]
pub(crate) struct StartForm {
    /// Name of the task in later steps; the first task of a trace has the name `task`.
    pub(crate) name: Option<At<String>>,
    /// A template of the bundle.
    pub(crate) template: At<String>,
    /// Subject, a name of `fixtures.subjects`; default: the subject of the test's `as`.
    pub(crate) subject: Option<At<String>>,
    /// Assignee, a name of `fixtures.agents` or a SPIFFE id; default: the agent of the test's `as`.
    pub(crate) agent: Option<At<String>>,
    /// The agent that starts it; default: the subject starts it, and without one the agent that gets it.
    pub(crate) by: Option<At<String>>,
    /// The agent that starts it only says who the subject is.
    #[serde(default)]
    pub(crate) asserted: bool,
    /// Parameters of the template.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, ParamForm>,
    /// The user's words.
    #[serde(default)]
    pub(crate) prompt: String,
    /// Speaker of the prompt and the parameters. Default: the subject if it starts the task itself, otherwise the agent that
    /// starts the task.
    pub(crate) said_by: Option<SpeakerWord>,
    /// A part of the template's scope; default: the whole scope.
    #[serde(default)]
    pub(crate) scope: Vec<ScopeForm>,
    /// Lifetime of the task: `10m`; default: the longest that is allowed.
    pub(crate) deadline: Option<At<String>>,
}

/// Speaker of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SpeakerWord {
    /// The subject, alone: it shows a token that no agent holds.
    Subject,
    /// A front end that relays prompts, beside the subject's token.
    FrontEnd,
    /// A caller that shows the subject's bearer token, as an agent could: its words are claims.
    Bearer,
}

/// A further turn in the step's task.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExtendSaid")]
pub(crate) struct ExtendForm {
    /// The user's words.
    pub(crate) prompt: String,
    /// Speaker of the prompt. Default: the assignee, beside the subject's token.
    pub(crate) said_by: Option<SpeakerWord>,
}

/// A task that is delegated, below the task of the step.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DelegateSaid")]
pub(crate) struct DelegateForm {
    /// Name in later steps.
    pub(crate) name: Option<At<String>>,
    /// The agent that gets it, a name of `fixtures.agents` or a SPIFFE id.
    pub(crate) to: At<String>,
    /// A template of the bundle; default: the parent's.
    pub(crate) template: Option<At<String>>,
    /// Parameters of the template.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, ParamForm>,
    /// A part of the parent's scope; default: as much as is allowed.
    #[serde(default)]
    pub(crate) scope: Vec<ScopeForm>,
    /// Lifetime of the task: `10m`; default: the longest that is allowed.
    pub(crate) deadline: Option<At<String>>,
}

/// The end of the step's task, and of all below it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EndSaid")]
pub(crate) struct EndForm {
    /// Kind of the end; default `completed`.
    #[serde(default)]
    pub(crate) status: EndWord,
}

/// Kind of a task's end.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EndWord {
    /// Its work is done.
    #[default]
    Completed,
    /// It is given up.
    Aborted,
    /// It is taken away.
    Revoked,
}

/// A parameter: true or false, a whole number, or a text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ParamSaid")]
pub(crate) enum ParamForm {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Long(i64),
    /// A text.
    Text(String),
}

/// An entry of a task's scope.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ScopeAsked")]
pub(crate) struct ScopeForm {
    /// Operation id.
    pub(crate) operation: String,
    /// Resources.
    #[serde(default)]
    pub(crate) resources: SelectorForm,
    /// Limits on arguments, by JSON pointer.
    #[serde(default)]
    pub(crate) arguments: BTreeMap<String, LimitForm>,
    /// Number of uses.
    pub(crate) uses: Option<u32>,
}

/// Resources for which all of this holds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SelectorAsked")]
pub(crate) struct SelectorForm {
    /// Any of these collections.
    pub(crate) collections: Option<BTreeSet<String>>,
    /// Any of these ids.
    pub(crate) ids: Option<BTreeSet<String>>,
    /// Ids that begin with these whole segments.
    pub(crate) path_prefix: Option<String>,
    /// No labels but these.
    pub(crate) label_ceiling: Option<BTreeSet<String>>,
}

/// A limit on one argument.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "LimitAsked")]
pub(crate) enum LimitForm {
    /// One of these.
    OneOf(BTreeSet<String>),
    /// A whole number from the first to the second.
    Range([i64; 2]),
    /// A text that begins so.
    Prefix(String),
}

/// A task credential that is issued of the step's permit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "IssueSaid")]
pub(crate) struct IssueForm {
    /// Name in later steps.
    pub(crate) name: At<String>,
    /// The key that it is bound to, by any name; `none`: any bearer may present it. Default: a key of the agent.
    pub(crate) key: Option<String>,
}

/// A task credential that the step presents.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PresentSaid")]
pub(crate) struct PresentForm {
    /// Its name.
    pub(crate) credential: At<String>,
    /// For runs over a server: another key that proves.
    pub(crate) key: Option<String>,
    /// For runs over a server: it is presented as a bearer token.
    pub(crate) bearer: Option<bool>,
    /// For runs over a server: the proof of the step before is brought again.
    pub(crate) replay: Option<bool>,
    /// For runs over a server: the proof is of another method.
    pub(crate) method: Option<String>,
    /// For runs over a server: the proof is of another URI.
    pub(crate) uri: Option<String>,
}

/// A person's answer to the approval of an earlier call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AnswerSaid")]
pub(crate) struct AnswerForm {
    /// The person who answers.
    pub(crate) r#as: AnswererForm,
    /// Queue for which the person answers; default: the only queue that the person may answer.
    #[serde(default)]
    pub(crate) kind: String,
    /// The step of the call, from 1; default: the last call before.
    pub(crate) of: Option<usize>,
    /// Of `reject`: a name of the bundle's `reject_reasons`.
    #[serde(default)]
    pub(crate) reason: String,
    /// Of `approve`: the person endorses the values of the call, too. Default: false.
    #[serde(default)]
    pub(crate) endorse: bool,
}

/// A person who answers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Answerer")]
pub(crate) struct AnswererForm {
    /// A name of `fixtures.subjects`.
    pub(crate) subject: At<String>,
    /// Proof that the person is present; default `passkey`.
    #[serde(default)]
    pub(crate) by: AnswerProof,
}

/// Proof that an answering person is present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerProof {
    /// A passkey.
    #[default]
    Passkey,
    /// A login after the call.
    Login,
}

/// Report of a permitted call, by its enforcer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReportSaid")]
pub(crate) struct ReportForm {
    /// The step of the call, from 1; default: the last call before.
    pub(crate) of: Option<usize>,
    /// Result of the call; default `ok`.
    #[serde(default)]
    pub(crate) result: ResultWord,
    /// Labels that its results carry; an access log names none.
    #[serde(default)]
    pub(crate) labels: BTreeSet<String>,
    /// Amounts for budgets with `sum`, by the names of the budgets; an access log has no amounts.
    #[serde(default)]
    pub(crate) actuals: BTreeMap<String, i64>,
    /// Values of its result, by their pointers: a list has one value for each array element, null where an element has none;
    /// an access log names none.
    #[serde(default)]
    pub(crate) values: BTreeMap<String, ValuesForm>,
}

/// Values under one pointer of a result.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ReportedValues")]
pub(crate) enum ValuesForm {
    /// One value.
    One(ParamForm),
    /// A value for each array element.
    Items(Vec<Option<ParamForm>>),
}

/// Result of a call.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ResultWord {
    /// It was performed.
    #[default]
    Ok,
    /// It failed.
    Failed,
    /// It was never tried.
    Aborted,
}
