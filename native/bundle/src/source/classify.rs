//! Gives each operation of the catalog its meaning.

use std::collections::{BTreeMap, BTreeSet};

use authz_base::json::pointer_tokens;
use authz_base::pattern::Glob;

use super::build::ModelBuilder;
use super::origins::role;
use super::types::{
    CaseEntry, ClassifyRule, CoercesEntry, CreatesEntry, DestinationFrom, DestinationWord,
    EffectWord, IntroducesEntry, ObjectEntry, PairsEntry, ResourceEntry, SplitEntry, TierWord,
    Yields,
};
use super::yaml::{At, Many};
use crate::built_in::operation_name;
use crate::diagnostic::{Diagnostic, Severity, clip, unknown};
use crate::ids::refuse_operation;
use crate::json_schema::deref;
use crate::model::{
    DestinationKind, DestinationRule, Effect, Location, Operation, ResourceRule, Spelling, Split,
    Tier, ValueRole,
};

/// Rules times operations that are compared; beyond it a bundle is refused rather than slow.
const MOST_COMPARISONS: usize = 50_000_000;

struct OperationRule<'a> {
    file: &'a str,
    rule: &'a ClassifyRule,
    glob: Glob,
    at: Location,
}

const SAY: &str = "Say what the operation does: read, write, …";

/// Content of a rule for one operation, or for one case of a split operation.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    effects: Option<&'a At<Vec<At<EffectWord>>>>,
    tier: Option<&'a At<TierWord>>,
    yields: Option<&'a Yields>,
    resource: Option<&'a ResourceEntry>,
    destination: Option<&'a At<DestinationFrom>>,
    pub(super) objects: Option<&'a Many<At<ObjectEntry>>>,
    pub(super) creates: Option<&'a Many<At<CreatesEntry>>>,
    pub(super) introduces: Option<&'a Many<At<IntroducesEntry>>>,
    pub(super) pairs: Option<&'a Many<At<PairsEntry>>>,
    pub(super) coerces: Option<&'a Many<At<CoercesEntry>>>,
    abortable: bool,
}

impl<'a> Said<'a> {
    fn of(rule: &'a ClassifyRule) -> Self {
        Self {
            effects: rule.effects.as_ref(),
            tier: rule.tier.as_ref(),
            yields: rule.yields.as_ref(),
            resource: rule.resource.as_ref(),
            destination: rule.destination.as_ref(),
            objects: rule.objects.as_ref(),
            creates: rule.creates.as_ref(),
            introduces: rule.introduces.as_ref(),
            pairs: rule.pairs.as_ref(),
            coerces: rule.coerces.as_ref(),
            abortable: rule.abortable,
        }
    }

    fn with(self, case: &'a CaseEntry) -> Self {
        Self {
            effects: case.effects.as_ref().or(self.effects),
            // A case with effects of its own has their tier, unless it says another.
            tier: case.tier.as_ref().or(self.tier.filter(|_| case.effects.is_none())),
            yields: case.yields.as_ref().or(self.yields),
            resource: case.resource.as_ref().or(self.resource),
            destination: case.destination.as_ref().or(self.destination),
            objects: case.objects.as_ref().or(self.objects),
            creates: case.creates.as_ref().or(self.creates),
            introduces: case.introduces.as_ref().or(self.introduces),
            pairs: case.pairs.as_ref().or(self.pairs),
            // Arguments are read before they choose a case.
            coerces: self.coerces,
            abortable: case.abortable.unwrap_or(self.abortable),
        }
    }
}

/// The values that a schema lists for an argument; none where it lists none.
fn enumerated<'a>(root: &'a serde_json::Value, pointer: &str) -> BTreeSet<&'a str> {
    let mut schema = Some(root);
    for token in pointer_tokens(pointer).unwrap_or_default() {
        let object = schema.and_then(|schema| deref(root, schema));
        schema = object.and_then(|object| object.get("properties")?.get(&token));
    }
    let listed = schema.and_then(|schema| deref(root, schema)?.get("enum")?.as_array());
    listed.into_iter().flatten().filter_map(serde_json::Value::as_str).collect()
}

