//! Compiles the routes of a bundle into a table, and refuses routes that could not work or that overlap.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use authz_base::json::pointer_tokens;
use smol_str::SmolStr;

use super::body::{self, folded, is_listable};
use super::host::RouteFacts;
use super::target::MOST_SEGMENTS;
use super::{
    BodyRule, JsonRule, PathNode, Route, RouteTable, Scalar, TextArgument, TextForm, is_host,
    relayed,
};
use crate::diagnostic::{Advice, Diagnostics, clip, unknown};
use crate::http::JSON;
use crate::json_schema::{deref, properties, required};
use crate::mcp::Endpoint;
use crate::model::{
    ArgumentSource, Declared, IgnoredPart, Location, Model, Operation, RouteSpec, RouteTarget,
};

/// Routes that may differ by host and headers only.
const MOST_ALIKE: usize = 256;
/// The methods of an MCP endpoint.
const MCP_METHODS: [&str; 3] = ["POST", "GET", "DELETE"];
/// Types of bodies that a route may list.
const MOST_TYPES: usize = 16;

enum Piece<'a> {
    Literal(&'a str),
    Param(&'a str),
}

impl RouteTable {
    /// Compiles the routes of a bundle.
    ///
    /// Errors go to `found`; a table with errors must not be used.
    pub fn compile(model: &Model, found: &mut Diagnostics) -> Self {
        let facts = model.routes.iter().map(RouteFacts::of).collect();
        let mut table = Self { facts, ..Self::default() };
        let mut endpoints: HashMap<&str, Arc<Endpoint>> = HashMap::new();
        let mut places: Vec<Location> = Vec::new();
        for (index, spec) in model.routes.iter().enumerate() {
            let id = spec.operation_id();
            let Some(operation) = model.operation(&id) else {
                found.error(&spec.at, format!("unknown operation `{}`", clip(&id)), "");
                continue;
            };
            let Some(pieces) = pieces(&spec.path, found) else { continue };
            let compiler = RouteCompiler::new(spec, operation, &pieces, found);
            let Some(route) = compiler.compile(index) else { continue };
            let (methods, mcp) = match &spec.target {
                RouteTarget::Operation { method, .. } if !is_method(&method.value) => {
                    let what = format!("`{}` is no method", clip(&method.value));
                    found.error(&method.at, what, "Write it in upper case: GET, POST, …");
                    continue;
                }
                RouteTarget::Operation { method, .. } => (vec![method.value.as_str()], None),
                RouteTarget::McpEndpoint { system } => {
                    let endpoint = endpoints
                        .entry(system)
                        .or_insert_with(|| Arc::new(Endpoint::compile(model, system)));
                    (MCP_METHODS.to_vec(), Some(Arc::clone(endpoint)))
                }
            };
            let route = Route { mcp, ..route };
            for method in methods {
                if let Err(RouteDefect { at, what, fix }) =
                    table.add(method, spec, &pieces, &route, &mut places)
                {
                    found.error(&at, what, fix);
                    break;
                }
            }
        }
        table
    }

    /// Adds a route for one method.
    ///
    /// # Errors
    /// Another route matches some of the same requests, or too many routes have its path.
    fn add(
        &mut self,
        method: &str,
        spec: &RouteSpec,
        pieces: &[Piece<'_>],
        route: &Route,
        places: &mut Vec<Location>,
    ) -> Result<(), RouteDefect> {
        let at = spec.at.clone();
        if let Some(other) = self.meets(method, pieces, route) {
            let first = places.get(other).cloned().unwrap_or_default();
            let what = format!(
                "`{method} {}` matches requests that the route in {}:{} matches too",
                clip(&spec.path.value),
                first.file,
                first.line
            );
            let fix = "Make the paths differ in a literal segment, or tell them apart by host or `headers`.";
            return Err(RouteDefect { at, what, fix: fix.to_owned() });
        }
        if !self.insert(method, pieces, route.clone()) {
            let what = format!("more than {MOST_ALIKE} routes of one path");
            return Err(RouteDefect { at, what, fix: "Use other paths.".to_owned() });
        }
        places.push(at);
        Ok(())
    }

    /// A route that some request matches together with the new one.
    fn meets(&self, method: &str, pieces: &[Piece<'_>], new: &Route) -> Option<usize> {
        let mut reached: Vec<&PathNode> = Vec::new();
        reached.extend(self.methods.get(method).and_then(|root| self.nodes.get(*root)));
        for piece in pieces {
            let mut next: Vec<usize> = Vec::new();
            for node in &reached {
                match piece {
                    Piece::Literal(text) => {
                        next.extend(node.literal.get(*text));
                        next.extend(if text.is_empty() { None } else { node.any });
                    }
                    Piece::Param(_) => {
                        // No parameter is empty, so a trailing slash is not one.
                        let literals = node.literal.iter().filter(|(text, _)| !text.is_empty());
                        next.extend(literals.map(|(_, i)| *i));
                        next.extend(node.any);
                    }
                }
            }
            reached = next.into_iter().filter_map(|i| self.nodes.get(i)).collect();
        }
        let mut ends = reached.iter().flat_map(|node| node.routes.iter().copied());
        ends.find(|i| self.routes.get(*i).is_some_and(|other| other.shares(new)))
    }

    fn insert(&mut self, method: &str, pieces: &[Piece<'_>], route: Route) -> bool {
        let new = self.nodes.len();
        let mut at = *self.methods.entry(method.into()).or_insert(new);
        if at == new {
            self.nodes.push(PathNode::default());
        }
        for piece in pieces {
            let new = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return false };
            at = match piece {
                Piece::Literal(text) => *node.literal.entry((*text).into()).or_insert(new),
                Piece::Param(_) => *node.any.get_or_insert(new),
            };
            if at == new {
                self.nodes.push(PathNode::default());
            }
        }
        let Some(node) = self.nodes.get_mut(at) else { return false };
        if node.routes.len() >= MOST_ALIKE {
            return false;
        }
        node.routes.push(self.routes.len());
        self.routes.push(route);
        true
    }
}

impl Route {
    /// Whether one request can have the host and headers of both.
    fn shares(&self, other: &Self) -> bool {
        let hosts = match (&self.host, &other.host) {
            (Some(a), Some(b)) => self.host_matches(b) || other.host_matches(a),
            _ => true,
        };
        let differ = |(name, value): &(SmolStr, SmolStr)| {
            other.headers.iter().any(|(n, v)| n == name && v != value)
        };
        hosts && !self.headers.iter().any(differ)
    }
}

fn is_method(method: &str) -> bool {
    (1..=32).contains(&method.len())
        && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_')
}

fn pieces<'a>(path: &'a Declared<String>, found: &mut Diagnostics) -> Option<Vec<Piece<'a>>> {
    let mut fail = |what: String, fix: &str| {
        found.error(&path.at, what, fix);
        None
    };
    let text = clip(&path.value);
    let Some(rest) = path.value.strip_prefix('/') else {
        return fail(
            format!("the path `{text}` does not start with `/`"),
            "Write `/tickets/{id}`.",
        );
    };
    let mut names = HashSet::new();
    let mut out = Vec::new();
    let mut parts = rest.split('/').peekable();
    while let Some(part) = parts.next() {
        let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&b);
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        match name {
            Some(name) if name.is_empty() || name.len() > 64 || !name.bytes().all(word) => {
                return fail(
                    format!("bad parameter in `{text}`"),
                    "Write `{name}` of letters, digits, `_`, `-`.",
                );
            }
            Some(name) if !names.insert(name) => {
                return fail(
                    format!("`{{{name}}}` stands twice in `{text}`"),
                    "Rename one of the two.",
                );
            }
            Some(name) => out.push(Piece::Param(name)),
            None if part.ends_with('.') || (part.is_empty() && parts.peek().is_some()) => {
                return fail(
                    format!("`{text}` holds an empty or dot segment, or one that ends in a dot"),
                    "Requests with such are refused.",
                );
            }
            None if !part.bytes().all(plain) => {
                let fix = "A segment is literal, or a whole `{name}`; nothing is encoded.";
                return fail(format!("bad segment in `{text}`"), fix);
            }
            None => out.push(Piece::Literal(part)),
        }
    }
    if out.len() > MOST_SEGMENTS || path.value.len() > 2048 {
        return fail(format!("the path `{text}` is too long"), "");
    }
    Some(out)
}

