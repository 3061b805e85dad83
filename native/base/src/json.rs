//! The reader of JSON that strangers send: strict, bounded, and without a second meaning.
//!
//! A member named twice, a nesting that is too deep, or a number that is none is refused here, because two readers of
//! such a text may disagree, and then what was judged is not what is done (RFC 8259 §4, RFC 7493 §2).

use std::collections::HashSet;
use std::fmt;

use crate::plain::{self, push_number};

/// Integers beyond ±2⁵³ are no longer exact in readers that use doubles (RFC 7493 §2.2).
const EXACT: i64 = 1 << 53;
/// Up to this many members an object is searched by eye for a repeated name.
const FEW: usize = 16;

/// How much of a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole text.
    pub bytes: usize,
    /// Arrays and objects within each other.
    pub depth: usize,
    /// Values in total, and so the members of each array and object.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 20, depth: 32, values: 65_536 }
    }
}

/// A JSON value; numbers that are not exact integers keep their text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// null
    Null,
    /// true, false
    Bool(bool),
    /// An integer within ±2⁵³, written without exponent or fraction.
    Integer(i64),
    /// Any other number, as written: a fraction, an exponent, `-0`, or an integer beyond ±2⁵³.
    Decimal(String),
    /// A text, escapes resolved.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, in the order of the text, each name once.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The member of an object; none where this is no object or has no such member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The value at a pointer (RFC 6901); none where there is none, or where the pointer is malformed.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Self> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |value, token| {
            let unescaped;
            let token = if token.contains('~') {
                unescaped = unescape_token(token)?;
                unescaped.as_str()
            } else {
                token
            };
            match value {
                Self::Object(_) => value.get(token),
                Self::Array(items) => items.get(array_index(token)?),
                _ => None,
            }
        })
    }

    /// How many bytes [`Value::write`] appends.
    #[must_use]
    pub fn written_len(&self) -> usize {
        let all = |parts: &mut dyn Iterator<Item = usize>| {
            parts.fold(1, |sum: usize, part| sum.saturating_add(part).saturating_add(1)).max(2)
        };
        match self {
            Self::Null | Self::Bool(true) => 4,
            Self::Bool(false) => 5,
            Self::Integer(number) => {
                let digits =
                    number.unsigned_abs().checked_ilog10().map_or(1, |more| more as usize + 1);
                digits + usize::from(*number < 0)
            }
            Self::Decimal(text) => text.len(),
            Self::String(text) => string_len(text),
            Self::Array(items) => all(&mut items.iter().map(Self::written_len)),
            Self::Object(members) => all(&mut members.iter().map(|(name, value)| {
                string_len(name).saturating_add(1).saturating_add(value.written_len())
            })),
        }
    }

    /// Appends the value as JSON, without white space.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Integer(i) => {
                if *i < 0 {
                    out.push('-');
                }
                push_number(out, i.unsigned_abs());
            }
            Self::Decimal(text) => out.push_str(text),
            Self::String(text) => write_string(text, out),
            Self::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_string(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Why a text is refused. Neither field holds values of the text, only its member names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// What is wrong: lower case, no full stop.
    pub what: String,
    /// Where, as a pointer (RFC 6901); empty at the top. Cut after 256 bytes.
    pub pointer: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{} at `{}`", self.what, self.pointer)
        }
    }
}

impl std::error::Error for JsonError {}

/// Reads one JSON value that fills the whole text (RFC 8259).
///
/// # Errors
/// Not UTF-8, not JSON, longer, deeper or with more values than `limits`, a member named twice, a lone surrogate, or a
/// number that no reader can hold (an exponent of more than four digits, more than 400 characters).
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Value, JsonError> {
    let fail = |what: &str| JsonError { what: what.to_owned(), pointer: String::new() };
    if bytes.len() > limits.bytes {
        return Err(fail(&format!("longer than {} bytes", limits.bytes)));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| fail("not UTF-8"))?;
    let mut reader = Reader { rest: text, limits, left: limits.values, path: Vec::new() };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    if reader.rest.is_empty() { Ok(value) } else { Err(reader.error("text after the value")) }
}

