//! The subject profile.

use std::collections::{BTreeMap, BTreeSet};

use authz_token::RefusalReason::*;
use authz_token::mint::{Key, bundle, jwks};
use authz_token::{
    ClaimValue, Presentation, Refusal, Role, SubjectKind, TokenCache, TrustStore, UnixTime, verify,
};
use serde_json::{Value, json};

use crate::support::*;

fn set(items: &[&str]) -> ClaimValue {
    ClaimValue::Set(items.iter().map(|item| (*item).to_owned()).collect::<BTreeSet<_>>())
}

/// A sound token gives the subject's facts.
#[test]
fn a_sound_token_gives_facts() {
    let mut claims = user();
    for (name, value) in [
        ("acr", json!("urn:mfa")),
        ("auth_time", json!(NOW - 100)),
        ("jti", json!("j-2")),
        ("may_act", json!({"sub": AGENT_ID})),
        ("email", json!("alice@corp.example")),
        ("admin", json!(false)),
        ("age", json!(41)),
        ("unlisted", json!("x")),
    ] {
        claims = but(claims, name, value);
    }
    let subject = check_subject(&spec(), &IDP_KEY.sign(&claims.to_string())).unwrap();
    assert_eq!("corp", subject.issuer);
    assert_eq!(SubjectKind::User, subject.kind);
    assert_eq!("alice", subject.sub);
    assert_eq!(Some("urn:mfa".to_owned()), subject.acr);
    assert_eq!(Some(NOW - 100), subject.auth_time);
    assert_eq!(Some("j-2".to_owned()), subject.jti);
    assert_eq!(Some(BTreeMap::from([("sub".to_owned(), AGENT_ID.to_owned())])), subject.may_act);
    let expected = BTreeMap::from([
        ("groups".to_owned(), set(&["employees", "staff"])),
        ("email".to_owned(), ClaimValue::String("alice@corp.example".to_owned())),
        ("admin".to_owned(), ClaimValue::Bool(false)),
        ("age".to_owned(), ClaimValue::Long(41)),
    ]);
    assert_eq!(expected, subject.claims);
}

/// A subject is a person or a service as its issuer is configured.
#[test]
fn the_kind_is_the_issuers() {
    let spec = spec_with_issuer(|issuer| issuer.subject = SubjectKind::Service);
    let subject = check_subject(&spec, &IDP_KEY.sign(&user().to_string())).unwrap();
    assert_eq!(SubjectKind::Service, subject.kind);
}

/// `iss` is required and equal, byte by byte, to that of one configured issuer.
#[test]
fn iss_is_exactly_a_configured_one() {
    for iss in [
        "https://idp.example",
        "https://IDP.example/",
        "http://idp.example/",
        "https://idp.example//",
        "https://idp.example/ ",
        "corp",
        "",
        "https://evil.example/",
    ] {
        assert_eq!(Some(UntrustedIssuer), subject_reason(&but(user(), "iss", json!(iss))), "{iss}");
    }
    for iss in [json!(null), json!(7), json!([ISS])] {
        assert_eq!(Some(BadCredential), subject_reason(&but(user(), "iss", iss)));
    }
}

/// The key is one of the issuer's own: another configured issuer's key does not sign for it.
#[test]
fn the_key_is_the_issuers_own() {
    let other = Key::es256("other-key");
    let mut spec = spec();
    let mut second = issuer(&jwks(&[&other]));
    second.issuer = "https://other.example/".to_owned();
    spec.issuers.insert("other".to_owned(), second);
    let own = but(user(), "iss", json!("https://other.example/")).to_string();
    assert_eq!("other", check_subject(&spec, &other.sign(&own)).unwrap().issuer);
    let foreign = other.sign(&user().to_string());
    assert_eq!(UntrustedIssuer, check_subject(&spec, &foreign).unwrap_err().reason);
    let disguised = other.with("ES256", "idp-key").sign(&user().to_string());
    assert_eq!(BadCredential, check_subject(&spec, &disguised).unwrap_err().reason);
}

/// `aud` holds one of the issuer's own audiences; those of JWT-SVIDs do not count.
#[test]
fn aud_is_the_issuers_audience() {
    let spec = spec_with_issuer(|issuer| issuer.audience = vec!["api".to_owned()]);
    let reason = |aud: Value| {
        let token = IDP_KEY.sign(&but(user(), "aud", aud).to_string());
        check_subject(&spec, &token).err().map(|refusal| refusal.reason)
    };
    assert_eq!(None, reason(json!("api")));
    assert_eq!(None, reason(json!(["x", "api"])));
    for aud in [json!("authz"), json!(["authz"]), json!(null), json!([]), json!("API")] {
        assert_eq!(Some(WrongAudience), reason(aud));
    }
    assert_eq!(Some(BadCredential), reason(json!([1])));
}

