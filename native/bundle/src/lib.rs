//! Bundles: from files to a [`bundle::Bundle`], typed and checked for form. Nothing here knows Cedar.
//!
//! In the order in which a bundle is read:
//! - [`source`] reads the files: YAML, JSON Schema, variables.
//! - [`model`] is a bundle as plain values.
//! - [`bundle`] compiles the look-up tables of a model: [`roles`] of principals, classes of [`destinations`], [`routes`].
//!
//! Parts that these need: [`catalog`] (tools of MCP servers), [`arguments`] (schemas of operations), [`mode`] (rules of
//! `mode`), [`exceptions`] (their ends), [`obligation`], [`http`] and [`mcp`] (requests), [`recipient_lists`], [`canonical`] and [`prompt`] (written forms of destinations).
//! [`coerce`] brings arguments into the form in which a server takes them. [`location`] and [`diagnostic`] are for messages.
//!
//! No I/O, no clock, no globals, no panic. The crate depends on `authz-base` alone; no crate above names YAML or the checker
//! of JSON Schema. A module imports only modules below it: `native/floors/tests/floors.rs` lists them.

pub mod arguments;
mod built_in;
pub mod bundle;
pub mod canonical;
pub mod catalog;
pub mod coerce;
pub mod destinations;
pub mod diagnostic;
pub mod exceptions;
pub mod http;
mod ids;
mod json_schema;
pub mod location;
pub mod mcp;
pub mod mode;
pub mod model;
pub mod obligation;
pub mod pause;
pub mod prompt;
pub mod recipient_lists;
pub mod roles;
pub mod routes;
pub mod source;
