//! Plan, trust and listeners: an immutable snapshot that all decisions read, and that is replaced whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use authz_base::poison::IgnorePoison as _;
use authz_base::spiffe::{check_pattern, covers, overlap};
use authz_kernel::decide::{decide, decide_traced};
use authz_kernel::decision::{Decision, Facts, Request, Time};
use authz_kernel::hex::hex;
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::recipient_lists::{RecipientListEntries, RecipientLists};
use authz_kernel::routes::{RouteError, Routed};
use authz_kernel::shadow::ShadowPlan;
use authz_token::TrustStore;

use crate::error::{EnforcerError, EngineError};
use crate::metrics::{Metrics, SystemId};
use crate::secret_header::SecretHeader;
use crate::settings::{
    CredentialSettings, DpopSettings, INSECURE_DEV, Listener, PeerSpec, Relay, ReportWay, Surface,
};

/// Everything that a decision reads besides its request. It is replaced whole.
#[derive(Debug)]
pub struct World {
    /// The bundle.
    pub plan: Arc<Plan>,
    /// Issuers and trust domains whose credentials are valid.
    pub trust: Arc<TrustStore>,
    /// The listeners.
    pub listeners: Vec<Listener>,
    /// TLS peers that are enforcers.
    pub peers: Vec<PeerSpec>,
    /// Settings of task credentials. `None`: no credentials are issued.
    pub credentials: Option<CredentialSettings>,
    /// Time at which the file of each recipient list last changed, or at which the list was fetched. A list without a time
    /// counts as too old.
    pub recipient_lists: BTreeMap<String, Time>,
    /// Entries of each fetched recipient list.
    pub fetched: BTreeMap<String, Arc<RecipientListEntries>>,
    /// A second bundle, which judges the same calls and changes no answer. `None`: there is none.
    pub shadow: Option<Arc<Plan>>,
}

/// A world, checked and indexed.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) plan: Arc<Plan>,
    pub(crate) trust: Arc<TrustStore>,
    pub(crate) read_headers: ReadHeaders,
    pub(crate) name: String,
    pub(crate) revision: String,
    pub(crate) digest: String,
    /// SHA-256 over the files that are not policies, in hex.
    pub(crate) facts_digest: String,
    ways: BTreeMap<String, Way>,
    peers: PeerEnforcers,
    systems: BTreeMap<String, SystemId>,
    /// Systems that an enforcer asks about and the bundle does not have.
    pub(crate) unknown_systems: Vec<String>,
    pub(crate) credentials: Option<CredentialSettings>,
    static_secrets: BTreeMap<String, SecretHeader>,
    pub(crate) recipient_lists: RecipientLists,
    pub(crate) shadow: Option<ShadowPlan>,
    /// Decisions about operations of Authz itself, for tests of a bundle. Not set: they are not kept, as on every server.
    pub(crate) own_decisions: OnceLock<Mutex<Vec<Decision>>>,
}

/// A listener, checked.
#[derive(Debug)]
pub(crate) struct Way {
    /// Enforcer that each caller is.
    pub(crate) enforcer: Option<Arc<Enforcer>>,
    pub(crate) insecure_dev: bool,
    /// Each caller shows a certificate, which proves its identity.
    pub(crate) mutual: bool,
    pub(crate) admin: bool,
    /// The server has authenticated the callers, and says in JSON who they are.
    pub(crate) http: bool,
    surfaces: Option<BTreeSet<Surface>>,
}

impl Way {
    /// True if the listener answers a surface.
    pub(crate) fn answers(&self, surface: Surface) -> bool {
        self.surfaces.as_ref().is_none_or(|surfaces| surfaces.contains(&surface))
    }
}

/// Caller that may ask about other callers.
#[derive(Debug)]
pub(crate) struct Enforcer {
    /// Name in policies and records.
    pub(crate) name: String,
    asks: AskedSystems,
    /// Its word counts for the identity of an agent that it verified on a connection of its own.
    pub(crate) relays_principal: bool,
    /// Its word counts for the labels that a call carries.
    pub(crate) relays_labels: bool,
    /// Its word counts for the prompt of a user, beside that user's token.
    pub(crate) relays_prompt: bool,
    /// Its word counts for the context of a session, beside the subject's token.
    pub(crate) relays_session: bool,
    /// Ways by which it may report results of permits.
    reports: Vec<ReportWay>,
    /// Users that its processes run as. Empty: each user that can open the socket.
    uids: Vec<u32>,
}

