//! What a schema says of the values that a record may repeat, so that it need not be looked for in the schema each time.

use serde_json::Value as Json;

/// What a schema declares of a value: the names of its members, and the texts of a closed set.
///
/// References are not followed: what stands behind one counts as undeclared.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeclaredMembers {
    /// By name, in order.
    members: Box<[(Box<str>, Self)]>,
    items: Option<Box<Self>>,
    texts: Box<[Box<str>]>,
}

impl DeclaredMembers {
    /// What a schema declares. Its nesting is bounded by that of the file in which it stands.
    pub(super) fn of(schema: &Json) -> Self {
        let properties = schema.get("properties").and_then(Json::as_object);
        let mut members: Vec<(Box<str>, Self)> = properties
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str().into(), Self::of(schema)))
            .collect();
        members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let several = schema.get("enum").and_then(Json::as_array);
        let texts = schema.get("const").into_iter().chain(several.into_iter().flatten());
        Self {
            members: members.into_boxed_slice(),
            items: schema.get("items").map(|items| Box::new(Self::of(items))),
            texts: texts.filter_map(Json::as_str).map(Into::into).collect(),
        }
    }

    /// Declaration of a member. `None`: the member is not declared.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Self> {
        let at = self.members.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.members.get(at).map(|(_, declared)| declared)
    }

    /// Declaration of the items of a list.
    #[must_use]
    pub fn items(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// Whether a text is one of a closed set, and so no free text.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        self.texts.iter().any(|known| **known == *text)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn members_and_closed_sets() {
        let declared = DeclaredMembers::of(&json!({
            "type": "object",
            "properties": {
                "z": { "enum": ["a", 1, "b"] },
                "a": { "const": "c", "enum": ["d"] },
                "list": { "items": { "properties": { "in": { "const": 7 } } } },
                "far": { "$ref": "#/properties/a" },
                "any": true,
            },
        }));
        let of = |name: &str| declared.member(name).unwrap();
        assert_eq!([true, false, true], ["a", "1", "b"].map(|text| of("z").holds(text)));
        assert_eq!([true, true, false], ["c", "d", "a"].map(|text| of("a").holds(text)));
        let inner = of("list").items().unwrap().member("in").unwrap();
        assert!(
            !inner.holds("7") && of("list").member("in").is_none() && of("a").items().is_none()
        );
        assert!(!of("far").holds("c") && of("any").member("a").is_none());
        assert!(declared.member("type").is_none() && !declared.holds("object"));
        assert_eq!(
            DeclaredMembers::default(),
            DeclaredMembers::of(&json!([{ "properties": { "a": {} } }]))
        );
    }
}
