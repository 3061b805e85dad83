//! Catalogs of MCP servers: descriptions of tools, and the digests that pin them.
//!
//! Texts of a server are data: they give an operation no meaning. A tool's digest covers every text that tells an agent or a
//! reviewer about the tool, so a changed schema or description changes the digest.

use std::collections::BTreeMap;
use std::fmt;

use authz_base::digest::sha256;
use authz_base::hex::hex;
use authz_base::json;
use serde::{Deserialize, Serialize};

use crate::arguments::{tame, write_canonical};
use crate::built_in::operation_name;
use crate::diagnostic::clip;
use crate::ids::{refuse_operation, refuse_system};
use crate::model::{Model, Operation, ToolDigest};

/// The tools of one MCP server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Id of the system.
    pub system: String,
    /// Name and version of the server, in its own words.
    pub server: Implementation,
    /// `https://host[:port]` of the server, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Its tools, in its own order.
    pub tools: Vec<ToolDescription>,
}

/// A server's name and version, in its own words (MCP `Implementation`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Implementation {
    /// Its name.
    pub name: String,
    /// Its version; may be empty.
    #[serde(default)]
    pub version: String,
}

/// One tool, as the answer to `tools/list` describes it (MCP `Tool`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolDescription {
    /// Its name.
    pub name: String,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Description, in the server's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Hints such as `readOnlyHint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<serde_json::Value>,
    /// JSON Schema of its arguments.
    pub input: serde_json::Value,
    /// JSON Schema of its structured result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<serde_json::Value>,
}

impl ToolDescription {
    /// SHA-256 over the canonical JSON (RFC 8785) of name, title, description, annotations and both schemas.
    #[must_use]
    pub fn digest(&self) -> ToolDigest {
        digest(&self.to_json())
    }

    fn to_json(&self) -> serde_json::Value {
        let mut map = serde_json::Map::new();
        map.insert("name".to_owned(), self.name.clone().into());
        for (key, text) in [("title", &self.title), ("description", &self.description)] {
            if let Some(text) = text {
                map.insert(key.to_owned(), text.clone().into());
            }
        }
        map.insert("inputSchema".to_owned(), self.input.clone());
        for (key, value) in [("outputSchema", &self.output), ("annotations", &self.annotations)] {
            if let Some(value) = value {
                map.insert(key.to_owned(), value.clone());
            }
        }
        map.into()
    }
}

/// A tool that no operation can be named after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolNameError {
    /// Position of the tool.
    pub position: usize,
    /// The defect.
    pub what: String,
}

impl fmt::Display for ToolNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ToolNameError {}

/// A list of tools that cannot become a catalog file.
#[derive(Debug)]
pub enum CatalogError {
    /// The document is not JSON in the form of a [`Server`].
    Json(serde_json::Error),
    /// The id of the system is not valid.
    System {
        /// The id, cut to a length that can be shown.
        id: String,
        /// The defect.
        why: &'static str,
    },
    /// No operation can be named after a tool.
    Tool(ToolNameError),
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => error.fmt(f),
            Self::System { id, why } => write!(f, "bad system `{id}`: {why}"),
            Self::Tool(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CatalogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Json(error) => Some(error),
            Self::System { .. } => None,
            Self::Tool(error) => Some(error),
        }
    }
}

impl Server {
    /// SHA-256 over the canonical JSON (RFC 8785) of system, server, origin and all tools in their order.
    #[must_use]
    pub fn digest(&self) -> ToolDigest {
        let tools: Vec<serde_json::Value> =
            self.tools.iter().map(ToolDescription::to_json).collect();
        digest(&serde_json::json!({
            "system": self.system,
            "server": {"name": self.server.name, "version": self.server.version},
            "origin": self.origin,
            "tools": tools,
        }))
    }

