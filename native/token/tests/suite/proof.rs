//! DPoP proofs (RFC 9449 §4).

use std::sync::LazyLock;

use authz_token::mint::{Key, proof};
use authz_token::{Nonces, ProofFacts, Refusal, RefusalReason, Role, UnixTime, verify_proof};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use RefusalReason::{BadProof, UseNonce};

use crate::support::{NOW, but};

const METHOD: &str = "POST";
const URI: &str = "https://crm.example/v1/customers";

/// Whoever calls holds this key.
static KEY: LazyLock<Key> = LazyLock::new(|| Key::es256("unused"));
static OTHER_KEY: LazyLock<Key> = LazyLock::new(|| Key::es256("unused"));

/// No nonce is needed, and any proof within a minute is accepted.
pub(crate) const EASY: Nonces<'static> = Nonces {
    valid: &[],
    needed_before: UnixTime(i64::MIN),
    needed_after: UnixTime(i64::MAX),
    window: 60,
};

fn sound() -> Value {
    proof(METHOD, URI, NOW, "e1j3V_bKic8-LAEB", None)
}

fn check(token: &str) -> Result<ProofFacts, Refusal> {
    verify_proof(token, &EASY, UnixTime(NOW))
}

/// The reason for which a well signed proof with these claims is refused.
fn reason(claims: &Value) -> Option<RefusalReason> {
    check(&KEY.sign_proof(&claims.to_string())).err().map(|refusal| refusal.reason)
}

/// The reason for which a proof with this header, well signed, is refused.
fn header_reason(header: &Value) -> Option<RefusalReason> {
    let token = KEY.sign_with(&header.to_string(), &sound().to_string());
    check(&token).err().map(|refusal| refusal.reason)
}

