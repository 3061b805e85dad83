"""The upstream of Envoy: gives each request, byte for byte, to every framework."""

import http.client
import json
import socket
import socketserver
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Final, Self

#: Names the request that a test sent, so that what came of it can be told apart.
TAG: Final = "x-case"
_TIMEOUT = 30


@dataclass(frozen=True)
class Arrival:
    """One request as it came from Envoy.

    Args:
        raw: Its bytes.
        headers: Names in lower case and values, in their order.
        understood: By framework: what it answered, or None where it refused the request.
    """

    raw: bytes
    headers: tuple[tuple[str, str], ...]
    understood: Mapping[str, dict[str, Any] | None]

    def header(self, name: str) -> list[str]:
        """Returns every value of a header."""
        return [value for key, value in self.headers if key == name]


class Fanout:
    """An HTTP server on an ephemeral loopback port.

    Args:
        ports: Of the frameworks.
    """

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports
        self._arrivals: defaultdict[str, list[Arrival]] = defaultdict(list)
        self._lock = threading.Lock()
        fanout = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while request := _read(self.rfile):
                    fanout.take(*request)
                    self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def arrivals(self, tag: str) -> list[Arrival]:
        """Returns the requests of a tag; those without one are under the empty tag."""
        with self._lock:
            return list(self._arrivals.get(tag, []))

    def tags(self) -> set[str]:
        """Returns every tag that came."""
        with self._lock:
            return set(self._arrivals)

    def take(self, raw: bytes, headers: tuple[tuple[str, str], ...]) -> Arrival:
        """Gives a request to every framework, and keeps what came of it."""
        method = raw.partition(b" ")[0].decode("latin-1")
        understood = {name: ask(port, method, raw) for name, port in self._ports.items()}
        arrival = Arrival(raw, headers, understood)
        tags = arrival.header(TAG)
        with self._lock:
            self._arrivals[tags[0] if tags else ""].append(arrival)
        return arrival


def ask(port: int, method: str, raw: bytes) -> dict[str, Any] | None:
    """Sends a request to a framework; returns what it understood, or None where it refused the request."""
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as connection:
        connection.sendall(raw)
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        body = answer.read()
    if answer.status != 200:
        return None
    understood: dict[str, Any] = json.loads(body)
    return understood


def _read(stream: BufferedIOBase) -> tuple[bytes, tuple[tuple[str, str], ...]] | None:
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            return None
        raw += line
    lines = raw.decode("latin-1").split("\r\n")[1:-2]
    headers = tuple(
        (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
    )
    named = dict(headers)
    if "chunked" in named.get("transfer-encoding", ""):
        return raw + _chunks(stream), headers
    return raw + stream.read(int(named.get("content-length", 0))), headers


def _chunks(stream: BufferedIOBase) -> bytes:
    raw = b""
    while True:
        line = stream.readline()
        raw += line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            while (line := stream.readline()).strip():
                raw += line
            return raw + line
        raw += stream.read(size + 2)
