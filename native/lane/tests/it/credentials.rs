//! Task credentials: what they come of, what they are, and how they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use authz_kernel::decision::Time;
use authz_kernel::task::{Binding, Credential, Record, RecordKey, RecordKind, Reservation};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::{CredentialSettings, Engine, PeerChain, Settings, Surface, Transport, World};
use authz_state::store::{MemoryStore, Page, Query, Store, Survives, Transaction};
use authz_token::mint::{Key, proof};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::peers;
use crate::support::*;
use crate::tasks::{
    REQUIRED, STRANGER, TWO, agent, alices, delegate, delegating, deleting, end, get, searching,
    start, starting, subject, world_with,
};

pub fn issuing(more: &Value) -> CredentialSettings {
    let mut settings = json!({"audiences": {"crm": "https://crm.example"}});
    merge(&mut settings, more);
    credential_settings(&settings)
}

pub fn soon() -> Instant {
    Instant::now().checked_add(Duration::from_secs(10)).unwrap()
}

/// An engine that issues credentials, and its store.
pub struct Issuing {
    pub served: Served,
    pub store: Arc<dyn Store>,
}

/// What is issued, with its claims read.
pub fn read_issued(answer: &[u8]) -> Value {
    let mut issued: Value = serde_json::from_slice(answer).unwrap();
    if let Some(claims) = issued["claims"].as_str() {
        issued["claims"] = serde_json::from_str(claims).unwrap();
    }
    issued
}

impl Issuing {
    pub fn new() -> Self {
        Self::with(REQUIRED, &json!({}))
    }

    pub fn with(bundle: &str, extra: &Value) -> Self {
        let audit = folder().join("audit.jsonl");
        let settings: Settings = settings(&audit, extra);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new([7; 32]));
        let engine = Engine::with_store(settings, Arc::clone(&store)).unwrap();
        let served = Served { engine: Arc::new(engine), audit };
        let made = Self { served, store };
        made.load(bundle, &json!({}));
        made
    }

    /// With a store of its own, into which nobody else looks.
    pub fn embedded(audit: &std::path::Path, extra: &Value) -> Self {
        let engine = Engine::new(settings(audit, extra)).unwrap();
        let served = Served { engine: Arc::new(engine), audit: audit.to_owned() };
        let made = Self { served, store: Arc::new(MemoryStore::new([0; 32])) };
        made.load(REQUIRED, &json!({}));
        made
    }

    /// Loads another world.
    pub fn load(&self, bundle: &str, credentials: &Value) {
        self.load_with(bundle, &[], credentials);
    }

    /// As [`Self::load`], with more files.
    pub fn load_with(&self, bundle: &str, more: &[(&str, &str)], credentials: &Value) {
        let listeners = json!([
            {"name": "dev", "insecure_dev": true},
            {"name": "own"},
            {"name": "admin", "admin": true},
            {"name": "mutual", "mutual": true},
            {"name": "http", "http": true},
            {"name": "wiki", "enforcer": {"name": "wiki-server", "asks": ["system:wiki"]}},
            {"name": "crm", "enforcer": {"name": "crm-server", "asks": ["system:crm"]}},
        ]);
        let world = World {
            credentials: Some(issuing(credentials)),
            trust: peers::trust(),
            listeners: listeners_of(&listeners),
            ..world_with(bundle, more)
        };
        self.served.engine.load(world).unwrap();
    }

    pub fn of_kind(&self, kind: RecordKind) -> Vec<Record> {
        let page = Page { after: String::new(), most: 100 };
        self.store.find(&Query::Kind(kind), &page, soon()).unwrap()
    }

    pub fn issue(&self, request: &wire::IssueRequest) -> Result<Value, &'static str> {
        self.issue_by(&Transport::by("dev"), request)
    }

    pub fn issue_by(
        &self,
        transport: &Transport<'_>,
        request: &wire::IssueRequest,
    ) -> Result<Value, &'static str> {
        let answer =
            self.served.engine.call(Surface::CredentialIssue, &request.encode_to_vec(), transport);
        answer.map(|answer| read_issued(&answer)).map_err(|error| error.reason_code.as_str())
    }

    /// A credential of the bot's search in a task, signed.
    pub fn token(&self, task: &str, by: &str) -> (String, Value) {
        let decision = self.permit(searching(task, by));
        let issued = self.issue(&issue_of(&decision, by)).unwrap();
        (peers::OWN.sign_credential(&issued["claims"].to_string()), issued["claims"].clone())
    }

    pub fn ask(
        &self,
        surface: Surface,
        listener: &str,
        request: Vec<u8>,
    ) -> Result<Value, &'static str> {
        let answer = self.served.engine.call(surface, &request, &Transport::by(listener));
        answer
            .map(|answer| serde_json::from_slice(&answer).unwrap())
            .map_err(|error| error.reason_code.as_str())
    }

    pub fn known(&self, listener: &str, token: &str, by: Vec<wire::Evidence>) -> Value {
        let request = wire::IntrospectRequest { evidence: by, token: token.to_owned() };
        self.ask(Surface::CredentialIntrospect, listener, request.encode_to_vec()).unwrap()
    }

    /// Whether its agent learns that it is active.
    pub fn is_active(&self, token: &str, by: &str) -> bool {
        self.known("dev", token, vec![agent(by)])["active"] == true
    }

    pub fn revoke(
        &self,
        listener: &str,
        token: &str,
        by: Vec<wire::Evidence>,
    ) -> Result<Value, &'static str> {
        let request = wire::CredentialsRevokeRequest { evidence: by, token: token.to_owned() };
        self.ask(Surface::CredentialRevoke, listener, request.encode_to_vec())
    }

    /// A permit that is kept for a credential.
    pub fn permit(&self, request: wire::CheckRequest) -> String {
        let decision = self.served.check(&wanting(request));
        assert_eq!("PERMITTED", code(&decision), "{}", decision.message);
        decision.decision_id
    }

    /// Changes a record behind the engine's back, as time would.
    pub fn put(&self, record: Record) {
        let mut work = |transaction: &mut dyn Transaction| {
            transaction.put(record.clone());
            Ok(true)
        };
        self.store.transact(&[], Survives::Crash, soon(), &mut work).unwrap();
    }

    pub fn credential(&self, jti: &str) -> Arc<Credential> {
        let key = RecordKey::new(RecordKind::Credential, jti);
        match self.store.peek(&key, soon()).unwrap() {
            Some(Record::Credential(one)) => one,
            other => panic!("{other:?}"),
        }
    }

    pub fn uses(&self, task: &str) -> Vec<u64> {
        match self.store.peek(&RecordKey::new(RecordKind::Task, task), soon()).unwrap() {
            Some(Record::Task(one)) => one.uses.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn reservations(&self) -> Vec<Arc<Reservation>> {
        let all = self.of_kind(RecordKind::Reservation).into_iter();
        all.filter_map(|record| match record {
            Record::Reservation(one) => Some(one),
            _ => None,
        })
        .collect()
    }
}

fn wanting(request: wire::CheckRequest) -> wire::CheckRequest {
    wire::CheckRequest { wants_credential: true, ..request }
}

/// Whoever wants a credential gets a permit that is kept, even of what is stateless; and needs a task.
#[test]
fn a_permit_is_kept_for_a_credential() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let check = |request: &wire::CheckRequest| issuing.served.check(request);
    assert_eq!("PERMITTED", code(&check(&searching(&task.id, BOT))));
    assert!(issuing.reservations().is_empty(), "a search is stateless");
    let decision = check(&wanting(searching(&task.id, BOT)));
    assert_eq!("PERMITTED", code(&decision));
    let kept = issuing.reservations().pop().unwrap();
    assert_eq!((&decision.decision_id, &task.id), (&kept.decision_id, &kept.task));
    assert_eq!((BOT, true, false), (&*kept.agent, kept.wants_credential, kept.redeemed));
    assert_eq!(Some("customers"), kept.resource.as_deref());
    assert_eq!(64, kept.arguments_digest.as_ref().unwrap().len());
    assert_eq!("PERMITTED", code(&check(&deleting(&task.id, BOT, "7"))));
    let kept = issuing.reservations().pop().unwrap();
    assert_eq!((Some("customers/7"), false), (kept.resource.as_deref(), kept.wants_credential));
    // A probe changes nothing, a refusal keeps nothing.
    let mut probe = wanting(searching(&task.id, BOT));
    probe.mode = wire::Mode::Probe as i32;
    check(&probe);
    assert_eq!("OUT_OF_SCOPE", code(&check(&wanting(deleting(&task.id, BOT, "8")))));
    assert_eq!(2, issuing.reservations().len());
    let optional = Issuing::with("{name: desk, tasks: optional}", &json!({}));
    assert_eq!("PERMITTED", code(&optional.served.check(&search())));
    assert_eq!("NO_TASK", code(&optional.served.check(&wanting(search()))));
    let plain = served();
    assert_eq!("BAD_INPUT", code(&plain.check(&wanting(search()))));
}

