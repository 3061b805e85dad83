//! Whose word a prompt is: nothing that an agent can say counts as the user's.

use std::sync::Arc;

use authz_lane::proto::authz::v1 as wire;
use authz_lane::{PeerChain, Surface, Transport, World};
use authz_token::mint::{Key, jwks, proof};
use authz_token::{TrustSpec, TrustStore};
use prost::Message;
use serde_json::{Value, json};

use crate::peers::A;
use crate::support::*;
use crate::tasks::{agent, call, subject};

const CLI: &str = "spiffe://a.example/ns/cli/sa/one";
const PORTAL: &str = "spiffe://a.example/ns/web/sa/portal";
const TEMPLATES: &str = r"
templates:
  mail:
    purpose: write mail
    params: {about: String}
    deadline: 30m
    max_depth: 1
    tier_cap: high
    starters: [bot, cli]
    scope: [{operation: crm.mail}]
";
const POLICIES: &str = r#"
@id("all") permit(principal, action in [Action::"system:crm", Action::"task:mail", Action::"give:mail"], resource);
@id("named") @reason("the user did not name the recipient") forbid(principal, action == Action::"crm.mail", resource)
when { !context.destination.trusted };
"#;

fn facts() -> String {
    FACTS
        .replace(
            "mail: {input: {type: object, properties: {}}}",
            "mail: {input: {type: object, properties: {to: {type: string}}}}",
        )
        .replace(
            "{match: crm.mail, effects: [write], tier: standard}",
            "{match: crm.mail, effects: [write], tier: standard, destination: {from: [/to], type: email}}",
        )
        .replace(
            "agents: {bot:",
            "destinations: {all: {match: '*', clearance: []}}\nlabels: {secret: {kind: confidentiality, tier: high}}\n\
             agents: {cli: {match: 'spiffe://a.example/ns/cli/sa/*', harness: true, subject: optional}, bot:",
        )
}

fn trust() -> Arc<TrustStore> {
    let mut spec = trust_spec();
    let corp = &mut spec["issuers"]["corp"];
    corp["alone_bound"] = true.into();
    let authorities: Value = serde_json::from_str(&authz_token::mint::x509::bundle(&[&A])).unwrap();
    let mut bundle: Value =
        serde_json::from_str(spec["domains"]["a.example"]["bundle"].as_str().unwrap()).unwrap();
    let keys = bundle["keys"].as_array_mut().unwrap();
    keys.extend(authorities["keys"].as_array().unwrap().iter().cloned());
    spec["domains"]["a.example"]["bundle"] = bundle.to_string().into();
    let spec = TrustSpec::from_json(spec.to_string().as_bytes()).unwrap();
    Arc::new(TrustStore::compile(&spec).unwrap())
}

fn world_with(peer: &str, agents: &str) -> World {
    let facts = facts().replace("agents: {cli:", &format!("agents: {{{agents}cli:"));
    let listeners = json!([
        {"name": "dev", "insecure_dev": true},
        {"name": "own"},
        {"name": "mutual", "mutual": true},
        {"name": "envoy", "enforcer": {"name": "envoy", "asks": ["system:*"], "relays": ["principal"]}},
    ]);
    let peers = json!([
        {"name": "portal", "match": peer, "asks": ["system:*"], "relays": ["prompt"]},
        {"name": "tools", "match": "spiffe://a.example/ns/tools/sa/crm", "asks": ["system:*"]},
    ]);
    World {
        plan: plan(&[
            ("bundle.yaml", "{name: desk, tasks: required}"),
            ("facts.yaml", &facts),
            ("templates.yaml", TEMPLATES),
            ("policies/all.cedar", POLICIES),
        ]),
        trust: trust(),
        listeners: listeners_of(&listeners),
        peers: peers_of(&peers),
        ..world()
    }
}

fn served() -> Served {
    let served = unloaded(&json!({}));
    served.engine.load(world_with(PORTAL, "")).unwrap();
    served
}

