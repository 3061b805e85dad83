//! Cold and cached verification, beside the crypto library's own time in the same run.
//!
//! `cold/ES256` is to stay within 1.3 times `library/ES256`: all parsing, hashing and claim checks
//! are what lies between.

#![expect(clippy::expect_used, reason = "a benchmark")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use authz_token::mint::x509::{self, Signer};
use authz_token::mint::{self, Key, bundle, jwks};
use authz_token::{
    DomainSpec, Evidence, IssuerSpec, Nonces, OwnSpec, PeerCache, Presentation, Role, Scheme,
    SubjectKind, SubjectProfile, TokenCache, TrustSpec, TrustStore, UnixTime, verify, verify_peer,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;

const NOW: i64 = 1_800_000_000;

/// The library's own prepared key, from the JWK.
fn library_key(key: &Key) -> ParsedPublicKey {
    let jwk = key.jwk(None);
    let octets = |name: &str| {
        let text = jwk.get(name).and_then(|value| value.as_str()).expect("a member");
        URL_SAFE_NO_PAD.decode(text).expect("base64url")
    };
    match jwk.get("kty").and_then(|kty| kty.as_str()) {
        Some("EC") => {
            let point = [vec![4], octets("x"), octets("y")].concat();
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).expect("a key")
        }
        Some("RSA") => RsaPublicKeyComponents { n: octets("n"), e: octets("e") }
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .expect("a key"),
        _ => ParsedPublicKey::new(&ED25519, octets("x")).expect("a key"),
    }
}

fn trust(key: &Key) -> TrustStore {
    let issuer = IssuerSpec {
        issuer: "https://idp.example".to_owned(),
        audience: vec!["authz".to_owned()],
        alone_audience: Vec::new(),
        alone_bound: false,
        algorithms: ["ES256", "RS256", "EdDSA"].map(str::to_owned).to_vec(),
        jwks: jwks(&[key]),
        from: "bench".to_owned(),
        subject: SubjectKind::User,
        profile: SubjectProfile::Jwt,
        typ: None,
        claims: vec!["groups".to_owned()],
    };
    let domain =
        DomainSpec { bundle: bundle(&[key]), from: "bench".to_owned(), min_sequence: None };
    let spec = TrustSpec {
        audiences: vec!["authz".to_owned()],
        domains: BTreeMap::from([("a.example".to_owned(), domain)]),
        issuers: BTreeMap::from([("corp".to_owned(), issuer)]),
        ..TrustSpec::default()
    };
    TrustStore::compile(&spec).expect("a sound specification")
}

fn benches(criterion: &mut Criterion) {
    let svid = json!({"sub": "spiffe://a.example/ns/support/sa/bot", "aud": ["authz"],
                      "exp": NOW + 300, "iat": NOW, "jti": "0198c1b2-8d6e-7f00-8000-000000000000"});
    let user = json!({"iss": "https://idp.example", "sub": "alice", "aud": "authz",
                      "exp": NOW + 300, "iat": NOW, "groups": ["staff", "employees", "support"]});
    for (role, key, claims) in [
        (Role::Agent, Key::es256("k"), &svid),
        (Role::Agent, Key::rs256("k"), &svid),
        (Role::Subject, Key::ed25519("k"), &user),
    ] {
        let token = key.sign(&claims.to_string());
        let alg = match (role, token.len()) {
            (Role::Subject, _) => "EdDSA",
            (Role::Agent, ..500) => "ES256",
            (Role::Agent, _) => "RS256",
        };
        let trust = trust(&key);
        let evidence = [Evidence { role, scheme: Scheme::Bearer, token: &token, proof: None }];
        let (input, signature) = token.rsplit_once('.').expect("a token");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let raw = library_key(&key);
        criterion.bench_function(&format!("library/{alg}"), |bencher| {
            bencher.iter(|| raw.verify_sig(black_box(input.as_bytes()), &signature).is_ok());
        });
        let none = TokenCache::new(0);
        assert!(verify(&evidence, &Presentation::default(), &trust, &none, UnixTime(NOW)).is_ok());
        criterion.bench_function(&format!("cold/{alg}"), |bencher| {
            bencher.iter(|| {
                verify(black_box(&evidence), &Presentation::default(), &trust, &none, UnixTime(NOW))
            });
        });
        let cache = TokenCache::new(1024);
        criterion.bench_function(&format!("cached/{alg}"), |bencher| {
            bencher.iter(|| {
                verify(
                    black_box(&evidence),
                    &Presentation::default(),
                    &trust,
                    &cache,
                    UnixTime(NOW),
                )
            });
        });
    }
    credentials(criterion);
    peers(criterion);
}

