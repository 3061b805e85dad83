//! Cache of the agents that act for a subject.

use std::collections::HashMap;
use std::sync::RwLock;

use authz_base::poison::IgnorePoison as _;

/// Agents in the cache.
const MOST: usize = 16_384;

/// Agents that act for a subject, and the time of the note that says so, as far as this node knows without the store.
#[derive(Debug, Default)]
pub(crate) struct ActingAgents(RwLock<HashMap<String, i64>>);

impl ActingAgents {
    pub(crate) fn at(&self, agent: &str) -> Option<i64> {
        self.0.read().ignore_poison().get(agent).copied()
    }

    pub(crate) fn note(&self, agent: &str, at: i64) {
        let mut all = self.0.write().ignore_poison();
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(agent.to_owned(), at);
    }
}
