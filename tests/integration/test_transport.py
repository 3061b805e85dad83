"""Listeners: health, reflection, TLS, sockets; and callers that ask about themselves."""

import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import decision_pb2
from tests.support.fixtures import Servers
from tests.support.minting import Authority
from tests.support.mutual import Pki
from tests.support.people import BOT, People, check, envoy_search, search
from tests.support.server import Server, code_of, layout
from tests.support.surfaces import CHECK, ENVOY, LANES, decision_of, outcome, reason_name
from tests.support.svid import Signer

SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.mark.parametrize("listener", ["main", "main-fast"])
@pytest.mark.parametrize(
    "service", ["", "authz.v1.Authorizer", "envoy.service.auth.v3.Authorization"]
)
def test_health(servers: Servers, listener: str, service: str) -> None:
    """Each service tells that it serves."""
    stub: Any = health_pb2_grpc.HealthStub(servers.of("desk").channel(listener))
    request = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(request, timeout=5).status == SERVING


@pytest.mark.parametrize("listener", ["main", "main-fast"])
def test_health_of_a_service_that_is_not_there(servers: Servers, listener: str) -> None:
    """It is NOT_FOUND, as the protocol says."""
    stub: Any = health_pb2_grpc.HealthStub(servers.of("desk").channel(listener))
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
    assert code_of(raised.value) is grpc.StatusCode.NOT_FOUND


def test_reflection(servers: Servers) -> None:
    """Tools find the services, and the file of each."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(servers.of("desk").channel("main"))
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="authz.v1.Authorizer"),
        reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="envoy.service.auth.v3.Authorization"
        ),
    ]
    listed, ours, envoys = stub.ServerReflectionInfo(iter(requests), timeout=5)
    names = {service.name for service in listed.list_services_response.service}
    assert {"authz.v1.Authorizer", "envoy.service.auth.v3.Authorization"} <= names
    assert ours.file_descriptor_response.file_descriptor_proto
    assert envoys.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("lane", ["python", "fast"])
def test_tls(authority: Authority, people: People, tmp_path: Path, lane: str) -> None:
    """A TLS listener answers those who trust it, and asks for client certificates where told to."""
    pki = Pki(tmp_path)
    for name, signer in (("client", pki.a), ("other", Signer.authority("a.example"))):
        svid = signer.svid(BOT)
        (tmp_path / f"{name}.pem").write_bytes(svid.pem)
        (tmp_path / f"{name}.key").write_bytes(svid.key_pem)
    base = layout(tmp_path / "server", authority, "desk")
    pki.trust(base)
    main = {"address": base.config["listeners"]["main"]["address"], "tls": pki.tls, "lane": lane}
    mutual = {
        "address": base.config["listeners"]["main-fast"]["address"],
        "tls": {**pki.tls, "client_ca_file": str(pki.clients)},
        "lane": lane,
    }
    base.config["listeners"]["main"] = main
    base.config["listeners"]["mutual"] = mutual
    del base.config["listeners"]["main-fast"]
    base.write()
    caller = (("authorization", f"Bearer {people.bot}"),)

    def ask(listener: str, client: str | None) -> str:
        def read(name: str) -> bytes:
            return (tmp_path / name).read_bytes()

        credentials = grpc.ssl_channel_credentials(
            read("root.pem"),
            read(f"{client}.key") if client else None,
            read(f"{client}.pem") if client else None,
        )
        with grpc.secure_channel(server.address(listener), credentials) as channel:
            send: Any = channel.unary_unary(f"/{CHECK}")
            answer: bytes = send(search(None), timeout=5, metadata=caller)
        decision = decision_of(answer)
        # For people who look for who asked.
        assert "127.0.0.1" in server.record(decision.decision_id)["requested_by"]
        return outcome(decision)

    with Server(base) as server:
        assert ask("main", None) == "PERMIT"
        assert ask("mutual", "client") == "PERMIT"
        for nobody in (None, "other"):
            with pytest.raises(grpc.RpcError) as raised:
                ask("mutual", nobody)
            assert code_of(raised.value) is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(server.address("main")) as plain:
            plain_send: Any = plain.unary_unary(f"/{CHECK}")
            with pytest.raises(grpc.RpcError):
                plain_send(search(people.bot), timeout=5)


@pytest.mark.parametrize("lane", LANES)
def test_a_caller_that_is_no_enforcer_asks_about_itself(
    servers: Servers, people: People, lane: str
) -> None:
    """By its own credential in the call's metadata; it sees no more than an agent may."""
    server = servers.of("desk")
    own = (("authorization", f"Bearer {people.bot}"),)
    decision = decision_of(server.call("none" + lane, CHECK, search(None), metadata=own))
    assert outcome(decision) == "PERMIT"
    assert decision.reason_code == 0
    assert not decision.policy_ids
    assert not decision.bundle_digest
    decision = decision_of(server.call("none" + lane, CHECK, search(None)))
    assert outcome(decision) == "DENY"
    assert decision.public_code == 4
    record = server.record(decision.decision_id)
    assert record["result"]["reason_code"] == "NO_CREDENTIAL"


