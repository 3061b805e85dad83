//! Arguments for calls that are tried: few, and chosen so that conditions on arguments have a chance to hold.

use std::collections::{BTreeMap, BTreeSet};

use authz_bundle::recipient_lists::{Columns, first_entries};
use authz_kernel::model::{DestinationKind, Model, Operation, RecipientListSource, Slot, Spelling};
use serde_json::{Map, Value, json};

use super::guard::Literals;
use super::prompts::CURRENCY;
use super::ways::EXAMPLE;

/// Sets of arguments of one operation that are tried.
const MOST_VARIANTS: usize = 48;
/// Depth of generated objects.
const MOST_DEPTH: usize = 4;
/// Entries of one recipient list that are tried.
const MOST_ENTRIES: usize = 2;
/// Addresses of one destination that are tried.
const MOST_ADDRESSES: usize = 12;

/// Entries of the recipient lists that are files of the bundle, as calls write them. The entries of a list that is fetched are
/// not known.
#[derive(Clone, Debug, Default)]
pub struct ListedRecipients(BTreeMap<(String, DestinationKind), Vec<String>>);

impl ListedRecipients {
    /// Reads the first entries of each list, for each kind of destination that operations have.
    ///
    /// Args: `files`: files of the bundle, by path.
    #[must_use]
    pub fn read(
        model: &Model,
        operations: &[Operation],
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Self {
        let rules = operations.iter().filter_map(|operation| operation.destination.as_ref());
        let kinds: BTreeSet<DestinationKind> = rules.map(|rule| rule.kind).collect();
        let mut listed = BTreeMap::new();
        for (name, rule) in &model.recipient_lists {
            let RecipientListSource::File(path) = &rule.from else { continue };
            let Some(bytes) = files.get(path) else { continue };
            let columns = Columns { entry: rule.column.as_deref(), alias: rule.alias.as_deref() };
            for kind in &kinds {
                // A list that cannot be read does not load, so that the bundle has no plan.
                let entries = first_entries(bytes, columns, *kind, MOST_ENTRIES);
                listed.insert((name.clone(), *kind), entries.unwrap_or_default());
            }
        }
        Self(listed)
    }

    fn of(&self, list: &str, kind: DestinationKind) -> &[String] {
        self.0.get(&(list.to_owned(), kind)).map_or(&[], Vec::as_slice)
    }
}

/// The calls that arguments are made for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// Class of the destinations. `None`: the operation has none, or any will do.
    pub class: Option<&'a str>,
}

/// Sets of arguments for an operation, the plainest first.
///
/// Args: `suggested`: arguments that a solver suggests.
#[must_use]
pub fn variants(
    model: &Model,
    listed: &ListedRecipients,
    wanted: Wanted<'_>,
    literals: &Literals,
    suggested: &[Value],
) -> Vec<Value> {
    let Wanted { operation, class } = wanted;
    let choices = Choices { model, listed, operation, class, literals };
    let base = choices.base();
    let mut all: Vec<Value> = vec![base.clone()];
    let mut push = |value: Value| {
        if all.len() < MOST_VARIANTS && !all.contains(&value) {
            all.push(value);
        }
    };
    suggested.iter().for_each(|value| push(choices.completed(value, &base)));
    let points = choices.points();
    for (pointer, values) in &points {
        for value in values {
            push(with(&base, pointer, value.clone()));
        }
    }
    // Two arguments at a time: a resource, and another argument that its rule reads.
    for (first, values) in &points {
        for (second, others) in points.iter().filter(|(second, _)| *second > first) {
            for value in values.iter().take(4) {
                for other in others.iter().take(4) {
                    push(with(&with(&base, first, value.clone()), second, other.clone()));
                }
            }
        }
    }
    all
}

struct Choices<'a> {
    model: &'a Model,
    listed: &'a ListedRecipients,
    operation: &'a Operation,
    class: Option<&'a str>,
    literals: &'a Literals,
}

