//! Records: state that outlives a request, in its stored form.
//!
//! Fields are added with a default, never renamed, and members that a node does not know are kept. The bounds of a task are
//! read whole or not at all: a node that does not know a limit must not read the scope without it.
//!
//! A [`Session`] is shared by one tree of [`task`]s; a [`Party`] keeps the history of an agent, a subject or a pair over all
//! sessions, and [`history`] is the part of both that rules read. [`TaskWords`] and [`KnownValuesRecord`] say who chose a value:
//! few calls read them, and fewer change them, so they are no part of the records of a task and of a session. [`Reservation`]s, [`Credential`]s, [`Proof`]s and
//! [`Lease`]s come from permits, [`Idempotency`] answers, [`Revocation`]s, [`Cutoff`]s, [`Breakglass`], [`SigningKey`]s and [`TrustDomain`]s
//! from API calls and nodes, and [`approval`]s from step-ups.

pub mod history;
pub mod task;

pub mod approval;
mod audit_head;
mod breakglass;
mod credential;
mod cutoff;
mod idempotency;
mod key;
mod lease;
mod party;
mod proof;
mod reservation;
mod revocation;
mod session;
mod signing_key;
mod trust_domain;

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::principal::Subject;
use crate::time::Time;
use approval::{Approval, ApprovalQueue, Passkey, RememberedAnswer};
use history::{KnownValuesRecord, Object};
use task::{Task, TaskWords};

pub use audit_head::AuditHead;
pub use breakglass::{
    Breakglass, BreakglassConfirmation, BreakglassEnd, BreakglassPerson, BreakglassStatus,
    Breakglasses,
};
pub use credential::{Binding, Credential, Detail};
pub use cutoff::Cutoff;
pub use idempotency::Idempotency;
pub use key::{RecordKey, RecordName};
pub use lease::{Lease, LeaseState};
pub use party::{Party, SharedSession};
pub use proof::Proof;
pub use reservation::{NewReservation, Reservation};
pub use revocation::{Revocation, RevocationTarget, Revocations};
pub use session::Session;
pub use signing_key::SigningKey;
pub use trust_domain::TrustDomain;

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

            /// Time at which the record expires, in milliseconds since 1970. `None`: it does not expire by itself.
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
    /// A task tree as a whole. A change of any record of the tree locks this record.
    Session(Session) = 1, 250_000, "sessions";
    /// An agent's history over all its sessions. The start and the end of a task lock the record of its agent, too.
    Agent(Party) = 2, 100_000, "agents";
    /// A task.
    Task(Task) = 3, 250_000, "tasks";
    /// A permitted operation whose outcome is not reported yet.
    Reservation(Reservation) = 4, 500_000, "reservations";
    /// An answer to an enforcer's idempotency key.
    Idempotency(Idempotency) = 5, 500_000, "answers kept for enforcers' keys";
    /// A revocation.
    Revocation(Revocation) = 6, 100_000, "revocations";
    /// A task credential, until a while after its end.
    Credential(Credential) = 7, 500_000, "task credentials";
    /// A proof of possession that was used. Each new proof locks the tally of its key.
    Proof(Proof) = 8, 500_000, "proofs of possession";
    /// A key with which a node signs task credentials; the keys of all nodes.
    SigningKey(SigningKey) = 9, 64, "signing keys";
    /// A lease of a secret of a system without tokens.
    Lease(Lease) = 10, 10_000, "leases";
    /// A subject's history over all sessions on its behalf.
    Subject(Party) = 11, 250_000, "subjects";
    /// The labels of an object that agents wrote, or of a collection of such objects.
    Object(Object) = 12, 250_000, "objects";
    /// A call that stepped up, and the answers of people.
    Approval(Approval) = 16, 100_000, "approvals";
    /// An answer of people that later calls read.
    RememberedAnswer(RememberedAnswer) = 17, 100_000, "remembered answers";
    /// The open approvals of a queue, a task or an agent.
    ApprovalQueue(ApprovalQueue) = 18, 100_000, "tallies of approvals";
    /// A passkey of a person who answers approvals.
    Passkey(Passkey) = 19, 100_000, "passkeys";
    /// The newest bundle of a trust domain that any node has used.
    TrustDomain(TrustDomain) = 20, 4_096, "trust domains";
    /// The history of an agent that acts for one subject, over all sessions of the two.
    Pair(Party) = 13, 250_000, "pairs of an agent and a subject";
    /// The words of a task's prompts, as keyed prints. A change locks the record of the session.
    Words(TaskWords) = 14, 250_000, "words of prompts";
    /// The values that a session knows from reports, as keyed fingerprints. A change locks the record of the session.
    Values(KnownValuesRecord) = 15, 250_000, "values of sessions";
    /// A request for break-glass, until a day after its end.
    Breakglass(Breakglass) = 21, 256, "requests for break-glass";
    /// A time up to which the tokens of a subject are refused.
    Cutoff(Cutoff) = 23, 100_000, "cut-offs of subjects";
    /// The newest head of a node's audit log.
    AuditHead(AuditHead) = 22, 4_096, "heads of audit logs";
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

/// Labels and roles of a loaded bundle, by which records are read and changed.
pub trait Declarations {
    /// Returns whether a label marks data of strangers. `None` if the bundle does not declare the label.
    fn is_trust_label(&self, label: &str) -> Option<bool>;

    /// The roles of a subject: sorted, each once.
    fn roles_of_subject<'a>(&'a self, subject: &Subject) -> Vec<&'a str>;
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
pub(super) const fn is_false(value: &bool) -> bool {
    !*value
}
