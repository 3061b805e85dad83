//! The stages of a call, in the order in which a call passes them. Each stage takes the values of the stages before it and
//! returns its own; no stage writes into the value of another.

pub(crate) mod admit;
pub(crate) mod identify;
pub(crate) mod judge;
pub(crate) mod locate;
pub(crate) mod resolve;
pub(crate) mod settle;
