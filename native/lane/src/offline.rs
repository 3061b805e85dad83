//! An engine for tests and tools, whose callers are stated instead of proved. It answers by the stages of a served call, all but
//! the verification of evidence, and it keeps and records nothing.
//!
//! INVARIANT (no stated identity is served): a listener takes an [`Engine`](crate::Engine), and verifies evidence. No function of
//! an `Engine` takes a [`StatedCaller`], and an [`OfflineEngine`] gives its engine to nobody. This compiles:
//!
//! ```
//! use std::sync::Arc;
//!
//! use authz_lane::{Engine, FastLane, FastSettings};
//!
//! fn serve(engine: Arc<Engine>, settings: FastSettings) {
//!     drop(FastLane::start(engine, settings));
//! }
//! ```
//!
//! An offline engine cannot be served, so this does not compile:
//!
//! ```compile_fail
//! use std::sync::Arc;
//!
//! use authz_lane::offline::OfflineEngine;
//! use authz_lane::{FastLane, FastSettings};
//!
//! fn serve(engine: Arc<OfflineEngine>, settings: FastSettings) {
//!     drop(FastLane::start(engine, settings));
//! }
//! ```

mod caller;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::{DecidingRule, Decision, Outcome, Subject, Time};
use authz_kernel::history::{HistoryChanges, SessionHistory};
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::recipient_lists::RecipientLists;
use authz_kernel::task::{Record, RecordKey, RecordKind, SpokenWords, Task};
use authz_state::store::{MemoryStore, Store, Survives, Transaction};
use authz_state::{AuditError, AuditHealth, AuditLog, Durability, Ticket};
use authz_token::{IssuerSpec, SubjectKind, SubjectProfile, TrustSpec, TrustStore};
use prost::Message as _;

use crate::answer;
use crate::api_call::{ApiCaller, ApiOutcome, RefusedCaller};
pub use crate::approval_api::StatedAnswer;
use crate::approvals::AnswerMethod;
use crate::clock::Clock;
use crate::engine::{Engine, EngineParts};
use crate::envoy;
use crate::error::EngineError;
use crate::history;
use crate::judgement::{Arrival, Asker, Judgement, name_of};
use crate::origin_records;
use crate::proto::authz::v1 as wire;
use crate::refusal::CallRefusal;
use crate::report::{OutcomeReport, Reporter};
use crate::request::{self, AgentClaim, CallRequest};
use crate::settings::{CredentialSettings, DpopSettings, Lifetimes, Listener, Settings, Surface};
use crate::steps::admit::{self, AdmittedCall};
use crate::steps::identify::{IdentifiedCall, check_proved, check_statements};
use crate::steps::{self, Call, Staged};
use crate::transport::{ApiError, Transport};
use crate::world::{Loaded, World};

pub use crate::offline::caller::{StatedCaller, StatedCredential, StatedSubject};

/// Name of the one listener.
const LISTENER: &str = "offline";
/// Issuer of task credentials.
const ISSUER: &str = "https://authz.invalid";
/// Issuer of the people who put break-glass in force. No alias of an issuer has a dot, so that none of them is a subject.
const PEOPLE: &str = "authz.invalid";
/// Time for which break-glass is in force, in seconds: the longest time.
const BREAKGLASS_SECONDS: u32 = 60 * 60;
/// Key of the fingerprints of task literals: those of a test are nobody's secret.
pub const SECRET: [u8; 32] = [0; 32];

/// Snapshot that an [`OfflineEngine`] decides by.
#[derive(Clone, Debug)]
pub struct OfflineWorld {
    /// The bundle.
    pub plan: Arc<Plan>,
    /// Entries of the bundle's recipient lists.
    pub recipient_lists: RecipientLists,
    /// Aliases of the issuers whose subjects an agent may assert.
    pub issuers: BTreeSet<String>,
}

