//! Proofs of possession: DPoP (RFC 9449).

use crate::facts::{Role, UnixTime};

/// How a call came, besides its evidence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presentation<'a> {
    /// SHA-256 of the client's certificate in DER, where the client showed one to us or to an enforcer
    /// that is believed in this.
    pub certificate: Option<[u8; 32]>,
    /// What proofs of possession are held to.
    pub nonce: Nonces<'a>,
}

/// What proofs of possession are held to besides their own claims.
#[derive(Clone, Copy, Debug)]
pub struct Nonces<'a> {
    /// The nonces of ours that are still accepted (RFC 9449 §8).
    pub valid: &'a [&'a str],
    /// A proof made before this needs a nonce: what was seen before it may be forgotten.
    pub needed_before: UnixTime,
    /// How far `iat` may be from now, in seconds, in either direction.
    pub window: i64,
}

impl Default for Nonces<'_> {
    /// Nothing is valid, and every proof needs a nonce: no proof is accepted.
    fn default() -> Self {
        Self { valid: &[], needed_before: UnixTime(i64::MAX), window: 60 }
    }
}

/// A verified proof of possession. That it was not seen before is for whoever keeps proofs to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProofFacts {
    /// The SHA-256 thumbprint of its key (RFC 7638) in base64url.
    pub jkt: String,
    /// SHA-256 of its `jti`.
    pub jti_digest: [u8; 32],
    /// `htm`: the method of the HTTP request that it is for.
    pub htm: String,
    /// `htu`: the URI of that request, in normal form.
    pub htu: String,
    /// `iat`, in seconds since 1970.
    pub iat: i64,
    /// The last second in which it is accepted, in seconds since 1970: until then it must be known again.
    pub expires_at: i64,
    /// Whose credential it came with.
    pub role: Role,
}
