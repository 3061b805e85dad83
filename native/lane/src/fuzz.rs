//! Bodies of fuzz tests: any bytes in, and what must hold of the answer.
//!
//! They panic where it does not hold, as tests do.

use prost::Message;

use crate::engine::Engine;
use crate::proto::authz::v1 as wire;
use crate::proto::envoy::config::core::v3::{HeaderMap, HeaderValue};
use crate::proto::envoy::service::auth::v3 as ext;
use crate::proto::envoy::service::auth::v3::attribute_context as attributes;
use crate::settings::Surface;
use crate::transport::Transport;

/// A fuzz body.
pub type FuzzBody = fn(&Engine, &[u8]);

/// All bodies, by the name of their corpus.
pub const BODIES: [(&str, FuzzBody); 8] = [
    ("check", check),
    ("batch_check", batch_check),
    ("explain", explain),
    ("envoy_check", envoy_check),
    ("list", list),
    ("headers", headers),
    ("credentials", credentials),
    ("access_log", access_log),
];

/// An `authz.v1.CheckRequest`.
///
/// # Panics
/// The answer is a permit, or not a decision. The corpus holds no valid credential, so nothing may be permitted.
pub fn check(engine: &Engine, bytes: &[u8]) {
    for listener in ["dev", "own"] {
        let answer = engine.check(bytes, &Transport::by(listener));
        let decision = wire::CheckResponse::decode(answer.as_slice()).ok().and_then(|a| a.decision);
        assert!(decision.is_some_and(|d| is_refusal(&d)), "no refusal");
    }
}

/// An `authz.v1.BatchCheckRequest`.
///
/// # Panics
/// As [`check`].
pub fn batch_check(engine: &Engine, bytes: &[u8]) {
    let answer = engine.batch_check(bytes, &Transport::by("dev"));
    let decisions = wire::BatchCheckResponse::decode(answer.as_slice())
        .map(|a| a.decisions)
        .unwrap_or_default();
    assert!(!decisions.is_empty() && decisions.iter().all(is_refusal), "no refusal");
}

/// An `authz.v1.ExplainRequest`, and the same bytes as who asks.
///
/// # Panics
/// Where it is answered.
pub fn explain(engine: &Engine, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let value = format!("Bearer {text}");
    for authorization in [None, Some(&*text), Some(&*value)] {
        let call = Transport { authorization, trace_parent: Some(&text), ..Transport::by("admin") };
        assert!(engine.explain(bytes, &call).is_err(), "explained");
    }
}

/// An `authz.v1.ListRequest`.
///
/// # Panics
/// Where it is answered.
pub fn list(engine: &Engine, bytes: &[u8]) {
    for listener in ["dev", "own"] {
        let listed = engine.call(Surface::List, bytes, &Transport::by(listener));
        assert!(listed.is_err(), "listed");
    }
}

/// An `envoy.service.auth.v3.CheckRequest`.
///
/// # Panics
/// As [`check`].
pub fn envoy_check(engine: &Engine, bytes: &[u8]) {
    is_denial(&engine.envoy_check(bytes, &Transport::by("dev")));
}

/// Header names and values: lines of `name:value`, in the encoding that keeps bytes.
///
/// # Panics
/// As [`check`].
pub fn headers(engine: &Engine, bytes: &[u8]) {
    let headers = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let (name, value) = line.split_at_checked(at).unwrap_or((line, &[]));
            HeaderValue {
                key: String::from_utf8_lossy(name).into_owned(),
                value: String::new(),
                raw_value: value.get(1..).unwrap_or_default().to_vec(),
            }
        })
        .collect();
    let http = attributes::HttpRequest {
        method: "GET".to_owned(),
        path: "/customers?q=a".to_owned(),
        header_map: Some(HeaderMap { headers }),
        ..attributes::HttpRequest::default()
    };
    let request = attributes::Request { http: Some(http), ..attributes::Request::default() };
    let attributes =
        ext::AttributeContext { request: Some(request), ..ext::AttributeContext::default() };
    let request = ext::CheckRequest { attributes: Some(attributes) };
    is_denial(&engine.envoy_check(&request.encode_to_vec(), &Transport::by("dev")));
}

/// A request of `authz.v1.Credentials`, or its JSON at a token endpoint.
///
/// # Panics
/// Where anything is issued, or said of a token but that it is not active.
pub fn credentials(engine: &Engine, bytes: &[u8]) {
    const INACTIVE: &[u8] = br#"{"active":false}"#;
    for listener in ["dev", "own", "admin", "http"] {
        let ask = |surface| engine.call(surface, bytes, &Transport::by(listener));
        assert!(ask(Surface::CredentialIssue).is_err(), "issued");
        assert!(ask(Surface::CredentialExchange).is_err(), "exchanged");
        let said = ask(Surface::CredentialIntrospect);
        assert!(said.is_err() || said.as_deref() == Ok(INACTIVE), "told");
        let done = ask(Surface::CredentialRevoke);
        assert!(done.is_err() || done.as_deref() == Ok(b"{}"), "told");
    }
}

/// A message of Envoy's access log, and the same bytes as its one entry.
///
/// # Panics
/// An enforcer that reports by access log is refused, or another caller is accepted.
pub fn access_log(engine: &Engine, bytes: &[u8]) {
    let (mut entries, mut message) = (Vec::new(), Vec::new());
    prost::encoding::bytes::encode(1, &bytes.to_vec(), &mut entries);
    prost::encoding::bytes::encode(2, &entries, &mut message);
    for message in [bytes, &message] {
        let tell = |listener| engine.call(Surface::AccessLog, message, &Transport::by(listener));
        assert!(tell("dev").is_ok(), "refused");
        assert!(tell("own").is_err(), "heard");
    }
}

/// An `envoy.service.auth.v3.CheckRequest`, read in place and by `prost`.
///
/// # Panics
/// Where the two readers differ.
pub fn envoy_request(bytes: &[u8]) {
    crate::envoy::assert_same(bytes);
}

fn is_refusal(decision: &wire::Decision) -> bool {
    decision.outcome == wire::Outcome::Deny as i32 && !decision.decision_id.is_empty()
}

fn is_denial(answer: &[u8]) {
    use ext::check_response::HttpResponse;
    let answer = ext::CheckResponse::decode(answer).unwrap_or_default();
    let is_denied = matches!(answer.http_response, Some(HttpResponse::DeniedResponse(_)));
    assert!(is_denied && answer.status.is_some_and(|status| status.code != 0), "no denial");
}
