//! The peer profile: X.509-SVID (SPIFFE X.509-SVID, RFC 5280 §6).

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use authz_token::mint::x509::rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints, SanType,
    date_time_ymd,
};
use authz_token::mint::x509::{Signer, bundle, uri};
use authz_token::{
    AgentProof, DomainSpec, MAX_CHAIN_BYTES, MAX_CHAIN_LENGTH, PeerCache, PeerFacts, Refusal,
    RefusalReason, TrustSpec, TrustStore, UnixTime, verify_certificate, verify_peer, verify_pem,
    verify_relayed,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use RefusalReason::{BadCredential, ExpiredCredential, NoCredential, UntrustedIssuer};

const NOW: i64 = 1_800_000_000;
const ID: &str = "spiffe://a.example/ns/tools/sa/crm";
const YEAR_2020: i64 = 1_577_836_800;
const YEAR_2029: i64 = 1_861_920_000;
const YEAR_2099: i64 = 4_070_908_800;

static A: LazyLock<Signer> = LazyLock::new(|| Signer::authority("a.example"));
static B: LazyLock<Signer> = LazyLock::new(|| Signer::authority("b.example"));

fn domain(bundle: String) -> DomainSpec {
    DomainSpec { bundle, from: "bundle.json".to_owned(), min_sequence: None }
}

fn spec() -> TrustSpec {
    TrustSpec {
        audiences: vec!["authz".to_owned()],
        domains: BTreeMap::from([
            ("a.example".to_owned(), domain(bundle(&[&A]))),
            ("b.example".to_owned(), domain(bundle(&[&B]))),
        ]),
        ..TrustSpec::default()
    }
}

/// A store whose domain `a.example` has these entries.
fn store_of(entries: &Value) -> TrustStore {
    let mut spec = spec();
    spec.domains.insert("a.example".to_owned(), domain(json!({"keys": entries}).to_string()));
    TrustStore::compile(&spec).unwrap()
}

static STORE: LazyLock<TrustStore> = LazyLock::new(|| TrustStore::compile(&spec()).unwrap());

fn check_at(trust: &TrustStore, chain: &[&[u8]], now: i64) -> Result<PeerFacts, Refusal> {
    verify_peer(chain, trust, &PeerCache::new(0), UnixTime(now))
}

fn check(chain: &[&[u8]]) -> Result<PeerFacts, Refusal> {
    check_at(&STORE, chain, NOW)
}

/// The refusal must have this reason and these words.
#[track_caller]
fn refused(result: Result<PeerFacts, Refusal>, reason: RefusalReason, words: &str) {
    let refusal = result.expect_err("it is to be refused");
    assert_eq!(reason, refusal.reason, "{}", refusal.detail);
    assert!(refusal.detail.contains(words), "`{words}` is not in `{}`", refusal.detail);
}

#[track_caller]
fn leaf_refused(change: impl FnOnce(&mut CertificateParams), words: &str) {
    refused(check(&[&A.leaf_with(ID, change)]), BadCredential, words);
}

/// What a TLS library does: one path to any configured authority, then whatever the leaf says.
fn naive(chain: &[&[u8]]) -> bool {
    let anchors: Vec<CertificateDer<'_>> =
        [&*A, &*B].iter().map(|signer| CertificateDer::from(signer.certificate())).collect();
    let anchors: Vec<_> =
        anchors.iter().map(|der| webpki::anchor_from_trusted_cert(der).unwrap()).collect();
    let ders: Vec<_> = chain.iter().map(|der| CertificateDer::from(*der)).collect();
    let (leaf, intermediates) = ders.split_first().unwrap();
    let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    webpki::EndEntityCert::try_from(leaf)
        .unwrap()
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            time,
            webpki::KeyUsage::client_auth(),
            None,
            None,
        )
        .is_ok()
}

