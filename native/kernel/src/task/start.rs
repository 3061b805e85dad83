//! How tasks come to be: from a template, or below another task.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use authz_base::principal::MAX_CHAIN;

use super::scope::{Dimension, contained};
use super::{
    AgentName, Limit, MAX_SCOPE, MAX_TEXTS, Names, NewTask, Param, ScopeEntry, Selector,
    SubjectProof, Task, TaskKind, TaskStatus, TaskSubject, check_text,
};
use crate::decision::{ReasonCode, Time};
use crate::diagnostic::clip;
use crate::model::{LimitRule, ParamType, ScopeRule, SelectorRule, Slot, Spelling, Template, Tier};
use crate::plan::Plan;
use crate::spelling::{self, Misspelling, check_id, check_prefix};

/// Limits on arguments in one entry.
const MOST_ARGUMENTS: usize = 32;
/// Bytes of all texts of a scope that is asked for.
const LARGEST_SCOPE: usize = 64 << 10;

/// A root task that a request asks for. The caller of this module asks policy whether it may be started.
#[derive(Clone, Debug)]
pub struct Root<'a> {
    /// Template in the bundle.
    pub template: &'a str,
    /// Its parameters.
    pub params: &'a BTreeMap<String, Param>,
    /// Narrower scope than the template's; empty: the template's. An entry that says no `uses` gets the template's.
    pub scope: &'a [ScopeEntry],
    /// ROOT, or IMPLICIT where the agent works without tasks.
    pub kind: TaskKind,
    /// The agent that gets it.
    pub assignee: AgentName,
    /// On whose behalf; none where the agent acts for itself.
    pub subject: Option<TaskSubject>,
    /// How that was proved.
    pub subject_proof: SubjectProof,
    /// Who starts it.
    pub starter: String,
    /// Earlier end than the template's.
    pub deadline: Option<Time>,
    /// Lower tier than the template's.
    pub tier_cap: Option<Tier>,
    /// Names of the prompt and of the parameters, by speaker.
    pub names: Names,
    /// The time.
    pub now: Time,
    /// Id of the task.
    pub id: String,
    /// Id of its session.
    pub session: String,
}

/// A child that is asked for.
#[derive(Clone, Debug)]
pub struct Child<'a> {
    /// Template in the bundle. `None`: the template of the parent.
    pub template: Option<&'a str>,
    /// Its parameters; of the parent's template none are needed, and then they are the parent's.
    pub params: &'a BTreeMap<String, Param>,
    /// Narrower scope; empty: the template's, or of the parent's template the parent's. An entry that says no `uses`
    /// gets those of the parent's entry.
    pub scope: &'a [ScopeEntry],
    /// The agent that gets it.
    pub assignee: AgentName,
    /// Who delegates: the parent's assignee.
    pub starter: String,
    /// Earlier end than the parent's.
    pub deadline: Option<Time>,
    /// The time.
    pub now: Time,
    /// Id of the task.
    pub id: String,
}

/// Why a task does not come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: ReasonCode,
    /// One line about the reason. It has names from the request, and no values.
    pub message: String,
}

/// The refusal of a task that an agent would start for a subject after denials ended its last one.
#[must_use]
pub fn denied_pair() -> Refused {
    let message = "the agent's last task for this subject was ended because of its denials; the subject alone, a front \
                   end or an administrator lets it begin anew";
    Refused { reason: ReasonCode::Revoked, message: message.to_owned() }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    fn new(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::BadInput, message)
    }

    fn beyond(dimension: Dimension<'_>, what: impl fmt::Display) -> Self {
        Self::new(ReasonCode::OutOfScope, format!("{dimension}: {what}"))
    }
}

/// Starts a root task.
///
/// # Errors
/// The template or a parameter is not as the bundle says (BAD_INPUT); or the request exceeds the template (OUT_OF_SCOPE, which
/// names the part that exceeds it); or the agent works without tasks (NOT_PERMITTED).
pub fn start(plan: &Plan, root: Root<'_>) -> Result<Task, Refused> {
    if root.kind.is_started() {
        may_be_given(plan, &root.assignee)?;
    }
    let template = template(plan, root.template)?;
    checked(template, root.params)?;
    bounded(root.scope)?;
    let given = instance(plan, template, root.params)?;
    let scope = narrowed(plan, &given, root.scope)?;
    let last = later(root.now, template.deadline);
    let deadline = ends(root.deadline, root.now, last)?;
    if root.subject.is_none() && root.subject_proof != SubjectProof::Itself {
        return Err(Refused::bad("nothing proves a subject that is not there"));
    }
    Ok(Task::begin(NewTask {
        id: root.id,
        kind: root.kind,
        template: root.template.to_owned(),
        template_digest: template.digest(),
        session: root.session,
        ancestors: Vec::new(),
        agents: vec![root.assignee],
        subject: root.subject,
        subject_proof: root.subject_proof,
        starter: root.starter,
        purpose: template.purpose.clone(),
        params: root.params.clone(),
        scope,
        beyond: template.beyond.clone(),
        tier_cap: root.tier_cap.map_or(template.tier_cap, |cap| cap.min(template.tier_cap)),
        max_depth: if root.kind == TaskKind::Implicit { 0 } else { template.max_depth },
        started_at: root.now,
        deadline,
        idle_timeout_ms: template.idle_timeout.map(milliseconds),
        names: root.names,
    }))
}

