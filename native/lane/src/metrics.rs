//! What is counted, with labels from closed sets only.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::{Outcome, ProofMethod};
use authz_kernel::model::Tier;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{RevocationTarget, TaskKind, TaskStatus};
use authz_state::AuditHealth;
use authz_state::store::StoreHealth;

use crate::judgement::EnforcerProof;
use crate::settings::{Lane, Surface};
use crate::sweep::Swept;

/// Upper bounds of the histograms' buckets, in seconds.
pub const BUCKETS: [f64; 16] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5,
    1.0,
];
/// Systems of all bundles served since the start; later ones are counted as unknown.
const MAX_SYSTEMS: usize = 10_000;
/// How an agent may be proved; none: there is no proved agent.
const AGENTS: [Option<ProofMethod>; 4] =
    [None, Some(ProofMethod::JwtSvid), Some(ProofMethod::X509Svid), Some(ProofMethod::Relayed)];
/// How tasks come to be.
const STARTED: [TaskKind; 3] = [TaskKind::Root, TaskKind::Child, TaskKind::Implicit];
/// How tasks end.
const ENDED: [TaskStatus; 4] =
    [TaskStatus::Completed, TaskStatus::Aborted, TaskStatus::Revoked, TaskStatus::Expired];
/// The system label where the operation was not resolved.
const UNKNOWN: &str = "unknown";

/// A metric family, as `prometheus-client`'s collectors want it.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Name; of a counter without `_total`.
    pub name: &'static str,
    /// What is counted.
    pub help: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// What kind a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl Kind {
    /// The word that Prometheus uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One value of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its full name.
    pub name: String,
    /// Its labels, in a fixed order.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: f64,
}

/// A system of a bundle, as the counters know it; the default is the unknown one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SystemId(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct DecisionKey {
    outcome: u8,
    reason: u8,
    system: SystemId,
    tier: Option<Tier>,
    surface: Surface,
    enforced: bool,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    above: AtomicU64,
    nanos: AtomicU64,
}

impl Histogram {
    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BUCKETS
            .iter()
            .position(|bound| seconds <= *bound)
            .and_then(|at| self.buckets.get(at))
            .unwrap_or(&self.above);
        bucket.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    fn samples(&self, name: &str, labels: &[(&'static str, String)], into: &mut Vec<Sample>) {
        let with = |extra: Option<String>| {
            let mut labels = labels.to_vec();
            if let Some(bound) = extra {
                labels.push(("le", bound));
            }
            labels
        };
        let mut count = 0_u64;
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            count = count.saturating_add(bucket.load(Ordering::Relaxed));
            into.push(Sample {
                name: format!("{name}_bucket"),
                labels: with(Some(format!("{bound:?}"))),
                value: count as f64,
            });
        }
        count = count.saturating_add(self.above.load(Ordering::Relaxed));
        into.push(Sample {
            name: format!("{name}_bucket"),
            labels: with(Some("+Inf".to_owned())),
            value: count as f64,
        });
        into.push(Sample {
            name: format!("{name}_count"),
            labels: with(None),
            value: count as f64,
        });
        into.push(Sample {
            name: format!("{name}_sum"),
            labels: with(None),
            value: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64(),
        });
    }
}

/// What becomes of a task credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CredentialEvent {
    /// It was issued.
    Issued,
    /// It was presented, and its operation permitted again.
    Redeemed,
    /// It was revoked by itself.
    Revoked,
    /// It is no longer kept, a while after its end.
    Expired,
}

impl CredentialEvent {
    /// All, in order.
    const ALL: [Self; 4] = [Self::Issued, Self::Redeemed, Self::Revoked, Self::Expired];

    /// The word used in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Redeemed => "redeemed",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

/// What comes of an entry of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogEntry {
    /// It told what came of a permit.
    Settled,
    /// No permit of its decision is open: it was none, keeps nothing, was told before, or counts as done.
    NothingOpen,
    /// It names no decision.
    NoDecision,
    /// The request is not over.
    NotFinal,
    /// The catalog names another reporter for the system, or none.
    OtherReporter,
    /// Whoever tells may not: another enforcer asked.
    Refused,
    /// It, or its message, cannot be read or is too large.
    Malformed,
    /// What came could not be kept.
    Failed,
}