/// A sound proof says who made it, and for what; every algorithm will do.
#[test]
fn a_sound_proof_gives_facts() {
    for alg in
        ["ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
    {
        let key = Key::generate(alg, "unused");
        let facts = check(&key.sign_proof(&sound().to_string())).unwrap();
        let expected = ProofFacts {
            jkt: key.thumbprint(),
            jti_digest: Sha256::digest("e1j3V_bKic8-LAEB").into(),
            htm: METHOD.to_owned(),
            htu: URI.to_owned(),
            iat: NOW,
            expires_at: NOW + 60,
            role: Role::Agent,
        };
        assert_eq!(expected, facts, "{alg}");
    }
}

/// RFC 9449 Figure 2: the proof of the standard is by the key of its Figure 5, at its time.
#[test]
fn the_example_of_the_standard_verifies() {
    const EXAMPLE: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
                           VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
                           nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
                           QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj\
                           oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia\
                           WF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg\
                           4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
    let at = |now| verify_proof(EXAMPLE, &EASY, UnixTime(now));
    let facts = at(1_562_262_616).unwrap();
    assert_eq!("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", facts.jkt);
    assert!(facts.is_for("POST", "https://server.example.com/token"));
    assert_eq!(BadProof, at(1_562_262_616 + 61).unwrap_err().reason);
}

/// RFC 9449 §4.3 step 2: it is one well-formed JWT, of bounded size; two in one header are none.
#[test]
fn it_is_one_token() {
    let sound = KEY.sign_proof(&sound().to_string());
    assert!(check(&sound).is_ok());
    let (input, signature) = sound.rsplit_once('.').unwrap();
    let (header, payload) = input.split_once('.').unwrap();
    for bad in [
        String::new(),
        "..".to_owned(),
        input.to_owned(),
        format!("{sound}.x"),
        format!("{sound},{sound}"),
        format!("{sound}, {sound}"),
        format!(" {sound}"),
        format!("{sound}="),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode("[]")),
        KEY.sign_proof("[]"),
        KEY.sign_proof(r#"{"jti":"a","jti":"b"}"#),
    ] {
        assert_eq!(BadProof, check(&bad).unwrap_err().reason, "{bad}");
    }
    let twice = self::sound().to_string().replacen('{', r#"{"jti":"x","#, 1);
    assert_eq!(BadProof, check(&KEY.sign_proof(&twice)).unwrap_err().reason);
    let long = but(self::sound(), "x", json!("x".repeat(8192)));
    assert_eq!(Some(BadProof), reason(&long));
}

/// RFC 9449 §4.2, §4.3 step 4: `typ` is `dpop+jwt`, in that spelling.
#[test]
fn the_typ_is_explicit() {
    for typ in [
        json!(null),
        json!("JWT"),
        json!("dpop"),
        json!("DPOP+JWT"),
        json!("application/dpop+jwt"),
        json!("dpop+jwt "),
        json!("at+jwt"),
        json!(7),
    ] {
        let header = but(KEY.proof_header(), "typ", typ.clone());
        assert_eq!(Some(BadProof), header_reason(&header), "{typ}");
    }
}

/// RFC 9449 §4.3 step 5: the algorithm is asymmetric, and the one of its key.
#[test]
fn the_algorithm_is_asymmetric_and_its_keys() {
    for alg in ["none", "None", "HS256", "HS512", "RS256", "ES384", "EdDSA", "es256", ""] {
        let header = but(KEY.proof_header(), "alg", json!(alg));
        assert_eq!(Some(BadProof), header_reason(&header), "{alg}");
    }
    assert_eq!(Some(BadProof), header_reason(&but(KEY.proof_header(), "alg", json!(null))));
    // A public key as the secret of an HMAC.
    let secret = json!({"kty": "oct", "k": "AAAA"});
    let header = but(but(KEY.proof_header(), "alg", json!("HS256")), "jwk", secret.clone());
    assert_eq!(Some(BadProof), header_reason(&header));
    assert_eq!(Some(BadProof), header_reason(&but(KEY.proof_header(), "jwk", secret)));
    let jwk = but(KEY.jwk(None), "alg", json!("ES384"));
    assert_eq!(Some(BadProof), header_reason(&but(KEY.proof_header(), "jwk", jwk)));
}

/// RFC 9449 §4.3 step 6: the signature is by the key in the header; no other key is looked at.
#[test]
fn the_signature_is_by_the_key_that_it_brings() {
    let claims = sound().to_string();
    let header = but(KEY.proof_header(), "jwk", OTHER_KEY.jwk(None));
    assert_eq!(Some(BadProof), header_reason(&header));
    for name in ["jku", "x5u", "x5c", "crit", "b64", "enc", "zip", "cty"] {
        let header = but(KEY.proof_header(), name, json!(["x"]));
        assert_eq!(Some(BadProof), header_reason(&header), "{name}");
    }
    for jwk in [json!(null), json!("x"), json!([]), json!({}), json!({"kty": "EC"})] {
        let header = but(KEY.proof_header(), "jwk", jwk);
        assert_eq!(Some(BadProof), header_reason(&header));
    }
    for (name, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("crv", json!("secp256k1")),
        ("x", json!("AAAA")),
        ("y", json!(null)),
    ] {
        let jwk = but(KEY.jwk(None), name, value);
        let header = but(KEY.proof_header(), "jwk", jwk);
        assert_eq!(Some(BadProof), header_reason(&header), "{name}");
    }
    // What identifies a key besides itself changes nothing.
    let jwk = but(KEY.jwk(Some("sig")), "key_ops", json!(["verify"]));
    assert_eq!(None, header_reason(&but(KEY.proof_header(), "jwk", jwk)));
    assert_eq!(None, header_reason(&but(KEY.proof_header(), "kid", json!("any"))));
    let token = KEY.sign_proof(&claims);
    for position in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        if let Some(byte) = changed.get_mut(position) {
            *byte = if *byte == b'A' { b'B' } else { b'A' };
        }
        let changed = String::from_utf8(changed).unwrap();
        assert!(changed == token || check(&changed).is_err(), "byte {position}");
    }
}

/// RFC 9449 §4.3 step 7: the key holds no private part, of whatever type.
#[test]
fn the_key_is_public() {
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let jwk = but(KEY.jwk(None), name, json!("AAAA"));
        let header = but(KEY.proof_header(), "jwk", jwk);
        assert_eq!(Some(BadProof), header_reason(&header), "{name}");
    }
}

/// RFC 9449 §4.2, §4.3 step 3: each required claim is there, a text, not empty, of bounded size.
#[test]
fn each_required_claim_is_there() {
    for name in ["jti", "htm", "htu", "iat"] {
        for value in [json!(null), json!([]), json!({}), json!(true), json!("")] {
            assert_eq!(
                Some(BadProof),
                reason(&but(sound(), name, value.clone())),
                "{name}: {value}"
            );
        }
        let null = sound().to_string().replace(&format!("\"{name}\":"), "\"x\":");
        let null = null.replacen('{', &format!("{{\"{name}\":null,"), 1);
        assert_eq!(BadProof, check(&KEY.sign_proof(&null)).unwrap_err().reason, "{name}");
    }
    assert_eq!(None, reason(&but(sound(), "jti", json!("x".repeat(255)))));
    assert_eq!(Some(BadProof), reason(&but(sound(), "jti", json!("x".repeat(256)))));
    assert_eq!(Some(BadProof), reason(&but(sound(), "jti", json!("a\nb"))));
    assert_eq!(Some(BadProof), reason(&but(sound(), "htm", json!("X".repeat(65)))));
    assert_eq!(None, reason(&but(sound(), "ext", json!({"of": ["the", "client"]}))));
}

