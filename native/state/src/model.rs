//! What threads may do to each other around the ticket, the key locks and the embedded store, in orders that shuttle chooses.
//!
//! Small models run in every order of their steps, others in random ones. A wake that is missing is a deadlock, which shuttle
//! reports with the order that leads to it; `shuttle::replay` runs that order again. `MODEL_RUNS` is how many random orders
//! of each model are tried, `SHUTTLE_RANDOM_SEED` which.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::future::Future as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use authz_base::record::Session;
use authz_base::record::history::SessionHistory;
use authz_base::record::{Record, RecordKey, RecordKind};
use authz_base::time::Time;
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use crate::store::locks::KeyLocks;
use crate::store::{
    AuditSink, Commit, EmbeddedSettings, EmbeddedStore, Store, StoreError, Survives, Transaction,
};
use crate::sync::{self, FOREVER, now};
use crate::ticket::AuditError;
use crate::ticket::pair;

/// Most orders that a model of every order is expected to have.
const MANY: usize = 2_000_000;
/// Points at which the PCT scheduler lets another thread go first.
const CHANGES: usize = 3;
/// SQLite runs on a thread's stack.
const STACK: usize = 2 << 20;

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.silence_warnings = true;
    config
}

/// Runs a model in every order of its steps.
fn in_every_order(model: impl Fn() + Send + Sync + 'static) {
    let runs = Runner::new(DfsScheduler::new(Some(MANY), false), config()).run(model);
    assert!(runs > 1 && runs < MANY, "{runs} orders are not all");
}

/// Runs a model in `runs` random orders, or as many as `MODEL_RUNS` says; half of them differ in few places only, which finds
/// what needs a certain order of a few steps.
fn in_random_orders(runs: usize, model: impl Fn() + Send + Sync + 'static) {
    let asked = std::env::var("MODEL_RUNS").ok().filter(|runs| !runs.is_empty());
    let runs = asked.map_or(runs, |runs| runs.parse().unwrap());
    let model = Arc::new(model);
    let again = Arc::clone(&model);
    Runner::new(RandomScheduler::new_from_seed(1, runs.div_ceil(2)), config()).run(move || again());
    Runner::new(PctScheduler::new_from_seed(1, CHANGES, runs.div_ceil(2)), config())
        .run(move || model());
}

/// A deadline that never passes.
fn never() -> Instant {
    now().checked_add(FOREVER * 24).unwrap()
}

/// A deadline that passes at any moment.
fn shortly() -> Instant {
    now().checked_add(Duration::from_millis(1)).unwrap()
}

fn thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> sync::JoinHandle<T> {
    sync::spawn("model", body).unwrap()
}

mod tickets {
    use super::*;

    const OUTCOMES: [Option<Result<(), AuditError>>; 3] =
        [Some(Ok(())), Some(Err(AuditError::Full)), None];

    /// A promise that another thread settles so, or gives up.
    fn promised(
        outcome: Option<Result<(), AuditError>>,
    ) -> (crate::ticket::Ticket, Result<(), AuditError>, sync::JoinHandle<()>) {
        let (settle, ticket) = pair();
        let writer = thread(move || match outcome {
            Some(outcome) => settle.settle(outcome),
            None => drop(settle),
        });
        (ticket, outcome.unwrap_or(Err(AuditError::Failed)), writer)
    }

    #[test]
    fn a_thread_that_waits_hears_the_outcome() {
        for outcome in OUTCOMES {
            in_every_order(move || {
                let (ticket, expected, writer) = promised(outcome);
                assert_eq!(expected, ticket.wait(never()));
                writer.join().unwrap();
            });
        }
    }

    #[test]
    fn a_thread_that_does_not_wait_for_long_hears_the_outcome_or_that_it_is_late() {
        for outcome in OUTCOMES {
            let (heard, late) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let counts = (Arc::clone(&heard), Arc::clone(&late));
            in_every_order(move || {
                let (ticket, expected, writer) = promised(outcome);
                let waited = ticket.wait(shortly());
                if waited == Err(AuditError::Late) {
                    late.fetch_add(1, Ordering::Relaxed);
                } else {
                    assert_eq!(expected, waited);
                    heard.fetch_add(1, Ordering::Relaxed);
                }
                writer.join().unwrap();
            });
            let counts = (counts.0.load(Ordering::Relaxed), counts.1.load(Ordering::Relaxed));
            assert!(counts.0 > 0 && counts.1 > 0, "only one of both happens: {counts:?}");
        }
    }

