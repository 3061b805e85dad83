//! `Check`, `BatchCheck` and `Explain`.

use std::time::{Duration, Instant};

use authz_kernel::reason::ReasonCode;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Surface, Transport};
use authz_token::KeyOwner;
use authz_token::mint::Key;
use prost::Message;
use serde_json::json;

use crate::support::*;

/// A chain of user and agent is permitted, with everything that the enforcer needs.
#[test]
fn permits() {
    let decision = served().check(&search());
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    assert_eq!(wire::Outcome::Permit as i32, decision.outcome);
    assert_eq!(wire::Tier::Low as i32, decision.tier);
    assert_eq!(["bots", "staff"], decision.policy_ids.as_slice());
    assert!(decision.enforced && decision.detail.is_none());
    assert_eq!(36, decision.decision_id.len());
    assert_eq!(64, decision.bundle_digest.len());
}

type Change = fn(&mut wire::CheckRequest);

/// Each field out of its bounds, each unknown value, and each thing of later versions is a denial with its own reason.
#[test]
fn refuses_by_field() {
    let cases: &[(&str, Change)] = &[
        ("NO_CREDENTIAL", |r| r.evidence.clear()),
        ("BAD_CREDENTIAL", |r| r.evidence[0].token = "x".to_owned()),
        ("BAD_CREDENTIAL", |r| r.evidence[0].token.clear()),
        ("BAD_CREDENTIAL", |r| r.evidence[0].token = "a".repeat(8193)),
        ("BAD_CREDENTIAL", |r| r.evidence[0].token = forged()),
        ("BAD_CREDENTIAL", |r| r.evidence[0].role = 0),
        ("BAD_CREDENTIAL", |r| r.evidence[0].role = 77),
        ("BAD_CREDENTIAL", |r| r.evidence[0].scheme = 0),
        ("BAD_CREDENTIAL", |r| r.evidence[0].scheme = -1),
        ("BAD_CREDENTIAL", |r| r.evidence[1].role = wire::EvidenceRole::Agent as i32),
        ("BAD_CREDENTIAL", |r| r.evidence.push(evidence(wire::EvidenceRole::Agent, svid()))),
        ("BAD_CREDENTIAL", |r| r.evidence = vec![r.evidence[0].clone(); 5]),
        ("EXPIRED_CREDENTIAL", |r| r.evidence[0].token = svid_with(BOT, "authz", now() - 60)),
        ("WRONG_AUDIENCE", |r| r.evidence[0].token = svid_with(BOT, "other", now() + 60)),
        ("UNTRUSTED_ISSUER", |r| {
            r.evidence[0].token = svid_with("spiffe://b.example/x", "authz", now() + 60);
        }),
        ("CHAIN_NOT_PERMITTED", |r| r.evidence[1].token = user("eve", json!(["visitors"]))),
        ("NOT_PERMITTED", |r| {
            r.evidence[0].token = svid_with("spiffe://a.example/other", "authz", now() + 60);
        }),
        ("UNKNOWN_OPERATION", |r| r.operation = "crm.nothing".to_owned()),
        ("UNKNOWN_OPERATION", |r| r.operation.clear()),
        ("UNREVIEWED_OPERATION", |r| r.operation = "crm.raw".to_owned()),
        ("BAD_INPUT", |r| r.operation = "c".repeat(513)),
        ("BAD_INPUT", |r| r.arguments_json = b"{\"query\":1}".to_vec()),
        ("BAD_INPUT", |r| r.arguments_json = b"{\"query\":\"a\",\"query\":\"b\"}".to_vec()),
        ("BAD_INPUT", |r| r.arguments_json = vec![b' '; 262_145]),
        ("BAD_INPUT", |r| r.arguments_json = vec![b'['; 10_000]),
        ("BAD_INPUT", |r| r.resource = "r".repeat(513)),
        ("BAD_INPUT", |r| r.destinations = vec![String::new(); 65]),
        ("BAD_INPUT", |r| r.destinations = vec!["d".repeat(2049)]),
        ("BAD_INPUT", |r| r.supported_obligations = vec![String::new(); 65]),
        ("BAD_INPUT", |r| r.supported_obligations = vec!["o".repeat(257)]),
        ("BAD_INPUT", |r| r.labels = vec!["pii".to_owned()]),
        ("BAD_INPUT", |r| r.confidence_jws = "x".to_owned()),
        ("BAD_INPUT", |r| r.idempotency_key = "k".repeat(513)),
        ("BAD_INPUT", |r| r.mode = 99),
        ("BAD_INPUT", |r| r.task = "t".repeat(513)),
        ("BAD_INPUT", |r| r.approval_id = "a".repeat(513)),
        ("UNKNOWN_TASK", |r| r.task = "t-1".to_owned()),
        ("APPROVAL_MISMATCH", |r| r.approval_id = "a-1".to_owned()),
    ];
    let served = served();
    for (index, (expected, change)) in cases.iter().enumerate() {
        let mut request = search();
        change(&mut request);
        let decision = served.check(&request);
        assert_eq!(*expected, code(&decision), "case {index}: {}", decision.message);
        assert_eq!(wire::Outcome::Deny as i32, decision.outcome);
    }
    assert_eq!(cases.len(), served.records().len(), "every refusal has a record");
}