/// RFC 9449 §4.3 step 11, §11.1: it was made a short while ago, or will have been in a moment.
#[test]
fn it_is_recent() {
    for (iat, expected) in
        [(NOW - 61, Some(BadProof)), (NOW - 60, None), (NOW + 60, None), (NOW + 61, Some(BadProof))]
    {
        assert_eq!(expected, reason(&but(sound(), "iat", json!(iat))), "{iat}");
    }
    for iat in [json!("1800000000"), json!(-1), json!(1e300), json!([NOW])] {
        assert_eq!(Some(BadProof), reason(&but(sound(), "iat", iat)));
    }
    let facts = check(&KEY.sign_proof(&but(sound(), "iat", json!(1_799_999_990.7)).to_string()));
    let facts = facts.unwrap();
    assert_eq!((NOW - 10, NOW + 50), (facts.iat, facts.expires_at));
    // A proof that says itself when it ends or begins is held to that.
    assert_eq!(Some(BadProof), reason(&but(sound(), "exp", json!(NOW))));
    assert_eq!(None, reason(&but(sound(), "exp", json!(NOW + 1))));
    assert_eq!(Some(BadProof), reason(&but(sound(), "exp", json!("soon"))));
    assert_eq!(Some(BadProof), reason(&but(sound(), "nbf", json!(NOW + 61))));
    assert_eq!(None, reason(&but(sound(), "nbf", json!(NOW + 60))));
    let ends = check(&KEY.sign_proof(&but(sound(), "exp", json!(NOW + 9)).to_string())).unwrap();
    assert_eq!(NOW + 8, ends.expires_at);
}

/// For as long as a proof is accepted it says that it must be remembered, and no longer.
#[test]
fn it_is_accepted_until_it_says() {
    let token = KEY.sign_proof(&sound().to_string());
    for window in [0, 1, 60, 300, i64::MAX] {
        let nonces = Nonces { window, ..EASY };
        let at = |now| verify_proof(&token, &nonces, UnixTime(now));
        let end = at(NOW).unwrap().expires_at;
        assert!(at(end).is_ok());
        assert!(end == i64::MAX || at(end + 1).is_err());
    }
}

/// RFC 9449 §4.3 step 10, §8: a nonce is one of ours; one is needed where the proof may have been
/// seen by who forgot it.
#[test]
fn a_nonce_is_ours_and_there_where_it_is_needed() {
    let valid = ["new", "old"];
    let with = |needed_before: i64, nonce: Value| {
        let nonces = Nonces { valid: &valid, needed_before: UnixTime(needed_before), ..EASY };
        let token = KEY.sign_proof(&but(sound(), "nonce", nonce).to_string());
        verify_proof(&token, &nonces, UnixTime(NOW)).err().map(|refusal| refusal.reason)
    };
    for needed_before in [i64::MIN, NOW, NOW + 1, i64::MAX] {
        let needed = needed_before > NOW;
        assert_eq!(None, with(needed_before, json!("new")));
        assert_eq!(None, with(needed_before, json!("old")));
        assert_eq!(Some(UseNonce), with(needed_before, json!("older")));
        assert_eq!(Some(UseNonce), with(needed_before, json!("")));
        assert_eq!(Some(BadProof), with(needed_before, json!(7)));
        assert_eq!(needed.then_some(UseNonce), with(needed_before, json!(null)));
    }
    // One that is dated ahead of a clock that forgets needs one too.
    for (needed_after, needed) in [(NOW, true), (NOW + 29, true), (NOW + 30, false)] {
        let nonces = Nonces { valid: &valid, needed_after: UnixTime(needed_after), ..EASY };
        for (nonce, needed) in [(json!(null), needed), (json!("new"), false)] {
            let ahead = but(but(sound(), "iat", json!(NOW + 30)), "nonce", nonce);
            let refusal = verify_proof(&KEY.sign_proof(&ahead.to_string()), &nonces, UnixTime(NOW));
            let expected = needed.then_some(UseNonce);
            assert_eq!(expected, refusal.err().map(|refusal| refusal.reason));
        }
    }
    assert_eq!("BAD_PROOF", UseNonce.code());
    // A proof that is wrong in another way gets no nonce.
    let old = KEY.sign_proof(&but(sound(), "iat", json!(NOW - 61)).to_string());
    let refusal = verify_proof(&old, &Nonces::default(), UnixTime(NOW)).unwrap_err();
    assert_eq!(BadProof, refusal.reason);
    // Nothing is accepted by default.
    let token = KEY.sign_proof(&sound().to_string());
    let refusal = verify_proof(&token, &Nonces::default(), UnixTime(NOW)).unwrap_err();
    assert_eq!(UseNonce, refusal.reason);
}

