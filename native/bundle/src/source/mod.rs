//! Reads a bundle's files into a [`Bundle`]: the keys of each file, and their defects.

mod analysis;
mod approvals;
mod budget;
mod build;
mod classify;
mod denials;
mod exception;
mod mcp;
mod mode;
mod origins;
mod recipient_list;
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

use crate::bundle::Bundle;
use crate::diagnostic::{Diagnostic, Diagnostics, clip};
use crate::model::{Location, Model, PolicyFile};
use crate::pause::Pause;

pub use build::duration;
pub use yaml::{At, Many, Mark, read as read_yaml};

/// Files of a bundle.
const MOST_FILES: usize = 10_000;
/// Bytes of one file.
const LARGEST_FILE: usize = 4 << 20;
/// Bytes of all files.
const LARGEST_BUNDLE: usize = 64 << 20;
/// Bytes of a path.
const LONGEST_PATH: usize = 512;
/// The file that has name and settings of the bundle, and nothing else.
const MANIFEST: &str = "bundle.yaml";
/// The one policy file that may stand beside the YAML files.
const POLICY: &str = "policy.cedar";

/// A reader of the test files of a bundle: path, bytes and `vars`. Only the crate that runs such tests knows their form.
pub type ReadTest = fn(&str, &[u8], &BTreeMap<String, String>) -> Result<(), Diagnostic>;

/// A reader of the files of a bundle.
///
/// ```ignore
/// let bundle = BundleReader::new(&files, &vars, read_test).at(now).after(serving.bundle()).read()?;
/// ```
#[derive(Debug)]
pub struct BundleReader<'a> {
    files: &'a BTreeMap<String, Vec<u8>>,
    vars: &'a BTreeMap<String, String>,
    read_test: ReadTest,
    now: Option<Time>,
    previous: Option<&'a Bundle>,
    pause: Pause<'a>,
}

impl<'a> BundleReader<'a> {
    /// A reader of files: path relative to the bundle folder, `/`-separated, to bytes.
    ///
    /// `vars` fill `${name}` in the texts of YAML files and in Cedar files. The digest is over the files as they are.
    pub fn new(
        files: &'a BTreeMap<String, Vec<u8>>,
        vars: &'a BTreeMap<String, String>,
        read_test: ReadTest,
    ) -> Self {
        Self { files, vars, read_test, now: None, previous: None, pause: Pause::default() }
    }

    /// Checks the ends of the rules of `mode` at the time of loading. Default: they are not checked.
    #[must_use]
    pub const fn at(mut self, now: Time) -> Self {
        self.now = Some(now);
        self
    }

    /// Reuses a bundle that was read before: if only policies differ, no other file is read again.
    #[must_use]
    pub const fn after(mut self, previous: Option<&'a Bundle>) -> Self {
        self.previous = previous;
        self
    }

    /// Makes a callback between pieces of work.
    #[must_use]
    pub fn pausing(mut self, callback: &'a mut (dyn FnMut() + Send)) -> Self {
        self.pause = Pause::by(callback);
        self
    }

    /// Reads the bundle.
    ///
    /// # Errors
    /// All defects, with file, line and fix. Warnings of a good bundle are in its model.
    pub fn read(mut self) -> Result<Bundle, Diagnostics> {
        let mut found = Diagnostics::new();
        bounds(self.files, &mut found);
        check_vars(self.vars, &mut found);
        if found.has_errors() {
            return Err(found);
        }
        let facts = contents(self.files).filter(|(path, _)| !is_policy(path));
        let facts_digest = digest(facts, &mut self.pause);
        let is_same = |bundle: &&Bundle| {
            let model = bundle.model();
            model.facts_digest == facts_digest && model.vars == *self.vars
        };
        let mut bundle = match self.previous.filter(is_same) {
            Some(previous) => self.read_policies(previous, found)?,
            None => self.read_all(facts_digest, found)?,
        };
        if let Some(now) = self.now {
            let mut found = Diagnostics::new();
            crate::mode::check(&bundle.model().modes, now, &mut found);
            crate::exceptions::check(bundle.model(), now, &mut found);
            if found.has_errors() {
                return Err(found);
            }
            bundle.add_warnings(found.iter().cloned());
        }
        Ok(bundle)
    }

