//! Rules about approvals: queues, their bounds, and reasons of rejections.

use std::collections::BTreeMap;
use std::time::Duration;

use authz_base::record::approval::APPROVE;

use crate::location::Location;

/// Default bounds of a queue: open approvals, and approvals in an hour.
const MAX_OPEN: u32 = 200;
const MAX_HOURLY: u32 = 1_000;
/// Default bounds of open approvals of a task and of an agent.
const OPEN_PER_TASK: u32 = 5;
const OPEN_PER_AGENT: u32 = 50;
/// Default reasons of rejections.
const REJECT_REASONS: [(&str, &str); 5] = [
    ("not_needed", "The call is not needed for the task."),
    ("wrong_amount", "The amount is wrong."),
    ("wrong_recipient", "The recipient is wrong."),
    ("wrong_target", "The call acts on the wrong object."),
    ("too_risky", "The call is too risky."),
];

/// Rules about approvals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRules {
    /// Queue that answers `confirm` if no person is in the chain.
    pub confirm_without_person: String,
    /// Bounds of queues, by queue. Missing queues have the defaults.
    pub queues: BTreeMap<String, QueueRule>,
    /// Maximum number of open approvals of one task.
    pub open_per_task: u32,
    /// Maximum number of open approvals of one agent.
    pub open_per_agent: u32,
    /// Texts of the reasons of rejections, by name. The agent may see the text.
    pub reject_reasons: BTreeMap<String, String>,
    /// Place in the bundle.
    pub at: Location,
}

impl Default for ApprovalRules {
    fn default() -> Self {
        let reasons = REJECT_REASONS.map(|(name, text)| (name.to_owned(), text.to_owned()));
        Self {
            confirm_without_person: APPROVE.to_owned(),
            queues: BTreeMap::new(),
            open_per_task: OPEN_PER_TASK,
            open_per_agent: OPEN_PER_AGENT,
            reject_reasons: BTreeMap::from(reasons),
            at: Location::default(),
        }
    }
}

impl ApprovalRules {
    /// Returns the bounds of a queue.
    #[must_use]
    pub fn queue(&self, queue: &str) -> QueueRule {
        self.queues.get(queue).cloned().unwrap_or_default()
    }
}

/// Bounds of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRule {
    /// Maximum number of open approvals.
    pub max_open: u32,
    /// Maximum number of approvals in an hour.
    pub max_hourly: u32,
    /// Time after which the deputies may answer too.
    pub escalate_after: Option<Duration>,
    /// Role of the deputies.
    pub deputies: Option<String>,
    /// Place in the bundle.
    pub at: Location,
}

impl Default for QueueRule {
    fn default() -> Self {
        Self {
            max_open: MAX_OPEN,
            max_hourly: MAX_HOURLY,
            escalate_after: None,
            deputies: None,
            at: Location::default(),
        }
    }
}
