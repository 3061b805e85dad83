//! Records of tasks, of the sessions and parties that they act in, and of what is permitted in them.

mod names;
mod origin;
mod record;
mod scope;
mod taskless;
mod tokens;

use std::sync::Arc;

use crate::spelling::Misspelling;

pub use names::{HARNESS_TIER, MAX_LITERALS, Names, Speaker};
pub use origin::{Bar, Origin};
pub use record::*;
pub use scope::ScopeIndex;
pub use taskless::{AGE_MS, IDLE_MS, taskless, taskless_of};
pub use tokens::{NewestToken, ShownToken};

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
    #[must_use]
    pub fn real(self) -> Option<Self> {
        (self.task.kind != TaskKind::None).then_some(self)
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(self) -> &'a Task {
        self.ancestors.first().map_or(self.task, AsRef::as_ref)
    }
}

/// Holds that a text can be a value in a scope.
///
/// # Errors
/// What is wrong with the text.
pub fn check_text(text: &str) -> Result<(), Misspelling> {
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
