//! The contract with Envoy, and with others that speak its protocol. Each test names what would go wrong on the naive way.
#![expect(deprecated, reason = "proxies up to 1.36 read only the older field")]

use std::collections::{BTreeMap, BTreeSet};

use authz_kernel::reason::ReasonCode;
use authz_lane::proto::envoy::config::core::v3::{HeaderMap, HeaderValue};
use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::proto::envoy::service::auth::v3::attribute_context as attributes;
use authz_lane::proto::envoy::service::auth::v3::check_response::HttpResponse;
use authz_lane::{Surface, Transport};
use prost::Message;
use prost_types::value::Kind;
use serde_json::{Value, json};

use crate::support::*;

/// What Envoy does with an answer: a missing status, or code 0, is a permit, whatever else it holds.
fn envoy_permits(answer: &ext::CheckResponse) -> bool {
    let is_error = matches!(answer.http_response, Some(HttpResponse::ErrorResponse(_)));
    !is_error && answer.status.as_ref().is_none_or(|status| status.code == 0)
}

fn ok(answer: &ext::CheckResponse) -> &ext::OkHttpResponse {
    match &answer.http_response {
        Some(HttpResponse::OkResponse(ok)) if envoy_permits(answer) => ok,
        other => panic!("no permit: {other:?}"),
    }
}

fn denied(answer: &ext::CheckResponse) -> &ext::DeniedHttpResponse {
    assert!(!envoy_permits(answer));
    match &answer.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => denied,
        other => panic!("no denial: {other:?}"),
    }
}

fn metadata(answer: &ext::CheckResponse) -> BTreeMap<String, String> {
    let fields = &answer.dynamic_metadata.as_ref().unwrap().fields;
    fields
        .iter()
        .map(|(name, value)| match &value.kind {
            Some(Kind::StringValue(text)) => (name.clone(), text.clone()),
            other => panic!("no text: {other:?}"),
        })
        .collect()
}

fn reason(answer: &ext::CheckResponse) -> String {
    metadata(answer)["reason_code"].clone()
}

fn set(ok: &ext::OkHttpResponse) -> BTreeMap<String, String> {
    ok.headers.iter().map(|o| o.header.clone().unwrap()).map(|h| (h.key, h.value)).collect()
}

/// What a permit removes unseen: credentials of ours, and every name that a CGI or WSGI server takes for one of ours.
fn always_removed() -> BTreeSet<String> {
    let ours = ["authz-credential", "authz-subject", "authz-task"];
    let identity = ["x-authz-agent", "x-authz-subject", "x-authz-decision-id"];
    let mut names = BTreeSet::new();
    for name in ours.iter().chain(&identity) {
        let dashes: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
        for choice in 0..1_u32 << dashes.len() {
            let mut twin = name.as_bytes().to_vec();
            for (bit, at) in dashes.iter().enumerate() {
                if choice >> bit & 1 == 1 {
                    twin[*at] = b'_';
                }
            }
            names.insert(String::from_utf8(twin).unwrap());
        }
    }
    names.retain(|name| !identity.contains(&name.as_str()));
    names
}

/// A proxy that shows only some headers shows no twins of ours: they are removed all the same.
#[test]
fn unseen_twins_are_removed() {
    let served = served();
    let answer = served.proxy(&http("GET", "/customers?q=a", &[]));
    let removed: BTreeSet<String> = ok(&answer).headers_to_remove.iter().cloned().collect();
    for name in ["x_authz_agent", "x-authz_decision_id", "x_authz_subject", "authz_task"] {
        assert!(removed.contains(name), "{name}");
    }
    let mut expected = always_removed();
    expected.insert(AUTHORIZATION.to_owned());
    assert_eq!(expected, removed);
}

