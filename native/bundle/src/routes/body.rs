//! Bodies of requests: which bodies are read, which are ignored, and which are refused because a server could read them.

use authz_base::json::{self, Value};

use super::{JsonRule, Route};
use crate::http::{
    Body, HttpRequest, RequestError, ambiguous, bad, is_type, once, require_plain, require_type,
    unread,
};

/// Members by which some servers let a request override its own method.
const METHOD: &str = "_method";

/// A name in the form in which lenient servers compare it: without case, and without the brackets of a list or an object
/// (`to[]`, `to[0]`).
pub(super) fn folded(name: &str) -> String {
    name.split('[').next().unwrap_or_default().to_lowercase()
}

/// Whether some servers take a member for the method of the request.
pub(super) fn is_method(name: &str) -> bool {
    folded(name) == METHOD
}

/// Whether the headers say that there is a body.
fn is_announced(headers: &[(&str, &str)]) -> Result<bool, RequestError> {
    let length = once(headers, "content-length")?;
    let chunked = once(headers, "transfer-encoding")?;
    Ok(!matches!((length.map(str::trim), chunked), (None | Some("0"), None)))
}

/// Refuses a body of a request that should have none.
pub(super) fn require_none(request: &HttpRequest<'_>) -> Result<(), RequestError> {
    match request.body {
        Body::Whole(b"") => Ok(()),
        // Only the headers tell whether there is a body.
        Body::Absent if !is_announced(request.headers)? => Ok(()),
        _ => bad("the request has a body, but its route maps none"),
    }
}

impl Route {
    /// Reads the value of a body. `None`: the body is empty.
    pub(super) fn read_body(
        &self,
        rule: &JsonRule,
        request: &HttpRequest<'_>,
    ) -> Result<Option<Value>, RequestError> {
        let bytes = match request.body {
            Body::Absent => return unread("the body was not sent along; let the proxy send it"),
            Body::Partial => return cut_off(),
            Body::Whole(b"") => {
                return match once(request.headers, "content-type")? {
                    Some(kind) if !is_type(kind, &self.content_types) => {
                        unread("the body is not sent as JSON in UTF-8")
                    }
                    _ => Ok(None),
                };
            }
            Body::Whole(bytes) => bytes,
        };
        require_type(request.headers, &self.content_types)?;
        let value = parse(bytes)?;
        if rule.ignored {
            self.check_ignored(&value)?;
        } else if rule.argument.is_some() {
            check_no_method(&value)?;
        }
        Ok(Some(value))
    }

    /// Refuses an ignored body in which a server may find arguments of the operation or another method.
    pub(super) fn check_ignored_body(&self, request: &HttpRequest<'_>) -> Result<(), RequestError> {
        let kind = once(request.headers, "content-type")?;
        let bytes = match request.body {
            Body::Partial => return cut_off(),
            Body::Whole(b"") => return Ok(()),
            Body::Absent if kind.is_none() && !is_announced(request.headers)? => return Ok(()),
            Body::Absent => None,
            Body::Whole(bytes) => Some(bytes),
        };
        // Rack reads the body of a POST without a type as a form.
        let Some(kind) = kind else { return unread("the body has no `content-type`") };
        let Some((main, sub)) = media(kind) else {
            return unread("`content-type` is not one media type");
        };
        if main == "multipart" || sub == "x-www-form-urlencoded" {
            return unread("the body is a form, and servers read arguments from forms");
        }
        // Many servers parse a body as JSON, also if it has another content type.
        let is_like_json = bytes.is_some_and(|bytes| {
            let first = bytes.trim_ascii_start().strip_prefix(b"\xef\xbb\xbf".as_slice());
            let first = first.unwrap_or(bytes).trim_ascii_start().first();
            matches!(first, Some(b'{' | b'['))
        });
        let is_json = is_like_json
            || ["json", "x-json", "jsonrequest"].contains(&sub.as_str())
            || sub.ends_with("+json");
        if !is_json {
            return Ok(());
        }
        require_plain(request.headers)?;
        match bytes {
            Some(bytes) => self.check_ignored(&parse(bytes)?),
            None => unread("the body was not sent along; let the proxy send it"),
        }
    }

    /// Refuses an ignored value with a member that is named like an argument of the operation, or that overrides the method,
    /// also in the objects of a list.
    fn check_ignored(&self, value: &Value) -> Result<(), RequestError> {
        check_no_method(value)?;
        match has_member(value, &|name| self.is_like_argument(name)) {
            true => unread("an ignored member of the body is named like an argument"),
            false => Ok(()),
        }
    }

    /// Whether a lenient server may take a member of this name for an argument of the operation.
    pub(super) fn is_like_argument(&self, name: &str) -> bool {
        let name = folded(name);
        self.names.iter().any(|known| *known == name)
    }

    /// Refuses a member of the query or the body that the route does not know.
    pub(super) fn unknown_member<T>(&self, name: &str, part: &str) -> Result<T, RequestError> {
        if is_method(name) {
            return overrides_method();
        }
        let message = format!("a member of the {part} is neither an argument nor ignored");
        match self.is_like_argument(name) {
            // A lenient server would read it as the argument.
            true => unread(message),
            false => bad(message),
        }
    }
}

/// Refuses a value whose members override the method.
fn check_no_method(value: &Value) -> Result<(), RequestError> {
    if has_member(value, &is_method) { overrides_method() } else { Ok(()) }
}

/// Whether an object, or an object in a list, has a member with such a name. A server that takes one object or several reads
/// the arguments of `[{"amount": 5}]` as those of `{"amount": 5}`. The depth limit of the reader bounds the recursion.
fn has_member(value: &Value, is_named: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, _)| is_named(name)),
        Value::Array(items) => items.iter().any(|item| has_member(item, is_named)),
        _ => false,
    }
}

fn overrides_method<T>() -> Result<T, RequestError> {
    ambiguous("a member `_method` overrides the request line")
}

pub(super) fn cut_off<T>() -> Result<T, RequestError> {
    unread("the body was cut off; let the proxy send all of it")
}

fn parse(bytes: &[u8]) -> Result<Value, RequestError> {
    json::parse(bytes, json::Limits::default()).or_else(|error| unread(error.to_string()))
}

/// Type and subtype in lower case. `None`: the value is not exactly one media type.
fn media(kind: &str) -> Option<(String, String)> {
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    // Some servers split at commas, also within quotes.
    if kind.contains(',') {
        return None;
    }
    let media = kind.split(';').next()?.trim_end_matches([' ', '\t']);
    let (main, sub) = media.split_once('/')?;
    (is_token(main) && is_token(sub)).then(|| (main.to_ascii_lowercase(), sub.to_ascii_lowercase()))
}

/// Whether a bundle may list a type in `content_types`.
pub(super) fn is_listable(kind: &str) -> bool {
    let is_lower = !kind.bytes().any(|byte| byte.is_ascii_uppercase());
    let is_json = |(main, sub): (String, String)| {
        main == "application" && (sub == "json" || sub.ends_with("+json"))
    };
    is_lower && kind.len() <= 128 && !kind.contains(';') && media(kind).is_some_and(is_json)
}
