//! Lower-case hex, as digests are written.

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len().saturating_mul(2)];
    write_hex(bytes, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Writes lower-case hex into `text`, as far as it reaches.
pub fn write_hex(bytes: &[u8], text: &mut [u8]) {
    let digit = |half: u8| half.wrapping_add(if half < 10 { b'0' } else { b'a' - 10 });
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
}

/// Lower-case hex of the first `count` bytes, or of all where there are fewer.
#[must_use]
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
        let mut text = *b"......";
        write_hex(&[0xfe, 0xff], &mut text);
        assert_eq!(*b"feff..", text);
        write_hex(&bytes, &mut text);
        assert_eq!(*b"000102", text);
    }
}
