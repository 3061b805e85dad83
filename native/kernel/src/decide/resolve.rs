//! From an operation id and bytes to arguments, resource and destination.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::arguments::Arguments;
use crate::canonical::{CanonicalDestination, canonical};
use crate::decision::{Decision, Facts, ReasonCode, Request, Time};
use crate::destinations::ClassifiedDestination;
use crate::evaluate::Known;
use crate::history::{EventSubject, ObjectKeys};
use crate::json::Value as Json;
use crate::mcp::Traffic;
use crate::model::{DestinationRule, Operation, ResourceRule, Spelling, Tier};
use crate::plan::{Plan, Prepared};
use crate::recipient_lists::{RecipientListQuery, RecipientLists};
use crate::schema::{GIVE, Key, NO_DESTINATION, OWN_SYSTEM, START};
use crate::spelling;
use crate::task::{AgentName, TaskView};

use super::RequestRefusal;
use super::origin::Vouching;
use super::split::{self, Chosen};

/// Destinations of one request.
const MAX_DESTINATIONS: usize = 256;
/// Destinations of one request that policies can tell apart.
const MAX_DISTINCT: usize = 16;

/// What a request is about.
pub(super) struct Resolved<'a> {
    pub(super) arguments: Arc<Arguments>,
    pub(super) resource: Known,
    /// `None`: it acts on the system itself.
    pub(super) collection: Option<&'a str>,
    pub(super) id: ResourceId,
    /// JSON pointer to the argument that holds the id.
    pub(super) id_pointer: Option<&'a str>,
    pub(super) labels: Cow<'a, [String]>,
    /// The destinations that policies can tell apart, the worst first; none where the operation has no destination
    /// rule.
    pub(super) destinations: JudgedDestinations<'a>,
    /// The highest tier of a call in which all destinations are trusted, as the user or a recipient list vouches for each; none:
    /// in no call.
    pub(super) trusted: Option<Tier>,
    /// What the call moves between client and server.
    pub(super) traffic: Traffic,
}

impl Resolved<'_> {
    /// Whether it acts on what a task credential names so: `<collection>/<id>`, or the collection as a whole; none: the
    /// system.
    pub(super) fn is_named(&self, name: Option<&str>) -> bool {
        match (self.collection, name) {
            (Some(collection), Some(name)) => is_named(collection, &self.id.key, name),
            (collection, name) => collection.is_none() && name.is_none(),
        }
    }
}

/// Destinations that differ in class or host.
pub(super) type JudgedDestinations<'a> = SmallVec<[ClassifiedDestination<'a>; 1]>;

/// The class as policies see it.
pub(super) fn class<'a>(placed: Option<&ClassifiedDestination<'a>>) -> &'a str {
    placed.map(|placed| placed.class).filter(|class| !class.is_empty()).unwrap_or(NO_DESTINATION)
}

#[expect(clippy::too_many_arguments, reason = "one call, and each is another thing")]
pub(super) fn resolve<'a>(
    plan: &'a Plan,
    operation: &'a Operation,
    prepared: &Prepared,
    arguments: Arguments,
    facts: &Facts<'_>,
    request: &Request<'_>,
    now: Time,
    decision: &mut Decision,
) -> Result<Resolved<'a>, RequestRefusal> {
    let arguments = Arc::new(arguments);
    decision.arguments_digest = Some(arguments.digest());
    decision.arguments = Some(Arc::clone(&arguments));
    check_spelling(prepared, &arguments)?;
    let written = facts.history.and_then(|view| view.object);
    let written = written.into_iter().flat_map(|object| object.labels(now));
    let written = written.map(|(label, _)| label);
    let (resource, collection, id, labels) =
        resource(plan, operation, &arguments, request, written)?;
    let id_pointer = operation.resource.as_ref().and_then(|rule| rule.id.as_deref());
    decision.resource = resource.uid();
    let traffic = plan.traffic(operation, &arguments);
    let (destinations, trusted) = match &operation.destination {
        Some(_) if !traffic.sends && request.destinations.is_empty() => {
            (JudgedDestinations::new(), None)
        }
        None if request.destinations.is_empty() => (JudgedDestinations::new(), None),
        None => {
            return Err(bad(format!(
                "`{}` sends data nowhere, so no destination may be named",
                operation.id
            )));
        }
        Some(rule) => {
            let read = prepared.slice.keys.contains(Key::Destination);
            let vouching = read.then(|| Vouching::of(plan, facts)).flatten();
            let known = (facts.recipient_lists, now);
            let all = &mut decision.destinations;
            distinct(plan, rule, &arguments, vouching, known, request, all)?
        }
    };
    if let Some(placed) = destinations.first() {
        placed.class.clone_into(&mut decision.destination_class);
    }
    Ok(Resolved {
        arguments,
        resource,
        collection,
        id,
        id_pointer,
        labels,
        destinations,
        trusted,
        traffic,
    })
}

