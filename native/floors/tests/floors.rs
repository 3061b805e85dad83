//! Imports inside each crate run one way.
//!
//! A test here needs no other crate compiled: it reads the sources.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

/// The modules of `authz-base`, lowest first.
const BASE: &[&str] = &[
    "reason",
    "rfc3339",
    "poison",
    "table",
    "pattern",
    "hex",
    "digest",
    "json",
    "host",
    "uri",
    "spelling",
    "spiffe",
    "time",
    "tier",
    "principal",
    "record",
];

/// The modules of `authz-bundle`, lowest first.
const BUNDLE: &[&str] = &[
    "location",
    "diagnostic",
    "pause",
    "ids",
    "json_schema",
    "arguments",
    "built_in",
    "obligation",
    "model",
    "canonical",
    "coerce",
    "prompt",
    "recipient_lists",
    "destinations",
    "roles",
    "mode",
    "exceptions",
    "catalog",
    "http",
    "mcp",
    "routes",
    "bundle",
    "source",
];

/// The kernel's modules, lowest first. Those of `authz-base` and `authz-bundle`, which the kernel exports under its own name,
/// come first.
const KERNEL: &[&str] = &[
    "reason",
    "rfc3339",
    "table",
    "hex",
    "digest",
    "json",
    "spelling",
    "diagnostic",
    "pause",
    "arguments",
    "obligation",
    "model",
    "canonical",
    "coerce",
    "destinations",
    "roles",
    "mode",
    "catalog",
    "mcp",
    "routes",
    "bundle",
    "work",
    "value_key",
    "decision",
    "schema",
    "stack",
    "evaluate",
    "policy",
    "recipient_lists",
    "history",
    "reach",
    "format",
    "plan",
    "describe",
    "guards",
    "testable",
    "soften",
    "task",
    "values",
    "decide",
    "shadow",
    "examples",
    "lint",
    "source",
    "test_support",
];

/// The modules of `authz-token`, lowest first.
const TOKEN: &[&str] = &[
    "json",
    "error",
    "algorithm",
    "ed25519",
    "certificate",
    "authority",
    "mint",
    "signing",
    "evidence",
    "refusal",
    "jws",
    "jwk",
    "facts",
    "claims",
    "dpop",
    "binding",
    "spec",
    "trust",
    "agent",
    "credential",
    "subject",
    "confidence",
    "cache",
    "peer",
    "relayed",
    "verify",
    "fuzz",
];

/// The modules of `authz-state`, lowest first.
const STATE: &[&str] = &["place", "medium", "time", "sync", "ticket", "audit", "store", "model"];

/// The modules of `authz-lane`, lowest first.
const LANE: &[&str] = &[
    "acting_agents",
    "build",
    "clock",
    "ending",
    "enforcer_proof",
    "error",
    "header_name",
    "limits",
    "message",
    "missing_keys",
    "nonce",
    "open_permits",
    "pace",
    "probe",
    "proto",
    "protobuf",
    "origin_records",
    "recalled",
    "refusal",
    "request_form",
    "settings",
    "secret_header",
    "audit_chain",
    "head_exchange",
    "keeper",
    "shadow_answer",
    "metrics",
    "attached",
    "request",
    "result_values",
    "threads",
    "transport",
    "world",
    "credential_use",
    "judgement",
    "answer",
    "approval_text",
    "mcp",
    "revoke",
    "locate",
    "approvals",
    "history",
    "speaker",
    "sums",
    "dropped_records",
    "record",
    "taskwire",
    "trace",
    "engine",
    "envoy",
    "fast",
    "fuzz",
    "giving",
    "host",
    "on_behalf",
    "proofs",
    "quota",
    "refused_agent",
    "sequences",
    "shown",
    "signing_keys",
    "status",
    "usage",
    "steps",
    "api_call",
    "admin",
    "security_event",
    "batch",
    "credentials",
    "entries",
    "erasure",
    "explain",
    "forget",
    "list",
    "permits",
    "leases",
    "report",
    "access_log",
    "audit_heads",
    "sweep",
    "tasks",
    "approval_api",
    "breakglass",
    "exchange",
    "tokens",
    "offline",
];

/// The modules of `authz-cases`, lowest first.
const CASES: &[&str] = &[
    "case_file",
    "matrix",
    "steps",
    "callers",
    "check",
    "fuzz",
    "source",
    "clock",
    "eval",
    "replay",
    "simulate",
    "can",
    "coverage",
    "report",
    "expect",
    "messages",
    "run",
];

