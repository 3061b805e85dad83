//! The peer profile: SPIFFE X.509-SVID.
//!
//! A TLS library that knows the authorities of several trust domains proves only that one of them
//! signed. Here each chain is validated against the authorities of the trust domain that its own
//! leaf names, and against no other.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use sha2::{Digest as _, Sha256};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs};

use crate::authority::Authority;
use crate::cache::{CacheKey, PeerCache};
use crate::certificate::Certificate;
use crate::error::CertificateError;
use crate::facts::{PeerFacts, UnixTime};
use crate::jwk::KeySet;
use crate::refusal::{Refusal, RefusalReason};
use crate::trust::TrustStore;
use authz_base::spiffe::SpiffeId;

/// Verifies the certificate chain of a TLS peer as an X.509-SVID.
///
/// Revocation lists are not asked: X.509-SVIDs are short-lived.
///
/// `chain` holds the certificates in DER as the peer sent them, its own first, then those of intermediates
/// in any order; at most [`MAX_CHAIN_LENGTH`] and [`MAX_CHAIN_BYTES`]. `cache` changes no answer.
/// Certificates get no leeway at `now`.
///
/// # Errors
/// No certificate is [`RefusalReason::NoCredential`]; a trust domain that is not trusted, has
/// no usable authority, or none that signed the chain is [`RefusalReason::UntrustedIssuer`]; a
/// certificate outside its validity is [`RefusalReason::ExpiredCredential`]; any other defect is
/// [`RefusalReason::BadCredential`].
pub fn verify_peer(
    chain: &[&[u8]],
    trust: &TrustStore,
    cache: &PeerCache,
    now: UnixTime,
) -> Result<PeerFacts, Refusal> {
    check_size(chain)?;
    let key = CacheKey::of_chain(trust.revision_bytes(), chain);
    find_or_verify(cache, key, now, || verify_chain(chain, trust, now))
}

/// Verifies the certificate chain of a TLS peer, as [`verify_peer`] does, from PEM texts.
///
/// `leaf` is the peer's own certificate (RFC 7468); `intermediates` are the other certificates that it sent,
/// perhaps none, perhaps its own again first.
///
/// # Errors
/// Those of [`verify_peer`]; a text that is not PEM, or holds anything but certificates, is
/// [`RefusalReason::BadCredential`].
pub fn verify_pem(
    leaf: &[u8],
    intermediates: &[u8],
    trust: &TrustStore,
    cache: &PeerCache,
    now: UnixTime,
) -> Result<PeerFacts, Refusal> {
    if leaf.len().saturating_add(intermediates.len()) > MAX_TEXT_BYTES {
        return Err(Refusal::bad("the peer's certificate chain is too long"));
    }
    let key = CacheKey::of_texts(trust.revision_bytes(), &[leaf, intermediates]);
    find_or_verify(cache, key, now, || {
        let mut chain = certificates(leaf)?;
        match chain.len() {
            0 => return Err(no_certificate()),
            1 => {}
            _ => return Err(Refusal::bad("the peer's own certificate is more than one")),
        }
        let mut rest = certificates(intermediates)?;
        if !rest.is_empty() && rest.first() == chain.first() {
            rest.remove(0);
        }
        chain.extend(rest);
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        check_size(&chain)?;
        verify_chain(&chain, trust, now)
    })
}

/// Verifies a certificate that a proxy forwards about its own peer, as [`verify_peer`] does.
///
/// `text` holds certificates in PEM (RFC 7468), percent-encoded or not, the peer's own first. Envoy's
/// `source.certificate` holds the peer's own only: a certificate that an intermediate issued is then refused.
///
/// # Errors
/// Those of [`verify_peer`]; a text that is not PEM, or holds anything but certificates, is
/// [`RefusalReason::BadCredential`].
pub fn verify_certificate(
    text: &str,
    trust: &TrustStore,
    cache: &PeerCache,
    now: UnixTime,
) -> Result<PeerFacts, Refusal> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Refusal::bad("the forwarded certificate is too long"));
    }
    let key = CacheKey::of_texts(trust.revision_bytes(), &[text.as_bytes()]);
    find_or_verify(cache, key, now, || {
        let pem: Vec<u8> = percent_decode_str(text).collect();
        let chain = certificates(&pem)?;
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        check_size(&chain)?;
        verify_chain(&chain, trust, now)
    })
}

