"""Requests over HTTP/2, where a header and its frame may say two things."""

from collections.abc import Iterator
from dataclasses import replace

from tests.support.received.request import FORM, JSON, SMALL, Request, form, of_bank, of_crm


def frames() -> Iterator[Request]:
    """Bodies that no header announces, and fields that HTTP/1.1 has in the first line or does not have."""
    for request in (*_bodies(), *_authorities(), *_fields()):
        yield replace(request, is_http2=True)


def _bodies() -> Iterator[Request]:
    yield of_bank(SMALL, *JSON)
    yield of_bank(SMALL)
    for length in ("24", "5", "60", "0", "", "-1", "24,24"):
        yield of_bank(SMALL, *JSON, ("content-length", length))
    for headers in (FORM, JSON, ()):
        yield of_crm("GET", "/customers?q=a", *headers, body=b"q=b")
        yield of_crm("GET", "/customers/42", *headers, body=b"_method=DELETE")
        yield of_crm("POST", "/customers/42", *headers, body=b"_method=DELETE")
        yield of_bank(form(), *headers, target="/quotes?amount=5&to=acme")


def _authorities() -> Iterator[Request]:
    much = b'{"amount":5000,"to":"eve"}'
    bank, sandbox = ("host", "bank.example"), ("host", "sandbox.example")
    for host, headers in (
        ("sandbox.example", (bank,)),
        ("sandbox.example", (sandbox,)),
        ("bank.example", (sandbox,)),
        (None, (sandbox,)),
        (None, (bank, sandbox)),
        (None, (sandbox, bank)),
        ("sandbox.example", ((":authority", "sandbox.example"), (":authority", "bank.example"))),
        ("bank.example@sandbox.example", ()),
        ("sandbox.example,bank.example", ()),
        ("", (sandbox,)),
    ):
        yield Request("", "POST", "/transfers", host, (*headers, *JSON), much)


def _fields() -> Iterator[Request]:
    for pair in ((":path", "/customers/42"), (":method", "DELETE"), (":scheme", "https")):
        # Derived fields give way to those of the request, so that each of these stands twice.
        derived = {":path": "/customers?q=a", ":method": "GET", ":scheme": "http"}
        yield of_crm("GET", "/customers?q=a", (pair[0], derived[pair[0]]), pair)
    for name, value in (
        (":path", "http://bank.example/transfers"),
        (":path", ""),
        (":path", "customers/42"),
        (":path", "/customers/42 HTTP/1.1\r\nx-tenant: t2"),
        (":method", "GET /customers/43"),
        (":method", "get"),
        (":scheme", "https"),
        (":scheme", "file"),
        (":protocol", "websocket"),
        (":tenant", "t2"),
        ("X-Tenant", "t2"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("x-http-method-override", "DELETE"),
        ("x-forwarded-host", "bank.example"),
        ("x-tenant", "t1\r\nx-tenant: t2"),
        ("x-tenant", "t1\0"),
        ("x-tenant ", "t2"),
        ("x-ten:ant", "t2"),
    ):
        yield of_crm("GET", "/customers/42", (name, value))
    yield of_crm("GET", "/tenant", ("x-tenant", "t1"), (":path", "/customers/42"))
    for protocol in ("websocket", "connect-udp"):
        yield of_crm("CONNECT", "/customers/42", (":protocol", protocol))
    yield of_crm("GET", "/tenant", ("x-tenant", "t1"), ("x-tenant", "t2"))
    yield of_crm("GET", "/tenant", ("x-tenant", "t1"), ("cookie", "a=1"), ("cookie", "b=2"))