/// A compiler of one route: collects the parts of a request that the route accounts for, and reports defects.
struct RouteCompiler<'a> {
    spec: &'a RouteSpec,
    operation: &'a Operation,
    /// Position and name of each `{name}` segment.
    parameters: Vec<(usize, &'a str)>,
    headers: Vec<(SmolStr, SmolStr)>,
    path: HashMap<&'a str, Option<TextArgument>>,
    query: BTreeMap<SmolStr, Option<TextArgument>>,
    header_arguments: Vec<(SmolStr, TextArgument)>,
    json: Option<JsonRule>,
    is_body_ignored: bool,
    has_errors: bool,
    found: &'a mut Diagnostics,
}

impl<'a> RouteCompiler<'a> {
    fn new(
        spec: &'a RouteSpec,
        operation: &'a Operation,
        pieces: &[Piece<'a>],
        found: &'a mut Diagnostics,
    ) -> Self {
        let parameter = |(position, piece): (usize, &Piece<'a>)| match piece {
            Piece::Param(name) => Some((position, *name)),
            Piece::Literal(_) => None,
        };
        Self {
            spec,
            operation,
            parameters: pieces.iter().enumerate().filter_map(parameter).collect(),
            headers: Vec::new(),
            path: HashMap::new(),
            query: BTreeMap::new(),
            header_arguments: Vec::new(),
            json: None,
            is_body_ignored: false,
            has_errors: false,
            found,
        }
    }

    /// Compiles the route. `None`: it has errors, which are reported.
    fn compile(mut self, index: usize) -> Option<Route> {
        self.check_host();
        self.read_conditions();
        self.map_arguments();
        self.ignore_parts();
        self.check_completeness();
        let names = argument_names(self.spec, self.operation);
        for RouteDefect { at, what, fix } in
            misread_members(self.spec, &names).into_iter().chain(type_defects(self.spec))
        {
            self.error(&at, what, fix);
        }
        // A route with an error is left out. The bundle is then refused, so its table is never used.
        (!self.has_errors).then(|| self.finish(index, names))
    }

    fn error(&mut self, at: &Location, what: impl Into<String>, fix: impl Into<Advice>) {
        self.has_errors = true;
        self.found.error(at, what, fix);
    }

    fn check_host(&mut self) {
        if let Some(host) = self.spec.host.as_ref().filter(|host| !is_host(&host.value)) {
            let what = format!("`{}` is no host", clip(&host.value));
            self.error(&host.at, what, "Write `host` or `host:port`, in lower case.");
        }
    }

    /// Takes over the headers that are conditions of the route.
    fn read_conditions(&mut self) {
        for (name, value) in &self.spec.headers {
            if !is_header(&name.value) {
                let what = format!("`{}` is no header name", clip(&name.value));
                self.error(&name.at, what, LOWER);
            } else if relayed::treatment(&name.value).is_some() {
                self.error(&name.at, format!("`{}` is not for routes", name.value), RELAYED);
            } else if value.is_empty()
                || value.len() > 1024
                || value.contains(|c: char| c.is_control() || c == ',')
            {
                let what =
                    format!("the value of `{}` is empty, too long, or holds a comma", name.value);
                self.error(&name.at, what, "A condition is one exact value.");
            }
            self.headers.push((name.value.as_str().into(), value.into()));
        }
    }

    fn map_arguments(&mut self) {
        let spec = self.spec;
        for (index, (argument, source)) in spec.arguments.iter().enumerate() {
            if spec.arguments.iter().take(index).any(|(before, _)| before == argument) {
                let what = format!("the argument `{}` is mapped twice", clip(argument));
                self.error(&source.at, what, "Keep one of the two.");
            }
            self.map_argument(argument, source);
        }
    }

    /// Maps one argument to its source.
    fn map_argument(&mut self, argument: &str, source: &Declared<ArgumentSource>) {
        let operation = self.operation;
        let schema = operation.input.get("properties").and_then(|p| p.get(argument));
        let Some(schema) = schema else {
            let names = properties(&operation.input).map(|name| (name, None));
            let (what, fix) = unknown("argument", argument, names);
            return self.error(&source.at, format!("{what} of `{}`", operation.id), fix);
        };
        let form = text_form(&operation.input, schema);
        let filled = form.map(|form| TextArgument { argument: argument.into(), form });
        let is_taken = match &source.value {
            ArgumentSource::Json(pointer) => {
                return self.map_json(pointer, argument, &source.at);
            }
            ArgumentSource::Path(name) => {
                let Some(name) = self.parameter(name, &source.at) else { return };
                self.path.insert(name, filled).is_some()
            }
            ArgumentSource::Query(name) => self.query.insert(name.into(), filled).is_some(),
            ArgumentSource::Header(name) => self.map_header(name, filled, &source.at),
        };
        if is_taken {
            self.error(&source.at, "one part of the request fills two arguments", "");
        }
        let is_single = !matches!(source.value, ArgumentSource::Query(_));
        if form.is_none() || (is_single && matches!(form, Some(TextForm::List(_)))) {
            let what =
                format!("`{}` of `{}` cannot be read from text", clip(argument), operation.id);
            let fix = "Declare it as string, integer, number or boolean; lists come from the query or the body.";
            self.error(&source.at, what, fix);
        }
    }

    /// Maps an argument to a part of the body.
    fn map_json(&mut self, pointer: &str, argument: &str, at: &Location) {
        let rule = self.json.get_or_insert_with(JsonRule::default);
        let leaf = JsonRule { argument: Some(argument.to_owned()), ..JsonRule::default() };
        if let Err(what) = rule.place(pointer, leaf) {
            self.error(at, what, "Map or ignore each part of the body once.");
        }
    }

    /// Maps an argument to a header. True: the header fills another argument already.
    fn map_header(&mut self, name: &str, filled: Option<TextArgument>, at: &Location) -> bool {
        if !is_header(name) {
            self.error(at, format!("`{}` is no header name", clip(name)), LOWER);
        } else if relayed::treatment(name).is_some() {
            self.error(at, format!("`{name}` is not for routes"), RELAYED);
        }
        let is_taken = self.header_arguments.iter().any(|(known, _)| known == name);
        self.header_arguments.extend(filled.map(|filled| (name.into(), filled)));
        is_taken
    }

    /// A `{name}` segment of the path. `None`: the path has none of this name, which is reported.
    fn parameter(&mut self, name: &str, at: &Location) -> Option<&'a str> {
        let known = self.parameters.iter().map(|(_, known)| *known).find(|known| *known == name);
        if known.is_none() {
            let names = self.parameters.iter().map(|(_, known)| (*known, None));
            let (what, fix) = unknown("path parameter", name, names);
            self.error(at, what, fix);
        }
        known
    }