/// A permit names agent, subject and decision, and takes every header of ours out of the request.
#[test]
fn permit() {
    let served = served();
    let spoofed = [
        ("x-authz-agent", "spiffe://evil"),
        ("x-authz-admin", "1"),
        ("x_authz_agent", "spiffe://evil"),
        ("authz-labels", "x"),
        ("user-agent", "curl"),
    ];
    let answer = served.proxy(&http("GET", "/customers?q=a", &spoofed));
    let ok = ok(&answer);
    let metadata = metadata(&answer);
    assert_eq!(
        BTreeMap::from([
            ("x-authz-agent".to_owned(), BOT.to_owned()),
            ("x-authz-decision-id".to_owned(), metadata["decision_id"].clone()),
            ("x-authz-subject".to_owned(), "corp/alice".to_owned()),
        ]),
        set(ok)
    );
    let removed: BTreeSet<&str> = ok.headers_to_remove.iter().map(String::as_str).collect();
    let mut expected = always_removed();
    expected.extend(["authz-labels", "x-authz-admin", AUTHORIZATION].map(str::to_owned));
    assert_eq!(expected.iter().map(String::as_str).collect::<BTreeSet<_>>(), removed);
    assert_eq!(format!("corp/alice > {BOT}"), metadata["agent_chain"]);
    assert_eq!(BOT, metadata["principal"]);
    assert_eq!(("PERMIT", "PERMITTED"), (&*metadata["decision"], &*metadata["reason_code"]));
    assert_eq!("true", metadata["enforced"]);
    assert_eq!(7, metadata.len());
}

