//! What the crate promises, tested through its public interface.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod access_token;
mod agent;
mod algorithms;
mod cached;
mod clauses;
mod form;
mod hostile;
mod keys;
mod peer;
mod settings;
mod spiffe_id;
mod subject;
mod support;
