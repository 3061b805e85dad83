//! Reads a bundle's files into a [`Model`]: what each file may say, and what is wrong with it.

mod budget;
mod build;
mod classify;
mod denials;
mod directory;
mod ids;
mod mcp;
mod mode;
mod sequence;
mod template;
mod types;
mod vars;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authz_base::hex::hex_start;
use authz_base::time::Time;
use sha2::{Digest, Sha256};

use crate::diagnostic::{Diagnostic, Diagnostics, clip};
use crate::model::{Location, Model, PolicyFile};

pub use build::duration;
pub(crate) use build::{properties, required};
pub(crate) use classify::deref;
pub(crate) use ids::{refuse_operation, refuse_system};
pub use yaml::{At, Many, Mark, read as read_yaml};

/// Files of a bundle.
const MOST_FILES: usize = 10_000;
/// Bytes of one file.
const LARGEST_FILE: usize = 4 << 20;
/// Bytes of all files.
const LARGEST_BUNDLE: usize = 64 << 20;
/// Bytes of a path.
const LONGEST_PATH: usize = 512;

/// Reads a test file of a bundle, given as path, bytes and `vars`; only the crate that runs such tests knows their form.
pub type ReadTest = fn(&str, &[u8], &BTreeMap<String, String>) -> Result<(), Diagnostic>;

/// Reads a bundle, given as its files: path relative to the bundle folder, `/`-separated, to bytes.
///
/// `vars` fill `${name}` in the texts of YAML files and in Cedar files; the digest is over the files as they stand.
///
/// # Errors
/// Everything that is wrong, with file, line and how to mend it. Warnings of a good bundle are in the model.
pub fn load(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
    read_test: ReadTest,
) -> Result<Model, Diagnostics> {
    read(files, vars, None, read_test, &mut || ())
}

fn read(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
    previous: Option<&Model>,
    read_test: ReadTest,
    rest: &mut (dyn FnMut() + Send),
) -> Result<Model, Diagnostics> {
    let mut found = Diagnostics::new();
    bounds(files, &mut found);
    for (name, value) in vars {
        if let Some(why) = vars::refuse(name, value) {
            let what = format!("variable `{}`: {why}", clip(name));
            found.error(&whole("vars"), what, "Change it under `vars` in the configuration.");
        }
    }
    if found.has_errors() {
        return Err(found);
    }

    let facts = files.iter().filter(|(path, _)| !is_policy(path));
    let facts_digest = digest(facts.inspect(|_| rest()));
    if let Some(known) =
        previous.filter(|one| one.facts_digest == facts_digest && one.vars == *vars)
    {
        return with_policies(files, known, rest, found);
    }
    let digest = digest(files.iter().inspect(|_| rest()));
    let mut model = Model { digest, facts_digest, vars: vars.clone(), ..Model::default() };
    let mut facts = Vec::new();
    let mut catalogs = Vec::new();
    let mut manifest = None;
    for (path, bytes) in files {
        rest();
        match FileKind::of(path) {
            FileKind::Manifest => match yaml::read(path, bytes, vars) {
                Ok(read) => manifest = Some(read),
                Err(error) => found.push(error),
            },
            FileKind::Facts => match yaml::read::<Option<types::Facts>>(path, bytes, vars) {
                Ok(Some(read)) => facts.push((path.as_str(), read)),
                Ok(None) => {
                    found.error(&whole(path), "the file says nothing", "Fill it, or remove it.")
                }
                Err(error) => found.push(error),
            },
            // A server's own words may hold `${…}`, which is then none of ours.
            FileKind::Catalog => match yaml::read_plain::<Option<mcp::McpFile>>(path, bytes) {
                Ok(Some(read)) => catalogs.push((path.as_str(), read)),
                Ok(None) => {
                    found.error(&whole(path), "the file says nothing", "Import it again.");
                }
                Err(error) => found.push(error),
            },
            FileKind::Policy => policy(path, bytes, vars, None, &mut model, &mut found),
            FileKind::Test => {
                model.tests.insert(path.clone(), bytes.clone());
                if let Err(error) = read_test(path, bytes, vars) {
                    found.push(error);
                }
            }
            FileKind::Apart => {}
            FileKind::Unknown(mend) => {
                found.error(&whole(path), "a bundle holds no files of this kind", mend);
            }
        }
    }
    let mut pending = build::Pending::default();
    match manifest {
        Some(manifest) => pending = build::manifest(manifest, &mut model, &mut found),
        None if files.contains_key("bundle.yaml") => {}
        None => found.error(
            &whole("bundle.yaml"),
            "the bundle has no bundle.yaml",
            "Add one that says `name: <name>`.",
        ),
    }
    // What follows would only repeat the same faults: a file that could not be read declares nothing.
    if found.has_errors() {
        return Err(found);
    }
    build::facts(facts, catalogs, pending, files, &mut model, &mut found);
    if found.has_errors() {
        return Err(found);
    }
    model.build_index();
    model.warnings = found.iter().cloned().collect();
    model.read_warnings = model.warnings.len();
    Ok(model)
}

