//! Lower-case hex, as digests are written.

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len().saturating_mul(2)];
    write_hex(bytes, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Writes lower-case hex into `text`, as far as it reaches.
#[inline(never)]
pub fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (some, place) in bytes.chunks(AT_ONCE).zip(text.chunks_mut(2 * AT_ONCE)) {
        if let (Some(some), Some(place)) = (some.first_chunk(), place.first_chunk_mut()) {
            digits(some, place);
            continue;
        }
        let (mut padded, mut written) = ([0; AT_ONCE], [0; 2 * AT_ONCE]);
        padded.iter_mut().zip(some).for_each(|(to, byte)| *to = *byte);
        digits(&padded, &mut written);
        let written = written.into_iter().take(some.len().saturating_mul(2));
        place.iter_mut().zip(written).for_each(|(to, digit)| *to = digit);
    }
}

/// So many bytes fill the processor's registers.
const AT_ONCE: usize = 16;

/// The digits of bytes, without a branch for each, so that all are made at once.
fn digits(bytes: &[u8; AT_ONCE], place: &mut [u8; 2 * AT_ONCE]) {
    let digit = |half: u8| {
        let from_letter = if half > 9 { b'a' - b'0' - 10 } else { 0 };
        half.wrapping_add(b'0').wrapping_add(from_letter)
    };
    for (pair, byte) in place.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
}

/// Lower-case hex of the first `count` bytes, or of all where there are fewer.
pub fn hex_start(bytes: &[u8], count: usize) -> String {
    hex(bytes.get(..count).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_formatter_writes() {
        let bytes: Vec<u8> = (0..=255).collect();
        let formatted: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(formatted, hex(&bytes));
        assert_eq!("0001020304050607", hex_start(&bytes, 8));
        assert_eq!(formatted, hex_start(&bytes, 257));
    }

    /// As far as either reaches, whatever stands behind it.
    #[test]
    fn it_ends_with_the_shorter() {
        let bytes: Vec<u8> = (0xdb..=0xff).collect();
        let whole = hex(&bytes).into_bytes();
        for count in 0..=bytes.len() {
            for room in 0..=80 {
                let mut text = vec![b'.'; room];
                write_hex(bytes.get(..count).unwrap_or_default(), &mut text);
                let mut expected = vec![b'.'; room];
                let digits = whole.iter().take(count.saturating_mul(2));
                expected.iter_mut().zip(digits).for_each(|(to, digit)| *to = *digit);
                assert_eq!(expected, text);
            }
        }
    }
}
