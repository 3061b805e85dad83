//! Bundles: from files to a [`model::Model`], typed and checked for form. Nothing here knows Cedar.
//!
//! In the order in which a bundle is read: [`source`] (files, YAML and how it is checked) fills the [`model`], with
//! [`catalog`] (tools of MCP servers), [`arguments`] (schemas of operations), [`destinations`] and [`prompt`] (written forms of
//! what data goes to), [`directories`], [`mode`], [`routes`] and [`mcp`] (which request is which operation) and [`members`]
//! (who holds which role). [`location`] and [`diagnostic`] are for messages.
//!
//! No I/O, no clock, no globals, no panic. The crate depends on `authz-base` alone; YAML and the checker
//! of JSON Schema are named by no crate above.

pub mod arguments;
pub mod catalog;
pub mod destinations;
pub mod diagnostic;
pub mod directories;
pub mod location;
pub mod mcp;
pub mod members;
pub mod mode;
pub mod model;
pub mod prompt;
pub mod routes;
pub mod source;
