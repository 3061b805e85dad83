//! A node on a scripted clock, with its store and audit log in memory, is a function of its calls: the same seed gives the same
//! answers, audit records, spans and metrics, byte for byte. No thread is started for such a node.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use authz_lane::proto::authz::v1 as wire;
use authz_lane::{Clock, Engine, EngineParts, PeerChain, Surface, Transport, World};
use authz_state::store::{Bounds, MemoryStore};
use authz_state::{MemoryAudit, TimeSource};
use prost::Message;
use serde_json::{Value, json};

use crate::access_log;
use crate::credentials::{issuing, read_issued};
use crate::peers;
use crate::report::{TEMPLATES, shop_world};
use crate::support::*;
use crate::tasks::{REQUIRED, TWO, starting};

const AUDIT_BYTES: usize = 64 * 1024 * 1024;
/// Tokens of the walk end after this many seconds; its clock never moves so far.
const TOKEN_LIFETIME: i64 = 20_000;

/// A clock that moves only when it is told to, and ids and random numbers in order.
#[derive(Debug)]
pub struct ScriptedClock {
    since_1970: Duration,
    monotonic: Instant,
    passed_ms: AtomicU64,
    next_id: AtomicU64,
}

impl ScriptedClock {
    pub fn start() -> Self {
        let since_1970 = Duration::from_secs(now().unsigned_abs());
        let monotonic = Instant::now();
        let (passed_ms, next_id) = (AtomicU64::new(0), AtomicU64::new(1));
        Self { since_1970, monotonic, passed_ms, next_id }
    }

    /// A clock at the same time that has not moved yet.
    fn again(&self) -> Self {
        let (passed_ms, next_id) = (AtomicU64::new(0), AtomicU64::new(1));
        Self { since_1970: self.since_1970, monotonic: self.monotonic, passed_ms, next_id }
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.passed_ms.load(Ordering::SeqCst))
    }

    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.passed_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl TimeSource for ScriptedClock {
    fn since_1970(&self) -> Duration {
        self.since_1970 + self.passed()
    }

    fn monotonic(&self) -> Instant {
        self.monotonic + self.passed()
    }
}

impl Clock for ScriptedClock {
    fn sleep(&self, time: Duration) {
        self.advance(time);
    }

    fn new_id(&self) -> String {
        format!("00000000-0000-7000-8000-{:012x}", self.next_id.fetch_add(1, Ordering::SeqCst))
    }

    fn random(&self) -> Option<u64> {
        Some(self.next_id.fetch_add(1, Ordering::SeqCst))
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }

    fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        (!items.is_empty()).then(|| items[self.below(items.len())].clone())
    }
}

/// Credentials of both runs. Signatures are random, so each token is signed once.
struct Credentials {
    agents: BTreeMap<&'static str, String>,
    alice: String,
    certificate: Vec<u8>,
    issued: RefCell<BTreeMap<String, String>>,
}

impl Credentials {
    fn new() -> Self {
        let end = now() + TOKEN_LIFETIME;
        let agent = |id: &'static str| (id, svid_of(&json!({"sub": id, "exp": end})));
        let alice = json!({
            "iss": "https://idp.example", "sub": "alice", "aud": "authz", "exp": end, "iat": now(),
            "groups": ["employees"],
        });
        Self {
            agents: [BOT, TWO].into_iter().map(agent).collect(),
            alice: subject_token(&alice),
            certificate: peers::A.leaf(BOT),
            issued: RefCell::default(),
        }
    }

    fn agent(&self, id: &str) -> wire::Evidence {
        evidence(wire::EvidenceRole::Agent, self.agents[id].clone())
    }

    fn alice(&self) -> wire::Evidence {
        evidence(wire::EvidenceRole::Subject, self.alice.clone())
    }

    /// The token of an answer that issues one.
    fn sign(&self, answer: &[u8]) -> String {
        let claims = read_issued(answer)["claims"].to_string();
        let mut issued = self.issued.borrow_mut();
        issued.entry(claims.clone()).or_insert_with(|| peers::OWN.sign_credential(&claims)).clone()
    }
}

/// Answer to a call, or the text of its error.
type Answer = Result<Vec<u8>, String>;

/// A node and the ids that its answers gave so far.
struct Walk<'a> {
    engine: Engine,
    clock: Arc<ScriptedClock>,
    audit: Arc<MemoryAudit>,
    credentials: &'a Credentials,
    random: Random,
    tasks: Vec<String>,
    decisions: Vec<String>,
    tokens: Vec<String>,
    answers: Vec<Answer>,
}

/// Everything that can be seen of a walk.
#[derive(Debug, PartialEq)]
struct Trace {
    answers: Vec<Answer>,
    audit: String,
    spans: String,
    metrics: String,
}