    fn ignore_parts(&mut self) {
        let spec = self.spec;
        for ignore in &spec.ignore {
            let is_taken = match &ignore.value {
                IgnoredPart::Path(name) => self
                    .parameter(name, &ignore.at)
                    .is_some_and(|name| self.path.insert(name, None).is_some()),
                IgnoredPart::Query(name) => self.query.insert(name.into(), None).is_some(),
                IgnoredPart::Json(pointer) => {
                    let rule = self.json.get_or_insert_with(JsonRule::default);
                    let leaf = JsonRule { ignored: true, ..JsonRule::default() };
                    rule.place(pointer, leaf).is_err()
                }
                IgnoredPart::Body => {
                    self.is_body_ignored = true;
                    self.json.is_some()
                }
            };
            if is_taken {
                let what = "this part of the request is an argument already, or ignored twice";
                self.error(&ignore.at, what, "Remove one of the two.");
            }
        }
    }

    /// Refuses a route that leaves a part of the request or a required argument open.
    fn check_completeness(&mut self) {
        let (spec, operation) = (self.spec, self.operation);
        if self.is_body_ignored && self.json.is_some() {
            self.error(&spec.at, "the body is both ignored and read", "Remove one of the two.");
        }
        for (_, name) in self.parameters.clone() {
            if !self.path.contains_key(name) {
                let what = format!("`{{{name}}}` of the path is no argument");
                let fix = format!("Map it, or add `{{path: {name}}}` to `ignore`.");
                self.error(&spec.path.at, what, fix);
            }
        }
        for name in required(&operation.input) {
            if !spec.arguments.iter().any(|(argument, _)| argument == name) {
                let what = format!(
                    "`{}` needs the argument `{name}`, which this route does not fill",
                    operation.id
                );
                self.error(&spec.at, what, "Add it to `arguments`.");
            }
        }
    }

