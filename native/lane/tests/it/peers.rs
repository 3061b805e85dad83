//! Callers that show a certificate, and enforcers that relay whom they verified.

use std::sync::{Arc, LazyLock};

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::proto::envoy::service::auth::v3::attribute_context as attributes;
use authz_lane::{Engine, PeerChain, Transport, World};
use authz_token::mint::x509::{Signer, bundle as authorities};
use authz_token::mint::{Key, jwks};
use authz_token::{TrustSpec, TrustStore};
use prost::Message;
use serde_json::{Value, json};

use crate::support::*;

const CRM: &str = "spiffe://a.example/ns/tools/sa/crm";
const MESH: &str = "spiffe://a.example/ns/mesh/sa/gateway";
const EDGE: &str = "spiffe://a.example/ns/edge/sa/gateway";
const OTHER: &str = "spiffe://a.example/ns/support/sa/other";

/// Signs task credentials.
pub static OWN: LazyLock<Key> = LazyLock::new(|| Key::es256("own").by_thumbprint());
pub static A: LazyLock<Signer> = LazyLock::new(|| Signer::authority("a.example"));
static B: LazyLock<Signer> = LazyLock::new(|| Signer::authority("b.example"));

/// The trust of every test, with authorities.
pub fn trust() -> Arc<TrustStore> {
    let mut spec = trust_spec();
    let keys = |bundle: &str| serde_json::from_str::<Value>(bundle).unwrap()["keys"].take();
    let tokens = keys(spec["domains"]["a.example"]["bundle"].as_str().unwrap());
    let both: Vec<Value> = [tokens, keys(&authorities(&[&A]))]
        .iter()
        .flat_map(|keys| keys.as_array().unwrap().clone())
        .collect();
    spec["domains"]["a.example"]["bundle"] = json!({"keys": both}).to_string().into();
    spec["own"] = json!({"issuer": "https://authz.example", "keys": jwks(&[&OWN])});
    spec["domains"]["b.example"] = json!({"bundle": authorities(&[&B]), "from": "test"});
    let spec = TrustSpec::from_json(spec.to_string().as_bytes()).unwrap();
    Arc::new(TrustStore::compile(&spec).unwrap())
}

fn enforcers() -> Value {
    json!([
        {"name": "tools", "match": "spiffe://a.example/ns/tools/sa/*", "asks": ["system:wiki"]},
        {"name": "crm", "match": CRM, "asks": ["system:crm"]},
        {"name": "mesh", "match": "spiffe://a.example/ns/mesh/sa/*", "asks": ["system:*"], "relays": ["principal"]},
        {"name": "edge", "match": EDGE, "asks": ["system:*"]},
    ])
}

fn world_of(peers: &Value) -> World {
    let listeners = json!([
        {"name": "mutual", "mutual": true},
        {"name": "own"},
        {"name": "socket", "enforcer": {"name": "envoy", "asks": ["system:*"], "relays": ["principal"]}},
        {"name": "dev", "insecure_dev": true},
    ]);
    World { trust: trust(), listeners: listeners_of(&listeners), peers: peers_of(peers), ..world() }
}

fn mutual() -> Served {
    let served = unloaded(&json!({}));
    served.engine.load(world_of(&enforcers())).unwrap();
    served
}

fn ask(engine: &Engine, chain: &[&[u8]], request: &wire::CheckRequest) -> wire::Decision {
    let call = Transport { peer_chain: PeerChain::Der(chain), ..Transport::by("mutual") };
    own(&engine.check(&request.encode_to_vec(), &call))
}

fn about(evidence: Vec<wire::Evidence>) -> wire::CheckRequest {
    wire::CheckRequest { evidence, ..search() }
}

fn agent(token: String) -> Vec<wire::Evidence> {
    vec![evidence(wire::EvidenceRole::Agent, token)]
}

/// The reason codes of all records, in order.
fn codes(served: &Served) -> Value {
    let code = |record: &Value| record["result"]["reason_code"].as_str().unwrap().to_owned();
    served.records().iter().map(code).collect()
}