    /// Reads all files.
    fn read_all(
        &mut self,
        facts_digest: [u8; 32],
        mut found: Diagnostics,
    ) -> Result<Bundle, Diagnostics> {
        let digest = digest(contents(self.files), &mut self.pause);
        let mut model = Model { digest, facts_digest, vars: self.vars.clone(), ..Model::default() };
        let mut texts = self.read_files(&mut model, &mut found);
        let mut deferred = build::DeferredKeys::default();
        match manifest(&mut texts, &mut found) {
            Some((file, said)) => {
                deferred = build::manifest(&file, said, &mut model, &mut found);
            }
            // A file that could not be read may have the settings.
            None if found.has_errors() => {}
            None => found.error(
                &whole("bundle.yaml"),
                "the bundle has no bundle.yaml",
                "Add one that says `name: <name>`.",
            ),
        }
        // A file that could not be read declares no names, so the next steps would report false errors.
        if found.has_errors() {
            return Err(found);
        }
        let recipient_lists = build::BundleFacts {
            files: texts.facts,
            catalogs: texts.catalogs,
            deferred,
            all: self.files,
        }
        .build(&mut model, &mut found);
        let mut bundle = Bundle::compile(model, recipient_lists, &mut found);
        if found.has_errors() {
            return Err(found);
        }
        bundle.set_read_warnings(&found);
        Ok(bundle)
    }

    /// Reads each file by its kind. Policies and tests go to the model.
    fn read_files(&mut self, model: &mut Model, found: &mut Diagnostics) -> FileTexts<'a> {
        let mut texts = FileTexts::default();
        for (path, bytes) in self.files {
            self.pause.rest();
            match FileKind::of(path) {
                FileKind::Manifest => match yaml::read(path, bytes, self.vars) {
                    Ok(read) => texts.manifest = Some(read),
                    Err(error) => found.push(error),
                },
                FileKind::Facts => {
                    match yaml::read::<Option<types::FactsFile>>(path, bytes, self.vars) {
                        Ok(Some(read)) => texts.facts.push((path.as_str(), read)),
                        Ok(None) => found.error(
                            &whole(path),
                            "the file says nothing",
                            "Fill it, or remove it.",
                        ),
                        Err(error) => found.push(error),
                    }
                }
                // A server's own texts may hold `${…}`, which is not a variable of the bundle.
                FileKind::Catalog => match yaml::read_plain::<Option<mcp::McpFile>>(path, bytes) {
                    Ok(Some(read)) => texts.catalogs.push((path.as_str(), read)),
                    Ok(None) => {
                        found.error(&whole(path), "the file says nothing", "Import it again.");
                    }
                    Err(error) => found.push(error),
                },
                FileKind::Policy => {
                    model.policies.extend(policy(path, bytes, self.vars, None, found));
                }
                FileKind::Test => {
                    model.tests.insert(path.clone(), bytes.clone());
                    if let Err(error) = (self.read_test)(path, bytes, self.vars) {
                        found.push(error);
                    }
                }
                FileKind::Apart => {}
                FileKind::Unknown(fix) => {
                    found.error(&whole(path), "a bundle holds no files of this kind", fix);
                }
            }
        }
        texts
    }

    /// Reads only the policies, and takes over all other files of a bundle that was read before.
    fn read_policies(
        &mut self,
        previous: &Bundle,
        mut found: Diagnostics,
    ) -> Result<Bundle, Diagnostics> {
        let digest = digest(contents(self.files), &mut self.pause);
        let known = previous.model();
        // A bundle cannot name its own digest, so this revision was not set in `bundle.yaml`.
        let has_own_revision = known.revision != revision_of(&known.digest);
        let revision = if has_own_revision { known.revision.clone() } else { revision_of(&digest) };
        let mut policies = Vec::new();
        let mut before = known.policies.iter().peekable();
        for (path, bytes) in self.files.iter().filter(|(path, _)| is_policy(path)) {
            self.pause.rest();
            // Both are in the order of their paths.
            while before.next_if(|file| file.file < *path).is_some() {}
            let before = before.next_if(|file| file.file == *path);
            policies.extend(policy(path, bytes, self.vars, before, &mut found));
        }
        found.finish(previous.with_policies(digest, revision, policies))
    }
}

