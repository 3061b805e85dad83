//! Reads `exceptions`: standing permissions that policies may accept until they expire.

use std::collections::BTreeSet;

use authz_base::pattern::Glob;
use authz_base::record::task::Selector;
use authz_base::spelling::check_id;
use authz_base::spiffe::check_pattern;

use super::build::ModelBuilder;
use super::classify;
use super::types::ExceptionEntry;
use super::yaml::{At, Entries};
use crate::diagnostic::{clip, unknown};
use crate::exceptions::MOST_DAYS;
use crate::ids;
use crate::mode::end_of;
use crate::model::{
    BREAKGLASS, ExceptionHolder, ExceptionResources, Location, OperationGlob, StandingException,
    Tier,
};
use crate::obligation::{MAX_OBLIGATIONS, Obligation};

/// Exceptions of a bundle. Each call of an operation whose policies read `context.exception` looks at all of them.
const MOST: usize = 256;
/// Operations and globs of one exception.
const MOST_OPERATIONS: usize = 64;
/// Ids of resources of one exception.
const MOST_IDS: usize = 1_000;
/// Bytes of `owner` and `ticket`.
const LONGEST_NAME: usize = 256;
/// Bytes of `reason`.
const LONGEST_REASON: usize = 512;
const SPIFFE: &str = "spiffe://";

/// Takes over `max_exception_days`.
pub(super) fn days(build: &mut ModelBuilder<'_>, file: &str, said: Option<&At<u16>>) {
    let Some(said) = said else { return };
    if !(1..=MOST_DAYS).contains(&said.value) {
        let what = format!("`max_exception_days` is {}, and may be 1 to {MOST_DAYS}", said.value);
        build.found.error(&said.at.within(file), what, "Write another number.");
    }
    build.model.exception_days = Some(said.value);
}

/// Takes over `exceptions`, once operations, roles, collections and labels are known.
pub(super) fn apply(build: &mut ModelBuilder<'_>, file: &str, said: &Entries<At<ExceptionEntry>>) {
    for (name, entry) in &said.0 {
        let Some(at) = build.declare(file, "exception", name, ids::refuse) else { continue };
        if name.value == BREAKGLASS {
            let what =
                format!("`{BREAKGLASS}` is the exception that administrators open at run time");
            build.found.error(&at, what, "Rename it.");
            continue;
        }
        if build.model.exceptions.len() >= MOST {
            let what = format!("more than {MOST} exceptions");
            return build.found.error(&at, what, "Remove those that nobody uses.");
        }
        let mut reader = ExceptionReader { build, file };
        if let Some(exception) = reader.exception(&entry.value, at) {
            build.model.exceptions.insert(name.value.clone(), exception);
        }
    }
}

struct ExceptionReader<'a, 'b> {
    build: &'a mut ModelBuilder<'b>,
    file: &'a str,
}

impl ExceptionReader<'_, '_> {
    /// `None` where an error was found.
    fn exception(&mut self, said: &ExceptionEntry, at: Location) -> Option<StandingException> {
        let holder = self.holder(&said.who);
        let operations = self.operations(said);
        let resources = self.resources(said);
        let obligations = self.obligations(said);
        let owner = self.line("owner", &said.owner, LONGEST_NAME, "Name a team or a person.");
        let fix = "Say in a few words why it exists.";
        let reason = self.line("reason", &said.reason, LONGEST_REASON, fix);
        let fix = "Name the ticket in which it was granted.";
        let ticket = self.line("ticket", &said.ticket, LONGEST_NAME, fix);
        let expires = end_of(&said.expires.value);
        if expires.is_none() {
            let what = format!("`{}` is no end", clip(&said.expires.value));
            let fix = "Write a date, `2027-01-31`, or a time, `2027-01-31T18:00:00Z`.";
            self.build.found.error(&said.expires.at.within(self.file), what, fix);
        }
        Some(StandingException {
            holder: holder?,
            operations: operations?,
            resources: resources?,
            tier_cap: said.tier_cap.map_or(Tier::Standard, classify::tier),
            owner: owner?,
            reason: reason?,
            ticket: ticket?,
            expires: expires?,
            obligations: obligations?,
            at,
        })
    }

    fn holder(&mut self, who: &At<String>) -> Option<ExceptionHolder> {
        let at = who.at.within(self.file);
        if who.value.starts_with(SPIFFE) {
            if let Err(why) = check_pattern(&who.value) {
                let what = format!("bad SPIFFE id `{}`: {why}", clip(&who.value));
                self.build.found.error(&at, what, "Write `spiffe://trust.domain/ns/*/sa/name`.");
                return None;
            }
            return Some(ExceptionHolder::Agent(who.value.clone()));
        }
        let roles = &self.build.model.roles;
        if roles.contains_key(&who.value) {
            return Some(ExceptionHolder::Role(who.value.clone()));
        }
        let declared = roles.iter().map(|(name, role)| (name.as_str(), Some(&role.at)));
        let (what, fix) = unknown("role", &who.value, declared);
        self.build.found.error(&at, what, fix.and("Or write the SPIFFE id of an agent."));
        None
    }

