//! Threads of the native listener. No other module of the engine starts a thread; a call runs on the thread of its caller.

use std::io;
use std::thread::{Builder, JoinHandle};

use tokio::runtime::Runtime;

/// Starts a thread.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}

/// Starts an asynchronous runtime with so many threads.
pub(crate) fn start_runtime(name: &str, threads: usize) -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
}
