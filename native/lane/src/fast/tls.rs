//! TLS of a listener: its certificate, key and client authorities can be replaced while it serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use authz_kernel::digest::sha256;
use authz_kernel::hex::hex;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::FastTls;

const ALPN: &[u8] = b"h2";

/// What new connections are served with.
#[derive(Debug)]
pub(super) struct Tls {
    config: ArcSwap<ServerConfig>,
    is_mutual: bool,
}

impl Tls {
    pub(super) fn new(files: &FastTls) -> Result<Self, String> {
        let is_mutual = files.client_ca.is_some();
        Ok(Self { config: ArcSwap::from_pointee(config(files)?), is_mutual })
    }

    /// Serves new connections with these. What was before goes on serving where they are refused. No session of before is
    /// resumed: sessions are kept with the certificate that they were begun under.
    pub(super) fn renew(&self, files: &FastTls) -> Result<(), String> {
        // INVARIANT (no downgrade): whether callers must show a certificate is the configuration's to say.
        if files.client_ca.is_some() != self.is_mutual {
            return Err(
                "whether clients need a certificate cannot change while it serves".to_owned()
            );
        }
        self.config.store(Arc::new(config(files)?));
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

fn config(files: &FastTls) -> Result<ServerConfig, String> {
    let chain = certificates(&files.certificate)
        .map_err(|error| format!("the certificate is refused: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(files.key.as_bytes())
        .map_err(|error| format!("the key is refused: {error}"))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let refused = |error: String| format!("the client authorities are refused: {error}");
            let mut store = RootCertStore::empty();
            for root in certificates(roots).map_err(refused)? {
                store.add(root).map_err(|error| refused(error.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| refused(error.to_string()))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("certificate and key are refused: {error}"))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err("there is no certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(error.to_string()),
    }
}

/// Whom a certificate names, which its handshake has proved: its SPIFFE id; of one without, its digest.
pub(super) fn identity(chain: &[CertificateDer<'_>]) -> Option<Box<str>> {
    let leaf = chain.first()?;
    let parsed = webpki::EndEntityCert::try_from(leaf).ok();
    let uri = parsed.and_then(|parsed| {
        let mut uris = parsed.valid_uri_names();
        uris.next().filter(|_| uris.next().is_none()).map(Box::from)
    });
    Some(uri.unwrap_or_else(|| hex(&sha256(leaf)).into()))
}