pub fn issue_of(decision: &str, by: &str) -> wire::IssueRequest {
    wire::IssueRequest {
        evidence: vec![agent(by)],
        decision_id: decision.to_owned(),
        ..wire::IssueRequest::default()
    }
}

/// An agent that denials bar gets no credential of a permit in a task that it started before, and those that it has are not
/// active. In tasks that somebody else gave it, it works on.
#[test]
fn a_barred_agent_gets_no_credential() {
    let issuing = Issuing::new();
    let more = [("denials.yaml", "denials: {raise_after: 9, end_after: 2}")];
    issuing.load_with(REQUIRED, &more, &json!({}));
    let served = &issuing.served;
    let own = alices(served);
    let alone = vec![evidence(wire::EvidenceRole::Subject, alone_alice())];
    let by_alice = wire::StartRequest { assignee: BOT.to_owned(), ..starting(alone) };
    let hers = start(served, &by_alice).unwrap();
    let tokens = [&own, &hers].map(|task| issuing.token(&task.id, BOT).0);
    let permits = [&own, &hers].map(|task| issuing.permit(searching(&task.id, BOT)));
    let are_active = || {
        tokens.each_ref().map(|token| {
            let by_enforcer = issuing.known("crm", token, Vec::new())["active"] == true;
            assert_eq!(by_enforcer, issuing.is_active(token, BOT));
            by_enforcer
        })
    };
    assert_eq!([true, true], are_active());
    let tried = alices(served);
    // The bar holds in tasks that began before it, counted in milliseconds.
    std::thread::sleep(Duration::from_millis(5));
    for id in ["8", "9"] {
        assert_eq!("OUT_OF_SCOPE", code(&served.check(&deleting(&tried.id, BOT, id))));
    }
    assert_eq!([false, true], are_active());
    let issued = permits.map(|permit| issuing.issue(&issue_of(&permit, BOT)).map(drop));
    assert_eq!([Err("REVOKED"), Ok(())], issued);
    // The task itself lives: nothing but the bar ends what comes of it.
    let task = get(served, &own.id, vec![agent(BOT)]).unwrap();
    assert_eq!(wire::TaskStatus::Active as i32, task.status);
}

/// A credential says what was permitted, to whom and for whom, no more, and for no longer.
#[test]
fn issued_of_a_permit() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let decision = issuing.permit(searching(&task.id, BOT));
    let issued = issuing.issue(&issue_of(&decision, BOT)).unwrap();
    let claims = &issued["claims"];
    let kept = issuing.reservations().pop().unwrap();
    let detail = json!({
        "type": "authz_task", "operation": "crm.search", "resource": "customers", "uses": 1,
        "arguments_digest": kept.arguments_digest, "decision_id": decision,
    });
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    let expected = json!({
        "iss": "https://authz.example", "sub": "corp/alice", "client_id": BOT, "act": {"sub": BOT},
        "aud": "https://crm.example", "iat": iat, "exp": exp, "jti": claims["jti"],
        "task": task.id, "authorization_details": [detail],
    });
    assert_eq!(&expected, claims);
    // As long as the token of `support::user` that the task began with.
    assert!((now() - iat).abs() <= 2 && (exp - iat - 300).abs() <= 1, "{iat} {exp}");
    assert_eq!(
        ("Bearer", exp),
        (issued["token_type"].as_str().unwrap(), issued["expires_at"].as_i64().unwrap())
    );
    let credential = issuing.credential(claims["jti"].as_str().unwrap());
    assert_eq!(exp * 1_000, credential.expires_at.0);
    assert_eq!((None, &*task.session), (credential.binding.as_ref(), &*credential.session));
    // Its permit waits until it can be used no more.
    assert_eq!((Some(&credential.jti), credential.due()), (kept.credential.as_ref(), kept.due));
    assert_eq!(Err("USES_EXHAUSTED"), issuing.issue(&issue_of(&decision, BOT)));
    assert_eq!(1, issuing.of_kind(RecordKind::Credential).len());
    let records = issuing.served.records();
    let record = &records[records.len() - 2];
    assert_eq!("authz.v1.Credentials/Issue", record["path"]);
    assert_eq!(
        json!({"jti": credential.jti, "decision_id": decision}),
        record["input"]["credential"]
    );
    assert_eq!(
        (&json!("PERMIT"), &json!("crm.search")),
        (&record["result"]["outcome"], &record["input"]["operation"])
    );
    assert_eq!(&json!("USES_EXHAUSTED"), &records.last().unwrap()["result"]["reason_code"]);
}

