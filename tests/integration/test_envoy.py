"""A real Envoy, as shipped, between a client and an upstream, asking a real server on either lane."""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import cases
from tests.support.cases import Flat
from tests.support.envoy import Answer, Envoy, ext_authz
from tests.support.fixtures import Servers
from tests.support.minting import AUDIENCE, Authority
from tests.support.people import BOT, People
from tests.support.server import Server, layout
from tests.support.surfaces import MCP_ERRORS, http_headers, mint, reason_rows
from tests.support.upstream import Upstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.envoy

LANES = ("main", "main-fast")
ROWS = reason_rows()
#: Seconds that the shipped configuration gives the authorizer.
TIMEOUT = 0.5

#: Bundles of case files about agents that name no task, and about what the upstream receives.
OTHERS = ("implicit", "denials", "received", "spelling", "mailroom", "observed")


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture(scope="module")
def envoys(
    servers: Servers, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Envoy]]:
    """One Envoy a lane."""
    folder = tmp_path_factory.mktemp("envoy")
    with ExitStack() as stack:
        yield started(stack, folder, servers.of("desk"), upstream)


@pytest.fixture(scope="module")
def mcp_envoys(
    servers: Servers, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Envoy]]:
    """The same before a server of the bundle with an MCP endpoint."""
    folder = tmp_path_factory.mktemp("mcp_envoy")
    with ExitStack() as stack:
        yield started(stack, folder, servers.of("tracker"), upstream)


@pytest.fixture(scope="module")
def other_envoys(
    servers: Servers, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Envoy]]]:
    """The same before servers of other bundles, by bundle."""
    folder = tmp_path_factory.mktemp("tasks_envoy")
    with ExitStack() as stack:
        yield {
            bundle: started(stack, folder / bundle, servers.of(bundle), upstream)
            for bundle in OTHERS
        }


def started(stack: ExitStack, folder: Path, server: Server, upstream: Upstream) -> dict[str, Envoy]:
    """Starts one Envoy a lane."""
    return {
        lane: stack.enter_context(Envoy(folder / lane, server.port(lane), upstream.port))
        for lane in LANES
    }


@pytest.fixture(params=LANES)
def envoy(request: pytest.FixtureRequest, envoys: dict[str, Envoy]) -> Envoy:
    """Each of them."""
    return envoys[request.param]


def bearer(token: str, subject: str | None = None) -> list[tuple[str, str]]:
    """Returns the headers of a caller."""
    headers = [("authorization", f"Bearer {token}")]
    return headers if subject is None else [*headers, ("authz-subject", subject)]


def refused(answer: Answer, status: int, public_code: str) -> bool:
    """Tells whether an answer is this refusal, in the words that every agent sees."""
    return answer.status == status and f'"{public_code}"'.encode() in answer.body


def test_permit(envoy: Envoy, people: People) -> None:
    """The upstream is reached and told who acts, for whom, and by which decision."""
    answer = envoy.request("GET", "/customers?q=x", bearer(people.bot, people.alice))
    assert answer.status == 200
    assert answer.echo["x-authz-agent"] == [BOT]
    assert answer.echo["x-authz-subject"] == ["corp/alice"]
    assert len(answer.echo["x-authz-decision-id"][0]) == 36


def test_deny(envoy: Envoy, people: People, upstream: Upstream) -> None:
    """The upstream is not reached, and the body says nothing but the public triple."""
    before = len(upstream.seen)
    answer = envoy.request("GET", "/customers?q=secretword", bearer(people.idle))
    assert refused(answer, 403, "DENIED")
    assert len(upstream.seen) == before
    identifier = answer.header("x-authz-decision-id")[0]
    again = envoy.request("GET", "/customers?q=other", bearer(people.idle))
    other = again.header("x-authz-decision-id")[0]
    assert answer.body.replace(identifier.encode(), b"") == again.body.replace(other.encode(), b"")
    assert b"secretword" not in answer.body


def test_step_up(envoy: Envoy, people: People) -> None:
    """Mail that leaves the company waits."""
    answer = envoy.request(
        "POST",
        "/messages",
        [
            *bearer(people.bot, people.alice),
            ("host", "mail.example"),
            ("content-type", "application/json"),
        ],
        b'{"to": ["eve@evil.example"], "body": "hi"}',
    )
    assert refused(answer, 403, "STEP_UP")


