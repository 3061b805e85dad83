//! The clause list: each MUST that is claimed has a test that exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// One MUST or MUST NOT of a standard.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clause {
    id: String,
    source: String,
    text: String,
    /// `tests::<file>::<function>`, or `src::<file>::tests::<function>` for one beside the code.
    test: String,
}

fn clauses() -> Vec<Clause> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clauses.yaml");
    serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// The file and function that a test's name stands for.
fn place(test: &str) -> Option<(PathBuf, String)> {
    let (folder, rest) = test.split_once("::")?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (module, function) = rest.rsplit_once("::")?;
    let (folder, module) = match folder {
        "tests" => (root.join("tests/suite"), module),
        "src" => (root.join("src"), module.strip_suffix("::tests")?),
        _ => return None,
    };
    Some((folder.join(format!("{module}.rs")), function.to_owned()))
}

/// Whether the source has a test function of that name.
fn has_test(source: &str, function: &str) -> bool {
    let mut attribute = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            attribute = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if attribute && rest.strip_prefix(function).is_some_and(|rest| rest.starts_with('(')) {
                return true;
            }
            attribute = false;
        }
    }
    false
}

/// Each clause is complete, has an id of its own, and names a test that exists.
#[test]
fn each_clause_has_a_test_that_exists() {
    let clauses = clauses();
    assert!(clauses.len() >= 60, "{}", clauses.len());
    let mut ids = BTreeSet::new();
    for clause in &clauses {
        let Clause { id, source, text, test } = clause;
        assert!(ids.insert(id), "{id} stands twice");
        assert!(!source.is_empty() && !text.is_empty(), "{id}");
        let (file, function) = place(test).unwrap_or_else(|| (PathBuf::new(), test.clone()));
        let code = fs::read_to_string(&file).unwrap_or_default();
        assert!(has_test(&code, &function), "{id}: there is no test `{test}`");
    }
}

/// The check itself finds what is missing.
#[test]
fn a_missing_test_is_found() {
    let code = "#[test]\nfn here() {}\nfn helper() {}\n";
    assert!(has_test(code, "here"));
    assert!(!has_test(code, "her"));
    assert!(!has_test(code, "helper"));
    assert!(!has_test(code, "gone"));
    assert!(place("elsewhere::x::y").is_none());
}
