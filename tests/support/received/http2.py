"""Sends one request over HTTP/2 without TLS, its header fields as given (RFC 9113)."""

import contextlib
import socket
import struct
from collections.abc import Iterable
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM = _ACK = 1
_END_HEADERS = 4
#: Statuses of the static table of header fields (RFC 7541 appendix A), by index.
_STATUSES: Final = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
#: Of a status. A Huffman code (RFC 7541 appendix B) has five bits for the digits 0 to 2, which begin with 00, and six for the others.
_DIGITS: Final = 3


def send(port: int, fields: Iterable[tuple[str, str]], body: bytes, timeout: float) -> int:
    """Sends the only request of a connection.

    Args:
        port: On loopback.
        fields: Header fields, pseudo-header fields first.
        body: At most one frame long, 16 KiB.
        timeout: In seconds.

    Returns:
        The status of the answer; 0 where the stream ended without one.
    """
    block = b"".join(_literal(name, value) for name, value in fields)
    flags = _END_HEADERS | (0 if body else _END_STREAM)
    frames = _frame(_SETTINGS, 0, 0) + _frame(_HEADERS, flags, 1, block)
    if body:
        frames += _frame(_DATA, _END_STREAM, 1, body)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection,
        contextlib.suppress(ConnectionError),
        connection.makefile("rb") as stream,
    ):
        connection.sendall(_PREFACE + frames)
        while head := stream.read(9):
            payload = stream.read(int.from_bytes(head[:3]))
            kind, flags, number = struct.unpack(">BBI", head[3:])
            if kind in {_SETTINGS, _PING} and not flags & _ACK:
                connection.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            # A status below 200 says that the answer is still to come (RFC 9110 §15.2).
            if kind == _HEADERS and number == 1 and (status := _status(payload)) >= 200:
                return status
            if kind in {_RESET, _GOAWAY}:
                return 0
    return 0


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """Returns a header field that is not indexed and not compressed (RFC 7541 §6.2.2)."""
    texts = (name.encode("latin-1"), value.encode("latin-1"))
    return b"\0" + b"".join(_length(len(text)) + text for text in texts)


def _length(number: int) -> bytes:
    """Returns an integer with a prefix of seven bits (RFC 7541 §5.1)."""
    if number < 0x7F:
        return bytes([number])
    rest, encoded = number - 0x7F, b"\x7f"
    while rest >= 0x80:
        encoded += bytes([rest % 0x80 | 0x80])
        rest //= 0x80
    return encoded + bytes([rest])


def _status(block: bytes) -> int:
    """Reads `:status`, the first field of an answer: indexed as a whole, or by its name and the value as a text."""
    if block[0] & 0x80:
        return _STATUSES[block[0] & 0x7F]
    text = block[2 : 2 + (block[1] & 0x7F)]
    if not block[1] & 0x80:
        return int(text)
    bits = "".join(f"{byte:08b}" for byte in text)
    digits = ""
    while len(digits) < _DIGITS:
        is_short = bits[:2] == "00"
        digits += str(int(bits[:5], 2) if is_short else int(bits[:6], 2) - 0b011001 + 3)
        bits = bits[5 if is_short else 6 :]
    return int(digits)