    fn finish(self, index: usize, names: BTreeSet<SmolStr>) -> Route {
        let Self { spec, operation, parameters, mut path, .. } = self;
        Route {
            spec: index,
            operation: operation.id.as_str().into(),
            mcp: None,
            host: spec.host.as_ref().map(|host| host.value.as_str().into()),
            headers: self.headers,
            path: parameters.iter().map(|(at, name)| (*at, path.remove(name).flatten())).collect(),
            query: self.query.into_iter().collect(),
            header_arguments: self.header_arguments,
            body: match self.json {
                Some(rule) => BodyRule::Json(rule),
                None if self.is_body_ignored => BodyRule::Ignored,
                None => BodyRule::None,
            },
            content_types: match spec.content_types.as_slice() {
                [] => vec![JSON.into()],
                types => types.iter().map(|kind| kind.value.as_str().into()).collect(),
            },
            names: names.into_iter().collect(),
        }
    }
}

/// The names by which a lenient server may find arguments of the operation in the query or the body, folded. An MCP endpoint
/// has none, because its server reads one message.
fn argument_names(spec: &RouteSpec, operation: &Operation) -> BTreeSet<SmolStr> {
    if spec.is_mcp() {
        return BTreeSet::new();
    }
    let sources = spec.arguments.iter().filter_map(|(_, source)| match &source.value {
        ArgumentSource::Path(name) | ArgumentSource::Query(name) => Some(name.clone()),
        ArgumentSource::Json(pointer) => pointer_tokens(pointer)?.into_iter().next(),
        ArgumentSource::Header(_) => None,
    });
    let declared = properties(&operation.input).map(str::to_owned);
    declared.chain(sources).map(|name| folded(&name).into()).collect()
}

