//! Metrics of approvals by queue and rule: events, open approvals and their age, and the time that people take.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use authz_base::poison::IgnorePoison as _;
use authz_kernel::decision::Time;

use super::family::{Family, FamilyKind, Sample, float, seconds_of};
use super::labels::ApprovalEvent;

/// Pairs of queue and rule that are counted by name since the start; later ones are counted as `other`.
const MAX_PAIRS: usize = 500;
/// Queue and rule of the pairs beyond [`MAX_PAIRS`].
const OTHER: &str = "other";
/// Label of an approval without a queue or a rule that is known.
const NONE: &str = "none";
/// Upper bounds of the times that people take, in seconds.
const BOUNDS: [u32; 11] = [1, 3, 10, 30, 60, 300, 900, 3_600, 14_400, 43_200, 86_400];
/// A faster answer counts as fast, because the person can hardly have read the call.
const FAST_MS: i64 = 3_000;

/// A queue, and the rules that hold a call for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldQueue {
    /// Queue, for example `approve:finance`.
    pub(crate) queue: String,
    /// Names of the rules, sorted, as one label. Empty: not known.
    pub(crate) rule: String,
}

impl HeldQueue {
    fn other() -> Self {
        Self { queue: OTHER.to_owned(), rule: OTHER.to_owned() }
    }

    fn labels(&self) -> Vec<(&'static str, String)> {
        let label = |value: &str| if value.is_empty() { NONE.to_owned() } else { value.to_owned() };
        vec![("queue", label(&self.queue)), ("rule", label(&self.rule))]
    }
}

/// Open approvals of one queue that the same rules hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenApprovals {
    count: u64,
    /// Start of the oldest. `None`: no start is known.
    oldest: Option<Time>,
}

impl OpenApprovals {
    /// Adds an approval that was made at a time. `None`: the time is not known.
    pub(crate) fn add(&mut self, made: Option<Time>) {
        self.merge(Self { count: 1, oldest: made });
    }

    fn merge(&mut self, more: Self) {
        self.count = self.count.saturating_add(more.count);
        self.oldest = self.oldest.into_iter().chain(more.oldest).min();
    }
}

/// Metrics of approvals.
#[derive(Debug, Default)]
pub(super) struct ApprovalCounts {
    pairs: RwLock<BTreeMap<HeldQueue, PairCounts>>,
    /// Open approvals, as the last sweep found them.
    open: RwLock<BTreeMap<HeldQueue, OpenApprovals>>,
}

/// Counters of one queue and rule.
#[derive(Debug, Default)]
struct PairCounts {
    events: [AtomicU64; ApprovalEvent::ALL.len()],
    buckets: [AtomicU64; BOUNDS.len()],
    answers: AtomicU64,
    millis: AtomicU64,
    fast: AtomicU64,
}

