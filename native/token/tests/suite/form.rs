//! The compact form and the protected header.

use authz_token::RefusalReason::BadCredential;
use authz_token::Role;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::support::*;

fn both_refuse(token: &str) {
    for role in [Role::Agent, Role::Subject] {
        let refusal = check_at(&spec(), &[evidence(role, token)], NOW).unwrap_err();
        assert_eq!((BadCredential, Some(role)), (refusal.reason, refusal.role), "{token}");
    }
}

/// A token is exactly three parts; JSON serialization and encrypted tokens are not accepted.
#[test]
fn only_three_parts_are_a_token() {
    let token = AGENT_KEY.sign(&svid().to_string());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = input.split_once('.').unwrap();
    let json = json!({"protected": header, "payload": payload, "signature": signature});
    for bad in [
        String::new(),
        "..".to_owned(),
        input.to_owned(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{payload}.{payload}.{payload}.{signature}"),
        json.to_string(),
        json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]})
            .to_string(),
    ] {
        both_refuse(&bad);
    }
}

/// An unprotected header has no place in a token: only the JSON serialization could carry one.
#[test]
fn an_unprotected_header_is_refused() {
    let token = AGENT_KEY.sign(&svid().to_string());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (_, payload) = input.split_once('.').unwrap();
    let header = json!({"alg": "ES256", "kid": "agent-key"});
    both_refuse(&json!({"header": header, "payload": payload, "signature": signature}).to_string());
}

/// White space, padding, the other alphabet and stray trailing bits are no base64url.
#[test]
fn only_canonical_base64url_is_read() {
    let token = AGENT_KEY.sign(&svid().to_string());
    assert!(check_agent(&spec(), &token).is_ok());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = input.split_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut bad = vec![
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("{header}\n.{payload}.{signature}"),
        format!("{header}.{payload}=.{signature}"),
        format!("{input}.{}", URL_SAFE.encode(&bytes)),
        format!("{input}.{}+/", STANDARD.encode(&bytes)),
    ];
    // 64 octets leave four unused bits in the last character: each of the 15 other endings decodes
    // to the same signature in a lenient decoder.
    let (stem, last) = signature.split_at(signature.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let value = alphabet.find(last).unwrap();
    bad.extend((1..16).map(|bits| {
        let other = alphabet.get(value + bits..=value + bits).unwrap();
        format!("{input}.{stem}{other}")
    }));
    for bad in &bad {
        both_refuse(bad);
    }
}

/// The header is one JSON object in UTF-8.
#[test]
fn the_header_is_one_json_object() {
    for header in ["", "{", "[]", "null", "\"ES256\"", "{\"alg\":\"ES256\"}x", "{\"alg\":'ES256'}"]
    {
        both_refuse(&AGENT_KEY.sign_with(header, &svid().to_string()));
    }
    let payload = URL_SAFE_NO_PAD.encode(svid().to_string());
    let input =
        format!("{}.{payload}", URL_SAFE_NO_PAD.encode(b"{\"alg\":\"ES256\",\"x\":\"\xff\"}"));
    let signature = URL_SAFE_NO_PAD.encode(AGENT_KEY.signature(input.as_bytes()));
    both_refuse(&format!("{input}.{signature}"));
}

/// A header parameter that stands twice is refused, whichever of the two would have been good.
#[test]
fn a_header_parameter_twice_is_refused() {
    for header in [
        r#"{"alg":"ES256","alg":"ES256","kid":"agent-key"}"#,
        r#"{"alg":"none","kid":"agent-key","alg":"ES256"}"#,
        r#"{"alg":"ES256","kid":"agent-key","\u006bid":"agent-key"}"#,
    ] {
        both_refuse(&AGENT_KEY.sign_with(header, &svid().to_string()));
    }
}

/// `alg` is required, a text, and one of the algorithms by its exact name.
#[test]
fn alg_is_required_and_known() {
    for alg in [
        json!(null),
        json!(7),
        json!([]),
        json!(""),
        json!("es256"),
        json!("ES256K"),
        json!("EdDSA "),
        json!("RS1"),
        json!("dir"),
        json!("A128GCM"),
        json!("RSA-OAEP"),
    ] {
        let header = but(json!({"kid": "agent-key"}), "alg", alg);
        assert_eq!(Some(BadCredential), agent_header_reason(&header), "{header}");
        assert_eq!(Some(BadCredential), subject_header_reason(&header), "{header}");
    }
}

/// An unsigned token is never accepted, however `none` is written.
#[test]
fn none_is_never_accepted() {
    for alg in ["none", "None", "NONE", "nOnE"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "agent-key"}).to_string());
        for claims in [svid(), user()] {
            let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
            both_refuse(&format!("{header}.{payload}."));
            both_refuse(&format!("{header}.{payload}.AA"));
        }
    }
}

/// An HMAC whose secret is the public key of the issuer is never accepted.
#[test]
fn an_hmac_is_never_accepted() {
    use aws_lc_rs::hmac;
    for (name, algorithm) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        for (key, claims) in [(&*AGENT_KEY, svid()), (&*IDP_KEY, user())] {
            let header = json!({"alg": name, "kid": key.kid()}).to_string();
            let input = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(header),
                URL_SAFE_NO_PAD.encode(claims.to_string())
            );
            let secret = hmac::Key::new(algorithm, key.jwk(None).to_string().as_bytes());
            let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, input.as_bytes()));
            both_refuse(&format!("{input}.{tag}"));
        }
    }
}

