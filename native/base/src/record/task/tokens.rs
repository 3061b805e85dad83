//! Roles of a task's subject: those of the token that the task began with, as far as the newest token and the presented token
//! give them, too.
//!
//! A token is newer than another by its `iat`, and only within one stream: one issuer, token type and client. Tokens of
//! different clients may carry different claims at the same time, so they are never ordered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{SubjectProof, Task, TaskSubject, TaskView};
use crate::principal::{Claim, Narrowing, Principal, Subject};
use crate::record::Declarations;
use crate::time::Time;

/// The claims of a token that are kept for policy.
type KeptClaims = BTreeMap<String, Claim>;

/// Streams that one task tree remembers. Tokens of any further stream are counted among those of the last one, so that
/// they may take roles away, and never give one back that another stream lost.
const MAX_STREAMS: usize = 4;
/// Grain at which a task notes that a newer token ends later, in milliseconds, so that not every token is a write.
const UNTIL_GRAIN_MS: i64 = 60_000;

/// Subject token of a call, as far as it is compared with older tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownToken<'a> {
    /// Type of the token (`typ` of its header); empty where it has none.
    pub token_type: &'a str,
    /// The client to which it was issued (`azp`, else `client_id`); empty if it names none.
    pub client: &'a str,
    /// `iat` in seconds since 1970, at most the time of the call. `None` if the token has none.
    pub issued_at: Option<i64>,
    /// End of the token. `None` if unknown.
    pub expires_at: Option<Time>,
    /// Its kept claims.
    pub claims: &'a KeptClaims,
}

/// Newest token of one stream that was presented in a task tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestToken {
    /// Type of the token; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    token_type: String,
    /// The client; empty where the token names none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    client: String,
    /// `iat` in seconds since 1970. `None` if tokens of the stream have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_at: Option<i64>,
    /// Claims of the first token of the stream. `None`: those that the task began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<KeptClaims>,
    /// Claims of the newest token. `None`: those of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<KeptClaims>,
}

impl NewestToken {
    /// `iat` of the first token of the stream, or of a newer one with other roles, in seconds since 1970. `None` if tokens of the
    /// stream have none.
    #[must_use]
    pub(crate) const fn issued_at(&self) -> Option<i64> {
        self.issued_at
    }

    fn new(shown: &ShownToken<'_>, first: Option<KeptClaims>, newest: Option<KeptClaims>) -> Self {
        Self {
            token_type: shown.token_type.to_owned(),
            client: shown.client.to_owned(),
            issued_at: shown.issued_at,
            first,
            newest,
        }
    }

    fn is_stream_of(&self, shown: &ShownToken<'_>) -> bool {
        self.token_type == shown.token_type
            && self.client == shown.client
            && self.issued_at.is_some() == shown.issued_at.is_some()
    }

    /// The claims of the newest token of the stream.
    fn claims<'a>(&'a self, subject: &'a TaskSubject) -> &'a KeptClaims {
        self.newest.as_ref().or(self.first.as_ref()).unwrap_or(&subject.claims)
    }

    /// Takes away the roles that the stream lost since its first token. `None` if the newest token is the first.
    fn narrowing(&self) -> Option<Narrowing> {
        let to = self.newest.clone()?;
        Some(Narrowing { from: self.first.clone(), to })
    }

    /// The stream after a token was presented. `None` if the stored stream stays.
    fn after(
        &self,
        shown: &ShownToken<'_>,
        subject: &TaskSubject,
        bundle: &dyn Declarations,
    ) -> Option<Self> {
        let before = self.claims(subject);
        // As long as nothing was lost, a token with the same roles changes nothing; after that, its time counts.
        if before == shown.claims && self.newest.is_none() {
            return None;
        }
        let roles = |claims: &KeptClaims| bundle.roles_of_subject(&subject.with_claims(claims));
        let (had, has) = (roles(before), roles(shown.claims));
        if had == has && self.newest.is_none() {
            return None;
        }
        let is_newer = match (self.issued_at, shown.issued_at) {
            (Some(known), Some(issued)) if issued != known && self.is_stream_of(shown) => {
                issued > known
            }
            // Nothing says which one is newer: a token may take roles away then, and gives none back.
            _ => has.len() < had.len() && has.iter().all(|role| had.contains(role)),
        };
        if !is_newer {
            return None;
        }
        let first = self.first.as_ref().unwrap_or(&subject.claims);
        let newest = (first != shown.claims).then(|| shown.claims.clone());
        let issued_at = self.issued_at.max(shown.issued_at);
        Some(Self { issued_at, newest, ..self.clone() })
    }
}

