//! What is stored of tasks.
//!
//! What bounds a task is read whole or not at all: a node that does not know a limit must not read the scope without it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::Names;
use super::scope::ScopeIndex;
use super::tokens::NewestToken;
use crate::digest::short;
use crate::principal::{self, Claim, Narrowing, Principal};
use crate::record::history::{Object, Origin, SessionHistory, Shared};
use crate::tier::Tier;
use crate::time::Time;

/// Declares the kinds of stored records, one row a kind.
///
/// A row is `Kind(Value) = number, bound, plural`: the type of the stored value, the number that stands for the kind on disk,
/// how many records of the kind a store holds by default, and their plural in messages. A number is never used again. The
/// order of the rows is the order in which a transaction locks records.
macro_rules! record_kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident($value:ty) = $number:literal, $bound:literal, $plural:literal;)+) => {
        /// Kind of a stored record.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum RecordKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl RecordKind {
            /// Every kind, in the order in which a transaction locks records.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$kind),+];

            /// Number that stands for the kind on disk.
            #[must_use]
            pub const fn number(self) -> i16 {
                match self { $(Self::$kind => $number,)+ }
            }

            /// Kind of a number, as [`RecordKind::number`] gives it.
            #[must_use]
            pub const fn from_number(number: i16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)+
                    _ => None,
                }
            }

            /// Most records of the kind that a store holds by default.
            #[must_use]
            pub const fn default_bound(self) -> usize {
                match self { $(Self::$kind => $bound,)+ }
            }

            /// Plural for messages, for example `signing keys`.
            #[must_use]
            pub const fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)+ }
            }
        }

        /// Stored record: a unit of state.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Record {
            $($(#[doc = $doc])+ $kind(Arc<$value>),)+
        }

        impl Record {
            /// Key of the record.
            #[must_use]
            pub fn key(&self) -> RecordKey {
                match self {
                    $(Self::$kind(value) => RecordKey::new(RecordKind::$kind, value.record_id()),)+
                }
            }

            /// Time at which the record expires, in milliseconds since 1970; none: it does not expire by itself.
            #[must_use]
            pub fn due(&self) -> Option<i64> {
                let due = match self { $(Self::$kind(value) => value.record_due(),)+ };
                due.map(|due| due.0)
            }

            /// Appends the record as JSON.
            ///
            /// # Errors
            /// The value has no JSON form.
            pub fn write_json(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
                match self { $(Self::$kind(value) => serde_json::to_writer(to, value),)+ }
            }

            /// Reads a record of a kind from JSON.
            ///
            /// # Errors
            /// The bytes are not a value of that kind.
            pub fn from_json(kind: RecordKind, bytes: &[u8]) -> serde_json::Result<Self> {
                Ok(match kind {
                    $(RecordKind::$kind => Self::$kind(Arc::new(serde_json::from_slice(bytes)?)),)+
                })
            }
        }
    };
}

record_kinds! {
    /// A task tree as a whole. Whoever changes anything of the tree locks this one.
    Session(Session) = 1, 250_000, "sessions";
    /// An agent: what it did over all its sessions. Locked by whoever starts or ends a task of the agent, too.
    Agent(Party) = 2, 100_000, "agents";
    /// A task.
    Task(Task) = 3, 250_000, "tasks";
    /// A permitted operation of which nothing has been reported yet.
    Reservation(Reservation) = 4, 500_000, "reservations";
    /// The answer that an enforcer's idempotency key was given.
    Idempotency(Idempotency) = 5, 500_000, "answers kept for enforcers' keys";
    /// Something revoked.
    Revocation(Revocation) = 6, 100_000, "revocations";
    /// A task credential, until a while after its end.
    Credential(Credential) = 7, 500_000, "task credentials";
    /// A proof of possession that was seen. The key that proves is locked by whoever adds one of its proofs.
    Proof(Proof) = 8, 500_000, "proofs of possession";
    /// A key that task credentials are signed with; those of all nodes.
    SigningKey(SigningKey) = 9, 64, "signing keys";
    /// A secret that was leased of a system that knows no tokens.
    Lease(Lease) = 10, 10_000, "leases";
    /// A subject: what was done on its behalf over all sessions.
    Subject(Party) = 11, 250_000, "subjects";
    /// An object that agents wrote, or a collection of such: what labels it keeps.
    Object(Object) = 12, 250_000, "objects";
    /// A trust domain: the newest bundle of it that any node has used.
    TrustDomain(TrustDomain) = 20, 4_096, "trust domains";
    /// An agent acting for one subject: what it did over all sessions of the two.
    Pair(Party) = 13, 250_000, "pairs of an agent and a subject";
}

