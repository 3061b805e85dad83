//! Locks on keys, first come first served, each wait bounded.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use authz_kernel::task::RecordKey;

use super::StoreError;

/// Most threads that wait.
const MAX_WAITERS: usize = 4096;

/// Who holds which keys. All keys of a transaction are taken at once, so nobody waits while holding.
#[derive(Debug, Default)]
pub(crate) struct KeyLocks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: HashSet<RecordKey>,
    queue: VecDeque<Waiter>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    keys: Vec<RecordKey>,
    thread: Thread,
    granted: bool,
}

impl KeyLocks {
    /// Takes all keys, or none by the deadline.
    pub(crate) fn acquire(
        &self,
        keys: &[RecordKey],
        deadline: Instant,
    ) -> Result<KeyGuard<'_>, StoreError> {
        let mut keys = keys.to_vec();
        keys.sort();
        keys.dedup();
        let mut state = self.lock();
        let wanted_before = |key: &RecordKey| state.queue.iter().any(|one| one.keys.contains(key));
        if !keys.iter().any(|key| state.held.contains(key) || wanted_before(key)) {
            state.held.extend(keys.iter().cloned());
            return Ok(KeyGuard { locks: self, keys });
        }
        if state.queue.len() >= MAX_WAITERS {
            return Err(StoreError::Unavailable("too many wait for it".to_owned()));
        }
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        let thread = std::thread::current();
        state.queue.push_back(Waiter { number, keys: keys.clone(), thread, granted: false });
        loop {
            drop(state);
            let left = deadline.saturating_duration_since(Instant::now());
            std::thread::park_timeout(left);
            state = self.lock();
            let at = state.queue.iter().position(|one| one.number == number);
            let granted = at.and_then(|at| state.queue.get(at)).is_some_and(|one| one.granted);
            if !granted && Instant::now() < deadline {
                continue;
            }
            if let Some(at) = at {
                state.queue.remove(at);
            }
            if granted {
                return Ok(KeyGuard { locks: self, keys });
            }
            state.grant();
            return Err(StoreError::Slow);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives free keys to those who wait, in their order: nobody overtakes another who wants the same key.
    fn grant(&mut self) {
        let mut wanted: HashSet<&RecordKey> = HashSet::new();
        for waiter in self.queue.iter_mut().filter(|waiter| !waiter.granted) {
            let is_free = |key: &RecordKey| !self.held.contains(key) && !wanted.contains(key);
            if waiter.keys.iter().all(is_free) {
                self.held.extend(waiter.keys.iter().cloned());
                waiter.granted = true;
                waiter.thread.unpark();
            } else {
                wanted.extend(&waiter.keys);
            }
        }
    }
}

/// Keys that are held until it is dropped.
#[derive(Debug)]
pub(crate) struct KeyGuard<'a> {
    locks: &'a KeyLocks,
    keys: Vec<RecordKey>,
}

impl Drop for KeyGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.locks.lock();
        for key in &self.keys {
            state.held.remove(key);
        }
        state.grant();
    }
}
