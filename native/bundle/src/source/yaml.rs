//! YAML as a tree that knows where each value stands, and typed values out of it.
//!
//! The tree comes first, and types after it: `${vars}` are filled into texts only once the YAML has been read, so no
//! value of a variable can become YAML; and every message about a type has its line.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_saphyr::Spanned;

use super::vars;
use crate::diagnostic::{Advice, Diagnostic, clip, meant, nearest};
use crate::location::Location;

/// Mappings and lists within each other, also in JSON Schemas.
const DEPTH: usize = 48;
/// Values in one file.
const NODES: usize = 1_000_000;

/// Line and column, from 1; 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Mark {
    /// The place in a file.
    pub fn within(self, file: &str) -> Location {
        Location { file: file.to_owned(), line: self.line, column: self.column }
    }
}

/// Reads one YAML document into a typed value, `${vars}` filled in.
///
/// Errors: the first thing that is wrong, with its place.
pub fn read<T: DeserializeOwned>(
    file: &str,
    bytes: &[u8],
    vars: &BTreeMap<String, String>,
) -> Result<T, Diagnostic> {
    let mut node = tree(file, bytes)?;
    let at = |mark: Mark| mark.within(file);
    node.fill(vars).map_err(|e| Diagnostic::error(&at(e.at), e.what, e.fix).with_code(e.code))?;
    T::deserialize(&node).map_err(|e| Diagnostic::error(&at(e.at), e.what, e.fix))
}

/// Reads one YAML document into a typed value, `${…}` kept as it is.
///
/// Errors: the first thing that is wrong, with its place.
pub(crate) fn read_plain<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T, Diagnostic> {
    let node = tree(file, bytes)?;
    T::deserialize(&node).map_err(|e| Diagnostic::error(&e.at.within(file), e.what, e.fix))
}

fn tree(file: &str, bytes: &[u8]) -> Result<YamlNode, Diagnostic> {
    let at = |mark: Mark| mark.within(file);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = bytes.iter().take(e.valid_up_to()).filter(|b| **b == b'\n').count() + 1;
        let mark = Mark { line: u32::try_from(line).unwrap_or(0), column: 0 };
        Diagnostic::error(&at(mark), "not UTF-8", "Save the file as UTF-8.")
    })?;
    serde_saphyr::from_str_with_options(text, options()).map_err(|e| {
        let (mark, what, fix) = explain(&e);
        Diagnostic::error(&at(mark), what, fix)
    })
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_nodes: NODES,
            max_events: 4 * NODES,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 100_000,
            max_merge_keys: 0,
        },
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

/// Fix of a syntax error, by the parser's message.
fn syntax_advice(said: &str) -> &'static str {
    let has = |word: &str| said.contains(word);
    if has("tab") {
        "Indent with spaces."
    } else if has("multiline text") || has("simple key") {
        "A key ends with `:`."
    } else if has("placement of ':'") || has("mapping values") {
        "Write a text that holds `: ` in quotes, and close `[` and `{`."
    } else if has("flow") || has("','") || has("',' or") {
        "Put a comma between items, and close `[` with `]`, `{` with `}`."
    } else if has("block") || has("indent") {
        "Check the indentation of this line and of the one before it; a key ends with `:`, an item begins with `- `."
    } else if has("alias") || has("anchor") {
        "Write the value itself, or declare `&name` before `*name`."
    } else {
        "Correct the syntax of this line, or of the one before it."
    }
}

fn explain(error: &serde_saphyr::Error) -> (Mark, String, &'static str) {
    let error = error.without_snippet();
    let mark = error.location().map(|l| mark(&l)).unwrap_or_default();
    match error {
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            (mark, format!("`{}` is named twice", clip(key)), "Keep one of the two.")
        }
        serde_saphyr::Error::MergeKeyNotAllowed { .. } => {
            (mark, "`<<` merges are not read".to_owned(), "Write the keys out.")
        }
        serde_saphyr::Error::MultipleDocuments { .. } => {
            (mark, "more than one YAML document".to_owned(), "Remove `---`, or use two files.")
        }
        serde_saphyr::Error::Budget { .. } => {
            let what =
                format!("too large: more than {NODES} values, or nested deeper than {DEPTH}");
            (mark, what, "Split the file.")
        }
        error => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            // The place stands in front of the message already.
            let line = line.split(" at line ").next().unwrap_or(line);
            (mark, format!("not YAML: {}", line.trim_end_matches('.')), syntax_advice(line))
        }
    }
}

