//! Background work that rests between short bursts, so that it does not delay decisions.

use std::fmt;
use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};

/// Longest work without a rest.
const BURST: Duration = Duration::from_micros(300);
/// Length of a rest, as a multiple of the burst before it, and its bounds.
const SHARE: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(1);
const LONGEST_REST: Duration = Duration::from_millis(5);
/// Longest time of all rests together: a new bundle must serve soon.
const MOST: Duration = Duration::from_millis(500);

/// Times at which background work rests.
pub struct Pace<'a> {
    clock: &'a dyn Clock,
    burst_began: Instant,
    left: Duration,
}

impl fmt::Debug for Pace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Default for Pace<'static> {
    fn default() -> Self {
        Self::new(&SystemClock)
    }
}

impl<'a> Pace<'a> {
    /// Work that begins now.
    #[must_use]
    pub fn new(clock: &'a dyn Clock) -> Self {
        Self { clock, burst_began: clock.monotonic(), left: MOST }
    }

    /// Rests if the burst was long enough. A longer burst is followed by a longer rest.
    pub fn rest(&mut self) {
        let rest = self.rest_after(self.clock.elapsed_since(self.burst_began));
        if !rest.is_zero() {
            self.clock.sleep(rest);
            self.burst_began = self.clock.monotonic();
        }
    }

    fn rest_after(&mut self, burst: Duration) -> Duration {
        if burst < BURST {
            return Duration::ZERO;
        }
        let rest = burst.saturating_mul(SHARE).clamp(SHORTEST_REST, LONGEST_REST).min(self.left);
        self.left = self.left.saturating_sub(rest);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_longer_after_a_long_burst() {
        let rested = |micros| Pace::default().rest_after(Duration::from_micros(micros)).as_micros();
        let bursts = [(299, 0), (300, 1_000), (1_200, 3_600), (1_700, 5_000), (900_000, 5_000)];
        for (burst, rest) in bursts {
            assert_eq!(rest, rested(burst), "{burst} us");
        }
    }

    #[test]
    fn all_rests_together_are_bounded() {
        let mut pace = Pace::default();
        let all: Duration = (0..1_000).map(|_| pace.rest_after(LONGEST_REST)).sum();
        assert_eq!(MOST, all);
        assert_eq!(Duration::ZERO, pace.rest_after(LONGEST_REST));
    }
}
