"""One request, and how its bytes are written."""

from dataclasses import dataclass
from typing import Final

Headers = tuple[tuple[str, str], ...]
JSON: Final = (("content-type", "application/json"),)
FORM: Final = (("content-type", "application/x-www-form-urlencoded"),)
MULTIPART: Final = (("content-type", "multipart/form-data; boundary=cut"),)
CHUNKED: Final = ("transfer-encoding", "chunked")
#: Of a request behind which another one stands.
KEPT: Final = ("connection", "keep-alive")
#: A transfer that is permitted.
SMALL: Final = b'{"amount":5,"to":"acme"}'


@dataclass(frozen=True)
class Request:
    """One request, as its bytes are written.

    Args:
        group: What it tries; `ordinary` where it tries nothing.
        method: Its method.
        target: Its target, as it is.
        host: Of the header `host`; None where `headers` holds it.
        headers: All others but those of the caller's credentials and the length of the body.
        body: Its body.
        is_cut: Whether the client stops sending in the middle of the body.
        is_http2: Whether it is sent over HTTP/2, where pseudo-header fields in `headers` stand in the place of those that the
            other parts give.
    """

    group: str
    method: str
    target: str
    host: str | None
    headers: Headers = ()
    body: bytes = b""
    is_cut: bool = False
    is_http2: bool = False

    @property
    def is_ordinary(self) -> bool:
        """True where it must be permitted."""
        return self.group == "ordinary"

    @property
    def is_kept(self) -> bool:
        """True where another request stands behind it, on the same connection."""
        return KEPT in self.headers

    def write(self, *more: tuple[str, str]) -> bytes:
        """Returns its bytes, with more headers."""
        names = {name.lower() for name, _ in self.headers}
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        if self.host is not None:
            lines.append(f"host: {self.host}")
        if self.body and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"content-length: {len(self.body)}")
        lines += [f"{name}: {value}" for name, value in (*self.headers, *more)]
        if not self.is_kept:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body

    def fields(self, *more: tuple[str, str]) -> list[tuple[str, str]]:
        """Returns its header fields over HTTP/2, with more of them."""
        pseudo = {":method": self.method, ":scheme": "http", ":path": self.target}
        if self.host is not None:
            pseudo[":authority"] = self.host
        given = {name for name, _ in self.headers}
        derived = [(name, value) for name, value in pseudo.items() if name not in given]
        return [*derived, *self.headers, *more]

    def __str__(self) -> str:
        headers = ", ".join(f"{name}: {value[:60]}" for name, value in self.headers)
        version = " (HTTP/2)" if self.is_http2 else ""
        return (
            f"{self.method} {self.target[:60]} {self.host}{version} [{headers}] {self.body[:90]!r}"
        )


def form(amount: str = "amount", to: str = "to") -> bytes:
    """Returns a form that pays much to a stranger."""
    return f"{amount}=5000&{to}=eve".encode()


def multipart(**fields: str) -> bytes:
    """Returns a multipart form."""
    parts = (
        f'--cut\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    return ("".join(parts) + "--cut--\r\n").encode()


def chunked(body: bytes, *sizes: int) -> bytes:
    """Returns a body in chunks of the given sizes, the rest in one."""
    pieces = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    whole = (f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in [*pieces, body] if piece)
    return b"".join(whole) + b"0\r\n\r\n"


def of_bank(body: bytes, *headers: tuple[str, str], target: str = "/transfers") -> Request:
    """Returns a request to the bank; who takes it up says its group."""
    return Request("", "POST", target, "bank.example", headers, body)


def of_crm(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> Request:
    """Returns a request to the CRM; who takes it up says its group."""
    return Request("", method, target, "crm.example", headers, body)
