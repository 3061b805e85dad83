//! The fast lane: `Check`, `Report` and Envoy's `Check` over HTTP/2, on the same engine, with no Python on the path.
//!
//! Messages are framed here, not by generated services: what a generated service refuses by itself (a message that is too
//! long, one it cannot decode) would be an RPC error, which a proxy may be told to take for a permit. Here it is a decision.

mod accept;
mod authority;
mod budget;
mod canary;
mod counts;
mod frames;
mod share;
mod tls;

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use authz_base::poison::IgnorePoison as _;
use authz_kernel::hex::hex;
use authz_kernel::reason::ReasonCode;
use authz_state::place;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response};
use prost::Message;
use prost::bytes::Buf as _;
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, block_in_place};

use self::accept::{Bound, Connection, Socket};
use self::canary::Pulse;
use self::counts::{Counts, Refusal};
use self::share::{Call, Full, Peers, Share};
use self::tls::Tls;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::metrics::Family;
use crate::proto::google::rpc::{ErrorInfo, Status};
use crate::proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use crate::settings::{EngineError, Lane as WhichLane, Surface};
use crate::status::Part;
use crate::threads;
use crate::transport::{ApiError, PeerChain, Transport};

const AUTHORIZER: &str = "authz.v1.Authorizer";
const AUTHORIZATION: &str = "envoy.service.auth.v3.Authorization";
const TASKS: &str = "authz.v1.Tasks";
const HEALTH: &str = "grpc.health.v1.Health";
/// `domain` of every `ErrorInfo`.
const DOMAIN: &str = "authz.dev";
/// `google.rpc.Code`.
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
/// Bytes before a message (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX: usize = 5;
/// Reports that wait at once until what they change is durable: each holds a thread. One peer may have half of what the
/// others leave.
const REPORTS: usize = 128;
/// Canaries that wait for the loop which takes connections.
const CANARIES: usize = 16;
/// Largest health request.
const MAX_HEALTH: usize = 4096;
/// Most threads of all listeners.
const MAX_THREADS: usize = 1_024;
/// How long the runtimes may take to let go of what the grace period did not end.
const RUNTIME_GRACE: Duration = Duration::from_millis(200);

/// Settings of a [`FastLane`], from JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastSettings {
    /// Where it listens.
    pub listeners: Vec<FastListener>,
    /// Threads of each listener.
    #[serde(default = "workers")]
    pub workers: usize,
    /// Calls of one listener in flight at once, whether their message has come or not; one more is OVERLOADED. One peer may
    /// have half of what the others leave.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Connections of one listener; one more is closed. One peer may have half of what the others leave.
    #[serde(default = "connections")]
    pub connections: usize,
    /// Streams of one connection.
    #[serde(default = "max_streams")]
    pub max_streams: u32,
    /// How long the message of a call may take to come, from the arrival of its headers.
    #[serde(default = "receive_timeout_ms")]
    pub receive_timeout_ms: u64,
    /// How long the TLS handshake of a connection may take, and then the start of HTTP/2.
    #[serde(default = "handshake_timeout_ms")]
    pub handshake_timeout_ms: u64,
    /// A connection on which no call begins or ends for so long is closed.
    #[serde(default = "idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    /// A listener is not ready while its last three canaries waited longer.
    #[serde(default = "ready_after_ms")]
    pub ready_after_ms: u64,
}

const fn workers() -> usize {
    2
}
const fn concurrency() -> usize {
    2048
}
const fn connections() -> usize {
    1024
}
const fn max_streams() -> u32 {
    256
}
const fn receive_timeout_ms() -> u64 {
    5_000
}
const fn handshake_timeout_ms() -> u64 {
    5_000
}
const fn idle_timeout_ms() -> u64 {
    300_000
}
const fn ready_after_ms() -> u64 {
    1_000
}

/// One address of the fast lane.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastListener {
    /// Name of the listener in the engine's world.
    pub name: String,
    /// `host:port`, or `unix:/path`; the socket's folder decides who reaches it.
    pub address: String,
    /// TLS; none: plain.
    #[serde(default)]
    pub tls: Option<FastTls>,
}

