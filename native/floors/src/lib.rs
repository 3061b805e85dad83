//! The check that imports inside a crate run one way: a module imports only modules of the floors below it.
//!
//! Each crate has a test `tests/floors.rs` that lists its top-level modules, lowest first. Arrows between crates need no test:
//! Cargo refuses a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An import of a module that does not stand below the module that imports it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The importing file, relative to the source folder.
    pub file: String,
    /// The top-level module that it imports.
    pub imports: String,
}

/// Reads the imports of a crate and compares them with its floors.
///
/// Code under `#[cfg(test)]` may import any module.
///
/// `source` is the crate's `src` folder, `floors` has its top-level modules, lowest first, and `exceptions` has
/// `(file, imported module)` for each known violation. The result has one line for each other violation, each exception that
/// no longer exists, and each module without a floor.
///
/// # Errors
/// A source file cannot be read.
pub fn check(
    source: &Path,
    floors: &[&str],
    exceptions: &[(&str, &str)],
) -> io::Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut violations = BTreeSet::new();
    for path in modules(source)? {
        let file = path.strip_prefix(source).unwrap_or(&path).to_string_lossy().into_owned();
        let module = module_path(&file);
        let Some(own) = module.first() else { continue };
        let Some(floor) = floors.iter().position(|name| name == own) else {
            problems.push(format!("{file}: the module `{own}` has no floor"));
            continue;
        };
        for imports in imported_modules(&fs::read_to_string(&path)?, &module) {
            match floors.iter().position(|name| *name == imports) {
                None => problems.push(format!("{file}: imports `{imports}`, which has no floor")),
                Some(other) if other > floor => {
                    violations.insert(Violation { file: file.clone(), imports });
                }
                Some(_) => {}
            }
        }
    }
    let known: BTreeSet<Violation> = exceptions
        .iter()
        .map(|(file, imports)| Violation {
            file: (*file).to_owned(),
            imports: (*imports).to_owned(),
        })
        .collect();
    problems.extend(violations.difference(&known).map(|Violation { file, imports }| {
        format!("{file}: imports `{imports}`, which stands on a higher floor")
    }));
    problems.extend(known.difference(&violations).map(|Violation { file, imports }| {
        format!("{file}: no longer imports `{imports}`: remove the exception")
    }));
    Ok(problems)
}

/// Finds calls of the operating system outside the modules that may make them. Code under `#[cfg(test)]` may make them.
///
/// `calls` are texts of calls, each with the files, relative to the source folder, that may contain it. The result has one line
/// for each file that contains a call and may not, and for each file that may and does not.
///
/// # Errors
/// A source file cannot be read.
pub fn find_calls(source: &Path, calls: &[(&str, &[&str])]) -> io::Result<Vec<String>> {
    let mut problems = Vec::new();
    let files = rust_files(source)?;
    for (call, allowed) in calls {
        let mut callers = BTreeSet::new();
        for path in &files {
            if code_of(&fs::read_to_string(path)?).contains(call) {
                let file = path.strip_prefix(source).unwrap_or(path);
                callers.insert(file.to_string_lossy().into_owned());
            }
        }
        let allowed: BTreeSet<String> = allowed.iter().map(|file| (*file).to_owned()).collect();
        problems.extend(callers.difference(&allowed).map(|file| format!("{file}: `{call}`")));
        problems.extend(
            allowed.difference(&callers).map(|file| format!("{file}: no longer has `{call}`")),
        );
    }
    Ok(problems)
}

/// Finds types that several files of the given `src` folders declare under one name, each with these files.
///
/// Only types at the top level of a file count. Files below a folder `proto` are generated and are skipped.
///
/// # Errors
/// A source file cannot be read.
pub fn find_repeated_types(sources: &[PathBuf]) -> io::Result<Vec<String>> {
    let mut declared: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        for path in rust_files(source)? {
            if path.components().any(|part| part.as_os_str() == "proto") {
                continue;
            }
            for name in declared_types(&fs::read_to_string(&path)?) {
                declared.entry(name).or_default().insert(path.to_string_lossy().into_owned());
            }
        }
    }
    declared.retain(|_, files| files.len() > 1);
    Ok(declared.into_iter().map(|(name, files)| format!("{name}: {files:?}")).collect())
}

