"""Envoy's access log service, by which a proxy tells what came of what it was permitted.

A stream lasts as long as the proxy, so each has a thread of its own, and there are only so many.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Final

import grpc

from authz.errors import ApiError, UnavailableError
from authz.model import CallFacts, Surface
from authz.server.grpc.decisions import RawHandler, ReadFacts
from authz.server.grpc.errors import answered
from authz.server.grpc.unary import SurfaceCalls
from authz.telemetry import Metrics
from authz.thirdparty.envoy.service.accesslog.v3 import als_pb2

__all__ = ["ACCESS_LOG", "AccessLogs"]

ACCESS_LOG: Final = als_pb2.DESCRIPTOR.services_by_name["AccessLogService"].full_name
"""The service's name."""

_Read = Callable[[grpc.ServicerContext, float], CallFacts]
_METHOD: Final = "StreamAccessLogs"
_RESOURCE_EXHAUSTED: Final = 8
# Threads that tell the streams that are too many.
_SPARE: Final = 2


class AccessLogs:
    """The streams of one listener.

    Args:
        engine: Takes each message.
        streams: How many may be open.
        default_deadline: Seconds that what one entry tells may take.
        metrics: Counts streams.
        failed: Told of every unexpected exception.
    """

    def __init__(
        self,
        engine: SurfaceCalls,
        streams: int,
        default_deadline: float,
        metrics: Metrics,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.pool = futures.ThreadPoolExecutor(streams + _SPARE, thread_name_prefix="authz-log")
        self._engine = engine
        self._streams = streams
        self._deadline = default_deadline
        self._metrics = metrics
        self._failed = failed
        self._lock = threading.Lock()
        self._open: set[grpc.ServicerContext] = set()
        self._stopping = False

    @property
    def open(self) -> int:
        """Open streams."""
        return len(self._open)

    def handlers(self, listener: str, facts: ReadFacts) -> dict[str, RawHandler]:
        """Make the handlers of one listener.

        Args:
            listener: Its name.
            facts: Reads what the transport knows of a call.

        Returns:
            Handlers by method.
        """

        def read(context: grpc.ServicerContext, left: float) -> CallFacts:
            return facts(context, listener, left)

        return {_METHOD: grpc.stream_unary_rpc_method_handler(_Stream(self, read))}

    def take(
        self,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        read: _Read,
    ) -> bytes:
        """Take all messages of a stream, until the proxy or this server ends it.

        Args:
            messages: Encoded messages.
            context: The call.
            read: Reads what the transport knows of it, with the seconds that it has.

        Returns:
            An encoded StreamAccessLogsResponse.
        """
        return answered(
            lambda: self._take(messages, context, read),
            context,
            counted=lambda code: self._metrics.handled(ACCESS_LOG, _METHOD, code),
            failed=self._failed,
            over=(grpc.RpcError,),
        )

    def _take(
        self,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        read: _Read,
    ) -> bytes:
        self._begin(context)
        try:
            # The stream has no deadline; what each message tells has.
            facts = read(context, self._deadline)._replace(remaining=self._deadline)
            # Whoever is not heard holds no thread until it thinks of something to say.
            answer = self._engine.call(Surface.ACCESS_LOG, b"", facts)
            for message in messages:
                answer = self._engine.call(Surface.ACCESS_LOG, message, facts)
            return answer
        finally:
            with self._lock:
                self._open.discard(context)

    def _begin(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            if self._stopping:
                raise UnavailableError("the server stops")
            if len(self._open) >= self._streams:
                raise ApiError("OVERLOADED", _RESOURCE_EXHAUSTED, "too many open streams")
            self._open.add(context)

    def stopping(self) -> None:
        """End every stream, so that nothing waits for one; a proxy opens another, elsewhere."""
        with self._lock:
            self._stopping = True
            contexts = list(self._open)
        for context in contexts:
            context.cancel()

    def close(self) -> None:
        """Let the threads end."""
        self.stopping()
        self.pool.shutdown(wait=False, cancel_futures=True)


class _Stream:
    """The behaviour of one listener, with the attribute by which grpcio chooses another pool."""

    def __init__(self, logs: AccessLogs, read: _Read) -> None:
        self.experimental_thread_pool = logs.pool
        self._logs = logs
        self._read = read

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return self._logs.take(messages, context, self._read)