impl LogEntry {
    /// All, in order.
    const ALL: [Self; 8] = [
        Self::Settled,
        Self::NothingOpen,
        Self::NoDecision,
        Self::NotFinal,
        Self::OtherReporter,
        Self::Refused,
        Self::Malformed,
        Self::Failed,
    ];

    /// The word used in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::NothingOpen => "nothing_open",
            Self::NoDecision => "no_decision",
            Self::NotFinal => "not_final",
            Self::OtherReporter => "other_reporter",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Failed => "failed",
        }
    }
}

/// How a call of the kill switch changes what is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevocationChange {
    /// A target was revoked.
    Revoked,
    /// A revocation was lifted.
    Undone,
}

impl RevocationChange {
    /// All, in order.
    const ALL: [Self; 2] = [Self::Revoked, Self::Undone];

    /// The word used in metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Undone => "undone",
        }
    }
}

/// All counters of one engine.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    decisions: RwLock<BTreeMap<DecisionKey, AtomicU64>>,
    systems: RwLock<BTreeMap<String, SystemId>>,
    durations: [[Histogram; Surface::ALL.len()]; Lane::ALL.len()],
    verify: Histogram,
    lock_wait: Histogram,
    identified: [[AtomicU64; AGENTS.len()]; EnforcerProof::ALL.len()],
    panics: AtomicU64,
    started: [AtomicU64; STARTED.len()],
    ended: [AtomicU64; ENDED.len()],
    reservations: [AtomicU64; 4],
    credentials: [AtomicU64; CredentialEvent::ALL.len()],
    logged: [AtomicU64; LogEntry::ALL.len()],
    revocations: [[AtomicU64; RevocationTarget::ALL.len()]; RevocationChange::ALL.len()],
    forgotten: AtomicU64,
    sweeps_failed: AtomicU64,
    summed: AtomicU64,
}

impl Metrics {
    /// The id of a bundle's system; the unknown one past the bound.
    pub(crate) fn system(&self, name: &str) -> SystemId {
        let mut systems = self.systems.write().ignore_poison();
        if let Some(id) = systems.get(name) {
            return *id;
        }
        if systems.len() >= MAX_SYSTEMS {
            return SystemId::default();
        }
        let id = SystemId(u32::try_from(systems.len()).map_or(0, |count| count.saturating_add(1)));
        systems.insert(name.to_owned(), id);
        id
    }

