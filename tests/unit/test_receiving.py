"""The receiver: a call whose message has not come holds no thread, is bounded, and ends with a named refusal."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from authz.server.grpc.decisions import AUTHORIZER
from authz.server.grpc.peers import has_share, peer_of_address
from authz.server.grpc.receiving import Bounds
from tests.support.stalled import StalledCalls
from tests.support.waiting import eventually
from tests.unit.test_executor import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECK = f"{AUTHORIZER}/Check"


def started(stack: ExitStack, *, calls: int = 8, timeout: float = 20.0) -> Server:
    """A server with one thread."""
    server = Server(threads=1, queue=8, bounds=Bounds(calls, timeout))
    stack.callback(server.close)
    return server


def stalled(stack: ExitStack, server: Server, count: int, **more: Any) -> StalledCalls:
    """Calls to it that never end."""
    port = int(server.address.rpartition(":")[2])
    return stack.enter_context(StalledCalls(port, CHECK, count, part=True, **more))


def test_unfinished_calls_hold_no_thread() -> None:
    """The only thread answers others while four receipts are under way."""
    with ExitStack() as stack:
        server = started(stack)
        stalled(stack, server, 3)
        eventually(lambda: server.receiver.unreceived == 3)

        assert server.ask().result(timeout=10) == b"answer to x"
        assert server.receiver.unreceived == 3
        eventually(lambda: not server.executor.busy)


def test_a_call_that_sends_no_message_in_time_is_refused_by_name() -> None:
    """A decision method answers a denial; the time counts from the arrival, also for those that waited."""
    with ExitStack() as stack:
        server = started(stack, timeout=0.3)
        stop = threading.Event()
        stack.callback(stop.set)

        def nothing() -> Iterator[bytes]:
            stop.wait(20)
            yield from ()

        stream: Any = server.channel.stream_unary(f"/{CHECK}")
        assert stream(nothing(), timeout=20) == b"check DEADLINE"
        assert server.receiver.refused("DEADLINE") == 1
        assert server.receiver.unreceived == 0
        # Nothing was asked of the engine.
        assert server.engine.seen == []


def test_receipts_give_way_to_calls_that_wait() -> None:
    """Forty calls never end, and a fresh one of the same address is answered; those that held a place are OVERLOADED."""
    with ExitStack() as stack:
        server = started(stack)
        stalled(stack, server, 40)
        eventually(lambda: server.receiver.unreceived > 8)

        assert server.ask().result(timeout=10) == b"answer to x"
        eventually(lambda: server.receiver.refused("OVERLOADED") > 8)
        assert server.receiver.refused("DEADLINE") == 0


def test_another_peer_finds_room_at_once() -> None:
    """One peer has half of what the others leave, and its calls that wait do not matter to others."""
    with ExitStack() as stack:
        server = started(stack, calls=64)
        stalled(stack, server, 300, source="127.0.0.2")
        eventually(lambda: server.receiver.unreceived > 64)

        assert server.ask().result(timeout=10) == b"answer to x"


def test_calls_that_were_cancelled_are_forgotten() -> None:
    """Those under way, and those that wait."""
    with ExitStack() as stack:
        server = started(stack)
        held = stalled(stack, server, 40)
        eventually(lambda: server.receiver.unreceived > 8)
        held.__exit__()

        eventually(lambda: server.receiver.unreceived == 0)
        assert server.ask().result(timeout=10) == b"answer to x"
        assert server.errors == []


def test_a_call_that_ends_without_a_message() -> None:
    """UNIMPLEMENTED, as grpcio itself says."""
    with ExitStack() as stack:
        server = started(stack)
        stream: Any = server.channel.stream_unary(f"/{CHECK}")

        with pytest.raises(grpc.RpcError) as raised:
            stream(iter(()), timeout=10)

        call: Any = raised.value
        assert call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert server.receiver.unreceived == 0


def test_a_compressed_call_is_not_unpacked() -> None:
    """UNIMPLEMENTED, before any thread of ours sees it."""
    with ExitStack() as stack:
        server = started(stack)
        channel = stack.enter_context(
            grpc.insecure_channel(server.address, compression=grpc.Compression.Gzip)
        )
        send: Any = channel.unary_unary(f"/{CHECK}")

        with pytest.raises(grpc.RpcError) as raised:
            send(bytes(1 << 20), timeout=10)

        call: Any = raised.value
        assert call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert server.engine.seen == []


def test_an_answer_that_is_not_taken_is_given_up() -> None:
    """A caller that reads nothing keeps no answers in memory; others take theirs."""
    with ExitStack() as stack:
        server = started(stack, timeout=0.3)
        port = int(server.address.rpartition(":")[2])
        calls = StalledCalls(port, CHECK, 4, message=b"\x00\x00\x00\x00\x01x", window=0)
        stack.enter_context(calls)

        eventually(lambda: server.receiver.untaken == 4)

        assert len(server.engine.seen) == 4
        assert server.ask().result(timeout=10) == b"answer to x"
        eventually(lambda: server.receiver.open == 0)
        assert server.receiver.untaken == 4


def test_a_refusal_that_is_not_taken_ends_the_call_at_once() -> None:
    """Otherwise its caller could go on sending, 16 MiB a call, for as long as an answer may wait."""
    with ExitStack() as stack:
        server = started(stack, timeout=60)
        stalled(stack, server, 40, window=0)

        eventually(lambda: server.receiver.untaken > 30)

        assert server.receiver.refused("OVERLOADED") > 30
        assert server.receiver.refused("DEADLINE") == 0
        eventually(lambda: server.receiver.open == server.receiver.unreceived)


@pytest.mark.parametrize(
    ("mine", "everybody", "may"),
    [
        (0, 0, True),
        (31, 31, True),
        (32, 32, False),
        (15, 47, True),
        (16, 48, False),
        (0, 63, False),
    ],
)
def test_a_peer_has_half_of_what_the_others_leave(mine: int, everybody: int, *, may: bool) -> None:
    """Of 64: 32 for the first, 16 for the second, and so on."""
    assert has_share(mine, everybody, 64) is may


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("ipv4:192.0.2.1:4711", "192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::/64"),
        ("ipv6:[2001:db8:0:1::7]:1", "2001:db8:0:1::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:4711", "192.0.2.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::/64"),
        ("unix:", "unix"),
        ("unix:/run/x.sock", "unix"),
        ("ipv4:nonsense", "ipv4"),
        ("", ""),
    ],
)
def test_peers_by_address(address: str, peer: str) -> None:
    """IPv4 by its address, IPv6 by its network, a socket as one."""
    assert peer_of_address(address) == peer
