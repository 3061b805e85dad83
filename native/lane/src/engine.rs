//! The engine: what both listeners call. A call is decided by the stages of [`crate::steps`].

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use authz_kernel::decide::decide;
use authz_kernel::decision::{Given, Request, Time};
use authz_kernel::mcp::ServerTask;
use authz_kernel::reason::ReasonCode;
use authz_state::store::{Store, StoreHealth};
use authz_state::{AuditError, AuditHealth, AuditSettings, AuditWriter};
use authz_token::{KeyOwner, PeerCache, TokenCache, UnixTime};
use prost::Message;
use serde::Serialize;
use uuid::Uuid;

use crate::answer;
use crate::ask::{self, Ask, Refused, Step};
use crate::envoy::{self, Removed};
use crate::judgement::Judgement;
use crate::keeper::Keeper;
use crate::limits;
use crate::metrics::{Family, Gauges, Metrics};
use crate::nonce::Taken;
use crate::on_behalf::Acted;
use crate::probe::ProbeRate;
use crate::proto::authz::v1 as wire;
use crate::record;
use crate::reserving::OpenPermits;
use crate::settings::{CredentialSettings, EngineError, Lane, Settings, Surface};
use crate::steps::admit::Arrival;
use crate::steps::judge::kernel_facts;
use crate::steps::record::{Pending, Recorded, Reply};
use crate::steps::{self, Call, in_time};
use crate::sums::Sums;
use crate::trace::{Span, Tracing};
use crate::wanted::Wanted;
use crate::world::{Loaded, World};

#[path = "list.rs"]
mod list;

/// The operations of ours that policy judges.
pub(crate) const PROBE: &str = "authz.probe";
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

    pub(crate) fn is_late(&self) -> bool {
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
    pub(crate) world: ArcSwapOption<Loaded>,
    pub(crate) tokens: TokenCache,
    pub(crate) certificates: PeerCache,
    pub(crate) audit: Arc<AuditWriter>,
    pub(crate) sums: Sums,
    pub(crate) keeper: Keeper,
    pub(crate) metrics: Metrics,
    pub(crate) probes: ProbeRate,
    pub(crate) open_permits: OpenPermits,
    pub(crate) keys: ProbeRate,
    pub(crate) acted: Acted,
    pub(crate) wanted: Wanted,
    pub(crate) tracing: Option<Tracing>,
    /// Servers that ask it, and have problems and counters of their own.
    parts: RwLock<Vec<Weak<dyn Part>>>,
    /// Proofs made before are believed with a nonce only: which ones were taken may be forgotten.
    pub(crate) started: UnixTime,
}

/// A server that asks the engine.
pub(crate) trait Part: fmt::Debug + Send + Sync {
    /// Why it is not ready.
    fn problems(&self) -> Vec<String>;
    /// What it counted.
    fn families(&self) -> Vec<Family>;
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

    /// Decides a call and queues its record; `surface` is `Check` or `ExtAuthz`.
    pub(crate) fn begin(
        &self,
        surface: Surface,
        request: &[u8],
        transport: &Transport<'_>,
    ) -> Pending {
        let arrival = self.arrival(surface, self.world(), transport);
        if surface == Surface::ExtAuthz {
            return self.begin_envoy(arrival, request, transport);
        }
        let message = self.check_size(request).and_then(|()| {
            wire::CheckRequest::decode(request)
                .map_err(|_| Refused::input("the bytes are no CheckRequest"))
        });
        match message {
            Ok(message) => self.begin_own(arrival, &message, transport),
            Err(refused) => self.refuse_message(arrival, transport, refused, Reply::Own),
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
        arrival: Arrival,
        message: &wire::CheckRequest,
        transport: &Transport<'_>,
    ) -> Pending {
        let ask = match ask::of_request(message, &self.settings) {
            Ok(ask) => ask,
            Err(refused) => return self.refuse_message(arrival, transport, refused, Reply::Own),
        };
        let line = self.recorded(transport);
        let call = Call { ask: &ask, transport, recorded: &line, explain: false };
        let ended = steps::decide(self, &call, arrival);
        self.record(ended, transport, Reply::Own, line)
    }

    fn begin_envoy(&self, arrival: Arrival, request: &[u8], transport: &Transport<'_>) -> Pending {
        let message = self.check_size(request).and_then(|()| {
            envoy::Request::read(request)
                .map_err(|_| Refused::input("the bytes are no ext_authz CheckRequest"))
        });
        let relays = envoy::Relays::of(arrival.asker.enforcer.as_deref());
        let parsed = match &message {
            Ok(message) => envoy::of_request(message, &self.settings, relays),
            Err(refused) => Err(refused.clone()),
        };
        let mut parsed = match parsed {
            Ok(parsed) => parsed,
            Err(refused) => {
                let reply = Reply::Envoy { removed: Removed::default() };
                return self.refuse_message(arrival, transport, refused, reply);
            }
        };
        let transport = &parsed.trace.over(transport);
        let line = self.recorded(transport);
        let call = Call { ask: &parsed.ask, transport, recorded: &line, explain: false };
        let ended = steps::decide(self, &call, arrival);
        let removed = parsed.removed(&ended.record, &ended.evidence);
        self.record(ended, transport, Reply::Envoy { removed }, line)
    }

    /// Records a call whose message cannot be read.
    fn refuse_message(
        &self,
        arrival: Arrival,
        transport: &Transport<'_>,
        refused: Refused,
        reply: Reply,
    ) -> Pending {
        let ended = steps::admit::refuse_unread(self, transport, arrival, refused);
        self.record(ended, transport, reply, self.recorded(transport))
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
                    let arrival = self.arrival(Surface::BatchCheck, world.clone(), transport);
                    pending.push(self.begin_own(arrival, item, transport));
                }
            }
            Some(refused) => {
                let count = if items.len() > limits::BATCH { 1 } else { items.len().max(1) };
                for _ in 0..count {
                    let arrival = self.arrival(Surface::BatchCheck, world.clone(), transport);
                    let refused = refused.clone();
                    pending.push(self.refuse_message(arrival, transport, refused, Reply::Own));
                }
            }
        }
        let mut decisions = Vec::with_capacity(pending.len());
        for mut item in pending {
            let recorded = self.wait(&mut item);
            let judgement = self.end_call(item, recorded);
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
        let mut arrival = self.arrival(Surface::Explain, world, transport);
        arrival.asks_itself = false;
        let line = self.recorded(transport);
        let ask = ask::of_request(&check, &self.settings).map(|ask| Ask { probe: true, ..ask });
        let ended = match &ask {
            Ok(ask) => {
                let call = Call { ask, transport, recorded: &line, explain: true };
                steps::decide(self, &call, arrival)
            }
            Err(refused) => steps::admit::refuse_unread(self, transport, arrival, refused.clone()),
        };
        let judgement = self.conclude_ended(ended, transport, line);
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
        let world = self.admit(&judgement.arrival, transport)?;
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
        let facts = kernel_facts(judgement, &judgement.caller.chain, None, None);
        let decision = decide(&world.plan, &facts, &own(EXPLAIN), judgement.arrival.now());
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
        let mut judgement = self.judgement(surface, self.world(), &Transport::by(""));
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
pub(crate) fn new_id() -> String {
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
pub(crate) const fn seconds(now_ms: i64) -> UnixTime {
    UnixTime(now_ms.div_euclid(1_000))
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