/// Each reason not to issue has its own code, and changes nothing.
#[test]
fn not_issued() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let decision = issuing.permit(searching(&task.id, BOT));
    let with = |change: &dyn Fn(&mut wire::IssueRequest)| {
        let mut request = issue_of(&decision, BOT);
        change(&mut request);
        issuing.issue(&request).unwrap_err()
    };
    assert_eq!("NOT_PERMITTED", with(&|one| one.decision_id = "0193".to_owned()));
    assert_eq!("NOT_PERMITTED", with(&|one| one.decision_id.clear()));
    assert_eq!("BAD_INPUT", with(&|one| one.decision_id = "x".repeat(513)));
    assert_eq!("WRONG_AUDIENCE", with(&|one| one.audience = "https://wiki.example".to_owned()));
    assert_eq!("WRONG_AUDIENCE", with(&|one| one.audience = "crm".to_owned()));
    assert_eq!("NOT_ASSIGNEE", with(&|one| one.evidence = vec![agent(TWO)]));
    assert_eq!("NOT_ASSIGNEE", with(&|one| one.evidence = vec![agent(STRANGER)]));
    assert_eq!("NO_CREDENTIAL", with(&|one| one.evidence = vec![subject("alice")]));
    assert_eq!("NO_CREDENTIAL", with(&|one| one.evidence.clear()));
    assert_eq!("TASK_CONFLICT", with(&|one| one.evidence.push(subject("bob"))));
    let forged = evidence(wire::EvidenceRole::Agent, forged());
    assert_eq!("BAD_CREDENTIAL", with(&|one| one.evidence = vec![forged.clone()]));
    let owner = issuing.issue_by(
        &Transport::by("admin"),
        &wire::IssueRequest { evidence: vec![], ..issue_of(&decision, BOT) },
    );
    assert_eq!(Err("NO_CREDENTIAL"), owner);
    // A permit that somebody acts upon by itself is not performed again by a credential.
    let plain = issuing.served.check(&deleting(&task.id, BOT, "7")).decision_id;
    assert_eq!(Err("NOT_PERMITTED"), issuing.issue(&issue_of(&plain, BOT)));
    // Of a high tier none is issued that anybody can use.
    let high = issuing.permit(deleting(&task.id, BOT, "7"));
    assert_eq!(Err("PROOF_REQUIRED"), issuing.issue(&issue_of(&high, BOT)));
    let other = issuing.permit(searching(&task.id, BOT));
    let mut late = Reservation::clone(
        &issuing.reservations().into_iter().find(|one| one.decision_id == other).unwrap(),
    );
    late.due = Time(now() * 1_000 - 1);
    issuing.put(Record::Reservation(Arc::new(late)));
    assert_eq!(Err("NOT_PERMITTED"), issuing.issue(&issue_of(&other, BOT)));
    assert!(issuing.of_kind(RecordKind::Credential).is_empty());
    end(&issuing.served, &task.id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    assert_eq!("TASK_ENDED", with(&|_| {}));
    let records = issuing.served.records();
    let proof =
        records.iter().find(|one| one["result"]["reason_code"] == "PROOF_REQUIRED").unwrap();
    assert_eq!(
        (&json!("STEP_UP"), &json!("high")),
        (&proof["result"]["outcome"], &proof["result"]["tier"])
    );
    let plain = served();
    let request = issue_of("0193", BOT).encode_to_vec();
    let refused = plain.engine.call(Surface::CredentialIssue, &request, &Transport::by("dev"));
    assert_eq!("BAD_INPUT", refused.unwrap_err().reason_code.as_str());
}

/// What is revoked gets none: the agent, the operation, the task and all above it.
#[test]
fn nothing_is_issued_of_what_is_revoked() {
    use wire::admin_revoke_request::Target;
    let revoked = |target: &dyn Fn(&wire::Task) -> Target| {
        let issuing = Issuing::new();
        let root = alices(&issuing.served);
        let child = delegate(&issuing.served, &delegating(&root, BOT, TWO)).unwrap();
        let decision = issuing.permit(searching(&child.id, TWO));
        let request =
            wire::AdminRevokeRequest { target: Some(target(&root)), ..Default::default() };
        let by = Transport::by("admin");
        issuing.served.engine.call(Surface::Revoke, &request.encode_to_vec(), &by).unwrap();
        issuing.issue(&issue_of(&decision, TWO)).unwrap_err()
    };
    assert_eq!("REVOKED", revoked(&|_| Target::Agent(TWO.to_owned())));
    assert_eq!("REVOKED", revoked(&|_| Target::Agent(BOT.to_owned())));
    assert_eq!("REVOKED", revoked(&|_| Target::Operation("crm.search".to_owned())));
    assert_eq!("REVOKED", revoked(&|_| Target::System("crm".to_owned())));
    assert_eq!("REVOKED", revoked(&|root| Target::Task(root.id.clone())));
    assert_eq!("REVOKED", revoked(&|root| Target::Session(root.session.clone())));
    assert_eq!("REVOKED", revoked(&|_| Target::Issuer("corp".to_owned())));
}

/// A proof that came with what is refused in the middle of the change is taken all the same.
#[test]
fn a_proof_is_taken_where_the_change_is_refused() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let key = Key::es256("");
    let decision = issuing.permit(searching(&task.id, BOT));
    let target = wire::admin_revoke_request::Target::Operation("crm.search".to_owned());
    let request = wire::AdminRevokeRequest { target: Some(target), ..Default::default() };
    let by = Transport::by("admin");
    issuing.served.engine.call(Surface::Revoke, &request.encode_to_vec(), &by).unwrap();
    let proved = wire::IssueRequest { proof: proof_of(&key, "1"), ..issue_of(&decision, BOT) };
    assert_eq!(Err("REVOKED"), issuing.issue(&proved));
    assert_eq!(Err("REPLAYED"), issuing.issue(&proved));
    assert!(issuing.of_kind(RecordKind::Credential).is_empty());
}

/// The chain is the task's: the subject, then each agent, the one that acts outermost.
#[test]
fn the_chain_of_a_credential() {
    let issuing = Issuing::new();
    let root = alices(&issuing.served);
    let child = delegate(&issuing.served, &delegating(&root, BOT, TWO)).unwrap();
    let decision = issuing.permit(searching(&child.id, TWO));
    let issued = issuing.issue(&issue_of(&decision, TWO)).unwrap();
    assert_eq!(json!("corp/alice"), issued["claims"]["sub"]);
    assert_eq!(json!({"sub": TWO, "act": {"sub": BOT}}), issued["claims"]["act"]);
    assert_eq!(json!(TWO), issued["claims"]["client_id"]);
    // Where nobody is behind them, the first agent acts for itself.
    let start = crate::tasks::starting(vec![agent(BOT)]);
    let alone = crate::tasks::start(&issuing.served, &start).unwrap();
    let decision = issuing.permit(searching(&alone.id, BOT));
    let issued = issuing.issue(&issue_of(&decision, BOT)).unwrap();
    assert_eq!((&json!(BOT), &Value::Null), (&issued["claims"]["sub"], &issued["claims"]["act"]));
    let child = delegate(&issuing.served, &delegating(&alone, BOT, TWO)).unwrap();
    let decision = issuing.permit(searching(&child.id, TWO));
    let issued = issuing.issue(&issue_of(&decision, TWO)).unwrap();
    assert_eq!(
        (&json!(BOT), &json!({"sub": TWO})),
        (&issued["claims"]["sub"], &issued["claims"]["act"])
    );
}

/// The shortest of the wish, the tier's maximum, the ends of the task and of those above, and the subject's token.
#[test]
fn lifetimes() {
    let issuing = Issuing::new();
    issuing.load(
        REQUIRED,
        &json!({"lifetime": {"low": 600, "standard": 300, "high": 120, "critical": 60}}),
    );
    let task = alices(&issuing.served);
    let own = crate::tasks::starting(vec![agent(BOT)]);
    let own = crate::tasks::start(&issuing.served, &own).unwrap();
    let lives_in = |task: &wire::Task, change: &dyn Fn(&mut wire::IssueRequest)| {
        let mut request = issue_of(&issuing.permit(searching(&task.id, BOT)), BOT);
        change(&mut request);
        let issued = issuing.issue(&request).unwrap();
        issued["expires_at"].as_i64().unwrap() - now()
    };
    let lives = |change: &dyn Fn(&mut wire::IssueRequest)| lives_in(&task, change);
    let about =
        |expected: i64, lives: i64| assert!((lives - expected).abs() <= 2, "{expected} {lives}");
    about(600, lives_in(&own, &|_| {}));
    about(600, lives_in(&own, &|one| one.lifetime_seconds = 9_000));
    about(30, lives(&|one| one.lifetime_seconds = 30));
    // The token of `support::user` lives for 300 seconds.
    about(300, lives(&|one| one.evidence.push(subject("alice"))));
    let key = RecordKey::new(RecordKind::Task, &task.id);
    let Some(Record::Task(kept)) = issuing.store.peek(&key, soon()).unwrap() else { panic!() };
    let mut short = (*kept).clone();
    short.deadline = Time((now() + 20) * 1_000);
    issuing.put(Record::Task(Arc::new(short.clone())));
    about(20, lives(&|_| {}));
    let child = delegate(&issuing.served, &delegating(&task, BOT, TWO)).unwrap();
    let decision = issuing.permit(searching(&child.id, TWO));
    let issued = issuing.issue(&issue_of(&decision, TWO)).unwrap();
    about(20, issued["expires_at"].as_i64().unwrap() - now());
    let decision = issuing.permit(searching(&task.id, BOT));
    short.deadline = Time(now() * 1_000 + 900);
    issuing.put(Record::Task(Arc::new(short)));
    assert_eq!(Err("TASK_ENDED"), issuing.issue(&issue_of(&decision, BOT)));
}

