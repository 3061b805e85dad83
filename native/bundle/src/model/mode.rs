//! `mode` of a bundle: whether denials are enforced or only noted.

use std::collections::BTreeMap;

use authz_base::tier::Tier;
use authz_base::time::Time;

use crate::location::Location;

/// Whether denials are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A denial denies.
    Enforce,
    /// A denial is noted, and the call is let through.
    Observe,
}

impl Mode {
    /// The word used in bundles.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// One rule of `mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeRule {
    /// Mode of the calls that the rule covers.
    pub mode: Mode,
    /// Team or person who answers for the rule; never empty in a rule that observes.
    pub owner: String,
    /// Time at which the rule becomes `enforce`. A rule that observes without an end has ended.
    pub until: Option<Time>,
    /// Place of the rule in the bundle.
    pub at: Location,
}

impl ModeRule {
    /// Whether the rule observes at a time.
    #[must_use]
    pub fn observes(&self, now: Time) -> bool {
        self.mode == Mode::Observe && self.until.is_some_and(|until| now < until)
    }
}

/// The rules of `mode`. The most specific rule for a call counts; among several of them, the strictest.
///
/// A rule for a system, an agent or a tier is more specific than the default. Of two rules for an agent, the rule whose pattern
/// lies within the other's is more specific. All other pairs are equally specific.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// Owner of rules without an owner of their own, and of policies with `@mode("observe")`. Empty: none is named.
    pub owner: String,
    /// End of rules without an end of their own, and of policies with `@mode("observe")`.
    pub until: Option<Time>,
    /// Rule of calls that no other rule covers. Default: enforce.
    pub default: Option<ModeRule>,
    /// By system id.
    pub systems: BTreeMap<String, ModeRule>,
    /// By SPIFFE id or whole-segment pattern.
    pub agents: BTreeMap<String, ModeRule>,
    /// By effective tier.
    pub tiers: BTreeMap<Tier, ModeRule>,
}
