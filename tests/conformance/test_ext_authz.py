"""The contract of `envoy.service.auth.v3.Authorization`, by table, in bytes, over both lanes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from authz.thirdparty.envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2
from tests.support.fixtures import Servers
from tests.support.minting import AUDIENCE, Authority
from tests.support.people import BOT, People
from tests.support.server import Server
from tests.support.surfaces import ENVOY, LANES, envoy_reason, reason_rows

Http = attribute_context_pb2.AttributeContext.HttpRequest
Request = external_auth_pb2.CheckRequest
OVERWRITE = 2


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture
def server(servers: Servers) -> Server:
    """The shared server."""
    return servers.of("desk")


def good(people: People) -> Request:
    """Returns a request that is permitted."""
    request = Request()
    http = request.attributes.request.http
    http.method, http.host, http.path = "GET", "crm.example", "/customers?q=x"
    http.headers["authorization"] = f"Bearer {people.bot}"
    return request


def a92(people: People) -> Request:
    """Returns a request as a gRPC server itself sends it (gRFC A92): no host, no id, raw headers, POST."""
    request = Request()
    http = request.attributes.request.http
    http.method, http.path, http.protocol, http.size = "POST", "/crm.Crm/Search", "HTTP/2", -1
    for key, value in (
        ("authorization", f"Bearer {people.bot}"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ):
        http.header_map.headers.add(key=key, raw_value=value.encode())
    return request


def ask(server: Server, lane: str, request: Request | bytes) -> external_auth_pb2.CheckResponse:
    """Sends it."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    return external_auth_pb2.CheckResponse.FromString(server.call("main" + lane, ENVOY, data))


def is_denial(answer: external_auth_pb2.CheckResponse) -> bool:
    """Tells whether no version and no setting of Envoy turns an answer into a permit."""
    row = reason_rows()[envoy_reason(answer)]
    body = json.loads(answer.denied_response.body)
    return (
        answer.HasField("status")
        and answer.status.code == row.grpc_code != 0
        and answer.HasField("denied_response")
        and not answer.HasField("error_response")
        and answer.denied_response.status.code == row.http_status
        and body["public_code"] == row.public_code
    )


@pytest.mark.parametrize("lane", LANES)
def test_permit(server: Server, people: People, lane: str) -> None:
    """Code 0, identity overwritten, metadata for the access log, nothing that could reroute."""
    answer = ask(server, lane, good(people))
    assert answer.status.code == 0
    ok = answer.ok_response
    headers = {option.header.key: option for option in ok.headers}
    assert headers.keys() == {"x-authz-agent", "x-authz-decision-id"}
    assert headers["x-authz-agent"].header.value == BOT
    for option in headers.values():
        assert option.HasField("append")
        assert not option.append.value
        assert option.append_action == OVERWRITE
    # Also what a CGI or WSGI server would take for one of ours, shown to us or not.
    removed = set(ok.headers_to_remove)
    assert {name.replace("_", "-") for name in removed} == {
        "authorization",
        "authz-credential",
        "authz-subject",
        "authz-task",
        "x-authz-agent",
        "x-authz-decision-id",
        "x-authz-subject",
    }
    assert {"authz-credential", "authz-subject", "authz-task", "x-authz-subject"} <= removed
    assert {"x_authz_agent", "x_authz_subject", "x_authz_decision_id"} <= removed
    assert not removed & headers.keys()
    assert not ok.query_parameters_to_set
    assert not ok.query_parameters_to_remove
    assert not ok.response_headers_to_add
    # The deprecated field would replace the metadata below.
    assert not ok.HasField("dynamic_metadata")
    metadata = dict(answer.dynamic_metadata)
    assert metadata["decision"] == "PERMIT"
    assert metadata["principal"] == BOT
    assert all(isinstance(value, str) for value in metadata.values())


@pytest.fixture
def received(servers: Servers) -> Server:
    """A server of the bundle about what servers behind the proxy receive."""
    return servers.of("received")


def to_pay(people: People, path: str = "/ping") -> Request:
    """Returns a request of the bot to the system `pay`, which is permitted."""
    request = good(people)
    http = request.attributes.request.http
    http.host, http.path = "pay.example", path
    return request


