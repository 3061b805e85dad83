//! The bundle, keys and tokens of every run.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use authz_kernel::plan::Plan;
use authz_kernel::source;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Listener, Secret, Settings, StateEngine, World};
use authz_token::mint::{Key, bundle, jwks};
use authz_token::{TrustSpec, TrustStore};
use serde_json::{Value, json};

use crate::clock::START;

pub const BOT: &str = "spiffe://a.example/ns/support/sa/bot";
pub const TWO: &str = "spiffe://a.example/ns/support/sa/two";

/// Most uses of each counted operation in a task and the tasks below it.
pub const MOST_PAYS: usize = 4;
pub const MOST_DELETES: usize = 2;
/// Most money that a session pays and moves.
pub const MOST_MONEY: i64 = 100;
/// A permit without a report counts as done after this time.
pub const REPORT_WITHIN_MS: i64 = 60_000;
/// Oldest view of revocations by which a node answers.
pub const STALENESS_MS: u64 = 1_000;
/// Greatest difference between the clocks of a node and of the shared store.
pub const TOLERANCE_MS: i64 = 5_000;

/// Tokens end after this many seconds; no run takes so long.
const LIFETIME: i64 = 500_000;

const FACTS: &str = "
labels: {pii: {kind: confidentiality}, vip: {kind: confidentiality}}
catalog:
  shop:
    kind: http
    origin: https://shop.example
    reports: sdk
    operations:
      find: {}
      look: {}
      pay: {input: {type: object, properties: {n: {type: integer}}, required: [n]}}
      move: {input: {type: object, properties: {n: {type: integer}}, required: [n]}}
      wire: {input: {type: object, properties: {n: {type: integer}}, required: [n]}}
      delete: {}
classify:
  - {match: shop.find, effects: [read], tier: low, yields: {minimum: [pii], maximum: [pii, vip]}}
  - {match: shop.look, effects: [read], tier: low}
  - {match: shop.pay, effects: [write], tier: low, abortable: true}
  - {match: shop.move, effects: [write], tier: low}
  - {match: shop.wire, effects: [write], tier: standard}
  - {match: shop.delete, effects: [delete], tier: high}
tiers: {high: {bound: false}}
agents: {bot: {match: ['spiffe://a.example/ns/support/sa/*'], subject: optional}}
subjects:
  staff: {issuer: corp, claim: groups, contains: employees}
  manager: {issuer: corp, claim: groups, contains: managers}
budgets:
  money: {sum: /n, of: [shop.pay, shop.move], most: 100}
";
const TEMPLATES: &str = "
templates:
  desk:
    purpose: work at the desk
    deadline: 3m
    max_depth: 1
    tier_cap: high
    starters: [bot]
    scope:
      - {operation: shop.find}
      - {operation: shop.look}
      - {operation: shop.pay, uses: 4}
      - {operation: shop.move}
      - {operation: shop.wire}
      - {operation: shop.delete, uses: 2}
";
const POLICIES: &str = r#"
@id("shopping") permit(principal, action in [Action::"system:shop"], resource);
@id("vip") forbid(principal, action == Action::"shop.move", resource)
when { context.session.labels.contains(Label::"vip") };
@id("wire") @stepup("approve") @reason("wires are approved")
forbid(principal, action == Action::"shop.wire", resource) unless { context.satisfied.contains(Kind::"approve") };
@id("staff-starts") permit(principal in Role::"staff", action == Action::"task:desk", resource);
@id("bots-start") permit(principal in Role::"bot", action == Action::"task:desk", resource);
@id("bots-get") permit(principal, action in Action::"authz.task.give", resource in Role::"bot");
@id("managers") permit(principal in Role::"manager", action == Action::"authz.approve", resource);
"#;

struct Keys {
    domain: Key,
    corp: Key,
}

static KEYS: LazyLock<Keys> =
    LazyLock::new(|| Keys { domain: Key::es256("d1"), corp: Key::es256("c1") });

static PLAN: LazyLock<Arc<Plan>> = LazyLock::new(|| {
    let files: BTreeMap<String, Vec<u8>> = [
        ("bundle.yaml", "{name: desk, tasks: required}"),
        ("facts.yaml", FACTS),
        ("templates.yaml", TEMPLATES),
        ("policies/all.cedar", POLICIES),
    ]
    .into_iter()
    .map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()))
    .collect();
    let explain = |found: authz_kernel::diagnostic::Diagnostics| {
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let model = source::load(&files, &BTreeMap::new()).map_err(explain).unwrap();
    Arc::new(Plan::compile(model, None).map_err(explain).unwrap())
});

