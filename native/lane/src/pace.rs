//! Work that rests between short bursts, so that decisions which go on beside it do not wait.

use std::thread::sleep;
use std::time::{Duration, Instant};

const BURST: Duration = Duration::from_micros(300);
/// Rests are so many times as long as the burst before, within bounds.
const SHARE: u32 = 3;
const REST: Duration = Duration::from_millis(1);
const LONGEST_REST: Duration = Duration::from_millis(5);
/// In all: what is loaded must serve soon.
const MOST: Duration = Duration::from_millis(500);

/// When work rests.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    left: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), left: MOST }
    }
}

impl Pace {
    /// Rests, if it is time to: for longer after what could not rest.
    pub fn rest(&mut self) {
        let rest = self.rest_after(self.since.elapsed());
        if !rest.is_zero() {
            sleep(rest);
            self.since = Instant::now();
        }
    }

    fn rest_after(&mut self, burst: Duration) -> Duration {
        if burst < BURST {
            return Duration::ZERO;
        }
        let rest = burst.saturating_mul(SHARE).clamp(REST, LONGEST_REST).min(self.left);
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
