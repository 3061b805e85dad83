//! The address of a database: a connection string as libpq takes it, with its TLS settings.

use std::fmt;
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long one server may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long sent bytes may stay unacknowledged.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is silent before it is probed.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where to connect, and how.
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

#[derive(Default)]
struct Files {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Address {
    /// Reads a connection string: `postgresql://…` or `key=value …`. A host that is no socket and not this machine is
    /// reached over TLS, with its name verified, unless `sslmode=disable` says otherwise.
    pub(super) fn parse(dsn: &str) -> Result<Self, String> {
        let mut files = Files::default();
        let rest = if dsn.starts_with("postgres://") || dsn.starts_with("postgresql://") {
            take_from_url(dsn, &mut files)?
        } else {
            take_from_pairs(dsn, &mut files)?
        };
        // What it says of an error never holds a value.
        let mut config = Config::from_str(&rest).map_err(|error| words(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("names no host".to_owned());
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
            Some(mode) => {
                return Err(format!(
                    "sslmode={mode} may go on without TLS; say verify-full or disable"
                ));
            }
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

fn tls(files: &Files) -> Result<MakeRustlsConnect, String> {
    let Some(roots) = &files.roots else {
        return Err("TLS needs sslrootcert, a file with the authorities that vouch for the \
                    server; sslmode=disable does without TLS"
            .to_owned());
    };
    let mut store = RootCertStore::empty();
    for root in certificates(roots)? {
        store.add(root).map_err(|error| format!("`{roots}`: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store);
    let config = match (&files.certificate, &files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let secret = PrivateKeyDer::from_pem_file(Path::new(key))
                .map_err(|error| format!("`{key}`: {error}"))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, secret)
                .map_err(|error| format!("`{certificate}`: {error}"))?
        }
        _ => return Err("sslcert and sslkey go together".to_owned()),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let fail = |error: rustls_pki_types::pem::Error| format!("`{path}`: {error}");
    let all: Vec<_> = CertificateDer::pem_file_iter(Path::new(path))
        .map_err(fail)?
        .collect::<Result<_, _>>()
        .map_err(fail)?;
    if all.is_empty() {
        return Err(format!("`{path}`: holds no certificate"));
    }
    Ok(all)
}

impl Files {
    /// Takes a setting of ours; false: it is not.
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

fn take_from_url(dsn: &str, files: &mut Files) -> Result<String, String> {
    let Some((before, query)) = dsn.split_once('?') else { return Ok(dsn.to_owned()) };
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8().map_err(|error| error.to_string())?;
        if !files.take(key, &value) {
            kept.push(pair);
        }
    }
    Ok(if kept.is_empty() { before.to_owned() } else { format!("{before}?{}", kept.join("&")) })
}

fn take_from_pairs(dsn: &str, files: &mut Files) -> Result<String, String> {
    let mut kept = String::new();
    let mut rest = dsn.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return Err("is neither postgresql://… nor key=value …".to_owned());
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

/// A value, quoted or up to the next space, and what follows it.
fn value(text: &str) -> Result<(String, &str), String> {
    let is_quoted = text.starts_with('\'');
    let text = if is_quoted { text.strip_prefix('\'').unwrap_or(text) } else { text };
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        let before = rest.as_str();
        match rest.next() {
            Some('\\') => value.push(rest.next().ok_or("ends in a backslash")?),
            Some('\'') if is_quoted => return Ok((value, rest.as_str())),
            Some(one) if one.is_whitespace() && !is_quoted => return Ok((value, before)),
            Some(one) => value.push(one),
            None if is_quoted => return Err("has a quote that is not closed".to_owned()),
            None => return Ok((value, "")),
        }
    }
}

/// An error with its causes.
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let one_words = one.to_string();
        if !words.contains(&one_words) {
            words = format!("{words}: {one_words}");
        }
        cause = one.source();
    }
    words
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
            let error = Address::parse(dsn).unwrap_err();
            assert!(error.contains(words) && !error.contains("pa55"), "{dsn}: {error}");
        }
    }
}