impl Resolved<'_> {
    /// What tells the instances of rules apart.
    pub(super) fn subject<'b>(&'b self, task: TaskView<'b>) -> EventSubject<'b> {
        let arguments = self.arguments.json();
        EventSubject {
            task: &task.task.id,
            is_started: task.task.kind.is_started(),
            inherits: task.inherits(),
            arguments,
            collection: self.collection,
            id: &self.id.key,
            older_ids: &self.id.older,
            id_pointer: self.id_pointer,
        }
    }
}

pub(super) fn bad(message: impl Into<String>) -> RequestRefusal {
    RequestRefusal::new(ReasonCode::BadInput, message)
}

/// What a request acts on: as policies see it, and its collection, id and labels.
type Acted<'a> = (Known, Option<&'a str>, ResourceId, Cow<'a, [String]>);

/// Args:
/// * `written`: labels that it carries because of who wrote it.
fn resource<'a, 'b>(
    plan: &'a Plan,
    operation: &'a Operation,
    arguments: &Arguments,
    request: &Request<'_>,
    written: impl Iterator<Item = &'b str>,
) -> Result<Acted<'a>, RequestRefusal> {
    if operation.system == OWN_SYSTEM && operation.id.starts_with(GIVE) {
        let assignee = AgentName::parse(request.resource.unwrap_or_default())
            .map_err(|why| bad(format!("the resource is not the SPIFFE id of an agent: {why}")))?;
        let known = Known::clone(&plan.principal(&assignee.principal()));
        return Ok((known, None, ResourceId::default(), Cow::Borrowed(&[])));
    }
    let Some(rule) = &operation.resource else {
        return match request.resource {
            None | Some("") => {
                let known = match operation.id.strip_prefix(START) {
                    Some(template) => plan.words.template(template),
                    None => plan.words.system(&operation.system),
                };
                Ok((known, None, ResourceId::default(), Cow::Borrowed(&[])))
            }
            Some(_) => Err(bad(format!(
                "`{}` acts on no collection, so no resource may be named",
                operation.id
            ))),
        };
    };
    let (collection, id) = (&rule.collection, resource_id(operation, rule, arguments, request)?);
    let mut labels = plan.labels(collection, &id.key);
    for label in written {
        if !labels.iter().any(|known| known == label) {
            labels.to_mut().push(label.to_owned());
        }
    }
    let names = labels.iter().map(String::as_str);
    let known = plan.words.resource(&operation.system, collection, &id.key, names);
    Ok((known, Some(collection), id, labels))
}

/// The id of a resource within its collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResourceId {
    /// The key under which everything knows it; empty: the collection as a whole.
    pub(super) key: String,
    /// Other keys that records of it may have, which were written before ids had one spelling, or before their collection
    /// folded case. At most two.
    pub(super) older: SmallVec<[String; 2]>,
}

impl ResourceId {
    /// Args:
    /// * `text`: in its one spelling.
    fn of(text: &str, spelling: Spelling) -> Self {
        let mut older = SmallVec::new();
        let key = match spelling {
            Spelling::Exact => Cow::Borrowed(text),
            Spelling::Fold => spelling::fold(text),
        };
        if key != text {
            older.push(text.to_owned());
        }
        // A leading slash is not a part of an id.
        if let Some(rest) = text.strip_prefix('/') {
            older.push(rest.to_owned());
        }
        Self { key: key.into_owned(), older }
    }
}

/// The id that the arguments or the request name within the collection.
fn resource_id(
    operation: &Operation,
    rule: &ResourceRule,
    arguments: &Arguments,
    request: &Request<'_>,
) -> Result<ResourceId, RequestRefusal> {
    let text = match (rule.id.as_deref(), request.resource) {
        (Some(_), Some(given)) if !given.is_empty() => {
            return Err(bad("the arguments name the resource, so the request may not"));
        }
        (Some(pointer), _) => match arguments.json().pointer(pointer) {
            // The root of the folders is the collection as a whole.
            Some(Json::String(text)) if text == "/" && operation.origins.is_folder(pointer) => {
                return Ok(ResourceId::default());
            }
            Some(Json::String(text)) => text.as_str(),
            // INVARIANT (typed): a number and its digits are one id.
            Some(Json::Integer(value)) => {
                return Ok(ResourceId { key: value.to_string(), older: SmallVec::new() });
            }
            Some(_) => {
                return Err(bad(format!(
                    "argument `{pointer}` names the resource: expected a text or integer"
                )));
            }
            None => {
                return Err(bad(format!("argument `{pointer}` names the resource, and is absent")));
            }
        },
        (None, Some(given)) if !given.is_empty() => given,
        (None, _) => return Ok(ResourceId::default()),
    };
    spelling::check_id(text).map_err(|why| bad(format!("the resource id: {}", why.what)))?;
    Ok(ResourceId::of(text, rule.spelling))
}

