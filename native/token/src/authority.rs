//! The authorities of a trust domain: the certificates that may sign X.509-SVIDs (X.509-SVID §6).

use rustls_pki_types::{CertificateDer, TrustAnchor};
use x509_cert::der::Encode as _;
use x509_cert::der::asn1::UintRef;

use crate::certificate::Certificate;
use crate::error::CertificateError;
use authz_base::spiffe::SpiffeId;

/// Signing certificate that may end a path.
pub(crate) struct Authority {
    pub(crate) anchor: TrustAnchor<'static>,
    certificate: Certificate,
}

impl Authority {
    /// Reads an authority's certificate.
    pub(crate) fn read(der: Vec<u8>) -> Result<Self, CertificateError> {
        let certificate = Certificate::read(&der)?;
        let uri = certificate.signer_uri()?;
        let is_workload = |uri| SpiffeId::parse(uri).is_ok_and(|id| !id.path().is_empty());
        if uri.is_some_and(is_workload) {
            return Err(CertificateError::AuthorityIsWorkload);
        }
        let der = CertificateDer::from(der);
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(CertificateError::NotVersion3)?
            .to_owned();
        Ok(Self { anchor, certificate })
    }

    /// The bits of its SubjectPublicKeyInfo.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.certificate.public_key
    }

    /// Its validity in seconds since 1970, both ends included.
    pub(crate) fn validity(&self) -> (i64, i64) {
        (self.certificate.not_before, self.certificate.not_after)
    }

    /// Most intermediates that may follow the authority. `None`: any number.
    pub(crate) fn path_length(&self) -> Option<usize> {
        self.certificate.path_length.map(usize::from)
    }
}

/// RSAPublicKey in DER: a SEQUENCE of modulus and exponent (RFC 8017 A.1.1).
pub(crate) fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    [UintRef::new(modulus).ok()?, UintRef::new(exponent).ok()?].to_der().ok()
}
