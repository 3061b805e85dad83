"""Hostile input over the wire: always a denial, never a crash, never a permit, and the server is well after it."""

import json
import os
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import authorizer_pb2, decision_pb2
from tests.support.fixtures import Servers
from tests.support.minting import Authority
from tests.support.people import BOT, People, check, search
from tests.support.server import Server
from tests.support.surfaces import (
    BATCH,
    CHECK,
    ENVOY,
    LANES,
    decision_of,
    envoy_reason,
    outcome,
    reason_name,
)

#: More for a long run: HOSTILE_CASES=10000.
EXAMPLES = int(os.environ.get("HOSTILE_CASES", "60"))
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
#: No claim of these tests needs a well-formed text: lone surrogates cannot stand in a protobuf.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
HOSTILE = st.sampled_from(
    [
        "",
        "\0",
        "\u202e",
        "\ufeff",
        "a" * 600,
        "\U0001f600" * 40,
        "crm.search\0",
        "crm.search ",
        "crm..search",
        ".search",
        "crm.",
        "../crm.search",
        "crm.s\u0435arch",
        "\uff43\uff52\uff4d.search",
        "crm.sea\u200brch",
        'crm.search"',
        "${trust_domain}",
        "%63rm.search",
        "authz.probe",
        "authz.reload",
        "system:crm",
    ]
)
OPERATION = st.one_of(HOSTILE, TEXT)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture(scope="module")
def server(servers: Servers, people: People) -> Iterator[Server]:
    """The shared server, which must be as well after these tests as before."""
    running = servers.of("desk")
    yield running
    assert running.process is not None
    assert running.process.poll() is None
    for lane in LANES:
        assert (
            outcome(decision_of(running.call("main" + lane, CHECK, search(people.bot)))) == "PERMIT"
        )
    assert running.metric("authz_panics_total") == 0
    assert running.http("/readyz")[0] == 200
    assert "Traceback" not in running.log.read_text()


def denied(server: Server, lane: str, request: bytes) -> str:
    """Asks, asserts that it is a denial, and returns why."""
    decision = decision_of(server.call("main" + lane, CHECK, request))
    assert outcome(decision) == "DENY"
    return reason_name(decision)


def envoy_denied(server: Server, lane: str, request: bytes) -> str:
    """The same as Envoy asks."""
    data = server.call("main" + lane, ENVOY, request)
    answer = external_auth_pb2.CheckResponse.FromString(data)
    assert answer.status.code != 0
    assert 400 <= answer.denied_response.status.code < 600
    return envoy_reason(answer)


def batch_denied(server: Server, request: bytes) -> None:
    """Asks for a batch, and asserts that there are decisions, each of them a denial."""
    answer = authorizer_pb2.BatchCheckResponse.FromString(server.call("main", BATCH, request))
    assert {outcome(decision) for decision in answer.decisions} == {"DENY"}


@pytest.mark.parametrize("lane", LANES)
@BOUNDED
@given(data=st.binary(max_size=300))
def test_random_bytes(server: Server, lane: str, data: bytes) -> None:
    """Bytes that nobody made a message of."""
    denied(server, lane, data)
    envoy_denied(server, lane, data)


@BOUNDED
@given(data=st.binary(max_size=300))
def test_random_bytes_as_a_batch(server: Server, data: bytes) -> None:
    """The same to BatchCheck: every decision in the answer is a denial, and there is one."""
    batch_denied(server, data)


@pytest.mark.parametrize("lane", LANES)
@BOUNDED
@given(data=st.data())
def test_damaged_messages(server: Server, people: People, lane: str, data: st.DataObject) -> None:
    """A permitted request with bytes changed, cut or added; where it is still permitted, it was not damaged."""
    good = bytearray(search(people.bot))
    position = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "double"]))
    damaged = bytearray(good)
    if kind == "flip":
        damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del damaged[position:]
    elif kind == "insert":
        damaged[position:position] = data.draw(st.binary(min_size=1, max_size=8))
    else:
        damaged += good
    decision = decision_of(server.call("main" + lane, CHECK, bytes(damaged)))
    if outcome(decision) == "PERMIT":
        read = decision_pb2.CheckRequest.FromString(bytes(damaged))
        assert read.operation == "crm.search"
        assert [item.token for item in read.evidence] == [people.bot]
        assert isinstance(json.loads(read.arguments_json)["query"], str)


@pytest.mark.parametrize("lane", LANES)
@BOUNDED
@given(operation=OPERATION)
def test_operations(server: Server, people: People, lane: str, operation: str) -> None:
    """Names that look like an operation, or like nothing."""
    request = check(operation, b'{"query": "x"}', agent=people.bot, subject=people.alice)
    denied(server, lane, request.SerializeToString())