/// Decision of a call of a stated caller.
#[derive(Clone, Debug)]
pub struct OfflineDecision {
    /// Id of the decision.
    pub id: String,
    /// The outcome, before `mode` softens it.
    pub outcome: Outcome,
    /// Reason code.
    pub reason: ReasonCode,
    /// One line for the enforcer.
    pub message: String,
    /// False where `mode` lets a call through that is not permitted.
    pub is_enforced: bool,
    /// Names of the caller's principals, the subject first.
    pub chain: Vec<String>,
    /// Rules that determined a denial or a step-up, and the entry of `mode` that lets it through.
    pub rules: Vec<DecidingRule>,
    /// The kernel's decision; none where a stage refused the call without it.
    pub decision: Option<Decision>,
    /// Approval that a step-up waits for; none where no person can lift it.
    pub approval_id: Option<String>,
    /// Template of the task that the call is made in; empty for a call without a task.
    pub template: String,
    /// Id of the session of the call; none where the decision does not depend on its history.
    pub session_id: Option<String>,
    /// Labels that the session carried before the call, as far as the decision depends on them; sorted.
    pub labels_before: Vec<String>,
}

impl OfflineDecision {
    /// Whether the call goes through: it is permitted, or `mode` does not enforce the refusal.
    #[must_use]
    pub fn is_let_through(&self) -> bool {
        self.outcome == Outcome::Permit || !self.is_enforced
    }

    /// A decision about an operation of Authz itself.
    fn of_own(decision: Decision) -> Self {
        Self {
            id: String::new(),
            outcome: decision.outcome,
            reason: decision.reason,
            message: decision.message.clone(),
            is_enforced: true,
            chain: Vec::new(),
            rules: decision.rules.clone(),
            decision: Some(decision),
            approval_id: None,
            template: String::new(),
            session_id: None,
            labels_before: Vec::new(),
        }
    }

    fn of(record: &Judgement) -> Self {
        Self {
            id: record.arrival.id.clone(),
            outcome: record.outcome(),
            reason: record.reason(),
            message: record.message().to_owned(),
            is_enforced: record.softened().is_none(),
            chain: record.caller.chain.iter().map(|one| name_of(one).into_owned()).collect(),
            rules: record.rules(),
            decision: record.decision().cloned(),
            approval_id: answer::challenge(record).map(|challenge| challenge.id.clone()),
            template: record
                .context
                .task
                .as_ref()
                .map(|task| task.template.clone())
                .unwrap_or_default(),
            session_id: record.context.recalled.of_session().map(|(id, _)| id.to_owned()),
            labels_before: record.context.recalled.seen().map(carried_labels).unwrap_or_default(),
        }
    }
}

/// Labels of a history: sorted, each once.
fn carried_labels(history: &SessionHistory) -> Vec<String> {
    let labels: BTreeSet<String> = history.carried().map(|(label, _)| label.to_owned()).collect();
    labels.into_iter().collect()
}

/// Audit log that keeps no line. Nobody looks for the calls of a test in it.
#[derive(Debug)]
struct NoAudit;

impl AuditLog for NoAudit {
    fn submit(&self, _line: &[u8], _durability: Durability) -> Result<Option<Ticket>, AuditError> {
        Ok(None)
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn health(&self) -> AuditHealth {
        AuditHealth { writable: true, ..AuditHealth::default() }
    }

    fn close(&self) {}
}

/// Engine over a store in memory, without an audit file. Its callers are stated.
#[derive(Debug)]
pub struct OfflineEngine {
    engine: Engine,
    /// The engine's store, for [`OfflineEngine::fork`].
    store: Arc<MemoryStore>,
    /// Decisions of the calls so far, for [`OfflineEngine::take_decisions`]. `None`: they are not kept.
    decisions: Option<Mutex<Vec<OfflineDecision>>>,
}

impl OfflineEngine {
    /// An engine with an empty store.
    ///
    /// # Errors
    /// The alias of an issuer is not valid.
    pub fn new(world: OfflineWorld, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        let offline = Self::over(Arc::new(MemoryStore::new(SECRET)), clock)?;
        let loaded = loaded(world, &offline.engine)?;
        offline.engine.world.store(Some(Arc::new(loaded)));
        Ok(offline)
    }

    /// A second engine in the state of this one, which keeps no decisions. A later call of one has no effect on the other. Both
    /// have the same snapshot and the same clock.
    ///
    /// Counters of a process do not go over: those of metrics, and those of open permits, which bound how many permits one agent
    /// has in a full store.
    ///
    /// # Errors
    /// None is known: the settings are those of this engine.
    pub fn fork(&self) -> Result<Self, EngineError> {
        let fork = Self::over(Arc::new(self.store.fork()), Arc::clone(&self.engine.clock))?;
        fork.engine.world.store(self.engine.world());
        Ok(fork)
    }

