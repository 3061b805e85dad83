//! Records to keep, and stores to keep them in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use authz_base::record::history::{LabelOrigin, Object, ObjectLabel, SessionHistory};
use authz_base::record::task::{
    AgentName, Limit, Names, NewTask, Param, ScopeEntry, Selector, SubjectProof, Task, TaskKind,
    TaskSubject,
};
use authz_base::record::{
    Binding, Breakglass, BreakglassConfirmation, BreakglassEnd, BreakglassPerson, Credential,
    Detail, Idempotency, Lease, LeaseState, Party, Proof, Record, RecordKey, RecordKind,
    Reservation, Revocation, RevocationTarget, Session, SigningKey,
};
use authz_base::tier::Tier;
use authz_base::time::Time;
use authz_state::Ticket;
use authz_state::store::{
    AuditSink, Commit, Page, Query, Store, StoreError, Survives, Transaction,
};

pub const NOW: i64 = 1_795_564_800_000;

/// A moment that is far enough.
pub fn soon() -> Instant {
    after(10_000)
}

pub fn after(ms: u64) -> Instant {
    Instant::now().checked_add(Duration::from_millis(ms)).unwrap()
}

/// A folder of its own, empty.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("authz-state-{}-{name}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn key(kind: RecordKind, id: &str) -> RecordKey {
    RecordKey::new(kind, id)
}

pub fn session_key(id: &str) -> RecordKey {
    key(RecordKind::Session, id)
}

pub fn task_key(id: &str) -> RecordKey {
    key(RecordKind::Task, id)
}

pub fn task(id: &str, session: &str, agent: &str) -> Task {
    let entry = |operation: &str| ScopeEntry {
        operation: operation.to_owned(),
        resources: Selector {
            collections: Some(BTreeSet::from(["tickets".to_owned()])),
            ids: Some(BTreeSet::from(["T-17".to_owned()])),
            ..Selector::default()
        },
        arguments: BTreeMap::from([("/limit".to_owned(), Limit::Range(1, 50))]),
        uses: Some(20),
    };
    let new = NewTask {
        id: id.to_owned(),
        kind: TaskKind::Root,
        template: "answer-ticket".to_owned(),
        template_digest: "ab".repeat(32),
        session: session.to_owned(),
        ancestors: Vec::new(),
        agents: vec![AgentName {
            spiffe_id: format!("spiffe://corp.example/{agent}"),
            trust_domain: "corp.example".to_owned(),
        }],
        subject: Some(TaskSubject {
            is_service: false,
            issuer: "corp".to_owned(),
            sub: "anna \"\u{0}\u{1f600} O'Neil".to_owned(),
            claims: BTreeMap::new(),
            acr: String::new(),
        }),
        subject_proof: SubjectProof::Verified,
        starter: "corp:anna".to_owned(),
        purpose: "customer support".to_owned(),
        params: BTreeMap::from([("ticket".to_owned(), Param::Text("T-17".to_owned()))]),
        scope: vec![entry("crm.ticket.read"), entry("crm.search"), entry("gmail.send")],
        beyond: None,
        tier_cap: Tier::Standard,
        max_depth: 0,
        started_at: Time(NOW),
        deadline: Time(NOW + 1_800_000),
        idle_timeout_ms: None,
        names: Names {
            user: BTreeSet::from(["00112233445566778899aabbccddeeff".to_owned()]),
            ..Names::default()
        },
    };
    Task { unused: false, ..Task::begin(new) }
}

pub fn session(id: &str) -> Record {
    Record::Session(Arc::new(Session {
        id: id.to_owned(),
        root: format!("{id}-root"),
        tasks: 1,
        started_at: Time(NOW),
        expires_at: Time(NOW + 86_400_000),
        ended_at: None,
        denied: false,
        agent: None,
        history: SessionHistory::new(),
        rest: BTreeMap::new(),
    }))
}

pub fn reservation(id: &str, session: &str, due: i64) -> Record {
    Record::Reservation(Arc::new(Reservation {
        decision_id: id.to_owned(),
        task: "t".to_owned(),
        session: session.to_owned(),
        operation: "gmail.send".to_owned(),
        charged: vec![("t".to_owned(), 2)],
        permitted_at: Time(NOW),
        due: Time(due),
        resource: Some("mail/1".to_owned()),
        destinations: vec!["a@b.example".to_owned()],
        tier: Tier::High,
        agent: "spiffe://corp.example/bot".to_owned(),
        wants_credential: true,
        ..Reservation::default()
    }))
}

pub fn credential(jti: &str, expires_at: i64) -> Record {
    Record::Credential(Arc::new(Credential {
        jti: jti.to_owned(),
        task: "t".to_owned(),
        session: "s".to_owned(),
        agent: "spiffe://corp.example/bot".to_owned(),
        audience: "https://crm.corp.example".to_owned(),
        details: vec![Detail {
            decision_id: "d1".to_owned(),
            operation: "crm.search".to_owned(),
            arguments_digest: Some("ab".repeat(32)),
            ..Detail::default()
        }],
        binding: Some(Binding::Jkt("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".to_owned())),
        issued_at: Time(NOW),
        expires_at: Time(expires_at),
        revoked_at: None,
        rest: BTreeMap::new(),
    }))
}

pub fn proof(id: &str, expires_at: i64) -> Record {
    Record::Proof(Arc::new(Proof {
        id: id.to_owned(),
        expires_at: Time(expires_at),
        counts: std::collections::BTreeMap::new(),
    }))
}

pub fn signing_key(kid: &str, expires_at: Option<i64>) -> Record {
    Record::SigningKey(Arc::new(SigningKey {
        kid: kid.to_owned(),
        node: "one".to_owned(),
        jwk: "{\"kty\":\"OKP\"}".to_owned(),
        published_at: Time(NOW),
        active_from: Time(NOW + 300_000),
        expires_at: expires_at.map(Time),
    }))
}

