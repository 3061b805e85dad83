//! Interface of an audit log.

use std::fmt;

use super::{AuditError, AuditHealth, AuditWriter, Durability};
use crate::ticket::Ticket;

/// Destination of audit lines: a file, or memory in tests and simulations.
pub trait AuditLog: fmt::Debug + Send + Sync {
    /// Accepts a line (without its line feed). Never waits for the disk.
    ///
    /// Returns a ticket if the line is not durable yet and its durability is [`Durability::Synced`].
    ///
    /// # Errors
    /// The log has no room, cannot be written or is closed. The line is then not in the log.
    fn submit(&self, line: &[u8], durability: Durability) -> Result<Option<Ticket>, AuditError>;

    /// True if the log accepts lines now.
    fn is_writable(&self) -> bool;

    /// Counters and last error of the log.
    fn health(&self) -> AuditHealth;

    /// Makes all accepted lines durable. Refuses later lines. Idempotent.
    fn close(&self);
}

impl AuditLog for AuditWriter {
    fn submit(&self, line: &[u8], durability: Durability) -> Result<Option<Ticket>, AuditError> {
        Self::submit(self, line, durability)
    }

    fn is_writable(&self) -> bool {
        Self::is_writable(self)
    }

    fn health(&self) -> AuditHealth {
        Self::health(self)
    }

    fn close(&self) {
        Self::close(self);
    }
}