fn token(more: &Value) -> String {
    let mut claims = json!({
        "iss": "https://idp.example", "sub": "alice", "aud": "authz-own", "exp": now() + 300, "iat": now(),
        "groups": ["employees"],
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    subject_token(&claims)
}

/// Alice's token that no agent gets.
fn own() -> wire::Evidence {
    evidence(wire::EvidenceRole::Subject, token(&json!({})))
}

/// How a call comes: by which listener, and with whose certificate.
#[derive(Clone, Copy)]
enum Way {
    Dev,
    Mutual(&'static str),
}

fn ask<R: Message + Default>(
    served: &Served,
    way: Way,
    surface: Surface,
    request: &impl Message,
) -> Result<R, &'static str> {
    let Way::Mutual(id) = way else { return call(served, surface, request) };
    let leaf = A.leaf(id);
    let chain = [leaf.as_slice()];
    let call = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
    let answer = served.engine.call(surface, &request.encode_to_vec(), &call);
    let answer = answer.map_err(|error| error.reason_code.as_str())?;
    Ok(R::decode(answer.as_slice()).unwrap())
}

fn starting(evidence: Vec<wire::Evidence>, prompt: &str, about: &str) -> wire::StartRequest {
    let kind = Some(prost_types::value::Kind::StringValue(about.to_owned()));
    let about = [("about".to_owned(), prost_types::Value { kind })].into();
    wire::StartRequest {
        evidence,
        template: "mail".to_owned(),
        params: Some(prost_types::Struct { fields: about }),
        prompt: prompt.to_owned(),
        assignee: BOT.to_owned(),
        ..wire::StartRequest::default()
    }
}

fn start(
    served: &Served,
    way: Way,
    request: &wire::StartRequest,
) -> Result<wire::Task, &'static str> {
    let answer: wire::StartResponse = ask(served, way, Surface::TaskStart, request)?;
    Ok(answer.task.unwrap())
}

fn extend(
    served: &Served,
    way: Way,
    task: &wire::Task,
    by: Vec<wire::Evidence>,
    prompt: &str,
) -> Result<wire::Task, &'static str> {
    let request = wire::ExtendRequest {
        evidence: by,
        task: task.id.clone(),
        prompt: prompt.to_owned(),
        prompt_parts: Vec::new(),
    };
    let answer: wire::ExtendResponse = ask(served, way, Surface::TaskExtend, &request)?;
    Ok(answer.task.unwrap())
}

/// Whether a mail of the task's agent may go there.
fn mails(served: &Served, task: &wire::Task, to: &str) -> &'static str {
    mails_with(served, task, to, &[])
}

fn mails_with(served: &Served, task: &wire::Task, to: &str, labels: &[&str]) -> &'static str {
    let request = wire::CheckRequest {
        evidence: vec![agent(&task.assignee)],
        operation: "crm.mail".to_owned(),
        arguments_json: json!({"to": to}).to_string().into_bytes(),
        task: task.id.clone(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..wire::CheckRequest::default()
    };
    code(&served.check(&request))
}

/// A subject that shows nothing but a token that an agent may hold is nobody; a front end says that no agent calls.
#[test]
fn a_bearer_token_alone_proves_nobody() {
    let served = served();
    let check = |way: Way, evidence: Vec<wire::Evidence>| {
        let request = wire::CheckRequest {
            evidence,
            operation: "crm.mail".to_owned(),
            arguments_json: json!({"to": EVE}).to_string().into_bytes(),
            ..wire::CheckRequest::default()
        };
        let Way::Mutual(id) = way else { return code(&served.check(&request)) };
        let leaf = A.leaf(id);
        let chain = [leaf.as_slice()];
        let call = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
        code(&crate::support::own(&served.engine.check(&request.encode_to_vec(), &call)))
    };
    let tools = Way::Mutual("spiffe://a.example/ns/tools/sa/crm");
    assert_eq!("NO_CREDENTIAL", check(Way::Dev, vec![subject("alice")]));
    assert_eq!("NO_CREDENTIAL", check(tools, vec![subject("alice")]));
    // These are known, and then a task is missing.
    assert_eq!("NO_TASK", check(Way::Mutual(PORTAL), vec![subject("alice")]));
    assert_eq!("NO_TASK", check(tools, vec![own()]));
    assert_eq!("NO_TASK", check(tools, vec![agent(BOT), subject("alice")]));
}

const EVE: &str = "eve@evil.example";

