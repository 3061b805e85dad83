//! HTTP routes: the operation of an HTTP request, and its arguments.
//!
//! INVARIANT (judged = received): a request that two readers could read differently is refused before any route is tried. A part
//! of the request that its route does not account for is refused after. Nothing is normalised.

mod body;
mod compile;
mod host;
mod passing;
mod reads;
mod relayed;
mod target;

use std::sync::Arc;

use authz_base::json::{self, Value};
use authz_base::reason::ReasonCode;
use authz_base::table::Table;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::http::{RequestError, ambiguous, bad, once};
use crate::mcp::{Endpoint, Envelope, McpCall, MessageError};

pub use crate::http::{Body, HttpRequest};
pub use passing::{is_standard, refuse_header};
pub use relayed::{Treatment, treatment};
pub use target::is_host;

/// Operation and arguments of a request that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Operation id.
    pub operation: SmolStr,
    /// Arguments: one object.
    pub arguments: Arc<Value>,
    /// Index of the route in the order of files and lines.
    pub route: usize,
    /// Envelope of a message to an MCP endpoint. `None`: the route leads to an operation.
    pub mcp: Option<Envelope>,
    /// The task that the body names.
    pub task: Option<String>,
}

/// Refusal of a request that has no operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    /// `NoRoute`, `AmbiguousRequest` or `BadInput`; at an MCP endpoint also `HeaderMismatch` or `UnknownOperation`.
    pub reason: ReasonCode,
    /// Text for the log; holds no value of the request.
    pub message: String,
    /// The request was read completely, has one meaning, and asks for something that no route provides.
    pub understood: bool,
    /// Envelope of a message to an MCP endpoint. `None`: no route matches, or the route leads to an operation.
    pub mcp: Option<Box<Envelope>>,
    /// The operation of its route; empty if no route matches, and at an MCP endpoint.
    pub operation: SmolStr,
    /// The task that the body names.
    pub task: Option<String>,
}

/// The compiled routes of a bundle.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// By method: the root of its tree in `nodes`.
    methods: Table<SmolStr, usize>,
    nodes: Vec<PathNode>,
    routes: Vec<Route>,
    /// Facts about each route that answers depend on, in the order of files and lines.
    facts: Vec<host::RouteFacts>,
}

/// Node of the tree of paths; each level is one segment.
#[derive(Clone, Debug, Default)]
struct PathNode {
    literal: Table<SmolStr, usize>,
    any: Option<usize>,
    routes: Vec<usize>,
}

/// A compiled route. It holds copies of its names, so that a request reads few places of memory.
#[derive(Clone, Debug)]
struct Route {
    /// Index of the route in the model.
    spec: usize,
    operation: SmolStr,
    mcp: Option<Arc<Endpoint>>,
    host: Option<SmolStr>,
    headers: Vec<(SmolStr, SmolStr)>,
    /// For each `{name}` segment in order: its position, and the argument that it fills.
    path: Vec<(usize, Option<TextArgument>)>,
    /// For each member of the query, sorted by name: the argument that it fills.
    query: Vec<(SmolStr, Option<TextArgument>)>,
    /// For each header: the argument that it fills.
    header_arguments: Vec<(SmolStr, TextArgument)>,
    body: BodyRule,
    /// Types of the body that the route reads.
    content_types: Vec<SmolStr>,
    /// Names of the operation's arguments and of the members that fill them, folded.
    names: Vec<SmolStr>,
}

/// An argument that a text of the request fills.
#[derive(Clone, Debug)]
struct TextArgument {
    argument: SmolStr,
    form: TextForm,
}

/// Form in which the text of a path, query or header becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextForm {
    Text,
    Integer,
    Number,
    Bool,
    /// A list: a member of the query may be repeated.
    List(Scalar),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    Text,
    Integer,
    Number,
    Bool,
}

#[derive(Clone, Debug)]
enum BodyRule {
    /// A request has no body.
    None,
    /// The body is ignored.
    Ignored,
    /// The body is JSON, and each member is mapped or ignored.
    Json(JsonRule),
}

/// Rule for a value of a JSON body and, as a tree over pointers, for its members.
#[derive(Clone, Debug, Default)]
struct JsonRule {
    /// The argument that this value fills.
    argument: Option<String>,
    /// This value, with everything below it, is ignored.
    ignored: bool,
    members: Table<String, JsonRule>,
}

