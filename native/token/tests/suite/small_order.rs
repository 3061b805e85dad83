//! Ed25519 keys for which anybody can sign (RFC 8725 §3.4).

use std::sync::LazyLock;

use authz_token::mint::x509::Signer;
use authz_token::mint::{Key, proof};
use authz_token::{
    PeerCache, Presentation, RefusalReason, Role, Scheme, TokenCache, TrustSpec, TrustStore,
    UnixTime, thumbprint, verify, verify_peer, verify_proof,
};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use RefusalReason::{BadCredential, BadProof};

use crate::proof::EASY;
use crate::support::*;

const URI: &str = "https://crm.example/v1/customers";

/// Every encoding of a point of small order: the y coordinate in hex, little-endian, each with both
/// signs of x. The first five are reduced, the last two are not. That of y = 1 and y = -1 with a sign
/// is not canonical either, since their x is 0.
const SMALL: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// The eight points, as they are encoded canonically.
const POINTS: [(usize, bool); 8] =
    [(0, false), (0, true), (1, false), (2, false), (2, true), (3, false), (3, true), (4, false)];

fn encoded(y: &str, is_negative: bool) -> [u8; 32] {
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    let octets: Vec<u8> = y.as_bytes().chunks(2).map(byte).collect();
    let mut octets: [u8; 32] = octets.try_into().unwrap();
    octets[31] |= if is_negative { 0x80 } else { 0 };
    octets
}

fn every_encoding() -> impl Iterator<Item = [u8; 32]> {
    SMALL.into_iter().flat_map(|y| [encoded(y, false), encoded(y, true)])
}

fn jwk(octets: &[u8; 32]) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(octets)})
}

/// Makes a token without any private key: R is the identity and S is 0, which is a signature of each
/// message whose digest is a multiple of the key's order. So messages are tried until one is.
///
/// Returns: the token; none where the library refuses the key itself.
fn forged(octets: &[u8; 32], header: &Value, claims: impl Fn(u32) -> Value) -> Option<String> {
    let mut signature = [0; 64];
    signature[0] = 1;
    let key = UnparsedPublicKey::new(&ED25519, octets);
    (0..256).find_map(|number| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(&claims(number)));
        key.verify(input.as_bytes(), &signature).ok()?;
        Some(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    })
}

/// How many of the eight points the library verifies a forged signature by.
fn forgeable(forge: impl Fn(&[u8; 32]) -> Option<String>) -> usize {
    let point = |(y, sign): &(usize, bool)| encoded(SMALL.get(*y).unwrap(), *sign);
    POINTS.iter().filter(|entry| forge(&point(entry)).is_some()).count()
}

fn forged_proof(octets: &[u8; 32], token: Option<&str>) -> Option<String> {
    let header = json!({"alg": "EdDSA", "typ": "dpop+jwt", "jwk": jwk(octets)});
    forged(octets, &header, |number| proof("POST", URI, NOW, &format!("jti-{number}"), token))
}

/// RFC 9449 §4.3: a proof by a key of small order proves nothing. The naive way takes it from anybody.
#[test]
fn a_proof_by_a_key_of_small_order_is_refused() {
    assert_eq!(8, forgeable(|octets| forged_proof(octets, None)), "the library alone takes them");
    for octets in every_encoding() {
        let forged = forged_proof(&octets, None).unwrap_or_else(|| {
            Key::ed25519("k").sign_with(
                &json!({"alg": "EdDSA", "typ": "dpop+jwt", "jwk": jwk(&octets)}).to_string(),
                &proof("POST", URI, NOW, "x", None).to_string(),
            )
        });
        let refusal = verify_proof(&forged, &EASY, UnixTime(NOW)).unwrap_err();
        assert_eq!(BadProof, refusal.reason);
        assert!(refusal.detail.contains("small order"), "{octets:02x?}: {}", refusal.detail);
        assert!(
            thumbprint(&jwk(&octets).to_string())
                .is_err_and(|error| error.to_string().contains("small order"))
        );
    }
}

