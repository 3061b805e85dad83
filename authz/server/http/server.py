"""An HTTP server on a thread of its own: bounded in connections, sizes and time; it knows who called by certificate."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from authz.config import Tls
from authz.config.addresses import host_and_port, socket_path
from authz.errors import ConfigError, UnavailableError
from authz.model import Diagnostic
from authz.server.sockets import prepare, private
from authz.server.tls_files import TlsFiles, read_tls

__all__ = ["CLIENT_CHAIN", "App", "WebServer", "WebSettings"]

CLIENT_CHAIN: Final = "client_cert_chain"
"""Key of the caller's certificates in `scope["extensions"]["tls"]`: DER, the caller's own first.

The name is that of ASGI's TLS extension, which has them in PEM.
"""

_START: Final = 10.0
_BACKLOG: Final = 128
_RELOAD: Final = 5.0
_MAX_CHAIN: Final = 10

_TOO_MANY: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\n"
    b"content-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
)

App = Callable[..., Any]
"""An ASGI application."""


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Settings of one HTTP server."""

    name: str
    """Name of the listener."""
    address: str
    """`host:port` or `unix:///path`."""
    tls: Tls | None
    """TLS. With `client_ca_file`, callers may show a certificate."""
    connections: int = 64
    """Connections at once. One more closes the oldest whose request is not complete; if all are complete: 429."""
    timeout: float = 5.0
    """Seconds that a handshake, and the head of a request, may take."""


