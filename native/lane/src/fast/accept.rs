//! Accepts connections, and serves each within its bounds: TLS, then HTTP/2, until it ends or is idle.

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;

use super::answer::GrpcBody;
use super::authority::Rewriter;
use super::budget::FrameBudget;
use super::calls::Serving;
use super::canary::Canary;
use super::counts::RefusalCause;
use super::frames::{Frames, HEADER, PREFACE, StreamPart};
use super::share::{CountedConnection, PeerKey};
use super::tls::{Tls, identity};
use crate::clock::Clock;

/// Connection preface and an empty SETTINGS frame: the first octets of every client (RFC 9113 §3.4).
const FIRST: usize = PREFACE + HEADER;
/// Largest list of headers.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that a client may reset before they were looked at; more end the connection.
const MAX_RESETS: usize = 20;
/// Streams that this server reset because the client broke the protocol; more end the connection.
const MAX_ERRORS: usize = 64;
/// Largest part of an answer that waits for its client to take it.
const MAX_SEND: usize = 64 * 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time until an idle connection ends that was told to end.
const CLOSING: Duration = Duration::from_secs(5);
/// Longest time until a connection ends that is open when the server stops.
const LONGEST_DRAIN: Duration = Duration::from_secs(3_600);
/// Pause after the system had no file or memory for a connection.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// A socket that is bound and not yet served.
pub(super) enum Bound {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

/// Source of connections.
pub(super) enum Socket {
    Tcp(TcpListener, Option<Arc<Tls>>),
    Unix(UnixListener),
}

impl Socket {
    pub(super) fn new(bound: Bound, tls: Option<Arc<Tls>>) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?, tls),
            Bound::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<(Stream, PeerKey, ConnectedPeer)> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, address) = listener.accept().await?;
                // Without it each answer waits for the peer's delayed acknowledgement, some 40 ms.
                stream.set_nodelay(true)?;
                let caller = ConnectedPeer {
                    address: Some(address.to_string()),
                    ..ConnectedPeer::default()
                };
                Ok((Stream::Tcp(stream), PeerKey::of(address.ip()), caller))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                let caller = ConnectedPeer { uid: Some(uid), ..ConnectedPeer::default() };
                Ok((Stream::Unix(stream), PeerKey::User(uid), caller))
            }
        }
    }

    fn tls(&self) -> Option<Arc<Tls>> {
        match self {
            Self::Tcp(_, tls) => tls.clone(),
            Self::Unix(_) => None,
        }
    }
}

/// Address and identity of the peer of a connection.
#[derive(Debug, Default)]
pub(super) struct ConnectedPeer {
    pub(super) address: Option<String>,
    pub(super) chain: Option<Vec<CertificateDer<'static>>>,
    pub(super) uid: Option<u32>,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct OpenConnection {
    clock: Arc<dyn Clock>,
    pub(super) caller: ConnectedPeer,
    pub(super) place: Arc<CountedConnection>,
    opened: Instant,
    /// Time of the last begin or end of a call, in milliseconds since the connection was opened.
    active_ms: AtomicU64,
    /// Octets that came, up to [`FIRST`] and one read more.
    received: AtomicUsize,
    /// Calls that began and are not in the budget of frames yet.
    begun_calls: AtomicU32,
    /// The budget of frames is exceeded.
    is_over_budget: AtomicBool,
}

impl OpenConnection {
    fn new(clock: Arc<dyn Clock>, caller: ConnectedPeer, place: Arc<CountedConnection>) -> Self {
        Self {
            opened: clock.monotonic(),
            clock,
            caller,
            place,
            active_ms: AtomicU64::new(0),
            received: AtomicUsize::new(0),
            begun_calls: AtomicU32::new(0),
            is_over_budget: AtomicBool::new(false),
        }
    }

    /// A call begins or ends.
    pub(super) fn is_active(&self) {
        let since = self.clock.elapsed_since(self.opened).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.active_ms.store(since, Ordering::Relaxed);
    }

