//! The access-token profile (RFC 9068), and that no kind of token passes for another.

use authz_token::mint::{bundle, jwks};
use authz_token::{RefusalReason, Role, SubjectFacts, SubjectProfile, TrustSpec};
use serde_json::{Value, json};

use RefusalReason::{
    BadCredential, ExpiredCredential, UnboundCredential, UntrustedIssuer, WrongAudience,
};

use crate::support::*;

/// The world whose issuer's tokens are access tokens.
fn access_spec() -> TrustSpec {
    spec_with_issuer(|issuer| issuer.profile = SubjectProfile::AccessToken)
}

/// Claims of a sound access token.
fn access() -> Value {
    let claims = but(user(), "client_id", json!("s6BhdRkqt3"));
    but(claims, "jti", json!("dbe39bf3a3ba4238a513f51d6e1691c4"))
}

fn header(typ: &Value) -> Value {
    but(json!({"alg": "ES256", "kid": "idp-key"}), "typ", typ.clone())
}

fn signed(header: &Value, claims: &Value) -> String {
    IDP_KEY.sign_with(&header.to_string(), &claims.to_string())
}

fn check(header: &Value, claims: &Value) -> Result<SubjectFacts, RefusalReason> {
    check_subject(&access_spec(), &signed(header, claims)).map_err(|refusal| refusal.reason)
}

fn reason(claims: &Value) -> Option<RefusalReason> {
    check(&header(&json!("at+jwt")), claims).err()
}

/// A sound access token is its subject.
#[test]
fn a_sound_access_token_gives_facts() {
    for typ in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        let facts = check(&header(&json!(typ)), &access()).unwrap();
        assert_eq!(("corp", "alice"), (facts.issuer.as_str(), facts.sub.as_str()));
        assert_eq!(Some("dbe39bf3a3ba4238a513f51d6e1691c4"), facts.jti.as_deref());
    }
}

/// RFC 9068 §2.1, §4: `typ` says that it is an access token; nothing else does.
#[test]
fn the_typ_is_explicit() {
    for typ in [json!(null), json!("JWT"), json!("jwt"), json!(""), json!("at"), json!("at+jwt;x")]
    {
        assert_eq!(Some(BadCredential), check(&header(&typ), &access()).err(), "{typ}");
    }
}

/// RFC 9068 §2.2: each required claim is there and of its type.
#[test]
fn each_required_claim_is_there() {
    for (name, missing) in [
        ("iss", BadCredential),
        ("exp", BadCredential),
        ("aud", WrongAudience),
        ("sub", BadCredential),
        ("client_id", BadCredential),
        ("iat", BadCredential),
        ("jti", BadCredential),
    ] {
        assert_eq!(Some(missing), reason(&but(access(), name, json!(null))), "{name}");
        // The value `null` is no absence.
        let null = access().to_string().replace(&format!("\"{name}\":"), "\"x\":");
        let null = null.replacen('{', &format!("{{\"{name}\":null,"), 1);
        let token = IDP_KEY.sign_with(&header(&json!("at+jwt")).to_string(), &null);
        assert!(check_subject(&access_spec(), &token).is_err(), "{name}");
    }
    for name in ["iss", "sub", "client_id", "jti"] {
        for value in [json!(7), json!([]), json!({}), json!(""), json!(true)] {
            let refused = reason(&but(access(), name, value.clone()));
            assert!(matches!(refused, Some(BadCredential | UntrustedIssuer)), "{name}: {value}");
        }
    }
    for name in ["client_id", "jti"] {
        for value in [json!("x".repeat(256)), json!("a\nb"), json!("a\u{202e}b")] {
            assert_eq!(Some(BadCredential), reason(&but(access(), name, value)), "{name}");
        }
    }
    for name in ["exp", "iat", "nbf"] {
        for value in [json!("1800000300"), json!([]), json!(-1), json!(1e300)] {
            assert_eq!(Some(BadCredential), reason(&but(access(), name, value)), "{name}");
        }
    }
}

/// RFC 9068 §4: issuer, audience and times are checked as of any token.
#[test]
fn an_access_token_is_for_us_and_now() {
    let case = |name, value| reason(&but(access(), name, value));
    assert_eq!(Some(UntrustedIssuer), case("iss", json!("https://idp.example")));
    assert_eq!(Some(WrongAudience), case("aud", json!("other")));
    assert_eq!(Some(WrongAudience), case("aud", json!([])));
    assert_eq!(None, case("aud", json!(["other", "authz"])));
    assert_eq!(Some(ExpiredCredential), case("exp", json!(NOW - 5)));
    assert_eq!(Some(ExpiredCredential), case("nbf", json!(NOW + 6)));
    assert_eq!(Some(ExpiredCredential), case("iat", json!(NOW + 6)));
    assert_eq!(Some(BadCredential), case("iat", json!(NOW + 301)));
}

