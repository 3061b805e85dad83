//! What an operation has to do with the history of its session: worked out when a bundle is compiled, and held against
//! what is recalled when it is asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::decision::{Principal, ReasonCode, Time};
use crate::destinations::ClassifiedDestination;
use crate::digest::short;
use crate::evaluate::syntax::{Path, PathRoot};
use crate::history::sequence::SequenceStep;
use crate::history::{
    Awaited, Gathering, HistoryChanges, HistoryView, Holder, Holders, Keeping, MAX_LABELS,
    MAX_SOURCES, ObjectKeys, ObjectWriter, Remembered, Remembering, SessionHistory, Shares, count,
};
use crate::model::{Distinct, Effect, LabelKind, Model, Operation, Reports, Tier};
use crate::policy::Placed as PlacedPolicy;
use crate::schema::{Key, Keys, OWN_SYSTEM};

/// What the bundle as a whole asks of history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recall {
    /// Some policy, the tier of some label, or what is written depends on it, or something is counted.
    pub(crate) is_read: bool,
    /// Some policy reads how many calls there were.
    pub(crate) counts_calls: bool,
    /// Some rule depends on the carried labels, or on those of the resource.
    pub(crate) follows_labels: bool,
    /// Some policy, scope or tier depends on the labels of the resource.
    pub(crate) asks_resource: bool,
    /// Some policy reads who chose a value, and the results of some operation have values that count.
    pub(crate) knows_values: bool,
}

impl Recall {
    /// Args: `is_counted`: the policies that count.
    pub(crate) fn of(
        model: &Model,
        policies: &[PlacedPolicy],
        is_counted: fn(&PlacedPolicy) -> bool,
    ) -> Self {
        let counted = || policies.iter().filter(|placed| is_counted(placed));
        let readings = || counted().map(|placed| &placed.policy.reading);
        let reads = |key: Key| readings().any(|reading| reading.keys.contains(key));
        // An expression that is not a plain read of another member may read `calls`.
        let other = |name: &String| matches!(name.as_str(), "labels" | "sources");
        let counts_calls = readings().flat_map(|reading| &reading.paths).any(|path| {
            path.names.first().is_some_and(|key| key == Key::Session.as_str())
                && !path.names.get(1).is_some_and(other)
        });
        let of_resource = |path: &Path| {
            path.root == PathRoot::Resource
                && path.names.first().is_some_and(|name| name == "labels")
        };
        let scopes = || model.templates.values().flat_map(|template| &template.scope);
        let asks_resource = readings().flat_map(|reading| &reading.paths).any(of_resource)
            || scopes().any(|rule| rule.resources.label_ceiling.is_some());
        let flows = [Key::Session, Key::UnclearedLabels, Key::Remembered].into_iter().any(reads);
        let carried = flows || !model.raises.labels.is_empty();
        let follows_labels = carried || asks_resource;
        let counts = !model.budgets.is_empty() || model.denials.is_some();
        let reads_values = reads(Key::Origins) || reads(Key::Literals);
        let brings_values = || model.operations.iter().any(|one| one.origins.brings_values());
        let knows_values = reads_values && brings_values();
        Self {
            is_read: carried || reads(Key::Sequences) || counts || knows_values,
            counts_calls,
            follows_labels,
            asks_resource: asks_resource || !model.raises.labels.is_empty(),
            knows_values,
        }
    }
}

