//! Schemas that others wrote, made such that they compile.
//!
//! A tool of an MCP server is never left out because of its schema. What cannot be checked or typed is opened (`{}`:
//! policies see present or absent), and said. Nothing is opened that would let an undeclared argument pass.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::ArgumentSchema;
use super::types::{compiles_pattern, escape};

/// How deep a schema may nest, and how many schemas it may hold, before the rest is opened.
const MAX_DEPTH: usize = 24;
const MAX_SCHEMAS: usize = 1500;
/// Arguments that are known by name only, each of which counts twice.
const MAX_NAMES: usize = 800;
/// Most repairs of one schema that the compiler refuses.
const MAX_REPAIRS: usize = 64;
/// Branches of a union at the root that are looked through.
const MAX_BRANCHES: usize = 64;

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];
/// Keywords whose value is a schema.
const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value holds schemas by name.
const NAMED: [&str; 5] =
    ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
const DRAFTS: [&str; 5] = [
    "json-schema.org/draft-04/schema",
    "json-schema.org/draft-06/schema",
    "json-schema.org/draft-07/schema",
    "json-schema.org/draft/2019-09/schema",
    "json-schema.org/draft/2020-12/schema",
];

/// Makes any JSON value an input schema that [`ArgumentSchema::compile`] takes.
///
/// Returns the schema and the places that had to be opened. A schema that compiles is unchanged, except that members without a
/// meaning are removed.
#[must_use]
pub fn tame(schema: &Json) -> (Json, Vec<String>) {
    let mut taming =
        Taming { document: schema, schemas: 0, notes: BTreeSet::new(), found: BTreeSet::new() };
    let mut tamed = taming.root(schema);
    for _ in 0..MAX_REPAIRS {
        match ArgumentSchema::compile(&tamed) {
            Ok(_) => return (tamed, taming.notes.into_iter().collect()),
            Err(error) => {
                let pointer = error.pointer().to_owned();
                if !open(&mut tamed, &pointer) {
                    break;
                }
                taming.notes.insert(format!("`{pointer}` is not checked: {}", error.what()));
            }
        }
    }
    let names = tamed.get("properties").and_then(Json::as_object);
    let names: Vec<String> =
        names.into_iter().flatten().map(|(name, _)| name.clone()).take(MAX_NAMES).collect();
    let mut open = json!({"type": "object", "properties": {}, "additionalProperties": false});
    if let Some(properties) = open.get_mut("properties").and_then(Json::as_object_mut) {
        properties.extend(names.into_iter().map(|name| (name, json!({}))));
    }
    taming
        .notes
        .insert("the schema cannot be checked: arguments are known by name only".to_owned());
    (open, taming.notes.into_iter().collect())
}

/// Opens the schema at a pointer, or the nearest one above it that is not the root; false where there is none.
fn open(schema: &mut Json, pointer: &str) -> bool {
    let mut at = pointer;
    loop {
        // A member directly below the root is a keyword, and taking it away opens the root no further than its types.
        let Some((above, last)) = at.rsplit_once('/') else { return false };
        if above.is_empty() {
            let removable = !matches!(last, "properties" | "type" | "additionalProperties" | "");
            return removable
                && schema.as_object_mut().is_some_and(|root| root.shift_remove(last).is_some());
        }
        if let Some(found) = schema.pointer_mut(at)
            && found.is_object()
            && found.as_object().is_none_or(|map| !map.is_empty())
        {
            *found = json!({});
            return true;
        }
        at = above;
    }
}

struct Taming<'a> {
    document: &'a Json,
    schemas: usize,
    notes: BTreeSet<String>,
    /// Patterns that compile.
    found: BTreeSet<String>,
}

