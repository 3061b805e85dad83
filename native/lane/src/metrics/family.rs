//! Metric families, as `/metrics` shows them.

/// A metric family, as `prometheus-client`'s collectors want it.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Name; of a counter without `_total`.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Kind of the family.
    pub kind: FamilyKind,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// Kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl FamilyKind {
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

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
pub(super) fn counter(
    name: &'static str,
    help: &'static str,
    values: impl IntoIterator<Item = (Vec<(&'static str, String)>, u64)>,
) -> Family {
    let samples = values
        .into_iter()
        .map(|(labels, value)| Sample {
            name: format!("{name}_total"),
            labels,
            value: value as f64,
        })
        .collect();
    Family { name, help, kind: FamilyKind::Counter, samples }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
pub(super) const fn float(value: u64) -> f64 {
    value as f64
}

/// Milliseconds as seconds; beyond 24 days, as so many.
pub(super) fn seconds_of(ms: i64) -> f64 {
    const MOST: i64 = i32::MAX as i64;
    f64::from(i32::try_from(ms.clamp(-MOST, MOST)).unwrap_or(0)) / 1_000.0
}

pub(super) fn plain(name: &'static str, help: &'static str, value: u64) -> Family {
    counter(name, help, [(Vec::new(), value)])
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
pub(super) fn gauge(name: &'static str, help: &'static str, value: u64) -> Family {
    let samples = vec![Sample { name: name.to_owned(), labels: Vec::new(), value: value as f64 }];
    Family { name, help, kind: FamilyKind::Gauge, samples }
}

pub(super) fn seconds(name: &'static str, help: &'static str, value: f64) -> Family {
    let samples = vec![Sample { name: name.to_owned(), labels: Vec::new(), value }];
    Family { name, help, kind: FamilyKind::Gauge, samples }
}
