//! What somebody does without a task, in a bundle where nothing needs one: remembered as a task's session would, in a record that
//! is the caller's, for as long as it goes on. Nothing is given by it: no scope, no credential, and no task below it.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{
    AgentName, BARRED_MS, NO_TEMPLATE, Names, ScopeIndex, Session, Subject, SubjectProof, Task,
    TaskKind, TaskStatus,
};
use crate::digest::short;
use crate::hex::hex;
use crate::principal::Principal;
use crate::record::history::{SessionHistory, Shared, party_id};
use crate::tier::Tier;
use crate::time::Time;

/// How long what somebody does without a task is remembered after the last of it, in milliseconds.
pub const IDLE_MS: i64 = 24 * 3_600 * 1_000;
/// How long at most, in milliseconds.
pub const AGE_MS: i64 = 7 * IDLE_MS;
/// Its end is written anew no more often, in milliseconds.
const GRAIN_MS: i64 = IDLE_MS / 10;

/// What a caller does without a task, on behalf of whoever stands before it in the chain, as the task that it is none of. None
/// where nobody calls.
///
/// The same chain has the same one: its id is that of the record which keeps what is remembered.
#[must_use]
pub fn taskless(chain: &[Principal], acr: &str) -> Option<Task> {
    let caller = chain.last()?;
    let mut hash = Sha256::new();
    for part in chain.iter().map(party_id) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let id = format!("{}{}", taskless_of(caller), hex(&hash.finalize()));
    let subject = chain.first().and_then(|first| Subject::of(first, acr));
    let agents = chain.iter().filter_map(|principal| match principal {
        Principal::Agent { spiffe_id, trust_domain } => {
            Some(AgentName { spiffe_id: spiffe_id.clone(), trust_domain: trust_domain.clone() })
        }
        Principal::User(_) | Principal::Service(_) => None,
    });
    Some(Task {
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
        uses: Vec::new(),
        tier_cap: Tier::Critical,
        max_depth: 0,
        started_at: Time(0),
        deadline: Time(i64::MAX),
        idle_timeout_ms: None,
        last_used: Time(0),
        status: TaskStatus::Active,
        ended_at: None,
        index: ScopeIndex::default(),
        server_calls: BTreeSet::new(),
        subject_tokens: Vec::new(),
        subject_until: None,
        unused: false,
        declined: false,
        told: Shared::default(),
        by_user: false,
        names: Names::default(),
        rest: BTreeMap::new(),
    })
}

/// How the ids of all records begin that are of what one caller does without a task.
#[must_use]
pub fn taskless_of(caller: &Principal) -> String {
    format!("taskless/{}/", short(&party_id(caller)))
}

impl Session {
    /// The record of what somebody does without a task, which begins now.
    ///
    /// Args:
    /// * `of`: as [`taskless`] gives it.
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
            agent: of.subject.as_ref().and(of.agents.last()).map(|one| one.spiffe_id.clone()),
            history: SessionHistory::new(),
            rest: BTreeMap::new(),
        }
    }

    /// Whether it is of no task.
    #[must_use]
    pub const fn is_taskless(&self) -> bool {
        self.tasks == 0
    }

    /// Whether it still keeps what it was begun for.
    #[must_use]
    pub fn lasts(&self, now: Time) -> bool {
        self.expires_at > now
    }

    /// Lets it be remembered for longer, as something was just let through. Returns whether that is to be written.
    pub fn prolong(&mut self, now: Time) -> bool {
        let last = self.started_at.0.saturating_add(AGE_MS);
        let least = now.0.saturating_add(IDLE_MS).min(last);
        let is_due = self.expires_at.0 < least;
        if is_due {
            self.expires_at = Time(least.saturating_add(GRAIN_MS).min(last));
        }
        is_due
    }

    /// Lets nothing more that it would have to keep be done without a task, for 30 days.
    pub fn end(&mut self, now: Time) {
        self.ended_at = Some(now);
        self.denied = false;
        self.expires_at = Time(now.0.saturating_add_unsigned(BARRED_MS));
    }

    /// Whether somebody revoked it: no administrator that forgets denials undoes that.
    #[must_use]
    pub const fn is_revoked(&self) -> bool {
        self.ended_at.is_some() && !self.denied
    }

    /// As [`Self::end`], because of denials.
    pub fn end_by_denials(&mut self, now: Time) {
        let is_revoked = self.is_revoked();
        self.end(now);
        self.denied = !is_revoked;
    }

    /// Lets it go on, where denials ended it. Returns whether they did.
    pub const fn lift_denials(&mut self) -> bool {
        let is_lifted = self.denied;
        if is_lifted {
            (self.ended_at, self.denied) = (None, false);
        }
        is_lifted
    }
}
