//! Spans, as configured.

use serde::Deserialize;

/// Settings of spans.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// Follows the decision of the caller about sampling, if there is one.
    pub parent_based: bool,
    /// Share of the other traces that is sampled, from 0 to 1.
    pub ratio: f64,
    /// Most spans that wait for export.
    pub queue: usize,
}
