//! Runs the events of a scenario, and checks the invariants after each.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use authz_base::record::approval::{Approval, ApprovalStatus};
use authz_base::record::task::TaskStatus;
use authz_base::record::{Record, RecordKey, RecordKind};
use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::authz::v1::admin_revoke_request::Target;
use authz_lane::{StateEngine, Surface};
use authz_state::store::{
    AuditSink, EmbeddedSettings, EmbeddedStore, MemoryStore, Store, WriterStep,
};
use authz_state::{AuditLog as _, Durability};
use prost::Message as _;
use serde_json::json;

use crate::bundle::{BOT, REPORT_WITHIN_MS, TWO, agent_evidence, alice_evidence};
use crate::clock::{NodeClock, WorldTime};
use crate::disk::{RunFolder, SimulatedDisk};
use crate::events::{
    Action, Delivery, Event, MAX_NODES, Operation, Revoked, Scenario, Setup, Told,
};
use crate::faults::FaultKind;
use crate::model::{
    Model, ModelApproval, ModelTask, Permit, Restriction, RevokedTarget, SeenCheck, Violation,
};
use crate::node::{Answer, Entry, Node, SimulatedAudit, answer, shown_digest, wall_ms};
use crate::planted::Bug;
use crate::random::Random;
use crate::store::{
    Moment, NestedCall, RunShared, SimulatedStore, StoreParts, all_of, lose_at_restart, never,
    shared_store,
};

/// Pages of 4 KiB of the SQLite file of a small disk.
const SMALL_FILE_PAGES: u32 = 24;

/// Result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The first broken invariant, and the number of the event that broke it.
    pub violation: Option<(usize, Violation)>,
    pub faults: BTreeSet<FaultKind>,
    pub permits: usize,
    /// One line for each answer.
    pub log: Vec<String>,
}

/// Runs a scenario, without a log.
pub fn run(scenario: &Scenario, bug: Option<Bug>) -> Outcome {
    play(scenario, bug, false)
}

/// Runs a scenario, with a log.
pub fn run_logged(scenario: &Scenario, bug: Option<Bug>) -> Outcome {
    play(scenario, bug, true)
}

fn play(scenario: &Scenario, bug: Option<Bug>, is_logged: bool) -> Outcome {
    let mut run = Run::new(scenario.setup, bug);
    run.is_logged = is_logged;
    let violation = run.play(&scenario.events);
    let faults = std::mem::take(&mut *run.shared.faults.lock().unwrap());
    Outcome { violation, faults, permits: run.model.permits.len(), log: run.log }
}

/// Subject of a message, by which its answer is noted.
#[derive(Clone, Debug)]
enum Sent {
    Start,
    Delegate { parent: usize },
    End { task: usize },
    Check { task: usize, operation: Operation, amount: i64, key: Option<String> },
    Report { permit: usize, told: Told },
    Resolve { approval: usize, approves: bool },
    RevokeTask { task: usize },
    Revoke(RevokedTarget),
}

impl Sent {
    /// True if the node handles the message in a transaction that sees all that was committed before.
    const fn is_stateful(&self) -> bool {
        match self {
            Self::Check { operation, .. } => !operation.is_stateless(),
            _ => true,
        }
    }

    /// True if later calls may be permitted because of the message.
    const fn gives(&self) -> bool {
        matches!(self, Self::Report { .. } | Self::Resolve { .. })
    }
}

/// A message on its way to a node.
#[derive(Clone, Debug)]
struct Call {
    node: usize,
    entry: Entry,
    bytes: Vec<u8>,
    sent: Sent,
}

/// Facts of the moment at which a node received a message.
#[derive(Clone, Copy, Debug)]
struct Received {
    seq: u64,
    wall_ms: i64,
    at_ms: u64,
    noticed: Option<u64>,
    /// Transactions of the node that changed records. `None`: another call comes in between.
    changes: Option<u64>,
}

/// A place for a node, which may have stopped.
struct Seat {
    node: Option<Node>,
    clock: Arc<NodeClock>,
    audit: Arc<SimulatedAudit>,
    /// Place of its last notice in the order of answers.
    noticed: u64,
}