    /// An engine that has no snapshot yet.
    fn over(store: Arc<MemoryStore>, clock: Arc<dyn Clock>) -> Result<Self, EngineError> {
        let parts = EngineParts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            audit: Arc::new(NoAudit),
            clock,
        };
        let engine = Engine::with_parts(Settings::offline(), parts)?;
        Ok(Self { engine, store, decisions: None })
    }

    /// Keeps each decision until [`OfflineEngine::take_decisions`], also those about tasks. A decision of an operation then lists
    /// how each policy was judged ([`Decision::trace`]). Default: no decision is kept, and only those of `explain` list that.
    #[must_use]
    pub fn keeping_decisions(mut self) -> Self {
        self.decisions = Some(Mutex::default());
        if let Some(world) = &*self.engine.world.load() {
            // Set once: the engine was made here.
            let _is_set = world.own_decisions.set(Mutex::default());
        }
        self
    }

    /// Takes the decisions since this was called last: those of calls in their order, then those about operations of Authz itself,
    /// which have no id.
    pub fn take_decisions(&self) -> Vec<OfflineDecision> {
        let Some(kept) = &self.decisions else { return Vec::new() };
        let mut decisions = std::mem::take(&mut *kept.lock().ignore_poison());
        if let Some(world) = &*self.engine.world.load()
            && let Some(own) = world.own_decisions.get()
        {
            let own = std::mem::take(&mut *own.lock().ignore_poison());
            decisions.extend(own.into_iter().map(OfflineDecision::of_own));
        }
        decisions
    }

    /// Judges a request, and stores the changes of its verdict. The `evidence` of the request is not read.
    #[must_use]
    pub fn check(&self, request: &wire::CheckRequest, caller: &StatedCaller) -> OfflineDecision {
        let request = request::read_check(request, &self.engine.settings);
        self.decide(Surface::Check, request, caller, false)
    }

    /// Judges a request without effect. The decision tells how each policy was judged.
    #[must_use]
    pub fn explain(&self, request: &wire::CheckRequest, caller: &StatedCaller) -> OfflineDecision {
        let request = request::read_check(request, &self.engine.settings);
        self.decide(Surface::Explain, request, caller, true)
    }

    /// Judges an HTTP request as a proxy sends it: the bytes of an `envoy.service.auth.v3.CheckRequest`.
    #[must_use]
    pub fn check_http(&self, request: &[u8], caller: &StatedCaller) -> OfflineDecision {
        let relays = envoy::Relays { principal: false, labels: true, session: true };
        let message = envoy::EnvoyRequest::read(request)
            .map_err(|_| CallRefusal::input("the bytes are no ext_authz CheckRequest"));
        let request = message.as_ref().map_err(Clone::clone).and_then(|message| {
            envoy::of_request(message, &self.engine.settings, relays).map(|parsed| parsed.request)
        });
        self.decide(Surface::ExtAuthz, request, caller, false)
    }

    /// Starts a task.
    ///
    /// # Errors
    /// The start is refused.
    pub fn start_task(
        &self,
        request: &wire::StartRequest,
        caller: &StatedCaller,
    ) -> Result<wire::StartResponse, ApiError> {
        let run = |engine: &Engine, caller: &ApiCaller<'_>| engine.start_task(request, caller);
        self.call(Surface::TaskStart, caller, caller.asker(), run)
    }

    /// Delegates a task.
    ///
    /// # Errors
    /// The delegation is refused.
    pub fn delegate_task(
        &self,
        request: &wire::DelegateRequest,
        caller: &StatedCaller,
    ) -> Result<wire::DelegateResponse, ApiError> {
        let run = |engine: &Engine, caller: &ApiCaller<'_>| engine.delegate_task(request, caller);
        self.call(Surface::TaskDelegate, caller, caller.asker(), run)
    }

    /// Adds a further turn of the user to a task.
    ///
    /// # Errors
    /// The turn is refused.
    pub fn extend_task(
        &self,
        request: &wire::ExtendRequest,
        caller: &StatedCaller,
    ) -> Result<wire::ExtendResponse, ApiError> {
        let run = |engine: &Engine, caller: &ApiCaller<'_>| engine.extend_task(request, caller);
        self.call(Surface::TaskExtend, caller, caller.asker(), run)
    }

