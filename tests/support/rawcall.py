"""One gRPC call over a TLS connection of Python's own, so that a test can say which session it resumes."""

import socket
import ssl
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM = ACK = 1
END_HEADERS = 4


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header field that is not indexed and not compressed (RFC 7541 section 6.2.2)."""
    assert max(len(name), len(value)) < 127
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


class TlsCall:
    """A connection to a listener.

    Args:
        port: Its port on loopback.
        context: Whom to trust, and what to show.
        session: A session of an earlier connection, to be resumed.
    """

    def __init__(
        self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket = context.wrap_socket(plain, server_hostname="localhost", session=session)
        assert self._socket.selected_alpn_protocol() == "h2"

    @property
    def is_resumed(self) -> bool:
        """Whether the server took the session up again."""
        return bool(self._socket.session_reused)

    @property
    def session(self) -> ssl.SSLSession:
        """The session, to be resumed by another connection; only after a call."""
        session = self._socket.session
        assert session is not None
        return session

    def call(self, method: str, message: bytes) -> bytes:
        """Sends the only call of this connection; returns the encoded answer."""
        headers = {
            ":method": "POST",
            ":scheme": "https",
            ":path": f"/{method}",
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        block = b"".join(_literal(name, value) for name, value in headers.items())
        prefixed = b"\0" + struct.pack(">I", len(message)) + message
        self._socket.sendall(
            PREFACE
            + _frame(SETTINGS, 0, 0)
            + _frame(HEADERS, END_HEADERS, 1, block)
            + _frame(DATA, END_STREAM, 1, prefixed)
        )
        answer = b""
        while True:
            kind, flags, stream, payload = self._receive()
            if kind == GOAWAY:
                raise ConnectionError("the server went away")
            if kind in {SETTINGS, PING} and not flags & ACK:
                self._socket.sendall(_frame(kind, ACK, 0, payload if kind == PING else b""))
            if stream == 1:
                if kind == DATA:
                    answer += payload
                if flags & END_STREAM:
                    return answer[5:]

    def _receive(self) -> tuple[int, int, int, bytes]:
        head = self._read(9)
        length = int.from_bytes(head[:3])
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream & 0x7FFFFFFF, self._read(length)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("the server closed the connection")
            data += piece
        return data

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()