/// RFC 7800 §3.1: a token that is bound to the thumbprint of such a key is not good from anybody.
#[test]
fn a_token_bound_to_a_key_of_small_order_is_refused() {
    use sha2::{Digest as _, Sha256};
    for octets in every_encoding() {
        let x = URL_SAFE_NO_PAD.encode(octets);
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let jkt = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
        let token = AGENT_KEY.sign(&but(svid(), "cnf", json!({"jkt": jkt})).to_string());
        let Some(proof) = forged_proof(&octets, Some(&token)) else { continue };
        let evidence = [authz_token::Evidence {
            role: Role::Agent,
            scheme: Scheme::Dpop,
            token: &token,
            proof: Some(&proof),
        }];
        let called = Presentation { nonce: EASY, ..Presentation::default() };
        let trust = compile(&spec());
        let refusal =
            verify(&evidence, &called, &trust, &TokenCache::new(0), UnixTime(NOW)).unwrap_err();
        assert_eq!(BadProof, refusal.reason, "{octets:02x?}");
    }
}

/// RFC 8725 §3.4: in a key set such a key is left out, with a warning, and the other keys count.
#[test]
fn a_key_of_small_order_is_left_out_of_a_set() {
    let header = json!({"alg": "EdDSA", "kid": "weak", "typ": "JWT"});
    let claims = |number: u32| but(user(), "jti", json!(number.to_string()));
    assert_eq!(8, forgeable(|octets| forged(octets, &header, claims)));
    for octets in every_encoding() {
        let weak = but(jwk(&octets), "kid", json!("weak"));
        let keys = json!({"keys": [weak, IDP_KEY.jwk(None)]}).to_string();
        let spec = spec_with_issuer(|issuer| {
            issuer.algorithms = vec!["EdDSA".to_owned(), "ES256".to_owned()];
            issuer.jwks = keys;
        });
        let trust = compile(&spec);
        assert_eq!(1, trust.issuers().first().unwrap().keys, "{octets:02x?}");
        let warned = |one: &authz_token::TrustWarning| one.what.contains("small order: ignored");
        assert!(trust.warnings().iter().any(warned), "{:?}", trust.warnings());
        if let Some(token) = forged(&octets, &header, claims) {
            assert!(check_subject(&spec, &token).is_err(), "{octets:02x?}");
        }
        assert!(check_subject(&spec, &IDP_KEY.sign(&user().to_string())).is_ok());
    }
}

static CA: LazyLock<Signer> = LazyLock::new(|| Signer::authority("a.example"));

/// RFC 8410 §4: nor does a certificate have such a key, that of a workload or of an authority.
#[test]
fn a_certificate_of_a_key_of_small_order_is_refused() {
    let trust = |entries: Value| -> TrustStore {
        let keys = json!({"keys": entries}).to_string();
        let mut spec = TrustSpec { audiences: vec!["authz".to_owned()], ..TrustSpec::default() };
        spec.domains.insert("a.example".to_owned(), domain(&keys));
        compile(&spec)
    };
    let authorities = |entry| trust(json!([entry])).domains().first().unwrap().authorities;
    let with_ca = trust(json!([CA.jwk()]));
    let check = |leaf: &[u8]| verify_peer(&[leaf], &with_ca, &PeerCache::new(0), UnixTime(NOW));
    let sound = Key::ed25519("k").jwk(None);
    let sound = URL_SAFE_NO_PAD
        .decode(sound.get("x").and_then(Value::as_str).unwrap())
        .unwrap()
        .try_into()
        .unwrap();
    assert!(check(&CA.leaf_of_ed25519(AGENT_ID, &sound)).is_ok());
    assert_eq!(1, authorities(CA.authority_of_ed25519("a.example", &sound)));
    for octets in every_encoding() {
        let refusal = check(&CA.leaf_of_ed25519(AGENT_ID, &octets)).unwrap_err();
        assert_eq!(BadCredential, refusal.reason);
        assert!(refusal.detail.contains("small order"), "{}", refusal.detail);
        assert_eq!(0, authorities(CA.authority_of_ed25519("a.example", &octets)), "{octets:02x?}");
    }
}

/// RFC 8032 §5.1.3 step 1: a coordinate that is not reduced is no key, and all others are read.
#[test]
fn an_encoding_is_canonical() {
    let read = |octets: &[u8; 32]| thumbprint(&jwk(octets).to_string());
    for low in 0xed..=0xff_u8 {
        for high in [0x7f, 0xff] {
            let mut octets = [0xff; 32];
            (octets[0], octets[31]) = (low, high);
            assert!(read(&octets).is_err(), "{low:02x}");
        }
    }
    for _ in 0..64 {
        let key = Key::ed25519("k");
        assert_eq!(
            Ok(key.thumbprint()),
            read(&{
                let x = URL_SAFE_NO_PAD
                    .decode(key.jwk(None).get("x").and_then(Value::as_str).unwrap())
                    .unwrap();
                x.try_into().unwrap()
            })
        );
    }
}