/// An agent that asks by its own certificate gets a credential that is bound to it, also of a high tier.
#[test]
fn bound_to_a_certificate() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let leaf = peers::A.leaf(BOT);
    let chain: [&[u8]; 1] = [&leaf];
    let by = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
    let decision = issuing.permit(deleting(&task.id, BOT, "7"));
    let request = wire::IssueRequest { evidence: vec![], ..issue_of(&decision, BOT) };
    let issued = issuing.issue_by(&by, &request).unwrap();
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(&leaf));
    assert_eq!(json!({"x5t#S256": digest}), issued["claims"]["cnf"]);
    assert_eq!(json!("Bearer"), issued["token_type"]);
    let lives = issued["expires_at"].as_i64().unwrap() - now();
    assert!((118..=120).contains(&lives), "{lives}");
    // A certificate of somebody else binds nothing: it is refused as somebody else's.
    let leaf = peers::A.leaf(TWO);
    let chain: [&[u8]; 1] = [&leaf];
    let by = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
    let decision = issuing.permit(deleting(&task.id, BOT, "7"));
    let request = wire::IssueRequest { evidence: vec![], ..issue_of(&decision, BOT) };
    assert_eq!(Err("NOT_ASSIGNEE"), issuing.issue_by(&by, &request));
    let records = issuing.served.records();
    let bound = records.iter().find(|one| one["input"]["credential"]["binding"] == "x5t#S256");
    assert_eq!(json!("PERMITTED"), bound.unwrap()["result"]["reason_code"]);
}

const ISSUE_URI: &str = "https://authz.example/authz.v1.Credentials/Issue";

fn proof_of(key: &Key, jti: &str) -> String {
    key.sign_proof(&proof("POST", ISSUE_URI, now(), jti, None).to_string())
}

/// Whoever proves a key gets a credential that is bound to it. Each proof is taken once, whatever comes of the call.
#[test]
fn bound_to_a_proved_key() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let key = Key::es256("");
    let decision = issuing.permit(deleting(&task.id, BOT, "7"));
    let with = |proof: String| wire::IssueRequest { proof, ..issue_of(&decision, BOT) };
    let refused =
        |claims: Value| issuing.issue(&with(key.sign_proof(&claims.to_string()))).unwrap_err();
    assert_eq!("BAD_PROOF", refused(proof("GET", ISSUE_URI, now(), "1", None)));
    let elsewhere = "https://authz.example/authz.v1.Credentials/Revoke";
    assert_eq!("BAD_PROOF", refused(proof("POST", elsewhere, now(), "2", None)));
    assert_eq!("BAD_PROOF", refused(proof("POST", ISSUE_URI, now() - 120, "3", None)));
    assert_eq!("BAD_PROOF", refused(proof("POST", ISSUE_URI, now() + 120, "4", None)));
    assert_eq!(Err("BAD_PROOF"), issuing.issue(&with("x".to_owned())));
    assert_eq!(Err("BAD_PROOF"), issuing.issue(&with(svid())));
    assert_eq!(Err("BAD_CREDENTIAL"), issuing.issue(&with("x".repeat(9_000))));
    // Taken with a call that is refused.
    let once = proof_of(&key, "5");
    let unknown = wire::IssueRequest { proof: once.clone(), ..issue_of("0193", BOT) };
    assert_eq!(Err("NOT_PERMITTED"), issuing.issue(&unknown));
    assert_eq!(Err("REPLAYED"), issuing.issue(&with(once)));
    let issued = issuing.issue(&with(proof_of(&key, "6"))).unwrap();
    assert_eq!(json!({"jkt": key.thumbprint()}), issued["claims"]["cnf"]);
    // Taken with what was issued of it; the key may still be proved anew.
    let another = issuing.permit(deleting(&task.id, BOT, "7"));
    let again = wire::IssueRequest { proof: proof_of(&key, "6"), ..issue_of(&another, BOT) };
    assert_eq!(Err("REPLAYED"), issuing.issue(&again));
    assert_eq!((&json!("DPoP"), &Value::Null), (&issued["token_type"], &issued["dpop_nonce"]));
    let jti = issued["claims"]["jti"].as_str().unwrap();
    assert_eq!(Some(Binding::Jkt(key.thumbprint())), issuing.credential(jti).binding.clone());
    // A proof counts for more than the certificate of the connection.
    let leaf = peers::A.leaf(BOT);
    let chain: [&[u8]; 1] = [&leaf];
    let by = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
    let request = wire::IssueRequest {
        evidence: vec![],
        proof: proof_of(&key, "7"),
        ..issue_of(&another, BOT)
    };
    let issued = issuing.issue_by(&by, &request).unwrap();
    assert_eq!(json!({"jkt": key.thumbprint()}), issued["claims"]["cnf"]);
    let records = issuing.served.records();
    assert!(records.iter().any(|one| one["input"]["credential"]["binding"] == "jkt"));
    assert!(!format!("{records:?}").contains("eyJ"), "no proof in the records");
}

/// An agent whose own token is bound to a key gets credentials that are bound to it too.
#[test]
fn bound_as_its_svid_is() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let key = Key::es256("");
    let decision = issuing.permit(deleting(&task.id, BOT, "7"));
    let token = svid_of(&json!({"cnf": {"jkt": key.thumbprint()}}));
    let by = |jti: &str| {
        let claims = proof("POST", ISSUE_URI, now(), jti, Some(&token));
        wire::Evidence {
            scheme: wire::EvidenceScheme::Dpop as i32,
            proof: key.sign_proof(&claims.to_string()),
            ..evidence(wire::EvidenceRole::Agent, token.clone())
        }
    };
    let request = |jti| wire::IssueRequest { evidence: vec![by(jti)], ..issue_of(&decision, BOT) };
    let first = request("1");
    let unknown = wire::IssueRequest { decision_id: "0193".to_owned(), ..first.clone() };
    assert_eq!(Err("NOT_PERMITTED"), issuing.issue(&unknown));
    assert_eq!(Err("REPLAYED"), issuing.issue(&first));
    let issued = issuing.issue(&request("2")).unwrap();
    assert_eq!(json!({"jkt": key.thumbprint()}), issued["claims"]["cnf"]);
}

