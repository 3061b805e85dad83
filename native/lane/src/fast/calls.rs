//! Answers the calls of one listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use authz_kernel::reason::ReasonCode;
use hyper::body::Incoming;
use hyper::{Request, Response};
use prost::Message;
use tokio::task::block_in_place;

use super::accept::OpenConnection;
use super::answer::{GrpcBody, UNIMPLEMENTED, compressed, error, failed, overloaded, reply};
use super::counts::{ListenerCounts, RefusalCause};
use super::headers::{authorization, grpc_timeout, is_compressed, trace_parent, trace_state};
use super::message::{read_message, within};
use super::settings::FastSettings;
use super::share::{CountedCall, Full};
use crate::engine::Engine;
use crate::proto::grpc::health::v1::health_check_response::ServingStatus;
use crate::proto::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use crate::settings::{Lane as WhichLane, Surface};
use crate::transport::{ApiError, PeerChain, Transport};

const AUTHORIZER: &str = "authz.v1.Authorizer";
const AUTHORIZATION: &str = "envoy.service.auth.v3.Authorization";
const TASKS: &str = "authz.v1.Tasks";
const HEALTH: &str = "grpc.health.v1.Health";
/// `google.rpc.Code`.
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const NOT_FOUND: i32 = 5;
/// Largest health request.
const MAX_HEALTH: usize = 4096;

/// Values that the calls of one listener share.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) engine: Arc<Engine>,
    pub(super) listener: Arc<str>,
    pub(super) counts: Arc<ListenerCounts>,
    pub(super) draining: Arc<AtomicBool>,
    pub(super) max_streams: u32,
    pub(super) receive: Duration,
    pub(super) handshake: Duration,
    pub(super) idle: Duration,
}

impl Serving {
    pub(super) fn new(
        engine: &Arc<Engine>,
        counts: &Arc<ListenerCounts>,
        draining: &Arc<AtomicBool>,
        settings: &FastSettings,
    ) -> Self {
        Self {
            engine: Arc::clone(engine),
            listener: Arc::clone(&counts.listener),
            counts: Arc::clone(counts),
            draining: Arc::clone(draining),
            max_streams: settings.max_streams,
            receive: Duration::from_millis(settings.receive_timeout_ms),
            handshake: Duration::from_millis(settings.handshake_timeout_ms),
            idle: Duration::from_millis(settings.idle_timeout_ms),
        }
    }

    pub(super) async fn answer(
        &self,
        connection: &Arc<OpenConnection>,
        request: Request<Incoming>,
        mut call: CountedCall,
    ) -> Response<GrpcBody> {
        let received = self.engine.clock.monotonic();
        connection.is_active();
        let method = self.method(request.uri().path());
        if let Some(refused) = method.unimplemented() {
            return refused;
        }
        if is_compressed(request.headers()) {
            self.counts.refused(RefusalCause::Compressed);
            return compressed();
        }
        let mut response = match method {
            GrpcMethod::Engine(surface) => {
                self.decide(surface, request, received, connection, &mut call).await
            }
            _ => self.health(request, &mut call).await,
        };
        // It counts until its client has taken the answer.
        response.body_mut().hold(call, connection);
        response
    }

    /// The method at a path.
    pub(super) fn method(&self, path: &str) -> GrpcMethod {
        match path.trim_start_matches('/').split_once('/') {
            Some((AUTHORIZER, "Check")) => GrpcMethod::Engine(Surface::Check),
            Some((AUTHORIZER, "Report")) => GrpcMethod::Engine(Surface::Report),
            Some((AUTHORIZATION, "Check")) => GrpcMethod::Engine(Surface::ExtAuthz),
            Some((HEALTH, "Check")) => GrpcMethod::Health,
            // The system tells here which user a front end is. The Python server does not learn that.
            Some((TASKS, "Start")) if self.engine.takes_prompts(&self.listener) => {
                GrpcMethod::Engine(Surface::TaskStart)
            }
            Some((TASKS, "Extend")) if self.engine.takes_prompts(&self.listener) => {
                GrpcMethod::Engine(Surface::TaskExtend)
            }
            Some((AUTHORIZER, "BatchCheck" | "List" | "Explain")) => GrpcMethod::OtherLane,
            _ => GrpcMethod::Unknown,
        }
    }

