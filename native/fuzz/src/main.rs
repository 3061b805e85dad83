//! Coverage-guided fuzzing of everything that reads bytes of strangers: libFuzzer chooses the bytes, and keeps those that reach
//! code which no earlier ones reached.
//!
//! `FUZZ_TARGET` names the target; the arguments are libFuzzer's. The bodies stand beside what they test, behind the feature
//! `test-support`, and `make test` runs them over the committed corpora. `make fuzz` runs each target in turn.

#![no_main]

// The world of the lane's tests: a small bundle, a trust domain with keys, and an engine that serves them.
#[expect(dead_code, unused_imports, reason = "it serves the lane's tests, which need more")]
#[path = "../../lane/tests/it/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use authz_cases::fuzz as cases;
use authz_kernel::plan::Plan;
use authz_kernel::source::{self, fuzz as bundles};
use authz_lane::fuzz as calls;
use authz_token::fuzz as tokens;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// What is done with bytes.
type FuzzTarget = fn(&[u8]);

/// All targets by name; those of the lane are named as in its list, after `call_`.
const TARGETS: [(&str, FuzzTarget); 15] = [
    ("json", bundles::json_text),
    ("envoy_request", calls::envoy_request),
    ("bundle", bundles::bundle_file),
    ("case", cases::case_file),
    ("route", |bytes| bundles::request(bytes, DESK.routes())),
    ("mcp", bundles::message),
    ("destination", bundles::destination),
    ("scope", |bytes| bundles::task(bytes, &PLAN)),
    ("token", token),
    ("proof", |bytes| _ = tokens::proof(bytes)),
    ("credential", |bytes| _ = tokens::credential(bytes)),
    ("jwks", |bytes| _ = tokens::jwks(bytes)),
    ("certificate", |bytes| _ = tokens::certificate(bytes)),
    ("spiffe_id", |bytes| _ = tokens::spiffe_id(bytes)),
    ("uri", |bytes| _ = tokens::uri(bytes)),
];

/// The bundle of the tests, with its routes.
static DESK: LazyLock<Arc<Plan>> = LazyLock::new(|| support::plan(&[]));

/// The committed bundle with templates of tasks.
static PLAN: LazyLock<Plan> = LazyLock::new(|| {
    let tasks = include_bytes!("../../kernel/corpus/bundle/tasks.yaml");
    let files = [("bundle.yaml", b"{name: tasks}".to_vec()), ("tasks.yaml", tasks.to_vec())];
    let files = files.map(|(path, bytes)| (path.to_owned(), bytes)).into();
    let model = source::load(&files, &BTreeMap::new()).expect("the bundle loads");
    Plan::compile(model, None).expect("the bundle compiles")
});

/// An engine that nobody has a credential for.
static SERVED: LazyLock<support::Served> = LazyLock::new(|| {
    // The fewest lines: of refusals by the million, the audit file holds sums.
    let served = support::unloaded(&json!({"audit_unverified_refusals": 1}));
    let mut world = support::world();
    world.listeners.extend(support::listeners_of(&json!([{"name": "http", "http": true}])));
    served.engine.load(world).expect("the world loads");
    served
});

/// The bytes as a token; and their first lines as header and claims of one, each with a signature that is none. Any that
/// verifies is a forgery.
fn token(bytes: &[u8]) {
    assert!(!tokens::token(bytes), "a token was forged");
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let parts = [next(), next(), next()].map(|part| URL_SAFE_NO_PAD.encode(part));
    assert!(!tokens::token(parts.join(".").as_bytes()), "a token was forged");
}

/// The body of a name.
fn body(name: &str) -> Option<Box<dyn Fn(&[u8]) + Send + Sync>> {
    let own = TARGETS.iter().find(|(target, _)| *target == name);
    if let Some((_, body)) = own {
        return Some(Box::new(body));
    }
    let call = name.strip_prefix("call_")?;
    let (_, body) = calls::BODIES.into_iter().find(|(target, _)| *target == call)?;
    let engine = Arc::clone(&SERVED.engine);
    Some(Box::new(move |bytes| body(&engine, bytes)))
}

static BODY: LazyLock<Box<dyn Fn(&[u8]) + Send + Sync>> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    body(&name).unwrap_or_else(|| {
        let own = TARGETS.iter().map(|(target, _)| (*target).to_owned());
        let calls = calls::BODIES.iter().map(|(target, _)| format!("call_{target}"));
        let names: Vec<String> = own.chain(calls).collect();
        eprintln!("FUZZ_TARGET is `{name}`, but must be one of {}", names.join(" "));
        std::process::exit(2);
    })
});

fuzz_target!(init: { LazyLock::force(&BODY); }, |bytes: &[u8]| {
    BODY(bytes);
});
