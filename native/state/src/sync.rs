//! Threads, locks and the clock of everything that a model checker runs: the ticket, the key locks and the embedded store.
//!
//! They are the standard library's. The feature `model` exchanges them for those of [shuttle](https://docs.rs/shuttle), which
//! runs one thread at a time and chooses at each lock, wait and wake which thread goes on; `make model` runs the tests of
//! `model.rs` with it. The feature is for those tests alone: without shuttle's runner its locks panic.

#[cfg(feature = "model")]
pub(crate) use self::modelled::*;
#[cfg(not(feature = "model"))]
pub(crate) use self::native::*;

/// Starts a thread of the operating system, also under a model checker: for threads that wait outside of [`crate::sync`].
pub(crate) fn spawn_system<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

#[cfg(not(feature = "model"))]
mod native {
    use std::io;

    pub(crate) use std::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use std::sync::{
        Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    };
    pub(crate) use std::thread::{JoinHandle, Thread, current as current_thread, park_timeout};

    pub(crate) use crate::time::now;

    /// Starts a thread of that name.
    pub(crate) fn spawn<T: Send + 'static>(
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        crate::sync::spawn_system(name, body)
    }

    /// Returns whether this thread may wait for the disk: threads of the asynchronous runtime may not.
    pub(crate) fn may_block() -> bool {
        tokio::runtime::Handle::try_current().is_err()
    }
}

#[cfg(feature = "model")]
mod modelled {
    use std::cell::Cell;
    use std::io;
    use std::ops::{Deref, DerefMut};
    use std::sync::{Arc, LockResult, PoisonError, TryLockError, TryLockResult};
    use std::time::{Duration, Instant};

    use shuttle::rand::Rng as _;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use shuttle::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
    pub(crate) use shuttle::thread::{Thread, current as current_thread};

    /// A wait for this long or longer never times out, so that a wake that is missing is a deadlock, which shuttle reports.
    /// A shorter wait times out at any moment: shuttle chooses when.
    pub(crate) const FOREVER: Duration = Duration::from_secs(3600);

    thread_local! {
        /// Moves on only when a wait times out. All threads of a model run on one thread of the system.
        static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    pub(crate) fn now() -> Instant {
        CLOCK.get().unwrap_or_else(|| {
            let start = crate::time::now();
            CLOCK.set(Some(start));
            start
        })
    }

    /// Lets other threads run, and then `left` be over.
    fn time_out(left: Duration) {
        let until = now().checked_add(left);
        shuttle::thread::yield_now();
        CLOCK.set(until.max(Some(now())));
    }

    pub(crate) fn park_timeout(left: Duration) {
        if left >= FOREVER {
            shuttle::thread::park();
        } else {
            time_out(left);
        }
    }

    /// In a model any thread may be one of the asynchronous runtime.
    pub(crate) fn may_block() -> bool {
        shuttle::rand::thread_rng().gen_bool(0.5)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let is_finished = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&is_finished);
        let thread = shuttle::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let outcome = body();
            of_thread.store(true, Ordering::SeqCst);
            outcome
        })?;
        Ok(JoinHandle { thread, is_finished })
    }

    /// shuttle's, which does not say whether the thread is finished.
    #[derive(Debug)]
    pub(crate) struct JoinHandle<T> {
        thread: shuttle::thread::JoinHandle<T>,
        is_finished: Arc<AtomicBool>,
    }

    impl<T> JoinHandle<T> {
        pub(crate) fn is_finished(&self) -> bool {
            self.is_finished.load(Ordering::SeqCst)
        }

        pub(crate) fn join(self) -> std::thread::Result<T> {
            self.thread.join()
        }
    }

    /// shuttle's, whose guard does not say what it is of: a wait that times out locks it again.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        guard: shuttle::sync::MutexGuard<'a, T>,
    }

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        fn own<'a>(&'a self, guard: shuttle::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            MutexGuard { mutex: self, guard }
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            let poisoned = |error: PoisonError<_>| PoisonError::new(self.own(error.into_inner()));
            self.0.lock().map(|guard| self.own(guard)).map_err(poisoned)
        }

        pub(crate) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
            self.0.try_lock().map(|guard| self.own(guard)).map_err(|error| match error {
                TryLockError::WouldBlock => TryLockError::WouldBlock,
                TryLockError::Poisoned(error) => {
                    TryLockError::Poisoned(PoisonError::new(self.own(error.into_inner())))
                }
            })
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.guard
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.guard
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) const fn new() -> Self {
            Self(shuttle::sync::Condvar::new())
        }

        pub(crate) fn wait<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
        ) -> LockResult<MutexGuard<'a, T>> {
            let MutexGuard { mutex, guard } = guard;
            let poisoned = |error: PoisonError<_>| PoisonError::new(mutex.own(error.into_inner()));
            self.0.wait(guard).map(|guard| mutex.own(guard)).map_err(poisoned)
        }

        /// As the standard library's; whether it timed out is not told, since a wake may come in the same moment.
        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            left: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, ())> {
            let again =
                |error: PoisonError<MutexGuard<'a, T>>| PoisonError::new((error.into_inner(), ()));
            if left >= FOREVER {
                return self.wait(guard).map(|guard| (guard, ())).map_err(again);
            }
            let mutex = guard.mutex;
            drop(guard);
            time_out(left);
            mutex.lock().map(|guard| (guard, ())).map_err(again)
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