/// Contents of the YAML files of a bundle, by kind.
#[derive(Default)]
struct FileTexts<'a> {
    manifest: Option<types::Manifest>,
    facts: Vec<(&'a str, types::FactsFile)>,
    catalogs: Vec<(&'a str, mcp::McpFile)>,
}

/// Takes name and settings of the bundle, and the file that has them: `bundle.yaml`, or the key `bundle` of another file.
fn manifest(
    texts: &mut FileTexts<'_>,
    found: &mut Diagnostics,
) -> Option<(String, types::Manifest)> {
    let mut kept = texts.manifest.take().map(|said| (whole(MANIFEST), said));
    for (file, facts) in &mut texts.facts {
        let Some(said) = facts.bundle.take() else { continue };
        let at = said.at.within(file);
        match &kept {
            None => kept = Some((at, said.value)),
            Some((first, _)) => {
                let line = if first.line == 0 { String::new() } else { format!(":{}", first.line) };
                let what =
                    format!("the bundle has its settings twice; first in {}{line}", first.file);
                found.error(&at, what, "Keep one of the two.");
            }
        }
    }
    kept.map(|(at, said)| (at.file, said))
}

fn check_vars(vars: &BTreeMap<String, String>, found: &mut Diagnostics) {
    for (name, value) in vars {
        if let Some(why) = vars::refuse(name, value) {
            let what = format!("variable `{}`: {why}", clip(name));
            found.error(&whole("vars"), what, "Change it under `vars` in the configuration.");
        }
    }
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
    /// Data, and texts for people: part of the digest, not read here.
    Apart,
    Unknown(&'static str),
}

impl FileKind {
    fn of(path: &str) -> Self {
        let folder = path.split_once('/').map_or("", |(folder, _)| folder);
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
        match (folder, extension) {
            _ if path == MANIFEST => Self::Manifest,
            _ if path == POLICY => Self::Policy,
            ("data", _) | (_, "md") => Self::Apart,
            ("policies", "cedar") => Self::Policy,
            ("", "cedar") => Self::Unknown("Call it policy.cedar, or move it under policies/."),
            (_, "cedar") => Self::Unknown("Move it under policies/."),
            ("tests", "yaml") => Self::Test,
            ("policies", _) => Self::Unknown("policies/ holds *.cedar only."),
            (_, "yml") => Self::Unknown("Rename it to *.yaml."),
            (_, "yaml") if mcp::is_catalog(path) => Self::Catalog,
            (_, "yaml") => Self::Facts,
            _ => Self::Unknown(
                "It may hold bundle.yaml, policy.cedar, policies/**/*.cedar, tests/**/*.yaml, other *.yaml, *.md, and anything \
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

/// The revision of a bundle whose `bundle.yaml` sets none.
fn revision_of(digest: &[u8; 32]) -> String {
    hex_start(digest, 6)
}

/// Digest of a bundle with these files, in the order of their paths, also if the bundle is not valid.
#[must_use]
pub fn bundle_digest<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> [u8; 32] {
    digest(files, &mut Pause::default())
}

fn contents(files: &BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = (&str, &[u8])> {
    files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
}

/// SHA-256 over files in the order of their paths. Each part has its length in front, so two bundles never hash the same text.
fn digest<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>, pause: &mut Pause<'_>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"authz bundle 1\0");
    for (path, bytes) in files {
        pause.rest();
        for part in [path.as_bytes(), bytes] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}

/// Reads a Cedar file. `None`: it has a defect, which is reported.
///
/// `before`: the same file of the previous bundle. Its text is shared if it has not changed.
fn policy(
    path: &str,
    bytes: &[u8],
    vars: &BTreeMap<String, String>,
    before: Option<&PolicyFile>,
    found: &mut Diagnostics,
) -> Option<PolicyFile> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        found.error(&whole(path), "not UTF-8", "Save the file as UTF-8.");
        return None;
    };
    match vars::fill(text, vars) {
        Ok(text) => {
            let same = before.filter(|before| *before.text == *text);
            let text = same.map_or_else(|| Arc::from(text), |same| Arc::clone(&same.text));
            Some(PolicyFile { file: path.to_owned(), text })
        }
        Err(error) => {
            let before = text.get(..error.offset).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            let number = |n: usize| u32::try_from(n).unwrap_or(0);
            let mark = Mark { line: number(line), column: number(column) };
            let at = mark.within(path);
            found.push(Diagnostic::error(&at, error.what, error.fix).with_code(error.code));
            None
        }
    }
}

#[cfg(test)]
mod tests;