/// What one operation has to do with history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Whether earlier events can change its decision.
    pub(crate) reads: bool,
    /// Whether it can change later decisions.
    pub(crate) changes: bool,
    /// Whether its denial can.
    pub(crate) marks: bool,
    /// Whether it carries data out, and the labels of that matter.
    pub(crate) joins: bool,
    /// Whether labels that its agent remembers of other tasks count: where data goes out or is written, or in a policy.
    pub(crate) remembers: bool,
    /// Whether it can bring labels.
    brings: bool,
    /// Its denials count, and those before it.
    pub(crate) denials: bool,
    /// What the pair of agent and subject keeps of rules over the order of events can change how it is judged.
    inherits: bool,
    /// Its role in rules over the order of events.
    pub(crate) named: Vec<SequenceStep>,
    /// Which budgets it spends.
    pub(crate) budgets: Vec<u32>,
    /// Whose records rules and budgets that name it are kept in.
    holders: Holders,
    /// Its resource may carry labels of the agents that wrote it.
    pub(crate) objects: bool,
    /// It writes; lifetime of the labels on the written data.
    writes: Option<Keeping>,
    /// The call counts.
    counts: bool,
    /// Its resource returns data.
    returns: bool,
    /// Its result is reported.
    is_reported: bool,
}

/// Rules of a bundle that concern one operation.
pub(crate) struct MemoryRules {
    pub(crate) recall: Recall,
    /// Context keys that the policies of the operation read.
    pub(crate) keys: Keys,
    /// Some resource that it may act on carries a label.
    pub(crate) has_labels: bool,
    /// Time for which data that it writes keeps its labels. `None`: such data has no labels.
    pub(crate) keeping: Option<Keeping>,
    /// Relation of the operation to the sequences.
    pub(crate) named: Vec<SequenceStep>,
    /// Budgets that the operation spends, by position.
    pub(crate) budgets: Vec<u32>,
    /// Records that keep the progress of those sequences and budgets.
    pub(crate) holders: Holders,
}

impl Memory {
    /// Compiles the relation of an operation to the history.
    pub(crate) fn of(model: &Model, operation: &Operation, rules: MemoryRules) -> Self {
        if operation.system == OWN_SYSTEM {
            return Self::default();
        }
        let MemoryRules { recall, keys, has_labels, keeping, named, budgets, holders } = rules;
        let raised = model.raises.labels.values().any(|tier| *tier > operation.tier);
        // A call without a destination has no uncleared labels.
        let uncleared_labels =
            keys.contains(Key::UnclearedLabels) && operation.destination.is_some();
        let ordered = keys.contains(Key::Sequences) && named.iter().any(|named| named.is_last());
        let returns =
            [Effect::Read, Effect::Execute].iter().any(|one| operation.effects.contains(one));
        let objects = keeping.is_some();
        let brings = !operation.yields.1.is_empty() || (returns && (has_labels || objects));
        let writes = keeping.filter(|_| operation.effects.contains(&Effect::Write));
        let labels = keys.contains(Key::Session) || uncleared_labels || raised;
        let values =
            recall.knows_values && (keys.contains(Key::Origins) || keys.contains(Key::Literals));
        let brings_values = recall.knows_values && operation.origins.brings_values();
        let joins = labels && operation.destination.is_some();
        let remembers = joins || writes.is_some() || keys.contains(Key::Remembered);
        Self {
            reads: labels || remembers || ordered || !budgets.is_empty() || objects || values,
            joins,
            remembers,
            brings,
            objects,
            writes,
            changes: brings
                || brings_values
                || writes.is_some()
                || recall.counts_calls
                || !budgets.is_empty()
                || named.iter().any(|named| named.is_step()),
            marks: named.iter().any(|named| named.is_denied_step()),
            denials: model.denials.is_some(),
            inherits: ordered && named.iter().any(|named| named.is_inherited()),
            named,
            budgets,
            holders,
            counts: recall.counts_calls,
            returns,
            is_reported: model.reports(&operation.id) != Reports::Never,
        }
    }

    /// Whether a rule or a budget names the operation.
    pub(crate) const fn is_named(&self) -> bool {
        !self.named.is_empty() || !self.budgets.is_empty()
    }

    /// Whether what the task's session did must be known.
    pub(crate) const fn is_recalled(&self) -> bool {
        !self.is_none() || self.denials
    }

    /// Whether the operation has nothing to do with history, but for denials of its task.
    pub(crate) const fn is_none(&self) -> bool {
        !self.reads && !self.changes && !self.marks
    }

