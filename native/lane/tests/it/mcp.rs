//! What an MCP client reads where its message is refused.

use std::collections::BTreeSet;

use authz_lane::proto::authz::v1 as wire;
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::proto::envoy::service::auth::v3::check_response::HttpResponse;
use authz_lane::{Surface, Transport};
use prost::Message;
use serde_json::{Value, json};

use crate::support::*;

const V25: &str = "2025-11-25";
const V26: &str = "2026-07-28";

/// The catalog file of a server with six tools, and what the bundle says of them.
fn files(bundle: &str, facts: &str) -> Vec<(String, String)> {
    let tool = |name: &str| json!({"name": name, "input": {"type": "object", "properties": {"a": {"type": "string"}}}});
    let mut server = json!({
        "system": "notes", "server": {"name": "notes", "version": "1"},
        "tools": [tool("read"), tool("send"), tool("shred"), tool("new"), tool("a_b"), tool("mcp")],
    });
    let sealed = authz_kernel::catalog::seal(server.to_string().as_bytes()).unwrap();
    let sealed: Value = serde_json::from_str(&sealed).unwrap();
    server["digest"] = sealed["digest"].clone();
    let mut accepted = serde_json::Map::new();
    for (at, tool) in sealed["tools"].as_array().unwrap().iter().enumerate() {
        server["tools"][at]["digest"] = tool["digest"].clone();
        if tool["name"] != "new" {
            let id = tool["operation"].as_str().unwrap();
            accepted.insert(id.to_owned(), tool["digest"].clone());
        }
    }
    let facts = format!(
        "accepted: {}\nroutes: [{{path: /mcp, mcp: notes}}]\nclassify: [{{match: notes.read, effects: [read]}}, \
         {{match: notes.send, effects: [write]}}, {{match: notes.shred, effects: [write]}}, \
         {{match: notes.a_b, effects: [read]}}, {{match: notes.tool.mcp, effects: [read]}}]\n{facts}",
        Value::from(accepted)
    );
    let policies = r#"
@id("notes") permit(principal, action in Action::"system:notes", resource);
@id("confirm") @stepup("confirm") forbid(principal, action == Action::"notes.send", resource)
unless { context.satisfied.contains(Kind::"confirm") };
@id("keep") @reason("notes are kept") forbid(principal, action == Action::"notes.shred", resource);
"#;
    vec![
        ("bundle.yaml".to_owned(), format!("name: desk\ntasks: optional\n{bundle}")),
        ("catalog/notes.mcp.yaml".to_owned(), server.to_string()),
        ("notes.yaml".to_owned(), facts),
        ("policies/notes.cedar".to_owned(), policies.to_owned()),
    ]
}

fn serving(bundle: &str, facts: &str) -> Served {
    let files = files(bundle, facts);
    let more: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
    let served = unloaded(&json!({"approvals": {"url": "https://authz.corp.example/"}}));
    served.engine.load(authz_lane::World { plan: plan(&more), ..world() }).unwrap();
    served
}

/// A call of a client of the last revision, which opens pages.
fn opening(capabilities: &Value, answers: Option<Value>) -> String {
    let mut params = json!({"name": "send", "arguments": {"a": "canary"}, "_meta": {
        "io.modelcontextprotocol/protocolVersion": V26,
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    }});
    if let Some(answers) = answers {
        params["inputResponses"] = answers;
    }
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string()
}

