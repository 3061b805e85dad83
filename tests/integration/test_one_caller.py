"""One caller never stops another: each attack runs beside an honest caller on another listener, and beside probes of readiness."""

from __future__ import annotations

import gzip
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from authz.config import load
from authz.server import Node
from authz.telemetry import make_logger
from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from tests.support.people import People, envoy_search, search
from tests.support.server import Server, code_of, layout
from tests.support.stalled import StalledCalls
from tests.support.surfaces import CHECK, ENVOY, decision_of, outcome, reason_name
from tests.support.waiting import eventually

pytestmark = pytest.mark.alone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.minting import Authority

HEALTH = "grpc.health.v1.Health/Check"
WATCH = "grpc.health.v1.Health/Watch"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SERVING = health_pb2.HealthCheckResponse.SERVING
#: A connection of its own.
LOCAL = [("grpc.use_local_subchannel_pool", 1)]
#: What an honest caller grants one call; a busy machine is slow.
DEADLINE = 2.0


@pytest.fixture(scope="module")
def people(authority: Authority) -> People:
    """Good credentials."""
    return People.of(authority)


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the default limits, but fewer connections and less patience."""
    limits = {"connections": 64, "receive_timeout": "1s", "handshake_timeout": "1s"}
    folder: Path = tmp_path_factory.mktemp("one-caller")
    with Server(layout(folder, authority, "desk", {"limits": limits})) as started:
        yield started


@dataclass
class Honest:
    """Asks on the unix socket of an enforcer, and looks whether the node says that it is ready, until it is told to stop."""

    server: Server
    request: bytes
    answers: list[str] = field(default_factory=list)
    slowest: float = 0.0
    ready: list[object] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=run) for run in (self._ask, self._look)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        while not self._stop.wait(0.02):
            begun = time.monotonic()
            try:
                answer = self.server.call("crm-only", CHECK, self.request, timeout=DEADLINE)
                self.answers.append(reason_name(decision_of(answer)))
            except grpc.RpcError as error:
                self.answers.append(code_of(error).name)
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def _look(self) -> None:
        stub: Any = health_pb2_grpc.HealthStub(self.server.channel("none"))
        while not self._stop.wait(0.2):
            try:
                self.ready.append(self.readyz())
                asked = health_pb2.HealthCheckRequest()
                self.ready.append(stub.Check(asked, timeout=DEADLINE).status)
            except (OSError, grpc.RpcError) as error:
                self.ready.append(repr(error))

    def readyz(self) -> int:
        """The status of `/readyz`. A connection whose request did not come whole gives way, so one may be reset: ask again."""
        try:
            return self.server.http("/readyz")[0]
        except OSError:
            return self.server.http("/readyz")[0]

    def assert_unharmed(self) -> None:
        """Every call was answered in time, and the node was ready all the while."""
        assert len(self.answers) > 10
        assert set(self.answers) == {"PERMITTED"}
        assert self.slowest < DEADLINE
        assert set(self.ready) == {200, SERVING}


@pytest.fixture
def honest(server: Server, people: People) -> Iterator[Honest]:
    """An honest caller, for as long as the test runs; at its end it must not have come to harm."""
    caller = Honest(server, search(people.bot))
    server.call("crm-only", CHECK, search(people.bot))
    server.call("none", HEALTH, b"")
    with caller:
        yield caller
        time.sleep(0.5)
    caller.assert_unharmed()


def alive(connection: socket.socket) -> bool:
    """Whether the server has left a connection open."""
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@pytest.mark.parametrize("count", [4, 64, 300, 1000])
@pytest.mark.parametrize("method", [CHECK, ENVOY, HEALTH])
def test_messages_that_never_end(
    server: Server, people: People, honest: Honest, method: str, count: int
) -> None:
    """They hold no thread: on their own listener, and from the same address, others are answered as well."""
    port = server.port("main")
    with StalledCalls(port, method, count, part=True):
        for _ in range(20):
            begun = time.monotonic()
            answer = server.call("main", CHECK, search(people.bot), timeout=DEADLINE)
            assert reason_name(decision_of(answer)) == "PERMITTED"
            assert time.monotonic() - begun < DEADLINE
            time.sleep(0.05)
    del honest


def test_a_message_that_never_ends_is_denied(server: Server, honest: Honest) -> None:
    """DEADLINE, counted from its arrival; an RPC error would be a permit to an Envoy with `failure_mode_allow`."""

    def nothing() -> Iterator[bytes]:
        stop.wait(30)
        yield from ()

    stop = threading.Event()
    before = server.metric("authz_unreceived_refused_total", listener="main", reason="DEADLINE")
    channel = server.channel("main")
    check: Any = channel.stream_unary(f"/{CHECK}")
    proxy: Any = channel.stream_unary(f"/{ENVOY}")
    tasks: Any = channel.stream_unary("/authz.v1.Tasks/List")
    try:
        assert reason_name(decision_of(check(nothing(), timeout=30))) == "DEADLINE"
        answer = external_auth_pb2.CheckResponse.FromString(proxy(nothing(), timeout=30))
        assert (answer.status.code, answer.denied_response.status.code) == (4, 503)
        with pytest.raises(grpc.RpcError) as raised:
            tasks(nothing(), timeout=30)
        assert code_of(raised.value) is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        stop.set()
    after = server.metric("authz_unreceived_refused_total", listener="main", reason="DEADLINE")
    assert after >= before + 3
    del honest


def test_messages_that_never_end_give_way_to_others(server: Server, honest: Honest) -> None:
    """OVERLOADED: a receipt for whose place others wait is given up long before its time-out."""
    with StalledCalls(server.port("main"), CHECK, 200, part=True):
        eventually(
            lambda: server.metric(
                "authz_unreceived_refused_total", listener="main", reason="OVERLOADED"
            ),
            what="old receipts are given up",
        )
    eventually(lambda: server.metric("authz_unreceived_calls", listener="main") == 0)
    del honest


def test_a_watcher_that_reads_nothing(server: Server, honest: Honest) -> None:
    """Its answer cannot be sent; health is told to all others, on its own listener too."""
    with StalledCalls(server.port("main"), WATCH, 100, message=b"\x00" * 5, window=0):
        time.sleep(0.5)
        stub: Any = health_pb2_grpc.HealthStub(server.channel("main"))
        for _ in range(5):
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING
    del honest


def test_streams_of_reflection_that_stay_open(server: Server, honest: Honest) -> None:
    """They are few, and each listener has its own."""
    with StalledCalls(server.port("main"), REFLECTION, 100):
        time.sleep(1)
        stub: Any = health_pb2_grpc.HealthStub(server.channel("main"))
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING
    del honest


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n"], ids=["nothing", "half a preface"])
def test_connections_that_say_nothing(server: Server, honest: Honest, sent: bytes) -> None:
    """They are bounded at once, and closed soon."""
    with ExitStack() as stack:
        held = []
        for _ in range(300):
            one = socket.create_connection(("127.0.0.1", server.port("main")), 5)
            held.append(stack.enter_context(one))
            if sent:
                one.sendall(sent)
        eventually(lambda: sum(map(alive, held)) <= 64, what="there are no more than may be")
        eventually(lambda: not any(map(alive, held)), what="the others are closed in time")
    del honest


def test_connections_of_one_peer(server: Server, people: People, honest: Honest) -> None:
    """One peer has half of what the others leave; another one finds room beside it."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    before = server.metric("authz_connections_refused_total", listener="main", bound="peer")
    with ExitStack() as stack:
        held = []
        for _ in range(60):
            one = socket.create_connection(
                ("127.0.0.1", server.port("main")), 5, source_address=("127.0.0.2", 0)
            )
            held.append(stack.enter_context(one))
            one.sendall(preface)
        eventually(lambda: sum(map(alive, held)) <= 32, what="the peer has half")
        assert sum(map(alive, held)) > 16
        with grpc.insecure_channel(server.address("main"), LOCAL) as channel:
            send: Any = channel.unary_unary(f"/{CHECK}")
            answer = send(search(people.bot), timeout=DEADLINE)
        assert reason_name(decision_of(answer)) == "PERMITTED"
    after = server.metric("authz_connections_refused_total", listener="main", bound="peer")
    assert after > before
    del honest