/// A sound chain says who its peer is, until when, and by which certificate.
#[test]
fn a_sound_chain_is_its_peer() {
    let leaf = A.leaf(ID);
    let facts = check(&[&leaf]).unwrap();
    assert_eq!(
        PeerFacts {
            spiffe_id: ID.to_owned(),
            trust_domain: "a.example".to_owned(),
            issued_at: YEAR_2020,
            not_before: YEAR_2020,
            expires_at: YEAR_2099,
            certificate_digest: Sha256::digest(&leaf).into(),
        },
        facts
    );
    let signer = A.intermediate_with("a.example", |params| {
        params.not_before = date_time_ymd(2021, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
    });
    let leaf = signer.leaf(ID);
    let facts = check(&[&leaf, signer.certificate()]).unwrap();
    assert_eq!((1_609_459_200, 1_893_456_000), (facts.not_before, facts.expires_at));
    // The authority itself at the end of the chain does no harm.
    assert!(check(&[&leaf, signer.certificate(), A.certificate()]).is_ok());
    refused(check(&[&leaf]), UntrustedIssuer, "no authority of the peer's own trust domain");
}

/// Another trust domain's authority cannot speak for this one, with or without an intermediate of
/// either name; the naive way accepts each of them.
#[test]
fn another_domains_authority_is_refused() {
    let leaf = B.leaf(ID);
    assert!(naive(&[&leaf]));
    refused(check(&[&leaf]), UntrustedIssuer, "no authority of the peer's own trust domain");

    for (name, reason) in [("b.example", BadCredential), ("a.example", UntrustedIssuer)] {
        let signer = B.intermediate_with(name, |_| {});
        let leaf = signer.leaf(ID);
        let chain = [leaf.as_slice(), signer.certificate()];
        assert!(naive(&chain));
        refused(check(&chain), reason, "trust domain");
    }
    let plain = B.intermediate_with("b.example", |params| params.subject_alt_names.clear());
    let leaf = plain.leaf(ID);
    let chain = [leaf.as_slice(), plain.certificate()];
    assert!(naive(&chain));
    refused(check(&chain), UntrustedIssuer, "no authority");
    // Also where the other authority bears the name of this one's.
    let twin = Signer::authority("a.example");
    refused(check(&[&twin.leaf(ID)]), BadCredential, "a signature is not valid");
}

/// Each trust domain's own authority is accepted for it.
#[test]
fn each_domain_has_its_own_authorities() {
    let facts = check(&[&B.leaf("spiffe://b.example/x")]).unwrap();
    assert_eq!("b.example", facts.trust_domain);
    refused(
        check(&[&A.leaf("spiffe://c.example/x")]),
        UntrustedIssuer,
        "trust domain of the peer's certificate is not trusted",
    );
}

/// Exactly one URI, whatever other names there are.
#[test]
fn there_is_exactly_one_uri() {
    let dns = SanType::DnsName("crm.a.example".try_into().unwrap());
    assert!(
        check(&[&A.leaf_with(ID, |params| params.subject_alt_names.push(dns.clone()))]).is_ok()
    );
    let two = vec![uri(ID), uri("spiffe://a.example/other")];
    let chain = A.leaf_with(ID, |params| params.subject_alt_names = two);
    assert!(naive(&[&chain]));
    refused(check(&[&chain]), BadCredential, "more than one URI");
    for second in [ID, "https://crm.a.example/"] {
        let two = vec![uri(ID), uri(second)];
        leaf_refused(|params| params.subject_alt_names = two, "more than one URI");
    }
    leaf_refused(|params| params.subject_alt_names = vec![dns], "no URI");
    leaf_refused(|params| params.subject_alt_names.clear(), "no URI");
}

/// The URI is the SPIFFE ID of a workload, in its one spelling.
#[test]
fn the_uri_is_the_spiffe_id_of_a_workload() {
    let long = format!("spiffe://a.example/{}", "x".repeat(2048));
    for id in [
        "https://a.example/x",
        "SPIFFE://a.example/x",
        "spiffe://A.example/x",
        "spiffe://a.example:443/x",
        "spiffe://user@a.example/x",
        "spiffe://a.example/x/",
        "spiffe://a.example/",
        "spiffe://a.example//x",
        "spiffe://a.example/./x",
        "spiffe://a.example/../x",
        "spiffe://a.example/%78",
        "spiffe://a.example/x?y",
        "spiffe://a.example/x#y",
        "spiffe:///x",
        long.as_str(),
    ] {
        refused(check(&[&A.leaf(id)]), BadCredential, "no SPIFFE ID");
    }
    refused(check(&[&A.leaf("spiffe://a.example")]), BadCredential, "not a workload");
    let longest = format!("spiffe://a.example/{}", "x".repeat(2048 - 19));
    assert_eq!(2048, longest.len());
    assert!(check(&[&A.leaf(&longest)]).is_ok());
}

/// A signing certificate never authenticates: neither a leaf with `cA`, nor an intermediate, nor an
/// authority.
#[test]
fn a_signing_certificate_never_authenticates() {
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    leaf_refused(|params| params.is_ca = ca, "never authenticates");
    let signer = A.intermediate_with("a.example", |_| {});
    for chain in [[signer.certificate(), A.certificate()], [A.certificate(), A.certificate()]] {
        refused(check(&chain), BadCredential, "never authenticates");
    }
    assert!(check(&[&A.leaf_with(ID, |params| params.is_ca = IsCa::ExplicitNoCa)]).is_ok());
}

/// The key usage is there, critical, for signatures, and not for certificates.
#[test]
fn the_key_usage_is_that_of_a_leaf() {
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign, KeyEncipherment};
    for (usages, words) in [
        (vec![], "no key usage"),
        (vec![KeyEncipherment], "lacks `digitalSignature`"),
        (vec![DigitalSignature, KeyCertSign], "may sign certificates"),
        (vec![DigitalSignature, CrlSign], "may sign certificates"),
    ] {
        leaf_refused(|params| params.key_usages = usages, words);
    }
    let usages = vec![DigitalSignature, KeyEncipherment, KeyAgreement];
    assert!(check(&[&A.leaf_with(ID, |params| params.key_usages = usages)]).is_ok());
    // `digitalSignature` alone, once critical and once not.
    for (critical, expected) in [(true, true), (false, false)] {
        let mut usage = CustomExtension::from_oid_content(&KEY_USAGE, vec![3, 2, 7, 0x80]);
        usage.set_criticality(critical);
        let leaf = A.leaf_with(ID, |params| {
            params.key_usages.clear();
            params.custom_extensions.push(usage);
        });
        assert!(naive(&[&leaf]));
        assert_eq!(expected, check(&[&leaf]).is_ok());
        if !expected {
            refused(check(&[&leaf]), BadCredential, "not critical");
        }
    }
}

