//! Policies: parsed, checked, validated, and cached by their text.

mod annotations;
mod check;
mod covers;
mod observed;
mod validate;

use std::sync::Arc;

use crate::decision::PolicyEffect;
use crate::diagnostic::Diagnostics;
use crate::digest::sha256;
use crate::evaluate::syntax::{self, Lines, Parsed, PolicyReading};
use crate::evaluate::{Rule, SharedConditions};
use crate::model::{EXCEPTION_TYPE, Location, PolicyFile};
use crate::obligation::Obligation;
use crate::schema::Key;
use crate::table::Table;
use crate::work::CompileProgress;

use crate::decision::Covers;
use observed::Observation;

pub(crate) use check::{Catalog, Covered, Target, check};
pub(crate) use observed::check as check_observed;
pub(crate) use validate::{SchemaTexts, validate};

/// One policy. It depends on its text alone, so that a reload shares it.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) id: String,
    pub(crate) text: Arc<str>,
    /// SHA-256 of the text.
    pub(crate) text_digest: [u8; 32],
    pub(crate) effect: PolicyEffect,
    pub(crate) reason: String,
    /// The step-up kind that lifts it.
    pub(crate) stepup: Option<String>,
    /// Limits within which a person may endorse the values of a call that it holds.
    pub(crate) covers: Option<Covers>,
    pub(crate) obligations: Vec<String>,
    pub(crate) controls: Vec<String>,
    /// `@mode("observe")`. `None`: the policy is enforced.
    observation: Option<Observation>,
    pub(crate) rule: Rule,
    pub(crate) reading: PolicyReading,
    pub(crate) parsed: cedar_policy::Policy,
    /// Byte offset in the text that it was parsed from.
    start: usize,
    /// Byte offset of `@stepup`, from the start of the policy.
    stepup_offset: usize,
    /// Byte offset of `@covers`, from the start of the policy.
    covers_offset: usize,
}

impl Policy {
    /// Calls of a task for which the permit counts. `None`: any number.
    pub(crate) fn max_uses(&self) -> Option<u32> {
        let uses = |obligation: &String| match Obligation::parse(obligation) {
            Ok(Obligation::MaxUses(number)) => Some(number),
            _ => None,
        };
        self.obligations.iter().filter_map(uses).min()
    }

    /// JSON pointers to the arguments of which no record shows anything.
    pub(crate) fn masks(&self) -> impl Iterator<Item = &str> {
        self.obligations.iter().filter_map(|obligation| mask_of(obligation))
    }

    /// Names of the exceptions that the policy reads.
    pub(crate) fn exceptions(&self) -> impl Iterator<Item = &str> {
        let names = self.reading.names.iter().filter(|name| name.kind == EXCEPTION_TYPE);
        names.map(|name| name.id.as_str())
    }
}

/// The JSON pointer of an obligation to mask an argument.
pub(crate) fn mask_of(obligation: &str) -> Option<&str> {
    match Obligation::parse(obligation) {
        Ok(Obligation::MaskArguments(pointer)) => Some(pointer),
        _ => None,
    }
}

/// A policy and its place in the bundle.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) policy: Arc<Policy>,
    pub(crate) at: Location,
    /// Digest of the schema under which it was found valid.
    pub(crate) validated: Option<[u8; 32]>,
}

impl Placed {
    /// The place of a byte offset from the start of the policy.
    pub(crate) fn place(&self, offset: usize) -> Location {
        let (line, column) = Lines::new(&self.policy.text).position(offset);
        let column = if line == 1 {
            self.at.column.saturating_add(column).saturating_sub(1)
        } else {
            column
        };
        let line = self.at.line.saturating_add(line).saturating_sub(1);
        Location { file: self.at.file.clone(), line, column }
    }
}

/// Parsed policies by file, so that the next plan need not parse and validate them again.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    files: Table<String, (PolicyFile, Vec<u32>)>,
}

