//! Errors of the engine that are not answers to a call. Each message names the setting or the record, the problem and a fix.

use std::error::Error;
use std::fmt;
use std::io;

use authz_state::OpenError;
use authz_state::store::StoreOpenError;

/// Reason why an engine, a world, a listener or a record of an administrator is refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// A JSON document does not have its form: a member is unknown, missing or of a wrong type.
    Json {
        /// The document.
        document: String,
        /// Position and cause.
        source: serde_json::Error,
    },
    /// Records cannot be written as JSON.
    Encode(serde_json::Error),
    /// Values that contradict each other, or that the engine cannot work with.
    Invalid(String),
    /// An enforcer is not valid.
    Enforcer {
        /// The enforcer, or the listener that has it.
        place: String,
        /// Its defect.
        source: EnforcerError,
    },
    /// The header credential of a system is not valid.
    StaticSecret {
        /// Id of the system.
        system: String,
        /// Its defect.
        source: StaticSecretError,
    },
    /// The audit file cannot be opened.
    Audit(OpenError),
    /// The store cannot be opened.
    Store(StoreOpenError),
    /// The store cannot be read or changed, or refuses the change.
    Refused(String),
    /// The system has no randomness for the secret of a store in memory.
    Randomness(getrandom::Error),
    /// The socket of a listener cannot be bound.
    Bind {
        /// Name of the listener.
        listener: String,
        /// Its address.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// The TLS files of a listener are refused.
    Tls {
        /// Name of the listener.
        listener: String,
        /// Their defect.
        source: TlsError,
    },
    /// The native listener cannot start.
    Start {
        /// The part that cannot start.
        part: String,
        /// The system's error.
        source: io::Error,
    },
}

impl EngineError {
    pub(crate) fn json(document: impl Into<String>) -> impl FnOnce(serde_json::Error) -> Self {
        let document = document.into();
        move |source| Self::Json { document, source }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { document, source } => write!(f, "{document}: {source}"),
            Self::Encode(source) => source.fmt(f),
            Self::Invalid(message) | Self::Refused(message) => f.write_str(message),
            Self::Enforcer { place, source } => write!(f, "{place}: {source}"),
            Self::StaticSecret { system, source } => {
                write!(f, "credentials: static secret of system `{system}`: {source}")
            }
            Self::Audit(source) => source.fmt(f),
            Self::Store(source) => source.fmt(f),
            Self::Randomness(source) => write!(f, "state: no randomness: {source}"),
            Self::Bind { listener, address, source } => {
                write!(f, "fast lane listener `{listener}`: `{address}`: {source}")
            }
            Self::Tls { listener, source } => {
                write!(f, "fast lane listener `{listener}`: TLS: {source}")
            }
            Self::Start { part, source } => write!(f, "fast lane: {part}: {source}"),
        }
    }
}

impl Error for EngineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Json { source, .. } | Self::Encode(source) => Some(source),
            Self::Invalid(_) | Self::Refused(_) => None,
            Self::Enforcer { source, .. } => Some(source),
            Self::StaticSecret { source, .. } => Some(source),
            Self::Audit(source) => Some(source),
            Self::Store(source) => Some(source),
            Self::Randomness(source) => Some(source),
            Self::Bind { source, .. } | Self::Start { source, .. } => Some(source),
            Self::Tls { source, .. } => Some(source),
        }
    }
}

/// Defect of an enforcer, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnforcerError {
    /// The name is empty, or the one of `insecure_dev` listeners.
    ReservedName,
    /// An item of `asks` names no system.
    System(String),
    /// `asks` has no item.
    NoSystem,
}

impl fmt::Display for EnforcerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedName => f.write_str("its name is empty or reserved; give another"),
            Self::System(item) => {
                write!(f, "`asks: {item}` is no `system:<id>` and not `system:*`")
            }
            Self::NoSystem => {
                f.write_str("`asks` is empty, so every question would be refused; list systems")
            }
        }
    }
}

impl Error for EnforcerError {}

/// Defect of a header credential, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StaticSecretError {
    /// `header` is not a name.
    Name,
    /// `header` has too many dashes.
    Dashes,
    /// `value` is not one line.
    Value,
}

impl fmt::Display for StaticSecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "`header` is no lower-case name of a header",
            Self::Dashes => "`header` has more than 6 `-`",
            Self::Value => "`value` is no line of printable ASCII",
        })
    }
}

impl Error for StaticSecretError {}

/// Defect of the TLS files of a listener.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The listener has no TLS.
    NoTls,
    /// Files with other demands of clients than before.
    ClientAuthority,
    /// The provider of cryptography refuses its own protocol versions.
    Provider(rustls::Error),
    /// The certificates cannot be read.
    Certificate(PemError),
    /// The private key cannot be read.
    Key(rustls::pki_types::pem::Error),
    /// Certificates and key do not belong together, or are not supported.
    Pair(rustls::Error),
    /// The certificates of the client authorities cannot be read.
    Authorities(PemError),
    /// A client authority is not valid.
    Authority(rustls::Error),
    /// Clients cannot be verified with the client authorities.
    Verifier(rustls::server::VerifierBuilderError),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls => f.write_str("it has none"),
            Self::ClientAuthority => {
                f.write_str("whether clients need a certificate cannot change while it serves")
            }
            Self::Provider(source) => source.fmt(f),
            Self::Certificate(source) => write!(f, "the certificate is refused: {source}"),
            Self::Key(source) => write!(f, "the key is refused: {source}"),
            Self::Pair(source) => write!(f, "certificate and key are refused: {source}"),
            Self::Authorities(source) => {
                write!(f, "the client authorities are refused: {source}")
            }
            Self::Authority(source) => write!(f, "the client authorities are refused: {source}"),
            Self::Verifier(source) => write!(f, "the client authorities are refused: {source}"),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NoTls | Self::ClientAuthority => None,
            Self::Provider(source) | Self::Pair(source) | Self::Authority(source) => Some(source),
            Self::Certificate(source) | Self::Authorities(source) => Some(source),
            Self::Key(source) => Some(source),
            Self::Verifier(source) => Some(source),
        }
    }
}

/// Reason why a PEM text has no certificates.
#[derive(Debug)]
#[non_exhaustive]
pub enum PemError {
    /// The text has no certificate.
    Empty,
    /// The text is not PEM.
    Malformed(rustls::pki_types::pem::Error),
}

impl fmt::Display for PemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("there is no certificate in it"),
            Self::Malformed(source) => source.fmt(f),
        }
    }
}

impl Error for PemError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Empty => None,
            Self::Malformed(source) => Some(source),
        }
    }
}