/// `exp` is required and to come; `nbf`, `iat` and `auth_time` are not to come.
#[test]
fn times_are_sound() {
    for (name, value, expected) in [
        ("exp", json!(NOW - 5), Some(ExpiredCredential)),
        ("exp", json!(NOW - 4), None),
        ("exp", json!(null), Some(BadCredential)),
        ("exp", json!("x"), Some(BadCredential)),
        ("nbf", json!(NOW + 6), Some(ExpiredCredential)),
        ("nbf", json!(NOW + 5), None),
        ("iat", json!(NOW + 6), Some(ExpiredCredential)),
        ("iat", json!(null), None),
        ("auth_time", json!(NOW + 6), Some(ExpiredCredential)),
        ("auth_time", json!("x"), Some(BadCredential)),
        ("auth_time", json!(0), None),
    ] {
        let claims = but(but(user(), "iat", json!(NOW - 10)), name, value);
        assert_eq!(expected, subject_reason(&but(claims.clone(), "x", json!(1))), "{claims}");
    }
}

/// `typ` is one of the issuer's; a credential of another kind is not accepted for its claims.
#[test]
fn typ_is_one_of_the_issuers() {
    let default = spec();
    let strict = spec_with_issuer(|issuer| issuer.typ = Some(vec!["application/ID".to_owned()]));
    let lax = spec_with_issuer(|issuer| issuer.typ = Some(vec![String::new()]));
    for (typ, by_default, by_strict, by_lax) in [
        (None, true, false, true),
        (Some("JWT"), true, false, false),
        (Some("jwt"), true, false, false),
        (Some("id"), false, true, false),
        (Some("Application/Id"), false, true, false),
        (Some("at+jwt"), false, false, false),
        (Some("application/at+jwt"), false, false, false),
        (Some("APPLICATION/AT+JWT"), false, false, false),
        (Some("JOSE"), false, false, false),
        (Some("dpop+jwt"), false, false, false),
        (Some("wit+jwt"), false, false, false),
        (Some("secevent+jwt"), false, false, false),
        (Some("txntoken+jwt"), false, false, false),
        (Some("logout+jwt"), false, false, false),
        (Some("application/x/at+jwt"), false, false, false),
    ] {
        let header = but(json!({"alg": "ES256", "kid": "idp-key"}), "typ", json!(typ));
        let token = IDP_KEY.sign_with(&header.to_string(), &user().to_string());
        for (spec, expected) in [(&default, by_default), (&strict, by_strict), (&lax, by_lax)] {
            match check_subject(spec, &token) {
                Ok(_) => assert!(expected, "{typ:?}"),
                Err(refusal) => {
                    assert_eq!((false, BadCredential), (expected, refusal.reason), "{typ:?}");
                }
            }
        }
    }
}

/// A JWT-SVID is no subject token, also where it has an `iss` and both share one key.
#[test]
fn a_svid_is_no_subject_token() {
    let spec = spec_with_bundle(&bundle(&[&IDP_KEY]));
    let claims = but(user(), "sub", json!(AGENT_ID)).to_string();
    let token = IDP_KEY.sign(&claims);
    assert!(check_agent(&spec, &token).is_ok(), "it is a sound JWT-SVID");
    assert_eq!(BadCredential, check_subject(&spec, &token).unwrap_err().reason);
    for sub in ["spiffe:x", "SPIFFE://a.example/bot"] {
        assert_eq!(Some(BadCredential), subject_reason(&but(user(), "sub", json!(sub))));
    }
}

/// `sub` is a short text without control characters or such that reorder text.
#[test]
fn sub_is_short_and_printable() {
    for sub in ["a", "Ålice Ünal", "00u1|x/y@z", &"x".repeat(255)] {
        assert_eq!(None, subject_reason(&but(user(), "sub", json!(sub))), "{sub}");
    }
    for sub in [
        json!(null),
        json!(7),
        json!(["alice"]),
        json!(""),
        json!("x".repeat(256)),
        json!("a\u{0}"),
        json!("a\nb"),
        json!("a\u{7f}"),
        json!("a\u{85}"),
        json!("a\u{202e}b"),
        json!("a\u{200b}"),
        json!("\u{feff}a"),
        json!("a\u{2028}"),
    ] {
        assert_eq!(Some(BadCredential), subject_reason(&but(user(), "sub", sub.clone())), "{sub}");
    }
}