/// Finds a chain in the cache, or verifies it and adds it to the cache.
fn find_or_verify(
    cache: &PeerCache,
    key: CacheKey,
    now: UnixTime,
    verify: impl FnOnce() -> Result<PeerFacts, Refusal>,
) -> Result<PeerFacts, Refusal> {
    if let Some(facts) = cache.0.find(&key) {
        check_validity(&facts, now)?;
        return Ok(facts);
    }
    cache.0.missed();
    let facts = verify()?;
    check_validity(&facts, now)?;
    cache.0.insert(key, facts.clone());
    Ok(facts)
}

/// The certificates of a PEM text in DER, one more than is allowed at most.
fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).take(MAX_CHAIN_LENGTH + 1) {
        match section {
            Ok((SectionKind::Certificate, der)) => found.push(der),
            Ok(_) => {
                return Err(Refusal::bad("the text of a certificate holds more than certificates"));
            }
            Err(_) => return Err(Refusal::bad("the text of a certificate is not PEM")),
        }
    }
    if found.is_empty() && !pem.is_empty() {
        return Err(Refusal::bad("the text of a certificate is not PEM"));
    }
    Ok(found)
}

fn no_certificate() -> Refusal {
    Refusal::new(RefusalReason::NoCredential, "the peer presented no certificate")
}

fn check_size(chain: &[&[u8]]) -> Result<(), Refusal> {
    let size = chain.iter().fold(0_usize, |size, der| size.saturating_add(der.len()));
    if chain.len() > MAX_CHAIN_LENGTH || size > MAX_CHAIN_BYTES {
        return Err(Refusal::bad("the peer's certificate chain is too long"));
    }
    Ok(())
}

/// Verifies a chain, except that its anchor is valid now.
fn verify_chain(chain: &[&[u8]], trust: &TrustStore, now: UnixTime) -> Result<PeerFacts, Refusal> {
    let (leaf, intermediates) = chain.split_first().ok_or_else(no_certificate)?;
    let certificate = Certificate::read(leaf).map_err(about_the_leaf)?;
    let uri = certificate.leaf_uri().map_err(about_the_leaf)?;
    let id = SpiffeId::parse(uri)
        .map_err(|error| Refusal::bad(format!("the peer's URI is no SPIFFE ID: {error}")))?;
    if id.path().is_empty() {
        return Err(Refusal::bad("the peer's SPIFFE ID names a trust domain, not a workload"));
    }
    let domain = trust.domain(id.trust_domain()).ok_or_else(|| {
        Refusal::untrusted("the trust domain of the peer's certificate is not trusted")
    })?;
    if domain.authorities.is_empty() {
        return Err(Refusal::untrusted(format!(
            "trust domain `{}` has no usable authority, so all its certificates are refused",
            id.trust_domain()
        )));
    }
    for der in intermediates {
        check_intermediate(der, id.trust_domain())
            .map_err(|error| Refusal::bad(format!("an intermediate certificate: {error}")))?;
    }
    let (not_before, expires_at) = validate_path(leaf, intermediates, domain, now)?;
    Ok(PeerFacts {
        spiffe_id: id.as_str().to_owned(),
        trust_domain: id.trust_domain().to_owned(),
        issued_at: certificate.not_before,
        not_before,
        expires_at,
        certificate_digest: Sha256::digest(leaf).into(),
    })
}

/// Checks the rules of X.509-SVID for an intermediate certificate that path validation does not know.
fn check_intermediate(der: &[u8], trust_domain: &str) -> Result<(), CertificateError> {
    let certificate = Certificate::read(der)?;
    let Some(uri) = certificate.intermediate_uri()? else { return Ok(()) };
    let signer = SpiffeId::parse(uri).map_err(CertificateError::SignerUri)?;
    if !signer.path().is_empty() {
        return Err(CertificateError::SignerIsWorkload);
    }
    if signer.trust_domain() != trust_domain {
        return Err(CertificateError::SignerDomain);
    }
    Ok(())
}

