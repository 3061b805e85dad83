//! JSON of tokens and keys, read by the one strict reader ([`authz_base::json`]) without copying texts.
//!
//! The reader refuses what a lenient reader lets through: a member twice at any level (RFC 7515 §4,
//! RFC 7519 §4), invalid UTF-8, lone surrogates, trailing bytes, and anything deeper or larger than
//! its limits. Its result does not depend on the features that other crates turn on in a shared
//! JSON library.

use std::borrow::Cow;

use authz_base::json::{self, JsonBuilder, JsonError, JsonErrorKind};
use thiserror::Error;

/// Bounds of a text.
#[derive(Clone, Copy)]
pub(crate) struct JsonLimits {
    /// Nested arrays and objects.
    pub(crate) depth: usize,
    /// Values in all, at every level.
    pub(crate) nodes: usize,
}

/// A JSON value that borrows from its text where it can.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JsonValue<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// A finite number that is not written as an integer of 64 bits.
    Float(f64),
    String(Cow<'a, str>),
    Array(Vec<JsonValue<'a>>),
    Object(JsonObject<'a>),
}

/// An object whose member names differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct JsonObject<'a> {
    members: Vec<(Cow<'a, str>, JsonValue<'a>)>,
}

impl<'a> JsonObject<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&JsonValue<'a>> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &JsonValue<'a>)> {
        self.members.iter().map(|(name, value)| (name.as_ref(), value))
    }
}

/// Defect of a JSON text, for which it is not read; holds no byte of it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum JsonTextError {
    /// A name stands twice in one object.
    #[error("a member stands twice in one JSON object")]
    Duplicate,
    /// The text is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// The text is not JSON (RFC 8259), or not an object where one is expected.
    #[error("not JSON")]
    Syntax,
    /// Arrays and objects are nested too deeply.
    #[error("JSON nested too deeply")]
    TooDeep,
    /// The text has too many values.
    #[error("JSON with too many values")]
    TooLarge,
}

impl From<JsonError> for JsonTextError {
    fn from(error: JsonError) -> Self {
        match error.kind {
            JsonErrorKind::Duplicate => Self::Duplicate,
            JsonErrorKind::NotUtf8 => Self::NotUtf8,
            JsonErrorKind::Syntax => Self::Syntax,
            JsonErrorKind::TooDeep => Self::TooDeep,
            JsonErrorKind::TooLong | JsonErrorKind::TooManyValues => Self::TooLarge,
        }
    }
}

impl<'a> JsonBuilder<'a> for JsonValue<'a> {
    type Name = Cow<'a, str>;

    fn name(text: Cow<'a, str>) -> Cow<'a, str> {
        text
    }

    fn null() -> Self {
        Self::Null
    }

    fn boolean(value: bool) -> Self {
        Self::Bool(value)
    }

    fn number(lexical: &'a str, is_integer: bool) -> Option<Self> {
        if is_integer && let Ok(number) = lexical.parse() {
            return Some(Self::Integer(number));
        }
        let number: f64 = lexical.parse().ok()?;
        number.is_finite().then_some(Self::Float(number))
    }

    fn string(text: Cow<'a, str>) -> Self {
        Self::String(text)
    }

    fn array(items: Vec<Self>) -> Self {
        Self::Array(items)
    }

    fn object(members: Vec<(Cow<'a, str>, Self)>) -> Self {
        Self::Object(JsonObject { members })
    }
}

/// Reads one JSON value that is the whole of `bytes`.
pub(crate) fn read(bytes: &[u8], limits: JsonLimits) -> Result<JsonValue<'_>, JsonTextError> {
    let limits = json::Limits { bytes: usize::MAX, depth: limits.depth, values: limits.nodes };
    Ok(json::read(bytes, limits)?)
}

