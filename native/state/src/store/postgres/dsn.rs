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
use serde::Serialize;
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

/// Parts of a connection string, for programs that connect by other means. It holds the password.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct DatabaseAddress {
    /// Host names, addresses or folders of sockets.
    pub hosts: Vec<String>,
    /// Ports: none, one for all hosts, or one for each.
    pub ports: Vec<u16>,
    /// Role of the log-in.
    pub user: Option<String>,
    /// Password of the log-in.
    pub password: Option<String>,
    /// The database. Default: named as the user.
    pub database: Option<String>,
    /// Files of the TLS connection. `None`: no TLS.
    pub tls: Option<DatabaseTls>,
    /// Names of the settings that have no field here, sorted.
    pub others: Vec<String>,
}

impl fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseAddress").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Files of a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DatabaseTls {
    /// Authorities that vouch for the server, PEM.
    pub roots: String,
    /// Own certificate, PEM; with `key`, or not at all.
    pub certificate: Option<String>,
    /// Key of the certificate, PEM.
    pub key: Option<String>,
}

/// Defect of a connection string; holds no password.
#[derive(Debug, Error)]
pub enum DsnError {
    /// Another form.
    #[error("is neither postgresql://… nor key=value …")]
    Form,
    /// An escape without a character.
    #[error("ends in a backslash")]
    Backslash,
    /// An open quote.
    #[error("has a quote that is not closed")]
    Quote,
    /// A value is not UTF-8.
    #[error("has a value that is not UTF-8: {0}")]
    Encoding(#[source] Utf8Error),
    /// A setting is unknown, or its value is not valid.
    #[error("is not valid: {}", text_with_causes(.0))]
    Settings(#[source] tokio_postgres::Error),
    /// No host.
    #[error("names no host")]
    NoHost,
    /// A mode that may go on without TLS.
    #[error("has sslmode={0}, which may go on without TLS; say verify-full or disable")]
    Mode(String),
    /// No authorities for TLS.
    #[error(
        "needs sslrootcert for TLS, a file with the authorities that vouch for the server; \
         sslmode=disable does without TLS"
    )]
    NoRoots,
    /// A certificate without its key, or a key without its certificate.
    #[error("has one of sslcert and sslkey, which go together")]
    Unpaired,
    /// A file cannot be read.
    #[error("names `{path}`, which cannot be used: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("names `{path}`, which holds no certificate")]
    NoCertificate {
        /// The file.
        path: String,
    },
    /// A certificate cannot be used.
    #[error("names `{path}`, which cannot be used: {source}")]
    Certificate {
        /// The file.
        path: String,
        /// Why.
        source: rustls::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot be used: {0}")]
    Tls(#[source] rustls::Error),
}

/// Settings of TLS as they stand in a connection string.
#[derive(Default)]
struct TlsSettings {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

/// A connection string, read and checked.
struct ParsedDsn {
    config: Config,
    tls: Option<DatabaseTls>,
    /// Names of all settings but those of TLS.
    names: Vec<String>,
}

/// Reads a connection string: `postgresql://…` or `key=value …`. A host other than a socket and this machine is reached
/// over TLS, with its name verified, unless the string has `sslmode=disable`.
fn parse(dsn: &str) -> Result<ParsedDsn, DsnError> {
    let mut settings = TlsSettings::default();
    let mut names = Vec::new();
    let rest = if dsn.starts_with("postgres://") || dsn.starts_with("postgresql://") {
        take_from_url(dsn, &mut settings, &mut names)?
    } else {
        take_from_pairs(dsn, &mut settings, &mut names)?
    };
    let config = Config::from_str(&rest).map_err(DsnError::Settings)?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(DsnError::NoHost);
    }
    let is_near = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|one: std::net::IpAddr| one.is_loopback())
        }
    });
    let is_near = is_near && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    Ok(ParsedDsn { config, tls: settings.resolve(is_near)?, names })
}

impl DatabaseAddress {
    /// Reads a connection string by the rules of the store.
    ///
    /// # Errors
    ///
    /// The string is not valid, or needs TLS files that it does not name. The error holds nothing of the password.
    pub fn parse(dsn: &str) -> Result<Self, DsnError> {
        let ParsedDsn { config, tls, mut names } = parse(dsn)?;
        names.retain(|name| !["host", "port", "user", "password", "dbname"].contains(&&**name));
        names.sort();
        let hosts = config.get_hosts().iter().map(|host| match host {
            Host::Unix(folder) => folder.to_string_lossy().into_owned(),
            Host::Tcp(name) => name.clone(),
        });
        let password = config.get_password().map(std::str::from_utf8).transpose();
        Ok(Self {
            hosts: hosts.collect(),
            ports: config.get_ports().to_vec(),
            user: config.get_user().map(str::to_owned),
            password: password.map_err(DsnError::Encoding)?.map(str::to_owned),
            database: config.get_dbname().map(str::to_owned),
            tls,
            others: names,
        })
    }
}

