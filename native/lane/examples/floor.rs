//! The fast lane's floor: its transport, answering constant bytes.
//!
//! Runtime, server settings, framing and reading of the message are those of `src/fast.rs`; the handler neither parses,
//! judges nor logs. `bench/` measures the lane against it.
//!
//! ```text
//! floor PORT CHECK_ANSWER EXT_AUTHZ_ANSWER
//! ```
//! The answers are files that hold one encoded message each. It ends with its standard input, and not by a signal: a build
//! that counts what runs writes that down as it ends.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::codegen::{BoxFuture, Bytes, Service};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// The extension's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads, as `limits.fast_threads` of the server.
const WORKERS: usize = 2;
/// As `limits.max_concurrent_streams` of the server.
const MAX_STREAMS: u32 = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: floor PORT CHECK_ANSWER EXT_AUTHZ_ANSWER");
    let port: u16 = next()?.parse()?;
    let check: Arc<[u8]> = std::fs::read(next()?)?.into();
    let ext_authz: Arc<[u8]> = std::fs::read(next()?)?.into();
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(0)
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("floor")
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let incoming = TcpIncoming::from(TcpListener::bind(("127.0.0.1", port)).await?)
            .with_nodelay(Some(true));
        let floor = Floor { check, ext_authz };
        // Spawned, as the lane does: the thread that started it serves nothing.
        tokio::spawn(async move {
            Server::builder()
                .max_concurrent_streams(MAX_STREAMS)
                .http2_keepalive_interval(Some(Duration::from_secs(30)))
                .http2_keepalive_timeout(Some(Duration::from_secs(10)))
                .serve_with_incoming(floor, incoming)
                .await
        })
        .await??;
        Ok(())
    })
}

#[derive(Clone)]
struct Floor {
    check: Arc<[u8]>,
    ext_authz: Arc<[u8]>,
}

impl Service<Request<Body>> for Floor {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let floor = self.clone();
        Box::pin(async move { Ok(floor.answer(request).await) })
    }
}

impl Floor {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let answer = match request.uri().path() {
            "/authz.v1.Authorizer/Check" => self.check,
            "/envoy.service.auth.v3.Authorization/Check" => self.ext_authz,
            _ => return status(HeaderValue::from_static("12")),
        };
        if read(request.into_body()).await.is_none() {
            return status(HeaderValue::from_static("13"));
        }
        reply(&answer)
    }
}

/// The whole body; none where the connection failed.
async fn read(mut body: Body) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Some(bytes)
}

fn reply(message: &[u8]) -> Response<Body> {
    let mut framed = Vec::with_capacity(message.len().saturating_add(5));
    framed.push(0);
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body =
        Full::new(Bytes::from(framed))
            .with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn status(code: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", code);
    response
}
