//! Rate limit of each caller.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use authz_base::poison::IgnorePoison as _;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// A token bucket for each caller. The table is bounded: if all its callers are busy, a new caller must wait.
#[derive(Debug)]
pub(crate) struct ProbeRate {
    rate: f64,
    burst: f64,
    most: usize,
    callers: Mutex<HashMap<String, Bucket>>,
}

impl ProbeRate {
    pub(crate) fn new(rate: f64, burst: f64, most: usize) -> Self {
        Self { rate, burst, most, callers: Mutex::new(HashMap::new()) }
    }

    /// Takes one token of the caller, if it has one.
    pub(crate) fn admit(&self, caller: &str, now: Instant) -> bool {
        let mut callers = self.callers.lock().ignore_poison();
        if !callers.contains_key(caller) {
            if callers.len() >= self.most {
                // A full bucket remembers nothing.
                callers.retain(|_, bucket| self.refilled(*bucket, now) < self.burst);
            }
            if callers.len() >= self.most {
                return false;
            }
            callers.insert(caller.to_owned(), Bucket { tokens: self.burst, at: now });
        }
        let Some(bucket) = callers.get_mut(caller) else {
            return false;
        };
        let tokens = self.refilled(*bucket, now);
        let admitted = tokens >= 1.0;
        *bucket = Bucket { tokens: if admitted { tokens - 1.0 } else { tokens }, at: now };
        admitted
    }

    fn refilled(&self, bucket: Bucket, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        passed.mul_add(self.rate, bucket.tokens).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One caller's haste costs no other caller, and time gives it back.
    #[test]
    fn rate_is_per_caller() {
        let rate = ProbeRate::new(10.0, 2.0, 2);
        let start = Instant::now();
        let admit = |caller: &str, after| rate.admit(caller, start + Duration::from_millis(after));
        assert_eq!([true, true, false], [admit("a", 0), admit("a", 0), admit("a", 0)]);
        assert!(admit("b", 0));
        assert!(!admit("c", 0), "the table is full and both are busy");
        assert_eq!([true, false], [admit("a", 100), admit("a", 100)]);
        assert!(admit("c", 10_000), "idle callers make room");
    }
}
