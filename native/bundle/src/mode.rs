//! Whether a denial is enforced, or only noted: `mode` of a bundle.
//!
//! In `observe` every step runs and the outcome is noted, but the caller is let through. A request that proves nothing,
//! cannot be understood, or could have been a call that is enforced is never let through.

use std::collections::BTreeMap;

use authz_base::principal::Principal;
use authz_base::reason::ReasonCode;
use authz_base::rfc3339;
use authz_base::spiffe::covers;
use authz_base::tier::Tier;
use authz_base::time::Time;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta};
use serde::Serialize;

use crate::diagnostic::Diagnostics;
use crate::location::Location;

/// Days that an entry may observe from when it is loaded.
pub const MOST_DAYS: i64 = 90;
/// Days before its end from which an entry is warned of.
pub const WARNED_DAYS: i64 = 7;
/// The system of our own operations, which are always enforced.
const OWN: &str = "authz";
const DAY_MS: i64 = 86_400_000;

/// Whether denials are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A denial denies.
    Enforce,
    /// A denial is noted, and the call let through.
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

/// One entry of `mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub mode: Mode,
    /// Who answers for it; never empty where it observes.
    pub owner: String,
    /// When it becomes `enforce`. An entry that observes without an end has ended.
    pub until: Option<Time>,
    /// Where it stands.
    pub at: Location,
}

impl Entry {
    /// Whether it observes at a time.
    #[must_use]
    pub fn observes(&self, now: Time) -> bool {
        self.mode == Mode::Observe && self.until.is_some_and(|until| now < until)
    }
}

/// `mode` of a bundle: of the entries that speak of a call the most specific counts, and of several the stricter.
///
/// An entry for a system, an agent or a tier is more specific than the default; of two for an agent the one whose pattern
/// lies within the other's. Anything else is a tie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// For what no other entry speaks of; none: enforce.
    pub default: Option<Entry>,
    /// By system id.
    pub systems: BTreeMap<String, Entry>,
    /// By SPIFFE id or whole-segment pattern.
    pub agents: BTreeMap<String, Entry>,
    /// By the effective tier.
    pub tiers: BTreeMap<Tier, Entry>,
}

/// What an entry speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Whatever no other entry speaks of.
    Default,
    /// A system.
    System(&'a str),
    /// A SPIFFE id or pattern.
    Agent(&'a str),
    /// A tier.
    Tier(Tier),
}

impl<'a> Scope<'a> {
    /// The word for the kind of it: `default`, `system`, `agent`, `tier`.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::System(_) => "system",
            Self::Agent(_) => "agent",
            Self::Tier(_) => "tier",
        }
    }

    /// Which one; empty for the default.
    #[must_use]
    pub const fn name(self) -> &'a str {
        match self {
            Self::Default => "",
            Self::System(name) | Self::Agent(name) => name,
            Self::Tier(tier) => tier.as_str(),
        }
    }
}

impl std::fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            _ => write!(f, "{} `{}`", self.kind(), self.name()),
        }
    }
}

/// An entry that says `observe`, for people.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Observing<'a> {
    /// `default`, `system`, `agent` or `tier`.
    pub scope: &'static str,
    /// Which one; empty for the default.
    pub name: &'a str,
    /// Who answers for it.
    pub owner: &'a str,
    /// When it becomes `enforce`; milliseconds since 1970.
    pub until_ms: i64,
}

/// Tiers that a call may have: one where it was judged whole, several where it stopped before that.
///
/// Never empty. A call of an operation that the catalog does not have may have none of the tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierSet(u8);

impl TierSet {
    /// Only the tier of an operation that the catalog does not have.
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

    /// The set, and what becomes of each of its tiers where something raises it to at least `tier`.
    #[must_use]
    pub fn raised_to(self, tier: Tier) -> Self {
        self.iter().flatten().fold(self, |all, own| all.union(Self::of(own.max(tier))))
    }

    /// The set, and what becomes of each of its tiers where denials raise it by one.
    #[must_use]
    pub fn raised_by_one(self) -> Self {
        self.iter().flatten().fold(self, |all, own| all.union(Self::of(own.next())))
    }

    /// Its members, from the lowest tier; `None` for an operation that the catalog does not have.
    pub fn iter(self) -> impl Iterator<Item = Option<Tier>> {
        let tiers = Tier::ALL.into_iter().map(Some).chain([None]);
        tiers.enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, tier)| tier)
    }
}

/// A system that a call may be for, and the tiers that the call may have there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Id of the system; empty: one that the bundle does not have.
    pub system: &'a str,
    /// Tiers of the call.
    pub tiers: TierSet,
}

/// A call as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The principals that are known.
    pub chain: &'a [Principal],
    /// No agent but those of `chain` acts: otherwise any entry for an agent may speak of the call.
    pub has_all_agents: bool,
    /// What the call may be: one system with one tier where it was judged whole. None: never softened.
    pub targets: &'a [Target<'a>],
}

impl Modes {
    /// Whether any entry observes at a time.
    #[must_use]
    pub fn any_observes(&self, now: Time) -> bool {
        self.entries().any(|(_, entry)| entry.observes(now))
    }

    /// Every entry, the default first.
    pub fn entries(&self) -> impl Iterator<Item = (Scope<'_>, &Entry)> {
        let default = self.default.iter().map(|entry| (Scope::Default, entry));
        let systems = self.systems.iter().map(|(id, entry)| (Scope::System(id), entry));
        let agents = self.agents.iter().map(|(id, entry)| (Scope::Agent(id), entry));
        let tiers = self.tiers.iter().map(|(tier, entry)| (Scope::Tier(*tier), entry));
        default.chain(systems).chain(agents).chain(tiers)
    }

