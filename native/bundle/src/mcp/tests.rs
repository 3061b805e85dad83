#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
use proptest::prelude::*;

use super::*;
use authz_base::reason::ReasonCode;

const JSON: (&str, &str) = ("content-type", "application/json");
const V25: (&str, &str) = ("mcp-protocol-version", "2025-11-25");

fn endpoint() -> Endpoint {
    let tools = [("read", "s.read"), ("a b", "s.a_b"), ("tools/list", "s.tools/list")];
    let region = serde_json::json!({"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "to": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "n"}}},
        "dry": {"type": "boolean", "x-mcp-header": "dry_run"},
    }});
    let mut tools: BTreeMap<String, EndpointTool> = tools
        .map(|(name, operation)| {
            let tool = EndpointTool { operation: operation.to_owned(), ..EndpointTool::default() };
            (name.to_owned(), tool)
        })
        .into();
    let headers = parameter_headers(&region);
    let takes_responses = true;
    let deploy = EndpointTool { operation: "s.deploy".to_owned(), headers, takes_responses };
    tools.insert("deploy".to_owned(), deploy);
    Endpoint { system: "s".to_owned(), tools, ..Endpoint::default() }
}

fn ask(body: &str, headers: &[(&str, &str)]) -> Result<McpCall, MessageError> {
    let body = Body::Whole(body.as_bytes());
    endpoint().read(&HttpRequest { method: "POST", host: "h", path: "/mcp", headers, body })
}

/// Nothing here knows whose events an id counts, so only an endpoint that says that it knows is asked for them.
#[test]
fn a_stream_is_resumed_where_the_bundle_says_so() {
    let resumed = |resumes_streams: bool, headers: &[(&str, &str)]| {
        let endpoint = Endpoint { resumes_streams, ..endpoint() };
        let headers: Vec<_> = [V25].iter().chain(headers).copied().collect();
        let body = Body::Whole(b"");
        let request =
            HttpRequest { method: "GET", host: "h", path: "/mcp", headers: &headers, body };
        endpoint.read(&request).map(|call| call.operation).map_err(|error| error.error.reason)
    };
    let (id, twin) = (("last-event-id", "1"), ("last_event_id", "1"));
    assert_eq!(Ok("s.mcp".to_owned()), resumed(false, &[]));
    assert_eq!(Err(ReasonCode::BadInput), resumed(false, &[id]));
    assert_eq!(Ok("s.mcp".to_owned()), resumed(true, &[id]));
    for headers in [&[id, id][..], &[twin], &[id, twin]] {
        for resumes_streams in [false, true] {
            let reason = Err(ReasonCode::AmbiguousRequest);
            assert_eq!(reason, resumed(resumes_streams, headers), "{headers:?}");
        }
    }
}

fn text(value: &json::Value) -> String {
    let mut text = String::new();
    value.write(&mut text);
    text
}

/// Operation and arguments; or the reason of the refusal, and the kind of the message.
fn asked(body: &str, more: &[(&str, &str)]) -> Result<(String, String), (ReasonCode, MessageKind)> {
    let headers: Vec<_> = [JSON, V25].iter().chain(more).copied().collect();
    match ask(body, &headers) {
        Ok(call) => Ok((call.operation, text(&call.arguments))),
        Err(error) => Err((error.error.reason, error.envelope.kind)),
    }
}