/// Systems that an enforcer asks about.
#[derive(Debug)]
pub(crate) enum AskedSystems {
    All,
    These(BTreeSet<String>),
}

impl Enforcer {
    fn new(
        name: String,
        asked: &[String],
        relays: &[Relay],
        reports: Option<ReportWay>,
    ) -> Result<Self, EnforcerError> {
        if name.is_empty() || name == INSECURE_DEV {
            return Err(EnforcerError::ReservedName);
        }
        Ok(Self {
            name,
            asks: asks(asked)?,
            relays_principal: relays.contains(&Relay::Principal),
            relays_labels: relays.contains(&Relay::Labels),
            relays_prompt: relays.contains(&Relay::Prompt),
            relays_session: relays.contains(&Relay::Session),
            reports: reports.into_iter().collect(),
            uids: Vec::new(),
        })
    }

    /// True if a process of this user may be the enforcer.
    pub(crate) fn is_of(&self, uid: Option<u32>) -> bool {
        self.uids.is_empty() || uid.is_some_and(|uid| self.uids.contains(&uid))
    }

    /// Enforcer of a listener for development: each caller.
    fn insecure_dev() -> Self {
        Self {
            name: INSECURE_DEV.to_owned(),
            asks: AskedSystems::All,
            relays_principal: false,
            relays_labels: true,
            // An agent reaches it too.
            relays_prompt: false,
            relays_session: false,
            reports: vec![ReportWay::Sdk, ReportWay::AccessLog],
            uids: Vec::new(),
        }
    }

    /// An enforcer that a test states: it asks about every system, and says what proxies and tool servers may say.
    ///
    /// Args: `relays_prompt`: it is a front end, too.
    pub(crate) fn stated(name: String, relays_prompt: bool) -> Self {
        Self { name, relays_prompt, relays_session: true, ..Self::insecure_dev() }
    }

    /// Facts of a front end for which its word counts: the value of `relays`, and its name in messages.
    fn speaks_for_user(&self) -> Option<(&'static str, &'static str)> {
        match (self.relays_prompt, self.relays_session) {
            (true, _) => Some(("prompt", "prompts")),
            (false, true) => Some(("session", "contexts of sessions")),
            (false, false) => None,
        }
    }

    /// True if it may report results of permits in a way.
    pub(crate) fn may_report(&self, way: ReportWay) -> bool {
        self.reports.contains(&way)
    }

    /// True if it may ask about an operation.
    pub(crate) fn may_ask(&self, operation: &str) -> bool {
        match &self.asks {
            AskedSystems::All => true,
            AskedSystems::These(systems) => {
                operation.split_once('.').is_some_and(|(system, _)| systems.contains(system))
            }
        }
    }

    /// True if it may ask about some systems only.
    pub(crate) const fn is_limited(&self) -> bool {
        matches!(self.asks, AskedSystems::These(_))
    }

    /// True if it may ask about a request that is for an unknown one of these systems. About a request for no known system, only
    /// an enforcer of all systems may ask.
    pub(crate) fn may_ask_about_any(&self, systems: &[String]) -> bool {
        match &self.asks {
            AskedSystems::All => true,
            AskedSystems::These(asked) => {
                // An empty id means systems that the bundle does not have. No enforcer is limited to them.
                let mut known = systems.iter().filter(|system| !system.is_empty()).peekable();
                known.peek().is_some() && known.all(|system| asked.contains(system))
            }
        }
    }
}

/// The enforcers among TLS peers.
#[derive(Debug, Default)]
struct PeerEnforcers {
    exact: HashMap<String, Arc<Enforcer>>,
    // INVARIANT (nested): of two that match one id, one covers the other, and comes after it.
    patterns: Vec<(String, Arc<Enforcer>)>,
}

