//! The newest SPIFFE bundle of each trust domain that any node has used: an older one is refused, also after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use authz_kernel::decision::Time;
use authz_kernel::task::{Record, RecordKey, RecordKind, TrustDomain};
use authz_state::store::{MAX_PAGE, Page, Query};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::host::{read_json, store_error, to_json};

/// Age of a bundle. A higher epoch is newer for any sequence.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
struct Newness {
    #[serde(default)]
    epoch: u32,
    sequence: u64,
}

impl From<&TrustDomain> for Newness {
    fn from(known: &TrustDomain) -> Self {
        Self { epoch: known.epoch, sequence: known.sequence }
    }
}

impl Engine {
    /// Gives the newest bundle of each trust domain that any node has used, as a JSON object: `epoch` and `sequence` by name.
    ///
    /// # Errors
    /// The store failed.
    pub fn trust_sequences(&self) -> Result<String, EngineError> {
        let page = Page { after: String::new(), most: MAX_PAGE };
        let query = Query::Kind(RecordKind::TrustDomain);
        let found = self.keeper.find(&query, &page, self.host_wait()).map_err(store_error)?;
        let known = found.iter().filter_map(|record| match record {
            Record::TrustDomain(known) => Some((known.id.as_str(), Newness::from(&**known))),
            _ => None,
        });
        to_json(&known.collect::<BTreeMap<&str, Newness>>())
    }

    /// Notes bundles that are used, given as [`Engine::trust_sequences`] gives them. A bundle that is older
    /// than the known one of its domain changes nothing.
    ///
    /// # Errors
    /// They cannot be read, or the store failed, or knows of too many domains.
    pub fn note_trust_sequences(&self, used: &[u8]) -> Result<(), EngineError> {
        let used: BTreeMap<String, Newness> = read_json("sequences of trust domains", used)?;
        let key = |name: &String| RecordKey::new(RecordKind::TrustDomain, name);
        let locks: Vec<RecordKey> = used.keys().map(key).collect();
        if locks.is_empty() {
            return Ok(());
        }
        self.write_for_host(&locks, &mut |transaction| {
            let mut is_changed = false;
            for (name, newness) in &used {
                let known = match transaction.get(&key(name))? {
                    Some(Record::TrustDomain(known)) => Some(known),
                    _ => None,
                };
                if known.as_ref().is_some_and(|known| *newness <= Newness::from(&**known)) {
                    continue;
                }
                let rest = known.map(|known| known.rest.clone()).unwrap_or_default();
                let &Newness { epoch, sequence } = newness;
                let at = Time(self.clock.now_ms());
                let new = TrustDomain { id: name.clone(), epoch, sequence, at, rest };
                transaction.put(Record::TrustDomain(Arc::new(new)));
                is_changed = true;
            }
            Ok(is_changed)
        })
    }
}
