//! Registered claims and time (RFC 7519 §4.1).

use crate::facts::UnixTime;
use crate::json::{self, JsonObject, JsonValue};
use crate::refusal::{Refusal, RefusalReason};

/// Bounds of a payload.
pub(crate) const CLAIM_LIMITS: json::JsonLimits = json::JsonLimits { depth: 16, nodes: 4096 };

/// Reads the claims set (RFC 7519 §7.2 step 10).
pub(crate) fn read(payload: &[u8]) -> Result<JsonObject<'_>, Refusal> {
    json::read_object(payload, CLAIM_LIMITS)
        .map_err(|error| Refusal::bad(format!("the token's claims: {error}")))
}

/// A claim that is a text of at most `max` bytes, if it is there.
pub(crate) fn text<'a>(
    claims: &'a JsonObject<'_>,
    name: &'static str,
    max: usize,
) -> Result<Option<&'a str>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(JsonValue::String(text)) if text.len() <= max => Ok(Some(text.as_ref())),
        Some(_) => Err(Refusal::bad(format!("the token's `{name}` is ill-typed or too long"))),
    }
}

/// The audiences of a token (RFC 7519 §4.1.3).
pub(crate) fn audiences<'a>(claims: &'a JsonObject<'_>) -> Result<Vec<&'a str>, Refusal> {
    let ill_typed = || Refusal::bad("the token's `aud` is ill-typed");
    match claims.get("aud") {
        None => Err(wrong_audience("the token has no `aud`")),
        Some(JsonValue::String(audience)) => Ok(vec![audience.as_ref()]),
        Some(JsonValue::Array(audiences)) => audiences
            .iter()
            .map(|audience| match audience {
                JsonValue::String(audience) => Ok(audience.as_ref()),
                _ => Err(ill_typed()),
            })
            .collect(),
        Some(_) => Err(ill_typed()),
    }
}

/// Checks that `aud` is there and holds one of `ours` (RFC 7519 §4.1.3).
pub(crate) fn check_audience(claims: &JsonObject<'_>, ours: &[String]) -> Result<(), Refusal> {
    let audiences = audiences(claims)?;
    if audiences.iter().any(|audience| ours.iter().any(|own| own == audience)) {
        return Ok(());
    }
    Err(wrong_audience("the token's `aud` holds none of the accepted values"))
}

/// Returns whether all audiences of the token are in `alone`, the audiences for which no agent gets tokens.
///
/// A token with an audience in `alone` and another one is refused: the service of the other audience holds the token too,
/// and could present it as if it were the subject.
pub(crate) fn is_for_alone(claims: &JsonObject<'_>, alone: &[String]) -> Result<bool, Refusal> {
    if alone.is_empty() {
        return Ok(false);
    }
    let audiences = audiences(claims)?;
    let count = audiences.iter().filter(|one| alone.iter().any(|own| own == *one)).count();
    if count == 0 || count == audiences.len() {
        return Ok(count > 0);
    }
    Err(wrong_audience("the token's `aud` holds an `alone_audience` beside another audience"))
}

fn wrong_audience(detail: &str) -> Refusal {
    Refusal::new(RefusalReason::WrongAudience, detail)
}

/// Returns whether a text is not empty and a person can read all of it.
pub(crate) fn is_readable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(is_unprintable)
}

/// Control characters, and those that reorder or hide text where a name is shown.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

/// Tolerances of time.
#[derive(Clone, Copy)]
pub(crate) struct TimeLimits {
    /// Seconds.
    pub(crate) leeway: i64,
    /// Seconds.
    pub(crate) max_lifetime: Option<i64>,
}

/// The times that a token states, in seconds since 1970.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Times {
    pub(crate) issued_at: Option<i64>,
    pub(crate) expires_at: i64,
    pub(crate) auth_time: Option<i64>,
    not_before: Option<i64>,
}

impl Times {
    /// Reads `exp` (required), `nbf`, `iat` and `auth_time`, and refuses times that are not valid at any clock.
    pub(crate) fn read(claims: &JsonObject<'_>, limits: &TimeLimits) -> Result<Self, Refusal> {
        let expires_at = date(claims, "exp", f64::floor)?
            .ok_or_else(|| Refusal::bad("the token has no `exp`"))?;
        let not_before = date(claims, "nbf", f64::ceil)?;
        let issued_at = date(claims, "iat", f64::floor)?;
        let auth_time = date(claims, "auth_time", f64::floor)?;
        if issued_at.is_some_and(|iat| iat > expires_at)
            || not_before.is_some_and(|nbf| nbf > expires_at)
        {
            return Err(Refusal::bad("the token ends before it begins"));
        }
        if let Some(max) = limits.max_lifetime {
            let iat = issued_at.ok_or_else(|| {
                Refusal::bad("the token has no `iat`, which `max_lifetime_seconds` needs")
            })?;
            if expires_at.saturating_sub(iat) > max {
                return Err(Refusal::bad("the token lives longer than `max_lifetime_seconds`"));
            }
        }
        Ok(Self { issued_at, expires_at, auth_time, not_before })
    }

    /// Checks the times against the clock: the only check whose outcome changes while the trust
    /// store does not, so it is repeated for each answer from the cache.
    pub(crate) fn check(&self, limits: &TimeLimits, now: UnixTime) -> Result<(), Refusal> {
        let UnixTime(now) = now;
        let in_future =
            |time: Option<i64>| time.is_some_and(|time| time > now.saturating_add(limits.leeway));
        if now >= self.expires_at.saturating_add(limits.leeway) {
            return Err(Refusal::new(
                RefusalReason::ExpiredCredential,
                "the token's `exp` has passed",
            ));
        }
        let early = |what: &str| Err(Refusal::new(RefusalReason::ExpiredCredential, what));
        if in_future(self.not_before) {
            return early("the token's `nbf` is still to come");
        }
        if in_future(self.issued_at) || in_future(self.auth_time) {
            return early("the token's `iat` or `auth_time` is still to come");
        }
        Ok(())
    }
}

/// A NumericDate (RFC 7519 §2) between 1970 and 9999, rounded to a second.
pub(crate) fn date(
    claims: &JsonObject<'_>,
    name: &'static str,
    round: fn(f64) -> f64,
) -> Result<Option<i64>, Refusal> {
    let seconds = match claims.get(name) {
        None => return Ok(None),
        Some(JsonValue::Integer(seconds)) => Some(*seconds),
        Some(JsonValue::Float(seconds)) if (0.0..=MAX_DATE_FLOAT).contains(seconds) =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "rounded and within bounds")]
            Some(round(*seconds) as i64)
        }
        Some(_) => None,
    };
    seconds
        .filter(|seconds| (0..=MAX_DATE).contains(seconds))
        .map(Some)
        .ok_or_else(|| Refusal::bad(format!("the token's `{name}` is no date in seconds")))
}

/// 9999-12-31T23:59:59Z.
const MAX_DATE: i64 = 253_402_300_799;
const MAX_DATE_FLOAT: f64 = 253_402_300_799.0;