FORWARDING = (
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-uri",
    "x-host",
    "x-original-forwarded-for",
)


@pytest.mark.parametrize("lane", LANES)
def test_forwarding_headers_are_removed(received: Server, people: People, lane: str) -> None:
    """Where the proxy showed them, and no others: a proxy answers 500 to a removal that it may not make."""
    request = to_pay(people)
    for name in (*FORWARDING, "x-forwarded-for", "x-forwarded-proto"):
        request.attributes.request.http.headers[name] = "admin.example"
    answer = ask(received, lane, request)
    assert answer.status.code == 0
    removed = set(answer.ok_response.headers_to_remove)
    assert set(FORWARDING) <= removed
    assert not removed & {"x-forwarded-for", "x-forwarded-proto"}
    answer = ask(received, lane, to_pay(people))
    assert not set(FORWARDING) & set(answer.ok_response.headers_to_remove)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        (":protocol", "websocket"),
        ("connection", "Upgrade, HTTP2-Settings"),
        ("connection", "close, x-authz-agent"),
        ("transfer-encoding", "gzip, chunked"),
        ("transfer-encoding", ""),
    ],
)
def test_headers_that_envoy_itself_takes_out_are_refused(
    received: Server, people: People, lane: str, name: str, value: str
) -> None:
    """Of a proxy that does not."""
    request = to_pay(people)
    request.attributes.request.http.headers[name] = value
    answer = ask(received, lane, request)
    assert is_denial(answer)
    assert envoy_reason(answer) == "AMBIGUOUS_REQUEST"


@pytest.mark.parametrize("lane", LANES)
def test_evidence_is_not_forwarded(
    received: Server, authority: Authority, people: People, lane: str
) -> None:
    """Unless the token is for the system, or the route says so."""

    def removed(request: Request, authorization: str = "") -> set[str]:
        http = request.attributes.request.http
        if authorization:
            http.headers["authorization"] = authorization
        answer = ask(received, lane, request)
        assert answer.status.code == 0, answer
        return set(answer.ok_response.headers_to_remove) & {"authorization", "dpop"}

    assert removed(to_pay(people)) == {"authorization"}
    assert removed(to_pay(people, "/forwarded")) == set()
    for audience in ([AUDIENCE, "pay"], ["https://pay.example", AUDIENCE]):
        both = authority.agent(BOT, aud=audience)
        assert removed(to_pay(people), f"Bearer {both}") == set()
    for audience in ([AUDIENCE, "crm"], [AUDIENCE, "https://pay.example/"], [AUDIENCE, "Pay"]):
        other = authority.agent(BOT, aud=audience)
        assert removed(to_pay(people), f"bearer  {other}") == {"authorization"}


def bare(request: Request) -> attribute_context_pb2.AttributeContext:
    """Takes the headers out, with the credential among them."""
    request.attributes.request.http.headers.clear()
    return request.attributes


