//! What the validator does not see: names that nothing declares, and policies that could never match.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use authz_bundle::bundle::Bundle;

use super::Placed;
use crate::arguments::{ArgumentType, Member};
use crate::decision::PolicyEffect;
use crate::diagnostic::{Diagnostics, unknown, unknown_word};
use crate::evaluate::syntax::{ActionScope, Idle, Path, PathRoot, PolicyEntity, PolicyReading};
use crate::json;
use crate::model::{
    EXCEPTION_TYPE, EventPattern, Location, Model, Operation, Origin, OriginSet, Spelling,
};
use crate::schema::{BUILT_IN_KINDS, GIVE, Key, START, SchemaNames, attributes, attributes_of_key};
use crate::spelling;

/// Operations and groups, as policies name them.
#[derive(Debug, Default)]
pub(crate) struct Catalog<'a> {
    /// Operation id → position.
    pub(crate) operations: HashMap<&'a str, usize>,
    /// Action group → positions of its operations.
    pub(crate) groups: BTreeMap<&'a str, Vec<usize>>,
    /// Arguments by position.
    pub(crate) inputs: Vec<&'a BTreeMap<String, Member>>,
    /// What each operation acts on, by position.
    pub(crate) targets: Vec<Target<'a>>,
    /// All argument names.
    pub(crate) arguments: BTreeSet<&'a str>,
}

/// What an operation acts on.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) system: &'a str,
    /// None: the system itself.
    pub(crate) collection: Option<&'a str>,
    /// Whether it sends data somewhere.
    pub(crate) destination: bool,
    /// Whether it gives a task to an agent, which is its resource.
    pub(crate) is_given: bool,
}

/// The operations that a policy's action scope covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Covered {
    /// All.
    All,
    /// Positions, sorted, each once.
    Of(Vec<usize>),
}

impl Covered {
    /// Whether the operation at a position is among them.
    pub(crate) fn contains(&self, position: usize) -> bool {
        match self {
            Self::All => true,
            Self::Of(positions) => positions.binary_search(&position).is_ok(),
        }
    }

    /// What of a list by position belongs to the operations.
    fn of<'b, T>(&'b self, list: &'b [T]) -> Box<dyn Iterator<Item = &'b T> + 'b> {
        match self {
            Self::All => Box::new(list.iter()),
            Self::Of(positions) => Box::new(positions.iter().filter_map(|i| list.get(*i))),
        }
    }
}

/// Checks one policy; gives what its scope covers, or none where something is wrong.
pub(crate) fn check(
    placed: &Placed,
    catalog: &Catalog<'_>,
    names: &SchemaNames,
    bundle: &Bundle,
    diagnostics: &mut Diagnostics,
) -> Option<Covered> {
    let mut own = Diagnostics::new();
    let covered = check_all(placed, catalog, names, bundle, &mut own);
    let wrong = own.has_errors();
    diagnostics.append(own);
    // The validator would only repeat what is wrong already.
    covered.filter(|_| !wrong)
}

fn check_all(
    placed: &Placed,
    catalog: &Catalog<'_>,
    names: &SchemaNames,
    bundle: &Bundle,
    diagnostics: &mut Diagnostics,
) -> Option<Covered> {
    let model = bundle.model();
    let policy = &placed.policy;
    let reading = &policy.reading;
    if reading.too_large {
        diagnostics.error(
            &placed.at,
            "the policy has more than 10,000 nodes, or nests deeper than 200",
            "Split it.",
        );
        return None;
    }
    let covered = scope(placed, catalog, diagnostics)?;
    for name in &reading.names {
        named(placed, name, catalog, names, bundle, diagnostics);
        reached(placed, name, &covered, catalog, model, diagnostics);
    }
    keys(placed, catalog, diagnostics);
    for input in &reading.inputs {
        let exists = match &covered {
            Covered::All => catalog.arguments.contains(input.name.as_str()),
            Covered::Of(list) => list
                .iter()
                .filter_map(|index| catalog.inputs.get(*index))
                .any(|members| members.contains_key(&input.name)),
        };
        if !exists {
            let declared: BTreeSet<&str> = match &covered {
                Covered::All => catalog.arguments.clone(),
                Covered::Of(list) => list
                    .iter()
                    .filter_map(|index| catalog.inputs.get(*index))
                    .flat_map(|members| members.keys().map(String::as_str))
                    .collect(),
            };
            let declared = declared.into_iter().map(|name| (name, None));
            let (what, fix) = unknown("argument", &input.name, declared);
            let what = format!(
                "{what}: no operation in the policy's scope has it, so the policy could never match"
            );
            diagnostics.error(&placed.place(input.offset), what, fix);
        }
    }
    for path in &reading.paths {
        path_of(placed, path, &covered, catalog, diagnostics);
    }
    masks(placed, &covered, catalog, diagnostics);
    idle(placed, diagnostics);
    origins(placed, diagnostics);
    stepup(placed, names, diagnostics);
    super::covers::check(placed, &covered, catalog, diagnostics);
    Some(covered)
}

