//! Import of keys: what makes a JWK usable, ignored, or its whole set refused.

use authz_token::mint::{Key, bundle};
use authz_token::{Presentation, Role, TokenCache, TrustSpec, TrustStore, UnixTime, verify};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::*;

const ALL: [&str; 10] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

/// How many keys of this set are usable for the issuer's tokens; an error where it is refused.
fn usable(keys: &str) -> Result<usize, String> {
    let spec = spec_with_issuer(|issuer| {
        issuer.algorithms = ALL.map(str::to_owned).to_vec();
        issuer.jwks = keys.to_owned();
    });
    match TrustStore::compile(&spec) {
        Ok(trust) => Ok(trust.issuers().first().unwrap().keys),
        Err(errors) => Err(errors.first().unwrap().defect.to_string()),
    }
}

fn one(jwk: &Value) -> Result<usize, String> {
    usable(&json!({"keys": [jwk]}).to_string())
}

/// How many keys of this bundle are usable for JWT-SVIDs.
fn usable_svid(jwk: &Value) -> usize {
    let keys = json!({"keys": [jwk]}).to_string();
    compile(&spec_with_bundle(&keys)).domains().first().unwrap().keys
}

fn base64url(bytes: &[u8]) -> Value {
    json!(URL_SAFE_NO_PAD.encode(bytes))
}

fn octets(jwk: &Value, name: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(jwk.get(name).unwrap().as_str().unwrap()).unwrap()
}

