//! Keys and tokens for tests and benchmarks; compiled only with the feature `test-support`.
//!
//! Its functions panic on failure, as tests do.
//!
//! ```
//! use authz_token::mint::{Key, bundle};
//!
//! let key = Key::es256("k1");
//! let token = key.sign(r#"{"sub":"spiffe://a.example/bot","aud":"authz","exp":2000000000}"#);
//! assert_eq!(3, token.split('.').count());
//! assert!(bundle(&[&key]).contains("jwt-svid"));
//! ```

#![expect(clippy::expect_used, reason = "only tests and benchmarks compile it")]

pub mod x509;

use std::collections::BTreeMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::algorithm::Algorithm;

/// A private key with an id and the algorithm that it signs with.
pub struct Key {
    kid: String,
    algorithm: Algorithm,
    pair: TestKeyPair,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).finish_non_exhaustive()
    }
}

enum TestKeyPair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Key {
    /// Generates a key.
    ///
    /// `alg` is a JWS algorithm name, for example `PS384`; `kid` is its id. RSA keys have 2048 bits.
    ///
    /// # Panics
    /// `alg` is not a supported algorithm.
    #[must_use]
    pub fn generate(alg: &str, kid: &str) -> Self {
        let algorithm = Algorithm::parse(alg).expect("a supported algorithm");
        let ec =
            |parameters| TestKeyPair::Ec(EcdsaKeyPair::generate(parameters).expect("an EC key"));
        let pair = match algorithm {
            Algorithm::EdDsa => {
                TestKeyPair::Ed(Ed25519KeyPair::generate().expect("an Ed25519 key"))
            }
            Algorithm::Es256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::Es512 => ec(&ECDSA_P521_SHA512_FIXED_SIGNING),
            _ => TestKeyPair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key")),
        };
        Self { kid: kid.to_owned(), algorithm, pair }
    }

    /// Generates a P-256 key that signs with ES256.
    #[must_use]
    pub fn es256(kid: &str) -> Self {
        Self::generate("ES256", kid)
    }

    /// Generates an RSA key of 2048 bits that signs with RS256.
    #[must_use]
    pub fn rs256(kid: &str) -> Self {
        Self::generate("RS256", kid)
    }

    /// Generates an Ed25519 key.
    #[must_use]
    pub fn ed25519(kid: &str) -> Self {
        Self::generate("EdDSA", kid)
    }

    /// The same key, signing with another algorithm of its type or under another id.
    ///
    /// # Panics
    /// `alg` is not a supported algorithm.
    #[must_use]
    pub fn with(mut self, alg: &str, kid: &str) -> Self {
        self.algorithm = Algorithm::parse(alg).expect("a supported algorithm");
        kid.clone_into(&mut self.kid);
        self
    }

    /// The same key under its SHA-256 thumbprint (RFC 7638) as id, as keys that sign task
    /// credentials are.
    #[must_use]
    pub fn by_thumbprint(mut self) -> Self {
        self.kid = self.thumbprint();
        self
    }

