"""`mode: observe` lets no malformed request through where the clean one is refused: each evil with each defect, on every surface."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    decision_pb2,
    options_pb2,
    tasks_pb2,
    tasks_pb2_grpc,
)
from tests.support.minting import Authority
from tests.support.server import Server, layout
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of, outcome

BUNDLE: Final = "tasks"
ORCHESTRATOR: Final = "spiffe://a.example/ns/support/sa/orch"
READER: Final = "spiffe://a.example/ns/support/sa/sub"
NOWHERE: Final = "0190a0a0-0000-7000-8000-000000000000"
JSON: Final = "application/json"


@dataclass(frozen=True)
class Who:
    """Who asks, and in which task."""

    agent: str | None = None
    subject: str | None = None
    task: str = ""


@dataclass(frozen=True)
class Sent:
    """A request of one surface: an operation with arguments, or an HTTP request."""

    defect: str
    operation: str = ""
    arguments: str = ""
    method: str = ""
    path: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    host: str = "crm.example"

    def is_http(self) -> bool:
        """Whether a proxy asks."""
        return bool(self.method)


def over_http(
    defect: str, method: str, path: str, body: str = "", host: str = "crm.example", **headers: str
) -> Sent:
    """An HTTP request; `_` of a header's name stands for `-`."""
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Sent(defect, method=method, path=path, headers=pairs, body=body, host=host)


#: One call, `crm.read`, clean and with what an agent can spoil in it.
READS: Final = (
    Sent("clean", "crm.read", '{"id": "acme/1"}'),
    Sent("undeclared argument", "crm.read", '{"id": "acme/1", "x": 1}'),
    Sent("argument missing", "crm.read", "{}"),
    Sent("unknown operation", "crm.readX", '{"id": "acme/1"}'),
    Sent("member twice", "crm.read", '{"id": "acme/1", "id": "acme/2"}'),
    over_http("clean", "GET", "/customers?id=acme/1"),
    over_http("extra query", "GET", "/customers?id=acme/1&x=1"),
    over_http("slash at the end", "GET", "/customers/?id=acme/1"),
    over_http("another case", "GET", "/Customers?id=acme/1"),
    over_http("another method", "PATCH", "/customers?id=acme/1"),
    over_http("dot segment", "GET", "/x/../customers?id=acme/1"),
    over_http("dot after the host", "GET", "/customers?id=acme/1", host="crm.example."),
    over_http("host in capitals with a port", "GET", "/Customers", host="CRM.example:8443"),
    over_http("override", "GET", "/customers?id=acme/1", x_http_method_override="DELETE"),
    over_http("body", "GET", "/customers?id=acme/1", "{}", content_type=JSON),
    over_http("cut body", "GET", "/customers?id=acme/1", '{"a', x_envoy_auth_partial_body="true"),
    over_http("cut body, no route", "POST", "/x", '{"a', x_envoy_auth_partial_body="true"),
)
#: What `mode: observe` lets through, of a call that policy would refuse and that nothing else stands against.
SOFTENED: Final = {
    "clean",
    "undeclared argument",
    "argument missing",
    "unknown operation",
    "extra query",
    "slash at the end",
    "another case",
    "another method",
    "dot after the host",
    "host in capitals with a port",
    "body",
}


def is_let_through(server: Server, suffix: str, sent: Sent, who: Who) -> bool:
    """Ask one lane."""
    if sent.is_http():
        proxied = external_auth_pb2.CheckRequest()
        http = proxied.attributes.request.http
        http.method, http.host, http.path = sent.method, sent.host, sent.path
        http.protocol, http.body, http.size = "HTTP/1.1", sent.body, len(sent.body)
        headers = dict(sent.headers)
        if sent.body:
            headers["content-length"] = str(len(sent.body))
        if who.agent:
            headers["authorization"] = f"Bearer {who.agent}"
        if who.subject:
            headers["authz-subject"] = who.subject
        if who.task:
            headers["authz-task"] = who.task
        http.headers.update(headers)
        answer = server.call("main" + suffix, ENVOY, proxied.SerializeToString())
        response = external_auth_pb2.CheckResponse.FromString(answer)
        assert (response.status.code == 0) == response.HasField("ok_response")
        return response.HasField("ok_response")
    request = decision_pb2.CheckRequest(
        operation=sent.operation, arguments_json=sent.arguments.encode(), task=who.task
    )
    pairs = (
        (decision_pb2.EVIDENCE_ROLE_AGENT, who.agent),
        (decision_pb2.EVIDENCE_ROLE_SUBJECT, who.subject),
    )
    for role, token in pairs:
        if token:
            request.evidence.add(role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=token)
    decision = decision_of(server.call("main" + suffix, CHECK, request.SerializeToString()))
    permitted = decision.public_code == options_pb2.PUBLIC_CODE_PERMIT
    assert permitted == (outcome(decision) == "PERMIT")
    return permitted


