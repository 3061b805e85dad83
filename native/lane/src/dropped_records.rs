//! Records that were dropped because the audit queue was full. A record of their number takes their place in the log.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use authz_base::poison::IgnorePoison as _;

use crate::sums::Sum;

/// Least time between two records of dropped records. In a full queue these records would otherwise take the room of decisions.
const INTERVAL_MS: u64 = 1_000;

/// Dropped records that no record tells of yet.
#[derive(Debug, Default)]
pub(crate) struct DroppedRecords {
    /// True if `gap` may have dropped records: calls without a gap take no lock.
    has_gap: AtomicBool,
    gap: Mutex<Gap>,
}

#[derive(Debug, Default)]
struct Gap {
    sum: Sum,
    /// Time of the last record of dropped records.
    recorded_ms: i64,
}

impl DroppedRecords {
    /// Counts a dropped record.
    pub(crate) fn add(&self, now_ms: i64) {
        self.keep(Sum { count: 1, first_ms: now_ms, last_ms: now_ms });
    }

    /// Takes the sum of dropped records, if a record of them is due.
    pub(crate) fn due(&self, now_ms: i64) -> Option<Sum> {
        if !self.has_gap.load(Ordering::Acquire) {
            return None;
        }
        let mut gap = self.gap.lock().ignore_poison();
        // A clock that is set back does not put the record off.
        if now_ms.abs_diff(gap.recorded_ms) < INTERVAL_MS {
            return None;
        }
        self.take(&mut gap, now_ms)
    }

    /// Takes the sum of all dropped records.
    pub(crate) fn all(&self, now_ms: i64) -> Option<Sum> {
        self.take(&mut self.gap.lock().ignore_poison(), now_ms)
    }

    /// Keeps a sum that could not be written, for the next time.
    pub(crate) fn keep(&self, sum: Sum) {
        let mut gap = self.gap.lock().ignore_poison();
        gap.sum.add(sum);
        self.has_gap.store(true, Ordering::Release);
    }

    fn take(&self, gap: &mut Gap, now_ms: i64) -> Option<Sum> {
        self.has_gap.store(false, Ordering::Release);
        let sum = std::mem::take(&mut gap.sum);
        (sum.count > 0).then(|| {
            gap.recorded_ms = now_ms;
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record is due at once, then at most once a second, and tells of every dropped record. One that could not be written
    /// is told with the next one.
    #[test]
    fn every_dropped_record_is_told() {
        let dropped = DroppedRecords::default();
        assert_eq!(None, dropped.due(5_000));
        dropped.add(5_000);
        dropped.add(5_007);
        let sum = Sum { count: 2, first_ms: 5_000, last_ms: 5_007 };
        assert_eq!(Some(sum), dropped.due(5_010));
        assert_eq!(None, dropped.due(7_000));
        dropped.keep(sum);
        dropped.add(5_020);
        assert_eq!(None, dropped.due(6_009));
        let all = Sum { count: 3, first_ms: 5_000, last_ms: 5_020 };
        assert_eq!(Some(all), dropped.due(6_010));
        dropped.add(6_011);
        assert_eq!(Some(1), dropped.due(0).map(|sum| sum.count), "the clock was set back");
        dropped.add(6_012);
        assert_eq!(Some(1), dropped.all(1).map(|sum| sum.count));
        assert_eq!(None, dropped.all(2));
    }
}
