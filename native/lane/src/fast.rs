//! The fast lane: `Check`, `Report` and Envoy's `Check` over HTTP/2, on the same engine, with no Python on the path.
//!
//! A connection passes `bind`, `accept` (with `tls`, `frames`, `budget` and `authority`) and `share`, which bounds it. A call on it
//! passes `calls`, `headers`, `message`, the engine and `answer`. `canary` and `counts` watch both.
//!
//! Messages are framed here, not by generated services: a generated service answers a message that is too long, or that it
//! cannot decode, with an RPC error, which a proxy may be configured to take for a permit. Here the answer is a decision.

mod accept;
mod answer;
mod authority;
mod bind;
mod budget;
mod calls;
mod canary;
mod counts;
mod frames;
mod headers;
mod message;
mod settings;
mod share;
mod tls;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use authz_base::poison::IgnorePoison as _;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::accept::{Bound, Socket};
use self::bind::{OwnSocket, bind};
use self::calls::Serving;
use self::canary::Pulse;
use self::counts::ListenerCounts;
use self::share::{PeerTable, Share};
use self::tls::Tls;
use crate::attached::AttachedServer;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::{EngineError, TlsError};
use crate::metrics::Family;
use crate::threads;

pub use self::settings::{FastListener, FastSettings, FastTls};

/// Reports that wait at once until their changes are durable: each holds a thread. One peer may have half of the room that the
/// others leave.
const REPORTS: usize = 128;
/// Canaries that wait for the loop that accepts connections.
const CANARIES: usize = 16;
/// Longest time for the runtimes to end after the grace period.
const RUNTIME_GRACE: Duration = Duration::from_millis(200);

/// The running server. It owns its runtimes and its sockets.
#[derive(Debug)]
pub struct FastLane {
    clock: Arc<dyn Clock>,
    addresses: Vec<String>,
    sockets: Vec<OwnSocket>,
    tls: Vec<(Arc<str>, Arc<Tls>)>,
    /// The engine reads it for as long as it is here.
    _condition: Arc<Condition>,
    draining: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    canaries: canary::Sender,
    running: Mutex<Option<RunningListeners>>,
}

/// Threads that serve.
#[derive(Debug, Default)]
struct RunningListeners {
    /// One for each listener: a flood on one listener takes no thread of another.
    runtimes: Vec<Runtime>,
    servers: Vec<JoinHandle<()>>,
}

impl RunningListeners {
    /// Serves one listener on threads of its own. Returns the way for its canaries.
    fn start_listener(
        &mut self,
        threads: usize,
        serving: Serving,
        socket: Bound,
        tls: Option<Arc<Tls>>,
        stopped: &watch::Receiver<bool>,
    ) -> Result<canary::Canaries, EngineError> {
        let failed = |part: String| |source| EngineError::Start { part, source };
        let runtime = threads::start_runtime("authz-fast", threads)
            .map_err(failed("no runtime".to_owned()))?;
        let inside = runtime.enter();
        let socket =
            Socket::new(socket, tls).map_err(failed(format!("listener `{}`", serving.listener)))?;
        drop(inside);
        let (canary, arrived) = mpsc::channel(CANARIES);
        let listening = accept::listen(Arc::new(serving), socket, stopped.clone(), arrived);
        self.servers.push(runtime.spawn(listening));
        self.runtimes.push(runtime);
        Ok(canary)
    }
}

/// A listener whose socket is bound and whose TLS files are read.
struct BoundListener {
    name: Arc<str>,
    address: String,
    socket: Bound,
    /// File of a unix socket, to be removed at the end.
    file: Option<OwnSocket>,
    tls: Option<Arc<Tls>>,
}

impl BoundListener {
    fn new(listener: &FastListener) -> Result<Self, EngineError> {
        let tls = listener.tls.as_ref().map(Tls::new).transpose();
        let tls = tls.map_err(|source| refused_tls(&listener.name, source))?.map(Arc::new);
        let (address, socket) = bind(listener)?;
        let path = listener.address.strip_prefix("unix:");
        let file = path.filter(|_| matches!(socket, Bound::Unix(_)));
        let file = file.map(|path| OwnSocket::of(PathBuf::from(path)));
        Ok(Self { name: listener.name.as_str().into(), address, socket, file, tls })
    }

    fn tls(&self) -> Option<(Arc<str>, Arc<Tls>)> {
        Some((Arc::clone(&self.name), Arc::clone(self.tls.as_ref()?)))
    }
}

/// Condition of the listeners, for readiness and metrics.
#[derive(Debug)]
struct Condition {
    pulse: Arc<Pulse>,
    counts: Vec<Arc<ListenerCounts>>,
}

