//! Defects of keys, certificates and trust sources.
//!
//! A [`TrustError`] names the setting; below it stand the defect of a key set ([`KeySetError`]), of one of its keys
//! ([`KeyError`]), and of that key's certificate ([`CertificateError`]). A refused call has a [`crate::Refusal`] instead.
//! The texts hold no byte of a key or certificate.

use std::fmt;

use thiserror::Error;

use crate::json::JsonTextError;
use authz_base::spiffe::SpiffeIdError;

/// Defect of a [`crate::TrustSpec`], for which it is refused.
#[derive(Debug, Error)]
#[error("{place}: {defect}; {fix}")]
pub struct TrustError {
    /// Path of the setting, with the source of its keys.
    pub place: String,
    /// Defect of the setting.
    #[source]
    pub defect: TrustDefect,
    /// Change of the setting that removes the defect.
    pub fix: String,
}

/// Kind of a [`TrustError`].
#[derive(Debug, Error)]
pub enum TrustDefect {
    /// The specification is not JSON.
    #[error("the trust specification: {0}")]
    Text(#[source] JsonTextError),
    /// The specification has an unknown member, lacks one, or has a value of another type.
    #[error("the trust specification: {0}")]
    Form(#[source] serde_json::Error),
    /// The specification cannot be written.
    #[error("{0}")]
    Encoding(#[source] serde_json::Error),
    /// A key set cannot be used as a whole.
    #[error(transparent)]
    Keys(#[from] KeySetError),
    /// A setting is not valid, for the stated reason.
    #[error("{0}")]
    Setting(String),
}

impl From<&str> for TrustDefect {
    fn from(reason: &str) -> Self {
        Self::Setting(reason.to_owned())
    }
}

impl From<String> for TrustDefect {
    fn from(reason: String) -> Self {
        Self::Setting(reason)
    }
}

/// Defect of a JWK set as a whole (RFC 7517 §5).
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum KeySetError {
    /// The text is longer than 1 MiB.
    #[error("longer than 1 MiB")]
    TooLong,
    /// The text is not a JSON object.
    #[error("no JWK set: {0}")]
    Text(#[source] JsonTextError),
    /// The object has no array `keys`.
    #[error("no JWK set: it has no array `keys`")]
    NoKeys,
    /// The set has more keys than the maximum.
    #[error("more than {0} keys")]
    TooManyKeys(usize),
    /// The entry at this position is not an object.
    #[error("key {0} is no JSON object")]
    NotAnObject(usize),
    /// The entry at this position publishes a secret.
    #[error("key {0} holds a private or secret key")]
    SecretKey(usize),
    /// The member of this name is negative.
    #[error("`{0}` is negative")]
    Negative(&'static str),
    /// The member of this name is not an integer of 64 bits.
    #[error("`{0}` is no integer of 64 bits")]
    NotAnInteger(&'static str),
}

/// Key of a set that is left out; the other keys of the set are used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct IgnoredKey {
    /// Position in the set, from 0.
    pub(crate) position: usize,
    pub(crate) error: KeyError,
}

impl fmt::Display for IgnoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: {}", self.position, self.error)
    }
}

/// Defect of a public key in the form of a JWK, for which it is not used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum KeyError {
    /// The text is not a JSON object.
    #[error("it is no JSON object")]
    Text(#[source] JsonTextError),
    /// The JWK has a member that no public key has.
    #[error("it holds a private or secret key")]
    SecretKey,
    /// A member is of another JSON type, or too long.
    #[error("a member is ill-typed or too long")]
    IllTypedMember,
    /// A member that its `kty` requires is missing.
    #[error("it lacks a member of its type")]
    MissingMember,
    /// A member is not canonical base64url.
    #[error("a member is not canonical base64url")]
    MemberEncoding(#[source] base64::DecodeError),
    /// `use` of an SVID's key has another value.
    #[error("its `use` is neither `jwt-svid` nor `x509-svid`")]
    NotForSvids,
    /// `use` of a key that signs tokens has another value.
    #[error("its `use` is not `sig`")]
    NotForSignatures,
    /// `key_ops` allow no verification.
    #[error("its `key_ops` do not hold `verify`")]
    NotForVerification,
    /// `kid` is required and missing.
    #[error("it has no `kid`")]
    NoKid,
    /// `kid` of a key of our own is not its thumbprint.
    #[error("its `kid` is not its SHA-256 thumbprint (RFC 7638)")]
    OtherKid,
    /// Another key of the set has the same `kid`.
    #[error("its `kid` is also that of a different key")]
    AmbiguousKid,
    /// The set holds the same key before.
    #[error("it stands twice")]
    Repeated,
    /// `alg` is not a supported signature algorithm.
    #[error("its `alg` is not supported")]
    UnsupportedAlgorithm,
    /// No accepted algorithm fits the type and the `alg` of the key.
    #[error("its type and `alg` allow none of the accepted algorithms")]
    NoAcceptedAlgorithm,
    /// `kty` is not supported.
    #[error("its `kty` is not supported")]
    UnsupportedType,
    /// `crv` is missing.
    #[error("it has no `crv`")]
    NoCurve,
    /// `crv` is not supported.
    #[error("its `crv` is not supported")]
    UnsupportedCurve,
    /// A coordinate has another length than its curve's.
    #[error("a coordinate has not its curve's size")]
    CoordinateSize,
    /// The point is not on its curve.
    #[error("its point is not on its curve")]
    PointOffCurve,
    /// The library refuses the Ed25519 key.
    #[error("it is not an Ed25519 key")]
    NotEd25519,
    /// The Ed25519 key must not be used.
    #[error(transparent)]
    Point(#[from] PointError),
    /// A number of an RSA key is empty or has leading zeros.
    #[error("its modulus or exponent has leading zeros or is empty")]
    NumberEncoding,
    /// The RSA modulus is too short or too long.
    #[error("its modulus is not of 2048 to 8192 bits")]
    ModulusSize,
    /// The numbers are not those of an RSA key.
    #[error("its modulus or exponent is not one of RSA")]
    NotRsaNumbers,
    /// The numbers cannot be encoded as an RSA key.
    #[error("it is not an RSA key")]
    NotRsa,
    /// An authority has no certificate.
    #[error("it has no certificate in `x5c`")]
    NoCertificate,
    /// The certificate's text is too long.
    #[error("its certificate is too long")]
    CertificateTooLong,
    /// The certificate's text is not canonical base64.
    #[error("its certificate is not canonical base64")]
    CertificateEncoding(#[source] base64::DecodeError),
    /// The certificate is not one of an authority.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The certificate is of another key.
    #[error("its key is not that of its certificate")]
    OtherKey,
}

/// Rule of X.509 (RFC 5280) or X.509-SVID that a certificate breaks.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CertificateError {
    /// The bytes are not exactly one certificate in DER.
    #[error("it is not one X.509 certificate in DER")]
    Encoding(#[source] x509_cert::der::Error),
    /// The certificate has more extensions than the maximum.
    #[error("it has too many extensions")]
    TooManyExtensions,
    /// An extension is there twice (RFC 5280 §4.2).
    #[error("it has an extension twice")]
    RepeatedExtension,
    /// An extension cannot be read.
    #[error("an extension is malformed")]
    Extension(#[source] x509_cert::der::Error),
    /// The key is not a number of whole octets.
    #[error("its key is not a number of whole octets")]
    PartialOctets,
    /// The Ed25519 key must not be used.
    #[error(transparent)]
    Point(#[from] PointError),
    /// The certificate has no key usage.
    #[error("it has no key usage")]
    NoKeyUsage,
    /// The key usage is not critical.
    #[error("its key usage is not critical")]
    KeyUsageNotCritical,
    /// A leaf is a signing certificate.
    #[error("it is a signing certificate, which never authenticates")]
    LeafIsAuthority,
    /// The key of a leaf may sign certificates or revocation lists.
    #[error("its key may sign certificates or revocation lists")]
    LeafMaySign,
    /// The key of a leaf may not sign.
    #[error("its key usage lacks `digitalSignature`")]
    NoDigitalSignature,
    /// The extended key usage of a leaf does not cover client and server.
    #[error("its extended key usage lacks client or server authentication")]
    ExtendedKeyUsage,
    /// The certificate has no subject, and its alternative names are not critical.
    #[error("it has no subject, and its alternative names are not critical")]
    NoSubject,
    /// The certificate names no URI.
    #[error("it has no URI among its alternative names")]
    NoUri,
    /// The certificate names several URIs.
    #[error("it has more than one URI among its alternative names")]
    SeveralUris,
    /// A signing certificate does not say that it is one.
    #[error("it is no signing certificate: `cA` is not set")]
    NotAuthority,
    /// The key of a signing certificate may not sign certificates.
    #[error("its key usage lacks `keyCertSign`")]
    NoCertificateSigning,
    /// The URI of an intermediate is not a SPIFFE ID.
    #[error("its URI is no SPIFFE ID")]
    SignerUri(#[source] SpiffeIdError),
    /// The SPIFFE ID of an intermediate has a path.
    #[error("its SPIFFE ID is that of a workload")]
    SignerIsWorkload,
    /// The SPIFFE ID of an intermediate is of another trust domain.
    #[error("its SPIFFE ID is of another trust domain than the peer's")]
    SignerDomain,
    /// The SPIFFE ID of an authority has a path.
    #[error("it is the certificate of a workload, not of an authority")]
    AuthorityIsWorkload,
    /// The certificate cannot end a path.
    #[error("its certificate is not one of X.509 version 3")]
    NotVersion3(#[source] webpki::Error),
}

/// Defect of an Ed25519 public key, for which it must not be used (RFC 8725 §3.4).
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PointError {
    /// The key has another length.
    #[error("an Ed25519 key has 32 octets")]
    Length,
    /// Some signatures of the point are valid for every message.
    #[error("its Ed25519 point has small order")]
    SmallOrder,
    /// The point has another, shorter encoding.
    #[error("its Ed25519 point is not a canonical encoding")]
    NotCanonical,
}
