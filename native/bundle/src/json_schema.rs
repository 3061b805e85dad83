//! Look-ups in JSON Schemas of operations.

/// `$ref`s followed on the way to an argument.
const MOST_REFS: usize = 16;

/// The schema that a local `$ref` points to, or the schema itself without `$ref`. `None`: the reference is not local, points
/// nowhere, or is too long a chain.
pub(crate) fn deref<'a>(
    root: &'a serde_json::Value,
    mut schema: &'a serde_json::Value,
) -> Option<&'a serde_json::Value> {
    for _ in 0..MOST_REFS {
        match schema.get("$ref").and_then(serde_json::Value::as_str) {
            Some(target) => schema = root.pointer(target.strip_prefix('#')?)?,
            None => return Some(schema),
        }
    }
    None
}

/// The names of the properties of an object schema.
pub(crate) fn properties(schema: &serde_json::Value) -> impl Iterator<Item = &str> + Clone {
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys()).map(String::as_str)
}

/// The names that an object schema requires.
pub(crate) fn required(schema: &serde_json::Value) -> impl Iterator<Item = &str> {
    let required = schema.get("required").and_then(serde_json::Value::as_array);
    required.into_iter().flatten().filter_map(serde_json::Value::as_str)
}

/// Types of JSON Schema.
const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "object", "array", "null"];

/// The first keyword of a schema, or of a schema below its properties, whose value has a form that JSON Schema does not know: its
/// pointer, and what is wrong. A schema with such a keyword would say less than its writer means.
pub(crate) fn misformed(schema: &serde_json::Value) -> Option<(String, String)> {
    let mut below = vec![(String::new(), schema)];
    while let Some((at, schema)) = below.pop() {
        let Some(object) = schema.as_object() else { continue };
        let is_type =
            |value: &serde_json::Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
        if let Some(said) = object.get("type") {
            let is_known = match said {
                serde_json::Value::Array(all) => all.iter().all(is_type),
                one => is_type(one),
            };
            if !is_known {
                let problem = format!("is {said}, which is none of {}", TYPES.join(", "));
                return Some((format!("{at}/type"), problem));
            }
        }
        if object.get("required").is_some_and(|said| !said.is_array()) {
            return Some((format!("{at}/required"), "is not a list of names".to_owned()));
        }
        match object.get("properties") {
            None => {}
            Some(serde_json::Value::Object(members)) => {
                let members = members.iter();
                below.extend(members.map(|(name, one)| (format!("{at}/properties/{name}"), one)));
            }
            Some(_) => {
                let problem = "is not a mapping from names to schemas".to_owned();
                return Some((format!("{at}/properties"), problem));
            }
        }
        below.extend(object.get("items").map(|items| (format!("{at}/items"), items)));
    }
    None
}