/// Splits a pointer into its unescaped tokens; none where it is malformed (RFC 6901 §3).
#[must_use]
pub fn pointer_tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    pointer.strip_prefix('/')?.split('/').map(unescape_token).collect()
}

/// Appends one token to a pointer, escaped (RFC 6901 §3).
pub fn push_token(pointer: &mut String, token: &str) {
    pointer.push('/');
    if !token.bytes().any(|byte| matches!(byte, b'~' | b'/')) {
        pointer.push_str(token);
        return;
    }
    for c in token.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

/// Appends a text as a JSON string.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    if plain::is_plain(text) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// How many bytes [`write_string`] appends.
fn string_len(text: &str) -> usize {
    if plain::is_plain(text) {
        return text.len().saturating_add(2);
    }
    let mut written = String::new();
    write_string(text, &mut written);
    written.len()
}

/// Whether a byte of a text stands for itself in a JSON string.
const fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

/// Whether a text is a JSON number that [`parse`] accepts.
#[must_use]
pub fn is_number(text: &str) -> bool {
    number(text).is_some_and(|(lexical, _)| lexical.len() == text.len())
}

fn unescape_token(token: &str) -> Option<String> {
    if !token.contains('~') {
        return Some(token.to_owned());
    }
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        match c {
            '~' => match chars.next() {
                Some('0') => out.push('~'),
                Some('1') => out.push('/'),
                _ => return None,
            },
            c => out.push(c),
        }
    }
    Some(out)
}

fn array_index(token: &str) -> Option<usize> {
    let plain =
        token == "0" || (!token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit()));
    if plain { token.parse().ok() } else { None }
}

/// The number at the start of a text, and whether it is written as an integer.
fn number(text: &str) -> Option<(&str, bool)> {
    let bytes = text.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let digits = |mut i: usize| {
        while at(i).is_ascii_digit() {
            i += 1;
        }
        i
    };
    let mut end = usize::from(at(0) == b'-');
    end = match at(end) {
        b'0' => end + 1,
        b'1'..=b'9' => digits(end),
        _ => return None,
    };
    let mut integer = true;
    if at(end) == b'.' {
        integer = false;
        let fraction = digits(end + 1);
        if fraction == end + 1 {
            return None;
        }
        end = fraction;
    }
    if matches!(at(end), b'e' | b'E') {
        integer = false;
        let start = end + 1 + usize::from(matches!(at(end + 1), b'+' | b'-'));
        let exponent = digits(start);
        if exponent == start || exponent - start > 4 {
            return None;
        }
        end = exponent;
    }
    if at(end).is_ascii_digit() || end > 400 {
        return None;
    }
    text.get(..end).map(|lexical| (lexical, integer))
}

struct Reader<'a> {
    rest: &'a str,
    limits: Limits,
    left: usize,
    path: Vec<String>,
}

impl<'a> Reader<'a> {
    fn error(&self, what: impl Into<String>) -> JsonError {
        let mut pointer = String::new();
        for token in &self.path {
            push_token(&mut pointer, token);
        }
        let cut =
            pointer.char_indices().map(|(i, _)| i).take_while(|i| *i <= 256).last().unwrap_or(0);
        if pointer.len() > 256 {
            pointer.truncate(cut);
        }
        JsonError { what: what.into(), pointer }
    }