impl<'a> Walk<'a> {
    fn new(clock: ScriptedClock, credentials: &'a Credentials, seed: u64) -> Self {
        let clock = Arc::new(clock);
        let audit = Arc::new(MemoryAudit::new(AUDIT_BYTES));
        let trace = json!({"parent_based": true, "ratio": 1.0, "queue": 1_000_000});
        let settings = settings("unused".as_ref(), &json!({"trace": trace}));
        let parts = EngineParts {
            store: Arc::new(MemoryStore::with_time_source(
                [7; 32],
                Bounds::default(),
                Arc::clone(&clock) as _,
            )),
            audit: Arc::clone(&audit) as _,
            clock: Arc::clone(&clock) as _,
        };
        let engine = Engine::with_parts(settings, parts).unwrap();
        let mut world = shop_world(REQUIRED, TEMPLATES, "sdk");
        let http = json!([{"name": "http", "http": true}]);
        world.listeners.extend(listeners_of(&http));
        let credentials_settings = Some(issuing(&json!({})));
        engine
            .load(World { credentials: credentials_settings, trust: peers::trust(), ..world })
            .unwrap();
        let (tasks, decisions, tokens, answers) = Default::default();
        let random = Random(seed);
        Self { engine, clock, audit, credentials, random, tasks, decisions, tokens, answers }
    }

