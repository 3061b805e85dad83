//! Progress of the exchange of audit heads with the other nodes of a store.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use authz_base::poison::IgnorePoison as _;

/// Progress of the exchange of heads.
#[derive(Debug, Default)]
pub(crate) struct HeadExchange {
    state: Mutex<ExchangeState>,
}

#[derive(Debug, Default)]
pub(crate) struct ExchangeState {
    /// Segment and count of this node's head in the store. `None`: not read since the start.
    pub(crate) stored: Option<(u64, u64)>,
    pub(crate) next_store: Option<Instant>,
    pub(crate) next_note: Option<Instant>,
    /// Segment and count of the recorded heads, by node.
    pub(crate) noted: BTreeMap<String, (u64, u64)>,
    /// Records that the store proves to be missing from this node's log. Empty if there are none.
    pub(crate) missing: String,
}

impl HeadExchange {
    pub(crate) fn lock(&self) -> MutexGuard<'_, ExchangeState> {
        self.state.lock().ignore_poison()
    }
}