/// A token that names a key which its issuer has not says once whose keys to look at again.
#[test]
fn tells_whose_unknown_key_was_named() {
    let served = served();
    assert!(served.engine.take_unknown_keys().is_empty());
    let unknown = Key::es256("unknown")
        .sign(&json!({"sub": BOT, "aud": ["authz"], "exp": now() + 60}).to_string());
    let mut request = search();
    for _ in 0..3 {
        request.evidence[0].token.clone_from(&unknown);
        assert_eq!("UNTRUSTED_ISSUER", code(&served.check(&request)));
    }
    request.evidence[0].token = forged();
    assert_eq!("BAD_CREDENTIAL", code(&served.check(&request)));
    let owner = KeyOwner::Domain("a.example".to_owned());
    assert_eq!(vec![owner], served.engine.take_unknown_keys().into_iter().collect::<Vec<_>>());
    assert!(served.engine.take_unknown_keys().is_empty());
}

/// Bytes that are no request, or too many, are answered with a decision.
#[test]
fn refuses_bytes() {
    let served = served();
    for bytes in [vec![0xff; 40], vec![b'x'; 2 << 20], vec![10, 200]] {
        let decision = own(&served.engine.check(&bytes, &Transport::by("dev")));
        assert_eq!("BAD_INPUT", code(&decision));
    }
    // No bytes are an empty request.
    assert_eq!("NO_CREDENTIAL", code(&served.check(&wire::CheckRequest::default())));
}

/// Step-up names its kinds; an obligation that the enforcer cannot carry out is a refusal.
#[test]
fn step_up_and_obligations() {
    let served = served();
    let decision = served.check(&asking("crm.mail"));
    assert_eq!("CONFIRM_REQUIRED", code(&decision));
    assert_eq!(wire::Outcome::StepUp as i32, decision.outcome);
    assert_eq!(["confirm"], decision.step_up_kinds.as_slice());
    assert_eq!(["ASI02"], decision.controls.as_slice());
    let mut card = asking("crm.card");
    assert_eq!("ENFORCER_REFUSED", code(&served.check(&card)));
    card.supported_obligations = vec!["redact:card".to_owned()];
    let decision = served.check(&card);
    assert_eq!(("PERMITTED", 1), (code(&decision), decision.obligations.len()));
}

/// Nothing is decided before a bundle is loaded, and nothing after the deadline.
#[test]
fn own_failures_deny() {
    let empty = unloaded(&json!({}));
    assert_eq!(
        wire::PublicCode::Unavailable as i32,
        empty.check(&search()).public_code,
        "no bundle"
    );
    assert!(!empty.engine.status().ready);
    let served = served();
    assert!(served.engine.status().ready, "{:?}", served.engine.status());
    for remaining in [Duration::ZERO, Duration::from_nanos(1)] {
        let late = Transport { remaining: Some(remaining), ..Transport::by("dev") };
        let decision = own(&served.engine.check(&search().encode_to_vec(), &late));
        assert_eq!("DEADLINE", code(&decision));
    }
    let past = Transport {
        received: Instant::now() - Duration::from_secs(1),
        remaining: Some(Duration::from_millis(500)),
        ..Transport::by("dev")
    };
    let decision = own(&served.engine.check(&search().encode_to_vec(), &past));
    assert_eq!("DEADLINE", code(&decision));
    for (asked, answered) in [
        (ReasonCode::Overloaded, "OVERLOADED"),
        (ReasonCode::Deadline, "DEADLINE"),
        (ReasonCode::Unavailable, "UNAVAILABLE"),
        (ReasonCode::Permitted, "UNAVAILABLE"),
    ] {
        let bytes = served.engine.refusal(Surface::Check, asked);
        let decision = own(&bytes);
        assert_eq!(wire::Outcome::Deny as i32, decision.outcome);
        // Nobody is known to have asked, so the answer says what an agent may see.
        let of = authz_lane::message::public_message(ReasonCode::from_name(answered).unwrap());
        assert_eq!(of, decision.public_message);
    }
}

