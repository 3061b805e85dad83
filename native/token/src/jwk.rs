//! Public keys: JWK sets (RFC 7517, RFC 7518 §6, RFC 8037 §2) and SPIFFE bundles (SPIFFE Trust
//! Domain and Bundle §4, JWT-SVID §6).
//!
//! Keys are checked and prepared here, once, so that verifying a signature parses none.

use aws_lc_rs::signature::{
    ED25519, EcdsaVerificationAlgorithm, ParsedPublicKey, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::algorithm::Algorithm;
use crate::authority::{self, Authority};
use crate::ed25519;
use crate::error::{IgnoredKey, KeyError, KeySetError};
use crate::json::{self, JsonObject, JsonValue};
use crate::jws::{JwsHeader, JwsParts};
use crate::refusal::{KeyOwner, Refusal};

/// Purpose of a set of keys.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// SVIDs: `use` must be `jwt-svid`, and `kid` is required, or `x509-svid`, with a certificate.
    Svid,
    /// Subject tokens and proofs: `use` must be `sig` or absent.
    Signature,
    /// Task credentials: as [`Purpose::Signature`], and `kid` must be the key's own thumbprint.
    Own,
}

/// Usable public key, prepared for each algorithm that it may be used with.
pub(crate) struct PublicKey {
    pub(crate) kid: Option<String>,
    prepared: PreparedKeys,
}

/// A public key, prepared for each of these algorithms.
type PreparedKeys = Vec<(Algorithm, ParsedPublicKey)>;

impl PublicKey {
    /// Reads a public key that a token brings along, for signatures of one of `algorithms`, and its
    /// SHA-256 thumbprint.
    pub(crate) fn read(
        jwk: &JsonObject<'_>,
        algorithms: &[Algorithm],
    ) -> Result<(Self, [u8; 32]), KeyError> {
        if has_secret(jwk) {
            return Err(KeyError::SecretKey);
        }
        Ok((read_key(jwk, Purpose::Signature, algorithms)?, digest(jwk)?))
    }

    /// Returns whether the key's owner made the signature over the message.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.prepared_for(algorithm).is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }

    fn prepared_for(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.prepared.iter().find(|(own, _)| *own == algorithm).map(|(_, key)| key)
    }
}

/// The usable keys of one trust domain or issuer.
pub(crate) struct KeySet {
    pub(crate) keys: Vec<PublicKey>,
    /// The authorities of X.509-SVIDs.
    pub(crate) authorities: Vec<Authority>,
    /// Keys that were left out, for the operator.
    pub(crate) ignored: Vec<IgnoredKey>,
    /// `spiffe_sequence`.
    pub(crate) sequence: Option<u64>,
    /// `spiffe_refresh_hint`, in seconds.
    pub(crate) refresh_hint: Option<u64>,
}

