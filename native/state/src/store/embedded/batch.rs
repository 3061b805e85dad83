//! What is written together.

use std::collections::HashMap;
use std::sync::Arc;

use authz_kernel::task::RecordKey;

use crate::store::outbox::Line;

/// What commits change: as it is at the end, whatever it was in between.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// Bodies, or none for records that go.
    pub(super) records: HashMap<RecordKey, Option<Arc<[u8]>>>,
    /// Audit lines to put in the outbox.
    pub(super) lines: Vec<Line>,
    /// The highest line that left the outbox.
    pub(super) synced: Option<i64>,
    /// The strongest of what is asked.
    pub(super) power_loss: bool,
}

impl Batch {
    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.lines.is_empty() && self.synced.is_none()
    }

    /// Adds what came after it.
    pub(super) fn absorb(&mut self, later: Self) {
        let Self { records, lines, synced, power_loss } = later;
        self.records.extend(records);
        self.lines.extend(lines);
        self.power_loss |= power_loss;
        if let Some(synced) = synced {
            self.synced = Some(synced);
            // In the order of their numbers.
            self.lines.drain(..self.lines.partition_point(|line| line.number <= synced));
        }
    }
}
