//! Tasks, the principals that act in them, and their scopes.

mod endorsement;
mod kind;
mod names;
mod origin;
mod principals;
mod scope;
mod taskless;
mod tokens;
mod view;
mod words;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::principal::Principal;
use crate::record::history::{LabelOrigin, Shared};
use crate::record::{StoredValue, is_false};
use crate::tier::Tier;
use crate::time::Time;

pub use endorsement::{EndorsedCall, EndorsedValue, Endorsement, MAX_ENDORSED};
pub use kind::{Param, SubjectProof, TaskKind, TaskStatus};
pub use names::{HARNESS_TIER, Literal, MAX_LITERALS, Names, Speaker};
pub use origin::{Bar, TaskOrigin};
pub use principals::{AgentName, AgentNameError, TaskSubject};
pub use scope::{
    Limit, MAX_SCOPE, MAX_TEXT, MAX_TEXTS, ScopeEntry, ScopeIndex, Selector, check_text,
};
pub use taskless::{AGE_MS, IDLE_MS, taskless, taskless_of};
pub use tokens::{NewestToken, ShownToken};
pub use view::TaskView;
pub use words::{MAX_WORDS, SpokenWords, TaskWords, WordPrint, WordPrints, WordRecords};

/// Greatest depth of tasks below a root: with a subject, the chain is then as long as a chain may be.
pub const MAX_DEPTH: u32 = 6;
/// The template of a request without a task, in policies.
pub const NO_TEMPLATE: &str = "none";
/// Time for which a pair is refused after its session was taken away, in milliseconds.
pub const BARRED_MS: u64 = 30 * 24 * 3_600 * 1_000;

/// Unit of delegated work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Id of the task: a name, not a secret.
    pub id: String,
    /// Kind of its beginning.
    pub kind: TaskKind,
    /// Name of its template.
    pub template: String,
    /// SHA-256 of the template at the start, in hex: a later revision of the bundle may have another template.
    pub template_digest: String,
    /// Id of the session, which the whole tree shares.
    pub session: String,
    /// Ids of the tasks above it, the root first; empty for a root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// The agents from the root's assignee to its own; never empty in a stored task.
    pub agents: Vec<AgentName>,
    /// Subject of the task. `None` if the first agent acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<TaskSubject>,
    /// Proof of the subject.
    pub subject_proof: SubjectProof,
    /// Principal that started it: the SPIFFE id of an agent, or `<issuer>:<sub>`.
    pub starter: String,
    /// Purpose in the template.
    pub purpose: String,
    /// Parameters of the template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Param>,
    /// Scope, within those of the tasks above it; sorted by operation.
    pub scope: Vec<ScopeEntry>,
    /// Uses of each entry of `scope`, in its order, by the task and all tasks below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<u64>,
    /// Step-up kind by which its template, at its start, held calls beyond `scope`. `None`: such calls are denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<String>,
    /// Highest tier of its operations.
    pub tier_cap: Tier,
    /// Greatest depth of tasks below the root; 0: it may have no children.
    pub max_depth: u32,
    /// Start of the task.
    pub started_at: Time,
    /// Latest end of the task.
    pub deadline: Time,
    /// Longest idle time, in milliseconds. `None`: as long as the task lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<i64>,
    /// Last permit in it, at a grain of a tenth of `idle_timeout_ms`.
    pub last_used: Time,
    /// Stored status. A task that is ACTIVE beyond its deadline is expired: see [`Task::status_at`].
    pub status: TaskStatus,
    /// End of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Index of `scope`.
    #[serde(skip)]
    pub index: ScopeIndex,
    /// Operations that were permitted in it as tasks of the MCP server's own, so that their results may be fetched.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub server_calls: BTreeSet<String>,
    /// Of a root: the newest tokens of its subject that were presented in its tree, one for each stream of tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_tokens: Vec<NewestToken>,
    /// Of a root: end of the newest of these tokens, at a grain of a minute. `None` if no token was presented, or its end
    /// is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_until: Option<Time>,
    /// Destinations that were named, by their speakers. The `literals` of an earlier version have no speaker: they stay in
    /// `rest` and make no destination trusted.
    #[serde(default, skip_serializing_if = "Names::is_empty")]
    pub names: Names,
    /// Another principal gave it to its agent, and no call in it was decided yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unused: bool,
    /// Its agent gave it up before any call in it was decided.
    #[serde(default, skip_serializing_if = "is_false")]
    pub declined: bool,
    /// Labels that its giver remembered of other tasks at the start, and the origin of each: the giver may have put such data
    /// into the parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: Shared<BTreeMap<String, LabelOrigin>>,
    /// The subject alone, or a front end, started it. Otherwise an agent did, or a caller with no other credentials than an
    /// agent may hold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_user: bool,
    /// Values that people endorsed in the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endorsements: Vec<Endorsement>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for Task {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        self.due().map(Time)
    }
}

