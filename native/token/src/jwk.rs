//! Public keys: JWK sets (RFC 7517, RFC 7518 §6, RFC 8037 §2) and SPIFFE bundles (SPIFFE Trust
//! Domain and Bundle §4, JWT-SVID §6).
//!
//! Keys are checked and prepared here, once, so that verifying a signature parses none.

use aws_lc_rs::signature::{ED25519, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::algorithm::Algorithm;
use crate::authority::{self, Authority};
use crate::ed25519;
use crate::json::{self, Object, Value};
use crate::jws::{Header, Parts};
use crate::refusal::{KeyOwner, Refusal};

/// What a set of keys is for.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// SVIDs: `use` must be `jwt-svid`, and `kid` is required, or `x509-svid`, with a certificate.
    Svid,
    /// Subject tokens and proofs: `use` must be `sig` or absent.
    Signature,
    /// Task credentials: as of [`Purpose::Signature`], and `kid` must be the key's own thumbprint.
    Own,
}

/// A usable key, prepared for each algorithm that it may be used with.
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    prepared: Vec<(Algorithm, ParsedPublicKey)>,
}

impl Key {
    /// Reads a public key that somebody brings along, and its SHA-256 thumbprint.
    ///
    /// Errors: why it is none that one of `algorithms` signs with, in our own words.
    pub(crate) fn read_public(
        jwk: &Object<'_>,
        algorithms: &[Algorithm],
    ) -> Result<(Self, [u8; 32]), &'static str> {
        if PRIVATE_MEMBERS.iter().any(|member| jwk.get(member).is_some()) {
            return Err("it holds a private or secret key");
        }
        Ok((read_key(jwk, Purpose::Signature, algorithms)?, digest(jwk)?))
    }

    /// Whether it made the signature over the message.
    pub(crate) fn made(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.prepared_for(algorithm).is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }

    fn prepared_for(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.prepared.iter().find(|(own, _)| *own == algorithm).map(|(_, key)| key)
    }
}

/// The usable keys of one trust domain or issuer.
pub(crate) struct KeySet {
    pub(crate) keys: Vec<Key>,
    /// The authorities of X.509-SVIDs.
    pub(crate) authorities: Vec<Authority>,
    /// Why keys were left out, by position, for the operator.
    pub(crate) ignored: Vec<String>,
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
    /// names one key (RFC 7517 §4.5). The set as a whole is an error where it is no JWK set, or
    /// publishes a private key.
    pub(crate) fn read(
        text: &str,
        purpose: Purpose,
        allowed: &[Algorithm],
    ) -> Result<Self, String> {
        if text.len() > MAX_SET_BYTES {
            return Err("longer than 1 MiB".to_owned());
        }
        let set = json::read_object(text.as_bytes(), SET_LIMITS)
            .map_err(|error| format!("no JWK set: {error}"))?;
        let Some(Value::Array(entries)) = set.get("keys") else {
            return Err("no JWK set: it has no array `keys`".to_owned());
        };
        if entries.len() > MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys"));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut authorities = Vec::new();
        let mut ignored = Vec::new();
        for (position, entry) in entries.iter().enumerate() {
            let Value::Object(jwk) = entry else {
                return Err(format!("key {position} is no JSON object"));
            };
            if PRIVATE_MEMBERS.iter().any(|member| jwk.get(member).is_some()) {
                return Err(format!("key {position} holds a private or secret key"));
            }
            if purpose == Purpose::Svid && is_authority(jwk) {
                match read_authority(jwk) {
                    Ok(authority) => authorities.push(authority),
                    Err(why) => ignored.push(format!("key {position}: {why}")),
                }
                continue;
            }
            match Candidate::read(position, jwk, purpose, allowed) {
                Ok(candidate) => candidates.push(candidate),
                Err(why) => ignored.push(format!("key {position}: {why}")),
            }
        }
        let keys = without_twins(candidates, &mut ignored);
        let sequence = unsigned(&set, "spiffe_sequence")?;
        let refresh_hint = unsigned(&set, "spiffe_refresh_hint")?;
        Ok(Self { keys, authorities, ignored, sequence, refresh_hint })
    }

