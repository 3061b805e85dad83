//! JSON as `serde_json` writes it, byte for byte; but a text with nothing to escape, as almost all are, is copied whole.

use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

type Done = Result<(), serde_json::Error>;

/// Appends the JSON of a value.
///
/// # Errors
/// The name of a member of a map is neither a text nor a number nor a truth value, or the value says that it cannot be
/// written. Part of it may then have been appended.
pub fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Done {
    value.serialize(&mut Writer { out })
}

/// Appends a number, digit by digit: the formatter takes longer than all that is around one.
pub fn push_number(text: &mut String, number: u64) {
    let (rest, digit) = (number / 10, number % 10);
    if rest > 0 {
        push_number(text, rest);
    }
    text.push(char::from(b'0'.saturating_add(u8::try_from(digit).unwrap_or(0))));
}

/// Writes JSON without spaces.
///
/// What many types of values share is never inlined: a record has a hundred members, each of which is written once, so that
/// copies of the same code would be read from memory one after the other.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    #[inline(never)]
    fn text(&mut self, text: &str) -> Done {
        if !is_plain(text) {
            return serde_json::to_writer(&mut *self.out, text);
        }
        // Room once, for all that follows: to look for it at each step takes longer than the step.
        self.out.reserve(text.len().saturating_add(2));
        self.out.push(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(b'"');
        Ok(())
    }

    /// Begins the object around the variant of a choice.
    fn variant(&mut self, name: &str) -> Done {
        self.out.push(b'{');
        self.text(name)?;
        self.out.push(b':');
        Ok(())
    }

    #[inline(never)]
    fn unsigned(&mut self, number: u64) {
        let mut digits = [0; MOST_DIGITS];
        let mut rest = number;
        let mut count: usize = 0;
        for place in digits.iter_mut().rev() {
            *place = b'0'.saturating_add(u8::try_from(rest % 10).unwrap_or(0));
            count = count.saturating_add(1);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let written = digits.get(MOST_DIGITS.saturating_sub(count)..).unwrap_or_default();
        self.out.extend_from_slice(written);
    }
}

/// Whether a text stands in JSON as it is: no quote, no backslash and no control character.
pub fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    // The last ones lie over those before them, so that no text has a rest.
    if let Some(last) = bytes.last_chunk::<16>() {
        return bytes.as_chunks::<16>().0.iter().all(are_plain) && are_plain(last);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return are_plain(first) && are_plain(last);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return are_plain(first) && are_plain(last);
    }
    bytes.iter().all(|byte| are_plain(&[*byte]))
}

/// Without a branch for each byte, so that many are looked at at once.
fn are_plain<const N: usize>(bytes: &[u8; N]) -> bool {
    let escaped = bytes.iter().fold(0, |found, byte| {
        found | u8::from(*byte < 0x20) | u8::from(*byte == b'"') | u8::from(*byte == b'\\')
    });
    escaped == 0
}

/// Of a `u64`.
const MOST_DIGITS: usize = 20;
/// What stands about the name of a member.
const ABOUT_NAME: usize = r#","":"#.len();

