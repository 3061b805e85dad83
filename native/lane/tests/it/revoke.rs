//! The kill switch.

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{ApiError, Surface, Transport};
use prost::Message;
use serde_json::json;

use crate::support::*;

fn revoke_by(
    served: &Served,
    listener: &str,
    target: Option<Target>,
) -> Result<wire::AdminRevokeResponse, ApiError> {
    let request = wire::AdminRevokeRequest { target, reason: "stolen".to_owned() };
    let transport = Transport::by(listener);
    let answer = served.engine.call(Surface::Revoke, &request.encode_to_vec(), &transport)?;
    Ok(wire::AdminRevokeResponse::decode(answer.as_slice()).unwrap())
}

fn revoke(served: &Served, target: Target) {
    revoke_by(served, "admin", Some(target)).unwrap();
}

/// Each kind of target is refused at once, and only what it names.
#[test]
fn every_target() {
    let jti = || {
        let mut request = search();
        request.evidence[0].token = svid_of(&json!({"jti": "t-1"}));
        request
    };
    type Made<'a> = Box<dyn Fn() -> wire::CheckRequest + 'a>;
    let same = || -> Made<'_> { Box::new(search) };
    let cases: Vec<(Target, Made<'_>)> = vec![
        (Target::Agent(BOT.to_owned()), same()),
        (Target::Issuer("a.example".to_owned()), same()),
        (Target::Issuer("corp".to_owned()), same()),
        (Target::Key("d1".to_owned()), same()),
        (Target::Key("c1".to_owned()), same()),
        (Target::Jti("t-1".to_owned()), Box::new(jti)),
        (Target::Operation("crm.search".to_owned()), same()),
        (Target::System("crm".to_owned()), same()),
    ];
    for (target, request) in cases {
        let served = served();
        assert_eq!("PERMITTED", code(&served.check(&request())), "{target:?}");
        for other in [
            Target::Agent("spiffe://a.example/ns/support/sa/other".to_owned()),
            Target::Issuer("other".to_owned()),
            Target::Key("other".to_owned()),
            Target::Jti("other".to_owned()),
            Target::Operation("crm.delete".to_owned()),
            Target::System("wiki".to_owned()),
        ] {
            revoke(&served, other);
        }
        assert_eq!("PERMITTED", code(&served.check(&request())), "{target:?}");
        revoke(&served, target.clone());
        let decision = served.check(&request());
        assert_eq!("REVOKED", code(&decision), "{target:?}");
        assert!(decision.message.contains("stolen"), "{}", decision.message);
        assert_eq!(7, served.engine.status().revocations);
    }
}

/// `mode: observe` lets nothing through that is revoked.
#[test]
fn observing_never_softens_it() {
    let served = observing("mode: {default: observe, owner: sec, until: 2999-01-01}");
    let mut stranger = search();
    stranger.evidence[0].token = svid_with("spiffe://a.example/other", "authz", now() + 60);
    assert!(!served.check(&stranger).enforced, "it observes");
    revoke(&served, Target::System("crm".to_owned()));
    for request in [search(), stranger] {
        let decision = served.check(&request);
        assert_eq!(("REVOKED", true), (code(&decision), decision.enforced));
    }
    revoke(&served, Target::Agent("spiffe://a.example/other".to_owned()));
    let mut elsewhere = asking("wiki.read");
    elsewhere.evidence[0].token = svid_with("spiffe://a.example/other", "authz", now() + 60);
    assert_eq!("REVOKED", code(&served.check(&elsewhere)));
}

/// Over Envoy's protocol the answer is a denial that no proxy takes for a permit.
#[test]
fn a_proxy_is_told() {
    let served = served();
    let request = http("GET", "/customers?q=a", &[]);
    assert_eq!(0, served.proxy(&request).status.unwrap().code);
    revoke(&served, Target::Agent(BOT.to_owned()));
    assert_eq!(16, served.proxy(&request).status.unwrap().code);
}

/// Only the administration listener revokes, and only what has the form of the target; each try leaves a record.
#[test]
fn refusals() {
    let served = served();
    let of = |listener: &str, target| revoke_by(&served, listener, target).unwrap_err();
    let agent = || Some(Target::Agent(BOT.to_owned()));
    for listener in ["dev", "own", "crm", "unknown"] {
        assert_eq!("ENFORCER_REFUSED", of(listener, agent()).reason_code.as_str(), "{listener}");
    }
    for target in [
        None,
        Some(Target::Agent("bot".to_owned())),
        Some(Target::Agent("spiffe://a.example".to_owned())),
        Some(Target::Operation("crm".to_owned())),
        Some(Target::System("crm.search".to_owned())),
        Some(Target::Jti(String::new())),
        Some(Target::Key("k".repeat(2_049))),
    ] {
        assert_eq!("BAD_INPUT", of("admin", target.clone()).reason_code.as_str(), "{target:?}");
    }
    for target in [Target::Task("t-1".to_owned()), Target::Session("s-1".to_owned())] {
        assert_eq!("UNKNOWN_TASK", of("admin", Some(target)).reason_code.as_str());
    }
    revoke(&served, Target::Agent(BOT.to_owned()));
    let records = served.records();
    assert_eq!(14, records.len());
    let last = records.last().unwrap();
    assert_eq!("PERMITTED", last["result"]["reason_code"]);
    assert_eq!(json!({"target": "agent", "value": BOT}), last["input"]["revoked"]);
    assert_eq!("authz.v1.Admin/Revoke", last["path"]);
}

/// Bytes that are no request are refused, and once nothing can be kept or recorded, nothing is answered as revoked.
#[test]
fn failures() {
    let served = served();
    let call = |bytes: &[u8]| {
        let transport = Transport::by("admin");
        served.engine.call(Surface::Revoke, bytes, &transport).unwrap_err().reason_code.as_str()
    };
    assert_eq!("BAD_INPUT", call(&[0xff; 40]));
    assert_eq!("BAD_INPUT", call(&vec![b'x'; 2 << 20]));
    served.engine.close();
    let request = wire::AdminRevokeRequest {
        target: Some(Target::Jti("t-1".to_owned())),
        reason: String::new(),
    };
    assert_eq!("AUDIT_FULL", call(&request.encode_to_vec()));
}
