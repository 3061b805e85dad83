//! Answers of earlier runs, one file an answer.

use std::fs::{self, DirEntry, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Answer, Model};

/// Version of the files' form and of the questions' meaning.
const FORM: &str = "1 cedar-policy-symcc 0.8.1";

/// Most bytes of a folder: some 65,000 answers, which are twenty runs over 500 operations that share none.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// A file takes whole blocks of this size on most file systems. Most answers are far shorter.
const BLOCK_BYTES: u64 = 4_096;

/// Folder of answers.
#[derive(Clone, Debug)]
pub struct KeptAnswers {
    folder: PathBuf,
    max_bytes: u64,
}

/// File of the folder.
#[derive(Debug)]
struct KeptFile {
    path: PathBuf,
    bytes: u64,
    used_at: SystemTime,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "answer")]
enum KeptAnswer {
    Unsatisfiable,
    Satisfiable { model: Model },
}

impl KeptAnswers {
    /// Args: `folder`: made with the first answer.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder, max_bytes: MAX_BYTES }
    }

    /// Sets the size to which [`Self::trim`] reduces the folder.
    ///
    /// Args: `max_bytes`: sum of the files, each rounded up to 4 KiB. Default: 256 MiB.
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    fn path(&self, solver: &str, digest: &str) -> PathBuf {
        let name = Sha256::digest(format!("{FORM}\n{solver}\n{digest}"));
        let name = authz_kernel::hex::hex(&name);
        let (start, _) = name.split_at_checked(2).unwrap_or(("", ""));
        self.folder.join(start).join(format!("{name}.json"))
    }

    /// The answer to a question; `None` where there is none, or where its file cannot be read.
    #[must_use]
    pub fn read(&self, solver: &str, digest: &str) -> Option<Answer> {
        let mut file = File::open(self.path(solver, digest)).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        // The time of the last use, for `trim`. A folder that is only read keeps the time of writing.
        drop(file.set_modified(SystemTime::now()));
        Some(match serde_json::from_slice(&bytes).ok()? {
            KeptAnswer::Unsatisfiable => Answer::Unsatisfiable,
            KeptAnswer::Satisfiable { model } => Answer::Satisfiable(Box::new(model)),
        })
    }

    /// Keeps a definite answer. An answer that cannot be written is asked for again in the next run.
    pub fn write(&self, solver: &str, digest: &str, answer: &Answer) {
        let kept = match answer {
            Answer::Unsatisfiable => KeptAnswer::Unsatisfiable,
            Answer::Satisfiable(model) => KeptAnswer::Satisfiable { model: (**model).clone() },
            // Another run may have more time, or a solver that does not fail.
            Answer::Unknown(_) => return,
        };
        let path = self.path(solver, digest);
        let Ok(text) = serde_json::to_vec(&kept) else { return };
        // Written whole or not at all: a half-written answer would be read as another one.
        let part = path.with_extension(format!("{}.part", std::process::id()));
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&part, text))
            .and_then(|()| fs::rename(&part, &path));
        if written.is_err() {
            drop(fs::remove_file(&part));
        }
    }

    /// Deletes answers until the folder has its size, those first that were not used for the longest time.
    ///
    /// Only files with the names that this type writes are counted and deleted: somebody may name a folder that has other files.
    /// A file that cannot be deleted stays.
    pub fn trim(&self) {
        let mut files = self.files();
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        files.sort_by_key(|file| file.used_at);
        for file in files {
            if bytes <= self.max_bytes {
                return;
            }
            if fs::remove_file(&file.path).is_ok() {
                bytes = bytes.saturating_sub(file.bytes);
            }
        }
    }

    fn files(&self) -> Vec<KeptFile> {
        let is_start = |entry: &DirEntry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| is_hex(name, 2))
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
        };
        let starts = entries(&self.folder).filter(is_start);
        starts.flat_map(|start| entries(&start.path())).filter_map(|entry| kept(&entry)).collect()
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

/// The file of an answer, or one that a run left behind when it was killed while it wrote.
fn kept(entry: &DirEntry) -> Option<KeptFile> {
    let name = entry.file_name();
    let (digest, end) = name.to_str()?.split_once('.')?;
    let is_own = is_hex(digest, 64) && (end == "json" || end.ends_with(".part"));
    let metadata = entry.metadata().ok().filter(|file| is_own && file.is_file())?;
    Some(KeptFile {
        path: entry.path(),
        bytes: metadata.len().div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES),
        used_at: metadata.modified().ok()?,
    })
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