impl Choices<'_> {
    /// Arguments that the schema requires, and those that name resource and destinations.
    fn base(&self) -> Value {
        let mut value = sample(&self.operation.input, 0);
        if let Some(pointer) = self.operation.resource.as_ref().and_then(|rule| rule.id.as_ref()) {
            let id = self.ids().into_iter().next().unwrap_or_else(|| EXAMPLE.to_owned());
            value = with(&value, pointer, Value::String(id));
        }
        if let Some(rule) = &self.operation.destination
            && let Some(address) = self.addresses().into_iter().next()
            && let Some(pointer) = rule.from.first()
        {
            value = with(&value, pointer, self.shaped(pointer, &address));
        }
        // Only the code of a currency can stand in a prompt.
        for pointer in
            self.operation.origins.objects.iter().filter_map(|rule| rule.currency.as_ref())
        {
            if value.pointer(pointer).and_then(Value::as_str) == Some(EXAMPLE) {
                value = with(&value, pointer, json!(CURRENCY));
            }
        }
        value
    }

    /// A suggestion with the arguments that it leaves out.
    fn completed(&self, suggestion: &Value, base: &Value) -> Value {
        let mut value = base.clone();
        if let (Some(members), Some(into)) = (suggestion.as_object(), value.as_object_mut()) {
            for (name, member) in members {
                into.insert(name.clone(), member.clone());
            }
        }
        value
    }

    /// Arguments that are varied, by JSON pointer, and their values.
    fn points(&self) -> BTreeMap<String, Vec<Value>> {
        let mut points: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        if let Some(pointer) = self.operation.resource.as_ref().and_then(|rule| rule.id.clone()) {
            points.insert(pointer, self.ids().into_iter().map(Value::String).collect());
        }
        for pointer in self.operation.destination.iter().flat_map(|rule| &rule.from) {
            let addresses = self.addresses();
            let mut shaped: Vec<Value> =
                addresses.iter().map(|text| self.shaped(pointer, text)).collect();
            if self.is_list(pointer) {
                shaped.extend(self.several(&addresses));
            }
            points.insert(pointer.clone(), shaped);
        }
        let properties = self.operation.input.get("properties").and_then(Value::as_object);
        for (name, schema) in properties.into_iter().flatten() {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            points.entry(pointer).or_insert_with(|| self.values(schema));
        }
        points
    }

    fn values(&self, schema: &Value) -> Vec<Value> {
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            return words.iter().take(8).cloned().collect();
        }
        let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
        match schema.get("type").and_then(Value::as_str) {
            Some("integer" | "number") => {
                // Just beside the numbers that policies compare with, then those numbers, then the bounds.
                let numbers = &self.literals.numbers;
                let above = numbers.iter().map(|n| n.saturating_add(1));
                let below = numbers.iter().map(|n| n.saturating_sub(1));
                let bounds = [bound("minimum"), bound("maximum")].into_iter().flatten();
                let others = numbers.iter().copied().chain(bounds).chain([0, 1]);
                let mut all: Vec<i64> = Vec::new();
                for n in above.chain(below).chain(others) {
                    if !all.contains(&n) {
                        all.push(n);
                    }
                }
                let fits = |n: &i64| {
                    bound("minimum").is_none_or(|least| *n >= least)
                        && bound("maximum").is_none_or(|most| *n <= most)
                };
                all.into_iter().filter(fits).take(16).map(|n| json!(n)).collect()
            }
            Some("boolean") => vec![json!(true), json!(false)],
            Some("string") => {
                let literals = self.literals.texts.iter().map(|text| json!(text));
                literals.chain([json!(EXAMPLE)]).take(8).collect()
            }
            Some("array") => {
                let items = schema.get("items").map(|items| self.values(items)).unwrap_or_default();
                items.into_iter().take(6).map(|item| json!([item])).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Ids of resources of the operation.
    fn ids(&self) -> Vec<String> {
        let Some(rule) = &self.operation.resource else { return Vec::new() };
        let patterns = self.model.resource_patterns.iter();
        let patterns = patterns.filter(|pattern| pattern.collection == rule.collection);
        let of_patterns = patterns.map(|pattern| {
            let filled = pattern.pattern.replace("**", "x").replace('*', EXAMPLE);
            filled.trim_start_matches('/').to_owned()
        });
        let mut ids = vec![EXAMPLE.to_owned()];
        let others = self.literals.texts.iter().cloned().chain([format!("{EXAMPLE}/1")]);
        for id in of_patterns.chain(self.selected_ids()).chain(others) {
            if ids.len() < 12 && !id.is_empty() && !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// Ids that exceptions and scopes of tasks name for the operation, and one below each prefix.
    fn selected_ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let below = |prefix: &str| format!("{}/1", prefix.trim_end_matches('/'));
        for exception in self.model.exceptions.values() {
            if exception.operations.iter().any(|glob| glob.0.matches(&self.operation.id)) {
                let selector = exception.resources.of(Spelling::Exact);
                ids.extend(selector.ids.iter().flatten().cloned());
                ids.extend(selector.path_prefix.iter().map(|prefix| below(prefix)));
            }
        }
        let scopes = self.model.templates.values().flat_map(|template| &template.scope);
        for rule in scopes.filter(|rule| rule.operation == self.operation.id) {
            let text = |slot: &Slot| match slot {
                Slot::Text(text) => Some(text.clone()),
                Slot::Param(_) => None,
            };
            ids.extend(rule.resources.ids.iter().flatten().filter_map(text));
            let prefix = rule.resources.path_prefix.as_ref().and_then(text);
            ids.extend(prefix.map(|prefix| below(&prefix)));
        }
        ids
    }

    /// Addresses of destinations of the class.
    fn addresses(&self) -> Vec<String> {
        self.addresses_of(|name| self.class.is_none_or(|class| class == name))
    }

    fn addresses_of(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let Some(rule) = &self.operation.destination else { return Vec::new() };
        let mut all: Vec<String> = Vec::new();
        for (_, class) in self.model.destinations.iter().filter(|(name, _)| is_wanted(name)) {
            all.extend(class.patterns.iter().filter_map(|pattern| address(pattern, rule.kind)));
            for list in &class.recipient_lists {
                all.extend_from_slice(self.listed.of(list, rule.kind));
            }
        }
        all.dedup();
        all.truncate(MOST_ADDRESSES);
        all
    }

    /// Lists of two addresses: both of the class, and one beside an address of another class.
    fn several(&self, addresses: &[String]) -> Vec<Value> {
        let other =
            self.class.and_then(|class| self.addresses_of(|name| name != class).into_iter().next());
        let Some(first) = addresses.first() else { return Vec::new() };
        let seconds = addresses.get(1).into_iter().chain(&other);
        seconds.map(|second| json!([first, second])).collect()
    }

    /// Whether the schema of an argument wants a list.
    fn is_list(&self, pointer: &str) -> bool {
        let name = pointer.trim_start_matches('/').split('/').next().unwrap_or_default();
        let schema = self.operation.input.pointer(&format!("/properties/{name}"));
        schema.and_then(|schema| schema.get("type")).and_then(Value::as_str) == Some("array")
    }

    /// A text as the schema of an argument wants it: alone, or as the only item of a list.
    fn shaped(&self, pointer: &str, text: &str) -> Value {
        if self.is_list(pointer) { json!([text]) } else { json!(text) }
    }
}

/// Arguments that name another resource. `None`: the resource is neither a text nor a number.
///
/// Args: `pointer`: place of the id; `number`: tells the resources apart.
#[must_use]
pub fn with_other_id(input: &Value, pointer: &str, number: u32) -> Option<Value> {
    let id = match input.pointer(pointer)? {
        Value::String(id) => json!(format!("{id}-{number}")),
        Value::Number(id) => json!(id.as_i64()?.checked_add(i64::from(number))?),
        _ => return None,
    };
    Some(with(input, pointer, id))
}

/// An address that a pattern matches.
fn address(pattern: &str, kind: DestinationKind) -> Option<String> {
    let stranger = match kind {
        DestinationKind::Email => "stranger@outside.example",
        DestinationKind::UrlHost => "https://outside.example/x",
        DestinationKind::Iban => "DE89370400440532013000",
        DestinationKind::Account => "outside",
        DestinationKind::Path => "outside/file",
    };
    if pattern == "*" {
        return Some(stranger.to_owned());
    }
    let filled = pattern.replace('*', "someone");
    match kind {
        DestinationKind::Email => pattern.contains('@').then_some(filled),
        DestinationKind::UrlHost => {
            (!pattern.contains('@')).then(|| match filled.contains("://") {
                true => filled.clone(),
                false => format!("https://{}/x", filled.trim_end_matches('/')),
            })
        }
        _ => Some(filled),
    }
}

/// A value that a schema accepts, as far as it is simple: only required members.
// Recursion is bounded by `MOST_DEPTH`.
fn sample(schema: &Value, depth: usize) -> Value {
    if depth > MOST_DEPTH {
        return Value::Null;
    }
    if let Some(first) = schema.get("enum").and_then(Value::as_array).and_then(|all| all.first()) {
        return first.clone();
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("object"),
        _ => "object",
    };
    match kind {
        "string" => json!(EXAMPLE),
        "integer" | "number" => json!(schema.get("minimum").and_then(Value::as_i64).unwrap_or(1)),
        "boolean" => json!(true),
        "null" => Value::Null,
        "array" => {
            let items = schema.get("items").map(|items| sample(items, depth.saturating_add(1)));
            json!(items.into_iter().collect::<Vec<_>>())
        }
        _ => {
            let mut members = Map::new();
            let required = schema.get("required").and_then(Value::as_array);
            for name in required.into_iter().flatten().filter_map(Value::as_str) {
                let member = schema.get("properties").and_then(|all| all.get(name));
                let value =
                    member.map_or(json!(EXAMPLE), |member| sample(member, depth.saturating_add(1)));
                members.insert(name.to_owned(), value);
            }
            Value::Object(members)
        }
    }
}

/// A copy of an object with another value at a JSON pointer (RFC 6901). Objects on the way are made.
fn with(value: &Value, pointer: &str, new: Value) -> Value {
    let mut copy = value.clone();
    let mut at = &mut copy;
    let tokens: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|token| token.replace("~1", "/").replace("~0", "~"))
        .collect();
    for token in tokens {
        if !at.is_object() {
            *at = json!({});
        }
        let Some(members) = at.as_object_mut() else { return value.clone() };
        at = members.entry(token).or_insert(Value::Null);
    }
    *at = new;
    copy
}
