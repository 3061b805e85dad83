//! Renders the counters of an engine, and the gauges of its parts, as families.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::{ProofMethod, Time};
use authz_kernel::model::{BREAKGLASS, Tier};
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::RevocationTarget;
use authz_state::AuditHealth;
use authz_state::store::StoreHealth;

use super::family::{
    Family, FamilyKind, Sample, counter, float, gauge, plain, seconds, seconds_of,
};
use super::labels::{CredentialEvent, LogEntry, RevocationChange};
use super::{AGENTS, Metrics, SystemId};
use crate::enforcer_proof::EnforcerProof;
use crate::settings::{Lane, Surface};

/// Label of the system if the operation was not resolved.
const UNKNOWN: &str = "unknown";

impl Metrics {
    /// All families, in the order of their names' first mention in the documentation.
    pub(crate) fn families(&self, gauges: &Gauges<'_>) -> Vec<Family> {
        let mut families = self.call_families(gauges);
        families.extend(self.shadow.families());
        families.extend(self.audit_families(gauges.audit));
        families.extend(self.node_families(gauges));
        families.extend(self.task_families(gauges));
        families.extend(self.permit_families());
        families.extend(self.revocation_families(gauges.revocations));
        families.extend(self.store_families(gauges));
        families.extend(self.approvals.families(gauges.now));
        families
    }

    fn call_families(&self, gauges: &Gauges<'_>) -> Vec<Family> {
        vec![
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
            self.step_ups.family(
                "authz_step_ups",
                "kind",
                "Kinds of step-up that calls needed; a call that needs two counts for both.",
            ),
            self.labels_joined.family(
                "authz_labels_joined",
                "label",
                "Permitted calls that brought a label into their session.",
            ),
            self.observed.family(),
        ]
    }

    fn audit_families(&self, audit: &AuditHealth) -> Vec<Family> {
        vec![
            counter(
                "authz_audit_records",
                "Audit records, by what became of them.",
                [
                    ("written", audit.written_lines),
                    ("refused", audit.refused_lines),
                    ("dropped", audit.dropped_refusals),
                ]
                .map(|(result, value)| (vec![("result", result.to_owned())], value)),
            ),
            plain(
                "authz_audit_summed_refusals",
                "Refusals that have no record of their own, but stand in the record of a sum.",
                self.summed.load(Ordering::Relaxed),
            ),
            plain(
                "authz_audit_dropped_decisions",
                "Decisions that were answered without a record, because the audit queue was full (`audit.on_full: drop`).",
                audit.dropped_lines,
            ),
            plain(
                "authz_audit_waited_records",
                "Records that found the audit queue full and waited for room (`audit.on_full: block`).",
                audit.waited_lines,
            ),
            plain("authz_audit_written_bytes", "Bytes of audit records.", audit.written_bytes),
            plain("authz_audit_syncs", "Times the audit file was synced.", audit.syncs),
            plain(
                "authz_audit_failures",
                "Writes, syncs and openings of the audit file that failed.",
                audit.failures,
            ),
            gauge(
                "authz_audit_queued_records",
                "Audit records that wait for the disk.",
                audit.queued_lines,
            ),
            gauge(
                "authz_audit_queued_bytes",
                "Bytes of audit records that wait for the disk.",
                audit.queued_bytes,
            ),
            gauge(
                "authz_audit_writable",
                "1 while the audit file can be written.",
                u64::from(audit.writable),
            ),
            gauge(
                "authz_audit_segment",
                "Number of the segment of the audit log that is being written; 0 without a chain.",
                audit.segment,
            ),
            gauge("authz_audit_segment_records", "Records in that segment.", audit.segment_lines),
            gauge(
                "authz_audit_damaged",
                "1 if the start found that the audit log is not what was written.",
                u64::from(!audit.chain_damage.is_empty()),
            ),
        ]
    }

    fn node_families(&self, gauges: &Gauges<'_>) -> Vec<Family> {
        vec![
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
            self.exception_use_family(gauges.exceptions),
            exception_end_family(gauges.exceptions),
            breakglass_family(&gauges.breakglass),
            plain("authz_panics", "Decisions that failed inside; each was denied.", self.panics()),
            Family {
                name: "authz_build_info",
                help: "1, with the version and the build profile.",
                kind: FamilyKind::Gauge,
                samples: vec![Sample {
                    name: "authz_build_info".to_owned(),
                    labels: vec![
                        ("version", gauges.version.to_owned()),
                        ("profile", crate::build::build_profile().to_owned()),
                    ],
                    value: 1.0,
                }],
            },
        ]
    }