/// Applies all rules. Operations that none matches stay unreviewed.
pub(super) fn apply<'a>(
    build: &mut ModelBuilder<'_>,
    files: impl Iterator<Item = (&'a str, &'a [At<ClassifyRule>])>,
) {
    let mut exact: BTreeMap<&str, OperationRule<'_>> = BTreeMap::new();
    let mut globs: Vec<OperationRule<'_>> = Vec::new();
    for (file, rules) in files {
        // What nobody has reviewed decides about nothing.
        for rule in rules.iter().filter(|rule| !rule.value.proposed) {
            let at = rule.value.r#match.at.within(file);
            let id = rule.value.r#match.value.as_str();
            let rule = OperationRule { file, rule: &rule.value, glob: Glob::new(id), at };
            later(build, &rule);
            if !rule.glob.is_exact() {
                globs.push(rule);
            } else if let Some(first) = exact.get(id) {
                let what = format!(
                    "`{}` is classified twice; first in {}:{}",
                    clip(id),
                    first.at.file,
                    first.at.line
                );
                build.found.error(&rule.at, what, "Keep one of the two.");
            } else {
                exact.insert(id, rule);
            }
        }
    }
    if globs.len().saturating_mul(build.model.operations.len()) > MOST_COMPARISONS {
        let at = super::whole("bundle.yaml");
        build.found.error(
            &at,
            "too many globs in `classify` for so many operations",
            "Use exact ids.",
        );
        return;
    }

    let ids: BTreeSet<String> = build.model.operations.iter().map(|o| o.id.clone()).collect();
    let mut matched = vec![(false, false); globs.len()];
    let mut operations = std::mem::take(&mut build.model.operations);
    let mut cases: Vec<Operation> = Vec::new();
    for operation in &mut operations {
        let built_in = build.model.is_built_in(operation);
        // The protocol gives it a meaning.
        if let Some(rule) = exact.get(operation.id.as_str()).filter(|_| operation.reviewed) {
            build.protocol(operation, rule.file, rule.rule);
            continue;
        }
        let mut chosen: Option<&OperationRule<'_>> = None;
        for (rule, seen) in globs.iter().zip(matched.iter_mut()) {
            // The author of a glob means tools, not the operations of the protocol.
            if built_in || !rule.glob.matches(&operation.id) {
                continue;
            }
            seen.0 = true;
            match chosen {
                _ if exact.contains_key(operation.id.as_str()) => {}
                None => {
                    chosen = Some(rule);
                    seen.1 = true;
                }
                Some(first) if first.file != rule.file => {
                    let what = format!(
                        "`{}` matches `{}`, and so does `{}` ({}:{})",
                        clip(&rule.rule.r#match.value),
                        operation.id,
                        clip(&first.rule.r#match.value),
                        first.at.file,
                        first.at.line
                    );
                    let fix = format!(
                        "Globs of two files have no order: classify `{}` by its exact id.",
                        operation.id
                    );
                    build.found.error(&rule.at, what, fix);
                }
                Some(_) => {}
            }
        }
        if let Some(rule) = exact.get(operation.id.as_str()).or(chosen) {
            build.give(operation, rule, &mut cases);
        }
    }
    operations.retain(|operation| !build.model.splits.contains_key(&operation.id));
    operations.append(&mut cases);
    operations.sort_by(|a, b| a.id.cmp(&b.id));
    for rule in exact.values().filter(|rule| !ids.contains(rule.rule.r#match.value.as_str())) {
        no_match(build, rule, &ids);
    }
    for (rule, (any, used)) in globs.iter().zip(&matched) {
        if !any {
            no_match(build, rule, &ids);
        } else if !used {
            let what = format!(
                "`{}` decides about no operation: each that it matches has an earlier rule or an exact one",
                clip(&rule.rule.r#match.value)
            );
            build.found.warning(&rule.at, what, "Move it up, or remove it.");
        }
    }
    build.model.operations = operations;
}

fn no_match(build: &mut ModelBuilder<'_>, rule: &OperationRule<'_>, ids: &BTreeSet<String>) {
    let id = rule.rule.r#match.value.as_str();
    let (_, fix) = unknown("operation", id, ids.iter().map(|id| (id.as_str(), None)));
    let fix = if ids.is_empty() || !fix.is_guess() {
        "Correct the id, or add the operation to the catalog.".into()
    } else {
        fix
    };
    build.found.error(&rule.at, format!("`{}` matches no operation", clip(id)), fix);
}

fn later(build: &mut ModelBuilder<'_>, rule: &OperationRule<'_>) {
    build.later(rule.file, "rows", rule.rule.rows.as_ref());
    build.later(rule.file, "provider", rule.rule.provider.as_ref());
}

impl ModelBuilder<'_> {
    /// Gives an operation the meaning that a rule says, as far as it may count.
    fn give(
        &mut self,
        operation: &mut Operation,
        rule: &OperationRule<'_>,
        cases: &mut Vec<Operation>,
    ) {
        let drifted = self.drifted.contains(&operation.id);
        // A rule about a tool that is no longer the same: what it gets wrong is for the next review.
        let before = drifted.then(|| std::mem::take(self.found));
        let first = cases.len();
        operation.reviewed = !self.unaccepted.contains(&operation.id);
        operation.drifted = drifted;
        if let Some(said) = &rule.rule.input_responses {
            self.input_responses(operation, rule.file, said);
        }
        match &rule.rule.split {
            Some(split) => self.split(operation, rule, split, cases),
            None => self.classify(operation, rule.file, &rule.at, &Said::of(rule.rule)),
        }
        if let Some(before) = before {
            for fault in std::mem::replace(self.found, before).iter() {
                self.found.push(Diagnostic { severity: Severity::Warning, ..fault.clone() });
            }
        }
        let reviewed = !self.unaccepted.contains(&operation.id);
        for given in cases.iter_mut().skip(first).chain([operation]) {
            given.reviewed = reviewed;
            given.drifted = drifted;
        }
    }

    /// One operation per value of an argument.
    fn split(
        &mut self,
        operation: &mut Operation,
        rule: &OperationRule<'_>,
        said: &At<SplitEntry>,
        cases: &mut Vec<Operation>,
    ) {
        let (file, entry) = (rule.file, &said.value);
        self.pointer(file, operation, &entry.on, &["string"], false);
        let values = enumerated(&operation.input, &entry.on.value);
        let mut by_value: BTreeMap<String, String> = BTreeMap::new();
        for (value, case) in &entry.cases.0 {
            let at = value.at.within(file);
            if !values.is_empty() && !values.contains(value.value.as_str()) {
                let names = values.iter().map(|name| (*name, None));
                let (what, fix) = unknown("value", &value.value, names);
                self.found.error(&at, what, fix);
                continue;
            }
            let id = format!("{}.{}", operation.id, operation_name(&value.value));
            let full = At { value: id.clone(), at: value.at };
            if self.declare(file, "operation", &full, refuse_operation).is_none() {
                continue;
            }
            let name = id.split_once('.').map_or("", |(_, name)| name).to_owned();
            let mut one = Operation { id: id.clone(), name, ..operation.clone() };
            self.classify(&mut one, file, &at, &Said::of(rule.rule).with(case));
            operation.tier =
                if by_value.is_empty() { one.tier } else { operation.tier.max(one.tier) };
            cases.push(one);
            by_value.insert(value.value.clone(), id);
        }
        if entry.cases.0.is_empty() {
            let what = format!("`split` of `{}` has no cases", operation.id);
            self.found.error(&said.at.within(file), what, "Add `cases: {value: {effects: […]}}`.");
        }
        let left: Vec<&str> = values.into_iter().filter(|v| !by_value.contains_key(*v)).collect();
        if !left.is_empty() && !by_value.is_empty() {
            let what = format!("`{}` has no case for {}", operation.id, clip(&left.join(", ")));
            let fix = "Such requests are refused. Add the cases, unless that is meant.";
            self.found.warning(&said.at.within(file), what, fix);
        }
        let when_absent = entry.when_absent.as_ref().and_then(|value| {
            let known = by_value.get(&value.value).cloned();
            if known.is_none() {
                let names = by_value.keys().map(|name| (name.as_str(), None));
                let (what, fix) = unknown("case", &value.value, names);
                self.found.error(&value.at.within(file), what, fix);
            }
            known
        });
        let split = Split {
            operation: operation.clone(),
            on: entry.on.value.clone(),
            cases: by_value,
            when_absent,
        };
        self.model.splits.insert(operation.id.clone(), split);
    }

    fn classify(&mut self, operation: &mut Operation, file: &str, at: &Location, said: &Said<'_>) {
        let Some(effects) = said.effects else {
            return self.found.error(at, "`effects` is missing", SAY);
        };
        operation.effects = effects.value.iter().map(|e| effect(e.value)).collect();
        if operation.effects.is_empty() {
            self.found.error(&effects.at.within(file), "`effects` is empty", SAY);
        }
        operation.tier = match said.tier {
            Some(word) => tier(word.value),
            None => {
                operation.effects.iter().map(|e| e.default_tier()).max().unwrap_or(Tier::Critical)
            }
        };
        operation.abortable = said.abortable;
        operation.reviewed = true;
        self.model.places.meanings.insert(operation.id.clone(), at.clone());
        if let Some(yields) = said.yields {
            self.model.places.yields.insert(operation.id.clone());
            operation.yields = self.yields(file, yields);
        }
        if let Some(resource) = said.resource {
            operation.resource = self.resource(file, operation, resource);
        }
        match said.destination {
            Some(from) => operation.destination = self.destination(file, operation, from),
            None if operation.effects.contains(&Effect::Export) => {
                let what = format!("`{}` exports, but has no destination", operation.id);
                let fix = "Add `destination: {from: [/argument], type: …}`.";
                self.found.error(at, what, fix);
            }
            None => {}
        }
        if said.objects.is_some() {
            self.model.places.objects.insert(operation.id.clone());
        }
        operation.origins = self.origins(file, operation, said);
    }

    pub(super) fn yields(
        &mut self,
        file: &str,
        said: &Yields,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        match said {
            Yields::Exact(labels) => {
                let labels = self.labels(file, labels);
                (labels.clone(), labels)
            }
            Yields::Range(range) => {
                let minimum = self.labels(file, &range.minimum);
                let maximum = self.labels(file, &range.maximum);
                for label in range.minimum.iter().filter(|l| !maximum.contains(&l.value)) {
                    let what =
                        format!("`{}` is in `minimum` but not in `maximum`", clip(&label.value));
                    self.found.error(&label.at.within(file), what, "Add it to `maximum`.");
                }
                (minimum, maximum)
            }
        }
    }

    fn resource(
        &mut self,
        file: &str,
        operation: &Operation,
        said: &ResourceEntry,
    ) -> Option<ResourceRule> {
        let spelling = self.collection(file, &said.collection)?;
        if let Some(id) = &said.id {
            self.pointer(file, operation, id, &["string", "integer"], true);
        }
        let id = said.id.as_ref().map(|id| id.value.clone());
        let collection = said.collection.value.clone();
        Some(ResourceRule { collection, id, spelling })
    }

    /// The spelling of a declared collection; another is an error.
    pub(super) fn collection(&mut self, file: &str, named: &At<String>) -> Option<Spelling> {
        let spelling = self.model.collections.get(&named.value).map(|declared| declared.spelling);
        if spelling.is_none() {
            let declared = self.model.collections.iter().map(|(n, c)| (n.as_str(), Some(&c.at)));
            let (what, fix) = unknown("collection", &named.value, declared);
            self.found.error(&named.at.within(file), what, fix);
        }
        spelling
    }

    pub(super) fn destination(
        &mut self,
        file: &str,
        operation: &Operation,
        said: &At<DestinationFrom>,
    ) -> Option<DestinationRule> {
        for pointer in &said.value.from.0 {
            self.pointer(file, operation, pointer, &["string"], true);
        }
        let declared = &self.model.destinations;
        let when_absent = match &said.value.when_absent {
            Some(class) if declared.contains_key(&class.value) => class.value.clone(),
            Some(class) => {
                let declared = declared.iter().map(|(n, c)| (n.as_str(), Some(&c.at)));
                let (what, fix) = unknown("destination class", &class.value, declared);
                self.found.error(&class.at.within(file), what, fix);
                return None;
            }
            None => match self.model.least_trusted() {
                Some(class) => class.to_owned(),
                None => {
                    let fix = "Declare at least `destinations: {external: {match: \"*\", clearance: []}}`.";
                    let at = said.at.within(file);
                    self.found.error(&at, "the bundle declares no destination class", fix);
                    return None;
                }
            },
        };
        let kind = destination_kind(said.value.r#type.value);
        let role = said.value.role.as_ref().map_or(ValueRole::Recipient, |word| role(word.value));
        if role == ValueRole::Amount {
            let place = said.value.role.as_ref().map_or(said.at, |word| word.at);
            let what = format!("the destination of `{}` has the role `amount`", operation.id);
            let fix = "An amount goes nowhere: list its argument in `objects`.";
            self.found.error(&place.within(file), what, fix);
        }
        let from = said.value.from.0.iter().map(|p| p.value.clone()).collect();
        Some(DestinationRule { from, kind, role, when_absent })
    }

    /// Checks that a pointer names an argument of one of the types, or a list of them.
    pub(super) fn pointer(
        &mut self,
        file: &str,
        operation: &Operation,
        pointer: &At<String>,
        types: &[&str],
        list: bool,
    ) {
        let lists = if list { Lists::Whole } else { Lists::Refused };
        self.argument(file, operation, pointer, (types, lists));
    }

    /// Checks that a pointer names an argument of one of the types, or what `lists` allows.
    pub(super) fn argument(
        &mut self,
        file: &str,
        operation: &Operation,
        pointer: &At<String>,
        (types, lists): (&[&str], Lists),
    ) {
        let at = pointer.at.within(file);
        let text = clip(&pointer.value);
        let Some(tokens) = pointer_tokens(&pointer.value).filter(|tokens| !tokens.is_empty())
        else {
            let what = format!("`{text}` is no JSON pointer to an argument");
            return self.found.error(&at, what, "Write `/argument`, or `/argument/member`.");
        };
        let mut schema = Some(operation.input.as_ref());
        for token in &tokens {
            let parent = schema.and_then(|s| deref(&operation.input, s));
            let Some(object) = parent.map(|s| without_null(&operation.input, s)) else { break };
            if lists == Lists::Elements
                && token == "*"
                && let Some(items) = object.get("items")
            {
                schema = Some(items);
                continue;
            }
            let properties = object.get("properties").and_then(serde_json::Value::as_object);
            schema = properties.and_then(|p| p.get(token));
            if schema.is_none() {
                let names = properties.into_iter().flatten().map(|(name, _)| (name.as_str(), None));
                let (what, fix) = unknown("argument", token, names);
                let what = format!("`{text}` names no argument of `{}`: {what}", operation.id);
                return self.found.error(&at, what, fix);
            }
        }
        let resolved = schema.and_then(|s| deref(&operation.input, s));
        let is_list = lists != Lists::Refused;
        if !resolved.is_some_and(|s| is_of(&operation.input, s, types, is_list)) {
            let wanted = types.join(" or ");
            let what = format!("`{text}` of `{}` is not declared as {wanted}", operation.id);
            let fix = format!(
                "Give the argument `type: {}` in the catalog.",
                types.first().unwrap_or(&"string")
            );
            self.found.error(&at, what, fix);
        }
    }

    /// Declared labels; others are errors.
    pub(super) fn labels(&mut self, file: &str, labels: &[At<String>]) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        for label in labels {
            if self.model.labels.contains_key(&label.value) {
                out.insert(label.value.clone());
            } else {
                let declared = self.model.labels.iter().map(|(n, l)| (n.as_str(), Some(&l.at)));
                let (what, fix) = unknown("label", &label.value, declared);
                self.found.error(&label.at.within(file), what, fix);
            }
        }
        out
    }
}

/// Lists that a pointer to an argument may name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// `None`: the argument is one value.
    Refused,
    /// A list as a whole.
    Whole,
    /// A list as a whole, or by `*` a member of each of its elements.
    Elements,
}

/// The schema of an optional value without its branch of null; the same schema if there is none.
fn without_null<'a>(
    root: &'a serde_json::Value,
    schema: &'a serde_json::Value,
) -> &'a serde_json::Value {
    for key in ["anyOf", "oneOf"] {
        let Some(branches) = schema.get(key).and_then(serde_json::Value::as_array) else {
            continue;
        };
        let mut others = branches.iter().filter(|branch| !is_null(branch));
        if let (Some(only), None) = (others.next(), others.next()) {
            return deref(root, only).unwrap_or(only);
        }
    }
    schema
}