/// Both fields say "overwrite": 1.37.0 reads the newer one where the older is unset, and its zero means append.
#[test]
fn identity_headers_overwrite() {
    let served = served();
    let mut answers = vec![served.proxy(&http("GET", "/customers?q=a", &[]))];
    answers.push(served.proxy(&http("GET", "/pages", &[])));
    for answer in &answers {
        let headers = match answer.http_response.as_ref().unwrap() {
            HttpResponse::OkResponse(ok) => &ok.headers,
            HttpResponse::DeniedResponse(denied) | HttpResponse::ErrorResponse(denied) => {
                &denied.headers
            }
        };
        assert!(!headers.is_empty());
        for option in headers {
            assert_eq!((Some(false), 2), (option.append, option.append_action), "{option:?}");
        }
    }
    // Trap: a header option as most authorizers build it. 1.37.0 appends it to the client's own.
    let naive = ext::OkHttpResponse {
        headers: vec![authz_lane::proto::envoy::config::core::v3::HeaderValueOption {
            header: Some(HeaderValue {
                key: "x-authz-agent".to_owned(),
                value: BOT.to_owned(),
                raw_value: Vec::new(),
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!((None, 0), (naive.headers[0].append, naive.headers[0].append_action));
}

/// A name is never both set and removed: the removal would win. Without a subject its header is removed.
#[test]
fn absent_identity_is_removed() {
    let served = served();
    let request =
        http("GET", "/customers?q=a", &[("authz-subject", "\0"), ("x-authz-subject", "boss")]);
    let answer = served.proxy(&request);
    let ok = ok(&answer);
    assert!(ok.headers_to_remove.contains(&"x-authz-subject".to_owned()));
    let set = set(ok);
    assert!(!set.contains_key("x-authz-subject"));
    assert!(ok.headers_to_remove.iter().all(|name| !set.contains_key(name)));
}

const PROOF: &str = "dpop";
const AUTHORIZATION: &str = "authorization";

/// The headers of evidence that an answer takes out.
fn evidence_removed(answer: &ext::CheckResponse) -> Vec<&str> {
    let removed = ok(answer).headers_to_remove.iter().map(String::as_str);
    removed.filter(|name| [AUTHORIZATION, PROOF].contains(name)).collect()
}

/// Whoever is sent an agent's token can be that agent elsewhere: it goes on only to a system that it is for.
#[test]
fn evidence_is_not_forwarded() {
    let served = served();
    let sent = |token: &str| {
        let bearer = format!("Bearer {token}");
        served.proxy(&http("GET", "/customers?q=a", &[(AUTHORIZATION, &bearer)]))
    };
    assert_eq!(vec![AUTHORIZATION], evidence_removed(&sent(&svid())));
    for (audience, removed) in [
        (json!(["authz", "crm"]), vec![]),
        (json!(["https://crm.example", "authz"]), vec![]),
        (json!(["authz", "wiki"]), vec![AUTHORIZATION]),
        (json!(["authz", "https://wiki.example"]), vec![AUTHORIZATION]),
        (json!(["authz", "https://crm.example/"]), vec![AUTHORIZATION]),
        (json!(["authz", ""]), vec![AUTHORIZATION]),
    ] {
        let token = svid_of(&json!({"aud": audience}));
        assert_eq!(removed, evidence_removed(&sent(&token)), "{audience}");
        // Out of the cache too.
        assert_eq!(removed, evidence_removed(&sent(&token)), "{audience}");
    }
}

/// Nor is it where `mode` lets a denial through.
#[test]
fn evidence_is_not_forwarded_where_a_denial_is_observed() {
    let served = observing("mode: {default: observe, owner: sec, until: 2999-01-01}");
    let answer = served.proxy(&http("GET", "/pages", &[]));
    assert_eq!("false", metadata(&answer)["enforced"]);
    assert_eq!(vec![AUTHORIZATION], evidence_removed(&answer));
}

/// A body that was cut off is refused on every route, and never let through, though its route reads none of it.
#[test]
fn a_cut_off_body_is_never_let_through() {
    let routes = "routes: [{host: crm.example, method: PUT, path: /upload, operation: crm.card, ignore: [body]}]\n";
    let observed = format!("{routes}mode: {{default: observe, owner: sec, until: 2999-01-01}}\n");
    for facts in [routes, observed.as_str()] {
        let served = observing(facts);
        let cut = [("content-type", "text/plain"), ("x-envoy-auth-partial-body", "true")];
        let answer =
            served.proxy(&edit(http("PUT", "/upload", &cut), |http| http.body = "x".into()));
        assert!(!envoy_permits(&answer), "{answer:?}");
        assert_eq!("BAD_INPUT", metadata(&answer)["reason_code"]);
        // Larger than what was sent along.
        let cut = [("content-type", "text/plain")];
        let answer = served.proxy(&edit(http("PUT", "/upload", &cut), |http| {
            http.body = "x".into();
            http.size = 2;
        }));
        assert!(!envoy_permits(&answer), "{answer:?}");
        let whole =
            served.proxy(&edit(http("PUT", "/upload", &cut), |http| http.body = "x".into()));
        assert_ne!("BAD_INPUT", metadata(&whole)["reason_code"], "whole, it is judged");
    }
}

/// A `sub` of any letters cannot end a header or look like another chain.
#[test]
fn names_are_encoded() {
    let served = served();
    let token = user("eve > spiffe://a/b, é;%", json!(["employees"]));
    let answer = served.proxy(&http("GET", "/customers?q=a", &[("authz-subject", &token)]));
    let value = &set(ok(&answer))["x-authz-subject"];
    assert_eq!("corp/eve%20%3E%20spiffe://a/b%2C%20%C3%A9%3B%25", value);
}

/// Traps: what other authorizers answer by mistake, Envoy takes for a permit.
#[test]
fn naive_answers_permit() {
    assert!(envoy_permits(&ext::CheckResponse::default()), "an early return");
    let with_denial = ext::CheckResponse {
        http_response: Some(HttpResponse::DeniedResponse(ext::DeniedHttpResponse::default())),
        ..ext::CheckResponse::default()
    };
    assert!(envoy_permits(&with_denial), "a denial without a status");
    assert!(ext::CheckResponse::default().encode_to_vec().is_empty(), "and so do no bytes");
}

type Expected = (&'static str, i32, i32);

/// Requests by what must come of them: reason, gRPC code, HTTP status.
#[test]
fn refusals() {
    let bearer = format!("Bearer {}", svid());
    let double = format!("{bearer}, {bearer}");
    let dpop = bearer.replace("Bearer", "DPoP");
    let spaced = format!("{bearer} x");
    let long = format!("Bearer {}", "a".repeat(9000));
    let get = |headers: &[(&str, &str)]| http("GET", "/customers?q=a", headers);
    let many: Vec<(String, String)> =
        (0..300).map(|n| (format!("x-{n}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let ours: Vec<String> = (0..80).map(|n| format!("authz-{n}")).collect();
    let ours: Vec<(&str, &str)> = ours.iter().map(|n| (n.as_str(), "v")).collect();

    const NONE: Expected = ("NO_CREDENTIAL", 16, 401);
    const BAD: Expected = ("BAD_CREDENTIAL", 16, 401);
    const AMBIGUOUS: Expected = ("AMBIGUOUS_REQUEST", 3, 400);
    const INPUT: Expected = ("BAD_INPUT", 3, 400);
    let cases: Vec<(&str, Expected, ext::CheckRequest)> = vec![
        ("nothing at all", INPUT, ext::CheckRequest::default()),
        (
            "no HTTP",
            INPUT,
            ext::CheckRequest { attributes: Some(ext::AttributeContext::default()) },
        ),
        ("empty HTTP", NONE, request(attributes::HttpRequest::default())),
        ("no authorization", NONE, get(&[("authorization", "\0")])),
        ("only a subject", NONE, get(&[("authorization", "\0")])),
        ("empty authorization", BAD, get(&[("authorization", "")])),
        ("no scheme", BAD, get(&[("authorization", &bearer[7..])])),
        ("basic", BAD, get(&[("authorization", "Basic eDp5")])),
        ("joined", BAD, get(&[("authorization", &double)])),
        ("two tokens", BAD, get(&[("authorization", &spaced)])),
        ("scheme alone", BAD, get(&[("authorization", "Bearer ")])),
        ("too long", BAD, get(&[("authorization", &long)])),
        ("two subjects", BAD, get(&[("authz-subject", &format!("{0},{0}", alice()))])),
        ("subject is an agent", BAD, get(&[("authz-subject", &svid())])),
        ("agent is a subject", BAD, get(&[("authorization", &format!("Bearer {}", alice()))])),
        ("forged", BAD, get(&[("authorization", &format!("Bearer {}", forged()))])),
        ("task credential", ("BAD_CREDENTIAL", 16, 401), get(&[("authz-credential", "x")])),
        (
            "SVID for a task credential",
            ("BAD_CREDENTIAL", 16, 401),
            get(&[("authorization", "\0"), ("authz-credential", &svid())]),
        ),
        ("DPoP without proof", ("BAD_PROOF", 16, 401), get(&[("authorization", &dpop)])),
        ("a task", ("UNKNOWN_TASK", 7, 403), get(&[("authz-task", "t")])),
        ("in baggage", ("UNKNOWN_TASK", 7, 403), get(&[("baggage", "a=b, authz.task=t;p=1")])),
        (
            "two tasks",
            ("TASK_CONFLICT", 3, 400),
            get(&[("authz-task", "t"), ("baggage", "authz.task=u")]),
        ),
        ("no route", ("NO_ROUTE", 7, 403), http("GET", "/nothing", &[])),
        ("other method", ("NO_ROUTE", 7, 403), http("PUT", "/customers?q=a", &[])),
        ("double slash", AMBIGUOUS, http("GET", "//customers?q=a", &[])),
        ("encoded slash", AMBIGUOUS, http("DELETE", "/customers/a%2Fb", &[])),
        ("encoded dot", AMBIGUOUS, http("DELETE", "/customers/%2e%2e", &[])),
        ("dot segment", AMBIGUOUS, http("DELETE", "/customers/../cards", &[])),
        ("semicolon", AMBIGUOUS, http("DELETE", "/customers/a;b", &[])),
        ("backslash", AMBIGUOUS, http("DELETE", "/customers/a\\b", &[])),
        ("NUL", AMBIGUOUS, http("DELETE", "/customers/%00", &[])),
        ("path twice", AMBIGUOUS, get(&[(":path", "/pages")])),
        ("method twice", AMBIGUOUS, get(&[(":method", "POST")])),
        ("host twice", AMBIGUOUS, get(&[("host", "evil.example")])),
        ("query apart", AMBIGUOUS, edit(get(&[]), |h| h.query = "q=b".to_owned())),
        ("fragment apart", AMBIGUOUS, edit(get(&[]), |h| h.fragment = "x".to_owned())),
        ("upper-case name", AMBIGUOUS, get(&[("Authorization", "x")])),
        ("space in name", AMBIGUOUS, get(&[("a b", "x")])),
        (
            "both encodings",
            AMBIGUOUS,
            edit(get(&[]), |h| {
                let headers =
                    vec![HeaderValue { key: "a".into(), value: "b".into(), raw_value: vec![] }];
                h.header_map = Some(HeaderMap { headers });
            }),
        ),
        (
            "value twice",
            AMBIGUOUS,
            edit(raw("GET", "/customers?q=a", &[("a", b"b")]), |h| {
                h.header_map.as_mut().unwrap().headers[2].value = "c".to_owned();
            }),
        ),
        (
            "body twice",
            AMBIGUOUS,
            edit(http("POST", "/customers", &[]), |h| {
                h.body = "{\"q\":\"a\"}".to_owned();
                h.raw_body = b"{\"q\":\"b\"}".to_vec();
            }),
        ),
        (
            "duplicate authorization",
            BAD,
            raw("GET", "/customers?q=a", &[("authorization", b"Bearer x")]),
        ),
        (
            "authorization is no text",
            AMBIGUOUS,
            raw("GET", "/customers?q=a", &[("authorization", b"\xff")]),
        ),
        (
            "routed header is no text",
            AMBIGUOUS,
            raw("GET", "/customers?q=a", &[("x-sort", b"up\xff")]),
        ),
        // CGI and WSGI servers take `_` for `-`: what they would read is not what was judged.
        ("twin of a routed header", AMBIGUOUS, get(&[("x-sort", "up"), ("x_sort", "down")])),
        ("only the twin", AMBIGUOUS, get(&[("x_sort", "down")])),
        ("twin of bytes", AMBIGUOUS, raw("GET", "/customers?q=a", &[("x_sort", b"\xff")])),
        ("content_type", AMBIGUOUS, get(&[("content_type", "text/plain")])),
        ("content_length", AMBIGUOUS, get(&[("content_length", "0")])),
        ("transfer_encoding", AMBIGUOUS, get(&[("transfer_encoding", "chunked")])),
        ("override", AMBIGUOUS, get(&[("x_http_method_override", "DELETE")])),
        ("half an override", AMBIGUOUS, get(&[("x-http_method-override", "GET")])),
        ("twin of ours", AMBIGUOUS, get(&[("x_envoy_auth_partial_body", "false")])),
        // RFC 9112 §6.3: who says the length twice says two things.
        (
            "length and chunks",
            AMBIGUOUS,
            http(
                "POST",
                "/customers",
                &[("content-length", "0"), ("transfer-encoding", "chunked")],
            ),
        ),
        (
            "length and chunks, no body read",
            AMBIGUOUS,
            get(&[("content-length", "0"), ("transfer-encoding", "chunked")]),
        ),
        (
            "length twice",
            AMBIGUOUS,
            raw("GET", "/customers?q=a", &[("content-length", b"0"), ("content-length", b"0")]),
        ),
        ("lengths joined", AMBIGUOUS, get(&[("content-length", "0, 0")])),
        ("length of signs", AMBIGUOUS, get(&[("content-length", "+0")])),
        ("no length", AMBIGUOUS, get(&[("content-length", "")])),
        (
            "length too long",
            AMBIGUOUS,
            edit(http("POST", "/customers", &[("content-length", "500")]), |h| {
                h.body = "{\"q\":\"a\"}".to_owned();
            }),
        ),
        (
            "length too short",
            AMBIGUOUS,
            edit(http("POST", "/customers", &[("content-length", "0")]), |h| {
                h.raw_body = b"{\"q\":\"a\"}".to_vec();
            }),
        ),
        (
            "more than was sent along",
            INPUT,
            edit(http("POST", "/customers", &[("content-type", "application/json")]), |h| {
                h.body = "{\"q\":\"a\"}".to_owned();
                h.size = 500;
            }),
        ),
        (
            "length, but no body sent along",
            INPUT,
            http("POST", "/customers", &[("content-length", "9")]),
        ),
        ("chunks, but no body", INPUT, get(&[("transfer-encoding", "chunked")])),
        ("unmapped query", INPUT, http("GET", "/customers?q=a&x=1", &[])),
        ("ill-typed query", INPUT, http("GET", "/customers?q=a&limit=x", &[])),
        ("no body", INPUT, http("POST", "/customers", &[])),
        (
            "partial body",
            INPUT,
            edit(http("POST", "/customers", &[("x-envoy-auth-partial-body", "true")]), |h| {
                h.body = "{\"q\":\"a\"}".to_owned();
            }),
        ),
        ("body held back", INPUT, edit(get(&[]), |h| h.size = 5)),
        (
            "body no JSON",
            INPUT,
            edit(http("POST", "/customers", &[("content-type", "application/json")]), |h| {
                h.body = "q=a".to_owned();
            }),
        ),
        (
            "duplicate key",
            INPUT,
            edit(http("POST", "/customers", &[("content-type", "application/json")]), |h| {
                h.raw_body = b"{\"q\":\"a\",\"q\":\"b\"}".to_vec();
            }),
        ),
        (
            "unmapped body",
            INPUT,
            edit(http("POST", "/customers", &[("content-type", "application/json")]), |h| {
                h.body = "{\"q\":\"a\",\"admin\":true}".to_owned();
            }),
        ),
        ("long path", INPUT, http("GET", &format!("/customers?q={}", "a".repeat(20_000)), &[])),
        ("many headers", INPUT, get(&many)),
        ("many of ours", INPUT, get(&ours)),
        ("unreviewed", ("UNREVIEWED_OPERATION", 7, 403), http("GET", "/raw", &[])),
        ("forbidden", ("FORBIDDEN", 7, 403), http("GET", "/pages", &[])),
        ("obligation", ("ENFORCER_REFUSED", 7, 403), http("GET", "/cards", &[])),
        ("step-up", ("CONFIRM_REQUIRED", 7, 403), http("GET", "/mail", &[])),
    ];
    let served = served();
    let mut bodies: BTreeMap<(String, String, String), String> = BTreeMap::new();
    for (name, (reason_code, grpc, status), request) in &cases {
        let answer = served.proxy(request);
        assert_eq!(*reason_code, reason(&answer), "{name}");
        let denial = denied(&answer);
        assert_eq!(*grpc, answer.status.as_ref().unwrap().code, "{name}");
        assert_eq!(*status, denial.status.as_ref().unwrap().code, "{name}");
        let headers: BTreeMap<String, String> = denial
            .headers
            .iter()
            .map(|o| o.header.clone().unwrap())
            .map(|h| (h.key, h.value))
            .collect();
        let id = &metadata(&answer)["decision_id"];
        assert_eq!(Some(id), headers.get("x-authz-decision-id"));
        assert_eq!(Some("application/json"), headers.get("content-type").map(String::as_str));
        assert_eq!(*status == 401, headers.contains_key("www-authenticate"), "{name}");
        let body: Value = serde_json::from_str(&denial.body).unwrap();
        assert_eq!(id, body["decision_id"].as_str().unwrap());
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        let triple = (text("public_code"), text("next_action"), text("retry"));
        if body.get("reason").is_none() {
            let without_id = denial.body.replace(id, "");
            let known = bodies.entry(triple).or_insert_with(|| without_id.clone());
            assert_eq!(*known, without_id, "{name}: bodies of one triple are equal");
        }
    }
    assert!(bodies.len() >= 5);
    assert_eq!(cases.len(), served.records().len());
}

/// A step-up to a stronger login names the contexts that suffice (RFC 9470 §3), and no other refusal does.
#[test]
fn a_stronger_login_is_named() {
    let served = unloaded(&json!({}));
    let policy = r#"@id("strong-search") @stepup("reauth:urn:corp:mfa") @reason("searches need a strong login")
forbid(principal, action == Action::"crm.search", resource)
unless { context.satisfied.contains(Kind::"reauth:urn:corp:mfa") };"#;
    let world = authz_lane::World { plan: plan(&[("policies/strong.cedar", policy)]), ..world() };
    served.engine.load(world).unwrap();
    let header = |path: &str| {
        let answer = served.proxy(&http("GET", path, &[]));
        let denial = denied(&answer);
        let mut headers = denial.headers.iter().map(|option| option.header.clone().unwrap());
        let challenge = headers.find(|header| header.key == "www-authenticate");
        (reason(&answer).to_owned(), denial.status.unwrap().code, challenge.map(|one| one.value))
    };
    let challenge = "Bearer realm=\"authz\", error=\"insufficient_user_authentication\", \
                     acr_values=\"urn:corp:mfa\"";
    assert_eq!(
        ("REAUTH_REQUIRED".to_owned(), 401, Some(challenge.to_owned())),
        header("/customers?q=a")
    );
    assert_eq!(("CONFIRM_REQUIRED".to_owned(), 403, None), header("/mail"));
}

/// A bundle may let agents see a policy's reason; only then the body has one.
#[test]
fn shown_reason() {
    let served = served();
    let body = |answer: &ext::CheckResponse| -> Value {
        serde_json::from_str(&denied(answer).body).unwrap()
    };
    let shown = body(&served.proxy(&http("GET", "/pages", &[])));
    assert_eq!("the wiki is closed", shown["reason"]);
    let hidden = body(&served.proxy(&http("GET", "/mail", &[])));
    assert!(hidden.get("reason").is_none(), "{hidden}");
}

/// Requests that are well, in every form that callers use.
#[test]
fn accepted_forms() {
    let served = served();
    let json_type = ("content-type", "application/json");
    let bearer = format!("bEaReR {}", svid());
    let cases: Vec<(&str, ext::CheckRequest)> = vec![
        ("map of texts", http("GET", "/customers?q=a&limit=3", &[])),
        ("scheme in any case", http("GET", "/customers?q=a", &[("authorization", &bearer)])),
        ("bytes, as gRPC itself sends", raw("GET", "/customers?q=a", &[])),
        (
            "a header of bytes that nobody reads",
            raw("GET", "/customers?q=a", &[("x-photo", b"\xff\xfe")]),
        ),
        ("a twin of what nobody reads", http("GET", "/customers?q=a", &[("x_other", "1")])),
        ("no body by length", http("GET", "/customers?q=a", &[("content-length", "0")])),
        (
            "body of its length",
            edit(http("POST", "/customers", &[json_type, ("content-length", "9")]), |h| {
                h.body = "{\"q\":\"a\"}".into();
                h.size = 9;
            }),
        ),
        (
            "body in chunks",
            edit(http("POST", "/customers", &[json_type, ("transfer-encoding", "chunked")]), |h| {
                h.body = "{\"q\":\"a\"}".into();
                h.size = 9;
            }),
        ),
        ("a routed header", raw("GET", "/customers?q=a", &[("x-sort", b"up")])),
        (
            "text body",
            edit(http("POST", "/customers", &[json_type]), |h| h.body = "{\"q\":\"a\"}".into()),
        ),
        (
            "raw body",
            edit(
                http("POST", "/customers", &[json_type, ("x-envoy-auth-partial-body", "false")]),
                |h| {
                    h.raw_body = b"{\"q\":\"a\"}".to_vec();
                },
            ),
        ),
    ];
    for (name, request) in &cases {
        let answer = served.proxy(request);
        assert_eq!("PERMITTED", reason(&answer), "{name}");
        ok(&answer);
    }
    let mut card = http("GET", "/cards", &[]);
    let extensions = &mut card.attributes.as_mut().unwrap().context_extensions;
    extensions.insert("authz.supported_obligations".to_owned(), "log, redact:card".to_owned());
    assert_eq!("PERMITTED", reason(&served.proxy(&card)));
}

/// The proxy's view of its peer proves nothing here, set or not; a workload's name in it is no credential.
#[test]
fn source_principal_is_no_credential() {
    let served = served();
    for principal in ["", BOT, "*"] {
        let mut request =
            http("GET", "/customers?q=a", &[("authorization", "\0"), ("authz-subject", "\0")]);
        let source = attributes::Peer {
            principal: principal.to_owned(),
            service: BOT.to_owned(),
            ..attributes::Peer::default()
        };
        request.attributes.as_mut().unwrap().source = Some(source);
        let answer = served.proxy(&request);
        assert_eq!(
            ("NO_CREDENTIAL", 401),
            (&*reason(&answer), denied(&answer).status.as_ref().unwrap().code)
        );
        assert_eq!("", metadata(&answer)["principal"]);
    }
}

/// Naive way: the last entry of a map counts. No sender writes a name twice; where one does, a server behind it may have read
/// the other value, or both.
#[test]
fn a_map_of_headers_has_each_name_once() {
    let served = served();
    let one = http("GET", "/customers?q=a", &[]).encode_to_vec();
    for (header, expected) in [("x-other", "PERMITTED"), ("authorization", "AMBIGUOUS_REQUEST")] {
        // Messages that come one after the other are merged.
        let more = attributes::HttpRequest {
            headers: BTreeMap::from([(header.to_owned(), "Bearer x".to_owned())]),
            ..attributes::HttpRequest::default()
        };
        let bytes = [one.clone(), request(more).encode_to_vec()].concat();
        let answer = served.engine.envoy_check(&bytes, &Transport::by("dev"));
        let answer = ext::CheckResponse::decode(answer.as_slice()).unwrap();
        assert_eq!(expected, reason(&answer), "{header}");
    }
}

/// Our own failures are denials that no `failure_mode_allow` turns round: RPC OK, a status that is not, 503 or 429.
#[test]
fn own_failures_are_denials() {
    let served = served();
    let engine = &served.engine;
    let request = http("GET", "/customers?q=a", &[]).encode_to_vec();
    let late = Transport { remaining: Some(std::time::Duration::ZERO), ..Transport::by("dev") };
    let empty = unloaded(&json!({}));
    for (bytes, grpc, status) in [
        (engine.envoy_check(&request, &late), 4, 503),
        (engine.refusal(Surface::ExtAuthz, ReasonCode::Overloaded), 8, 429),
        (engine.refusal(Surface::ExtAuthz, ReasonCode::Deadline), 4, 503),
        (engine.refusal(Surface::ExtAuthz, ReasonCode::Unavailable), 14, 503),
        (engine.refusal(Surface::ExtAuthz, ReasonCode::Permitted), 14, 503),
        (empty.engine.envoy_check(&request, &Transport::by("dev")), 14, 503),
    ] {
        let answer = ext::CheckResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(grpc, answer.status.as_ref().unwrap().code);
        assert_eq!(status, denied(&answer).status.as_ref().unwrap().code);
    }
    // Only by opt-in it is an error; the code stays non-zero for proxies that do not know the field.
    let opted = served_with(&json!({"envoy_error_response": true}));
    let bytes = opted.engine.refusal(Surface::ExtAuthz, ReasonCode::Unavailable);
    let answer = ext::CheckResponse::decode(bytes.as_slice()).unwrap();
    assert!(matches!(answer.http_response, Some(HttpResponse::ErrorResponse(_))));
    assert_eq!(14, answer.status.as_ref().unwrap().code);
    let denial = opted.proxy(&http("GET", "/pages", &[]));
    denied(&denial);
}

/// A proxy is answered only where its listener makes it an enforcer.
#[test]
fn only_enforcers_are_answered() {
    let served = served();
    let request = http("GET", "/customers?q=a", &[]).encode_to_vec();
    let ask = |listener: &str| {
        let bytes = served.engine.envoy_check(&request, &Transport::by(listener));
        reason(&ext::CheckResponse::decode(bytes.as_slice()).unwrap())
    };
    assert_eq!("PERMITTED", ask("crm"));
    for listener in ["own", "admin", "unknown"] {
        assert_eq!("ENFORCER_REFUSED", ask(listener), "{listener}");
    }
}

/// A header that should prove something and is empty proves nothing; it is not as if it were absent.
#[test]
fn empty_proof() {
    let answer = served().proxy(&http("GET", "/customers?q=a", &[("dpop", "")]));
    assert_eq!(reason(&answer), "BAD_PROOF");
}