    fn active(&self) -> Instant {
        let since = Duration::from_millis(self.active_ms.load(Ordering::Relaxed));
        self.opened.checked_add(since).unwrap_or(self.opened)
    }
}

/// Takes connections until it is stopped, then waits for those that are open.
pub(super) async fn listen(
    serving: Arc<Serving>,
    socket: Socket,
    mut stopped: watch::Receiver<bool>,
    mut canaries: mpsc::Receiver<Canary>,
) {
    // Closed once no connection holds its other end.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let connections = stopped.clone();
    {
        let mut stop = pin!(stopped.wait_for(|stopped| *stopped));
        loop {
            let accepted = tokio::select! {
                // A sender that is gone means the same.
                _ = &mut stop => break,
                Some(canary) = canaries.recv() => {
                    let clock = Arc::clone(&serving.engine.clock);
                    drop(tokio::spawn(async move { canary.try_send(clock.monotonic()).ok() }));
                    continue;
                }
                accepted = socket.accept() => accepted,
            };
            let (stream, key, caller) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    serving.counts.refused(RefusalCause::Accept);
                    if is_exhausted(&error) {
                        // The connection stays in the system's queue: without a pause this would be a busy loop.
                        tokio::time::sleep(EXHAUSTED).await;
                    }
                    continue;
                }
            };
            match serving.counts.peers.admit(key) {
                Ok(place) => {
                    let (serving, tls) = (Arc::clone(&serving), socket.tls());
                    let (stopped, open) = (connections.clone(), open.clone());
                    drop(tokio::spawn(async move {
                        serve(serving, stream, tls, caller, place, stopped).await;
                        drop(open);
                    }));
                }
                Err(full) => serving.counts.refused(RefusalCause::of_connection(full)),
            }
        }
    }
    // New clients are refused at once, and do not wait in a queue that nobody looks at.
    drop(socket);
    drop(open);
    let _closed = all_closed.recv().await;
}

/// The process or the system has no more files, or no memory for one.
fn is_exhausted(error: &io::Error) -> bool {
    // These errors concern the one connection that the peer has ended.
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::Interrupted
    )
}