/// Where every proof needs a nonce of ours, one without is told so, and each answer has the next.
#[test]
fn nonces() {
    let issuing = Issuing::new();
    issuing.load(REQUIRED, &json!({"dpop": {"require_nonce": true}}));
    let task = alices(&issuing.served);
    let key = Key::es256("");
    let decision = issuing.permit(searching(&task.id, BOT));
    let request = |claims: Value| {
        let proof = key.sign_proof(&claims.to_string());
        wire::IssueRequest { proof, ..issue_of(&decision, BOT) }.encode_to_vec()
    };
    let engine = &issuing.served.engine;
    let issue =
        |claims| engine.call(Surface::CredentialIssue, &request(claims), &Transport::by("dev"));
    let mut claims = proof("POST", ISSUE_URI, now(), "1", None);
    let refused = issue(claims.clone()).unwrap_err();
    assert_eq!("BAD_PROOF", refused.reason_code.as_str());
    assert!(refused.message.starts_with("use_dpop_nonce: "), "{}", refused.message);
    claims["nonce"] = json!("of somebody else");
    assert!(issue(claims.clone()).unwrap_err().message.starts_with("use_dpop_nonce: "));
    claims["nonce"] = json!(engine.dpop_nonce());
    let issued: Value = serde_json::from_slice(&issue(claims).unwrap()).unwrap();
    assert_eq!(json!(engine.dpop_nonce()), issued["dpop_nonce"]);
    // What is wrong otherwise asks for no nonce.
    let refused = issue(proof("GET", ISSUE_URI, now() - 900, "2", None)).unwrap_err();
    assert!(!refused.message.contains("use_dpop_nonce"), "{}", refused.message);
}

/// A proof that was used stays used when the server starts again, also one that is dated ahead of the
/// clock: a store on disk keeps it, and a store in memory takes none that it could see again.
#[test]
fn a_used_proof_stays_used_after_a_restart() {
    let key = Key::es256("");
    for engine in ["embedded", "memory"] {
        let folder = folder();
        let path = (engine == "embedded").then(|| folder.join("state"));
        let state = json!({"state": {"engine": engine, "path": path}});
        let audit = folder.join("audit.jsonl");
        let bring = |issuing: &Issuing, proof: &str| {
            let request = wire::IssueRequest { proof: proof.to_owned(), ..issue_of("0193", BOT) };
            issuing.issue(&request).unwrap_err()
        };
        let first = Issuing::embedded(&audit, &state);
        let dated = |ahead: i64, nonce: Option<String>| {
            let mut claims = proof("POST", ISSUE_URI, now() + ahead, "once", None);
            claims["jti"] = json!(format!("{engine}-{ahead}-{}", nonce.is_some()));
            if let Some(nonce) = nonce {
                claims["nonce"] = json!(nonce);
            }
            key.sign_proof(&claims.to_string())
        };
        let nonce = || Some(first.served.engine.dpop_nonce());
        let proofs = [dated(0, None), dated(50, nonce()), dated(-50, nonce()), dated(50, None)];
        let keeps = engine == "embedded";
        for (number, proof) in proofs.iter().enumerate() {
            let is_taken = keeps || number < 3;
            let expected = if is_taken { "NOT_PERMITTED" } else { "BAD_PROOF" };
            assert_eq!(expected, bring(&first, proof), "{engine} {number}");
            let expected = if is_taken { "REPLAYED" } else { "BAD_PROOF" };
            assert_eq!(expected, bring(&first, proof), "{engine} {number}");
        }
        first.served.engine.close();
        drop(first);
        // Proofs from the second of the start are not older than it.
        std::thread::sleep(Duration::from_millis(1100));
        let second = Issuing::embedded(&audit, &state);
        for (number, proof) in proofs.iter().enumerate() {
            let refused = bring(&second, proof);
            // The store on disk is not even asked about what is older than the start and has no nonce.
            let expected = if keeps && number > 0 { "REPLAYED" } else { "BAD_PROOF" };
            assert_eq!(expected, refused, "{engine} {number}");
        }
    }
}