/// The names of the types at the top level of a formatted file. A line of a Cedar schema (`type Name = {`) is not a type.
fn declared_types(text: &str) -> Vec<String> {
    let code = code_of(text);
    code.lines()
        .filter(|line| !line.ends_with("};") || !line.contains("= {"))
        .filter_map(|line| {
            let item = match line.strip_prefix("pub") {
                Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
                Some(rest) => rest.trim_start(),
                None => line,
            };
            let kinds = ["struct ", "enum ", "trait ", "type "];
            let name = kinds.iter().find_map(|kind| item.strip_prefix(kind))?;
            Some(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        })
        .collect()
}

/// The files of the modules below the root of a crate. The root itself stands on no floor.
fn modules(source: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = rust_files(source)?;
    files.retain(|path| *path != source.join("lib.rs"));
    Ok(files)
}

/// All Rust files of a folder but those of unit tests, sorted.
fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The path of the module that a file holds: `history/mod.rs` is `[history]`.
fn module_path(file: &str) -> Vec<String> {
    let mut parts: Vec<String> =
        file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The top-level modules other than its own that a file names by `crate::…`, or by `super::…` that leads to the crate's root.
fn imported_modules(text: &str, module: &[String]) -> BTreeSet<String> {
    let code = code_of(text);
    let mut found = BTreeSet::new();
    let root = vec!["super"; module.len()].join("::");
    for prefix in ["crate", root.as_str()] {
        for (at, _) in code.match_indices(&format!("{prefix}::")) {
            let before = code.get(..at).and_then(|text| text.chars().next_back());
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            let rest = code.get(at + prefix.len() + "::".len()..).unwrap_or_default();
            // In a module inside the file, `super::*` is the file itself; `crate::*` would name every module, and is reported.
            let is_file = prefix != "crate" && rest.starts_with('*');
            found.extend(first_names(rest).into_iter().filter(|_| !is_file));
        }
    }
    found.remove("super");
    found.retain(|name| module.first() != Some(name));
    found
}

/// The first segment of a path, or of each path of a group `{a::b, c}`.
fn first_names(rest: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let name_of = |text: &str| text.trim_start().chars().take_while(|c| is_name(*c)).collect();
    let Some(group) = rest.strip_prefix('{') else { return vec![name_of(rest)] };
    let mut names = Vec::new();
    let (mut depth, mut begins) = (0_u32, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && is_name(c) => {
                names.push(name_of(group.get(at..).unwrap_or_default()));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// A formatted file without comments and without its modules under `#[cfg(test)]`.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            let item = lines.by_ref().find(|line| !line.starts_with("#[")).unwrap_or_default();
            if item.starts_with("mod ") && item.ends_with('{') {
                lines.by_ref().find(|line| *line == "}");
            }
            continue;
        }
        code.push_str(line.split("//").next().unwrap_or(line));
        code.push('\n');
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, module: &[&str]) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|one| (*one).to_owned()).collect();
        imported_modules(text, &module).into_iter().collect()
    }

    #[test]
    fn each_form_of_a_declaration_is_seen() {
        let text = "pub struct A<T>(T);\nenum B {\n}\npub(crate) trait C {}\npub(super) type D = A<B>;\n// struct E;\n\
                    type F = { a: Long };\n    struct G;\nfn struct_of() {}\n";
        assert_eq!(vec!["A", "B", "C", "D"], declared_types(text));
    }

    #[test]
    fn each_form_of_an_import_is_seen() {
        let text = "use crate::a::B;\nuse crate::{b, c::{D, E}, f as g};\nfn h() { crate::i::j() }\n\
                    // use crate::comment;\n#[cfg(test)]\n#[expect(dead_code)]\nmod tests {\n    use crate::test;\n}\n\
                    fn k() -> crate::l::M {}";
        assert_eq!(
            ["a", "b", "c", "f", "i", "l"].map(str::to_owned).to_vec(),
            names(text, &["own"])
        );
    }

    #[test]
    fn super_counts_where_it_leads_to_the_root() {
        assert_eq!(vec!["a".to_owned()], names("use super::a::B;", &["own"]));
        assert!(names("use super::a::B;", &["own", "inner"]).is_empty());
        assert_eq!(vec!["a".to_owned()], names("use super::super::a;", &["own", "inner"]));
        assert!(names("use crate::own::other;", &["own", "inner"]).is_empty());
        assert!(names("mod inner {\n    use super::*;\n}", &["own"]).is_empty());
        assert_eq!(vec![String::new()], names("use crate::*;", &["own"]));
    }

    #[test]
    fn the_root_of_a_folder_is_its_module() {
        assert_eq!(vec!["history".to_owned()], module_path("history/mod.rs"));
        assert_eq!(vec!["mcp".to_owned(), "headers".to_owned()], module_path("mcp/headers.rs"));
    }
}