/// A token bound to a key is refused: possession cannot be proved.
#[test]
fn a_bound_token_is_refused() {
    for cnf in [json!({"jkt": "x"}), json!({"x5t#S256": "x"}), json!({"jwk": {}}), json!(7)] {
        assert_eq!(Some(UnboundCredential), subject_reason(&but(user(), "cnf", cnf)));
    }
}

/// Claims that have no flat value are dropped; those that are too long refuse the token.
#[test]
fn kept_claims_are_flat_and_bounded() {
    for dropped in
        [json!({"a": 1}), json!(1.5), json!([1]), json!(["a", 1]), json!(["a", ["b"]]), json!([{}])]
    {
        let token = IDP_KEY.sign(&but(user(), "groups", dropped).to_string());
        assert!(check_subject(&spec(), &token).unwrap().claims.is_empty());
    }
    let token = IDP_KEY.sign(&but(user(), "groups", json!([])).to_string());
    assert_eq!(Some(&set(&[])), check_subject(&spec(), &token).unwrap().claims.get("groups"));

    let many: Vec<String> = (0..513).map(|i| format!("g{i}")).collect();
    for refused in [json!(many), json!("x".repeat(2049)), json!(["a", "x".repeat(2049)])] {
        assert_eq!(Some(BadCredential), subject_reason(&but(user(), "groups", refused)));
    }
}

/// `acr`, `jti` and `may_act` are of their types.
#[test]
fn claims_with_a_place_are_of_their_types() {
    for (name, value) in [
        ("acr", json!(7)),
        ("acr", json!("x".repeat(256))),
        ("jti", json!(7)),
        ("may_act", json!(AGENT_ID)),
        ("may_act", json!({"sub": ["a"]})),
        ("may_act", json!({"sub": AGENT_ID, "act": {"sub": "x"}})),
    ] {
        let claims = but(user(), name, value);
        assert_eq!(Some(BadCredential), subject_reason(&claims), "{claims}");
    }
}

/// The refusal of a subject token with these claims beside the agent `AGENT_ID`, whichever of the
/// two stands first.
fn beside_the_agent(claims: &Value) -> Option<Refusal> {
    let (svid, token) = (AGENT_KEY.sign(&svid().to_string()), IDP_KEY.sign(&claims.to_string()));
    let (agent, subject) = (evidence(Role::Agent, &svid), evidence(Role::Subject, &token));
    let first = check_at(&spec(), &[agent, subject], NOW).err();
    assert_eq!(first, check_at(&spec(), &[subject, agent], NOW).err(), "{claims}");
    first
}

/// Values of `may_act` that do not mean `AGENT_ID` and it alone.
fn others() -> Vec<Value> {
    vec![
        json!({"sub": "spiffe://a.example/ns/other/sa/bot"}),
        json!({"sub": "spiffe://A.example/ns/support/sa/bot"}),
        json!({"sub": format!("{AGENT_ID}/")}),
        json!({"sub": ""}),
        json!({}),
        json!({"iss": "spiffe://a.example"}),
        json!({"client_id": AGENT_ID}),
        json!({"sub": AGENT_ID, "iss": "spiffe://a.example"}),
        json!({"sub": AGENT_ID, "client_id": "x"}),
    ]
}

/// A token that says who may act for its subject serves that agent only, and its subject alone.
#[test]
fn may_act_is_the_agent_beside_it() {
    assert_eq!(None, beside_the_agent(&user()));
    assert_eq!(None, beside_the_agent(&but(user(), "may_act", json!({"sub": AGENT_ID}))));
    for actor in others() {
        let claims = but(user(), "may_act", actor);
        let refusal = beside_the_agent(&claims).expect("it is not the agent that may act");
        assert_eq!((BadCredential, Some(Role::Subject)), (refusal.reason, refusal.role));
        for theirs in ["spiffe:", "client_id", "ns/other"] {
            assert!(!refusal.detail.contains(theirs), "{}", refusal.detail);
        }
        // Nobody acts for the subject here: the claim limits nothing.
        assert_eq!(None, subject_reason(&claims), "{claims}");
    }
}

