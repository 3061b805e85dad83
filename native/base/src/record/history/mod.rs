//! Histories of sessions and parties, as far as rules read them: labels, progress of rules, spent budgets, denials.
//!
//! A history is a value, and the changes of an answer are another. A server reads the history, judges, and writes the
//! changes in the same transaction.

mod carry;
mod context;
mod denials;
mod holder;
mod object;
mod record;
mod settle;
mod shared;
mod values;

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
pub use values::{
    KnownValues, KnownValuesRecord, MAX_VALUES, NamingWord, ValueFingerprint, ValueMarks,
    ValueTerms,
};

/// Instance of a rule that stands for every key, after the keys could not be kept apart any more.
pub const ANY: &str = "*";

/// Most entries of one session: labels, sources, steps of rules, events of budgets, denials.
pub const MAX_ENTRIES: usize = 4_096;
/// Most labels of one session.
pub const MAX_LABELS: usize = 256;
/// Most sources of one session.
pub const MAX_SOURCES: usize = 256;

/// Most rules of which one session keeps progress.
pub const MAX_RULES: usize = 1_024;
/// Most events in the window of one budget, of one task or session.
pub const MAX_EVENTS: usize = 256;
/// Most tasks whose use of one budget a session keeps apart.
pub const MAX_TASKS: usize = 256;
/// Most denials of different calls that count in one task.
pub const MAX_MARKS: usize = 64;
/// Most tasks of one session whose denials are kept apart, and most denials of all of them.
pub const MAX_RUNS: usize = 1_024;
/// Most givers of tasks whose denials one pair keeps apart; further givers share a run.
pub const MAX_GIVERS: usize = 16;
/// Most tasks and keys that the progress of one rule keeps apart in one session.
pub const MAX_INSTANCES: usize = 64;

/// Times for which a bundle may have labels remembered, in milliseconds: a minute to 30 days.
pub const MEMORY_RANGE_MS: std::ops::RangeInclusive<i64> = 60_000..=30 * DAY_MS;

/// Time for which rules and budgets without a window count in a session without an end, in milliseconds.
pub const UNSTARTED_MS: i64 = 24 * 3_600 * 1_000;
/// Grain of expenses there, in milliseconds: they count up to this much longer.
pub const UNSTARTED_GRAIN_MS: i64 = 3_600 * 1_000;
/// Time for which the record of an agent, a subject or a pair is kept after its last change, in milliseconds: as long as a
/// task may live, and as any part of it except labels may count.
pub const PARTY_MS: i64 = 24 * 3_600 * 1_000;

/// Default time for which labels are remembered, in milliseconds: 24 hours.
pub const MEMORY_MS: i64 = 24 * 3_600 * 1_000;
