//! Steps that start, delegate and end tasks. Tasks live in memory, and their ids are the names that the test gives them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use authz_bundle::source::{At, Mark, duration};
use schemars::JsonSchema;
use serde::Deserialize;

use super::reports::{Memory, ReportSaid};
use super::{Caller, CaseFile, Chain, Fixtures, unknown_name};
use crate::decide::decide;
use crate::decision::{
    Decision, Facts, Outcome, Principal, Proof, ProofMethod, ReasonCode, Request, Time,
};
use crate::diagnostic::{Diagnostic, clip, unknown};
use crate::history::{
    Carry, HistoryChanges, HistoryView, Holder, LabelOrigin, Object, ObjectKeys, ObjectView,
    Remembering, Reported, RunChange, SessionContext, SessionHistory, effects, pair_keys,
};
use crate::mcp::ServerTask;
use crate::model::Isolation;
use crate::plan::Plan;
use crate::schema::{GIVE, START};
use crate::task::{
    AgentName, Alone, BARRED_MS, Bar, Child, Limit, Param, Part, RecordKey, Refused, Root,
    ScopeEntry, Selector, Session, Speaker, SubjectProof, Task, TaskKind, TaskStatus, TaskSubject,
    TaskView, alone_pair, alones_of, barred_alone, carrier_of, delegate, denied_pair, extend,
    implicit, is_alone, read_names, renewed, start, subject_refused, taskless,
};

/// The name of the task that a trace begins with.
pub(super) const OWN: &str = "task";
/// What a step says that is on no task.
const NONE: &str = "none";
/// Literals of a test are nobody's secret.
const KEY: [u8; 32] = [0; 32];

/// A task that is started.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartSaid {
    /// What later steps call it; the one that a trace begins with is called `task`.
    name: Option<At<String>>,
    /// A template of the bundle.
    template: At<String>,
    /// On whose behalf, a name of `fixtures.subjects`; default: that of the test's `as`.
    subject: Option<At<String>>,
    /// The agent that gets it, a name of `fixtures.agents` or a SPIFFE id; default: that of the test's `as`.
    agent: Option<At<String>>,
    /// The agent that starts it; default: the subject starts it, and without one the agent that gets it.
    by: Option<At<String>>,
    /// The agent that starts it only says who the subject is.
    #[serde(default)]
    asserted: bool,
    /// Parameters of the template.
    #[serde(default)]
    params: BTreeMap<String, ParamSaid>,
    /// The user's words.
    #[serde(default)]
    prompt: String,
    /// Who says the prompt and the parameters. Default: the subject where it starts the task itself, else the agent that
    /// starts the task.
    said_by: Option<SpeakerWord>,
    /// Less than the template gives; default: all of it.
    #[serde(default)]
    scope: Vec<ScopeAsked>,
    /// How long it lives: `10m`; default: as long as it may.
    deadline: Option<At<String>>,
}

/// Who says a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SpeakerWord {
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
pub(super) struct ExtendSaid {
    /// The user's words.
    prompt: String,
    /// Who says them. Default: the agent that has the task, beside the subject's token.
    said_by: Option<SpeakerWord>,
}

/// A task that is delegated, below the task of the step.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DelegateSaid {
    /// What later steps call it.
    name: Option<At<String>>,
    /// The agent that gets it, a name of `fixtures.agents` or a SPIFFE id.
    to: At<String>,
    /// A template of the bundle; default: the parent's.
    template: Option<At<String>>,
    /// Parameters of the template.
    #[serde(default)]
    params: BTreeMap<String, ParamSaid>,
    /// Less than the parent has; default: as much as it may.
    #[serde(default)]
    scope: Vec<ScopeAsked>,
    /// How long it lives: `10m`; default: as long as it may.
    deadline: Option<At<String>>,
}

/// The end of the step's task, and of all below it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EndSaid {
    /// How it ends; default `completed`.
    #[serde(default)]
    status: EndWord,
}

/// How a task ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum EndWord {
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
enum ParamSaid {
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
struct ScopeAsked {
    /// Operation id.
    operation: String,
    /// On which resources.
    #[serde(default)]
    resources: SelectorAsked,
    /// Limits on arguments, by JSON pointer.
    #[serde(default)]
    arguments: BTreeMap<String, LimitAsked>,
    /// How often.
    uses: Option<u32>,
}

/// Resources for which all of this holds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SelectorAsked {
    /// Any of these collections.
    collections: Option<BTreeSet<String>>,
    /// Any of these ids.
    ids: Option<BTreeSet<String>>,
    /// Ids that begin with these whole segments.
    path_prefix: Option<String>,
    /// No labels but these.
    label_ceiling: Option<BTreeSet<String>>,
}

/// A limit on one argument.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum LimitAsked {
    /// One of these.
    OneOf(BTreeSet<String>),
    /// A whole number from the first to the second.
    Range([i64; 2]),
    /// A text that begins so.
    Prefix(String),
}