@pytest.mark.parametrize("lane", LANES)
def test_nobody_asks_about_others_without_being_an_enforcer(
    servers: Servers, authority: Authority, people: People, lane: str
) -> None:
    """Evidence of somebody else is refused where the call's own credential proves another caller, or none."""
    server = servers.of("desk")
    other = authority.agent("spiffe://a.example/ns/support/sa/other")
    for value in (f"Bearer {people.idle}", f"Bearer {people.alice}", "Bearer x", "Basic eDp5", ""):
        own = (("authorization", value),)
        for request in (search(people.bot), search(other), search(people.bot, people.boss)):
            decision = decision_of(server.call("none" + lane, CHECK, request, metadata=own))
            assert outcome(decision) == "DENY"
            record = server.record(decision.decision_id)
            assert record["result"]["reason_code"] in {"ENFORCER_REFUSED", "BAD_CREDENTIAL"}


@pytest.mark.parametrize("lane", LANES)
def test_two_credentials_of_one_call(servers: Servers, people: People, lane: str) -> None:
    """Of two `authorization` values neither is believed, also where one of them is good."""
    server = servers.of("desk")
    for pair in ((people.bot, people.idle), (people.idle, people.bot), (people.bot, people.bot)):
        own = tuple(("authorization", f"Bearer {token}") for token in pair)
        decision = decision_of(server.call("none" + lane, CHECK, search(None), metadata=own))
        assert (outcome(decision), decision.public_code) == ("DENY", 4)


@pytest.mark.parametrize("lane", LANES)
def test_no_proxy_on_a_listener_that_is_no_enforcer(
    servers: Servers, people: People, lane: str
) -> None:
    """A proxy asks about others, always."""
    answer = external_auth_pb2.CheckResponse.FromString(
        servers.of("desk").call("none" + lane, ENVOY, envoy_search(people.bot))
    )
    assert answer.status.code == 7
    assert answer.denied_response.status.code == 403


def test_socket_modes(servers: Servers) -> None:
    """Sockets of enforcers are for owner and group, never for all."""
    for listener in ("crm-only", "crm-only-fast", "none", "none-fast"):
        path = Path(servers.of("desk").address(listener).removeprefix("unix:"))
        assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0, listener


@pytest.mark.parametrize("lane", LANES)
def test_trace_context_is_recorded(servers: Servers, people: People, lane: str) -> None:
    """The trace of the call joins its record; a malformed one is left out."""
    server = servers.of("desk")
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for value, wanted in (
        (f"00-{trace}-{span}-01", trace),
        (f"00-{trace.upper()}-{span}-01", None),
        ("00-zz", None),
    ):
        answer = server.call(
            "main" + lane, CHECK, search(people.bot), metadata=(("traceparent", value),)
        )
        record = server.record(decision_of(answer).decision_id)
        assert record.get("trace_id") == wanted


def test_batch(servers: Servers, people: People) -> None:
    """Every item of a snapshot is a PROBE; each is judged by itself and answered in order."""
    from authz_client.v1 import authorizer_pb2  # noqa: PLC0415

    probe = decision_pb2.MODE_PROBE

    def item(
        agent: str, subject: str | None, operation: str = "crm.search"
    ) -> decision_pb2.CheckRequest:
        arguments = b'{"query": "x"}'
        return check(operation, arguments, agent=agent, subject=subject, mode=probe)

    def send(*items: decision_pb2.CheckRequest, mode: int = 1) -> list[str]:
        request = authorizer_pb2.BatchCheckRequest(items=items)
        request.mode = mode  # type: ignore[assignment]
        answer = authorizer_pb2.BatchCheckResponse.FromString(
            servers.of("desk").call(
                "main", "authz.v1.Authorizer/BatchCheck", request.SerializeToString()
            )
        )
        return [reason_name(decision) for decision in answer.decisions]

    good, bad = item(people.bot, people.boss), item(people.idle, None)
    nothing = item(people.bot, people.boss, "crm.nothing")
    assert send(good, bad, nothing, good) == [
        "PERMITTED",
        "NOT_PERMITTED",
        "UNKNOWN_OPERATION",
        "PERMITTED",
    ]
    enforce = decision_pb2.CheckRequest()
    enforce.CopyFrom(good)
    enforce.mode = decision_pb2.MODE_ENFORCE
    for refused in (
        send(good, enforce),
        send(good, mode=0),
        send(good, mode=2),
        send(*[good] * 101),
    ):
        assert set(refused) == {"BAD_INPUT"}


def test_a_message_over_the_limit(servers: Servers, people: People) -> None:
    """It is a decision as well: BAD_INPUT."""
    request = check("crm.search", b'{"query": "' + b"x" * 2_000_000 + b'"}', agent=people.bot)
    for lane in LANES:
        answer = servers.of("desk").call("main" + lane, CHECK, request.SerializeToString())
        assert reason_name(decision_of(answer)) == "BAD_INPUT"


def test_a_caller_on_this_machine(servers: Servers, people: People) -> None:
    """Its address says nothing; the Python lane does not ask for it, the fast lane has it at hand."""
    server = servers.of("desk")
    told = {}
    for lane in LANES:
        decision = decision_of(server.call("main" + lane, CHECK, search(people.bot)))
        record = server.record(decision.decision_id)
        assert record["input"]["chain"][0]["id"] == BOT
        told[lane] = record["requested_by"].partition(":")[0]
    assert told == {"": "", "-fast": "127.0.0.1"}