    /// Whether nothing in it is usable, so that nothing of its owner is valid.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.authorities.is_empty()
    }

    /// Verifies a signature by the key that the header names.
    ///
    /// A `kid` that no usable key has is [`crate::RefusalReason::UntrustedIssuer`]: whoever signed,
    /// its key is none of those trusted. A key that is known and does not fit, or a signature that
    /// it did not make, is [`crate::RefusalReason::BadCredential`]. A token without `kid` is tried
    /// with each key that fits its algorithm, of which there may be at most four.
    /// `owner` says whose keys they are.
    pub(crate) fn verify(
        &self,
        header: &Header,
        parts: &Parts<'_>,
        owner: impl FnOnce() -> KeyOwner,
    ) -> Result<&Key, Refusal> {
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
    key: Key,
}

impl Candidate {
    fn read(
        position: usize,
        jwk: &Object<'_>,
        purpose: Purpose,
        allowed: &[Algorithm],
    ) -> Result<Self, &'static str> {
        Ok(Self { position, key: read_key(jwk, purpose, allowed)?, thumbprint: digest(jwk)? })
    }

    fn has_kid_of(&self, other: &Self) -> bool {
        self.key.kid.is_some() && self.key.kid == other.key.kid
    }

    /// Whether both entries state the same key for the same algorithms.
    fn is_same_key(&self, other: &Self) -> bool {
        let algorithms = |of: &Self| -> Vec<Algorithm> {
            of.key.prepared.iter().map(|(algorithm, _)| *algorithm).collect()
        };
        self.thumbprint == other.thumbprint && algorithms(self) == algorithms(other)
    }
}

/// Leaves out keys whose `kid` stands more than once: all of them where they differ, and all but the
/// first where they are the same key. The other keys of the set count.
fn without_twins(candidates: Vec<Candidate>, ignored: &mut Vec<String>) -> Vec<Key> {
    let verdict = |candidate: &Candidate| {
        let mut twins = candidates.iter().filter(|other| other.has_kid_of(candidate));
        if !twins.clone().all(|other| other.is_same_key(candidate)) {
            return Some("its `kid` is also that of a different key");
        }
        let is_first = twins.next().is_none_or(|first| first.position == candidate.position);
        (!is_first).then_some("it stands twice")
    };
    let verdicts: Vec<Option<&str>> = candidates.iter().map(verdict).collect();
    let mut keys = Vec::new();
    for (candidate, verdict) in candidates.into_iter().zip(verdicts) {
        match verdict {
            None => keys.push(candidate.key),
            Some(why) => ignored.push(format!("key {}: {why}", candidate.position)),
        }
    }
    keys
}

fn is_authority(jwk: &Object<'_>) -> bool {
    matches!(jwk.get("use"), Some(Value::String(own)) if own == "x509-svid")
}

