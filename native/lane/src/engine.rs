//! The pipeline: identify, resolve, judge, record, answer. The same for every surface and both lanes.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use authz_kernel::decide::decide;
use authz_kernel::decision::{
    Claim, Facts, Given, Outcome, Principal, Proof, ProofMethod, Request, Subject, Time,
};
use authz_kernel::mcp::ServerTask;
use authz_kernel::mode::may_soften;
use authz_kernel::model::Tier;
use authz_kernel::reach::Served;
use authz_kernel::reason::{PublicCode, ReasonCode};
use authz_kernel::routes::{Body, HttpRequest, RouteError};
use authz_kernel::task::{RecordKey, TaskKind, TaskView};
use authz_state::store::{Commit, Store, StoreError, StoreHealth, Survives, Transaction};
use authz_state::{AuditError, AuditHealth, AuditSettings, AuditWriter, Durability, Ticket};
use authz_token::{
    AgentFacts, AgentProof, Binding, ClaimValue, Evidence, KeyOwner, Nonces, PeerCache,
    Presentation, Refusal, RefusalReason, Role, SubjectFacts, SubjectKind, TokenCache, UnixTime,
    verify, verify_peer, verify_pem, verify_relayed,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use serde::Serialize;
use uuid::Uuid;

use crate::answer;
use crate::ask::{self, Ask, Authorization, Refused, Relayed, Step, Target};
use crate::asked::Asked;
use crate::envoy::{self, Removed};
use crate::history;
use crate::judgement::{Asker, CredentialNote, Judgement, Known, method_of, name_of};
use crate::keeper::{Keeper, Wait};
use crate::limits;
use crate::locate::{self, Located};
use crate::metrics::{Family, Gauges, Metrics};
use crate::nonce::Taken;
use crate::on_behalf::Acted;
use crate::presented::{self, Presented, Sent};
use crate::probe::ProbeRate;
use crate::proto::authz::v1 as wire;
use crate::record::{self, Origin};
use crate::reserving::OpenPermits;
use crate::revoke;
use crate::settings::{CredentialSettings, EngineError, Lane, Settings, Surface};
use crate::settle::{Implied, Judging};
use crate::shown;
use crate::speaker;
use crate::sums::{self, Row, Sum, Sums};
use crate::trace::{self, Ids, Span, Tracing};
use crate::wanted::Wanted;
use crate::world::{Enforcer, Loaded, Way, World};

#[path = "list.rs"]
mod list;

/// The operations of ours that policy judges.
const PROBE: &str = "authz.probe";
const EXPLAIN: &str = "authz.explain";
/// New idempotency keys of one enforcer, a second and at once; and enforcers.
const KEYS_RATE: f64 = 1_000.0;
const KEYS_BURST: f64 = 5_000.0;
const KEYS_CALLERS: usize = 1_000;
/// Of the time that a caller allows, the share kept for the answer's way back, up to a bound.
const MARGIN_SHARE: u32 = 10;
const MARGIN_MOST: Duration = Duration::from_millis(5);

/// What is known of a call besides its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Transport<'a> {
    /// Name of the listener that it came by.
    pub listener: &'a str,
    /// Time until the caller's deadline, from `received`; none: no deadline.
    pub remaining: Option<Duration>,
    /// When it was received.
    pub received: Instant,
    /// W3C `traceparent` of the call; a request of a proxy may bring one too.
    pub trace_parent: Option<&'a str>,
    /// W3C `tracestate`.
    pub trace_state: Option<&'a str>,
    /// `authorization` metadata of the gRPC call.
    pub authorization: Option<&'a str>,
    /// Address of the peer, for the record.
    pub peer: Option<&'a str>,
    /// What the peer showed in its TLS handshake.
    pub peer_chain: PeerChain<'a>,
    /// The user that the process at the other end of a unix socket runs as, as the kernel says (`SO_PEERCRED`).
    pub peer_uid: Option<u32>,
    /// Which server it came by.
    pub lane: Lane,
}

impl<'a> Transport<'a> {
    /// A call that came by a listener just now, and of which nothing else is known.
    #[must_use]
    pub fn by(listener: &'a str) -> Self {
        Self {
            listener,
            remaining: None,
            received: Instant::now(),
            trace_parent: None,
            trace_state: None,
            authorization: None,
            peer: None,
            peer_chain: PeerChain::None,
            peer_uid: None,
            lane: Lane::Python,
        }
    }

    /// When the answer must be under way.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let remaining = self.remaining?;
        let margin = remaining.checked_div(MARGIN_SHARE).unwrap_or_default().min(MARGIN_MOST);
        self.received.checked_add(remaining.saturating_sub(margin))
    }

    fn is_late(&self) -> bool {
        self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The certificates of a TLS peer, of which its transport has proved no more than that the peer holds the first one's key
/// and that some authority signed it.
#[derive(Clone, Copy, Debug)]
pub enum PeerChain<'a> {
    /// It showed none, or there is no TLS.
    None,
    /// In DER, its own first.
    Der(&'a [&'a [u8]]),
    /// In PEM.
    Pem {
        /// Its own.
        leaf: &'a [u8],
        /// What it sent along; may be empty, or begin with its own again.
        intermediates: &'a [u8],
    },
}

/// A call that answers no decision was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Why.
    pub reason_code: ReasonCode,
    /// `google.rpc.Code`.
    pub grpc_code: i32,
    /// What happened, fit for the caller.
    pub message: String,
    /// The step of the decision that refused: `identify`, `resolve`, `locate`, `judge` or `record`; empty where it was none.
    pub step: &'static str,
}

impl ApiError {
    pub(crate) fn of(reason_code: ReasonCode, message: impl Into<String>) -> Self {
        let grpc_code = match reason_code.row().grpc_code {
            0 => 7,
            code => code,
        };
        Self { reason_code, grpc_code, message: message.into(), step: "" }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason_code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

/// How an engine stands.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Decisions can be made, and be recorded.
    pub ready: bool,
    /// Why not.
    pub problems: Vec<String>,
    /// What does not stop decisions, but should be looked at.
    pub warnings: Vec<String>,
    /// Version.
    pub version: String,
    /// `release` or `debug`.
    pub build_profile: &'static str,
    /// Name of the bundle.
    pub bundle_name: String,
    /// Its revision.
    pub bundle_revision: String,
    /// SHA-256 of its files, in hex.
    pub bundle_digest: String,
    /// Digest of the key set.
    pub trust_revision: String,
    /// The ways in: `name`, then `enforcer`, then what is unusual about it.
    pub listeners: Vec<String>,
    /// The audit file.
    pub audit: AuditHealth,
    /// The store of tasks.
    pub state: StoreHealth,
    /// How much is revoked.
    pub revocations: usize,
    /// Verified tokens found in the cache.
    pub token_cache_hits: u64,
    /// And not found.
    pub token_cache_misses: u64,
    /// Decisions that failed inside, each denied.
    pub panics: u64,
}

/// Decides. Shared by all threads of both lanes.
#[derive(Debug)]
pub struct Engine {
    pub(crate) settings: Settings,
    world: ArcSwapOption<Loaded>,
    tokens: TokenCache,
    certificates: PeerCache,
    audit: Arc<AuditWriter>,
    sums: Sums,
    pub(crate) keeper: Keeper,
    pub(crate) metrics: Metrics,
    probes: ProbeRate,
    pub(crate) open_permits: OpenPermits,
    pub(crate) keys: ProbeRate,
    pub(crate) acted: Acted,
    wanted: Wanted,
    tracing: Option<Tracing>,
    /// Servers that ask it, and have problems and counters of their own.
    parts: RwLock<Vec<Weak<dyn Part>>>,
    /// Proofs made before are believed with a nonce only: which ones were taken may be forgotten.
    started: UnixTime,
}

/// A server that asks the engine.
pub(crate) trait Part: fmt::Debug + Send + Sync {
    /// Why it is not ready.
    fn problems(&self) -> Vec<String>;
    /// What it counted.
    fn families(&self) -> Vec<Family>;
}

/// A decision that waits for its record.
pub(crate) struct Pending {
    judgement: Box<Judgement>,
    line: Recorded,
    reply: Reply,
    ticket: Option<Ticket>,
    /// That a proof cannot be brought again; it goes before `ticket`.
    proved: Option<Ticket>,
    waits: Waits,
    received: Instant,
    deadline: Option<Instant>,
}

/// What a decision waits for before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Its record.
    Record,
    /// Its changes, with which the record goes.
    Store,
}

/// The record of a decision that changed state, which went with the changes.
#[derive(Debug)]
pub(crate) struct Kept {
    ticket: Option<Ticket>,
    waits: Waits,
}

impl Kept {
    /// The record went with a change that is waited for elsewhere.
    pub(crate) const fn elsewhere() -> Self {
        Self { ticket: None, waits: Waits::Store }
    }
}

/// Why a change is not made.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is refused.
    Refused(Refused),
    /// The store failed.
    Store(StoreError),
    /// There is nothing to change.
    Unchanged,
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What is changed in a transaction, and what the decision about it comes to.
pub(crate) type Change<'a> =
    dyn FnMut(&mut dyn Transaction, &mut Judgement) -> Result<(), Stop> + 'a;

/// What every record of the decision needs besides the decision.
pub(crate) struct Recorded {
    peer: String,
    trace: Option<Ids>,
    lane: Lane,
}

impl Recorded {
    fn origin<'a>(&'a self, settings: &'a Settings) -> Origin<'a> {
        Origin {
            peer: &self.peer,
            trace: self.trace.as_ref().map(Ids::of_record),
            node_id: &settings.node_id,
            version: &settings.version,
        }
    }
}

/// What a change belongs to.
pub(crate) struct Changing<'a> {
    pub(crate) evidence: &'a [Evidence<'a>],
    pub(crate) recorded: &'a Recorded,
    pub(crate) wait: Wait,
}

enum Reply {
    Own,
    Envoy { removed: Removed },
}

impl Pending {
    /// Notes on what the answer waited in vain.
    const fn failed_at(&mut self, waits: Waits, recorded: Result<(), AuditError>) {
        if recorded.is_err() {
            self.waits = waits;
        }
    }

    /// Takes the next promise that something is durable, if the answer must wait for it, and what it is of.
    pub(crate) fn take_ticket(&mut self) -> Option<(Ticket, Waits)> {
        let proved = self.proved.take().map(|ticket| (ticket, Waits::Store));
        proved.or_else(|| self.ticket.take().map(|ticket| (ticket, self.waits)))
    }
}

