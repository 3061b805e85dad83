//! The same message as `prost` derives it, of the fields that are read; a message that is passed over is bytes.

use std::collections::BTreeMap;

use prost::Message as _;

use super::{EnvoyRequest, Malformed};
use crate::limits;
use crate::proto::envoy::config::core::v3::{HeaderMap, Metadata};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DerivedCheck {
    #[prost(message, optional, tag = "1")]
    pub(super) attributes: Option<DerivedAttributes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DerivedAttributes {
    #[prost(message, optional, tag = "1")]
    pub(super) source: Option<DerivedPeer>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) destination: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    pub(super) request: Option<DerivedRequest>,
    #[prost(btree_map = "string, string", tag = "10")]
    pub(super) extensions: BTreeMap<String, String>,
    #[prost(message, optional, tag = "11")]
    pub(super) metadata: Option<Metadata>,
    #[prost(bytes = "vec", tag = "12")]
    pub(super) tls_session: Vec<u8>,
    #[prost(bytes = "vec", tag = "13")]
    pub(super) route_metadata: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DerivedPeer {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) address: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) service: String,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) labels: Vec<Vec<u8>>,
    #[prost(string, tag = "4")]
    pub(super) principal: String,
    #[prost(string, tag = "5")]
    pub(super) certificate: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DerivedRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) time: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) http: Option<DerivedHttp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DerivedHttp {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) method: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) headers: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    pub(super) path: String,
    #[prost(string, tag = "5")]
    pub(super) host: String,
    #[prost(string, tag = "6")]
    pub(super) scheme: String,
    #[prost(string, tag = "7")]
    pub(super) query: String,
    #[prost(string, tag = "8")]
    pub(super) fragment: String,
    #[prost(int64, tag = "9")]
    pub(super) size: i64,
    #[prost(string, tag = "10")]
    pub(super) protocol: String,
    #[prost(string, tag = "11")]
    pub(super) body: String,
    #[prost(bytes = "vec", tag = "12")]
    pub(super) raw_body: Vec<u8>,
    #[prost(message, optional, tag = "13")]
    pub(super) header_map: Option<HeaderMap>,
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Asserts that a map was read as `prost` reads it, or has more entries than are kept.
fn assert_map(expected: &BTreeMap<String, String>, read: &[(&str, &str)], most: usize) {
    assert!(read.len() > most || *expected == owned(read), "{expected:?} {read:?}");
}

/// Reads bytes in both ways, which must say the same.
///
/// # Panics
/// Where they do not.
pub(crate) fn assert_same(bytes: &[u8]) {
    let (read, expected) = match (EnvoyRequest::read(bytes), DerivedCheck::decode(bytes)) {
        (Ok(read), Ok(expected)) => (read, expected.attributes.unwrap_or_default()),
        (read, expected) => {
            assert_eq!((Some(Malformed), true), (read.err(), expected.is_err()), "{bytes:x?}");
            return;
        }
    };
    assert_map(&expected.extensions, &read.extensions, limits::EXTENSIONS);
    // As text, in which an invalid number equals itself.
    assert_eq!(format!("{:?}", expected.metadata), format!("{:?}", read.metadata));
    let source = expected.source.map(|source| (source.principal, source.certificate));
    let known = read.source.map(|source| (source.principal.into(), source.certificate.into()));
    assert_eq!(source, known);
    let http = expected.request.and_then(|request| request.http);
    assert_eq!(http.is_some(), read.http.is_some());
    let (http, known) = (http.unwrap_or_default(), read.http.unwrap_or_default());
    assert_eq!(
        [&http.method, &http.path, &http.host, &http.query, &http.fragment, &http.body],
        [known.method, known.path, known.host, known.query, known.fragment, known.body],
    );
    assert_eq!((http.size, http.raw_body.as_slice()), (known.size, known.raw_body));
    assert_map(&http.headers, &known.headers, limits::HEADERS);
    let list = http.header_map.unwrap_or_default().headers;
    let kept = list.iter().take(limits::HEADERS.saturating_add(1));
    let kept = kept.map(|h| (h.key.as_str(), h.value.as_str(), h.raw_value.as_slice()));
    assert!(kept.eq(known.list.iter().map(|header| (header.key, header.value, header.raw_value))));
}
