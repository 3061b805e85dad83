//! Sessions that memory does not hold: they are read on no thread that others wait for, and of both lanes so many at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use authz_kernel::task::{Breakglasses, Record, RecordKey, Revocations};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::authorizer_client::AuthorizerClient;
use authz_lane::{Engine, FastLane, Surface, Transport};
use authz_state::store::{
    Commit, EmbeddedSettings, EmbeddedStore, Page, Query, Store, StoreError, StoreHealth, Survives,
    Work,
};
use prost::Message;
use serde_json::json;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::fast::{connect, lane, runtime};
use crate::report::{TEMPLATES, ask, of, report, shop_that, stock};
use crate::support::*;
use crate::tasks::alices;

/// Calls that may wait for the store at once, and reports.
const MOST: usize = 64;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Gate {
    is_open: bool,
    waiting: usize,
    passed: usize,
}

/// A store that holds hardly anything in memory, and whose disk is as slow as a gate lets it be.
#[derive(Debug)]
struct SlowDisk {
    inner: EmbeddedStore,
    gate: Mutex<Gate>,
    changed: Condvar,
    /// It does not say that it may wait, so that its waits hold the threads that answer.
    conceals: AtomicBool,
}

impl SlowDisk {
    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap()
    }

    fn set(&self, is_open: bool) {
        self.lock().is_open = is_open;
        self.changed.notify_all();
    }

    /// Waits until so many wait.
    fn comes(&self, waiting: usize) {
        let missing = |gate: &mut Gate| gate.waiting != waiting;
        let gate = self.changed.wait_timeout_while(self.lock(), PATIENCE, missing).unwrap().0;
        assert_eq!(waiting, gate.waiting);
    }

    fn passed(&self) -> usize {
        self.lock().passed
    }

    fn pass(&self, until: Instant) -> Result<(), StoreError> {
        let mut gate = self.lock();
        gate.waiting += 1;
        self.changed.notify_all();
        let left = until.saturating_duration_since(Instant::now());
        let closed = |gate: &mut Gate| !gate.is_open;
        let mut gate = self.changed.wait_timeout_while(gate, left, closed).unwrap().0;
        gate.waiting -= 1;
        self.changed.notify_all();
        if !gate.is_open {
            return Err(StoreError::Slow);
        }
        gate.passed += 1;
        Ok(())
    }
}

impl Store for SlowDisk {
    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }
    fn may_wait(&self, key: &RecordKey) -> bool {
        !self.conceals.load(Ordering::SeqCst) && self.inner.may_wait(key)
    }
    fn peek(&self, key: &RecordKey, until: Instant) -> Result<Option<Record>, StoreError> {
        if self.inner.may_wait(key) {
            self.pass(until)?;
        }
        self.inner.peek(key, until)
    }
    fn find(&self, query: &Query, page: &Page, until: Instant) -> Result<Vec<Record>, StoreError> {
        self.inner.find(query, page, until)
    }
    fn transact(
        &self,
        locks: &[RecordKey],
        survives: Survives,
        until: Instant,
        work: &mut Work<'_>,
    ) -> Result<Commit, StoreError> {
        if locks.iter().any(|key| self.inner.may_wait(key)) {
            self.pass(until)?;
        }
        self.inner.transact(locks, survives, until, work)
    }
    fn revocations(&self) -> Arc<Revocations> {
        self.inner.revocations()
    }
    fn breakglasses(&self) -> Arc<Breakglasses> {
        self.inner.breakglasses()
    }
    fn staleness(&self) -> Duration {
        self.inner.staleness()
    }
    fn secret(&self) -> [u8; 32] {
        self.inner.secret()
    }
    fn health(&self) -> StoreHealth {
        self.inner.health()
    }
    fn close(&self) {
        self.inner.close();
    }
}

