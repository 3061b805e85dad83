//! Tasks: units of delegated work, made from templates. A task gives authority while it is live, and only to the agent
//! that it was given to.
//!
//! Tasks form a tree, which shares one session. What stands in `record` is stored: fields are added with a default,
//! never renamed, and members that a node does not know are kept.

mod implicit;
mod literals;
mod names;
mod on_behalf;
mod origin;
mod prompt;
mod record;
mod scope;
mod start;
mod taskless;
mod tokens;

use std::sync::Arc;

use crate::spelling::Misspelling;

pub use implicit::{BARRED_MS, implicit, implicit_id, is_implicit_id, renewed};
pub use literals::{MAX_LITERALS, hmac};
pub use names::{HARNESS_TIER, MAX_PARTS, Names, Part, SaidBy, Speaker};
pub use on_behalf::{
    ACTED_MS, Alone, alone_pair, alone_without_task, alones_of, barred_alone, carrier_of, is_alone,
    subject_refused,
};
pub use origin::{Bar, Origin};
pub use prompt::{LONGEST_PROMPT, Reading, read as read_prompt};
pub use record::{
    AgentName, Binding, Credential, Detail, Idempotency, Lease, LeaseState, Limit, Literal, Param,
    Party, Proof, Record, RecordKey, RecordKind, RecordName, Reservation, Revocation,
    RevocationTarget, Revocations, ScopeEntry, Selector, Session, SharedSession, SigningKey,
    Subject, SubjectProof, Task, TaskKind, TaskStatus, TrustDomain,
};
pub use scope::{Dimension, ScopeIndex};
pub use start::{Child, Refused, Root, delegate, denied_pair, extend, start};
pub use taskless::{taskless, taskless_of};
pub use tokens::{NewestToken, ShownToken};

pub(crate) use literals::literal;
pub(crate) use prompt::{names_of, one as one_name};
pub(crate) use scope::{Acts, Miss};

/// How deep tasks below a root may be: with a subject, the chain is then as long as a chain may be.
pub const MAX_DEPTH: u32 = 6;
/// Entries of one scope.
pub const MAX_SCOPE: usize = 1_000;
/// Values in one set of a scope.
pub const MAX_TEXTS: usize = 1_000;
/// Bytes of one value in a scope, or of a parameter.
pub const MAX_TEXT: usize = 1_024;
/// The template of a request without a task, in policies.
pub const NO_TEMPLATE: &str = "none";

/// A task, and all above it.
#[derive(Clone, Copy, Debug)]
pub struct TaskView<'a> {
    /// The task.
    pub task: &'a Task,
    /// The tasks above it, the root first; empty for a root.
    pub ancestors: &'a [Arc<Task>],
}

impl<'a> TaskView<'a> {
    /// All tasks from the root to the task itself.
    pub fn path(self) -> impl Iterator<Item = &'a Task> {
        self.ancestors.iter().map(AsRef::as_ref).chain([self.task])
    }

    /// The view, unless it is of what somebody does without a task: nothing is given by that.
    pub(crate) fn real(self) -> Option<Self> {
        (self.task.kind != TaskKind::None).then_some(self)
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(self) -> &'a Task {
        self.ancestors.first().map_or(self.task, AsRef::as_ref)
    }
}

/// Holds that a text can be a value in a scope.
pub(crate) fn check_text(text: &str) -> Result<(), Misspelling> {
    if text.is_empty() || text.len() > MAX_TEXT {
        let what = "it is empty, or longer than 1,024 bytes";
        return Err(Misspelling { what, fix: "Write 1 to 1,024 bytes." });
    }
    if text.contains(char::is_control) {
        let what = "it holds control characters";
        return Err(Misspelling { what, fix: "Write 1 to 1,024 bytes." });
    }
    Ok(())
}
