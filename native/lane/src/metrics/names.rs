//! Counters by a name of the bundle.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use authz_base::poison::IgnorePoison as _;

use super::family::{Family, FamilyKind, Sample};

/// Names of all bundles served since the start; further ones are counted together.
const MAX_NAMES: usize = 256;
/// Stands for the names beyond those.
const OTHER: &str = "other";

/// Counts by name since the start.
#[derive(Debug, Default)]
pub(super) struct NameCounts(RwLock<BTreeMap<String, AtomicU64>>);

impl NameCounts {
    /// Begins counters at zero, up to the bound.
    pub(super) fn declare<'a>(&self, names: impl Iterator<Item = &'a String>) {
        let mut counts = self.0.write().ignore_poison();
        for name in names {
            if counts.len() < MAX_NAMES && !counts.contains_key(name) {
                counts.insert(name.clone(), AtomicU64::default());
            }
        }
    }

    pub(super) fn add(&self, name: &str) {
        if let Some(count) = self.0.read().ignore_poison().get(name) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut counts = self.0.write().ignore_poison();
        let name = if counts.len() < MAX_NAMES { name } else { OTHER };
        counts.entry(name.to_owned()).or_default().fetch_add(1, Ordering::Relaxed);
    }

    /// Args: `label`: name of the label that has the names.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows only floats")]
    pub(super) fn family(
        &self,
        name: &'static str,
        label: &'static str,
        help: &'static str,
    ) -> Family {
        let counts = self.0.read().ignore_poison();
        let samples = counts.iter().map(|(value, count)| Sample {
            name: format!("{name}_total"),
            labels: vec![(label, value.clone())],
            value: count.load(Ordering::Relaxed) as f64,
        });
        Family { name, help, kind: FamilyKind::Counter, samples: samples.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_names_begin_at_zero() {
        let counts = NameCounts::default();
        let names: Vec<String> = (0..=MAX_NAMES).map(|number| format!("n{number}")).collect();
        counts.add("n1");
        counts.declare(names.iter());
        let family = counts.family("authz_x", "label", "X.");
        let values: Vec<f64> = family.samples.iter().map(|sample| sample.value).collect();
        assert_eq!((MAX_NAMES, 1.0), (values.len(), values.iter().sum()));
    }

    #[test]
    fn names_are_bounded() {
        let counts = NameCounts::default();
        for number in 0..=MAX_NAMES {
            counts.add(&format!("n{number}"));
            counts.add("n0");
        }
        let family = counts.family("authz_x", "label", "X.");
        assert_eq!(MAX_NAMES + 1, family.samples.len());
        let value = |name: &str| {
            let is_of = |sample: &&Sample| sample.labels.iter().any(|(_, value)| value == name);
            family.samples.iter().find(is_of).map(|sample| sample.value)
        };
        assert_eq!(Some(MAX_NAMES as f64 + 2.0), value("n0"));
        assert_eq!((Some(1.0), None), (value(OTHER), value(&format!("n{MAX_NAMES}"))));
    }
}
