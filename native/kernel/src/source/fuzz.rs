//! What a fuzzer calls with random bytes: plain functions, so that tests run the same bodies over a fixed corpus.

use std::collections::BTreeMap;

use crate::decision::Time;
use crate::destinations::DestinationIndex;
use crate::json;
use crate::mcp::{Endpoint, EndpointTool, MessageKind};
use crate::model::DestinationKind;
use crate::routes::{Body, HttpRequest};
use crate::task;

/// Reads the bytes as one YAML file of a bundle.
pub fn bundle_file(bytes: &[u8]) {
    let vars = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let mut files = BTreeMap::from([
        ("bundle.yaml".to_owned(), b"{name: fuzz, tasks: optional}".to_vec()),
        ("facts.yaml".to_owned(), bytes.to_vec()),
    ]);
    drop(super::load(&files, &vars));
    files.insert("bundle.yaml".to_owned(), bytes.to_vec());
    drop(super::load(&files, &vars));
}

/// Starts a task with the bytes as its scope, in JSON, and its prompt; a scope that was given can be given on.
pub fn task(bytes: &[u8], plan: &crate::plan::Plan) {
    let text = String::from_utf8_lossy(bytes);
    let params = BTreeMap::from([("name".to_owned(), task::Param::Text(text.trim().to_owned()))]);
    let said = [task::Part::of_user(&text)];
    let read = task::read_names(&said, &params, task::Speaker::Subject, &[1; 32]);
    assert!(read.words.len() <= task::MAX_WORDS, "too many words");
    let names = read.names;
    assert!(names.user.len() <= task::MAX_LITERALS, "too many literals");
    let scope: Vec<task::ScopeEntry> = serde_json::from_slice(bytes).unwrap_or_default();
    let Ok(agent) = task::AgentName::parse("spiffe://a.example/x") else { return };
    let root = task::Root {
        template: "wide",
        params: &params,
        scope: &scope,
        kind: task::TaskKind::Root,
        assignee: agent.clone(),
        subject: None,
        subject_proof: task::SubjectProof::Itself,
        starter: String::new(),
        deadline: None,
        tier_cap: None,
        names,
        now: Time(0),
        id: "t".to_owned(),
        session: "s".to_owned(),
    };
    let Ok(root) = task::start(plan, root) else { return };
    let child = task::Child {
        template: None,
        params: &BTreeMap::new(),
        scope: &root.scope,
        assignee: agent,
        starter: String::new(),
        deadline: None,
        now: Time(0),
        id: "c".to_owned(),
    };
    let child = task::delegate(plan, &root, child).map(|child| child.scope);
    assert_eq!(Ok(&root.scope), child.as_ref(), "a scope does not hold itself");
}

/// Reads the bytes as JSON. The value equals the one that `serde_json` reads, and is the same after it is written and read
/// again. Bytes that are refused as JSON are refused by `serde_json`, too.
pub fn json_text(bytes: &[u8]) {
    let plain = serde_json::from_slice::<serde_json::Value>(bytes);
    let value = match (json::parse(bytes, json::Limits::default()), &plain) {
        (Ok(value), _) => value,
        (Err(error), Ok(_)) => {
            assert!(is_stricter(&error), "a text that is JSON is refused: {error}");
            return;
        }
        (Err(_), Err(_)) => return,
    };
    match &plain {
        Ok(plain) => assert!(is_same(&value, plain), "two readers differ: {value:?} {plain}"),
        Err(error) => assert!(has_huge(&value), "a text that is no JSON is read: {error}"),
    }
    let mut text = String::new();
    value.write(&mut text);
    let limits = json::Limits { bytes: usize::MAX, ..json::Limits::default() };
    assert_eq!(text.len(), value.written_len(), "JSON is as long as it says");
    assert_eq!(Ok(value), json::parse(text.as_bytes(), limits), "JSON changes when written");
}

/// Whether an error is of a rule that `serde_json` does not have: bounds, and names that differ.
fn is_stricter(error: &json::JsonError) -> bool {
    use json::JsonErrorKind::{Duplicate, NotUtf8, Syntax, TooDeep, TooLong, TooManyValues};
    match error.kind {
        TooLong | TooDeep | TooManyValues | Duplicate => true,
        // Numbers of more characters than are read.
        Syntax => error.what == "not a number",
        NotUtf8 => false,
    }
}