impl PeerEnforcers {
    fn of(specs: Vec<PeerSpec>) -> Result<Self, EngineError> {
        let mut peers = Self::default();
        let refused =
            |name: &str, what: &str| EngineError::Invalid(format!("enforcer `{name}`: {what}"));
        for spec in specs {
            let PeerSpec { name, r#match: pattern, asks, relays, reports } = spec;
            if let Err(defect) = check_pattern(&pattern) {
                return Err(refused(&name, &format!("`match: {pattern}`: {defect}")));
            }
            let enforcer =
                Enforcer::new(name.clone(), &asks, &relays, reports).map_err(|source| {
                    EngineError::Enforcer { place: format!("enforcer `{name}`"), source }
                })?;
            let enforcer = Arc::new(enforcer);
            let tie = peers.patterns.iter().find(|(other, _)| {
                let nested = covers(other, &pattern) != covers(&pattern, other);
                overlap(other, &pattern) && !nested
            });
            if let Some((other, first)) = tie {
                return Err(refused(
                    &name,
                    &format!(
                        "`{pattern}` and `{other}` of `{}` match one id; narrow one",
                        first.name
                    ),
                ));
            }
            if pattern.contains('*') {
                peers.patterns.push((pattern, enforcer));
            } else if peers.exact.insert(pattern, enforcer).is_some() {
                return Err(refused(&name, "another enforcer has the same `match`; remove one"));
            }
        }
        // INVARIANT (nested): what covers another has `*` wherever that has, and in one more place.
        peers.patterns.sort_by_key(|(pattern, _)| pattern.matches('*').count());
        Ok(peers)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Enforcer>> {
        self.exact.values().chain(self.patterns.iter().map(|(_, enforcer)| enforcer))
    }

    /// Refuses a front end whose identity may be an agent's: that agent could invent its user's prompt.
    fn refuse_agents(&self, plan: &Plan) -> Result<(), EngineError> {
        let patterns = self.patterns.iter().map(|(pattern, enforcer)| (pattern, enforcer));
        for (pattern, enforcer) in self.exact.iter().chain(patterns) {
            let Some((word, what)) = enforcer.speaks_for_user() else { continue };
            let agent = plan.model().roles.iter().find_map(|(role, who)| {
                let agent = who.agents.iter().find(|agent| overlap(&agent.value, pattern))?;
                Some((role, &agent.value))
            });
            if let Some((role, agent)) = agent {
                return Err(EngineError::Invalid(format!(
                    "enforcer `{}` relays {what}, and `{pattern}` may be the agent `{agent}` of the bundle's role \
                     `{role}`, which could then speak for its user; give the front end an identity that no entry of \
                     `agents` matches, or remove `{word}` from its `relays`",
                    enforcer.name
                )));
            }
        }
        Ok(())
    }

    /// The enforcer that a verified peer is: of several that match, the most specific.
    fn find(&self, spiffe_id: &str) -> Option<&Arc<Enforcer>> {
        self.exact.get(spiffe_id).or_else(|| {
            let matching = self.patterns.iter().find(|(pattern, _)| covers(pattern, spiffe_id));
            matching.map(|(_, enforcer)| enforcer)
        })
    }
}

/// Headers that decide what a request is, and how others are spelled that CGI and WSGI servers take for them: `_` and `-`
/// give the same variable there.
#[derive(Debug, Default)]
pub(crate) struct ReadHeaders {
    /// Spelling that is read, by the name with `-` throughout. `None`: two spellings are read.
    spelling: HashMap<String, Option<String>>,
    /// True if a name with `_` is read, so that a name without it could be its twin.
    any_underscore: bool,
}

impl ReadHeaders {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut read = Self::default();
        for name in names {
            read.any_underscore |= name.contains('_');
            read.spelling
                .entry(name.replace('_', "-"))
                .and_modify(|known| {
                    if known.as_deref() != Some(name) {
                        *known = None;
                    }
                })
                .or_insert_with(|| Some(name.to_owned()));
        }
        read
    }

    /// Finds a header that is read and of which one of `names` is another spelling. Returns its name with `-` throughout.
    pub(crate) fn twin<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<&str> {
        names.find_map(|name| {
            if !self.any_underscore && !name.bytes().any(|byte| byte == b'_') {
                return None;
            }
            let (dashed, spelling) = self.spelling.get_key_value(&name.replace('_', "-"))?;
            (spelling.as_deref() != Some(name)).then_some(dashed.as_str())
        })
    }
}

impl Loaded {
    /// Judges an operation of Authz itself. Where a test of a bundle asks for it, the decision is kept, and lists how each policy was
    /// judged.
    pub(crate) fn decide_own(
        &self,
        facts: &Facts<'_>,
        request: &Request<'_>,
        now: Time,
    ) -> Box<Decision> {
        let Some(kept) = self.own_decisions.get() else {
            return decide(&self.plan, facts, request, now);
        };
        let decision = decide_traced(&self.plan, facts, request, now);
        kept.lock().ignore_poison().push((*decision).clone());
        decision
    }