    fn operations(&mut self, said: &ExceptionEntry) -> Option<Vec<OperationGlob>> {
        let list = &said.operations.0;
        if list.is_empty() || list.len() > MOST_OPERATIONS {
            let at = list.first().map(|first| first.at).unwrap_or_default().within(self.file);
            let what = format!("an exception covers 1 to {MOST_OPERATIONS} operations or globs");
            self.build.found.error(&at, what, "Add or remove some.");
            return None;
        }
        let globs: Vec<OperationGlob> =
            list.iter().filter_map(|text| self.operation(text)).collect();
        (globs.len() == list.len()).then_some(globs)
    }

    fn operation(&mut self, text: &At<String>) -> Option<OperationGlob> {
        let at = text.at.within(self.file);
        let system = text.value.split_once('.').map(|(system, _)| system);
        if system.is_none_or(|system| system.contains('*')) {
            let what = format!("`{}` does not name its system", clip(&text.value));
            let fix = "Write an id, `erp.post_journal`, or a glob of one system, `erp.read_*`.";
            self.build.found.error(&at, what, fix);
            return None;
        }
        let glob = Glob::new(&text.value);
        let operations = &self.build.model.operations;
        if operations.iter().any(|one| glob.matches(&one.id)) {
            return Some(OperationGlob(glob, text.value.clone()));
        }
        let declared: Vec<(&str, Option<&Location>)> =
            operations.iter().take(10_000).map(|one| (one.id.as_str(), Some(&one.at))).collect();
        let (what, fix) = unknown("operation", &text.value, declared);
        self.build.found.error(&at, what, fix);
        None
    }

    fn resources(&mut self, said: &ExceptionEntry) -> Option<ExceptionResources> {
        let said = &said.resources;
        let before = self.build.found.iter().count();
        for collection in said.collections.iter().flat_map(|list| &list.0) {
            let declared = &self.build.model.collections;
            if !declared.contains_key(&collection.value) {
                let declared = declared.iter().map(|(name, c)| (name.as_str(), Some(&c.at)));
                let (what, fix) = unknown("collection", &collection.value, declared);
                self.build.found.error(&collection.at.within(self.file), what, fix);
            }
        }
        let ids = said.ids.as_ref().map(|list| {
            if let Some(text) = list.0.get(MOST_IDS) {
                let what = format!("`ids` has more than {MOST_IDS} values");
                let fix = "Use `path_prefix` or `collections` instead.";
                self.build.found.error(&text.at.within(self.file), what, fix);
            }
            list.0.iter().take(MOST_IDS).map(|text| self.id(text)).collect()
        });
        let label_ceiling =
            said.label_ceiling.as_ref().map(|list| self.build.labels(self.file, &list.0));
        let selector = Selector {
            collections: said
                .collections
                .as_ref()
                .map(|list| list.0.iter().map(|one| one.value.clone()).collect()),
            ids,
            path_prefix: said.path_prefix.as_ref().map(|text| self.id(text)),
            label_ceiling,
        };
        let is_right = self.build.found.iter().count() == before;
        is_right.then(|| ExceptionResources::new(selector))
    }

    fn id(&mut self, text: &At<String>) -> String {
        if let Err(why) = check_id(&text.value) {
            let what = format!("bad id `{}`: {}", clip(&text.value), why.what);
            self.build.found.error(&text.at.within(self.file), what, why.fix);
        }
        text.value.clone()
    }

    fn obligations(&mut self, said: &ExceptionEntry) -> Option<BTreeSet<String>> {
        let list = &said.obligations.0;
        let mut is_right = true;
        if let Some(text) = list.get(MAX_OBLIGATIONS) {
            let what = format!("more than {MAX_OBLIGATIONS} obligations");
            self.build.found.error(&text.at.within(self.file), what, "Remove some.");
            is_right = false;
        }
        for text in list {
            let (what, fix) = match Obligation::parse(&text.value) {
                Ok(Obligation::MaxUses(_)) => {
                    let what = "an exception cannot count its uses".to_owned();
                    (what, "Write `@obligation` at the policy that accepts it.".to_owned())
                }
                Ok(_) => continue,
                Err(why) => {
                    let what = format!("`{}` is no obligation: {why}", clip(&text.value));
                    (what, Obligation::fix_of(clip(&text.value)))
                }
            };
            self.build.found.error(&text.at.within(self.file), what, fix);
            is_right = false;
        }
        is_right.then(|| list.iter().map(|text| text.value.clone()).collect())
    }

    /// One line of text that is not empty.
    fn line(
        &mut self,
        key: &str,
        said: &At<String>,
        longest: usize,
        fix: &'static str,
    ) -> Option<String> {
        let text = said.value.trim();
        if !text.is_empty() && text.len() <= longest && !text.chars().any(char::is_control) {
            return Some(text.to_owned());
        }
        let what = format!("`{key}` is one line of 1 to {longest} bytes");
        self.build.found.error(&said.at.within(self.file), what, fix);
        None
    }
}
