//! Contexts that a front end names within the session of an agent that works without tasks: who may name one.

use std::collections::BTreeMap;

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::config::core::v3::Metadata;
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::{Transport, World};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value as Proto};
use serde_json::{Value, json};

use crate::credentials::issuing;
use crate::support::*;
use crate::tasks::{agent, subject};

const BUNDLE: &str = "{name: desk, tasks: required, implicit_tasks: {agents: [bot], template: work, tier_cap: high}}";
const FACTS: &str = "
labels: {untrusted: {kind: trust}, pii: {kind: confidentiality}}
catalog:
  web: {kind: http, origin: https://web.example, operations: {read: {}, people: {}, pay: {}, send: {input: {type: object, properties: {to: {type: string}}, required: [to]}}}}
destinations: {internal: {match: '*@corp.example', clearance: [pii]}, external: {match: '*', clearance: []}}
classify:
  - {match: web.read, effects: [read], tier: low, yields: [untrusted]}
  - {match: web.people, effects: [read], tier: low, yields: [pii]}
  - {match: web.pay, effects: [write], tier: low}
  - {match: web.send, effects: [export], tier: low, destination: {from: [/to], type: email}}
templates: {work: {purpose: work, deadline: 1h, tier_cap: high, scope: [{system: web}]}}
routes:
  - {host: web.example, method: GET, path: /sites, operation: web.read}
  - {host: web.example, method: POST, path: /fees, operation: web.pay}
";
const POLICIES: &str = r#"
@id("web") permit(principal, action in Action::"system:web", resource);
@id("strangers") forbid(principal, action in [Action::"web.pay", Action::"web.send"], resource)
when { context.session.labels.contains(Label::"untrusted") };
@id("out") forbid(principal, action, resource) when { !context.uncleared_labels.isEmpty() };
"#;
const UID: u32 = 4_711;

fn world_with(relays: &Value, peers: &Value) -> World {
    let listeners = json!([
        {"name": "dev", "insecure_dev": true},
        {"name": "own"},
        {"name": "portal", "enforcer": {"name": "portal", "asks": ["system:*"], "relays": relays, "uids": [UID]}},
    ]);
    World {
        plan: plan(&[
            ("bundle.yaml", BUNDLE),
            ("work.yaml", FACTS),
            ("policies/work.cedar", POLICIES),
        ]),
        listeners: listeners_of(&listeners),
        peers: peers_of(peers),
        ..world()
    }
}

fn served_relaying(relays: &Value) -> Served {
    let served = unloaded(&json!({}));
    served.engine.load(world_with(relays, &json!([]))).unwrap();
    served
}

fn portal<'a>(listener: &'a str) -> Transport<'a> {
    Transport { peer_uid: Some(UID), ..Transport::by(listener) }
}

/// Asks for the bot on behalf of alice, in a context.
fn asked(served: &Served, listener: &str, operation: &str, context: &str) -> &'static str {
    let evidence = vec![agent(BOT), subject("alice")];
    asked_by(served, listener, operation, (evidence, "{}"), context)
}

fn asked_by(
    served: &Served,
    listener: &str,
    operation: &str,
    (evidence, input): (Vec<wire::Evidence>, &str),
    context: &str,
) -> &'static str {
    let request = wire::CheckRequest {
        evidence,
        operation: operation.to_owned(),
        arguments_json: input.as_bytes().to_vec(),
        session_context: context.to_owned(),
        ..wire::CheckRequest::default()
    };
    code(&own(&served.engine.check(&request.encode_to_vec(), &portal(listener))))
}