def test_body_is_judged_and_forwarded(envoy: Envoy, people: People, upstream: Upstream) -> None:
    """The arguments in a body decide, and arrive unchanged."""
    body = b'{"to": ["bob@corp.example"], "body": "hi"}'
    headers = [
        *bearer(people.bot, people.alice),
        ("host", "mail.example"),
        ("content-type", "application/json"),
    ]
    assert envoy.request("POST", "/messages", headers, body).status == 200
    assert upstream.seen[-1].body == body


def test_identity_headers_are_overwritten(envoy: Envoy, people: People) -> None:
    """Whatever a caller claims to be, the upstream sees what was proved; what was not proved is gone."""
    claims = [
        ("x-authz-agent", "spiffe://a.example/ns/ops/sa/root"),
        ("x-authz-agent", "twice"),
        ("x-authz-subject", "corp/boss"),
        ("X-Authz-Decision-Id", "0"),
        ("x-authz-roles", "admin"),
    ]
    answer = envoy.request("GET", "/customers?q=x", [*bearer(people.bot), *claims])
    assert answer.status == 200
    assert answer.echo["x-authz-agent"] == [BOT]
    assert "x-authz-subject" not in answer.echo
    assert answer.echo["x-authz-decision-id"] != ["0"]
    assert "x-authz-roles" not in answer.echo


def test_our_inbound_headers_do_not_reach_the_upstream(envoy: Envoy, people: People) -> None:
    """A subject's token is for us alone."""
    headers = [*bearer(people.bot, people.alice), ("authz-note", "1"), ("Authz-Other", "2")]
    answer = envoy.request("GET", "/customers?q=x", headers)
    assert answer.status == 200
    assert [name for name in answer.echo if name.startswith("authz-")] == []


def test_no_credential(envoy: Envoy, upstream: Upstream) -> None:
    """An empty peer principal proves nothing."""
    before = len(upstream.seen)
    answer = envoy.request("GET", "/customers?q=x")
    assert refused(answer, 401, "UNAUTHENTICATED")
    assert answer.header("www-authenticate")
    assert len(upstream.seen) == before


def test_two_credentials(envoy: Envoy, people: People) -> None:
    """Repeated `authorization` headers are refused, whichever of them is good."""
    for pair in ((people.bot, people.idle), (people.idle, people.bot), (people.bot, people.bot)):
        headers = [("authorization", f"Bearer {token}") for token in pair]
        assert envoy.request("GET", "/customers?q=x", headers).status == 401


@pytest.mark.parametrize(
    "target",
    [
        "//customers/42",
        "/customers//42",
        "/customers/4%2F2",
        "/customers/4%2f2",
        "/customers/%2e%2e/42",
        "/customers/../customers/42",
        "/customers/./42",
        "/customers/42;v=1",
        "/customers\\42",
        "/customers/4%5c2",
        "/customers/42%00",
    ],
)
def test_ambiguous_paths(envoy: Envoy, people: People, upstream: Upstream, target: str) -> None:
    """A path that two readers could read differently never reaches the upstream."""
    before = len(upstream.seen)
    answer = envoy.request("GET", target, bearer(people.bot, people.alice))
    assert answer.status == 400
    assert len(upstream.seen) == before


def test_metadata_in_the_access_log(envoy: Envoy, people: People) -> None:
    """The access log joins the audit by decision id, also for refusals."""
    permit = envoy.request("GET", "/customers?q=x", bearer(people.bot))
    deny = envoy.request("GET", "/customers?q=x", bearer(people.idle))
    wanted = {
        permit.echo["x-authz-decision-id"][0]: ("PERMIT", "PERMITTED", 200),
        deny.header("x-authz-decision-id")[0]: ("DENY", "NOT_PERMITTED", 403),
    }

    def logged() -> dict[str, tuple[str, str, int]]:
        lines = {line["decision_id"]: line for line in envoy.log_lines()}
        return {
            name: (line["decision"], line["reason_code"], line["response_code"])
            for name, line in lines.items()
            if name in wanted
        }

    eventually(lambda: logged() == wanted, what="the access log is flushed")


def test_the_audit_knows_the_decision(envoy: Envoy, people: People, servers: Servers) -> None:
    """The id that the upstream sees is that of the audit record."""
    answer = envoy.request("GET", "/customers/42", bearer(people.bot))
    record = servers.of("desk").record(answer.echo["x-authz-decision-id"][0])
    assert record["result"]["outcome"] == "PERMIT"
    assert record["input"]["operation"] == "crm.get"
    assert record["path"] == "envoy.service.auth.v3.Authorization/Check"


