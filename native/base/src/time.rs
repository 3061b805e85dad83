//! Points in time.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch; always given, never read from a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub i64);
