"""Connections of a listener: who has too many is closed, and no socket of anybody else is touched."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from authz.server.connections import ConnectionLimit, ConnectionLimiter, connection_families

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Listening:
    """A listener in this process, that accepts what the tests connect."""

    def __init__(self, stack: ExitStack, family: int = socket.AF_INET, at: str = "") -> None:
        self.stack = stack
        self.socket = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        self.socket.bind(at or ("127.0.0.1", 0))
        self.socket.listen(64)

    def connect(self, source: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection: the caller's, and ours."""
        caller = self.stack.enter_context(socket.socket(self.socket.family, socket.SOCK_STREAM))
        if self.socket.family == socket.AF_INET:
            caller.bind((source, 0))
        caller.connect(self.socket.getsockname())
        ours, _ = self.socket.accept()
        return caller, self.stack.enter_context(ours)

    def place(self, most: int, *, close_oldest: bool = False) -> ConnectionLimit:
        """The bound of it."""
        name = self.socket.getsockname()
        address = f"unix://{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"
        return ConnectionLimit("main", address, most, close_oldest=close_oldest)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what the test opened."""
    with ExitStack() as made:
        yield made


def is_open(end: socket.socket) -> bool:
    """Whether a connection was left open."""
    end.setblocking(False)
    try:
        return end.recv(1) != b""
    except BlockingIOError:
        return True


def test_a_peer_has_half_of_what_the_others_leave(stack: ExitStack) -> None:
    """What was there first stays; the rest is closed, and counted."""
    listening = Listening(stack)
    greedy = [listening.connect("127.0.0.2")[0] for _ in range(12)]
    other, _ = listening.connect("127.0.0.3")
    place = listening.place(16)
    connections = ConnectionLimiter([place])

    assert connections.look() == 13
    assert [is_open(one) for one in greedy] == [True] * 8 + [False] * 4
    assert is_open(other)
    assert (place.opened, place.refused) == (13, {"listener": 0, "peer": 4})
    assert connections.look() == 0
    assert (place.opened, place.refused) == (9, {"listener": 0, "peer": 4})


def test_what_was_closed_makes_room(stack: ExitStack) -> None:
    """A peer that closes connections may open others."""
    listening = Listening(stack)
    ends = [listening.connect() for _ in range(8)]
    connections = ConnectionLimiter([listening.place(16)])
    connections.look()
    for caller, ours in ends:
        caller.close()
        ours.close()
    again = [listening.connect()[0] for _ in range(8)]

    connections.look()

    assert all(map(is_open, again))


def test_the_oldest_makes_room_where_connections_are_short(stack: ExitStack) -> None:
    """Of one address as well."""
    listening = Listening(stack)
    ends = [listening.connect()[0] for _ in range(6)]

    ConnectionLimiter([listening.place(4, close_oldest=True)]).look()

    assert [is_open(one) for one in ends] == [False] * 2 + [True] * 4


def test_users_of_a_unix_socket_are_told_apart(stack: ExitStack, tmp_path: Path) -> None:
    """By the kernel; all tests run as one user, which has half."""
    listening = Listening(stack, socket.AF_UNIX, str(tmp_path / "a.sock"))
    ends = [listening.connect()[0] for _ in range(10)]
    place = listening.place(16)

    ConnectionLimiter([place]).look()

    assert sum(map(is_open, ends)) == 8
    assert place.refused["peer"] == 2


def test_other_sockets_and_files_are_left_alone(stack: ExitStack, tmp_path: Path) -> None:
    """Those of other listeners, our own connections to this one, pipes and files."""
    listening, other = Listening(stack), Listening(stack)
    mine = [listening.connect()[0] for _ in range(20)]
    theirs = [other.connect()[0] for _ in range(20)]
    file = stack.enter_context((tmp_path / "x").open("wb"))
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    stack.callback(os.close, writing)
    place = listening.place(4)

    ConnectionLimiter([place]).look()

    assert sum(map(is_open, mine)) == 2
    assert all(map(is_open, theirs))
    file.write(b"x")
    os.write(writing, b"x")
    assert os.read(reading, 1) == b"x"
    assert listening.connect()[0].fileno() > 0


def test_a_descriptor_that_is_used_again_is_looked_at_anew(stack: ExitStack) -> None:
    """Its number says nothing."""
    listening, other = Listening(stack), Listening(stack)
    caller, ours = listening.connect()
    connections = ConnectionLimiter([listening.place(4)])
    connections.look()
    number = ours.fileno()
    fresh, theirs = other.connect()
    os.dup2(theirs.fileno(), number)

    connections.look()

    assert connections.places[0].opened == 0
    assert is_open(fresh)
    caller.close()


def test_metrics(stack: ExitStack) -> None:
    """Open and refused connections, by listener."""
    listening = Listening(stack)
    ends = [listening.connect() for _ in range(3)]
    connections = ConnectionLimiter([listening.place(4)])
    connections.look()

    samples = {
        (name, *labels.values()): value
        for family in connection_families(connections)
        for name, labels, value in family.samples
    }

    assert len(ends) == 3
    assert samples["authz_connections", "main"] == 3
    assert samples["authz_connections_refused_total", "main", "peer"] == 1
    assert samples["authz_connections_refused_total", "main", "listener"] == 0
