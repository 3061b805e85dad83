//! Whose record keeps what is known: that of a session, or of an agent or a subject over all their sessions.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::decision::{Principal, Time};
use crate::hex::hex;
use crate::history::ObjectView;
use crate::history::record::{Origin, SessionHistory};
use crate::task::{RecordKey, RecordKind};

/// Longest name of a party that is the id of its record; a longer one is kept by its digest.
const LONGEST_NAME: usize = 512;

/// Whose record keeps what is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// The session's: it lasts as long as a task tree.
    #[default]
    Session,
    /// The acting agent's, over all its sessions.
    Agent,
    /// The subject's on whose behalf the chain acts, over all sessions and agents; where an agent acts for itself: its own.
    Subject,
}

impl Holder {
    /// Those whose records outlive a session.
    pub const PARTIES: [Self; 2] = [Self::Agent, Self::Subject];

    /// The word used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Agent => "agent",
            Self::Subject => "subject",
        }
    }

    /// The record of the party that a chain has in this place; none for a session, and where nobody acts.
    #[must_use]
    pub fn key(self, chain: &[Principal]) -> Option<RecordKey> {
        let (kind, party) = match self {
            Self::Session => return None,
            Self::Agent => (RecordKind::Agent, chain.last()?),
            Self::Subject => (RecordKind::Subject, chain.first()?),
        };
        Some(RecordKey::new(kind, party_id(party)))
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Agent => 2,
            Self::Subject => 4,
        }
    }
}

/// The id of a party's record. Who people are need not be read from it.
pub(crate) fn party_id(party: &Principal) -> String {
    let digest = |word: &str, parts: [&str; 2]| {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        format!("{word}/{}", hex(&hash.finalize()))
    };
    match party {
        Principal::Agent { spiffe_id, .. } if spiffe_id.len() <= LONGEST_NAME => spiffe_id.clone(),
        Principal::Agent { spiffe_id, .. } => digest("agent", [spiffe_id, ""]),
        Principal::User(subject) => digest("user", [&subject.issuer, &subject.sub]),
        Principal::Service(subject) => digest("service", [&subject.issuer, &subject.sub]),
    }
}

/// Some holders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holders(u8);

impl Holders {
    pub(crate) const fn contains(self, holder: Holder) -> bool {
        self.0 & holder.bit() != 0
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Holder> for Holders {
    fn from_iter<T: IntoIterator<Item = Holder>>(all: T) -> Self {
        Self(all.into_iter().fold(0, |bits, holder| bits | holder.bit()))
    }
}

/// What is known of the session that a request is made in, and of who is in its chain.
#[derive(Clone, Copy, Debug)]
pub struct HistoryView<'a> {
    /// What the session did before.
    pub session: &'a SessionHistory,
    /// What the acting agent did over all its sessions; none where that was not recalled.
    pub agent: Option<&'a SessionHistory>,
    /// What was done on behalf of the subject over all its sessions; none where that was not recalled.
    pub subject: Option<&'a SessionHistory>,
    /// The labels that other sessions carry in which the acting agent has a live task, and where each comes from; none where
    /// that was not looked up.
    pub others: Option<&'a BTreeMap<String, Origin>>,
    /// What was written before into what the operation acts on; none where that was not recalled.
    pub object: Option<ObjectView<'a>>,
}

/// No labels.
static NO_LABELS: BTreeMap<String, Origin> = BTreeMap::new();

impl<'a> HistoryView<'a> {
    /// Of a session whose agent has no other.
    #[must_use]
    pub const fn new(session: &'a SessionHistory) -> Self {
        Self {
            session,
            agent: None,
            subject: None,
            others: Some(&NO_LABELS),
            object: Some(ObjectView::NOTHING),
        }
    }

    /// What one holder's record says; none where it was not recalled.
    #[must_use]
    pub const fn of(&self, holder: Holder) -> Option<&'a SessionHistory> {
        match holder {
            Holder::Session => Some(self.session),
            Holder::Agent => self.agent,
            Holder::Subject => self.subject,
        }
    }

    /// The labels, and where they come from, that the acting agent brings along from elsewhere: its other sessions, and what it
    /// did in tasks that it did not start.
    pub fn brought_along(self, now: Time) -> impl Iterator<Item = (&'a String, &'a Origin)> {
        let others = self.others.into_iter().flatten();
        others.chain(self.agent.into_iter().flat_map(move |agent| agent.fresh_labels(now)))
    }

    /// The time of a decision: never before what has happened already.
    #[must_use]
    pub fn now(&self, now: Time) -> Time {
        let parties = [self.agent, self.subject].into_iter().flatten();
        parties.fold(self.session.now(now), |now, history| history.now(now))
    }
}