    fn task_families(&self, gauges: &Gauges<'_>) -> Vec<Family> {
        let [root, child, implicit] = self.started.each_ref().map(load);
        let [completed, aborted, revoked, expired] = self.ended.each_ref().map(load);
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
            gauge("authz_tasks_kept", "Tasks in the store, live and ended.", gauges.state.tasks),
            gauge("authz_tasks_most", "Tasks that the store may hold.", gauges.max_tasks),
        ]
    }

    fn permit_families(&self) -> Vec<Family> {
        let [reserved, committed, released, reported] = &self.reservations;
        vec![
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
        ]
    }

    fn revocation_families(&self, revocations: u64) -> Vec<Family> {
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
        vec![
            gauge("authz_revocations", "How much is revoked.", revocations),
            counter(
                "authz_revocation_changes",
                "Revocations made, and revocations lifted, by target.",
                changes,
            ),
        ]
    }

    fn store_families(&self, gauges: &Gauges<'_>) -> Vec<Family> {
        let state = gauges.state;
        vec![
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
            seconds(
                "authz_store_staleness_seconds",
                "How old what this node knows of other nodes' changes may be.",
                gauges.staleness.as_secs_f64(),
            ),
            seconds(
                "authz_store_clock_ahead_seconds",
                "How far this node's clock is ahead of the store's; negative: behind.",
                seconds_of(state.clock_ahead_ms.unwrap_or(0)),
            ),
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub(super) fn identified_family(&self) -> Family {
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
            kind: FamilyKind::Counter,
            samples,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub(super) fn decision_family(&self) -> Family {
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
            kind: FamilyKind::Counter,
            samples,
        }
    }

    pub(super) fn duration_family(&self) -> Family {
        let name = "authz_decision_duration_seconds";
        let mut samples = Vec::new();
        for (lane, histograms) in Lane::ALL.into_iter().zip(&self.durations) {
            for (surface, histogram) in Surface::ALL.into_iter().zip(histograms) {
                // The fast lane answers no more.
                if lane == Lane::Fast && !matches!(surface, Surface::Check | Surface::ExtAuthz) {
                    continue;
                }
                // A list is not a decision.
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
            kind: FamilyKind::Histogram,
            samples,
        }
    }

    pub(super) fn lock_wait_family(&self) -> Family {
        let name = "authz_state_lock_wait_seconds";
        let mut samples = Vec::new();
        self.lock_wait.samples(name, &[], &mut samples);
        Family {
            name,
            help: "Wait of decisions for their turn at the records that they change; on PostgreSQL with the begin of the \
                   transaction.",
            kind: FamilyKind::Histogram,
            samples,
        }
    }

    fn exception_use_family(&self, declared: &[(&str, i64)]) -> Family {
        let name = "authz_exception_uses";
        let declared = declared.iter().map(|(name, _)| *name).chain([BREAKGLASS]);
        let uses = self.exceptions.all(declared);
        let sample = |(exception, uses)| Sample {
            name: format!("{name}_total"),
            labels: vec![("exception", exception)],
            value: float(uses),
        };
        Family {
            name,
            help: "Calls that were let through and depended on a standing exception, or on `breakglass`.",
            kind: FamilyKind::Counter,
            samples: uses.into_iter().map(sample).collect(),
        }
    }

    pub(super) fn verify_family(&self) -> Family {
        let name = "authz_token_verify_duration_seconds";
        let mut samples = Vec::new();
        self.verify.samples(name, &[], &mut samples);
        Family {
            name,
            help: "Verification of all credentials of a request, cached or not.",
            kind: FamilyKind::Histogram,
            samples,
        }
    }
}

fn exception_end_family(declared: &[(&str, i64)]) -> Family {
    let name = "authz_exception_expiry_timestamp_seconds";
    let sample = |(exception, end_ms): &(&str, i64)| Sample {
        name: name.to_owned(),
        labels: vec![("exception", (*exception).to_owned())],
        value: float(end_ms.div_euclid(1_000).max(0).unsigned_abs()),
    };
    Family {
        name,
        help: "When a standing exception of the bundle expires.",
        kind: FamilyKind::Gauge,
        samples: declared.iter().map(sample).collect(),
    }
}

/// `systems` has the system of each request that is in force.
fn breakglass_family(systems: &[&str]) -> Family {
    let name = "authz_breakglass_in_force";
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for system in systems {
        let count = counts.entry(system).or_default();
        *count = count.saturating_add(1);
    }
    let sample = |(system, count): (&str, u64)| Sample {
        name: name.to_owned(),
        labels: vec![("system", system.to_owned())],
        value: float(count),
    };
    Family {
        name,
        help: "Requests for break-glass in force at a system. No sample: there is none.",
        kind: FamilyKind::Gauge,
        samples: counts.into_iter().map(sample).collect(),
    }
}

/// Values that other parts of the engine count.
pub(crate) struct Gauges<'a> {
    /// Time of the scrape.
    pub(crate) now: Time,
    /// Hits and misses of the cache of verified tokens.
    pub(crate) tokens: (u64, u64),
    /// And of that of verified certificates.
    pub(crate) certificates: (u64, u64),
    pub(crate) observing: u64,
    pub(crate) observing_until: u64,
    /// Standing exceptions of the bundle, and when they expire, in milliseconds since 1970.
    pub(crate) exceptions: &'a [(&'a str, i64)],
    /// System of each request for break-glass that is in force, at most 16.
    pub(crate) breakglass: Vec<&'a str>,
    pub(crate) audit: &'a AuditHealth,
    pub(crate) state: &'a StoreHealth,
    pub(crate) max_tasks: u64,
    /// Age of this node's view of the other nodes' changes.
    pub(crate) staleness: Duration,
    pub(crate) revocations: u64,
    pub(crate) spans_dropped: u64,
    pub(crate) version: &'a str,
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
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