/// Certificates, as PEM texts.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastTls {
    /// The certificate chain.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// Roots that clients must be signed by; none: clients need no certificate.
    #[serde(default)]
    pub client_ca: Option<String>,
}

// Written by hand so that no log can hold the key.
impl std::fmt::Debug for FastTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FastTls")
            .field("client_ca", &self.client_ca.is_some())
            .finish_non_exhaustive()
    }
}

impl FastSettings {
    /// Reads settings.
    ///
    /// # Errors
    /// An unknown or missing key, a wrong type, or a limit out of its range.
    pub fn from_json(text: &[u8]) -> Result<Self, EngineError> {
        let settings: Self = serde_json::from_slice(text)
            .map_err(|error| EngineError(format!("fast lane settings: {error}")))?;
        let ms = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        for (name, value, most) in [
            ("workers", settings.workers, 256),
            ("concurrency", settings.concurrency, 1_000_000),
            ("connections", settings.connections, 1_000_000),
            ("max_streams", usize::try_from(settings.max_streams).unwrap_or(usize::MAX), 100_000),
            ("listeners", settings.listeners.len(), 64),
            ("receive_timeout_ms", ms(settings.receive_timeout_ms), 60_000),
            ("handshake_timeout_ms", ms(settings.handshake_timeout_ms), 60_000),
            ("idle_timeout_ms", ms(settings.idle_timeout_ms), 86_400_000),
            ("ready_after_ms", ms(settings.ready_after_ms), 60_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(EngineError(format!(
                    "fast lane settings: `{name}` is {value}; give 1 to {most}"
                )));
            }
        }
        let threads = settings.workers.saturating_mul(settings.listeners.len());
        if threads > MAX_THREADS {
            return Err(EngineError(format!(
                "fast lane settings: {} listeners with {} threads each are {threads} threads; give at most {MAX_THREADS}",
                settings.listeners.len(),
                settings.workers
            )));
        }
        Ok(settings)
    }
}

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

impl Part for Condition {
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
        let part: Arc<dyn Part> = Arc::<Condition>::clone(&condition);
        engine.attach(&part);
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

/// A socket that was bound here.
#[derive(Debug)]
struct OwnSocket {
    path: PathBuf,
    /// Device and file; none where it was gone at once.
    file: Option<(u64, u64)>,
}

impl OwnSocket {
    fn of(path: PathBuf) -> Self {
        Self { file: identity_of(&path), path }
    }

