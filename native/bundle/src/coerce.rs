//! Arguments in the form in which their server takes them.
//!
//! INVARIANT (judged = received): only the forms that a rule declares are taken for another value. Any other value stays as it is,
//! and the schema then refuses it.

use std::sync::Arc;

use authz_base::json::{Value, is_number, pointer_tokens};

use crate::canonical::canonical;
use crate::model::{Coercion, CoercionRule, DestinationKind};

/// Largest integer that every reader takes for the same number (RFC 7493 §2.2).
const EXACT: i64 = 1 << 53;

/// The arguments in the form of the rules; the same value where no rule changes it.
#[must_use]
pub fn coerced(sent: &Arc<Value>, rules: &[CoercionRule]) -> Arc<Value> {
    let mut arguments = Arc::clone(sent);
    for rule in rules {
        let Some(tokens) = pointer_tokens(&rule.from) else { continue };
        // Copied once, by the first rule that changes something.
        if is_changed(&arguments, &tokens, rule.to) {
            change(Arc::make_mut(&mut arguments), &tokens, rule.to);
        }
    }
    arguments
}

/// Whether a rule changes a value below this one. `*` stands for each element of a list.
fn is_changed(value: &Value, tokens: &[String], to: Coercion) -> bool {
    let Some((token, below)) = tokens.split_first() else { return other_form(value, to).is_some() };
    match value {
        Value::Object(members) => {
            members.iter().any(|(name, member)| name == token && is_changed(member, below, to))
        }
        Value::Array(items) if token == "*" => items.iter().any(|item| is_changed(item, below, to)),
        _ => false,
    }
}

fn change(value: &mut Value, tokens: &[String], to: Coercion) {
    let Some((token, below)) = tokens.split_first() else {
        if let Some(other) = other_form(value, to) {
            *value = other;
        }
        return;
    };
    match value {
        Value::Object(members) => {
            for (_, member) in members.iter_mut().filter(|(name, _)| name == token) {
                change(member, below, to);
            }
        }
        Value::Array(items) if token == "*" => {
            items.iter_mut().for_each(|item| change(item, below, to));
        }
        _ => {}
    }
}

/// The value that a server takes for this one, or for an item of this list. `None`: this one.
fn other_form(value: &Value, to: Coercion) -> Option<Value> {
    match value {
        Value::String(text) => of_text(text, to),
        Value::Array(items) => {
            let others: Vec<Option<Value>> = items
                .iter()
                .map(|item| match item {
                    Value::String(text) => of_text(text, to),
                    _ => None,
                })
                .collect();
            let is_any = others.iter().any(Option::is_some);
            let both = items.iter().zip(others);
            is_any.then(|| {
                Value::Array(
                    both.map(|(item, other)| other.unwrap_or_else(|| item.clone())).collect(),
                )
            })
        }
        _ => None,
    }
}

fn of_text(text: &str, to: Coercion) -> Option<Value> {
    match to {
        Coercion::Integer => integer(text),
        Coercion::Number => integer(text).or_else(|| decimal(text)),
        Coercion::Boolean => match text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        Coercion::Url => url(text),
        Coercion::Folder => match text.strip_suffix('/') {
            None | Some("") => None,
            Some(folder) if folder.ends_with('/') => None,
            Some(folder) => Some(Value::String(folder.to_owned())),
        },
    }
}

/// The integer of digits without signs, blanks or zeros that readers take in different ways.
fn integer(text: &str) -> Option<Value> {
    let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text)?;
    (-EXACT..=EXACT).contains(&number).then_some(Value::Integer(number))
}

/// The number of a text in JSON's form, without an exponent. Whole numbers beyond ±2⁵³ stay texts.
fn decimal(text: &str) -> Option<Value> {
    let is_plain =
        text.len() <= 32 && text.contains('.') && !text.contains(['e', 'E']) && is_number(text);
    is_plain.then(|| Value::Decimal(text.to_owned()))
}

