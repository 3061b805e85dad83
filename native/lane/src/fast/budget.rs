//! Frames that one connection may send besides those that its calls need.
//!
//! HTTP/2 lets a client send SETTINGS, PING, WINDOW_UPDATE, PRIORITY, empty DATA and frames of unknown types without end. Each
//! costs a few octets to send, and the thread that reads it far more. So a connection pays for its frames, and earns by
//! its calls; a connection that cannot pay is closed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::frames::{DATA, FrameHeader};

/// Frames that a call earns. A call needs three frames, and some for flow control and cancellation; a call that fills the
/// largest header list costs less than twenty.
const CALL: u32 = 32;
/// Frames that any connection may send at once before a call begins.
const BASE: u32 = 256;
/// Frames of a call that are read before the call begins and earns.
const FRAMES_OF_CALL: u32 = 3;
/// Time after which a connection without calls may send one frame more.
const REFILL: Duration = Duration::from_millis(10);
/// A DATA frame of this length carries enough to be free. Any other frame costs one more for each such part of its payload.
const PART: usize = 1_024;

/// The connection has sent more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

/// Frames that a connection may still send.
#[derive(Debug)]
pub(super) struct FrameBudget {
    left: u32,
    capacity: u32,
    filled: Instant,
}

impl FrameBudget {
    /// A full budget, for a connection that may have so many calls at once.
    pub(super) fn new(max_streams: u32, now: Instant) -> Self {
        let capacity = max_streams.saturating_mul(FRAMES_OF_CALL).saturating_add(BASE);
        Self { left: capacity, capacity, filled: now }
    }

    /// Pays for a frame. `begun` are the calls that began since the last look, and have not earned yet.
    ///
    /// # Errors
    /// Nothing is left.
    pub(super) fn pay(
        &mut self,
        frame: FrameHeader,
        begun: &AtomicU32,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Exceeded> {
        let cost = cost(frame);
        if self.left < cost {
            // Only now, so that other frames cost no look at the clock.
            self.fill(begun, now());
        }
        self.left = self.left.checked_sub(cost).ok_or(Exceeded)?;
        Ok(())
    }

    fn fill(&mut self, begun: &AtomicU32, now: Instant) {
        let earned = begun.swap(0, Ordering::Relaxed).saturating_mul(CALL);
        let passed = now.saturating_duration_since(self.filled);
        let steps = passed.as_millis().checked_div(REFILL.as_millis()).unwrap_or(0);
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let refilled = REFILL.checked_mul(steps).and_then(|by| self.filled.checked_add(by));
        self.filled = refilled.unwrap_or(now);
        self.left = self.left.saturating_add(earned).saturating_add(steps).min(self.capacity);
    }
}

fn cost(frame: FrameHeader) -> u32 {
    if frame.kind == DATA {
        return u32::from(frame.length < PART);
    }
    let parts = frame.length.checked_div(PART).unwrap_or(0);
    u32::try_from(parts).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::frames::HEADERS;
    use super::*;

    const SETTINGS: FrameHeader = FrameHeader { length: 0, kind: 4, flags: 0 };

    fn after(start: Instant, ms: u64) -> impl FnOnce() -> Instant {
        move || start.checked_add(Duration::from_millis(ms)).unwrap()
    }

    /// Frames without a call end the budget, which time refills slowly.
    #[test]
    fn floods_end() {
        let (start, none) = (Instant::now(), AtomicU32::new(0));
        let mut budget = FrameBudget::new(1, start);
        let capacity = BASE + FRAMES_OF_CALL;
        for _ in 0..capacity {
            budget.pay(SETTINGS, &none, after(start, 0)).unwrap();
        }
        assert_eq!(Err(Exceeded), budget.pay(SETTINGS, &none, after(start, 9)));
        for _ in 0..10 {
            budget.pay(SETTINGS, &none, after(start, 100)).unwrap();
        }
        assert_eq!(Err(Exceeded), budget.pay(SETTINGS, &none, after(start, 100)));
        // Silence saves no more than the capacity.
        let later = 3_600_000;
        for _ in 0..capacity {
            budget.pay(SETTINGS, &none, after(start, later)).unwrap();
        }
        assert_eq!(Err(Exceeded), budget.pay(SETTINGS, &none, after(start, later)));
    }

    /// Calls pay for themselves, with the frames that some clients add, at any rate.
    #[test]
    fn calls_pay_for_themselves() {
        let (start, begun) = (Instant::now(), AtomicU32::new(0));
        let mut budget = FrameBudget::new(256, start);
        let frame = |kind, length| FrameHeader { length, kind, flags: 0 };
        for _ in 0..100_000 {
            let window = frame(8, 4);
            for frame in [
                frame(HEADERS, 16_384),
                frame(DATA, 400),
                frame(DATA, 0),
                frame(6, 8),
                frame(6, 8),
                window,
                window,
                frame(3, 4),
            ] {
                budget.pay(frame, &begun, after(start, 0)).unwrap();
            }
            begun.fetch_add(1, Ordering::Relaxed);
        }
        // A large message costs nothing, and one in slivers does.
        for _ in 0..1_000_000 {
            budget.pay(frame(DATA, 16_384), &begun, after(start, 0)).unwrap();
        }
        let slivers = (0..10_000).map(|_| budget.pay(frame(DATA, 1), &begun, after(start, 0)));
        assert!(slivers.into_iter().any(|paid| paid.is_err()));
    }

    /// Long payloads cost more than short ones.
    #[test]
    fn costs() {
        let of = |kind, length| cost(FrameHeader { length, kind, flags: 0 });
        assert_eq!((1, 17, 17), (of(4, 0), of(4, 16_384), of(0xff, 16_384)));
        assert_eq!((1, 1, 0), (of(DATA, 0), of(DATA, 1_023), of(DATA, 1_024)));
    }
}