/// Starts a child of a live task. It may do no more than its parent, in no field, and lives no longer.
///
/// # Errors
/// The parent has ended (TASK_ENDED); the child would be too deep (TOO_DEEP); the template or a parameter is not as
/// the bundle says (BAD_INPUT); the request exceeds the parent (OUT_OF_SCOPE, which names the part that exceeds it); the
/// agent works without tasks (NOT_PERMITTED); or the parent is not a task (UNKNOWN_TASK).
pub fn delegate(plan: &Plan, parent: &Task, child: Child<'_>) -> Result<Task, Refused> {
    if parent.status_at(child.now) != TaskStatus::Active {
        return Err(Refused::new(ReasonCode::TaskEnded, "the parent has ended"));
    }
    if parent.kind == TaskKind::Implicit {
        let what = "an agent that works without tasks delegates none";
        return Err(Refused::new(ReasonCode::UnknownTask, what));
    }
    may_be_given(plan, &child.assignee)?;
    let depth = parent.depth().saturating_add(1);
    if depth > parent.max_depth {
        let most = parent.max_depth;
        let what = format!("a task of depth {depth} where at most {most} is allowed");
        return Err(Refused::new(ReasonCode::TooDeep, what));
    }
    let principals = parent.agents.len() + 1 + usize::from(parent.subject.is_some());
    if principals > MAX_CHAIN {
        let what = format!("a chain of {principals} principals, at most {MAX_CHAIN} are allowed");
        return Err(Refused::new(ReasonCode::TooDeep, what));
    }
    let name = child.template.unwrap_or(&parent.template);
    let template = template(plan, name)?;
    let is_same = name == parent.template;
    let inherits = is_same && child.params.is_empty();
    let given = if inherits {
        parent.scope.clone()
    } else {
        checked(template, child.params)?;
        instance(plan, template, child.params)?
    };
    bounded(child.scope)?;
    let asked = narrowed(plan, &given, child.scope)?;
    let scope = if inherits { asked } else { narrowed(plan, &parent.scope, &asked)? };
    let last = parent.deadline.min(later(child.now, template.deadline));
    let deadline = ends(child.deadline, child.now, last)?;
    let mut ancestors = parent.ancestors.clone();
    ancestors.push(parent.id.clone());
    let mut agents = parent.agents.clone();
    agents.push(child.assignee);
    let idle = template.idle_timeout.map(milliseconds);
    Ok(Task::begin(NewTask {
        id: child.id,
        kind: TaskKind::Child,
        template: name.to_owned(),
        template_digest: template.digest(),
        session: parent.session.clone(),
        ancestors,
        agents,
        subject: parent.subject.clone(),
        subject_proof: parent.subject_proof,
        starter: child.starter,
        purpose: template.purpose.clone(),
        params: if inherits { parent.params.clone() } else { child.params.clone() },
        scope,
        beyond: template.beyond.clone(),
        tier_cap: parent.tier_cap.min(template.tier_cap),
        max_depth: if is_same {
            parent.max_depth
        } else {
            parent.max_depth.min(depth.saturating_add(template.max_depth))
        },
        started_at: child.now,
        deadline,
        idle_timeout_ms: idle.into_iter().chain(parent.idle_timeout_ms).min(),
        // What an agent writes to another is not the user's word.
        names: Names::default(),
    }))
}

/// Adds the names of a further turn; never scope, time or tier.
pub fn extend(task: &mut Task, names: Names) {
    task.names.extend(names);
}

/// Refuses a task for an agent that works without tasks: it would choose by leaving the task out which bounds count.
fn may_be_given(plan: &Plan, assignee: &AgentName) -> Result<(), Refused> {
    if plan.roles().is_implicit(&assignee.spiffe_id) {
        let what = "the agent works without tasks (`implicit_tasks.agents`), and so is given none";
        return Err(Refused::new(ReasonCode::NotPermitted, what));
    }
    Ok(())
}

