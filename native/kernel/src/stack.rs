//! A stack of its own for work that recurses over a bundle's texts.

use std::thread::{Builder, scope};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::model::Location;

/// Bytes of the stack: many times what the longest policy that passes the limits of `evaluate::syntax` needs. It is
/// reserved, and only what is touched takes memory.
const STACK: usize = 64 << 20;

/// Runs work on a thread with a large stack, and waits for it.
///
/// The kernel starts no other thread. Cedar's parser, validator and printer recurse, and how much stack a caller has
/// left is the caller's: on a short one the parser would end the process, and the validator would find nothing wrong
/// without saying that it gave up.
///
/// Args:
/// * `file`: the file that a failure is reported at.
///
/// # Errors
/// The thread could not be started, or ended without a result.
pub(crate) fn on_large_stack<T: Send>(
    file: &str,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Diagnostics> {
    let failed = |what: String| {
        let at = Location { file: file.to_owned(), line: 0, column: 0 };
        Diagnostics::from(Diagnostic::error(&at, what, "Load the bundle again."))
    };
    scope(|scope| {
        let thread = Builder::new()
            .name("authz-compile".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| failed(format!("no thread to compile the policies on: {error}")))?;
        thread.join().map_err(|_| failed("compiling the policies failed inside".to_owned()))
    })
}
