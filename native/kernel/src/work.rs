//! State that every step of a compilation shares.

use authz_bundle::pause::Pause;

use crate::diagnostic::Diagnostics;

/// Findings of a compilation so far, and pauses between its steps.
#[derive(Debug)]
pub(crate) struct CompileProgress<'a> {
    pub(crate) found: Diagnostics,
    pub(crate) pause: Pause<'a>,
}