/// RFC 5280 §6 from the leaf to an authority of its own trust domain that is valid now.
///
/// Returns the first and the last second in which every certificate of the path is valid.
fn validate_path(
    leaf: &[u8],
    intermediates: &[&[u8]],
    domain: &KeySet,
    now: UnixTime,
) -> Result<(i64, i64), Refusal> {
    let UnixTime(now) = now;
    let time = u64::try_from(now)
        .map_err(|_| Refusal::new(RefusalReason::ExpiredCredential, "the time is before 1970"))?;
    let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(time));
    let (authorities, anchors): (Vec<&Authority>, Vec<TrustAnchor<'_>>) = domain
        .authorities
        .iter()
        .filter(|authority| within(authority.validity(), now))
        .map(|authority| (authority, authority.anchor.clone()))
        .unzip();
    let leaf = CertificateDer::from(leaf);
    let intermediates: Vec<_> =
        intermediates.iter().map(|der| CertificateDer::from(*der)).collect();
    let end_entity = EndEntityCert::try_from(&leaf).map_err(refusal)?;
    let path = end_entity
        .verify_for_usage(
            ALGORITHMS,
            &anchors,
            &intermediates,
            time,
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(refusal)?;

    let anchor = path.anchor();
    let authority = authorities
        .iter()
        .find(|authority| {
            authority.anchor.subject == anchor.subject
                && authority.anchor.subject_public_key_info == anchor.subject_public_key_info
        })
        .ok_or_else(|| Refusal::bad("the peer's certificate path has no known end"))?;
    let mut validity = authority.validity();
    let mut narrow = |der: &[u8]| -> Result<(), Refusal> {
        let certificate = Certificate::read(der).map_err(about_the_leaf)?;
        validity.0 = validity.0.max(certificate.not_before);
        validity.1 = validity.1.min(certificate.not_after);
        Ok(())
    };
    narrow(&leaf)?;
    let mut length: usize = 0;
    for intermediate in path.intermediate_certificates() {
        narrow(&intermediate.der())?;
        length = length.saturating_add(1);
    }
    if authority.path_length().is_some_and(|most| length > most) {
        return Err(Refusal::bad(
            "the peer's certificate path is longer than its authority allows",
        ));
    }
    Ok(validity)
}

/// Checks a path's validity: the only check whose outcome changes while the trust store does not,
/// so it is repeated for each answer from the cache.
fn check_validity(facts: &PeerFacts, now: UnixTime) -> Result<(), Refusal> {
    let UnixTime(now) = now;
    if within((facts.not_before, facts.expires_at), now) {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalReason::ExpiredCredential,
        "a certificate of the peer's path is not valid now",
    ))
}

/// Both ends belong to a validity (RFC 5280 §4.1.2.5).
fn within((not_before, not_after): (i64, i64), now: i64) -> bool {
    (not_before..=not_after).contains(&now)
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn about_the_leaf(error: CertificateError) -> Refusal {
    Refusal::bad(format!("the peer's certificate: {error}"))
}

/// The refusal for an error of path validation. Its own text holds names of the certificate.
fn refusal(error: webpki::Error) -> Refusal {
    use webpki::Error;
    let bad = |what: &str| Refusal::bad(format!("the peer's certificate path: {what}"));
    match error {
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } => Refusal::new(
            RefusalReason::ExpiredCredential,
            "a certificate of the peer's path is not valid now",
        ),
        Error::UnknownIssuer => Refusal::untrusted(
            "no authority of the peer's own trust domain that is valid now signed its certificate",
        ),
        Error::InvalidSignatureForPublicKey => bad("a signature is not valid"),
        Error::NameConstraintViolation => bad("a name is outside a signer's name constraints"),
        Error::PathLenConstraintViolated => bad("it is longer than a signer allows"),
        Error::MaximumPathDepthExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::MaximumSignatureChecksExceeded
        | Error::MaximumNameConstraintComparisonsExceeded => bad("it takes too much work"),
        Error::UnsupportedCriticalExtension => bad("a critical extension is not supported"),
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            bad("an extended key usage does not allow clients")
        }
        _ => bad("a certificate is malformed, or its algorithm is not supported"),
    }
}

/// Most certificates in a chain.
pub const MAX_CHAIN_LENGTH: usize = 8;
/// Most bytes in a chain, over all certificates.
pub const MAX_CHAIN_BYTES: usize = 65_536;
/// PEM is 4/3 of DER, and percent-encoding at most thrice PEM.
const MAX_TEXT_BYTES: usize = 4 * MAX_CHAIN_BYTES + 4096;
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    aws_lc_rs::ECDSA_P256_SHA256,
    aws_lc_rs::ECDSA_P256_SHA384,
    aws_lc_rs::ECDSA_P384_SHA256,
    aws_lc_rs::ECDSA_P384_SHA384,
    aws_lc_rs::ECDSA_P521_SHA512,
    aws_lc_rs::ED25519,
    aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
    aws_lc_rs::RSA_PKCS1_2048_8192_SHA384,
    aws_lc_rs::RSA_PKCS1_2048_8192_SHA512,
    aws_lc_rs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    aws_lc_rs::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    aws_lc_rs::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];
