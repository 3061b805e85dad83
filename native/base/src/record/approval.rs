//! Approvals: calls that stepped up, and the answers of the people who decide about them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::record::history::ValueFingerprint;
use crate::record::task::{AgentName, TaskSubject};
use crate::record::{RecordKey, RecordKind, StoredValue, is_false};
use crate::tier::Tier;
use crate::time::Time;

/// Time for which an approval is kept after its end, in milliseconds.
const KEPT_AFTER_END_MS: i64 = 24 * 3_600 * 1_000;
/// Values of approved calls that a task remembers, and bytes of one.
const MAX_VALUES: usize = 64;
const MAX_VALUE: usize = 512;
/// A minute, and an hour, in milliseconds.
const MINUTE_MS: i64 = 60 * 1_000;
const MINUTES: i64 = 60;

/// Stored status of an approval. An open or approved approval is expired after its end: see [`Approval::status_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    /// At least one queue lacks an answer.
    Open,
    /// Every queue approved the call. The call may be made once.
    Approved,
    /// A person rejected it.
    Rejected,
    /// The approval ended before its call was made.
    Expired,
    /// The call was made.
    Consumed,
}

impl ApprovalStatus {
    /// Returns the name in audit records and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Consumed => "consumed",
        }
    }
}

/// A call that stepped up, and the answers of people. The record is kept for some time after its end.
///
/// The key is the hash of task, chain and digest. `generation` numbers the approvals of one call; only the newest is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Id of the record: 32 hex digits.
    pub id: String,
    /// Number of the approval among the approvals of the same call, from 1.
    pub generation: u64,
    /// Status.
    pub status: ApprovalStatus,
    /// Id of the task, or of the session if the call was made without a task.
    pub task: String,
    /// Id of the session.
    pub session: String,
    /// True if the call was made in a task that was started explicitly.
    pub in_task: bool,
    /// Template of the task.
    pub template: String,
    /// Purpose of the task, as its template states it.
    pub purpose: String,
    /// Subject of the call. `None` if the agent acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<TaskSubject>,
    /// Agents of the chain, the acting agent last.
    pub agents: Vec<AgentName>,
    /// Digest of the pair of agent and subject.
    pub pair: String,
    /// Operation id.
    pub operation: String,
    /// Effects of the operation.
    pub effects: Vec<String>,
    /// Effective tier.
    pub tier: Tier,
    /// Resource: `<collection>/<id>` or the collection. Empty if the call has no resource.
    pub resource: String,
    /// Destinations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<ApprovalDestination>,
    /// Values that carry authority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ApprovalObject>,
    /// Recipients and targets that are not `named`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unnamed: Vec<ApprovalValue>,
    /// Endorsement that a person may give with the answer. `None`: the rules of the call allow none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorses: Option<ApprovalEndorsement>,
    /// Labels that the call carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Rules that need the step-up.
    pub grounds: Vec<ApprovalGround>,
    /// Kinds of the step-up, sorted.
    pub kinds: Vec<String>,
    /// Queues that people answer, sorted.
    pub queues: Vec<String>,
    /// True if the answers need a passkey.
    #[serde(default, skip_serializing_if = "is_false")]
    pub needs_passkey: bool,
    /// Arguments as canonical JSON (RFC 8785). Empty if they are too long to show.
    pub arguments: String,
    /// Parts of the HTTP request that its route ignores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<IgnoredValue>,
    /// Reason why the call cannot be shown whole and can only be rejected. Empty if it can be shown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cannot_be_shown: String,
    /// SHA-256 of the call, in hex.
    pub digest: String,
    /// Id of the decision that made the approval.
    pub decision_id: String,
    /// Time of that decision.
    pub created_at: Time,
    /// Time at which a person first read the approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_at: Option<Time>,
    /// Latest end of the approval.
    pub expires_at: Time,
    /// End of the time in which an approved call can be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good_until: Option<Time>,
    /// Answers, in order of their times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<ApprovalAnswer>,
    /// The last approved call of the pair and operation, when this approval was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_approved: Option<ApprovedCall>,
    /// Destinations and named objects of calls of the task that people approved and that were made before, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_values: Vec<String>,
    /// Id of the [`RememberedAnswer`] that a rejection writes.
    pub rejects: String,
    /// Time for which a rejection is remembered, in milliseconds.
    pub memory_ms: i64,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for Approval {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    // The end of a waiting approval is written once, so that it is counted and told to callers that wait.
    fn record_due(&self) -> Option<Time> {
        Some(match self.status {
            ApprovalStatus::Open | ApprovalStatus::Approved => self.ends_at(),
            ApprovalStatus::Rejected | ApprovalStatus::Expired | ApprovalStatus::Consumed => {
                Time(self.expires_at.0.saturating_add(KEPT_AFTER_END_MS))
            }
        })
    }
}

