//! Rules of `mode`: whether a denial is enforced or only noted.
//!
//! With `observe`, every step runs and the outcome is noted, but the call is let through. A request without evidence, a
//! malformed request, and a request that could have been an enforced call are never let through.

use authz_base::principal::Principal;
use authz_base::reason::ReasonCode;
use authz_base::rfc3339;
use authz_base::spiffe::covers;
use authz_base::tier::Tier;
use authz_base::time::Time;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use serde::Serialize;

use crate::diagnostic::Diagnostics;

use crate::model::Location;
pub use crate::model::{Mode, ModeRule, Modes};

/// Days for which a rule may observe, from the time of loading.
pub const MOST_DAYS: i64 = 90;
/// Days before the end of a rule from which a bundle gets a warning.
pub const WARNED_DAYS: i64 = 7;
/// The system of Authz's own operations, which are always enforced.
const OWN: &str = "authz";
const DAY_MS: i64 = 86_400_000;
/// Bytes of an owner's name.
const LONGEST_OWNER: usize = 256;

/// Calls that a rule of `mode` covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeScope<'a> {
    /// Calls that no other rule covers.
    Default,
    /// A system.
    System(&'a str),
    /// A SPIFFE id or pattern.
    Agent(&'a str),
    /// A tier.
    Tier(Tier),
}

impl<'a> ModeScope<'a> {
    /// The kind in one word: `default`, `system`, `agent`, `tier`.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::System(_) => "system",
            Self::Agent(_) => "agent",
            Self::Tier(_) => "tier",
        }
    }

    /// Name of the system, agent or tier; empty for the default.
    #[must_use]
    pub const fn name(self) -> &'a str {
        match self {
            Self::Default => "",
            Self::System(name) | Self::Agent(name) => name,
            Self::Tier(tier) => tier.as_str(),
        }
    }
}

impl std::fmt::Display for ModeScope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            _ => write!(f, "{} `{}`", self.kind(), self.name()),
        }
    }
}

/// A rule that observes, as shown to people.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ObservingRule<'a> {
    /// `default`, `system`, `agent`, `tier`, or `policy` for a policy with `@mode("observe")`.
    pub scope: &'static str,
    /// Name of the system, agent, tier or policy; empty for the default.
    pub name: &'a str,
    /// Team or person who answers for the rule.
    pub owner: &'a str,
    /// Time at which it becomes `enforce`, in milliseconds since 1970.
    pub until_ms: i64,
}

/// Tiers that a call may have: one tier after the call was judged, several tiers if the call stopped before.
///
/// Never empty. A call of an operation that the catalog lacks counts as a tier of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierSet(u8);

impl TierSet {
    /// Only the tier of an operation that the catalog lacks.
    pub const UNKNOWN: Self = Self(1 << Tier::ALL.len());

    /// A single tier.
    #[must_use]
    pub const fn of(tier: Tier) -> Self {
        Self(1 << tier as u8)
    }

    /// The tiers of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set, with each of its tiers also raised to at least `tier`.
    #[must_use]
    pub fn raised_to(self, tier: Tier) -> Self {
        self.iter().flatten().fold(self, |all, own| all.union(Self::of(own.max(tier))))
    }

    /// The set, with each of its tiers also raised by one.
    #[must_use]
    pub fn raised_by_one(self) -> Self {
        self.iter().flatten().fold(self, |all, own| all.union(Self::of(own.next())))
    }

    /// Its members, from the lowest tier. `None` stands for an operation that the catalog lacks.
    pub fn iter(self) -> impl Iterator<Item = Option<Tier>> {
        let tiers = Tier::ALL.into_iter().map(Some).chain([None]);
        tiers.enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, tier)| tier)
    }
}

/// A system that a call may be for, and the tiers that the call may have there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeTarget<'a> {
    /// Id of the system; empty: a system that the bundle lacks.
    pub system: &'a str,
    /// Tiers of the call.
    pub tiers: TierSet,
}

