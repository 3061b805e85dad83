//! Body of the HTTP request that a proxy asks about.

use authz_kernel::routes::Body;

use super::headers::{Headers, Sought};
use super::request::EnvoyHttp;
use crate::refusal::CallRefusal;

pub(super) fn body<'a>(
    http: &EnvoyHttp<'a>,
    headers: &Headers<'a>,
) -> Result<Body<'a>, CallRefusal> {
    let length = content_length(headers)?;
    if headers.all(Sought::Transfer).nth(1).is_some() {
        return Err(CallRefusal::ambiguous("`transfer-encoding` stands twice"));
    }
    if headers.all(Sought::Partial).any(|value| value != "false") {
        return Ok(Body::Partial);
    }
    let bytes = match (http.body.is_empty(), http.raw_body.is_empty()) {
        (false, false) => return Err(CallRefusal::ambiguous("the body came twice")),
        (false, true) => http.body.as_bytes(),
        (true, _) => http.raw_body,
    };
    let sent = bytes.len() as u64;
    // More of it passed the proxy than it sent along.
    if u64::try_from(http.size).is_ok_and(|size| size > sent) {
        return Ok(Body::Partial);
    }
    match length {
        Some(length) if length == sent => Ok(Body::Whole(bytes)),
        // Only `content-length` tells an empty body from a body that the proxy did not send along.
        _ if bytes.is_empty() => Ok(Body::Absent),
        None => Ok(Body::Whole(bytes)),
        Some(_) => Err(CallRefusal::ambiguous("`content-length` is not the length of the body")),
    }
}

/// Value of `content-length`. With `transfer-encoding` beside it, the next server may follow either (RFC 9112 §6.3).
fn content_length(headers: &Headers<'_>) -> Result<Option<u64>, CallRefusal> {
    let mut values = headers.all(Sought::Length);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || headers.all(Sought::Transfer).next().is_some() {
        return Err(CallRefusal::ambiguous("the length of the body is said twice"));
    }
    // RFC 9110 §8.6: digits only.
    let length = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok());
    match length.flatten() {
        Some(length) => Ok(Some(length)),
        None => Err(CallRefusal::ambiguous("`content-length` is no number")),
    }
}