impl Taming<'_> {
    fn note(&mut self, at: &str, what: &str) {
        let at = if at.is_empty() { "/" } else { at };
        self.notes.insert(format!("`{at}` {what}"));
    }

    fn root(&mut self, schema: &Json) -> Json {
        let Json::Object(mut root) = self.schema(schema, "", 0) else {
            return json!({"type": "object", "properties": {}});
        };
        if let Some(draft) = schema.get("$schema").and_then(Json::as_str) {
            let plain = draft.trim_start_matches("https://").trim_start_matches("http://");
            if DRAFTS.contains(&plain.trim_end_matches('#')) {
                root.insert("$schema".to_owned(), draft.into());
            }
        }
        self.members(&mut root);
        for key in ["additionalProperties", "unevaluatedProperties"] {
            if root.get(key).is_some_and(|open| *open != Json::Bool(false)) {
                root.shift_remove(key);
                self.note("", "takes arguments that it does not declare: they are refused");
            }
        }
        if root.shift_remove("patternProperties").is_some() {
            self.note("", "takes arguments that it names by pattern: they are refused");
        }
        root.insert("type".to_owned(), "object".into());
        Json::Object(root)
    }

    /// Declares at the root what `$ref`s and unions below it declare: an argument that no branch names is refused, and
    /// JSON Schema sees which branch holds.
    fn members(&mut self, root: &mut Map<String, Json>) {
        let mut properties = match root.shift_remove("properties") {
            Some(Json::Object(properties)) => properties,
            _ => Map::new(),
        };
        let whole = Json::Object(root.clone());
        let mut work: Vec<Json> = vec![whole.clone()];
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut looked = 0;
        while let Some(next) = work.pop() {
            looked += 1;
            if looked > MAX_BRANCHES {
                self.note("", "has more branches than are looked through");
                break;
            }
            for (name, schema) in
                next.get("properties").and_then(Json::as_object).into_iter().flatten()
            {
                match properties.get(name) {
                    Some(known) if known == schema => {}
                    // Two branches differ: policies see only that it is there.
                    Some(_) => drop(properties.insert(name.clone(), json!({}))),
                    None => drop(properties.insert(name.clone(), schema.clone())),
                }
            }
            for name in next.get("required").and_then(Json::as_array).into_iter().flatten() {
                if let Some(name) = name.as_str() {
                    properties.entry(name).or_insert_with(|| json!({}));
                }
            }
            for key in ["allOf", "anyOf", "oneOf"] {
                work.extend(next.get(key).and_then(Json::as_array).into_iter().flatten().cloned());
            }
            for key in ["then", "else"] {
                work.extend(next.get(key).cloned());
            }
            if let Some(reference) = next.get("$ref").and_then(Json::as_str)
                && seen.insert(reference.to_owned())
                && let Some(target) =
                    reference.strip_prefix('#').and_then(|pointer| whole.pointer(pointer))
            {
                work.push(target.clone());
            }
        }
        // A `$ref` at the root would be followed instead of the members beside it.
        if let Some(reference) = root.shift_remove("$ref") {
            let held = root.entry("allOf").or_insert_with(|| json!([]));
            if let Some(list) = held.as_array_mut() {
                list.push(json!({ "$ref": reference }));
            }
        }
        root.insert("properties".to_owned(), properties.into());
    }

    fn schema(&mut self, schema: &Json, at: &str, depth: usize) -> Json {
        let map = match schema {
            Json::Object(map) => map,
            Json::Bool(_) => return schema.clone(),
            _ => {
                self.note(at, "is no schema");
                return json!({});
            }
        };
        self.schemas += 1;
        if depth > MAX_DEPTH || self.schemas > MAX_SCHEMAS {
            self.note(at, "is not checked: the schema is too large or too deep");
            return json!({});
        }
        for key in ["$dynamicRef", "$recursiveRef"] {
            if map.contains_key(key) {
                self.note(at, &format!("is not checked: `{key}`"));
                return json!({});
            }
        }
        if let Some(reference) = map.get("$ref")
            && !self.leads_somewhere(reference)
        {
            self.note(at, "is not checked: its `$ref` leads nowhere");
            return json!({});
        }
        let mut tamed = Map::new();
        for (key, part) in map {
            let below = format!("{at}/{}", escape(key));
            let word = key.as_str();
            let part = match word {
                "$schema" | "$id" | "id" | "$anchor" | "$dynamicAnchor" | "$recursiveAnchor"
                | "$vocabulary" => continue,
                "type" => match self.kind(part, at) {
                    Some(kind) => kind,
                    None => continue,
                },
                "pattern" if !part.as_str().is_some_and(|text| self.compiles(text)) => {
                    self.note(&below, "is not checked: it cannot be matched in linear time");
                    continue;
                }
                "items" if part.is_array() => self.list(part, &below, depth),
                _ if ONE.contains(&word) => self.schema(part, &below, depth + 1),
                _ if LIST.contains(&word) => self.list(part, &below, depth),
                _ if NAMED.contains(&word) => self.named(word, part, &below, depth),
                _ => part.clone(),
            };
            tamed.insert(key.clone(), part);
        }
        declare_required(&mut tamed);
        if tamed.get("type").and_then(Json::as_str) == Some("null") {
            tamed.shift_remove("type");
            tamed.insert("const".to_owned(), Json::Null);
        }
        tamed.into()
    }

    fn list(&mut self, part: &Json, at: &str, depth: usize) -> Json {
        let items = part.as_array().into_iter().flatten().enumerate();
        items.map(|(i, item)| self.schema(item, &format!("{at}/{i}"), depth + 1)).collect()
    }

    fn named(&mut self, key: &str, part: &Json, at: &str, depth: usize) -> Json {
        let mut map = Map::new();
        for (name, schema) in part.as_object().into_iter().flatten() {
            let below = format!("{at}/{}", escape(name));
            if key == "patternProperties" && !self.compiles(name) {
                self.note(&below, "is not checked: it cannot be matched in linear time");
                continue;
            }
            let schema = self.schema(schema, &below, depth + 1);
            map.insert(name.clone(), schema);
        }
        map.into()
    }

    fn kind(&mut self, part: &Json, at: &str) -> Option<Json> {
        let known = |kind: &Json| kind.as_str().is_some_and(|kind| TYPES.contains(&kind));
        let fine = match part {
            Json::Array(kinds) => !kinds.is_empty() && kinds.iter().all(known),
            kind => known(kind),
        };
        if !fine {
            self.note(at, "is not checked: its `type` is none of JSON Schema's");
        }
        fine.then(|| part.clone())
    }

    fn compiles(&mut self, pattern: &str) -> bool {
        if !self.found.contains(pattern) {
            if !compiles_pattern(pattern) {
                return false;
            }
            self.found.insert(pattern.to_owned());
        }
        true
    }

    fn leads_somewhere(&self, reference: &Json) -> bool {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
        pointer
            .filter(|pointer| !pointer.contains('%'))
            .is_some_and(|pointer| self.document.pointer(pointer).is_some())
    }
}

/// What an object requires without declaring it would be refused as undeclared, and so the tool could not be called.
fn declare_required(schema: &mut Map<String, Json>) {
    if !schema.get("properties").is_some_and(Json::is_object) {
        return;
    }
    let required: Vec<String> = schema
        .get("required")
        .and_then(Json::as_array)
        .map(|names| names.iter().filter_map(Json::as_str).map(str::to_owned).collect())
        .unwrap_or_default();
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        for name in required {
            properties.entry(name).or_insert_with(|| json!({}));
        }
    }
}