/// A shop whose sessions are on the disk alone: after a restart nothing of them is in memory.
///
/// Args: `began`: starts tasks; what it gives is given back.
fn cold<T>(max_wait: Duration, began: impl FnOnce(&Served) -> T) -> (Served, Arc<SlowDisk>, T) {
    let path = folder().join("state");
    let state = json!({"state": {"engine": "embedded", "path": path}});
    let before = shop_that(&state, TEMPLATES, "sdk");
    let known = began(&before);
    before.engine.close();
    drop(before);
    let on_disk = EmbeddedSettings { resident: 0, ..EmbeddedSettings::new(path) };
    let inner = EmbeddedStore::open(on_disk, Arc::new(|_, _| Ok(None))).unwrap();
    let (gate, changed) = (Mutex::default(), Condvar::new());
    let store = Arc::new(SlowDisk { inner, gate, changed, conceals: AtomicBool::new(false) });
    let audit = folder().join("audit.jsonl");
    let waits = json!({"state": {"max_wait_ms": u64::try_from(max_wait.as_millis()).unwrap()}});
    let engine = Engine::with_store(settings(&audit, &waits), Arc::clone(&store) as _).unwrap();
    let served = Served { engine: Arc::new(engine), audit };
    stock(&served, TEMPLATES, "sdk");
    (served, store, known)
}

/// A task that memory holds, and what is kept of its agent and subject with it.
fn started_warm(served: &Served, store: &SlowDisk) -> String {
    store.set(true);
    let task = alices(served).id;
    store.set(false);
    task
}

/// A lane of one thread.
fn one_thread(served: &Served) -> (FastLane, String) {
    lane(served, json!({"workers": 1}))
}

fn calling(task: &str, call: &str) -> wire::CheckRequest {
    wire::CheckRequest {
        task: task.to_owned(),
        arguments_json: br#"{"n":1}"#.to_vec(),
        ..asking(call)
    }
}

/// Asks where the fast lane asks, too: who asked is who reports.
fn permit(served: &Served, task: &str, call: &str, n: i64) -> String {
    let decision = ask(served, task, "dev", call, &json!({"n": n}));
    assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
    decision.decision_id
}

fn check(channel: &Channel, task: &str, call: &str) -> JoinHandle<wire::Decision> {
    let (mut client, request) = (AuthorizerClient::new(channel.clone()), calling(task, call));
    tokio::spawn(async move { client.check(request).await.unwrap().into_inner().decision.unwrap() })
}

/// Waits for a call that waits for nobody.
async fn at_once<T>(call: JoinHandle<T>) -> T {
    let answered = tokio::time::timeout(PATIENCE / 2, call).await;
    assert!(answered.is_ok(), "another call's wait for the disk holds the thread of the lane");
    answered.unwrap().unwrap()
}

fn overloaded(served: &Served, surface: &str) -> f64 {
    let families = served.engine.metrics();
    let family = families.iter().find(|family| family.name == "authz_decisions").unwrap();
    let labels = [("reason_code", "OVERLOADED"), ("surface", surface), ("decision", "deny")];
    let is_wanted = |seen: &[(&str, String)]| {
        labels.iter().all(|(name, value)| seen.iter().any(|(n, v)| n == name && v == value))
    };
    family.samples.iter().filter(|sample| is_wanted(&sample.labels)).map(|one| one.value).sum()
}