    /// Removes it, unless something else stands there by now.
    fn remove(&self) {
        if self.file.is_some() && identity_of(&self.path) == self.file {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

fn refused_tls(listener: &str, error: &str) -> EngineError {
    EngineError(format!("fast lane listener `{listener}`: TLS: {error}"))
}

impl Drop for FastLane {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

fn bind(listener: &FastListener) -> Result<(String, Bound), EngineError> {
    let failed = |error: std::io::Error| {
        EngineError(format!(
            "fast lane listener `{}`: `{}`: {error}",
            listener.name, listener.address
        ))
    };
    if let Some(path) = listener.address.strip_prefix("unix:") {
        if listener.tls.is_some() {
            return Err(EngineError(format!(
                "fast lane listener `{}`: a unix socket has no TLS; remove `tls`",
                listener.name
            )));
        }
        place::check_folders(Path::new(path)).map_err(failed)?;
        remove_stale(Path::new(path)).map_err(failed)?;
        let socket = StdUnixListener::bind(path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        return Ok((listener.address.clone(), Bound::Unix(socket)));
    }
    let socket = StdTcpListener::bind(&listener.address).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?.to_string();
    Ok((address, Bound::Tcp(socket)))
}

/// Removes a socket that nobody listens on any more; anything else at the path is left alone.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let (is_socket, is_ours) = match std::fs::symlink_metadata(path) {
        Ok(metadata) => (metadata.file_type().is_socket(), place::is_ours(&metadata)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // One of another user is left alone, and then the address is in use.
    if is_socket
        && is_ours
        && let Err(error) = std::os::unix::net::UnixStream::connect(path)
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        return std::fs::remove_file(path);
    }
    Ok(())
}

/// What the calls of one listener share.
#[derive(Debug)]
struct Serving {
    engine: Arc<Engine>,
    listener: Arc<str>,
    counts: Arc<Counts>,
    draining: Arc<AtomicBool>,
    max_streams: u32,
    receive: Duration,
    handshake: Duration,
    idle: Duration,
}

impl Serving {
    async fn answer(
        &self,
        connection: &Arc<Connection>,
        request: Request<Incoming>,
        mut call: Call,
    ) -> Response<Answer> {
        let received = self.engine.clock.monotonic();
        connection.is_active();
        let method = self.method(request.uri().path());
        if let Some(refused) = method.unimplemented() {
            return refused;
        }
        if is_compressed(request.headers()) {
            self.counts.refused(Refusal::Compressed);
            return compressed();
        }
        let mut response = match method {
            Method::Engine(surface) => {
                self.decide(surface, request, received, connection, &mut call).await
            }
            _ => self.health(request, &mut call).await,
        };
        // It counts until its client has taken the answer.
        response.body_mut().hold(call, connection);
        response
    }

    /// The method at a path.
    fn method(&self, path: &str) -> Method {
        match path.trim_start_matches('/').split_once('/') {
            Some((AUTHORIZER, "Check")) => Method::Engine(Surface::Check),
            Some((AUTHORIZER, "Report")) => Method::Engine(Surface::Report),
            Some((AUTHORIZATION, "Check")) => Method::Engine(Surface::ExtAuthz),
            Some((HEALTH, "Check")) => Method::Health,
            // A front end is known by its user here, and on no other listener of a unix socket.
            Some((TASKS, "Start")) if self.engine.takes_prompts(&self.listener) => {
                Method::Engine(Surface::TaskStart)
            }
            Some((TASKS, "Extend")) if self.engine.takes_prompts(&self.listener) => {
                Method::Engine(Surface::TaskExtend)
            }
            Some((AUTHORIZER, "BatchCheck" | "List" | "Explain")) => Method::OtherLane,
            _ => Method::Unknown,
        }
    }

    /// Refuses a call for which there is no room.
    fn refuse_call(&self, method: Method, full: Full) -> Response<Answer> {
        if let Some(refused) = method.unimplemented() {
            return refused;
        }
        self.counts.refused(Refusal::of_call(full));
        match method {
            Method::Engine(surface) => self.refused(surface, ReasonCode::Overloaded),
            _ => overloaded(),
        }
    }

    /// What a future gives, and then a look at whether the client still waits: the other tasks of the thread, and what came
    /// for its connections, have their turn first. Where the stream or the connection of the call has ended by then, hyper drops
    /// the call here, unjudged.
    async fn unless_gone<F: Future>(&self, future: F) -> F::Output {
        let unjudged = Unjudged::new(&self.counts);
        let output = future.await;
        tokio::task::yield_now().await;
        unjudged.end();
        output
    }

    async fn decide(
        &self,
        surface: Surface,
        request: Request<Incoming>,
        received: Instant,
        connection: &Connection,
        call: &mut Call,
    ) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let remaining = header("grpc-timeout").and_then(grpc_timeout);
        let authorization = authorization(&parts.headers);
        let trace_state = trace_state(&parts.headers);
        let caller = &connection.caller;
        let chain: Option<Vec<&[u8]>> =
            caller.chain.as_ref().map(|shown| shown.iter().map(AsRef::as_ref).collect());
        // A message that is too long is read as far as shows it, and then is what it is: no request.
        let most = self.engine.max_message_bytes().saturating_add(1);
        // A sender that never ends its message would hold its place for ever.
        let patience = remaining.unwrap_or(self.receive).min(self.receive);
        let message = within(patience, read_message(body, most, call));
        let message = match self.unless_gone(message).await {
            Some(Ok(message)) => message,
            Some(Err(_)) => {
                self.counts.refused(Refusal::ReceiveBytes);
                return self.refused(surface, ReasonCode::Overloaded);
            }
            None => {
                self.counts.refused(Refusal::ReceiveTimeout);
                return self.refused(surface, ReasonCode::Deadline);
            }
        };
        let transport = Transport {
            listener: &self.listener,
            remaining,
            received,
            trace_parent: trace_parent(&parts.headers),
            trace_state: trace_state.as_deref(),
            authorization: authorization.as_deref(),
            peer: caller.address.as_deref(),
            peer_chain: chain.as_deref().map_or(PeerChain::None, PeerChain::Der),
            peer_uid: caller.uid,
            lane: WhichLane::Fast,
        };
        if answers_decision(surface) {
            return reply(self.engine.answer_async(surface, &message, &transport).await);
        }
        let Ok(_waits) = call.wait() else {
            return self.refused(surface, ReasonCode::Overloaded);
        };
        // It waits until what it changes is durable; others are answered meanwhile.
        block_in_place(|| self.engine.call(surface, &message, &transport))
            .map_or_else(|refused| failed(&refused), reply)
    }

    /// Refuses what was not read: a decision where that is what is answered, else an RPC error.
    fn refused(&self, surface: Surface, reason: ReasonCode) -> Response<Answer> {
        let decision = self.engine.refuse(WhichLane::Fast, surface, reason);
        if answers_decision(surface) {
            return reply(decision);
        }
        let what = match reason {
            ReasonCode::Overloaded => "the server has more requests than it may hold",
            _ => "the request did not come in time",
        };
        failed(&ApiError::of(reason, what))
    }

    async fn health(&self, request: Request<Incoming>, call: &mut Call) -> Response<Answer> {
        let read = read_message(request.into_body(), MAX_HEALTH, call);
        let message = match within(self.receive, read).await {
            Some(Ok(message)) => message,
            Some(Err(_)) => return overloaded(),
            None => {
                self.counts.refused(Refusal::ReceiveTimeout);
                return error(DEADLINE_EXCEEDED, "DEADLINE", "the request did not come in time");
            }
        };
        let Ok(asked) = HealthCheckRequest::decode(message) else {
            return error(INVALID_ARGUMENT, "BAD_INPUT", "the bytes are no HealthCheckRequest");
        };
        if !["", AUTHORIZER, AUTHORIZATION].contains(&asked.service.as_str()) {
            return error(NOT_FOUND, "BAD_INPUT", "there is no such service");
        }
        let serves = !self.draining.load(Ordering::SeqCst) && self.engine.is_ready();
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        reply(HealthCheckResponse { status: status as i32 }.encode_to_vec())
    }
}

/// What a path names.
#[derive(Clone, Copy, Debug)]
enum Method {
    Engine(Surface),
    Health,
    /// A method that only the Python lane answers.
    OtherLane,
    Unknown,
}

impl Method {
    /// The answer to a method that is not answered here.
    fn unimplemented(self) -> Option<Response<Answer>> {
        let what = match self {
            Self::Engine(_) | Self::Health => return None,
            Self::OtherLane => {
                "the fast lane answers only Check and Report; use the other listener"
            }
            Self::Unknown => "there is no such method",
        };
        Some(error(UNIMPLEMENTED, "UNIMPLEMENTED", what))
    }
}

/// A call that is not judged yet. It is counted if it is dropped before its end.
struct Unjudged<'a> {
    counts: &'a Counts,
    has_ended: bool,
}

impl<'a> Unjudged<'a> {
    const fn new(counts: &'a Counts) -> Self {
        Self { counts, has_ended: false }
    }

    /// From here on the call is judged or refused.
    fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for Unjudged<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.counts.refused(Refusal::Gone);
        }
    }
}

/// Whether a surface answers a decision, and never an RPC error.
const fn answers_decision(surface: Surface) -> bool {
    matches!(surface, Surface::Check | Surface::ExtAuthz)
}

/// What a future gives, if it is done in time. Of one that is done at once no timer is made.
async fn within<F: Future>(patience: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        return Some(done);
    }
    tokio::time::timeout(patience, future).await.ok()
}

