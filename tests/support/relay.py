"""A TCP relay before PostgreSQL, which may hold everything up, or leave out the notices of `LISTEN`."""

import contextlib
import socket
import threading
from typing import Self

from tests.support.waiting import free_port

_NOTIFICATION = b"A"


class Relay:
    """Takes connections on a loopback port and passes their bytes on.

    Args:
        target: Loopback port of the PostgreSQL server, which is reached without TLS.
        keeps_notices: Leaves out each `NotificationResponse` of the server, as a pooler that keeps no sessions does.
    """

    def __init__(self, target: int, *, keeps_notices: bool = False) -> None:
        self.port = free_port()
        self._target, self._keeps_notices = target, keeps_notices
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._sockets: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.set()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def hold(self) -> None:
        """Passes no byte on from now on. Connections stay open, and new ones are accepted."""
        self._flows.clear()

    def release(self) -> None:
        """Passes bytes on again."""
        self._flows.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for run, source, sink in (
                    (self._copy, client, server),
                    (self._answer if self._keeps_notices else self._copy, server, client),
                ):
                    threading.Thread(target=run, args=(source, sink), daemon=True).start()

    def _send(self, sink: socket.socket, content: bytes) -> None:
        self._flows.wait()
        sink.sendall(content)

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65_536):
                self._send(sink, content)
        _end(sink)

    def _answer(self, source: socket.socket, sink: socket.socket) -> None:
        """Passes on whole messages of the server: a byte of their kind, and their length without it."""
        with contextlib.suppress(OSError), source.makefile("rb") as reader:
            while len(head := reader.read(5)) == 5:
                body = reader.read(int.from_bytes(head[1:]) - 4)
                if head[:1] != _NOTIFICATION:
                    self._send(sink, head + body)
        _end(sink)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_WR)
