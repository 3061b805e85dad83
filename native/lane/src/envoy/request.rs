//! Reads a `CheckRequest` in place: the fields that are needed borrow from the bytes of the request.
//!
//! Messages that are not needed are skipped, as unknown fields are. The rules of protobuf hold: if a field stands twice, the last
//! value counts, messages are merged, and a string is UTF-8, also if it is not needed.

use prost::Message as _;

use crate::limits;
use crate::proto::envoy::config::core::v3::Metadata;
use crate::protobuf::{Malformed, each};

/// Parts of a request. A part that is missing is `None`.
#[derive(Debug, Default)]
pub(crate) struct EnvoyRequest<'a> {
    pub(super) http: Option<EnvoyHttp<'a>>,
    pub(super) source: Option<EnvoyPeer<'a>>,
    /// Names and values. A name may stand twice. Bounded as [`EnvoyHttp::headers`].
    pub(super) extensions: Vec<(&'a str, &'a str)>,
    pub(super) metadata: Option<Metadata>,
}

/// `AttributeContext.Peer`.
#[derive(Debug, Default)]
pub(super) struct EnvoyPeer<'a> {
    pub(super) principal: &'a str,
    pub(super) certificate: &'a str,
}

/// `AttributeContext.EnvoyRequest`.
#[derive(Debug, Default)]
pub(super) struct EnvoyHttp<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    pub(super) query: &'a str,
    pub(super) fragment: &'a str,
    pub(super) size: i64,
    pub(super) body: &'a str,
    pub(super) raw_body: &'a [u8],
    /// Names and values of the map. At most [`limits::HEADERS`] and one more, which shows that there are too many.
    pub(super) headers: Vec<(&'a str, &'a str)>,
    /// Entries of the list, bounded in the same way.
    pub(super) list: Vec<HeaderEntry<'a>>,
}

/// `config.core.v3.HeaderValue`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeaderEntry<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
    pub(super) raw_value: &'a [u8],
}

/// As many items as a list of most requests has at most.
const MANY: usize = 16;

impl<'a> EnvoyRequest<'a> {
    /// Reads the bytes of a `CheckRequest`.
    ///
    /// # Errors
    /// [`Malformed`] if a field is cut short, has another type than the declared one, or is a text that is not UTF-8.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut request = Self::default();
        each(bytes, |tag, value| match tag {
            1 => request.attributes(value.bytes()?),
            _ => Ok(()),
        })?;
        Ok(request)
    }

    fn attributes(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        each(bytes, |tag, value| {
            match tag {
                1 => self.source.get_or_insert_default().read(value.bytes()?)?,
                4 => self.request(value.bytes()?)?,
                10 => {
                    keep(&mut self.extensions, entry(value.bytes()?)?, limits::EXTENSIONS);
                }
                11 => {
                    let metadata = self.metadata.get_or_insert_default();
                    metadata.merge(value.bytes()?).map_err(|_| Malformed)?;
                }
                2 | 12 | 13 => drop(value.bytes()?),
                _ => {}
            }
            Ok(())
        })
    }

    fn request(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        each(bytes, |tag, value| match tag {
            1 => value.bytes().map(drop),
            2 => self.http.get_or_insert_default().read(value.bytes()?),
            _ => Ok(()),
        })
    }
}

impl<'a> EnvoyPeer<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        each(bytes, |tag, value| {
            match tag {
                4 => self.principal = value.text()?,
                5 => self.certificate = value.text()?,
                1 | 3 => drop(value.bytes()?),
                2 => drop(value.text()?),
                _ => {}
            }
            Ok(())
        })
    }
}

impl<'a> EnvoyHttp<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        each(bytes, |tag, value| {
            match tag {
                2 => self.method = value.text()?,
                3 => {
                    keep(&mut self.headers, entry(value.bytes()?)?, limits::HEADERS);
                }
                4 => self.path = value.text()?,
                5 => self.host = value.text()?,
                7 => self.query = value.text()?,
                8 => self.fragment = value.text()?,
                9 => self.size = value.number()?.cast_signed(),
                11 => self.body = value.text()?,
                12 => self.raw_body = value.bytes()?,
                13 => self.map(value.bytes()?)?,
                1 | 6 | 10 => drop(value.text()?),
                _ => {}
            }
            Ok(())
        })
    }

    /// Value of a header that stands once, in either encoding.
    pub(super) fn only(&self, name: &str) -> Option<&'a str> {
        let list = self.list.iter().map(|header| {
            let raw = std::str::from_utf8(header.raw_value).unwrap_or_default();
            (header.key, if header.value.is_empty() { raw } else { header.value })
        });
        let mut values =
            self.headers.iter().copied().chain(list).filter(|(known, _)| *known == name);
        let value = values.next();
        value.filter(|_| values.next().is_none()).map(|(_, value)| value)
    }

    fn map(&mut self, bytes: &'a [u8]) -> Result<(), Malformed> {
        each(bytes, |tag, value| {
            if tag == 1 {
                keep(&mut self.list, HeaderEntry::read(value.bytes()?)?, limits::HEADERS);
            }
            Ok(())
        })
    }
}