    #[test]
    fn a_task_that_waits_hears_the_outcome() {
        for outcome in OUTCOMES {
            in_every_order(move || {
                let (ticket, expected, writer) = promised(outcome);
                assert_eq!(expected, shuttle::future::block_on(ticket));
                writer.join().unwrap();
            });
        }
    }

    /// A ticket that one task polled and another one awaits wakes the one that polled last.
    #[test]
    fn a_ticket_that_changes_hands_wakes_its_last_holder() {
        in_every_order(|| {
            let (mut ticket, expected, writer) = promised(Some(Ok(())));
            let mut context = Context::from_waker(Waker::noop());
            match Pin::new(&mut ticket).poll(&mut context) {
                Poll::Ready(outcome) => assert_eq!(expected, outcome),
                Poll::Pending => assert_eq!(expected, shuttle::future::block_on(ticket)),
            }
            writer.join().unwrap();
        });
    }
}

mod locks {
    use super::*;

    fn keys(names: &[&str]) -> Vec<RecordKey> {
        names.iter().map(|name| RecordKey::new(RecordKind::Session, *name)).collect()
    }

    /// Says who is inside; two at a time are an error.
    #[derive(Default)]
    struct Inside(BTreeMap<&'static str, AtomicBool>);

    impl Inside {
        fn of(names: &[&'static str]) -> Arc<Self> {
            Arc::new(Self(names.iter().map(|name| (*name, AtomicBool::new(false))).collect()))
        }

        fn visit(&self, names: &[&str]) {
            let all = || names.iter().map(|name| self.0.get(name).unwrap());
            assert!(all().all(|inside| !inside.swap(true, Ordering::SeqCst)), "two hold one key");
            shuttle::thread::yield_now();
            all().for_each(|inside| inside.store(false, Ordering::SeqCst));
        }
    }

    #[test]
    fn two_threads_of_one_key() {
        in_random_orders(10_000, || {
            let (locks, inside) = (KeyLocks::<()>::new(), Inside::of(&["a"]));
            let (of_other, locks_of_other) = (Arc::clone(&inside), Arc::clone(&locks));
            let other = thread(move || {
                let _held = locks_of_other.acquire(&keys(&["a"]), never()).unwrap();
                of_other.visit(&["a"]);
            });
            let held = locks.acquire(&keys(&["a"]), never()).unwrap();
            inside.visit(&["a"]);
            drop(held);
            other.join().unwrap();
        });
    }

    /// Every thread gets its keys, no two threads hold one key, and a thread that gives up blocks no other.
    #[test]
    fn threads_of_several_keys() {
        in_random_orders(20_000, || {
            let all = ["a", "b", "c"];
            let (locks, inside) = (KeyLocks::<()>::new(), Inside::of(&all));
            let of = |names: &'static [&'static str], is_patient: bool| {
                let (locks, inside) = (Arc::clone(&locks), Arc::clone(&inside));
                thread(move || {
                    for _ in 0..2 {
                        let deadline = if is_patient { never() } else { shortly() };
                        match locks.acquire(&keys(names), deadline) {
                            Ok(held) => {
                                inside.visit(names);
                                drop(held);
                            }
                            Err(why) => {
                                assert!(!is_patient && why == StoreError::Slow, "{why:?}");
                            }
                        }
                    }
                })
            };
            let threads = [
                of(&["a", "b"], true),
                of(&["b", "c"], true),
                of(&["c", "a"], false),
                of(&["b"], true),
            ];
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(locks.acquire(&keys(&all), shortly()).is_ok(), "a key is held by nobody");
        });
    }

    /// One who gives up makes way for one behind it, who waits for a key that nobody holds.
    #[test]
    fn one_who_gives_up_makes_way() {
        in_random_orders(20_000, || {
            let locks = KeyLocks::<()>::new();
            let held = locks.acquire(&keys(&["a"]), never()).unwrap();
            let of = |names: &'static [&'static str], deadline| {
                let locks = Arc::clone(&locks);
                thread(move || locks.acquire(&keys(names), deadline).map(drop))
            };
            let (first, behind) = (of(&["a", "b"], shortly()), of(&["b"], never()));
            assert_eq!(Ok(()), behind.join().unwrap());
            assert_eq!(Err(StoreError::Slow), first.join().unwrap());
            drop(held);
        });
    }