impl Approval {
    /// Returns the id that a call presents: `<record id>-<generation>`.
    #[must_use]
    pub fn approval_id(&self) -> String {
        format!("{}-{}", self.id, self.generation)
    }

    /// Returns record and generation of an id of the form of [`Approval::approval_id`].
    #[must_use]
    pub fn parse_id(text: &str) -> Option<(RecordKey, u64)> {
        let (id, generation) = text.split_once('-')?;
        let is_id = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number: u64 = generation.parse().ok()?;
        // Each number has one accepted spelling: no sign and no leading zero.
        let is_plain = number > 0 && number.to_string() == generation;
        (is_id && is_plain).then(|| (RecordKey::new(RecordKind::Approval, id), number))
    }

    /// Returns the status at a time.
    #[must_use]
    pub fn status_at(&self, now: Time) -> ApprovalStatus {
        let is_over = match self.status {
            ApprovalStatus::Open => self.expires_at <= now,
            ApprovalStatus::Approved => self.ends_at() <= now,
            ApprovalStatus::Rejected | ApprovalStatus::Expired | ApprovalStatus::Consumed => false,
        };
        if is_over { ApprovalStatus::Expired } else { self.status }
    }

    /// Returns the end of the approval. For an approved one, it is the end of the time in which the call can be made.
    #[must_use]
    pub fn ends_at(&self) -> Time {
        self.good_until.map_or(self.expires_at, |good| good.min(self.expires_at))
    }

    /// Returns the queues that still lack an answer.
    #[must_use]
    pub fn waits_for(&self) -> Vec<&str> {
        let approved = || self.answers.iter().filter(|answer| answer.approved);
        let by_others = || approved().filter(|answer| answer.queue != CONFIRM);
        let is_answered = |queue: &str| match queue {
            APPROVE => by_others().next().is_some(),
            TWO_PERSON => {
                let mut people: Vec<&str> =
                    by_others().map(|answer| answer.person.as_str()).collect();
                people.sort_unstable();
                people.dedup();
                people.len() >= 2
            }
            _ => approved().any(|answer| answer.queue == queue),
        };
        self.queues.iter().map(String::as_str).filter(|queue| !is_answered(queue)).collect()
    }

    /// Returns whether all who approved it endorse its values.
    #[must_use]
    pub fn is_endorsed(&self) -> bool {
        self.endorses.is_some()
            && self.answers.iter().all(|answer| answer.approved && answer.endorses)
    }

    /// Names of the rules that hold the call for a queue, sorted, each once.
    ///
    /// `confirm_without_person` is the queue that takes the place of `confirm` if the chain has no person.
    #[must_use]
    pub fn rules_of(&self, queue: &str, confirm_without_person: &str) -> BTreeSet<&str> {
        let has_confirm = self.queues.iter().any(|one| one == CONFIRM);
        let queue_of = |kind: &'_ str| match kind {
            CONFIRM if !has_confirm => confirm_without_person == queue,
            kind => kind == queue,
        };
        let held = self.grounds.iter().filter(|ground| queue_of(&ground.kind));
        held.map(|ground| ground.name.as_str()).collect()
    }

    /// Destinations of the call, and the objects that name somebody or something, as text.
    #[must_use]
    pub fn named_values(&self) -> Vec<String> {
        let destinations = self.destinations.iter().map(|one| one.value.clone());
        let named = |one: &&ApprovalObject| matches!(one.role.as_str(), "recipient" | "target");
        let objects = self.objects.iter().filter(named).map(|one| {
            serde_json::from_str::<String>(&one.value).unwrap_or_else(|_| one.value.clone())
        });
        destinations.chain(objects).collect()
    }

    /// The person who rejected it, and why.
    #[must_use]
    pub fn rejection(&self) -> Option<&ApprovalAnswer> {
        self.answers.iter().find(|answer| !answer.approved)
    }
}

/// Queue of the acting subject.
pub const CONFIRM: &str = "confirm";
/// Queue of another person.
pub const APPROVE: &str = "approve";
/// Queue of two other people.
pub const TWO_PERSON: &str = "two_person";
/// Prefix of the queue of people with a role.
pub const APPROVE_ROLE: &str = "approve:";

/// Returns whether people answer a step-up kind. All other kinds are proofs of the call itself.
#[must_use]
pub fn is_person_kind(kind: &str) -> bool {
    matches!(kind, CONFIRM | APPROVE | TWO_PERSON) || kind.starts_with(APPROVE_ROLE)
}

/// A destination of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDestination {
    /// Canonical form.
    pub value: String,
    /// Class in the bundle.
    pub class: String,
    /// Host or domain part.
    pub host: String,
    /// Recipient list that has the destination.
    pub recipient_list: String,
    /// Origin.
    pub origin: String,
}

