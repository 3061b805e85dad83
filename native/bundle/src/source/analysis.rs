//! Reads `analysis`: assertions about the bundle, and findings that are accepted for a time.

use authz_base::pattern::Glob;

use super::build::ModelBuilder;
use super::classify;
use super::types::{AnalysisEntry, AssertionEntry, NeverEntry, SuppressionEntry};
use super::yaml::At;
use crate::diagnostic::{clip, unknown};
use crate::ids;
use crate::mode::end_of;
use crate::model::{
    ANALYSIS_RULES, Assertion, CallPattern, DestinationPattern, Location, OperationGlob, PERSON,
    SuppressedFindings, Suppression,
};

/// Assertions of a bundle: the analysis asks each one of every operation.
const MOST_ASSERTIONS: usize = 256;
/// Suppressions of a bundle.
const MOST_SUPPRESSIONS: usize = 1_000;
/// Step-up kinds of `without`.
const MOST_KINDS: usize = 16;
/// Bytes of `owner` and `subject`.
const LONGEST_NAME: usize = 256;
/// Bytes of `reason`.
const LONGEST_REASON: usize = 512;
/// Hexadecimal digits of the id of a finding.
const FINDING_DIGITS: usize = 16;
/// Stands for every agent, subject, operation or destination.
const ANY: &str = "any";
/// Start of the name of an assertion's rule, before its id.
const ASSERTION: &str = "assertion";

/// Takes over the assertions, once operations, roles, labels and destinations are known.
pub(super) fn assertions(
    build: &mut ModelBuilder<'_>,
    file: &str,
    said: Option<&At<AnalysisEntry>>,
) {
    for entry in said.iter().flat_map(|said| &said.value.assertions) {
        if build.model.analysis.assertions.len() >= MOST_ASSERTIONS {
            let what = format!("more than {MOST_ASSERTIONS} assertions");
            return build.found.error(&entry.at.within(file), what, "Join some of them.");
        }
        let AssertionEntry { id, never } = &entry.value;
        let Some(at) = build.declare(file, "assertion", id, ids::refuse) else { continue };
        let never = AnalysisReader { build, file }.pattern(never);
        if let Some(never) = never {
            let assertion = Assertion { id: id.value.clone(), never, at };
            build.model.analysis.assertions.push(assertion);
        }
    }
}

/// Takes over the suppressions, once all assertions are known.
pub(super) fn suppressions(
    build: &mut ModelBuilder<'_>,
    file: &str,
    said: Option<&At<AnalysisEntry>>,
) {
    for entry in said.iter().flat_map(|said| &said.value.suppressions) {
        if build.model.analysis.suppressions.len() >= MOST_SUPPRESSIONS {
            let what = format!("more than {MOST_SUPPRESSIONS} suppressions");
            let fix = "Remove those that have ended, and fix what the others accept.";
            return build.found.error(&entry.at.within(file), what, fix);
        }
        let suppression = AnalysisReader { build, file }.suppression(entry);
        build.model.analysis.suppressions.extend(suppression);
    }
}

struct AnalysisReader<'a, 'b> {
    build: &'a mut ModelBuilder<'b>,
    file: &'a str,
}

impl AnalysisReader<'_, '_> {
    fn error(&mut self, at: super::Mark, what: String, fix: &str) {
        self.build.found.error(&at.within(self.file), what, fix);
    }

    /// `None` where an error was found.
    fn pattern(&mut self, said: &At<NeverEntry>) -> Option<CallPattern> {
        let before = self.build.found.iter().count();
        let At { value: entry, at } = said;
        let pattern = CallPattern {
            agent: self.role(entry.agent.as_ref(), true),
            subject: self.role(entry.subject.as_ref(), false),
            operation: entry.operation.as_ref().and_then(|text| self.operation(text)),
            effect: entry.effect.map(classify::effect),
            tier: entry.tier.map(classify::tier),
            label: self.label(entry.label.as_ref()),
            destination: entry.destination.as_ref().and_then(|text| self.destination(text)),
            after: self.label(entry.after.as_ref()),
            without: entry.without.0.iter().map(|kind| kind.value.clone()).collect(),
        };
        if let Some(kind) = entry.without.0.get(MOST_KINDS) {
            self.error(kind.at, format!("more than {MOST_KINDS} kinds"), "Write `person`.");
        }
        for kind in &entry.without.0 {
            self.kind(kind);
        }
        let is_empty =
            pattern == CallPattern { without: pattern.without.clone(), ..CallPattern::default() };
        if self.build.found.iter().count() > before {
            return None;
        }
        if is_empty {
            let fix = "Say which calls must never happen: agent, subject, operation, effect, tier, label, destination or after.";
            self.error(*at, "the assertion covers every call".to_owned(), fix);
            return None;
        }
        if pattern.label.is_some() && pattern.destination.is_none() {
            let fix = "Add `destination`: a class, or `any`. To speak of data that was read before a call, write `after`.";
            self.error(*at, "`label` needs a destination".to_owned(), fix);
            return None;
        }
        Some(pattern)
    }

    /// A role of agents, or of people and services. `None`: any, or an error was found.
    fn role(&mut self, said: Option<&At<String>>, is_agent: bool) -> Option<String> {
        let said = said.filter(|said| said.value != ANY)?;
        let roles = self.build.model.roles.iter().filter(|(_, members)| match is_agent {
            true => !members.agents.is_empty(),
            false => !members.subjects.is_empty(),
        });
        let roles: Vec<(&str, Option<&Location>)> =
            roles.map(|(name, role)| (name.as_str(), Some(&role.at))).collect();
        if roles.iter().any(|(name, _)| *name == said.value) {
            return Some(said.value.clone());
        }
        let kind = if is_agent { "role of agents" } else { "role of people" };
        let (what, fix) = unknown(kind, &said.value, roles);
        self.build.found.error(&said.at.within(self.file), what, fix.and("Or write `any`."));
        None
    }

