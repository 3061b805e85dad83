"""Fetches one document over HTTPS, by GET or by posting a form, or posts a body: bounded in time and size, from checked addresses only.

httpcore2 speaks HTTP. Its sockets are replaced, because three limits must hold below HTTP:

* The address that was checked is the address that is connected to. A second answer of the resolver changes nothing.
* Every received byte counts: of TLS, of interim answers (1xx), headers, chunk extensions and trailers, too. A library skips
  them, so that a server could send them without end.
* Every step ends by one deadline.

Redirects are not followed, and the proxies of the environment are not used: httpcore2 knows neither.
"""

import contextlib
import functools
import ipaddress
import re
import select
import socket
import ssl
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import httpcore2

from authz.config.urls import url_defect
from authz.files import read_authorities, reason_of
from authz.trust.addresses import Reach, refusal

__all__ = [
    "Document",
    "FetchError",
    "FetchRequest",
    "Fetcher",
    "Post",
    "ServerVerifier",
    "WebVerifier",
]

_CHUNK: Final = 65_536
# Bytes for the TLS handshake, headers and framing, beside an eighth of the document.
_AROUND: Final = 262_144
_MAX_ADDRESSES: Final = 8
_OK: Final = range(200, 201)
_SUCCESS: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])(?:max-age|s-maxage)\s*=\s*\"?(\d{1,9})\"?\s*(?:$|,)")
_Result = TypeVar("_Result")
_FRESH_AT_MOST: Final = re.compile(r"(?:^|[,\s])(?:no-cache|no-store)\s*(?:$|[,=])")


class FetchError(Exception):
    """A document could not be fetched. The message says why, without a byte of the document.

    Args:
        message: The reason.
        status: Status of the answer. `None`: there was none.
        retry_after: Seconds after which the server wants to be asked again (RFC 9110 §10.2.3). `None`: it does not say.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ServerVerifier(Protocol):
    """Verifies the server of a URL."""

    def context(self) -> ssl.SSLContext:
        """Return the context of the TLS handshake; raises FetchError where it cannot be made."""

    def check(self, certificate: bytes) -> None:
        """Check the server's own certificate after the handshake; raises FetchError to refuse it."""


