//! Catalogs of MCP servers: `catalog/<system>.mcp.yaml`, generated from `tools/list` and pinned by digest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::build::ModelBuilder;
use super::types::{ClassifyRule, SystemEntry};
use super::yaml::{At, Entries};
use crate::arguments::tame;
use crate::built_in;
use crate::catalog::{Implementation, Server, ToolDescription, ToolNameError, parse_digest};
use crate::diagnostic::{clip, unknown};
use crate::ids;
use crate::mcp::{RESPONSES, parameter_headers};
use crate::model::{
    self, Effect, LabelKind, Location, Operation, OriginRules, Reports, RouteTarget, System,
    SystemKind, Tier, ToolDigest,
};

/// What the name of such a file ends with.
const ENDING: &str = ".mcp.yaml";

/// `catalog/<system>.mcp.yaml`: the tools of an MCP server. Generated; an edited file is refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct McpFile {
    /// The system; the file is called after it.
    pub(crate) system: At<String>,
    /// What the server calls itself.
    pub(crate) server: Implementation,
    /// `https://host[:port]` where it is served.
    pub(crate) origin: Option<At<String>>,
    /// `sha256:…` over all that the file says, in canonical JSON.
    pub(crate) digest: At<String>,
    /// Its tools.
    pub(crate) tools: Vec<McpTool>,
}

/// One tool, in the server's own words.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct McpTool {
    /// Its name.
    pub(crate) name: At<String>,
    /// `sha256:…` over the tool, in canonical JSON: what `accepted` pins.
    pub(crate) digest: At<String>,
    /// Its name for people.
    pub(crate) title: Option<String>,
    /// Description of the tool.
    pub(crate) description: Option<String>,
    /// Hints.
    pub(crate) annotations: Option<serde_json::Value>,
    /// JSON Schema of its arguments.
    pub(crate) input: serde_json::Value,
    /// JSON Schema of its structured result.
    pub(crate) output: Option<serde_json::Value>,
}

/// Whether a path is that of a catalog of an MCP server.
pub(super) fn is_catalog(path: &str) -> bool {
    path.strip_prefix("catalog/").is_some_and(|name| name.ends_with(ENDING))
}

/// Digests that were accepted, by id of the tool's operation.
pub(super) type Pins = BTreeMap<String, (ToolDigest, Location)>;

