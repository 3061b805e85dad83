//! The engine, which both servers call. The stages of [`crate::steps`] decide each call.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, RwLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use authz_kernel::decision::{Given, Request};
use authz_kernel::mcp::ServerTask;
use authz_kernel::reason::ReasonCode;
use authz_state::store::Store;
use authz_state::{AuditError, AuditLog, AuditSettings, AuditWriter};
use authz_token::{KeyOwner, PeerCache, TokenCache, UnixTime};
use prost::Message;

use crate::answer;
use crate::ask::{self, Refused, Step};
use crate::clock::{Clock, SystemClock};
use crate::envoy::{self, Removed};
use crate::judgement::Arrival;
use crate::keeper::{Keeper, Wait};
use crate::metrics::Metrics;
use crate::nonce::Taken;
use crate::on_behalf::Acted;
use crate::probe::ProbeRate;
use crate::proto::authz::v1 as wire;
use crate::refused_agent::AgentClaim;
use crate::reserving::OpenPermits;
use crate::settings::{EngineError, Lane, Settings, Surface};
use crate::status::Part;
use crate::steps::record::{Pending, RecordOrigin, Reply};
use crate::steps::{self, Call};
use crate::sums::Sums;
use crate::trace::Tracing;
use crate::transport::{ApiError, Transport};
use crate::wanted::Wanted;
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
    pub(crate) sums: Sums,
    pub(crate) keeper: Keeper,
    pub(crate) metrics: Metrics,
    pub(crate) probes: ProbeRate,
    pub(crate) open_permits: OpenPermits,
    pub(crate) keys: ProbeRate,
    pub(crate) acted: Acted,
    pub(crate) wanted: Wanted,
    pub(crate) tracing: Option<Tracing>,
    /// Servers in front of the engine.
    pub(crate) parts: RwLock<Vec<Weak<dyn Part>>>,
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
        let loaded = Loaded::new(world, &self.metrics)?;
        self.world.store(Some(Arc::new(loaded)));
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

    /// Answers a call that answers no decision: lists, reports, revocations, tasks and credentials.
    ///
    /// # Errors
    /// The call is refused.
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

    /// Whether the enforcer of a listener is a front end, which may start and extend tasks there.
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
        self.wanted.add(owner);
    }

    /// Runs a function that answers. If it panics, the answer is a denial.
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
            Err(refused) => {
                self.refuse_message(arrival, transport, AgentClaim::default(), refused, Reply::Own)
            }
        }
    }

    /// Time that has passed since a monotonic time.
    pub(crate) fn took(&self, since: Instant) -> Duration {
        self.clock.elapsed_since(since)
    }

    /// How long a call may wait for the store.
    pub(crate) fn wait_of(&self, transport: &Transport<'_>) -> Wait {
        let now = self.clock.monotonic();
        Wait { until: self.keeper.until(now, transport.deadline()), lane: transport.lane }
    }

    pub(crate) fn check_size(&self, request: &[u8]) -> Result<(), Refused> {
        let most = self.settings.max_message_bytes;
        if request.len() > most {
            return Err(Refused::input(format!("the request is longer than {most} bytes")));
        }
        Ok(())
    }

    pub(crate) fn begin_own(
        &self,
        arrival: Arrival,
        message: &wire::CheckRequest,
        transport: &Transport<'_>,
    ) -> Pending {
        let ask = match ask::of_request(message, &self.settings) {
            Ok(ask) => ask,
            Err(refused) => {
                let claim = ask::agent_claim(&message.evidence, &self.settings);
                return self.refuse_message(arrival, transport, claim, refused, Reply::Own);
            }
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
                let claim = message.as_ref().ok();
                let claim = claim.map(|one| envoy::agent_claim(one, &self.settings, relays));
                let claim = claim.unwrap_or_default();
                return self.refuse_message(arrival, transport, claim, refused, reply);
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
    pub(crate) fn refuse_message(
        &self,
        arrival: Arrival,
        transport: &Transport<'_>,
        claim: AgentClaim<'_>,
        refused: Refused,
        reply: Reply,
    ) -> Pending {
        let ended = steps::admit::refuse_unread(self, transport, arrival, claim, refused);
        self.record(ended, transport, reply, self.recorded(transport))
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

    /// A ready answer for a request that is not judged: OVERLOADED, DEADLINE or UNAVAILABLE, always a denial.
    ///
    /// Counted and recorded; never waits.
    #[must_use]
    pub fn refusal(&self, surface: Surface, reason: ReasonCode) -> Vec<u8> {
        self.refuse(Lane::Python, surface, reason)
    }

    /// As [`Engine::refusal`], for either server.
    pub(crate) fn refuse(&self, lane: Lane, surface: Surface, reason: ReasonCode) -> Vec<u8> {
        let reason = match reason {
            ReasonCode::Overloaded | ReasonCode::Deadline => reason,
            _ => ReasonCode::Unavailable,
        };
        let received = self.clock.monotonic();
        let transport = Transport::at("", received);
        let mut judgement = self.judgement(surface, self.world(), &transport);
        judgement.refuse(Refused::new(reason, Step::Identify, reason.row().title));
        let line = RecordOrigin { peer: String::new(), trace: None, lane };
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

    /// Writes and syncs the audit queue. Later requests are denied, since nothing can record them. Idempotent.
    pub fn close(&self) {
        self.keeper.store().close();
        self.write_sums(self.sums.all());
        self.audit.close();
    }
}

fn open_audit(settings: &Settings) -> Result<Arc<AuditWriter>, EngineError> {
    let mut audit = AuditSettings::new(settings.audit_path.clone());
    audit.max_lines = settings.audit_queue_lines;
    audit.max_bytes = settings.audit_queue_bytes;
    audit.sync_interval = Duration::from_millis(settings.audit_sync_interval_ms);
    let writer = AuditWriter::open(audit).map_err(|error| EngineError(error.to_string()))?;
    Ok(Arc::new(writer))
}

/// Whole seconds of a time in milliseconds.
pub(crate) const fn seconds(now_ms: i64) -> UnixTime {
    UnixTime(now_ms.div_euclid(1_000))
}

/// Request for an operation of Authz itself.
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