/// Whether a value holds a number beyond all doubles, which `serde_json` refuses.
fn has_huge(value: &json::Value) -> bool {
    match value {
        json::Value::Decimal(text) => text.parse::<f64>().is_ok_and(f64::is_infinite),
        json::Value::Array(items) => items.iter().any(has_huge),
        json::Value::Object(members) => members.iter().any(|(_, value)| has_huge(value)),
        _ => false,
    }
}

fn is_same(value: &json::Value, plain: &serde_json::Value) -> bool {
    use serde_json::Value as Plain;
    match (value, plain) {
        (json::Value::Null, Plain::Null) => true,
        (json::Value::Bool(value), Plain::Bool(plain)) => value == plain,
        (json::Value::Integer(value), Plain::Number(plain)) => plain.as_i64() == Some(*value),
        // `serde_json` reads the last digits of a double roughly.
        (json::Value::Decimal(text), Plain::Number(plain)) => {
            let (value, plain) = (text.parse::<f64>(), plain.as_f64());
            value.ok().zip(plain).is_some_and(|(value, plain)| {
                (value - plain).abs() <= value.abs().mul_add(1e-12, f64::MIN_POSITIVE)
            })
        }
        (json::Value::String(value), Plain::String(plain)) => value == plain,
        (json::Value::Array(values), Plain::Array(plain)) => {
            values.len() == plain.len() && values.iter().zip(plain).all(|(a, b)| is_same(a, b))
        }
        (json::Value::Object(members), Plain::Object(plain)) => {
            let all = || members.iter().zip(plain);
            members.len() == plain.len() && all().all(|((a, x), (b, y))| a == b && is_same(x, y))
        }
        _ => false,
    }
}

/// Routes a request: the first line is the method, the second the target, then headers up to an empty line, and the
/// body.
pub fn request(bytes: &[u8], table: &crate::routes::RouteTable) {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let (method, path) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let body = Body::Whole(body.as_bytes());
    let routed = table.resolve(&HttpRequest { method, host: "", path, headers: &headers, body });
    if let Ok(routed) = routed {
        readable(&routed.arguments);
    }
}

/// Checks that arguments are equal to a plain reading of their text: one object, in which no name stands twice.
fn readable(arguments: &json::Value) {
    let mut text = String::new();
    arguments.write(&mut text);
    assert!(matches!(arguments, json::Value::Object(_)), "arguments are no JSON object");
    let again = json::parse(text.as_bytes(), json::Limits::default());
    assert_eq!(Ok(arguments), again.as_ref(), "arguments change when written");
}

/// Reads the bytes as a request to an MCP endpoint: headers up to an empty line, and the message. A tool that is called must
/// be the one that a reader who knows only JSON finds.
pub fn message(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\n\n").unwrap_or(("", &text));
    let mut headers: Vec<(&str, &str)> =
        head.lines().filter_map(|line| line.split_once(": ")).collect();
    if headers.is_empty() {
        headers.push(("mcp-protocol-version", "2025-11-25"));
    }
    let tool = EndpointTool { operation: "wiki.read".to_owned(), ..EndpointTool::default() };
    let endpoint = Endpoint {
        system: "wiki".to_owned(),
        tools: BTreeMap::from([("read".to_owned(), tool)]),
        ..Endpoint::default()
    };
    for method in ["POST", "GET"] {
        let body = Body::Whole(body.as_bytes());
        let request = HttpRequest { method, host: "", path: "/mcp", headers: &headers, body };
        let Ok(call) = endpoint.read(&request) else { continue };
        readable(&call.arguments);
        if call.envelope.kind == MessageKind::ToolCall {
            let Body::Whole(bytes) = request.body else { continue };
            let plain: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
            assert_eq!(
                Some("read"),
                plain.pointer("/params/name").and_then(|n| n.as_str()),
                "another tool is called"
            );
        }
    }
}

/// Classifies a destination of each kind; a canonical form must be its own canonical form.
pub fn destination(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let destinations = DestinationIndex::default();
    for kind in [
        DestinationKind::Email,
        DestinationKind::UrlHost,
        DestinationKind::Iban,
        DestinationKind::Account,
        DestinationKind::Path,
    ] {
        let Ok(placed) = destinations.classify(kind, text) else { continue };
        if kind != DestinationKind::UrlHost {
            let again = destinations.classify(kind, &placed.canonical);
            assert_eq!(Ok(&placed), again.as_ref(), "a canonical form changes");
        }
    }
}