    fn operation(&mut self, said: &At<String>) -> Option<OperationGlob> {
        if said.value == ANY {
            return None;
        }
        let glob = Glob::new(&said.value);
        let operations = &self.build.model.operations;
        if operations.iter().any(|operation| glob.matches(&operation.id)) {
            return Some(OperationGlob(glob, said.value.clone()));
        }
        let declared: Vec<(&str, Option<&Location>)> =
            operations.iter().take(10_000).map(|one| (one.id.as_str(), Some(&one.at))).collect();
        let (what, fix) = unknown("operation", &said.value, declared);
        self.build.found.error(&said.at.within(self.file), what, fix);
        None
    }

    fn label(&mut self, said: Option<&At<String>>) -> Option<String> {
        let said = said?;
        let labels = self.build.labels(self.file, std::slice::from_ref(said));
        labels.into_iter().next()
    }

    fn destination(&mut self, said: &At<String>) -> Option<DestinationPattern> {
        if said.value == ANY {
            return Some(DestinationPattern::Any);
        }
        let classes = &self.build.model.destinations;
        if classes.contains_key(&said.value) {
            return Some(DestinationPattern::Class(said.value.clone()));
        }
        let declared = classes.iter().map(|(name, class)| (name.as_str(), Some(&class.at)));
        let (what, fix) = unknown("class of destinations", &said.value, declared);
        self.build.found.error(&said.at.within(self.file), what, fix.and("Or write `any`."));
        None
    }

    /// Refuses a kind that people do not answer.
    fn kind(&mut self, said: &At<String>) {
        let role = said.value.strip_prefix("approve:");
        let is_known = [PERSON, "confirm", "approve", "two_person"].contains(&said.value.as_str())
            || role.is_some_and(|role| self.build.model.roles.contains_key(role));
        if !is_known {
            let what =
                format!("people do not answer a step-up of the kind `{}`", clip(&said.value));
            let fix = "Write `person`, `confirm`, `approve`, `two_person`, or `approve:ROLE` with a role.";
            self.error(said.at, what, fix);
        }
    }

    /// `None` where an error was found.
    fn suppression(&mut self, said: &At<SuppressionEntry>) -> Option<Suppression> {
        let At { value: entry, at } = said;
        let findings = self.findings(entry, *at);
        let owner = self.line("owner", &entry.owner, LONGEST_NAME, "Name a team or a person.");
        let fix = "Say in a few words why the finding is accepted.";
        let reason = self.line("reason", &entry.reason, LONGEST_REASON, fix);
        let until = end_of(&entry.until.value);
        if until.is_none() {
            let what = format!("`{}` is no end", clip(&entry.until.value));
            let fix = "Write a date, `2027-01-31`, or a time, `2027-01-31T18:00:00Z`.";
            self.error(entry.until.at, what, fix);
        }
        Some(Suppression {
            of: findings?,
            owner: owner?,
            reason: reason?,
            until: until?,
            at: at.within(self.file),
        })
    }

    fn findings(
        &mut self,
        entry: &SuppressionEntry,
        at: super::Mark,
    ) -> Option<SuppressedFindings> {
        let fix =
            "Write `finding: <id>` for one finding, or `rule: <name>` with or without `subject`.";
        match (&entry.finding, &entry.rule) {
            (Some(_), Some(_)) => {
                self.error(at, "`finding` and `rule` exclude each other".to_owned(), fix);
                None
            }
            (None, None) => {
                self.error(at, "the suppression names no finding".to_owned(), fix);
                None
            }
            (Some(id), None) => {
                if let Some(subject) = &entry.subject {
                    let fix = "Remove it: the id of a finding names its subject.";
                    self.error(subject.at, "`subject` goes with `rule`".to_owned(), fix);
                    return None;
                }
                let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                if id.value.len() != FINDING_DIGITS || !id.value.chars().all(is_hex) {
                    let what = format!("`{}` is no id of a finding", clip(&id.value));
                    let fix = "Copy the 16 digits that `authz analyze` prints.";
                    self.error(id.at, what, fix);
                    return None;
                }
                Some(SuppressedFindings::Finding(id.value.clone()))
            }
            (None, Some(rule)) => {
                self.rule(rule)?;
                let subject = match &entry.subject {
                    Some(text) => Some(self.line(
                        "subject",
                        text,
                        LONGEST_NAME,
                        "Copy it from the finding.",
                    )?),
                    None => None,
                };
                Some(SuppressedFindings::Rule { rule: rule.value.clone(), subject })
            }
        }
    }

    fn rule(&mut self, rule: &At<String>) -> Option<()> {
        let assertions = &self.build.model.analysis.assertions;
        let assertion = rule.value.strip_prefix(ASSERTION).and_then(|rest| rest.strip_prefix(':'));
        let is_known = match assertion {
            Some(id) => assertions.iter().any(|one| one.id == id),
            None => ANALYSIS_RULES.contains(&rule.value.as_str()),
        };
        if is_known {
            return Some(());
        }
        let of_assertions = assertions.iter().map(|one| format!("{ASSERTION}:{}", one.id));
        let all: Vec<String> =
            ANALYSIS_RULES.iter().map(|rule| (*rule).to_owned()).chain(of_assertions).collect();
        let (what, fix) = unknown(
            "rule of the analysis",
            &rule.value,
            all.iter().map(|name| (name.as_str(), None)),
        );
        self.build.found.error(&rule.at.within(self.file), what, fix);
        None
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
        self.error(said.at, format!("`{key}` is one line of 1 to {longest} bytes"), fix);
        None
    }
}