fn scope(placed: &Placed, catalog: &Catalog<'_>, diagnostics: &mut Diagnostics) -> Option<Covered> {
    let ActionScope::Of(ids) = &placed.policy.reading.actions else { return Some(Covered::All) };
    let mut covered: BTreeSet<usize> = BTreeSet::new();
    let mut empty: Vec<&str> = Vec::new();
    for id in ids {
        if let Some(index) = catalog.operations.get(id.as_str()) {
            covered.insert(*index);
        } else if let Some(indices) = catalog.groups.get(id.as_str()) {
            if indices.is_empty() {
                empty.push(id);
            }
            covered.extend(indices);
        }
        // What is neither is reported as an unknown name.
    }
    for group in &empty {
        let offset = offset_of(placed, group);
        diagnostics.error(
            &placed.place(offset),
            format!("the action group `{group}` is empty: no operation is in it, so the policy could never match"),
            "Classify an operation into it, or remove it from the policy.",
        );
    }
    if ids.is_empty() {
        diagnostics.error(
            &placed.at,
            "`action in []` covers no operation, so the policy could never match",
            "Name an operation or an action group.",
        );
    }
    if covered.is_empty() && empty.is_empty() && !ids.is_empty() {
        for name in placed.policy.reading.names.iter().filter(|name| name.kind == "Action") {
            action(placed, name, catalog, diagnostics);
        }
    }
    (!covered.is_empty()).then(|| Covered::Of(covered.into_iter().collect()))
}

fn offset_of(placed: &Placed, action: &str) -> usize {
    let mut names = placed.policy.reading.names.iter();
    names.find(|name| name.kind == "Action" && name.id == action).map_or(0, |name| name.offset)
}

fn action(
    placed: &Placed,
    name: &PolicyEntity,
    catalog: &Catalog<'_>,
    diagnostics: &mut Diagnostics,
) {
    let id = name.id.as_str();
    if catalog.operations.contains_key(id) || catalog.groups.contains_key(id) {
        return;
    }
    let of_template = [START, GIVE].into_iter().find(|prefix| id.starts_with(prefix));
    let (what, fix) = if let Some(prefix) = of_template {
        let starts = catalog.operations.keys().copied().filter(|id| id.starts_with(prefix));
        let declared: BTreeSet<&str> = starts.collect();
        unknown("template", id, declared.into_iter().map(|id| (id, None)))
    } else if id.contains(':') {
        unknown("action group", id, catalog.groups.keys().map(|group| (*group, None)))
    } else {
        let mut declared: Vec<&str> = catalog.operations.keys().copied().collect();
        declared.sort_unstable();
        unknown("operation", id, declared.into_iter().map(|id| (id, None)))
    };
    diagnostics.error(&placed.place(name.offset), what, fix);
}

