//! What the simulator knows of a run: the answers that left a node, and the rules that each permit must keep.
//!
//! The model is weaker than Authz where an answer leaves it open what happened: an error of a store may hide a change. It then
//! assumes the case that permits more.

use std::collections::BTreeSet;

use crate::bundle::{MOST_DELETES, MOST_MONEY, MOST_PAYS, STALENESS_MS};
use crate::events::{Operation, Told};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the invariant.
    pub invariant: &'static str,
    pub text: String,
}

impl Violation {
    pub fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self { invariant, text: text.into() }
    }
}

/// An answered call after which others are refused.
#[derive(Clone, Copy, Debug)]
pub struct Restriction {
    /// Place in the order of answers.
    pub seq: u64,
    pub at_ms: u64,
    /// Node that wrote it, and so knows it at once. `None`: it may have been written already.
    pub node: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct ModelTask {
    pub id: String,
    pub parent: Option<usize>,
    pub agent: &'static str,
    /// By the wall clock.
    pub deadline_ms: i64,
    pub commit: u64,
    /// Ends and revocations.
    pub ends: Vec<Restriction>,
    /// Its end was answered.
    pub is_ended: bool,
    pub is_lost: bool,
}

/// Knowledge of the label `vip` that a search may have brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VipLabel {
    /// Not reported: the session carries it.
    Open,
    Kept,
    Cleared,
}

#[derive(Clone, Debug)]
pub struct Permit {
    pub id: String,
    pub task: usize,
    pub operation: Operation,
    pub amount: i64,
    pub key: Option<String>,
    pub seq: u64,
    pub commit: u64,
    /// Time from which it counts as done, by the clock of its node.
    pub due_ms: i64,
    /// Number of the commit that accepted its report.
    pub reported: Option<u64>,
    /// A report may have been accepted.
    pub may_be_reported: bool,
    /// Its uses and amounts are given back, or may be.
    pub is_released: bool,
    pub vip: VipLabel,
    /// A loss of power may have taken it.
    pub is_lost: bool,
}

#[derive(Clone, Debug)]
pub struct ModelApproval {
    pub id: String,
    pub task: usize,
    pub amount: i64,
    /// The answer of a person was accepted.
    pub is_answered: bool,
}

/// Target that no call may name any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedTarget {
    Operation(Operation),
    Agent(&'static str),
}

/// A check that was answered.
#[derive(Clone, Debug)]
pub struct SeenCheck {
    pub task: usize,
    pub operation: Operation,
    pub amount: i64,
    pub agent: &'static str,
    pub key: Option<String>,
    pub node: usize,
    /// Wall clock of the node, and time of the run, when it began.
    pub wall_ms: i64,
    pub began_ms: u64,
    /// Restrictions up to this place in the order of answers bind it.
    pub reference: u64,
    /// Place of the last notice that the node had. `None`: its records are never behind.
    pub noticed: Option<u64>,
    pub commit: u64,
}

#[derive(Debug, Default)]
pub struct Model {
    pub seq: u64,
    pub tasks: Vec<ModelTask>,
    pub permits: Vec<Permit>,
    pub approvals: Vec<ModelApproval>,
    pub revoked: Vec<(RevokedTarget, Restriction)>,
    /// Approved calls: task and amount, once for each approval.
    pub approved: Vec<(usize, i64)>,
    /// Ids of permits whose audit record is written.
    pub audited: BTreeSet<String>,
    /// The latest time at which a node swept, by its wall clock.
    pub swept_ms: i64,
}

impl Model {
    /// Ids of the tasks from one up to its root.
    fn path(&self, task: usize) -> Vec<usize> {
        let mut path = vec![task];
        while let Some(parent) = self.tasks[path[path.len() - 1]].parent {
            path.push(parent);
        }
        path
    }

    pub fn root(&self, task: usize) -> usize {
        self.path(task).pop().unwrap()
    }

    fn binds(restriction: &Restriction, check: &SeenCheck) -> bool {
        if restriction.seq > check.reference {
            return false;
        }
        let Some(noticed) = check.noticed.filter(|_| check.operation.is_stateless()) else {
            return true;
        };
        restriction.node == Some(check.node)
            || restriction.seq <= noticed
            || check.began_ms.saturating_sub(restriction.at_ms) > STALENESS_MS
    }

    /// Permits of the tree of a task that count.
    pub fn counted(&self, task: usize) -> impl Iterator<Item = &Permit> {
        let root = self.root(task);
        let is_of_tree = move |permit: &&Permit| self.root(permit.task) == root;
        self.permits.iter().filter(is_of_tree).filter(|permit| !permit.is_lost)
    }

    /// Number of uses of an operation in the tree of a task.
    pub fn uses(&self, task: usize, operation: Operation) -> usize {
        let counts = |permit: &&Permit| permit.operation == operation && !permit.is_released;
        self.counted(task).filter(counts).count()
    }

    fn money(&self, task: usize) -> i64 {
        let is_spent = |permit: &&Permit| {
            matches!(permit.operation, Operation::Pay | Operation::Move) && !permit.is_released
        };
        self.counted(task).filter(is_spent).map(|permit| permit.amount).sum()
    }

