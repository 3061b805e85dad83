//! The pure kernel: [`plan`] compiles a bundle into a [`plan::Plan`], and [`decide::decide`] judges one request under it.
//!
//! No I/O, no clock, no globals, no panic. One thread, while a bundle is compiled: `stack` says why.
//!
//! Records and text forms are `authz-base`'s; the kernel exports them under its own paths too. A module imports only modules
//! that stand before it in `native/floors/tests/floors.rs`.

pub mod decide;
pub mod decision;
pub mod describe;
mod evaluate;
pub mod examples;
pub mod format;
pub mod guards;
pub mod history;
pub mod lint;
pub mod plan;
mod policy;
pub mod reach;
pub mod recipient_lists;
pub mod schema;
pub mod shadow;
pub mod soften;
pub mod source;
mod stack;
pub mod task;
#[cfg(feature = "test-support")]
pub mod test_support;
pub mod testable;
mod value_key;
pub mod values;
mod work;

pub use authz_base::{digest, hex, json, reason, rfc3339};
use authz_base::{spelling, table};
pub use authz_bundle::{
    arguments, bundle, canonical, catalog, coerce, destinations, diagnostic, exceptions, mcp, mode,
    model, obligation, pause, roles, routes,
};
pub use value_key::ValueKey;