fn named(
    placed: &Placed,
    name: &PolicyEntity,
    catalog: &Catalog<'_>,
    names: &SchemaNames,
    bundle: &Bundle,
    diagnostics: &mut Diagnostics,
) {
    let model = bundle.model();
    let at = || placed.place(name.offset);
    let id = name.id.as_str();
    match name.kind.as_str() {
        "Action" => action(placed, name, catalog, diagnostics),
        "Agent" => {
            if bundle.tables().roles.agent_roles(id).is_empty() {
                diagnostics.error(
                    &at(),
                    format!("no registration under `agents` matches `Agent::\"{id}\"`, so the policy could never match"),
                    "Register the agent with a role, or correct its SPIFFE id.",
                );
            }
        }
        kind @ ("User" | "Service") => {
            let form =
                id.split_once('/').is_some_and(|(alias, sub)| !alias.is_empty() && !sub.is_empty());
            if !form {
                diagnostics.error(
                    &at(),
                    format!("`{kind}::\"{id}\"` could never match: a subject is named `<issuer alias>/<sub>`"),
                    "Put the issuer's alias before the `sub`.",
                );
            }
        }
        "Resource" => {
            let collection = id.split('/').next().unwrap_or(id);
            if !model.collections.contains_key(collection) {
                let declared =
                    model.collections.iter().map(|(name, c)| (name.as_str(), Some(&c.at)));
                let (what, fix) = unknown("collection", collection, declared);
                diagnostics.error(&at(), what, fix);
            }
        }
        kind => {
            let Some(members) = names.members(kind) else { return };
            if members.contains(id) {
                return;
            }
            let places = places(kind, model);
            let members = members.iter().map(String::as_str);
            let (what, fix) = match is_closed(kind) {
                true => unknown_word(word(kind), id, members),
                false => {
                    let declared = members.map(|member| (member, places.get(member).copied()));
                    unknown(word(kind), id, declared)
                }
            };
            diagnostics.error(&at(), what, fix);
        }
    }
}