    /// The operation of each tool, in the order of the tools.
    ///
    /// # Errors
    /// A tool that no operation can be named after.
    pub fn operations(&self) -> Result<Vec<String>, ToolNameError> {
        let mut by_id: BTreeMap<String, &str> = BTreeMap::new();
        let mut ids = Vec::with_capacity(self.tools.len());
        for (position, tool) in self.tools.iter().enumerate() {
            let id = format!("{}.{}", self.system, operation_name(&tool.name));
            if let Some(why) = refuse_operation(&id) {
                let what = format!("bad tool `{}`: {why}", clip(&tool.name));
                return Err(ToolNameError { position, what });
            }
            match by_id.insert(id.clone(), &tool.name) {
                None => ids.push(id),
                Some(first) if first == tool.name => {
                    let what = format!("tool `{}` is listed twice", clip(first));
                    return Err(ToolNameError { position, what });
                }
                Some(first) => {
                    let what = format!(
                        "tools `{}` and `{}` would both be `{id}`",
                        clip(first),
                        clip(&tool.name)
                    );
                    return Err(ToolNameError { position, what });
                }
            }
        }
        Ok(ids)
    }
}

/// Reads a server's tools as JSON, and returns the digests and operations of its catalog file as JSON:
/// `{digest, tools: [{name, operation, digest, opened: […]}]}`.
///
/// # Errors
/// The JSON is not a [`Server`], the id of its system is not valid, or two of its tools would be one operation.
pub fn seal(document: &[u8]) -> Result<String, CatalogError> {
    let server: Server = serde_json::from_slice(document).map_err(CatalogError::Json)?;
    if let Some(why) = refuse_system(&server.system) {
        return Err(CatalogError::System { id: clip(&server.system).to_owned(), why });
    }
    let ids = server.operations().map_err(CatalogError::Tool)?;
    let tool = |(tool, id): (&ToolDescription, String)| {
        serde_json::json!({
            "name": tool.name,
            "operation": id,
            "digest": digest_text(&tool.digest()),
            "opened": tame(&tool.input).1,
        })
    };
    let tools: Vec<serde_json::Value> = server.tools.iter().zip(ids).map(tool).collect();
    let sealed = serde_json::json!({"digest": digest_text(&server.digest()), "tools": tools});
    Ok(sealed.to_string())
}

/// The state of every tool of every MCP system, as JSON:
/// `[{system, tool, operation, digest, accepted, reviewed, drifted, effects, tier, cases: {value: operation}, file, line}]`;
/// `effects` is empty if no `classify` rule that counts covers the tool.
#[must_use]
pub fn state(model: &Model) -> String {
    let words = |operation: &Operation| -> Vec<&str> {
        operation.effects.iter().map(|effect| effect.as_str()).collect()
    };
    let mut listed = Vec::new();
    for (system, tools) in &model.tools {
        for (name, tool) in tools {
            let split = model.splits.get(&tool.operation);
            let Some(operation) = model.operation(&tool.operation) else { continue };
            listed.push(serde_json::json!({
                "system": system,
                "tool": name,
                "operation": tool.operation,
                "digest": digest_text(&tool.digest),
                "accepted": tool.accepted.as_ref().map(digest_text),
                "reviewed": operation.reviewed,
                "drifted": operation.drifted,
                "effects": words(operation),
                "tier": operation.tier.as_str(),
                "cases": split.map(|split| &split.cases),
                "file": operation.at.file,
                "line": operation.at.line,
            }));
        }
    }
    serde_json::Value::from(listed).to_string()
}

/// `sha256:` and 64 hex digits.
#[must_use]
pub fn digest_text(digest: &ToolDigest) -> String {
    format!("sha256:{}", hex(digest))
}

/// The digest of a text `sha256:` and 64 lower-case hex digits. `None`: the text has another form.
#[must_use]
pub fn parse_digest(text: &str) -> Option<ToolDigest> {
    let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64)?;
    let mut digest = [0; 32];
    let mut digits = hex.bytes().map(|b| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    });
    for byte in &mut digest {
        *byte = (digits.next()?? << 4) | digits.next()??;
    }
    Some(digest)
}

fn digest(value: &serde_json::Value) -> ToolDigest {
    let mut text = String::new();
    write_canonical(&plain(value), &mut text);
    sha256(text.as_bytes())
}

