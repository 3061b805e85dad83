"""A gRPC client that begins calls and never sends their messages, byte by byte on a socket."""

import socket
import struct
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0x0, 0x1, 0x4
_END_STREAM, _END_HEADERS = 0x1, 0x4
_INITIAL_WINDOW_SIZE = 4
#: How a message begins that has a byte more than was sent.
_PART = b"\x00\x00\x00\x00\x01"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns a frame (RFC 9113 section 4.1)."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """RFC 7541 section 5.2, without Huffman coding; shorter than 127 bytes."""
    return bytes([len(value)]) + value.encode()


def call_headers(method: str) -> bytes:
    """Returns the header block of a call: `<service>/<method>`."""
    # Indexed `:method: POST` and `:scheme: http`, then literals without indexing (RFC 7541 sections 6.1, 6.2.2).
    return (
        b"\x83\x86"
        + (b"\x04" + _text("/" + method))
        + (b"\x01" + _text("localhost"))
        + (b"\x00" + _text("content-type") + _text("application/grpc"))
        + (b"\x00" + _text("te") + _text("trailers"))
    )


class StalledCalls:
    """Calls whose headers were sent, and nothing else or a part of the message.

    Args:
        port: Loopback port of the server.
        method: `<service>/<method>`.
        count: How many; a connection takes a hundred.
        part: The beginning of a message follows.
        encoding: `grpc-encoding` of the calls.
        message: A whole message follows, as it goes over the wire.
        window: Bytes that the server may send of each answer.
        source: Address that the connections come from.
    """

    def __init__(
        self,
        port: int,
        method: str,
        count: int,
        *,
        part: bool = False,
        encoding: str = "",
        message: bytes = b"",
        window: int = 65_535,
        source: str = "127.0.0.1",
    ) -> None:
        block = call_headers(method)
        if encoding:
            block += b"\x00" + _text("grpc-encoding") + _text(encoding)
        settings = struct.pack("!HI", _INITIAL_WINDOW_SIZE, window)
        self._connections: list[socket.socket] = []
        for begin in range(0, count, 100):
            connection = socket.create_connection(
                ("127.0.0.1", port), timeout=5, source_address=(source, 0)
            )
            frames = [PREFACE, frame(_SETTINGS, 0, 0, settings)]
            for number in range(min(100, count - begin)):
                stream = 2 * number + 1
                frames.append(frame(_HEADERS, _END_HEADERS, stream, block))
                if part:
                    frames.append(frame(_DATA, 0, stream, _PART))
                if message:
                    frames.append(frame(_DATA, _END_STREAM, stream, message))
            connection.sendall(b"".join(frames))
            self._connections.append(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()