impl KeySet {
    /// Reads a set.
    ///
    /// Keys of another use or an unknown type are left out, and so are those that are malformed or
    /// outside the supported sizes (RFC 7517 §5). Of usable keys with one `kid`, the first counts where
    /// all are the same key for the same algorithms; otherwise none of them counts, because a `kid`
    /// names one key (RFC 7517 §4.5). The set as a whole is an error if it is not a JWK set, or
    /// publishes a private key.
    pub(crate) fn read(
        text: &str,
        purpose: Purpose,
        allowed: &[Algorithm],
    ) -> Result<Self, KeySetError> {
        if text.len() > MAX_SET_BYTES {
            return Err(KeySetError::TooLong);
        }
        let set = json::read_object(text.as_bytes(), SET_LIMITS).map_err(KeySetError::Text)?;
        let Some(JsonValue::Array(entries)) = set.get("keys") else {
            return Err(KeySetError::NoKeys);
        };
        if entries.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys(MAX_KEYS));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut authorities = Vec::new();
        let mut ignored = Vec::new();
        for (position, entry) in entries.iter().enumerate() {
            let JsonValue::Object(jwk) = entry else {
                return Err(KeySetError::NotAnObject(position));
            };
            if has_secret(jwk) {
                return Err(KeySetError::SecretKey(position));
            }
            if purpose == Purpose::Svid && is_authority(jwk) {
                match read_authority(jwk) {
                    Ok(authority) => authorities.push(authority),
                    Err(error) => ignored.push(IgnoredKey { position, error }),
                }
                continue;
            }
            match Candidate::read(position, jwk, purpose, allowed) {
                Ok(candidate) => candidates.push(candidate),
                Err(error) => ignored.push(IgnoredKey { position, error }),
            }
        }
        let keys = without_twins(candidates, &mut ignored);
        let sequence = unsigned(&set, "spiffe_sequence")?;
        let refresh_hint = unsigned(&set, "spiffe_refresh_hint")?;
        Ok(Self { keys, authorities, ignored, sequence, refresh_hint })
    }

    /// Returns whether the set has no usable key, so that no credential of its owner is valid.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.authorities.is_empty()
    }

    /// Verifies a signature by the key that the header names; `owner` is the owner of the set.
    ///
    /// A `kid` that no usable key has is [`crate::RefusalReason::UntrustedIssuer`]: the signer's key is
    /// not a trusted one. A trusted key that does not fit, or a signature that it did not make, is
    /// [`crate::RefusalReason::BadCredential`]. A token without `kid` is tried with each key that fits
    /// its algorithm, of which there may be at most four.
    pub(crate) fn verify(
        &self,
        header: &JwsHeader,
        parts: &JwsParts<'_>,
        owner: impl FnOnce() -> KeyOwner,
    ) -> Result<&PublicKey, Refusal> {
        let message = parts.signing_input.as_bytes();
        let forged = || Refusal::bad("the token's signature is not valid");
        if let Some(kid) = &header.kid {
            let key = self
                .keys
                .iter()
                .find(|key| key.kid.as_ref() == Some(kid))
                .ok_or_else(|| Refusal::unknown_key(owner()))?;
            let prepared = key.prepared_for(header.algorithm).ok_or_else(|| {
                Refusal::bad("the token's `alg` does not fit its key or is not allowed")
            })?;
            let signature = parts.signature()?;
            return match prepared.verify_sig(message, &signature) {
                Ok(()) => Ok(key),
                Err(_) => Err(forged()),
            };
        }
        let fitting =
            || self.keys.iter().filter_map(|key| Some((key, key.prepared_for(header.algorithm)?)));
        match fitting().take(MAX_TRIED + 1).count() {
            0 => {
                return Err(Refusal::untrusted("no trusted key of the issuer fits the token"));
            }
            1..=MAX_TRIED => {}
            _ => {
                return Err(Refusal::bad("the token has no `kid` and too many keys fit it"));
            }
        }
        let signature = parts.signature()?;
        fitting()
            .find(|(_, prepared)| prepared.verify_sig(message, &signature).is_ok())
            .map(|(key, _)| key)
            .ok_or_else(forged)
    }
}

/// A usable key of a set, before keys with the same `kid` are compared.
struct Candidate {
    position: usize,
    thumbprint: [u8; 32],
    key: PublicKey,
}

impl Candidate {
    fn read(
        position: usize,
        jwk: &JsonObject<'_>,
        purpose: Purpose,
        allowed: &[Algorithm],
    ) -> Result<Self, KeyError> {
        Ok(Self { position, key: read_key(jwk, purpose, allowed)?, thumbprint: digest(jwk)? })
    }

    fn has_kid_of(&self, other: &Self) -> bool {
        self.key.kid.is_some() && self.key.kid == other.key.kid
    }

    /// Returns whether both entries state the same key for the same algorithms.
    fn is_same_key(&self, other: &Self) -> bool {
        let algorithms = |of: &Self| -> Vec<Algorithm> {
            of.key.prepared.iter().map(|(algorithm, _)| *algorithm).collect()
        };
        self.thumbprint == other.thumbprint && algorithms(self) == algorithms(other)
    }
}

