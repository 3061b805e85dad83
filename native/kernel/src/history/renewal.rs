//! What becomes of the progress of rules where one bundle follows another.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plan::Plan;

/// What a bundle makes of the sequences and budgets of the one before, each as `sequences.NAME` or `budgets.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Renewal {
    /// How many say what they said before: their progress goes on.
    pub carried: usize,
    /// Those that say something else: what live sessions did before does not count for them.
    pub changed: Vec<String>,
    /// Those that were not there.
    pub added: Vec<String>,
    /// Those that are not there any more. Their progress is kept, and counts once they are there again as they were.
    pub removed: Vec<String>,
}

impl Plan {
    /// Tells what becomes of the progress of rules where this plan follows another.
    #[must_use]
    pub fn renewal(&self, before: &Self) -> Renewal {
        let (was, is) = (before.stored(), self.stored());
        let mut renewal = Renewal::default();
        for (name, stored) in &is {
            match was.get(name) {
                Some(known) if known == stored => {
                    renewal.carried = renewal.carried.saturating_add(1);
                }
                Some(_) => renewal.changed.push(name.clone()),
                None => renewal.added.push(name.clone()),
            }
        }
        renewal.removed = was.into_keys().filter(|name| !is.contains_key(name)).collect();
        renewal
    }

    /// Under which name the progress of each rule is stored.
    fn stored(&self) -> BTreeMap<String, &str> {
        let of = |kind: &'static str| move |(name, stored)| (format!("{kind}.{name}"), stored);
        let sequences = self.sequences.stored().into_iter().map(of("sequences"));
        sequences.chain(self.budgets.stored().into_iter().map(of("budgets"))).collect()
    }
}
