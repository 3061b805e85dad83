//! Nonces for proofs of possession (RFC 9449 §8). None is kept: every node of a store makes the same from the time.

use authz_kernel::task::hmac;
use authz_token::UnixTime;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Seconds for which a nonce is handed out; it is taken as long again.
const SLOT: i64 = 60;
/// Bytes of the hash that a nonce shows.
const SHOWN: usize = 16;

/// The nonces that are taken at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    current: String,
    previous: String,
}

impl Taken {
    /// Nonces at a time. `secret` is the secret of the store.
    pub(crate) fn at(now: UnixTime, secret: &[u8; 32]) -> Self {
        let slot = now.0.div_euclid(SLOT);
        Self { current: of_slot(slot, secret), previous: of_slot(slot.saturating_sub(1), secret) }
    }

    pub(crate) fn all(&self) -> [&str; 2] {
        [&self.current, &self.previous]
    }

    /// Nonce that is handed out.
    pub(crate) fn into_current(self) -> String {
        self.current
    }
}

fn of_slot(slot: i64, secret: &[u8; 32]) -> String {
    let hash = hmac(secret, &[b"dpop-nonce", &slot.to_be_bytes()]);
    URL_SAFE_NO_PAD.encode(hash.get(..SHOWN).unwrap_or(&hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A nonce is taken for one to two slots, by every node of the store and by no other.
    #[test]
    fn a_nonce_ends() {
        let at = |second| Taken::at(UnixTime(second), &[1; 32]);
        let nonce = at(120).into_current();
        assert_eq!(22, nonce.len());
        for second in [120, 179, 180, 239] {
            assert!(at(second).all().contains(&nonce.as_str()), "{second}");
        }
        for second in [119, 240, 0] {
            assert!(!at(second).all().contains(&nonce.as_str()), "{second}");
        }
        let other = Taken::at(UnixTime(120), &[2; 32]);
        assert!(!other.all().contains(&nonce.as_str()));
    }
}