/// Who starts a task with a prompt or a parameter decides whether these name anybody.
#[test]
fn the_prompt_of_a_start() {
    let served = served();
    let bearer = || subject("alice");
    let portal = Way::Mutual(PORTAL);
    let cli =
        |evidence| wire::StartRequest { assignee: CLI.to_owned(), ..starting(evidence, EVE, "x") };
    for (what, way, request, expected) in [
        ("alone", Way::Dev, starting(vec![own()], EVE, "x"), "PERMITTED"),
        ("alone, by a parameter", Way::Dev, starting(vec![own()], "", EVE), "PERMITTED"),
        ("front end", portal, starting(vec![bearer()], EVE, "x"), "PERMITTED"),
        ("harness", Way::Dev, cli(vec![agent(CLI), bearer()]), "PERMITTED"),
        ("harness for itself", Way::Dev, cli(vec![agent(CLI)]), "FORBIDDEN"),
        ("bearer alone", Way::Dev, starting(vec![bearer()], EVE, "x"), "NO_CREDENTIAL"),
        ("bearer, by a parameter", Way::Dev, starting(vec![bearer()], "", EVE), "NO_CREDENTIAL"),
        ("agent and bearer", Way::Dev, starting(vec![agent(BOT), bearer()], EVE, "x"), "FORBIDDEN"),
        ("agent for itself", Way::Dev, starting(vec![agent(BOT)], EVE, "x"), "FORBIDDEN"),
        ("front end, no subject", portal, starting(vec![agent(BOT)], EVE, "x"), "FORBIDDEN"),
        (
            "front end as itself an agent",
            portal,
            starting(vec![agent(PORTAL), bearer()], EVE, "x"),
            "NOT_PERMITTED",
        ),
        (
            "enforcer that relays no prompt",
            Way::Mutual("spiffe://a.example/ns/tools/sa/crm"),
            starting(vec![bearer()], EVE, "x"),
            "NO_CREDENTIAL",
        ),
    ] {
        let found = match start(&served, way, &request) {
            Ok(task) => mails(&served, &task, EVE),
            Err(code) => code,
        };
        assert_eq!(expected, found, "{what}");
    }
    let said: Vec<Value> = served
        .records()
        .iter()
        .filter(|record| record["path"] == "authz.v1.Tasks/Start")
        .map(|record| record["input"]["prompt"].clone())
        .collect();
    assert_eq!(json!({"said_by": "subject", "named": 1, "claimed": 0}), said[0]);
    assert_eq!(json!({"said_by": "front_end", "named": 1, "claimed": 0}), said[2]);
    assert_eq!(json!({"said_by": "harness", "named": 1, "claimed": 0}), said[3]);
    assert_eq!(json!({"said_by": "agent", "named": 0, "claimed": 1}), said[7]);
}

/// A further turn: the agent that left its own credential out is no subject, and the harness has its limit.
#[test]
fn the_prompt_of_an_extension() {
    let served = served();
    let made = |assignee: &str| {
        let request =
            wire::StartRequest { assignee: assignee.to_owned(), ..starting(vec![own()], "", "x") };
        start(&served, Way::Dev, &request).unwrap()
    };
    let bearer = || subject("alice");
    for (what, way, who, by, expected) in [
        ("alone", Way::Dev, BOT, vec![own()], "PERMITTED"),
        ("front end", Way::Mutual(PORTAL), BOT, vec![bearer()], "PERMITTED"),
        ("harness", Way::Dev, CLI, vec![agent(CLI), bearer()], "PERMITTED"),
        ("bearer alone", Way::Dev, BOT, vec![bearer()], "FORBIDDEN"),
        ("agent and bearer", Way::Dev, BOT, vec![agent(BOT), bearer()], "FORBIDDEN"),
        ("agent alone", Way::Dev, BOT, vec![agent(BOT)], "NOT_PERMITTED"),
        ("another subject", Way::Dev, BOT, vec![subject("bob")], "NOT_PERMITTED"),
        ("alone beside the agent", Way::Dev, BOT, vec![agent(BOT), own()], "WRONG_AUDIENCE"),
        ("another agent", Way::Dev, BOT, vec![agent(CLI), bearer()], "NOT_PERMITTED"),
    ] {
        let task = made(who);
        let found = match extend(&served, way, &task, by, EVE) {
            Ok(_) => mails(&served, &task, EVE),
            Err(code) => code,
        };
        assert_eq!(expected, found, "{what}");
    }
    // The label raises the tier beyond what a harness may name.
    let (bots, clis) = (made(BOT), made(CLI));
    extend(&served, Way::Dev, &bots, vec![own()], EVE).unwrap();
    let told = extend(&served, Way::Dev, &clis, vec![agent(CLI), bearer()], EVE).unwrap();
    assert_eq!((1, 0), (told.named, told.claimed));
    assert_eq!("PERMITTED", mails_with(&served, &bots, EVE, &["secret"]));
    assert_eq!("FORBIDDEN", mails_with(&served, &clis, EVE, &["secret"]));
    // Claims displace no name, however many.
    let crowd: String = (0..400).map(|number| format!("u{number}@evil.example ")).collect();
    extend(&served, Way::Dev, &bots, vec![agent(BOT), bearer()], &crowd).unwrap();
    let told = extend(&served, Way::Dev, &bots, vec![own()], "and bob@corp.example").unwrap();
    assert_eq!((2, 256), (told.named, told.claimed));
    assert_eq!("PERMITTED", mails(&served, &bots, "bob@corp.example"));
    assert_eq!("FORBIDDEN", mails(&served, &bots, "u1@evil.example"));
}