def let_through(server: Server, who: Who, sent: tuple[Sent, ...] = READS) -> dict[str, set[str]]:
    """What each lane lets through."""
    return {
        suffix: {one.defect for one in sent if is_let_through(server, suffix, one, who)}
        for suffix in LANES
    }


def on_both(defects: set[str]) -> dict[str, set[str]]:
    """The same for each lane."""
    return dict.fromkeys(LANES, defects)


def mode(rest: str = "") -> str:
    """A mode that observes for 30 days."""
    until = (datetime.now(UTC) + timedelta(days=30)).date()
    return f"mode: {{default: observe, owner: sec@corp.example, until: {until}{rest}}}\n"


def serve(tmp_path_factory: pytest.TempPathFactory, authority: Authority, text: str) -> Server:
    """A server of the bundle under a mode."""
    folder = tmp_path_factory.mktemp("early")
    place = layout(folder, authority, BUNDLE)
    (folder / "bundle" / "mode.yaml").write_text(text)
    return Server(place)


@pytest.fixture
def observing(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    """A server that observes everything; what a test revokes stays revoked there."""
    with serve(tmp_path_factory, authority, mode()) as server:
        yield server


def bearer(token: str, role: decision_pb2.EvidenceRole.ValueType) -> decision_pb2.Evidence:
    """A credential."""
    return decision_pb2.Evidence(role=role, scheme=decision_pb2.EVIDENCE_SCHEME_BEARER, token=token)


def start(server: Server, who: Who) -> str:
    """A task of the orchestrator for Alice, about another customer: so that policy refuses `READS`."""
    assert who.agent
    assert who.subject
    request = tasks_pb2.StartRequest(
        evidence=[
            bearer(who.agent, decision_pb2.EVIDENCE_ROLE_AGENT),
            bearer(who.subject, decision_pb2.EVIDENCE_ROLE_SUBJECT),
        ],
        template="answer",
    )
    request.params.update({"customer": "other", "most": 5})
    stub: Any = tasks_pb2_grpc.TasksStub(server.channel("main"))
    task: str = stub.Start(request, timeout=5, wait_for_ready=True).task.id
    return task


def end(server: Server, task: str, agent: str) -> None:
    """The assignee ends its task."""
    stub: Any = tasks_pb2_grpc.TasksStub(server.channel("main"))
    evidence = [bearer(agent, decision_pb2.EVIDENCE_ROLE_AGENT)]
    status = tasks_pb2.TASK_STATUS_COMPLETED
    stub.End(tasks_pb2.EndRequest(evidence=evidence, task=task, status=status), timeout=5)


def revoke(server: Server, **target: str) -> None:
    """By the administration socket."""
    stub: Any = admin_pb2_grpc.AdminStub(server.channel("admin"))
    request = admin_pb2.AdminRevokeRequest(reason="a test")
    for name, value in target.items():
        setattr(request, name, value)
    stub.Revoke(request, timeout=5, wait_for_ready=True)


@pytest.fixture
def good(authority: Authority) -> Who:
    """The orchestrator for Alice, on no task."""
    return Who(authority.agent(ORCHESTRATOR), authority.subject("alice", groups=["employees"]))


def test_no_defect_hides_what_is_never_softened(
    observing: Server, authority: Authority, good: Who
) -> None:
    """Tasks that ended, of others and of nobody; credentials that fail; what is revoked."""
    server = observing
    own = replace(good, task=start(server, good))
    assert let_through(server, own) == on_both(SOFTENED), "it observes"
    ended = start(server, good)
    assert good.agent
    end(server, ended, good.agent)
    taken = start(server, good)
    revoke(server, task=taken)
    reader = authority.agent(READER)
    evils = {
        "ended": replace(good, task=ended),
        "revoked": replace(good, task=taken),
        "unknown": replace(good, task=NOWHERE),
        "another's": replace(own, agent=reader),
        "for another": replace(own, subject=authority.subject("bob", groups=["employees"])),
        "expired": replace(own, agent=authority.bad_agent("expired", ORCHESTRATOR)),
        "garbage": replace(own, agent="a.b.c"),
    }
    nothing = on_both(set())
    for name, who in evils.items():
        assert let_through(server, who) == nothing, name
    revoke(server, operation="crm.read")
    for who in (own, good, Who()):
        assert let_through(server, who) == nothing, "revoked operation"
    elsewhere = (
        Sent("elsewhere", "mail.send", "{}"),
        over_http("elsewhere", "GET", "/nothing", host="mail.example"),
    )
    assert let_through(server, own, elsewhere) == on_both({"elsewhere"})
    revoke(server, agent=ORCHESTRATOR)
    assert let_through(server, own, elsewhere) == nothing, "revoked agent"


@pytest.mark.parametrize(
    ("rest", "whole", "early"),
    [
        (", systems: {crm: enforce}", False, False),
        (", tiers: {standard: enforce}", False, False),
        (", tiers: {high: enforce}", True, None),
        (f", agents: {{'{READER}': enforce}}", True, True),
    ],
)
def test_what_stops_early_is_as_strict_as_what_it_could_have_been(
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    good: Who,
    rest: str,
    *,
    whole: bool,
    early: bool | None,
) -> None:
    """By system, tier and agent; `early` is none where it depends on whether the operation is known."""
    of_operation = {"undeclared argument", "argument missing", "extra query", "body"}
    with serve(tmp_path_factory, authority, mode(rest)) as server:
        own = replace(good, task=start(server, good))
        expected = {"clean"} if whole else set()
        if early or early is None:
            expected |= of_operation
        if early:
            expected = SOFTENED
        assert let_through(server, own) == on_both(expected)
        # Without its task it could be a call of any agent, since tasks are delegated here.
        if rest.startswith(", agents"):
            assert let_through(server, good) == on_both(set())
            assert let_through(server, Who()) == on_both(set())


def test_the_body_of_a_mail_decides_nothing_once_it_is_spoiled(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, good: Who
) -> None:
    """A destination class that raises the tier counts for every mail that was not judged."""
    folder = tmp_path_factory.mktemp("early")
    place = layout(folder, authority, BUNDLE)
    for file in (folder / "bundle").glob("*.yaml"):
        text = file.read_text()
        file.write_text(
            text.replace(
                'external: {match: "*", clearance: []}',
                'external: {match: "*", clearance: [], tier: critical}',
            )
        )
    (folder / "bundle" / "mode.yaml").write_text(mode(", tiers: {critical: enforce}"))

    def mails(to: str, more: dict[str, Any]) -> tuple[Sent, ...]:
        body = json.dumps({"to": [to], **more})
        return (
            Sent("mail", "mail.send", body),
            over_http("mail", "POST", "/messages", body, "mail.example", content_type=JSON),
        )

    with Server(place) as server:
        own = replace(good, task=start(server, good))
        for to, more, who, expected in (
            ("a@corp.example", {}, own, {"mail"}),
            ("eve@evil.example", {}, own, set()),
            ("a@corp.example", {"x": 1}, own, set()),
            ("eve@evil.example", {"x": 1}, own, set()),
            ("eve@evil.example.", {}, own, set()),
            ("a@corp.example", {}, good, set()),
            ("a@corp.example", {}, Who(), set()),
        ):
            got = let_through(server, who, mails(to, more))
            assert got == on_both(expected), (to, more)
