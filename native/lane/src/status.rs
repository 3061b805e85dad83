//! Status, readiness and metrics of an engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::Time;
use authz_kernel::hex::hex;
use authz_kernel::task::Breakglass;
use authz_state::AuditHealth;
use authz_state::store::StoreHealth;
use serde::Serialize;

use crate::attached::AttachedServer;
use crate::engine::Engine;
use crate::metrics::{Family, Gauges};
use crate::settings::CredentialSettings;
use crate::trace::{Span, Tracing};
use crate::world::{Loaded, Way};

/// A standing exception of the bundle, with its uses.
#[derive(Clone, Debug, Serialize)]
pub struct ExceptionStatus {
    /// Name in the bundle.
    pub name: String,
    /// Role or SPIFFE id of the caller.
    pub who: String,
    /// Ids and globs of operations.
    pub operations: Vec<String>,
    /// Highest tier of a call that it covers.
    pub tier_cap: &'static str,
    /// Team or person who answers for it.
    pub owner: String,
    /// Reason for which it exists.
    pub reason: String,
    /// Ticket in which it was granted.
    pub ticket: String,
    /// Time from which it no longer applies, in milliseconds since 1970.
    pub expires_ms: i64,
    /// Calls that depended on it, since the start of the node.
    pub uses: u64,
    /// Time of the last of these calls, in milliseconds since 1970. `None`: there was none.
    pub last_used_ms: Option<i64>,
}

/// Status of an engine.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Decisions can be made, and be recorded.
    pub ready: bool,
    /// Problems that make the node unready.
    pub problems: Vec<String>,
    /// Conditions that do not stop decisions, but need attention.
    pub warnings: Vec<String>,
    /// Version of Authz.
    pub version: String,
    /// `release` or `debug`.
    pub build_profile: &'static str,
    /// Name of the bundle.
    pub bundle_name: String,
    /// Revision of the bundle.
    pub bundle_revision: String,
    /// SHA-256 of the bundle's files, in hex.
    pub bundle_digest: String,
    /// Digest of the key set.
    pub trust_revision: String,
    /// The listeners: name, and how their callers are known.
    pub listeners: Vec<String>,
    /// Health of the audit file.
    pub audit: AuditHealth,
    /// Health of the store.
    pub state: StoreHealth,
    /// Number of revocations.
    pub revocations: usize,
    /// Verified tokens found in the cache.
    pub token_cache_hits: u64,
    /// Verified tokens not found in the cache.
    pub token_cache_misses: u64,
    /// Decisions that panicked; each was denied.
    pub panics: u64,
    /// The shadow bundle. `None`: there is none.
    pub shadow: Option<ShadowStatus>,
    /// Standing exceptions of the bundle, by name.
    pub exceptions: Vec<ExceptionStatus>,
    /// Requests for break-glass that are in force.
    pub breakglass: Vec<BreakglassInForce>,
}

/// The shadow bundle, as shown to people.
#[derive(Clone, Debug, Serialize)]
pub struct ShadowStatus {
    /// Its name.
    pub bundle: String,
    /// Its revision.
    pub revision: String,
    /// SHA-256 of its files, in hex.
    pub digest: String,
    /// Decisions since the start while a shadow bundle was loaded, by result.
    pub decisions: BTreeMap<&'static str, u64>,
}

/// Break-glass that is in force, as shown to people.
#[derive(Clone, Debug, Serialize)]
pub struct BreakglassInForce {
    /// Id of the request.
    pub id: String,
    /// System that it is for.
    pub system: String,
    /// SPIFFE id of the only agent that it is for; empty if it is for all callers.
    pub agent: String,
    /// Ticket in which the emergency is handled.
    pub ticket: String,
    /// Person who opened it.
    pub opened_by: String,
    /// Person who confirmed it.
    pub confirmed_by: String,
    /// Time from which it is no longer in force, in milliseconds since 1970.
    pub ends_ms: i64,
}

