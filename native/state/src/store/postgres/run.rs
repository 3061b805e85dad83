//! Waits, from any thread, for futures on the store's own runtime.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Instant;

use tokio::runtime::Handle;

use crate::store::StoreError;
use crate::time::now;

/// Runs futures on the store's own runtime.
#[derive(Clone, Debug)]
pub(super) struct Runner(pub(super) Handle);

impl Runner {
    /// Runs a future, and blocks this thread until it has ended or the deadline passes; then it is dropped.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        deadline: Instant,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = sync_channel(1);
        let task = self.0.spawn(async move { drop(sender.send(future.await)) });
        let left = deadline.saturating_duration_since(now());
        receiver.recv_timeout(left).map_err(|error| {
            task.abort();
            match error {
                RecvTimeoutError::Timeout => StoreError::Slow,
                RecvTimeoutError::Disconnected => StoreError::unavailable("it is closed"),
            }
        })
    }

    /// Runs a future without waiting for it.
    pub(super) fn spawn(self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.spawn(future));
    }
}
