//! Names of a task: destinations in prompts and parameters, by their speakers.
//!
//! INVARIANT (nothing that an agent can say counts as the user's word): only names said by the subject itself or by a front
//! end make a destination trusted. Names that a harness relays do so up to tier standard, and claims never.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::words::{MAX_WORDS, WordPrint, WordPrints};
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
    /// Words of the user.
    #[serde(skip_serializing_if = "WordPrints::is_empty")]
    pub user_words: WordPrints,
    /// Words of the user as a harness relays them.
    #[serde(skip_serializing_if = "WordPrints::is_empty")]
    pub harness_words: WordPrints,
    /// Words that an agent claims.
    #[serde(skip_serializing_if = "WordPrints::is_empty")]
    pub claimed_words: WordPrints,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Names {
    /// Returns whether neither a name nor a word nor a claim is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { user, harness, claimed, user_words, harness_words, claimed_words, rest } = self;
        [user, harness, claimed].into_iter().all(BTreeSet::is_empty)
            && [user_words, harness_words, claimed_words].into_iter().all(WordPrints::is_empty)
            && rest.is_empty()
    }

    /// Adds the names and words of a further turn. A name beyond [`MAX_LITERALS`] or a word beyond [`MAX_WORDS`] is left out,
    /// and so names nothing.
    pub fn extend(&mut self, more: Self) {
        let Self { user, harness, claimed, user_words, harness_words, claimed_words, rest: _ } =
            more;
        self.add(Speaker::Subject, user);
        self.add(Speaker::Harness, harness);
        self.add(Speaker::Agent, claimed);
        self.add_words(Speaker::Subject, user_words.as_slice());
        self.add_words(Speaker::Harness, harness_words.as_slice());
        self.add_words(Speaker::Agent, claimed_words.as_slice());
    }

    /// The words of one kind of speaker.
    #[must_use]
    pub const fn words(&self, by: Speaker) -> &WordPrints {
        match by {
            Speaker::Subject | Speaker::FrontEnd => &self.user_words,
            Speaker::Harness => &self.harness_words,
            Speaker::Agent => &self.claimed_words,
        }
    }

    /// Adds the words of one speaker. All together are at most [`MAX_WORDS`]: claims displace no word of the user.
    pub fn add_words(&mut self, by: Speaker, words: &[WordPrint]) {
        match by {
            Speaker::Subject | Speaker::FrontEnd => &mut self.user_words,
            Speaker::Harness => &mut self.harness_words,
            Speaker::Agent => &mut self.claimed_words,
        }
        .extend(words);
        let mut left = MAX_WORDS;
        for words in [&mut self.user_words, &mut self.harness_words, &mut self.claimed_words] {
            words.truncate(left);
            left = left.saturating_sub(words.len());
        }
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

    fn words(from: u64, count: u64) -> Vec<WordPrint> {
        (from..from.saturating_add(count)).map(|n| WordPrint::new(n << 30, n)).collect()
    }

    #[test]
    fn claims_displace_no_word_of_the_user() {
        let mut names = Names::default();
        names.add_words(Speaker::Agent, &words(1, 2_000));
        assert_eq!(MAX_WORDS, names.claimed_words.len());
        names.add_words(Speaker::Harness, &words(1, 10));
        names.add_words(Speaker::Subject, &words(1, 1_000));
        assert_eq!(1_000, names.words(Speaker::FrontEnd).len());
        assert_eq!(10, names.words(Speaker::Harness).len());
        assert_eq!(MAX_WORDS - 1_010, names.words(Speaker::Agent).len());
        let kept = names.user_words.clone();
        let more = Names { user_words: words(9, 2_000).into(), ..Names::default() };
        names.extend(more);
        let first = names.user_words.as_slice().get(..1_000).unwrap();
        assert_eq!(kept.as_slice(), first, "nothing is evicted");
        assert_eq!(MAX_WORDS, names.user_words.len());
        assert!(names.harness_words.is_empty() && names.claimed_words.is_empty());
        let stored = serde_json::to_string(&names).unwrap();
        assert!(stored.len() <= 16 << 10, "{}", stored.len());
        assert_eq!(names, serde_json::from_str(&stored).unwrap());
    }

    #[test]
    fn members_of_other_versions_survive() {
        let old: Names = serde_json::from_str(r#"{"user": ["aa"]}"#).unwrap();
        assert!(old.user_words.is_empty() && old.rest.is_empty());
        let new = r#"{"user":["aa"],"later":{"a":[1]}}"#;
        let names: Names = serde_json::from_str(new).unwrap();
        assert_eq!(new, serde_json::to_string(&names).unwrap());
        assert!(!names.is_empty());
    }
}
