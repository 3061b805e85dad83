//! Records that keep a history: that of a session, or of an agent, a subject or a pair of both over all their sessions.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use crate::digest::short;
use crate::hex::hex;
use crate::principal::Principal;
use crate::record::history::record::{LabelOrigin, SessionHistory};
use crate::record::history::settle::Carrier;
use crate::record::history::{KnownValues, MEMORY_MS, ObjectView, PARTY_MS};
use crate::record::{RecordKey, RecordKind};
use crate::time::Time;

/// Longest name of a party that is the id of its record; a longer one is kept by its digest.
const LONGEST_NAME: usize = 512;

/// Kind of record that keeps a part of the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// The session's: it lasts as long as a task tree.
    #[default]
    Session,
    /// The acting agent's, over all its sessions.
    Agent,
    /// The subject's on whose behalf the chain acts, over all sessions and agents; where an agent acts for itself: its own.
    Subject,
    /// That of the acting agent and the subject together, over all sessions in which the agent acts on behalf of the subject.
    Pair,
}

/// Separator of the agent and the subject in the id of a pair. No SPIFFE id has it.
const PAIR: char = '#';
/// Stands for the subject of an agent that acts for itself.
const NOBODY: &str = "nobody";

impl Holder {
    /// Those whose records outlive a session.
    pub const PARTIES: [Self; 3] = [Self::Agent, Self::Subject, Self::Pair];

    /// The word used in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Agent => "agent",
            Self::Subject => "subject",
            Self::Pair => "pair of agent and subject",
        }
    }

    /// The record of the party that a chain has in this place; none for a session, and where nobody acts.
    #[must_use]
    pub fn key(self, chain: &[Principal]) -> Option<RecordKey> {
        let (kind, party) = match self {
            Self::Session => return None,
            Self::Agent => (RecordKind::Agent, chain.last()?),
            Self::Subject => (RecordKind::Subject, chain.first()?),
            Self::Pair => return Some(RecordKey::new(RecordKind::Pair, pair_id(chain)?)),
        };
        Some(RecordKey::new(kind, party_id(party)))
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Session => 1,
            Self::Agent => 2,
            Self::Subject => 4,
            Self::Pair => 8,
        }
    }
}

/// The id of a party's record. Who people are need not be read from it.
pub fn party_id(party: &Principal) -> String {
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

/// The id of a pair's record: the acting agent's id, then the subject's.
fn pair_id(chain: &[Principal]) -> Option<String> {
    let agent = chain.last()?;
    let subject = chain.first().filter(|first| !matches!(first, Principal::Agent { .. }));
    let subject = subject.map_or_else(|| NOBODY.to_owned(), party_id);
    Some(format!("{}{subject}", pairs_of(agent)))
}

/// Digest of the id of a chain's pair: the acting agent and the subject. Empty where nobody acts.
#[must_use]
pub fn pair_digest(chain: &[Principal]) -> String {
    pair_id(chain).map(|id| short(&id)).unwrap_or_default()
}

/// The pairs of every agent of a chain with its subject, the acting agent's last.
#[must_use]
pub fn pair_keys(chain: &[Principal]) -> Vec<RecordKey> {
    let agents = (1..=chain.len()).filter_map(|length| chain.get(..length));
    let agents = agents.filter(|part| matches!(part.last(), Some(Principal::Agent { .. })));
    agents.filter_map(|part| Holder::Pair.key(part)).collect()
}

/// Prefix of the ids of all pairs of one agent.
#[must_use]
pub fn pairs_of(agent: &Principal) -> String {
    format!("{}{PAIR}", party_id(agent))
}

/// Where the labels that a call brings are remembered, and for how long labels count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembering {
    /// The record that keeps them: the agent's or the pair's. None: no record outlives the task.
    pub holder: Option<Holder>,
    /// Time for which a label counts after the last read that brought it, in milliseconds.
    pub ms: i64,
}

impl Default for Remembering {
    fn default() -> Self {
        Self { holder: Some(Holder::Agent), ms: MEMORY_MS }
    }
}