/// A bundle key needs `use: jwt-svid`, in that spelling; without `use` it is ignored.
#[test]
fn a_bundle_key_is_for_jwt_svids() {
    assert_eq!(1, usable_svid(&AGENT_KEY.jwk(Some("jwt-svid"))));
    for r#use in [None, Some("x509-svid"), Some("wit-svid"), Some("sig"), Some("JWT-SVID")] {
        assert_eq!(0, usable_svid(&AGENT_KEY.jwk(r#use)), "{:?}", r#use);
    }
}

/// A bundle key without `kid` is ignored.
#[test]
fn a_bundle_key_has_a_kid() {
    assert_eq!(0, usable_svid(&but(AGENT_KEY.jwk(Some("jwt-svid")), "kid", json!(null))));
}

/// Entries of unknown type or use are ignored, and the rest of the bundle counts.
#[test]
fn unknown_entries_are_ignored() {
    let keys = json!({"keys": [
        {"kty": "AKP", "kid": "pq", "use": "jwt-svid"},
        {"kty": "EC", "kid": "x", "use": "future-svid"},
        {"kid": "no type", "use": "jwt-svid"},
        {"kty": "OKP", "crv": "X25519", "kid": "dh", "use": "jwt-svid", "x": "AAAA"},
        {},
        AGENT_KEY.jwk(Some("jwt-svid")),
    ], "other": {"x": 1}});
    let spec = spec_with_bundle(&keys.to_string());
    assert_eq!(1, compile(&spec).domains().first().unwrap().keys);
    assert_eq!(5, compile(&spec).warnings().len());
    assert!(check_agent(&spec, &AGENT_KEY.sign(&svid().to_string())).is_ok());
}

/// An Ed25519 key is none for JWT-SVIDs.
#[test]
fn an_eddsa_key_is_none_for_svids() {
    assert_eq!(0, usable_svid(&Key::ed25519("k").jwk(Some("jwt-svid"))));
}

/// `keys` is required and an array of objects; the text is JSON with distinct members.
#[test]
fn a_set_is_a_json_object_with_keys() {
    for bad in [
        "",
        "[]",
        "{}",
        "{\"keys\":{}}",
        "{\"keys\":null}",
        "{\"keys\":[1]}",
        "{\"keys\":[]}x",
        "{\"keys\":[],\"keys\":[]}",
    ] {
        assert!(usable(bad).is_err(), "{bad}");
        assert!(TrustStore::compile(&spec_with_bundle(bad)).is_err(), "{bad}");
    }
    let twice = bundle(&[&AGENT_KEY]).replace("\"kty\":\"EC\"", "\"kty\":\"EC\",\"kty\":\"EC\"");
    assert!(TrustStore::compile(&spec_with_bundle(&twice)).is_err());
}

/// A bundle whose sequence goes down, or is gone, does not take the place of the one in use: the
/// naive way would bring the keys of the past back.
#[test]
fn a_sequence_never_goes_down() {
    let old_key = Key::es256("old");
    let with = |key: &Key, sequence: Option<u64>| {
        let mut bundle = json!({"keys": [key.jwk(Some("jwt-svid"))]});
        if let Some(sequence) = sequence {
            bundle = but(bundle, "spiffe_sequence", json!(sequence));
        }
        spec_with_bundle(&bundle.to_string())
    };
    let token = old_key.sign(&svid().to_string());
    let accepts = |trust: &TrustStore, token: &str| {
        let evidence = [evidence(Role::Agent, token)];
        verify(&evidence, &Presentation::default(), trust, &TokenCache::new(0), UnixTime(NOW))
            .is_ok()
    };
    let status = |trust: &TrustStore| {
        let status = trust.domains().first().unwrap().clone();
        (status.sequence, status.rolled_back)
    };
    let warned = |trust: &TrustStore, words: &str| {
        trust.warnings().iter().any(|warning| warning.what.contains(words))
    };
    let big = u64::try_from(i64::MAX).unwrap();
    let current = compile(&with(&AGENT_KEY, Some(big)));
    for sequence in [Some(big - 1), Some(0), None] {
        let past = with(&old_key, sequence);
        assert!(accepts(&compile(&past), &token), "the naive way takes it");
        let kept = TrustStore::compile_after(&past, Some(&current)).unwrap();
        assert!(!accepts(&kept, &token));
        assert!(accepts(&kept, &AGENT_KEY.sign(&svid().to_string())));
        assert_eq!((Some(big), true), status(&kept));
        assert!(warned(&kept, "lower than that of the bundle in use"));
        assert_eq!(current.revision(), kept.revision(), "nothing that is in use changed");
        // Once more: what was kept is what the next one is measured by.
        let again = TrustStore::compile_after(&past, Some(&kept)).unwrap();
        assert_eq!((Some(big), true), status(&again));
    }
    // An empty one brings nothing back: it makes the domain invalid, whatever it says of its sequence.
    for empty in [r#"{"keys":[]}"#, r#"{"keys":[],"spiffe_sequence":3}"#] {
        let emptied = TrustStore::compile_after(&spec_with_bundle(empty), Some(&current)).unwrap();
        assert!(!accepts(&emptied, &token));
        assert!(!accepts(&emptied, &AGENT_KEY.sign(&svid().to_string())));
        assert!(warned(&emptied, "every SVID of this domain is refused"));
        let past = with(&old_key, Some(big - 1));
        let mut next = emptied;
        for _ in 0..2 {
            next = TrustStore::compile_after(&past, Some(&next)).unwrap();
            assert_eq!((Some(big), true), status(&next), "no way back through an empty one");
            assert!(!accepts(&next, &token));
        }
    }
    // Upwards, from none, and for another domain it is taken; so is a change that was not counted,
    // with a warning.
    let low = compile(&with(&AGENT_KEY, Some(7)));
    let none = compile(&with(&AGENT_KEY, None));
    for (previous, sequence) in [(&low, Some(8)), (&low, Some(7)), (&none, None), (&none, Some(0))]
    {
        let next = TrustStore::compile_after(&with(&old_key, sequence), Some(previous)).unwrap();
        assert_eq!((sequence, false), status(&next));
        assert!(accepts(&next, &token));
        assert_eq!(sequence == Some(7), warned(&next, "content changed"));
    }
    // A bundle that was taken away, for it was too old, and is given again, is no change to warn of.
    let gone = spec_with_bundle(r#"{"keys":[],"spiffe_sequence":7}"#);
    let gone = TrustStore::compile_after(&gone, Some(&low)).unwrap();
    let back = TrustStore::compile_after(&with(&AGENT_KEY, Some(7)), Some(&gone)).unwrap();
    assert!(!warned(&gone, "content changed") && !warned(&back, "content changed"));
    let past = TrustStore::compile_after(&with(&old_key, Some(6)), Some(&gone)).unwrap();
    assert!(status(&past) == (Some(7), true) && !accepts(&past, &token));
    let mut other = with(&old_key, Some(1));
    let domain = other.domains.remove("a.example").unwrap();
    other.domains.insert("b.example".to_owned(), domain);
    let next = TrustStore::compile_after(&other, Some(&low)).unwrap();
    assert_eq!((Some(1), false), status(&next));
    // A malformed bundle is refused as ever.
    let malformed = spec_with_bundle("{}");
    assert!(TrustStore::compile_after(&malformed, Some(&low)).is_err());
}

/// A bundle is also measured by what was used before there was one in use, such as before a restart: an
/// older one, or one without a sequence, gives the domain no keys.
#[test]
fn a_sequence_is_not_lower_than_what_was_used_before() {
    let old_key = Key::es256("old");
    let with = |key: &Key, sequence: Option<u64>, least: Option<u64>| {
        let mut bundle = json!({"keys": [key.jwk(Some("jwt-svid"))]});
        if let Some(sequence) = sequence {
            bundle = but(bundle, "spiffe_sequence", json!(sequence));
        }
        let mut spec = spec_with_bundle(&bundle.to_string());
        spec.domains.get_mut("a.example").unwrap().min_sequence = least;
        spec
    };
    let status = |trust: &TrustStore| {
        let status = trust.domains().first().unwrap().clone();
        (status.keys, status.sequence, status.rolled_back)
    };
    for sequence in [Some(6), Some(0), None] {
        let past = with(&old_key, sequence, Some(7));
        assert_eq!(1, compile(&with(&old_key, sequence, None)).domains().first().unwrap().keys);
        let refused = compile(&past);
        assert_eq!((0, Some(7), true), status(&refused), "{sequence:?}");
        let warned = |one: &authz_token::TrustWarning| one.what.contains("until a newer one comes");
        assert!(refused.warnings().iter().any(warned));
        // The same again stays refused, and what is new enough is taken.
        let again = TrustStore::compile_after(&past, Some(&refused)).unwrap();
        assert_eq!((0, Some(7), true), status(&again));
        let new = TrustStore::compile_after(&with(&AGENT_KEY, Some(7), Some(7)), Some(&again));
        assert_eq!((1, Some(7), false), status(&new.unwrap()));
    }
    for sequence in [7, 8] {
        let new = compile(&with(&AGENT_KEY, Some(sequence), Some(7)));
        assert_eq!((1, Some(sequence), false), status(&new));
        // The one in use stays where an older one comes.
        let past = with(&old_key, Some(6), Some(7));
        let kept = TrustStore::compile_after(&past, Some(&new)).unwrap();
        assert_eq!((1, Some(sequence), true), status(&kept));
    }
    // No keys are none of the past.
    let mut empty = spec_with_bundle(r#"{"keys":[]}"#);
    empty.domains.get_mut("a.example").unwrap().min_sequence = Some(7);
    let empty = compile(&empty);
    assert_eq!((0, Some(7), false), status(&empty));
    let past = TrustStore::compile_after(&with(&old_key, Some(6), None), Some(&empty)).unwrap();
    assert_eq!((0, Some(7), true), status(&past));
}

/// `spiffe_sequence` and `spiffe_refresh_hint` are integers of 64 bits, and are shown.
#[test]
fn sequence_and_refresh_hint_are_integers() {
    let keys = |sequence: Value, hint: Value| {
        let mut keys = json!({"keys": [AGENT_KEY.jwk(Some("jwt-svid"))]});
        let members = keys.as_object_mut().unwrap();
        members.insert("spiffe_sequence".to_owned(), sequence);
        members.insert("spiffe_refresh_hint".to_owned(), hint);
        spec_with_bundle(&keys.to_string())
    };
    let status = compile(&keys(json!(i64::MAX), json!(300))).domains();
    let status = status.first().unwrap();
    assert_eq!(Some(u64::try_from(i64::MAX).unwrap()), status.sequence);
    assert_eq!(Some(300), status.refresh_hint);
    let absent = compile(&spec_with_bundle(r#"{"keys":[]}"#)).domains();
    assert_eq!((None, None), absent.first().map(|d| (d.sequence, d.refresh_hint)).unwrap());
    for bad in [json!(-1), json!(1.5), json!("7"), json!(null), json!([])] {
        assert!(TrustStore::compile(&keys(bad.clone(), json!(1))).is_err(), "sequence {bad}");
        assert!(TrustStore::compile(&keys(json!(1), bad.clone())).is_err(), "hint {bad}");
    }
}

/// An issuer's key is for signatures, by `use`, `key_ops` and `alg`.
#[test]
fn an_issuer_key_is_for_signatures() {
    let jwk = IDP_KEY.jwk(None);
    assert_eq!(Ok(1), one(&jwk));
    for (name, value, expected) in [
        ("use", json!("sig"), 1),
        ("use", json!("enc"), 0),
        ("use", json!("jwt-svid"), 0),
        ("use", json!(7), 0),
        ("key_ops", json!(["verify"]), 1),
        ("key_ops", json!(["deriveKey"]), 0),
        ("key_ops", json!([]), 0),
        ("key_ops", json!("verify"), 0),
        ("alg", json!("ES256"), 1),
        ("alg", json!("ES384"), 0),
        ("alg", json!("RS256"), 0),
        ("alg", json!("ECDH-ES"), 0),
        ("alg", json!("HS256"), 0),
        ("alg", json!("none"), 0),
    ] {
        assert_eq!(Ok(expected), one(&but(jwk.clone(), name, value.clone())), "{name} {value}");
    }
}

/// A private key or a shared secret in a published set refuses the set.
#[test]
fn a_private_key_refuses_the_set() {
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let result = one(&but(IDP_KEY.jwk(None), name, json!("AAAA")));
        assert!(result.is_err_and(|what| what.contains("private")), "{name}");
    }
    assert!(one(&json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"})).is_err());
    assert_eq!(Ok(0), one(&json!({"kty": "oct", "alg": "HS256"})));
}

/// RFC 7517 §4.5: a `kid` names one key. Of different keys with one `kid` none counts, a key that
/// stands twice counts once, and both times the other keys of the set count.
#[test]
fn a_kid_names_one_key() {
    let other = Key::es256("other");
    let (own, rogue) = (IDP_KEY.jwk(None), ROGUE_IDP_KEY.jwk(None));
    let trust = |keys: &[&Value]| {
        let jwks = json!({"keys": keys}).to_string();
        spec_with_issuer(|issuer| issuer.jwks = jwks)
    };
    let takes = |spec: &TrustSpec, key: &Key| check_subject(spec, &key.sign(&user().to_string()));
    let warnings = |spec: &TrustSpec| -> Vec<String> {
        compile(spec).warnings().iter().map(|warning| warning.what.clone()).collect()
    };
    let differs = "its `kid` is also that of a different key: ignored";
    // The naive ways take the first or the last, or refuse the set and `other` with it.
    for keys in [[&own, &rogue], [&rogue, &own]] {
        let [first, second] = keys;
        let spec = trust(&[first, &other.jwk(None), second]);
        assert!(takes(&spec, &IDP_KEY).is_err() && takes(&spec, &ROGUE_IDP_KEY).is_err());
        assert!(takes(&spec, &other).is_ok());
        let expected = [format!("key 0: {differs}"), format!("key 2: {differs}")];
        assert_eq!(expected, *warnings(&spec));
    }
    // A copy beside them changes nothing.
    let spec = trust(&[&own, &own, &rogue, &other.jwk(None)]);
    assert!(takes(&spec, &IDP_KEY).is_err() && takes(&spec, &other).is_ok());
    assert_eq!(3, warnings(&spec).len());
    let spec = trust(&[&own, &other.jwk(None), &own]);
    assert!(takes(&spec, &IDP_KEY).is_ok() && takes(&spec, &other).is_ok());
    assert_eq!(["key 2: it stands twice: ignored".to_owned()], *warnings(&spec));
    // The same key under another name is another entry; so are keys without any.
    let unnamed = but(own.clone(), "kid", json!(null));
    assert_eq!(Ok(3), usable(&json!({"keys": [unnamed, unnamed, rogue]}).to_string()));
    // The same key with other algorithms is a different one, and an entry that is not usable is none.
    let rsa = |alg| but(RSA_KEY.jwk(None), "alg", json!(alg));
    assert_eq!(Ok(0), usable(&json!({"keys": [rsa("RS256"), rsa("PS256")]}).to_string()));
    let encrypts = but(rogue.clone(), "use", json!("enc"));
    assert_eq!(Ok(1), usable(&json!({"keys": [own, encrypts]}).to_string()));
    // Nor do twins of a bundle spoil it.
    let mut entries = vec![AGENT_KEY.jwk(Some("jwt-svid")), ROGUE_AGENT_KEY.jwk(Some("jwt-svid"))];
    entries.push(other.jwk(Some("jwt-svid")));
    let spec = spec_with_bundle(&json!({"keys": entries}).to_string());
    let svid = svid().to_string();
    assert!(check_agent(&spec, &AGENT_KEY.sign(&svid)).is_err());
    assert!(check_agent(&spec, &ROGUE_AGENT_KEY.sign(&svid)).is_err());
    assert!(check_agent(&spec, &other.sign(&svid)).is_ok());
}

/// The size of a set is bounded.
#[test]
fn a_set_is_bounded() {
    let keys: Vec<Value> = (0..129).map(|i| json!({"kty": "?", "kid": i.to_string()})).collect();
    assert!(usable(&json!({"keys": keys}).to_string()).is_err());
    let long = json!({"keys": [], "pad": "x".repeat(1 << 20)}).to_string();
    assert!(usable(&long).is_err());
}

/// An EC point has both coordinates, in its curve's size, and lies on the curve.
#[test]
fn an_ec_point_is_on_its_curve() {
    for alg in ["ES256", "ES384", "ES512"] {
        let key = Key::generate(alg, "k");
        let jwk = key.jwk(None);
        assert_eq!(Ok(1), one(&jwk));
        let mut y = octets(&jwk, "y");
        *y.last_mut().unwrap() ^= 1;
        assert_eq!(Ok(0), one(&but(jwk.clone(), "y", base64url(&y))), "{alg}: off the curve");
        let x = octets(&jwk, "x");
        let longer = [&[0], x.as_slice()].concat();
        assert_eq!(Ok(0), one(&but(jwk.clone(), "x", base64url(&longer))), "{alg}: longer");
        let zero = vec![0; x.len()];
        let origin = but(but(jwk.clone(), "x", base64url(&zero)), "y", base64url(&zero));
        assert_eq!(Ok(0), one(&origin), "{alg}: zero");
        for name in ["x", "y", "crv"] {
            assert_eq!(Ok(0), one(&but(jwk.clone(), name, json!(null))), "{alg}: no {name}");
        }
        for crv in ["P-192", "secp256k1", "Ed25519", "p-256"] {
            assert_eq!(Ok(0), one(&but(jwk.clone(), "crv", json!(crv))), "{alg}: {crv}");
        }
    }
    let p256 = IDP_KEY.jwk(None);
    assert_eq!(Ok(0), one(&but(p256, "crv", json!("P-384"))), "a point of another curve");
}

/// A coordinate with fewer octets than its curve's size is refused, not padded.
#[test]
fn a_short_coordinate_is_refused() {
    let jwk = IDP_KEY.jwk(None);
    let x = octets(&jwk, "x");
    let (_, short) = x.split_first().unwrap();
    assert_eq!(Ok(0), one(&but(jwk, "x", base64url(short))));
}

/// An RSA modulus has 2048 to 8192 bits, no leading zeros, and a sound exponent.
#[test]
fn an_rsa_key_has_a_sound_size_and_exponent() {
    let jwk = RSA_KEY.jwk(None);
    assert_eq!(Ok(1), one(&jwk));
    let n = octets(&jwk, "n");
    let (_, shorter) = n.split_first().unwrap();
    let mut even = n.clone();
    *even.last_mut().unwrap() ^= 1;
    let mut huge = vec![0xff; 1025];
    huge.fill(0xff);
    for bad in [
        [&[0], n.as_slice()].concat(),
        shorter.to_vec(),
        n.iter().copied().take(128).collect(),
        even,
        huge,
        Vec::new(),
    ] {
        let length = bad.len();
        assert_eq!(Ok(0), one(&but(jwk.clone(), "n", base64url(&bad))), "{length} octets");
    }
    for bad in [&[][..], &[0], &[1], &[3], &[2], &[1, 0, 0], &[0, 1, 0, 1], &[4, 0, 0, 0, 1]] {
        assert_eq!(Ok(0), one(&but(jwk.clone(), "e", base64url(bad))), "{bad:?}");
    }
    for name in ["n", "e"] {
        assert_eq!(Ok(0), one(&but(jwk.clone(), name, json!(null))));
        assert_eq!(Ok(0), one(&but(jwk.clone(), name, json!("AQAB="))));
        assert_eq!(Ok(0), one(&but(jwk.clone(), name, json!(65537))));
    }
}

/// An Ed25519 key has `crv` and 32 octets.
#[test]
fn an_ed25519_key_has_32_octets() {
    let jwk = Key::ed25519("k").jwk(None);
    assert_eq!(Ok(1), one(&jwk));
    let x = octets(&jwk, "x");
    for bad in [x.iter().copied().take(31).collect(), [x.as_slice(), &[0]].concat(), Vec::new()] {
        assert_eq!(Ok(0), one(&but(jwk.clone(), "x", base64url(&bad))));
    }
    for crv in [json!(null), json!("Ed448"), json!("X25519"), json!("P-256")] {
        assert_eq!(Ok(0), one(&but(jwk.clone(), "crv", crv)));
    }
}

/// A specification read from JSON is strict.
#[test]
fn a_specification_is_read_strictly() {
    let text = serde_json::to_vec(&spec()).unwrap();
    assert_eq!(spec(), TrustSpec::from_json(&text).unwrap());
    assert_eq!(TrustSpec::default(), TrustSpec::from_json(b"{}").unwrap());
    for bad in [
        r#"{"x":1}"#,
        r#"{"leeway_seconds":5,"leeway_seconds":5}"#,
        r#"{"leeway_seconds":-1}"#,
        r#"{"domains":{"a":{"bundle":"","from":""},"a":{"bundle":"","from":""}}}"#,
        r#"{"domains":{"a":{"bundle":"{}"}}}"#,
        r#"{"issuers":{"a":{"issuer":"x","jwks":"","from":"","secret":""}}}"#,
        "[]",
        "",
    ] {
        assert!(TrustSpec::from_json(bad.as_bytes()).is_err(), "{bad}");
    }
}
