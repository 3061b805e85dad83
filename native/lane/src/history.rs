//! History of a call: the records of its session, of the principals in its chain and of the object that it acts on.
//!
//! `begin` starts the session of a task. `recall` reads the records of a call into [`Recalled`](crate::recalled::Recalled), which the kernel judges by, and
//! `remember` writes what the answer changes. `alone`, `denials` and `taskless` are the rules of an agent that acts without its
//! subject, of an agent whose tasks were ended because of denials, and of calls without a task. `shared` has the labels that
//! agents tell each other, and `records` reads single records.

mod alone;
mod begin;
mod denials;
mod recall;
mod records;
mod remember;
mod shared;
mod taskless;

pub(crate) use self::alone::{bar_alone, carry, end_carried_run, refuse_alone_taken_away};
pub(crate) use self::begin::{
    begin, begin_child, begin_unstarted, count_task, counted_in, inherit_from_giver, pairs_of_child,
};
pub(crate) use self::denials::{may_begin, refuse_barred};
pub(crate) use self::recall::{SessionUse, changed_parties, current, parties, recall, recall_in};
pub(crate) use self::records::{known_party, lost, session};
pub(crate) use self::remember::{
    above, changes, ends_task, memories_of, remember, settle_remembered,
};
pub(crate) use self::shared::{merge_labels, shared_labels, told_of};
pub(crate) use self::taskless::{hold, refuse_taken_away};