/// A verified peer is an agent that asks about itself, in DER and in PEM alike.
#[test]
fn a_peer_is_an_agent() {
    let served = mutual();
    let leaf = A.leaf(BOT);
    assert_eq!(wire::Outcome::Permit as i32, ask(&served.engine, &[&leaf], &about(vec![])).outcome);
    let pem = pem(&leaf);
    let chain = PeerChain::Pem { leaf: pem.as_bytes(), intermediates: b"" };
    let call = Transport { peer_chain: chain, ..Transport::by("mutual") };
    let decision = own(&served.engine.check(&about(vec![]).encode_to_vec(), &call));
    assert_eq!(wire::Outcome::Permit as i32, decision.outcome);
    ask(&served.engine, &[&leaf], &about(agent(svid_with(OTHER, "authz", now() + 300))));
    ask(&served.engine, &[&leaf], &about(agent(forged())));
    let records = served.records();
    assert_eq!(
        json!(["PERMITTED", "PERMITTED", "ENFORCER_REFUSED", "BAD_CREDENTIAL"]),
        codes(&served)
    );
    let link = &records[0]["input"]["chain"][0];
    assert_eq!((&json!(BOT), &json!("x509-svid")), (&link["id"], &link["proof"]));
    assert_eq!(link["certificate_sha256"], records[0]["input"]["peer"]["certificate_sha256"]);
    assert_eq!(Value::Null, link["token_sha256"]);
    // What was shown beside its certificate is refused, and the record names it all the same.
    for record in &records[2..] {
        let chain = record["input"]["chain"].as_array().unwrap();
        assert_eq!((1, &json!(BOT)), (chain.len(), &chain[0]["id"]));
    }
}

/// Who shows no certificate where one is asked for, or one that proves nothing, is nobody, whatever else it brings.
#[test]
fn a_stranger_is_nobody() {
    let served = mutual();
    let other = B.leaf(BOT);
    let chains: [&[&[u8]]; 3] = [&[&other], &[&other, B.certificate()], &[b"x"]];
    for chain in chains {
        let decision = ask(&served.engine, chain, &search());
        assert_eq!(wire::Outcome::Deny as i32, decision.outcome);
        assert_eq!(0, decision.reason_code, "it is told what an agent may know");
    }
    own(&served.engine.check(&search().encode_to_vec(), &Transport::by("mutual")));
    assert_eq!(
        json!(["UNTRUSTED_ISSUER", "BAD_CREDENTIAL", "BAD_CREDENTIAL", "NO_CREDENTIAL"]),
        codes(&served)
    );
}

/// A certificate is verified wherever it is shown; the listener of an enforcer has its own control.
#[test]
fn a_certificate_counts_without_being_asked_for() {
    let served = mutual();
    for leaf in [A.leaf(BOT), B.leaf(BOT)] {
        let chain = [leaf.as_slice()];
        let call = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("own") };
        own(&served.engine.check(&about(vec![]).encode_to_vec(), &call));
    }
    assert_eq!(json!(["PERMITTED", "UNTRUSTED_ISSUER"]), codes(&served));
}

/// Enforcers by certificate ask of their systems, and no more; the narrowest pattern is who they are.
#[test]
fn enforcers_ask_about_their_own() {
    let served = mutual();
    let tools = A.leaf("spiffe://a.example/ns/tools/sa/other");
    let deeper = A.leaf("spiffe://a.example/ns/tools/sa/other/deeper");
    let crm = A.leaf(CRM);
    for leaf in [&crm, &tools, &deeper] {
        ask(&served.engine, &[leaf], &search());
    }
    ask(&served.engine, &[&crm], &asking("wiki.read"));
    ask(&served.engine, &[&tools], &asking("wiki.read"));
    let records = served.records();
    let enforcers: Vec<&Value> =
        records.iter().map(|record| &record["input"]["enforcer"]).collect();
    assert_eq!(["crm", "tools", "", "crm", "tools"].map(Value::from).each_ref(), enforcers[..]);
    assert_eq!(
        json!([
            "PERMITTED",
            "ENFORCER_REFUSED",
            "ENFORCER_REFUSED",
            "ENFORCER_REFUSED",
            "FORBIDDEN"
        ]),
        codes(&served)
    );
}

