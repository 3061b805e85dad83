//! Which operation an HTTP request asks for, and with which arguments.
//!
//! What is judged must be what is served: a request that two readers could read differently is refused before any
//! route is tried, a part of it that no route accounts for is refused after. Nothing is normalised.

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

use crate::location::{Declared, Location};
use crate::mcp::{self, Endpoint, Envelope};

pub use body::is_json;
pub use passing::is_standard;
pub(crate) use passing::refuse_header;
pub use relayed::{Treatment, treatment};
pub use target::is_host;

/// An HTTP request as the proxy saw it, before any normalisation.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// The method, upper case.
    pub method: &'a str,
    /// `host[:port]`; empty where the caller does not say.
    pub host: &'a str,
    /// The raw target, query included, not decoded.
    pub path: &'a str,
    /// Names in lower case, duplicates kept.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, as far as it was sent along.
    pub body: Body<'a>,
}

/// The body of a request, as far as it was sent along.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Not sent along.
    Absent,
    /// Cut off.
    Partial,
    /// All of it; empty where the request has none.
    Whole(&'a [u8]),
}

/// The operation that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Operation id.
    pub operation: SmolStr,
    /// Arguments: one object.
    pub arguments: Arc<Value>,
    /// Index of the route in the order of files and lines.
    pub route: usize,
    /// What came to an MCP endpoint; none where the route leads to an operation.
    pub mcp: Option<Envelope>,
    /// The task that the body names.
    pub task: Option<String>,
}

/// Why a request asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    /// `NoRoute`, `AmbiguousRequest` or `BadInput`; at an MCP endpoint also `HeaderMismatch` or `UnknownOperation`.
    pub reason: ReasonCode,
    /// What happened: no values of the request.
    pub message: String,
    /// The request was read whole, in the only way it can be read, and asks for what no route provides.
    pub understood: bool,
    /// What came to an MCP endpoint; none where no route matches, or one that leads to an operation.
    pub mcp: Option<Box<Envelope>>,
    /// The operation that its route leads to; empty where no route matches, and at an MCP endpoint.
    pub operation: SmolStr,
    /// The task that the body names.
    pub task: Option<String>,
}

/// A route as the bundle says it.
#[derive(Clone, Debug)]
pub struct RouteSpec {
    /// `host` or `host:port`; none: any host.
    pub host: Option<Declared<String>>,
    /// The method, upper case.
    pub method: Declared<String>,
    /// Literal and `{name}` segments.
    pub path: Declared<String>,
    /// Headers that must be there once, with exactly this value.
    pub headers: Vec<(Declared<String>, String)>,
    /// A known operation id.
    pub operation: String,
    /// The MCP endpoint that it leads to, for every method that such a one has; then `method` and `arguments` count for
    /// nothing, and `operation` takes no arguments that it needs.
    pub mcp: Option<Arc<Endpoint>>,
    /// Argument name to where it comes from.
    pub arguments: Vec<(String, Declared<Source>)>,
    /// What is no argument.
    pub ignore: Vec<Declared<Ignore>>,
    /// Types of the body that it reads; empty: `application/json`.
    pub content_types: Vec<Declared<String>>,
    /// The upstream gets the evidence in `authorization`, and its proof.
    pub forward_authorization: bool,
    /// Where it stands.
    pub at: Location,
}

/// Where an argument comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A `{name}` segment of the path.
    Path(String),
    /// A member of the query.
    Query(String),
    /// A header, in lower case.
    Header(String),
    /// A JSON pointer into the body.
    Json(String),
}

/// A part of a request that is no argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ignore {
    /// A `{name}` segment of the path.
    Path(String),
    /// A member of the query.
    Query(String),
    /// A JSON pointer into the body, with all below it.
    Json(String),
    /// The whole body, of whatever kind.
    Body,
}

/// The compiled routes of a bundle.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// By method: the root of its tree in `nodes`.
    methods: Table<SmolStr, usize>,
    nodes: Vec<Node>,
    routes: Vec<Route>,
    /// What the bundle says of each route, in the order of files and lines, that its requests are answered by.
    entries: Vec<host::Entry>,
}

