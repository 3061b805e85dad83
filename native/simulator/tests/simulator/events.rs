//! The events of a run, all of which follow from its seed.
//!
//! An event names tasks, permits and approvals by numbers that are taken modulo those that there are. So an event keeps a meaning
//! when others before it are left out.

use crate::random::Random;
use crate::store::{Moment, StoreFailure};

/// Number of events of a run.
pub const EVENTS: usize = 220;
/// Most nodes of a run.
pub const MAX_NODES: usize = 3;

/// Kind of the nodes and their store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// One node, whose store in memory fails.
    Memory,
    /// One node with an embedded store on a disk that fails.
    Embedded,
    /// Nodes that share a store.
    Shared { nodes: usize },
}

impl Setup {
    pub const fn nodes(self) -> usize {
        match self {
            Self::Memory | Self::Embedded => 1,
            Self::Shared { nodes } => nodes,
        }
    }
}

/// An operation of the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Find,
    Look,
    Pay,
    Move,
    Wire,
    Delete,
}

impl Operation {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Find => "shop.find",
            Self::Look => "shop.look",
            Self::Pay => "shop.pay",
            Self::Move => "shop.move",
            Self::Wire => "shop.wire",
            Self::Delete => "shop.delete",
        }
    }

    pub const fn has_amount(self) -> bool {
        matches!(self, Self::Pay | Self::Move | Self::Wire)
    }

    /// True if a node without newer notices may permit it, since the call is judged without a transaction.
    pub const fn is_stateless(self) -> bool {
        matches!(self, Self::Look)
    }
}

/// What an enforcer reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Done,
    DoneWithVip,
    Failed,
    Aborted,
}

/// Target of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    Task,
    Look,
    Delete,
    Agent,
}

/// Fault of the disk of an embedded store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// No write finds room until the disk is repaired.
    Full,
    /// The next write fails after a part of its bytes.
    FailWrite,
    /// The next sync fails.
    FailSync,
    /// The next write stops after a part of its bytes, and the process with it.
    Torn,
    /// A process that starts before the disk is repaired has little room for its SQLite file.
    SmallFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start,
    Delegate,
    End,
    Check(Operation),
    Report(Told),
    Resolve {
        approves: bool,
    },
    Revoke(Revoked),
    Sweep,
    /// Time passes, and nodes get notices of changes. Bit `i` of `lost`: the notice of node `i` is lost.
    PassTime {
        ms: u64,
        lost: usize,
    },
    JumpClock {
        ms: i64,
    },
    FailStore(StoreFailure),
    FillAudit,
    EmptyAudit,
    Stop {
        loses_power: bool,
    },
    Revive,
    FailDisk(DiskFault),
    RepairDisk,
    Checkpoint,
}

/// Fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Once,
    RequestLost,
    AnswerLost,
    Doubled,
    /// Delivered after this many later events.
    Late(usize),
    /// The node stops while it handles the message.
    Crash(Moment),
}

#[derive(Clone, Debug)]
pub struct Event {
    pub action: Action,
    pub node: usize,
    /// Chooses task, permit or approval.
    pub which: usize,
    pub amount: i64,
    pub delivery: Delivery,
    pub has_key: bool,
    /// Another message that is handled in the middle of this one.
    pub nested: Option<(Moment, Box<Event>)>,
}

/// A seed's nodes and events.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub setup: Setup,
    pub events: Vec<Event>,
}

impl Scenario {
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let setup = match random.below(20) {
            0..3 => Setup::Memory,
            3..11 => Setup::Embedded,
            _ => Setup::Shared { nodes: 1 + random.below(MAX_NODES) },
        };
        // The first events start tasks, so that few of the others find none.
        let mut events = vec![first_start(0), first_start(1)];
        let mut repairs: Vec<(usize, Event)> = Vec::new();
        while events.len() < EVENTS {
            let due = repairs.iter().position(|(at, _)| *at <= events.len());
            if let Some(due) = due {
                events.push(repairs.remove(due).1);
                continue;
            }
            let event = event(&mut random, setup);
            if let Some(action) = repair_of(&event) {
                let at = events.len() + 1 + random.below(14);
                repairs.push((at, Event { action, nested: None, ..event.clone() }));
            }
            events.push(event);
        }
        Self { setup, events }
    }
}

/// The action that ends a lasting fault.
const fn repair_of(event: &Event) -> Option<Action> {
    match event.action {
        _ if matches!(event.delivery, Delivery::Crash(_)) => Some(Action::Revive),
        Action::JumpClock { .. } => Some(Action::JumpClock { ms: 0 }),
        Action::FillAudit => Some(Action::EmptyAudit),
        Action::Stop { .. } | Action::FailDisk(DiskFault::Torn) => Some(Action::Revive),
        Action::FailDisk(_) => Some(Action::RepairDisk),
        _ => None,
    }
}

