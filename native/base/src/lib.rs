//! Plain values and text forms that every other crate builds on.
//!
//! No I/O, no clock, no globals, no panic; no Cedar, YAML or cryptographic keys.
//!
//! From the bottom: [`reason`] (codes of decisions, generated), [`rfc3339`] (timestamps), [`poison`] (locks), [`table`],
//! [`pattern`] and [`hex`]; [`digest`]; [`json`] (strict reading); [`host`], [`uri`], [`spelling`] and [`spiffe`] (forms of
//! names); [`time`], [`tier`] and [`principal`]; [`record`] (what is stored of tasks, sessions, credentials and histories).
//! A module imports only modules before it in that order; `native/floors` tests it.

pub mod digest;
pub mod hex;
pub mod host;
pub mod json;
pub mod pattern;
pub mod poison;
pub mod principal;
pub mod reason;
pub mod record;
pub mod rfc3339;
pub mod spelling;
pub mod spiffe;
pub mod table;
pub mod tier;
pub mod time;
pub mod uri;
