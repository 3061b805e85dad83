//! What sessions that remember cost a store: memory, and the time of recalling one.
//!
//! `cargo run --release -p authz-state --example sessions -- [SESSIONS] [FOLDER]` measures an embedded store and prints one
//! JSON object; `… -- SESSIONS DSN` measures one in PostgreSQL, in tables that must be empty.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark stops where it cannot measure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use authz_base::record::history::{LabelOrigin, Progress, RuleProgress, SessionHistory};
use authz_base::record::{Record, RecordKey, RecordKind, Session};
use authz_base::time::Time;
use authz_state::store::{
    Bounds, Commit, EmbeddedSettings, EmbeddedStore, PostgresSettings, PostgresStore, Store,
    StoreError, Survives,
};
use serde_json::json;

mod measuring;

use measuring::{id, resident, sink, soon};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sessions that one transaction writes.
const BATCH: usize = 500;
/// How long the store may refuse what its disk does not take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sessions that are recalled.
const RECALLS: usize = 20_000;
/// Distance of one recalled from the next, so that each is another: a prime.
const STRIDE: usize = 7_919;
const LABELS: [(&str, &str); 4] = [
    ("pii", "crm.customers.search"),
    ("secret", "vault.secrets.read"),
    ("source-code", "github.get_file_contents"),
    ("untrusted", "gmail.search_messages"),
];
const RULES: [&str; 2] =
    ["no-delete-after-search#0123456789abcdef", "read-before-send#fedcba9876543210"];

fn key(number: usize) -> RecordKey {
    RecordKey::new(RecordKind::Session, id("0193a1b3", number))
}

/// A session that carries four labels, and in which two rules have come one step far.
fn session(number: usize, now: i64) -> Session {
    let at = Time(now);
    let origin = |(label, operation): (&str, &str)| {
        (label.to_owned(), LabelOrigin::new(&id("0193ffff", number), operation, at))
    };
    let progress = |rule: &str| {
        let instances = BTreeMap::from([(String::new(), Progress { step: 1, at })]);
        (rule.to_owned(), RuleProgress { instances, ..RuleProgress::default() })
    };
    Session {
        id: id("0193a1b3", number),
        root: id("0193a1b2", number),
        tasks: 1,
        started_at: at,
        expires_at: Time(now + 86_400_000),
        ended_at: None,
        denied: false,
        agent: None,
        history: SessionHistory {
            latest: Some(at),
            labels: LABELS.into_iter().map(origin).collect::<BTreeMap<_, _>>().into(),
            sources: BTreeSet::from(["customers", "mail"].map(str::to_owned)).into(),
            rules: RULES.into_iter().map(progress).collect(),
            ..SessionHistory::new()
        },
        rest: BTreeMap::new(),
    }
}

fn bounds(sessions: usize) -> Bounds {
    Bounds::default().with(RecordKind::Session, sessions)
}

fn fill(store: &dyn Store, sessions: usize) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    for first in (0..sessions).step_by(BATCH) {
        let write = || {
            store.transact(&[], Survives::Crash, soon(), &mut |transaction| {
                for number in first..sessions.min(first + BATCH) {
                    transaction.put(Record::Session(Arc::new(session(number, now))));
                }
                Ok(true)
            })
        };
        let started = Instant::now();
        let commit = loop {
            match write() {
                // A store takes no more than its disk does, for a while.
                Err(StoreError::Unavailable(_)) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                outcome => break outcome.unwrap(),
            }
        };
        if let Commit::Pending(ticket) = commit {
            ticket.wait(soon()).unwrap();
        }
    }
}

/// Recalls sessions all over the store, each of them once: none of them was used of late. Microseconds for each.
fn recalled(store: &dyn Store, sessions: usize) -> serde_json::Value {
    let count = RECALLS.min(sessions);
    let mut times: Vec<f64> = (0..count)
        .map(|index| {
            let key = key(index * STRIDE % sessions);
            let from = Instant::now();
            let found = store.peek(&key, soon()).unwrap();
            let took = from.elapsed();
            assert!(matches!(found, Some(Record::Session(one)) if one.history.labels.len() == 4));
            took.as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[(times.len() - 1) * part / 1000];
    json!({"p50": at(500), "p99": at(990), "p999": at(999), "most": at(1000)})
}

fn settings(sessions: usize, folder: &Path) -> EmbeddedSettings {
    EmbeddedSettings { bounds: bounds(sessions), ..EmbeddedSettings::new(folder.join("state")) }
}

fn embedded(sessions: usize, folder: &Path) -> serde_json::Value {
    // In a process of its own, so that nothing that it leaves behind counts.
    let mut apart = std::process::Command::new(std::env::current_exe().unwrap());
    assert!(apart.args(["fill", &sessions.to_string()]).arg(folder).status().unwrap().success());
    let file_bytes = std::fs::metadata(folder.join("state/state.db")).unwrap().len();
    let (audit, to_audit) = sink(folder);
    let before = resident();
    let from = Instant::now();
    let store = EmbeddedStore::open(settings(sessions, folder), to_audit).unwrap();
    let open_ms = from.elapsed().as_secs_f64() * 1e3;
    let opened = resident().saturating_sub(before);
    let recall_us = recalled(&store, sessions);
    let result = json!({
        "engine": "embedded",
        "sessions": sessions,
        "open_ms": open_ms,
        "memory_bytes": resident().saturating_sub(before).max(opened),
        "file_bytes": file_bytes,
        "recall_us": recall_us,
    });
    store.close();
    audit.close();
    result
}

fn postgresql(sessions: usize, dsn: &str, folder: &Path) -> serde_json::Value {
    let (audit, to_audit) = sink(folder);
    let settings = PostgresSettings {
        bounds: bounds(sessions),
        ..PostgresSettings::new(dsn.to_owned(), "bench".to_owned())
    };
    let before = resident();
    let store = PostgresStore::open(settings, to_audit).unwrap();
    fill(&store, sessions);
    let recall_us = recalled(&store, sessions);
    let result = json!({
        "engine": "postgresql",
        "sessions": sessions,
        "memory_bytes": resident().saturating_sub(before),
        "recall_us": recall_us,
    });
    store.close();
    audit.close();
    result
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, sessions, folder] = arguments.as_slice()
        && word == "fill"
    {
        let (sessions, folder) = (sessions.parse().unwrap(), Path::new(folder));
        let (_audit, to_audit) = sink(folder);
        let store = EmbeddedStore::open(settings(sessions, folder), to_audit).unwrap();
        fill(&store, sessions);
        store.close();
        return;
    }
    let sessions = arguments.first().map_or(100_000, |text| text.parse().unwrap());
    let second = arguments.get(1);
    let dsn = second.filter(|text| text.contains("://") || text.contains('='));
    let own = std::env::temp_dir().join(format!("authz-bench-sessions-{}", std::process::id()));
    let folder = second.filter(|_| dsn.is_none()).map_or_else(|| own.clone(), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    let result = match dsn {
        Some(dsn) => postgresql(sessions, dsn, &folder),
        None => embedded(sessions, &folder),
    };
    if folder == own {
        std::fs::remove_dir_all(&own).unwrap();
    }
    println!("{result}");
}
