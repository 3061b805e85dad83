//! One certificate, and the rules of X.509-SVID that path validation does not know.

use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::time::Time;

use crate::ed25519;
use crate::error::CertificateError;

/// Members of a certificate that the profile reads.
pub(crate) struct Certificate {
    /// The URIs among its subject alternative names.
    uris: Vec<String>,
    /// The certificate has a subject, or its alternative names are critical.
    is_named: bool,
    is_authority: bool,
    pub(crate) path_length: Option<u8>,
    usage: Option<Usage>,
    /// The extended key usage covers client and server, or is absent.
    is_for_both_ends: bool,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// The bits of its SubjectPublicKeyInfo.
    pub(crate) public_key: Vec<u8>,
}

struct Usage {
    is_critical: bool,
    usage: KeyUsage,
}

impl Certificate {
    /// Reads a certificate in DER.
    pub(crate) fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate =
            x509_cert::Certificate::from_der(der).map_err(CertificateError::Encoding)?;
        let body = certificate.tbs_certificate;
        let extensions = body.extensions.as_deref().unwrap_or_default();
        if extensions.len() > MAX_EXTENSIONS {
            return Err(CertificateError::TooManyExtensions);
        }
        // Of two extensions of one kind, two readers could each take another (RFC 5280 §4.2).
        for (position, extension) in extensions.iter().enumerate() {
            let earlier = extensions.iter().take(position);
            if earlier.into_iter().any(|earlier| earlier.extn_id == extension.extn_id) {
                return Err(CertificateError::RepeatedExtension);
            }
        }
        let names = find(extensions, SubjectAltName::OID);
        let mut uris = Vec::new();
        if let Some(names) = names {
            let SubjectAltName(names) = decode(names)?;
            for name in names {
                if let GeneralName::UniformResourceIdentifier(uri) = name {
                    uris.push(uri.to_string());
                }
            }
        }
        let is_named = !body.subject.0.is_empty() || names.is_some_and(|names| names.critical);
        let (is_authority, path_length) = match find(extensions, BasicConstraints::OID) {
            None => (false, None),
            Some(extension) => {
                let basic: BasicConstraints = decode(extension)?;
                (basic.ca, basic.path_len_constraint)
            }
        };
        let usage = match find(extensions, KeyUsage::OID) {
            None => None,
            Some(extension) => {
                Some(Usage { is_critical: extension.critical, usage: decode(extension)? })
            }
        };
        let is_for_both_ends = match find(extensions, ExtendedKeyUsage::OID) {
            None => true,
            Some(extension) => {
                let ExtendedKeyUsage(purposes) = decode(extension)?;
                purposes.contains(&CLIENT_AUTH) && purposes.contains(&SERVER_AUTH)
            }
        };
        let public_key = body
            .subject_public_key_info
            .subject_public_key
            .as_bytes()
            .ok_or(CertificateError::PartialOctets)?
            .to_vec();
        if body.subject_public_key_info.algorithm.oid == ed25519::OID {
            ed25519::check_point(&public_key)?;
        }
        Ok(Self {
            uris,
            is_named,
            is_authority,
            path_length,
            usage,
            is_for_both_ends,
            not_before: seconds(body.validity.not_before),
            not_after: seconds(body.validity.not_after),
            public_key,
        })
    }

    /// The URI of a leaf that may authenticate (X.509-SVID §2 to §5.2). The caller checks that it is a
    /// SPIFFE ID.
    pub(crate) fn leaf_uri(&self) -> Result<&str, CertificateError> {
        if self.is_authority {
            return Err(CertificateError::LeafIsAuthority);
        }
        let Some(Usage { is_critical, usage }) = &self.usage else {
            return Err(CertificateError::NoKeyUsage);
        };
        if usage.key_cert_sign() || usage.crl_sign() {
            return Err(CertificateError::LeafMaySign);
        }
        if !is_critical {
            return Err(CertificateError::KeyUsageNotCritical);
        }
        if !usage.digital_signature() {
            return Err(CertificateError::NoDigitalSignature);
        }
        if !self.is_for_both_ends {
            return Err(CertificateError::ExtendedKeyUsage);
        }
        if !self.is_named {
            return Err(CertificateError::NoSubject);
        }
        match self.uris.as_slice() {
            [uri] => Ok(uri),
            [] => Err(CertificateError::NoUri),
            _ => Err(CertificateError::SeveralUris),
        }
    }

    /// The URI of an intermediate signing certificate, if it has one (X.509-SVID §3.2, §4.1, §4.3).
    pub(crate) fn intermediate_uri(&self) -> Result<Option<&str>, CertificateError> {
        match &self.usage {
            None => return Err(CertificateError::NoKeyUsage),
            Some(usage) if !usage.is_critical => {
                return Err(CertificateError::KeyUsageNotCritical);
            }
            Some(_) => {}
        }
        self.signer_uri()
    }

    /// The URI of a signing certificate, if it has one. Key usage may be absent, as in the roots of
    /// older hierarchies (RFC 5280 §6.1.4 (n)).
    pub(crate) fn signer_uri(&self) -> Result<Option<&str>, CertificateError> {
        if !self.is_authority {
            return Err(CertificateError::NotAuthority);
        }
        if self.usage.as_ref().is_some_and(|usage| !usage.usage.key_cert_sign()) {
            return Err(CertificateError::NoCertificateSigning);
        }
        match self.uris.as_slice() {
            [] => Ok(None),
            [uri] => Ok(Some(uri)),
            _ => Err(CertificateError::SeveralUris),
        }
    }
}

fn find(extensions: &[Extension], id: ObjectIdentifier) -> Option<&Extension> {
    extensions.iter().find(|extension| extension.extn_id == id)
}

fn decode<'a, T: x509_cert::der::Decode<'a>>(
    extension: &'a Extension,
) -> Result<T, CertificateError> {
    T::from_der(extension.extn_value.as_bytes()).map_err(CertificateError::Extension)
}

/// Seconds since 1970; X.509 cannot state an earlier time in the reader used.
fn seconds(time: Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// `id-kp-serverAuth` and `id-kp-clientAuth` (RFC 5280 §4.2.1.12).
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const MAX_EXTENSIONS: usize = 64;
