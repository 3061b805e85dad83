//! The engine, from bytes to bytes, over every surface and lane.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    reason = "tests"
)]

mod audit;
mod bytes;
mod envoy;
mod fast;
mod own;
mod support;