    /// Its SHA-256 thumbprint (RFC 7638) in base64url, as in `cnf.jkt`.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let jwk = self.jwk(None);
        // Members sorted by name, without white space: what this map's text is.
        let members: BTreeMap<&str, &serde_json::Value> = jwk
            .as_object()
            .expect("an object")
            .iter()
            .filter(|(name, _)| *name != "kid")
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        let text = serde_json::to_string(&members).expect("a JSON text");
        URL_SAFE_NO_PAD.encode(Sha256::digest(text))
    }

    /// Its id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its public half as a JWK with `kid`, and `use` where one is given.
    #[must_use]
    pub fn jwk(&self, r#use: Option<&str>) -> serde_json::Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            TestKeyPair::Ec(pair) => {
                let (crv, size) = match self.algorithm {
                    Algorithm::Es256 => ("P-256", 32),
                    Algorithm::Es384 => ("P-384", 48),
                    _ => ("P-521", 66),
                };
                let (x, y) = pair
                    .public_key()
                    .as_ref()
                    .split_at_checked(1)
                    .and_then(|(_, point)| point.split_at_checked(size))
                    .expect("an uncompressed point");
                json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})
            }
            TestKeyPair::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
            TestKeyPair::Rsa(pair) => {
                // RFC 8017 A.1.1: SEQUENCE { modulus INTEGER, publicExponent INTEGER }.
                let (sequence, _) = der(pair.public_key().as_ref());
                let (n, rest) = der(sequence);
                let (e, _) = der(rest);
                json!({"kty": "RSA", "n": encode(unsigned(n)), "e": encode(unsigned(e))})
            }
        };
        let members = jwk.as_object_mut().expect("an object");
        members.insert("kid".to_owned(), json!(self.kid));
        if let Some(r#use) = r#use {
            members.insert("use".to_owned(), json!(r#use));
        }
        jwk
    }

    /// Signs claims under the header `{"alg": …, "kid": …, "typ": "JWT"}`.
    ///
    /// `claims` is JSON, signed as it is. Returns the token in compact form.
    #[must_use]
    pub fn sign(&self, claims: &str) -> String {
        let header = json!({"alg": self.algorithm.name(), "kid": self.kid, "typ": "JWT"});
        self.sign_with(&header.to_string(), claims)
    }

    /// Signs claims as a task credential: under the header `{"alg": …, "kid": …, "typ": "at+jwt"}`.
    ///
    /// `claims` is JSON, signed as it is; see [`credential`]. Returns the token in compact form.
    #[must_use]
    pub fn sign_credential(&self, claims: &str) -> String {
        let header = json!({"alg": self.algorithm.name(), "kid": self.kid, "typ": "at+jwt"});
        self.sign_with(&header.to_string(), claims)
    }

    /// Signs claims as a DPoP proof: under the header `{"alg": …, "jwk": …, "typ": "dpop+jwt"}`.
    ///
    /// `claims` is JSON, signed as it is; see [`proof`]. Returns the proof in compact form.
    #[must_use]
    pub fn sign_proof(&self, claims: &str) -> String {
        self.sign_with(&self.proof_header().to_string(), claims)
    }

    /// The header of its DPoP proofs, with its public half.
    #[must_use]
    pub fn proof_header(&self) -> serde_json::Value {
        let mut jwk = self.jwk(None);
        jwk.as_object_mut().expect("an object").remove("kid");
        json!({"alg": self.algorithm.name(), "jwk": jwk, "typ": "dpop+jwt"})
    }

    /// Signs claims under any header, valid or not.
    ///
    /// `header` and `claims` are JSON, signed as they are. Returns the token in compact form.
    #[must_use]
    pub fn sign_with(&self, header: &str, claims: &str) -> String {
        let input =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.signature(input.as_bytes()));
        format!("{input}.{signature}")
    }

    /// Signs bytes.
    ///
    /// The signature as in RFC 7518 §3.3–3.5 or RFC 8037 §3.1.
    #[must_use]
    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            TestKeyPair::Ec(pair) => {
                pair.sign(&random, message).expect("a signature").as_ref().to_vec()
            }
            TestKeyPair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            TestKeyPair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let (pkcs1, pss) = match self.algorithm {
                    Algorithm::Rs384 => (Some(&RSA_PKCS1_SHA384), None),
                    Algorithm::Rs512 => (Some(&RSA_PKCS1_SHA512), None),
                    Algorithm::Ps256 => (None, Some(&RSA_PSS_SHA256)),
                    Algorithm::Ps384 => (None, Some(&RSA_PSS_SHA384)),
                    Algorithm::Ps512 => (None, Some(&RSA_PSS_SHA512)),
                    _ => (Some(&RSA_PKCS1_SHA256), None),
                };
                if let Some(encoding) = pkcs1 {
                    pair.sign(encoding, &random, message, &mut signature).expect("a signature");
                }
                if let Some(encoding) = pss {
                    pair.sign(encoding, &random, message, &mut signature).expect("a signature");
                }
                signature
            }
        }
    }
}

/// A SPIFFE bundle of those keys, each with `use: jwt-svid`.
#[must_use]
pub fn bundle(keys: &[&Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk(Some("jwt-svid"))).collect();
    json!({"keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 60}).to_string()
}

/// A JWK set of those keys, each with `use: sig`.
#[must_use]
pub fn jwks(keys: &[&Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk(Some("sig"))).collect();
    json!({"keys": keys}).to_string()
}

/// Claims of a sound DPoP proof (RFC 9449 §4.2).
///
/// `method` and `uri` are those of its request, `iat` is its time, `jti` its id, and `token` the token with which it is
/// presented.
#[must_use]
pub fn proof(
    method: &str,
    uri: &str,
    iat: i64,
    jti: &str,
    token: Option<&str>,
) -> serde_json::Value {
    let mut claims = json!({"htm": method, "htu": uri, "iat": iat, "jti": jti});
    if let (Some(token), Some(claims)) = (token, claims.as_object_mut()) {
        claims.insert("ath".to_owned(), json!(URL_SAFE_NO_PAD.encode(Sha256::digest(token))));
    }
    claims
}

/// Claims of a sound task credential that is bound to no key: one use of `crm.read` on behalf of
/// `corp/alice`.
///
/// `issuer` is Authz, `agent` the SPIFFE ID of the agent that acts, `iat` and `exp` are its times.
#[must_use]
pub fn credential(issuer: &str, agent: &str, iat: i64, exp: i64) -> serde_json::Value {
    json!({
        "iss": issuer, "sub": "corp/alice", "act": {"sub": agent}, "client_id": agent,
        "aud": "https://crm.example", "iat": iat, "exp": exp,
        "jti": "0198c1b2-8d6e-7f00-8000-000000000001",
        "task": "0198c1b2-8d6e-7f00-8000-000000000002",
        "authorization_details": [{
            "type": "authz_task", "operation": "crm.read", "resource": "customers/42",
            "arguments_digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "uses": 1, "decision_id": "0198c1b2-8d6e-7f00-8000-000000000003",
        }],
    })
}

/// The content of the first DER element, and what follows it.
fn der(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (_tag, rest) = bytes.split_first().expect("a tag");
    let (first, rest) = rest.split_first().expect("a length");
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (octets, rest) =
            rest.split_at_checked(usize::from(first & 0x7f)).expect("a long length");
        (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
    };
    rest.split_at_checked(length).expect("a whole element")
}

/// A DER INTEGER without the zero that keeps it positive.
fn unsigned(integer: &[u8]) -> &[u8] {
    integer.strip_prefix(&[0]).unwrap_or(integer)
}