/// The client asks its user once: where it comes back too early, the model reads what to do.
#[test]
fn a_client_is_asked_to_open_the_page_once() {
    let served = serving("", "");
    let headers = [("mcp-method", "tools/call"), ("mcp-name", "send")];
    let asked = |body: &str| said(&served.proxy(&posted(V26, body, &headers)));
    let opens = json!({"elicitation": {"url": {}}});
    let first = asked(&opening(&opens, None));
    assert_eq!((200, 7), (first.status, first.code));
    let result = first.json()["result"].take();
    assert_eq!("input_required", result["resultType"]);
    assert!(result.get("requestState").is_none(), "{result}");
    let question = &result["inputRequests"]["dev.authz/approval"];
    assert_eq!("elicitation/create", question["method"]);
    assert_eq!("url", question["params"]["mode"]);
    let approval = &result["_meta"]["dev.authz/decision"]["approval"];
    assert_eq!(approval["url"], question["params"]["url"]);
    assert!(!first.body.contains("canary") && !first.body.contains("send"), "{}", first.body);

    let answer = |action: &str| Some(json!({"dev.authz/approval": {"action": action}}));
    let early = asked(&opening(&opens, answer("accept"))).json()["result"].take();
    assert_eq!(
        ("complete", true),
        (early["resultType"].as_str().unwrap(), early["isError"] == true)
    );
    assert_eq!(approval, &early["_meta"]["dev.authz/decision"]["approval"], "the same approval");
    let declined = asked(&opening(&opens, answer("decline"))).json()["result"].take();
    let text = declined["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("The user did not open the page"), "{text}");
    for capabilities in [json!({}), json!({"elicitation": {"form": {}}})] {
        let result = asked(&opening(&capabilities, None)).json()["result"].take();
        assert_eq!(json!(true), result["isError"], "{capabilities}");
    }
}

/// A stream is resumed only where the bundle says that the server keeps callers apart.
#[test]
fn a_stream_is_resumed_where_the_system_declares_it() {
    let resume = http("GET", "/mcp", &[("mcp-protocol-version", V25), ("last-event-id", "e1")]);
    for (facts, is_permitted) in [
        ("", false),
        ("catalog: {notes: {kind: mcp, headers: [x-tenant]}}", false),
        ("catalog: {notes: {kind: mcp, headers: [last-event-id]}}", true),
    ] {
        let answer = serving("", facts).proxy(&resume);
        assert_eq!(is_permitted, answer.status.unwrap().code == 0, "{facts}");
    }
}

fn posted(version: &str, body: &str, headers: &[(&str, &str)]) -> ext::CheckRequest {
    let mut all = vec![("content-type", "application/json"), ("mcp-protocol-version", version)];
    all.extend(headers);
    edit(http("POST", "/mcp", &all), |http| http.body = body.to_owned())
}

fn call(tool: &str, id: &Value) -> String {
    let params = json!({"name": tool, "arguments": {"a": "canary"}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()
}

struct Said {
    status: i32,
    code: i32,
    body: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn said(answer: &ext::CheckResponse) -> Said {
    let code = answer.status.as_ref().unwrap().code;
    match &answer.http_response {
        Some(HttpResponse::DeniedResponse(denied)) if code != 0 => {
            let kind = denied.headers.iter().filter_map(|o| o.header.as_ref());
            let kinds: Vec<&str> =
                kind.filter(|h| h.key == "content-type").map(|h| h.value.as_str()).collect();
            assert_eq!(vec!["application/json"], kinds);
            Said { status: denied.status.as_ref().unwrap().code, code, body: denied.body.clone() }
        }
        other => panic!("no denial: {other:?}"),
    }
}

fn refused(served: &Served, version: &str, body: &str) -> Said {
    said(&served.proxy(&posted(version, body, &[])))
}

fn permits(answer: &ext::CheckResponse) -> bool {
    let code = answer.status.as_ref().map(|status| status.code);
    code == Some(0) && matches!(answer.http_response, Some(HttpResponse::OkResponse(_)))
}

/// A naive denial is a 403: the status ends the session of the stock client.
#[test]
fn a_refused_call_is_the_result_of_the_tool() {
    let served = serving("", "");
    for (tool, public_code, code) in [
        ("shred", "DENIED", 7),
        ("send", "STEP_UP", 7),
        ("gone", "INVALID", 7),
        ("new", "DENIED", 7),
    ] {
        let answer = refused(&served, V25, &call(tool, &json!(7)));
        assert_eq!((200, code), (answer.status, answer.code), "{tool}");
        let body = answer.json();
        assert_eq!((&json!("2.0"), &json!(7)), (&body["jsonrpc"], &body["id"]));
        assert_eq!(json!(true), body["result"]["isError"]);
        let public = &body["result"]["_meta"]["dev.authz/decision"];
        assert_eq!(public_code, public["public_code"], "{tool}");
        assert_eq!(36, public["decision_id"].as_str().unwrap().len());
        assert!(body["result"].get("resultType").is_none());
        let texts: Vec<&str> = body["result"]["content"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect();
        let waits = tool == "send";
        assert_eq!(waits, texts.iter().any(|text| text.contains("same call again")), "{texts:?}");
        assert!(!answer.body.contains("canary") && !answer.body.contains(tool), "{}", answer.body);
    }
    assert!(permits(&served.proxy(&posted(V25, &call("read", &json!(1)), &[]))));
}

#[test]
fn answers_are_the_same_but_for_their_ids() {
    let served = serving("", "");
    let without_ids = |tool: &str, id: Value| {
        let mut body = refused(&served, V25, &call(tool, &id)).json();
        assert_eq!(id, body["id"].take());
        body["result"]["_meta"]["dev.authz/decision"]["decision_id"].take();
        body.to_string()
    };
    let odd = json!("a\"b\u{1}\u{2028}é</script>");
    let ids = [json!(1), json!(-9_007_199_254_740_992_i64), json!(""), odd];
    let bodies: BTreeSet<String> = ids.into_iter().map(|id| without_ids("shred", id)).collect();
    assert_eq!(1, bodies.len(), "{bodies:?}");
    // What is forbidden and what nobody reviewed are both denied, and no agent learns which.
    assert_eq!(without_ids("shred", json!(1)), without_ids("new", json!(2)));
    assert_ne!(without_ids("shred", json!(1)), without_ids("send", json!(1)));
}

#[test]
fn the_newest_revision_gets_the_type_of_the_result() {
    let served = serving("", "");
    let meta = json!({"io.modelcontextprotocol/protocolVersion": V26});
    let params = json!({"name": "shred", "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let headers = [("mcp-method", "tools/call"), ("mcp-name", "shred")];
    let answer = said(&served.proxy(&posted(V26, &body.to_string(), &headers)));
    assert_eq!(200, answer.status);
    assert_eq!(json!("complete"), answer.json()["result"]["resultType"]);
}

#[test]
fn a_bundle_says_how_calls_are_refused() {
    let other = r#"{"jsonrpc":"2.0","id":"x","method":"resources/read","params":{"uri":"a:b"}}"#;
    let shred = call("shred", &json!(1));
    for (bundle, of_call, of_other) in [
        ("", "result", "error"),
        ("mcp: {deny_as: tool_result}", "result", "error"),
        ("mcp: {deny_as: jsonrpc_error}", "error", "error"),
        ("mcp: {deny_as: http}", "message", "message"),
    ] {
        let served = serving(bundle, "");
        for (body, member) in [(&*shred, of_call), (other, of_other)] {
            let answer = refused(&served, V25, body);
            let status = if member == "message" { 403 } else { 200 };
            assert_eq!(status, answer.status, "{bundle}");
            let json = answer.json();
            assert!(json.get(member).is_some(), "{bundle}: {json}");
            if member == "error" {
                assert_eq!(json!(-32_003), json["error"]["code"]);
                assert_eq!("DENIED", json["error"]["data"]["dev.authz/decision"]["public_code"]);
            }
        }
    }
}

#[test]
fn what_is_no_message_is_a_status_and_an_error_without_id() {
    let served = serving("", "");
    let batch = format!("[{}]", call("read", &json!(1)));
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#;
    for body in
        [&*batch, twice, "canary", "", r#"{"jsonrpc":"2.0","id":{"canary":1},"method":"ping"}"#]
    {
        let answer = refused(&served, V25, body);
        let json = answer.json();
        assert_eq!(
            (400, &json!(-32_600), &Value::Null),
            (answer.status, &json["error"]["code"], &json["id"])
        );
        assert!(!answer.body.contains("canary"));
    }
    let future = refused(&served, "2027-01-01", &call("read", &json!(1))).json();
    assert_eq!(json!(-32_022), future["error"]["code"]);
    assert_eq!(json!(["2025-06-18", V25, V26]), future["error"]["data"]["supported"]);
    let mismatch = posted(V25, &call("shred", &json!(4)), &[("mcp-name", "read")]);
    let mismatch = said(&served.proxy(&mismatch));
    assert_eq!((400, json!(4)), (mismatch.status, mismatch.json()["id"].clone()));
    assert_eq!(json!(-32_020), mismatch.json()["error"]["code"]);
}

/// Whoever writes the bundle sees which tool was asked for.
#[test]
fn a_tool_that_is_missing_is_named_in_the_record() {
    let served = serving("", "");
    for tool in ["burn all", "x y\u{1}"] {
        refused(&served, V25, &call(tool, &json!(1)));
    }
    let records = served.records();
    let asked: Vec<&Value> = records.iter().map(|r| &r["input"]["asked"]["operation"]).collect();
    assert_eq!(vec!["notes.burn_all", "notes.x_y_"], asked);
}

/// Only the HTTP credential is refused by 401, and only our own failure by 503.
#[test]
fn credentials_and_failures_are_said_by_http() {
    let served = serving("", "");
    let shred = call("shred", &json!(1));
    let nobody = said(&served.proxy(&posted(V25, &shred, &[("authorization", "\0")])));
    assert_eq!((401, 16), (nobody.status, nobody.code));
    let forged = format!("Bearer {}", forged());
    let forged = said(&served.proxy(&posted(V25, &shred, &[("authorization", &forged)])));
    assert_eq!(401, forged.status);
    let late = Transport { remaining: Some(std::time::Duration::ZERO), ..Transport::by("dev") };
    let request = posted(V25, &shred, &[]).encode_to_vec();
    let late = served.engine.envoy_check(&request, &late);
    assert_eq!(503, said(&ext::CheckResponse::decode(late.as_slice()).unwrap()).status);
    served.engine.close();
    let unrecorded = refused(&served, V25, &call("read", &json!(1)));
    assert_eq!(503, unrecorded.status, "a permit that cannot be recorded");
}

#[test]
fn the_reason_of_a_policy_is_shown_where_the_bundle_says_so() {
    let served = serving("show_reason: [notes]", "");
    let content = &refused(&served, V25, &call("shred", &json!(1))).json()["result"]["content"];
    assert_eq!("notes are kept", content[1]["text"]);
    assert_eq!(
        Value::Null,
        refused(&serving("", ""), V25, &call("shred", &json!(1))).json()["result"]["content"][1]
    );
}

/// In `observe` a call passes that policy, catalog or protocol refuses; a message with two meanings never does.
#[test]
fn observing_lets_through_what_has_one_meaning() {
    let until = "2999-01-01";
    let mode =
        format!("mode: {{systems: {{notes: {{mode: observe, owner: sec, until: {until}}}}}}}");
    let served = serving("", &mode);
    let passes =
        |body: &str, headers: &[(&str, &str)]| permits(&served.proxy(&posted(V25, body, headers)));
    for tool in ["shred", "send", "new", "gone"] {
        assert!(passes(&call(tool, &json!(1)), &[]), "{tool}");
    }
    let task = r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"1"}}"#;
    assert!(passes(task, &[]));
    let folded =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","Name":"shred"}}"#;
    let batch = format!("[{}]", call("read", &json!(1)));
    for body in [folded, &*batch, r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#] {
        assert!(!passes(body, &[]), "{body}");
    }
    assert!(!passes(&call("shred", &json!(1)), &[("mcp-name", "read")]));
    assert!(!permits(&served.proxy(&posted("2027-01-01", &call("read", &json!(1)), &[]))));
}

/// The task may stand in the message, and two places that differ are no task.
#[test]
fn the_message_names_its_task() {
    let files = files(
        "",
        "templates: {note: {purpose: read, deadline: 5m, starters: [bot], scope: [{operation: notes.read}]}}\n",
    );
    let mut more: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
    let policy = r#"@id("starts") permit(principal, action == Action::"task:note", resource);"#;
    more.push(("policies/starts.cedar", policy));
    let served = unloaded(&json!({}));
    served.engine.load(authz_lane::World { plan: plan(&more), ..world() }).unwrap();
    let start = wire::StartRequest {
        evidence: chain(),
        template: "note".to_owned(),
        ..wire::StartRequest::default()
    };
    let transport = Transport::by("dev");
    let answer = served.engine.call(Surface::TaskStart, &start.encode_to_vec(), &transport);
    let task = wire::StartResponse::decode(answer.unwrap().as_slice()).unwrap().task.unwrap().id;
    let call = |tool: &str, task: &str| {
        let meta = json!({"dev.authz/task": task});
        let params = json!({"name": tool, "arguments": {"a": "x"}, "_meta": meta});
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
    };
    let reason = |body: &str, headers: &[(&str, &str)]| {
        let answer = served.proxy(&posted(V25, body, headers));
        match &answer.dynamic_metadata.unwrap().fields["reason_code"].kind {
            Some(prost_types::value::Kind::StringValue(text)) => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!("PERMITTED", reason(&call("read", &task), &[]));
    assert_eq!("PERMITTED", reason(&call("read", &task), &[("authz-task", &task)]));
    assert_eq!("TASK_CONFLICT", reason(&call("read", &task), &[("authz-task", "t-1")]));
    assert_eq!("UNKNOWN_TASK", reason(&call("read", "t-1"), &[]));
    assert_eq!("OUT_OF_SCOPE", reason(&call("send", &task), &[]));
    // It is looked at before anything that is only noted where `mode` observes.
    assert_eq!("UNKNOWN_OPERATION", reason(&call("gone", &task), &[]));
    assert_eq!("UNKNOWN_TASK", reason(&call("gone", "t-1"), &[]));
    let stray = |task: &str| call("read", task).replacen('{', r#"{"stray":1,"#, 1);
    assert_eq!("BAD_INPUT", reason(&stray(&task), &[]));
    assert_eq!("UNKNOWN_TASK", reason(&stray("t-1"), &[]));
    let queried = |task: &str| {
        let request = posted(V25, &call("read", task), &[]);
        let answer = served.proxy(&edit(request, |http| {
            http.path.push_str("?x=1");
            http.headers.remove(":path");
        }));
        answer.dynamic_metadata.unwrap().fields["reason_code"].kind.clone()
    };
    let text = |text: &str| Some(prost_types::value::Kind::StringValue(text.to_owned()));
    assert_eq!(text("BAD_INPUT"), queried(&task));
    assert_eq!(text("UNKNOWN_TASK"), queried("t-1"));
}

/// An enforcer in front of the server names the tool: a name that is only spelled like one of the catalog is no tool of it.
#[test]
fn only_the_exact_name_of_a_tool_has_its_operation() {
    let served = serving("", "");
    let asked = |operation: &str, tool: &str| {
        let tool = tool.to_owned();
        code(&served.check(&wire::CheckRequest { tool, ..asking(operation) }))
    };
    for (operation, tool, expected) in [
        ("notes.a_b", "a_b", "PERMITTED"),
        ("notes.a_b", "a%b", "UNKNOWN_OPERATION"),
        ("notes.a_b", "a b", "UNKNOWN_OPERATION"),
        ("notes.a_b", "A_b", "UNKNOWN_OPERATION"),
        ("notes.read", "a_b", "UNKNOWN_OPERATION"),
        ("notes.tool.mcp", "mcp", "PERMITTED"),
        ("notes.tool.mcp", "tool.mcp", "UNKNOWN_OPERATION"),
        ("notes.mcp", "mcp", "UNKNOWN_OPERATION"),
        ("notes.gone", "gone", "UNKNOWN_OPERATION"),
        ("notes.new", "new", "UNREVIEWED_OPERATION"),
        ("notes.shred", "shred", "FORBIDDEN"),
        ("crm.search", "find", "UNKNOWN_OPERATION"),
        ("authz.probe", "probe", "UNKNOWN_OPERATION"),
        ("", "a_b", "UNKNOWN_OPERATION"),
        ("notes.a_b", &"a".repeat(513), "BAD_INPUT"),
    ] {
        assert_eq!(expected, asked(operation, tool), "{tool}");
    }
    let of_http = wire::CheckRequest { tool: "search".to_owned(), ..search() };
    let answer = served.check(&of_http);
    assert_eq!(
        code(&served.check(&search())),
        code(&answer),
        "a tool of a system without a catalog file"
    );
    let records = served.records();
    let unknown = records.iter().find(|r| r["input"]["asked"]["operation"] == "notes.a_b").unwrap();
    assert_eq!("", unknown["input"]["operation"], "{unknown}");
}

/// A list names the tools as their server does, each case of a split operation by its tool.
#[test]
fn a_list_names_tools_exactly() {
    let served = serving("", "");
    let list = |wants_tools: bool, page_size: i32| {
        let list = wire::ListRequest {
            evidence: chain(),
            system: "notes".to_owned(),
            page_size,
            wants_tools,
            ..wire::ListRequest::default()
        };
        crate::tasks::call::<wire::ListResponse>(&served, Surface::List, &list).unwrap()
    };
    let names = |answer: &wire::ListResponse| {
        let tools = answer.tools.iter().map(|tool| (tool.system.clone(), tool.name.clone()));
        tools.collect::<BTreeSet<_>>()
    };
    let of_notes = |names: &[&str]| {
        let names = names.iter().map(|name| ("notes".to_owned(), (*name).to_owned()));
        names.collect::<BTreeSet<_>>()
    };
    assert_eq!(of_notes(&["a_b", "mcp", "read", "send"]), names(&list(true, 0)));
    assert_eq!(of_notes(&["a_b"]), names(&list(true, 1)));
    assert!(list(false, 0).tools.is_empty());
}
