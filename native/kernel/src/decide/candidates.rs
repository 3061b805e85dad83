//! Origins of candidate values, for people who ask why a value of a task is, or is not, named.
//!
//! A task keeps keyed hashes and no prompt: a value can be checked against them, and none can be listed.

use std::collections::BTreeSet;
use std::fmt;

use super::origin::{MAX_VALUES, OriginFacts, OriginSource, TypedValue, origin_of};
use crate::decision::{Facts, Time};
use crate::history::ValueMarks;
use crate::json::Value as Json;
use crate::model::{
    DestinationKind, ObjectRule, Operation, Origin, Spelling, Tier, ValueRole, ValueSpace,
};
use crate::plan::Plan;
use crate::task::{Nouns, SampleValue, Speaker};

/// Collections that an error lists.
const SHOWN: usize = 12;

/// A value whose origin somebody asks for.
#[derive(Clone, Copy, Debug)]
pub struct CandidateValue<'a> {
    /// `email:…`, `url:…`, `iban:…`, `account:…`, `path:…`, `amount:EUR 870` or `<collection>/<id>`; with `collection` an id.
    pub value: &'a str,
    /// System of an id or an amount. Default: each of the bundle.
    pub system: Option<&'a str>,
    /// Collection of the id. Default: the value names it.
    pub collection: Option<&'a str>,
}

/// Where a candidate value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateOrigin {
    /// The best origin that the value has in a system, as a call of a low tier that only writes sees it.
    pub origin: Origin,
    /// System of the value; empty for a destination.
    pub system: String,
    /// Source of the origin; empty if there is none.
    pub why: String,
    /// What the origin `named` lacks; empty if the value is named.
    pub missing: String,
}

/// A candidate that no call can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateError(String);

impl fmt::Display for CandidateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CandidateError {}

/// Looks up the origin of a candidate value in a task.
///
/// Args: `facts`: task, history, words and recipient lists, as a decision has them.
///
/// # Errors
/// The value has none of the forms, or the bundle has no such system or collection.
pub fn origin_of_candidate(
    plan: &Plan,
    facts: &Facts<'_>,
    candidate: &CandidateValue<'_>,
    now: Time,
) -> Result<CandidateOrigin, CandidateError> {
    let operations = operations_of(plan, candidate.system)?;
    let sources = OriginFacts::of(plan, facts, (now, Tier::Low), true);
    let value = match candidate.collection {
        Some(collection) => SampleValue::Id { collection, id: candidate.value },
        None => SampleValue::parse(candidate.value)
            .map_err(|error| CandidateError(error.to_string()))?,
    };
    match value {
        SampleValue::Destination { kind, raw, .. } => {
            Ok(of_destination(kind, raw, &operations, &sources))
        }
        SampleValue::Amount { currency, number, .. } => {
            let all = amount_rules(&operations);
            Ok(best(&all, &Json::String(number.to_owned()), currency, &sources))
        }
        SampleValue::Id { collection, id } => {
            let all = id_rules(plan, &operations, collection)?;
            Ok(best(&all, &Json::String(id.to_owned()), None, &sources))
        }
    }
}

/// A rule by which arguments of a system carry a value.
struct PlacedRule<'a> {
    system: &'a str,
    rule: ObjectRule,
}

/// The operations of a system, or of all.
fn operations_of<'p>(
    plan: &'p Plan,
    system: Option<&str>,
) -> Result<Vec<&'p Operation>, CandidateError> {
    let all = plan.model().operations.iter();
    let operations: Vec<&Operation> =
        all.filter(|one| system.is_none_or(|system| one.system == system)).collect();
    match system {
        Some(system) if operations.is_empty() => {
            Err(CandidateError(format!("the bundle has no operation of a system `{system}`")))
        }
        _ => Ok(operations),
    }
}

/// Rules for amounts; one without nouns where the bundle has none.
fn amount_rules<'p>(operations: &[&'p Operation]) -> Vec<PlacedRule<'p>> {
    let space = ValueSpace::Role(ValueRole::Amount);
    // The candidate is in units of its currency, also if the operation's arguments are in another unit.
    let in_units = |rule: &ObjectRule| ObjectRule { scale: 1, ..rule.clone() };
    let rules = operations.iter().flat_map(|operation| {
        let rules = operation.origins.objects.iter().filter(|rule| rule.space == space);
        rules.map(|rule| PlacedRule { system: &operation.system, rule: in_units(rule) })
    });
    let mut rules: Vec<PlacedRule<'p>> = rules.take(MAX_VALUES).collect();
    if rules.is_empty() {
        let rule =
            rule_of(ValueSpace::Role(ValueRole::Amount), ValueRole::Amount, Nouns::default());
        rules.push(PlacedRule { system: "", rule });
    }
    rules
}