/// Reads one JSON object that is the whole of `bytes`.
pub(crate) fn read_object(
    bytes: &[u8],
    limits: JsonLimits,
) -> Result<JsonObject<'_>, JsonTextError> {
    match read(bytes, limits)? {
        JsonValue::Object(object) => Ok(object),
        _ => Err(JsonTextError::Syntax),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const SMALL: JsonLimits = JsonLimits { depth: 4, nodes: 64 };

    fn text(value: &JsonValue<'_>) -> String {
        match value {
            JsonValue::String(text) => text.to_string(),
            other => format!("{other:?}"),
        }
    }

    /// Equal names in one object are refused at every level, also when one of them is escaped.
    #[test]
    fn duplicate_members_are_refused_at_every_level() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"x":{"a":1,"b":2,"a":3}}"#,
            r#"[{"x":[{"":1,"":2}]}]"#,
        ] {
            assert_eq!(Err(JsonTextError::Duplicate), read(bad.as_bytes(), SMALL), "{bad}");
        }
        let many: Vec<String> = (0..40).map(|i| format!("\"m{}\":{i}", i % 39)).collect();
        let many = format!("{{{}}}", many.join(","));
        assert_eq!(Err(JsonTextError::Duplicate), read(many.as_bytes(), SMALL));
    }

    /// The limits on depth and on the number of values hold.
    #[test]
    fn limits_hold() {
        assert!(read(b"[[[[1]]]]", SMALL).is_ok());
        assert_eq!(Err(JsonTextError::TooDeep), read(b"[[[[[1]]]]]", SMALL));
        let wide = format!("[{}]", vec!["1"; 64].join(","));
        assert_eq!(Err(JsonTextError::TooLarge), read(wide.as_bytes(), SMALL));
        let deep = "[".repeat(1_000_000);
        assert_eq!(Err(JsonTextError::TooDeep), read(deep.as_bytes(), SMALL));
    }

    /// A text that is not JSON is refused.
    #[test]
    fn malformed_text_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "}",
            "{}x",
            "{} {}",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "'a'",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "1e999",
            "NaN",
            "Infinity",
            "tru",
            "\"\t\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u12\"",
            "\"a",
            "\u{feff}{}",
            "{\"a\" 1}",
        ] {
            assert_eq!(Err(JsonTextError::Syntax), read(bad.as_bytes(), SMALL), "{bad}");
        }
        assert_eq!(Err(JsonTextError::NotUtf8), read(b"\"\xff\"", SMALL));
    }

    /// A JSON text is read exactly.
    #[test]
    fn well_formed_text_is_read() {
        for (given, expected) in [
            (r#""""#, ""),
            (r#""a\"\\\/\b\f\n\r\tb""#, "a\"\\/\u{8}\u{c}\n\r\tb"),
            (r#""\u00e9\ud83d\ude00é😀""#, "é😀é😀"),
        ] {
            assert_eq!(expected, text(&read(given.as_bytes(), SMALL).unwrap()));
        }
        assert_eq!(Ok(JsonValue::Integer(-12)), read(b" -12\n", SMALL));
        assert_eq!(Ok(JsonValue::Float(1.5e3)), read(b"1.5E+3", SMALL));
        assert_eq!(
            Ok(JsonValue::Float(9_223_372_036_854_775_808.0)),
            read(b"9223372036854775808", SMALL)
        );
        assert_eq!(Ok(JsonValue::Integer(i64::MIN)), read(b"-9223372036854775808", SMALL));
        let object =
            read_object(br#" { "a" : [ null , true , false ] , "b" : { } } "#, SMALL).unwrap();
        assert_eq!(Some(&JsonValue::Object(JsonObject::default())), object.get("b"));
        assert_eq!(2, object.iter().count());
        assert_eq!(Err(JsonTextError::Syntax), read_object(b"[]", SMALL));
    }

    proptest::proptest! {
        /// Where the strict reader accepts a text, the well-known one reads the same values.
        #[test]
        fn agrees_with_serde_json(bytes in r#"[\[\]{}:,0-9eE.+\-"\\ua-f trufalsn]{0,24}"#) {
            if let Ok(value) = read(bytes.as_bytes(), SMALL) {
                let other: serde_json::Value = serde_json::from_str(&bytes).unwrap();
                proptest::prop_assert!(same(&value, &other), "{bytes}");
            }
        }
    }
    fn same(ours: &JsonValue<'_>, theirs: &serde_json::Value) -> bool {
        match (ours, theirs) {
            (JsonValue::Null, serde_json::Value::Null) => true,
            (JsonValue::Bool(a), serde_json::Value::Bool(b)) => a == b,
            (JsonValue::Integer(a), b) => b.as_i64() == Some(*a) || b.as_f64() == Some(0.0),
            (JsonValue::Float(a), b) => (b.as_f64().unwrap() - a).abs() <= a.abs() * 1e-15,
            (JsonValue::String(a), serde_json::Value::String(b)) => a == b,
            (JsonValue::Array(a), serde_json::Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (JsonValue::Object(a), serde_json::Value::Object(b)) => {
                a.members.len() == b.len()
                    && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
            }
            _ => false,
        }
    }
}
