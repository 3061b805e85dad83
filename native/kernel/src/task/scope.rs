//! What a task may do: whether a request is within it, and whether one scope is within another.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use super::{Limit, ScopeEntry, Selector, Task};
use crate::json::Value as Json;
use crate::model::Operation;
use crate::spelling::{self, covers_spelled};

/// The side of a scope on which something is beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension<'a> {
    /// The operation itself.
    Operation,
    /// Collections of resources.
    Collections,
    /// Ids of resources.
    Ids,
    /// The prefix of ids.
    PathPrefix,
    /// Labels of resources.
    LabelCeiling,
    /// An argument, by its pointer.
    Argument(&'a str),
    /// How often.
    Uses,
    /// When it ends.
    Deadline,
    /// The highest tier.
    TierCap,
    /// The template, which the bundle no longer has.
    Template,
}

impl fmt::Display for Dimension<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operation => "operation",
            Self::Collections => "collections",
            Self::Ids => "ids",
            Self::PathPrefix => "path_prefix",
            Self::LabelCeiling => "label_ceiling",
            Self::Argument(pointer) => return write!(f, "argument {pointer}"),
            Self::Uses => "uses",
            Self::Deadline => "deadline",
            Self::TierCap => "tier_cap",
            Self::Template => "template",
        })
    }
}

/// What a request does, as scopes see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acts<'a> {
    pub(crate) operation: &'a str,
    /// System whose protocol the request speaks, without calling an operation. A scope with any operation of the system allows
    /// it.
    pub(crate) greets: Option<&'a str>,
    /// `None`: it acts on the system itself.
    pub(crate) collection: Option<&'a str>,
    /// Empty: the collection as a whole.
    pub(crate) id: &'a str,
    pub(crate) labels: &'a [String],
    pub(crate) arguments: &'a Json,
}

/// Why a request is not within a task's scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss<'a> {
    /// No entry fits.
    Beyond(Dimension<'a>),
    /// One fits, and has been used as often as it may.
    Exhausted,
}

/// Whether a request is within the scope: the entry that it counts on, or none where it is not counted.
///
/// Args: `charged`: what was counted for this very request before; those uses do not stand against it.
pub(crate) fn fit<'a>(
    task: &'a Task,
    acts: &Acts<'_>,
    charged: &[(String, u32)],
) -> Result<Option<u32>, Miss<'a>> {
    match choose(task, acts.operation, charged, |entry| within(entry, acts)) {
        Some(chosen) => chosen,
        None if acts.greets.is_some_and(|system| calls(task, system)) => Ok(None),
        None => Err(Miss::Beyond(Dimension::Operation)),
    }
}

/// Whether a request that no entry fits may be held for a step-up: the entry that it counts on, or none where it is not counted.
///
/// INVARIANT (beyond the scope, within the rest): a step-up replaces no `label_ceiling` and adds no `uses`. The request needs an
/// entry of its operation whose label ceiling holds and that has uses left. An operation that the scope does not name is held
/// to the label ceilings of the other entries.
///
/// Args: `charged`: as of [`fit`].
pub(crate) fn fit_beyond<'a>(
    task: &'a Task,
    acts: &Acts<'_>,
    charged: &[(String, u32)],
) -> Result<Option<u32>, Miss<'a>> {
    let ceiling = |entry: &ScopeEntry| match &entry.resources.label_ceiling {
        Some(all) if acts.collection.is_none() || !is_under(all, acts.labels) => {
            Err(Dimension::LabelCeiling)
        }
        _ => Ok(()),
    };
    if let Some(chosen) = choose(task, acts.operation, charged, ceiling) {
        return chosen;
    }
    let ceilings = task.scope.iter().filter_map(|entry| entry.resources.label_ceiling.as_ref());
    let mut ceilings = ceilings.peekable();
    if ceilings.peek().is_none() || ceilings.any(|all| is_under(all, acts.labels)) {
        return Ok(None);
    }
    Err(Miss::Beyond(Dimension::LabelCeiling))
}

