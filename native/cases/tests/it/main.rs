//! Case files against the engine's own stages.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod budgets;
mod coverage;
mod credentials;
mod denials;
mod eval;
mod examples;
mod fuzz;
mod history;
mod matrix;
mod objects;
mod report;
mod satisfied;
mod traces;
mod twin;