impl RouteError {
    /// A request that was read completely and has one meaning.
    #[must_use]
    pub fn new(reason: ReasonCode, message: impl Into<String>) -> Self {
        RequestError::new(reason, message).into()
    }
}

impl From<RequestError> for RouteError {
    fn from(error: RequestError) -> Self {
        let RequestError { reason, message, understood } = error;
        let operation = SmolStr::default();
        Self { reason, message, understood, mcp: None, operation, task: None }
    }
}

impl From<MessageError> for RouteError {
    fn from(refused: MessageError) -> Self {
        let MessageError { error, envelope, task } = refused;
        Self { mcp: Some(envelope), task, ..error.into() }
    }
}

impl std::fmt::Display for RouteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RouteError {}

impl RouteTable {
    /// Number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether the bundle has no routes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Finds the operation and the arguments of a request.
    ///
    /// # Errors
    /// `AmbiguousRequest` if two readers could read the request differently, `NoRoute` if no route matches it, `BadInput` if the
    /// request carries parts that its route does not map.
    pub fn resolve(&self, request: &HttpRequest<'_>) -> Result<Routed, RouteError> {
        self.route(request).map_err(|error| {
            // The part that was cut off may say anything.
            let is_whole = !matches!(request.body, Body::Partial);
            RouteError { understood: error.understood && is_whole, ..error }
        })
    }

    fn route(&self, request: &HttpRequest<'_>) -> Result<Routed, RouteError> {
        let target = target::split(request.path)?;
        refuse_overrides(request)?;
        let Some(index) = self.find(request, &target.segments)? else {
            let message = "no route matches the method, host, path and headers";
            return Err(RouteError::new(ReasonCode::NoRoute, message));
        };
        let Some(route) = self.routes.get(index) else {
            return ambiguous("the route table is inconsistent")?;
        };
        if let Some(endpoint) = &route.mcp {
            return route.read_message(endpoint, request, target.query);
        }
        let arguments = route
            .arguments(request, &target)
            .map_err(|error| RouteError { operation: route.operation.clone(), ..error.into() })?;
        Ok(Routed {
            operation: route.operation.clone(),
            arguments: Arc::new(Value::Object(arguments.members)),
            route: route.spec,
            mcp: None,
            task: None,
        })
    }

    /// Host and system of each route. A route without a host is for every host.
    pub fn hosts(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.routes.iter().map(|route| {
            let system = route.operation.split_once('.').map_or("", |(system, _)| system);
            (route.host.as_deref(), system)
        })
    }

    fn find(
        &self,
        request: &HttpRequest<'_>,
        segments: &[target::Segment<'_>],
    ) -> Result<Option<usize>, RequestError> {
        let root = self.methods.get(request.method).and_then(|root| self.nodes.get(*root));
        let mut reached: SmallVec<[&PathNode; 4]> = root.into_iter().collect();
        for segment in segments {
            // A literal is matched undecoded, because upstreams may not decode an encoded spelling of it.
            let mut next: SmallVec<[&PathNode; 4]> = SmallVec::new();
            for node in &reached {
                let any = if segment.raw.is_empty() { None } else { node.any };
                let steps = [node.literal.get(segment.raw).copied(), any];
                next.extend(steps.into_iter().flatten().filter_map(|i| self.nodes.get(i)));
            }
            reached = next;
            if reached.is_empty() {
                return Ok(None);
            }
        }
        let mut found = None;
        for index in reached.iter().flat_map(|node| node.routes.iter().copied()) {
            let Some(route) = self.routes.get(index) else { continue };
            if !route.host_matches(request.host) || !route.headers_match(request.headers)? {
                continue;
            }
            if found.is_some() {
                return ambiguous("two routes match");
            }
            found = Some(index);
        }
        Ok(found)
    }
}

/// Refuses headers by which the request would be another request, or the first of several, behind the proxy.
fn refuse_overrides(request: &HttpRequest<'_>) -> Result<(), RequestError> {
    for (name, value) in request.headers {
        let defect = match relayed::treatment(name) {
            None => continue,
            // Removed by this name alone.
            Some(Treatment::Removed) if !name.contains('_') => continue,
            Some(Treatment::SameMethod) if *value == request.method => continue,
            Some(Treatment::Connection) if relayed::is_plain_connection(value) => continue,
            Some(Treatment::Coding) if value.eq_ignore_ascii_case("chunked") => continue,
            Some(Treatment::Connection) => "names other headers or an upgrade",
            Some(Treatment::Coding) => "is not `chunked`",
            Some(Treatment::Protocol) => "asks for another protocol, which is not judged",
            Some(Treatment::Removed | Treatment::Refused | Treatment::SameMethod) => {
                "overrides the request line"
            }
        };
        return ambiguous(format!("the header `{name}` {defect}"));
    }
    Ok(())
}

impl Route {
    fn host_matches(&self, host: &str) -> bool {
        let Some(wanted) = &self.host else { return true };
        if host.eq_ignore_ascii_case(wanted) {
            return true;
        }
        // A route without a port is for every port. The part after the last colon of an address in brackets is not a port.
        let bare = |host: &'_ str| {
            let (name, port) = host.rsplit_once(':')?;
            (!port.is_empty()
                && port.bytes().all(|b| b.is_ascii_digit())
                && port.parse::<u16>().is_ok())
            .then_some(name.len())
        };
        bare(wanted).is_none()
            && bare(host)
                .and_then(|end| host.get(..end))
                .is_some_and(|n| n.eq_ignore_ascii_case(wanted))
    }

