//! Changes that are written together.

use std::collections::HashMap;
use std::sync::Arc;

use authz_base::record::RecordKey;
use foldhash::fast::RandomState;

use crate::store::outbox::OutboxLine;

/// Changes that are appended to the journal at once.
#[derive(Debug, Default)]
pub(super) struct JournalFrame {
    /// Bodies, or none for records that go; of each key the last counts.
    pub(super) records: Vec<Changed>,
    /// Audit lines to put in the outbox.
    pub(super) lines: Vec<OutboxLine>,
    /// The highest line that left the outbox.
    pub(super) synced: Option<i64>,
    /// True if it has to survive a loss of power.
    pub(super) power_loss: bool,
}

/// A record's key, and its body, or none where it goes.
pub(super) type Changed = (RecordKey, Option<Arc<[u8]>>);

/// Bodies, or none for records that go.
pub(super) type Records = HashMap<RecordKey, Option<Arc<[u8]>>, RandomState>;

/// Final state of the records that commits change.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordBatch {
    /// Bodies, or none for records that go.
    pub(super) records: Records,
    /// Audit lines to put in the outbox.
    pub(super) lines: Vec<OutboxLine>,
    /// The highest line that left the outbox.
    pub(super) synced: Option<i64>,
}

impl JournalFrame {
    /// Adds the records of several commits, in their order.
    pub(super) fn add(&mut self, records: impl Iterator<Item = Vec<Changed>>) {
        let mut all = Records::default();
        for records in records {
            if all.is_empty() && self.records.is_empty() {
                self.records = records;
                continue;
            }
            // A record that changed several times is written once, as it is at the end.
            all.extend(self.records.drain(..).chain(records));
        }
        self.records.extend(all);
    }
}

impl RecordBatch {
    /// Adds what came after it.
    pub(super) fn absorb(&mut self, later: Self) {
        let Self { records, lines, synced } = later;
        self.records.extend(records);
        self.lines.extend(lines);
        if let Some(synced) = synced {
            self.synced = Some(synced);
            self.drop_lines(synced);
        }
    }

    /// Lines that left the outbox, up to that one, are not to be put there.
    pub(super) fn drop_lines(&mut self, last: i64) {
        // In the order of their numbers.
        self.lines.drain(..self.lines.partition_point(|line| line.number <= last));
    }
}