CHANGES: dict[str, tuple[Callable[[Request], Any], str]] = {
    "no attributes": (lambda r: r.ClearField("attributes"), "BAD_INPUT"),
    "no request": (lambda r: r.attributes.ClearField("request"), "BAD_INPUT"),
    "no http": (lambda r: r.attributes.request.ClearField("http"), "BAD_INPUT"),
    "no headers": (lambda r: r.attributes.request.http.headers.clear(), "NO_CREDENTIAL"),
    "no method": (lambda r: setattr(r.attributes.request.http, "method", ""), "NO_ROUTE"),
    "a query apart": (
        lambda r: setattr(r.attributes.request.http, "query", "q=x"),
        "AMBIGUOUS_REQUEST",
    ),
    "a fragment apart": (
        lambda r: setattr(r.attributes.request.http, "fragment", "x"),
        "AMBIGUOUS_REQUEST",
    ),
    "both encodings": (
        lambda r: r.attributes.request.http.header_map.headers.add(key="a", value="b"),
        "AMBIGUOUS_REQUEST",
    ),
    "another path in a pseudo header": (
        lambda r: r.attributes.request.http.headers.update({":path": "/admin"}),
        "AMBIGUOUS_REQUEST",
    ),
    "another authority in a pseudo header": (
        lambda r: r.attributes.request.http.headers.update({":authority": "evil.example"}),
        "AMBIGUOUS_REQUEST",
    ),
    "another method in a pseudo header": (
        lambda r: r.attributes.request.http.headers.update({":method": "DELETE"}),
        "AMBIGUOUS_REQUEST",
    ),
    "two joined credentials": (
        lambda r: r.attributes.request.http.headers.update(
            {"authorization": r.attributes.request.http.headers["authorization"] + ",Bearer x"}
        ),
        "BAD_CREDENTIAL",
    ),
    "two joined subjects": (
        lambda r: r.attributes.request.http.headers.update({"authz-subject": "a.b.c,d.e.f"}),
        "BAD_CREDENTIAL",
    ),
    "an empty credential": (
        lambda r: r.attributes.request.http.headers.update({"authorization": ""}),
        "BAD_CREDENTIAL",
    ),
    "a scheme without a token": (
        lambda r: r.attributes.request.http.headers.update({"authorization": "Bearer "}),
        "BAD_CREDENTIAL",
    ),
    "an upper-case header name": (
        lambda r: r.attributes.request.http.headers.update({"X-Api": "1"}),
        "AMBIGUOUS_REQUEST",
    ),
    "a header name with a space": (
        lambda r: r.attributes.request.http.headers.update({"authz-task ": "1"}),
        "AMBIGUOUS_REQUEST",
    ),
    "a partial body": (
        lambda r: r.attributes.request.http.headers.update({"x-envoy-auth-partial-body": "true"}),
        "BAD_INPUT",
    ),
    "too many headers": (
        lambda r: r.attributes.request.http.headers.update(
            {f"x-{number}": "1" for number in range(300)}
        ),
        "BAD_INPUT",
    ),
    "a long path": (
        lambda r: setattr(r.attributes.request.http, "path", "/customers?q=" + "x" * 20_000),
        "BAD_INPUT",
    ),
    "a megabyte of headers": (
        lambda r: r.attributes.request.http.headers.update({"x-large": "x" * 1_100_000}),
        "BAD_INPUT",
    ),
    "a principal of another trust domain and no credential": (
        lambda r: setattr(bare(r).source, "principal", "spiffe://evil.example/root"),
        "NO_CREDENTIAL",
    ),
    "a principal of our own and no credential": (
        lambda r: setattr(bare(r).source, "principal", BOT),
        "NO_CREDENTIAL",
    ),
    "a service name and no credential": (
        lambda r: setattr(bare(r).source, "service", "support-bot"),
        "NO_CREDENTIAL",
    ),
    "a JWT payload in metadata and no credential": (
        lambda r: (
            bare(r)
            .metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]
            .update({"payload": {"sub": BOT}})
        ),
        "NO_CREDENTIAL",
    ),
}


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", CHANGES)
def test_one_change_refuses(server: Server, people: People, lane: str, name: str) -> None:
    """A request that is permitted, but for one change, is denied, and says why."""
    change, wanted = CHANGES[name]
    request = good(people)
    assert ask(server, lane, request).status.code == 0
    change(request)
    answer = ask(server, lane, request)
    assert envoy_reason(answer) == wanted
    assert is_denial(answer)