impl<'a> HeaderEntry<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut header = Self::default();
        each(bytes, |tag, value| {
            match tag {
                1 => header.key = value.text()?,
                2 => header.value = value.text()?,
                3 => header.raw_value = value.bytes()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(header)
    }
}

/// An entry of a map of texts, which is a message of its own (protobuf encoding, "Maps").
fn entry(bytes: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut key, mut text) = ("", "");
    each(bytes, |tag, value| {
        match tag {
            1 => key = value.text()?,
            2 => text = value.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((key, text))
}

/// Adds to a list of at most one more than `most`.
fn keep<T>(list: &mut Vec<T>, item: T, most: usize) {
    if list.is_empty() {
        list.reserve(MANY);
    }
    if list.len() <= most {
        list.push(item);
    }
}

#[cfg(any(test, feature = "test-support"))]
pub(crate) mod derived;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::derived::assert_same;
    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z:/-]{0,12}", "\\PC{0,6}", "x{120,140}"]
    }

    fn http() -> impl Strategy<Value = derived::DerivedHttp> {
        let header =
            (text(), text(), vec(any::<u8>(), 0..4)).prop_map(|(key, value, raw_value)| {
                crate::proto::envoy::config::core::v3::HeaderValue { key, value, raw_value }
            });
        let texts = (vec(text(), 9), any::<i64>(), vec(any::<u8>(), 0..9));
        (texts, btree_map(text(), text(), 0..4), prop::option::of(vec(header, 0..4))).prop_map(
            |((texts, size, raw_body), headers, list)| {
                let mut texts = texts.into_iter();
                let mut next = || texts.next().unwrap_or_default();
                derived::DerivedHttp {
                    id: next(),
                    method: next(),
                    headers,
                    path: next(),
                    host: next(),
                    scheme: next(),
                    query: next(),
                    fragment: next(),
                    size,
                    protocol: next(),
                    body: next(),
                    raw_body,
                    header_map: list.map(|headers| {
                        crate::proto::envoy::config::core::v3::HeaderMap { headers }
                    }),
                }
            },
        )
    }

    fn check() -> impl Strategy<Value = derived::DerivedCheck> {
        let source = (text(), text(), text()).prop_map(|(service, principal, certificate)| {
            derived::DerivedPeer {
                service,
                principal,
                certificate,
                ..derived::DerivedPeer::default()
            }
        });
        let metadata = btree_map(text(), btree_map(text(), any::<bool>(), 0..2), 0..3).prop_map(
            |namespaces| Metadata {
                filter_metadata: namespaces
                    .into_iter()
                    .map(|(name, fields)| {
                        let fields = fields.into_iter().map(|(key, value)| (key, value.into()));
                        (name, prost_types::Struct { fields: fields.collect() })
                    })
                    .collect(),
                ..Metadata::default()
            },
        );
        let parts = (
            prop::option::of(source),
            prop::option::of(prop::option::of(http())),
            btree_map(text(), text(), 0..3),
            prop::option::of(metadata),
            vec(any::<u8>(), 0..5),
        );
        parts.prop_map(|(source, request, extensions, metadata, other)| derived::DerivedCheck {
            attributes: Some(derived::DerivedAttributes {
                source,
                request: request.map(|http| derived::DerivedRequest { http, ..Default::default() }),
                extensions,
                metadata,
                destination: other.clone(),
                tls_session: other.clone(),
                route_metadata: other,
            }),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(1_024), failure_persistence: None, ..ProptestConfig::default() })]

        /// The reader in place gives the same fields as `prost`, for whole messages, merged ones and broken ones.
        #[test]
        fn as_prost_reads_it(
            (one, two) in (check(), check()),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = one.encode_to_vec();
            assert_same(&bytes);
            bytes.extend(two.encode_to_vec());
            assert_same(&bytes);
            for (at, with) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    *bytes.get_mut(at).unwrap() = with;
                    assert_same(&bytes);
                }
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            assert_same(&bytes);
        }

        #[test]
        fn any_bytes(bytes in vec(any::<u8>(), 0..80)) {
            assert_same(&bytes);
        }
    }

    /// Groups are passed over whole; fields of the wrong type, and those that are cut short, make the message none.
    #[test]
    fn wire_types() {
        for (bytes, is_read) in [
            (&b""[..], true),
            // A group of an unknown field, with a field in it.
            (b"\x13\x08\x01\x14", true),
            (b"\x13\x08\x01", false),
            (b"\x13\x08\x01\x1c", false),
            (b"\x14", false),
            // `attributes` as a number; fixed 32 and 64 of an unknown field; tag 0; an unknown wire type.
            (b"\x08\x01", false),
            (b"\x15\x01\x02\x03\x04", true),
            (b"\x11\x01\x02\x03\x04\x05\x06\x07\x08", true),
            (b"\x11\x01\x02\x03\x04\x05\x06\x07", false),
            (b"\x02\x00", false),
            (b"\x0e", false),
            // A length beyond the end, and one beyond all memory.
            (b"\x0a\x02\x00", false),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", false),
        ] {
            assert_eq!(is_read, EnvoyRequest::read(bytes).is_ok(), "{bytes:x?}");
            assert_same(bytes);
        }
    }

    /// However long a list is, little of it is kept, and enough to see that it is too long.
    #[test]
    fn lists_are_bounded() {
        let many = 5_000;
        let pairs: BTreeMap<_, _> = (0..many).map(|at| (at.to_string(), String::new())).collect();
        let headers = (0..many).map(|_| Default::default()).collect();
        let list = crate::proto::envoy::config::core::v3::HeaderMap { headers };
        let http = derived::DerivedHttp {
            headers: pairs.clone(),
            header_map: Some(list),
            ..derived::DerivedHttp::default()
        };
        let request =
            derived::DerivedRequest { http: Some(http), ..derived::DerivedRequest::default() };
        let attributes = derived::DerivedAttributes {
            request: Some(request),
            extensions: pairs,
            ..derived::DerivedAttributes::default()
        };
        let bytes = derived::DerivedCheck { attributes: Some(attributes) }.encode_to_vec();
        let read = EnvoyRequest::read(&bytes).unwrap();
        let http = read.http.unwrap();
        let kept = (http.headers.len(), http.list.len(), read.extensions.len());
        assert_eq!((limits::HEADERS + 1, limits::HEADERS + 1, limits::EXTENSIONS + 1), kept);
    }
}