    pub(crate) fn new(world: World, metrics: &Metrics) -> Result<Self, EngineError> {
        let World { plan, trust, listeners, peers, credentials, recipient_lists, fetched, shadow } =
            world;
        credentials.as_ref().map_or(Ok(()), CredentialSettings::check)?;
        let systems: BTreeMap<String, SystemId> =
            plan.systems().keys().map(|system| (system.clone(), metrics.system(system))).collect();
        let mut ways = BTreeMap::new();
        let peers = PeerEnforcers::of(peers)?;
        let mut unknown_systems = BTreeSet::new();
        let mut note = |enforcer: &Enforcer| {
            if let AskedSystems::These(asked) = &enforcer.asks {
                unknown_systems
                    .extend(asked.iter().filter(|system| !systems.contains_key(*system)).cloned());
            }
        };
        peers.all().for_each(|enforcer| note(enforcer));
        peers.refuse_agents(&plan)?;
        credentials.as_ref().map_or(Ok(()), |settings| refuse_any_host(settings, &plan))?;
        for listener in listeners {
            let name = listener.name.clone();
            let way = way(listener)?;
            way.enforcer.iter().for_each(|enforcer| note(enforcer));
            if ways.insert(name.clone(), way).is_some() {
                return Err(EngineError::Invalid(format!(
                    "two listeners have the name `{name}`; rename one"
                )));
            }
        }
        Ok(Self {
            name: plan.name().to_owned(),
            revision: plan.revision().to_owned(),
            digest: hex(&plan.digest()),
            facts_digest: hex(&plan.model().facts_digest),
            shadow: shadow.map(|shadow| ShadowPlan::new(shadow, &plan, &fetched, &recipient_lists)),
            recipient_lists: plan.aged_recipient_lists(&fetched, &recipient_lists),
            own_decisions: OnceLock::new(),
            read_headers: ReadHeaders::of(plan.routes().read_headers()),
            plan,
            trust,
            ways,
            peers,
            systems,
            unknown_systems: unknown_systems.into_iter().collect(),
            static_secrets: credentials.as_ref().map_or_else(BTreeMap::new, static_secrets),
            credentials,
        })
    }

    /// Settings of proofs of possession.
    pub(crate) fn dpop(&self) -> DpopSettings {
        self.credentials.as_ref().map(|settings| settings.dpop).unwrap_or_default()
    }

    pub(crate) fn way(&self, listener: &str) -> Option<&Way> {
        self.ways.get(listener)
    }

    /// The enforcer that a verified TLS peer is, if it is one.
    pub(crate) fn enforcer_of(&self, spiffe_id: &str) -> Option<&Arc<Enforcer>> {
        self.peers.find(spiffe_id)
    }

    pub(crate) fn listeners(&self) -> impl Iterator<Item = (&str, &Way)> {
        self.ways.iter().map(|(name, way)| (name.as_str(), way))
    }

    /// The system of a resolved operation.
    pub(crate) fn system(&self, operation: &str) -> SystemId {
        operation
            .split_once('.')
            .and_then(|(system, _)| self.systems.get(system))
            .copied()
            .unwrap_or_default()
    }

    /// True if tokens with an audience are for a system: the audience is that of the system's task credentials, or its origin.
    pub(crate) fn is_audience(&self, system: &str, audience: &str) -> bool {
        let known = |settings: &CredentialSettings| settings.audience(system) == audience;
        let origin = || self.plan.systems().get(system).map_or("", |system| system.origin.as_str());
        !system.is_empty()
            && (self.credentials.as_ref().map_or(system == audience, known)
                || (!audience.is_empty() && origin() == audience))
    }

    /// The route of a request, unless its system has a secret that another host would receive.
    ///
    /// # Errors
    /// `NoRoute` if the request's host is neither that of its route nor that of the system's origin.
    pub(crate) fn at_system(&self, routed: Routed, host: &str) -> Result<Routed, RouteError> {
        let system = routed.operation.split_once('.').map_or("", |(system, _)| system);
        if self.static_secrets.is_empty() || !self.static_secrets.contains_key(system) {
            return Ok(routed);
        }
        let origin = self.plan.systems().get(system).map_or("", |system| system.origin.as_str());
        if self.plan.routes().is_at_system(routed.route, host, origin) {
            return Ok(routed);
        }
        let message = "the request's host is not that of the system, whose secret is for no other";
        let Routed { operation, mcp, task, .. } = routed;
        let mcp = mcp.map(Box::new);
        Err(RouteError { operation, mcp, task, ..RouteError::new(ReasonCode::NoRoute, message) })
    }