/// Naive way: a node whose threads are stuck is ready, since whoever tells so has a thread of its own. The canaries go the
/// way of the calls.
#[test]
fn stuck_threads_are_not_ready() {
    let (served, store, task) = cold(PATIENCE, |before| alices(before).id);
    let (lane, address) = lane(&served, json!({"workers": 1, "ready_after_ms": 200}));
    let problem = "listener `dev` does not answer in time";
    let is_slow = || served.engine.status().problems.iter().any(|one| one == problem);
    let becomes = |slow: bool| {
        let begun = Instant::now();
        while is_slow() != slow {
            assert!(begun.elapsed() < PATIENCE, "slow: {}", is_slow());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    std::thread::sleep(Duration::from_secs(1));
    assert!(served.engine.status().ready);
    runtime().block_on(async {
        let channel = connect(&address).await;
        store.conceals.store(true, Ordering::SeqCst);
        let call = check(&channel, &task, "shop.move");
        store.comes(1);
        becomes(true);
        assert!(!served.engine.status().ready && !served.engine.is_ready());
        store.set(true);
        at_once(call).await;
        becomes(false);
        assert!(served.engine.status().ready);
    });
    lane.close(Duration::from_secs(1));
}

/// What a session carries counts, wherever it lies: on both lanes, where memory has it, and where only the disk does.
#[test]
fn what_only_the_disk_knows_counts() {
    let (served, store, (plain, looked)) = cold(PATIENCE, |served| {
        let looked = [0, 1].map(|_| alices(served).id);
        for task in &looked {
            ask(served, task, "dev", "shop.find", &json!({}));
        }
        ([0, 1].map(|_| alices(served).id), looked)
    });
    store.set(true);
    let python = |task: &str| code(&ask(&served, task, "dev", "shop.move", &json!({"n": 1})));
    assert_eq!(["PERMITTED", "FORBIDDEN"], [&plain[0], &looked[0]].map(|task| python(task)));
    let (lane, address) = one_thread(&served);
    runtime().block_on(async {
        let channel = connect(&address).await;
        let wanted = [(1, 3, 4), (0, 4, 4)];
        for (at, passed, then) in wanted {
            let plain = at_once(check(&channel, &plain[at], "shop.move")).await;
            assert_eq!("PERMITTED", code(&plain), "{}", plain.message);
            assert_eq!(passed, store.passed(), "read from the disk, and then from memory");
            let looked = at_once(check(&channel, &looked[at], "shop.move")).await;
            assert_eq!("FORBIDDEN", code(&looked));
            assert_eq!(then, store.passed());
        }
    });
    lane.close(PATIENCE);
}

/// While one call waits for the disk, the only thread of the lane answers others, and health.
#[test]
fn others_are_answered_meanwhile() {
    let (served, store, task) = cold(PATIENCE, |served| alices(served).id);
    let warm = started_warm(&served, &store);
    let (lane, address) = one_thread(&served);
    runtime().block_on(async {
        let channel = connect(&address).await;
        let waits = check(&channel, &task, "shop.move");
        store.comes(1);
        for _ in 0..3 {
            let other = at_once(check(&channel, &warm, "shop.move")).await;
            assert_eq!("PERMITTED", code(&other), "{}", other.message);
        }
        assert!(!waits.is_finished());
        // The other lane's caller waits on a thread of its own.
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| ask(&served, &task, "dev", "shop.move", &json!({"n": 1})));
            store.comes(2);
            let other = ask(&served, &warm, "dev", "shop.move", &json!({"n": 1}));
            assert_eq!("PERMITTED", code(&other));
            store.set(true);
            assert_eq!("PERMITTED", code(&waits.join().unwrap()));
        });
        assert_eq!("PERMITTED", code(&at_once(waits).await));
    });
    lane.close(PATIENCE);
}

/// A disk that does not answer in time denies, and nothing was changed.
#[test]
fn a_disk_that_is_too_slow_denies() {
    let (served, store, task) = cold(Duration::from_millis(100), |served| alices(served).id);
    let whole = json!({"n": 100});
    let (lane, address) = one_thread(&served);
    runtime().block_on(async {
        let channel = connect(&address).await;
        let mut client = AuthorizerClient::new(channel);
        let arguments_json = whole.to_string().into_bytes();
        let request = wire::CheckRequest { arguments_json, ..calling(&task, "shop.pay") };
        let fast = client.check(request).await.unwrap().into_inner().decision.unwrap();
        let python = ask(&served, &task, "dev", "shop.pay", &whole);
        for denied in [fast, python] {
            assert_eq!("STORE_SLOW", code(&denied));
            assert_eq!(wire::Outcome::Deny as i32, denied.outcome);
        }
    });
    store.set(true);
    assert_eq!("PERMITTED", code(&ask(&served, &task, "dev", "shop.pay", &whole)));
    lane.close(PATIENCE);
}

