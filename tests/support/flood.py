"""A caller without credentials that floods a listener, in a process of its own: its work must not slow the test's calls.

`python -m tests.support.flood PORT KIND CONNECTIONS` reads the message of calls, in base64, from a line of its standard
input, and floods until the input ends. Then it closes its connections.
"""

import base64
import contextlib
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Self

from tests.support.stalled import PREFACE, call_headers, frame

CHECK: Final = "authz.v1.Authorizer/Check"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x6, 0x8
_END_STREAM, _END_HEADERS = 0x1, 0x4
#: Another address than that of honest callers, who are another peer.
SOURCE: Final = "127.0.0.2"


def _settings(_: bytes) -> Iterator[bytes]:
    while True:
        yield frame(_SETTINGS, 0, 0, b"") * 500


def _pings(_: bytes) -> Iterator[bytes]:
    while True:
        yield frame(_PING, 0, 0, b"12345678") * 500


def _window_updates(_: bytes) -> Iterator[bytes]:
    yield frame(_HEADERS, _END_HEADERS, 1, call_headers(CHECK))
    while True:
        yield frame(_WINDOW_UPDATE, 0, 1, (1).to_bytes(4)) * 500


def _unknown(_: bytes) -> Iterator[bytes]:
    while True:
        yield frame(0xEE, 0, 0, b"") * 500


def _slivers(_: bytes) -> Iterator[bytes]:
    yield frame(_HEADERS, _END_HEADERS, 1, call_headers(CHECK))
    while True:
        yield frame(_DATA, 0, 1, b"") * 500


def _calls(message: bytes) -> Iterator[bytes]:
    """Complete calls, as many as the connection takes."""
    block, message = call_headers(CHECK), b"\0" + len(message).to_bytes(4) + message
    for first in range(1, 1 << 30, 40):
        yield b"".join(
            frame(_HEADERS, _END_HEADERS, stream, block)
            + frame(_DATA, _END_STREAM, stream, message)
            for stream in range(first, first + 40, 2)
        )


KINDS: Final[dict[str, Callable[[bytes], Iterator[bytes]]]] = {
    "settings": _settings,
    "pings": _pings,
    "window updates": _window_updates,
    "unknown frames": _unknown,
    "empty data": _slivers,
    "calls": _calls,
}
#: Kinds of frames that HTTP/2 lets a client send without end.
UNBOUNDED: Final = [kind for kind in KINDS if kind not in ("calls", "empty data")]


class Flood:
    """A flood that runs.

    Args:
        port: Loopback port of the listener.
        kind: One of `KINDS`.
        connections: How many are open at once; one that is closed is opened again.
        message: Message of the calls, if the kind has any; answers are then read.
    """

    def __init__(self, port: int, kind: str, connections: int, message: bytes = b"") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.flood", str(port), kind, str(connections)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._message = message

    def __enter__(self) -> Self:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(base64.b64encode(self._message).decode() + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "flooding\n"
        return self

    def stop(self) -> None:
        """Closes all connections."""
        self._process.communicate(timeout=30)

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


class _Flooder:
    """One connection of a flood."""

    def __init__(self, port: int, kind: str, message: bytes) -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=5, source_address=(SOURCE, 0)
        )
        self.socket.setblocking(False)
        self._frames = KINDS[kind](message)
        self._is_read = bool(message)
        self._rest = PREFACE + frame(_SETTINGS, 0, 0, b"")

    def send(self) -> None:
        """Sends what the connection takes, a megabyte at most. Answers to calls are read and thrown away."""
        sent = 0
        if self._is_read:
            with contextlib.suppress(BlockingIOError):
                self.socket.recv(1 << 16)
        with contextlib.suppress(BlockingIOError):
            while sent < 1 << 20:
                count = self.socket.send(self._rest)
                sent += count
                self._rest = self._rest[count:] or next(self._frames)


def _flood(port: int, kind: str, connections: int) -> None:
    message = base64.b64decode(sys.stdin.buffer.readline())
    selector = selectors.DefaultSelector()

    def begin() -> None:
        with contextlib.suppress(OSError):
            flooder = _Flooder(port, kind, message)
            selector.register(flooder.socket, selectors.EVENT_WRITE, flooder)

    for _ in range(connections):
        begin()
    selector.register(sys.stdin, selectors.EVENT_READ)
    sys.stdout.write("flooding\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select(0.1):
            flooder: Any = key.data
            if flooder is None:
                return
            try:
                flooder.send()
            except OSError:
                selector.unregister(flooder.socket)
                flooder.socket.close()
                begin()
        time.sleep(0.001)


if __name__ == "__main__":
    _flood(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