/// Whether a schema is of one of the types, also a nullable one; where `list`, also a list of them.
fn is_of(root: &serde_json::Value, schema: &serde_json::Value, types: &[&str], list: bool) -> bool {
    for key in ["anyOf", "oneOf"] {
        if let Some(branches) = schema.get(key).and_then(serde_json::Value::as_array) {
            let mut branches = branches.iter().filter(|branch| !is_null(branch)).peekable();
            return branches.peek().is_some()
                && branches.all(|branch| {
                    deref(root, branch).is_some_and(|branch| is_of(root, branch, types, list))
                });
        }
    }
    let words: Vec<&str> = match schema.get("type") {
        Some(serde_json::Value::String(word)) => vec![word],
        Some(serde_json::Value::Array(words)) => words.iter().filter_map(|w| w.as_str()).collect(),
        _ => return false,
    };
    let mut words = words.into_iter().filter(|word| *word != "null").peekable();
    let any = words.peek().is_some();
    any && words.all(|word| {
        types.contains(&word)
            || (list
                && word == "array"
                && schema
                    .get("items")
                    .and_then(|items| deref(root, items))
                    .is_some_and(|items| is_of(root, items, types, false)))
    })
}

/// The branch of an optional value, also as the catalog of an MCP server spells it after `tame`.
fn is_null(branch: &serde_json::Value) -> bool {
    branch.get("type").and_then(serde_json::Value::as_str) == Some("null")
        || branch.get("const") == Some(&serde_json::Value::Null)
}

pub(super) const fn destination_kind(word: DestinationWord) -> DestinationKind {
    match word {
        DestinationWord::Email => DestinationKind::Email,
        DestinationWord::Url => DestinationKind::UrlHost,
        DestinationWord::Iban => DestinationKind::Iban,
        DestinationWord::Account => DestinationKind::Account,
        DestinationWord::Path => DestinationKind::Path,
    }
}

pub(super) const fn effect(word: EffectWord) -> Effect {
    match word {
        EffectWord::Read => Effect::Read,
        EffectWord::Write => Effect::Write,
        EffectWord::Delete => Effect::Delete,
        EffectWord::Export => Effect::Export,
        EffectWord::Execute => Effect::Execute,
        EffectWord::Grant => Effect::Grant,
    }
}

pub(super) const fn tier(word: TierWord) -> Tier {
    match word {
        TierWord::Low => Tier::Low,
        TierWord::Standard => Tier::Standard,
        TierWord::High => Tier::High,
        TierWord::Critical => Tier::Critical,
    }
}