/// Reads one authority (X.509-SVID §6.2), or says why it is left out: the certificate is the first
/// value of `x5c`, and its key is the one that the entry states (RFC 7517 §4.7).
fn read_authority(jwk: &Object<'_>) -> Result<Authority, &'static str> {
    let first = match jwk.get("x5c") {
        Some(Value::Array(values)) => values.first(),
        _ => None,
    };
    let Some(Value::String(first)) = first else {
        return Err("it has no certificate in `x5c`");
    };
    if first.len() > MAX_CERTIFICATE_TEXT {
        return Err("its certificate is too long");
    }
    let der =
        STANDARD.decode(first.as_bytes()).map_err(|_| "its certificate is not canonical base64")?;
    let authority = Authority::read(der)?;
    if authority.public_key() != public_key(jwk)? {
        return Err("its key is not that of its certificate");
    }
    Ok(authority)
}

/// The key that an entry states, as the bits of a SubjectPublicKeyInfo (RFC 5480 §2.2, RFC 8017
/// A.1.1, RFC 8410 §4).
fn public_key(jwk: &Object<'_>) -> Result<Vec<u8>, &'static str> {
    match text(jwk, "kty")? {
        Some("EC") => {
            let crv = text(jwk, "crv")?.ok_or("it has no `crv`")?;
            let (_, _, size) = Algorithm::of_curve(crv).ok_or("its `crv` is not supported")?;
            let mut point = vec![4];
            point.extend(coordinate(jwk, "x", size)?);
            point.extend(coordinate(jwk, "y", size)?);
            Ok(point)
        }
        Some("RSA") => {
            let (n, e) = (integer(jwk, "n")?, integer(jwk, "e")?);
            if !(2048..=8192).contains(&bits(&n)) {
                return Err("its modulus is not of 2048 to 8192 bits");
            }
            authority::rsa_public_key(&n, &e).ok_or("it is not an RSA key")
        }
        Some("OKP") if text(jwk, "crv")? == Some("Ed25519") => {
            let octets = coordinate(jwk, "x", 32)?;
            ed25519::check(&octets)?;
            Ok(octets)
        }
        Some("OKP") => Err("its `crv` is not supported"),
        _ => Err("its `kty` is not supported"),
    }
}

/// Reads one key, or says why it is left out.
fn read_key(
    jwk: &Object<'_>,
    purpose: Purpose,
    allowed: &[Algorithm],
) -> Result<Key, &'static str> {
    let r#use = text(jwk, "use")?;
    match (purpose, r#use) {
        (Purpose::Svid, Some("jwt-svid"))
        | (Purpose::Signature | Purpose::Own, None | Some("sig")) => {}
        (Purpose::Svid, _) => return Err("its `use` is neither `jwt-svid` nor `x509-svid`"),
        (Purpose::Signature | Purpose::Own, _) => return Err("its `use` is not `sig`"),
    }
    match jwk.get("key_ops") {
        None => {}
        Some(Value::Array(operations))
            if operations
                .iter()
                .any(|own| matches!(own, Value::String(own) if own == "verify")) => {}
        Some(_) => return Err("its `key_ops` do not hold `verify`"),
    }
    let kid = text(jwk, "kid")?;
    if purpose == Purpose::Svid && kid.is_none() {
        return Err("it has no `kid`");
    }
    let own = match text(jwk, "alg")? {
        None => None,
        Some(name) => Some(Algorithm::parse(name).ok_or("its `alg` is not supported")?),
    };
    let usable = |algorithm: &Algorithm| {
        allowed.contains(algorithm) && own.is_none_or(|own| own == *algorithm)
    };
    let unfit = "its type and `alg` allow none of the accepted algorithms";
    let prepared = match text(jwk, "kty")? {
        Some("RSA") => rsa(jwk, &usable)?,
        Some("EC") => {
            let crv = text(jwk, "crv")?.ok_or("it has no `crv`")?;
            let (algorithm, parameters, size) =
                Algorithm::of_curve(crv).ok_or("its `crv` is not supported")?;
            if !usable(&algorithm) {
                return Err(unfit);
            }
            let mut point = vec![4];
            point.extend(coordinate(jwk, "x", size)?);
            point.extend(coordinate(jwk, "y", size)?);
            let key = ParsedPublicKey::new(parameters, point)
                .map_err(|_| "its point is not on its curve")?;
            vec![(algorithm, key)]
        }
        Some("OKP") => {
            if text(jwk, "crv")? != Some("Ed25519") {
                return Err("its `crv` is not supported");
            }
            if !usable(&Algorithm::EdDsa) {
                return Err(unfit);
            }
            let octets = coordinate(jwk, "x", 32)?;
            ed25519::check(&octets)?;
            let key =
                ParsedPublicKey::new(&ED25519, octets).map_err(|_| "it is not an Ed25519 key")?;
            vec![(Algorithm::EdDsa, key)]
        }
        _ => return Err("its `kty` is not supported"),
    };
    if prepared.is_empty() {
        return Err(unfit);
    }
    if purpose == Purpose::Own && kid != Some(&*URL_SAFE_NO_PAD.encode(digest(jwk)?)) {
        return Err("its `kid` is not its SHA-256 thumbprint (RFC 7638)");
    }
    Ok(Key { kid: kid.map(str::to_owned), prepared })
}

/// The SHA-256 thumbprint of a public key (RFC 7638), which is the `kid` of keys that sign task
/// credentials, and what `cnf.jkt` names.
///
/// Args: `jwk`: the JSON text of a public JWK that a signature is verified by.
/// Returns: the thumbprint in base64url.
/// Errors: why it is no such key, in our own words.
pub fn thumbprint(jwk: &str) -> Result<String, &'static str> {
    let jwk = json::read_object(jwk.as_bytes(), SET_LIMITS).map_err(|_| "it is no JSON object")?;
    let (_, digest) = Key::read_public(&jwk, &Algorithm::ALL)?;
    Ok(URL_SAFE_NO_PAD.encode(digest))
}