/// Value that a store keeps as a record.
trait StoredValue {
    /// Id of the record within its kind.
    fn record_id(&self) -> Cow<'_, str>;

    /// Time at which the record expires. Default: it does not expire by itself.
    fn record_due(&self) -> Option<Time> {
        None
    }
}

impl StoredValue for Session {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

impl StoredValue for Party {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

impl StoredValue for Task {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        self.due().map(Time)
    }
}

impl StoredValue for Reservation {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.decision_id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.due)
    }
}

impl StoredValue for Idempotency {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

impl StoredValue for Revocation {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Owned(self.target.key(&self.value))
    }
}

impl StoredValue for Credential {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.jti)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.due())
    }
}

impl StoredValue for Proof {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

impl StoredValue for SigningKey {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.kid)
    }

    fn record_due(&self) -> Option<Time> {
        self.expires_at
    }
}

// The broker removes a lease once the secret that it names is gone.
impl StoredValue for Lease {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }
}

impl StoredValue for Object {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

// Never removed: an older bundle of the domain would be accepted again.
impl StoredValue for TrustDomain {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }
}

/// Which record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// What it is of.
    pub kind: RecordKind,
    /// Its id within the kind.
    pub id: Arc<str>,
}

impl RecordKey {
    /// The key of a record.
    #[must_use]
    pub fn new(kind: RecordKind, id: impl AsRef<str>) -> Self {
        Self { kind, id: Arc::from(id.as_ref()) }
    }
}

/// The key of a record, as other records store it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordName {
    /// What it is of.
    pub kind: RecordKind,
    /// Its id within the kind.
    pub id: String,
}

impl RecordName {
    /// The key that is stored.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        RecordKey::new(self.kind, &self.id)
    }
}

impl From<RecordKey> for RecordName {
    fn from(key: RecordKey) -> Self {
        Self { kind: key.kind, id: key.id.to_string() }
    }
}

/// A task tree as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// The root task.
    pub root: String,
    /// Tasks of the tree, live and ended.
    pub tasks: u32,
    /// When the root was started.
    pub started_at: Time,
    /// When it may be forgotten: a while after the last of its tasks has ended.
    pub expires_at: Time,
    /// Of what somebody does without a task: when that was taken away. Of the session of an agent that works without tasks:
    /// when denials ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Of what somebody does without a task: denials ended it, and nobody revoked it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub denied: bool,
    /// Of what an agent does for a subject without a task: its SPIFFE id. What is taken away there is taken away from the agent
    /// that leaves the subject out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What its tasks did, as far as rules ask for it.
    #[serde(default, skip_serializing_if = "SessionHistory::is_empty")]
    pub history: SessionHistory,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// An agent, a subject, or a pair of both: what it did over all its sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Party {
    /// Its id: [`Holder::key`].
    ///
    /// [`Holder::key`]: crate::record::history::Holder::key
    pub id: String,
    /// What it did, as far as rules ask for it.
    #[serde(default, skip_serializing_if = "SessionHistory::is_empty")]
    pub history: SessionHistory,
    /// Of a pair: when the agent's task for the subject was ended because of its denials. The agent starts no other until the
    /// subject alone, a front end or an administrator does so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_at: Option<Time>,
    /// Of a pair: tasks that the agent began itself before this stay refused, also once it may start others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_before: Option<Time>,
    /// Of an agent or a pair: tasks that it was given, live and ended, by the hour since 1970 in which they are forgotten.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<i64, u32>,
    /// Of an agent: the sessions in which others gave it a task and may tell it what was read there, by the id of the task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared: BTreeMap<String, SharedSession>,
    /// Of an agent: when it was last noted that it acts for a subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted_at: Option<Time>,
    /// When it may be forgotten: once nothing in it counts any more.
    pub expires_at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// A session in which somebody else gave an agent a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedSession {
    /// Who gave the task: a digest of the SPIFFE id, so that a long one takes no more room; of earlier versions the id itself.
    pub giver: String,
    /// Id of the session.
    pub session: String,
    /// Id of the record of the agent and the task's subject: its digest, of earlier versions the id itself.
    pub pair: String,
    /// When the task ends at the latest. What is read in the session afterwards, nobody tells by the task.
    pub deadline: Time,
    /// The task carries labels of its own: those that its giver remembered.
    #[serde(default, skip_serializing_if = "is_false")]
    pub told: bool,
}