impl Engine {
    /// True if decisions can be made, recorded and answered in time.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.world.load().is_some()
            && self.audit_health().writable
            && self.keeper.revocations().is_ok()
            && self.servers().iter().all(|server| server.problems().is_empty())
    }

    /// Includes the problems and metrics of a server, for as long as the server exists.
    pub(crate) fn attach(&self, server: &Arc<dyn AttachedServer>) {
        let mut servers = self.servers.write().ignore_poison();
        servers.retain(|server| server.strong_count() > 0);
        servers.push(Arc::downgrade(server));
    }

    fn servers(&self) -> Vec<Arc<dyn AttachedServer>> {
        let servers = self.servers.read().ignore_poison();
        servers.iter().filter_map(Weak::upgrade).collect()
    }

    /// Status of the engine.
    #[must_use]
    pub fn status(&self) -> Status {
        let audit = self.audit_health();
        let state = self.keeper.store().health();
        let world = self.world.load_full();
        let problems = self.problems(world.as_deref(), &audit, &state);
        Status {
            ready: problems.is_empty(),
            problems,
            warnings: self.warnings(world.as_deref(), &audit, &state),
            version: self.settings.version.clone(),
            build_profile: crate::build::build_profile(),
            bundle_name: world.as_ref().map_or_else(String::new, |world| world.name.clone()),
            bundle_revision: world
                .as_ref()
                .map_or_else(String::new, |world| world.revision.clone()),
            bundle_digest: world.as_ref().map_or_else(String::new, |world| world.digest.clone()),
            trust_revision: world
                .as_ref()
                .map_or_else(String::new, |world| world.trust.revision().to_owned()),
            listeners: world.as_deref().map_or_else(Vec::new, listener_states),
            audit,
            state,
            revocations: self.keeper.store().revocations().len(),
            token_cache_hits: self.tokens.hits(),
            token_cache_misses: self.tokens.misses(),
            panics: self.metrics.panics(),
            shadow: world.as_deref().and_then(|world| self.shadow_status(world)),
            exceptions: world.as_deref().map_or_else(Vec::new, |world| self.exceptions(world)),
            breakglass: self.breakglass_in_force().iter().map(|one| in_force(one)).collect(),
        }
    }

    /// The shadow bundle of a world, with the results of all comparisons.
    fn shadow_status(&self, world: &Loaded) -> Option<ShadowStatus> {
        let plan = world.shadow.as_ref()?.plan();
        Some(ShadowStatus {
            bundle: plan.name().to_owned(),
            revision: plan.revision().to_owned(),
            digest: hex(&plan.digest()),
            decisions: self.metrics.shadow_results(),
        })
    }

    /// The standing exceptions of a world, with their uses.
    fn exceptions(&self, world: &Loaded) -> Vec<ExceptionStatus> {
        let summaries = world.plan.model().exception_summaries();
        let status = summaries.map(|summary| {
            let count = self.metrics.exceptions.of(summary.name);
            ExceptionStatus {
                name: summary.name.to_owned(),
                who: summary.who.to_owned(),
                operations: summary.operations.into_iter().map(str::to_owned).collect(),
                tier_cap: summary.tier_cap,
                owner: summary.owner.to_owned(),
                reason: summary.reason.to_owned(),
                ticket: summary.ticket.to_owned(),
                expires_ms: summary.expires_ms,
                uses: count.uses,
                last_used_ms: count.last_ms,
            }
        });
        status.collect()
    }

    /// Requests that are in force now, for metrics and readiness.
    fn breakglass_in_force(&self) -> Vec<Arc<Breakglass>> {
        let now = Time(self.clock.now_ms());
        let all = self.keeper.breakglasses();
        let all = all.iter().flat_map(|all| all.iter());
        all.filter(|one| one.in_force(now).is_some()).map(Arc::clone).collect()
    }

    /// Problems that make the node unready.
    fn problems(
        &self,
        world: Option<&Loaded>,
        audit: &AuditHealth,
        state: &StoreHealth,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        if world.is_none() {
            problems.push("no bundle is loaded".to_owned());
        }
        if !audit.writable {
            problems.push(format!("the audit file cannot be written: {}", audit.last_error));
        }
        if !state.reachable || !state.writable {
            problems.push(format!("the store of tasks is out of reach: {}", state.last_error));
        }
        if let Err(refused) = self.keeper.revocations() {
            problems.push(refused.message);
        }
        problems.extend(self.servers().iter().flat_map(|server| server.problems()));
        problems
    }

    /// Conditions that need attention, but do not stop decisions.
    fn warnings(
        &self,
        world: Option<&Loaded>,
        audit: &AuditHealth,
        state: &StoreHealth,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        if !audit.torn_file.is_empty() {
            warnings.push(format!(
                "the audit file ended in half a record; {} bytes are kept in `{}`",
                audit.torn_bytes, audit.torn_file
            ));
        }
        if !audit.chain_damage.is_empty() {
            warnings.push(format!(
                "the audit log is not what was written: {}; `authz audit verify` tells more",
                audit.chain_damage
            ));
        }
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
        warnings.extend(world.into_iter().flat_map(world_warnings));
        warnings
    }

    /// All metrics of the engine and its servers.
    #[must_use]
    pub fn metrics(&self) -> Vec<Family> {
        let now = Time(self.clock.now_ms());
        let world = self.world.load();
        let modes = world.as_ref().map(|world| &world.plan.model().modes);
        let ends = || {
            let entries = modes.into_iter().flat_map(|modes| modes.rules());
            entries.filter(|(_, entry)| entry.observes(now)).filter_map(|(_, entry)| entry.until)
        };
        let declared = world.as_ref().map(|world| &world.plan.model().exceptions);
        let declared = declared.into_iter().flatten();
        let exceptions: Vec<(&str, i64)> =
            declared.map(|(name, one)| (name.as_str(), one.expires.0)).collect();
        let breakglass = self.breakglass_in_force();
        let breakglass = breakglass.iter().map(|one| one.system.as_str()).collect();
        let mut families = self.metrics.families(&Gauges {
            breakglass,
            now,
            exceptions: &exceptions,
            observing: ends().count() as u64,
            observing_until: ends().min().map_or(0, |end| end.0.div_euclid(1_000).unsigned_abs()),
            tokens: (self.tokens.hits(), self.tokens.misses()),
            certificates: (self.certificates.hits(), self.certificates.misses()),
            audit: &self.audit_health(),
            state: &self.keeper.store().health(),
            max_tasks: self.keeper.settings().max_tasks,
            staleness: self.keeper.store().staleness(),
            revocations: self.keeper.store().revocations().len() as u64,
            spans_dropped: self.tracing.as_ref().map_or(0, Tracing::dropped),
            version: &self.settings.version,
        });
        families.extend(self.servers().iter().flat_map(|server| server.families()));
        families
    }

    /// Takes the oldest spans that wait for export, at most `most`. Empty if traces are off.
    #[must_use]
    pub fn spans(&self, most: usize) -> Vec<Span> {
        self.tracing.as_ref().map_or_else(Vec::new, |tracing| tracing.take(most))
    }
}

