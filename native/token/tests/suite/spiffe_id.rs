//! The syntax of SPIFFE IDs.

use authz_token::SpiffeIdError::{PathCharacter, Scheme, Segment, TooLong, TrustDomain};
use authz_token::{SpiffeId, SpiffeIdError};

fn all(expected: SpiffeIdError, ids: &[&str]) {
    for id in ids {
        assert_eq!(Err(expected), SpiffeId::parse(id), "{id}");
    }
}

/// Sound IDs are parsed into their parts, unchanged.
#[test]
fn sound_ids_are_parsed() {
    for (id, trust_domain, path) in [
        ("spiffe://a", "a", ""),
        ("spiffe://a.example/ns/x/sa/y", "a.example", "/ns/x/sa/y"),
        ("spiffe://a-b_c.1/A.b-c_9", "a-b_c.1", "/A.b-c_9"),
        ("spiffe://1.2.3.4/...", "1.2.3.4", "/..."),
    ] {
        let parsed = SpiffeId::parse(id).unwrap();
        assert_eq!(
            (id, trust_domain, path),
            (parsed.as_str(), parsed.trust_domain(), parsed.path())
        );
    }
}

/// The scheme is `spiffe`, in lower case.
#[test]
fn the_scheme_is_spiffe() {
    all(Scheme, &["", "spiffe:", "spiffe:/a/b", "Spiffe://a/b", "https://a/b", " spiffe://a/b"]);
}

/// The trust domain is there, in lower case, without user, port or anything encoded.
#[test]
fn the_trust_domain_is_a_plain_lower_case_host() {
    all(
        TrustDomain,
        &[
            "spiffe://",
            "spiffe:///path",
            "spiffe://A.example/x",
            "spiffe://a:80/x",
            "spiffe://u@a/x",
            "spiffe://u:p@a/x",
            "spiffe://a%2eexample/x",
            "spiffe://é.example/x",
            "spiffe://[::1]/x",
            "spiffe://a ",
            "spiffe://a\\b/x",
        ],
    );
    let long = format!("spiffe://{}/x", "a".repeat(256));
    all(TrustDomain, &[&long]);
    assert!(SpiffeId::parse(&format!("spiffe://{}/x", "a".repeat(255))).is_ok());
}

/// There is no query and no fragment.
#[test]
fn there_is_no_query_or_fragment() {
    all(TrustDomain, &["spiffe://a?x", "spiffe://a#x"]);
    all(PathCharacter, &["spiffe://a/b?x=1", "spiffe://a/b#x", "spiffe://a/b?", "spiffe://a/b#"]);
}

/// A path segment has no encoded or other character.
#[test]
fn a_path_has_no_other_character() {
    all(
        PathCharacter,
        &[
            "spiffe://a/%41",
            "spiffe://a/b c",
            "spiffe://a/é",
            "spiffe://a/b\\c",
            "spiffe://a/b:c",
            "spiffe://a/b@c",
            "spiffe://a/b;c",
            "spiffe://a/*",
            "spiffe://a/b\0",
            "spiffe://a/b\n",
        ],
    );
}

/// A path has no empty or relative segment and no slash at its end.
#[test]
fn a_path_has_no_empty_or_relative_segment() {
    all(
        Segment,
        &[
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/b/",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b/..",
            "spiffe://a/b/.",
            "spiffe://a//",
        ],
    );
}

/// IDs of 2048 bytes are supported, longer ones refused.
#[test]
fn up_to_2048_bytes_are_supported() {
    let stem = "spiffe://a.example/";
    let longest = format!("{stem}{}", "x".repeat(2048 - stem.len()));
    assert_eq!(2048, SpiffeId::parse(&longest).unwrap().as_str().len());
    all(TooLong, &[&format!("{longest}x")]);
}
