//! HTTP URIs in normal form (RFC 3986 §6.2.2, §6.2.3), as `htu` is compared (RFC 9449 §4.3).

/// The normal form of an absolute `http` or `https` URI, without query and fragment: scheme and host
/// in lower case, no default port, no dot segments, percent-encoding in upper case and only where it
/// is needed, `/` for an empty path.
///
/// `None` if it is not such a URI, or holds a user.
pub fn normal(uri: &str) -> Option<String> {
    if uri.len() > MAX_URI_BYTES {
        return None;
    }
    let uri = uri.split(['?', '#']).next()?;
    let (scheme, rest) = uri.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = split_port(authority)?;
    let mut normal = format!("{scheme}://{}", host.to_ascii_lowercase());
    if let Some(port) = port.filter(|port| *port != default_port) {
        normal.push(':');
        normal.push_str(&port.to_string());
    }
    let path = decoded(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_dots = false;
    for segment in path.split('/').skip(1) {
        ends_in_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    if ends_in_dots || segments.is_empty() {
        segments.push("");
    }
    for segment in segments {
        normal.push('/');
        normal.push_str(segment);
    }
    Some(normal)
}

/// Host and port of an authority: a name, an IPv4 address, or an IP literal in brackets.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_end = match authority.find(']') {
        Some(bracket) => bracket.checked_add(1)?,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(host_end)?;
    let is_sound = match host.strip_prefix('[') {
        Some(literal) => literal.strip_suffix(']').is_some_and(|literal| {
            !literal.is_empty()
                && literal.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
        }),
        None => !host.is_empty() && host.bytes().all(is_unreserved),
    };
    if !is_sound {
        return None;
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Some((host, None)),
        None => None,
        Some("") => Some((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(port.parse().ok()?)))
        }
        Some(_) => None,
    }
}

/// A path whose percent-encoding is normal: of no unreserved character, in upper case.
fn decoded(path: &str) -> Option<String> {
    let mut decoded = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                let byte = u8::try_from((high << 4) | low).ok()?;
                if is_unreserved(byte) {
                    decoded.push(char::from(byte));
                } else {
                    decoded.push_str(&format!("%{byte:02X}"));
                }
            }
            // Some clients take `\` for `/`.
            b'\\' => return None,
            b'!'..=b'~' => decoded.push(char::from(byte)),
            _ => return None,
        }
    }
    Some(decoded)
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

const MAX_URI_BYTES: usize = 4096;