const fn first_start(node: usize) -> Event {
    Event {
        action: Action::Start,
        node,
        which: 0,
        amount: 0,
        delivery: Delivery::Once,
        has_key: false,
        nested: None,
    }
}

fn event(random: &mut Random, setup: Setup) -> Event {
    let mut event = message(random);
    if setup == Setup::Memory && matches!(event.delivery, Delivery::Crash(_)) {
        // Nothing outlives the process.
        event.delivery = Delivery::Once;
    }
    if random.below(100) < 24 {
        event.action = fault(random, setup);
        event.delivery = Delivery::Once;
    } else if random.one_in(4) {
        let moment = if random.one_in(2) { Moment::BeforeWork } else { Moment::AfterCommit };
        let mut nested = message(random);
        nested.delivery = Delivery::Once;
        // Calls of one task get in each other's way more often.
        if random.one_in(2) {
            nested.which = event.which;
        }
        if random.one_in(2) {
            nested.action = event.action;
        }
        event.nested = Some((moment, Box::new(nested)));
    }
    event
}

/// A message to a node.
fn message(random: &mut Random) -> Event {
    let action = random.weighted(&[
        (4, Action::Start),
        (3, Action::Delegate),
        (2, Action::End),
        (18, Action::Check(Operation::Pay)),
        (9, Action::Check(Operation::Move)),
        (7, Action::Check(Operation::Find)),
        (12, Action::Check(Operation::Look)),
        (9, Action::Check(Operation::Wire)),
        (8, Action::Check(Operation::Delete)),
        (8, Action::Report(Told::Done)),
        (3, Action::Report(Told::DoneWithVip)),
        (5, Action::Report(Told::Failed)),
        (8, Action::Report(Told::Aborted)),
        (8, Action::Resolve { approves: true }),
        (1, Action::Resolve { approves: false }),
        (2, Action::Revoke(Revoked::Task)),
    ]);
    let later = 1 + random.below(12);
    let moment = if random.one_in(2) { Moment::BeforeWork } else { Moment::AfterCommit };
    let delivery = random.weighted(&[
        (24, Delivery::Once),
        (1, Delivery::RequestLost),
        (1, Delivery::AnswerLost),
        (2, Delivery::Doubled),
        (1, Delivery::Late(later)),
        (1, Delivery::Crash(moment)),
    ]);
    // Few amounts, so that approvals of the same call meet.
    let amount = match action {
        Action::Check(Operation::Wire) => 1,
        _ => i64::try_from(1 + random.below(30)).unwrap(),
    };
    Event {
        action,
        node: random.below(MAX_NODES),
        which: random.below(1_000_000),
        amount,
        delivery,
        has_key: random.one_in(3),
        nested: None,
    }
}

/// A fault, or the passing of time.
fn fault(random: &mut Random, setup: Setup) -> Action {
    let lost = if random.one_in(2) { random.below(1 << MAX_NODES) } else { 0 };
    let ms = match random.below(4) {
        0 => random.below(20_000),
        _ => random.below(900),
    };
    let time = Action::PassTime { ms: u64::try_from(ms).unwrap(), lost };
    let jump = if random.one_in(2) { random.below(8_000) } else { random.below(90_000) };
    let sign = if random.one_in(2) { 1 } else { -1 };
    let jump = Action::JumpClock { ms: sign * i64::try_from(jump).unwrap() };
    let failures = [
        StoreFailure::Unavailable,
        StoreFailure::Slow,
        StoreFailure::Full,
        StoreFailure::Unknown,
        StoreFailure::LostTicket,
    ];
    let failure = Action::FailStore(failures[random.below(failures.len())]);
    let revoked = random.weighted(&[(3, Revoked::Look), (3, Revoked::Delete), (1, Revoked::Agent)]);
    let revoke = if random.one_in(6) { Action::Revoke(revoked) } else { time };
    let mut choices = vec![
        (34, time),
        (4, jump),
        (10, failure),
        (3, revoke),
        (4, Action::Sweep),
        (2, Action::FillAudit),
    ];
    if setup != Setup::Memory {
        let loses_power = setup == Setup::Embedded && random.one_in(3);
        choices.push((6, Action::Stop { loses_power }));
    }
    if setup == Setup::Embedded {
        let faults = [
            DiskFault::Full,
            DiskFault::FailWrite,
            DiskFault::FailSync,
            DiskFault::Torn,
            DiskFault::SmallFile,
        ];
        choices.push((10, Action::FailDisk(faults[random.below(faults.len())])));
        choices.push((8, Action::Checkpoint));
    }
    random.weighted(&choices)
}
