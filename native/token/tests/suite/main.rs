//! What the crate promises, tested through its public interface.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests read files")]

mod access_token;
mod agent;
mod algorithms;
mod binding;
mod cached;
mod clauses;
mod confidence;
mod credential;
mod form;
mod hostile;
mod keys;
mod peer;
mod proof;
mod pyjwt;
mod settings;
mod small_order;
mod spiffe_id;
mod subject;
mod support;
