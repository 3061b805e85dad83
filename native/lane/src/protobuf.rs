//! Protobuf messages read where they lie, and written where they go: no part of one is made first.
//!
//! For the messages that every call of a proxy reads and is answered with. Words are those of "Encoding", protobuf.dev.

use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint, skip_field,
};

/// Bytes that are no message of the kind that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A group, or a number of fixed length: nothing that is read in this way has such fields.
    Other,
}

impl<'a> Value<'a> {
    pub(crate) const fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Other => Err(Malformed),
        }
    }

    pub(crate) const fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Other => Err(Malformed),
        }
    }

    pub(crate) fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

/// Hands over each field of a message, in its order, by its number.
///
/// # Errors
/// [`Malformed`] where a field is cut short or is none, and where `read` says so.
pub(crate) fn each<'a>(
    mut bytes: &'a [u8],
    mut read: impl FnMut(u32, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| Malformed)?;
        let value = match wire_type {
            WireType::Varint => Value::Number(decode_varint(&mut bytes).map_err(|_| Malformed)?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).map_err(|_| Malformed)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
                bytes = rest;
                Value::Bytes(value)
            }
            other => {
                skip_field(other, number, &mut bytes, DecodeContext::default())
                    .map_err(|_| Malformed)?;
                Value::Other
            }
        };
        read(number, value)?;
    }
    Ok(())
}

/// Adds a field that is a text.
pub(crate) fn put_text(number: u32, text: &str, out: &mut Vec<u8>) {
    begin(number, text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

/// Adds a field that is a number.
pub(crate) fn put_number(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

/// Adds a field that is a message, or a text of several parts, as `write` adds it.
pub(crate) fn put(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    // The length of most takes one byte, which is kept for it.
    begin(number, 0, out);
    let at = out.len().saturating_sub(1);
    write(out);
    let end = out.len();
    let length = end.saturating_sub(at).saturating_sub(1);
    if let (Ok(length @ ..0x80), Some(place)) = (u8::try_from(length), out.get_mut(at)) {
        *place = length;
        return;
    }
    let size = encoded_len_varint(length as u64);
    out.resize(end.saturating_add(size).saturating_sub(1), 0);
    out.copy_within(at.saturating_add(1)..end, at.saturating_add(size));
    if let Some(mut place) = out.get_mut(at..) {
        encode_varint(length as u64, &mut place);
    }
}

/// Adds the key of a field, and how many bytes follow.
fn begin(number: u32, length: usize, out: &mut Vec<u8>) {
    let key = number.saturating_mul(8).saturating_add(WireType::LengthDelimited as u32);
    match (u8::try_from(key), u8::try_from(length)) {
        (Ok(key @ ..0x80), Ok(length @ ..0x80)) => out.extend_from_slice(&[key, length]),
        _ => {
            encode_key(number, WireType::LengthDelimited, out);
            encode_varint(length as u64, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;
    use prost::Message as _;
    use prost_types::Struct;

    use super::*;

    proptest! {
        /// What is written is what `prost` writes, also where lengths take two bytes and three.
        #[test]
        fn as_prost_writes_it(fields in btree_map("[a-z]{1,9}", "\\PC{1,9}|x{100,300}|y{16000,17000}", 0..4)) {
            let (mut written, mut again) = (Vec::new(), Vec::new());
            for (name, text) in &fields {
                put(1, &mut written, |out| {
                    put_text(1, name, out);
                    put(2, out, |out| put_text(3, text, out));
                });
                put(1, &mut again, |out| {
                    put_text(1, name, out);
                    put(2, out, |out| put(3, out, |out| out.extend_from_slice(text.as_bytes())));
                });
            }
            let fields = fields.into_iter().map(|(name, text)| (name, text.into())).collect();
            prop_assert_eq!(&Struct { fields }.encode_to_vec(), &written);
            prop_assert_eq!(again, written);
        }
    }

    /// Fields up to 15 have keys of one byte.
    #[test]
    fn keys() {
        for number in [1, 15, 16, 17, 2_047, 2_048] {
            let (mut written, mut expected) = (Vec::new(), Vec::new());
            put_text(number, "text", &mut written);
            put(number, &mut written, |out| put_number(1, 1, out));
            prost::encoding::string::encode(number, &"text".to_owned(), &mut expected);
            prost::encoding::bytes::encode(number, &vec![8_u8, 1], &mut expected);
            assert_eq!(expected, written, "{number}");
        }
    }

    #[test]
    fn numbers() {
        let mut written = Vec::new();
        put_number(2, 300, &mut written);
        assert_eq!(prost_types::Timestamp { seconds: 0, nanos: 300 }.encode_to_vec(), written);
        let mut read = Vec::new();
        let held = each(&written, |number, value| value.number().map(|v| read.push((number, v))));
        assert_eq!((Ok(()), vec![(2, 300)]), (held, read));
    }
}
