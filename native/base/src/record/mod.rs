//! Records: what outlives a request, as it is stored.
//!
//! Fields are added with a default, never renamed, and members that a node does not know are kept. What bounds a task is read
//! whole or not at all: a node that does not know a limit must not read the scope without it.

pub mod history;
pub mod task;

use crate::principal::Subject;
pub use task::{
    AgentName, Binding, Credential, Detail, Idempotency, Lease, LeaseState, Party, Proof, Record,
    RecordKey, RecordKind, RecordName, Reservation, Revocation, RevocationTarget, Revocations,
    Session, SharedSession, SigningKey, Task, TaskKind, TaskStatus, TrustDomain,
};

/// Labels and roles that a loaded bundle declares, as far as records are read and changed under it.
pub trait Declarations {
    /// Whether a label says that strangers brought the data; none where the bundle does not declare the label.
    fn is_trust_label(&self, label: &str) -> Option<bool>;

    /// The roles of a subject: sorted, each once.
    fn roles_of_subject<'a>(&'a self, subject: &Subject) -> Vec<&'a str>;
}
