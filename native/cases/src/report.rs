//! The report of a run.

use serde::Serialize;

use crate::coverage::Coverage;

/// Failures that a report lists; the rest are counted.
const MOST_FAILURES: usize = 200;

/// Result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Steps that came out as expected.
    pub passed: usize,
    /// Steps that only a server can answer.
    pub skipped: usize,
    /// Steps that did not come out as expected, and files that could not be read; at most 200.
    pub failed: Vec<Failure>,
    /// Failures beyond those listed.
    pub omitted: usize,
    /// Parts of the bundle that the tests reach; only where [`TestScope::covers`] asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
}

/// Scope of a run. Default: all tests, without coverage.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestScope {
    /// The report tells which parts of the bundle the tests reach.
    pub covers: bool,
    /// The run ends after the first test that fails.
    pub stops_at_failure: bool,
}

impl Report {
    /// Whether nothing failed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failed.is_empty() && self.omitted == 0
    }

    /// Adds a failure, or counts it where the list is full.
    pub(crate) fn fail(&mut self, failure: Failure) {
        if self.failed.len() < MOST_FAILURES {
            self.failed.push(failure);
        } else {
            self.omitted += 1;
        }
    }
}

/// A step that did not come out as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The file.
    pub file: String,
    /// The line of the step, from 1; 0 where unknown.
    pub line: u32,
    /// Name of the test.
    pub test: String,
    /// Number of the step, from 1; 0 where the file could not be read.
    pub step: usize,
    /// The expected fields, `outcome: DENY, code: FORBIDDEN`.
    pub expected: String,
    /// The same fields of the answer.
    pub actual: String,
    /// The message of the answer, or the error of the file.
    pub message: String,
}
