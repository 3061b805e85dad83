//! Names of a task: destinations in prompts and parameters, by their speakers.
//!
//! INVARIANT (nothing that an agent can say counts as the user's word): only names said by the subject itself or by a front
//! end make a destination trusted. Names that a harness relays do so up to tier standard, and claims never.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::tier::Tier;

/// Keyed hash (HMAC-SHA-256, 16 bytes, in hex) of a name in a prompt, from which the prompt cannot be read.
pub type Literal = String;

/// Most names that a task keeps, of each kind of speaker.
pub const MAX_LITERALS: usize = 256;
/// Highest tier at which the names that a harness relays count.
pub const HARNESS_TIER: Tier = Tier::Standard;

/// Speaker of a prompt, as far as the caller proves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

impl Names {
    /// Returns whether neither a name nor a claim is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.user.is_empty() && self.harness.is_empty() && self.claimed.is_empty()
    }

    /// Adds the names of a further turn. A name beyond [`MAX_LITERALS`] is left out, and so is not trusted.
    pub fn extend(&mut self, more: Self) {
        let Self { user, harness, claimed } = more;
        self.add(Speaker::Subject, user);
        self.add(Speaker::Harness, harness);
        self.add(Speaker::Agent, claimed);
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
