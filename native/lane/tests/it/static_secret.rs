//! Standing secrets: the upstream gets its key on a permit, and nobody else ever sees it.
#![expect(deprecated, reason = "proxies up to 1.36 read only the older field")]

use std::collections::{BTreeMap, BTreeSet};

use authz_lane::proto::envoy::service::auth::v3 as ext;
use authz_lane::proto::envoy::service::auth::v3::check_response::HttpResponse;
use authz_lane::{CredentialSettings, Transport, World};
use prost::Message;
use prost_types::value::Kind;
use serde_json::{Value, json};

use crate::support::*;

const KEY: &str = "s3cret-key-of-the-crm";
/// A route with a host that is not the origin's.
const PINNED: &str = "routes: [{host: inner.example, method: PUT, path: /find, operation: crm.search, arguments: {query: {query: q}}}]\n";
const OBSERVED: &str = "mode: {default: observe, owner: sec, until: 2999-01-01}";

fn credentials(static_secrets: &Value) -> CredentialSettings {
    credential_settings(&json!({"static_secrets": static_secrets}))
}

fn load(served: &Served, static_secrets: &Value, more: &[(&str, &str)]) {
    let credentials = Some(credentials(static_secrets));
    served.engine.load(World { plan: plan(more), credentials, ..world() }).unwrap();
}

fn injecting(value: Option<&str>, more: &[(&str, &str)]) -> Served {
    let served = unloaded(&json!({}));
    load(&served, &json!({"crm": {"header": "x-api-key", "value": value}}), more);
    served
}

fn permitted(answer: &ext::CheckResponse) -> &ext::OkHttpResponse {
    match &answer.http_response {
        Some(HttpResponse::OkResponse(ok)) if answer.status.as_ref().unwrap().code == 0 => ok,
        other => panic!("no permit: {other:?}"),
    }
}

fn set(ok: &ext::OkHttpResponse) -> BTreeMap<String, String> {
    ok.headers.iter().map(|o| o.header.clone().unwrap()).map(|h| (h.key, h.value)).collect()
}

fn removed(ok: &ext::OkHttpResponse) -> BTreeSet<&str> {
    ok.headers_to_remove.iter().map(String::as_str).collect()
}

fn reason(answer: &ext::CheckResponse) -> String {
    let field = &answer.dynamic_metadata.as_ref().unwrap().fields["reason_code"];
    match &field.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        other => panic!("no text: {other:?}"),
    }
}

/// The header is overwritten, in both fields that proxies read, and its other spellings go.
#[test]
fn permit() {
    let served = injecting(Some(KEY), &[]);
    let forged = [("x-api-key", "agents"), ("x_api_key", "agents"), ("x-api_key", "agents")];
    let answer = served.proxy(&http("GET", "/customers?q=a", &forged));
    let ok = permitted(&answer);
    assert_eq!(KEY, set(ok)["x-api-key"]);
    let option = ok.headers.iter().find(|o| o.header.as_ref().unwrap().key == "x-api-key");
    assert_eq!((2, Some(false)), (option.unwrap().append_action, option.unwrap().append));
    let removed = removed(ok);
    for twin in ["x_api_key", "x-api_key", "x_api-key"] {
        assert!(removed.contains(twin), "{twin}");
    }
    // Envoy removes last.
    assert!(!removed.contains("x-api-key"));
}

/// A system that declares headers, with a route that reads others.
const ERP: &str = "catalog:
  erp:
    kind: http
    origin: https://erp.example
    headers: [x-erp-version, cookie]
    operations: {get: {input: {type: object, properties: {unit: {type: string}}}}}
classify: [{match: erp.get, effects: [read], tier: low}]
routes:
  - {host: erp.example, method: GET, path: /orders, headers: {x-mode: plain}, operation: erp.get, arguments: {unit: {header: x-unit}}}
";
const ERP_POLICY: &str = "@id(\"erp\") permit(principal, action == Action::\"erp.get\", resource);";

