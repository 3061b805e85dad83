//! State that outlives a request: records, and the audit file.
//!
//! Threads are owned by the values that start them and end with their `close`.

mod audit;
mod medium;
pub mod place;
pub mod store;
mod ticket;

pub use audit::{AuditError, AuditHealth, AuditSettings, AuditWriter, Durability, OpenError};
pub use ticket::Ticket;
