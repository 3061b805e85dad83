//! From raw bytes to typed arguments.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use authz_base::digest::sha256;
use authz_base::json::{self, Limits};
use smol_str::SmolStr;

use super::types::{ArgumentType, Member};
use super::{Checker, Nulls};

/// 2⁵³: beyond it a double does not hold every whole number (RFC 7493 §2.2).
const EXACT: f64 = 9_007_199_254_740_992.0;
/// What the canonical form of most arguments takes.
const CANONICAL_BYTES: usize = 256;

/// A typed argument, as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentValue {
    /// An integer within ±2⁵³.
    Long(i64),
    /// A number in ten-thousandths.
    Decimal(i64),
    /// A text.
    Text(SmolStr),
    /// True or false.
    Bool(bool),
    /// The items of an array.
    Set(Vec<ArgumentValue>),
    /// The members of an object, sorted by name.
    Record(Vec<(SmolStr, ArgumentValue)>),
    /// Present, and no more can be said: an opaque argument, or a number that a Cedar decimal cannot hold.
    Opaque,
}

/// The arguments of one request.
#[derive(Clone, Debug)]
pub struct Arguments {
    json: Arc<json::Value>,
    values: Vec<(SmolStr, ArgumentValue)>,
    digest: [u8; 32],
}

impl Arguments {
    /// The arguments as their server takes them: as they were sent, but for coercions.
    #[must_use]
    pub fn json(&self) -> &json::Value {
        &self.json
    }

    /// The typed arguments that are present, sorted by name.
    #[must_use]
    pub fn values(&self) -> &[(SmolStr, ArgumentValue)] {
        &self.values
    }

    /// SHA-256 of the canonical form of the arguments as they were sent (RFC 8785; a number that no double holds exactly keeps all its digits, so that
    /// two different requests never share a digest).
    #[must_use]
    pub const fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// Arguments that do not have the declared form. Holds declared names, never values or names of the caller's making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentError {
    pointer: String,
    what: String,
    understood: bool,
}

impl ArgumentError {
    fn new(pointer: &str, what: impl Into<String>) -> Self {
        Self { pointer: pointer.to_owned(), what: what.into(), understood: true }
    }

    /// Not JSON that has one reading, or beyond our bounds.
    fn unread(pointer: &str, what: impl Into<String>) -> Self {
        Self { understood: false, ..Self::new(pointer, what) }
    }

    /// The same error, of a value that is a member or an item of another.
    fn below(mut self, token: &str) -> Self {
        let mut pointer = String::new();
        json::push_token(&mut pointer, token);
        pointer.push_str(&self.pointer);
        self.pointer = pointer;
        self
    }

    /// The arguments were read whole, in the only way they can be read; they are not those of the operation.
    #[must_use]
    pub const fn is_understood(&self) -> bool {
        self.understood
    }

    /// JSON pointer (RFC 6901) to the member, as far as the schema declares it.
    #[must_use]
    pub fn pointer(&self) -> &str {
        &self.pointer
    }
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            write!(f, "arguments: {}", self.what)
        } else {
            write!(f, "argument `{}`: {}", self.pointer, self.what)
        }
    }
}

impl std::error::Error for ArgumentError {}

pub(super) fn parse(
    members: &BTreeMap<String, Member>,
    bytes: &[u8],
) -> Result<json::Value, ArgumentError> {
    if bytes.is_empty() {
        return Ok(json::Value::Object(Vec::new()));
    }
    json::parse(bytes, Limits::default()).map_err(|error| {
        let (pointer, whole) = declared(members, &error.pointer, false);
        ArgumentError::unread(&pointer, within(whole, &error.what))
    })
}