    fn run(mut self, steps: usize) -> Trace {
        for _ in 0..steps {
            self.step();
        }
        // A walk does not choose each surface, however long it is.
        for surface in Surface::ALL {
            self.call(surface, "dev", &[0xff]);
        }
        self.engine.close();
        Trace {
            answers: self.answers,
            audit: String::from_utf8(self.audit.take()).unwrap(),
            spans: format!("{:?}", self.engine.spans(usize::MAX)),
            metrics: format!("{:?}", self.engine.metrics()),
        }
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.start_task(),
            1 => self.delegate_task(),
            2 => self.ask_about_tasks(),
            3 => self.end_task(),
            4..=8 => self.check(),
            9 => self.envoy_check(),
            10 => self.batch_check(),
            11 | 12 => self.report(),
            13 => self.issue(),
            14 => self.exchange(),
            15 => self.ask_about_token(),
            16 => self.revoke(),
            17 => self.send_garbage(),
            18 => self.explain(),
            _ => self.pass_time(),
        }
    }

    fn transport<'t>(&self, listener: &'t str) -> Transport<'t> {
        Transport::at(listener, self.clock.monotonic())
    }

    fn call(&mut self, surface: Surface, listener: &str, request: &[u8]) -> Option<Vec<u8>> {
        let transport = self.transport(listener);
        let answer = self.engine.call(surface, request, &transport);
        self.note(answer.map_err(|error| error.to_string()))
    }

    fn note(&mut self, answer: Answer) -> Option<Vec<u8>> {
        self.answers.push(answer.clone());
        answer.ok()
    }

    /// Id of a task; of none so far, an unknown one.
    fn any_task(&mut self) -> String {
        self.random.pick(&self.tasks).unwrap_or_else(|| "t-1".to_owned())
    }

    fn any_decision(&mut self) -> String {
        self.random.pick(&self.decisions).unwrap_or_else(|| "d-1".to_owned())
    }

    fn any_agent(&mut self) -> &'static str {
        self.random.pick(&[BOT, BOT, TWO]).unwrap()
    }

    fn start_task(&mut self) {
        let mut evidence = vec![self.credentials.agent(BOT)];
        if self.random.below(4) > 0 {
            evidence.push(self.credentials.alice());
        }
        let request = starting(evidence).encode_to_vec();
        if let Some(answer) = self.call(Surface::TaskStart, "dev", &request) {
            let task = wire::StartResponse::decode(answer.as_slice()).unwrap().task.unwrap();
            self.tasks.push(task.id);
        }
    }

    fn delegate_task(&mut self) {
        let request = wire::DelegateRequest {
            evidence: vec![self.credentials.agent(BOT)],
            parent: self.any_task(),
            assignee: TWO.to_owned(),
            ..wire::DelegateRequest::default()
        };
        if let Some(answer) = self.call(Surface::TaskDelegate, "dev", &request.encode_to_vec()) {
            let task = wire::DelegateResponse::decode(answer.as_slice()).unwrap().task.unwrap();
            self.tasks.push(task.id);
        }
    }

    fn ask_about_tasks(&mut self) {
        let evidence = vec![self.credentials.agent(self.any_agent())];
        let task = self.any_task();
        match self.random.below(4) {
            0 => {
                let list = wire::TasksListRequest { evidence, ..wire::TasksListRequest::default() };
                self.call(Surface::TaskList, "dev", &list.encode_to_vec());
            }
            1 => {
                let list = wire::ListRequest { evidence, task, ..wire::ListRequest::default() };
                self.call(Surface::List, "dev", &list.encode_to_vec());
            }
            2 => {
                let extend =
                    wire::ExtendRequest { evidence, task, ..wire::ExtendRequest::default() };
                self.call(Surface::TaskExtend, "dev", &extend.encode_to_vec());
            }
            _ => {
                let get = wire::GetRequest { evidence, task };
                self.call(Surface::TaskGet, "dev", &get.encode_to_vec());
            }
        }
    }

    fn end_task(&mut self) {
        // Few tasks end, so that later calls find some.
        if self.random.below(4) > 0 {
            return;
        }
        let request = wire::EndRequest {
            evidence: vec![self.credentials.agent(self.any_agent())],
            task: self.any_task(),
            status: wire::TaskStatus::Completed as i32,
        };
        self.call(Surface::TaskEnd, "dev", &request.encode_to_vec());
    }

    fn any_check(&mut self) -> wire::CheckRequest {
        let names = ["shop.find", "shop.pay", "shop.move", "shop.delete", "quiet.find", "no.such"];
        let operation = self.random.pick(&names).unwrap();
        let arguments = match operation {
            "shop.pay" | "shop.move" => json!({"n": self.random.below(60)}),
            _ => json!({}),
        };
        let task = if self.random.below(8) == 0 { String::new() } else { self.any_task() };
        wire::CheckRequest {
            evidence: vec![self.credentials.agent(self.any_agent())],
            operation: operation.to_owned(),
            arguments_json: arguments.to_string().into_bytes(),
            task,
            wants_credential: self.random.below(4) == 0,
            ..wire::CheckRequest::default()
        }
    }

    fn check(&mut self) {
        let request = self.any_check();
        let listener = self.random.pick(&["dev", "sdk", "sdk", "own", "gate"]).unwrap();
        let answer = self.engine.check(&request.encode_to_vec(), &self.transport(listener));
        let decision = own(&answer);
        if decision.outcome == wire::Outcome::Permit as i32 {
            self.decisions.push(decision.decision_id);
        }
        self.note(Ok(answer));
    }

    fn envoy_check(&mut self) {
        let path = self.random.pick(&["/customers?q=a", "/cards", "/pages", "/none"]).unwrap();
        let bearer = format!("Bearer {}", self.credentials.agents[BOT]);
        let request = http(
            "GET",
            path,
            &[("authorization", &bearer), ("authz-subject", &self.credentials.alice)],
        );
        let answer = self.engine.envoy_check(&request.encode_to_vec(), &self.transport("dev"));
        self.note(Ok(answer));
    }

    fn batch_check(&mut self) {
        let mode = wire::Mode::Probe as i32;
        let items = (0..self.random.below(3))
            .map(|_| wire::CheckRequest { mode, ..self.any_check() })
            .collect();
        let batch = wire::BatchCheckRequest { mode: wire::BatchMode::Snapshot as i32, items };
        let answer = self.engine.batch_check(&batch.encode_to_vec(), &self.transport("dev"));
        self.note(Ok(answer));
    }

    fn report(&mut self) {
        let decision_id = self.any_decision();
        if self.random.below(4) == 0 {
            let code = self.random.pick(&[200, 503]).unwrap();
            let message = access_log::message(vec![access_log::answered(&decision_id, code)]);
            self.call(Surface::AccessLog, "gate", &message);
            return;
        }
        let results = [wire::ReportResult::Ok, wire::ReportResult::Ok, wire::ReportResult::Failed];
        let request = wire::ReportRequest {
            decision_id,
            result: self.random.pick(&results).unwrap() as i32,
            ..wire::ReportRequest::default()
        };
        self.call(Surface::Report, "sdk", &request.encode_to_vec());
    }

    fn issue(&mut self) {
        let request = wire::IssueRequest {
            evidence: vec![self.credentials.agent(self.any_agent())],
            decision_id: self.any_decision(),
            ..wire::IssueRequest::default()
        };
        if let Some(answer) = self.call(Surface::CredentialIssue, "dev", &request.encode_to_vec()) {
            self.tokens.push(self.credentials.sign(&answer));
        }
    }

    fn exchange(&mut self) {
        let details = json!([{"operation": "shop.find", "arguments": {}}]);
        let request = json!({
            "client": {"spiffe_id": BOT, "how": "x509_svid"},
            "subject_token": self.credentials.alice, "actor_token": null, "audience": null,
            "lifetime_seconds": null, "details": details, "template": "desk",
            "params": {"ticket": "7"}, "prompt": null, "parent": null, "proof": null,
            "http_uri": "https://authz.example/token",
        });
        let chain = [self.credentials.certificate.as_slice()];
        let transport = Transport { peer_chain: PeerChain::Der(&chain), ..self.transport("http") };
        let request = request.to_string();
        let answer = self.engine.call(Surface::CredentialExchange, request.as_bytes(), &transport);
        if let Some(answer) = self.note(answer.map_err(|error| error.to_string())) {
            self.tokens.push(self.credentials.sign(&answer));
        }
    }

    fn ask_about_token(&mut self) {
        let token = self.random.pick(&self.tokens).unwrap_or_else(|| "none".to_owned());
        let evidence = vec![self.credentials.agent(self.any_agent())];
        if self.random.below(4) == 0 {
            let request = wire::CredentialsRevokeRequest { evidence, token };
            self.call(Surface::CredentialRevoke, "dev", &request.encode_to_vec());
        } else {
            let request = wire::IntrospectRequest { evidence, token };
            self.call(Surface::CredentialIntrospect, "dev", &request.encode_to_vec());
        }
    }

    fn revoke(&mut self) {
        if self.random.below(2) == 0 {
            let target = Some(wire::forget_request::Target::Agent(BOT.to_owned()));
            let reason = "walk".to_owned();
            let request = wire::ForgetRequest { target, reason, ..Default::default() };
            self.call(Surface::Forget, "admin", &request.encode_to_vec());
        } else {
            let target = Some(wire::admin_revoke_request::Target::Task(self.any_task()));
            let reason = "walk".to_owned();
            let request = wire::AdminRevokeRequest { target, reason, ..Default::default() };
            self.call(Surface::Revoke, "admin", &request.encode_to_vec());
        }
    }

    fn send_garbage(&mut self) {
        let bytes: Vec<u8> =
            (0..self.random.below(40)).map(|_| self.random.below(256).to_le_bytes()[0]).collect();
        let surface = self.random.pick(&Surface::ALL).unwrap();
        let answer = self.engine.check(&bytes, &self.transport("dev"));
        self.note(Ok(answer));
        self.call(surface, "dev", &bytes);
    }

    fn explain(&mut self) {
        let subject = Some(wire::explain_request::Subject::Check(self.any_check()));
        let request = wire::ExplainRequest { subject, overrides: None }.encode_to_vec();
        let bearer = format!("Bearer {}", self.credentials.alice);
        let transport = Transport { authorization: Some(&bearer), ..self.transport("admin") };
        let answer = self.engine.explain(&request, &transport);
        self.note(answer.map_err(|error| error.to_string()));
    }

    fn pass_time(&mut self) {
        let ms = self.random.below(60_000);
        self.clock.advance(Duration::from_millis(ms as u64));
        self.answers.push(Ok(serde_json::to_vec(&self.engine.sweep()).unwrap()));
    }
}

