"""Hooks that let the task travel: gRPC metadata, HTTP headers, `_meta` of MCP requests.

What a request names already stays: a call may be made for another task than the current one.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import grpc
import grpc.aio

from authz_client.context import TASK_HEADER, TASK_META, outgoing_task

__all__ = [
    "async_event_hooks",
    "event_hooks",
    "grpc_aio_interceptors",
    "grpc_interceptors",
    "mcp_session",
    "task_headers",
    "task_meta",
]

Session = TypeVar("Session")


def task_headers() -> dict[str, str]:
    """Give the headers that name the current task.

    Returns:
        One header, or none without a task.
    """
    task = outgoing_task()
    return {TASK_HEADER: task} if task is not None else {}


def task_meta(meta: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give `_meta` of an MCP request that names the current task.

    Args:
        meta: Further members.

    Returns:
        A new mapping.
    """
    task = outgoing_task()
    named = {TASK_META: task} if task is not None else {}
    return {**named, **(meta or {})}


# --- httpx


class _Request(Protocol):
    """Part of an httpx request that a hook uses."""

    headers: Any


def _name(request: _Request) -> None:
    task = outgoing_task()
    if task is not None and TASK_HEADER not in request.headers:
        request.headers[TASK_HEADER] = task


def event_hooks() -> dict[str, list[Callable[[Any], None]]]:
    """Make event hooks of `httpx.Client`.

    Returns:
        `httpx.Client(event_hooks=event_hooks())`.
    """
    return {"request": [_name]}


def async_event_hooks() -> dict[str, list[Callable[[Any], Awaitable[None]]]]:
    """Make event hooks of `httpx.AsyncClient`.

    Returns:
        `httpx.AsyncClient(event_hooks=async_event_hooks())`.
    """

    async def name(request: _Request) -> None:
        _name(request)

    return {"request": [name]}


# --- MCP


def mcp_session(session: Session) -> Session:
    """Let an MCP client session name the current task in each request.

    Args:
        session: `mcp.ClientSession`.

    Returns:
        The same session.
    """
    patched = cast("Any", session)
    send = patched.send_request

    async def send_request(request: Any, *args: Any, **kwargs: Any) -> Any:
        return await send(_with_meta(request), *args, **kwargs)

    patched.send_request = send_request
    return session


def _with_meta(request: Any) -> Any:
    """A request whose `_meta` names the task; both major versions of the library take it by this way."""
    task = outgoing_task()
    if task is None:
        return request
    data = request.model_dump(by_alias=True, mode="json", exclude_none=True)
    params = data.setdefault("params", {})
    meta = params.setdefault("_meta", {})
    if TASK_META in meta:
        return request
    meta[TASK_META] = task
    return type(request).model_validate(data)


# --- gRPC


class _Details(NamedTuple):
    """The details of a call, as grpcio's interceptors take them."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


def _pairs(metadata: Any) -> list[tuple[str, str | bytes]]:
    pairs: list[tuple[str, str | bytes]] = [(str(key), value) for key, value in metadata or ()]
    task = outgoing_task()
    if task is not None and all(key.lower() != TASK_HEADER for key, _ in pairs):
        pairs.append((TASK_HEADER, task))
    return pairs


def _details(details: Any) -> Any:
    return _Details(
        details.method,
        details.timeout,
        _pairs(details.metadata),
        getattr(details, "credentials", None),
        getattr(details, "wait_for_ready", None),
        getattr(details, "compression", None),
    )


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return continuation(_details(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return continuation(_details(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(_details(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(_details(client_call_details), request_iterator)


def grpc_interceptors() -> tuple[grpc.UnaryUnaryClientInterceptor]:
    """Make interceptors of a `grpc.Channel`.

    Returns:
        `grpc.intercept_channel(channel, *grpc_interceptors())`.
    """
    return (_Interceptor(),)


def _aio_details(details: Any) -> Any:
    metadata = grpc.aio.Metadata(*_pairs(details.metadata))
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


class _AioUnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(_aio_details(client_call_details), request)


class _AioUnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(_aio_details(client_call_details), request)


class _AioStreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(_aio_details(client_call_details), request_iterator)


class _AioStreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        return await continuation(_aio_details(client_call_details), request_iterator)


def grpc_aio_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """Make interceptors of a `grpc.aio.Channel`.

    Returns:
        `grpc.aio.insecure_channel(address, interceptors=grpc_aio_interceptors())`.
    """
    return [_AioUnaryUnary(), _AioUnaryStream(), _AioStreamUnary(), _AioStreamStream()]
