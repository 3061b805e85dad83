//! Admit: may this listener and this enforcer ask at all, and can the node decide anything now?

use std::sync::Arc;

use authz_kernel::decision::Time;

use crate::ask::Refused;
use crate::judgement::Asker;
use crate::settings::Surface;
use crate::world::Loaded;

/// One call as it arrived: its id, its time, its listener, and who asks.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// UUIDv7; the id of the decision.
    pub(crate) id: String,
    /// Time of the decision, in milliseconds since 1970.
    pub(crate) now_ms: i64,
    pub(crate) surface: Surface,
    /// Snapshot of bundle, keys and listeners that the call is judged by. Default: none is loaded.
    pub(crate) world: Option<Arc<Loaded>>,
    /// Name of the listener; empty where the configuration has no such listener.
    pub(crate) listener: String,
    pub(crate) asker: Asker,
    /// Refusal of a TLS peer whose certificate proves nothing.
    pub(crate) stranger: Option<Refused>,
    /// The caller asks about itself, and sees only what an agent may see.
    pub(crate) asks_itself: bool,
    /// The call only asks what would be decided (`mode: PROBE`).
    pub(crate) probe: bool,
}

impl Arrival {
    pub(crate) fn new(
        id: String,
        now_ms: i64,
        surface: Surface,
        world: Option<Arc<Loaded>>,
    ) -> Self {
        Self {
            id,
            now_ms,
            surface,
            world,
            listener: String::new(),
            asker: Asker::default(),
            stranger: None,
            asks_itself: true,
            probe: false,
        }
    }

    /// Time of the decision.
    pub(crate) const fn now(&self) -> Time {
        Time(self.now_ms)
    }
}
