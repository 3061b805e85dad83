"""What Authz judged of a request is what web frameworks behind a real Envoy understand of it."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.envoy import Envoy
from tests.support.minting import Authority
from tests.support.people import BOT
from tests.support.received.comparison import Catalog, differences, judgement
from tests.support.received.exchange import Exchange, exchange
from tests.support.received.fanout import Fanout, ask
from tests.support.received.frameworks import FRAMEWORKS, Framework, Running
from tests.support.received.generator import SUSPICIOUS, requests
from tests.support.received.request import FORM, JSON, Request
from tests.support.server import Server, layout
from tests.support.waiting import eventually

pytestmark = [pytest.mark.envoy, pytest.mark.peers, pytest.mark.timeout(300)]

BUNDLE: Final = Path(__file__).parents[1] / "data" / "received"
LANES: Final = ("main", "main-fast")
SEED: Final = 20261130
GROUPS: Final = ("ordinary", *SUSPICIOUS, "mutations")
#: Headers by which an upstream may take another host, path or method, or another protocol, for the one that was judged.
REWRITING: Final = frozenset(
    {
        *("forwarded", "upgrade", "http2-settings", "x-host", "x-http-host-override"),
        *(f"x-forwarded-{part}" for part in ("context", "host", "method", "path", "prefix")),
        *(f"x-forwarded-{part}" for part in ("server", "uri", "url")),
        *(
            f"x-original-{part}"
            for part in ("forwarded-for", "host", "method", "path", "uri", "url")
        ),
        *(f"x-rewrite-{part}" for part in ("host", "path", "uri", "url")),
        *("x-http-method", "x-http-method-override", "x-method-override"),
    }
)
#: The operation whose route forwards `authorization`.
FORWARDED: Final = "crm.tenant"


@dataclass(frozen=True)
class Site:
    """What came of every request."""

    catalog: Catalog
    ports: dict[str, int]
    exchanges: tuple[Exchange, ...]
    tags: frozenset[str]
    tokens: tuple[str, ...]
    records: dict[str, dict[str, Any]]

    def port(self, framework: str) -> int:
        """Returns the port of a framework; without it the test is left out, and the report says why."""
        if framework not in self.ports:
            pytest.skip(f"{framework} is not there; run: make test-tools")
        return self.ports[framework]

    def of(self, group: str) -> list[Exchange]:
        """Returns the exchanges of a group that reached the frameworks."""
        return [one for one in self.exchanges if one.request.group == group and one.was_received]


@pytest.fixture(scope="module")
def site(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Every request, sent through an Envoy of each lane."""
    folder = tmp_path_factory.mktemp("received")
    catalog = Catalog.read(BUNDLE)
    tokens = (authority.agent(BOT), authority.subject("alice", groups=["employees"]))
    evidence = (("authorization", f"Bearer {tokens[0]}"), ("authz-subject", tokens[1]))
    with ExitStack() as stack:
        running = stack.enter_context(Running(folder, catalog.templates))
        fanout = stack.enter_context(Fanout(running.ports))
        server = stack.enter_context(Server(layout(folder / "server", authority, BUNDLE)))
        envoys = {
            lane: stack.enter_context(Envoy(folder / lane, server.port(lane), fanout.port))
            for lane in LANES
        }
        exchanges = exchange(envoys, fanout, requests(SEED), evidence)
        records = _records(server, exchanges)
        tags = frozenset(fanout.tags())
        yield Site(catalog, running.ports, tuple(exchanges), tags, tokens, records)


def _records(server: Server, exchanges: list[Exchange]) -> dict[str, dict[str, Any]]:
    wanted = {
        name for one in exchanges for a in one.arrivals for name in a.header("x-authz-decision-id")
    }

    def read() -> dict[str, dict[str, Any]]:
        found = {line["decision_id"]: line for line in server.records() if "decision_id" in line}
        return found if wanted <= found.keys() else {}

    return eventually(read, what="the record of every permit")


def table(rows: list[tuple[Exchange, str, str]]) -> str:
    """Returns one line for each difference of a request, the lanes and frameworks that show it beside it."""
    rows.sort(key=lambda row: (str(row[0].request), row[2], row[0].lane, row[1]))
    lines = []
    for (request, text), same in groupby(rows, key=lambda row: (str(row[0].request), row[2])):
        where = ", ".join(f"{one.lane}/{framework}" for one, framework, _ in same)
        lines.append(f"{request}\n    {text}\n    {where}")
    return "\n".join([f"{len(lines)} differences", *lines])


def test_enough_is_sent(site: Site) -> None:
    """Each lane judges all of it, and most of what is suspicious is refused."""
    for lane in LANES:
        own = [one for one in site.exchanges if one.lane == lane]
        assert len(own) >= 400
        assert sum(one.request.is_ordinary for one in own) >= 150
    assert {one.request.group for one in site.exchanges} == set(GROUPS)


def test_ordinary_requests_are_permitted(site: Site) -> None:
    """Refusing everything would make every other test here pass."""
    refused = [
        (one, "envoy", f"status {one.status}")
        for one in site.exchanges
        if one.request.is_ordinary and not (one.status == 200 and one.was_received)
    ]
    assert not refused, table(refused)


def test_refused_requests_arrive_nowhere(site: Site) -> None:
    """Nothing reaches the upstream but what was permitted, once, and as the request that it was."""
    wrong = [
        (one, "envoy", f"status {one.status}, arrived {len(one.arrivals)} times")
        for one in site.exchanges
        if len(one.arrivals) != (one.status == 200)
    ]
    assert not wrong, table(wrong)
    assert "" not in site.tags