/// Of two patterns neither of which is the narrower, chance would choose.
#[test]
fn ties_are_refused() {
    for (pattern, is_tie) in [
        ("spiffe://a.example/ns/*/sa/gateway", true),
        ("spiffe://a.example/ns/tools/sa/*", true),
        (CRM, true),
        ("spiffe://a.example/ns/*/sa/*", false),
        ("spiffe://a.example/ns/*", false),
        ("spiffe://b.example/ns/*/sa/gateway", false),
    ] {
        let mut peers = enforcers();
        peers[3]["match"] = pattern.into();
        let loaded = unloaded(&json!({})).engine.load(world_of(&peers));
        assert_eq!(is_tie, loaded.is_err(), "{pattern}");
    }
    let mut peers = enforcers();
    peers[3]["match"] = "spiffe://a.example/ns/*/sa/crm".into();
    let error = unloaded(&json!({})).engine.load(world_of(&peers)).unwrap_err().to_string();
    assert!(error.contains("match one id"), "{error}");
    peers[3]["match"] = "spiffe://a.example/ns/gate*".into();
    let error = unloaded(&json!({})).engine.load(world_of(&peers)).unwrap_err().to_string();
    assert!(error.contains("whole `*`"), "{error}");
}

pub fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

/// A request of a proxy with these of its own words about its peer, and these headers.
fn proxied(principal: &str, certificate: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![("authorization", "\0"), ("authz-subject", "\0")];
    all.extend(headers);
    let mut request = http("GET", "/customers?q=x", &all);
    request.attributes.as_mut().unwrap().source = Some(attributes::Peer {
        principal: principal.to_owned(),
        certificate: certificate.to_owned(),
        ..attributes::Peer::default()
    });
    request.encode_to_vec()
}

fn relay(served: &Served, chain: &[&[u8]], request: &[u8]) {
    let call = match chain {
        [] => Transport::by("socket"),
        chain => Transport { peer_chain: PeerChain::Der(chain), ..Transport::by("mutual") },
    };
    let answer = served.engine.envoy_check(request, &call);
    assert!(ext::CheckResponse::decode(answer.as_slice()).unwrap().status.is_some());
}

/// The proxy's word for its peer is believed of those who may relay it, and of nobody else.
#[test]
fn a_relayed_principal_counts_where_it_may() {
    let served = mutual();
    let (mesh, edge) = (A.leaf(MESH), A.leaf(EDGE));
    let certificate = pem(&A.leaf(BOT));
    for request in [proxied(BOT, "", &[]), proxied(BOT, &certificate, &[])] {
        relay(&served, &[&mesh], &request);
        relay(&served, &[], &request);
        relay(&served, &[&edge], &request);
        drop(served.engine.envoy_check(&request, &Transport::by("dev")));
    }
    let expected = ["PERMITTED", "PERMITTED", "NO_CREDENTIAL", "NO_CREDENTIAL"];
    let records = served.records();
    assert_eq!(json!([expected, expected].concat()), codes(&served));
    for (at, by) in [(0, "certificate"), (1, "listener"), (2, "certificate"), (3, "insecure_dev")] {
        assert_eq!(by, records[at]["input"]["enforcer_by"]);
    }
    assert_eq!("relayed", records[0]["input"]["chain"][0]["proof"]);
    assert_eq!(Value::Null, records[0]["input"]["chain"][0]["certificate_sha256"]);
    assert_ne!(Value::Null, records[4]["input"]["chain"][0]["certificate_sha256"]);
}

/// A principal that cannot be, or that its certificate contradicts, denies: the request is not that of an anonymous agent.
#[test]
fn a_bad_relayed_principal_denies() {
    let served = mutual();
    let token = format!("Bearer {}", svid());
    let with = [("authorization", token.as_str())];
    let mine = pem(&A.leaf(OTHER));
    let theirs = pem(&B.leaf(BOT));
    let cases = [
        ("CN=bot", "", "BAD_CREDENTIAL"),
        ("spiffe://a.example/x/../y", "", "BAD_CREDENTIAL"),
        ("spiffe://x.example/bot", "", "UNTRUSTED_ISSUER"),
        (BOT, mine.as_str(), "BAD_CREDENTIAL"),
        (BOT, theirs.as_str(), "UNTRUSTED_ISSUER"),
        ("", mine.as_str(), "BAD_CREDENTIAL"),
        (OTHER, "", "BAD_CREDENTIAL"),
        ("", "", "PERMITTED"),
    ];
    for (principal, certificate, _) in cases {
        relay(&served, &[], &proxied(principal, certificate, &with));
    }
    assert_eq!(json!(cases.map(|(_, _, code)| code)), codes(&served));
}

