//! A strict JSON reader (RFC 8259).
//!
//! It refuses what a lenient reader lets through: a member twice at any level (RFC 7515 §4,
//! RFC 7519 §4), invalid UTF-8, lone surrogates, trailing bytes, and anything deeper or larger than
//! its limits. Its result does not depend on the features that other crates turn on in a shared
//! JSON library.

use std::borrow::Cow;
use std::fmt;

/// How much a text may hold.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Nested arrays and objects.
    pub(crate) depth: u32,
    /// Values in all, at every level.
    pub(crate) nodes: u32,
}

/// A JSON value that borrows from its text where it can.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// A finite number that is not written as an integer of 64 bits.
    Float(f64),
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Object<'a>),
}

/// An object whose member names differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Object<'a> {
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Object<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.members.iter().map(|(name, value)| (name.as_ref(), value))
    }
}

/// Why a text is not accepted; holds none of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum InvalidJson {
    Duplicate,
    NotUtf8,
    Syntax,
    TooDeep,
    TooLarge,
}

impl fmt::Display for InvalidJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "a member stands twice in one JSON object",
            Self::NotUtf8 => "not UTF-8",
            Self::Syntax => "not JSON",
            Self::TooDeep => "JSON nested too deeply",
            Self::TooLarge => "JSON with too many values",
        })
    }
}

/// Reads one JSON value that is the whole of `bytes`.
pub(crate) fn read(bytes: &[u8], limits: Limits) -> Result<Value<'_>, InvalidJson> {
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidJson::NotUtf8)?;
    let mut reader = Reader { text, at: 0, left: limits.nodes };
    reader.skip_space();
    let value = reader.value(limits.depth)?;
    reader.skip_space();
    if reader.at == text.len() { Ok(value) } else { Err(InvalidJson::Syntax) }
}

/// Reads one JSON object that is the whole of `bytes`.
pub(crate) fn read_object(bytes: &[u8], limits: Limits) -> Result<Object<'_>, InvalidJson> {
    match read(bytes, limits)? {
        Value::Object(object) => Ok(object),
        _ => Err(InvalidJson::Syntax),
    }
}

