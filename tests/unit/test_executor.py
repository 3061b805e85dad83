"""The executor: what does not fit its queue is shed, and `submit` never fails."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import grpc
import pytest

from authz.config import Limits
from authz.model import CallFacts, Surface
from authz.server.grpc.decisions import AUTHORIZER, ENVOY, Decisions, facts_of, last_resort
from authz.server.grpc.executor import BoundedExecutor
from authz.server.grpc.listener import options
from authz.server.grpc.receiving import Bounds, Receiver
from authz.thirdparty.envoy.service.auth.v3 import external_auth_pb2
from authz_client.v1 import authorizer_pb2, decision_pb2, reason_pb2
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent import futures


class Engine:
    """Answers with what it was asked; can be made to hold, fail or panic."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.raises: BaseException | None = None
        self.refusal_raises: BaseException | None = None
        self.seen: list[CallFacts] = []
        self.refused: list[tuple[Surface, str]] = []

    def check(self, request: bytes, facts: CallFacts) -> bytes:
        """Answer once the gate is open."""
        self.gate.wait(20)
        self.seen.append(facts)
        if self.raises is not None:
            raise self.raises
        return b"answer to " + request

    batch_check = check
    envoy_check = check

    def refusal(self, surface: Surface, reason: str) -> bytes:
        """Answer with what was refused."""
        self.refused.append((surface, reason))
        if self.refusal_raises is not None:
            raise self.refusal_raises
        return f"{surface} {reason}".encode()