/// An extended key usage, if there is one, allows both sides of TLS.
#[test]
fn the_extended_key_usage_has_both_sides() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    for usages in [vec![ClientAuth], vec![ServerAuth], vec![CodeSigning], vec![Any]] {
        leaf_refused(|params| params.extended_key_usages = usages, "client or server");
    }
    for usages in [vec![], vec![ServerAuth, CodeSigning, ClientAuth]] {
        assert!(check(&[&A.leaf_with(ID, |params| params.extended_key_usages = usages)]).is_ok());
    }
}

/// Each certificate of the path is valid now, both ends of its validity included.
#[test]
fn the_path_is_valid_now() {
    let leaf = A.leaf(ID);
    assert!(check_at(&STORE, &[&leaf], YEAR_2020).is_ok());
    assert!(check_at(&STORE, &[&leaf], YEAR_2099).is_ok());
    for now in [YEAR_2020 - 1, 0, -1, i64::MIN, YEAR_2099 + 1, i64::MAX] {
        assert!(check_at(&STORE, &[&leaf], now).is_err(), "{now}");
    }
    let expired = A.leaf_with(ID, |params| params.not_after = date_time_ymd(2026, 1, 1));
    refused(check(&[&expired]), ExpiredCredential, "not valid now");
    let early = A.leaf_with(ID, |params| params.not_before = date_time_ymd(2098, 1, 1));
    refused(check(&[&early]), ExpiredCredential, "not valid now");
    let signer = A.intermediate_with("a.example", |params| {
        params.not_after = date_time_ymd(2026, 1, 1);
    });
    let leaf = signer.leaf(ID);
    refused(check(&[&leaf, signer.certificate()]), ExpiredCredential, "not valid now");
    // An authority that is over, or still to come, signs for nobody.
    for (from, until) in [(2020, 2026), (2098, 2099)] {
        let authority = Signer::authority_with("a.example", |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
        });
        let leaf = authority.leaf(ID);
        let trust = store_of(&json!([authority.jwk()]));
        refused(check_at(&trust, &[&leaf], NOW), UntrustedIssuer, "no authority");
        // It does beside one of the same domain that is valid, and that one only for its own.
        let both = store_of(&json!([authority.jwk(), A.jwk()]));
        assert!(check_at(&both, &[&A.leaf(ID)], NOW).is_ok());
        assert!(check_at(&both, &[&leaf], NOW).is_err());
    }
}