    /// Header credential of a system, if it has one.
    pub(crate) fn secret_header(&self, system: &str) -> Option<&SecretHeader> {
        self.static_secrets.get(system)
    }
}

/// Surfaces of HTTP endpoints, whose callers the server authenticates: clients of token endpoints, and transmitters of security
/// events.
const HTTP_ENDPOINTS: [Surface; 4] = [
    Surface::CredentialExchange,
    Surface::CredentialIntrospect,
    Surface::CredentialRevoke,
    Surface::SecurityEvent,
];

/// Refuses a secret that requests to a host of the caller's choice would get.
fn refuse_any_host(settings: &CredentialSettings, plan: &Plan) -> Result<(), EngineError> {
    for system in settings.static_secrets.keys() {
        if plan.systems().get(system).is_none_or(|system| !system.origin.is_empty()) {
            continue;
        }
        if let Some(at) = plan.routes().without_host(system) {
            return Err(EngineError::Invalid(format!(
                "{}:{}: the route is for every host, and its system `{system}` has a static secret, which a host of the \
                 caller's choice would get; add `host` to the route, or `origin` to the system in `catalog`",
                at.file, at.line
            )));
        }
    }
    Ok(())
}

fn static_secrets(credentials: &CredentialSettings) -> BTreeMap<String, SecretHeader> {
    let all = credentials.static_secrets.iter();
    all.map(|(system, static_secret)| (system.clone(), SecretHeader::new(static_secret))).collect()
}

fn way(listener: Listener) -> Result<Way, EngineError> {
    let name = &listener.name;
    let refused = |what: &str| EngineError::Invalid(format!("listener `{name}`: {what}"));
    let enforcer = match (listener.enforcer, listener.insecure_dev) {
        (Some(_), true) => {
            return Err(refused("has both `enforcer` and `insecure_dev`; give one"));
        }
        (None, true) => Some(Enforcer::insecure_dev()),
        (None, false) => None,
        (Some(spec), false) => {
            let made = Enforcer::new(spec.name, &spec.asks, &spec.relays, spec.reports);
            let made = made.map_err(|source| EngineError::Enforcer {
                place: format!("listener `{name}`: enforcer"),
                source,
            })?;
            if let Some((_, what)) = made.speaks_for_user().filter(|_| spec.uids.is_empty()) {
                let what = format!(
                    "its enforcer relays {what}, and any process that opens the socket would be it; give its `uids`"
                );
                return Err(refused(&what));
            }
            Some(Enforcer { uids: spec.uids, ..made })
        }
    };
    if listener.mutual && enforcer.is_some() {
        return Err(refused("knows its callers by certificate, and is an enforcer; give one"));
    }
    if listener.http && (enforcer.is_some() || listener.mutual || listener.admin) {
        return Err(refused("is for clients of token endpoints, and for nobody else"));
    }
    let surfaces = match listener.surfaces {
        Some(list) => Some(list.into_iter().collect()),
        // INVARIANT (HTTP endpoints only): a listener whose callers the server authenticates answers nothing else.
        None if listener.http => Some(BTreeSet::from(HTTP_ENDPOINTS)),
        None => None,
    };
    Ok(Way {
        enforcer: enforcer.map(Arc::new),
        insecure_dev: listener.insecure_dev,
        mutual: listener.mutual,
        admin: listener.admin,
        http: listener.http,
        surfaces,
    })
}

fn asks(list: &[String]) -> Result<AskedSystems, EnforcerError> {
    let mut systems = BTreeSet::new();
    let mut all = false;
    for item in list {
        match item.strip_prefix("system:") {
            Some("*") => all = true,
            Some(system) if !system.is_empty() && !system.contains(['*', '.']) => {
                systems.insert(system.to_owned());
            }
            _ => return Err(EnforcerError::System(item.clone())),
        }
    }
    if all {
        return Ok(AskedSystems::All);
    }
    if systems.is_empty() {
        return Err(EnforcerError::NoSystem);
    }
    Ok(AskedSystems::These(systems))
}
