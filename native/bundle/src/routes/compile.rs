//! Turns the routes of a bundle into a table, and refuses those that could not work or could meet.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use authz_base::json::pointer_tokens;
use smol_str::SmolStr;

use super::body::{self, folded, is_listable};
use super::host::Entry;
use super::target::MOST_SEGMENTS;
use super::{
    BodyRule, Filled, Form, Ignore, JsonRule, Node, Route, RouteSpec, RouteTable, Scalar, Source,
    is_host, relayed,
};
use crate::diagnostic::{Diagnostics, clip, unknown};
use crate::model::{Declared, Location, Operation};
use crate::source::{deref, properties, required};

/// Routes that may differ by host and headers only.
const MOST_ALIKE: usize = 256;
/// The methods of an MCP endpoint.
const OF_MCP: [&str; 3] = ["POST", "GET", "DELETE"];
/// Types of bodies that a route may list.
const MOST_TYPES: usize = 16;

enum Piece<'a> {
    Literal(&'a str),
    Param(&'a str),
}

impl RouteTable {
    /// Compiles routes over operations that are sorted by id; each route's operation is among them.
    ///
    /// What is wrong goes to `found`; then the table is not to be used.
    pub fn compile(
        specs: Vec<RouteSpec>,
        operations: &[Operation],
        found: &mut Diagnostics,
    ) -> Self {
        let mut table = Self::default();
        let mut places: Vec<Location> = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let system = spec.operation.split_once('.').map_or("", |(system, _)| system);
            table.entries.push(Entry {
                system: system.into(),
                method: spec.method.value.as_str().into(),
                path: spec.path.value.as_str().into(),
                operation: spec.operation.as_str().into(),
                host: spec.host.as_ref().map(|host| host.value.as_str().into()),
                forward_authorization: spec.forward_authorization,
                headers: declared_headers(spec),
                is_mcp: spec.mcp.is_some(),
                at: spec.at.clone(),
            });
            let by_id = operations.binary_search_by(|o| o.id.as_str().cmp(&spec.operation));
            let Some(operation) = by_id.ok().and_then(|i| operations.get(i)) else {
                found.error(&spec.at, format!("unknown operation `{}`", clip(&spec.operation)), "");
                continue;
            };
            let Some(pieces) = pieces(&spec.path, found) else { continue };
            let Some(route) = route(index, spec, &pieces, operation, found) else { continue };
            if !is_method(&spec.method.value) {
                let what = format!("`{}` is no method", clip(&spec.method.value));
                found.error(&spec.method.at, what, "Write it in upper case: GET, POST, …");
                continue;
            }
            let methods = match spec.mcp {
                Some(_) => &OF_MCP[..],
                None => &[spec.method.value.as_str()],
            };
            for method in methods {
                if let Err((what, mend)) = table.add(method, spec, &pieces, &route, &mut places) {
                    found.error(&spec.at, what, mend);
                    break;
                }
            }
        }
        table
    }

    /// Adds a route for one method, or says why it cannot stand.
    fn add(
        &mut self,
        method: &str,
        spec: &RouteSpec,
        pieces: &[Piece<'_>],
        route: &Route,
        places: &mut Vec<Location>,
    ) -> Result<(), (String, &'static str)> {
        if let Some(other) = self.meets(method, pieces, route) {
            let first = places.get(other).cloned().unwrap_or_default();
            let what = format!(
                "`{method} {}` matches requests that the route in {}:{} matches too",
                clip(&spec.path.value),
                first.file,
                first.line
            );
            let mend = "Make the paths differ in a literal segment, or tell them apart by host or `headers`.";
            return Err((what, mend));
        }
        if !self.insert(method, pieces, route.clone()) {
            return Err((format!("more than {MOST_ALIKE} routes of one path"), "Use other paths."));
        }
        places.push(spec.at.clone());
        Ok(())
    }

    /// A route that some request matches together with the new one.
    fn meets(&self, method: &str, pieces: &[Piece<'_>], new: &Route) -> Option<usize> {
        let mut reached: Vec<&Node> = Vec::new();
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
            self.nodes.push(Node::default());
        }
        for piece in pieces {
            let new = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return false };
            at = match piece {
                Piece::Literal(text) => *node.literal.entry((*text).into()).or_insert(new),
                Piece::Param(_) => *node.any.get_or_insert(new),
            };
            if at == new {
                self.nodes.push(Node::default());
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
    let mut fail = |what: String, mend: &str| {
        found.error(&path.at, what, mend);
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
                let mend = "A segment is literal, or a whole `{name}`; nothing is encoded.";
                return fail(format!("bad segment in `{text}`"), mend);
            }
            None => out.push(Piece::Literal(part)),
        }
    }
    if out.len() > MOST_SEGMENTS || path.value.len() > 2048 {
        return fail(format!("the path `{text}` is too long"), "");
    }
    Some(out)
}

fn route(
    index: usize,
    spec: &RouteSpec,
    pieces: &[Piece<'_>],
    operation: &Operation,
    found: &mut Diagnostics,
) -> Option<Route> {
    let mut clean = true;
    let mut error = |at: &Location, what: String, mend: String| {
        clean = false;
        found.error(at, what, mend);
    };
    if let Some(host) = spec.host.as_ref().filter(|h| !is_host(&h.value)) {
        let what = format!("`{}` is no host", clip(&host.value));
        error(&host.at, what, "Write `host` or `host:port`, in lower case.".into());
    }
    let mut headers: Vec<(SmolStr, SmolStr)> = Vec::new();
    for (name, value) in &spec.headers {
        if !is_header(&name.value) {
            error(&name.at, format!("`{}` is no header name", clip(&name.value)), LOWER.into());
        } else if relayed::treatment(&name.value).is_some() {
            error(&name.at, format!("`{}` is not for routes", name.value), RELAYED.into());
        } else if value.is_empty()
            || value.len() > 1024
            || value.contains(|c: char| c.is_control() || c == ',')
        {
            let what =
                format!("the value of `{}` is empty, too long, or holds a comma", name.value);
            error(&name.at, what, "A condition is one exact value.".into());
        }
        headers.push((name.value.as_str().into(), value.into()));
    }

    let positions: Vec<(usize, &str)> = pieces
        .iter()
        .enumerate()
        .filter_map(|(i, piece)| match piece {
            Piece::Param(name) => Some((i, *name)),
            Piece::Literal(_) => None,
        })
        .collect();
    let mut path: HashMap<&str, Option<Filled>> = HashMap::new();
    let mut query: BTreeMap<SmolStr, Option<Filled>> = BTreeMap::new();
    let mut header_arguments: Vec<(SmolStr, Filled)> = Vec::new();
    let mut json: Option<JsonRule> = None;
    let mut body_ignored = false;

    for (index, (argument, source)) in spec.arguments.iter().enumerate() {
        if spec.arguments.iter().take(index).any(|(before, _)| before == argument) {
            let what = format!("the argument `{}` is mapped twice", clip(argument));
            error(&source.at, what, "Keep one of the two.".into());
        }
        let schema = operation.input.get("properties").and_then(|p| p.get(argument));
        let Some(schema) = schema else {
            let names = properties(&operation.input).map(|name| (name, None));
            let (what, mend) = unknown("argument", argument, names);
            error(&source.at, format!("{what} of `{}`", operation.id), mend);
            continue;
        };
        let form = form(&operation.input, schema);
        let filled = form.map(|form| Filled { argument: argument.into(), form });
        let (taken, scalar_only) = match &source.value {
            Source::Json(pointer) => {
                let rule = json.get_or_insert_with(JsonRule::default);
                let leaf = JsonRule { argument: Some(argument.clone()), ..JsonRule::default() };
                match place(rule, pointer, leaf) {
                    Ok(()) => (false, false),
                    Err(what) => {
                        error(&source.at, what, "Map or ignore each part of the body once.".into());
                        continue;
                    }
                }
            }
            Source::Path(name) => {
                if !positions.iter().any(|(_, n)| n == name) {
                    let names = positions.iter().map(|(_, n)| (*n, None));
                    let (what, mend) = unknown("path parameter", name, names);
                    error(&source.at, what, mend);
                    continue;
                }
                let key = positions.iter().find(|(_, n)| n == name).map_or("", |(_, n)| n);
                (path.insert(key, filled).is_some(), true)
            }
            Source::Query(name) => (query.insert(name.into(), filled).is_some(), false),
            Source::Header(name) => {
                if !is_header(name) {
                    error(&source.at, format!("`{}` is no header name", clip(name)), LOWER.into());
                } else if relayed::treatment(name).is_some() {
                    error(&source.at, format!("`{name}` is not for routes"), RELAYED.into());
                }
                let taken = header_arguments.iter().any(|(n, ..)| n == name);
                header_arguments.extend(filled.map(|filled| (name.into(), filled)));
                (taken, true)
            }
        };
        if taken {
            error(&source.at, "one part of the request fills two arguments".into(), String::new());
        }
        let text = !matches!(source.value, Source::Json(_));
        if text && (form.is_none() || (scalar_only && matches!(form, Some(Form::List(_))))) {
            let what =
                format!("`{}` of `{}` cannot be read from text", clip(argument), operation.id);
            let mend = "Declare it as string, integer, number or boolean; lists come from the query or the body.";
            error(&source.at, what, mend.into());
        }
    }

    for ignore in &spec.ignore {
        let clash = match &ignore.value {
            Ignore::Path(name) => match positions.iter().find(|(_, n)| n == name) {
                Some((_, name)) => path.insert(name, None).is_some(),
                None => {
                    let (what, mend) =
                        unknown("path parameter", name, positions.iter().map(|(_, n)| (*n, None)));
                    error(&ignore.at, what, mend);
                    false
                }
            },
            Ignore::Query(name) => query.insert(name.into(), None).is_some(),
            Ignore::Json(pointer) => {
                let rule = json.get_or_insert_with(JsonRule::default);
                place(rule, pointer, JsonRule { ignored: true, ..JsonRule::default() }).is_err()
            }
            Ignore::Body => {
                body_ignored = true;
                json.is_some()
            }
        };
        if clash {
            let what = "this part of the request is an argument already, or ignored twice";
            error(&ignore.at, what.into(), "Remove one of the two.".into());
        }
    }
    if body_ignored && json.is_some() {
        error(
            &spec.at,
            "the body is both ignored and read".into(),
            "Remove one of the two.".into(),
        );
    }
    for (_, name) in positions.iter().filter(|(_, name)| !path.contains_key(name)) {
        let what = format!("`{{{name}}}` of the path is no argument");
        error(&spec.path.at, what, format!("Map it, or add `{{path: {name}}}` to `ignore`."));
    }
    for name in required(&operation.input) {
        if !spec.arguments.iter().any(|(argument, _)| argument == name) {
            let what = format!(
                "`{}` needs the argument `{name}`, which this route does not fill",
                operation.id
            );
            error(&spec.at, what, "Add it to `arguments`.".into());
        }
    }
    let names = names(spec, operation);
    for (at, what, mend) in misread(spec, &names).into_iter().chain(types(spec)) {
        error(&at, what, mend);
    }
    if !clean {
        // A route with a fault has left an error behind, so its table is never used.
        return None;
    }
    let body = match json {
        Some(rule) => BodyRule::Json(rule),
        None if body_ignored => BodyRule::Ignored,
        None => BodyRule::None,
    };
    Some(Route {
        spec: index,
        operation: operation.id.as_str().into(),
        mcp: spec.mcp.clone(),
        host: spec.host.as_ref().map(|h| h.value.as_str().into()),
        headers,
        path: positions.iter().map(|(i, name)| (*i, path.remove(name).flatten())).collect(),
        query: query.into_iter().collect(),
        header_arguments,
        body,
        content_types: match spec.content_types.as_slice() {
            [] => vec![body::JSON.into()],
            types => types.iter().map(|kind| kind.value.as_str().into()).collect(),
        },
        names: names.into_iter().collect(),
    })
}

/// The headers that are conditions of a route or fill arguments.
fn declared_headers(spec: &RouteSpec) -> Vec<SmolStr> {
    let of_arguments = spec.arguments.iter().filter_map(|(_, source)| match &source.value {
        Source::Header(name) => Some(name.as_str()),
        Source::Path(_) | Source::Query(_) | Source::Json(_) => None,
    });
    let conditions = spec.headers.iter().map(|(name, _)| name.value.as_str());
    conditions.chain(of_arguments).map(SmolStr::from).collect()
}

/// The names by which a lenient server may find arguments of the operation in the query or the body, folded. Of an MCP
/// endpoint there are none: its server reads one message.
fn names(spec: &RouteSpec, operation: &Operation) -> BTreeSet<SmolStr> {
    if spec.mcp.is_some() {
        return BTreeSet::new();
    }
    let sources = spec.arguments.iter().filter_map(|(_, source)| match &source.value {
        Source::Path(name) | Source::Query(name) => Some(name.clone()),
        Source::Json(pointer) => pointer_tokens(pointer)?.into_iter().next(),
        Source::Header(_) => None,
    });
    let declared = properties(&operation.input).map(str::to_owned);
    declared.chain(sources).map(|name| folded(&name).into()).collect()
}

/// What is wrong with a part of a route, where, and how to mend it.
type Defect = (Location, String, String);

/// Members of the query or the body that a lenient server may take for others.
fn misread(spec: &RouteSpec, names: &BTreeSet<SmolStr>) -> Vec<Defect> {
    let mut defects = Vec::new();
    // Members of the first level, and whether the route ignores them.
    let mut members: Vec<(&Location, String, bool)> = Vec::new();
    let mut mapped: Vec<Vec<String>> = Vec::new();
    for (_, source) in &spec.arguments {
        match &source.value {
            Source::Query(name) => members.push((&source.at, name.clone(), false)),
            Source::Json(pointer) => {
                let Some(tokens) = pointer_tokens(pointer) else { continue };
                let is_new = mapped.iter().all(|known| known.first() != tokens.first());
                if let Some(first) = tokens.first().filter(|_| is_new) {
                    members.push((&source.at, first.clone(), false));
                }
                mapped.push(tokens);
            }
            Source::Path(_) | Source::Header(_) => {}
        }
    }
    for ignore in &spec.ignore {
        match &ignore.value {
            Ignore::Query(name) => members.push((&ignore.at, name.clone(), true)),
            Ignore::Json(pointer) => {
                let tokens = pointer_tokens(pointer).unwrap_or_default();
                let Some((last, above)) = tokens.split_last() else { continue };
                // Beside an argument, or where servers look for arguments.
                let is_beside = mapped
                    .iter()
                    .filter_map(|tokens| tokens.split_last())
                    .any(|(_, others)| others == above);
                if above.is_empty() || is_beside {
                    members.push((&ignore.at, last.clone(), true));
                }
            }
            Ignore::Path(_) | Ignore::Body => {}
        }
    }
    for (at, name, is_ignored) in &members {
        let shown = clip(name);
        if body::is_method(name) {
            let what = format!("servers take the member `{shown}` for the method of the request");
            defects.push(((*at).clone(), what, "Remove it.".into()));
        } else if *is_ignored && names.contains(folded(name).as_str()) {
            let what = format!(
                "the ignored member `{shown}` is named like an argument, and servers may read it as that"
            );
            let mend = "Map it as an argument, or remove it: requests with it are then refused.";
            defects.push(((*at).clone(), what, mend.into()));
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
            defects.push(((*at).clone(), what, "Rename one of the two.".into()));
        }
    }
    defects
}

/// What is wrong with the types of a route's body.
fn types(spec: &RouteSpec) -> Vec<Defect> {
    let mut defects = Vec::new();
    let Some(first) = spec.content_types.first() else { return defects };
    let reads = spec.arguments.iter().any(|(_, source)| matches!(source.value, Source::Json(_)))
        || spec.ignore.iter().any(|ignore| matches!(ignore.value, Ignore::Json(_)));
    if spec.mcp.is_some() || !reads {
        let what = "`content_types` stands on a route that reads no JSON body".to_owned();
        let mend = "Remove it; the body of an MCP endpoint is `application/json`.";
        defects.push((first.at.clone(), what, mend.to_owned()));
    }
    if spec.content_types.len() > MOST_TYPES {
        let what = format!("more than {MOST_TYPES} types");
        defects.push((first.at.clone(), what, "Remove some.".to_owned()));
    }
    for (index, kind) in spec.content_types.iter().enumerate() {
        let is_twice = spec.content_types.iter().take(index).any(|one| one.value == kind.value);
        if is_twice || !is_listable(&kind.value) {
            let what = match is_twice {
                true => format!("the type `{}` stands twice", clip(&kind.value)),
                false => format!("`{}` is no JSON type", clip(&kind.value)),
            };
            let mend = "Write `application/json` or `application/…+json`, in lower case, each once and without parameters.";
            defects.push((kind.at.clone(), what, mend.to_owned()));
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

/// Puts a rule at a pointer; two rules may not speak of one value, nor one of a part of the other's.
fn place(root: &mut JsonRule, pointer: &str, leaf: JsonRule) -> Result<(), String> {
    let Some(tokens) = pointer_tokens(pointer).filter(|t| t.len() <= 32) else {
        return Err(format!("`{}` is no JSON pointer", clip(pointer)));
    };
    let mut rule = root;
    for token in tokens {
        if rule.argument.is_some() || rule.ignored {
            return Err(format!("`{}` is part of a value that is mapped already", clip(pointer)));
        }
        rule = rule.members.entry(token).or_default();
    }
    if rule.argument.is_some() || rule.ignored || !rule.members.is_empty() {
        return Err(format!("`{}` is mapped already, or a part of it", clip(pointer)));
    }
    *rule = leaf;
    Ok(())
}

/// How a text becomes a value of a schema; none where it cannot.
fn form(root: &serde_json::Value, schema: &serde_json::Value) -> Option<Form> {
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
            return all.iter().all(serde_json::Value::is_string).then_some(Form::Text);
        }
        Some(_) => return None,
    };
    match word {
        "string" => Some(Form::Text),
        "integer" => Some(Form::Integer),
        "number" => Some(Form::Number),
        "boolean" => Some(Form::Bool),
        "array" => match form(root, schema.get("items")?)? {
            Form::Text => Some(Form::List(Scalar::Text)),
            Form::Integer => Some(Form::List(Scalar::Integer)),
            Form::Number => Some(Form::List(Scalar::Number)),
            Form::Bool => Some(Form::List(Scalar::Bool)),
            Form::List(_) => None,
        },
        _ => None,
    }
}