/// Serves one connection to its end.
async fn serve(
    serving: Arc<Serving>,
    stream: Stream,
    tls: Option<Arc<Tls>>,
    mut caller: ConnectedPeer,
    mut place: Arc<CountedConnection>,
    mut stopped: watch::Receiver<bool>,
) {
    let stream = match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) => {
            let Some(stream) = shake_hands(&serving, stream, &tls, &mut stopped).await else {
                return;
            };
            let (_, session) = stream.get_ref();
            caller.chain = session.peer_certificates().map(<[_]>::to_vec);
            if let Some(name) = caller.chain.as_deref().and_then(identity) {
                // From here on the connection counts for its identity, and no longer for its address.
                place = match serving.counts.peers.admit(PeerKey::Identity(name)) {
                    Ok(place) => place,
                    Err(full) => return serving.counts.refused(RefusalCause::of_connection(full)),
                };
            }
            Stream::Tls(Box::new(stream))
        }
        (stream, _) => stream,
    };
    let connection =
        Arc::new(OpenConnection::new(Arc::clone(&serving.engine.clock), caller, place));
    let streams = connection.place.streams(serving.max_streams);
    let wire = Wire::new(stream, Arc::clone(&connection), streams);
    let calls = Calls { serving: Arc::clone(&serving), connection: Arc::clone(&connection) };
    let mut http = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .max_header_list_size(MAX_HEADERS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_ERRORS)
            .max_send_buf_size(MAX_SEND)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(wire), calls)
    );
    let clock = &*serving.engine.clock;
    let mut look = later(connection.opened, serving.handshake);
    let (mut has_begun, mut is_ending) = (false, false);
    loop {
        tokio::select! {
            // Any other end concerns the client alone.
            _ = http.as_mut() => {
                if connection.is_over_budget.load(Ordering::Relaxed) {
                    serving.counts.refused(RefusalCause::Frames);
                }
                return;
            }
            _ = stopped.wait_for(|stopped| *stopped), if !is_ending => {
                is_ending = true;
                // The runtime ends what is left of the connection after its own, shorter grace period.
                look = later(clock.monotonic(), LONGEST_DRAIN);
                http.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(look.saturating_duration_since(clock.monotonic())) => {
                if is_ending {
                    return;
                }
                if !has_begun && connection.received.load(Ordering::Relaxed) < FIRST {
                    return serving.counts.refused(RefusalCause::PrefaceTimeout);
                }
                has_begun = true;
                look = later(connection.active(), serving.idle);
                if look <= clock.monotonic() {
                    serving.counts.refused(RefusalCause::Idle);
                    is_ending = true;
                    look = later(clock.monotonic(), CLOSING);
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Performs the TLS handshake of a connection. `None`: it failed or took too long, or the listener stops.
async fn shake_hands(
    serving: &Serving,
    stream: TcpStream,
    tls: &Tls,
    stopped: &mut watch::Receiver<bool>,
) -> Option<TlsStream<TcpStream>> {
    let handshake = tokio::time::timeout(serving.handshake, tls.acceptor().accept(stream));
    let cause = tokio::select! {
        shaken = handshake => match shaken {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(_)) => RefusalCause::TlsHandshake,
            Err(_) => RefusalCause::TlsTimeout,
        },
        _ = stopped.wait_for(|stopped| *stopped) => return None,
    };
    serving.counts.refused(cause);
    None
}

fn later(from: Instant, by: Duration) -> Instant {
    from.checked_add(by).unwrap_or(from)
}

/// Answers the calls of one connection.
struct Calls {
    serving: Arc<Serving>,
    connection: Arc<OpenConnection>,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<GrpcBody>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (serving, connection) = (Arc::clone(&self.serving), Arc::clone(&self.connection));
        connection.begun_calls.fetch_add(1, Ordering::Relaxed);
        // Now, and not once a thread has time for it: calls that wait for a thread are bounded too.
        match connection.place.begin() {
            Ok(call) => {
                Box::pin(async move { Ok(serving.answer(&connection, request, call).await) })
            }
            Err(full) => {
                connection.is_active();
                let method = serving.method(request.uri().path());
                // A refused call holds no memory until its turn comes.
                drop(request);
                Box::pin(async move { Ok(serving.refuse_call(method, full)) })
            }
        }
    }
}

/// Transport of a connection.
enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    /// True if the peer has closed the connection, even if data that it sent before is not read yet.
    fn is_closed(&self, context: &mut Context<'_>) -> bool {
        let ready = match self {
            Self::Tcp(stream) => pin!(stream.ready(Interest::READABLE)).poll(context),
            Self::Tls(stream) => pin!(stream.get_ref().0.ready(Interest::READABLE)).poll(context),
            Self::Unix(stream) => pin!(stream.ready(Interest::READABLE)).poll(context),
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }
}

/// A connection as HTTP/2 reads it.
struct Wire {
    stream: Stream,
    frames: Frames,
    rewriter: Option<Rewriter>,
    budget: FrameBudget,
    connection: Arc<OpenConnection>,
}

impl Wire {
    fn new(stream: Stream, connection: Arc<OpenConnection>, max_streams: u32) -> Self {
        let rewriter = matches!(stream, Stream::Unix(_)).then(Rewriter::default);
        let budget = FrameBudget::new(max_streams, connection.clock.monotonic());
        Self { stream, frames: Frames::default(), rewriter, budget, connection }
    }

    /// Counts and rewrites octets that came.
    fn follow(&mut self, mut octets: &mut [u8]) -> io::Result<()> {
        let OpenConnection { clock, received, begun_calls, is_over_budget, .. } = &*self.connection;
        if received.load(Ordering::Relaxed) < FIRST {
            received.fetch_add(octets.len(), Ordering::Relaxed);
        }
        while let Some(part) = self.frames.next(&mut octets) {
            match part {
                StreamPart::FrameHeader(frame) => {
                    if self.budget.pay(frame, begun_calls, || clock.monotonic()).is_err() {
                        is_over_budget.store(true, Ordering::Relaxed);
                        return Err(io::Error::other("more frames than the calls need"));
                    }
                    if let Some(rewriter) = &mut self.rewriter {
                        rewriter.begin_frame(frame);
                    }
                }
                StreamPart::Payload(payload) => {
                    if let Some(rewriter) = &mut self.rewriter {
                        rewriter.rewrite(payload);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Calls a method of the transport of a connection.
macro_rules! on {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match $stream {
            Stream::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *self;
        let before = buffer.filled().len();
        let read = on!(&mut wire.stream, poll_read(context, buffer));
        if !matches!(read, Poll::Ready(Ok(()))) {
            return read;
        }
        // More octets can wait only if the buffer is full. HTTP/2 ends all calls of a client that closed its connection, so
        // nobody needs what it sent before.
        if buffer.remaining() == 0 && wire.stream.is_closed(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let came = buffer.filled_mut().get_mut(before..).unwrap_or_default();
        Poll::Ready(wire.follow(came))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on!(&mut self.stream, poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.stream, poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.stream, poll_shutdown(context))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(&mut self.stream, poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
