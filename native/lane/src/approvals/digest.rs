//! Digest of a call: SHA-256 over typed values, so that different calls have different digests.

use authz_kernel::decision::Decision;
use authz_kernel::json::Value;
use authz_kernel::task::approval::IgnoredValue;
use sha2::{Digest as _, Sha256};

use super::{AskedCall, Guard, holds};

/// Domain of the digest.
const DOMAIN: &[u8] = b"authz call 1";

/// A hash of texts with their lengths and types.
struct TypedHash(Sha256);

impl TypedHash {
    fn new() -> Self {
        let mut hash = Self(Sha256::new());
        hash.text(b'#', DOMAIN);
        hash
    }

    fn text(&mut self, kind: u8, bytes: &[u8]) {
        self.0.update([kind]);
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn list<'t>(&mut self, texts: impl ExactSizeIterator<Item = &'t str>) {
        self.count(b'[', texts.len());
        texts.for_each(|text| self.text(b's', text.as_bytes()));
    }

    fn count(&mut self, kind: u8, count: usize) {
        self.0.update([kind]);
        self.0.update((count as u64).to_be_bytes());
    }

    /// Adds a JSON value. A number that no double holds exactly keeps its digits, and null differs from an absent member.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.update(b"n"),
            Value::Bool(value) => self.0.update(if *value { b"t" } else { b"f" }),
            Value::Integer(number) => self.text(b'i', &number.to_be_bytes()),
            Value::Decimal(text) => self.text(b'd', text.as_bytes()),
            Value::String(text) => self.text(b's', text.as_bytes()),
            Value::Array(items) => {
                self.count(b'a', items.len());
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(members) => {
                let mut members: Vec<&(String, Value)> = members.iter().collect();
                members.sort_by(|(a, _), (b, _)| a.cmp(b));
                self.count(b'o', members.len());
                for (name, member) in members {
                    self.text(b'k', name.as_bytes());
                    self.value(member);
                }
            }
        }
    }
}

/// Returns the digest of a call: operation, resource, destinations, arguments, labels that the enforcer reports, and the parts of
/// the HTTP request that the route ignores.
pub(super) fn of_call(
    decision: &Decision,
    request: &AskedCall<'_>,
    ignored: &[IgnoredValue],
) -> [u8; 32] {
    let mut hash = TypedHash::new();
    hash.text(b'o', decision.operation.as_bytes());
    if !holds(Guard::Digest) {
        return hash.0.finalize().into();
    }
    hash.text(b'r', decision.resource.as_bytes());
    hash.list(decision.destinations.iter().map(String::as_str));
    // Both forms of the arguments: as the caller sent them, and as the server reads them.
    hash.text(b'A', &decision.arguments_digest.unwrap_or_default());
    match &decision.arguments {
        Some(arguments) => hash.value(arguments.json()),
        None => hash.count(b'-', 0),
    }
    hash.list(request.labels.iter().copied());
    hash.count(b'(', ignored.len());
    for part in ignored {
        hash.text(b'p', part.place.as_bytes());
        hash.text(b'v', part.value.as_bytes());
    }
    hash.0.finalize().into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use authz_kernel::json;

    use super::*;

    fn digest(text: &str) -> [u8; 32] {
        let mut hash = TypedHash::new();
        hash.value(&json::parse(text.as_bytes(), json::Limits::default()).unwrap());
        hash.0.finalize().into()
    }

    /// Different values have different digests, even if RFC 8785 writes them alike.
    #[test]
    fn values_are_told_apart() {
        let texts = [
            "{}",
            r#"{"a":null}"#,
            r#"{"a":""}"#,
            r#"{"a":0}"#,
            r#"{"a":"0"}"#,
            r#"{"a":-0}"#,
            r#"{"a":false}"#,
            r#"{"a":[]}"#,
            r#"{"a":[[]]}"#,
            r#"{"a":{}}"#,
            r#"{"a":[null]}"#,
            r#"{"a":9007199254740993}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1}"#,
            r#"{"a":0.1}"#,
            r#"{"a":0.10000000000000000001}"#,
            r#"{"a":"b","c":""}"#,
            r#"{"a":"","bc":""}"#,
            r#"{"ab":"","c":""}"#,
            r#"["a","b"]"#,
            r#"["ab"]"#,
            r#"["a",["b"]]"#,
        ];
        let all: std::collections::BTreeSet<[u8; 32]> =
            texts.iter().map(|text| digest(text)).collect();
        assert_eq!(texts.len(), all.len());
        assert_eq!(digest(r#"{"a":1,"b":[2]}"#), digest(r#"{ "b": [2], "a": 1 }"#));
    }
}
