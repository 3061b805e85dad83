//! Revocations.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::{Cutoff, StoredValue};
use crate::time::Time;

/// Kind of a revocation's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationTarget {
    /// A SPIFFE id.
    Agent,
    /// A session id.
    Session,
    /// A task id.
    Task,
    /// A token id.
    Jti,
    /// A key id or thumbprint.
    Key,
    /// An operation id.
    Operation,
    /// A system id.
    System,
    /// An issuer alias or a trust domain.
    Issuer,
    /// A subject, `<issuer alias>/<sub>`.
    Subject,
}

impl RevocationTarget {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Agent,
        Self::Session,
        Self::Task,
        Self::Jti,
        Self::Key,
        Self::Operation,
        Self::System,
        Self::Issuer,
        Self::Subject,
    ];

    /// Returns whether a revocation of this kind can be lifted. A task, a session and a token end for good.
    #[must_use]
    pub const fn is_undoable(self) -> bool {
        !matches!(self, Self::Task | Self::Session | Self::Jti)
    }

    /// The word in commands and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Session => "session",
            Self::Task => "task",
            Self::Jti => "jti",
            Self::Key => "key",
            Self::Operation => "operation",
            Self::System => "system",
            Self::Issuer => "issuer",
            Self::Subject => "subject",
        }
    }

    pub(super) fn key(self, value: &str) -> String {
        format!("{}:{value}", self.as_str())
    }
}

/// Revocation: Authz refuses its target from then on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    /// Kind of the target.
    pub target: RevocationTarget,
    /// Name of the target.
    pub value: String,
    /// Reason, in the words of the administrator.
    pub reason: String,
    /// Administrator that revoked.
    pub by: String,
    /// Time of the revocation.
    pub at: Time,
}

impl StoredValue for Revocation {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Owned(self.target.key(&self.value))
    }
}

/// All revocations and cut-offs that a node knows.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    by_target: HashMap<(RevocationTarget, String), Arc<Revocation>>,
    /// Systems that are revoked, or have a revoked operation.
    systems: HashSet<String>,
    /// Cut-offs by their ids.
    cutoffs: HashMap<String, Arc<Cutoff>>,
    /// Claims by which cut-offs name subjects; one stays when its last cut-off goes.
    claims: BTreeSet<String>,
}

impl Revocations {
    /// Adds a revocation.
    pub fn insert(&mut self, revocation: Arc<Revocation>) {
        let system = match revocation.target {
            RevocationTarget::System => Some(revocation.value.as_str()),
            RevocationTarget::Operation => {
                revocation.value.split_once('.').map(|(system, _)| system)
            }
            _ => None,
        };
        self.systems.extend(system.map(str::to_owned));
        self.by_target.insert((revocation.target, revocation.value.clone()), revocation);
    }

    /// Adds a cut-off, in place of an earlier one of its subject.
    pub fn insert_cutoff(&mut self, cutoff: Arc<Cutoff>) {
        self.claims.extend(cutoff.claim.clone());
        self.cutoffs.insert(cutoff.id(), cutoff);
    }

    /// Removes a cut-off by its id.
    pub fn remove_cutoff(&mut self, id: &str) {
        self.cutoffs.remove(id);
    }

    /// A cut-off by its id.
    #[must_use]
    pub fn cutoff(&self, id: &str) -> Option<&Arc<Cutoff>> {
        self.cutoffs.get(id)
    }

    /// The cut-offs of a subject: of its `sub`, and of its claims. `text_of` returns the text of a claim.
    pub fn cutoffs_of<'a>(
        &'a self,
        issuer: &'a str,
        sub: &str,
        text_of: impl Fn(&str) -> Option<&'a str> + 'a,
    ) -> impl Iterator<Item = &'a Arc<Cutoff>> {
        let is_any = !self.cutoffs.is_empty();
        let by_sub = is_any.then(|| Cutoff::id_of(issuer, None, sub));
        let by_claim = self.claims.iter().filter_map(move |claim| {
            text_of(claim).map(|text| Cutoff::id_of(issuer, Some(claim), text))
        });
        by_sub.into_iter().chain(by_claim).filter_map(|id| self.cutoffs.get(&id))
    }

    /// Removes the revocations, and leaves the cut-offs.
    pub fn clear_revocations(&mut self) {
        self.by_target.clear();
        self.systems.clear();
    }

    /// The revocation of a target. `None` if it is not revoked.
    #[must_use]
    pub fn find(&self, target: RevocationTarget, value: &str) -> Option<&Arc<Revocation>> {
        if self.by_target.is_empty() {
            return None;
        }
        self.by_target.get(&(target, value.to_owned()))
    }

    /// Returns whether a system is revoked, or any of its operations.
    #[must_use]
    pub fn has_of_system(&self, system: &str) -> bool {
        self.systems.contains(system)
    }

    /// Number of revocations, without cut-offs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_target.len()
    }

    /// Returns whether nothing is revoked, and no subject has a cut-off.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_target.is_empty() && self.cutoffs.is_empty()
    }
}