/// The message of a unary call, cut at `most` bytes. What is no single uncompressed message gives bytes that decode as no
/// request. What has to be put aside is counted for the call's peer.
async fn read_message(mut body: Incoming, most: usize, call: &mut Call) -> Result<Bytes, Full> {
    let limit = most.saturating_add(PREFIX);
    // Almost always there is one frame, which is taken as it is.
    let mut first = Bytes::new();
    let mut more: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Ok(garbage());
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = limit.saturating_sub(first.len()).saturating_sub(more.len());
        let taken = room.min(data.len());
        let is_whole = taken == data.len();
        if first.is_empty() {
            first = data;
            first.truncate(taken);
        } else {
            call.receive(taken)?;
            more.extend_from_slice(data.get(..taken).unwrap_or_default());
        }
        if !is_whole {
            break;
        }
    }
    let mut bytes = if more.is_empty() { first } else { Bytes::from([&*first, &*more].concat()) };
    let Some((prefix, message)) = bytes.split_first_chunk::<PREFIX>() else {
        return Ok(garbage());
    };
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if compressed != 0
        || (message.len() != length && message.len() < most)
        || length < message.len()
    {
        return Ok(garbage());
    }
    bytes.advance(PREFIX);
    Ok(bytes)
}

/// Bytes that are no message of any type: a field of number 0.
const fn garbage() -> Bytes {
    Bytes::from_static(&[0])
}

