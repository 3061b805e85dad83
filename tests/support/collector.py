"""A real OTLP receiver: gRPC's TraceService, which keeps what it gets."""

import threading
from concurrent import futures
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans on a port of its own.

    Args:
        stalls: Each export waits until the collector is closed, as with one that hangs.
    """

    def __init__(self, *, stalls: bool = False) -> None:
        self._lock = threading.Lock()
        self._spans: list[trace_pb2.Span] = []
        self._resources: list[dict[str, str]] = []
        self._released = threading.Event()
        if not stalls:
            self._released.set()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def Export(  # noqa: N802 - the service's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Keeps the spans."""
        del context
        self._released.wait()
        with self._lock:
            for of_resource in request.resource_spans:
                self._resources.append(attributes(of_resource.resource))
                for of_scope in of_resource.scope_spans:
                    self._spans.extend(of_scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[trace_pb2.Span]:
        """What came so far."""
        with self._lock:
            return list(self._spans)

    @property
    def resources(self) -> list[dict[str, str]]:
        """Attributes of who sent it."""
        with self._lock:
            return list(self._resources)

    @property
    def endpoint(self) -> str:
        """For `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.stop(0).wait()


def attributes(of: Any) -> dict[str, str]:
    """Returns the attributes of a span or resource, as texts."""
    found = {}
    for pair in of.attributes:
        kind = pair.value.WhichOneof("value")
        found[pair.key] = str(getattr(pair.value, kind)) if kind else ""
    return found