/// Asks as a proxy does, with this `session_context` in the metadata.
fn proxied(served: &Served, listener: &str, request: ext::CheckRequest, context: Kind) -> String {
    let fields = BTreeMap::from([("session_context".to_owned(), Proto { kind: Some(context) })]);
    let metadata = BTreeMap::from([("authz".to_owned(), Struct { fields })]);
    let mut request = request;
    let attributes = request.attributes.as_mut().unwrap();
    let http = attributes.request.as_mut().unwrap().http.as_mut().unwrap();
    "web.example".clone_into(&mut http.host);
    http.headers.insert(":authority".to_owned(), http.host.clone());
    attributes.metadata_context =
        Some(Metadata { filter_metadata: metadata, ..Metadata::default() });
    let bytes = served.engine.envoy_check(&request.encode_to_vec(), &portal(listener));
    let answer = ext::CheckResponse::decode(bytes.as_slice()).unwrap();
    let told = &answer.dynamic_metadata.unwrap().fields["reason_code"];
    match &told.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_front_end_names_contexts() {
    let served = served_relaying(&json!(["session"]));
    assert_eq!("PERMITTED", asked(&served, "portal", "web.read", "one"));
    assert_eq!("FORBIDDEN", asked(&served, "portal", "web.pay", "one"));
    assert_eq!("PERMITTED", asked(&served, "portal", "web.pay", "two"));
    assert_eq!("FORBIDDEN", asked(&served, "portal", "web.pay", ""));
    // An enforcer that names none sees the labels of all contexts.
    assert_eq!("FORBIDDEN", asked(&served, "dev", "web.pay", ""));
}

/// Labels that the agent remembers are kept apart in the same way, where data goes out.
#[test]
fn contexts_keep_remembered_labels_apart() {
    let served = served_relaying(&json!(["session"]));
    let send = |who: &str, context: &str, to: &str| {
        let evidence = vec![agent(BOT), subject(who)];
        let input = format!("{{\"to\": \"{to}\"}}");
        asked_by(&served, "portal", "web.send", (evidence, &input), context)
    };
    assert_eq!("PERMITTED", asked(&served, "portal", "web.read", "one"));
    assert_eq!("FORBIDDEN", send("alice", "one", "ann@corp.example"));
    assert_eq!("PERMITTED", send("alice", "two", "ann@corp.example"));
    // The agent remembers it for its other users, whose contexts are others.
    assert_eq!("FORBIDDEN", send("bea", "one", "ann@corp.example"));
    assert_eq!("FORBIDDEN", send("bea", "", "ann@corp.example"));
    // A second context that reads the same, and a third that does not.
    assert_eq!("PERMITTED", asked(&served, "portal", "web.read", "two"));
    assert_eq!("FORBIDDEN", send("alice", "two", "ann@corp.example"));
    assert_eq!("PERMITTED", send("alice", "three", "ann@corp.example"));
    // Confidentiality labels are not kept apart.
    assert_eq!("PERMITTED", asked(&served, "portal", "web.people", "one"));
    assert_eq!("FORBIDDEN", send("alice", "three", "eve@evil.example"));
}

/// A key stands for one request: in another context, for a credential, or with other obligations, it is another one.
#[test]
fn a_key_is_of_one_context() {
    let served = unloaded(&json!({}));
    let credentials = Some(issuing(&json!({})));
    let world = World { credentials, ..world_with(&json!(["session"]), &json!([])) };
    served.engine.load(world).unwrap();
    let check = |request: &wire::CheckRequest| {
        own(&served.engine.check(&request.encode_to_vec(), &portal("portal")))
    };
    let asked = wire::CheckRequest {
        evidence: vec![agent(BOT), subject("alice")],
        operation: "web.read".to_owned(),
        arguments_json: b"{}".to_vec(),
        session_context: "one".to_owned(),
        supported_obligations: vec!["redact:card".to_owned()],
        idempotency_key: "once".to_owned(),
        ..wire::CheckRequest::default()
    };
    let first = check(&asked);
    assert_eq!("PERMITTED", code(&first), "{}", first.message);
    let others = [
        wire::CheckRequest { session_context: "two".to_owned(), ..asked.clone() },
        wire::CheckRequest { session_context: String::new(), ..asked.clone() },
        wire::CheckRequest { wants_credential: true, ..asked.clone() },
        wire::CheckRequest { supported_obligations: Vec::new(), ..asked.clone() },
        wire::CheckRequest {
            supported_obligations: vec!["redact:card".to_owned(), "redact:name".to_owned()],
            ..asked.clone()
        },
    ];
    for (index, other) in others.iter().enumerate() {
        assert_eq!("IDEMPOTENCY_CONFLICT", code(&check(other)), "{index}: {other:?}");
        // By a key of its own it is permitted, and the first request is no answer to that key either.
        let keyed = |request: &wire::CheckRequest| wire::CheckRequest {
            idempotency_key: format!("once-{index}"),
            ..request.clone()
        };
        let decision = check(&keyed(other));
        assert_eq!("PERMITTED", code(&decision), "{index}: {}", decision.message);
        assert_ne!(first.decision_id, decision.decision_id);
        assert_eq!("IDEMPOTENCY_CONFLICT", code(&check(&keyed(&asked))), "{index}");
    }
    assert_eq!(first.decision_id, check(&asked).decision_id);
}

#[test]
fn nobody_else_names_contexts() {
    let served = served_relaying(&json!(["prompt", "labels"]));
    for listener in ["portal", "dev"] {
        assert_eq!("ENFORCER_REFUSED", asked(&served, listener, "web.pay", "one"));
    }
    let served = served_relaying(&json!(["session"]));
    let evidence = || vec![agent(BOT), subject("alice")];
    // The agent itself, on a listener where callers ask about themselves.
    let request = wire::CheckRequest {
        evidence: evidence(),
        operation: "web.pay".to_owned(),
        session_context: "two".to_owned(),
        ..wire::CheckRequest::default()
    };
    let decision = own(&served.engine.check(&request.encode_to_vec(), &Transport::by("own")));
    assert_eq!(wire::Outcome::Deny as i32, decision.outcome);
    // Without the subject there is no conversation: labels of all contexts count.
    let alone = || vec![agent(BOT)];
    assert_eq!("PERMITTED", asked(&served, "portal", "web.read", "one"));
    assert_eq!(
        "FORBIDDEN",
        asked_by(&served, "portal", "web.send", (alone(), "{\"to\": \"ann@corp.example\"}"), "two")
    );
    let long = "x".repeat(513);
    assert_eq!("BAD_INPUT", asked(&served, "portal", "web.pay", &long));
    let is_its_own = |record: &Value| record.to_string().contains("\"listener\":\"own\"");
    let of_itself = served.records().into_iter().find(is_its_own);
    assert_eq!("ENFORCER_REFUSED", of_itself.unwrap()["result"]["reason_code"]);
}

#[test]
fn a_proxy_names_contexts_in_its_metadata() {
    let text = |name: &str| Kind::StringValue(name.to_owned());
    let served = served_relaying(&json!(["session"]));
    let get = || http("GET", "/sites", &[]);
    let post = || http("POST", "/fees", &[]);
    assert_eq!("PERMITTED", proxied(&served, "portal", get(), text("one")));
    assert_eq!("FORBIDDEN", proxied(&served, "portal", post(), text("one")));
    assert_eq!("PERMITTED", proxied(&served, "portal", post(), text("two")));
    // A header of the agent's is no context.
    let named = http("POST", "/fees", &[("session_context", "two"), ("authz-session", "two")]);
    assert_eq!("FORBIDDEN", proxied(&served, "portal", named, text("one")));
    for kind in [Kind::NumberValue(1.0), Kind::StringValue("x".repeat(513))] {
        assert_eq!("BAD_INPUT", proxied(&served, "portal", post(), kind));
    }
    // Of a proxy that is no front end it is ignored: labels of all contexts count.
    assert_eq!("FORBIDDEN", proxied(&served, "dev", post(), text("two")));
}

/// An identity that may be an agent's names no contexts, nor does anybody that can open a socket.
#[test]
fn a_front_end_that_names_contexts_is_no_agent() {
    let peers = json!([{"name": "web", "match": BOT, "asks": ["system:*"], "relays": ["session"]}]);
    let error = unloaded(&json!({})).engine.load(world_with(&json!(["session"]), &peers));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("enforcer `web` relays contexts of sessions"), "{error}");
    assert!(error.contains("remove `session` from its `relays`"), "{error}");
    let open = json!([
        {"name": "portal", "enforcer": {"name": "portal", "asks": ["system:*"], "relays": ["session"]}},
    ]);
    let listeners = listeners_of(&open);
    let world = World { listeners, ..world_with(&json!(["session"]), &json!([])) };
    let error = unloaded(&json!({})).engine.load(world).unwrap_err().to_string();
    assert!(error.contains("give its `uids`"), "{error}");
}