/// Refuses a declared name that no operation in the policy's scope has to do with.
fn reached(
    placed: &Placed,
    name: &PolicyEntity,
    covered: &Covered,
    catalog: &Catalog<'_>,
    model: &Model,
    diagnostics: &mut Diagnostics,
) {
    let id = name.id.as_str();
    let any = |test: &dyn Fn(&Target<'_>) -> bool| covered.of(&catalog.targets).any(test);
    // Whether an operation in the scope is one of the events.
    let spends = |events: &[EventPattern]| {
        let is = |operation: &&Operation| {
            let built_in = model.is_built_in(operation);
            events.iter().any(|event| event.matches(operation, built_in))
        };
        let is_covered = |operation: &Operation| match covered {
            Covered::All => true,
            Covered::Of(list) => {
                let position = catalog.operations.get(operation.id.as_str());
                position.is_some_and(|position| list.binary_search(position).is_ok())
            }
        };
        model.operations.iter().filter(is).any(is_covered)
    };
    let (reached, what) = match name.kind.as_str() {
        "Resource" => {
            let (collection, rest) = match id.split_once('/') {
                Some((collection, rest)) => (collection, Some(rest)),
                None => (id, None),
            };
            let Some(declared) = model.collections.get(collection) else { return };
            if let Some(Err(why)) = rest.map(spelling::check_id) {
                let what = format!("`Resource::\"{id}\"` could never match: {}", why.what);
                diagnostics.error(&placed.place(name.offset), what, why.fix);
                return;
            }
            let folds = declared.spelling == Spelling::Fold;
            if let Some(rest) = rest.filter(|_| folds)
                && let Cow::Owned(key) = spelling::fold(rest)
            {
                let what = format!(
                    "`Resource::\"{id}\"` could never match: ids in `{collection}` are compared without case"
                );
                let fix = format!("Write `Resource::\"{collection}/{key}\"`.");
                diagnostics.error(&placed.place(name.offset), what, fix);
                return;
            }
            let acts = any(&|target| target.collection == Some(collection));
            (acts, format!("acts on the collection `{collection}`"))
        }
        "Collection" if model.collections.contains_key(id) => {
            let acts = any(&|target| target.collection == Some(id));
            (acts, format!("acts on the collection `{id}`"))
        }
        "System" if id == crate::schema::OWN_SYSTEM || model.systems.contains_key(id) => {
            (any(&|target| target.system == id), format!("is of the system `{id}`"))
        }
        "Sequence" => {
            let Some(sequence) = model.sequences.get(id) else { return };
            (spends(sequence.last.as_slice()), format!("can complete the sequence `{id}`"))
        }
        "Budget" => {
            let Some(budget) = model.budgets.get(id) else { return };
            (spends(budget.of.as_slice()), format!("spends of the budget `{id}`"))
        }
        "DestinationClass" if model.destinations.contains_key(id) => {
            (any(&|target| target.destination), "has a destination".to_owned())
        }
        _ => return,
    };
    if !reached {
        diagnostics.error(
            &placed.place(name.offset),
            format!("no operation in the policy's scope {what}, so this could never match"),
            "Correct the policy's actions, or the name.",
        );
    }
}

/// Refuses an attribute that nothing in the policy's scope has: in an arm of `||`, Cedar takes a test for it as false.
fn path_of(
    placed: &Placed,
    path: &Path,
    covered: &Covered,
    catalog: &Catalog<'_>,
    diagnostics: &mut Diagnostics,
) {
    let policy = &placed.policy.reading;
    let mut refuse = |kind: &str, name: &str, declared: BTreeSet<&str>| {
        let (what, fix) = unknown(kind, name, declared.into_iter().map(|name| (name, None)));
        let what =
            format!("{what}: nothing in the policy's scope has it, so this could never match");
        diagnostics.error(&placed.place(path.offset), what, fix);
    };
    let mut names = path.names.iter().map(String::as_str);
    let known: BTreeSet<&str> = match path.root {
        PathRoot::Principal => {
            let types = match &policy.principal_type {
                Some(kind) => vec![kind.as_str()],
                None => vec!["User", "Service", "Agent"],
            };
            types.into_iter().flat_map(attributes).collect()
        }
        PathRoot::Resource => {
            let mut types = Vec::new();
            if covered.of(&catalog.targets).any(|target| target.collection.is_some()) {
                types.push("Resource");
            }
            if covered.of(&catalog.targets).any(|target| target.is_given) {
                types.push("Agent");
            }
            types.retain(|kind| policy.resource_type.as_ref().is_none_or(|only| only == kind));
            types.into_iter().flat_map(attributes).collect()
        }
        PathRoot::Context => match names.next() {
            Some(key) if key == Key::Input.as_str() => {
                return member(path, covered, catalog, &mut refuse);
            }
            // An unknown key is reported as such.
            Some(key) if Key::parse(key).is_none() => return,
            Some(key) => attributes_of_key(key).into_iter().collect(),
            None => return,
        },
    };
    match (names.next(), names.next()) {
        (Some(name), _) if !known.contains(name) => refuse("attribute", name, known),
        // What the bundle does not declare has nothing below its attributes.
        (Some(_), Some(name)) => refuse("attribute", name, BTreeSet::new()),
        _ => {}
    }
}

/// Refuses an obligation to mask an argument that no operation in the scope has: a misspelt one would mask nothing.
fn masks(placed: &Placed, covered: &Covered, catalog: &Catalog<'_>, diagnostics: &mut Diagnostics) {
    for pointer in placed.policy.masks() {
        let tokens = json::pointer_tokens(pointer).unwrap_or_default();
        let (first, rest) =
            tokens.split_first().map_or(("", [].as_slice()), |(one, rest)| (one, rest));
        let mut inputs = covered.of(&catalog.inputs);
        let has = |members: &&BTreeMap<String, Member>| {
            members.get(first).is_some_and(|member| has_below(&member.kind, rest))
        };
        if !inputs.any(has) {
            diagnostics.error(
                &placed.at,
                format!("`@obligation` masks `{pointer}`, which no operation in the policy's scope has as an argument"),
                "Write a JSON pointer to an argument, such as `mask_arguments:/salary`.",
            );
        }
    }
}

/// Whether an argument may have a value below these tokens.
fn has_below(kind: &ArgumentType, tokens: &[String]) -> bool {
    let Some((first, rest)) = tokens.split_first() else { return true };
    match kind {
        ArgumentType::Record(members) => {
            members.get(first).is_some_and(|member| has_below(&member.kind, rest))
        }
        ArgumentType::Set(item) => {
            let is_index = first == "*" || first.bytes().all(|byte| byte.is_ascii_digit());
            is_index && has_below(item, rest)
        }
        ArgumentType::Opaque => true,
        _ => false,
    }
}

/// Looks a member of an argument up in all operations at once.
fn member(
    path: &Path,
    covered: &Covered,
    catalog: &Catalog<'_>,
    refuse: &mut dyn FnMut(&str, &str, BTreeSet<&str>),
) {
    let mut level: Vec<&BTreeMap<String, Member>> = covered.of(&catalog.inputs).copied().collect();
    for (depth, name) in path.names.iter().enumerate().skip(1) {
        let found: Vec<&Member> = level.iter().filter_map(|members| members.get(name)).collect();
        if found.is_empty() {
            // An unknown argument is reported as such.
            if depth > 1 {
                let declared = level.iter().flat_map(|members| members.keys());
                refuse("member", name, declared.map(String::as_str).collect());
            }
            return;
        }
        let below = found.into_iter().filter_map(|member| match &member.kind {
            ArgumentType::Record(members) => Some(members),
            _ => None,
        });
        level = below.collect();
    }
}

/// Refuses conditions whose outcome no request changes.
fn idle(placed: &Placed, diagnostics: &mut Diagnostics) {
    let reading = &placed.policy.reading;
    for (idle, offset) in &reading.idle {
        let (what, fix) = match idle {
            Idle::Range { key, from, to, outcome } => (
                format!(
                    "`context.{key}` is a number from {from} to {to}, so this comparison is always {outcome}"
                ),
                "Correct the number, or remove the comparison.",
            ),
            Idle::UpperHost => (
                "`context.destination.host` is in lower case, so this comparison is always false"
                    .to_owned(),
                "Write the host in lower case.",
            ),
        };
        diagnostics.error(&placed.place(*offset), what, fix);
    }
    if let Some(offset) = reading.tags {
        diagnostics.error(
            &placed.place(offset),
            "no entity has tags, so this could never match",
            "Read an attribute, for instance `resource.labels`.",
        );
    }
    if reading.idle.is_empty()
        && let Some(offset) = reading.never
    {
        diagnostics.error(
            &placed.place(offset),
            "this condition is the same for every request, and with it the policy could never match",
            "Correct or remove it.",
        );
    }
}

/// Whether Authz sets all names of an entity type, so that no bundle declares one.
fn is_closed(kind: &str) -> bool {
    matches!(kind, "Effect" | "Origin" | "ProofMethod" | "SubjectProof" | "TaskKind")
}

fn word(kind: &str) -> &str {
    match kind {
        "Role" => "role",
        "Label" => "label",
        "System" => "system",
        "Collection" => "collection",
        "Kind" => "step-up kind",
        "DestinationClass" => "destination class",
        "Template" => "template",
        "TaskKind" => "task kind",
        "ProofMethod" => "proof method",
        "SubjectProof" => "subject proof",
        "Sequence" => "sequence",
        "Budget" => "budget",
        EXCEPTION_TYPE => "exception",
        "Effect" => "effect",
        other => other,
    }
}

fn places<'a>(kind: &str, model: &'a Model) -> HashMap<&'a str, &'a Location> {
    match kind {
        "Role" => model.roles.iter().map(|(name, r)| (name.as_str(), &r.at)).collect(),
        "Label" => model.labels.iter().map(|(name, l)| (name.as_str(), &l.at)).collect(),
        "System" => model.systems.iter().map(|(name, s)| (name.as_str(), &s.at)).collect(),
        "Collection" => model.collections.iter().map(|(name, c)| (name.as_str(), &c.at)).collect(),
        "DestinationClass" => {
            model.destinations.iter().map(|(name, d)| (name.as_str(), &d.at)).collect()
        }
        "Sequence" => model.sequences.iter().map(|(name, s)| (name.as_str(), &s.at)).collect(),
        "Budget" => model.budgets.iter().map(|(name, b)| (name.as_str(), &b.at)).collect(),
        EXCEPTION_TYPE => model.exceptions.iter().map(|(name, e)| (name.as_str(), &e.at)).collect(),
        "Template" => model.templates.iter().map(|(name, t)| (name.as_str(), &t.at)).collect(),
        _ => HashMap::new(),
    }
}