    /// Every entry that says `observe`, ended or not.
    pub fn observing(&self) -> impl Iterator<Item = Observing<'_>> {
        let observing = self.entries().filter(|(_, entry)| entry.mode == Mode::Observe);
        observing.map(|(scope, entry)| Observing {
            scope: scope.kind(),
            name: scope.name(),
            owner: &entry.owner,
            until_ms: entry.until.map_or(0, |until| until.0),
        })
    }

    /// Whether a denial of this call is only noted.
    ///
    /// Args: `understood`: the request was read whole, in the only way it can be read; without that none is.
    #[must_use]
    pub fn softens(
        &self,
        asked: &Asked<'_>,
        reason: ReasonCode,
        understood: bool,
        now: Time,
    ) -> bool {
        understood && may_soften(reason) && self.observes(asked, now)
    }

    /// Whether everything that the call may be falls under an entry that observes, and under none that enforces.
    ///
    /// INVARIANT (a malformed request is never better off than a clean one): a request that stopped before it was judged
    /// is observed only where every call that it could have become is.
    #[must_use]
    pub fn observes(&self, asked: &Asked<'_>, now: Time) -> bool {
        if asked.targets.is_empty() || !self.any_observes(now) {
            return false;
        }
        if !asked.has_all_agents && !self.agents.values().all(|entry| entry.observes(now)) {
            return false;
        }
        let agents = asked.chain.iter().filter_map(|principal| match principal {
            Principal::Agent { spiffe_id, .. } => Some(spiffe_id.as_str()),
            Principal::User(_) | Principal::Service(_) => None,
        });
        let agents: Vec<&Entry> = agents.flat_map(|agent| self.of_agent(agent)).collect();
        let tiers = |target: &Target<'_>| {
            let mut tiers = target.tiers.iter();
            tiers.all(|tier| self.observes_one(target.system, tier, &agents, now))
        };
        asked.targets.iter().all(tiers)
    }

    /// Whether a call of one system and tier, by agents of which these entries speak, is observed.
    fn observes_one(&self, system: &str, tier: Option<Tier>, agents: &[&Entry], now: Time) -> bool {
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
            return self.default.as_ref().is_some_and(|entry| entry.observes(now));
        }
        specific.all(|entry| entry.observes(now))
    }

    /// The most specific entries for an agent.
    fn of_agent(&self, agent: &str) -> Vec<&Entry> {
        if let Some(exact) = self.agents.get(agent) {
            return vec![exact];
        }
        let matching: Vec<(&str, &Entry)> = self
            .agents
            .iter()
            .filter(|(pattern, _)| covers(pattern, agent))
            .map(|(pattern, entry)| (pattern.as_str(), entry))
            .collect();
        let is_least = |pattern: &str| {
            !matching.iter().any(|(other, _)| *other != pattern && covers(pattern, other))
        };
        matching.iter().filter(|(pattern, _)| is_least(pattern)).map(|(_, entry)| *entry).collect()
    }
}

/// Whether a reason may be softened: bundle or policy do not provide for the request. Never where what was presented
/// fails, where the request has two readings, or where the decision could not be made.
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
        // What bundle and policy do not provide for. `BadInput` and `EnforcerRefused` only where the request was
        // understood: arguments that are undeclared, obligations that the enforcer cannot carry out.
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

/// What is wrong with the ends of the entries, seen from when the bundle is loaded.
///
/// One that lies further ahead than [`MOST_DAYS`] is an error; one that is past, or nearer than [`WARNED_DAYS`], a warning.
pub fn check(modes: &Modes, now: Time, found: &mut Diagnostics) {
    let midnight = now.0.saturating_sub(now.0.rem_euclid(DAY_MS));
    // A day counts whole, whenever on it the bundle is loaded.
    let latest = midnight.saturating_add((MOST_DAYS + 1) * DAY_MS);
    for (scope, entry) in modes.entries() {
        let (Mode::Observe, Some(until)) = (entry.mode, entry.until) else { continue };
        let end = rfc3339::seconds(until.0);
        if until.0 > latest {
            let last = rfc3339::seconds(latest.saturating_sub(DAY_MS));
            let last = last.split('T').next().unwrap_or_default();
            let what = format!("{scope} observes until {end}, more than {MOST_DAYS} days ahead");
            found.error(&entry.at, what, format!("Say `until: {last}`, or earlier."));
        } else if until <= now {
            let what = format!("{scope} observed until {end}; it is enforced now");
            let mend = "Say `enforce`, or name a new end.";
            found.warning(&entry.at, what, mend);
        } else if until.0.saturating_sub(now.0) <= WARNED_DAYS * DAY_MS {
            let left = TimeDelta::milliseconds(until.0.saturating_sub(now.0));
            let left = match left.num_days() {
                0 => format!("{} hours", left.num_hours()),
                1 => "1 day".to_owned(),
                days => format!("{days} days"),
            };
            let what = format!(
                "{scope} observes until {end}, {left} from now; from then on it is enforced"
            );
            let mend =
                format!("Look through `authz why --observed` first, and tell {}.", entry.owner);
            found.warning(&entry.at, what, mend);
        }
    }
}

#[cfg(test)]
mod tests;