/// Above this many members duplicates are found by sorting, so that a hostile text costs no square.
const FEW_MEMBERS: usize = 16;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Values that may still be read.
    left: u32,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: u32) -> Result<Value<'a>, InvalidJson> {
        self.left = self.left.checked_sub(1).ok_or(InvalidJson::TooLarge)?;
        match self.peek().ok_or(InvalidJson::Syntax)? {
            b'{' => self.object(depth.checked_sub(1).ok_or(InvalidJson::TooDeep)?),
            b'[' => self.array(depth.checked_sub(1).ok_or(InvalidJson::TooDeep)?),
            b'"' => self.string().map(Value::String),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'n' => self.word("null", Value::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value<'a>, InvalidJson> {
        self.at += 1;
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(Object { members }));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(InvalidJson::Syntax);
            }
            let name = self.string()?;
            if members.len() < FEW_MEMBERS && members.iter().any(|(other, _)| *other == name) {
                return Err(InvalidJson::Duplicate);
            }
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.value(depth)?;
            members.push((name, value));
            self.skip_space();
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
        }
        if members.len() > FEW_MEMBERS {
            let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
            names.sort_unstable();
            if !names.is_sorted_by(|a, b| a < b) {
                return Err(InvalidJson::Duplicate);
            }
        }
        Ok(Value::Object(Object { members }))
    }

    fn array(&mut self, depth: u32) -> Result<Value<'a>, InvalidJson> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            self.skip_space();
            items.push(self.value(depth)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, InvalidJson> {
        self.at += 1;
        let run = self.run()?;
        if self.take(b'"') {
            return Ok(Cow::Borrowed(run));
        }
        let mut owned = run.to_owned();
        loop {
            if self.take(b'"') {
                return Ok(Cow::Owned(owned));
            }
            self.expect(b'\\')?;
            owned.push(self.escape()?);
            owned.push_str(self.run()?);
        }
    }

    /// The characters up to the next quote or backslash.
    fn run(&mut self) -> Result<&'a str, InvalidJson> {
        let rest = self.text.as_bytes().get(self.at..).ok_or(InvalidJson::Syntax)?;
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
            .ok_or(InvalidJson::Syntax)?;
        let end = self.at.saturating_add(length);
        let run = self.text.get(self.at..end).ok_or(InvalidJson::Syntax)?;
        self.at = end;
        Ok(run)
    }

    fn escape(&mut self) -> Result<char, InvalidJson> {
        let byte = self.next().ok_or(InvalidJson::Syntax)?;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex4()?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    let second = self.hex4()?;
                    if !(0xdc00..0xe000).contains(&second) {
                        return Err(InvalidJson::Syntax);
                    }
                    0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                char::from_u32(code).ok_or(InvalidJson::Syntax)?
            }
            _ => return Err(InvalidJson::Syntax),
        })
    }

    fn hex4(&mut self) -> Result<u32, InvalidJson> {
        let mut code = 0;
        for _ in 0..4 {
            let byte = self.next().ok_or(InvalidJson::Syntax)?;
            let digit = char::from(byte).to_digit(16).ok_or(InvalidJson::Syntax)?;
            code = code * 16 + digit;
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<Value<'a>, InvalidJson> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let mut integer = true;
        if self.take(b'.') {
            integer = false;
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            integer = false;
            if !self.take(b'-') {
                self.take(b'+');
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).ok_or(InvalidJson::Syntax)?;
        if integer && let Ok(number) = text.parse() {
            return Ok(Value::Integer(number));
        }
        let number: f64 = text.parse().map_err(|_| InvalidJson::Syntax)?;
        if number.is_finite() { Ok(Value::Float(number)) } else { Err(InvalidJson::Syntax) }
    }

    fn digits(&mut self) -> Result<(), InvalidJson> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(InvalidJson::Syntax) }
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, InvalidJson> {
        let end = self.at.saturating_add(word.len());
        if self.text.get(self.at..end) != Some(word) {
            return Err(InvalidJson::Syntax);
        }
        self.at = end;
        Ok(value)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), InvalidJson> {
        if self.take(byte) { Ok(()) } else { Err(InvalidJson::Syntax) }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const SMALL: Limits = Limits { depth: 4, nodes: 64 };

    fn text(value: &Value<'_>) -> String {
        match value {
            Value::String(text) => text.to_string(),
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
            assert_eq!(Err(InvalidJson::Duplicate), read(bad.as_bytes(), SMALL), "{bad}");
        }
        let many: Vec<String> = (0..40).map(|i| format!("\"m{}\":{i}", i % 39)).collect();
        let many = format!("{{{}}}", many.join(","));
        assert_eq!(Err(InvalidJson::Duplicate), read(many.as_bytes(), SMALL));
    }

    /// The limits on depth and on the number of values hold.
    #[test]
    fn limits_hold() {
        assert!(read(b"[[[[1]]]]", SMALL).is_ok());
        assert_eq!(Err(InvalidJson::TooDeep), read(b"[[[[[1]]]]]", SMALL));
        let wide = format!("[{}]", vec!["1"; 64].join(","));
        assert_eq!(Err(InvalidJson::TooLarge), read(wide.as_bytes(), SMALL));
        let deep = "[".repeat(1_000_000);
        assert_eq!(Err(InvalidJson::TooDeep), read(deep.as_bytes(), SMALL));
    }

    /// What is not JSON is refused.
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
            assert_eq!(Err(InvalidJson::Syntax), read(bad.as_bytes(), SMALL), "{bad}");
        }
        assert_eq!(Err(InvalidJson::NotUtf8), read(b"\"\xff\"", SMALL));
    }

    /// What is JSON is read as it stands.
    #[test]
    fn well_formed_text_is_read() {
        for (given, expected) in [
            (r#""""#, ""),
            (r#""a\"\\\/\b\f\n\r\tb""#, "a\"\\/\u{8}\u{c}\n\r\tb"),
            (r#""\u00e9\ud83d\ude00é😀""#, "é😀é😀"),
        ] {
            assert_eq!(expected, text(&read(given.as_bytes(), SMALL).unwrap()));
        }
        assert_eq!(Ok(Value::Integer(-12)), read(b" -12\n", SMALL));
        assert_eq!(Ok(Value::Float(1.5e3)), read(b"1.5E+3", SMALL));
        assert_eq!(
            Ok(Value::Float(9_223_372_036_854_775_808.0)),
            read(b"9223372036854775808", SMALL)
        );
        assert_eq!(Ok(Value::Integer(i64::MIN)), read(b"-9223372036854775808", SMALL));
        let object =
            read_object(br#" { "a" : [ null , true , false ] , "b" : { } } "#, SMALL).unwrap();
        assert_eq!(Some(&Value::Object(Object::default())), object.get("b"));
        assert_eq!(2, object.iter().count());
        assert_eq!(Err(InvalidJson::Syntax), read_object(b"[]", SMALL));
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
    fn same(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
        match (ours, theirs) {
            (Value::Null, serde_json::Value::Null) => true,
            (Value::Bool(a), serde_json::Value::Bool(b)) => a == b,
            (Value::Integer(a), b) => b.as_i64() == Some(*a) || b.as_f64() == Some(0.0),
            (Value::Float(a), b) => (b.as_f64().unwrap() - a).abs() <= a.abs() * 1e-15,
            (Value::String(a), serde_json::Value::String(b)) => a == b,
            (Value::Array(a), serde_json::Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Object(a), serde_json::Value::Object(b)) => {
                a.members.len() == b.len()
                    && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
            }
            _ => false,
        }
    }
}