/// One segment deep in the tree of paths.
#[derive(Clone, Debug, Default)]
struct Node {
    literal: Table<SmolStr, usize>,
    any: Option<usize>,
    routes: Vec<usize>,
}

/// A route; its words stand in it, so that a request reads few places of memory.
#[derive(Clone, Debug)]
struct Route {
    /// Index of what the bundle says.
    spec: usize,
    operation: SmolStr,
    mcp: Option<Arc<Endpoint>>,
    host: Option<SmolStr>,
    headers: Vec<(SmolStr, SmolStr)>,
    /// For each `{name}` segment in order: its position, and what it fills.
    path: Vec<(usize, Option<Filled>)>,
    /// For each member of the query, sorted by name: what it fills.
    query: Vec<(SmolStr, Option<Filled>)>,
    /// For each header: what it fills.
    header_arguments: Vec<(SmolStr, Filled)>,
    body: BodyRule,
    /// Types of the body that it reads.
    content_types: Vec<SmolStr>,
    /// Names of the operation's arguments and of the members that fill them, folded.
    names: Vec<SmolStr>,
}

/// The argument that a text fills.
#[derive(Clone, Debug)]
struct Filled {
    argument: SmolStr,
    form: Form,
}

/// How the text of a path, query or header becomes JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Integer,
    Number,
    Bool,
    /// A list of the like: a member of the query may be repeated.
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
    /// There must be none.
    None,
    /// It is not looked at.
    Ignored,
    /// It is JSON, and each member is mapped or ignored.
    Json(JsonRule),
}

/// What becomes of the members of a body; a tree over pointers.
#[derive(Clone, Debug, Default)]
struct JsonRule {
    /// The argument that this value fills.
    argument: Option<String>,
    /// Whether this value, with all below it, is dropped.
    ignored: bool,
    members: Table<String, JsonRule>,
}

impl RouteError {
    /// A request that was read whole, in the only way it can be read.
    #[must_use]
    pub fn new(reason: ReasonCode, message: impl Into<String>) -> Self {
        let (message, operation) = (message.into(), SmolStr::default());
        Self { reason, message, understood: true, mcp: None, operation, task: None }
    }

    /// A request that was not read, or not all of it, or that can be read in another way.
    pub fn unread(reason: ReasonCode, message: impl Into<String>) -> Self {
        Self { understood: false, ..Self::new(reason, message) }
    }
}

fn ambiguous<T>(message: impl Into<String>) -> Result<T, RouteError> {
    Err(RouteError::unread(ReasonCode::AmbiguousRequest, message))
}

/// Read, but not what the route provides for.
fn bad<T>(message: impl Into<String>) -> Result<T, RouteError> {
    Err(RouteError::new(ReasonCode::BadInput, message))
}

/// Not read, or not all of it.
fn unread<T>(message: impl Into<String>) -> Result<T, RouteError> {
    Err(RouteError::unread(ReasonCode::BadInput, message))
}

impl RouteTable {
    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The operation and arguments of a request.
    ///
    /// # Errors
    /// `AmbiguousRequest` where two readers could read the request differently, `NoRoute` where no route matches it,
    /// `BadInput` where it carries more or other than its route maps.
    pub fn resolve(&self, request: &HttpRequest<'_>) -> Result<Routed, RouteError> {
        self.routed(request).map_err(|error| {
            // What was cut off may say anything.
            let is_whole = !matches!(request.body, Body::Partial);
            RouteError { understood: error.understood && is_whole, ..error }
        })
    }

