//! Bounds of a store.

use authz_base::record::{RecordKey, RecordKind};

use super::StoreError;

/// Longest id of a record, in bytes. A longer one is never found.
pub const MAX_ID_BYTES: usize = 1024;
/// Most records that a query returns at once. A larger page is cut to it.
pub const MAX_PAGE: usize = 10_000;

/// Bounds of a store. It refuses a change beyond them with [`StoreError::Full`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records of each kind, in the order of [`RecordKind::ALL`]; [`Bounds::with`] sets one.
    pub records: [usize; RecordKind::ALL.len()],
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
            records: RecordKind::ALL.map(RecordKind::default_bound),
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
    pub fn of(&self, kind: RecordKind) -> usize {
        self.records.get(kind as usize).copied().unwrap_or(0)
    }

    /// The same bounds with another one for a kind.
    #[must_use]
    pub fn with(mut self, kind: RecordKind, most: usize) -> Self {
        if let Some(bound) = self.records.get_mut(kind as usize) {
            *bound = most;
        }
        self
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
            return Err(full(count, most, kind.plural()));
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

/// Returns whether a store can hold a record of this id.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.contains('\0')
}

fn full(count: usize, most: usize, what: &str) -> StoreError {
    StoreError::Full(format!("{count} {what}, at most {most}"))
}
