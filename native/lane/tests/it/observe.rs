//! `mode: observe`: the call goes through, and everything else says what would have been.

use std::collections::BTreeMap;

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::proto::envoy::service::auth::v3::attribute_context as attributes;
use authz_lane::proto::envoy::service::auth::v3::check_response::HttpResponse;
use authz_lane::{Surface, Transport};
use prost::Message;
use prost_types::value::Kind;
use serde_json::json;

use crate::support::*;

const ALL: &str = "mode: {default: observe, owner: sec, until: 2999-01-01}";

fn observed(decision: &wire::Decision) -> &'static str {
    let code = decision.observed.as_ref().unwrap().reason_code;
    let name = wire::ReasonCode::try_from(code).unwrap().as_str_name();
    name.strip_prefix("REASON_CODE_").unwrap()
}

fn permits(decision: &wire::Decision) -> bool {
    decision.outcome == wire::Outcome::Permit as i32
}

fn is_ok(answer: &ext::CheckResponse) -> bool {
    answer.status.as_ref().is_none_or(|status| status.code == 0)
}

fn metadata(answer: &ext::CheckResponse) -> BTreeMap<String, String> {
    let fields = &answer.dynamic_metadata.as_ref().unwrap().fields;
    let text = |value: &prost_types::Value| match &value.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        other => panic!("no text: {other:?}"),
    };
    fields.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

type Change = fn(&mut wire::CheckRequest);