fn made_for(method: &str, uri: &str) -> Option<ProofFacts> {
    check(&KEY.sign_proof(&proof(method, uri, NOW, "x", None).to_string())).ok()
}

/// RFC 9449 §4.3 step 8: the method is that of the request, with regard to case.
#[test]
fn the_method_is_the_requests() {
    let facts = made_for("POST", URI).unwrap();
    assert!(facts.is_for("POST", URI));
    for method in ["GET", "post", "Post", "POST ", "", "POSTS"] {
        assert!(!facts.is_for(method, URI), "{method}");
    }
}

/// RFC 9449 §4.3 step 9: the URI is that of the request, in whatever spelling (RFC 3986 §6.2.2,
/// §6.2.3), whatever its query and fragment.
#[test]
fn the_uri_is_the_requests() {
    let same = [
        "https://crm.example/v1/a-b",
        "HTTPS://CRM.Example/v1/a-b",
        "https://crm.example:443/v1/a-b",
        "https://crm.example:/v1/a-b",
        "https://crm.example:0443/v1/a-b",
        "https://crm.example/v1/a%2Db",
        "https://crm.example/v1/a%2db",
        "https://crm.example/v1/%61-b",
        "https://crm.example/v1/./a-b",
        "https://crm.example/v1/x/../a-b",
        "https://crm.example/../v1/a-b",
        "https://crm.example/v1/x/%2E%2e/a-b",
        "https://crm.example/v1/a-b?",
        "https://crm.example/v1/a-b?q=1&r=/../x",
        "https://crm.example/v1/a-b#f",
        "https://crm.example/v1/a-b?q#f",
    ];
    let others = [
        "http://crm.example/v1/a-b",
        "https://crm.example:8443/v1/a-b",
        "https://crm.example.evil/v1/a-b",
        "https://crm.example./v1/a-b",
        "https://evil.example/v1/a-b",
        "https://crm.example/v1/a-b/",
        "https://crm.example/V1/a-b",
        "https://crm.example/v1//a-b",
        "https://crm.example/v1/a-B",
        "https://crm.example/v1%2Fa-b",
        "https://crm.example/v1/a-b%00",
        "https://crm.example/v1/a-b/.",
        "https://crm.example/",
    ];
    for htu in same {
        let facts = made_for("GET", htu).unwrap();
        assert_eq!(same.first(), Some(&facts.htu.as_str()), "{htu}");
        for uri in same {
            assert!(facts.is_for("GET", uri), "{htu} {uri}");
        }
        for uri in others {
            assert!(!facts.is_for("GET", uri), "{htu} {uri}");
        }
    }
    let root = made_for("GET", "https://[2001:DB8::1]:8443").unwrap();
    assert!(root.is_for("GET", "https://[2001:db8::1]:8443/"));
    assert!(!root.is_for("GET", "https://[2001:db8::1]/"));
    assert!(made_for("GET", "http://127.0.0.1:80/a").unwrap().is_for("GET", "http://127.0.0.1/a"));
    for uri in [
        "",
        "/v1/a-b",
        "crm.example/v1/a-b",
        "https:/crm.example/v1",
        "https:///v1",
        "https://:443/v1",
        "ftp://crm.example/v1",
        "wss://crm.example/v1",
        "https://user@crm.example/v1",
        "https://user:x@crm.example/v1",
        "https://crm.example\\@evil.example/v1",
        "https://crm.example/a\\b",
        "https://crm.example:x/v1",
        "https://crm.example:+443/v1",
        "https://crm.example:65536/v1",
        "https://crm.example:443:443/v1",
        "https://crm.exam ple/v1",
        "https://crm.example/a b",
        "https://crm.example/a%2",
        "https://crm.example/a%zz",
        "https://crm.example/\u{e9}",
        "https://cr\u{e9}m.example/",
        "https://[::1/v1",
        "https://[]/v1",
        "https://[::1]x/v1",
        "https://[v1.x]/v1",
        "https://crm%2eexample/v1",
    ] {
        assert!(made_for("GET", uri).is_none(), "{uri}");
        let facts = made_for("GET", URI).unwrap();
        assert!(!facts.is_for("GET", uri), "{uri}");
    }
    let long = format!("https://crm.example/{}", "x".repeat(4096));
    assert!(!made_for("GET", URI).unwrap().is_for("GET", &long));
}