impl PairCounts {
    fn event(&self, event: ApprovalEvent) {
        let at = ApprovalEvent::ALL.iter().position(|one| *one == event);
        if let Some(count) = at.and_then(|at| self.events.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn decided(&self, millis: i64) {
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
}

impl ApprovalCounts {
    /// Counts an event of an approval, once for each of its queues. A refusal without a queue counts, too.
    pub(super) fn event(&self, held: &[HeldQueue], event: ApprovalEvent) {
        if held.is_empty() && event == ApprovalEvent::Refused {
            self.with_pair(&HeldQueue::default(), |pair| pair.event(event));
        }
        for one in held {
            self.with_pair(one, |pair| pair.event(event));
        }
    }

    /// Counts the time from the first look to the answer.
    pub(super) fn decided(&self, held: &HeldQueue, millis: i64) {
        self.with_pair(held, |pair| pair.decided(millis));
    }

    /// Sets the open approvals by queue and rule.
    pub(super) fn set_open(&self, open: BTreeMap<HeldQueue, OpenApprovals>) {
        let mut bounded: BTreeMap<HeldQueue, OpenApprovals> = BTreeMap::new();
        for (held, more) in open {
            let held = if bounded.len() < MAX_PAIRS { held } else { HeldQueue::other() };
            bounded.entry(held).or_default().merge(more);
        }
        *self.open.write().ignore_poison() = bounded;
    }

    fn with_pair(&self, held: &HeldQueue, count: impl Fn(&PairCounts)) {
        if let Some(pair) = self.pairs.read().ignore_poison().get(held) {
            return count(pair);
        }
        let mut pairs = self.pairs.write().ignore_poison();
        let is_full = pairs.len() >= MAX_PAIRS;
        let held = if is_full { HeldQueue::other() } else { held.clone() };
        count(pairs.entry(held).or_default());
    }

    /// All families at the time of a scrape.
    pub(super) fn families(&self, now: Time) -> Vec<Family> {
        let pairs = self.pairs.read().ignore_poison();
        let mut families = vec![event_family(&pairs)];
        families.extend(self.open_families(&pairs, now));
        families.push(duration_family(&pairs));
        families.push(fast_family(&pairs));
        families
    }

    fn open_families(&self, pairs: &BTreeMap<HeldQueue, PairCounts>, now: Time) -> [Family; 2] {
        let mut open = self.open.read().ignore_poison().clone();
        // A queue that was emptied shows 0, so that its line in a graph goes down.
        for held in pairs.keys().filter(|held| !held.queue.is_empty()) {
            open.entry(held.clone()).or_default();
        }
        let counts = open.iter().map(|(held, open)| Sample {
            name: "authz_approvals_open".to_owned(),
            labels: held.labels(),
            value: float(open.count),
        });
        let ages = open.iter().filter_map(|(held, open)| {
            let age_ms = now.0.saturating_sub(open.oldest?.0).max(0);
            Some(Sample {
                name: "authz_approvals_oldest_seconds".to_owned(),
                labels: held.labels(),
                value: seconds_of(age_ms),
            })
        });
        [
            Family {
                name: "authz_approvals_open",
                help: "Approvals that wait for an answer, by queue and rule, as the last sweep found them.",
                kind: FamilyKind::Gauge,
                samples: counts.collect(),
            },
            Family {
                name: "authz_approvals_oldest_seconds",
                help: "Age of the oldest approval that waits for an answer, by queue and rule.",
                kind: FamilyKind::Gauge,
                samples: ages.collect(),
            },
        ]
    }
}

fn event_family(pairs: &BTreeMap<HeldQueue, PairCounts>) -> Family {
    let samples = pairs.iter().flat_map(|(held, pair)| {
        let counts = ApprovalEvent::ALL.iter().zip(&pair.events);
        counts.filter_map(|(event, count)| {
            let count = count.load(Ordering::Relaxed);
            let mut labels = held.labels();
            labels.push(("event", event.as_str().to_owned()));
            let name = "authz_approvals_total".to_owned();
            (count > 0).then(|| Sample { name, labels, value: float(count) })
        })
    });
    Family {
        name: "authz_approvals",
        help: "Approvals, by queue, by rule and by what became of them.",
        kind: FamilyKind::Counter,
        samples: samples.collect(),
    }
}

fn fast_family(pairs: &BTreeMap<HeldQueue, PairCounts>) -> Family {
    let samples = answered(pairs).map(|(held, pair)| Sample {
        name: "authz_approvals_fast_answers_total".to_owned(),
        labels: held.labels(),
        value: float(pair.fast.load(Ordering::Relaxed)),
    });
    Family {
        name: "authz_approvals_fast_answers",
        help: "Answers less than 3 seconds after the person first saw the call, by queue and rule.",
        kind: FamilyKind::Counter,
        samples: samples.collect(),
    }
}

fn duration_family(pairs: &BTreeMap<HeldQueue, PairCounts>) -> Family {
    const NAME: &str = "authz_approval_decision_seconds";
    let mut samples = Vec::new();
    for (held, pair) in answered(pairs) {
        let sample = |part: &str, more: Option<(&'static str, String)>, value| {
            let mut labels = held.labels();
            labels.extend(more);
            Sample { name: format!("{NAME}_{part}"), labels, value }
        };
        let mut count = 0_u64;
        for (bound, bucket) in BOUNDS.iter().zip(&pair.buckets) {
            count = count.saturating_add(bucket.load(Ordering::Relaxed));
            let bound = format!("{:?}", f64::from(*bound));
            samples.push(sample("bucket", Some(("le", bound)), float(count)));
        }
        let answers = pair.answers.load(Ordering::Relaxed);
        samples.push(sample("bucket", Some(("le", "+Inf".to_owned())), float(answers)));
        samples.push(sample("sum", None, float(pair.millis.load(Ordering::Relaxed)) / 1_000.0));
        samples.push(sample("count", None, float(answers)));
    }
    Family {
        name: NAME,
        help: "Seconds from the first look of a person at an approval to the answer, by queue and rule.",
        kind: FamilyKind::Histogram,
        samples,
    }
}

/// Pairs with an answer.
fn answered(
    pairs: &BTreeMap<HeldQueue, PairCounts>,
) -> impl Iterator<Item = (&HeldQueue, &PairCounts)> {
    pairs.iter().filter(|(_, pair)| pair.answers.load(Ordering::Relaxed) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(queue: &str, rule: &str) -> HeldQueue {
        HeldQueue { queue: queue.to_owned(), rule: rule.to_owned() }
    }

    fn lines(counts: &ApprovalCounts, name: &str) -> Vec<String> {
        let families = counts.families(Time(10_000));
        let samples = families.iter().flat_map(|family| &family.samples);
        let named = samples.filter(|sample| sample.name == name);
        let text = |sample: &Sample| {
            let labels: Vec<&str> = sample.labels.iter().map(|(_, value)| value.as_str()).collect();
            format!("{} {}", labels.join("/"), sample.value)
        };
        named.map(text).collect()
    }

    #[test]
    fn answers_count_by_queue_and_rule() {
        let counts = ApprovalCounts::default();
        counts.decided(&held("confirm", "mail"), 2_999);
        counts.decided(&held("confirm", "mail"), 3_000);
        counts.decided(&held("approve", "pay"), 90_000_000);
        assert_eq!(
            vec!["approve/pay 0", "confirm/mail 1"],
            lines(&counts, "authz_approvals_fast_answers_total")
        );
        assert_eq!(
            vec!["approve/pay 90000", "confirm/mail 5.999"],
            lines(&counts, "authz_approval_decision_seconds_sum")
        );
        let buckets = lines(&counts, "authz_approval_decision_seconds_bucket");
        assert!(buckets.contains(&"confirm/mail/3.0 2".to_owned()), "{buckets:?}");
        assert!(buckets.contains(&"approve/pay/86400.0 0".to_owned()), "{buckets:?}");
        assert!(buckets.contains(&"approve/pay/+Inf 1".to_owned()), "{buckets:?}");
    }

    #[test]
    fn open_approvals_have_an_age() {
        let counts = ApprovalCounts::default();
        counts.event(&[held("approve", "pay"), held("confirm", "mail")], ApprovalEvent::Made);
        counts.event(&[], ApprovalEvent::Refused);
        let mut open = OpenApprovals::default();
        [Some(Time(7_000)), None, Some(Time(4_000))].into_iter().for_each(|made| open.add(made));
        let mut ahead = OpenApprovals::default();
        ahead.add(Some(Time(11_000)));
        let found = [(held("approve", "pay"), open), (held("approve", "wipe"), ahead)];
        counts.set_open(BTreeMap::from(found));
        assert_eq!(
            vec!["approve/pay 3", "approve/wipe 1", "confirm/mail 0"],
            lines(&counts, "authz_approvals_open")
        );
        assert_eq!(
            vec!["approve/pay 6", "approve/wipe 0"],
            lines(&counts, "authz_approvals_oldest_seconds")
        );
        assert_eq!(
            vec!["none/none/refused 1", "approve/pay/made 1", "confirm/mail/made 1"],
            lines(&counts, "authz_approvals_total")
        );
    }

    #[test]
    fn pairs_are_bounded() {
        let counts = ApprovalCounts::default();
        let mut open = BTreeMap::new();
        for number in 0..MAX_PAIRS + 20 {
            let pair = held("approve", &format!("rule-{number:05}"));
            counts.event(std::slice::from_ref(&pair), ApprovalEvent::Made);
            open.entry(pair).or_insert_with(OpenApprovals::default).add(Some(Time(0)));
        }
        counts.set_open(open);
        for name in ["authz_approvals_total", "authz_approvals_open"] {
            let lines = lines(&counts, name);
            assert_eq!(MAX_PAIRS + 1, lines.len(), "{name}");
            assert!(
                lines.iter().any(|line| line.starts_with("other/other") && line.ends_with(" 20"))
            );
        }
    }
}
