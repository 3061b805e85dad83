//! The fast lane: `Check`, `Report` and Envoy's `Check` over HTTP/2, on the same engine, with no Python on the path.
//!
//! Messages are framed here, not by generated services: what a generated service refuses by itself (a message that is too
//! long, one it cannot decode) would be an RPC error, which a proxy may be told to take for a permit. Here it is a decision.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use authz_kernel::hex::hex;
use authz_kernel::plain::push_number;
use authz_kernel::reason::ReasonCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http_body_util::{BodyExt, Full};
use prost::Message;
use prost::bytes::Buf as _;
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, block_in_place};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Bytes, Service};
use tonic::transport::server::{TcpConnectInfo, TcpIncoming, TlsConnectInfo, UdsConnectInfo};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::engine::{ApiError, Engine, PeerChain, Transport};
use crate::proto::google::rpc::{ErrorInfo, Status};
use crate::proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use crate::settings::{EngineError, Lane as WhichLane, Surface};

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
const UNIMPLEMENTED: i32 = 12;
/// Bytes before a message (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX: usize = 5;
/// Reports that wait at once until what they change is durable: each holds a thread.
const REPORTS: usize = 64;
/// Largest health request.
const MAX_HEALTH: usize = 4096;
/// How long the runtime may take to let go of what the grace period did not end.
const RUNTIME_GRACE: Duration = Duration::from_millis(200);

/// Settings of a [`FastLane`], from JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastSettings {
    /// Where it listens.
    pub listeners: Vec<FastListener>,
    /// Threads.
    #[serde(default = "workers")]
    pub workers: usize,
    /// Requests that are judged or wait for their record at once; one more is OVERLOADED.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
    /// Streams of one connection.
    #[serde(default = "max_streams")]
    pub max_streams: u32,
    /// How long the message of a call may take to come.
    #[serde(default = "receive_timeout_ms")]
    pub receive_timeout_ms: u64,
}

const fn workers() -> usize {
    2
}
const fn concurrency() -> usize {
    1024
}
const fn max_streams() -> u32 {
    256
}
const fn receive_timeout_ms() -> u64 {
    5_000
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
        for (name, value, most) in [
            ("workers", settings.workers, 256),
            ("concurrency", settings.concurrency, 1_000_000),
            ("max_streams", usize::try_from(settings.max_streams).unwrap_or(usize::MAX), 100_000),
            ("listeners", settings.listeners.len(), 64),
            (
                "receive_timeout_ms",
                usize::try_from(settings.receive_timeout_ms).unwrap_or(usize::MAX),
                60_000,
            ),
        ] {
            if !(1..=most).contains(&value) {
                return Err(EngineError(format!(
                    "fast lane settings: `{name}` is {value}; give 1 to {most}"
                )));
            }
        }
        Ok(settings)
    }
}

/// The running server. It owns its runtime and its sockets.
#[derive(Debug)]
pub struct FastLane {
    addresses: Vec<String>,
    sockets: Vec<PathBuf>,
    draining: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    runtime: Runtime,
    servers: Vec<JoinHandle<()>>,
}

enum Bound {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
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
        for listener in &settings.listeners {
            let (address, socket) = bind(listener)?;
            if let Bound::Unix(_) = socket
                && let Some(path) = listener.address.strip_prefix("unix:")
            {
                sockets.push(PathBuf::from(path));
            }
            addresses.push(address);
            bound.push(socket);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.workers)
            .thread_name("authz-fast")
            .enable_all()
            .build()
            .map_err(|error| EngineError(format!("fast lane: no runtime: {error}")))?;
        let (stop, stopped) = watch::channel(false);
        let draining = Arc::new(AtomicBool::new(false));
        let permits = Arc::new(Semaphore::new(settings.concurrency));
        let reports = Arc::new(Semaphore::new(REPORTS));
        let mut servers = Vec::new();
        for (listener, socket) in settings.listeners.iter().zip(bound) {
            let lane = Serving {
                engine: Arc::clone(&engine),
                listener: listener.name.as_str().into(),
                permits: Arc::clone(&permits),
                reports: Arc::clone(&reports),
                draining: Arc::clone(&draining),
                receive: Duration::from_millis(settings.receive_timeout_ms),
            };
            let server = server(listener, settings.max_streams)?;
            let _inside = runtime.enter();
            let lane = Lane(Arc::new(lane));
            servers.push(serve(&runtime, server, socket, lane, stopped.clone()).map_err(
                |error| EngineError(format!("fast lane listener `{}`: {error}", listener.name)),
            )?);
        }
        let running = Mutex::new(Some(Running { runtime, servers }));
        Ok(Self { addresses, sockets, draining, stop, running })
    }

    /// Bound addresses, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Says NOT_SERVING, takes no new connections, waits at most `grace` for running calls, then cuts them. Idempotent.
    pub fn close(&self, grace: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { runtime, servers }) = running else {
            return;
        };
        self.stop.send_replace(true);
        runtime.block_on(async {
            let all = async {
                for server in servers {
                    // A server that failed has nothing left to drain.
                    drop(server.await);
                }
            };
            drop(tokio::time::timeout(grace, all).await);
        });
        runtime.shutdown_timeout(RUNTIME_GRACE);
        for socket in &self.sockets {
            drop(std::fs::remove_file(socket));
        }
    }
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
    let is_socket = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type().is_socket(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if is_socket
        && let Err(error) = std::os::unix::net::UnixStream::connect(path)
        && error.kind() == std::io::ErrorKind::ConnectionRefused
    {
        return std::fs::remove_file(path);
    }
    Ok(())
}