impl SharedSession {
    /// Args: `pair`: id of the record of the task's agent and subject.
    #[must_use]
    pub fn of(task: &Task, pair: &str) -> Self {
        Self {
            giver: short(&task.starter),
            session: task.session.clone(),
            pair: short(pair),
            deadline: task.deadline,
            told: !task.told.is_empty(),
        }
    }

    /// Whether this agent or subject gave the task.
    #[must_use]
    pub fn is_by(&self, giver: &str) -> bool {
        self.giver == giver || self.giver == short(giver)
    }

    /// Whether the task is of this pair's record.
    #[must_use]
    pub fn is_of_pair(&self, pair: &str) -> bool {
        self.pair == pair || self.pair == short(pair)
    }
}

/// An hour in milliseconds.
const HOUR_MS: i64 = 3_600 * 1_000;

impl Party {
    /// Tasks that are not forgotten yet. A task that ended before its deadline counts until it would have been forgotten at its
    /// deadline.
    #[must_use]
    pub fn count_tasks(&self, now: Time) -> u64 {
        let hours = self.tasks.range(now.0.div_euclid(HOUR_MS)..);
        hours.map(|(_, count)| u64::from(*count)).fold(0, u64::saturating_add)
    }

    /// Counts one more task.
    ///
    /// Args: `until`: when it is forgotten at the latest.
    pub fn add_task(&mut self, until: Time, now: Time) {
        self.tasks = self.tasks.split_off(&now.0.div_euclid(HOUR_MS));
        let count = self.tasks.entry(until.0.div_euclid(HOUR_MS)).or_default();
        *count = count.saturating_add(1);
        self.expires_at = until.max(self.expires_at);
    }
}

