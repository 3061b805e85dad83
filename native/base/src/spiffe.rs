//! SPIFFE IDs (SPIFFE-ID §2), and patterns over them in which `*` stands for one whole segment of the path.

use thiserror::Error;

/// Syntactically valid SPIFFE ID.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SpiffeId<'a> {
    id: &'a str,
    trust_domain: &'a str,
    path: &'a str,
}

/// Rule of SPIFFE-ID §2 that a text breaks; holds no byte of it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SpiffeIdError {
    /// It does not start with `spiffe://` in lower case.
    #[error("it does not start with `spiffe://`")]
    Scheme,
    /// It is longer than 2048 bytes.
    #[error("it is longer than 2048 bytes")]
    TooLong,
    /// The trust domain is empty, longer than 255 bytes, or has a byte outside `a-z 0-9 . - _`
    /// (so no user, port, upper case or percent-encoding).
    #[error("its trust domain is not 1 to 255 of `a-z 0-9 . - _`")]
    TrustDomain,
    /// A path segment is empty, `.` or `..`, or the path ends in `/`.
    #[error("a path segment is empty, `.` or `..`")]
    Segment,
    /// A path segment has a byte outside `A-Z a-z 0-9 . - _` (so no query, fragment or
    /// percent-encoding).
    #[error("a path segment has a character outside `A-Z a-z 0-9 . - _`")]
    PathCharacter,
}

impl<'a> SpiffeId<'a> {
    /// Parses a SPIFFE ID of at most 2048 bytes; nothing is normalized.
    ///
    /// # Errors
    /// The rule of SPIFFE-ID §2 that the text breaks.
    pub fn parse(id: &'a str) -> Result<Self, SpiffeIdError> {
        if id.len() > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = id.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let domain_end = rest.find('/').unwrap_or(rest.len());
        let (trust_domain, path) =
            rest.split_at_checked(domain_end).ok_or(SpiffeIdError::TrustDomain)?;
        if !is_trust_domain(trust_domain) {
            return Err(SpiffeIdError::TrustDomain);
        }
        if let Some(segments) = path.strip_prefix('/') {
            for segment in segments.split('/') {
                if matches!(segment, "" | "." | "..") {
                    return Err(SpiffeIdError::Segment);
                }
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
                if !segment.bytes().all(allowed) {
                    return Err(SpiffeIdError::PathCharacter);
                }
            }
        }
        Ok(Self { id, trust_domain, path })
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.id
    }

    /// Name of the trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &'a str {
        self.trust_domain
    }

    /// The path with its leading `/`; empty for the ID of the trust domain itself.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }
}

/// Returns whether `name` is a trust domain's name (SPIFFE-ID §2.1).
#[must_use]
pub fn is_trust_domain(name: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    (1..=MAX_DOMAIN_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// Defect of a SPIFFE id or pattern; holds no byte of it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SpiffePatternError {
    /// The text has another scheme, or no path.
    #[error("it is not spiffe://<trust domain>/<path>")]
    Form,
    /// The trust domain is not valid.
    #[error("its trust domain is not of lower-case letters, digits, `.`, `_` and `-`")]
    TrustDomain,
    /// A path segment is not valid.
    #[error("a path segment is letters, digits, `.`, `_` and `-`, or a whole `*`")]
    Segment,
    /// The text has too many segments or bytes.
    #[error("it has too many segments or bytes")]
    TooLong,
}

/// Checks a SPIFFE id or pattern (SPIFFE-ID §2; `*` is one whole path segment).
///
/// # Errors
/// The rule that the text breaks.
pub fn check_pattern(pattern: &str) -> Result<(), SpiffePatternError> {
    let (domain, path) = pattern
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or(SpiffePatternError::Form)?;
    if !is_trust_domain(domain) {
        return Err(SpiffePatternError::TrustDomain);
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_segment = |text: &str| {
        text == "*"
            || (!text.is_empty() && text != "." && text != ".." && text.bytes().all(is_plain))
    };
    if !path.split('/').all(is_segment) {
        return Err(SpiffePatternError::Segment);
    }
    if path.split('/').count() >= MOST_SEGMENTS || pattern.len() > MAX_ID_BYTES {
        return Err(SpiffePatternError::TooLong);
    }
    Ok(())
}

/// Returns whether `wide` matches every id that `narrow`, an id or a pattern, matches.
#[must_use]
pub fn covers(wide: &str, narrow: &str) -> bool {
    let mut narrow = segments(narrow);
    let covered = segments(wide)
        .all(|segment| narrow.next().is_some_and(|other| segment == "*" || segment == other));
    covered && narrow.next().is_none()
}

/// Returns whether some id matches both patterns.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let mut others = segments(other);
    let fit = segments(one).all(|segment| {
        others.next().is_some_and(|other| segment == "*" || other == "*" || segment == other)
    });
    fit && others.next().is_none()
}

/// Trust domain, then path segments.
pub fn segments(id: &str) -> impl Iterator<Item = &str> {
    id.strip_prefix("spiffe://").unwrap_or_default().split('/')
}

/// A SPIFFE ID of more segments matches no pattern.
pub const MOST_SEGMENTS: usize = 32;
const MAX_ID_BYTES: usize = 2048;
const MAX_DOMAIN_BYTES: usize = 255;
