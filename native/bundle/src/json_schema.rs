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
