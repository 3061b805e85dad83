//! Tasks: units of delegated work, made from templates. A task gives authority while it is live, and only to the agent
//! that it was given to.
//!
//! Tasks form a tree, which shares one session. What stands here is stored: fields are added with a default, never
//! renamed, and members that a node does not know are kept.

mod record;

pub use record::{
    AgentName, Idempotency, Limit, Literal, Param, Record, RecordKey, RecordKind, Reservation,
    Revocation, RevocationTarget, Revocations, ScopeEntry, Selector, Session, Subject,
    SubjectProof, Task, TaskKind, TaskStatus,
};