    fn routed(&self, request: &HttpRequest<'_>) -> Result<Routed, RouteError> {
        let target = target::split(request.path)?;
        Self::overrides(request)?;
        let Some(index) = self.find(request, &target.segments)? else {
            let message = "no route matches the method, host, path and headers";
            return Err(RouteError::new(ReasonCode::NoRoute, message));
        };
        let Some(route) = self.routes.get(index) else {
            return ambiguous("the route table is inconsistent");
        };
        if let Some(endpoint) = &route.mcp {
            return route.message(endpoint, request, target.query);
        }
        let arguments = route
            .arguments(request, &target)
            .map_err(|error| RouteError { operation: route.operation.clone(), ..error })?;
        Ok(Routed {
            operation: route.operation.clone(),
            arguments: Arc::new(Value::Object(arguments.members)),
            route: route.spec,
            mcp: None,
            task: None,
        })
    }

    /// Method, host (none: every host), path and operation of each route, in the order of files and lines.
    pub fn declared(&self) -> impl Iterator<Item = (&str, Option<&str>, &str, &str)> {
        self.entries.iter().map(|entry| {
            let host = entry.host.as_deref();
            (entry.method.as_str(), host, entry.path.as_str(), entry.operation.as_str())
        })
    }

    /// For each route the host that it is for, none where it is for all, and its system.
    pub fn served(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.routes.iter().map(|route| {
            let system = route.operation.split_once('.').map_or("", |(system, _)| system);
            (route.host.as_deref(), system)
        })
    }

