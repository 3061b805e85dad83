//! Tasks: units of delegated work, made from templates. A task gives authority while it is live, and only to the agent
//! that it was given to.
//!
//! Tasks form a tree, which shares one session. The records themselves are plain values of `authz-base`.

mod implicit;
mod literals;
mod names;
mod on_behalf;
mod sample;
mod scope;
mod start;
mod words;

pub use authz_base::record::approval;
pub use authz_base::record::task::*;
pub use authz_base::record::{
    AuditHead, Binding, Breakglass, BreakglassConfirmation, BreakglassEnd, BreakglassPerson,
    BreakglassStatus, Breakglasses, Credential, Cutoff, Detail, Idempotency, Lease, LeaseState,
    NewReservation, Party, Proof, Record, RecordKey, RecordKind, RecordName, Reservation,
    Revocation, RevocationTarget, Revocations, Session, SharedSession, SigningKey, TrustDomain,
};
pub use authz_bundle::prompt::{LONGEST_PROMPT, Nouns, Reading, amount_name, read as read_prompt};
pub use implicit::{implicit, implicit_id, is_implicit_id, renewed};
pub use literals::hmac;
pub use names::{MAX_PARTS, Part, PromptNames, SaidBy, read_names};
pub use on_behalf::{
    ACTED_MS, Alone, alone_pair, alone_without_task, alones_of, barred_alone, carrier_of, is_alone,
    subject_refused,
};
pub(crate) use sample::SampleValue;
pub use sample::{SamplePrompt, ValueError, kept_words};
pub use scope::Dimension;
pub use start::{Child, Refused, Root, delegate, denied_pair, extend, start};
pub use words::{PromptWords, SignificantWords};

pub(crate) use authz_bundle::prompt::names_of;
pub(crate) use literals::literal;
pub(crate) use scope::{Acts, Miss, could, could_beyond, fit, fit_beyond, selects};