    /// Whether the operation depends on a record that outlives the session.
    pub(crate) fn recalls(&self, holder: Holder, remembering: Remembering) -> bool {
        let is_read = self.remembers && matches!(holder, Holder::Agent | Holder::Pair);
        let is_written = self.brings && remembering.holder == Some(holder);
        let is_inherited = holder == Holder::Pair && (self.inherits || self.denials);
        is_inherited
            || ((self.holders.contains(holder) || is_read || is_written) && !self.is_none())
    }

    /// Whether what a record keeps that outlives the session is counted on, beside labels.
    pub(crate) const fn counts_in(&self, holder: Holder) -> bool {
        self.holders.contains(holder)
    }

    /// Changes of the history if the call is let through.
    ///
    /// Args:
    /// * `labels`: labels of the resource; `told`: labels of the call that the enforcer states.
    ///
    /// # Errors
    /// The history is full. A call that could not be remembered is not let through.
    pub(crate) fn passage(
        &self,
        operation: &Operation,
        (collection, id): (Option<&str>, &str),
        (labels, told): (&[String], &[&str]),
        model: &Model,
        view: HistoryView<'_>,
        now: Time,
    ) -> Result<HistoryChanges, (ReasonCode, String)> {
        let none = HistoryChanges {
            counts: self.counts,
            is_reported: self.is_reported,
            ..HistoryChanges::NONE
        };
        let (least, most) = &operation.yields;
        if least.is_empty() && most.is_empty() && labels.is_empty() && told.is_empty() {
            return Ok(none);
        }
        let session = view.session;
        let source = collection.unwrap_or(&operation.system);
        let is_new = !session.sources.contains(source);
        let remembering = view.remembering;
        let record = match remembering.holder {
            // A call that brings nothing needs no record to keep it.
            Some(_) if !self.brings && told.is_empty() => None,
            Some(holder) => {
                let missing = format!("what the {} did before is not at hand", holder.as_str());
                Some((holder, view.of(holder).ok_or((ReasonCode::StateUnavailable, missing))?))
            }
            None => None,
        };
        let is_carried = |label: &str| {
            session.labels.contains_key(label)
                && record.is_none_or(|(_, record)| is_young(record, label, remembering, now))
        };
        let mut all = least.iter().chain(most).chain(labels).chain(model.derives.keys());
        // What a session reads once, it mostly reads again.
        if !is_new
            && all.all(|label| is_carried(label))
            && told.iter().all(|label| is_carried(label))
        {
            return Ok(none);
        }
        // A label that the enforcer states of a reading call may be of the data that is read.
        let own = labels.iter().map(String::as_str).chain(told.iter().copied());
        let own = own.filter(|_| self.returns);
        let sure: BTreeSet<&str> = least.iter().map(String::as_str).chain(own).collect();
        let most = most.iter().map(String::as_str);
        let open: BTreeSet<&str> = most.filter(|label| !sure.contains(label)).collect();
        let mut gathered = BTreeMap::new();
        let mut awaited = Awaited::default();
        let mut derived = (BTreeSet::new(), BTreeSet::new());
        let brought = |label: &str| sure.contains(label) || open.contains(label);
        let rules = model.derives.iter().filter(|(_, rule)| brought(&rule.from));
        for (label, rule) in rules.filter(|(label, _)| !session.labels.contains_key(*label)) {
            let one = match rule.distinct {
                Distinct::Sources => source.to_owned(),
                // Ids may be long, or a secret.
                Distinct::Resources => short(&format!("{source}/{id}")),
            };
            let known = session.gathered.get(label);
            if known.is_some_and(|known| known.contains(&one)) {
                continue;
            }
            let is_enough =
                |count: usize| u32::try_from(count).is_ok_and(|count| count >= rule.least);
            let is_sure = sure.contains(rule.from.as_str());
            if is_sure && is_enough(known.map_or(0, BTreeSet::len).saturating_add(1)) {
                derived.0.insert(label.as_str());
            } else {
                let mut all = session.gathered_of(label);
                all.insert(&one);
                if is_enough(all.len()) {
                    derived.1.insert(label.as_str());
                }
            }
            if is_sure {
                gathered.insert(label.clone(), one);
            } else {
                let of = rule.from.clone();
                let one = Gathering { of, from: one, least: rule.least };
                awaited.gathered.insert(label.clone(), one);
            }
        }
        let remembered = match record {
            Some(record) => {
                // A derived label that the session has is brought again by the labels that it is derived from.
                let rules = model.derives.iter().filter(|(_, rule)| brought(&rule.from));
                let again = rules.map(|(label, _)| label.as_str());
                let again = again.filter(|label| session.labels.contains_key(*label));
                let own = sure.iter().chain(told).chain(&derived.0).copied();
                let sure = own.chain(again).collect();
                let open = open.iter().chain(&derived.1).copied().collect();
                remembered((sure, open), record, (remembering, now))?
            }
            None => None,
        };
        let is_source = (!sure.is_empty(), !open.is_empty());
        let new = |labels: BTreeSet<&str>, derived: BTreeSet<&str>| {
            let all = labels.into_iter().chain(derived);
            let new = all.filter(|label| !session.labels.contains_key(*label));
            new.map(str::to_owned).collect::<BTreeSet<String>>()
        };
        let labels = new(sure.into_iter().chain(told.iter().copied()).collect(), derived.0);
        awaited.labels = new(open, derived.1);
        awaited.labels.retain(|label| !labels.contains(label));
        let source = is_new.then(|| source.to_owned());
        awaited.source = source.clone().filter(|_| is_source.1 && !is_source.0);
        let source = source.filter(|_| is_source.0);
        let full = |what: &str, most: usize| {
            Err((ReasonCode::WindowFull, format!("the session keeps {most} {what}, and no more")))
        };
        let more = labels.len().saturating_add(awaited.labels.len());
        if more > 0 && session.count_labels().saturating_add(more) > MAX_LABELS {
            return full("labels", MAX_LABELS);
        }
        let is_more = source.is_some() || awaited.source.is_some();
        if is_more && session.count_sources() >= MAX_SOURCES {
            return full("sources", MAX_SOURCES);
        }
        Ok(HistoryChanges { labels, source, gathered, remembered, awaited, ..none })
    }

