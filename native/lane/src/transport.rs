//! Facts of a call besides its message, and the error of a call that answers no decision.

use std::fmt;
use std::time::{Duration, Instant};

use authz_kernel::reason::ReasonCode;
use authz_state::TimeSource as _;

use crate::clock::SystemClock;
use crate::settings::Lane;

/// Share of the caller's time that is kept for the answer's way back, as a divisor; and its upper bound.
const MARGIN_SHARE: u32 = 10;
const MARGIN_MOST: Duration = Duration::from_millis(5);

/// Facts of a call besides its message.
#[derive(Clone, Copy, Debug)]
pub struct Transport<'a> {
    /// Name of the listener.
    pub listener: &'a str,
    /// Time until the caller's deadline, from `received`. Default: no deadline.
    pub remaining: Option<Duration>,
    /// Monotonic time of the call's arrival.
    pub received: Instant,
    /// W3C `traceparent` of the call; a request of a proxy may bring one too.
    pub trace_parent: Option<&'a str>,
    /// W3C `tracestate`.
    pub trace_state: Option<&'a str>,
    /// `authorization` metadata of the gRPC call.
    pub authorization: Option<&'a str>,
    /// Address of the peer, for the record.
    pub peer: Option<&'a str>,
    /// Certificates that the peer showed in the TLS handshake.
    pub peer_chain: PeerChain<'a>,
    /// User id of the peer of a unix socket (`SO_PEERCRED`).
    pub peer_uid: Option<u32>,
    /// The server that took the call.
    pub lane: Lane,
}

impl<'a> Transport<'a> {
    /// A call that arrived at a listener now by the system's clock, without further facts.
    #[must_use]
    pub fn by(listener: &'a str) -> Self {
        Self::at(listener, SystemClock.monotonic())
    }

    /// A call that arrived at a listener, without further facts.
    #[must_use]
    pub const fn at(listener: &'a str, received: Instant) -> Self {
        Self {
            listener,
            remaining: None,
            received,
            trace_parent: None,
            trace_state: None,
            authorization: None,
            peer: None,
            peer_chain: PeerChain::None,
            peer_uid: None,
            lane: Lane::Python,
        }
    }

    /// Time at which the answer must be on its way.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let remaining = self.remaining?;
        let margin = remaining.checked_div(MARGIN_SHARE).unwrap_or_default().min(MARGIN_MOST);
        self.received.checked_add(remaining.saturating_sub(margin))
    }

    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }
}

/// Certificates of a TLS peer. The handshake proved only that the peer holds the key of the first one, and that some
/// authority signed it.
#[derive(Clone, Copy, Debug)]
pub enum PeerChain<'a> {
    /// The peer showed no certificate, or the connection has no TLS.
    None,
    /// In DER, the peer's own first.
    Der(&'a [&'a [u8]]),
    /// In PEM.
    Pem {
        /// The peer's own certificate.
        leaf: &'a [u8],
        /// Further certificates; may be empty, or begin with the peer's own again.
        intermediates: &'a [u8],
    },
}

/// Error of a call that answers no decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Reason code.
    pub reason_code: ReasonCode,
    /// `google.rpc.Code`.
    pub grpc_code: i32,
    /// Message for the caller.
    pub message: String,
    /// Stage that refused: `identify`, `resolve`, `locate`, `judge` or `record`; empty if no stage did.
    pub step: &'static str,
}

impl ApiError {
    pub(crate) fn of(reason_code: ReasonCode, message: impl Into<String>) -> Self {
        let grpc_code = match reason_code.row().grpc_code {
            0 => 7,
            code => code,
        };
        Self { reason_code, grpc_code, message: message.into(), step: "" }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason_code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}
