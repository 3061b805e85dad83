//! Time, ids and random numbers of a node, so that a test or a simulation can choose them.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Source of time, ids and random numbers. No other module asks the operating system for them.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Wall-clock time since 1970; zero where the clock is set before 1970.
    fn since_1970(&self) -> Duration;

    /// Monotonic time, for deadlines and rates.
    fn monotonic(&self) -> Instant;

    /// Blocks the thread.
    fn sleep(&self, time: Duration);

    /// A new UUIDv7 (RFC 9562 §5.7), in lower case with hyphens.
    fn new_id(&self) -> String;

    /// Random bits for the ids of traces and spans; none if the system has no randomness.
    fn random(&self) -> Option<u64>;

    /// Wall-clock time in milliseconds since 1970.
    fn now_ms(&self) -> i64 {
        i64::try_from(self.since_1970().as_millis()).unwrap_or(0)
    }

    /// Time that has passed since a monotonic time.
    fn elapsed_since(&self, start: Instant) -> Duration {
        self.monotonic().saturating_duration_since(start)
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

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn new_id(&self) -> String {
        Uuid::now_v7().hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
    }

    fn random(&self) -> Option<u64> {
        getrandom::u64().ok()
    }
}
