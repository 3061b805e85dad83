//! Deterministic simulator: nodes, stores, enforcers, approvers and their faults in one thread, under one seed.
//!
//! In the order of a run: `events` (what happens, from a seed), `run` (lets it happen), `node` with `clock`, `bundle`, `store` and `disk`
//! (a node and its simulated surroundings), `model` (what must hold), `faults` (what went wrong), `planted` (bugs that must be
//! found), `seeds` and `minimize` (many seeds, and what is told of one that fails).
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests"
)]

mod bundle;
mod clock;
mod disk;
mod events;
mod faults;
mod minimize;
mod model;
mod node;
mod planted;
mod random;
mod run;
mod seeds;
mod store;

use crate::events::{EVENTS, Scenario};
use crate::run::{run, run_logged};
use crate::seeds::{KEPT, Summary, describe, run_seeds};

// As in the extension.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds of a test run.
const SEEDS: u64 = 1_000;

fn check(summary: &Summary) {
    println!("{} permits\n{}", summary.permits, summary.table.text());
    if let Some(seed) = summary.failed {
        panic!("{}", describe(seed, None));
    }
    // Few seeds may lack any kind.
    if summary.table.seeds() >= SEEDS {
        let rare = summary.table.rare();
        assert!(rare.is_empty(), "in less than 5 % of the seeds: {rare:?}");
    }
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run_kept() {
    for seed in KEPT {
        let outcome = run(&Scenario::of(*seed), None);
        assert!(outcome.violation.is_none(), "{}", describe(*seed, None));
    }
}

/// No seed breaks an invariant, and every kind of fault occurs.
#[test]
fn no_seed_breaks_an_invariant() {
    run_kept();
    check(&run_seeds(1..=SEEDS));
}

/// `make soak`: as above, with the seeds from `AUTHZ_SEED_FROM` to `AUTHZ_SEED_TO`.
#[test]
#[ignore = "make soak"]
fn soak() {
    run_kept();
    let from = number("AUTHZ_SEED_FROM").unwrap_or(1);
    let to = number("AUTHZ_SEED_TO").unwrap_or(100_000);
    check(&run_seeds(from..=to));
}

/// `make simulate SEED=n`: tells how a seed runs.
#[test]
#[ignore = "make simulate"]
fn one_seed() {
    let seed = number("AUTHZ_SEED").unwrap_or(1);
    let outcome = run_logged(&Scenario::of(seed), None);
    println!("{}", outcome.log.join("\n"));
    assert!(outcome.violation.is_none(), "{}", describe(seed, None));
}

/// A seed gives the same run twice: answers and faults.
#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 1..=20 {
        let scenario = Scenario::of(seed);
        assert!(scenario.events.len() >= EVENTS);
        let [one, other] = [(); 2].map(|()| run_logged(&scenario, None));
        for (place, (line, again)) in one.log.iter().zip(&other.log).enumerate() {
            assert_eq!(line, again, "seed {seed}: answer {place}");
        }
        assert_eq!((one.log.len(), one.faults), (other.log.len(), other.faults), "seed {seed}");
    }
}