/// What a step does that is no call.
#[derive(Clone, Copy)]
pub(super) enum Act<'a> {
    Start(&'a StartSaid),
    Delegate(&'a DelegateSaid),
    Extend(&'a ExtendSaid),
    End(EndSaid),
    Report(&'a ReportSaid),
}

impl StartSaid {
    /// What later steps call it.
    pub(super) fn name(&self) -> Option<&At<String>> {
        self.name.as_ref()
    }
}

impl<'a> Act<'a> {
    /// What later steps call the task that it makes.
    pub(super) fn name(self) -> Option<&'a At<String>> {
        match self {
            Self::Start(said) => said.name.as_ref(),
            Self::Delegate(said) => said.name.as_ref(),
            Self::Extend(_) | Self::End(_) | Self::Report(_) => None,
        }
    }
}

/// Whether a step says that it is on no task.
pub(super) fn is_none(name: &str) -> bool {
    name == NONE
}

/// What is wrong with the name of a task, given those that stand already.
pub(super) fn refuse_name(
    file: &str,
    name: &At<String>,
    known: &BTreeSet<&str>,
) -> Result<(), Diagnostic> {
    let at = name.at.within(file);
    let text = name.value.as_str();
    if text.is_empty() || text == NONE || text.len() > 256 {
        let what = format!("`{}` is no name of a task", clip(text));
        return Err(Diagnostic::error(&at, what, "Use another name."));
    }
    if known.contains(text) {
        let what = format!("the task `{}` stands already", clip(text));
        return Err(Diagnostic::error(&at, what, "Use another name."));
    }
    Ok(())
}

/// What is wrong with a step's task, given those that stand by then.
pub(super) fn refuse_task(
    file: &str,
    name: &At<String>,
    known: &BTreeSet<&str>,
) -> Result<(), Diagnostic> {
    if known.contains(name.value.as_str()) || is_none(&name.value) {
        return Ok(());
    }
    let declared = known.iter().map(|name| (*name, None));
    let (what, mend) = unknown("task", &name.value, declared);
    Err(Diagnostic::error(&name.at.within(file), what, mend))
}

impl CaseFile {
    /// Holds that what a step names is there.
    pub(super) fn check_act(
        &self,
        file: &str,
        act: &Act<'_>,
        who: Option<&Chain>,
        at: Mark,
    ) -> Result<(), Diagnostic> {
        match act {
            Act::Start(said) => self.starting(file, said, who, at).map(drop),
            Act::Delegate(said) => {
                self.agent(file, &said.to)?;
                span(file, said.deadline.as_ref()).map(drop)
            }
            Act::Extend(_) | Act::End(_) | Act::Report(_) => Ok(()),
        }
    }

    fn agent(&self, file: &str, name: &At<String>) -> Result<AgentName, Diagnostic> {
        let id = match self.fixtures.agents.get(&name.value) {
            Some(id) => id,
            None if name.value.starts_with("spiffe://") => &name.value,
            None => return Err(unknown_name(file, "agent", name, self.fixtures.agents.keys())),
        };
        AgentName::parse(id).map_err(|why| {
            let what = format!("`{}` is no SPIFFE id: {why}", clip(id));
            let mend = "Write `spiffe://trust.domain/path`.";
            Diagnostic::error(&name.at.within(file), what, mend)
        })
    }

    /// Who starts a task for whom.
    fn starting(
        &self,
        file: &str,
        said: &StartSaid,
        who: Option<&Chain>,
        at: Mark,
    ) -> Result<Starting, Diagnostic> {
        let agent = said.agent.as_ref().or(who.and_then(|who| who.agent.as_ref()));
        let Some(agent) = agent else {
            let mend = "Say `agent`, the one that gets it.";
            return Err(Diagnostic::error(&at.within(file), "nobody gets the task", mend));
        };
        let assignee = self.agent(file, agent)?;
        let subject = said.subject.as_ref().or(who.and_then(|who| who.subject.as_ref()));
        let mut subject = subject.map(|name| subject_of(&self.fixtures, file, name)).transpose()?;
        if let Some(subject) = subject.as_mut().filter(|_| said.asserted) {
            // Whoever only says who the subject is proves nothing about it.
            subject.claims.clear();
            subject.acr.clear();
        }
        let by = match &said.by {
            Some(name) => Some(self.agent(file, name)?),
            None => subject.is_none().then(|| assignee.clone()),
        };
        if said.asserted && (said.by.is_none() || subject.is_none()) {
            let mend = "Say `by`, the agent that says so, and `subject`.";
            return Err(Diagnostic::error(&at.within(file), "nobody asserts a subject", mend));
        }
        Ok(Starting { assignee, subject, by, span: span(file, said.deadline.as_ref())? })
    }
}

fn subject_of(
    fixtures: &Fixtures,
    file: &str,
    name: &At<String>,
) -> Result<TaskSubject, Diagnostic> {
    let Some(fixture) = fixtures.subjects.get(&name.value) else {
        return Err(unknown_name(file, "subject", name, fixtures.subjects.keys()));
    };
    // A fixture of subjects is never an agent.
    Ok(TaskSubject::of(&fixture.principal(&name.value), &fixture.acr).unwrap_or_default())
}

fn span(file: &str, text: Option<&At<String>>) -> Result<Option<i64>, Diagnostic> {
    let Some(text) = text else { return Ok(None) };
    match duration(&text.value).and_then(|span| i64::try_from(span.as_millis()).ok()) {
        Some(span) => Ok(Some(span)),
        None => {
            let what = format!("`{}` is no duration", clip(&text.value));
            Err(Diagnostic::error(&text.at.within(file), what, "Write 30s or 15m."))
        }
    }
}

/// How far a step moves the clock, in milliseconds.
pub(super) fn later(file: &str, text: Option<&At<String>>) -> Result<i64, Diagnostic> {
    Ok(span(file, text)?.unwrap_or(0))
}

struct Starting {
    assignee: AgentName,
    subject: Option<TaskSubject>,
    by: Option<AgentName>,
    span: Option<i64>,
}

/// The tasks of one test.
#[derive(Default)]
pub(super) struct Tasks {
    known: BTreeMap<String, Task>,
    /// What each session did, by its id.
    histories: BTreeMap<String, SessionHistory>,
    /// What each agent and each subject did.
    parties: HashMap<RecordKey, SessionHistory>,
    /// What bars agents from tasks of their own for a subject, by the pair.
    bars: HashMap<RecordKey, Bar>,
    /// What agents wrote.
    objects: HashMap<RecordKey, Object>,
    /// What is done without a task, by its id, while it is remembered. What they did stands with the other histories.
    taskless: HashMap<String, Session>,
    /// Until when sessions of agents alone keep what was carried over to them, by their ids.
    carried: HashMap<String, Time>,
    /// Agents that have acted for a subject, by SPIFFE id.
    acted: BTreeSet<String>,
    /// Tasks without a name of their own.
    unnamed: usize,
}

/// A task of a test with those above it.
pub(super) struct Placed {
    task: Task,
    ancestors: Vec<Arc<Task>>,
    history: SessionHistory,
    agent: SessionHistory,
    subject: SessionHistory,
    pair: SessionHistory,
    /// Labels of sessions that its agent shares with others.
    shared: BTreeMap<String, LabelOrigin>,
    /// Where the labels of its calls are remembered.
    remembering: Remembering,
    /// What agents wrote.
    objects: HashMap<RecordKey, Object>,
    /// The context of the session that the call names.
    context: Option<SessionContext>,
}

/// What was written into what a call acts on.
pub(super) struct Found {
    object: Option<Object>,
    older: Vec<Arc<Object>>,
    collection: Object,
}

impl Found {
    /// As the kernel reads it.
    pub(super) fn view(&self) -> ObjectView<'_> {
        let object = self.object.as_ref();
        ObjectView { object, older: &self.older, collection: &self.collection }
    }
}

/// Adds the labels that a task's giver remembered; of a label that is among both, the later read counts.
fn merge_told(labels: &mut BTreeMap<String, LabelOrigin>, task: &Task) {
    for (label, origin) in task.told.iter() {
        if labels.get(label).is_none_or(|known| known.at < origin.at) {
            labels.insert(label.clone(), origin.clone());
        }
    }
}

/// A record, unless its time is up.
fn object(objects: &HashMap<RecordKey, Object>, key: &RecordKey, now: Time) -> Object {
    let known = objects.get(key).filter(|known| known.expires_at > now);
    known.cloned().unwrap_or_else(|| Object::new(key.id.to_string()))
}

impl Placed {
    pub(super) fn view(&self) -> TaskView<'_> {
        TaskView { task: &self.task, ancestors: &self.ancestors }
    }

    /// It is none: what somebody does without a task.
    pub(super) fn is_taskless(&self) -> bool {
        self.task.kind == TaskKind::None
    }

    /// As it is below another state of the root of its tree.
    pub(super) fn with_root(mut self, root: Task) -> Self {
        match self.ancestors.first_mut() {
            Some(first) => *first = Arc::new(root),
            None => self.task = root,
        }
        self
    }

    /// As a call in a context of the session sees it, which a front end names for a subject; empty: none.
    pub(super) fn within(self, context: &str) -> Self {
        let has_contexts = self.is_taskless() || self.task.kind == TaskKind::Implicit;
        if context.is_empty() || !has_contexts || self.task.subject.is_none() {
            return self;
        }
        let context = SessionContext::new(&self.task.session, context);
        let seen = |history: SessionHistory| history.seen_in(&context).unwrap_or(history);
        let (history, agent, pair) = (seen(self.history), seen(self.agent), seen(self.pair));
        Self { history, agent, pair, context: Some(context), ..self }
    }

    /// Id of its session.
    pub(super) fn session(&self) -> &str {
        &self.task.session
    }

    /// What its session did before, and those in its chain.
    pub(super) fn history(&self) -> HistoryView<'_> {
        HistoryView {
            session: &self.history,
            agent: Some(&self.agent),
            subject: Some(&self.subject),
            pair: Some(&self.pair),
            shared: Some(&self.shared),
            remembering: self.remembering,
            object: None,
        }
    }

    /// The records that remember the labels of a permitted call; none where no label was new to them.
    pub(super) fn memories(&self, plan: &Plan, decision: &Decision, now: Time) -> Vec<Memory> {
        let changes = decision.changes(false);
        let own = changes.remembered.as_ref().and_then(|one| one.holder.key(&self.task.chain()));
        let own = own.map(|key| Memory { key, permitted_at: now, remembering: self.remembering });
        let above = self
            .above(plan, changes, now)
            .into_iter()
            .map(|(key, remembering, _)| Memory { key, permitted_at: now, remembering });
        own.into_iter().chain(above).collect()
    }

    /// What agents above the task remember of a call.
    fn above(
        &self,
        plan: &Plan,
        changes: &HistoryChanges,
        now: Time,
    ) -> Vec<(RecordKey, Remembering, HistoryChanges)> {
        let all = self.ancestors.iter().filter_map(|task| {
            let remembering = plan.model().remembering(task);
            let changes = changes.above(remembering, now)?;
            Some((remembering.holder?.key(&task.chain())?, remembering, changes))
        });
        all.collect()
    }

    /// What was written into what a call acts on; none where that makes no difference.
    pub(super) fn found(&self, keys: Option<&ObjectKeys>, now: Time) -> Option<Found> {
        let keys = keys?;
        let known = |key: &RecordKey| object(&self.objects, key, now);
        let older = keys.older.iter().map(|key| Arc::new(known(key))).collect();
        let object = keys.object.as_ref().map(known);
        Some(Found { object, older, collection: known(&keys.collection) })
    }

    /// Who calls on the task: its assignee, unless the step says another.
    pub(super) fn caller<'a>(&'a self, said: Option<Caller<'a>>) -> Caller<'a> {
        let chain = self.view().chain(said.as_ref().and_then(|said| said.shown(Time(0))).as_ref());
        let own = || Caller {
            chain,
            age: 0,
            acr: self.task.subject.as_ref().map_or("", |subject| subject.acr.as_str()),
            bound: false,
        };
        let Some(said) = said else { return own() };
        // Whoever proves to be its assignee, and no other subject, acts as its chain.
        let subject = said.chain.iter().find(|one| !matches!(one, Principal::Agent { .. }));
        let fits = said.chain.last().is_some_and(|caller| self.task.is_assignee(caller))
            && subject.is_none_or(|one| self.task.subject.as_ref().is_some_and(|own| own.is(one)));
        if fits { Caller { age: said.age, bound: said.bound, ..own() } } else { said }
    }
}

