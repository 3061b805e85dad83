//! Labels of resources.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::model::{Collection, Model, Spelling};
use crate::spelling;

/// Labels of one collection's resources.
#[derive(Debug, Default)]
pub(super) struct CollectionLabels {
    every: Vec<String>,
    /// Labels of the collection as a whole: those of all its resources.
    whole: Vec<String>,
    patterns: Vec<LabelPattern>,
}

/// Labels of the resources whose id matches.
#[derive(Debug)]
struct LabelPattern {
    /// The pattern begins with `/`, so it matches only ids that do. Other patterns match ids with and without `/`, because a
    /// missing label permits too much, and a label too many does not.
    is_rooted: bool,
    segments: Vec<String>,
    labels: Vec<String>,
}

impl CollectionLabels {
    /// The labels of each collection of a bundle.
    pub(super) fn compile(model: &Model) -> BTreeMap<String, Self> {
        let compile = |(name, collection): (&String, &Collection)| {
            let mut labels =
                Self { every: collection.labels.iter().cloned().collect(), ..Self::default() };
            let mut whole = collection.labels.clone();
            for pattern in
                model.resource_patterns.iter().filter(|pattern| pattern.collection == *name)
            {
                whole.extend(pattern.labels.iter().cloned());
                let text = match collection.spelling {
                    Spelling::Exact => pattern.pattern.as_str().into(),
                    Spelling::Fold => spelling::fold(&pattern.pattern),
                };
                let is_rooted = text.starts_with('/');
                let segments = text.strip_prefix('/').unwrap_or(&text).split('/');
                let segments = segments.map(str::to_owned).collect();
                let added = pattern.labels.iter().cloned().collect();
                labels.patterns.push(LabelPattern { is_rooted, segments, labels: added });
            }
            labels.whole = whole.into_iter().collect();
            (name.clone(), labels)
        };
        model.collections.iter().map(compile).collect()
    }

    /// Whether some resource of the collection carries a label.
    pub(super) const fn has_any(&self) -> bool {
        !self.whole.is_empty()
    }

    /// The labels of a resource.
    ///
    /// `id`: in canonical form; empty for the collection as a whole.
    pub(super) fn of(&self, id: &str) -> Cow<'_, [String]> {
        if id.is_empty() {
            return self.whole.as_slice().into();
        }
        let mut all = Cow::Borrowed(self.every.as_slice());
        for pattern in &self.patterns {
            if pattern.matches(id) {
                all.to_mut().extend(pattern.labels.iter().cloned());
            }
        }
        all
    }
}

impl LabelPattern {
    /// Whether an id matches: `*` is one segment, a last `**` any number of segments, also zero.
    fn matches(&self, id: &str) -> bool {
        let body = match id.strip_prefix('/') {
            Some(body) => body,
            None if self.is_rooted => return false,
            None => id,
        };
        let mut segments = body.split('/');
        for (index, part) in self.segments.iter().enumerate() {
            if part == "**" && index.saturating_add(1) == self.segments.len() {
                return true;
            }
            match segments.next() {
                Some(segment) if part == "*" || part == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}