/// Who asks is decided by the listener alone.
#[test]
fn enforcers() {
    let served = served();
    assert_eq!("PERMITTED", code(&served.check_by("crm", &search())));
    assert_eq!("ENFORCER_REFUSED", code(&served.check_by("crm", &asking("wiki.read"))));
    assert_eq!("ENFORCER_REFUSED", code(&served.check_by("crm", &asking("wiki.nothing"))));
    assert_eq!("ENFORCER_REFUSED", code(&served.check_by("proxy-only", &search())));
    assert_eq!(wire::Outcome::Deny as i32, served.check_by("unknown", &search()).outcome);
}

/// A caller that asks about itself learns what an agent may see, and brings no other's credential.
#[test]
fn asks_about_itself() {
    let served = served();
    let decision = served.check_by("own", &search());
    assert_eq!(wire::Outcome::Permit as i32, decision.outcome);
    let decision = served.check_by("own", &asking("wiki.read"));
    assert_eq!(wire::Outcome::Deny as i32, decision.outcome);
    assert_eq!(wire::PublicCode::Denied as i32, decision.public_code);
    assert_eq!((0, "", ""), (decision.reason_code, &*decision.message, &*decision.bundle_revision));
    assert!(decision.policy_ids.is_empty() && decision.resource.is_empty());
    assert_eq!("the wiki is closed", decision.shown_reason);

    let check = |request: &wire::CheckRequest, authorization: &str| {
        let call = Transport { authorization: Some(authorization), ..Transport::by("own") };
        own(&served.engine.check(&request.encode_to_vec(), &call)).outcome
    };
    let request = search();
    let same = format!("bearer {}", request.evidence[0].token);
    assert_eq!(wire::Outcome::Permit as i32, check(&request, &same));
    assert_eq!(wire::Outcome::Deny as i32, check(&request, &format!("Bearer {}", svid())));
    assert_eq!(wire::Outcome::Deny as i32, check(&request, "Basic eDp5"));
    let mut without = search();
    without.evidence.clear();
    assert_eq!(wire::Outcome::Permit as i32, check(&without, &format!("Bearer {}", svid())));
    assert_eq!(wire::Outcome::Permit as i32, check(&without, &format!("Bearer {}", alone_alice())));
    assert_eq!(wire::Outcome::Deny as i32, check(&without, &format!("Bearer {}", alice())));
}

/// PROBE has a permit and a rate of its own.
#[test]
fn probes() {
    let served = served_with(&json!({"probe_rate": 0, "probe_burst": 2}));
    let mut request = search();
    request.mode = wire::Mode::Probe as i32;
    assert_eq!("PERMITTED", code(&served.check(&request)));
    request.evidence[1].token = user("eve", json!(["visitors"]));
    let decision = served.check(&request);
    assert_eq!("CHAIN_NOT_PERMITTED", code(&decision));
    assert!(decision.message.contains("authz.probe"), "{}", decision.message);
    assert_eq!("OVERLOADED", code(&served.check(&request)));
    request.mode = wire::Mode::Enforce as i32;
    assert_eq!("CHAIN_NOT_PERMITTED", code(&served.check(&request)));
}