/// The SHA-256 thumbprint of a key (RFC 7638 §3): over the members that it must have, sorted by name,
/// without white space. What they hold needs no escaping where the key was read before.
fn digest(jwk: &Object<'_>) -> Result<[u8; 32], &'static str> {
    let names: &[&'static str] = match text(jwk, "kty")? {
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("RSA") => &["e", "kty", "n"],
        Some("OKP") => &["crv", "kty", "x"],
        _ => return Err("its `kty` is not supported"),
    };
    let mut hash = Sha256::new();
    for (position, name) in names.iter().enumerate() {
        let value = text(jwk, name)?.ok_or("it lacks a member of its type")?;
        hash.update(if position == 0 { "{\"" } else { ",\"" });
        hash.update(name);
        hash.update("\":\"");
        hash.update(value);
        hash.update("\"");
    }
    Ok(hash.chain_update("}").finalize().into())
}

/// An RSA key of 2048 to 8192 bits (RFC 7518 §3.3, §3.5 and the library's bound) and an odd
/// exponent of 17 to 33 bits (NIST SP 800-56B §6.4.1.1 and the library's bound).
fn rsa(
    jwk: &Object<'_>,
    usable: &dyn Fn(&Algorithm) -> bool,
) -> Result<Vec<(Algorithm, ParsedPublicKey)>, &'static str> {
    let n = integer(jwk, "n")?;
    let e = integer(jwk, "e")?;
    if !(2048..=8192).contains(&bits(&n)) {
        return Err("its modulus is not of 2048 to 8192 bits");
    }
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    if !odd(&n) || !odd(&e) || !(17..=33).contains(&bits(&e)) {
        return Err("its modulus or exponent is not one of RSA");
    }
    let components = RsaPublicKeyComponents { n, e };
    let mut prepared = Vec::new();
    for algorithm in Algorithm::ALL {
        let Some(parameters) = algorithm.rsa() else {
            continue;
        };
        if usable(&algorithm) {
            // Built from its components, then read again as bytes: only reading runs the library's
            // own check of the key.
            let key = components
                .to_parsed_public_key(parameters)
                .and_then(|key| ParsedPublicKey::new(parameters, key.as_ref()))
                .map_err(|_| "its modulus or exponent is not one of RSA")?;
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
fn integer(jwk: &Object<'_>, name: &'static str) -> Result<Vec<u8>, &'static str> {
    let number = octets(jwk, name)?;
    match number.first() {
        None | Some(0) => Err("its modulus or exponent has leading zeros or is empty"),
        Some(_) => Ok(number),
    }
}

/// A coordinate in exactly its curve's size (RFC 7518 §6.2.1.2, RFC 8037 §2).
fn coordinate(jwk: &Object<'_>, name: &'static str, size: usize) -> Result<Vec<u8>, &'static str> {
    let octets = octets(jwk, name)?;
    if octets.len() == size { Ok(octets) } else { Err("a coordinate has not its curve's size") }
}

fn octets(jwk: &Object<'_>, name: &'static str) -> Result<Vec<u8>, &'static str> {
    let text = text(jwk, name)?.ok_or("it lacks a member of its type")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member is not canonical base64url")
}

fn text<'a>(jwk: &'a Object<'_>, name: &'static str) -> Result<Option<&'a str>, &'static str> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= MAX_MEMBER_BYTES => Ok(Some(text.as_ref())),
        Some(_) => Err("a member is ill-typed or too long"),
    }
}

fn unsigned(set: &Object<'_>, name: &'static str) -> Result<Option<u64>, String> {
    match set.get(name) {
        None => Ok(None),
        Some(Value::Integer(number)) => {
            u64::try_from(*number).map(Some).map_err(|_| format!("`{name}` is negative"))
        }
        Some(_) => Err(format!("`{name}` is no integer of 64 bits")),
    }
}

/// The members of RFC 7518 §6.2.2, §6.3.2, §6.4 and RFC 8037 §2 that no public key has.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
const MAX_SET_BYTES: usize = 1 << 20;
const MAX_KEYS: usize = 128;
const MAX_MEMBER_BYTES: usize = 2048;
const MAX_CERTIFICATE_TEXT: usize = 32_768;
const MAX_TRIED: usize = 4;
const SET_LIMITS: json::Limits = json::Limits { depth: 8, nodes: 16_384 };

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

    /// Whether the key verifies the token's signature.
    fn verifies(jwk: &str, token: &str) -> bool {
        let set = format!("{{\"keys\":[{jwk}]}}");
        let keys = KeySet::read(&set, Purpose::Signature, &Algorithm::ALL).unwrap();
        assert_eq!(1, keys.keys.len(), "{:?}", keys.ignored);
        let parts = Parts::split(token, 8192).unwrap();
        let header = Header::read(&parts).unwrap();
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
            keys: vec![Key { kid: None, prepared: vec![(Algorithm::Ps256, key)] }],
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
            let parts = Parts::split(&token, 8192).unwrap();
            let header = Header::read(&parts).unwrap();
            assert_eq!(expected, keys.verify(&header, &parts, nobody).is_ok());
        }
    }
}