/// Leaves out keys whose `kid` stands more than once: all of them where they differ, and all but the
/// first where they are the same key. The other keys of the set count.
fn without_twins(candidates: Vec<Candidate>, ignored: &mut Vec<IgnoredKey>) -> Vec<PublicKey> {
    let verdict = |candidate: &Candidate| {
        let mut twins = candidates.iter().filter(|other| other.has_kid_of(candidate));
        if !twins.clone().all(|other| other.is_same_key(candidate)) {
            return Some(KeyError::AmbiguousKid);
        }
        let is_first = twins.next().is_none_or(|first| first.position == candidate.position);
        (!is_first).then_some(KeyError::Repeated)
    };
    let verdicts: Vec<Option<KeyError>> = candidates.iter().map(verdict).collect();
    let mut keys = Vec::new();
    for (candidate, verdict) in candidates.into_iter().zip(verdicts) {
        match verdict {
            None => keys.push(candidate.key),
            Some(error) => ignored.push(IgnoredKey { position: candidate.position, error }),
        }
    }
    keys
}

fn has_secret(jwk: &JsonObject<'_>) -> bool {
    PRIVATE_MEMBERS.iter().any(|member| jwk.get(member).is_some())
}

fn is_authority(jwk: &JsonObject<'_>) -> bool {
    matches!(jwk.get("use"), Some(JsonValue::String(own)) if own == "x509-svid")
}

/// Reads one authority (X.509-SVID §6.2): its certificate is the first value of `x5c`, and the key of the
/// certificate is the one that the entry states (RFC 7517 §4.7).
fn read_authority(jwk: &JsonObject<'_>) -> Result<Authority, KeyError> {
    let first = match jwk.get("x5c") {
        Some(JsonValue::Array(values)) => values.first(),
        _ => None,
    };
    let Some(JsonValue::String(first)) = first else {
        return Err(KeyError::NoCertificate);
    };
    if first.len() > MAX_CERTIFICATE_TEXT {
        return Err(KeyError::CertificateTooLong);
    }
    let der = STANDARD.decode(first.as_bytes()).map_err(KeyError::CertificateEncoding)?;
    let authority = Authority::read(der)?;
    if authority.public_key() != public_key_bits(jwk)? {
        return Err(KeyError::OtherKey);
    }
    Ok(authority)
}

/// The key that an entry states, as the bits of a SubjectPublicKeyInfo (RFC 5480 §2.2, RFC 8017
/// A.1.1, RFC 8410 §4).
fn public_key_bits(jwk: &JsonObject<'_>) -> Result<Vec<u8>, KeyError> {
    match text(jwk, "kty")? {
        Some("EC") => {
            let (_, _, size) = curve(jwk)?;
            ec_point(jwk, size)
        }
        Some("RSA") => {
            let (modulus, exponent) = rsa_numbers(jwk)?;
            authority::rsa_public_key(&modulus, &exponent).ok_or(KeyError::NotRsa)
        }
        Some("OKP") => {
            check_ed25519_curve(jwk)?;
            ed25519_point(jwk)
        }
        _ => Err(KeyError::UnsupportedType),
    }
}

/// Reads one key for the algorithms of `allowed`.
fn read_key(
    jwk: &JsonObject<'_>,
    purpose: Purpose,
    allowed: &[Algorithm],
) -> Result<PublicKey, KeyError> {
    check_use(jwk, purpose)?;
    let kid = text(jwk, "kid")?;
    if purpose == Purpose::Svid && kid.is_none() {
        return Err(KeyError::NoKid);
    }
    let own = match text(jwk, "alg")? {
        None => None,
        Some(name) => Some(Algorithm::parse(name).ok_or(KeyError::UnsupportedAlgorithm)?),
    };
    let is_usable = |algorithm: &Algorithm| {
        allowed.contains(algorithm) && own.is_none_or(|own| own == *algorithm)
    };
    let prepared = match text(jwk, "kty")? {
        Some("RSA") => prepare_rsa(jwk, &is_usable)?,
        Some("EC") => prepare_ec(jwk, &is_usable)?,
        Some("OKP") => prepare_ed25519(jwk, &is_usable)?,
        _ => return Err(KeyError::UnsupportedType),
    };
    if prepared.is_empty() {
        return Err(KeyError::NoAcceptedAlgorithm);
    }
    if purpose == Purpose::Own && kid != Some(&*URL_SAFE_NO_PAD.encode(digest(jwk)?)) {
        return Err(KeyError::OtherKid);
    }
    Ok(PublicKey { kid: kid.map(str::to_owned), prepared })
}