/// A task credential, as on each further call: as bearer token, over the client's certificate, and with a proof, which
/// is a signature of its own each time.
fn credentials(criterion: &mut Criterion) {
    const OWN: &str = "https://authz.example";
    let key = Key::es256("").by_thumbprint();
    let holder = Key::es256("");
    let domain =
        DomainSpec { bundle: bundle(&[&holder]), from: "bench".to_owned(), min_sequence: None };
    let spec = TrustSpec {
        audiences: vec!["authz".to_owned()],
        domains: BTreeMap::from([("a.example".to_owned(), domain)]),
        own: Some(OwnSpec { issuer: OWN.to_owned(), keys: jwks(&[&key]) }),
        ..TrustSpec::default()
    };
    let trust = TrustStore::compile(&spec).expect("a sound specification");
    let certificate = [7; 32];
    let nonce = Nonces {
        needed_before: UnixTime(0),
        needed_after: UnixTime(i64::MAX),
        ..Nonces::default()
    };
    let presentation = Presentation { certificate: Some(certificate), nonce };
    let x5t = json!({"x5t#S256": URL_SAFE_NO_PAD.encode(certificate)});
    let jkt = json!({"jkt": holder.thumbprint()});
    for (name, cnf, scheme) in [
        ("credential", None, Scheme::Bearer),
        ("credential-x5t", Some(x5t), Scheme::Bearer),
        ("credential-jkt", Some(jkt), Scheme::Dpop),
    ] {
        let agent = "spiffe://a.example/ns/support/sa/bot";
        let mut claims = mint::credential(OWN, agent, NOW, NOW + 300);
        if let (Some(cnf), Some(claims)) = (cnf, claims.as_object_mut()) {
            claims.insert("cnf".to_owned(), cnf);
        }
        let token = key.sign_credential(&claims.to_string());
        let claims = mint::proof("GET", "https://crm.example/v1", NOW, "a-jti", Some(&token));
        let proof = holder.sign_proof(&claims.to_string());
        let proof = (scheme == Scheme::Dpop).then_some(proof.as_str());
        let evidence = [Evidence { role: Role::Agent, scheme, token: &token, proof }];
        for (kind, cache) in [("cold", TokenCache::new(0)), ("cached", TokenCache::new(64))] {
            assert!(verify(&evidence, &presentation, &trust, &cache, UnixTime(NOW)).is_ok());
            criterion.bench_function(&format!("{kind}/{name}"), |bencher| {
                bencher.iter(|| {
                    verify(black_box(&evidence), &presentation, &trust, &cache, UnixTime(NOW))
                });
            });
        }
    }
}

/// A certificate chain of two, cold and as on each further call of a connection.
fn peers(criterion: &mut Criterion) {
    let authority = Signer::authority("a.example");
    let signer = authority.intermediate_with("a.example", |_| {});
    let leaf = signer.leaf("spiffe://a.example/ns/tools/sa/crm");
    let chain = [leaf.as_slice(), signer.certificate()];
    let domain = DomainSpec {
        bundle: x509::bundle(&[&authority]),
        from: "bench".to_owned(),
        min_sequence: None,
    };
    let spec = TrustSpec {
        audiences: vec!["authz".to_owned()],
        domains: BTreeMap::from([("a.example".to_owned(), domain)]),
        ..TrustSpec::default()
    };
    let trust = TrustStore::compile(&spec).expect("a sound specification");
    for (name, cache) in [("cold/X509", PeerCache::new(0)), ("cached/X509", PeerCache::new(64))] {
        assert!(verify_peer(&chain, &trust, &cache, UnixTime(NOW)).is_ok());
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| verify_peer(black_box(&chain), &trust, &cache, UnixTime(NOW)));
        });
    }
}

criterion_group! {
    name = group;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = benches
}
criterion_main!(group);
