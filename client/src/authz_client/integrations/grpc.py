"""Credentials and tasks on gRPC calls, for `grpc` and for `grpc.aio`.

from authz_client.integrations.grpc import aio_client_interceptors, client_interceptors

channel = grpc.intercept_channel(grpc.secure_channel(…), *client_interceptors(TokenFile("/run/spiffe/svid.jwt")))
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeAlias

import grpc
import grpc.aio

from authz_client.base_errors import UsageError
from authz_client.context import TASK_HEADER, outgoing_task
from authz_client.credentials import Credentials, TokenSource, source_of
from authz_client.integrations._grpc_server import (
    GuardedMethod,
    aio_server_interceptor,
    server_interceptor,
)
from authz_client.issued import TaskCredential

__all__ = [
    "GuardedMethod",
    "aio_client_interceptors",
    "aio_server_interceptor",
    "client_interceptors",
    "server_interceptor",
]

_AUTHORIZATION: Final = "authorization"
_HTTP_METHOD: Final = "POST"  # of every gRPC call

_Pairs: TypeAlias = list[tuple[str, str | bytes]]


def client_interceptors(
    credentials: Credentials | TaskCredential | None = None,
    *,
    origin: str = "",
    timeout: float = 1.0,
) -> tuple[grpc.UnaryUnaryClientInterceptor]:
    """Make interceptors of a `grpc.Channel`: they name the current task in each call, and show a credential.

    A call that already names a task, or has `authorization`, keeps its own. Use a channel with TLS, or one that stays on the
    machine: anyone who reads a bearer token can use it.

    Args:
        credentials: The agent's credential, as `Authz` takes it, or a task credential. Default: none is shown.
        origin: The server as its callers name it, such as `https://crm.example`: a proof of possession is for
            `<origin>/<service>/<method>`. Required if a task credential is bound to a key.
        timeout: Seconds that the source of the credential may take.

    Returns:
        `grpc.intercept_channel(channel, *client_interceptors())`.

    Raises:
        UsageError: A bound credential needs `origin`.
    """
    return (_Interceptor(_Shown(credentials, origin, timeout)),)


def aio_client_interceptors(
    credentials: Credentials | TaskCredential | None = None,
    *,
    origin: str = "",
    timeout: float = 1.0,
) -> list[grpc.aio.ClientInterceptor]:
    """As `client_interceptors`, for a `grpc.aio.Channel`.

    Args:
        credentials: The agent's credential, as `Authz` takes it, or a task credential. Default: none is shown.
        origin: The server as its callers name it. Required if a task credential is bound to a key.
        timeout: Seconds that the source of the credential may take.

    Returns:
        `grpc.aio.secure_channel(address, credentials, interceptors=aio_client_interceptors())`.

    Raises:
        UsageError: A bound credential needs `origin`.
    """
    shown = _Shown(credentials, origin, timeout)
    kinds = (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)
    return [kind(shown) for kind in kinds]


class _Shown:
    """Metadata that a call gets: the task, and a credential."""

    def __init__(
        self, credentials: Credentials | TaskCredential | None, origin: str, timeout: float
    ) -> None:
        self._timeout = timeout
        self._origin = origin.removesuffix("/")
        self._credential: TaskCredential | None = None
        self._source: TokenSource | None = None
        if isinstance(credentials, TaskCredential):
            self._credential = credentials
            if credentials.key is not None and not origin:
                raise UsageError(
                    f"the credential for {credentials.operation} is bound to a key, and its proofs are for a URL: "
                    "give the server's origin, such as origin='https://crm.example'"
                )
        elif credentials is not None:
            self._source = source_of(credentials)

    def details(self, details: Any) -> Any:
        pairs = _pairs(details.metadata)
        if self._source is not None and not _has(pairs, _AUTHORIZATION):
            pairs.append((_AUTHORIZATION, f"Bearer {self._source.token(self._timeout)}"))
        return _Details(
            details.method,
            details.timeout,
            self._completed(pairs, details.method),
            getattr(details, "credentials", None),
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )

    async def aio_details(self, details: Any) -> Any:
        pairs = _pairs(details.metadata)
        if self._source is not None and not _has(pairs, _AUTHORIZATION):
            pairs.append((_AUTHORIZATION, f"Bearer {await self._source.atoken(self._timeout)}"))
        return grpc.aio.ClientCallDetails(
            details.method,
            details.timeout,
            grpc.aio.Metadata(*self._completed(pairs, details.method)),
            details.credentials,
            details.wait_for_ready,
        )

    def _completed(self, pairs: _Pairs, method: str | bytes) -> _Pairs:
        if self._credential is not None and not _has(pairs, _AUTHORIZATION):
            path = method.decode("ascii") if isinstance(method, bytes) else method
            pairs.extend(self._credential.headers(_HTTP_METHOD, f"{self._origin}{path}").items())
        task = outgoing_task()
        if task is not None and not _has(pairs, TASK_HEADER):
            pairs.append((TASK_HEADER, task))
        return pairs


def _pairs(metadata: Any) -> _Pairs:
    return [(str(key), value) for key, value in metadata or ()]


def _has(pairs: Iterable[tuple[str, str | bytes]], name: str) -> bool:
    return any(key.lower() == name for key, _ in pairs)


class _Details(NamedTuple):
    """The details of a call, as grpcio's interceptors take them."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, shown: _Shown) -> None:
        self._shown = shown

    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return continuation(self._shown.details(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return continuation(self._shown.details(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self._shown.details(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self._shown.details(client_call_details), request_iterator)


class _Aio:
    def __init__(self, shown: _Shown) -> None:
        self._shown = shown


class _AioUnaryUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(await self._shown.aio_details(client_call_details), request)


class _AioUnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(await self._shown.aio_details(client_call_details), request)


class _AioStreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(
            await self._shown.aio_details(client_call_details), request_iterator
        )


class _AioStreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(
            await self._shown.aio_details(client_call_details), request_iterator
        )
