//! The engine, which both servers call. The stages of [`crate::steps`] decide each call.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use authz_kernel::decision::{Given, Request};
use authz_kernel::reason::ReasonCode;
use authz_state::store::Store;
use authz_state::{AuditLog, AuditSettings, AuditWriter};
use authz_token::{KeyOwner, PeerCache, TokenCache, UnixTime};

use crate::acting_agents::ActingAgents;
use crate::approvals::ApprovalChanges;
use crate::attached::AttachedServer;
use crate::audit_chain::audit_chain;
use crate::clock::{Clock, SystemClock};
use crate::dropped_records::DroppedRecords;
use crate::error::EngineError;
use crate::head_exchange::HeadExchange;
use crate::keeper::{Keeper, Wait};
use crate::metrics::Metrics;
use crate::missing_keys::MissingKeys;
use crate::nonce::Taken;
use crate::open_permits::OpenPermits;
use crate::probe::ProbeRate;
use crate::refusal::CallRefusal;
use crate::settings::Settings;
use crate::sums::Sums;
use crate::trace::Tracing;
use crate::transport::{ApiError, Transport};
use crate::world::{Loaded, World};

/// The operation that policy judges for a probe.
pub(crate) const PROBE: &str = "authz.probe";
/// Rate of new idempotency keys of one enforcer, for each second and as a burst; and number of enforcers that are counted.
const KEYS_RATE: f64 = 1_000.0;
const KEYS_BURST: f64 = 5_000.0;
const KEYS_CALLERS: usize = 1_000;

/// Decision engine. All threads of both servers share it.
#[derive(Debug)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) world: ArcSwapOption<Loaded>,
    pub(crate) tokens: TokenCache,
    pub(crate) certificates: PeerCache,
    pub(crate) audit: Arc<dyn AuditLog>,
    /// Heads of audit logs that are in the store.
    pub(crate) head_exchange: HeadExchange,
    pub(crate) sums: Sums,
    pub(crate) dropped_records: DroppedRecords,
    pub(crate) keeper: Keeper,
    pub(crate) metrics: Metrics,
    pub(crate) probes: ProbeRate,
    pub(crate) open_permits: OpenPermits,
    pub(crate) keys: ProbeRate,
    pub(crate) approval_changes: ApprovalChanges,
    pub(crate) acting_agents: ActingAgents,
    pub(crate) missing_keys: MissingKeys,
    pub(crate) tracing: Option<Tracing>,
    /// Servers in front of the engine.
    pub(crate) servers: RwLock<Vec<Weak<dyn AttachedServer>>>,
    /// Start of the engine. A store in memory forgets used proofs, so a proof that was made earlier needs a nonce.
    pub(crate) started: UnixTime,
}

/// Store, audit log and clock of an [`Engine`].
#[derive(Debug)]
pub struct EngineParts {
    /// Store of tasks, sessions and permits.
    pub store: Arc<dyn Store>,
    /// Destination of audit lines.
    pub audit: Arc<dyn AuditLog>,
    /// Source of time, ids and random numbers.
    pub clock: Arc<dyn Clock>,
}

impl Engine {
    /// Opens the audit file and the store that the settings name. Until [`Engine::load`] every request is denied as
    /// UNAVAILABLE.
    ///
    /// # Errors
    /// A setting is out of its range, or the audit file or the store cannot be opened.
    pub fn new(settings: Settings) -> Result<Self, EngineError> {
        settings.check()?;
        let audit = open_audit(&settings)?;
        let keeper = Keeper::open(settings.state.clone(), &audit)?;
        Ok(Self::of(settings, keeper, audit, Arc::new(SystemClock)))
    }

    /// As [`Engine::new`], on a store that the caller has opened. Audit lines do not go through the store.
    ///
    /// # Errors
    /// A setting is out of its range, or the audit file cannot be opened.
    pub fn with_store(settings: Settings, store: Arc<dyn Store>) -> Result<Self, EngineError> {
        let audit = open_audit(&settings)?;
        Self::with_parts(settings, EngineParts { store, audit, clock: Arc::new(SystemClock) })
    }