/// A header gives the holder of a secret another identity, tenant or mode, and the agent does not hold the secret: what the
/// bundle does not declare is removed.
#[test]
fn undeclared_headers_do_not_stand_beside_the_secret() {
    const UNDECLARED: [&str; 9] = [
        "sudo",
        "impersonate-user",
        "impersonate-group",
        "content-profile",
        "x-amz-target",
        "x_erp_version",
        "cookie2",
        "x-http-method-override",
        "baggage",
    ];
    const PASSING: [&str; 13] = [
        "accept",
        "content-type",
        "host",
        "if-match",
        "range",
        "user-agent",
        "idempotency-key",
        "traceparent",
        "x-request-id",
        "x-envoy-internal",
        "x-erp-version",
        "cookie",
        "x-forwarded-proto",
    ];
    let more = [("erp.yaml", ERP), ("policies/erp.cedar", ERP_POLICY)];
    let served = unloaded(&json!({}));
    load(&served, &json!({"erp": {"header": "private-token", "value": KEY}}), &more);
    let ask = |headers: &[(&str, &str)]| {
        let conditions = [(":authority", "erp.example"), ("x-mode", "plain"), ("x-unit", "7")];
        let all: Vec<_> = conditions.into_iter().chain(headers.iter().copied()).collect();
        edit(http("GET", "/orders", &all), |http| http.host = "erp.example".to_owned())
    };
    let value = |name: &str| match name {
        "host" => "erp.example".to_owned(),
        "x-http-method-override" => "GET".to_owned(),
        _ => "root".to_owned(),
    };
    let headers: Vec<(&str, String)> =
        UNDECLARED.into_iter().chain(PASSING).map(|name| (name, value(name))).collect();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = served.proxy(&ask(&headers));
    let ok = permitted(&answer);
    assert_eq!(KEY, set(ok)["private-token"]);
    let gone = removed(ok);
    for name in UNDECLARED {
        assert!(gone.contains(name), "{name} goes on: {gone:?}");
    }
    for name in PASSING.into_iter().chain(["x-mode", "x-unit", "private-token"]) {
        assert!(!gone.contains(name), "{name} is removed: {gone:?}");
    }
    assert!(!gone.iter().any(|name| name.starts_with(':')), "{gone:?}");
    // Without a secret each header goes on.
    load(&served, &json!({"crm": {"header": "private-token", "value": KEY}}), &more);
    let answer = served.proxy(&ask(&headers));
    let gone = removed(permitted(&answer));
    assert!(UNDECLARED.iter().all(|name| !gone.contains(name)), "{gone:?}");
}

/// Also a header whose value is no text, and one that comes twice.
#[test]
fn undeclared_headers_of_any_value_are_removed() {
    let served = injecting(Some(KEY), &[]);
    let headers: [(&str, &[u8]); 4] = [
        ("sudo", b"\xff"),
        ("impersonate-user", b"a"),
        ("impersonate-user", b"b"),
        ("accept", b"\xff"),
    ];
    let request = edit(raw("GET", "/customers?q=a", &headers), |http| {
        http.host = "crm.example".to_owned();
    });
    let answer = served.proxy(&request);
    let ok = permitted(&answer);
    let gone = removed(ok);
    assert_eq!(KEY, set(ok)["x-api-key"]);
    assert!(gone.contains("sudo") && gone.contains("impersonate-user"), "{gone:?}");
    assert!(!gone.contains("accept"), "{gone:?}");
    let times = ok.headers_to_remove.iter().filter(|name| *name == "impersonate-user").count();
    assert_eq!(1, times);
}

/// Where `mode` lets a denial through, the request is the same but for the secret.
#[test]
fn undeclared_headers_where_a_denial_is_observed() {
    let served = injecting(Some(KEY), &[("mode.yaml", OBSERVED)]);
    let unknown = [("authorization", "\0"), ("authz-subject", "\0"), ("sudo", "root")];
    let answer = served.proxy(&http("GET", "/customers?q=a", &unknown));
    assert!(removed(permitted(&answer)).contains("sudo"));
}

