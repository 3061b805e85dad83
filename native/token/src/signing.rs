//! Signatures of our own credentials (RFC 7518 §3.4, RFC 8037 §3.1).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use thiserror::Error;

/// Private key for the algorithms `ES256` and `EdDSA` of JWS.
#[derive(Debug)]
pub struct PrivateKey(SigningKeyPair);

#[derive(Debug)]
enum SigningKeyPair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Defect of a private key, or failure of a signature.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SigningError {
    /// The bytes are not a private key of P-256 or Ed25519, or its halves do not belong together.
    #[error("the key is no private key of P-256 or Ed25519 that can be used")]
    Unusable,
    /// The signature cannot be made.
    #[error("the signature could not be made")]
    Failed,
}

impl PrivateKey {
    /// Reads a private key in PKCS#8 (RFC 5208), not encrypted.
    ///
    /// # Errors
    /// [`SigningError::Unusable`]; the text holds no byte of the key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, SigningError> {
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map(SigningKeyPair::P256);
        let pair = p256.or_else(|_| Ed25519KeyPair::from_pkcs8(der).map(SigningKeyPair::Ed25519));
        pair.map(Self).map_err(|_| SigningError::Unusable)
    }

    /// Signs a message that is not hashed.
    ///
    /// Returns 64 bytes in the form of JWS: for P-256 both numbers, one after the other.
    ///
    /// # Errors
    /// [`SigningError::Failed`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let signature = match &self.0 {
            SigningKeyPair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map_err(|_| SigningError::Failed)?
                .as_ref()
                .to_vec(),
            SigningKeyPair::Ed25519(pair) => {
                pair.try_sign(message).map_err(|_| SigningError::Failed)?.as_ref().to_vec()
            }
        };
        Ok(signature)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, KeyPair as _,
        UnparsedPublicKey,
    };

    use super::*;

    #[test]
    fn the_public_half_verifies_a_signature() {
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let key = PrivateKey::from_pkcs8(p256.to_pkcs8v1().unwrap().as_ref()).unwrap();
        let signature = key.sign(b"message").unwrap();
        assert_eq!(64, signature.len());
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, p256.public_key().as_ref());
        public.verify(b"message", &signature).unwrap();
        assert!(public.verify(b"another", &signature).is_err());

        let ed25519 = Ed25519KeyPair::generate().unwrap();
        let key = PrivateKey::from_pkcs8(ed25519.to_pkcs8v1().unwrap().as_ref()).unwrap();
        let signature = key.sign(b"message").unwrap();
        assert_eq!(64, signature.len());
        let public = UnparsedPublicKey::new(&ED25519, ed25519.public_key().as_ref());
        public.verify(b"message", &signature).unwrap();
    }

    #[test]
    fn another_key_is_refused() {
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let p384 = p384.to_pkcs8v1().unwrap();
        for der in [b"".as_slice(), b"no key", p384.as_ref()] {
            assert_eq!(Some(SigningError::Unusable), PrivateKey::from_pkcs8(der).err());
        }
    }
}
