//! Time. A store in memory takes its [`TimeSource`] as an argument, so that a node in one thread runs on a clock of the
//! caller's. The other stores wait for disks, networks and threads of their own, and read the operating system's clocks
//! here.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Source of time.
pub trait TimeSource: fmt::Debug + Send + Sync {
    /// Wall-clock time since 1970; zero if the clock is set before 1970.
    fn since_1970(&self) -> Duration;

    /// Monotonic time, for deadlines and rates.
    fn monotonic(&self) -> Instant;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemTimeSource;

impl TimeSource for SystemTimeSource {
    fn since_1970(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Instant {
        now()
    }
}

/// Monotonic time of the operating system.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// True once a wall-clock time is reached, and where the clock is set before 1970 and so cannot tell.
pub(crate) fn is_reached(time_ms: i64) -> bool {
    let now_ms = wall_clock_ms();
    now_ms <= 0 || time_ms <= now_ms
}

/// Wall-clock time of the operating system in milliseconds since 1970; negative before.
pub(crate) fn wall_clock_ms() -> i64 {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => millis(before.duration()).saturating_neg(),
    }
}