/// SNAPSHOT of PROBE items is judged; everything else is BAD_INPUT for every item.
#[test]
fn batches() {
    let served = served();
    let run = |batch: &wire::BatchCheckRequest| {
        let bytes = served.engine.batch_check(&batch.encode_to_vec(), &Transport::by("dev"));
        let answer = wire::BatchCheckResponse::decode(bytes.as_slice()).unwrap();
        answer.decisions.iter().map(code).collect::<Vec<_>>()
    };
    let probe = |operation: &str| wire::CheckRequest {
        mode: wire::Mode::Probe as i32,
        ..asking(operation)
    };
    let snapshot = wire::BatchMode::Snapshot as i32;
    let mut batch = wire::BatchCheckRequest {
        mode: snapshot,
        items: vec![probe("crm.search"), probe("crm.mail"), probe("crm.card")],
    };
    batch.items[0].arguments_json = b"{\"query\":\"q\"}".to_vec();
    assert_eq!(["PERMITTED", "CONFIRM_REQUIRED", "ENFORCER_REFUSED"], *run(&batch));
    batch.items[1].mode = wire::Mode::Enforce as i32;
    assert_eq!(["BAD_INPUT"; 3], *run(&batch));
    batch.items[1].mode = wire::Mode::Probe as i32;
    for mode in [0, 2, 9] {
        batch.mode = mode;
        assert_eq!(["BAD_INPUT"; 3], *run(&batch));
    }
    batch.mode = snapshot;
    batch.items = vec![wire::CheckRequest { mode: 2, ..wire::CheckRequest::default() }; 101];
    assert_eq!(["BAD_INPUT"], *run(&batch));
    batch.items.clear();
    assert_eq!(["BAD_INPUT"], *run(&batch));
    let bytes = served.engine.batch_check(&[0xff], &Transport::by("dev"));
    assert_eq!(1, wire::BatchCheckResponse::decode(bytes.as_slice()).unwrap().decisions.len());
}

/// Explain tells everything to whoever policy lets, on the administration listener only.
#[test]
fn explains() {
    let served = served();
    let subject = Some(wire::explain_request::Subject::Check(asking("wiki.read")));
    let request = wire::ExplainRequest { subject, overrides: None }.encode_to_vec();
    let explain = |listener: &'static str, token: Option<String>, request: &[u8]| {
        let value = token.map(|token| format!("Bearer {token}"));
        let call = Transport { authorization: value.as_deref(), ..Transport::by(listener) };
        served.engine.explain(request, &call)
    };
    let answer = explain("admin", Some(alice()), &request).unwrap();
    let decision = wire::ExplainResponse::decode(answer.as_slice()).unwrap().decision.unwrap();
    let detail = decision.detail.as_ref().unwrap();
    assert_eq!("FORBIDDEN", code(&decision));
    assert!(detail.policies.iter().any(|p| p.policy_id == "no-wiki" && p.line > 0));
    assert_eq!(["corp/alice", BOT], detail.chain.as_slice());
    for (listener, token, request, expected) in [
        ("dev", Some(alice()), request.as_slice(), ReasonCode::EnforcerRefused),
        ("admin", None, &request, ReasonCode::NoCredential),
        ("admin", Some(forged()), &request, ReasonCode::BadCredential),
        ("admin", Some(svid()), &request, ReasonCode::NotPermitted),
        ("admin", Some(alice()), &[0xff], ReasonCode::BadInput),
        ("admin", Some(alice()), &[], ReasonCode::BadInput),
    ] {
        let error = explain(listener, token, request).unwrap_err();
        assert_eq!((expected, true), (error.reason_code, error.grpc_code > 0), "{error}");
    }
}

/// Of each (`public_code`, `next_action`, `retry`) every denial says the same to the agent.
#[test]
fn one_text_for_one_triple() {
    let served = served();
    let mut seen = std::collections::BTreeMap::new();
    for operation in ["crm.search", "crm.nothing", "crm.raw", "wiki.read", "crm.mail", "crm.card"] {
        let decision = served.check_by("own", &asking(operation));
        let triple = (decision.public_code, decision.next_action, decision.retry);
        let text = seen.entry(triple).or_insert_with(|| decision.public_message.clone());
        assert_eq!(*text, decision.public_message);
    }
    assert!(seen.len() >= 4);
}

/// Counters carry closed labels; an operation outside the catalog has no system of its own.
#[test]
fn counts() {
    let served = served();
    served.check(&search());
    served.check(&asking("evil.\u{202e}x"));
    let families = served.engine.metrics();
    let decisions = &families[0];
    assert_eq!("authz_decisions", decisions.name);
    let rows: Vec<String> = decisions
        .samples
        .iter()
        .map(|sample| {
            sample.labels.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        [
            "permit PERMITTED crm low check true",
            "deny UNKNOWN_OPERATION unknown unknown check true"
        ],
        *rows
    );
}