fn server(listener: &FastListener, max_streams: u32) -> Result<Server, EngineError> {
    let mut server = Server::builder()
        .max_concurrent_streams(max_streams)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)));
    if let Some(tls) = &listener.tls {
        let mut config =
            ServerTlsConfig::new().identity(Identity::from_pem(&tls.certificate, &tls.key));
        if let Some(roots) = &tls.client_ca {
            config = config.client_ca_root(Certificate::from_pem(roots));
        }
        server = server.tls_config(config).map_err(|error| {
            EngineError(format!("fast lane listener `{}`: TLS: {error}", listener.name))
        })?;
    }
    Ok(server)
}

fn serve(
    runtime: &Runtime,
    server: Server,
    socket: Bound,
    lane: Lane,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<JoinHandle<()>> {
    let stop = async move {
        // A sender that is gone means the same.
        drop(stopped.wait_for(|stopped| *stopped).await);
    };
    Ok(match socket {
        Bound::Tcp(socket) => {
            // The server's own `tcp_nodelay` does not reach sockets that it did not accept itself; without it each
            // answer waits for the peer's delayed acknowledgement, some 40 ms.
            let incoming =
                TcpIncoming::from(TcpListener::from_std(socket)?).with_nodelay(Some(true));
            runtime.spawn(async move {
                drop(server.serve_with_incoming_shutdown(lane, incoming, stop).await);
            })
        }
        Bound::Unix(socket) => {
            let incoming = UnixListenerStream::new(UnixListener::from_std(socket)?);
            runtime.spawn(async move {
                drop(server.serve_with_incoming_shutdown(lane, incoming, stop).await);
            })
        }
    })
}

/// Answers the calls of one listener. One count of references, since each call takes one, on whichever processor it runs.
#[derive(Clone, Debug)]
struct Lane(Arc<Serving>);

/// What the calls of one listener share.
#[derive(Debug)]
struct Serving {
    engine: Arc<Engine>,
    listener: Arc<str>,
    permits: Arc<Semaphore>,
    reports: Arc<Semaphore>,
    draining: Arc<AtomicBool>,
    receive: Duration,
}

impl Service<Request<Body>> for Lane {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self(lane) = self.clone();
        Box::pin(async move { Ok(lane.answer(request).await) })
    }
}