struct Run {
    setup: Setup,
    bug: Option<Bug>,
    world: Arc<WorldTime>,
    shared: Arc<RunShared>,
    memory: Arc<MemoryStore>,
    disk: SimulatedDisk,
    folder: RunFolder,
    /// The open store of a node with an embedded one.
    embedded: Option<Arc<EmbeddedStore>>,
    seats: Vec<Seat>,
    model: Model,
    late: Vec<(usize, Call)>,
    keys: u64,
    log: Vec<String>,
    is_logged: bool,
}

impl Run {
    fn new(setup: Setup, bug: Option<Bug>) -> Self {
        let world = Arc::new(WorldTime::default());
        let shared = Arc::new(RunShared::default());
        let memory = Arc::new(shared_store(&Arc::new(NodeClock::new(&world, MAX_NODES))));
        let seats = (0..setup.nodes()).map(|number| Seat {
            node: None,
            clock: Arc::new(NodeClock::new(&world, number)),
            audit: Arc::new(SimulatedAudit::new()),
            noticed: 0,
        });
        let mut run = Self {
            setup,
            bug,
            world: Arc::clone(&world),
            disk: SimulatedDisk::new(&shared, bug),
            folder: RunFolder::new(),
            embedded: None,
            shared,
            memory,
            seats: seats.collect(),
            model: Model::default(),
            late: Vec::new(),
            keys: 0,
            log: Vec::new(),
            is_logged: false,
        };
        for number in 0..setup.nodes() {
            run.start(number);
        }
        run
    }

    /// Starts the process of a node, which a disk without room may prevent.
    fn start(&mut self, number: usize) {
        if self.setup == Setup::Embedded && !self.open_embedded() {
            return;
        }
        let seat = &self.seats[number];
        let core: Arc<dyn Store> = match &self.embedded {
            Some(embedded) => Arc::clone(embedded) as _,
            None => Arc::clone(&self.memory) as _,
        };
        let store = SimulatedStore::new(StoreParts {
            core,
            has_view: matches!(self.setup, Setup::Shared { .. }),
            shared: Arc::clone(&self.shared),
            world: Arc::clone(&self.world),
            clock: Arc::clone(&seat.clock),
            node: number,
            bug: self.bug,
        });
        let kind = match self.setup {
            Setup::Memory => StateEngine::Memory,
            Setup::Embedded => StateEngine::Embedded,
            Setup::Shared { .. } => StateEngine::Postgresql,
        };
        let node = Node::start(kind, number, store, &seat.clock, &seat.audit);
        let seat = &mut self.seats[number];
        seat.node = Some(node);
        seat.noticed = self.model.seq;
    }

    /// Opens the embedded store. Returns false if its disk does not let it.
    fn open_embedded(&mut self) -> bool {
        self.disk.begin_process();
        let mut settings = EmbeddedSettings::new(self.folder.0.clone());
        settings.max_pages = self.disk.has_small_file().then_some(SMALL_FILE_PAGES);
        // Events move the journal to the SQLite file.
        settings.checkpoint_interval = Duration::MAX;
        let audit = Arc::clone(&self.seats[0].audit);
        let sink: AuditSink =
            Arc::new(move |line: &[u8], _| audit.submit(line, Durability::Synced));
        match EmbeddedStore::open_stepped(settings, sink, &self.disk) {
            Ok(store) => {
                // What was open before is in the SQLite file now.
                self.shared.synced.store(self.commit(), Ordering::SeqCst);
                if let Some(bug) = self.bug {
                    lose_at_restart(&store, bug);
                }
                self.embedded = Some(Arc::new(store));
                true
            }
            Err(error) => {
                if self.is_logged {
                    // The folder differs from run to run.
                    let folder = self.folder.0.display().to_string();
                    let error = error.to_string().replace(&folder, "FOLDER");
                    self.log.push(format!("the store cannot be opened: {error}"));
                }
                false
            }
        }
    }

