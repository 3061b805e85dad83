"""Envoy's access log service, by which a proxy reports the results of permitted requests.

A stream lasts as long as the proxy. Each stream has a thread of its own, and their number is bounded.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Final

import grpc

from authz.errors import ApiError, GrpcCode, UnavailableError
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
# Threads that refuse streams over the bound.
_SPARE: Final = 2


class AccessLogs:
    """The streams of one listener.

    Args:
        engine: Takes each message.
        streams: Most open streams.
        default_deadline: Seconds that the engine may take for one message.
        metrics: Counts streams.
        failed: Receives every unexpected exception.
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
        """Number of open streams."""
        return len(self._open)

    def handlers(self, listener: str, facts: ReadFacts) -> dict[str, RawHandler]:
        """Return handlers by method. `facts` reads the transport's facts about a call."""

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
            read: Reads the transport's facts, with the seconds that the call may take.

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
            # The stream has no deadline, but each message has.
            facts = read(context, self._deadline)._replace(remaining=self._deadline)
            # A refused caller is answered before its first message, so that it holds no thread.
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
                raise ApiError("OVERLOADED", GrpcCode.RESOURCE_EXHAUSTED, "too many open streams")
            self._open.add(context)

    def stopping(self) -> None:
        """End every stream, so that the shutdown waits for none. A proxy opens a new one elsewhere."""
        with self._lock:
            self._stopping = True
            contexts = list(self._open)
        for context in contexts:
            context.cancel()

    def close(self) -> None:
        """End the threads."""
        self.stopping()
        self.pool.shutdown(wait=False, cancel_futures=True)


class _Stream:
    """Behaviour of one listener. Its attribute makes grpcio choose another pool."""

    def __init__(self, logs: AccessLogs, read: _Read) -> None:
        self.experimental_thread_pool = logs.pool
        self._logs = logs
        self._read = read

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return self._logs.take(messages, context, self._read)