/// Chooses the entry of an operation that a request counts on: none where an entry that holds is not counted. `None`: the
/// operation has no entry.
fn choose<'a>(
    task: &'a Task,
    operation: &str,
    charged: &[(String, u32)],
    holds: impl Fn(&'a ScopeEntry) -> Result<(), Dimension<'a>>,
) -> Option<Result<Option<u32>, Miss<'a>>> {
    let (first, entries) = task.entries(operation);
    let mut beyond = None;
    let mut counted = None;
    let mut exhausted = false;
    for (index, entry) in entries.iter().enumerate() {
        if let Err(dimension) = holds(entry) {
            beyond = beyond.or(Some(dimension));
            continue;
        }
        let Some(most) = entry.uses else { return Some(Ok(None)) };
        let position = first.saturating_add(index);
        let uses = task.uses.get(position).copied().unwrap_or(0);
        let own = own(task, position, charged);
        if uses.saturating_sub(own) < u64::from(most) {
            counted = counted.or(u32::try_from(position).ok());
        } else {
            exhausted = true;
        }
    }
    match (counted, exhausted, beyond) {
        (Some(position), ..) => Some(Ok(Some(position))),
        (None, true, _) => Some(Err(Miss::Exhausted)),
        (None, false, Some(dimension)) => Some(Err(Miss::Beyond(dimension))),
        (None, false, None) => None,
    }
}

/// How often an entry stands among charges.
fn own(task: &Task, position: usize, charged: &[(String, u32)]) -> u64 {
    let is_it = |(id, entry): &&(String, u32)| {
        usize::try_from(*entry).is_ok_and(|entry| entry == position) && *id == task.id
    };
    charged.iter().filter(is_it).count() as u64
}

/// Whether the scope could allow an operation with some arguments: an entry for its resource has uses left.
///
/// Args: `greets`: the operation only speaks the protocol of its system.
pub(crate) fn could(task: &Task, operation: &Operation, greets: bool) -> bool {
    let (first, entries) = task.entries(&operation.id);
    let collection = operation.resource.as_ref().map(|rule| &rule.collection);
    let fits = |(index, entry): (usize, &ScopeEntry)| {
        let used = task.uses.get(first.saturating_add(index)).copied().unwrap_or(0);
        entry.uses.is_none_or(|most| used < u64::from(most))
            && entry
                .resources
                .collections
                .as_ref()
                .is_none_or(|all| collection.is_some_and(|collection| all.contains(collection)))
    };
    entries.iter().enumerate().any(fits)
        || (entries.is_empty() && greets && calls(task, &operation.system))
}

/// Whether calls of an operation beyond the scope could be held for a step-up: no entry counts it, or one has uses left.
pub(crate) fn could_beyond(task: &Task, operation: &Operation) -> bool {
    let (first, entries) = task.entries(&operation.id);
    let has_uses = |(index, entry): (usize, &ScopeEntry)| {
        let used = task.uses.get(first.saturating_add(index)).copied().unwrap_or(0);
        entry.uses.is_none_or(|most| used < u64::from(most))
    };
    entries.is_empty() || entries.iter().enumerate().any(has_uses)
}

/// Whether anything of a system is in the scope.
fn calls(task: &Task, system: &str) -> bool {
    let of = |entry: &ScopeEntry| {
        entry.operation.strip_prefix(system).is_some_and(|rest| rest.starts_with('.'))
    };
    task.scope.iter().any(of)
}

/// Whether a request is within one entry of its operation.
fn within<'a>(entry: &'a ScopeEntry, acts: &Acts<'_>) -> Result<(), Dimension<'a>> {
    selects(&entry.resources, acts.collection, acts.id, acts.labels)?;
    for (pointer, limit) in &entry.arguments {
        let value = acts.arguments.pointer(pointer);
        if !value.is_some_and(|value| allows(limit, value)) {
            return Err(Dimension::Argument(pointer));
        }
    }
    Ok(())
}

/// Whether a selector selects a resource.
///
/// Args:
/// * `collection`: `None` for a call that acts on the system itself.
/// * `id`: as the collection compares ids; empty for the collection as a whole.
///
/// # Errors
/// The condition that does not hold.
pub(crate) fn selects(
    selector: &Selector,
    collection: Option<&str>,
    id: &str,
    labels: &[String],
) -> Result<(), Dimension<'static>> {
    let Selector { collections, ids, path_prefix, label_ceiling } = selector;
    let test = |holds: bool, dimension| if holds { Ok(()) } else { Err(dimension) };
    if let Some(all) = collections {
        test(collection.is_some_and(|one| all.contains(one)), Dimension::Collections)?;
    }
    if let Some(all) = ids {
        test(!id.is_empty() && all.contains(id), Dimension::Ids)?;
    }
    if let Some(prefix) = path_prefix {
        test(covers_spelled(prefix, id), Dimension::PathPrefix)?;
    }
    if let Some(all) = label_ceiling {
        test(collection.is_some() && is_under(all, labels), Dimension::LabelCeiling)?;
    }
    Ok(())
}

