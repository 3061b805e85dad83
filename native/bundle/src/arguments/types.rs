//! From a JSON Schema to the types that policies see.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;

/// How deep a schema may nest, references followed.
const MAX_DEPTH: usize = 16;
/// How many schema nodes one operation may have, references followed.
pub(super) const MAX_NODES: usize = 2048;
/// Size limit of one compiled pattern, in bytes.
const PATTERN_BYTES: usize = 1 << 20;

/// The type of one argument, as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentType {
    /// An integer within ±2⁵³.
    Long,
    /// Another number.
    Decimal,
    /// A text.
    Text,
    /// True or false.
    Bool,
    /// An array, without order and repetition.
    Set(Box<ArgumentType>),
    /// An object with declared members.
    Record(BTreeMap<String, Member>),
    /// Anything else: policies see an empty record where it is present.
    Opaque,
}

/// A declared member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its type.
    pub kind: ArgumentType,
    /// It must be present and not null.
    pub required: bool,
    /// The schema itself allows null; null then means absent.
    pub nullable: bool,
}

/// A schema that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    pointer: String,
    what: String,
}

impl SchemaError {
    pub(super) fn new(pointer: &str, what: impl Into<String>) -> Self {
        Self { pointer: pointer.to_owned(), what: what.into() }
    }

    /// JSON pointer (RFC 6901) into the schema.
    #[must_use]
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Problem at the place.
    pub(super) fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            write!(f, "input schema: {}", self.what)
        } else {
            write!(f, "input schema at `{}`: {}", self.pointer, self.what)
        }
    }
}

impl std::error::Error for SchemaError {}

/// A schema's members, and whether JSON Schema must check what the types do not say.
pub(super) struct CompiledSchema {
    pub(super) root: BTreeMap<String, Member>,
    pub(super) checked: bool,
}

/// Works out the types of a whole schema.
pub(super) fn compile(schema: &Json) -> Result<CompiledSchema, SchemaError> {
    let mut typing = Typing { document: schema, nodes: 0, checked: false, trail: Vec::new() };
    let shape = typing.shape(schema, "")?;
    match shape.kind {
        ArgumentType::Record(root) if !shape.nullable => {
            Ok(CompiledSchema { root, checked: typing.checked })
        }
        _ => Err(SchemaError::new(
            "",
            "must describe an object: say `type: object` and list `properties`",
        )),
    }
}

/// Compiles the checker of everything that the types do not say.
pub(super) fn validator(schema: &Json) -> Result<jsonschema::Validator, SchemaError> {
    jsonschema::options()
        .should_validate_formats(true)
        .with_pattern_options(jsonschema::PatternOptions::regex().size_limit(PATTERN_BYTES))
        .offline()
        .build(schema)
        .map_err(|error| SchemaError::new(error.instance_path().as_str(), error.to_string()))
}

/// Whether a pattern can be matched in linear time.
pub(super) fn compiles_pattern(pattern: &str) -> bool {
    validator(&serde_json::json!({ "pattern": pattern })).is_ok()
}

struct TypeShape {
    kind: ArgumentType,
    nullable: bool,
}

impl TypeShape {
    const OPAQUE: Self = Self { kind: ArgumentType::Opaque, nullable: false };
}

struct Typing<'a> {
    document: &'a Json,
    nodes: usize,
    checked: bool,
    /// References being followed: one that comes again is a recursion.
    trail: Vec<&'a str>,
}

/// Keywords that say nothing about which values are valid, or that the types express fully.
const PLAIN: [&str; 18] = [
    "$comment",
    "$schema",
    "additionalProperties",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "items",
    "properties",
    "readOnly",
    "required",
    "title",
    "type",
    "writeOnly",
    "$defs",
    "definitions",
    "$id",
];