/// The same facts with other policies.
fn with_policies(
    files: &BTreeMap<String, Vec<u8>>,
    known: &Model,
    rest: &mut (dyn FnMut() + Send),
    mut found: Diagnostics,
) -> Result<Model, Diagnostics> {
    let digest = digest(files.iter().inspect(|_| rest()));
    let mut model = Model { digest, policies: Vec::new(), ..known.clone() };
    let mut before = known.policies.iter().peekable();
    model.warnings.truncate(known.read_warnings);
    // No bundle can say the digest that it has itself.
    if known.revision == revision_of(&known.digest) {
        model.revision = revision_of(&model.digest);
    }
    for (path, bytes) in files.iter().filter(|(path, _)| is_policy(path)) {
        rest();
        // Both are in the order of their paths.
        while before.next_if(|file| file.file < *path).is_some() {}
        let before = before.next_if(|file| file.file == *path);
        policy(path, bytes, &known.vars, before, &mut model, &mut found);
    }
    found.finish(model)
}

/// As [`load`], and holds the ends of `mode` against the time of loading.
///
/// Args:
/// * `previous`: what was read before; where nothing but policies is different, nothing else is read again.
///
/// # Errors
/// As [`load`]; also where an entry observes for longer than it may.
pub fn load_at(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
    now: Time,
    previous: Option<&Model>,
    read_test: ReadTest,
) -> Result<Model, Diagnostics> {
    load_beside(files, vars, now, previous, read_test, &mut || ())
}

/// As [`load_at`], while something else goes on that must not wait.
///
/// Args:
/// * `rest`: called again and again; it may wait.
///
/// # Errors
/// As [`load_at`].
pub fn load_beside(
    files: &BTreeMap<String, Vec<u8>>,
    vars: &BTreeMap<String, String>,
    now: Time,
    previous: Option<&Model>,
    read_test: ReadTest,
    rest: &mut (dyn FnMut() + Send),
) -> Result<Model, Diagnostics> {
    let mut model = read(files, vars, previous, read_test, rest)?;
    let mut found = Diagnostics::new();
    crate::mode::check(&model.modes, now, &mut found);
    if found.has_errors() {
        return Err(found);
    }
    model.warnings.extend(found.iter().cloned());
    Ok(model)
}

/// JSON Schema (draft 2020-12) of a bundle's YAML files, `bundle.yaml` included.
#[must_use]
pub fn bundle_schema() -> String {
    pretty(&schemars::schema_for!(types::AnyFile))
}

/// A schema as JSON text; never fails, since a schema holds nothing but JSON.
#[must_use]
pub fn pretty(schema: &schemars::Schema) -> String {
    serde_json::to_string_pretty(schema).unwrap_or_default()
}

/// A file as a whole.
pub(crate) fn whole(file: &str) -> Location {
    Location { file: file.to_owned(), line: 0, column: 0 }
}