def test_compressed_messages(server: Server, people: People, honest: Honest) -> None:
    """They are not accepted, and not unpacked: UNIMPLEMENTED, and no seconds of the processor."""
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        with grpc.insecure_channel(server.address("main"), compression=compression) as channel:
            send: Any = channel.unary_unary(f"/{CHECK}")
            with pytest.raises(grpc.RpcError) as raised:
                send(search(people.bot), timeout=DEADLINE)
            assert code_of(raised.value) is grpc.StatusCode.UNIMPLEMENTED
    packed = gzip.compress(bytes(16 << 20), 9)
    bomb = b"\x01" + struct.pack("!I", len(packed)) + packed
    before = processor_seconds(server)
    with StalledCalls(server.port("main"), CHECK, 40, encoding="gzip", message=bomb[:16_000]):
        time.sleep(1)
    assert processor_seconds(server) - before < 1.5
    del honest


def processor_seconds(server: Server) -> float:
    """What the process took of the processors so far."""
    with open(f"/proc/{server.pid}/stat") as file:  # noqa: PTH123 - no path of ours
        used = file.read().rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / 100


def test_a_burst_is_answered_with_decisions(server: Server, honest: Honest) -> None:
    """Four thousand calls at once on one connection: each ends as a decision, none as an RPC error."""
    with grpc.insecure_channel(server.address("main"), LOCAL) as channel:
        send: Any = channel.unary_unary(f"/{ENVOY}")
        calls = [send.future(envoy_search(None), timeout=60) for _ in range(4000)]
        codes = {
            external_auth_pb2.CheckResponse.FromString(call.result()).status.code for call in calls
        }
    assert 0 not in codes
    del honest