    /// As [`Engine::new`], on parts that the caller has made: no file is opened and no thread is started.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub fn with_parts(settings: Settings, parts: EngineParts) -> Result<Self, EngineError> {
        settings.check()?;
        let EngineParts { store, audit, clock } = parts;
        let keeper = Keeper::with(settings.state.clone(), store);
        Ok(Self::of(settings, keeper, audit, clock))
    }

    fn of(
        settings: Settings,
        keeper: Keeper,
        audit: Arc<dyn AuditLog>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            keeper,
            world: ArcSwapOption::empty(),
            tokens: TokenCache::new(settings.token_cache_size),
            certificates: PeerCache::new(settings.token_cache_size),
            audit,
            head_exchange: HeadExchange::default(),
            sums: Sums::new(settings.audit_unverified_refusals),
            dropped_records: DroppedRecords::default(),
            metrics: Metrics::default(),
            approval_changes: ApprovalChanges::default(),
            acting_agents: ActingAgents::default(),
            probes: ProbeRate::new(
                settings.probe_rate,
                settings.probe_burst,
                settings.probe_callers,
            ),
            open_permits: OpenPermits::default(),
            keys: ProbeRate::new(KEYS_RATE, KEYS_BURST, KEYS_CALLERS),
            missing_keys: MissingKeys::default(),
            tracing: settings.trace.map(Tracing::new),
            servers: RwLock::default(),
            started: seconds(clock.now_ms()),
            clock,
            settings,
        }
    }

    /// Replaces plan, trust and listeners at once. A running decision keeps the snapshot that it began with.
    ///
    /// # Errors
    /// A listener is not valid. The engine keeps the snapshot that it has.
    pub fn load(&self, world: World) -> Result<(), EngineError> {
        let loaded = Arc::new(Loaded::new(world, &self.metrics)?);
        self.metrics.serve(&loaded.plan);
        let before = self.world.swap(Some(Arc::clone(&loaded)));
        self.record_load(before.as_deref(), &loaded);
        Ok(())
    }

    /// Snapshot of plan, trust and listeners that is loaded now.
    pub(crate) fn world(&self) -> Option<Arc<Loaded>> {
        self.world.load_full()
    }

    /// Error of a call that answers no decision and panicked.
    pub(crate) fn failed_inside(&self) -> ApiError {
        self.metrics.panicked();
        ApiError::of(ReasonCode::Unavailable, "the decision failed inside")
    }

    /// Takes the issuers and trust domains whose tokens named an unknown key since the last call. Their keys may have changed,
    /// so the configured source of each should be read again.
    #[must_use]
    pub fn take_unknown_keys(&self) -> BTreeSet<KeyOwner> {
        self.missing_keys.take()
    }

    /// Largest request that is read.
    #[must_use]
    pub const fn max_message_bytes(&self) -> usize {
        self.settings.max_message_bytes
    }

    /// True if the enforcer of a listener is a front end, which may start and extend tasks there.
    pub(crate) fn takes_prompts(&self, listener: &str) -> bool {
        let world = self.world();
        let enforcer = world.as_ref().and_then(|world| world.way(listener)?.enforcer.as_ref());
        enforcer.is_some_and(|enforcer| enforcer.relays_prompt)
    }

    /// Cache of verified tokens.
    pub(crate) const fn tokens(&self) -> &TokenCache {
        &self.tokens
    }

    /// Notes that a token named a key that its issuer or trust domain does not have.
    pub(crate) fn want_key(&self, owner: &KeyOwner) {
        self.missing_keys.add(owner);
    }

    /// Time that has passed since a monotonic time.
    pub(crate) fn took(&self, since: Instant) -> Duration {
        self.clock.elapsed_since(since)
    }

    /// Longest wait of a call for the store.
    pub(crate) fn wait_of(&self, transport: &Transport<'_>) -> Wait {
        let now = self.clock.monotonic();
        Wait { until: self.keeper.until(now, transport.deadline()), lane: transport.lane }
    }

    /// Reads a protobuf message. `unreadable` is the refusal of bytes that are not such a message.
    pub(crate) fn decode<M: prost::Message + Default>(
        &self,
        request: &[u8],
        unreadable: &str,
    ) -> Result<M, CallRefusal> {
        self.check_size(request)?;
        M::decode(request).map_err(|_| CallRefusal::input(unreadable))
    }

    pub(crate) fn check_size(&self, request: &[u8]) -> Result<(), CallRefusal> {
        let most = self.settings.max_message_bytes;
        if request.len() > most {
            return Err(CallRefusal::input(format!("the request is longer than {most} bytes")));
        }
        Ok(())
    }

    /// The nonce that the next proof of possession should bring.
    #[must_use]
    pub fn dpop_nonce(&self) -> String {
        self.nonces(seconds(self.clock.now_ms())).into_current()
    }

    /// The nonces that proofs of possession may have now.
    pub(crate) fn nonces(&self, now: UnixTime) -> Taken {
        Taken::at(now, &self.keeper.store().secret())
    }
}

fn open_audit(settings: &Settings) -> Result<Arc<AuditWriter>, EngineError> {
    let mut audit = AuditSettings::new(settings.audit_path.clone());
    audit.max_lines = settings.audit_queue_lines;
    audit.max_bytes = settings.audit_queue_bytes;
    audit.sync_interval = Duration::from_millis(settings.audit_sync_interval_ms);
    audit.chain = audit_chain(settings)?;
    let writer = AuditWriter::open(audit).map_err(EngineError::Audit)?;
    Ok(Arc::new(writer))
}

/// Whole seconds of a time in milliseconds.
pub(crate) const fn seconds(now_ms: i64) -> UnixTime {
    UnixTime(now_ms.div_euclid(1_000))
}

/// Request for an operation of Authz itself.
pub(crate) const fn own(operation: &str) -> Request<'_> {
    Request::new(operation, Given::Json(b""))
}
