//! Time and ids of an engine, so that a test or a simulation can choose both.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Clock and source of ids of an engine.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall-clock time since 1970; zero where the clock says less.
    fn since_1970(&self) -> Duration;

    /// Monotonic time, for deadlines and rates.
    fn monotonic(&self) -> Instant;

    /// A new UUIDv7 (RFC 9562 §5.7), in lower case with hyphens.
    fn new_id(&self) -> String;

    /// Wall-clock time in milliseconds since 1970.
    fn now_ms(&self) -> i64 {
        i64::try_from(self.since_1970().as_millis()).unwrap_or(0)
    }
}

/// The operating system's clock, and random ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn since_1970(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn new_id(&self) -> String {
        Uuid::now_v7().hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
    }
}
