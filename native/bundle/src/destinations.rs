//! Destination classes: the class that a pattern or a recipient list gives a destination.

use std::collections::{BTreeMap, BTreeSet};

use authz_base::pattern::Glob;
use authz_base::table::Table;
use smallvec::SmallVec;

use crate::canonical::{DestinationError, canonical};
use crate::model::{DestinationClass, DestinationKind, Model};
use crate::recipient_lists::{RecipientListAnswer, RecipientListQuery};

/// A destination and its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassifiedDestination<'a> {
    /// The class; empty only if the bundle declares no class.
    pub class: &'a str,
    /// The canonical form.
    pub canonical: String,
    /// Domain of an email address or host of a URL; empty for other kinds.
    pub host: String,
}

/// Look-up table of the destination classes of a bundle.
#[derive(Clone, Debug, Default)]
pub struct DestinationIndex {
    /// Patterns in lower case, for kinds whose letters are compared without case.
    folded: Patterns,
    /// Patterns as written, for the other kinds.
    literal: Patterns,
    /// Classes that take members from recipient lists, by name.
    by_recipient_list: BTreeMap<String, BTreeSet<String>>,
    /// The class of a destination that no pattern and no recipient list covers.
    least_trusted: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Patterns {
    exact: Table<String, String>,
    /// Patterns of a star and a text, by that text.
    suffix: Table<String, String>,
    /// Lengths of those texts.
    lengths: BTreeSet<usize>,
    /// The other patterns, the most specific first.
    others: Vec<(Glob, String, String)>,
}

impl DestinationIndex {
    /// Compiles the destination classes of a bundle.
    #[must_use]
    pub fn compile(model: &Model) -> Self {
        let classes = &model.destinations;
        let from_recipient_lists =
            classes.iter().filter(|(_, class)| !class.recipient_lists.is_empty());
        Self {
            folded: Patterns::compile(classes, str::to_ascii_lowercase),
            literal: Patterns::compile(classes, str::to_owned),
            by_recipient_list: from_recipient_lists
                .map(|(name, class)| (name.clone(), class.recipient_lists.clone()))
                .collect(),
            least_trusted: model.least_trusted().map(str::to_owned),
        }
    }

    /// The class with the smallest clearance.
    #[must_use]
    pub fn least_trusted(&self) -> Option<&str> {
        self.least_trusted.as_deref()
    }

    /// Gives a destination its canonical form and the class of the most specific pattern.
    ///
    /// A pattern without a star is the most specific; among the others, the pattern that fixes the most characters. A
    /// destination that no pattern matches belongs to the least trusted class. Letters of mailboxes and hosts are compared
    /// without case. A pattern matches only the kinds that it can be meant for: with `@` mailboxes, with `/` paths, otherwise
    /// the other kinds.
    ///
    /// # Errors
    /// The text is not written in the form of its kind.
    pub fn classify(
        &self,
        kind: DestinationKind,
        raw: &str,
    ) -> Result<ClassifiedDestination<'_>, DestinationError> {
        let destination = canonical(kind, raw)?;
        let class = self.by_pattern(kind, &destination.text).map(|(class, _)| class);
        let class = class.or_else(|| self.least_trusted()).unwrap_or_default();
        Ok(ClassifiedDestination { class, canonical: destination.text, host: destination.host })
    }

