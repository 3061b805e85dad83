//! Uses of standing exceptions.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use authz_base::poison::IgnorePoison as _;

/// Exceptions of all bundles served since the start; uses of later ones are not counted.
const MAX_EXCEPTIONS: usize = 10_000;

/// Uses of exceptions since the start, by name.
#[derive(Debug, Default)]
pub(crate) struct ExceptionUses(RwLock<BTreeMap<String, UseCounter>>);

#[derive(Debug, Default)]
struct UseCounter {
    uses: AtomicU64,
    last_ms: AtomicI64,
}

/// Uses of one exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UseCount {
    /// Calls that were permitted because of the exception, or were let through.
    pub(crate) uses: u64,
    /// Time of the last of them, in milliseconds since 1970. `None`: there was none.
    pub(crate) last_ms: Option<i64>,
}

impl UseCounter {
    fn add(&self, now_ms: i64) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.last_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    fn load(&self) -> UseCount {
        let uses = self.uses.load(Ordering::Relaxed);
        UseCount { uses, last_ms: (uses > 0).then(|| self.last_ms.load(Ordering::Relaxed)) }
    }
}

impl ExceptionUses {
    /// Counts a use of each exception.
    pub(crate) fn used(&self, names: &[String], now_ms: i64) {
        for name in names {
            if let Some(counter) = self.0.read().ignore_poison().get(name) {
                counter.add(now_ms);
                continue;
            }
            let mut counters = self.0.write().ignore_poison();
            if counters.len() < MAX_EXCEPTIONS || counters.contains_key(name) {
                counters.entry(name.clone()).or_default().add(now_ms);
            }
        }
    }

    /// Uses of one exception.
    pub(crate) fn of(&self, name: &str) -> UseCount {
        self.0.read().ignore_poison().get(name).map(UseCounter::load).unwrap_or_default()
    }

    /// Uses of the exceptions that were used, and of those that the bundle declares.
    pub(super) fn all<'a>(&self, declared: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
        let counters = self.0.read().ignore_poison();
        let mut uses: BTreeMap<String, u64> = declared.map(|name| (name.to_owned(), 0)).collect();
        uses.extend(counters.iter().map(|(name, counter)| (name.clone(), counter.load().uses)));
        uses
    }
}