/// A path begins with the last and ends with the first of its certificates, whichever that is: its
/// facts say so, and so does the cache.
#[test]
fn a_path_ends_with_the_first_of_its_certificates() {
    let ends = |year: i32| {
        move |params: &mut CertificateParams| {
            params.not_after = date_time_ymd(year, 1, 1);
        }
    };
    for years in [[2029, 2040, 2050], [2040, 2029, 2050], [2050, 2040, 2029]] {
        let [authority, signer, leaf] = years;
        let authority = Signer::authority_with("a.example", ends(authority));
        let signer = authority.intermediate_with("a.example", ends(signer));
        let leaf = signer.leaf_with(ID, ends(leaf));
        let trust = store_of(&json!([authority.jwk()]));
        let cache = PeerCache::new(64);
        let chain = [leaf.as_slice(), signer.certificate()];
        let facts = verify_peer(&chain, &trust, &cache, UnixTime(NOW)).unwrap();
        assert_eq!(YEAR_2029, facts.expires_at, "{years:?}");
        assert!(verify_peer(&chain, &trust, &cache, UnixTime(YEAR_2029)).is_ok());
        assert!(verify_peer(&chain, &trust, &cache, UnixTime(YEAR_2029 + 1)).is_err(), "{years:?}");
    }
}

/// Intermediates are signing certificates, of the peer's own trust domain or of none.
#[test]
fn intermediates_are_signing_certificates() {
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let signer = A.intermediate_with("a.example", |params| change(params));
        check(&[&signer.leaf(ID), signer.certificate()])
    };
    assert!(with(&|_| {}).is_ok());
    assert!(with(&|params| params.subject_alt_names.clear()).is_ok());
    refused(with(&|params| params.is_ca = IsCa::NoCa), BadCredential, "`cA` is not set");
    refused(with(&|params| params.key_usages.clear()), BadCredential, "no key usage");
    refused(
        with(&|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]),
        BadCredential,
        "lacks `keyCertSign`",
    );
    let mut loose = CustomExtension::from_oid_content(&KEY_USAGE, vec![3, 2, 2, 4]);
    loose.set_criticality(false);
    refused(
        with(&|params| {
            params.key_usages.clear();
            params.custom_extensions = vec![loose.clone()];
        }),
        BadCredential,
        "not critical",
    );
    for (name, words) in [
        ("spiffe://b.example", "another trust domain"),
        ("spiffe://a.example/signer", "that of a workload"),
        ("https://a.example", "no SPIFFE ID"),
    ] {
        let result = with(&|params| params.subject_alt_names = vec![uri(name)]);
        refused(result, BadCredential, words);
    }
    let two = [uri("spiffe://a.example"), uri("spiffe://a.example")];
    let result = with(&|params| params.subject_alt_names = two.to_vec());
    refused(result, BadCredential, "more than one URI");
    // A workload's key signs for nobody, however its certificate came to be in the chain.
    let workload = A.intermediate_with("a.example", |params| {
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![uri("spiffe://a.example/workload")];
    });
    let leaf = workload.leaf(ID);
    refused(check(&[&leaf, workload.certificate()]), BadCredential, "intermediate");
}

/// `pathLenConstraint` of an intermediate and of an authority is kept.
#[test]
fn a_path_is_no_longer_than_its_signers_allow() {
    let limited = IsCa::Ca(BasicConstraints::Constrained(0));
    let first = A.intermediate_with("a.example", |params| params.is_ca = limited);
    assert!(check(&[&first.leaf(ID), first.certificate()]).is_ok());
    let second = first.intermediate_with("a.example", |params| {
        params.distinguished_name.push(DnType::CommonName, "second");
    });
    let leaf = second.leaf(ID);
    let chain = [leaf.as_slice(), second.certificate(), first.certificate()];
    refused(check(&chain), BadCredential, "longer than a signer allows");

    let authority = Signer::authority_with("a.example", |params| params.is_ca = limited);
    let trust = store_of(&json!([authority.jwk()]));
    assert!(check_at(&trust, &[&authority.leaf(ID)], NOW).is_ok());
    let signer = authority.intermediate_with("a.example", |_| {});
    let leaf = signer.leaf(ID);
    refused(
        check_at(&trust, &[&leaf, signer.certificate()], NOW),
        BadCredential,
        "longer than its authority allows",
    );
}