#: Sent beside the evidence: the upstream gets the last two alone.
FORWARDED = (
    ("forwarded", "host=admin.example"),
    ("x-forwarded-host", "admin.example"),
    ("x-forwarded-prefix", "/admin"),
    ("x-host", "admin.example"),
    ("x-original-forwarded-for", "10.9.9.9"),
    ("x-http-method-override", "GET"),
    ("x-forwarded-for", "10.9.9.9"),
    ("x-forwarded-proto", "http"),
)


@pytest.mark.parametrize("lane", LANES)
def test_the_upstream_gets_no_evidence(
    lane: str, other_envoys: dict[str, dict[str, Envoy]], authority: Authority, people: People
) -> None:
    """Nor a header by which it would take the request for another one; a token that is for it, and no other, goes on."""
    envoy = other_envoys["received"][lane]

    def sent(path: str, token: str) -> dict[str, list[str]]:
        headers = [("host", "pay.example"), *bearer(token, people.alice), *FORWARDED]
        answer = envoy.request("GET", path, headers)
        assert answer.status == 200
        return answer.echo

    echo = sent("/ping", people.bot)
    assert echo["host"] == ["pay.example"]
    assert not {"authorization", "authz-subject", "dpop"} & echo.keys()
    assert not {name for name, _ in FORWARDED[:-2]} & echo.keys()
    assert {"x-forwarded-for", "x-forwarded-proto"} <= echo.keys()
    assert sent("/forwarded", people.bot)["authorization"] == [f"Bearer {people.bot}"]
    both = authority.agent(BOT, aud=[AUDIENCE, "https://pay.example"])
    assert sent("/ping", both)["authorization"] == [f"Bearer {both}"]


@pytest.mark.parametrize("lane", LANES)
def test_an_upgrade_reaches_no_upstream(
    lane: str, other_envoys: dict[str, dict[str, Envoy]], people: People, upstream: Upstream
) -> None:
    """To WebSocket: after it nobody would judge what is sent."""
    headers = [
        ("host", "pay.example"),
        *bearer(people.bot),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
    ]
    before = len(upstream.seen)
    assert other_envoys["received"][lane].request("GET", "/ping", headers).status == 403
    assert len(upstream.seen) == before


def sendable(case: Flat) -> bool:
    """Tells whether a client can send a case through Envoy, which itself then sets the rest."""
    http = case.step.http
    return (
        http is not None
        and case.step.listener == "main"
        and http.path.isascii()
        and http.path.startswith("/")
        and not (http.principal or http.extensions or http.partial)
        # A proxy tells labels by itself.
        and not case.step.request.labels
        and case.step.wanted.code != "ENFORCER_REFUSED"
    )


SENT = [case for case in cases.load() if sendable(case)]


@pytest.mark.parametrize(
    "case", [case for case in SENT if case.bundle == "desk"], ids=lambda case: case.id
)
def test_case_files(
    case: Flat, envoys: dict[str, Envoy], authority: Authority, upstream: Upstream
) -> None:
    """The case files' requests come out as they say also through Envoy; it may refuse some by itself."""
    send(case, envoys, authority, upstream)


@pytest.mark.parametrize(
    "case", [case for case in SENT if case.bundle == "tracker"], ids=lambda case: case.id
)
def test_case_files_of_mcp(
    case: Flat, mcp_envoys: dict[str, Envoy], authority: Authority, upstream: Upstream
) -> None:
    """So do those to an MCP endpoint; what is refused there reaches no server, whatever the status."""
    send(case, mcp_envoys, authority, upstream)


@pytest.mark.parametrize(
    "case", [case for case in SENT if case.bundle in OTHERS], ids=lambda case: case.id
)
def test_case_files_of_others(
    case: Flat,
    other_envoys: dict[str, dict[str, Envoy]],
    authority: Authority,
    upstream: Upstream,
) -> None:
    """And those of agents that name no task, and those about what the upstream receives."""
    send(case, other_envoys[case.bundle], authority, upstream)


def test_every_case_is_sent() -> None:
    """No bundle of the case files is left out."""
    assert {case.bundle for case in SENT} == {"desk", "tracker", *OTHERS}


