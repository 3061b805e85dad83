//! A call as it arrived.

use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_token::PeerFacts;

use crate::enforcer_proof::EnforcerProof;
use crate::refusal::CallRefusal;
use crate::settings::Surface;
use crate::world::{Enforcer, Loaded};

/// One call as it arrived: its id, its time, its listener, and who asks.
#[derive(Clone, Debug)]
pub struct Arrival {
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
    pub(crate) stranger: Option<CallRefusal>,
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

/// Caller of Authz: an enforcer, or an agent that asks about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker {
    /// The enforcer. `None`: the caller asks about itself.
    pub(crate) enforcer: Option<Arc<Enforcer>>,
    pub(crate) known: EnforcerProof,
    /// Verified certificate of the caller; none if it showed none.
    pub(crate) peer: Option<PeerFacts>,
}

impl Asker {
    /// Name of the enforcer in policies and records; empty if the caller is not an enforcer.
    pub(crate) fn name(&self) -> &str {
        self.enforcer.as_ref().map_or("", |enforcer| enforcer.name.as_str())
    }
}