/// A relayed agent is named by the record of its request, whatever else of the request is refused.
#[test]
fn a_relayed_agent_does_not_hide_among_strangers() {
    const TIMES: usize = 12;
    let token = format!("Bearer {}", svid());
    for (headers, code) in [
        (("authz-subject", "x.y.z"), "BAD_CREDENTIAL"),
        (("authorization", token.as_str()), "BAD_CREDENTIAL"),
        (("content-length", "x"), "AMBIGUOUS_REQUEST"),
    ] {
        let served = unloaded(&json!({"audit_unverified_refusals": 1}));
        served.engine.load(world_of(&enforcers())).unwrap();
        for _ in 0..TIMES {
            relay(&served, &[], &proxied(OTHER, "", &[headers]));
        }
        let records = served.records();
        assert_eq!(TIMES, records.len(), "{code}");
        for record in records {
            let link = &record["input"]["chain"][0];
            assert_eq!(json!([OTHER, "relayed"]), json!([link["id"], link["proof"]]));
            assert_eq!(code, record["result"]["reason_code"]);
        }
    }
}

/// Beside a relayed agent `authorization` is that agent's, its subject's, or the upstream's.
#[test]
fn authorization_beside_a_relayed_agent() {
    let served = mutual();
    let bearer = |token: &str| format!("Bearer {token}");
    let stranger =
        KEYS_OF_NOBODY.sign(&json!({"iss": "https://other.example", "sub": "x"}).to_string());
    let forged_subject = KEYS_OF_NOBODY.sign(
        &json!({"iss": "https://idp.example", "sub": "x", "aud": "authz", "exp": now() + 300})
            .to_string(),
    );
    let long = "x".repeat(9_000);
    let cases = [
        (bearer(&svid()), "PERMITTED", 1),
        (bearer(&alice()), "PERMITTED", 2),
        (bearer(&stranger), "PERMITTED", 1),
        (bearer("opaque"), "PERMITTED", 1),
        ("Basic eDp5".to_owned(), "PERMITTED", 1),
        (bearer(&svid_with(OTHER, "authz", now() + 300)), "BAD_CREDENTIAL", 1),
        (bearer(&forged()), "BAD_CREDENTIAL", 1),
        (bearer(&forged_subject), "UNTRUSTED_ISSUER", 1),
        (format!("DPoP {}", alice()), "BAD_PROOF", 1),
        (bearer(&long), "BAD_CREDENTIAL", 1),
        ("Bearer".to_owned(), "BAD_CREDENTIAL", 1),
        (format!("{},{}", bearer(&svid()), bearer(&svid())), "BAD_CREDENTIAL", 1),
    ];
    for (value, _, _) in &cases {
        relay(&served, &[], &proxied(BOT, "", &[("authorization", value)]));
    }
    let subject = alice();
    relay(&served, &[], &proxied(BOT, "", &[("authz-subject", &subject)]));
    let twice = [("authz-subject", subject.as_str()), ("authorization", &bearer(&alice()))];
    relay(&served, &[], &proxied(BOT, "", &twice));
    let records = served.records();
    let found: Vec<(String, usize)> = records
        .iter()
        .map(|record| {
            let code = record["result"]["reason_code"].as_str().unwrap().to_owned();
            (code, record["input"]["chain"].as_array().unwrap().len())
        })
        .collect();
    let mut expected: Vec<(String, usize)> =
        cases.iter().map(|(_, code, links)| ((*code).to_owned(), *links)).collect();
    expected.extend([("PERMITTED".to_owned(), 2), ("BAD_CREDENTIAL".to_owned(), 1)]);
    assert_eq!(expected, found);
}

static KEYS_OF_NOBODY: LazyLock<authz_token::mint::Key> =
    LazyLock::new(|| authz_token::mint::Key::es256("n1"));