@pytest.mark.parametrize("lane", LANES)
@BOUNDED
@given(
    arguments=st.one_of(
        st.binary(max_size=200), TEXT.map(str.encode), JSON.map(lambda v: json.dumps(v).encode())
    )
)
def test_arguments(server: Server, people: People, lane: str, arguments: bytes) -> None:
    """Arguments that are none, or ill-typed."""
    request = check("crm.get", arguments, agent=people.bot, subject=people.alice)
    decision = decision_of(server.call("main" + lane, CHECK, request.SerializeToString()))
    if outcome(decision) != "DENY":
        said: Any = json.loads(arguments)
        assert list(said) == ["id"]
        assert isinstance(said["id"], str)


@pytest.mark.parametrize("lane", LANES)
@BOUNDED
@given(value=TEXT)
def test_values_stay_values(server: Server, people: People, lane: str, value: str) -> None:
    """No text in an argument changes what is judged: a page of the archive stays closed, a read stays a read."""
    arguments = json.dumps({"page": value}, ensure_ascii=False).encode()
    for operation, wanted in (("wiki.archive", {"DENY"}), ("wiki.read", {"PERMIT", "DENY"})):
        request = check(operation, arguments, agent=people.bot, subject=people.alice)
        decision = decision_of(server.call("main" + lane, CHECK, request.SerializeToString()))
        assert outcome(decision) in wanted
        if outcome(decision) == "DENY":
            assert reason_name(decision) in {"FORBIDDEN", "BAD_INPUT"}
        if value in decision.message and len(value) >= 3:
            # A word of the policy's own name or place, for example `for` of `forbid`.
            other = check(operation, b'{"page": "~"}', agent=people.bot, subject=people.alice)
            said = decision_of(server.call("main" + lane, CHECK, other.SerializeToString()))
            assert said.message == decision.message


@pytest.mark.parametrize("lane", LANES)
@BOUNDED
@given(
    token=st.one_of(
        TEXT, st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,90}")
    )
)
def test_tokens(server: Server, lane: str, token: str) -> None:
    """Texts that somebody presents as credentials."""
    assert denied(server, lane, search(token)) in {"BAD_CREDENTIAL", "UNTRUSTED_ISSUER"}
    assert denied(server, lane, search(None, token)) in {"BAD_CREDENTIAL", "UNTRUSTED_ISSUER"}


