//! The cache changes no answer.

use authz_token::mint::bundle;
use authz_token::{
    Presentation, Refusal, Role, TokenCache, TrustStore, UnixTime, VerifiedFacts, verify,
};
use proptest::prelude::*;
use serde_json::json;

use crate::support::*;

/// What one token gets, as a bearer token.
fn ask(
    role: Role,
    token: &str,
    trust: &TrustStore,
    cache: &TokenCache,
    now: i64,
) -> Result<VerifiedFacts, Refusal> {
    verify(&[evidence(role, token)], &Presentation::default(), trust, cache, UnixTime(now))
}

/// A token is a hit the second time, and only as it stands.
#[test]
fn a_second_time_is_a_hit() {
    let trust = compile(&spec());
    let cache = TokenCache::new(64);
    let token = AGENT_KEY.sign(&svid().to_string());
    let check = || ask(Role::Agent, &token, &trust, &cache, NOW);
    let first = check();
    assert!(first.is_ok());
    assert_eq!((0, 1, 1), (cache.hits(), cache.misses(), cache.len()));
    assert_eq!(first, check());
    assert_eq!((1, 1, 1), (cache.hits(), cache.misses(), cache.len()));
}

/// A token with another body and the signature of a cached one never hits. A cache keyed by the
/// signature, as in the naive way, would let it in.
#[test]
fn a_tampered_body_with_an_old_signature_never_hits() {
    let trust = compile(&spec());
    let cache = TokenCache::new(64);
    let sound = AGENT_KEY.sign(&svid().to_string());
    assert!(ask(Role::Agent, &sound, &trust, &cache, NOW).is_ok());
    let admin = but(svid(), "sub", json!("spiffe://a.example/admin")).to_string();
    let forged = ROGUE_AGENT_KEY.sign(&admin);
    let (body, _) = forged.rsplit_once('.').unwrap();
    let (_, signature) = sound.rsplit_once('.').unwrap();
    let mixed = format!("{body}.{signature}");
    let by_signature = |token: &str| token.rsplit_once('.').unwrap().1.to_owned();
    assert_eq!(by_signature(&sound), by_signature(&mixed), "the naive key would hit");
    for token in [&mixed, &forged] {
        let result = ask(Role::Agent, token, &trust, &cache, NOW);
        assert!(result.is_err());
    }
    assert_eq!((0, 1), (cache.hits(), cache.len()));
}

/// An entry ends at its token's `exp`, and does not begin before its `nbf`.
#[test]
fn an_entry_ends_with_its_token() {
    let trust = compile(&spec());
    let cache = TokenCache::new(64);
    let token = AGENT_KEY.sign(&but(svid(), "nbf", json!(NOW)).to_string());
    let reason = |now: i64| {
        ask(Role::Agent, &token, &trust, &cache, now).err().map(|refusal| refusal.reason)
    };
    assert_eq!(None, reason(NOW));
    assert_eq!(None, reason(NOW + 304));
    assert_eq!(Some(authz_token::RefusalReason::ExpiredCredential), reason(NOW + 305));
    assert_eq!(Some(authz_token::RefusalReason::ExpiredCredential), reason(NOW - 6));
}

/// A change of keys or settings ends what was cached.
#[test]
fn another_revision_ends_what_was_cached() {
    let cache = TokenCache::new(64);
    let token = AGENT_KEY.sign(&svid().to_string());
    let check =
        |spec: &authz_token::TrustSpec| ask(Role::Agent, &token, &compile(spec), &cache, NOW);
    assert!(check(&spec()).is_ok());
    assert!(check(&spec_with_bundle(&bundle(&[&ROGUE_AGENT_KEY]))).is_err());
    let mut elsewhere = spec();
    elsewhere.audiences = vec!["elsewhere".to_owned()];
    assert!(check(&elsewhere).is_err());
    assert_eq!(0, cache.hits());
}

