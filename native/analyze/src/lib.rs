//! Analysis of a bundle before it serves: proofs about its policies, and differences between two bundles.
//!
//! The parts, in the order in which a question passes them. A module imports only modules that stand before it.
//!
//! 1. [`input`]: the request of the executable, and the plans that the kernel compiles from it.
//! 2. [`report`]: the document that is written: findings, proofs and counts.
//! 3. [`solver`]: a [`solver::Question`] about Cedar expressions, and its solver: the symbolic compiler of Cedar with a
//!    solver process, or [`solver::NoSolver`].
//! 4. [`guards`]: questions about one operation and one type of principal, with the kernel's meaning of permits and forbids, and
//!    the replay of each counterexample by the kernel.
//! 5. [`proofs`]: findings about each policy and each operation.
//! 6. [`paths`]: calls that a set of agents could reach together, by a fixpoint and by traces that the engine permits.
//! 7. [`difference`]: whether a changed bundle permits more than the one before.
//!
//! The crate has no second implementation of the kernel's rules: conditions, slices and schema come from
//! [`authz_kernel::guards`].

pub mod difference;
pub mod guards;
pub mod input;
pub mod paths;
pub mod proofs;
pub mod report;
pub mod solver;