/// Name constraints over URIs refuse the path, since nothing here can honour them; others do not
/// matter to a name that is a URI.
#[test]
fn name_constraints_are_kept() {
    let uris = |excluded: bool| {
        // GeneralSubtrees of one `uniformResourceIdentifier`.
        let name = b"a.example";
        let mut subtree = vec![0x86, 9];
        subtree.extend(name);
        let mut content = vec![0x30, 15, if excluded { 0xa1 } else { 0xa0 }, 13, 0x30, 11];
        content.extend(subtree);
        let mut extension = CustomExtension::from_oid_content(&NAME_CONSTRAINTS, content);
        extension.set_criticality(true);
        extension
    };
    for excluded in [false, true] {
        let signer = A.intermediate_with("a.example", |params| {
            params.custom_extensions = vec![uris(excluded)];
        });
        let leaf = signer.leaf(ID);
        let result = check(&[&leaf, signer.certificate()]);
        refused(result, BadCredential, "outside a signer's name constraints");
    }
    let signer = A.intermediate_with("a.example", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("a.example".to_owned())],
            excluded_subtrees: vec![],
        });
    });
    assert!(check(&[&signer.leaf(ID), signer.certificate()]).is_ok());
    let leaf = signer.leaf_with(ID, |params| {
        params.subject_alt_names.push(SanType::DnsName("x.b.example".try_into().unwrap()));
    });
    refused(check(&[&leaf, signer.certificate()]), BadCredential, "name constraints");
}

/// A critical extension that nobody here knows refuses the path (RFC 5280 §4.2), and so does an
/// extension that stands twice.
#[test]
fn extensions_are_known_and_distinct() {
    let own = |critical| {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]);
        extension.set_criticality(critical);
        extension
    };
    leaf_refused(|params| params.custom_extensions = vec![own(true)], "critical extension");
    assert!(
        check(&[&A.leaf_with(ID, |params| params.custom_extensions = vec![own(false)])]).is_ok()
    );
    leaf_refused(|params| params.custom_extensions = vec![own(false), own(false)], "twice");
}

/// Without a subject the alternative names must be critical (X.509-SVID §3.1).
#[test]
fn without_a_subject_the_names_are_critical() {
    let mut names = vec![0x30, 36, 0x86, 34];
    names.extend(ID.as_bytes());
    assert_eq!(34, ID.len());
    for (critical, expected) in [(true, true), (false, false)] {
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], names.clone());
        extension.set_criticality(critical);
        let leaf = A.leaf_with(ID, |params| {
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names.clear();
            params.custom_extensions = vec![extension];
        });
        assert_eq!(expected, check(&[&leaf]).is_ok(), "{critical}");
    }
}

/// Chains are of bounded length and size; an empty one is no credential.
#[test]
fn chains_are_bounded() {
    refused(check(&[]), NoCredential, "no certificate");
    let leaf = A.leaf(ID);
    let mut chain = vec![leaf.as_slice()];
    chain.resize(MAX_CHAIN_LENGTH, A.certificate());
    assert!(check(&chain).is_ok());
    chain.push(A.certificate());
    refused(check(&chain), BadCredential, "too long");
    let big = vec![0x30; MAX_CHAIN_BYTES];
    refused(check(&[&leaf, &big]), BadCredential, "too long");
    refused(check(&[&big]), BadCredential, "not one X.509 certificate");
    refused(check(&[&[]]), BadCredential, "not one X.509 certificate");
    let mut trailing = leaf.clone();
    trailing.push(0);
    refused(check(&[&trailing]), BadCredential, "not one X.509 certificate");
}

/// Not one bit of a certificate may change.
#[test]
fn a_changed_certificate_is_refused() {
    let leaf = A.leaf(ID);
    for position in 0..leaf.len() {
        let mut changed = leaf.clone();
        *changed.get_mut(position).unwrap() ^= 1;
        assert!(check(&[&changed]).is_err(), "byte {position}");
    }
}

/// A chain is verified once for a key set; its end counts on every call, and a bundle that drops
/// its authority ends it at once.
#[test]
fn a_verified_chain_is_kept_until_it_ends() {
    let cache = PeerCache::new(64);
    let leaf = A.leaf_with(ID, |params| params.not_after = date_time_ymd(2030, 1, 1));
    let check =
        |trust: &TrustStore, chain: &[&[u8]], now| verify_peer(chain, trust, &cache, UnixTime(now));
    let first = check(&STORE, &[&leaf], NOW).unwrap();
    assert_eq!(first, check(&STORE, &[&leaf], NOW).unwrap());
    assert_eq!((1, 1, 1), (cache.hits(), cache.misses(), cache.len()));
    assert!(!cache.is_empty());
    refused(check(&STORE, &[&leaf], 1_893_456_001), ExpiredCredential, "not valid now");
    refused(check(&STORE, &[&leaf], YEAR_2020 - 1), ExpiredCredential, "not valid now");

    // What was not verified is not kept, and a longer chain is another one.
    refused(check(&STORE, &[&B.leaf(ID)], NOW), UntrustedIssuer, "no authority");
    assert_eq!(1, cache.len());
    assert!(check(&STORE, &[&leaf, b"x"], NOW).is_err());
    let (head, tail) = leaf.split_at(100);
    assert!(check(&STORE, &[head, tail], NOW).is_err());

    let rotated = store_of(&json!([Signer::authority("a.example").jwk()]));
    refused(check(&rotated, &[&leaf], NOW), BadCredential, "a signature is not valid");
    refused(check(&store_of(&json!([])), &[&leaf], NOW), UntrustedIssuer, "no usable authority");
    assert!(check(&STORE, &[&leaf], NOW).is_ok());
    for _ in 0..200 {
        assert!(check(&STORE, &[&A.leaf(ID)], NOW).is_ok());
    }
    assert!(cache.len() <= 64, "{}", cache.len());
}