/// A key that the token brings along, or names a place for, is never used.
#[test]
fn keys_of_the_header_are_refused() {
    for (name, value) in [
        ("jwk", ROGUE_IDP_KEY.jwk(None)),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["MIIB"])),
        ("jwk", json!(null)),
    ] {
        let mut header = json!({"alg": "ES256", "kid": "idp-key"});
        header.as_object_mut().unwrap().insert(name.to_owned(), value);
        for key in [&*IDP_KEY, &*ROGUE_IDP_KEY] {
            let token = key.sign_with(&header.to_string(), &user().to_string());
            assert_eq!(BadCredential, check_subject(&spec(), &token).unwrap_err().reason, "{name}");
        }
    }
}

/// Extensions that must be understood are not: `crit` and `b64` are refused, also when empty.
#[test]
fn critical_extensions_are_refused() {
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(["b64"])),
        ("b64", json!(true)),
        ("b64", json!(false)),
    ] {
        let header = but(json!({"alg": "ES256", "kid": "idp-key"}), name, value);
        assert_eq!(Some(BadCredential), subject_header_reason(&header), "{header}");
    }
}

/// Encrypted, compressed and nested tokens are refused.
#[test]
fn encryption_and_nesting_are_refused() {
    for (name, value) in [("enc", json!("A128GCM")), ("zip", json!("DEF")), ("cty", json!("JWT"))] {
        let header = but(json!({"alg": "ES256", "kid": "idp-key"}), name, value);
        assert_eq!(Some(BadCredential), subject_header_reason(&header), "{header}");
    }
}

/// A header parameter without a meaning here is ignored in a subject token.
#[test]
fn other_header_parameters_are_ignored_in_a_subject_token() {
    let header = json!({"alg": "ES256", "kid": "idp-key", "x5t": "abc", "nonce": {"a": 1}});
    assert_eq!(None, subject_header_reason(&header));
}

/// A `kid` or `typ` of another type, or an overlong `kid`, is refused.
#[test]
fn header_parameters_are_texts() {
    for (name, value) in [
        ("kid", json!(1)),
        ("kid", json!(["agent-key"])),
        ("kid", json!("k".repeat(257))),
        ("typ", json!(true)),
        ("typ", json!({})),
    ] {
        let header = but(json!({"alg": "ES256", "kid": "agent-key"}), name, value);
        assert_eq!(Some(BadCredential), agent_header_reason(&header), "{header}");
        assert_eq!(Some(BadCredential), subject_header_reason(&header), "{header}");
    }
}

/// Token and header are bounded.
#[test]
fn sizes_are_bounded() {
    let long = but(svid(), "pad", json!("x".repeat(8192)));
    both_refuse(&AGENT_KEY.sign(&long.to_string()));
    let mut roomy = spec();
    roomy.max_token_bytes = 65_536;
    assert!(check_agent(&roomy, &AGENT_KEY.sign(&long.to_string())).is_ok());

    let header = json!({"alg": "ES256", "kid": "idp-key", "pad": "x".repeat(2048)});
    assert_eq!(Some(BadCredential), subject_header_reason(&header));

    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(20), "]".repeat(20));
    both_refuse(&AGENT_KEY.sign(&deep));
    let mut wide = spec();
    wide.max_token_bytes = 65_536;
    let claims = but(svid(), "x", json!(vec![0; 5000]));
    let refusal = check_agent(&wide, &AGENT_KEY.sign(&claims.to_string())).unwrap_err();
    assert_eq!(BadCredential, refusal.reason);
}

/// The claims are one JSON object, each member once at every level, in UTF-8.
#[test]
fn the_claims_are_one_json_object_of_distinct_members() {
    let claims = svid().to_string();
    let stem = claims.strip_suffix('}').unwrap();
    for bad in [
        String::new(),
        "[]".to_owned(),
        "\"alice\"".to_owned(),
        format!("{claims} x"),
        format!("{stem},\"sub\":\"{AGENT_ID}\"}}"),
        format!("{stem},\"s\\u0075b\":\"spiffe://a.example/admin\"}}"),
        format!("{stem},\"x\":{{\"a\":1,\"a\":2}}}}"),
        format!("{stem},\"x\":[[{{\"a\":1,\"a\":2}}]]}}"),
        format!("{stem},\"x\":NaN}}"),
        format!("{stem},\"x\":\"\\ud800\"}}"),
    ] {
        both_refuse(&AGENT_KEY.sign(&bad));
    }
}

/// Any change to header, claims or signature ends the signature's validity, and nothing that only
/// the claims tell is revealed.
#[test]
fn tampered_tokens_are_refused() {
    let token = AGENT_KEY.sign(&svid().to_string());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = input.split_once('.').unwrap();
    let admin = but(svid(), "sub", json!("spiffe://a.example/admin")).to_string();
    let expired = but(svid(), "exp", json!(1)).to_string();
    let elsewhere = but(svid(), "aud", json!("other")).to_string();
    let bound = but(svid(), "cnf", json!({"jkt": "x"})).to_string();
    for claims in [admin, expired, elsewhere, bound, "{}".to_owned()] {
        both_refuse(&format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims)));
    }
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for position in 0..bytes.len() {
        let mut bytes = bytes.clone();
        *bytes.get_mut(position).unwrap() ^= 1;
        both_refuse(&format!("{input}.{}", URL_SAFE_NO_PAD.encode(bytes)));
    }
    let other_header = URL_SAFE_NO_PAD.encode(r#"{"kid":"agent-key","alg":"ES256"}"#);
    let payload = URL_SAFE_NO_PAD.encode(svid().to_string());
    both_refuse(&format!("{other_header}.{payload}.{signature}"));
}