def send(case: Flat, envoys: dict[str, Envoy], authority: Authority, upstream: Upstream) -> None:
    """Sends a case's request through each Envoy, and compares what comes of it."""
    http = case.step.http
    assert http is not None
    headers = http_headers(case, mint(authority, case))
    if headers is None:
        return
    body = (http.body or "").encode()
    wanted = case.step.wanted
    for envoy in envoys.values():
        before = len(upstream.seen)
        answer = envoy.request(http.method, http.path, [("host", http.host), *headers], body)
        if wanted.outcome == "PERMIT":
            assert answer.status == 200
            assert len(upstream.seen) == before + 1
            continue
        assert len(upstream.seen) == before
        if wanted.answer == "http":
            assert 400 <= answer.status < 600
        if answer.header("x-authz-decision-id") and wanted.code is not None:
            rows = {"http": ROWS[wanted.code].http_status, "result": 200}
            said = json.loads(answer.body).get("error", {}).get("code")
            assert answer.status == rows.get(wanted.answer, MCP_ERRORS.get(said))


@pytest.mark.parametrize("lane", LANES)
def test_half_a_body(
    lane: str, servers: Servers, upstream: Upstream, people: People, tmp_path: Path
) -> None:
    """An Envoy that sends cut-off bodies gets them refused: the rest could say anything."""

    def partial(config: dict[str, Any]) -> None:
        body = ext_authz(config)["with_request_body"]
        body.update(max_request_bytes=64, allow_partial_message=True)

    headers = [
        *bearer(people.bot, people.alice),
        ("host", "mail.example"),
        ("content-type", "application/json"),
    ]
    short = b'{"to": ["bob@corp.example"]}'
    long = short + b" " * 100
    with Envoy(tmp_path, servers.of("desk").port(lane), upstream.port, partial) as envoy:
        assert envoy.request("POST", "/messages", headers, short).status == 200
        assert refused(envoy.request("POST", "/messages", headers, long), 400, "INVALID")


@pytest.mark.parametrize("lane", LANES)
def test_cut_off_messages_of_mcp(
    lane: str, servers: Servers, upstream: Upstream, people: People, tmp_path: Path
) -> None:
    """So is a message to an MCP endpoint, in the protocol's words, and it reaches no server."""

    def partial(config: dict[str, Any]) -> None:
        body = ext_authz(config)["with_request_body"]
        body.update(max_request_bytes=128, allow_partial_message=True)

    headers = [
        *bearer(people.bot, people.alice),
        ("host", "mcp.tracker.example"),
        ("content-type", "application/json"),
        ("mcp-protocol-version", "2025-11-25"),
    ]
    call = {"name": "list_issues", "arguments": {}}
    short = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}).encode()
    assert len(short) < 128
    with Envoy(tmp_path, servers.of("tracker").port(lane), upstream.port, partial) as envoy:
        assert envoy.request("POST", "/mcp", headers, short).status == 200
        before = len(upstream.seen)
        answer = envoy.request("POST", "/mcp", headers, short + b" " * 100)
        assert answer.status == 400
        assert json.loads(answer.body)["error"]["code"] == -32600
        assert len(upstream.seen) == before


@pytest.mark.parametrize("raw", [True, False])
def test_both_encodings_of_headers(
    raw: bool,  # noqa: FBT001 - a case
    servers: Servers,
    upstream: Upstream,
    people: People,
    tmp_path: Path,
) -> None:
    """Envoy may send headers as a map or as they came; two credentials are refused in both."""
    with Envoy(
        tmp_path,
        servers.of("desk").port("main"),
        upstream.port,
        lambda config: ext_authz(config).update(encode_raw_headers=raw),
    ) as envoy:
        assert envoy.request("GET", "/customers?q=x", bearer(people.bot)).status == 200
        both = [*bearer(people.idle), *bearer(people.bot)]
        assert envoy.request("GET", "/customers?q=x", both).status == 401


@pytest.mark.parametrize("lane", LANES)
def test_over_a_unix_socket(
    lane: str, servers: Servers, upstream: Upstream, people: People, tmp_path: Path
) -> None:
    """An Envoy on the enforcer's socket asks about that enforcer's system, and no other."""
    name = lane.replace("main", "crm-only")
    path = Path(servers.of("desk").address(name).removeprefix("unix:"))
    with Envoy(tmp_path, path, upstream.port) as envoy:
        assert envoy.request("GET", "/customers?q=x", bearer(people.bot)).status == 200
        wiki = [*bearer(people.bot), ("host", "wiki.example")]
        assert refused(envoy.request("GET", "/pages/home", wiki), 403, "DENIED")


