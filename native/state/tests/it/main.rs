//! Every store against one contract, and each against the failures of what it stands on.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "tests"
)]

mod audit_chain;
mod contract;
mod embedded;
mod journal;
mod memory;
mod postgres;
mod power;
mod server;
mod support;
