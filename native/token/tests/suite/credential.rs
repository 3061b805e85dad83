//! Task credentials: access tokens of our own (RFC 9068, RFC 8693 §4.1, RFC 9396).

use std::sync::LazyLock;

use authz_token::mint::{Key, bundle, credential, jwks};
use authz_token::{
    AgentProof, CredentialFacts, KeyOwner, OwnSpec, Presentation, Refusal, RefusalReason, Role,
    SubjectProfile, TokenCache, TrustSpec, TrustStore, UnixTime, VerifiedFacts, verify,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use RefusalReason::{BadCredential, ExpiredCredential, UnboundCredential, UntrustedIssuer};

use crate::support::*;

pub(crate) const OWN: &str = "https://authz.example";

/// Ours.
pub(crate) static OWN_KEY: LazyLock<Key> = LazyLock::new(|| Key::es256("").by_thumbprint());
static OTHER_OWN_KEY: LazyLock<Key> = LazyLock::new(|| Key::ed25519("").by_thumbprint());

/// The world in which there are task credentials.
pub(crate) fn own_spec() -> TrustSpec {
    own_spec_with(&jwks(&[&OWN_KEY, &OTHER_OWN_KEY]))
}

fn own_spec_with(keys: &str) -> TrustSpec {
    let mut spec = spec();
    spec.own = Some(OwnSpec { issuer: OWN.to_owned(), keys: keys.to_owned() });
    spec
}

/// Claims of a sound task credential.
pub(crate) fn task() -> Value {
    credential(OWN, AGENT_ID, NOW - 10, NOW + 110)
}

/// Claims of a sound task credential, with one member of its only detail set, or removed where the
/// value is null.
fn detail(name: &str, value: Value) -> Value {
    let detail = task().pointer("/authorization_details/0").unwrap().clone();
    but(task(), "authorization_details", json!([but(detail, name, value)]))
}

fn check(token: &str) -> Result<VerifiedFacts, Refusal> {
    check_at(&own_spec(), &[evidence(Role::Agent, token)], NOW)
}

fn facts(claims: &Value) -> Result<CredentialFacts, RefusalReason> {
    check(&OWN_KEY.sign_credential(&claims.to_string()))
        .map(|facts| facts.credential.unwrap().as_ref().clone())
        .map_err(|refusal| refusal.reason)
}

fn reason(claims: &Value) -> Option<RefusalReason> {
    facts(claims).err()
}

fn header_reason(name: &str, value: Value) -> Option<RefusalReason> {
    let header = json!({"alg": "ES256", "kid": OWN_KEY.kid(), "typ": "at+jwt"});
    let header = but(header, name, value);
    check(&OWN_KEY.sign_with(&header.to_string(), &task().to_string()))
        .err()
        .map(|refusal| refusal.reason)
}

/// A sound task credential says what it is for, and proves the agent that acts.
#[test]
fn a_sound_credential_gives_facts() {
    for key in [&*OWN_KEY, &*OTHER_OWN_KEY] {
        let facts = check(&key.sign_credential(&task().to_string())).unwrap();
        let credential = facts.credential.unwrap();
        assert_eq!("0198c1b2-8d6e-7f00-8000-000000000001", credential.jti);
        assert_eq!("0198c1b2-8d6e-7f00-8000-000000000002", credential.task);
        assert_eq!(vec!["0198c1b2-8d6e-7f00-8000-000000000003"], credential.decisions);
        assert_eq!((OWN, "https://crm.example"), (&*credential.issuer, &*credential.audience));
        assert_eq!(("corp/alice", AGENT_ID), (&*credential.subject, &*credential.agent));
        assert_eq!(vec![AGENT_ID], credential.actors);
        assert_eq!((NOW - 10, NOW + 110), (credential.issued_at, credential.expires_at));
        assert_eq!((None, key.kid()), (credential.binding, credential.kid.as_str()));
        let agent = facts.agent.unwrap();
        assert_eq!((AGENT_ID, "a.example"), (&*agent.spiffe_id, &*agent.trust_domain));
        assert_eq!((AgentProof::TaskCredential, false), (agent.proof, agent.bound));
        assert_eq!((Some(NOW - 10), Some(NOW + 110)), (agent.issued_at, agent.expires_at));
        assert_eq!(Some(credential.token_digest), agent.token_digest);
        assert_eq!(Some(key.kid()), agent.kid.as_deref());
        assert_eq!(Some(credential.jti.as_str()), agent.jti.as_deref());
        assert!(facts.subject.is_none() && facts.proofs.is_empty());
    }
}

/// RFC 9068 §2.1: `typ` says that it is an access token, and without our keys there is none.
#[test]
fn the_typ_is_explicit() {
    for typ in [json!(null), json!("JWT"), json!("AT+JWT"), json!("application/at+jwt"), json!("x")]
    {
        assert_eq!(Some(BadCredential), header_reason("typ", typ));
    }
    let token = OWN_KEY.sign_credential(&task().to_string());
    assert_eq!(BadCredential, check_agent(&spec(), &token).unwrap_err().reason);
}

/// RFC 9068 §4: the key is ours, by its `kid`, with the algorithm of that key.
#[test]
fn the_key_is_ours() {
    for alg in ["none", "HS256", "RS256", "PS256", "ES384", "ES512", "EdDSA"] {
        assert_eq!(Some(BadCredential), header_reason("alg", json!(alg)), "{alg}");
    }
    assert_eq!(Some(BadCredential), header_reason("kid", json!(null)));
    assert_eq!(Some(BadCredential), header_reason("kid", json!(OTHER_OWN_KEY.kid())));
    for name in ["jku", "jwk", "x5u", "x5c", "crit", "b64", "cty", "zip", "enc"] {
        assert_eq!(Some(BadCredential), header_reason(name, json!(["x"])), "{name}");
    }
    assert_eq!(Some(BadCredential), header_reason("x", json!("x")));
    let rogue = Key::es256(OWN_KEY.kid()).sign_credential(&task().to_string());
    assert_eq!(BadCredential, check(&rogue).unwrap_err().reason);
    // Our keys may be newer than those that we know: whoever looks after them is told.
    let newer = Key::es256("").by_thumbprint().sign_credential(&task().to_string());
    let refusal = check(&newer).unwrap_err();
    assert_eq!((UntrustedIssuer, Some(KeyOwner::Own)), (refusal.reason, refusal.unknown_key));
    let owner = serde_json::to_string(&KeyOwner::Own).unwrap();
    assert_eq!(r#"{"kind":"own"}"#, owner);
    // Keys of others are not ours, whatever they sign.
    for key in [&*AGENT_KEY, &*IDP_KEY] {
        let token = key.sign_credential(&task().to_string());
        assert_eq!(UntrustedIssuer, check(&token).unwrap_err().reason);
    }
    let empty = own_spec_with(r#"{"keys":[]}"#);
    let token = OWN_KEY.sign_credential(&task().to_string());
    let refusal = check_at(&empty, &[evidence(Role::Agent, &token)], NOW).unwrap_err();
    assert_eq!((UntrustedIssuer, None), (refusal.reason, refusal.unknown_key));
    let warnings = compile(&empty).warnings().to_vec();
    assert!(warnings.iter().any(|warning| warning.what.contains("every task credential")));
}

/// RFC 9068 §4: the issuer is us, exactly.
#[test]
fn the_issuer_is_us() {
    for iss in
        [json!(null), json!("https://authz.example/"), json!("https://AUTHZ.example"), json!(ISS)]
    {
        assert_eq!(Some(UntrustedIssuer), reason(&but(task(), "iss", iss)));
    }
    assert_eq!(Some(BadCredential), reason(&but(task(), "iss", json!([OWN]))));
}

/// RFC 9068 §2.2 and the claims of our own: each is there and of its type.
#[test]
fn each_claim_is_there() {
    for name in ["exp", "iat", "sub", "client_id", "aud", "jti", "task", "authorization_details"] {
        for value in [json!(null), json!({}), json!(true), json!(""), json!([])] {
            let case = but(task(), name, value.clone());
            assert_eq!(Some(BadCredential), reason(&case), "{name}: {value}");
        }
        let null = task().to_string().replace(&format!("\"{name}\":"), "\"x\":");
        let null = null.replacen('{', &format!("{{\"{name}\":null,"), 1);
        let refusal = check(&OWN_KEY.sign_credential(&null)).unwrap_err();
        assert_eq!(BadCredential, refusal.reason, "{name}");
        let again = task().to_string().replacen('{', &format!("{{\"{name}\":1,"), 1);
        let refusal = check(&OWN_KEY.sign_credential(&again)).unwrap_err();
        assert_eq!(BadCredential, refusal.reason, "{name}");
    }
    for name in ["jti", "task"] {
        assert_eq!(None, reason(&but(task(), name, json!("x".repeat(255)))));
        for bad in [json!("x".repeat(256)), json!("a\nb"), json!("a\u{202e}b")] {
            assert_eq!(Some(BadCredential), reason(&but(task(), name, bad)), "{name}");
        }
    }
    // What is not known here means nothing here.
    assert_eq!(None, reason(&but(task(), "scope", json!("crm"))));
}

/// One credential is for one audience; which, is for whoever is asked about that system.
#[test]
fn the_audience_is_one_text() {
    assert_eq!(Some(BadCredential), reason(&but(task(), "aud", json!(["https://crm.example"]))));
    assert_eq!("other", facts(&but(task(), "aud", json!("other"))).unwrap().audience);
}

/// RFC 7519 §4.1.4: it ends, and does not begin early; settings for the tokens of others do not count.
#[test]
fn times_are_sound() {
    let case = |name, value| reason(&but(task(), name, value));
    assert_eq!(Some(ExpiredCredential), case("exp", json!(NOW - 5)));
    assert_eq!(None, case("exp", json!(NOW - 4)));
    assert_eq!(Some(ExpiredCredential), case("iat", json!(NOW + 6)));
    assert_eq!(Some(ExpiredCredential), case("nbf", json!(NOW + 6)));
    assert_eq!(Some(BadCredential), case("iat", json!(NOW + 111)));
    let mut spec = own_spec();
    spec.max_lifetime_seconds = Some(60);
    let token = OWN_KEY.sign_credential(&task().to_string());
    assert!(check_at(&spec, &[evidence(Role::Agent, &token)], NOW).is_ok());
}

/// RFC 8693 §4.1: the outermost actor is who acts, and every actor is an agent.
#[test]
fn the_outermost_actor_is_the_agent() {
    let other = "spiffe://a.example/other";
    let nested = json!({"sub": AGENT_ID, "act": {"sub": other, "act": {"sub": AGENT_ID}}});
    let chain = facts(&but(task(), "act", nested)).unwrap();
    assert_eq!(vec![AGENT_ID, other, AGENT_ID], chain.actors);
    assert_eq!("corp/alice", chain.subject);
    // An agent that acts for itself has no actor.
    let alone = but(but(task(), "act", json!(null)), "sub", json!(AGENT_ID));
    let alone = facts(&alone).unwrap();
    assert_eq!((AGENT_ID, 0), (&*alone.subject, alone.actors.len()));
    for act in [
        json!(null),
        json!({}),
        json!([]),
        json!(AGENT_ID),
        json!({"sub": other}),
        json!({"sub": other, "act": {"sub": AGENT_ID}}),
        json!({"sub": "alice"}),
        json!({"sub": "spiffe://a.example"}),
        json!({"sub": [AGENT_ID]}),
        json!({"sub": AGENT_ID, "iss": OWN}),
        json!({"sub": AGENT_ID, "act": null}),
        json!({"sub": AGENT_ID, "act": {}}),
        json!({"sub": AGENT_ID, "act": {"sub": "alice"}}),
    ] {
        assert_eq!(Some(BadCredential), reason(&but(task(), "act", act.clone())), "{act}");
    }
    let null = task().to_string().replace("\"act\":", "\"x\":").replacen('{', r#"{"act":null,"#, 1);
    assert_eq!(BadCredential, check(&OWN_KEY.sign_credential(&null)).unwrap_err().reason);
    let mut deep = json!({"sub": AGENT_ID});
    for depth in 2..20 {
        deep = json!({"sub": AGENT_ID, "act": deep});
        let expected = (depth > 12).then_some(BadCredential);
        assert_eq!(expected, reason(&but(task(), "act", deep.clone())), "{depth}");
    }
    for id in [json!("alice"), json!("spiffe://a.example"), json!("spiffe://a.example/x?y")] {
        let claims = but(but(task(), "client_id", id.clone()), "act", json!({"sub": id}));
        assert_eq!(Some(BadCredential), reason(&claims));
    }
}

/// An agent whose trust domain is trusted no more is nobody.
#[test]
fn the_agents_trust_domain_is_trusted() {
    let elsewhere = credential(OWN, "spiffe://b.example/bot", NOW - 10, NOW + 110);
    assert_eq!(Some(UntrustedIssuer), reason(&elsewhere));
    let mut spec = own_spec();
    spec.domains.insert("a.example".to_owned(), domain(r#"{"keys":[]}"#));
    let token = OWN_KEY.sign_credential(&task().to_string());
    let refusal = check_at(&spec, &[evidence(Role::Agent, &token)], NOW).unwrap_err();
    assert_eq!(UntrustedIssuer, refusal.reason);
}

/// RFC 9396 §2: each detail is in the form that we give it; what could restrict it otherwise refuses it.
#[test]
fn the_details_are_in_our_form() {
    for name in ["resource", "arguments_digest"] {
        assert_eq!(None, reason(&detail(name, json!(null))), "{name}");
    }
    assert_eq!(None, reason(&detail("destinations", json!(["email:bob@example.com"]))));
    assert_eq!(None, reason(&detail("destinations", json!([]))));
    for (name, value) in [
        ("type", json!(null)),
        ("type", json!("AUTHZ_TASK")),
        ("type", json!("openid_credential")),
        ("operation", json!(null)),
        ("operation", json!("")),
        ("operation", json!(["crm.read"])),
        ("operation", json!("a\nb")),
        ("decision_id", json!(null)),
        ("decision_id", json!(7)),
        ("decision_id", json!("x".repeat(256))),
        ("uses", json!(null)),
        ("uses", json!(0)),
        ("uses", json!(2)),
        ("uses", json!(1.5)),
        ("uses", json!("1")),
        ("resource", json!("")),
        ("resource", json!(["customers/42"])),
        ("resource", json!("x".repeat(4097))),
        (
            "arguments_digest",
            json!("9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08"),
        ),
        ("arguments_digest", json!("9f86")),
        ("arguments_digest", json!("")),
        ("destinations", json!("email:bob@example.com")),
        ("destinations", json!([""])),
        ("destinations", json!([7])),
        ("destinations", json!(vec!["x"; 257])),
        ("locations", json!(["https://crm.example"])),
        ("actions", json!(["read"])),
        ("x", json!(true)),
    ] {
        assert_eq!(Some(BadCredential), reason(&detail(name, value.clone())), "{name}: {value}");
    }
    let one = task().pointer("/authorization_details/0").unwrap().clone();
    let other = but(one.clone(), "decision_id", json!("other"));
    let with = |details: Value| facts(&but(task(), "authorization_details", details));
    let two = with(json!([other, one])).unwrap();
    assert_eq!(vec!["other", "0198c1b2-8d6e-7f00-8000-000000000003"], two.decisions);
    assert_eq!(Err(BadCredential), with(json!([one, one])));
    assert_eq!(Err(BadCredential), with(json!([one, "x"])));
    assert_eq!(Err(BadCredential), with(one.clone()));
    assert_eq!(Err(BadCredential), with(json!([])));
    let many = |count: usize| -> Vec<Value> {
        let small = json!({"type": "authz_task", "operation": "a.b", "uses": 1});
        (0..count).map(|id| but(small.clone(), "decision_id", json!(id.to_string()))).collect()
    };
    let mut spec = own_spec();
    spec.max_token_bytes = 65_536;
    for (count, expected) in [(64, true), (65, false)] {
        let claims = but(task(), "authorization_details", json!(many(count)));
        let token = OWN_KEY.sign_credential(&claims.to_string());
        let accepted = check_at(&spec, &[evidence(Role::Agent, &token)], NOW).is_ok();
        assert_eq!(expected, accepted, "{count}");
    }
}

/// A credential beside an SVID is that agent's, whichever comes first; one of each at most.
#[test]
fn a_credential_is_the_agents_that_presents_it() {
    let credential = OWN_KEY.sign_credential(&task().to_string());
    let svid = AGENT_KEY.sign(&svid().to_string());
    let others = AGENT_KEY
        .sign(&but(crate::support::svid(), "sub", json!("spiffe://a.example/other")).to_string());
    let user = IDP_KEY.sign(&user().to_string());
    let check = |tokens: &[(Role, &str)]| {
        let evidence: Vec<_> = tokens.iter().map(|(role, token)| evidence(*role, token)).collect();
        check_at(&own_spec(), &evidence, NOW)
    };
    let (agent, subject) = (Role::Agent, Role::Subject);
    for order in [
        [(agent, &*svid), (agent, &*credential), (subject, &*user)],
        [(subject, &*user), (agent, &*credential), (agent, &*svid)],
    ] {
        let facts = check(&order).unwrap();
        assert_eq!(AgentProof::JwtSvid, facts.agent.unwrap().proof);
        assert_eq!(AGENT_ID, facts.credential.unwrap().agent);
        assert_eq!("alice", facts.subject.unwrap().sub);
    }
    for order in [[&*others, &*credential], [&*credential, &*others]] {
        let refusal = check(&order.map(|token| (agent, token))).unwrap_err();
        assert_eq!((BadCredential, Some(agent)), (refusal.reason, refusal.role));
    }
    for twice in [[&*svid, &*svid], [&*credential, &*credential]] {
        let refusal = check(&twice.map(|token| (agent, token))).unwrap_err();
        assert_eq!((BadCredential, Some(agent)), (refusal.reason, refusal.role));
    }
    let three = [&*svid, &*credential, &*credential].map(|token| (agent, token));
    assert_eq!(BadCredential, check(&three).unwrap_err().reason);
    // One bad credential refuses all.
    let bad = format!("{credential}x");
    assert!(check(&[(agent, &svid), (agent, &bad)]).is_err());
    // Nor is another agent let in beside it that was proved otherwise.
    let facts = check(&[(agent, &*credential)]).unwrap();
    let mut known = check(&[(agent, &*others)]).unwrap().agent.unwrap().as_ref().clone();
    let refusal = facts.clone().with_agent(known.clone().into()).unwrap_err();
    assert_eq!((BadCredential, Some(agent)), (refusal.reason, refusal.role));
    AGENT_ID.clone_into(&mut known.spiffe_id);
    assert!(facts.with_agent(known.into()).is_ok());
}

/// RFC 8693 §4.4: a subject token's `may_act` holds for the agent of a credential too.
#[test]
fn may_act_is_the_credentials_agent() {
    let credential = OWN_KEY.sign_credential(&task().to_string());
    for (actor, expected) in [(AGENT_ID, None), ("spiffe://a.example/other", Some(BadCredential))] {
        let user = IDP_KEY.sign(&but(user(), "may_act", json!({"sub": actor})).to_string());
        let evidence = [evidence(Role::Subject, &user), evidence(Role::Agent, &credential)];
        let refused = check_at(&own_spec(), &evidence, NOW).err();
        assert_eq!(expected, refused.map(|refusal| refusal.reason));
    }
}

/// RFC 9068 §5 with RFC 8725 §3.12: where every key is shared and every token has every claim, a
/// credential passes for nothing else, and nothing else for a credential.
#[test]
fn no_other_kind_passes_for_a_credential() {
    let mut spec = own_spec();
    spec.domains.insert("a.example".to_owned(), domain(&bundle(&[&OWN_KEY])));
    let corp = spec.issuers.get_mut("corp").unwrap();
    corp.jwks = jwks(&[&OWN_KEY]);
    corp.profile = SubjectProfile::AccessToken;
    let header = |typ: &str| json!({"alg": "ES256", "kid": OWN_KEY.kid(), "typ": typ}).to_string();
    let of = |typ: &str, iss: &str, sub: &str| {
        let claims = but(but(task(), "iss", json!(iss)), "sub", json!(sub));
        let claims = but(
            claims,
            "act",
            if sub == AGENT_ID { json!(null) } else { json!({"sub": AGENT_ID}) },
        );
        OWN_KEY.sign_with(&header(typ), &but(claims, "aud", json!("authz")).to_string())
    };
    let accepted = |token: &str| {
        [Role::Agent, Role::Subject].map(|role| {
            check_at(&spec, &[evidence(role, token)], NOW)
                .is_ok_and(|facts| facts.credential.is_some() == (role == Role::Agent))
        })
    };
    assert_eq!([true, false], accepted(&of("at+jwt", OWN, "corp/alice")));
    assert_eq!([true, false], accepted(&of("at+jwt", OWN, AGENT_ID)));
    assert_eq!([false, false], accepted(&of("at+jwt", ISS, AGENT_ID)));
    assert_eq!([false, false], accepted(&of("at+jwt", ISS, "alice")), "it has an actor");
    for typ in ["JWT", "JOSE", "dpop+jwt", "wit+jwt", "token-introspection+jwt"] {
        for sub in ["alice", AGENT_ID] {
            for iss in [OWN, ISS] {
                let [agent, subject] = accepted(&of(typ, iss, sub));
                assert!(!agent && !subject, "{typ} {sub} {iss}");
            }
        }
    }
}

/// Ourselves are configured soundly: one `https` URL that is nobody else's, and public keys by their
/// thumbprints; a key that is none is left out.
#[test]
fn our_own_settings_are_sound() {
    let errors = |issuer: &str, keys: &str| {
        let mut spec = spec();
        spec.own = Some(OwnSpec { issuer: issuer.to_owned(), keys: keys.to_owned() });
        let errors = TrustStore::compile(&spec).err().unwrap_or_default();
        errors.into_iter().map(|error| error.place).collect::<Vec<_>>()
    };
    let keys = jwks(&[&OWN_KEY]);
    for issuer in [OWN, "https://authz.example/", "https://authz.example:8443/tenant/1"] {
        assert!(errors(issuer, &keys).is_empty(), "{issuer}");
    }
    for issuer in [
        "",
        "authz.example",
        "http://authz.example",
        "https://",
        "https://Authz.example",
        "https://authz.example:443",
        "https://authz.example/a/../b",
        "https://authz.example?x",
        "https://authz.example#x",
        "https://me@authz.example",
    ] {
        assert_eq!(vec!["own.issuer"], errors(issuer, &keys), "{issuer}");
    }
    let mut same = own_spec();
    same.issuers.get_mut("corp").unwrap().issuer = OWN.to_owned();
    let refused = TrustStore::compile(&same).unwrap_err();
    assert_eq!("own.issuer", refused.first().unwrap().place);
    let private = json!({"keys": [but(OWN_KEY.jwk(Some("sig")), "d", json!("AAAA"))]});
    for bad in ["", "{}", "[]", &private.to_string()] {
        assert_eq!(vec!["own.keys"], errors(OWN, bad), "{bad}");
    }
    let twice = compile(&own_spec_with(&jwks(&[&OWN_KEY, &OWN_KEY])));
    assert_eq!([OWN_KEY.kid()], *twice.own().unwrap().kids, "one key that stands twice is one");
    // Keys that we do not sign with, or by another name, are none.
    let named = Key::es256("k1");
    let rsa = Key::rs256("").by_thumbprint();
    let p384 = Key::generate("ES384", "").by_thumbprint();
    let trust = compile(&own_spec_with(&jwks(&[&named, &rsa, &p384, &OWN_KEY])));
    let own = trust.own().unwrap();
    assert_eq!((OWN, vec![OWN_KEY.kid().to_owned()]), (&*own.issuer, own.kids));
    assert_eq!(3, trust.warnings().iter().filter(|warning| warning.place == "own.keys").count());
    assert!(trust.is_own(OWN) && !trust.is_own(ISS) && !compile(&spec()).is_own(OWN));
    assert_eq!(None, compile(&spec()).own());
    // A change of our keys ends what was cached.
    assert_ne!(trust.revision(), compile(&own_spec()).revision());
    assert_ne!(compile(&spec()).revision(), compile(&own_spec()).revision());
    let unknown = br#"{"own":{"issuer":"https://authz.example","keys":"{}","x":1}}"#;
    assert!(TrustSpec::from_json(unknown).is_err());
    let known = br#"{"own":{"issuer":"https://authz.example","keys":"{}"}}"#;
    assert!(TrustSpec::from_json(known).unwrap().own.is_some());
}

/// What is remembered of a credential is what was found, and ends with it and with our keys.
#[test]
fn a_remembered_credential_is_the_same() {
    let cache = TokenCache::new(64);
    let token = OWN_KEY.sign_credential(&task().to_string());
    let check = |spec: &TrustSpec, now: i64| {
        let evidence = [evidence(Role::Agent, &token)];
        verify(&evidence, &Presentation::default(), &compile(spec), &cache, UnixTime(now))
    };
    let first = check(&own_spec(), NOW).unwrap();
    assert_eq!(first, check(&own_spec(), NOW).unwrap());
    assert_eq!((1, 1), (cache.hits(), cache.len()));
    assert_eq!(ExpiredCredential, check(&own_spec(), NOW + 115).unwrap_err().reason);
    let rotated = own_spec_with(&jwks(&[&OTHER_OWN_KEY]));
    assert_eq!(UntrustedIssuer, check(&rotated, NOW).unwrap_err().reason);
}

/// A bound credential proves nothing without its key.
#[test]
fn a_bound_credential_is_no_bearer_token() {
    for cnf in [json!({"jkt": OWN_KEY.thumbprint()}), json!({"x5t#S256": OWN_KEY.thumbprint()})] {
        assert_eq!(Some(UnboundCredential), reason(&but(task(), "cnf", cnf)));
    }
}

/// Any JSON value, small.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(1)),
        Just(json!(AGENT_ID)),
        Just(json!("authz_task")),
        "[ -~]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let name = prop_oneof![
            Just("sub"),
            Just("act"),
            Just("type"),
            Just("operation"),
            Just("uses"),
            Just("decision_id"),
            Just("resource"),
            Just("jkt"),
            Just("x5t#S256"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever a credential says, one that is accepted says it in our form.
    #[test]
    fn what_is_accepted_is_in_our_form(
        name in prop::sample::select(vec![
            "iss", "sub", "act", "client_id", "aud", "iat", "exp", "nbf", "jti", "task",
            "authorization_details", "cnf",
        ]),
        value in value(),
    ) {
        let claims = but(task(), name, value);
        if let Ok(facts) = facts(&claims) {
            prop_assert!(facts.binding.is_none());
            prop_assert_eq!(&facts.agent, facts.actors.first().unwrap_or(&facts.subject));
            prop_assert!(!facts.decisions.is_empty() && !facts.task.is_empty());
            prop_assert!(!facts.jti.is_empty() && !facts.audience.is_empty());
            for detail in claims.get("authorization_details").unwrap().as_array().unwrap() {
                prop_assert_eq!(Some(&json!(1)), detail.get("uses"));
                prop_assert_eq!(Some(&json!("authz_task")), detail.get("type"));
            }
        }
    }

    /// One changed character anywhere refuses it.
    #[test]
    fn a_changed_credential_is_refused(position in any::<prop::sample::Index>(), byte in "[A-Za-z0-9_.-]") {
        static TOKEN: LazyLock<String> =
            LazyLock::new(|| OWN_KEY.sign_credential(&task().to_string()));
        let position = position.index(TOKEN.len());
        let mut changed = TOKEN.clone();
        changed.replace_range(position..=position, &byte);
        prop_assert_eq!(changed == *TOKEN, check(&changed).is_ok());
    }
}

/// Whoever asks about a credential does not hold its key: it is verified all the same, but nothing else passes for one.
#[test]
fn a_credential_is_verified_for_whoever_asks_about_it() {
    let trust = compile(&own_spec());
    let cache = TokenCache::new(16);
    let known = |token: &str| {
        authz_token::verify_credential(token, &trust, &cache, UnixTime(NOW))
            .map(|credential| credential.jti.clone())
            .map_err(|refusal| refusal.reason)
    };
    let bound = but(task(), "cnf", json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}));
    let bound = OWN_KEY.sign_credential(&bound.to_string());
    assert_eq!(Some(UnboundCredential), check(&bound).err().map(|refusal| refusal.reason));
    let jti = Ok("0198c1b2-8d6e-7f00-8000-000000000001".to_owned());
    assert_eq!((jti.clone(), jti.clone()), (known(&bound), known(&bound)), "also from the cache");
    let ended = credential(OWN, AGENT_ID, NOW - 300, NOW - 120);
    assert_eq!(Err(ExpiredCredential), known(&OWN_KEY.sign_credential(&ended.to_string())));
    assert_eq!(Err(BadCredential), known(&AGENT_KEY.sign(&svid().to_string())), "an SVID");
    let forged = Key::es256("").by_thumbprint().sign_credential(&task().to_string());
    assert!(known(&forged).is_err());
    assert_eq!(Err(BadCredential), known(""));
    // What it says is known then, and its key is asked for where it is presented.
    assert_eq!(Some(UnboundCredential), check(&bound).err().map(|refusal| refusal.reason));
}
