//! Reads protobuf messages in place: each field is a slice of the message, and nothing is copied. Writes times.
//!
//! Reading is for the request of a proxy, which every call reads. Words are those of "Encoding", protobuf.dev.

use authz_kernel::decision::Time;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::Timestamp;

/// Error for bytes that are not a message of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Value of a field.
#[derive(Clone, Copy)]
pub(crate) enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A group, or a number of fixed length: nothing that is read in this way has such fields.
    Other,
}

impl<'a> FieldValue<'a> {
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
/// [`Malformed`] if a field is cut short or is not a field, and if `read` returns it.
pub(crate) fn each<'a>(
    mut bytes: &'a [u8],
    mut read: impl FnMut(u32, FieldValue<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| Malformed)?;
        let value = match wire_type {
            WireType::Varint => {
                FieldValue::Number(decode_varint(&mut bytes).map_err(|_| Malformed)?)
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).map_err(|_| Malformed)?;
                let length = usize::try_from(length).map_err(|_| Malformed)?;
                let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
                bytes = rest;
                FieldValue::Bytes(value)
            }
            other => {
                skip_field(other, number, &mut bytes, DecodeContext::default())
                    .map_err(|_| Malformed)?;
                FieldValue::Other
            }
        };
        read(number, value)?;
    }
    Ok(())
}

/// A time as protobuf writes it.
pub(crate) fn timestamp(at: Time) -> Timestamp {
    let nanos = i32::try_from(at.0.rem_euclid(1_000).saturating_mul(1_000_000)).unwrap_or(0);
    Timestamp { seconds: at.0.div_euclid(1_000), nanos }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn numbers() {
        let written = Timestamp { seconds: 0, nanos: 300 }.encode_to_vec();
        let mut read = Vec::new();
        let held = each(&written, |number, value| value.number().map(|v| read.push((number, v))));
        assert_eq!((Ok(()), vec![(2, 300)]), (held, read));
    }
}