/// A value of the call that carries authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalObject {
    /// Authority of the value.
    pub role: String,
    /// JSON pointer of its argument.
    pub pointer: String,
    /// Collection, or type of destination.
    pub collection: String,
    /// The value as JSON.
    pub value: String,
    /// Currency of an amount.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub currency: String,
    /// Origin.
    pub origin: String,
}

/// A recipient or a target of the call that is not `named`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalValue {
    /// Authority of the value.
    pub role: String,
    /// Collection, or form of destination.
    pub collection: String,
    /// The whole value in its canonical form.
    pub value: String,
    /// Keyed fingerprint of the value.
    pub fingerprint: ValueFingerprint,
}

/// Limits within which a person may endorse the values `unnamed` of an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalEndorsement {
    /// Ids of the operations for which the values count as `named`, sorted.
    pub operations: Vec<String>,
    /// Calls for each value.
    pub uses: u32,
    /// Longest time, in milliseconds.
    pub within_ms: i64,
    /// End of the endorsement that was given. `None`: none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// A rule that needs the step-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalGround {
    /// Identity of the rule. It changes with the text of the rule.
    pub identity: String,
    /// Step-up kind that lifts the rule.
    pub kind: String,
    /// Name of the rule.
    pub name: String,
    /// Reason, as the rule states it.
    pub reason: String,
    /// `file:line` in the bundle.
    pub place: String,
}

/// A part of an HTTP request that its route ignores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredValue {
    /// Place, for example `query:page`.
    pub place: String,
    /// Value as received.
    pub value: String,
}

/// Answer of one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnswer {
    /// Queue of the answer.
    pub queue: String,
    /// True if the person approved the call, false if the person rejected it.
    pub approved: bool,
    /// The person endorses the values of the call, too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub endorses: bool,
    /// The person: `<issuer alias>/<sub>`.
    pub person: String,
    /// Roles of the person at the time of the answer.
    pub roles: Vec<String>,
    /// `login`, `passkey` or `socket`.
    pub method: String,
    /// `acr` of the login.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub acr: String,
    /// Time of the login or of the use of the passkey.
    pub authenticated_at: Time,
    /// Time of the answer.
    pub at: Time,
    /// SHA-256 of the card that the person was shown, in hex.
    pub card_digest: String,
    /// Signature of a passkey over the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<PasskeyAssertion>,
    /// Name of the reason of a rejection, from the bundle's `reject_reasons`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reject_reason: String,
    /// Text of the reason of a rejection.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reject_text: String,
    /// Comment of the person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Assertion of a passkey (WebAuthn §7.2), each member in base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasskeyAssertion {
    /// Id of the credential.
    pub credential_id: String,
    /// Signature over the authenticator data and the hash of the client data.
    pub signature: String,
    /// Authenticator data.
    pub authenticator_data: String,
    /// Client data, whose challenge is the digest of the answer.
    pub client_data_json: String,
}

/// An earlier call that people approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovedCall {
    /// Arguments as canonical JSON (RFC 8785).
    pub arguments: String,
    /// Time of the last answer.
    pub at: Time,
    /// People who approved it.
    pub by: Vec<String>,
}

/// An open approval of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedApproval {
    /// Time of the decision that made it.
    pub at: Time,
    /// Names of the rules that hold the call for the queue, as one label.
    pub rule: String,
}

