//! Task credentials: the key that each is bound to, the claims that it makes, and how it is issued of a permit.

pub(crate) mod claims;
mod issue;
pub(crate) mod key;

pub(crate) use crate::credentials::issue::check_bound;