/// An entry of a bundle is an authority only by `use: x509-svid`, with its own certificate first in
/// `x5c`; what is none is left out.
#[test]
fn an_authority_is_an_entry_with_its_certificate() {
    let leaf = A.leaf(ID);
    let with = |name: &str, value: Value| {
        let mut entry = A.jwk();
        let members = entry.as_object_mut().unwrap();
        if value.is_null() {
            members.remove(name);
        } else {
            members.insert(name.to_owned(), value);
        }
        let trust = store_of(&json!([entry]));
        let count = trust.domains().first().unwrap().authorities;
        assert_eq!(count == 1, check_at(&trust, &[&leaf], NOW).is_ok());
        count
    };
    let own = STANDARD.encode(A.certificate());
    let other = STANDARD.encode(B.certificate());
    let workload = STANDARD.encode(&leaf);
    assert_eq!(1, with("kid", json!("any")));
    // All but the first value are ignored (X.509-SVID §6.2).
    assert_eq!(1, with("x5c", json!([own, other])));
    for x5c in [
        json!(null),
        json!([]),
        json!(own),
        json!([1]),
        json!([other, own]),
        json!([workload]),
        json!([""]),
        json!(["AAAA"]),
        json!([format!("{own}\n")]),
        json!(["A".repeat(40_000)]),
    ] {
        assert_eq!(0, with("x5c", x5c.clone()), "{x5c}");
    }
    for r#use in [json!(null), json!("X509-SVID"), json!("jwt-svid"), json!("sig"), json!(7)] {
        assert_eq!(0, with("use", r#use.clone()), "{use}");
    }
    for kty in [json!(null), json!("AKP"), json!("RSA"), json!("OKP")] {
        assert_eq!(0, with("kty", kty.clone()), "{kty}");
    }
    assert_eq!(0, with("x", json!("AAAA")), "its key is not that of the certificate");
    for change in [
        &(|params: &mut CertificateParams| params.is_ca = IsCa::NoCa)
            as &dyn Fn(&mut CertificateParams),
        &|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        &|params| params.subject_alt_names = vec![uri("spiffe://a.example/workload")],
    ] {
        let none = Signer::authority_with("a.example", change);
        let trust = store_of(&json!([none.jwk()]));
        assert_eq!(0, trust.domains().first().unwrap().authorities);
        assert!(trust.warnings().iter().any(|warning| warning.what.contains("ignored")));
    }
}

/// A domain without any usable entry is invalid for both kinds of SVID; one without authorities
/// has no X.509-SVIDs, one without keys no JWT-SVIDs.
#[test]
fn a_domain_without_authorities_has_no_peers() {
    let leaf = A.leaf(ID);
    for entries in [json!([]), json!([{"kty": "AKP", "use": "x509-svid"}])] {
        let trust = store_of(&entries);
        refused(check_at(&trust, &[&leaf], NOW), UntrustedIssuer, "`a.example` has no usable");
        assert!(trust.warnings().iter().any(|one| one.what.contains("every SVID of this domain")));
    }
}

/// The kinds of SVID do not lend each other their keys: an authority verifies no token, a token's key
/// no certificate, and a `kid` that both bear names the token's key alone.
#[test]
fn each_kind_of_svid_has_its_own_keys() {
    use authz_token::mint::Key;
    use authz_token::{Evidence, Presentation, Role, Scheme, TokenCache, verify};

    let key = Key::es256("shared");
    let claims = json!({"sub": ID, "aud": ["authz"], "exp": NOW + 300});
    let token = key.sign(&claims.to_string());
    let leaf = A.leaf(ID);
    let accepted = |trust: &TrustStore| {
        let evidence =
            Evidence { role: Role::Agent, scheme: Scheme::Bearer, token: &token, proof: None };
        let token = verify(
            &[evidence],
            &Presentation::default(),
            trust,
            &TokenCache::new(0),
            UnixTime(NOW),
        );
        (token.is_ok(), check_at(trust, &[&leaf], NOW).is_ok())
    };
    let named = |name: &str, value: Value, mut entry: Value| {
        entry.as_object_mut().unwrap().insert(name.to_owned(), value);
        entry
    };
    let token_key = key.jwk(Some("jwt-svid"));
    let authority = named("kid", json!("shared"), A.jwk());
    assert_eq!((true, true), accepted(&store_of(&json!([token_key, authority]))));
    assert_eq!((true, true), accepted(&store_of(&json!([authority, token_key]))));
    assert_eq!((true, false), accepted(&store_of(&json!([token_key]))));
    assert_eq!((false, true), accepted(&store_of(&json!([authority]))));
    // Each under the other's `use`.
    let token_key = named("use", json!("x509-svid"), token_key);
    let authority = named("use", json!("jwt-svid"), authority);
    assert_eq!((false, false), accepted(&store_of(&json!([token_key, authority]))));
    assert_eq!((false, false), accepted(&store_of(&json!([]))));
    // The set is bounded over both kinds, and one that is not public is refused whole.
    let many: Vec<Value> = (0..129).map(|_| A.jwk()).collect();
    let private = named("d", json!("AAAA"), A.jwk());
    for entries in [json!(many), json!([private])] {
        let mut spec = spec();
        let bundle = json!({"keys": entries}).to_string();
        spec.domains.insert("a.example".to_owned(), domain(bundle));
        assert!(TrustStore::compile(&spec).is_err());
    }
}

/// What a proxy forwards is PEM, percent-encoded or not, and is held to the same rules.
#[test]
fn a_forwarded_certificate_is_verified_alike() {
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    let encoded = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let check = |text: &str| verify_certificate(text, &STORE, &PeerCache::new(1), UnixTime(NOW));
    let leaf = pem("CERTIFICATE", &A.leaf(ID));
    assert_eq!(ID, check(&leaf).unwrap().spiffe_id);
    assert_eq!(ID, check(&encoded(&leaf)).unwrap().spiffe_id);
    let signer = A.intermediate_with("a.example", |_| {});
    let chain = pem("CERTIFICATE", &signer.leaf(ID)) + &pem("CERTIFICATE", signer.certificate());
    assert_eq!(ID, check(&encoded(&chain)).unwrap().spiffe_id);

    refused(check(""), NoCredential, "no certificate");
    let other = pem("CERTIFICATE", &B.leaf(ID));
    refused(check(&other), UntrustedIssuer, "no authority");
    refused(check(&pem("PRIVATE KEY", &A.leaf(ID))), BadCredential, "more than certificates");
    refused(check(&(leaf.clone() + &pem("X509 CRL", b"x"))), BadCredential, "more than");
    for text in [
        "x".to_owned(),
        "%".to_owned(),
        leaf.replace("-----END", "-----FIN"),
        leaf.replace("BEGIN CERTIFICATE-----\n", "BEGIN CERTIFICATE-----\n!"),
        pem("CERTIFICATE", b""),
        pem("CERTIFICATE", b"x"),
    ] {
        refused(check(&text), BadCredential, "");
    }
    refused(check(&"x".repeat(400_000)), BadCredential, "too long");
    refused(check(&leaf.repeat(MAX_CHAIN_LENGTH + 1)), BadCredential, "too long");
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// A chain in PEM is the same chain, whether or not its leaf stands among the rest again.
#[test]
fn a_chain_in_pem_is_verified_alike() {
    let cache = PeerCache::new(64);
    let check = |leaf: &str, rest: &str| {
        verify_pem(leaf.as_bytes(), rest.as_bytes(), &STORE, &cache, UnixTime(NOW))
    };
    let signer = A.intermediate_with("a.example", |_| {});
    let leaf = signer.leaf(ID);
    let (own, rest) = (pem(&leaf), pem(signer.certificate()));
    let expected = self::check(&[&leaf, signer.certificate()]).unwrap();
    assert_eq!(expected, check(&own, &rest).unwrap());
    assert_eq!(expected, check(&own, &(own.clone() + &rest)).unwrap());
    assert_eq!((0, 2), (cache.hits(), cache.misses()));
    assert_eq!(expected, check(&own, &rest).unwrap());
    assert_eq!((1, 2), (cache.hits(), cache.misses()));

    refused(check(&own, ""), UntrustedIssuer, "no authority");
    refused(check("", ""), NoCredential, "no certificate");
    refused(check("", &rest), NoCredential, "no certificate");
    refused(check(&(own.clone() + &rest), ""), BadCredential, "more than one");
    refused(check(&own, &(own.clone() + &own)), BadCredential, "an intermediate");
    refused(check(&own, "x"), BadCredential, "not PEM");
    refused(check("x", &rest), BadCredential, "not PEM");
    refused(check(&own, &rest.repeat(MAX_CHAIN_LENGTH)), BadCredential, "too long");
    refused(check(&own, &"x".repeat(400_000)), BadCredential, "too long");
    let other = pem(&B.leaf(ID));
    refused(check(&other, ""), UntrustedIssuer, "no authority");
}

/// What is remembered of a chain in PEM ends with its certificates and with the keys.
#[test]
fn a_remembered_pem_chain_ends() {
    let cache = PeerCache::new(16);
    let leaf = pem(&A.leaf_with(ID, |params| params.not_after = date_time_ymd(2029, 1, 1)));
    let check = |trust: &TrustStore, now: i64| {
        verify_pem(leaf.as_bytes(), b"", trust, &cache, UnixTime(now)).map(|facts| facts.spiffe_id)
    };
    assert_eq!(ID, check(&STORE, NOW).unwrap());
    assert_eq!(ID, check(&STORE, YEAR_2029).unwrap());
    assert_eq!(ExpiredCredential, check(&STORE, YEAR_2029 + 1).unwrap_err().reason);
    let other = store_of(&json!([]));
    assert_eq!(UntrustedIssuer, check(&other, NOW).unwrap_err().reason);
}

/// A relayed agent is one of a trust domain that has authorities, and its certificate, where it comes along, is its own.
#[test]
fn a_relayed_principal() {
    let check = |principal: &str, certificate: &str| {
        verify_relayed(principal, certificate, &STORE, &PeerCache::new(1), UnixTime(NOW))
    };
    let refused = |principal: &str, certificate: &str, reason, words: &str| {
        let refusal = check(principal, certificate).expect_err("it is to be refused");
        assert_eq!(reason, refusal.reason, "{}", refusal.detail);
        assert!(refusal.detail.contains(words), "`{words}` is not in `{}`", refusal.detail);
    };
    let agent = check(ID, "").unwrap();
    assert_eq!((ID, AgentProof::Relayed), (agent.spiffe_id.as_str(), agent.proof));
    assert_eq!((None, None), (agent.certificate_digest, agent.issued_at));
    let leaf = A.leaf(ID);
    let agent = check(ID, &pem(&leaf)).unwrap();
    assert_eq!(AgentProof::Relayed, agent.proof);
    assert_eq!(Some(Sha256::digest(&leaf).into()), agent.certificate_digest);
    assert_eq!((Some(YEAR_2020), Some(YEAR_2099)), (agent.issued_at, agent.expires_at));

    for (principal, words) in [
        ("", "spiffe://"),
        ("CN=bot", "spiffe://"),
        ("bot.a.example", "spiffe://"),
        ("spiffe://A.example/bot", "trust domain"),
        ("spiffe://a.example", "not a workload"),
        ("spiffe://a.example/", "segment"),
        ("spiffe://a.example/ns/../bot", "segment"),
        ("spiffe://a.example/ns//bot", "segment"),
        ("spiffe://a.example/ns/%2e%2e", "character"),
        ("spiffe://a.example/ns/*", "character"),
        (&format!("spiffe://a.example/{}", "x".repeat(2048)), "2048"),
    ] {
        refused(principal, "", BadCredential, words);
    }
    refused("spiffe://a.example.evil.example/bot", "", UntrustedIssuer, "not trusted");
    refused("spiffe://x.example/bot", "", UntrustedIssuer, "not trusted");
    refused(ID, &pem(&A.leaf("spiffe://a.example/other")), BadCredential, "not the relayed");
    refused(ID, &pem(&B.leaf(ID)), UntrustedIssuer, "no authority");
    refused(ID, "x", BadCredential, "not PEM");
    let expired = A.leaf_with(ID, |params| params.not_after = date_time_ymd(2026, 1, 1));
    refused(ID, &pem(&expired), ExpiredCredential, "not valid now");
    let none = store_of(&json!([]));
    let refusal = verify_relayed(ID, "", &none, &PeerCache::new(1), UnixTime(NOW)).unwrap_err();
    assert_eq!(UntrustedIssuer, refusal.reason);
}

const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
const NAME_CONSTRAINTS: [u64; 4] = [2, 5, 29, 30];
