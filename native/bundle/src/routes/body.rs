//! Which bodies are read, which are passed over, and which no server may be sent.

use authz_base::json::{self, Value};
use smol_str::SmolStr;

use super::{Body, HttpRequest, JsonRule, Route, RouteError, ambiguous, bad, once, unread};

/// The type of a body that a route reads, unless the route lists others.
pub(crate) const JSON: &str = "application/json";
/// Members by which some servers let a request override its own method.
const METHOD: &str = "_method";

/// A name as lenient servers compare it: without case, and without the brackets that make a list or an object of it
/// (`to[]`, `to[0]`).
pub(super) fn folded(name: &str) -> String {
    name.split('[').next().unwrap_or_default().to_lowercase()
}

/// Whether some servers take a member for the method of the request.
pub(super) fn is_method(name: &str) -> bool {
    folded(name) == METHOD
}

/// Refuses a body that its headers call anything else than JSON.
pub fn is_json(headers: &[(&str, &str)]) -> Result<(), RouteError> {
    is_of(headers, &[SmolStr::new_static(JSON)])
}

/// Refuses a body that its headers call anything else than one of `types`.
///
/// A server that takes another type for a form, as it takes none or the first of a list, reads other members than the JSON
/// reader here: `{"memo": "&amount=5000&to=eve&x="}` is a form too.
fn is_of(headers: &[(&str, &str)], types: &[SmolStr]) -> Result<(), RouteError> {
    match once(headers, "content-type")? {
        None => return unread("the body has no `content-type`"),
        Some(kind) if !is_type(kind, types) => {
            return unread("the body is not sent as JSON in UTF-8");
        }
        Some(_) => {}
    }
    is_plain(headers)
}

/// Whether a `content-type` is exactly one of `types`, with no parameter but that it is UTF-8.
fn is_type(kind: &str, types: &[SmolStr]) -> bool {
    let (media, parameter) = match kind.split_once(';') {
        Some((media, parameter)) => (media.trim_end_matches([' ', '\t']), Some(parameter)),
        None => (kind, None),
    };
    let is_utf8 = |parameter: &str| {
        let parameter = parameter.trim_matches([' ', '\t']);
        ["charset=utf-8", "charset=\"utf-8\""].iter().any(|own| parameter.eq_ignore_ascii_case(own))
    };
    types.iter().any(|known| known == media) && parameter.is_none_or(is_utf8)
}

/// Refuses a body that must be decoded before it can be read.
fn is_plain(headers: &[(&str, &str)]) -> Result<(), RouteError> {
    match once(headers, "content-encoding")? {
        None => Ok(()),
        Some(encoding) if encoding.trim().eq_ignore_ascii_case("identity") => Ok(()),
        Some(_) => unread("the body is encoded"),
    }
}

/// Whether the headers say that there is a body.
fn is_announced(headers: &[(&str, &str)]) -> Result<bool, RouteError> {
    let length = once(headers, "content-length")?;
    let chunked = once(headers, "transfer-encoding")?;
    Ok(!matches!((length.map(str::trim), chunked), (None | Some("0"), None)))
}

/// Refuses a body where none is expected.
pub(super) fn none(request: &HttpRequest<'_>) -> Result<(), RouteError> {
    match request.body {
        Body::Whole(b"") => Ok(()),
        // Whether there is one is said by the headers alone.
        Body::Absent if !is_announced(request.headers)? => Ok(()),
        _ => bad("the request has a body, but its route maps none"),
    }
}

impl Route {
    /// The value of a body that the route reads; none where it is empty.
    pub(super) fn read(
        &self,
        rule: &JsonRule,
        request: &HttpRequest<'_>,
    ) -> Result<Option<Value>, RouteError> {
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
        is_of(request.headers, &self.content_types)?;
        let value = parse(bytes)?;
        if rule.ignored {
            self.is_foreign(&value)?;
        } else if rule.argument.is_some() {
            has_no_method(&value)?;
        }
        Ok(Some(value))
    }

    /// Refuses a body, passed over here, in which a server may find arguments of the operation or another method.
    pub(super) fn pass_over(&self, request: &HttpRequest<'_>) -> Result<(), RouteError> {
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
        // Many servers parse a body as JSON whatever its type.
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
        is_plain(request.headers)?;
        match bytes {
            Some(bytes) => self.is_foreign(&parse(bytes)?),
            None => unread("the body was not sent along; let the proxy send it"),
        }
    }

    /// Refuses a value with a member that is named like an argument of the operation, or that overrides the method, also in the
    /// objects of a list.
    fn is_foreign(&self, value: &Value) -> Result<(), RouteError> {
        has_no_method(value)?;
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

    /// Why a member of the query or the body that the route does not know is refused.
    pub(super) fn unknown_member<T>(&self, name: &str, part: &str) -> Result<T, RouteError> {
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
fn has_no_method(value: &Value) -> Result<(), RouteError> {
    if has_member(value, &is_method) { overrides_method() } else { Ok(()) }
}

/// Whether an object, or one in a list, has a member with such a name. A server that takes one object or many reads the
/// arguments of `[{"amount": 5}]` as those of `{"amount": 5}`. Recursion is bounded by the depth limit of the reader.
fn has_member(value: &Value, is_named: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, _)| is_named(name)),
        Value::Array(items) => items.iter().any(|item| has_member(item, is_named)),
        _ => false,
    }
}

fn overrides_method<T>() -> Result<T, RouteError> {
    ambiguous("a member `_method` overrides the request line")
}

pub(super) fn cut_off<T>() -> Result<T, RouteError> {
    unread("the body was cut off; let the proxy send all of it")
}

fn parse(bytes: &[u8]) -> Result<Value, RouteError> {
    json::parse(bytes, json::Limits::default()).or_else(|error| unread(error.to_string()))
}

/// Type and subtype in lower case; none where a value is not exactly one media type.
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
