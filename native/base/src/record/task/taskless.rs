//! Calls without a task, in a bundle that requires none. Their history is kept as a task's session would be, in a record of
//! the caller, for as long as the calls go on. It gives no scope, no credential, and no task below it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{
    AgentName, BARRED_MS, NO_TEMPLATE, Names, NewTask, SubjectProof, Task, TaskKind, TaskSubject,
};
use crate::digest::short;
use crate::hex::hex;
use crate::principal::Principal;
use crate::record::Session;
use crate::record::history::{SessionHistory, party_id};
use crate::tier::Tier;
use crate::time::Time;

/// Time for which calls without a task are remembered after the last of them, in milliseconds.
pub const IDLE_MS: i64 = 24 * 3_600 * 1_000;
/// Longest time for which they are remembered, in milliseconds.
pub const AGE_MS: i64 = 7 * IDLE_MS;
/// Shortest time between two writes of its end, in milliseconds.
const GRAIN_MS: i64 = IDLE_MS / 10;

/// The task that stands for calls of a chain without a task. `None` for an empty chain.
///
/// A chain has always the same one: its id is that of the record which keeps the history.
#[must_use]
pub fn taskless(chain: &[Principal], acr: &str) -> Option<Task> {
    let caller = chain.last()?;
    let mut hash = Sha256::new();
    for part in chain.iter().map(party_id) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let id = format!("{}{}", taskless_of(caller), hex(&hash.finalize()));
    let subject = chain.first().and_then(|first| TaskSubject::of(first, acr));
    let agents = chain.iter().filter_map(|principal| match principal {
        Principal::Agent { spiffe_id, trust_domain } => {
            Some(AgentName { spiffe_id: spiffe_id.clone(), trust_domain: trust_domain.clone() })
        }
        Principal::User(_) | Principal::Service(_) => None,
    });
    Some(Task::begin(NewTask {
        id: id.clone(),
        kind: TaskKind::None,
        template: NO_TEMPLATE.to_owned(),
        template_digest: String::new(),
        session: id,
        ancestors: Vec::new(),
        agents: agents.collect(),
        subject_proof: match &subject {
            Some(_) => SubjectProof::Verified,
            None => SubjectProof::Itself,
        },
        subject,
        starter: String::new(),
        purpose: String::new(),
        params: BTreeMap::new(),
        scope: Vec::new(),
        beyond: None,
        tier_cap: Tier::Critical,
        max_depth: 0,
        started_at: Time(0),
        deadline: Time(i64::MAX),
        idle_timeout_ms: None,
        names: Names::default(),
    }))
}

/// Prefix of the ids of all records of one caller's calls without a task.
#[must_use]
pub fn taskless_of(caller: &Principal) -> String {
    format!("taskless/{}/", short(&party_id(caller)))
}

impl Session {
    /// The record of calls without a task that begin now; `of` is their [`taskless`] task.
    #[must_use]
    pub fn taskless(of: &Task, now: Time) -> Self {
        Self {
            id: of.session.clone(),
            root: of.id.clone(),
            tasks: 0,
            started_at: now,
            expires_at: Time(now.0.saturating_add(IDLE_MS).saturating_add(GRAIN_MS)),
            ended_at: None,
            denied: false,
            agent: of.subject.as_ref().and(of.agents.last()).map(|agent| agent.spiffe_id.clone()),
            history: SessionHistory::new(),
            rest: BTreeMap::new(),
        }
    }

    /// Returns whether it is of calls without a task.
    #[must_use]
    pub const fn is_taskless(&self) -> bool {
        self.tasks == 0
    }

    /// Returns whether it is still remembered.
    #[must_use]
    pub fn lasts(&self, now: Time) -> bool {
        self.expires_at > now
    }

    /// Lets it be remembered for longer after a permit. Returns whether that is to be written.
    pub fn prolong(&mut self, now: Time) -> bool {
        let last = self.started_at.0.saturating_add(AGE_MS);
        let least = now.0.saturating_add(IDLE_MS).min(last);
        let is_due = self.expires_at.0 < least;
        if is_due {
            self.expires_at = Time(least.saturating_add(GRAIN_MS).min(last));
        }
        is_due
    }

    /// Refuses further calls without a task that need a history, for 30 days.
    pub fn end(&mut self, now: Time) {
        self.ended_at = Some(now);
        self.denied = false;
        self.expires_at = Time(now.0.saturating_add_unsigned(BARRED_MS));
    }

    /// Returns whether it was revoked: an administrator that forgets denials does not undo that.
    #[must_use]
    pub const fn is_revoked(&self) -> bool {
        self.ended_at.is_some() && !self.denied
    }

    /// Ends it as [`Self::end`] does, because of denials.
    pub fn end_by_denials(&mut self, now: Time) {
        let is_revoked = self.is_revoked();
        self.end(now);
        self.denied = !is_revoked;
    }

    /// Lets it go on if denials ended it. Returns whether they did.
    pub const fn lift_denials(&mut self) -> bool {
        let is_lifted = self.denied;
        if is_lifted {
            (self.ended_at, self.denied) = (None, false);
        }
        is_lifted
    }
}
