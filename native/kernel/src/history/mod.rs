//! Rules over what a session did before: sequences, budgets, memory of labels. The records themselves are plain values of
//! `authz-base`.

mod budget;
mod check;
mod memory;
mod renewal;
mod sequence;

pub use authz_base::record::history::*;
pub use renewal::Renewal;
pub(crate) use renewal::StoredRules;

pub(crate) use budget::{Budgets, Spends};
pub(crate) use check::{changed, check, recounted};
pub(crate) use memory::{Carried, Memory, MemoryRules, Recall};
pub(crate) use sequence::{EventSubject, SequenceStep, Sequences};
