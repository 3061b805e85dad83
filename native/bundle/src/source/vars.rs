//! `${name}`: what differs between the places where one bundle runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Advice, unknown};
use crate::location::Location;

/// A text after filling in may not be longer.
const LONGEST: usize = 4 << 20;

/// Why a text cannot be filled in.
#[derive(Debug)]
pub(crate) struct VarError {
    /// Byte offset of the `$` in the text.
    pub(crate) offset: usize,
    pub(crate) what: String,
    pub(crate) fix: Advice,
    /// Code of the diagnostic; empty where it has none.
    pub(crate) code: &'static str,
}

/// Code of the error that a variable has no value.
pub(crate) const UNKNOWN: &str = "unknown-variable";

/// Replaces each `${name}` by the value of the variable; `$${` stands for a plain `${`.
pub(crate) fn fill(text: &str, vars: &BTreeMap<String, String>) -> Result<String, VarError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let offset = text.len() - rest.len() + before.len();
        let fail =
            |what: String, fix: String| Err(VarError { offset, what, fix: fix.into(), code: "" });
        if let Some(plain) = before.strip_suffix('$') {
            out.push_str(plain);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            return fail("`${` without `}`".into(), "Write `$${` for a plain `${`.".into());
        };
        let Some(value) = vars.get(name) else {
            let declared: Vec<(&str, Option<&Location>)> =
                vars.keys().map(|name| (name.as_str(), None)).collect();
            let (what, fix) = unknown("variable", name, declared);
            let fix = fix.and("Variables are set under `vars` in the configuration.");
            return Err(VarError { offset, what, fix, code: UNKNOWN });
        };
        out.push_str(value);
        if out.len() > LONGEST {
            return fail("too long once variables are filled in".into(), String::new());
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Names of the variables that [`fill`] needs a value of.
pub(crate) fn names(text: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        rest = after;
        if before.ends_with('$') {
            continue;
        }
        let Some((name, after)) = after.split_once('}') else { break };
        if is_name(name) {
            names.insert(name);
            rest = after;
        }
    }
    names
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What is wrong with a variable: a value that could end a string, or break a line, in YAML or Cedar.
pub(crate) fn refuse(name: &str, value: &str) -> Option<&'static str> {
    if !is_name(name) {
        return Some("its name is not of letters, digits and `_`, at most 64");
    }
    if value.len() > 4096 {
        return Some("its value is longer than 4096 bytes");
    }
    if value.contains(|c: char| c.is_control() || c == '"' || c == '\\') || value.contains("${") {
        return Some("its value holds a quote, a backslash, `${` or a control character");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_once() {
        let vars = [("a", "1"), ("b_2", "x y")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let fill = |text| fill(text, &vars).map_err(|e| (e.offset, e.what));
        assert_eq!(Ok("1-x y-1".to_owned()), fill("${a}-${b_2}-${a}"));
        assert_eq!(Ok("${a} $a {a} $".to_owned()), fill("$${a} $a {a} $"));
        assert_eq!(Err((2, "unknown variable `c`; declared: a, b_2".to_owned())), fill("ab${c}"));
        assert_eq!(Err((1, "`${` without `}`".to_owned())), fill("a${a"));
    }

    #[test]
    fn names_are_those_that_are_filled_in() {
        let listed = |text| names(text).into_iter().collect::<Vec<_>>();
        assert_eq!(vec!["a", "b_2"], listed("${b_2}-${a}-${a}"));
        assert_eq!(vec!["b"], listed("$${a}${b}${c"));
        assert!(listed("$${a} ${a b} ${1}").is_empty());
        assert_eq!(vec!["a"], listed("${ ${a}"));
    }

    #[test]
    fn a_value_that_could_become_syntax_is_refused() {
        for value in ["a\"b", "a\\b", "a\nb", "${a}"] {
            assert!(refuse("a", value).is_some(), "{value}");
        }
        assert!(refuse("1a", "").is_some());
        assert!(refuse("a-b", "").is_some());
        assert!(refuse("trust_domain", "prod.example").is_none());
    }
}
