//! Headers of a request that go on to a system whose requests get a static secret.
//!
//! INVARIANT (a secret does what was judged): a header may give the holder of a secret another identity, tenant or mode, such as
//! `sudo` (GitLab), `impersonate-user` (Kubernetes) or `content-profile` (PostgREST). The caller does not hold the secret, so it
//! may not choose any of them unless the bundle declares the header. Every other header is removed from the request.

use super::{RouteTable, relayed};
use crate::mcp::{LAST_EVENT_ID, READ_HEADERS, SESSION_ID, is_parameter};

/// Headers that every request may bring, sorted: how HTTP describes and negotiates a representation, makes a request conditional,
/// frames a message, and follows it through proxies. None of them names a caller, a right or another operation.
///
/// Left out on purpose: `x-forwarded-client-cert` (an identity), `content-range` (another effect of the same body), `content-disposition` (a file name), `prefer`
/// (RFC 7240: servers write in another way), `cookie`, `origin`, `referer` and `baggage`.
const STANDARD: [&str; 42] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-digest",
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "expect",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-timeout",
    "host",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "pragma",
    "proxy-connection",
    "range",
    "repr-digest",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "user-agent",
    "via",
    "want-content-digest",
    "want-repr-digest",
    "x-forwarded-for",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];
/// Headers that Envoy sets for itself and for its mesh. From outside it removes them, and it lets nobody else change them.
const OF_ENVOY: &str = "x-envoy-";
/// Headers of credentials, and of Authz. Their treatment does not depend on the system.
const OF_EVIDENCE: [&str; 2] = ["authorization", "dpop"];
const OURS: [&str; 2] = ["authz-", "x-authz-"];

/// Whether every request may bring a header, by its name in lower case, or another rule covers the header.
#[must_use]
pub fn is_standard(name: &str) -> bool {
    STANDARD.binary_search(&name).is_ok()
        || OF_EVIDENCE.contains(&name)
        || name.starts_with(':')
        || name.starts_with(OF_ENVOY)
}

/// The fix for a header that a system cannot declare. `None`: the system can declare it.
pub fn refuse_header(name: &str) -> Option<&'static str> {
    let is_token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    if !(1..=128).contains(&name.len()) || !name.bytes().all(is_token) {
        return Some("Write its name in lower case: letters, digits, `-` and `_`.");
    }
    if OURS.iter().any(|start| name.starts_with(start)) {
        return Some("Remove it: Authz removes its own headers from every request.");
    }
    if OF_EVIDENCE.contains(&name) {
        return Some("Write `forward_authorization: true` at the route.");
    }
    if relayed::treatment(name).is_some() {
        return Some(
            "Remove it: servers take it for another method, host or path, so no request may bring it.",
        );
    }
    is_standard(name).then_some("Remove it: every request may bring it.")
}

impl RouteTable {
    /// Whether a route declares a header, by its name in lower case: as a condition, as the source of an argument, or because it
    /// leads to an MCP endpoint.
    ///
    /// Args: `route`: index of the route in the order of files and lines.
    #[must_use]
    pub fn declares_header(&self, route: usize, name: &str) -> bool {
        self.facts.get(route).is_some_and(|entry| {
            entry.headers.iter().any(|declared| declared == name)
                || (entry.is_mcp
                    && (name == SESSION_ID
                        || is_parameter(name)
                        || (name != LAST_EVENT_ID && READ_HEADERS.contains(&name))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_headers_are_sorted_and_few() {
        assert!(STANDARD.is_sorted());
        for name in ["accept", "content-type", "if-match", "x-envoy-internal", ":path", "dpop"] {
            assert!(is_standard(name), "{name}");
        }
        for name in [
            "",
            "accept-profile",
            "content-profile",
            "content-range",
            "content_type",
            "cookie",
            "impersonate-user",
            "prefer",
            "sudo",
            "x-amz-target",
            "x-envoy",
            "x-real-ip",
        ] {
            assert!(!is_standard(name), "{name}");
        }
    }

    #[test]
    fn a_system_declares_other_headers_only() {
        for name in ["x-github-api-version", "prefer", "cookie", "last-event-id", "x_tenant"] {
            assert_eq!(None, refuse_header(name), "{name}");
        }
        for name in [
            "",
            "X-Tenant",
            "x tenant",
            ":path",
            "authz-task",
            "x-authz-agent",
            "authorization",
            "dpop",
            "accept",
            "host",
            "x-forwarded-host",
            "x-original-url",
            "upgrade",
            "x-envoy-retry-on",
        ] {
            assert!(refuse_header(name).is_some(), "{name}");
        }
    }
}