/// What is not permitted gets nothing, and says nothing.
#[test]
fn denial() {
    let served = injecting(Some(KEY), &[]);
    for (method, path) in [("GET", "/mail"), ("GET", "/raw"), ("GET", "/nothing")] {
        let answer = served.proxy(&http(method, path, &[]));
        assert_ne!(0, answer.status.as_ref().unwrap().code);
        assert!(!format!("{answer:?}").contains(KEY));
    }
}

/// The secret goes to the system's own host and port, and the request to another one is refused.
#[test]
fn only_its_system() {
    let served = injecting(Some(KEY), &[("more.yaml", PINNED)]);
    let ask = |method: &str, path: &str, host: &str| {
        let request = edit(http(method, path, &[(":authority", "\0")]), |http| {
            host.clone_into(&mut http.host)
        });
        served.proxy(&request)
    };
    for host in ["crm.example", "CRM.example", "crm.example:443"] {
        assert_eq!(KEY, set(permitted(&ask("GET", "/customers?q=a", host)))["x-api-key"], "{host}");
    }
    for host in [
        "evil.example",
        "crm.example:80",
        "crm.example:6666",
        "crm.example.",
        "",
        "[::1]",
        "crm.example:",
    ] {
        let answer = ask("GET", "/customers?q=a", host);
        assert_eq!("NO_ROUTE", reason(&answer), "{host}");
        assert!(!format!("{answer:?}").contains(KEY));
    }
    // A route with a host of its own.
    for host in ["inner.example", "inner.example:80"] {
        assert_eq!(KEY, set(permitted(&ask("PUT", "/find?q=a", host)))["x-api-key"], "{host}");
    }
    for host in ["inner.example:6666", "crm.example"] {
        assert_eq!("NO_ROUTE", reason(&ask("PUT", "/find?q=a", host)), "{host}");
    }
    // A system without a secret is where its routes say.
    let without = injecting(Some(KEY), &[]);
    load(&without, &json!({"wiki": {"header": "x-api-key", "value": KEY}}), &[]);
    let request = edit(http("GET", "/customers?q=a", &[(":authority", "\0")]), |http| {
        http.host = "evil.example".to_owned();
    });
    permitted(&without.proxy(&request));
}

/// Where `mode` lets such a request through, it goes without the secret.
#[test]
fn only_its_system_where_a_denial_is_observed() {
    let served = injecting(Some(KEY), &[("mode.yaml", OBSERVED)]);
    let request = edit(http("GET", "/customers?q=a", &[(":authority", "\0")]), |http| {
        http.host = "evil.example".to_owned();
    });
    let answer = served.proxy(&request);
    assert!(!set(permitted(&answer)).contains_key("x-api-key"));
    assert!(!format!("{answer:?}").contains(KEY));
}

/// A route for every host, of a system without an origin, is refused when it is loaded; the old world stays.
#[test]
fn a_secret_for_every_host_is_refused() {
    let served = injecting(Some(KEY), &[]);
    let more = [(
        "more.yaml",
        "catalog: {erp: {kind: http, operations: {get: {}}}}\nclassify: [{match: erp.get, effects: [read]}]\nroutes:\n  - {method: GET, path: /orders, operation: erp.get}\n",
    )];
    let settings = credentials(&json!({"erp": {"header": "x-api-key", "value": KEY}}));
    let world = World { plan: plan(&more), credentials: Some(settings), ..world() };
    let error = served.engine.load(world).unwrap_err().to_string();
    assert!(error.starts_with("more.yaml:4:"), "{error}");
    assert!(error.contains("add `host` to the route, or `origin` to the system"), "{error}");
    assert_eq!(
        KEY,
        set(permitted(&served.proxy(&http("GET", "/customers?q=a", &[]))))["x-api-key"]
    );
}