def test_slow_connections_to_the_metrics_listener(server: Server, honest: Honest) -> None:
    """Readiness is told all the while: the honest caller's probes look at it."""
    stop = threading.Event()

    def hold() -> None:
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", server.port("metrics")), 5) as one:
                one.sendall(b"GET /readyz HTTP/1.1\r\n")
                stop.wait(1)

    with ThreadPoolExecutor(100) as pool:
        for _ in range(100):
            pool.submit(hold)
        time.sleep(4)
        stop.set()
    del honest


def test_calls_that_are_reset(server: Server, people: People, honest: Honest) -> None:
    """A caller that opens calls and resets them at once leaves nothing behind."""
    for _ in range(10):
        with StalledCalls(server.port("main"), CHECK, 500):
            pass
    eventually(
        lambda: server.metric("authz_unreceived_calls", listener="main") == 0,
        what="they are forgotten",
    )
    answer = server.call("main", CHECK, search(people.bot), timeout=DEADLINE)
    assert reason_name(decision_of(answer)) == "PERMITTED"
    del honest


def test_threads_that_hang_are_told_everywhere(
    authority: Authority, people: People, tmp_path: Path
) -> None:
    """The other listener answers on, but no probe of it says that all is well: within three seconds, and until the threads answer."""
    place = layout(tmp_path, authority, "desk")
    config = load(place.file, {}, working_folder=place.folder)
    node = Node(config, make_logger(config.log, sys.stderr))
    server = Server(place)
    stub: Any = health_pb2_grpc.HealthStub(server.channel("none"))
    gate = threading.Event()

    def health() -> int:
        status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status
        return status

    try:
        node.start()
        eventually(lambda: server.http("/readyz")[0] == 200 and health() == SERVING)
        hanging = node._parts.grpc.threads["main"]
        for _ in range(4):
            hanging.executor.submit(gate.wait, 60)
        begun = time.monotonic()
        eventually(lambda: server.http("/readyz")[0] == 503, what="readiness follows")
        eventually(lambda: health() != SERVING, what="health follows")
        assert time.monotonic() - begun < 3.5
        assert "listener `main`: calls wait longer" in server.http("/readyz")[1]
        answer = server.call("none", CHECK, search(None), metadata=own(people), timeout=DEADLINE)
        assert outcome(decision_of(answer)) == "PERMIT"
        gate.set()
        eventually(lambda: server.http("/readyz")[0] == 200 and health() == SERVING)
    finally:
        gate.set()
        server.disconnect()
        node.close()


def own(people: People) -> tuple[tuple[str, str], ...]:
    """The credential of a caller that asks about itself."""
    return (("authorization", f"Bearer {people.bot}"),)
