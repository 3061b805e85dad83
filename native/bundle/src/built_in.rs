//! Operations that every MCP system has beside its tools.

/// Operation of every message that calls no tool, resource or prompt, after `<system>.`.
pub const OWN: &str = "mcp";
/// Operation of `resources/read`.
pub const READ: &str = "resources.read";
/// Operation of `prompts/get`.
pub const PROMPT: &str = "prompts.get";

/// Names of all of them.
const NAMES: [&str; 3] = [OWN, READ, PROMPT];

/// Whether every MCP system has an operation with this name beside its tools.
pub(crate) fn is_built_in(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The name of a tool's operation: the tool's own, with `_` for each character that the name of an operation cannot have.
///
/// Case is kept: `Read` and `read` are two tools. A first character that cannot stand first gets a `_` before it, and the name
/// of a built-in operation gets `tool.` before it.
pub(crate) fn operation_name(tool: &str) -> String {
    if is_built_in(tool) {
        return format!("tool.{tool}");
    }
    let spelled = |c: char| if c.is_ascii_alphanumeric() || "._-/".contains(c) { c } else { '_' };
    let name: String = tool.chars().map(spelled).collect();
    if name.starts_with(['.', '-', '/']) { format!("_{name}") } else { name }
}
