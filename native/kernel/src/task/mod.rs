//! Tasks: units of delegated work, made from templates. A task gives authority while it is live, and only to the agent
//! that it was given to.
//!
//! Tasks form a tree, which shares one session. The records themselves are plain values of `authz-base`.

mod implicit;
mod literals;
mod names;
mod on_behalf;
mod prompt;
mod scope;
mod start;

use crate::spelling::Misspelling;

pub use authz_base::record::task::*;
pub use implicit::{implicit, implicit_id, is_implicit_id, renewed};
pub use literals::hmac;
pub use names::{MAX_PARTS, Part, SaidBy, read_names};
pub use on_behalf::{
    ACTED_MS, Alone, alone_pair, alone_without_task, alones_of, barred_alone, carrier_of, is_alone,
    subject_refused,
};
pub use prompt::{LONGEST_PROMPT, Reading, read as read_prompt};
pub use scope::Dimension;
pub use start::{Child, Refused, Root, delegate, denied_pair, extend, start};

pub(crate) use literals::literal;
pub(crate) use prompt::{names_of, one as one_name};
pub(crate) use scope::{Acts, Miss, could, fit};

/// How deep tasks below a root may be: with a subject, the chain is then as long as a chain may be.
pub const MAX_DEPTH: u32 = 6;
/// Entries of one scope.
pub const MAX_SCOPE: usize = 1_000;
/// Values in one set of a scope.
pub const MAX_TEXTS: usize = 1_000;
/// Bytes of one value in a scope, or of a parameter.
pub const MAX_TEXT: usize = 1_024;

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