/// What refuses a proof repeats none of it.
#[test]
fn a_refusal_holds_nothing_of_the_proof() {
    let secret = "PRIVATE-WORD";
    for claims in [
        but(sound(), "jti", json!([secret])),
        but(sound(), "htu", json!(secret)),
        but(sound(), "nonce", json!(secret)),
        but(sound(), "iat", json!(secret)),
    ] {
        let refusal = check(&KEY.sign_proof(&claims.to_string())).unwrap_err();
        assert!(!refusal.detail.contains(secret), "{refusal}");
        assert_eq!(None, refusal.unknown_key);
    }
    let header = but(KEY.proof_header(), "typ", json!(secret));
    let refusal = check(&KEY.sign_with(&header.to_string(), "{}")).unwrap_err();
    assert!(!refusal.detail.contains(secret), "{refusal}");
}

/// RFC 7638 §3.1: the thumbprint of the standard's own key; of an Ed25519 key as in RFC 8037 A.3.
#[test]
fn thumbprints_are_those_of_the_standards() {
    // RFC 8037 A.1 and A.3: nobody else signs with this key, so only the thumbprint is asked, by the
    // id that our own keys must have.
    let okp = json!({"kty": "OKP", "crv": "Ed25519",
                     "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
                     "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"});
    let own = |keys: Value| {
        let mut spec = crate::support::spec();
        spec.own = Some(authz_token::OwnSpec {
            issuer: "https://authz.example".to_owned(),
            keys: json!({"keys": keys}).to_string(),
        });
        crate::support::compile(&spec).own().unwrap().kids
    };
    assert_eq!(vec!["kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"], own(json!([okp])));
    assert!(own(json!([but(okp, "kid", json!("kPrK"))])).is_empty());
    // Members that are not required, and their order, change nothing.
    for alg in ["ES256", "ES384", "ES512", "EdDSA", "RS256"] {
        let key = Key::generate(alg, "unused");
        let mut jwk = key.jwk(Some("sig"));
        jwk = but(jwk, "alg", json!(alg));
        jwk = but(jwk, "a", json!("first"));
        jwk = but(jwk, "z", json!("last"));
        let header = but(key.proof_header(), "jwk", jwk);
        let token = key.sign_with(&header.to_string(), &sound().to_string());
        assert_eq!(key.thumbprint(), check(&token).unwrap().jkt, "{alg}");
    }
}

/// RFC 7638 §3.1: the key and the thumbprint that the standard prints.
#[test]
fn the_thumbprint_of_an_rsa_key_is_that_of_the_standard() {
    const MODULUS: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAt\
                           VT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn6\
                           4tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F\
                           DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1\
                           n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPks\
                           INHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
    let rsa = json!({"kty": "RSA", "n": MODULUS, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
    let text = authz_token::thumbprint(&rsa.to_string()).unwrap();
    assert_eq!("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", text);
    for bad in
        [json!({}), json!([]), json!({"kty": "oct", "k": "AAAA"}), but(rsa, "d", json!("AA"))]
    {
        assert!(authz_token::thumbprint(&bad.to_string()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The normal form of a URI is its own normal form, and two spellings of one path have one form.
    #[test]
    fn a_normal_form_is_stable(path in "(/(\\.|\\.\\.|[a-z]{0,3}|%[0-9a-fA-F]{2}|%2[eEfF])){0,6}") {
        let uri = format!("https://crm.example{path}");
        if let Some(facts) = made_for("GET", &uri) {
            prop_assert!(facts.is_for("GET", &uri));
            prop_assert!(facts.is_for("GET", &facts.htu));
            prop_assert!(!facts.htu.contains("/../") && !facts.htu.contains("/./"));
            let again = made_for("GET", &facts.htu).unwrap();
            prop_assert_eq!(facts.htu, again.htu);
        } else {
            prop_assert!(false, "{} is a URI", uri);
        }
    }

    /// A proof is accepted exactly within its window, whatever the clock says.
    #[test]
    fn a_window_has_two_ends(iat in 0_i64..4_000_000_000, now in 0_i64..4_000_000_000, near in -400_i64..400, window in 0_i64..301) {
        let token = KEY.sign_proof(&but(sound(), "iat", json!(iat)).to_string());
        let nonces = Nonces { window, ..EASY };
        for now in [now, iat + near] {
            let accepted = verify_proof(&token, &nonces, UnixTime(now)).is_ok();
            prop_assert_eq!((now - iat).abs() <= window, accepted);
        }
    }
}
