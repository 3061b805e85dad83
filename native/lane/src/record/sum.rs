//! The record of refusals that have none of their own.

use authz_kernel::decision::Outcome;
use authz_kernel::rfc3339;
use serde::Serialize;

use crate::judgement::outcome_name;
use crate::settings::Settings;
use crate::sums::{Row, Sum};

/// The record of refusals that have none of their own.
#[derive(Serialize)]
struct SumRecord<'a> {
    decision_id: &'a str,
    timestamp: String,
    labels: SumLabels<'a>,
    sum: SumNote<'a>,
    result: SumAnswer<'a>,
    requested_by: &'a str,
}

#[derive(Serialize)]
struct SumLabels<'a> {
    id: &'a str,
    version: &'a str,
    listener: &'a str,
}

#[derive(Serialize)]
struct SumNote<'a> {
    /// Number of refusals.
    count: u64,
    /// Peer of the callers. Empty: peers beyond the bounds of the table, or calls that were not read.
    peer: &'a str,
    first: String,
    last: String,
}

#[derive(Serialize)]
struct SumAnswer<'a> {
    outcome: &'a str,
    reason_code: &'a str,
    public_code: &'a str,
    message: String,
}

/// The record of a sum, without a line feed.
pub(crate) fn sum_line(id: &str, now_ms: i64, row: &Row, sum: Sum, settings: &Settings) -> Vec<u8> {
    let record = SumRecord {
        decision_id: id,
        timestamp: rfc3339::millis(now_ms),
        labels: SumLabels {
            id: &settings.node_id,
            version: &settings.version,
            listener: &row.listener,
        },
        sum: SumNote {
            count: sum.count,
            peer: &row.peer,
            first: rfc3339::millis(sum.first_ms),
            last: rfc3339::millis(sum.last_ms),
        },
        // INVARIANT (no permit): only refusals are summed up.
        result: SumAnswer {
            outcome: outcome_name(Outcome::Deny),
            reason_code: row.reason.as_str(),
            public_code: row.reason.row().public_code.as_str(),
            message: format!(
                "a sum of {} refusals of callers of whom nothing was verified",
                sum.count
            ),
        },
        requested_by: &row.peer,
    };
    serde_json::to_vec(&record).unwrap_or_default()
}
