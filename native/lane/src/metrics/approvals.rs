//! Counters of approvals: events by queue, and the time until answers.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use authz_base::poison::IgnorePoison as _;

use super::family::{Family, FamilyKind, Sample, plain};
use super::labels::ApprovalEvent;

/// Maximum number of queues that are counted by name since the start of the node. Further queues are counted as `other`.
const MAX_QUEUES: usize = 1_000;
/// Upper bounds of the buckets of times until answers, in seconds.
const BOUNDS: [u32; 11] = [1, 3, 10, 30, 60, 300, 900, 3_600, 14_400, 43_200, 86_400];
/// A faster answer counts as fast, because the person can hardly have read the call.
const FAST_MS: i64 = 3_000;

/// Counters of approvals.
#[derive(Debug, Default)]
pub(super) struct ApprovalCounts {
    events: RwLock<BTreeMap<(String, ApprovalEvent), AtomicU64>>,
    buckets: [AtomicU64; BOUNDS.len()],
    answers: AtomicU64,
    millis: AtomicU64,
    fast: AtomicU64,
    /// Open approvals by queue, as the last sweep found them.
    open: RwLock<BTreeMap<String, u64>>,
}

impl ApprovalCounts {
    /// Counts an event of an approval, once for each of its queues.
    pub(super) fn event(&self, queues: &[String], event: ApprovalEvent) {
        let all = if queues.is_empty() {
            vec!["none"]
        } else {
            queues.iter().map(String::as_str).collect()
        };
        for queue in all {
            let key = (queue.to_owned(), event);
            if let Some(count) = self.events.read().ignore_poison().get(&key) {
                count.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let mut events = self.events.write().ignore_poison();
            let is_full = events.len() >= MAX_QUEUES;
            let key = if is_full { ("other".to_owned(), event) } else { key };
            events.entry(key).or_default().fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the time from the first look to the answer.
    pub(super) fn decided(&self, millis: i64) {
        let millis = millis.max(0);
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.millis.fetch_add(millis.unsigned_abs(), Ordering::Relaxed);
        if millis < FAST_MS {
            self.fast.fetch_add(1, Ordering::Relaxed);
        }
        let fits = |bound: &u32| millis <= i64::from(*bound).saturating_mul(1_000);
        if let Some(bucket) = BOUNDS.iter().position(fits).and_then(|at| self.buckets.get(at)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sets the number of open approvals by queue.
    pub(super) fn set_open(&self, open: BTreeMap<String, u64>) {
        *self.open.write().ignore_poison() = open;
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub(super) fn families(&self) -> Vec<Family> {
        let events = self.events.read().ignore_poison();
        let events = events.iter().map(|((queue, event), count)| Sample {
            name: "authz_approvals_total".to_owned(),
            labels: vec![("queue", queue.clone()), ("event", event.as_str().to_owned())],
            value: count.load(Ordering::Relaxed) as f64,
        });
        let open = self.open.read().ignore_poison();
        let open = open.iter().map(|(queue, count)| Sample {
            name: "authz_approvals_open".to_owned(),
            labels: vec![("queue", queue.clone())],
            value: *count as f64,
        });
        vec![
            Family {
                name: "authz_approvals",
                help: "Events of approvals, by queue and event.",
                kind: FamilyKind::Counter,
                samples: events.collect(),
            },
            Family {
                name: "authz_approvals_open",
                help: "Approvals that wait for an answer, by queue, as the last sweep found them.",
                kind: FamilyKind::Gauge,
                samples: open.collect(),
            },
            self.duration_family(),
            plain(
                "authz_approvals_fast_answers",
                "Answers less than 3 seconds after the first look at the call.",
                self.fast.load(Ordering::Relaxed),
            ),
        ]
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    fn duration_family(&self) -> Family {
        const NAME: &str = "authz_approval_decision_seconds";
        let mut samples = Vec::new();
        let mut count = 0_u64;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            count = count.saturating_add(bucket.load(Ordering::Relaxed));
            samples.push(Sample {
                name: format!("{NAME}_bucket"),
                labels: vec![("le", format!("{:?}", f64::from(*bound)))],
                value: count as f64,
            });
        }
        let answers = self.answers.load(Ordering::Relaxed);
        samples.push(Sample {
            name: format!("{NAME}_bucket"),
            labels: vec![("le", "+Inf".to_owned())],
            value: answers as f64,
        });
        samples.push(Sample {
            name: format!("{NAME}_sum"),
            labels: Vec::new(),
            value: self.millis.load(Ordering::Relaxed) as f64 / 1_000.0,
        });
        samples.push(Sample {
            name: format!("{NAME}_count"),
            labels: Vec::new(),
            value: answers as f64,
        });
        Family {
            name: NAME,
            help: "Seconds from the first look of a person at an approval to the answer.",
            kind: FamilyKind::Histogram,
            samples,
        }
    }
}
