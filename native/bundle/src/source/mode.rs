//! Reads `mode`: which denials are only noted, for which agents, and until when.

use std::collections::BTreeMap;

use authz_base::spiffe::check_pattern;

use super::build::ModelBuilder;
use super::types::{ModeEntry, ModeObject, ModeSaid, ModeWord};
use super::yaml::{At, Entries, Mark};
use crate::diagnostic::{clip, unknown, unknown_word};
use crate::mode;
use crate::model::{Location, Mode, ModeRule, Modes, Tier};

/// Entries of `mode`.
const MOST: usize = 1_000;

/// Keeps the `mode` of the bundle, and refuses a second one.
pub(super) fn once<'a>(
    build: &mut ModelBuilder<'_>,
    kept: &mut Option<(&'a str, &'a At<ModeEntry>)>,
    file: &'a str,
    said: Option<&'a At<ModeEntry>>,
) {
    match (&kept, said) {
        (_, None) => {}
        (None, Some(said)) => *kept = Some((file, said)),
        (Some((first, kept)), Some(said)) => {
            let what = format!("`mode` is said twice; first in {first}:{}", kept.at.line);
            build.found.error(&said.at.within(file), what, "Keep one of the two.");
        }
    }
}

/// Takes over the `mode` of a bundle of which systems are known.
pub(super) fn apply(build: &mut ModelBuilder<'_>, file: &str, said: &At<ModeEntry>) {
    let object = match &said.value {
        ModeEntry::Word(word) => {
            let entry = entry(build, file, *word, said.at, None, None);
            build.model.modes.default = Some(entry);
            return;
        }
        ModeEntry::Object(object) => object,
    };
    let count = object.systems.0.len() + object.agents.0.len() + object.tiers.0.len();
    if count > MOST {
        let what = format!("`mode` has more than {MOST} entries");
        build.found.error(&said.at.within(file), what, "Join some of them.");
        return;
    }
    let default = object.default.as_ref().map(|word| {
        entry(build, file, word.value, word.at, object.owner.as_ref(), object.until.as_ref())
    });
    let systems = by_name(build, file, object, &object.systems, |build, id, at| {
        let declared =
            build.model.systems.iter().map(|(id, system)| (id.as_str(), Some(&system.at)));
        if build.model.systems.contains_key(id) {
            return Some(id.to_owned());
        }
        let (what, fix) = unknown("system", id, declared);
        build.found.error(&at, what, fix);
        None
    });
    let agents = by_name(build, file, object, &object.agents, |build, id, at| {
        if let Err(why) = check_pattern(id) {
            let what = format!("bad SPIFFE id `{}`: {why}", clip(id));
            build.found.error(&at, what, "Write `spiffe://trust.domain/ns/*/sa/name`.");
            return None;
        }
        Some(id.to_owned())
    });
    let tiers = by_name(build, file, object, &object.tiers, |build, id, at| {
        let tier = Tier::ALL.into_iter().find(|tier| tier.as_str() == id);
        if tier.is_none() {
            let (what, fix) = unknown_word("tier", id, Tier::ALL.map(Tier::as_str));
            build.found.error(&at, what, fix);
        }
        tier
    });
    let owner = object.owner.as_ref().map(|owner| owner.value.clone()).unwrap_or_default();
    let until = object.until.as_ref().and_then(|until| mode::end_of(&until.value));
    build.model.modes = Modes { owner, until, default, systems, agents, tiers };
}

fn by_name<K: Ord>(
    build: &mut ModelBuilder<'_>,
    file: &str,
    object: &ModeObject,
    entries: &Entries<ModeSaid>,
    key: impl Fn(&mut ModelBuilder<'_>, &str, Location) -> Option<K>,
) -> BTreeMap<K, ModeRule> {
    let mut known = BTreeMap::new();
    for (id, said) in &entries.0 {
        let Some(key) = key(build, &id.value, id.at.within(file)) else { continue };
        let (owner, until) = (object.owner.as_ref(), object.until.as_ref());
        let entry = match said {
            ModeSaid::Word(word) => entry(build, file, *word, id.at, owner, until),
            ModeSaid::Object(own) => entry(
                build,
                file,
                own.mode,
                id.at,
                own.owner.as_ref().or(owner),
                own.until.as_ref().or(until),
            ),
        };
        known.insert(key, entry);
    }
    known
}

/// One entry. What observes has an owner and an end.
fn entry(
    build: &mut ModelBuilder<'_>,
    file: &str,
    word: ModeWord,
    at: Mark,
    owner: Option<&At<String>>,
    until: Option<&At<String>>,
) -> ModeRule {
    let place = at.within(file);
    let mode = match word {
        ModeWord::Enforce => Mode::Enforce,
        ModeWord::Observe => Mode::Observe,
    };
    if mode == Mode::Observe && owner.is_none() {
        let fix = "Add `owner: team@corp.example`: who is asked about it.";
        build.found.error(&place, "`observe` without an owner", fix);
    }
    if mode == Mode::Observe && until.is_none() {
        let fix = format!("Add `until: 2027-01-31`, at most {} days ahead.", mode::MOST_DAYS);
        build.found.error(&place, "`observe` without an end", fix);
    }
    if let Some(owner) = owner.filter(|owner| !mode::is_owner(&owner.value)) {
        let what = "an owner is one line of at most 256 bytes";
        build.found.error(&owner.at.within(file), what, "Name a team or a person.");
    }
    let end = until.and_then(|until| {
        let end = mode::end_of(&until.value);
        if end.is_none() {
            let what = format!("`{}` is no end", clip(&until.value));
            let fix = "Write a date, `2027-01-31`, or a moment, `2027-01-31T18:00:00Z`.";
            build.found.error(&until.at.within(file), what, fix);
        }
        end
    });
    let owner = owner.map_or_else(String::new, |owner| owner.value.clone());
    ModeRule { mode, owner, until: end, at: place }
}