/// The call's own credential. Two of them are joined and a value that is no text is spoilt, so that neither is believed.
fn authorization(headers: &HeaderMap) -> Option<String> {
    let values: Vec<_> = headers
        .get_all("authorization")
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// W3C `traceparent`: one, or none at all (Trace Context §3.2).
fn trace_parent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// W3C `tracestate`, which may be split over several headers (Trace Context §3.3.1.1).
fn trace_state(headers: &HeaderMap) -> Option<String> {
    let values: Vec<&str> =
        headers.get_all("tracestate").iter().map_while(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// gRPC over HTTP/2, `Timeout`: at most 8 digits and a unit.
fn grpc_timeout(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount.saturating_mul(3_600)),
        "M" => Duration::from_secs(amount.saturating_mul(60)),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers
}

/// The answer to one call. It is dropped once its client has taken it, or has given the call up.
struct Answer {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
    call: Option<(Call, Arc<Connection>)>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Answer {
    /// Counts the call until then.
    fn hold(&mut self, call: Call, connection: &Arc<Connection>) {
        self.call = Some((call, Arc::clone(connection)));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some((_, connection)) = &self.call {
            connection.is_active();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = self.message.take().map(Frame::data);
        let next = message.or_else(|| self.trailers.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.message.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}

/// A message under status OK.
fn reply(message: Vec<u8>) -> Response<Answer> {
    // Answers are far shorter than 4 GiB; a length that is not would be a broken frame, which nobody reads as a permit.
    let [a, b, c, d] = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    // Within its own memory: what was just written is still in the processor's cache.
    let mut framed = message;
    drop(framed.splice(..0, [0, a, b, c, d]));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let (message, trailers) = (Some(Bytes::from(framed)), Some(trailers));
    let mut response = Response::new(Answer { message, trailers, call: None });
    *response.headers_mut() = headers();
    response
}

/// Whether a call announces compressed messages. None is ever unpacked: a few KiB could become many MiB.
fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get_all("grpc-encoding").iter().any(|encoding| encoding != "identity")
}

/// The answer to such a call (gRPC's compression specification), which says what is taken instead.
fn compressed() -> Response<Answer> {
    let what = "compressed messages are not accepted; send them with `grpc-encoding: identity`";
    let mut response = error(UNIMPLEMENTED, "UNIMPLEMENTED", what);
    let accepted = HeaderValue::from_static("identity");
    response.headers_mut().insert("grpc-accept-encoding", accepted);
    response
}

fn overloaded() -> Response<Answer> {
    let what = "the server has more requests than it may hold";
    error(RESOURCE_EXHAUSTED, "OVERLOADED", what)
}

/// A call was refused that answers no decision.
fn failed(refused: &ApiError) -> Response<Answer> {
    error(refused.grpc_code, refused.reason_code.as_str(), &refused.message)
}

/// Percent-encoded (gRPC over HTTP/2, Status-Message).
fn status_message(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    encoded
}

/// An RPC error with its `ErrorInfo`; for what answers no decision.
fn error(code: i32, reason: &str, message: &str) -> Response<Answer> {
    let info =
        ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), ..ErrorInfo::default() };
    let details = vec![prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
        value: info.encode_to_vec(),
    }];
    let status = Status { code, message: message.to_owned(), details };
    let encoded = STANDARD_NO_PAD.encode(status.encode_to_vec());
    let mut response = Response::new(Answer { message: None, trailers: None, call: None });
    *response.headers_mut() = headers();
    for (name, value) in [
        ("grpc-status", code.to_string()),
        ("grpc-message", status_message(message)),
        ("grpc-status-details-bin", encoded),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// All listeners together have a bounded number of threads.
    #[test]
    fn threads_of_all_listeners() {
        let read = |listeners: usize, workers: usize| {
            let listeners = vec![r#"{"name": "a", "address": "127.0.0.1:0"}"#; listeners].join(",");
            let text = format!(r#"{{"listeners": [{listeners}], "workers": {workers}}}"#);
            FastSettings::from_json(text.as_bytes()).map_err(|error| error.to_string())
        };
        assert_eq!(256, read(4, 256).unwrap().workers);
        let refused = read(5, 256).unwrap_err();
        assert!(
            refused.contains("5 listeners with 256 threads each are 1280 threads"),
            "{refused}"
        );
    }

    /// Two credentials are no credential, and nor are bytes.
    #[test]
    fn authorization_is_one_value() {
        let mut headers = HeaderMap::new();
        assert_eq!(None, authorization(&headers));
        headers.append("authorization", HeaderValue::from_static("Bearer a"));
        assert_eq!(Some("Bearer a"), authorization(&headers).as_deref());
        headers.append("authorization", HeaderValue::from_static("Bearer b"));
        assert_eq!(Some("Bearer a,Bearer b"), authorization(&headers).as_deref());
        headers.insert("authorization", HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert!(crate::ask::authorization(&authorization(&headers).unwrap()).is_err());
    }

    /// Two parents are none; several states are one.
    #[test]
    fn trace_context_is_one_parent() {
        let mut headers = HeaderMap::new();
        assert_eq!((None, None), (trace_parent(&headers), trace_state(&headers)));
        headers.append("traceparent", HeaderValue::from_static("00-a"));
        headers.append("tracestate", HeaderValue::from_static("a=1"));
        headers.append("tracestate", HeaderValue::from_static("b=2"));
        assert_eq!(Some("00-a"), trace_parent(&headers));
        assert_eq!(Some("a=1,b=2"), trace_state(&headers).as_deref());
        headers.append("traceparent", HeaderValue::from_static("00-b"));
        assert_eq!(None, trace_parent(&headers));
    }

    /// What is no visible ASCII, and `%`, is encoded.
    #[test]
    fn status_messages() {
        for (text, encoded) in [
            ("`labels` has more than 64 items", "`labels` has more than 64 items"),
            ("100 % é\n", "100 %25 %C3%A9%0A"),
        ] {
            assert_eq!(encoded, status_message(text));
        }
    }

    /// Units of `grpc-timeout`; anything else is no deadline.
    #[test]
    fn timeouts() {
        for (value, expected) in [
            ("200m", Some(Duration::from_millis(200))),
            ("1S", Some(Duration::from_secs(1))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("2H", Some(Duration::from_secs(7_200))),
            ("100000000n", None),
            ("m", None),
            ("", None),
            ("-1S", None),
            ("1é", None),
        ] {
            assert_eq!(expected, grpc_timeout(value), "{value}");
        }
    }
}
