//! How much a store holds.

use authz_base::record::{RecordKey, RecordKind};

use super::StoreError;

/// Longest id of a record, in bytes. A longer one is never found.
pub const MAX_ID_BYTES: usize = 1024;
/// Most records that a query gives at once, whatever its page asks for.
pub const MAX_PAGE: usize = 10_000;

/// How much a store holds. What would go beyond is refused with [`StoreError::Full`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sessions, live and ended.
    pub sessions: usize,
    /// Tasks, live and ended.
    pub tasks: usize,
    /// Reservations.
    pub reservations: usize,
    /// Answers kept for enforcers' keys.
    pub idempotencies: usize,
    /// Revocations.
    pub revocations: usize,
    /// Task credentials, until a while after their end.
    pub credentials: usize,
    /// Proofs of possession that were seen, until their end.
    pub proofs: usize,
    /// Signing keys of all nodes.
    pub signing_keys: usize,
    /// Leased secrets.
    pub leases: usize,
    /// Trust domains of which it is known which bundle is the newest.
    pub trust_domains: usize,
    /// Agents of which something is remembered over all their sessions.
    pub agents: usize,
    /// Subjects of which something is remembered over all their sessions.
    pub subjects: usize,
    /// Pairs of an agent and a subject of which something is remembered over all their sessions.
    pub pairs: usize,
    /// Objects that agents wrote, and their collections.
    pub objects: usize,
    /// Bytes of one record, as it is written.
    pub record_bytes: usize,
    /// Records that one transaction changes.
    pub transaction_records: usize,
    /// Bytes of one audit line.
    pub line_bytes: usize,
    /// Audit lines that wait for the audit file.
    pub outbox_lines: usize,
    /// Bytes of audit lines that wait for the audit file.
    pub outbox_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            sessions: 250_000,
            tasks: 250_000,
            reservations: 500_000,
            idempotencies: 500_000,
            revocations: 100_000,
            credentials: 500_000,
            proofs: 500_000,
            signing_keys: 64,
            leases: 10_000,
            trust_domains: 4_096,
            agents: 100_000,
            subjects: 250_000,
            pairs: 250_000,
            objects: 250_000,
            record_bytes: 256 * 1024,
            transaction_records: MAX_PAGE,
            line_bytes: 1024 * 1024,
            outbox_lines: 65_536,
            outbox_bytes: 64 * 1024 * 1024,
        }
    }
}

impl Bounds {
    /// Most records of a kind.
    #[must_use]
    pub const fn of(&self, kind: RecordKind) -> usize {
        match kind {
            RecordKind::Session => self.sessions,
            RecordKind::Agent => self.agents,
            RecordKind::Task => self.tasks,
            RecordKind::Reservation => self.reservations,
            RecordKind::Idempotency => self.idempotencies,
            RecordKind::Revocation => self.revocations,
            RecordKind::Credential => self.credentials,
            RecordKind::Proof => self.proofs,
            RecordKind::SigningKey => self.signing_keys,
            RecordKind::Lease => self.leases,
            RecordKind::TrustDomain => self.trust_domains,
            RecordKind::Subject => self.subjects,
            RecordKind::Object => self.objects,
            RecordKind::Pair => self.pairs,
        }
    }

    /// Refuses what one transaction may not change.
    pub(crate) fn check_changes<'a>(
        &self,
        keys: impl ExactSizeIterator<Item = &'a RecordKey>,
        lines: &[Vec<u8>],
    ) -> Result<(), StoreError> {
        if keys.len() > self.transaction_records {
            return Err(full(keys.len(), self.transaction_records, "records in one transaction"));
        }
        for key in keys {
            if !is_id(&key.id) {
                return Err(StoreError::Full(format!(
                    "an id has 1 to {MAX_ID_BYTES} bytes, none of them NUL"
                )));
            }
        }
        match lines.iter().map(Vec::len).max() {
            Some(longest) if longest > self.line_bytes => {
                Err(full(longest, self.line_bytes, "bytes in one audit line"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a record that is too large.
    pub(crate) fn check_record(&self, bytes: usize) -> Result<(), StoreError> {
        if bytes > self.record_bytes {
            return Err(full(bytes, self.record_bytes, "bytes in one record"));
        }
        Ok(())
    }

    /// Refuses a record too many; `count` is with the new ones.
    pub(crate) fn check_count(&self, kind: RecordKind, count: usize) -> Result<(), StoreError> {
        let most = self.of(kind);
        if count > most {
            return Err(full(count, most, words(kind)));
        }
        Ok(())
    }

    /// Refuses more audit lines than may wait; both counts are with the new ones.
    pub(crate) fn check_outbox(&self, lines: usize, bytes: usize) -> Result<(), StoreError> {
        if lines > self.outbox_lines {
            return Err(full(lines, self.outbox_lines, "audit lines that wait for the audit file"));
        }
        if bytes > self.outbox_bytes {
            return Err(full(bytes, self.outbox_bytes, "bytes that wait for the audit file"));
        }
        Ok(())
    }
}

/// Whether a store can hold a record of this id.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.contains('\0')
}

fn full(count: usize, most: usize, what: &str) -> StoreError {
    StoreError::Full(format!("{count} {what}, at most {most}"))
}

const fn words(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Session => "sessions",
        RecordKind::Agent => "agents",
        RecordKind::Task => "tasks",
        RecordKind::Reservation => "reservations",
        RecordKind::Idempotency => "answers kept for enforcers' keys",
        RecordKind::Revocation => "revocations",
        RecordKind::Credential => "task credentials",
        RecordKind::Proof => "proofs of possession",
        RecordKind::SigningKey => "signing keys",
        RecordKind::Lease => "leases",
        RecordKind::TrustDomain => "trust domains",
        RecordKind::Subject => "subjects",
        RecordKind::Object => "objects",
        RecordKind::Pair => "pairs of an agent and a subject",
    }
}