impl<'a> Typing<'a> {
    fn shape(&mut self, node: &'a Json, at: &str) -> Result<TypeShape, SchemaError> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES {
            return Err(SchemaError::new(at, format!("has more than {MAX_NODES} nodes")));
        }
        let depth = at.bytes().filter(|byte| *byte == b'/').count();
        if depth > MAX_DEPTH.saturating_mul(2) || self.trail.len() > MAX_DEPTH {
            return Err(SchemaError::new(at, format!("nests deeper than {MAX_DEPTH}")));
        }
        let Json::Object(map) = node else {
            // `true` and `false` are schemas too; JSON Schema judges them.
            self.checked = true;
            return if node.is_boolean() {
                Ok(TypeShape::OPAQUE)
            } else {
                Err(SchemaError::new(at, "a schema must be an object"))
            };
        };
        if !at.is_empty() && map.contains_key("$id") {
            return Err(SchemaError::new(at, "a nested `$id` would change what `$ref` means"));
        }
        for key in ["$dynamicRef", "$recursiveRef"] {
            if map.contains_key(key) {
                return Err(SchemaError::new(at, format!("`{key}` is not supported")));
            }
        }
        if map.keys().any(|key| !PLAIN.contains(&key.as_str())) {
            self.checked = true;
        }
        if let Some(reference) = map.get("$ref") {
            return self.follow(reference, at);
        }
        if let Some(inner) = or_null(map) {
            let inner = self.shape(inner, &format!("{at}/anyOf"))?;
            return Ok(TypeShape { kind: inner.kind, nullable: true });
        }
        if ["oneOf", "anyOf", "allOf", "not", "if"].iter().any(|key| map.contains_key(*key))
            && !map.contains_key("properties")
        {
            self.scan(node, at)?;
            return Ok(TypeShape::OPAQUE);
        }
        let (name, nullable) = match type_of(map) {
            Some(known) => known,
            None => {
                self.checked = true;
                self.scan(node, at)?;
                return Ok(TypeShape::OPAQUE);
            }
        };
        let kind = match name {
            "integer" => ArgumentType::Long,
            "number" => ArgumentType::Decimal,
            "string" => ArgumentType::Text,
            "boolean" => ArgumentType::Bool,
            "array" => self.array(map, at)?,
            "object" => self.object(node, map, at)?,
            _ => return Err(SchemaError::new(at, format!("unknown type `{name}`"))),
        };
        Ok(TypeShape { kind, nullable })
    }

    fn follow(&mut self, reference: &'a Json, at: &str) -> Result<TypeShape, SchemaError> {
        let Some(text) = reference.as_str() else {
            return Err(SchemaError::new(at, "`$ref` must be a text"));
        };
        let Some(pointer) =
            text.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'))
        else {
            return Err(SchemaError::new(
                at,
                format!("`$ref: {text}` points outside; only `#/…` is allowed"),
            ));
        };
        if self.trail.contains(&pointer) || pointer.is_empty() {
            self.checked = true;
            return Ok(TypeShape::OPAQUE);
        }
        let Some(target) = self.document.pointer(pointer) else {
            return Err(SchemaError::new(at, format!("`$ref: {text}` points to nothing")));
        };
        self.trail.push(pointer);
        let shape = self.shape(target, at);
        self.trail.pop();
        shape
    }

    fn array(
        &mut self,
        map: &'a serde_json::Map<String, Json>,
        at: &str,
    ) -> Result<ArgumentType, SchemaError> {
        let Some(items) = map.get("items") else {
            self.checked = true;
            return Ok(ArgumentType::Set(Box::new(ArgumentType::Opaque)));
        };
        if map.contains_key("prefixItems") || items.is_array() {
            self.checked = true;
            self.scan(items, at)?;
            return Ok(ArgumentType::Set(Box::new(ArgumentType::Opaque)));
        }
        let item = self.shape(items, &format!("{at}/items"))?;
        // A null among the items has no place in a typed set.
        let kind = if item.nullable { ArgumentType::Opaque } else { item.kind };
        Ok(ArgumentType::Set(Box::new(kind)))
    }

    fn object(
        &mut self,
        node: &'a Json,
        map: &'a serde_json::Map<String, Json>,
        at: &str,
    ) -> Result<ArgumentType, SchemaError> {
        let open = match map.get("additionalProperties") {
            None | Some(Json::Bool(_)) => false,
            Some(_) => true,
        };
        let properties = map.get("properties").and_then(Json::as_object);
        // At the root an object without members has no arguments; deeper it is a map.
        if open || map.contains_key("patternProperties") || (properties.is_none() && !at.is_empty())
        {
            self.checked = true;
            self.scan(node, at)?;
            return Ok(ArgumentType::Opaque);
        }
        let required: Vec<&str> = map
            .get("required")
            .and_then(Json::as_array)
            .map(|names| names.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let mut members = BTreeMap::new();
        for (name, schema) in properties.into_iter().flatten() {
            let shape = self.shape(schema, &format!("{at}/properties/{}", escape(name)))?;
            members.insert(
                name.clone(),
                Member {
                    kind: shape.kind,
                    required: required.contains(&name.as_str()) && !shape.nullable,
                    nullable: shape.nullable,
                },
            );
        }
        if let Some(missing) = required.iter().find(|name| !members.contains_key(**name)) {
            return Err(SchemaError::new(
                at,
                format!("`required` names `{missing}`, which `properties` does not declare"),
            ));
        }
        Ok(ArgumentType::Record(members))
    }

    /// Looks through a part that is not typed for references to other documents.
    fn scan(&mut self, node: &'a Json, at: &str) -> Result<(), SchemaError> {
        let mut work = vec![node];
        while let Some(next) = work.pop() {
            self.nodes = self.nodes.saturating_add(1);
            if self.nodes > MAX_NODES {
                return Err(SchemaError::new(at, format!("has more than {MAX_NODES} nodes")));
            }
            match next {
                Json::Object(map) => {
                    for key in ["$ref", "$dynamicRef", "$recursiveRef"] {
                        if let Some(Json::String(text)) = map.get(key)
                            && !text.starts_with('#')
                        {
                            return Err(SchemaError::new(
                                at,
                                format!("`{key}: {text}` points outside; only `#/…` is allowed"),
                            ));
                        }
                    }
                    work.extend(map.values());
                }
                Json::Array(items) => work.extend(items),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The one named type of a node, and whether null is allowed beside it.
fn type_of(map: &serde_json::Map<String, Json>) -> Option<(&str, bool)> {
    match map.get("type") {
        Some(Json::String(name)) => Some((name, false)),
        Some(Json::Array(names)) => {
            let mut others = names.iter().filter_map(Json::as_str).filter(|name| *name != "null");
            let name = others.next()?;
            others
                .next()
                .is_none()
                .then_some((name, names.iter().any(|n| n.as_str() == Some("null"))))
        }
        Some(_) => None,
        None if map.contains_key("properties") => Some(("object", false)),
        None => match (map.get("enum"), map.get("const")) {
            (Some(Json::Array(values)), _)
                if !values.is_empty() && values.iter().all(Json::is_string) =>
            {
                Some(("string", false))
            }
            (None, Some(Json::String(_))) => Some(("string", false)),
            _ => None,
        },
    }
}

/// `anyOf: [T, {type: null}]`, which generators write for an optional member.
fn or_null(map: &serde_json::Map<String, Json>) -> Option<&Json> {
    if map.contains_key("type") || map.contains_key("properties") {
        return None;
    }
    let branches = map.get("anyOf").or_else(|| map.get("oneOf"))?.as_array()?;
    // `tame` writes the branch of a tool's schema as `const: null`.
    let is_null = |node: &Json| {
        node.get("type").and_then(Json::as_str) == Some("null")
            || node.get("const").is_some_and(Json::is_null)
    };
    match branches.as_slice() {
        [one, null] | [null, one] if is_null(null) && !is_null(one) => Some(one),
        _ => None,
    }
}

/// One reference token of a JSON pointer (RFC 6901 §3).
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