fn url(text: &str) -> Option<Value> {
    // A path, a relative reference and another scheme are not hosts.
    if text.contains("://") || text.starts_with(['/', '.', '?', '#']) {
        return None;
    }
    let has_path = text.contains(['/', '?', '#']);
    let url = format!("https://{text}{}", if has_path { "" } else { "/" });
    canonical(DestinationKind::UrlHost, &url).ok()?;
    Some(Value::String(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn only_declared_forms_are_taken_for_another_value() {
        let url = |url: &str| Some(text(url));
        for (to, written, wanted) in [
            (Coercion::Integer, "200", Some(Value::Integer(200))),
            (Coercion::Integer, "-1", Some(Value::Integer(-1))),
            (Coercion::Integer, "9007199254740992", Some(Value::Integer(EXACT))),
            (Coercion::Integer, "9007199254740993", None),
            (Coercion::Integer, "0200", None),
            (Coercion::Integer, "+200", None),
            (Coercion::Integer, " 200", None),
            (Coercion::Integer, "200.0", None),
            (Coercion::Integer, "2e2", None),
            (Coercion::Integer, "-0", None),
            (Coercion::Integer, "\u{662}", None),
            (Coercion::Integer, "", None),
            (Coercion::Number, "200", Some(Value::Integer(200))),
            (Coercion::Number, "2.50", Some(Value::Decimal("2.50".to_owned()))),
            (Coercion::Number, "02.5", None),
            (Coercion::Number, "2.5e1", None),
            (Coercion::Number, "NaN", None),
            (Coercion::Boolean, "true", Some(Value::Bool(true))),
            (Coercion::Boolean, "false", Some(Value::Bool(false))),
            (Coercion::Boolean, "True", None),
            (Coercion::Boolean, "1", None),
            (Coercion::Url, "a.example", url("https://a.example/")),
            (Coercion::Url, "a.example/x?y", url("https://a.example/x?y")),
            (Coercion::Url, "a.example:8443", url("https://a.example:8443/")),
            (Coercion::Url, "http://a.example", None),
            (Coercion::Url, "javascript:alert(1)", None),
            (Coercion::Url, "//a.example", None),
            (Coercion::Url, "/x", None),
            (Coercion::Url, "a@b.example", None),
            (Coercion::Url, "two words", None),
            (Coercion::Folder, "docs/", Some(text("docs"))),
            (Coercion::Folder, "/docs/", Some(text("/docs"))),
            (Coercion::Folder, "docs", None),
            (Coercion::Folder, "docs//", None),
            (Coercion::Folder, "//", None),
            // The root has no other name.
            (Coercion::Folder, "/", None),
        ] {
            assert_eq!(wanted, of_text(written, to), "{to:?} {written:?}");
        }
    }

    #[test]
    fn arguments_are_copied_only_where_a_rule_changes_one() {
        let rule = |from: &str, to| CoercionRule { from: from.to_owned(), to };
        let rules = [
            rule("/a", Coercion::Integer),
            rule("/b/c", Coercion::Boolean),
            rule("/d", Coercion::Integer),
        ];
        let of = |a: Value, c: Value, d: Vec<Value>| {
            let below = Value::Object(vec![("c".to_owned(), c)]);
            let members = [("a", a), ("b", below), ("d", Value::Array(d))];
            Arc::new(Value::Object(members.map(|(name, value)| (name.to_owned(), value)).into()))
        };
        let plain = of(Value::Integer(1), Value::Bool(true), vec![Value::Integer(2), Value::Null]);
        assert!(Arc::ptr_eq(&plain, &coerced(&plain, &rules)));
        let sent = of(text("1"), text("true"), vec![text("2"), Value::Null]);
        assert_eq!(plain, coerced(&sent, &rules));
        assert_eq!(of(text("1"), text("true"), vec![text("2"), Value::Null]), sent);
        let odd = of(text("x"), text("yes"), vec![text("3"), text("y")]);
        assert_eq!(
            of(text("x"), text("yes"), vec![Value::Integer(3), text("y")]),
            coerced(&odd, &rules)
        );
        let none = Arc::new(Value::Array(vec![text("1")]));
        assert!(Arc::ptr_eq(&none, &coerced(&none, &rules)));
    }

    #[test]
    fn members_of_the_elements_of_a_list_are_coerced() {
        let rules = [CoercionRule { from: "/lines/*/n".to_owned(), to: Coercion::Integer }];
        let of = |numbers: Vec<Value>| {
            let line = |number| Value::Object(vec![("n".to_owned(), number)]);
            let lines = Value::Array(numbers.into_iter().map(line).collect());
            Arc::new(Value::Object(vec![("lines".to_owned(), lines)]))
        };
        let plain = of(vec![Value::Integer(1), Value::Null]);
        assert!(Arc::ptr_eq(&plain, &coerced(&plain, &rules)));
        let sent = of(vec![text("1"), Value::Integer(2), text("x")]);
        let wanted = of(vec![Value::Integer(1), Value::Integer(2), text("x")]);
        assert_eq!(wanted, coerced(&sent, &rules));
        // A member with the name `*` counts as a member; a list in its place does not.
        let odd = Arc::new(Value::Object(vec![("lines".to_owned(), text("1"))]));
        assert!(Arc::ptr_eq(&odd, &coerced(&odd, &rules)));
    }
}