/// What bundle and policy do not provide for is let through, and the answer says what it would have been.
#[test]
fn lets_through_and_says_so() {
    let cases: &[(&str, Change)] = &[
        ("NO_CREDENTIAL", |r| r.evidence.clear()),
        ("NOT_PERMITTED", |r| {
            r.evidence = vec![evidence(
                wire::EvidenceRole::Agent,
                svid_with("spiffe://a.example/other", "authz", now() + 60),
            )];
        }),
        ("CHAIN_NOT_PERMITTED", |r| r.evidence[1].token = user("eve", json!(["visitors"]))),
        ("UNKNOWN_OPERATION", |r| r.operation = "crm.nothing".to_owned()),
        ("UNREVIEWED_OPERATION", |r| r.operation = "crm.raw".to_owned()),
        ("BAD_INPUT", |r| r.arguments_json = b"{\"query\":1}".to_vec()),
        ("BAD_INPUT", |r| r.arguments_json = b"{\"query\":\"a\",\"new\":1}".to_vec()),
        ("ENFORCER_REFUSED", |r| {
            r.operation = "crm.card".to_owned();
            r.arguments_json.clear();
        }),
        ("CONFIRM_REQUIRED", |r| {
            r.operation = "crm.mail".to_owned();
            r.arguments_json.clear();
        }),
        ("FORBIDDEN", |r| {
            r.operation = "wiki.read".to_owned();
            r.arguments_json.clear();
        }),
    ];
    let (served, enforced) = (observing(ALL), served());
    for (expected, change) in cases {
        let mut request = search();
        change(&mut request);
        assert_eq!(*expected, code(&enforced.check(&request)), "enforced");
        let decision = served.check(&request);
        assert!(permits(&decision) && !decision.enforced, "{expected}: {decision:?}");
        assert_eq!(("PERMITTED", *expected), (code(&decision), observed(&decision)));
        assert_eq!(wire::PublicCode::Permit as i32, decision.public_code);
        assert!(decision.obligations.is_empty() && decision.shown_reason.is_empty());
        let step_up = *expected == "CONFIRM_REQUIRED";
        let judged = if step_up { wire::Outcome::StepUp } else { wire::Outcome::Deny };
        let observed = decision.observed.unwrap();
        assert_eq!(judged as i32, observed.outcome);
        assert_eq!(step_up, observed.step_up_kinds == ["confirm"]);
        assert!(decision.step_up_kinds.is_empty());
    }
    let records = served.records();
    assert_eq!(cases.len(), records.len());
    for ((expected, _), record) in cases.iter().zip(&records) {
        assert_eq!(*expected, record["result"]["reason_code"]);
        assert_ne!("PERMIT", record["result"]["outcome"]);
        assert_eq!(false, record["result"]["enforced"]);
    }
    let metrics = format!("{:?}", served.engine.metrics());
    assert!(metrics.contains(r#"("enforced", "false")"#), "{metrics}");
}

/// What is permitted anyway is enforced, and says nothing of the mode.
#[test]
fn a_permit_is_a_permit() {
    let decision = observing(ALL).check(&search());
    assert!(permits(&decision) && decision.enforced && decision.observed.is_none());
}

/// What was not proved, not understood or not answered in time is denied as ever. Naive way: the mode alone would let it
/// through.
#[test]
fn never_softened() {
    let cases: &[(&str, Change)] = &[
        ("BAD_CREDENTIAL", |r| r.evidence[0].token = "x".to_owned()),
        ("BAD_CREDENTIAL", |r| r.evidence[0].token = forged()),
        ("BAD_CREDENTIAL", |r| r.evidence[1].role = wire::EvidenceRole::Agent as i32),
        ("EXPIRED_CREDENTIAL", |r| r.evidence[0].token = svid_with(BOT, "authz", now() - 60)),
        ("WRONG_AUDIENCE", |r| r.evidence[0].token = svid_with(BOT, "other", now() + 60)),
        ("UNTRUSTED_ISSUER", |r| {
            r.evidence[0].token = svid_with("spiffe://b.example/x", "authz", now() + 60);
        }),
        ("BAD_INPUT", |r| r.arguments_json = b"{\"query\":\"a\",\"query\":\"b\"}".to_vec()),
        ("BAD_INPUT", |r| r.arguments_json = b"{\"query\"".to_vec()),
        ("BAD_INPUT", |r| r.operation = "c".repeat(513)),
        ("BAD_INPUT", |r| r.mode = 99),
        ("BAD_INPUT", |r| r.labels = vec!["pii".to_owned()]),
        ("UNKNOWN_TASK", |r| r.task = "t-1".to_owned()),
        ("APPROVAL_MISMATCH", |r| r.approval_id = "a-1".to_owned()),
        // The same without a credential, or for an operation that nobody knows.
        ("NO_CREDENTIAL", |r| {
            r.evidence.clear();
            r.arguments_json = b"{\"query\":\"a\",\"query\":\"b\"}".to_vec();
        }),
        ("NO_CREDENTIAL", |r| {
            r.evidence.clear();
            r.operation = "crm.nothing".to_owned();
            r.arguments_json = b"{".to_vec();
        }),
        ("UNKNOWN_OPERATION", |r| {
            r.operation = "crm.nothing".to_owned();
            r.arguments_json = b"{\"a\":1,\"a\":2}".to_vec();
        }),
        ("UNREVIEWED_OPERATION", |r| {
            r.operation = "crm.raw".to_owned();
            r.arguments_json = b"[".to_vec();
        }),
    ];
    let served = observing(ALL);
    for (expected, change) in cases {
        let mut request = search();
        change(&mut request);
        let decision = served.check(&request);
        assert_eq!(*expected, code(&decision), "{}", decision.message);
        assert!(!permits(&decision) && decision.enforced && decision.observed.is_none());
    }
    let late = Transport { remaining: Some(std::time::Duration::ZERO), ..Transport::by("dev") };
    let bytes = search().encode_to_vec();
    for (expected, decision) in [
        ("BAD_INPUT", own(&served.engine.check(b"\xff\xff", &Transport::by("dev")))),
        ("DEADLINE", own(&served.engine.check(&bytes, &late))),
        // Who asks about itself is not told why.
        ("UNSPECIFIED", own(&served.engine.check(&bytes, &Transport::by("nowhere")))),
        ("ENFORCER_REFUSED", served.check_by("crm", &asking("wiki.read"))),
        (
            "OVERLOADED",
            own(&served
                .engine
                .refusal(Surface::Check, authz_kernel::reason::ReasonCode::Overloaded)),
        ),
    ] {
        assert_eq!(expected, code(&decision));
        assert!(!permits(&decision) && decision.enforced);
    }
    served.engine.close();
    let unrecorded = served.check(&asking("wiki.read"));
    assert_eq!(("AUDIT_FULL", false), (code(&unrecorded), permits(&unrecorded)));
}

/// A call that is let through is recorded like a permit: where the queue has no room for it, it is denied.
#[test]
fn what_is_let_through_is_recorded() {
    let served = observing_with(ALL, &json!({"audit_queue_lines": 1}));
    let mut denied = 0;
    let mut let_through = Vec::new();
    for _ in 0..200 {
        let decision = served.check(&asking("wiki.read"));
        if permits(&decision) {
            let_through.push(decision.decision_id);
        } else {
            assert_eq!("AUDIT_FULL", code(&decision));
            denied += 1;
        }
    }
    assert!(denied > 0);
    let records = served.records();
    for id in let_through {
        assert!(records.iter().any(|record| record["decision_id"] == *id), "{id}");
    }
}

/// The mode says nothing about who may probe: a probe that is not allowed tells nothing.
#[test]
fn a_probe_needs_its_permit() {
    let served = observing(ALL);
    let mut request = asking("wiki.read");
    request.mode = wire::Mode::Probe as i32;
    assert_eq!("FORBIDDEN", observed(&served.check(&request)));
    let eve = json!({
        "iss": "https://idp.example", "sub": "eve", "aud": "authz-own", "exp": now() + 300, "iat": now(),
        "groups": ["visitors"],
    });
    request.evidence = vec![evidence(wire::EvidenceRole::Subject, subject_token(&eve))];
    let decision = served.check(&request);
    assert_eq!(("NOT_PERMITTED", false), (code(&decision), permits(&decision)));
}

/// Who asks about itself sees that it was let through, and never why.
#[test]
fn who_asks_about_itself_is_not_told_why() {
    let served = observing(ALL);
    let decision = served.check_by("own", &asking("wiki.read"));
    assert!(permits(&decision) && !decision.enforced);
    let observed = decision.observed.unwrap();
    assert_eq!(wire::PublicCode::Denied as i32, observed.public_code);
    assert_eq!(
        (0, 0, true),
        (observed.reason_code, decision.reason_code, decision.policy_ids.is_empty())
    );
}

/// Envoy forwards the request, without the headers that are ours; metadata says what would have been.
#[test]
fn envoy() {
    let served = observing(ALL);
    let nobody = [("authorization", "\0"), ("authz-subject", "\0")];
    for (expected, request, agent, subject) in [
        ("NO_ROUTE", http("GET", "/nowhere", &[]), BOT, "corp/alice"),
        ("FORBIDDEN", http("GET", "/pages", &[]), BOT, "corp/alice"),
        ("BAD_INPUT", http("GET", "/customers?nosuch=1", &[]), BOT, "corp/alice"),
        ("NO_CREDENTIAL", http("GET", "/customers?q=a", &nobody), "", ""),
        ("NO_CREDENTIAL", http("GET", "/nowhere", &nobody), "", ""),
        ("NO_CREDENTIAL", http("GET", "/customers?q=a", &nobody[..1]), "", "corp/alice"),
    ] {
        let answer = served.proxy(&request);
        assert!(is_ok(&answer), "{expected}: {answer:?}");
        let said = metadata(&answer);
        let said = |name: &str| said.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!(
            ("PERMIT", "PERMITTED", "false", "DENY", expected),
            (
                said("decision"),
                said("reason_code"),
                said("enforced"),
                said("observed_decision"),
                said("observed_reason_code"),
            )
        );
        let Some(HttpResponse::OkResponse(ok)) = &answer.http_response else {
            panic!("no permit: {answer:?}");
        };
        for (name, value) in [("x-authz-agent", agent), ("x-authz-subject", subject)] {
            let set = ok.headers.iter().filter_map(|o| o.header.as_ref()).find(|h| h.key == name);
            assert_eq!(
                value,
                set.map(|h| h.value.as_str()).unwrap_or_default(),
                "{expected}: {name}"
            );
            assert_eq!(value.is_empty(), ok.headers_to_remove.iter().any(|n| n == name));
        }
        assert!(ok.headers_to_remove.iter().any(|name| name == "authz-subject"));
    }
    let answer = served.proxy(&http("GET", "/customers?q=a", &[]));
    assert_eq!("true", metadata(&answer)["enforced"]);
    assert!(!metadata(&answer).contains_key("observed_decision"));
}

/// A request with two readings is refused, also where nobody is known and nothing is routed.
#[test]
fn envoy_never_softens() {
    let served = observing(ALL);
    let nobody = [("authorization", "\0"), ("authz-subject", "\0")];
    let twice = |request: ext::CheckRequest| {
        edit(request, |http| {
            http.body = r#"{"q":"a","q":"b"}"#.to_owned();
            http.headers.insert("content-type".to_owned(), "application/json".to_owned());
        })
    };
    for (expected, request) in [
        ("AMBIGUOUS_REQUEST", http("GET", "/a//b", &[])),
        ("NO_CREDENTIAL", http("GET", "/a//b", &nobody)),
        ("NO_CREDENTIAL", http("GET", "/a%2fb", &nobody)),
        ("BAD_INPUT", twice(http("POST", "/customers", &[]))),
        ("NO_CREDENTIAL", twice(http("POST", "/customers", &nobody))),
        ("BAD_INPUT", http("POST", "/customers", &[("x-envoy-auth-partial-body", "true")])),
        ("BAD_CREDENTIAL", http("GET", "/pages", &[("authorization", "Bearer x")])),
        (
            "BAD_CREDENTIAL",
            http("GET", "/pages", &[("authorization", "\0"), ("authz-subject", "x")]),
        ),
        ("BAD_CREDENTIAL", http("GET", "/pages", &[("authz-credential", "x")])),
        (
            "BAD_INPUT",
            request(attributes::HttpRequest {
                method: "M".repeat(65),
                ..attributes::HttpRequest::default()
            }),
        ),
        ("BAD_INPUT", ext::CheckRequest::default()),
    ] {
        let answer = served.proxy(&request);
        assert!(!is_ok(&answer), "{expected}: {answer:?}");
        assert_eq!(expected, metadata(&answer)["reason_code"]);
        assert_eq!("true", metadata(&answer)["enforced"]);
    }
}

/// By system, agent and tier; what a system is asked for and does not have falls under it too.
#[test]
fn by_system_agent_and_tier() {
    let until = "owner: sec, until: 2999-01-01";
    let unknown = asking("crm.nothing");
    for (mode, wiki, unknown_softened, nobody) in [
        (format!("mode: {{{until}, systems: {{wiki: observe}}}}"), true, false, false),
        (format!("mode: {{{until}, systems: {{crm: observe}}}}"), false, true, true),
        (
            format!("mode: {{{until}, default: observe, systems: {{wiki: enforce}}}}"),
            false,
            true,
            true,
        ),
        (format!("mode: {{{until}, agents: {{'{BOT}': observe}}}}"), true, true, false),
        (
            format!("mode: {{{until}, agents: {{'spiffe://a.example/other': observe}}}}"),
            false,
            false,
            false,
        ),
        (
            format!("mode: {{{until}, default: observe, tiers: {{low: enforce}}}}"),
            false,
            false,
            false,
        ),
        ("mode: {default: observe, owner: sec, until: 2020-01-01}".to_owned(), false, false, false),
        ("mode: enforce".to_owned(), false, false, false),
    ] {
        let served = observing(&mode);
        let mut stranger = search();
        stranger.evidence.clear();
        let got =
            [asking("wiki.read"), unknown.clone(), stranger].map(|r| permits(&served.check(&r)));
        assert_eq!([wiki, unknown_softened, nobody], got, "{mode}");
    }
}
