//! `@mode("observe")`: a policy that is judged beside the others, and has no part in the answer.

use super::Placed;
use crate::decision::{PolicyEffect, Time};
use crate::diagnostic::{Diagnostics, clip};
use crate::mode::{self, Modes, ObservationEnd, ObservingRule};

/// Form of the annotation, for messages.
const FORM: &str = "Write `@mode(\"observe\")`, or for instance \
    `@mode(\"observe; owner=sec@corp.example; until=2027-01-31\")`; an enforced policy has no `@mode`.";

/// The annotation of one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    /// Team or person who answers for the policy. Default: the owner of the bundle's `mode`.
    owner: Option<String>,
    /// End. Default: the end of the bundle's `mode`.
    until: Option<Time>,
}

impl Observation {
    /// Parses the value of the annotation.
    ///
    /// # Errors
    /// Problem and fix.
    pub(super) fn parse(text: &str) -> Result<Self, (String, String)> {
        let wrong = |what: String| Err((format!("`@mode`: {what}"), FORM.to_owned()));
        let mut parts = text.split(';').map(str::trim);
        let word = parts.next().unwrap_or_default();
        if word != "observe" {
            return wrong(format!("`{}` is not `observe`", clip(word)));
        }
        let mut observation = Self::default();
        for part in parts {
            match part.split_once('=') {
                Some(("owner", owner)) if observation.owner.is_none() => {
                    if !mode::is_owner(owner) {
                        return wrong("an owner is one line of at most 256 bytes".to_owned());
                    }
                    observation.owner = Some(owner.to_owned());
                }
                Some(("until", until)) if observation.until.is_none() => {
                    observation.until = mode::end_of(until);
                    if observation.until.is_none() {
                        return wrong(format!(
                            "`until={}` is no date, `2027-01-31`, and no moment, `2027-01-31T18:00:00Z`",
                            clip(until)
                        ));
                    }
                }
                Some(("owner" | "until", _)) => {
                    return wrong(format!("`{}` repeats a member", clip(part)));
                }
                _ => return wrong(format!("`{}` is neither `owner` nor `until`", clip(part))),
            }
        }
        Ok(observation)
    }
}

impl Placed {
    /// Whether the policy is only observed at a time.
    ///
    /// INVARIANT (nothing loosens by itself): after its end a forbid is enforced, and a permit goes on permitting nothing.
    pub(crate) fn is_observed(&self, modes: &Modes, now: Time) -> bool {
        let Some(observation) = &self.policy.observation else { return false };
        match self.policy.effect {
            PolicyEffect::Permit => true,
            PolicyEffect::Forbid => observation.until.or(modes.until).is_some_and(|end| now < end),
        }
    }

    /// The policy as an entry that observes, as shown to people. `None`: it has no `@mode`.
    pub(crate) fn observing<'a>(&'a self, modes: &'a Modes) -> Option<ObservingRule<'a>> {
        let observation = self.policy.observation.as_ref()?;
        Some(ObservingRule {
            scope: "policy",
            name: &self.policy.id,
            owner: observation.owner.as_deref().unwrap_or(&modes.owner),
            until_ms: observation.until.or(modes.until).map_or(0, |until| until.0),
        })
    }
}

/// Checks that each observed policy has an owner and an end, and the end at the time of loading.
///
/// Args: `now`: time of loading. `None`: ends are not compared with it.
pub(crate) fn check(
    policies: &[Placed],
    modes: &Modes,
    now: Option<Time>,
    diagnostics: &mut Diagnostics,
) {
    for placed in policies {
        let Some(observation) = &placed.policy.observation else { continue };
        let subject = format!("the policy `{}`", placed.policy.id);
        let owner = observation.owner.as_deref().unwrap_or(&modes.owner);
        if !mode::is_owner(owner) {
            let fix = "Write `@mode(\"observe; owner=team@corp.example\")`, or give the bundle's `mode` an `owner`.";
            diagnostics.error(&placed.at, format!("{subject} observes without an owner"), fix);
        }
        let Some(until) = observation.until.or(modes.until) else {
            let fix = format!(
                "Write `@mode(\"observe; until=2027-01-31\")`, at most {} days ahead, or give the bundle's `mode` an `until`.",
                mode::MOST_DAYS
            );
            diagnostics.error(&placed.at, format!("{subject} observes without an end"), fix);
            continue;
        };
        let (afterwards, fix_past) = match placed.policy.effect {
            PolicyEffect::Forbid => ("it is enforced", "Remove `@mode`, or name a new end."),
            PolicyEffect::Permit => (
                "it permits nothing",
                "Remove `@mode` so that it permits, remove the policy, or name a new end.",
            ),
        };
        let end = ObservationEnd {
            subject,
            until,
            at: &placed.at,
            afterwards,
            fix_past,
            fix_soon: format!(
                "Look at `authz_policy_observed_total` of the policy first, and tell {owner}."
            ),
        };
        if let Some(now) = now {
            end.check(now, diagnostics);
        }
    }
}