class WebServer:
    """A bound HTTP server.

    Args:
        settings: Address, TLS and limits.
        app: The ASGI application that answers.
        closing: Called before the server stops. It ends answers that would go on.

    Raises:
        ConfigError: The address cannot be bound, or TLS cannot be served.
    """

    def __init__(
        self, settings: WebSettings, app: App, closing: Callable[[], object] | None = None
    ) -> None:
        self._settings = settings
        self._closing = closing
        self._files: TlsFiles | None = None
        self._context: ssl.SSLContext | None = None
        if settings.tls is not None:
            self._files = read_tls(settings.tls)
            self._context = _context(settings.tls, self._files)
        self._socket = _bind(settings.name, settings.address)
        config = uvicorn.Config(
            app,
            http=_protocol(settings.timeout, settings.connections),
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=2,
            server_header=False,
            proxy_headers=False,
        )
        config.load()
        config.ssl = self._context
        self._server = uvicorn.Server(config)
        # Signals belong to the main thread.
        self._thread = threading.Thread(
            target=self._run, name=f"authz-http-{settings.name}", daemon=True
        )
        if self._socket.family == socket.AF_UNIX:
            self.address = settings.address
        else:
            host, port = self._socket.getsockname()[:2]
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def name(self) -> str:
        """Name of the listener."""
        return self._settings.name

    @property
    def connections(self) -> int:
        """Connections at once."""
        return self._settings.connections

    @property
    def busy(self) -> int:
        """Number of complete requests without an answer."""
        connections = tuple(self._server.server_state.connections)
        return sum(
            1
            for connection in connections
            if isinstance(connection, _Protocol) and not connection.is_waiting
        )

    def start(self) -> None:
        """Serve; raises UnavailableError if the server does not start."""
        self._thread.start()
        deadline = time.monotonic() + _START
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise UnavailableError(f"the HTTP listener {self.address} does not start")
            time.sleep(0.01)

    def close(self) -> None:
        """Stop the server and its thread."""
        if self._closing is not None:
            self._closing()
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._socket.close()

    def _run(self) -> None:
        timeout = self._settings.timeout
        with asyncio.Runner(loop_factory=lambda: _Loop(timeout)) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        follow = asyncio.create_task(self._follow())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            follow.cancel()

    async def _follow(self) -> None:
        """Use renewed certificates. Files that are not valid leave the ones before in use."""
        if self._settings.tls is None or self._context is None:
            return
        while True:
            await asyncio.sleep(_RELOAD)
            try:
                files = await asyncio.to_thread(read_tls, self._settings.tls, self._files)
                if files != self._files:
                    # Check the pair first: a mismatch would otherwise leave half of the pair in place.
                    _context(self._settings.tls, files)
                    _load(self._context, self._settings.tls, files)
                    self._files = files
            except (ConfigError, OSError):
                continue


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers bound the time of a handshake."""

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout

    async def create_server(self, *args: Any, **named: Any) -> asyncio.Server:
        if named.get("ssl") is not None:
            named["ssl_handshake_timeout"] = self._timeout
            named["ssl_shutdown_timeout"] = self._timeout
        return await super().create_server(*args, **named)


def _protocol(timeout: float, connections: int) -> type[asyncio.Protocol]:
    class Protocol(_Protocol):
        head_timeout = timeout
        most = connections

    return Protocol


class _Protocol(H11Protocol):
    """HTTP/1.1, with the caller's certificates for the application.

    A connection without a complete head of a request in time is closed. Between requests the server's own time-out counts.

    With too many connections, the oldest is closed whose request is not complete, or that has none. A caller whose request is complete at once
    is therefore answered, however many slow callers there are.
    """

    head_timeout = 5.0
    most = 64
    _late: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        chain = _chain_of(transport.get_extra_info("ssl_object"))
        self.app = _with_chain(cast("App", self.app), chain)
        super().connection_made(transport)
        self._since = self.loop.time()
        if len(self.connections) > self.most and not self._make_room():
            transport.write(_TOO_MANY)
            transport.close()
            return
        self._await_head()

    def _make_room(self) -> bool:
        others = [
            other
            for other in self.connections
            if isinstance(other, _Protocol) and other is not self and other.is_waiting
        ]
        if not others:
            return False
        oldest = min(others, key=lambda other: other._since)  # noqa: SLF001 - of the same class
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    @property
    def is_waiting(self) -> bool:
        """Whether no answer is due: the request is not complete, or was answered."""
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def data_received(self, data: bytes) -> None:
        # Before the first request the cycle is None, although its type does not say so.
        cycle: Any = self.cycle
        if self._late is None and (cycle is None or cycle.response_complete):
            self._await_head()
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._head_came()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._late = self.loop.call_later(self.head_timeout, self._too_late)

    def _head_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.abort()


def _with_chain(app: App, chain: tuple[bytes, ...]) -> App:
    async def called(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope.setdefault("extensions", {})["tls"] = {CLIENT_CHAIN: chain}
        await app(scope, receive, send)

    return called


def _chain_of(connection: ssl.SSLObject | None) -> tuple[bytes, ...]:
    """Return the certificates that the caller showed."""
    leaf = connection.getpeercert(binary_form=True) if connection is not None else None
    if connection is None or leaf is None:
        return ()
    # Public since Python 3.13; before, a method of the wrapped object.
    of: Any = connection
    if not hasattr(of, "get_unverified_chain"):
        of = getattr(connection, "_sslobj", None)
    sent: Sequence[Any] = of.get_unverified_chain() if of is not None else ()
    chain = tuple(
        certificate
        if isinstance(certificate, bytes)
        else ssl.PEM_cert_to_DER_cert(certificate.public_bytes())
        for certificate in (sent or ())[:_MAX_CHAIN]
    )
    return chain if chain and chain[0] == leaf else (leaf,)


def _context(tls: Tls, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, tls, files)
    return context


def _load(context: ssl.SSLContext, tls: Tls, files: TlsFiles) -> None:
    """Load certificate, key and authorities. Open connections keep theirs."""
    try:
        context.load_cert_chain(tls.cert_file or "", tls.key_file)
        if files.client_ca is not None:
            context.load_verify_locations(cadata=files.client_ca.decode("ascii"))
            # A caller that only fetches keys has none. The trust domains verify a certificate.
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ValueError) as error:
        at = Diagnostic(
            f"TLS cannot be served: {error}.", fix="Give a certificate with its own key, in PEM."
        )
        raise ConfigError((at,)) from error


def _bind(name: str, address: str) -> socket.socket:
    path = socket_path(address)
    bound: socket.socket | None = None
    try:
        if path is not None:
            prepare(Path(path), name)
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with private(shared=True):
                bound.bind(path)
        else:
            host, port = host_and_port(address) or ("", 0)
            family, kind, protocol, _, target = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = socket.socket(family, kind, protocol)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(target)
        bound.listen(_BACKLOG)
    except OSError as error:
        if bound is not None:
            bound.close()
        at = Diagnostic(
            f"listener `{name}` cannot be bound to {address}: {error.strerror}.",
            fix="Is another process using it?",
        )
        raise ConfigError((at,)) from error
    return bound
