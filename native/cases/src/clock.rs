//! The clock of a test, which only the steps of the test move.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use authz_kernel::decision::Time;
use authz_lane::Clock;
use authz_state::TimeSource;

/// Clock that stands still between steps, and ids in order.
#[derive(Debug)]
pub struct StepClock {
    now_ms: AtomicI64,
    next_id: AtomicU64,
}

impl StepClock {
    /// A clock that stands at a time.
    #[must_use]
    pub const fn new(now: Time) -> Self {
        Self { now_ms: AtomicI64::new(now.0), next_id: AtomicU64::new(1) }
    }

    /// Time of the clock.
    #[must_use]
    pub fn now(&self) -> Time {
        Time(self.now_ms.load(Ordering::Relaxed))
    }

    /// Moves the clock forward.
    pub fn advance(&self, milliseconds: i64) {
        let later = self.now().0.saturating_add(milliseconds);
        self.now_ms.store(later, Ordering::Relaxed);
    }
}

impl TimeSource for StepClock {
    fn since_1970(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now().0).unwrap_or_default())
    }

    /// The real time: it bounds how long a step may take.
    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

impl Clock for StepClock {
    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn random(&self) -> Option<u64> {
        Some(0)
    }

    fn new_id(&self) -> String {
        format!("00000000-0000-7000-8000-{:012x}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}
