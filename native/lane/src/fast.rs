//! The fast lane: `Check`, `Report` and Envoy's `Check` over HTTP/2, on the same engine, with no Python on the path.
//!
//! Messages are framed here, not by generated services: what a generated service refuses by itself (a message that is too
//! long, one it cannot decode) would be an RPC error, which a proxy may be told to take for a permit. Here it is a decision.

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
use self::counts::Counts;
use self::share::{Peers, Share};
use self::tls::Tls;
use crate::attached::AttachedServer;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::metrics::Family;
use crate::settings::EngineError;
use crate::threads;

pub use self::settings::{FastListener, FastSettings, FastTls};

/// Reports that wait at once until what they change is durable: each holds a thread. One peer may have half of what the
/// others leave.
const REPORTS: usize = 128;
/// Canaries that wait for the loop which takes connections.
const CANARIES: usize = 16;
/// How long the runtimes may take to let go of what the grace period did not end.
const RUNTIME_GRACE: Duration = Duration::from_millis(200);

/// The running server. It owns its runtimes and its sockets.
#[derive(Debug)]
pub struct FastLane {
    clock: Arc<dyn Clock>,
    addresses: Vec<String>,
    sockets: Vec<OwnSocket>,
    tls: Vec<(Arc<str>, Arc<Tls>)>,
    /// The engine knows it as long as it is here.
    _condition: Arc<Condition>,
    draining: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    canaries: canary::Sender,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    /// One for each listener: a flood on one listener takes no thread of another.
    runtimes: Vec<Runtime>,
    servers: Vec<JoinHandle<()>>,
}

/// How the listeners stand, for readiness and metrics.
#[derive(Debug)]
struct Condition {
    pulse: Arc<Pulse>,
    counts: Vec<Arc<Counts>>,
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
    /// An address cannot be bound, or a certificate is refused; nothing serves then.
    pub fn start(engine: Arc<Engine>, settings: FastSettings) -> Result<Self, EngineError> {
        let mut bound = Vec::new();
        let mut addresses = Vec::new();
        let mut sockets = Vec::new();
        let mut tls = Vec::new();
        for listener in &settings.listeners {
            let files = listener.tls.as_ref().map(Tls::new).transpose();
            let files = files.map_err(|error| refused_tls(&listener.name, &error))?.map(Arc::new);
            let (address, socket) = bind(listener)?;
            if let Bound::Unix(_) = socket
                && let Some(path) = listener.address.strip_prefix("unix:")
            {
                sockets.push(OwnSocket::of(PathBuf::from(path)));
            }
            if let Some(files) = &files {
                tls.push((Arc::from(listener.name.as_str()), Arc::clone(files)));
            }
            addresses.push(address);
            bound.push((socket, files));
        }
        let failed =
            |what: &str, error: std::io::Error| EngineError(format!("fast lane: {what}: {error}"));
        let (stop, stopped) = watch::channel(false);
        let draining = Arc::new(AtomicBool::new(false));
        let reports = Arc::new(Share::new(REPORTS));
        let counts: Vec<_> = settings
            .listeners
            .iter()
            .map(|listener| {
                let (connections, calls) = (settings.connections, settings.concurrency);
                let peers = Arc::new(Peers::new(connections, calls, Arc::clone(&reports)));
                Arc::new(Counts::new(listener.name.as_str().into(), peers))
            })
            .collect();
        let pulse = Arc::new(Pulse::new(counts.iter().map(|counts| Arc::clone(&counts.listener))));
        let condition = Arc::new(Condition { pulse: Arc::clone(&pulse), counts });
        let server: Arc<dyn AttachedServer> = Arc::<Condition>::clone(&condition);
        engine.attach(&server);
        let mut runtimes = Vec::new();
        let mut servers = Vec::new();
        let mut canaries = Vec::new();
        for ((listener, (socket, files)), counts) in
            settings.listeners.iter().zip(bound).zip(&condition.counts)
        {
            let serving = Serving {
                engine: Arc::clone(&engine),
                listener: listener.name.as_str().into(),
                counts: Arc::clone(counts),
                draining: Arc::clone(&draining),
                max_streams: settings.max_streams,
                receive: Duration::from_millis(settings.receive_timeout_ms),
                handshake: Duration::from_millis(settings.handshake_timeout_ms),
                idle: Duration::from_millis(settings.idle_timeout_ms),
            };
            let runtime = threads::start_runtime("authz-fast", settings.workers)
                .map_err(|error| failed("no runtime", error))?;
            let inside = runtime.enter();
            let socket = Socket::new(socket, files)
                .map_err(|error| failed(&format!("listener `{}`", listener.name), error))?;
            drop(inside);
            let (canary, comes) = mpsc::channel(CANARIES);
            canaries.push(canary);
            let listening = accept::listen(Arc::new(serving), socket, stopped.clone(), comes);
            servers.push(runtime.spawn(listening));
            runtimes.push(runtime);
        }
        let ready_after = Duration::from_millis(settings.ready_after_ms);
        let canaries =
            canary::Sender::start(Arc::clone(&engine.clock), pulse, canaries, ready_after)
                .map_err(|error| failed("no thread", error))?;
        let running = Mutex::new(Some(Running { runtimes, servers }));
        let _condition = condition;
        let clock = Arc::clone(&engine.clock);
        Ok(Self { clock, addresses, sockets, tls, _condition, draining, stop, canaries, running })
    }

    /// Serves new connections of a listener with other files; where these are refused, those before go on serving.
    ///
    /// # Errors
    /// The listener has no TLS, or the files are refused.
    pub fn renew_tls(&self, listener: &str, files: &FastTls) -> Result<(), EngineError> {
        let tls = self.tls.iter().find(|(name, _)| **name == *listener);
        let (_, tls) = tls.ok_or_else(|| refused_tls(listener, "it has none"))?;
        tls.renew(files).map_err(|error| refused_tls(listener, &error))
    }

    /// Bound addresses, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Says NOT_SERVING, takes no new connections, waits at most `grace` for running calls, then cuts them. Idempotent.
    pub fn close(&self, grace: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        self.canaries.stop();
        let running = self.running.lock().ignore_poison().take();
        let Some(Running { runtimes, servers }) = running else {
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

fn refused_tls(listener: &str, error: &str) -> EngineError {
    EngineError(format!("fast lane listener `{listener}`: TLS: {error}"))
}

impl Drop for FastLane {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}
