//! Lanes: the servers that a call can come by.

/// Server that took a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The Python server, on grpcio.
    Python,
    /// The native server, [`crate::FastLane`].
    Fast,
}

impl Lane {
    /// Name in metrics and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Fast => "fast",
        }
    }

    /// All lanes.
    pub const ALL: [Self; 2] = [Self::Python, Self::Fast];
}