fn template<'a>(plan: &'a Plan, name: &str) -> Result<&'a Template, Refused> {
    plan.template(name)
        .ok_or_else(|| Refused::bad(format!("the bundle has no template `{}`", clip(name))))
}

/// Holds that exactly the declared parameters are given.
fn checked(template: &Template, params: &BTreeMap<String, Param>) -> Result<(), Refused> {
    for (name, kind) in &template.params {
        let fits = match (params.get(name), kind) {
            (None, _) => return Err(Refused::bad(format!("the parameter `{name}` is missing"))),
            (Some(Param::Text(text)), ParamType::String) => check_text(text).is_ok(),
            (Some(Param::Long(_)), ParamType::Long) | (Some(Param::Bool(_)), ParamType::Bool) => {
                true
            }
            (Some(_), _) => false,
        };
        if !fits {
            let what = format!(
                "the parameter `{name}` is no {}; a text has 1 to 1,024 bytes and no control characters",
                kind.as_str()
            );
            return Err(Refused::bad(what));
        }
    }
    match params.keys().find(|name| !template.params.contains_key(*name)) {
        Some(name) => Err(Refused::bad(format!("the template has no parameter `{}`", clip(name)))),
        None => Ok(()),
    }
}

/// The template's scope with its parameters filled in.
fn instance(
    plan: &Plan,
    template: &Template,
    params: &BTreeMap<String, Param>,
) -> Result<Vec<ScopeEntry>, Refused> {
    let entry = |rule: &ScopeRule| {
        let limit = |(pointer, limit): (&String, &LimitRule)| {
            let limit = match limit {
                LimitRule::OneOf(all) => Limit::OneOf(filled_all(all, params, check_text)?),
                LimitRule::Range(least, most) => Limit::Range(*least, *most),
                LimitRule::Prefix(slot) => Limit::Prefix(filled(slot, params, check_prefix)?),
            };
            Ok((pointer.clone(), limit))
        };
        let entry = ScopeEntry {
            operation: rule.operation.clone(),
            resources: selected(&rule.resources, params)?,
            arguments: rule.arguments.iter().map(limit).collect::<Result<_, Refused>>()?,
            uses: rule.uses,
        };
        Ok(spelled(plan, entry))
    };
    template.scope.iter().map(entry).collect()
}

/// The entry with ids as the collection of its operation compares them.
fn spelled(plan: &Plan, mut entry: ScopeEntry) -> ScopeEntry {
    let rule = plan.operation(&entry.operation).and_then(|operation| operation.resource.as_ref());
    if rule.is_some_and(|rule| rule.spelling == Spelling::Fold) {
        let fold = |id: &String| spelling::fold(id).into_owned();
        let Selector { ids, path_prefix, .. } = &mut entry.resources;
        *ids = ids.as_ref().map(|ids| ids.iter().map(fold).collect());
        *path_prefix = path_prefix.as_ref().map(fold);
    }
    entry
}

fn selected(rule: &SelectorRule, params: &BTreeMap<String, Param>) -> Result<Selector, Refused> {
    let ids = rule.ids.as_ref().map(|all| filled_all(all, params, check_id));
    let prefix = rule.path_prefix.as_ref().map(|slot| filled(slot, params, check_id));
    Ok(Selector {
        collections: rule.collections.clone(),
        ids: ids.transpose()?,
        path_prefix: prefix.transpose()?,
        label_ceiling: rule.label_ceiling.clone(),
    })
}

fn filled_all(
    slots: &BTreeSet<Slot>,
    params: &BTreeMap<String, Param>,
    check: fn(&str) -> Result<(), Misspelling>,
) -> Result<BTreeSet<String>, Refused> {
    slots.iter().map(|slot| filled(slot, params, check)).collect()
}

fn filled(
    slot: &Slot,
    params: &BTreeMap<String, Param>,
    check: fn(&str) -> Result<(), Misspelling>,
) -> Result<String, Refused> {
    let name = match slot {
        Slot::Text(text) => return Ok(text.clone()),
        Slot::Param(name) => name,
    };
    let text = match params.get(name) {
        Some(Param::Text(text)) => text.clone(),
        Some(Param::Long(number)) => number.to_string(),
        Some(Param::Bool(value)) => value.to_string(),
        None => return Err(Refused::bad(format!("the parameter `{name}` is missing"))),
    };
    match check(&text) {
        Err(why) => Err(Refused::bad(format!("the parameter `{name}`: {}", why.what))),
        Ok(()) => Ok(text),
    }
}