    /// The classes of a destination, with those that it may have because a recipient list is stale. At least one, unless the bundle
    /// declares no class. An exact pattern takes precedence over recipient lists, and recipient lists over other patterns.
    pub fn classes(
        &self,
        kind: DestinationKind,
        canonical: &str,
        query: Option<&RecipientListQuery<'_>>,
    ) -> SmallVec<[&str; 1]> {
        let by_pattern = self.by_pattern(kind, canonical);
        let (Some(query), None | Some((_, false))) = (query, by_pattern) else {
            let class = by_pattern.map(|(class, _)| class).or_else(|| self.least_trusted());
            return SmallVec::from_iter(class);
        };
        let mut classes = SmallVec::new();
        let mut is_listed = false;
        for (class, recipient_lists) in &self.by_recipient_list {
            let answers = || recipient_lists.iter().map(|recipient_list| query.ask(recipient_list));
            is_listed |= answers().any(|answer| answer == RecipientListAnswer::Listed);
            if answers().any(|answer| answer != RecipientListAnswer::NotListed) {
                classes.push(class.as_str());
            }
        }
        if !is_listed {
            let class = by_pattern.map(|(class, _)| class).or_else(|| self.least_trusted());
            classes.extend(class.filter(|class| !classes.contains(class)));
        }
        classes
    }

    /// The class that a pattern gives, and whether the pattern is exact.
    fn by_pattern(&self, kind: DestinationKind, canonical: &str) -> Option<(&str, bool)> {
        match kind {
            // Mail servers and resolvers compare mailboxes and host names without case. Paths and accounts keep their case.
            DestinationKind::Email | DestinationKind::UrlHost => {
                self.folded.class(kind, &canonical.to_ascii_lowercase())
            }
            DestinationKind::Iban | DestinationKind::Account | DestinationKind::Path => {
                self.literal.class(kind, canonical)
            }
        }
    }
}

impl Patterns {
    fn compile(
        classes: &BTreeMap<String, DestinationClass>,
        form: impl Fn(&str) -> String,
    ) -> Self {
        let mut out = Self::default();
        for (name, class) in classes {
            for pattern in &class.patterns {
                let pattern = form(pattern);
                let glob = Glob::new(&pattern);
                if glob.is_exact() {
                    out.exact.insert(pattern, name.clone());
                } else if let Some(suffix) = glob.suffix() {
                    out.lengths.insert(suffix.len());
                    out.suffix.insert(suffix.to_owned(), name.clone());
                } else {
                    out.others.push((glob, pattern, name.clone()));
                }
            }
        }
        out.others.sort_by_key(|(glob, ..)| std::cmp::Reverse(glob.fixed()));
        out
    }

    fn class(&self, kind: DestinationKind, text: &str) -> Option<(&str, bool)> {
        // A path may be written like a mailbox; a pattern for mailboxes does not match it.
        if let Some(class) = self.exact.get(text).filter(|_| speaks_of(text, kind)) {
            return Some((class, true));
        }
        let ending = self.lengths.iter().rev().find_map(|length| {
            let suffix = text.get(text.len().checked_sub(*length)?..)?;
            let class = self.suffix.get(suffix)?;
            speaks_of(suffix, kind).then_some((*length, class))
        });
        let other = self
            .others
            .iter()
            .find(|(glob, pattern, _)| speaks_of(pattern, kind) && glob.matches(text))
            .map(|(glob, _, class)| (glob.fixed(), class));
        match (ending, other) {
            (Some((a, _)), Some((b, class))) if b > a => Some((class, false)),
            (Some((_, class)), _) | (None, Some((_, class))) => Some((class, false)),
            (None, None) => None,
        }
    }
}

