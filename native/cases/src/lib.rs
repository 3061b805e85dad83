//! Tests of a bundle, and judgements on stated facts: both ask the engine's own stages, over a store in memory.
//!
//! A case file is read ([`case_file`](CaseFile)), its matrices are expanded to cases (`matrix`), and it is checked (`check`) and run (`run`): each test gets an engine of its own
//! ([`authz_lane::offline::OfflineEngine`]), and each step becomes a message of the protocol (`messages`), which the engine answers
//! to a caller that the test states (`callers`). `expect` compares the answer. The same files run over every surface of a server
//! too, in `tests/conformance`.
//!
//! [`eval()`] judges one request on stated facts, for `authz eval`. [`can()`] tells who can do what, for `authz can`. [`replay()`] judges
//! recorded decisions again, for `authz replay`, and [`simulate()`] takes a session through a bundle.
//!
//! A module imports only modules that stand before it in `native/floors/tests/floors.rs`.

mod callers;
mod can;
mod case_file;
mod check;
mod clock;
mod coverage;
mod eval;
mod expect;
#[cfg(feature = "test-support")]
pub mod fuzz;
mod matrix;
mod messages;
mod replay;
mod report;
mod run;
mod simulate;
pub mod source;
mod steps;

pub use can::can;
pub use case_file::{CaseFile, case_schema};
pub use check::parse;
pub use clock::StepClock;
pub use coverage::{Coverage, CoveredPart, PartReach};
pub use eval::eval;
pub use replay::replay;
pub use report::{Failure, Report, TestScope};
pub use run::{run, run_within, test};
pub use simulate::simulate;