/// Values of a task that starts.
#[derive(Debug)]
pub struct NewTask {
    /// Id of the task.
    pub id: String,
    /// Kind of its beginning.
    pub kind: TaskKind,
    /// Name of its template.
    pub template: String,
    /// SHA-256 of the template, in hex.
    pub template_digest: String,
    /// Id of the session.
    pub session: String,
    /// Ids of the tasks above it, the root first; empty for a root.
    pub ancestors: Vec<String>,
    /// The agents from the root's assignee to its own.
    pub agents: Vec<AgentName>,
    /// Subject of the task. `None` if the first agent acts for itself.
    pub subject: Option<TaskSubject>,
    /// Proof of the subject.
    pub subject_proof: SubjectProof,
    /// Principal that starts it: the SPIFFE id of an agent, or `<issuer>:<sub>`.
    pub starter: String,
    /// Purpose in the template.
    pub purpose: String,
    /// Parameters of the template.
    pub params: BTreeMap<String, Param>,
    /// Scope, sorted by operation.
    pub scope: Vec<ScopeEntry>,
    /// Step-up kind by which calls beyond `scope` are held. `None`: such calls are denied.
    pub beyond: Option<String>,
    /// Highest tier of its operations.
    pub tier_cap: Tier,
    /// Greatest depth of tasks below the root.
    pub max_depth: u32,
    /// Start of the task.
    pub started_at: Time,
    /// Latest end of the task.
    pub deadline: Time,
    /// Longest idle time, in milliseconds. `None`: as long as the task lives.
    pub idle_timeout_ms: Option<i64>,
    /// Destinations that were named, by their speakers.
    pub names: Names,
}

impl Task {
    /// A live task of which no entry is used yet.
    #[must_use]
    pub fn begin(new: NewTask) -> Self {
        let mut task = Self {
            id: new.id,
            kind: new.kind,
            template: new.template,
            template_digest: new.template_digest,
            session: new.session,
            ancestors: new.ancestors,
            agents: new.agents,
            subject: new.subject,
            subject_proof: new.subject_proof,
            starter: new.starter,
            purpose: new.purpose,
            params: new.params,
            uses: vec![0; new.scope.len()],
            scope: new.scope,
            beyond: new.beyond,
            tier_cap: new.tier_cap,
            max_depth: new.max_depth,
            started_at: new.started_at,
            deadline: new.deadline,
            idle_timeout_ms: new.idle_timeout_ms,
            last_used: new.started_at,
            status: TaskStatus::Active,
            ended_at: None,
            index: ScopeIndex::default(),
            server_calls: BTreeSet::new(),
            subject_tokens: Vec::new(),
            subject_until: None,
            names: new.names,
            unused: false,
            declined: false,
            told: Shared::default(),
            by_user: false,
            endorsements: Vec::new(),
            rest: BTreeMap::new(),
        };
        task.unused = task.is_given();
        task
    }

    /// The chain against whose share the task counts: that of its agent for the subject, or its giver's as long as the
    /// agent did not use it. A task that the subject alone or a front end starts counts against the subject, so that no
    /// agent that fills its share keeps its user out.
    #[must_use]
    pub fn counted_chain(&self) -> Vec<Principal> {
        if let Some(subject) = self.subject.as_ref().filter(|_| self.by_user) {
            return vec![subject.principal()];
        }
        let mut chain = self.chain();
        if self.unused
            && let Ok(giver) = AgentName::parse(&self.starter)
        {
            chain.pop();
            // The giver of a child is the agent above it.
            if self.ancestors.is_empty() {
                chain.push(giver.principal());
            }
        }
        chain
    }

    /// Returns whether it counts against the share of its starter, and not of its agent.
    #[must_use]
    pub const fn counts_for_starter(&self) -> bool {
        self.unused || self.by_user
    }

