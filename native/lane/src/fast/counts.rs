//! Metrics of the listeners of the fast lane: refusals, connections and calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::share::{Full, PeerTable};
use crate::metrics::{Family, FamilyKind, Sample};

/// Cause for which a connection was closed, or a call refused, before it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalCause {
    /// All peers together had as many connections as the listener may have.
    ListenerConnections,
    /// The peer had as many connections as it may have.
    PeerConnections,
    /// A connection could not be taken from the system.
    Accept,
    /// The TLS handshake failed.
    TlsHandshake,
    /// The TLS handshake took too long.
    TlsTimeout,
    /// HTTP/2 began too late.
    PrefaceTimeout,
    /// No call began or ended on the connection for too long.
    Idle,
    /// All peers together had as many calls as the listener may have.
    ListenerCalls,
    /// The peer had as many calls as it may have.
    PeerCalls,
    /// The message of a call came too late.
    ReceiveTimeout,
    /// Unfinished messages took as much memory as they may.
    ReceiveBytes,
    /// The call announced compressed messages.
    Compressed,
    /// The connection sent more frames than its calls need.
    Frames,
    /// The connection or the stream of a call ended before the call was judged.
    Gone,
}

impl RefusalCause {
    /// All, in order.
    const ALL: [Self; 14] = [
        Self::ListenerConnections,
        Self::PeerConnections,
        Self::Accept,
        Self::TlsHandshake,
        Self::TlsTimeout,
        Self::PrefaceTimeout,
        Self::Idle,
        Self::ListenerCalls,
        Self::PeerCalls,
        Self::ReceiveTimeout,
        Self::ReceiveBytes,
        Self::Compressed,
        Self::Frames,
        Self::Gone,
    ];

    /// Value of the label `reason`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::ListenerConnections => "listener_connections",
            Self::PeerConnections => "peer_connections",
            Self::Accept => "accept",
            Self::TlsHandshake => "tls_handshake",
            Self::TlsTimeout => "tls_timeout",
            Self::PrefaceTimeout => "preface_timeout",
            Self::Idle => "idle",
            Self::ListenerCalls => "listener_calls",
            Self::PeerCalls => "peer_calls",
            Self::ReceiveTimeout => "receive_timeout",
            Self::ReceiveBytes => "receive_bytes",
            Self::Compressed => "compressed",
            Self::Frames => "frames",
            Self::Gone => "gone",
        }
    }

    pub(super) const fn of_connection(full: Full) -> Self {
        match full {
            Full::Listener => Self::ListenerConnections,
            Full::Peer => Self::PeerConnections,
        }
    }

    pub(super) const fn of_call(full: Full) -> Self {
        match full {
            Full::Listener => Self::ListenerCalls,
            Full::Peer => Self::PeerCalls,
        }
    }
}

/// Counters of one listener.
#[derive(Debug)]
pub(super) struct ListenerCounts {
    pub(super) listener: Arc<str>,
    pub(super) peers: Arc<PeerTable>,
    refused: [AtomicU64; RefusalCause::ALL.len()],
}

impl ListenerCounts {
    pub(super) fn new(listener: Arc<str>, peers: Arc<PeerTable>) -> Self {
        Self { listener, peers, refused: Default::default() }
    }

    pub(super) fn refused(&self, why: RefusalCause) {
        if let Some(count) = self.refused.get(why as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The metric families of all listeners.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
pub(super) fn families(listeners: &[Arc<ListenerCounts>]) -> Vec<Family> {
    let of = |counts: &ListenerCounts| ("listener", counts.listener.as_ref().to_owned());
    let gauge =
        |name: &'static str, help: &'static str, value: fn(&ListenerCounts) -> usize| Family {
            name,
            help,
            kind: FamilyKind::Gauge,
            samples: listeners
                .iter()
                .map(|counts| Sample {
                    name: name.to_owned(),
                    labels: vec![of(counts)],
                    value: value(counts) as f64,
                })
                .collect(),
        };
    let mut refused = Vec::new();
    for counts in listeners {
        for (why, count) in RefusalCause::ALL.into_iter().zip(&counts.refused) {
            refused.push(Sample {
                name: "authz_fast_refused_total".to_owned(),
                labels: vec![of(counts), ("reason", why.as_str().to_owned())],
                value: count.load(Ordering::Relaxed) as f64,
            });
        }
    }
    vec![
        Family {
            name: "authz_fast_refused",
            help: "Connections that the fast lane closed, and calls that it refused or dropped before it judged them.",
            kind: FamilyKind::Counter,
            samples: refused,
        },
        gauge("authz_fast_connections", "Open connections of the fast lane.", |counts| {
            counts.peers.connections.used()
        }),
        gauge("authz_fast_calls", "Calls in flight on the fast lane.", |counts| {
            counts.peers.calls.used()
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each reason counts in its own place.
    #[test]
    fn reasons_are_in_order() {
        for (place, why) in RefusalCause::ALL.into_iter().enumerate() {
            assert_eq!(place, why as usize, "{why:?}");
        }
    }
}
