//! Steps that tell what came of an earlier one.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::tasks::{Placed, Tasks};
use crate::decision::{Decision, Outcome, ReasonCode, Time};
use crate::history::{Event, Remembering, Reported};
use crate::model::Reports;
use crate::plan::Plan;
use crate::task::{RecordKey, Refused};

/// What came of a permitted call, told by whoever asked for it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportSaid {
    /// The step of the call, from 1; default: the last call before.
    pub(super) of: Option<usize>,
    /// What came of it; default `ok`.
    #[serde(default)]
    result: ResultWord,
    /// Labels that its results carry; an access log names none.
    #[serde(default)]
    labels: BTreeSet<String>,
    /// What was spent of budgets that sum up, by their names; an access log names none.
    #[serde(default)]
    actuals: BTreeMap<String, i64>,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ResultWord {
    /// It was performed.
    #[default]
    Ok,
    /// It failed.
    Failed,
    /// It was never tried.
    Aborted,
}

/// A permit of which it is open what came.
#[derive(Clone, Debug)]
struct Open {
    session: String,
    operation: String,
    charged: Vec<(String, u32)>,
    /// The records that remember its labels when the task has ended.
    memories: Vec<Memory>,
}

/// The record that remembers the labels of a permit, and since when.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    pub(super) key: RecordKey,
    pub(super) permitted_at: Time,
    pub(super) remembering: Remembering,
}

/// The permits of one test, by their steps.
#[derive(Debug, Default)]
pub(super) struct Permits {
    open: BTreeMap<usize, Open>,
    last: usize,
}

/// What the permit of a step is called in the history of its session: by their order.
pub(super) fn id_of(step: usize) -> String {
    format!("step {step:06}")
}

impl Permits {
    /// Keeps the permit of a step.
    pub(super) fn keep(
        &mut self,
        plan: &Plan,
        step: usize,
        (placed, decision): (&Placed, &Decision),
        now: Time,
    ) {
        self.last = step;
        if decision.outcome == Outcome::Permit {
            let open = Open {
                session: placed.session().to_owned(),
                operation: decision.operation.clone(),
                charged: decision.charges.clone(),
                memories: placed.memories(plan, decision, now),
            };
            self.open.insert(step, open);
        }
    }

    /// Lets the permit of one step be that of another: what a credential permits is performed by whoever presents it.
    pub(super) fn hand_over(&mut self, from: usize, to: usize) {
        if let (Some(before), Some(after)) = (self.open.remove(&from), self.open.get_mut(&to)) {
            after.charged = before.charged;
            after.memories.extend(before.memories);
        }
    }

    /// Takes over what is told, as a server would.
    ///
    /// # Errors
    /// It is refused.
    pub(super) fn report(
        &mut self,
        plan: &Plan,
        said: &ReportSaid,
        tasks: &mut Tasks,
        now: Time,
    ) -> Result<(), Refused> {
        let refuse =
            |reason, message: String| -> Result<(), Refused> { Err(Refused { reason, message }) };
        let step = said.of.unwrap_or(self.last);
        let Some(open) = self.open.get(&step) else {
            let what = "there is no permit of that decision, or it counts as done";
            return refuse(ReasonCode::NotPermitted, what.to_owned());
        };
        let by = plan.model().reports(&open.operation);
        if by == Reports::Never {
            let what = "nobody tells what comes of the system's operations";
            return refuse(ReasonCode::EnforcerRefused, what.to_owned());
        }
        let names_anything = !said.labels.is_empty() || !said.actuals.is_empty();
        if by == Reports::AccessLog && names_anything {
            let what =
                "an access log, which reports for the system, names no `labels` and no `actuals`";
            return refuse(ReasonCode::BadInput, what.to_owned());
        }
        if let Err(what) = plan.may_carry(&open.operation, &said.labels) {
            return refuse(ReasonCode::BadInput, what);
        }
        let event = match said.result {
            ResultWord::Ok => Event::Done,
            ResultWord::Failed => Event::Failed,
            ResultWord::Aborted => Event::Aborted,
        };
        let reported = Reported {
            event,
            operation: &open.operation,
            labels: (by == Reports::Sdk || event == Event::Aborted).then_some(&said.labels),
            actuals: &said.actuals,
            is_abortable: plan.is_abortable(&open.operation),
        };
        tasks.report(&open.session, &open.charged, &id_of(step), &reported, now)?;
        for memory in &open.memories {
            tasks.report_remembered(&open.session, memory, &id_of(step), &reported);
        }
        self.open.remove(&step);
        Ok(())
    }
}
