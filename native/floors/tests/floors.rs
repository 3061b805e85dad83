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

/// The kernel's modules, lowest first. The first line has those of `authz-base`, which the kernel exports under its own name.
const KERNEL: &[&str] = &[
    "reason",
    "rfc3339",
    "table",
    "pattern",
    "hex",
    "digest",
    "json",
    "host",
    "spelling",
    "spiffe",
    "diagnostic",
    "arguments",
    "mcp",
    "model",
    "decision",
    "schema",
    "stack",
    "destinations",
    "evaluate",
    "policy",
    "directories",
    "history",
    "members",
    "mode",
    "routes",
    "reach",
    "format",
    "plan",
    "task",
    "decide",
    "catalog",
    "source",
    "test_support",
    "casefile",
];

/// Imports in the kernel that run up today. Whoever removes such an import removes its line; no line is added.
const KERNEL_EXCEPTIONS: &[(&str, &str)] = &[
    ("catalog.rs", "source"),
    ("decision.rs", "directories"),
    ("decision.rs", "history"),
    ("decision.rs", "task"),
    ("destinations.rs", "directories"),
    ("diagnostic.rs", "model"),
    ("directories.rs", "plan"),
    ("evaluate/mod.rs", "history"),
    ("evaluate/mod.rs", "task"),
    ("history/renewal.rs", "plan"),
    ("mcp.rs", "catalog"),
    ("mcp.rs", "routes"),
    ("mcp/headers.rs", "routes"),
    ("members.rs", "task"),
    ("model.rs", "catalog"),
    ("model.rs", "destinations"),
    ("model.rs", "directories"),
    ("model.rs", "history"),
    ("model.rs", "members"),
    ("model.rs", "mode"),
    ("model.rs", "routes"),
    ("plan.rs", "task"),
    ("reach.rs", "plan"),
    ("routes/compile.rs", "source"),
    ("schema.rs", "task"),
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
fn imports_of_the_kernel_run_down() {
    assert_floors("kernel", KERNEL, KERNEL_EXCEPTIONS);
}
