"""Health and reflection: on threads of their own, so that open streams never hold a thread that decides."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, Final, TypeAlias, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from authz.errors import ApiError
from authz.server.status import abort

__all__ = ["AnyHandler", "Health", "SideThreads", "reflection_handler"]

AnyHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""A handler of whatever messages."""

_THREADS: Final = 6
_STREAMS: Final = 4
_RESOURCE_EXHAUSTED: Final = 8


class SideThreads:
    """A few threads for what is no decision."""

    def __init__(self) -> None:
        self.pool = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="authz-side")
        self._streams = threading.BoundedSemaphore(_STREAMS)

    def move(self, handler: AnyHandler) -> AnyHandler:
        """Make a handler run on these threads.

        Args:
            handler: From a servicer; unary, or with a stream of answers.

        Returns:
            The same with another thread.
        """
        kind = (
            "unary_unary",
            "unary_stream",
            "stream_unary",
            "stream_stream",
        )[2 * bool(handler.request_streaming) + bool(handler.response_streaming)]
        behavior = getattr(handler, kind)
        streams = bool(handler.request_streaming)
        moved = _Moved(behavior, self.pool, self._streams if streams else None)
        if getattr(behavior, "experimental_non_blocking", False):
            moved.experimental_non_blocking = True
        made: AnyHandler = getattr(grpc, f"{kind}_rpc_method_handler")(
            moved, handler.request_deserializer, handler.response_serializer
        )
        return made

    def close(self) -> None:
        """Let the threads end."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class _Moved:
    """A behaviour with the attribute by which grpcio chooses another pool."""

    def __init__(
        self,
        behavior: Callable[..., Any],
        pool: futures.ThreadPoolExecutor,
        streams: threading.BoundedSemaphore | None,
    ) -> None:
        self.experimental_thread_pool = pool
        self.experimental_non_blocking = False
        self._behavior = behavior
        self._streams = streams

    def __call__(self, request: object, context: grpc.ServicerContext, *more: object) -> object:
        if self._streams is None:
            return self._behavior(request, context, *more)
        if not self._streams.acquire(blocking=False):
            abort(context, ApiError("OVERLOADED", _RESOURCE_EXHAUSTED, "too many open streams"))
        return self._held(self._behavior(request, context), self._streams)

    @staticmethod
    def _held(answers: Iterator[object], streams: threading.BoundedSemaphore) -> Iterator[object]:
        try:
            yield from answers
        finally:
            streams.release()


class _MovedService(grpc.GenericRpcHandler):
    """Moves every handler of another generic handler."""

    def __init__(self, inner: grpc.GenericRpcHandler, side: SideThreads) -> None:
        self._inner = inner
        self._side = side

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "AnyHandler | None":
        """Find and move the handler of a method.

        Args:
            handler_call_details: Which method.

        Returns:
            The handler; none where there is none.
        """
        found = self._inner.service(handler_call_details)
        return None if found is None else self._side.move(found)


class _Recorder:
    """Stands in for a server, to catch what a library would add to it."""

    def __init__(self) -> None:
        self.generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Catch handlers."""
        self.generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Ignore: the generic ones do the same."""


class _Pool:
    """A descriptor pool that also finds methods, for which load generators ask.

    Args:
        pool: The pool, which finds only what contains them.
    """

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's name
        """Find the file of a symbol.

        Args:
            symbol: Full name, of a method too.

        Returns:
            The file.

        Raises:
            KeyError: There is none.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return found.file


class Health:
    """`grpc.health.v1`, with the state of each service.

    Args:
        services: Names that may be asked for.
        side: Threads.
    """

    def __init__(self, services: Sequence[str], side: SideThreads) -> None:
        self._services = ("", *services)
        self._servicer = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=side.pool
        )
        recorder = _Recorder()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, cast("grpc.Server", recorder))
        self.handlers = tuple(_MovedService(handler, side) for handler in recorder.generic)
        self.serving(on=False)

    def serving(self, *, on: bool) -> None:
        """Say whether the services answer.

        Args:
            on: True once the first bundle is loaded.
        """
        status = health_pb2.HealthCheckResponse
        for service in self._services:
            self._servicer.set(service, status.SERVING if on else status.NOT_SERVING)

    def stopping(self) -> None:
        """Say NOT_SERVING for good."""
        self._servicer.enter_graceful_shutdown()


def reflection_handler(
    services: Sequence[str], side: SideThreads
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Make server reflection.

    Args:
        services: Names that are shown.
        side: Threads.

    Returns:
        Its handlers.
    """
    recorder = _Recorder()
    reflection.enable_server_reflection(
        (*services, health.SERVICE_NAME, reflection.SERVICE_NAME),
        cast("grpc.Server", recorder),
        pool=cast("descriptor_pool.DescriptorPool", _Pool(descriptor_pool.Default())),
    )
    return tuple(_MovedService(handler, side) for handler in recorder.generic)