    pub(crate) fn decided(
        &self,
        outcome: Outcome,
        reason: ReasonCode,
        system: SystemId,
        tier: Option<Tier>,
        surface: Surface,
        enforced: bool,
    ) {
        let key = DecisionKey {
            outcome: outcome as u8,
            reason: reason as u8,
            system,
            tier,
            surface,
            enforced,
        };
        {
            let decisions = self.decisions.read().ignore_poison();
            if let Some(count) = decisions.get(&key) {
                count.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let mut decisions = self.decisions.write().ignore_poison();
        decisions.entry(key).or_default().fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn took(&self, lane: Lane, surface: Surface, time: Duration) {
        let histograms = self.durations.get(lane as usize);
        if let Some(histogram) = histograms.and_then(|lane| lane.get(surface as usize)) {
            histogram.observe(time);
        }
    }

    pub(crate) fn verified(&self, time: Duration) {
        self.verify.observe(time);
    }

    /// A decision waited for its turn at the records that it changes.
    pub(crate) fn locked(&self, time: Duration) {
        self.lock_wait.observe(time);
    }

    /// Counts who asked, and how the agent was proved; none: there was none, or it was not.
    pub(crate) fn identified(&self, enforcer: EnforcerProof, agent: Option<ProofMethod>) {
        let place = AGENTS.iter().position(|known| *known == agent).unwrap_or_default();
        let counts = self.identified.get(enforcer as usize);
        if let Some(count) = counts.and_then(|counts| counts.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task was started.
    pub(crate) fn task_started(&self, kind: TaskKind) {
        let at = STARTED.iter().position(|known| *known == kind);
        if let Some(count) = at.and_then(|at| self.started.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// So many tasks ended.
    pub(crate) fn tasks_ended(&self, status: TaskStatus, count: u64) {
        let at = ENDED.iter().position(|known| *known == status);
        if let Some(ended) = at.and_then(|at| self.ended.get(at)) {
            ended.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// A permit was kept until it is reported.
    pub(crate) fn reserved(&self) {
        let [reserved, ..] = &self.reservations;
        reserved.fetch_add(1, Ordering::Relaxed);
    }

    /// Something became of a task credential.
    pub(crate) fn credential(&self, event: CredentialEvent) {
        self.credentials_were(event, 1);
    }

    fn credentials_were(&self, event: CredentialEvent, count: u64) {
        if let Some(known) = self.credentials.get(event as usize) {
            known.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// It was told what came of a permit.
    pub(crate) fn reported(&self) {
        let [.., reported] = &self.reservations;
        reported.fetch_add(1, Ordering::Relaxed);
    }

    /// An entry of an access log was read.
    pub(crate) fn logged(&self, entry: LogEntry) {
        if let Some(count) = self.logged.get(entry as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A target was revoked, or its revocation was lifted.
    pub(crate) fn revocation(&self, target: RevocationTarget, change: RevocationChange) {
        let counts = self.revocations.get(change as usize);
        if let Some(count) = counts.and_then(|counts| counts.get(target as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Permits were given back before their time.
    pub(crate) fn released(&self, count: u64) {
        let [_, _, released, _] = &self.reservations;
        released.fetch_add(count, Ordering::Relaxed);
    }

    /// What the sweep did.
    pub(crate) fn swept(&self, swept: &Swept) {
        let [_, committed, released, _] = &self.reservations;
        committed.fetch_add(swept.committed, Ordering::Relaxed);
        released.fetch_add(swept.released, Ordering::Relaxed);
        self.credentials_were(CredentialEvent::Expired, swept.credentials);
        self.tasks_ended(TaskStatus::Expired, swept.expired);
        self.forgotten.fetch_add(swept.forgotten, Ordering::Relaxed);
        self.sweeps_failed.fetch_add(u64::from(!swept.error.is_empty()), Ordering::Relaxed);
    }

    fn state_families(&self, gauges: &Gauges<'_>) -> Vec<Family> {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let state = gauges.state;
        let [reserved, committed, released, reported] = &self.reservations;
        let mut started = [0; STARTED.len()];
        for (into, count) in started.iter_mut().zip(&self.started) {
            *into = load(count);
        }
        let mut ended = [0; ENDED.len()];
        for (into, count) in ended.iter_mut().zip(&self.ended) {
            *into = load(count);
        }
        let targets = RevocationTarget::ALL.len();
        let changes: [_; RevocationTarget::ALL.len() * RevocationChange::ALL.len()] =
            std::array::from_fn(|at| {
                let change = RevocationChange::ALL.get(at / targets);
                let target = RevocationTarget::ALL.get(at % targets);
                let counts = self.revocations.get(at / targets);
                let count = counts.and_then(|counts| counts.get(at % targets));
                let labels = vec![
                    ("target", target.map_or("", |target| target.as_str()).to_owned()),
                    ("change", change.map_or("", |change| change.as_str()).to_owned()),
                ];
                (labels, count.map_or(0, load))
            });
        let [root, child, implicit] = started;
        let [completed, aborted, revoked, expired] = ended;
        vec![
            counter(
                "authz_tasks_started",
                "Tasks that were started, by kind.",
                [("root", root), ("child", child), ("implicit", implicit)]
                    .map(|(kind, value)| (vec![("kind", kind.to_owned())], value)),
            ),
            counter(
                "authz_tasks_ended",
                "Tasks that ended, by how.",
                [
                    ("completed", completed),
                    ("aborted", aborted),
                    ("revoked", revoked),
                    ("expired", expired),
                ]
                .map(|(status, value)| (vec![("status", status.to_owned())], value)),
            ),
            plain(
                "authz_task_trees_forgotten",
                "Ended task trees that are no longer kept.",
                load(&self.forgotten),
            ),
            gauge("authz_tasks_kept", "Tasks in the store, live and ended.", state.tasks),
            gauge("authz_tasks_most", "Tasks that the store may hold.", gauges.max_tasks),
            counter(
                "authz_reservations",
                "Permits that were kept until they are reported, those that counted as done without, those whose credential was not redeemed, and those that were reported.",
                [
                    ("reserved", load(reserved)),
                    ("committed", load(committed)),
                    ("released", load(released)),
                    ("reported", load(reported)),
                ]
                .map(|(result, value)| (vec![("result", result.to_owned())], value)),
            ),
            counter(
                "authz_credentials",
                "Task credentials, by what became of them.",
                CredentialEvent::ALL.map(|event| {
                    let count = self.credentials.get(event as usize).map_or(0, load);
                    (vec![("event", event.as_str().to_owned())], count)
                }),
            ),
            counter(
                "authz_access_log_entries",
                "Entries of access logs, by what came of them.",
                LogEntry::ALL.map(|entry| {
                    let count = self.logged.get(entry as usize).map_or(0, load);
                    (vec![("result", entry.as_str().to_owned())], count)
                }),
            ),
            gauge("authz_revocations", "How much is revoked.", gauges.revocations),
            counter(
                "authz_revocation_changes",
                "Revocations made, and revocations lifted, by target.",
                changes,
            ),
            plain("authz_store_commits", "Transactions of the store.", state.commits),
            plain("authz_store_failures", "Transactions of the store that failed.", state.failures),
            plain(
                "authz_store_sweeps_failed",
                "Times that the store failed while what was due was done.",
                load(&self.sweeps_failed),
            ),
            gauge("authz_store_queued", "Changes that wait to be written.", state.queued),
            gauge(
                "authz_store_writable",
                "1 while the store answers and takes changes.",
                u64::from(state.reachable && state.writable),
            ),
            Family {
                name: "authz_store_staleness_seconds",
                help: "How old what this node knows of other nodes' changes may be.",
                kind: Kind::Gauge,
                samples: vec![Sample {
                    name: "authz_store_staleness_seconds".to_owned(),
                    labels: Vec::new(),
                    value: gauges.staleness.as_secs_f64(),
                }],
            },
            Family {
                name: "authz_store_clock_ahead_seconds",
                help: "How far this node's clock is ahead of the store's; negative: behind.",
                kind: Kind::Gauge,
                samples: vec![Sample {
                    name: "authz_store_clock_ahead_seconds".to_owned(),
                    labels: Vec::new(),
                    value: seconds_of(state.clock_ahead_ms.unwrap_or(0)),
                }],
            },
        ]
    }

    /// Refusals were recorded as a sum.
    pub(crate) fn summed(&self, count: u64) {
        self.summed.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// All families, in the order of their names' first mention in the documentation.
    pub(crate) fn families(&self, gauges: &Gauges<'_>) -> Vec<Family> {
        let mut families = vec![
            self.decision_family(),
            self.duration_family(),
            self.verify_family(),
            self.lock_wait_family(),
            counter(
                "authz_cache_requests",
                "Look-ups in a cache.",
                [
                    ("token", "hit", gauges.tokens.0),
                    ("token", "miss", gauges.tokens.1),
                    ("certificate", "hit", gauges.certificates.0),
                    ("certificate", "miss", gauges.certificates.1),
                ]
                .map(|(cache, result, value)| {
                    (vec![("cache", cache.to_owned()), ("result", result.to_owned())], value)
                }),
            ),
            self.identified_family(),
            counter(
                "authz_audit_records",
                "Audit records, by what became of them.",
                [
                    ("written", gauges.audit.written_lines),
                    ("refused", gauges.audit.refused_lines),
                    ("dropped", gauges.audit.dropped_refusals),
                ]
                .map(|(result, value)| (vec![("result", result.to_owned())], value)),
            ),
            plain(
                "authz_audit_summed_refusals",
                "Refusals that have no record of their own, but stand in the record of a sum.",
                self.summed.load(Ordering::Relaxed),
            ),
            plain(
                "authz_audit_written_bytes",
                "Bytes of audit records.",
                gauges.audit.written_bytes,
            ),
            plain("authz_audit_syncs", "Times the audit file was synced.", gauges.audit.syncs),
            plain(
                "authz_audit_failures",
                "Writes, syncs and openings of the audit file that failed.",
                gauges.audit.failures,
            ),
            gauge(
                "authz_audit_queued_records",
                "Audit records that wait for the disk.",
                gauges.audit.queued_lines,
            ),
            gauge(
                "authz_audit_queued_bytes",
                "Bytes of audit records that wait for the disk.",
                gauges.audit.queued_bytes,
            ),
            gauge(
                "authz_audit_writable",
                "1 while the audit file can be written.",
                u64::from(gauges.audit.writable),
            ),
            plain(
                "authz_trace_spans_dropped",
                "Spans that found the queue of the exporter full.",
                gauges.spans_dropped,
            ),
            gauge(
                "authz_observe_entries",
                "Entries of `mode` that observe: what falls under them is not enforced.",
                gauges.observing,
            ),
            gauge(
                "authz_observe_until_timestamp_seconds",
                "When the first of them ends; 0 where there is none.",
                gauges.observing_until,
            ),
            plain("authz_panics", "Decisions that failed inside; each was denied.", self.panics()),
            Family {
                name: "authz_build_info",
                help: "1, with the version and the build profile.",
                kind: Kind::Gauge,
                samples: vec![Sample {
                    name: "authz_build_info".to_owned(),
                    labels: vec![
                        ("version", gauges.version.to_owned()),
                        ("profile", crate::build::build_profile().to_owned()),
                    ],
                    value: 1.0,
                }],
            },
        ];
        families.extend(self.state_families(gauges));
        families
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    fn identified_family(&self) -> Family {
        let mut samples = Vec::new();
        for (known, counts) in EnforcerProof::ALL.into_iter().zip(&self.identified) {
            for (agent, count) in AGENTS.into_iter().zip(counts) {
                samples.push(Sample {
                    name: "authz_identified_total".to_owned(),
                    labels: vec![
                        ("enforcer", known.as_str().to_owned()),
                        ("agent", agent.map_or("none", ProofMethod::as_str).to_owned()),
                    ],
                    value: count.load(Ordering::Relaxed) as f64,
                });
            }
        }
        Family {
            name: "authz_identified",
            help: "Decisions, by how the enforcer and the agent were known.",
            kind: Kind::Counter,
            samples,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    fn decision_family(&self) -> Family {
        let systems = self.systems.read().ignore_poison();
        let names: BTreeMap<SystemId, &str> =
            systems.iter().map(|(name, id)| (*id, name.as_str())).collect();
        let decisions = self.decisions.read().ignore_poison();
        let samples = decisions
            .iter()
            .map(|(key, count)| (key, count.load(Ordering::Relaxed)))
            .map(|(key, count)| Sample {
                name: "authz_decisions_total".to_owned(),
                labels: vec![
                    ("decision", outcome_label(key.outcome).to_owned()),
                    ("reason_code", reason_label(key.reason).to_owned()),
                    ("system", names.get(&key.system).copied().unwrap_or(UNKNOWN).to_owned()),
                    ("tier", key.tier.map_or(UNKNOWN, Tier::as_str).to_owned()),
                    ("surface", key.surface.as_str().to_owned()),
                    ("enforced", key.enforced.to_string()),
                ],
                value: count as f64,
            })
            .collect();
        Family {
            name: "authz_decisions",
            help: "Decisions answered.",
            kind: Kind::Counter,
            samples,
        }
    }

    fn duration_family(&self) -> Family {
        let name = "authz_decision_duration_seconds";
        let mut samples = Vec::new();
        for (lane, histograms) in Lane::ALL.into_iter().zip(&self.durations) {
            for (surface, histogram) in Surface::ALL.into_iter().zip(histograms) {
                // The fast lane answers no more.
                if lane == Lane::Fast && !matches!(surface, Surface::Check | Surface::ExtAuthz) {
                    continue;
                }
                // It answers no decision.
                if surface == Surface::List {
                    continue;
                }
                let labels =
                    [("lane", lane.as_str().to_owned()), ("surface", surface.as_str().to_owned())];
                histogram.samples(name, &labels, &mut samples);
            }
        }
        Family {
            name,
            help: "From the request's bytes to the answer's, the wait for a durable record included.",
            kind: Kind::Histogram,
            samples,
        }
    }

    fn lock_wait_family(&self) -> Family {
        let name = "authz_state_lock_wait_seconds";
        let mut samples = Vec::new();
        self.lock_wait.samples(name, &[], &mut samples);
        Family {
            name,
            help: "AwaitedWrite of decisions for their turn at the records that they change; on PostgreSQL with the begin of the \
                   transaction.",
            kind: Kind::Histogram,
            samples,
        }
    }

    fn verify_family(&self) -> Family {
        let name = "authz_token_verify_duration_seconds";
        let mut samples = Vec::new();
        self.verify.samples(name, &[], &mut samples);
        Family {
            name,
            help: "Verification of all credentials of a request, cached or not.",
            kind: Kind::Histogram,
            samples,
        }
    }
}

/// What other parts count.
pub(crate) struct Gauges<'a> {
    /// Hits and misses of the cache of verified tokens.
    pub(crate) tokens: (u64, u64),
    /// And of that of verified certificates.
    pub(crate) certificates: (u64, u64),
    pub(crate) observing: u64,
    pub(crate) observing_until: u64,
    pub(crate) audit: &'a AuditHealth,
    pub(crate) state: &'a StoreHealth,
    pub(crate) max_tasks: u64,
    /// Of what this node knows of others.
    pub(crate) staleness: Duration,
    pub(crate) revocations: u64,
    pub(crate) spans_dropped: u64,
    pub(crate) version: &'a str,
}

const fn outcome_label(outcome: u8) -> &'static str {
    match outcome {
        0 => "permit",
        1 => "step_up",
        _ => "deny",
    }
}

fn reason_label(reason: u8) -> &'static str {
    ReasonCode::ALL
        .into_iter()
        .find(|code| *code as u8 == reason)
        .unwrap_or(ReasonCode::Unavailable)
        .as_str()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
fn counter<const N: usize>(
    name: &'static str,
    help: &'static str,
    values: [(Vec<(&'static str, String)>, u64); N],
) -> Family {
    let samples = values
        .into_iter()
        .map(|(labels, value)| Sample {
            name: format!("{name}_total"),
            labels,
            value: value as f64,
        })
        .collect();
    Family { name, help, kind: Kind::Counter, samples }
}

/// Milliseconds as seconds; beyond 24 days, as so many.
fn seconds_of(ms: i64) -> f64 {
    const MOST: i64 = i32::MAX as i64;
    f64::from(i32::try_from(ms.clamp(-MOST, MOST)).unwrap_or(0)) / 1_000.0
}

fn plain(name: &'static str, help: &'static str, value: u64) -> Family {
    counter(name, help, [(Vec::new(), value)])
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    let samples = vec![Sample { name: name.to_owned(), labels: Vec::new(), value: value as f64 }];
    Family { name, help, kind: Kind::Gauge, samples }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every label value is of a closed set, and an operation of no system is counted as unknown.
    #[test]
    fn labels_are_closed() {
        let metrics = Metrics::default();
        let crm = metrics.system("crm");
        assert_eq!(crm, metrics.system("crm"));
        for system in [crm, SystemId::default()] {
            for _ in 0..2 {
                metrics.decided(
                    Outcome::Deny,
                    ReasonCode::NotPermitted,
                    system,
                    Some(Tier::High),
                    Surface::Check,
                    true,
                );
            }
        }
        let values: Vec<(f64, String)> = metrics
            .decision_family()
            .samples
            .iter()
            .map(|sample| {
                let labels: Vec<&str> = sample.labels.iter().map(|(_, value)| &**value).collect();
                (sample.value, labels.join(" "))
            })
            .collect();
        let expected = [
            (2.0, "deny NOT_PERMITTED unknown high check true".to_owned()),
            (2.0, "deny NOT_PERMITTED crm high check true".to_owned()),
        ];
        assert_eq!(expected.as_slice(), values);
    }

    /// Buckets count up, and the last one holds everything.
    #[test]
    fn histogram_is_cumulative() {
        let metrics = Metrics::default();
        for time in [Duration::from_micros(5), Duration::from_micros(90), Duration::from_secs(3)] {
            metrics.verified(time);
        }
        let family = metrics.verify_family();
        let of = |le: &str| {
            family
                .samples
                .iter()
                .find(|sample| sample.labels == [("le", le.to_owned())])
                .map(|sample| sample.value)
        };
        assert_eq!([Some(1.0), Some(2.0), Some(3.0)], [of("1e-5"), of("0.0001"), of("+Inf")]);
        let sum = family.samples.iter().find(|sample| sample.name.ends_with("_sum"));
        assert!(sum.is_some_and(|sample| (sample.value - 3.000_095).abs() < 1e-9));
    }
}