/// Defect of a part of a route.
struct RouteDefect {
    at: Location,
    what: String,
    fix: String,
}

/// Members of the query or the body that a lenient server may take for others.
fn misread_members(spec: &RouteSpec, names: &BTreeSet<SmolStr>) -> Vec<RouteDefect> {
    let mut defects = Vec::new();
    // Members of the first level, and whether the route ignores them.
    let mut members: Vec<(&Location, String, bool)> = Vec::new();
    let mut mapped: Vec<Vec<String>> = Vec::new();
    for (_, source) in &spec.arguments {
        match &source.value {
            ArgumentSource::Query(name) => members.push((&source.at, name.clone(), false)),
            ArgumentSource::Json(pointer) => {
                let Some(tokens) = pointer_tokens(pointer) else { continue };
                let is_new = mapped.iter().all(|known| known.first() != tokens.first());
                if let Some(first) = tokens.first().filter(|_| is_new) {
                    members.push((&source.at, first.clone(), false));
                }
                mapped.push(tokens);
            }
            ArgumentSource::Path(_) | ArgumentSource::Header(_) => {}
        }
    }
    for ignore in &spec.ignore {
        match &ignore.value {
            IgnoredPart::Query(name) => members.push((&ignore.at, name.clone(), true)),
            IgnoredPart::Json(pointer) => {
                let tokens = pointer_tokens(pointer).unwrap_or_default();
                let Some((last, above)) = tokens.split_last() else { continue };
                // Beside an argument, or on the level in which servers look for arguments.
                let is_beside = mapped
                    .iter()
                    .filter_map(|tokens| tokens.split_last())
                    .any(|(_, others)| others == above);
                if above.is_empty() || is_beside {
                    members.push((&ignore.at, last.clone(), true));
                }
            }
            IgnoredPart::Path(_) | IgnoredPart::Body => {}
        }
    }
    for (at, name, is_ignored) in &members {
        let shown = clip(name);
        if body::is_method(name) {
            let what = format!("servers take the member `{shown}` for the method of the request");
            defects.push(RouteDefect { at: (*at).clone(), what, fix: "Remove it.".into() });
        } else if *is_ignored && names.contains(folded(name).as_str()) {
            let what = format!(
                "the ignored member `{shown}` is named like an argument, and servers may read it as that"
            );
            let fix = "Map it as an argument, or remove it: requests with it are then refused.";
            defects.push(RouteDefect { at: (*at).clone(), what, fix: fix.into() });
        }
    }
    for (index, (at, name, is_ignored)) in members.iter().enumerate() {
        let mut before = members.iter().take(index);
        let is_alike = |(_, other, ignored): &&(&Location, String, bool)| {
            !is_ignored && !ignored && folded(name) == folded(other)
        };
        if let Some((_, other, _)) = before.find(is_alike) {
            let what = format!(
                "servers may take the members `{}` and `{}` for one",
                clip(other),
                clip(name)
            );
            let fix = "Rename one of the two.".into();
            defects.push(RouteDefect { at: (*at).clone(), what, fix });
        }
    }
    defects
}