/// Of each trust domain the newest bundle is known after a restart; an older one changes nothing.
#[test]
fn sequences_of_trust_domains() {
    let folder = folder();
    let state = json!({"state": {"engine": "embedded", "path": folder.join("state")}});
    let audit = folder.join("audit.jsonl");
    let mut issuing = Issuing::embedded(&audit, &state);
    let steps = [
        (json!({"a.example": {"epoch": 0, "sequence": 5}}), 5, 0),
        (json!({"a.example": {"epoch": 0, "sequence": 4}}), 5, 0),
        (json!({"a.example": {"sequence": 6}}), 6, 0),
        (json!({"a.example": {"epoch": 1, "sequence": 2}}), 2, 1),
        (json!({"a.example": {"epoch": 0, "sequence": u64::MAX}}), 2, 1),
        (json!({}), 2, 1),
        (json!({"a.example": {"epoch": 1, "sequence": u64::MAX}}), u64::MAX, 1),
    ];
    for (used, sequence, epoch) in steps {
        issuing.served.engine.note_trust_sequences(used.to_string().as_bytes()).unwrap();
        let expected = json!({"a.example": {"epoch": epoch, "sequence": sequence}});
        let known = |issuing: &Issuing| -> Value {
            serde_json::from_str(&issuing.served.engine.trust_sequences().unwrap()).unwrap()
        };
        assert_eq!(expected, known(&issuing), "{used}");
        issuing.served.engine.close();
        drop(issuing);
        issuing = Issuing::embedded(&audit, &state);
        assert_eq!(expected, known(&issuing), "after a restart: {used}");
    }
    for bad in ["", "[]", r#"{"a":7}"#, r#"{"a":{"epoch":1}}"#, r#"{"a":{"sequence":-1}}"#] {
        assert!(issuing.served.engine.note_trust_sequences(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// Of a system that knows no tokens a secret is leased: wanted until its broker has made it.
#[test]
fn leased_instead() {
    let issuing = Issuing::new();
    issuing.load(REQUIRED, &json!({"leases": {"crm": "warehouse"}}));
    let task = alices(&issuing.served);
    let decision = issuing.permit(deleting(&task.id, BOT, "7"));
    let issued = issuing.issue(&issue_of(&decision, BOT)).unwrap();
    let lease = &issued["lease"];
    assert!(lease["id"].as_str().unwrap().starts_with(&format!("{}/", task.session)));
    for (name, value) in [
        ("broker", "warehouse"),
        ("system", "crm"),
        ("operation", "crm.delete"),
        ("state", "wanted"),
        ("task", &*task.id),
        ("session", &*task.session),
        ("decision_id", &*decision),
        ("agent", BOT),
    ] {
        assert_eq!(json!(value), lease[name], "{name}");
    }
    let kept = issuing.reservations().pop().unwrap();
    assert_eq!((true, lease["id"].as_str()), (kept.redeemed, kept.credential.as_deref()));
    assert!(issuing.of_kind(RecordKind::Credential).is_empty());
    let engine = &issuing.served.engine;
    let listed = |filter: Value| -> Value {
        serde_json::from_str(&engine.leases(filter.to_string().as_bytes()).unwrap()).unwrap()
    };
    let all = listed(json!({}));
    assert_eq!((&json!(true), &lease["id"]), (&all[0]["live"], &all[0]["id"]));
    assert_eq!(all, listed(json!({"broker": "warehouse", "session": task.session})));
    assert_eq!(json!([]), listed(json!({"broker": "other"})));
    assert_eq!(json!([]), listed(json!({"session": "s"})));
    assert!(engine.leases(b"{\"task\": 1}").is_err());
    let put = |change: &dyn Fn(&mut Value), state: &str, attempts: u32| {
        let mut record = listed(json!({}))[0].clone();
        change(&mut record);
        let before = json!({"state": state, "attempts": attempts});
        engine.put_lease(record.to_string().as_bytes(), before.to_string().as_bytes()).unwrap()
    };
    let to = |state: &'static str| move |record: &mut Value| record["state"] = json!(state);
    assert!(!put(&to("live"), "live", 0) && !put(&to("live"), "wanted", 1));
    assert!(put(
        &|record| (record["state"], record["name"]) = (json!("live"), json!("authz_1")),
        "wanted",
        0
    ));
    assert!(!put(&to("live"), "wanted", 0), "somebody else was faster");
    assert_eq!(json!("authz_1"), listed(json!({}))[0]["name"]);
    assert!(put(&|record| record["attempts"] = json!(1), "live", 0));
    // A lease of a task that is over does not become live.
    let other = issuing.permit(deleting(&task.id, BOT, "7"));
    let second = issuing.issue(&issue_of(&other, BOT)).unwrap()["lease"].clone();
    end(&issuing.served, &task.id, vec![agent(BOT)], wire::TaskStatus::Completed).unwrap();
    assert_eq!(json!(false), listed(json!({}))[0]["live"]);
    let mut late = second;
    late["state"] = json!("live");
    assert!(!engine.put_lease(late.to_string().as_bytes(), b"{\"state\": \"wanted\"}").unwrap());
    assert!(put(&to("ended"), "live", 1));
    assert_eq!(1, listed(json!({})).as_array().unwrap().len());
    assert!(engine.put_lease(b"{}", b"{}").is_err());
}

/// A lease that never was live gave nobody a secret: what its permit counted is given back. One that was is used.
#[test]
fn given_back() {
    let issuing = Issuing::new();
    issuing.load(REQUIRED, &json!({"leases": {"crm": "warehouse"}}));
    let task = alices(&issuing.served);
    let unused = issuing.uses(&task.id);
    let put = |lease: &Value, state: &str, before: &str| {
        let mut record = lease.clone();
        record["state"] = json!(state);
        let before = json!({"state": before}).to_string();
        let engine = &issuing.served.engine;
        engine.put_lease(record.to_string().as_bytes(), before.as_bytes()).unwrap()
    };
    let leased = || {
        let decision = issuing.permit(deleting(&task.id, BOT, "7"));
        issuing.issue(&issue_of(&decision, BOT)).unwrap()["lease"].clone()
    };
    for (state, rest) in [("ended", 0), ("ending", 0)] {
        let lease = leased();
        assert_ne!(unused, issuing.uses(&task.id));
        assert!(put(&lease, state, "wanted"));
        assert_eq!(unused, issuing.uses(&task.id), "{state}");
        assert_eq!(rest, issuing.reservations().len());
        put(&lease, "ended", "ending");
    }
    let lease = leased();
    assert!(put(&lease, "live", "wanted") && put(&lease, "ending", "live"));
    assert!(put(&lease, "ended", "ending"));
    assert_ne!(unused, issuing.uses(&task.id));
}

/// A lease ends with what it is for, too.
#[test]
fn lease_of_a_revoked_system() {
    let issuing = Issuing::new();
    issuing.load(REQUIRED, &json!({"leases": {"crm": "warehouse"}}));
    let task = alices(&issuing.served);
    let decision = issuing.permit(deleting(&task.id, BOT, "7"));
    let mut lease = issuing.issue(&issue_of(&decision, BOT)).unwrap()["lease"].clone();
    let engine = &issuing.served.engine;
    let live = || {
        let all: Value = serde_json::from_str(&engine.leases(b"{}").unwrap()).unwrap();
        all[0]["live"].clone()
    };
    assert_eq!(json!(true), live());
    let target = Some(wire::admin_revoke_request::Target::System("crm".to_owned()));
    let request = wire::AdminRevokeRequest { target, ..Default::default() }.encode_to_vec();
    engine.call(Surface::Revoke, &request, &Transport::by("admin")).unwrap();
    assert_eq!(json!(false), live());
    lease["state"] = json!("live");
    assert!(!engine.put_lease(lease.to_string().as_bytes(), b"{\"state\": \"wanted\"}").unwrap());
}

/// A secret that no agent may see is given to the enforcer that asked.
#[test]
fn static_secret_instead() {
    let issuing = Issuing::new();
    issuing.load(
        REQUIRED,
        &json!({"static_secrets": {"crm": {"header": "x-api-key", "value": "s3cret"}}}),
    );
    let task = alices(&issuing.served);
    let by = Transport::by("crm");
    let decision = issuing.served.check_by("crm", &wanting(searching(&task.id, BOT))).decision_id;
    let own = wire::IssueRequest { evidence: vec![], ..issue_of(&decision, BOT) };
    assert_eq!(Err("ENFORCER_REFUSED"), issuing.issue(&issue_of(&decision, BOT)));
    assert_eq!(Err("ENFORCER_REFUSED"), issuing.issue_by(&Transport::by("dev"), &own));
    // Without it the permit stays, for when it is back.
    issuing.load(
        REQUIRED,
        &json!({"static_secrets": {"crm": {"header": "x-api-key", "value": null}}}),
    );
    assert_eq!(Err("UNAVAILABLE"), issuing.issue_by(&by, &own));
    issuing.load(
        REQUIRED,
        &json!({"static_secrets": {"crm": {"header": "x-api-key", "value": "s3cret"}}}),
    );
    let issued = issuing.issue_by(&by, &own).unwrap();
    assert_eq!(json!("crm"), issued["static_secret"]["system"]);
    assert!(!issued.to_string().contains("s3cret"));
    assert_eq!(Err("USES_EXHAUSTED"), issuing.issue_by(&by, &own));
    assert!(issuing.reservations().pop().unwrap().redeemed);
    // A permit that the agent asked for itself is no enforcer's.
    let decision = own_permit(&issuing, &task.id);
    let other = wire::IssueRequest { evidence: vec![], ..issue_of(&decision, BOT) };
    assert_eq!(Err("ENFORCER_REFUSED"), issuing.issue_by(&by, &other));
    let records = issuing.served.records();
    assert!(!format!("{records:?}").contains("s3cret"));
}

/// A permit that the agent asked for about itself.
fn own_permit(issuing: &Issuing, task: &str) -> String {
    let decision = issuing.served.check_by("own", &wanting(searching(task, BOT)));
    assert!(!decision.decision_id.is_empty());
    decision.decision_id
}

/// What nobody redeems is given back, once its credential can be used no more; credentials and proofs are forgotten.
#[test]
fn swept() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let leaf = peers::A.leaf(BOT);
    let chain: [&[u8]; 1] = [&leaf];
    let by = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
    let mut jtis = Vec::new();
    for _ in 0..2 {
        let decision = issuing.permit(deleting(&task.id, BOT, "7"));
        let request = wire::IssueRequest { evidence: vec![], ..issue_of(&decision, BOT) };
        let issued = issuing.issue_by(&by, &request).unwrap();
        jtis.push(issued["claims"]["jti"].as_str().unwrap().to_owned());
    }
    assert_eq!(vec![2, 0], issuing.uses(&task.id));
    assert_eq!("USES_EXHAUSTED", code(&issuing.served.check(&deleting(&task.id, BOT, "7"))));
    let engine = &issuing.served.engine;
    assert_eq!((0, 0), (engine.sweep().released, engine.sweep().credentials));
    // One of them was used.
    for (index, one) in issuing.reservations().into_iter().enumerate() {
        let past = Time(now() * 1_000 - 1_000);
        let one = Reservation { due: past, redeemed: index == 0, ..Reservation::clone(&one) };
        issuing.put(Record::Reservation(Arc::new(one)));
    }
    let past = Time(now() * 1_000 - 61_000);
    for jti in &jtis {
        let credential =
            Credential { expires_at: past, ..Credential::clone(&issuing.credential(jti)) };
        issuing.put(Record::Credential(Arc::new(credential)));
    }
    let id = "k/ab".to_owned();
    issuing.put(Record::Proof(Arc::new(authz_kernel::task::Proof {
        id,
        expires_at: past,
        counts: std::collections::BTreeMap::new(),
    })));
    let swept = engine.sweep();
    assert_eq!((1, 1, 2, ""), (swept.committed, swept.released, swept.credentials, &*swept.error));
    assert_eq!(vec![1, 0], issuing.uses(&task.id));
    for kind in [RecordKind::Credential, RecordKind::Proof, RecordKind::Reservation] {
        assert!(issuing.of_kind(kind).is_empty(), "{kind:?}");
    }
    assert_eq!("PERMITTED", code(&issuing.served.check(&deleting(&task.id, BOT, "7"))));
}

/// Its agent, and the enforcers of its system, learn what a credential says; everybody else that it is not active.
#[test]
fn introspected() {
    let issuing = Issuing::new();
    let task = alices(&issuing.served);
    let (token, claims) = issuing.token(&task.id, BOT);
    let mut expected = claims.clone();
    expected["active"] = json!(true);
    expected["token_type"] = json!("Bearer");
    assert_eq!(expected, issuing.known("dev", &token, vec![agent(BOT)]));
    assert_eq!(expected, issuing.known("crm", &token, vec![]), "an enforcer of the system");
    assert_eq!(expected, issuing.known("admin", &token, vec![]), "the owner of the socket");
    let http = |id: &str, token: &str| {
        let request = json!({"client": {"spiffe_id": id, "how": "jwt_svid"}, "token": token});
        issuing.ask(Surface::CredentialIntrospect, "http", request.to_string().into_bytes())
    };
    assert_eq!(Ok(expected), http(BOT, &token));
    let inactive = json!({"active": false});
    assert_eq!(Ok(inactive.clone()), http(TWO, &token));
    assert_eq!(Err("BAD_INPUT"), http("two", &token));
    assert_eq!(inactive, issuing.known("own", &token, vec![agent(TWO)]));
    assert_eq!(inactive, issuing.known("wiki", &token, vec![]), "an enforcer of another system");
    assert_eq!(inactive, issuing.known("dev", &forged(), vec![agent(BOT)]));
    assert_eq!(inactive, issuing.known("dev", &svid(), vec![agent(BOT)]), "another token");
    assert_eq!(inactive, issuing.known("dev", "", vec![agent(BOT)]));
    let mut other = claims.clone();
    other["task"] = json!("0193");
    let other = peers::OWN.sign_credential(&other.to_string());
    assert_eq!(inactive, issuing.known("dev", &other, vec![agent(BOT)]));
    let mut other = claims;
    other["jti"] = json!("0193");
    let other = peers::OWN.sign_credential(&other.to_string());
    assert_eq!(inactive, issuing.known("dev", &other, vec![agent(BOT)]));
    let nobody = wire::IntrospectRequest { evidence: vec![], token };
    assert_eq!(
        Err("NO_CREDENTIAL"),
        issuing.ask(Surface::CredentialIntrospect, "own", nobody.encode_to_vec())
    );
    // What the server says of a client is believed there alone; and there nothing else is asked.
    let claimed = json!({"client": {"spiffe_id": BOT, "how": "jwt_svid"}, "token": "x"});
    let claimed = || claimed.to_string().into_bytes();
    assert_eq!(Err("BAD_INPUT"), issuing.ask(Surface::CredentialRevoke, "dev", claimed()));
    assert_eq!(Err("BAD_INPUT"), issuing.ask(Surface::CredentialRevoke, "http", vec![0xff]));
    let started = crate::tasks::starting(vec![agent(BOT)]).encode_to_vec();
    assert_eq!(Err("ENFORCER_REFUSED"), issuing.ask(Surface::TaskStart, "http", started));
    let text = format!("{:?}", issuing.served.records());
    assert!(!text.contains("eyJ"), "no token in the records");
}

/// The end of a task, of one above it or of what stands behind it, is the end of its credentials, in that moment.
#[test]
fn credentials_end_with_their_task() {
    use wire::admin_revoke_request::Target;
    let over = |ends: &dyn Fn(&Issuing, &wire::Task, &wire::Task, &Value)| {
        let issuing = Issuing::new();
        let root = alices(&issuing.served);
        let child = delegate(&issuing.served, &delegating(&root, BOT, TWO)).unwrap();
        let (token, claims) = issuing.token(&child.id, TWO);
        assert!(issuing.is_active(&token, TWO));
        ends(&issuing, &root, &child, &claims);
        // Seen by an enforcer, whom none of this concerns.
        issuing.known("crm", &token, vec![])
    };
    let revoked = |target: &dyn Fn(&wire::Task, &Value) -> Target| {
        over(&|issuing, root, _, claims| {
            let target = Some(target(root, claims));
            let request = wire::AdminRevokeRequest { target, ..Default::default() };
            let by = Transport::by("admin");
            issuing.served.engine.call(Surface::Revoke, &request.encode_to_vec(), &by).unwrap();
        })
    };
    let inactive = json!({"active": false});
    let ended = |status| {
        move |issuing: &Issuing, root: &wire::Task, _: &wire::Task, _: &Value| {
            end(&issuing.served, &root.id, vec![agent(BOT)], status).unwrap();
        }
    };
    assert_eq!(inactive, over(&ended(wire::TaskStatus::Completed)));
    assert_eq!(inactive, over(&ended(wire::TaskStatus::Aborted)));
    assert_eq!(
        inactive,
        over(&|issuing, _, child, _| {
            end(&issuing.served, &child.id, vec![agent(TWO)], wire::TaskStatus::Completed).unwrap();
        })
    );
    let elapsed = |root: bool| {
        over(&move |issuing, above, child, _| {
            let id = if root { &above.id } else { &child.id };
            let key = RecordKey::new(RecordKind::Task, id);
            let Some(Record::Task(task)) = issuing.store.peek(&key, soon()).unwrap() else {
                panic!()
            };
            let mut task = (*task).clone();
            task.deadline = Time(now() * 1_000 - 1);
            issuing.put(Record::Task(Arc::new(task)));
        })
    };
    assert_eq!(inactive, elapsed(true));
    assert_eq!(inactive, elapsed(false));
    for target in [
        (|root, _| Target::Task(root.id.clone())) as fn(&wire::Task, &Value) -> Target,
        |root, _| Target::Session(root.session.clone()),
        |_, _| Target::Agent(BOT.to_owned()),
        |_, _| Target::Agent(TWO.to_owned()),
        |_, claims| Target::Jti(claims["jti"].as_str().unwrap().to_owned()),
        |_, _| Target::Key(peers::OWN.thumbprint()),
        |_, _| Target::Operation("crm.search".to_owned()),
        |_, _| Target::System("crm".to_owned()),
        |_, _| Target::Issuer("corp".to_owned()),
    ] {
        assert_eq!(inactive, revoked(&target));
    }
    let unrelated = revoked(&|_, _| Target::Operation("wiki.read".to_owned()));
    assert_eq!(json!(true), unrelated["active"]);
}

/// Who may revoke a credential, and what comes of it: it ends, and what nobody used is given back.
#[test]
fn revoked_by_itself() {
    let issuing = Issuing::new();
    let root = alices(&issuing.served);
    let child = delegate(&issuing.served, &delegating(&root, BOT, TWO)).unwrap();
    let made = || issuing.token(&child.id, TWO).0;
    let ends = |by: Vec<wire::Evidence>, listener: &str| {
        let token = made();
        let outcome = issuing.revoke(listener, &token, by);
        (outcome, issuing.is_active(&token, TWO))
    };
    let gone = (Ok(json!({})), false);
    assert_eq!(gone, ends(vec![agent(TWO)], "dev"), "its agent");
    assert_eq!(gone, ends(vec![agent(BOT)], "dev"), "the agent above it");
    let own = evidence(wire::EvidenceRole::Subject, alone_alice());
    assert_eq!(gone, ends(vec![own], "dev"), "the subject, alone");
    let bearer = ends(vec![subject("alice")], "dev");
    assert_eq!((Err("NOT_ASSIGNEE"), true), bearer, "an agent may hold that token");
    assert_eq!(gone, ends(vec![], "admin"), "the owner of the administration socket");
    assert_eq!((Err("NOT_ASSIGNEE"), true), ends(vec![agent(STRANGER)], "dev"));
    assert_eq!((Err("NOT_ASSIGNEE"), true), ends(vec![subject("bob")], "dev"));
    assert_eq!((Err("NO_CREDENTIAL"), true), ends(vec![], "own"));
    assert_eq!((Err("NO_CREDENTIAL"), true), ends(vec![], "crm"));
    let http = |id: &str, token: &str| {
        let request = json!({"client": {"spiffe_id": id, "how": "x509_svid"}, "token": token});
        issuing.ask(Surface::CredentialRevoke, "http", request.to_string().into_bytes())
    };
    // A client is not told that it did not work.
    let token = made();
    assert_eq!((Ok(json!({})), true), (http(STRANGER, &token), issuing.is_active(&token, TWO)));
    assert_eq!((Ok(json!({})), false), (http(TWO, &token), issuing.is_active(&token, TWO)));
    assert_eq!(Ok(json!({})), http(TWO, &token), "again");
    assert_eq!(Ok(json!({})), http(TWO, "x"));
    assert_eq!(Ok(json!({})), issuing.revoke("dev", &forged(), vec![agent(BOT)]));
    // A high one counted as a use; revoked, it does not.
    let leaf = peers::A.leaf(BOT);
    let chain: [&[u8]; 1] = [&leaf];
    let by = Transport { peer_chain: PeerChain::Der(&chain), ..Transport::by("mutual") };
    let decision = issuing.permit(deleting(&root.id, BOT, "7"));
    let request = wire::IssueRequest { evidence: vec![], ..issue_of(&decision, BOT) };
    let issued = issuing.issue_by(&by, &request).unwrap();
    let token = peers::OWN.sign_credential(&issued["claims"].to_string());
    assert!(issuing.is_active(&token, BOT), "who asks is not who presents it");
    assert_eq!(vec![1, 0], issuing.uses(&root.id));
    issuing.revoke("dev", &token, vec![agent(BOT)]).unwrap();
    assert_eq!(vec![0, 0], issuing.uses(&root.id));
    let id = issued["claims"]["jti"].as_str().unwrap();
    assert!(issuing.credential(id).revoked_at.is_some());
    assert!(issuing.reservations().iter().all(|one| one.decision_id != decision));
    let records = issuing.served.records();
    let last =
        records.iter().rev().find(|one| one["labels"]["surface"] == "credential_revoke").unwrap();
    assert_eq!(
        (&json!("PERMIT"), &json!(id)),
        (&last["result"]["outcome"], &last["input"]["credential"]["jti"])
    );
    let refused = records.iter().filter(|one| one["result"]["reason_code"] == "NOT_ASSIGNEE");
    assert_eq!(4, refused.count(), "also the client that was not told");
}

/// Signing keys of all nodes, read and written by name.
#[test]
fn signing_keys() {
    let served = served();
    let listed =
        || -> Value { serde_json::from_str(&served.engine.signing_keys().unwrap()).unwrap() };
    assert_eq!(json!([]), listed());
    let key = json!({
        "kid": "k1", "node": "one", "jwk": "{}", "published_at": 1_000, "active_from": 2_000,
        "expires_at": null,
    });
    served.engine.put_signing_key(key.to_string().as_bytes()).unwrap();
    let mut expected = key.clone();
    expected.as_object_mut().unwrap().remove("expires_at");
    assert_eq!(json!([expected]), listed());
    for (name, value) in [("secret", "x"), ("jwk", "{\"d\": \"x\"}"), ("jwk", "x"), ("node", "")] {
        let mut other = key.clone();
        other[name] = json!(value);
        if name == "node" {
            other.as_object_mut().unwrap().remove(name);
        }
        assert!(served.engine.put_signing_key(other.to_string().as_bytes()).is_err(), "{name}");
    }
    served.engine.remove_signing_key("k1").unwrap();
    served.engine.remove_signing_key("k1").unwrap();
    assert_eq!(json!([]), listed());
    served.engine.close();
    assert!(served.engine.signing_keys().is_err());
}

/// Each setting is required, and no other member is taken.
#[test]
fn settings_are_complete() {
    let complete: Value = serde_json::from_str(&credentials_json(&json!({}))).unwrap();
    let read = |settings: &Value| {
        CredentialSettings::from_json(settings.to_string().as_bytes()).map_err(|e| e.to_string())
    };
    read(&complete).unwrap();
    for name in complete.as_object().unwrap().keys() {
        let mut settings = complete.clone();
        settings.as_object_mut().unwrap().remove(name);
        let error = read(&settings).unwrap_err();
        assert!(error.contains(&format!("missing field `{name}`")), "{error}");
    }
    let mut unknown = complete;
    unknown["dpop"]["windows"] = json!(1);
    assert!(read(&unknown).unwrap_err().contains("windows"));
}

/// A credential ends with its subject's token, also where Issue is not shown it: with the one that was shown for the permit,
/// else with the newest that was shown in the task.
#[test]
fn a_credential_ends_with_the_subjects_token() {
    let issuing = Issuing::new();
    let token = |seconds: i64| {
        let claims = json!({
            "iss": "https://idp.example", "sub": "alice", "aud": "authz", "iat": now(),
            "exp": now() + seconds, "groups": ["employees"],
        });
        evidence(wire::EvidenceRole::Subject, subject_token(&claims))
    };
    let start = |shown: Vec<wire::Evidence>| {
        let mut by = vec![agent(BOT)];
        by.extend(shown);
        crate::tasks::start(&issuing.served, &crate::tasks::starting(by)).unwrap().id
    };
    let permit = |task: &str, shown: Option<wire::Evidence>| {
        let mut request = searching(task, BOT);
        request.evidence.extend(shown);
        issuing.permit(request)
    };
    let lives = |decision: &str, shown: Option<wire::Evidence>| {
        let mut request = issue_of(decision, BOT);
        request.evidence.extend(shown);
        issuing.issue(&request).map(|issued| issued["expires_at"].as_i64().unwrap() - now())
    };
    let about = |seconds: i64, found: Result<i64, &str>| {
        let found = found.unwrap();
        assert!((seconds - 2..=seconds).contains(&found), "{seconds} {found}");
    };
    let task = start(vec![token(40)]);
    about(40, lives(&permit(&task, None), None));
    about(20, lives(&permit(&task, None), Some(token(20))));
    about(30, lives(&permit(&task, Some(token(30))), None));
    about(30, lives(&permit(&task, Some(token(30))), Some(token(90))));
    about(20, lives(&permit(&task, Some(token(30))), Some(token(20))));
    about(40, lives(&permit(&task, None), None));
    // A newer token lives longer.
    about(200, lives(&permit(&task, Some(token(200))), None));
    about(200, lives(&permit(&task, None), None));
    // Nothing ends with a token where there is none.
    let own = start(Vec::new());
    about(900, lives(&permit(&own, None), None));
    // A token that has ended bounds it as well.
    let brief = start(vec![token(1)]);
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(Err("TASK_ENDED"), lives(&permit(&brief, None), None));
    about(60, lives(&permit(&brief, Some(token(60))), None));
}