/// A unit of delegated work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id; a name, not a secret.
    pub id: String,
    /// How it came to be.
    pub kind: TaskKind,
    /// The template that it was made from.
    pub template: String,
    /// SHA-256 of the template as it was, in hex: another revision of the bundle may say otherwise.
    pub template_digest: String,
    /// The session that it shares with its whole tree.
    pub session: String,
    /// The tasks above it, the root first; empty for a root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// The agents from the root's assignee to its own; never empty where it is kept.
    pub agents: Vec<AgentName>,
    /// On whose behalf; none where the first agent acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// How that was proved.
    pub subject_proof: SubjectProof,
    /// Who started it: the SPIFFE id of an agent, or `<issuer>:<sub>`.
    pub starter: String,
    /// What it is for, as the template says.
    pub purpose: String,
    /// Parameters of the template.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Param>,
    /// What it may do, within what the tasks above it may; sorted by operation.
    pub scope: Vec<ScopeEntry>,
    /// How often each entry of `scope` was used, in its order, by the task and all below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<u64>,
    /// No operation above this tier.
    pub tier_cap: Tier,
    /// How deep tasks below the root may be; 0: it may have no children.
    pub max_depth: u32,
    /// When it was started.
    pub started_at: Time,
    /// When it ends at the latest.
    pub deadline: Time,
    /// How long it may lie idle, in milliseconds; none: as long as it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<i64>,
    /// When something was last permitted in it, at a grain of a tenth of `idle_timeout_ms`.
    pub last_used: Time,
    /// How it stands. One that is ACTIVE beyond its deadline is expired, although nothing has been written yet.
    pub status: TaskStatus,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Where to look in `scope`.
    #[serde(skip)]
    pub index: ScopeIndex,
    /// Operations that were permitted in it as tasks of the MCP server's own, so that what they bring may be fetched.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub server_calls: BTreeSet<String>,
    /// Of a root: the newest tokens of its subject that were shown in its tree, one for each stream of tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_tokens: Vec<NewestToken>,
    /// Of a root: when the newest of these tokens ends, at a grain of a minute; none where no token was shown, or its time was
    /// not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_until: Option<Time>,
    /// Destinations that were named, by who named them. What an earlier version kept as `literals`, without who said it, stays
    /// among `rest` and trusts nothing.
    #[serde(default, skip_serializing_if = "Names::is_empty")]
    pub names: Names,
    /// Somebody else gave it to its agent, and no call in it was decided yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unused: bool,
    /// Its agent gave it up before any call in it was decided.
    #[serde(default, skip_serializing_if = "is_false")]
    pub declined: bool,
    /// Labels that the agent that gave it remembered of other tasks when it did, and where each comes from: the giver may have
    /// put such data into the parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: Shared<BTreeMap<String, Origin>>,
    /// The subject alone, or a front end, started it. Otherwise an agent did, or a caller who shows nothing but what an agent
    /// may hold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub by_user: bool,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Task {
    /// Whose share it counts against: its agent's for the subject, or its giver's as long as the agent did not use it. What the
    /// subject alone or a front end starts counts against the subject, so that no agent that fills its share keeps its user
    /// out.
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

    /// Whether it counts against the share of its starter, and not of its agent.
    #[must_use]
    pub const fn counts_for_starter(&self) -> bool {
        self.unused || self.by_user
    }

    /// Whether somebody else gave it to its agent.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.kind.is_started() && self.starter != self.assignee()
    }

    /// The agent that it was given to.
    #[must_use]
    pub fn assignee(&self) -> &str {
        self.agents.last().map_or("", |agent| agent.spiffe_id.as_str())
    }

    /// How far from the root; 0 is the root.
    #[must_use]
    pub fn depth(&self) -> u32 {
        u32::try_from(self.ancestors.len()).unwrap_or(u32::MAX)
    }

    /// How it stands at a time: time-outs count from then on, whether or not they were written.
    #[must_use]
    pub fn status_at(&self, now: Time) -> TaskStatus {
        let is_idle =
            self.idle_timeout_ms.is_some_and(|most| self.last_used.0.saturating_add(most) <= now.0);
        match self.status {
            TaskStatus::Active if self.deadline <= now || is_idle => TaskStatus::Expired,
            status => status,
        }
    }

    /// When its time is up, in milliseconds since 1970; none where it has ended.
    #[must_use]
    pub fn due(&self) -> Option<i64> {
        let idle = self.idle_timeout_ms.map(|most| self.last_used.0.saturating_add(most));
        let due = idle.map_or(self.deadline.0, |idle| idle.min(self.deadline.0));
        (self.status == TaskStatus::Active).then_some(due)
    }

    /// Whether a principal is the agent that it was given to.
    pub fn is_assignee(&self, principal: &Principal) -> bool {
        matches!(principal, Principal::Agent { spiffe_id, .. } if *spiffe_id == self.assignee())
    }

    /// Whether a chain is the task's own: its subject, then its agents.
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

    /// Notes that an operation was permitted as a task of the MCP server's own; the catalog bounds how many there are.
    pub fn note_call(&mut self, operation: &str) {
        if !self.server_calls.contains(operation) {
            self.server_calls.insert(operation.to_owned());
        }
    }

    /// Whether [`Self::chain`] would give just this: then nothing need be copied.
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

    /// Who acts in it: subject first, as the task began, then every agent down to its assignee. Policy judges
    /// [`TaskView::chain`], which knows of newer tokens of the subject.
    ///
    /// [`TaskView::chain`]: super::TaskView::chain
    #[must_use]
    pub fn chain(&self) -> Vec<Principal> {
        let subject = self.subject.iter().map(Subject::principal);
        let agents = self.agents.iter().map(AgentName::principal);
        subject.chain(agents).collect()
    }
}