    /// Ends a task, and all tasks below it.
    ///
    /// # Errors
    /// The end is refused.
    pub fn end_task(
        &self,
        request: &wire::EndRequest,
        caller: &StatedCaller,
    ) -> Result<wire::EndResponse, ApiError> {
        let run = |engine: &Engine, caller: &ApiCaller<'_>| engine.end_task(request, caller);
        self.call(Surface::TaskEnd, caller, caller.asker(), run)
    }

    /// Reports the outcome of a permitted call, as the enforcer that asked.
    ///
    /// # Errors
    /// The report is refused.
    pub fn report(
        &self,
        request: &wire::ReportRequest,
        caller: &StatedCaller,
    ) -> Result<wire::ReportResponse, ApiError> {
        let run = |engine: &Engine, caller: &ApiCaller<'_>| engine.report_outcome(request, caller);
        self.call(Surface::Report, caller, caller.asker(), run)
    }

    /// Reports the outcome of a permitted call, as the access log of the proxy that asked. Labels and amounts of the report do
    /// not count.
    ///
    /// # Errors
    /// The report is refused.
    pub fn report_logged(
        &self,
        request: &wire::ReportRequest,
        caller: &StatedCaller,
    ) -> Result<(), ApiError> {
        let run = |engine: &Engine, caller: &ApiCaller<'_>| {
            let OutcomeReport { decision_id, event, .. } = OutcomeReport::read(request)?;
            let report = OutcomeReport::logged(decision_id, event);
            engine.settle_report(&report, Reporter::AccessLog, caller)
        };
        self.call(Surface::AccessLog, caller, caller.asker(), run)
    }

    /// Answers an approval for a stated person.
    ///
    /// # Errors
    /// The person may not answer, or the approval is not open.
    pub fn answer_approval(
        &self,
        approval_id: &str,
        person: &StatedSubject,
        answer: StatedAnswer<'_>,
    ) -> Result<(), ApiError> {
        let subject = Subject {
            issuer: person.issuer.clone(),
            sub: person.sub.clone(),
            claims: person.claims.clone(),
            narrowed: Vec::new(),
        };
        self.engine.answer_stated(subject, approval_id, answer)
    }

    /// Puts break-glass in force at a system, for all callers and one hour: a person opens the request, and another person confirms
    /// it. Neither person is the subject of a call.
    ///
    /// # Errors
    /// The bundle has no such system, or 16 requests for break-glass are live.
    pub fn put_breakglass_in_force(&self, system: &str) -> Result<(), ApiError> {
        let person = |sub: &str| {
            let person = serde_json::json!({
                "issuer": PEOPLE,
                "sub": sub,
                "method": AnswerMethod::Login.as_str(),
                "authenticated_at_ms": self.engine.clock.now_ms(),
            });
            person.to_string()
        };
        let request = wire::OpenBreakglassRequest {
            system: system.to_owned(),
            duration_seconds: BREAKGLASS_SECONDS,
            reason: "an emergency".to_owned(),
            ticket: "TEST-1".to_owned(),
            ..Default::default()
        };
        let unreadable = |_| ApiError::of(ReasonCode::Unavailable, "the answer is not readable");
        let (opener, request) = (person("opener"), request.encode_to_vec());
        let opened = self.engine.breakglass_open(opener.as_bytes(), &request)?;
        let opened = wire::OpenBreakglassResponse::decode(&*opened).map_err(unreadable)?;
        let id = opened.breakglass.map(|record| record.id).unwrap_or_default();
        let request = wire::ConfirmBreakglassRequest { id }.encode_to_vec();
        self.engine.breakglass_confirm(person("confirmer").as_bytes(), &request)?;
        Ok(())
    }

    /// Issues a task credential for a permit.
    ///
    /// Args: `key`: name of the key that the credential is bound to. `None`: it is not bound.
    ///
    /// # Errors
    /// The credential is refused.
    pub fn issue(
        &self,
        decision_id: &str,
        key: Option<&str>,
        caller: &StatedCaller,
    ) -> Result<StatedCredential, ApiError> {
        let request =
            wire::IssueRequest { decision_id: decision_id.to_owned(), ..Default::default() };
        let run =
            |engine: &Engine, caller: &ApiCaller<'_>| engine.issue_credential(&request, caller);
        let answer = self.call(Surface::CredentialIssue, caller, caller.itself(key), run)?;
        let no_token = || ApiError::of(ReasonCode::BadInput, "no token is issued for the system");
        StatedCredential::of_answer(&answer, key).ok_or_else(no_token)
    }

    /// Keeps a root task that no call started, and begins its session.
    ///
    /// Args: `words`: words of its prompt; `labels`: labels that the session carries from the beginning.
    ///
    /// # Errors
    /// The store refuses the task.
    pub fn put_task(
        &self,
        task: Task,
        words: &SpokenWords,
        labels: BTreeSet<String>,
    ) -> Result<(), ApiError> {
        let engine = &self.engine;
        let (task, now) = (Arc::new(task), Time(engine.clock.now_ms()));
        let locks = [RecordKey::new(RecordKind::Session, &task.session)];
        let retention = engine.keeper.settings().retention_ms;
        let mut begun = Ok(());
        let mut work = |transaction: &mut dyn Transaction| {
            let session = history::begin(transaction, &task, false, now, retention);
            let Ok(mut session) = session else {
                begun =
                    Err(ApiError::of(ReasonCode::StateUnavailable, "the session does not begin"));
                return Ok(false);
            };
            let changes = HistoryChanges { labels: labels.clone(), ..HistoryChanges::NONE };
            session.history.apply(&changes, &task.id, "", now);
            transaction.put(Record::Session(Arc::new(session)));
            transaction.put(Record::Task(Arc::clone(&task)));
            origin_records::begin_words(transaction, &task, words);
            Ok(true)
        };
        let wait = engine.wait_of(&self.transport());
        let kept = engine.keeper.transact(&locks, Survives::Crash, wait, &mut work);
        kept.map_err(|refused| ApiError::of(refused.reason, refused.message))?;
        begun
    }

    /// Labels that a session carries now: sorted, each once. A session that the store does not have carries none.
    #[must_use]
    pub fn labels_of(&self, session: &str) -> Vec<String> {
        let engine = &self.engine;
        let key = RecordKey::new(RecordKind::Session, session);
        let locks = [key.clone()];
        let mut labels = Vec::new();
        let mut work = |transaction: &mut dyn Transaction| {
            if let Ok(Some(Record::Session(session))) = transaction.get(&key) {
                labels = carried_labels(&session.history);
            }
            Ok(false)
        };
        let wait = engine.wait_of(&self.transport());
        // A store in memory does not fail.
        let _read = engine.keeper.transact(&locks, Survives::Crash, wait, &mut work);
        labels
    }

    /// The engine, for tests of this crate alone.
    #[cfg(test)]
    pub(crate) const fn engine(&self) -> &Engine {
        &self.engine
    }

    fn transport(&self) -> Transport<'static> {
        Transport { received: self.engine.clock.monotonic(), ..Transport::by(LISTENER) }
    }

    fn arrival(&self, surface: Surface, asker: Asker) -> Arrival {
        let engine = &self.engine;
        let arrival = engine.arrival(surface, engine.world(), &self.transport());
        Arrival { asks_itself: asker.enforcer.is_none(), asker, ..arrival }
    }

    /// Takes a request through the stages. The caller's statement stands in for the stage that verifies evidence.
    fn decide(
        &self,
        surface: Surface,
        request: Result<CallRequest<'_>, CallRefusal>,
        caller: &StatedCaller,
        explain: bool,
    ) -> OfflineDecision {
        let (engine, transport) = (&self.engine, self.transport());
        let arrival = self.arrival(surface, caller.asker());
        let line = engine.recorded(&transport);
        let ended = match &request {
            Ok(request) => {
                let traces = explain || self.decisions.is_some();
                let call =
                    Call { request, transport: &transport, recorded: &line, explain, traces };
                let state = |admitted| stated(&call, admitted, caller);
                steps::decide_as(engine, &call, arrival, state)
            }
            Err(refused) => {
                let claim = AgentClaim::default();
                admit::refuse_unread(engine, &transport, arrival, claim, refused.clone())
            }
        };
        let record = engine.conclude_ended(ended, &transport, line);
        self.keep(&record);
        OfflineDecision::of(&record)
    }

    /// Keeps the decision of a record, where decisions are kept.
    fn keep(&self, record: &Judgement) {
        if let Some(kept) = &self.decisions {
            kept.lock().ignore_poison().push(OfflineDecision::of(record));
        }
    }

    /// Runs an API call. The caller's statement stands in for the evidence of its message.
    fn call<T>(
        &self,
        surface: Surface,
        caller: &StatedCaller,
        asker: Asker,
        run: impl FnOnce(&Engine, &ApiCaller<'_>) -> ApiOutcome<T>,
    ) -> Result<T, ApiError> {
        let (engine, transport) = (&self.engine, self.transport());
        let arrival = self.arrival(surface, asker);
        let world = match engine.admit(&arrival, &transport) {
            Ok(world) => world,
            Err(refused) => {
                let line = engine.recorded(&transport);
                let caller = RefusedCaller::of(arrival, line, "", refused);
                return engine.answer_of(&engine.conclude_refused(caller, &transport), None);
            }
        };
        let identity = caller.identity(arrival.now());
        let caller = ApiCaller { identity, ..engine.enforcer_caller(arrival, world, &transport) };
        let outcome = run(engine, &caller);
        let (record, answer) = engine.conclude_call(caller, outcome);
        self.keep(&record);
        engine.answer_of(&record, answer)
    }
}