    /// Adds to what letting the call through changes what that which it writes keeps: all that is carried then, and what the
    /// agent remembers of other tasks.
    ///
    /// # Errors
    /// It would keep more than it may.
    pub(crate) fn write(
        &self,
        passage: &mut HistoryChanges,
        operation: &Operation,
        (collection, id): (Option<&str>, &str),
        (carried, remembered): (Carried<'_>, &[&str]),
        (view, now): (HistoryView<'_>, Time),
        chain: &[Principal],
    ) -> Result<(), (ReasonCode, String)> {
        let (Some(keeping), Some(collection)) = (self.writes, collection) else { return Ok(()) };
        let missing = || (ReasonCode::StateUnavailable, "the object is not at hand".to_owned());
        let object = view.object.ok_or_else(missing)?;
        // The resource's own labels count anyway, for every writer.
        let is_own = |label: &&String| carried.resource.contains(label);
        let joining = passage.joining().filter(|label| !is_own(label));
        let brought = joining.chain(&operation.yields.1).cloned();
        // The agent may write what it read in an earlier task: others that read the object get it.
        let labels = carried.by_writer().chain(remembered.iter().copied()).map(str::to_owned);
        let labels = labels.chain(brought).collect();
        let keys = ObjectKeys::of(collection, id);
        let objects = |record: Option<&SessionHistory>| {
            let record = record.ok_or_else(missing)?;
            Ok::<_, (ReasonCode, String)>(
                record.objects.get(collection).map_or(0, |days| count(days, now)),
            )
        };
        let shares = Shares { agent: objects(view.agent)?, pair: objects(view.pair)? };
        let writer = ObjectWriter::of(chain);
        passage.written = object.written(keys, labels, (keeping, shares), writer, now)?;
        Ok(())
    }
}

/// The labels of a call that are to be written into the record that outlives its task: labels that the record lacks, or got
/// longer ago than the grain.
fn remembered(
    (sure, open): (BTreeSet<&str>, BTreeSet<&str>),
    (holder, record): (Holder, &SessionHistory),
    (remembering, now): (Remembering, Time),
) -> Result<Option<Remembered>, (ReasonCode, String)> {
    let owned = |labels: BTreeSet<&str>| {
        let old = labels.into_iter().filter(|label| !is_young(record, label, remembering, now));
        old.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let labels = owned(sure);
    let awaited: BTreeSet<String> =
        owned(open).into_iter().filter(|label| !labels.contains(label)).collect();
    if labels.is_empty() && awaited.is_empty() {
        return Ok(None);
    }
    let oldest = remembering.oldest(now);
    let kept = record.labels_since(oldest).map(|(label, _)| label);
    let all: BTreeSet<&str> =
        kept.chain(labels.iter().chain(&awaited).map(String::as_str)).collect();
    if all.len() > MAX_LABELS {
        let what = format!("the {} keeps {MAX_LABELS} labels, and no more", holder.as_str());
        return Err((ReasonCode::WindowFull, what));
    }
    Ok(Some(Remembered { holder, labels, awaited, oldest }))
}

/// Whether a record got a label so lately that another read of it is not written.
fn is_young(record: &SessionHistory, label: &str, remembering: Remembering, now: Time) -> bool {
    let since = now.0.saturating_sub(remembering.grain_ms());
    record.labels.get(label).is_some_and(|origin| origin.at.0 > since)
}

/// The labels that a call would carry: those of its session, those of its resource, and, where it carries data out, those
/// that its agent brings along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried<'a> {
    session: Option<&'a SessionHistory>,
    resource: &'a [String],
    along: &'a [&'a str],
}

impl<'a> Carried<'a> {
    pub(crate) fn of(
        history: Option<HistoryView<'a>>,
        resource: &'a [String],
        along: &'a [&'a str],
    ) -> Self {
        Self { session: history.map(|view| view.session), resource, along }
    }