/// A call as far as it is known, for the question which rules of `mode` cover it.
#[derive(Clone, Copy, Debug)]
pub struct ModeQuery<'a> {
    /// The principals that are known.
    pub chain: &'a [Principal],
    /// `chain` has all agents of the call. If false, any rule for an agent may cover the call.
    pub has_all_agents: bool,
    /// Systems and tiers that the call may have. If empty, the call is never softened.
    pub targets: &'a [ModeTarget<'a>],
}

impl Modes {
    /// Whether any rule observes at a time.
    #[must_use]
    pub fn any_observes(&self, now: Time) -> bool {
        self.rules().any(|(_, rule)| rule.observes(now))
    }

    /// Every rule, the default first.
    pub fn rules(&self) -> impl Iterator<Item = (ModeScope<'_>, &ModeRule)> {
        let default = self.default.iter().map(|rule| (ModeScope::Default, rule));
        let systems = self.systems.iter().map(|(id, rule)| (ModeScope::System(id), rule));
        let agents = self.agents.iter().map(|(id, rule)| (ModeScope::Agent(id), rule));
        let tiers = self.tiers.iter().map(|(tier, rule)| (ModeScope::Tier(*tier), rule));
        default.chain(systems).chain(agents).chain(tiers)
    }

    /// Every rule that observes, also those that have ended.
    pub fn observing(&self) -> impl Iterator<Item = ObservingRule<'_>> {
        let observing = self.rules().filter(|(_, rule)| rule.mode == Mode::Observe);
        observing.map(|(scope, rule)| ObservingRule {
            scope: scope.kind(),
            name: scope.name(),
            owner: &rule.owner,
            until_ms: rule.until.map_or(0, |until| until.0),
        })
    }

    /// Whether a denial of this call is only noted.
    ///
    /// `understood`: the request was read completely and has one meaning. A denial of any other request is enforced.
    #[must_use]
    pub fn softens(
        &self,
        query: &ModeQuery<'_>,
        reason: ReasonCode,
        understood: bool,
        now: Time,
    ) -> bool {
        understood && may_soften(reason) && self.observes(query, now)
    }

    /// Whether a rule that observes, and no rule that enforces, covers each call that the request may be.
    ///
    /// INVARIANT (a malformed request is never better off than a clean one): a request that stopped before it was judged
    /// is observed only where every call that it could have become is.
    #[must_use]
    pub fn observes(&self, query: &ModeQuery<'_>, now: Time) -> bool {
        if query.targets.is_empty() || !self.any_observes(now) {
            return false;
        }
        if !query.has_all_agents && !self.agents.values().all(|rule| rule.observes(now)) {
            return false;
        }
        let agents = agents_of(query.chain).flat_map(|agent| self.of_agent(agent));
        let agents: Vec<&ModeRule> = agents.map(|(_, rule)| rule).collect();
        let tiers = |target: &ModeTarget<'_>| {
            let mut tiers = target.tiers.iter();
            tiers.all(|tier| self.observes_one(target.system, tier, &agents, now))
        };
        query.targets.iter().all(tiers)
    }

    /// The first entry that observes a call: one of its agents, then of its tier, its system, the default.
    #[must_use]
    pub fn rule_for(
        &self,
        system: &str,
        tier: Option<Tier>,
        chain: &[Principal],
        now: Time,
    ) -> Option<(ModeScope<'_>, &ModeRule)> {
        let patterns: Vec<&str> =
            agents_of(chain).flat_map(|agent| self.of_agent(agent)).map(|(name, _)| name).collect();
        let concerns = |scope: ModeScope<'_>| match scope {
            ModeScope::Default => true,
            ModeScope::System(name) => name == system,
            ModeScope::Tier(one) => tier == Some(one),
            ModeScope::Agent(pattern) => patterns.contains(&pattern),
        };
        let rank = |scope: ModeScope<'_>| match scope {
            ModeScope::Agent(_) => 0,
            ModeScope::Tier(_) => 1,
            ModeScope::System(_) => 2,
            ModeScope::Default => 3,
        };
        let rules = self.rules().filter(|(scope, rule)| concerns(*scope) && rule.observes(now));
        rules.min_by_key(|(scope, _)| rank(*scope))
    }

    /// Whether a call of one system and tier, by agents that these rules cover, is observed.
    fn observes_one(
        &self,
        system: &str,
        tier: Option<Tier>,
        agents: &[&ModeRule],
        now: Time,
    ) -> bool {
        if system == OWN {
            return false;
        }
        let mut specific = self
            .systems
            .get(system)
            .into_iter()
            .chain(tier.and_then(|tier| self.tiers.get(&tier)))
            .chain(agents.iter().copied())
            .peekable();
        if specific.peek().is_none() {
            return self.default.as_ref().is_some_and(|rule| rule.observes(now));
        }
        specific.all(|rule| rule.observes(now))
    }

    /// The most specific rules for an agent, each with its pattern.
    fn of_agent(&self, agent: &str) -> Vec<(&str, &ModeRule)> {
        if let Some((exact, rule)) = self.agents.get_key_value(agent) {
            return vec![(exact, rule)];
        }
        let matching: Vec<(&str, &ModeRule)> = self
            .agents
            .iter()
            .filter(|(pattern, _)| covers(pattern, agent))
            .map(|(pattern, rule)| (pattern.as_str(), rule))
            .collect();
        let is_least = |pattern: &str| {
            !matching.iter().any(|(other, _)| *other != pattern && covers(pattern, other))
        };
        matching.iter().filter(|(pattern, _)| is_least(pattern)).copied().collect()
    }
}