pub(super) fn read(
    members: &BTreeMap<String, Member>,
    checker: Option<&Checker>,
    nulls: Nulls,
    sent: &json::Value,
    json: &Arc<json::Value>,
) -> Result<Arguments, ArgumentError> {
    let values = record(members, nulls, json)?;
    if let Some(Checker { validator, unions }) = checker {
        let checked = plain_record(members, nulls, json)?;
        if unions.as_ref().is_some_and(|unions| !unions.bounded(&checked)) {
            let what = "nested too deep for the unions of the schema";
            return Err(ArgumentError::unread("", what));
        }
        if let Err(error) = validator.validate(&checked) {
            // The error's own text repeats the value; the keyword that it breaks does not.
            let path = error.schema_path().to_string();
            let keyword =
                path.rsplit('/').find(|token| token.parse::<u32>().is_err()).unwrap_or("?");
            let (pointer, whole) = declared(members, error.instance_path().as_str(), true);
            let what = format!("breaks `{keyword}` of the schema");
            return Err(ArgumentError::new(&pointer, within(whole, &what)));
        }
    }
    let mut canonical = String::with_capacity(CANONICAL_BYTES);
    // INVARIANT (one digest): enforcers, guards and tool servers see the arguments as they are sent, and know of no coercion. The
    // digest of a credential, an approval or a denial is theirs too. Arguments with one digest are coerced alike.
    write_canonical(sent, &mut canonical);
    let digest = sha256(canonical.as_bytes());
    Ok(Arguments { json: Arc::clone(json), values, digest })
}

/// As much of a pointer as the schema declares, and whether that is all: other names are the caller's words, which may
/// be secrets.
///
/// Args:
/// * `typed`: the value has the declared types, so that a number after an array's name is an index.
fn declared(members: &BTreeMap<String, Member>, pointer: &str, typed: bool) -> (String, bool) {
    let mut shown = String::new();
    let mut above = Some(members);
    let mut item: Option<&ArgumentType> = None;
    let Some(tokens) = json::pointer_tokens(pointer) else { return (shown, false) };
    for token in tokens {
        let kind = match (item, above) {
            (Some(kind), _) if typed => kind,
            (None, Some(members)) => match members.get(token.as_str()) {
                Some(member) => &member.kind,
                None => return (shown, false),
            },
            _ => return (shown, false),
        };
        json::push_token(&mut shown, &token);
        (above, item) = match kind {
            ArgumentType::Record(members) => (Some(members), None),
            ArgumentType::Set(item) => (None, Some(item.as_ref())),
            _ => (None, None),
        };
    }
    (shown, true)
}

fn within(whole: bool, what: &str) -> String {
    if whole { what.to_owned() } else { format!("an undeclared member: {what}") }
}

// Recursion is bounded by the depth limit of the reader.
fn record(
    members: &BTreeMap<String, Member>,
    nulls: Nulls,
    value: &json::Value,
) -> Result<Vec<(SmolStr, ArgumentValue)>, ArgumentError> {
    let json::Value::Object(given) = value else {
        return Err(ArgumentError::new("", "expected an object"));
    };
    let mut values = Vec::with_capacity(given.len());
    for (name, value) in given {
        let Some(member) = members.get(name) else {
            return Err(ArgumentError::new("", "an undeclared member"));
        };
        match value {
            json::Value::Null if member.nullable || is_absent(member, nulls) => {}
            _ => {
                let value = typed(&member.kind, nulls, value).map_err(|error| error.below(name))?;
                values.push((SmolStr::new(name), value));
            }
        }
    }
    values.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (name, _) in members.iter().filter(|(_, member)| member.required) {
        if values.binary_search_by(|(known, _)| known.as_str().cmp(name)).is_err() {
            return Err(ArgumentError::new("", "required, but absent").below(name));
        }
    }
    Ok(values)
}

/// Whether null stands for an absent member where the schema does not allow null.
fn is_absent(member: &Member, nulls: Nulls) -> bool {
    nulls == Nulls::Absent && !member.required
}