@dataclass(frozen=True, slots=True)
class WebVerifier:
    """Verifies a server by the host name in its URL and a public or configured authority."""

    ca_file: str | None = None
    """Authorities, PEM. `None`: those of the system."""

    def context(self) -> ssl.SSLContext:
        """Return the context; raises FetchError if `ca_file` cannot be read."""
        try:
            authorities = None if self.ca_file is None else read_authorities(self.ca_file)
            context = ssl.create_default_context(cadata=authorities)
        except (OSError, ValueError) as error:
            reason = reason_of(error)
            raise FetchError(f"`ca_file` {self.ca_file} cannot be read: {reason}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def check(self, certificate: bytes) -> None:
        """Accept the certificate: the handshake has verified it."""


@dataclass(frozen=True, slots=True)
class Post:
    """A body that is sent, by POST or another method. Every status of success (2xx) is an answer."""

    body: bytes = field(repr=False)
    """The body."""
    content_type: str
    """Its media type."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Further headers."""
    method: str = "POST"
    """Method."""


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A document to fetch, and its rules."""

    url: str
    """URL of the document."""
    reach: Reach = field(default_factory=Reach)
    """Addresses that may be asked."""
    tls: ServerVerifier = field(default_factory=WebVerifier)
    """Verifies the server."""
    timeout: float = 10.0
    """Seconds for the whole fetch."""
    max_bytes: int = 1_048_576
    """Largest document. Headers and framing may take 256 KiB and an eighth of this, in addition."""
    accept: str = "application/json, application/jwk-set+json"
    """Media types of the document."""
    form: bytes | None = field(default=None, repr=False)
    """Encoded form that is sent by POST. `None`: GET."""
    authorization: str | None = field(default=None, repr=False)
    """`authorization` header. `None`: none is sent."""
    post: Post | None = field(default=None, repr=False)
    """Body of another type than a form. `None`: GET, or `form`."""
    also_accepts: frozenset[int] = frozenset()
    """Statuses of errors whose document is an answer, too, for example 400 of a token endpoint (RFC 6749 §5.2)."""


@dataclass(frozen=True, slots=True)
class Document:
    """A fetched document."""

    text: str
    """The text."""
    fresh_for: float | None = None
    """Seconds for which its source calls it fresh. `None`: the source does not say."""
    status: int = 200
    """Status of the answer."""
    body: bytes = field(default=b"", repr=False)
    """The bytes of an answer to a posted body."""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the system's order; raises OSError where there are none."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(entry[4][0]) for entry in entries]


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches documents."""

    resolve: Callable[[str, int], Sequence[str]] = resolve
    """Returns the addresses of a host."""
    clock: Callable[[], float] = time.monotonic
    """Monotonic clock, in seconds."""

    def get(self, request: FetchRequest) -> Document:
        """Fetch a document; raises FetchError where the rules do not permit it, or it cannot be reached."""
        url = request.url
        if defect := url_defect(url, plain=request.reach.loopback_only):
            raise FetchError(f"its URL {defect}")
        deadline = self.clock() + request.timeout
        network = _Network(request, deadline, self.clock, self.resolve)
        limits = dict.fromkeys(("connect", "read", "write", "pool"), request.timeout)
        content = request.form if request.post is None else request.post.body
        context = request.tls.context() if url.startswith("https:") else None
        try:
            with (
                httpcore2.ConnectionPool(ssl_context=context, network_backend=network) as pool,
                pool.stream(
                    _method(request),
                    url,
                    headers=_headers(request),
                    content=content,
                    extensions={"timeout": limits},
                ) as response,
            ):
                head = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in response.headers
                }
                status = response.status
                accepted = _OK if request.post is None else _SUCCESS
                _check_head(status, head, {*accepted, *request.also_accepts})
                body = _read(response.iter_stream(), request.max_bytes, deadline, self.clock)
        except FetchError:
            raise
        except httpcore2.TimeoutException as error:
            raise FetchError(f"no answer within {request.timeout:g} s") from error
        except httpcore2.ProtocolError as error:
            raise FetchError(f"its answer is not valid HTTP: {_cause(error)}") from error
        except (httpcore2.NetworkError, OSError, ssl.SSLError) as error:
            raise FetchError(f"it cannot be reached: {_cause(error)}") from error
        try:
            if request.post is not None:
                return Document("", None, status, body)
            return Document(body.decode(), _fresh_for(head), status)
        except UnicodeDecodeError as error:
            raise FetchError("the answer is not UTF-8") from error


def _method(request: FetchRequest) -> str:
    if request.post is not None:
        return request.post.method
    return "GET" if request.form is None else "POST"


def _headers(request: FetchRequest) -> list[tuple[str, str]]:
    headers = [
        ("host", urlsplit(request.url).netloc),
        ("accept", request.accept),
        ("accept-encoding", "identity"),
        ("user-agent", "authz"),
    ]
    if request.form is not None:
        headers.append(("content-type", "application/x-www-form-urlencoded"))
        headers.append(("content-length", str(len(request.form))))
    if request.post is not None:
        headers.append(("content-type", request.post.content_type))
        headers.append(("content-length", str(len(request.post.body))))
        headers.extend(request.post.headers)
    if request.authorization is not None:
        headers.append(("authorization", request.authorization))
    return headers


def _check_head(status: int, headers: dict[str, str], accepted: Container[int]) -> None:
    if status in _REDIRECTS:
        raise FetchError(
            f"it answers {status}: redirects are not followed, give the URL that it leads to",
            status,
        )
    if status not in accepted:
        raise FetchError(f"it answers {status}", status, _retry_after(headers))
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchError("the answer is compressed, which was not asked for")


def _read(chunks: Iterable[bytes], most: int, deadline: float, clock: Callable[[], float]) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > most:
            raise FetchError(f"the answer is larger than {most >> 20} MiB")
        if clock() > deadline:
            raise FetchError("the answer did not end in time")
    return bytes(body)


def _fresh_for(headers: dict[str, str]) -> float | None:
    cache_control = headers.get("cache-control", "").lower()
    if _FRESH_AT_MOST.search(cache_control):
        return 0.0
    max_age = _MAX_AGE.search(cache_control)
    if max_age is None:
        return None
    age = headers.get("age", "").strip()
    spent = int(age) if age.isascii() and age.isdigit() and len(age) < 10 else 0
    return float(max(0, int(max_age[1]) - spent))