/// Checks `use` and `key_ops` (RFC 7517 §4.2, §4.3).
fn check_use(jwk: &JsonObject<'_>, purpose: Purpose) -> Result<(), KeyError> {
    match (purpose, text(jwk, "use")?) {
        (Purpose::Svid, Some("jwt-svid"))
        | (Purpose::Signature | Purpose::Own, None | Some("sig")) => {}
        (Purpose::Svid, _) => return Err(KeyError::NotForSvids),
        (Purpose::Signature | Purpose::Own, _) => return Err(KeyError::NotForSignatures),
    }
    let is_verify =
        |name: &JsonValue<'_>| matches!(name, JsonValue::String(name) if name == "verify");
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(JsonValue::Array(operations)) if operations.iter().any(is_verify) => Ok(()),
        Some(_) => Err(KeyError::NotForVerification),
    }
}

/// The SHA-256 thumbprint of a public key (RFC 7638) in base64url: the `kid` of keys that sign task
/// credentials, and the value of `cnf.jkt`. `jwk` is JSON.
///
/// # Errors
/// Authz verifies no signature by the key.
pub fn thumbprint(jwk: &str) -> Result<String, KeyError> {
    let jwk = json::read_object(jwk.as_bytes(), SET_LIMITS).map_err(KeyError::Text)?;
    let (_, digest) = PublicKey::read(&jwk, &Algorithm::ALL)?;
    Ok(URL_SAFE_NO_PAD.encode(digest))
}

/// The SHA-256 thumbprint of a key (RFC 7638 §3): over the members that it must have, sorted by name,
/// without white space. The members of a key that was read before need no escaping.
fn digest(jwk: &JsonObject<'_>) -> Result<[u8; 32], KeyError> {
    let names: &[&'static str] = match text(jwk, "kty")? {
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("RSA") => &["e", "kty", "n"],
        Some("OKP") => &["crv", "kty", "x"],
        _ => return Err(KeyError::UnsupportedType),
    };
    let mut hash = Sha256::new();
    for (position, name) in names.iter().enumerate() {
        let value = text(jwk, name)?.ok_or(KeyError::MissingMember)?;
        hash.update(if position == 0 { "{\"" } else { ",\"" });
        hash.update(name);
        hash.update("\":\"");
        hash.update(value);
        hash.update("\"");
    }
    Ok(hash.chain_update("}").finalize().into())
}

fn prepare_ec(
    jwk: &JsonObject<'_>,
    is_usable: &dyn Fn(&Algorithm) -> bool,
) -> Result<PreparedKeys, KeyError> {
    let (algorithm, parameters, size) = curve(jwk)?;
    if !is_usable(&algorithm) {
        return Err(KeyError::NoAcceptedAlgorithm);
    }
    let key = ParsedPublicKey::new(parameters, ec_point(jwk, size)?)
        .map_err(|_| KeyError::PointOffCurve)?;
    Ok(vec![(algorithm, key)])
}

/// The curve of an EC key: its only algorithm, the algorithm's parameters and the size of a coordinate.
fn curve(
    jwk: &JsonObject<'_>,
) -> Result<(Algorithm, &'static EcdsaVerificationAlgorithm, usize), KeyError> {
    let name = text(jwk, "crv")?.ok_or(KeyError::NoCurve)?;
    Algorithm::of_curve(name).ok_or(KeyError::UnsupportedCurve)
}

/// The uncompressed point of an EC key (RFC 5480 §2.2).
fn ec_point(jwk: &JsonObject<'_>, size: usize) -> Result<Vec<u8>, KeyError> {
    let mut point = vec![4];
    point.extend(coordinate(jwk, "x", size)?);
    point.extend(coordinate(jwk, "y", size)?);
    Ok(point)
}

fn prepare_ed25519(
    jwk: &JsonObject<'_>,
    is_usable: &dyn Fn(&Algorithm) -> bool,
) -> Result<PreparedKeys, KeyError> {
    check_ed25519_curve(jwk)?;
    if !is_usable(&Algorithm::EdDsa) {
        return Err(KeyError::NoAcceptedAlgorithm);
    }
    let key =
        ParsedPublicKey::new(&ED25519, ed25519_point(jwk)?).map_err(|_| KeyError::NotEd25519)?;
    Ok(vec![(Algorithm::EdDsa, key)])
}

