//! Tiers: how much an operation can hurt.

use serde::{Deserialize, Serialize};

/// Possible damage of an operation, from 0 to 3.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Public reads.
    #[default]
    Low = 0,
    /// Everyday operations.
    Standard = 1,
    /// Hard to undo.
    High = 2,
    /// Changes who may do what, or cannot be undone.
    Critical = 3,
}

impl Tier {
    /// All tiers, in order.
    pub const ALL: [Self; 4] = [Self::Low, Self::Standard, Self::High, Self::Critical];

    /// The next higher one; of the highest, itself.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Low => Self::Standard,
            Self::Standard => Self::High,
            Self::High | Self::Critical => Self::Critical,
        }
    }

    /// The word used in bundles, metrics and audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Standard => "standard",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}
