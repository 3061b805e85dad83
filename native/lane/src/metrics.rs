//! Counters of the engine. Labels come from closed sets only.
//!
//! `prometheus-client` does not fit: its histogram takes a lock for each observation, of which every call makes several, where
//! [`Histogram`] adds to atomics. Its text is OpenMetrics, with a period after each help text and an end mark, but `/metrics`
//! shows the families of the engine among those of the Python server, in the Prometheus format. So the engine hands over
//! [`Family`] values, and the Python server renders them all.

mod approvals;
mod exceptions;
mod family;
mod histogram;
mod labels;
mod names;
mod observed;
mod render;
mod shadow;

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::{Decision, Outcome, ProofMethod};
use authz_kernel::model::Tier;
use authz_kernel::plan::Plan;
use authz_kernel::reason::ReasonCode;
use authz_kernel::task::{RevocationTarget, TaskKind, TaskStatus};

use self::approvals::ApprovalCounts;
use self::exceptions::ExceptionUses;
use self::histogram::Histogram;
use self::names::NameCounts;
use self::observed::ObservedCounts;
use self::shadow::ShadowCounts;
use crate::enforcer_proof::EnforcerProof;
use crate::settings::{Lane, Surface};
use crate::shadow_answer::ShadowAnswer;

pub(crate) use self::approvals::{HeldQueue, OpenApprovals};
pub use self::family::{Family, FamilyKind, Sample};
pub use self::histogram::BUCKETS;
pub(crate) use self::labels::{ApprovalEvent, CredentialEvent, LogEntry, RevocationChange};
pub(crate) use self::render::Gauges;

/// Systems of all bundles served since the start; later ones are counted as unknown.
const MAX_SYSTEMS: usize = 10_000;
/// Proofs of an agent. `None`: the agent is not proved, or there is none.
const AGENTS: [Option<ProofMethod>; 4] =
    [None, Some(ProofMethod::JwtSvid), Some(ProofMethod::X509Svid), Some(ProofMethod::Relayed)];

/// Kinds of tasks that start.
const STARTED: [TaskKind; 3] = [TaskKind::Root, TaskKind::Child, TaskKind::Implicit];
/// Status of tasks that ended.
const ENDED: [TaskStatus; 4] =
    [TaskStatus::Completed, TaskStatus::Aborted, TaskStatus::Revoked, TaskStatus::Expired];

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
    pub(crate) exceptions: ExceptionUses,
    approvals: ApprovalCounts,
    step_ups: NameCounts,
    labels_joined: NameCounts,
    observed: ObservedCounts,
    shadow: ShadowCounts,
}

impl Metrics {
    /// Takes over the names of a bundle that is served from now on: their counters stand at zero from the start.
    pub(crate) fn serve(&self, plan: &Plan) {
        self.observed.serve(plan);
        self.labels_joined.declare(plan.model().labels.keys());
    }

    /// Counts a decision while a shadow bundle is loaded.
    pub(crate) fn shadowed(&self, answer: &ShadowAnswer) {
        self.shadow.add(answer);
    }

    /// Decisions while a shadow bundle was loaded, by result.
    pub(crate) fn shadow_results(&self) -> BTreeMap<&'static str, u64> {
        self.shadow.results().collect()
    }

    /// Counts the observed policies of a decision.
    pub(crate) fn observed(&self, decision: &Decision) {
        if !decision.observed.is_empty() {
            self.observed.add(&decision.observed, decision.outcome);
        }
    }

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

    /// Counts the proofs of the enforcer and of the agent of a call.
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

    /// Counts an event of a task credential.
    pub(crate) fn credential(&self, event: CredentialEvent) {
        self.credentials_were(event, 1);
    }

    /// Events of several credentials.
    pub(crate) fn credentials_were(&self, event: CredentialEvent, count: u64) {
        if let Some(known) = self.credentials.get(event as usize) {
            known.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// A permit was reported.
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

    /// Permits counted as done without a report.
    pub(crate) fn committed(&self, count: u64) {
        let [_, committed, ..] = &self.reservations;
        committed.fetch_add(count, Ordering::Relaxed);
    }

    /// Ended task trees are no longer kept.
    pub(crate) fn trees_forgotten(&self, count: u64) {
        self.forgotten.fetch_add(count, Ordering::Relaxed);
    }

    /// The store failed during a sweep.
    pub(crate) fn sweep_failed(&self) {
        self.sweeps_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Refusals were recorded as a sum.
    pub(crate) fn summed(&self, count: u64) {
        self.summed.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts an event of an approval, once for each of its queues.
    pub(crate) fn approval(&self, held: &[HeldQueue], event: ApprovalEvent) {
        self.approvals.event(held, event);
    }

    /// A person answered an approval for a queue, so long after the first look at it.
    pub(crate) fn approval_decided(&self, held: &HeldQueue, millis: i64) {
        self.approvals.decided(held, millis);
    }

    /// Sets the open approvals by queue and rule.
    pub(crate) fn set_open_approvals(&self, open: BTreeMap<HeldQueue, OpenApprovals>) {
        self.approvals.set_open(open);
    }

    /// A call stepped up, and needs something of this kind. Kinds that name a role count as the kind without it.
    pub(crate) fn stepped_up(&self, kind: &str) {
        self.step_ups.add(kind.split_once(':').map_or(kind, |(kind, _)| kind));
    }

    /// A label joined a session, or was brought again.
    pub(crate) fn label_joined(&self, label: &str) {
        self.labels_joined.add(label);
    }

    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
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
}
