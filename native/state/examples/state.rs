//! What a store costs: memory and opening time with many tasks, and commits alone and together.
//!
//! `cargo run --release -p authz-state --example state -- [TASKS] [FOLDER]` measures an embedded store and prints one JSON
//! object; `… -- DSN` measures one in PostgreSQL, in tables that must be empty.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark stops where it cannot measure"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use authz_base::principal::Claim;
use authz_base::record::history::SessionHistory;
use authz_base::record::task::{
    AgentName, Limit, Names, NewTask, Param, ScopeEntry, Selector, SubjectProof, Task, TaskKind,
    TaskSubject,
};
use authz_base::record::{Record, RecordKey, RecordKind, Reservation, Session};
use authz_base::tier::Tier;
use authz_base::time::Time;
use authz_state::store::{
    Commit, EmbeddedSettings, EmbeddedStore, PostgresSettings, PostgresStore, Store, Survives,
    Transaction,
};
use serde_json::json;

mod measuring;

use measuring::{id, resident, sink, soon};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// When all of it begins, in milliseconds since 1970.
static NOW: LazyLock<i64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
});

const AGENTS: usize = 100;
const BATCH: usize = 500;
const COMMITS: usize = 2_000;

/// A task like those of the examples: three scope entries, a parameter, a subject.
fn task(number: usize) -> Task {
    let ticket = format!("T-{number}");
    let entry =
        |operation: &str, collection: &str, argument: &str, limit: Limit, uses| ScopeEntry {
            operation: operation.to_owned(),
            resources: Selector {
                collections: Some(BTreeSet::from([collection.to_owned()])),
                ids: (collection == "tickets").then(|| BTreeSet::from([ticket.clone()])),
                ..Selector::default()
            },
            arguments: BTreeMap::from([(argument.to_owned(), limit)]),
            uses,
        };
    let new = NewTask {
        id: id("0193a1b2", number),
        kind: TaskKind::Root,
        template: "answer-ticket".to_owned(),
        template_digest: "3f".repeat(32),
        session: id("0193a1b3", number),
        ancestors: Vec::new(),
        agents: vec![AgentName {
            spiffe_id: format!("spiffe://corp.example/ns/support/sa/bot-{}", number % AGENTS),
            trust_domain: "corp.example".to_owned(),
        }],
        subject: Some(TaskSubject {
            is_service: false,
            issuer: "corp".to_owned(),
            sub: format!("anna-{number}"),
            claims: BTreeMap::from([(
                "groups".to_owned(),
                Claim::Texts(vec!["staff".to_owned(), "berlin".to_owned()]),
            )]),
            acr: "urn:corp:mfa".to_owned(),
        }),
        subject_proof: SubjectProof::Verified,
        starter: format!("corp:anna-{number}"),
        purpose: "customer support".to_owned(),
        params: BTreeMap::from([("ticket".to_owned(), Param::Text(ticket.clone()))]),
        scope: vec![
            entry("crm.ticket.read", "tickets", "/fields", Limit::Prefix("public.".into()), None),
            entry("crm.search", "customers", "/limit", Limit::Range(1, 50), Some(20)),
            entry(
                "gmail.send",
                "mail",
                "/subject",
                Limit::OneOf(BTreeSet::from([format!("Re: {ticket}")])),
                Some(1),
            ),
        ],
        beyond: None,
        tier_cap: Tier::Standard,
        max_depth: 1,
        started_at: Time(*NOW),
        deadline: Time(*NOW + 1_800_000),
        idle_timeout_ms: Some(600_000),
        names: Names {
            user: BTreeSet::from(["00112233445566778899aabbccddeeff".to_owned()]),
            ..Names::default()
        },
    };
    Task { unused: false, ..Task::begin(new) }
}

fn session(number: usize) -> Session {
    Session {
        id: id("0193a1b3", number),
        root: id("0193a1b2", number),
        tasks: 1,
        started_at: Time(*NOW),
        expires_at: Time(*NOW + 86_400_000),
        ended_at: None,
        denied: false,
        agent: None,
        history: SessionHistory::new(),
        rest: BTreeMap::new(),
    }
}