static TRUST: LazyLock<Arc<TrustStore>> = LazyLock::new(|| {
    let spec = json!({
        "audiences": ["authz"],
        "domains": {"a.example": {"bundle": bundle(&[&KEYS.domain]), "from": "test"}},
        "issuers": {"corp": {
            "issuer": "https://idp.example", "audience": ["authz"], "algorithms": ["ES256"],
            "jwks": jwks(&[&KEYS.corp]), "from": "test", "claims": ["groups"], "alone_audience": ["authz-own"],
        }},
    });
    let spec = TrustSpec::from_json(spec.to_string().as_bytes()).unwrap();
    Arc::new(TrustStore::compile(&spec).unwrap())
});

struct Tokens {
    bot: String,
    two: String,
    alice: String,
}

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let (issued, end) = (START - 1_000, START + LIFETIME);
    let agent = |id: &str| {
        let claims = json!({"sub": id, "aud": ["authz"], "exp": end, "iat": issued});
        KEYS.domain.sign(&claims.to_string())
    };
    let alice = json!({
        "iss": "https://idp.example", "sub": "alice", "aud": "authz", "exp": end, "iat": issued,
        "groups": ["employees"],
    });
    Tokens { bot: agent(BOT), two: agent(TWO), alice: KEYS.corp.sign(&alice.to_string()) }
});

fn evidence(role: wire::EvidenceRole, token: &str) -> wire::Evidence {
    wire::Evidence {
        role: role as i32,
        scheme: wire::EvidenceScheme::Bearer as i32,
        token: token.to_owned(),
        proof: String::new(),
    }
}

/// Evidence of an agent: [`BOT`] or [`TWO`].
pub fn agent_evidence(id: &str) -> wire::Evidence {
    evidence(wire::EvidenceRole::Agent, if id == BOT { &TOKENS.bot } else { &TOKENS.two })
}

/// Evidence of Alice, for whom tasks are started.
pub fn alice_evidence() -> wire::Evidence {
    evidence(wire::EvidenceRole::Subject, &TOKENS.alice)
}

/// The person who answers step-ups.
pub fn manager() -> Value {
    json!({
        "issuer": "corp", "sub": "bob", "claims": {"groups": ["managers"]}, "method": "login",
        "authenticated_at_ms": 1_i64 << 50, "acr": "", "uid": null, "passkey": null,
    })
}

/// Bundle, trust and listeners of a node.
pub fn world() -> World {
    let listener = |name: &str, is_dev: bool, is_admin: bool, enforcer: Value| {
        json!({
            "name": name, "enforcer": enforcer, "insecure_dev": is_dev, "mutual": false, "admin": is_admin,
            "http": false, "surfaces": null,
        })
    };
    let sdk =
        json!({"name": "sdk", "asks": ["system:*"], "reports": "sdk", "relays": [], "uids": []});
    let listeners = json!([
        listener("dev", true, false, Value::Null),
        listener("admin", false, true, Value::Null),
        listener("sdk", false, false, sdk),
    ]);
    World {
        plan: Arc::clone(&PLAN),
        trust: Arc::clone(&TRUST),
        listeners: Listener::list_from_json(listeners.to_string().as_bytes()).unwrap(),
        peers: Vec::new(),
        credentials: None,
        recipient_lists: BTreeMap::new(),
        fetched: BTreeMap::new(),
        shadow: None,
    }
}

/// Settings of a node.
pub fn settings(engine: StateEngine, node: usize) -> Settings {
    let mut settings = Settings::offline();
    settings.token_cache_size = 1_000;
    settings.node_id = format!("n{node}");
    settings.state.engine = engine;
    match engine {
        StateEngine::Memory => {}
        StateEngine::Embedded => settings.state.path = Some("unused".into()),
        StateEngine::Postgresql => {
            settings.state.dsn = Some(Secret("unused".to_owned()));
            settings.state.node.clone_from(&settings.node_id);
        }
    }
    settings.state.revocation_staleness_ms = STALENESS_MS;
    settings.state.clock_tolerance_ms = TOLERANCE_MS.unsigned_abs();
    settings.state.report_within_ms = REPORT_WITHIN_MS.unsigned_abs();
    settings
}
