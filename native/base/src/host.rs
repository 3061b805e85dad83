//! Names of hosts.

/// Returns whether a text is a domain name.
#[must_use]
pub fn is_host(text: &str) -> bool {
    domain_name(text).is_some()
}

/// A domain name in lower case; none where it is malformed, ends in a dot, or could be read as an address.
#[must_use]
pub fn domain_name(text: &str) -> Option<String> {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    // Old readers take `0x7f000001` and `2130706433` for 127.0.0.1 (WHATWG URL, "ends in a number").
    let number = last.bytes().all(|b| b.is_ascii_digit())
        || last.starts_with("0x")
        || last.starts_with("0X");
    let fine = text.len() <= 253 && !number && text.split('.').all(label);
    fine.then(|| text.to_ascii_lowercase())
}