/// Whether a pattern can be meant for a kind. For example, `*.corp.example` matches no mailbox and no path, so a path that ends
/// like that host does not get its class.
#[must_use]
pub fn speaks_of(pattern: &str, kind: DestinationKind) -> bool {
    let fixed = pattern.trim_matches('*');
    match kind {
        _ if fixed.is_empty() => true,
        DestinationKind::Email => fixed.contains('@'),
        DestinationKind::Path => fixed.contains('/') && !fixed.contains('@'),
        DestinationKind::UrlHost | DestinationKind::Iban | DestinationKind::Account => {
            !fixed.contains(['@', '/'])
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::model::Location;

    fn index(classes: &[(&str, &[&str], &[&str])]) -> DestinationIndex {
        let mut model = Model::default();
        for (name, patterns, clearance) in classes {
            let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            let class = DestinationClass {
                patterns: texts(patterns),
                recipient_lists: BTreeSet::new(),
                clearance: texts(clearance).into_iter().collect(),
                at: Location::default(),
            };
            model.destinations.insert((*name).to_owned(), class);
        }
        DestinationIndex::compile(&model)
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let index = index(&[
            ("internal", &["*@corp.example", "*.corp.example"], &["pii"]),
            ("lab", &["*@lab.corp.example", "lab-*.corp.example"], &["pii"]),
            ("boss", &["boss@corp.example"], &["pii", "secret"]),
            ("external", &["*"], &[]),
        ]);
        let class = |kind, raw| index.classify(kind, raw).unwrap().class.to_owned();
        assert_eq!("internal", class(DestinationKind::Email, "a@corp.example"));
        assert_eq!("internal", class(DestinationKind::Email, "A@CORP.example"));
        assert_eq!("boss", class(DestinationKind::Email, "boss@corp.example"));
        assert_eq!("lab", class(DestinationKind::Email, "a@lab.corp.example"));
        assert_eq!("external", class(DestinationKind::Email, "a@corp.example.evil.example"));
        assert_eq!("internal", class(DestinationKind::UrlHost, "https://x.corp.example/y?z"));
        assert_eq!("lab", class(DestinationKind::UrlHost, "https://lab-1.corp.example"));
        assert_eq!("external", class(DestinationKind::UrlHost, "https://corp.example"));
    }

    #[test]
    fn a_pattern_for_hosts_says_nothing_of_mailboxes_or_paths() {
        let index =
            index(&[("internal", &["*.corp.example"], &["pii"]), ("external", &["*"], &[])]);
        for (kind, raw) in [
            (DestinationKind::Email, "a@evil.corp.example"),
            (DestinationKind::Path, "/tmp/x.corp.example"),
        ] {
            assert_eq!("external", index.classify(kind, raw).unwrap().class);
        }
    }

    #[test]
    fn a_pattern_without_star_is_held_to_its_kind_too() {
        let index = index(&[
            ("boss", &["Boss@corp.example"], &["pii"]),
            ("exports", &["/exports/*", "/exports"], &["pii"]),
            ("ledger", &["Acct-7"], &["pii"]),
            ("host", &["x.corp.example"], &["pii"]),
            ("slash", &["a/b@corp.example"], &["pii"]),
            ("external", &["*"], &[]),
        ]);
        for (kind, raw, class) in [
            (DestinationKind::Email, "bOSS@Corp.example", "boss"),
            (DestinationKind::Path, "boss@corp.example", "external"),
            (DestinationKind::Path, "Boss@corp.example", "external"),
            (DestinationKind::Account, "Boss@corp.example", "external"),
            (DestinationKind::Path, "/exports/a", "exports"),
            (DestinationKind::Path, "/exports", "exports"),
            (DestinationKind::Path, "/EXPORTS/a", "external"),
            (DestinationKind::Account, "/exports", "external"),
            (DestinationKind::Account, "Acct-7", "ledger"),
            (DestinationKind::Account, "acct-7", "external"),
            (DestinationKind::Path, "Acct-7", "external"),
            (DestinationKind::UrlHost, "https://X.corp.example", "host"),
            (DestinationKind::Email, "a/b@corp.example", "slash"),
            (DestinationKind::Path, "a/b@corp.example", "external"),
        ] {
            let found = index.classify(kind, raw).unwrap();
            assert_eq!(class, found.class, "{kind:?} {raw}");
        }
    }

    #[test]
    fn what_no_pattern_matches_is_of_the_least_trusted_class() {
        let index = index(&[("a", &["a@x.example"], &["pii"]), ("z", &["z@x.example"], &[])]);
        let placed = index.classify(DestinationKind::Email, "q@x.example").unwrap();
        assert_eq!("z", placed.class);
        assert_eq!("x.example", placed.host);
    }
}
