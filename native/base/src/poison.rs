//! Locks whose holder panicked.

use std::sync::PoisonError;

/// Takes the guard of a lock, also where a thread panicked while it held the lock.
///
/// A panic is caught at the edge of a call, which is then denied. Its locks must go on serving other calls: to refuse them
/// would let one bad call stop the node. So code that holds a lock leaves the value whole before it calls anything that
/// can fail.
pub trait IgnorePoison {
    /// The guard, or the guard and what a wait says beside it.
    type Guard;

    /// The guard.
    fn ignore_poison(self) -> Self::Guard;
}

impl<G> IgnorePoison for Result<G, PoisonError<G>> {
    type Guard = G;

    fn ignore_poison(self) -> G {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "tests")]

    use std::sync::{Mutex, RwLock};

    use super::*;

    #[test]
    fn a_lock_serves_after_its_holder_panicked() {
        let (mutex, lock) = (Mutex::new(1), RwLock::new(1));
        let died = std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let _guards = (mutex.lock(), lock.write());
                panic!("the holder dies");
            });
            holder.join().is_err()
        });
        assert!(died && mutex.is_poisoned() && lock.is_poisoned());
        *mutex.lock().ignore_poison() += 1;
        *lock.write().ignore_poison() += 1;
        assert_eq!((2, 2), (*mutex.lock().ignore_poison(), *lock.read().ignore_poison()));
    }
}
