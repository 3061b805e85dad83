//! Authorities and certificates.
//!
//! ```
//! use authz_token::mint::x509::{Signer, bundle};
//!
//! let authority = Signer::authority("a.example");
//! let leaf = authority.leaf("spiffe://a.example/bot");
//! assert!(bundle(&[&authority]).contains("x509-svid"));
//! assert_eq!(Some(&0x30), leaf.first());
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
pub use rcgen;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use serde_json::json;

/// A signing certificate with its P-256 key.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl Signer {
    /// Makes a self-signed authority of a trust domain, valid from 2020 to 2099.
    #[must_use]
    pub fn authority(domain: &str) -> Self {
        Self::authority_with(domain, |_| {})
    }

    /// Makes a self-signed authority of a trust domain, with anything about it changed.
    #[must_use]
    pub fn authority_with(domain: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = signing(domain);
        change(&mut params);
        let certificate = params.self_signed(&key).expect("a certificate").der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Signs an intermediate of a trust domain, with anything about it changed.
    #[must_use]
    pub fn intermediate_with(
        &self,
        domain: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = signing(domain);
        params.distinguished_name.push(DnType::OrganizationalUnitName, "intermediate");
        change(&mut params);
        let certificate =
            params.signed_by(&key, &self.issuer).expect("a certificate").der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Signs a sound X.509-SVID, valid from 2020 to 2099.
    ///
    /// The certificate in DER.
    #[must_use]
    pub fn leaf(&self, id: &str) -> Vec<u8> {
        self.leaf_with(id, |_| {})
    }

    /// Signs an X.509-SVID with anything about it changed.
    ///
    /// The certificate in DER.
    #[must_use]
    pub fn leaf_with(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let mut params = leaf_params(id);
        change(&mut params);
        params.signed_by(&key, &self.issuer).expect("a certificate").der().to_vec()
    }

    /// Signs an X.509-SVID for an Ed25519 public key. Its private half is not needed.
    ///
    /// Returns the certificate in DER.
    #[must_use]
    pub fn leaf_of_ed25519(&self, id: &str, octets: &[u8; 32]) -> Vec<u8> {
        self.sign_for_ed25519(&leaf_params(id), octets)
    }

    /// Signs an authority's certificate for an Ed25519 public key.
    ///
    /// Its bundle entry, with `use: x509-svid`.
    #[must_use]
    pub fn authority_of_ed25519(&self, domain: &str, octets: &[u8; 32]) -> serde_json::Value {
        let certificate = self.sign_for_ed25519(&signing(domain), octets);
        json!({
            "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(octets), "use": "x509-svid",
            "x5c": [STANDARD.encode(certificate)],
        })
    }

    fn sign_for_ed25519(&self, params: &CertificateParams, octets: &[u8; 32]) -> Vec<u8> {
        let key = Ed25519Octets(*octets);
        params.clone().signed_by(&key, &self.issuer).expect("a certificate").der().to_vec()
    }

    /// Its certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its bundle entry, with `use: x509-svid`.
    #[must_use]
    pub fn jwk(&self) -> serde_json::Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = self
            .issuer
            .key()
            .der_bytes()
            .split_at_checked(1)
            .and_then(|(_, point)| point.split_at_checked(32))
            .expect("an uncompressed point");
        json!({
            "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y), "use": "x509-svid",
            "x5c": [STANDARD.encode(&self.certificate)],
        })
    }
}

/// A raw Ed25519 public key.
struct Ed25519Octets([u8; 32]);

impl rcgen::PublicKeyData for Ed25519Octets {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// A subject alternative name of type URI.
#[must_use]
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

/// A SPIFFE bundle of those authorities.
#[must_use]
pub fn bundle(authorities: &[&Signer]) -> String {
    let keys: Vec<_> = authorities.iter().map(|authority| authority.jwk()).collect();
    json!({"keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 60}).to_string()
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn leaf_params(id: &str) -> CertificateParams {
    let mut params = params();
    params.distinguished_name.push(DnType::CommonName, "workload");
    params.subject_alt_names = vec![uri(id)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// Parameters that an authority and an intermediate share; their names differ by trust domain.
fn signing(domain: &str) -> CertificateParams {
    let mut params = params();
    params.distinguished_name.push(DnType::OrganizationName, domain);
    params.subject_alt_names = vec![uri(&format!("spiffe://{domain}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
