//! Settings of the fast lane.

use serde::Deserialize;

use crate::settings::EngineError;

/// Most threads of all listeners.
const MAX_THREADS: usize = 1_024;

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

pub(super) const fn workers() -> usize {
    2
}

pub(super) const fn concurrency() -> usize {
    2048
}

pub(super) const fn connections() -> usize {
    1024
}

pub(super) const fn max_streams() -> u32 {
    256
}

pub(super) const fn receive_timeout_ms() -> u64 {
    5_000
}

pub(super) const fn handshake_timeout_ms() -> u64 {
    5_000
}

pub(super) const fn idle_timeout_ms() -> u64 {
    300_000
}

pub(super) const fn ready_after_ms() -> u64 {
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
}
