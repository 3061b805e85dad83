#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use proptest::prelude::*;

use super::*;

const JSON: (&str, &str) = ("content-type", "application/json");
const V25: (&str, &str) = ("mcp-protocol-version", "2025-11-25");

fn endpoint() -> Endpoint {
    let tools = [("read", "s.read"), ("a b", "s.a_b"), ("tools/list", "s.tools/list")];
    let tools = tools.map(|(name, operation)| (name.to_owned(), operation.to_owned()));
    Endpoint { system: "s".to_owned(), tools: tools.into() }
}

fn ask(body: &str, headers: &[(&str, &str)]) -> Result<Call, RouteError> {
    let body = Body::Whole(body.as_bytes());
    endpoint().read(&HttpRequest { method: "POST", host: "h", path: "/mcp", headers, body })
}

fn text(value: &json::Value) -> String {
    let mut text = String::new();
    value.write(&mut text);
    text
}

/// Operation and arguments, or the reason with what kind of message it was.
fn asked(body: &str, more: &[(&str, &str)]) -> Result<(String, String), (ReasonCode, Kind)> {
    let headers: Vec<_> = [JSON, V25].iter().chain(more).copied().collect();
    match ask(body, &headers) {
        Ok(call) => Ok((call.operation, text(&call.arguments))),
        Err(error) => Err((error.reason, error.mcp.unwrap().kind)),
    }
}

fn ok(operation: &str, arguments: &str) -> Result<(String, String), (ReasonCode, Kind)> {
    Ok((operation.to_owned(), arguments.to_owned()))
}

fn call(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
}