@pytest.mark.alone
@pytest.mark.parametrize("lane", LANES)
def test_authorizer_slow_then_dead_then_back(
    lane: str, authority: Authority, upstream: Upstream, people: People, tmp_path: Path
) -> None:
    """Nothing passes while the authorizer does not answer, within the time-out; all is well after."""
    server = Server(layout(tmp_path / "server", authority, "desk"))
    caller = bearer(people.bot)
    with (
        server,
        Envoy(tmp_path / "envoy", server.port(lane), upstream.port, patience=None) as envoy,
    ):

        def passes() -> bool:
            return envoy.request("GET", "/customers?q=x", caller).status == 200

        eventually(passes, what="it passes")
        before = len(upstream.seen)
        server.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
        # The signal is sent, not yet taken: a busy machine answers one more request.
        state = Path(f"/proc/{server.process.pid}/stat")  # type: ignore[union-attr]
        eventually(lambda: ") T " in state.read_text(), what="the server stands still")
        started = time.monotonic()
        assert envoy.request("GET", "/customers?q=x", caller).status == 503
        assert time.monotonic() - started < TIMEOUT + 5
        server.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
        eventually(passes, what="it passes again")
        reached = len(upstream.seen)
        assert reached > before
        server.process.kill()  # type: ignore[union-attr]
        server.process.wait(30)  # type: ignore[union-attr]
        assert envoy.request("GET", "/customers?q=x", caller).status == 503
        assert len(upstream.seen) == reached
        server.start()
        eventually(passes, what="it passes again")


@pytest.mark.parametrize("lane", LANES)
def test_another_spelling_of_a_path_is_not_let_through(
    lane: str, authority: Authority, upstream: Upstream, people: People, tmp_path: Path
) -> None:
    """A path that misses its route is as strict as the system of its host, since servers may serve it all the same."""
    place = layout(tmp_path / "server", authority, "desk")
    until = (datetime.now(UTC) + timedelta(days=30)).date()
    mode = f"mode: {{default: observe, owner: sec, until: {until}, systems: {{crm: enforce}}}}\n"
    (place.folder / "bundle" / "mode.yaml").write_text(mode)
    spellings = ("/customers/7", "/customers/7/", "/Customers/7", "/customers/7?x=1", "/customer/7")
    hosts = ("crm.example", "CRM.example", "crm.example.", "crm.example:8080")
    with (
        Server(place) as server,
        Envoy(tmp_path / "envoy", server.port(lane), upstream.port) as envoy,
    ):
        elsewhere = [("host", "elsewhere.example")]
        assert envoy.request("GET", "/nothing", elsewhere).status == 200, "it observes"
        before = len(upstream.seen)
        for path in spellings:
            for host in hosts:
                for who in ([], bearer(people.idle), bearer(people.idle, people.alice)):
                    answer = envoy.request("DELETE", path, [("host", host), *who])
                    assert answer.status in {400, 401, 403, 404}, (path, host, answer)
        assert len(upstream.seen) == before


@pytest.mark.alone
@pytest.mark.parametrize("lane", LANES)
def test_overloaded(
    lane: str, authority: Authority, upstream: Upstream, people: People, tmp_path: Path
) -> None:
    """A saturated server refuses, also towards an Envoy that lets requests pass when the authorizer fails.

    Threads and queue are as small as can be and really full: every request is one that policy denies, so a single 200
    would be a request that nobody judged.
    """
    limits = {"threads": 1, "queue": 1, "fast_threads": 2, "fast_concurrency": 1}
    server = Server(layout(tmp_path / "server", authority, "desk", {"limits": limits}))
    denied = bearer(people.idle)

    def lenient(config: dict[str, Any]) -> None:
        ext_authz(config)["failure_mode_allow"] = True

    with server, Envoy(tmp_path / "envoy", server.port(lane), upstream.port, lenient) as envoy:
        before = len(upstream.seen)

        def burst() -> set[int]:
            # No more at once than the streams of a connection: others are reset, which is not an answer.
            with ThreadPoolExecutor(16) as pool:
                asked = [
                    pool.submit(envoy.request, "DELETE", "/customers/7", denied) for _ in range(256)
                ]
                return {future.result().status for future in asked}

        statuses: set[int] = set()
        for _ in range(20):
            statuses |= burst()
            if 429 in statuses:
                break
        assert statuses == {403, 429}
        assert server.metric("authz_decisions_total", reason_code="OVERLOADED") > 0
        assert len(upstream.seen) == before
        assert envoy.request("GET", "/customers?q=x", bearer(people.bot)).status == 200
