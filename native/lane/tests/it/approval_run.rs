//! Two nodes on one store that fails, and people, policies and agents that get into each other's way: what is executed is exactly
//! what a person saw and what policy permitted at that moment, once.
//!
//! A schedule is a seed. Its oracle knows nothing of the engine but its answers: it notes what each person was shown and said, and
//! looks up for every permit whether that covers it. `AUTHZ_APPROVAL_SCHEDULES` says how many schedules run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use authz_kernel::plan::Plan;
use authz_kernel::task::{Breakglasses, Record, RecordKey, Revocations};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{Engine, EngineParts, Guard, Surface, Transport, World, remove_guard};
use authz_state::store::{
    Bounds, Commit, MemoryStore, Page, Query, Store, StoreError, StoreHealth, Survives, Work,
};
use authz_state::{AuditError, MemoryAudit, Ticket, TimeSource as _};
use prost::Message;
use serde_json::{Value, json};

use crate::approvals::{bank_plan, person};
use crate::replay::ScriptedClock;
use crate::support::*;
use crate::tasks::starting;

/// Schedules of a test run, and steps of each.
const SCHEDULES: u64 = 200;
const STEPS: usize = 40;
/// Schedules within which a missing rule is found.
const TO_FIND: u64 = 1_000;
/// Seconds for which tokens are valid; no schedule takes longer.
const LIFETIME: i64 = 80_000;
/// Time for which an answer is good, in milliseconds.
const GOOD_MS: u128 = 600_000;

/// A rule over payments that needs a kind, with a text that tells its version.
fn rule(id: &str, kind: &str, when: &str) -> String {
    format!(
        "@id(\"{id}\") @stepup(\"{kind}\") @reason(\"{id}\") forbid(principal, action == Action::\"bank.pay\", resource)\n\
         {when} unless {{ context.satisfied.contains(Kind::\"{kind}\") }};\n"
    )
}

/// The bundles between which nodes change.
const VARIANTS: usize = 5;

/// Names of the rules that a payment falls under. `None`: nothing permits it.
fn required(variant: usize, is_secret: bool) -> Option<BTreeSet<&'static str>> {
    let mut rules = match variant {
        0 => BTreeSet::from(["a1"]),
        1 => BTreeSet::from(["a2"]),
        2 => BTreeSet::from(["a1", "b1"]),
        3 => return None,
        _ => BTreeSet::new(),
    };
    if is_secret {
        rules.insert("s1");
    }
    Some(rules)
}

fn policies(variant: usize) -> String {
    let mut text = rule(
        "s1",
        "approve:finance",
        "when { context.session.labels.contains(Label::\"secret\") }",
    );
    text.push_str(&match variant {
        0 => rule("a1", "approve:finance", ""),
        1 => rule("a2", "approve:finance", ""),
        2 => rule("a1", "approve:finance", "") + &rule("b1", "approve", ""),
        3 => {
            "@id(\"never\") forbid(principal, action == Action::\"bank.pay\", resource);".to_owned()
        }
        _ => String::new(),
    });
    // Roles and the chain alone say who answers: every employee is permitted to.
    text.push_str(
        "@id(\"answers\") permit(principal in Role::\"staff\", action == Action::\"authz.approve\", resource);",
    );
    text
}

static PLANS: LazyLock<Vec<Arc<Plan>>> =
    LazyLock::new(|| (0..VARIANTS).map(|variant| bank_plan(&policies(variant))).collect());

/// Evidence of all schedules: each token is signed once.
struct Evidence {
    bot: wire::Evidence,
    alice: wire::Evidence,
}

static EVIDENCE: LazyLock<Evidence> = LazyLock::new(|| {
    let end = now() + LIFETIME;
    let claims = json!({
        "iss": "https://idp.example", "sub": "alice", "aud": "authz", "exp": end, "iat": now(),
        "groups": ["employees", "finance"],
    });
    Evidence {
        bot: evidence(wire::EvidenceRole::Agent, svid_of(&json!({"exp": end}))),
        alice: evidence(wire::EvidenceRole::Subject, subject_token(&claims)),
    }
});

