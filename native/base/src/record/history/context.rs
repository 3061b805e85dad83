//! Contexts that a front end names within the session of an agent that works without tasks, for example one for each
//! conversation. A context keeps labels that strangers brought apart, and nothing else: budgets, rules, denials and
//! confidentiality labels count for the whole session.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::record::{HistoryChanges, LabelOrigin, SessionHistory};
use super::settle::OpenPermit;
use crate::digest::short;
use crate::record::Declarations;

/// Contexts of which one label keeps that they brought it. A label that more of them brought counts everywhere.
pub const MAX_CONTEXTS: usize = 64;

/// A context within the session of a pair of agent and subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionContext {
    /// Digest of the session's id, with the separator behind it.
    session: String,
    /// The session's digest, and that of the context's name.
    key: String,
}

impl SessionContext {
    /// `session` is the id of the session, `name` the name that the front end gives the context.
    #[must_use]
    pub fn new(session: &str, name: &str) -> Self {
        let session = format!("{}/", short(session));
        let key = format!("{session}{}", short(name));
        Self { session, key }
    }

    /// Digest of session and name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.key
    }

    /// Returns whether a label of these contexts does not count in this context. A label of another session counts.
    fn hides(&self, contexts: &BTreeSet<String>) -> bool {
        let is_other = |one: &String| *one != self.key && one.starts_with(&self.session);
        !contexts.is_empty() && contexts.iter().all(is_other)
    }

    /// Returns whether the labels of a permit do not count in this context.
    fn hides_of(&self, pending: &OpenPermit) -> bool {
        pending.apart.as_ref().is_some_and(|apart| {
            apart.context != self.key && apart.context.starts_with(&self.session)
        })
    }
}

/// Labels that count only in the context of the call that brings them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apart {
    /// The context.
    pub context: String,
    /// The labels.
    pub labels: BTreeSet<String>,
}

impl Apart {
    /// The contexts that a label counts in; empty: everywhere.
    pub fn contexts_of(apart: Option<&Self>, label: &str) -> BTreeSet<String> {
        let apart = apart.filter(|apart| apart.labels.contains(label));
        apart.into_iter().map(|apart| apart.context.clone()).collect()
    }
}

impl LabelOrigin {
    /// Returns whether the label counts already in all of these contexts.
    pub fn covers(&self, contexts: &BTreeSet<String>) -> bool {
        self.contexts.is_empty() || (!contexts.is_empty() && contexts.is_subset(&self.contexts))
    }

    /// Lets the label count in these contexts too; empty: everywhere.
    pub fn widen(&mut self, contexts: &BTreeSet<String>) {
        if self.contexts.is_empty() {
            return;
        }
        self.contexts.extend(contexts.iter().cloned());
        if contexts.is_empty() || self.contexts.len() > MAX_CONTEXTS {
            self.contexts.clear();
        }
    }
}

impl HistoryChanges {
    /// The changes of a call in a context: labels that strangers brought count there alone. A label that the bundle does not
    /// have counts everywhere.
    #[must_use]
    pub fn within(&self, bundle: &dyn Declarations, context: &SessionContext) -> Self {
        let is_trust = |label: &&String| bundle.is_trust_label(label).unwrap_or(false);
        let remembered = self.remembered.iter();
        let remembered = remembered.flat_map(|one| one.labels.iter().chain(&one.awaited));
        let gathered = self.gathered.keys().chain(self.awaited.gathered.keys());
        let all = self.joining().chain(remembered).chain(gathered);
        let labels = all.filter(is_trust).cloned().collect();
        Self { apart: Some(Apart { context: context.key.clone(), labels }), ..self.clone() }
    }
}

impl SessionHistory {
    /// The history as a call in a context sees it; none where it hides nothing from the call.
    #[must_use]
    pub fn seen_in(&self, context: &SessionContext) -> Option<Self> {
        let hides_some = self.labels.values().any(|origin| context.hides(&origin.contexts))
            || self.pending.values().any(|pending| context.hides_of(pending));
        if !hides_some {
            return None;
        }
        let mut seen = self.clone();
        seen.labels.retain(|_, origin| !context.hides(&origin.contexts));
        for pending in seen.pending.values_mut().filter(|pending| context.hides_of(pending)) {
            if let Some(apart) = &pending.apart {
                pending.labels.retain(|label| !apart.labels.contains(label));
            }
        }
        Some(seen)
    }
}
