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
use crate::error::{PemError, TlsError};

const ALPN: &[u8] = b"h2";

/// TLS configuration of new connections.
#[derive(Debug)]
pub(super) struct Tls {
    config: ArcSwap<ServerConfig>,
    is_mutual: bool,
}

impl Tls {
    pub(super) fn new(files: &FastTls) -> Result<Self, TlsError> {
        let is_mutual = files.client_ca.is_some();
        Ok(Self { config: ArcSwap::from_pointee(config(files)?), is_mutual })
    }

    /// Serves new connections with other files. If the files are refused, the listener keeps those that it has. A session from
    /// before the change is not resumed: sessions are kept with the certificate that they began with.
    pub(super) fn renew(&self, files: &FastTls) -> Result<(), TlsError> {
        // INVARIANT (no downgrade): whether callers must show a certificate is the configuration's to say.
        if files.client_ca.is_some() != self.is_mutual {
            return Err(TlsError::ClientAuthority);
        }
        self.config.store(Arc::new(config(files)?));
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }
}

fn config(files: &FastTls) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&files.certificate).map_err(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(files.key.as_bytes()).map_err(TlsError::Key)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Provider)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for root in certificates(authorities).map_err(TlsError::Authorities)? {
                roots.add(root).map_err(TlsError::Authority)?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(TlsError::Verifier)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(PemError::Malformed)?;
    if all.is_empty() { Err(PemError::Empty) } else { Ok(all) }
}

/// Identity in the certificate of a peer, which the handshake has proved: its SPIFFE id, or the digest of a certificate without
/// one.
pub(super) fn identity(chain: &[CertificateDer<'_>]) -> Option<Box<str>> {
    let leaf = chain.first()?;
    let parsed = webpki::EndEntityCert::try_from(leaf).ok();
    let uri = parsed.and_then(|parsed| {
        let mut uris = parsed.valid_uri_names();
        uris.next().filter(|_| uris.next().is_none()).map(Box::from)
    });
    Some(uri.unwrap_or_else(|| hex(&sha256(leaf)).into()))
}
