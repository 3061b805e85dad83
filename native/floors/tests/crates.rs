//! Crates compile no more than they need.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

/// Names of all crates that a crate of the workspace links, itself included.
fn linked_by(name: &str) -> Vec<String> {
    tree(&["--package", name])
}

/// Names of the crates that a crate of the workspace names in its own `Cargo.toml`, itself included.
fn named_by(name: &str) -> Vec<String> {
    tree(&["--package", name, "--depth", "1"])
}

fn tree(options: &[&str]) -> Vec<String> {
    let native = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}"])
        .args(options)
        .current_dir(native)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

/// Fails where a crate links another one whose name begins so.
fn assert_links_none(name: &str, unwanted: &[&str]) {
    let linked = linked_by(name);
    assert!(linked.iter().any(|one| one == "authz-base"), "{name} links {linked:?}");
    for one in linked {
        if let Some(start) = unwanted.iter().find(|start| one.starts_with(**start)) {
            panic!("{name} links {one}: no crate `{start}…` belongs there");
        }
    }
}

/// Only the kernel and what stands above it compile Cedar.
#[test]
fn only_the_kernel_compiles_cedar() {
    for name in ["authz-base", "authz-token", "authz-state", "authz-bundle"] {
        assert_links_none(name, &["cedar-", "authz-kernel"]);
    }
    assert!(linked_by("authz-kernel").iter().any(|one| one == "cedar-policy-core"));
}

/// YAML and the checker of JSON Schema are the bundle's.
#[test]
fn only_the_bundle_reads_files_of_a_bundle() {
    for name in ["authz-kernel", "authz-lane", "authz-cases", "authz-python"] {
        for one in named_by(name) {
            let is_of_bundle = ["serde-saphyr", "jsonschema"].contains(&one.as_str());
            assert!(!is_of_bundle, "{name} names {one} in its Cargo.toml");
        }
    }
    assert!(named_by("authz-bundle").iter().any(|one| one == "serde-saphyr"));
}

/// The simulator is a test: nothing that is served links it.
#[test]
fn nothing_links_the_simulator() {
    assert_links_none("authz-python", &["authz-simulator"]);
}