    /// Refuses headers by which the request would be another one, or the first of others, behind the proxy.
    fn overrides(request: &HttpRequest<'_>) -> Result<(), RouteError> {
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
                Some(Treatment::Protocol) => "asks for another protocol, which nobody judges",
                Some(Treatment::Removed | Treatment::Refused | Treatment::SameMethod) => {
                    "overrides the request line"
                }
            };
            return ambiguous(format!("the header `{name}` {defect}"));
        }
        Ok(())
    }

    fn find(
        &self,
        request: &HttpRequest<'_>,
        segments: &[target::Segment<'_>],
    ) -> Result<Option<usize>, RouteError> {
        let root = self.methods.get(request.method).and_then(|root| self.nodes.get(*root));
        let mut reached: SmallVec<[&Node; 4]> = root.into_iter().collect();
        for segment in segments {
            // A literal is matched undecoded: an encoded one has another spelling, which upstreams may not share.
            let mut next: SmallVec<[&Node; 4]> = SmallVec::new();
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

impl Route {
    fn host_matches(&self, host: &str) -> bool {
        let Some(wanted) = &self.host else { return true };
        if host.eq_ignore_ascii_case(wanted) {
            return true;
        }
        // A route without a port is for every port; what follows the last colon of an address in brackets is none.
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

    fn headers_match(&self, headers: &[(&str, &str)]) -> Result<bool, RouteError> {
        for (name, wanted) in &self.headers {
            match once(headers, name)? {
                Some(value) if value == wanted => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// What a request to the MCP endpoint asks for.
    fn message(
        &self,
        endpoint: &Endpoint,
        request: &HttpRequest<'_>,
        query: Option<&str>,
    ) -> Result<Routed, RouteError> {
        let at_endpoint = |error: RouteError| RouteError {
            mcp: Some(Box::new(endpoint.envelope(request.method))),
            ..error
        };
        // Nothing of it is an argument: each member is ignored, or refused.
        let mut beside = self.query_arguments(query, &mut Filling::default());
        if request.method != "POST" {
            beside = beside.and_then(|()| body::none(request));
        }
        if let Err(error) = &beside
            && !error.understood
        {
            return Err(at_endpoint(error.clone()));
        }
        // Read whatever stands beside it: the task that it names is looked at in any case.
        let mcp::Call { operation, arguments, task, envelope } = endpoint.read(request)?;
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
                Err(RouteError { mcp: Some(Box::new(envelope)), operation, task, ..error })
            }
        }
    }

    /// The arguments that a request gives.
    fn arguments(
        &self,
        request: &HttpRequest<'_>,
        target: &target::Target<'_>,
    ) -> Result<Filling, RouteError> {
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
    ) -> Result<(), RouteError> {
        for (position, filled) in &self.path {
            let (Some(segment), Some(filled)) = (segments.get(*position), filled) else {
                continue;
            };
            out.text(filled, &segment.decode()?)?;
        }
        Ok(())
    }

    fn query_arguments(&self, query: Option<&str>, out: &mut Filling) -> Result<(), RouteError> {
        // All of it is read before any is looked for; how many there are is bounded.
        let pairs = target::query(query)?;
        let mut seen: SmallVec<[bool; 16]> = SmallVec::from_elem(false, self.query.len());
        let mut lists: Vec<(&str, Vec<Value>)> = Vec::new();
        for (name, value) in &pairs {
            let at = self.query.binary_search_by(|(known, _)| known.as_str().cmp(name));
            let found = at.ok().and_then(|at| Some((self.query.get(at)?, seen.get_mut(at)?)));
            let Some(((_, filled), seen)) = found else {
                return self.unknown_member(name, "query");
            };
            let Some(filled @ Filled { argument, form }) = filled else { continue };
            // Without `=` some readers see an empty text, and Rack sees nothing.
            let Some(value) = value else {
                return ambiguous(format!(
                    "the argument `{argument}` stands in the query without `=`"
                ));
            };
            let again = std::mem::replace(seen, true);
            if let Form::List(scalar) = form {
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
    ) -> Result<(), RouteError> {
        for (header, filled) in &self.header_arguments {
            let Some(value) = once(headers, header)? else { continue };
            // A proxy joins headers of one name with commas; then the first reader's value is not the second's. Beyond ASCII
            // most servers read Latin-1 (RFC 9110 §5.5 names no encoding), others UTF-8.
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
    ) -> Result<(), RouteError> {
        if matches!(request.body, Body::Partial) {
            return body::cut_off();
        }
        match &self.body {
            BodyRule::None => body::none(request),
            BodyRule::Ignored => self.pass_over(request),
            BodyRule::Json(rule) => match self.read(rule, request)? {
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
    ) -> Result<(), RouteError> {
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

impl Form {
    fn value(self, text: &str, argument: &str) -> Result<Value, RouteError> {
        let fail = |wanted: &str| bad(format!("the argument `{argument}` is not {wanted}"));
        let number = || json::parse(text.as_bytes(), json::Limits::default()).ok();
        match self {
            Self::Text => Ok(Value::String(text.to_owned())),
            // Both go to the schema of the operation, which checks their range.
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
    const fn form(self) -> Form {
        match self {
            Self::Text => Form::Text,
            Self::Integer => Form::Integer,
            Self::Number => Form::Number,
            Self::Bool => Form::Bool,
        }
    }
}

/// The value of a header that stands there at most once, and in no other spelling.
///
/// CGI (RFC 3875 §4.1.18) and what follows it read `x_id` and `x-id` as one `HTTP_X_ID`.
pub fn once<'a>(headers: &[(&str, &'a str)], name: &str) -> Result<Option<&'a str>, RouteError> {
    let mut found = None;
    for (spelling, value) in headers.iter().filter(|(n, _)| is_spelling(n, name)) {
        if *spelling != name {
            return ambiguous(format!("the header `{name}` stands there with `_` and `-` swapped"));
        }
        if found.replace(*value).is_some() {
            return ambiguous(format!("the header `{name}` stands twice"));
        }
    }
    Ok(found)
}

/// Whether two header names are the same to who takes `_` for `-`.
pub fn is_spelling(a: &str, b: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    a.len() == b.len() && a.bytes().map(dashed).eq(b.bytes().map(dashed))
}

/// Arguments, filled one after the other.
///
/// INVARIANT (once): a route fills each argument from one source, so that no name stands twice.
#[derive(Default)]
struct Filling {
    members: Vec<(String, Value)>,
}

impl Filling {
    /// Adds an argument that a text of the request fills.
    fn text(&mut self, filled: &Filled, text: &str) -> Result<(), RouteError> {
        let Filled { argument, form } = filled;
        self.put(argument, form.value(text, argument)?);
        Ok(())
    }

    fn put(&mut self, argument: &str, value: Value) {
        self.members.push((argument.to_owned(), value));
    }
}

#[cfg(test)]
mod tests;