/// Whether a label ceiling has all labels.
fn is_under(ceiling: &BTreeSet<String>, labels: &[String]) -> bool {
    labels.iter().all(|label| ceiling.contains(label))
}

/// Whether a limit allows a value; of a list all of at least one.
fn allows(limit: &Limit, value: &Json) -> bool {
    match value {
        Json::Array(items) => !items.is_empty() && items.iter().all(|item| allows_one(limit, item)),
        value => allows_one(limit, value),
    }
}

fn allows_one(limit: &Limit, value: &Json) -> bool {
    match (limit, value) {
        (Limit::OneOf(all), value) => {
            text_of(value).is_some_and(|text| all.contains(text.as_ref()))
        }
        (Limit::Range(least, most), Json::Integer(number)) => (least..=most).contains(&number),
        (Limit::Prefix(prefix), Json::String(text)) => spelling::covers(prefix, text),
        (Limit::Range(..) | Limit::Prefix(_), _) => false,
    }
}

/// How a value is written in `one_of`.
fn text_of(value: &Json) -> Option<Cow<'_, str>> {
    match value {
        Json::String(text) => Some(Cow::Borrowed(text)),
        Json::Integer(number) => Some(Cow::Owned(number.to_string())),
        Json::Bool(true) => Some(Cow::Borrowed("true")),
        Json::Bool(false) => Some(Cow::Borrowed("false")),
        _ => None,
    }
}

/// Holds that an entry is within another of the same operation, field by field.
///
/// Args:
/// * `collection`: what the operation acts on.
///
/// Errors: the first field in which it is wider. An entry that says no `uses` gets those of the wider one.
pub(super) fn contained<'a>(
    wide: &'a ScopeEntry,
    narrow: &ScopeEntry,
    collection: Option<&str>,
) -> Result<(), Dimension<'a>> {
    let test = |holds: bool, dimension| if holds { Ok(()) } else { Err(dimension) };
    let subset = |wide: &BTreeSet<String>, narrow: &Option<BTreeSet<String>>| {
        narrow.as_ref().is_some_and(|narrow| narrow.is_subset(wide))
    };
    let (outer, inner) = (&wide.resources, &narrow.resources);
    if let Some(all) = &outer.collections {
        // Without a choice of its own, an operation acts on one collection only.
        let fixed = inner.collections.is_none() && collection.is_some_and(|one| all.contains(one));
        test(fixed || subset(all, &inner.collections), Dimension::Collections)?;
    }
    if let Some(all) = &outer.ids {
        test(subset(all, &inner.ids), Dimension::Ids)?;
    }
    if let Some(prefix) = &outer.path_prefix {
        let by_prefix = inner.path_prefix.as_ref().is_some_and(|one| covers_spelled(prefix, one));
        let by_ids =
            inner.ids.as_ref().is_some_and(|ids| ids.iter().all(|id| covers_spelled(prefix, id)));
        test(by_prefix || by_ids, Dimension::PathPrefix)?;
    }
    if let Some(all) = &outer.label_ceiling {
        test(subset(all, &inner.label_ceiling), Dimension::LabelCeiling)?;
    }
    for (pointer, limit) in &wide.arguments {
        let held = narrow.arguments.get(pointer).is_some_and(|narrow| is_limit(limit, narrow));
        test(held, Dimension::Argument(pointer))?;
    }
    if let (Some(most), Some(uses)) = (wide.uses, narrow.uses) {
        test(uses <= most, Dimension::Uses)?;
    }
    Ok(())
}

/// Whether all that `narrow` allows is allowed by `wide`.
///
/// A limit of one kind within one of another counts where each of its values is of the type that the wider one speaks
/// of: a bundle gives `range` to whole numbers only, and `prefix` to texts.
fn is_limit(wide: &Limit, narrow: &Limit) -> bool {
    match (wide, narrow) {
        (Limit::OneOf(wide), Limit::OneOf(narrow)) => narrow.is_subset(wide),
        (Limit::Range(least, most), Limit::Range(from, to)) => least <= from && to <= most,
        (Limit::Range(least, most), Limit::OneOf(all)) => all.iter().all(|text| {
            let number = text.parse::<i64>().ok().filter(|number| number.to_string() == *text);
            number.is_some_and(|number| (*least..=*most).contains(&number))
        }),
        (Limit::Prefix(wide), Limit::Prefix(narrow)) => covers_spelled(wide, narrow),
        (Limit::Prefix(wide), Limit::OneOf(all)) => {
            all.iter().all(|text| spelling::covers(wide, text))
        }
        (Limit::OneOf(_) | Limit::Range(..) | Limit::Prefix(_), _) => false,
    }
}