    fn headers_match(&self, headers: &[(&str, &str)]) -> Result<bool, RequestError> {
        for (name, wanted) in &self.headers {
            match once(headers, name)? {
                Some(value) if value == wanted => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Reads a request to the MCP endpoint.
    fn read_message(
        &self,
        endpoint: &Endpoint,
        request: &HttpRequest<'_>,
        query: Option<&str>,
    ) -> Result<Routed, RouteError> {
        let at_endpoint = |error: RequestError| RouteError {
            mcp: Some(Box::new(endpoint.envelope(request.method))),
            ..error.into()
        };
        // The query holds no arguments: each member is ignored or refused.
        let mut beside = self.query_arguments(query, &mut Filling::default());
        if request.method != "POST" {
            beside = beside.and_then(|()| body::require_none(request));
        }
        if let Err(error) = &beside
            && !error.understood
        {
            return Err(at_endpoint(error.clone()));
        }
        // Read the message also if another part is refused: the task that it names counts in any case.
        let McpCall { operation, arguments, task, envelope } = endpoint.read(request)?;
        let operation = SmolStr::from(operation);
        match beside {
            Ok(()) => Ok(Routed {
                operation,
                arguments: Arc::new(arguments),
                route: self.spec,
                mcp: Some(envelope),
                task,
            }),
            Err(error) => {
                let mcp = Some(Box::new(envelope));
                Err(RouteError { mcp, operation, task, ..error.into() })
            }
        }
    }

    /// The arguments of a request.
    fn arguments(
        &self,
        request: &HttpRequest<'_>,
        target: &target::PathTarget<'_>,
    ) -> Result<Filling, RequestError> {
        let mut arguments = Filling::default();
        self.path_arguments(&target.segments, &mut arguments)?;
        self.query_arguments(target.query, &mut arguments)?;
        self.header_arguments(request.headers, &mut arguments)?;
        self.body_arguments(request, &mut arguments)?;
        Ok(arguments)
    }

    fn path_arguments(
        &self,
        segments: &[target::Segment<'_>],
        out: &mut Filling,
    ) -> Result<(), RequestError> {
        for (position, filled) in &self.path {
            let (Some(segment), Some(filled)) = (segments.get(*position), filled) else {
                continue;
            };
            out.text(filled, &segment.decode()?)?;
        }
        Ok(())
    }

    fn query_arguments(&self, query: Option<&str>, out: &mut Filling) -> Result<(), RequestError> {
        // The whole query is read before any member is looked up. Its length is bounded.
        let pairs = target::query(query)?;
        let mut seen: SmallVec<[bool; 16]> = SmallVec::from_elem(false, self.query.len());
        let mut lists: Vec<(&str, Vec<Value>)> = Vec::new();
        for (name, value) in &pairs {
            let at = self.query.binary_search_by(|(known, _)| known.as_str().cmp(name));
            let found = at.ok().and_then(|at| Some((self.query.get(at)?, seen.get_mut(at)?)));
            let Some(((_, filled), seen)) = found else {
                return self.unknown_member(name, "query");
            };
            let Some(filled @ TextArgument { argument, form }) = filled else { continue };
            // For a member without `=`, some readers see an empty text, and Rack sees none.
            let Some(value) = value else {
                return ambiguous(format!(
                    "the argument `{argument}` stands in the query without `=`"
                ));
            };
            let again = std::mem::replace(seen, true);
            if let TextForm::List(scalar) = form {
                let item = scalar.form().value(value, argument)?;
                match lists.iter_mut().find(|(name, _)| name == argument) {
                    Some((_, items)) => items.push(item),
                    None => lists.push((argument, vec![item])),
                }
            } else if again {
                return ambiguous(format!("the argument `{argument}` stands twice in the query"));
            } else {
                out.text(filled, value)?;
            }
        }
        for (argument, items) in lists {
            out.put(argument, Value::Array(items));
        }
        Ok(())
    }

    fn header_arguments(
        &self,
        headers: &[(&str, &str)],
        out: &mut Filling,
    ) -> Result<(), RequestError> {
        for (header, filled) in &self.header_arguments {
            let Some(value) = once(headers, header)? else { continue };
            // A proxy joins headers of one name with commas, and then readers see different values. Beyond ASCII, most servers
            // read Latin-1 (RFC 9110 §5.5 names no encoding), others UTF-8.
            if !value.bytes().all(|byte| matches!(byte, b' '..=b'+' | b'-'..=b'~')) {
                return ambiguous(format!(
                    "the header `{header}` holds a comma, or a character that readers treat differently"
                ));
            }
            out.text(filled, value.trim())?;
        }
        Ok(())
    }

    fn body_arguments(
        &self,
        request: &HttpRequest<'_>,
        out: &mut Filling,
    ) -> Result<(), RequestError> {
        if matches!(request.body, Body::Partial) {
            return body::cut_off();
        }
        match &self.body {
            BodyRule::None => body::require_none(request),
            BodyRule::Ignored => self.check_ignored_body(request),
            BodyRule::Json(rule) => match self.read_body(rule, request)? {
                Some(value) => rule.take(self, value, 0, out),
                None => Ok(()),
            },
        }
    }
}

impl JsonRule {
    fn take(
        &self,
        route: &Route,
        value: Value,
        depth: usize,
        out: &mut Filling,
    ) -> Result<(), RequestError> {
        if self.ignored {
            return Ok(());
        }
        if let Some(argument) = &self.argument {
            out.put(argument, value);
            return Ok(());
        }
        let Value::Object(members) = value else {
            return bad(format!("expected an object at depth {depth} of the body"));
        };
        for (name, member) in members {
            match self.members.get(&name) {
                Some(rule) => rule.take(route, member, depth + 1, out)?,
                // Servers read arguments from the first level.
                None if depth == 0 => return route.unknown_member(&name, "body"),
                None => return bad("a member of the body is neither an argument nor ignored"),
            }
        }
        Ok(())
    }
}

impl TextForm {
    fn value(self, text: &str, argument: &str) -> Result<Value, RequestError> {
        let fail = |wanted: &str| bad(format!("the argument `{argument}` is not {wanted}"));
        let number = || json::parse(text.as_bytes(), json::Limits::default()).ok();
        match self {
            Self::Text => Ok(Value::String(text.to_owned())),
            // The schema of the operation checks the range of both.
            Self::Integer => match number() {
                Some(value @ Value::Integer(_)) if json::is_number(text) => Ok(value),
                _ => fail("an integer"),
            },
            Self::Number => match number() {
                Some(value) if json::is_number(text) => Ok(value),
                _ => fail("a number"),
            },
            Self::Bool => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => fail("true or false"),
            },
            Self::List(scalar) => scalar.form().value(text, argument),
        }
    }
}

impl Scalar {
    const fn form(self) -> TextForm {
        match self {
            Self::Text => TextForm::Text,
            Self::Integer => TextForm::Integer,
            Self::Number => TextForm::Number,
            Self::Bool => TextForm::Bool,
        }
    }
}

/// Arguments of a request while a route fills them.
///
/// INVARIANT (once): a route fills each argument from one source, so no name stands twice.
#[derive(Default)]
struct Filling {
    members: Vec<(String, Value)>,
}

impl Filling {
    /// Adds an argument that a text of the request fills.
    fn text(&mut self, filled: &TextArgument, text: &str) -> Result<(), RequestError> {
        let TextArgument { argument, form } = filled;
        self.put(argument, form.value(text, argument)?);
        Ok(())
    }

    fn put(&mut self, argument: &str, value: Value) {
        self.members.push((argument.to_owned(), value));
    }
}

#[cfg(test)]
mod tests;
