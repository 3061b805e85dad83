//! Names of a task: destinations in prompts and parameters, by their speakers.
//!
//! INVARIANT (nothing that an agent can say counts as the user's word): only names said by the subject itself or by a front
//! end make a destination trusted. Names that a harness relays do so up to tier standard, and claims never.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::words::SpokenWords;
use crate::record::is_false;
use crate::tier::Tier;

/// Keyed hash (HMAC-SHA-256, 16 bytes, in hex) of a name in a prompt, from which the prompt cannot be read.
pub type Literal = String;

/// Most names that a task keeps, of each kind of speaker.
pub const MAX_LITERALS: usize = 256;
/// Highest tier at which the names that a harness relays count.
pub const HARNESS_TIER: Tier = Tier::Standard;

/// Speaker of a prompt, as far as the caller proves it, from the worst to the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// An agent, or a caller with no other credentials than an agent may hold.
    #[default]
    Agent,
    /// An agent that is its user's front end too (`harness: true`).
    Harness,
    /// An enforcer that relays prompts, beside the subject's token.
    FrontEnd,
    /// The subject, alone.
    Subject,
}

impl Speaker {
    /// Returns whether the names are the user's own, which no agent can claim.
    #[must_use]
    pub const fn is_user(self) -> bool {
        matches!(self, Self::Subject | Self::FrontEnd)
    }

    /// The word in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Harness => "harness",
            Self::FrontEnd => "front_end",
            Self::Subject => "subject",
        }
    }
}

/// Keyed hashes of named destinations, by their speakers. Each set has at most [`MAX_LITERALS`]: claims displace no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Named by the user.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub user: BTreeSet<Literal>,
    /// Named by the user as a harness relays it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub harness: BTreeSet<Literal>,
    /// Claimed by an agent: they make no destination trusted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub claimed: BTreeSet<Literal>,
    /// The task has words, in a record of their own: see [`TaskWords`](super::TaskWords).
    #[serde(skip_serializing_if = "is_false")]
    pub has_words: bool,
    /// Words that an earlier version kept in the record of the task. They count as long as the task has no record of words.
    #[serde(flatten)]
    pub words: SpokenWords,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Names {
    /// Returns whether neither a name nor a word nor a claim is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { user, harness, claimed, has_words, words, rest } = self;
        [user, harness, claimed].into_iter().all(BTreeSet::is_empty)
            && !has_words
            && words.is_empty()
            && rest.is_empty()
    }

    /// Adds the names of a further turn. A name beyond [`MAX_LITERALS`] is left out, and so names nothing.
    pub fn extend(&mut self, more: Self) {
        let Self { user, harness, claimed, has_words, words: _, rest: _ } = more;
        self.add(Speaker::Subject, user);
        self.add(Speaker::Harness, harness);
        self.add(Speaker::Agent, claimed);
        self.has_words |= has_words;
    }

    /// Adds the names of one speaker, up to [`MAX_LITERALS`].
    pub fn add(&mut self, by: Speaker, literals: BTreeSet<Literal>) {
        let set = match by {
            Speaker::Subject | Speaker::FrontEnd => &mut self.user,
            Speaker::Harness => &mut self.harness,
            Speaker::Agent => &mut self.claimed,
        };
        for literal in literals {
            if set.len() >= MAX_LITERALS {
                return;
            }
            set.insert(literal);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn members_of_other_versions_survive() {
        let old: Names = serde_json::from_str(r#"{"user": ["aa"]}"#).unwrap();
        assert!(old.words.is_empty() && old.rest.is_empty() && !old.has_words);
        let new = r#"{"user":["aa"],"later":{"a":[1]}}"#;
        let names: Names = serde_json::from_str(new).unwrap();
        assert_eq!(new, serde_json::to_string(&names).unwrap());
        assert!(!names.is_empty());
        let before = r#"{"user":["aa"],"user_words":"AAAAAAAAAAk","later":1}"#;
        let names: Names = serde_json::from_str(before).unwrap();
        assert_eq!((1, 1), (names.words.of(Speaker::Subject).len(), names.rest.len()));
        assert_eq!(before, serde_json::to_string(&names).unwrap());
    }
}
