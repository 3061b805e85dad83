//! What one certificate says, and the rules of X.509-SVID that path validation does not know.

use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};
use x509_cert::time::Time;

use crate::ed25519;

/// A certificate, as far as the profile asks about it.
pub(crate) struct Certificate {
    /// The URIs among its subject alternative names.
    uris: Vec<String>,
    /// It has a subject, or its alternative names are critical.
    named: bool,
    authority: bool,
    pub(crate) path_length: Option<u8>,
    usage: Option<Usage>,
    /// Its extended key usage, if it has one, covers client and server.
    extended_usage: bool,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// The bits of its SubjectPublicKeyInfo.
    pub(crate) public_key: Vec<u8>,
}

struct Usage {
    critical: bool,
    usage: KeyUsage,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// Errors: what is malformed, in our own words.
    pub(crate) fn read(der: &[u8]) -> Result<Self, &'static str> {
        let read = x509_cert::Certificate::from_der(der)
            .map_err(|_| "it is not one X.509 certificate in DER")?;
        let body = read.tbs_certificate;
        let extensions = body.extensions.as_deref().unwrap_or_default();
        if extensions.len() > MAX_EXTENSIONS {
            return Err("it has too many extensions");
        }
        // Two readers could each take another one (RFC 5280 §4.2).
        for (position, extension) in extensions.iter().enumerate() {
            let earlier = extensions.iter().take(position);
            if earlier.into_iter().any(|earlier| earlier.extn_id == extension.extn_id) {
                return Err("it has an extension twice");
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
        let named = !body.subject.0.is_empty() || names.is_some_and(|names| names.critical);
        let (authority, path_length) = match find(extensions, BasicConstraints::OID) {
            None => (false, None),
            Some(extension) => {
                let basic: BasicConstraints = decode(extension)?;
                (basic.ca, basic.path_len_constraint)
            }
        };
        let usage = match find(extensions, KeyUsage::OID) {
            None => None,
            Some(extension) => {
                Some(Usage { critical: extension.critical, usage: decode(extension)? })
            }
        };
        let extended_usage = match find(extensions, ExtendedKeyUsage::OID) {
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
            .ok_or("its key is not a number of whole octets")?
            .to_vec();
        if body.subject_public_key_info.algorithm.oid == ed25519::OID {
            ed25519::check(&public_key)?;
        }
        Ok(Self {
            uris,
            named,
            authority,
            path_length,
            usage,
            extended_usage,
            not_before: seconds(body.validity.not_before),
            not_after: seconds(body.validity.not_after),
            public_key,
        })
    }

    /// The one URI of a leaf that may authenticate (X.509-SVID §2 to §5.2); whether it is a SPIFFE
    /// ID is for the caller to ask.
    ///
    /// Errors: the rule that it breaks.
    pub(crate) fn leaf(&self) -> Result<&str, &'static str> {
        if self.authority {
            return Err("it is a signing certificate, which never authenticates");
        }
        let Some(Usage { critical, usage }) = &self.usage else {
            return Err("it has no key usage");
        };
        if usage.key_cert_sign() || usage.crl_sign() {
            return Err("its key may sign certificates or revocation lists");
        }
        if !critical {
            return Err("its key usage is not critical");
        }
        if !usage.digital_signature() {
            return Err("its key usage lacks `digitalSignature`");
        }
        if !self.extended_usage {
            return Err("its extended key usage lacks client or server authentication");
        }
        if !self.named {
            return Err("it has no subject, and its alternative names are not critical");
        }
        match self.uris.as_slice() {
            [uri] => Ok(uri),
            [] => Err("it has no URI among its alternative names"),
            _ => Err("it has more than one URI among its alternative names"),
        }
    }

    /// The URI of an intermediate signing certificate, if it has one (X.509-SVID §3.2, §4.1, §4.3).
    ///
    /// Errors: the rule that it breaks.
    pub(crate) fn intermediate(&self) -> Result<Option<&str>, &'static str> {
        match &self.usage {
            None => return Err("it has no key usage"),
            Some(usage) if !usage.critical => return Err("its key usage is not critical"),
            Some(_) => {}
        }
        self.signing()
    }

    /// The URI of a signing certificate, if it has one. Key usage may be absent, as in the roots of
    /// older hierarchies (RFC 5280 §6.1.4 (n)).
    ///
    /// Errors: the rule that it breaks.
    pub(crate) fn signing(&self) -> Result<Option<&str>, &'static str> {
        if !self.authority {
            return Err("it is no signing certificate: `cA` is not set");
        }
        if self.usage.as_ref().is_some_and(|usage| !usage.usage.key_cert_sign()) {
            return Err("its key usage lacks `keyCertSign`");
        }
        match self.uris.as_slice() {
            [] => Ok(None),
            [uri] => Ok(Some(uri)),
            _ => Err("it has more than one URI among its alternative names"),
        }
    }
}

fn find(extensions: &[Extension], id: ObjectIdentifier) -> Option<&Extension> {
    extensions.iter().find(|extension| extension.extn_id == id)
}

fn decode<'a, T: x509_cert::der::Decode<'a>>(extension: &'a Extension) -> Result<T, &'static str> {
    T::from_der(extension.extn_value.as_bytes()).map_err(|_| "an extension is malformed")
}

/// Seconds since 1970; X.509 cannot state an earlier time in the reader used.
fn seconds(time: Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// `id-kp-serverAuth` and `id-kp-clientAuth` (RFC 5280 §4.2.1.12).
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const MAX_EXTENSIONS: usize = 64;
