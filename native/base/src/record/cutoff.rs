//! Cut-offs: times up to which the tokens of a subject no longer count.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::principal::Claim;
use crate::record::StoredValue;
use crate::record::task::{Task, TaskKind, TaskSubject};
use crate::time::Time;

/// Cut-off of a subject: Authz refuses tokens of the subject that were issued at or before a time, and tasks that began by then.
///
/// A security event of an identity provider makes it, for example because the provider ended the subject's session. Newer tokens
/// count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cutoff {
    /// Alias of the subject's issuer.
    pub issuer: String,
    /// Claim of its tokens that holds `value`, such as an email address. `None`: `value` is its `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// `sub` of the subject, or value of the claim.
    pub value: String,
    /// Time up to which its tokens are refused.
    pub at: Time,
    /// Reason, for messages of refusals.
    pub reason: String,
    /// Transmitter of the event.
    pub by: String,
    /// Time from which the record is removed: every token that it refuses has expired by then.
    pub ends_at: Time,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Cutoff {
    /// Id of the cut-off of a subject: `<issuer alias>/<sub>`, or `#<claim>:<issuer alias>/<value>`, which no alias begins like.
    ///
    /// Values of claims are compared without regard to the case of ASCII letters, as email addresses are.
    #[must_use]
    pub fn id_of(issuer: &str, claim: Option<&str>, value: &str) -> String {
        match claim {
            None => TaskSubject::revocation_name(issuer, value),
            Some(claim) => format!("#{claim}:{issuer}/{}", value.to_ascii_lowercase()),
        }
    }

    /// Id of the cut-off.
    #[must_use]
    pub fn id(&self) -> String {
        Self::id_of(&self.issuer, self.claim.as_deref(), &self.value)
    }

    /// Returns whether the cut-off is of a subject of tasks.
    #[must_use]
    pub fn is_of(&self, subject: &TaskSubject) -> bool {
        let is_value = match &self.claim {
            None => subject.sub == self.value,
            Some(claim) => match subject.claims.get(claim) {
                Some(Claim::Text(text)) => text.eq_ignore_ascii_case(&self.value),
                _ => false,
            },
        };
        subject.issuer == self.issuer && is_value
    }

    /// Returns whether a token is refused. A token without `iat` may be of any time, and is refused.
    ///
    /// `issued_at` is in seconds since 1970: a token of the same second may be older than the event, and is refused, too.
    #[must_use]
    pub fn covers_token(&self, issued_at: Option<i64>) -> bool {
        issued_at.is_none_or(|issued_at| issued_at <= self.at.0.div_euclid(1_000))
    }

    /// Returns whether a login of a person at a time is refused.
    #[must_use]
    pub const fn covers(&self, at: Time) -> bool {
        at.0 <= self.at.0
    }

    /// Returns whether a task of the subject is refused: it began by then, or with a token that is refused.
    ///
    /// The session of an agent that works without tasks goes on: each of its calls shows a token again.
    #[must_use]
    pub fn covers_task(&self, task: &Task) -> bool {
        task.kind != TaskKind::Implicit
            && (self.covers(task.started_at)
                || task.subject_tokens.iter().any(|token| self.covers_token(token.issued_at())))
    }
}

impl StoredValue for Cutoff {
    fn record_id(&self) -> Cow<'_, str> {
        Cow::Owned(self.id())
    }

    fn record_due(&self) -> Option<Time> {
        Some(self.ends_at)
    }
}