fn transact(
    store: &dyn Store,
    locks: &[RecordKey],
    survives: Survives,
    mut work: impl FnMut(&mut dyn Transaction),
) -> Commit {
    store
        .transact(locks, survives, soon(), &mut |transaction| {
            work(transaction);
            Ok(true)
        })
        .unwrap()
}

fn settle(commit: Commit) {
    if let Commit::Pending(ticket) = commit {
        ticket.wait(soon()).unwrap();
    }
}

fn fill(store: &dyn Store, tasks: usize) {
    for first in (0..tasks).step_by(BATCH) {
        let commit = transact(store, &[], Survives::Crash, |transaction| {
            for number in first..tasks.min(first + BATCH) {
                transaction.put(Record::Session(Arc::new(session(number))));
                transaction.put(Record::Task(Arc::new(task(number))));
            }
        });
        settle(commit);
    }
}

/// What a permit changes: uses of the task, a reservation, an audit line.
fn permit(store: &dyn Store, number: usize, serial: usize, survives: Survives) -> Commit {
    let key = RecordKey::new(RecordKind::Task, id("0193a1b2", number));
    let lock = RecordKey::new(RecordKind::Session, id("0193a1b3", number));
    let decision = id("0193ffff", serial);
    transact(store, &[lock], survives, |transaction| {
        let Some(Record::Task(task)) = transaction.get(&key).unwrap() else { return };
        let mut task = (*task).clone();
        task.uses[1] += 1;
        transaction.put(Record::Reservation(Arc::new(Reservation {
            decision_id: decision.clone(),
            task: task.id.clone(),
            session: task.session.clone(),
            operation: "crm.search".to_owned(),
            charged: vec![(task.id.clone(), 1)],
            enforcer: "envoy".to_owned(),
            permitted_at: Time(*NOW),
            due: Time(*NOW + 60_000),
            arguments_digest: Some("ab".repeat(32)),
            tier: Tier::Standard,
            agent: "spiffe://corp.example/bot".to_owned(),
            ..Reservation::default()
        })));
        transaction.put(Record::Task(Arc::new(task)));
        let line = json!({"decision_id": decision, "timestamp": "2026-11-25T12:00:00.000Z",
            "path": "authz.v1/Check", "result": {"decision": "PERMIT"}, "padding": "x".repeat(500)});
        transaction.audit(line.to_string().into_bytes());
    })
}

fn quantiles(mut times: Vec<f64>) -> serde_json::Value {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[(times.len() - 1) * part / 1000];
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    json!({"mean": mean, "p50": at(500), "p99": at(990)})
}

fn alone(store: &dyn Store, tasks: usize, survives: Survives, serial: usize) -> serde_json::Value {
    let times = (0..COMMITS).map(|number| {
        let from = Instant::now();
        settle(permit(store, number % tasks, serial + number, survives));
        from.elapsed().as_secs_f64() * 1e6
    });
    quantiles(times.collect())
}

