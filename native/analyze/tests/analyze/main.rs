//! Tests of the analyzer, with the solver of the repository's virtual environment.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod answers;
mod breakglass;
mod brute_force;
mod bundles;
mod difference;
mod executable;
mod gathered;
mod guards;
mod leases;
mod outlook;
mod paths;
mod policies;
mod prompts;
mod random_bundle;
mod random_policies;
mod reports;
mod soundness;
mod waits;
