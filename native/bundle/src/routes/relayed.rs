//! Headers by which a server takes a request for another one than its request line and body say.
//!
//! INVARIANT (judged = received): a header of this list never reaches a server behind the proxy, unless it repeats what was
//! judged. A header that asks for another operation is refused. A header that honest proxies add is removed.

use crate::http::is_spelling;

/// Treatment of a header that servers can take for a part of the request line or the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// The request is refused.
    Refused,
    /// The request is refused: it asks for another protocol.
    Protocol,
    /// The request is refused, unless the header repeats the request's own method.
    SameMethod,
    /// The request is refused where the header names other headers, or an upgrade.
    Connection,
    /// The request is refused, unless its body is sent in chunks and in no other coding: some servers find another end of it
    /// (RFC 9112 §6.1).
    Coding,
    /// The permit removes the header before the request goes on.
    Removed,
}

/// Headers by which some servers let a request override its own method.
const METHODS: [&str; 4] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-method"];
/// Prefixes of headers by which some servers let a request override its own path or host.
const OVERRIDING: [&str; 2] = ["x-original-", "x-rewrite-"];
/// Known names of such headers.
const OVERRIDES: [&str; 10] = [
    "x-http-host-override",
    // Middleware of many Python servers cuts it off the path.
    "x-script-name",
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-original-host",
    "x-rewrite-url",
    "x-rewrite-uri",
    "x-rewrite-path",
    "x-rewrite-host",
];
/// Requests another protocol on the connection, whose messages are not judged; `:protocol` is its form in HTTP/2 (RFC 8441).
const UPGRADES: [&str; 2] = ["upgrade", ":protocol"];
/// Headers of proxies about the request that they received: host, prefix and path from which servers build their own URLs.
const REMOVED: [&str; 11] = [
    "forwarded",
    "x-forwarded-context",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-forwarded-url",
    "x-host",
    // Only an address.
    "x-original-forwarded-for",
];
const CONNECTION: &str = "connection";
const CODING: &str = "transfer-encoding";

/// The treatment of a header, by its name in lower case. `None`: the header has no treatment.
#[must_use]
pub fn treatment(name: &str) -> Option<Treatment> {
    let is_one_of = |known: &[&str]| known.iter().any(|known| is_spelling(name, known));
    // The first bytes are enough for most names.
    match name.as_bytes() {
        [b'x', b'-' | b'_', b'f' | b'h' | b'm' | b'o' | b'r' | b's', ..] => {
            if is_one_of(&METHODS) {
                return Some(Treatment::SameMethod);
            }
            if is_one_of(&REMOVED) {
                return Some(Treatment::Removed);
            }
            let begins = |start: &&str| {
                name.get(..start.len()).is_some_and(|begin| is_spelling(begin, start))
            };
            let is_overriding = OVERRIDING.iter().any(begins) || is_one_of(&OVERRIDES);
            is_overriding.then_some(Treatment::Refused)
        }
        [b'f', ..] => is_one_of(&REMOVED).then_some(Treatment::Removed),
        [b'u' | b':', ..] => UPGRADES.contains(&name).then_some(Treatment::Protocol),
        [b't', ..] => (name == CODING).then_some(Treatment::Coding),
        [b'c', ..] => (name == CONNECTION).then_some(Treatment::Connection),
        _ => None,
    }
}

/// All names of the lists above.
pub(super) fn names<'a>() -> impl Iterator<Item = &'a str> {
    METHODS.into_iter().chain(OVERRIDES).chain(UPGRADES).chain(REMOVED).chain([CONNECTION])
}

/// Whether a value of `connection` lists only options of the connection. The next server drops a header that it names
/// (RFC 9110 §7.6.1), so that the upstream would not see it, or the header takes part in an upgrade.
pub(super) fn is_plain_connection(value: &str) -> bool {
    let is_plain = |option: &str| {
        ["", "close", "keep-alive", "te"].iter().any(|known| option.eq_ignore_ascii_case(known))
    };
    value.split(',').all(|option| is_plain(option.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_has_the_treatment() {
        for (name, expected) in [
            ("x-http-method-override", Some(Treatment::SameMethod)),
            ("x_http_method_override", Some(Treatment::SameMethod)),
            ("x-original-method", Some(Treatment::SameMethod)),
            ("x-original-url", Some(Treatment::Refused)),
            ("x_original-anything", Some(Treatment::Refused)),
            ("x-rewrite-url", Some(Treatment::Refused)),
            ("x_http_host_override", Some(Treatment::Refused)),
            ("x-original-forwarded-for", Some(Treatment::Removed)),
            ("x-forwarded-host", Some(Treatment::Removed)),
            ("x_forwarded_host", Some(Treatment::Removed)),
            ("x-host", Some(Treatment::Removed)),
            ("forwarded", Some(Treatment::Removed)),
            ("upgrade", Some(Treatment::Protocol)),
            (":protocol", Some(Treatment::Protocol)),
            ("connection", Some(Treatment::Connection)),
            ("transfer-encoding", Some(Treatment::Coding)),
            ("te", None),
            ("x-forwarded-for", None),
            ("x-forwarded-proto", None),
            ("x-forwarded-port", None),
            ("x-forwarded-client-cert", None),
            ("x-original", None),
            ("x-request-id", None),
            ("upgrade-insecure-requests", None),
            (":path", None),
            ("content-type", None),
            ("x-h\u{e9}", None),
            ("", None),
        ] {
            assert_eq!(expected, treatment(name), "{name}");
        }
        assert!(names().all(|name| treatment(name).is_some()));
    }

    #[test]
    fn a_connection_names_no_headers() {
        for value in ["", "close", "Keep-Alive", "te, close"] {
            assert!(is_plain_connection(value), "{value}");
        }
        for value in ["upgrade", "close, x-authz-agent", "Upgrade, HTTP2-Settings", "close;x"] {
            assert!(!is_plain_connection(value), "{value}");
        }
    }
}
