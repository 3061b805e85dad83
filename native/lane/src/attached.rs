//! Servers that are attached to an engine.

use std::fmt;

use crate::metrics::Family;

/// Server in front of the engine, with problems and metrics of its own.
pub(crate) trait AttachedServer: fmt::Debug + Send + Sync {
    /// Problems that make the server unready.
    fn problems(&self) -> Vec<String>;
    /// Metrics of the server.
    fn families(&self) -> Vec<Family>;
}
