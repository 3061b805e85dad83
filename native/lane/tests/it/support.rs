//! A small bundle, a trust domain with keys, and an engine that serves them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use authz_kernel::plan::Plan;
use authz_kernel::source;
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::config::core::v3::{HeaderMap, HeaderValue};
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::proto::envoy::service::auth::v3::attribute_context as attributes;
use authz_lane::{CredentialSettings, Engine, Listener, PeerSpec, Settings, Transport, World};
use authz_token::mint::{Key, bundle, jwks};
use authz_token::{TrustSpec, TrustStore};
use prost::Message;
use serde_json::{Value, json};

pub const BOT: &str = "spiffe://a.example/ns/support/sa/bot";

const BUNDLE: [(&str, &str); 3] = [
    ("bundle.yaml", "name: desk\ntasks: optional\nshow_reason: [wiki]\n"),
    (
        "facts.yaml",
        r#"
catalog:
  crm:
    kind: http
    origin: https://crm.example
    operations:
      search:
        input:
          type: object
          properties: {query: {type: string}, limit: {type: integer}, sort: {type: string, enum: [up, down]}}
          required: [query]
      delete: {input: {type: object, properties: {id: {type: string}}, required: [id]}}
      card: {input: {type: object, properties: {}}}
      mail: {input: {type: object, properties: {}}}
      raw: {input: {type: object, properties: {}}}
  wiki:
    kind: http
    origin: https://wiki.example
    operations:
      read: {input: {type: object, properties: {}}}
resources: {customers: {}}
classify:
  - {match: crm.search, effects: [read], tier: low, resource: {collection: customers}}
  - {match: crm.delete, effects: [delete], tier: high, resource: {collection: customers, id: /id}}
  - {match: crm.card, effects: [read], tier: standard}
  - {match: crm.mail, effects: [write], tier: standard}
  - {match: wiki.read, effects: [read], tier: low}
tiers: {high: {bound: false}}
agents: {bot: {match: ["spiffe://a.example/ns/support/sa/*"], subject: optional}}
subjects: {staff: {issuer: corp, claim: groups, contains: employees}}
routes:
  - {method: GET, path: /customers, operation: crm.search, arguments: {query: {query: q}, limit: {query: limit}, sort: {header: x-sort}}}
  - {method: POST, path: /customers, operation: crm.search, arguments: {query: {json: /q}}}
  - {method: DELETE, path: "/customers/{id}", operation: crm.delete, arguments: {id: {path: id}}}
  - {method: GET, path: /cards, operation: crm.card}
  - {method: GET, path: /mail, operation: crm.mail}
  - {method: GET, path: /raw, operation: crm.raw}
  - {method: GET, path: /pages, operation: wiki.read}
"#,
    ),
    (
        "policies/all.cedar",
        r#"
@id("bots") @reason("bots work") permit(principal in Role::"bot", action in [Action::"system:crm"], resource);
@id("staff") @reason("staff work") permit(principal in Role::"staff", action in [Action::"system:crm"], resource);
@id("probes") permit(principal in Role::"bot", action == Action::"authz.probe", resource);
@id("staff-looks") permit(principal in Role::"staff", action in [Action::"authz.probe", Action::"authz.explain"], resource);
@id("redact") @obligation("redact:card") permit(principal in Role::"bot", action == Action::"crm.card", resource);
@id("confirm-mail") @stepup("confirm") @control("ASI02") @reason("mail is confirmed")
forbid(principal, action == Action::"crm.mail", resource) unless { context.satisfied.contains(Kind::"confirm") };
@id("no-wiki") @reason("the wiki is closed") forbid(principal, action == Action::"wiki.read", resource);
"#,
    ),
];

/// What the bundle says besides its policies.
pub const FACTS: &str = BUNDLE[1].1;

pub struct Keys {
    domain: Key,
    corp: Key,
    stranger: Key,
}

pub static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    domain: Key::es256("d1"),
    corp: Key::es256("c1"),
    stranger: Key::es256("d1"),
});

static PLAN: LazyLock<Arc<Plan>> = LazyLock::new(|| plan(&[]));

