//! Roles and their members.

use authz_base::record::history::MEMORY_MS;

use crate::location::{Declared, Location};

/// Members of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleMembers {
    /// SPIFFE ids or whole-segment patterns (`spiffe://td/ns/*/sa/bot`).
    pub agents: Vec<Declared<String>>,
    /// Memory that its agents have of ended tasks.
    pub memory: AgentMemory,
    /// Its agents are harnesses: front ends of their users.
    pub harness: bool,
    /// Its agents work without tasks.
    pub is_implicit: bool,
    /// Whether its agents name a subject in calls without a task. Default: the agents may leave the subject out until they have
    /// acted for one.
    pub subject: Option<OnBehalf>,
    /// Its agents steer a browser, a desktop or a shell, in which they could answer in the place of a person.
    pub has_controls: bool,
    /// Conditions on verified subject claims. One condition that holds is enough.
    pub subjects: Vec<SubjectMatch>,
    /// Place where the role is first named.
    pub at: Location,
}

/// Memory that an agent has of tasks that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentMemory {
    /// Isolation between its runs.
    pub isolated: Isolation,
    /// Time for which a label counts after the last read that brought it, in milliseconds.
    pub ms: i64,
}

impl Default for AgentMemory {
    fn default() -> Self {
        Self { isolated: Isolation::None, ms: MEMORY_MS }
    }
}

impl AgentMemory {
    /// Memory of an agent with two roles: the weaker isolation and the longer time.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self { isolated: self.isolated.min(other.isolated), ms: self.ms.max(other.ms) }
    }
}

/// Isolation between the runs of an agent. The least isolated comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// The agent may use data of one task in any later task.
    #[default]
    None,
    /// The agent uses data of one subject for no other subject.
    PerSubject,
    /// No data outlives a task that another caller started.
    PerTask,
}

/// Whether the agents of a role name a subject in calls without a task. If an agent has several roles, the first of these
/// values counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnBehalf {
    /// Each call shows the token of a subject.
    Required,
    /// The agents act for themselves, and show no subject.
    None,
    /// A call may leave the subject out.
    Optional,
}

/// A condition on a verified subject token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectMatch {
    /// Alias of the issuer in the configuration.
    pub issuer: String,
    /// Test of the claims.
    pub test: ClaimTest,
    /// Place in the bundle.
    pub at: Location,
}

/// Test of the claims of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimTest {
    /// Every subject of the issuer.
    Any,
    /// The claim equals the text (also `sub`).
    Equals(String, String),
    /// The claim, a list of texts, contains the text.
    Contains(String, String),
}