impl ModelBuilder<'_> {
    /// Takes over a catalog file.
    pub(super) fn mcp(&mut self, file: &str, said: McpFile) {
        let Some(at) = self.declare(file, "system", &said.system, ids::refuse_system) else {
            return;
        };
        let system = said.system.value;
        if file != format!("catalog/{system}{ENDING}") {
            let what = format!(
                "the file speaks of `{}`, not of the system it is called after",
                clip(&system)
            );
            let fix = format!("Call it catalog/{system}{ENDING}.");
            self.found.error(&at, what, fix);
        }
        let origin = said.origin.as_ref().map_or("", |origin| &origin.value);
        if let Some(origin) = &said.origin {
            self.origin(file, origin);
        }
        let places: Vec<(Location, At<String>)> =
            said.tools.iter().map(|t| (t.name.at.within(file), t.digest.clone())).collect();
        let tool = |tool: McpTool| ToolDescription {
            name: tool.name.value,
            title: tool.title,
            description: tool.description,
            annotations: tool.annotations,
            input: tool.input,
            output: tool.output,
        };
        let server = Server {
            system: system.clone(),
            server: said.server,
            origin: said.origin.as_ref().map(|origin| origin.value.clone()),
            tools: said.tools.into_iter().map(tool).collect(),
        };
        self.model.systems.insert(
            system.clone(),
            System {
                kind: SystemKind::Mcp,
                origin: origin.to_owned(),
                headers: Vec::new(),
                reports: Reports::Never,
                at: at.clone(),
            },
        );
        let ids = match server.operations() {
            Ok(ids) => ids,
            Err(ToolNameError { position, what }) => {
                let at = places.get(position).map_or(&at, |(at, _)| at);
                let fix = "The server has to rename it: which of its tools is meant must be plain.";
                return self.found.error(at, what, fix);
            }
        };
        if parse_digest(&said.digest.value) != Some(server.digest()) {
            self.edited(&said.digest.at.within(file), &system);
        }
        let mut tools = BTreeMap::new();
        for ((tool, id), (at, digest)) in server.tools.into_iter().zip(ids).zip(places) {
            let found = tool.digest();
            if parse_digest(&digest.value) != Some(found) {
                self.edited(&digest.at.within(file), &system);
            }
            let full =
                At { value: id.clone(), at: super::Mark { line: at.line, column: at.column } };
            if self.declare(file, "operation", &full, ids::refuse_operation).is_none() {
                continue;
            }
            let (input, opened) = tame(&tool.input);
            for what in opened {
                self.found.warning(&at, format!("`{id}`: {what}"), "");
            }
            let name = id.split_once('.').map_or("", |(_, name)| name).to_owned();
            self.model.operations.push(Operation {
                id: id.clone(),
                system: system.clone(),
                name,
                effects: BTreeSet::new(),
                tier: Tier::Critical,
                reviewed: false,
                drifted: false,
                yields: Default::default(),
                resource: None,
                destination: None,
                origins: OriginRules::default(),
                input: Arc::new(input),
                abortable: false,
                at: at.clone(),
            });
            let headers = parameter_headers(&tool.input);
            let kept = model::Tool { operation: id, digest: found, accepted: None, headers };
            tools.insert(tool.name, kept);
        }
        self.built_in(&system, &at);
        self.model.tools.insert(system, tools);
    }

    /// The operations that every MCP server has. What it does with the protocol itself is known; what its resources and
    /// prompts are, a rule has to say.
    fn built_in(&mut self, system: &str, at: &Location) {
        let text = json!({"type": "string"});
        let texts = json!({"type": "object", "additionalProperties": text});
        for (name, properties, required) in [
            (
                built_in::OWN,
                json!({"method": text, "level": text, "uri": text, "params": {}}),
                json!([]),
            ),
            (built_in::READ, json!({"uri": text}), json!(["uri"])),
            (built_in::PROMPT, json!({"name": text, "arguments": texts}), json!(["name"])),
        ] {
            let is_own = name == built_in::OWN;
            self.model.operations.push(Operation {
                id: format!("{system}.{name}"),
                system: system.to_owned(),
                name: name.to_owned(),
                effects: if is_own { BTreeSet::from([Effect::Read]) } else { BTreeSet::new() },
                tier: if is_own { Tier::Low } else { Tier::Critical },
                reviewed: is_own,
                drifted: false,
                yields: Default::default(),
                resource: None,
                destination: None,
                origins: OriginRules::default(),
                input: Arc::new(
                    json!({"type": "object", "properties": properties, "required": required}),
                ),
                abortable: false,
                at: at.clone(),
            });
        }
    }

    /// Gives the messages of the protocol itself their labels and their destination. Which of them bring data and which send
    /// some is known; whose it is, the bundle says.
    pub(super) fn protocol(&mut self, operation: &mut Operation, file: &str, rule: &ClassifyRule) {
        let at = rule.r#match.at.within(file);
        let is_more = rule.effects.is_some()
            || rule.tier.is_some()
            || rule.resource.is_some()
            || rule.split.is_some()
            || rule.input_responses.is_some()
            || rule.has_origins()
            || rule.abortable;
        let is_nothing = rule.yields.is_none() && rule.destination.is_none();
        if is_more || is_nothing {
            let what = format!("`{}` reads at tier low, as the protocol says", operation.id);
            let fix = "Say its `yields` and its `destination`, and nothing else of it.";
            return self.found.error(&at, what, fix);
        }
        if let Some(yields) = &rule.yields {
            operation.yields = self.yields(file, yields);
        }
        if let Some(destination) = &rule.destination {
            operation.destination = self.destination(file, operation, destination);
        }
    }

    /// Adds to the arguments of an operation the client's answers to requests that the server makes during a call.
    ///
    /// Args: `said`: JSON Schema of each answer, by its key in `inputResponses`.
    pub(super) fn input_responses(
        &mut self,
        operation: &mut Operation,
        file: &str,
        said: &At<serde_json::Value>,
    ) {
        let at = said.at.within(file);
        let kind = self.model.systems.get(&operation.system).map(|system| system.kind);
        if kind != Some(SystemKind::Mcp) {
            let what = format!("`{}` is no operation of an MCP server", operation.id);
            return self.found.error(&at, what, "Remove `input_responses`.");
        }
        if !said.value.is_object() {
            let what = "`input_responses` is no map of JSON Schemas";
            let fix =
                "Write `{key: {type: object, properties: {…}}}`, or `{}` for `requestState` alone.";
            return self.found.error(&at, what, fix);
        }
        let (answers, opened) = tame(&json!({"type": "object", "properties": said.value}));
        for what in opened {
            self.found.warning(&at, format!("`input_responses`: {what}"), "");
        }
        let mut input = operation.input.as_ref().clone();
        let properties = input
            .as_object_mut()
            .map(|input| input.entry("properties").or_insert_with(|| json!({})))
            .and_then(serde_json::Value::as_object_mut);
        let Some(properties) = properties else { return };
        if let Some(name) = RESPONSES.iter().find(|name| properties.contains_key(**name)) {
            let what = format!("`{}` has an argument `{name}` of its own", operation.id);
            return self.found.error(&at, what, "The server has to rename it.");
        }
        let schemas = [answers, json!({"type": "string"})];
        properties.extend(RESPONSES.iter().map(|name| (*name).to_owned()).zip(schemas));
        operation.input = Arc::new(input);
        self.model.input_responses.insert(operation.id.clone());
    }

    /// The target of a route to the endpoint of a system. `None`: the bundle has no such MCP system, which is reported.
    pub(super) fn endpoint(&mut self, system: &At<String>, file: &str) -> Option<RouteTarget> {
        if self.is_protocol_forgotten(&system.value) {
            let id = clip(&system.value);
            let what = format!(
                "tools of `{id}` yield a trust label or send data out, and messages of the protocol do neither"
            );
            let fix =
                format!("Classify `{id}.{}`: its `yields` and its `destination`.", built_in::OWN);
            self.found.warning(&system.at.within(file), what, fix);
        }
        if self.model.tools.contains_key(&system.value) {
            return Some(RouteTarget::McpEndpoint { system: system.value.clone() });
        }
        let declared = self.model.systems.iter().filter(|(_, s)| s.kind == SystemKind::Mcp);
        let (what, fix) = unknown(
            "MCP system",
            &system.value,
            declared.map(|(name, system)| (name.as_str(), Some(&system.at))),
        );
        self.found.error(&system.at.within(file), what, fix);
        None
    }

    fn edited(&mut self, at: &Location, system: &str) {
        let fix = format!("The file is generated: run `authz catalog import-mcp {system}` again.");
        self.found.error(at, "the digest is not that of what the file says", fix);
    }

    /// An entry under `catalog` for a system of which there is a catalog file: it may say where the server is, and which headers it takes.
    pub(super) fn mcp_entry(&mut self, file: &str, id: &At<String>, entry: &SystemEntry) {
        let Some(at) = self.declare(file, "MCP system", id, ids::refuse_system) else { return };
        if let Some((name, _)) = entry.operations.0.first() {
            let what = "the operations of an MCP server stand in its catalog file";
            self.found.error(&name.at.within(file), what, "Remove `operations`.");
        }
        if let Some(origin) = &entry.origin {
            self.origin(file, origin);
        }
        let reports = Self::reports(entry.reports.as_ref());
        let headers = self.headers(file, &entry.headers);
        match self.model.systems.get_mut(&id.value) {
            Some(system) if system.kind == SystemKind::Mcp => {
                if let Some(origin) = &entry.origin {
                    origin.value.clone_into(&mut system.origin);
                }
                system.headers = headers;
                system.reports = reports;
            }
            _ => {
                let what = format!("there is no catalog/{}{ENDING}", clip(&id.value));
                let fix = format!("Run `authz catalog import-mcp {}`.", clip(&id.value));
                self.found.error(&at, what, fix);
            }
        }
    }

    /// Reads the digests that a file accepts.
    pub(super) fn accepted(&mut self, file: &str, said: &Entries<At<String>>, pins: &mut Pins) {
        for (id, digest) in &said.0 {
            let Some(at) = self.declare(file, "accepted tool", id, ids::refuse_operation) else {
                continue;
            };
            match parse_digest(&digest.value) {
                Some(digest) => drop(pins.insert(id.value.clone(), (digest, at))),
                None => {
                    let what = format!("`{}` is no digest", clip(&digest.value));
                    let fix = "Run `authz catalog accept`, which writes it.";
                    self.found.error(&digest.at.within(file), what, fix);
                }
            }
        }
    }

    /// Holds the tools to the digests that were accepted.
    pub(super) fn pin(&mut self, mut pins: Pins) {
        for tool in self.model.tools.values_mut().flat_map(BTreeMap::values_mut) {
            tool.accepted = pins.remove(&tool.operation).map(|(digest, _)| digest);
            match tool.accepted {
                None => drop(self.unaccepted.insert(tool.operation.clone())),
                Some(digest) if digest != tool.digest => {
                    self.drifted.insert(tool.operation.clone());
                }
                Some(_) => {}
            }
        }
        for (id, (_, at)) in pins {
            let what = format!("`{}` is accepted, but no MCP server has it", clip(&id));
            self.found.warning(&at, what, "Remove it.");
        }
    }

    /// Whether nobody said what messages of the protocol bring in and where they send, though tools of the system do either.
    fn is_protocol_forgotten(&self, system: &str) -> bool {
        let is_trust = |label: &String| {
            self.model.labels.get(label).is_some_and(|label| label.value == LabelKind::Trust)
        };
        let moves = |operation: &&model::Operation| {
            operation.destination.is_some() || operation.yields.1.iter().any(is_trust)
        };
        let of_system = || self.model.operations.iter().filter(|one| one.system == system);
        of_system().any(|one| moves(&one))
            && !of_system()
                .filter(|one| one.name == built_in::OWN)
                .any(|own| own.destination.is_some() || !own.yields.1.is_empty())
    }

    /// Says of each system how many of its operations are refused until somebody looks at them.
    pub(super) fn worklist(&mut self) {
        for (id, system) in &self.model.systems {
            // Those that it has anyway wait for a rule only where somebody wants them.
            let tools = |o: &&Operation| o.system == *id && !self.model.is_built_in(o);
            let of_system = self.model.operations.iter().filter(tools);
            let all = of_system.clone().count();
            let unreviewed = of_system.clone().filter(|o| !o.reviewed).count();
            let drifted = of_system.filter(|o| o.reviewed && o.drifted).count();
            if system.kind != SystemKind::Mcp || unreviewed + drifted == 0 {
                continue;
            }
            let mut counts = Vec::new();
            for (count, word) in [(unreviewed, "not reviewed"), (drifted, "changed since review")] {
                if count > 0 {
                    counts.push(format!("{count} {word}"));
                }
            }
            let what =
                format!("`{id}`: {} of {all} operations, refused until then", counts.join(", "));
            let fix = format!("Run `authz catalog review {id}`.");
            self.found.warning(&system.at, what, fix);
        }
    }
}
