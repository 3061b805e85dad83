//! Reads `approvals`: queues, their bounds, and reasons of rejections.

use authz_base::record::approval::{APPROVE, APPROVE_ROLE, CONFIRM, TWO_PERSON};

use super::build::{ModelBuilder, duration};
use super::types::{ApprovalQueueEntry, ApprovalsEntry};
use super::yaml::{At, Entries};
use crate::diagnostic::clip;
use crate::model::{ApprovalRules, Location, QueueRule};

/// Highest permitted bound of open approvals and of approvals in an hour.
const MOST: u32 = 10_000;
/// Maximum number of queues with a rule.
const MOST_QUEUES: usize = 1_000;
/// Maximum number of reasons of rejections.
const MOST_REASONS: usize = 64;
/// Largest size of the name and of the text of a reason, in bytes.
const LONGEST_NAME: usize = 64;
const LONGEST_TEXT: usize = 256;

/// Reads `approvals` after the roles. A bundle may have it only once.
pub(super) fn apply(
    build: &mut ModelBuilder<'_>,
    said_at: &mut Option<String>,
    file: &str,
    said: Option<&At<ApprovalsEntry>>,
) {
    let Some(said) = said else { return };
    if let Some(first) = said_at {
        let what = format!("`approvals` is said twice; first in {first}");
        return build.found.error(&said.at.within(file), what, "Keep one of the two.");
    }
    *said_at = Some(format!("{file}:{}", said.at.line));
    let entry = &said.value;
    let mut rules = ApprovalRules { at: said.at.within(file), ..ApprovalRules::default() };
    if let Some(queue) = &entry.confirm_without_person {
        if queue.value == CONFIRM {
            let what = "`confirm` is the queue of the person, who is missing";
            let fix = "Name the queue of another person, for example `approve`.";
            build.found.error(&queue.at.within(file), what, fix);
        } else if check_queue(build, &queue.value, &queue.at.within(file)) {
            rules.confirm_without_person.clone_from(&queue.value);
        }
    }
    queues(build, file, &entry.queues, &mut rules);
    if let Some(limits) = &entry.limits {
        let task = bounded(build, file, limits.open_per_task.as_ref());
        let agent = bounded(build, file, limits.open_per_agent.as_ref());
        rules.open_per_task = task.unwrap_or(rules.open_per_task);
        rules.open_per_agent = agent.unwrap_or(rules.open_per_agent);
    }
    reasons(build, file, &entry.reject_reasons, &mut rules);
    build.model.approvals = rules;
}

fn queues(
    build: &mut ModelBuilder<'_>,
    file: &str,
    said: &Entries<At<ApprovalQueueEntry>>,
    rules: &mut ApprovalRules,
) {
    if said.0.len() > MOST_QUEUES {
        let what = format!("more than {MOST_QUEUES} queues");
        return build.found.error(&rules.at, what, "Remove some.");
    }
    for (name, entry) in &said.0 {
        let at = name.at.within(file);
        if !check_queue(build, &name.value, &at) {
            continue;
        }
        let default = QueueRule::default();
        let said = &entry.value;
        let max_open = bounded(build, file, said.max_open.as_ref()).unwrap_or(default.max_open);
        let max_hourly =
            bounded(build, file, said.max_hourly.as_ref()).unwrap_or(default.max_hourly);
        let escalate_after = said.escalate_after.as_ref().and_then(|text| {
            let span = duration(&text.value);
            if span.is_none() {
                let what = format!("`{}` is no duration", clip(&text.value));
                build.found.error(&text.at.within(file), what, "Write 15m, 1h or 4h.");
            }
            span
        });
        if said.escalate_after.is_some() != said.deputies.is_some() {
            let what = "`escalate_after` and `deputies` go together";
            let fix = "Write, for example, `{escalate_after: 15m, deputies: ROLE}`.";
            build.found.error(&entry.at.within(file), what, fix);
        }
        if let Some(role) = &said.deputies {
            check_role(build, &role.value, &role.at.within(file));
        }
        if !name.value.starts_with(APPROVE_ROLE) && said.deputies.is_some() {
            let what = "only a queue `approve:ROLE` has deputies";
            build.found.error(&at, what, "Remove `escalate_after` and `deputies`.");
        }
        let deputies = said.deputies.as_ref().map(|role| role.value.clone());
        let rule = QueueRule { max_open, max_hourly, escalate_after, deputies, at };
        rules.queues.insert(name.value.clone(), rule);
    }
}

fn reasons(
    build: &mut ModelBuilder<'_>,
    file: &str,
    said: &Entries<At<String>>,
    rules: &mut ApprovalRules,
) {
    if said.0.is_empty() {
        return;
    }
    if said.0.len() > MOST_REASONS {
        let what = format!("more than {MOST_REASONS} reasons of rejections");
        return build.found.error(&rules.at, what, "Remove some.");
    }
    rules.reject_reasons.clear();
    for (name, text) in &said.0 {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.value.is_empty()
            || name.value.len() > LONGEST_NAME
            || !name.value.chars().all(is_plain)
        {
            let what = format!("bad reason `{}` of a rejection", clip(&name.value));
            let fix = "Write lower-case letters, digits and `_`, at most 64.";
            build.found.error(&name.at.within(file), what, fix);
        }
        if text.value.is_empty()
            || text.value.len() > LONGEST_TEXT
            || text.value.chars().any(char::is_control)
        {
            let what =
                format!("the text of `{}` is empty, too long or not one line", clip(&name.value));
            build.found.error(&text.at.within(file), what, "Write one line of at most 256 bytes.");
        }
        rules.reject_reasons.insert(name.value.clone(), text.value.clone());
    }
}

/// Returns a bound within its range, or `None` if the bundle does not set it.
fn bounded(build: &mut ModelBuilder<'_>, file: &str, number: Option<&At<u32>>) -> Option<u32> {
    let number = number?;
    if number.value == 0 || number.value > MOST {
        let what = format!("{} is not within 1 to {MOST}", number.value);
        build.found.error(&number.at.within(file), what, "Write another number.");
    }
    Some(number.value)
}

/// Returns whether a text is a queue that people can answer. If it is not, an error is recorded.
fn check_queue(build: &mut ModelBuilder<'_>, queue: &str, at: &Location) -> bool {
    if matches!(queue, CONFIRM | APPROVE | TWO_PERSON) {
        return true;
    }
    let Some(role) = queue.strip_prefix(APPROVE_ROLE) else {
        let what = format!("`{}` is no queue of people", clip(queue));
        let fix = "Write `confirm`, `approve`, `two_person`, or `approve:ROLE` with a role.";
        build.found.error(at, what, fix);
        return false;
    };
    check_role(build, role, at)
}

/// Returns whether a role of people is declared. If it is not, an error is recorded.
fn check_role(build: &mut ModelBuilder<'_>, role: &str, at: &Location) -> bool {
    let has_people =
        build.model.roles.get(role).is_some_and(|members| !members.subjects.is_empty());
    if !has_people {
        let what = format!("`{}` is no role of people", clip(role));
        build.found.error(at, what, "Declare it under `subjects`, or write another role.");
    }
    has_people
}
