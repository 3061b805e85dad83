//! What sessions and parties did before, as far as rules ask for it: labels, progress of rules, spent budgets, denials.
//!
//! A history is a value, and what an answer changes in it is another. A server reads the one, judges, and writes the other in
//! the same transaction.

mod carry;
mod context;
mod denials;
mod holder;
mod object;
mod record;
mod settle;
mod shared;

pub use carry::Carry;
pub use context::{Apart, MAX_CONTEXTS, SessionContext};
pub use denials::{BegunBy, Denials, Run, RunChange, RunName};
pub use holder::{
    HistoryView, Holder, Holders, Remembering, pair_digest, pair_keys, pairs_of, party_id,
};
pub use object::{
    DAY_MS, KEPT_MS, Keeping, MAX_KEPT_MS, MAX_OBJECTS, MAX_OBJECTS_IN_ALL, Object, ObjectKeys,
    ObjectLabel, ObjectView, ObjectWrite, ObjectWriter, Shares, count,
};
pub use record::{
    Advance, BudgetUse, HistoryChanges, LabelOrigin, OF_TASK, Progress, Remembered, RuleProgress,
    SessionHistory, Spending, Spent, is_passed_on,
};
pub use settle::{
    Awaited, Carrier, Effects, Enabling, Event, Gathering, LabelEffect, MAX_PENDING, OpenPermit,
    ReportError, Reported, RuleEffect, SpendEffect, effects,
};
pub use shared::Shared;

/// An instance of a rule that stands for every key: one that could not be kept apart any more.
pub const ANY: &str = "*";

/// What one session keeps in all: labels, sources, steps of rules, events of budgets, denials.
pub const MAX_ENTRIES: usize = 4_096;
/// Labels that one session keeps.
pub const MAX_LABELS: usize = 256;
/// Sources that one session keeps.
pub const MAX_SOURCES: usize = 256;

/// Rules of which one session keeps progress.
pub const MAX_RULES: usize = 1_024;
/// Events that the window of one budget holds, of one task or session.
pub const MAX_EVENTS: usize = 256;
/// Tasks whose use of one budget one session tells apart.
pub const MAX_TASKS: usize = 256;
/// Denials of different calls that count of one task.
pub const MAX_MARKS: usize = 64;
/// Tasks of one session whose denials are kept apart, and denials of all of them.
pub const MAX_RUNS: usize = 1_024;
/// Givers of tasks of whom one pair keeps the denials apart; further ones share a run.
pub const MAX_GIVERS: usize = 16;
/// Tasks and keys that the progress of one rule tells apart in one session.
pub const MAX_INSTANCES: usize = 64;

/// How long the bundle may ask that labels are remembered, in milliseconds: a minute to 30 days.
pub const MEMORY_RANGE_MS: std::ops::RangeInclusive<i64> = 60_000..=30 * DAY_MS;

/// How long rules and budgets without a window count in a session that nobody ends, in milliseconds.
pub const UNSTARTED_MS: i64 = 24 * 3_600 * 1_000;
/// What is spent there counts together by this, in milliseconds: up to so much longer.
pub const UNSTARTED_GRAIN_MS: i64 = 3_600 * 1_000;
/// How long the record of an agent, a subject or a pair is kept after it last changed, in milliseconds: as long as a task may live,
/// and as anything in it but labels may count.
pub const PARTY_MS: i64 = 24 * 3_600 * 1_000;

/// How long labels are remembered where the bundle names no time, in milliseconds: 24 hours.
pub const MEMORY_MS: i64 = 24 * 3_600 * 1_000;