/// RFC 9068 §4 and RFC 8725: the signature is by the issuer's own key, with an algorithm that is
/// listed; nothing in the header changes which.
#[test]
fn the_key_and_algorithm_are_configured() {
    let sound = header(&json!("at+jwt"));
    assert!(check(&sound, &access()).is_ok());
    for alg in ["none", "None", "HS256", "RS256", "ES384", "EdDSA"] {
        let changed = but(sound.clone(), "alg", json!(alg));
        assert_eq!(Some(BadCredential), check(&changed, &access()).err(), "{alg}");
    }
    let unsigned = signed(&but(sound.clone(), "alg", json!("none")), &access());
    let (unsigned, _) = unsigned.rsplit_once('.').unwrap();
    assert!(check_subject(&access_spec(), &format!("{unsigned}.")).is_err());
    let rogue = ROGUE_IDP_KEY.sign_with(&sound.to_string(), &access().to_string());
    assert_eq!(BadCredential, check_subject(&access_spec(), &rogue).unwrap_err().reason);
    for (name, value) in [
        ("jku", json!("https://evil.example/keys")),
        ("jwk", IDP_KEY.jwk(None)),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("cty", json!("JWT")),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
    ] {
        let changed = but(sound.clone(), name, value);
        assert_eq!(Some(BadCredential), check(&changed, &access()).err(), "{name}");
    }
    let twice = sound.to_string().replacen('{', r#"{"kid":"idp-key","#, 1);
    let token = IDP_KEY.sign_with(&twice, &access().to_string());
    assert_eq!(BadCredential, check_subject(&access_spec(), &token).unwrap_err().reason);
}

/// A bound access token is no bearer token, a delegated one not its subject's own, and a member
/// that stands twice is two texts.
#[test]
fn bound_delegated_and_ambiguous_tokens_are_refused() {
    for cnf in [json!({"jkt": "x"}), json!({"x5t#S256": "x"}), json!({}), json!(false)] {
        assert_eq!(Some(UnboundCredential), reason(&but(access(), "cnf", cnf)));
    }
    let act = but(access(), "act", json!({"sub": AGENT_ID}));
    assert_eq!(Some(BadCredential), reason(&act));
    let sound = header(&json!("at+jwt"));
    for (name, value) in [("sub", "\"root\""), ("client_id", "\"x\""), ("exp", "9999999999")] {
        let twice = access().to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1);
        let token = IDP_KEY.sign_with(&sound.to_string(), &twice);
        assert_eq!(BadCredential, check_subject(&access_spec(), &token).unwrap_err().reason);
    }
}

/// Every kind of token, under every profile, where trust domain and issuer share one key and every
/// token has every claim: only its kind can tell it apart, and each is good for its own profile only.
#[test]
fn no_kind_of_token_passes_for_another() {
    let shared = |mut spec: TrustSpec| {
        spec.domains.insert("a.example".to_owned(), domain(&bundle(&[&IDP_KEY])));
        spec
    };
    let jwt = shared(spec());
    let access_token = shared(access_spec());
    assert_eq!(jwks(&[&IDP_KEY]), jwt.issuers.get("corp").unwrap().jwks);
    let claims = |sub: &str| but(access(), "sub", json!(sub));
    let of = |typ: Value, sub: &str| signed(&header(&typ), &claims(sub));
    // Kind, token, good as: an agent's, a JWT subject's, an access token's subject's.
    let none = [false, false, false];
    let mut kinds = vec![
        ("JWT-SVID", of(json!("JWT"), AGENT_ID), [true, false, false]),
        ("JWT-SVID typ JOSE", of(json!("JOSE"), AGENT_ID), [true, false, false]),
        ("JWT-SVID without typ", of(json!(null), AGENT_ID), [true, false, false]),
        ("ID token", of(json!("JWT"), "alice"), [false, true, false]),
        ("ID token without typ", of(json!(null), "alice"), [false, true, false]),
        ("access token", of(json!("at+jwt"), "alice"), [false, false, true]),
        ("access token of an agent", of(json!("at+jwt"), AGENT_ID), none),
    ];
    for typ in [
        "wit+jwt",
        "wpt+jwt",
        "dpop+jwt",
        "txntoken+jwt",
        "secevent+jwt",
        "logout+jwt",
        "token-introspection+jwt",
        "oauth-authz-req+jwt",
        "oauth-id-jag+jwt",
        "entity-statement+jwt",
        "client-authentication+jwt",
        "kb+jwt",
        "at+jwt+x",
        "rt+jwt",
    ] {
        kinds.push((typ, of(json!(typ), "alice"), none));
        kinds.push((typ, of(json!(typ), AGENT_ID), none));
    }
    for (kind, token, expected) in &kinds {
        let accepted = [(&jwt, Role::Agent), (&jwt, Role::Subject), (&access_token, Role::Subject)]
            .map(|(spec, role)| check_at(spec, &[evidence(role, token)], NOW).is_ok());
        assert_eq!(*expected, accepted, "{kind}");
        // What the issuer's profile is makes no difference to an agent.
        let agent = check_at(&access_token, &[evidence(Role::Agent, token)], NOW).is_ok();
        assert_eq!(expected.first(), Some(&agent), "{kind}");
    }
}
