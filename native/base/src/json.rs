//! The reader of JSON that strangers send: strict, bounded, and without a second meaning.
//!
//! A member named twice, a nesting that is too deep, or a number that is none is refused here, because two readers of
//! such a text may disagree, and then what was judged is not what is done (RFC 8259 §4, RFC 7493 §2).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use thiserror::Error;

/// Integers beyond ±2⁵³ are no longer exact in readers that use doubles (RFC 7493 §2.2).
const EXACT: i64 = 1 << 53;
/// Up to this many members an object is searched by eye for a repeated name.
const FEW: usize = 16;

/// Bounds of a text.
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
    /// The member of an object. `None` if the value is not an object, or has no member of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The value at a pointer (RFC 6901). `None`: there is no value, or the pointer is malformed.
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

    /// Number of bytes that [`Value::write`] appends.
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
                let _ = write!(out, "{i}");
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

/// A kind of value that [`read`] can make of a text.
pub trait JsonBuilder<'a>: Sized {
    /// The name of a member.
    type Name: AsRef<str>;

    /// A name, escapes resolved.
    fn name(text: Cow<'a, str>) -> Self::Name;
    /// `null`.
    fn null() -> Self;
    /// `true` or `false`.
    fn boolean(value: bool) -> Self;
    /// A number, as written; none where this kind of value cannot hold it.
    ///
    /// `is_integer` is true for a number with neither fraction nor exponent.
    fn number(lexical: &'a str, is_integer: bool) -> Option<Self>;
    /// A string, escapes resolved.
    fn string(text: Cow<'a, str>) -> Self;
    /// An array.
    fn array(items: Vec<Self>) -> Self;
    /// An object whose member names differ, in the order of the text.
    fn object(members: Vec<(Self::Name, Self)>) -> Self;
}

impl<'a> JsonBuilder<'a> for Value {
    type Name = String;

    fn name(text: Cow<'a, str>) -> String {
        text.into_owned()
    }

    fn null() -> Self {
        Self::Null
    }

    fn boolean(value: bool) -> Self {
        Self::Bool(value)
    }

    fn number(lexical: &'a str, is_integer: bool) -> Option<Self> {
        if !is_bounded(lexical) {
            return None;
        }
        let exact = if is_integer && lexical != "-0" { lexical.parse::<i64>().ok() } else { None };
        Some(match exact {
            Some(i) if (-EXACT..=EXACT).contains(&i) => Self::Integer(i),
            _ => Self::Decimal(lexical.to_owned()),
        })
    }

    fn string(text: Cow<'a, str>) -> Self {
        Self::String(text.into_owned())
    }

    fn array(items: Vec<Self>) -> Self {
        Self::Array(items)
    }

    fn object(members: Vec<(String, Self)>) -> Self {
        Self::Object(members)
    }
}

/// Rule that a text breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// It is longer than [`Limits::bytes`].
    TooLong,
    /// It is nested deeper than [`Limits::depth`].
    TooDeep,
    /// It has more values than [`Limits::values`].
    TooManyValues,
    /// It is not UTF-8.
    NotUtf8,
    /// An object has two members of one name (RFC 7493 §2.3).
    Duplicate,
    /// It is not JSON, or holds a number that the kind of value cannot hold.
    Syntax,
}

/// Defect of a JSON text. No field holds values of the text, only its member names.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{what}{}", at_pointer(.pointer))]
pub struct JsonError {
    /// The rule that it breaks.
    pub kind: JsonErrorKind,
    /// Defect of the text: lower case, no full stop.
    pub what: String,
    /// Pointer to the defect (RFC 6901); empty at the top. Cut after 256 bytes.
    pub pointer: String,
}

fn at_pointer(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" at `{pointer}`") }
}

impl JsonError {
    fn new(kind: JsonErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), pointer: String::new() }
    }

    fn syntax(what: &str) -> Self {
        Self::new(JsonErrorKind::Syntax, what)
    }

    /// The error of a value as that of the array or object that holds the value.
    fn within(mut self, token: &str) -> Self {
        let mut pointer = String::new();
        push_token(&mut pointer, token);
        pointer.push_str(&self.pointer);
        if pointer.len() > MAX_POINTER {
            let starts = pointer.char_indices().map(|(start, _)| start);
            pointer.truncate(starts.take_while(|start| *start <= MAX_POINTER).last().unwrap_or(0));
        }
        self.pointer = pointer;
        self
    }
}

/// Bytes of a pointer in an error.
const MAX_POINTER: usize = 256;

/// Reads one JSON value that fills the whole text (RFC 8259).
///
/// # Errors
/// Not UTF-8, not JSON, longer, deeper or with more values than `limits`, a member named twice, a lone surrogate, or a
/// number that no reader can hold (an exponent of more than four digits, more than 400 characters).
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Value, JsonError> {
    read(bytes, limits)
}

/// Reads one JSON value that fills the whole text (RFC 8259), as any kind of value.
///
/// # Errors
/// Not UTF-8, not JSON, longer, deeper or with more values than `limits`, a member named twice, a lone surrogate, or a
/// number that the kind of value cannot hold.
pub fn read<'a, T: JsonBuilder<'a>>(bytes: &'a [u8], limits: Limits) -> Result<T, JsonError> {
    if bytes.len() > limits.bytes {
        let what = format!("longer than {} bytes", limits.bytes);
        return Err(JsonError::new(JsonErrorKind::TooLong, what));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| JsonError::new(JsonErrorKind::NotUtf8, "not UTF-8"))?;
    let mut reader = Reader { rest: text, limits, left: limits.values };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    if reader.rest.is_empty() { Ok(value) } else { Err(JsonError::syntax("text after the value")) }
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

/// Number of bytes that [`write_string`] appends.
fn string_len(text: &str) -> usize {
    if text.bytes().all(is_plain) {
        return text.len().saturating_add(2);
    }
    let mut written = String::new();
    write_string(text, &mut written);
    written.len()
}

/// Returns whether a byte of a text stands for itself in a JSON string.
const fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

/// Returns whether a text is a JSON number that [`parse`] accepts.
#[must_use]
pub fn is_number(text: &str) -> bool {
    number(text).is_some_and(|(lexical, _)| lexical.len() == text.len()) && is_bounded(text)
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
        if exponent == start {
            return None;
        }
        end = exponent;
    }
    if at(end).is_ascii_digit() {
        return None;
    }
    text.get(..end).map(|lexical| (lexical, integer))
}

