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
    for (four, place) in bytes.chunks(4).zip(text.chunks_mut(8)) {
        if let (Some(four), Some(place)) = (four.first_chunk(), place.first_chunk_mut()) {
            *place = digits(*four);
            continue;
        }
        let mut padded = [0; 4];
        padded.iter_mut().zip(four).for_each(|(to, byte)| *to = *byte);
        let written = digits(padded).into_iter().take(four.len().saturating_mul(2));
        place.iter_mut().zip(written).for_each(|(to, digit)| *to = digit);
    }
}

/// The digits of four bytes, all at once.
const fn digits(four: [u8; 4]) -> [u8; 8] {
    // A digit to a byte, the highest first.
    let mut all = u32::from_be_bytes(four) as u64;
    all = (all | (all << 16)) & 0x0000_ffff_0000_ffff;
    all = (all | (all << 8)) & 0x00ff_00ff_00ff_00ff;
    all = (all | (all << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 where a digit is a letter. No sum reaches the byte beside its own.
    let letters = (all.wrapping_add(0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    let from_letter = letters.wrapping_mul((b'a' - b'0' - 10) as u64);
    all.wrapping_add(0x3030_3030_3030_3030).wrapping_add(from_letter).to_be_bytes()
}

/// Lower-case hex of the first `count` bytes, or of all where there are fewer.
pub(crate) fn hex_start(bytes: &[u8], count: usize) -> String {
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
        let bytes: Vec<u8> = (0xf7..=0xff).collect();
        let whole = hex(&bytes).into_bytes();
        for count in 0..=bytes.len() {
            for room in 0..=20 {
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