/// Many commits in flight, as from many connections. Returns microseconds for each.
fn grouped(store: &dyn Store, tasks: usize, survives: Survives, serial: usize) -> f64 {
    let count = COMMITS * 5;
    let from = Instant::now();
    let mut pending = std::collections::VecDeque::new();
    for number in 0..count {
        pending.push_back(permit(store, number % tasks, serial + number, survives));
        if pending.len() > 256 {
            settle(pending.pop_front().unwrap());
        }
    }
    pending.into_iter().for_each(settle);
    from.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn settings(folder: &Path) -> EmbeddedSettings {
    EmbeddedSettings::new(folder.join("state"))
}

/// In a process of its own, so that nothing that it leaves behind counts.
fn fill_apart(tasks: usize, folder: &Path) {
    let this = std::env::current_exe().unwrap();
    let mut fill = std::process::Command::new(this);
    assert!(fill.args(["fill", &tasks.to_string()]).arg(folder).status().unwrap().success());
}

fn measure(tasks: usize, folder: &Path) -> serde_json::Value {
    fill_apart(tasks, folder);
    let file_bytes = std::fs::metadata(folder.join("state/state.db")).unwrap().len();
    let (audit, to_audit) = sink(folder);
    let before = resident();
    let from = Instant::now();
    let store = EmbeddedStore::open(settings(folder), to_audit).unwrap();
    let open_ms = from.elapsed().as_secs_f64() * 1e3;
    let memory_bytes = resident().saturating_sub(before);
    let key = RecordKey::new(RecordKind::Task, id("0193a1b2", tasks / 2));
    let from = Instant::now();
    for _ in 0..COMMITS {
        assert!(store.peek(&key, soon()).unwrap().is_some());
    }
    let peek_ns = from.elapsed().as_secs_f64() * 1e9 / COMMITS as f64;
    let crash = Survives::Crash;
    let result = json!({
        "engine": "embedded",
        "tasks": tasks,
        "open_ms": open_ms,
        "memory_bytes": memory_bytes,
        "memory_bytes_per_task": memory_bytes / tasks as u64,
        "file_bytes": file_bytes,
        "peek_ns": peek_ns,
        "commit_us": {
            "alone": alone(&store, tasks, crash, 0),
            "alone_power_loss": alone(&store, tasks, Survives::PowerLoss, COMMITS),
            "grouped": grouped(&store, tasks, crash, 10 * COMMITS),
            "grouped_power_loss": grouped(&store, tasks, Survives::PowerLoss, 20 * COMMITS),
        },
    });
    store.close();
    audit.close();
    result
}

/// Commits of several threads, each in a session of its own or all in one. Returns microseconds for each.
fn shared_grouped(store: &dyn Store, threads: usize, is_hot: bool, serial: usize) -> f64 {
    let each = COMMITS / 4;
    let from = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for number in 0..each {
                    let task = if is_hot { 0 } else { thread * 50 + number % 50 };
                    let serial = serial + thread * each + number;
                    settle(permit(store, task, serial, Survives::Crash));
                }
            });
        }
    });
    from.elapsed().as_secs_f64() * 1e6 / (each * threads) as f64
}

fn measure_shared(dsn: &str, folder: &Path) -> serde_json::Value {
    const TASKS: usize = 2_000;
    let (audit, to_audit) = sink(folder);
    let settings = PostgresSettings::new(dsn.to_owned(), "bench".to_owned());
    let store = PostgresStore::open(settings, to_audit).unwrap();
    fill(&store, TASKS);
    let peek = |number: usize| {
        let key = RecordKey::new(RecordKind::Task, id("0193a1b2", number));
        let from = Instant::now();
        assert!(store.peek(&key, soon()).unwrap().is_some());
        from.elapsed().as_secs_f64() * 1e6
    };
    // All that was filled in is announced to this node too, and read anew.
    std::thread::sleep(Duration::from_secs(1));
    let result = json!({
        "engine": "postgresql",
        "tasks": TASKS,
        "peek_us": {
            "first": quantiles((0..TASKS).map(peek).collect()),
            "again": quantiles((0..TASKS).map(peek).collect()),
        },
        "commit_us": {
            "alone": alone(&store, TASKS, Survives::Crash, 0),
            "of_eight_threads": shared_grouped(&store, 8, false, 10 * COMMITS),
            "of_eight_threads_in_one_session": shared_grouped(&store, 8, true, 20 * COMMITS),
        },
    });
    store.close();
    audit.close();
    result
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, tasks, folder] = arguments.as_slice()
        && word == "fill"
    {
        let (_audit, to_audit) = sink(Path::new(folder));
        let store = EmbeddedStore::open(settings(Path::new(folder)), to_audit).unwrap();
        fill(&store, tasks.parse().unwrap());
        store.close();
        return;
    }
    let first = arguments.first().map_or("100000", String::as_str);
    let own = std::env::temp_dir().join(format!("authz-bench-state-{}", std::process::id()));
    let folder = arguments.get(1).map_or_else(|| own.clone(), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    let result = match first.parse() {
        Ok(tasks) => measure(tasks, &folder),
        Err(_) => measure_shared(first, &folder),
    };
    if folder == own {
        std::fs::remove_dir_all(&own).unwrap();
    }
    println!("{result}");
}