/// Rules for ids of a collection, in each system that has arguments or results with such ids.
fn id_rules<'p>(
    plan: &Plan,
    operations: &[&'p Operation],
    collection: &str,
) -> Result<Vec<PlacedRule<'p>>, CandidateError> {
    let mut rules: Vec<PlacedRule<'p>> = Vec::new();
    let mut seen: BTreeSet<(&str, bool)> = BTreeSet::new();
    for operation in operations {
        for (space, rule) in spaces_of(operation) {
            let ValueSpace::Collection { name, spelling } = &space else { continue };
            if name != collection {
                continue;
            }
            if let Some(rule) = rule {
                rules.push(PlacedRule { system: &operation.system, rule: rule.clone() });
            } else if seen.insert((&operation.system, *spelling == Spelling::Fold)) {
                let nouns = Nouns::of(&[collection]);
                let rule = rule_of(space, ValueRole::Target, nouns);
                rules.push(PlacedRule { system: &operation.system, rule });
            }
        }
    }
    rules.truncate(MAX_VALUES);
    if !rules.is_empty() {
        return Ok(rules);
    }
    let names = plan.model().operations.iter().flat_map(|operation| {
        spaces_of(operation).into_iter().filter_map(|(space, _)| match space {
            ValueSpace::Collection { name, .. } => Some(name),
            ValueSpace::Destination(_) | ValueSpace::Role(_) => None,
        })
    });
    let names: BTreeSet<String> = names.collect();
    let known = match names.is_empty() {
        true => "the bundle has none".to_owned(),
        false => {
            let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
            format!("collections with values: {}", shown.join(", "))
        }
    };
    Err(CandidateError(format!(
        "no operation has a value of the collection `{collection}`; {known}"
    )))
}

/// Namespaces of the values of an operation, with the rule of its arguments.
fn spaces_of(operation: &Operation) -> Vec<(ValueSpace, Option<&ObjectRule>)> {
    let collection = |name: &String, spelling: Spelling| {
        (ValueSpace::Collection { name: name.clone(), spelling }, None)
    };
    let origins = &operation.origins;
    let objects = origins.objects.iter().map(|rule| (rule.space.clone(), Some(rule)));
    let resource =
        operation.resource.iter().map(|rule| collection(&rule.collection, rule.spelling));
    let creates = origins.creates.iter().map(|rule| collection(&rule.collection, rule.spelling));
    let pairs = origins.pairs.iter().map(|rule| collection(&rule.collection, rule.spelling));
    let introduces = origins.introduces.iter().map(|rule| (rule.space.clone(), None));
    objects.chain(resource).chain(creates).chain(pairs).chain(introduces).collect()
}

fn rule_of(space: ValueSpace, role: ValueRole, nouns: Nouns) -> ObjectRule {
    ObjectRule {
        from: Vec::new(),
        role,
        space,
        currency: None,
        scale: 1,
        when_absent: Origin::Unknown,
        nouns,
    }
}

fn of_destination(
    kind: DestinationKind,
    raw: &str,
    operations: &[&Operation],
    sources: &OriginFacts<'_>,
) -> CandidateOrigin {
    let space = ValueSpace::Destination(kind);
    let plain = TypedValue::of_destination(&space, kind, raw);
    // Arguments have nouns, by which a prompt may call an account: "account 4711".
    let rules: Vec<&ObjectRule> = operations
        .iter()
        .flat_map(|operation| &operation.origins.objects)
        .filter(|rule| rule.space == space)
        .take(MAX_VALUES)
        .collect();
    let json = Json::String(raw.to_owned());
    let others = rules.iter().filter_map(|rule| TypedValue::of_object("", rule, &json, None));
    let all: Vec<TypedValue<'_>> = [plain].into_iter().chain(others).collect();
    told(&all, sources)
}