impl<'a, 'b> Serializer for &'a mut Writer<'b> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeSeq = Compound<'a, 'b>;
    type SerializeTuple = Compound<'a, 'b>;
    type SerializeTupleStruct = Compound<'a, 'b>;
    type SerializeTupleVariant = Compound<'a, 'b>;
    type SerializeMap = Compound<'a, 'b>;
    type SerializeStruct = Compound<'a, 'b>;
    type SerializeStructVariant = Compound<'a, 'b>;

    fn serialize_bool(self, value: bool) -> Done {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Done {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Done {
        if value < 0 {
            self.out.push(b'-');
        }
        self.unsigned(value.unsigned_abs());
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Done {
        serde_json::to_writer(&mut *self.out, &value)
    }

    fn serialize_u8(self, value: u8) -> Done {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Done {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Done {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Done {
        self.unsigned(value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Done {
        match u64::try_from(value) {
            Ok(value) => self.serialize_u64(value),
            Err(_) => serde_json::to_writer(&mut *self.out, &value),
        }
    }

    fn serialize_f32(self, value: f32) -> Done {
        serde_json::to_writer(&mut *self.out, &value)
    }

    fn serialize_f64(self, value: f64) -> Done {
        serde_json::to_writer(&mut *self.out, &value)
    }

    fn serialize_char(self, value: char) -> Done {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Done {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Done {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Done {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Done {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.out.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a, 'b>, serde_json::Error> {
        Ok(Compound::begin(self, b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'a, 'b>, serde_json::Error> {
        Ok(Compound::begin(self, b'[', b']'))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'b>, serde_json::Error> {
        Ok(Compound::begin(self, b'[', b']'))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'b>, serde_json::Error> {
        self.variant(variant)?;
        Ok(Compound { is_variant: true, ..Compound::begin(self, b'[', b']') })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a, 'b>, serde_json::Error> {
        Ok(Compound::begin(self, b'{', b'}'))
    }

    fn serialize_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'b>, serde_json::Error> {
        Ok(Compound::begin(self, b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, 'b>, serde_json::Error> {
        self.variant(variant)?;
        Ok(Compound { is_variant: true, ..Compound::begin(self, b'{', b'}') })
    }
}

/// An array or object that is being written.
struct Compound<'a, 'b> {
    writer: &'a mut Writer<'b>,
    is_empty: bool,
    end: u8,
    /// It stands in an object around it.
    is_variant: bool,
}

impl<'a, 'b> Compound<'a, 'b> {
    #[inline(never)]
    fn begin(writer: &'a mut Writer<'b>, start: u8, end: u8) -> Self {
        writer.out.push(start);
        Self { writer, is_empty: true, end, is_variant: false }
    }

    #[inline(never)]
    fn next(&mut self) {
        if !self.is_empty {
            self.writer.out.push(b',');
        }
        self.is_empty = false;
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.next();
        value.serialize(&mut *self.writer)
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Done {
        self.name(name);
        value.serialize(&mut *self.writer)
    }

    #[inline(never)]
    fn name(&mut self, name: &'static str) {
        self.writer.out.reserve(name.len().saturating_add(ABOUT_NAME));
        self.next();
        // INVARIANT (names): those that our code gives to fields have nothing to escape.
        self.writer.out.push(b'"');
        self.writer.out.extend_from_slice(name.as_bytes());
        self.writer.out.extend_from_slice(b"\":");
    }

    #[inline(never)]
    fn close(self) -> Done {
        self.writer.out.push(self.end);
        if self.is_variant {
            self.writer.out.push(b'}');
        }
        Ok(())
    }
}

macro_rules! of_items {
    ($($form:ident $step:ident),*) => {$(
        impl $form for Compound<'_, '_> {
            type Ok = ();
            type Error = serde_json::Error;

            fn $step<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
                self.item(value)
            }

            fn end(self) -> Done {
                self.close()
            }
        }
    )*};
}

of_items!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

macro_rules! of_members {
    ($($form:ident),*) => {$(
        impl $form for Compound<'_, '_> {
            type Ok = ();
            type Error = serde_json::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Done {
                self.member(name, value)
            }

            fn end(self) -> Done {
                self.close()
            }
        }
    )*};
}

of_members!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = serde_json::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        self.next();
        let at = self.writer.out.len();
        key.serialize(&mut *self.writer)?;
        match self.writer.out.get(at) {
            Some(b'"') => Ok(()),
            Some(b'-' | b'0'..=b'9' | b't' | b'f') => {
                self.writer.out.insert(at, b'"');
                self.writer.out.push(b'"');
                Ok(())
            }
            _ => Err(serde_json::Error::custom("the name of a member is no text")),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.writer.out.push(b':');
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Done {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn written<T: Serialize + ?Sized>(value: &T) -> String {
        let mut out = b"before ".to_vec();
        append(&mut out, value).unwrap();
        String::from_utf8(out).unwrap().strip_prefix("before ").unwrap().to_owned()
    }

    #[derive(Serialize)]
    enum Form {
        Unit,
        Newtype(&'static str),
        Tuple(u8, char),
        Struct { small: i8, none: Option<()> },
    }

    #[derive(Serialize)]
    struct Unit;

    #[derive(Serialize)]
    struct Newtype(f64);

    #[derive(Serialize)]
    struct Pair(i64, u64);

    #[derive(Serialize)]
    struct All<'a> {
        forms: [Form; 4],
        unit: Unit,
        newtypes: Vec<Newtype>,
        pair: Pair,
        tuple: (bool, f32, i16, u16, i32, u32),
        big: [u128; 3],
        small: [i128; 2],
        nothing: [(); 0],
        #[serde(skip_serializing_if = "Option::is_none")]
        left_out: Option<u8>,
        text: &'a str,
        texts: BTreeMap<&'a str, Option<&'a str>>,
    }

    fn all(text: &str) -> All<'_> {
        All {
            forms: [
                Form::Unit,
                Form::Newtype("a\"b"),
                Form::Tuple(0, '\n'),
                Form::Struct { small: -1, none: None },
            ],
            unit: Unit,
            newtypes: [0.1, -0.0, 1e300, f64::NAN, 3.0].into_iter().map(Newtype).collect(),
            pair: Pair(i64::MIN, u64::MAX),
            tuple: (true, 0.25, i16::MIN, u16::MAX, i32::MIN, u32::MAX),
            big: [0, u128::from(u64::MAX), u128::MAX],
            small: [i128::MIN, 10],
            nothing: [],
            left_out: None,
            text,
            texts: BTreeMap::from([(text, Some(text)), ("", None)]),
        }
    }

    /// Every ASCII character at every place of a text, and what is longer than a character.
    #[test]
    fn every_character_at_every_place() {
        let others = ['\u{80}', '\u{2028}', '\u{feff}', '\u{1f600}'];
        for character in (0..=0x7f_u8).map(char::from).chain(others) {
            for before in 0..35 {
                for after in [0, 1, 15, 16, 20] {
                    let text = format!("{}{character}{}", "a".repeat(before), "é".repeat(after));
                    assert_eq!(serde_json::to_string(&text).unwrap(), written(&text));
                }
            }
        }
    }

    /// As the formatter writes them.
    #[test]
    fn numbers() {
        for number in [0, 9, 10, 99, 100, 4_294_967_295, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(number.to_string(), text);
        }
    }

    #[derive(Serialize)]
    enum Name {
        Unit,
        Newtype(u8),
    }

    fn is_as_serde_json_writes_it<K: Serialize>(name: K) -> bool {
        struct Named<K>(K);
        impl<K: Serialize> Serialize for Named<K> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let mut map = to.serialize_map(Some(2))?;
                map.serialize_entry(&self.0, &1)?;
                map.serialize_entry(&self.0, "2")?;
                map.end()
            }
        }
        let (mut out, named) = (Vec::new(), Named(name));
        let is_written = append(&mut out, &named).is_ok();
        serde_json::to_vec(&named).ok() == is_written.then_some(out)
    }

    /// A member has a name: a text, a number or a truth value, which are quoted; nothing else is one.
    #[test]
    fn names() {
        assert!(is_as_serde_json_writes_it("a\"b"));
        assert!(is_as_serde_json_writes_it('a'));
        assert!(is_as_serde_json_writes_it([true, false].map(Some)[1]));
        assert!(is_as_serde_json_writes_it(i64::MIN) && is_as_serde_json_writes_it(7_u8));
        assert!(is_as_serde_json_writes_it(-0.25) && is_as_serde_json_writes_it(f64::NAN));
        assert!(is_as_serde_json_writes_it(Name::Unit));
        assert!(is_as_serde_json_writes_it(Name::Newtype(1)));
        assert!(is_as_serde_json_writes_it(()) && is_as_serde_json_writes_it(None::<u8>));
        assert!(is_as_serde_json_writes_it([1]) && is_as_serde_json_writes_it((1, 2)));
        assert!(append(&mut Vec::new(), &BTreeMap::from([((), 2)])).is_err());
    }

    proptest! {
        /// Everything that can be written is written as `serde_json` writes it.
        #[test]
        fn as_serde_json_writes_it(
            text in ".{0,40}",
            numbers in prop::collection::vec(any::<i64>(), 0..4),
            digits in 0_u32..19,
        ) {
            let all = all(&text);
            prop_assert_eq!(serde_json::to_string(&all).unwrap(), written(&all));
            let power = 10_u64.pow(digits);
            for number in [power, power - 1] {
                prop_assert_eq!(number.to_string(), written(&number));
            }
            prop_assert_eq!(serde_json::to_string(&numbers).unwrap(), written(&numbers));
        }
    }
}