/// How long a pair is refused whose session was taken away, in milliseconds: as long as the pair's record says that denials
/// ended its last task.
pub const BARRED_MS: u64 = 30 * 24 * 3_600 * 1_000;

impl Task {
    /// Whether it was taken away from a pair that works without tasks, and that counts still: the pair begins anew only 30 days
    /// after it was, or once somebody lets it.
    #[must_use]
    pub fn is_barred(&self, now: Time) -> bool {
        let until = self.ended_at.map_or(i64::MAX, |at| at.0.saturating_add_unsigned(BARRED_MS));
        self.kind == TaskKind::Implicit && self.status == TaskStatus::Revoked && now.0 < until
    }
}

/// How a task came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// It was started.
    Root,
    /// It was delegated.
    Child,
    /// It is no task: it bounds the session of an agent that works without tasks, as `implicit` of the kernel gives it.
    Implicit,
    /// It is none, and nowhere kept: what somebody does without a task, as `taskless` of the kernel gives it.
    None,
}

impl TaskKind {
    /// The word used in policies; without a task it is `none`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Child => "child",
            Self::Implicit => "implicit",
            Self::None => "none",
        }
    }

    /// Whether somebody started it. What an agent does otherwise it did in no task whose end it knows of.
    #[must_use]
    pub const fn is_started(self) -> bool {
        matches!(self, Self::Root | Self::Child)
    }
}

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// It gives authority.
    Active,
    /// Its work is done.
    Completed,
    /// It was given up.
    Aborted,
    /// It was taken away.
    Revoked,
    /// Its time ran out.
    Expired,
}

/// How it was proved on whose behalf a task was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectProof {
    /// By a verified token.
    Verified,
    /// By the word of a starter that policy lets speak for subjects; below tier high.
    Asserted,
    /// The starter acts for itself.
    #[serde(rename = "self")]
    Itself,
}

impl SubjectProof {
    /// The word used in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Asserted => "asserted",
            Self::Itself => "self",
        }
    }
}

/// An agent of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentName {
    /// `spiffe://<trust domain>/<path>`.
    pub spiffe_id: String,
    /// Its trust domain.
    pub trust_domain: String,
}

impl AgentName {
    /// The agent of a SPIFFE id.
    ///
    /// # Errors
    /// What is wrong with the id.
    pub fn parse(spiffe_id: &str) -> Result<Self, &'static str> {
        if let Some(why) = crate::spiffe::pattern_defect(spiffe_id) {
            return Err(why);
        }
        if spiffe_id.contains('*') {
            return Err("it is a pattern, not the id of one agent");
        }
        let domain = crate::spiffe::segments(spiffe_id).next().unwrap_or_default();
        Ok(Self { spiffe_id: spiffe_id.to_owned(), trust_domain: domain.to_owned() })
    }

    /// As policies know it.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal::Agent {
            spiffe_id: self.spiffe_id.clone(),
            trust_domain: self.trust_domain.clone(),
        }
    }
}

/// A subject as it was verified when the task was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// A service, not a person.
    #[serde(default)]
    pub is_service: bool,
    /// Alias of the issuer.
    pub issuer: String,
    /// `sub` of the token.
    pub sub: String,
    /// Kept claims.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, Claim>,
    /// `acr` of the token; empty where absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub acr: String,
}

impl Subject {
    /// The subject that a principal is; none where it is an agent.
    #[must_use]
    pub fn of(principal: &Principal, acr: &str) -> Option<Self> {
        let (is_service, subject) = match principal {
            Principal::User(subject) => (false, subject),
            Principal::Service(subject) => (true, subject),
            Principal::Agent { .. } => return None,
        };
        let (issuer, sub) = (subject.issuer.clone(), subject.sub.clone());
        Some(Self { is_service, issuer, sub, claims: subject.claims.clone(), acr: acr.to_owned() })
    }