impl Remembering {
    /// A label that was brought no longer ago than this, in milliseconds, is not written again by another read.
    pub const fn grain_ms(self) -> i64 {
        self.ms / 24
    }

    /// Labels that were brought before this count no more. A read within the grain of another is not written, so a label
    /// counts for a grain longer.
    pub const fn oldest(self, now: Time) -> Time {
        Time(now.0.saturating_sub(self.ms).saturating_sub(self.grain_ms()))
    }

    /// Until when the record of a party that changes now is kept.
    #[must_use]
    pub fn kept_until(self, now: Time) -> Time {
        let most = PARTY_MS.max(self.ms.saturating_add(self.grain_ms()));
        Time(now.0.saturating_add(most))
    }
}

/// Some holders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holders(u8);

impl Holders {
    /// Returns whether a holder is among them.
    #[must_use]
    pub const fn contains(self, holder: Holder) -> bool {
        self.0 & holder.bit() != 0
    }

    /// The holders of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Holder> for Holders {
    fn from_iter<T: IntoIterator<Item = Holder>>(all: T) -> Self {
        Self(all.into_iter().fold(0, |bits, holder| bits | holder.bit()))
    }
}

/// History of the session of a request, and of the principals in its chain.
#[derive(Clone, Copy, Debug)]
pub struct HistoryView<'a> {
    /// History of the session.
    pub session: &'a SessionHistory,
    /// Values that the session knows from reports.
    pub values: &'a KnownValues,
    /// History of the acting agent over all its sessions. `None` if it was not recalled.
    pub agent: Option<&'a SessionHistory>,
    /// History of the subject over all its sessions. `None` if it was not recalled.
    pub subject: Option<&'a SessionHistory>,
    /// History of the acting agent for the subject over all sessions. `None` if it was not recalled.
    pub pair: Option<&'a SessionHistory>,
    /// Labels of sessions that the acting agent shares with others, and where each comes from; none where that was not
    /// looked up.
    pub shared: Option<&'a BTreeMap<String, LabelOrigin>>,
    /// Where the labels of the call are remembered.
    pub remembering: Remembering,
    /// Labels of the object of the operation. `None` if they were not recalled.
    pub object: Option<ObjectView<'a>>,
}

/// No labels.
static NO_LABELS: BTreeMap<String, LabelOrigin> = BTreeMap::new();
/// Nothing has happened.
static NOTHING: LazyLock<SessionHistory> = LazyLock::new(SessionHistory::new);

impl<'a> HistoryView<'a> {
    /// The view of a session whose agent has no other history.
    #[must_use]
    pub fn new(session: &'a SessionHistory) -> Self {
        Self {
            session,
            values: &session.values,
            agent: Some(&NOTHING),
            subject: None,
            pair: Some(&NOTHING),
            shared: Some(&NO_LABELS),
            remembering: Remembering::default(),
            object: Some(ObjectView::NOTHING),
        }
    }

    /// The history of one holder. `None` if it was not recalled.
    #[must_use]
    pub const fn of(&self, holder: Holder) -> Option<&'a SessionHistory> {
        match holder {
            Holder::Session => Some(self.session),
            Holder::Agent => self.agent,
            Holder::Subject => self.subject,
            Holder::Pair => self.pair,
        }
    }

    /// The labels that the acting agent remembers of other tasks, and where each comes from. A label may come twice.
    pub fn remembered(self, now: Time) -> impl Iterator<Item = (&'a str, Carrier<'a>)> {
        let oldest = self.remembering.oldest(now);
        let records = [self.agent, self.pair].into_iter().flatten();
        let shared = self.shared.into_iter().flatten();
        let shared = shared.map(|(label, origin)| (label.as_str(), origin.carrier()));
        let shared = shared.filter(move |(_, from)| from.at >= oldest);
        records.flat_map(move |record| record.labels_since(oldest)).chain(shared)
    }

    /// The time of a decision: never before what has happened already.
    #[must_use]
    pub fn now(&self, now: Time) -> Time {
        let parties = [self.agent, self.subject, self.pair].into_iter().flatten();
        parties.fold(self.session.now(now), |now, history| history.now(now))
    }
}
