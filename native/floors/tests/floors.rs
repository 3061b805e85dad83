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
    "arguments",
    "catalog",
    "model",
    "destinations",
    "prompt",
    "directories",
    "mcp",
    "routes",
    "members",
    "mode",
    "source",
];

/// Imports in the bundle that run up today, most of them because the model holds compiled look-up tables.
const BUNDLE_EXCEPTIONS: &[(&str, &str)] = &[
    ("catalog.rs", "mcp"),
    ("catalog.rs", "model"),
    ("catalog.rs", "source"),
    ("destinations.rs", "directories"),
    ("mcp.rs", "routes"),
    ("mcp/headers.rs", "routes"),
    ("model.rs", "destinations"),
    ("model.rs", "directories"),
    ("model.rs", "mcp"),
    ("model.rs", "members"),
    ("model.rs", "mode"),
    ("model.rs", "routes"),
    ("routes/compile.rs", "source"),
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
    "arguments",
    "catalog",
    "destinations",
    "diagnostic",
    "mcp",
    "members",
    "mode",
    "model",
    "routes",
    "decision",
    "schema",
    "stack",
    "evaluate",
    "policy",
    "directories",
    "history",
    "reach",
    "format",
    "plan",
    "task",
    "decide",
    "source",
    "test_support",
    "casefile",
];

/// Imports in the kernel that run up today. Whoever removes such an import removes its line; no line is added.
const KERNEL_EXCEPTIONS: &[(&str, &str)] = &[
    ("directories.rs", "plan"),
    ("history/renewal.rs", "plan"),
    ("reach.rs", "plan"),
    ("source/fuzz.rs", "casefile"),
    ("source/mod.rs", "casefile"),
    ("task/start.rs", "decide"),
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
    assert_floors("bundle", BUNDLE, BUNDLE_EXCEPTIONS);
}

#[test]
fn imports_of_the_kernel_run_down() {
    assert_floors("kernel", KERNEL, KERNEL_EXCEPTIONS);
}