    /// Returns whether another principal gave it to its agent.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.kind.is_started() && self.starter != self.assignee()
    }

    /// SPIFFE id of the agent to which it was given.
    #[must_use]
    pub fn assignee(&self) -> &str {
        self.agents.last().map_or("", |agent| agent.spiffe_id.as_str())
    }

    /// Distance from the root; 0 is the root.
    #[must_use]
    pub fn depth(&self) -> u32 {
        u32::try_from(self.ancestors.len()).unwrap_or(u32::MAX)
    }

    /// Status at a time. Time-outs count at once, also before they are written.
    #[must_use]
    pub fn status_at(&self, now: Time) -> TaskStatus {
        let is_idle =
            self.idle_timeout_ms.is_some_and(|most| self.last_used.0.saturating_add(most) <= now.0);
        match self.status {
            TaskStatus::Active if self.deadline <= now || is_idle => TaskStatus::Expired,
            status => status,
        }
    }

    /// Time-out of a live task, in milliseconds since 1970. `None` if it has ended.
    #[must_use]
    pub fn due(&self) -> Option<i64> {
        let idle = self.idle_timeout_ms.map(|most| self.last_used.0.saturating_add(most));
        let due = idle.map_or(self.deadline.0, |idle| idle.min(self.deadline.0));
        (self.status == TaskStatus::Active).then_some(due)
    }

    /// Returns whether a principal is the agent to which it was given.
    pub fn is_assignee(&self, principal: &Principal) -> bool {
        matches!(principal, Principal::Agent { spiffe_id, .. } if *spiffe_id == self.assignee())
    }

    /// Returns whether a chain is the task's own: its subject, then its agents.
    pub fn is_chain(&self, chain: &[Principal]) -> bool {
        let (agents, subject) = match (&self.subject, chain.split_first()) {
            (None, _) => (chain, true),
            (Some(subject), Some((first, agents))) => (agents, subject.is(first)),
            (Some(_), None) => return false,
        };
        let same = |(agent, principal): (&AgentName, &Principal)| match principal {
            Principal::Agent { spiffe_id, .. } => agent.spiffe_id == *spiffe_id,
            Principal::User(_) | Principal::Service(_) => false,
        };
        subject && agents.len() == self.agents.len() && self.agents.iter().zip(agents).all(same)
    }

    /// Notes that an operation was permitted as a task of the MCP server's own. The catalog bounds their number.
    pub fn note_call(&mut self, operation: &str) {
        if !self.server_calls.contains(operation) {
            self.server_calls.insert(operation.to_owned());
        }
    }

    /// Returns whether [`Self::chain`] equals this chain, without copying it.
    pub(super) fn has_chain(&self, chain: &[Principal]) -> bool {
        let (subject, agents) = match (&self.subject, chain) {
            (None, agents) => (true, agents),
            (Some(subject), [first, agents @ ..]) => (subject.is_exactly(first), agents),
            (Some(_), []) => (false, chain),
        };
        let same = |(agent, principal): (&AgentName, &Principal)| match principal {
            Principal::Agent { spiffe_id, trust_domain } => {
                agent.spiffe_id == *spiffe_id && agent.trust_domain == *trust_domain
            }
            Principal::User(_) | Principal::Service(_) => false,
        };
        subject && agents.len() == self.agents.len() && self.agents.iter().zip(agents).all(same)
    }

    /// The task's chain: the subject as the task began, then every agent down to its assignee. Policy judges
    /// [`TaskView::chain`], which knows of newer tokens of the subject.
    #[must_use]
    pub fn chain(&self) -> Vec<Principal> {
        let subject = self.subject.iter().map(TaskSubject::principal);
        let agents = self.agents.iter().map(AgentName::principal);
        subject.chain(agents).collect()
    }

    /// Returns whether the task was taken away from a pair that works without tasks, less than 30 days ago. The pair begins
    /// anew later, or once the subject, a front end or an administrator allows it.
    #[must_use]
    pub fn is_barred(&self, now: Time) -> bool {
        let until = self.ended_at.map_or(i64::MAX, |at| at.0.saturating_add_unsigned(BARRED_MS));
        self.kind == TaskKind::Implicit && self.status == TaskStatus::Revoked && now.0 < until
    }
}