impl Condition {
    fn new(settings: &FastSettings) -> Self {
        let reports = Arc::new(Share::new(REPORTS));
        let counts = settings.listeners.iter().map(|listener| {
            let (connections, calls) = (settings.connections, settings.concurrency);
            let peers = Arc::new(PeerTable::new(connections, calls, Arc::clone(&reports)));
            Arc::new(ListenerCounts::new(listener.name.as_str().into(), peers))
        });
        let counts: Vec<Arc<ListenerCounts>> = counts.collect();
        let listeners = counts.iter().map(|counts| Arc::clone(&counts.listener));
        Self { pulse: Arc::new(Pulse::new(listeners)), counts }
    }
}

impl AttachedServer for Condition {
    fn problems(&self) -> Vec<String> {
        let slow = self.pulse.slow();
        slow.map(|name| format!("listener `{name}` does not answer in time")).collect()
    }

    fn families(&self) -> Vec<Family> {
        counts::families(&self.counts)
    }
}

impl FastLane {
    /// Binds every address, then serves.
    ///
    /// # Errors
    /// An address cannot be bound, a certificate is refused, or the system has no thread; nothing serves then.
    pub fn start(engine: Arc<Engine>, settings: FastSettings) -> Result<Self, EngineError> {
        let bound = settings.listeners.iter().map(BoundListener::new);
        let bound: Vec<BoundListener> = bound.collect::<Result<_, _>>()?;
        let addresses = bound.iter().map(|listener| listener.address.clone()).collect();
        let tls = bound.iter().filter_map(BoundListener::tls).collect();
        let condition = Arc::new(Condition::new(&settings));
        let server: Arc<dyn AttachedServer> = Arc::<Condition>::clone(&condition);
        engine.attach(&server);
        let (stop, stopped) = watch::channel(false);
        let draining = Arc::new(AtomicBool::new(false));
        let mut running = RunningListeners::default();
        let mut sockets = Vec::new();
        let mut canaries = Vec::new();
        for (listener, counts) in bound.into_iter().zip(&condition.counts) {
            let serving = Serving::new(&engine, counts, &draining, &settings);
            sockets.extend(listener.file);
            let (socket, tls) = (listener.socket, listener.tls);
            canaries.push(running.start_listener(
                settings.workers.get(),
                serving,
                socket,
                tls,
                &stopped,
            )?);
        }
        let clock = Arc::clone(&engine.clock);
        let pulse = Arc::clone(&condition.pulse);
        let ready_after = Duration::from_millis(settings.ready_after_ms);
        let canaries = canary::Sender::start(Arc::clone(&clock), pulse, canaries, ready_after)
            .map_err(|source| EngineError::Start { part: "no thread".to_owned(), source })?;
        Ok(Self {
            clock,
            addresses,
            sockets,
            tls,
            _condition: condition,
            draining,
            stop,
            canaries,
            running: Mutex::new(Some(running)),
        })
    }

    /// Serves new connections of a listener with other files. If the files are refused, the listener keeps those that it has.
    ///
    /// # Errors
    /// The listener has no TLS, or the files are refused.
    pub fn renew_tls(&self, listener: &str, files: &FastTls) -> Result<(), EngineError> {
        let tls = self.tls.iter().find(|(name, _)| **name == *listener);
        let (_, tls) = tls.ok_or_else(|| refused_tls(listener, TlsError::NoTls))?;
        tls.renew(files).map_err(|error| refused_tls(listener, error))
    }

    /// Bound addresses, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Answers health checks with NOT_SERVING, accepts no new connections, waits at most `grace` for running calls, then ends them.
    /// Idempotent.
    pub fn close(&self, grace: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        self.canaries.stop();
        let running = self.running.lock().ignore_poison().take();
        let Some(RunningListeners { runtimes, servers }) = running else {
            return;
        };
        self.stop.send_replace(true);
        let wait = async {
            let all = async {
                for server in servers {
                    // A server that failed has nothing left to drain.
                    drop(server.await);
                }
            };
            drop(tokio::time::timeout(grace, all).await);
        };
        if let Some(runtime) = runtimes.first() {
            runtime.block_on(wait);
        }
        let begun = self.clock.monotonic();
        for runtime in runtimes {
            runtime.shutdown_timeout(RUNTIME_GRACE.saturating_sub(self.clock.elapsed_since(begun)));
        }
        self.sockets.iter().for_each(OwnSocket::remove);
    }
}

fn refused_tls(listener: &str, source: TlsError) -> EngineError {
    EngineError::Tls { listener: listener.to_owned(), source }
}

impl Drop for FastLane {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}
