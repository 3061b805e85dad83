//! Warnings about a bundle that compiles: parts of it that can have no effect, or that nobody can ever use.
//!
//! They are for `authz check`. A node that loads a bundle does not look for them: they cost up to a second.
//! [`access`] finds what nobody can do, [`approvers`] step-ups that nobody can answer, [`unused`] what nothing reads, [`origins`] values whose origin is not asked for. Each warning has the code of its check.

mod access;
mod approvers;
mod origins;
mod unused;

use std::collections::BTreeSet;

use crate::diagnostic::{Advice, Diagnostic, Diagnostics};
use crate::model::Location;
use crate::plan::Plan;

fn warn(
    found: &mut Diagnostics,
    code: &'static str,
    at: &Location,
    what: String,
    fix: impl Into<Advice>,
) {
    found.push(Diagnostic::warning(at, what, fix).with_code(code));
}

/// Facts of a configuration that warnings depend on.
#[derive(Clone, Debug, Default)]
pub struct LintFacts {
    /// Aliases of the issuers that the node trusts. `None`: not known, so no alias is looked up.
    pub issuers: Option<BTreeSet<String>>,
    /// Whether the node believes any guard. `None`: not known.
    pub has_guards: Option<bool>,
}

impl Plan {
    /// Warnings about parts that can have no effect, or that nobody can ever use.
    #[must_use]
    pub fn lint(&self, facts: &LintFacts) -> Diagnostics {
        let mut found = Diagnostics::new();
        access::check(self, &mut found);
        approvers::check(self, &mut found);
        unused::check(self, facts, &mut found);
        origins::check(self, &mut found);
        found
    }
}