/// The key of the literals of tests.
pub(super) const fn key() -> &'static [u8; 32] {
    &KEY
}

impl Tasks {
    pub(super) fn get(&self, plan: &Plan, name: &str, now: Time) -> Option<Placed> {
        Some(self.placed(plan, self.known.get(name)?.clone(), now))
    }

    /// The root of a task's tree after a call in it showed a token of its subject; none where nothing changes by that.
    pub(super) fn noted(
        &self,
        plan: &Plan,
        placed: &Placed,
        caller: &Caller<'_>,
        now: Time,
    ) -> Option<Task> {
        let root = placed.view().root();
        let is_its = |one: &Principal| root.subject.as_ref().is_some_and(|own| own.is(one));
        if !caller.chain.first().is_some_and(is_its) {
            return None;
        }
        let noted = caller.shown(now).and_then(|shown| root.after_token(&shown, plan.model()));
        noted.filter(|noted| self.known.contains_key(&noted.id))
    }

    /// Keeps the root of a task tree, as it is after a token was shown.
    pub(super) fn keep(&mut self, root: Task) {
        self.known.insert(root.id.clone(), root);
    }

    fn placed(&self, plan: &Plan, task: Task, now: Time) -> Placed {
        let above = task.ancestors.iter().filter_map(|id| self.known.get(id));
        let ancestors: Vec<Arc<Task>> = above.map(|task| Arc::new(task.clone())).collect();
        let history = self.histories.get(&task.session).cloned().unwrap_or_default();
        let view = TaskView { task: &task, ancestors: &ancestors };
        let alone = carrier_of(plan, view).and_then(|id| {
            let known = self.histories.get(&id)?;
            Some(plan.with_carried(&history, known, (&id, &task.id), now))
        });
        let history = alone.unwrap_or(history);
        let chain = task.chain();
        let party = |holder: Holder| {
            let key = holder.key(&chain)?;
            self.parties.get(&key).cloned()
        };
        let [agent, subject, pair] =
            Holder::PARTIES.map(|holder| party(holder).unwrap_or_default());
        let remembering = plan.model().remembering(&task);
        let mut shared = self.shared(plan, task.assignee(), &chain, &task.session);
        for task in task.ancestors.iter().filter_map(|id| self.known.get(id)).chain([&task]) {
            merge_told(&mut shared, task);
        }
        let objects = self.objects.clone();
        let context = None;
        Placed {
            task,
            ancestors,
            history,
            agent,
            subject,
            pair,
            shared,
            remembering,
            objects,
            context,
        }
    }

