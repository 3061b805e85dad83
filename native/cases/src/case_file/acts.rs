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
    /// What later steps call it; the one that a trace begins with is called `task`.
    pub(crate) name: Option<At<String>>,
    /// A template of the bundle.
    pub(crate) template: At<String>,
    /// On whose behalf, a name of `fixtures.subjects`; default: that of the test's `as`.
    pub(crate) subject: Option<At<String>>,
    /// The agent that gets it, a name of `fixtures.agents` or a SPIFFE id; default: that of the test's `as`.
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
    /// Who says the prompt and the parameters. Default: the subject where it starts the task itself, else the agent that
    /// starts the task.
    pub(crate) said_by: Option<SpeakerWord>,
    /// Less than the template gives; default: all of it.
    #[serde(default)]
    pub(crate) scope: Vec<ScopeForm>,
    /// How long it lives: `10m`; default: as long as it may.
    pub(crate) deadline: Option<At<String>>,
}

/// Who says a prompt.
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
    /// Who says them. Default: the agent that has the task, beside the subject's token.
    pub(crate) said_by: Option<SpeakerWord>,
}

/// A task that is delegated, below the task of the step.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DelegateSaid")]
pub(crate) struct DelegateForm {
    /// What later steps call it.
    pub(crate) name: Option<At<String>>,
    /// The agent that gets it, a name of `fixtures.agents` or a SPIFFE id.
    pub(crate) to: At<String>,
    /// A template of the bundle; default: the parent's.
    pub(crate) template: Option<At<String>>,
    /// Parameters of the template.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, ParamForm>,
    /// Less than the parent has; default: as much as it may.
    #[serde(default)]
    pub(crate) scope: Vec<ScopeForm>,
    /// How long it lives: `10m`; default: as long as it may.
    pub(crate) deadline: Option<At<String>>,
}

/// The end of the step's task, and of all below it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EndSaid")]
pub(crate) struct EndForm {
    /// How it ends; default `completed`.
    #[serde(default)]
    pub(crate) status: EndWord,
}

/// How a task ends.
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

/// One thing that a task shall be able to do.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ScopeAsked")]
pub(crate) struct ScopeForm {
    /// Operation id.
    pub(crate) operation: String,
    /// On which resources.
    #[serde(default)]
    pub(crate) resources: SelectorForm,
    /// Limits on arguments, by JSON pointer.
    #[serde(default)]
    pub(crate) arguments: BTreeMap<String, LimitForm>,
    /// How often.
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
    /// What later steps call it.
    pub(crate) name: At<String>,
    /// The key that it is bound to, by any name; `none`: whoever bears it may present it. Default: a key of the agent's.
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
    /// Queue that the person answers for; default: the only one that the person may answer.
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
    /// How the person proves to be there; default `passkey`.
    #[serde(default)]
    pub(crate) by: AnswerProof,
}

/// How a person who answers proves to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerProof {
    /// A passkey.
    #[default]
    Passkey,
    /// A login after the call.
    Login,
}

/// What came of a permitted call, told by whoever asked for it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReportSaid")]
pub(crate) struct ReportForm {
    /// The step of the call, from 1; default: the last call before.
    pub(crate) of: Option<usize>,
    /// What came of it; default `ok`.
    #[serde(default)]
    pub(crate) result: ResultWord,
    /// Labels that its results carry; an access log names none.
    #[serde(default)]
    pub(crate) labels: BTreeSet<String>,
    /// What was spent of budgets that sum up, by their names; an access log names none.
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

/// What came of a call.
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
