//! Work that rests between short bursts, so that decisions which go on beside it do not wait.

use std::thread::sleep;
use std::time::{Duration, Instant};

const BURST: Duration = Duration::from_micros(300);
const REST: Duration = Duration::from_millis(1);
/// In all less than half a second: what is loaded must serve soon.
const MOST_RESTS: u32 = 400;

/// When work rests.
#[derive(Debug)]
pub struct Pace {
    since: Instant,
    left: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), left: MOST_RESTS }
    }
}

impl Pace {
    /// Rests, if it is time to: for a millisecond.
    pub fn rest(&mut self) {
        if self.left > 0 && self.since.elapsed() >= BURST {
            self.left = self.left.saturating_sub(1);
            sleep(REST);
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rests_together_are_bounded() {
        let mut pace = Pace { since: Instant::now(), left: 2 };
        for left in [1, 0, 0] {
            sleep(BURST);
            pace.rest();
            assert_eq!(left, pace.left);
        }
    }
}
