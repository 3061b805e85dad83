//! Spans, as configured.

use serde::Deserialize;

/// How spans are made.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// Follow the caller's decision where it made one.
    pub parent_based: bool,
    /// Share of the other traces that is sampled, 0 to 1.
    pub ratio: f64,
    /// Most spans that wait to be exported.
    pub queue: usize,
}

impl TraceSettings {
    /// What is out of its range, in words.
    pub(crate) fn defect(&self) -> Option<String> {
        if !(0.0..=1.0).contains(&self.ratio) {
            return Some(format!("`trace.ratio` is {}; give 0 to 1", self.ratio));
        }
        if !(1..=1_000_000).contains(&self.queue) {
            return Some(format!("`trace.queue` is {}; give 1 to 1000000", self.queue));
        }
        None
    }
}