/// Break-glass that is in force, for people.
fn in_force(record: &Breakglass) -> BreakglassInForce {
    let confirmed_by = record.confirmed.as_ref().map(|confirmed| confirmed.by.name.clone());
    BreakglassInForce {
        id: record.id.clone(),
        system: record.system.clone(),
        agent: record.agent.clone().unwrap_or_default(),
        ticket: record.ticket.clone(),
        opened_by: record.opened_by.name.clone(),
        confirmed_by: confirmed_by.unwrap_or_default(),
        ends_ms: record.live_until().0,
    }
}

/// Conditions of a world that need attention.
fn world_warnings(world: &Loaded) -> Vec<String> {
    let unknown = world.unknown_systems.iter();
    let mut warnings: Vec<String> = unknown
        .map(|system| format!("an enforcer asks about `{system}`, which the bundle has not"))
        .collect();
    warnings.extend(world.trust.warnings().iter().map(ToString::to_string));
    let named = world.credentials.iter().flat_map(CredentialSettings::systems);
    let unknown = named.filter(|system| !world.plan.systems().contains_key(*system));
    warnings.extend(
        unknown.map(|system| format!("`credentials` names `{system}`, which the bundle has not")),
    );
    let open = world.listeners().filter(|(_, way)| way.insecure_dev);
    warnings.extend(open.map(|(name, _)| format!("listener `{name}` is insecure_dev")));
    warnings
}

/// Each listener with the proof of its callers.
fn listener_states(world: &Loaded) -> Vec<String> {
    let callers = |way: &Way| match &way.enforcer {
        _ if way.insecure_dev => "anybody is an enforcer (insecure_dev)",
        Some(_) => "enforcer",
        None if way.mutual => "callers are who their certificate says",
        None if way.http => "clients of token endpoints",
        None => "callers ask about themselves",
    };
    world.listeners().map(|(name, way)| format!("{name}: {}", callers(way))).collect()
}
