//! Ed25519 public keys that must not be used (RFC 8725 §3.4).

use x509_cert::der::asn1::ObjectIdentifier;

use crate::error::PointError;

/// `id-Ed25519` (RFC 8410 §3).
pub(crate) const OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Refuses a public key that is not a canonical encoding, or whose point has small order.
///
/// Verification of a signature multiplies the key by the digest (RFC 8032 §5.1.7). A point of small
/// order has at most eight multiples, so one signature is valid for every message, or for one message
/// in eight, and nobody needs a private key to make it. A token that is bound to such a key is a bearer
/// token.
pub(crate) fn check_point(octets: &[u8]) -> Result<(), PointError> {
    let Ok(mut y) = <[u8; 32]>::try_from(octets) else {
        return Err(PointError::Length);
    };
    // The highest bit is the sign of x; both signs of each y below have small order.
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    if SMALL_ORDER.contains(&y) {
        return Err(PointError::SmallOrder);
    }
    if !is_below_modulus(&y) {
        return Err(PointError::NotCanonical);
    }
    Ok(())
}

/// Returns whether a number, little-endian and of 255 bits, is below 2^255 - 19 (RFC 8032 §5.1.3 step 1).
fn is_below_modulus(y: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = y;
    !(*last == 0x7f && middle.iter().all(|byte| *byte == 0xff) && *first >= 0xed)
}

/// The y coordinates of the eight points of small order, little-endian, with those of their
/// encodings that are not reduced.
const SMALL_ORDER: [[u8; 32]; 7] = [
    // 0: the two points of order 4.
    from_ends(0, 0, 0),
    // 1: the identity.
    from_ends(1, 0, 0),
    // Order 8.
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    // Order 8.
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    // p - 1: order 2.
    from_ends(0xec, 0xff, 0x7f),
    // p, which is 0 again.
    from_ends(0xed, 0xff, 0x7f),
    // p + 1, which is 1 again.
    from_ends(0xee, 0xff, 0x7f),
];

const fn from_ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut octets = [middle; 32];
    let [head, .., tail] = &mut octets;
    *head = first;
    *tail = last;
    octets
}