    /// Refuses a call that finds no room.
    pub(super) fn refuse_call(&self, method: GrpcMethod, full: Full) -> Response<GrpcBody> {
        if let Some(refused) = method.unimplemented() {
            return refused;
        }
        self.counts.refused(RefusalCause::of_call(full));
        match method {
            GrpcMethod::Engine(surface) => self.refused(surface, ReasonCode::Overloaded),
            _ => overloaded(),
        }
    }

    /// Output of a future, if the client still waits then. Other tasks of the thread, and new octets of its connections, have
    /// their turn first. If the stream or the connection of the call has ended by then, hyper drops the call here, unjudged.
    async fn unless_gone<F: Future>(&self, future: F) -> F::Output {
        let unjudged = UnjudgedCall::new(&self.counts);
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
        connection: &OpenConnection,
        call: &mut CountedCall,
    ) -> Response<GrpcBody> {
        let (parts, body) = request.into_parts();
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let remaining = header("grpc-timeout").and_then(grpc_timeout);
        let authorization = authorization(&parts.headers);
        let trace_state = trace_state(&parts.headers);
        let caller = &connection.caller;
        let chain: Option<Vec<&[u8]>> =
            caller.chain.as_ref().map(|shown| shown.iter().map(AsRef::as_ref).collect());
        // One byte more than the bound is read, so that the engine refuses the message.
        let most = self.engine.max_message_bytes().saturating_add(1);
        // A sender that never ends its message would hold its place for ever.
        let patience = remaining.unwrap_or(self.receive).min(self.receive);
        let message = within(patience, read_message(body, most, call));
        let message = match self.unless_gone(message).await {
            Some(Ok(message)) => message,
            Some(Err(_)) => {
                self.counts.refused(RefusalCause::ReceiveBytes);
                return self.refused(surface, ReasonCode::Overloaded);
            }
            None => {
                self.counts.refused(RefusalCause::ReceiveTimeout);
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

    /// Refuses a call whose message was not read: with a decision if the surface answers decisions, else with an RPC error.
    fn refused(&self, surface: Surface, reason: ReasonCode) -> Response<GrpcBody> {
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

    async fn health(
        &self,
        request: Request<Incoming>,
        call: &mut CountedCall,
    ) -> Response<GrpcBody> {
        let read = read_message(request.into_body(), MAX_HEALTH, call);
        let message = match within(self.receive, read).await {
            Some(Ok(message)) => message,
            Some(Err(_)) => return overloaded(),
            None => {
                self.counts.refused(RefusalCause::ReceiveTimeout);
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

/// Method that a path names.
#[derive(Clone, Copy, Debug)]
pub(super) enum GrpcMethod {
    Engine(Surface),
    Health,
    /// A method that only the Python lane answers.
    OtherLane,
    Unknown,
}

impl GrpcMethod {
    /// Answer to a method that is not served here.
    fn unimplemented(self) -> Option<Response<GrpcBody>> {
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
struct UnjudgedCall<'a> {
    counts: &'a ListenerCounts,
    has_ended: bool,
}

impl<'a> UnjudgedCall<'a> {
    const fn new(counts: &'a ListenerCounts) -> Self {
        Self { counts, has_ended: false }
    }

    /// From here on the call is judged or refused.
    fn end(mut self) {
        self.has_ended = true;
    }
}

impl Drop for UnjudgedCall<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.counts.refused(RefusalCause::Gone);
        }
    }
}

/// True if a surface answers a decision, and never an RPC error.
const fn answers_decision(surface: Surface) -> bool {
    matches!(surface, Surface::Check | Surface::ExtAuthz)
}