/// People who answer: name, and whether they hold the role `finance`. Alice is the subject of every call.
const PEOPLE: [(&str, bool); 4] = [("alice", true), ("dan", true), ("eve", true), ("carol", false)];

fn person_of(index: usize) -> Value {
    let (name, is_finance) = PEOPLE[index];
    match is_finance {
        true => person(name, &["employees", "finance"]),
        false => person(name, &["employees"]),
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
}

/// Failure of the next transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Nothing changes.
    Unavailable,
    /// Everything changes, and the answer is lost.
    LostAnswer,
}

type Between = Box<dyn FnOnce() + Send>;

/// A store that fails as it is told, and lets something happen before a transaction begins.
#[derive(Debug)]
struct FaultyStore {
    inner: MemoryStore,
    fault: Mutex<Fault>,
    between: Mutex<Hook>,
    /// Calls believe that other nodes change the store, too.
    is_remote: bool,
}

#[derive(Default)]
struct Hook(Option<Between>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Store for FaultyStore {
    fn is_remote(&self) -> bool {
        self.is_remote
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
        let between = self.between.lock().unwrap().0.take();
        if let Some(between) = between {
            between();
        }
        match std::mem::replace(&mut *self.fault.lock().unwrap(), Fault::None) {
            Fault::None => self.inner.transact(locks, survives, until, work),
            Fault::Unavailable => Err(StoreError::unavailable("told to")),
            Fault::LostAnswer => {
                self.inner.transact(locks, survives, until, work)?;
                Ok(Commit::Pending(Ticket::settled(Err(AuditError::Failed))))
            }
        }
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

/// A payment, as a person is shown it: task, and arguments.
type Payment = (usize, i64);

/// What a person was shown and said.
#[derive(Clone, Debug)]
struct Shown {
    payment: Payment,
    rules: BTreeSet<String>,
    queues: BTreeSet<String>,
    /// Who approved for which queue, and when.
    answers: Vec<(usize, String, u128)>,
    is_used: bool,
}

/// What is known of a session's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    No,
    Maybe,
    Yes,
}

/// What the oracle knows.
#[derive(Debug, Default)]
struct Oracle {
    shown: BTreeMap<String, Shown>,
    /// Payments that a person rejected, whatever the task.
    rejected: BTreeSet<i64>,
    is_revoked: bool,
    /// Permits that needed a person.
    lifted: u64,
}

impl Oracle {
    /// Checks that a payment which was permitted may have been.
    fn executed(
        &mut self,
        payment: Payment,
        variant: usize,
        secret: Known,
        now_ms: u128,
    ) -> Result<(), String> {
        if self.is_revoked {
            return Err(format!("{payment:?} is of a revoked operation"));
        }
        let Some(rules) = required(variant, secret == Known::Yes) else {
            return Err(format!("{payment:?} is forbidden by bundle {variant}"));
        };
        if rules.is_empty() {
            return Ok(());
        }
        if self.rejected.contains(&payment.1) {
            return Err(format!("{payment:?} was rejected"));
        }
        let covers = |shown: &&mut Shown| {
            !shown.is_used
                && shown.payment == payment
                && rules.iter().all(|rule| shown.rules.contains(*rule))
                && is_approved(shown, now_ms)
        };
        match self.shown.values_mut().find(covers) {
            Some(shown) => shown.is_used = true,
            None => return Err(format!("nobody approved {payment:?} under {rules:?}")),
        }
        self.lifted += 1;
        Ok(())
    }
}

/// Whether the right people approved, and the last of them at most ten minutes ago.
fn is_approved(shown: &Shown, now_ms: u128) -> bool {
    let is_right = |person: usize, queue: &str| {
        let (name, is_finance) = PEOPLE[person];
        name != "alice" && (queue == "approve" || is_finance)
    };
    let valid: Vec<&(usize, String, u128)> =
        shown.answers.iter().filter(|(person, queue, _)| is_right(*person, queue)).collect();
    let has = |queue: &String| valid.iter().any(|(_, of, _)| of == queue || queue == "approve");
    let last = valid.iter().map(|(_, _, at)| *at).max().unwrap_or_default();
    shown.queues.iter().all(has) && now_ms < last + GOOD_MS
}

/// One schedule.
struct Run {
    store: Arc<FaultyStore>,
    clock: Arc<ScriptedClock>,
    nodes: Vec<(Arc<Engine>, usize)>,
    tasks: Vec<(String, Known)>,
    /// Approvals that calls were told of, newest last.
    asked: Vec<(String, Payment)>,
    random: Random,
    oracle: Oracle,
}

fn node(store: &Arc<FaultyStore>, clock: &Arc<ScriptedClock>, variant: usize) -> Arc<Engine> {
    let parts = EngineParts {
        store: Arc::clone(store) as _,
        audit: Arc::new(MemoryAudit::new(16 * 1024 * 1024)),
        clock: Arc::clone(clock) as _,
    };
    let engine = Engine::with_parts(settings("unused".as_ref(), &json!({})), parts).unwrap();
    engine.load(World { plan: Arc::clone(&PLANS[variant]), ..world() }).unwrap();
    Arc::new(engine)
}

fn decision(
    engine: &Engine,
    clock: &ScriptedClock,
    request: &wire::CheckRequest,
) -> wire::Decision {
    let transport = Transport::at("dev", clock.monotonic());
    own(&engine.check(&request.encode_to_vec(), &transport))
}

fn is_permitted(decision: &wire::Decision) -> bool {
    decision.outcome == wire::Outcome::Permit as i32
}

impl Run {
    fn new(seed: u64) -> Self {
        let clock = Arc::new(ScriptedClock::start());
        let store = Arc::new(FaultyStore {
            inner: MemoryStore::with_time_source(
                [7; 32],
                Bounds::default(),
                Arc::clone(&clock) as _,
            ),
            fault: Mutex::new(Fault::None),
            between: Mutex::default(),
            is_remote: seed % 2 == 1,
        });
        let nodes = vec![(node(&store, &clock, 0), 0), (node(&store, &clock, 0), 0)];
        let mut run = Self {
            store,
            clock,
            nodes,
            tasks: Vec::new(),
            asked: Vec::new(),
            random: Random(seed),
            oracle: Oracle::default(),
        };
        (0..2).for_each(|_| run.start());
        run
    }

    fn now_ms(&self) -> u128 {
        self.clock.since_1970().as_millis()
    }

    fn start(&mut self) {
        let request = starting(vec![EVIDENCE.bot.clone(), EVIDENCE.alice.clone()]);
        let transport = Transport::at("dev", self.clock.monotonic());
        let answer =
            self.nodes[0].0.call(Surface::TaskStart, &request.encode_to_vec(), &transport).unwrap();
        let task = wire::StartResponse::decode(answer.as_slice()).unwrap().task.unwrap();
        self.tasks.push((task.id, Known::No));
    }

    fn calling(&self, task: usize, operation: &str, arguments: &Value) -> wire::CheckRequest {
        wire::CheckRequest {
            evidence: vec![EVIDENCE.bot.clone()],
            task: self.tasks[task].0.clone(),
            operation: operation.to_owned(),
            arguments_json: arguments.to_string().into_bytes(),
            ..wire::CheckRequest::default()
        }
    }

    fn paying(&self, (task, amount): Payment) -> wire::CheckRequest {
        self.calling(task, "bank.pay", &json!({"to": "DE1", "amount": amount}))
    }

    fn step(&mut self) -> Result<(), String> {
        if self.random.below(12) == 0 {
            let fault = [Fault::Unavailable, Fault::LostAnswer][self.random.below(2)];
            *self.store.fault.lock().unwrap() = fault;
        }
        let done = match self.random.below(20) {
            0..=7 => self.pay(),
            8..=13 => self.answer(),
            14 => {
                self.reload();
                Ok(())
            }
            15 => {
                self.read();
                Ok(())
            }
            16 => {
                self.revoke();
                Ok(())
            }
            17 => {
                let minutes = 1 + self.random.below(11) as u64;
                self.clock.advance(Duration::from_secs(minutes * 60));
                Ok(())
            }
            18 => {
                self.kill();
                Ok(())
            }
            _ => self.race(),
        };
        *self.store.fault.lock().unwrap() = Fault::None;
        done
    }

    /// A payment: often one that people were asked about.
    fn payment(&mut self) -> Payment {
        if !self.asked.is_empty() && self.random.below(3) > 0 {
            let from = self.asked.len().saturating_sub(3);
            let at = from + self.random.below(self.asked.len() - from);
            return self.asked[at].1;
        }
        (self.random.below(self.tasks.len()), i64::try_from(self.random.below(3)).unwrap())
    }

    fn pay(&mut self) -> Result<(), String> {
        let payment = self.payment();
        let at = self.random.below(self.nodes.len());
        let mut request = self.paying(payment);
        if self.random.below(4) == 0
            && let Some((id, _)) = self.asked.last()
        {
            request.approval_id.clone_from(id);
        }
        let (engine, variant) = (Arc::clone(&self.nodes[at].0), self.nodes[at].1);
        let answer = decision(&engine, &self.clock, &request);
        self.paid(payment, variant, &answer)
    }

    /// Takes note of the answer to a payment.
    fn paid(
        &mut self,
        payment: Payment,
        variant: usize,
        answer: &wire::Decision,
    ) -> Result<(), String> {
        if let Some(challenge) = &answer.challenge {
            self.asked.push((challenge.approval_id.clone(), payment));
        }
        if !is_permitted(answer) {
            return Ok(());
        }
        let secret = self.tasks[payment.0].1;
        self.oracle.executed(payment, variant, secret, self.now_ms())
    }

    /// A person looks at an approval, and answers.
    fn answer(&mut self) -> Result<(), String> {
        if self.asked.is_empty() {
            return Ok(());
        }
        let from = self.asked.len().saturating_sub(4);
        let at = from + self.random.below(self.asked.len() - from);
        let (id, payment) = self.asked[at].clone();
        let who = self.random.below(PEOPLE.len());
        let approves = self.random.below(8) > 0;
        let engine = Arc::clone(&self.nodes[self.random.below(self.nodes.len())].0);
        let request = wire::ApprovalsGetRequest { approval_id: id.clone(), ..Default::default() };
        // The administrator looks for the person, so that only the answer is refused to those who may not give it.
        let Ok(shown) = engine.approval_show(b"null", &request.encode_to_vec()) else {
            return Ok(());
        };
        let shown = wire::ApprovalsGetResponse::decode(shown.as_slice()).unwrap().approval.unwrap();
        let arguments: Value = serde_json::from_slice(&shown.arguments_json).unwrap();
        if shown.task != self.tasks[payment.0].0 || arguments["amount"] != json!(payment.1) {
            return Err(format!("{payment:?} is shown as {arguments} of task {}", shown.task));
        }
        let queues = shown.waits_for.clone();
        let queue = match queues.as_slice() {
            [] => String::new(),
            all => all[self.random.below(all.len())].clone(),
        };
        let status = match approves {
            true => wire::ApprovalStatus::Approved,
            false => wire::ApprovalStatus::Rejected,
        };
        let resolve = wire::ResolveRequest {
            approval_id: id.clone(),
            status: status as i32,
            digest: shown.digest.clone(),
            card_digest: vec![1; 32],
            queue: queue.clone(),
            ..wire::ResolveRequest::default()
        };
        let is_lost = *self.store.fault.lock().unwrap() == Fault::LostAnswer;
        let person = person_of(who).to_string();
        let done = engine.approval_resolve(person.as_bytes(), &resolve.encode_to_vec());
        let now_ms = self.now_ms();
        let entry = self.oracle.shown.entry(id).or_insert_with(|| Shown {
            payment,
            rules: shown.reasons.iter().map(|one| one.policy_id.clone()).collect(),
            queues: waiting(&shown),
            answers: Vec::new(),
            is_used: false,
        });
        match (approves, done.is_ok()) {
            // Of an answer that was lost nobody knows whether it counts; the person gave it.
            (true, is_ok) if is_ok || is_lost => entry.answers.push((who, queue, now_ms)),
            (false, true) => {
                self.oracle.rejected.insert(payment.1);
            }
            _ => {}
        }
        Ok(())
    }

    fn reload(&mut self) {
        let (at, variant) = (self.random.below(self.nodes.len()), self.random.below(VARIANTS));
        let (engine, before) = &mut self.nodes[at];
        engine.load(World { plan: Arc::clone(&PLANS[variant]), ..world() }).unwrap();
        *before = variant;
    }

    /// Reads a secret: its label joins the session.
    fn read(&mut self) {
        let task = self.random.below(self.tasks.len());
        let request = self.calling(task, "bank.read", &json!({}));
        let engine = Arc::clone(&self.nodes[self.random.below(self.nodes.len())].0);
        let answer = decision(&engine, &self.clock, &request);
        let known = &mut self.tasks[task].1;
        *known = match is_permitted(&answer) {
            true => Known::Yes,
            false if *known == Known::No => Known::Maybe,
            false => *known,
        };
    }

    /// Revokes payments, or lifts that again.
    fn revoke(&mut self) {
        *self.store.fault.lock().unwrap() = Fault::None;
        let request = wire::AdminRevokeRequest {
            target: Some(Target::Operation("bank.pay".to_owned())),
            undo: self.oracle.is_revoked,
            reason: "the schedule".to_owned(),
            by: "the schedule".to_owned(),
        };
        let transport = Transport::at("admin", self.clock.monotonic());
        self.nodes[0].0.call(Surface::Revoke, &request.encode_to_vec(), &transport).unwrap();
        self.oracle.is_revoked = !self.oracle.is_revoked;
        // Most of a schedule is about other things.
        if self.oracle.is_revoked && self.random.below(2) == 0 {
            self.revoke();
        }
    }

    /// A node dies, and another one takes its place.
    fn kill(&mut self) {
        let at = self.random.below(self.nodes.len());
        let variant = self.nodes[at].1;
        self.nodes[at] = (node(&self.store, &self.clock, variant), variant);
    }

    /// Something happens between the first judgement of a payment and its transaction: the other node answers the same payment, or
    /// this node loads another bundle.
    fn race(&mut self) -> Result<(), String> {
        let payment = self.payment();
        let (one, other) = (Arc::clone(&self.nodes[0].0), Arc::clone(&self.nodes[1].0));
        let (variant, other_variant) = (self.nodes[0].1, self.nodes[1].1);
        let (clock, request) = (Arc::clone(&self.clock), self.paying(payment));
        let heard: Arc<Mutex<Option<wire::Decision>>> = Arc::default();
        let (tell, same) = (Arc::clone(&heard), request.clone());
        self.store.between.lock().unwrap().0 =
            Some(Box::new(move || *tell.lock().unwrap() = Some(decision(&other, &clock, &same))));
        let answer = decision(&one, &self.clock, &request);
        self.store.between.lock().unwrap().0 = None;
        let between = heard.lock().unwrap().take();
        if let Some(between) = between {
            self.paid(payment, other_variant, &between)?;
        }
        self.paid(payment, variant, &answer)
    }
}

/// Queues of an approval: those that wait, and those that were answered.
fn waiting(shown: &wire::Approval) -> BTreeSet<String> {
    let answered = shown.answers.iter().map(|one| one.queue.clone());
    shown.waits_for.iter().cloned().chain(answered).collect()
}

/// Runs schedules. Returns the seed and the finding of the first that breaks the rule, and the number of permits that people gave.
fn run(schedules: u64) -> (Option<(u64, String)>, u64) {
    let mut lifted = 0;
    for seed in 0..schedules {
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            if let Err(finding) = run.step() {
                return (Some((seed, finding)), lifted);
            }
        }
        lifted += run.oracle.lifted;
    }
    (None, lifted)
}

/// What is executed is exactly what a person saw and what policy permitted at that moment, once.
#[test]
fn schedules() {
    let asked = std::env::var("AUTHZ_APPROVAL_SCHEDULES").ok();
    let schedules = asked.and_then(|text| text.parse().ok()).unwrap_or(SCHEDULES);
    let (found, lifted) = run(schedules);
    assert_eq!(None, found);
    assert!(lifted * 2 >= schedules, "only {lifted} permits of people in {schedules} schedules");
}

/// Each rule, taken away, is found.
#[test]
fn a_missing_rule_is_found() {
    for guard in Guard::ALL {
        remove_guard(Some(guard));
        let (found, _) = run(TO_FIND);
        remove_guard(None);
        assert!(found.is_some(), "nothing is found without {guard:?}");
    }
}
