//! Canaries: small tasks that pass the loop that accepts connections and the threads that answer, as a call does. Their time
//! shows whether a call would have been answered in time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::clock::Clock;
use crate::threads;

/// Time between two looks at the canaries. A canary is sent at every second look.
const LOOK: Duration = Duration::from_millis(250);
/// Late canaries in a row that make a listener slow.
const MOST_LATE: u32 = 3;
/// Most canaries of one listener that are under way. Further canaries are not needed.
const MOST: usize = 256;

/// Canary under way: a thread that answers calls sends back the time at which it had the canary.
pub(super) type Canary = SyncSender<Instant>;

/// Way to the loop of a listener.
pub(super) type Canaries = mpsc::Sender<Canary>;

/// Late canaries in a row of each listener.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    listeners: Vec<(Arc<str>, AtomicU32)>,
}

impl Pulse {
    pub(super) fn new(listeners: impl IntoIterator<Item = Arc<str>>) -> Self {
        let listeners = listeners.into_iter().map(|name| (name, AtomicU32::new(0))).collect();
        Self { listeners }
    }

    /// Names of the listeners whose last canaries were all late.
    pub(super) fn slow(&self) -> impl Iterator<Item = &str> {
        self.listeners
            .iter()
            .filter(|(_, late)| late.load(Ordering::Relaxed) >= MOST_LATE)
            .map(|(name, _)| name.as_ref())
    }

    fn count(&self, place: usize, was_late: bool) {
        if let Some((_, late)) = self.listeners.get(place) {
            let before = late.load(Ordering::Relaxed);
            let after = if was_late { before.saturating_add(1) } else { 0 };
            late.store(after, Ordering::Relaxed);
        }
    }
}

/// The canaries of one listener that are under way.
#[derive(Default)]
struct Flock {
    sent: VecDeque<SentCanary>,
}

struct SentCanary {
    at: Instant,
    comes_back: Receiver<Instant>,
    /// The canary itself, if it could not be sent.
    _kept: Option<Canary>,
}

impl Flock {
    fn send(&mut self, to: &Canaries, now: Instant) {
        if self.sent.len() < MOST {
            let (canary, comes_back) = sync_channel(1);
            // It never comes back from a way in that is full.
            let _kept = to.try_send(canary).err().map(TrySendError::into_inner);
            self.sent.push_back(SentCanary { at: now, comes_back, _kept });
        }
    }

    /// Looks at those under way, oldest first.
    fn look(&mut self, now: Instant, ready_after: Duration, mut count: impl FnMut(bool)) {
        self.sent.retain(|SentCanary { at, comes_back, .. }| {
            let came = comes_back.try_recv().ok();
            let waited = came.unwrap_or(now).saturating_duration_since(*at);
            let is_over = came.is_some() || waited > ready_after;
            if is_over {
                count(waited > ready_after);
            }
            !is_over
        });
    }
}

/// Thread that sends canaries. It answers no calls.
pub(super) struct Sender {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    pub(super) fn start(
        clock: Arc<dyn Clock>,
        pulse: Arc<Pulse>,
        listeners: Vec<Canaries>,
        ready_after: Duration,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = threads::spawn("authz-canary", move || {
            let mut flocks: Vec<Flock> = listeners.iter().map(|_| Flock::default()).collect();
            let mut sends = false;
            while !stopped.load(Ordering::Acquire) {
                sends = !sends;
                let now = clock.monotonic();
                for (place, (flock, listener)) in flocks.iter_mut().zip(&listeners).enumerate() {
                    flock.look(now, ready_after, |was_late| pulse.count(place, was_late));
                    if sends {
                        flock.send(listener, now);
                    }
                }
                std::thread::park_timeout(LOOK);
            }
        })?;
        Ok(Self { stop, thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.lock().ignore_poison().take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            // A thread that failed sends no more either.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// A canary that finds the way full counts as late.
    #[test]
    fn no_way_in() {
        let pulse = Pulse::new(["a".into()]);
        let (way, _taken) = mpsc::channel(1);
        let mut flock = Flock::default();
        let start = Instant::now();
        (0..4).for_each(|_| flock.send(&way, start));
        let later = start.checked_add(Duration::from_secs(2)).unwrap();
        flock.look(later, Duration::from_secs(1), |was_late| pulse.count(0, was_late));
        assert_eq!(1, pulse.slow().count());
    }

    /// Three late canaries in a row make a listener slow, and one in time ends the row.
    #[test]
    fn three_in_a_row() {
        let pulse = Pulse::new(["a".into(), "b".into()]);
        let (way, mut taken) = mpsc::channel(8);
        let mut flock = Flock::default();
        let start = Instant::now();
        let ready_after = Duration::from_secs(1);
        let at = |ms| start.checked_add(Duration::from_millis(ms)).unwrap();
        let look = |flock: &mut Flock, ms| {
            flock.look(at(ms), ready_after, |was_late| pulse.count(0, was_late));
            pulse.slow().map(str::to_owned).collect::<Vec<_>>()
        };
        for ms in [0, 500, 1_000] {
            flock.send(&way, at(ms));
        }
        assert!(look(&mut flock, 1_000).is_empty());
        assert!(look(&mut flock, 1_600).is_empty());
        assert_eq!(["a"], *look(&mut flock, 2_001));
        // The late canaries are taken at last, and the next one at once.
        while let Ok(canary) = taken.try_recv() {
            canary.send(at(2_001)).unwrap_or_default();
        }
        assert_eq!(["a"], *look(&mut flock, 2_002));
        flock.send(&way, at(2_500));
        taken.try_recv().unwrap().send(at(2_600)).unwrap();
        // The time of the look does not matter.
        assert!(look(&mut flock, 9_000).is_empty());
        assert!(flock.sent.is_empty());
    }
}