    /// The name that a revocation of the subject has: `<issuer alias>/<sub>`.
    #[must_use]
    pub fn revocation_name(issuer: &str, sub: &str) -> String {
        format!("{issuer}/{sub}")
    }

    /// Whether a principal is the subject.
    pub fn is(&self, principal: &Principal) -> bool {
        let (is_service, subject) = match principal {
            Principal::User(subject) => (false, subject),
            Principal::Service(subject) => (true, subject),
            Principal::Agent { .. } => return false,
        };
        is_service == self.is_service && subject.issuer == self.issuer && subject.sub == self.sub
    }

    /// Whether a principal is the subject with the same claims.
    fn is_exactly(&self, principal: &Principal) -> bool {
        let (Principal::User(subject) | Principal::Service(subject)) = principal else {
            return false;
        };
        self.is(principal) && self.claims == subject.claims && subject.narrowed.is_empty()
    }

    /// As policies know it.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.principal_with(Vec::new())
    }

    /// As policies know it, without the roles that further tokens take away.
    pub(super) fn principal_with(&self, narrowed: Vec<Narrowing>) -> Principal {
        let subject = Arc::new(principal::Subject {
            issuer: self.issuer.clone(),
            sub: self.sub.clone(),
            claims: self.claims.clone(),
            narrowed,
        });
        if self.is_service { Principal::Service(subject) } else { Principal::User(subject) }
    }
}

/// A parameter of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Long(i64),
    /// A text.
    Text(String),
}

/// One thing that a task may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeEntry {
    /// Operation id.
    pub operation: String,
    /// On which resources.
    #[serde(default)]
    pub resources: Selector,
    /// Limits on arguments, by JSON pointer (RFC 6901).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, Limit>,
    /// How often; none: without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// A conjunction over resources; a field that is none restricts nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Any of these collections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collections: Option<BTreeSet<String>>,
    /// Any of these ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<BTreeSet<String>>,
    /// Ids that begin with these whole segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// No labels but these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_ceiling: Option<BTreeSet<String>>,
}

/// A limit on one argument.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// One of these texts.
    OneOf(BTreeSet<String>),
    /// A whole number from the first to the second.
    Range(i64, i64),
    /// A text that begins so.
    Prefix(String),
}

/// Keyed hash (HMAC-SHA-256, 16 bytes, in hex) of something that a user named: nobody reads the prompt from it.
pub type Literal = String;

