//! HTTP requests as the proxy saw them, and strict reading of their headers.
//!
//! A request that two readers could read differently is refused. Nothing is normalised.

use authz_base::reason::ReasonCode;
use smol_str::SmolStr;

/// An HTTP request as the proxy saw it, before any normalisation.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// `host[:port]`; empty if the caller leaves it out.
    pub host: &'a str,
    /// The raw target, query included, not decoded.
    pub path: &'a str,
    /// Names in lower case, duplicates kept.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, as far as it was sent along.
    pub body: Body<'a>,
}

/// The body of a request, as far as it was sent along.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Not sent along.
    Absent,
    /// Cut off.
    Partial,
    /// The whole body; empty if the request has none.
    Whole(&'a [u8]),
}

/// Refusal of a request that cannot be read, or that has no operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// Reason of the refusal.
    pub reason: ReasonCode,
    /// Text for the log; holds no value of the request.
    pub message: String,
    /// The request was read completely and has one meaning.
    pub understood: bool,
}

impl RequestError {
    /// A request that was read completely and has one meaning.
    #[must_use]
    pub fn new(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), understood: true }
    }

    /// A request that was read, and that its route or endpoint does not provide for.
    #[must_use]
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::BadInput, message)
    }

    /// A request that was not read, or not completely.
    #[must_use]
    pub fn unread(message: impl Into<String>) -> Self {
        Self { understood: false, ..Self::bad(message) }
    }

    /// A request that two readers could read differently.
    #[must_use]
    pub fn ambiguous(message: impl Into<String>) -> Self {
        Self { reason: ReasonCode::AmbiguousRequest, ..Self::unread(message) }
    }

    /// A message that its headers contradict.
    #[must_use]
    pub fn mismatch(message: impl Into<String>) -> Self {
        Self { reason: ReasonCode::HeaderMismatch, ..Self::unread(message) }
    }

    /// A request for an operation that the catalog lacks.
    #[must_use]
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(ReasonCode::UnknownOperation, message)
    }
}

/// Refuses a request with [`RequestError::ambiguous`].
pub fn ambiguous<T>(message: impl Into<String>) -> Result<T, RequestError> {
    Err(RequestError::ambiguous(message))
}

/// Refuses a request with [`RequestError::bad`].
pub fn bad<T>(message: impl Into<String>) -> Result<T, RequestError> {
    Err(RequestError::bad(message))
}

/// Refuses a request with [`RequestError::unread`].
pub fn unread<T>(message: impl Into<String>) -> Result<T, RequestError> {
    Err(RequestError::unread(message))
}

/// The value of a header that a request has at most once, and in no other spelling.
///
/// CGI (RFC 3875 §4.1.18) and its successors read `x_id` and `x-id` as one `HTTP_X_ID`.
pub fn once<'a>(headers: &[(&str, &'a str)], name: &str) -> Result<Option<&'a str>, RequestError> {
    let mut found = None;
    for (spelling, value) in headers.iter().filter(|(n, _)| is_spelling(n, name)) {
        if *spelling != name {
            return ambiguous(format!("the header `{name}` stands there with `_` and `-` swapped"));
        }
        if found.replace(*value).is_some() {
            return ambiguous(format!("the header `{name}` stands twice"));
        }
    }
    Ok(found)
}

/// Whether servers that take `_` for `-` read two header names as one.
#[must_use]
pub fn is_spelling(a: &str, b: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(dashed).eq(b.bytes().map(dashed))
}

/// Type of a body that a route reads by default.
pub const JSON: &str = "application/json";

/// Refuses a body whose headers name another type than JSON.
pub fn require_json(headers: &[(&str, &str)]) -> Result<(), RequestError> {
    require_type(headers, &[SmolStr::new_static(JSON)])
}

/// Refuses a body whose headers name another type than one of `types`.
///
/// A server that takes another type for a form, or that takes the first of several types, reads other members than the JSON
/// reader here: `{"memo": "&amount=5000&to=eve&x="}` is a form too.
pub fn require_type(headers: &[(&str, &str)], types: &[SmolStr]) -> Result<(), RequestError> {
    match once(headers, "content-type")? {
        None => return unread("the body has no `content-type`"),
        Some(kind) if !is_type(kind, types) => {
            return unread("the body is not sent as JSON in UTF-8");
        }
        Some(_) => {}
    }
    require_plain(headers)
}

/// Whether a `content-type` is exactly one of `types`, with UTF-8 as its only parameter.
#[must_use]
pub fn is_type(kind: &str, types: &[SmolStr]) -> bool {
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
pub fn require_plain(headers: &[(&str, &str)]) -> Result<(), RequestError> {
    match once(headers, "content-encoding")? {
        None => Ok(()),
        Some(encoding) if encoding.trim().eq_ignore_ascii_case("identity") => Ok(()),
        Some(_) => unread("the body is encoded"),
    }
}