    /// Notes an answered permit.
    ///
    /// # Errors
    /// The permit breaks an invariant.
    pub fn permit(&mut self, check: &SeenCheck, id: &str, due_ms: i64) -> Result<(), Violation> {
        self.seq += 1;
        if let Some(known) = self.permits.iter().find(|permit| permit.id == id) {
            if known.key.is_some() && known.key == check.key {
                return Ok(());
            }
            return Err(Violation::new("ids", format!("two permits have the id {id}")));
        }
        self.check_restrictions(check, id)?;
        self.check_amounts(check, id)?;
        let is_again = |permit: &Permit| {
            permit.key.is_some()
                && permit.key == check.key
                && !permit.is_lost
                && !permit.is_released
                && !permit.may_be_reported
        };
        if self.permits.iter().any(is_again) {
            return Err(Violation::new("keys", format!("the key of {id} has two permits")));
        }
        self.permits.push(Permit {
            id: id.to_owned(),
            task: check.task,
            operation: check.operation,
            amount: check.amount,
            key: check.key.clone(),
            seq: self.seq,
            commit: check.commit,
            due_ms,
            reported: None,
            may_be_reported: false,
            is_released: false,
            vip: VipLabel::Open,
            is_lost: false,
        });
        Ok(())
    }

    /// Checks ends, revocations and labels.
    fn check_restrictions(&self, check: &SeenCheck, id: &str) -> Result<(), Violation> {
        for task in self.path(check.task).into_iter().map(|task| &self.tasks[task]) {
            if task.ends.iter().any(|end| Self::binds(end, check)) {
                let text = format!("{id} was permitted in {}, which had ended", task.id);
                return Err(Violation::new("ends", text));
            }
            if check.wall_ms >= task.deadline_ms {
                let text = format!("{id} was permitted after the deadline of {}", task.id);
                return Err(Violation::new("deadlines", text));
            }
        }
        for (target, restriction) in &self.revoked {
            let is_meant = match target {
                RevokedTarget::Operation(operation) => *operation == check.operation,
                RevokedTarget::Agent(agent) => *agent == check.agent,
            };
            if is_meant && Self::binds(restriction, check) {
                let text = format!("{id} was permitted after the revocation of {target:?}");
                return Err(Violation::new("revocations", text));
            }
        }
        let is_vip = |permit: &Permit| {
            permit.operation == Operation::Find
                && permit.vip != VipLabel::Cleared
                && permit.seq <= check.reference
        };
        if check.operation == Operation::Move && self.counted(check.task).any(is_vip) {
            return Err(Violation::new("labels", format!("{id} moves although labelled vip")));
        }
        Ok(())
    }

    /// Checks uses, budgets and approvals.
    fn check_amounts(&self, check: &SeenCheck, id: &str) -> Result<(), Violation> {
        let most = match check.operation {
            Operation::Pay => MOST_PAYS,
            Operation::Delete => MOST_DELETES,
            _ => usize::MAX,
        };
        let uses = self.uses(check.task, check.operation) + 1;
        if uses > most {
            let text = format!("{id} is use {uses} of {}", check.operation.name());
            return Err(Violation::new("uses", text));
        }
        let is_money = matches!(check.operation, Operation::Pay | Operation::Move);
        let money = self.money(check.task) + check.amount;
        if is_money && money > MOST_MONEY {
            return Err(Violation::new("budgets", format!("with {id}, {money} are spent")));
        }
        if check.operation == Operation::Wire {
            let call = (check.task, check.amount);
            let approved = self.approved.iter().filter(|one| **one == call).count();
            let is_same = |permit: &&Permit| {
                permit.operation == Operation::Wire && (permit.task, permit.amount) == call
            };
            let used = self.permits.iter().filter(is_same).filter(|permit| !permit.is_lost).count();
            if used >= approved {
                let text = format!("{id} has no approval: {approved} approved, {used} used");
                return Err(Violation::new("approvals", text));
            }
        }
        Ok(())
    }

    /// Notes a report that was accepted, or that may have been.
    ///
    /// `commit` is the number of the last commit. `None`: it may have been accepted.
    ///
    /// # Errors
    /// The permit was reported before.
    pub fn report(
        &mut self,
        permit: usize,
        told: Told,
        commit: Option<u64>,
    ) -> Result<(), Violation> {
        self.seq += 1;
        let is_certain = commit.is_some();
        let permit = &mut self.permits[permit];
        if is_certain && permit.reported.is_some() && !permit.is_lost {
            let text = format!("the report of {} was accepted twice", permit.id);
            return Err(Violation::new("reports", text));
        }
        permit.reported = commit.or(permit.reported);
        permit.may_be_reported = true;
        let is_abortable = permit.operation == Operation::Pay;
        permit.is_released |= told == Told::Aborted || told == Told::Failed && is_abortable;
        permit.vip = match told {
            Told::DoneWithVip if is_certain => VipLabel::Kept,
            Told::DoneWithVip => permit.vip,
            Told::Done | Told::Failed | Told::Aborted => VipLabel::Cleared,
        };
        Ok(())
    }

    /// Notes a loss of power: of the commits after `synced`, nobody knows which are left.
    pub fn lose_power(&mut self, synced: u64) {
        for permit in &mut self.permits {
            permit.is_lost |= permit.commit > synced;
            permit.reported = permit.reported.filter(|commit| *commit <= synced);
        }
        for task in self.tasks.iter_mut().filter(|task| task.commit > synced) {
            task.is_lost = true;
        }
    }
}