/// Defects of the types of a route's body.
fn type_defects(spec: &RouteSpec) -> Vec<RouteDefect> {
    let mut defects = Vec::new();
    let Some(first) = spec.content_types.first() else { return defects };
    let reads =
        spec.arguments.iter().any(|(_, source)| matches!(source.value, ArgumentSource::Json(_)))
            || spec.ignore.iter().any(|ignore| matches!(ignore.value, IgnoredPart::Json(_)));
    if spec.is_mcp() || !reads {
        let what = "`content_types` stands on a route that reads no JSON body".to_owned();
        let fix = "Remove it; the body of an MCP endpoint is `application/json`.";
        defects.push(RouteDefect { at: first.at.clone(), what, fix: fix.to_owned() });
    }
    if spec.content_types.len() > MOST_TYPES {
        let what = format!("more than {MOST_TYPES} types");
        defects.push(RouteDefect { at: first.at.clone(), what, fix: "Remove some.".to_owned() });
    }
    for (index, kind) in spec.content_types.iter().enumerate() {
        let is_twice = spec.content_types.iter().take(index).any(|one| one.value == kind.value);
        if is_twice || !is_listable(&kind.value) {
            let what = match is_twice {
                true => format!("the type `{}` stands twice", clip(&kind.value)),
                false => format!("`{}` is no JSON type", clip(&kind.value)),
            };
            let fix = "Write `application/json` or `application/…+json`, in lower case, each once and without parameters.";
            defects.push(RouteDefect { at: kind.at.clone(), what, fix: fix.to_owned() });
        }
    }
    defects
}

const LOWER: &str = "Write it in lower case; `host` and `authorization` are not for routes.";

const RELAYED: &str = "Requests that bring it are refused, or the header is removed from them, since servers take it for another method, host or path.";

fn is_header(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    let reserved = ["host", "authorization", "cookie", "content-length", "transfer-encoding"];
    (1..=128).contains(&name.len())
        && name.bytes().all(token)
        && !reserved.contains(&name)
        && !name.starts_with("authz-")
}

impl JsonRule {
    /// Puts a rule at a pointer.
    ///
    /// # Errors
    /// Another rule covers the value, or a part of it.
    fn place(&mut self, pointer: &str, leaf: Self) -> Result<(), String> {
        let Some(tokens) = pointer_tokens(pointer).filter(|t| t.len() <= 32) else {
            return Err(format!("`{}` is no JSON pointer", clip(pointer)));
        };
        let mut rule = self;
        for token in tokens {
            if rule.argument.is_some() || rule.ignored {
                let shown = clip(pointer);
                return Err(format!("`{shown}` is part of a value that is mapped already"));
            }
            rule = rule.members.entry(token).or_default();
        }
        if rule.argument.is_some() || rule.ignored || !rule.members.is_empty() {
            return Err(format!("`{}` is mapped already, or a part of it", clip(pointer)));
        }
        *rule = leaf;
        Ok(())
    }
}

/// Form in which a text becomes a value of a schema. `None`: a text cannot become one.
fn text_form(root: &serde_json::Value, schema: &serde_json::Value) -> Option<TextForm> {
    let schema = deref(root, schema)?;
    let word = match schema.get("type") {
        Some(serde_json::Value::String(word)) => word.as_str(),
        Some(serde_json::Value::Array(words)) => {
            let mut words = words.iter().filter_map(|w| w.as_str()).filter(|w| *w != "null");
            match (words.next(), words.next()) {
                (Some(word), None) => word,
                _ => return None,
            }
        }
        None => {
            let all = schema.get("enum").and_then(serde_json::Value::as_array)?;
            return all.iter().all(serde_json::Value::is_string).then_some(TextForm::Text);
        }
        Some(_) => return None,
    };
    match word {
        "string" => Some(TextForm::Text),
        "integer" => Some(TextForm::Integer),
        "number" => Some(TextForm::Number),
        "boolean" => Some(TextForm::Bool),
        "array" => match text_form(root, schema.get("items")?)? {
            TextForm::Text => Some(TextForm::List(Scalar::Text)),
            TextForm::Integer => Some(TextForm::List(Scalar::Integer)),
            TextForm::Number => Some(TextForm::List(Scalar::Number)),
            TextForm::Bool => Some(TextForm::List(Scalar::Bool)),
            TextForm::List(_) => None,
        },
        _ => None,
    }
}
