//! Patterns with `*`: over whole texts, and over whole segments of `/`-separated texts.
//!
//! A bundle has no regular expressions: each pattern here can be compared with another, and matches in time
//! proportional to the text.

/// A pattern over a whole text; `*` stands for any characters, also none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// The texts between the stars; one more than there are stars.
    parts: Vec<String>,
}

impl Glob {
    /// Reads a pattern; runs of stars count as one.
    pub fn new(pattern: &str) -> Self {
        let mut parts: Vec<String> = Vec::new();
        let mut pieces = pattern.split('*').peekable();
        let mut first = true;
        while let Some(piece) = pieces.next() {
            if first || !piece.is_empty() || pieces.peek().is_none() {
                parts.push(piece.to_owned());
            }
            first = false;
        }
        Self { parts }
    }

    /// Returns whether it holds no star.
    pub fn is_exact(&self) -> bool {
        self.parts.len() == 1
    }

    /// Number of bytes outside of stars: of two patterns that match, the one with more is the more specific.
    pub fn fixed(&self) -> usize {
        self.parts.iter().map(String::len).sum()
    }

    /// The text after the star, where the pattern is a star and a text.
    pub fn suffix(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [start, end] if start.is_empty() => Some(end),
            _ => None,
        }
    }

    /// Returns whether the text matches.
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, others)) = self.parts.split_first() else {
            return false;
        };
        let Some((last, middle)) = others.split_last() else {
            return text == first;
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else {
            return false;
        };
        // The leftmost place of each middle part leaves the most room for those that follow.
        for part in middle {
            match rest.split_once(part.as_str()) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }

    /// Returns whether some text matches both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (self.symbols(), other.symbols());
        let at = |row: &[bool], j: usize| row.get(j).copied().unwrap_or(false);
        // below[j]: some text matches both what follows in `a` and what follows b[j].
        let mut below = vec![false; b.len() + 1];
        for i in (0..=a.len()).rev() {
            let mut row = vec![false; b.len() + 1];
            for j in (0..=b.len()).rev() {
                let shared = match (a.get(i), b.get(j)) {
                    (None, None) => true,
                    // A star may stand for nothing, or take what the other demands next.
                    (Some(None), _) => at(&below, j) || at(&row, j + 1),
                    (_, Some(None)) => at(&row, j + 1) || at(&below, j),
                    (Some(x), Some(y)) => x == y && at(&below, j + 1),
                    (Some(_), None) | (None, Some(_)) => false,
                };
                if let Some(cell) = row.get_mut(j) {
                    *cell = shared;
                }
            }
            below = row;
        }
        at(&below, 0)
    }

    /// Characters, and none for a star.
    fn symbols(&self) -> Vec<Option<char>> {
        let mut out = Vec::new();
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                out.push(None);
            }
            out.extend(part.chars().map(Some));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The obvious matcher.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', p)), t) => naive(p, text) || t.is_some_and(|(_, t)| naive(pattern, t)),
            (Some((x, p)), Some((y, t))) => x == y && naive(p, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_the_obvious_matcher_matches(p in "[ab*]{0,6}", t in "[ab]{0,8}") {
            let chars = |s: &str| s.chars().collect::<Vec<_>>();
            prop_assert_eq!(naive(&chars(&p), &chars(&t)), Glob::new(&p).matches(&t));
        }

        #[test]
        fn two_globs_overlap_where_one_text_matches_both(
            p in "[ab*]{0,4}", q in "[ab*]{0,4}", t in "[ab]{0,8}",
        ) {
            let (p, q) = (Glob::new(&p), Glob::new(&q));
            prop_assert_eq!(p.overlaps(&q), q.overlaps(&p));
            if p.matches(&t) && q.matches(&t) {
                prop_assert!(p.overlaps(&q));
            }
        }
    }

    #[test]
    fn globs_that_share_no_text_do_not_overlap() {
        let overlap = |p: &str, q: &str| Glob::new(p).overlaps(&Glob::new(q));
        assert!(overlap("*@corp.example", "bob@*"));
        assert!(overlap("a*", "*b"));
        assert!(overlap("*", ""));
        assert!(!overlap("*@corp.example", "*@acme.example"));
        assert!(!overlap("a*", "b*"));
        assert!(!overlap("ab", "a"));
    }
}
