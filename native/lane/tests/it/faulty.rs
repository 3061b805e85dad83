//! A store that fails as it is told, and calls that are refused for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authz_kernel::task::{Breakglasses, Credential, Record, RecordKey, Revocations};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Clock, Engine, EngineParts, Surface, SystemClock, World};
use authz_state::store::{
    Commit, MemoryStore, Page, Query, Store, StoreError, StoreHealth, Survives, Work,
};
use authz_state::{AuditError, MemoryAudit, Ticket, TimeSource};
use authz_token::mint::{Key, proof};
use serde_json::{Value, json};

use crate::credentials::{Issuing, issue_of, issuing};
use crate::shadow::{causes, results};
use crate::support::*;
use crate::tasks::{
    REQUIRED, TWO, agent, alices, call, delegate, delegating, deleting, end, get, searching, start,
    starting, world_of,
};

const ISSUER: &str = "https://authz.example";

/// Failure of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Unavailable,
    Slow,
    Full,
    Panic,
    /// The change is made, and does not become durable.
    LostCommit,
    /// The view of revocations becomes too old while the transaction waits for its locks.
    Stale,
    /// Reading the requests for break-glass panics.
    BreakglassPanic,
}

/// A store that fails as it is told.
#[derive(Debug)]
struct Faulty {
    inner: MemoryStore,
    fault: Mutex<Fault>,
    staleness: Mutex<Duration>,
}

impl Faulty {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new([7; 32]),
            fault: Mutex::new(Fault::None),
            staleness: Mutex::new(Duration::ZERO),
        })
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
        self.set_staleness(Duration::ZERO);
    }

    fn set_staleness(&self, staleness: Duration) {
        *self.staleness.lock().unwrap() = staleness;
    }

    fn serve(self: &Arc<Self>, world: World) -> Served {
        let audit = folder().join("audit.jsonl");
        let settings = settings(&audit, &json!({}));
        let engine = Engine::with_store(settings, Arc::clone(self) as _).unwrap();
        engine.load(world).unwrap();
        Served { engine: Arc::new(engine), audit }
    }

    /// An engine that issues credentials.
    fn issue(self: &Arc<Self>, credentials: &Value) -> Issuing {
        let served = self.serve(world_of(REQUIRED));
        let made = Issuing { served, store: Arc::clone(self) as _ };
        made.load(REQUIRED, credentials);
        made
    }
}