#[test]
fn a_tool_is_called_by_its_name_and_with_its_arguments_as_written() {
    let arguments = r#"{"n":1.10,"big":123456789012345678901,"t":"é","l":[{"a":null}]}"#;
    let body = call(&format!(r#"{{"name":"read","arguments":{arguments},"_meta":{{"x":1}}}}"#));
    assert_eq!(ok("s.read", arguments), asked(&body, &[]));
    assert_eq!(ok("s.a_b", "{}"), asked(&call(r#"{"name":"a b"}"#), &[]));
    // The id of a tool's operation is no name of a tool.
    let unknown = Err((ReasonCode::UnknownOperation, Kind::ToolCall));
    for name in ["a_b", "Read", "s.read", "", "mcp", "read\\u0000"] {
        assert_eq!(unknown, asked(&call(&format!(r#"{{"name":"{name}"}}"#)), &[]), "{name}");
    }
}

/// A reader that looks for the first `"method"` reads another method than one that takes the last.
#[test]
fn a_message_that_two_readers_read_differently_is_refused() {
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"read"}}"#;
    let naive: serde_json::Value = serde_json::from_str(twice).unwrap();
    assert_eq!("tools/call", naive["method"], "the last wins for most");
    assert!(twice.split(r#""method":""#).nth(1).unwrap().starts_with("ping"), "the first for some");
    assert_eq!(Err((ReasonCode::BadInput, Kind::Unread)), asked(twice, &[]));

    let folded = r#"{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}"#;
    assert_eq!(Err((ReasonCode::AmbiguousRequest, Kind::Unread)), asked(folded, &[]));
    for member in ["Name", "NAME", "argument\u{17f}", "Arguments"] {
        let body = call(&format!(r#"{{"name":"read","{member}":"x"}}"#));
        let refused = ask(&body, &[JSON, V25]).unwrap_err();
        assert_eq!(ReasonCode::AmbiguousRequest, refused.reason, "{member}");
        assert!(!refused.understood);
    }

    let batch = format!("[{}]", call(r#"{"name":"read"}"#));
    assert_eq!(Err((ReasonCode::BadInput, Kind::Unread)), asked(&batch, &[]));
}

/// Who goes by the header believes another tool than who goes by the message.
#[test]
fn a_header_that_says_something_else_is_refused() {
    let body = call(r#"{"name":"a b"}"#);
    let mismatch = Err((ReasonCode::HeaderMismatch, Kind::ToolCall));
    for header in [
        ("mcp-name", "read"),
        ("mcp-name", ""),
        ("mcp-name", "=?base64?cmVhZA==?="),
        ("mcp-name", "=?base64?YSBi"),
        ("mcp-name", "=?BASE64?YSBi?="),
        ("mcp-name", "=?base64?YSBj?="),
        ("mcp-method", "tools/list"),
        ("mcp-method", "TOOLS/CALL"),
        ("mcp-method", "=?base64?dG9vbHMvY2FsbA==?="),
    ] {
        assert_eq!(mismatch, asked(&body, &[header]), "{header:?}");
    }
    for header in
        [("mcp-name", "a b"), ("mcp-name", "=?base64?YSBi?="), ("mcp-method", "tools/call")]
    {
        assert_eq!(ok("s.a_b", "{}"), asked(&body, &[header]), "{header:?}");
    }
    // Joined or twice, nobody knows which value somebody else reads.
    let ambiguous = Err((ReasonCode::AmbiguousRequest, Kind::ToolCall));
    assert_eq!(ambiguous, asked(&body, &[("mcp-name", "a b,read")]));
    assert_eq!(ambiguous, asked(&body, &[("mcp-name", "a b"), ("mcp-name", "a b")]));
}

#[test]
fn what_is_part_of_the_protocol_is_one_operation_that_knows_the_method() {
    for method in [
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "resources/subscribe",
        "tools/list",
        "resources/templates/list",
        "completion/complete",
        "logging/setLevel",
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":"a","method":"{method}"}}"#);
        assert_eq!(ok("s.mcp", &format!(r#"{{"method":"{method}"}}"#)), asked(&body, &[]));
        // Without an id it asks for no answer, and some servers do it all the same.
        let silent = format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#);
        assert_eq!(Err((ReasonCode::BadInput, Kind::Unread)), asked(&silent, &[]), "{method}");
    }
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}"#;
    assert_eq!(ok("s.mcp", r#"{"method":"notifications/cancelled"}"#), asked(notification, &[]));
    let response = r#"{"jsonrpc":"2.0","id":9,"result":{"content":"x"}}"#;
    assert_eq!(ok("s.mcp", r#"{"method":"response"}"#), asked(response, &[]));
    for method in ["response", "GET", "tasks/update", "tasks/", "TOOLS/LIST", "tools/call/"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        let unknown = Err((ReasonCode::UnknownOperation, Kind::Request));
        assert_eq!(unknown, asked(&body, &[]), "{method}");
    }
}

#[test]
fn ids_and_methods_are_bounded() {
    let with = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"nothing"}}"#);
    let id = |id: &str| ask(&with(id), &[JSON, V25]).unwrap_err().mcp.unwrap().id;
    let longest = "é".repeat(128);
    assert_eq!(Some(Id::Text(longest.clone())), id(&format!("\"{longest}\"")));
    assert_eq!(None, id(&format!("\"{longest}a\"")));
    assert_eq!(Some(Id::Number(-9_007_199_254_740_992)), id("-9007199254740992"));
    for odd in ["9007199254740993", "-0", "1.0", "1e3", "null", "true", "[1]"] {
        assert_eq!(None, id(odd), "{odd}");
    }
    let method = |length: usize| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(length));
        asked(&body, &[]).unwrap_err()
    };
    assert_eq!((ReasonCode::UnknownOperation, Kind::Request), method(128));
    assert_eq!((ReasonCode::BadInput, Kind::Unread), method(129));
    assert_eq!((ReasonCode::BadInput, Kind::Unread), method(0));
}

#[test]
fn a_revision_is_named_and_spoken() {
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    for version in VERSIONS {
        let call = ask(list, &[JSON, ("mcp-protocol-version", version)]);
        let envelope = call.map(|call| call.envelope).map_err(|error| *error.mcp.unwrap());
        let envelope = envelope.unwrap_or_else(|envelope| envelope);
        assert_eq!((Some(version), false), (envelope.version, envelope.unsupported));
    }
    for version in ["2025-03-26", "2024-11-05", "2026-07-29", "", "2025-06-18 "] {
        let refused = ask(list, &[JSON, ("mcp-protocol-version", version)]).unwrap_err();
        assert_eq!(ReasonCode::BadInput, refused.reason, "{version}");
        assert!(refused.mcp.unwrap().unsupported);
        assert!(!refused.understood, "what it means is not known");
    }
    assert_eq!(ReasonCode::BadInput, ask(list, &[JSON]).unwrap_err().reason);
}

#[test]
fn what_has_to_do_with_tasks_of_the_server_is_told() {
    let of = |method: &str, params: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let call = ask(&body, &[JSON, V25]).map_err(|error| error.reason)?;
        Ok((call.operation, call.envelope.server_task))
    };
    let tool =
        |task: &str| of("tools/call", &format!(r#"{{"name":"read","arguments":{{}}{task}}}"#));
    let is = |name: &str, kind| Ok((name.to_owned(), kind));
    assert_eq!(is("s.read", ServerTask::None), tool(""));
    assert_eq!(is("s.read", ServerTask::None), tool(r#","task":null"#));
    assert_eq!(is("s.read", ServerTask::Begins), tool(r#","task":{}"#));
    assert_eq!(is("s.read", ServerTask::Begins), tool(r#","task":{"ttl":60000}"#));
    for bad in ["true", "[]", r#"{"ttl":-1}"#, r#"{"ttl":"1"}"#, r#"{"ttl":1.5}"#, r#"{"for":1}"#] {
        assert_eq!(Err(ReasonCode::BadInput), tool(&format!(r#","task":{bad}"#)), "{bad}");
    }
    assert_eq!(Err(ReasonCode::AmbiguousRequest), tool(r#","task":{"TTL":1}"#));
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        assert_eq!(is("s.mcp", ServerTask::Follows), of(method, r#"{"taskId":"1"}"#));
        for bad in ["{}", r#"{"taskId":""}"#, r#"{"taskId":1}"#, r#"{"taskId":"1","more":1}"#] {
            assert_eq!(Err(ReasonCode::BadInput), of(method, bad), "{method} {bad}");
        }
    }
    assert_eq!(is("s.mcp", ServerTask::Follows), of("tasks/list", r#"{"cursor":"x"}"#));
    assert_eq!(Err(ReasonCode::BadInput), of("tasks/list", r#"{"taskId":"1"}"#));
    assert_eq!(
        Err(ReasonCode::BadInput),
        of("prompts/get", r#"{"name":"p","arguments":{},"task":{}}"#)
    );
}

#[test]
fn the_task_of_a_message_is_told() {
    let task = |meta: &str| {
        let body = call(&format!(r#"{{"name":"read","_meta":{meta}}}"#));
        ask(&body, &[JSON, V25]).map(|call| call.task).map_err(|error| error.reason)
    };
    assert_eq!(Ok(Some("t-1".to_owned())), task(r#"{"dev.authz/task":"t-1"}"#));
    assert_eq!(Ok(None), task(r#"{"dev.authz/tasks":"t-1"}"#));
    let long = format!(r#"{{"dev.authz/task":"{}"}}"#, "t".repeat(257));
    for bad in [r#"{"dev.authz/task":null}"#, r#"{"dev.authz/task":["t"]}"#, "[]", &long] {
        assert_eq!(Err(ReasonCode::BadInput), task(bad), "{bad}");
    }
}

/// A message made of parts that are right or almost right.
fn messages() -> impl Strategy<Value = String> {
    let member = prop::sample::select(vec![
        r#""jsonrpc":"2.0""#,
        r#""id":1"#,
        r#""id":"a""#,
        r#""id":null"#,
        r#""method":"tools/call""#,
        r#""method":"tools/list""#,
        r#""method":"notifications/x""#,
        r#""Method":"tools/call""#,
        r#""params":{"name":"read"}"#,
        r#""params":{"name":"read","arguments":{"a":1}}"#,
        r#""params":{"uri":"a:b"}"#,
        r#""params":[]"#,
        r#""result":{}"#,
        r#""error":{}"#,
    ]);
    prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")))
}

proptest! {
    /// Whatever is read is a JSON object for a known operation, and the same when read by a plain reader.
    #[test]
    fn random_messages_are_refused_or_read_as_everybody_reads_them(body in messages()) {
        if let Ok(call) = ask(&body, &[JSON, V25]) {
            let plain: serde_json::Value = serde_json::from_str(&body).unwrap();
            let arguments = text(&call.arguments);
            let arguments: serde_json::Value = serde_json::from_str(&arguments).unwrap();
            prop_assert!(arguments.is_object());
            if call.envelope.kind == Kind::ToolCall {
                prop_assert_eq!("s.read", call.operation);
                let said = plain["params"]["arguments"].clone();
                let said = if said.is_null() { serde_json::json!({}) } else { said };
                prop_assert_eq!(said, arguments);
            } else if let Some(method) = plain["method"].as_str() {
                prop_assert_eq!(Some(method), arguments["method"].as_str().or(Some("resources/read")));
            }
        }
    }
}
