//! Tokens that are bound to a key (RFC 7800), and the two ways to prove that key: a DPoP proof (RFC
//! 9449) and the client's certificate (RFC 8705).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::dpop::{self, Nonces, ProofContext};
use crate::evidence::{Evidence, Scheme};
use crate::facts::{KeyBinding, ProofFacts, UnixTime};
use crate::json::{JsonObject, JsonValue};
use crate::refusal::{Refusal, RefusalReason};

/// Facts of a call's transport that bound tokens are verified by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presentation<'a> {
    /// SHA-256 of the client's certificate in DER, if the client presented one to Authz or to an enforcer
    /// that may relay it.
    pub certificate: Option<[u8; 32]>,
    /// Nonces and clock by which proofs of possession are verified.
    pub nonce: Nonces<'a>,
}

/// Reads `cnf`: absent, or one method whose key can be proved here.
///
/// RFC 7800 §3.1 lets a method that is not understood be ignored; RFC 9449 §6 and RFC 8705 §3 do not
/// let a bound token pass for a bearer token. So a method that is not understood refuses the token.
pub(crate) fn read(claims: &JsonObject<'_>) -> Result<Option<KeyBinding>, Refusal> {
    let unmet = |what: &str| Err(unbound(&format!("the token's `cnf` {what}")));
    let cnf = match claims.get("cnf") {
        None => return Ok(None),
        Some(JsonValue::Object(cnf)) => cnf,
        Some(_) => return unmet("is no object"),
    };
    let mut members = cnf.iter();
    let (Some((name, value)), None) = (members.next(), members.next()) else {
        return unmet("does not hold exactly one method");
    };
    let digest = match value {
        JsonValue::String(text) => URL_SAFE_NO_PAD.decode(text.as_ref()).ok(),
        _ => None,
    };
    let digest = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok());
    match (name, digest) {
        ("jkt", Some(digest)) => Ok(Some(KeyBinding::Jkt(digest))),
        ("x5t#S256", Some(digest)) => Ok(Some(KeyBinding::X5t(digest))),
        ("jkt" | "x5t#S256", None) => unmet("is not the base64url of a SHA-256 digest"),
        _ => unmet("is neither `jkt` nor `x5t#S256`"),
    }
}

/// Checks the scheme of a credential and its proof, before any token is read.
pub(crate) fn check_scheme(evidence: &Evidence<'_>) -> Result<(), Refusal> {
    match (evidence.scheme, evidence.proof) {
        (Scheme::Bearer, None) | (Scheme::Dpop, Some(_)) => Ok(()),
        (Scheme::Bearer, Some(_)) => Err(bad_proof("a proof came with a bearer token")),
        (Scheme::Dpop, None) => Err(bad_proof("the scheme `DPoP` came without a proof")),
        (Scheme::Wpt, _) => Err(bad_proof("the scheme `WPT` is not in this version")),
        (Scheme::Other, _) => Err(Refusal::bad("the scheme is not known")),
    }
}

/// Checks that the caller proved the key to which a token is bound; each presentation is checked, also that
/// of a cached token.
///
/// `evidence` has passed [`check_scheme`]. Returns the proof, if one is needed.
pub(crate) fn check(
    evidence: &Evidence<'_>,
    binding: Option<KeyBinding>,
    token_digest: &[u8; 32],
    presentation: &Presentation<'_>,
    now: UnixTime,
) -> Result<Option<ProofFacts>, Refusal> {
    match (binding, evidence.proof) {
        (None, None) => Ok(None),
        (Some(KeyBinding::Jkt(jkt)), Some(proof)) => {
            let context =
                ProofContext { role: evidence.role, jkt: Some(&jkt), token: Some(token_digest) };
            dpop::verify(proof, context, &presentation.nonce, now).map(Some)
        }
        (Some(KeyBinding::Jkt(_)), None) => {
            Err(unbound("the token is bound to a key and came as a bearer token"))
        }
        (Some(KeyBinding::X5t(digest)), None) => match presentation.certificate {
            Some(certificate) if certificate == digest => Ok(None),
            Some(_) => Err(unbound("the token is bound to another certificate than the client's")),
            None => Err(unbound("the token is bound to a certificate and the client showed none")),
        },
        (None | Some(KeyBinding::X5t(_)), Some(_)) => {
            Err(bad_proof("the token that the proof came with is not bound to a key by `jkt`"))
        }
    }
}

fn bad_proof(detail: &str) -> Refusal {
    Refusal::new(RefusalReason::BadProof, detail)
}

fn unbound(detail: &str) -> Refusal {
    Refusal::new(RefusalReason::UnboundCredential, detail)
}