    /// What is handed on with keys comes to exactly one, or back to the one who wanted to hand it on.
    #[test]
    fn what_is_handed_on_is_had_once() {
        let handed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&handed);
        in_random_orders(20_000, move || {
            let locks = KeyLocks::<u32>::new();
            let (held, nothing) = locks.acquire(&keys(&["a"]), never()).unwrap();
            assert_eq!(None, nothing);
            let had = Arc::new(Mutex::new(Vec::new()));
            let of = |names: &'static [&'static str], deadline| {
                let (locks, had) = (Arc::clone(&locks), Arc::clone(&had));
                thread(move || {
                    if let Ok((_held, Some(unfinished))) = locks.acquire(&keys(names), deadline) {
                        assert_eq!(["a"], names, "handed to one who wants other keys");
                        had.lock().unwrap().push(unfinished);
                    }
                })
            };
            let threads = [of(&["a"], shortly()), of(&["a", "b"], never()), of(&["a"], never())];
            shuttle::thread::yield_now();
            match held.hand_on(7) {
                Ok(()) => _ = handed.fetch_add(1, Ordering::Relaxed),
                Err((held, unfinished)) => {
                    had.lock().unwrap().push(unfinished);
                    drop(held);
                }
            }
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!([7], *had.lock().unwrap().as_slice(), "lost, or had twice");
        });
        assert!(counted.load(Ordering::Relaxed) > 0, "nothing is ever handed on");
    }
}

mod embedded {
    use super::*;

    /// Pages of its file: so many that a line of [`TOO_LARGE`] bytes does not fit into the journal.
    const MAX_PAGES: u32 = 60;
    const TOO_LARGE: usize = 600_000;

