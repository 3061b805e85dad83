#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::diagnostic::Diagnostics;
use crate::model::{
    ArgumentSource, Declared, IgnoredPart, Location, Model, Operation, RouteSpec, RouteTarget, Tier,
};

fn operation(id: &str, input: serde_json::Value) -> Operation {
    let (system, name) = id.split_once('.').unwrap();
    Operation {
        id: id.to_owned(),
        system: system.to_owned(),
        name: name.to_owned(),
        effects: BTreeSet::new(),
        tier: Tier::Low,
        reviewed: true,
        drifted: false,
        yields: Default::default(),
        resource: None,
        destination: None,
        origins: Default::default(),
        input: Arc::new(input),
        abortable: false,
        at: Location::default(),
    }
}

fn said<T>(value: T, line: u32) -> Declared<T> {
    Declared { value, at: Location { file: "r.yaml".into(), line, column: 1 } }
}

fn spec(
    line: u32,
    method: &str,
    path: &str,
    operation: &str,
    arguments: &[(&str, ArgumentSource)],
) -> RouteSpec {
    RouteSpec {
        host: None,
        path: said(path.to_owned(), line),
        headers: Vec::new(),
        target: RouteTarget::Operation {
            method: said(method.to_owned(), line),
            id: operation.to_owned(),
        },
        arguments: arguments
            .iter()
            .map(|(n, s)| ((*n).to_owned(), said(s.clone(), line)))
            .collect(),
        ignore: Vec::new(),
        content_types: Vec::new(),
        forward_authorization: false,
        at: Location { file: "r.yaml".into(), line, column: 1 },
    }
}

fn operations() -> Vec<Operation> {
    let text = serde_json::json!({"type": "string"});
    let all = serde_json::json!({"type": "object", "properties": {
        "id": text, "q": text, "n": {"type": "integer"}, "x": {"type": "number"}, "b": {"type": "boolean"},
        "tags": {"type": "array", "items": text}, "note": {"type": ["string", "null"]}, "o": {"type": "object"},
    }});
    vec![operation("s.a", all.clone()), operation("s.b", all)]
}

fn compile(specs: Vec<RouteSpec>) -> Result<RouteTable, String> {
    let mut found = Diagnostics::new();
    let model = Model { routes: specs, operations: operations(), ..Model::default() };
    let table = RouteTable::compile(&model, &mut found);
    found.finish(table).map_err(|e| e.to_string())
}

fn query(name: &str) -> ArgumentSource {
    ArgumentSource::Query(name.into())
}

fn table() -> RouteTable {
    let mut post = spec(
        2,
        "POST",
        "/tickets/{id}/notes",
        "s.b",
        &[
            ("id", ArgumentSource::Path("id".into())),
            ("note", ArgumentSource::Json("/note/text".into())),
            ("o", ArgumentSource::Json("/o".into())),
            ("q", ArgumentSource::Header("x-q".into())),
        ],
    );
    post.ignore.push(said(IgnoredPart::Json("/trace".into()), 2));
    let get = spec(
        1,
        "GET",
        "/tickets/{id}",
        "s.a",
        &[
            ("id", ArgumentSource::Path("id".into())),
            ("q", query("q")),
            ("n", query("n")),
            ("x", query("x")),
            ("b", query("b")),
            ("tags", query("tag")),
        ],
    );
    compile(vec![get, post]).unwrap()
}

const NONE: Body<'static> = Body::Whole(b"");

fn ask(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body<'_>,
) -> Result<String, ReasonCode> {
    let request = HttpRequest { method, host: "h.example", path, headers, body };
    let routed = table().resolve(&request).map_err(|e| e.reason)?;
    let mut arguments = String::new();
    routed.arguments.write(&mut arguments);
    assert_eq!(arguments.len(), routed.arguments.written_len());
    Ok(arguments)
}

fn get(path: &str) -> Result<String, ReasonCode> {
    ask("GET", path, &[], NONE)
}