    /// Ends the process of a node, in the middle of its work.
    fn stop(&mut self, number: usize, power: Option<&mut Random>) {
        if self.seats[number].node.take().is_none() {
            return;
        }
        let Some(embedded) = self.embedded.take() else { return };
        embedded.abandon();
        if let Some(random) = power {
            self.shared.note(FaultKind::PowerLost);
            self.disk.lose_power(random);
            self.model.lose_power(self.shared.synced.load(Ordering::SeqCst));
        }
    }

    fn step_embedded(&self, step: WriterStep) {
        let Some(embedded) = &self.embedded else { return };
        if embedded.step(step) {
            self.shared.synced.store(self.commit(), Ordering::SeqCst);
        }
    }

    /// Plays the events until an invariant breaks.
    fn play(&mut self, events: &[Event]) -> Option<(usize, Violation)> {
        for (step, event) in events.iter().enumerate() {
            let played = self.deliver_late(step).and_then(|()| self.step(step, event));
            if self.disk.is_dead() {
                self.shared.note(FaultKind::NodeStopped);
                self.stop(0, None);
            }
            if let Err(violation) = played.and_then(|()| self.check_state()) {
                return Some((step, violation));
            }
        }
        let end = self.deliver_late(usize::MAX).and_then(|()| self.end());
        end.err().map(|violation| (events.len(), violation))
    }

    /// Ends all faults, starts the nodes that are stopped, and checks once more.
    fn end(&mut self) -> Result<(), Violation> {
        self.disk.repair();
        for number in 0..self.seats.len() {
            self.seats[number].audit.set_full(false);
            self.stop(number, None);
            self.start(number);
            if self.seats[number].node.is_none() {
                return Err(Violation::new("nodes start", format!("node {number} does not")));
            }
        }
        self.step_embedded(WriterStep::Checkpoint);
        self.check_state()?;
        self.check_audit(|_| true)
    }

    fn deliver_late(&mut self, step: usize) -> Result<(), Violation> {
        while let Some(at) = self.late.iter().position(|(due, _)| *due <= step) {
            let (_, call) = self.late.remove(at);
            self.shared.note(FaultKind::MessageReordered);
            self.exchange(&call, None)?;
        }
        Ok(())
    }

    fn step(&mut self, step: usize, event: &Event) -> Result<(), Violation> {
        let number = event.node % self.seats.len();
        match event.action {
            Action::PassTime { ms, lost } => self.pass_time(ms, lost),
            Action::JumpClock { ms } => {
                self.shared.note(FaultKind::ClockJump);
                self.seats[number].clock.set_offset_ms(ms);
            }
            Action::FailStore(failure) => {
                if let Some(node) = &self.seats[number].node {
                    node.store.fail_next(failure);
                }
            }
            Action::FillAudit => self.seats[number].audit.set_full(true),
            Action::EmptyAudit => self.seats[number].audit.set_full(false),
            Action::Sweep => {
                if let Some(node) = &self.seats[number].node {
                    let swept_ms = wall_ms(&self.seats[number].clock);
                    self.model.swept_ms = self.model.swept_ms.max(swept_ms);
                    let swept = node.engine.sweep();
                    if self.is_logged {
                        self.log.push(format!("node {number}, sweep: {}", swept.error));
                    }
                }
            }
            Action::Stop { loses_power } => {
                let mut random = Random::new(event.which as u64);
                if self.seats[number].node.is_some() {
                    self.shared.note(FaultKind::NodeStopped);
                }
                self.stop(number, loses_power.then_some(&mut random));
            }
            Action::Revive => {
                if self.seats[number].node.is_none() {
                    self.start(number);
                    if self.seats[number].node.is_some() {
                        self.shared.note(FaultKind::NodeRevived);
                    }
                }
            }
            Action::FailDisk(fault) => self.disk.fail(fault),
            Action::RepairDisk => self.disk.repair(),
            Action::Checkpoint => self.step_embedded(WriterStep::Checkpoint),
            _ => return self.send(step, event),
        }
        Ok(())
    }