impl TaskSubject {
    /// The subject with other claims.
    fn with_claims(&self, claims: &KeptClaims) -> Subject {
        Subject {
            issuer: self.issuer.clone(),
            sub: self.sub.clone(),
            claims: claims.clone(),
            narrowed: Vec::new(),
        }
    }
}

impl Task {
    /// Notes the token that the task begins with.
    pub fn begin_with(&mut self, shown: &ShownToken<'_>) {
        self.subject_tokens = vec![NewestToken::new(shown, None, None)];
        self.subject_until = shown.expires_at;
    }

    /// The root of a task tree after a subject token was presented in it. `None` if the stored root stays.
    #[must_use]
    pub fn after_token(&self, shown: &ShownToken<'_>, bundle: &dyn Declarations) -> Option<Self> {
        match (self.tokens_after(shown, bundle), self.until_after(shown)) {
            (None, None) => None,
            (tokens, until) => Some(Self {
                subject_tokens: tokens.unwrap_or_else(|| self.subject_tokens.clone()),
                subject_until: until.or(self.subject_until),
                ..self.clone()
            }),
        }
    }

    /// End of the newest token after a token was presented. `None` if the stored end stays.
    fn until_after(&self, shown: &ShownToken<'_>) -> Option<Time> {
        let until = shown.expires_at?;
        match self.subject_until {
            Some(known) => (until.0.saturating_sub(known.0) >= UNTIL_GRAIN_MS).then_some(until),
            // No token bounds a task whose subject was only asserted.
            None => (self.subject_proof == SubjectProof::Verified).then_some(until),
        }
    }

    /// The newest tokens after a token was presented. `None` if the stored tokens stay.
    fn tokens_after(
        &self,
        shown: &ShownToken<'_>,
        bundle: &dyn Declarations,
    ) -> Option<Vec<NewestToken>> {
        let subject = self.subject.as_ref()?;
        let known = self.subject_tokens.iter().position(|one| one.is_stream_of(shown));
        let is_full = self.subject_tokens.len() >= MAX_STREAMS;
        let at = known.or_else(|| is_full.then_some(MAX_STREAMS.saturating_sub(1)));
        let stream = match at {
            Some(at) => self.subject_tokens.get(at)?.after(shown, subject, bundle)?,
            // A task of an earlier version, or of a subject that was only asserted: the token that it began with is not
            // known, so this one is taken for the same stream, and for newer.
            None if self.subject_tokens.is_empty() => {
                let begun =
                    ShownToken { issued_at: shown.issued_at.map(|_| i64::MIN), ..shown.clone() };
                NewestToken::new(&begun, None, None).after(shown, subject, bundle)?
            }
            None => {
                let first = (subject.claims != *shown.claims).then(|| shown.claims.clone());
                NewestToken::new(shown, first, None)
            }
        };
        let mut tokens = self.subject_tokens.clone();
        match at.and_then(|at| tokens.get_mut(at)) {
            Some(known) => *known = stream,
            None => tokens.push(stream),
        }
        Some(tokens)
    }
}

impl TaskView<'_> {
    /// Subject first, then every agent down to the assignee. The subject has the roles that its newest token and the
    /// presented token both give.
    #[must_use]
    pub fn chain(self, shown: Option<&ShownToken<'_>>) -> Vec<Principal> {
        let tokens = self.root().subject_tokens.as_slice();
        let Some(subject) = &self.task.subject else { return self.task.chain() };
        let mut narrowed: Vec<Narrowing> =
            tokens.iter().filter_map(NewestToken::narrowing).collect();
        let mut hold_to = |claims: &KeptClaims| {
            if *claims != subject.claims {
                narrowed.push(Narrowing { from: None, to: claims.clone() });
            }
        };
        if let Some(shown) = shown {
            hold_to(shown.claims);
            // An older token that is shown gives nothing back.
            tokens.iter().filter(|one| one.is_stream_of(shown)).for_each(|one| {
                hold_to(one.claims(subject));
            });
        }
        let subject = subject.principal_with(narrowed);
        let agents = self.task.agents.iter().map(super::AgentName::principal);
        [subject].into_iter().chain(agents).collect()
    }

    /// Returns whether [`Self::chain`] equals this chain, without a token or with a token of the claims of the chain's
    /// subject, without copying it.
    #[must_use]
    pub fn has_chain(self, chain: &[Principal]) -> bool {
        let is_as_begun = |one: &NewestToken| one.first.is_none() && one.newest.is_none();
        self.root().subject_tokens.iter().all(is_as_begun) && self.task.has_chain(chain)
    }
}