/// SPIFFE ids of the agents of a chain.
fn agents_of(chain: &[Principal]) -> impl Iterator<Item = &str> {
    chain.iter().filter_map(|principal| match principal {
        Principal::Agent { spiffe_id, .. } => Some(spiffe_id.as_str()),
        Principal::User(_) | Principal::Service(_) => None,
    })
}

/// Whether a denial with this reason can be softened: bundle or policy do not provide for the request. It is never softened if
/// the presented evidence fails, if the request has two readings, or if the decision could not be made.
#[must_use]
pub const fn may_soften(reason: ReasonCode) -> bool {
    use ReasonCode as R;
    match reason {
        // Nothing to soften.
        R::Permitted => false,
        // A presented credential fails, or was withdrawn.
        R::BadCredential
        | R::ExpiredCredential
        | R::WrongAudience
        | R::UntrustedIssuer
        | R::UnboundCredential
        | R::BadProof
        | R::Replayed
        | R::Revoked => false,
        // Two readers could read it differently.
        R::AmbiguousRequest | R::HeaderMismatch => false,
        // A presented task, key or approval does not hold; the end of a task and a person's no are kill switches.
        R::UnknownTask
        | R::TaskEnded
        | R::NotAssignee
        | R::TaskConflict
        | R::IdempotencyConflict
        | R::ApprovalMismatch
        | R::ApprovalExpired
        | R::ApprovalRejected => false,
        // Our own failures.
        R::NeedsProvider
        | R::Unavailable
        | R::StateUnavailable
        | R::StoreSlow
        | R::Deadline
        | R::Overloaded
        | R::AuditFull => false,
        // Bundle and policy do not provide for the request. `BadInput` and `EnforcerRefused` soften only if the request was
        // understood: undeclared arguments, obligations that the enforcer cannot carry out.
        R::NoCredential
        | R::EnforcerRefused
        | R::NoRoute
        | R::UnknownOperation
        | R::UnreviewedOperation
        | R::CatalogDrift
        | R::BadInput
        | R::NoTask
        | R::PolicyError
        | R::Forbidden
        | R::OutOfScope
        | R::UsesExhausted
        | R::TooDeep
        | R::ChainNotPermitted
        | R::NotPermitted
        | R::TierRequirement
        | R::BudgetExceeded
        | R::WindowFull
        | R::ExceptionExpired
        | R::ConfirmRequired
        | R::ApprovalRequired
        | R::ReauthRequired
        | R::ProofRequired
        | R::ApproverBusy => true,
    }
}