def _retry_after(headers: dict[str, str]) -> float | None:
    """Return the seconds of `retry-after`; its other form, a date, is for people."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _cause(error: BaseException) -> str:
    """Return the innermost cause in one line of at most 200 characters."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"[:200]
    strerror = error.strerror if isinstance(error, OSError) else None
    return " ".join((strerror or str(error) or type(error).__name__).split())[:200]


class _Network(httpcore2.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(
        self,
        request: FetchRequest,
        deadline: float,
        clock: Callable[[], float],
        resolve: Callable[[str, int], Sequence[str]],
    ) -> None:
        self._request = request
        self._deadline = deadline
        self._clock = clock
        self._resolve = resolve
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            addresses = list(self._resolve(host, port))
        except OSError as error:
            raise FetchError(f"its host has no address: {_cause(error)}") from error
        refused: list[str] = []
        last: Exception | None = None
        for text in addresses[:_MAX_ADDRESSES]:
            try:
                why = refusal(ipaddress.ip_address(text), self._request.reach)
            except ValueError:
                why = "no address"
            if why is not None:
                refused.append(f"{text} is {why}")
                continue
            try:
                stream = self._inner.connect_tcp(
                    text,
                    port,
                    timeout=self._left(timeout),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
                continue
            most = self._request.max_bytes
            return _Stream(stream, self._left, most + most // 8 + _AROUND, self._request.tls)
        if last is not None:
            raise last
        if refused:
            raise FetchError(
                f"its address may not be asked: {'; '.join(refused)}; `allow_private` can permit it"
            )
        raise FetchError("its host has no address")

    def _left(self, timeout: float | None) -> float:
        left = self._deadline - self._clock()
        if left <= 0:
            raise FetchError(f"no answer within {self._request.timeout:g} s")
        return left if timeout is None else min(timeout, left)


class _Stream(httpcore2.NetworkStream):
    """A connection with one deadline for all steps and one bound for all received bytes."""

    def __init__(
        self,
        inner: httpcore2.NetworkStream,
        left: Callable[[float | None], float],
        most: int,
        tls: ServerVerifier,
    ) -> None:
        self._inner = inner
        self._left = left
        self._most = most
        self._received = 0
        self._tls = tls

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        received = self._inner.read(min(max_bytes, _CHUNK), self._left(timeout))
        self._received += len(received)
        if self._received > self._most:
            raise FetchError(
                f"the answer, with its headers and all that surrounds the document, is larger than {self._most} bytes"
            )
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        stream = _TlsStream(self, ssl_context, server_hostname)
        try:
            stream.shake_hands(timeout)
            self._tls.check(stream.certificate())
        except BaseException:
            stream.close()
            raise
        return stream

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _TlsStream(httpcore2.NetworkStream):
    """TLS over a stream that counts. A socket of `ssl` would read records itself, uncounted and without end."""

    def __init__(
        self, plain: _Stream, context: ssl.SSLContext, server_hostname: str | None
    ) -> None:
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )

    def shake_hands(self, timeout: float | None) -> None:
        self._run(self._object.do_handshake, timeout)

    def certificate(self) -> bytes:
        """Return the server's own certificate, DER."""
        return self._object.getpeercert(binary_form=True) or b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._run(lambda: self._object.read(max_bytes), timeout)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            # Many servers close without a close_notify; sockets of `ssl` accept this, too.
            return b""

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        while buffer:
            written = self._run(functools.partial(self._object.write, buffer), timeout)
            buffer = buffer[written:]

    def close(self) -> None:
        self._plain.close()

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":
                return self._object
            case "is_readable":
                held = self._object.pending() or self._incoming.pending
                return bool(held) or _is_readable(self._plain.get_extra_info("socket"))
        return self._plain.get_extra_info(info)

    def _run(self, step: Callable[[], _Result], timeout: float | None) -> _Result:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                # Send the alert, so that the server knows why.
                with contextlib.suppress(httpcore2.NetworkError, httpcore2.TimeoutException):
                    self._flush(timeout)
                raise
            else:
                self._flush(timeout)
                return result
            self._flush(timeout)
            received = self._plain.read(_CHUNK, timeout)
            if received:
                self._incoming.write(received)
            else:
                self._incoming.write_eof()

    def _flush(self, timeout: float | None) -> None:
        if waiting := self._outgoing.read():
            self._plain.write(waiting, timeout)


def _is_readable(connection: socket.socket) -> bool:
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(0))