impl Serving {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let received = Instant::now();
        let surface = match request.uri().path().trim_start_matches('/').split_once('/') {
            Some((AUTHORIZER, "Check")) => Surface::Check,
            Some((AUTHORIZER, "Report")) => Surface::Report,
            Some((AUTHORIZATION, "Check")) => Surface::ExtAuthz,
            Some((HEALTH, "Check")) => return self.health(request).await,
            // A front end is known by its user here, and on no other listener of a unix socket.
            Some((TASKS, "Start")) if self.engine.takes_prompts(&self.listener) => {
                Surface::TaskStart
            }
            Some((TASKS, "Extend")) if self.engine.takes_prompts(&self.listener) => {
                Surface::TaskExtend
            }
            Some((AUTHORIZER, "BatchCheck" | "List" | "Explain")) => {
                return error(
                    UNIMPLEMENTED,
                    "UNIMPLEMENTED",
                    "the fast lane answers only Check and Report; use the other listener",
                );
            }
            _ => return error(UNIMPLEMENTED, "UNIMPLEMENTED", "there is no such method"),
        };
        self.decide(surface, request, received).await
    }

    async fn decide(
        &self,
        surface: Surface,
        request: Request<Body>,
        received: Instant,
    ) -> Response<Body> {
        let Ok(_permit) = self.permits.try_acquire() else {
            return self.refused(surface, ReasonCode::Overloaded);
        };
        let (parts, body) = request.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let remaining = header("grpc-timeout").and_then(grpc_timeout);
        let authorization = authorization(&parts.headers);
        let trace_state = trace_state(&parts.headers);
        let peer = peer(&parts.extensions);
        let shown = parts
            .extensions
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .and_then(TlsConnectInfo::peer_certs);
        let chain: Option<Vec<&[u8]>> =
            shown.as_ref().map(|shown| shown.iter().map(AsRef::as_ref).collect());
        // A message that is too long is read as far as shows it, and then is what it is: no request.
        let most = self.engine.max_message_bytes().saturating_add(1);
        let read = read_message(body, most);
        // A sender that never ends its message would hold its permit for ever, and in the end all of them.
        let patience = remaining.unwrap_or(self.receive).min(self.receive);
        let Some(message) = within(patience, read).await else {
            return self.refused(surface, ReasonCode::Deadline);
        };
        let transport = Transport {
            listener: &self.listener,
            remaining,
            received,
            trace_parent: trace_parent(&parts.headers),
            trace_state: trace_state.as_deref(),
            authorization: authorization.as_deref(),
            peer: peer.as_deref(),
            peer_chain: chain.as_deref().map_or(PeerChain::None, PeerChain::Der),
            peer_uid: parts
                .extensions
                .get::<UdsConnectInfo>()
                .and_then(|info| info.peer_cred.as_ref())
                .map(tokio::net::unix::UCred::uid),
            lane: WhichLane::Fast,
        };
        if answers_decision(surface) {
            return reply(self.engine.answer_async(surface, &message, &transport).await);
        }
        let Ok(_waits) = self.reports.try_acquire() else {
            return self.refused(surface, ReasonCode::Overloaded);
        };
        // It waits until what it changes is durable; others are answered meanwhile.
        block_in_place(|| self.engine.call(surface, &message, &transport))
            .map_or_else(|refused| failed(&refused), reply)
    }

    /// Refuses what was not read: a decision where that is what is answered, else an RPC error.
    fn refused(&self, surface: Surface, reason: ReasonCode) -> Response<Body> {
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

    async fn health(&self, request: Request<Body>) -> Response<Body> {
        let read = read_message(request.into_body(), MAX_HEALTH);
        let Some(message) = within(self.receive, read).await else {
            return error(DEADLINE_EXCEEDED, "DEADLINE", "the request did not come in time");
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
/// request.
async fn read_message(mut body: Body, most: usize) -> Bytes {
    let limit = most.saturating_add(PREFIX);
    // Almost always there is one frame, which is taken as it is.
    let mut first = Bytes::new();
    let mut more: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return garbage();
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
            more.extend_from_slice(data.get(..taken).unwrap_or_default());
        }
        if !is_whole {
            break;
        }
    }
    let mut bytes = if more.is_empty() { first } else { Bytes::from([&*first, &*more].concat()) };
    let Some((prefix, message)) = bytes.split_first_chunk::<PREFIX>() else {
        return garbage();
    };
    let [compressed, length @ ..] = *prefix;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if compressed != 0
        || (message.len() != length && message.len() < most)
        || length < message.len()
    {
        return garbage();
    }
    bytes.advance(PREFIX);
    bytes
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

fn peer(extensions: &tonic::codegen::http::Extensions) -> Option<String> {
    let plain = extensions.get::<TcpConnectInfo>();
    let info = plain.or_else(|| {
        extensions.get::<TlsConnectInfo<TcpConnectInfo>>().map(TlsConnectInfo::get_ref)
    });
    info.and_then(TcpConnectInfo::remote_addr).map(written)
}

/// An address and its port. Written by hand where that is easy: the formatter takes longer.
fn written(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255:65535".len());
    for (before, octet) in ["", ".", ".", "."].into_iter().zip(address.ip().octets()) {
        text.push_str(before);
        push_number(&mut text, octet.into());
    }
    text.push(':');
    push_number(&mut text, address.port().into());
    text
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers
}

/// A message under status OK.
fn reply(message: Vec<u8>) -> Response<Body> {
    // Answers are far shorter than 4 GiB; a length that is not would be a broken frame, which nobody reads as a permit.
    let [a, b, c, d] = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    // Within its own memory: what was just written is still in the processor's cache.
    let mut framed = message;
    drop(framed.splice(..0, [0, a, b, c, d]));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body =
        Full::new(Bytes::from(framed))
            .with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
    let mut response = Response::new(Body::new(body));
    *response.headers_mut() = headers();
    response
}

/// A call was refused that answers no decision.
fn failed(refused: &ApiError) -> Response<Body> {
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
fn error(code: i32, reason: &str, message: &str) -> Response<Body> {
    let info =
        ErrorInfo { reason: reason.to_owned(), domain: DOMAIN.to_owned(), ..ErrorInfo::default() };
    let details = vec![prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
        value: info.encode_to_vec(),
    }];
    let status = Status { code, message: message.to_owned(), details };
    let encoded = STANDARD_NO_PAD.encode(status.encode_to_vec());
    let mut response = Response::new(Body::empty());
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

    /// As the formatter writes it.
    #[test]
    fn addresses() {
        for text in ["127.0.0.1:40000", "255.255.255.255:65535", "0.10.100.9:0", "[::1]:443"] {
            assert_eq!(text, written(text.parse().unwrap()));
        }
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