impl Store for Faulty {
    fn is_remote(&self) -> bool {
        false
    }
    fn may_wait(&self, key: &RecordKey) -> bool {
        self.inner.may_wait(key)
    }
    fn peek(&self, key: &RecordKey, until: Instant) -> Result<Option<Record>, StoreError> {
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
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::None | Fault::LostCommit | Fault::BreakglassPanic => {}
            Fault::Unavailable => return Err(StoreError::unavailable("told to")),
            Fault::Slow => return Err(StoreError::Slow),
            Fault::Full => return Err(StoreError::Full("told to".to_owned())),
            Fault::Panic => panic!("told to"),
            Fault::Stale => self.set_staleness(Duration::from_secs(5)),
        }
        let commit = self.inner.transact(locks, survives, until, work)?;
        match fault {
            Fault::LostCommit => Ok(Commit::Pending(Ticket::settled(Err(AuditError::Failed)))),
            _ => Ok(commit),
        }
    }
    fn revocations(&self) -> Arc<Revocations> {
        self.inner.revocations()
    }
    fn breakglasses(&self) -> Arc<Breakglasses> {
        let fault = *self.fault.lock().unwrap();
        assert_ne!(Fault::BreakglassPanic, fault, "told to");
        self.inner.breakglasses()
    }
    fn staleness(&self) -> Duration {
        *self.staleness.lock().unwrap()
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

/// Every failure of the store denies with its own code, changes nothing, and ends with the failure. A call that reads no state
/// is answered meanwhile, unless revocations may have been missed.
#[test]
fn store_failures() {
    let store = Faulty::new();
    let served = store.serve(world_of(REQUIRED));
    let task = alices(&served);
    let delete = || served.check(&deleting(&task.id, BOT, "7"));
    for (fault, expected) in [
        (Fault::Unavailable, "STATE_UNAVAILABLE"),
        (Fault::Slow, "STORE_SLOW"),
        (Fault::Full, "OVERLOADED"),
        (Fault::Panic, "UNAVAILABLE"),
    ] {
        store.set(fault);
        for _ in 0..3 {
            let decision = delete();
            assert_eq!(wire::Outcome::Deny as i32, decision.outcome);
            if fault == Fault::Panic {
                assert_eq!(wire::PublicCode::Unavailable as i32, decision.public_code);
            } else {
                assert_eq!(expected, code(&decision));
            }
        }
        assert_eq!(Err(expected), start(&served, &starting(vec![agent(BOT)])).map(drop));
        let by = vec![agent(BOT)];
        assert_eq!(Err(expected), end(&served, &task.id, by, wire::TaskStatus::Completed));
        assert_eq!(
            "PERMITTED",
            code(&served.check(&searching(&task.id, BOT))),
            "it reads no state"
        );
    }
    store.set(Fault::None);
    store.set_staleness(Duration::from_secs(5));
    for request in [searching(&task.id, BOT), deleting(&task.id, BOT, "7")] {
        assert_eq!("STATE_UNAVAILABLE", code(&served.check(&request)));
    }
    assert!(!served.engine.is_ready() && !served.engine.status().ready);
    store.set_staleness(Duration::ZERO);
    assert!(served.engine.is_ready());
    assert_eq!(
        ["PERMITTED", "PERMITTED", "USES_EXHAUSTED"],
        [delete(), delete(), delete()].each_ref().map(code)
    );
}

/// A shadow decision that panics changes neither the answer nor its record, and counts as failed. Only the shadow bundle reads
/// exceptions here, so that only its decision meets the fault.
#[test]
fn a_shadow_decision_that_panics_changes_no_answer() {
    let emergency =
        "@id(\"emergency\") forbid(principal, action == Action::\"crm.search\", resource)
        unless { context.exception.contains(Exception::\"breakglass\") };";
    let shadow = plan(&[("policies/shadow.cedar", emergency)]);
    let store = Faulty::new();
    let served = store.serve(World { shadow: Some(shadow), ..world() });
    let plain = Faulty::new().serve(world());
    store.set(Fault::BreakglassPanic);
    let expected = plain.check(&search());
    let mut decision = served.check(&search());
    decision.decision_id.clone_from(&expected.decision_id);
    decision.decided_at = expected.decided_at;
    assert_eq!(expected, decision);
    assert_eq!("PERMITTED", code(&decision));
    // The status reads requests for break-glass, too.
    store.set(Fault::None);
    assert_eq!(BTreeMap::from([("not_compared", 1)]), results(&served));
    assert_eq!(vec![("failed".to_owned(), 1.0)], causes(&served));
    let status = served.engine.status();
    assert!(status.panics == 0 && status.ready, "no served decision panicked");
    // Without the fault, the shadow bundle answers.
    assert_eq!("PERMITTED", code(&served.check(&search())));
    assert_eq!(Some(&1), results(&served).get("newly_denied"));
    let shadows: Vec<Value> = served
        .records()
        .iter()
        .map(|record| record["result"]["shadow"]["outcome"].clone())
        .collect();
    assert_eq!([Value::Null, json!("DENY")], shadows.as_slice());
}

/// A call that only reads is answered once the use of its proof is durable: after a crash, nobody may bring the proof again.
#[test]
fn a_read_waits_for_its_proof() {
    let store = Faulty::new();
    let world = World { credentials: Some(issuing(&json!({}))), ..world_of(REQUIRED) };
    let served = store.serve(world);
    let task = alices(&served);
    let key = Key::es256("");
    let token = svid_of(&json!({"cnf": {"jkt": key.thumbprint()}}));
    let shown = |method: &str| {
        let uri = format!("{ISSUER}/authz.v1.Tasks/{method}");
        let claims = proof("POST", &uri, now(), &uuid::Uuid::now_v7().to_string(), Some(&token));
        vec![wire::Evidence {
            scheme: wire::EvidenceScheme::Dpop as i32,
            proof: key.sign_proof(&claims.to_string()),
            ..evidence(wire::EvidenceRole::Agent, token.clone())
        }]
    };
    let list = |by: Vec<wire::Evidence>| {
        let request = wire::TasksListRequest { evidence: by, ..Default::default() };
        let answer = call::<wire::TasksListResponse>(&served, Surface::TaskList, &request);
        answer.map(|answer| answer.tasks.len())
    };
    let read = |by: Vec<wire::Evidence>| get(&served, &task.id, by).map(|read| read.id);
    assert_eq!((Ok(task.id.clone()), Ok(1)), (read(shown("Get")), list(shown("List"))));
    store.set(Fault::LostCommit);
    let lost = "STATE_UNAVAILABLE";
    assert_eq!((Err(lost), Err(lost)), (read(shown("Get")), list(shown("List"))));
    store.set(Fault::None);
    let again = shown("Get");
    assert_eq!(Ok(task.id.clone()), read(again.clone()));
    assert_eq!(Err("REPLAYED"), read(again));
}

/// An agent reads the parameters of a given task only once its use of the task is durable: after a crash, it could decline the
/// task, and nothing that it read would count.
#[test]
fn a_read_waits_for_the_use_of_the_task() {
    let store = Faulty::new();
    let served = store.serve(world_of(REQUIRED));
    let root = alices(&served);
    let read = |task: &wire::Task| get(&served, &task.id, vec![agent(TWO)]);
    let [given, lost] = [(); 2].map(|()| delegate(&served, &delegating(&root, BOT, TWO)).unwrap());
    assert!(given.params.is_some());
    assert_eq!(given.params, read(&given).unwrap().params);
    store.set(Fault::LostCommit);
    assert_eq!(Err("STATE_UNAVAILABLE"), read(&lost).map(drop));
}

/// A token is called active, and a lease live, by no view of revocations that became too old while the call waited.
#[test]
fn a_stale_view_activates_nothing() {
    let store = Faulty::new();
    let issuing = store.issue(&json!({}));
    let task = alices(&issuing.served);
    let (token, _) = issuing.token(&task.id, BOT);
    assert!(issuing.is_active(&token, BOT));
    let introspect = || {
        let request = wire::IntrospectRequest { evidence: vec![agent(BOT)], token: token.clone() };
        let request = prost::Message::encode_to_vec(&request);
        issuing
            .ask(Surface::CredentialIntrospect, "dev", request)
            .map(|told| told["active"].clone())
    };
    store.set(Fault::Stale);
    assert_eq!(Err("STATE_UNAVAILABLE"), introspect());
    store.set(Fault::None);
    assert_eq!(Ok(json!(true)), introspect());

    let store = Faulty::new();
    let issuing = store.issue(&json!({"leases": {"crm": "warehouse"}}));
    let task = alices(&issuing.served);
    let permit = issuing.permit(deleting(&task.id, BOT, "7"));
    let mut lease = issuing.issue(&issue_of(&permit, BOT)).unwrap()["lease"].clone();
    lease["state"] = json!("live");
    let put = || {
        let before = json!({"state": "wanted", "attempts": 0}).to_string();
        issuing.served.engine.put_lease(lease.to_string().as_bytes(), before.as_bytes())
    };
    store.set(Fault::Stale);
    assert!(put().unwrap_err().to_string().contains("revocation_staleness"));
    store.set(Fault::None);
    assert!(put().unwrap());
}

/// An enforcer learns nothing of a credential that names no operation: it may ask about none of it.
#[test]
fn a_credential_of_no_operation_is_no_enforcers() {
    let store = Faulty::new();
    let issuing = store.issue(&json!({}));
    let task = alices(&issuing.served);
    let (token, claims) = issuing.token(&task.id, BOT);
    let by_enforcer = |name: &str| issuing.known(name, &token, Vec::new())["active"] == true;
    assert_eq!((true, false), (by_enforcer("crm"), by_enforcer("wiki")));
    let kept = issuing.credential(claims["jti"].as_str().unwrap());
    let empty = Credential { details: Vec::new(), ..Credential::clone(&kept) };
    issuing.put(Record::Credential(Arc::new(empty)));
    assert_eq!((false, false), (by_enforcer("crm"), by_enforcer("wiki")));
    assert!(issuing.is_active(&token, BOT), "its agent learns it");
}

/// A clock that is set before 1970.
#[derive(Debug)]
struct UnsetClock;

impl TimeSource for UnsetClock {
    fn since_1970(&self) -> Duration {
        Duration::ZERO
    }
    fn monotonic(&self) -> Instant {
        SystemClock.monotonic()
    }
}

impl Clock for UnsetClock {
    fn sleep(&self, time: Duration) {
        SystemClock.sleep(time);
    }
    fn new_id(&self) -> String {
        SystemClock.new_id()
    }
    fn random(&self) -> Option<u64> {
        SystemClock.random()
    }
}

/// Where the clock is set before 1970, no credential would ever be over: nothing is answered.
#[test]
fn a_clock_before_1970_permits_nothing() {
    let audit = folder().join("audit.jsonl");
    let parts = EngineParts {
        store: Faulty::new() as _,
        audit: Arc::new(MemoryAudit::new(1 << 20)),
        clock: Arc::new(UnsetClock),
    };
    let engine = Engine::with_parts(settings(&audit, &json!({})), parts).unwrap();
    engine.load(world_of("{name: desk, tasks: optional}")).unwrap();
    let served = Served { engine: Arc::new(engine), audit };
    let expired = svid_without_iat(now() - 10_000);
    let ask = |token: String| {
        let evidence = vec![evidence(wire::EvidenceRole::Agent, token)];
        let decision = served.check(&wire::CheckRequest { evidence: evidence.clone(), ..search() });
        (code(&decision), start(&served, &starting(evidence)).map(drop))
    };
    let refused = "STATE_UNAVAILABLE";
    assert_eq!((refused, Err(refused)), ask(expired));
    assert_eq!((refused, Err(refused)), ask(svid()));

    // Nor does a lease become live, whose end would not be over either.
    let issuing = Faulty::new().issue(&json!({"leases": {"crm": "warehouse"}}));
    let task = alices(&issuing.served);
    let permit = issuing.permit(deleting(&task.id, BOT, "7"));
    let mut lease = issuing.issue(&issue_of(&permit, BOT)).unwrap()["lease"].clone();
    lease["state"] = json!("live");
    let before = json!({"state": "wanted", "attempts": 0}).to_string();
    let put = served.engine.put_lease(lease.to_string().as_bytes(), before.as_bytes());
    assert!(put.unwrap_err().to_string().contains("before 1970"));
}