/// Whether a text can name the owner of a rule that observes: one line of at most 256 bytes.
#[must_use]
pub fn is_owner(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= LONGEST_OWNER && !text.chars().any(char::is_control)
}

/// The end that a text names: the end of a day in UTC (`2027-01-31`), or a moment (RFC 3339, `2027-01-31T18:00:00Z`).
#[must_use]
pub fn end_of(text: &str) -> Option<Time> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(Time(moment.timestamp_millis()));
    }
    // Only the one spelling: the parser would also read spaces and single digits.
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    if day.to_string() != text {
        return None;
    }
    let next = day.succ_opt()?.and_time(NaiveTime::MIN);
    Some(Time(next.and_utc().timestamp_millis()))
}

/// Checks the ends of the rules at the time of loading.
///
/// An end further ahead than [`MOST_DAYS`] is an error. An end that is past, or nearer than [`WARNED_DAYS`], is a warning.
pub fn check(modes: &Modes, now: Time, found: &mut Diagnostics) {
    for (scope, rule) in modes.rules() {
        let (Mode::Observe, Some(until)) = (rule.mode, rule.until) else { continue };
        let end = ObservationEnd {
            subject: scope.to_string(),
            until,
            at: &rule.at,
            afterwards: "it is enforced",
            fix_past: "Say `enforce`, or name a new end.",
            fix_soon: format!(
                "Look through `authz why --observed` first, and tell {}.",
                rule.owner
            ),
        };
        end.check(now, found);
    }
}

/// End of a rule or of a policy that observes, with the texts of its diagnostics.
#[derive(Debug)]
pub struct ObservationEnd<'a> {
    /// The rule, as messages name it.
    pub subject: String,
    /// The end.
    pub until: Time,
    /// Place of the rule in the bundle.
    pub at: &'a Location,
    /// Effect of the rule after its end.
    pub afterwards: &'static str,
    /// Fix of an end that is past.
    pub fix_past: &'static str,
    /// Fix of an end that is near.
    pub fix_soon: String,
}

impl ObservationEnd<'_> {
    /// Checks the end at the time of loading: an error if it is more than [`MOST_DAYS`] ahead, a warning if it is past or nearer
    /// than [`WARNED_DAYS`].
    pub fn check(&self, now: Time, found: &mut Diagnostics) {
        let Self { subject, until, at, afterwards, fix_past, fix_soon } = self;
        let midnight = now.0.saturating_sub(now.0.rem_euclid(DAY_MS));
        // A day counts whole, at any hour of loading.
        let latest = midnight.saturating_add((MOST_DAYS + 1) * DAY_MS);
        let end = rfc3339::seconds(until.0);
        if until.0 > latest {
            let last = rfc3339::seconds(latest.saturating_sub(DAY_MS));
            let last = last.split('T').next().unwrap_or_default();
            let what = format!("{subject} observes until {end}, more than {MOST_DAYS} days ahead");
            found.error(at, what, format!("Say `until: {last}`, or earlier."));
        } else if *until <= now {
            let what = format!("{subject} observed until {end}; {afterwards} now");
            found.warning(at, what, *fix_past);
        } else if until.0.saturating_sub(now.0) <= WARNED_DAYS * DAY_MS {
            let left = TimeDelta::milliseconds(until.0.saturating_sub(now.0));
            let left = match left.num_days() {
                0 => format!("{} hours", left.num_hours()),
                1 => "1 day".to_owned(),
                days => format!("{days} days"),
            };
            let what = format!(
                "{subject} observes until {end}, {left} from now; from then on {afterwards}"
            );
            found.warning(at, what, fix_soon.clone());
        }
    }
}

#[cfg(test)]
mod tests;