    /// Labels of other sessions in which somebody else gave an agent a task, and those that the giver remembered.
    fn shared(
        &self,
        plan: &Plan,
        agent: &str,
        chain: &[Principal],
        session: &str,
    ) -> BTreeMap<String, LabelOrigin> {
        let isolated = plan.model().memory_of(agent).isolated;
        let mut labels: BTreeMap<String, LabelOrigin> = BTreeMap::new();
        for other in self.known.values() {
            let was_given = other.is_given() && !other.declined;
            let counts = match isolated {
                Isolation::None => true,
                Isolation::PerSubject => {
                    Holder::Pair.key(&other.chain()) == Holder::Pair.key(chain)
                }
                Isolation::PerTask => false,
            };
            if other.assignee() != agent || !counts || !was_given {
                continue;
            }
            merge_told(&mut labels, other);
            if other.kind != TaskKind::Child || other.session == session {
                continue;
            }
            let Some(history) = self.histories.get(&other.session) else { continue };
            for (label, from) in history.carried_until(other.deadline) {
                let known = labels.get(label).is_some_and(|known| known.at >= from.at);
                if !known {
                    labels.insert(label.to_owned(), from.origin());
                }
            }
        }
        labels
    }

    /// Labels that an agent remembers of other tasks when it gives a task below those of `path`.
    fn remembered_by(
        &self,
        plan: &Plan,
        giver: &[Principal],
        path: &[&Task],
        now: Time,
    ) -> BTreeMap<String, LabelOrigin> {
        let mut labels = BTreeMap::new();
        path.iter().for_each(|task| merge_told(&mut labels, task));
        let Some(Principal::Agent { spiffe_id, .. }) = giver.last() else { return labels };
        let session = path.last().map_or("", |task| task.session.as_str());
        let shared = self.shared(plan, spiffe_id, giver, session);
        let party = |holder: Holder| {
            let known = holder.key(giver).and_then(|key| self.parties.get(&key));
            known.cloned().unwrap_or_default()
        };
        let (agent, pair, nothing) =
            (party(Holder::Agent), party(Holder::Pair), SessionHistory::new());
        let view = HistoryView {
            agent: Some(&agent),
            pair: Some(&pair),
            shared: Some(&shared),
            remembering: Remembering { holder: None, ms: plan.model().memory_of(spiffe_id).ms },
            ..HistoryView::new(&nothing)
        };
        for (label, from) in view.remembered(now) {
            if labels.get(label).is_none_or(|known| known.at < from.at) {
                labels.insert(label.to_owned(), from.origin());
            }
        }
        labels
    }

    /// Why a caller may not call for the subject that it shows, or without one.
    pub(super) fn subject_refused(&self, plan: &Plan, chain: &[Principal]) -> Option<Refused> {
        let Some(Principal::Agent { spiffe_id, .. }) = chain.last() else { return None };
        let has_acted = || Ok::<_, std::convert::Infallible>(self.acted.contains(spiffe_id));
        subject_refused(plan, spiffe_id, chain.len() > 1, has_acted).ok().flatten()
    }

    /// Why the agent of a task without a subject, which it began itself, may not call in it.
    pub(super) fn left_out_refused(
        &self,
        plan: &Plan,
        placed: &Placed,
        now: Time,
    ) -> Option<Refused> {
        let view = placed.view();
        let agent = view.task.agents.last().filter(|_| view.is_left_out())?;
        if let Some(refused) = self.subject_refused(plan, &[agent.principal()]) {
            return Some(refused);
        }
        let alone = self.taskless.get(&carrier_of(plan, view)?)?;
        (alone.lasts(now) && alone.ended_at.is_some()).then(|| Refused {
            reason: ReasonCode::Revoked,
            message: "what the agent may do without a subject was taken away".to_owned(),
        })
    }

    /// Notes that an agent acts for a subject.
    pub(super) fn note_subject(&mut self, chain: &[Principal]) {
        if let [first, .., Principal::Agent { spiffe_id, .. }] = chain
            && !matches!(first, Principal::Agent { .. })
        {
            self.acted.insert(spiffe_id.clone());
        }
    }

    /// The name of the session of an agent that works without tasks; none of any other.
    pub(super) fn implied(
        &mut self,
        plan: &Plan,
        caller: &Caller<'_>,
        now: Time,
    ) -> Option<String> {
        let task = implicit(plan, &caller.chain, caller.acr, now).ok().flatten()?;
        let id = task.id.clone();
        if let Some(known) = self.known.get(&id) {
            if known.is_barred(now) {
                return Some(id);
            }
            if known.status == TaskStatus::Revoked
                && let Some(key) = Holder::Pair.key(&caller.chain)
            {
                self.bars.remove(&key);
            }
            if known.status_at(now) == TaskStatus::Active {
                let known = Arc::new(known.clone());
                let known = renewed(plan, &known).ok().flatten()?;
                self.known.insert(id.clone(), Arc::unwrap_or_clone(known));
                return Some(id);
            }
        }
        let before = self.histories.remove(&id).filter(|_| is_alone(plan, &task));
        let is_carried = self.carried.get(&id).is_some_and(|until| *until > now);
        let mut task = task;
        if let Some(shown) = caller.shown(now) {
            task.begin_with(&shown);
        }
        self.begin_session(&task, true, now).ok()?;
        if let Some(before) = before.filter(|_| is_carried) {
            self.histories.insert(id.clone(), plan.carried_over(&before, now));
        }
        self.known.insert(id.clone(), task);
        Some(id)
    }

