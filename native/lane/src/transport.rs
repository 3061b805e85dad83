//! Facts of a call besides its message, and the error of a call that answers no decision.

use std::fmt;
use std::time::{Duration, Instant};

use authz_kernel::reason::ReasonCode;

use crate::settings::Lane;

/// Of the time that a caller allows, the share kept for the answer's way back, up to a bound.
const MARGIN_SHARE: u32 = 10;
const MARGIN_MOST: Duration = Duration::from_millis(5);

/// What is known of a call besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Transport<'a> {
    /// Name of the listener that it came by.
    pub listener: &'a str,
    /// Time until the caller's deadline, from `received`; none: no deadline.
    pub remaining: Option<Duration>,
    /// When it was received.
    pub received: Instant,
    /// W3C `traceparent` of the call; a request of a proxy may bring one too.
    pub trace_parent: Option<&'a str>,
    /// W3C `tracestate`.
    pub trace_state: Option<&'a str>,
    /// `authorization` metadata of the gRPC call.
    pub authorization: Option<&'a str>,
    /// Address of the peer, for the record.
    pub peer: Option<&'a str>,
    /// What the peer showed in its TLS handshake.
    pub peer_chain: PeerChain<'a>,
    /// The user that the process at the other end of a unix socket runs as, as the kernel says (`SO_PEERCRED`).
    pub peer_uid: Option<u32>,
    /// Which server it came by.
    pub lane: Lane,
}

impl<'a> Transport<'a> {
    /// A call that came by a listener just now, and of which nothing else is known.
    #[must_use]
    pub fn by(listener: &'a str) -> Self {
        Self {
            listener,
            remaining: None,
            received: Instant::now(),
            trace_parent: None,
            trace_state: None,
            authorization: None,
            peer: None,
            peer_chain: PeerChain::None,
            peer_uid: None,
            lane: Lane::Python,
        }
    }

    /// When the answer must be under way.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let remaining = self.remaining?;
        let margin = remaining.checked_div(MARGIN_SHARE).unwrap_or_default().min(MARGIN_MOST);
        self.received.checked_add(remaining.saturating_sub(margin))
    }

    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }
}

/// The certificates of a TLS peer, of which its transport has proved no more than that the peer holds the first one's key
/// and that some authority signed it.
#[derive(Clone, Copy, Debug)]
pub enum PeerChain<'a> {
    /// It showed none, or there is no TLS.
    None,
    /// In DER, its own first.
    Der(&'a [&'a [u8]]),
    /// In PEM.
    Pem {
        /// Its own.
        leaf: &'a [u8],
        /// What it sent along; may be empty, or begin with its own again.
        intermediates: &'a [u8],
    },
}

/// A call that answers no decision was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Why.
    pub reason_code: ReasonCode,
    /// `google.rpc.Code`.
    pub grpc_code: i32,
    /// What happened, fit for the caller.
    pub message: String,
    /// The step of the decision that refused: `identify`, `resolve`, `locate`, `judge` or `record`; empty where it was none.
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