enum FileKind {
    Manifest,
    Facts,
    Catalog,
    Policy,
    Test,
    /// Data and texts for people: part of the digest, not read here.
    Apart,
    Unknown(&'static str),
}

impl FileKind {
    fn of(path: &str) -> Self {
        let folder = path.split_once('/').map_or("", |(folder, _)| folder);
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
        match (folder, extension) {
            _ if path == "bundle.yaml" => Self::Manifest,
            ("data", _) | (_, "md") => Self::Apart,
            ("policies", "cedar") => Self::Policy,
            (_, "cedar") => Self::Unknown("Move it under policies/."),
            ("tests", "yaml") => Self::Test,
            ("policies", _) => Self::Unknown("policies/ holds *.cedar only."),
            (_, "yml") => Self::Unknown("Rename it to *.yaml."),
            (_, "yaml") if mcp::is_catalog(path) => Self::Catalog,
            (_, "yaml") => Self::Facts,
            _ => Self::Unknown(
                "It may hold bundle.yaml, policies/**/*.cedar, tests/**/*.yaml, other *.yaml, *.md, and anything \
                 under data/.",
            ),
        }
    }
}

/// Names of the variables that a bundle's files use, comments included; what MCP servers say is never filled in.
#[must_use]
pub fn variables<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, bytes) in files.filter(|(path, _)| !mcp::is_catalog(path)) {
        let text = String::from_utf8_lossy(bytes);
        names.extend(vars::names(&text).into_iter().map(str::to_owned));
    }
    names
}

fn bounds(files: &BTreeMap<String, Vec<u8>>, found: &mut Diagnostics) {
    if files.len() > MOST_FILES {
        let what = format!("the bundle has more than {MOST_FILES} files");
        found.error(&whole("bundle.yaml"), what, "Join some of them.");
    }
    if files.values().map(Vec::len).sum::<usize>() > LARGEST_BUNDLE {
        let what = format!("the bundle is larger than {} MiB", LARGEST_BUNDLE >> 20);
        found.error(&whole("bundle.yaml"), what, "Move data out of it.");
    }
    for (path, bytes) in files.iter().take(MOST_FILES) {
        if bytes.len() > LARGEST_FILE {
            let what = format!("the file is larger than {} MiB", LARGEST_FILE >> 20);
            found.error(&whole(clip(path)), what, "Split it.");
        }
        let segment = |s: &str| !s.is_empty() && s != "." && s != "..";
        let odd = |c: char| c.is_control() || c == '\\';
        if path.len() > LONGEST_PATH || path.contains(odd) || !path.split('/').all(segment) {
            found.error(
                &whole(clip(path)),
                "not a plain path within the bundle",
                "Rename the file.",
            );
        }
    }
}

fn is_policy(path: &str) -> bool {
    matches!(FileKind::of(path), FileKind::Policy)
}

/// The revision of a bundle that says none.
fn revision_of(digest: &[u8; 32]) -> String {
    hex_start(digest, 6)
}

/// SHA-256 over files in the order of their paths; lengths in front, so that no two bundles share a text.
fn digest<'a>(files: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"authz bundle 1\0");
    for (path, bytes) in files {
        for part in [path.as_bytes(), bytes] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

/// Args: `before`: the file as it was; a text that is still the same is shared.
fn policy(
    path: &str,
    bytes: &[u8],
    vars: &BTreeMap<String, String>,
    before: Option<&PolicyFile>,
    model: &mut Model,
    found: &mut Diagnostics,
) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return found.error(&whole(path), "not UTF-8", "Save the file as UTF-8.");
    };
    match vars::fill(text, vars) {
        Ok(text) => {
            let same = before.filter(|before| *before.text == *text);
            let text = same.map_or_else(|| Arc::from(text), |same| Arc::clone(&same.text));
            model.policies.push(PolicyFile { file: path.to_owned(), text });
        }
        Err(error) => {
            let before = text.get(..error.offset).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let number = |n: usize| u32::try_from(n).unwrap_or(0);
            let mark = Mark { line: number(line), column: number(column) };
            found.error(&mark.within(path), error.what, error.mend);
        }
    }
}

#[cfg(test)]
mod tests;
