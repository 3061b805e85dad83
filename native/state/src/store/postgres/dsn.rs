//! The address of a database: a connection string in the form of libpq, with its TLS settings.

use std::fmt;
use std::path::Path;
use std::str::{FromStr as _, Utf8Error};
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::error::text_with_causes;

/// Time for one server to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for which sent bytes may stay unacknowledged.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence of a connection before it is probed.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Servers to connect to, with the settings of the connection.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: Option<MakeRustlsConnect>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

/// Defect of a connection string; holds no password.
#[derive(Debug, Error)]
pub(super) enum DsnError {
    #[error("is neither postgresql://… nor key=value …")]
    Form,
    #[error("ends in a backslash")]
    Backslash,
    #[error("has a quote that is not closed")]
    Quote,
    #[error("{0}")]
    Encoding(#[source] Utf8Error),
    #[error("{}", text_with_causes(.0))]
    Settings(#[source] tokio_postgres::Error),
    #[error("names no host")]
    NoHost,
    #[error("sslmode={0} may go on without TLS; say verify-full or disable")]
    Mode(String),
    #[error(
        "TLS needs sslrootcert, a file with the authorities that vouch for the server; \
         sslmode=disable does without TLS"
    )]
    NoRoots,
    #[error("sslcert and sslkey go together")]
    Unpaired,
    #[error("`{path}`: {source}")]
    File { path: String, source: pem::Error },
    #[error("`{path}`: holds no certificate")]
    NoCertificate { path: String },
    #[error("`{path}`: {source}")]
    Certificate { path: String, source: rustls::Error },
    #[error("{0}")]
    Tls(#[source] rustls::Error),
}

#[derive(Default)]
struct TlsFiles {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Address {
    /// Reads a connection string: `postgresql://…` or `key=value …`. A host other than a socket and this machine is reached
    /// over TLS, with its name verified, unless the string has `sslmode=disable`.
    pub(super) fn parse(dsn: &str) -> Result<Self, DsnError> {
        let mut files = TlsFiles::default();
        let rest = if dsn.starts_with("postgres://") || dsn.starts_with("postgresql://") {
            take_from_url(dsn, &mut files)?
        } else {
            take_from_pairs(dsn, &mut files)?
        };
        let mut config = Config::from_str(&rest).map_err(DsnError::Settings)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(DsnError::NoHost);
        }
        let is_near = config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost"
                    || name.parse().is_ok_and(|one: std::net::IpAddr| one.is_loopback())
            }
        });
        let is_near = is_near && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
        let tls = match files.mode.as_deref() {
            Some("disable") => None,
            None if is_near && files.roots.is_none() => None,
            None | Some("require" | "verify-ca" | "verify-full") => Some(tls(&files)?),
            Some(mode) => return Err(DsnError::Mode(mode.to_owned())),
        };
        config
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .tcp_user_timeout(SEND_TIMEOUT)
            .keepalives_idle(KEEPALIVE);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("authz");
        }
        Ok(Self { config, tls })
    }
}

fn tls(files: &TlsFiles) -> Result<MakeRustlsConnect, DsnError> {
    let roots = files.roots.as_ref().ok_or(DsnError::NoRoots)?;
    let refused = |path: &String, source| DsnError::Certificate { path: path.clone(), source };
    let mut store = RootCertStore::empty();
    for root in certificates(roots)? {
        store.add(root).map_err(|error| refused(roots, error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(DsnError::Tls)?
        .with_root_certificates(store);
    let config = match (&files.certificate, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let secret = PrivateKeyDer::from_pem_file(Path::new(key))
                .map_err(|source| DsnError::File { path: key.clone(), source })?;
            builder
                .with_client_auth_cert(certificates(certificate)?, secret)
                .map_err(|error| refused(certificate, error))?
        }
        _ => return Err(DsnError::Unpaired),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, DsnError> {
    let fail = |source| DsnError::File { path: path.to_owned(), source };
    let all: Vec<_> = CertificateDer::pem_file_iter(Path::new(path))
        .map_err(fail)?
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    if all.is_empty() {
        return Err(DsnError::NoCertificate { path: path.to_owned() });
    }
    Ok(all)
}

impl TlsFiles {
    /// Takes a setting of TLS files. Returns false for any other setting.
    fn take(&mut self, key: &str, value: &str) -> bool {
        let place = match key {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.roots,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *place = Some(value.to_owned());
        true
    }
}

fn take_from_url(dsn: &str, files: &mut TlsFiles) -> Result<String, DsnError> {
    let Some((before, query)) = dsn.split_once('?') else { return Ok(dsn.to_owned()) };
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(DsnError::Encoding)?;
        if !files.take(key, &value) {
            kept.push(pair);
        }
    }
    Ok(if kept.is_empty() { before.to_owned() } else { format!("{before}?{}", kept.join("&")) })
}

fn take_from_pairs(dsn: &str, files: &mut TlsFiles) -> Result<String, DsnError> {
    let mut kept = String::new();
    let mut rest = dsn.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return Err(DsnError::Form);
        };
        let key = key.trim();
        let (value, after) = value(after.trim_start())?;
        if !files.take(key, &value) {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            kept.push_str(&format!("{key}='{quoted}' "));
        }
        rest = after.trim_start();
    }
    Ok(kept)
}

/// A value, quoted or up to the next space, and the text after it.
fn value(text: &str) -> Result<(String, &str), DsnError> {
    let is_quoted = text.starts_with('\'');
    let text = if is_quoted { text.strip_prefix('\'').unwrap_or(text) } else { text };
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        let before = rest.as_str();
        match rest.next() {
            Some('\\') => value.push(rest.next().ok_or(DsnError::Backslash)?),
            Some('\'') if is_quoted => return Ok((value, rest.as_str())),
            Some(one) if one.is_whitespace() && !is_quoted => return Ok((value, before)),
            Some(one) => value.push(one),
            None if is_quoted => return Err(DsnError::Quote),
            None => return Ok((value, "")),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn near_hosts_need_no_tls() {
        for dsn in [
            "host=/run/postgresql user=authz",
            "host=127.0.0.1 user=authz",
            "postgresql://authz@localhost/authz",
            "postgresql://authz@db.example/authz?sslmode=disable&connect_timeout=1",
            "host = db.example sslmode = 'disable' password = 'it\\'s \\\\ a secret'",
        ] {
            let address = Address::parse(dsn).unwrap();
            assert!(address.tls.is_none(), "{dsn}");
            assert_eq!(TargetSessionAttrs::ReadWrite, address.config.get_target_session_attrs());
        }
        let quoted = Address::parse("host=/x password='it\\'s \\\\ a secret' user=u").unwrap();
        assert_eq!(Some(b"it's \\ a secret".as_slice()), quoted.config.get_password());
    }

    #[test]
    fn refused() {
        for (dsn, words) in [
            ("host=db.example user=authz", "sslrootcert"),
            ("postgresql://authz:pa55@db.example/authz", "sslrootcert"),
            ("host=127.0.0.1,db.example user=authz", "sslrootcert"),
            ("host=db.example sslmode=require", "sslrootcert"),
            ("host=db.example sslmode=prefer", "without TLS"),
            ("host=db.example sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"),
            ("user=authz", "no host"),
            ("", "no host"),
            ("host='x", "not closed"),
            ("host=x\\", "backslash"),
            ("nonsense", "neither"),
            ("host=/x port=pa55", "port"),
            ("host=/x colour=pa55", "colour"),
        ] {
            let error = Address::parse(dsn).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("pa55"), "{dsn}: {error}");
        }
    }
}