/// Returns whether a number has at most 400 characters, and at most four digits of an exponent.
fn is_bounded(lexical: &str) -> bool {
    let exponent = lexical.split(['e', 'E']).nth(1).unwrap_or_default();
    lexical.len() <= 400 && exponent.trim_start_matches(['+', '-']).len() <= 4
}

struct Reader<'a> {
    rest: &'a str,
    limits: Limits,
    /// Values that may still be read.
    left: usize,
}

impl<'a> Reader<'a> {
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

    fn value<T: JsonBuilder<'a>>(&mut self, depth: usize) -> Result<T, JsonError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            let what = format!("more than {} values", self.limits.values);
            JsonError::new(JsonErrorKind::TooManyValues, what)
        })?;
        match self.rest.as_bytes().first() {
            Some(b'{' | b'[') if depth >= self.limits.depth => {
                let what = format!("nested deeper than {}", self.limits.depth);
                Err(JsonError::new(JsonErrorKind::TooDeep, what))
            }
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(T::string),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.eat("true") => Ok(T::boolean(true)),
            _ if self.eat("false") => Ok(T::boolean(false)),
            _ if self.eat("null") => Ok(T::null()),
            None => Err(JsonError::syntax("text ends too early")),
            Some(_) => Err(JsonError::syntax("not JSON")),
        }
    }

    fn object<T: JsonBuilder<'a>>(&mut self, depth: usize) -> Result<T, JsonError> {
        self.eat("{");
        self.space();
        let mut members: Vec<(T::Name, T)> = Vec::new();
        let mut names: HashSet<String> = HashSet::new();
        if self.eat("}") {
            return Ok(T::object(members));
        }
        loop {
            let name = T::name(self.string()?);
            let is_duplicate = if members.len() < FEW {
                members.iter().any(|(other, _)| other.as_ref() == name.as_ref())
            } else {
                if names.is_empty() {
                    names.extend(members.iter().map(|(other, _)| other.as_ref().to_owned()));
                }
                !names.insert(name.as_ref().to_owned())
            };
            let value = if is_duplicate {
                Err(JsonError::new(JsonErrorKind::Duplicate, "member named twice"))
            } else {
                self.member(depth)
            };
            match value {
                Ok(value) => members.push((name, value)),
                Err(error) => return Err(error.within(name.as_ref())),
            }
            self.space();
            if self.eat("}") {
                return Ok(T::object(members));
            }
            if !self.eat(",") {
                return Err(JsonError::syntax("expected `,` or `}`"));
            }
            self.space();
        }
    }

    /// The value after the name of a member.
    fn member<T: JsonBuilder<'a>>(&mut self, depth: usize) -> Result<T, JsonError> {
        self.space();
        if !self.eat(":") {
            return Err(JsonError::syntax("expected `:`"));
        }
        self.space();
        self.value(depth)
    }

    fn array<T: JsonBuilder<'a>>(&mut self, depth: usize) -> Result<T, JsonError> {
        self.eat("[");
        self.space();
        let mut items = Vec::new();
        if self.eat("]") {
            return Ok(T::array(items));
        }
        loop {
            let item = self.value(depth);
            items.push(item.map_err(|error| error.within(&items.len().to_string()))?);
            self.space();
            if self.eat("]") {
                return Ok(T::array(items));
            }
            if !self.eat(",") {
                return Err(JsonError::syntax("expected `,` or `]`"));
            }
            self.space();
        }
    }

    fn number<T: JsonBuilder<'a>>(&mut self) -> Result<T, JsonError> {
        let read = number(self.rest).and_then(|(lexical, is_integer)| {
            self.rest = self.rest.strip_prefix(lexical).unwrap_or_default();
            T::number(lexical, is_integer)
        });
        read.ok_or_else(|| JsonError::syntax("not a number"))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if !self.eat("\"") {
            return Err(JsonError::syntax("expected a string"));
        }
        let mut out = Cow::Borrowed("");
        loop {
            // No byte of a longer character is one of these.
            let plain = self.rest.bytes().position(|byte| !is_plain(byte));
            let Some((text, rest)) = plain.and_then(|i| self.rest.split_at_checked(i)) else {
                return Err(JsonError::syntax("string does not end"));
            };
            // The first run of a string without escapes is the string: `Cow` then copies nothing.
            out += text;
            self.rest = rest;
            if self.eat("\"") {
                return Ok(out);
            }
            if !self.eat("\\") {
                return Err(JsonError::syntax("control character in a string"));
            }
            out.to_mut().push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let lone = || JsonError::syntax("lone surrogate in a string");
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
                        return Err(lone());
                    }
                    0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                char::from_u32(code).ok_or_else(lone)
            }
            _ => Err(JsonError::syntax("unknown escape in a string")),
        }
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let unknown = || JsonError::syntax("unknown escape in a string");
        let (digits, rest) = self.rest.split_at_checked(4).ok_or_else(unknown)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        self.rest = rest;
        u32::from_str_radix(digits, 16).map_err(|_| unknown())
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
