//! Runs seeds on all processors, one seed on one thread, and tells of those that fail.

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::events::Scenario;
use crate::faults::FaultTable;
use crate::minimize::minimize;
use crate::planted::Bug;
use crate::run::{run, run_logged};

/// Seeds that found a defect, run before all others.
pub const KEPT: &[u64] = &[
    // A loss of power left frames of a new file of the journal without its header, and the store could not be opened.
    55,
    // A checkpoint moved frames of a generation that went on. A loss of power took the last of them from the journal, and those
    // before it were replayed over the newer records of the SQLite file.
    4249,
];

/// Result of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    pub table: FaultTable,
    pub permits: usize,
    /// The lowest seed that fails.
    pub failed: Option<u64>,
}

impl Summary {
    fn add(&mut self, seed: u64) {
        let outcome = run(&Scenario::of(seed), None);
        self.table.add(&outcome.faults);
        self.permits += outcome.permits;
        if outcome.violation.is_some() {
            self.failed = Some(self.failed.map_or(seed, |failed| failed.min(seed)));
        }
    }

    fn merge(&mut self, other: &Self) {
        self.table.merge(&other.table);
        self.permits += other.permits;
        self.failed = [self.failed, other.failed].into_iter().flatten().min();
    }
}

/// Runs seeds, and stops soon after the first failure.
pub fn run_seeds(seeds: RangeInclusive<u64>) -> Summary {
    let next = AtomicU64::new(*seeds.start());
    let all = Mutex::new(Summary::default());
    let has_failed = || all.lock().unwrap().failed.is_some();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut own = Summary::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed > *seeds.end() || has_failed() {
                        break;
                    }
                    own.add(seed);
                    if own.failed.is_some() {
                        break;
                    }
                }
                all.lock().unwrap().merge(&own);
            });
        }
    });
    all.into_inner().unwrap()
}

/// The lowest of the seeds that finds a planted bug.
pub fn find(bug: Bug, seeds: RangeInclusive<u64>) -> Option<u64> {
    seeds.into_iter().find(|seed| run(&Scenario::of(*seed), Some(bug)).violation.is_some())
}

/// Tells how a seed fails: the broken invariant, the fewest events that break it, the answers, and how to run it again.
pub fn describe(seed: u64, bug: Option<Bug>) -> String {
    let scenario = Scenario::of(seed);
    let Some((_, violation)) = run(&scenario, bug).violation else {
        return format!("seed {seed} breaks no invariant");
    };
    let events = minimize(&scenario, bug, violation.invariant);
    let part = Scenario { setup: scenario.setup, events };
    let outcome = run_logged(&part, bug);
    let mut text = format!(
        "seed {seed} breaks the invariant `{}`: {}\n{:?}, the events that break it:\n",
        violation.invariant, violation.text, part.setup
    );
    for event in &part.events {
        writeln!(text, "  {event:?}").unwrap();
    }
    text.push_str("answers:\n");
    for line in &outcome.log {
        writeln!(text, "  {line}").unwrap();
    }
    if let Some((_, violation)) = &outcome.violation {
        writeln!(text, "  {}: {}", violation.invariant, violation.text).unwrap();
    }
    writeln!(text, "run it again: make simulate SEED={seed}").unwrap();
    text
}