/// The bundle with more files.
pub fn plan(more: &[(&str, &str)]) -> Arc<Plan> {
    let files: BTreeMap<String, Vec<u8>> = BUNDLE
        .iter()
        .chain(more)
        .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
        .collect();
    let explain = |found: authz_kernel::diagnostic::Diagnostics| {
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let model = source::load(&files, &BTreeMap::new()).map_err(explain).unwrap();
    Arc::new(Plan::compile(model, None).map_err(explain).unwrap())
}

/// What is trusted, as JSON.
pub fn trust_spec() -> Value {
    json!({
        "audiences": ["authz"],
        "domains": {"a.example": {"bundle": bundle(&[&KEYS.domain]), "from": "test"}},
        "issuers": {"corp": {
            "issuer": "https://idp.example", "audience": ["authz"], "algorithms": ["ES256"],
            "jwks": jwks(&[&KEYS.corp]), "from": "test", "claims": ["groups", "email"],
            "alone_audience": ["authz-own"],
        }},
    })
}

static TRUST: LazyLock<Arc<TrustStore>> = LazyLock::new(|| {
    let spec = trust_spec();
    let spec = TrustSpec::from_json(spec.to_string().as_bytes()).unwrap();
    Arc::new(TrustStore::compile(&spec).unwrap())
});

pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A JWT-SVID of the bot; its signature differs each time.
pub fn svid() -> String {
    svid_with(BOT, "authz", now() + 300)
}

pub fn svid_with(sub: &str, aud: &str, exp: i64) -> String {
    KEYS.domain.sign(&json!({"sub": sub, "aud": [aud], "exp": exp, "iat": exp - 300}).to_string())
}

/// A JWT-SVID of the bot that does not say when it was issued.
pub fn svid_without_iat(exp: i64) -> String {
    KEYS.domain.sign(&json!({"sub": BOT, "aud": ["authz"], "exp": exp}).to_string())
}

/// A JWT-SVID of the bot with more claims.
pub fn svid_of(more: &Value) -> String {
    let mut claims = json!({"sub": BOT, "aud": ["authz"], "exp": now() + 300, "iat": now()});
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    KEYS.domain.sign(&claims.to_string())
}

pub fn forged() -> String {
    KEYS.stranger.sign(&json!({"sub": BOT, "aud": ["authz"], "exp": now() + 300}).to_string())
}

/// A token of Alice that no agent gets.
pub fn alone_alice() -> String {
    subject_token(&json!({
        "iss": "https://idp.example", "sub": "alice", "aud": "authz-own", "exp": now() + 300, "iat": now(),
        "groups": ["employees"],
    }))
}

/// A token of Alice, an employee.
pub fn alice() -> String {
    user("alice", json!(["employees"]))
}

/// A token of the issuer with these claims.
pub fn subject_token(claims: &Value) -> String {
    KEYS.corp.sign(&claims.to_string())
}

pub fn user(sub: &str, groups: Value) -> String {
    KEYS.corp.sign(
        &json!({
            "iss": "https://idp.example", "sub": sub, "aud": "authz", "exp": now() + 300, "iat": now(),
            "groups": groups, "email": "alice@corp.example",
        })
        .to_string(),
    )
}

/// A token of a user that was issued at a time, to a client; none where `client` is empty.
pub fn user_at(sub: &str, groups: Value, issued_at: i64, client: &str) -> String {
    let mut claims = json!({
        "iss": "https://idp.example", "sub": sub, "aud": "authz", "exp": now() + 300, "iat": issued_at,
        "groups": groups,
    });
    if !client.is_empty() {
        claims["azp"] = json!(client);
    }
    KEYS.corp.sign(&claims.to_string())
}

pub fn folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let folder = std::env::temp_dir().join(format!("authz-lane-{}-{number}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// An engine with its audit file.
pub struct Served {
    pub engine: Arc<Engine>,
    pub audit: PathBuf,
}

impl Served {
    pub fn records(&self) -> Vec<Value> {
        self.engine.close();
        let text = std::fs::read_to_string(&self.audit).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn check(&self, request: &wire::CheckRequest) -> wire::Decision {
        self.check_by("dev", request)
    }

    pub fn check_by(&self, listener: &str, request: &wire::CheckRequest) -> wire::Decision {
        own(&self.engine.check(&request.encode_to_vec(), &Transport::by(listener)))
    }

    pub fn proxy(&self, request: &ext::CheckRequest) -> ext::CheckResponse {
        let bytes = self.engine.envoy_check(&request.encode_to_vec(), &Transport::by("dev"));
        ext::CheckResponse::decode(bytes.as_slice()).unwrap()
    }
}

pub fn own(bytes: &[u8]) -> wire::Decision {
    wire::CheckResponse::decode(bytes).unwrap().decision.unwrap()
}

/// Sets members of a JSON object; an object in `changes` changes the members of the object that is there.
pub fn merge(json: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_object() && json[name].is_object() {
            merge(&mut json[name], value);
        } else {
            json[name] = value.clone();
        }
    }
}

pub fn settings(audit: &std::path::Path, extra: &Value) -> Settings {
    let mut settings = json!({
        "audit_path": audit, "audit_queue_lines": 65_536, "audit_queue_bytes": 64 << 20, "audit_on_full": "deny",
        "audit_sync_interval_ms": 1_000, "audit_max_wait_ms": 2_000,
        "audit_unverified_refusals": 1_000_000, "audit_chain": null, "token_cache_size": 10_000,
        "max_message_bytes": 1 << 20, "max_arguments_bytes": 256 << 10, "max_token_bytes": 8_192,
        "probe_rate": 50.0, "probe_burst": 200.0, "probe_callers": 10_000,
        "envoy_error_response": false, "node_id": "n1", "trace": null,
        "version": env!("CARGO_PKG_VERSION"), "approvals": {"url": ""},
        "state": {
            "engine": "memory", "path": null, "dsn": null, "node": "", "connections": 8,
            "max_wait_ms": 2_000, "poll_interval_ms": 200, "revocation_staleness_ms": 1_000,
            "clock_tolerance_ms": 5_000, "report_within_ms": 60_000, "retention_ms": 86_400_000, "max_tasks": 250_000,
            "max_tasks_per_agent": 10_000, "max_tasks_per_session": 1_000,
        },
    });
    merge(&mut settings, extra);
    Settings::from_json(settings.to_string().as_bytes()).unwrap()
}

/// JSON of settings of credentials.
pub fn credentials_json(changes: &Value) -> String {
    let mut settings = json!({
        "issuer": "https://authz.example", "audiences": {}, "static_secrets": {}, "leases": {},
        "lifetime": {"low": 900, "standard": 300, "high": 120, "critical": 60},
        "dpop": {"window": 60, "max_proofs_per_key": 4_096, "require_nonce": false},
    });
    merge(&mut settings, changes);
    settings.to_string()
}

pub fn credential_settings(changes: &Value) -> CredentialSettings {
    CredentialSettings::from_json(credentials_json(changes).as_bytes()).unwrap()
}

pub fn unloaded(extra: &Value) -> Served {
    let audit = folder().join("audit.jsonl");
    let engine = Engine::new(settings(&audit, extra)).unwrap();
    Served { engine: Arc::new(engine), audit }
}

/// Sets members of a JSON object that it does not have.
fn complete(json: &mut Value, defaults: &Value) {
    let mut whole = defaults.clone();
    merge(&mut whole, json);
    *json = whole;
}

/// Listeners, with the least members that each needs. The engine itself has no defaults.
pub fn listeners_of(list: &Value) -> Vec<Listener> {
    let mut list = list.clone();
    for listener in list.as_array_mut().unwrap() {
        let defaults = json!({
            "enforcer": null, "insecure_dev": false, "mutual": false, "admin": false, "http": false, "surfaces": null,
        });
        complete(listener, &defaults);
        if listener["enforcer"].is_object() {
            let defaults = json!({"relays": [], "reports": null, "uids": []});
            complete(&mut listener["enforcer"], &defaults);
        }
    }
    Listener::list_from_json(list.to_string().as_bytes()).unwrap()
}

/// Enforcers that are known by their certificates, as [`listeners_of`].
pub fn peers_of(list: &Value) -> Vec<PeerSpec> {
    let mut list = list.clone();
    for peer in list.as_array_mut().unwrap() {
        complete(peer, &json!({"relays": [], "reports": null}));
    }
    PeerSpec::list_from_json(list.to_string().as_bytes()).unwrap()
}

pub fn world() -> World {
    let listeners = json!([
        {"name": "dev", "insecure_dev": true},
        {"name": "crm", "enforcer": {"name": "crm-server", "asks": ["system:crm"]}},
        {"name": "own"},
        {"name": "admin", "admin": true},
        {"name": "proxy-only", "insecure_dev": true, "surfaces": ["ext_authz"]},
    ]);
    World {
        plan: Arc::clone(&PLAN),
        trust: Arc::clone(&TRUST),
        listeners: listeners_of(&listeners),
        peers: Vec::new(),
        credentials: None,
        recipient_lists: BTreeMap::new(),
        fetched: BTreeMap::new(),
        shadow: None,
    }
}

pub fn served_with(extra: &Value) -> Served {
    let served = unloaded(extra);
    served.engine.load(world()).unwrap();
    served
}

/// An engine whose bundle says `mode`.
pub fn observing(mode: &str) -> Served {
    observing_with(mode, &json!({}))
}

pub fn observing_with(mode: &str, extra: &Value) -> Served {
    let served = unloaded(extra);
    let world = World { plan: plan(&[("mode.yaml", mode)]), ..world() };
    served.engine.load(world).unwrap();
    served
}

pub fn served() -> Served {
    served_with(&json!({}))
}

pub fn evidence(role: wire::EvidenceRole, token: impl Into<String>) -> wire::Evidence {
    wire::Evidence {
        role: role as i32,
        scheme: wire::EvidenceScheme::Bearer as i32,
        token: token.into(),
        proof: String::new(),
    }
}

/// The bot for Alice.
pub fn chain() -> Vec<wire::Evidence> {
    vec![
        evidence(wire::EvidenceRole::Agent, svid()),
        evidence(wire::EvidenceRole::Subject, alice()),
    ]
}

pub fn search() -> wire::CheckRequest {
    wire::CheckRequest {
        evidence: chain(),
        operation: "crm.search".to_owned(),
        arguments_json: br#"{"query":"who"}"#.to_vec(),
        ..wire::CheckRequest::default()
    }
}

pub fn asking(operation: &str) -> wire::CheckRequest {
    wire::CheckRequest {
        evidence: chain(),
        operation: operation.to_owned(),
        ..wire::CheckRequest::default()
    }
}

pub fn code(decision: &wire::Decision) -> &'static str {
    wire::ReasonCode::try_from(decision.reason_code)
        .unwrap()
        .as_str_name()
        .strip_prefix("REASON_CODE_")
        .unwrap()
}

/// An HTTP request as Envoy sends it: header map of texts.
pub fn http(method: &str, path: &str, headers: &[(&str, &str)]) -> ext::CheckRequest {
    let mut all = BTreeMap::from([
        (":method".to_owned(), method.to_owned()),
        (":path".to_owned(), path.to_owned()),
        (":authority".to_owned(), "crm.example".to_owned()),
        ("authorization".to_owned(), format!("Bearer {}", svid())),
        ("authz-subject".to_owned(), alice()),
    ]);
    for (name, value) in headers {
        if *value == "\0" {
            all.remove(*name);
        } else {
            all.insert((*name).to_owned(), (*value).to_owned());
        }
    }
    request(attributes::HttpRequest {
        id: "1".to_owned(),
        method: method.to_owned(),
        path: path.to_owned(),
        host: "crm.example".to_owned(),
        scheme: "https".to_owned(),
        headers: all,
        ..attributes::HttpRequest::default()
    })
}

/// The same request in the encoding that keeps bytes and duplicates.
pub fn raw(method: &str, path: &str, headers: &[(&str, &[u8])]) -> ext::CheckRequest {
    let bearer = format!("Bearer {}", svid());
    let subject = alice();
    let mut all: Vec<(&str, &[u8])> =
        vec![("authorization", bearer.as_bytes()), ("authz-subject", subject.as_bytes())];
    all.extend(headers);
    let headers = all
        .into_iter()
        .map(|(key, raw)| HeaderValue {
            key: key.to_owned(),
            value: String::new(),
            raw_value: raw.to_vec(),
        })
        .collect();
    request(attributes::HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        size: -1,
        header_map: Some(HeaderMap { headers }),
        ..attributes::HttpRequest::default()
    })
}

pub fn request(http: attributes::HttpRequest) -> ext::CheckRequest {
    ext::CheckRequest {
        attributes: Some(ext::AttributeContext {
            request: Some(attributes::Request {
                http: Some(http),
                ..attributes::Request::default()
            }),
            ..ext::AttributeContext::default()
        }),
    }
}

pub fn edit(
    mut request: ext::CheckRequest,
    change: impl FnOnce(&mut attributes::HttpRequest),
) -> ext::CheckRequest {
    let attributes = request.attributes.as_mut().unwrap();
    change(attributes.request.as_mut().unwrap().http.as_mut().unwrap());
    request
}
