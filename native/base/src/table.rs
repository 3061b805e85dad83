//! Tables that a bundle fills, and requests only look into.

use std::collections::HashMap;

/// A hash map whose keys are the bundle's words. Who asks adds none, and so cannot make them collide: the hash needs no
/// secret, and is a fast one.
pub type Table<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
