//! Histogram of durations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::family::Sample;

/// Upper bounds of the histograms' buckets, in seconds.
pub const BUCKETS: [f64; 16] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5,
    1.0,
];

#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    above: AtomicU64,
    nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, time: Duration) {
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
    pub(super) fn samples(
        &self,
        name: &str,
        labels: &[(&'static str, String)],
        into: &mut Vec<Sample>,
    ) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

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