/// Another system's requests are left alone: that header is theirs.
#[test]
fn other_system() {
    let served = unloaded(&json!({}));
    load(&served, &json!({"wiki": {"header": "x-api-key", "value": KEY}}), &[]);
    let answer = served.proxy(&http("GET", "/customers?q=a", &[("x-api-key", "agents")]));
    let ok = permitted(&answer);
    assert!(!set(ok).contains_key("x-api-key"));
    assert!(!removed(ok).contains("x-api-key"));
}

/// A secret that cannot be read is a failure of ours: permits end, denials stay what they are, nothing is charged or kept.
#[test]
fn unreadable() {
    let served = injecting(None, &[]);
    let answer = served.proxy(&http("GET", "/customers?q=a", &[("x-api-key", "agents")]));
    assert_eq!("UNAVAILABLE", reason(&answer));
    assert_eq!(14, answer.status.as_ref().unwrap().code);
    let Some(HttpResponse::DeniedResponse(denied)) = &answer.http_response else { panic!() };
    assert_eq!(503, denied.status.as_ref().unwrap().code);
    assert_eq!("CONFIRM_REQUIRED", reason(&served.proxy(&http("GET", "/mail", &[]))));
    // Whoever asks over our own API forwards nothing.
    assert_eq!("PERMITTED", code(&served.check(&search())));
    // It is back.
    load(&served, &json!({"crm": {"header": "x-api-key", "value": KEY}}), &[]);
    let answer = served.proxy(&http("GET", "/customers?q=a", &[]));
    assert_eq!(KEY, set(permitted(&answer))["x-api-key"]);
}

/// Where `mode` lets a denial through, it goes without the secret: else whoever nobody knows would be lent a key.
#[test]
fn observed() {
    let served = injecting(Some(KEY), &[("mode.yaml", OBSERVED)]);
    let unknown = [("authorization", "\0"), ("authz-subject", "\0"), ("x-api-key", "agents")];
    let answer = served.proxy(&http("GET", "/customers?q=a", &unknown));
    let ok = permitted(&answer);
    assert!(!set(ok).contains_key("x-api-key"));
    assert!(removed(ok).contains("x-api-key"));
    assert!(!format!("{answer:?}").contains(KEY));
    let answer = served.proxy(&http("GET", "/customers?q=a", &[]));
    assert_eq!(KEY, set(permitted(&answer))["x-api-key"]);
    // And a failure of ours is never softened.
    let served = injecting(None, &[("mode.yaml", OBSERVED)]);
    assert_eq!("UNAVAILABLE", reason(&served.proxy(&http("GET", "/customers?q=a", &[]))));
}

/// It is in no record, and in nothing that prints.
#[test]
fn unseen() {
    let served = injecting(Some(KEY), &[]);
    let request = http("GET", "/customers?q=a", &[]).encode_to_vec();
    let answer = served.engine.envoy_check(&request, &Transport::by("dev"));
    assert!(answer.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    assert!(
        !format!("{:?}", credentials(&json!({"crm": {"header": "x", "value": KEY}}))).contains(KEY)
    );
    let records = served.records();
    assert_eq!(1, records.len());
    assert!(!format!("{records:?}").contains(KEY));
}

/// A name or value that would be something else than one header is refused when it is loaded.
#[test]
fn refused() {
    let cases = [
        json!({"header": "X-Api-Key", "value": "a"}),
        json!({"header": "", "value": "a"}),
        json!({"header": ":path", "value": "/"}),
        json!({"header": "a-b-c-d-e-f-g-h", "value": "a"}),
        json!({"header": "x-api-key", "value": ""}),
        json!({"header": "x-api-key", "value": "a\r\nx-admin: 1"}),
        json!({"header": "x-api-key", "value": "a".repeat(8193)}),
        json!({"header": "x-api-key", "value": "a", "more": 1}),
    ];
    for static_secret in cases {
        let settings = credentials_json(&json!({"static_secrets": {"crm": static_secret}}));
        let read = CredentialSettings::from_json(settings.as_bytes());
        assert!(read.is_err(), "{static_secret}");
    }
}