fn typed(
    kind: &ArgumentType,
    nulls: Nulls,
    value: &json::Value,
) -> Result<ArgumentValue, ArgumentError> {
    let wrong = |expected: &str| Err(ArgumentError::new("", format!("expected {expected}")));
    match (kind, value) {
        (ArgumentType::Opaque, _) => Ok(ArgumentValue::Opaque),
        (ArgumentType::Long, json::Value::Integer(number)) => Ok(ArgumentValue::Long(*number)),
        (ArgumentType::Long, _) => wrong("an integer within ±2^53"),
        (ArgumentType::Decimal, json::Value::Integer(number)) => {
            Ok(number.checked_mul(10_000).map_or(ArgumentValue::Opaque, ArgumentValue::Decimal))
        }
        (ArgumentType::Decimal, json::Value::Decimal(text)) if is_rounded(text) => {
            wrong("a number within ±2^53, or one that a double holds exactly")
        }
        (ArgumentType::Decimal, json::Value::Decimal(text)) => Ok(Number::parse(text)
            .ten_thousandths()
            .map_or(ArgumentValue::Opaque, ArgumentValue::Decimal)),
        (ArgumentType::Decimal, _) => wrong("a number"),
        (ArgumentType::Text, json::Value::String(text)) => {
            Ok(ArgumentValue::Text(SmolStr::new(text)))
        }
        (ArgumentType::Text, _) => wrong("a string"),
        (ArgumentType::Bool, json::Value::Bool(value)) => Ok(ArgumentValue::Bool(*value)),
        (ArgumentType::Bool, _) => wrong("true or false"),
        (ArgumentType::Set(item), json::Value::Array(items)) => {
            let items = items.iter().enumerate().map(|(index, value)| {
                typed(item, nulls, value).map_err(|error| error.below(&index.to_string()))
            });
            items.collect::<Result<_, _>>().map(ArgumentValue::Set)
        }
        (ArgumentType::Set(_), _) => wrong("an array"),
        (ArgumentType::Record(members), _) => {
            record(members, nulls, value).map(ArgumentValue::Record)
        }
    }
}

/// Whether readers that use doubles take a number beyond ±2⁵³ for another number than its digits say.
///
/// A whole number without exponent or fraction is refused there in any case: readers that use integers of 64 bits differ as well.
fn is_rounded(text: &str) -> bool {
    if !text.contains(['.', 'e', 'E']) {
        return text != "-0";
    }
    let double = text.parse::<f64>().ok().filter(|double| double.is_finite());
    let Some(double) = double else { return true };
    double.abs() >= EXACT && Number::parse(&format!("{double:e}")) != Number::parse(text)
}

/// The value for the JSON Schema checker: a null that stands for an absent optional member is left out.
fn plain_record(
    members: &BTreeMap<String, Member>,
    nulls: Nulls,
    value: &json::Value,
) -> Result<serde_json::Value, ArgumentError> {
    let json::Value::Object(given) = value else { return plain(value) };
    let mut map = serde_json::Map::new();
    for (name, value) in given {
        let member = members.get(name);
        let absent = matches!(value, json::Value::Null)
            && member.is_some_and(|member| !member.nullable && is_absent(member, nulls));
        if absent {
            continue;
        }
        let value = match member.map(|member| &member.kind) {
            Some(kind) => plain_typed(kind, nulls, value)?,
            None => plain(value)?,
        };
        map.insert(name.clone(), value);
    }
    Ok(serde_json::Value::Object(map))
}

fn plain_typed(
    kind: &ArgumentType,
    nulls: Nulls,
    value: &json::Value,
) -> Result<serde_json::Value, ArgumentError> {
    match (kind, value) {
        (ArgumentType::Record(members), _) => plain_record(members, nulls, value),
        (ArgumentType::Set(item), json::Value::Array(items)) => items
            .iter()
            .map(|value| plain_typed(item, nulls, value))
            .collect::<Result<Vec<_>, _>>()
            .map(Into::into),
        _ => plain(value),
    }
}

fn plain(value: &json::Value) -> Result<serde_json::Value, ArgumentError> {
    Ok(match value {
        json::Value::Null => serde_json::Value::Null,
        json::Value::Bool(value) => (*value).into(),
        json::Value::Integer(number) => (*number).into(),
        json::Value::Decimal(text) => {
            let number = match (text.parse::<i64>(), text.parse::<u64>()) {
                (Ok(number), _) if text != "-0" => Some(number.into()),
                (_, Ok(number)) => Some(number.into()),
                _ => text.parse::<f64>().ok().and_then(serde_json::Number::from_f64),
            };
            let Some(number) = number else {
                return Err(ArgumentError::new("", "a number is out of range"));
            };
            serde_json::Value::Number(number)
        }
        json::Value::String(text) => text.clone().into(),
        json::Value::Array(items) => items.iter().map(plain).collect::<Result<Vec<_>, _>>()?.into(),
        json::Value::Object(members) => {
            let mut map = serde_json::Map::new();
            for (name, value) in members {
                map.insert(name.clone(), plain(value)?);
            }
            serde_json::Value::Object(map)
        }
    })
}