    fn pass_time(&mut self, ms: u64, lost: usize) {
        self.world.advance(ms);
        self.step_embedded(WriterStep::Send);
        for (number, seat) in self.seats.iter_mut().enumerate() {
            let Some(node) = seat.node.as_ref().filter(|node| node.store.has_view()) else {
                continue;
            };
            if lost & (1 << number) == 0 {
                node.store.refresh();
                seat.noticed = self.model.seq;
            } else {
                self.shared.note(FaultKind::NoticeLost);
            }
        }
    }

    /// Sends the message of an event.
    fn send(&mut self, step: usize, event: &Event) -> Result<(), Violation> {
        let Some(call) = self.call(event) else { return Ok(()) };
        let nested = event
            .nested
            .as_ref()
            .and_then(|(moment, nested)| self.call(nested).map(|call| (*moment, call)));
        match event.delivery {
            Delivery::RequestLost => self.shared.note(FaultKind::RequestLost),
            Delivery::Late(later) => self.late.push((step + later, call)),
            Delivery::Once => self.exchange(&call, nested)?,
            Delivery::Crash(moment) => self.crash_within(&call, moment)?,
            Delivery::AnswerLost => {
                self.shared.note(FaultKind::AnswerLost);
                self.exchange(&call, nested)?;
            }
            Delivery::Doubled => {
                self.shared.note(FaultKind::MessageDoubled);
                self.exchange(&call, nested)?;
                self.exchange(&call, None)?;
            }
        }
        Ok(())
    }

    /// Makes the message of an event. `None`: there is nothing that it could be about.
    fn call(&mut self, event: &Event) -> Option<Call> {
        let node = event.node % self.seats.len();
        let pick = |count: usize| (count > 0).then(|| count - 1 - event.which % count.min(12));
        let surface = |surface| Entry::Surface(surface, "dev");
        let (entry, bytes, sent) = match event.action {
            Action::Start => {
                let request = wire::StartRequest {
                    evidence: vec![agent_evidence(BOT), alice_evidence()],
                    template: "desk".to_owned(),
                    ..wire::StartRequest::default()
                };
                (surface(Surface::TaskStart), request.encode_to_vec(), Sent::Start)
            }
            Action::Delegate => {
                let parent = self.model.root(pick(self.model.tasks.len())?);
                let request = wire::DelegateRequest {
                    evidence: vec![agent_evidence(BOT)],
                    parent: self.model.tasks[parent].id.clone(),
                    assignee: TWO.to_owned(),
                    ..wire::DelegateRequest::default()
                };
                (surface(Surface::TaskDelegate), request.encode_to_vec(), Sent::Delegate { parent })
            }
            Action::End => {
                let task = pick(self.model.tasks.len())?;
                let of = &self.model.tasks[task];
                let request = wire::EndRequest {
                    evidence: vec![agent_evidence(of.agent)],
                    task: of.id.clone(),
                    status: wire::TaskStatus::Completed as i32,
                };
                (surface(Surface::TaskEnd), request.encode_to_vec(), Sent::End { task })
            }
            Action::Check(operation) => {
                let task = pick(self.model.tasks.len())?;
                let (bytes, sent) = self.check(event, operation, task);
                (Entry::Check, bytes, sent)
            }
            Action::Report(told) => {
                let permit = pick(self.model.permits.len())?;
                let (bytes, sent) = self.report(permit, told);
                (Entry::Surface(Surface::Report, "sdk"), bytes, sent)
            }
            Action::Resolve { approves } => {
                let approval = pick(self.model.approvals.len())?;
                let id = self.model.approvals[approval].id.clone();
                let engine = &self.seats[node].node.as_ref()?.engine;
                let status = match approves {
                    true => wire::ApprovalStatus::Approved,
                    false => wire::ApprovalStatus::Rejected,
                };
                let request = wire::ResolveRequest {
                    digest: shown_digest(engine, &id)?,
                    approval_id: id,
                    status: status as i32,
                    card_digest: vec![1; 32],
                    ..wire::ResolveRequest::default()
                };
                (Entry::Resolve, request.encode_to_vec(), Sent::Resolve { approval, approves })
            }
            Action::Revoke(revoked) => {
                let (target, sent) = match revoked {
                    Revoked::Task => {
                        let task = pick(self.model.tasks.len())?;
                        (Target::Task(self.model.tasks[task].id.clone()), Sent::RevokeTask { task })
                    }
                    Revoked::Look | Revoked::Delete => {
                        let is_look = revoked == Revoked::Look;
                        let one = if is_look { Operation::Look } else { Operation::Delete };
                        let target = RevokedTarget::Operation(one);
                        (Target::Operation(one.name().to_owned()), Sent::Revoke(target))
                    }
                    Revoked::Agent => {
                        (Target::Agent(TWO.to_owned()), Sent::Revoke(RevokedTarget::Agent(TWO)))
                    }
                };
                let request = wire::AdminRevokeRequest {
                    target: Some(target),
                    reason: "simulated".to_owned(),
                    ..wire::AdminRevokeRequest::default()
                };
                (Entry::Surface(Surface::Revoke, "admin"), request.encode_to_vec(), sent)
            }
            _ => return None,
        };
        Some(Call { node, entry, bytes, sent })
    }

