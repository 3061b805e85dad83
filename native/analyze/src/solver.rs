//! Questions about Cedar expressions, and solvers that answer them.
//!
//! A question is text alone: a schema, the types of one request, and two lists of conditions. So equal questions of different
//! operations are one question, and the answer is kept by the digest of the text.

mod kept;
mod symbolic;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use authz_kernel::hex::hex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use kept::KeptAnswers;
pub use symbolic::{SolverProgram, SymbolicSolver};

/// Relation of two lists of conditions. A condition that fails to evaluate does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Is there a request for which a condition of each list holds?
    Both,
    /// Is there a request for which a condition of the first list holds, and none of the second?
    OnlyFirst,
}

/// Schema of a bundle without its actions: long, and the same for all its questions.
#[derive(Debug)]
pub struct Prelude {
    text: String,
    digest: String,
}

impl Prelude {
    /// Args: `text`: Cedar's syntax.
    #[must_use]
    pub fn new(text: String) -> Self {
        let digest = hex(&Sha256::digest(&text));
        Self { text, digest }
    }

    /// SHA-256 of the text, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Serialize for Prelude {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.digest)
    }
}

/// A question: is there a request of these types, valid under the schema, to which the relation applies?
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    /// Schema without actions.
    pub prelude: Arc<Prelude>,
    /// Declarations of the action and its groups, in Cedar's syntax.
    pub declaration: String,
    /// Type of the principal.
    pub principal_type: String,
    /// Id of the action.
    pub action: String,
    /// Type of the resource.
    pub resource_type: String,
    /// Relation of the lists.
    pub relation: Relation,
    /// Cedar expressions.
    pub first: Vec<String>,
    /// Cedar expressions.
    pub second: Vec<String>,
}

impl Question {
    /// SHA-256 of the question's JSON form, in which the prelude is its digest.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        // Two questions must never share a digest: one would get the other's answer.
        let text = serde_json::to_vec(self).unwrap_or_else(|_| format!("{self:?}").into_bytes());
        Sha256::digest(text).into()
    }
}

/// A request that a solver found, in Cedar's JSON forms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Id of the principal; the question has its type.
    pub principal: String,
    /// Id of the resource; the question has its type.
    pub resource: String,
    /// Context.
    pub context: Value,
    /// Entities that have attributes or parents, without those of actions.
    pub entities: Value,
}

/// Answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// There is such a request.
    Satisfiable(Box<Model>),
    /// Proved: there is no such request.
    Unsatisfiable,
    /// Not decided, for this reason.
    Unknown(String),
}

/// Answers questions.
pub trait Solver: fmt::Debug + Sync {
    /// Name and version; `None`: it decides nothing.
    fn name(&self) -> Option<(String, String)>;

    /// Answers one question.
    fn ask(&self, question: &Question) -> Answer;

    /// Answers several questions, in their order.
    fn ask_all(&self, questions: &[Question]) -> Vec<Answer> {
        questions.iter().map(|question| self.ask(question)).collect()
    }
}

/// Stands in where no solver is installed: every answer is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSolver {
    reason: String,
}

impl NoSolver {
    /// Args: `reason`: why there is no solver.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl Solver for NoSolver {
    fn name(&self) -> Option<(String, String)> {
        None
    }

    fn ask(&self, _question: &Question) -> Answer {
        Answer::Unknown(self.reason.clone())
    }
}

/// Counts of questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuestionCounts {
    /// Different questions.
    pub asked: usize,
    /// Of them: answered by an earlier run.
    pub kept: usize,
    /// Of them: not decided.
    pub unknown: usize,
}

/// Asks each question once, and keeps definite answers for later runs.
#[derive(Debug)]
pub struct OnceSolver<'a> {
    solver: &'a dyn Solver,
    kept: Option<KeptAnswers>,
    answers: Mutex<BTreeMap<[u8; 32], Answer>>,
    asked: AtomicUsize,
    from_disk: AtomicUsize,
    unknown: AtomicUsize,
}

impl<'a> OnceSolver<'a> {
    /// Args: `kept`: answers of earlier runs. `None`: answers are kept for this run alone.
    #[must_use]
    pub fn new(solver: &'a dyn Solver, kept: Option<KeptAnswers>) -> Self {
        Self {
            solver,
            kept,
            answers: Mutex::default(),
            asked: AtomicUsize::new(0),
            from_disk: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
        }
    }

    /// Counts so far.
    #[must_use]
    pub fn counts(&self) -> QuestionCounts {
        QuestionCounts {
            asked: self.asked.load(Ordering::Relaxed),
            kept: self.from_disk.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }

    fn answered(&self, digest: &[u8; 32]) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(digest).cloned()
    }

    fn keep(&self, digest: [u8; 32], answer: Answer) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if matches!(answer, Answer::Unknown(_)) {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(digest, answer);
    }

    /// The answer of an earlier run.
    fn recall(&self, digest: &[u8; 32]) -> Option<Answer> {
        let (name, version) = self.solver.name()?;
        self.kept.as_ref()?.read(&format!("{name} {version}"), &hex(digest))
    }

    fn store(&self, digest: &[u8; 32], answer: &Answer) {
        if let (Some((name, version)), Some(kept)) = (self.solver.name(), &self.kept) {
            kept.write(&format!("{name} {version}"), &hex(digest), answer);
        }
    }
}

impl Solver for OnceSolver<'_> {
    fn name(&self) -> Option<(String, String)> {
        self.solver.name()
    }

    fn ask(&self, question: &Question) -> Answer {
        let answer = self.ask_all(std::slice::from_ref(question)).pop();
        answer.unwrap_or_else(|| Answer::Unknown("the question was lost".to_owned()))
    }

    fn ask_all(&self, questions: &[Question]) -> Vec<Answer> {
        let digests: Vec<[u8; 32]> = questions.iter().map(Question::digest).collect();
        let mut open: BTreeMap<[u8; 32], &Question> = BTreeMap::new();
        for (digest, question) in digests.iter().zip(questions) {
            if self.answered(digest).is_none() {
                open.insert(*digest, question);
            }
        }
        open.retain(|digest, _| match self.recall(digest) {
            Some(answer) => {
                self.from_disk.fetch_add(1, Ordering::Relaxed);
                self.keep(*digest, answer);
                false
            }
            None => true,
        });
        let asked: Vec<Question> = open.values().map(|question| (*question).clone()).collect();
        for (digest, answer) in open.into_keys().zip(self.solver.ask_all(&asked)) {
            self.store(&digest, &answer);
            self.keep(digest, answer);
        }
        let lost = || Answer::Unknown("the question was lost".to_owned());
        digests.iter().map(|digest| self.answered(digest).unwrap_or_else(lost)).collect()
    }
}