pub fn lease(id: &str) -> Record {
    Record::Lease(Arc::new(Lease {
        id: id.to_owned(),
        broker: "warehouse".to_owned(),
        system: "dwh".to_owned(),
        operation: "dwh.read".to_owned(),
        task: "t".to_owned(),
        session: "s".to_owned(),
        decision_id: "d1".to_owned(),
        agent: "spiffe://corp.example/bot".to_owned(),
        name: "authz_1".to_owned(),
        state: LeaseState::Ending,
        expires_at: Time(NOW),
        attempts: 3,
        next_try: Some(Time(NOW + 1000)),
        last_error: "refused".to_owned(),
        rest: BTreeMap::new(),
    }))
}

/// What an agent, or a subject, did.
pub fn party(id: &str, expires_at: i64) -> Arc<Party> {
    let mut history = SessionHistory::new();
    history.latest = Some(Time(expires_at - 1_000));
    let rest = BTreeMap::from([("of_2031".to_owned(), serde_json::json!([1, "x"]))]);
    Arc::new(Party {
        id: id.to_owned(),
        history,
        denied_at: None,
        ended_before: None,
        tasks: BTreeMap::new(),
        shared: BTreeMap::new(),
        acted_at: None,
        expires_at: Time(expires_at),
        rest,
    })
}

/// What an object keeps of those that wrote it.
pub fn object(id: &str, expires_at: i64) -> Record {
    let origin = LabelOrigin::new("d1", "notes.write", Time(expires_at - 1_000));
    let mark = ObjectLabel { origin, until: Time(expires_at) };
    Record::Object(Arc::new(Object {
        labels: BTreeMap::from([("pii".to_owned(), mark)]),
        counts: BTreeMap::from([(20_000, 3)]),
        expires_at: Time(expires_at),
        rest: BTreeMap::from([("of_2031".to_owned(), serde_json::json!([1, "x"]))]),
        ..Object::new(id.to_owned())
    }))
}

pub fn idempotency(id: &str, expires_at: i64) -> Record {
    Record::Idempotency(Arc::new(Idempotency {
        id: id.to_owned(),
        digest: "cd".repeat(32),
        answer: vec![0, 255, 10, 34],
        expires_at: Time(expires_at),
    }))
}

pub fn revocation(target: RevocationTarget, value: &str) -> Record {
    Record::Revocation(Arc::new(Revocation {
        target,
        value: value.to_owned(),
        reason: "leaked".to_owned(),
        by: "corp:anna".to_owned(),
        at: Time(NOW),
    }))
}

/// Break-glass that is in force at `NOW`, or has ended.
pub fn breakglass(id: &str, is_ended: bool) -> Record {
    let person = |sub: &str| BreakglassPerson {
        issuer: "corp".to_owned(),
        sub: sub.to_owned(),
        name: format!("corp/{sub}"),
    };
    let by = person("bob");
    Record::Breakglass(Arc::new(Breakglass {
        id: id.to_owned(),
        system: "erp".to_owned(),
        agent: None,
        duration_ms: 1_000,
        reason: "down".to_owned(),
        ticket: "INC-1".to_owned(),
        opened_by: person("ann"),
        opened_at: Time(NOW - 1),
        confirm_before: Time(NOW + 500),
        confirmed: Some(BreakglassConfirmation { by, at: Time(NOW), ends_at: Time(NOW + 1_000) }),
        ended: is_ended.then(|| BreakglassEnd { by: "corp/ann".to_owned(), at: Time(NOW) }),
        rest: BTreeMap::new(),
    }))
}

/// Whether a node knows of break-glass in force at `NOW`.
pub fn is_in_force(store: &dyn Store) -> bool {
    store.breakglasses().iter().any(|one| one.in_force(Time(NOW)).is_some())
}

pub fn ids(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.key().id.to_string()).collect()
}

/// Audit lines as they come, by a sink that takes all.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<Vec<u8>>>>);

impl Lines {
    pub fn sink(&self) -> AuditSink {
        let lines = Arc::clone(&self.0);
        Arc::new(move |line: &[u8], _| {
            lines.lock().unwrap().push(line.to_vec());
            Ok(None::<Ticket>)
        })
    }

    pub fn take(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    /// Takes lines until so many have come.
    pub fn wait(&self, count: usize) -> Vec<String> {
        let until = soon();
        let mut lines = self.take();
        while lines.len() < count && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            lines.append(&mut self.take());
        }
        lines
    }
}

/// Runs one transaction to its end.
pub fn transact(
    store: &dyn Store,
    locks: &[RecordKey],
    deadline: Instant,
    mut work: impl FnMut(&mut dyn Transaction) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    match store.transact(locks, Survives::Crash, deadline, &mut work)? {
        Commit::Done => Ok(()),
        Commit::Pending(ticket) => {
            ticket.wait(deadline).map_err(|error| StoreError::unavailable(error.to_string()))
        }
    }
}

/// Puts records in one transaction.
pub fn put(store: &dyn Store, records: &[Record]) -> Result<(), StoreError> {
    transact(store, &[session_key("s")], soon(), |transaction| {
        for record in records {
            transaction.put(record.clone());
        }
        Ok(true)
    })
}

pub fn page(after: &str, most: usize) -> Page {
    Page { after: after.to_owned(), most }
}

/// All that a query finds, page by page.
pub fn all(store: &dyn Store, query: &Query) -> Vec<String> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let next = ids(&store.find(query, &page(&after, 3), soon()).unwrap());
        let Some(last) = next.last() else { return found };
        after.clone_from(last);
        found.extend(next);
    }
}