    fn space(&mut self) {
        // Most texts have none.
        if let Some(b' ' | b'\t' | b'\n' | b'\r') = self.rest.as_bytes().first() {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| self.error(format!("more than {} values", self.limits.values)))?;
        match self.rest.as_bytes().first() {
            Some(b'{' | b'[') if depth >= self.limits.depth => {
                Err(self.error(format!("nested deeper than {}", self.limits.depth)))
            }
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.eat("true") => Ok(Value::Bool(true)),
            _ if self.eat("false") => Ok(Value::Bool(false)),
            _ if self.eat("null") => Ok(Value::Null),
            None => Err(self.error("text ends too early")),
            Some(_) => Err(self.error("not JSON")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.eat("{");
        self.space();
        let mut members: Vec<(String, Value)> = Vec::new();
        let mut names: HashSet<String> = HashSet::new();
        if self.eat("}") {
            return Ok(Value::Object(members));
        }
        loop {
            let name = self.string()?;
            let twice = if members.len() < FEW {
                members.iter().any(|(n, _)| *n == name)
            } else {
                if names.is_empty() {
                    names.extend(members.iter().map(|(n, _)| n.clone()));
                }
                !names.insert(name.clone())
            };
            self.path.push(name);
            if twice {
                return Err(self.error("member named twice"));
            }
            self.space();
            if !self.eat(":") {
                return Err(self.error("expected `:`"));
            }
            self.space();
            let value = self.value(depth)?;
            if let Some(name) = self.path.pop() {
                members.push((name, value));
            }
            self.space();
            if self.eat("}") {
                return Ok(Value::Object(members));
            }
            if !self.eat(",") {
                return Err(self.error("expected `,` or `}`"));
            }
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.eat("[");
        self.space();
        let mut items = Vec::new();
        if self.eat("]") {
            return Ok(Value::Array(items));
        }
        loop {
            self.path.push(items.len().to_string());
            items.push(self.value(depth)?);
            self.path.pop();
            self.space();
            if self.eat("]") {
                return Ok(Value::Array(items));
            }
            if !self.eat(",") {
                return Err(self.error("expected `,` or `]`"));
            }
            self.space();
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let Some((lexical, integer)) = number(self.rest) else {
            return Err(self.error("not a number"));
        };
        self.rest = self.rest.strip_prefix(lexical).unwrap_or_default();
        let exact = if integer && lexical != "-0" { lexical.parse::<i64>().ok() } else { None };
        Ok(match exact {
            Some(i) if (-EXACT..=EXACT).contains(&i) => Value::Integer(i),
            _ => Value::Decimal(lexical.to_owned()),
        })
    }

    fn string(&mut self) -> Result<String, JsonError> {
        if !self.eat("\"") {
            return Err(self.error("expected a string"));
        }
        let mut out = String::new();
        loop {
            // No byte of a longer character is one of these.
            let plain = self.rest.bytes().position(|byte| !is_plain(byte));
            let Some((text, rest)) = plain.and_then(|i| self.rest.split_at_checked(i)) else {
                return Err(self.error("string does not end"));
            };
            out.push_str(text);
            self.rest = rest;
            if self.eat("\"") {
                return Ok(out);
            }
            if !self.eat("\\") {
                return Err(self.error("control character in a string"));
            }
            out.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        match c {
            Some('"') => Ok('"'),
            Some('\\') => Ok('\\'),
            Some('/') => Ok('/'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let first = self.hex4()?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    let second = if self.eat("\\u") { self.hex4()? } else { 0 };
                    if !(0xdc00..0xe000).contains(&second) {
                        return Err(self.error("lone surrogate in a string"));
                    }
                    0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                char::from_u32(code).ok_or_else(|| self.error("lone surrogate in a string"))
            }
            _ => Err(self.error("unknown escape in a string")),
        }
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let split = self.rest.split_at_checked(4);
        match split {
            Some((hex, rest)) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
                self.rest = rest;
                u32::from_str_radix(hex, 16).map_err(|_| self.error("unknown escape in a string"))
            }
            _ => Err(self.error("unknown escape in a string")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> Result<Value, JsonError> {
        parse(text.as_bytes(), Limits::default())
    }

    fn refusal(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn every_form_of_json_is_read() {
        let text = r#" { "a" : [ null , true , false , -1 , "x\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00" ] , "b" : { } } "#;
        let value = read(text).unwrap();
        assert_eq!(Some(&Value::Integer(-1)), value.pointer("/a/3"));
        let text = "x\"\\/\u{8}\u{c}\n\r\t\u{e9}\u{1f600}".to_owned();
        assert_eq!(Some(&Value::String(text)), value.pointer("/a/4"));
        let mut out = String::new();
        value.write(&mut out);
        assert_eq!(value, read(&out).unwrap());
    }

    #[test]
    fn inexact_numbers_keep_their_text() {
        for text in
            ["-0", "1.0", "1e3", "9007199254740993", "-9007199254740993", "99999999999999999999999"]
        {
            assert_eq!(Value::Decimal(text.to_owned()), read(text).unwrap());
        }
        assert_eq!(Value::Integer(9_007_199_254_740_992), read("9007199254740992").unwrap());
        assert_eq!(Value::Integer(-9_007_199_254_740_992), read("-9007199254740992").unwrap());
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["01", "-", "1.", ".5", "+1", "1e", "1e12345", "NaN", "Infinity", "0x1", "1_0", "--1"]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(&"1".repeat(401)).is_err());
    }

    #[test]
    fn a_member_named_twice_is_refused_also_where_one_name_is_escaped() {
        assert_eq!("member named twice at `/a/b~1c`", refusal(r#"{"a":{"b/c":1,"\u0062/c":2}}"#));
        let many = (0..40).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(",");
        assert!(read(&format!("{{{many}}}")).is_ok());
        assert_eq!("member named twice at `/k39`", refusal(&format!("{{{many},\"k39\":2}}")));
        assert_eq!("member named twice at `/k0`", refusal(&format!("{{{many},\"k0\":2}}")));
    }

    #[test]
    fn each_bound_has_its_message() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(read(&deep(32)).is_ok());
        assert!(refusal(&deep(33)).starts_with("nested deeper than 32"));
        let few = Limits { bytes: 8, depth: 4, values: 3 };
        assert_eq!("more than 3 values at `/2`", parse(b"[1,2,3]", few).unwrap_err().to_string());
        assert_eq!("longer than 8 bytes", parse(b"[1, 2, 3]", few).unwrap_err().to_string());
    }

    #[test]
    fn malformed_texts_are_refused() {
        for (text, what) in [
            ("", "text ends too early"),
            ("{", "expected a string"),
            ("[1,]", "not JSON at `/1`"),
            ("{\"a\":1,}", "expected a string"),
            ("{\"a\" 1}", "expected `:` at `/a`"),
            ("[1 2]", "expected `,` or `]`"),
            ("1 1", "text after the value"),
            ("\"\\ud800\"", "lone surrogate in a string"),
            ("\"\\udc00\"", "lone surrogate in a string"),
            ("\"\\x\"", "unknown escape in a string"),
            ("\"\\u12\"", "unknown escape in a string"),
            ("\"a", "string does not end"),
            ("\"\u{1}\"", "control character in a string"),
            ("\u{feff}1", "not JSON"),
            ("'a'", "not JSON"),
        ] {
            assert_eq!(what, refusal(text), "{text}");
        }
        assert_eq!("not UTF-8", parse(b"\"\xff\"", Limits::default()).unwrap_err().to_string());
    }

    #[test]
    fn pointers_follow_rfc_6901() {
        let value = read(r#"{"":0,"a/b":1,"m~n":2,"l":[3,4]}"#).unwrap();
        assert_eq!(Some(&Value::Integer(0)), value.pointer("/"));
        assert_eq!(Some(&Value::Integer(1)), value.pointer("/a~1b"));
        assert_eq!(Some(&Value::Integer(2)), value.pointer("/m~0n"));
        assert_eq!(Some(&Value::Integer(4)), value.pointer("/l/1"));
        for none in ["a", "/l/01", "/l/2", "/l/-", "/m~2n", "/x"] {
            assert_eq!(None, value.pointer(none), "{none}");
        }
    }
}