/// The best origin of a value by any of these rules.
fn best(
    rules: &[PlacedRule<'_>],
    value: &Json,
    currency: Option<&str>,
    sources: &OriginFacts<'_>,
) -> CandidateOrigin {
    let values = rules
        .iter()
        .filter_map(|placed| TypedValue::of_object(placed.system, &placed.rule, value, currency));
    told(&values.collect::<Vec<_>>(), sources)
}

fn told(values: &[TypedValue<'_>], sources: &OriginFacts<'_>) -> CandidateOrigin {
    let origins = values.iter().map(|value| (origin_of(value, sources), value));
    let Some((origin, value)) = origins.min_by_key(|(origin, _)| *origin) else {
        let missing = "the value is not written in a form of its kind".to_owned();
        let (system, why) = (String::new(), String::new());
        return CandidateOrigin { origin: Origin::Unknown, system, why, missing };
    };
    let source = sources.source(value, origin);
    let missing = match origin {
        Origin::Named => String::new(),
        Origin::Claimed => "the user's own word: only an agent says that the user named it. The user, or a front end \
                            (`relays: [prompt]`), must start or extend the task"
            .to_owned(),
        Origin::Known | Origin::Made | Origin::Introduced | Origin::Unknown => {
            missing_of(value, sources)
        }
    };
    let has_source = source != OriginSource::Nothing;
    let system = if has_source { value.system.to_owned() } else { String::new() };
    CandidateOrigin { origin, system, why: why_of(source), missing }
}

fn why_of(source: OriginSource<'_>) -> String {
    let said = |by: Speaker, user: &str| match by {
        Speaker::Subject | Speaker::FrontEnd => format!("the user's prompt or parameters {user}"),
        Speaker::Harness => {
            format!(
                "the prompt that a harness relays {user}; above tier standard the value is `claimed`"
            )
        }
        Speaker::Agent => format!("the prompt that an agent claims {user}"),
    };
    match source {
        OriginSource::Template => "the template of the task lists it in `names`".to_owned(),
        OriginSource::Name(by) => said(by, "have it as a name"),
        OriginSource::Words(by) => said(by, "have its words in order"),
        OriginSource::Alias(by) => said(by, "have its alias in a recipient list"),
        OriginSource::RecipientList(name) => format!("the recipient list `{name}` has it"),
        OriginSource::Report(marks) => by_report(marks).to_owned(),
        OriginSource::Nothing => String::new(),
    }
}

/// Best origin that reports gave to a value.
fn by_report(marks: ValueMarks) -> &'static str {
    let all = [
        (ValueMarks::NAMED, "a report paired it with a name whose words the user's prompt has"),
        (
            ValueMarks::NAMED_BY_HARNESS,
            "a report paired it with a name whose words stand in a prompt that a harness relays; above tier standard the value \
             is `claimed`",
        ),
        (
            ValueMarks::MADE,
            "a report says that a call of the session made it; it counts where a call only writes or deletes",
        ),
        (ValueMarks::INTRODUCED, "a report had it in a declared field of a result"),
        (
            ValueMarks::INTRODUCED_BY_HARNESS,
            "a report had it in a declared field of a result, by an author whom a harness names; above tier standard the value \
             is `claimed`",
        ),
    ];
    all.into_iter().find(|(mark, _)| marks.has(*mark)).map_or("a report had it", |(_, why)| why)
}

/// What the origin `named` lacks.
fn missing_of(value: &TypedValue<'_>, sources: &OriginFacts<'_>) -> String {
    let is_mentioned = sources.speaker_of_mention(value).is_some();
    let is_numeric =
        value.written.bytes().all(|byte| byte.is_ascii_digit() || b".,".contains(&byte));
    let text = match value.space {
        ValueSpace::Role(ValueRole::Amount) if is_mentioned => {
            "the number stands in the prompt, but not as this amount: it needs its currency (`870 euros`) or its noun (`amount \
             870`)"
        }
        ValueSpace::Role(ValueRole::Amount) => {
            "no prompt or parameter of the task has this amount. A number needs its currency (`870 euros`) or its noun (`amount \
             870`)"
        }
        ValueSpace::Destination(
            DestinationKind::Email | DestinationKind::UrlHost | DestinationKind::Iban,
        ) => {
            "no prompt, parameter or template of the task has it. Words of negated and quoted sentences name nothing"
        }
        _ if is_mentioned && is_numeric => {
            "the number stands in the prompt, but without its noun: write `order 4711` or `#4711`"
        }
        _ if is_mentioned => {
            "its word stands in the prompt, but may mean something else: it needs its noun (`folder invoices`), quotation marks \
             or backticks"
        }
        _ => {
            "no prompt or parameter of the task has its words in order. Words of negated and quoted sentences name nothing"
        }
    };
    text.to_owned()
}