#[test]
fn arguments_take_the_declared_type() {
    let path = "/tickets/T-1?q=a+b%20c%26&n=-5&x=1.50&b=true&tag=x&tag=y";
    let wanted = r#"{"id":"T-1","q":"a b c&","n":-5,"x":1.50,"b":true,"tags":["x","y"]}"#;
    assert_eq!(Ok(wanted.to_owned()), get(path));
    assert_eq!(Ok(r#"{"id":"\u00e9 x"}"#.replace("\\u00e9", "é")), get("/tickets/%C3%A9%20x"));
    assert_eq!(Ok(r#"{"id":"a:b@c"}"#.to_owned()), get("/tickets/a:b%40c?"));
    let body = br#"{"note":{"text":null},"o":{"k":[1.0]},"trace":{"any":1}}"#;
    let headers = [("x-q", " v "), ("content-type", "application/json; charset=utf-8")];
    let wanted = r#"{"id":"1","q":"v","note":null,"o":{"k":[1.0]}}"#;
    assert_eq!(Ok(wanted.to_owned()), ask("POST", "/tickets/1/notes", &headers, Body::Whole(body)));
}

#[test]
fn a_path_that_two_readers_read_differently_is_ambiguous() {
    for path in [
        "",
        "tickets/1",
        "*",
        "http://h.example/tickets/1",
        "//tickets/1",
        "/tickets//1",
        "/./tickets/1",
        "/tickets/../tickets/1",
        "/tickets/..",
        "/tickets/%2e%2e",
        "/tickets/%2E",
        "/tickets/a%2fb",
        "/tickets/a%2Fb",
        "/tickets/a%5cb",
        "/tickets/a\\b",
        "/tickets/1;v=2",
        "/tickets/1%3bv",
        "/tickets/%00",
        "/tickets/a\0",
        "/tickets/%0a",
        "/tickets/%7f",
        "/tickets/\u{e9}",
        "/tickets/%",
        "/tickets/%2",
        "/tickets/%zz",
        "/tickets/%2%35",
        "/tickets/%252e",
        "/tickets/%61",
        "/%74ickets/1",
        "/tickets/1#x",
        "/tickets/a%3fb",
        "/tickets/a%23b",
        "/tickets/%ff",
        "/tickets/%c0%af",
        "/tickets/a b",
        "/tickets/1?q=%ff",
        "/tickets/1?q=%00",
        "/tickets/1?q=a;b=c",
        "/tickets/1?q=a#b",
        "/tickets/1?q=%",
        "/tickets/1?q=1&q=2",
        "/tickets/1?q=\u{e9}",
    ] {
        assert_eq!(Err(ReasonCode::AmbiguousRequest), get(path), "{path}");
    }
}

#[test]
fn what_no_route_names_has_no_route() {
    for path in
        ["/", "/tickets", "/tickets/", "/Tickets/1", "/tickets/1/", "/tickets/1/notes", "/ticket/1"]
    {
        assert_eq!(Err(ReasonCode::NoRoute), get(path), "{path}");
    }
    for method in ["get", "HEAD", "OPTIONS", "GET ", ""] {
        assert_eq!(Err(ReasonCode::NoRoute), ask(method, "/tickets/1", &[], NONE), "{method}");
    }
}

#[test]
fn what_no_route_accounts_for_is_bad_input() {
    for path in [
        "/tickets/1?z=1",
        "/tickets/1?Q=1",
        "/tickets/1?q=1&",
        "/tickets/1?n=x",
        "/tickets/1?n=1.0",
        "/tickets/1?n=+1",
        "/tickets/1?n=01",
        "/tickets/1?n=",
        "/tickets/1?n=%201",
        "/tickets/1?x=NaN",
        "/tickets/1?x=1e99999",
        "/tickets/1?b=TRUE",
        "/tickets/1?b=1",
        "/tickets/1?tag[]=1",
    ] {
        assert_eq!(Err(ReasonCode::BadInput), get(path), "{path}");
    }
    let post = |body: &[u8], headers: &[(&str, &str)]| {
        ask("POST", "/tickets/1/notes", headers, Body::Whole(body))
    };
    let json = ("content-type", "application/json");
    for body in [
        &b"{\"z\":1}"[..],
        b"[]",
        b"1",
        b"{",
        b"{\"note\":1}",
        b"{\"note\":{\"z\":1}}",
        b"{\"o\":1,\"o\":2}",
        b"{\"o\":1,\"\\u006f\":2}",
        b"{\"note\":[1]}",
        b"\xff",
        b"{} {}",
    ] {
        assert_eq!(
            Err(ReasonCode::BadInput),
            post(body, &[json]),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    for kind in [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded,application/+json",
        "application/json,application/json",
        "application/json, text/plain",
        "application/merge-patch+json",
        "application/+json",
        "Application/JSON",
        " application/json",
        "application/json;",
        "application/json; charset",
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-8",
        "application/json; q=1",
        "application/json; boundary=x",
        "",
    ] {
        let header = ("content-type", kind);
        assert_eq!(Err(ReasonCode::BadInput), post(b"{\"o\":{}}", &[header]), "{kind}");
        // What a server reads of an empty body is not what its type says either.
        assert_eq!(Err(ReasonCode::BadInput), post(b"", &[header]), "{kind}");
    }
    for kind in [
        "application/json",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
        "application/json ;\tCharset=\"Utf-8\" ",
    ] {
        assert!(post(b"{\"o\":{}}", &[("content-type", kind)]).is_ok(), "{kind}");
    }
    assert_eq!(Err(ReasonCode::BadInput), post(b"{\"o\":{}}", &[]), "no type");
    assert!(post(b"", &[]).is_ok(), "no body has no type");
    let encoded = |encoding| post(b"{\"o\":{}}", &[json, ("content-encoding", encoding)]);
    assert_eq!(Err(ReasonCode::BadInput), encoded("gzip"));
    assert!(encoded("identity").is_ok());
    assert_eq!(Err(ReasonCode::BadInput), ask("POST", "/tickets/1/notes", &[], Body::Partial));
    assert_eq!(Err(ReasonCode::BadInput), ask("POST", "/tickets/1/notes", &[], Body::Absent));
    assert_eq!(Err(ReasonCode::BadInput), ask("GET", "/tickets/1", &[], Body::Whole(b"{}")));
    assert_eq!(
        Err(ReasonCode::BadInput),
        ask("GET", "/tickets/1", &[("content-length", "2")], Body::Absent)
    );
    assert!(ask("GET", "/tickets/1", &[("content-length", "0")], Body::Absent).is_ok());
}

#[test]
fn a_header_that_stands_twice_or_overrides_the_request_line_is_ambiguous() {
    for headers in [
        &[("x-q", "a"), ("x-q", "a")][..],
        &[("x-q", "a,b")],
        &[("x-original-url", "/admin")],
        &[("x-rewrite-url", "/tickets/1/notes")],
        &[("x-http-method-override", "DELETE")],
        &[("content-type", "application/json"), ("content-type", "text/plain")],
        &[("x-original-host", "admin.example")],
        &[("x-original-method", "DELETE")],
        &[("x-rewrite-anything", "/")],
        &[("upgrade", "h2c")],
        &[("upgrade", "websocket")],
        &[(":protocol", "websocket")],
        &[("connection", "close, x-authz-agent")],
        &[("transfer-encoding", "gzip, chunked")],
        &[("x_forwarded_host", "admin.example")],
        &[("x-q", "a"), ("x_q", "b")],
        &[("x_q", "b"), ("x-q", "a")],
        &[("x_q", "b")],
        &[("x_original_url", "/admin")],
        &[("x_http-method_override", "DELETE")],
        &[("content-type", "application/json"), ("content_type", "text/plain")],
        &[("content_encoding", "gzip")],
    ] {
        let json = &[("content-type", "application/json")][..];
        let json = if headers.iter().any(|(name, _)| *name == "content-type") { &[] } else { json };
        let headers = [headers, json].concat();
        let got = ask("POST", "/tickets/1/notes", &headers, Body::Whole(b"{\"o\":{}}"));
        assert_eq!(Err(ReasonCode::AmbiguousRequest), got, "{headers:?}");
    }
    // Removed, or harmless.
    for header in [
        ("x-forwarded-host", "admin.example"),
        ("forwarded", "host=admin.example"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("connection", "keep-alive"),
    ] {
        assert!(ask("GET", "/tickets/1", &[header], NONE).is_ok(), "{header:?}");
    }
    assert!(ask("GET", "/tickets/1", &[("x-http-method-override", "GET")], NONE).is_ok());
    // What no route reads may be spelled as it likes.
    let json = ("content-type", "application/json");
    let other = [("x-q", "a"), ("x_trace", "1"), ("x-trace", "2"), json];
    assert!(ask("POST", "/tickets/1/notes", &other, Body::Whole(b"{\"o\":{}}")).is_ok());
}

/// A member that a lenient server reads as an argument, or as the method, is refused in every `mode`.
#[test]
fn members_that_are_almost_arguments_are_refused_as_unread() {
    let error = |method: &str, path: &str, headers: &[(&str, &str)], body| {
        let request = HttpRequest { method, host: "h.example", path, headers, body };
        table().resolve(&request).map(|_| ()).unwrap_err()
    };
    for (member, reason, understood) in [
        ("other=1", ReasonCode::BadInput, true),
        ("q[]=1", ReasonCode::BadInput, false),
        ("q%5B%5D=1", ReasonCode::BadInput, false),
        ("Q=1", ReasonCode::BadInput, false),
        ("note[text]=1", ReasonCode::BadInput, false),
        ("_method=DELETE", ReasonCode::AmbiguousRequest, false),
        ("_METHOD=DELETE", ReasonCode::AmbiguousRequest, false),
    ] {
        let got = error("GET", &format!("/tickets/1?{member}"), &[], NONE);
        assert_eq!((reason, understood), (got.reason, got.understood), "{member}");
    }
    let json = [("content-type", "application/json")];
    for (body, reason, understood) in [
        (&br#"{"other": 1}"#[..], ReasonCode::BadInput, true),
        (br#"{"note": {"q": 1}}"#, ReasonCode::BadInput, true),
        (br#"{"ID": 1}"#, ReasonCode::BadInput, false),
        (br#"{"id[]": 1}"#, ReasonCode::BadInput, false),
        (br#"{"_method": "DELETE"}"#, ReasonCode::AmbiguousRequest, false),
    ] {
        let got = error("POST", "/tickets/1/notes", &json, Body::Whole(body));
        let shown = String::from_utf8_lossy(body);
        assert_eq!((reason, understood), (got.reason, got.understood), "{shown}");
    }
}

/// A body that is passed over is none in which a server looks for arguments.
#[test]
fn an_ignored_body_holds_no_arguments() {
    let ignoring = |ignore: IgnoredPart, path: &str, arguments: &[(&str, ArgumentSource)]| {
        let mut route = spec(1, "POST", path, "s.a", arguments);
        route.ignore.push(said(ignore, 1));
        route
    };
    let table = compile(vec![
        ignoring(IgnoredPart::Body, "/a", &[("n", query("n"))]),
        ignoring(IgnoredPart::Body, "/b", &[]),
        ignoring(IgnoredPart::Json(String::new()), "/c", &[("n", query("n"))]),
    ])
    .unwrap();
    let ask = |path: &str, kind: Option<&str>, body| {
        let headers: Vec<(&str, &str)> =
            kind.map(|kind| ("content-type", kind)).into_iter().collect();
        let request = HttpRequest { method: "POST", host: "", path, headers: &headers, body };
        table.resolve(&request).map(|_| ()).map_err(|error| (error.reason, error.understood))
    };
    let refused = Err((ReasonCode::BadInput, false));
    let json = Some("application/json");
    for path in ["/a?n=1", "/b"] {
        for kind in [
            None,
            Some("application/x-www-form-urlencoded"),
            Some("Application/X-WWW-Form-Urlencoded; charset=utf-8"),
            Some("multipart/form-data; boundary=x"),
            Some("multipart/mixed"),
            Some("application/octet-stream, application/x-www-form-urlencoded"),
            Some("text"),
            Some(""),
        ] {
            assert_eq!(refused, ask(path, kind, Body::Whole(b"n=5000")), "{path} {kind:?}");
            assert_eq!(Ok(()), ask(path, kind, Body::Whole(b"")), "{path} {kind:?}");
        }
        for kind in ["application/octet-stream", "text/plain; charset=utf-8", "image/png"] {
            assert_eq!(Ok(()), ask(path, Some(kind), Body::Whole(b"n=5000")), "{kind}");
            assert_eq!(refused, ask(path, Some(kind), Body::Partial), "{kind}");
            assert_eq!(Ok(()), ask(path, Some(kind), Body::Absent), "{kind}");
        }
        for kind in ["application/json", "application/x+json", "text/x-json; charset=utf-8"] {
            assert_eq!(Ok(()), ask(path, Some(kind), Body::Whole(br#"{"other":1}"#)), "{kind}");
            assert_eq!(refused, ask(path, Some(kind), Body::Whole(br#"{"N":5000}"#)), "{kind}");
            assert_eq!(refused, ask(path, Some(kind), Body::Whole(b"n=5000")), "{kind}");
            assert_eq!(refused, ask(path, Some(kind), Body::Absent), "{kind}");
        }
        let method = ask(path, json, Body::Whole(br#"{"_method":"DELETE"}"#));
        assert_eq!(Err((ReasonCode::AmbiguousRequest, false)), method);
        assert_eq!(Ok(()), ask(path, None, Body::Absent));
    }
    assert_eq!(Ok(()), ask("/c?n=1", json, Body::Whole(br#"{"other":{"n":1}}"#)));
    assert_eq!(refused, ask("/c?n=1", json, Body::Whole(br#"{"n":5000}"#)));
    assert_eq!(refused, ask("/c?n=1", Some("text/plain"), Body::Whole(br#"{"other":1}"#)));
}

#[test]
fn a_route_lists_the_types_of_its_body() {
    let with = |kinds: &[&str]| {
        let mut route = spec(1, "POST", "/a", "s.a", &[("o", ArgumentSource::Json("/o".into()))]);
        route.content_types = kinds.iter().map(|kind| said((*kind).to_owned(), 1)).collect();
        compile(vec![route])
    };
    let table = with(&["application/merge-patch+json"]).unwrap();
    let ask = |kind| {
        let headers = [("content-type", kind)];
        let body = Body::Whole(br#"{"o":{}}"#);
        let request = HttpRequest { method: "POST", host: "", path: "/a", headers: &headers, body };
        table.resolve(&request).map(|_| ()).map_err(|error| error.reason)
    };
    assert_eq!(Ok(()), ask("application/merge-patch+json"));
    assert_eq!(Ok(()), ask("application/merge-patch+json; charset=utf-8"));
    assert_eq!(Err(ReasonCode::BadInput), ask("application/json"));
    for (kinds, message) in [
        (&["text/plain"][..], "`text/plain` is no JSON type"),
        (&["application/JSON"], "`application/JSON` is no JSON type"),
        (&["application/json; charset=utf-8"], "is no JSON type"),
        (&["application/x-www-form-urlencoded,application/+json"], "is no JSON type"),
        (&["application/json", "application/json"], "the type `application/json` stands twice"),
    ] {
        let got = with(kinds).map(|_| ()).unwrap_err();
        assert!(got.contains(message), "{got}");
    }
    let mut route = spec(1, "GET", "/a", "s.a", &[("q", query("q"))]);
    route.content_types.push(said("application/json".to_owned(), 1));
    let got = compile(vec![route]).map(|_| ()).unwrap_err();
    assert!(got.contains("`content_types` stands on a route that reads no JSON body"), "{got}");
}

#[test]
fn members_that_servers_mistake_for_others_are_refused_at_load() {
    let json = |pointer: &str| ArgumentSource::Json(pointer.into());
    let ignored = |arguments: &[(&str, ArgumentSource)], ignore: IgnoredPart| {
        let mut route = spec(1, "POST", "/a", "s.a", arguments);
        route.ignore.push(said(ignore, 1));
        compile(vec![route]).map(|_| ())
    };
    for (arguments, ignore) in [
        (&[][..], IgnoredPart::Query("q".into())),
        (&[("q", query("q"))], IgnoredPart::Query("Q".into())),
        (&[("q", query("q"))], IgnoredPart::Query("q[]".into())),
        (&[("q", query("search"))], IgnoredPart::Query("search[0]".into())),
        (&[], IgnoredPart::Json("/note".into())),
        (&[("q", json("/in/q"))], IgnoredPart::Json("/in/NOTE".into())),
        (&[("q", json("/in/q"))], IgnoredPart::Json("/In".into())),
    ] {
        let got = ignored(arguments, ignore).unwrap_err();
        assert!(got.contains("r.yaml:1:1") && got.contains("is named like an argument"), "{got}");
    }
    for ignore in [IgnoredPart::Query("_method".into()), IgnoredPart::Json("/_Method".into())] {
        let got = ignored(&[], ignore).unwrap_err();
        assert!(got.contains("for the method of the request"), "{got}");
    }
    for ignore in [IgnoredPart::Query("page".into()), IgnoredPart::Json("/meta/q".into())] {
        assert_eq!(Ok(()), ignored(&[("q", query("q"))], ignore.clone()), "{ignore:?}");
    }
    for arguments in [
        &[("q", query("q")), ("id", query("q[]"))][..],
        &[("q", query("q")), ("id", query("Q"))],
        &[("q", query("q")), ("id", json("/q"))],
        &[("q", json("/q/a")), ("id", json("/Q/b"))],
    ] {
        let got = compile(vec![spec(1, "POST", "/a", "s.a", arguments)]).map(|_| ()).unwrap_err();
        assert!(got.contains("for one. Rename one of the two."), "{got}");
    }
    let both = [("q", json("/in/q")), ("id", json("/in/id")), ("n", query("n"))];
    assert!(compile(vec![spec(1, "POST", "/a", "s.a", &both)]).is_ok());
    for header in ["x-forwarded-host", "x-rewrite-url", "upgrade", "x-http-method"] {
        let header = ArgumentSource::Header(header.into());
        let got =
            compile(vec![spec(1, "POST", "/a", "s.a", &[("q", header)])]).map(|_| ()).unwrap_err();
        assert!(got.contains("is not for routes"), "{got}");
    }
}

#[test]
fn hosts_and_headers_tell_routes_apart() {
    let with = |line, host: Option<&str>, header: Option<&str>| {
        let mut route = spec(line, "GET", "/a", "s.a", &[]);
        route.host = host.map(|h| said(h.to_owned(), line));
        route.headers.extend(header.map(|v| (said("x-api".to_owned(), line), v.to_owned())));
        route
    };
    let table = compile(vec![
        with(1, Some("a.example"), None),
        with(2, Some("b.example:8443"), Some("1")),
        with(3, Some("b.example:8443"), Some("2")),
    ])
    .unwrap();
    let ask = |host, headers: &[(&str, &str)]| {
        let request = HttpRequest { method: "GET", host, path: "/a", headers, body: NONE };
        table.resolve(&request).map(|r| r.route).map_err(|e| e.reason)
    };
    assert_eq!(Ok(0), ask("a.example", &[]));
    assert_eq!(Ok(0), ask("A.Example:443", &[]));
    assert_eq!(Ok(1), ask("b.example:8443", &[("x-api", "1")]));
    assert_eq!(Ok(2), ask("b.example:8443", &[("x-api", "2")]));
    assert_eq!(Err(ReasonCode::NoRoute), ask("b.example", &[("x-api", "2")]));
    assert_eq!(Err(ReasonCode::NoRoute), ask("", &[]));
    assert_eq!(Err(ReasonCode::NoRoute), ask("b.example:8443", &[]));
    for host in
        ["a.example:", "a.example:abc", "a.example:+80", "a.example:70000", "a.example:80:80"]
    {
        assert_eq!(Err(ReasonCode::NoRoute), ask(host, &[]), "{host}");
    }
    assert_eq!(
        Err(ReasonCode::AmbiguousRequest),
        ask("b.example:8443", &[("x-api", "1"), ("x-api", "2")])
    );
    for (first, second) in [
        (with(1, None, None), with(2, Some("a.example"), None)),
        (with(1, Some("a.example"), None), with(2, Some("a.example:80"), None)),
        (with(1, None, Some("1")), with(2, None, None)),
    ] {
        let message = compile(vec![first, second]).unwrap_err();
        assert!(
            message.contains("`GET /a` matches requests that the route in r.yaml:1 matches too"),
            "{message}"
        );
    }
}

#[test]
fn routes_that_cannot_work_are_refused() {
    let id = || ArgumentSource::Path("id".into());
    for (path, arguments, message) in [
        ("a", vec![], "the path `a` does not start with `/`"),
        ("/a//b", vec![], "`/a//b` holds an empty or dot segment, or one that ends in a dot"),
        ("/a/{id", vec![], "bad segment in `/a/{id`"),
        ("/a%20", vec![], "bad segment in `/a%20`"),
        ("/{a}/{a}", vec![], "`{a}` stands twice in `/{a}/{a}`"),
        (
            "/{id}",
            vec![],
            "`{id}` of the path is no argument. Map it, or add `{path: id}` to `ignore`.",
        ),
        (
            "/{id}",
            vec![("zz", id())],
            "unknown argument `zz`; declared: id, q, n, x, b and 3 more of `s.a`",
        ),
        (
            "/{id}",
            vec![("id", id()), ("id", ArgumentSource::Query("id".into()))],
            "the argument `id` is mapped twice",
        ),
        ("/{id}", vec![("o", id())], "`o` of `s.a` cannot be read from text"),
        ("/{id}", vec![("tags", id())], "`tags` of `s.a` cannot be read from text"),
        ("/a", vec![("id", id())], "unknown path parameter `id`"),
        (
            "/a",
            vec![("id", query("x")), ("q", query("x"))],
            "one part of the request fills two arguments",
        ),
        (
            "/a",
            vec![
                ("id", ArgumentSource::Json("/a".into())),
                ("q", ArgumentSource::Json("/a/b".into())),
            ],
            "`/a/b` is part of a value that is mapped already",
        ),
        (
            "/a",
            vec![
                ("id", ArgumentSource::Json("/a/b".into())),
                ("q", ArgumentSource::Json("/a".into())),
            ],
            "`/a` is mapped already, or a part of it",
        ),
        ("/a", vec![("id", ArgumentSource::Json("a".into()))], "`a` is no JSON pointer"),
        ("/a", vec![("id", ArgumentSource::Header("X-A".into()))], "`X-A` is no header name"),
        (
            "/a",
            vec![("id", ArgumentSource::Header("authorization".into()))],
            "`authorization` is no header name",
        ),
    ] {
        let got = compile(vec![spec(1, "GET", path, "s.a", &arguments)]).map(|_| ()).unwrap_err();
        assert!(got.contains(message), "{path}: {got}");
    }
    assert!(
        compile(vec![spec(1, "get", "/a", "s.a", &[])]).unwrap_err().contains("`get` is no method")
    );
}

fn pattern() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(prop_oneof!["[ab]", Just("{}".to_owned())], 1..4)
}

/// A path of a pattern, its parameters named by position, and their names.
fn path(pattern: &[String]) -> (String, Vec<(&'static str, ArgumentSource)>, Vec<String>) {
    let mut out = String::new();
    let mut names = Vec::new();
    for (i, piece) in pattern.iter().enumerate() {
        match piece.as_str() {
            "{}" => {
                out.push_str(&format!("/{{p{i}}}"));
                names.push(format!("p{i}"));
            }
            piece => out.push_str(&format!("/{piece}")),
        }
    }
    (out, Vec::new(), names)
}

fn route_of(line: u32, pattern: &[String]) -> RouteSpec {
    let (path, arguments, names) = path(pattern);
    let mut route = spec(line, "GET", &path, "s.a", &arguments);
    route.ignore = names.into_iter().map(|n| said(IgnoredPart::Path(n), line)).collect();
    route
}

fn naive(pattern: &[String], segments: &[String]) -> bool {
    pattern.len() == segments.len()
        && pattern.iter().zip(segments).all(|(p, s)| p == "{}" || p == s)
}

/// A text as the fields of an HTML form are encoded.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Name and value of a member of the query of [`table`]'s first route, or of none.
fn member() -> impl Strategy<Value = (&'static str, String)> {
    let text = || "[a-c&=+%/é\"\\\\ ;#]{0,6}|x{14,18}";
    prop_oneof![
        4 => text().prop_map(|text| ("q", text)),
        3 => "-?[1-9][0-9]{0,3}|[x0-9]{0,3}".prop_map(|text| ("n", text)),
        2 => "true|false|True".prop_map(|text| ("b", text)),
        4 => text().prop_map(|text| ("tag", text)),
        1 => text().prop_map(|text| ("other", text)),
    ]
}

/// The arguments that a query fills, one member after the other.
fn plainly(members: &[(&str, String)]) -> Result<serde_json::Value, ReasonCode> {
    let mut arguments = serde_json::Map::from_iter([("id".to_owned(), "T-1".into())]);
    for (name, text) in members {
        let value = match *name {
            "tag" => {
                let tags = arguments.entry("tags").or_insert_with(|| Vec::<String>::new().into());
                tags.as_array_mut().unwrap().push(text.as_str().into());
                continue;
            }
            "other" => return Err(ReasonCode::BadInput),
            name if arguments.contains_key(name) => return Err(ReasonCode::AmbiguousRequest),
            "n" => text.parse::<i64>().ok().filter(|n| n.to_string() == *text).map(Into::into),
            "b" => text.parse::<bool>().ok().map(Into::into),
            _ => Some(text.as_str().into()),
        };
        arguments.insert((*name).to_owned(), value.ok_or(ReasonCode::BadInput)?);
    }
    Ok(arguments.into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_query_fills_what_a_plain_reader_of_forms_reads(members in proptest::collection::vec(member(), 0..6)) {
        let query: Vec<String> =
            members.iter().map(|(name, text)| format!("{name}={}", encoded(text))).collect();
        let filled = get(&format!("/tickets/T-1?{}", query.join("&")));
        let filled = filled.map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap());
        prop_assert_eq!(plainly(&members), filled);
    }

    #[test]
    fn the_table_finds_what_the_obvious_matcher_finds(
        patterns in proptest::collection::vec(pattern(), 1..6),
        segments in proptest::collection::vec("[abc]", 1..4),
    ) {
        // Only patterns that no other one meets: a bundle with two that do is refused.
        let mut kept: Vec<Vec<String>> = Vec::new();
        for pattern in patterns {
            let mut with = kept.clone();
            with.push(pattern.clone());
            let meets = kept.iter().any(|k| k.len() == pattern.len()
                && k.iter().zip(&pattern).all(|(a, b)| a == b || a == "{}" || b == "{}"));
            let specs = with.iter().zip(1..).map(|(p, line)| route_of(line, p)).collect();
            prop_assert_eq!(meets, compile(specs).is_err());
            if !meets {
                kept = with;
            }
        }
        let table = compile(kept.iter().zip(1..).map(|(p, line)| route_of(line, p)).collect())
            .unwrap_or_else(|e| panic!("{e}"));
        let path = format!("/{}", segments.join("/"));
        let request = HttpRequest { method: "GET", host: "", path: &path, headers: &[], body: NONE };
        let wanted = kept.iter().position(|p| naive(p, &segments));
        prop_assert_eq!(wanted, table.resolve(&request).ok().map(|r| r.route));
    }

    #[test]
    fn no_request_makes_the_table_panic(path in ".{0,40}", name in "[a-z-]{0,8}", body in ".{0,40}") {
        let headers = [(name.as_str(), path.as_str())];
        for method in ["GET", "POST"] {
            for path in [path.clone(), format!("/tickets/{path}"), format!("/tickets/1/notes?{path}")] {
                let body = Body::Whole(body.as_bytes());
                let request = HttpRequest { method, host: &name, path: &path, headers: &headers, body };
                drop(table().resolve(&request));
            }
        }
    }
}
