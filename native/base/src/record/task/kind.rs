//! Kinds of tasks, and words for their status.

use serde::{Deserialize, Serialize};

/// Kind of a task's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// The task was started.
    Root,
    /// The task was delegated.
    Child,
    /// Bounds of the session of an agent that works without tasks (`implicit` of the kernel); not a task.
    Implicit,
    /// Stands for calls without a task ([`super::taskless`]); never stored, and not a task.
    None,
}

impl TaskKind {
    /// The word in policies; without a task `none`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Child => "child",
            Self::Implicit => "implicit",
            Self::None => "none",
        }
    }

    /// Returns whether it is a task that a principal started. Other kinds have no end of which the agent knows.
    #[must_use]
    pub const fn is_started(self) -> bool {
        matches!(self, Self::Root | Self::Child)
    }
}

/// Status of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// The task gives authority.
    Active,
    /// Its work is done.
    Completed,
    /// Its agent gave it up.
    Aborted,
    /// It was taken away.
    Revoked,
    /// Its time ran out.
    Expired,
}

/// Proof of the subject of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectProof {
    /// A verified token.
    Verified,
    /// The statement of a starter that policy lets speak for subjects; below tier high.
    Asserted,
    /// The starter acts for itself.
    #[serde(rename = "self")]
    Itself,
}

impl SubjectProof {
    /// The word in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Asserted => "asserted",
            Self::Itself => "self",
        }
    }
}

/// Parameter of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Long(i64),
    /// A text.
    Text(String),
}
