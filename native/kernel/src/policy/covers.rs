//! `@covers`: the operations for which a person who approves a call may endorse its values.

use std::collections::BTreeSet;

use authz_base::record::approval::is_person_kind;
use authz_bundle::source::duration;

use super::Placed;
use super::check::{Catalog, Covered};
use crate::decision::Covers;
use crate::diagnostic::{Diagnostics, clip, unknown};
use crate::schema::Key;

/// Operations that one policy may name.
const MAX_OPERATIONS: usize = 16;
/// Calls that one endorsement covers, unless the policy says another number.
const DEFAULT_USES: u32 = 20;
/// Most calls that one endorsement covers.
const MAX_USES: u32 = 100;
/// Longest life of an endorsement, in milliseconds: one hour. It is the default, too.
const MAX_WITHIN_MS: i64 = 3_600 * 1_000;
/// Form of the annotation, for messages.
const FORM: &str = "Write for instance `@covers(\"mail.send, mail.reply; uses=20; within=1h\")`.";

impl Covers {
    /// Parses the value of the annotation.
    ///
    /// # Errors
    /// Problem and fix.
    pub(super) fn parse(text: &str) -> Result<Self, (String, String)> {
        let wrong = |what: String| Err((format!("`@covers`: {what}"), FORM.to_owned()));
        let mut parts = text.split(';').map(str::trim);
        let operations = parts.next().unwrap_or_default();
        let operations: BTreeSet<&str> = operations.split(',').map(str::trim).collect();
        if operations.contains("") {
            return wrong("it needs a comma list of operations".to_owned());
        }
        if operations.len() > MAX_OPERATIONS {
            return wrong(format!("it has more than {MAX_OPERATIONS} operations"));
        }
        let systems: BTreeSet<&str> = operations.iter().map(|id| system_of(id)).collect();
        if systems.len() > 1 {
            let systems: Vec<&str> = systems.into_iter().map(clip).collect();
            return wrong(format!(
                "its operations are of more than one system ({}), and a value says nothing in another system",
                systems.join(", ")
            ));
        }
        let (mut uses, mut within_ms) = (None, None);
        for part in parts {
            match part.split_once('=') {
                Some(("uses", number)) if uses.is_none() => {
                    let is_plain = number.bytes().all(|b| b.is_ascii_digit());
                    uses = number.parse().ok().filter(|n| is_plain && (1..=MAX_USES).contains(n));
                    if uses.is_none() {
                        return wrong(format!(
                            "`uses={}` is no number from 1 to {MAX_USES}",
                            clip(number)
                        ));
                    }
                }
                Some(("within", text)) if within_ms.is_none() => {
                    let ms = duration(text).and_then(|time| i64::try_from(time.as_millis()).ok());
                    within_ms = ms.filter(|ms| *ms <= MAX_WITHIN_MS);
                    if within_ms.is_none() {
                        return wrong(format!(
                            "`within={}` is no duration of at most 1h",
                            clip(text)
                        ));
                    }
                }
                Some(("uses" | "within", _)) => {
                    return wrong(format!("`{}` repeats a limit", clip(part)));
                }
                _ => return wrong(format!("`{}` is neither `uses` nor `within`", clip(part))),
            }
        }
        Ok(Self {
            operations: operations.into_iter().map(str::to_owned).collect(),
            uses: uses.unwrap_or(DEFAULT_USES),
            within_ms: within_ms.unwrap_or(MAX_WITHIN_MS),
        })
    }

    /// The limits that two policies have in common. `None`: they have no operation in common.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let common = self.operations.iter().filter(|id| other.operations.contains(id));
        let operations: Vec<String> = common.cloned().collect();
        (!operations.is_empty()).then(|| Self {
            operations,
            uses: self.uses.min(other.uses),
            within_ms: self.within_ms.min(other.within_ms),
        })
    }
}

/// System of an operation id.
fn system_of(id: &str) -> &str {
    id.split_once('.').map_or(id, |(system, _)| system)
}

/// Refuses operations that the policy never holds, and a policy that no endorsement can lift.
pub(super) fn check(
    placed: &Placed,
    covered: &Covered,
    catalog: &Catalog<'_>,
    diagnostics: &mut Diagnostics,
) {
    let policy = &placed.policy;
    let Some(covers) = &policy.covers else { return };
    let at = placed.place(policy.covers_offset);
    if !policy.stepup.as_deref().is_some_and(is_person_kind) {
        diagnostics.error(
            &at,
            "`@covers` stands on a policy that people do not lift",
            "Put it beside `@stepup` of `confirm`, `approve`, `approve:ROLE` or `two_person`.",
        );
    }
    for id in &covers.operations {
        match catalog.operations.get(id.as_str()) {
            None => {
                let declared: BTreeSet<&str> = catalog.operations.keys().copied().collect();
                let declared = declared.into_iter().map(|id| (id, None));
                let (what, fix) = unknown("operation", id, declared);
                diagnostics.error(&at, format!("`@covers`: {what}"), fix);
            }
            Some(position) if !covered.contains(*position) => diagnostics.error(
                &at,
                format!("`@covers` names `{id}`, which is not in the scope of the policy"),
                "Add the operation to the policy's scope, or remove it from `@covers`.",
            ),
            Some(_) => {}
        }
    }
    if !policy.reading.keys.contains(Key::Origins) {
        diagnostics.error(
            &at,
            "`@covers` does nothing: the policy does not read `context.origins`, so that an endorsed value does not lift it",
            "Compare `context.origins`, or remove `@covers`.",
        );
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn covers(operations: &[&str], uses: u32, within_ms: i64) -> Covers {
        let operations = operations.iter().map(|id| (*id).to_owned()).collect();
        Covers { operations, uses, within_ms }
    }

    #[test]
    fn limits_have_defaults() {
        let hour = 3_600_000;
        let read = |text| Covers::parse(text).unwrap();
        assert_eq!(covers(&["mail.send"], 20, hour), read("mail.send"));
        assert_eq!(
            covers(&["mail.reply", "mail.send"], 1, 1_000),
            read(" mail.send , mail.reply;within=1s ; uses=1")
        );
        assert_eq!(covers(&["mail.send"], 100, hour), read("mail.send; uses=100; within=60m"));
    }

    #[test]
    fn policies_cover_what_all_of_them_cover() {
        let one = covers(&["m.a", "m.b"], 5, 10);
        let other = covers(&["m.b", "m.c"], 7, 9);
        assert_eq!(Some(covers(&["m.b"], 5, 9)), one.intersection(&other));
        assert_eq!(None, one.intersection(&covers(&["m.c"], 7, 9)));
    }
}
