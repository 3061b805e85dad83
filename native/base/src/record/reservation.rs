//! Permits whose outcome is not reported yet.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::StoredValue;
use crate::record::credential::Detail;
use crate::record::history::ValueTerms;
use crate::record::is_false;
use crate::record::key::RecordName;
use crate::record::task::Task;
use crate::tier::Tier;
use crate::time::Time;

/// Permitted operation whose outcome is not reported yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Id of the permit's decision.
    pub decision_id: String,
    /// Id of the task, in which the uses are counted already.
    pub task: String,
    /// Id of the session.
    pub session: String,
    /// Operation id.
    pub operation: String,
    /// Scope entries that were charged: `(task id, index)`, own and ancestors'.
    pub charged: Vec<(String, u32)>,
    /// Enforcer that asked; empty if the caller asked about itself.
    pub enforcer: String,
    /// Time of the permit.
    pub permitted_at: Time,
    /// Time at which it counts as done without a report, or is released if it has a credential that was not redeemed.
    pub due: Time,
    /// Id of the resource that was judged. `None` if the operation has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// SHA-256 of the arguments in their canonical form, in hex. `None` without arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments_digest: Option<String>,
    /// Destinations of the decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
    /// Effective tier of the permit.
    #[serde(default)]
    pub tier: Tier,
    /// SPIFFE id of the permitted agent; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// Digest of the id of the pair of agent and subject; empty in a record of an earlier version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pair: String,
    /// `jti` of the credential that was issued for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The check asked for a credential, so the permit itself performs no operation.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wants_credential: bool,
    /// The credential was presented and the operation permitted again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub redeemed: bool,
    /// Records that remember its labels when the task has ended; empty if they know all labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remembered_in: Vec<RecordName>,
    /// End of the subject's token that was presented for the permit. `None` without a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_until: Option<Time>,
    /// Id of the record of the enforcer's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// What its report may say about values of the result. `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<ValueTerms>,
    /// Identities of the rules that an approval lifted for the permit. A task credential of the permit needs no second approval.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lifted: Vec<String>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for Reservation {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.decision_id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.due)
    }
}

/// Values of a new [`Reservation`].
#[derive(Debug)]
pub struct NewReservation<'a> {
    /// The permitted operation.
    pub detail: Detail,
    /// The task in which it was permitted.
    pub task: &'a Task,
    /// Enforcer that asked; empty if the caller asked about itself.
    pub enforcer: String,
    /// Time of the permit.
    pub permitted_at: Time,
    /// Time at which it counts as done without a report, or is released if it has a credential that was not redeemed.
    pub due: Time,
    /// Effective tier of the permit.
    pub tier: Tier,
    /// SPIFFE id of the permitted agent; empty if unknown.
    pub agent: String,
    /// Digest of the id of the pair of agent and subject.
    pub pair: String,
    /// Records that remember its labels when the task has ended; empty if they know all labels.
    pub remembered_in: Vec<RecordName>,
    /// End of the subject's token that was presented for the permit. `None` without a token.
    pub subject_until: Option<Time>,
}

impl Reservation {
    /// A reservation that charges no scope entry and has neither a credential nor an idempotency key.
    #[must_use]
    pub fn new(new: NewReservation<'_>) -> Self {
        Self {
            decision_id: new.detail.decision_id,
            task: new.task.id.clone(),
            session: new.task.session.clone(),
            operation: new.detail.operation,
            charged: Vec::new(),
            enforcer: new.enforcer,
            permitted_at: new.permitted_at,
            due: new.due,
            resource: new.detail.resource,
            arguments_digest: new.detail.arguments_digest,
            destinations: new.detail.destinations,
            tier: new.tier,
            agent: new.agent,
            pair: new.pair,
            credential: None,
            wants_credential: false,
            redeemed: false,
            remembered_in: new.remembered_in,
            subject_until: new.subject_until,
            idempotency: None,
            values: None,
            lifted: Vec::new(),
            rest: BTreeMap::new(),
        }
    }

    /// Returns whether its credential was not redeemed, so that no operation was performed.
    #[must_use]
    pub const fn is_unused(&self) -> bool {
        self.credential.is_some() && !self.redeemed
    }
}