HARMLESS: dict[str, Callable[[Request], Any]] = {
    "an id": lambda r: setattr(r.attributes.request.http, "id", "not-unique"),
    "a scheme": lambda r: setattr(r.attributes.request.http, "scheme", "http"),
    "an unknown size": lambda r: setattr(r.attributes.request.http, "size", -1),
    "a whole body said": lambda r: r.attributes.request.http.headers.update(
        {"x-envoy-auth-partial-body": "false"}
    ),
    "a foreign principal beside a credential": lambda r: setattr(
        r.attributes.source, "principal", "spiffe://evil.example/root"
    ),
    "the same pseudo headers": lambda r: r.attributes.request.http.headers.update(
        {":path": "/customers?q=x", ":method": "GET", ":authority": "crm.example"}
    ),
    "metadata": lambda r: r.attributes.metadata_context.filter_metadata["x"].update({"a": "b"}),
    "extensions": lambda r: r.attributes.context_extensions.update({"tenant": "a"}),
    "a bearer in other letters": lambda r: r.attributes.request.http.headers.update(
        {
            "authorization": r.attributes.request.http.headers["authorization"].replace(
                "Bearer", "bEARER"
            )
        }
    ),
}


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("name", HARMLESS)
def test_one_change_does_not_matter(server: Server, people: People, lane: str, name: str) -> None:
    """What proves nothing and changes nothing neither helps nor hurts."""
    request = good(people)
    HARMLESS[name](request)
    assert ask(server, lane, request).status.code == 0


@pytest.mark.parametrize("lane", LANES)
def test_grpc_servers_ask_too(server: Server, people: People, lane: str) -> None:
    """A caller without host, id and body gets an answer: here that there is no route."""
    answer = ask(server, lane, a92(people))
    assert envoy_reason(answer) == "NO_ROUTE"
    assert is_denial(answer)


@pytest.mark.parametrize("lane", LANES)
def test_grpc_servers_find_routes_without_a_host(server: Server, people: People, lane: str) -> None:
    """A route that names no host serves callers that know none."""
    request = a92(people)
    http = request.attributes.request.http
    http.method, http.path = "DELETE", "/mail"
    answer = ask(server, lane, request)
    assert envoy_reason(answer) == "APPROVAL_REQUIRED"


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x0f", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_bytes_that_are_no_request(server: Server, lane: str, data: bytes) -> None:
    """Also they get a denial, by an RPC that is OK."""
    answer = ask(server, lane, data)
    assert envoy_reason(answer) in {"BAD_INPUT", "NO_CREDENTIAL"}
    assert is_denial(answer)


@pytest.mark.parametrize("lane", LANES)
def test_every_header_of_ours_is_removed(server: Server, people: People, lane: str) -> None:
    """In either spelling that an upstream may take for one of ours."""
    request = good(people)
    spoofed = ["authz-x", "x-authz-roles", "x_authz_agent", "authz_subject_2", "x-authz_agent"]
    request.attributes.request.http.headers.update(dict.fromkeys(spoofed, "1"))
    answer = ask(server, lane, request)
    assert answer.status.code == 0
    assert set(spoofed) <= set(answer.ok_response.headers_to_remove)


@pytest.mark.parametrize("lane", LANES)
def test_a_subject_with_any_name(
    server: Server, authority: Authority, people: People, lane: str
) -> None:
    """Whatever stands in `sub`, its header is one visible ASCII value and looks like no other."""
    for sub in ("a,b", "a\r\nx-admin: 1", "ä", "corp/alice", "a b", "%61", "a;b", "x" * 200):
        request = good(people)
        token = authority.subject(sub, groups=["employees"])
        request.attributes.request.http.headers["authz-subject"] = token
        answer = ask(server, lane, request)
        if answer.status.code != 0:
            assert is_denial(answer)
            continue
        (value,) = (
            option.header.value
            for option in answer.ok_response.headers
            if option.header.key == "x-authz-subject"
        )
        assert value.isascii()
        assert value.isprintable()
        assert not set(value) & set(", ;")
        assert value.startswith("corp/")


@pytest.mark.parametrize("lane", LANES)
def test_denials_are_byte_equal(server: Server, people: People, lane: str) -> None:
    """An agent cannot tell one denial of a kind from another: same bytes but for the id."""

    def body(path: str) -> str:
        request = good(people)
        request.attributes.request.http.headers["authorization"] = f"Bearer {people.idle}"
        request.attributes.request.http.path = path
        denied = ask(server, lane, request)
        assert is_denial(denied)
        return denied.denied_response.body.replace(str(denied.dynamic_metadata["decision_id"]), "")

    assert (
        body("/customers/1")
        == body("/customers/vip%2D7".replace("%2D", "-"))
        == body("/customers?q=anything")
    )
