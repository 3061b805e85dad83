//! Time, ids and random numbers of a node, so that a test or a simulation can choose them.

use std::time::{Duration, Instant};

use authz_state::{SystemTimeSource, TimeSource};
use uuid::Uuid;

/// Source of time, ids and random numbers. No other module asks the operating system for them.
pub trait Clock: TimeSource {
    /// Blocks the thread.
    fn sleep(&self, time: Duration);

    /// A new UUIDv7 (RFC 9562 §5.7), in lower case with hyphens.
    fn new_id(&self) -> String;

    /// Random bits for the ids of traces and spans; none if the system has no randomness.
    fn random(&self) -> Option<u64>;

    /// Wall-clock time in milliseconds since 1970. Zero: the clock is set before 1970, and no call is admitted.
    fn now_ms(&self) -> i64 {
        // A time that has no number is after every expiry.
        i64::try_from(self.since_1970().as_millis()).unwrap_or(i64::MAX)
    }

    /// Time that has passed since a monotonic time.
    fn elapsed_since(&self, start: Instant) -> Duration {
        self.monotonic().saturating_duration_since(start)
    }
}

/// The operating system's clock, and random ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl TimeSource for SystemClock {
    fn since_1970(&self) -> Duration {
        SystemTimeSource.since_1970()
    }

    fn monotonic(&self) -> Instant {
        SystemTimeSource.monotonic()
    }
}

impl Clock for SystemClock {
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