    /// A folder of its own, in memory where the system has such a place.
    fn folder() -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = root.join(format!("authz-model-{}-{number}", std::process::id()));
        drop(std::fs::remove_dir_all(&folder));
        folder
    }

    /// The lines that reached the audit file.
    type Lines = Arc<Mutex<Vec<Vec<u8>>>>;

    fn open(folder: &Path, lines: &Lines) -> EmbeddedStore {
        let mut settings = EmbeddedSettings::new(folder.to_owned());
        settings.max_pages = Some(MAX_PAGES);
        settings.checkpoint_interval = Duration::from_millis(1);
        settings.retry_interval = Duration::from_millis(1);
        let lines = Arc::clone(lines);
        let sink: AuditSink = Arc::new(move |line, _| {
            lines.lock().unwrap().push(line.to_vec());
            Ok(None)
        });
        EmbeddedStore::open(settings, sink).unwrap()
    }

    fn key() -> RecordKey {
        RecordKey::new(RecordKind::Session, "counted")
    }

    fn session(calls: u64) -> Record {
        let mut history = SessionHistory::new();
        history.calls = calls;
        Record::Session(Arc::new(Session {
            id: "counted".to_owned(),
            root: "root".to_owned(),
            tasks: 1,
            started_at: Time(0),
            expires_at: Time(86_400_000),
            ended_at: None,
            denied: false,
            agent: None,
            history,
            rest: BTreeMap::new(),
        }))
    }

    fn calls(record: Option<Record>) -> u64 {
        match record {
            Some(Record::Session(session)) => session.history.calls,
            None => 0,
            Some(other) => panic!("{other:?}"),
        }
    }

    /// Commits, and waits until that is durable.
    fn transact(
        store: &EmbeddedStore,
        work: &mut dyn FnMut(&mut dyn Transaction) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        match store.transact(&[key()], Survives::Crash, never(), work)? {
            Commit::Done => Ok(()),
            Commit::Pending(ticket) => {
                ticket.wait(never()).map_err(|error| StoreError::unavailable(error.to_string()))
            }
        }
    }

    /// Counts one up, with an audit line of the number.
    fn count(store: &EmbeddedStore) -> Result<u64, StoreError> {
        let mut next = 0;
        transact(store, &mut |transaction| {
            next = calls(transaction.get(&key())?) + 1;
            transaction.put(session(next));
            transaction.audit(next.to_string().into_bytes());
            Ok(true)
        })?;
        Ok(next)
    }

    /// Reads the count, once it is durable.
    fn read(store: &EmbeddedStore) -> Result<u64, StoreError> {
        let mut read = 0;
        transact(store, &mut |transaction| {
            read = calls(transaction.get(&key())?);
            Ok(true)
        })?;
        Ok(read)
    }

    /// What is answered is in memory, on the disk and in the audit file; what is not is in none of them.
    fn check(store: &EmbeddedStore, folder: &Path, lines: &Lines, mut answered: Vec<u64>) {
        answered.sort_unstable();
        let count = answered.len() as u64;
        assert_eq!((1..=count).collect::<Vec<_>>(), answered, "numbers are answered once");
        assert_eq!(count, calls(store.peek(&key(), never()).unwrap()), "memory");
        store.close();
        let again = open(folder, lines);
        assert_eq!(count, calls(again.peek(&key(), never()).unwrap()), "disk");
        again.close();
        let mut audited: Vec<u64> = lines
            .lock()
            .unwrap()
            .iter()
            .map(|line| String::from_utf8_lossy(line).parse().unwrap())
            .collect();
        audited.sort_unstable();
        audited.dedup();
        assert_eq!(answered, audited, "audit file");
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Threads commit beside each other, some of which write for others, while the writer's thread and checkpoints run.
    #[test]
    fn everything_that_is_answered_is_kept() {
        in_random_orders(1_500, || {
            let (folder, lines) = (folder(), Lines::default());
            let store = Arc::new(open(&folder, &lines));
            let counting = || {
                let store = Arc::clone(&store);
                thread(move || vec![count(&store).unwrap(), count(&store).unwrap()])
            };
            let reading = {
                let store = Arc::clone(&store);
                thread(move || read(&store).unwrap())
            };
            let threads = [counting(), counting()];
            let answered: Vec<u64> =
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            assert_eq!(4, answered.len());
            assert!(reading.join().unwrap() <= 4);
            check(&store, &folder, &lines, answered);
        });
    }

    /// The disk fails beside threads that commit: what waits is undone, and nobody who read it is answered.
    #[test]
    fn everything_that_fails_is_undone() {
        let refused = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&refused);
        in_random_orders(1_500, move || {
            let (folder, lines) = (folder(), Lines::default());
            let store = Arc::new(open(&folder, &lines));
            let counting = || {
                let store = Arc::clone(&store);
                thread(move || [count(&store), count(&store)])
            };
            let reading = {
                let store = Arc::clone(&store);
                thread(move || [read(&store), read(&store)])
            };
            let failing = {
                let store = Arc::clone(&store);
                thread(move || {
                    transact(&store, &mut |transaction| {
                        transaction.audit(vec![b'x'; TOO_LARGE]);
                        Ok(true)
                    })
                })
            };
            let threads = [counting(), counting()];
            let outcomes: Vec<_> =
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            refused.fetch_add(failed, Ordering::Relaxed);
            let answered: Vec<u64> = outcomes.into_iter().filter_map(Result::ok).collect();
            let count = answered.len() as u64;
            for read in reading.join().unwrap().into_iter().flatten() {
                assert!(read <= count, "{read} was read of {count}");
            }
            assert!(failing.join().unwrap().is_err(), "the journal took a line that is too large");
            check(&store, &folder, &lines, answered);
        });
        assert!(counted.load(Ordering::Relaxed) > 0, "the failure hits nobody else");
    }

    /// A store that is closed beside threads that commit keeps what it answers, and leaves no ticket unsettled.
    #[test]
    fn a_store_that_is_closed_answers_everybody() {
        in_random_orders(1_000, || {
            let (folder, lines) = (folder(), Lines::default());
            let store = Arc::new(open(&folder, &lines));
            let counting = || {
                let store = Arc::clone(&store);
                thread(move || [count(&store), count(&store)])
            };
            let threads = [counting(), counting()];
            shuttle::thread::yield_now();
            store.close();
            let outcomes = threads.into_iter().flat_map(|thread| thread.join().unwrap());
            let answered: u64 = outcomes.filter_map(Result::ok).map(|_| 1).sum();
            let again = open(&folder, &lines);
            assert_eq!(answered, calls(again.peek(&key(), never()).unwrap()), "disk");
            again.close();
            std::fs::remove_dir_all(&folder).unwrap();
        });
    }
}