/// Values of a member of the records, at a JSON pointer.
fn members(records: &[Value], pointer: &str) -> BTreeSet<String> {
    let texts = records.iter().filter_map(|record| record.pointer(pointer)?.as_str());
    texts.map(str::to_owned).collect()
}

#[test]
fn a_seed_gives_the_same_node_twice() {
    let clock = ScriptedClock::start();
    let credentials = Credentials::new();
    let mut seen = Vec::new();
    for seed in 1..=4 {
        let first = Walk::new(clock.again(), &credentials, seed).run(300);
        let second = Walk::new(clock.again(), &credentials, seed).run(300);
        for (place, (one, other)) in first.answers.iter().zip(&second.answers).enumerate() {
            assert_eq!(one, other, "seed {seed}: answer {place}");
        }
        for (one, other) in first.audit.lines().zip(second.audit.lines()) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first, second, "seed {seed}");
        seen.extend(first.audit.lines().map(|line| serde_json::from_str(line).unwrap()));
    }
    let other = Walk::new(clock.again(), &credentials, 5).run(300);
    let one = Walk::new(clock.again(), &credentials, 6).run(300);
    assert_ne!(one.audit, other.audit, "a walk depends on its seed");

    // The walk reaches most of the node. Lists and messages of an access log have no record of their own, and no message of a
    // listener resolves an approval, or changes break-glass.
    let paths = members(&seen, "/path");
    let is_recorded = |one: &&Surface| {
        !matches!(
            one,
            Surface::List
                | Surface::AccessLog
                | Surface::ApprovalList
                | Surface::ApprovalResolve
                | Surface::BreakglassOpen
                | Surface::BreakglassConfirm
                | Surface::BreakglassEnd
        )
    };
    let recorded = Surface::ALL.iter().filter(is_recorded);
    let missing: Vec<&str> =
        recorded.map(|one| one.path()).filter(|path| !paths.contains(*path)).collect();
    assert!(missing.is_empty(), "no record of {missing:?}; {paths:?}");
    let codes = members(&seen, "/result/reason_code");
    for code in
        ["PERMITTED", "FORBIDDEN", "NO_TASK", "TASK_ENDED", "NOT_ASSIGNEE", "BAD_INPUT", "NO_ROUTE"]
    {
        assert!(codes.contains(code), "no {code}: {codes:?}");
    }
}