fn keys(placed: &Placed, catalog: &Catalog<'_>, diagnostics: &mut Diagnostics) {
    let reading = &placed.policy.reading;
    if let Some(offset) = reading.whole_context {
        diagnostics.error(
            &placed.place(offset),
            "`context` may be read only by its keys",
            "Read a key, for instance `context.tier`.",
        );
    }
    for read in &reading.key_reads {
        match Key::parse(&read.name) {
            Some(Key::Exception) if !names_exception(reading) => diagnostics.error(
                &placed.place(read.offset),
                "the policy reads `context.exception` and names no exception",
                "Name each exception that it accepts: `context.exception.contains(Exception::\"NAME\")`.",
            ),
            Some(_) => {}
            None => {
                let keys = Key::ALL.iter().map(|key| key.as_str());
                let (what, mut fix) = unknown_word("context key", &read.name, keys);
                if catalog.arguments.contains(read.name.as_str()) {
                    fix = format!(
                        "Arguments are below `input`: write `context.input.{}`.",
                        read.name
                    )
                    .into();
                }
                diagnostics.error(&placed.place(read.offset), what, fix);
            }
        }
    }
}

fn names_exception(reading: &PolicyReading) -> bool {
    reading.names.iter().any(|name| name.kind == EXCEPTION_TYPE)
}

