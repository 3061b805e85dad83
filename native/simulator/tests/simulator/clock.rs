//! Clocks of the simulated nodes: they move only when an event moves them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use authz_lane::Clock;
use authz_state::TimeSource;

/// Start of every run, in seconds since 1970. Tokens are signed once for all runs.
pub const START: i64 = 1_800_000_000;

/// Monotonic time at the start of every run. The embedded store compares deadlines with the clock of the operating system, so a
/// deadline that lies a year ahead never passes for it.
static MONOTONIC: LazyLock<Instant> =
    LazyLock::new(|| Instant::now() + Duration::from_secs(365 * 24 * 3_600));

/// Time that has passed in a run, the same for all nodes.
#[derive(Debug, Default)]
pub struct WorldTime {
    passed_ms: AtomicU64,
}

impl WorldTime {
    pub fn passed_ms(&self) -> u64 {
        self.passed_ms.load(Ordering::SeqCst)
    }

    pub fn advance(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

/// Clock of one node. Its wall clock may differ from that of other nodes.
#[derive(Debug)]
pub struct NodeClock {
    world: Arc<WorldTime>,
    offset_ms: AtomicI64,
    node: usize,
    next_id: AtomicU64,
}

impl NodeClock {
    pub fn new(world: &Arc<WorldTime>, node: usize) -> Self {
        let (offset_ms, next_id) = (AtomicI64::new(0), AtomicU64::new(1));
        Self { world: Arc::clone(world), offset_ms, node, next_id }
    }

    /// Milliseconds by which the wall clock is ahead.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms.load(Ordering::SeqCst)
    }

    pub fn set_offset_ms(&self, ms: i64) {
        self.offset_ms.store(ms, Ordering::SeqCst);
    }

    fn next(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::SeqCst)
    }
}

impl TimeSource for NodeClock {
    fn since_1970(&self) -> Duration {
        let passed = i64::try_from(self.world.passed_ms()).unwrap();
        let ms = START * 1_000 + passed + self.offset_ms();
        Duration::from_millis(ms.unsigned_abs())
    }

    fn monotonic(&self) -> Instant {
        *MONOTONIC + Duration::from_millis(self.world.passed_ms())
    }
}

impl Clock for NodeClock {
    fn sleep(&self, time: Duration) {
        self.world.advance(u64::try_from(time.as_millis()).unwrap());
    }

    fn new_id(&self) -> String {
        format!("00000000-0000-7000-8{:03x}-{:012x}", self.node, self.next())
    }

    fn random(&self) -> Option<u64> {
        Some(self.next())
    }
}