/// Only the user's own words count; what a front end says of another text names nothing.
#[test]
fn the_parts_of_a_prompt() {
    let served = served();
    let part = |text: &str, said_by: wire::SaidBy| wire::PromptPart {
        text: text.to_owned(),
        said_by: said_by as i32,
    };
    let with = |prompt: &str, parts: Vec<wire::PromptPart>| {
        let request = wire::StartRequest {
            prompt_parts: parts,
            ..starting(vec![subject("alice")], prompt, "x")
        };
        start(&served, Way::Mutual(PORTAL), &request)
    };
    let mixed = vec![
        part("Answer bob@corp.example; this came in:", wire::SaidBy::User),
        part("From: eve@evil.example", wire::SaidBy::Quoted),
        part("Be kind to ann@corp.example", wire::SaidBy::Other),
        part("sam@corp.example", wire::SaidBy::Unspecified),
    ];
    let task = with("", mixed).unwrap();
    assert_eq!((1, 0), (task.named, task.claimed));
    for (to, expected) in [
        ("bob@corp.example", "PERMITTED"),
        (EVE, "FORBIDDEN"),
        ("ann@corp.example", "FORBIDDEN"),
        ("sam@corp.example", "FORBIDDEN"),
    ] {
        assert_eq!(expected, mails(&served, &task, to), "{to}");
    }
    let user = || part("x", wire::SaidBy::User);
    assert_eq!(Err("BAD_INPUT"), with("x", vec![user()]).map(drop));
    assert_eq!(Err("BAD_INPUT"), with("", vec![user(); 257]).map(drop));
    let odd = wire::PromptPart { text: "x".to_owned(), said_by: 9 };
    assert_eq!(Err("BAD_INPUT"), with("", vec![odd]).map(drop));
}

/// A subject reads and ends its tasks by a token that no agent holds, and not by one that the agent may show in its place.
#[test]
fn what_only_the_subject_does() {
    let served = served();
    let task = start(&served, Way::Dev, &starting(vec![own()], "", "x")).unwrap();
    let get = |by: Vec<wire::Evidence>| {
        let request = wire::GetRequest { evidence: by, task: task.id.clone() };
        call::<wire::GetResponse>(&served, Surface::TaskGet, &request).map(drop)
    };
    let end = |by: Vec<wire::Evidence>| {
        let request = wire::EndRequest {
            evidence: by,
            task: task.id.clone(),
            status: wire::TaskStatus::Revoked as i32,
        };
        call::<wire::EndResponse>(&served, Surface::TaskEnd, &request).map(drop)
    };
    for (by, refusal) in [
        (vec![subject("alice")], "NOT_PERMITTED"),
        (vec![agent(CLI), subject("alice")], "CHAIN_NOT_PERMITTED"),
    ] {
        assert_eq!(Err(refusal), get(by.clone()));
        assert_eq!(Err(refusal), end(by));
    }
    assert_eq!(Ok(()), get(vec![own()]));
    for by in [vec![agent(BOT), own()], vec![agent(CLI), own()]] {
        assert_eq!(Err("WRONG_AUDIENCE"), get(by.clone()));
        assert_eq!(Err("WRONG_AUDIENCE"), end(by));
    }
    assert_eq!(Ok(()), end(vec![own()]));
}