/// A forbid that lets a worse origin pass is an error; a permit that a worse origin makes fire is a warning, since a forbid may
/// cover it.
fn origins(placed: &Placed, diagnostics: &mut Diagnostics) {
    let Some(gap) = &placed.policy.reading.origin_gap else { return };
    // A misspelt name is reported already.
    if gap.witness.is_none() && diagnostics.has_errors() {
        return;
    }
    let is_forbid = placed.policy.effect == PolicyEffect::Forbid;
    let list = |set: OriginSet| set.origins().map(Origin::as_str).collect::<Vec<_>>().join(", ");
    let role = gap.witness.map_or("ROLE", |(role, ..)| role.as_str());
    let good = format!(r#"[Origin::"named", Origin::"known"].containsAll(context.origins.{role})"#);
    let (what, fix) = match gap.witness {
        None => (
            "`context.origins` is compared with something else than a list of origins".to_owned(),
            format!("Compare each role with a list, for example `{good}`."),
        ),
        Some((_, better, worse)) if is_forbid => (
            format!(
                "the forbid fires if the origins of `{role}` are {}, but not if they are {}, which is worse",
                list(better),
                list(worse)
            ),
            format!("List the good origins, and forbid the others: `!{good}`."),
        ),
        Some((_, better, worse)) => (
            format!(
                "the permit fires if the origins of `{role}` are {}, but not if they are {}, which is better",
                list(worse),
                list(better)
            ),
            format!("List the origins that all values may have: `{good}`."),
        ),
    };
    let at = placed.place(gap.offset);
    if is_forbid {
        diagnostics.error(&at, what, fix);
    } else {
        diagnostics.warning(&at, what, fix);
    }
}

fn stepup(placed: &Placed, names: &SchemaNames, diagnostics: &mut Diagnostics) {
    let Some(kind) = &placed.policy.stepup else { return };
    let at = placed.place(placed.policy.stepup_offset);
    let known = names.members("Kind").is_some_and(|kinds| kinds.contains(kind));
    if !known {
        let declared = names.members("Kind").into_iter().flatten();
        let (what, mut fix) =
            unknown("step-up kind", kind, declared.map(|kind| (kind.as_str(), None)));
        if !fix.is_guess() {
            fix = format!("Known are {}, approve:ROLE and reauth:ACR.", BUILT_IN_KINDS.join(", "))
                .into();
        }
        diagnostics.error(&at, what, fix);
    } else if !placed.policy.reading.lifted_by.contains(kind) {
        diagnostics.error(
            &at,
            format!(
                "nothing lifts `@stepup(\"{kind}\")`: the policy would still fire after the step-up"
            ),
            format!("Add `unless {{ context.satisfied.contains(Kind::\"{kind}\") }}`."),
        );
    }
}