class Server:
    """A grpcio server with the decision handlers on a fake engine."""

    def __init__(
        self,
        threads: int = 2,
        queue: int = 2,
        receive_timeout: float = 5.0,
        *,
        bounds: Bounds | None = None,
        failed: Callable[[BaseException], None] | None = None,
        observe: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.engine = Engine()
        self.errors: list[BaseException] = []
        tell = failed or self.errors.append
        self.executor = BoundedExecutor(threads, queue, failed=tell)
        self.receiver = Receiver(
            self.executor, bounds or Bounds(timeout=receive_timeout), failed=tell
        )
        limits = Limits(threads=threads, queue=queue)
        decisions = Decisions(self.engine, "main", self.executor, 2.0, tell, facts_of)
        self.server = grpc.server(
            cast("futures.ThreadPoolExecutor", self.receiver), options=options(limits)
        )
        for service, method, surface in (
            (AUTHORIZER, "Check", Surface.CHECK),
            (AUTHORIZER, "BatchCheck", Surface.BATCH_CHECK),
            (ENVOY, "Check", Surface.EXT_AUTHZ),
        ):
            handlers = {method: decisions.handler(surface, observe)}
            self.server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, handlers),)
            )
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.address = f"127.0.0.1:{port}"
        self.channel = grpc.insecure_channel(self.address)

    def ask(
        self, request: bytes = b"x", method: str = f"/{AUTHORIZER}/Check"
    ) -> grpc.Future[bytes]:
        """Ask without waiting."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(method)
        return cast("grpc.Future[bytes]", call.future(request, timeout=15))

    def close(self) -> None:
        """Take it down."""
        self.engine.gate.set()
        self.channel.close()
        self.server.stop(None).wait(5)
        self.receiver.shutdown()
        self.executor.shutdown()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server with two threads and room for two calls."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def patient_server() -> Iterator[Server]:
    """A server that gives a busy machine the time to receive every message."""
    made = Server(receive_timeout=60.0)
    yield made
    made.close()


def test_a_full_queue_answers_a_denial_and_never_an_rpc_error(server: Server) -> None:
    """Two calls run, two wait, ten more are refused at once while those hold: every RPC is OK."""
    server.engine.gate.clear()
    held = [server.ask(b"held") for _ in range(2)]
    eventually(lambda: server.executor.depth == 0 and len(server.executor.busy) == 2)
    held += [server.ask(b"held") for _ in range(2)]
    eventually(lambda: server.executor.depth == 2)

    shed = [server.ask(b"shed").result(timeout=10) for _ in range(10)]

    assert shed == [b"check OVERLOADED"] * 10
    server.engine.gate.set()
    assert [call.result(timeout=10) for call in held] == [b"answer to held"] * 4
    assert server.executor.shed == 10


@pytest.mark.slow
def test_saturation_from_many_connections_yields_only_ok_answers(patient_server: Server) -> None:
    """Eight thousand calls at once on two threads: each is answered, judged or refused, none fails.

    By default grpcio's transport cancels some of them before any handler sees them.
    """
    server = patient_server
    local = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(server.address, local) for _ in range(16)]
    for channel in channels:
        grpc.channel_ready_future(channel).result(timeout=10)
    methods: list[grpc.UnaryUnaryMultiCallable[bytes, bytes]]
    methods = [channel.unary_unary(f"/{ENVOY}/Check") for channel in channels]

    calls = [method.future(b"x", timeout=50) for _ in range(500) for method in methods]
    answers = [call.result(timeout=50) for call in calls]

    assert set(answers) == {b"answer to x", b"ext_authz OVERLOADED"}
    assert server.executor.shed == answers.count(b"ext_authz OVERLOADED")
    for channel in channels:
        channel.close()


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), MemoryError(), SystemExit(1), BaseException()]
)
def test_an_exception_in_the_engine_is_a_denial(server: Server, error: BaseException) -> None:
    """Also one that is no Exception, as a panic of the extension is."""
    server.engine.raises = error

    assert server.ask().result(timeout=10) == b"check UNAVAILABLE"
    assert [error] == server.errors


@pytest.mark.parametrize(
    "surface", [Surface.CHECK, Surface.BATCH_CHECK, Surface.EXT_AUTHZ], ids=lambda one: one.value
)
def test_when_even_the_refusal_fails_ready_bytes_deny(server: Server, surface: Surface) -> None:
    """The last resort does not need the engine."""
    server.engine.raises = server.engine.refusal_raises = RuntimeError("x")
    method = {
        Surface.CHECK: f"/{AUTHORIZER}/Check",
        Surface.BATCH_CHECK: f"/{AUTHORIZER}/BatchCheck",
        Surface.EXT_AUTHZ: f"/{ENVOY}/Check",
    }[surface]

    assert last_resort(surface) == server.ask(method=method).result(timeout=10)


def test_a_log_or_metric_that_fails_does_not_change_the_answer() -> None:
    """A closed standard error must not turn denials into RPC errors."""

    def fail(_: object) -> None:
        raise BrokenPipeError

    server = Server(failed=fail, observe=fail)
    try:
        assert server.ask().result(timeout=10) == b"answer to x"
        server.engine.raises = RuntimeError("x")
        assert server.ask().result(timeout=10) == b"check UNAVAILABLE"
        server.engine.refusal_raises = RuntimeError("y")
        assert server.ask().result(timeout=10) == last_resort(Surface.CHECK)
    finally:
        server.close()


def test_a_thread_outlives_a_job_and_a_log_that_fail() -> None:
    """Otherwise a few bad calls would end the pool."""

    def fail(*_: object) -> None:
        raise BrokenPipeError

    executor = BoundedExecutor(1, 8, failed=fail)
    done = threading.Event()
    executor.submit(fail)
    executor.submit(lambda: None).add_done_callback(fail)
    executor.submit(done.set)

    assert done.wait(60)
    executor.shutdown()


def test_the_last_resort_denies_on_every_surface() -> None:
    """Its bytes are a DENY, and for Envoy a non-zero status with 503."""
    single = decision_pb2.CheckResponse.FromString(last_resort(Surface.CHECK)).decision
    batch = authorizer_pb2.BatchCheckResponse.FromString(last_resort(Surface.BATCH_CHECK))
    envoy = external_auth_pb2.CheckResponse.FromString(last_resort(Surface.EXT_AUTHZ))

    for decision in (single, *batch.decisions):
        assert decision.outcome == decision_pb2.OUTCOME_DENY
        assert decision.reason_code == reason_pb2.REASON_CODE_UNAVAILABLE
    assert len(batch.decisions) == 1
    assert envoy.status.code == 14
    assert envoy.denied_response.status.code == 503
    assert not envoy.HasField("ok_response")


def test_the_engine_gets_what_the_transport_knows(server: Server) -> None:
    """Listener, deadline, trace context and authorization; two authorizations are joined, not chosen from."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    call = server.channel.unary_unary(f"/{AUTHORIZER}/Check")

    call(
        b"x",
        timeout=7,
        metadata=(
            ("traceparent", "00-a-b-01"),
            ("tracestate", "x=1"),
            ("authorization", "one"),
            ("authorization", "two"),
        ),
    )

    (facts,) = server.engine.seen
    assert facts.listener == "main"
    assert facts.remaining is not None
    # On the wire grpc rounds it up by a few milliseconds.
    assert 0 < facts.remaining <= 7.1
    assert facts.traceparent == "00-a-b-01"
    assert facts.tracestate == "x=1"
    assert facts.authorization == "one,two"


def test_a_call_without_a_deadline_gets_the_default(server: Server) -> None:
    """What it waited is taken off."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
    call = server.channel.unary_unary(f"/{AUTHORIZER}/Check")

    call(b"x")

    (facts,) = server.engine.seen
    assert facts.remaining is not None
    assert 1.5 < facts.remaining <= 2.0


def test_submit_after_shutdown_does_not_raise() -> None:
    """Grpcio's polling thread would die of it."""
    executor = BoundedExecutor(1, 1)
    executor.shutdown()

    executor.submit(lambda: None)


def test_a_callback_of_a_finished_job_is_called_at_once() -> None:
    """However late grpcio adds it."""
    executor = BoundedExecutor(1, 1)
    done: list[object] = []
    job = executor.submit(lambda: None)
    executor.shutdown()

    job.add_done_callback(done.append)

    assert [job] == done
