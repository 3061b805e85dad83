//! Answers to gRPC calls: a message, or an RPC error with its `ErrorInfo`.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use authz_kernel::hex::hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hyper::Response;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderValue};
use prost::Message;

use super::accept::OpenConnection;
use super::share::CountedCall;
use crate::proto::google::rpc::{ErrorInfo, Status};
use crate::transport::ApiError;

/// `domain` of every `ErrorInfo`.
const DOMAIN: &str = "authz.dev";
const RESOURCE_EXHAUSTED: i32 = 8;
pub(super) const UNIMPLEMENTED: i32 = 12;

pub(super) fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers
}

/// Body of the answer to one call. It is dropped once the client has taken it, or has given the call up.
pub(super) struct GrpcBody {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
    call: Option<(CountedCall, Arc<OpenConnection>)>,
}

impl fmt::Debug for GrpcBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcBody").finish_non_exhaustive()
    }
}

impl GrpcBody {
    /// Counts the call until the body is dropped.
    pub(super) fn hold(&mut self, call: CountedCall, connection: &Arc<OpenConnection>) {
        self.call = Some((call, Arc::clone(connection)));
    }
}

impl Drop for GrpcBody {
    fn drop(&mut self) {
        if let Some((_, connection)) = &self.call {
            connection.is_active();
        }
    }
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = self.message.take().map(Frame::data);
        let next = message.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.message.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}

/// A message under status OK.
pub(super) fn reply(message: Vec<u8>) -> Response<GrpcBody> {
    // Answers are far shorter than 4 GiB. A longer answer would be a broken frame, which no client reads as a permit.
    let [a, b, c, d] = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    // Within its own memory: what was just written is still in the processor's cache.
    let mut framed = message;
    drop(framed.splice(..0, [0, a, b, c, d]));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let (message, trailers) = (Some(Bytes::from(framed)), Some(trailers));
    let mut response = Response::new(GrpcBody { message, trailers, call: None });
    *response.headers_mut() = headers();
    response
}

/// The answer to such a call (gRPC's compression specification), which says what is taken instead.
pub(super) fn compressed() -> Response<GrpcBody> {
    let what = "compressed messages are not accepted; send them with `grpc-encoding: identity`";
    let mut response = error(UNIMPLEMENTED, "UNIMPLEMENTED", what);
    let accepted = HeaderValue::from_static("identity");
    response.headers_mut().insert("grpc-accept-encoding", accepted);
    response
}

pub(super) fn overloaded() -> Response<GrpcBody> {
    let what = "the server has more requests than it may hold";
    error(RESOURCE_EXHAUSTED, "OVERLOADED", what)
}

/// Error of a call that answers no decision.
pub(super) fn failed(refused: &ApiError) -> Response<GrpcBody> {
    error(refused.grpc_code, refused.reason_code.as_str(), &refused.message)
}

/// Percent-encoded (gRPC over HTTP/2, Status-Message).
pub(super) fn status_message(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    encoded
}

/// RPC error with its `ErrorInfo`, for calls that answer no decision.
pub(super) fn error(code: i32, reason: &str, message: &str) -> Response<GrpcBody> {
    let info =
        ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), ..ErrorInfo::default() };
    let details = vec![prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
        value: info.encode_to_vec(),
    }];
    let status = Status { code, message: message.to_owned(), details };
    let encoded = STANDARD_NO_PAD.encode(status.encode_to_vec());
    let mut response = Response::new(GrpcBody { message: None, trailers: None, call: None });
    *response.headers_mut() = headers();
    for (name, value) in [
        ("grpc-status", code.to_string()),
        ("grpc-message", status_message(message)),
        ("grpc-status-details-bin", encoded),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `%`, and octets that are not visible ASCII, are encoded.
    #[test]
    fn status_messages() {
        for (text, encoded) in [
            ("`labels` has more than 64 items", "`labels` has more than 64 items"),
            ("100 % é\n", "100 %25 %C3%A9%0A"),
        ] {
            assert_eq!(encoded, status_message(text));
        }
    }
}