impl Address {
    /// Reads a connection string, and loads the files of its TLS connection.
    pub(super) fn parse(dsn: &str) -> Result<Self, DsnError> {
        let ParsedDsn { mut config, tls, .. } = parse(dsn)?;
        let tls = tls.as_ref().map(connector).transpose()?;
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

fn connector(files: &DatabaseTls) -> Result<MakeRustlsConnect, DsnError> {
    let roots = &files.roots;
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
        (Some(certificate), Some(key)) => {
            let secret = PrivateKeyDer::from_pem_file(Path::new(key))
                .map_err(|source| DsnError::File { path: key.clone(), source })?;
            builder
                .with_client_auth_cert(certificates(certificate)?, secret)
                .map_err(|error| refused(certificate, error))?
        }
        (None, None) => builder.with_no_client_auth(),
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

impl TlsSettings {
    /// Returns the files of the connection; `None` for one without TLS, which is only right to this machine.
    fn resolve(self, is_near: bool) -> Result<Option<DatabaseTls>, DsnError> {
        let Self { mode, roots, certificate, key } = self;
        if certificate.is_some() != key.is_some() {
            return Err(DsnError::Unpaired);
        }
        let has_files = roots.is_some() || certificate.is_some();
        match mode.as_deref() {
            Some("disable") => return Ok(None),
            None if is_near && !has_files => return Ok(None),
            None | Some("require" | "verify-ca" | "verify-full") => {}
            Some(mode) => return Err(DsnError::Mode(mode.to_owned())),
        }
        let roots = roots.ok_or(DsnError::NoRoots)?;
        Ok(Some(DatabaseTls { roots, certificate, key }))
    }

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

fn take_from_url(
    dsn: &str,
    settings: &mut TlsSettings,
    names: &mut Vec<String>,
) -> Result<String, DsnError> {
    let Some((before, query)) = dsn.split_once('?') else { return Ok(dsn.to_owned()) };
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(DsnError::Encoding)?;
        if !settings.take(key, &value) {
            names.push(key.to_owned());
            kept.push(pair);
        }
    }
    Ok(if kept.is_empty() { before.to_owned() } else { format!("{before}?{}", kept.join("&")) })
}

fn take_from_pairs(
    dsn: &str,
    settings: &mut TlsSettings,
    names: &mut Vec<String>,
) -> Result<String, DsnError> {
    let mut kept = String::new();
    let mut rest = dsn.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return Err(DsnError::Form);
        };
        let key = key.trim();
        let (value, after) = value(after.trim_start())?;
        if !settings.take(key, &value) {
            names.push(key.to_owned());
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
    fn parts() {
        let url = "postgresql://bro%40ker:p%2Fw@db.example:5433/ware%20house?sslrootcert=/ca.pem&options=x&connect_timeout=1";
        let pairs = "host=db.example port=5433 user=bro@ker password=p/w dbname='ware house' \
                     sslrootcert=/ca.pem options=x connect_timeout=1";
        let address = DatabaseAddress::parse(url).unwrap();
        assert_eq!(address, DatabaseAddress::parse(pairs).unwrap());
        let tls = DatabaseTls { roots: "/ca.pem".to_owned(), certificate: None, key: None };
        let expected = DatabaseAddress {
            hosts: vec!["db.example".to_owned()],
            ports: vec![5433],
            user: Some("bro@ker".to_owned()),
            password: Some("p/w".to_owned()),
            database: Some("ware house".to_owned()),
            tls: Some(tls),
            others: vec!["connect_timeout".to_owned(), "options".to_owned()],
        };
        assert_eq!(expected, address);
        assert!(!format!("{address:?}").contains("p/w"));
        let socket = DatabaseAddress::parse("postgresql://broker@/warehouse?host=/run/postgresql");
        assert_eq!(vec!["/run/postgresql".to_owned()], socket.unwrap().hosts);
    }

    #[test]
    fn refused() {
        for (dsn, words) in [
            ("host=db.example user=authz", "sslrootcert"),
            ("host=/x sslcert=/a sslkey=/b", "sslrootcert"),
            ("host=/x sslmode=disable sslkey=/b", "go together"),
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
