"""Health and reflection: they find what tools ask for, and their streams hold nothing up."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from authz.server.grpc.decisions import AUTHORIZER, ENVOY
from authz.server.grpc.health import Health, SideThreads, reflection_handler

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAMS = 4


@pytest.fixture
def channel() -> Iterator[grpc.Channel]:
    """A channel to a server that has one thread of its own, and the side threads."""
    side = SideThreads()
    health = Health((AUTHORIZER,))
    health.serving(on=True)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (*health.handlers(side), *reflection_handler((AUTHORIZER,), side))
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    server.stop(None).wait(5)
    side.close()


def find(channel: grpc.Channel, symbol: str) -> reflection_pb2.ServerReflectionResponse:
    """Ask for a symbol."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=10)
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return answer


@pytest.mark.parametrize(
    "symbol", [AUTHORIZER, f"{AUTHORIZER}.Check", f"{ENVOY}.Check", "authz.v1.Decision"]
)
def test_services_methods_and_messages_are_found(channel: grpc.Channel, symbol: str) -> None:
    """Load generators ask for a method, which the library's own pool does not find."""
    assert find(channel, symbol).file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("symbol", ["no.such", f"{AUTHORIZER}.NoSuch", "Check", ""])
def test_what_is_not_there_is_not_found(channel: grpc.Channel, symbol: str) -> None:
    """As an answer of reflection, not as a broken stream."""
    assert find(channel, symbol).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_open_streams_are_few_and_hold_up_nothing(channel: grpc.Channel) -> None:
    """Health goes on answering, and one stream too many is refused."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    stop = threading.Event()

    def idle() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        stop.wait(20)

    open_streams = [stub.ServerReflectionInfo(idle(), timeout=20) for _ in range(STREAMS)]
    for stream in open_streams:
        next(stream)

    with pytest.raises(grpc.RpcError, match="too many open streams"):
        next(stub.ServerReflectionInfo(idle(), timeout=20))
    health: Any = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service=AUTHORIZER), timeout=5)
    stop.set()

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