    fn check(&mut self, event: &Event, operation: Operation, task: usize) -> (Vec<u8>, Sent) {
        let amount = if operation.has_amount() { event.amount } else { 0 };
        let arguments = match operation.has_amount() {
            true => json!({"n": amount}),
            false => json!({}),
        };
        let is_keyed = event.has_key || event.delivery == Delivery::Doubled;
        let key = (is_keyed && operation != Operation::Wire).then(|| {
            self.keys += 1;
            format!("key-{}", self.keys)
        });
        let of = &self.model.tasks[task];
        let request = wire::CheckRequest {
            evidence: vec![agent_evidence(of.agent)],
            task: of.id.clone(),
            operation: operation.name().to_owned(),
            arguments_json: arguments.to_string().into_bytes(),
            idempotency_key: key.clone().unwrap_or_default(),
            ..wire::CheckRequest::default()
        };
        (request.encode_to_vec(), Sent::Check { task, operation, amount, key })
    }

    fn report(&self, permit: usize, told: Told) -> (Vec<u8>, Sent) {
        let of = &self.model.permits[permit];
        let told = match told {
            Told::DoneWithVip if of.operation != Operation::Find => Told::Done,
            told => told,
        };
        let result = match told {
            Told::Done | Told::DoneWithVip => wire::ReportResult::Ok,
            Told::Failed => wire::ReportResult::Failed,
            Told::Aborted => wire::ReportResult::Aborted,
        };
        let labels = match told {
            Told::DoneWithVip => vec!["vip".to_owned()],
            _ => Vec::new(),
        };
        let request = wire::ReportRequest {
            decision_id: of.id.clone(),
            result: result as i32,
            labels,
            ..wire::ReportRequest::default()
        };
        (request.encode_to_vec(), Sent::Report { permit, told })
    }

    fn received(&self, number: usize) -> Received {
        let seat = &self.seats[number];
        let has_view = matches!(self.setup, Setup::Shared { .. });
        Received {
            seq: self.model.seq,
            wall_ms: wall_ms(&seat.clock),
            at_ms: self.world.passed_ms(),
            noticed: has_view.then_some(seat.noticed),
            changes: seat.node.as_ref().map(|node| node.store.changes()),
        }
    }