fn mark(location: &serde_saphyr::Location) -> Mark {
    let number = |n: u64| u32::try_from(n).unwrap_or(0);
    Mark { line: number(location.line()), column: number(location.column()) }
}

/// A value of a YAML file and its place.
#[derive(Clone, Debug)]
pub struct YamlNode {
    at: Mark,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<YamlNode>),
    Map(Vec<(String, Mark, YamlNode)>),
}

impl YamlNode {
    fn fill(&mut self, with: &BTreeMap<String, String>) -> Result<(), YamlError> {
        match &mut self.kind {
            Kind::Text(text) => {
                if text.contains("${") {
                    *text = vars::fill(text, with).map_err(|e| YamlError {
                        at: self.at,
                        what: e.what,
                        fix: e.fix,
                        code: e.code,
                        is_of_form: false,
                    })?;
                }
                Ok(())
            }
            Kind::List(items) => items.iter_mut().try_for_each(|item| item.fill(with)),
            Kind::Map(members) => members.iter_mut().try_for_each(|(_, _, value)| value.fill(with)),
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { at: mark(&spanned.referenced), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }
            fn visit_none<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }
            fn visit_bool<E>(self, v: bool) -> Result<Kind, E> {
                Ok(Kind::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Kind, E> {
                Ok(Kind::Int(v))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Kind, E> {
                i64::try_from(v).map(Kind::Int).map_err(|_| E::custom("number too large"))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Kind, E> {
                Ok(Kind::Float(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Kind, E> {
                Ok(Kind::Text(v.to_owned()))
            }
            fn visit_string<E>(self, v: String) -> Result<Kind, E> {
                Ok(Kind::Text(v))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Kind::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    members.push((key.value, mark(&key.referenced), map.next_value()?));
                }
                Ok(Kind::Map(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Why a tree does not have the wanted type.
#[derive(Debug)]
pub struct YamlError {
    at: Mark,
    what: String,
    fix: Advice,
    /// Code of the diagnostic; empty where it has none.
    code: &'static str,
    /// The value has another form than its key takes, so the key is named.
    is_of_form: bool,
}

impl YamlError {
    fn placed(mut self, at: Mark) -> Self {
        if self.at == Mark::default() {
            self.at = at;
        }
        self
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for YamlError {}

impl de::Error for YamlError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            at: Mark::default(),
            what: message.to_string(),
            fix: Advice::default(),
            code: "",
            is_of_form: false,
        }
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match unexpected {
            de::Unexpected::Bool(_) => "true or false",
            de::Unexpected::Signed(_) | de::Unexpected::Unsigned(_) => "a number",
            de::Unexpected::Float(_) => "a number",
            de::Unexpected::Str(_) => "a text",
            de::Unexpected::Seq => "a list",
            de::Unexpected::Map => "a mapping",
            de::Unexpected::Unit | de::Unexpected::Option => "nothing",
            _ => "something else",
        };
        let expected = form(&expected.to_string());
        let advice = match (expected.as_str(), found) {
            (A_TEXT, "true or false") => "Write the value in quotes, or correct it.".to_owned(),
            (A_TEXT, "a number") => {
                "Write the value in quotes; a span of time has a unit, as in 30s, 15m, 1h or 8h."
                    .to_owned()
            }
            (A_TEXT, "a list" | "a mapping") => "Write one value.".to_owned(),
            (number, _) if number.starts_with(A_NUMBER) => {
                "Write digits, without quotes and without a unit.".to_owned()
            }
            ("true or false", _) => "Write true or false.".to_owned(),
            (A_LIST, _) => "Write `[one, two]`, or one item a line with `- ` before it.".to_owned(),
            (_, "nothing") => "Write `{}` where it has no members, or remove the key.".to_owned(),
            (A_MAPPING, _) => {
                "Write `{name: value}`, or one `name: value` a line, indented below the key."
                    .to_owned()
            }
            _ => "`authz schema` gives the form of every file.".to_owned(),
        };
        Self {
            fix: advice.into(),
            is_of_form: true,
            ..Self::custom(format!("expected {expected}, found {found}"))
        }
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match unexpected {
            de::Unexpected::Signed(number) => number.to_string(),
            de::Unexpected::Unsigned(number) => number.to_string(),
            other => other.to_string(),
        };
        let expected = form(&expected.to_string());
        Self {
            fix: "Write another value.".into(),
            is_of_form: true,
            ..Self::custom(format!("`{}` is not valid here: expected {expected}", clip(&found)))
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("key", field, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown("value", variant, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self { fix: "Add it.".into(), ..Self::custom(format!("`{field}` is missing")) }
    }
}

const A_TEXT: &str = "a text";
const A_NUMBER: &str = "a whole number";
const A_LIST: &str = "a list";
const A_MAPPING: &str = "a mapping";

/// The word for a form of values, by serde's name.
fn form(expected: &str) -> String {
    let word = match expected {
        "a string" | "a borrowed string" => A_TEXT,
        "a sequence" => A_LIST,
        "a map" => A_MAPPING,
        "a boolean" => "true or false",
        "u8" => "a whole number from 0 to 255",
        "u16" | "u32" | "u64" | "i32" | "i64" | "usize" => A_NUMBER,
        other if other.starts_with("struct ") => A_MAPPING,
        other => other,
    };
    word.to_owned()
}

impl YamlError {
    /// Names the key whose value has another form than the key takes.
    fn of_key(mut self, name: &str) -> Self {
        if std::mem::take(&mut self.is_of_form) {
            self.what = format!("`{}`: {}", clip(name), self.what);
        }
        self
    }

    fn unknown(kind: &str, name: &str, expected: &[&str]) -> Self {
        let fix = match nearest(name, expected.iter().copied()) {
            Some(near) => meant(name, near),
            None if kind == "value" => "Write one of the known values.".into(),
            None => "Remove it, or write one of the known keys.".into(),
        };
        let what = format!("unknown {kind} `{}`; known: {}", clip(name), expected.join(", "));
        Self { at: Mark::default(), what, fix, code: "", is_of_form: false }
    }
}

/// A value and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub at: Mark,
}

/// The name by which a type asks this reader for the place of its value.
const PLACED: &str = "$placed";
/// The name by which a type asks for a list, also where one value stands alone.
const LISTED: &str = "$listed";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Placed<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Placed<T> {
            type Value = At<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its place")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<At<T>, A::Error> {
                let missing = || de::Error::custom("no place");
                let line = seq.next_element()?.ok_or_else(missing)?;
                let column = seq.next_element()?.ok_or_else(missing)?;
                let value = seq.next_element()?.ok_or_else(missing)?;
                Ok(At { value, at: Mark { line, column } })
            }
        }
        deserializer.deserialize_newtype_struct(PLACED, Placed(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub struct Many<T>(pub Vec<T>);

impl<T> Default for Many<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Many<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Listed<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Listed<T> {
            type Value = Many<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Many<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Many(items))
            }
        }
        deserializer.deserialize_newtype_struct(LISTED, Listed(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Many<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Many_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        let list = generator.subschema_for::<Vec<T>>();
        schemars::json_schema!({ "anyOf": [one, list] })
    }
}

/// A mapping from ids to values, in the order of the file, with the place of each id.
#[derive(Clone, Debug)]
pub(crate) struct Entries<T>(pub Vec<(At<String>, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Entries_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "object", "additionalProperties": value })
    }
}

/// A key that stands in the schema, but that this version does not do.
#[derive(Clone, Debug)]
pub(crate) struct Later;

impl<'de> Deserialize<'de> for Later {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for Later {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Later".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "$comment": "Not in this version: using it is refused." })
    }
}

impl<'de> Deserializer<'de> for &YamlNode {
    type Error = YamlError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match &self.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Bool(v) => visitor.visit_bool(*v),
            Kind::Int(v) => visitor.visit_i64(*v),
            Kind::Float(v) => visitor.visit_f64(*v),
            Kind::Text(v) => visitor.visit_str(v),
            Kind::List(items) => visitor.visit_seq(Items(items.iter())),
            Kind::Map(members) => {
                visitor.visit_map(MapMembers { rest: members.iter(), value: None })
            }
        }
        .map_err(|e| e.placed(self.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        match self.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|e| e.placed(self.at))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        match (name, &self.kind) {
            (PLACED, _) => {
                visitor.visit_seq(PlacedValue { at: self.at, node: Some(self), step: 0 })
            }
            (LISTED, Kind::List(items)) => visitor.visit_seq(Items(items.iter())),
            (LISTED, _) => visitor.visit_seq(Items(std::slice::from_ref(self).iter())),
            _ => visitor.visit_newtype_struct(self),
        }
        .map_err(|e| e.placed(self.at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        match &self.kind {
            Kind::Text(name) => visitor.visit_enum(Choice { name, value: None, at: self.at }),
            Kind::Map(members) => match members.as_slice() {
                [(name, at, value)] => {
                    visitor.visit_enum(Choice { name, value: Some(value), at: *at })
                }
                _ => Err(de::Error::custom("expected a mapping with exactly one key")),
            },
            _ => Err(YamlError {
                fix: "Write one of these words.".into(),
                is_of_form: true,
                ..YamlError::custom(format!("expected one of {}", words.join(", ")))
            }),
        }
        .map_err(|e| e.placed(self.at))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a>(std::slice::Iter<'a, YamlNode>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = YamlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, YamlError> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct MapMembers<'a> {
    rest: std::slice::Iter<'a, (String, Mark, YamlNode)>,
    value: Option<(&'a str, &'a YamlNode)>,
}

impl<'de> MapAccess<'de> for MapMembers<'_> {
    type Error = YamlError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, YamlError> {
        let Some((name, at, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some((name, value));
        seed.deserialize(NodeKey { name, at: *at }).map(Some).map_err(|e| e.placed(*at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, YamlError> {
        match self.value.take() {
            Some((name, node)) => seed.deserialize(node).map_err(|error| error.of_key(name)),
            None => Err(de::Error::custom("a key without a value")),
        }
    }
}

/// A key as a value of its own.
struct NodeKey<'a> {
    name: &'a str,
    at: Mark,
}

impl<'de> Deserializer<'de> for NodeKey<'_> {
    type Error = YamlError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, YamlError> {
        visitor.visit_str(self.name)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        if name == PLACED {
            let node = YamlNode { at: self.at, kind: Kind::Text(self.name.to_owned()) };
            return visitor.visit_seq(PlacedValue { at: self.at, node: Some(&node), step: 0 });
        }
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any option enum
    }
}

/// Line, column, value.
struct PlacedValue<'a> {
    at: Mark,
    node: Option<&'a YamlNode>,
    step: u8,
}

impl<'de> SeqAccess<'de> for PlacedValue<'_> {
    type Error = YamlError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, YamlError> {
        self.step += 1;
        match self.step {
            1 => seed.deserialize(self.at.line.into_deserializer()).map(Some),
            2 => seed.deserialize(self.at.column.into_deserializer()).map(Some),
            _ => self.node.take().map(|node| seed.deserialize(node)).transpose(),
        }
    }
}

struct Choice<'a> {
    name: &'a str,
    value: Option<&'a YamlNode>,
    at: Mark,
}

impl<'de, 'a> EnumAccess<'de> for Choice<'a> {
    type Error = YamlError;
    type Variant = VariantChoice<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, VariantChoice<'a>), YamlError> {
        let key = NodeKey { name: self.name, at: self.at };
        let value = seed.deserialize(key).map_err(|e| e.placed(self.at))?;
        Ok((value, VariantChoice { name: self.name, value: self.value }))
    }
}

struct VariantChoice<'a> {
    name: &'a str,
    value: Option<&'a YamlNode>,
}

impl<'a> VariantChoice<'a> {
    fn node(&self) -> Result<&'a YamlNode, YamlError> {
        let missing = || YamlError::custom(format!("`{}` needs a value", clip(self.name)));
        self.value.ok_or_else(missing)
    }
}

impl<'de> VariantAccess<'de> for VariantChoice<'_> {
    type Error = YamlError;

    fn unit_variant(self) -> Result<(), YamlError> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(de::Error::custom(format!("`{}` takes no value", clip(self.name)))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, YamlError> {
        seed.deserialize(self.node()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, YamlError> {
        self.node()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, YamlError> {
        self.node()?.deserialize_any(visitor)
    }
}

use de::Error as _;