/// So many calls of the fast lane wait for the disk at once; one more is denied, and may come again.
#[test]
fn one_call_more_than_may_wait_is_denied() {
    let (served, store, tasks) =
        cold(PATIENCE, |served| Vec::from_iter((0..=MOST).map(|_| alices(served).id)));
    let (lane, address) = one_thread(&served);
    runtime().block_on(async {
        let channel = connect(&address).await;
        let (last, first) = tasks.split_last().unwrap();
        let waiting: Vec<_> = first.iter().map(|task| check(&channel, task, "shop.move")).collect();
        store.comes(MOST);
        let more = at_once(check(&channel, last, "shop.move")).await;
        assert_eq!(("OVERLOADED", wire::Outcome::Deny as i32), (code(&more), more.outcome));
        assert_eq!(1.0, overloaded(&served, "check"));
        store.set(true);
        for call in waiting {
            assert_eq!("PERMITTED", code(&at_once(call).await));
        }
        assert_eq!("PERMITTED", code(&at_once(check(&channel, last, "shop.move")).await));
        assert_eq!(1.0, overloaded(&served, "check"));
    });
    lane.close(PATIENCE);
}

/// So many reports of the fast lane wait at once, and hold up no decision; one more is refused, counted and recorded,
/// settles nothing, and may come again.
#[test]
fn one_report_more_than_may_wait_is_refused() {
    let (served, store, permits) = cold(PATIENCE, |served| {
        let paid = |_| {
            let task = alices(served).id;
            let id = permit(served, &task, "shop.pay", 100);
            (task, id)
        };
        Vec::from_iter((0..=MOST).map(paid))
    });
    let warm = started_warm(&served, &store);
    let ((task, last), first) = permits.split_last().unwrap();
    let (lane, address) = one_thread(&served);
    runtime().block_on(async {
        let channel = connect(&address).await;
        let tell = |id: &str| {
            let told = of(id, wire::ReportResult::Aborted);
            let mut client = AuthorizerClient::new(channel.clone());
            tokio::spawn(async move { client.report(told).await })
        };
        let waiting: Vec<_> = first.iter().map(|(_, id)| tell(id)).collect();
        store.comes(MOST);
        let refused = at_once(tell(last)).await.unwrap_err();
        assert_eq!(tonic::Code::ResourceExhausted, refused.code(), "{refused}");
        assert!(refused.details().windows(10).any(|part| part == b"OVERLOADED"), "{refused:?}");
        assert_eq!(1.0, overloaded(&served, "report"));
        let other = at_once(check(&channel, &warm, "shop.move")).await;
        assert_eq!("PERMITTED", code(&other), "{}", other.message);
        store.set(true);
        for call in waiting {
            at_once(call).await.unwrap();
        }
        // It settled nothing, so its budget is still reserved; and it is told once.
        assert_eq!("BUDGET_EXCEEDED", code(&at_once(check(&channel, task, "shop.pay")).await));
        at_once(tell(last)).await.unwrap();
        assert_eq!("PERMITTED", code(&at_once(check(&channel, task, "shop.pay")).await));
    });
    assert_eq!(Err("NOT_PERMITTED"), report(&served, "dev", &of(last, wire::ReportResult::Ok)));
    lane.close(PATIENCE);
    let records = served.records();
    let refused = records.iter().filter(|record| record["result"]["reason_code"] == "OVERLOADED");
    let paths: Vec<_> = refused.map(|record| &record["path"]).collect();
    assert_eq!(vec!["authz.v1.Authorizer/Report"], paths);
}

/// The other lane's reports wait on threads of their callers, which are bounded elsewhere: all are taken.
#[test]
fn reports_of_the_other_lane_wait_for_their_callers() {
    let (served, store, permits) = cold(PATIENCE, |served| {
        let paid = |_| permit(served, &alices(served).id, "shop.pay", 100);
        Vec::from_iter((0..=MOST).map(paid))
    });
    let told = std::thread::scope(|scope| {
        let tell = |id: &String| {
            let request = of(id, wire::ReportResult::Ok).encode_to_vec();
            let call = || served.engine.call(Surface::Report, &request, &Transport::by("dev"));
            call().map_err(|error| error.reason_code.as_str())
        };
        let threads: Vec<_> = permits.iter().map(|id| scope.spawn(move || tell(id))).collect();
        store.comes(permits.len());
        store.set(true);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let counts = told.into_iter().fold(BTreeMap::new(), |mut all, one| {
        *all.entry(one.map(|answer| answer.len())).or_insert(0) += 1;
        all
    });
    assert_eq!(BTreeMap::from([(Ok(0), permits.len())]), counts);
}