    /// Lets a node handle a message, and another one in the middle of it.
    fn exchange(&mut self, call: &Call, nested: Option<(Moment, Call)>) -> Result<(), Violation> {
        let Some(node) = &self.seats[call.node].node else {
            self.shared.note(FaultKind::RequestLost);
            return Ok(());
        };
        let engine = Arc::clone(&node.engine);
        let clock = Arc::clone(&self.seats[call.node].clock);
        let mut received = self.received(call.node);
        let inner_answer = Arc::new(Mutex::new(None));
        let mut inner_received = None;
        let mut moment = None;
        if let Some((at, inner)) = &nested
            && let Some(node) = &self.seats[inner.node].node
        {
            received.changes = None;
            inner_received = Some(Received { changes: None, ..self.received(inner.node) });
            moment = Some(*at);
            let (engine, inner) = (Arc::clone(&node.engine), inner.clone());
            let clock = Arc::clone(&self.seats[inner.node].clock);
            let to = Arc::clone(&inner_answer);
            let run = Box::new(move || {
                let answered = answer(&engine, &clock, inner.entry, &inner.bytes);
                *to.lock().unwrap() = Some(answered);
            });
            *self.shared.nested.lock().unwrap() =
                Some(NestedCall { moment: *at, kind: FaultKind::CallInterleaved, run });
        }
        let answered = answer(&engine, &clock, call.entry, &call.bytes);
        let unused = self.shared.nested.lock().unwrap().take();
        let inner_answer = inner_answer.lock().unwrap().take();
        let sees_inner = moment == Some(Moment::BeforeWork) && call.sent.is_stateful();
        // The inner call may use what the outer one gave back.
        let is_outer_first = moment == Some(Moment::AfterCommit) && call.sent.gives();
        if is_outer_first {
            self.take(call, answered.clone(), received, received.seq)?;
        }
        if let (Some((_, inner)), Some(answered), Some(at)) =
            (&nested, inner_answer, inner_received)
        {
            self.take(inner, answered, at, at.seq)?;
        }
        if !is_outer_first {
            let reference = if sees_inner { self.model.seq } else { received.seq };
            self.take(call, answered, received, reference)?;
        }
        if unused.is_some()
            && let Some((_, inner)) = &nested
        {
            self.exchange(inner, None)?;
        }
        Ok(())
    }

    fn note_answer(&mut self, call: &Call, answered: &Answer) {
        if !self.is_logged {
            return;
        }
        let text = match answered {
            Answer::Decision(decision) => {
                wire::ReasonCode::try_from(decision.reason_code).unwrap().as_str_name()
            }
            Answer::Message(_) => "OK",
            Answer::Refused(reason) => reason,
        };
        self.log.push(format!("node {}, {:?}: {text}", call.node, call.sent));
    }

    /// Lets a node stop while it handles a message. Nobody gets an answer.
    fn crash_within(&mut self, call: &Call, moment: Moment) -> Result<(), Violation> {
        let Some(node) = &self.seats[call.node].node else {
            self.shared.note(FaultKind::RequestLost);
            return Ok(());
        };
        let (engine, store) = (Arc::clone(&node.engine), Arc::clone(&node.store));
        let (clock, received) =
            (Arc::clone(&self.seats[call.node].clock), self.received(call.node));
        let embedded = self.embedded.clone();
        let run = Box::new(move || {
            store.kill();
            if let Some(embedded) = embedded {
                embedded.abandon();
            }
        });
        let kind = FaultKind::NodeCrashed;
        *self.shared.nested.lock().unwrap() = Some(NestedCall { moment, kind, run });
        drop(answer(&engine, &clock, call.entry, &call.bytes));
        drop(self.shared.nested.lock().unwrap().take());
        self.take(call, Answer::Refused("UNAVAILABLE"), received, received.seq)?;
        self.stop(call.node, None);
        Ok(())
    }

    /// Notes the answer to a message.
    fn take(
        &mut self,
        call: &Call,
        answered: Answer,
        received: Received,
        reference: u64,
    ) -> Result<(), Violation> {
        self.take_audit();
        self.note_answer(call, &answered);
        if let Answer::Decision(decision) = &answered {
            return self.take_decision(call, decision, received, reference);
        }
        let message = match &answered {
            Answer::Message(bytes) => Some(bytes.as_slice()),
            _ => None,
        };
        let may_have_changed = match answered {
            Answer::Refused(reason) => matches!(
                reason,
                "STATE_UNAVAILABLE" | "STORE_SLOW" | "AUDIT_FULL" | "DEADLINE" | "UNAVAILABLE"
            ),
            _ => true,
        };
        let is_answered = message.is_some();
        match &call.sent {
            Sent::Start => self.take_task(message, None, BOT),
            Sent::Delegate { parent } => self.take_task(message, Some(*parent), TWO),
            Sent::End { task } if is_answered => {
                let restriction = self.restriction(call.node, received);
                self.model.tasks[*task].ends.push(restriction);
                self.model.tasks[*task].is_ended = true;
            }
            Sent::RevokeTask { task } if is_answered => {
                let restriction = self.restriction(call.node, received);
                self.model.tasks[*task].ends.push(restriction);
            }
            Sent::Revoke(target) if is_answered => {
                let restriction = self.restriction(call.node, received);
                self.model.revoked.push((target.clone(), restriction));
            }
            Sent::Report { permit, told } if may_have_changed => {
                let commit = is_answered.then(|| self.commit());
                self.model.report(*permit, *told, commit)?;
            }
            Sent::Resolve { approval, approves } if may_have_changed => {
                let of = &mut self.model.approvals[*approval];
                of.is_answered |= is_answered;
                if *approves {
                    self.model.approved.push((of.task, of.amount));
                }
                self.model.seq += 1;
            }
            _ => self.model.seq += 1,
        }
        Ok(())
    }