fn check_ed25519_curve(jwk: &JsonObject<'_>) -> Result<(), KeyError> {
    match text(jwk, "crv")? {
        Some("Ed25519") => Ok(()),
        _ => Err(KeyError::UnsupportedCurve),
    }
}

fn ed25519_point(jwk: &JsonObject<'_>) -> Result<Vec<u8>, KeyError> {
    let octets = coordinate(jwk, "x", 32)?;
    ed25519::check_point(&octets)?;
    Ok(octets)
}

/// Modulus and exponent of an RSA key; the modulus has 2048 to 8192 bits (RFC 7518 §3.3, §3.5 and the
/// library's bound).
fn rsa_numbers(jwk: &JsonObject<'_>) -> Result<(Vec<u8>, Vec<u8>), KeyError> {
    let (modulus, exponent) = (integer(jwk, "n")?, integer(jwk, "e")?);
    if !(2048..=8192).contains(&bits(&modulus)) {
        return Err(KeyError::ModulusSize);
    }
    Ok((modulus, exponent))
}

/// An RSA key with an odd exponent of 17 to 33 bits (NIST SP 800-56B §6.4.1.1 and the library's bound).
fn prepare_rsa(
    jwk: &JsonObject<'_>,
    is_usable: &dyn Fn(&Algorithm) -> bool,
) -> Result<PreparedKeys, KeyError> {
    let (n, e) = rsa_numbers(jwk)?;
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    if !is_odd(&n) || !is_odd(&e) || !(17..=33).contains(&bits(&e)) {
        return Err(KeyError::NotRsaNumbers);
    }
    let components = RsaPublicKeyComponents { n, e };
    let mut prepared = PreparedKeys::new();
    for algorithm in Algorithm::ALL {
        let Some(parameters) = algorithm.rsa() else {
            continue;
        };
        if is_usable(&algorithm) {
            // Built from its components, then read again as bytes: only reading runs the library's
            // own check of the key.
            let key = components
                .to_parsed_public_key(parameters)
                .and_then(|key| ParsedPublicKey::new(parameters, key.as_ref()))
                .map_err(|_| KeyError::NotRsaNumbers)?;
            prepared.push((algorithm, key));
        }
    }
    Ok(prepared)
}

fn bits(number: &[u8]) -> usize {
    let leading = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    number.len().saturating_mul(8).saturating_sub(leading)
}

/// A positive integer in the fewest octets (RFC 7518 §2, Base64urlUInt).
fn integer(jwk: &JsonObject<'_>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    let number = octets(jwk, name)?;
    match number.first() {
        None | Some(0) => Err(KeyError::NumberEncoding),
        Some(_) => Ok(number),
    }
}

/// A coordinate in exactly its curve's size (RFC 7518 §6.2.1.2, RFC 8037 §2).
fn coordinate(jwk: &JsonObject<'_>, name: &'static str, size: usize) -> Result<Vec<u8>, KeyError> {
    let octets = octets(jwk, name)?;
    if octets.len() == size { Ok(octets) } else { Err(KeyError::CoordinateSize) }
}

fn octets(jwk: &JsonObject<'_>, name: &'static str) -> Result<Vec<u8>, KeyError> {
    let text = text(jwk, name)?.ok_or(KeyError::MissingMember)?;
    URL_SAFE_NO_PAD.decode(text).map_err(KeyError::MemberEncoding)
}

fn text<'a>(jwk: &'a JsonObject<'_>, name: &'static str) -> Result<Option<&'a str>, KeyError> {
    match jwk.get(name) {
        None => Ok(None),
        Some(JsonValue::String(text)) if text.len() <= MAX_MEMBER_BYTES => Ok(Some(text.as_ref())),
        Some(_) => Err(KeyError::IllTypedMember),
    }
}

fn unsigned(set: &JsonObject<'_>, name: &'static str) -> Result<Option<u64>, KeySetError> {
    match set.get(name) {
        None => Ok(None),
        Some(JsonValue::Integer(number)) => {
            u64::try_from(*number).map(Some).map_err(|_| KeySetError::Negative(name))
        }
        Some(_) => Err(KeySetError::NotAnInteger(name)),
    }
}