    /// Begins the session of a root task, with what earlier tasks of its agent for its subject left.
    fn begin_session(&mut self, task: &Task, by_agent: bool, now: Time) -> Result<(), Refused> {
        let Some(key) = Holder::Pair.key(&task.chain()) else { return Ok(()) };
        if by_agent && self.is_denied(&key) {
            return Err(denied_pair());
        }
        let mut pair = self.parties.get(&key).cloned().unwrap_or_default();
        if !by_agent {
            if let Some(bar) = self.bars.get_mut(&key) {
                bar.lift();
            }
            pair.forget_denials();
            self.parties.insert(key, pair.clone());
        }
        if task.inherits() {
            let history = SessionHistory::inherited(&pair, &task.id, now);
            self.histories.insert(task.session.clone(), history);
        }
        Ok(())
    }

    /// Whether an agent may begin no task for a subject, because denials ended its last one.
    fn is_denied(&self, pair: &RecordKey) -> bool {
        self.bars.get(pair).is_some_and(|bar| bar.denied_at.is_some())
    }

    /// Whether an agent may do nothing in a task that it began itself, because denials ended another one for the subject.
    fn is_barred(&self, plan: &Plan, placed: &Placed) -> bool {
        let key = Holder::Pair.key(&placed.task.chain());
        let bar =
            key.and_then(|key| self.bars.get(&key)).filter(|_| plan.model().denials.is_some());
        bar.is_some_and(|bar| bar.holds_in(placed.view()))
    }

    /// A task as a call finds it: one of an agent that denials bar is revoked.
    pub(super) fn unless_barred(&self, plan: &Plan, mut placed: Placed) -> Placed {
        if self.is_barred(plan, &placed) {
            placed.task.status = TaskStatus::Revoked;
        }
        placed
    }

    /// What a caller does without a task, in a bundle where nothing needs one.
    pub(super) fn taskless(
        &mut self,
        plan: &Plan,
        caller: &Caller<'_>,
        now: Time,
    ) -> Option<Placed> {
        let mut task =
            taskless(&caller.chain, caller.acr).filter(|_| plan.model().tasks.optional)?;
        if self.taskless.get(&task.id).is_some_and(|known| !known.lasts(now)) {
            self.taskless.remove(&task.id);
            self.histories.remove(&task.id);
        }
        if self.taskless.get(&task.id).is_some_and(|known| known.ended_at.is_some()) {
            task.status = TaskStatus::Revoked;
        }
        Some(self.placed(plan, task, now))
    }

    /// Keeps what somebody does without a task from now on, and for longer where something is let through.
    fn hold(&mut self, task: &Task, is_passed: bool, now: Time) {
        let known = self.taskless.entry(task.id.clone());
        let held = known.or_insert_with(|| Session::taskless(task, now));
        if is_passed {
            held.prolong(now);
        }
    }

    /// Takes over what a call changes.
    pub(super) fn settle(
        &mut self,
        plan: &Plan,
        placed: &Placed,
        decision: &Decision,
        id: &str,
        now: Time,
    ) {
        if let Some(task) = self.known.get_mut(&placed.task.id) {
            task.unused = false;
        }
        let changes = decision.changes(false);
        let apart = placed.context.as_ref().map(|context| changes.within(plan.model(), context));
        let changes = apart.as_ref().unwrap_or(changes);
        let call = decision.operation.as_str();
        let leaves = decision.outcome == Outcome::Permit
            && plan.recalls_taskless(call, false)
            && !plan.leaves_nothing(call, None);
        if placed.is_taskless() && (leaves || !changes.is_empty()) {
            self.hold(&placed.task, decision.outcome == Outcome::Permit, now);
        }
        let now = placed.history().now(now);
        let operation = &decision.operation;
        if let Some(alone) = carrier_of(plan, placed.view()) {
            self.histories.insert(placed.task.session.clone(), placed.history.clone());
            if matches!(changes.run, Some(RunChange::Ends { .. }))
                && let Some(history) = self.histories.get_mut(&alone)
            {
                history.denials.remove(&alone);
            }
        }
        if changes.concern(Holder::Session) {
            let history = self.histories.entry(placed.task.session.clone()).or_default();
            history.apply(changes, id, operation, now);
        }
        let chain = placed.task.chain();
        for holder in Holder::PARTIES.into_iter().filter(|holder| changes.concern(*holder)) {
            if let Some(key) = holder.key(&chain) {
                let history = self.parties.entry(key).or_default();
                history.apply_as(holder, changes, id, operation, now);
            }
        }
        for (key, remembering, changes) in placed.above(plan, changes, now) {
            if let Some(holder) = remembering.holder {
                let history = self.parties.entry(key).or_default();
                history.apply_as(holder, &changes, id, operation, now);
            }
        }
        let pairs = if changes.pass_on() { pair_keys(&chain) } else { Vec::new() };
        let acting = pairs.len();
        let alone = alone_pair(plan, &placed.task).filter(|_| acting > 0);
        for (index, key) in pairs.into_iter().chain(alone).enumerate() {
            let is_acting = index.saturating_add(1) >= acting;
            if is_acting && changes.bars_agent() {
                self.bars.insert(key.clone(), Bar::new(now));
            }
            let pair = self.parties.entry(key).or_default();
            pair.keep_for_next(changes, is_acting, now);
        }
        if let Some(written) = &changes.written {
            let known = |key: &RecordKey| object(&self.objects, key, now);
            let mut of_object = written.keys.object.as_ref().map(known);
            let mut collection = known(&written.keys.collection);
            written.apply(of_object.as_mut(), &mut collection, (id, operation, now));
            self.objects.insert(written.keys.collection.clone(), collection);
            let of_object = of_object.filter(|_| !written.is_any);
            self.objects.extend(written.keys.object.clone().zip(of_object));
        }
        self.carry(plan, &placed.task, (changes, id, operation), now);
        if let Some(top) = changes.ended_task() {
            if let Some(taskless) = self.taskless.get_mut(&placed.task.id) {
                taskless.end(now);
            }
            self.end_tree(top, TaskStatus::Revoked, now);
        }
        if decision.outcome != Outcome::Permit {
            return;
        }
        for id in placed.task.ancestors.iter().chain([&placed.task.id]) {
            if let Some(task) = self.known.get_mut(id) {
                task.charge(&decision.charges);
                task.last_used = now;
                if decision.server_call && *id == placed.task.id {
                    task.note_call(&decision.operation);
                }
            }
        }
    }