fn assert_floors(crate_folder: &str, floors: &[&str], exceptions: &[(&str, &str)]) {
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let source = native.join(crate_folder).join("src");
    let problems = authz_floors::check(&source, floors, exceptions).unwrap();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn imports_of_base_run_down() {
    assert_floors("base", BASE, &[]);
}

#[test]
fn imports_of_the_bundle_run_down() {
    // The nouns of an object are digested once, when the bundle is read.
    assert_floors("bundle", BUNDLE, &[("model/origin.rs", "prompt")]);
}

#[test]
fn imports_of_the_kernel_run_down() {
    assert_floors("kernel", KERNEL, &[]);
}

#[test]
fn imports_of_the_token_crate_run_down() {
    assert_floors("token", TOKEN, &[]);
}

#[test]
fn imports_of_the_store_run_down() {
    assert_floors("state", STATE, &[]);
}

#[test]
fn imports_of_the_engine_run_down() {
    assert_floors("lane", LANE, &[]);
}

/// Calls by which the stores get time and threads, and the files that may make them.
const STATE_CALLS: &[(&str, &[&str])] = &[
    ("Instant::now", &["time.rs"]),
    ("SystemTime::now", &["time.rs"]),
    ("thread::sleep", &[]),
    ("thread::spawn", &[]),
    ("thread::Builder", &["sync.rs"]),
    ("runtime::Builder", &["store/postgres/mod.rs"]),
];

#[test]
fn the_stores_take_time_and_threads_from_one_place() {
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let problems = authz_floors::find_calls(&native.join("state/src"), STATE_CALLS).unwrap();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A call in the root of a crate counts as one in its modules.
#[test]
fn calls_are_found_in_every_file() {
    let source = std::env::temp_dir().join(format!("authz-floors-{}", std::process::id()));
    std::fs::create_dir_all(source.join("deep")).unwrap();
    for (file, text) in [
        ("lib.rs", "fn root() { Instant::now(); }"),
        ("deep/one.rs", "fn one() { Instant::now(); }"),
        ("clock.rs", "fn now() { Instant::now(); }"),
        ("free.rs", "#[cfg(test)]\nmod tests { fn one() { Instant::now(); } }"),
    ] {
        std::fs::write(source.join(file), text).unwrap();
    }
    let problems = authz_floors::find_calls(&source, &[("Instant::now", &["clock.rs"])]);
    std::fs::remove_dir_all(&source).unwrap();
    assert_eq!(
        vec!["deep/one.rs: `Instant::now`".to_owned(), "lib.rs: `Instant::now`".to_owned()],
        problems.unwrap()
    );
}

/// Calls by which the engine gets time, threads, ids and random numbers, and the files that may make them. Everything else
/// takes them from its `Clock`, or from `threads`, so that a test can choose them.
const LANE_CALLS: &[(&str, &[&str])] = &[
    ("Instant::now", &[]),
    ("SystemTime::now", &[]),
    ("Utc::now", &[]),
    ("thread::sleep", &["clock.rs"]),
    ("Uuid::", &["clock.rs"]),
    // The secret of a store in memory, and the error of it.
    ("getrandom::", &["clock.rs", "error.rs", "keeper.rs"]),
    ("thread::spawn", &[]),
    ("thread::Builder", &[]),
    ("thread::{Builder", &["threads.rs"]),
    ("thread::scope", &[]),
    ("spawn_blocking", &[]),
    ("runtime::Builder", &["threads.rs"]),
    ("Runtime::new", &[]),
];

#[test]
fn the_engine_takes_time_ids_and_threads_from_one_place() {
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let problems = authz_floors::find_calls(&native.join("lane/src"), LANE_CALLS).unwrap();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn imports_of_the_cases_run_down() {
    assert_floors("cases", CASES, &[]);
}

#[test]
fn no_type_name_means_two_things() {
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let crates = ["base", "bundle", "kernel", "token", "state", "lane", "cases", "python", "fuzz"];
    let sources: Vec<_> = crates.iter().map(|name| native.join(name).join("src")).collect();
    let repeated = authz_floors::find_repeated_types(&sources).unwrap();
    assert!(repeated.is_empty(), "{}", repeated.join("\n"));
}
