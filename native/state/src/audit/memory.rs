//! An audit log in memory, which needs no thread.

use std::sync::{Mutex, MutexGuard};

use authz_base::poison::IgnorePoison as _;

use super::{AuditError, AuditHealth, AuditLog, Durability};
use crate::ticket::Ticket;

/// Audit log in memory, for tests and simulations: a line is in the log as soon as it is submitted.
#[derive(Debug)]
pub struct MemoryAudit {
    log: Mutex<MemoryLines>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct MemoryLines {
    /// Lines, each with its line feed.
    bytes: Vec<u8>,
    is_closed: bool,
    health: AuditHealth,
}

impl MemoryAudit {
    /// An empty log. A line that would make it longer than `max_bytes` is refused.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        let health = AuditHealth { writable: true, ..AuditHealth::default() };
        Self { log: Mutex::new(MemoryLines { health, ..MemoryLines::default() }), max_bytes }
    }

    /// Takes all lines, each with its line feed. The log is empty then.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock().bytes)
    }

    fn lock(&self) -> MutexGuard<'_, MemoryLines> {
        self.log.lock().ignore_poison()
    }
}

impl AuditLog for MemoryAudit {
    fn submit(&self, line: &[u8], _durability: Durability) -> Result<Option<Ticket>, AuditError> {
        let size = line.len().saturating_add(1);
        let mut log = self.lock();
        let error = if log.is_closed {
            Some(AuditError::Failed)
        } else if log.bytes.len().saturating_add(size) > self.max_bytes {
            Some(AuditError::Full)
        } else {
            None
        };
        if let Some(error) = error {
            log.health.refused_lines = log.health.refused_lines.saturating_add(1);
            return Err(error);
        }
        log.bytes.extend_from_slice(line);
        log.bytes.push(b'\n');
        log.health.written_lines = log.health.written_lines.saturating_add(1);
        log.health.written_bytes = log.health.written_bytes.saturating_add(size as u64);
        Ok(None)
    }

    fn is_writable(&self) -> bool {
        !self.lock().is_closed
    }

    fn health(&self) -> AuditHealth {
        let log = self.lock();
        AuditHealth { writable: !log.is_closed, ..log.health.clone() }
    }

    fn close(&self) {
        self.lock().is_closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_closed_log_refuses() {
        let audit = MemoryAudit::new(4);
        assert!(matches!(audit.submit(b"abc", Durability::Synced), Ok(None)));
        assert!(matches!(audit.submit(b"", Durability::BestEffort), Err(AuditError::Full)));
        assert_eq!(b"abc\n".to_vec(), audit.take());
        assert!(matches!(audit.submit(b"", Durability::BestEffort), Ok(None)));
        audit.close();
        assert!(matches!(audit.submit(b"", Durability::Synced), Err(AuditError::Failed)));
        let health = audit.health();
        assert_eq!(
            (false, 2, 5, 2),
            (health.writable, health.written_lines, health.written_bytes, health.refused_lines)
        );
    }
}