/// An exact decimal number: ±digits × 10^exponent, digits without zeros at either end.
#[derive(Debug, PartialEq, Eq)]
struct Number {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Number {
    /// Reads the text of a JSON number (or of Rust's `{:e}`).
    fn parse(text: &str) -> Self {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        // The reader allows four digits of exponent and 400 bytes, so neither conversion can fail or overflow.
        let mut exponent = exponent.parse::<i64>().unwrap_or(0);
        exponent = exponent.saturating_sub(i64::try_from(fraction.len()).unwrap_or(0));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_end_matches('0');
        exponent = exponent
            .saturating_add(i64::try_from(all.len().saturating_sub(digits.len())).unwrap_or(0));
        let digits = digits.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Self { negative: false, digits, exponent: 0 };
        }
        Self { negative, digits, exponent }
    }

    /// The number in ten-thousandths, where that is exact and a Cedar decimal holds it.
    fn ten_thousandths(&self) -> Option<i64> {
        let zeros =
            u32::try_from(self.exponent.checked_add(4)?).ok().filter(|zeros| *zeros <= 18)?;
        if self.digits.is_empty() {
            return Some(0);
        }
        let number = self.digits.parse::<i64>().ok()?.checked_mul(10_i64.checked_pow(zeros)?)?;
        if self.negative { number.checked_neg() } else { Some(number) }
    }

    /// Appends the form of RFC 8785 §3.2.2.3 (ECMAScript's) where a double holds the number, else all its digits.
    fn write(&self, out: &mut String) {
        if self.digits.is_empty() {
            out.push('0');
            return;
        }
        if self.negative {
            out.push('-');
        }
        let count = i64::try_from(self.digits.len()).unwrap_or(i64::MAX);
        // ECMAScript, Number::toString: the decimal point stands after `point` digits.
        let point = self.exponent.saturating_add(count);
        let zeros = |n: i64| "0".repeat(usize::try_from(n).unwrap_or(0).min(32));
        let split = |at: i64| {
            self.digits
                .split_at_checked(usize::try_from(at).unwrap_or(0))
                .unwrap_or((&self.digits, ""))
        };
        if count <= point && point <= 21 {
            out.push_str(&self.digits);
            out.push_str(&zeros(point.saturating_sub(count)));
        } else if 0 < point && point <= 21 {
            let (whole, fraction) = split(point);
            out.push_str(&format!("{whole}.{fraction}"));
        } else if -6 < point && point <= 0 {
            out.push_str(&format!("0.{}{}", zeros(point.saturating_neg()), self.digits));
        } else {
            let (first, rest) = split(1);
            out.push_str(first);
            if !rest.is_empty() {
                out.push('.');
                out.push_str(rest);
            }
            let exponent = point.saturating_sub(1);
            out.push_str(&format!("e{}{exponent}", if exponent < 0 { "" } else { "+" }));
        }
    }
}

/// Appends the canonical form (RFC 8785).
pub fn write_canonical(value: &json::Value, out: &mut String) {
    match value {
        json::Value::Decimal(text) => {
            let exact = Number::parse(text);
            // Doubles that read alike are written alike; what a double cannot hold keeps its digits.
            let double = text.parse::<f64>().ok().filter(|double| double.is_finite());
            let shortest = double.map(|double| Number::parse(&format!("{double:e}")));
            shortest.filter(|shortest| *shortest == exact).unwrap_or(exact).write(out);
        }
        json::Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        json::Value::Object(members) => {
            let mut sorted: Vec<&(String, json::Value)> = members.iter().collect();
            // RFC 8785 §3.2.3: by UTF-16 code units, which differs from UTF-8 order beyond the basic plane.
            if sorted.iter().all(|(name, _)| name.is_ascii()) {
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
            } else {
                sorted.sort_by_cached_key(|(name, _)| name.encode_utf16().collect::<Vec<u16>>());
            }
            out.push('{');
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        json::Value::String(text) => write_text(text, out),
        other => other.write(out),
    }
}

/// RFC 8785 §3.2.2.2: the short escapes, `\u00xx` for other controls, all else as it is.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if u32::from(control) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
