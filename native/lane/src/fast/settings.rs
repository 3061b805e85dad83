//! Settings of the fast lane.

use std::num::NonZeroUsize;

use serde::Deserialize;

use crate::error::EngineError;

/// Settings of a [`crate::FastLane`], from JSON. `authz.config` has their defaults and bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastSettings {
    /// Addresses of the lane.
    pub listeners: Vec<FastListener>,
    /// Threads of each listener. INVARIANT (no panic): a runtime cannot have zero threads.
    pub workers: NonZeroUsize,
    /// Calls of one listener in flight at once, with or without their message. A further call is OVERLOADED. One peer may have
    /// half of the calls that the other peers leave.
    pub concurrency: usize,
    /// Connections of one listener. A further connection is closed. One peer may have half of the connections that the other
    /// peers leave.
    pub connections: usize,
    /// Streams of one connection.
    pub max_streams: u32,
    /// Longest time from the headers of a call to the end of its message.
    pub receive_timeout_ms: u64,
    /// Longest TLS handshake of a connection, and then longest start of HTTP/2.
    pub handshake_timeout_ms: u64,
    /// Time after which a connection is closed on which no call began or ended.
    pub idle_timeout_ms: u64,
    /// Longest wait of a canary in time. A listener is not ready while its last three canaries waited longer.
    pub ready_after_ms: u64,
}

/// One address of the fast lane.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastListener {
    /// Name of the listener in the engine's world.
    pub name: String,
    /// `host:port`, or `unix:/path`; the permissions of the socket's folder decide who reaches it.
    pub address: String,
    /// TLS. Default: none.
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
    /// Authorities of client certificates. Default: clients need no certificate.
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
    /// A member is unknown or missing, or has a wrong type.
    pub fn from_json(text: &[u8]) -> Result<Self, EngineError> {
        serde_json::from_slice(text).map_err(EngineError::json("fast lane settings"))
    }
}
