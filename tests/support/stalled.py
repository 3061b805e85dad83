"""A gRPC client that begins calls and never sends their messages, byte by byte on a socket."""

import socket
import struct
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _SETTINGS = 0x1, 0x4
_END_HEADERS = 0x4


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113 section 4.1."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """RFC 7541 section 5.2, without Huffman coding; shorter than 127 bytes."""
    return bytes([len(value)]) + value.encode()


class StalledCalls:
    """Calls whose headers were sent, and nothing else.

    Args:
        port: Loopback port of the server.
        method: `<service>/<method>`.
        count: How many; a connection takes a hundred.
    """

    def __init__(self, port: int, method: str, count: int) -> None:
        # Indexed `:method: POST` and `:scheme: http`, then literals without indexing (RFC 7541 sections 6.1, 6.2.2).
        block = (
            b"\x83\x86"
            + (b"\x04" + _text("/" + method))
            + (b"\x01" + _text("localhost"))
            + (b"\x00" + _text("content-type") + _text("application/grpc"))
            + (b"\x00" + _text("te") + _text("trailers"))
        )
        self._connections = []
        for begin in range(0, count, 100):
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            frames = [_PREFACE, _frame(_SETTINGS, 0, 0, b"")]
            frames += [
                _frame(_HEADERS, _END_HEADERS, 2 * number + 1, block)
                for number in range(min(100, count - begin))
            ]
            connection.sendall(b"".join(frames))
            self._connections.append(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()
