//! Ends of standing exceptions.

use authz_base::rfc3339;
use authz_base::time::Time;
use serde::Serialize;

use crate::diagnostic::Diagnostics;
use crate::model::{Model, StandingException};

/// Days that an exception may last from the time of loading, unless the bundle lowers the number.
pub const MOST_DAYS: u16 = 365;
/// Days before the end of an exception from which a bundle gets a warning.
pub const WARNED_DAYS: i64 = 14;
const DAY_MS: i64 = 86_400_000;

/// An exception, as shown to people.
#[derive(Clone, Debug, Serialize)]
pub struct ExceptionSummary<'a> {
    /// Name in the bundle.
    pub name: &'a str,
    /// Role or SPIFFE id of the caller.
    pub who: &'a str,
    /// Ids and globs of operations.
    pub operations: Vec<&'a str>,
    /// Highest tier of a call that it covers.
    pub tier_cap: &'static str,
    /// Team or person who answers for it.
    pub owner: &'a str,
    /// Reason for which it exists.
    pub reason: &'a str,
    /// Ticket in which it was granted.
    pub ticket: &'a str,
    /// Obligations of a permit that depends on it.
    pub obligations: Vec<&'a str>,
    /// Time from which it no longer applies, in milliseconds since 1970.
    pub expires_ms: i64,
    /// Place in the bundle, `file:line`.
    pub at: String,
}

impl Model {
    /// The exceptions, as shown to people.
    pub fn exception_summaries(&self) -> impl Iterator<Item = ExceptionSummary<'_>> {
        self.exceptions.iter().map(|(name, exception)| ExceptionSummary {
            name,
            who: exception.holder.as_str(),
            operations: exception.operations.iter().map(|glob| glob.1.as_str()).collect(),
            tier_cap: exception.tier_cap.as_str(),
            owner: &exception.owner,
            reason: &exception.reason,
            ticket: &exception.ticket,
            obligations: exception.obligations.iter().map(String::as_str).collect(),
            expires_ms: exception.expires.0,
            at: format!("{}:{}", exception.at.file, exception.at.line),
        })
    }

    /// Time until which an exception may last that is loaded at `now`: a day counts whole, at any hour of loading.
    fn latest_expiry(&self, now: Time) -> Time {
        let midnight = now.0.saturating_sub(now.0.rem_euclid(DAY_MS));
        let days = i64::from(self.exception_days.unwrap_or(MOST_DAYS));
        Time(midnight.saturating_add(days.saturating_add(1).saturating_mul(DAY_MS)))
    }
}

/// Checks the ends of the exceptions at the time of loading.
///
/// An end further ahead than the bundle allows is an error. An end that is past, or nearer than [`WARNED_DAYS`], is a warning:
/// a node that restarts after the end serves the bundle without the exception.
pub fn check(model: &Model, now: Time, found: &mut Diagnostics) {
    let latest = model.latest_expiry(now);
    for (name, exception) in &model.exceptions {
        let StandingException { expires, owner, ticket, at, .. } = exception;
        let end = rfc3339::seconds(expires.0);
        let left = expires.0.saturating_sub(now.0);
        if *expires > latest {
            let days = model.exception_days.unwrap_or(MOST_DAYS);
            let last = rfc3339::seconds(latest.0.saturating_sub(DAY_MS));
            let last = last.split('T').next().unwrap_or_default();
            let what = format!("exception `{name}` lasts until {end}, more than {days} days ahead");
            found.error(at, what, format!("Say `expires: {last}`, or earlier."));
        } else if left <= 0 {
            let what = format!("exception `{name}` expired at {end}: it applies to no call");
            let fix = format!("Remove it, or let {owner} renew {ticket} and set a new `expires`.");
            found.warning(at, what, fix);
        } else if left <= WARNED_DAYS * DAY_MS {
            let left = match left.div_euclid(DAY_MS) {
                0 => "less than a day".to_owned(),
                1 => "1 day".to_owned(),
                days => format!("{days} days"),
            };
            let what = format!("exception `{name}` expires at {end}, {left} from now");
            let fix = format!("Tell {owner}: remove the need for it, or renew {ticket}.");
            found.warning(at, what, fix);
        }
    }
}

#[cfg(test)]
mod tests;