    pub(crate) fn labels(self) -> impl Iterator<Item = &'a str> {
        self.by_writer().chain(self.resource.iter().map(String::as_str))
    }

    /// Labels that the caller carries, without those of the resource.
    fn by_writer(self) -> impl Iterator<Item = &'a str> {
        let session = self.session.into_iter().flat_map(SessionHistory::carried);
        session.map(|(label, _)| label).chain(self.along.iter().copied())
    }

    /// The tier that counts: the operation's own, that of the worst destination, or that of a label carried.
    pub(crate) fn tier(
        self,
        model: &Model,
        operation: &Operation,
        destinations: &[ClassifiedDestination<'_>],
    ) -> Tier {
        if operation.system == OWN_SYSTEM {
            return operation.tier;
        }
        let raises = &model.raises;
        let classes = destinations.iter().filter_map(|placed| raises.classes.get(placed.class));
        let tier = classes.copied().fold(operation.tier, Tier::max);
        if raises.labels.is_empty() {
            return tier;
        }
        self.labels().filter_map(|label| raises.labels.get(label)).copied().fold(tier, Tier::max)
    }

    /// Confidentiality labels that a destination is not cleared for. A label that the bundle does not have may be one.
    pub(crate) fn uncleared_labels(self, model: &Model, class: &str) -> Vec<&'a str> {
        let cleared = model.destinations.get(class).map(|class| &class.clearance);
        let is_confidential = |label: &str| {
            model.labels.get(label).is_none_or(|label| label.value == LabelKind::Confidentiality)
        };
        let beyond: BTreeSet<&str> = self
            .labels()
            .filter(|label| is_confidential(label))
            .filter(|label| !cleared.is_some_and(|cleared| cleared.contains(*label)))
            .collect();
        beyond.into_iter().collect()
    }
}
