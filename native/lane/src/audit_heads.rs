//! Heads of audit logs in the store: each node stores its own, and records those of the others in its own log.
//!
//! Somebody who changes the log of one node, and has its key, would have to change the logs of the other nodes, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_kernel::decision::Time;
use authz_kernel::task::{AuditHead, Record, RecordKey, RecordKind};
use authz_state::store::{Page, Query, Survives};
use authz_state::{AuditHealth, Head, SignedHead};

use crate::engine::Engine;
use crate::keeper::Wait;
use crate::record::NodeNote;
use crate::refusal::CallRefusal;

/// Interval at which the heads of other nodes are recorded.
const NOTE_INTERVAL: Duration = Duration::from_secs(300);
/// Nodes whose heads are recorded.
const MAX_NODES: usize = 256;

impl Engine {
    /// Health of the audit log, with the damage that the store proves.
    pub(crate) fn audit_health(&self) -> AuditHealth {
        let mut health = self.audit.health();
        let state = self.head_exchange.lock();
        if !state.missing.is_empty() {
            if !health.chain_damage.is_empty() {
                health.chain_damage.push_str("; ");
            }
            health.chain_damage.push_str(&state.missing);
        }
        health
    }

    /// Stores this node's newest head, and records those of other nodes, as far as they are due.
    pub(crate) fn exchange_heads(&self, wait: Wait) -> Result<(), CallRefusal> {
        let Some(chain) = &self.settings.audit_chain else { return Ok(()) };
        let interval = Duration::from_millis(chain.head_interval_ms);
        let now = self.clock.monotonic();
        let is_due = |next: Option<Instant>| next.is_none_or(|next| now >= next);
        let (stores, notes) = {
            let state = self.head_exchange.lock();
            (is_due(state.next_store), is_due(state.next_note))
        };
        if stores {
            self.store_head(wait)?;
            self.head_exchange.lock().next_store = now.checked_add(interval);
        }
        if notes {
            let pause = if self.note_heads(wait)? { NOTE_INTERVAL } else { interval };
            self.head_exchange.lock().next_note = now.checked_add(pause);
        }
        Ok(())
    }

    fn store_head(&self, wait: Wait) -> Result<(), CallRefusal> {
        let text = self.audit.health().head;
        let key = RecordKey::new(RecordKind::AuditHead, self.head_name());
        let newest = read_head(&text);
        let mut stored = None;
        let outcome = self.keeper.transact(
            std::slice::from_ref(&key),
            Survives::Crash,
            wait,
            &mut |transaction| {
                let known = match transaction.get(&key)? {
                    Some(Record::AuditHead(known)) => Some(known),
                    _ => None,
                };
                stored = known.as_ref().map(|known| (known.segment, known.count));
                let Some(head) = &newest else { return Ok(false) };
                if stored.is_some_and(|stored| (head.segment, head.count) <= stored) {
                    return Ok(false);
                }
                transaction.put(Record::AuditHead(Arc::new(AuditHead {
                    id: self.head_name(),
                    segment: head.segment,
                    count: head.count,
                    head: text.clone(),
                    at: Time(self.clock.now_ms()),
                    rest: known.map(|known| known.rest.clone()).unwrap_or_default(),
                })));
                Ok(true)
            },
        )?;
        self.keeper.kept(outcome, wait)?;
        let mut state = self.head_exchange.lock();
        if state.stored.is_none()
            && let Some((segment, count)) = stored
        {
            let health = self.audit.health();
            if (health.segment, health.segment_lines) < (segment, count) {
                state.missing = format!(
                    "the store has a head of {count} records of segment {segment}, and the log has {} of segment {}",
                    health.segment_lines, health.segment
                );
            }
        }
        state.stored = newest.map(|head| (head.segment, head.count)).max(stored).or(Some((0, 0)));
        Ok(())
    }

    /// Records heads of other nodes. Returns whether there were new ones.
    fn note_heads(&self, wait: Wait) -> Result<bool, CallRefusal> {
        let page = Page { after: String::new(), most: MAX_NODES };
        let found = self.keeper.find(&Query::Kind(RecordKind::AuditHead), &page, wait)?;
        let mut state = self.head_exchange.lock();
        let mut news = Vec::new();
        for record in &found {
            let Record::AuditHead(other) = record else { continue };
            let place = (other.segment, other.count);
            if other.id != self.head_name() && state.noted.get(&other.id) != Some(&place) {
                news.push(Arc::clone(other));
            }
        }
        if news.is_empty() {
            return Ok(false);
        }
        let heads = news.iter().filter_map(|other| serde_json::from_str(&other.head).ok());
        if self.record_note(NodeNote::Heads(heads.collect())) {
            let of = |other: Arc<AuditHead>| (other.id.clone(), (other.segment, other.count));
            state.noted.extend(news.into_iter().map(of));
        }
        Ok(true)
    }

    /// Name of this node in heads.
    fn head_name(&self) -> String {
        crate::audit_chain::node_name(&self.settings)
    }
}

fn read_head(text: &str) -> Option<Head> {
    serde_json::from_str::<SignedHead>(text).ok()?.head()
}