impl Engine {
    /// Opens the audit file. Until [`Engine::load`] every request is denied as UNAVAILABLE.
    ///
    /// # Errors
    /// A setting is out of its range, or the audit file cannot be opened.
    pub fn new(settings: Settings) -> Result<Self, EngineError> {
        let state = settings.state.clone();
        Self::opened(settings, |audit| Keeper::open(state, audit))
    }

    /// As [`Engine::new`], on a store that somebody else has opened: audit lines do not go through it.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_store(settings: Settings, store: Arc<dyn Store>) -> Result<Self, EngineError> {
        let state = settings.state.clone();
        Self::opened(settings, |_| Ok(Keeper::with(state, store)))
    }

    fn opened(
        settings: Settings,
        keeper: impl FnOnce(&Arc<AuditWriter>) -> Result<Keeper, EngineError>,
    ) -> Result<Self, EngineError> {
        settings.check()?;
        let mut audit = AuditSettings::new(settings.audit_path.clone());
        audit.max_lines = settings.audit_queue_lines;
        audit.max_bytes = settings.audit_queue_bytes;
        audit.sync_interval = Duration::from_millis(settings.audit_sync_interval_ms);
        let audit = AuditWriter::open(audit).map_err(|error| EngineError(error.to_string()))?;
        let audit = Arc::new(audit);
        let keeper = keeper(&audit)?;
        Ok(Self {
            keeper,
            world: ArcSwapOption::empty(),
            tokens: TokenCache::new(settings.token_cache_size),
            certificates: PeerCache::new(settings.token_cache_size),
            audit,
            sums: Sums::new(settings.audit_unverified_refusals),
            metrics: Metrics::default(),
            acted: Acted::default(),
            probes: ProbeRate::new(
                settings.probe_rate,
                settings.probe_burst,
                settings.probe_callers,
            ),
            open_permits: OpenPermits::default(),
            keys: ProbeRate::new(KEYS_RATE, KEYS_BURST, KEYS_CALLERS),
            wanted: Wanted::default(),
            tracing: settings.trace.map(Tracing::new),
            parts: RwLock::default(),
            started: seconds(now_ms()),
            settings,
        })
    }

    /// Swaps plan, trust and listeners at once. A running decision keeps what it began with.
    ///
    /// # Errors
    /// A listener is refused; what was loaded before goes on serving.
    pub fn load(&self, world: World) -> Result<(), EngineError> {
        let loaded = Loaded::new(world, &self.metrics)?;
        self.world.store(Some(Arc::new(loaded)));
        Ok(())
    }

    /// What is loaded now.
    pub(crate) fn world(&self) -> Option<Arc<Loaded>> {
        self.world.load_full()
    }

    /// A call that answers no decision panicked.
    pub(crate) fn failed_inside(&self) -> ApiError {
        self.metrics.panicked();
        ApiError::of(ReasonCode::Unavailable, "the decision failed inside")
    }

    /// Takes the owners of which tokens named a key that they have not, since this was last asked: each is one of
    /// the configuration, but whether its keys have changed only its source can say.
    #[must_use]
    pub fn take_unknown_keys(&self) -> BTreeSet<KeyOwner> {
        self.wanted.take()
    }

    /// Largest request that is read.
    #[must_use]
    pub const fn max_message_bytes(&self) -> usize {
        self.settings.max_message_bytes
    }

    /// Judges an `authz.v1.CheckRequest`; the answer is always an `authz.v1.CheckResponse`.
    #[must_use]
    pub fn check(&self, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        self.answer(Surface::Check, request, transport)
    }

    /// Judges an `envoy.service.auth.v3.CheckRequest`; the answer is always that service's `CheckResponse`.
    #[must_use]
    pub fn envoy_check(&self, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        self.answer(Surface::ExtAuthz, request, transport)
    }

    fn answer(&self, surface: Surface, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        self.guarded(transport.lane, surface, || {
            let mut pending = self.begin(surface, request, transport);
            let recorded = self.wait(&mut pending);
            self.finish(pending, recorded)
        })
    }

    /// As [`Engine::check`] and [`Engine::envoy_check`], without blocking the thread while the record is synced.
    pub(crate) async fn answer_async(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Vec<u8> {
        let begun = catch_unwind(AssertUnwindSafe(|| self.begin(surface, request, transport)));
        let Ok(mut pending) = begun else {
            self.metrics.panicked();
            return self.refuse(transport.lane, surface, ReasonCode::Unavailable);
        };
        let mut recorded = Ok(());
        while recorded.is_ok()
            && let Some((ticket, waits)) = pending.take_ticket()
        {
            let until = tokio::time::Instant::from_std(self.wait_until(&pending));
            recorded =
                tokio::time::timeout_at(until, ticket).await.unwrap_or(Err(AuditError::Late));
            pending.failed_at(waits, recorded);
        }
        self.guarded(transport.lane, surface, || self.finish(pending, recorded))
    }

    /// Answers a call that answers no decision: listing, revoking, and all of `authz.v1.Tasks`.
    ///
    /// # Errors
    /// It is refused.
    pub fn call(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Result<Vec<u8>, ApiError> {
        let answered = catch_unwind(AssertUnwindSafe(|| match surface {
            Surface::List => self.list(request, transport),
            Surface::Report => self.method(
                surface,
                request,
                transport,
                |_: &wire::ReportRequest| &[],
                |message, judgement, caller| self.report(message, judgement, caller),
            ),
            Surface::AccessLog => self.access_log(request, transport),
            Surface::Revoke => self.revoke(request, transport),
            Surface::Forget => self.forget_labels(request, transport),
            Surface::TaskStart
            | Surface::TaskDelegate
            | Surface::TaskExtend
            | Surface::TaskGet
            | Surface::TaskList
            | Surface::TaskEnd => self.tasks(surface, request, transport),
            Surface::CredentialExchange => self.exchange(request, transport),
            Surface::CredentialIntrospect | Surface::CredentialRevoke => {
                self.about_token(surface, request, transport)
            }
            Surface::CredentialIssue => self.method(
                surface,
                request,
                transport,
                |message: &wire::IssueRequest| message.evidence.as_slice(),
                |message, judgement, caller| self.issue(message, judgement, caller),
            ),
            _ => Err(ApiError::of(ReasonCode::BadInput, "there is no such call")),
        }));
        answered.unwrap_or_else(|_| Err(self.failed_inside()))
    }

    /// Whether a listener's enforcer is a front end, which starts and extends tasks by it.
    pub(crate) fn takes_prompts(&self, listener: &str) -> bool {
        let world = self.world();
        let enforcer = world.as_ref().and_then(|world| world.way(listener)?.enforcer.as_ref());
        enforcer.is_some_and(|enforcer| enforcer.relays_prompt)
    }

    /// Tokens that were verified before.
    pub(crate) const fn tokens(&self) -> &TokenCache {
        &self.tokens
    }

    /// Notes that a token named a key that its owner has not, or not yet.
    pub(crate) fn want_key(&self, owner: &KeyOwner) {
        self.wanted.add(owner);
    }

    /// Whether decisions can be made, recorded and answered in time.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.world.load().is_some()
            && self.audit.health().writable
            && self.keeper.revocations().is_ok()
            && self.parts().iter().all(|part| part.problems().is_empty())
    }

    /// Tells of a server's problems and counters from now on, as long as it is there.
    pub(crate) fn attach(&self, part: &Arc<dyn Part>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|part| part.strong_count() > 0);
        parts.push(Arc::downgrade(part));
    }

    fn parts(&self) -> Vec<Arc<dyn Part>> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(Weak::upgrade).collect()
    }

    /// Runs what answers; where it panics, the answer is a denial.
    pub(crate) fn guarded(
        &self,
        lane: Lane,
        surface: Surface,
        run: impl FnOnce() -> Vec<u8>,
    ) -> Vec<u8> {
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
            self.metrics.panicked();
            self.refuse(lane, surface, ReasonCode::Unavailable)
        })
    }

    /// Makes the decision and queues its record; `surface` is `Check` or `ExtAuthz`.
    pub(crate) fn begin(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Pending {
        let world = self.world.load_full();
        match surface {
            Surface::ExtAuthz => self.begin_envoy(world, request, transport),
            _ => {
                let judged = self.check_size(request).and_then(|()| {
                    wire::CheckRequest::decode(request)
                        .map_err(|_| Refused::input("the bytes are no CheckRequest"))
                });
                match judged {
                    Ok(message) => self.begin_own(surface, world, &message, transport),
                    Err(refused) => {
                        let mut judgement = self.judgement(surface, world, transport);
                        self.refuse_unless_unready(&mut judgement, transport, refused);
                        let line = self.recorded(transport);
                        self.record(judgement, &[], transport, Reply::Own, line, None)
                    }
                }
            }
        }
    }

    pub(crate) fn check_size(&self, request: &[u8]) -> Result<(), Refused> {
        let most = self.settings.max_message_bytes;
        if request.len() > most {
            return Err(Refused::input(format!("the request is longer than {most} bytes")));
        }
        Ok(())
    }

    fn begin_own(
        &self,
        surface: Surface,
        world: Option<Arc<Loaded>>,
        message: &wire::CheckRequest,
        transport: &Transport<'_>,
    ) -> Pending {
        let mut judgement = self.judgement(surface, world, transport);
        let line = self.recorded(transport);
        match ask::of_request(message, &self.settings) {
            Ok(mut ask) => {
                let kept = self.judge(&mut judgement, &mut ask, transport, &line, false);
                self.record(judgement, &ask.evidence, transport, Reply::Own, line, kept)
            }
            Err(refused) => {
                self.refuse_unless_unready(&mut judgement, transport, refused);
                self.record(judgement, &[], transport, Reply::Own, line, None)
            }
        }
    }

    fn begin_envoy(
        &self,
        world: Option<Arc<Loaded>>,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Pending {
        let mut judgement = self.judgement(Surface::ExtAuthz, world, transport);
        let none = || Reply::Envoy { removed: Removed::default() };
        let message = self.check_size(request).and_then(|()| {
            envoy::Request::read(request)
                .map_err(|_| Refused::input("the bytes are no ext_authz CheckRequest"))
        });
        let message = match message {
            Ok(message) => message,
            Err(refused) => {
                self.refuse_unless_unready(&mut judgement, transport, refused);
                let line = self.recorded(transport);
                return self.record(judgement, &[], transport, none(), line, None);
            }
        };
        let enforcer = judgement.arrival.asker.enforcer.as_ref();
        let relays = enforcer.map_or_else(envoy::Relays::default, |enforcer| envoy::Relays {
            principal: enforcer.relays_principal,
            labels: enforcer.relays_labels,
            session: enforcer.relays_session,
        });
        match envoy::of_request(&message, &self.settings, relays) {
            Ok(mut parsed) => {
                let transport = &parsed.trace.over(transport);
                let line = self.recorded(transport);
                let kept = self.judge(&mut judgement, &mut parsed.ask, transport, &line, false);
                let reply = Reply::Envoy { removed: parsed.removed(&judgement) };
                self.record(judgement, &parsed.ask.evidence, transport, reply, line, kept)
            }
            Err(refused) => {
                self.refuse_unless_unready(&mut judgement, transport, refused);
                let line = self.recorded(transport);
                self.record(judgement, &[], transport, none(), line, None)
            }
        }
    }

    /// A decision with its id and time, and who asks.
    pub(crate) fn judgement(
        &self,
        surface: Surface,
        world: Option<Arc<Loaded>>,
        transport: &Transport<'_>,
    ) -> Box<Judgement> {
        let id = new_id();
        // It is large, and handed on several times.
        let mut judgement = Box::new(Judgement::new(id, now_ms(), surface, None));
        if let Some(world) = &world
            && let Some(way) = world.way(transport.listener)
        {
            // A name that is not configured is the caller's own text.
            transport.listener.clone_into(&mut judgement.arrival.listener);
            match self.asker(world, way, transport, seconds(judgement.arrival.now_ms)) {
                Ok(asker) => {
                    judgement.arrival.asks_itself = asker.enforcer.is_none();
                    judgement.arrival.asker = asker;
                }
                Err(refused) => judgement.arrival.stranger = Some(refused),
            }
        }
        judgement.arrival.world = world;
        judgement
    }

    /// Who asks: the enforcer that its listener is, or whoever its certificate says.
    fn asker(
        &self,
        world: &Loaded,
        way: &Way,
        transport: &Transport<'_>,
        now: UnixTime,
    ) -> Result<Asker, Refused> {
        if let Some(enforcer) = &way.enforcer {
            if !enforcer.is_of(transport.peer_uid) {
                return Err(Refused::new(
                    ReasonCode::EnforcerRefused,
                    Step::Identify,
                    "the process runs as none of the users of the listener's enforcer",
                ));
            }
            let known = if way.insecure_dev { Known::InsecureDev } else { Known::Listener };
            return Ok(Asker { enforcer: Some(Arc::clone(enforcer)), known, peer: None });
        }
        let trust = &world.trust;
        let verified = match transport.peer_chain {
            PeerChain::None if way.mutual => verify_peer(&[], trust, &self.certificates, now),
            PeerChain::None => return Ok(Asker::default()),
            PeerChain::Der(chain) => verify_peer(chain, trust, &self.certificates, now),
            PeerChain::Pem { leaf, intermediates } => {
                verify_pem(leaf, intermediates, trust, &self.certificates, now)
            }
        };
        // INVARIANT (no downgrade): whoever shows a certificate is its workload or nobody, never an anonymous caller.
        let peer = verified.map_err(|refusal| refused(&refusal))?;
        let enforcer = world.enforcer_of(&peer.spiffe_id).cloned();
        let known = if enforcer.is_some() { Known::Certificate } else { Known::No };
        Ok(Asker { enforcer, known, peer: Some(peer) })
    }

    /// Refuses a request that cannot be read, unless nothing could be decided anyway.
    pub(crate) fn refuse_unless_unready(
        &self,
        judgement: &mut Judgement,
        transport: &Transport<'_>,
        refused: Refused,
    ) {
        let refused = match self.admit(judgement, transport) {
            Err(earlier) => earlier,
            Ok(_) => refused,
        };
        judgement.refuse(refused);
    }

    /// A world is loaded, there is time left, and the listener answers this surface.
    pub(crate) fn admit(
        &self,
        judgement: &Judgement,
        transport: &Transport<'_>,
    ) -> Result<Arc<Loaded>, Refused> {
        let Some(world) = judgement.arrival.world.clone() else {
            return Err(Refused::new(
                ReasonCode::Unavailable,
                Step::Identify,
                "no bundle is loaded",
            ));
        };
        in_time(transport, Step::Identify)?;
        // Before anything is held to a time, the caller's certificate too.
        self.keeper.check_clock()?;
        if let Some(refused) = &judgement.arrival.stranger {
            return Err(refused.clone());
        }
        let way = world.way(transport.listener);
        let refuse =
            |message: &str| Err(Refused::new(ReasonCode::EnforcerRefused, Step::Identify, message));
        let is_enforcer = judgement.arrival.asker.enforcer.is_some();
        match way {
            None => refuse("the call came by a listener that is not configured"),
            Some(way) if !way.answers(judgement.arrival.surface) => {
                refuse("the listener does not answer this")
            }
            Some(_) if judgement.arrival.surface == Surface::ExtAuthz && !is_enforcer => {
                refuse("whoever asks is no enforcer, so no proxy is answered")
            }
            Some(_) => Ok(world),
        }
    }

    /// Steps 1, 2 and 5.
    fn judge<'a>(
        &self,
        judgement: &mut Judgement,
        ask: &mut Ask<'a>,
        transport: &Transport<'a>,
        line: &Recorded,
        explain: bool,
    ) -> Option<Kept> {
        let kept = match self.try_judge(judgement, ask, transport, line, explain) {
            Ok(Some(kept)) => return Some(kept),
            Ok(None) => None,
            Err(refused) => {
                judgement.refuse(refused);
                None
            }
        };
        judgement.soften();
        kept
    }

    fn try_judge<'a>(
        &self,
        judgement: &mut Judgement,
        ask: &mut Ask<'a>,
        transport: &Transport<'a>,
        line: &Recorded,
        explain: bool,
    ) -> Result<Option<Kept>, Refused> {
        let world = self.admit(judgement, transport)?;
        judgement.arrival.probe = ask.probe;
        let mut known_agent = None;
        if judgement.arrival.asks_itself && !explain {
            known_agent =
                judgement.arrival.asker.peer.as_ref().map(|peer| peer.agent(AgentProof::X509Svid));
            let is_known = known_agent.is_some();
            self.add_own_authorization(&mut ask.evidence, transport, &world, is_known)?;
        }
        if let Some(Relayed { principal, certificate }) = ask.relayed {
            let now = seconds(judgement.arrival.now_ms);
            let (trust, cache) = (&world.trust, &self.certificates);
            let agent = verify_relayed(principal, certificate, trust, cache, now);
            known_agent = Some(agent.map_err(|refusal| refused(&refusal))?);
        }
        self.add_authorization(ask, &world)?;
        if judgement.arrival.asks_itself && ask.sent.is_some() {
            return Err(Refused::input("only an enforcer gives `http_method` and `http_uri`"));
        }
        take_labels(judgement, &ask.labels, &world, explain)?;
        speaker::may_name_context(judgement, ask.session_context, explain)?;
        let now = judgement.arrival.now();
        let known = self.identify_presented(judgement, &world, &ask.evidence, known_agent);
        let known = match (known, ask.agentless) {
            (Ok(()), None) => speaker::refuse_bearer_alone(judgement, &world),
            (Ok(()), Some(message)) if judgement.caller.facts.agent.is_none() => {
                Err(Refused::new(ReasonCode::NoCredential, Step::Identify, message))
            }
            (Err(refused), Some(message)) if refused.reason == ReasonCode::NoCredential => {
                Err(Refused { message: message.to_owned(), ..refused })
            }
            (known, _) => known,
        };
        let nobody = match known {
            Ok(()) if ask.has_credential && judgement.caller.facts.credential.is_none() => {
                return Err(Refused::credential("`authz-credential` holds no task credential"));
            }
            Ok(()) => None,
            // Where that is only noted, the rest must still be fit to be let through.
            Err(refused)
                if refused.reason == ReasonCode::NoCredential
                    && world.plan.model().modes.any_observes(now) =>
            {
                Some(refused)
            }
            Err(refused) => return Err(refused),
        };
        in_time(transport, Step::Resolve)?;

        // 2: the operation.
        let (routed, missed);
        let mut in_body = None;
        let mut stopped = None;
        let request = match &ask.target {
            Target::Operation { id, arguments, resource, destinations } => Request {
                operation: id,
                arguments: Given::Json(arguments),
                resource: *resource,
                destinations,
                labels: &ask.labels,
                supported_obligations: &ask.supported_obligations,
                server_task: ServerTask::None,
            },
            Target::Http { method, host, path, headers, unusable, body } => {
                let routes = world.plan.routes();
                if let Some(name) = unusable.iter().find(|name| routes.reads_header(name)) {
                    return Err(Refused::ambiguous(format!("`{name}` is no text")));
                }
                let names = headers.iter().map(|(name, _)| *name).chain(unusable.iter().copied());
                if let Some(name) = world.read_headers.twin(names) {
                    return Err(Refused::ambiguous(format!(
                        "a header is spelled almost as `{name}`, and some servers take both for one"
                    )));
                }
                judgement.resolved.is_cut_off = matches!(body, Body::Partial);
                let http = HttpRequest { method, host, path, headers, body: *body };
                match routes.resolve(&http).and_then(|found| world.at_system(found, host)) {
                    Ok(found) => {
                        judgement.resolved.route = Some(found.route);
                        judgement.resolved.mcp.clone_from(&found.mcp);
                        if found.arguments.written_len() > self.settings.max_arguments_bytes {
                            return Err(Refused::input("the arguments are too long"));
                        }
                        routed = found;
                        in_body = routed.task.as_deref();
                        Request {
                            operation: &routed.operation,
                            arguments: Given::Read(&routed.arguments),
                            resource: None,
                            destinations: &[],
                            labels: &ask.labels,
                            supported_obligations: &ask.supported_obligations,
                            server_task: routed
                                .mcp
                                .as_ref()
                                .map(|mcp| mcp.server_task)
                                .unwrap_or_default(),
                        }
                    }
                    Err(error) => {
                        let refused = unrouted(judgement, &world, &http, &error);
                        let refused = instead(nobody.as_ref(), refused);
                        if !refused.understood || !may_soften(error.reason) {
                            return Err(refused);
                        }
                        // Where it would only be noted, everything before the operation must hold first.
                        stopped = Some(refused);
                        missed = error;
                        in_body = missed.task.as_deref();
                        Request { operation: &missed.operation, ..own("") }
                    }
                }
            }
        };
        if let Some(operation) = world.plan.operation(request.operation) {
            judgement.resolved.operation.clone_from(&operation.id);
            judgement.resolved.system = world.system(&operation.id);
            judgement.resolved.tier = Some(operation.tier);
        } else if stopped.is_none() {
            judgement.resolved.asked = Some(Asked::operation(request.operation));
            let system = presented::system_of(request.operation);
            match system.filter(|system| world.plan.systems().contains_key(*system)) {
                Some(system) => system.clone_into(&mut judgement.resolved.unknown_in),
                None => judgement.resolved.may_be_for.push(String::new()),
            }
        }
        may_ask(judgement, request.operation)?;

        let wait = Wait { until: self.keeper.until(transport.deadline()), lane: transport.lane };
        if !request.operation.is_empty() {
            Self::for_audience(judgement, &world, request.operation)?;
        }
        let is_dry = ask.probe || explain;
        if !judgement.caller.facts.proofs.is_empty() {
            let unknown_in =
                Some(judgement.resolved.unknown_in.as_str()).filter(|id| !id.is_empty());
            let system = presented::system_of(request.operation).or(unknown_in);
            let sent = Sent::of(ask, &world, system);
            judgement.proved = self.take_proofs(judgement, &world, &sent, is_dry, wait)?;
        }

        let revoked = self.keeper.revocations()?;
        revoke::of_operation(&revoked, &judgement.resolved.operation)?;
        if !revoked.is_empty() {
            let unknown_in = std::slice::from_ref(&judgement.resolved.unknown_in);
            let split = world.plan.model().splits.get(&judgement.resolved.operation);
            let mut cases = split.into_iter().flat_map(|split| split.cases.values());
            judgement.resolved.may_be_revoked = cases
                .any(|case| revoke::of_operation(&revoked, case).is_err())
                || revoke::is_any_revoked(&revoked, &judgement.resolved.may_be_for)
                || (judgement.resolved.operation.is_empty()
                    && revoke::is_any_revoked(&revoked, unknown_in));
            if judgement.resolved.operation.is_empty() {
                revoke::of_system(&revoked, &judgement.resolved.unknown_in)?;
            }
        }

        // 3: the task.
        let is_known = !judgement.resolved.operation.is_empty();
        if ask.task.zip(in_body).is_some_and(|(task, other)| task != other) {
            return Err(Refused::new(
                ReasonCode::TaskConflict,
                Step::Locate,
                "the task is named more than once, differently",
            ));
        }
        let named = ask.task.or(in_body);
        let presented = self.presented(judgement, named, wait)?;
        if is_known && stopped.is_none() && nobody.is_none() {
            let in_task = named.is_some() || presented.is_some();
            self.check_subject(judgement, &world.plan, in_task, wait)?;
        }
        let located = match presented.as_ref().map(Presented::task).or(named) {
            Some(task) => {
                let found = if presented.is_some() {
                    let found = locate::find(&self.keeper, task, wait);
                    let found = found.and_then(|found| Self::bounded_now(found, &world.plan));
                    found.map_err(|refused| match refused.reason {
                        ReasonCode::UnknownTask => {
                            Refused { reason: ReasonCode::Revoked, ..refused }
                        }
                        _ => refused,
                    })?
                } else {
                    locate::find_task(&self.keeper, task, wait)?
                };
                judgement.context.task = Some(Arc::clone(&found.task));
                locate::usable(&found, &revoked, &judgement.caller.facts, now)?;
                if is_known && stopped.is_none() && nobody.is_none() {
                    self.check_left_out(judgement, &world.plan, &found, wait)?;
                }
                Some((found, None))
            }
            None if nobody.is_none() => {
                let implied = self.implied(judgement, &world.plan, wait)?;
                implied.map(|(located, implied)| (located, Some(implied)))
            }
            None => None,
        };
        let (located, implied) = match located {
            Some((located, implied)) => (Some(located), implied),
            None if is_known && stopped.is_none() && nobody.is_none() => {
                (self.taskless(judgement, &world.plan, &request)?, None)
            }
            None if nobody.is_none() => {
                self.refuse_taken_away(judgement, &world.plan, wait)?;
                (None, None)
            }
            None => (None, None),
        };
        let begins = implied == Some(Implied::New);
        let unnoted = presented.as_ref().and_then(|_| located.clone());
        // What is refused before it is judged begins no task, and changes none.
        let is_refused = stopped.is_some() || !is_known;
        let located = match located {
            Some(found) if !found.is_taskless() => {
                // What a task credential does not cover changes nothing, which is not known yet.
                let is_dry = is_dry || begins || is_refused || presented.is_some();
                let noted = self.note_token(judgement, &world, found, is_dry, wait)?;
                Some(Self::bounded_now(noted, &world.plan)?)
            }
            located => located,
        };
        let begins_nothing = is_refused && begins;
        let is_real = |located: &&Located| !located.is_taskless() && !begins_nothing;
        if let Some(located) = located.as_ref().filter(is_real) {
            judgement.context.task = Some(Arc::clone(&located.task));
            judgement.context.is_in_named_task = located.task.kind != TaskKind::Implicit;
            if !located.view().has_chain(&judgement.caller.chain) {
                judgement.caller.chain = shown::chain_in(judgement, located);
            }
        }
        if let Some(refused) = stopped {
            return Err(refused);
        }
        let (located, implied) = if is_refused { (None, None) } else { (located, implied) };
        if let Some(located) = &located {
            let (plan, at) = (&world.plan, (now, wait));
            let context = speaker::context(judgement, ask.session_context);
            let begins = (begins, context);
            judgement.context.recalled =
                history::recall(&self.keeper, plan, &request, located, begins, at)?;
        }
        if ask.wants_credential {
            let refused = |reason, message| Err(Refused::new(reason, Step::Locate, message));
            if presented.is_some() {
                let message = "a call that presents a task credential gets none";
                return refused(ReasonCode::BadInput, message);
            }
            if world.credentials.is_none() {
                return refused(ReasonCode::BadInput, "no credentials are issued here");
            }
            if is_known && judgement.context.task.is_none() {
                return refused(ReasonCode::NoTask, "a credential is issued for a task");
            }
        }
        if ask.has_approval {
            return Err(Refused::new(
                ReasonCode::ApprovalMismatch,
                Step::Judge,
                "there are no approvals in this version",
            ));
        }

        // 5: policy.
        if ask.probe && !explain {
            let chain = std::mem::take(&mut judgement.caller.chain);
            let known = if nobody.is_some() { &[] } else { chain.as_slice() };
            let view = located.as_ref().map(Located::view);
            let probing = self.may_probe(&world, &kernel_facts(judgement, known, view, None), now);
            judgement.caller.chain = chain;
            probing?;
        }
        let mut judging = Judging {
            world: &world,
            request: &request,
            is_nobody: nobody.is_some(),
            wants_credential: ask.wants_credential,
            presented,
            key: None,
            explain,
            secret: self.keeper.store().secret(),
        };
        let started = Instant::now();
        judging.decide(judgement, located.as_ref());
        judgement.add_decide_time(started.elapsed());
        // One case of an operation that is split may be revoked by itself.
        revoke::of_operation(&revoked, &judgement.resolved.operation)?;
        in_time(transport, Step::Judge)?;
        let is_beyond = judgement.is_beyond_credential();
        let located = match located {
            Some(found) if !is_dry && !begins && !is_beyond => {
                if let Some(unnoted) = unnoted {
                    drop(self.note_token(judgement, &world, unnoted, false, wait)?);
                }
                Some(self.note_use(judgement, found, wait)?)
            }
            located => located,
        };
        if let Some(first) = nobody
            && judgement.reason() == first.reason
        {
            return Err(Refused { understood: judgement.understood(), ..first });
        }

        if judgement.outcome() == Outcome::Permit && judgement.lacks_secret() {
            return Err(Refused::new(
                ReasonCode::Unavailable,
                Step::Judge,
                "the secret that the system is reached with cannot be read",
            ));
        }

        // 6: what the answer changes.
        if is_dry {
            return Ok(None);
        }
        if !is_beyond {
            self.note_judged(judgement, &world.plan, wait)?;
        }
        let call = Changing { evidence: &ask.evidence, recorded: line, wait };
        judging.key =
            self.key_of(judgement, ask.idempotency_key, &judging, ask.task.or(in_body))?;
        self.settled(judgement, &judging, &call, located, implied)
    }

    /// 1: who acts, where nothing is asked of a system. What is presented for a system proves nothing there.
    ///
    /// Args: `agent`: who acts, where that is known without evidence; evidence may then prove nobody else.
    pub(crate) fn identify(
        &self,
        judgement: &mut Judgement,
        world: &Loaded,
        evidence: &[Evidence<'_>],
        agent: Option<AgentFacts>,
    ) -> Result<(), Refused> {
        self.identify_presented(judgement, world, evidence, agent)?;
        Self::refuse_credential(judgement)?;
        if !judgement.caller.facts.proofs.is_empty() {
            let message = "a proof is of an HTTP request, and this call tells of none";
            return Err(Refused::new(ReasonCode::BadProof, Step::Identify, message));
        }
        Ok(())
    }

    /// Refuses a task credential where nothing is asked of its system.
    pub(crate) fn refuse_credential(judgement: &Judgement) -> Result<(), Refused> {
        if judgement.caller.facts.credential.is_none() {
            return Ok(());
        }
        Err(Refused::new(
            ReasonCode::WrongAudience,
            Step::Identify,
            "a task credential is for its system, and shown to nobody else",
        ))
    }

    /// 1: who acts, and what it presents. What the token says is kept, whatever comes later.
    ///
    /// Args: `agent`: as of [`Engine::identify`].
    pub(crate) fn identify_presented(
        &self,
        judgement: &mut Judgement,
        world: &Loaded,
        evidence: &[Evidence<'_>],
        agent: Option<AgentFacts>,
    ) -> Result<(), Refused> {
        let revoked = self.keeper.revocations()?;
        revoke::of_asker(&revoked, &judgement.arrival.asker)?;
        let started = Instant::now();
        let now = seconds(judgement.arrival.now_ms);
        let verified = if evidence.is_empty() && agent.is_some() {
            Ok(authz_token::Facts::default())
        } else {
            let certificate = match &agent {
                Some(agent) => agent.certificate_digest,
                // An enforcer may show a token that is bound to its own key.
                None => judgement.arrival.asker.peer.as_ref().map(|peer| peer.certificate_digest),
            };
            self.verify(evidence, certificate, world, now)
        };
        let took = started.elapsed();
        self.metrics.verified(took);
        judgement.caller.verify_time = Some(took);
        let mut facts = verified.map_err(|refusal| {
            if let Some(owner) = &refusal.unknown_key {
                self.wanted.add(owner);
            }
            refused(&refusal)
        })?;
        if let Some(agent) = agent {
            if facts.agent.as_ref().is_some_and(|other| other.spiffe_id != agent.spiffe_id) {
                return Err(other_agent(agent.proof));
            }
            facts = facts.with_agent(agent).map_err(|refusal| refused(&refusal))?;
        }
        judgement.caller.chain = chain_of(&facts);
        judgement.caller.credential = facts.credential.as_ref().map(|credential| CredentialNote {
            jti: credential.jti.clone(),
            decision_id: String::new(),
            binding: credential.binding.map(Binding::method),
        });
        judgement.caller.facts = facts;
        revoke::of_callers(&revoked, &judgement.caller.facts)
    }

    /// Args: `certificate`: SHA-256 of the one that the agent showed to us, or to a proxy that is believed in that.
    fn verify(
        &self,
        evidence: &[Evidence<'_>],
        certificate: Option<[u8; 32]>,
        world: &Loaded,
        now: UnixTime,
    ) -> Result<authz_token::Facts, Refusal> {
        let (trust, cache) = (&world.trust, &self.tokens);
        if evidence.iter().all(|item| item.proof.is_none()) {
            let called = Presentation { certificate, ..Presentation::default() };
            return verify(evidence, &called, trust, cache, now);
        }
        self.with_nonces(world, now, |nonce| {
            verify(evidence, &Presentation { certificate, nonce }, trust, cache, now)
        })
    }

    /// Verifies with what proofs of possession are held to.
    pub(crate) fn with_nonces<R>(
        &self,
        world: &Loaded,
        now: UnixTime,
        verified: impl FnOnce(Nonces<'_>) -> R,
    ) -> R {
        let settings = world.dpop();
        let taken = self.nonces(now);
        let needed_before = if settings.require_nonce { UnixTime(i64::MAX) } else { self.started };
        // A store in memory forgets used proofs at the next start, and `started` is later than every
        // proof that is dated by then. A proof dated ahead of the clock could be used once more.
        let needed_after = if self.keeper.is_lasting() { UnixTime(i64::MAX) } else { now };
        let window = i64::from(settings.window);
        verified(Nonces { valid: &taken.all(), needed_before, needed_after, window })
    }

    /// The nonce that the next proof of possession should bring.
    #[must_use]
    pub fn dpop_nonce(&self) -> String {
        self.nonces(seconds(now_ms())).into_current()
    }

    /// The nonces of proofs that are taken now.
    pub(crate) fn nonces(&self, now: UnixTime) -> Taken {
        Taken::at(now, &self.keeper.store().secret())
    }

    /// The nonce that the next proof should bring, where the one that came did not.
    fn wanted_nonce(&self, judgement: &Judgement) -> Option<String> {
        let wanted = judgement.use_nonce();
        wanted.then(|| self.nonces(seconds(judgement.arrival.now_ms)).into_current())
    }

    /// The task credential that is presented, as its record stands.
    ///
    /// Args: `named`: the task that is named beside it, which must be its own.
    fn presented(
        &self,
        judgement: &Judgement,
        named: Option<&str>,
        wait: Wait,
    ) -> Result<Option<Presented>, Refused> {
        let Some(facts) = &judgement.caller.facts.credential else { return Ok(None) };
        if named.is_some_and(|task| task != facts.task) {
            return Err(Refused::new(
                ReasonCode::TaskConflict,
                Step::Locate,
                "the task credential is of another task than the one that is named",
            ));
        }
        presented::find(&self.keeper, facts, judgement.arrival.now(), wait).map(Some)
    }

    /// A caller that asks about itself may bring its credential as the call's own; two of one kind that differ prove
    /// nothing.
    ///
    /// Args: `is_known`: the caller is known by its certificate, so that the credential may be its subject's.
    pub(crate) fn add_own_authorization<'a>(
        &self,
        evidence: &mut Vec<Evidence<'a>>,
        transport: &Transport<'a>,
        world: &Loaded,
        is_known: bool,
    ) -> Result<(), Refused> {
        let Some(value) = transport.authorization else {
            return Ok(());
        };
        let (scheme, token) = ask::authorization(value)?;
        let (role, is_ours) = (world.role_of(token), world.is_ours(token));
        let of_kind = evidence.iter().find(|item| {
            // A task credential may stand beside what else proves its agent.
            (!is_known || item.role == role) && world.is_ours(item.token) == is_ours
        });
        match evidence.iter().find(|item| item.token == token).or(of_kind) {
            Some(item) if item.token == token => Ok(()),
            Some(_) => Err(Refused::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "the call's own credential is not the caller's, and whoever asks is no enforcer",
            )),
            None => {
                evidence.push(ask::credential(role, scheme, token, None, &self.settings)?);
                Ok(())
            }
        }
    }

    /// What stands in `authorization` beside an agent that is known without it: that agent's own credential again, its
    /// subject's, or one for the upstream alone, which is none of ours.
    fn add_authorization(&self, ask: &mut Ask<'_>, world: &Loaded) -> Result<(), Refused> {
        let Some(Authorization { value, proof }) = ask.authorization else {
            return Ok(());
        };
        if !ask::may_be_ours(value) {
            return Ok(());
        }
        let (scheme, token) = ask::authorization(value)?;
        let evidence = ask::credential(Role::Agent, scheme, token, proof, &self.settings)?;
        let role = match world.role_of(token) {
            Role::Agent => Role::Agent,
            Role::Subject if issuer_of(token).is_some_and(|iss| world.trust.has_issuer(&iss)) => {
                Role::Subject
            }
            Role::Subject => return Ok(()),
        };
        ask.evidence.push(Evidence { role, ..evidence });
        Ok(())
    }

    /// The whole chain needs a permit for `authz.probe`, and the caller has a rate.
    fn may_probe(&self, world: &Loaded, facts: &Facts<'_>, now: Time) -> Result<(), Refused> {
        let caller = facts.chain.last().map(name_of).unwrap_or_default();
        if !self.probes.admit(&caller, Instant::now()) {
            return Err(Refused::new(
                ReasonCode::Overloaded,
                Step::Judge,
                "the caller probes more often than it may",
            ));
        }
        let decision = decide(&world.plan, facts, &own(PROBE), now);
        if decision.outcome == Outcome::Permit && decision.reason == ReasonCode::Permitted {
            return Ok(());
        }
        let reason = match decision.reason.row().public_code {
            PublicCode::Permit | PublicCode::StepUp => ReasonCode::NotPermitted,
            _ => decision.reason,
        };
        Err(Refused::new(reason, Step::Judge, format!("`authz.probe`: {}", decision.message)))
    }

    /// Where a decision comes from.
    pub(crate) fn recorded(&self, transport: &Transport<'_>) -> Recorded {
        let peer = transport.peer.filter(|peer| peer.len() <= limits::PEER).unwrap_or_default();
        Recorded {
            peer: peer.to_owned(),
            trace: trace::ids(self.tracing.as_ref(), transport.trace_parent, transport.trace_state),
            lane: transport.lane,
        }
    }

    /// 7: queues the record, unless it went with the changes. What cannot be recorded is not permitted.
    fn record(
        &self,
        mut judgement: Box<Judgement>,
        evidence: &[Evidence<'_>],
        transport: &Transport<'_>,
        reply: Reply,
        line: Recorded,
        kept: Option<Kept>,
    ) -> Pending {
        let (ticket, waits) = match kept {
            Some(Kept { ticket, waits }) => (ticket, waits),
            None => (self.submit(&mut judgement, evidence, &line), Waits::Record),
        };
        // What is refused gave nothing for the proof; and a change that is kept later in the same store is not durable
        // before it.
        let proved = judgement.proved.take().filter(|_| {
            judgement.passage().is_some() && (ticket.is_none() || waits == Waits::Record)
        });
        Pending {
            judgement,
            line,
            reply,
            ticket,
            proved,
            waits,
            received: transport.received,
            deadline: transport.deadline(),
        }
    }

    fn submit(
        &self,
        judgement: &mut Judgement,
        evidence: &[Evidence<'_>],
        recorded: &Recorded,
    ) -> Option<Ticket> {
        let origin = recorded.origin(&self.settings);
        let durability = if judgement.resolved.tier.is_some_and(|tier| tier >= Tier::High) {
            Durability::Synced
        } else if judgement.outcome() == Outcome::Deny && judgement.passage().is_none() {
            Durability::BestEffort
        } else {
            Durability::Queued
        };
        if durability == Durability::BestEffort && self.is_summed(judgement, origin) {
            return None;
        }
        match self.queue(judgement, evidence, origin, None, durability) {
            Ok(ticket) => ticket,
            Err(error) => {
                judgement.refuse(unrecorded(error, Waits::Record));
                // Where a refusal finds no room, another one would find none either.
                if durability != Durability::BestEffort {
                    self.record_refusal(judgement, evidence, origin, None);
                }
                None
            }
        }
    }

    /// Makes a change and its record in one transaction.
    ///
    /// Args: `change`: reads, writes, and brings the decision to what the record shall say.
    ///
    /// Returns: none where there was nothing to change, and so nothing was recorded.
    pub(crate) fn change(
        &self,
        judgement: &mut Judgement,
        call: &Changing<'_>,
        locks: &[RecordKey],
        survives: Survives,
        change: &mut Change<'_>,
    ) -> Result<Option<Kept>, Refused> {
        let mut stopped = None;
        let mut kept = None;
        let durability = match survives {
            Survives::Crash => Durability::Queued,
            Survives::PowerLoss => Durability::Synced,
        };
        let waits = Instant::now();
        let mut work = |transaction: &mut dyn Transaction| {
            self.metrics.locked(waits.elapsed());
            match change(transaction, judgement) {
                Ok(()) => {}
                Err(Stop::Store(error)) => return Err(error),
                Err(Stop::Refused(refused)) => {
                    stopped = Some(refused);
                    return Ok(false);
                }
                Err(Stop::Unchanged) => return Ok(false),
            }
            let origin = call.recorded.origin(&self.settings);
            if self.keeper.has_outbox() {
                // The outbox takes any number of lines, but what nobody can read afterwards is not permitted.
                if !self.audit.is_writable() {
                    stopped = Some(unrecorded(AuditError::Failed, Waits::Record));
                    return Ok(false);
                }
                transaction.audit(record::line(judgement, call.evidence, origin, None));
                kept = Some(Kept { ticket: None, waits: Waits::Store });
                return Ok(true);
            }
            match self.queue(judgement, call.evidence, origin, None, durability) {
                Ok(ticket) => {
                    kept = Some(Kept { ticket, waits: Waits::Record });
                    Ok(true)
                }
                Err(error) => {
                    stopped = Some(unrecorded(error, Waits::Record));
                    Ok(false)
                }
            }
        };
        let commit = self.keeper.transact(locks, survives, call.wait, &mut work)?;
        if let Some(refused) = stopped {
            return Err(refused);
        }
        if let (Commit::Pending(ticket), Some(kept)) = (commit, &mut kept) {
            kept.ticket = Some(ticket);
        }
        Ok(kept)
    }

    /// Adds the record of one more decision to a change that is made with it.
    pub(crate) fn record_with(
        &self,
        transaction: &mut dyn Transaction,
        judgement: &Judgement,
        call: &Changing<'_>,
        survives: Survives,
    ) -> Result<(), Stop> {
        let origin = call.recorded.origin(&self.settings);
        if self.keeper.has_outbox() {
            transaction.audit(record::line(judgement, call.evidence, origin, None));
            return Ok(());
        }
        let durability = match survives {
            Survives::Crash => Durability::Queued,
            Survives::PowerLoss => Durability::Synced,
        };
        // Lines are synced in their order, so whoever waits for the last waits for this one too.
        match self.queue(judgement, call.evidence, origin, None, durability) {
            Ok(_) => Ok(()),
            Err(error) => Err(Stop::Refused(unrecorded(error, Waits::Record))),
        }
    }

    /// Records, waits, counts: a call that answers no decision of an operation ends here.
    pub(crate) fn conclude(
        &self,
        judgement: Box<Judgement>,
        evidence: &[Evidence<'_>],
        transport: &Transport<'_>,
        line: Recorded,
        kept: Option<Kept>,
    ) -> Box<Judgement> {
        let mut pending = self.record(judgement, evidence, transport, Reply::Own, line, kept);
        let recorded = self.wait(&mut pending);
        let Pending { judgement, line, waits, received, deadline, .. } = pending;
        let judgement = self.settle(judgement, &line, waits, deadline, recorded);
        self.count(&judgement, received, line.lane, line.trace.as_ref());
        judgement
    }

    /// The record of a refusal is written where the share of refusals has room; the writer counts those that were not.
    fn record_refusal(
        &self,
        judgement: &Judgement,
        evidence: &[Evidence<'_>],
        origin: Origin<'_>,
        instead_of: Option<Outcome>,
    ) {
        // What replaces an earlier record of the same decision stands beside it.
        if instead_of.is_some() || !self.is_summed(judgement, origin) {
            drop(self.queue(judgement, evidence, origin, instead_of, Durability::BestEffort));
        }
    }

    /// Counts a refusal whose caller proved nothing.
    ///
    /// Returns: whether it is summed up with others of the minute, and has no record of its own.
    fn is_summed(&self, judgement: &Judgement, origin: Origin<'_>) -> bool {
        let Some(row) = sums::row_of(judgement, origin.peer) else { return false };
        let is_summed = self.sums.take(row, judgement.arrival.now_ms);
        self.write_sums(self.sums.due(judgement.arrival.now_ms));
        is_summed
    }

    /// Writes the sums of minutes that are over.
    pub(crate) fn write_due_sums(&self) {
        self.write_sums(self.sums.due(now_ms()));
    }

    fn write_sums(&self, sums: Vec<(Row, Sum)>) {
        for (row, sum) in sums {
            let line = record::sum_line(&new_id(), now_ms(), &row, sum, &self.settings);
            match self.audit.submit(&line, Durability::BestEffort) {
                Ok(_) => self.metrics.summed(sum.count),
                Err(_) => self.sums.keep(row, sum),
            }
        }
    }

    /// Queues the record of a decision.
    fn queue(
        &self,
        judgement: &Judgement,
        evidence: &[Evidence<'_>],
        origin: Origin<'_>,
        instead_of: Option<Outcome>,
        durability: Durability,
    ) -> Result<Option<Ticket>, AuditError> {
        record::with_line(judgement, evidence, origin, instead_of, |line| {
            self.audit.submit(line, durability)
        })
    }

    /// Longest wait for a durable record, as a point in time.
    pub(crate) fn wait_until(&self, pending: &Pending) -> Instant {
        let most = Duration::from_millis(self.settings.audit_max_wait_ms);
        let now = Instant::now();
        let latest = now.checked_add(most).unwrap_or(now);
        pending.deadline.map_or(latest, |deadline| deadline.min(latest))
    }

    fn wait(&self, pending: &mut Pending) -> Result<(), AuditError> {
        let mut recorded = Ok(());
        while recorded.is_ok()
            && let Some((ticket, waits)) = pending.take_ticket()
        {
            recorded = ticket.wait(self.wait_until(pending));
            pending.failed_at(waits, recorded);
        }
        recorded
    }

    /// Answers, once it is known whether the record is durable.
    pub(crate) fn finish(&self, pending: Pending, recorded: Result<(), AuditError>) -> Vec<u8> {
        let Pending { judgement, line, reply, waits, received, deadline, .. } = pending;
        let judgement = self.settle(judgement, &line, waits, deadline, recorded);
        self.count(&judgement, received, line.lane, line.trace.as_ref());
        match reply {
            Reply::Own => {
                let decision = Some(answer::own(&judgement));
                let dpop_nonce = self.wanted_nonce(&judgement).unwrap_or_default();
                wire::CheckResponse { decision, dpop_nonce }.encode_to_vec()
            }
            Reply::Envoy { removed } => {
                let error_response = self.settings.envoy_error_response;
                let nonce = self.wanted_nonce(&judgement);
                answer::envoy(&judgement, &removed, error_response, nonce)
            }
        }
    }

    /// Turns a decision whose record is not durable into a denial, and says so in a second record.
    fn settle(
        &self,
        mut judgement: Box<Judgement>,
        recorded: &Recorded,
        waits: Waits,
        deadline: Option<Instant>,
        outcome: Result<(), AuditError>,
    ) -> Box<Judgement> {
        let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let outcome = match outcome {
            // Nobody waits any more: a permit that is not heard of must not stand in the records as one.
            Ok(())
                if is_late
                    && (judgement.outcome() != Outcome::Deny || judgement.passage().is_some()) =>
            {
                Err(AuditError::Late)
            }
            outcome => outcome,
        };
        if let Err(error) = outcome {
            let before = judgement.outcome();
            let waits = if is_late { Waits::Record } else { waits };
            judgement.refuse(unrecorded(error, waits));
            let origin = recorded.origin(&self.settings);
            self.record_refusal(&judgement, &[], origin, Some(before));
        }
        judgement
    }

    fn count(&self, judgement: &Judgement, received: Instant, lane: Lane, trace: Option<&Ids>) {
        self.metrics.decided(
            judgement.outcome(),
            judgement.reason(),
            judgement.resolved.system,
            judgement.resolved.tier,
            judgement.arrival.surface,
            judgement.softened().is_none(),
        );
        let took = received.elapsed();
        self.metrics.took(lane, judgement.arrival.surface, took);
        let agent = judgement.caller.facts.agent.as_ref().map(|agent| method_of(agent.proof));
        self.metrics.identified(judgement.arrival.asker.known, agent);
        if let Some((tracing, ids)) = self.tracing.as_ref().zip(trace) {
            tracing.end(ids, judgement, took);
        }
    }

    /// Judges a batch: SNAPSHOT, PROBE items, at most 100; anything else is BAD_INPUT for every item.
    ///
    /// Items that cannot be counted, or are too many, get one decision together.
    #[must_use]
    pub fn batch_check(&self, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        self.guarded(transport.lane, Surface::BatchCheck, || self.batch(request, transport))
    }

    fn batch(&self, request: &[u8], transport: &Transport<'_>) -> Vec<u8> {
        let world = self.world.load_full();
        let message = self.check_size(request).and_then(|()| {
            wire::BatchCheckRequest::decode(request)
                .map_err(|_| Refused::input("the bytes are no BatchCheckRequest"))
        });
        let (items, refused) = match message {
            Ok(message) => {
                let refused = batch_refusal(&message);
                (message.items, refused)
            }
            Err(refused) => (Vec::new(), Some(refused)),
        };
        let mut pending: Vec<Pending> = Vec::new();
        match refused {
            None => {
                for item in &items {
                    let world = world.clone();
                    pending.push(self.begin_own(Surface::BatchCheck, world, item, transport));
                }
            }
            Some(refused) => {
                let count = if items.len() > limits::BATCH { 1 } else { items.len().max(1) };
                for _ in 0..count {
                    let mut judgement =
                        self.judgement(Surface::BatchCheck, world.clone(), transport);
                    self.refuse_unless_unready(&mut judgement, transport, refused.clone());
                    let line = self.recorded(transport);
                    pending.push(self.record(judgement, &[], transport, Reply::Own, line, None));
                }
            }
        }
        let mut decisions = Vec::with_capacity(pending.len());
        for mut item in pending {
            let recorded = self.wait(&mut item);
            let (line, waits) = (&item.line, item.waits);
            let judgement = self.settle(item.judgement, line, waits, item.deadline, recorded);
            self.count(&judgement, item.received, item.line.lane, item.line.trace.as_ref());
            decisions.push(answer::own(&judgement));
        }
        wire::BatchCheckResponse { decisions }.encode_to_vec()
    }

    /// Judges without effect and tells everything; the answer is an `authz.v1.ExplainResponse`.
    ///
    /// # Errors
    /// The listener is no administration listener, whoever asks has no permit for `authz.explain`, or the request cannot
    /// be explained in this version.
    pub fn explain(&self, request: &[u8], transport: &Transport<'_>) -> Result<Vec<u8>, ApiError> {
        catch_unwind(AssertUnwindSafe(|| self.try_explain(request, transport)))
            .unwrap_or_else(|_| Err(self.failed_inside()))
    }

    fn try_explain(&self, request: &[u8], transport: &Transport<'_>) -> Result<Vec<u8>, ApiError> {
        let world = self.world.load_full();
        self.may_explain(world.clone(), transport)?;
        let bad = |message: &str| ApiError::of(ReasonCode::BadInput, message);
        self.check_size(request).map_err(|refused| bad(&refused.message))?;
        let message = wire::ExplainRequest::decode(request)
            .map_err(|_| bad("the bytes are no ExplainRequest"))?;
        if message.overrides.is_some_and(|overrides| !overrides.fields.is_empty()) {
            return Err(bad("`overrides` is not in this version"));
        }
        let check = match message.subject {
            Some(wire::explain_request::Subject::Check(check)) => check,
            Some(wire::explain_request::Subject::DecisionId(_)) => {
                return Err(bad("`decision_id` is not in this version; send the request itself"));
            }
            None => return Err(bad("give `check`")),
        };
        let mut judgement = self.judgement(Surface::Explain, world, transport);
        judgement.arrival.asks_itself = false;
        let line = self.recorded(transport);
        let judgement = match ask::of_request(&check, &self.settings) {
            Ok(mut ask) => {
                ask.probe = true;
                let kept = self.judge(&mut judgement, &mut ask, transport, &line, true);
                self.conclude(judgement, &ask.evidence, transport, line, kept)
            }
            Err(refused) => {
                self.refuse_unless_unready(&mut judgement, transport, refused);
                self.conclude(judgement, &[], transport, line, None)
            }
        };
        let facts = record::facts_of(&judgement);
        let facts =
            serde_json::to_vec(&serde_json::json!({ "arguments": facts })).unwrap_or_default();
        let mut decision = answer::decision(&judgement);
        decision.detail = Some(answer::detail(&judgement, facts));
        Ok(wire::ExplainResponse { decision: Some(decision) }.encode_to_vec())
    }

    /// Whoever explains is known, and policy lets it. That judgement is a decision with a record of its own.
    fn may_explain(
        &self,
        world: Option<Arc<Loaded>>,
        transport: &Transport<'_>,
    ) -> Result<(), ApiError> {
        let mut judgement = self.judgement(Surface::Explain, world, transport);
        EXPLAIN.clone_into(&mut judgement.resolved.operation);
        if let Err(refused) = self.try_explainer(&mut judgement, transport) {
            judgement.refuse(refused);
        }
        let line = self.recorded(transport);
        let judgement = self.conclude(judgement, &[], transport, line, None);
        match judgement.permit() {
            Some(_) => Ok(()),
            None => Err(ApiError::of(judgement.reason(), judgement.message())),
        }
    }

    fn try_explainer(
        &self,
        judgement: &mut Judgement,
        transport: &Transport<'_>,
    ) -> Result<(), Refused> {
        let world = self.admit(judgement, transport)?;
        if !world.way(transport.listener).is_some_and(|way| way.admin) {
            return Err(Refused::new(
                ReasonCode::EnforcerRefused,
                Step::Identify,
                "only an administration listener explains",
            ));
        }
        let Some(value) = transport.authorization else {
            return Err(Refused::new(
                ReasonCode::NoCredential,
                Step::Identify,
                "there is no `authorization` metadata",
            ));
        };
        let (scheme, token) = ask::authorization(value)?;
        let role = world.role_of(token);
        let evidence = ask::credential(role, scheme, token, None, &self.settings)?;
        self.identify(judgement, &world, &[evidence], None)?;
        let chain = std::mem::take(&mut judgement.caller.chain);
        let facts = kernel_facts(judgement, &chain, None, None);
        let decision = decide(&world.plan, &facts, &own(EXPLAIN), judgement.arrival.now());
        judgement.caller.chain = chain;
        judgement.decided(decision);
        in_time(transport, Step::Judge)
    }

    /// A ready answer for a request that is not judged: OVERLOADED, DEADLINE or UNAVAILABLE, always a denial.
    ///
    /// Counted and recorded; never waits.
    #[must_use]
    pub fn refusal(&self, surface: Surface, reason: ReasonCode) -> Vec<u8> {
        self.refuse(Lane::Python, surface, reason)
    }

    /// As [`Engine::refusal`], of either lane.
    pub(crate) fn refuse(&self, lane: Lane, surface: Surface, reason: ReasonCode) -> Vec<u8> {
        let reason = match reason {
            ReasonCode::Overloaded | ReasonCode::Deadline => reason,
            _ => ReasonCode::Unavailable,
        };
        let received = Instant::now();
        let world = self.world.load_full();
        let mut judgement = self.judgement(surface, world, &Transport::by(""));
        judgement.refuse(Refused::new(reason, Step::Identify, reason.row().title));
        let line = Recorded { peer: String::new(), trace: None, lane };
        self.record_refusal(&judgement, &[], line.origin(&self.settings), None);
        self.count(&judgement, received, lane, None);
        match surface {
            Surface::ExtAuthz => {
                let removed = Removed::default();
                answer::envoy(&judgement, &removed, self.settings.envoy_error_response, None)
            }
            Surface::BatchCheck => {
                let decisions = vec![answer::decision(&judgement)];
                wire::BatchCheckResponse { decisions }.encode_to_vec()
            }
            Surface::Check => {
                let decision = Some(answer::decision(&judgement));
                wire::CheckResponse { decision, ..Default::default() }.encode_to_vec()
            }
            // Calls that answer no decision.
            _ => {
                let decision = Some(answer::decision(&judgement));
                wire::ExplainResponse { decision }.encode_to_vec()
            }
        }
    }

    /// How the engine stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let audit = self.audit.health();
        let world = self.world.load_full();
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        if world.is_none() {
            problems.push("no bundle is loaded".to_owned());
        }
        if !audit.writable {
            problems.push(format!("the audit file cannot be written: {}", audit.last_error));
        }
        if !audit.torn_file.is_empty() {
            warnings.push(format!(
                "the audit file ended in half a record; {} bytes are kept in `{}`",
                audit.torn_bytes, audit.torn_file
            ));
        }
        let state = self.keeper.store().health();
        if !state.reachable || !state.writable {
            problems.push(format!("the store of tasks is out of reach: {}", state.last_error));
        }
        if let Err(refused) = self.keeper.revocations() {
            problems.push(refused.message);
        }
        problems.extend(self.parts().iter().flat_map(|part| part.problems()));
        warnings.extend(state.warnings.iter().cloned());
        if self.is_nearly_full() {
            let most = self.keeper.settings().max_tasks;
            warnings.push(format!(
                "the store holds {} tasks, live and ended, of at most {most} (`state.max_tasks`)",
                state.tasks
            ));
        }
        if !self.keeper.is_lasting() {
            warnings.push(
                "tasks and revocations are kept in memory alone, and end with the process \
                 (`state.engine: memory`)"
                    .to_owned(),
            );
        }
        let mut listeners = Vec::new();
        if let Some(world) = &world {
            for system in &world.unknown_systems {
                warnings
                    .push(format!("an enforcer asks about `{system}`, which the bundle has not"));
            }
            for warning in world.trust.warnings() {
                warnings.push(warning.to_string());
            }
            let named = world.credentials.iter().flat_map(CredentialSettings::systems);
            for system in named.filter(|system| !world.plan.systems().contains_key(*system)) {
                warnings.push(format!("`credentials` names `{system}`, which the bundle has not"));
            }
            for (name, way) in world.listeners() {
                let what = match &way.enforcer {
                    _ if way.insecure_dev => "anybody is an enforcer (insecure_dev)",
                    Some(_) => "enforcer",
                    None if way.mutual => "callers are who their certificate says",
                    None if way.http => "clients of token endpoints",
                    None => "callers ask about themselves",
                };
                if way.insecure_dev {
                    warnings.push(format!("listener `{name}` is insecure_dev"));
                }
                listeners.push(format!("{name}: {what}"));
            }
        }
        Status {
            ready: problems.is_empty(),
            problems,
            warnings,
            version: self.settings.version.clone(),
            build_profile: crate::build_profile(),
            bundle_name: world.as_ref().map_or_else(String::new, |world| world.name.clone()),
            bundle_revision: world
                .as_ref()
                .map_or_else(String::new, |world| world.revision.clone()),
            bundle_digest: world.as_ref().map_or_else(String::new, |world| world.digest.clone()),
            trust_revision: world
                .as_ref()
                .map_or_else(String::new, |world| world.trust.revision().to_owned()),
            listeners,
            audit,
            state,
            revocations: self.keeper.store().revocations().len(),
            token_cache_hits: self.tokens.hits(),
            token_cache_misses: self.tokens.misses(),
            panics: self.metrics.panics(),
        }
    }

    /// What was counted.
    #[must_use]
    pub fn metrics(&self) -> Vec<Family> {
        let now = Time(now_ms());
        let world = self.world.load();
        let modes = world.as_ref().map(|world| &world.plan.model().modes);
        let ends = || {
            let entries = modes.into_iter().flat_map(|modes| modes.entries());
            entries.filter(|(_, entry)| entry.observes(now)).filter_map(|(_, entry)| entry.until)
        };
        let mut families = self.metrics.families(&Gauges {
            observing: ends().count() as u64,
            observing_until: ends().min().map_or(0, |end| end.0.div_euclid(1_000).unsigned_abs()),
            tokens: (self.tokens.hits(), self.tokens.misses()),
            certificates: (self.certificates.hits(), self.certificates.misses()),
            audit: &self.audit.health(),
            state: &self.keeper.store().health(),
            max_tasks: self.keeper.settings().max_tasks,
            staleness: self.keeper.store().staleness(),
            revocations: self.keeper.store().revocations().len() as u64,
            spans_dropped: self.tracing.as_ref().map_or(0, Tracing::dropped),
            version: &self.settings.version,
        });
        families.extend(self.parts().iter().flat_map(|part| part.families()));
        families
    }

    /// Takes the oldest spans that wait to be exported, at most so many; none where there are no traces.
    #[must_use]
    pub fn spans(&self, most: usize) -> Vec<Span> {
        self.tracing.as_ref().map_or_else(Vec::new, |tracing| tracing.take(most))
    }

    /// Writes and syncs the audit queue. Later requests are denied, since nothing can record them. Idempotent.
    pub fn close(&self) {
        self.keeper.store().close();
        self.write_sums(self.sums.all());
        self.audit.close();
    }
}

/// A UUIDv7.
fn new_id() -> String {
    Uuid::now_v7().hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

/// Milliseconds since 1970; 0 where the clock says less.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// Whole seconds of a time in milliseconds.
const fn seconds(now_ms: i64) -> UnixTime {
    UnixTime(now_ms.div_euclid(1_000))
}

pub(crate) fn refused(refusal: &Refusal) -> Refused {
    let reason = refusal_reason(refusal.reason);
    let use_nonce = refusal.reason == RefusalReason::UseNonce;
    Refused { use_nonce, ..Refused::new(reason, Step::Identify, refusal.to_string()) }
}

/// Evidence proves another agent than the one that is known without it.
fn other_agent(known_by: AgentProof) -> Refused {
    match known_by {
        AgentProof::JwtSvid | AgentProof::X509Svid | AgentProof::TaskCredential => Refused::new(
            ReasonCode::EnforcerRefused,
            Step::Identify,
            "the evidence is another agent's than the one that asks, which is no enforcer",
        ),
        AgentProof::Relayed => {
            Refused::credential("`authorization` is another agent's than the one that is relayed")
        }
    }
}

/// Notes what is known of a request that no route makes an operation of, and why that is so.
fn unrouted(
    judgement: &mut Judgement,
    world: &Loaded,
    http: &HttpRequest<'_>,
    error: &RouteError,
) -> Refused {
    if error.reason == ReasonCode::NoRoute {
        judgement.resolved.asked = Some(Asked::http(http));
    }
    let is_limited =
        || judgement.arrival.asker.enforcer.as_ref().is_some_and(|one| one.is_limited());
    let observes = || world.plan.model().modes.any_observes(judgement.arrival.now());
    if let Some(message) = &error.mcp {
        message.system.clone_into(&mut judgement.resolved.unknown_in);
        judgement.resolved.asked = message.missing.as_deref().map(Asked::operation);
        judgement.resolved.mcp = Some((**message).clone());
    } else if error.operation.is_empty() && (is_limited() || observes()) {
        let Served { systems, has_others } = world.plan.systems_at(http.host);
        let others = has_others.then(String::new);
        judgement.resolved.may_be_for =
            systems.into_iter().map(str::to_owned).chain(others).collect();
    }
    let refused = Refused::new(error.reason, Step::Resolve, error.message.as_str());
    Refused { understood: error.understood, ..refused }
}

/// Refuses what the enforcer may not ask about: where the system is not certain, whatever it could be must be allowed.
/// Whoever asks about itself may ask about every system.
fn may_ask(judgement: &Judgement, operation: &str) -> Result<(), Refused> {
    let Some(enforcer) = &judgement.arrival.asker.enforcer else { return Ok(()) };
    let may_ask = match (operation, judgement.resolved.unknown_in.as_str()) {
        ("", "") => enforcer.may_ask_about_any(&judgement.resolved.may_be_for),
        ("", _) => enforcer.may_ask_about_any(std::slice::from_ref(&judgement.resolved.unknown_in)),
        (operation, _) => enforcer.may_ask(operation),
    };
    if may_ask {
        return Ok(());
    }
    Err(Refused::new(
        ReasonCode::EnforcerRefused,
        Step::Identify,
        "the enforcer does not ask about this system, or it is not certain which one it is",
    ))
}

/// The refusal of a request of nobody that is also refused for what it asks: the first counts, and is let through only
/// where both may be.
fn instead(nobody: Option<&Refused>, refused: Refused) -> Refused {
    let Some(first) = nobody else { return refused };
    let understood = refused.understood && may_soften(refused.reason);
    let message = match understood {
        true => first.message.clone(),
        false => {
            format!("{}; nor can the request be let through: {}", first.message, refused.message)
        }
    };
    Refused { understood, message, ..first.clone() }
}

fn in_time(transport: &Transport<'_>, step: Step) -> Result<(), Refused> {
    if transport.is_late() {
        return Err(Refused::new(ReasonCode::Deadline, step, "the caller's deadline passed"));
    }
    Ok(())
}

fn batch_refusal(message: &wire::BatchCheckRequest) -> Option<Refused> {
    let refuse = |what: &str| Some(Refused::input(what));
    match wire::BatchMode::try_from(message.mode) {
        Ok(wire::BatchMode::Snapshot) => {}
        Ok(wire::BatchMode::Sequence) => return refuse("SEQUENCE is not in this version"),
        _ => return refuse("`mode` is not SNAPSHOT"),
    }
    if message.items.is_empty() {
        return refuse("there are no items");
    }
    if message.items.len() > limits::BATCH {
        return refuse("there are more than 100 items");
    }
    let all_probe = message.items.iter().all(|item| item.mode == wire::Mode::Probe as i32);
    if !all_probe {
        return refuse("every item of a SNAPSHOT must say PROBE");
    }
    None
}

/// Notes the labels that the call carries, on the word of whoever asks, if it is believed in that.
fn take_labels(
    judgement: &mut Judgement,
    labels: &[&str],
    world: &Loaded,
    explain: bool,
) -> Result<(), Refused> {
    let relays = |enforcer: &Arc<Enforcer>| enforcer.relays_labels;
    let is_believed = explain || judgement.arrival.asker.enforcer.as_ref().is_some_and(relays);
    if !labels.is_empty() && !is_believed {
        return Err(Refused::new(
            ReasonCode::EnforcerRefused,
            Step::Identify,
            "whoever asks may not say which labels a call carries",
        ));
    }
    // One that the bundle does not have is refused where it is judged, and may be any text.
    let known = &world.plan.model().labels;
    let known = labels.iter().filter(|label| known.contains_key(**label));
    judgement.caller.declared_labels = known.map(|label| (*label).to_owned()).collect();
    Ok(())
}

/// A request for one of our own operations.
pub(crate) const fn own(operation: &str) -> Request<'_> {
    Request {
        operation,
        arguments: Given::Json(b""),
        resource: None,
        destinations: &[],
        labels: &[],
        supported_obligations: &[],
        server_task: ServerTask::None,
    }
}

fn unrecorded(error: AuditError, waits: Waits) -> Refused {
    let (reason, message) = match (waits, error) {
        (Waits::Record, AuditError::Full | AuditError::Failed) => {
            (ReasonCode::AuditFull, error.to_string())
        }
        (Waits::Record, AuditError::Late) => (ReasonCode::Deadline, error.to_string()),
        (Waits::Store, AuditError::Full | AuditError::Failed) => {
            (ReasonCode::StateUnavailable, "the store could not keep the change".to_owned())
        }
        (Waits::Store, AuditError::Late) => {
            (ReasonCode::StoreSlow, "the change was not kept in time".to_owned())
        }
    };
    Refused::new(reason, Step::Record, message)
}

const fn refusal_reason(reason: RefusalReason) -> ReasonCode {
    match reason {
        RefusalReason::NoCredential => ReasonCode::NoCredential,
        RefusalReason::BadCredential => ReasonCode::BadCredential,
        RefusalReason::ExpiredCredential => ReasonCode::ExpiredCredential,
        RefusalReason::WrongAudience => ReasonCode::WrongAudience,
        RefusalReason::UntrustedIssuer => ReasonCode::UntrustedIssuer,
        RefusalReason::UnboundCredential => ReasonCode::UnboundCredential,
        RefusalReason::BadProof | RefusalReason::UseNonce => ReasonCode::BadProof,
    }
}

impl Loaded {
    /// Under which profile a call's own credential is verified: its claims, read before anything is believed, only choose;
    /// each profile refuses the other's tokens.
    pub(crate) fn role_of(&self, token: &str) -> Role {
        let is_svid = claimed(token, "sub").is_some_and(|sub| sub.starts_with("spiffe://"));
        if is_svid || self.is_ours(token) { Role::Agent } else { Role::Subject }
    }

    /// Whether a token says that it is a task credential of ours, before anything is believed.
    fn is_ours(&self, token: &str) -> bool {
        let own = self.credentials.as_ref().map(|settings| settings.issuer.as_str());
        own.is_some_and(|own| issuer_of(token).is_some_and(|issuer| issuer == own))
    }
}

/// Who is said to have issued a token, before anything is believed.
fn issuer_of(token: &str) -> Option<String> {
    claimed(token, "iss")
}

/// A text among the claims of a token that nobody has verified.
fn claimed(token: &str, name: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    Some(claims.get(name)?.as_str()?.to_owned())
}

pub(crate) fn chain_of(facts: &authz_token::Facts) -> Vec<Principal> {
    let mut chain = Vec::with_capacity(2);
    if let Some(subject) = &facts.subject {
        let known = subject.made.once(|| subject_of(subject));
        chain.push(match subject.kind {
            SubjectKind::User => Principal::User(known),
            SubjectKind::Service => Principal::Service(known),
        });
    }
    if let Some(agent) = &facts.agent {
        chain.push(Principal::Agent {
            spiffe_id: agent.spiffe_id.clone(),
            trust_domain: agent.trust_domain.clone(),
        });
    }
    chain
}

/// A subject as policy knows it.
pub(crate) fn subject_of(facts: &SubjectFacts) -> Subject {
    let claims = facts.claims.iter().map(|(name, value)| {
        let claim = match value {
            ClaimValue::Bool(value) => Claim::Bool(*value),
            ClaimValue::Long(value) => Claim::Long(*value),
            ClaimValue::String(text) => Claim::Text(text.clone()),
            ClaimValue::Set(texts) => Claim::Texts(texts.iter().cloned().collect()),
        };
        (name.clone(), claim)
    });
    Subject {
        issuer: facts.issuer.clone(),
        sub: facts.sub.clone(),
        claims: claims.collect(),
        narrowed: Vec::new(),
    }
}

/// The facts as policy reads them. Nothing raises confidence in this version.
///
/// Args: `task`: the task that the chain is of. `key`: that of the literals of tasks.
pub(crate) fn kernel_facts<'a>(
    judgement: &'a Judgement,
    chain: &'a [Principal],
    task: Option<TaskView<'a>>,
    key: Option<&'a [u8; 32]>,
) -> Facts<'a> {
    let agent = judgement.caller.facts.agent.as_ref();
    let subject = judgement.caller.facts.subject.as_ref();
    let issued_at = match agent {
        Some(agent) => agent.issued_at,
        None => subject.and_then(|subject| subject.issued_at),
    };
    let now = judgement.arrival.now_ms.div_euclid(1_000);
    let of_task = || task.and_then(|view| view.task.subject.as_ref());
    let acr = match subject {
        Some(subject) => subject.acr.as_deref(),
        None => of_task().map(|subject| subject.acr.as_str()),
    };
    Facts {
        enforcer: judgement.arrival.asker.name(),
        chain,
        proof: Proof {
            method: agent.map_or(ProofMethod::Jwt, |agent| method_of(agent.proof)),
            // Whoever speaks TLS by a certificate holds its key.
            bound: agent.is_some_and(|agent| agent.bound || agent.certificate_digest.is_some()),
            age: issued_at.map(|issued_at| now.saturating_sub(issued_at).max(0)),
            acr: acr.unwrap_or_default(),
        },
        confidence: 0,
        task,
        subject_proof: None,
        history: None,
        literal_key: key,
        directories: None,
        granted: None,
    }
}
