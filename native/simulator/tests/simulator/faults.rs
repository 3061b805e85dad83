//! Kinds of faults, and the number of seeds in which each occurred.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A kind of fault. It is noted when it takes effect, not when it is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    ClockJump,
    RequestLost,
    AnswerLost,
    MessageDoubled,
    MessageReordered,
    CallInterleaved,
    NoticeLost,
    NodeStopped,
    NodeCrashed,
    NodeRevived,
    PowerLost,
    StoreUnavailable,
    StoreSlow,
    StoreFull,
    CommitUnknown,
    AuditFull,
    DiskFull,
    DiskFailed,
    WriteTorn,
}

impl FaultKind {
    pub const ALL: [Self; 19] = [
        Self::ClockJump,
        Self::RequestLost,
        Self::AnswerLost,
        Self::MessageDoubled,
        Self::MessageReordered,
        Self::CallInterleaved,
        Self::NoticeLost,
        Self::NodeStopped,
        Self::NodeCrashed,
        Self::NodeRevived,
        Self::PowerLost,
        Self::StoreUnavailable,
        Self::StoreSlow,
        Self::StoreFull,
        Self::CommitUnknown,
        Self::AuditFull,
        Self::DiskFull,
        Self::DiskFailed,
        Self::WriteTorn,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::ClockJump => "clock of a node jumped",
            Self::RequestLost => "request lost",
            Self::AnswerLost => "answer lost",
            Self::MessageDoubled => "message doubled",
            Self::MessageReordered => "message delivered after later ones",
            Self::CallInterleaved => "call made within another one",
            Self::NoticeLost => "notice of changes lost",
            Self::NodeStopped => "node stopped",
            Self::NodeCrashed => "node stopped within a call",
            Self::NodeRevived => "node revived",
            Self::PowerLost => "power lost",
            Self::StoreUnavailable => "store unavailable",
            Self::StoreSlow => "store slow",
            Self::StoreFull => "store full",
            Self::CommitUnknown => "commit made, its answer lost",
            Self::AuditFull => "audit log full",
            Self::DiskFull => "disk full",
            Self::DiskFailed => "write or sync failed",
            Self::WriteTorn => "write torn",
        }
    }
}

/// Number of seeds in which each kind occurred.
#[derive(Debug, Default)]
pub struct FaultTable {
    seeds: u64,
    by_kind: BTreeMap<FaultKind, u64>,
}

impl FaultTable {
    pub fn add(&mut self, occurred: &BTreeSet<FaultKind>) {
        self.seeds += 1;
        for kind in occurred {
            *self.by_kind.entry(*kind).or_default() += 1;
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.seeds += other.seeds;
        for (kind, count) in &other.by_kind {
            *self.by_kind.entry(*kind).or_default() += count;
        }
    }

    pub const fn seeds(&self) -> u64 {
        self.seeds
    }

    fn count(&self, kind: FaultKind) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or_default()
    }

    /// Kinds that occurred in less than one of twenty seeds.
    pub fn rare(&self) -> Vec<FaultKind> {
        let is_rare = |kind: &FaultKind| self.count(*kind) * 20 < self.seeds;
        FaultKind::ALL.into_iter().filter(is_rare).collect()
    }

    pub fn text(&self) -> String {
        let mut text = String::from("fault                               seeds   share\n");
        for kind in FaultKind::ALL {
            let count = self.count(kind);
            let share = count * 1_000 / self.seeds.max(1);
            let (whole, tenth) = (share / 10, share % 10);
            writeln!(text, "{:<34} {count:>6}  {whole:>3}.{tenth} %", kind.text()).unwrap();
        }
        text
    }
}