    fn restriction(&mut self, node: usize, received: Received) -> Restriction {
        self.model.seq += 1;
        let changes = self.seats[node].node.as_ref().map(|node| node.store.changes());
        let has_written = received.changes.is_some() && received.changes != changes;
        let node = has_written.then_some(node);
        Restriction { seq: self.model.seq, at_ms: self.world.passed_ms(), node }
    }

    fn commit(&self) -> u64 {
        self.shared.commits.load(Ordering::SeqCst)
    }

    fn take_task(&mut self, message: Option<&[u8]>, parent: Option<usize>, agent: &'static str) {
        self.model.seq += 1;
        let Some(bytes) = message else { return };
        let task = match parent {
            None => wire::StartResponse::decode(bytes).unwrap().task,
            Some(_) => wire::DelegateResponse::decode(bytes).unwrap().task,
        };
        let task = task.unwrap();
        let deadline = task.deadline.unwrap();
        let commit = self.commit();
        self.model.tasks.push(ModelTask {
            id: task.id,
            parent,
            agent,
            deadline_ms: deadline.seconds * 1_000 + i64::from(deadline.nanos / 1_000_000),
            commit,
            ends: Vec::new(),
            is_ended: false,
            is_lost: false,
        });
    }

    fn take_decision(
        &mut self,
        call: &Call,
        decision: &wire::Decision,
        received: Received,
        reference: u64,
    ) -> Result<(), Violation> {
        let Sent::Check { task, operation, amount, key } = &call.sent else { return Ok(()) };
        if decision.outcome != wire::Outcome::Permit as i32 {
            self.model.seq += 1;
            let approval = decision.challenge.as_ref().map(|one| one.approval_id.clone());
            if let Some(id) = approval.filter(|id| !id.is_empty()) {
                let is_known = self.model.approvals.iter().any(|one| one.id == id);
                if !is_known {
                    let (task, amount, is_answered) = (*task, *amount, false);
                    self.model.approvals.push(ModelApproval { id, task, amount, is_answered });
                }
            }
            return Ok(());
        }
        let check = SeenCheck {
            task: *task,
            operation: *operation,
            amount: *amount,
            agent: self.model.tasks[*task].agent,
            key: key.clone(),
            node: call.node,
            wall_ms: received.wall_ms,
            began_ms: received.at_ms,
            reference,
            noticed: received.noticed,
            commit: self.commit(),
        };
        let due_ms = received.wall_ms + REPORT_WITHIN_MS;
        self.model.permit(&check, &decision.decision_id, due_ms)
    }

