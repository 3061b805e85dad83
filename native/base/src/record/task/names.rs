//! Names of a task: destinations that somebody named in a prompt or in parameters, kept by who said so.
//!
//! INVARIANT (nothing that an agent can say counts as the user's word): only names said by the subject itself or by a front
//! end make a destination trusted. Names that a harness relays do so up to tier standard, and claims never.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::record::Literal;
use crate::tier::Tier;

/// Names that a task keeps, of each kind of speaker.
pub const MAX_LITERALS: usize = 256;
/// The highest tier up to which the names that a harness relays count.
pub const HARNESS_TIER: Tier = Tier::Standard;
/// Who says a prompt, as far as the caller proves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaker {
    /// An agent, or a caller who shows nothing but what an agent may hold.
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
    /// Whether it is the user's own word, which no agent can say.
    #[must_use]
    pub const fn is_user(self) -> bool {
        matches!(self, Self::Subject | Self::FrontEnd)
    }

    /// The word used in records.
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

/// Keyed hashes of named destinations, by who named them. Each set has at most [`MAX_LITERALS`]: claims displace no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// Named by the user.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub user: BTreeSet<Literal>,
    /// Named by the user as a harness relays it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub harness: BTreeSet<Literal>,
    /// Claimed by an agent: it trusts nothing.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub claimed: BTreeSet<Literal>,
}

impl Names {
    /// Whether there are none, and no claims.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.user.is_empty() && self.harness.is_empty() && self.claimed.is_empty()
    }

    /// Adds those of a further turn. Beyond the most that a task keeps nothing is added, and is not trusted.
    pub fn extend(&mut self, more: Self) {
        let Self { user, harness, claimed } = more;
        self.add(Speaker::Subject, user);
        self.add(Speaker::Harness, harness);
        self.add(Speaker::Agent, claimed);
    }

    /// Adds names that somebody said. Beyond [`MAX_LITERALS`] of one kind of speaker nothing is added.
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