@pytest.mark.parametrize("lane", LANES)
@BOUNDED
@given(data=st.data())
def test_damaged_tokens(server: Server, people: People, lane: str, data: st.DataObject) -> None:
    """A good token with one character changed proves nothing."""
    good = people.bot
    position = data.draw(st.integers(0, len(good) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
    other = data.draw(st.sampled_from(alphabet))
    damaged = good[:position] + other + good[position + 1 :]
    if damaged != good:
        assert denied(server, lane, search(damaged)) in {"BAD_CREDENTIAL", "UNTRUSTED_ISSUER"}


@pytest.mark.parametrize("lane", LANES)
@BOUNDED
@given(
    path=st.one_of(
        TEXT,
        TEXT.map(lambda text: "/customers/" + text),
        TEXT.map(lambda text: "/customers?q=" + text),
        st.from_regex(r"/(customers|%2e%2e|\.\.|;|//|%2f|\\){1,6}", fullmatch=True),
    ),
    header=st.tuples(TEXT, TEXT),
)
def test_http(
    server: Server, people: People, lane: str, path: str, header: tuple[str, str]
) -> None:
    """Targets and headers; where one is permitted, it reads as a customer in one way only."""
    request = external_auth_pb2.CheckRequest()
    http = request.attributes.request.http
    http.method, http.host, http.path = "GET", "crm.example", path
    http.headers[header[0]] = header[1]
    http.headers["authorization"] = f"Bearer {people.bot}"
    answer = external_auth_pb2.CheckResponse.FromString(
        server.call("main" + lane, ENVOY, request.SerializeToString())
    )
    if answer.status.code == 0:
        target, _, _ = path.partition("?")
        assert target.isascii()
        assert not set(target) & set(";\\#\0")
        segments = target.split("/")
        assert len(segments) in {2, 3}
        assert segments[1] == "customers"
        assert not {"", ".", ".."} & set(segments[1:])
        for option in answer.ok_response.headers:
            assert option.header.value.isprintable()
    else:
        assert answer.denied_response.status.code >= 400


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("depth", [33, 200, 10_000, 100_000])
@pytest.mark.parametrize("form", ["array", "object"])
def test_deep_json(server: Server, people: People, lane: str, depth: int, form: str) -> None:
    """Depth is bounded before anything recurses."""
    opening, closing = (b"[", b"]") if form == "array" else (b'{"a":', b"}")
    inner = opening * depth + b"1" + closing * depth
    arguments = b'{"query": ' + inner + b"}"
    request = check("crm.search", arguments, agent=people.bot)
    assert denied(server, lane, request.SerializeToString()) == "BAD_INPUT"
    body = external_auth_pb2.CheckRequest()
    http = body.attributes.request.http
    http.method, http.host, http.path = "PATCH", "crm.example", "/customers/42"
    http.headers.update(
        {"authorization": f"Bearer {people.bot}", "content-type": "application/json"}
    )
    http.body = (b'{"note": ' + inner + b"}").decode()
    assert envoy_denied(server, lane, body.SerializeToString()) == "BAD_INPUT"


@pytest.mark.parametrize("lane", LANES)
def test_large_fields(server: Server, authority: Authority, people: People, lane: str) -> None:
    """Every field has a bound of its own."""
    large = "x" * 100_000
    for field in (
        "operation",
        "resource",
        "task",
        "approval_id",
        "confidence_jws",
        "idempotency_key",
    ):
        request = check("crm.search", b'{"query": "x"}', agent=people.bot)
        setattr(request, field, large)
        assert denied(server, lane, request.SerializeToString()) in {
            "BAD_INPUT",
            "UNKNOWN_OPERATION",
        }
    for field in ("destinations", "labels", "supported_obligations"):
        for values in ([large], ["x"] * 10_000):
            request = check("crm.search", b'{"query": "x"}', agent=people.bot)
            getattr(request, field).extend(values)
            assert denied(server, lane, request.SerializeToString()) == "BAD_INPUT"
    request = check("crm.search", b'{"query": "' + large.encode() * 5 + b'"}', agent=people.bot)
    assert denied(server, lane, request.SerializeToString()) == "BAD_INPUT"
    request = check("crm.search", b'{"query": "x"}', agent=people.bot)
    request.evidence[0].proof = large
    assert denied(server, lane, request.SerializeToString()) in {"BAD_CREDENTIAL", "BAD_PROOF"}
    for token in (authority.agent(BOT, padding=large), large, "." * 100_000, "e" * 8193):
        assert denied(server, lane, search(token)) == "BAD_CREDENTIAL"
    request = check("crm.search", b'{"query": "x"}')
    for _ in range(1000):
        request.evidence.add(role=1, scheme=1, token=people.bot)
    assert denied(server, lane, request.SerializeToString()) == "BAD_CREDENTIAL"


def test_a_message_beyond_the_transport(server: Server, people: People) -> None:
    """Seventeen megabytes are more than the transport takes: no answer, and no harm."""
    request = check("crm.search", b" " * 17_000_000, agent=people.bot).SerializeToString()
    for lane in LANES:
        try:
            answer = server.call("main" + lane, CHECK, request)
        except grpc.RpcError:
            continue
        assert outcome(decision_of(answer)) == "DENY"


@pytest.mark.parametrize("lane", LANES)
def test_unknown_fields_do_not_matter(server: Server, people: People, lane: str) -> None:
    """A newer client's field is not read, and changes nothing."""
    unknown = b"\xfa\x7f\x03abc"
    answer = server.call("main" + lane, CHECK, search(people.bot) + unknown)
    assert outcome(decision_of(answer)) == "PERMIT"
    assert denied(server, lane, search(people.idle) + unknown) == "NOT_PERMITTED"


@pytest.mark.parametrize("lane", LANES)
def test_invalid_utf8_in_texts(server: Server, people: People, lane: str) -> None:
    """A protobuf text that is no text makes the message none."""
    request = search(people.bot).replace(b"crm.search", b"crm.s\xff\xferch")
    assert denied(server, lane, request) in {"BAD_INPUT", "UNKNOWN_OPERATION"}


@pytest.mark.parametrize(
    "method", ["authz.v1.Authorizer/Explain", "authz.v1.Admin/Status", "authz.v1.Admin/Reload"]
)
@BOUNDED
@given(data=st.binary(max_size=200))
def test_administration(server: Server, people: People, method: str, data: bytes) -> None:
    """Random bytes to the administration socket: an answer, or an error with a reason; never a crash."""
    own = (("authorization", f"Bearer {people.root}"),)
    send: Any = server.channel("admin").unary_unary(f"/{method}")
    call = send.future(data, timeout=10, metadata=own, wait_for_ready=True)
    assert call.code() in {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
    }