/// The stage of a call whose caller is stated, in place of [`identify`](fn@crate::steps::identify). It makes every check of
/// that stage but the verification of evidence.
///
/// # Errors
/// The call as refused: its enforcer states what it may not, or the caller is not enough for the call.
fn stated<'a>(
    call: &Call<'_, 'a>,
    admitted: AdmittedCall,
    caller: &StatedCaller,
) -> Staged<'a, IdentifiedCall<'a>> {
    let mut identity = caller.identity(admitted.arrival.now());
    let known = check_statements(call, &admitted, &mut identity)
        .and_then(|()| check_proved(call, &admitted, &identity.facts, Ok(())));
    let identified =
        |unproved| IdentifiedCall { admitted, caller: identity, evidence: Vec::new(), unproved };
    match known {
        Ok(unproved) => Ok(identified(unproved)),
        Err(refused) => Err(identified(None).refuse(refused)),
    }
}

/// The snapshot that the engine decides by.
fn loaded(world: OfflineWorld, engine: &Engine) -> Result<Loaded, EngineError> {
    let OfflineWorld { plan, recipient_lists, issuers } = world;
    let trust = TrustStore::compile(&trust_of(issuers)).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        EngineError::Invalid(texts.join("\n"))
    })?;
    let listener = Listener {
        name: LISTENER.to_owned(),
        enforcer: None,
        insecure_dev: false,
        mutual: false,
        admin: false,
        http: false,
        surfaces: None,
    };
    let credentials = CredentialSettings {
        issuer: ISSUER.to_owned(),
        audiences: BTreeMap::new(),
        lifetime: Lifetimes::default(),
        dpop: DpopSettings::default(),
        static_secrets: BTreeMap::new(),
        leases: BTreeMap::new(),
    };
    let world = World {
        plan,
        trust: Arc::new(trust),
        listeners: vec![listener],
        peers: Vec::new(),
        credentials: Some(credentials),
        recipient_lists: BTreeMap::new(),
        fetched: BTreeMap::new(),
        shadow: None,
    };
    let mut loaded = Loaded::new(world, &engine.metrics)?;
    loaded.recipient_lists = recipient_lists;
    Ok(loaded)
}

/// A trust store that knows the aliases of issuers, and none of their keys.
fn trust_of(issuers: BTreeSet<String>) -> TrustSpec {
    let issuer = |alias: String| {
        let spec = IssuerSpec {
            issuer: format!("https://{alias}.invalid"),
            audience: vec![LISTENER.to_owned()],
            alone_audience: Vec::new(),
            alone_bound: false,
            algorithms: vec!["ES256".to_owned()],
            jwks: "{\"keys\":[]}".to_owned(),
            from: LISTENER.to_owned(),
            subject: SubjectKind::User,
            profile: SubjectProfile::default(),
            typ: None,
            claims: Vec::new(),
        };
        (alias, spec)
    };
    TrustSpec {
        audiences: vec![LISTENER.to_owned()],
        leeway_seconds: 5,
        max_token_bytes: 8_192,
        max_lifetime_seconds: None,
        domains: BTreeMap::new(),
        issuers: issuers.into_iter().map(issuer).collect(),
        guards: BTreeMap::new(),
        own: None,
    }
}