/// What is asked for, where all of it is within what is given; all that is given, where nothing is asked for.
fn narrowed(
    plan: &Plan,
    given: &[ScopeEntry],
    asked: &[ScopeEntry],
) -> Result<Vec<ScopeEntry>, Refused> {
    if asked.is_empty() {
        return Ok(given.to_vec());
    }
    let mut scope = Vec::with_capacity(asked.len());
    for entry in asked {
        let cases = plan.model().splits.get(&entry.operation).map(|split| &split.cases);
        let Some(cases) = cases else {
            scope.push(narrow(plan, given, entry)?);
            continue;
        };
        if entry.uses.is_some() {
            let what = format!("`{}` is several operations: uses cannot count it", entry.operation);
            return Err(Refused::bad(what));
        }
        for case in cases.values() {
            let entry = ScopeEntry { operation: case.clone(), ..entry.clone() };
            scope.push(narrow(plan, given, &entry)?);
        }
    }
    if scope.len() > MAX_SCOPE {
        return Err(Refused::bad(format!("the scope has more than {MAX_SCOPE} entries")));
    }
    scope.sort_by(|a, b| a.operation.cmp(&b.operation));
    Ok(scope)
}

/// One entry, where one of those given holds it.
fn narrow(plan: &Plan, given: &[ScopeEntry], asked: &ScopeEntry) -> Result<ScopeEntry, Refused> {
    let operation = plan.operation(&asked.operation);
    let collection = operation.and_then(|o| o.resource.as_ref()).map(|r| r.collection.as_str());
    let asked = &spelled(plan, asked.clone());
    let mut beyond = Dimension::Operation;
    for wide in given.iter().filter(|wide| wide.operation == asked.operation) {
        match contained(wide, asked, collection) {
            Ok(()) => {
                return Ok(ScopeEntry { uses: asked.uses.or(wide.uses), ..asked.clone() });
            }
            Err(dimension) if beyond == Dimension::Operation => beyond = dimension,
            Err(_) => {}
        }
    }
    Err(Refused::beyond(beyond, format_args!("`{}`", clip(&asked.operation))))
}

/// Holds what a caller asks for within bounds.
fn bounded(asked: &[ScopeEntry]) -> Result<(), Refused> {
    if asked.len() > MAX_SCOPE {
        return Err(Refused::bad(format!("the scope has more than {MAX_SCOPE} entries")));
    }
    let mut bytes = 0_usize;
    let mut texts = |all: &mut dyn Iterator<Item = &str>,
                     check: fn(&str) -> Result<(), Misspelling>| {
        for (count, text) in all.enumerate() {
            bytes = bytes.saturating_add(text.len());
            if let Err(why) = check(text) {
                return Err(Refused::bad(format!("a value in the scope: {}", why.what)));
            }
            if count >= MAX_TEXTS || bytes > LARGEST_SCOPE {
                let what = format!(
                    "the scope has more than {MAX_TEXTS} values in a set, or more than {LARGEST_SCOPE} bytes"
                );
                return Err(Refused::bad(what));
            }
        }
        Ok(())
    };
    fn all(set: &Option<BTreeSet<String>>) -> impl Iterator<Item = &str> {
        set.iter().flatten().map(String::as_str)
    }
    for entry in asked {
        let Selector { collections, ids, path_prefix, label_ceiling } = &entry.resources;
        texts(&mut [entry.operation.as_str()].into_iter(), check_text)?;
        texts(&mut all(collections), check_text)?;
        texts(&mut all(ids), check_id)?;
        texts(&mut path_prefix.iter().map(String::as_str), check_id)?;
        texts(&mut all(label_ceiling), check_text)?;
        if entry.arguments.len() > MOST_ARGUMENTS {
            let what = format!("an entry limits more than {MOST_ARGUMENTS} arguments");
            return Err(Refused::bad(what));
        }
        for (pointer, limit) in &entry.arguments {
            texts(&mut [pointer.as_str()].into_iter(), check_text)?;
            match limit {
                Limit::OneOf(set) => texts(&mut set.iter().map(String::as_str), check_text)?,
                Limit::Prefix(text) => texts(&mut [text.as_str()].into_iter(), check_prefix)?,
                Limit::Range(least, most) if least <= most => {}
                Limit::Range(..) => return Err(Refused::bad("a range that holds no number")),
            }
        }
    }
    Ok(())
}

/// Time at which a task ends: the requested one, if it is not too late.
fn ends(asked: Option<Time>, now: Time, last: Time) -> Result<Time, Refused> {
    match asked {
        None => Ok(last),
        Some(asked) if asked <= now => Err(Refused::bad("the deadline has passed")),
        Some(asked) if asked > last => {
            Err(Refused::beyond(Dimension::Deadline, "it may live less long"))
        }
        Some(asked) => Ok(asked),
    }
}

fn milliseconds(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn later(now: Time, span: std::time::Duration) -> Time {
    Time(now.0.saturating_add(milliseconds(span)))
}
