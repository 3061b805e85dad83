//! Names of HTTP headers.

/// A name with each choice of `-` and `_`, itself included.
pub(crate) fn spellings(name: &str) -> Vec<String> {
    let mut parts = name.split('-');
    let mut all = vec![parts.next().unwrap_or_default().to_owned()];
    for part in parts {
        all = all
            .iter()
            .flat_map(|start| [format!("{start}-{part}"), format!("{start}_{part}")])
            .collect();
    }
    all
}

/// RFC 9110 §5.6.2 `tchar`, lower case only (RFC 9113 §8.2.1).
pub(crate) const fn is_name_byte(byte: u8) -> bool {
    matches!(
        byte,
        b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-'
            | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    )
}
