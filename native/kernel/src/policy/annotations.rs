//! Annotations: a closed list, each with its form.

use crate::decision::PolicyEffect;
use crate::diagnostic::{Diagnostics, nearest};
use crate::evaluate::syntax::{self, Lines, Parsed};
use crate::model::Location;
use crate::obligation::{MAX_OBLIGATIONS, Obligation};
use crate::schema::ANNOTATIONS;

use super::observed::Observation;
use crate::decision::Covers;

/// Characters of an id, obligation or control.
const MAX_NAME: usize = 128;
/// Characters of a reason.
const MAX_REASON: usize = 512;
/// Entries of a comma list.
const MAX_LIST: usize = 16;

/// What the annotations of one policy say.
pub(super) struct Notes {
    pub(super) id: String,
    pub(super) reason: String,
    pub(super) stepup: Option<String>,
    pub(super) stepup_offset: usize,
    pub(super) covers: Option<Covers>,
    pub(super) covers_offset: usize,
    pub(super) obligations: Vec<String>,
    pub(super) controls: Vec<String>,
    pub(super) observation: Option<Observation>,
}

/// Reads the annotations of a policy; none where one is wrong.
pub(super) fn read(
    parsed: &Parsed,
    effect: PolicyEffect,
    diagnostics: &mut Diagnostics,
) -> Option<Notes> {
    let lines = Lines::new(&parsed.text);
    let mut wrong = false;
    let mut notes = Notes {
        id: String::new(),
        reason: String::new(),
        stepup: None,
        stepup_offset: 0,
        covers: None,
        covers_offset: 0,
        obligations: Vec::new(),
        controls: Vec::new(),
        observation: None,
    };
    for (name, value, offset) in syntax::annotations(&parsed.policy) {
        let mut refuse = |what: String, fix: &str| {
            let (line, column) = lines.position(offset);
            let column = if line == 1 {
                parsed.at.column.saturating_add(column).saturating_sub(1)
            } else {
                column
            };
            let line = parsed.at.line.saturating_add(line).saturating_sub(1);
            diagnostics.error(&Location { file: parsed.at.file.clone(), line, column }, what, fix);
            wrong = true;
        };
        match name.as_str() {
            "id" if is_name(&value) => notes.id = value,
            "id" => refuse(
                format!("`@id(\"{}\")` is no id", crate::diagnostic::clip(&value)),
                "Use letters, digits and `-_.:/`, at most 128.",
            ),
            "reason" if is_reason(&value) => notes.reason = value,
            "reason" => refuse(
                "`@reason` must be one line of at most 512 characters".to_owned(),
                "Say in a few words why the policy stands.",
            ),
            "stepup" if effect == PolicyEffect::Permit => refuse(
                "`@stepup` on a permit does nothing".to_owned(),
                "Put it on a `forbid`, with `unless { context.satisfied.contains(Kind::\"…\") }`.",
            ),
            "stepup" => {
                notes.stepup = Some(value);
                notes.stepup_offset = offset;
            }
            "obligation" if effect == PolicyEffect::Forbid => refuse(
                "`@obligation` on a forbid does nothing".to_owned(),
                "Put it on the `permit` whose use it conditions.",
            ),
            "obligation" => match obligations(&value) {
                Ok(list) => notes.obligations = list,
                Err((what, fix)) => refuse(what, &fix),
            },
            "control" => match list(&value, is_control) {
                Some(list) => notes.controls = list,
                None => refuse(
                    "`@control` must be a comma list of control ids".to_owned(),
                    "Write for instance `@control(\"ASI03,NHI5\")`.",
                ),
            },
            "covers" => match Covers::parse(&value) {
                Ok(covers) => {
                    notes.covers = Some(covers);
                    notes.covers_offset = offset;
                }
                Err((what, fix)) => refuse(what, &fix),
            },
            "mode" => match Observation::parse(&value) {
                Ok(observation) => notes.observation = Some(observation),
                Err((what, fix)) => refuse(what, &fix),
            },
            other => {
                let fix = match nearest(other, ANNOTATIONS) {
                    Some(near) => format!("Did you mean `@{near}`?"),
                    None => format!("Known are @{}.", ANNOTATIONS.join(", @")),
                };
                refuse(format!("unknown annotation `@{}`", crate::diagnostic::clip(other)), &fix);
            }
        }
    }
    if notes.id.is_empty() && !wrong {
        diagnostics.error(
            &parsed.at,
            "the policy has no `@id`",
            "Write `@id(\"…\")` before it: decisions, tests and the audit name policies by it.",
        );
        wrong = true;
    }
    (!wrong).then_some(notes)
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
    !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(allowed)
}

fn is_reason(text: &str) -> bool {
    !text.trim().is_empty()
        && text.chars().count() <= MAX_REASON
        && !text.chars().any(char::is_control)
}

/// The obligations of a comma list.
///
/// # Errors
/// Problem and fix.
fn obligations(text: &str) -> Result<Vec<String>, (String, String)> {
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    if items.len() > MAX_OBLIGATIONS {
        let what = format!("`@obligation` has more than {MAX_OBLIGATIONS} obligations");
        return Err((what, "Remove some.".to_owned()));
    }
    for item in &items {
        if let Err(why) = Obligation::parse(item) {
            let what = format!("`@obligation` has `{}`: {why}", crate::diagnostic::clip(item));
            return Err((what, Obligation::fix_of(crate::diagnostic::clip(item))));
        }
    }
    Ok(items.into_iter().map(str::to_owned).collect())
}

fn is_control(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.len() <= MAX_NAME
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}

fn list(text: &str, form: fn(&str) -> bool) -> Option<Vec<String>> {
    let items: Vec<&str> =
        text.split(',').map(str::trim).take(MAX_LIST.saturating_add(1)).collect();
    if items.len() > MAX_LIST || !items.iter().all(|item| form(item)) {
        return None;
    }
    Some(items.into_iter().map(str::to_owned).collect())
}