/// A permitted operation of which nothing has been reported yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The permit's decision.
    pub decision_id: String,
    /// The task; its uses are counted already.
    pub task: String,
    /// The session.
    pub session: String,
    /// The operation.
    pub operation: String,
    /// Which entry of which task was charged: `(task id, index)`, own and ancestors'.
    pub charged: Vec<(String, u32)>,
    /// The enforcer that asked; empty where the caller asked about itself.
    pub enforcer: String,
    /// When it was permitted.
    pub permitted_at: Time,
    /// When it counts as done without a report; with a credential that nobody has redeemed: when it is released.
    pub due: Time,
    /// Id of the resource that was judged; none where the operation has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// SHA-256 of the arguments in their canonical form, in hex; none where there were none to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments_digest: Option<String>,
    /// Destinations that were judged, as the decision had them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
    /// Effective tier of the permit.
    #[serde(default)]
    pub tier: Tier,
    /// SPIFFE id of the agent that was permitted; empty where none was known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// Digest of the id of the agent's and the subject's pair; empty where an earlier version kept it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pair: String,
    /// `jti` of the credential that was issued of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The check asked for a credential: nothing has been performed by the permit itself.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wants_credential: bool,
    /// The credential was presented and the operation permitted again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redeemed: bool,
    /// The records that remember its labels when the task has ended; none where no label was new to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remembered_in: Vec<RecordName>,
    /// When the subject's token ends that was shown for the permit; none where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_until: Option<Time>,
    /// Id of the record of the enforcer's key that it was asked under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Reservation {
    /// A credential was issued of it, and nobody has redeemed it: nothing was performed.
    #[must_use]
    pub const fn is_unused(&self) -> bool {
        self.credential.is_some() && !self.redeemed
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// How long after its end a credential and its reservation are kept, in milliseconds: clocks of nodes differ.
const KEPT_AFTER_END_MS: i64 = 60_000;

/// A task credential, as it was issued. What it may be used for is never more than this says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// `jti` of the token.
    pub jti: String,
    /// The task that it exists for.
    pub task: String,
    /// The session.
    pub session: String,
    /// SPIFFE id of the agent that it was issued to.
    pub agent: String,
    /// The one audience.
    pub audience: String,
    /// What it permits; never empty.
    pub details: Vec<Detail>,
    /// The key that must be proved with it; none: whoever bears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// When it was issued.
    pub issued_at: Time,
    /// When it ends.
    pub expires_at: Time,
    /// When it was revoked by itself; the end of its task needs no mark here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Credential {
    /// When it may be forgotten.
    #[must_use]
    pub const fn due(&self) -> Time {
        Time(self.expires_at.0.saturating_add(KEPT_AFTER_END_MS))
    }

    /// Whether it was revoked, or has ended; its task and revocations are to be asked besides.
    #[must_use]
    pub fn is_over(&self, now: Time) -> bool {
        self.revoked_at.is_some() || self.expires_at <= now
    }
}

/// One thing that a credential permits, once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detail {
    /// The permit's decision, and its reservation.
    pub decision_id: String,
    /// Operation id.
    pub operation: String,
    /// Id of the resource; none where the operation has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// SHA-256 of the arguments in their canonical form, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments_digest: Option<String>,
    /// Destinations, as the decision had them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
}

/// The key that a credential is bound to; a text in base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// Thumbprint of a key (RFC 7638): `cnf.jkt`.
    Jkt(String),
    /// SHA-256 of a certificate (RFC 8705): `cnf.x5t#S256`.
    X5t(String),
}

impl Binding {
    /// The member of `cnf` that says so.
    #[must_use]
    pub const fn member(&self) -> &'static str {
        match self {
            Self::Jkt(_) => "jkt",
            Self::X5t(_) => "x5t#S256",
        }
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::Jkt(value) | Self::X5t(value) => value,
        }
    }
}

/// A proof of possession that was seen: it is taken once. Or the tally of one key's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// `<thumbprint of the key>/<SHA-256 of its jti, in hex>`; of a tally the thumbprint alone.
    pub id: String,
    /// When it would be refused anyway; of a tally, the last of its key.
    pub expires_at: Time,
    /// Of a tally: how many end within each [`Self::SLOT_MS`], by the number of that slot since 1970.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<i64, u32>,
}

impl Proof {
    /// The grain of a tally, in milliseconds.
    pub const SLOT_MS: i64 = 5_000;

    /// The tally of a key, with nothing in it.
    #[must_use]
    pub fn tally(thumbprint: &str) -> Self {
        Self { id: thumbprint.to_owned(), expires_at: Time(0), counts: BTreeMap::new() }
    }

    /// Counts one more proof that ends then, unless as many are live.
    ///
    /// Args: `most`: so many may be live at once; one counts until its slot is over.
    ///
    /// Returns whether it was counted.
    pub fn count(&mut self, expires_at: Time, now: Time, most: u32) -> bool {
        self.counts = self.counts.split_off(&now.0.div_euclid(Self::SLOT_MS));
        if self.counts.values().fold(0_u32, |all, one| all.saturating_add(*one)) >= most {
            return false;
        }
        let slot = self.counts.entry(expires_at.0.div_euclid(Self::SLOT_MS)).or_default();
        *slot = slot.saturating_add(1);
        self.expires_at = self.expires_at.max(expires_at);
        true
    }
}