/// The members of RFC 7518 §6.2.2, §6.3.2, §6.4 and RFC 8037 §2 that no public key has.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
const MAX_SET_BYTES: usize = 1 << 20;
const MAX_KEYS: usize = 128;
const MAX_MEMBER_BYTES: usize = 2048;
const MAX_CERTIFICATE_TEXT: usize = 32_768;
const MAX_TRIED: usize = 4;
const SET_LIMITS: json::JsonLimits = json::JsonLimits { depth: 8, nodes: 16_384 };

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        KeyPair as _, RSA_PSS_SHA256, RsaKeyPair, RsaPssSaltLength, RsaSignatureEncoding,
    };

    use super::*;

    /// Returns whether the key verifies the token's signature.
    fn verifies(jwk: &str, token: &str) -> bool {
        let set = format!("{{\"keys\":[{jwk}]}}");
        let keys = KeySet::read(&set, Purpose::Signature, &Algorithm::ALL).unwrap();
        assert_eq!(1, keys.keys.len(), "{:?}", keys.ignored);
        let parts = JwsParts::split(token, 8192).unwrap();
        let header = JwsHeader::read(&parts).unwrap();
        keys.verify(&header, &parts, nobody).is_ok()
    }

    fn nobody() -> KeyOwner {
        KeyOwner::Issuer(String::new())
    }

    /// RFC 7515 A.2 (RS256) and A.3 (ES256), RFC 8037 A.4 (EdDSA): as printed they verify, with one
    /// character of the payload or signature changed they do not.
    #[test]
    fn the_examples_of_the_standards_verify() {
        const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                              cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k\
                               0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJ\
                               PMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPE\
                               wOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0\
                               LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-\
                               UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uD\
                               Zlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNm\
                               oudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2\
                               PAcDTW9gb54h4FRWyuXpoQ";
        let rs256 = format!(
            "eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOi\
             Zj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9u\
             JdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_n\
             ZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07\
             Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC\
             -eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9Q\
             OYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmt\
             VrBp0igcN_IoypGlUPQGe77Rw"
        );
        let es256 = format!(
            "eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djx\
             La8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        );
        let eddsa = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.\
                     hgyY0il_MGCjP0JzlnLWG1\
                     PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let rsa = format!(r#"{{"kty":"RSA","e":"AQAB","n":"{MODULUS}"}}"#);
        let ec = r#"{"kty":"EC","crv":"P-256",
                     "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                     "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        let okp = r#"{"kty":"OKP","crv":"Ed25519",
                      "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        for (jwk, token) in [(rsa.as_str(), rs256.as_str()), (ec, &es256), (okp, eddsa)] {
            assert!(verifies(jwk, token), "{token}");
            let (input, signature) = token.rsplit_once('.').unwrap();
            let (header, payload) = input.split_once('.').unwrap();
            let changed = |text: &str| {
                let first = if text.starts_with('A') { 'B' } else { 'A' };
                format!("{first}{}", text.chars().skip(1).collect::<String>())
            };
            assert!(!verifies(jwk, &format!("{header}.{}.{signature}", changed(payload))));
            assert!(!verifies(jwk, &format!("{input}.{}", changed(signature))));
        }
    }

    /// A PSS signature whose salt has not the digest's size is refused.
    #[test]
    fn a_pss_salt_of_another_size_is_refused() {
        static LONGEST: RsaSignatureEncoding =
            RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
        static SHORT: RsaSignatureEncoding =
            RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Custom(8));
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let spki = pair.public_key().as_der().unwrap();
        let parameters = Algorithm::Ps256.rsa().unwrap();
        let key = ParsedPublicKey::new(parameters, spki.as_ref()).unwrap();
        let keys = KeySet {
            keys: vec![PublicKey { kid: None, prepared: vec![(Algorithm::Ps256, key)] }],
            authorities: Vec::new(),
            ignored: Vec::new(),
            sequence: None,
            refresh_hint: None,
        };
        let input = format!("{}.e30", URL_SAFE_NO_PAD.encode(r#"{"alg":"PS256"}"#));
        for (encoding, expected) in [(&RSA_PSS_SHA256, true), (&LONGEST, false), (&SHORT, false)] {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
            let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
            let parts = JwsParts::split(&token, 8192).unwrap();
            let header = JwsHeader::read(&parts).unwrap();
            assert_eq!(expected, keys.verify(&header, &parts, nobody).is_ok());
        }
    }
}
