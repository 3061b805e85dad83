//! A simulated node: engine, clock, store and audit log, without a thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Clock as _, Engine, EngineParts, StateEngine, Surface, Transport};
use authz_state::store::Store;
use authz_state::{
    AuditError, AuditHealth, AuditLog, Durability, MemoryAudit, Ticket, TimeSource as _,
};
use prost::Message;

use crate::bundle::{manager, settings, world};
use crate::clock::NodeClock;
use crate::store::SimulatedStore;

const AUDIT_BYTES: usize = 64 * 1024 * 1024;

/// An audit log that an event may fill.
#[derive(Debug)]
pub struct SimulatedAudit {
    log: MemoryAudit,
    is_full: AtomicBool,
    was_refused: AtomicBool,
}

impl SimulatedAudit {
    pub fn new() -> Self {
        Self {
            log: MemoryAudit::new(AUDIT_BYTES),
            is_full: AtomicBool::new(false),
            was_refused: AtomicBool::new(false),
        }
    }

    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    /// True if a line was refused since the last call.
    pub fn take_refused(&self) -> bool {
        self.was_refused.swap(false, Ordering::SeqCst)
    }

    pub fn take(&self) -> Vec<u8> {
        self.log.take()
    }

    fn is_refusing(&self) -> bool {
        let is_full = self.is_full.load(Ordering::SeqCst);
        if is_full {
            self.was_refused.store(true, Ordering::SeqCst);
        }
        is_full
    }
}

impl AuditLog for SimulatedAudit {
    fn submit(&self, line: &[u8], durability: Durability) -> Result<Option<Ticket>, AuditError> {
        if self.is_refusing() {
            return Err(AuditError::Full);
        }
        self.log.submit(line, durability)
    }

    fn is_writable(&self) -> bool {
        !self.is_refusing()
    }

    fn health(&self) -> AuditHealth {
        self.log.health()
    }

    fn close(&self) {
        self.log.close();
    }
}

/// The process of a node.
pub struct Node {
    pub engine: Arc<Engine>,
    pub store: Arc<SimulatedStore>,
}

impl Node {
    /// Starts the process.
    pub fn start(
        engine: StateEngine,
        number: usize,
        store: SimulatedStore,
        clock: &Arc<NodeClock>,
        audit: &Arc<SimulatedAudit>,
    ) -> Self {
        let store = Arc::new(store);
        let parts = EngineParts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            audit: Arc::clone(audit) as _,
            clock: Arc::clone(clock) as _,
        };
        let engine = Engine::with_parts(settings(engine, number), parts).unwrap();
        engine.load(world()).unwrap();
        Self { engine: Arc::new(engine), store }
    }
}

/// Entry of a node that takes a message.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    Check,
    Surface(Surface, &'static str),
    Resolve,
}

/// Answer of a node.
#[derive(Clone, Debug)]
pub enum Answer {
    Decision(Box<wire::Decision>),
    Message(Vec<u8>),
    /// Name of the reason.
    Refused(&'static str),
}

/// Lets a node answer a message.
pub fn answer(engine: &Engine, clock: &NodeClock, entry: Entry, bytes: &[u8]) -> Answer {
    let at = |listener| Transport::at(listener, clock.monotonic());
    let answered = match entry {
        Entry::Check => {
            let bytes = engine.check(bytes, &at("sdk"));
            let response = wire::CheckResponse::decode(bytes.as_slice()).unwrap();
            return Answer::Decision(Box::new(response.decision.unwrap()));
        }
        Entry::Surface(surface, listener) => engine.call(surface, bytes, &at(listener)),
        Entry::Resolve => engine.approval_resolve(manager().to_string().as_bytes(), bytes),
    };
    match answered {
        Ok(bytes) => Answer::Message(bytes),
        Err(error) => Answer::Refused(error.reason_code.as_str()),
    }
}

/// The digest of an approval as a person is shown it. `None`: the node cannot show it.
pub fn shown_digest(engine: &Engine, approval: &str) -> Option<Vec<u8>> {
    let request =
        wire::ApprovalsGetRequest { approval_id: approval.to_owned(), ..Default::default() };
    let person = serde_json::Value::Null.to_string();
    let shown = engine.approval_show(person.as_bytes(), &request.encode_to_vec()).ok()?;
    let response = wire::ApprovalsGetResponse::decode(shown.as_slice()).unwrap();
    Some(response.approval.unwrap().digest)
}

/// The wall clock of a node, in milliseconds since 1970.
pub fn wall_ms(clock: &NodeClock) -> i64 {
    clock.now_ms()
}