impl Cache {
    /// The files with the positions of their policies.
    pub(crate) fn into_files(self) -> impl Iterator<Item = (PolicyFile, Vec<u32>)> {
        self.files.into_values()
    }
}

/// Reads all files: parses the files that the previous plan does not have, and checks ids and annotations.
///
/// `previous`: the cache and the policies of the plan that serves now.
pub(crate) fn read<'a>(
    files: &[PolicyFile],
    previous: Option<(&'a Cache, &'a [Placed])>,
    work: &mut CompileProgress<'_>,
) -> (Cache, Vec<Placed>) {
    let mut cache = Cache::default();
    let mut all: Vec<Placed> = Vec::new();
    let mut shared = SharedConditions::default();
    let mut by_text: Option<Table<&'a str, &'a Placed>> = None;
    for file in files {
        work.pause.rest();
        let first = all.len();
        let known = previous.and_then(|(cache, placed)| {
            let (old, indices) = cache.files.get(&file.file)?;
            if old.text != file.text {
                return None;
            }
            indices.iter().map(|index| placed.get(*index as usize)).collect::<Option<Vec<_>>>()
        });
        if let Some(known) = known {
            all.extend(known.into_iter().cloned());
        } else {
            let by_text = by_text.get_or_insert_with(|| {
                let placed = previous.map(|(_, placed)| placed).unwrap_or_default();
                let named = |placed: &'a Placed| {
                    work.pause.rest();
                    (placed.policy.text.as_ref(), placed)
                };
                placed.iter().map(named).collect()
            });
            match syntax::parse(&file.file, &file.text) {
                Err(errors) => work.found.append(errors),
                Ok(parsed) => {
                    for parsed in parsed {
                        match by_text.get(parsed.text.as_ref()) {
                            Some(known) => all.push(Placed { at: parsed.at, ..(*known).clone() }),
                            None => all.extend(new(parsed, &mut shared, &mut work.found)),
                        }
                    }
                }
            }
        }
        let indices = (first..all.len()).filter_map(|index| u32::try_from(index).ok()).collect();
        cache.files.insert(file.file.clone(), (file.clone(), indices));
    }
    refuse_repeated_ids(&all, work);
    (cache, all)
}

fn new(
    parsed: Parsed,
    shared: &mut SharedConditions,
    diagnostics: &mut Diagnostics,
) -> Option<Placed> {
    let effect = syntax::effect(&parsed.policy);
    let notes = annotations::read(&parsed, effect, diagnostics)?;
    let mut reading = syntax::reading(&parsed.policy);
    if notes.covers.is_some() {
        // An endorsement covers calls with the labels that the person was shown, so the labels are recalled.
        reading.keys.insert(Key::Session);
    }
    let start = parsed.policy.loc().map_or(0, |loc| loc.start());
    let policy = Policy {
        rule: Rule::new(&parsed.policy, &reading, shared).observed(notes.observation.is_some()),
        parsed: crate::evaluate::for_validator(&parsed.policy, &notes.id),
        id: notes.id,
        text_digest: sha256(parsed.text.as_bytes()),
        text: parsed.text,
        effect,
        reason: notes.reason,
        stepup: notes.stepup,
        stepup_offset: notes.stepup_offset,
        covers: notes.covers,
        covers_offset: notes.covers_offset,
        obligations: notes.obligations,
        controls: notes.controls,
        observation: notes.observation,
        reading,
        start,
    };
    Some(Placed { policy: Arc::new(policy), at: parsed.at, validated: None })
}

fn refuse_repeated_ids(all: &[Placed], work: &mut CompileProgress<'_>) {
    let mut seen: Table<&str, &Location> = Table::default();
    for placed in all {
        work.pause.rest();
        if let Some(first) = seen.insert(&placed.policy.id, &placed.at) {
            work.found.error(
                &placed.at,
                format!("the id `{}` is also at {}:{}", placed.policy.id, first.file, first.line),
                "Give each policy an `@id` of its own.",
            );
        }
    }
}