fn ok(operation: &str, arguments: &str) -> Result<(String, String), (ReasonCode, MessageKind)> {
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
    // The id of a tool's operation is not the name of a tool.
    let unknown = Err((ReasonCode::UnknownOperation, MessageKind::ToolCall));
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
    assert_eq!(Err((ReasonCode::BadInput, MessageKind::Unread)), asked(twice, &[]));

    let folded = r#"{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}"#;
    assert_eq!(Err((ReasonCode::AmbiguousRequest, MessageKind::Unread)), asked(folded, &[]));
    for member in ["Name", "NAME", "argument\u{17f}", "Arguments"] {
        let body = call(&format!(r#"{{"name":"read","{member}":"x"}}"#));
        let refused = ask(&body, &[JSON, V25]).unwrap_err();
        assert_eq!(ReasonCode::AmbiguousRequest, refused.error.reason, "{member}");
        assert!(!refused.error.understood);
    }

    let batch = format!("[{}]", call(r#"{"name":"read"}"#));
    assert_eq!(Err((ReasonCode::BadInput, MessageKind::Unread)), asked(&batch, &[]));
}

/// Who goes by the header believes another tool than who goes by the message.
#[test]
fn a_header_that_says_something_else_is_refused() {
    let body = call(r#"{"name":"a b"}"#);
    let mismatch = Err((ReasonCode::HeaderMismatch, MessageKind::ToolCall));
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
    let ambiguous = Err((ReasonCode::AmbiguousRequest, MessageKind::ToolCall));
    assert_eq!(ambiguous, asked(&body, &[("mcp-name", "a b,read")]));
    assert_eq!(ambiguous, asked(&body, &[("mcp-name", "a b"), ("mcp-name", "a b")]));
}

/// A message of a revision, as its clients send it; `params` without braces and without `_meta`.
fn sent(
    version: &str,
    method: &str,
    params: &str,
) -> Result<(String, String), (ReasonCode, MessageKind)> {
    let meta = match version {
        "2026-07-28" => {
            r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"roots":{"listChanged":true}},"progressToken":7}"#
        }
        _ => r#""_meta":{"progressToken":"a"}"#,
    };
    let id = if method.starts_with("notifications/") { "" } else { r#""id":1,"# };
    let between = if params.is_empty() { "" } else { "," };
    let body = format!(
        r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{{{params}{between}{meta}}}}}"#
    );
    let headers = [JSON, ("mcp-protocol-version", version), ("mcp-method", method)];
    match ask(&body, &headers) {
        Ok(call) => Ok((call.operation, text(&call.arguments))),
        Err(error) => Err((error.error.reason, error.envelope.kind)),
    }
}

const INITIALIZE: &str =
    r#""protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}"#;
const COMPLETE: &str = r#""ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"v"},"context":{"arguments":{"b":"c"}}"#;

/// Each method with the revisions that have it, the parameters that it needs, what its operation is told, and a parameter
/// that is wrong.
#[test]
fn every_method_of_the_protocol_is_listed_with_its_parameters_and_revisions() {
    let every: &[&str] = &["2025-06-18", "2025-11-25", "2026-07-28"];
    let (stateful, stateless, tasks) = (&every[..2], &every[2..], &every[1..2]);
    let said = |params: &str| format!(r#","params":{{{params}}}"#);
    let uri = r#""uri":"a:b""#;
    for (method, versions, params, told, wrong) in [
        ("initialize", stateful, INITIALIZE, said(INITIALIZE), r#""capabilities":{}"#),
        ("ping", stateful, "", String::new(), r#""x":1"#),
        ("server/discover", stateless, "", String::new(), r#""cursor":"c""#),
        ("tools/list", every, "", String::new(), r#""filter":"f""#),
        ("tools/list", every, r#""cursor":"c""#, said(r#""cursor":"c""#), r#""cursor":1"#),
        ("resources/list", every, "", String::new(), r#""uri":"a:b""#),
        ("resources/templates/list", every, "", String::new(), r#""cursor":null"#),
        ("prompts/list", every, "", String::new(), r#""name":"p""#),
        ("resources/subscribe", stateful, uri, format!(",{uri}"), ""),
        ("resources/unsubscribe", stateful, uri, format!(",{uri}"), r#""uri":["a:b"]"#),
        (
            "logging/setLevel",
            stateful,
            r#""level":"info""#,
            r#","level":"info""#.to_owned(),
            r#""level":"alice: 078-05-1120""#,
        ),
        ("completion/complete", every, COMPLETE, said(COMPLETE), r#""argument":{"name":"a"}"#),
        (
            "subscriptions/listen",
            stateless,
            r#""notifications":{"toolsListChanged":true}"#,
            String::new(),
            r#""notifications":{"toolsListChanged":1}"#,
        ),
        (
            "subscriptions/listen",
            stateless,
            r#""notifications":{"resourceSubscriptions":["a:b"]}"#,
            said(r#""notifications":{"resourceSubscriptions":["a:b"]}"#),
            r#""notifications":{"resourceSubscriptions":[1]}"#,
        ),
        ("tasks/get", tasks, r#""taskId":"1""#, said(r#""taskId":"1""#), ""),
        ("tasks/result", tasks, r#""taskId":"1""#, said(r#""taskId":"1""#), r#""taskId":1"#),
        ("tasks/cancel", tasks, r#""taskId":"1""#, said(r#""taskId":"1""#), r#""id":"1""#),
        ("tasks/list", tasks, "", String::new(), r#""taskId":"1""#),
        ("notifications/initialized", stateful, "", String::new(), r#""x":1"#),
        ("notifications/cancelled", every, r#""requestId":1"#, String::new(), r#""requestId":[1]"#),
        (
            "notifications/cancelled",
            every,
            r#""requestId":1,"reason":"r""#,
            said(r#""reason":"r""#),
            r#""requestId":1,"reason":{}"#,
        ),
        (
            "notifications/progress",
            stateful,
            r#""progressToken":1,"progress":0.5,"message":"m""#,
            said(r#""progressToken":1,"progress":0.5,"message":"m""#),
            r#""progress":1"#,
        ),
        ("notifications/roots/list_changed", stateful, "", String::new(), r#""roots":[]"#),
    ] {
        for version in every {
            let kind = if method.starts_with("notifications/") {
                MessageKind::Notification
            } else {
                MessageKind::Request
            };
            let got = sent(version, method, params);
            if versions.contains(version) {
                let arguments = format!(r#"{{"method":"{method}"{told}}}"#);
                assert_eq!(ok("s.mcp", &arguments), got, "{version} {method}");
                let refused = Err((ReasonCode::BadInput, kind));
                assert_eq!(refused, sent(version, method, wrong), "{version} {method} {wrong}");
                let more = [params, r#""more":1"#].into_iter().filter(|part| !part.is_empty());
                let more = more.collect::<Vec<_>>().join(",");
                assert_eq!(refused, sent(version, method, &more), "{version} {method} {more}");
            } else {
                let refused = Err((ReasonCode::UnknownOperation, kind));
                assert_eq!(refused, got, "{version} {method}");
            }
            let silent = format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#);
            if kind == MessageKind::Request {
                // Without an id it asks for no answer, and some servers do it all the same.
                assert_eq!(Err((ReasonCode::BadInput, MessageKind::Unread)), asked(&silent, &[]));
            }
        }
    }
}

#[test]
fn a_method_that_is_not_listed_is_refused() {
    for method in [
        "response",
        "GET",
        "tasks/update",
        "tasks/",
        "TOOLS/LIST",
        "tools/call/",
        "exfil/list",
        "completion/x",
        "logging/x",
        "sampling/createMessage",
        "elicitation/create",
        "roots/list",
    ] {
        let unknown = Err((ReasonCode::UnknownOperation, MessageKind::Request));
        assert_eq!(unknown, sent("2025-11-25", method, ""), "{method}");
    }
    for method in ["notifications/x", "notifications/message", "notifications/tasks/status"] {
        let unknown = Err((ReasonCode::UnknownOperation, MessageKind::Notification));
        assert_eq!(unknown, sent("2025-11-25", method, ""), "{method}");
    }
    let folded = sent("2025-11-25", "tools/list", r#""Cursor":"c""#);
    assert_eq!(Err((ReasonCode::AmbiguousRequest, MessageKind::Request)), folded);
    let null = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#;
    assert_eq!(Err((ReasonCode::BadInput, MessageKind::Unread)), asked(null, &[]));
}

#[test]
fn what_a_client_says_in_its_own_words_is_an_argument() {
    for (response, told) in [
        (r#""result":{}"#, ""),
        (r#""result":{"action":"accept"}"#, r#","params":{"result":{"action":"accept"}}"#),
        (
            r#""error":{"code":-1,"message":"m"}"#,
            r#","params":{"error":{"code":-1,"message":"m"}}"#,
        ),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":9,{response}}}"#);
        let arguments = format!(r#"{{"method":"response"{told}}}"#);
        assert_eq!(ok("s.mcp", &arguments), asked(&body, &[]));
    }
    for bad in [r#""result":1"#, r#""result":null"#, r#""error":"m""#, r#""error":{"code":1}"#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":9,{bad}}}"#);
        assert_eq!(Err((ReasonCode::BadInput, MessageKind::Unread)), asked(&body, &[]), "{bad}");
    }
    let meta = |meta: &str| {
        let params = format!(r#"{{"_meta":{{{meta}}}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{params}}}"#);
        asked(&body, &[])
    };
    let plain =
        r#""io.modelcontextprotocol/clientCapabilities":{"roots":{},"sampling":{"tools":{}}}"#;
    assert_eq!(ok("s.mcp", r#"{"method":"ping"}"#), meta(plain));
    for words in [
        r#""x":"words""#,
        r#""io.modelcontextprotocol/clientInfo":{"name":"n","version":"1"}"#,
        r#""io.modelcontextprotocol/clientCapabilities":{"words":{}}"#,
        r#""io.modelcontextprotocol/clientCapabilities":{"experimental":{"words":{}}}"#,
    ] {
        let arguments = format!(r#"{{"method":"ping","params":{{"_meta":{{{words}}}}}}}"#);
        assert_eq!(ok("s.mcp", &arguments), meta(words), "{words}");
    }
    let long = format!(r#""progressToken":"{}""#, "t".repeat(257));
    for bad in [long.as_str(), r#""io.modelcontextprotocol/logLevel":"words""#] {
        assert_eq!(Err((ReasonCode::BadInput, MessageKind::Request)), meta(bad), "{bad}");
    }
}

/// Reads the traffic off the arguments of the operation, as a caller of `Check` may say them too.
#[test]
fn what_a_message_moves_is_read_off_its_arguments() {
    let of = |text: &str| {
        let value = json::parse(text.as_bytes(), json::Limits::default()).unwrap();
        let Traffic { connects, brings, sends } = Traffic::of(&value);
        (connects, brings, sends)
    };
    for (arguments, traffic) in [
        (r#"{"method":"ping"}"#, (true, false, false)),
        (r#"{"method":"tools/list"}"#, (true, true, false)),
        (r#"{"method":"tools/list","params":{"cursor":"c"}}"#, (true, true, true)),
        (r#"{"method":"GET"}"#, (true, true, false)),
        (r#"{"method":"DELETE"}"#, (true, false, false)),
        (r#"{"method":"response"}"#, (false, false, false)),
        (r#"{"method":"response","params":{}}"#, (false, false, true)),
        (r#"{"method":"logging/setLevel","level":"info"}"#, (false, true, false)),
        (r#"{"method":"logging/setLevel","level":"words"}"#, (false, true, true)),
        (r#"{"method":"resources/subscribe","uri":"a:b"}"#, (false, true, true)),
        (r#"{"method":"notifications/initialized"}"#, (true, false, false)),
        (r#"{"method":"words"}"#, (false, true, true)),
        ("{}", (false, true, true)),
    ] {
        assert_eq!(traffic, of(arguments), "{arguments}");
    }
}

/// A proxy in between reads the header, and the server reads the message.
#[test]
fn a_header_for_an_argument_repeats_it() {
    let stateless = |arguments: &str, headers: &[(&str, &str)]| {
        let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let body = call(&format!(r#"{{"name":"deploy","arguments":{arguments},"_meta":{meta}}}"#));
        let own = [JSON, ("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call")];
        let all: Vec<_> =
            own.iter().chain(&[("mcp-name", "deploy")]).chain(headers).copied().collect();
        ask(&body, &all).map(|call| text(&call.arguments)).map_err(|error| error.error.reason)
    };
    let all = r#"{"region":"a, b","to":{"n":42},"dry":true}"#;
    let headers =
        [("mcp-param-region", "a, b"), ("mcp-param-n", "42"), ("mcp-param-dry_run", "true")];
    assert_eq!(Ok(all.to_owned()), stateless(all, &headers));
    let written = [("mcp-param-region", "=?base64?YSwgYg==?="), headers[1], headers[2]];
    assert_eq!(Ok(all.to_owned()), stateless(all, &written));
    assert_eq!(Ok("{}".to_owned()), stateless("{}", &[]));
    assert_eq!(Ok(r#"{"region":null}"#.to_owned()), stateless(r#"{"region":null}"#, &[]));
    let mismatch = Err(ReasonCode::HeaderMismatch);
    for (arguments, headers) in [
        (all, &headers[..2]),
        (r#"{"region":"a"}"#, &[][..]),
        (r#"{"region":"a"}"#, &[("mcp-param-region", "b")]),
        (r#"{"region":"a"}"#, &[("mcp-param-region", "=?base64?Yg==?=")]),
        (r#"{"region":"a"}"#, &[("mcp-param-region", "a"), ("mcp-param-other", "x")]),
        (r#"{"region":null}"#, &[("mcp-param-region", "null")]),
        (r#"{"region":null}"#, &[("mcp-param-region", "")]),
        ("{}", &[("mcp-param-region", "a")]),
        (r#"{"to":{"n":42}}"#, &[("mcp-param-n", "42.0")]),
        (r#"{"to":{"n":42}}"#, &[("mcp-param-n", "042")]),
        (r#"{"to":[42]}"#, &[("mcp-param-n", "42")]),
        (r#"{"dry":true}"#, &[("mcp-param-dry_run", "True")]),
        (r#"{"region":["a"]}"#, &[("mcp-param-region", "a")]),
    ] {
        assert_eq!(mismatch, stateless(arguments, headers), "{arguments} {headers:?}");
    }
    let ambiguous = Err(ReasonCode::AmbiguousRequest);
    for headers in [
        &[("mcp-param-region", "a"), ("mcp-param-region", "a")][..],
        &[("mcp-param-region", "a,b")],
        &[("mcp_param_region", "a")],
    ] {
        assert_eq!(ambiguous, stateless(r#"{"region":"a"}"#, headers), "{headers:?}");
    }
    // Earlier revisions do not ask for the headers; where one is there, it counts.
    let body = call(r#"{"name":"deploy","arguments":{"region":"a"}}"#);
    assert_eq!(ok("s.deploy", r#"{"region":"a"}"#), asked(&body, &[]));
    let differs = Err((ReasonCode::HeaderMismatch, MessageKind::ToolCall));
    assert_eq!(differs, asked(&body, &[("mcp-param-region", "b")]));
    assert_eq!(differs, asked(&call(r#"{"name":"gone"}"#), &[("mcp-param-region", "b")]));
    let listed = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let differs = Err((ReasonCode::HeaderMismatch, MessageKind::Request));
    assert_eq!(differs, asked(listed, &[("mcp-param-region", "b")]));
    let request = HttpRequest {
        method: "GET",
        host: "h",
        path: "/mcp",
        headers: &[V25, ("mcp-param-region", "b")],
        body: Body::Whole(b""),
    };
    assert_eq!(ReasonCode::HeaderMismatch, endpoint().read(&request).unwrap_err().error.reason);
}

#[test]
fn headers_for_arguments_are_declared_as_clients_read_them() {
    let of = |properties: serde_json::Value| {
        parameter_headers(&serde_json::json!({"type": "object", "properties": properties}))
    };
    let one = of(serde_json::json!({"a": {"type": "string", "x-mcp-header": "A"}}));
    assert_eq!(vec![ParameterHeader { name: "mcp-param-a".into(), path: vec!["a".into()] }], one);
    for odd in [
        serde_json::json!({"a": {"type": "number", "x-mcp-header": "A"}}),
        serde_json::json!({"a": {"type": ["string", "null"], "x-mcp-header": "A"}}),
        serde_json::json!({"a": {"type": "string", "x-mcp-header": "a b"}}),
        serde_json::json!({"a": {"type": "string", "x-mcp-header": ""}}),
        serde_json::json!({"a": {"type": "string", "x-mcp-header": 1}}),
        serde_json::json!({"a": {"items": {"type": "string", "x-mcp-header": "A"}}}),
        serde_json::json!({
            "a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"},
        }),
    ] {
        assert!(of(odd.clone()).is_empty(), "{odd}");
    }
}

#[test]
fn answers_to_what_the_server_asked_are_arguments_or_refused() {
    let with = |version: &str, tool: &str, more: &str| {
        let meta = match version {
            "2026-07-28" => r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#,
            _ => "",
        };
        let body = call(&format!(r#"{{"name":"{tool}","arguments":{{}}{more}{meta}}}"#));
        let headers = [
            JSON,
            ("mcp-protocol-version", version),
            ("mcp-method", "tools/call"),
            ("mcp-name", tool),
        ];
        ask(&body, &headers).map(|call| text(&call.arguments)).map_err(|error| error.error.reason)
    };
    let answers = r#","inputResponses":{"a":{"action":"accept"}},"requestState":"s""#;
    let told = r#"{"inputResponses":{"a":{"action":"accept"}},"requestState":"s"}"#;
    assert_eq!(Ok(told.to_owned()), with("2026-07-28", "deploy", answers));
    assert_eq!(Ok("{}".to_owned()), with("2026-07-28", "deploy", ""));
    let bad = Err(ReasonCode::BadInput);
    assert_eq!(bad, with("2026-07-28", "read", answers));
    assert_eq!(bad, with("2026-07-28", "read", r#","requestState":"s""#));
    assert_eq!(bad, with("2026-07-28", "read", r#","inputResponses":null"#));
    // Earlier revisions do not have them.
    assert_eq!(bad, with("2025-11-25", "deploy", answers));
    assert_eq!(bad, with("2025-06-18", "deploy", answers));
    // Nor does the first of them have tasks of the server.
    assert_eq!(bad, with("2025-06-18", "deploy", r#","task":{}"#));
    assert_eq!(bad, with("2026-07-28", "deploy", r#","task":{}"#));
}

#[test]
fn ids_and_methods_are_bounded() {
    let with = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"nothing"}}"#);
    let id = |id: &str| ask(&with(id), &[JSON, V25]).unwrap_err().envelope.id;
    let longest = "é".repeat(128);
    assert_eq!(Some(MessageId::Text(longest.clone())), id(&format!("\"{longest}\"")));
    assert_eq!(None, id(&format!("\"{longest}a\"")));
    assert_eq!(Some(MessageId::Number(-9_007_199_254_740_992)), id("-9007199254740992"));
    for odd in ["9007199254740993", "-0", "1.0", "1e3", "null", "true", "[1]"] {
        assert_eq!(None, id(odd), "{odd}");
    }
    let method = |length: usize| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(length));
        asked(&body, &[]).unwrap_err()
    };
    assert_eq!((ReasonCode::UnknownOperation, MessageKind::Request), method(128));
    assert_eq!((ReasonCode::BadInput, MessageKind::Unread), method(129));
    assert_eq!((ReasonCode::BadInput, MessageKind::Unread), method(0));
}

#[test]
fn a_revision_is_named_and_spoken() {
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    for version in VERSIONS {
        let call = ask(list, &[JSON, ("mcp-protocol-version", version)]);
        let envelope = call.map(|call| call.envelope).map_err(|error| *error.envelope);
        let envelope = envelope.unwrap_or_else(|envelope| envelope);
        assert_eq!((Some(version), false), (envelope.version, envelope.unsupported));
    }
    for version in ["2025-03-26", "2024-11-05", "2026-07-29", "", "2025-06-18 "] {
        let refused = ask(list, &[JSON, ("mcp-protocol-version", version)]).unwrap_err();
        assert_eq!(ReasonCode::BadInput, refused.error.reason, "{version}");
        assert!(refused.envelope.unsupported);
        assert!(!refused.error.understood, "what it means is not known");
    }
    assert_eq!(ReasonCode::BadInput, ask(list, &[JSON]).unwrap_err().error.reason);
}

#[test]
fn what_has_to_do_with_tasks_of_the_server_is_told() {
    let of = |method: &str, params: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let call = ask(&body, &[JSON, V25]).map_err(|error| error.error.reason)?;
        Ok((call.operation, call.envelope.server_task))
    };
    let tool =
        |task: &str| of("tools/call", &format!(r#"{{"name":"read","arguments":{{}}{task}}}"#));
    let is = |name: &str, kind| Ok((name.to_owned(), kind));
    assert_eq!(is("s.read", ServerTask::None), tool(""));
    assert_eq!(is("s.read", ServerTask::Begins), tool(r#","task":{}"#));
    assert_eq!(is("s.read", ServerTask::Begins), tool(r#","task":{"ttl":60000}"#));
    for bad in [
        "null",
        "true",
        "[]",
        r#"{"ttl":null}"#,
        r#"{"ttl":-1}"#,
        r#"{"ttl":"1"}"#,
        r#"{"ttl":1.5}"#,
        r#"{"for":1}"#,
    ] {
        assert_eq!(Err(ReasonCode::BadInput), tool(&format!(r#","task":{bad}"#)), "{bad}");
    }
    assert_eq!(Err(ReasonCode::AmbiguousRequest), tool(r#","task":{"TTL":1}"#));
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        assert_eq!(is("s.mcp", ServerTask::Follows), of(method, r#"{"taskId":"1"}"#));
        for bad in ["{}", r#"{"taskId":1}"#, r#"{"taskId":"1","more":1}"#] {
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
        ask(&body, &[JSON, V25]).map(|call| call.task).map_err(|error| error.error.reason)
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
    /// A message that is read gives a JSON object for a known operation, and a plain reader gives the same.
    #[test]
    fn random_messages_are_refused_or_read_as_everybody_reads_them(body in messages()) {
        if let Ok(call) = ask(&body, &[JSON, V25]) {
            let plain: serde_json::Value = serde_json::from_str(&body).unwrap();
            let arguments = text(&call.arguments);
            let arguments: serde_json::Value = serde_json::from_str(&arguments).unwrap();
            prop_assert!(arguments.is_object());
            if call.envelope.kind == MessageKind::ToolCall {
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

/// A call of revision 2026-07-28, with members besides its name and arguments.
fn stateless(tool: &str, more: &str) -> Result<(PageUse, String), (ReasonCode, PageUse)> {
    let version = "2026-07-28";
    let meta = format!(
        r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}","io.modelcontextprotocol/clientCapabilities":{{"elicitation":{{"url":{{}}}}}}}}"#
    );
    let body = call(&format!(r#"{{"name":"{tool}","arguments":{{"a":1}},{meta}{more}}}"#));
    let headers =
        [JSON, ("mcp-protocol-version", version), ("mcp-method", "tools/call"), ("mcp-name", tool)];
    match ask(&body, &headers) {
        Ok(call) => Ok((call.envelope.page, text(&call.arguments))),
        Err(error) => Err((error.error.reason, error.envelope.page)),
    }
}

/// The answer to the question of Authz is no argument; any other answer is what it was before.
#[test]
fn a_client_that_opened_the_page_repeats_its_call() {
    let answers = |answers: &str| format!(r#","inputResponses":{answers}"#);
    let page = |action: &str| answers(&format!(r#"{{"dev.authz/approval":{action}}}"#));
    let arguments = r#"{"a":1}"#.to_owned();
    for tool in ["read", "deploy"] {
        assert_eq!(Ok((PageUse::Opens, arguments.clone())), stateless(tool, ""));
        let opened = stateless(tool, &page(r#"{"action":"accept"}"#));
        assert_eq!(Ok((PageUse::Opened, arguments.clone())), opened);
        for action in [r#"{"action":"decline"}"#, r#"{"action":"cancel"}"#] {
            let declined = Err((ReasonCode::BadInput, PageUse::Declined));
            assert_eq!(declined, stateless(tool, &page(action)));
        }
    }
    let refused = Err((ReasonCode::BadInput, PageUse::None));
    for strange in [
        page(r#"{"action":"accept","content":{"secret":"x"}}"#),
        page(r#"{"action":"ACCEPT"}"#),
        page(r#""accept""#),
        answers(r#"{"dev.authz/approval":{"action":"accept"},"other":{}}"#),
        answers(r#"{"dev.authz/Approval":{"action":"accept"}}"#),
        answers("{}"),
        format!(r#"{},"requestState":"s""#, page(r#"{"action":"accept"}"#)),
    ] {
        assert_eq!(refused, stateless("read", &strange), "{strange}");
        let given = stateless("deploy", &strange).unwrap();
        assert_eq!(PageUse::None, given.0);
        assert!(given.1.contains("inputResponses"), "{}", given.1);
    }
    let older =
        call(r#"{"name":"read","inputResponses":{"dev.authz/approval":{"action":"accept"}}}"#);
    assert_eq!(Err((ReasonCode::BadInput, MessageKind::ToolCall)), asked(&older, &[]));
}
