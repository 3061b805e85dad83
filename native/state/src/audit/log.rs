//! Interface of an audit log.

use std::fmt;

use super::{AuditError, AuditHealth, AuditWriter, Durability};
use crate::ticket::Ticket;

/// Treatment of a line that finds the queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The line is refused.
    Refuse,
    /// The line waits for room, behind the lines that wait already. A log without a queue refuses it.
    Wait,
    /// The line is dropped and counted. Only a line of [`Durability::Queued`] is dropped; another one is refused.
    Drop,
}

/// Result of a line that the log did not refuse.
#[derive(Debug)]
pub enum Submitted {
    /// The line is in the log. The ticket says when it is durable, if its durability is [`Durability::Synced`].
    Queued(Option<Ticket>),
    /// The line waits for room. The ticket says when the line is in the queue, or durable for [`Durability::Synced`]. A line
    /// whose ticket is dropped before it is in the queue is never written.
    Waiting(Ticket),
    /// The line was dropped.
    Dropped,
}

/// Destination of audit lines: a file, or memory in tests and simulations.
pub trait AuditLog: fmt::Debug + Send + Sync {
    /// Accepts a line (without its line feed). Never waits for the disk.
    ///
    /// Returns a ticket if the line is not durable yet and its durability is [`Durability::Synced`].
    ///
    /// # Errors
    /// The log has no room, cannot be written or is closed. The line is then not in the log.
    fn submit(&self, line: &[u8], durability: Durability) -> Result<Option<Ticket>, AuditError>;

    /// As [`AuditLog::submit`], with another treatment of a line that finds the queue full.
    ///
    /// # Errors
    /// The line is refused and not in the log. A log that fails or is closed refuses every line, for every `when_full`.
    fn submit_or(
        &self,
        line: &[u8],
        durability: Durability,
        when_full: WhenFull,
    ) -> Result<Submitted, AuditError> {
        match self.submit(line, durability) {
            Ok(ticket) => Ok(Submitted::Queued(ticket)),
            Err(AuditError::Full)
                if when_full == WhenFull::Drop && durability == Durability::Queued =>
            {
                Ok(Submitted::Dropped)
            }
            Err(error) => Err(error),
        }
    }

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

    fn submit_or(
        &self,
        line: &[u8],
        durability: Durability,
        when_full: WhenFull,
    ) -> Result<Submitted, AuditError> {
        Self::submit_or(self, line, durability, when_full)
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