def test_lanes_agree(site: Site) -> None:
    """Both lanes let the same requests through."""
    by_lane = {lane: [one.status for one in site.exchanges if one.lane == lane] for lane in LANES}
    main, fast = (by_lane[lane] for lane in LANES)
    requests_ = [one for one in site.exchanges if one.lane == "main"]
    differing = [
        (one, "envoy", f"main {a}, fast {b}")
        for one, a, b in zip(requests_, main, fast, strict=True)
        if a != b
    ]
    assert not differing, table(differing)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda framework: framework.name)
@pytest.mark.parametrize("group", GROUPS)
def test_judged_is_received(site: Site, group: str, framework: Framework) -> None:
    """The framework understands operation, arguments, resource and destination as the record says they were judged."""
    site.port(framework.name)
    rows = []
    for one in site.of(group):
        record = one.record(site.records)
        assert record is not None, one.request
        assert record["result"]["outcome"] == "PERMIT", one.request
        understood = one.arrivals[0].understood[framework.name]
        if understood is not None:
            lines = differences(site.catalog, framework, understood, record)
            rows += [(one, framework.name, "; ".join(lines))] if lines else []
        elif one.request.is_ordinary:
            rows.append((one, framework.name, "refused by the framework"))
    assert not rows, table(rows)


def test_evidence_is_not_received(site: Site) -> None:
    """A credential that was shown to Authz reaches no upstream, where it would speak for the agent, unless the route says so."""
    rows = []
    for one in site.exchanges:
        record = one.record(site.records) if one.was_received else None
        is_forwarded = record is not None and record["input"]["operation"] == FORWARDED
        expected = {"authorization"} if is_forwarded else set()
        for arrival in one.arrivals:
            seen = {name: u["headers"] for name, u in arrival.understood.items() if u is not None}
            for name, headers in {"envoy": arrival.headers, **seen}.items():
                shown = {header for header, value in headers for t in site.tokens if t in value}
                if shown != expected:
                    rows.append((one, name, f"received {shown}, expected {expected}"))
    assert not rows, f"{len(rows)} times, first:\n{table(rows[:8])}"


def test_rewriting_headers_are_not_received(site: Site) -> None:
    """Nor does a header that says another host, path, method or protocol than those that were judged."""
    rows = [
        (one, "envoy", f"`{name}: {value}` was received")
        for one in site.exchanges
        for arrival in one.arrivals
        for name, value in arrival.headers
        if name in REWRITING and value != one.request.method
    ]
    assert not rows, table(rows)


_BOTH: Final = b'{"amount":5,"to":"acme","memo":"&amount=5000&to=eve&x="}'
#: Requests of the kinds that Authz must refuse or rewrite, and the frameworks that take each for another one than it looks.
FOOLED: Final = (
    (Request("content-types", "POST", "/transfers", "bank.example", body=_BOTH), ("rack",)),
    (
        Request(
            "ignored-bodies",
            "POST",
            "/quotes?amount=5&to=acme",
            "bank.example",
            FORM,
            b"amount=5000",
        ),
        ("rack", "express", "flask"),
    ),
    (
        Request("overrides", "POST", "/customers/42", "crm.example", FORM, b"_method=DELETE"),
        ("rack", "express"),
    ),
    (
        Request(
            "overrides",
            "POST",
            "/customers/42",
            "crm.example",
            (("x-http-method-override", "DELETE"),),
        ),
        ("rack", "express", "flask"),
    ),
    (
        Request(
            "forwarding",
            "POST",
            "/transfers",
            "sandbox.example",
            (*JSON, ("x-forwarded-host", "bank.example")),
            _BOTH,
        ),
        ("rack", "express", "flask"),
    ),
)


@pytest.mark.parametrize(
    ("request_", "framework"),
    [
        pytest.param(request, one, id=f"{request.group}-{one}-{index}")
        for index, (request, fooled) in enumerate(FOOLED)
        for one in fooled
    ],
)
def test_frameworks_can_be_fooled(site: Site, request_: Request, framework: str) -> None:
    """Past Authz these requests are understood otherwise than they look: a framework that never errs would prove nothing."""
    understood = ask(site.port(framework), "POST", request_.write())
    assert understood is not None
    template = request_.target.partition("?")[0].replace("42", "{id}")
    assert request_.host is not None
    operation = site.catalog.operations[request_.host, "POST", template]
    looks = {"id": "42"} if operation.id == "crm.touch" else {"amount": 5, "to": "acme"}
    (by_name,) = (one for one in FRAMEWORKS if one.name == framework)
    record = {"input": judgement(operation, looks)}
    assert differences(site.catalog, by_name, understood, record)


def test_same_understanding_has_no_differences(site: Site) -> None:
    """The comparison itself sees each part that differs."""
    operation = site.catalog.operations["crm.example", "PATCH", "/customers/{id}"]
    understood = {
        "host": "crm.example",
        "method": "PATCH",
        "template": "/customers/{id}",
        "sources": {"path": {"id": "42"}, "query": {}, "json": {"note": "x", "rating": 4.0}},
        "lists": {},
        "headers": [],
    }
    judged = judgement(operation, {"id": "42", "note": "x", "rating": 4})

    def lines(**change: Any) -> list[str]:
        record = {"input": {**judged, **change}}
        return differences(site.catalog, FRAMEWORKS[0], understood, record)

    assert lines() == []
    for change in (
        {"operation": "crm.delete"},
        {"arguments": {**judged["arguments"], "rating": 5}},
        {"arguments": {**judged["arguments"], "flag": True}},
        {"arguments_digest": "sha256:0"},
        {"resource": 'Resource::"customers/43"'},
        {"destination_class": "partner"},
    ):
        assert lines(**change), change