/// A key that task credentials are signed with; the private part is the node's alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Its id: the thumbprint of RFC 7638.
    pub kid: String,
    /// The node that signs with it.
    pub node: String,
    /// The public key, as the text of a JWK.
    pub jwk: String,
    /// When it was published.
    pub published_at: Time,
    /// From when on it signs.
    pub active_from: Time,
    /// When the last token that it signed has ended; none: it may still sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}

/// How a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// To be made at the system.
    Wanted,
    /// Made.
    Live,
    /// To be taken away at the system.
    Ending,
}

/// A secret that was leased of a system that knows no tokens. The secret itself is kept nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// `<session>/<uuid>`.
    pub id: String,
    /// The broker that makes it.
    pub broker: String,
    /// The system that it is a secret of.
    pub system: String,
    /// The operation that was permitted.
    pub operation: String,
    /// The task that it exists for.
    pub task: String,
    /// The session.
    pub session: String,
    /// The permit.
    pub decision_id: String,
    /// SPIFFE id of the agent that it was issued to.
    pub agent: String,
    /// What the system knows it by, such as a role.
    pub name: String,
    /// How it stands.
    pub state: LeaseState,
    /// When it ends at the latest.
    pub expires_at: Time,
    /// How often it was tried to take it away.
    #[serde(default)]
    pub attempts: u32,
    /// When that is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Time>,
    /// Why that failed last; empty where it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// The newest bundle of a SPIFFE trust domain that any node has used. An older one is refused, also after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrustDomain {
    /// Its name.
    pub id: String,
    /// How often an operator accepted that the domain counts its bundles anew.
    #[serde(default)]
    pub epoch: u32,
    /// `spiffe_sequence` of the newest bundle.
    pub sequence: u64,
    /// When it was first used.
    pub at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// What an enforcer's key was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Idempotency {
    /// `<scope>/<hash of the key>`: the scope is the caller's, so that nobody meets another's keys.
    pub id: String,
    /// SHA-256 of what was asked, in hex.
    pub digest: String,
    /// The answer, encoded.
    #[serde(with = "base64_text")]
    pub answer: Vec<u8>,
    /// When it may be forgotten.
    pub expires_at: Time,
}

/// What a revocation speaks of.
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
    /// All of them.
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

    /// Whether a revocation of this target can be lifted. A task, a session and a token end for good.
    #[must_use]
    pub const fn is_undoable(self) -> bool {
        !matches!(self, Self::Task | Self::Session | Self::Jti)
    }

    /// The word used in commands and records.
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

    fn key(self, value: &str) -> String {
        format!("{}:{value}", self.as_str())
    }
}

/// Something revoked: whatever it names is refused from then on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    /// What `value` is.
    pub target: RevocationTarget,
    /// Which one.
    pub value: String,
    /// Why, in the words of whoever revoked.
    pub reason: String,
    /// Who revoked.
    pub by: String,
    /// When.
    pub at: Time,
}

/// All revocations, as a node knows them.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    known: HashMap<(RevocationTarget, String), Arc<Revocation>>,
    /// Systems that are revoked, or of which an operation is.
    systems: HashSet<String>,
}

impl Revocations {
    /// Adds one.
    pub fn insert(&mut self, revocation: Arc<Revocation>) {
        let system = match revocation.target {
            RevocationTarget::System => Some(revocation.value.as_str()),
            RevocationTarget::Operation => {
                revocation.value.split_once('.').map(|(system, _)| system)
            }
            _ => None,
        };
        self.systems.extend(system.map(str::to_owned));
        self.known.insert((revocation.target, revocation.value.clone()), revocation);
    }

    /// The revocation of something; none where it is not revoked.
    #[must_use]
    pub fn find(&self, target: RevocationTarget, value: &str) -> Option<&Arc<Revocation>> {
        if self.known.is_empty() {
            return None;
        }
        self.known.get(&(target, value.to_owned()))
    }

    /// Whether a system is revoked, or any operation of it.
    #[must_use]
    pub fn has_of_system(&self, system: &str) -> bool {
        self.systems.contains(system)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True where nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

mod base64_text {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(de::Error::custom)
    }
}