/// Holds that the arguments that rules and budgets tell events apart by, and the URI of `resources/read`, are in their one
/// spelling.
fn check_spelling(prepared: &Prepared, arguments: &Arguments) -> Result<(), RequestRefusal> {
    if let Some(Json::String(uri)) =
        prepared.uri.and_then(|pointer| arguments.json().pointer(pointer))
    {
        spelling::check_uri(uri).map_err(|why| {
            let what = format!("the URI of the resource: {}", why.what);
            RequestRefusal::new(ReasonCode::AmbiguousRequest, what)
        })?;
    }
    for pointer in &*prepared.keys {
        let check = |value: &Json| match value {
            Json::String(text) => spelling::check_id(text).map_err(|why| {
                let what = why.what;
                bad(format!("argument `{pointer}`, which a rule or budget goes by: {what}"))
            }),
            _ => Ok(()),
        };
        match arguments.json().pointer(pointer) {
            Some(Json::Array(items)) => items.iter().try_for_each(check)?,
            Some(value) => check(value)?,
            None => {}
        }
    }
    Ok(())
}

/// A resource in the one way to write it: `<collection>/<id>`, or the collection as a whole.
fn named(collection: &str, id: &str) -> String {
    match id {
        "" => collection.to_owned(),
        id => [collection, "/", id].concat(),
    }
}

/// Whether a text is the one that [`named`] writes.
fn is_named(collection: &str, id: &str, name: &str) -> bool {
    match name.strip_prefix(collection) {
        Some("") => id.is_empty(),
        Some(rest) => !id.is_empty() && rest.strip_prefix('/') == Some(id),
        None => false,
    }
}

impl Plan {
    /// The resource that a decision was about: `<collection>/<id>`, or the collection as a whole; none where the operation
    /// acts on none.
    ///
    /// Args:
    /// * `decision`: one that this plan made of `request`; of one that could not be resolved nothing is told.
    #[must_use]
    pub fn resource_of(&self, decision: &Decision, request: &Request<'_>) -> Option<String> {
        let arguments = decision.arguments.as_deref()?;
        let operation = self.operation(&decision.operation)?;
        let rule = operation.resource.as_ref()?;
        let id = resource_id(operation, rule, arguments, request).ok()?;
        Some(named(&rule.collection, &id.key))
    }
}

impl Plan {
    /// The records that keep what was written into what a request would act on; none where nothing that is written there has
    /// labels, or the request cannot be resolved.
    #[must_use]
    pub fn objects_of(&self, request: &Request<'_>) -> Option<ObjectKeys> {
        let Chosen { operation, prepared, arguments } = split::choose(self, request).ok()?;
        let rule = operation.resource.as_ref().filter(|_| prepared.memory.objects)?;
        let arguments = match arguments {
            Some(arguments) => arguments,
            None => split::read(self, (operation, prepared), request).ok()?,
        };
        let id = resource_id(operation, rule, &arguments, request).ok()?;
        let keys = ObjectKeys::of(&rule.collection, &id.key);
        Some(keys.with_older(&rule.collection, &id.older))
    }

    /// The records of the data that agents wrote into a resource.
    ///
    /// Args:
    /// * `id`: in any spelling that its collection takes.
    #[must_use]
    pub fn object_keys(&self, collection: &str, id: &str) -> ObjectKeys {
        let declared = self.model().collections.get(collection);
        let spelling = declared.map(|declared| declared.spelling).unwrap_or_default();
        ObjectKeys::of(collection, &ResourceId::of(id, spelling).key)
    }
}

