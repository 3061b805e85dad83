//! Records of a node that are not decisions: bundles that it loaded, ends by time, refused loads, heads of other nodes'
//! logs, and the number of dropped records.

use authz_kernel::rfc3339;
use authz_state::SignedHead;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;
use crate::sums::Sum;

#[derive(Serialize)]
struct NodeRecord<'a> {
    decision_id: &'a str,
    timestamp: String,
    labels: NodeLabels<'a>,
    #[serde(flatten)]
    note: NodeNote<'a>,
}

#[derive(Serialize)]
struct NodeLabels<'a> {
    id: &'a str,
    version: &'a str,
}

/// Events that a node records beside its decisions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NodeNote<'a> {
    /// The bundle and the trust that the node uses from now on.
    Loaded(LoadedNote<'a>),
    /// Heads of other nodes' logs, as those nodes signed them.
    Heads(Vec<SignedHead>),
    /// A task, an approval or an answer whose time was over.
    Expired(ExpiredNote<'a>),
    /// Answered decisions whose records were dropped, because the queue was full.
    Dropped(DroppedNote),
    /// A load that the node refused. The bundle and the trust before stay in use.
    Refused(RefusedNote<'a>),
}

/// Most errors of a refused load, and longest text of each, in characters.
const MAX_ERRORS: usize = 5;
const MAX_ERROR_TEXT: usize = 300;

/// A load of a bundle or of trust that was refused, as the loader tells it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefusedLoad {
    /// Digest of the refused bundle in hex. Empty: the folder could not be read.
    #[serde(default)]
    digest: String,
    errors: Vec<LoadError>,
    /// Refused loads without a record, since the last recorded refusal.
    #[serde(default)]
    unrecorded: u64,
}

/// Error of a refused load.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct LoadError {
    /// Place: `file:line`. Empty: unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    at: String,
    /// Name of the check that failed. Empty: the check has no name.
    #[serde(skip_serializing_if = "String::is_empty")]
    code: String,
    message: String,
}

impl LoadError {
    fn bounded(&self) -> Self {
        let cut = |text: &str| text.chars().take(MAX_ERROR_TEXT).collect();
        Self { at: cut(&self.at), code: cut(&self.code), message: cut(&self.message) }
    }
}

/// A refused load, and the bundle that stays in use.
#[derive(Debug, Serialize)]
pub(crate) struct RefusedNote<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    /// Digest of the bundle in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_use: Option<&'a str>,
    errors: Vec<LoadError>,
    /// Number of further errors.
    #[serde(skip_serializing_if = "is_zero")]
    omitted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    unrecorded: u64,
}

impl<'a> RefusedNote<'a> {
    pub(crate) fn of(load: &'a RefusedLoad, in_use: Option<&'a str>) -> Self {
        Self {
            digest: Some(load.digest.as_str()).filter(|digest| !digest.is_empty()),
            in_use,
            errors: load.errors.iter().take(MAX_ERRORS).map(LoadError::bounded).collect(),
            omitted: load.errors.len().saturating_sub(MAX_ERRORS) as u64,
            unrecorded: load.unrecorded,
        }
    }
}

/// Dropped records.
#[derive(Debug, Serialize)]
pub(crate) struct DroppedNote {
    pub(crate) count: u64,
    /// Times of the first and of the last of these decisions.
    first: String,
    last: String,
}

impl DroppedNote {
    pub(crate) fn of(sum: Sum) -> Self {
        Self {
            count: sum.count,
            first: rfc3339::millis(sum.first_ms),
            last: rfc3339::millis(sum.last_ms),
        }
    }
}

/// A bundle and trust.
#[derive(Debug, Serialize)]
pub(crate) struct LoadedNote<'a> {
    /// Name of the bundle.
    pub(crate) bundle: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) digest: &'a str,
    /// Revision of the keys and trust domains.
    pub(crate) trust: &'a str,
}

/// Something that ended because its time was over.
#[derive(Debug, Serialize)]
pub(crate) struct ExpiredNote<'a> {
    /// Id of the session.
    pub(crate) session: &'a str,
    /// Id of the task that ended.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) task: &'a str,
    /// Number of tasks that ended: the task and those below it.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) tasks: u64,
    /// Id of the approval that ended.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) approval: &'a str,
    /// Queues that nobody answered for, or the queues of an approved call that was not made.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(crate) queues: &'a [String],
    /// True if people had approved the call.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) was_approved: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The record of a node, without a line feed.
pub(crate) fn node_line(id: &str, now_ms: i64, note: NodeNote<'_>, settings: &Settings) -> Vec<u8> {
    let record = NodeRecord {
        decision_id: id,
        timestamp: rfc3339::millis(now_ms),
        labels: NodeLabels { id: &settings.node_id, version: &settings.version },
        note,
    };
    serde_json::to_vec(&record).unwrap_or_default()
}