/// A token that was verified before, alone or beside its own agent, is held to it all the same.
#[test]
fn may_act_holds_for_what_is_remembered() {
    let trust = compile(&spec());
    let cache = TokenCache::new(64);
    let ours = AGENT_KEY.sign(&svid().to_string());
    let other = "spiffe://a.example/ns/other/sa/bot";
    let theirs = AGENT_KEY.sign(&but(svid(), "sub", json!(other)).to_string());
    let token = IDP_KEY.sign(&but(user(), "may_act", json!({"sub": AGENT_ID})).to_string());
    let reason = |agent: Option<&str>| {
        let mut all = vec![evidence(Role::Subject, &token)];
        all.extend(agent.map(|agent| evidence(Role::Agent, agent)));
        verify(&all, &Presentation::default(), &trust, &cache, UnixTime(NOW))
            .err()
            .map(|refusal| refusal.reason)
    };
    for _ in 0..3 {
        assert_eq!(None, reason(None));
        assert_eq!(None, reason(Some(&ours)));
        assert_eq!(Some(BadCredential), reason(Some(&theirs)));
    }
    assert!(cache.hits() > 0);
}

/// A token that already stands for a delegation is not its subject's own.
#[test]
fn a_delegated_token_is_refused() {
    for act in [json!({"sub": AGENT_ID}), json!({}), json!("x"), json!(false)] {
        let claims = but(user(), "act", act);
        assert_eq!(Some(BadCredential), subject_reason(&claims), "{claims}");
        assert_eq!(Some(BadCredential), beside_the_agent(&claims).map(|refusal| refusal.reason));
    }
    let null = user().to_string().replacen('{', r#"{"act":null,"#, 1);
    let refusal = check_subject(&spec(), &IDP_KEY.sign(&null)).unwrap_err();
    assert_eq!(BadCredential, refusal.reason);
    assert!(refusal.detail.contains("not in this version"), "{}", refusal.detail);
}

/// An issuer without a usable key is invalid as a whole.
#[test]
fn an_issuer_without_usable_keys_is_invalid() {
    for keys in [
        r#"{"keys":[]}"#.to_owned(),
        json!({"keys": [IDP_KEY.jwk(Some("enc"))]}).to_string(),
        json!({"keys": [IDP_KEY.jwk(Some("jwt-svid"))]}).to_string(),
        json!({"keys": [RSA_KEY.jwk(None)]}).to_string(),
    ] {
        let spec = spec_with_issuer(|issuer| issuer.jwks = keys);
        let refusal = check_subject(&spec, &IDP_KEY.sign(&user().to_string())).unwrap_err();
        assert_eq!(UntrustedIssuer, refusal.reason);
        assert!(refusal.detail.contains("`corp` has no usable key"), "{}", refusal.detail);
    }
}

/// A token for an audience that no agent gets proves that its subject is alone, unless another service has it too.
#[test]
fn a_subject_is_alone_by_its_audience() {
    let spec = spec_with_issuer(|issuer| issuer.alone_audience = vec!["portal".to_owned()]);
    let facts = |aud: Value| {
        let token = IDP_KEY.sign(&but(user(), "aud", aud).to_string());
        check_subject(&spec, &token).map(|subject| (subject.is_for_alone, subject.is_alone))
    };
    let reason = |aud: Value| facts(aud).err().map(|refusal| refusal.reason);
    assert_eq!(Ok((true, true)), facts(json!("portal")));
    assert_eq!(Ok((true, true)), facts(json!(["portal"])));
    assert_eq!(Ok((false, false)), facts(json!("authz")));
    assert_eq!(Ok((false, false)), facts(json!(["authz", "crm"])));
    for aud in [json!(["portal", "authz"]), json!(["crm", "portal"]), json!("crm"), json!([])] {
        assert_eq!(Some(WrongAudience), reason(aud));
    }
    assert_eq!(Some(BadCredential), reason(json!(["portal", 1])));
    let own = IDP_KEY.sign(&but(user(), "aud", json!("portal")).to_string());
    let svid = AGENT_KEY.sign(&svid().to_string());
    let both = [evidence(Role::Agent, &svid), evidence(Role::Subject, &own)];
    let beside = check_at(&spec, &both, NOW).unwrap_err();
    assert_eq!((WrongAudience, Some(Role::Subject)), (beside.reason, beside.role));
}

/// An audience that agents get tokens for too proves nothing, so it is refused as one of the subjects' own.
#[test]
fn an_alone_audience_is_no_other() {
    for value in ["authz", "", "spiffe://a.example/authz"] {
        let spec = spec_with_issuer(|issuer| issuer.alone_audience = vec![value.to_owned()]);
        let errors = TrustStore::compile(&spec).unwrap_err();
        let place = errors.first().map(|error| error.place.as_str());
        assert_eq!(Some("issuers.corp.alone_audience"), place, "{errors:?}");
    }
}