/// All destinations that policies can tell apart: each is judged, since one recipient must not hide another.
///
/// Args: `all`: takes every one of them, sorted, also those that policies cannot tell apart.
fn distinct<'a>(
    plan: &'a Plan,
    rule: &'a DestinationRule,
    arguments: &Arguments,
    vouching: Option<Vouching<'_>>,
    (recipient_lists, now): (Option<&RecipientLists>, Time),
    request: &Request<'_>,
    all: &mut Vec<String>,
) -> Result<(JudgedDestinations<'a>, Option<Tier>), RequestRefusal> {
    let named = named_destinations(rule, arguments, request)?;
    if named.is_empty() {
        let class = if rule.when_absent.is_empty() {
            plan.destinations().least_trusted()
        } else {
            Some(rule.when_absent.as_str())
        };
        let nowhere = ClassifiedDestination {
            class: class.unwrap_or_default(),
            canonical: String::new(),
            host: String::new(),
        };
        return Ok((JudgedDestinations::from_iter([nowhere]), None));
    }
    let model = plan.model();
    let has_recipient_lists = !model.recipient_lists.is_empty();
    let mut distinct = JudgedDestinations::new();
    let mut trusted = vouching.map(|_| Tier::Critical);
    for raw in named {
        let CanonicalDestination { text: canonical, host } =
            canonical(rule.kind, raw).map_err(|error| bad(format!("a destination: {error}")))?;
        let query = has_recipient_lists
            .then(|| RecipientListQuery::new(recipient_lists, rule.kind, &canonical, now));
        let query = query.as_ref();
        // All of them, also those that policies cannot tell apart.
        trusted = trusted.and_then(|tier| {
            let vouched = vouching?.vouches((rule.kind, raw, &canonical), query)?;
            Some(tier.min(vouched))
        });
        let mut classes = plan.destinations().classes(rule.kind, &canonical, query);
        if let Err(place) = all.binary_search(&canonical) {
            all.insert(place, canonical.clone());
        }
        let last = classes.pop().unwrap_or_default();
        for class in classes {
            add(
                &mut distinct,
                ClassifiedDestination { class, canonical: canonical.clone(), host: host.clone() },
            )?;
        }
        add(&mut distinct, ClassifiedDestination { class: last, canonical, host })?;
    }
    // Of two clearances of which one holds the other, the held one is the smaller: so by size, then by name.
    let clearance =
        |class: &str| plan.model().destinations.get(class).map_or(0, |class| class.clearance.len());
    distinct.sort_by(|a, b| {
        (clearance(a.class), a.class, &a.host).cmp(&(clearance(b.class), b.class, &b.host))
    });
    Ok((distinct, trusted))
}

/// Adds a destination, unless policies cannot distinguish it from an earlier destination.
fn add<'a>(
    distinct: &mut JudgedDestinations<'a>,
    placed: ClassifiedDestination<'a>,
) -> Result<(), RequestRefusal> {
    if distinct.iter().any(|known| known.class == placed.class && known.host == placed.host) {
        return Ok(());
    }
    if distinct.len() >= MAX_DISTINCT {
        return Err(bad(format!(
            "more than {MAX_DISTINCT} destinations that differ in class or host"
        )));
    }
    distinct.push(placed);
    Ok(())
}

/// The destinations that the arguments or the request name, as they are written there.
pub(super) fn named_destinations<'a>(
    rule: &DestinationRule,
    arguments: &'a Arguments,
    request: &Request<'a>,
) -> Result<Vec<&'a str>, RequestRefusal> {
    let mut named: Vec<&str> = Vec::new();
    if rule.from.is_empty() {
        named.extend(request.destinations);
    } else if !request.destinations.is_empty() {
        return Err(bad("the arguments name the destinations, so the request may not"));
    }
    for pointer in &rule.from {
        match arguments.json().pointer(pointer) {
            None | Some(Json::Null) => {}
            Some(Json::String(text)) => named.push(text),
            Some(Json::Array(items)) => {
                for item in items {
                    let Json::String(text) = item else {
                        return Err(bad(format!(
                            "argument `{pointer}` names destinations: expected texts"
                        )));
                    };
                    named.push(text);
                }
            }
            Some(_) => {
                return Err(bad(format!(
                    "argument `{pointer}` names destinations: expected texts"
                )));
            }
        }
        if named.len() > MAX_DESTINATIONS {
            break;
        }
    }
    if named.len() > MAX_DESTINATIONS {
        return Err(bad(format!("more than {MAX_DESTINATIONS} destinations")));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_without_being_written() {
        let parts = ["", "a", "b", "a/b", "/", "a/", "/b", "aa", "a/a"];
        for collection in &parts[1..] {
            for id in parts {
                let name = named(collection, id);
                for other in parts.iter().map(|part| (*part).to_owned()).chain([
                    name.clone(),
                    format!("{name}/"),
                    format!("{name}a"),
                    format!("{collection}/"),
                ]) {
                    let told = is_named(collection, id, &other);
                    assert_eq!(name == other, told, "{collection:?} {id:?} {other:?}");
                }
            }
        }
    }
}
