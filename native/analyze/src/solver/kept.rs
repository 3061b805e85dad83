//! Answers of earlier runs, one file an answer.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Answer, Model};

/// Version of the files' form and of the questions' meaning.
const FORM: &str = "1 cedar-policy-symcc 0.8.1";

/// Folder of answers.
#[derive(Clone, Debug)]
pub struct KeptAnswers {
    folder: PathBuf,
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
        Self { folder }
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
        let bytes = fs::read(self.path(solver, digest)).ok()?;
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
}