/// Open approvals of one queue, task or agent, and how many were asked for lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalQueue {
    /// Id of the record: `queue/…`, `task/…` or `agent/…`.
    pub id: String,
    /// End of each open approval, by its id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub open: BTreeMap<String, Time>,
    /// Start and rules of each open approval, by its id. Only of queues; earlier versions did not write it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub opened: BTreeMap<String, OpenedApproval>,
    /// Number of approvals made, by the minute since 1970. Only of the last hour.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub made: BTreeMap<i64, u32>,
    /// Of a task: destinations and named objects of its approved calls, the latest first, at most [`MAX_VALUES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Time at which the record may be forgotten.
    pub expires_at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for ApprovalQueue {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

impl ApprovalQueue {
    /// Drops approvals that ended more than an hour ago, and counts of more than an hour ago.
    ///
    /// The clean-up of the store takes approvals out soon after their end, so other changes leave them to it.
    pub fn forget_ended(&mut self, now: Time) {
        let first = now.0.div_euclid(MINUTE_MS).saturating_sub(MINUTES).saturating_add(1);
        self.made = self.made.split_off(&first);
        let hour_ago = Time(now.0.saturating_sub(MINUTES.saturating_mul(MINUTE_MS)));
        self.open.retain(|_, until| *until > hour_ago);
        self.opened.retain(|id, _| self.open.contains_key(id));
    }

    /// Approvals that are open at a time, with their ends.
    pub fn open_at(&self, now: Time) -> impl Iterator<Item = (&String, &Time)> {
        self.open.iter().filter(move |(_, until)| **until > now)
    }

    /// Remembers the values of an approved call that is made.
    pub fn remember(&mut self, approval: &Approval) {
        let mut values = approval.named_values();
        values.extend(std::mem::take(&mut self.values));
        let mut seen = BTreeSet::new();
        values.retain(|value| value.len() <= MAX_VALUE && seen.insert(value.clone()));
        values.truncate(MAX_VALUES);
        self.values = values;
        self.expires_at = self.expires_at.max(approval.expires_at);
    }

    /// Takes out an approval. Returns whether it was there.
    pub fn remove(&mut self, approval_id: &str) -> bool {
        self.opened.remove(approval_id);
        self.open.remove(approval_id).is_some()
    }

    /// Approvals made in the last hour.
    #[must_use]
    pub fn made_lately(&self) -> u64 {
        self.made.values().map(|count| u64::from(*count)).fold(0, u64::saturating_add)
    }

    /// Adds an open approval.
    pub fn add(&mut self, approval_id: &str, until: Time, now: Time) {
        self.open.insert(approval_id.to_owned(), until);
        let count = self.made.entry(now.0.div_euclid(MINUTE_MS)).or_default();
        *count = count.saturating_add(1);
        let hour = Time(now.0.saturating_add(MINUTES.saturating_mul(MINUTE_MS)));
        // The clean-up counts an approval that ended before it forgets the record.
        let counted = Time(until.0.saturating_add(MINUTE_MS));
        self.expires_at = self.expires_at.max(counted).max(hour);
    }
}

/// Answer of people that later calls read: a rejection (`rejected/…`) or the last approved call of an operation (`approved/…`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RememberedAnswer {
    /// Id of the record.
    pub id: String,
    /// Approval that was answered.
    pub approval_id: String,
    /// Time of the answer.
    pub at: Time,
    /// People who answered.
    pub by: Vec<String>,
    /// Arguments of an approved call, as canonical JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arguments: String,
    /// Name of the reason of a rejection, from the bundle's `reject_reasons`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reject_reason: String,
    /// Time at which the record may be forgotten.
    pub expires_at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl StoredValue for RememberedAnswer {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.expires_at)
    }
}

/// A passkey with which a person answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passkey {
    /// Id of the record: `<hash of the person>/<credential id in base64url>`.
    #[serde(default)]
    pub id: String,
    /// Alias of the person's issuer.
    pub issuer: String,
    /// `sub` of the person.
    pub sub: String,
    /// Id of the credential, in base64url.
    pub credential_id: String,
    /// Public key, a COSE key in base64url.
    pub public_key: String,
    /// Highest signature counter so far.
    #[serde(default)]
    pub sign_count: u32,
    /// Transports that the authenticator reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transports: Vec<String>,
    /// Name that the person gave it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Time of its registration.
    pub created_at: Time,
    /// Time of its last use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Time>,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

// Passkeys do not expire.
impl StoredValue for Passkey {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = "0123456789abcdef0123456789abcdef";
        let read = |text: String| Approval::parse_id(&text).map(|(key, number)| (key.id, number));
        assert_eq!(Some((id.into(), 12)), read(format!("{id}-12")));
        for wrong in ["-0", "-01", "-+1", "", "-", "-1-1", "-x"] {
            assert_eq!(None, read(format!("{id}{wrong}")), "{wrong}");
        }
        assert_eq!(None, read(format!("{}-1", id.to_uppercase())));
        assert_eq!(None, read("0123456789abcdef-1".to_owned()));
    }

    #[test]
    fn a_tally_forgets_what_ended() {
        let mut tally = ApprovalQueue::default();
        let minute = |number: i64| Time(number * MINUTE_MS);
        tally.add("a", minute(70), minute(0));
        tally.add("b", minute(30), minute(1));
        let open = |tally: &ApprovalQueue, at| -> Vec<String> {
            tally.open_at(minute(at)).map(|(id, _)| id.clone()).collect()
        };
        tally.forget_ended(minute(59));
        assert_eq!((vec!["a".to_owned()], 2), (open(&tally, 59), tally.made_lately()));
        tally.forget_ended(minute(60));
        assert_eq!(1, tally.made_lately());
        tally.forget_ended(minute(90));
        assert_eq!(
            vec!["a"],
            tally.open.keys().collect::<Vec<_>>(),
            "the clean-up did not take it out for an hour"
        );
        assert_eq!((Vec::new(), 0), (open(&tally, 90), tally.made_lately()));
    }
}