/// A token that no agent gets is refused beside any agent, however that is known.
#[test]
fn an_alone_token_beside_an_agent() {
    let served = served();
    let check = |evidence: Vec<wire::Evidence>| wire::CheckRequest { evidence, ..search() };
    assert_eq!("WRONG_AUDIENCE", code(&served.check(&check(vec![agent(BOT), own()]))));
    let leaf = A.leaf(BOT);
    let chain = [leaf.as_slice()];
    let peer = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
    drop(served.engine.check(&check(vec![own()]).encode_to_vec(), &peer));
    // By the proxy's word, in both headers that a subject's token may come in.
    for header in ["authz-subject", "authorization"] {
        let value = match header {
            "authorization" => format!("Bearer {}", token(&json!({}))),
            _ => token(&json!({})),
        };
        // Of two tokens of one kind, neither counts.
        let others = if header == "authorization" { "authz-subject" } else { "authorization" };
        let mut request = http("GET", "/customers?q=x", &[(others, "\0"), (header, &value)]);
        let source = request.attributes.as_mut().unwrap().source.get_or_insert_default();
        BOT.clone_into(&mut source.principal);
        drop(served.engine.envoy_check(&request.encode_to_vec(), &Transport::by("envoy")));
    }
    // For both audiences, it is one that agents get.
    for aud in [json!(["authz-own", "authz"]), json!(["authz-own", "crm"])] {
        let both = evidence(wire::EvidenceRole::Subject, token(&json!({"aud": aud})));
        assert_eq!(
            Err("WRONG_AUDIENCE"),
            start(&served, Way::Dev, &starting(vec![both], "", "x")).map(drop)
        );
    }
    let records = served.records();
    let codes: Vec<&str> =
        records.iter().filter_map(|record| record["result"]["reason_code"].as_str()).collect();
    assert_eq!(vec!["WRONG_AUDIENCE"; 6], codes);
}

/// A front end that could be an agent is no front end: the node does not start, and a reload is refused.
#[test]
fn a_front_end_is_no_agent() {
    for pattern in [BOT, "spiffe://a.example/ns/*/sa/bot", "spiffe://a.example/ns/cli/sa/one"] {
        let error = unloaded(&json!({})).engine.load(world_with(pattern, "")).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("enforcer `portal` relays prompts"), "{error}");
        assert!(error.contains("remove `prompt` from its `relays`"), "{error}");
    }
    let served = served();
    let late = world_with(PORTAL, "web: ['spiffe://a.example/ns/web/sa/*'], ");
    assert!(served.engine.load(late).is_err());
    let task = start(&served, Way::Mutual(PORTAL), &starting(vec![subject("alice")], EVE, "x"));
    assert_eq!("PERMITTED", mails(&served, &task.unwrap(), EVE), "the old bundle serves");
}

/// A token that is bound to a key of the subject's own proves the subject too, by a proof of this very call.
#[test]
fn a_bound_token() {
    const ISSUER: &str = "https://authz.example";
    let key = Key::es256("");
    let bound = token(&json!({"aud": "authz", "cnf": {"jkt": key.thumbprint()}}));
    let own = Key::ed25519("").by_thumbprint();
    let load = |alone_bound: bool| {
        let served = unloaded(&json!({}));
        let mut spec = trust_spec();
        spec["issuers"]["corp"]["alone_bound"] = alone_bound.into();
        spec["own"] = json!({"issuer": ISSUER, "keys": jwks(&[&own])});
        let spec = TrustSpec::from_json(spec.to_string().as_bytes()).unwrap();
        let world = World {
            trust: Arc::new(TrustStore::compile(&spec).unwrap()),
            credentials: Some(credential_settings(&json!({"issuer": ISSUER}))),
            ..world_with(PORTAL, "")
        };
        served.engine.load(world).unwrap();
        served
    };
    let shown = |uri: &str| {
        let jti = uuid::Uuid::now_v7().to_string();
        let made = proof("POST", uri, now(), &jti, Some(&bound));
        wire::Evidence {
            role: wire::EvidenceRole::Subject as i32,
            scheme: wire::EvidenceScheme::Dpop as i32,
            token: bound.clone(),
            proof: key.sign_proof(&made.to_string()),
        }
    };
    let uri = format!("{ISSUER}/authz.v1.Tasks/Start");
    let served = load(true);
    let first = shown(&uri);
    let task = start(&served, Way::Dev, &starting(vec![first.clone()], EVE, "x")).unwrap();
    assert_eq!("PERMITTED", mails(&served, &task, EVE));
    let again = |evidence| start(&served, Way::Dev, &starting(vec![evidence], EVE, "x")).map(drop);
    assert_eq!(Err("REPLAYED"), again(first));
    assert_eq!(Err("BAD_PROOF"), again(shown("https://authz.example/authz.v1.Tasks/Extend")));
    let bearer = evidence(wire::EvidenceRole::Subject, bound.clone());
    assert_eq!(Err("UNBOUND_CREDENTIAL"), again(bearer));
    // An issuer that does not say so may bind tokens to the keys of agents.
    let served = load(false);
    let request = starting(vec![shown(&uri)], EVE, "x");
    assert_eq!(Err("NO_CREDENTIAL"), start(&served, Way::Dev, &request).map(drop));
}
