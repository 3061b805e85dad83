//! Half-configured trust is refused, with a message that says how to fix it.

use std::error::Error as _;

use authz_token::{IssuerSpec, SubjectProfile, TrustSpec, TrustStore, thumbprint};

use crate::support::*;

fn refused(spec: &TrustSpec, place: &str, what: &str) {
    let errors = TrustStore::compile(spec).unwrap_err();
    assert!(
        errors.iter().any(|error| error.place == place && error.defect.to_string().contains(what)),
        "{errors:?}"
    );
    assert!(errors.iter().all(|error| !error.fix.is_empty()));
}

fn issuer_refused(change: impl FnOnce(&mut IssuerSpec), place: &str, what: &str) {
    refused(&spec_with_issuer(change), place, what);
}

/// An issuer without audience or algorithms, or with unknown ones, is refused.
#[test]
fn an_issuer_needs_audience_and_algorithms() {
    issuer_refused(|issuer| issuer.audience.clear(), "issuers.corp.audience", "no audience");
    let empty = vec![String::new()];
    issuer_refused(|issuer| issuer.audience = empty, "issuers.corp.audience", "empty");
    issuer_refused(|issuer| issuer.algorithms.clear(), "issuers.corp.algorithms", "no algorithms");
    for name in ["none", "HS256", "es256", "RSA-OAEP", ""] {
        let names = vec!["ES256".to_owned(), name.to_owned()];
        issuer_refused(|issuer| issuer.algorithms = names, "issuers.corp.algorithms", "supported");
    }
}

/// Two issuers of one `iss` are refused: a token belongs to exactly one.
#[test]
fn an_iss_belongs_to_one_issuer() {
    let mut spec = spec();
    let twin = spec.issuers.get("corp").unwrap().clone();
    spec.issuers.insert("twin".to_owned(), twin);
    refused(&spec, "issuers.twin.issuer", "`corp` has the same");
}

/// Names and texts of an issuer are sound.
#[test]
fn an_issuer_is_named_soundly() {
    for alias in ["", "a/b", "a b", "é", &"x".repeat(65)] {
        let mut spec = spec();
        let issuer = spec.issuers.remove("corp").unwrap();
        spec.issuers.insert(alias.to_owned(), issuer);
        refused(&spec, &format!("issuers.{alias}"), "no alias");
    }
    for iss in ["", "https://idp.example/ ", "a\nb"] {
        issuer_refused(|issuer| issuer.issuer = iss.to_owned(), "issuers.corp.issuer", "empty");
    }
    issuer_refused(|issuer| issuer.typ = Some(Vec::new()), "issuers.corp.typ", "empty");
}

/// The profile of access tokens has its own `typ`, and no other profile has that one.
#[test]
fn the_typ_of_access_tokens_is_fixed() {
    for typ in ["at+jwt", "Application/AT+JWT"] {
        let typ = Some(vec!["JWT".to_owned(), typ.to_owned()]);
        issuer_refused(|issuer| issuer.typ = typ, "issuers.corp.typ", "its own profile");
    }
    issuer_refused(
        |issuer| {
            issuer.profile = SubjectProfile::AccessToken;
            issuer.typ = Some(vec!["JWT".to_owned()]);
        },
        "issuers.corp.typ",
        "has one `typ`",
    );
}

/// Kept claims are few, distinct, and not those that have a place of their own.
#[test]
fn kept_claims_are_a_short_closed_list() {
    for name in ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "cnf", "acr", "auth_time"] {
        let names = vec![name.to_owned()];
        issuer_refused(|issuer| issuer.claims = names, "issuers.corp.claims", "registered");
    }
    let twice = vec!["a".to_owned(), "a".to_owned()];
    issuer_refused(|issuer| issuer.claims = twice, "issuers.corp.claims", "twice");
    let many = (0..33).map(|i| format!("c{i}")).collect();
    issuer_refused(|issuer| issuer.claims = many, "issuers.corp.claims", "32");
    issuer_refused(|issuer| issuer.claims = vec![String::new()], "issuers.corp.claims", "empty");
}

/// Trust domains need an audience, a name and a bundle.
#[test]
fn a_domain_needs_audience_name_and_bundle() {
    let mut without = spec();
    without.audiences.clear();
    refused(&without, "audiences", "no audience");
    let mut blank = spec();
    blank.audiences = vec![String::new()];
    refused(&blank, "audiences", "empty");
    for name in ["", "A.example", "a:1", "a/b", "spiffe://a.example"] {
        let mut spec = spec();
        let domain = spec.domains.remove("a.example").unwrap();
        spec.domains.insert(name.to_owned(), domain);
        refused(&spec, &format!("domains.{name}"), "no trust domain name");
    }
    refused(&spec_with_bundle("{}"), "domains.a.example.bundle (bundle.json)", "no array `keys`");
}

/// Limits are within their ranges.
#[test]
fn limits_are_within_their_ranges() {
    let with = |change: &dyn Fn(&mut TrustSpec)| {
        let mut spec = spec();
        change(&mut spec);
        spec
    };
    refused(&with(&|spec| spec.leeway_seconds = 61), "leeway_seconds", "61");
    refused(&with(&|spec| spec.max_token_bytes = 255), "max_token_bytes", "255");
    refused(&with(&|spec| spec.max_token_bytes = 65_537), "max_token_bytes", "65537");
    refused(&with(&|spec| spec.max_lifetime_seconds = Some(0)), "max_lifetime_seconds", "0");
    assert!(TrustStore::compile(&with(&|spec| spec.leeway_seconds = 60)).is_ok());
}

/// All that is wrong is said at once.
#[test]
fn all_errors_are_reported() {
    let mut spec = spec_with_issuer(|issuer| issuer.audience.clear());
    spec.leeway_seconds = 100;
    spec.audiences.clear();
    assert_eq!(3, TrustStore::compile(&spec).unwrap_err().len());
}

/// The revision is that of the content: equal for equal, another for any change of keys or
/// settings.
#[test]
fn the_revision_is_that_of_the_content() {
    let base = compile(&spec());
    assert_eq!(base.revision(), compile(&spec()).revision());
    assert_eq!(64, base.revision().len());
    let mut leeway = spec();
    leeway.leeway_seconds = 6;
    let mut audience = spec();
    audience.audiences.push("more".to_owned());
    for other in [
        leeway,
        audience,
        spec_with_bundle(r#"{"keys":[]}"#),
        spec_with_issuer(|issuer| issuer.claims.clear()),
        spec_with_issuer(|issuer| issuer.algorithms.push("ES384".to_owned())),
    ] {
        assert_ne!(base.revision(), compile(&other).revision());
    }
}

/// An error keeps the errors that caused it.
#[test]
fn errors_keep_their_sources() {
    let error = TrustSpec::from_json(b"{").unwrap_err();
    let defect = error.source().unwrap();
    assert_eq!("the trust specification: not JSON", defect.to_string());
    assert_eq!("not JSON", defect.source().unwrap().to_string());

    let keys = r#"{"kty":"OKP","crv":"Ed25519","x":"not base64url"}"#;
    let error = thumbprint(keys).unwrap_err();
    assert_eq!("a member is not canonical base64url", error.to_string());
    assert!(error.source().unwrap().is::<base64::DecodeError>());
}
