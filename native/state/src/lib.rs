//! State that outlives a request: records, and the audit file.
//!
//! In the order of a request: [`place`] (the folder of a node, locked), [`store`] (records of `authz-base`, in memory, in an
//! embedded store or in PostgreSQL), [`AuditWriter`] with a [`Ticket`] for each line, and the file below it (`medium`).
//!
//! The crate knows records, not rules over them: it depends on `authz-base` alone. Threads are owned by the values that start
//! them and end with their `close`; each has a name. Ticket, key locks and embedded store take threads, locks and clock from
//! `sync`, where the feature `model` exchanges them for those of a model checker; other modules take threads from `sync`
//! and the clock from `time`. [`store::MemoryStore`] starts no thread and reads the [`TimeSource`] that it is given.

mod audit;
mod medium;
#[cfg(all(test, feature = "model"))]
mod model;
pub mod place;
pub mod store;
mod sync;
mod ticket;
mod time;

pub use audit::{
    AuditHealth, AuditLog, AuditSettings, AuditWriter, ChainSettings, Durability, Head, HeadSigner,
    MemoryAudit, OpenError, SignedHead, Submitted, WhenFull,
};
pub use ticket::{AuditError, Ticket};
pub use time::{SystemTimeSource, TimeSource};
