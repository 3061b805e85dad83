"""One call to a node, over gRPC: raw bytes, a deadline, no retries of the transport's own."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar, cast, final, runtime_checkable
from weakref import WeakKeyDictionary

import grpc
import grpc.aio

from authz_client.base_errors import UsageError
from authz_client.errors import TransportError, Unavailable

__all__ = ["GrpcTransport", "StreamTransport", "Tls", "Transport"]

_DETAILS: Final = "grpc-status-details-bin"
_LOOK_SECONDS: Final = 1.0
_RETIRED_SECONDS: Final = 60.0

AnyChannel = TypeVar("AnyChannel")


class Transport(Protocol):
    """Carries encoded messages to a node, or to a test double."""

    def call(self, method: str, request: bytes, timeout: float) -> bytes:
        """Call on this thread.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            timeout: Seconds until the answer counts no more.

        Returns:
            The encoded answer.

        Raises:
            TransportError: The call failed, or no answer arrived in time.
        """

    async def acall(self, method: str, request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - it travels
        """Call without blocking the event loop.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            timeout: Seconds until the answer counts no more.

        Returns:
            The encoded answer.

        Raises:
            TransportError: The call failed, or no answer arrived in time.
        """

    def close(self) -> None:
        """Close the connections that belong to no event loop."""

    async def aclose(self) -> None:
        """Close all connections."""


@runtime_checkable
class StreamTransport(Transport, Protocol):
    """A transport that also carries streams of answers. Without streams, a client that waits asks again and again."""

    def listen(
        self, method: str, request: bytes, timeout: float, is_enough: Callable[[bytes], bool]
    ) -> bytes:
        """Read a stream on this thread.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            timeout: Seconds until the stream counts no more.
            is_enough: Tells whether a response ends the wait.

        Returns:
            The first response that is enough.

        Raises:
            TransportError: The stream ended before.
        """

    async def alisten(
        self,
        method: str,
        request: bytes,
        timeout: float,  # noqa: ASYNC109 - it travels
        is_enough: Callable[[bytes], bool],
    ) -> bytes:
        """Read a stream without blocking the event loop.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            timeout: Seconds until the stream counts no more.
            is_enough: Tells whether a response ends the wait.

        Returns:
            The first response that is enough.

        Raises:
            TransportError: The stream ended before.
        """


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards a node; the files are read again when they change."""

    ca: str | Path | None = None
    """CA certificates for the node's certificate, PEM. Default: those of the system."""
    certificate: str | Path | None = None
    """The client's certificate chain, PEM, for example an X.509-SVID."""
    key: str | Path | None = None
    """Its private key, PEM."""
    server_name: str | None = None
    """The name in the node's certificate, where it is not the host of the address."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file."""
        named = (self.ca, self.certificate, self.key)
        return tuple(Path(file) for file in named if file is not None)

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Returns:
            The settings of a channel.

        Raises:
            Unavailable: One cannot be read.
        """

        def read(file: str | Path | None) -> bytes | None:
            return Path(file).read_bytes() if file is not None else None

        try:
            return grpc.ssl_channel_credentials(
                read(self.ca), read(self.key), read(self.certificate)
            )
        except OSError as error:
            what = f"{error.filename} cannot be read: {error.strerror}"
            raise Unavailable.of(what) from error


@dataclass(slots=True)
class _Open(Generic[AnyChannel]):
    """A channel, and the state of the files that it was made of."""

    channel: AnyChannel
    state: tuple[tuple[int, int, int], ...]
    looked: float
    methods: dict[str, Any] = field(default_factory=dict)
    """Callables by method; making one takes longer than calling it."""

    def method(self, name: str) -> Any:
        """Return the callable of a method of the channel."""
        known = self.methods.get(name)
        if known is None:
            channel: Any = self.channel
            known = self.methods[name] = channel.unary_unary(f"/{name}")
        return known


def _state(files: Sequence[Path]) -> tuple[tuple[int, int, int], ...]:
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise Unavailable.of(f"{error.filename} cannot be read: {error.strerror}") from error
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


@final
class GrpcTransport:
    """Calls a node over gRPC.

    Args:
        address: `host:port` or `unix:///path`.
        tls: TLS settings. Default: plain text, for unix sockets and development.

    Raises:
        UsageError: A certificate without its key, or the other way round.
    """

    def __init__(self, address: str, tls: Tls | None = None) -> None:
        if tls is not None and (tls.certificate is None) != (tls.key is None):
            raise UsageError("TLS: a certificate needs its key, and a key its certificate")
        self._target = address.replace("unix://", "unix:", 1)
        self._tls = tls
        # The node says whether a call may be made again, not a service configuration.
        self._options: list[tuple[str, Any]] = [
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config_disable_resolution", 1),
        ]
        if tls is not None and tls.server_name is not None:
            self._options.append(("grpc.ssl_target_name_override", tls.server_name))
        elif self._target.startswith("unix:"):
            # grpcio would send the socket's path, which HTTP/2 servers that check the authority refuse.
            self._options.append(("grpc.default_authority", "localhost"))
        self._lock = threading.Lock()
        self._sync: _Open[grpc.Channel] | None = None
        self._retired: list[tuple[float, grpc.Channel]] = []
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Open[grpc.aio.Channel]] = (
            WeakKeyDictionary()
        )

    # --- sync

    def call(self, method: str, request: bytes, timeout: float) -> bytes:
        """Call on this thread.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            timeout: Seconds until the answer counts no more.

        Returns:
            The encoded answer.

        Raises:
            TransportError: The call failed, or no answer arrived in time.
        """
        send = self._channel().method(method)
        with _call_errors(closed=ValueError):
            answer: bytes = send(request, timeout=timeout)
        return answer

    def listen(
        self, method: str, request: bytes, timeout: float, is_enough: Callable[[bytes], bool]
    ) -> bytes:
        """Read a stream on this thread.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            timeout: Seconds until the stream counts no more.
            is_enough: Tells whether a response ends the wait.

        Returns:
            The first response that is enough.

        Raises:
            TransportError: The stream ended before.
        """
        channel: Any = self._channel().channel
        with _call_errors(closed=ValueError):
            stream = channel.unary_stream(f"/{method}")(request, timeout=timeout)
            try:
                for response in stream:
                    if is_enough(response):
                        return cast("bytes", response)
            finally:
                stream.cancel()
        raise _ended()

    def _channel(self) -> _Open[grpc.Channel]:
        now = time.monotonic()
        with self._lock:
            known = self._sync
            if known is not None and not self._is_old(known, now):
                return known
            state = _state(self._tls.files) if self._tls is not None else ()
            if known is not None:
                # Calls that run on it end before it is closed.
                self._retired.append((now, known.channel))
            for at, channel in [old for old in self._retired if now - old[0] > _RETIRED_SECONDS]:
                self._retired.remove((at, channel))
                channel.close()
            if self._tls is None:
                made = grpc.insecure_channel(self._target, self._options)
            else:
                made = grpc.secure_channel(self._target, self._tls.credentials(), self._options)
            self._sync = _Open(made, state, now)
            return self._sync

    def _is_old(self, known: "_Open[Any]", now: float) -> bool:
        """Whether a channel was made of files that have changed."""
        if self._tls is None or now - known.looked < _LOOK_SECONDS:
            return False
        known.looked = now
        return _state(self._tls.files) != known.state

    def close(self) -> None:
        """Close the channels that belong to no event loop."""
        with self._lock:
            known, self._sync = self._sync, None
            retired, self._retired = self._retired, []
        for _, channel in retired:
            channel.close()
        if known is not None:
            known.channel.close()

    # --- asyncio

    async def acall(self, method: str, request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - it travels
        """Call without blocking the event loop.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            timeout: Seconds until the answer counts no more.

        Returns:
            The encoded answer.

        Raises:
            TransportError: The call failed, or no answer arrived in time.
        """
        send = self._aio_channel().method(method)
        with _call_errors(closed=grpc.aio.UsageError):
            answer: bytes = await send(request, timeout=timeout)
        return answer

    async def alisten(
        self,
        method: str,
        request: bytes,
        timeout: float,  # noqa: ASYNC109 - it travels
        is_enough: Callable[[bytes], bool],
    ) -> bytes:
        """Read a stream without blocking the event loop.

        Args:
            method: `<service>/<method>`.
            request: The encoded request.
            timeout: Seconds until the stream counts no more.
            is_enough: Tells whether a response ends the wait.

        Returns:
            The first response that is enough.

        Raises:
            TransportError: The stream ended before.
        """
        channel: Any = self._aio_channel().channel
        with _call_errors(closed=grpc.aio.UsageError):
            stream = channel.unary_stream(f"/{method}")(request, timeout=timeout)
            try:
                async for response in stream:
                    if is_enough(response):
                        return cast("bytes", response)
            finally:
                stream.cancel()
        raise _ended()

    def _aio_channel(self) -> _Open[grpc.aio.Channel]:
        """The channel of this event loop: grpcio ties one to the loop that made it."""
        loop, now = asyncio.get_running_loop(), time.monotonic()
        known = self._loops.get(loop)
        if known is not None and not self._is_old(known, now):
            return known
        state = _state(self._tls.files) if self._tls is not None else ()
        if known is not None:
            old = known.channel
            loop.call_later(_RETIRED_SECONDS, lambda: loop.create_task(old.close()))
        if self._tls is None:
            made = grpc.aio.insecure_channel(self._target, self._options)
        else:
            made = grpc.aio.secure_channel(self._target, self._tls.credentials(), self._options)
        opened = self._loops[loop] = _Open(made, state, now)
        return opened

    async def aclose(self) -> None:
        """Close every channel of this event loop, and those that belong to none."""
        known = self._loops.pop(asyncio.get_running_loop(), None)
        if known is not None:
            await known.channel.close()
        self.close()


def _ended() -> TransportError:
    number: int = grpc.StatusCode.UNAVAILABLE.value[0]
    return TransportError(number, "the stream ended before its answer")


@contextmanager
def _call_errors(closed: type[Exception]) -> Iterator[None]:
    """Turn errors of a call into `TransportError`.

    Args:
        closed: Error that grpcio raises for a channel that was closed.
    """
    try:
        yield
    except grpc.RpcError as error:
        # The error of a call is an RpcError and a Call at once, which the stubs cannot express.
        call = cast("grpc.Call", error)
        raise _failed(call.code(), call.details(), call.trailing_metadata()) from error
    except closed as error:
        raise _failed(grpc.StatusCode.CANCELLED, "the client is closed", ()) from error


def _failed(code: grpc.StatusCode | None, details: str | None, trailers: Any) -> TransportError:
    status = b""
    for key, value in trailers or ():
        if key == _DETAILS and isinstance(value, bytes):
            status = value
    number = code.value[0] if code is not None else grpc.StatusCode.UNKNOWN.value[0]
    return TransportError(number, details or "", status)