/// A token cached for one role is not served for the other.
#[test]
fn a_role_has_its_own_entries() {
    let trust = compile(&spec_with_bundle(&bundle(&[&IDP_KEY])));
    let cache = TokenCache::new(64);
    let token = IDP_KEY.sign(&user().to_string());
    assert!(ask(Role::Subject, &token, &trust, &cache, NOW).is_ok());
    assert!(ask(Role::Agent, &token, &trust, &cache, NOW).is_err());
    assert_eq!(0, cache.hits());
}

/// The cache holds no more than its capacity, keeps what is in use, and may hold nothing.
#[test]
fn the_cache_is_bounded() {
    let trust = compile(&spec());
    for capacity in [0, 1, 3, 16, 40] {
        let cache = TokenCache::new(capacity);
        for i in 0..100 {
            let token = AGENT_KEY.sign(&but(svid(), "jti", json!(i.to_string())).to_string());
            for _ in 0..2 {
                let evidence = [evidence(Role::Agent, &token)];
                assert!(
                    verify(&evidence, &Presentation::default(), &trust, &cache, UnixTime(NOW))
                        .is_ok()
                );
            }
            assert!(cache.len() <= capacity);
        }
        assert_eq!(capacity == 0, cache.is_empty());
        assert_eq!(if capacity == 0 { 0 } else { 100 }, cache.hits());
    }
}

/// Refusals are not kept.
#[test]
fn refusals_are_not_kept() {
    let trust = compile(&spec());
    let cache = TokenCache::new(64);
    for claims in [but(svid(), "exp", json!(1)), but(svid(), "aud", json!("other"))] {
        let token = AGENT_KEY.sign(&claims.to_string());
        assert!(ask(Role::Agent, &token, &trust, &cache, NOW).is_err());
    }
    assert!(cache.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked in whatever order, at whatever time, an answer with a cache is the answer
    /// without one.
    #[test]
    fn cached_equals_uncached(
        steps in prop::collection::vec(
            (0_usize..12, any::<bool>(), -400_i64..800, 0_usize..2),
            1..40,
        ),
        capacity in 0_usize..20,
    ) {
        static TOKENS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
            let mut tokens = vec![
                AGENT_KEY.sign(&svid().to_string()),
                AGENT_KEY.sign(&but(svid(), "nbf", json!(NOW)).to_string()),
                AGENT_KEY.sign(&but(svid(), "exp", json!(NOW + 1)).to_string()),
                AGENT_KEY.sign(&but(svid(), "aud", json!("other")).to_string()),
                AGENT_KEY.sign_with(r#"{"alg":"ES256"}"#, &svid().to_string()),
                ROGUE_AGENT_KEY.sign(&svid().to_string()),
                IDP_KEY.sign(&user().to_string()),
                IDP_KEY.sign(&but(user(), "auth_time", json!(NOW + 100)).to_string()),
                ROGUE_IDP_KEY.sign(&user().to_string()),
            ];
            let mixed: Vec<String> = tokens.iter().take(3).zip(tokens.iter().skip(1))
                .map(|(a, b)| {
                    let (body, _) = a.rsplit_once('.').unwrap();
                    let (_, signature) = b.rsplit_once('.').unwrap();
                    format!("{body}.{signature}")
                })
                .collect();
            tokens.extend(mixed);
            tokens
        });
        let trusts = [compile(&spec()), compile(&spec_with_bundle(&bundle(&[&ROGUE_AGENT_KEY])))];
        let cache = TokenCache::new(capacity);
        for (token, agent, offset, trust) in steps {
            let token = TOKENS.get(token).unwrap();
            let trust = trusts.get(trust).unwrap();
            let role = if agent { Role::Agent } else { Role::Subject };
            let now = UnixTime(NOW + offset);
            let evidence = [evidence(role, token)];
            let with = verify(&evidence, &Presentation::default(), trust, &cache, now);
            let without = verify(&evidence, &Presentation::default(), trust, &TokenCache::new(0), now);
            prop_assert_eq!(with, without);
        }
    }
}
