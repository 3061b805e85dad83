"""Health and reflection, on threads of their own: an open stream must not hold a thread that decides."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, Final, TypeAlias, cast

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from authz.errors import ApiError, GrpcCode
from authz.server.grpc.errors import abort
from authz.server.grpc.receiving import RUNS_ON

__all__ = ["AnyHandler", "Health", "SideThreads", "reflection_handler"]

AnyHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
"""A handler of any messages."""

_STREAMS: Final = 4
_WATCHES: Final = 16
_SPARE: Final = 2
_WATCH_SECONDS: Final = 0.5


class SideThreads:
    """A few threads of one listener for methods that answer without a decision."""

    def __init__(self) -> None:
        threads = _STREAMS + _WATCHES + _SPARE
        self.pool = futures.ThreadPoolExecutor(threads, thread_name_prefix="authz-side")
        self._streams = threading.BoundedSemaphore(_STREAMS)
        self._watches = threading.BoundedSemaphore(_WATCHES)

    def move(self, handler: AnyHandler) -> AnyHandler:
        """Return a handler that runs on these threads: unary, or with a stream of answers."""
        kind = (
            "unary_unary",
            "unary_stream",
            "stream_unary",
            "stream_stream",
        )[2 * bool(handler.request_streaming) + bool(handler.response_streaming)]
        behavior = getattr(handler, kind)
        receives = bool(handler.request_streaming)
        answers = self._watches if handler.response_streaming else None
        moved = _Moved(
            behavior, self.pool, self._streams if receives else answers, receives=receives
        )
        moved_handler: AnyHandler = getattr(grpc, f"{kind}_rpc_method_handler")(
            moved, handler.request_deserializer, handler.response_serializer
        )
        return moved_handler

    def close(self) -> None:
        """End the threads."""
        self.pool.shutdown(wait=False, cancel_futures=True)


class _Moved:
    """A behaviour that runs on the side threads: a stream at once, any other after its message arrived."""

    def __init__(
        self,
        behavior: Callable[..., Any],
        pool: futures.ThreadPoolExecutor,
        streams: threading.BoundedSemaphore | None,
        *,
        receives: bool,
    ) -> None:
        if receives:
            # The attribute by which grpcio chooses another pool.
            self.experimental_thread_pool = pool
        setattr(self, RUNS_ON, pool)
        self._behavior = behavior
        self._streams = streams

    def __call__(self, request: object, context: grpc.ServicerContext, *more: object) -> object:
        if self._streams is None:
            return self._behavior(request, context, *more)
        if not self._streams.acquire(blocking=False):
            abort(
                context,
                ApiError("OVERLOADED", GrpcCode.RESOURCE_EXHAUSTED, "too many open streams"),
            )
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
        """Return the handler of a method, on these threads; `None` for an unknown method."""
        handler = self._inner.service(handler_call_details)
        return None if handler is None else self._side.move(handler)


class _Recorder:
    """Takes the place of a server, to record the handlers that a library adds to it."""

    def __init__(self) -> None:
        self.generic: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Record handlers."""
        self.generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """Ignore: the generic handlers are the same."""


class _Pool:
    """A descriptor pool that also finds methods, for which load generators ask.

    Args:
        pool: The pool, which finds only the services.
    """

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's name
        """Return the file of a symbol, which may be a method; raises KeyError where there is none."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            descriptor = self._pool.FindServiceByName(service)
            if method not in descriptor.methods_by_name:
                raise
            return descriptor.file


class Health:
    """`grpc.health.v1`, with the state of each service.

    The library's own servicer sends to watchers while it holds its lock, so that one watcher that reads nothing blocks all callers.

    Args:
        services: Names that may be asked for.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._services = frozenset(("", *services))
        self._changed = threading.Condition()
        self._serves = False
        self._stopping = False
        self._recorder = _Recorder()
        health_pb2_grpc.add_HealthServicer_to_server(
            _HealthServicer(self), cast("grpc.Server", self._recorder)
        )

    def handlers(self, side: SideThreads) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the handlers of one listener, on its side threads."""
        return tuple(_MovedService(handler, side) for handler in self._recorder.generic)

    def serving(self, *, on: bool) -> None:
        """Set whether the services answer."""
        with self._changed:
            if on != self._serves:
                self._serves = on
                self._changed.notify_all()

    def stopping(self) -> None:
        """Answer NOT_SERVING from now on, for good."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def status(self, service: str) -> health_pb2.HealthCheckResponse:
        """Return SERVING, NOT_SERVING or SERVICE_UNKNOWN for a service; an empty name stands for the node."""
        answer = health_pb2.HealthCheckResponse
        if service not in self._services:
            return answer(status=answer.SERVICE_UNKNOWN)
        serves = self._serves and not self._stopping
        return answer(status=answer.SERVING if serves else answer.NOT_SERVING)

    def wait(self, seconds: float) -> None:
        """Wait for a change, at most so many seconds."""
        with self._changed:
            self._changed.wait(seconds)


class _HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers from the state that `Health` keeps."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def Check(  # noqa: N802 - the method's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer the status of a service."""
        answer = self._health.status(request.service)
        if answer.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            abort(context, ApiError("BAD_INPUT", GrpcCode.NOT_FOUND, "there is no such service"))
        return answer

    def Watch(  # noqa: N802 - the method's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """Send the status of a service, and each change of it."""
        sent = health_pb2.HealthCheckResponse()
        while context.is_active():
            answer = self._health.status(request.service)
            if answer != sent:
                sent = answer
                yield answer
            else:
                self._health.wait(_WATCH_SECONDS)


def reflection_handler(
    services: Sequence[str], side: SideThreads
) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of server reflection that shows these services."""
    recorder = _Recorder()
    reflection.enable_server_reflection(
        (*services, health.SERVICE_NAME, reflection.SERVICE_NAME),
        cast("grpc.Server", recorder),
        pool=cast("descriptor_pool.DescriptorPool", _Pool(descriptor_pool.Default())),
    )
    return tuple(_MovedService(handler, side) for handler in recorder.generic)
