//! The kernel from outside: typed facts and bytes in, decisions and diagnostics out.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests read files and settings")]

mod along;
mod approvers;
mod arguments;
mod budgets;
mod common;
mod contexts;
mod could;
mod decide;
mod denials;
mod destinations;
mod exceptions;
mod granted;
mod history;
mod laws;
mod max_uses;
mod mcp;
mod objects;
mod observed;
mod order;
mod origins;
mod peer_types;
mod places;
mod proofs;
mod property;
mod reference;
mod refusals;
mod reload;
mod replay;
mod report;
mod spelling;
mod split;
mod task_property;
mod tasks;
mod traps;
mod values;