// Recursion is bounded by the readers of YAML and JSON.
fn plain(value: &serde_json::Value) -> json::Value {
    match value {
        serde_json::Value::Null => json::Value::Null,
        serde_json::Value::Bool(value) => json::Value::Bool(*value),
        serde_json::Value::Number(number) => {
            // RFC 8785 §3.2.2.3: every number is a double.
            let double = number.as_f64().unwrap_or_default();
            json::Value::Decimal(format!("{double:e}"))
        }
        serde_json::Value::String(text) => json::Value::String(text.clone()),
        serde_json::Value::Array(items) => json::Value::Array(items.iter().map(plain).collect()),
        serde_json::Value::Object(map) => {
            json::Value::Object(map.iter().map(|(n, v)| (n.clone(), plain(v))).collect())
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::string_slice, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(name: &str) -> ToolDescription {
        ToolDescription {
            name: name.to_owned(),
            title: None,
            description: None,
            annotations: None,
            input: json!({"type": "object"}),
            output: None,
        }
    }

    fn server(names: &[&str]) -> Server {
        let server = Implementation { name: "s".to_owned(), version: String::new() };
        let tools = names.iter().map(|name| tool(name)).collect();
        Server { system: "wiki".to_owned(), server, origin: None, tools }
    }

    #[test]
    fn the_canonical_form_is_that_of_rfc_8785() {
        let value = json!({
            "numbers": [333_333_333.333_333_3, 1e30, 4.50, 2e-3, 1e-27, 1.0, 18_446_744_073_709_551_615_u64, -0.0],
            "string": "\u{20ac}$\u{f}\nA'B\"\\\\\"/",
            "literals": [null, true, false],
            "\u{1f602}": 1, "\u{fb33}": 2,
        });
        let mut text = String::new();
        write_canonical(&plain(&value), &mut text);
        let expected = concat!(
            r#"{"literals":[null,true,false],"#,
            r#""numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27,1,18446744073709552000,0],"#,
            "\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\",\"\u{1f602}\":1,\"\u{fb33}\":2}",
        );
        assert_eq!(expected, text);
    }

    #[test]
    fn every_word_of_a_tool_is_in_its_digest() {
        let one = tool("read");
        let mut seen = std::collections::BTreeSet::from([one.digest()]);
        for other in [
            ToolDescription { name: "Read".to_owned(), ..one.clone() },
            ToolDescription { title: Some(String::new()), ..one.clone() },
            ToolDescription { description: Some(String::new()), ..one.clone() },
            ToolDescription { annotations: Some(json!({})), ..one.clone() },
            ToolDescription { output: Some(json!({})), ..one.clone() },
            ToolDescription { input: json!({"type": "object", "properties": {}}), ..one.clone() },
        ] {
            assert!(seen.insert(other.digest()), "{other:?}");
        }
        let text = digest_text(&one.digest());
        assert_eq!(Some(one.digest()), parse_digest(&text));
        for bad in ["", "sha256:", &text[..70], &format!("{text}0"), &text.to_uppercase()] {
            assert_eq!(None, parse_digest(bad), "{bad}");
        }
    }

    #[test]
    fn names_are_spelled_and_collisions_refused() {
        let named = server(&["a-b/c.d_e", "A-b", "a b", "é", "-x", "", "mcp", "resources.read"]);
        let error = named.operations().unwrap_err();
        assert_eq!(5, error.position);
        let named = server(&["a-b/c.d_e", "A-b", "a b", "é", "-x", "mcp", "resources.read"]);
        let expected = [
            "wiki.a-b/c.d_e",
            "wiki.A-b",
            "wiki.a_b",
            "wiki._",
            "wiki._-x",
            "wiki.tool.mcp",
            "wiki.tool.resources.read",
        ];
        assert_eq!(expected.as_slice(), named.operations().unwrap());
        let refused = |names: &[&str]| {
            let error = server(names).operations().unwrap_err();
            (error.position, error.to_string())
        };
        let twice = (1, "tools `a b` and `a_b` would both be `wiki.a_b`".to_owned());
        assert_eq!(twice, refused(&["a b", "a_b"]));
        assert_eq!((1, "tool `a` is listed twice".to_owned()), refused(&["a", "a"]));
    }
}