    /// Takes the audit records that were written since the last call.
    fn take_audit(&mut self) {
        let mut lines: Vec<Vec<u8>> = self.memory.take_lines();
        for seat in &self.seats {
            lines.extend(seat.audit.take().split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
            if seat.audit.take_refused() {
                self.shared.note(FaultKind::AuditFull);
            }
        }
        for line in lines.iter().filter(|line| !line.is_empty()) {
            if let Some(id) = decision_of(line) {
                self.model.audited.insert(id);
            }
        }
    }

    /// Checks that permits have their audit records.
    fn check_audit(&self, is_due: impl Fn(&Permit) -> bool) -> Result<(), Violation> {
        let is_missing = |permit: &&Permit| {
            !permit.is_lost && is_due(permit) && !self.model.audited.contains(&permit.id)
        };
        match self.model.permits.iter().find(is_missing) {
            Some(permit) => {
                let text = format!("the audit record of {} is missing", permit.id);
                Err(Violation::new("audit", text))
            }
            None => Ok(()),
        }
    }

    /// Checks that the stores hold what was answered.
    fn check_state(&mut self) -> Result<(), Violation> {
        self.take_audit();
        let is_embedded = self.setup == Setup::Embedded;
        // The outbox of an embedded store holds audit records until an event sends them.
        self.check_audit(|permit| {
            !is_embedded || permit.operation.is_stateless() && permit.key.is_none()
        })?;
        let core: Arc<dyn Store> = match (&self.embedded, is_embedded) {
            (Some(embedded), _) => Arc::clone(embedded) as _,
            (None, true) => return Ok(()),
            (None, false) => Arc::clone(&self.memory) as _,
        };
        let read = |kind, id: &str| core.peek(&RecordKey::new(kind, id), never()).unwrap();
        for permit in self.model.permits.iter().filter(|permit| !permit.is_lost) {
            let is_open = !permit.operation.is_stateless()
                && !permit.may_be_reported
                && permit.due_ms > self.model.swept_ms;
            if is_open && read(RecordKind::Reservation, &permit.id).is_none() {
                let text = format!("the open permit {} is not stored", permit.id);
                return Err(Violation::new("permits are kept", text));
            }
        }
        for (number, task) in self.model.tasks.iter().enumerate().filter(|(_, one)| !one.is_lost) {
            let Some(Record::Task(stored)) = read(RecordKind::Task, &task.id) else {
                let text = format!("the task {} is not stored", task.id);
                return Err(Violation::new("tasks are kept", text));
            };
            if task.is_ended && stored.status == TaskStatus::Active {
                let text = format!("the task {} is active again", task.id);
                return Err(Violation::new("ends are kept", text));
            }
            if task.parent.is_some() {
                continue;
            }
            for operation in [Operation::Pay, Operation::Delete] {
                let uses = stored_uses(&stored, operation);
                let known = self.model.uses(number, operation);
                if uses < known {
                    let name = operation.name();
                    let text = format!("{} stores {uses} uses of {name}, not {known}", task.id);
                    return Err(Violation::new("uses are kept", text));
                }
            }
        }
        for approval in self.model.approvals.iter().filter(|approval| approval.is_answered) {
            let (key, generation) = Approval::parse_id(&approval.id).unwrap();
            let is_kept = match core.peek(&key, never()).unwrap() {
                Some(Record::Approval(stored)) if stored.generation == generation => {
                    stored.status != ApprovalStatus::Open
                }
                // A newer approval of the same call replaces it.
                Some(Record::Approval(stored)) => stored.generation > generation,
                _ => false,
            };
            if !is_kept {
                let text = format!("the answer to {} is not stored", approval.id);
                return Err(Violation::new("answers are kept", text));
            }
        }
        let revoked = all_of(&*core, RecordKind::Revocation).len();
        let mut targets: Vec<&RevokedTarget> = Vec::new();
        for (target, _) in &self.model.revoked {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        if revoked < targets.len() {
            let text = format!("{revoked} revocations are stored, not {}", targets.len());
            return Err(Violation::new("revocations are kept", text));
        }
        Ok(())
    }
}

/// The first `decision_id` of an audit line: its own, since the line begins with it.
fn decision_of(line: &[u8]) -> Option<String> {
    const NAME: &str = "\"decision_id\":\"";
    let text = std::str::from_utf8(line).unwrap();
    let (_, rest) = text.split_once(NAME)?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Uses of an operation that a task's record counts.
fn stored_uses(task: &authz_base::record::task::Task, operation: Operation) -> usize {
    let entries = task.scope.iter().zip(&task.uses);
    let of_operation = entries.filter(|(entry, _)| entry.operation == operation.name());
    of_operation.map(|(_, uses)| usize::try_from(*uses).unwrap()).sum()
}
