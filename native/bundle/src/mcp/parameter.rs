//! Headers that repeat an argument of a tool, as its schema declares them with `x-mcp-header`.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::headers::PARAMETER;
use crate::model::ParameterHeader;

const DECLARES: &str = "x-mcp-header";
/// Types whose values a header can repeat.
const TYPES: [&str; 3] = ["boolean", "integer", "string"];
/// Keywords whose value is a schema, a list of schemas, or holds schemas by name.
const SINGLE: [&str; 11] = [
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const NAMED: [&str; 4] = ["$defs", "definitions", "dependentSchemas", "patternProperties"];

/// The headers that the input schema of a tool declares. Empty if one declaration is not valid, because clients then leave the
/// tool out.
pub(crate) fn parameter_headers(schema: &Json) -> Vec<ParameterHeader> {
    let mut declared = Vec::new();
    let mut names = BTreeSet::new();
    let mut open: Vec<(Option<Vec<String>>, &Json)> = vec![(Some(Vec::new()), schema)];
    while let Some((path, schema)) = open.pop() {
        let Json::Object(members) = schema else { continue };
        if let Some(token) = members.get(DECLARES) {
            let path = path.clone().filter(|path| !path.is_empty());
            let kind = members.get("type").and_then(Json::as_str);
            let token = token.as_str().filter(|token| is_token(token));
            let (Some(path), Some(token), true) =
                (path, token, kind.is_some_and(|kind| TYPES.contains(&kind)))
            else {
                return Vec::new();
            };
            let name = format!("{PARAMETER}{}", token.to_ascii_lowercase());
            if !names.insert(name.replace('_', "-")) {
                return Vec::new();
            }
            declared.push(ParameterHeader { name, path });
        }
        for (word, value) in members {
            match (word.as_str(), value) {
                ("properties", Json::Object(named)) => {
                    open.extend(named.iter().map(|(name, schema)| {
                        let path = path.as_ref().map(|path| {
                            path.iter().chain([name]).cloned().collect::<Vec<String>>()
                        });
                        (path, schema)
                    }));
                }
                (word, value) if SINGLE.contains(&word) => open.push((None, value)),
                (word, Json::Array(items)) if LIST.contains(&word) => {
                    open.extend(items.iter().map(|item| (None, item)));
                }
                (word, Json::Object(named)) if NAMED.contains(&word) => {
                    open.extend(named.values().map(|schema| (None, schema)));
                }
                _ => {}
            }
        }
    }
    declared.sort();
    declared
}

/// Whether a text can stand in the name of a header (RFC 9110 §5.6.2).
fn is_token(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_plain)
}
