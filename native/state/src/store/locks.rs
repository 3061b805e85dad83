//! Locks on keys, first come first served, each wait bounded.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use authz_base::poison::IgnorePoison as _;
use authz_base::record::RecordKey;
use foldhash::fast::RandomState;

use super::StoreError;
use crate::sync::{self, Mutex, MutexGuard, Thread, now};

/// Most threads that wait.
const MAX_WAITERS: usize = 4096;

/// Held keys. All keys of a transaction are taken at once, so no thread waits while it holds keys.
///
/// A thread may hand its keys on, with an unfinished value, to the next thread that waits for exactly those.
#[derive(Debug)]
pub(crate) struct KeyLocks<B = ()> {
    state: Mutex<LockState<B>>,
}

#[derive(Debug)]
struct LockState<B> {
    held: HashSet<RecordKey, RandomState>,
    queue: VecDeque<Waiter<B>>,
    next: u64,
}

#[derive(Debug)]
struct Waiter<B> {
    number: u64,
    keys: Vec<RecordKey>,
    thread: Thread,
    granted: bool,
    unfinished: Option<B>,
}

impl<B> KeyLocks<B> {
    /// Nothing is held.
    pub(crate) fn new() -> Arc<Self> {
        let state = LockState { held: HashSet::default(), queue: VecDeque::new(), next: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Takes all keys, or none by the deadline. Returns what their last holder left unfinished, too.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        keys: &[RecordKey],
        deadline: Instant,
    ) -> Result<(KeyGuard<B>, Option<B>), StoreError> {
        let mut keys = keys.to_vec();
        keys.sort();
        keys.dedup();
        let mut state = self.lock();
        if !keys.iter().any(|key| state.held.contains(key) || state.is_wanted(key)) {
            state.held.extend(keys.iter().cloned());
            return Ok((KeyGuard { locks: Arc::clone(self), keys }, None));
        }
        if state.queue.len() >= MAX_WAITERS {
            return Err(StoreError::unavailable("too many wait for it"));
        }
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.queue.push_back(Waiter {
            number,
            keys: keys.clone(),
            thread: sync::current_thread(),
            granted: false,
            unfinished: None,
        });
        loop {
            drop(state);
            let left = deadline.saturating_duration_since(now());
            sync::park_timeout(left);
            state = self.lock();
            let at = state.queue.iter().position(|one| one.number == number);
            let granted = at.and_then(|at| state.queue.get(at)).is_some_and(|one| one.granted);
            if !granted && now() < deadline {
                continue;
            }
            let waiter = at.and_then(|at| state.queue.remove(at));
            if granted {
                let unfinished = waiter.and_then(|waiter| waiter.unfinished);
                return Ok((KeyGuard { locks: Arc::clone(self), keys }, unfinished));
            }
            state.grant();
            return Err(StoreError::Slow);
        }
    }

    fn lock(&self) -> MutexGuard<'_, LockState<B>> {
        self.state.lock().ignore_poison()
    }
}

impl<B> LockState<B> {
    fn is_wanted(&self, key: &RecordKey) -> bool {
        self.queue.iter().any(|one| one.keys.contains(key))
    }

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
pub(crate) struct KeyGuard<B = ()> {
    locks: Arc<KeyLocks<B>>,
    keys: Vec<RecordKey>,
}

impl<B> KeyGuard<B> {
    /// Hands the keys and the unfinished work on to the next waiter. Gives both back if no waiter wants exactly these keys, or
    /// if an earlier waiter wants some of them.
    pub(crate) fn hand_on(mut self, unfinished: B) -> Result<(), (Self, B)> {
        let locks = Arc::clone(&self.locks);
        let mut state = locks.lock();
        let wants = |waiter: &&mut Waiter<B>| {
            !waiter.granted && waiter.keys.iter().any(|key| self.keys.contains(key))
        };
        match state.queue.iter_mut().find(wants) {
            Some(waiter) if waiter.keys == self.keys => {
                waiter.granted = true;
                waiter.unfinished = Some(unfinished);
                waiter.thread.unpark();
            }
            _ => {
                drop(state);
                return Err((self, unfinished));
            }
        }
        drop(state);
        // They are held by the next one.
        self.keys.clear();
        Ok(())
    }
}

impl<B> Drop for KeyGuard<B> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut state = self.locks.lock();
        for key in &self.keys {
            state.held.remove(key);
        }
        state.grant();
    }
}
