"""Requests with headers, or forms, by which they would be other requests behind the proxy."""

from collections.abc import Iterator

from tests.support.received.request import (
    FORM,
    JSON,
    MULTIPART,
    SMALL,
    Request,
    multipart,
    of_bank,
    of_crm,
)


def overrides() -> Iterator[Request]:
    """Headers and members of forms that name another method."""
    names = (
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X_HTTP_Method_Override",
    )
    for name in names:
        for value in ("DELETE", "delete", "PATCH", "DELETE,POST"):
            yield of_crm("POST", "/customers/42", (name, value))
        yield of_crm("GET", "/customers/42", (name, "DELETE"))
    yield of_crm("POST", "/customers/42", (names[0], "POST"), (names[0], "DELETE"))
    for body, headers in (
        *((b"_method=DELETE", kind) for kind in (FORM, (), MULTIPART, JSON)),
        (b"_method=delete", FORM),
        (b"%5Fmethod=DELETE", FORM),
        (b"x=1&_method=PATCH", FORM),
        (multipart(_method="DELETE"), MULTIPART),
        *((b'{"_method":"DELETE"}', kind) for kind in (JSON, ())),
        (b'{"x":"&_method=DELETE&y="}', ()),
        (b'{"x":"&_method=DELETE&y="}', FORM),
    ):
        yield of_crm("POST", "/customers/42", *headers, body=body)
    for query in ("_method=DELETE", "%5Fmethod=DELETE", "_method[]=DELETE"):
        yield of_crm("POST", f"/customers/42?{query}")
    yield of_bank(SMALL, *JSON, target="/transfers?_method=DELETE")
    yield of_bank(b'{"amount":5,"to":"acme","_method":"DELETE"}', *JSON)


def forwarding() -> Iterator[Request]:
    """Headers in which proxies tell each other the host and path that a client asked for."""
    much = b'{"amount":5000,"to":"eve"}'
    for name, value in (
        *(("X-Forwarded-Host", host) for host in ("bank.example", "bank.example, sandbox.example")),
        *(
            ("X-Forwarded-Host", host)
            for host in ("sandbox.example, bank.example", "bank.example:443")
        ),
        *(
            ("Forwarded", text)
            for text in ("host=bank.example", 'for=192.0.2.1;host="bank.example"')
        ),
        *(
            ("X-Host", "bank.example"),
            ("X-Original-Host", "bank.example"),
            ("X-Real-Host", "bank.example"),
        ),
        *(("X-Forwarded-Server", "bank.example"), ("X-HTTP-Host-Override", "bank.example")),
        ("X-Forwarded-Context", "/admin"),
        ("X-Forwarded-URL", "http://bank.example/payments"),
        ("X-Rewrite-Path", "/payments"),
        ("X-Rewrite-Host", "bank.example"),
        ("X-Original-Forwarded-For", "192.0.2.1"),
        *(("X-Forwarded-Port", "8443"), ("X-Forwarded-Scheme", "https"), ("X-Forwarded-Ssl", "on")),
        *(
            ("X-Forwarded-Prefix", "/admin"),
            ("X-Script-Name", "/admin"),
            ("X-Forwarded-Path", "/payments"),
        ),
        *(
            ("X-Original-URL", "/payments"),
            ("X-Rewrite-URL", "/payments"),
            ("X-Original-URI", "/payments"),
        ),
        *(("X-Envoy-Original-Path", "/payments"), ("X-Forwarded-Uri", "/payments")),
        *(
            ("X-Accel-Redirect", "/payments"),
            ("X-Sendfile", "/etc/passwd"),
            ("X-Original-Method", "DELETE"),
        ),
        *(
            ("X-Forwarded-Method", "DELETE"),
            ("X-Rewrite-URI", "/payments"),
            ("X-Original-Path", "/payments"),
        ),
        *(
            ("X_Forwarded_Host", "bank.example"),
            ("SCRIPT_NAME", "/admin"),
            ("PATH_INFO", "/payments"),
        ),
    ):
        yield Request("", "POST", "/transfers", "sandbox.example", (*JSON, (name, value)), much)
    two = (("X-Forwarded-Host", "sandbox.example"), ("X-Forwarded-Host", "bank.example"))
    yield Request("", "POST", "/transfers", "sandbox.example", (*JSON, *two), much)


def upgrades() -> Iterator[Request]:
    """Requests for another protocol, and methods of which servers think differently."""
    key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    socket = (
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        key,
        ("sec-websocket-version", "13"),
    )
    clear = (
        ("upgrade", "h2c"),
        ("connection", "Upgrade, HTTP2-Settings"),
        ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    )
    for headers in (
        socket,
        clear,
        (("upgrade", "TLS/1.0"), ("connection", "Upgrade")),
        (("upgrade", "websocket"),),
    ):
        yield of_crm("GET", "/customers?q=a", *headers)
        yield of_bank(SMALL, *JSON, *headers)
    for named in ("x-authz-agent", "x-tenant", "content-length", "host", "x-authz-decision-id"):
        yield of_crm("GET", "/tenant", ("x-tenant", "t1"), ("connection", f"close, {named}"))
    for method in (
        "get",
        "Get",
        "HEAD",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PUT",
        "PROPFIND",
        "G ET",
        "GET\t",
        "DELETE",
    ):
        yield of_crm(method, "/customers/42")


def headers() -> Iterator[Request]:
    """A header that is an argument, several times or in other spellings, and headers of ours."""
    for pair in (("t1", "t2"), ("t1", "t1"), ("t1", "")):
        yield of_crm("GET", "/tenant", *(("x-tenant", value) for value in pair))
    for value in (
        "t1,t2",
        "t1, t2",
        "",
        " t1 ",
        "\tt1",
        "t1;v=2",
        "t\t1",
        "%74",
        "t\xe9",
        "t\xc3\xa9",
        "t\x7f",
        '"t1"',
        "t1\r\n t2",
        "=?utf-8?q?t?=",
    ):
        yield of_crm("GET", "/tenant", ("x-tenant", value))
    for name in ("x_tenant", "X_Tenant", "x-tenant ", "x-tenant\t", "x.tenant", "-x-tenant"):
        yield of_crm("GET", "/tenant", (name, "t2"))
        yield of_crm("GET", "/tenant", ("x-tenant", "t1"), (name, "t2"))
    yield of_crm("GET", "/tenant")
    for name in (
        "x-authz-agent",
        "x-authz-subject",
        "x_authz_agent",
        "x-authz-decision-id",
        "authz-note",
    ):
        yield of_crm("GET", "/customers?q=a", (name, "root"))
    for text in (
        "content_type",
        "content_length",
        "Transfer_Encoding",
        "http-host",
        "range",
        "expect",
        "max-forwards",
    ):
        yield of_bank(SMALL, *JSON, (text, "5"))
