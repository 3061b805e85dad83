//! Headers of a gRPC call.

use std::time::Duration;

use hyper::header::HeaderMap;

/// Credential of the call itself. Two credentials are joined, and a value that is not UTF-8 is changed, so that neither of
/// them is valid.
pub(super) fn authorization(headers: &HeaderMap) -> Option<String> {
    let values: Vec<_> = headers
        .get_all("authorization")
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// W3C `traceparent`: one, or none at all (Trace Context §3.2).
pub(super) fn trace_parent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// W3C `tracestate`, which may be split over several headers (Trace Context §3.3.1.1).
pub(super) fn trace_state(headers: &HeaderMap) -> Option<String> {
    let values: Vec<&str> =
        headers.get_all("tracestate").iter().map_while(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// gRPC over HTTP/2, `Timeout`: at most 8 digits and a unit.
pub(super) fn grpc_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount.saturating_mul(3_600)),
        "M" => Duration::from_secs(amount.saturating_mul(60)),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// True if a call announces compressed messages. They are never unpacked: a few KiB could become many MiB.
pub(super) fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get_all("grpc-encoding").iter().any(|encoding| encoding != "identity")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    /// Two credentials are not a credential, and neither are bytes.
    #[test]
    fn authorization_is_one_value() {
        let mut headers = HeaderMap::new();
        assert_eq!(None, authorization(&headers));
        headers.append("authorization", HeaderValue::from_static("Bearer a"));
        assert_eq!(Some("Bearer a"), authorization(&headers).as_deref());
        headers.append("authorization", HeaderValue::from_static("Bearer b"));
        assert_eq!(Some("Bearer a,Bearer b"), authorization(&headers).as_deref());
        headers.insert("authorization", HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert!(crate::request::split_authorization(&authorization(&headers).unwrap()).is_err());
    }

    /// Two parents count as no parent; several states are joined.
    #[test]
    fn trace_context_is_one_parent() {
        let mut headers = HeaderMap::new();
        assert_eq!((None, None), (trace_parent(&headers), trace_state(&headers)));
        headers.append("traceparent", HeaderValue::from_static("00-a"));
        headers.append("tracestate", HeaderValue::from_static("a=1"));
        headers.append("tracestate", HeaderValue::from_static("b=2"));
        assert_eq!(Some("00-a"), trace_parent(&headers));
        assert_eq!(Some("a=1,b=2"), trace_state(&headers).as_deref());
        headers.append("traceparent", HeaderValue::from_static("00-b"));
        assert_eq!(None, trace_parent(&headers));
    }

    /// Units of `grpc-timeout`. Any other value is not a deadline.
    #[test]
    fn timeouts() {
        for (value, expected) in [
            ("200m", Some(Duration::from_millis(200))),
            ("1S", Some(Duration::from_secs(1))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("2H", Some(Duration::from_secs(7_200))),
            ("100000000n", None),
            ("m", None),
            ("", None),
            ("-1S", None),
            ("1é", None),
        ] {
            assert_eq!(expected, grpc_timeout(value), "{value}");
        }
    }
}
