//! Difference between this node's clock and the database's.

use std::time::{Duration, Instant};

use crate::time::{now, wall_clock_ms};

/// The database's clock, as it was read: it goes on from there as this machine's monotonic clock does, so that a step of
/// this node's own clock shows at once, without asking the database again.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatabaseClock {
    /// Time that the database stated, in milliseconds since 1970.
    said_ms: i64,
    /// Duration of the question: the database may have stated it at any time meanwhile.
    took: Duration,
    /// Arrival of the answer.
    at: Instant,
}

impl DatabaseClock {
    /// The clock of a database that was asked at `asked` and has just answered `said_ms`.
    pub(super) fn read(said_ms: i64, asked: Instant) -> Self {
        let at = now();
        Self { said_ms, took: at.saturating_duration_since(asked), at }
    }

    /// Least milliseconds by which this node's clock is ahead of the database's; negative: behind.
    pub(super) fn ahead_ms(&self) -> i64 {
        self.ahead_of(now(), wall_clock_ms())
    }

    fn ahead_of(&self, now: Instant, own_ms: i64) -> i64 {
        let since = millis(now.saturating_duration_since(self.at));
        let earliest = self.said_ms.saturating_add(since);
        let latest = earliest.saturating_add(millis(self.took));
        if own_ms > latest {
            own_ms.saturating_sub(latest)
        } else {
            own_ms.saturating_sub(earliest).min(0)
        }
    }

    /// Reason for which this node must not use its clock. `None` if it may.
    pub(super) fn problem(&self, tolerance: Duration) -> Option<String> {
        let ahead = self.ahead_ms();
        if ahead.unsigned_abs() <= u64::try_from(tolerance.as_millis()).unwrap_or(u64::MAX) {
            return None;
        }
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        Some(format!(
            "this node's clock is {} s {way} the database's, more than the {} s by which clocks may differ",
            ahead.unsigned_abs() / 1_000,
            tolerance.as_secs()
        ))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// The difference is the least that the answer allows, and a step of either clock shows.
    #[test]
    fn the_difference_is_the_least_possible() {
        let at = Instant::now();
        let clock = DatabaseClock { said_ms: 100_000, took: Duration::from_millis(300), at };
        let later = at.checked_add(Duration::from_secs(2)).unwrap();
        for (own_ms, ahead) in [
            (100_000, 0),
            (100_300, 0),
            (100_301, 1),
            (99_999, -1),
            (0, -100_000),
            (500_300, 400_000),
            (i64::MAX, i64::MAX - 100_300),
        ] {
            assert_eq!(ahead, clock.ahead_of(at, own_ms), "{own_ms}");
        }
        assert_eq!(0, clock.ahead_of(later, 102_100));
        assert_eq!(-2_000, clock.ahead_of(later, 100_000), "it stood still");
        assert_eq!(86_400_000, clock.ahead_of(later, 102_300 + 86_400_000));
    }

    /// It is refused beyond the tolerance, in either direction.
    #[test]
    fn it_is_tolerated_so_far() {
        let read = |ahead: i64| DatabaseClock::read(wall_clock_ms() - ahead, Instant::now());
        let tolerance = Duration::from_secs(5);
        for ahead in [0, 3_000, -3_000] {
            assert_eq!(None, read(ahead).problem(tolerance), "{ahead}");
        }
        let said = read(345_600_000).problem(tolerance).unwrap();
        assert!(said.contains("s ahead of the database's, more than the 5 s"), "{said}");
        assert!(read(-60_000).problem(tolerance).unwrap().contains("s behind the database's"));
    }
}