    /// Carries what restricts an agent in a session with a subject over to the session of the agent alone.
    fn carry(
        &mut self,
        plan: &Plan,
        task: &Task,
        (changes, decision_id, operation): (&HistoryChanges, &str, &str),
        now: Time,
    ) {
        for Alone { id, counts_denials } in alones_of(plan, task) {
            if changes.restricts(plan.model(), counts_denials) {
                let carry =
                    Carry { from: &task.id, to: &id, decision_id, operation, counts_denials };
                self.carry_to(plan, task, (changes, carry), now);
            }
        }
    }

    fn carry_to(
        &mut self,
        plan: &Plan,
        task: &Task,
        (changes, carry): (&HistoryChanges, Carry<'_>),
        now: Time,
    ) {
        let alone = carry.to.to_owned();
        let until = now.0.saturating_add(i64::try_from(BARRED_MS).unwrap_or(i64::MAX));
        let was_kept = self.carried.insert(alone.clone(), Time(until));
        if was_kept.is_none_or(|until| until <= now) && !self.known.contains_key(&alone) {
            self.histories.remove(&alone);
        }
        let of = |agent: &AgentName| taskless(&[agent.principal()], "");
        if task.kind != TaskKind::Implicit
            && let Some(of) = task.agents.iter().filter_map(of).find(|of| of.id == alone)
        {
            let held = self.taskless.entry(alone.clone());
            let held = held.or_insert_with(|| Session::taskless(&of, now));
            held.expires_at = held.expires_at.max(Time(until));
        }
        let history = self.histories.entry(alone.clone()).or_default();
        let fits = history.carry_over(plan.model(), changes, carry, now);
        if fits && !(changes.bars_agent() && carry.counts_denials) {
            return;
        }
        if task.kind == TaskKind::Implicit {
            let barred = barred_alone(plan, self.known.get(&alone), task, now);
            self.known.extend(barred.map(|barred| (alone, barred)));
        } else if let Some(held) = self.taskless.get_mut(&alone) {
            held.end(now);
        }
    }

    fn id(&mut self, name: Option<&At<String>>) -> String {
        self.unnamed += 1;
        name.map_or_else(|| format!("#{}", self.unnamed), |name| name.value.clone())
    }

    /// Starts the task that a trace begins with.
    pub(super) fn begin(
        &mut self,
        file: &CaseFile,
        plan: &Plan,
        said: &StartSaid,
        who: Option<&Chain>,
        now: Time,
    ) -> Result<(), Refused> {
        let task = self.start(file, plan, said, who, now)?;
        self.known.insert(OWN.to_owned(), Task { id: OWN.to_owned(), ..task });
        Ok(())
    }

    /// Does what a step says; refused as a server would.
    pub(super) fn act(
        &mut self,
        file: &CaseFile,
        plan: &Plan,
        (act, on, who): (&Act<'_>, Option<&str>, Option<&Chain>),
        said: Option<Caller<'_>>,
        now: Time,
    ) -> Result<(), Refused> {
        match act {
            Act::Start(start) => {
                let task = self.start(file, plan, start, who, now)?;
                self.known.insert(task.id.clone(), task);
            }
            Act::Delegate(delegate) => {
                let task = self.delegate(file, plan, delegate, on, said, now)?;
                self.known.insert(task.id.clone(), task);
            }
            Act::Extend(extend) => self.extend(plan, extend, on, now)?,
            Act::End(end) => self.end(plan, *end, on, said, now)?,
            // It is of a permit, whoever has the task.
            Act::Report(_) => {}
        }
        Ok(())
    }

    /// Takes over what came of a permit.
    pub(super) fn report(
        &mut self,
        session: &str,
        charged: &[(String, u32)],
        permit: &str,
        reported: &Reported<'_>,
        now: Time,
    ) -> Result<(), Refused> {
        let history = self.histories.entry(session.to_owned()).or_default();
        if let Err(error) = history.check_report(permit, reported) {
            return Err(Refused { reason: ReasonCode::BadInput, message: error.to_string() });
        }
        history.settle(permit, reported, now);
        if effects(reported.event).spends.releases(reported.is_abortable) {
            for task in self.known.values_mut() {
                task.release(charged);
            }
        }
        Ok(())
    }

    /// Takes over what came of a permit in the record that remembers its labels.
    pub(super) fn report_remembered(
        &mut self,
        session: &str,
        memory: &Memory,
        permit: &str,
        reported: &Reported<'_>,
    ) {
        let Some(session) = self.histories.get(session) else { return };
        let party = self.parties.entry(memory.key.clone()).or_default();
        let at = (memory.permitted_at, memory.remembering);
        party.settle_remembered(permit, reported, session, at);
    }

    /// What is open of one permit is that of another: of one thing that was permitted twice, one comes.
    pub(super) fn hand_over(&mut self, placed: &Placed, from: &str, to: &str, is_reported: bool) {
        let history = self.histories.entry(placed.task.session.clone()).or_default();
        history.hand_over(from, to);
        if !is_reported {
            history.settle(to, &Reported::UNREPORTED, history.latest.unwrap_or_default());
        }
        for party in self.parties.values_mut() {
            party.hand_over(from, to);
        }
    }

    fn start(
        &mut self,
        file: &CaseFile,
        plan: &Plan,
        said: &StartSaid,
        who: Option<&Chain>,
        now: Time,
    ) -> Result<Task, Refused> {
        let starting = file.starting("", said, who, Mark::default()).map_err(unread)?;
        let params = params_of(&said.params);
        let mut chain: Vec<Principal> =
            starting.subject.iter().map(TaskSubject::principal).collect();
        // A token that an agent may hold starts no more than the agent that gets the task could start for itself.
        let is_bearer = starting.by.is_none() && matches!(said.said_by, Some(SpeakerWord::Bearer));
        if is_bearer && (!params.is_empty() || !said.scope.is_empty()) {
            let message =
                "a start that shows the subject's token alone gives no `params` and no `scope`";
            return Err(Refused { reason: ReasonCode::NoCredential, message: message.to_owned() });
        }
        let starter = starting.by.clone().or(is_bearer.then(|| starting.assignee.clone()));
        if let Some(by) = &starter {
            chain.push(by.principal());
        }
        let subject_proof = match (&starting.subject, said.asserted) {
            (None, _) => SubjectProof::Itself,
            (Some(_), false) => SubjectProof::Verified,
            (Some(_), true) => SubjectProof::Asserted,
        };
        if let Some(refused) = self.subject_refused(plan, &chain) {
            return Err(refused);
        }
        may_start(plan, &said.template.value, &params, &chain, subject_proof, now)?;
        let proved = starting.subject.as_ref().filter(|_| !said.asserted);
        let by = speaker(plan, said.said_by, starting.by.as_ref(), proved);
        let by_agent = !by.is_user();
        let names = read_names(&[Part::of_user(&said.prompt)], &params, by, &KEY);
        let id = self.id(said.name.as_ref());
        let mut task = start(
            plan,
            Root {
                template: &said.template.value,
                params: &params,
                scope: &said.scope.iter().map(ScopeAsked::entry).collect::<Vec<_>>(),
                kind: TaskKind::Root,
                assignee: starting.assignee,
                subject: starting.subject,
                subject_proof,
                starter: starter.map(|by| by.spiffe_id).unwrap_or_default(),
                deadline: starting.span.map(|span| Time(now.0.saturating_add(span))),
                tier_cap: None,
                names,
                now,
                session: id.clone(),
                id,
            },
        )?;
        may_give(plan, &task, &chain, now)?;
        let placed = self.placed(plan, task.clone(), now);
        if let Some(refused) = self.left_out_refused(plan, &placed, now) {
            return Err(refused);
        }
        if !is_bearer {
            self.note_subject(&chain);
        }
        if task.is_given() && matches!(chain.last(), Some(Principal::Agent { .. })) {
            task.told = self.remembered_by(plan, &chain, &[], now).into();
        }
        let by = Caller { chain, age: 0, acr: "", bound: false };
        if let Some(shown) = by.shown(now).filter(|_| !said.asserted) {
            task.begin_with(&shown);
        }
        task.by_user = !by_agent;
        self.begin_session(&task, by_agent, now)?;
        if task.is_given() {
            self.inherit_from_giver(&by.chain, &task, now);
        }
        Ok(task)
    }

    /// Lets the session of a task that an agent gives by starting it take over the restricting rules that are complete for
    /// the giver.
    fn inherit_from_giver(&mut self, giver: &[Principal], task: &Task, now: Time) {
        if !matches!(giver.last(), Some(Principal::Agent { .. })) {
            return;
        }
        if let Some(pair) = Holder::Pair.key(giver).and_then(|key| self.parties.get(&key)) {
            let history = self.histories.entry(task.session.clone()).or_default();
            history.inherit_rules(pair, &task.id, now);
        }
    }

    fn delegate(
        &mut self,
        file: &CaseFile,
        plan: &Plan,
        said: &DelegateSaid,
        on: Option<&str>,
        by: Option<Caller<'_>>,
        now: Time,
    ) -> Result<Task, Refused> {
        let id = self.id(said.name.as_ref());
        let placed = on.and_then(|name| self.get(plan, name, now)).ok_or_else(nothing)?;
        if let Some(refused) = self.left_out_refused(plan, &placed, now) {
            return Err(refused);
        }
        let caller = placed.caller(by);
        if !caller.chain.last().is_some_and(|caller| placed.task.is_assignee(caller)) {
            let message = "only the agent that has the task delegates it";
            return Err(Refused { reason: ReasonCode::NotAssignee, message: message.to_owned() });
        }
        let mut child = delegate(
            plan,
            &placed.task,
            Child {
                template: said.template.as_ref().map(|template| template.value.as_str()),
                params: &params_of(&said.params),
                scope: &said.scope.iter().map(ScopeAsked::entry).collect::<Vec<_>>(),
                assignee: file.agent("", &said.to).map_err(unread)?,
                starter: placed.task.assignee().to_owned(),
                deadline: span("", said.deadline.as_ref())
                    .map_err(unread)?
                    .map(|span| Time(now.0.saturating_add(span))),
                now,
                id,
            },
        )?;
        may_give(plan, &child, &caller.chain, now)?;
        self.begin_child(plan, &placed, &child, now)?;
        if child.is_given() {
            let view = placed.view();
            let path: Vec<&Task> = view.path().collect();
            child.told = self.remembered_by(plan, &caller.chain, &path, now).into();
        }
        Ok(child)
    }

    /// Begins a child in the session of its tree, with what earlier tasks of the agent above it for its subject left.
    fn begin_child(
        &mut self,
        plan: &Plan,
        parent: &Placed,
        child: &Task,
        now: Time,
    ) -> Result<(), Refused> {
        let denied = Holder::Pair.key(&child.chain()).filter(|key| self.is_denied(key));
        if self.is_barred(plan, parent) || (child.is_given() && denied.is_some()) {
            return Err(denied_pair());
        }
        if child.is_given() && parent.view().inherits() {
            let history = self.histories.entry(child.session.clone()).or_default();
            history.inherit_rules(&parent.pair, &child.id, now);
        }
        Ok(())
    }

    fn extend(
        &mut self,
        plan: &Plan,
        said: &ExtendSaid,
        on: Option<&str>,
        now: Time,
    ) -> Result<(), Refused> {
        let placed = on.and_then(|name| self.get(plan, name, now)).ok_or_else(nothing)?;
        if placed.view().path().any(|task| task.status_at(now) != TaskStatus::Active) {
            let message = "the task, or one above it, has ended".to_owned();
            return Err(Refused { reason: ReasonCode::TaskEnded, message });
        }
        if let Some(refused) = self.left_out_refused(plan, &placed, now) {
            return Err(refused);
        }
        let task = &placed.task;
        let by = speaker(plan, said.said_by, task.agents.last(), task.subject.as_ref());
        let names = read_names(&[Part::of_user(&said.prompt)], &BTreeMap::new(), by, &KEY);
        if let Some(task) = self.known.get_mut(on.unwrap_or_default()) {
            extend(task, names);
        }
        Ok(())
    }

    fn end(
        &mut self,
        plan: &Plan,
        said: EndSaid,
        on: Option<&str>,
        by: Option<Caller<'_>>,
        now: Time,
    ) -> Result<(), Refused> {
        let placed = on.and_then(|name| self.get(plan, name, now)).ok_or_else(nothing)?;
        let caller = placed.caller(by);
        let is_above =
            |task: &Arc<Task>| caller.chain.last().is_some_and(|caller| task.is_assignee(caller));
        let is_own = caller.chain.last().is_some_and(|caller| placed.task.is_assignee(caller));
        let is_subject = match (&placed.task.subject, caller.chain.as_slice()) {
            (Some(subject), [only]) => subject.is(only),
            _ => false,
        };
        if !is_own && !is_subject && !placed.ancestors.iter().any(is_above) {
            judged(plan, ("authz.task.end", None), "", &caller.chain, None, now)?;
        }
        let status = match said.status {
            EndWord::Completed => TaskStatus::Completed,
            EndWord::Aborted => TaskStatus::Aborted,
            EndWord::Revoked => TaskStatus::Revoked,
        };
        let id = &placed.task.id;
        let declines = is_own && status == TaskStatus::Aborted && placed.task.unused;
        if let Some(task) = self.known.get_mut(id).filter(|_| declines) {
            task.declined = true;
        }
        self.end_tree(id, status, now);
        Ok(())
    }

    /// Ends what is live of a tree from a task down.
    fn end_tree(&mut self, top: &str, status: TaskStatus, now: Time) {
        for task in self.known.values_mut() {
            let below = task.id == top || task.ancestors.iter().any(|id| id == top);
            if below && task.status == TaskStatus::Active {
                (task.status, task.ended_at) = (status, Some(now));
            }
        }
    }
}

/// Whose word a prompt is.
///
/// Args: `agent`: the agent that says it, where an agent does; `subject`: on whose behalf, proved.
fn speaker(
    plan: &Plan,
    said: Option<SpeakerWord>,
    agent: Option<&AgentName>,
    subject: Option<&TaskSubject>,
) -> Speaker {
    match (said, agent) {
        (Some(SpeakerWord::Subject), _) => Speaker::Subject,
        (Some(SpeakerWord::FrontEnd), _) => Speaker::FrontEnd,
        (Some(SpeakerWord::Bearer), _) => Speaker::Agent,
        (None, None) => Speaker::Subject,
        (None, Some(agent)) => plan.model().speaker_of(&agent.spiffe_id, subject.is_some()),
    }
}

/// Whether policy lets a chain start a task, for a subject that it may only assert.
fn may_start(
    plan: &Plan,
    template: &str,
    params: &BTreeMap<String, Param>,
    chain: &[Principal],
    proof: SubjectProof,
    now: Time,
) -> Result<(), Refused> {
    if let (Some(Principal::Agent { spiffe_id, .. }), Some(known)) =
        (chain.last(), plan.template(template))
        && !known.is_started_by(&plan.model().agent_roles(spiffe_id))
    {
        let message = "the agent holds no role of the template's `starters`".to_owned();
        return Err(Refused { reason: ReasonCode::NotPermitted, message });
    }
    if proof == SubjectProof::Asserted {
        // The subject is only said to be there, so it is not asked.
        let agent = chain.last().map_or_else(Default::default, std::slice::from_ref);
        judged(plan, ("authz.task.start_for", None), "", agent, Some(proof), now)?;
    }
    if plan.template(template).is_some() {
        let arguments = serde_json::to_string(params).unwrap_or_default();
        let operation = format!("{START}{template}");
        judged(plan, (&operation, None), &arguments, chain, Some(proof), now)?;
    }
    Ok(())
}

/// Whether policy lets a chain give a task to the agent that gets it, where that is another one.
fn may_give(plan: &Plan, task: &Task, giver: &[Principal], now: Time) -> Result<(), Refused> {
    if giver.last().is_some_and(|giver| task.is_assignee(giver)) {
        return Ok(());
    }
    let arguments = serde_json::to_string(&task.params).unwrap_or_default();
    let operation = format!("{GIVE}{}", task.template);
    let of = (operation.as_str(), Some(task.assignee()));
    judged(plan, of, &arguments, giver, Some(task.subject_proof), now)
}

/// Args: `operation`, `resource`: the resource is that of a task that is given.
fn judged(
    plan: &Plan,
    (operation, resource): (&str, Option<&str>),
    arguments: &str,
    chain: &[Principal],
    subject_proof: Option<SubjectProof>,
    now: Time,
) -> Result<(), Refused> {
    let method = match chain.last() {
        Some(Principal::Agent { .. }) => ProofMethod::JwtSvid,
        _ => ProofMethod::Jwt,
    };
    let facts = Facts {
        enforcer: "",
        chain,
        proof: Proof { method, bound: false, age: Some(0), acr: "" },
        confidence: 0,
        task: None,
        subject_proof,
        history: None,
        literal_key: None,
        directories: None,
        granted: None,
    };
    let request = Request {
        operation,
        arguments: arguments.as_bytes().into(),
        resource,
        destinations: &[],
        supported_obligations: &[],
        labels: &[],
        server_task: ServerTask::None,
    };
    let decision = decide(plan, &facts, &request, now);
    if decision.outcome == Outcome::Permit {
        return Ok(());
    }
    Err(Refused { reason: decision.reason, message: decision.message })
}

fn params_of(said: &BTreeMap<String, ParamSaid>) -> BTreeMap<String, Param> {
    let param = |said: &ParamSaid| match said {
        ParamSaid::Bool(value) => Param::Bool(*value),
        ParamSaid::Long(number) => Param::Long(*number),
        ParamSaid::Text(text) => Param::Text(text.clone()),
    };
    said.iter().map(|(name, said)| (name.clone(), param(said))).collect()
}

impl ScopeAsked {
    fn entry(&self) -> ScopeEntry {
        let SelectorAsked { collections, ids, path_prefix, label_ceiling } = self.resources.clone();
        let limit = |limit: &LimitAsked| match limit {
            LimitAsked::OneOf(all) => Limit::OneOf(all.clone()),
            LimitAsked::Range([least, most]) => Limit::Range(*least, *most),
            LimitAsked::Prefix(text) => Limit::Prefix(text.clone()),
        };
        let arguments = self.arguments.iter();
        ScopeEntry {
            operation: self.operation.clone(),
            resources: Selector { collections, ids, path_prefix, label_ceiling },
            arguments: arguments.map(|(pointer, said)| (pointer.clone(), limit(said))).collect(),
            uses: self.uses,
        }
    }
}

/// `parse` has checked this already; a failure here is reported all the same.
fn unread(error: Diagnostic) -> Refused {
    Refused { reason: ReasonCode::BadInput, message: error.to_string() }
}

fn nothing() -> Refused {
    Refused { reason: ReasonCode::UnknownTask, message: "the step is on no task".to_owned() }
}
